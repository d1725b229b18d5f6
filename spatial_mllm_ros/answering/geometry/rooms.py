"""The space as a whole: its extents, floor, ceiling, and what of it was never looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.answering.directions import describe_bearing
from spatial_mllm_ros.answering.geometry.bearing import direction_answer
from spatial_mllm_ros.answering.geometry.places import name_of, place_of, upright_axes
from spatial_mllm_ros.answering.geometry.points import ceiling_height
from spatial_mllm_ros.answering.geometry.sizes import Solid, solid
from spatial_mllm_ros.answering.measured import Measured, fixed
from spatial_mllm_ros.answering.space import spread
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries import measures as q
from spatial_mllm_ros.queries.answer import Answer, Evidence, PoseStamped
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.queries.operands import Box, Operand, Room
from spatial_mllm_ros.scene.footprint import filled_outline, rectangle_sides, smallest_rectangle, wall_direction
from spatial_mllm_ros.scene.frame import depth_to_metres
from spatial_mllm_ros.scene.gravity import Gravity
from spatial_mllm_ros.scene.pose import apply
from spatial_mllm_ros.scene.voxels import Lattice, voxel_centres, voxel_keys

_THIN_M = 0.05
_THIN = Lattice(_THIN_M)
_VOXEL_M = 0.15
_LOOKS = 160
_WALL_SEARCH_M = 0.3
_WALL_M = 0.04  # what noise, skirtings and curtains do to where a wall seems to be


def dimensions(c: Context, ask: asks.Dimensions) -> Answer:
    """Length, width and height of what a box encloses, or of the space seen."""
    if isinstance(ask.of, Box):
        return _of_box(c, solid(c, ask.of.index))
    _require_sizeable(ask.of)
    space = _space(c)
    total = float(np.linalg.norm(space.sides))
    stddev = space.stddev(c, total)
    text = " x ".join(c.in_words(s, space.stddev(c, s), "m") for s in space.sides)
    return _vector(c, space.sides, (total, stddev), f"{text} (length x width x height of the space seen)",
                   "fixed: what lies beyond the space seen is not known", c.best_frames(4), c.now)  # fmt: skip


def _of_box(c: Context, found: Solid) -> Answer:
    extents = (found.sides[0][0], found.sides[1][0], found.sides[2][0])
    stddevs = np.array([stddev for _, stddev in found.sides])
    text = " x ".join(c.in_words(e, d, "m") for e, d in found.sides)
    total = float(np.linalg.norm(extents))
    total, stddev = found.sure(total, float(np.linalg.norm(stddevs * extents)) / total)
    place = place_of(c, Box(index=int(found.label[4:-1])))
    return _vector(c, extents, (total, stddev), f"{text} (length x width x height of the seen surface)",
                   "fixed: the far side is not seen", place.evidence, place.stamp_ns)  # fmt: skip


def _vector(
    c: Context,
    sides: tuple[float, float, float],
    total: tuple[float, float],
    words: str,
    method: str,
    evidence: tuple[Evidence, ...],
    stamp_ns: int,
) -> Answer:
    """Sides as a VECTOR: along the thing's own axes, so in no frame."""
    return Answer(
        answer=words,
        answer_type=AnswerType.VECTOR,
        value=total[0],
        stddev=total[1],
        unit="m",
        pose=PoseStamped(stamp_ns, "", sides),
        confidence=0.9,
        confidence_method=method,
        source=AnswerSource.GEOMETRY,
        scale_source=ScaleSource.DEPTH,
        evidence=evidence,
    )


def extent(c: Context, m: q.Extent) -> Measured:
    """One dimension of what a box encloses, or of the space seen."""
    return _box_extent(c, m, m.of) if isinstance(m.of, Box) else _room_extent(c, m)


def _require_sizeable(thing: Operand) -> None:
    if not isinstance(thing, Room):
        raise QueryError(ErrorCode.INVALID_REQUEST, f"{name_of(thing)} has no size: mark a box round what is meant")


_TALL = {q.Dimension.HEIGHT: "tall", q.Dimension.WIDTH: "wide", q.Dimension.LENGTH: "long"}


