"""The space as a whole: its extents, floor, ceiling, and what of it was never looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from spatial_mllm_ros.memory.view import StoredFrame
from spatial_mllm_ros.queries.answer import Answer, Evidence
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.query.context import Context
from spatial_mllm_ros.query.geometry.bearing import bearing_words, direction_answer, heading_axes
from spatial_mllm_ros.query.space import spread
from spatial_mllm_ros.scene.footprint import filled_outline, rectangle_sides, smallest_rectangle, wall_direction
from spatial_mllm_ros.scene.frame import depth_to_metres
from spatial_mllm_ros.scene.level import Level
from spatial_mllm_ros.scene.pose import apply
from spatial_mllm_ros.scene.voxels import Lattice, voxel_centres, voxel_keys

_THIN_M = 0.05
_THIN = Lattice(_THIN_M)
_VOXEL_M = 0.15
_LOOKS = 160
_WALL_SEARCH_M = 0.3
_WALL_M = 0.04  # what noise, skirtings and curtains do to where a wall seems to be


def extent(c: Context) -> Answer:
    """Length, width and height of the space seen, or the one asked for: sides of its upright bounding box along the walls.

    Where no walls stand out the box is the smallest one.

    Half a percent of the seen surface is left out at either end, so that a stray point or a glimpse through a door does
    not count.
    """
    level = c.level()
    points = _thinned(c, level)
    angle = wall_direction(points[:, :2], _THIN_M)
    if angle is None:
        angle = smallest_rectangle(points[:, :2])[2]
        length, width = sorted(rectangle_sides(points[:, :2], angle), reverse=True)
    else:
        axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        length, width = sorted((_between_walls(axis) for axis in (points[:, :2] @ axes).T), reverse=True)
    low, high = np.percentile(points[:, 2], [0.5, 99.5])
    height = float(high - low)
    if level.floor_stddev_m is not None and level.ceiling_m is not None:
        height = level.ceiling_m
    shared = c.sensor.depth_correlated

    def deviation(side: float) -> float:
        return float(np.sqrt(2 * _THIN_M**2 / 12 + 2 * c.sensor.pose_position_m**2 + (shared * side) ** 2 + _WALL_M**2))

    evidence = _best_frames(c, 4)
    sides = {"extent_length": length, "extent_width": width, "extent_height": height}
    side = sides.get(c.parsed.family)
    if side is not None:
        return c.number(side, deviation(side), "m", evidence, "{} of space seen")
    total = float(np.linalg.norm(list(sides.values())))
    text = " x ".join(c.in_words(s, deviation(s), "m") for s in sides.values())
    return Answer(
        answer=f"{text} (length x width x height of the space seen)",
        answer_type=AnswerType.VECTOR,
        value=total,
        stddev=deviation(total),
        unit="m",
        pose=c.extents((length, width, height), c.now),
        confidence=0.9,
        confidence_method="fixed: what lies beyond the space seen is not known",
        source=AnswerSource.GEOMETRY,
        scale_source=ScaleSource.DEPTH,
        evidence=evidence,
    )


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


def floor_area(c: Context) -> Answer:
    """Area of the floor of the space seen: floor that was seen, with what stands on it and small gaps filled in."""
    level = c.level_with_floor()
    points = _thinned(c, level)
    top = level.ceiling_m - 0.3 if level.ceiling_m is not None else 2.0
    area, outline = filled_outline(points[points[:, 2] < top][:, :2], _THIN_M)
    stddev = float(np.hypot(_WALL_M * outline, 0.02 * area))
    return c.number(area, stddev, "m2", _best_frames(c, 4), "{} of floor in the space seen")


def ceiling(c: Context) -> Answer:
    """Height of the ceiling above the floor."""
    level = c.level_with_floor()
    if level.ceiling_m is None or level.ceiling_stddev_m is None:
        raise QueryError(ErrorCode.NOT_SEEN, "no ceiling was seen (no large, highest surface facing down)")
    shared = c.sensor.depth_correlated * level.ceiling_m / 2
    stddev = float(np.sqrt(level.ceiling_stddev_m**2 + (level.floor_stddev_m or 0.0) ** 2 + shared**2))
    return c.number(level.ceiling_m, stddev, "m", _best_frames(c, 4), "the ceiling is {} above the floor")


def unseen(c: Context) -> Answer:
    """Share of the space around the path that was never looked at, and where most of it lies.

    The space around the path: voxels between floor and ceiling within ``near_m`` of the path whose line to the nearest
    camera position is not blocked by a seen surface. Seen: in at least one image, no further than the depth measured
    there.
    """
    level = c.level()
    look = _look_around(c, level)
    share, stddev = look.share
    if not look.where.any():
        return c.number(share, stddev, "", _best_frames(c, 2), "{}: there is nothing unseen")
    place, volume = look.largest()
    camera = c.camera_at(c.present)
    distance = float(np.linalg.norm(place - camera.T_world_camera[:3, 3]))
    words = f"{bearing_words(level, camera, place)} of the camera, {c.in_words(distance, _VOXEL_M, 'm')} away"
    evidence = c.moment_evidence(c.now, "now")
    if c.parsed.family == "unseen_where":
        world = place - camera.T_world_camera[:3, 3]
        vector = heading_axes(level, camera.T_world_camera) @ world
        if c.request.choices:
            covariance = np.eye(3) * _VOXEL_M**2
            return direction_answer(c, vector, covariance, words, world, (distance, _VOXEL_M), c.now, evidence)
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
    answer = c.number(share, stddev, "", evidence, "{} is unseen, most of it " + words)
    return c.placed(answer, place)


@dataclass(frozen=True, eq=False)
class _Look:
    """Voxels of the space around the path: a grid with its corner (level frame), which count, which are unseen."""

    level: Level
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
        T = self.level.T_zup_from_world
        return T[:3, :3].T @ (place - T[:3, 3]), float(sizes.max()) * _VOXEL_M**3


def _look_around(c: Context, level: Level) -> _Look:
    T = level.T_zup_from_world
    _, poses = c.track.arrays(c.request.window_start, c.request.window_end)
    path = np.unique(np.round(apply(T, poses[:, :3]) / 0.3), axis=0) * 0.3
    low, high = path.min(axis=0) - c.config.near_m, path.max(axis=0) + c.config.near_m
    camera_height = float(np.median(path[:, 2]))
    low[2] = 0.0 if level.floor_stddev_m is not None else camera_height - 1.0
    high[2] = level.ceiling_m if level.ceiling_m is not None else max(low[2] + 2.0, camera_height + 0.5)
    shape = np.maximum(np.ceil((high - low) / _VOXEL_M).astype(int), 1)
    if int(shape.prod()) > 3_000_000:
        raise QueryError(
            ErrorCode.INVALID_REQUEST, "the path is too long to look around it voxel by voxel: ask about a time window"
        )
    centres = low + (np.indices(shape).reshape(3, -1).T + 0.5) * _VOXEL_M
    gap, nearest = cKDTree(path).query(centres, distance_upper_bound=c.config.near_m)
    close = np.flatnonzero(np.isfinite(gap))
    surface = np.zeros(shape, dtype=bool)
    cells = np.floor((_thinned(c, level) - low) / _VOXEL_M).astype(int)
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
    return _Look(level, low, counted, where, ((low_share + high_share) / 2, (high_share - low_share) / 2 + 0.005))


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


def _thinned(c: Context, level: Level) -> NDArray[np.float64]:
    """Seen surface in the level frame [n, 3], one point for every 5 cm."""
    points = c.memory.seen_points(c.request.window_start, c.request.window_end)
    if not len(points):
        raise QueryError(ErrorCode.NOT_SEEN, "no frame with depth was seen within the window")
    return apply(level.T_zup_from_world, voxel_centres(voxel_keys(points, _THIN), _THIN)).astype(np.float64, copy=False)


def _best_frames(c: Context, k: int) -> tuple[Evidence, ...]:
    """The frames that show most of the space."""
    picked = c.memory.keyframes(k, c.request.window_start, c.request.window_end).picked
    return tuple(c.evidence(stored, "seen space") for stored in map(c.memory.get, picked) if stored is not None)
