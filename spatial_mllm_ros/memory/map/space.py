"""What is at a place, what fits there, and what can be seen from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from spatial_mllm_ros.memory.map.extents import Measure
from spatial_mllm_ros.memory.map.routes import FLOOR_GAP_M
from spatial_mllm_ros.memory.map.snapshot import MapSnapshot, State
from spatial_mllm_ros.memory.map.upright import Upright


def occupancy(snapshot: MapSnapshot, place: ArrayLike) -> tuple[State, float]:
    """What a place (m, world) is, and how probable that is.

    Of n frames that look at a voxel and k that contradict the rest, the next contradicts with the probability
    (k + 1) / (n + 2) (Laplace's rule of succession).
    """
    found = snapshot.at(place)
    state = State(int(found.state[0]))
    hits, free = int(found.hits[0]), int(found.free[0])
    if state is State.UNKNOWN:
        return state, 1.0
    agree = hits if state is State.OCCUPIED else free
    return state, (agree + 1) / (hits + free + 2)


class Sight(Enum):
    """Whether two places see each other."""

    CLEAR = "clear"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"


def line_of_sight(snapshot: MapSnapshot, a: ArrayLike, b: ArrayLike) -> tuple[Sight, float, NDArray[np.float64] | None]:
    """Whether anything stands between two places [3] (m, world), how probable that is, and where the first thing is.

    The ends themselves may lie on surfaces: a voxel and a half there does not count.
    """
    start, end = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    length = float(np.linalg.norm(end - start))
    skip = 1.5 * snapshot.voxel_m
    if length <= 2 * skip:
        return Sight.CLEAR, 0.9, None
    along = np.arange(skip, length - skip, snapshot.voxel_m / 3)
    points = start + along[:, None] * (end - start) / length
    found = snapshot.at(points)
    blocked = found.state == State.OCCUPIED
    if blocked.any():
        runs, count = ndimage.label(blocked)
        deep = max(int(np.count_nonzero(runs == n)) for n in range(1, count + 1))
        # a ray that only touches a corner of a voxel may pass beside what is in it
        sure = 0.95 if deep >= 3 else 0.6
        return Sight.BLOCKED, sure, points[int(np.argmax(blocked))]
    unknown = found.state == State.UNKNOWN
    if np.count_nonzero(unknown) > 1:
        return Sight.UNKNOWN, 1.0, points[int(np.argmax(unknown))]
    return Sight.CLEAR, 0.97, None


@dataclass(frozen=True, eq=False, kw_only=True)
class Fit:
    """Whether a box fits. state FREE: it does; OCCUPIED: something is in the way; UNKNOWN: not all was seen.

    place [3]: middle of its underside, and yaw (rad), where it fits; else where the first obstacle is.
    """

    state: State
    probability: float
    place: NDArray[np.float64]
    yaw: float


def fits(up: Upright, place: ArrayLike, sides_m: ArrayLike, yaw: float | None = None) -> Fit:
    """Whether an upright box of length, width and height stands free with the middle of its underside at a place [3].

    yaw: of its length (rad, upright frame); None: whichever fits.
    """
    p, sides = np.asarray(place, dtype=float), np.asarray(sides_m, dtype=float)
    if sides.shape != (3,) or not ((sides > 0) & (sides < 50)).all():
        raise ValueError(f"a box has three sides from 0 to 50 m, not {sides.tolist()}")
    best: Fit | None = None
    for angle in np.radians(np.arange(0, 180, 15)) if yaw is None else (yaw,):
        found = _stands(up, p, sides, float(angle))
        if (
            best is None
            or _GOOD[found.state] > _GOOD[best.state]
            or (found.state == best.state and found.probability > best.probability)
        ):
            best = found
    assert best is not None
    return best


_GOOD = {State.FREE: 2, State.UNKNOWN: 1, State.OCCUPIED: 0}
_EDGE_M = 0.02


def _stands(up: Upright, p: NDArray[np.float64], sides: NDArray[np.float64], yaw: float) -> Fit:
    c, s = np.cos(yaw), np.sin(yaw)

    def within(points: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
        q = points - p
        x, y, z = q[:, 0] * c + q[:, 1] * s, q[:, 1] * c - q[:, 0] * s, q[:, 2]
        half = sides / 2 + margin
        return np.asarray(
            (np.abs(x) < half[0]) & (np.abs(y) < half[1]) & (z > 2 * _EDGE_M - margin) & (z < sides[2] + margin)
        )

    things = up.obstacles(p[2] + _EDGE_M, p[2] + float(sides[2]) + _EDGE_M)
    inside = within(things, -_EDGE_M)
    if inside.any():
        first = things[inside][int(np.argmin(np.linalg.norm(things[inside] - p, axis=1)))]
        deep = np.count_nonzero(within(things, -2 * _EDGE_M))
        return Fit(state=State.OCCUPIED, probability=0.97 if deep >= 3 else 0.7, place=first, yaw=yaw)
    reach = float(np.linalg.norm(sides[:2])) / 2
    low = up.cells(p - np.array([reach, reach, -2 * _EDGE_M]))[0]
    high = up.cells(p + np.array([reach, reach, sides[2]]))[0] + 1
    cells = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    cells = cells.reshape(-1, 3)
    cells = cells[within(up.middles(cells), -up.voxel_m / 2)]
    if not len(cells):
        return Fit(state=State.UNKNOWN, probability=1.0, place=p, yaw=yaw)
    known = ((cells >= 0) & (cells < up.state.shape)).all(axis=1)
    state = np.zeros(len(cells), dtype=np.uint8)
    state[known] = up.state[tuple(cells[known].T)]
    unknown = (state == State.UNKNOWN) & ~_just_over_a_surface(up, cells, float(p[2]))
    if np.count_nonzero(unknown) > 0.02 * len(cells):
        where = up.middles(cells[unknown])
        return Fit(
            state=State.UNKNOWN,
            probability=1.0,
            place=where[int(np.argmin(np.linalg.norm(where - p, axis=1)))],
            yaw=yaw,
        )
    tight = within(things, _EDGE_M).any()
    return Fit(state=State.FREE, probability=0.75 if tight else 0.97, place=p, yaw=yaw)


def _just_over_a_surface(up: Upright, cells: NDArray[np.int64], height_m: float) -> NDArray[np.bool_]:
    """Which voxels [n, 3] lie in the gap over a surface seen at a height, where rays that graze it tell nothing."""
    held = (up.slab(height_m - 0.1, height_m + 0.1) == State.OCCUPIED).any(axis=2)
    inside = ((cells[:, :2] >= 0) & (cells[:, :2] < held.shape)).all(axis=1)
    over = np.zeros(len(cells), dtype=bool)
    over[inside] = held[tuple(cells[inside, :2].T)]
    return over & (up.middles(cells)[:, 2] < height_m + FLOOR_GAP_M)


def headroom(up: Upright, place: ArrayLike) -> tuple[Measure, bool]:
    """Height of the free space over a place [2] or [3] of the upright frame, m, and whether something was seen that ends it.

    False: it goes on at least so high; what is above was not seen. A place [2] is on the floor.
    """
    p = np.asarray(place, dtype=float)
    base = float(p[2]) if len(p) > 2 else 0.0
    things = up.obstacles(base + 0.1, np.inf)
    over = things[np.linalg.norm(things[:, :2] - p[:2], axis=1) < up.voxel_m]
    column = up.cells(p[:2])[0]
    if not ((column >= 0) & (column < up.state.shape[:2])).all():
        return Measure(0.0, up.voxel_m), False
    states = up.state[column[0], column[1]]
    heights = up.low[2] + (np.arange(len(states)) + 0.5) * up.voxel_m
    end = float(over[:, 2].min()) if len(over) else np.inf
    unknown = heights[(states == State.UNKNOWN) & (heights > base + 0.15) & (heights < end - 1.5 * up.voxel_m)]
    if len(unknown):
        return Measure(float(unknown[0]) - up.voxel_m / 2 - base, up.voxel_m / 2), False
    if not np.isfinite(end):
        return Measure(float(heights[-1]) - base, up.voxel_m), False
    near = over[over[:, 2] < end + 1.2 * up.voxel_m, 2]
    stddev = float(np.hypot(0.01, up.gravity.floor_stddev_m or 0.0 if len(p) < 3 else 0.005))
    return Measure(float(np.median(near)) - base, stddev), True


@dataclass(frozen=True, eq=False, kw_only=True)
class Patch:
    """A piece of a surface. middle [3] and unit normal [3], upright frame. slope_rad against the horizontal and its deviation.

    roughness_m: standard deviation of its points from the plane.
    """

    middle: NDArray[np.float64]
    normal: NDArray[np.float64]
    slope_rad: Measure
    roughness_m: float


def patch(up: Upright, place: ArrayLike, radius_m: float = 0.25) -> Patch:
    """Slope and flatness of the surface round a place [3]. Raises ValueError where too little was seen of it."""
    p = np.asarray(place, dtype=float)
    near = up.surface[np.linalg.norm(up.surface - p, axis=1) < radius_m]
    for _ in range(3):
        if len(near) < 8:
            raise ValueError("too little was seen of the surface there")
        middle = near.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov((near - middle).T))
        normal = vectors[:, 0] * (1.0 if vectors[2, 0] >= 0 else -1.0)
        off = (near - middle) @ normal
        scatter = max(1.4826 * float(np.median(np.abs(off))), 0.002)
        kept = np.abs(off) < 3 * scatter
        if kept.all():
            break
        near = near[kept]
    slope = float(np.arccos(np.clip(normal[2], -1, 1)))
    across = float(np.sqrt(max(values[1], 1e-9)))
    roughness = float(np.std(off))
    stddev = float(np.hypot(up.gravity.tilt_stddev_rad, max(roughness, 0.004) / (across * np.sqrt(len(near) / 4))))
    return Patch(middle=middle, normal=normal, slope_rad=Measure(slope, stddev), roughness_m=roughness)


def free_patch(
    up: Upright, sides_m: tuple[float, float], height_m: tuple[float, float], clear_m: float = 0.2,
    near: ArrayLike | None = None, reach_m: float = np.inf,
) -> Patch | None:  # fmt: skip
    """A free rectangle on a level surface whose height lies in an interval (m), with free space of ``clear_m`` above it.

    sides_m: length and width, either way round. near, reach_m: at most so far from a place [2]. The place that is furthest from
    the surface's edge and from what stands on it; None: there is none that was seen.
    """
    low, high = height_m
    z = up.surface[:, 2]
    top = up.surface[(z > low - 0.02) & (z < high + 0.02)]
    if not len(top):
        return None
    order = np.argsort(top[:, 2], kind="stable")
    heights = top[order, 2]
    for start in np.arange(heights[0], heights[-1] + 1e-9, 0.03):
        layer = top[order][(heights >= start - 0.015) & (heights < start + 0.045)]
        found = _on_layer(up, layer, sides_m, clear_m, near, reach_m)
        if found is not None:
            return found
    return None


def _on_layer(
    up: Upright,
    layer: NDArray[np.float64],
    sides_m: tuple[float, float],
    clear_m: float,
    near: ArrayLike | None,
    reach_m: float,
) -> Patch | None:
    if len(layer) * up.voxel_m**2 < 0.5 * sides_m[0] * sides_m[1]:
        return None
    height = float(np.median(layer[:, 2]))
    surface = np.zeros(up.state.shape[:2], dtype=bool)
    surface[tuple(up.cells(layer[:, :2]).T)] = True
    surface = ndimage.binary_closing(np.pad(surface, 2))[2:-2, 2:-2]
    above = up.slab(height + 1.5 * up.voxel_m, height + max(clear_m, 2 * up.voxel_m))
    free = surface & (np.count_nonzero(above != State.FREE, axis=2) == 0)
    best: tuple[float, NDArray[np.int64]] | None = None
    room = ndimage.distance_transform_edt(np.pad(free, 1))[1:-1, 1:-1]
    for sides in (sides_m, sides_m[::-1]):
        n = [max(1, int(np.ceil(side / up.voxel_m))) for side in sides]
        holds = ndimage.binary_erosion(np.pad(free, 1), np.ones(n))[1:-1, 1:-1]
        if near is not None:
            apart = np.linalg.norm(up.middles(np.argwhere(holds)) - np.asarray(near, dtype=float)[:2], axis=1)
            cells = np.argwhere(holds)[apart <= reach_m]
        else:
            cells = np.argwhere(holds)
        if len(cells):
            widest = int(np.argmax(room[tuple(cells.T)]))
            if best is None or room[tuple(cells[widest])] > best[0]:
                best = (float(room[tuple(cells[widest])]), cells[widest])
    if best is None:
        return None
    place = np.append(up.middles(best[1])[0], height)
    try:
        return patch(up, place, max(0.6 * min(sides_m), 2.5 * up.voxel_m))
    except ValueError:
        return None
