"""Voxels: cubes of a lattice, each named by one integer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BITS = 21  # per axis: about a million voxels to each side of the origin
_HALF = 1 << (_BITS - 1)
_MASK = (1 << _BITS) - 1
_TABLE_CELLS = 1 << 19


@dataclass(frozen=True)
class Lattice:
    """Voxels of ``edge`` metres, one of whose corners is ``origin`` (x, y, z in metres)."""

    edge: float
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)


def voxel_keys(points: NDArray[np.floating], lattice: Lattice) -> NDArray[np.int64]:
    """Sorted unique keys of the voxels that hold ``points`` [..., 3] (metres).

    Points that are not finite, or further than about a million voxels from the origin, are left out. Arithmetic keeps
    the dtype of the points.
    """
    flat = points.reshape(-1, 3)
    cells = flat - np.asarray(lattice.origin, dtype=flat.dtype)
    cells /= flat.dtype.type(lattice.edge)
    np.floor(cells, out=cells)
    with np.errstate(invalid="ignore"):
        inside = (np.abs(cells) < _HALF).all(axis=1)
    if not inside.all():
        cells = cells[inside]
    if not len(cells):
        return np.empty(0, dtype=np.int64)
    i, j, k = cells.astype(np.int32).T
    low = (int(i.min()), int(j.min()), int(k.min()))
    rows, columns = int(j.max()) - low[1] + 1, int(k.max()) - low[2] + 1
    count = (int(i.max()) - low[0] + 1) * rows * columns
    if count <= _TABLE_CELLS:  # a table of the points' own box is several times faster than sorting
        table = np.zeros(count, dtype=bool)
        table[((i - low[0]) * np.intp(rows) + (j - low[1])) * np.intp(columns) + (k - low[2])] = True
        number = np.flatnonzero(table)
        number, k = np.divmod(number, columns)
        i, j = np.divmod(number, rows)
        return _pack(i + low[0], j + low[1], k + low[2])
    return np.unique(_pack(i.astype(np.int64), j.astype(np.int64), k.astype(np.int64)))


def _pack(i: NDArray[np.int64], j: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.int64]:
    return ((i + _HALF) << (2 * _BITS)) | ((j + _HALF) << _BITS) | (k + _HALF)


def voxel_centres(keys: NDArray[np.int64], lattice: Lattice) -> NDArray[np.float64]:
    """Centres [n, 3] in metres of the voxels with the given keys."""
    cells = np.stack([keys >> (2 * _BITS), (keys >> _BITS) & _MASK, keys & _MASK], axis=-1) - _HALF
    return (cells + 0.5) * lattice.edge + np.asarray(lattice.origin)


def small_numbers(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Other numbers for the same voxels, counted within their bounding box: small where the box is.

    Equal keys get equal numbers and different keys different ones, among the keys given together.
    """
    if not len(keys):
        return keys
    x, y, z = keys >> (2 * _BITS), (keys >> _BITS) & _MASK, keys & _MASK
    rows, columns = int(np.ptp(y)) + 1, int(np.ptp(z)) + 1
    return ((x - x.min()) * rows + (y - y.min())) * columns + (z - z.min())


def shortest_side_edge(low: NDArray[np.floating], high: NDArray[np.floating]) -> float:
    """Voxel edge of the published selector: the shortest side of the scene's bounding box, divided by 20."""
    return float((high - low).min() / 20)
