"""Messages of all streams to frames: decoded once, joined by their stamps, what cannot be is counted."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from itertools import takewhile
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.dds.interfaces import MalformedPayload, interfaces
from spatial_mllm_ros.nodes.configs import SECOND, assembler_settings
from spatial_mllm_ros.nodes.inbox import Kind, Stream
from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.nodes.streams import COMPRESSED, image_topic
from spatial_mllm_ros.nodes.time_line import TimeLine
from spatial_mllm_ros.scene.assembler import FrameAssembler
from spatial_mllm_ros.scene.camera import CameraModel, InvalidCamera
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import InvalidTransform, Transform
from spatial_mllm_ros.scene.rigid import Rigid
from spatial_mllm_ros.scene.transform_tree import NO_STDDEV, Stddev, TransformTree, frame_name, whose_pose
from spatial_mllm_ros.scene.transform_watch import TransformWatch
from spatial_mllm_ros.sources import messages
from spatial_mllm_ros.sources.compressed import BadImage
from spatial_mllm_ros.sources.topics import is_rectified

log = logging.getLogger(__name__)

Moving = tuple[str, str, int, Rigid, Stddev]
"""A moving transform: parent, child, stamp (ns), T_parent_child and its deviation."""
BEFORE_EVERYTHING = -(2**63)
LATEST_TRANSFORMS = 2000
MOST_TRANSFORMS = 10_000
"""Of one child, that are remembered."""


class Taker(Protocol):
    """Who gets what comes in, in the intake's thread."""

    def remember(self, frames: list[Frame]) -> None:
        """Frames that are complete."""

    def go_back(self, first_ns: int, last_ns: int) -> None:
        """The images have begun anew at an earlier time, with these between the two stamps; they come next."""


