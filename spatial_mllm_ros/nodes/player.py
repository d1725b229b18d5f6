"""A recording as messages: what a camera and a localiser would publish."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from spatial_mllm_ros.dds import DdsNode, Publisher, QosProfile
from spatial_mllm_ros.dds.library import guid
from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.inbox import Kind
from spatial_mllm_ros.nodes.streams import CAMERA_INFO, COMPRESSED, IMAGE, TF_MESSAGE
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, Transform, invert
from spatial_mllm_ros.sources.bag_writer import BASE, LINK, T_BASE_LINK
from spatial_mllm_ros.sources.compressed import PNG
from spatial_mllm_ros.sources.pacing import paced
from spatial_mllm_ros.sources.source import Source, SourceError, check_metres
from spatial_mllm_ros.sources.writers import depth_in_mm, encode_png, encoded_color

CLOCK = "rosgraph_msgs/msg/Clock"
TICK_S = 0.01
"""/clock is published this often, in seconds of wall time."""
DISCOVERY_S = 0.7
"""Nodes on a network find each other within this time."""
LATEST_STAMP = 2**31 * 10**9
RELIABLE, BEST_EFFORT = QosProfile(depth=0), QosProfile(reliable=False, depth=5)


@dataclass(frozen=True)
class PlayerOptions:
    """How a recording is played.

    compressed: color as JPEG or PNG on <topic>/compressed and depth as PNG on <topic>/compressedDepth, instead of raw.
    level: poses in a frame with z up, where the recording knows one. now: stamps as if recorded now, instead of the
    recording's own. rate: 1 is real time, 0 as fast as possible. loop: again and again. clock: /clock, from the stamps.
    best_effort: images as many cameras' drivers send them. camera: namespace of the camera's topics.
    """

    compressed: bool = False
    level: bool = True
    now: bool = False
    rate: float = 1.0
    loop: bool = False
    clock: bool = False
    best_effort: bool = False
    camera: str = "camera"

    def __post_init__(self) -> None:
        if self.now and self.rate == 0:
            raise ValueError("stamps of now need a pace: give a rate above 0, or play with the recording's own stamps")


class FrameMessages:
    """Frames to messages. The camera is fixed on ``base_link`` by static transforms, and /tf moves that.

    make: of the middleware's messages. T_fixed_world: moves poses to another fixed frame. prefix: of base_link and
    camera_link, so that several players do not move one robot. Raises SourceError for images that do not decode.
    """

    def __init__(
        self, make: convert.Maker, compressed: bool, T_fixed_world: Transform | None = None, prefix: str = ""
    ) -> None:
        self._make = make
        self._base, self._link = prefix + BASE, prefix + LINK
        self._compressed = compressed
        self._T_fixed_world = T_fixed_world
        self._mounted = ""

    def mount(self, frame: Frame) -> Any:
        """The static transforms of the first camera; None for further ones, whose poses are on /tf as they are."""
        base, link, camera = self._base, self._link, frame.camera_frame
        if self._mounted or camera in (base, link, frame.world_frame) or frame.world_frame in (base, link):
            return None
        self._mounted = camera
        static = [(base, link, frame.stamp_ns, T_BASE_LINK), (link, camera, frame.stamp_ns, T_BODY_OPTICAL)]
        return convert.tf_message(static, self._make)

    def of(self, frame: Frame) -> Iterator[tuple[Kind, Any]]:
        """TF, CameraInfo, color and depth of a frame, in this order; what it has of these."""
        head = convert.header(frame.stamp_ns, frame.camera_frame, self._make)
        if frame.T_world_camera is not None:
            yield Kind.TF, self._pose(frame, frame.T_world_camera)
        if frame.camera is not None:
            info = convert.camera_info_message(frame.camera, frame.stamp_ns, frame.camera_frame, self._make)
            yield Kind.CAMERA_INFO, info
            if frame.depth is not None:  # registered, so that it has the same
                yield Kind.DEPTH_CAMERA_INFO, info
        if frame.image is not None:
            yield Kind.COLOR, self._color(frame, head)
        if frame.depth is not None:
            yield Kind.DEPTH, self._depth(frame, head)

    def _pose(self, frame: Frame, T_world_camera: Transform) -> Any:
        T = T_world_camera if self._T_fixed_world is None else self._T_fixed_world @ T_world_camera
        child = frame.camera_frame
        if child == self._mounted:
            child, T = self._base, T @ invert(T_BASE_LINK @ T_BODY_OPTICAL)
        return convert.tf_message([(frame.world_frame, child, frame.stamp_ns, T)], self._make)

    def _color(self, frame: Frame, head: Any) -> Any:
        assert frame.image is not None
        if self._compressed:
            data = encoded_color(frame.image)
            kind = "png" if data.startswith(PNG) else "jpeg"
            return self._compressed_image(head, f"rgb8; {kind} compressed bgr8", data)
        try:
            rgb = frame.rgb()
        except ValueError as error:
            raise SourceError(f"the image at {frame.stamp_ns / 1e9:.3f} s does not decode: {error}") from error
        assert rgb is not None
        return convert.image_message(rgb, "rgb8", head, self._make)

    def _depth(self, frame: Frame, head: Any) -> Any:
        assert frame.depth is not None
        if self._compressed:
            data = struct.pack("<iff", 0, 0.0, 0.0) + encode_png(depth_in_mm(frame.depth))
            return self._compressed_image(head, "16UC1; compressedDepth png", data)
        encoding = "16UC1" if frame.depth.dtype.kind == "u" else "32FC1"
        return convert.image_message(frame.depth, encoding, head, self._make)

    def _compressed_image(self, head: Any, kind: str, data: bytes) -> Any:
        return self._make.new(COMPRESSED, header=head, format=kind, data=self._make.octets(data))


class Player:
    """Plays a recording on a DdsNode.

    frames, sent: frames and messages published. not_sent: messages dropped because a subscription was too slow.
    ``stop`` ends ``play`` from any thread. Raises SourceError for poses that are not in metres, and what
    DdsNode.create_publisher raises.
    """

    def __init__(self, node: DdsNode, source: Source, options: PlayerOptions) -> None:
        check_metres(source)
        self.options = options
        self.source = source
        self.sent = 0
        self.not_sent = 0
        self.frames = 0
        self.stamp_ns = 0
        """Of the frame published last."""
        self._node = node
        self._made = time.monotonic()
        self._make = convert.RosbagsMaker(node.message)
        self._stop = threading.Event()
        self._qos = BEST_EFFORT if options.best_effort else RELIABLE
        self._cameras: dict[str, dict[Kind, Publisher]] = {}  # by their frames
        self._tf = node.create_publisher(TF_MESSAGE, "/tf", "tf")
        self._static = node.create_publisher(TF_MESSAGE, "/tf_static", QosProfile(transient_local=True, depth=1))
        self._clock = node.create_publisher(CLOCK, "/clock", "clock") if options.clock else None
        self._first_camera = self._publishers(options.camera)

    def wait_for_listener(self, timeout_s: float) -> bool:
        """Whether somebody listens to the color images, or begins to within the time."""
        until = time.monotonic() + timeout_s
        color = self._first_camera[Kind.COLOR]
        while not color.subscription_count:
            if time.monotonic() >= until or self._stop.wait(0.02):
                return False
        return True

    def taken(self) -> list[str]:
        """Topics of this player that somebody else publishes, too: a real camera's, or a robot's transforms.

        Waits until discovery has had its time. A publisher that was killed still counts for some seconds.
        """
        self._stop.wait(max(0.0, self._made + DISCOVERY_S - time.monotonic()))
        me = guid(self._node.participant)[:12]
        own = [self._tf, self._static, *(p for camera in self._cameras.values() for p in camera.values())]
        own += [] if self._clock is None else [self._clock]
        topics = {publisher.topic for publisher in (*own, *self._first_camera.values())}
        found = {e.topic for e in self._node.endpoints() if e.is_publisher and e.guid[:12] != me}
        return sorted(topics & found)

    def play(self, on_frame: Callable[[Frame], None] = lambda frame: None) -> None:
        """Publish all frames at their pace; returns when all are out, or after ``stop``. Raises SourceError."""
        T = self.source.info.T_zup_from_world if self.options.level else None
        prefix = "" if self.options.camera == "camera" else self.options.camera.strip("/~").replace("/", "_") + "_"
        made = FrameMessages(self._make, self.options.compressed, T, prefix)
        while not self._stop.is_set():
            before = self.frames
            for frame in paced(self._stamped(), self.options.rate, sleep=self._sleep):
                if self._stop.is_set():
                    return
                self._send(frame, made)
                on_frame(frame)
            if self.frames == before:
                raise SourceError(f"{self.source.info.name} gave no frames; refused: {dict(self.source.refused)}")
            if not self.options.loop:
                return
            self._stop.wait(0.05)

    def finish(self, timeout_s: float = 2.0) -> bool:
        """Wait until reliable subscriptions have everything; whether they do."""
        until = time.monotonic() + timeout_s
        publishers = [self._tf, *(p for camera in self._cameras.values() for p in camera.values())]
        acknowledged = [p.wait_for_acks(max(0.01, until - time.monotonic())) for p in publishers]
        return all(acknowledged)

    def stop(self) -> None:
        """End ``play`` soon."""
        self._stop.set()

    def _stamped(self) -> Iterator[Frame]:
        """The recording's frames with the stamps that they are published with."""
        first: int | None = None
        shift, rate = 0, self.options.rate
        for frame in self.source.frames():
            stamp = frame.stamp_ns
            if self.options.now:
                if first is None:
                    first, shift = stamp, time.time_ns()
                stamp = shift + round((stamp - first) / rate)
            stamp = stamp or 1  # to ROS, a stamp of 0 is none
            if not 0 <= stamp < LATEST_STAMP:
                raise SourceError(f"ROS 2 cannot hold the stamp {stamp / 1e9:.3f} s: play with stamps of now (--now)")
            yield frame if stamp == frame.stamp_ns else replace(frame, stamp_ns=stamp)

    def _send(self, frame: Frame, made: FrameMessages) -> None:
        self._tell_time(frame.stamp_ns)
        static = made.mount(frame)
        if static is not None:
            self._publish(self._static, static)
        camera = self._camera(frame.camera_frame)
        for kind, message in made.of(frame):
            self._publish(self._tf if kind is Kind.TF else camera[kind], message)
        self.frames += 1
        self.stamp_ns = frame.stamp_ns

    def _publish(self, publisher: Publisher, message: Any) -> None:
        if publisher.publish(message):
            self.sent += 1
        else:
            self.not_sent += 1

    def _camera(self, frame_id: str) -> dict[Kind, Publisher]:
        if frame_id not in self._cameras:
            number = len(self._cameras) + 1
            made = self._first_camera if number == 1 else self._publishers(f"{self.options.camera}_{number}")
            self._cameras[frame_id] = made
        return self._cameras[frame_id]

    def _publishers(self, camera: str) -> dict[Kind, Publisher]:
        color, depth = f"{camera}/color", f"{camera}/aligned_depth_to_color"
        kind, *suffixes = (
            (COMPRESSED, "/compressed", "/compressedDepth") if self.options.compressed else (IMAGE, "", "")
        )
        topics = {
            Kind.COLOR: (kind, f"{color}/image_raw{suffixes[0]}"),
            Kind.CAMERA_INFO: (CAMERA_INFO, f"{color}/camera_info"),
            Kind.DEPTH: (kind, f"{depth}/image_raw{suffixes[1]}"),
            Kind.DEPTH_CAMERA_INFO: (CAMERA_INFO, f"{depth}/camera_info"),
        }
        return {k: self._node.create_publisher(*type_and_topic, self._qos) for k, type_and_topic in topics.items()}

    def _sleep(self, seconds: float) -> None:
        """Until the next frame is due, or ``stop``; meanwhile /clock goes on."""
        begin, stamp_ns = time.monotonic(), self.stamp_ns
        until = begin + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stop.wait(min(left, TICK_S) if self._clock else left):
                return
            if self._clock and until - time.monotonic() > TICK_S:
                self._tell_time(stamp_ns + int((time.monotonic() - begin) * self.options.rate * 1e9))

    def _tell_time(self, stamp_ns: int) -> None:
        if self._clock is not None:
            message = self._node.message(CLOCK)
            message.clock.sec, message.clock.nanosec = divmod(stamp_ns, 10**9)
            self._clock.publish(message)
