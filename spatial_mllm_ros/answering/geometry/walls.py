"""Walls: large upright surfaces along the two directions that most of them have."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.scene.footprint import wall_direction
from spatial_mllm_ros.scene.pose import apply
from spatial_mllm_ros.scene.uncertainty import Errors

_ALONG = np.cos(np.radians(20))
_UPRIGHT = 0.25
_BIN_M = 0.05
_CELL_M = 0.15
_LEAST_AREA_M2 = 1.0
_MAYBE_M2 = 0.1
"""Less of an upright surface may be a wall as well, and more is one."""
_LEAST_HEIGHT_M = 1.2
_BEHIND_M = (0.12, 0.9)
_COVERED = 0.25
"""What has another surface so far behind it, facing alike, over more than this share of it is furniture before a wall."""
_WALL_STDDEV_M = 0.01
_SAME_M = 0.05
_LEAST_SURFELS = 6


@dataclass(frozen=True, eq=False, kw_only=True)
class Wall:
    """A wall in the level frame: upright plane ``normal . p = offset`` (normal: unit [2], towards who saw it).

    low, high: its ends along itself, metres. stddev: of the offset, metres. sure: enough of it was seen.
    """

    T_zup_from_world: NDArray[np.float64]
    normal: NDArray[np.float64]
    offset: float
    low: float
    high: float
    stddev: float
    sure: bool

    def distances(self, world: NDArray[np.float64], errors: Errors | None = None) -> NDArray[np.float64]:
        """Horizontal distance [n] of world points [n, 3] from what was seen of it."""
        plan = apply(self.T_zup_from_world, world)[:, :2]
        off = plan @ self.normal - self.offset - (errors or {}).get(("wall", id(self)), 0.0)
        along = plan @ np.array([-self.normal[1], self.normal[0]])
        beyond = np.maximum(np.maximum(self.low - along, along - self.high), 0.0)
        return np.asarray(np.hypot(off, beyond))

    def stddevs(self) -> dict[Hashable, Any]:
        """Its own error source."""
        return {("wall", id(self)): self.stddev}


def nearest_wall(c: Context, world: NDArray[np.float64]) -> Wall:
    """The wall nearest to any of the world points [n, 3]. NOT_SEEN where none was seen."""
    found = c.once("walls", lambda: walls(c))
    by_distance = sorted(found, key=lambda wall: float(wall.distances(world).min()))
    nearest = next((wall for wall in by_distance if wall.sure), None)
    if nearest is None:
        raise QueryError(ErrorCode.NOT_SEEN, "no wall was seen (no large upright surface)")
    away, maybe = (float(wall.distances(world).min()) for wall in (nearest, by_distance[0]))
    if away - maybe > _SAME_M:
        raise QueryError(
            ErrorCode.ABSTAINED,
            f"the nearest wall is {away:.2f} m away, or only {maybe:.2f} m: too little was seen of what stands there",
        )
    return nearest


def walls(c: Context) -> list[Wall]:
    """Large upright surfaces that reach high enough, by where they are."""
    gravity = c.gravity()
    T = gravity.T_zup_from_world
    points, normals = (np.concatenate(parts) for parts in c.surfels())
    p, n = points @ T[:3, :3].T + T[:3, 3], normals @ T[:3, :3].T
    upright = np.abs(n[:, 2]) < _UPRIGHT
    p, n = p[upright], n[upright]
    if not len(p):
        return []
    angle = wall_direction(p[:, :2], _BIN_M)
    if angle is None:
        angle = float(np.angle(np.exp(4j * np.arctan2(n[:, 1], n[:, 0])).mean()) / 4)
    foot = 0.0 if gravity.floor_stddev_m is not None else float(np.percentile(p[:, 2], 1))
    out: list[Wall] = []
    for quarter in range(4):
        turned = angle + quarter * np.pi / 2
        normal = np.array([np.cos(turned), np.sin(turned)])
        facing = n[:, :2] @ normal > _ALONG * np.linalg.norm(n[:, :2], axis=1)
        out += _of_direction(p[facing], normal, foot + _LEAST_HEIGHT_M, T, c.sensor.pose_position_m)
    return out


def _of_direction(
    p: NDArray[np.float64], normal: NDArray[np.float64], reach: float, T: NDArray[np.float64], pose_m: float
) -> list[Wall]:
    """Walls with this normal among points [n, 3] that face so: the places where much lies in one plane."""
    if not len(p):
        return []
    off = p[:, :2] @ normal
    along = p[:, :2] @ np.array([-normal[1], normal[0]])
    bins = np.floor(off / _BIN_M).astype(np.int64)
    counts = np.bincount(bins - bins.min())
    out = []
    for peak in np.argsort(-counts, kind="stable"):
        if counts[peak] < _LEAST_SURFELS:
            break
        near = np.abs(bins - bins.min() - peak) <= 1
        if counts[peak] < counts[max(peak - 1, 0) : peak + 2].max():
            continue
        for stretch in _stretches(along[near]):
            own = np.flatnonzero(near)[stretch]
            cells = np.unique(np.stack([along[own] // _CELL_M, p[own, 2] // _CELL_M]), axis=1).shape[1]
            rises = np.percentile(p[own, 2], 98) if len(own) else 0.0
            if cells * _CELL_M**2 < _MAYBE_M2:
                continue
            low, high = np.percentile(along[own], [1, 99])
            offset = float(np.median(off[own]))
            behind = (off < offset - _BEHIND_M[0]) & (off > offset - _BEHIND_M[1]) & (along > low) & (along < high)
            if len(np.unique(along[behind] // _CELL_M)) * _CELL_M > _COVERED * (high - low):
                continue
            spread = float(np.std(off[own])) / np.sqrt(len(own))
            out.append(
                Wall(
                    T_zup_from_world=T, normal=normal, offset=offset, low=float(low), high=float(high),
                    sure=bool(cells * _CELL_M**2 >= _LEAST_AREA_M2 and rises >= reach),
                    stddev=float(np.linalg.norm((spread, pose_m, _WALL_STDDEV_M))),
                )
            )  # fmt: skip
    return out


def _stretches(along: NDArray[np.float64], gap_m: float = 0.6) -> list[NDArray[np.intp]]:
    """Indices of points [n] on a line in stretches without larger gaps; a picture or a door is no gap."""
    order = np.argsort(along, kind="stable")
    cuts = np.flatnonzero(np.diff(along[order]) > gap_m) + 1
    return np.split(order, cuts)