class Intake:
    """Takes messages in, one at a time and in one thread; what it has found may be looked at from others.

    settings: see parameters.py. streams: whose messages come. monotonic: seconds.
    """

    def __init__(
        self, settings: Settings, streams: tuple[Stream, ...], taker: Taker, monotonic: Callable[[], float]
    ) -> None:
        self.refused: Counter[tuple[Stream, str]] = Counter()
        """Messages that became no part of a frame because of what is in them, by stream and reason."""
        self.faults: dict[Stream, str] = {}
        """The latest of them, in words."""
        self.tree = TransformTree(
            int(settings.tf_history_s * SECOND), MOST_TRANSFORMS, int(settings.tf_max_gap_s * SECOND) or None
        )
        self.settings = settings
        """May be replaced by others that differ in what may change at any time."""
        self._streams = streams
        self._taker = taker
        self._handlers = {stream: self._handler(stream) for stream in streams}
        self._lines = {s.camera: TimeLine(int(settings.clock_reset_s * SECOND), self.refuse, monotonic) for s in streams}
        self._lock = threading.RLock()
        """Of the tree and the assembler."""
        self._infos: dict[Stream, CameraModel] = {}
        self._sizes: dict[tuple[str, Kind], tuple[int, int]] = {}
        """(width, height), px, of the latest image, by camera and the kind of CameraInfo that goes with it."""
        self._watch = TransformWatch()
        self._transforms: deque[Moving] = deque(maxlen=LATEST_TRANSFORMS)
        """The moving ones that came last: those of a time line that begins anew come before it is believed."""
        self._pose_frame = ""
        """Whose pose pose_topic tells; '' until its first message."""
        self._camera_frame = ""
        self._early_poses: deque[tuple[Stream, Any]] = deque(maxlen=LATEST_TRANSFORMS)
        """From before the first image, which tells the camera's frame."""
        self.assembler = self._new_assembler()

    # ---- for the engine

    def add(self, stream: Stream) -> None:
        """Take messages of another stream, too."""
        self._streams = (*self._streams, stream)
        self._handlers[stream] = self._handler(stream)

    def take(self, stream: Stream, message: Any) -> None:
        """A message, as an object or as CDR."""
        try:
            if isinstance(message, bytes):
                message = interfaces().decode(message, stream.message_type)
            self._handlers[stream](message)
        except BadImage as error:
            self.refuse(stream, error.reason, str(error))
        except MalformedPayload as error:
            self.refuse(stream, "undecodable_message", str(error))
        except InvalidCamera as error:
            self.refuse(stream, "bad_camera_info", str(error))
        except InvalidTransform as error:
            self.refuse(stream, "tf_invalid", str(error))
        except Exception as error:  # whatever a publisher sends, the node keeps serving
            if (stream, "internal_error") not in self.refused:
                log.exception("a message on %s could not be taken in", stream.topic)
            self.refuse(stream, "internal_error", repr(error))

    def flush(self) -> None:
        """Give out what waits for something, as it is: nothing comes any more."""
        self._assemble(FrameAssembler.flush)

    def begin_anew(self, until_ns: int = BEFORE_EVERYTHING, *, keep: bool = False) -> None:
        """Forget everything but static transforms and calibrations, and the latest transforms until ``until_ns``.

        keep: give out what waits, count on, and place what comes in the same fixed frame.
        """
        with self._lock:
            former = self.assembler
            frames = former.flush() if keep else []
            self.tree.forget_after(BEFORE_EVERYTHING)
            self.assembler = self._new_assembler()
            if keep:
                self.assembler.refused, self.assembler.remarks = former.refused, former.remarks
                self.assembler.placed_in = former.placed_in
            of_the_time = takewhile(lambda transform: transform[2] <= until_ns, reversed(self._transforms))
            for parent, child, stamp, T, stddev in reversed(list(of_the_time)):
                self.assembler.add_transform(parent, child, stamp, T, stddev=stddev)
        self._taker.remember(frames)

    def clock_set_back(self, latest_ns: int) -> None:
        """The node's clock jumped back: images from before ``latest_ns`` are believed at once."""
        for line in self._lines.values():
            line.clock_set_back(latest_ns)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """See TransformTree."""
        with self._lock:
            return self.tree.lookup(target, source, stamp_ns)

    def root_of(self, frame: str) -> str | None:
        """See TransformTree."""
        with self._lock:
            return self.tree.root_of(frame)

    @property
    def image_ns(self) -> int | None:
        """Newest stamp of the images, whatever became of them."""
        return max((line.newest_ns for line in self._lines.values() if line.newest_ns is not None), default=None)

    @property
    def tf_ns(self) -> int | None:
        """Stamp of the moving transform that came last."""
        return self._transforms[-1][2] if self._transforms else None

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What speaks against the settings."""
        publishers = self._watch.doubt(self._above_camera())
        return (*(() if publishers is None else (publishers,)), *self.assembler.doubts)

    def refuse(self, stream: Stream, reason: str, text: str) -> None:
        """Count a message that becomes no part of a frame; the first of a kind is told."""
        if (stream, reason) not in self.refused:
            log.warning("%s: %s (further ones are counted, see /diagnostics)", stream.topic, text)
        self.refused[stream, reason] += 1
        self.faults[stream] = text

    # ---- what is done with a message

    def _handler(self, stream: Stream) -> Callable[[Any], None]:
        handlers: dict[Kind, Callable[[Stream, Any], None]] = {
            Kind.COLOR: self._color,
            Kind.DEPTH: self._depth,
            Kind.CAMERA_INFO: self._camera_info,
            Kind.DEPTH_CAMERA_INFO: self._camera_info,
            Kind.TF: self._moving,
            Kind.TF_STATIC: self._static,
            Kind.POSE: self._pose,
        }
        handle = handlers[stream.kind]
        return lambda message: handle(stream, message)

    def _color(self, stream: Stream, message: Any) -> None:
        image: NDArray[np.uint8] | EncodedImage
        if stream.message_type == COMPRESSED:
            image, size = messages.compressed_color(message)
        else:
            image = messages.color_image(message)
            size = (image.shape[1], image.shape[0])
        self._sizes[stream.camera, Kind.CAMERA_INFO] = size
        stamp_ns, frame = messages.stamp_ns(message.header.stamp), message.header.frame_id
        self._image(stream, stamp_ns, frame, lambda a: a.add_color(stamp_ns, frame, image, size, stream.camera))

    def _depth(self, stream: Stream, message: Any) -> None:
        image = messages.depth_of(message, self.settings.inputs)
        self._sizes[stream.camera, Kind.DEPTH_CAMERA_INFO] = (image.shape[1], image.shape[0])
        stamp_ns, frame = messages.stamp_ns(message.header.stamp), message.header.frame_id
        self._image(stream, stamp_ns, frame, lambda a: a.add_depth(stamp_ns, frame, image, stream.camera))

    def _camera_info(self, stream: Stream, message: Any) -> None:
        size = self._sizes.get((stream.camera, stream.kind))
        model = messages.camera_model(message, is_rectified(image_topic(stream, self._streams)), size)
        self._infos[stream] = model
        stamp_ns = messages.stamp_ns(message.header.stamp)
        fits = self._lines[stream.camera].fits(stream, stamp_ns)
        if not fits:
            self.assembler.remarks["info_clock"] += 1
        self._assemble(lambda a: _add_info(a, stream, stamp_ns if fits else BEFORE_EVERYTHING, model))

    def _moving(self, stream: Stream, message: Any) -> None:
        for parent, child, stamp, T in self._told(stream, message):
            if frame_name(child) in self._above_camera():
                self._watch.add(parent, child, stamp, T)
            self._transform(parent, child, stamp, T)

    def _static(self, stream: Stream, message: Any) -> None:
        for parent, child, stamp, T in self._told(stream, message):
            self._watch.add(parent, child, stamp, T, static=True)
            self._transform(parent, child, stamp, T, static=True)

    def _above_camera(self) -> tuple[str, ...]:
        with self._lock:
            return self.tree.ancestors(self._camera_frame)

    def _told(self, stream: Stream, message: Any) -> list[tuple[str, str, int, Rigid]]:
        """The transforms of a message, but for what pose_topic tells."""
        told = []
        for stamped in message.transforms:
            try:
                transform = messages.transform(stamped)
            except InvalidTransform as error:
                self.refuse(stream, "tf_invalid", str(error))
                continue
            if not self._pose_frame or frame_name(transform[1]) != self._pose_frame:
                told.append(transform)
        return told

    def _pose(self, stream: Stream, message: Any) -> None:
        parent, child, stamp, T, stddev = messages.pose(message)
        asked = self.settings.pose_frame
        if not (self._pose_frame or child or asked or self._camera_frame):
            self._early_poses.append((stream, message))
            return
        if not self._pose_frame:
            with self._lock:
                self._pose_frame, how = whose_pose(self.tree, self._camera_frame, child, asked)
            log.info("%s tells the pose of %s (%s) in %s", stream.topic, self._pose_frame, how, parent)
        self._transform(parent, self._pose_frame, stamp, T, stddev)

    def _image(
        self, stream: Stream, stamp_ns: int, frame_id: str, add: Callable[[FrameAssembler], list[Frame]]
    ) -> None:
        """An image that is one, now or when its time line is believed."""
        self._camera_frame = self._camera_frame or frame_name(frame_id)
        while self._early_poses:
            early, pose = self._early_poses.popleft()
            self._pose(early, pose)
        line = self._lines[stream.camera]
        due = line.take(stream, stamp_ns, add)
        if line.back_to is not None:
            self._taker.go_back(*line.back_to)
        for held in due:
            self._assemble(held)

    def _transform(
        self, parent: str, child: str, stamp_ns: int, T: Rigid, stddev: Stddev = NO_STDDEV, *, static: bool = False
    ) -> None:
        if not static:
            self._transforms.append((parent, child, stamp_ns, T, stddev))
        self._assemble(lambda a: a.add_transform(parent, child, stamp_ns, T, static, stddev))

    def _assemble(self, add: Callable[[FrameAssembler], list[Frame]]) -> None:
        with self._lock:
            frames = add(self.assembler)
        if frames:
            self._taker.remember(frames)

    def _new_assembler(self) -> FrameAssembler:
        settings = self.settings
        assembler = FrameAssembler(
            self.tree,
            settings.fixed_frame,
            assembler_settings(settings),
            color_only=[camera.color for camera in settings.cameras if camera.depth is None],
            uncalibrated=[camera.color for camera in settings.cameras if camera.info is None],
        )
        for stream, model in self._infos.items():
            _add_info(assembler, stream, BEFORE_EVERYTHING, model)
        return assembler


def _add_info(assembler: FrameAssembler, stream: Stream, stamp_ns: int, model: CameraModel) -> list[Frame]:
    add = assembler.add_camera_info if stream.kind is Kind.CAMERA_INFO else assembler.add_depth_info
    return add(stamp_ns, model, stream.camera)
