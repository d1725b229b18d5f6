"""Voxels: cubes of a lattice fixed in the world, each named by one integer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BITS = 21  # per axis: about a million voxels to each side of the origin
_HALF = 1 << (_BITS - 1)
_MASK = (1 << _BITS) - 1


def voxel_keys(points: NDArray[np.floating], edge: float) -> NDArray[np.int64]:
    """Sorted unique keys of the voxels of ``edge`` metres that hold ``points`` [..., 3] (metres).

    Points that are not finite, or further than about a million voxels from the origin, are left out.
    """
    flat = points.reshape(-1, 3)
    cells = np.floor(flat * flat.dtype.type(1.0 / edge))
    with np.errstate(invalid="ignore"):
        inside = (np.abs(cells) < _HALF).all(axis=1)
    if not inside.all():
        cells = cells[inside]
    i = cells.astype(np.int64)
    return np.unique(((i[:, 0] + _HALF) << (2 * _BITS)) | ((i[:, 1] + _HALF) << _BITS) | (i[:, 2] + _HALF))


def voxel_centres(keys: NDArray[np.int64], edge: float) -> NDArray[np.float64]:
    """Centres [n, 3] in metres of the voxels of ``edge`` metres with the given keys."""
    cells = np.stack([keys >> (2 * _BITS), (keys >> _BITS) & _MASK, keys & _MASK], axis=-1) - _HALF
    return (cells + 0.5) * edge


def shortest_side_edge(low: NDArray[np.floating], high: NDArray[np.floating]) -> float:
    """Voxel edge of the published selector: the shortest side of the scene's bounding box, divided by 20."""
    return float((high - low).min() / 20)
