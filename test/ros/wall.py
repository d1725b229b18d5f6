"""What a camera sees that slides along a wall, and marks in its images."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from spatial_mllm_ros.msg import ImagePoint
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import from_quaternion

START_NS = 1_700_000_000_000_000_000
CAMERA = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5)


def frame(index: int, start_ns: int = START_NS) -> Frame:
    """The camera slides along a wall 2 m ahead, 0.1 m a frame, at 10 Hz."""
    rng = np.random.default_rng(index)
    return Frame(
        start_ns + index * 100_000_000,
        "lens",
        CAMERA,
        rng.integers(0, 256, (48, 64, 3)).astype(np.uint8),
        np.full((48, 64), 2000, np.uint16),
        from_quaternion((0, 0, 0, 1), (0.1 * index, 0, 0)),
    )


def point(index: int, u: float, v: float) -> ImagePoint:
    """A pixel of the image with this index."""
    sec, nanosec = divmod(START_NS + index * 100_000_000, 10**9)
    return ImagePoint(header=Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id="lens"), u=u, v=v)
