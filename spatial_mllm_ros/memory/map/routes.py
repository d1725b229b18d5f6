"""Where a robot can be and how it gets there. What is unknown is not free."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.graph import MCP_Geometric

from spatial_mllm_ros.memory.map.snapshot import State
from spatial_mllm_ros.memory.map.upright import Upright

STEP_M = 0.06
"""What is lower than this is driven over: thresholds, rugs."""
FLOOR_GAP_M = 0.15
"""Over floor that was seen the first free voxel may begin so high: rays that graze the floor leave it unknown."""
SMALLEST_RADIUS_M, LARGEST_RADIUS_M = 0.01, 5.0
_MARGIN_M = 0.01
_COMFORT_M = 0.25
_UNKNOWN_SHARE = 0.1
_PINHOLE_COLUMNS = 9


class Why(Enum):
    """Why there is no way."""

    START_NOT_FREE = "something stands too near to the start"
    GOAL_NOT_FREE = "something stands too near to the goal"
    START_UNKNOWN = "what is round the start was not seen"
    GOAL_UNKNOWN = "what is round the goal was not seen"
    UNKNOWN_BETWEEN = "what lies between was not seen"
    TOO_NARROW = "no passage is wide enough"


@dataclass(frozen=True, eq=False, kw_only=True)
class Ground:
    """Where a robot of some height may stand, [x, y] from above.

    blocked: something stands there. free: all of it was seen to be free; else unknown. obstacles [n, 2]: places of what
    blocks. room_m [x, y]: distance to the nearest thing that blocks, or unknown place, metres.
    """

    up: Upright
    height_m: float
    blocked: NDArray[np.bool_]
    free: NDArray[np.bool_]
    obstacles: NDArray[np.float64]
    room_m: NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Route:
    """A way for the middle of a robot. poses [n, 3]: x, y (m, upright frame) and heading (rad). length_m and its deviation.

    narrowest_m: twice the clearance where it is least, and its deviation; narrowest_at [2]: there.
    """

    poses: NDArray[np.float64]
    length_m: float
    length_stddev_m: float
    narrowest_m: float
    narrowest_stddev_m: float
    narrowest_at: NDArray[np.float64]


@lru_cache(maxsize=4)
def ground(up: Upright, height_m: float) -> Ground:
    """Where a robot of this height (m, above 0.1) may stand."""
    if not 0.1 <= height_m <= 5.0:
        raise ValueError(f"a robot's height must be 0.1 to 5 m, not {height_m:g}")
    size = up.voxel_m
    tall = up.obstacles(STEP_M, height_m)
    blocked = np.zeros(up.state.shape[:2], dtype=bool)
    cells = up.cells(tall[:, :2])
    blocked[tuple(cells.T)] = True
    slab = up.slab(STEP_M, height_m)
    # from the floor on: what is unknown close above floor that was seen counts as free
    lowest = round((FLOOR_GAP_M - STEP_M) / size)
    unknown = slab == State.UNKNOWN
    floor = ndimage.binary_closing(np.pad(up.floor_seen, 2), iterations=1)[2:-2, 2:-2]
    some = np.count_nonzero(unknown[:, :, lowest:], axis=2) > _UNKNOWN_SHARE * max(slab.shape[2] - lowest, 1)
    low_free = (slab[:, :, :lowest] == State.FREE).any(axis=2) | floor
    free = ~blocked & ~some & low_free if slab.shape[2] else np.zeros_like(blocked)
    free = _without_pinholes(free, blocked)
    # close to a surface nothing is seen to be free: how far the robot must stay off is told by the surface itself
    touching = np.ones((3, 3), dtype=bool)
    free |= ~blocked & ndimage.binary_dilation(blocked, touching) & ndimage.binary_dilation(free, touching)
    obstacles = tall[:, :2]
    room = ndimage.distance_transform_edt(np.pad(free | blocked, 1))[1:-1, 1:-1] * size - size / 2
    to_obstacle = np.full(free.shape, np.inf)
    inside = np.argwhere(free)
    if len(inside) and len(obstacles):
        to_obstacle[tuple(inside.T)] = cKDTree(obstacles).query(up.middles(inside))[0]
    room = np.where(free, np.minimum(room, to_obstacle), 0.0)
    return Ground(up=up, height_m=height_m, blocked=blocked, free=free, obstacles=obstacles, room_m=room)


def _without_pinholes(free: NDArray[np.bool_], blocked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Unknown places of a few columns are free where all round them is: what stood there would have shown."""
    parts, count = ndimage.label(~free, structure=np.ones((3, 3)))
    size = np.bincount(parts.ravel(), minlength=count + 1)
    holds = np.bincount(parts.ravel(), blocked.ravel(), minlength=count + 1)
    return free | ((size <= _PINHOLE_COLUMNS) & (holds == 0))[parts]


