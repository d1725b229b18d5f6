"""Bags of ROS 2 (sqlite3 or MCAP) and ROS 1, read without ROS."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spatial_mllm_ros.scene.assembler import AssemblerSettings, FrameAssembler
from spatial_mllm_ros.scene.camera import InvalidCamera
from spatial_mllm_ros.scene.clocks import OTHER_CLOCK_NS
from spatial_mllm_ros.scene.depth import DepthFormat, depth_unit_m
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import BODY, Doubt, InputSettings
from spatial_mllm_ros.scene.pose import InvalidTransform, Transform
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.transform_tree import PREFERRED_ROOTS, TransformError, TransformTree, frame_name, whose_pose
from spatial_mllm_ros.scene.transform_watch import TransformWatch
from spatial_mllm_ros.sources import messages
from spatial_mllm_ros.sources.bag_files import WHAT_TO_DO, BagFiles
from spatial_mllm_ros.sources.bag_storage import Channel
from spatial_mllm_ros.sources.calibration import sensor_from_yaml
from spatial_mllm_ros.sources.compressed import BadImage, image_size
from spatial_mllm_ros.sources.messages import DEPTH_ENCODINGS
from spatial_mllm_ros.sources.source import SourceError, SourceInfo
from spatial_mllm_ros.sources.stamps import seconds_to_ns
from spatial_mllm_ros.sources.topics import (
    IMAGE_TYPES,
    INFO_TYPE,
    POSE_TYPES,
    TF_TYPE,
    CameraTopics,
    Topic,
    choose_cameras,
    depth_fault,
    is_rectified,
    is_static_tf,
    tf_namespaces,
)

SENSOR_KEY = "spatial_mllm_ros.sensor"
LOOK_FOR_ROOT_NS = 10_000_000_000
STAMP_TOLERANCE_NS = 500_000
BEFORE_EVERYTHING = -(2**63)
LATE_INFO_NS = 500_000_000
# The types read here have not changed between releases, so that definitions in the bag are not needed, and one that
# cannot be parsed, of a type that nobody asked for, is no obstacle.
Handler = Callable[[Any], list[Frame]]
"""Takes a message, gives the frames that are complete by then."""
UNDECODABLE = (SerdeError, ValueError, KeyError, IndexError, AssertionError, struct.error)
ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_JAZZY)
ROS1.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", TF_TYPE))

WAIT_NS, QUEUE_SIZE = 1_000_000_000, 200
"""Nobody waits for a recording, so that transforms may come later than a live camera would wait for them."""

MOST_TRANSFORMS = 500_000
"""Of one frame, kept for questions about frames other than the camera's: two hours at 70 Hz."""


