"""Whether poses can be those of the images: by what depth says where images overlap, and by how fast the camera would be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from spatial_mllm_ros.scene.depth_sample import DepthSample
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, Transform, invert

STEP_NS, STEP_FRAMES = 250_000_000, 4
"""Images that are compared are so far apart, in time or, as stamps may be made up, in number: neighbours always agree."""
PARTNERS = 3
FEWEST_POINTS, SHARE_SEEN = 60, 0.25
PAIRS, FEWEST_PAIRS = 40, 5
DOUBTED, NONSENSE = 0.05, 0.08
"""Median differences of depth, as shares. Recordings with good poses have 0.004 to 0.013, wrong axes 0.1 to 0.3."""
AGREES = 0.03
FASTEST_M_S = 50.0
"""No camera that sees rooms or streets moves so fast."""

READINGS: tuple[tuple[str, Callable[[Transform], Transform]], ...] = (
    ("poses are read as world to camera: invert them", invert),
    (
        "axes of poses are read as OpenGL's (x right, y up, z backward), or depth is mirrored: multiply poses by "
        "diag(1, -1, -1, 1) from the right",
        lambda T: T @ np.diag([1.0, -1.0, -1.0, 1.0]),
    ),
    ("poses are read as those of a body frame: set image_frame to body", lambda T: T @ T_BODY_OPTICAL),
    ("poses are read as those of an optical frame: set image_frame to optical", lambda T: T @ invert(T_BODY_OPTICAL)),
)
"""Other readings of poses, and what to do where these fit."""


class PoseCheck:
    """Watches the poses of one camera, in the order in which they come. Costs some thousand points for each fourth frame."""

    def __init__(self) -> None:
        self._last: tuple[int, np.ndarray] | None = None
        self._speeds: deque[float] = deque(maxlen=PAIRS)
        self._kept: deque[DepthSample] = deque(maxlen=PARTNERS)
        self._next_ns, self._skipped = 0, 0
        self._pairs: deque[tuple[float, ...]] = deque(maxlen=PAIRS)

    def add(self, frame: Frame, sample: DepthSample | None) -> None:
        """Look at a frame that has a pose, and at its depth if there is any."""
        assert frame.T_world_camera is not None
        position = frame.T_world_camera[:3, 3]
        if self._last is not None and frame.stamp_ns > self._last[0]:
            seconds = (frame.stamp_ns - self._last[0]) / 1e9
            self._speeds.append(float(np.linalg.norm(position - self._last[1])) / seconds)
        self._last = frame.stamp_ns, position
        self._skipped += 1
        if sample is None or (frame.stamp_ns < self._next_ns and self._skipped < STEP_FRAMES):
            return
        self._next_ns, self._skipped = frame.stamp_ns + STEP_NS, 0
        worst = max(((_mismatch(earlier, frame), earlier) for earlier in self._kept), key=lambda m: m[0], default=None)
        if worst is not None and worst[0] >= 0:
            off, earlier = worst
            others = [_mismatch(earlier, frame, read) if off > DOUBTED else np.nan for _, read in READINGS]
            self._pairs.append((off, *(other if other >= 0 else np.nan for other in others)))
        self._kept.append(sample)

    def doubt(self) -> Doubt | None:
        """That poses are not those of the images; None as long as nothing says so."""
        if len(self._speeds) >= FEWEST_PAIRS and (speed := float(np.median(self._speeds))) > FASTEST_M_S:
            return Doubt(
                kind="pose_unit",
                text=f"by its poses and stamps the camera moves at {speed:.3g} m/s",
                remedy="set pose_unit_m to 0.001 if poses are in millimetres, or repair the stamps",
                confidence=0.1,
            )
        if len(self._pairs) < FEWEST_PAIRS:
            return None
        off = float(np.median([pair[0] for pair in self._pairs]))
        if off <= DOUBTED:
            return None
        return Doubt(
            kind="poses",
            text=f"depth and poses contradict each other: where images overlap, depth differs by {off:.0%}",
            remedy=self._remedy(),
            confidence=0.1 if off > NONSENSE else 0.3,
        )

    def _remedy(self) -> str:
        for i, (what, _) in enumerate(READINGS, 1):
            of_pairs = [pair[i] for pair in self._pairs if np.isfinite(pair[i])]
            if len(of_pairs) >= FEWEST_PAIRS and np.median(of_pairs) < AGREES:
                return f"it fits if {what}"
        return (
            "poses must be camera to world, of the optical frame (x right, y down, z forward) and of the image's moment; "
            "depth must be along z, proportional to the distance, and registered to the color image"
        )


def _mismatch(earlier: DepthSample, frame: Frame, read: Callable[[Transform], Transform] = lambda T: T) -> float:
    """Median difference of depth, as a share, where both see the same; -1 where too little is."""
    assert frame.T_world_camera is not None
    there = replace(earlier, T_world_camera=read(earlier.T_world_camera))
    expected, measured = there.seen_by(replace(frame, T_world_camera=read(frame.T_world_camera)))
    if len(expected) < max(FEWEST_POINTS, SHARE_SEEN * len(earlier.metres)):
        return -1.0
    return float(np.median(np.abs(np.log(expected / measured))))
