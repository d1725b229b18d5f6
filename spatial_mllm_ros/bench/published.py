"""A plain transcription of the published set-based selection, to compare with: what it does, not how fast it could."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def select_with_sets(
    world_points: NDArray[np.float32], confidence: NDArray[np.float32], k: int
) -> tuple[list[int], float]:
    """Picked frames (in pick order) and voxel size, by the steps of arXiv 2505.23747 with Python sets of voxels."""
    threshold = np.percentile(confidence.reshape(-1), 50)
    mask = (confidence >= threshold) & (confidence > 0.1)
    chosen = world_points[mask]
    low, high = chosen.min(axis=0), chosen.max(axis=0)
    edge = np.float32((high - low).min() / 20)
    voxels = []
    for points, keep in zip(world_points, mask, strict=True):
        cells = np.floor((points[keep] - low) / edge).astype(np.int64)
        voxels.append(set(map(tuple, np.unique(cells, axis=0).tolist())))
    picked: list[int] = []
    covered: set[tuple[int, ...]] = set()
    left = set(range(len(voxels)))
    while left and len(picked) < k:
        gains = {frame: len(voxels[frame] - covered) for frame in sorted(left)}
        best = max(gains, key=lambda frame: (gains[frame], -frame))
        if gains[best] == 0:
            break
        picked.append(best)
        covered |= voxels[best]
        left.remove(best)
    return picked, float(edge)
