"""Nodes on Cyclone DDS: several in this process, and one in another over the loopback interface."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatial_mllm_ros.dds import (
    DdsNode,
    DeclaredParameters,
    Descriptor,
    Lifecycle,
    MalformedPayload,
    NodeClock,
    ParameterServices,
    ParameterType,
    QosMismatch,
    QosProfile,
    Range,
    Result,
    RosoutHandler,
    ServiceNotAvailable,
    ServiceTimeout,
    SetResult,
    State,
    WorkerPool,
    is_installed,
)
from spatial_mllm_ros.dds import library as dds
from spatial_mllm_ros.dds.endpoints import Writer
from spatial_mllm_ros.dds.parameters import value_message, value_of
from spatial_mllm_ros.dds.qos import DEFAULT

pytestmark = pytest.mark.skipif(not is_installed(), reason="cyclonedds is not installed")

STRING, IMAGE = "std_msgs/msg/String", "sensor_msgs/msg/Image"
SET_BOOL, TRIGGER, QUERY = "std_srvs/srv/SetBool", "std_srvs/srv/Trigger", "spatial_mllm_ros/srv/SpatialQuery"
PATIENCE_S = 20.0
HEADER = b"\x00\x01\x00\x00"


@pytest.fixture
def make() -> Iterator[Callable[..., DdsNode]]:
    """Makes nodes that are closed after the test."""
    nodes: list[DdsNode] = []

    def made(name: str, *arguments: str, **options: Any) -> DdsNode:
        nodes.append(DdsNode(name, ros_args=arguments, **options))
        return nodes[-1]

    yield made
    for node in nodes:
        node.close()


@pytest.fixture
def node(make: Callable[..., DdsNode]) -> DdsNode:
    return make("tested")


@pytest.fixture
def peer() -> Iterator[subprocess.Popen[str]]:
    """This file run as a program: a node in another process (see ``_peer``)."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    if process.poll() is None:
        process.communicate("\n", timeout=PATIENCE_S)
        assert process.returncode == 0


