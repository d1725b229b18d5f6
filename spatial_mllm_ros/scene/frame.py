"""One moment of one camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.pose import Transform

DEPTH_MM = np.dtype(np.uint16)
DEPTH_M = np.dtype(np.float32)


class InvalidFrame(ValueError):
    """A frame that contradicts itself. ``reason`` is a short word for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Frame:
    """A color image with, where known, its depth, camera model and pose.

    stamp_ns: acquisition time, integer nanoseconds.
    camera_frame: the camera's optical frame (x right, y down, z forward).
    camera: the model of the color image's pixels; None for a frame without calibration.
    image: uint8 RGB [height, width, 3], or still compressed, or None when only depth is known.
    depth: along the optical axis, registered to the color image, [height, width]: uint16 millimetres (0 = no data) or
        float32 metres (0, NaN or infinity = no data). None: no depth.
    T_world_camera: camera points to world points, metres. None: pose unknown.
    world_frame: the fixed frame of the pose.
    pose_stddev: what the pose of this frame may be off by, where that is more than the SensorModel assumes of every pose:
        position of the camera along each axis (m) and rotation about each (rad), one standard deviation. Known where a
        tracker tells its covariance, or where the pose was interpolated between transforms far apart. None: nothing told.

    Raises InvalidFrame when shapes or types contradict each other.
    """

    stamp_ns: int
    camera_frame: str
    camera: CameraModel | None = None
    image: NDArray[np.uint8] | EncodedImage | None = None
    depth: NDArray[np.uint16] | NDArray[np.float32] | None = None
    T_world_camera: Transform | None = None
    world_frame: str = "map"
    pose_stddev: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        size = None if self.camera is None else (self.camera.height, self.camera.width)
        if self.pose_stddev is not None and not all(math.isfinite(s) and s >= 0 for s in self.pose_stddev):
            raise InvalidFrame("bad_pose", f"deviations of a pose must be finite and not negative: {self.pose_stddev}")
        if isinstance(self.image, np.ndarray):
            if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
                raise InvalidFrame(
                    "bad_image", f"an image must be uint8 RGB [h, w, 3], not {self.image.dtype} {self.image.shape}"
                )
            if size is not None and self.image.shape[:2] != size:
                raise InvalidFrame(
                    "image_size",
                    f"image is {self.image.shape[1]}x{self.image.shape[0]} but its CameraInfo says {size[1]}x{size[0]}",
                )
        if self.depth is not None:
            if self.depth.dtype not in (DEPTH_MM, DEPTH_M) or self.depth.ndim != 2:
                raise InvalidFrame(
                    "bad_depth",
                    f"depth must be uint16 mm or float32 m [h, w], not {self.depth.dtype} {self.depth.shape}",
                )
            if size is not None and self.depth.shape != size:
                raise InvalidFrame(
                    "depth_size",
                    f"depth is {self.depth.shape[1]}x{self.depth.shape[0]} but the color camera is {size[1]}x{size[0]}: "
                    "register it to the color image first",
                )

    @property
    def nbytes(self) -> int:
        """Bytes held by image and depth."""
        return (0 if self.image is None else self.image.nbytes) + (0 if self.depth is None else self.depth.nbytes)

    def rgb(self) -> NDArray[np.uint8] | None:
        """The image, decoded, uint8 RGB [height, width, 3]; None when there is none. ValueError if it does not decode."""
        return self.image.decode() if isinstance(self.image, EncodedImage) else self.image

    def depth_m(self, rows: slice | NDArray[np.integer], columns: slice | NDArray[np.integer]) -> NDArray[np.float32]:
        """Depth in float32 metres at the given rows and columns, NaN where there is no data."""
        if self.depth is None:
            raise ValueError("this frame has no depth")
        return depth_to_metres(self.depth[rows, columns])


def depth_to_metres(depth: NDArray[np.uint16] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth as float32 metres with NaN for no data, from uint16 millimetres or float32 metres of any shape."""
    metres = depth.astype(np.float32)
    if depth.dtype == DEPTH_MM:
        metres *= np.float32(0.001)
    metres[~((metres > 0) & np.isfinite(metres))] = np.nan
    return metres
