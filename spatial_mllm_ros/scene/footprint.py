"""Outlines seen from above."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

_PLAN_POINTS = 10_000
_STANDS_OUT = 1.3


def smallest_rectangle(points: NDArray[np.floating], trim: float = 0.5) -> tuple[float, float, float]:
    """Smallest rectangle round points [n, 2]: longer side, shorter side (in their unit), angle of the first axis (rad).

    The rectangle's direction is that of a side of the convex hull (Freeman and Shapira 1975); ``trim`` percent of the
    points are left out at either end of each side, so that stray ones do not count.
    """
    p = np.asarray(points, dtype=np.float64)
    try:
        hull = p[ConvexHull(p).vertices]
    except (QhullError, ValueError):  # fewer than three points, or all on a line
        spread = np.ptp(p, axis=0) if len(p) else np.zeros(2)
        return float(np.hypot(*spread)), 0.0, float(np.arctan2(spread[1], spread[0]))
    edges = np.diff(np.vstack([hull, hull[:1]]), axis=0)
    angles = np.unique(np.round(np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2), 3))
    sides = [(*rectangle_sides(p, angle, trim), float(angle)) for angle in angles]
    a, b, angle = min(sides, key=lambda s: s[0] * s[1])
    return max(a, b), min(a, b), angle


def rectangle_sides(points: NDArray[np.floating], angle: float, trim: float = 0.5) -> tuple[float, float]:
    """Extents of points [n, 2] along the direction ``angle`` (radians) and across it, ``trim`` percent left out at ends."""
    c, s = np.cos(angle), np.sin(angle)
    low, high = np.percentile(np.asarray(points) @ np.array([[c, -s], [s, c]]), [trim, 100 - trim], axis=0)
    return float(high[0] - low[0]), float(high[1] - low[1])


def wall_direction(points: NDArray[np.floating], bin_width: float) -> float | None:
    """Direction (radians, modulo a right angle) of the walls in a plan [n, 2]; None where none stands out.

    Seen along a wall its points fall together: the direction is that in which histograms of ``bin_width`` along both
    axes are most uneven, by the sum of their squares.
    """
    p = np.asarray(points, dtype=np.float64)
    if len(p) < _PLAN_POINTS // 10:
        return None
    p = p[:: max(len(p) // _PLAN_POINTS, 1)]

    def unevenness(angle: float) -> float:
        c, s = np.cos(angle), np.sin(angle)
        bins = np.floor(p @ np.array([[c, -s], [s, c]]) / bin_width).astype(np.int64)
        return float(sum((np.bincount(axis - axis.min()).astype(np.float64) ** 2).sum() for axis in bins.T))

    coarse = np.radians(np.arange(0, 90, 1.0))
    scores = np.array([unevenness(a) for a in coarse])
    if scores.max() < _STANDS_OUT * np.median(scores):
        return None
    fine = coarse[int(np.argmax(scores))] + np.radians(np.arange(-1, 1.05, 0.1))
    return float(fine[int(np.argmax([unevenness(a) for a in fine]))])


def filled_outline(points: NDArray[np.floating], cell: float) -> tuple[float, float]:
    """Area and perimeter of what points [n, 2] cover, gaps closed and enclosed holes filled, in their unit.

    Rasterised in cells of ``cell``. Gaps up to six cells are closed. Enclosed holes are filled where they are wider than
    four cells (furniture whose top was not seen), not where they are narrower (the core of a wall).
    """
    p = np.asarray(points, dtype=np.float64)
    pad = 8
    low = p.min(axis=0) - pad * cell
    index = np.floor((p - low) / cell).astype(int)
    grid = np.zeros(index.max(axis=0) + 1 + pad, dtype=bool)
    grid[tuple(index.T)] = True
    disc = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), 3)
    closed = ndimage.binary_closing(grid, disc) | grid
    holes = ndimage.binary_fill_holes(closed) & ~closed
    core = ndimage.binary_erosion(holes, iterations=2)
    labels, _ = ndimage.label(holes)
    wide = np.unique(labels[core])
    filled = closed | (np.isin(labels, wide[wide > 0]) & holes)
    largest, count = ndimage.label(filled)
    if count > 1:
        sizes = np.bincount(largest.ravel())
        sizes[0] = 0
        filled = sizes[largest] > 0.02 * sizes.max()
    inner = ndimage.binary_erosion(filled)
    border = int(np.count_nonzero(filled & ~inner))
    perimeter = border * cell
    # a surface lies anywhere within its border cell: half of it is too much on average
    return float(np.count_nonzero(filled)) * cell**2 - perimeter * cell / 2, perimeter
