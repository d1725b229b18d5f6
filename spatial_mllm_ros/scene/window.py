"""What a geometry predictor says about a few images: cameras, depth and confidence, up to one similarity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_EDGE = 0.05  # second difference of inverse depth, relative to it, that is taken for an edge
_ALIKE = 0.05
_ORTHONORMAL = 1e-2


class InvalidWindow(ValueError):
    """A prediction that contradicts itself. ``reason`` is a short word for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class WindowGeometry:
    """Geometry of T images in a frame and unit of their own.

    T_window_camera: [T, 4, 4], camera points to window points. K: [T, 3, 3] pinhole matrices of the depth's pixels (the
    centre of the top-left one is (0, 0)). depth: float32 [T, h, w] along the optical axis, in the window's unit; h and w
    need not be those of the images, but show the same field of view. confidence: float32 [T, h, w], larger is surer, in
    any unit; 0 or NaN: no data.

    Raises InvalidWindow when shapes contradict each other, poses are not rigid, or nothing is valid.
    """

    T_window_camera: NDArray[np.float64]
    K: NDArray[np.float64]
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.depth)
        shapes = (self.T_window_camera.shape, self.K.shape, self.confidence.shape)
        if self.depth.ndim != 3 or shapes != ((n, 4, 4), (n, 3, 3), self.depth.shape):
            raise InvalidWindow("window_shape", f"poses, K, confidence {shapes} do not fit depth {self.depth.shape}")
        R = self.T_window_camera[:, :3, :3]
        if not np.isfinite(self.T_window_camera).all() or not np.isfinite(self.K).all():
            raise InvalidWindow("not_finite", "the predicted cameras hold NaN or infinity")
        if np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max() > _ORTHONORMAL or (np.linalg.det(R) < 0).any():
            raise InvalidWindow("not_rigid", "the predicted poses are not rigid transforms")
        if (self.K[:, 0, 0] <= 0).any() or (self.K[:, 1, 1] <= 0).any():
            raise InvalidWindow("bad_intrinsics", "the predicted focal lengths are not positive")
        if not self.valid.any():
            raise InvalidWindow("no_depth", "the predicted depth has not one valid pixel")

    def __len__(self) -> int:
        return len(self.depth)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Pixels [T, h, w] with depth and confidence."""
        with np.errstate(invalid="ignore"):
            return np.isfinite(self.depth) & (self.depth > 0) & (self.confidence > 0)

    def sampled(self, index: int, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of about ``pixels`` evenly spaced pixels of image ``index``."""
        h, w = self.depth.shape[1:]
        step = max(1, round((h * w / pixels) ** 0.5))
        rows, columns = np.mgrid[step // 2 : h : step, step // 2 : w : step]
        return rows.ravel(), columns.ravel()

    def points(
        self, index: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Window points [n, 3], their depth [n] and confidence [n], at pixels of image ``index``; NaN and 0: no data."""
        with np.errstate(invalid="ignore"):
            good = self.valid[index, rows, columns]
        z = np.where(good, self.depth[index, rows, columns], np.nan).astype(np.float64)
        rays = np.stack([columns, rows, np.ones(len(rows))], axis=1) @ np.linalg.inv(self.K[index]).T
        T = self.T_window_camera[index]
        confidence = np.where(good, self.confidence[index, rows, columns], 0.0).astype(np.float64)
        return rays * z[:, None] @ T[:3, :3].T + T[:3, 3], z, confidence

    def subset(self, indices: list[int]) -> WindowGeometry:
        """The same window with some of its images only."""
        return WindowGeometry(
            self.T_window_camera[indices], self.K[indices], self.depth[indices], self.confidence[indices]
        )

    def reduced(self, index: int, pixels: int) -> WindowGeometry:
        """Image ``index`` alone, with about ``pixels`` of its pixels."""
        h, w = self.depth.shape[1:]
        part = min(1.0, (pixels / (h * w)) ** 0.5)
        rows, columns = (((2 * np.arange(n) + 1) * size // (2 * n)) for size in (h, w) for n in [round(part * size)])
        K = self.K[[index]].copy()
        K[:, :2, 2] += 0.5
        K[:, 0] *= len(columns) / w
        K[:, 1] *= len(rows) / h
        K[:, :2, 2] -= 0.5
        at = np.ix_([index], rows, columns)
        return WindowGeometry(self.T_window_camera[[index]], K, self.depth[at], self.confidence[at])


def resized_depth(depth: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Depth [h, w] of the same view as float32 [height, width]; NaN is no data.

    Linear in inverse depth, in which planes are linear, within surfaces. Across an edge, where a mean of two surfaces
    would float between them, the nearest sample.
    """
    h, w = depth.shape
    if (h, w) == (height, width):
        return depth
    v = (np.arange(height, dtype=np.float32) + 0.5) * h / height - 0.5
    u = (np.arange(width, dtype=np.float32) + 0.5) * w / width - 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(np.isfinite(depth) & (depth > 0), 1 / depth, np.nan).astype(np.float32)
        bend = np.maximum(_second_difference(inverse, 0), _second_difference(inverse, 1)) / inverse
        smooth = bend < _EDGE  # NaN compares false
    rows, columns = (np.clip(np.rint(x).astype(int), 0, n - 1) for x, n in ((v, h), (u, w)))
    nearest = inverse[rows[:, None], columns]
    r0, c0 = np.clip(np.floor(v).astype(int), 0, max(h - 2, 0)), np.clip(np.floor(u).astype(int), 0, max(w - 2, 0))
    r1, c1 = np.minimum(r0 + 1, h - 1), np.minimum(c0 + 1, w - 1)
    fv, fu = (v - r0)[:, None], (u - c0)[None]
    top = inverse[r0[:, None], c0] * (1 - fu) + inverse[r0[:, None], c1] * fu
    bottom = inverse[r1[:, None], c0] * (1 - fu) + inverse[r1[:, None], c1] * fu
    linear = top * (1 - fv) + bottom * fv
    # beyond the outermost samples the line goes on, which one noisy sample must not carry far
    inner = smooth[rows[:, None], columns] & (linear > 0.5 * nearest) & (linear < 2 * nearest)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (1 / np.where(inner, linear, nearest)).astype(np.float32)


def without_specks(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth [h, w] in which a sample that stands alone takes the middle value of its neighbours where these agree.

    Alone: fewer than two of its eight neighbours are within 5 % of it. Where the neighbours do not agree it is NaN.
    """
    h, w = depth.shape
    padded = np.pad(depth, 1, constant_values=np.nan)
    shifts = [(r, c) for r in range(3) for c in range(3) if (r, c) != (1, 1)]
    alike = np.zeros((h, w), dtype=np.uint8)
    with np.errstate(invalid="ignore"):
        near = depth * np.float32(_ALIKE)
        for r, c in shifts:
            alike += np.abs(padded[r : r + h, c : c + w] - depth) < near
    rows, columns = np.nonzero((alike < 2) & np.isfinite(depth))
    neighbours = np.stack([padded[rows + r, columns + c] for r, c in shifts])
    neighbours[:, ~np.isfinite(neighbours).any(axis=0)] = 0
    middle = np.nanmedian(neighbours, axis=0)
    with np.errstate(invalid="ignore"):
        agree = np.count_nonzero(np.abs(neighbours - middle) < _ALIKE * middle, axis=0) >= 5
    out = depth.copy()
    out[rows, columns] = np.where(agree, middle, np.nan)
    return out


def _second_difference(image: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Absolute second difference along an axis, 0 at its ends."""
    out = np.zeros_like(image)
    middle = [slice(None)] * 2
    middle[axis] = slice(1, -1)
    out[tuple(middle)] = np.abs(np.diff(image, 2, axis=axis))
    return out
