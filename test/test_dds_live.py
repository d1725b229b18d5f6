"""The live node without ROS: with real processes over the loopback interface, and in this process with bad company."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from small_recording import CAMERA, START_NS

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.clients.client import SpatialQueryClient
from spatial_mllm_ros.dds import DdsNode, QosProfile, ServiceNotAvailable, State, domain, is_installed
from spatial_mllm_ros.dds import library as dds
from spatial_mllm_ros.dds.parameters import value_message, value_of
from spatial_mllm_ros.nodes import convert, dds_node, shell
from spatial_mllm_ros.nodes.dds_node import SpatialMllmDdsNode
from spatial_mllm_ros.nodes.inbox import Kind
from spatial_mllm_ros.nodes.player import Player, PlayerOptions
from spatial_mllm_ros.queries.answer import ImagePoint
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import from_quaternion
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.session.questions import ask, parse_questions
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.simulation.truth import demo_questions
from spatial_mllm_ros.sources.source import SourceInfo

pytestmark = pytest.mark.skipif(not is_installed(), reason="cyclonedds is not installed")

COMMAND = [sys.executable, "-m", "spatial_mllm_ros.cli"]
COLOR, DEPTH = "camera/color/image_raw", "camera/aligned_depth_to_color/image_raw"
INFO, DEPTH_INFO = "camera/color/camera_info", "camera/aligned_depth_to_color/camera_info"
IMAGE, TF = "sensor_msgs/msg/Image", "tf2_msgs/msg/TFMessage"
PATIENCE_S = 10.0
SCENE = "rendered:rooms=1,frames=30,size=160x120,rate=15"
HEADER = b"\x00\x01\x00\x00"
Nodes = Callable[..., SpatialMllmDdsNode]


def wait_for(condition: Callable[[], Any], what: str | Callable[[], str], timeout_s: float = PATIENCE_S) -> Any:
    until = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > until:
            pytest.fail(f"{what if isinstance(what, str) else what()} did not happen within {timeout_s:g} s")
        time.sleep(0.01)
    return value


@contextlib.contextmanager
def running(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """spatial-mllm as a process, killed in the end if it has not ended by then."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """The next line on stderr that has these words in it; fails when the process ends first."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"{process.args} ended with {process.wait()} without saying {words!r}")


@pytest.fixture
def make() -> Iterator[Nodes]:
    """Makes nodes with the parameters given, active unless ``start=False``; closed after the test."""
    nodes: list[SpatialMllmDdsNode] = []

    def made(*ros_args: str, start: bool = True, **values: Any) -> SpatialMllmDdsNode:
        # Frames come as fast as they can, so that topics overtake each other by more than a camera's would.
        settings = {
            "sensor_model": "exact",
            "fixed_frame": "map",
            "tf_wait_s": 5.0,
            "keyframes_rate_hz": 20.0,
            **values,
        }
        arguments = ("--ros-args", *ros_args) if ros_args else ()
        nodes.append(SpatialMllmDdsNode(arguments, {"diagnostics_rate_hz": 20.0, **settings}))
        if start:
            assert nodes[-1].start(), nodes[-1].failure
        return nodes[-1]

    yield made
    for node in nodes:
        node.close()


class Company:
    """Another node, which publishes and listens, and a client."""

    def __init__(self) -> None:
        self.node = DdsNode("company", ros_args=[])
        self.client = SpatialQueryClient(node=self.node, wait_s=PATIENCE_S)
        self.diagnoses: dict[str, Any] = {}
        self.make = convert.RosbagsMaker(self.node.message)
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self.node.create_subscription(convert.DIAGNOSTICS, "/diagnostics", self._on_diagnostics)

    def _on_diagnostics(self, payload: Any, _: Any) -> None:
        self.diagnoses.update({s.name.partition(": ")[2]: s for s in payload.decode().status})

    def diagnosis(self, name: str) -> str:
        status = self.diagnoses.get(name)
        return "" if status is None else str(status.message)

    def publish(self, type_name: str, topic: str, message: Any, qos: Any = "default") -> None:
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(type_name, topic, qos)
            wait_for(lambda: self._publishers[topic].subscription_count, f"a subscription to {topic}")
        assert self._publishers[topic].publish(message)

    def send(self, frame: Frame, without: tuple[Kind, ...] = ()) -> None:
        topics = {
            Kind.TF: (TF, "/tf"),
            Kind.COLOR: (IMAGE, COLOR),
            Kind.DEPTH: (IMAGE, DEPTH),
            Kind.CAMERA_INFO: ("sensor_msgs/msg/CameraInfo", INFO),
            Kind.DEPTH_CAMERA_INFO: ("sensor_msgs/msg/CameraInfo", DEPTH_INFO),
        }
        for kind, message in convert.camera_messages(frame, self.make):
            if kind not in without:
                self.publish(*topics[kind], message)

    def call(self, type_name: str, name: str, **fields: Any) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(type_name, name)
        return self._clients[name].call(self.node.message(f"{type_name}_Request", **fields), PATIENCE_S)

    def set(self, name: str, value: Any, node: str = "/spatial_mllm") -> Any:
        parameter = self.node.message("rcl_interfaces/msg/Parameter", name=name, value=value_message(self.node, value))
        found = self.call("rcl_interfaces/srv/SetParameters", f"{node}/set_parameters", parameters=[parameter])
        return found.results[0]

    def get(self, name: str) -> Any:
        found = self.call("rcl_interfaces/srv/GetParameters", "/spatial_mllm/get_parameters", names=[name])
        return value_of(found.values[0])

    def change(self, label: str) -> bool:
        transition = self.node.message("lifecycle_msgs/msg/Transition", label=label)
        found = self.call("lifecycle_msgs/srv/ChangeState", "/spatial_mllm/change_state", transition=transition)
        return bool(found.success)


