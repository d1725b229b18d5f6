"""Where a thing appears, whether it is visible, when, how often and from how near it was."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.answering.geometry.places import name_of, place_of
from spatial_mllm_ros.answering.geometry.sizes import solid
from spatial_mllm_ros.answering.measured import Measured, fixed, merged
from spatial_mllm_ros.answering.moments import ends_of, label_of, stamp_of
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.memory.track import GAP_S, GAP_STEPS
from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries import measures as q
from spatial_mllm_ros.queries.answer import Answer, Evidence, Pixel
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.queries.moments import WHOLE, Moment, Now, Span
from spatial_mllm_ros.queries.operands import Box, Operand, Point
from spatial_mllm_ros.scene.measure import PointMeasurement, measure_point
from spatial_mllm_ros.scene.uncertainty import Errors
from spatial_mllm_ros.scene.visibility import Sighting, sight

_NEAR_S = 1.0
_MAX_ELSEWHERE = 0.35
_NEXT_TO_NONE = 0.1
_WITHIN_FRAME = 0.4  # of the time between frames: a bit more than a uniform spread, for views between clear and not
METHOD = "projection with both images' errors, depth compared"


def pixel(c: Context, ask: asks.Pixel) -> Answer:
    """Pixel of a point in the image of a moment; NOT_SEEN when it is out of view or hidden there."""
    point = _marked_point(c, ask.of)
    place = place_of(c, ask.of)
    target, label = _image_at(c, ask.at)
    sighting = sight(point, target.frame, target.frame_id)
    name = place.name
    if sighting.undecided:
        raise QueryError(ErrorCode.ABSTAINED, f"{name} would lie at {_px(sighting)}, but {sighting.reason}")
    if sighting.probability < 0.5:
        raise QueryError(ErrorCode.NOT_SEEN, f"{name} is not visible at {label}: {sighting.reason}")
    c.require_confidence(
        sighting.probability, f"{name} would lie at {_px(sighting)} at {label}, but {sighting.reason or 'only just'}"
    )
    return Answer(
        answer=f"{_px(sighting)} ± {sighting.pixel_stddev:.1f} px",
        answer_type=AnswerType.PIXEL,
        stddev=sighting.pixel_stddev,
        unit="px",
        pixel=Pixel(*sighting.pixel),
        confidence=sighting.probability,
        confidence_method=METHOD,
        source=AnswerSource.GEOMETRY,
        scale_source=ScaleSource.DEPTH,
        evidence=(*place.evidence, c.evidence(target, label, sighting.pixel)),
    )


def visible(c: Context, ask: asks.Visible) -> Answer:
    """Whether a point, or most of what a box encloses, is visible at a moment."""
    target, label = _image_at(c, ask.at)
    if isinstance(ask.of, Box):
        points, evidence = _subjects(c, ask.of)
        chance = _chance_in(c, points, target)
        words = f"{'most' if chance >= 0.5 else 'less than half'} of it is in view"
        return c.boolean(chance, (*evidence, c.evidence(target, label)), words, words, METHOD)
    point, place = _marked_point(c, ask.of), place_of(c, ask.of)
    sighting = sight(point, target.frame, target.frame_id)
    if sighting.undecided:
        raise QueryError(ErrorCode.ABSTAINED, f"it would lie at {_px(sighting)}, but {sighting.reason}")
    shown = sighting.probability >= 0.5
    words = f"it is visible at {_px(sighting)}" if shown else f"it is not visible, {sighting.reason}"
    evidence = (*place.evidence, c.evidence(target, label, sighting.pixel if shown else None))
    return c.boolean(sighting.probability, evidence, words, words, METHOD)


@dataclass(frozen=True, eq=False)
class _Sightings:
    """The frames of a span that are held, by stamp, and each one's chance [n] to show a thing, with the evidence of it."""

    frames: list[StoredFrame]
    chances: NDArray[np.float64]
    evidence: tuple[Evidence, ...]

    @property
    def shown(self) -> NDArray[np.intp]:
        """Indices of the frames that show it."""
        return np.flatnonzero(self.chances >= 0.5)

    @property
    def gap_s(self) -> float:
        """Seconds between frames as a rule."""
        stamps = [f.frame.stamp_ns for f in self.frames]
        return float(np.median(np.diff(stamps)) / 1e9) if len(stamps) > 1 else 0.0


def _sightings(c: Context, of: Operand, span: Span) -> _Sightings:
    def look() -> _Sightings:
        start, end = ends_of(c, span)
        points, evidence = _subjects(c, of)
        frames = c.memory.frames(start, end, c.camera_frame)
        return _Sightings(frames, np.array([_chance_in(c, points, f) for f in frames]), evidence)

    return c.once(("sightings", of, span), look)


def _dropped(c: Context, span: Span) -> int:
    """How many images of a span are held no longer."""
    start, end = ends_of(c, span)
    return max(len(c.track.arrays(start, end)[0]) - len(c.memory.frames(start, end, c.camera_frame)), 0)


