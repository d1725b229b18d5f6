"""One image of a chain of windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import Transform, invert, rotation_angle


@dataclass(frozen=True, eq=False)
class Release:
    """How the memory knows a frame."""

    log_scale: float
    T_world_camera: Transform
    world_frame: str

    def differs_from(self, other: Release, tolerance: float) -> bool:
        """Whether so much that it is worth a revision. tolerance: of the logarithm of the scale, 0.5 % at least."""
        if abs(self.log_scale - other.log_scale) > max(tolerance, 0.005):
            return True
        step = np.linalg.norm(self.T_world_camera[:3, 3] - other.T_world_camera[:3, 3])
        return bool(step > 0.01) or rotation_angle(invert(other.T_world_camera) @ self.T_world_camera) > 0.003


@dataclass(eq=False)
class ChainImage:
    """An image of the chain. window: number of its window in the submap. measured: its pose, in ``world_frame``.

    frame, depth (in the window's unit): until it is released to the memory. dense: its own depth is kept.
    """

    frame: Frame | None
    stamp_ns: int
    camera_frame: str
    window: int
    T_window_camera: Transform
    measured: Transform | None
    world_frame: str
    depth: NDArray[np.float32] | None
    camera: CameraModel
    dense: bool = False
    released: Release | None = None
