"""Greedy maximum coverage over sets of integers."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Selection:
    """Frames that together cover much.

    picked: the frames, in the order in which greedy picked them. gains: voxels that each added to those before it.
    voxel_size: edge of the voxels, metres (or the unit of the points). covered: voxels of the picked frames together.
    total: voxels of all frames together.
    """

    picked: tuple[int, ...]
    gains: tuple[int, ...]
    voxel_size: float
    covered: int
    total: int

    @property
    def fraction(self) -> float:
        """Covered share of the total, 0 to 1."""
        return self.covered / self.total if self.total else 0.0


def greedy_max_coverage(sets: Sequence[NDArray[np.integer]], k: int) -> tuple[list[int], list[int], int]:
    """Pick up to ``k`` of the ``sets`` (arrays of unique integers), each time the one that adds most.

    Returns (picked indices in pick order, their gains, size of the union of all sets). The lowest index wins ties, and
    picking stops when nothing is added, as the published sampler does. The picks cover at least 1 - 1/e of the best
    possible (Nemhauser, Wolsey and Fisher, Mathematical Programming 14, 1978). Gains only ever shrink, so stale ones are
    upper bounds and most need no recount (Minoux's lazy evaluation, 1978); the outcome is that of plain greedy.
    """
    sizes = [len(s) for s in sets]
    if not sets or k <= 0 or not any(sizes):
        return [], [], 0
    members = np.concatenate(sets)
    universe, ids = _compact(members)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    uncovered = np.ones(universe, dtype=bool)
    heap = [(-size, index) for index, size in enumerate(sizes) if size]
    heapq.heapify(heap)
    picked: list[int] = []
    gains: list[int] = []
    while heap and len(picked) < k:
        _, index = heap[0]
        own = ids[bounds[index] : bounds[index + 1]]
        gain = int(np.count_nonzero(uncovered[own]))
        if gain == 0:
            heapq.heappop(heap)
            continue
        heapq.heapreplace(heap, (-gain, index))
        if heap[0] == (-gain, index):  # still the best: ties go to the lowest index by the heap's order
            heapq.heappop(heap)
            picked.append(index)
            gains.append(gain)
            uncovered[own] = False
    return picked, gains, universe


def _compact(members: NDArray[np.integer]) -> tuple[int, NDArray[np.integer]]:
    """Number the distinct members 0, 1, ...: (how many, number of each)."""
    low, high = int(members.min()), int(members.max())
    if high - low < 1 << 24:  # a table is several times faster than sorting
        shifted = members - low
        seen = np.zeros(high - low + 1, dtype=bool)
        seen[shifted] = True
        numbers = np.cumsum(seen, dtype=np.int32) - 1
        return int(numbers[-1]) + 1, numbers[shifted]
    distinct, inverse = np.unique(members, return_inverse=True)
    return len(distinct), inverse.reshape(-1)
