"""Depth images to points."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import DEPTH_MM, Frame, depth_to_metres

BLOCK_PX = 8
_AT_ONCE = 48


def camera_points(frame: Frame, stride: int = 1, max_depth_m: float = np.inf) -> NDArray[np.float32]:
    """Points [n, 3] (float32, metres, camera frame) of every ``stride``-th depth pixel that has data up to ``max_depth_m``.

    Raises ValueError for a frame without depth or camera model.
    """
    if frame.depth is None or frame.camera is None:
        raise ValueError("only a frame with depth and a camera model has points")
    first = stride // 2
    values = frame.depth[first::stride, first::stride]
    z = depth_to_metres(values)
    with np.errstate(invalid="ignore"):
        index = np.flatnonzero((values <= _limit(values.dtype, max_depth_m)) & np.isfinite(z))
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
    the box are looked at pixel by pixel, the most promising first.

    Raises ValueError for a frame without depth, camera model or pose.
    """
    T, camera = frame.T_world_camera, frame.camera
    if frame.depth is None or camera is None or T is None:
        raise ValueError("only a frame with depth, a camera model and a pose bounds anything")
    blocks = _Blocks.of(camera)
    depth = blocks.depth(frame.depth, max_depth_m)
    strips = depth.reshape(blocks.rows, BLOCK_PX, -1).max(axis=1)  # whole rows first: those are contiguous
    farthest = strips.reshape(blocks.rows, blocks.columns, BLOCK_PX).max(axis=2).ravel()
    farthest = farthest * (blocks.slack * (0.001 if depth.dtype == DEPTH_MM else 1.0))
    low, high = low.copy(), high.copy()
    for axis in range(3):
        direction, offset = T[axis, :3].astype(np.float32), float(T[axis, 3])
        slope = blocks.corners @ direction  # world coordinate gained per metre of depth
        for bound, sign, steepest in ((high, 1.0, slope.max(axis=0)), (low, -1.0, -slope.min(axis=0))):
            limit = farthest * np.maximum(steepest, 0.0)
            known = beyond = sign * (float(bound[axis]) - offset)
            candidates = np.flatnonzero(limit > beyond)
            candidates = candidates[np.argsort(-limit[candidates])]
            begin, at_once = 0, _AT_ONCE
            while begin < len(candidates) and limit[candidates[begin]] > beyond:
                best = candidates[begin : begin + at_once]
                beyond = max(beyond, blocks.reach(depth, best, direction * np.float32(sign)))
                begin, at_once = begin + at_once, 2 * at_once
            if beyond > known:
                bound[axis] = sign * beyond + offset
    return low, high


def _limit(dtype: np.dtype, max_depth_m: float) -> float:
    """The largest value of depth that is taken, in its own unit: at the bound itself, however that rounds."""
    return max_depth_m * (1000.0 if dtype == DEPTH_MM else 1.0) * (1 + 1e-6)


class _Blocks:
    """A camera's image cut into blocks of pixels.

    corners: rays [4, blocks, 3] through the corners of each block. slack: how much further than its corners'
    rays a block may reach, for lenses that bend them.
    """

    def __init__(self, camera: CameraModel) -> None:
        size = BLOCK_PX
        self.height, self.width = camera.height, camera.width
        self.rows, self.columns = -(-camera.height // size), -(-camera.width // size)
        self.slack = 1.02 if camera.distortion else 1.0001
        rays = np.zeros((self.rows * size, self.columns * size, 3), dtype=np.float32)
        rays[: camera.height, : camera.width] = np.nan_to_num(camera.rays())
        grid = self._cut(rays)
        self.corners = np.ascontiguousarray(grid[:, [0, 0, -1, -1], :, [0, -1, 0, -1]].reshape(4, -1, 3))
        # blocks at the rim are partly empty: their zero rays only make the bound looser
        self.rays = np.ascontiguousarray(grid.transpose(0, 2, 1, 3, 4)).reshape(-1, size * size, 3)

    @staticmethod
    @lru_cache(maxsize=8)
    def of(camera: CameraModel) -> _Blocks:
        return _Blocks(camera)

    def _cut(self, image: NDArray[Any]) -> NDArray[Any]:
        return image.reshape(self.rows, BLOCK_PX, self.columns, BLOCK_PX, *image.shape[2:])

    def depth(self, depth: NDArray[Any], max_depth_m: float) -> NDArray[Any]:
        """Depth [rows, BLOCK_PX, columns, BLOCK_PX] in its own unit, 0 where there is no data up to ``max_depth_m``."""
        if depth.dtype == DEPTH_MM:
            limit = min(_limit(depth.dtype, max_depth_m), 65535)
            clean = depth if limit >= 65535 or depth.max() <= limit else np.where(depth <= limit, depth, 0)
        else:
            with np.errstate(invalid="ignore"):
                clean = np.where((depth > 0) & (depth <= min(_limit(depth.dtype, max_depth_m), 1e9)), depth, np.float32(0))
        if (self.rows * BLOCK_PX, self.columns * BLOCK_PX) != depth.shape:
            clean = np.pad(
                clean, ((0, self.rows * BLOCK_PX - self.height), (0, self.columns * BLOCK_PX - self.width))
            )
        return self._cut(clean)

    def reach(self, depth: NDArray[Any], numbers: NDArray[np.int64], direction: NDArray[np.float32]) -> float:
        """How far the pixels of some blocks reach along ``direction`` [3] of the camera frame, metres; -inf without data."""
        z = depth[numbers // self.columns, :, numbers % self.columns, :].reshape(len(numbers), -1)
        along = self.rays[numbers] @ direction * z
        along = along[z > 0]
        unit = 0.001 if depth.dtype == DEPTH_MM else 1.0
        return float(along.max()) * unit if len(along) else -np.inf
