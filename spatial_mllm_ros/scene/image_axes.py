"""Whether the frame that images are stamped with has the axes that it is taken to have."""

from __future__ import annotations

import numpy as np

from spatial_mllm_ros.scene.backproject import camera_points
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import BODY, OPTICAL, Doubt
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, Transform, invert, rotation_angle

MOVED_M, TURNED_RAD = 0.3, 0.2
"""How far a camera moves or turns between images that are compared: less tells nothing."""
KEPT, PAIRS = 6, 4
POINTS_ACROSS = 32
FEWEST_POINTS = 60
AGREE = 0.05
"""Depth agrees within this, m, or this share of it, whichever is more: several times an RGB-D camera's noise."""
AS_IS_AT_MOST, OTHERWISE_AT_LEAST = 0.35, 0.6
"""Shares of points that agree, of a reading of the axes that is wrong and of one that is right."""


class ImageAxesCheck:
    """Compares depth where images overlap, with the poses as they are read and with the other reading of their axes.

    A body frame (x forward, y left, z up) read as an optical one, or the other way round, moves what is forward to the
    side, so that depth of two images disagrees as soon as the camera has moved, and agrees with the other reading. One
    check for each camera. Costs a few hundred points for some of the frames, and nothing once it is certain.
    """

    def __init__(self, image_frame: str = OPTICAL) -> None:
        self._other = BODY if image_frame == OPTICAL else OPTICAL
        self._correction: Transform = T_BODY_OPTICAL if image_frame == OPTICAL else invert(T_BODY_OPTICAL)
        self._kept: list[Frame] = []
        self._shares: list[tuple[float, float]] = []

    def add(self, frame: Frame) -> None:
        """Compare a frame, if it has depth and pose and the camera has moved."""
        if frame.depth is None or frame.camera is None or frame.T_world_camera is None or len(self._kept) == KEPT:
            return
        if self._kept and not _moved(self._kept[-1], frame):
            return
        for kept in self._kept[-3:]:
            as_is = _agreement(kept, frame, np.eye(4))
            other = _agreement(kept, frame, self._correction)
            if other is not None:
                self._shares.append((as_is or 0.0, other))
        self._kept.append(frame)

    def doubt(self) -> Doubt | None:
        """That the axes are the other ones; None as long as nothing says so."""
        if len(self._shares) < PAIRS:
            return None
        as_is, other = np.median(self._shares, axis=0)
        if as_is > AS_IS_AT_MOST or other < OTHERWISE_AT_LEAST:
            return None
        return Doubt(
            kind="image_frame",
            text=(
                f"the frame {self._kept[-1].camera_frame!r} of the images is taken to be {_axes(self._other, False)}, but then "
                f"{as_is:.0%} of the depth agrees between images, and {other:.0%} if it is {_axes(self._other, True)}"
            ),
            remedy=f"set image_frame to {self._other}",
            confidence=0.1,
        )


def _axes(other: str, is_other: bool) -> str:
    return "optical (z forward)" if (other == OPTICAL) == is_other else "a body frame (x forward)"


def _moved(a: Frame, b: Frame) -> bool:
    assert a.T_world_camera is not None
    assert b.T_world_camera is not None
    T = invert(a.T_world_camera) @ b.T_world_camera
    return float(np.linalg.norm(T[:3, 3])) > MOVED_M or rotation_angle(T) > TURNED_RAD


def _agreement(a: Frame, b: Frame, correction: Transform) -> float | None:
    """Share of the points of ``a`` that lie where ``b`` measured something, with both poses corrected; None: too few."""
    assert a.camera is not None
    assert b.camera is not None
    assert a.T_world_camera is not None
    assert b.T_world_camera is not None
    T_b_a = invert(b.T_world_camera @ correction) @ a.T_world_camera @ correction
    points = camera_points(a, max(a.camera.width // POINTS_ACROSS, 1))
    seen = points @ T_b_a[:3, :3].T + T_b_a[:3, 3]
    pixels = b.camera.project(seen)
    inside = b.camera.contains(pixels) & (seen[:, 2] > 0.1)
    if inside.sum() < FEWEST_POINTS:
        return None
    u, v = np.rint(pixels[inside]).astype(int).T
    assert b.depth is not None
    values = b.depth[v, u].astype(np.float64) * (0.001 if b.depth.dtype == np.uint16 else 1.0)
    expected = seen[inside, 2]
    valid = np.isfinite(values) & (values > 0)
    if valid.sum() < FEWEST_POINTS:
        return None
    off = np.abs(values[valid] - expected[valid])
    return float(np.mean(off < np.maximum(AGREE, AGREE * expected[valid])))
