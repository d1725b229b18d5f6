"""``spatial-mllm bench ingest``: RGB-D streams and TF from other processes through the node without ROS.

A stream is as a robot sends it: a camera that moves through what it sees, so that the scene grows and keyframes change, raw
color and registered depth at 30 Hz with CameraInfo, and TF beside it at 100 Hz or more, between whose stamps the images'
lie.

Every message is accounted for: taken in, dropped and counted by the node, or dropped and counted by the publisher; what
is left over would be lost without a trace.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from spatial_mllm_ros.bench import wire
from spatial_mllm_ros.nodes.inbox import Kind
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, invert
from spatial_mllm_ros.scene.rigid import between, matrix, of_matrix
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.bag_writer import BASE, T_BASE_LINK
from spatial_mllm_ros.sources.source import SourceError, SourceInfo

Progress = Callable[[str, int, int | None], None]
WIDTH, HEIGHT, RATE_HZ = 640, 480, 30.0
PICTURES = 150
"""Different frames, five seconds of a walk; they are played to and fro with stamps that go on."""
SETTLE_S = 3.0
DELAY_NS = 20_000_000
"""Images and transforms are published so long after what they tell, as by a driver."""
BEFORE_S = 0.1
"""TF begins so long before the first image."""


def run(
    seconds: float = 20.0,
    streams: int = 4,
    tf_hz: float = 100.0,
    source: str = "",
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """One stream and ``streams`` streams of RGB-D at 30 Hz for ``seconds`` each, raw and reliable, each with TF at ``tf_hz``,
    and one stream's messages straight into an engine in this process, to compare with.

    source: a recording with depth and poses, whose first frames are played; '': rendered houses, 640 x 480.
    Raises SourceError.
    """
    with wire.alone():
        one = measure(1, seconds, tf_hz, source, progress)
        many = measure(streams, seconds, tf_hz, source, progress)
    inside = in_process(seconds, tf_hz, source, progress)
    return {
        "source": source or "rendered",
        "rate_hz": RATE_HZ,
        "tf_hz": tf_hz,
        "seconds": seconds,
        "runs": [one, many],
        "in_process": inside,
        "cpu_of_a_stream_many_to_one": many["node_cpu_of_a_stream"] / one["node_cpu_of_a_stream"],
        "cpu_of_a_frame_wire_to_in_process": one["node_cpu_ms_of_a_frame"] / inside["cpu_ms_of_a_frame"],
        "lost_without_a_trace": one["lost_without_a_trace"] + many["lost_without_a_trace"],
    }


def measure(streams: int, seconds: float, tf_hz: float, source: str, progress: Progress) -> dict[str, Any]:
    """``streams`` publishers, each a process, and the node, another one."""
    label = f"{streams} stream{'s' if streams > 1 else ''}"
    here = ["-m", "spatial_mllm_ros.bench.ingest"]
    cameras = [[*here, "camera", str(i), str(seconds), str(tf_hz), source] for i in range(streams)]
    with wire.processes([[*here, "node", str(streams)], *cameras]) as (node, *publishers):
        progress(f"{label}: starting", 0, None)
        for process in (node, *publishers):
            assert wire.read_line(process) == "ready"
        cpu, begin = wire.cpu_s(node.pid), time.monotonic()
        publishers_cpu = [wire.cpu_s(p.pid) for p in publishers]
        for process in publishers:
            wire.tell(process, "go")
        while (passed := time.monotonic() - begin) < seconds:
            progress(label, int(passed), int(seconds))
            time.sleep(0.5)
        sent = [json.loads(wire.read_line(p)) for p in publishers]
        publishers_cpu = [wire.cpu_s(p.pid) - before for p, before in zip(publishers, publishers_cpu, strict=True)]
        wall = time.monotonic() - begin
        time.sleep(SETTLE_S)
        cpu = wire.cpu_s(node.pid) - cpu
        wire.tell(node, "tell")
        got = json.loads(wire.read_line(node))
        for process in publishers:
            wire.tell(process, "end")
    published = sum(s["messages"] for s in sent)
    frames = sum(s["frames"] for s in sent)
    return {
        "streams": streams,
        "frames_due": round(streams * seconds * RATE_HZ),
        "frames_published": frames,
        "messages_published": published,
        "messages_not_written": sum(s["not_written"] for s in sent),
        "messages_received": got["received"],
        "messages_dropped_in_queues": got["dropped"],
        "lost_without_a_trace": published - got["received"],
        "frames_in_memory": got["frames"],
        "frames_refused": got["refused"],
        "publishers_late_s": max(s["late_s"] for s in sent),
        "node_cpu_of_a_stream": cpu / wall / streams,
        "node_cpu_ms_of_a_frame": 1e3 * cpu / max(frames, 1),
        "publisher_cpu": sum(publishers_cpu) / wall / streams,
        "mb_per_s": sum(s["bytes"] for s in sent) / wall / 1e6,
    }


def in_process(seconds: float, tf_hz: float, source: str, progress: Progress) -> dict[str, Any]:
    """The same messages offered to a LiveEngine without anything in between, as fast as it takes them."""
    from spatial_mllm_ros.dds.interfaces import interfaces
    from spatial_mllm_ros.nodes.convert import RosbagsMaker
    from spatial_mllm_ros.nodes.live import LiveEngine
    from spatial_mllm_ros.nodes.player import FrameMessages

    engine = LiveEngine(_settings(1))
    stream_of = {(s.kind, s.camera or None): s for s in engine.streams}
    camera = next(s.camera for s in engine.streams if s.camera)
    make = RosbagsMaker(interfaces().message)
    made = FrameMessages(make, compressed=False, prefix="camera0_")
    walk = _Walk(_pictures(0, source, progress))
    count = int(seconds * RATE_HZ)
    start = time.time_ns() - 3_600_000_000_000
    engine.start()
    cpu, begin, sent = 0.0, time.monotonic(), 0
    try:
        for i in range(count):
            progress("in this process", i, count)
            frame = walk.frame(i, start)
            mount = made.mount(frame)
            messages = [(Kind.TF_STATIC, mount)] if mount is not None else []
            messages += [(kind, m) for kind, m in made.of(frame) if kind is not Kind.TF]  # the publisher's work
            while sent / tf_hz - BEFORE_S <= (i + 1) / RATE_HZ:
                messages.append((Kind.TF, walk.tf(sent / tf_hz - BEFORE_S, start, 0, make)))
                sent += 1
            before = time.process_time()
            for kind, message in messages:
                engine.offer(stream_of[kind, None if kind in (Kind.TF, Kind.TF_STATIC) else camera], message)
            while _busy(engine.status()):
                time.sleep(0.0005)
            cpu += time.process_time() - before
        wall = time.monotonic() - begin
        frames = len(engine.memory) + engine.memory.evicted
    finally:
        engine.stop()
    return {"frames": count, "frames_in_memory": frames, "cpu_ms_of_a_frame": 1e3 * cpu / count, "wall_s": wall}


def _busy(status: Any) -> bool:
    return any(s.waiting for s in status.streams) or any(s.waiting for s in status.sinks)


def _settings(streams: int) -> Any:
    from spatial_mllm_ros.nodes.parameters import Settings

    return Settings.from_values(_values(streams))


def _values(streams: int) -> dict[str, Any]:
    names = [f"camera{i}" for i in range(streams)]
    return {
        "color_topic": ",".join(f"{n}/color/image_raw" for n in names),
        "depth_topic": ",".join(f"{n}/aligned_depth_to_color/image_raw" for n in names),
        "fixed_frame": "map",
        "tf_wait_s": 1.0,
        "max_memory_mib": 512,
        "keyframes_rate_hz": 1.0,
        "auto_activate": True,
    }


def _pictures(number: int, source: str, progress: Progress = lambda what, done, total: None) -> list[Frame]:
    """Decoded frames with depth and pose, of a camera of this number."""
    if source:
        frames: Iterator[Frame] = iter(open_source(source).frames())
    else:
        frames = RenderedSource(seed=number, rooms=1, frames=PICTURES, rate_hz=RATE_HZ, width=WIDTH, height=HEIGHT).frames()
    pictures: list[Frame] = []
    for frame in islice((f for f in frames if f.depth is not None and f.T_world_camera is not None), PICTURES):
        progress("reading the images", len(pictures), PICTURES)
        pictures.append(replace(frame, image=frame.rgb(), camera_frame=f"camera{number}_optical"))
    if len(pictures) < 2:
        raise SourceError(f"{source} has fewer than two images with depth and pose")
    return pictures


class _Walk:
    """A camera that goes along its pictures and back, over and over, one picture every 1 / RATE_HZ."""

    def __init__(self, pictures: list[Frame]) -> None:
        self.pictures = pictures
        T_link_camera = T_BASE_LINK @ T_BODY_OPTICAL
        self._base = [of_matrix(p.T_world_camera @ invert(T_link_camera)) for p in pictures if p.T_world_camera is not None]

    def frame(self, number: int, start_ns: int) -> Frame:
        """The image of that number, stamped."""
        return replace(self.pictures[self._at(number)], stamp_ns=start_ns + round(number * 1e9 / RATE_HZ))

    def tf(self, second: float, start_ns: int, camera: int, make: Any) -> Any:
        """Where the robot of a camera is, as a message of /tf."""
        from spatial_mllm_ros.nodes.convert import tf_message

        number, share = divmod(second * RATE_HZ, 1.0)
        here, next_one = self._base[self._at(int(number))], self._base[self._at(int(number) + 1)]
        T = matrix(between(here, next_one, share))
        stamp_ns = start_ns + round(second * 1e9)
        return tf_message([(self.pictures[0].world_frame, f"camera{camera}_{BASE}", stamp_ns, T)], make)

    def _at(self, number: int) -> int:
        last = len(self.pictures) - 1
        number %= 2 * last
        return number if number <= last else 2 * last - number


def _node(streams: int) -> None:
    """The node as a process: says what it has counted when told to."""
    from spatial_mllm_ros.nodes.dds_node import SpatialMllmDdsNode

    with SpatialMllmDdsNode(values=_values(streams)) as node:
        if not node.start():
            raise SystemExit(node.failure)
        print("ready", flush=True)
        sys.stdin.readline()
        assert node.engine is not None
        status = node.engine.status()
        refused = {f"{s.stream.kind.value}: {reason}": n for s in status.streams for reason, n in s.refused.items()}
        counts = {
            "received": sum(s.received for s in status.streams),
            "dropped": sum(s.dropped for s in status.streams),
            "frames": status.frames + status.evicted,
            "refused": {**status.refused, **refused},
        }
        print(json.dumps(counts), flush=True)


class _Looped:
    """The images of a walk with stamps of just now; they are ready, as a driver's images are. Poses are on /tf."""

    def __init__(self, number: int, count: int, walk: _Walk, start_ns: int) -> None:
        self.info = SourceInfo(f"camera{number}", frames=count)
        self.refused: Counter[str] = Counter()
        self.doubts: list[Doubt] = []
        self._walk, self._start_ns = walk, start_ns

    def start_at(self, stamp_ns: int) -> None:
        """Stamp the first image so."""
        self._start_ns = stamp_ns

    def frames(self) -> Iterator[Frame]:
        for i in range(self.info.frames or 0):
            yield self._walk.frame(i, self._start_ns)

    def stamp_of(self, name: str) -> int:
        raise KeyError(name)


