"""A recording as a camera publishes it: what is in the messages, and that the engine makes the same frames of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from live_messages import MAKE, over_the_wire
from small_recording import START_NS, Changed, SmallSource

from spatial_mllm_ros.nodes.inbox import Kind
from spatial_mllm_ros.nodes.live import LiveEngine
from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.nodes.player import FrameMessages, Player, PlayerOptions
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import from_quaternion
from spatial_mllm_ros.sources.source import Source, SourceError

T_ZUP = from_quaternion((0.5, -0.5, 0.5, 0.5), (1.0, 2.0, 3.0))


class Publisher:
    """A publisher that keeps what it is given; ``full`` takes nothing, as one whose subscriber is too slow."""

    def __init__(self, topic: str, full: bool) -> None:
        self.topic, self.full = topic, full
        self.messages: list[Any] = []
        self.subscription_count = 1

    def publish(self, message: Any) -> bool:
        self.messages.append(message)
        return not self.full

    def wait_for_acks(self, timeout_s: float) -> bool:
        return True


class Node:
    """As much of a DdsNode as a player needs."""

    def __init__(self, full: str = "-") -> None:
        self.publishers: dict[str, Publisher] = {}
        self._full = full

    def create_publisher(self, type_name: str, topic: str, qos: Any) -> Publisher:
        made = self.publishers[topic] = Publisher(topic, self._full in topic)
        return made

    def message(self, name: str, **fields: Any) -> Any:
        return MAKE.new(name, **fields)

    def __getitem__(self, topic: str) -> list[Any]:
        return self.publishers[topic].messages


def player(source: Source, full: str = "-", **options: Any) -> tuple[Player, Node]:
    node: Any = Node(full)
    return Player(node, source, PlayerOptions(**{"rate": 0.0, **options})), node


def stamps(messages: list[Any]) -> list[int]:
    return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages]


def into_engine(source: Source, compressed: bool = False, T: np.ndarray | None = None) -> LiveEngine:
    """An engine that has taken the recording in from messages as they come over the wire."""
    settings = Settings(
        sensor_model="exact",
        fixed_frame="map",
        color_transport="compressed" if compressed else "raw",
        depth_transport="compressedDepth" if compressed else "raw",
    )
    engine = LiveEngine(settings)
    engine.start()
    stream = {s.kind: s for s in engine.streams}
    made = FrameMessages(MAKE, compressed, T)
    count = 0
    for frame in source.frames():
        static = made.mount(frame)
        if static is not None:
            engine.offer(stream[Kind.TF_STATIC], over_the_wire(static))
        for kind, message in made.of(frame):
            engine.offer(stream[kind], over_the_wire(message))
        count += 1
    until = time.monotonic() + 5.0
    while len(engine.memory) < count:
        assert time.monotonic() < until, engine.status()
        time.sleep(0.01)
    engine.stop()
    return engine


def memory_frames(engine: LiveEngine) -> Iterator[Frame]:
    for frame_id in range(len(engine.memory)):
        stored = engine.memory.get(frame_id)
        assert stored is not None
        yield stored.frame


@pytest.mark.parametrize("compressed", [False, True])
def test_the_engine_has_the_recordings_frames(compressed: bool) -> None:
    """Camera, depth and stamps exactly; poses but for rounding, though they went through quaternions and a mount."""
    source = SmallSource()
    for before, after in zip(source.frames(), memory_frames(into_engine(source, compressed)), strict=True):
        assert after.stamp_ns == before.stamp_ns
        assert (after.camera, after.camera_frame, after.world_frame) == (
            before.camera,
            before.camera_frame,
            before.world_frame,
        )
        assert np.array_equal(np.asarray(after.depth), np.asarray(before.depth))
        assert after.T_world_camera is not None
        assert np.allclose(after.T_world_camera, before.T_world_camera, atol=1e-12)
        if not compressed:
            assert np.array_equal(np.asarray(after.rgb()), np.asarray(before.rgb()))


def test_poses_are_levelled_where_the_recording_knows_up() -> None:
    source = SmallSource(T_zup=T_ZUP)
    first = next(source.frames())
    made, node = player(source)
    made.play()
    assert first.T_world_camera is not None
    got = next(memory_frames(into_engine(source, T=T_ZUP)))
    assert np.allclose(got.T_world_camera, T_ZUP @ first.T_world_camera, atol=1e-12)
    as_recorded, other = player(source, level=False)
    as_recorded.play()
    p, q = (n["/tf"][0].transforms[0].transform.translation for n in (node, other))
    assert (p.x, p.y, p.z) != pytest.approx((q.x, q.y, q.z))


def test_what_is_published() -> None:
    """Topics that the node listens to by default, one message of each for a frame, all with the frame's stamp."""
    made, node = player(SmallSource(3))
    made.play()
    assert made.frames == 3
    assert made.sent == 3 * 5 + 1
    for topic in (
        "camera/color/image_raw",
        "camera/color/camera_info",
        "camera/aligned_depth_to_color/image_raw",
        "camera/aligned_depth_to_color/camera_info",
    ):
        assert stamps(node[topic]) == [START_NS + i * 100_000_000 for i in range(3)], topic
    static = node["/tf_static"][0].transforms
    assert [(t.header.frame_id, t.child_frame_id) for t in static] == [
        ("base_link", "camera_link"),
        ("camera_link", "camera_color_optical_frame"),
    ]
    assert {t.child_frame_id for message in node["/tf"] for t in message.transforms} == {"base_link"}