class BagSource:
    """A bag: the folder of a rosbag2, or a file of one (.mcap, .db3), or a bag of ROS 1 (.bag).

    Its messages go through a FrameAssembler by their own stamps. Topics are found by type and name (see
    ``find_cameras``) unless the settings name them. ``all_cameras`` gives every camera's frames, else only the
    likeliest main camera's. Without ``world_frame`` the fixed frame is the one that TransformTree.root_of finds in the
    first seconds.

    Static transforms hold from the beginning, wherever they were recorded. ``refused`` and ``remarks`` are those of the
    assembler, ``refused`` with what did not decode besides: ``undecodable_message`` and the reasons of BadImage,
    InvalidCamera (``bad_camera_info``) and InvalidTransform (``tf_invalid``). Raises SourceError.
    """

    def __init__(
        self,
        path: Path | str,
        settings: InputSettings | None = None,
        *,
        all_cameras: bool = False,
    ) -> None:
        self._files = BagFiles(Path(path))
        self._settings = settings = settings or InputSettings()
        self.doubts: list[Doubt] = []
        self.refused: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self._firsts: dict[str, Any] = {}
        """The first message of each topic of images and CameraInfo that decodes."""
        topics = self._topics()
        self._sizes = {t.name: t.size for t in topics if t.type in IMAGE_TYPES}
        asked = CameraTopics(
            settings.color_topic,
            settings.camera_info_topic or None,
            settings.depth_topic or None,
            settings.depth_camera_info_topic or None,
        )
        self.texts: dict[str, str] = {}
        self.cameras = choose_cameras(Path(path), topics, asked, all_cameras)
        color = next(t for t in topics if t.name == self.cameras[0].color)
        tf_topics = [c.topic for c in self._files.counts if c.type == TF_TYPE]
        used, others = tf_namespaces(tf_topics, color.name, settings.tf_namespace)
        self._tf = [c for c in self._files.counts if c.type == TF_TYPE and c.topic in used]
        self._statics = self._static_transforms()
        tree, root = self._first_transforms(color.frame_id)
        self._poses = self._pose_channel(settings.pose_topic or ("" if root or settings.static else self._only_odometry()))
        self._pose_frame, pose_parent, pose_words = self._whose_pose(tree, color.frame_id)
        self._world_frame = frame_name(settings.world_frame) or pose_parent or root
        self._up = {*tree.ancestors(color.frame_id), self._pose_frame}
        wanted = {camera.color for camera in self.cameras}
        count = sum(n for channel, n in self._files.counts.items() if channel.topic in wanted)
        duration_s = (self._files.end_ns - self._files.start_ns) / 1e9
        if others and not used and not settings.static and self._poses is None:
            self._doubt(
                "tf_namespace",
                f"transforms of several robots, on {', '.join(others)}, and none is {color.name}'s",
                "set tf_namespace to the robot's, as " + repr(others[0].strip("/").rpartition("/")[0]),
            )
        self.info = SourceInfo(
            name=Path(path).resolve().stem,
            frames=count or None,
            duration_s=duration_s,
            world_frame=self._world_frame or "map",
            sensor=_sensor(self._files.custom),
            depth=DepthFormat(unit_m=settings.depth_unit_m),
            chosen=(*self._files.remarks, *self._chosen(topics, used, others, pose_words)),
            description=f"bag, {count} images on {', '.join(sorted(wanted))}, {duration_s:.1f} s",
        )

    def stamp_of(self, name: str) -> int:
        """Stamp (ns) of the image whose stamp in decimal seconds is ``name``, to half a millisecond.

        KeyError when there is none. The first call reads through the images.
        """
        try:
            wanted = seconds_to_ns(name)
        except ValueError:
            raise KeyError(f"a rosbag2 names no frames: give a stamp in seconds, not {name!r}") from None
        nearest = min(self._stamps, key=lambda stamp: abs(stamp - wanted), default=None)
        if nearest is None or abs(nearest - wanted) > STAMP_TOLERANCE_NS:
            raise KeyError(f"{self.info.name} has no image at {name} s")
        return nearest

    def frames(self) -> Iterator[Frame]:
        """Frames as the FrameAssembler completes them. A bag that breaks off gives what it has, and a doubt."""
        uncalibrated = [camera.color for camera in self.cameras if camera.info is None]
        color_only = [camera.color for camera in self.cameras if camera.depth is None]
        chosen = self._settings
        tree = TransformTree(max_gap_ns=round(chosen.tf_max_gap_s * 1e9) or None)
        patient = AssemblerSettings(
            pair_tolerance_ns=round(chosen.sync_tolerance_s * 1e9),
            # until the transform behind a gap
            wait_ns=max(WAIT_NS, round(chosen.tf_max_gap_s * 1.1e9)) + max(round(chosen.pose_offset_s * 1e9), 0),
            pose_offset_ns=round(chosen.pose_offset_s * 1e9),
            queue_size=QUEUE_SIZE,
            image_frame=chosen.image_frame,
            static=chosen.static,
        )
        assembler = FrameAssembler(tree, self._world_frame, patient, color_only, uncalibrated)
        self.refused, self.remarks, self.texts = assembler.refused, assembler.remarks, assembler.texts
        watch = TransformWatch()
        for static in self._statics:
            if frame_name(static[1]) != self._pose_frame:
                assembler.add_transform(*static, static=True)
        self._begin_with_info(assembler)
        handlers = self._handlers(assembler, watch)
        wanted = {channel for channel in self._files.counts if (channel.topic, channel.type) in handlers}

        def assembled() -> Iterator[Frame]:
            for channel, message in self._messages(wanted, refused=assembler.refused):
                yield from handlers[channel.topic, channel.type](message)
            yield from assembler.flush()

        for frame in assembled():
            for doubt in (watch.doubt(self._up), *assembler.doubts):
                self._tell(doubt)
            yield frame
        self._tell(watch.doubt(self._up))
        self._doubt("damaged_bag", "; ".join(self._files.remarks), WHAT_TO_DO)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """T_target_source at any time of the bag, as TransformTree.lookup. The first call reads through its transforms."""
        return self._all_transforms.lookup(target, source, stamp_ns)

    @cached_property
    def _all_transforms(self) -> TransformTree:
        max_gap_ns = round(self._settings.tf_max_gap_s * 1e9) or None
        tree = TransformTree(history_ns=2**62, history_count=MOST_TRANSFORMS, max_gap_ns=max_gap_ns)
        for is_static, transforms in ((True, iter(self._statics)), (False, self._transforms(static=False))):
            for parent, child, stamp, T in transforms:
                try:
                    tree.add(parent, child, stamp, T, is_static)
                except (TransformError, InvalidTransform):
                    continue  # counted when the frames are read
        return tree

    def _begin_with_info(self, assembler: FrameAssembler) -> None:
        """Images from before the first CameraInfo take that one: a camera is calibrated before it is switched on."""
        for camera in self.cameras:
            for topic, image, add in (
                (camera.info, camera.color, assembler.add_camera_info),
                (camera.depth_info, camera.depth, assembler.add_depth_info),
            ):
                first = self._firsts.get(topic or "")
                if first is not None and image in self._firsts and self._apart_ns(topic, image) < OTHER_CLOCK_NS:
                    try:
                        model = messages.camera_model(first, is_rectified(image), self._sizes.get(image))
                    except InvalidCamera:
                        continue  # counted when it is read
                    add(BEFORE_EVERYTHING, model, camera.color)

    @cached_property
    def _stamps(self) -> list[int]:
        colors = {camera.color for camera in self.cameras}
        wanted = {c for c in self._files.counts if c.topic in colors and c.type in IMAGE_TYPES}
        return sorted(messages.stamp_ns(m.header.stamp) for _, m in self._messages(wanted))

    def _doubt(self, kind: str, text: str, remedy: str, confidence: float = 1.0) -> None:
        if text:
            self._tell(Doubt(kind=kind, text=text, remedy=remedy, confidence=confidence))

    def _tell(self, doubt: Doubt | None) -> None:
        """Note a doubt, the latest of each kind."""
        if doubt is not None:
            self.doubts[:] = [*(d for d in self.doubts if d.kind != doubt.kind), doubt]

    def _only_odometry(self) -> str:
        """The one Odometry topic of a bag whose TF places the camera nowhere; '' where there is none, or several."""
        there = [c.topic for c, count in self._files.counts.items() if c.type == POSE_TYPES[0] and count]
        return there[0] if len(there) == 1 else ""

    def _pose_channel(self, topic: str) -> Channel | None:
        """The channel of the pose topic, None when none is asked for. Raises SourceError."""
        there = {c.topic: c for c in self._files.counts if c.type in POSE_TYPES}
        if topic and topic not in there:
            raise SourceError(
                f"{self._files.path} has no poses on {topic}; topics of poses: {', '.join(there) or 'none'}"
            )
        return there.get(topic)

    def _whose_pose(self, tree: TransformTree, camera_frame: str) -> tuple[str, str, str]:
        """The frame whose pose the pose topic tells, the fixed frame that it is told in, and how that was found."""
        if self._poses is None:
            return "", "", ""
        first = next((message for _, message in self._messages([self._poses])), None)
        if first is None:
            raise SourceError(f"{self._files.path}: no message on {self._poses.topic} decodes")
        parent, child = frame_name(first.header.frame_id), frame_name(getattr(first, "child_frame_id", ""))
        whose, words = whose_pose(tree, camera_frame, child, self._settings.pose_frame)
        return whose, parent, words

    def _chosen(self, topics: list[Topic], tf: list[str], other_tf: list[str], pose_words: str) -> Iterator[str]:
        """What is read, a line each for people."""
        by_name = {topic.name: topic for topic in topics}
        span_s = max((self._files.end_ns - self._files.start_ns) / 1e9, 1e-9)
        counts: Counter[str] = Counter()
        for channel, count in self._files.counts.items():
            counts[channel.topic] += count

        def described(name: str) -> str:
            topic = by_name[name]
            size = "" if topic.size is None else f", {topic.size[0]}x{topic.size[1]}"
            return f"{name} ({topic.encoding}{size}, {counts[name] / span_s:.1f} Hz, frame {topic.frame_id})"

        for camera in self.cameras:
            body = ", a body frame" if self._settings.image_frame == BODY else ""
            yield f"color: {described(camera.color)}{body}; CameraInfo: {camera.info or 'none'}{self._late(camera)}"
            if camera.depth is None:
                yield "depth: none"
                continue
            depth = by_name[camera.depth]
            unit = depth_unit_m(DEPTH_ENCODINGS.get(depth.kind, np.dtype(np.uint16)), self._settings)
            same = depth.frame_id == by_name[camera.color].frame_id
            how = (
                "in the color camera's frame"
                if same
                else f"registered by {camera.depth_info or 'no CameraInfo'} and TF"
            )
            yield f"depth: {described(camera.depth)}, {unit:g} m a count, {how}"
        used = {name for c in self.cameras for name in (c.color, c.depth)}
        for topic in topics:
            if topic.type in IMAGE_TYPES and topic.name not in used and (fault := depth_fault(topic)):
                yield f"not depth: {topic.name} ({topic.encoding}): {fault}"
        if self._settings.static:
            yield "poses: none needed, the camera does not move"
        elif self._poses is not None:
            frames = f"of {self._pose_frame} ({pose_words}) in {self._world_frame}"
            frames += "" if self._settings.pose_topic else ", as TF places the camera nowhere"
            yield f"poses: {self._poses.topic} ({self._poses.type}, {counts[self._poses.topic] / span_s:.1f} Hz) {frames}"
        else:
            others = [c.topic for c, count in self._files.counts.items() if c.type in POSE_TYPES and count]
            fixed = self._world_frame or "none found: frames come without pose"
            if others and not self._world_frame:
                fixed += f"; pose_topic could be {' or '.join(others)}"
            yield f"poses: TF of {', '.join(tf) or 'no topic'}; fixed frame: {fixed}"
        if other_tf and not self._settings.static:
            yield f"not read: {', '.join(other_tf)}, of other robots; tf_namespace chooses"

    def _late(self, camera: CameraTopics) -> str:
        """How much later the first CameraInfo is than the first image, in words, where it is plainly."""
        if camera.info is None or camera.info not in self._firsts:
            return ""
        by_ns = self._apart_ns(camera.info, camera.color)
        late = LATE_INFO_NS < by_ns < OTHER_CLOCK_NS
        return f", whose first message comes {by_ns / 1e9:.1f} s later and is taken for the images before" if late else ""

    def _apart_ns(self, topic: str | None, image: str | None) -> int:
        """How much later the first message of a topic is than that of another, by their stamps."""
        first, other = (messages.stamp_ns(self._firsts[t].header.stamp) for t in (topic or "", image or ""))
        return first - other

    def _messages(
        self, channels: Collection[Channel], stop: int | None = None, refused: Counter[str] | None = None
    ) -> Iterator[tuple[Channel, Any]]:
        """Decoded messages in order of recording, until ``stop``; those that do not decode are left out and counted."""
        for channel, _, data in self._files.messages(channels, stop):
            try:
                message = _decoded(channel, data)
            except UNDECODABLE:
                if refused is not None:
                    refused["undecodable_message"] += 1
                continue
            yield channel, message

    def _topics(self) -> list[Topic]:
        """Image and CameraInfo topics that hold at least one message that decodes, with what the first one says."""
        wanted = {c for c, count in self._files.counts.items() if c.type in (*IMAGE_TYPES, INFO_TYPE) and count}
        topics: dict[Channel, Topic] = {}
        for channel, message in self._messages(wanted):
            if channel in topics:
                continue
            encoding = str(getattr(message, "encoding", getattr(message, "format", "")))
            size = (int(message.width), int(message.height)) if hasattr(message, "width") else _size(message)
            self._firsts[channel.topic] = message
            topics[channel] = Topic(channel.topic, channel.type, frame_name(message.header.frame_id), encoding, size)
            if len(topics) == len(wanted):
                break
        return list(topics.values())

    def _transforms(self, static: bool, stop: int | None = None) -> Iterator[tuple[str, str, int, Any]]:
        wanted = [channel for channel in self._tf if is_static_tf(channel.topic) == static]
        for _, message in self._messages(wanted, stop):
            for stamped in message.transforms:
                try:
                    yield messages.transform(stamped)
                except InvalidTransform:
                    continue  # counted when the frames are read

    def _static_transforms(self) -> list[tuple[str, str, int, Any]]:
        """The first static transform of every frame."""
        first: dict[str, tuple[str, str, int, Any]] = {}
        for static in self._transforms(static=True):
            first.setdefault(frame_name(static[1]), static)
        return list(first.values())

    def _first_transforms(self, frame_id: str) -> tuple[TransformTree, str]:
        """The transforms of the first seconds, and the fixed frame that the camera hangs below in them, map before odom;
        '' when there is none.
        """
        tree = TransformTree()
        moving = self._transforms(static=False, stop=self._files.start_ns + LOOK_FOR_ROOT_NS)
        best = ""
        for is_static, transforms in ((True, iter(self._statics)), (False, moving)):
            for parent, child, stamp, T in transforms:
                try:
                    tree.add(parent, child, stamp, T, is_static)
                except (TransformError, InvalidTransform):
                    continue  # counted when the frames are read
                best = min(best, tree.root_of(frame_id) or "", key=_preference)
                if _preference(best) == 0:
                    return tree, best
        return tree, best

    def _handlers(self, assembler: FrameAssembler, watch: TransformWatch) -> dict[tuple[str, str], Handler]:
        """What is done with a message, by topic and type."""
        handlers: dict[tuple[str, str], list[Handler]] = {}

        def on(topic: str | None, types: tuple[str, ...], handle: Handler) -> None:
            for message_type in types if topic is not None else ():
                handlers.setdefault((str(topic), message_type), []).append(handle)

        for camera in self.cameras:
            on(camera.color, IMAGE_TYPES, _color_handler(assembler, camera.color))
            on(camera.depth, IMAGE_TYPES, _depth_handler(assembler, camera.color, self._settings))
            on(camera.info, (INFO_TYPE,), self._info_handler(assembler.add_camera_info, camera.color, camera.color))
            if camera.depth is not None:
                add = assembler.add_depth_info
                on(camera.depth_info, (INFO_TYPE,), self._info_handler(add, camera.depth, camera.color))
        for channel in self._tf:
            on(channel.topic, (TF_TYPE,), self._transform_handler(assembler, watch, is_static_tf(channel.topic)))
        if self._poses is not None:
            on(self._poses.topic, (self._poses.type,), self._pose_handler(assembler))

        def counted(several: list[Handler]) -> Handler:
            def handle(message: Any) -> list[Frame]:
                frames: list[Frame] = []
                for single in several:
                    try:
                        frames += single(message)
                    except (BadImage, InvalidCamera) as error:
                        reason = error.reason if isinstance(error, BadImage) else "bad_camera_info"
                        assembler.refused[reason] += 1
                        assembler.texts[reason] = str(error)
                return frames

            return handle

        return {key: counted(several) for key, several in handlers.items()}

    def _info_handler(self, add: Callable[..., list[Frame]], image_topic: str, camera: str) -> Handler:
        rectified, size = is_rectified(image_topic), self._sizes.get(image_topic)

        def handle(message: Any) -> list[Frame]:
            return add(messages.stamp_ns(message.header.stamp), messages.camera_model(message, rectified, size), camera)

        return handle

    def _transform_handler(self, assembler: FrameAssembler, watch: TransformWatch, static: bool) -> Handler:
        def handle(message: Any) -> list[Frame]:
            frames: list[Frame] = []
            for stamped in message.transforms:
                try:
                    parent, child, stamp, T = messages.transform(stamped)
                except InvalidTransform:
                    assembler.refused["tf_invalid"] += 1
                    continue
                if frame_name(child) == self._pose_frame:
                    continue  # the pose topic tells that
                if frame_name(child) in self._up:
                    watch.add(parent, child, stamp, T, static)
                frames += assembler.add_transform(parent, child, stamp, T, static)
            return frames

        return handle

    def _pose_handler(self, assembler: FrameAssembler) -> Handler:
        def handle(message: Any) -> list[Frame]:
            try:
                parent, _, stamp, T, stddev = messages.pose(message)
            except InvalidTransform:
                assembler.refused["tf_invalid"] += 1
                return []
            return assembler.add_transform(parent, self._pose_frame, stamp, T, stddev=stddev)

        return handle


