"""The map in a frame with z up and the floor at zero."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from spatial_mllm_ros.memory.map.snapshot import MOST_VOXELS, MapSnapshot, State
from spatial_mllm_ros.scene.gravity import Gravity, ImageSurfels, estimate_gravity
from spatial_mllm_ros.scene.pose import Transform, apply, invert

_LOOKS = 60
_SURFELS = 20_000
_NEIGHBOURS = 12


@dataclass(frozen=True, eq=False, kw_only=True)
class Upright:
    """Voxels of a map with their z axis up.

    gravity: where up, floor and ceiling are. low [3]: corner of the grid, metres in that frame. state uint8 [x, y, z]: of
    each voxel (see State). surface [m, 3]: points on the surfaces in the occupied voxels. hits [m]: frames that show them.
    """

    snapshot: MapSnapshot
    gravity: Gravity
    low: NDArray[np.float64]
    state: NDArray[np.uint8]
    surface: NDArray[np.float64]
    hits: NDArray[np.int32]

    @property
    def voxel_m(self) -> float:
        return self.snapshot.voxel_m

    @property
    def from_world(self) -> Transform:
        return self.gravity.T_zup_from_world

    @cached_property
    def looked_at(self) -> NDArray[np.bool_]:
        """Voxels [x, y, z] that some frame showed, whatever it said of them."""
        return np.asarray(_grid(self.snapshot, self.from_world, self.snapshot.last >= 0)[1], dtype=bool)

    @cached_property
    def cameras(self) -> NDArray[np.float64]:
        """Where the camera was, [n, 3]."""
        return np.asarray(apply(self.from_world, self.snapshot.poses[:, :3, 3]))

    def cells(self, points: ArrayLike) -> NDArray[np.int64]:
        """Voxel [n, 3] (or [n, 2] from above) in which points lie; may be outside the grid."""
        p = np.atleast_2d(np.asarray(points, dtype=np.float64))
        return np.floor((p - self.low[: p.shape[1]]) / self.voxel_m).astype(np.int64)

    def middles(self, cells: ArrayLike) -> NDArray[np.float64]:
        """Middle of voxels [n, 3], or of columns [n, 2] from above, metres."""
        c = np.atleast_2d(np.asarray(cells))
        return (c + 0.5) * self.voxel_m + self.low[: c.shape[1]]

    def slab(self, bottom_m: float, top_m: float) -> NDArray[np.uint8]:
        """States [x, y, n] of the voxels whose middles lie between two heights."""
        first, last = (round((z - self.low[2]) / self.voxel_m) for z in (bottom_m, top_m))
        return self.state[:, :, max(first, 0) : max(last, 0)]

    @cached_property
    def _share(self) -> NDArray[np.float64]:
        """Frames that show each surface point, as a share of those that show the strongest beside it; 0 for a stray one.

        What lies on the floor is not confirmed by the floor.
        """
        share = np.ones(len(self.surface))
        above = self.surface[:, 2] > 1.5 * FLOOR_M
        points, hits = self.surface[above], self.hits[above]
        if len(points):
            distance, near = (
                np.asarray(x) for x in cKDTree(points).query(points, 8, distance_upper_bound=2 * self.voxel_m)
            )
            around = np.where(near < len(points), hits[np.minimum(near, len(points) - 1)], 0)
            alone = (around.max(axis=1) < WELL) & (np.isfinite(distance).sum(axis=1) <= BESIDE)
            strongest = np.where(distance < 1.5 * self.voxel_m, around, 0).max(axis=1)
            share[above] = np.where(alone, 0.0, hits / np.maximum(strongest, 1))
        return share

    def obstacles(self, bottom_m: float, top_m: float, fringe: float = 0.1) -> NDArray[np.float64]:
        """Surface points [n, 3] between two heights that are no stray pixels and not what noise puts beside a surface.

        fringe: noise puts fewer than this share of a surface's points into the voxels beside its own.
        """
        z = self.surface[:, 2]
        return self.surface[(z > bottom_m) & (z < top_m) & (self._share >= fringe)]

    @cached_property
    def floor_seen(self) -> NDArray[np.bool_]:
        """Columns [x, y] in which the floor was seen."""
        seen = np.zeros(self.state.shape[:2], dtype=bool)
        if self.gravity.floor_stddev_m is None:
            return seen
        cells = self.cells(self.surface[np.abs(self.surface[:, 2]) < FLOOR_M])
        seen[cells[:, 0], cells[:, 1]] = True
        return seen


WELL, BESIDE = 4, 3
"""A surface is seen well in four frames; with fewer, three others beside it confirm it."""
FLOOR_M = 0.04
"""Surfaces so near to the floor's height are the floor: rugs, thresholds, what depth and poses are off by."""


