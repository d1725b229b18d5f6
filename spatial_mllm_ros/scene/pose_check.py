"""Whether poses are read as they are meant: by what depth says where images overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from spatial_mllm_ros.scene.inputs import BODY, OPTICAL, Doubt
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, Transform, invert
from spatial_mllm_ros.scene.surfaces import SurfaceView, depth_mismatch

PARTNERS = 3
PAIRS, FEWEST_PAIRS = 40, 5
DOUBTED, NONSENSE = 0.05, 0.08
"""Median differences of depth, as shares. Recordings with good poses have 0.004 to 0.013, wrong axes 0.1 to 0.3."""
AGREES = 0.03

READINGS: tuple[tuple[str, str, Callable[[Transform], Transform]], ...] = (
    ("", "it fits if poses are read as world to camera: invert them", invert),
    (
        "",
        "it fits if axes of poses are read as OpenGL's (x right, y up, z backward), or depth is mirrored: multiply poses by "
        "diag(1, -1, -1, 1) from the right",
        lambda T: T @ np.diag([1.0, -1.0, -1.0, 1.0]),
    ),
    (BODY, "set image_frame to body", lambda T: T @ T_BODY_OPTICAL),
    (OPTICAL, "set image_frame to optical", lambda T: T @ invert(T_BODY_OPTICAL)),
)
"""Other readings of poses: as axes of what frame, and what to do where it fits."""
AXES = {BODY: "a body frame (x forward)", OPTICAL: "optical (z forward)"}


class PoseCheck:
    """Compares the views of one camera with those just before, in the order in which they come."""

    def __init__(self) -> None:
        self._kept: deque[SurfaceView] = deque(maxlen=PARTNERS)
        self._pairs: deque[tuple[float, ...]] = deque(maxlen=PAIRS)

    def add(self, view: SurfaceView) -> None:
        """Look at a view."""
        off, earlier = max(((depth_mismatch(e, view), e) for e in self._kept), key=lambda m: m[0], default=(-1.0, view))
        if off >= 0:
            others = [depth_mismatch(earlier, view, read) if off > DOUBTED else -1.0 for _, _, read in READINGS]
            self._pairs.append((off, *(other if other >= 0 else np.nan for other in others)))
        self._kept.append(view)

    def doubt(self) -> Doubt | None:
        """That poses are not those of the images; None as long as nothing says so."""
        if len(self._pairs) < FEWEST_PAIRS:
            return None
        off = float(np.median([pair[0] for pair in self._pairs]))
        if off <= DOUBTED:
            return None
        text = f"depth and poses contradict each other: where images overlap, depth differs by {off:.0%}"
        axes, remedy, then = self._what_fits()
        if axes:
            is_now = AXES[BODY if axes == OPTICAL else OPTICAL]
            text += f" as the frame {self._kept[-1].camera_frame!r} of the images is taken to be {is_now}, and by {then:.0%} "
            text += f"if it is {AXES[axes]}"
        return Doubt(
            kind="image_frame" if axes else "poses",
            text=text,
            remedy=remedy,
            confidence=0.1 if axes or off > NONSENSE else 0.3,
        )

    def _what_fits(self) -> tuple[str, str, float]:
        """Axes of another kind of frame, what to do, and by how much depth then differs."""
        for i, (axes, remedy, _) in enumerate(READINGS, 1):
            of_pairs = [pair[i] for pair in self._pairs if np.isfinite(pair[i])]
            if len(of_pairs) >= FEWEST_PAIRS and (then := float(np.median(of_pairs))) < AGREES:
                return axes, remedy, then
        return (
            "",
            "poses must be camera to world, of the optical frame (x right, y down, z forward) and of the image's moment; "
            "depth must be along z, proportional to the distance, and registered to the color image",
            np.nan,
        )