def seen(c: Context, ask: asks.Seen) -> Answer:
    """Whether a thing was visible in any image of a span."""
    found = _sightings(c, ask.of, ask.span)
    if not len(found.chances):
        raise QueryError(ErrorCode.NO_FRAMES, "no image of that time is held")
    best = int(np.argmax(found.chances))
    chance = float(found.chances[best])
    if chance < 0.5 and _dropped(c, ask.span):
        raise QueryError(
            ErrorCode.NO_FRAMES,
            "it is in no image that is held, but some of that time were dropped to stay within max_frames and max_bytes",
        )
    count = len(found.shown)
    words = (
        f"{count} of {len(found.frames)} images show it" if count else f"none of {len(found.frames)} images shows it"
    )
    return c.boolean(chance, (*found.evidence, c.evidence(found.frames[best], "seen")), words, words, METHOD)


def seen_count(c: Context, m: q.SeenCount) -> Measured:
    """In how many images a thing was visible."""
    found = _sightings(c, m.of, m.span)
    p = found.chances
    dropped = _dropped(c, m.span)
    if dropped:
        c.remark(f"{dropped} more images of that time are held no longer")
    # frames fail together (a point near a silhouette, a pose a little off): doubts add up, they do not average out
    doubt = float(np.sum(np.where((p > _NEXT_TO_NONE) & (p < 1 - _NEXT_TO_NONE), np.minimum(p, 1 - p), 0.0)))
    own = float(np.sqrt(np.sum(p * (1 - p))))
    return fixed(
        float(len(found.shown)), float(np.hypot(doubt, own)) + dropped, "count", m, evidence=found.evidence,
        scale=ScaleSource.NONE, words=f"{{}} of {len(found.frames)} images show it", more="more often", less="less often",
    )  # fmt: skip


def seen_distance(c: Context, m: q.SeenDistance) -> Measured:
    """From how near a thing was seen."""
    found = _sightings(c, m.of, m.span)
    if not len(found.shown):
        raise QueryError(ErrorCode.NOT_SEEN, "it is not clearly visible in any frame held within the window")
    place = place_of(c, m.of)
    T = [found.frames[i].frame.T_world_camera for i in found.shown]
    away = [float(np.linalg.norm(place.at({}) - t[:3, 3])) for t in T if t is not None]
    frame = found.frames[int(found.shown[int(np.argmin(away))])]
    camera = c.camera_at(frame.frame.stamp_ns)
    # a nearer view that is doubtful may count as well
    maybe = [
        float(np.linalg.norm(place.at({}) - f.frame.T_world_camera[:3, 3]))
        for f, p in zip(found.frames, found.chances, strict=True)
        if p > _NEXT_TO_NONE and f.frame.T_world_camera is not None
    ]
    doubt = (min(away) - min(*maybe, *away)) / 2
    key = ("nearer view", m)

    def near(e: Errors) -> float:
        return float(np.linalg.norm(place.at(e) - camera.pose(e)[:3, 3])) + e.get(key, 0.0)

    return Measured(
        at=near,
        stddevs=merged(place.stddevs, camera.stddevs(depth=False), {key: doubt}),
        unit="m",
        evidence=(*found.evidence, c.evidence(frame, "nearest view")),
        more="farther",
        less="nearer",
    )


def seen_time(c: Context, m: q.SeenTime) -> Measured:
    """When a thing was first or last visible: seconds since the recording's first frame, or ago."""
    first = m.event is q.Event.FIRST
    found = _sightings(c, m.of, WHOLE)
    shown = found.shown
    if not len(shown):
        raise QueryError(ErrorCode.NOT_SEEN, "it is not clearly visible in any frame held within the window")
    index = int(shown[0] if first else shown[-1])
    stamps = np.array([f.frame.stamp_ns for f in found.frames], dtype=np.int64)
    gap = found.gap_s
    seconds = (stamps - stamps[index]) / 1e9
    weight = _turns(found.chances if first else found.chances[::-1])
    away = seconds if first else seconds[::-1]
    elsewhere = float(weight[np.abs(away) > max(_NEAR_S, 5 * gap)].sum())
    if elsewhere > _MAX_ELSEWHERE:
        other = int(np.argmax(np.where(np.abs(away) > max(_NEAR_S, 5 * gap), weight, 0)))
        raise QueryError(
            ErrorCode.ABSTAINED,
            f"it may be at stamp {stamps[index] / 1e9:.3f} s, but as well {away[other]:+.1f} s from then: one of the two "
            "views is doubtful; ask about a time window",
        )
    unseen_s = _gap_beside(stamps, index, -1 if first else 1, gap)
    within = _WITHIN_FRAME * gap
    if unseen_s:
        within = unseen_s / math.sqrt(3)  # anywhere in it, told as its end
        c.remark(
            f"images are missing for {unseen_s:.1f} s just {'before' if first else 'after'}: it may have been then"
        )
    stddev = float(np.sqrt(within**2 + weight @ away**2))
    stamp = int(stamps[index])
    if m.ago:
        value, words = (c.present - stamp) / 1e9, "{} ago"
    else:
        begin = c.track.first
        value, words = (stamp - (int(stamps[0]) if begin is None else begin)) / 1e9, "{} after the first frame"
    label = "first" if first else "last"
    return fixed(
        value, stddev, "s", m, evidence=(*found.evidence, c.evidence(found.frames[index], label)), scale=ScaleSource.NONE,
        words=words + f" (stamp {stamp / 1e9:.3f} s)", more="later", less="earlier",
    )  # fmt: skip


