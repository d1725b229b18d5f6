"""The live node without ROS 2: a DdsNode as the middleware of a NodeShell, to others the same node as ros_node.py's.

Threads: those of the DdsNode take samples off the wire and hand them over; ``_HANDLERS`` threads turn requests into
questions and answers into responses; the engine has its own. Nobody waits while a question is answered, so that however
many wait, images, parameters and transitions are served.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from spatial_mllm_ros.dds import (
    DdsNode,
    DeclaredParameters,
    Descriptor,
    GoalStatus,
    Lifecycle,
    NodeClock,
    ParameterServices,
    ParameterType,
    Payload,
    QosMismatch,
    Range,
    Result,
    RosoutHandler,
    SampleInfo,
    SetResult,
    State,
    Subscription,
    WorkerPool,
)
from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.goals import Feedback
from spatial_mllm_ros.nodes.inbox import Stream
from spatial_mllm_ros.nodes.live import LiveEngine
from spatial_mllm_ros.nodes.parameters import PARAMETERS, ParameterError, Settings
from spatial_mllm_ros.nodes.qos import DIAGNOSTICS_QOS, KEYFRAMES_QOS, QosPolicy
from spatial_mllm_ros.nodes.shell import (
    BATCH_SERVICE,
    NODE_NAME,
    PACKAGE_LOG,
    SERVICE,
    NodeShell,
    unknown_parameters,
)
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError

USE_SIM_TIME = "use_sim_time"
_HANDLERS, _WAITING_MESSAGES = 4, 4096
log = logging.getLogger(__name__)
_Asked = TypeVar("_Asked")
_Made = TypeVar("_Made")


class SpatialMllmDdsNode:
    """The node; see NodeShell for what happens in which state. Parameters: parameters.py, and use_sim_time.

    ros_args: as after the program's name, see RosArguments. values: parameters that override those in ros_args; both
    override ``defaults``. interrupted: asked while configuring takes long; true gives up.

    A context manager. Raises ParameterError and what DdsNode raises.
    """

    def __init__(
        self,
        ros_args: Sequence[str] = (),
        values: Mapping[str, Any] | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        domain_id: int | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._served: list[Any] = []
        self._keyframes: Any = None
        self._closed = False
        self.node = _Node(self._on_qos_mismatch, NODE_NAME, domain_id=domain_id, ros_args=ros_args, logger=log)
        self._rosout = RosoutHandler(self.node)
        try:
            PACKAGE_LOG.addHandler(self._rosout)
            self.make = convert.RosbagsMaker(self.node.message)
            given = {**(defaults or {}), **self.node.parameter_overrides(), **(values or {})}
            self.shell = NodeShell(self, unknown_parameters(given, [USE_SIM_TIME]), interrupted)
            self.clock = NodeClock(self.node, on_jump=self._on_clock_jump)
            self.parameters = self._declared(given)
            self._handlers = WorkerPool(_HANDLERS, _WAITING_MESSAGES, "spatial-query")
            self._parameter_services = ParameterServices(self.node, self.parameters)
            self.lifecycle = Lifecycle(self.node, self)
            self._diagnostics = self.node.create_publisher(convert.DIAGNOSTICS, "/diagnostics", DIAGNOSTICS_QOS)
            self._stop, self._rate_changed = threading.Event(), threading.Event()
            self._housekeeping = threading.Thread(target=self._keep_house, name="diagnostics", daemon=True)
            self._housekeeping.start()
            self.clock.use_sim_time = bool(self.parameters.get(USE_SIM_TIME))
        except BaseException:
            PACKAGE_LOG.removeHandler(self._rosout)
            self.node.close()
            raise

    def __enter__(self) -> SpatialMllmDdsNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def full_name(self) -> str:
        return self.node.name.full

    @property
    def service_name(self) -> str:
        return self.node.arguments.resolve(self.node.name, SERVICE, "service")

    @property
    def engine(self) -> LiveEngine | None:
        """None while unconfigured."""
        return self.shell.engine

    @property
    def failure(self) -> str:
        """Why the last configure failed; '' when it did not."""
        return self.shell.failure

    @property
    def state(self) -> State:
        return self.lifecycle.state

    def start(self) -> bool:
        """Configure and activate; whether the node is active then."""
        return self.lifecycle.configure() and self.lifecycle.activate()

    def close(self) -> None:
        """End everything in good order, whatever the state. May be called again."""
        if self._closed:
            return
        self._closed = True
        self.lifecycle.shutdown()
        self.shell.dismantle("the node was shut down")
        self._stop.set()
        self._rate_changed.set()
        self._housekeeping.join(10.0)  # it must not publish on a node that is gone
        self._handlers.close(1.0)
        self.lifecycle.close()
        PACKAGE_LOG.removeHandler(self._rosout)
        self._rosout.close()
        self.node.close()

    # ---- parameters

    def parameter_values(self) -> dict[str, Any]:
        return {name: self.parameters.get(name) for name in PARAMETERS}

    def settings(self) -> Settings:
        """The parameters as they are now."""
        return self.shell.settings()

    def _declared(self, given: Mapping[str, Any]) -> DeclaredParameters:
        use_sim_time = given.get(USE_SIM_TIME, False)
        if not isinstance(use_sim_time, bool):
            raise ParameterError(f"{USE_SIM_TIME} must be a bool, not {use_sim_time!r}")
        settings = Settings.from_values({name: value for name, value in given.items() if name in PARAMETERS})
        store = DeclaredParameters(self._on_set_parameters)
        store.declare(
            USE_SIM_TIME, use_sim_time, Descriptor(ParameterType.BOOL, "Take the time from /clock; set any time.")
        )
        for name, parameter in PARAMETERS.items():
            described = convert.parameter_descriptor(parameter, self.make)
            ranges = [*described.floating_point_range, *described.integer_range]
            store.declare(
                name,
                getattr(settings, name),
                Descriptor(
                    ParameterType(described.type),
                    described.description,
                    described.additional_constraints,
                    described.read_only,
                    Range(ranges[0].from_value, ranges[0].to_value, ranges[0].step) if ranges else None,
                ),
            )
        return store

    def _on_set_parameters(self, changes: Mapping[str, Any]) -> SetResult:
        """Refuses what cannot be; the rest takes effect at once, since nobody may refuse it after this."""
        try:
            settings = self.shell.changed(changes)
            if self.engine is not None:
                self.engine.update(settings)
        except ParameterError as error:
            return SetResult(False, str(error))
        if USE_SIM_TIME in changes:
            self.clock.use_sim_time = bool(changes[USE_SIM_TIME])
        self._rate_changed.set()
        return SetResult(True)

    # ---- lifecycle

    def on_configure(self) -> Result:
        return Result.SUCCESS if self.shell.configure() else Result.FAILURE

    def on_activate(self) -> Result:
        self.shell.activate()
        return Result.SUCCESS

    def on_deactivate(self) -> Result:
        self.shell.halt("the node was deactivated")
        return Result.SUCCESS

    def on_cleanup(self) -> Result:
        self.shell.dismantle("the node was cleaned up")
        return Result.SUCCESS

    def on_shutdown(self, previous: State) -> Result:
        self.shell.dismantle("the node was shut down")
        return Result.SUCCESS

    def on_error(self, previous: State) -> Result:
        self.shell.dismantle("the node failed")
        return Result.SUCCESS

    def serve(self) -> None:
        self._keyframes = self.node.create_publisher(convert.KEYFRAMES, "~/keyframes", KEYFRAMES_QOS)
        self._served = [
            self._keyframes,
            self._service(convert.SERVICE_TYPE, SERVICE, self._on_query, self._refusal),
            self._service(convert.BATCH_TYPE, BATCH_SERVICE, self._on_batch, self._batch_refusal),
            self.node.create_action_server(
                convert.ACTION_TYPE,
                SERVICE,
                self._on_goal,
                cancelled=lambda: self.shell.result(_answer(ErrorCode.CANCELLED, "the goal was cancelled")),
                failed=lambda error: self.shell.result(_answer(ErrorCode.UNKNOWN, _internal(error))),
                pool=self._handlers,
                clock_ns=self.clock.now_ns,
            ),
        ]

    def _service(
        self, type_name: str, name: str, answer: Callable[[Any], Any], refuse: Callable[[ErrorCode, str], Any]
    ) -> Any:
        return self.node.create_service(
            type_name,
            name,
            answer,
            pool=self._handlers,
            busy=lambda _: refuse(ErrorCode.BUSY, "too many requests wait to be read: ask later"),
            failed=lambda _, error: refuse(ErrorCode.UNKNOWN, _internal(error)),
        )

    def unserve(self) -> None:
        served, self._served, self._keyframes = self._served, [], None
        for endpoint in reversed(served):
            endpoint.close()

    # ---- the graph and the clock

    def resolve(self, topic: str) -> str:
        return self.node.arguments.resolve(self.node.name, topic, "topic")

    def published(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for endpoint in self.node.endpoints():
            if endpoint.is_publisher:
                found.setdefault(endpoint.topic, set()).add(endpoint.type_name)
        return found

    def namesakes(self) -> int:
        topic = self.node.name.expand("~/transition_event")
        return sum(e.is_publisher and e.topic == topic for e in self.node.endpoints())

    def subscribe(self, stream: Stream, policy: QosPolicy, offer: Callable[[bytes], None]) -> Subscription:
        def hand_over(payload: Payload, _: SampleInfo) -> None:
            offer(payload.data)

        return self.node.create_subscription(stream.message_type, stream.topic, hand_over, policy)

    def _on_qos_mismatch(self, mismatch: QosMismatch) -> bool:
        """Whether a mismatch was dealt with here; called in the thread of the subscriptions."""
        subscription = mismatch.endpoint
        if not isinstance(subscription, Subscription):
            return False
        self.shell.on_mismatch(subscription, mismatch.policy)
        return True

    def clock_ns(self) -> int:
        return self.clock.now_ns()

    def _on_clock_jump(self, before_ns: int, now_ns: int) -> None:
        if before_ns > 0:
            self.shell.clock_set_back()

    # ---- questions

    def _on_query(self, message: Any) -> Future[Any]:
        return self._later(self.shell.ask(message), self.shell.response)

    def _on_batch(self, message: Any) -> Future[Any]:
        return self._later(self.shell.ask_all(message), self.shell.batch_response)

    def _on_goal(self, goal: Any, tell: Callable[[Any], object]) -> Future[tuple[GoalStatus, Any]]:
        """The Future of how a goal ended, and its result. Cancelling it gives the question up."""
        answer = self.shell.ask(goal, Feedback(lambda text: tell(self.shell.feedback(text))))
        run = self._later(answer, self._outcome)
        run.add_done_callback(lambda run: run.cancelled() and answer.cancel())
        return run

    def _later(self, answer: Future[_Asked], make: Callable[[_Asked], _Made]) -> Future[_Made]:
        """Made and sent by other threads than those that answer, which a client that is slow or gone must not hold up."""
        made: Future[_Made] = Future()
        self.shell.begin_question()

        def finish() -> None:
            try:
                if not answer.cancelled():
                    made.set_result(make(answer.result()))
            except InvalidStateError:
                log.debug("an answer was given up")
            finally:
                self.shell.end_question()

        def finish_elsewhere(_: Future[_Asked]) -> None:
            if not self._handlers.submit(finish):
                finish()

        answer.add_done_callback(finish_elsewhere)
        return made

    def _outcome(self, answer: Answer) -> tuple[GoalStatus, Any]:
        return GoalStatus.ABORTED if answer.error_code else GoalStatus.SUCCEEDED, self.shell.result(answer)

    def _refusal(self, code: ErrorCode, message: str) -> Any:
        return self.shell.response(_answer(code, message))

    def _batch_refusal(self, code: ErrorCode, message: str) -> Any:
        return self.shell.batch_response(QueryError(code, message))

    # ---- outputs

    def publish_keyframes(self, message: Any) -> None:
        publisher = self._keyframes
        if publisher is not None:
            publisher.publish(message)

    def publish_diagnostics(self, message: Any) -> None:
        if not self._stop.is_set():  # the node may have been closed while they were made
            self._diagnostics.publish(message)

    def _keep_house(self) -> None:
        while not self._stop.is_set():
            rate = self.parameters.get("diagnostics_rate_hz")
            assert isinstance(rate, float)
            if self._rate_changed.wait(1.0 / rate if rate > 0 else None):
                self._rate_changed.clear()
                continue
            try:
                self.shell.publish_diagnostics()
            except Exception:  # the node keeps serving
                log.exception("diagnostics could not be published")


class _Node(DdsNode):
    """A node that is asked first about mismatches: those of ``auto`` subscriptions are none."""

    def __init__(self, on_mismatch: Callable[[QosMismatch], bool], name: str, **options: Any) -> None:
        self._handled = on_mismatch
        super().__init__(name, **options)

    def tell_mismatch(self, mismatch: QosMismatch) -> None:
        if not self._handled(mismatch):
            super().tell_mismatch(mismatch)


def _answer(code: ErrorCode, message: str) -> Answer:
    return Answer(error_code=code, error_msg=message)


def _internal(error: BaseException) -> str:
    return f"internal error, see the log: {error!r}"
