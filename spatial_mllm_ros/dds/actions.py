"""Actions: a goal that is accepted, told about, cancelled and answered, by three services and two topics.

As https://design.ros2.org/articles/actions.html has it: ``send_goal``, ``cancel_goal`` and ``get_result``, ``feedback``
and ``status`` below ``<name>/_action/``.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from spatial_mllm_ros.dds.clock import time_message
from spatial_mllm_ros.dds.endpoints import Payload, SampleInfo
from spatial_mllm_ros.dds.qos import QosProfile
from spatial_mllm_ros.dds.services import Service, ServiceNotAvailable, ServiceTimeout
from spatial_mllm_ros.dds.workers import WorkerPool

if TYPE_CHECKING:
    from spatial_mllm_ros.dds.node import DdsNode

RESULT_KEPT_S = 900.0
"""For clients that ask for it late, as in ROS 2."""
STATUS_QOS = QosProfile(transient_local=True, depth=1)
_REPLY_S = 2.0


class GoalStatus(IntEnum):
    """Of action_msgs/msg/GoalStatus."""

    UNKNOWN = 0
    ACCEPTED = 1
    EXECUTING = 2
    CANCELING = 3
    SUCCEEDED = 4
    CANCELED = 5
    ABORTED = 6

    @property
    def ended(self) -> bool:
        return self >= GoalStatus.SUCCEEDED


class CancelCode(IntEnum):
    """Of action_msgs/srv/CancelGoal."""

    NONE = 0
    REJECTED = 1
    UNKNOWN_GOAL_ID = 2
    GOAL_TERMINATED = 3


Execute = Callable[[Any, Callable[[Any], object]], Future[tuple[GoalStatus, Any]]]
"""(goal, tell) -> Future of how it ended, and the result. It must not wait. ``tell`` publishes feedback, from any thread.
Cancelling the goal cancels the Future."""


@dataclass(eq=False)
class _Goal:
    id: bytes
    stamp_ns: int
    status: GoalStatus = GoalStatus.EXECUTING
    run: Future[tuple[GoalStatus, Any]] | None = None
    ended: Future[tuple[GoalStatus, Any]] = field(default_factory=Future)
    ended_at: float = 0.0


class ActionServer:
    """Serves one action. Every goal is accepted, but one whose id is known already.

    execute: see Execute. cancelled: makes the result of a goal that was cancelled; failed: of one whose execution
    raised. pool: where requests are handled. clock_ns: time of acceptance, on the node's clock. monotonic: seconds.
    """

    def __init__(
        self,
        node: DdsNode,
        type_name: str,
        name: str,
        execute: Execute,
        *,
        cancelled: Callable[[], Any],
        failed: Callable[[BaseException], Any],
        pool: WorkerPool,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._type = node, type_name
        self._execute, self._cancelled, self._failed = execute, cancelled, failed
        self._clock_ns, self._monotonic = clock_ns, monotonic
        self._goals: dict[bytes, _Goal] = {}
        self._lock = threading.RLock()
        self._feedback = node.create_publisher(f"{type_name}_FeedbackMessage", f"{name}/_action/feedback")
        self._status = node.create_publisher("action_msgs/msg/GoalStatusArray", f"{name}/_action/status", STATUS_QOS)
        self._services: list[Service] = [
            node.create_service(f"{type_name}_SendGoal", f"{name}/_action/send_goal", self._on_goal, pool=pool),
            node.create_service(
                "action_msgs/srv/CancelGoal", f"{name}/_action/cancel_goal", self._on_cancel, pool=pool
            ),
            node.create_service(f"{type_name}_GetResult", f"{name}/_action/get_result", self._on_result, pool=pool),
        ]

    def close(self) -> None:
        """Stop serving. Goals that go on are not cancelled."""
        for service in self._services:
            service.close()
        self._status.close()
        self._feedback.close()

    # ---- requests

    def _on_goal(self, request: Any) -> Any:
        goal = _Goal(_id(request.goal_id), self._clock_ns())
        with self._lock:
            self._forget_old()
            accepted = goal.id not in self._goals
            if accepted:
                self._goals[goal.id] = goal
        if accepted:
            self._publish_status()
            self._begin(goal, request.goal)
        return self._node.message(
            f"{self._type}_SendGoal_Response",
            accepted=accepted,
            stamp=time_message(self._node, goal.stamp_ns),
        )

    def _on_cancel(self, request: Any) -> Any:
        wanted = _id(request.goal_info.goal_id)
        before_ns = request.goal_info.stamp.sec * 10**9 + request.goal_info.stamp.nanosec
        code, cancelling = CancelCode.NONE, []
        with self._lock:
            if any(wanted) and wanted not in self._goals:
                code = CancelCode.UNKNOWN_GOAL_ID
            elif any(wanted) and not before_ns and self._goals[wanted].status.ended:
                code = CancelCode.GOAL_TERMINATED
            everything = not any(wanted) and not before_ns
            for goal in self._goals.values():
                meant = everything or goal.id == wanted or goal.stamp_ns <= before_ns
                if meant and not goal.status.ended:
                    goal.status = GoalStatus.CANCELING
                    cancelling.append(goal)
        if cancelling:
            self._publish_status()
        for goal in cancelling:
            self._give_up(goal)
        return self._node.message(
            "action_msgs/srv/CancelGoal_Response",
            return_code=int(code),
            goals_canceling=[self._info(goal) for goal in cancelling],
        )

    def _on_result(self, request: Any) -> Any:
        """A Future, for who asks before the goal has ended."""
        with self._lock:
            goal = self._goals.get(_id(request.goal_id))
        response: Future[Any] = Future()
        if goal is None:
            response.set_result(self._result(GoalStatus.UNKNOWN, self._cancelled()))
        else:
            goal.ended.add_done_callback(lambda ended: response.set_result(self._result(*ended.result())))
        return response

    # ---- goals

    def _begin(self, goal: _Goal, wanted: Any) -> None:
        def tell(feedback: Any) -> None:
            with self._lock:
                if goal.status.ended:
                    return
            message = self._node.message(f"{self._type}_FeedbackMessage", goal_id=self._uuid(goal), feedback=feedback)
            self._feedback.publish(message)

        try:
            run = self._execute(wanted, tell)
        except Exception as error:  # noqa: BLE001 - told to the client
            self._end(goal, GoalStatus.ABORTED, self._failed(error))
            return
        with self._lock:
            goal.run = run
            given_up = goal.status is GoalStatus.CANCELING
        run.add_done_callback(lambda run: self._on_run(goal, run))
        if given_up:
            self._give_up(goal)

    def _give_up(self, goal: _Goal) -> None:
        if goal.run is not None:
            goal.run.cancel()

    def _on_run(self, goal: _Goal, run: Future[tuple[GoalStatus, Any]]) -> None:
        try:
            status, result = run.result()
        except CancelledError:
            status, result = GoalStatus.CANCELED, self._cancelled()
        except Exception as error:  # noqa: BLE001 - told to the client
            status, result = GoalStatus.ABORTED, self._failed(error)
        self._end(goal, status, result)

    def _end(self, goal: _Goal, status: GoalStatus, result: Any) -> None:
        with self._lock:
            goal.status, goal.ended_at = status, self._monotonic()
        goal.ended.set_result((status, result))
        self._publish_status()

    def _forget_old(self) -> None:
        oldest = self._monotonic() - RESULT_KEPT_S
        for goal in [goal for goal in self._goals.values() if goal.status.ended and goal.ended_at < oldest]:
            del self._goals[goal.id]

    # ---- messages

    def _publish_status(self) -> None:
        with self._lock:  # the last one published is the newest
            statuses = [
                self._node.message("action_msgs/msg/GoalStatus", goal_info=self._info(goal), status=int(goal.status))
                for goal in self._goals.values()
            ]
            self._status.publish(self._node.message("action_msgs/msg/GoalStatusArray", status_list=statuses))

    def _result(self, status: GoalStatus, result: Any) -> Any:
        return self._node.message(f"{self._type}_GetResult_Response", status=int(status), result=result)

    def _info(self, goal: _Goal) -> Any:
        stamp = time_message(self._node, goal.stamp_ns)
        return self._node.message("action_msgs/msg/GoalInfo", goal_id=self._uuid(goal), stamp=stamp)

    def _uuid(self, goal: _Goal) -> Any:
        return _uuid(self._node, goal.id)


class ActionClient:
    """Calls one action. Any number of threads may call at the same time."""

    def __init__(self, node: DdsNode, type_name: str, name: str) -> None:
        self._node, self._type = node, type_name
        self._listeners: dict[bytes, Callable[[Any], object]] = {}
        self._send = node.create_client(f"{type_name}_SendGoal", f"{name}/_action/send_goal")
        self._cancel = node.create_client("action_msgs/srv/CancelGoal", f"{name}/_action/cancel_goal")
        self._get = node.create_client(f"{type_name}_GetResult", f"{name}/_action/get_result")
        self._feedback = node.create_subscription(
            f"{type_name}_FeedbackMessage", f"{name}/_action/feedback", self._on_feedback
        )

    def wait_for_server(self, timeout_s: float) -> bool:
        """Whether a server is there, or comes within the time."""
        until = time.monotonic() + timeout_s
        return all(
            client.wait_for_service(max(0.0, until - time.monotonic()))
            for client in (self._send, self._get, self._cancel)
        )

    def call(self, goal: Any, timeout_s: float, on_feedback: Callable[[Any], object]) -> tuple[GoalStatus, Any]:
        """How a goal ended, and its result. on_feedback: called in the thread of the node's subscriptions.

        Whatever ends the waiting, Ctrl-C for one, cancels the goal. Raises ServiceNotAvailable when no server accepts
        it, ServiceTimeout when there is no result within ``timeout_s`` altogether, MalformedPayload, ValueError and
        DdsError.
        """
        until = time.monotonic() + timeout_s
        goal_id = uuid.uuid4().bytes
        named = {"goal_id": _uuid(self._node, goal_id)}
        self._listeners[goal_id] = on_feedback
        try:
            sent = self._send.call(self._node.message(f"{self._type}_SendGoal_Request", goal=goal, **named), timeout_s)
            if not sent.accepted:
                raise ServiceNotAvailable(f"{self._send.name} did not accept the goal")
            result = self._get.call_async(self._node.message(f"{self._type}_GetResult_Request", **named))
            try:
                response = result.result(max(0.0, until - time.monotonic()))
            except FutureTimeout:
                raise ServiceTimeout(f"{self._get.name} had no result within {timeout_s:g} s") from None
            finally:
                result.cancel()
        except ServiceNotAvailable:
            raise
        except BaseException:
            self._give_up(named)
            raise
        finally:
            del self._listeners[goal_id]
        return GoalStatus(response.status), response.result

    def close(self) -> None:
        """End it; the node does it too when it closes."""
        self._feedback.close()
        for client in (self._send, self._cancel, self._get):
            client.close()

    def _give_up(self, named: dict[str, Any]) -> None:
        """Cancel a goal, as far as that can be: who gave it up must not wait for long."""
        info = self._node.message("action_msgs/msg/GoalInfo", **named)
        try:
            self._cancel.call(self._node.message("action_msgs/srv/CancelGoal_Request", goal_info=info), _REPLY_S)
        except TimeoutError as error:
            self._node.logger.debug("a goal could not be cancelled: %s", error)

    def _on_feedback(self, payload: Payload, _: SampleInfo) -> None:
        if not self._listeners:
            return
        message = payload.decode()
        listener = self._listeners.get(_id(message.goal_id))
        if listener is not None:
            listener(message.feedback)


def _id(message: Any) -> bytes:
    return bytes(message.uuid)


def _uuid(node: DdsNode, goal_id: bytes) -> Any:
    return node.message("unique_identifier_msgs/msg/UUID", uuid=np.frombuffer(goal_id, np.uint8))