def test_players_of_two_cameras_do_not_move_one_robot() -> None:
    made, node = player(SmallSource(1), camera="front")
    made.play()
    assert node["/tf"][0].transforms[0].child_frame_id == "front_base_link"
    assert node["front/color/image_raw"]


def test_a_second_camera_of_a_recording_gets_topics_of_its_own() -> None:
    made, node = player(Changed({1: {"camera_frame": "rear_optical"}}, 2))
    made.play()
    assert len(node["camera/color/image_raw"]) == len(node["camera_2/color/image_raw"]) == 1
    assert node["/tf"][1].transforms[0].child_frame_id == "rear_optical"


def test_stamps_of_now_keep_the_recordings_rhythm() -> None:
    made, node = player(SmallSource(3), now=True, rate=10.0)
    before = time.time_ns()
    made.play()
    got = stamps(node["camera/color/image_raw"])
    assert before <= got[0] <= time.time_ns()
    assert np.diff(got).tolist() == [10_000_000, 10_000_000]


def test_stamps_of_now_need_a_pace() -> None:
    with pytest.raises(ValueError, match="need a pace"):
        PlayerOptions(now=True, rate=0.0)


def test_the_clock_goes_on_between_frames() -> None:
    made, node = player(SmallSource(2), clock=True, rate=1.0)
    made.play()
    times = [m.clock.sec * 10**9 + m.clock.nanosec for m in node["/clock"]]
    assert times[0] == START_NS
    assert times[-1] == START_NS + 100_000_000
    assert len(times) > 4
    assert times == sorted(times)


def test_a_loop_starts_over_until_it_is_stopped() -> None:
    made, node = player(SmallSource(2), loop=True)
    made.play(lambda _: made.stop() if made.frames == 5 else None)
    assert made.frames == 5
    assert len(set(stamps(node["camera/color/image_raw"]))) == 2


def test_messages_that_nobody_took_are_counted() -> None:
    made, _ = player(SmallSource(2), full="aligned_depth")
    made.play()
    assert made.not_sent == 4
    assert made.sent == 2 * 3 + 1


def test_a_stamp_that_ros_cannot_hold_is_said() -> None:
    made, _ = player(Changed({0: {"stamp_ns": 2**31 * 10**9}}, 1))
    with pytest.raises(SourceError, match="--now"):
        made.play()


def test_a_recording_without_frames_is_said() -> None:
    made, _ = player(SmallSource(0), loop=True)
    with pytest.raises(SourceError, match="gave no frames"):
        made.play()


def test_what_a_frame_lacks_is_not_published() -> None:
    made = FrameMessages(MAKE, compressed=False)
    bare = replace(next(SmallSource(1).frames()), depth=None, T_world_camera=None, camera=None)
    assert [kind for kind, _ in made.of(bare)] == [Kind.COLOR]
