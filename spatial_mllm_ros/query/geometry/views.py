"""Where a point appears, whether it is visible, and when it was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.memory.view import StoredFrame
from spatial_mllm_ros.queries.answer import Answer, Evidence, Pixel
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.query.context import Context
from spatial_mllm_ros.query.geometry.sizes import object_points
from spatial_mllm_ros.scene.measure import PointMeasurement, measure_point
from spatial_mllm_ros.scene.visibility import Sighting, sight

_NEAR_S = 1.0
_MAX_ELSEWHERE = 0.35
_NEXT_TO_NONE = 0.1
_WITHIN_FRAME = 0.4  # of the time between frames: a bit more than a uniform spread, for views between clear and not
METHOD = "projection with both images' errors, depth compared"


def where(c: Context) -> Answer:
    """Pixel of a point in the image of a moment; NOT_SEEN when it is out of view or hidden there."""
    point, stored = c.point(0)
    target, label = _target(c)
    sighting = sight(point, target.frame, target.frame_id)
    name = f"<p{c.parsed.points[0]}>"
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
        evidence=(c.point_evidence(0, stored), c.evidence(target, label, sighting.pixel)),
    )


def visible(c: Context) -> Answer:
    """Whether a point is visible (or hidden, as asked) at a moment or now."""
    point, stored = c.point(0)
    target, label = _target(c)
    sighting = sight(point, target.frame, target.frame_id)
    if sighting.undecided:
        raise QueryError(ErrorCode.ABSTAINED, f"it would lie at {_px(sighting)}, but {sighting.reason}")
    shown = sighting.probability >= 0.5
    evidence = (c.point_evidence(0, stored), c.evidence(target, label, sighting.pixel if shown else None))
    words = f"it is visible at {_px(sighting)}" if shown else f"it is not visible, {sighting.reason}"
    chance = 1 - sighting.probability if c.parsed.negated else sighting.probability
    return c.boolean(chance, evidence, words, words, METHOD)


def seen_when(c: Context) -> Answer:
    """When a point, or what a box encloses, was first or last visible: seconds since the recording's first frame."""
    points, evidence = _subjects(c)
    first = c.parsed.family == "first_seen"
    frames = c.frames()
    chances = np.array([_chance_in(c, points, f) for f in frames])
    seen = np.flatnonzero(chances >= 0.5)
    if not len(seen):
        raise QueryError(ErrorCode.NOT_SEEN, "it is not clearly visible in any frame held within the window")
    index = int(seen[0] if first else seen[-1])
    stamps = np.array([f.frame.stamp_ns for f in frames], dtype=np.int64)
    gap = np.median(np.diff(stamps)) / 1e9 if len(stamps) > 1 else 0.0
    seconds = (stamps - stamps[index]) / 1e9
    weight = _turns(chances if first else chances[::-1])
    away = seconds if first else seconds[::-1]
    elsewhere = float(weight[np.abs(away) > max(_NEAR_S, 5 * gap)].sum())
    if elsewhere > _MAX_ELSEWHERE:
        other = int(np.argmax(np.where(np.abs(away) > max(_NEAR_S, 5 * gap), weight, 0)))
        raise QueryError(
            ErrorCode.ABSTAINED,
            f"it may be at stamp {stamps[index] / 1e9:.3f} s, but as well {away[other]:+.1f} s from then: one of the two "
            "views is doubtful; ask about a time window",
        )
    stddev = float(np.sqrt((_WITHIN_FRAME * gap) ** 2 + weight @ away**2))
    track = c.track
    begin = track.first if track.first is not None else int(stamps[0])
    value = (int(stamps[index]) - begin) / 1e9
    words = "{} after the first frame (stamp " + f"{stamps[index] / 1e9:.3f} s)"
    answer = c.number(value, stddev, "s", (*evidence, c.evidence(frames[index], "first" if first else "last")), words)
    return answer


def _turns(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability that each frame is the first to show something, given each one's chance [n] to show it.

    Frames fail together (a point near a silhouette, a pose a little off), so the chance of having been seen by then is
    the best one so far, not one that many poor views add up to. Chances next to none count as none.
    """
    by_then = np.maximum.accumulate(np.where(chances < _NEXT_TO_NONE, 0.0, chances))
    return np.diff(by_then, prepend=0.0) / by_then[-1]


def _subjects(c: Context) -> tuple[list[PointMeasurement], tuple[Evidence, ...]]:
    """Points whose sighting counts: the marked one, or a few spread over what the box encloses."""
    if c.parsed.points:
        point, stored = c.point(0)
        return [point], (c.point_evidence(0, stored),)
    box, stored = c.box(0)
    label = f"<box{c.parsed.boxes[0]}>"
    pixels = object_points(c, box, stored).pixels
    order = np.linspace(0, len(pixels) - 1, 25).astype(int)[2:-2:2]
    measured = [
        measure_point(stored.frame, stored.frame_id, float(pixels[i, 0]), float(pixels[i, 1]), c.sensor) for i in order
    ]
    points = [p for p in measured if p is not None and not p.at_edge]
    if not points:
        raise QueryError(ErrorCode.NOT_SEEN, f"no surface could be measured inside {label}")
    return points, (c.box_evidence(stored, box, label),)


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


def _target(c: Context) -> tuple[StoredFrame, str]:
    """The frame asked about: that of a moment, or the newest."""
    if c.parsed.times:
        return c.frame_at(0), f"<t{c.parsed.times[0]}>"
    frames = c.frames()
    if not frames:
        raise QueryError(ErrorCode.NO_FRAMES, "no frame is held within the window")
    return frames[-1], "now"


def _px(sighting: Sighting) -> str:
    u, v = sighting.pixel
    return f"pixel ({u:.0f}, {v:.0f})" if np.isfinite(u) else "no pixel"