def route(
    up: Upright, start: ArrayLike, goal: ArrayLike, radius_m: float, height_m: float
) -> tuple[Route | None, Why | None]:
    """The shortest way from a place to another [2] (upright frame) for a robot; or why there is none.

    A start or goal at which the robot does not fit is moved by up to its radius, and 0.3 m, to where it does.
    Raises ValueError for a radius or height that no robot has.
    """
    if not SMALLEST_RADIUS_M <= radius_m <= LARGEST_RADIUS_M:
        raise ValueError(f"a robot's radius must be {SMALLEST_RADIUS_M:g} to {LARGEST_RADIUS_M:g} m, not {radius_m:g}")
    g = ground(up, height_m)
    fits = g.room_m >= radius_m + _MARGIN_M
    a, b = (_nearest(up, fits, np.asarray(p, dtype=float)[:2], radius_m + 0.3) for p in (start, goal))
    if a is None:
        return None, Why.START_NOT_FREE if _taken(g, start, radius_m) else Why.START_UNKNOWN
    if b is None:
        return None, Why.GOAL_NOT_FREE if _taken(g, goal, radius_m) else Why.GOAL_UNKNOWN
    # a little dearer beside obstacles: of two ways as long, the wider one
    cost = np.where(fits, 1.0 + 0.1 * np.clip(1 - (g.room_m - radius_m) / _COMFORT_M, 0, 1), -1.0)
    search = MCP_Geometric(cost)
    costs, _ = search.find_costs([a], [b])
    if not np.isfinite(costs[b]):
        return None, _why_not(g, a, b, radius_m)
    cells = np.array(search.traceback(b))
    path = _pulled(up, g, up.middles(cells), radius_m + _MARGIN_M)
    legs = np.diff(path, axis=0)
    length = float(np.linalg.norm(legs, axis=1).sum())
    heading = np.arctan2(legs[:, 1], legs[:, 0]) if len(legs) else np.zeros(0)
    heading = np.append(heading, heading[-1] if len(heading) else 0.0)
    where, narrow = _narrowest(g, path)
    found = Route(
        poses=np.column_stack([path, heading]),
        length_m=length,
        length_stddev_m=float(np.hypot(0.03, 0.015 * length)),
        narrowest_m=2 * narrow,
        narrowest_stddev_m=0.03,
        narrowest_at=where,
    )
    return found, None


def reachable(up: Upright, start: ArrayLike, goal: ArrayLike, radius_m: float, height_m: float) -> tuple[bool, float]:
    """Whether a robot gets from a place to another, and how probable that is.

    Less where a way is hardly wide enough; one half where what was not seen decides.
    """
    found, why = route(up, start, goal, radius_m, height_m)
    if found is not None:
        return True, _certain(found.narrowest_m / 2 - radius_m)
    return False, 0.95 if why in (Why.TOO_NARROW, Why.START_NOT_FREE, Why.GOAL_NOT_FREE) else 0.5


_UNSURE_M = 0.04
"""Clearance is known to about this, twice its deviation."""
_AT_MOST_M = _UNSURE_M + 0.025
"""What a column's middle may miss of the clearance of a place in it, beside that."""


def _certain(slack_m: float) -> float:
    return float(np.clip(0.8 + 0.19 * slack_m / _UNSURE_M, 0.8, 0.99))


def clearance(up: Upright, place: ArrayLike, height_m: float) -> tuple[float, float, State]:
    """Distance to the nearest obstacle or unknown place from a place [2], its deviation (m), and what is there."""
    g = ground(up, height_m)
    p = np.asarray(place, dtype=float)[:2]
    cell = tuple(up.cells(p)[0])
    if not all(0 <= c < n for c, n in zip(cell, g.free.shape, strict=True)):
        return 0.0, up.voxel_m, State.UNKNOWN
    if not g.free[cell]:
        return 0.0, up.voxel_m, State.OCCUPIED if g.blocked[cell] else State.UNKNOWN
    to_obstacle = float(cKDTree(g.obstacles).query(p)[0]) if len(g.obstacles) else np.inf
    unknown = ~(g.free | g.blocked)
    near = up.middles(np.argwhere(unknown)) if unknown.any() else np.zeros((0, 2))
    to_unknown = float(cKDTree(near).query(p)[0]) - up.voxel_m / 2 if len(near) else np.inf
    return max(0.0, min(to_obstacle, to_unknown)), 0.015 if to_obstacle <= to_unknown else up.voxel_m / 2, State.FREE