def _camera(number: int, seconds: float, tf_hz: float, source: str) -> None:
    """A publisher as a process."""
    from spatial_mllm_ros.dds import DdsNode
    from spatial_mllm_ros.nodes.convert import RosbagsMaker
    from spatial_mllm_ros.nodes.player import Player, PlayerOptions

    walk = _Walk(_pictures(number, source))
    count = int(seconds * RATE_HZ)
    with DdsNode(f"camera{number}", ros_args=[]) as node:
        looped = _Looped(number, count, walk, 0)
        player = Player(node, looped, PlayerOptions(camera=f"camera{number}"))
        make = RosbagsMaker(node.message)
        tf = node.create_publisher("tf2_msgs/msg/TFMessage", "/tf", "tf")
        # Made beforehand, for a robot's transforms cost the machine less than Python does.
        moments = [i / tf_hz - BEFORE_S for i in range(int((seconds + BEFORE_S) * tf_hz) + 2)]
        moves = [node.interfaces.encode(walk.tf(moment, 0, number, make), tf.type_name) for moment in moments]
        if not player.wait_for_listener(30.0):
            raise SystemExit("nobody listens")
        time.sleep(1.0)  # until all topics have found each other
        print("ready", flush=True)
        sys.stdin.readline()
        late: list[float] = []
        begin, start_ns = time.monotonic(), time.time_ns() - DELAY_NS
        looped.start_at(start_ns)
        written = [0, 0]

        def move() -> None:
            for moment, encoded in zip(moments, moves, strict=True):
                time.sleep(max(0.0, begin + moment - time.monotonic()))
                written[tf.publish(_stamped(encoded, start_ns + round(moment * 1e9)))] += 1

        moving = threading.Thread(target=move)
        moving.start()
        player.play(lambda _: late.append(time.monotonic() - begin - (player.frames - 1) / RATE_HZ))
        moving.join()
        player.finish()
        result = {
            "frames": player.frames,
            "messages": player.sent + written[True],
            "not_written": player.not_sent + written[False],
            "late_s": max(late) - min(late),
            "bytes": sum(p.nbytes for p in walk.pictures) * player.frames // len(walk.pictures),
        }
        print(json.dumps(result), flush=True)
        sys.stdin.readline()


def _stamped(encoded: memoryview, stamp_ns: int) -> bytes:
    """A TFMessage of one transform, in CDR, with another stamp: it stands behind CDR's header and the array's length."""
    out = bytearray(encoded)
    struct.pack_into("<iI", out, 8, *divmod(stamp_ns, 1_000_000_000))
    return bytes(out)


if __name__ == "__main__":
    role, number, *rest = sys.argv[1:]
    if role == "node":
        _node(int(number))
    else:
        _camera(int(number), float(rest[0]), float(rest[1]), rest[2])
