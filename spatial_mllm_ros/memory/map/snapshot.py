"""What the map knows at a moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_ros.memory.map.blocks import packed
from spatial_mllm_ros.memory.map.kernels import CELLS, PART, QUANTUM, SIDE
from spatial_mllm_ros.scene.sensor import SensorModel

LEAST_FREE = 2
"""A voxel is free when so many frames say so ..."""
FREE_TO_HITS = 8
"""... and so many for each one that says otherwise: some contradicting images leave no hole in a wall."""
LEAST_HITS = 2
OCCUPIED_SHARE = 0.5
"""A voxel is occupied when two frames, and this share of those that look at it, have a surface there. Between: unknown."""


MOST_VOXELS = 200_000_000
"""The map is looked at as a whole up to so many voxels of the box round it."""


class State(IntEnum):
    """What is known of a voxel."""

    UNKNOWN = 0
    FREE = 1
    OCCUPIED = 2


def _octant_order() -> NDArray[np.int64]:
    """Place [CELLS, 3] in its block of each cell, as ``kernels.cell_number`` counts them."""
    n = np.arange(CELLS)
    octant, rest = n >> 6, n & 63
    high = np.stack([octant >> 2, (octant >> 1) & 1, octant & 1], axis=1) * PART
    return high + np.stack([rest >> 4, (rest >> 2) & 3, rest & 3], axis=1)


PLACE = _octant_order()
_CUBE = np.empty((SIDE, SIDE, SIDE), dtype=np.int64)
_CUBE[tuple(PLACE.T)] = np.arange(CELLS)


def states(hits: NDArray[np.int32], free: NDArray[np.int32]) -> NDArray[np.uint8]:
    """State of voxels, of any shape, from how many frames say that there is a surface in them, or that they are free."""
    state = np.zeros(hits.shape, dtype=np.uint8)
    state[(free >= LEAST_FREE) & (hits * FREE_TO_HITS <= free)] = State.FREE
    state[(hits >= LEAST_HITS) & (hits >= OCCUPIED_SHARE * (hits + free))] = State.OCCUPIED
    return state


@dataclass(frozen=True, eq=False, kw_only=True)
class Voxels:
    """What is known at some places. hits, free, first, last [n] as of MapSnapshot, 0 and -1 where nothing was seen."""

    state: NDArray[np.uint8]
    hits: NDArray[np.int32]
    free: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class MapSnapshot:
    """Evidence in blocks of 8 x 8 x 8 voxels of the world frame; never changes.

    blocks int32 [n, 3]: the block (i, j, k) reaches from 8 (i, j, k) ``voxel_m`` to the next; ordered. Evidence [n, CELLS], its
    cells in the order of ``PLACE``: hits, free (frames that show a surface in a voxel, or show it free), first, last (stamps
    in ns of the first and last frame that shows it, a large number and -1 without one), weight and sums (see ``surface``).
    poses float64 [m, 4, 4] T_world_camera and stamps [m] of the frames that are held, in the order of time. reach_m: how far
    frames were read. epoch: changes when poses were corrected or everything was forgotten.
    """

    version: int
    epoch: int
    voxel_m: float
    reach_m: float
    blocks: NDArray[np.int32]
    hits: NDArray[np.int32]
    free: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    weight: NDArray[np.int64]
    sums: NDArray[np.int64]
    poses: NDArray[np.float64]
    stamps: NDArray[np.int64]
    sensor: SensorModel

    @cached_property
    def state(self) -> NDArray[np.uint8]:
        """State of every voxel, [n, CELLS]."""
        return states(self.hits, self.free)

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        return packed(self.blocks)

    def at(self, points: ArrayLike) -> Voxels:
        """What is known at points [n, 3] (metres, world)."""
        index = np.floor(np.atleast_2d(np.asarray(points, dtype=np.float64)) / self.voxel_m).astype(np.int64)
        keys = packed(index >> 3)
        where = np.minimum(np.searchsorted(self._keys, keys), max(len(self._keys) - 1, 0))
        known = self._keys[where] == keys if len(self._keys) else np.zeros(len(keys), dtype=bool)
        cell = _CUBE[tuple((index & 7).T)]

        def of(field: NDArray[np.integer], nothing: int) -> NDArray[np.integer]:
            return np.where(known, field[where, cell], nothing) if len(self._keys) else np.full(len(keys), nothing)

        last = of(self.last, -1).astype(np.int64)
        hits, free = of(self.hits, 0).astype(np.int32), of(self.free, 0).astype(np.int32)
        first = np.where(last < 0, -1, of(self.first, -1)).astype(np.int64)
        return Voxels(state=states(hits, free), hits=hits, free=free, first=first, last=last)

    @cached_property
    def occupied(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which block [m] and which cell [m] the occupied voxels are."""
        block, cell = np.nonzero(self.state == State.OCCUPIED)
        return block, cell

    @cached_property
    def surface(self) -> NDArray[np.float64]:
        """Mean of the surface points in each occupied voxel, [m, 3] (metres, world), nearer points weighing more."""
        block, cell = self.occupied
        inside = self.sums[block, cell] / np.maximum(self.weight[block, cell], 1)[:, None]
        # a place within a voxel was cut off to whole parts of it
        return (self.blocks[block] * SIDE + PLACE[cell] + (inside + 0.5) / QUANTUM) * self.voxel_m

    def dense(self, field: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
        """A field [n, CELLS] as one array [x, y, z], 0 where there are no blocks, and its corner [3] (metres, world).

        Raises ValueError for a map that is spread over more than ``MOST_VOXELS``.
        """
        if not len(self.blocks):
            return np.zeros(3), np.zeros((0, 0, 0), dtype=field.dtype)
        low = self.blocks.min(axis=0)
        shape = self.blocks.max(axis=0) - low + 1
        if float(np.prod(shape.astype(float))) * CELLS > MOST_VOXELS:
            extent = shape * SIDE * self.voxel_m
            raise ValueError(
                f"the map spreads over {' x '.join(f'{e:.0f}' for e in extent)} m, too much to look at as a whole"
            )
        grid = np.zeros((shape[0], SIDE, shape[1], SIDE, shape[2], SIDE), dtype=field.dtype)
        i, j, k = (self.blocks - low).T
        grid[i, :, j, :, k, :] = field[:, _CUBE]
        return low * SIDE * self.voxel_m, grid.reshape(shape * SIDE)
