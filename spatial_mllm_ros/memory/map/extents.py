"""How large what was seen is, and what of it was never looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import perimeter_crofton

from spatial_mllm_ros.memory.map.rooms import Plan, Room
from spatial_mllm_ros.memory.map.upright import Upright
from spatial_mllm_ros.scene.footprint import smallest_rectangle, wall_direction

ALPHA_RADIUS_M = 0.5
"""Outlines do not go round gaps that a disc of this radius does not fit into."""
_WALL_SEARCH_M = 0.3
_UNSEEN_TOP_M = 2.5
_DENSE = 0.2
_WALL_M = 0.025  # what pictures, skirtings and curtains do to where a wall seems to be


@dataclass(frozen=True)
class Measure:
    """A number with its standard deviation, SI."""

    value: float
    stddev: float


def extents(up: Upright) -> tuple[Measure, Measure, Measure]:
    """Length, width and height of the space seen, m: between the outermost walls, along the walls."""
    points = up.surface[:, :2]
    if len(points) < 10:
        nothing = Measure(0.0, up.voxel_m)
        return nothing, nothing, nothing
    angle = wall_direction(points, up.voxel_m)
    if angle is None:
        angle = smallest_rectangle(points)[2]
    c, s = np.cos(angle), np.sin(angle)
    sides = [
        _between_walls(axis, up.hits.astype(float), up.voxel_m) for axis in (points @ np.array([[c, -s], [s, c]])).T
    ]
    length, width = sorted(sides, reverse=True)
    z = up.surface[:, 2]
    bottom, top = (float(np.percentile(z, q)) for q in (0.5, 99.5))
    gravity, sensor = up.gravity, up.snapshot.sensor
    low = (0.0, gravity.floor_stddev_m) if gravity.floor_stddev_m is not None else (bottom, up.voxel_m / 2)
    high = (top, up.voxel_m / 2)
    if gravity.ceiling_m is not None and gravity.ceiling_stddev_m is not None:
        high = (gravity.ceiling_m, gravity.ceiling_stddev_m)
    height = Measure(high[0] - low[0], float(np.hypot(high[1], low[1])))

    def side(found: tuple[float, float]) -> Measure:
        share = sensor.depth_correlated * min(found[0], up.snapshot.reach_m)
        return Measure(found[0], float(np.linalg.norm((found[1], share, sensor.pose_position_m))))

    return side(length), side(width), height


def _between_walls(places: NDArray[np.float64], weights: NDArray[np.float64], size: float) -> tuple[float, float]:
    """Distance between the outermost walls across an axis, and its deviation, from the places [n] of points on it.

    Noise spreads a wall to both sides: it is where points are dense nearest to the end. Where nothing is dense there, the
    space ends with its outermost points.
    """
    low, high = np.percentile(places, [0.1, 99.9])
    found = []
    for end, inward in ((low, 1.0), (high, -1.0)):
        depth = (places - end) * inward
        near = np.abs(depth) < _WALL_SEARCH_M
        bins = np.floor((depth[near] + _WALL_SEARCH_M) / (size / 2)).astype(int)
        counts = np.convolve(np.bincount(bins, weights[near]), np.ones(2))[1:]
        dense = counts > max(_DENSE * counts.max(), 2 * weights.sum() * size / max(high - low, size))
        if not dense.any():
            found.append((end, size))
            continue
        first = int(np.argmax(dense))
        first += int(np.argmax(counts[first : first + 3]))  # its peak
        peak = (first + 1) * size / 2 - _WALL_SEARCH_M
        wall = near & (np.abs(depth - peak) < size)
        found.append((end + inward * float(np.average(depth[wall], weights=weights[wall])), _WALL_M))
    (a, da), (b, db) = found
    return float(b - a), float(np.hypot(da, db))


def floor_seen(up: Upright) -> Measure:
    """Area of floor that was seen itself, m2. Raises ValueError where none was."""
    if up.gravity.floor_stddev_m is None:
        raise ValueError("no floor was seen")
    seen = up.floor_seen
    size = up.voxel_m
    perimeter = float(perimeter_crofton(np.pad(seen, 1), directions=4)) * size
    # a column counts when any of it shows floor: half of one too much along the rim
    area = float(np.count_nonzero(seen)) * size**2 - perimeter * size / 2
    return Measure(area, float(np.hypot(perimeter * size / 4, 0.01 * area)))


def outline_area(up: Upright) -> Measure:
    """Area within the outline of all that was seen, walls between rooms and furniture included, m2; as room sizes are
    often counted.

    The outline is the alpha hull of the points seen from above (Edelsbrunner, Kirkpatrick and Seidel, IEEE Trans. Inform.
    Theory 29, 1983), of discs of ``ALPHA_RADIUS_M``; what it encloses is filled.
    """
    top = np.inf if up.gravity.ceiling_m is None else up.gravity.ceiling_m - 0.1
    points = up.obstacles(-np.inf, top, fringe=0.3)
    size = up.voxel_m
    pad = int(ALPHA_RADIUS_M / size) + 2
    seen = np.zeros(np.array(up.state.shape[:2]) + 2 * pad, dtype=bool)
    if not len(points):
        return Measure(0.0, size**2)
    seen[tuple((up.cells(points[:, :2]) + pad).T)] = True
    reached = ndimage.distance_transform_edt(~seen) * size < ALPHA_RADIUS_M
    hull = (ndimage.distance_transform_edt(reached) * size >= ALPHA_RADIUS_M) | seen
    hull = ndimage.binary_fill_holes(hull)
    perimeter = float(perimeter_crofton(hull, directions=4)) * size
    # a surface lies anywhere within its column: half of one too much on average
    area = float(np.count_nonzero(hull)) * size**2 - perimeter * size / 2
    return Measure(area, float(np.hypot(perimeter * size / 3, 0.01 * area)))


def area(plan: Plan, room: Room | None = None) -> Measure:
    """Floor area between walls of one room, or of all of them, m2; what was only glimpsed of a room is not in it."""
    rooms = plan.rooms if room is None else (room,)
    total = sum(r.area_m2 for r in rooms)
    # what furniture hides of a room's edge is the same kind of error in each: half of it is shared
    white, shared = float(np.linalg.norm([r.area_stddev_m2 for r in rooms])), sum(r.area_stddev_m2 for r in rooms)
    return Measure(float(total), max(float(np.hypot(white, shared)) / float(np.sqrt(2)), plan.up.voxel_m**2))


@dataclass(frozen=True, eq=False, kw_only=True)
class Unseen:
    """What of the rooms was never looked at.

    share: of their volume, 0 to 1. volume_m3: of the largest part; middle [3]: a place in the middle of that.
    """

    share: Measure
    volume_m3: float
    middle: NDArray[np.float64] | None


def unseen(plan: Plan, near_m: float | None = None) -> Unseen:
    """Share of the space within the rooms' walls, between floor and ceiling, that no frame showed.

    near_m: only so far from where the camera was. What is inside of furniture was not looked at, and counts.
    """
    up = plan.up
    top = up.gravity.ceiling_m if up.gravity.ceiling_m is not None else _UNSEEN_TOP_M
    within = plan.labels > 0
    if near_m is not None and len(up.cameras):
        walked = np.ones(within.shape, dtype=bool)
        cells = np.clip(up.cells(up.cameras[:, :2]), 0, np.array(within.shape) - 1)
        walked[tuple(cells.T)] = False
        within = within & (ndimage.distance_transform_edt(walked) * up.voxel_m <= near_m)
    bottom, end = (max(round((z - up.low[2]) / up.voxel_m), 0) for z in (0.0, top))
    where = ~up.looked_at[:, :, bottom:end] & within[:, :, None]
    total = int(np.count_nonzero(within)) * where.shape[2]
    if total == 0:
        return Unseen(share=Measure(1.0, 0.5), volume_m3=0.0, middle=None)
    share = float(np.count_nonzero(where)) / total
    # a voxel at the edge of what was seen was seen in part
    rim = float(np.count_nonzero(where & ~ndimage.binary_erosion(where, border_value=1))) / total
    stddev = float(np.hypot(rim / 4, 0.01))
    parts, count = ndimage.label(where)
    if not count:
        return Unseen(share=Measure(share, stddev), volume_m3=0.0, middle=None)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    part = np.argwhere(parts == int(np.argmax(sizes)))
    inside = part[np.argmin(((part - part.mean(axis=0)) ** 2).sum(axis=1))]
    middle = up.middles(inside + np.array([0, 0, bottom]))[0]
    return Unseen(share=Measure(share, stddev), volume_m3=float(sizes.max()) * up.voxel_m**3, middle=middle)
