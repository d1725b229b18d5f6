"""Distances, heights and angles of points, boxes, cameras, the robot, positions, floor, ceiling and walls."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.answering.geometry.places import Place, gravity_stddevs, height_at, name_of, place_of, viewer_of
from spatial_mllm_ros.answering.geometry.walls import nearest_wall
from spatial_mllm_ros.answering.measured import Measured, merged
from spatial_mllm_ros.queries import measures as q
from spatial_mllm_ros.queries.answer import Evidence
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.queries.measures import Ends, Metric
from spatial_mllm_ros.queries.operands import Box, Camera, Ceiling, Floor, NearestWall, Operand, Room
from spatial_mllm_ros.scene.gravity import Gravity
from spatial_mllm_ros.scene.uncertainty import Errors, propagate

_TOUCHING = 12
"""Nearest pairs of points of two surfaces whose mean gap is their distance: a single pair is as near as noise makes it."""
_MOST_POINTS = 4000
_SURFACE_M = 0.004
"""What a smoothed surface is off by at its border, metres, beside what its image shares (measured on rendered boxes)."""


def distance(c: Context, m: q.Distance) -> Measured:
    """Between two things: their places, the seen surfaces of boxes, floor, ceiling or the nearest wall."""
    if isinstance(m.a, Room) or isinstance(m.b, Room):
        raise QueryError(
            ErrorCode.NOT_AVAILABLE, "a distance to a room as such is not measured: name a wall or a point"
        )
    for thing, other in ((m.a, m.b), (m.b, m.a)):
        if isinstance(other, NearestWall):
            return _to_wall(c, thing, m)
        if isinstance(other, Floor | Ceiling):
            return _to_level(c, thing, other, m)
    a, b = place_of(c, m.a, m.b), place_of(c, m.b, m.a)
    if m.ends is Ends.NEAREST and (a.solid is not None or b.solid is not None):
        return _between_surfaces(c, a, b, m.metric)
    along = _component(c, m.metric)
    suffix = {Metric.HORIZONTAL: " on the ground plane", Metric.VERTICAL: " in height"}.get(m.metric, "")
    centers = " (between the centers of what was seen)" if a.solid is not None or b.solid is not None else ""
    stddevs = merged(a.stddevs, b.stddevs, _tilts(c.gravity()) if m.metric is Metric.VERTICAL else {})
    own = ("nearness", a.name, b.name, m.metric)
    if m.metric is not Metric.VERTICAL and (nearness := _nearness(c, a, b, m.metric, stddevs)):
        stddevs[own] = nearness
    return Measured(
        at=lambda e: along(b.at(e) - a.at(e), e) + e.get(own, 0.0),
        stddevs=stddevs,
        unit="m",
        evidence=(*a.evidence, *b.evidence),
        scale=_scale(a, b),
        words="{}" + suffix + centers + (a.note or b.note),
        more="farther",
        less="nearer",
    )


def _nearness(c: Context, a: Place, b: Place, metric: Metric, stddevs: Mapping[Hashable, Any]) -> float:
    """What the length of a vector that is not plainly longer than its errors is uncertain by beside the error along it, m.

    Errors across make such a vector too long, and nothing tells by how much: at zero the length is that of the errors
    alone, sqrt(trace). So those across count, less the longer the vector is; 0 for next to nothing.
    """
    R = np.eye(3) if metric is Metric.STRAIGHT else c.gravity().T_zup_from_world[:2, :3]
    v, covariance = propagate(lambda e: R @ (b.at(e) - a.at(e)), stddevs)
    square, whole = float(v @ v), float(np.trace(covariance))
    if not square > 0 or whole < 1e-3 * square:
        return 0.0 if square > 0 else math.sqrt(whole)
    across = whole - float(v @ covariance @ v) / square
    return math.sqrt(max(across, 0.0) * min(1.0, whole / square) / 2)


def _scale(*places: Place) -> ScaleSource:
    return ScaleSource.DEPTH if any(p.scale is ScaleSource.DEPTH for p in places) else ScaleSource.TF


def _component(c: Context, metric: Metric) -> Callable[[NDArray[np.float64], Errors], float]:
    """The length of a world vector [3] that counts."""
    if metric is Metric.STRAIGHT:
        return lambda v, e: float(np.linalg.norm(v))
    R = c.gravity().T_zup_from_world[:3, :3]
    if metric is Metric.HORIZONTAL:
        return lambda v, e: float(np.linalg.norm(R[:2] @ v))

    def rise(v: NDArray[np.float64], e: Errors) -> float:
        x, y, z = (R @ v).tolist()
        return abs(float(z + x * e.get(("tilt", 0), 0.0) + y * e.get(("tilt", 1), 0.0)))

    return rise


def _tilts(gravity: Gravity) -> dict[Hashable, Any]:
    return {("tilt", axis): gravity.tilt_stddev_rad for axis in range(2)}


def _between_surfaces(c: Context, a: Place, b: Place, metric: Metric) -> Measured:
    """Between the nearest parts of what was seen of two things."""
    along = _component(c, metric)
    picks = _nearest_pairs(c, a, b, metric)

    def gap(e: Errors) -> float:
        ends = (_surface(p, i, e) for p, i in zip((a, b), picks, strict=True))
        start, end = (np.broadcast_to(x, (len(picks[0]), 3)) for x in ends)
        own = e.get(key, 0.0)
        return max(float(np.mean([along(v, e) for v in end - start])) + own, 0.0)

    key = ("gap", a.name, b.name, metric)
    rims = [_SURFACE_M if p.solid is None else float(np.hypot(_SURFACE_M, p.solid.found.pixel_m)) for p in (a, b)]
    return Measured(
        at=gap,
        stddevs=merged(
            _surface_stddevs(a), _surface_stddevs(b), _tilts(c.gravity()), {key: float(np.linalg.norm(rims))}
        ),
        unit="m",
        evidence=(*a.evidence, *b.evidence),
        words="{} between the nearest parts that were seen" + (a.note or b.note),
        more="farther",
        less="nearer",
    )


def _surface_stddevs(place: Place) -> Mapping[Hashable, Any]:
    return place.stddevs if place.solid is None else place.solid.surface_stddevs()


def _surface(place: Place, indices: NDArray[np.intp], errors: Errors) -> NDArray[np.float64]:
    return place.at(errors) if place.solid is None else place.solid.surface(indices, errors)


def _nearest_pairs(c: Context, a: Place, b: Place, metric: Metric) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices into the surfaces of both of the pairs of points that are nearest to each other."""
    R = c.gravity().T_zup_from_world[:3, :3]
    rows = {Metric.STRAIGHT: slice(0, 3), Metric.HORIZONTAL: slice(0, 2), Metric.VERTICAL: slice(2, 3)}[metric]

    def sampled(place: Place) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        if place.solid is None:
            return np.zeros(1, dtype=np.intp), place.at({})[None] @ R[rows].T
        indices = np.arange(0, len(place.solid.found.world), max(len(place.solid.found.world) // _MOST_POINTS, 1))
        return indices, place.solid.found.world[indices] @ R[rows].T

    (of_a, points_a), (of_b, points_b) = sampled(a), sampled(b)
    gaps, nearest = cKDTree(points_b).query(points_a)
    picked = np.argsort(gaps, kind="stable")[:_TOUCHING]
    if len(points_a) == 1:
        _, nearest_of_one = cKDTree(points_b).query(points_a[0], k=min(_TOUCHING, len(points_b)))
        picks = np.atleast_1d(nearest_of_one)
        return np.zeros(len(picks), dtype=np.intp), of_b[picks]
    return of_a[picked], of_b[np.atleast_1d(nearest)[picked]]


def _to_level(c: Context, thing: Operand, plane: Floor | Ceiling, m: q.Distance) -> Measured:
    """Distance to the floor or the ceiling: from a box, of its nearest part."""
    if m.metric is Metric.HORIZONTAL:
        raise QueryError(
            ErrorCode.INVALID_REQUEST, f"{name_of(plane)} is level: a horizontal distance to it says nothing"
        )
    edge = "" if m.ends is Ends.CENTERS else "bottom" if isinstance(plane, Floor) else "top"
    a, b = _elevation(c, thing, True, edge), _elevation(c, plane, True)
    return Measured(
        at=lambda e: abs(a.at(e) - b.at(e)),
        stddevs=merged(a.stddevs, b.stddevs),
        unit="m",
        evidence=(*a.evidence, *b.evidence),
        scale=a.scale,
        words=f"{{}} from {b.name}" + a.note,
        more="farther",
        less="nearer",
    )


def _to_wall(c: Context, thing: Operand, m: q.Distance) -> Measured:
    if isinstance(thing, Floor | Ceiling):
        raise QueryError(ErrorCode.INVALID_REQUEST, f"{name_of(thing)} reaches every wall")
    place = place_of(c, thing)
    if m.metric is Metric.VERTICAL:
        raise QueryError(ErrorCode.INVALID_REQUEST, "a wall is upright: a difference in height to it says nothing")
    if place.solid is not None and m.ends is Ends.NEAREST:
        world = place.solid.found.world
        indices = np.arange(0, len(world), max(len(world) // _MOST_POINTS, 1))
        wall = nearest_wall(c, world[indices])
        near = indices[np.argsort(wall.distances(world[indices]), kind="stable")[:_TOUCHING]]
        solid = place.solid

        def gap(e: Errors) -> float:
            return float(np.mean(wall.distances(solid.surface(near, e), e)))

        stddevs = solid.surface_stddevs()
    else:
        wall = nearest_wall(c, place.at({})[None])

        def gap(e: Errors) -> float:
            return float(wall.distances(place.at(e)[None], e)[0])

        stddevs = dict(place.stddevs)
    return Measured(
        at=gap,
        stddevs=merged(stddevs, wall.stddevs()),
        unit="m",
        evidence=place.evidence,
        words="{} from the nearest wall that was seen" + place.note,
        more="farther",
        less="nearer",
    )


def depth(c: Context, m: q.Depth) -> Measured:
    """z in the frame of the camera that took the image, or of the camera at a moment."""
    place = place_of(c, m.of)
    if m.at is None:
        if place.point is None and place.solid is None:
            raise QueryError(
                ErrorCode.INVALID_REQUEST,
                f"the depth of {place.name} is one from a camera at a moment: say which moment",
            )
        if place.point is not None:
            point = place.point
            return Measured(
                at=point.depth, stddevs=place.stddevs, unit="m", evidence=place.evidence, words="{}" + place.note,
                more="deeper", less="less deep",
            )  # fmt: skip
    viewer = place_of(c, Camera(at=m.at), m.of)
    pose = viewer.pose
    assert pose is not None

    def z(e: Errors) -> float:
        T = pose(e)
        return float(T[:3, 2] @ (place.at(e) - T[:3, 3]))

    return Measured(
        at=z,
        stddevs=merged(place.stddevs, viewer.stddevs),
        unit="m",
        evidence=(*place.evidence, *viewer.evidence),
        words="{}" + place.note,
        more="deeper",
        less="less deep",
    )


# ---- heights


@dataclass(frozen=True, eq=False, kw_only=True)
class _Elevation:
    """A height above the floor, or above the level frame's zero where no floor is needed."""

    name: str
    at: Callable[[Errors], float]
    stddevs: Mapping[Hashable, Any]
    evidence: tuple[Evidence, ...] = ()
    scale: ScaleSource = ScaleSource.DEPTH
    note: str = ""


def height(c: Context, m: q.Height) -> Measured:
    """How much higher one thing is than another; of a box, its middle."""
    needs_floor = any(isinstance(x, Floor | Ceiling) for x in (m.of, m.above))
    if isinstance(m.of, Box) and isinstance(m.above, Floor):
        c.remark("of the middle of what the box encloses")
    a, b = _elevation(c, m.of, needs_floor), _elevation(c, m.above, needs_floor)
    value = a.at({}) - b.at({})
    if isinstance(m.above, Floor):
        words = "the ceiling is {} above the floor" if isinstance(m.of, Ceiling) else "{} above the floor"
    else:
        words = f"{{}}: {a.name} is {'higher' if value >= 0 else 'lower'} than {b.name}"
    return Measured(
        at=lambda e: a.at(e) - b.at(e),
        stddevs=merged(a.stddevs, b.stddevs),
        unit="m",
        evidence=(*a.evidence, *b.evidence),
        scale=a.scale,
        words=words + (a.note or b.note),
        more="higher",
        less="lower",
    )


def _elevation(c: Context, thing: Operand, needs_floor: bool, edge: str = "") -> _Elevation:
    """Height of a thing. edge: of a box, its ``bottom`` or ``top``; '': its middle."""
    gravity = c.gravity_with_floor() if needs_floor else c.gravity()
    if isinstance(thing, Floor):
        return _Elevation(name="the floor", at=lambda e: 0.0, stddevs={})
    if isinstance(thing, Ceiling):
        height, stddev = ceiling_height(c, gravity)
        return _Elevation(
            name="the ceiling",
            at=lambda e: height - e.get("floor", 0.0) + e.get("ceiling", 0.0),
            stddevs={"floor": gravity.floor_stddev_m or 0.0, "ceiling": stddev},
            evidence=c.best_frames(4),
        )
    place = place_of(c, thing)
    rise = 0.0
    if place.solid is not None and edge:
        middle = (place.solid.top + place.solid.bottom) / 2
        rise = (place.solid.top if edge == "top" else place.solid.bottom) - middle
    return _Elevation(
        name=place.name,
        at=lambda e: height_at(gravity, place.at(e), e) + rise,
        stddevs=merged(place.stddevs, gravity_stddevs(gravity)),
        evidence=place.evidence,
        scale=place.scale,
        note=place.note,
    )


def ceiling_height(c: Context, gravity: Gravity) -> tuple[float, float]:
    """Height of the ceiling in the level frame and its own deviation, metres. NOT_SEEN where it was not."""
    if gravity.ceiling_m is None or gravity.ceiling_stddev_m is None:
        raise QueryError(ErrorCode.NOT_SEEN, "no ceiling was seen (no large, highest surface facing down)")
    shared = c.sensor.depth_correlated * gravity.ceiling_m / 2
    return gravity.ceiling_m, float(np.hypot(gravity.ceiling_stddev_m, shared))


# ---- angles


def angle(c: Context, m: q.Angle) -> Measured:
    """At a place, between the directions to two others."""
    a, vertex, b = place_of(c, m.a, m.vertex), place_of(c, m.vertex, m.a), place_of(c, m.b, m.vertex)

    def between(e: Errors) -> float:
        corner = vertex.at(e)
        return angle_between(a.at(e) - corner, b.at(e) - corner)

    if min(np.linalg.norm(x.at({}) - vertex.at({})) for x in (a, b)) < 1e-3:
        raise QueryError(
            ErrorCode.INVALID_REQUEST, f"there is no angle at {vertex.name}: two of the three are one place"
        )
    return Measured(
        at=between,
        stddevs=merged(a.stddevs, vertex.stddevs, b.stddevs),
        unit="deg",
        evidence=(*vertex.evidence, *a.evidence, *b.evidence),
        words="{}" + (a.note or vertex.note or b.note),
        more="wider",
        less="narrower",
    )


def angle_between(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Angle between two vectors [3], degrees; exact for small ones, too."""
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def bearing(c: Context, m: q.Bearing) -> Measured:
    """Horizontal angle from where one looks, positive to the left."""
    place, viewer = place_of(c, m.of, m.viewer), viewer_of(c, m.viewer, m.facing, m.of)
    seen = viewer.sees(place)
    right, _, forward = seen({}).tolist()
    if np.hypot(right, forward) < 0.05:
        raise QueryError(
            ErrorCode.ABSTAINED,
            f"{place.name} lies straight above or below {viewer.name}: it has no bearing from there",
        )

    def left(e: Errors) -> float:
        right, _, forward = seen(e).tolist()
        return float(np.degrees(np.arctan2(-right, forward)))

    side = "to the left" if left({}) >= 0 else "to the right"
    return Measured(
        at=left,
        stddevs=merged(place.stddevs, viewer.stddevs),
        unit="deg",
        evidence=(*place.evidence, *viewer.evidence),
        words=f"{{}}, {side} of where {viewer.name} looks" + place.note,
        more="farther left",
        less="farther right",
        period=360.0,
    )
