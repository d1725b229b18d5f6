"""What is taken for granted about a camera's input: where it can be set, what was chosen, and what is doubted.

One home for the assumptions that the readers of recordings, the live node and the command line share. A reader takes
its InputSettings, says in ``SourceInfo.chosen`` what it made of them, and tells a Doubt where the data speaks against
an assumption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

OPTICAL = "optical"
BODY = "body"
IMAGE_FRAMES = (OPTICAL, BODY)
"""Axes of the frame that an image is stamped with: x right, y down, z forward; or REP-103's x forward, y left, z up."""


LARGEST_OFFSET_S = 60.0
"""Clocks that differ by more than this, s, are not two that were meant to be one."""


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """Assumptions about a camera's input; the defaults are what most drivers do.

    color_topic, depth_topic, camera_info_topic, depth_camera_info_topic: of a bag; '' for depth, color and infos: to be
        found. ``none`` for depth: there is to be none.
    depth_unit_m: metres of one count of a depth image; None: that of its format (16-bit integers 0.001, TUM folders
        1/5000, floating point 1).
    invalid_depth: raw values (counts, before ``depth_unit_m``) that mean no data, beside 0, NaN and infinity.
    min_depth_m, max_depth_m: depth outside is no data; 0: no bound.
    image_frame: axes of the frame that images are stamped with, ``optical`` or ``body``.
    world_frame: the fixed frame of poses; '': map, odom or world, else the top of the tree.
    tf_namespace: whose ``tf`` topics count, as "robot1"; '/': the ones without namespace; '': the color topic's own, else
        the ones without namespace.
    pose_topic: nav_msgs/Odometry, PoseStamped or PoseWithCovarianceStamped that tells the camera's or the robot's pose,
        instead of TF up to the fixed frame; '': none.
    pose_frame: the frame whose pose that is; '': the child_frame_id of Odometry, else base_link or what else the camera
        hangs below, else the camera's own frame.
    static: the camera does not move, and no pose is needed: every image is taken at the origin of the fixed frame.
    sync_tolerance_s: color and depth whose stamps differ by at most this belong together.
    tf_max_gap_s: transforms further apart than this are not interpolated between; 0: however far apart. Poses
        in between are the less certain the less evenly the camera moves.
    pose_offset_s: how much later poses are stamped than images of the same moment; negative: earlier.
    image_rate_hz: rate of images that come without stamps.
    pose_unit_m: metres of one unit of the positions in a folder or file; None: as its layout says, mostly 1; 0: unknown,
        the poses are up to scale.

    Raises ValueError, which names the field, for values that cannot be.
    """

    color_topic: str = ""
    depth_topic: str = ""
    camera_info_topic: str = ""
    depth_camera_info_topic: str = ""
    depth_unit_m: float | None = None
    invalid_depth: tuple[float, ...] = (65535.0,)
    min_depth_m: float = 0.0
    max_depth_m: float = 0.0
    image_frame: str = OPTICAL
    world_frame: str = ""
    tf_namespace: str = ""
    pose_topic: str = ""
    pose_frame: str = ""
    static: bool = False
    sync_tolerance_s: float = 0.02
    tf_max_gap_s: float = 2.0
    pose_offset_s: float = 0.0
    image_rate_hz: float = 30.0
    pose_unit_m: float | None = None

    def __post_init__(self) -> None:
        unit = 1.0 if self.depth_unit_m is None else self.depth_unit_m
        for name, value in (("depth_unit_m", unit), ("image_rate_hz", self.image_rate_hz)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, not {value}")
        for name in ("min_depth_m", "max_depth_m", "sync_tolerance_s", "tf_max_gap_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be a number, 0 or more, not {getattr(self, name)}")
        if not abs(self.pose_offset_s) <= LARGEST_OFFSET_S:
            raise ValueError(f"pose_offset_s must be {LARGEST_OFFSET_S:g} at most, either way, not {self.pose_offset_s}")
        if self.pose_unit_m is not None and not (math.isfinite(self.pose_unit_m) and self.pose_unit_m >= 0):
            raise ValueError(f"pose_unit_m must be a positive number, or 0 for unknown, not {self.pose_unit_m}")
        if 0 < self.max_depth_m <= self.min_depth_m:
            raise ValueError(f"max_depth_m {self.max_depth_m} must be more than min_depth_m {self.min_depth_m}")
        if self.image_frame not in IMAGE_FRAMES:
            raise ValueError(f"image_frame must be {' or '.join(IMAGE_FRAMES)}, not {self.image_frame!r}")


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """Something about the input that speaks against an assumption.

    kind: a short word for counting, as ``depth_scale``. text: what was seen, in figures. remedy: what to do, naming the
    setting. confidence: what the confidence of answers that rest on it is multiplied by, in [0, 1].
    """

    kind: str
    text: str
    remedy: str
    confidence: float = 1.0

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}"
