"""The lifecycle node on a real ROS 2, in this process, with other nodes around it."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 is sourced")
pytest.importorskip("spatial_mllm_ros.srv", reason="the ROS 2 package is not built: scripts/test_ros.sh builds it")

import rclpy
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from camera_player import BEST_EFFORT, CameraPlayer
from rcl_interfaces.srv import DescribeParameters
from rclpy.action import ActionClient
from robot import Robot, wait_for, wait_for_future
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from wall import START_NS, frame, point

from spatial_mllm_ros.action import SpatialQuery as SpatialQueryAction
from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.msg import ImagePoint
from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.inbox import Kind
from spatial_mllm_ros.nodes.ros_node import MAKE
from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.answer import ImagePoint as DomainPoint
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.scene.pose import from_quaternion
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.srv import SpatialQuery

Robots = Callable[..., Robot]
Cameras = Callable[..., CameraPlayer]


@pytest.fixture
def camera(cameras: Cameras) -> CameraPlayer:
    return cameras()


def play(player: CameraPlayer, robot: Robot, count: int = 10, start_ns: int = START_NS) -> None:
    player.wait_for_subscribers()
    before = len(robot.engine.memory)
    for index in range(count):
        player.send(frame(index, start_ns))
        time.sleep(0.01)
    wait_for(lambda: len(robot.engine.memory) == before + count, f"{count} frames in memory")


DEPTH = {"question": "How deep is <p0>, in cm?", "points": [point(0, 20.0, 20.0)]}


def test_from_camera_to_answer(robots: Robots, camera: CameraPlayer) -> None:
    """Over the wire the same answers as without it."""
    robot = robots()
    robot.activate()
    play(camera, robot)
    memory = SpatialMemory()
    for index in range(10):
        memory.add(frame(index))
    engine = SpatialQueryEngine(memory, SensorModel.exact())
    questions: list[tuple[str, list[ImagePoint]]] = [
        (str(DEPTH["question"]), [point(0, 20.0, 20.0)]),
        ("How far apart are <p0> and <p1>?", [point(0, 10.0, 20.0), point(9, 50.0, 20.0)]),
        ("How far did the camera travel?", []),
        ("What is the meaning of life?", []),
    ]
    for question, points in questions:
        got = convert.answer_of(robot.ask(question, points=points))
        asked = tuple(DomainPoint(convert._ns(p.header.stamp), p.header.frame_id, p.u, p.v) for p in points)
        expected = engine.answer(Request(question, points=asked))
        assert (got.answer, got.error_code, got.unit) == (expected.answer, expected.error_code, expected.unit)
        assert got.value == pytest.approx(expected.value, nan_ok=True)
        assert [e.keyframe_id for e in got.evidence] == [e.keyframe_id for e in expected.evidence]
    wait_for(lambda: "10 frames" in robot.diagnosis("memory"), "diagnostics")


def test_keyframes_reach_those_who_come_late(robots: Robots, camera: CameraPlayer) -> None:
    robot = robots()
    robot.activate()
    play(camera, robot)
    time.sleep(0.5)
    robot.listen_to_keyframes()
    (message, *_) = wait_for(lambda: robot.keyframes, "keyframes")
    assert message.header.frame_id == "map"
    assert message.covered == message.total > 0
    assert [k.rank for k in message.keyframes] == list(range(len(message.keyframes)))


def test_all_states_and_back(robots: Robots, camera: CameraPlayer) -> None:
    """Inactive keeps what was seen, cleaning up forgets it; whoever asks meanwhile is told the state."""
    robot = robots()
    assert robot.state == "unconfigured"
    assert robot.change("configure")
    answer = robot.ask("How far did the camera travel?")
    assert (answer.error_code, answer.error_msg) == (ErrorCode.CANCELLED, "the node is not active")
    assert robot.change("activate")
    play(camera, robot)
    assert robot.change("deactivate")
    assert robot.state == "inactive"
    assert robot.ask(**DEPTH).error_msg == "the node was deactivated"
    assert robot.change("activate")
    assert robot.ask(**DEPTH).error_code == ErrorCode.NONE
    assert robot.change("deactivate")
    assert robot.change("cleanup")
    assert robot.state == "unconfigured"
    robot.activate()
    assert robot.ask(**DEPTH).error_code == ErrorCode.NO_FRAMES
    assert not robot.change("configure")  # from active: refused, and nothing breaks
    assert robot.change("shutdown")
    assert robot.state == "finalized"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"model": "some/checkpoint"}, "spatial-mllm download some/checkpoint"),
        ({"sensor_model": "/nowhere/sensor.yaml"}, "sensor_model is '/nowhere/sensor.yaml'"),
    ],
)
def test_configuring_fails_with_the_reason(
    robots: Robots, capfd: pytest.CaptureFixture[str], parameters: dict[str, Any], reason: str
) -> None:
    """And once the parameter is right, the same node can be configured."""
    robot = robots(**parameters)
    assert not robot.change("configure")
    assert robot.state == "unconfigured"
    # read where people read it: what /rosout delivers to a node of the same process depends on who was there first
    assert reason in capfd.readouterr().err
    (name,) = parameters
    assert robot.set_parameter(name, "rgbd" if name == "sensor_model" else "").successful
    assert robot.change("configure")


def test_parameters(robots: Robots) -> None:
    """Described with their limits; those that may change take effect, the others are refused with what to do."""
    robot = robots()
    request = DescribeParameters.Request(names=["timeout_s", "query_queue"])
    timeout, queue = robot.call(DescribeParameters, "/spatial_mllm/describe_parameters", request).descriptors
    assert (timeout.floating_point_range[0].to_value, queue.read_only) == (3600.0, True)
    assert robot.set_parameter("max_frames", 5).successful  # unconfigured
    robot.activate()
    assert robot.engine.memory.config.max_frames == 5
    assert robot.set_parameter("timeout_s", 2.5).successful
    assert robot.engine.settings.timeout_s == 2.5
    for name, value, reason in (
        ("timeout_s", -1.0, "out of range"),
        ("timeout_s", float("nan"), "range"),
        ("on_clock_reset", "explode", "one of forget, keep"),
        ("query_queue", 3, "read-only"),
        ("max_frames", 6, "`ros2 lifecycle set /spatial_mllm cleanup`"),
        ("timeout_s", "soon", "type"),
    ):
        result = robot.set_parameter(name, value)
        assert not result.successful
        assert reason in result.reason
    assert robot.engine.settings.timeout_s == 2.5


def test_an_integer_is_taken_for_a_double(robots: Robots) -> None:
    """As in a file with `timeout_s: 30`."""
    assert robots(timeout_s=30).node.settings().timeout_s == 30.0


def test_best_effort_cameras_are_heard(robots: Robots, cameras: Cameras) -> None:
    """auto follows what the publisher offers."""
    robot = robots()
    robot.activate()
    play(cameras("best_effort_camera", qos=BEST_EFFORT), robot)


def test_a_qos_mismatch_is_named_with_its_remedy(robots: Robots, cameras: Cameras) -> None:
    """Silence is what users complain of most."""
    robot = robots(color_qos="reliable")
    robot.activate()
    cameras("best_effort_camera", qos=BEST_EFFORT)
    wait_for(lambda: "quality of service" in robot.diagnosis("input: color"), "diagnostics")
    text = robot.diagnosis("input: color")
    assert "/camera/color/image_raw" in text
    assert "Set color_qos to sensor_data or auto" in text
    wait_for(lambda: text in robot.logged, "the same in the log")


def test_what_is_logged_beside_launch_is_told(robots: Robots) -> None:
    """In a process that has imported ROS's launch, new loggers tell their parents nothing: ours must."""
    names = (
        "spatial_mllm_ros.nodes.live",
        "spatial_mllm_ros.serving.child",
    )  # the second one is imported late, if ever
    for name in names:
        logging.getLogger(name).propagate = False  # as launch makes them
    robot = robots()
    for name in names:
        logging.getLogger(name).warning("told by %s", name)
    wait_for(lambda: {f"told by {name}" for name in names} <= set(robot.logged), "what was logged reaches /rosout")


