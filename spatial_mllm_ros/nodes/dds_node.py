"""The live node without ROS 2: a DdsNode around LiveEngine, to others the same node as ros_node.py's.

Threads: those of the DdsNode take samples off the wire and hand them over; ``_HANDLERS`` threads turn requests into
questions and answers into responses; the engine has its own. Nobody waits while a question is answered, so that however
many wait, images, parameters and transitions are served.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
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
from spatial_mllm_ros.nodes.live import KeyframeSet, LiveEngine
from spatial_mllm_ros.nodes.model import ConfigurationError, load_geometry, load_model
from spatial_mllm_ros.nodes.parameters import PARAMETERS, ParameterError, Settings, without_effect
from spatial_mllm_ros.nodes.qos import (
    DIAGNOSTICS_QOS,
    KEYFRAMES_QOS,
    QosPolicy,
    fallback,
    mismatch_remedy,
    qos_policy,
)
from spatial_mllm_ros.nodes.queries import OnText
from spatial_mllm_ros.nodes.surroundings import Surroundings
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError

NODE_NAME, SERVICE, BATCH_SERVICE = "spatial_mllm", "spatial_query", "spatial_queries"
USE_SIM_TIME = "use_sim_time"
END_OF_TIME = 2**63 - 1
NAMESAKE_S = 3.0
"""A node that ended without a word is still known for a while; one that stays longer is there."""
ANSWERS_LEAVE_S = 0.5
_HANDLERS, _WAITING_MESSAGES = 4, 4096
PACKAGE_LOG = logging.getLogger("spatial_mllm_ros")
log = logging.getLogger(__name__)
_Asked = TypeVar("_Asked")
_Made = TypeVar("_Made")


class SpatialMllmDdsNode:
    """The node; see the module's text. Parameters: parameters.py, and use_sim_time.

    ros_args: as after the program's name, see RosArguments. values: parameters that override those in ros_args; both
    override ``defaults``. interrupted: asked while configuring takes long; true gives up.

    unconfigured: parameters may be set. configure: builds the engine, or fails with the reason in the log and in
    ``failure``; the service and the action exist from then on, and answer CANCELLED until the node is active. activate:
    subscribes and serves. deactivate: stops both, and keeps the memory. cleanup: forgets it.

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
        self.interrupted = interrupted
        self.engine: LiveEngine | None = None
        self.failure = ""
        """Why the last configure failed; '' when it did not."""
        self._subscriptions: dict[Stream, Subscription] = {}
        self._policies: dict[Stream, QosPolicy] = {}
        self._subscribing = threading.RLock()
        self._service: Any = None
        self._batch_service: Any = None
        self._action: Any = None
        self._keyframes: Any = None
        self._questions = 0
        self._idle = threading.Condition()
        self._namesakes_since: float | None = None
        self._closed = False
        self.node = _Node(self._on_qos_mismatch, NODE_NAME, domain_id=domain_id, ros_args=ros_args, logger=log)
        try:
            self._rosout = RosoutHandler(self.node)
            PACKAGE_LOG.addHandler(self._rosout)
            self._make = convert.RosbagsMaker(self.node.message)
            overrides = {**self.node.parameter_overrides(), **(values or {})}
            self.clock = NodeClock(self.node, on_jump=self._on_clock_jump)
            self.parameters = self._declared({**(defaults or {}), **overrides})
            self._handlers = WorkerPool(_HANDLERS, _WAITING_MESSAGES, "spatial-query")
            self._parameter_services = ParameterServices(self.node, self.parameters)
            self.lifecycle = Lifecycle(self.node, self)
            self._diagnostics = self.node.create_publisher(convert.DIAGNOSTICS, "/diagnostics", DIAGNOSTICS_QOS)
            self._stop, self._rate_changed = threading.Event(), threading.Event()
            self._housekeeping = threading.Thread(target=self._keep_house, name="diagnostics", daemon=True)
            self._housekeeping.start()
            self.clock.use_sim_time = bool(self.parameters.get(USE_SIM_TIME))
        except BaseException:
            if hasattr(self, "_rosout"):
                PACKAGE_LOG.removeHandler(self._rosout)
            self.node.close()
            raise

    def __enter__(self) -> SpatialMllmDdsNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The node's full name."""
        return self.node.name.full

    @property
    def state(self) -> State:
        return self.lifecycle.state

    @property
    def service_name(self) -> str:
        """The full name of the service, after remapping."""
        return self.node.arguments.resolve(self.node.name, SERVICE, "service")

    def start(self) -> bool:
        """Configure and activate; whether the node is active then."""
        return self.lifecycle.configure() and self.lifecycle.activate()

    def close(self) -> None:
        """End everything in good order, whatever the state. May be called again."""
        if self._closed:
            return
        self._closed = True
        self.lifecycle.shutdown()
        self._dismantle("the node was shut down")
        self._stop.set()
        self._rate_changed.set()
        self._housekeeping.join(2.0)
        self._handlers.close(1.0)
        self.lifecycle.close()
        PACKAGE_LOG.removeHandler(self._rosout)
        self._rosout.close()
        self.node.close()

    # ---- parameters

    def settings(self) -> Settings:
        """The parameters as they are now."""
        return Settings.from_values({name: self.parameters.get(name) for name in PARAMETERS})

    def _declared(self, given: Mapping[str, Any]) -> DeclaredParameters:
        self._troubles = without_effect(given.keys() - PARAMETERS.keys() - {USE_SIM_TIME})
        for trouble in self._troubles:
            log.warning("%s", trouble)
        use_sim_time = given.get(USE_SIM_TIME, False)
        if not isinstance(use_sim_time, bool):
            raise ParameterError(f"{USE_SIM_TIME} must be a bool, not {use_sim_time!r}")
        settings = Settings.from_values({name: value for name, value in given.items() if name in PARAMETERS})
        store = DeclaredParameters(self._on_set_parameters)
        store.declare(
            USE_SIM_TIME, use_sim_time, Descriptor(ParameterType.BOOL, "Take the time from /clock; set any time.")
        )
        for name, parameter in PARAMETERS.items():
            described = convert.parameter_descriptor(parameter, self._make)
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
            settings = self.settings().changed(changes, self.name if self.engine is not None else "")
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
        try:
            self.engine = LiveEngine(
                self.settings(),
                self._now_ns,
                _decode,
                self._publish_keyframes,
                load_model=partial(load_model, interrupted=self.interrupted),
                load_geometry=partial(load_geometry, interrupted=self.interrupted),
                surroundings=Surroundings(self._full_name, self._published),
                subscribe=self._subscribe_found,
                troubles=self._troubles,
            )
        except (ConfigurationError, ParameterError) as error:
            self.failure = str(error)
            log.error("cannot be configured: %s", error)
            return Result.FAILURE
        self.failure = ""
        self._keyframes = self.node.create_publisher(convert.KEYFRAMES, "~/keyframes", KEYFRAMES_QOS)
        self._service = self.node.create_service(
            convert.SERVICE_TYPE,
            SERVICE,
            self._on_query,
            pool=self._handlers,
            busy=lambda _: self._refusal(ErrorCode.BUSY, "too many requests wait to be read: ask later"),
            failed=lambda _, error: self._refusal(ErrorCode.UNKNOWN, f"internal error, see the log: {error!r}"),
        )
        self._batch_service = self.node.create_service(
            convert.BATCH_TYPE,
            BATCH_SERVICE,
            self._on_batch,
            pool=self._handlers,
            busy=lambda _: self._batch_refusal(ErrorCode.BUSY, "too many requests wait to be read: ask later"),
            failed=lambda _, error: self._batch_refusal(ErrorCode.UNKNOWN, f"internal error, see the log: {error!r}"),
        )
        self._action = self.node.create_action_server(
            convert.ACTION_TYPE,
            SERVICE,
            self._on_goal,
            cancelled=lambda: self._result(_answer(ErrorCode.CANCELLED, "the goal was cancelled")),
            failed=lambda error: self._result(_answer(ErrorCode.UNKNOWN, f"internal error, see the log: {error!r}")),
            pool=self._handlers,
            clock_ns=self.clock.now_ns,
        )
        return Result.SUCCESS

    def on_activate(self) -> Result:
        assert self.engine is not None
        self.engine.start()
        for stream in self.engine.streams:
            self._subscribe_found(stream)
        topics = ", ".join(subscription.topic for subscription in self._subscriptions.values())
        log.info("listening to %s; answering on %s", topics, self._service.name)
        return Result.SUCCESS

    def on_deactivate(self) -> Result:
        self._halt("the node was deactivated")
        return Result.SUCCESS

    def on_cleanup(self) -> Result:
        self._dismantle("the node was cleaned up")
        return Result.SUCCESS

    def on_shutdown(self, previous: State) -> Result:
        self._dismantle("the node was shut down")
        return Result.SUCCESS

    def on_error(self, previous: State) -> Result:
        self._dismantle("the node failed")
        return Result.SUCCESS

    def _halt(self, because: str) -> None:
        if self.engine is not None:
            self.engine.stop(because)
        with self._subscribing:
            subscriptions = list(self._subscriptions.values())
            self._subscriptions.clear()
            self._policies.clear()
        for subscription in subscriptions:  # unlocked: closing waits for callbacks, and one may wait for the lock
            subscription.close()

    def _dismantle(self, because: str) -> None:
        self._halt(because)
        with self._idle:  # the answers just given must leave before the service does
            self._idle.wait_for(lambda: self._questions == 0, ANSWERS_LEAVE_S)
        for endpoint in (self._service, self._batch_service, self._action, self._keyframes):
            if endpoint is not None:
                endpoint.close()
        self._service = self._batch_service = self._action = self._keyframes = None
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    # ---- inputs

    def _subscribe_found(self, stream: Stream) -> None:
        self._subscribe(stream, qos_policy(stream.qos, stream.qos_depth))

    def _subscribe(self, stream: Stream, policy: QosPolicy) -> None:
        engine = self.engine
        if engine is None:
            return
        offer = engine.offer

        def hand_over(payload: Payload, _: SampleInfo) -> None:
            offer(stream, payload)

        with self._subscribing:
            former = self._subscriptions.pop(stream, None)
            self._policies[stream] = policy
            self._subscriptions[stream] = self.node.create_subscription(
                stream.message_type, stream.topic, hand_over, policy
            )
        if former is not None:
            former.close()

    def _on_qos_mismatch(self, mismatch: QosMismatch) -> bool:
        """Whether a mismatch was dealt with here; called in the thread of the subscriptions."""
        with self._subscribing:
            stream = next((s for s, own in self._subscriptions.items() if own is mismatch.endpoint), None)
            if stream is None:
                return isinstance(mismatch.endpoint, Subscription)  # one that was replaced meanwhile
            instead = fallback(stream.qos, self._policies[stream])
            if instead is not None:
                log.info("a publisher on %s is best effort: subscribing as best effort, too", mismatch.topic)
                self._subscribe(stream, instead)
                return True
            remedy = mismatch_remedy(mismatch.topic, mismatch.policy, stream.qos_parameter)
            if self.engine is not None:
                self.engine.qos_mismatch(stream, remedy)
            return True

    def _full_name(self, topic: str) -> str:
        return self.node.arguments.resolve(self.node.name, topic, "topic")

    def _published(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for endpoint in self.node.endpoints():
            if endpoint.is_publisher:
                found.setdefault(endpoint.topic, set()).add(endpoint.type_name)
        return found

    def _now_ns(self) -> int:
        """The node's clock; the end of time while /clock has not told it, so that nothing counts as of the future."""
        now = self.clock.now_ns()
        return now if now > 0 else END_OF_TIME

    def _on_clock_jump(self, before_ns: int, now_ns: int) -> None:
        engine = self.engine
        if engine is not None and before_ns > 0:
            engine.clock_set_back(now_ns)

    # ---- questions

    def _on_query(self, message: Any) -> Future[Any]:
        """The Future of a response, which comes in time whatever happens."""
        return self._later(self._ask(message), self._response)

    def _on_batch(self, message: Any) -> Future[Any]:
        """The Future of a response to several questions."""
        engine = self.engine
        try:
            requests = convert.requests_of(message)
        except QueryError as error:
            return _given(convert.batch_refusal(error, self._make))
        if engine is None:
            return _given(self._batch_refusal(ErrorCode.CANCELLED, "the node is not configured"))
        return self._later(engine.ask_all(requests), lambda batch: convert.batch_response(batch, self._make))

    def _batch_refusal(self, code: ErrorCode, message: str) -> Any:
        return convert.batch_refusal(QueryError(code, message), self._make)

    def _on_goal(self, goal: Any, tell: Callable[[Any], object]) -> Future[tuple[GoalStatus, Any]]:
        """The Future of how a goal ended, and its result. Cancelling it gives the question up."""
        feedback = Feedback(lambda text: tell(self._make.new(convert.FEEDBACK, partial_answer=text)))
        answer = self._ask(goal, feedback)
        run = self._later(answer, self._outcome)
        run.add_done_callback(lambda run: run.cancelled() and answer.cancel())
        return run

    def _ask(self, message: Any, on_text: OnText | None = None) -> Future[Answer]:
        engine = self.engine
        try:
            request = convert.request_of(message)
        except QueryError as error:
            return _given(_answer(error.code, str(error)))
        if engine is None:
            return _given(_answer(ErrorCode.CANCELLED, "the node is not configured"))
        return engine.ask(request, on_text)

    def _later(self, answer: Future[_Asked], make: Callable[[_Asked], _Made]) -> Future[_Made]:
        """Made and sent by other threads than those that answer, which a client that is slow or gone must not hold up."""
        made: Future[_Made] = Future()
        with self._idle:
            self._questions += 1

        def finish() -> None:
            try:
                if not answer.cancelled():
                    made.set_result(make(answer.result()))
            except InvalidStateError:
                log.debug("an answer was given up")
            finally:
                with self._idle:
                    self._questions -= 1
                    self._idle.notify_all()

        def finish_elsewhere(_: Future[_Asked]) -> None:
            if not self._handlers.submit(finish):
                finish()

        answer.add_done_callback(finish_elsewhere)
        return made

    def _outcome(self, answer: Answer) -> tuple[GoalStatus, Any]:
        return GoalStatus.ABORTED if answer.error_code else GoalStatus.SUCCEEDED, self._result(answer)

    def _result(self, answer: Answer) -> Any:
        return convert.response_message(answer, self._make, convert.RESULT)

    def _response(self, answer: Answer) -> Any:
        return convert.response_message(answer, self._make)

    def _refusal(self, code: ErrorCode, message: str) -> Any:
        return self._response(_answer(code, message))

    # ---- outputs

    def _publish_keyframes(self, keyframes: KeyframeSet) -> None:
        publisher = self._keyframes
        if publisher is not None:
            publisher.publish(convert.keyframes_message(keyframes, self._make))

    def _keep_house(self) -> None:
        while not self._stop.is_set():
            rate = self.parameters.get("diagnostics_rate_hz")
            assert isinstance(rate, float)
            if self._rate_changed.wait(1.0 / rate if rate > 0 else None):
                self._rate_changed.clear()
                continue
            try:
                self._publish_diagnostics()
                self._warn_of_namesakes()
            except Exception:  # the node keeps serving
                log.exception("diagnostics could not be published")

    def _publish_diagnostics(self) -> None:
        engine = self.engine
        if engine is None:
            return
        self._diagnostics.publish(
            convert.diagnostics_message(engine.diagnose(), self.name, self.clock.now_ns(), self._make)
        )

    def _warn_of_namesakes(self) -> None:
        topic = self.node.name.expand("~/transition_event")
        count = sum(e.is_publisher and e.topic == topic for e in self.node.endpoints())
        now = time.monotonic()
        if count < 2:
            self._namesakes_since = None
        elif self._namesakes_since is None:
            self._namesakes_since = now  # it may be one that has just ended
        elif now - self._namesakes_since > NAMESAKE_S:
            self._namesakes_since = math.inf
            log.warning(
                "another node is called %s: questions, parameters and transitions may reach either; start one with "
                "--ros-args -r __node:=<another name>",
                self.name,
            )


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


def _given(answer: _Made) -> Future[_Made]:
    future: Future[_Made] = Future()
    future.set_result(answer)
    return future


def _decode(stream: Stream, payload: Payload) -> Any:
    return payload.decode()