def _gap_beside(stamps: NDArray[np.int64], index: int, side: int, usual_s: float) -> float:
    """Seconds without images before (side -1) or after (side 1) one of them; 0 where they came as usual."""
    other = index + side
    if not 0 <= other < len(stamps):
        return 0.0
    seconds = abs(int(stamps[index]) - int(stamps[other])) / 1e9
    return seconds if seconds > max(GAP_STEPS * usual_s, GAP_S) else 0.0


def count(c: Context, m: q.Count) -> Measured:
    """How many images or keyframes are held."""
    if m.what is q.Countable.KEYFRAMES:
        number = len(c.memory.keyframes(c.config.max_keyframes, c.window_start, c.window_end).picked)
        words = "{} keyframes"
    elif m.what is q.Countable.FRAMES:
        number, words = len(c.frames()), "{} images are held"
    else:
        raise QueryError(ErrorCode.NOT_AVAILABLE, f"{m.what.value} are not counted: there is no map that knows them")
    return fixed(float(number), 0.0, "count", m, evidence=c.best_frames(2), scale=ScaleSource.NONE, words=words)


def _turns(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability that each frame is the first to show something, given each one's chance [n] to show it.

    Frames fail together (a point near a silhouette, a pose a little off), so the chance of having been seen by then is
    the best one so far, not one that many poor views add up to. Chances next to none count as none.
    """
    by_then = np.maximum.accumulate(np.where(chances < _NEXT_TO_NONE, 0.0, chances))
    return np.diff(by_then, prepend=0.0) / by_then[-1]


def _marked_point(c: Context, of: Operand) -> PointMeasurement:
    if not isinstance(of, Point):
        raise QueryError(ErrorCode.NOT_AVAILABLE, f"where {name_of(of)} is in an image is not told: mark a point of it")
    return c.point(of.index)[0]


def _subjects(c: Context, of: Operand) -> tuple[list[PointMeasurement], tuple[Evidence, ...]]:
    """Points whose sighting counts: the marked one, or a few spread over what the box encloses."""
    if isinstance(of, Point):
        place = place_of(c, of)
        assert place.point is not None
        return [place.point], place.evidence
    if not isinstance(of, Box):
        raise QueryError(
            ErrorCode.NOT_AVAILABLE, f"whether {name_of(of)} was seen is not told: mark a point on it or a box round it"
        )
    place, (_, stored) = place_of(c, of), c.box(of.index)
    pixels = solid(c, of.index).found.pixels
    order = np.linspace(0, len(pixels) - 1, 25).astype(int)[2:-2:2]
    measured = [
        measure_point(stored.frame, stored.frame_id, float(pixels[i, 0]), float(pixels[i, 1]), c.sensor) for i in order
    ]
    points = [p for p in measured if p is not None and not p.at_edge]
    if not points:
        raise QueryError(ErrorCode.NOT_SEEN, f"no surface could be measured inside {place.name}")
    return points, place.evidence


def _chance_in(c: Context, points: list[PointMeasurement], stored: StoredFrame) -> float:
    """Probability that a frame shows the subject: the median over its points."""
    c.check()
    camera, T = stored.frame.camera, stored.frame.T_world_camera
    assert camera is not None
    assert T is not None
    world = np.array([p.world_point({}) for p in points])
    X = (world - T[:3, 3]) @ T[:3, :3]
    uv = camera.project(X)
    margin = 25  # px; what is clearly outside needs no error propagation
    upper = np.array([camera.width, camera.height]) + margin
    near = np.atleast_1d(((uv > -margin) & (uv < upper)).all(axis=1))
    if np.count_nonzero(near) * 2 < len(points):
        return 0.0
    chances = []
    for i, point in enumerate(points):
        if near[i]:
            sighting: Sighting = sight(point, stored.frame, stored.frame_id)
            chances.append(0.4 if sighting.undecided else sighting.probability)
        else:
            chances.append(0.0)
    return float(np.median(chances))


def _image_at(c: Context, at: Moment) -> tuple[StoredFrame, str]:
    """The image of a moment; now: the newest."""
    if not isinstance(at, Now):
        return c.frame_at(stamp_of(c, at), label_of(at)), label_of(at)
    frames = c.frames()
    if not frames:
        raise QueryError(ErrorCode.NO_FRAMES, "no frame is held within the window")
    return frames[-1], "now"


def _px(sighting: Sighting) -> str:
    u, v = sighting.pixel
    return f"pixel ({u:.0f}, {v:.0f})" if np.isfinite(u) else "no pixel"