def test_bad_input_leaves_the_node_serving(robots: Robots, camera: CameraPlayer) -> None:
    """Truncated and foreign bytes, unknown encodings, data that contradicts its header, loops in the TF tree."""
    robot = robots()
    robot.activate()
    camera.wait_for_subscribers()
    color, tf = camera.outputs[Kind.COLOR], camera.outputs[Kind.TF]
    image = dict(convert.camera_messages(frame(0), MAKE))[Kind.COLOR]
    whole = rclpy.serialization.serialize_message(image)
    for data in (b"", b"\0", b"\0\1\0\0", whole[: len(whole) // 2], b"\0\1\0\0" + b"\xff" * 500, os.urandom(1000)):
        color.publish(data)
    for changes in ({"encoding": "h264"}, {"step": 3}, {"data": [1, 2, 3]}, {"height": 2**32 - 1}):
        for name, value in changes.items():
            setattr(image, name, value)
        color.publish(image)
    color.publish(Image())
    T = from_quaternion((0, 0, 0, 1))
    tf.publish(convert.tf_message([("a", "b", 1, T), ("b", "a", 1, T)], MAKE))
    wait_for(lambda: robot.engine.status().refused.get("tf_loop") == 1, "the loop is refused")
    play(camera, robot)
    assert robot.ask(**DEPTH).error_code == ErrorCode.NONE
    refused = {reason: n for (stream, reason), n in robot.engine.refused.items() if stream.kind is Kind.COLOR}
    assert refused.pop("undecodable_message") >= 3
    assert set(refused) <= {"unknown_encoding", "row_step", "data_size"}


def test_a_camera_that_dies_and_comes_back(robots: Robots, cameras: Cameras) -> None:
    robot = robots()
    robot.activate()
    for round_ in range(2):
        player = cameras(f"camera_{round_}")
        play(player, robot, 5, START_NS + round_ * 10**9)
        player.destroy_node()


def test_transitions_under_traffic(robots: Robots, camera: CameraPlayer) -> None:
    """Subscriptions come and go while messages and questions pour in: nothing hangs, every question is answered."""
    robot = robots()
    stop, number = threading.Event(), [0]

    def publish() -> None:
        while not stop.is_set():
            camera.send(frame(number[0]))
            number[0] += 1
            time.sleep(0.005)

    thread = threading.Thread(target=publish)
    thread.start()
    answers = []
    for _ in range(8):
        robot.activate()
        wait_for(lambda: len(robot.engine.memory) > 3, "frames")
        request = SpatialQuery.Request(question="How far did the camera travel?")
        answers += [robot.send(SpatialQuery, "spatial_query", request) for _ in range(5)]
        assert robot.change("deactivate")
        assert robot.change("cleanup")
    stop.set()
    thread.join()
    codes = {ErrorCode(wait_for_future(a).error_code) for a in answers}
    assert codes <= {ErrorCode.NONE, ErrorCode.CANCELLED, ErrorCode.NO_FRAMES}


def test_goals(robots: Robots, camera: CameraPlayer) -> None:
    """The action answers as the service does, says why not, tells text as it comes, and is cancelled."""
    robot = robots(query_workers=1)
    robot.activate()
    play(camera, robot)
    client = ActionClient(robot.other, SpatialQueryAction, "spatial_query")
    assert client.wait_for_server(20.0)
    heard: list[str] = []

    def send(question: str, **fields: Any) -> Any:
        goal = SpatialQueryAction.Goal(question=question, **fields)
        return wait_for_future(client.send_goal_async(goal, lambda m: heard.append(m.feedback.partial_answer)))

    def ended(handle: Any) -> tuple[int, Any]:
        response = wait_for_future(handle.get_result_async())
        return response.status, convert.answer_of(response.result)

    status, answer = ended(send(**DEPTH))
    asked = convert.answer_of(robot.ask(**DEPTH))
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert (answer.answer, answer.value, str(answer.evidence)) == (asked.answer, asked.value, str(asked.evidence))
    status, answer = ended(send("What is the meaning of life?"))
    assert (status, answer.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.NO_MODEL)
    status, answer = ended(send(""))
    assert (status, answer.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.INVALID_REQUEST)

    def slow(request: Request, cancelled: Any, on_text: Any) -> Any:
        on_text("let me")
        while not cancelled():
            time.sleep(0.005)
        return Answer(error_code=ErrorCode.CANCELLED)

    robot.engine._pool._answer = slow
    handle = send("How far did the camera travel?")
    wait_for(lambda: heard, "feedback")
    assert len(wait_for_future(handle.cancel_goal_async()).goals_canceling) == 1
    status, answer = ended(handle)
    assert (status, answer.error_code, heard) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELLED, ["let me"])
    client.destroy()


def test_thousands_of_calls_leave_nothing_behind(robots: Robots, camera: CameraPlayer) -> None:
    robot = robots()
    robot.activate()
    play(camera, robot)

    def calls(count: int) -> None:
        for _ in range(count // 50):
            asked = [robot.send(SpatialQuery, "spatial_query", SpatialQuery.Request(**DEPTH)) for _ in range(50)]
            assert {wait_for_future(a).error_code for a in asked} == {ErrorCode.NONE}

    def footprint() -> tuple[int, int, int]:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") >> 20, len(os.listdir("/proc/self/fd")), threading.active_count()

    calls(500)
    mib, files, threads = footprint()
    calls(2000)
    mib_after, files_after, threads_after = footprint()
    assert mib_after - mib < 20
    assert files_after <= files + 2
    assert threads_after <= threads + 70  # executors make their threads one by one, up to their bound


def test_sixty_four_clients_are_served_or_told_busy(robots: Robots, camera: CameraPlayer) -> None:
    """And images, parameters and transitions are served beside them."""
    robot = robots(query_queue=4, query_workers=1)
    robot.activate()
    play(camera, robot)
    asked = [robot.send(SpatialQuery, "spatial_query", SpatialQuery.Request(**DEPTH)) for _ in range(64)]
    assert robot.set_parameter("timeout_s", 5.0).successful
    codes = [ErrorCode(wait_for_future(a).error_code) for a in asked]
    assert len(codes) == 64
    assert set(codes) <= {ErrorCode.NONE, ErrorCode.BUSY}


def test_a_clock_that_jumps_back(robots: Robots, camera: CameraPlayer, caplog: pytest.LogCaptureFixture) -> None:
    """With use_sim_time, as when a recording starts over: what was seen then is of another time."""
    robot = robots(use_sim_time=True)
    robot.activate()
    clock = robot.other.create_publisher(Clock, "/clock", 10)
    wait_for(clock.get_subscription_count, "somebody listens to /clock")
    clock.publish(Clock(clock=Time(sec=1_700_000_100)))
    wait_for(lambda: robot.node.get_clock().now().nanoseconds > 0, "simulated time")
    play(camera, robot)
    clock.publish(Clock(clock=Time(sec=1_699_999_000)))
    wait_for(lambda: robot.node.get_clock().now().nanoseconds < 1_700_000_000 * 10**9, "the earlier time")
    wait_for(lambda: "the clock was set back" in caplog.text, "the node's notice of it")
    camera.send(frame(0, START_NS - 1000 * 10**9))
    wait_for(lambda: robot.engine.resets == 1, "a reset")
    play(camera, robot, 3, START_NS - 1000 * 10**9 + 100_000_000)


def test_two_nodes_of_one_name(robots: Robots) -> None:
    """Both go on; the log says how to tell them apart."""
    first, second = robots(), robots()
    for robot in (first, second):
        robot.node.trigger_configure()
        robot.node.trigger_activate()
    wait_for(lambda: any("-r __node:=" in text for text in first.logged), "a warning")
    assert (first.state, second.state) == ("active", "active")