def _color_handler(assembler: FrameAssembler, camera: str) -> Handler:
    def handle(message: Any) -> list[Frame]:
        stamp, frame = messages.stamp_ns(message.header.stamp), message.header.frame_id
        if hasattr(message, "format"):
            image, size = messages.compressed_color(message)
            return assembler.add_color(stamp, frame, image, size, camera)
        pixels = messages.color_image(message)
        return assembler.add_color(stamp, frame, pixels, (pixels.shape[1], pixels.shape[0]), camera)

    return handle


def _depth_handler(assembler: FrameAssembler, camera: str, settings: InputSettings) -> Handler:
    def handle(message: Any) -> list[Frame]:
        depth = messages.depth_of(message, settings)
        return assembler.add_depth(messages.stamp_ns(message.header.stamp), message.header.frame_id, depth, camera)

    return handle


def _preference(root: str) -> int:
    """Smaller for a frame that is rather the fixed one; the earlier of two equal ones stays."""
    name = root.rsplit("/", maxsplit=1)[-1]
    if name in PREFERRED_ROOTS:
        return PREFERRED_ROOTS.index(name)
    return len(PREFERRED_ROOTS) + (root == "")


def _decoded(channel: Channel, data: bytes) -> Any:
    """A message with the fields of ROS 2. What rosbags raises for damaged ones is in ``UNDECODABLE``."""
    if not channel.ros1:
        return ROS2.deserialize_cdr(data, channel.type)
    message = ROS1.deserialize_ros1(data, channel.type)
    if channel.type == INFO_TYPE:  # K, D, R and P have become small letters
        return SimpleNamespace(**{name.lower(): value for name, value in vars(message).items()})
    return message


def _size(message: Any) -> tuple[int, int] | None:
    """Size of a CompressedImage, px, as far as its bytes say."""
    try:
        if message.format.startswith(tuple(DEPTH_ENCODINGS)):
            height, width = messages.compressed_depth(message).shape
            return width, height
        return image_size(bytes(message.data))
    except BadImage:
        return None


def _sensor(custom: Mapping[str, Any]) -> SensorModel:
    """The sensor model that a bag written here carries, else the default one."""
    text = custom.get(SENSOR_KEY)
    return SensorModel() if text is None else sensor_from_yaml(yaml.safe_load(text), SENSOR_KEY)