def wait_until(condition: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen within {PATIENCE_S:g} s"
        time.sleep(0.005)


class Inbox:
    """A callback that keeps decoded messages."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def __call__(self, payload: Any, _: Any) -> None:
        self.messages.append(payload.decode())

    def wait(self, count: int = 1) -> list[Any]:
        wait_until(lambda: len(self.messages) >= count, f"message {count}")
        return self.messages


def image(node: DdsNode, height: int = 480, width: int = 640) -> Any:
    data = np.random.default_rng(1).integers(0, 256, height * width * 3, dtype=np.uint8)
    return node.message(IMAGE, height=height, width=width, encoding="rgb8", step=3 * width, data=data)


def test_reliable_topic_brings_all_messages(node: DdsNode) -> None:
    inbox = Inbox()
    publisher = node.create_publisher(STRING, "words", QosProfile(depth=0))
    subscription = node.create_subscription(STRING, "words", inbox, QosProfile(depth=0))
    wait_until(lambda: publisher.subscription_count == 1 and subscription.publisher_count == 1, "matching")
    for index in range(200):
        assert publisher.publish(node.message(STRING, data=f"word {index}"))
    assert [m.data for m in inbox.wait(200)] == [f"word {index}" for index in range(200)]
    assert not node.troubles.counts


def test_latched_topic_brings_the_last_message_to_who_comes_later(make: Callable[..., DdsNode]) -> None:
    first, later = make("first"), make("later")
    publisher = first.create_publisher(STRING, "/map_name", "latched")
    for name in ("old", "new"):
        publisher.publish(first.message(STRING, data=name))
    inbox = Inbox()
    later.create_subscription(STRING, "/map_name", inbox, "latched")
    assert [m.data for m in inbox.wait()] == ["new"]


def test_images_to_and_from_another_process(node: DdsNode, peer: subprocess.Popen[str]) -> None:
    """Best effort, far larger than a packet, unchanged there and back."""
    inbox = Inbox()
    node.create_subscription(IMAGE, "/images_back", inbox, "sensor_data")
    publisher = node.create_publisher(IMAGE, "/images", "sensor_data")
    sent = image(node)

    def came_back() -> bool:
        publisher.publish(sent)
        time.sleep(0.05)
        return bool(inbox.messages)

    wait_until(came_back, "an image back")
    np.testing.assert_array_equal(inbox.messages[0].data, sent.data)


def test_twenty_clients_at_once(node: DdsNode, peer: subprocess.Popen[str]) -> None:
    """Every reply reaches the client whose request it answers."""
    clients = [node.create_client(QUERY, "/ask") for _ in range(20)]

    def ask(index: int) -> list[str]:
        questions = [f"question {index}.{number}" for number in range(5)]
        return [
            clients[index].call(node.message(f"{QUERY}_Request", question=q), PATIENCE_S).answer == f"about {q}"
            for q in questions
        ]

    with ThreadPoolExecutor(20) as pool:
        assert all(all(answers) for answers in pool.map(ask, range(20)))


def test_graph_shows_the_other_process(node: DdsNode, peer: subprocess.Popen[str]) -> None:
    wait_until(lambda: "/ask" in node.services(), "discovery")
    assert node.services()["/ask"] == QUERY
    wait_until(lambda: node.topics().get("/images") == [IMAGE], "discovery")
    [subscription] = [e for e in node.endpoints() if e.topic == "/images"]
    assert not subscription.is_publisher
    assert not subscription.qos.reliable
    assert subscription.qos.depth == 5


def test_client_that_vanishes_is_no_trouble(node: DdsNode) -> None:
    """A process that is killed between its request and the reply."""
    asked, go_on = threading.Event(), threading.Event()

    def slow(request: Any) -> Any:
        asked.set()
        go_on.wait(PATIENCE_S)
        return node.message(f"{SET_BOOL}_Response", success=request.data)

    node.create_service(SET_BOOL, "/slow", slow)
    process = subprocess.Popen([sys.executable, __file__, "ask_slow"], env=os.environ.copy())
    assert asked.wait(PATIENCE_S)
    process.kill()
    process.wait()
    go_on.set()
    client = node.create_client(SET_BOOL, "/slow")
    assert client.call(node.message(f"{SET_BOOL}_Request", data=True), PATIENCE_S).success
    assert set(node.troubles.counts) <= {"client_gone"}


def test_a_thousand_calls_leave_nothing_behind(node: DdsNode) -> None:
    node.create_service(SET_BOOL, "~/set", lambda r: node.message(f"{SET_BOOL}_Response", success=r.data))
    client = node.create_client(SET_BOOL, "~/set")
    request = node.message(f"{SET_BOOL}_Request", data=True)

    def call(times: int) -> tuple[int, int]:
        for _ in range(times):
            assert client.call(request, PATIENCE_S).success
        return descriptors(), resident_bytes()

    before = call(200)
    after = call(1000)
    assert after[0] == before[0]
    assert after[1] - before[1] < 8e6
    assert not client._waiting


def test_nodes_leave_nothing_behind() -> None:
    DdsNode("before", ros_args=[]).close()
    threads, open_files = threading.active_count(), descriptors()
    for _ in range(5):
        with DdsNode("short_lived", ros_args=[]) as node:
            node.create_service(TRIGGER, "~/x", lambda _: None)
            node.create_subscription(STRING, "y", lambda *_: None)
    node.close()
    assert threading.active_count() == threads
    assert descriptors() == open_files
    with pytest.raises(dds.DdsError):
        node.create_publisher(STRING, "late")


def descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def resident_bytes() -> int:
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.is_file() else 0


BAD_STRINGS = [
    HEADER + b"\x00",
    HEADER + b"\xff\xff\xff\xff",
    HEADER + b"\x09\x00\x00\x00abc\x00",
    HEADER + b"\x03\x00\x00\x00\xff\xfe\x00",
    HEADER + b"\x02\x00\x00\x00a\x00" + bytes(40),
    b"\x00\x07\x00\x00\x02\x00\x00\x00a\x00",
]


def test_bad_payloads_are_counted_and_dropped(node: DdsNode, caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox()
    publisher = node.create_publisher(STRING, "words", QosProfile(depth=0))
    node.create_subscription(STRING, "words", inbox, QosProfile(depth=0))
    wait_until(lambda: publisher.subscription_count == 1, "matching")
    with caplog.at_level(logging.WARNING):
        for payload in BAD_STRINGS:
            publisher.publish(payload)
        publisher.publish(node.message(STRING, data="good"))
        assert [m.data for m in inbox.wait()] == ["good"]
    assert node.troubles.counts == {"malformed": len(BAD_STRINGS)}
    told = [r for r in caplog.records if "/words" in r.getMessage()]
    assert len(told) == 1, "one line for a flood"
    with pytest.raises(dds.DdsError, match="refuses"):
        publisher.publish(HEADER)


def test_bad_requests_and_replies(node: DdsNode) -> None:
    node.create_service(SET_BOOL, "/set", lambda r: node.message(f"{SET_BOOL}_Response", success=r.data))
    client = node.create_client(SET_BOOL, "/set")
    requests = Writer(node, "rq/setRequest", f"{SET_BOOL}_Request", DEFAULT, "", "/set")
    replies = Writer(node, "rr/setReply", f"{SET_BOOL}_Response", DEFAULT, "", "/set")
    wait_until(lambda: requests.matched() and replies.matched(), "matching")
    for payload in (HEADER + b"x", HEADER + bytes(16), HEADER + bytes(40)):
        requests.write([payload])
        replies.write([payload])
    assert client.call(node.message(f"{SET_BOOL}_Request", data=True), PATIENCE_S).success
    wait_until(lambda: node.troubles.counts["malformed"] >= 4, "counting")
    number, future = client._send(node.message(f"{SET_BOOL}_Request", data=True))
    future.result(PATIENCE_S)
    client._waiting[number] = again = Future()
    replies.write([HEADER + client._handle.to_bytes(8, "little") + number.to_bytes(8, "little") + b"\xff" * 7])
    with pytest.raises(MalformedPayload):
        again.result(PATIENCE_S)
    requests.close()
    replies.close()


def test_callback_that_fails_does_not_end_the_subscription(node: DdsNode) -> None:
    seen = []

    def callback(payload: Any, info: Any) -> None:
        seen.append((info.topic, payload.decode().data))
        raise RuntimeError("on purpose")

    publisher = node.create_publisher(STRING, "words")
    node.create_subscription(STRING, "words", callback)
    wait_until(lambda: publisher.subscription_count == 1, "matching")
    for word in ("a", "b"):
        publisher.publish(node.message(STRING, data=word))
    wait_until(lambda: len(seen) == 2, "both messages")
    assert seen == [("/words", "a"), ("/words", "b")]
    wait_until(lambda: node.troubles.counts == {"callback_failed": 2}, "counting")


@pytest.mark.parametrize(
    ("offered", "asked", "policy"),
    [
        (QosProfile(reliable=False), QosProfile(), "reliability"),
        (QosProfile(), QosProfile(transient_local=True), "durability"),
    ],
)
def test_qos_mismatch_is_told_to_both(
    make: Callable[..., DdsNode], offered: QosProfile, asked: QosProfile, policy: str
) -> None:
    told: list[QosMismatch] = []
    talker, listener = make("talker", on_qos_mismatch=told.append), make("listener", on_qos_mismatch=told.append)
    talker.create_publisher(STRING, "words", offered)
    listener.create_subscription(STRING, "words", lambda *_: None, asked)
    wait_until(lambda: len(told) == 2, "both events")
    assert {m.of_publisher for m in told} == {True, False}
    for mismatch in told:
        assert (mismatch.topic, mismatch.policy) == ("/words", policy)
        assert f"Set the {policy}" in str(mismatch)
    assert talker.troubles.counts == listener.troubles.counts == {"qos_mismatch": 1}


def test_subscription_is_replaced_when_its_qos_does_not_fit(make: Callable[..., DdsNode]) -> None:
    """What a node does whose quality of service is "auto": from within the event, on the thread that tells it."""
    inbox, talker = Inbox(), make("talker")
    publisher = talker.create_publisher(STRING, "words", "sensor_data")

    def ask_for_less(mismatch: QosMismatch) -> None:
        mismatch.endpoint.close()
        listener.create_subscription(STRING, mismatch.topic, inbox, "sensor_data")

    listener = make("listener", on_qos_mismatch=ask_for_less)
    listener.create_subscription(STRING, "words", inbox)
    wait_until(lambda: publisher.subscription_count, "matching")

    def arrived() -> bool:
        publisher.publish(talker.message(STRING, data="heard"))
        time.sleep(0.01)
        return bool(inbox.messages)

    wait_until(arrived, "a message")
    assert listener.troubles.counts == {"qos_mismatch": 1}


def test_no_server_and_no_answer(node: DdsNode) -> None:
    client = node.create_client(TRIGGER, "/nobody")
    with pytest.raises(ServiceNotAvailable, match=r"/nobody .*ROS_DOMAIN_ID"):
        client.call(node.message(f"{TRIGGER}_Request"), 0.05)
    node.create_service(TRIGGER, "/silent", lambda _: Future())
    silent = node.create_client(TRIGGER, "/silent")
    assert silent.wait_for_service(PATIENCE_S)
    with pytest.raises(ServiceTimeout, match="/silent"):
        silent.call(node.message(f"{TRIGGER}_Request"), 0.3)
    future = silent.call_async(node.message(f"{TRIGGER}_Request"))
    future.cancel()
    assert not silent._waiting


def test_answers_of_every_kind(node: DdsNode) -> None:
    """At once, by a Future, too busy, and failed: the caller gets an answer each time."""
    release = threading.Event()
    started = threading.Event()

    def reply(text: str) -> Any:
        return node.message(f"{SET_BOOL}_Response", message=text)

    def handler(request: Any) -> Any:
        started.set()
        release.wait(PATIENCE_S)
        if request.data:
            raise RuntimeError("on purpose")
        future: Future[Any] = Future()
        threading.Timer(0.01, lambda: future.set_result(reply("later"))).start()
        return future

    pool = WorkerPool(1, 1)
    node.create_service(
        SET_BOOL,
        "/s",
        handler,
        pool=pool,
        busy=lambda _: reply("busy"),
        failed=lambda _, error: reply(f"failed: {error}"),
    )
    client = node.create_client(SET_BOOL, "/s")
    assert client.wait_for_service(PATIENCE_S)
    first = client.call_async(node.message(f"{SET_BOOL}_Request"))
    assert started.wait(PATIENCE_S)
    second = client.call_async(node.message(f"{SET_BOOL}_Request", data=True))
    third = client.call_async(node.message(f"{SET_BOOL}_Request"))
    assert third.result(PATIENCE_S).message == "busy"
    release.set()
    assert first.result(PATIENCE_S).message == "later"
    assert second.result(PATIENCE_S).message == "failed: on purpose"
    assert node.troubles.counts == {"busy": 1, "handler_failed": 1}
    pool.close()


def test_subscription_may_call_a_service(node: DdsNode) -> None:
    node.create_service(TRIGGER, "/t", lambda _: node.message(f"{TRIGGER}_Response", message="yes"))
    client = node.create_client(TRIGGER, "/t")
    heard: list[str] = []
    node.create_subscription(
        STRING, "words", lambda *_: heard.append(client.call(node.message(f"{TRIGGER}_Request"), PATIENCE_S).message)
    )
    publisher = node.create_publisher(STRING, "words")
    wait_until(lambda: publisher.subscription_count, "matching")
    publisher.publish(node.message(STRING))
    wait_until(lambda: heard == ["yes"], "the reply")


def test_names_and_remapping(make: Callable[..., DdsNode]) -> None:
    node = make("old", "--ros-args", "-r", "__node:=new", "-r", "__ns:=/robot", "-r", "image:=/cam/rgb", "-p", "a:=2")
    assert node.name.full == "/robot/new"
    assert node.create_publisher(IMAGE, "image").topic == "/cam/rgb"
    assert node.create_service(TRIGGER, "~/t", lambda r: r).name == "/robot/new/t"
    assert node.parameter_overrides() == {"a": 2}


def test_parameter_services(make: Callable[..., DdsNode]) -> None:
    node, other = make("with_parameters"), make("other")
    refused = SetResult(False, "not that one")
    store = DeclaredParameters(on_set=lambda values: refused if values.get("name") == "no" else SetResult(True))
    store.declare("rate", 2.0, Descriptor(ParameterType.DOUBLE, "Rate", range=Range(0, 10, 0.5)))
    store.declare("name", "x")
    store.declare("count", 3, Descriptor(ParameterType.INTEGER, range=Range(1, 5)))
    store.declare("fixed", True, Descriptor(ParameterType.BOOL, read_only=True))
    store.declare("group.values", [1.0, 2.0])
    events = Inbox()
    subscription = other.create_subscription("rcl_interfaces/msg/ParameterEvent", "/parameter_events", events)
    services = ParameterServices(node, store)
    wait_until(lambda: subscription.publisher_count and services._events.subscription_count, "matching")

    def call(name: str, **fields: Any) -> Any:
        kind = "rcl_interfaces/srv/" + "".join(part.title() for part in name.split("_"))
        client = other.create_client(kind, f"/with_parameters/{name}")
        try:
            return client.call(other.message(f"{kind}_Request", **fields), PATIENCE_S)
        finally:
            client.close()

    def parameters(**values: Any) -> list[Any]:
        return [
            other.message("rcl_interfaces/msg/Parameter", name=n, value=value_message(other, v))
            for n, v in values.items()
        ]

    listed = call("list_parameters").result
    assert listed.names == ["rate", "name", "count", "fixed", "group.values"]
    assert listed.prefixes == ["group"]
    assert call("list_parameters", prefixes=["group"]).result.names == ["group.values"]
    assert "group.values" not in call("list_parameters", depth=1).result.names
    got = call("get_parameters", names=["rate", "group.values", "missing"]).values
    assert [value_of(v) for v in got] == [2.0, [1.0, 2.0], None]
    assert list(call("get_parameter_types", names=["rate", "missing"]).types) == [3, 0]
    [rate] = call("describe_parameters", names=["rate"]).descriptors
    assert (rate.description, rate.floating_point_range[0].to_value) == ("Rate", 10.0)
    results = call("set_parameters", parameters=parameters(rate=3, name="no", count=9, fixed=False, missing=1)).results
    assert [r.successful for r in results] == [True, False, False, False, False]
    assert results[1].reason == "not that one"
    assert "1 to 5" in results[2].reason
    assert store.get("rate") == 3.0
    assert not call("set_parameters_atomically", parameters=parameters(rate=4.0, count=9)).result.successful
    assert store.get("rate") == 3.0
    assert call("set_parameters_atomically", parameters=parameters(rate=4.5, count=5)).result.successful

    def changed() -> list[set[str]]:
        assert {event.node for event in events.messages} <= {"/with_parameters"}
        return [{p.name for p in event.changed_parameters} for event in events.messages if event.changed_parameters]

    wait_until(lambda: len(changed()) == 2, "both events")
    assert changed() == [{"rate"}, {"rate", "count"}]


@pytest.mark.parametrize(
    "value", [None, True, 3, 2.5, "text", b"\x01\x02", [True, False], [1, 2], [1.0], ["a", "b"], []]
)
def test_parameter_values_there_and_back(node: DdsNode, value: Any) -> None:
    assert value_of(value_message(node, value)) == value


@pytest.mark.parametrize(
    ("value", "words"), [(11.0, "from 0 to 10"), (0.3, "multiple of 0.5"), ("x", "double"), (True, "double")]
)
def test_parameters_that_do_not_fit(value: Any, words: str) -> None:
    store = DeclaredParameters()
    store.declare("rate", 2.0, Descriptor(ParameterType.DOUBLE, range=Range(0, 10, 0.5)))
    result = store.set({"rate": value})
    assert not result.successful
    assert words in result.reason
    with pytest.raises(ValueError, match="already"):
        store.declare("rate", 1.0)


class Steps:
    """Lifecycle callbacks that do as they are told."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.calls: list[str] = []

    def _done(self, name: str) -> Result:
        self.calls.append(name)
        result = self.results.get(name, Result.SUCCESS)
        if isinstance(result, Exception):
            raise result
        return result

    def on_configure(self) -> Result:
        return self._done("configure")

    def on_cleanup(self) -> Result:
        return self._done("cleanup")

    def on_activate(self) -> Result:
        return self._done("activate")

    def on_deactivate(self) -> Result:
        return self._done("deactivate")

    def on_shutdown(self, previous: State) -> Result:
        return self._done(f"shutdown from {previous.label}")

    def on_error(self, previous: State) -> Result:
        return self._done(f"error from {previous.label}")


def test_lifecycle(node: DdsNode) -> None:
    steps, events = Steps(), Inbox()
    lifecycle = Lifecycle(node, steps)
    node.create_subscription("lifecycle_msgs/msg/TransitionEvent", "~/transition_event", events)
    wait_until(lambda: lifecycle._events.subscription_count, "matching")
    change = node.create_client("lifecycle_msgs/srv/ChangeState", "~/change_state")
    state = node.create_client("lifecycle_msgs/srv/GetState", "~/get_state")
    transitions = node.create_client("lifecycle_msgs/srv/GetAvailableTransitions", "~/get_available_transitions")

    def ask(number: int = 0, label: str = "") -> tuple[bool, str]:
        transition = node.message("lifecycle_msgs/msg/Transition", id=number, label=label)
        request = node.message("lifecycle_msgs/srv/ChangeState_Request", transition=transition)
        success = change.call(request, PATIENCE_S).success
        current = state.call(node.message("lifecycle_msgs/srv/GetState_Request"), PATIENCE_S).current_state
        return success, current.label

    assert ask(3) == (False, "unconfigured")
    steps.results["configure"] = Result.FAILURE
    assert ask(1) == (False, "unconfigured")
    steps.results["configure"] = Result.SUCCESS
    assert ask(label="configure") == (True, "inactive")
    found = transitions.call(node.message("lifecycle_msgs/srv/GetAvailableTransitions_Request"), PATIENCE_S)
    assert [t.transition.id for t in found.available_transitions] == [2, 3, 6]
    assert ask(3) == (True, "active")
    steps.results["deactivate"] = RuntimeError("on purpose")
    assert ask(4) == (False, "unconfigured")
    assert steps.calls[-1] == "error from active"
    steps.results["configure"], steps.results["error from unconfigured"] = Result.ERROR, Result.FAILURE
    assert ask(1) == (False, "finalized")
    assert lifecycle.shutdown()
    goals = [e.goal_state.label for e in events.wait(12)]
    assert goals[-3:] == ["configuring", "errorprocessing", "finalized"]
    lifecycle.close()


def test_simulated_time(node: DdsNode) -> None:
    jumps: list[tuple[int, int]] = []
    clock = NodeClock(node, on_jump=lambda *times: jumps.append(times))
    assert abs(clock.now_ns() - time.time_ns()) < 1e9
    clock.use_sim_time = True
    assert clock.now_ns() == 0
    publisher = node.create_publisher("rosgraph_msgs/msg/Clock", "/clock", "clock")
    wait_until(lambda: publisher.subscription_count, "matching")
    for seconds in (5, 3):
        stamp = node.message("builtin_interfaces/msg/Time", sec=seconds, nanosec=7)
        publisher.publish(node.message("rosgraph_msgs/msg/Clock", clock=stamp))
        wait_until(lambda s=seconds: clock.now_ns() == s * 1_000_000_000 + 7, "the time")
    assert jumps == [(5_000_000_007, 3_000_000_007)]
    clock.use_sim_time = False
    assert clock.now_ns() > 1e18


def test_log_on_rosout(make: Callable[..., DdsNode]) -> None:
    node, other = make("logging", "--ros-args", "-r", "__ns:=/robot"), make("reader")
    inbox, logger = Inbox(), logging.getLogger("test_dds_node.rosout")
    handler = RosoutHandler(node)
    logger.addHandler(handler)
    try:
        logger.warning("something %s", "odd")
        other.create_subscription("rcl_interfaces/msg/Log", "/rosout", inbox, "rosout")
        [message] = inbox.wait()
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert (message.msg, message.level, message.name) == ("something odd", 30, "robot.logging")


def test_library_that_is_too_old_or_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dds, "_candidates", lambda: [])
    with pytest.raises(dds.DdsNotInstalled, match="pip install"):
        dds.library.__wrapped__()
    broken = tmp_path / "libddsc.so"
    broken.write_bytes(b"nothing")
    monkeypatch.setattr(dds, "_candidates", lambda: [broken])
    with pytest.raises(dds.DdsNotInstalled, match="does not serve"):
        dds.library.__wrapped__()


def _peer() -> None:
    """Sends images back and answers questions, until a line comes on the standard input."""
    with DdsNode("peer", ros_args=[]) as node:
        back = node.create_publisher(IMAGE, "/images_back", "sensor_data")
        node.create_subscription(IMAGE, "/images", lambda payload, _: back.publish(payload.data), "sensor_data")
        pool = WorkerPool(4, 64)
        node.create_service(
            QUERY, "/ask", lambda r: node.message(f"{QUERY}_Response", answer=f"about {r.question}"), pool=pool
        )
        print("ready", flush=True)
        sys.stdin.readline()
        pool.close()


def _ask_slow() -> None:
    with DdsNode("vanishing", ros_args=[]) as node:
        node.create_client(SET_BOOL, "/slow").call(node.message(f"{SET_BOOL}_Request"), PATIENCE_S)


if __name__ == "__main__":
    _ask_slow() if sys.argv[1:] == ["ask_slow"] else _peer()
