"""What is known of a camera's depth by looking at it: whether its unit can be right, which value means nothing,
and whether it shows what the color image shows."""

from __future__ import annotations

from dataclasses import replace

from spatial_mllm_ros.scene.color_depth import ColorDepthCheck
from spatial_mllm_ros.scene.depth import AS_IT_IS, DepthFormat
from spatial_mllm_ros.scene.depth_sample import DepthSample
from spatial_mllm_ros.scene.depth_scale import DepthScale
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.maximum_range import MaximumRange


class DepthCheck:
    """Looks at the frames of one camera, in the order in which they come."""

    def __init__(self, depth: DepthFormat = AS_IT_IS) -> None:
        self.refused = 0
        """Frames whose depth cannot be a measurement."""
        self._scale = DepthScale(depth)
        self._maximum = MaximumRange()
        self._color = ColorDepthCheck()

    def look(self, frame: Frame) -> tuple[Frame, bool]:
        """The frame without depth that is none, and whether earlier frames hold such depth too, see ``without``."""
        sample = DepthSample.of(frame)
        if sample is None:
            return frame, False
        if not self._scale.add(sample, frame):
            self.refused += 1
            return replace(frame, depth=None), False
        found = self._maximum.add(sample, frame)
        frame = self.without(frame)
        self._color.add(frame)
        return frame, found

    def without(self, frame: Frame) -> Frame:
        """The frame without depth at the camera's maximum range, where that means nothing; itself where there is none."""
        if frame.depth is None:
            return frame
        depth = self._maximum.without(frame.depth)
        return frame if depth is frame.depth else replace(frame, depth=depth)

    def doubts(self) -> tuple[Doubt, ...]:
        """What speaks against what depth is taken for."""
        found = (self._scale.doubt(), self._maximum.doubt(), self._color.doubt())
        return tuple(doubt for doubt in found if doubt is not None)