def _box_extent(c: Context, m: q.Extent, box: Box) -> Measured:
    found = solid(c, box.index)
    common: dict[str, Any] = {"evidence": place_of(c, box).evidence, "more": "larger", "less": "smaller"}
    if m.dimension in _TALL:
        value, stddev = found.side(2 if m.dimension is q.Dimension.HEIGHT else 0)
        return fixed(value, stddev, "m", m, words="{} " + _TALL[m.dimension], **common)
    if not found.deep:
        raise QueryError(
            ErrorCode.NOT_SEEN,
            f"how deep {found.label} goes was not seen from there: mark it where two of its sides and its top show",
        )
    sides = np.array([found.side(i)[0] for i in range(3)])
    stddevs = np.array([found.side(i)[1] for i in range(3)])
    length, width, height = sides.tolist()
    if m.dimension is q.Dimension.VOLUME:
        value, slopes = length * width * height, np.array([width * height, length * height, length * width])
    elif m.dimension is q.Dimension.FLOOR_AREA:
        value, slopes = length * width, np.array([width, length, 0.0])
    else:
        value = 2 * (length * width + length * height + width * height)
        slopes = 2 * np.array([width + height, length + height, length + width])
    kind = "of the upright box round it" if m.dimension is not q.Dimension.FLOOR_AREA else "of floor that it covers"
    return fixed(value, float(np.linalg.norm(slopes * stddevs)), m.value_unit, m, words=f"{{}} {kind}", **common)


def _room_extent(c: Context, m: q.Extent) -> Measured:
    _require_sizeable(m.of)
    common: dict[str, Any] = {"evidence": c.best_frames(4), "more": "larger", "less": "smaller"}
    if m.dimension is q.Dimension.SURFACE_AREA:
        raise QueryError(ErrorCode.NOT_AVAILABLE, "the area of all walls is not measured: ask for the floor area")
    if m.dimension in (q.Dimension.FLOOR_AREA, q.Dimension.VOLUME):
        gravity = c.gravity_with_floor()
        area, stddev = _floor_area(c, gravity)
        if m.dimension is q.Dimension.FLOOR_AREA:
            return fixed(area, stddev, "m2", m, words="{} of floor in the space seen", **common)
        height, height_stddev = ceiling_height(c, gravity)
        height_stddev = float(np.hypot(height_stddev, gravity.floor_stddev_m or 0.0))
        spread = float(np.hypot(height * stddev, area * height_stddev))
        return fixed(area * height, spread, "m3", m, words="{} of space seen, floor area times height", **common)
    space = _space(c)
    side = space.sides[_SIDES.index(m.dimension)]
    return fixed(side, space.stddev(c, side), "m", m, words="{} of space seen", **common)


_SIDES = (q.Dimension.LENGTH, q.Dimension.WIDTH, q.Dimension.HEIGHT)


@dataclass(frozen=True)
class _Space:
    """Length, width and height of the space seen, metres."""

    sides: tuple[float, float, float]

    def stddev(self, c: Context, side: float) -> float:
        shared = c.sensor.depth_correlated
        return float(np.sqrt(2 * _THIN_M**2 / 12 + 2 * c.sensor.pose_position_m**2 + (shared * side) ** 2 + _WALL_M**2))


def _space(c: Context) -> _Space:
    return c.once("space", lambda: _measured_space(c))


def _measured_space(c: Context) -> _Space:
    """Sides of the upright bounding box of the space seen along the walls.

    Where no walls stand out the box is the smallest one.

    Half a percent of the seen surface is left out at either end, so that a stray point or a glimpse through a door does
    not count.
    """
    gravity = c.gravity()
    points = _thinned(c, gravity)
    angle = wall_direction(points[:, :2], _THIN_M)
    if angle is None:
        angle = smallest_rectangle(points[:, :2])[2]
        length, width = sorted(rectangle_sides(points[:, :2], angle), reverse=True)
    else:
        axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        length, width = sorted((_between_walls(axis) for axis in (points[:, :2] @ axes).T), reverse=True)
    low, high = np.percentile(points[:, 2], [0.5, 99.5])
    height = float(high - low)
    if gravity.floor_stddev_m is not None and gravity.ceiling_m is not None:
        height = gravity.ceiling_m
    return _Space((float(length), float(width), height))


def _between_walls(places: NDArray[np.float64]) -> float:
    """Distance in metres between the outermost walls across an axis, given the places [n] of points on it.

    Noise spreads a wall to both sides: it is where points are densest near the end. Where no end of the space is that
    dense, it ends with its outermost points.
    """
    low, high = np.percentile(places, [0.5, 99.5])
    ends = []
    for end, inward in ((low, 1.0), (high, -1.0)):
        depth = (places - end) * inward
        near = depth[(depth > -_WALL_SEARCH_M) & (depth < _WALL_SEARCH_M)]
        bins = np.floor(near / _THIN_M).astype(int)
        counts = np.bincount(bins - bins.min())
        peak = (int(np.argmax(counts)) + int(bins.min()) + 0.5) * _THIN_M
        dense = counts.max() > 3 * len(places) * _THIN_M / max(high - low, _THIN_M)
        wall = float(near[np.abs(near - peak) < _THIN_M].mean()) if dense else 0.0
        ends.append(end + inward * wall)
    return float(ends[1] - ends[0])


