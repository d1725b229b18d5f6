"""What goes into VGGT and what its heads' numbers mean, whatever runs it. numpy and scipy; no torch here."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.scene.window import InvalidWindow, WindowGeometry

WIDTH_PX = 518
"""Width to which VGGT's images were resized in its training."""
_LEAST = 1e-6
_MOST_BITS = 22


def columns_of(width: int, patch: int) -> int:
    """Patches across images that are ``width`` px wide. Raises ValueError for less than one."""
    if width < patch:
        raise ValueError(f"width must be at least a patch ({patch} px), not {width}")
    return round(width / patch)


def size_of(image: tuple[int, int], columns: int, patch: int) -> tuple[int, int]:
    """(height, width) px of an image (height, width) that is to have so many columns of patches: whole patches."""
    return max(1, round(image[0] * columns / image[1])) * patch, columns * patch


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image, uint8 RGB [height, width, 3], of another size (height, width), as ``processing.resize_frame`` does it.

    Antialiased bicubic (a = -0.5, Keys 1981) in whole numbers: weights in fixed point, rounded and clamped after each
    axis, the horizontal one first. Returns [3, height, width]. Raises ValueError for anything but such an image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"a frame is uint8 RGB [height, width, 3]; this one is {image.dtype} {list(image.shape)}")
    rows = _along_first(image.transpose(1, 0, 2), size[1])  # [width, height, 3]
    return np.ascontiguousarray(_along_first(rows.transpose(1, 0, 2), size[0]).transpose(2, 0, 1))


def window_geometry(
    pose_enc: NDArray[np.floating], depth: NDArray[np.floating], depth_conf: NDArray[np.floating]
) -> WindowGeometry:
    """What VGGT's heads say about T images, as a window.

    pose_enc: [T, 9], as ``vggt.pose_encoding.cameras`` describes it. depth, depth_conf: [T, height, width] of the images
    that VGGT saw. Raises InvalidWindow.
    """
    encoding, (height, width) = pose_enc.astype(np.float64), depth.shape[1:]
    if not np.isfinite(encoding).all() or not np.linalg.norm(encoding[:, 3:7], axis=1).all():
        raise InvalidWindow("not_finite", "the predicted cameras hold NaN or infinity")
    T = np.tile(np.eye(4), (len(encoding), 1, 1))
    R = Rotation.from_quat(encoding[:, 3:7]).inv().as_matrix()  # of T_world_camera
    T[:, :3, :3] = R
    T[:, :3, 3] = -np.einsum("tij,tj->ti", R, encoding[:, :3])
    K = np.tile(np.eye(3), (len(encoding), 1, 1))
    with np.errstate(divide="ignore"):
        K[:, 0, 0] = width / 2 / np.tan(encoding[:, 8] / 2)
        K[:, 1, 1] = height / 2 / np.tan(encoding[:, 7] / 2)
    K[:, 0, 2], K[:, 1, 2] = width / 2 - 0.5, height / 2 - 0.5  # the middle, from the centre of the first pixel
    confidence = depth_conf.astype(np.float32) - 1  # VGGT's begins at 1
    return WindowGeometry(T, K, depth.astype(np.float32), np.maximum(confidence, np.float32(_LEAST)))


def _along_first(image: NDArray[np.uint8], new: int) -> NDArray[np.uint8]:
    """Resized along the first axis."""
    old = image.shape[0]
    if old == new:
        return image
    weights, bits = _weights(old, new)
    sums = weights @ image.reshape(old, -1).astype(np.int32)
    rounded = (sums + (1 << (bits - 1))) >> bits
    return np.clip(rounded, 0, 255).astype(np.uint8).reshape(new, *image.shape[1:])


@lru_cache(maxsize=16)
def _weights(old: int, new: int) -> tuple[csr_array, int]:
    """Weights [new, old] in whole numbers, and how many bits of them are behind the point."""
    scale = old / new
    stretch = max(scale, 1.0)
    centre = scale * (np.arange(new) + 0.5)
    first = np.maximum((centre - 2 * stretch + 0.5).astype(int), 0)
    last = np.minimum((centre + 2 * stretch + 0.5).astype(int), old)
    index = first[:, None] + np.arange((last - first).max())
    inside = index < last[:, None]
    x = np.abs((index - centre[:, None] + 0.5) / stretch)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(inside, np.where(x < 1, near, np.where(x < 2, far, 0.0)), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    bits = 0
    while bits < _MOST_BITS and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:  # of 16, one is the sign's
        bits += 1
    whole = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights)).astype(np.int32)
    row = np.broadcast_to(np.arange(new)[:, None], index.shape)
    return csr_array((whole[inside], (row[inside], index[inside])), shape=(new, old)), bits
