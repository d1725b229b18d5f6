"""What the memory knows of a submap, and what it has to do to follow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from spatial_mllm_ros.memory.spatial_memory import Revision
from spatial_mllm_ros.perception.rgb.config import RgbGeometryConfig
from spatial_mllm_ros.perception.rgb.gate import ImageGate
from spatial_mllm_ros.perception.rgb.image import ChainImage, Release
from spatial_mllm_ros.perception.rgb.submap import Submap
from spatial_mllm_ros.perception.rgb.update import CHAIN_FRAME, UP_TO_SCALE, Update
from spatial_mllm_ros.perception.rgb.window_chain import WindowChain
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.metric_scale import MetricScale
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.window import resized_depth

log = logging.getLogger(__name__)

PREDICTED_DEPTH = SensorModel(0.003, 0.004, 0.0, 0.01, 0.005, 0.003, 0.5)
"""What is assumed at least about predicted depth and poses in metres; the scale's own deviation comes on top."""


class PlacedFrames:
    """Gives images to the memory once it is known where they lie, and moves them when that is known better."""

    def __init__(self, config: RgbGeometryConfig, gate: ImageGate) -> None:
        self._config, self._gate = config, gate
        self.world = ""
        """Fixed frame of the memory."""
        self.is_placed = False
        """Whether that is the world of measured poses, which outlives a submap."""
        self.held = 0
        """Images kept back."""
        self.scale: MetricScale | None = None
        self._sensor: SensorModel | None = None
        self._earlier_stddev = 0.0  # of the scales of former submaps in the same memory

    def submap_ends(self, submap: Submap) -> None:
        """A submap has no more windows; the next may join the same memory."""
        scale = submap.metres.scale
        if self.is_placed and scale.known:
            self._earlier_stddev = max(self._earlier_stddev, scale.stddev)

    def holds(self, submap: Submap) -> bool:
        """Whether the memory has images of this submap."""
        return any(image.released is not None for image in submap.images.values())

    def correct_poses(self, submap: Submap, poses: Mapping[int, Transform]) -> None:
        """Note better measured poses, by stamp, that the memory has, too."""
        for stamp, T in poses.items():
            image = submap.images.get(stamp)
            if image is not None:
                image.measured = T
                if image.released is not None and self.is_placed:
                    image.released = replace(image.released, T_world_camera=T)

    def between(self, submap: Submap) -> Update | None:
        """Frames with poses that joined no window, if the memory is in the world of those poses."""
        frames = self._between(submap)
        return Update(tuple(frames), (), self.scale, self._sensor) if frames else None

    def _between(self, submap: Submap) -> list[Frame]:
        if not self.is_placed:
            return []
        frames = self._gate.take_between()
        return [replace(f, camera=submap.camera_of(f)) for f in frames if f.world_frame == self.world]

    def settle(self, submap: Submap) -> Update | None:
        """Place every image of the submap by what is known now; what the memory has to do to follow."""
        if not len(submap.chain):
            return None
        x, stddev = submap.log_scales()
        known = submap.metres.scale.known
        images = list(submap.images.values())
        placed = known and submap.is_measured  # in the world of the measured poses
        if placed:
            world = next(i.world_frame for i in images if i.measured is not None)
        else:
            world = f"{CHAIN_FRAME if known else UP_TO_SCALE}_{submap.number}"
        mine = self.holds(submap)
        if self.is_placed and not mine and world != self.world:
            self.hold(submap)  # the memory is in metres elsewhere: wait until this submap can join it
            return None
        forget = bool(self.world) and not mine and world != self.world
        if forget:
            log.warning("the memory starts over: nothing connects it to what the camera sees now (%s)", world)
        poses = submap.measured_or_near(x) if placed else submap.chain_poses(x)
        frames, revisions = [], []
        moved = world != self.world
        for image, T in zip(images, poses, strict=True):
            k = image.window - submap.chain.first_index
            if known and not stddev[k] <= self._config.scale.max_stddev:
                if moved and image.released is not None:  # the memory drops what does not move along
                    image.released = None
                    self._gate.leave_out("scale_uncertain")
                continue
            target = Release(float(x[k]), T, world)
            if image.released is None:
                if image.frame is not None:
                    frames.append(_frame(image, target, known))
                    image.released, image.frame, image.depth = target, None, None
            elif moved or target.differs_from(image.released, 0.5 * stddev[k] if known else 0.0):
                factor = 1.0 if image.dense else float(np.exp(target.log_scale - image.released.log_scale))
                revisions.append(Revision(image.stamp_ns, image.camera_frame, T, factor, world))
                image.released = target
        self.world, self.is_placed = world, placed
        self.scale = self._scale_to_state(submap.metres.scale, images, placed, forget)
        self._sensor = None if self.scale is None else _sensor(submap.chain)
        self.hold(submap)
        frames += self._between(submap)
        frames.sort(key=lambda frame: frame.stamp_ns)
        return Update(tuple(frames), tuple(revisions), self.scale, self._sensor, forget)

    def _scale_to_state(
        self, scale: MetricScale, images: Sequence[ChainImage], placed: bool, forget: bool
    ) -> MetricScale | None:
        """The scale of all that the memory holds; None where both depth and poses were measured."""
        if forget or not placed:
            self._earlier_stddev = 0.0
        released = [image for image in images if image.released is not None]
        if placed and not self._earlier_stddev and all(i.dense and i.measured is not None for i in released):
            return None
        return replace(scale, stddev=max(scale.stddev, self._earlier_stddev))

    def hold(self, submap: Submap) -> None:
        """Forget the oldest of the images that could not be released, beyond a bound."""
        held = [image for image in submap.images.values() if image.frame is not None]
        for image in held[: max(len(held) - self._config.max_held, 0)]:
            image.frame = image.depth = None
            self._gate.leave_out("scale_came_too_late")
        self.held = min(len(held), self._config.max_held)

    def give_up(self, submap: Submap) -> None:
        """Count the images of a submap that comes to nothing."""
        self._gate.leave_out("not_connected", sum(image.frame is not None for image in submap.images.values()))
        self.held = 0


def _frame(image: ChainImage, target: Release, metric: bool) -> Frame:
    """The image as a frame for the memory."""
    frame = image.frame
    assert frame is not None
    assert image.depth is not None
    depth = frame.depth
    if not (image.dense and metric):
        image.dense = False
        unit = np.float32(np.exp(target.log_scale))
        depth = resized_depth(image.depth, image.camera.height, image.camera.width) * unit
    return replace(
        frame,
        camera=image.camera,
        depth=depth,
        T_world_camera=target.T_world_camera,
        world_frame=target.world_frame,
    )


def _sensor(chain: WindowChain) -> SensorModel:
    """What is assumed of predicted depth, or more where windows differ by more."""
    image, pixel = chain.depth_errors()
    return replace(
        PREDICTED_DEPTH,
        # about ``pixel`` times the depth at the usual distances, in a form that sensors have
        depth_base_m=float(np.nanmax([PREDICTED_DEPTH.depth_base_m, 0.5 * pixel])),
        depth_quadratic_per_m=float(np.nanmax([PREDICTED_DEPTH.depth_quadratic_per_m, 0.375 * pixel])),
        depth_correlated=float(np.nanmax([PREDICTED_DEPTH.depth_correlated, image])),
    )