def widest_passage(up: Upright, start: ArrayLike, goal: ArrayLike, height_m: float) -> tuple[float, float] | None:
    """Width of the widest way from a place to another at its narrowest place, and deviation, m; None: there is no way."""
    g = ground(up, height_m)
    a, b = (_nearest(up, g.room_m > 0.05, np.asarray(p, dtype=float)[:2], 0.3) for p in (start, goal))
    if a is None or b is None:
        return None
    low, high = 0.0, float(min(g.room_m[a], g.room_m[b]))
    wide = max(_widest(g, a, b, low, high), 0.0)
    return (2 * wide, 0.03) if wide > 0 else None


def _widest(g: Ground, a: tuple[int, int], b: tuple[int, int], low: float, high: float) -> float:
    """Largest clearance that a way keeps, by halving."""
    for _ in range(10):
        middle = (low + high) / 2
        labels, _ = ndimage.label(g.room_m >= middle, structure=np.ones((3, 3)))
        if labels[a] > 0 and labels[a] == labels[b]:
            low = middle
        else:
            high = middle
    return low


def _nearest(
    up: Upright, allowed: NDArray[np.bool_], place: NDArray[np.float64], reach_m: float
) -> tuple[int, int] | None:
    """The nearest allowed column to a place, within reach."""
    cell = up.cells(place)[0]
    n = int(np.ceil(reach_m / up.voxel_m))
    low = np.maximum(cell - n, 0)
    found = np.argwhere(allowed[low[0] : max(cell[0] + n + 1, 0), low[1] : max(cell[1] + n + 1, 0)])
    if not len(found):
        return None
    apart = np.linalg.norm(up.middles(found + low) - place, axis=1)
    best = int(np.argmin(apart))
    i, j = (found[best] + low).tolist()
    return (i, j) if apart[best] <= reach_m else None


def _why_not(g: Ground, a: tuple[int, int], b: tuple[int, int], radius_m: float) -> Why:
    """Whether no passage is wide enough even if all that is unknown were free; else what is unknown decides."""
    open_ = np.ones(g.free.shape, dtype=bool)
    if len(g.obstacles):
        middles = g.up.middles(np.argwhere(open_))
        away = np.asarray(cKDTree(g.obstacles).query(middles)[0]).reshape(open_.shape)
        open_ = away >= radius_m - _AT_MOST_M
    open_ = np.pad(open_, 1, constant_values=True)  # round the outside one may get, too
    labels, _ = ndimage.label(open_, structure=np.ones((3, 3)))
    i, j = (labels[p[0] + 1, p[1] + 1] for p in (a, b))
    return Why.UNKNOWN_BETWEEN if i > 0 and i == j else Why.TOO_NARROW


def _taken(g: Ground, place: ArrayLike, radius_m: float) -> bool:
    """Whether something is known to stand within the robot at a place."""
    p = np.asarray(place, dtype=float)[:2]
    return bool(len(g.obstacles)) and float(cKDTree(g.obstacles).query(p)[0]) < radius_m - _UNSURE_M


def _pulled(up: Upright, g: Ground, path: NDArray[np.float64], radius_m: float) -> NDArray[np.float64]:
    """The path with its corners cut as far as the robot has room."""
    kept = [0]
    while kept[-1] < len(path) - 1:
        i = kept[-1]
        low, high = i + 1, len(path) - 1
        while low < high:  # far corners are tried by halving, from the end
            middle = (low + high + 1) // 2
            if _straight(up, g, path[i], path[middle], radius_m):
                low = middle
            else:
                high = middle - 1
        kept.append(low)
    return path[kept]


def _straight(up: Upright, g: Ground, a: NDArray[np.float64], b: NDArray[np.float64], radius_m: float) -> bool:
    n = max(2, int(np.ceil(np.linalg.norm(b - a) / (up.voxel_m / 2))))
    points = a + np.linspace(0, 1, n)[:, None] * (b - a)
    cells = up.cells(points)
    return bool((g.room_m[tuple(cells.T)] >= radius_m).all())


def _narrowest(g: Ground, path: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Where a path is nearest to an obstacle or the unknown, and how near."""
    steps = [
        a + np.linspace(0, 1, max(2, int(np.linalg.norm(b - a) / 0.02)))[:, None] * (b - a)
        for a, b in itertools.pairwise(path)
    ]
    points = np.concatenate([*steps, path[-1:]])
    room = g.room_m[tuple(g.up.cells(points).T)]
    if len(g.obstacles):
        room = np.minimum(room + g.up.voxel_m / 2, cKDTree(g.obstacles).query(points)[0])
    worst = int(np.argmin(room))
    return points[worst], float(room[worst])
