"""From messages that arrive one by one to frames: color, depth, calibration and pose of one moment belong together."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.clocks import OTHER_CLOCK_NS, apart_words
from spatial_mllm_ros.scene.depth import Depth
from spatial_mllm_ros.scene.depth_sample import DepthSample
from spatial_mllm_ros.scene.frame import Frame, InvalidFrame
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.inputs import BODY, OPTICAL, Doubt
from spatial_mllm_ros.scene.maximum_range import MaximumRange
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, InvalidTransform, Transform, invert
from spatial_mllm_ros.scene.registration import register_depth, resampled_depth
from spatial_mllm_ros.scene.rigid import Rigid
from spatial_mllm_ros.scene.transform_tree import (
    NO_STDDEV,
    ExtrapolationIntoFuture,
    Stddev,
    TransformError,
    TransformTree,
    frame_name,
)

MILLISECOND = 1_000_000


@dataclass(frozen=True)
class AssemblerSettings:
    """Assumptions about the input, and tolerances in nanoseconds of the images' own stamps.

    pair_tolerance_ns: furthest stamps of a color and a depth image that are still one moment.
    wait_ns: how much newer a camera's data may get while an image waits for its depth or its transforms.
    info_ahead_ns: how much later the first CameraInfo may come than an image that it is used for.
    clock_reset_ns: a jump backwards by more means that the clock was set back, not that an image is late.
    queue_size: images of one kind and camera that wait at most; then the oldest is dropped.
    pose_offset_ns: how much later transforms are stamped than images of the same moment.
    image_frame, static: see InputSettings.
    """

    pair_tolerance_ns: int = 20 * MILLISECOND
    wait_ns: int = 200 * MILLISECOND
    info_ahead_ns: int = 1000 * MILLISECOND
    clock_reset_ns: int = 5000 * MILLISECOND
    queue_size: int = 60
    pose_offset_ns: int = 0
    image_frame: str = OPTICAL
    static: bool = False


@dataclass(frozen=True, eq=False)
class _Color:
    stamp_ns: int
    frame_id: str
    image: NDArray[np.uint8] | EncodedImage
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Depth:
    stamp_ns: int
    frame_id: str
    depth: Depth


@dataclass(frozen=True)
class _Info:
    stamp_ns: int
    camera: CameraModel


_stamp = attrgetter("stamp_ns")


@dataclass
class _Camera:
    """What waits of one camera, each list by stamp.

    now_ns: its newest data; done_ns: its latest frame; depth_ns: its latest depth image, waiting or not. awaited: the frame
    for whose transform, at awaited_ns or later, the first image waits; '' when no transform would help, None when any might,
    or a tree of another ``shape``.
    """

    name: str
    colors: list[_Color] = field(default_factory=list)
    depths: list[_Depth] = field(default_factory=list)
    infos: list[_Info] = field(default_factory=list)
    depth_infos: list[_Info] = field(default_factory=list)
    maximum: MaximumRange = field(default_factory=MaximumRange)
    now_ns: int | None = None
    done_ns: int | None = None
    depth_ns: int | None = None
    awaited: str | None = None
    awaited_ns: int = 0
    shape: int = 0

    def may_go_on(self, child: str, stamp_ns: int, shape: int) -> bool:
        """Whether its first image may be complete with a transform of ``child``, in a tree of that shape by now."""
        if not self.colors:
            return False
        if self.awaited is None or shape != self.shape:
            return True
        return child == self.awaited and stamp_ns >= self.awaited_ns


class _Wait(Exception):
    """What the first image in the queue needs may still come."""


class _Missing(Exception):
    """Depth cannot be registered; the argument is the reason, for counting."""


class FrameAssembler:
    """Joins messages, in whatever order they come, into frames, in order of their stamps for each camera.

    A color image becomes a frame once its depth (nearest stamp within a tolerance), its CameraInfo (the latest at or
    before its stamp, else the first soon after, of the image's size) and its transforms (at its stamp, never the
    latest) are there. Depth of another frame or size is registered to the color image here, which needs the depth
    camera's CameraInfo and the transform between the two; depth of the same frame and shape is resampled without.
    Time is that of the images alone: an image waits until its camera's data is ``wait_ns`` newer, and what is missing
    then stays missing. Nothing here runs by itself.

    A missing pose or depth does not keep a frame back, for without a pose it still shows something, and a frame
    without pose is never placed anywhere. Such frames are counted in ``remarks``: ``no_depth`` and
    ``depth_not_registered``, ``depth_size``, and those with ``depth_resampled``; ``tf_...`` as the TransformErrors name
    it. In ``refused`` are messages that became no part of a frame: ``no_camera_info``, ``camera_size`` (CameraInfo of
    another size), ``repeated_stamp``, ``out_of_order`` (older than a frame that is out already), ``queue_full``,
    ``unpaired_depth``, ``tf_loop``, ``tf_invalid``, and the reasons of InvalidFrame.

    A stamp more than ``clock_reset_ns`` before its camera's newest is a clock set back (a simulation or a bag that
    starts over): what waits is given out as it is, newer transforms are forgotten, and ``remarks["clock_reset"]``
    counts it.

    tree: shared with whoever else looks up transforms. world_frame: the fixed frame of poses; empty: as
    TransformTree.root_of finds it for the first frame with a pose, so that a map that comes later splits nothing.
    color_only: cameras that never wait for depth.
    uncalibrated: cameras without CameraInfo, whose frames have none.

    The ``add_...`` methods take messages' stamps (ns) and frame names and return the frames that are complete by then.
    """

    def __init__(
        self,
        tree: TransformTree | None = None,
        world_frame: str = "",
        settings: AssemblerSettings | None = None,
        color_only: Collection[str] = (),
        uncalibrated: Collection[str] = (),
    ) -> None:
        self.tree = TransformTree() if tree is None else tree
        self.refused: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self.texts: dict[str, str] = {}
        """The latest case of a reason, in words: frames, seconds, sizes."""
        self.placed_in = ""
        """The fixed frame of the frames so far; '' before the first that has a pose."""
        self._world_frame = frame_name(world_frame)
        self._settings = settings or AssemblerSettings()
        self._color_only = frozenset(color_only)
        self._uncalibrated = frozenset(uncalibrated)
        self._cameras: dict[str, _Camera] = {}

    def add_color(
        self,
        stamp_ns: int,
        frame_id: str,
        image: NDArray[np.uint8] | EncodedImage,
        size: tuple[int, int],
        camera: str = "",
    ) -> list[Frame]:
        """A color image (uint8 RGB [h, w, 3] or compressed) of ``size`` (width, height), from the camera so named."""
        state = self._camera(camera)
        frames = self._reset(state, stamp_ns) if self._set_back(state, stamp_ns) else []
        if any(waiting.stamp_ns == stamp_ns for waiting in state.colors) or stamp_ns == state.done_ns:
            self.refused["repeated_stamp"] += 1
        elif state.done_ns is not None and stamp_ns < state.done_ns:
            self.refused["out_of_order"] += 1
        else:
            insort(state.colors, _Color(stamp_ns, frame_name(frame_id), image, size), key=_stamp)
            self._limit(state.colors)
        state.now_ns = stamp_ns if state.now_ns is None else max(state.now_ns, stamp_ns)
        return frames + self._ready()

    def add_depth(self, stamp_ns: int, frame_id: str, depth: Depth, camera: str = "") -> list[Frame]:
        """A depth image, [h, w], uint16 mm or float32 m along the axis of the camera whose frame is given."""
        state = self._camera(camera)
        state.depth_ns = stamp_ns
        if any(waiting.stamp_ns == stamp_ns for waiting in state.depths):
            self.refused["repeated_stamp"] += 1
        else:
            insort(state.depths, _Depth(stamp_ns, frame_name(frame_id), depth), key=_stamp)
            self._limit(state.depths)
        self._advance(state, stamp_ns)
        return self._ready()

    def add_camera_info(self, stamp_ns: int, info: CameraModel, camera: str = "") -> list[Frame]:
        """The model of the color images from ``stamp_ns`` on."""
        state = self._camera(camera)
        _note_info(state.infos, _Info(stamp_ns, info))
        self._advance(state, stamp_ns)
        return self._ready()

    def add_depth_info(self, stamp_ns: int, info: CameraModel, camera: str = "") -> list[Frame]:
        """The model of the depth images from ``stamp_ns`` on. Not needed for depth that is registered already."""
        state = self._camera(camera)
        _note_info(state.depth_infos, _Info(stamp_ns, info))
        self._advance(state, stamp_ns)
        return self._ready()

    def add_transform(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        T_parent_child: Transform | Rigid,
        static: bool = False,
        stddev: Stddev = NO_STDDEV,
    ) -> list[Frame]:
        """A transform, as for TransformTree.add; an impossible one is counted, not raised."""
        try:
            self.tree.add(parent, child, stamp_ns, T_parent_child, static, stddev)
        except TransformError as error:
            self.refused[error.reason] += 1
        except InvalidTransform:
            self.refused["tf_invalid"] += 1
        shape, child = self.tree.shape, frame_name(child)  # most transforms are of no image that waits
        helped = [state for state in self._cameras.values() if state.may_go_on(child, stamp_ns, shape)]
        return [frame for state in helped for frame in self._drain(state)]

    def flush(self) -> list[Frame]:
        """Everything that still waits, complete or not: the stream has ended."""
        frames = [frame for state in self._cameras.values() for frame in self._drain(state, last=True)]
        for state in self._cameras.values():
            self._drop_depths(state, len(state.depths))
        return sorted(frames, key=_stamp)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What speaks against what the depth images that are registered here are taken for."""
        found = [state.maximum.doubt() for state in list(self._cameras.values())]
        return tuple(doubt for doubt in found if doubt is not None)

    def _camera(self, name: str) -> _Camera:
        state = self._cameras.get(name)
        if state is None:
            state = self._cameras[name] = _Camera(name)
        return state

    def _limit(self, queue: list[_Color] | list[_Depth]) -> None:
        if len(queue) > self._settings.queue_size:
            del queue[0]
            self.refused["queue_full"] += 1

    def _drop_depths(self, state: _Camera, number: int) -> None:
        if number:
            self.refused["unpaired_depth"] += number
            del state.depths[:number]

    def _set_back(self, state: _Camera, stamp_ns: int) -> bool:
        return state.now_ns is not None and stamp_ns < state.now_ns - self._settings.clock_reset_ns

    def _reset(self, state: _Camera, stamp_ns: int) -> list[Frame]:
        self.remarks["clock_reset"] += 1
        frames = self._drain(state, last=True)
        self._drop_depths(state, len(state.depths))
        # A camera's calibration outlives its clock.
        state.infos = [_Info(-(2**63), info.camera) for info in state.infos[-1:]]
        state.depth_infos = [_Info(-(2**63), info.camera) for info in state.depth_infos[-1:]]
        state.now_ns = state.done_ns = None
        self.tree.forget_after(stamp_ns)
        return frames

    def _advance(self, state: _Camera, stamp_ns: int) -> None:
        """Depth and CameraInfo move a camera's time on, unless their clock is plainly another one."""
        if state.now_ns is not None and state.now_ns < stamp_ns <= state.now_ns + self._settings.clock_reset_ns:
            state.now_ns = stamp_ns

    def _ready(self) -> list[Frame]:
        return [frame for state in self._cameras.values() for frame in self._drain(state)]

    def _drain(self, state: _Camera, last: bool = False) -> list[Frame]:
        frames = []
        while state.colors:
            try:
                frame = self._assemble(state, state.colors[0], last)
            except _Wait:
                break
            state.done_ns = state.colors.pop(0).stamp_ns
            if frame is not None:
                frames.append(frame)
            too_old = bisect_right(state.depths, state.done_ns - self._settings.pair_tolerance_ns, key=_stamp)
            self._drop_depths(state, too_old)
        return frames

    def _assemble(self, state: _Camera, color: _Color, last: bool) -> Frame | None:
        """The frame of the first image in the queue, None when it is refused. Raises _Wait."""
        age = 2**63 if last or state.now_ns is None else state.now_ns - color.stamp_ns
        waiting = age <= self._settings.wait_ns
        state.awaited, state.shape = "", self.tree.shape
        model: CameraModel | None = None
        if state.name not in self._uncalibrated:
            model = _info_at(state.infos, color.stamp_ns, color.size, self._settings.info_ahead_ns)
            if model is None:
                if age <= self._settings.info_ahead_ns:
                    raise _Wait
                model = self._of_another_clock(state, color)
            if model is None:
                reason, text = _without_info(state.infos, color)
                self.refused[reason] += 1
                self.texts[reason] = text
                return None

        with_depth = state.name not in self._color_only
        matched = self._matching_depth(state, color, waiting) if with_depth else None
        world = self._world_frame or self._root(color.frame_id)
        T_world_camera, stddev = None, NO_STDDEV
        try:
            T_world_camera, stddev = self._pose(world, color)
        except TransformError as error:
            if waiting:
                state.awaited = None
                if isinstance(error, ExtrapolationIntoFuture):
                    state.awaited, state.awaited_ns = error.child, error.asked_ns
                raise _Wait from None
            missing = error.reason
            self.texts[missing] = f"{color.frame_id} in {world} at {color.stamp_ns / 1e9:.3f} s: {error}"
        depth = None
        if matched is not None:
            try:
                depth = self._registered(state, color, matched, model, world, T_world_camera)
            except _Missing as reason:
                if waiting:
                    state.awaited = None
                    raise _Wait from None
                self.remarks[str(reason)] += 1
            state.depths.remove(matched)
        elif with_depth:
            self.remarks["no_depth"] += 1
            self.texts["no_depth"] = _nearest_depth(state, color)
        if T_world_camera is None:
            self.remarks[missing] += 1
        else:
            self.placed_in = world
        try:
            return Frame(
                color.stamp_ns,
                color.frame_id,
                model,
                color.image,
                depth,
                T_world_camera,
                world,
                None if stddev == NO_STDDEV else stddev,
            )
        except InvalidFrame as error:
            self.refused[error.reason] += 1
            return None

    def _root(self, frame_id: str) -> str:
        """The fixed frame: the one that frames were placed in so far, also when it hangs below another one by now."""
        return self.placed_in or self.tree.root_of(frame_id) or "map"

    def _pose(self, world: str, color: _Color) -> tuple[Transform, Stddev]:
        """T_world_camera and what it may be off by. Raises TransformError."""
        if self._settings.static:
            return np.eye(4), NO_STDDEV
        at_ns = color.stamp_ns + self._settings.pose_offset_ns
        T = self.tree.lookup(world, color.frame_id, at_ns)
        stddev = self.tree.stddev(world, color.frame_id, at_ns)
        return (T @ T_BODY_OPTICAL if self._settings.image_frame == BODY else T), stddev

    def _of_another_clock(self, state: _Camera, color: _Color) -> CameraModel | None:
        """The latest CameraInfo of the image's size where all are stamped by another clock than the images."""
        fitting = [info for info in state.infos if (info.camera.width, info.camera.height) == color.size]
        if not fitting or min(abs(info.stamp_ns - color.stamp_ns) for info in fitting) < OTHER_CLOCK_NS:
            return None
        self.remarks["info_clock"] += 1
        self.texts["info_clock"] = f"CameraInfo is {apart_words(color.stamp_ns, fitting[-1].stamp_ns)} than the image"
        return fitting[-1].camera

    def _matching_depth(self, state: _Camera, color: _Color, waiting: bool) -> _Depth | None:
        """The depth image of that moment. Raises _Wait while a nearer one may come."""
        tolerance = self._settings.pair_tolerance_ns
        nearest = min(state.depths, key=lambda d: abs(d.stamp_ns - color.stamp_ns), default=None)
        if nearest is not None and nearest.stamp_ns == color.stamp_ns:
            return nearest
        if waiting and (not state.depths or state.depths[-1].stamp_ns <= color.stamp_ns + tolerance):
            raise _Wait
        if nearest is None or abs(nearest.stamp_ns - color.stamp_ns) > tolerance:
            return None
        # A depth image that lies nearer to the next color image is that one's.
        distance = abs(nearest.stamp_ns - color.stamp_ns)
        later = state.colors[1:2]
        return None if later and abs(nearest.stamp_ns - later[0].stamp_ns) < distance else nearest

    def _registered(
        self,
        state: _Camera,
        color: _Color,
        matched: _Depth,
        model: CameraModel | None,
        world: str,
        T_world_camera: Transform | None,
    ) -> Depth:
        """Depth in the color image. Raises _Missing."""
        size = (matched.depth.shape[1], matched.depth.shape[0])
        if matched.frame_id == color.frame_id and size == color.size:
            return matched.depth
        depth_model = _info_at(state.depth_infos, matched.stamp_ns, size, self._settings.info_ahead_ns)
        if matched.frame_id == color.frame_id and (depth_model is None or model is None):
            resampled = resampled_depth(matched.depth, color.size)
            what = f"depth of {size[0]}x{size[1]}, images of {color.size[0]}x{color.size[1]}, both in {color.frame_id}"
            if resampled is None:
                self.texts["depth_size"] = (
                    f"{what} but not of the same shape, and no CameraInfo of the depth image's size"
                )
                raise _Missing("depth_size")
            self.remarks["depth_resampled"] += 1
            self.texts["depth_resampled"] = what
            return resampled
        if depth_model is None or model is None:
            self.texts["depth_not_registered"] = (
                f"depth in {matched.frame_id}, images in {color.frame_id}, and no CameraInfo of the depth image's "
                f"{size[0]}x{size[1]}"
            )
            raise _Missing("depth_not_registered")
        try:
            T_color_depth = self._between(color, matched, world)
        except TransformError as error:
            self.texts["depth_not_registered"] = f"{matched.frame_id} in {color.frame_id}: {error}"
            raise _Missing("depth_not_registered") from None
        if self._settings.image_frame == BODY:
            T_color_depth = invert(T_BODY_OPTICAL) @ T_color_depth @ T_BODY_OPTICAL
        if T_world_camera is not None:  # moved into another camera, the value for no return would be one no more
            seen = Frame(
                matched.stamp_ns,
                matched.frame_id,
                depth_model,
                None,
                matched.depth,
                T_world_camera @ T_color_depth,
                world,
            )
            sample = DepthSample.of(seen)
            if sample is not None:
                state.maximum.add(sample, seen)
        return register_depth(state.maximum.without(matched.depth), depth_model, model, T_color_depth)

    def _between(self, color: _Color, matched: _Depth, world: str) -> Transform:
        """T_color_depth, each at its own stamp where the world frame is known, for the camera moved in between."""
        if color.stamp_ns != matched.stamp_ns:
            try:
                color_ns, depth_ns = (stamp + self._settings.pose_offset_ns for stamp in (color.stamp_ns, matched.stamp_ns))
                T_world_color = self.tree.lookup(world, color.frame_id, color_ns)
                return invert(T_world_color) @ self.tree.lookup(world, matched.frame_id, depth_ns)
            except TransformError:
                pass  # the mount alone is the next best, and the stamps are within the tolerance
        if color.frame_id == matched.frame_id:
            return np.eye(4)
        return self.tree.lookup(color.frame_id, matched.frame_id, color.stamp_ns)


