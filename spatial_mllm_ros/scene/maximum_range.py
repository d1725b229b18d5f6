"""Pixels from which nothing came back, written as the largest value that a camera knows."""

from __future__ import annotations

from collections import deque

import numpy as np

from spatial_mllm_ros.scene.depth import Depth
from spatial_mllm_ros.scene.depth_sample import DepthSample
from spatial_mllm_ros.scene.frame import DEPTH_MM, Frame
from spatial_mllm_ros.scene.inputs import Doubt

FEWEST, SHARE = 12, 0.01
"""Samples, and share of the samples, at the largest value that make a plateau."""
BESIDE, BESIDE_SHARE = 0.9, 1 / 3
"""Above this share of the largest value lie few samples for each on a plateau: real surfaces are slanted, or noisy."""
KEPT, PAIRS = 6, 3
OFF = 0.05
"""How much other than the plateau, as a share and in m, a surface's depth must be for motion to tell."""
STILL = 30
"""Images with the same plateau from a camera that does not tell, by moving, what it is."""


class MaximumRange:
    """Finds the value that one camera writes where it measures nothing, if it writes one.

    A wall that a camera looks straight at without noise fills a plateau too, but when the camera turns or comes nearer, its
    depth changes. What stays at the same largest value, where by the motion it should not, is no surface.
    """

    def __init__(self) -> None:
        self.found: float | None = None
        """The value, as frames have it (mm or m)."""
        self._top = 0.0
        self._kept: deque[DepthSample] = deque(maxlen=KEPT)
        self._pairs = 0
        self._seen = 0
        self._share = 0.0

    def add(self, sample: DepthSample, frame: Frame) -> bool:
        """Look at a frame and its sample; whether a value was found by it."""
        if not len(sample.values):
            return False
        top = float(sample.values.max())
        if top > self._top:
            if self.found is not None and top <= 1.02 * self.found:
                return False  # interpolation, or rounding
            self._top, self.found, self._pairs, self._seen = top, None, 0, 0
            self._kept.clear()
        if self.found is not None or top != self._top:
            return False
        on = sample.values == top
        beside = (sample.values >= BESIDE * top).sum() - on.sum()
        if on.sum() < max(FEWEST, SHARE * len(on)) or beside > BESIDE_SHARE * on.sum():
            return False
        self._seen += 1
        self._share = float(on.mean())
        if any(self._stays(earlier, frame) for earlier in self._kept):
            self._pairs += 1
        self._kept.append(sample)
        if self._pairs < PAIRS:
            return False
        self.found = top
        return True

    def without(self, depth: Depth) -> Depth:
        """Depth without the value that was found; the same array where it does not hold it."""
        if self.found is None:
            return depth
        least = self.found if depth.dtype == DEPTH_MM else np.float32(self.found)
        none = depth >= least
        return np.where(none, depth.dtype.type(0), depth) if none.any() else depth

    def doubt(self) -> Doubt | None:
        """What was found, or what only the user can know."""
        metres = self._top * (0.001 if self._is_mm else 1.0)
        what = f"{self._share:.0%} of the depth is exactly {metres:g} m, the largest value"
        if self.found is not None:
            return Doubt(
                kind="depth_maximum",
                text=f"{what}, and stays so where by the camera's motion it cannot: that is no measurement and is left out",
                remedy=f"set max_depth_m to less than {metres:g}, or add its count to invalid_depth, to say so yourself",
            )
        if self._seen < STILL or self._share > 0.9:
            return None
        return Doubt(
            kind="depth_maximum",
            text=f"{what}, in {self._seen} images",
            remedy=(
                f"if the camera writes that where it measures nothing, set max_depth_m to less than {metres:g}, or add its "
                "count to invalid_depth"
            ),
            confidence=0.8,
        )

    @property
    def _is_mm(self) -> bool:
        return bool(self._kept) and self._kept[-1].values.dtype == DEPTH_MM

    def _stays(self, earlier: DepthSample, frame: Frame) -> bool:
        """Whether most of the earlier plateau lies on this frame's, at a depth that a surface there would not have."""
        assert frame.depth is not None
        on = earlier.values == self._top
        expected, measured = earlier.seen_by(frame, which=on)
        top_m = float(earlier.metres[on][0])
        moved = np.abs(expected - top_m) > OFF * top_m + OFF
        if moved.sum() < FEWEST:
            return False
        return float((np.abs(measured[moved] - top_m) < 1e-6 * top_m + 1e-6).mean()) > 0.5
