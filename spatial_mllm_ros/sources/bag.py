"""rosbag2 recordings, sqlite3 or MCAP, read without ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from spatial_mllm_ros.scene.assembler import AssemblerSettings, FrameAssembler
from spatial_mllm_ros.scene.camera import InvalidCamera
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.scene.pose import InvalidTransform
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.transform_tree import PREFERRED_ROOTS, TransformError, TransformTree, frame_name
from spatial_mllm_ros.sources import messages
from spatial_mllm_ros.sources.calibration import seconds_to_ns, sensor_from_yaml
from spatial_mllm_ros.sources.compressed import BadImage
from spatial_mllm_ros.sources.source import SourceError, SourceInfo
from spatial_mllm_ros.sources.topics import (
    IMAGE_TYPES,
    INFO_TYPE,
    TF_TYPE,
    CameraTopics,
    Topic,
    choose_cameras,
    is_rectified,
)

BAG_SUFFIXES = (".mcap", ".db3")
SENSOR_KEY = "spatial_mllm_ros.sensor"
LOOK_FOR_ROOT_NS = 10_000_000_000
STAMP_TOLERANCE_NS = 500_000
WHAT_TO_DO = "if the recorder was killed or the copy is incomplete, copy it again or repair it with `ros2 bag reindex`"


WAIT_NS, QUEUE_SIZE = 1_000_000_000, 200
"""Nobody waits for a recording, so that transforms may come later than a live camera would wait for them."""


class BagSource:
    """A rosbag2: a folder with metadata.yaml, or a single .mcap or .db3 file.

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
        self._path = _bag_file(Path(path))
        self._settings = settings = settings or InputSettings()
        self.doubts: list[Doubt] = []
        # The types read here have not changed between ROS 2 releases, so that definitions in the bag are not needed,
        # and one that cannot be parsed, of a type that nobody asked for, is no obstacle.
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self.refused: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        with self._open() as reader:
            topics = self._topics(reader)
            asked = CameraTopics(
                settings.color_topic,
                settings.camera_info_topic or None,
                settings.depth_topic or None,
                settings.depth_camera_info_topic or None,
            )
            self.cameras = choose_cameras(self._path, topics, asked, all_cameras)
            self._tf_topics = {c.topic for c in reader.connections if c.msgtype == TF_TYPE}
            self._statics = self._static_transforms(reader)
            frame_id = next(t.frame_id for t in topics if t.name == self.cameras[0].colour)
            self._world_frame = frame_name(settings.world_frame) or self._find_root(reader, frame_id)
            wanted = {camera.colour for camera in self.cameras}
            count = sum(c.msgcount for c in reader.connections if c.topic in wanted)
            duration_s = reader.duration / 1e9
            custom = getattr(reader.storage.metadata, "custom", None) or {}
        self.info = SourceInfo(
            name=Path(path).resolve().stem,
            frames=count or None,
            duration_s=duration_s,
            world_frame=self._world_frame or "map",
            sensor=_sensor(custom),
            description=f"rosbag2, {count} images on {', '.join(sorted(wanted))}, {duration_s:.1f} s",
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
        """Frames as the FrameAssembler completes them. A bag that breaks off gives what it has, then SourceError."""
        uncalibrated = [camera.colour for camera in self.cameras if camera.info is None]
        colour_only = [camera.colour for camera in self.cameras if camera.depth is None]
        chosen = self._settings
        tree = TransformTree(max_gap_ns=round(chosen.tf_max_gap_s * 1e9) or None)
        patient = AssemblerSettings(
            pair_tolerance_ns=round(chosen.sync_tolerance_s * 1e9), wait_ns=WAIT_NS, queue_size=QUEUE_SIZE
        )
        assembler = FrameAssembler(tree, self._world_frame, patient, colour_only, uncalibrated)
        self.refused, self.remarks = assembler.refused, assembler.remarks
        for static in self._statics:
            assembler.add_transform(*static, static=True)
        handlers = self._handlers(assembler)
        broken: SourceError | None = None
        try:
            with self._open() as reader:
                wanted = [c for c in reader.connections if (c.topic, c.msgtype) in handlers]
                for connection, message in self._messages(reader, wanted, refused=assembler.refused):
                    yield from handlers[connection.topic, connection.msgtype](message)
        except SourceError as error:
            broken = error
        yield from assembler.flush()
        if broken is not None:
            raise broken

    @cached_property
    def _stamps(self) -> list[int]:
        colours = {camera.colour for camera in self.cameras}
        with self._open() as reader:
            wanted = [c for c in reader.connections if c.topic in colours]
            return sorted(messages.stamp_ns(m.header.stamp) for _, m in self._messages(reader, wanted))

    @contextmanager
    def _open(self) -> Iterator[Reader]:
        """The bag, with whatever the libraries raise on damaged files turned into SourceError."""
        try:
            reader = Reader(self._path)
            reader.open()
        except Exception as error:  # parsers of damaged files raise anything
            raise SourceError(f"{self._path} cannot be opened: {_words(error)}; {WHAT_TO_DO}") from error
        try:
            yield reader
        finally:
            reader.close()

    def _messages(
        self,
        reader: Reader,
        connections: list[Connection],
        stop: int | None = None,
        refused: Counter[str] | None = None,
    ) -> Iterator[tuple[Connection, Any]]:
        """Decoded messages in order of recording, until ``stop``; those that do not decode are left out and counted."""
        if not connections:
            return
        raw = reader.messages(connections, stop=stop)
        while True:
            try:
                connection, _, data = next(raw)
            except StopIteration:
                return
            except Exception as error:  # parsers of damaged files raise anything
                raise SourceError(f"{self._path} breaks off: {_words(error)}; {WHAT_TO_DO}") from error
            try:
                message = self._types.deserialize_cdr(data, connection.msgtype)
            except (SerdeError, ValueError, KeyError, IndexError, AssertionError):
                if refused is not None:
                    refused["undecodable_message"] += 1
                continue
            yield connection, message

    def _topics(self, reader: Reader) -> list[Topic]:
        """Image and CameraInfo topics that hold at least one message, with what the first one says."""
        topics = []
        for connection in reader.connections:
            if connection.msgtype in (*IMAGE_TYPES, INFO_TYPE):
                first = next(self._messages(reader, [connection]), None)
                if first is not None:
                    encoding = str(getattr(first[1], "encoding", getattr(first[1], "format", "")))
                    frame = frame_name(first[1].header.frame_id)
                    topics.append(Topic(connection.topic, connection.msgtype, frame, encoding))
        return topics

    def _transforms(self, reader: Reader, static: bool, stop: int | None = None) -> Iterator[tuple[str, str, int, Any]]:
        wanted = [c for c in reader.connections if c.msgtype == TF_TYPE and _is_static(c.topic) == static]
        for _, message in self._messages(reader, wanted, stop):
            for stamped in message.transforms:
                try:
                    yield messages.transform(stamped)
                except InvalidTransform:
                    continue  # counted when the frames are read

    def _static_transforms(self, reader: Reader) -> list[tuple[str, str, int, Any]]:
        """The first static transform of every frame."""
        first: dict[str, tuple[str, str, int, Any]] = {}
        for static in self._transforms(reader, static=True):
            first.setdefault(frame_name(static[1]), static)
        return list(first.values())

    def _find_root(self, reader: Reader, frame_id: str) -> str:
        """The fixed frame that the camera hangs below in the first seconds, map before odom; '' when there is none."""
        tree = TransformTree()
        moving = self._transforms(reader, static=False, stop=reader.start_time + LOOK_FOR_ROOT_NS)
        best = ""
        for is_static, transforms in ((True, iter(self._statics)), (False, moving)):
            for parent, child, stamp, T in transforms:
                try:
                    tree.add(parent, child, stamp, T, is_static)
                except (TransformError, InvalidTransform):
                    continue  # counted when the frames are read
                best = min(best, tree.root_of(frame_id) or "", key=_preference)
                if _preference(best) == 0:
                    return best
        return best

    def _handlers(self, assembler: FrameAssembler) -> dict[tuple[str, str], Callable[[Any], list[Frame]]]:
        """What is done with a message, by topic and type."""
        handlers: dict[tuple[str, str], list[Callable[[Any], list[Frame]]]] = {}

        def on(topic: str | None, types: tuple[str, ...], handle: Callable[[Any], list[Frame]]) -> None:
            for message_type in types if topic is not None else ():
                handlers.setdefault((str(topic), message_type), []).append(handle)

        for camera in self.cameras:
            on(camera.colour, IMAGE_TYPES, _colour_handler(assembler, camera.colour))
            on(camera.depth, IMAGE_TYPES, _depth_handler(assembler, camera.colour))
            on(camera.info, (INFO_TYPE,), _info_handler(assembler.add_camera_info, camera.colour, camera.colour))
            if camera.depth is not None:
                add = assembler.add_depth_info
                on(camera.depth_info, (INFO_TYPE,), _info_handler(add, camera.depth, camera.colour))
        for topic in self._tf_topics:
            on(topic, (TF_TYPE,), _transform_handler(assembler, _is_static(topic)))

        def counted(several: list[Callable[[Any], list[Frame]]]) -> Callable[[Any], list[Frame]]:
            def handle(message: Any) -> list[Frame]:
                frames: list[Frame] = []
                for single in several:
                    try:
                        frames += single(message)
                    except BadImage as error:
                        assembler.refused[error.reason] += 1
                    except InvalidCamera:
                        assembler.refused["bad_camera_info"] += 1
                return frames

            return handle

        return {key: counted(several) for key, several in handlers.items()}


def _colour_handler(assembler: FrameAssembler, camera: str) -> Callable[[Any], list[Frame]]:
    def handle(message: Any) -> list[Frame]:
        stamp, frame = messages.stamp_ns(message.header.stamp), message.header.frame_id
        if hasattr(message, "format"):
            image, size = messages.compressed_colour(message)
            return assembler.add_colour(stamp, frame, image, size, camera)
        return assembler.add_colour(
            stamp, frame, messages.colour_image(message), (message.width, message.height), camera
        )

    return handle


def _depth_handler(assembler: FrameAssembler, camera: str) -> Callable[[Any], list[Frame]]:
    def handle(message: Any) -> list[Frame]:
        depth = messages.compressed_depth(message) if hasattr(message, "format") else messages.depth_image(message)
        return assembler.add_depth(messages.stamp_ns(message.header.stamp), message.header.frame_id, depth, camera)

    return handle


def _info_handler(add: Callable[..., list[Frame]], image_topic: str, camera: str) -> Callable[[Any], list[Frame]]:
    rectified = is_rectified(image_topic)

    def handle(message: Any) -> list[Frame]:
        return add(messages.stamp_ns(message.header.stamp), messages.camera_model(message, rectified), camera)

    return handle


def _transform_handler(assembler: FrameAssembler, static: bool) -> Callable[[Any], list[Frame]]:
    def handle(message: Any) -> list[Frame]:
        frames: list[Frame] = []
        for stamped in message.transforms:
            try:
                frames += assembler.add_transform(*messages.transform(stamped), static=static)
            except InvalidTransform:
                assembler.refused["tf_invalid"] += 1
        return frames

    return handle


def _preference(root: str) -> int:
    """Smaller for a frame that is rather the fixed one; the earlier of two equal ones stays."""
    name = root.rsplit("/", maxsplit=1)[-1]
    if name in PREFERRED_ROOTS:
        return PREFERRED_ROOTS.index(name)
    return len(PREFERRED_ROOTS) + (root == "")


def _is_static(topic: str) -> bool:
    return topic.endswith("tf_static")


def is_bag(path: Path) -> bool:
    """Whether a path looks like a rosbag2."""
    if path.is_dir():
        return (path / "metadata.yaml").exists() or any(p.suffix in BAG_SUFFIXES for p in path.iterdir())
    return path.suffix in BAG_SUFFIXES


def _bag_file(path: Path) -> Path:
    """What to hand to the reader: a folder with metadata.yaml, or the only storage file."""
    if not path.exists():
        raise SourceError(f"{path} does not exist")
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = sorted(p for p in path.iterdir() if p.suffix in BAG_SUFFIXES)
        if len(files) != 1:
            raise SourceError(
                f"{path} holds {len(files)} .mcap or .db3 files, no metadata.yaml: `ros2 bag reindex {path}` makes one"
            )
        return files[0]
    return path


def _sensor(custom: dict[str, str]) -> SensorModel:
    """The sensor model that a bag written here carries, else the default one."""
    text = custom.get(SENSOR_KEY)
    return SensorModel() if text is None else sensor_from_yaml(yaml.safe_load(text), SENSOR_KEY)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