def gravity_of(snapshot: MapSnapshot, T_zup_declared: Transform | None = None) -> Gravity:
    """Up, floor and ceiling as the surfaces in the map and the cameras tell them; see ``scene.gravity.estimate_gravity``."""
    points = snapshot.surface
    if len(points) < _NEIGHBOURS or not len(snapshot.poses):
        return estimate_gravity((), T_zup_declared)
    tree = cKDTree(points)
    chosen = points[:: max(len(points) // _SURFELS, 1)]
    near = np.asarray(tree.query(chosen, _NEIGHBOURS, distance_upper_bound=3 * snapshot.voxel_m)[1])
    whole = (near < len(points)).all(axis=1)
    chosen, near = chosen[whole], near[whole]
    around = points[near] - points[near].mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
    normals = vectors[:, :, 0]
    flat = values[:, 0] < 0.1 * values[:, 1]
    poses = snapshot.poses[np.linspace(0, len(snapshot.poses) - 1, min(_LOOKS, len(snapshot.poses))).astype(int)]
    _, camera = cKDTree(poses[:, :3, 3]).query(chosen)
    towards = poses[camera, :3, 3] - chosen
    normals = normals * np.sign(np.sum(normals * towards, axis=1, keepdims=True))
    images = [
        ImageSurfels(chosen[mine], normals[mine], pose)
        for i, pose in enumerate(poses)
        for mine in [flat & (camera == i)]
    ]
    return estimate_gravity(images, T_zup_declared)


def upright(snapshot: MapSnapshot, gravity: Gravity | None = None) -> Upright:
    """The map in an upright frame: of ``gravity``, or as the map itself tells it.

    Where the world frame is not level, each upright voxel has the state of the world's voxel round its middle.
    """
    gravity = gravity_of(snapshot) if gravity is None else gravity
    T = gravity.T_zup_from_world
    low, state = _grid(snapshot, T, snapshot.state)
    surface = np.asarray(apply(T, snapshot.surface))
    if len(surface):  # a surface lies where its points are, whatever rounding does to its voxels
        cells = np.clip(np.floor((surface - low) / snapshot.voxel_m).astype(int), 0, np.array(state.shape) - 1)
        state[tuple(cells.T)] = State.OCCUPIED
    return Upright(
        snapshot=snapshot, gravity=gravity, low=low, state=state, surface=surface, hits=snapshot.hits[snapshot.occupied]
    )


class UprightCache:
    """Upright maps of one snapshot after the other. Not safe to use from several threads at once.

    Up, floor and ceiling are found anew only when poses were corrected or the surfaces have grown by ``growth`` since: one
    more frame does not move the floor, and finding it takes longer than all else.
    """

    def __init__(self, growth: float = 0.1) -> None:
        self.growth = growth
        self._last: Upright | None = None
        self._found_with = 0

    def of(self, snapshot: MapSnapshot) -> Upright:
        """The snapshot in an upright frame; the same one for the same snapshot."""
        last = self._last
        if last is not None and last.snapshot is snapshot:
            return last
        surfaces = len(snapshot.occupied[0])
        near = abs(surfaces - self._found_with) <= self.growth * self._found_with
        keep = last is not None and last.snapshot.epoch == snapshot.epoch and near and not last.gravity.assumed
        found = upright(snapshot, last.gravity if keep and last is not None else None)
        if not keep:
            self._found_with = surfaces
        self._last = found
        return found


def _grid(snapshot: MapSnapshot, T: Transform, field: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """A field of the map in the frame that T leads to: corner [3] and array [x, y, z]."""
    low, values = snapshot.dense(field)
    size = snapshot.voxel_m
    if not values.size or np.abs(T[:3, :3] - np.eye(3)).max() * np.max(values.shape) < 0.2:
        return low + T[:3, 3], values
    ends = np.array([[(low, low + np.array(values.shape) * size)[(c >> a) & 1][a] for a in range(3)] for c in range(8)])
    ends = apply(T, ends)
    base = np.floor(ends.min(axis=0) / size) * size
    shape = np.ceil((ends.max(axis=0) - base) / size).astype(int)
    if float(np.prod(shape.astype(float))) > MOST_VOXELS:
        raise ValueError("the map spreads too far to look at it as a whole")
    back = invert(T)
    turned = np.zeros(shape, dtype=values.dtype)
    ys, zs = (base[a] + (np.arange(shape[a]) + 0.5) * size for a in (1, 2))
    plane = ys[:, None, None] * back[:3, 1] + zs[None, :, None] * back[:3, 2] + back[:3, 3]
    limits = np.array(values.shape)
    for i in range(shape[0]):
        cells = np.floor((plane + (base[0] + (i + 0.5) * size) * back[:3, 0] - low) / size).astype(np.int32)
        inside = ((cells >= 0) & (cells < limits)).all(axis=-1)
        a, b, c = cells[inside].T
        turned[i][inside] = values[a, b, c]
    return base, turned
