"""Depth images to points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.frame import Frame, depth_to_metres


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
