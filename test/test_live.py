"""The live engine: what streams in, beside the questions, without middleware. And its parts: queues and query pool."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_messages import MAKE, over_the_wire
from small_recording import START_NS, SmallSource

from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.dds.interfaces import interfaces
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.nodes import convert, intake, live
from spatial_mllm_ros.nodes.diagnosis import REMEDIES, Finding, Level, findings
from spatial_mllm_ros.nodes.goals import Feedback
from spatial_mllm_ros.nodes.inbox import Inbox, Kind, Stream
from spatial_mllm_ros.nodes.keyframes import KeyframeSet
from spatial_mllm_ros.nodes.live import LiveEngine
from spatial_mllm_ros.nodes.model import ConfigurationError
from spatial_mllm_ros.nodes.parameters import ParameterError, Settings
from spatial_mllm_ros.nodes.queries import QueryPool
from spatial_mllm_ros.nodes.streams import IMAGE
from spatial_mllm_ros.queries.answer import Answer, ImageBox, ImagePoint, Request
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import from_quaternion, to_quaternion
from spatial_mllm_ros.sources.topics import POSE_TYPES

SECOND = 1_000_000_000
BASIC = Settings(sensor_model="exact", keyframes_rate_hz=100.0)
DEPTH = Request("What is the depth at <p0>?", points=(ImagePoint(START_NS, "", 16.0, 12.0),))
TRAVELLED = Request("How far did the camera travel?")


@pytest.fixture
def engines() -> Iterator[Callable[..., LiveEngine]]:
    """Makes engines that run, and stops them in the end."""
    made: list[LiveEngine] = []

    def make(settings: Settings = BASIC, **options: Any) -> LiveEngine:
        made.append(LiveEngine(settings, **options))
        made[-1].start()
        return made[-1]

    yield make
    for engine in made:
        engine.stop()


def wait_for(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def stream(engine: LiveEngine, kind: Kind) -> Stream:
    return next(s for s in engine.streams if s.kind is kind)


def play(engine: LiveEngine, frames: list[Frame], without: tuple[Kind, ...] = ()) -> None:
    """Frames as a camera and a localiser publish them."""
    for frame in frames:
        for kind, message in convert.camera_messages(frame, MAKE):
            if kind not in without:
                engine.offer(stream(engine, kind), over_the_wire(message))


def small(count: int = 6, start_ns: int = START_NS) -> list[Frame]:
    return list(SmallSource(count, start_ns).frames())


def finding(engine: LiveEngine, name: str) -> Finding:
    return next(f for f in findings(engine.status()) if f.name == name)


def plain(answer: Answer) -> Any:
    """The answer without times, and without the last digits that a quaternion costs."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 9)
        if isinstance(value, list):
            return [rounded(v) for v in value]
        return {k: rounded(v) for k, v in value.items()} if isinstance(value, dict) else value

    return rounded({k: v for k, v in answer.to_json().items() if not k.startswith("time_")})


# ---- taking in and answering


def test_answers_are_those_of_a_recording(engines: Callable[..., LiveEngine]) -> None:
    """The same frames give the same answers, wherever they come from."""
    engine, frames = engines(), small()
    play(engine, frames)
    wait_for(lambda: len(engine.memory) == len(frames))
    memory = SpatialMemory(engine.memory.config)
    for frame in frames:
        memory.add(frame)
    offline = SpatialQueryEngine(memory, SmallSource().info.sensor)
    for request in (DEPTH, TRAVELLED, replace(DEPTH, frame_id=frames[0].camera_frame), Request("why?")):
        assert plain(engine.ask(request).result(5)) == plain(offline.answer(request))


def test_compressed_color(engines: Callable[..., LiveEngine], tmp_path: Path) -> None:
    from spatial_mllm_ros.session.open_source import open_source
    from spatial_mllm_ros.sources.writers import write_folder

    write_folder(SmallSource(3), tmp_path / "r", png=True)
    engine = engines(replace(BASIC, color_transport="compressed"))
    assert stream(engine, Kind.COLOR).topic.endswith("/compressed")
    play(engine, list(open_source(str(tmp_path / "r")).frames()))
    wait_for(lambda: len(engine.memory) == 3)
    first = engine.memory.frames()[0].frame
    assert (first.rgb() == small(1)[0].image).all()


def test_several_cameras(engines: Callable[..., LiveEngine]) -> None:
    """Two cameras are two tracks in one memory, and what is missing of one does not hold up the other."""
    settings = replace(BASIC, color_topic="/front/image,/rear/image", depth_topic="/front/depth,")
    engine = engines(settings)
    streams = {(s.kind, s.camera): s for s in engine.streams}
    for front in small(4):
        rear = replace(front, camera_frame="rear_optical_frame", depth=None)
        for camera, frame in (("/front/image", front), ("/rear/image", rear)):
            for kind, message in convert.camera_messages(frame, MAKE):
                engine.offer(streams.get((kind, camera)) or streams[kind, ""], over_the_wire(message))
    wait_for(lambda: len(engine.memory) == 8)
    assert engine.memory.cameras() == ("camera_color_optical_frame", "rear_optical_frame")


