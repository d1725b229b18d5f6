"""How the camera moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.answering.directions import describe_motion
from spatial_mllm_ros.answering.geometry.bearing import direction_answer
from spatial_mllm_ros.answering.geometry.places import place_of, upright_axes
from spatial_mllm_ros.answering.measured import Measured, chance_above, fixed, merged
from spatial_mllm_ros.answering.moments import ends_of, label_of, stamp_of
from spatial_mllm_ros.memory.track import across_gap, gaps, jitter
from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries import measures as q
from spatial_mllm_ros.queries.answer import Answer, Evidence
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.queries.moments import Moment, Span
from spatial_mllm_ros.scene.pose import invert, rotation_angle
from spatial_mllm_ros.scene.uncertainty import Errors, propagate

STILL_M_S = 0.03
"""Slower than this is standing still: people and robots that stand sway and creep, below this (our choice)."""
STILL_DEG_S = 3.0
"""The same for turning."""
_AROUND_S = 0.25
"""Speed at a moment is that over this long before and after it."""
_NEAREST_PASS_M = 0.3
_SHORTEST_STEP = 8  # deviations of a position
_EXCESS_DOUBT = 0.5  # of what noise adds to a path: it is told by the poses, and taken off to second order
_LEVEL_WORLD = np.cos(np.radians(3))


def turn(c: Context, m: q.Turn) -> Measured:
    """Angle of the rotation between the camera's orientations at two moments, or its part about the vertical."""
    start, end = ends_of(c, m.span)
    a, b = c.camera_at(start, label_of(m.span.begin)), c.camera_at(end, label_of(m.span.end))
    stddevs = merged(a.stddevs(depth=False), b.stddevs(depth=False))
    evidence = _ends(c, start, end)
    if not m.about_up:

        def whole(e: Errors) -> float:
            return float(np.degrees(rotation_angle(invert(a.pose(e)) @ b.pose(e))))

        return Measured(at=whole, stddevs=stddevs, unit="deg", evidence=evidence, scale=ScaleSource.NONE)
    gravity = c.gravity()

    def left(e: Errors) -> float:
        was, now = upright_axes(gravity, a.pose(e)), upright_axes(gravity, b.pose(e))
        along = was @ now[2]
        return float(np.degrees(np.arctan2(-along[0], along[2])))

    side = "to the left" if left({}) >= 0 else "to the right"
    return Measured(
        at=left,
        stddevs=stddevs,
        unit="deg",
        evidence=evidence,
        scale=ScaleSource.NONE,
        words=f"{{}}, {side}",
        more="farther to the left",
        less="farther to the right",
        period=360.0,
    )


@dataclass(frozen=True, eq=False)
class _Path:
    """Length of a path and its deviation, metres, and its first and last stamp (ns)."""

    length: float
    stddev: float
    start: int
    end: int


def _path(c: Context, span: Span) -> _Path:
    """Length of the camera's path between two moments.

    Noise makes a path look longer: each step d of noisy positions is too long by about 2 s^2 / d, s being the noise on
    an axis (the two directions across the step, to second order, for two noisy ends). How much noise there is, the
    positions themselves tell, up to what is known of the poses. Steps are taken no shorter than 8 s, and that excess is
    taken off. To first order the noise of an inner vertex counts only as far as the path bends there, |u' - u| for
    directions u; the two ends count whole. What steps half as long would
    make of it is a doubt. Where images are missing the path is a chord: what it may cut off is added.
    """
    start, end = ends_of(c, span)
    stamps, poses = c.track.arrays(start, end)
    if len(stamps) < 2:
        raise QueryError(ErrorCode.NO_FRAMES, "a path needs at least two poses within the interval")
    positions = poses[:, :3]
    told = jitter(stamps, positions)
    noise = c.sensor.pose_position_m if told is None else min(told, c.sensor.pose_position_m)
    lengths, excess, bends = _walked(positions, noise, _SHORTEST_STEP)
    shorter, less, _ = _walked(positions, noise, _SHORTEST_STEP / 2)
    missing = [(int(i), *across_gap(stamps, positions, int(i))) for i in gaps(stamps)]
    if missing:
        seconds = sum(float(stamps[i + 1] - stamps[i]) / 1e9 for i, _, _ in missing)
        c.remark(f"images are missing for {seconds:.1f} s of it, so what was driven there is estimated")
    walked = max(lengths - excess, 0.0)
    coarse = (
        walked - max(shorter - less, 0.0)
    ) / 2  # by how much it depends on the steps: corners cut, noise that is left
    value = walked + sum(more for _, more, _ in missing)
    ends = 2 * (c.sensor.pose_position_m**2 + c.sensor.drift_position_m**2)
    unseen = sum(stddev**2 for _, _, stddev in missing)
    stddev = float(np.sqrt(ends + noise**2 * bends + (_EXCESS_DOUBT * excess) ** 2 + coarse**2 + unseen))
    return _Path(value, stddev, int(stamps[0]), int(stamps[-1]))


