"""Depth images to points."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import DEPTH_MM, Frame, depth_to_metres

_BLOCK_PX = 16
_SLACK = np.float32(1.02)  # a distorted lens bends rays a little beyond those of a block's corners


def camera_points(frame: Frame, stride: int = 1, max_depth_m: float = np.inf) -> NDArray[np.float32]:
    """Points [n, 3] (float32, metres, camera frame) of every ``stride``-th depth pixel that has data up to ``max_depth_m``.

    Raises ValueError for a frame without depth or camera model.
    """
    if frame.depth is None or frame.camera is None:
        raise ValueError("only a frame with depth and a camera model has points")
    first = stride // 2
    z = depth_to_metres(frame.depth[first::stride, first::stride])
    with np.errstate(invalid="ignore"):
        index = np.flatnonzero(z <= max_depth_m)  # NaN compares false
    rays = frame.camera.rays(stride).reshape(-1, 3)
    points = np.take(rays, index, axis=0)
    points *= np.take(z, index)[:, None]
    if frame.camera.distortion_model == "equidistant" or frame.camera.distortion:
        points = points[np.isfinite(points).all(axis=1)]  # pixels outside the lens have no ray
    return points


def extend_bounds(
    frame: Frame, low: NDArray[np.float64], high: NDArray[np.float64], max_depth_m: float = np.inf
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounding box ``low`` to ``high`` (x, y, z in metres, world) grown by every pixel of a frame.

    As if every pixel with data up to ``max_depth_m`` were back-projected, but most are not: the largest depth of a block
    of pixels and the directions of its corners bound how far the block can reach, and only blocks that may reach beyond
    the box are looked at pixel by pixel.

    Raises ValueError for a frame without depth, camera model or pose.
    """
    T, camera = frame.T_world_camera, frame.camera
    if frame.depth is None or camera is None or T is None:
        raise ValueError("only a frame with depth, a camera model and a pose bounds anything")
    size = _BLOCK_PX
    rows, columns = -(-camera.height // size), -(-camera.width // size)
    unit = np.float32(0.001) if frame.depth.dtype == DEPTH_MM else np.float32(1)
    depth = frame.depth
    if depth.dtype != DEPTH_MM:
        depth = np.where(np.isfinite(depth), depth, np.float32(0))
    pad = ((0, rows * size - camera.height), (0, columns * size - camera.width))
    if pad != ((0, 0), (0, 0)):
        depth = np.pad(depth, pad)
    strips = depth.reshape(rows, size, columns * size).max(axis=1)
    farthest = np.minimum(strips.reshape(rows, columns, size).max(axis=2) * unit, max_depth_m)
    corners = _block_corners(camera)
    low, high = low.copy(), high.copy()
    R, t = T[:3, :3], T[:3, 3]
    for axis in range(3):
        slope = corners @ R[axis].astype(np.float32)  # world coordinate gained per metre of depth
        for bound, sign, reach in ((high, 1.0, slope.max(axis=2)), (low, -1.0, slope.min(axis=2))):
            limit = farthest * reach * _SLACK + t[axis]
            blocks = np.argwhere((limit - bound[axis]) * sign > 0) if np.isfinite(bound[axis]) else None
            if blocks is not None and not len(blocks):
                continue
            extreme = _extreme(frame, blocks, R[axis], t[axis], sign, max_depth_m)
            bound[axis] = sign * max(sign * bound[axis], sign * extreme)
    return low, high


def _extreme(
    frame: Frame, blocks: NDArray[np.int64] | None, direction: NDArray[np.float64], offset: float, sign: float,
    max_depth_m: float,
) -> float:  # fmt: skip
    """Largest (sign 1) or smallest (sign -1) world coordinate along one axis in some blocks of pixels, or in all."""
    assert frame.depth is not None and frame.camera is not None
    rays = frame.camera.rays()
    if blocks is None:
        z, ray = depth_to_metres(frame.depth).ravel(), rays.reshape(-1, 3)
    else:
        cells = [
            np.s_[r * _BLOCK_PX : (r + 1) * _BLOCK_PX, c * _BLOCK_PX : (c + 1) * _BLOCK_PX] for r, c in blocks.tolist()
        ]
        z = np.concatenate([depth_to_metres(frame.depth[cell]).ravel() for cell in cells])
        ray = np.concatenate([rays[cell].reshape(-1, 3) for cell in cells])
    with np.errstate(invalid="ignore"):
        reach = (ray @ direction.astype(np.float32)) * z * sign
        reach = reach[z <= max_depth_m]
    reach = reach[np.isfinite(reach)]
    return sign * float(reach.max()) + offset if len(reach) else -sign * np.inf


@lru_cache(maxsize=32)
def _block_corners(camera: CameraModel) -> NDArray[np.float32]:
    """Rays [rows, columns, 4, 3] through the corners of every block of pixels; the lens's last ray where there is none."""
    size = _BLOCK_PX
    rows, columns = -(-camera.height // size), -(-camera.width // size)
    v = np.minimum(np.arange(rows + 1) * size, camera.height - 1)
    u = np.minimum(np.arange(columns + 1) * size, camera.width - 1)
    grid = np.nan_to_num(camera.rays()[np.ix_(v, u)])
    return np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]], axis=2)
