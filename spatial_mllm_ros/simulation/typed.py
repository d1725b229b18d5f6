"""Typed questions about a rendered recording, each with its words and its exact truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spatial_mllm_ros.language.canonical import words
from spatial_mllm_ros.queries import asks as a
from spatial_mllm_ros.queries import measures as m
from spatial_mllm_ros.queries import moments as t
from spatial_mllm_ros.queries import operands as o
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.serialization import to_json
from spatial_mllm_ros.scene.pose import apply
from spatial_mllm_ros.simulation.ground_truth import Point

if TYPE_CHECKING:
    from spatial_mllm_ros.simulation.truth import Asker, Question

_CLEAR = 0.15
"""How far apart what is compared must be, as a share of it: nearer ones may rightly be too close to call."""


def _ask(asker: Asker, ask: a.Ask | m.Measure, expect: dict[str, Any], silent: bool = False, **marks: Any) -> Question:
    """silent: the query alone asks, without words."""
    query = Query(ask=a.Value(of=ask) if isinstance(ask, m.Measure) else ask)
    return asker.question("" if silent else words(query), expect, **marks) | {"query": to_json(query)}


def _number(value: float, unit: str, absolute: float, relative: float) -> dict[str, Any]:
    slack = max(absolute, relative * abs(value))
    accept = [round(value - slack, 4), round(value + slack, 4)]
    return {"error_code": "NONE", "answer_type": "NUMBER", "value": round(value, 7), "unit": unit, "accept": accept}


def _boolean(value: bool) -> dict[str, Any]:
    return {"error_code": "NONE", "answer_type": "BOOLEAN", "value": float(value)}


def _p(index: int) -> o.Point:
    return o.Point(index=index)


def _points(asker: Asker, count: int, one_image: bool = False) -> tuple[Point, ...] | None:
    first = asker.ground_truth.point()
    if first is None:
        return None
    found = [first]
    for _ in range(4 * count):
        other = asker.ground_truth.point(first.frame if one_image else None)
        if other is not None and all(np.linalg.norm(other.xyz - p.xyz) > 0.3 for p in found):
            found.append(other)
        if len(found) == count:
            return tuple(found)
    return None


# ---- comparisons


def superlative(asker: Asker) -> Question | None:
    """Which of 3 to 8 points is the highest, lowest, nearest or farthest."""
    points = _points(asker, int(asker.rng.integers(3, 9)))
    if points is None:
        return None
    kind = int(asker.rng.integers(3))
    of: Sequence[m.Measure]
    if kind == 0:
        of = [m.Height(of=_p(i)) for i in range(len(points))]
        values = np.array([p.xyz[2] for p in points])
    elif kind == 1:
        of = [m.Distance(a=_p(i), b=o.Camera(at=t.MarkedMoment(index=0))) for i in range(len(points))]
        time = int(asker.rng.integers(len(asker.times)))
        values = np.array([np.linalg.norm(p.xyz - asker.positions[time]) for p in points])
    else:
        of = [m.Distance(a=_p(0), b=_p(i)) for i in range(1, len(points))]
        values = np.array([np.linalg.norm(p.xyz - points[0].xyz) for p in points[1:]])
    largest = bool(asker.rng.random() < 0.5)
    order = np.argsort(-values if largest else values)
    if abs(values[order[0]] - values[order[1]]) < max(_CLEAR * values.max() / 2, 0.05):
        return None
    best = int(order[0]) + (kind == 2)
    ask = a.Extreme(of=tuple(of), which=a.Which.LARGEST if largest else a.Which.SMALLEST)
    expect = {"error_code": "NONE", "answer_type": "CHOICE", "choice_index": best}
    return _ask(asker, ask, expect, points=points, times=(time,) if kind == 1 else ())


def order(asker: Asker) -> Question | None:
    points = _points(asker, 3)
    if points is None:
        return None
    heights = np.array([p.xyz[2] for p in points])
    if np.diff(np.sort(heights)).min() < 0.1:
        return None
    ask = a.Order(of=tuple(m.Height(of=_p(i)) for i in range(3)))
    expect = {"error_code": "NONE", "answer_type": "ORDER", "order": np.argsort(heights).tolist()}
    return _ask(asker, ask, expect, points=points)


def higher_by(asker: Asker) -> Question | None:
    """The signed difference in height."""
    points = _points(asker, 2)
    if points is None:
        return None
    value = float(points[0].xyz[2] - points[1].xyz[2])
    return _ask(asker, m.Height(of=_p(0), above=_p(1)), _number(value, "m", 0.05, 0.04), points=points)


def difference(asker: Asker) -> Question | None:
    """By how much one distance exceeds another, signed."""
    points = _points(asker, 3)
    if points is None:
        return None
    first, second = (float(np.linalg.norm(points[i].xyz - points[0].xyz)) for i in (1, 2))
    ask = a.Difference(a=m.Distance(a=_p(0), b=_p(1)), b=m.Distance(a=_p(0), b=_p(2)))
    expect = _number(first - second, "m", 0.06, 0.04)
    return _ask(asker, ask, expect, points=points)


def threshold(asker: Asker) -> Question | None:
    """Whether a distance or a height is more or less than a value well away from it."""
    points = _points(asker, 2)
    if points is None:
        return None
    of: m.Measure
    if asker.rng.random() < 0.5:
        of, value = m.Distance(a=_p(0), b=_p(1)), float(np.linalg.norm(points[0].xyz - points[1].xyz))
    else:
        of, value, points = m.Height(of=_p(0)), float(points[0].xyz[2]), points[:1]
    off = max(_CLEAR * value, 0.08) * float(asker.rng.uniform(1, 2))
    limit = round(value + off * float(asker.rng.choice([-1, 1])), 2)
    more = bool(asker.rng.random() < 0.5)
    if limit <= 0.05:
        return None
    ask = a.Threshold(of=of, comparison=a.Comparison.MORE if more else a.Comparison.LESS, value=limit)
    return _ask(asker, ask, _boolean((value > limit) == more), points=points)


# ---- angles, sides


def angle(asker: Asker) -> Question | None:
    points = _points(asker, 3)
    if points is None:
        return None
    u, v = points[0].xyz - points[1].xyz, points[2].xyz - points[1].xyz
    value = float(np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v)))
    expect = _number(value, "deg", 3.0, 0.03)
    return _ask(asker, m.Angle(a=_p(0), vertex=_p(1), b=_p(2)), expect, points=points)


def _seen_from(
    origin: NDArray[np.float64], forward: NDArray[np.float64], xyz: NDArray[np.float64]
) -> tuple[float, float]:
    """Metres forward and to the left, seen from above."""
    ahead = forward[:2] / np.linalg.norm(forward[:2])
    step = xyz[:2] - origin[:2]
    return float(step @ ahead), float(step @ np.array([-ahead[1], ahead[0]]))


def bearing(asker: Asker) -> Question | None:
    p = asker.ground_truth.point()
    if p is None:
        return None
    time = int(asker.rng.integers(len(asker.times)))
    ahead, left = _seen_from(asker.positions[time], asker.source.tour.poses[time, :3, 2], p.xyz)
    value = float(np.degrees(np.arctan2(left, ahead)))
    if np.hypot(ahead, left) < 0.5 or abs(value) > 175:
        return None
    of = m.Bearing(of=_p(0), viewer=o.Camera(at=t.MarkedMoment(index=0)))
    return _ask(asker, of, _number(value, "deg", 2.0, 0.02), points=(p,), times=(time,))


def left_of(asker: Asker) -> Question | None:
    """Left or right of another point, from the camera that saw both, or standing at one and facing another."""
    if asker.rng.random() < 0.5:
        pair = _points(asker, 2, one_image=True)
        if pair is None:
            return None
        frame = pair[0].frame
        origin, forward = asker.positions[frame], asker.source.tour.poses[frame, :3, 2]
        angles = [np.arctan2(*_seen_from(origin, forward, p.xyz)[::-1]) for p in pair]
        if abs(angles[0] - angles[1]) < 0.08:
            return None
        where = o.Where.LEFT_OF if asker.rng.random() < 0.5 else o.Where.RIGHT_OF
        truth = (angles[0] > angles[1]) == (where is o.Where.LEFT_OF)
        return _ask(asker, a.Relation(a=_p(0), where=where, b=_p(1)), _boolean(bool(truth)), points=pair)
    points = _points(asker, 3)
    if points is None:
        return None
    forward = points[2].xyz - points[1].xyz
    if np.linalg.norm(forward[:2]) < 0.5:
        return None
    _, left = _seen_from(points[1].xyz, forward, points[0].xyz)
    if abs(left) < 0.3:
        return None
    ask = a.Relation(a=_p(0), where=o.Where.LEFT_OF, viewpoint=a.Viewpoint(at=_p(1), facing=_p(2)))
    return _ask(asker, ask, _boolean(left > 0), points=points)


def slope(asker: Asker) -> Question | None:
    p = asker.ground_truth.point()
    if p is None:
        return None
    around = [asker.ground_truth.point_at(p.frame, p.u + du, p.v + dv) for du, dv in ((2, 0), (-2, 0), (0, 2), (0, -2))]
    if any(q.thing is not p.thing for q in around):
        return None
    right, left, down, up = (q.xyz for q in around)
    normal = np.cross(right - left, down - up)
    bent = max(np.linalg.norm((right + left) / 2 - p.xyz), np.linalg.norm((down + up) / 2 - p.xyz))
    if bent > 0.002 or not np.linalg.norm(normal) > 0:
        return None
    value = float(np.degrees(np.arccos(min(abs(normal[2]) / np.linalg.norm(normal), 1.0))))
    return _ask(asker, m.Slope(at=_p(0)), _number(value, "deg", 6.0, 0.0), points=(p,))


# ---- boxes and walls


def box_distance(asker: Asker) -> Question | None:
    """Between the nearest seen parts of two things."""
    boxes = asker.ground_truth.boxes()
    pairs = [(x, y) for x in boxes for y in boxes if x.name < y.name]
    if not pairs:
        return None
    pair = pairs[int(asker.rng.integers(len(pairs)))]
    names = [thing.name for thing in asker.source.house.things]
    surfaces = []
    for b in pair:
        view = asker.ground_truth.view(b.frame)
        mask = view.thing == names.index(b.name)
        local = (asker.source.camera.rays()[mask] * view.depth[mask][:, None]).astype(np.float64)
        surfaces.append(apply(asker.source.true_pose(b.frame), local))
    value = float(np.min(cKDTree(surfaces[0]).query(surfaces[1])[0]))
    if value < 0.1:
        return None
    ask = m.Distance(a=o.Box(index=0), b=o.Box(index=1))
    return _ask(asker, ask, _number(value, "m", 0.06, 0.05), boxes=pair)


def wall(asker: Asker) -> Question | None:
    """From the nearest wall that was seen, where no furniture stands before it that could be one."""
    p = asker.ground_truth.point()
    if p is None or p.thing.category not in ("floor", "ceiling"):
        return None
    walls = [i for i, thing in enumerate(asker.source.house.things) if thing.category == "wall"]
    nearest = np.inf
    for frame in asker.ground_truth.frames[::3]:
        view = asker.ground_truth.view(int(frame))
        mask = np.isin(view.thing, walls) & (view.depth < 5)
        if not mask.any():
            continue
        rays = asker.source.camera.rays()[mask][::7] * view.depth[mask][::7][:, None]
        plan = apply(asker.source.true_pose(int(frame)), rays.astype(np.float64))[:, :2]
        nearest = min(nearest, float(np.linalg.norm(plan - p.xyz[:2], axis=1).min()))
    if not 0.1 < nearest < 4:
        return None
    return _ask(asker, m.Distance(a=_p(0), b=o.NearestWall()), _number(nearest, "m", 0.06, 0.03), points=(p,))


# ---- motion


def _marked_span(asker: Asker, least: int = 5) -> tuple[t.Span, tuple[int, int]] | None:
    times = asker.two_times(least)
    if times is None:
        return None
    return t.Span(begin=t.MarkedMoment(index=0), end=t.MarkedMoment(index=1)), times


def turn_left(asker: Asker) -> Question | None:
    found = _marked_span(asker)
    if found is None:
        return None
    span, times = found
    was, now = (asker.source.tour.poses[i, :2, 2] for i in times)
    value = float(np.degrees(np.arctan2(was[0] * now[1] - was[1] * now[0], was @ now)))
    if abs(value) > 172:
        return None
    return _ask(asker, m.Turn(span=span, about_up=True), _number(value, "deg", 1.5, 0.02), silent=True, times=times)


def shift(asker: Asker) -> Question | None:
    found = _marked_span(asker)
    if found is None:
        return None
    span, times = found
    ahead, left = _seen_from(
        asker.positions[times[0]], asker.source.tour.poses[times[0], :3, 2], asker.positions[times[1]]
    )
    axis = m.Axis.FORWARD if asker.rng.random() < 0.5 else m.Axis.LEFT
    value = ahead if axis is m.Axis.FORWARD else left
    return _ask(asker, m.Shift(axis=axis, span=span), _number(value, "m", 0.04, 0.03), times=times)


def heading(asker: Asker) -> Question | None:
    time = int(asker.rng.integers(len(asker.times)))
    x, y = asker.source.tour.poses[time, :2, 2]
    value = float(np.degrees(np.arctan2(y, x)))
    if abs(value) > 175:
        return None
    return _ask(asker, m.Heading(at=t.MarkedMoment(index=0)), _number(value, "deg", 1.5, 0.0), times=(time,))


def mean_speed(asker: Asker) -> Question | None:
    found = _marked_span(asker, 10)
    if found is None:
        return None
    span, (first, last) = found
    steps = np.linalg.norm(np.diff(asker.positions[first : last + 1], axis=0), axis=1)
    value = float(steps.sum() / (asker.times[last] - asker.times[first]))
    if value < 0.1:
        return None
    return _ask(asker, m.MeanSpeed(span=span), _number(value, "m/s", 0.03, 0.1), times=(first, last))


def approach(asker: Asker) -> Question | None:
    """Whether the camera came within a radius of a point."""
    p = asker.ground_truth.point()
    if p is None:
        return None
    value = float(np.linalg.norm(asker.positions - p.xyz, axis=1).min())
    limit = round(value * float(asker.rng.choice([0.7, 1.4])), 2)
    ask = a.Threshold(of=m.ClosestApproach(to=_p(0)), comparison=a.Comparison.LESS, value=limit)
    return _ask(asker, ask, _boolean(value < limit), points=(p,))


def late_move(asker: Asker) -> Question | None:
    """How far the camera moved in its last seconds."""
    seconds = int(asker.rng.integers(2, 9))
    first = int(np.searchsorted(asker.times, asker.times[-1] - seconds))
    if first == 0 or abs(asker.times[first] - (asker.times[-1] - seconds)) > 1e-6:
        return None
    value = float(np.linalg.norm(asker.positions[-1] - asker.positions[first]))
    if value < 0.3:
        return None
    ask = m.Distance(a=o.Camera(at=t.Ago(seconds=float(seconds))), b=o.Camera(at=t.Now()))
    return _ask(asker, ask, _number(value, "m", 0.03, 0.03))


# ---- places and sight


def locate(asker: Asker) -> Question | None:
    p = asker.ground_truth.point()
    if p is None:
        return None
    position = [round(float(x), 6) for x in p.xyz]
    expect = {"error_code": "NONE", "answer_type": "POSE", "position": position, "accept_m": 0.06}
    return _ask(asker, a.Locate(of=_p(0)), expect, points=(p,))


def seen_count(asker: Asker) -> Question | None:
    p = asker.ground_truth.point()
    if p is None:
        return None
    seen, _ = asker.ground_truth.seen(p.xyz)
    clear, maybe = int(np.count_nonzero(seen == 1)), int(np.count_nonzero(seen >= 0))
    if maybe - clear > 0.3 * maybe:
        return None
    expect = _number((clear + maybe) / 2, "count", 0.0, 0.0)
    expect["accept"] = [clear - 2, maybe + 2]
    return _ask(asker, m.SeenCount(of=_p(0)), expect, points=(p,))


TYPED: dict[str, Callable[[Asker], Question | None]] = {
    make.__name__: make
    for make in (
        *(superlative, order, higher_by, difference, threshold, angle, bearing, left_of, slope, box_distance, wall),
        *(turn_left, shift, heading, mean_speed, approach, late_move, locate, seen_count),
    )
}
"""Makers of typed questions by kind. None: nothing to ask this time."""
