"""A path of the camera with stamps of its own, asked for at those of the images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.transform_tree import TransformTree

_WORLD, _CAMERA = "world", "camera"


class Trajectory:
    """Poses of the camera in the world; ``at`` interpolates between two that are no further apart than tf_max_gap_s."""

    def __init__(self, settings: InputSettings) -> None:
        gap_ns = round(settings.tf_max_gap_s * 1e9) or 2**62
        self._tree = TransformTree(history_ns=2**62, history_count=2**31, max_gap_ns=gap_ns)
        self.count = 0

    def add(self, stamp_ns: int, T_world_camera: Transform) -> None:
        """Raises InvalidTransform."""
        self._tree.add(_WORLD, _CAMERA, stamp_ns, T_world_camera)
        self.count += 1

    def at(self, stamp_ns: int) -> Callable[[], Transform]:
        """The pose at a stamp, when it is asked for; raises TransformError where none is known."""
        return partial(self._tree.lookup, _WORLD, _CAMERA, stamp_ns)

    def stddev_at(self, stamp_ns: int) -> Callable[[], tuple[float, float]]:
        """What that pose may be off by for being interpolated, see TransformTree.stddev."""
        return partial(self._tree.stddev, _WORLD, _CAMERA, stamp_ns)
