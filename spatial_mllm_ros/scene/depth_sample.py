"""A few pixels of a depth image, evenly spread: enough to judge it by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.pose import Transform

SAMPLES = 1200


@dataclass(frozen=True, eq=False)
class DepthSample:
    """Pixels of a frame that have depth.

    values [n]: as the frame has them. metres [n]: the same in float32 metres. rays [n, 3]: their directions, z = 1.
    camera_frame, camera, T_world_camera: the frame's.
    """

    values: NDArray[np.uint16] | NDArray[np.float32]
    metres: NDArray[np.float32]
    rays: NDArray[np.float32]
    camera_frame: str
    camera: CameraModel
    T_world_camera: Transform

    @classmethod
    def of(cls, frame: Frame) -> DepthSample | None:
        """None for a frame without depth, camera model or pose."""
        if frame.depth is None or frame.camera is None or frame.T_world_camera is None:
            return None
        stride = max(1, round((frame.depth.size / SAMPLES) ** 0.5))
        values = frame.depth[stride // 2 :: stride, stride // 2 :: stride]
        metres, rays = depth_to_metres(values), frame.camera.rays(stride)
        valid = np.isfinite(metres) & np.isfinite(rays[..., 0])
        return cls(values[valid], metres[valid], rays[valid], frame.camera_frame, frame.camera, frame.T_world_camera)

    def seen_by(
        self, frame: Frame, factor: float = 1.0, which: slice | NDArray = slice(None)
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Where another frame's camera sees these points, depth times ``factor``: their depth there [k], metres, and the
        frame's own depth at those pixels [k], times ``factor`` too; points outside its image or its depth are left out."""
        assert frame.camera is not None
        assert frame.depth is not None
        assert frame.T_world_camera is not None
        T = np.linalg.solve(frame.T_world_camera, self.T_world_camera)
        points = (self.rays[which] * (self.metres[which, None] * factor)) @ T[:3, :3].T + T[:3, 3]
        uv = frame.camera.project(points)
        inside = frame.camera.contains(uv)
        u, v = np.rint(uv[inside]).astype(np.intp).T
        measured = depth_to_metres(frame.depth[v, u]) * np.float32(factor)
        known = np.isfinite(measured)
        return points[inside, 2][known], measured[known]
