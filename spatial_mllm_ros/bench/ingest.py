"""``spatial-mllm bench ingest``: RGB-D streams from other processes through the node without ROS.

Every message is accounted for: taken in, dropped and counted by the node, or dropped and counted by the publisher; what
is left over would be lost without a trace.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from spatial_mllm_ros.bench import wire
from spatial_mllm_ros.nodes.inbox import Kind
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.source import SourceInfo

Progress = Callable[[str, int, int | None], None]
WIDTH, HEIGHT, RATE_HZ = 640, 480, 30.0
RENDERED = 30
"""Different frames; they are played over and over with stamps that go on."""
SETTLE_S = 3.0


def run(seconds: float = 20.0, streams: int = 4, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """One stream and ``streams`` streams of 640 x 480 RGB-D at 30 Hz for ``seconds`` each, raw and reliable, and one
    stream's frames straight into an engine in this process, to compare with."""
    with wire.alone():
        one = measure(1, seconds, progress)
        many = measure(streams, seconds, progress)
    inside = in_process(seconds, progress)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "rate_hz": RATE_HZ,
        "seconds": seconds,
        "runs": [one, many],
        "in_process": inside,
        "cpu_of_a_stream_many_to_one": many["node_cpu_of_a_stream"] / one["node_cpu_of_a_stream"],
        "cpu_of_a_frame_wire_to_in_process": one["node_cpu_ms_of_a_frame"] / inside["cpu_ms_of_a_frame"],
        "lost_without_a_trace": one["lost_without_a_trace"] + many["lost_without_a_trace"],
    }


def measure(streams: int, seconds: float, progress: Progress) -> dict[str, Any]:
    """``streams`` publishers, each a process, and the node, another one."""
    label = f"{streams} stream{'s' if streams > 1 else ''}"
    here = ["-m", "spatial_mllm_ros.bench.ingest"]
    cameras = [[*here, "camera", str(i), str(seconds)] for i in range(streams)]
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
        "mb_per_s": frames * WIDTH * HEIGHT * 5 / wall / 1e6,
    }


def in_process(seconds: float, progress: Progress) -> dict[str, Any]:
    """The same messages offered to a LiveEngine without anything in between, as fast as it takes them."""
    from spatial_mllm_ros.dds.interfaces import interfaces
    from spatial_mllm_ros.nodes.convert import RosbagsMaker
    from spatial_mllm_ros.nodes.live import LiveEngine
    from spatial_mllm_ros.nodes.player import FrameMessages

    engine = LiveEngine(_settings(1))
    stream_of = {(s.kind, s.camera or None): s for s in engine.streams}
    camera = next(s.camera for s in engine.streams if s.camera)
    made = FrameMessages(RosbagsMaker(interfaces().message), compressed=False)
    pictures = _pictures(0, progress)
    count = int(seconds * RATE_HZ)
    engine.start()
    cpu, begin = 0.0, time.monotonic()
    stamp = time.time_ns() - 3_600_000_000_000
    try:
        for i in range(count):
            progress("in this process", i, count)
            frame = replace(pictures[i % len(pictures)], stamp_ns=stamp + round(i * 1e9 / RATE_HZ))
            messages = list(made.of(frame))  # the publisher's work
            before = time.process_time()
            for kind, message in messages:
                engine.offer(stream_of[kind, None if kind is Kind.TF else camera], message)
            while any(s.waiting for s in engine.status().streams):
                time.sleep(0.0005)
            cpu += time.process_time() - before
        wall = time.monotonic() - begin
        frames = len(engine.memory) + engine.memory.evicted
    finally:
        engine.stop()
    return {"frames": count, "frames_in_memory": frames, "cpu_ms_of_a_frame": 1e3 * cpu / count, "wall_s": wall}


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


def _pictures(seed: int, progress: Progress = lambda what, done, total: None) -> list[Frame]:
    source = RenderedSource(seed=seed, rooms=1, frames=RENDERED, rate_hz=RATE_HZ, width=WIDTH, height=HEIGHT)
    frames: list[Frame] = []
    for frame in source.frames():
        progress("rendering", len(frames), RENDERED)
        frames.append(replace(frame, camera_frame=f"camera{seed}_optical"))
    return frames


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
    """Rendered frames over and over, with stamps of now that go on; they are ready, as a driver's images are."""

    def __init__(self, number: int, count: int) -> None:
        self.info = SourceInfo(f"camera{number}", frames=count)
        self.refused: Counter[str] = Counter()
        self.doubts: list[Doubt] = []
        self._pictures = _pictures(number)

    def frames(self) -> Iterator[Frame]:
        start = time.time_ns()
        for i in range(self.info.frames or 0):
            yield replace(self._pictures[i % RENDERED], stamp_ns=start + round(i * 1e9 / RATE_HZ))

    def stamp_of(self, name: str) -> int:
        raise KeyError(name)


def _camera(number: int, seconds: float) -> None:
    """A publisher as a process."""
    from spatial_mllm_ros.dds import DdsNode
    from spatial_mllm_ros.nodes.player import Player, PlayerOptions

    with DdsNode(f"camera{number}", ros_args=[]) as node:
        player = Player(node, _Looped(number, int(seconds * RATE_HZ)), PlayerOptions(camera=f"camera{number}"))
        if not player.wait_for_listener(30.0):
            raise SystemExit("nobody listens")
        time.sleep(1.0)  # until all topics have found each other
        print("ready", flush=True)
        sys.stdin.readline()
        late: list[float] = []
        begin = time.monotonic()
        player.play(lambda _: late.append(time.monotonic() - begin - (player.frames - 1) / RATE_HZ))
        player.finish()
        result = {
            "frames": player.frames,
            "messages": player.sent,
            "not_written": player.not_sent,
            "late_s": max(late) - min(late),
        }
        print(json.dumps(result), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    role, number, *rest = sys.argv[1:]
    _node(int(number)) if role == "node" else _camera(int(number), float(rest[0]))