@pytest.fixture
def company() -> Iterator[Company]:
    made = Company()
    yield made
    made.node.close()


def frame(index: int, start_ns: int = START_NS) -> Frame:
    """The camera slides along a wall 2 m ahead, 0.1 m a frame, at 10 Hz."""
    rng = np.random.default_rng(index)
    return Frame(
        start_ns + index * 100_000_000,
        "lens",
        replace(CAMERA, distortion_model="plumb_bob", distortion=()),
        rng.integers(0, 256, (24, 32, 3)).astype(np.uint8),
        np.full((24, 32), 2000, np.uint16),
        from_quaternion((0, 0, 0, 1), (0.1 * index, 0, 0)),
    )


def point(index: int, start_ns: int = START_NS) -> list[ImagePoint]:
    return [ImagePoint(start_ns + index * 100_000_000, "", 16.0, 12.0)]


def show(node: SpatialMllmDdsNode, company: Company, count: int = 5, start_ns: int = START_NS, first: int = 0) -> None:
    """Frames that come to be remembered."""
    assert node.engine is not None
    before = len(node.engine.memory)
    for index in range(first, first + count):
        company.send(frame(index, start_ns))
    engine = node.engine
    wait_for(lambda: len(engine.memory) >= before + count, lambda: f"{count} more frames in memory ({engine.status()})")


def still_serves(company: Company, index: int = 0, start_ns: int = START_NS) -> None:
    answer = company.client.ask("What is the depth at <p0>?", points=point(index, start_ns))
    assert (answer.error_code, answer.value) == (ErrorCode.NONE, pytest.approx(2.0, abs=1e-9)), answer.error_msg


# ---- real processes