def _floor_area(c: Context, gravity: Gravity) -> tuple[float, float]:
    """Area of the floor of the space seen: floor that was seen, with what stands on it and small gaps filled in."""
    points = _thinned(c, gravity)
    top = gravity.ceiling_m - 0.3 if gravity.ceiling_m is not None else 2.0
    area, outline = filled_outline(points[points[:, 2] < top][:, :2], _THIN_M)
    return float(area), float(np.hypot(_WALL_M * outline, 0.02 * area))


def unseen_fraction(c: Context, m: q.UnseenFraction) -> Measured:
    """Share of the space around the path that was never looked at.

    The space around the path: voxels between floor and ceiling within ``near_m`` of the path whose line to the nearest
    camera position is not blocked by a seen surface. Seen: in at least one image, no further than the depth measured
    there.
    """
    look = _look_around(c, c.gravity())
    share, stddev = look.share
    if not look.where.any():
        words, evidence = "{}: there is nothing unseen", c.best_frames(2)
    else:
        words = "{} is unseen, most of it " + _largest(c, look)[1]
        evidence = c.moment_evidence(c.now, "now")
    return fixed(share, stddev, "", m, evidence=evidence, scale=ScaleSource.NONE, words=words)


def unseen(c: Context, ask: asks.Unseen) -> Answer:
    """Where most of the space around the path lies that was never looked at; see ``unseen_fraction``."""
    gravity = c.gravity()
    look = _look_around(c, gravity)
    share, stddev = look.share
    if not look.where.any():
        raise QueryError(ErrorCode.NOT_SEEN, "there is nothing unseen in the space around the path")
    (place, volume), words = _largest(c, look)
    camera = c.camera_at(c.present)
    world = place - camera.T_world_camera[:3, 3]
    distance = float(np.linalg.norm(world))
    evidence = c.moment_evidence(c.now, "now")
    if c.request.choices:
        vector = upright_axes(gravity, camera.T_world_camera) @ world
        covariance = np.eye(3) * _VOXEL_M**2
        ends = (distance, _VOXEL_M)
        return direction_answer(c, vector, covariance, words, world, ends, c.now, evidence, ScaleSource.DEPTH)
    return Answer(
        answer=f"mostly {words}: {volume:.1f} cubic metres, {c.in_words(share, stddev, '')} of the space around the path",
        answer_type=AnswerType.POINT,
        value=distance,
        stddev=_VOXEL_M,
        unit="m",
        pose=c.position(place, c.now),
        confidence=1.0,
        confidence_method="counted voxels",
        source=AnswerSource.GEOMETRY,
        scale_source=ScaleSource.DEPTH,
        evidence=evidence,
    )


def _largest(c: Context, look: _Look) -> tuple[tuple[NDArray[np.float64], float], str]:
    """The largest unseen part, and where it is from the camera."""
    place, volume = look.largest()
    camera = c.camera_at(c.present)
    seen = upright_axes(look.gravity, camera.T_world_camera) @ (place - camera.T_world_camera[:3, 3])
    distance = float(np.linalg.norm(seen))
    where = describe_bearing(float(seen[0]), float(seen[2]))
    return (place, volume), f"{where} of the camera, {c.in_words(distance, _VOXEL_M, 'm')} away"


@dataclass(frozen=True, eq=False)
class _Look:
    """Voxels of the space around the path: a grid with its corner (level frame), which count, which are unseen."""

    gravity: Gravity
    low: NDArray[np.float64]
    counted: NDArray[np.bool_]
    where: NDArray[np.bool_]  # unseen
    share: tuple[float, float]

    def largest(self) -> tuple[NDArray[np.float64], float]:
        """World position [3] inside the largest unseen part, and its volume in cubic metres."""
        labels, _ = ndimage.label(self.where)
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        part = np.argwhere(labels == int(np.argmax(sizes)))
        middle = part.mean(axis=0)
        inside = part[np.argmin(((part - middle) ** 2).sum(axis=1))]  # a bent part's mean may lie outside it
        place = self.low + (inside + 0.5) * _VOXEL_M
        T = self.gravity.T_zup_from_world
        return T[:3, :3].T @ (place - T[:3, 3]), float(sizes.max()) * _VOXEL_M**3


