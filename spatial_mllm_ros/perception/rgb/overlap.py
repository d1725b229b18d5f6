"""Whether two images show the same surfaces, by predicted geometry and by their colors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter
from scipy.sparse.csgraph import connected_components

from spatial_mllm_ros.scene.pose import invert
from spatial_mllm_ros.scene.window import WindowGeometry

_WIDTH = 56  # px: finer details do not match, as predicted depth and poses are not exact
_NEIGHBOURHOOD = 13  # px: brightness is compared with that around
_SAME_DEPTH = 0.08
_LEAST_PIXELS = 100
_SUPPORTING_DEPTH = 0.12
_MIN_COMPARABLE = 0.1
_MIN_SAME = 0.35


@dataclass(frozen=True)
class Overlap:
    """How far image b shows what image a shows.

    share: of b's pixels that fall into a's view. agreement: of these, how many lie at the depth that a has there.
    correlation: of what the two show at pixels that agree, beside their neighbourhoods; NaN with too few.
    """

    share: float
    agreement: float
    correlation: float


def overlap(
    geometry: WindowGeometry, a: int, b: int, detail_a: Detail, detail_b: Detail, pixels: int = 3000
) -> Overlap:
    """The overlap of images a and b of a window, ``detail`` of each at hand.

    Two images that have nothing to do with each other are given some geometry all the same. But then neither depths nor
    colors are the same where one falls onto the other.
    """
    rows, columns, points = _points(geometry, b, pixels)
    inside, v, u, off = _compared(geometry, a, points)
    if np.count_nonzero(inside) < _LEAST_PIXELS:
        return Overlap(0.0, 0.0, np.nan)
    share = float(np.mean(inside))
    same = off < _SAME_DEPTH
    comparable = np.isfinite(off)
    agreement = float(np.mean(same[comparable])) if comparable.any() else 0.0
    if np.count_nonzero(same) < _LEAST_PIXELS:
        return Overlap(share, agreement, np.nan)
    h, w = geometry.depth.shape[1:]
    x = _at(detail_a, v[same], u[same], (h, w))
    y = _at(detail_b, rows[inside][same], columns[inside][same], (h, w))
    scatter = float(np.std(x) * np.std(y))
    correlation = float(np.mean((x - x.mean()) * (y - y.mean()))) / scatter if scatter > 0 else np.nan
    return Overlap(share, agreement, correlation)


def supported(geometry: WindowGeometry, pixels: int = 200) -> NDArray[np.bool_]:
    """Which images [T] have their depth and pose confirmed by another image of the window, that sees the same surface at
    the same place. One image alone has none to contradict it.

    An image that is blurred, dark or covered is given some depth and pose, too, which nothing else fits.
    """
    count = len(geometry)
    if count == 1:
        return np.ones(1, dtype=bool)
    of_each = [_points(geometry, b, pixels)[2] for b in range(count)]
    points, image = np.concatenate(of_each), np.repeat(np.arange(count), [len(p) for p in of_each])
    all_of = np.bincount(image, minlength=count)
    confirmed = np.eye(count, dtype=bool)
    for a in range(count):
        inside, *_, off = _compared(geometry, a, points)
        seen = image[inside]
        comparable = np.bincount(seen[np.isfinite(off)], minlength=count)
        same = np.bincount(seen[off < _SUPPORTING_DEPTH], minlength=count)
        confirmed[a] |= (comparable >= _MIN_COMPARABLE * all_of) & (same >= _MIN_SAME * comparable) & (same > 0)
    _, group = connected_components(confirmed & confirmed.T, directed=False)
    return np.asarray(group == np.argmax(np.bincount(group)))


def _points(geometry: WindowGeometry, index: int, pixels: int) -> tuple[Pixels, Pixels, NDArray[np.float64]]:
    """Rows [n], columns [n] and window points [n, 3] of evenly spaced pixels with depth."""
    rows, columns = geometry.sampled(index, pixels)
    points, _, _ = geometry.points(index, rows, columns)
    valid = np.isfinite(points).all(axis=1)
    return rows[valid], columns[valid], points[valid]


def _compared(
    geometry: WindowGeometry, a: int, points: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Which window points [n, 3] lie in the view of image a; for those, its rows and columns, and by how much (absolute
    logarithm of the ratio) their depth is another than the image's; NaN where that has none."""
    T = invert(geometry.T_window_camera[a])
    seen = points @ T[:3, :3].T + T[:3, 3]
    h, w = geometry.depth.shape[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = (seen @ geometry.K[a].T)[:, :2].T / seen[:, 2]
        inside = (seen[:, 2] > 0) & (u > -0.5) & (u < w - 0.5) & (v > -0.5) & (v < h - 0.5)
    u, v, z = u[inside], v[inside], seen[inside, 2]
    _, there, _ = geometry.points(a, np.rint(v).astype(np.int64), np.rint(u).astype(np.int64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return inside, v, u, np.abs(np.log(z / there))


Detail = NDArray[np.float32]
Pixels = NDArray[np.int64]


def detail(image: NDArray[np.uint8]) -> Detail:
    """What an RGB image [H, W, 3] shows, small, without the brightness of wider regions."""
    step = max(1, image.shape[1] // _WIDTH)
    h, w = image.shape[0] // step * step, image.shape[1] // step * step
    grey = image[:h, :w].mean(axis=2, dtype=np.float32).reshape(h // step, step, w // step, step).mean(axis=(1, 3))
    return np.asarray(grey - uniform_filter(grey, _NEIGHBOURHOOD), dtype=np.float32)


def _at(what: Detail, v: NDArray[Any], u: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """Values at pixels (v, u) of an image of another size."""
    h, w = what.shape
    places = np.stack([(v + 0.5) * h / size[0] - 0.5, (u + 0.5) * w / size[1] - 0.5])
    return np.asarray(map_coordinates(what, places, order=1, mode="nearest"), dtype=np.float64)