@pytest.mark.parametrize("compressed", [False, True])
def test_answers_are_those_of_the_file(compressed: bool, tmp_path: Path) -> None:
    """The same questions to a recording and to the node into which it is played: one and the same answer.

    Compressed depth is PNG of whole millimetres, as the recording's, so that not even that makes a difference.
    """
    options = ["--compressed"] if compressed else []
    source = RenderedSource.from_spec(SCENE)
    content = demo_questions(source)
    session = Session(source, record_coverage=False)
    session.stream()
    expected = [ask(session, question) for question in parse_questions(content)]
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    at_any_age = ["--ros-args", "-p", "max_pose_age_s:=0.0"]  # asked after the recording has ended, whenever that is
    with running("up", "--fixed-frame", "map", *options, *at_any_age) as node:
        line_with(node, "listening to")
        with running("play", SCENE, "--rate", "4", *options) as player:
            _, said = player.communicate(timeout=60)
            assert player.returncode == 0, said
        assert "published 30 frames" in said
        asked = subprocess.run(
            [*COMMAND, "call", "--questions", str(file), "--source", SCENE, "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    got = [json.loads(line) for line in asked.stdout.splitlines()]
    assert len(got) == len(expected) >= 8, asked.stderr
    for theirs, ours in zip(got, expected, strict=True):
        wanted = ours.to_json()
        for key in ("error_code", "answer_type", "choice_index", "answer", "unit", "source", "verdict"):
            assert theirs.get(key) == wanted.get(key), (ours.question.text, key, theirs)
        for key in ("value", "stddev", "confidence"):
            assert theirs[key] == (None if wanted[key] is None else pytest.approx(wanted[key], abs=1e-6)), theirs
        assert [e["stamp_ns"] for e in theirs["evidence"]] == [e["stamp_ns"] for e in wanted["evidence"]]
    assert sum(a.answer.error_code is ErrorCode.NONE for a in expected) >= 6, "these questions show nothing"


def test_signals_end_every_state() -> None:
    """SIGINT and SIGTERM, twice as terminals and launchers send them: exit code 0, no traceback, soon."""
    states = ("unconfigured", "inactive", "active")
    signals = (signal.SIGINT, signal.SIGTERM)
    with contextlib.ExitStack() as stack, Company().node as node:
        started = []
        for state in states:
            for number in signals:
                name = f"{state}_{number.name.lower()}"
                arguments = [*(["--manual"] if state != "active" else []), "--ros-args", "-r", f"__node:={name}"]
                started.append((state, number, name, stack.enter_context(running("up", *arguments))))
        for state, number, name, process in started:
            line_with(process, "unconfigured" if state != "active" else "listening to")
            if state == "inactive":
                client = node.create_client("lifecycle_msgs/srv/ChangeState", f"/{name}/change_state")
                request = node.message("lifecycle_msgs/srv/ChangeState_Request")
                request.transition.id = 1
                assert client.call(request, PATIENCE_S).success
            process.send_signal(number)
            process.send_signal(number)
        for state, number, _, process in started:
            _, said = process.communicate(timeout=10)
            assert process.returncode == 0, (state, number, said)
            assert "Traceback" not in said
            assert "shutting down" in said


def test_a_publisher_is_killed_mid_stream(make: Nodes, company: Company) -> None:
    """Its half-sent image is nobody's; the next publisher is heard."""
    node = make()
    assert node.engine is not None
    with running("play", "rendered:rooms=1,frames=300,size=640x480,rate=30", "--now", "--loop") as player:
        engine = node.engine
        wait_for(lambda: len(engine.memory) > 2, "frames in memory", 60.0)  # the process starts and renders
        player.kill()
        player.wait()
    seen = len(node.engine.memory)
    now = time.time_ns()
    show(node, company, start_ns=now)
    assert len(node.engine.memory) >= seen
    still_serves(company, start_ns=now)


def test_a_client_vanishes(make: Nodes, company: Company) -> None:
    """It asks and is gone before the answer; others are answered meanwhile and after."""
    node = make()
    show(node, company)
    code = """
import os
from spatial_mllm_ros.clients.client import SpatialQueryClient
client = SpatialQueryClient(ros_args=[], wait_s=20)
assert client.wait_for_service()
for _ in range(20):
    client.ask_async("How far did the camera travel?")
os._exit(0)
"""
    vanished = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert vanished.returncode == 0
    begin = time.monotonic()
    still_serves(company)
    assert time.monotonic() - begin < 5.0


# ---- what can be set


def test_parameters_over_the_wire(make: Nodes, company: Company) -> None:
    """Listed and described as in the table; dynamic ones take effect at once; others are refused with what to do."""
    node = make()
    listed = company.call("rcl_interfaces/srv/ListParameters", "/spatial_mllm/list_parameters").result.names
    assert set(listed) == {*dds_node.PARAMETERS, "use_sim_time"}
    described = company.call(
        "rcl_interfaces/srv/DescribeParameters",
        "/spatial_mllm/describe_parameters",
        names=["timeout_s", "query_queue", "color_qos"],
    ).descriptors
    assert described[0].floating_point_range[0].to_value == 3600.0
    assert "unit s" in described[0].additional_constraints
    assert described[1].read_only
    assert "sensor_data" in described[2].additional_constraints
    assert company.set("timeout_s", 2.5).successful
    assert node.engine is not None
    assert node.engine.settings.timeout_s == company.get("timeout_s") == 2.5
    for name, value, why in (
        ("query_queue", 3, "read-only"),
        ("max_frames", 3, "cleanup"),
        ("timeout_s", 1e9, "3600"),
        ("timeout_s", "soon", "double"),
        ("on_clock_reset", "sometimes", "forget, keep"),
        ("no_such_thing", 1, "not been declared"),
    ):
        result = company.set(name, value)
        assert not result.successful
        assert why in result.reason, result.reason
    assert company.change("deactivate")
    assert company.change("cleanup")
    assert company.set("max_frames", 3).successful
    assert company.change("configure")
    assert company.change("activate")
    assert node.engine.memory.config.max_frames == 3


def test_ros_arguments(make: Nodes, company: Company, tmp_path: Path) -> None:
    """Names, namespaces, remapping and parameters as ROS 2 has them."""
    file = tmp_path / "params.yaml"
    file.write_text("/robot/mapper:\n  ros__parameters:\n    max_frames: 7\n    timeout_s: 4\n", encoding="utf-8")
    renaming = ("-r", "__node:=mapper", "-r", "__ns:=/robot", "-r", f"{COLOR}:=front/image")
    node = make(*renaming, "-r", "spatial_query:=/ask", "--params-file", str(file), "-p", "max_frames:=9")
    assert node.full_name == "/robot/mapper"
    assert node.service_name == "/ask"
    assert (node.settings().max_frames, node.settings().timeout_s) == (9, 4.0)
    topics = {endpoint.topic for endpoint in node.node.endpoints()}
    assert {"/robot/front/image", "/robot/mapper/keyframes", "/tf", "/diagnostics"} <= topics
    with SpatialQueryClient("/ask", node=company.node) as client:
        assert client.ask("How far did the camera travel?").error_code is ErrorCode.NO_FRAMES


def test_configuring_fails_with_the_reason(make: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    node = make(start=False, sensor_model="no/such/sensor.yaml")
    assert not node.start()
    assert node.state is State.UNCONFIGURED
    assert "no/such/sensor.yaml" in node.failure
    assert "cannot be configured" in caplog.text
    assert node.parameters.set({"sensor_model": "rgbd"}).successful
    assert node.start()


def test_while_inactive_questions_are_cancelled(make: Nodes, company: Company) -> None:
    node = make()
    show(node, company)
    assert company.change("deactivate")
    answer = company.client.ask("How far did the camera travel?")
    assert answer.error_code is ErrorCode.CANCELLED
    assert company.client.ask("How far did the camera travel?", on_text=print).error_msg == answer.error_msg
    assert company.change("activate")
    still_serves(company)  # the memory was kept


# ---- quality of service, and what is published


def test_a_best_effort_camera_is_heard(make: Nodes, company: Company, caplog: pytest.LogCaptureFixture) -> None:
    """With ``auto`` this is no mismatch, and none is told."""
    caplog.set_level("INFO", "spatial_mllm_ros")
    node = make()
    message = convert.image_message(
        np.zeros((4, 4, 3), np.uint8), "rgb8", convert.header(1, "lens", company.make), company.make
    )
    publisher = company.node.create_publisher(IMAGE, COLOR, "sensor_data")
    wait_for(lambda: publisher.subscription_count, "a subscription")
    publisher.publish(message)
    assert node.engine is not None
    engine = node.engine
    wait_for(lambda: engine.status().streams[0].received, "the image")
    assert "subscribing as best effort, too" in caplog.text
    assert "nothing arrives" not in caplog.text


def test_a_mismatch_is_told_with_its_remedy(make: Nodes, company: Company, caplog: pytest.LogCaptureFixture) -> None:
    make(color_qos="reliable")
    company.node.create_publisher(IMAGE, COLOR, "sensor_data")
    wait_for(lambda: "Set color_qos to sensor_data or auto" in company.diagnosis("input: color"), "the diagnosis")
    assert "Set color_qos to sensor_data or auto" in caplog.text


def test_a_topic_that_nobody_publishes_is_told_with_the_nearest_names(
    make: Nodes, company: Company, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, in diagnostics, and in the answer to the first question."""
    company.node.create_publisher(IMAGE, "/camera/color/image_rect")
    company.node.create_publisher(IMAGE, "/rear/fisheye")
    make()
    wanted = "nobody publishes /camera/color/image_raw: did you mean /camera/color/image_rect? set color_topic"
    wait_for(lambda: wanted in company.diagnosis("input: color"), lambda: company.diagnosis("input: color"))
    wait_for(lambda: wanted in caplog.text, "the log")
    answer = company.client.ask("How high is the ceiling?")
    assert answer.error_code is ErrorCode.NO_FRAMES
    assert wanted in answer.error_msg


def test_a_question_at_once_says_what_has_not_come_yet(make: Nodes, company: Company) -> None:
    make()
    answer = company.client.ask("How high is the ceiling?")
    assert answer.error_code is ErrorCode.NO_FRAMES
    assert "camera/color/image_raw" in answer.error_msg


def test_a_topic_of_another_type_and_one_that_is_only_compressed_are_named(make: Nodes, company: Company) -> None:
    company.node.create_publisher("std_msgs/msg/String", DEPTH)
    company.node.create_publisher("sensor_msgs/msg/CompressedImage", f"{COLOR}/compressed")
    make()
    wait_for(
        lambda: "published as std_msgs/msg/String, but sensor_msgs/msg/Image" in company.diagnosis("input: depth"),
        lambda: company.diagnosis("input: depth"),
    )
    wait_for(
        lambda: (
            "only /camera/color/image_raw/compressed: set color_transport to compressed"
            in company.diagnosis("input: color")
        ),
        lambda: company.diagnosis("input: color"),
    )


def test_a_pose_topics_type_is_found_once_it_is_published(make: Nodes, company: Company) -> None:
    node = make(pose_topic="/tracker/pose")
    wait_for(
        lambda: "nobody publishes /tracker/pose" in company.diagnosis("input: pose"), lambda: str(company.diagnoses)
    )
    engine = node.engine
    assert engine is not None
    company.node.create_publisher("geometry_msgs/msg/PoseStamped", "/tracker/pose")
    wait_for(lambda: any(s.kind is Kind.POSE for s in engine.streams), "a subscription")
    for index in range(3):
        moved = company.node.message("geometry_msgs/msg/PoseStamped")
        moved.header.frame_id = "map"
        moved.header.stamp.sec, moved.header.stamp.nanosec = divmod(START_NS + index * 100_000_000, 10**9)
        moved.pose.position.x, moved.pose.orientation.w = 0.1 * index, 1.0
        company.publish("geometry_msgs/msg/PoseStamped", "/tracker/pose", moved)
        company.send(frame(index), without=(Kind.TF,))
    wait_for(lambda: len(engine.memory) == 3, lambda: str(engine.status()))


def test_images_that_get_lost_while_camera_info_comes_are_told(make: Nodes, company: Company) -> None:
    """As large best-effort images do where the system's buffers are small."""
    make()
    company.node.create_publisher(IMAGE, COLOR, "sensor_data")
    for index in range(40):
        company.send(frame(index), without=(Kind.COLOR, Kind.DEPTH))
        time.sleep(0.1)
    told = company.diagnosis("input: color")
    assert "net.core.rmem_max" in told
    assert "color_transport: compressed" in told
    assert "color_qos: reliable" in told


def test_misspelt_parameters_are_told_again_while_they_last(
    make: Nodes, company: Company, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    color_topc: a\n    qos_overrides:\n      /tf:\n        subscription:\n"
        "          depth: 5\n"
    )
    make("--params-file", str(file))
    assert "there is no parameter 'color_topc', so it has no effect; did you mean 'color_topic'?" in caplog.text
    assert "qos_overrides./tf.subscription.depth has no effect: set color_qos" in caplog.text
    wait_for(lambda: "did you mean 'color_topic'" in company.diagnosis("set-up"), lambda: str(company.diagnoses))
    answer = company.client.ask("How high is the ceiling?")
    assert "did you mean 'color_topic'" in answer.error_msg


def test_keyframes_are_kept_for_those_who_come_late(make: Nodes, company: Company) -> None:
    node = make()
    show(node, company)
    assert node.engine is not None
    wanted = len(node.engine.keyframes().frames)
    got: list[Any] = []
    late = QosProfile(transient_local=True, depth=1)
    company.node.create_subscription(
        convert.KEYFRAMES, "/spatial_mllm/keyframes", lambda payload, _: got.append(payload.decode()), late
    )
    wait_for(lambda: got and len(got[-1].keyframes) == wanted, "keyframes")
    assert got[-1].header.frame_id == "map"
    assert got[-1].keyframes[0].camera_pose.header.frame_id == "map"


# ---- bad company


def test_damaged_messages(make: Nodes, company: Company) -> None:
    """Cut off, too long, of lengths that are lies, of another type's bytes: counted, and the node goes on."""
    node = make()
    show(node, company, 1)
    good = bytes(node.node.interfaces.encode(frame_message(company), IMAGE))
    lying = bytearray(good)
    lying[-24 * 32 * 3 - 4 : -24 * 32 * 3] = b"\xff\xff\xff\x7f"  # the length of data
    noise = np.random.default_rng(1).integers(0, 256, 300, np.uint8).tobytes()
    bad = [good[: len(good) // 2], good[:8], bytes(lying), HEADER + noise, HEADER + b"\xff" * 64, HEADER * 2]
    for payload in bad:
        company.publish(IMAGE, COLOR, payload)
        company.publish(IMAGE, DEPTH, payload)
        company.publish(TF, "/tf", payload)
    company.publish(IMAGE, COLOR, good + b"\0" * 4000)  # more than it needs
    assert node.engine is not None
    engine = node.engine
    wait_for(lambda: sum(n for (_, why), n in engine.refused.items() if why == "undecodable_message") >= 12, "counts")
    show(node, company, 3, first=1)
    still_serves(company, 3)
    requests = company.node.create_client("spatial_mllm_ros/srv/SpatialQuery", "spatial_query")
    assert requests.wait_for_service(PATIENCE_S)
    for body in (b"", b"\xff" * 30, b"\0" * 3, noise):
        requests._ends.writer.write([HEADER + b"\0" * 16 + body])
    still_serves(company, 3)


def frame_message(company: Company) -> Any:
    return next(m for kind, m in convert.camera_messages(frame(90), company.make) if kind is Kind.COLOR)


def test_images_that_contradict_themselves(make: Nodes, company: Company) -> None:
    node = make()
    show(node, company, 1)
    for number, changes in enumerate(
        (
            {"encoding": "yuv9_of_tomorrow"},
            {"step": 7},
            {"data": np.zeros(10, np.uint8)},
            {"height": 2**31, "width": 2**31},
            {"height": 0, "width": 0},
        )
    ):
        message = frame_message(company)
        message.header.stamp.nanosec = number
        for name, value in changes.items():
            setattr(message, name, value)
        company.publish(IMAGE, COLOR, message)
    assert node.engine is not None
    engine = node.engine
    wait_for(lambda: sum(engine.refused.values()) >= 5, "refusals")
    assert {"unknown_encoding", "row_step", "data_size"} <= {reason for _, reason in engine.refused}
    assert not any(reason == "internal_error" for _, reason in engine.refused)
    show(node, company, 2, first=1)
    still_serves(company, 2)


def test_a_topic_of_another_type(make: Nodes, company: Company) -> None:
    """DDS keeps the two apart; nothing arrives, nothing breaks."""
    node = make()
    stranger = company.node.create_publisher("std_msgs/msg/String", COLOR)
    stranger.publish(company.node.message("std_msgs/msg/String", data="I am a camera"))
    show(node, company)
    still_serves(company)


def test_transforms_that_form_a_loop(make: Nodes, company: Company) -> None:
    node = make()
    show(node, company, 2)
    T = np.eye(4)
    for parent, child in (("lens", "map"), ("lens", "lens"), ("", "lens"), ("map", "")):
        company.publish(TF, "/tf", convert.tf_message([(parent, child, START_NS, T)], company.make))
    broken = convert.tf_message([("map", "lens", START_NS + 1, T)], company.make)
    broken.transforms[0].transform.rotation.w = float("nan")
    company.publish(TF, "/tf", broken)
    show(node, company, 3, first=2)
    still_serves(company, 4)
    assert node.engine is not None
    refused = node.engine.status().refused
    assert refused["tf_loop"] == 2
    assert refused["tf_invalid"] == 2
    assert {reason for _, reason in node.engine.refused} == {"tf_invalid"}


def test_the_clock_jumps(make: Nodes, company: Company) -> None:
    """Back: what is of the future is forgotten. Forth: nothing happens. The new time's images are remembered."""
    node = make(use_sim_time=True)
    clock = "rosgraph_msgs/msg/Clock"

    def tell(stamp_ns: int) -> None:
        message = company.node.message(clock)
        message.clock.sec, message.clock.nanosec = divmod(stamp_ns, 10**9)
        company.publish(clock, "/clock", message, "clock")
        wait_for(lambda: node.clock.now_ns() == stamp_ns, "the time")

    tell(START_NS)
    show(node, company)
    assert node.engine is not None
    tell(START_NS + 3600 * 10**9)
    assert len(node.engine.memory) == 5
    earlier = START_NS - 3600 * 10**9
    tell(earlier)
    assert len(node.engine.memory) == 5, "/clock alone may be a slip"
    company.send(frame(0, earlier))
    wait_for(lambda: node.engine.status().resets == 1, "a reset")
    wait_for(lambda: len(node.engine.memory) == 1, "the image")
    show(node, company, 4, start_ns=earlier, first=1)
    assert len(node.engine.memory) == 5
    still_serves(company, start_ns=earlier)
    assert company.set("use_sim_time", False).successful
    still_serves(company, start_ns=earlier)


def test_two_nodes_of_one_name(
    make: Nodes, company: Company, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both serve; each says that there is another."""
    monkeypatch.setattr(shell, "NAMESAKE_S", 0.2)
    first, second = make(), make()
    wait_for(lambda: caplog.text.count("another node is called /spatial_mllm") >= 2, "two warnings")
    assert first.engine is not None
    show(first, company)
    engine = second.engine
    assert engine is not None
    wait_for(lambda: len(engine.memory) == 5, "frames at the second")
    still_serves(company)


def test_a_thousand_calls_leave_nothing_behind(make: Nodes, company: Company) -> None:
    """Neither memory nor descriptors nor threads."""
    node = make(diagnostics_rate_hz=0.0)
    show(node, company)

    def calls(count: int) -> None:
        for _ in range(count):
            still_serves(company)

    def state() -> tuple[int, int, int]:
        gc.collect()
        descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        return descriptors, threading.active_count(), len(gc.get_objects())

    calls(300)
    before, resident = state(), resident_kib()
    calls(1000)
    after = state()
    assert after[:2] == before[:2]
    assert after[2] - before[2] < 500, "objects were left behind"
    assert resident_kib() - resident < 8 << 10
    assert not node.node.troubles.counts


def test_a_quiet_node_uses_no_processor(make: Nodes, company: Company) -> None:
    """Also after something has come: nothing polls."""
    node = make(diagnostics_rate_hz=1.0)
    show(node, company)
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.15


def resident_kib() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 10 if statm.exists() else 0


# ---- the commands


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("command", ["up", "play", "call", "bench ingest", "bench service"])
def test_help_teaches(command: str) -> None:
    assert "Exit code" in run(*command.split(), "--help").output


def test_a_goal_is_answered_like_a_request(make: Nodes, company: Company) -> None:
    """Geometry and refusals alike, and a goal that is no question gets its code, too."""
    show(make(), company)
    for question, more in (
        ("What is the depth at <p0>?", {"points": point(2)}),
        ("What is the color of happiness?", {}),
        ("How far is <p0>?", {}),
    ):
        heard: list[str] = []
        by_goal = company.client.ask(question, on_text=heard.append, **more)
        by_request = company.client.ask(question, **more)
        for field in ("error_code", "error_msg", "answer", "value", "stddev", "evidence", "first_stamp"):
            assert repr(getattr(by_goal, field)) == repr(getattr(by_request, field)), field
        assert heard == []


@pytest.mark.parametrize(("kind", "topic"), [(IMAGE, COLOR), (TF, "/tf"), (TF, "/tf_static")])
def test_a_recording_is_not_mixed_with_a_real_camera_or_robot(company: Company, kind: str, topic: str) -> None:
    """Rendered images and transforms in a running robot's graph make nonsense of its memory."""
    company.node.create_publisher(kind, topic)
    refused = run("play", SCENE, "--wait", "0", code=2).stderr
    assert f"somebody else publishes /{topic.lstrip('/')} in domain" in " ".join(refused.split())
    assert "--force" in refused
    played = json.loads(run("play", SCENE, "--wait", "0", "--rate", "0", "--limit", "2", "--force", "--json").stdout)
    assert played["frames"] == 2


def test_the_environment_cannot_bring_a_demonstration_into_a_robots_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own domain, computer and tag, whatever ROS_DOMAIN_ID, peers and configuration say."""
    for name, value in (("ROS_DOMAIN_ID", "7"), ("ROS_STATIC_PEERS", "10.0.0.1"), ("CYCLONEDDS_URI", "<Tracing/>")):
        monkeypatch.setenv(name, value)
    own = domain.private()
    assert domain.domain_id(None, {**os.environ, **own}) in domain.PRIVATE
    configured = domain.configuration({**os.environ, **own})
    assert "10.0.0.1" not in configured
    assert "Tracing" not in configured
    assert "127.0.0.1" in configured
    assert f"<Tag>private_{os.getpid()}</Tag>" in configured


def test_nodes_of_another_tag_are_not_found(company: Company, tmp_path: Path) -> None:
    """Two that have chosen one domain by chance."""
    program = "from spatial_mllm_ros.dds import DdsNode; import time; n = DdsNode('x', ros_args=[])\ntime.sleep(1.5); "
    program += f"print([e.topic for e in n.endpoints() if e.topic == '/{COLOR}'])"
    company.node.create_publisher(IMAGE, COLOR)
    same, other = (
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **more}, capture_output=True, text=True, check=True
        )
        for more in ({}, {"CYCLONEDDS_URI": os.environ["CYCLONEDDS_URI"].replace("private_", "other_")})
    )
    assert COLOR in same.stdout
    assert COLOR not in other.stdout


def test_call(make: Nodes, company: Company) -> None:
    """Frames by stamp, by seconds since the first, and the latest; words for people, JSON for programs."""
    node = make()
    show(node, company)
    printed = run("call", "What is the depth at <p0>?", "--point", "latest,16,12").stdout
    assert "2.00000 m" in printed
    assert "(+0.40 s), pixel (16, 12)" in printed
    for name in ("+0.4", f"{START_NS / 1e9 + 0.4:.3f}"):
        answer = json.loads(run("call", "What is the depth at <p0>?", "--point", f"{name},16,12", "--json").stdout)
        assert answer["value"] == pytest.approx(2.0)
        assert answer["first_stamp"] == START_NS + 400_000_000
    refused = json.loads(run("call", "What is the color of happiness?", "--json", code=1).stdout)
    assert refused["error_code"] == "NO_MODEL"
    wrong = json.loads(run("call", "How far is <p0>?", "--point", "frame-000001,1,1", "--json", code=1).stdout)
    assert "--source" in wrong["error_msg"]


def test_call_without_a_node() -> None:
    result = run("call", "How far did the camera travel?", "--wait", "0.2", code=3)
    assert "no server of /spatial_query" in result.stderr


def test_client_without_a_node() -> None:
    with SpatialQueryClient(ros_args=[], wait_s=0.1) as client, pytest.raises(ServiceNotAvailable):
        client.ask("How far did the camera travel?")


@pytest.mark.parametrize("command", [["up"], ["play", "rendered:frames=1,size=64x48,rooms=1"], ["call", "How far?"]])
def test_cyclone_dds_is_missing(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    dds.library.cache_clear()
    monkeypatch.setattr(dds, "_candidates", list)
    try:
        result = run(*command, code=2)
    finally:
        dds.library.cache_clear()
    assert result.stderr.splitlines() == [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert "pip install 'spatial_mllm_ros[dds]'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "--max-frames", "many"], "max_frames must be an integer"),
        (["up", "--sensor-model", "no/such.yaml"], "cannot be configured"),
        (["up", "--ros-args", "-r", "nonsense"], "from:=to"),
        (["up", "--ros-args", "-p", "pool_size:=2"], "core_size must be at most half"),
        (["play", "no/such/recording"], "does not exist"),
        (["play", "--now", "--rate", "0"], "need a pace"),
        (["call"], "what is the question"),
    ],
)
def test_what_users_get_wrong(arguments: list[str], words: str) -> None:
    assert words in run(*arguments, code=2).stderr


def test_a_configuration_file_of_cyclone_dds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It holds, the choice of interfaces included, and is not quarrelled with."""
    file, trace = tmp_path / "cyclone.xml", tmp_path / "trace.log"
    file.write_text(
        f"""<CycloneDDS><Domain><General><AllowMulticast>false</AllowMulticast>
        <Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces></General>
        <Tracing><Verbosity>config</Verbosity><OutputFile>{trace}</OutputFile></Tracing></Domain></CycloneDDS>""",
        encoding="utf-8",
    )
    monkeypatch.setenv("CYCLONEDDS_URI", f"file://{file}")
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE")
    monkeypatch.setenv("ROS_DOMAIN_ID", "231")
    run("call", "How far did the camera travel?", "--wait", "0", code=3)
    assert trace.stat().st_size
    assert "interface" not in capfd.readouterr().err


def test_a_wrong_domain_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "everywhere")
    assert "ROS_DOMAIN_ID must be a number" in run("call", "How far did the camera travel?", code=2).stderr


def test_play_counts_what_it_published(make: Nodes, company: Company) -> None:
    node = make()
    played = json.loads(run("play", SCENE, "--limit", "5", "--rate", "0", "--json").stdout)
    assert (played["frames"], played["not_sent"]) == (5, 0)
    assert node.engine is not None
    engine = node.engine
    wait_for(lambda: len(engine.memory) == 5, "frames in memory")


def test_the_sensor_model_of_a_player_is_not_needed() -> None:
    """A player takes anything that is a source; this one is stopped before it has begun."""

    class Nothing:
        info = SourceInfo("nothing", sensor=SensorModel())
        refused: Any = None

        def frames(self) -> Iterator[Frame]:
            yield frame(0)

        def stamp_of(self, name: str) -> int:
            raise KeyError(name)

    with DdsNode("stopped", ros_args=[]) as node:
        player = Player(node, Nothing(), PlayerOptions())
        player.stop()
        assert not player.wait_for_listener(5.0)
        player.play()
        assert player.frames == 0
