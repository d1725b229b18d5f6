"""Blocks of voxels, found by their place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.memory.map.kernels import CELLS, EARLIER, LATER

_BITS = 21
_HALF = 1 << (_BITS - 1)
LARGEST = _HALF - 1
"""Blocks have coordinates from -LARGEST to LARGEST: 400 km at 5 cm voxels."""


def packed(blocks: NDArray[np.integer]) -> NDArray[np.int64]:
    """Keys [n] of block coordinates [n, 3]."""
    b = blocks.astype(np.int64) + _HALF
    return (b[:, 0] << (2 * _BITS)) | (b[:, 1] << _BITS) | b[:, 2]


def unpacked(keys: NDArray[np.int64]) -> NDArray[np.int32]:
    """Block coordinates [n, 3] of keys [n]."""
    mask = (1 << _BITS) - 1
    parts = [keys >> (2 * _BITS), (keys >> _BITS) & mask, keys & mask]
    return (np.stack(parts, axis=-1) - _HALF).astype(np.int32)


class Blocks:
    """Evidence of voxels, in slots that grow as they are needed.

    hits, free int32: how many frames show a surface in the voxel, or show it free. first, last int64 ns: stamps of the first
    and last frame that shows it, LATER and EARLIER without one. weight, sums int64: weights of the points on its surface,
    and their weighted places in parts of its edge. users [slots]: frames that show something of a block. born [slots]: the
    turn at which it began. keys [slots]: where each block is.
    """

    def __init__(self) -> None:
        self.slot_of: dict[int, int] = {}
        self._unused: list[int] = []
        self._make(0)

    def _make(self, slots: int) -> None:
        self.hits = np.zeros((slots, CELLS), dtype=np.int32)
        self.free = np.zeros((slots, CELLS), dtype=np.int32)
        self.first = np.full((slots, CELLS), LATER, dtype=np.int64)
        self.last = np.full((slots, CELLS), EARLIER, dtype=np.int64)
        self.weight = np.zeros((slots, CELLS), dtype=np.int64)
        self.sums = np.zeros((slots, CELLS, 3), dtype=np.int64)
        self.users = np.zeros(slots, dtype=np.int64)
        self.born = np.zeros(slots, dtype=np.int64)
        self.keys = np.zeros(slots, dtype=np.int64)

    _FIELDS = ("hits", "free", "first", "last", "weight", "sums", "users", "born", "keys")

    def __len__(self) -> int:
        return len(self.slot_of)

    @property
    def nbytes(self) -> int:
        """Bytes held, unused slots included."""
        return sum(getattr(self, name).nbytes for name in self._FIELDS)

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots [n] of blocks, -1 for those that are not there."""
        get = self.slot_of.get
        return np.array([get(key, -1) for key in keys.tolist()], dtype=np.int64)

    def take(self, keys: NDArray[np.int64], turn: int) -> NDArray[np.int64]:
        """Slots [n] of blocks, begun at ``turn`` where they are new."""
        slots = self.find(keys)
        new = np.flatnonzero(slots < 0)
        if len(new):
            self._grow(len(new))
            taken = [self._unused.pop() for _ in range(len(new))]
            slots[new] = taken
            self.keys[taken] = keys[new]
            self.born[taken] = turn
            self.slot_of.update(zip(keys[new].tolist(), taken, strict=True))
        return slots

    def _grow(self, needed: int) -> None:
        have = len(self.users)
        if len(self._unused) >= needed:
            return
        more = max(needed - len(self._unused), have // 4, 512)
        old = {name: getattr(self, name) for name in self._FIELDS}
        self._make(have + more)
        for name, array in old.items():
            getattr(self, name)[:have] = array
        self._unused.extend(range(have + more - 1, have - 1, -1))

    def release(self, slots: NDArray[np.int64]) -> None:
        """Give back slots of which nothing is known."""
        for key in self.keys[slots].tolist():
            del self.slot_of[key]
        self.users[slots] = 0
        self._unused.extend(slots.tolist())

    def drop(self, slots: NDArray[np.int64]) -> None:
        """Forget the blocks in these slots."""
        for name in ("hits", "free", "weight", "sums"):
            getattr(self, name)[slots] = 0
        self.first[slots], self.last[slots] = LATER, EARLIER
        self.release(slots)

    def places(self) -> NDArray[np.int64]:
        """Slots of all blocks, in the order of their keys."""
        keys = sorted(self.slot_of)
        return np.array([self.slot_of[key] for key in keys], dtype=np.int64)