def _look_around(c: Context, gravity: Gravity) -> _Look:
    T = gravity.T_zup_from_world
    _, poses = c.track.arrays(c.window_start, c.window_end)
    if not len(poses):
        raise QueryError(ErrorCode.NO_FRAMES, "the camera was nowhere within that time")
    path = np.unique(np.round(apply(T, poses[:, :3]) / 0.3), axis=0) * 0.3
    low, high = path.min(axis=0) - c.config.near_m, path.max(axis=0) + c.config.near_m
    camera_height = float(np.median(path[:, 2]))
    low[2] = 0.0 if gravity.floor_stddev_m is not None else camera_height - 1.0
    high[2] = gravity.ceiling_m if gravity.ceiling_m is not None else max(low[2] + 2.0, camera_height + 0.5)
    shape = np.maximum(np.ceil((high - low) / _VOXEL_M).astype(int), 1)
    if int(shape.prod()) > 3_000_000:
        raise QueryError(
            ErrorCode.INVALID_REQUEST, "the path is too long to look around it voxel by voxel: ask about a time window"
        )
    centres = low + (np.indices(shape).reshape(3, -1).T + 0.5) * _VOXEL_M
    gap, nearest = cKDTree(path).query(centres, distance_upper_bound=c.config.near_m)
    close = np.flatnonzero(np.isfinite(gap))
    surface = np.zeros(shape, dtype=bool)
    cells = np.floor((_thinned(c, gravity) - low) / _VOXEL_M).astype(int)
    cells = cells[((cells >= 0) & (cells < shape)).all(axis=1)]
    surface[tuple(cells.T)] = True
    open_ = _unblocked(centres[close], path[np.asarray(nearest)[close]], surface, low)
    close = close[open_ | surface.reshape(-1)[close]]
    world = (centres[close] - T[:3, 3]) @ T[:3, :3]
    least, most = _seen(c, world)
    counted = np.zeros(shape, dtype=bool)
    counted.reshape(-1)[close] = True
    where = np.zeros(shape, dtype=bool)
    where.reshape(-1)[close] = ~most
    if not len(close):
        raise QueryError(ErrorCode.NOT_SEEN, "there is no space around the path to look at")
    # the voxels that only part of which was seen are the doubt
    low_share, high_share = float(np.mean(~most)), float(np.mean(~least))
    return _Look(gravity, low, counted, where, ((low_share + high_share) / 2, (high_share - low_share) / 2 + 0.005))


def _unblocked(
    centres: NDArray[np.float64], eyes: NDArray[np.float64], surface: NDArray[np.bool_], low: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which voxel centres [n, 3] have a line to their eye [n, 3] that no surface voxel blocks."""
    free = np.ones(len(centres), dtype=bool)
    limit = np.array(surface.shape) - 1
    own = np.clip(np.floor((centres - low) / _VOXEL_M).astype(int), 0, limit)
    for fraction in np.linspace(0.06, 0.97, 24):
        p = eyes + fraction * (centres - eyes)
        cell = np.clip(np.floor((p - low) / _VOXEL_M).astype(int), 0, limit)
        blocked = surface[tuple(cell.T)] & (cell != own).any(axis=1) & (np.linalg.norm(p - eyes, axis=1) > 0.3)
        free &= ~blocked
    return free


def _seen(c: Context, world: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which voxels with the centres [n, 3] some image shows wholly, and which at least in part."""
    whole = np.zeros(len(world), dtype=bool)
    part = np.zeros(len(world), dtype=bool)
    for stored in _looks(c):
        c.check()
        camera, T, depth = stored.frame.camera, stored.frame.T_world_camera, stored.frame.depth
        assert camera is not None
        assert T is not None
        assert depth is not None
        X = (world - T[:3, 3]) @ T[:3, :3]
        uv = camera.project(X)
        ahead = np.flatnonzero(camera.contains(uv) & (X[:, 2] > 0.1))
        if not len(ahead):
            continue
        pixel = np.round(uv[ahead]).astype(int)
        z = X[ahead, 2]
        measured = depth_to_metres(depth[pixel[:, 1], pixel[:, 0]])
        half = _VOXEL_M / 2
        border = half * camera.fx / z
        inner = (
            (uv[ahead, 0] > border)
            & (uv[ahead, 0] < camera.width - border)
            & (uv[ahead, 1] > border)
            & (uv[ahead, 1] < camera.height - border)
        )
        with np.errstate(invalid="ignore"):
            part[ahead[z - half <= measured]] = True
            whole[ahead[inner & (z <= measured)]] = True
    return whole & part, part


def _looks(c: Context) -> list[StoredFrame]:
    frames = [f for f in c.frames() if f.frame.depth is not None]
    return [frames[i] for i in spread(len(frames), _LOOKS)]


def _thinned(c: Context, gravity: Gravity) -> NDArray[np.float64]:
    """Seen surface in the level frame [n, 3], one point for every 5 cm."""
    points = voxel_centres(voxel_keys(c.seen_points(), _THIN), _THIN)
    return apply(gravity.T_zup_from_world, points).astype(np.float64, copy=False)