def _walked(positions: NDArray[np.float64], noise: float, shortest: float) -> tuple[float, float, float]:
    """Length through positions [n, 3] in steps of at least so many deviations, what noise adds to it (metres), and the
    sum of the squares of its bends."""
    steps = _steps(positions, shortest * noise)
    lengths = np.linalg.norm(steps, axis=1)
    excess = float(np.sum(2 * noise**2 / np.maximum(lengths, max(shortest * noise, 1e-9))))
    bends = np.diff(steps / np.maximum(lengths, 1e-12)[:, None], axis=0)
    return float(lengths.sum()), excess, float(np.sum(bends**2))


def path_length(c: Context, m: q.PathLength) -> Measured:
    """Length of the camera's path."""
    path = _path(c, m.span)
    return fixed(
        path.length, path.stddev, "m", m, evidence=_ends(c, path.start, path.end), scale=ScaleSource.TF, more="longer",
        less="shorter",
    )  # fmt: skip


def mean_speed(c: Context, m: q.MeanSpeed) -> Measured:
    """Path length over time."""
    path = _path(c, m.span)
    seconds = (path.end - path.start) / 1e9
    return fixed(
        path.length / seconds, path.stddev / seconds, "m/s", m, evidence=_ends(c, path.start, path.end),
        scale=ScaleSource.TF, more="faster", less="slower",
    )  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class _Rates:
    """How fast the camera moved and turned at a moment: m/s and degrees/s, with deviations."""

    speed: float
    speed_stddev: float
    turning: float
    turning_stddev: float


