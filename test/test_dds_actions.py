"""Goals over DDS: accepted, told about, answered, cancelled; the protocol of ROS 2's actions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from spatial_mllm_ros.dds import (
    DdsNode,
    GoalStatus,
    ServiceNotAvailable,
    ServiceTimeout,
    WorkerPool,
    actions,
    is_installed,
)

pytestmark = pytest.mark.skipif(not is_installed(), reason="cyclonedds is not installed")

ACTION = "spatial_mllm_ros/action/SpatialQuery"
CANCEL = "action_msgs/srv/CancelGoal"
PATIENCE_S = 20.0


class World:
    """A server whose goals do what they are told, and a client."""

    def __init__(self) -> None:
        self.server_node, self.node = DdsNode("server", ros_args=[]), DdsNode("client", ros_args=[])
        self.pool = WorkerPool(2, 64)
        self.runs: dict[str, Future[tuple[GoalStatus, Any]]] = {}
        self.tell: dict[str, Callable[[str], None]] = {}
        self.monotonic = 0.0
        self.statuses: list[list[int]] = []
        self.server = self.server_node.create_action_server(
            ACTION,
            "/ask",
            self.execute,
            cancelled=lambda: self.result("cancelled"),
            failed=lambda error: self.result(str(error)),
            pool=self.pool,
            monotonic=lambda: self.monotonic,
        )
        self.node.create_subscription(
            "action_msgs/msg/GoalStatusArray", "/ask/_action/status", self.on_status, "latched"
        )
        self.client = self.node.create_action_client(ACTION, "/ask")
        assert self.client.wait_for_server(PATIENCE_S)
        self.threads = ThreadPoolExecutor(8)

    def execute(self, goal: Any, tell: Callable[[Any], object]) -> Future[tuple[GoalStatus, Any]]:
        if goal.question == "fail":
            raise RuntimeError("out of cheese")
        run: Future[tuple[GoalStatus, Any]] = Future()
        message = self.server_node.message
        self.tell[goal.question] = lambda text: tell(message(f"{ACTION}_Feedback", partial_answer=text))  # type: ignore[assignment,func-returns-value]
        self.runs[goal.question] = run
        return run

    def on_status(self, payload: Any, _: Any) -> None:
        self.statuses.append([status.status for status in payload.decode().status_list])

    def result(self, answer: str) -> Any:
        return self.server_node.message(f"{ACTION}_Result", answer=answer)

    def send(self, question: str, timeout_s: float = PATIENCE_S) -> tuple[Future[tuple[GoalStatus, Any]], list[str]]:
        """A goal on its way, and the feedback that it gets."""
        heard: list[str] = []
        goal = self.node.message(f"{ACTION}_Goal", question=question)
        sent = self.threads.submit(
            self.client.call, goal, timeout_s, lambda feedback: heard.append(feedback.partial_answer)
        )
        return sent, heard

    def begin(self, question: str, timeout_s: float = PATIENCE_S) -> tuple[Future[tuple[GoalStatus, Any]], list[str]]:
        sent = self.send(question, timeout_s)
        wait_until(lambda: question in self.runs)
        return sent

    def call(self, type_name: str, name: str, **fields: Any) -> Any:
        client = self.node.create_client(type_name, f"/ask/_action/{name}")
        return client.call(self.node.message(f"{type_name}_Request", **fields), PATIENCE_S)

    def cancel(self, goal_id: bytes = bytes(16), stamp_s: int = 0) -> Any:
        info = self.node.message(
            "action_msgs/msg/GoalInfo",
            goal_id=self.uuid(goal_id),
            stamp=self.node.message("builtin_interfaces/msg/Time", sec=stamp_s),
        )
        return self.call(CANCEL, "cancel_goal", goal_info=info)

    def uuid(self, goal_id: bytes) -> Any:
        return self.node.message("unique_identifier_msgs/msg/UUID", uuid=np.frombuffer(goal_id, np.uint8))

    def close(self) -> None:
        self.threads.shutdown(wait=False)
        self.server.close()
        self.node.close()
        self.server_node.close()
        self.pool.close()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def wait_until(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.002)


def test_goals_beside_each_other(world: World) -> None:
    """Each gets its own feedback and its own result, in whatever order they end."""
    (a, heard_a), (b, heard_b) = world.begin("a"), world.begin("b")
    world.tell["a"]("it")
    world.tell["b"]("they")
    world.tell["a"]("it is")
    wait_until(lambda: len(heard_a) == 2 and heard_b)
    world.runs["b"].set_result((GoalStatus.ABORTED, world.result("no")))
    assert b.result(PATIENCE_S)[0] is GoalStatus.ABORTED
    assert not a.done()
    world.runs["a"].set_result((GoalStatus.SUCCEEDED, world.result("it is so")))
    status, result = a.result(PATIENCE_S)
    assert (status, result.answer) == (GoalStatus.SUCCEEDED, "it is so")
    assert (heard_a, heard_b) == (["it", "it is"], ["they"])
    wait_until(lambda: world.statuses and world.statuses[-1] == [GoalStatus.SUCCEEDED, GoalStatus.ABORTED])


def test_an_execution_that_fails_is_told(world: World) -> None:
    status, result = world.send("fail")[0].result(PATIENCE_S)
    assert (status, result.answer) == (GoalStatus.ABORTED, "out of cheese")
    sent, _ = world.begin("later")
    world.runs["later"].set_exception(RuntimeError("out of wine"))
    status, result = sent.result(PATIENCE_S)
    assert (status, result.answer) == (GoalStatus.ABORTED, "out of wine")


def test_who_gives_up_cancels_the_goal(world: World) -> None:
    sent, _ = world.begin("slow", timeout_s=1.0)
    with pytest.raises(ServiceTimeout):
        sent.result(PATIENCE_S)
    assert world.runs["slow"].cancelled()
    wait_until(lambda: world.statuses[-1:] == [[GoalStatus.CANCELED]])


def test_which_goals_are_cancelled(world: World) -> None:
    """By id; by the time of acceptance; or all. Those that have ended are not."""
    ended, _ = world.begin("ended")
    world.runs["ended"].set_result((GoalStatus.SUCCEEDED, world.result("")))
    ended.result(PATIENCE_S)
    running = [world.begin(name)[0] for name in "abc"]
    ids = list(world.server._goals)
    codes = actions.CancelCode
    assert world.cancel(b"x" * 16).return_code == codes.UNKNOWN_GOAL_ID
    assert world.cancel(ids[0]).return_code == codes.GOAL_TERMINATED
    found = world.cancel(ids[2])
    assert (found.return_code, [bytes(g.goal_id.uuid) for g in found.goals_canceling]) == (codes.NONE, [ids[2]])
    assert running[1].result(PATIENCE_S)[0] is GoalStatus.CANCELED
    assert world.cancel(stamp_s=1).goals_canceling == []
    assert not running[0].done()
    assert len(world.cancel(stamp_s=2**31 - 1).goals_canceling) == 2
    assert {r.result(PATIENCE_S)[0] for r in running} == {GoalStatus.CANCELED}
    assert world.cancel().goals_canceling == []


def test_a_goal_is_accepted_once_and_its_result_kept_for_a_while(world: World) -> None:
    named = {"goal_id": world.uuid(b"0123456789abcdef")}
    goal = world.node.message(f"{ACTION}_Goal", question="late")
    assert world.call(f"{ACTION}_SendGoal", "send_goal", goal=goal, **named).accepted
    assert not world.call(f"{ACTION}_SendGoal", "send_goal", goal=goal, **named).accepted
    world.runs["late"].set_result((GoalStatus.SUCCEEDED, world.result("there")))
    for _ in range(2):
        assert world.call(f"{ACTION}_GetResult", "get_result", **named).result.answer == "there"
    world.monotonic += actions.RESULT_KEPT_S + 1
    world.begin("another")
    assert world.call(f"{ACTION}_GetResult", "get_result", **named).status == GoalStatus.UNKNOWN


def test_without_a_server() -> None:
    with DdsNode("lonely", ros_args=[]) as node:
        client = node.create_action_client(ACTION, "/nobody")
        assert not client.wait_for_server(0.05)
        begin = time.monotonic()
        with pytest.raises(ServiceNotAvailable):
            client.call(node.message(f"{ACTION}_Goal"), 0.1, lambda _: None)
        assert time.monotonic() - begin < 2.0