def test_serialised_messages_are_decoded_on_the_ingest_thread(
    engines: Callable[..., LiveEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    registry = interfaces()

    class Watched:
        def decode(self, payload: bytes, type_name: str) -> Any:
            threads.add(threading.current_thread().name)
            return registry.decode(payload, type_name)

    monkeypatch.setattr(intake, "interfaces", Watched)
    engine = engines()
    for kind, message in convert.camera_messages(small(1)[0], MAKE):
        to = stream(engine, kind)
        engine.offer(to, bytes(registry.encode(message, to.message_type)))
    wait_for(lambda: len(engine.memory) == 1)
    assert threads == {"ingest"}


def test_transforms_may_come_after_the_image(engines: Callable[..., LiveEngine]) -> None:
    """A localiser takes its time: the image waits for the transform at its stamp."""
    engine, frames = engines(), small(2)
    play(engine, frames, without=(Kind.TF,))
    time.sleep(0.05)
    assert len(engine.memory) == 0
    play(engine, frames, without=(Kind.COLOR, Kind.DEPTH))
    wait_for(lambda: len(engine.memory) == 2)


def test_an_image_without_its_transform_is_never_placed(engines: Callable[..., LiveEngine]) -> None:
    engine = engines(replace(BASIC, tf_wait_s=0.05, fixed_frame="map"))
    play(engine, small(6), without=(Kind.TF,))
    wait_for(lambda: engine.memory.refused["no_pose"] >= 4)
    assert len(engine.memory) == 0
    told = finding(engine, "memory")
    assert told.level is Level.ERROR
    assert "tf_unknown_frame" in told.message
    assert "localiser" in told.message
    travelled = engine.ask(Request("How far did the camera travel?")).result(5)
    assert "no_pose" in travelled.error_msg
    assert "set static" in travelled.error_msg


def test_a_camera_that_dies_leaves_its_last_image(engines: Callable[..., LiveEngine], monkeypatch: Any) -> None:
    """Its depth never came, nor will it: after a while the image is taken as it is."""
    monkeypatch.setattr(live, "IDLE_S", 0.05)
    engine = engines()
    play(engine, small(1), without=(Kind.DEPTH,))
    wait_for(lambda: len(engine.memory) == 1)
    wait_for(lambda: engine.memory.without_depth == 1)


def test_frames_can_be_throttled(engines: Callable[..., LiveEngine]) -> None:
    engine = engines(replace(BASIC, max_frame_rate_hz=5.0))
    play(engine, small(10))  # at 10 Hz
    wait_for(lambda: len(engine.memory) + engine.status().throttled == 10)
    assert len(engine.memory) == 5
    engine.update(replace(engine.settings, max_frame_rate_hz=0.0))
    play(engine, small(5, START_NS + 2 * SECOND))
    wait_for(lambda: len(engine.memory) == 10)


# ---- bad input


def broken(kind: Kind, **changes: Any) -> Any:
    message = dict(convert.camera_messages(small(1)[0], MAKE))[kind]
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("kind", "message", "reason"),
    [
        (Kind.COLOR, lambda: broken(Kind.COLOR, encoding="h264"), "unknown_encoding"),
        (Kind.COLOR, lambda: broken(Kind.COLOR, encoding=""), "unknown_encoding"),
        (Kind.COLOR, lambda: broken(Kind.COLOR, step=7), "row_step"),
        (Kind.COLOR, lambda: broken(Kind.COLOR, data=np.zeros(5, np.uint8)), "data_size"),
        (Kind.COLOR, lambda: broken(Kind.COLOR, width=0), "data_size"),
        (Kind.DEPTH, lambda: broken(Kind.DEPTH, encoding="rgb8"), "unknown_encoding"),
        (Kind.CAMERA_INFO, lambda: broken(Kind.CAMERA_INFO, k=np.zeros(9)), "bad_camera_info"),
        (Kind.CAMERA_INFO, lambda: broken(Kind.CAMERA_INFO, distortion_model="fisheye62"), "bad_camera_info"),
        (Kind.TF, lambda: broken(Kind.TF, transforms=3), "internal_error"),
        (Kind.COLOR, lambda: None, "internal_error"),
    ],
)
def test_bad_messages_are_counted_and_explained(
    engines: Callable[..., LiveEngine], kind: Kind, message: Callable[[], Any], reason: str
) -> None:
    """Whatever a publisher sends, the node keeps serving, and /diagnostics says which topic is at fault and why."""
    engine = engines()
    for _ in range(3):
        engine.offer(stream(engine, kind), message())
    play(engine, small())
    wait_for(lambda: len(engine.memory) == 6)
    assert engine.refused == {(stream(engine, kind), reason): 3}
    told = finding(engine, f"input: {kind.value}")
    assert told.level is Level.ERROR
    assert f"3 refused ({reason})" in told.message
    assert engine.ask(DEPTH).result(5).error_code is ErrorCode.NONE


def test_bytes_that_do_not_decode_are_counted(engines: Callable[..., LiveEngine]) -> None:
    engine = engines()
    whole = bytes(interfaces().encode(dict(convert.camera_messages(small(1)[0], MAKE))[Kind.COLOR], IMAGE))
    for damaged in (b"", b"\x00", whole[:60], whole[:-5]):
        engine.offer(stream(engine, Kind.COLOR), damaged)
    wait_for(lambda: engine.refused[stream(engine, Kind.COLOR), "undecodable_message"] == 4)
    assert "bytes that are no sensor_msgs/msg/Image" in finding(engine, "input: color").message


def test_impossible_transforms_are_counted(engines: Callable[..., LiveEngine]) -> None:
    """Two publishers that contradict each other must not hang the tree, nor move what was seen."""
    engine, T = engines(), from_quaternion((0, 0, 0, 1), (1, 0, 0))
    loop = convert.tf_message([("a", "b", 1, T), ("b", "c", 1, T), ("c", "a", 1, T), ("d", "d", 1, T)], MAKE)
    engine.offer(stream(engine, Kind.TF), over_the_wire(loop))
    skewed = convert.tf_message([("a", "e", 1, T)], MAKE)
    skewed.transforms[0].transform.rotation.w = 0.0
    engine.offer(stream(engine, Kind.TF), skewed)
    play(engine, small(2))
    wait_for(lambda: len(engine.memory) == 2)
    assert engine.status().refused["tf_loop"] == 2
    assert engine.refused[stream(engine, Kind.TF), "tf_invalid"] == 1
    assert "tf_loop" in finding(engine, "memory").message


def test_stamps_ahead_of_the_clock_are_refused_with_the_remedy(engines: Callable[..., LiveEngine]) -> None:
    """The usual mistake with recordings of a simulation."""
    engine = engines(clock=lambda: START_NS - 3600 * SECOND)
    play(engine, small(3))
    wait_for(lambda: engine.memory.refused["stamp_from_the_future"] == 3)
    assert "use_sim_time" in finding(engine, "memory").message


# ---- clocks


def test_a_recording_that_starts_over_is_seen_anew(engines: Callable[..., LiveEngine]) -> None:
    """Its frames would repeat the stamps of those in memory. Ids go on, for they are unique while the node lives."""
    engine, frames = engines(replace(BASIC, clock_reset_s=0.5)), small(20)  # 2 s
    play(engine, frames)
    wait_for(lambda: len(engine.memory) == 20)
    play(engine, frames[:3])
    wait_for(lambda: engine.resets == 1 and len(engine.memory) == 3)
    assert [s.frame_id for s in engine.memory.frames()] == [20, 21, 22]
    assert engine.ask(DEPTH).result(5).evidence[0].keyframe_id == 20


def test_the_memory_can_be_kept(engines: Callable[..., LiveEngine]) -> None:
    engine, frames = engines(replace(BASIC, clock_reset_s=0.5, on_clock_reset="keep")), small(20)
    play(engine, frames)
    wait_for(lambda: len(engine.memory) == 20)
    play(engine, frames[:3])
    wait_for(lambda: engine.memory.refused["stamp_repeated"] == 3)
    assert (len(engine.memory), engine.resets) == (20, 0)


def test_a_clock_set_back_forgets_what_is_later(engines: Callable[..., LiveEngine]) -> None:
    """As when a simulation is reset; the mounting of the camera and its calibration outlive it."""
    engine, frames = engines(), small(4)
    T = from_quaternion((0, 0, 0, 1), (0, 0, 1))
    engine.offer(stream(engine, Kind.TF_STATIC), convert.tf_message([("camera", "lens", 0, T)], MAKE))
    play(engine, frames)
    wait_for(lambda: len(engine.memory) == 4)
    engine.clock_set_back(frames[-1].stamp_ns)  # nothing is later: no reason to forget
    assert engine.resets == 0
    engine.clock_set_back(START_NS - 10 * SECOND)
    assert (engine.resets, len(engine.memory)) == (0, 4), "a single wrong /clock forgets nothing"
    play(engine, small(2, START_NS - 9 * SECOND), without=(Kind.CAMERA_INFO,))
    wait_for(lambda: len(engine.memory) == 2)
    assert engine.resets == 1
    assert "lens" in engine._seen.intake.tree.frames()


def test_a_clock_set_back_by_little_is_believed_with_the_first_image(engines: Callable[..., LiveEngine]) -> None:
    """A simulation that is reset after three seconds; its former transforms must not mix with the new ones."""
    engine = engines(replace(BASIC, max_future_s=0.1))
    play(engine, small(30))
    wait_for(lambda: len(engine.memory) == 30)
    engine.clock_set_back(START_NS)
    anew = [replace(f, T_world_camera=np.eye(4)) for f in small(2)]
    play(engine, anew)
    wait_for(lambda: engine.resets == 1 and len(engine.memory) == 2)
    assert all((s.frame.T_world_camera == np.eye(4)).all() for s in engine.memory.frames())


@pytest.mark.parametrize("stamp_ns", [0, -5 * SECOND, 7 * SECOND, START_NS + 10_000 * SECOND])
@pytest.mark.parametrize("of_all_topics", [True, False])
def test_a_wrong_stamp_is_refused_and_forgets_nothing(
    engines: Callable[..., LiveEngine], stamp_ns: int, of_all_topics: bool
) -> None:
    """A driver's slip: one image among good ones, with its depth and CameraInfo or without."""
    engine, frames = engines(), small(20)
    wrong = replace(frames[10], stamp_ns=stamp_ns)
    without = (Kind.TF, Kind.CAMERA_INFO, Kind.DEPTH, Kind.DEPTH_CAMERA_INFO)
    play(engine, frames[:10])
    play(engine, [wrong], () if of_all_topics else without)
    play(engine, frames[11:])
    wait_for(lambda: len(engine.memory) == 19)
    assert engine.resets == 0
    assert engine.refused[stream(engine, Kind.COLOR), "stamp_zero" if stamp_ns <= 0 else "stamp_outlier"] == 1
    told = finding(engine, "input: color")
    assert told.level is Level.ERROR
    assert f"{stamp_ns / 1e9:.3f} s" in told.message


def test_two_wrong_stamps_in_a_row_are_still_slips(engines: Callable[..., LiveEngine]) -> None:
    engine, frames = engines(), small(20)
    play(engine, frames[:10])
    play(engine, [replace(f, stamp_ns=f.stamp_ns - 1000 * SECOND) for f in frames[10:12]])
    play(engine, frames[12:])
    wait_for(lambda: len(engine.memory) == 18)
    assert engine.resets == 0


def test_a_recording_that_starts_over_loses_no_image(engines: Callable[..., LiveEngine]) -> None:
    """What is held back until the new time is believed is taken in then, with its transforms."""
    engine, frames = engines(), small(20)
    play(engine, [replace(f, stamp_ns=f.stamp_ns + 1000 * SECOND) for f in frames])
    wait_for(lambda: len(engine.memory) == 20)
    play(engine, frames)
    wait_for(lambda: engine.resets == 1 and len(engine.memory) == 20)
    assert engine.memory.frames()[0].frame.stamp_ns == START_NS


def test_a_camera_that_pauses_goes_on(engines: Callable[..., LiveEngine]) -> None:
    """A jump ahead of as much time as has passed is none, and one of more is believed after three images."""
    clock = [0.0]
    engine, frames = engines(monotonic=lambda: clock[0]), small(8)
    play(engine, frames[:2])
    wait_for(lambda: len(engine.memory) == 2)
    clock[0] = 60.0
    play(engine, [replace(f, stamp_ns=f.stamp_ns + 60 * SECOND) for f in frames[2:4]])
    wait_for(lambda: len(engine.memory) == 4)
    play(engine, [replace(f, stamp_ns=f.stamp_ns + 1000 * SECOND) for f in frames[4:7]])
    wait_for(lambda: len(engine.memory) == 7)
    assert engine.resets == 0


@pytest.mark.parametrize("offset_ns", [-START_NS, -START_NS + 5 * SECOND, 9 * SECOND])
def test_a_camera_info_on_another_clock_is_used(engines: Callable[..., LiveEngine], offset_ns: int) -> None:
    """A calibration has no moment; it is told that the driver's clock is another one."""
    engine, frames = engines(), small(6)
    for frame in frames:
        play(engine, [frame], without=(Kind.CAMERA_INFO, Kind.DEPTH_CAMERA_INFO))
        play(engine, [replace(frame, stamp_ns=frame.stamp_ns + offset_ns)], (Kind.TF, Kind.COLOR, Kind.DEPTH))
    wait_for(lambda: len(engine.memory) == 6)
    assert engine.resets == 0
    assert engine.status().remarks["info_clock"] >= 5


def test_depth_on_another_clock_wipes_nothing(engines: Callable[..., LiveEngine]) -> None:
    engine, frames = engines(), small(12)
    play(engine, frames[:1])
    for frame in frames[1:]:
        play(engine, [frame], without=(Kind.DEPTH,))
        play(engine, [replace(frame, stamp_ns=frame.stamp_ns - 1000 * SECOND)], (Kind.TF, Kind.COLOR))
    wait_for(lambda: engine.refused[stream(engine, Kind.DEPTH), "stamp_outlier"] >= 10)
    assert engine.resets == 0
    assert "1000.000 s before" in finding(engine, "input: depth").message


# ---- which image, which moment, how old


def depth_at(stamp_ns: int, camera_frame: str = "") -> Request:
    return replace(DEPTH, points=(ImagePoint(stamp_ns, camera_frame, 16.0, 12.0),))


def test_a_zero_stamp_means_the_latest_image(engines: Callable[..., LiveEngine]) -> None:
    """As in ROS. The evidence says which image that was."""
    engine, frames = engines(), small()
    play(engine, frames)
    wait_for(lambda: len(engine.memory) == len(frames))
    answers = [engine.ask(depth_at(stamp)).result(5) for stamp in (0, frames[-1].stamp_ns)]
    assert plain(answers[0]) == plain(answers[1])
    assert answers[0].evidence[0].stamp_ns == frames[-1].stamp_ns
    box = Request("How tall is the object in <box0>?", boxes=(ImageBox(0, "", 2, 2, 30, 20),))
    of_a_box = [
        engine.ask(replace(box, boxes=(replace(box.boxes[0], stamp_ns=s),))).result(5) for s in (0, frames[-1].stamp_ns)
    ]
    assert plain(of_a_box[0]) == plain(of_a_box[1])
    where = Request("Where was the camera at <t0>?", times=(0,))
    assert engine.ask(where).result(5).pose.stamp_ns == frames[-1].stamp_ns
    windowed = replace(depth_at(0), window_end=frames[2].stamp_ns)
    assert engine.ask(windowed).result(5).evidence[0].stamp_ns == frames[2].stamp_ns


def test_a_question_waits_for_an_image_that_is_on_its_way(engines: Callable[..., LiveEngine]) -> None:
    """Questions overtake images on a busy machine; meanwhile others are answered, and it keeps no worker."""
    engine, frames = engines(replace(BASIC, query_workers=1)), small()
    play(engine, frames[:4])
    wait_for(lambda: len(engine.memory) == 4)
    early = engine.ask(depth_at(frames[5].stamp_ns))
    moment = engine.ask(Request("Where was the camera at <t0>?", times=(frames[4].stamp_ns,)))
    assert engine.ask(depth_at(frames[0].stamp_ns)).result(5).error_code is ErrorCode.NONE
    assert not early.done()
    assert not moment.done()
    play(engine, frames[4:])
    assert early.result(5).evidence[0].stamp_ns == frames[5].stamp_ns
    assert moment.result(5).pose.stamp_ns == frames[4].stamp_ns


def test_what_will_not_come_is_not_waited_for(engines: Callable[..., LiveEngine]) -> None:
    engine, frames = engines(), small(8)
    begin = time.monotonic()
    assert engine.ask(depth_at(START_NS)).result(5).error_code is ErrorCode.NO_FRAMES
    play(engine, frames)
    wait_for(lambda: len(engine.memory) == 8)
    for stamp in (frames[-1].stamp_ns + 3600 * SECOND, frames[3].stamp_ns + 50_000_000, START_NS - SECOND):
        assert engine.ask(depth_at(stamp)).result(5).error_code is ErrorCode.INVALID_REQUEST
    assert time.monotonic() - begin < 2.0


def test_waiting_ends_within_the_time_limit(engines: Callable[..., LiveEngine]) -> None:
    engine, frames = engines(), small(4)
    play(engine, frames)
    wait_for(lambda: len(engine.memory) == 4)
    answer = engine.ask(replace(depth_at(frames[-1].stamp_ns + SECOND // 2), timeout=SECOND // 2)).result(1.5)
    assert answer.error_code is ErrorCode.INVALID_REQUEST, "the answer is that of the memory, not a TIMEOUT"


@pytest.mark.parametrize(
    "text", ["Where is the camera now?", "How high is the camera?", "How far is <p0> from the camera now?"]
)
def test_now_is_never_answered_with_an_old_pose(engines: Callable[..., LiveEngine], text: str) -> None:
    clock = [0.0]
    engine, frames = engines(replace(BASIC, level="fixed_frame"), monotonic=lambda: clock[0]), small()
    play(engine, frames)
    wait_for(lambda: len(engine.memory) == len(frames))
    request = replace(depth_at(START_NS), question=text) if "<p0>" in text else Request(text)
    assert engine.ask(request).result(5).error_code is ErrorCode.NONE
    clock[0] = 17.0
    answer = engine.ask(request).result(5)
    assert answer.error_code is ErrorCode.NO_FRAMES
    assert "17.0 s old" in answer.error_msg
    travelled = engine.ask(TRAVELLED).result(5)
    assert travelled.error_code is ErrorCode.NONE, "that is about all that was seen"
    assert "up to the last pose, which is 17.0 s old" in travelled.answer
    engine.update(replace(engine.settings, max_pose_age_s=20.0))
    assert engine.ask(request).result(5).error_code is ErrorCode.NONE


def test_images_without_poses_make_now_old(engines: Callable[..., LiveEngine]) -> None:
    """The localiser is gone, the camera goes on: where it is, is not known."""
    engine, frames = engines(replace(BASIC, image_queue=100), monotonic=lambda: 0.0), small(70)
    play(engine, frames[:4])
    play(engine, frames[4:], without=(Kind.TF,))
    wait_for(lambda: engine.memory.refused["no_pose"] > 62)
    answer = engine.ask(Request("Where is the camera now?")).result(5)
    assert answer.error_code is ErrorCode.NO_FRAMES
    assert "6.6 s old" in answer.error_msg


def test_a_map_that_comes_after_odom_refuses_nothing(engines: Callable[..., LiveEngine]) -> None:
    """The normal start of SLAM: the memory stays in the frame in which it began, and says so."""
    engine = engines()
    frames = [replace(f, world_frame="odom") for f in small(8)]
    play(engine, frames[:4])
    wait_for(lambda: len(engine.memory) == 4)
    for frame in frames[4:]:
        link = convert.tf_message([("map", "odom", frame.stamp_ns, from_quaternion((0, 0, 0, 1), (5, 0, 0)))], MAKE)
        engine.offer(stream(engine, Kind.TF), over_the_wire(link))
        play(engine, [frame])
    wait_for(lambda: len(engine.memory) == 8)
    assert not engine.memory.refused
    told = finding(engine, "memory")
    assert told.level is Level.WARN
    assert "fixed_frame" in told.message
    assert "map" in told.message
    where = engine.ask(Request("Where is the camera now?", frame_id="map")).result(5)
    assert where.pose.position[0] == pytest.approx(frames[-1].T_world_camera[0, 3] + 5)


# ---- poses from elsewhere than TF


def pose_message(type_name: str, frame: Frame, child: str = "", variance: float = 0.0) -> Any:
    """A pose of a type in POSE_TYPES."""
    T = frame.T_world_camera
    assert T is not None
    (x, y, z), (qx, qy, qz, qw) = T[:3, 3].tolist(), to_quaternion(T).tolist()
    pose = MAKE.new(
        "geometry_msgs/msg/Pose",
        position=MAKE.new("geometry_msgs/msg/Point", x=x, y=y, z=z),
        orientation=MAKE.new("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
    )
    head = convert.header(frame.stamp_ns, "odom", MAKE)
    if type_name.endswith("/PoseStamped"):
        return MAKE.new(type_name, header=head, pose=pose)
    covariance = MAKE.doubles(np.diag([variance] * 6).ravel().tolist())
    known = MAKE.new("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=covariance)
    if type_name.endswith("/PoseWithCovarianceStamped"):
        return MAKE.new(type_name, header=head, pose=known)
    zero = MAKE.new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    still = MAKE.new(
        "geometry_msgs/msg/TwistWithCovariance",
        twist=MAKE.new("geometry_msgs/msg/Twist", linear=zero, angular=zero),
        covariance=MAKE.doubles([0.0] * 36),
    )
    return MAKE.new(type_name, header=head, child_frame_id=child, pose=known, twist=still)


@pytest.mark.parametrize("type_name", POSE_TYPES)
@pytest.mark.parametrize("mounted", [True, False])
def test_poses_come_from_a_topic(engines: Callable[..., LiveEngine], type_name: str, mounted: bool) -> None:
    """Of the robot's base, below which TF has the camera, or of the camera; their covariance counts."""
    engine = engines(replace(BASIC, pose_topic="/tracker", pose_type=type_name.rpartition("/")[2]))
    frames, T_base_camera = small(5), from_quaternion((0, 0, 0, 1), (0, 0, 1))
    camera = frames[0].camera_frame
    child = ("base_link" if mounted else camera) if type_name.endswith("Odometry") else ""
    if mounted:
        link = convert.tf_message([("base_link", camera, 0, T_base_camera)], MAKE)
        engine.offer(stream(engine, Kind.TF_STATIC), over_the_wire(link))
    for frame in frames:
        engine.offer(stream(engine, Kind.POSE), over_the_wire(pose_message(type_name, frame, child, 0.04)))
        play(engine, [frame], without=(Kind.TF,))
    wait_for(lambda: len(engine.memory) == len(frames))
    for stored, frame in zip(engine.memory.frames(), frames, strict=True):
        expected = frame.T_world_camera @ T_base_camera if mounted else frame.T_world_camera
        assert stored.frame.T_world_camera == pytest.approx(expected, abs=1e-9)
        if not type_name.endswith("/PoseStamped"):
            assert stored.frame.pose_stddev[0] >= 0.2 - 1e-9
    assert engine.memory.world_frame == "odom"


def test_a_camera_that_stands_still_needs_no_pose(engines: Callable[..., LiveEngine]) -> None:
    """The commonest first try: one camera on a desk, no robot."""
    engine = engines(replace(BASIC, static=True))
    play(engine, small(5), without=(Kind.TF,))
    wait_for(lambda: len(engine.memory) == 5)
    assert engine.ask(DEPTH).result(5).error_code is ErrorCode.NONE


@pytest.mark.parametrize(
    ("settings", "depth_m"),
    [
        ({}, 2.0),
        ({"depth_unit_m": 0.0001}, 0.2),
        ({"invalid_depth": "65535, 2000"}, None),
        ({"max_depth_m": 1.5}, None),
        ({"min_depth_m": 2.5}, None),
    ],
)
def test_depth_is_read_as_set(
    engines: Callable[..., LiveEngine], settings: dict[str, Any], depth_m: float | None
) -> None:
    engine = engines(replace(BASIC, **settings))
    play(engine, [replace(f, depth=np.full((24, 32), 2000, np.uint16)) for f in small(3)])
    wait_for(lambda: len(engine.memory) == 3)
    answer = engine.ask(DEPTH).result(5)
    if depth_m is None:
        assert answer.error_code is ErrorCode.NOT_SEEN
    else:
        assert answer.value == pytest.approx(depth_m)


def test_depth_that_cannot_be_metres_is_told_in_answers_and_diagnostics(engines: Callable[..., LiveEngine]) -> None:
    """32FC1 in millimetres: nothing is built on it, and the parameter is named."""
    millimetres = (1500 + np.arange(24 * 32).reshape(24, 32) % 50).astype(np.float32)
    engine = engines()
    play(engine, [replace(f, depth=millimetres) for f in small(6)])
    wait_for(lambda: len(engine.memory) == 6)
    answer = engine.ask(DEPTH).result(5)
    assert answer.error_code is ErrorCode.ABSTAINED
    assert "set depth_unit_m to 0.001, for millimetres (now 1)" in answer.error_msg
    assert "depth_unit_m" in finding(engine, "doubt: depth_scale").message
    assert engine.ask(TRAVELLED).result(5).error_code is ErrorCode.NONE
    engine = engines(replace(BASIC, depth_unit_m=0.001))
    play(engine, [replace(f, depth=millimetres) for f in small(6)])
    wait_for(lambda: len(engine.memory) == 6)
    assert engine.ask(DEPTH).result(5).value == pytest.approx(1.5, abs=0.06)


def test_transforms_of_a_robot_in_a_namespace(engines: Callable[..., LiveEngine]) -> None:
    engine = engines(replace(BASIC, tf_namespace="robot1"))
    assert {stream(engine, kind).topic for kind in (Kind.TF, Kind.TF_STATIC)} == {"/robot1/tf", "/robot1/tf_static"}


def test_two_publishers_of_one_transform_are_doubted(engines: Callable[..., LiveEngine]) -> None:
    engine, frames = engines(), small(40)
    for i, frame in enumerate(frames):
        T = from_quaternion((0, 0, 0, 1), (5.0 * (i % 2), 0, 0))
        play(engine, [replace(frame, T_world_camera=T)])
    wait_for(lambda: any(f.name.startswith("doubt: ") for f in findings(engine.status())))


def test_one_transform_far_ahead_leaves_the_others_alone(engines: Callable[..., LiveEngine]) -> None:
    engine, frames = engines(), small(12)
    play(engine, frames[:6])
    play(engine, [replace(frames[6], stamp_ns=START_NS + 5000 * SECOND)], tuple(k for k in Kind if k is not Kind.TF))
    play(engine, frames[6:])
    wait_for(lambda: len(engine.memory) == 12)
    assert engine.status().tf_counts["tf_outlier"] == 1


# ---- keyframes


def test_keyframes_are_published_when_they_change(engines: Callable[..., LiveEngine]) -> None:
    published: list[KeyframeSet] = []
    engine = engines(on_keyframes=published.append)
    play(engine, small(3))
    wait_for(lambda: published and len(published[-1].frames) == 3)
    latest = published[-1]
    assert latest.voxels[0] == latest.selection.gains[0]
    assert all(alone >= gain > 0 for alone, gain in zip(latest.voxels, latest.selection.gains, strict=True))
    assert latest.stamp_ns == START_NS + 200_000_000
    count = len(published)
    time.sleep(0.1)
    assert len(published) == count, "nothing changed"
    engine.reset()
    wait_for(lambda: published[-1].frames == ())  # who comes late must not be told of forgotten frames


def test_keyframes_come_no_more_often_than_asked(engines: Callable[..., LiveEngine]) -> None:
    times: list[float] = []
    engine = engines(replace(BASIC, keyframes_rate_hz=20.0), on_keyframes=lambda _: times.append(time.monotonic()))
    for frame in small(40):
        play(engine, [frame])
        time.sleep(0.01)
    assert len(times) >= 2
    assert min(b - a for a, b in pairwise(times)) > 0.045


def test_a_failing_publisher_does_not_end_the_thread(engines: Callable[..., LiveEngine]) -> None:
    calls: list[int] = []

    def fail(keyframes: KeyframeSet) -> None:
        calls.append(len(keyframes.frames))
        raise RuntimeError("the publisher is gone")

    engine = engines(on_keyframes=fail)
    play(engine, small(1))
    wait_for(lambda: calls)
    play(engine, small(3)[1:])
    wait_for(lambda: calls[-1] == 3)


# ---- life


def test_starting_and_stopping() -> None:
    """The memory stays while inactive; threads end at once, and none is left however often it happens."""
    engine, before = LiveEngine(BASIC), threading.active_count()
    assert engine.ask(DEPTH).result(0).error_code is ErrorCode.CANCELLED
    play(engine, small(1))  # before it runs, nothing is taken
    for round_ in range(5):
        engine.start()
        engine.start()
        play(engine, small(1, START_NS + round_ * SECOND))
        wait_for(lambda: len(engine.memory) == round_ + 1)  # noqa: B023
        begin = time.monotonic()
        engine.stop("tea time")
        assert time.monotonic() - begin < 1.0
        assert threading.active_count() == before
        assert engine.ask(DEPTH).result(0).error_msg == "tea time"
    engine.stop()
    assert finding(engine, "memory").message.endswith("the node is not active")


def test_a_stopped_engine_is_garbage() -> None:
    import weakref

    engine = LiveEngine(BASIC)
    engine.start()
    play(engine, small(2))
    engine.ask(TRAVELLED).result(5)
    engine.stop()
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None


def test_thousands_of_questions_leave_nothing_behind(engines: Callable[..., LiveEngine]) -> None:
    engine = engines()
    play(engine, small())
    wait_for(lambda: len(engine.memory) == 6)
    engine.ask(DEPTH).result(5)
    threads = threading.active_count()
    gc.collect()
    objects = len(gc.get_objects())
    for _ in range(60):
        assert {f.result(5).error_code for f in [engine.ask(DEPTH) for _ in range(50)]} == {ErrorCode.NONE}
    gc.collect()
    assert threading.active_count() == threads
    assert len(gc.get_objects()) < objects + 2000
    assert engine.status().queries.answered[ErrorCode.NONE] == 3001


def test_what_cannot_be_had_is_said_at_once(tmp_path: Path) -> None:
    """A node that starts although something named is missing misleads for hours."""
    (tmp_path / "sensor.yaml").write_text("speed: 3")
    for settings, message in (
        (Settings(model="nyu/spatial"), "spatial-mllm download nyu/spatial"),
        (Settings(model=str(tmp_path)), "model:.*config.json"),
        (Settings(sensor_model="kinekt"), "neither rgbd nor exact"),
        (Settings(sensor_model=str(tmp_path / "sensor.yaml")), "may hold only"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            LiveEngine(settings)


def test_settings_that_change_under_way(engines: Callable[..., LiveEngine]) -> None:
    engine = engines()
    engine.update(replace(BASIC, min_confidence=0.9, timeout_s=1.5))
    assert engine.query.config.min_confidence == 0.9
    with pytest.raises(ParameterError, match="max_frames can be set while unconfigured"):
        engine.update(replace(BASIC, max_frames=1))


def test_diagnostics_name_the_silent_topic(engines: Callable[..., LiveEngine]) -> None:
    clock = [0.0]
    engine = engines(monotonic=lambda: clock[0])
    play(engine, small(2), without=(Kind.DEPTH,))
    clock[0] = 10.0
    assert "camera/aligned_depth_to_color/image_raw" in finding(engine, "input: depth").message
    told = finding(engine, "input: color")
    assert (told.level, told.message) == (Level.WARN, "nothing on camera/color/image_raw for 10.0 s")


def test_trouble_long_past_is_not_told_for_ever(engines: Callable[..., LiveEngine]) -> None:
    engine = engines()
    engine.offer(stream(engine, Kind.COLOR), broken(Kind.COLOR, encoding="h264"))
    wait_for(lambda: engine.refused)
    before = engine.status()
    color = next(f for f in findings(engine.status(), before) if f.name == "input: color")
    assert color.level is Level.OK
    assert ("refused_unknown_encoding", "1") in color.values


def test_every_reason_has_a_remedy() -> None:
    """Reasons are short words; /diagnostics says what they mean and what to do."""
    import re

    root = Path(intake.__file__).parents[1]
    paths = ("scene/assembler.py", "scene/transform_tree.py", "memory/spatial_memory.py")
    text = "".join((root / path).read_text() for path in paths)
    reasons = set(re.findall(r'(?:refused|remarks)\["(\w+)"', text)) | set(re.findall(r'reason = "(tf_\w+)"', text))
    reasons |= set(re.findall(r'return "(\w+)"', (root / "memory/spatial_memory.py").read_text()))
    assert len(reasons) > 15
    assert reasons - REMEDIES.keys() <= {"clock_reset", "tf_error"}


# ---- queues


def test_a_full_queue_drops_the_oldest_and_counts_it() -> None:
    """What is new matters most; what is lost must be known."""
    few = Stream(Kind.COLOR, "/a", "", "auto", 1, "", queue=3)
    other = Stream(Kind.TF, "/tf", "", "auto", 1, "", queue=10)
    inbox = Inbox([few, other])
    for number in range(5):
        inbox.put(few, number)
        inbox.put(other, number)
    got = [inbox.get(0) for _ in range(8)]
    assert [n for s, n in filter(None, got) if s is few] == [2, 3, 4]
    assert [n for s, n in filter(None, got) if s is other] == [0, 1, 2, 3, 4]
    assert [n for _, n in filter(None, got)] == [0, 1, 2, 2, 3, 3, 4, 4], "in order of arrival"
    assert inbox.get(0) is None
    assert (inbox.received[few], inbox.dropped[few], inbox.dropped[other]) == (5, 2, 0)


def test_a_closed_queue_loses_nothing_uncounted() -> None:
    one = Stream(Kind.COLOR, "/a", "", "auto", 1, "", queue=3)
    inbox = Inbox([one])
    inbox.put(one, 1)
    inbox.close()
    inbox.put(one, 2)
    assert inbox.get(1.0) is None
    assert (inbox.received[one], inbox.dropped[one]) == (2, 2)


def test_rates() -> None:
    clock = [0.0]
    one = Stream(Kind.COLOR, "/a", "", "auto", 1, "", queue=3)
    inbox = Inbox([one], lambda: clock[0])
    assert (inbox.rate_hz(one), inbox.silent_s(one)) == (0.0, None)
    for _ in range(31):
        inbox.put(one, 1)
        clock[0] += 0.1
    assert inbox.rate_hz(one) == pytest.approx(10.0)
    clock[0] += 5.0
    assert inbox.rate_hz(one) == 0.0
    assert inbox.silent_s(one) == pytest.approx(5.1)


# ---- questions


class Slow:
    """Answers when it is told to, and notes whether it was told to stop."""

    def __init__(self, patient: bool = False) -> None:
        self.go = threading.Event()
        self.cancelled = 0
        self.patient = patient
        self.at_work = 0

    def __call__(
        self, request: Request, cancelled: Callable[[], bool], on_text: Callable[[str], None] | None
    ) -> Answer:
        self.at_work += 1
        if on_text is not None:
            on_text("thinking")
        while not self.go.wait(0.002):
            if cancelled() and not self.patient:
                self.cancelled += 1
                return Answer(error_code=ErrorCode.CANCELLED)
        return Answer(answer=request.question)


@pytest.fixture
def pools() -> Iterator[Callable[..., tuple[QueryPool, Slow]]]:
    made: list[tuple[QueryPool, Slow]] = []

    def make(patient: bool = False, **options: Any) -> tuple[QueryPool, Slow]:
        slow = Slow(patient)
        made.append((QueryPool(slow, **options), slow))
        made[-1][0].start()
        return made[-1]

    yield make
    for pool, slow in made:
        slow.go.set()
        pool.stop()


def test_beyond_the_bound_questions_are_told_busy(pools: Callable[..., tuple[QueryPool, Slow]]) -> None:
    """At once, so that a caller can ask somebody else; and none is lost."""
    pool, slow = pools(workers=2, queue=3)
    running = [pool.submit(Request(f"{i}")) for i in range(2)]
    wait_for(lambda: slow.at_work == 2)
    waiting = [pool.submit(Request(f"{i}")) for i in range(3)]
    busy = pool.submit(Request("one too many"))
    assert busy.done()
    assert busy.result().error_code is ErrorCode.BUSY
    slow.go.set()
    assert [f.result(5).answer for f in running + waiting] == ["0", "1", "0", "1", "2"]
    assert all(f.result().time_queued > 0 for f in waiting)


def test_the_time_limit_includes_the_wait(pools: Callable[..., tuple[QueryPool, Slow]]) -> None:
    pool, slow = pools(workers=1, queue=3)
    pool.submit(Request("blocks"))
    wait_for(lambda: slow.at_work == 1)
    begin = time.monotonic()
    answer = pool.submit(Request("waits", timeout=50_000_000)).result(5)
    assert 0.04 < time.monotonic() - begin < 1.0
    assert answer.error_code is ErrorCode.TIMEOUT
    assert answer.time_queued >= 50_000_000
    assert pool.waiting == 0


def test_an_engine_that_hangs_does_not_hang_its_caller(pools: Callable[..., tuple[QueryPool, Slow]]) -> None:
    """Numerical code cannot be interrupted; its caller gets TIMEOUT all the same, and the worker counts as taken."""
    pool, slow = pools(patient=True, workers=1, queue=1, timeout_s=0.05)
    assert pool.submit(Request("hangs")).result(5).error_code is ErrorCode.TIMEOUT
    assert pool.running == 1
    slow.go.set()
    wait_for(lambda: pool.running == 0)
    assert pool.submit(Request("next")).result(5).answer == "next"


def test_stopping_cancels_what_waits_and_what_runs(pools: Callable[..., tuple[QueryPool, Slow]]) -> None:
    pool, slow = pools(workers=1, queue=3)
    futures = [pool.submit(Request("a")) for _ in range(3)]
    wait_for(lambda: slow.at_work == 1)
    pool.stop("good night")
    assert {(f.result(0).error_code, f.result(0).error_msg) for f in futures} == {(ErrorCode.CANCELLED, "good night")}
    assert slow.cancelled == 1
    pool.start()
    slow.go.set()
    assert pool.submit(Request("again")).result(5).answer == "again"


def test_a_caller_can_give_up(pools: Callable[..., tuple[QueryPool, Slow]]) -> None:
    pool, slow = pools(workers=1, queue=3)
    running, waiting = pool.submit(Request("a")), pool.submit(Request("b"))
    wait_for(lambda: slow.at_work == 1)
    assert running.cancel()
    assert waiting.cancel()
    wait_for(lambda: slow.cancelled == 1 and pool.waiting == 0, 3.0)


def test_text_comes_before_the_answer(pools: Callable[..., tuple[QueryPool, Slow]]) -> None:
    pool, slow = pools(workers=1, queue=1)
    heard: list[str] = []
    future = pool.submit(Request("a"), heard.append)
    wait_for(lambda: heard)
    assert (heard, future.done()) == (["thinking"], False)
    slow.go.set()
    assert future.result(5).answer == "a"


def test_feedback_is_told_at_once_and_then_now_and_then() -> None:
    """A model may write hundreds of pieces a second; a lost message is made up for by the next."""
    clock, told = [10.0], []
    feedback = Feedback(told.append, period_s=1.0, monotonic=lambda: clock[0])
    for piece in "abcdef":
        feedback(piece)
        clock[0] += 0.4
    assert told == ["a", "abcd"]


def test_an_answer_function_that_fails_is_an_answer(pools: Callable[..., tuple[QueryPool, Slow]]) -> None:
    def fail(request: Request, cancelled: Callable[[], bool], on_text: object) -> Answer:
        raise RuntimeError("out of cheese")

    pool = QueryPool(fail)
    pool.start()
    answer = pool.submit(Request("?")).result(5)
    pool.stop()
    assert answer.error_code is ErrorCode.UNKNOWN
    assert "out of cheese" in answer.error_msg


def test_many_clients_at_once_get_answers_or_busy(pools: Callable[..., tuple[QueryPool, Slow]]) -> None:
    """64 clients, 2 workers, 8 places: whoever is not answered is told so, and nobody waits for ever."""
    pool, slow = pools(workers=2, queue=8)
    slow.go.set()
    codes: list[ErrorCode] = []

    def client() -> None:
        codes.extend(pool.submit(Request("?")).result(10).error_code for _ in range(20))

    clients = [threading.Thread(target=client) for _ in range(64)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert len(codes) == 64 * 20
    assert set(codes) <= {ErrorCode.NONE, ErrorCode.BUSY}
    assert sum(pool.answered.values()) == 64 * 20