def _rates(c: Context, stamps: NDArray[np.int64], poses: NDArray[np.float64]) -> _Rates:
    """From poses [n, 7] round a moment: the slope of a straight line through them.

    The deviation is that of the slope for the poses' noise, or for what they scatter about it, whichever is more. The
    length of a noisy slope is too long by about (n - 1) s^2 / (2 v), which is taken off.
    """
    t = (stamps - stamps.mean()) / 1e9
    spread = float(np.sqrt(np.sum(t**2)))
    positions = poses[:, :3] - poses[:, :3].mean(axis=0)
    slope = t @ positions / spread**2
    turns = Rotation.from_quat(poses[:, 3:])
    vectors = (turns[len(turns) // 2].inv() * turns).as_rotvec()
    spin = t @ (vectors - vectors.mean(axis=0)) / spread**2

    def noise(own: float, of: NDArray[np.float64], rate: NDArray[np.float64]) -> float:
        left = of - of.mean(axis=0) - np.outer(t, rate)
        scatter = float(np.sqrt(np.sum(left**2) / max(3 * (len(t) - 2), 1))) if len(t) > 2 else 0.0
        return max(own, scatter) / spread

    speed_noise = noise(c.sensor.pose_position_m, positions, slope)
    spin_noise = noise(c.sensor.pose_rotation_rad, vectors, spin)
    return _Rates(
        speed=_length(slope, speed_noise),
        speed_stddev=speed_noise,
        turning=float(np.degrees(_length(spin, spin_noise))),
        turning_stddev=float(np.degrees(spin_noise)),
    )


def _length(v: NDArray[np.float64], noise: float) -> float:
    """Length of a vector [3] whose parts are each off by ``noise``: without what noise across it adds."""
    return float(np.sqrt(max(float(v @ v) - 2 * noise**2, 0.0)))


def _rates_at(c: Context, at: Moment) -> tuple[_Rates, tuple[Evidence, ...]]:
    stamp = stamp_of(c, at)
    reach = int(_AROUND_S * 1e9)
    stamps, poses = c.track.arrays(max(stamp - reach, 1), stamp + reach)
    if len(stamps) < 2:  # slow cameras: the neighbours, however far the gap that poses may have
        reach = int(c.config.max_gap_s * 1e9)
        stamps, poses = c.track.arrays(max(stamp - reach, 1), stamp + reach)
        near = np.argsort(np.abs(stamps - stamp), kind="stable")[:2]
        near.sort()
        stamps, poses = stamps[near], poses[near]
    if len(stamps) < 2:
        raise QueryError(ErrorCode.NO_FRAMES, f"how fast it moved at {label_of(at)} needs two poses near then")
    return _rates(c, stamps, poses), c.moment_evidence(stamp, label_of(at))


def speed(c: Context, m: q.Speed) -> Measured:
    """The camera's speed at a moment."""
    rates, evidence = _rates_at(c, m.at)
    return fixed(
        rates.speed, rates.speed_stddev, "m/s", m, evidence=evidence, scale=ScaleSource.TF, more="faster", less="slower"
    )


def moving(c: Context, ask: asks.Moving) -> Answer:
    """Whether the camera moved or turned at a moment."""
    rates, evidence = _rates_at(c, ask.at)
    words = (
        f"{c.in_words(rates.speed, rates.speed_stddev, 'm/s')} and {rates.turning:.1f}°/s; still means less than "
        f"{STILL_M_S} m/s and {STILL_DEG_S:g}°/s"
    )
    return c.boolean(_chance_moving(rates), evidence, words, words, "gaussian", ScaleSource.TF)


def _chance_moving(rates: _Rates) -> float:
    goes = chance_above(rates.speed, rates.speed_stddev, STILL_M_S)
    turns = chance_above(rates.turning, rates.turning_stddev, STILL_DEG_S)
    return 1 - (1 - goes) * (1 - turns)


def time_spent(c: Context, m: q.TimeSpent) -> Measured:
    """How long the camera stood still, or moved: judged moment by moment."""
    start, end = ends_of(c, m.span)
    stamps, poses = c.track.arrays(start, end)
    if len(stamps) < 3:
        raise QueryError(ErrorCode.NO_FRAMES, "how long it moved needs more poses within the interval")
    reach = int(_AROUND_S * 1e9)
    edges = np.append(stamps[0], np.append((stamps[1:] + stamps[:-1]) / 2, stamps[-1]))
    shares = np.diff(edges) / 1e9
    chances = np.empty(len(stamps))
    for i, stamp in enumerate(stamps):
        first, last = np.searchsorted(stamps, (stamp - reach, stamp + reach + 1))
        first, last = min(first, max(i - 1, 0)), max(last, min(i + 2, len(stamps)))
        chances[i] = _chance_moving(_rates(c, stamps[first:last], poses[first:last]))
    chances = chances if m.moving else 1 - chances
    switches = int(np.count_nonzero(np.diff(chances > 0.5)))
    # neighbours are judged by the same poses, so their doubts do not average out; a switch is blurred over the window
    doubt = float(np.sum(shares * np.minimum(chances, 1 - chances)))
    stddev = float(np.hypot(doubt, _AROUND_S / 2 * np.sqrt(switches)))
    what = "moved or turned" if m.moving else "stood still"
    return fixed(
        float(shares[chances > 0.5].sum()), stddev, "s", m, evidence=_ends(c, int(stamps[0]), int(stamps[-1])),
        scale=ScaleSource.NONE, words=f"{{}} in which the camera {what}", more="longer", less="shorter",
    )  # fmt: skip


def moved_direction(c: Context, ask: asks.MotionDirection) -> Answer:
    """Direction of the camera's displacement, in the camera's axes at the first moment."""
    start, end = ends_of(c, ask.span)
    a, b = c.camera_at(start), c.camera_at(end)

    def moved(e: Errors) -> NDArray[np.float64]:
        A = a.pose(e)
        return np.asarray(A[:3, :3].T @ (b.pose(e)[:3, 3] - A[:3, 3]))

    value, covariance = propagate(moved, merged(a.stddevs(depth=False), b.stddevs(depth=False)))
    length = float(np.linalg.norm(value))
    along = value / max(length, 1e-12)
    stddev = float(np.sqrt(along @ covariance @ along))
    if length < 3 * stddev:
        raise QueryError(
            ErrorCode.ABSTAINED,
            f"the camera hardly moved: {c.in_words(length, stddev, 'm')}, too little for a direction",
        )
    world = b.T_world_camera[:3, 3] - a.T_world_camera[:3, 3]
    words = f"{describe_motion(value)}, {c.in_words(length, stddev, 'm')}"
    return direction_answer(
        c, value, covariance, words, world, (length, stddev), start, _ends(c, start, end), ScaleSource.TF
    )


def shift(c: Context, m: q.Shift) -> Measured:
    """The part of the camera's displacement along an axis of its own at the beginning, level."""
    start, end = ends_of(c, m.span)
    a, b = c.camera_at(start), c.camera_at(end)
    gravity = c.gravity()
    row, sign = {q.Axis.FORWARD: (2, 1.0), q.Axis.LEFT: (0, -1.0), q.Axis.UP: (1, -1.0)}[m.axis]

    def along(e: Errors) -> float:
        A = a.pose(e)
        return float(sign * upright_axes(gravity, A)[row] @ (b.pose(e)[:3, 3] - A[:3, 3]))

    other = {q.Axis.FORWARD: "backward", q.Axis.LEFT: "to the right", q.Axis.UP: "down"}
    way = {q.Axis.FORWARD: "forward", q.Axis.LEFT: "to the left", q.Axis.UP: "up"}
    return Measured(
        at=along,
        stddevs=merged(a.stddevs(depth=False), b.stddevs(depth=False)),
        unit="m",
        evidence=_ends(c, start, end),
        scale=ScaleSource.TF,
        words=f"{{}} ({(way if along({}) >= 0 else other)[m.axis]})",
    )


def heading(c: Context, m: q.Heading) -> Measured:
    """Direction that the camera looks in, in the fixed frame: from x towards y."""
    gravity, stamp = c.gravity(), stamp_of(c, m.at)
    if not gravity.assumed and gravity.T_zup_from_world[2, 2] < _LEVEL_WORLD:
        raise QueryError(
            ErrorCode.NOT_AVAILABLE, "the fixed frame is not level, so a direction in it has no heading: ask for a turn"
        )
    camera = c.camera_at(stamp, label_of(m.at))

    def looks(e: Errors) -> float:
        x, y, _ = camera.pose(e)[:3, 2].tolist()
        return float(np.degrees(np.arctan2(y, x)))

    if np.linalg.norm(camera.T_world_camera[:2, 2]) < 0.17:
        raise QueryError(ErrorCode.ABSTAINED, "the camera looks straight up or down: it has no heading")
    return Measured(
        at=looks,
        stddevs=camera.stddevs(depth=False),
        unit="deg",
        evidence=c.moment_evidence(stamp, label_of(m.at)),
        scale=ScaleSource.NONE,
        words=f"{{}} from the x axis of {c.memory.world_frame} towards y",
        period=360.0,
    )


def elapsed(c: Context, m: q.Elapsed) -> Measured:
    """Time between two moments, negative where the second was before the first."""
    start, end = stamp_of(c, m.span.begin), stamp_of(c, m.span.end)
    return fixed(
        (end - start) / 1e9, 0.0, "s", m, evidence=_ends(c, start, end), scale=ScaleSource.NONE, more="longer",
        less="shorter",
    )  # fmt: skip


def closest_approach(c: Context, m: q.ClosestApproach) -> Measured:
    """How near the camera came to a thing: at its nearest part where a box shows it."""
    start, end = ends_of(c, m.span)
    place = place_of(c, m.to)
    stamps, poses = c.track.arrays(start, end)
    if not len(stamps):
        raise QueryError(ErrorCode.NO_FRAMES, "there are no poses within the interval")
    target = place.at({})[None] if place.solid is None else place.solid.found.world[::10]
    away = np.array([np.linalg.norm(target - p, axis=1).min() for p in poses[:, :3]])
    nearest = int(np.argmin(away))
    camera = c.camera_at(int(stamps[nearest]))
    part = int(np.argmin(np.linalg.norm(target - poses[nearest, :3], axis=1)))
    between = _missed(poses[:, :3], nearest)
    solid, key = place.solid, ("between poses", m)

    def near(e: Errors) -> float:
        at = place.at(e) if solid is None else solid.surface(np.array([part * 10]), e)[0]
        return float(np.linalg.norm(at - camera.pose(e)[:3, 3])) + e.get(key, 0.0)

    own = place.stddevs if solid is None else solid.surface_stddevs()
    return Measured(
        at=near,
        stddevs=merged(own, camera.stddevs(depth=False), {key: between}),
        unit="m",
        evidence=(*place.evidence, *c.moment_evidence(int(stamps[nearest]), "nearest")),
        words=f"{{}}, {(int(stamps[nearest]) - c.start) / 1e9:.1f} s after the start" + place.note,
        more="farther",
        less="nearer",
    )


def _missed(positions: NDArray[np.float64], nearest: int) -> float:
    """How much nearer it may have been between two poses, metres.

    At the nearest point of a straight way past something at distance d, half a step s to either side is s^2 / (8 d)
    farther; half of that for how near the nearest pose was, with 0.3 m as the nearest that a camera passes.
    """
    around = positions[max(nearest - 1, 0) : nearest + 2]
    step = float(np.linalg.norm(np.diff(around, axis=0), axis=1).max(initial=0.0))
    return step**2 / 16 / _NEAREST_PASS_M


def _ends(c: Context, start: int, end: int) -> tuple[Evidence, ...]:
    return (*c.moment_evidence(start, "start"), *c.moment_evidence(end, "end"))


def _steps(positions: NDArray[np.float64], shortest: float) -> NDArray[np.float64]:
    """Steps [m, 3] between successive positions [n, 3] that lie at least ``shortest`` apart; the last one is the rest."""
    steps = []
    last = positions[0]
    for position in positions[1:]:
        step = position - last
        if np.linalg.norm(step) >= max(shortest, 1e-9):
            steps.append(step)
            last = position
    rest = positions[-1] - last
    length = float(np.linalg.norm(rest))
    if length > 0 and (steps or length > shortest / 2):
        steps.append(rest)
    return np.array(steps).reshape(-1, 3)