def _nearest_depth(state: _Camera, color: _Color) -> str:
    at = f"the image at {color.stamp_ns / 1e9:.3f} s"
    if not state.depths:
        latest = (
            "none came"
            if state.depth_ns is None
            else f"the latest one is {apart_words(color.stamp_ns, state.depth_ns)}"
        )
        return f"{at}: no depth image of its time, {latest}"
    nearest = min((d.stamp_ns for d in state.depths), key=lambda stamp: abs(stamp - color.stamp_ns))
    return f"{at}: the nearest depth image is {apart_words(color.stamp_ns, nearest)}"


def _without_info(infos: list[_Info], color: _Color) -> tuple[str, str]:
    """Why an image has no CameraInfo: the reason, and in words."""
    if not infos:
        return "no_camera_info", "none came"
    fitting = [info for info in infos if (info.camera.width, info.camera.height) == color.size]
    if fitting:
        return "no_camera_info", f"the first CameraInfo is {apart_words(color.stamp_ns, fitting[0].stamp_ns)} than the image"
    sizes = f"images of {color.size[0]}x{color.size[1]}, CameraInfo of {infos[-1].camera.width}x{infos[-1].camera.height}"
    return "camera_size", f"{sizes}, the latest {apart_words(color.stamp_ns, infos[-1].stamp_ns)} than the image"


def _note_info(infos: list[_Info], info: _Info) -> None:
    """Keep ``info`` if it differs from the one before; cameras repeat themselves with every image."""
    at = bisect_right(infos, info.stamp_ns, key=_stamp)
    if at > 0 and infos[at - 1].camera == info.camera:
        return
    infos.insert(at, info)
    del infos[:-64]


def _info_at(infos: list[_Info], stamp_ns: int, size: tuple[int, int], ahead_ns: int) -> CameraModel | None:
    """The latest model at or before the stamp if it has that (width, height), else the first soon after that has."""
    at = bisect_right(infos, stamp_ns, key=_stamp)
    for info in infos[max(at - 1, 0) :]:
        if info.stamp_ns <= stamp_ns + ahead_ns and (info.camera.width, info.camera.height) == size:
            return info.camera
    return None
