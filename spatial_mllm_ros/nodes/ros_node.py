"""The live node on ROS 2: an rclpy lifecycle node around LiveEngine.

Why it is built as it is:

- Subscriptions take messages serialised and their callbacks only hand them over; the engine's thread decodes them. A
  damaged message is then counted instead of ending the executor, and a dropped image costs no decoding.
- Color, depth, CameraInfo and TF are joined by the engine's FrameAssembler, not by message_filters and tf2_ros.Buffer:
  it waits for the transform at the image's stamp, and no longer than tf_wait_s; it keeps images without depth; and what
  it does is the same with a recording, with plain DDS and with ROS. tf_transformations and cv_bridge are not needed
  either (the latter, compiled against another numpy, takes nodes down).
- The service has a callback group of its own and the executor has a thread for every question that may wait, so that
  whatever the load, images, parameters and transitions are served. (A coroutine would need no threads, but the executor
  of Jazzy steps every waiting coroutine whenever anything happens, and keeps a list that grows with each step.)
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import array
import importlib
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import ClockChange, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.exceptions import InvalidHandle, ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription

import spatial_mllm_ros
from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.goals import Feedback
from spatial_mllm_ros.nodes.inbox import Stream
from spatial_mllm_ros.nodes.live import KeyframeSet, LiveEngine
from spatial_mllm_ros.nodes.model import ConfigurationError, load_geometry, load_model
from spatial_mllm_ros.nodes.parameters import PARAMETERS, ParameterError, Settings, help_text, without_effect
from spatial_mllm_ros.nodes.qos import (
    DIAGNOSTICS_QOS,
    KEYFRAMES_QOS,
    SERVICE_QOS,
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
PACKAGE_LOG = logging.getLogger("spatial_mllm_ros")
log = logging.getLogger(__name__)
EXECUTABLE = "ros2 run spatial_mllm_ros spatial_mllm_node"
END_OF_TIME = 2**63 - 1
NAMESAKE_S = 3.0
"""A node that ended without a word is still listed for a while; one that stays longer is there."""
CANCEL_LOOK_S = 0.05
"""How often a goal that is being answered looks whether it was cancelled."""
ANSWERS_LEAVE_S, QUIET_S = 0.5, 0.05
OTHER_THREADS = 4
"""Executor threads beside those in which questions wait: inputs, timers, parameters, transitions."""
RCLError = rclpy_implementation.RCLError


class RclpyMaker:
    """Makes rclpy's messages."""

    def new(self, name: str, /, **fields: Any) -> Any:
        return message_class(name)(**fields)

    def octets(self, data: Any) -> Any:
        return array.array("B", memoryview(data).cast("B").tobytes())

    def doubles(self, values: Any) -> Any:
        return list(values)

    def integers(self, values: Any) -> Any:
        return list(values)

    def byte(self, value: int) -> Any:
        return bytes([value])


@cache
def message_class(name: str) -> Any:
    """The class of "sensor_msgs/msg/Image" or "spatial_mllm_ros/srv/SpatialQuery_Response"."""
    package, kind, short = name.split("/")
    service, _, part = short.partition("_")
    found = getattr(importlib.import_module(f"{package}.{kind}"), service)
    return getattr(found, part) if part else found


MAKE = RclpyMaker()


class SpatialMllmNode(LifecycleNode):
    """See the module's text. Parameters: parameters.py.

    unconfigured: parameters may be set. configure: builds the engine, or fails with the reason in the log; the service
    and the action exist from then on, and answer CANCELLED until the node is active. activate: subscribes and serves.
    deactivate: stops both, and keeps the memory. cleanup: forgets it. interrupted: asked while configuring takes long; true
    gives up.
    """

    def __init__(self, interrupted: Callable[[], bool] = lambda: False, **options: Any) -> None:
        super().__init__(NODE_NAME, **options)
        self.interrupted = interrupted
        self._log_bridge = _LogBridge(self.get_logger())
        self._log_bridge.attach()
        self._engine: LiveEngine | None = None
        self._service: Any = None
        self._batch_service: Any = None
        self._action: Any = None
        self._keyframes: Any = None
        self._subscriptions_of: dict[Stream, Subscription] = {}
        self._questions = 0
        self._last_question = -math.inf
        self.finalized = False
        self._subscribing = threading.RLock()
        self._namesakes_since: float | None = None
        self._idle = threading.Condition()
        self._inputs, self._answers = MutuallyExclusiveCallbackGroup(), ReentrantCallbackGroup()
        self._housekeeping = MutuallyExclusiveCallbackGroup()
        self._declare_parameters()
        profile = _profile(DIAGNOSTICS_QOS)
        self._diagnostics = self.create_publisher(message_class(convert.DIAGNOSTICS), "/diagnostics", profile)
        self._diagnostics_timer: Any = None
        self._set_diagnostics_rate(self.settings().diagnostics_rate_hz)
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(threshold, post_callback=self._on_clock_jump)
        if self.settings().auto_activate:
            self._starter = self.create_timer(0.0, self._start, callback_group=self._housekeeping)

    # ---- parameters

    def _declare_parameters(self) -> None:
        for name, parameter in PARAMETERS.items():
            default = parameter.default
            given = self._parameter_overrides.get(name)
            if parameter.type is float and given is not None and given.type_ is RosParameter.Type.INTEGER:
                # `timeout_s: 30` is what people write for 30.0
                default = float(given.value)
                del self._parameter_overrides[name]
            self.declare_parameter(name, default, convert.parameter_descriptor(parameter, MAKE))
        try:
            self.settings()
        except ParameterError as error:
            raise ParameterError(f"the parameters do not fit together: {error}") from error
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.add_post_set_parameters_callback(self._on_parameters_set)
        unknown = [n for n in self._parameter_overrides if n not in PARAMETERS and not self.has_parameter(n)]
        self._troubles = without_effect(unknown)
        for trouble in self._troubles:
            self.get_logger().warning(trouble)

    def settings(self) -> Settings:
        """The parameters as they are now."""
        return Settings.from_values({name: self.get_parameter(name).value for name in PARAMETERS})

    def _on_set_parameters(self, changes: list[RosParameter]) -> SetParametersResult:
        configured = self.get_fully_qualified_name() if self._engine is not None else ""
        try:
            self.settings().changed({change.name: change.value for change in changes}, configured)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_parameters_set(self, changes: list[RosParameter]) -> None:
        settings = self.settings()
        if self._engine is not None:
            self._engine.update(settings)
        if any(change.name == "diagnostics_rate_hz" for change in changes):
            self._set_diagnostics_rate(settings.diagnostics_rate_hz)

    # ---- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._engine = LiveEngine(
                self.settings(),
                self._now_ns,
                _decode,
                self._publish_keyframes,
                load_model=partial(load_model, interrupted=self.interrupted),
                load_geometry=partial(load_geometry, interrupted=self.interrupted),
                surroundings=Surroundings(self.resolve_topic_name, self._published),
                subscribe=self._subscribe_found,
                troubles=self._troubles,
            )
        except (ConfigurationError, ParameterError) as error:
            self.get_logger().error(f"cannot be configured: {error}")
            return TransitionCallbackReturn.FAILURE
        self._keyframes = self.create_lifecycle_publisher(
            message_class(convert.KEYFRAMES), "~/keyframes", _profile(KEYFRAMES_QOS)
        )
        self._service = self.create_service(
            message_class(convert.SERVICE_TYPE),
            SERVICE,
            self._on_query,
            qos_profile=_profile(SERVICE_QOS),
            callback_group=self._answers,
        )
        self._batch_service = self.create_service(
            message_class(convert.BATCH_TYPE),
            BATCH_SERVICE,
            self._on_batch,
            qos_profile=_profile(SERVICE_QOS),
            callback_group=self._answers,
        )
        self._action = ActionServer(
            self,
            message_class(convert.ACTION_TYPE),
            SERVICE,
            self._on_goal,
            callback_group=self._answers,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            goal_service_qos_profile=_profile(SERVICE_QOS),
            result_service_qos_profile=_profile(SERVICE_QOS),
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._engine is not None
        result = super().on_activate(state)
        self._engine.start()
        for stream in self._engine.streams:
            self._subscribe_found(stream)
        self.get_logger().info(
            f"listening to {', '.join(s.topic_name for s in self._subscriptions_of.values())}; "
            f"answering on {self._service.service_name}"
        )
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._halt("the node was deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._dismantle("the node was cleaned up")
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._dismantle("the node was shut down")
        self.finalized = True
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._dismantle("the node failed")
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Ends everything, whatever the state."""
        self._dismantle("the node was shut down")
        self._jumps.unregister()
        PACKAGE_LOG.removeHandler(self._log_bridge)
        super().destroy_node()

    def _start(self) -> None:
        self._starter.cancel()
        if self.trigger_configure() is TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _halt(self, because: str) -> None:
        if self._engine is not None:
            self._engine.stop(because)
        with self._subscribing:
            for subscription in self._subscriptions_of.values():
                self.destroy_subscription(subscription)
            self._subscriptions_of.clear()

    def _dismantle(self, because: str) -> None:
        self._halt(because)
        if self._service is not None:
            self._wait_for_quiet()
        if self._service is not None:
            self.destroy_service(self._service)
            self._service = None
        if self._batch_service is not None:
            self.destroy_service(self._batch_service)
            self._batch_service = None
        if self._action is not None:
            self._action.destroy()
            self._action = None
        if self._keyframes is not None:
            self.destroy_lifecycle_publisher(self._keyframes)
            self._keyframes = None
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _wait_for_quiet(self) -> None:
        """Until no question has come or been answered for a moment: rclpy may have taken some that are not counted yet, and
        it sends an answer after it was given, both of which need the service."""
        begin = time.monotonic()
        with self._idle:
            while (now := time.monotonic()) < begin + ANSWERS_LEAVE_S:
                if not self._questions and now >= max(begin, self._last_question) + QUIET_S:
                    return
                self._idle.wait(QUIET_S / 5)

    def _warn_of_namesakes(self) -> None:
        now, me = time.monotonic(), (self.get_name(), self.get_namespace())
        if self.get_node_names_and_namespaces().count(me) < 2:
            self._namesakes_since = None
        elif self._namesakes_since is None:
            self._namesakes_since = now  # it may be one that has just ended
        elif now - self._namesakes_since > NAMESAKE_S:
            self._namesakes_since = math.inf
            self.get_logger().warning(
                f"another node is called {self.get_fully_qualified_name()}: parameters and transitions may reach "
                "either; start one with --ros-args -r __node:=<another name>"
            )

    # ---- inputs

    def _subscribe_found(self, stream: Stream) -> None:
        self._subscribe(stream, qos_policy(stream.qos, stream.qos_depth))

    def _subscribe(self, stream: Stream, policy: QosPolicy) -> None:
        with self._subscribing:
            engine = self._engine
            if engine is None or not engine.running:
                return
            former = self._subscriptions_of.pop(stream, None)
            if former is not None:
                self.destroy_subscription(former)
            self._subscriptions_of[stream] = self.create_subscription(
                message_class(stream.message_type),
                stream.topic,
                partial(engine.offer, stream),
                _profile(policy),
                callback_group=self._inputs,
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=partial(self._on_incompatible_qos, stream, policy), use_default_callbacks=False
                ),
                raw=True,
            )

    def _on_incompatible_qos(self, stream: Stream, policy: QosPolicy, event: Any) -> None:
        subscription = self._subscriptions_of.get(stream)
        if subscription is None:
            return
        topic = subscription.topic_name
        instead = fallback(stream.qos, policy)
        if instead is not None:
            self.get_logger().info(f"a publisher on {topic} is best effort: subscribing as best effort, too")
            self._subscribe(stream, instead)
            return
        name = qos_policy_name_from_kind(event.last_policy_kind)
        if self._engine is not None:
            self._engine.qos_mismatch(stream, mismatch_remedy(topic, name, stream.qos_parameter))

    def _published(self) -> dict[str, list[str]]:
        topics = self.get_topic_names_and_types()
        return {topic: types for topic, types in topics if self.count_publishers(topic)}

    def _now_ns(self) -> int:
        """The node's clock; the end of time while /clock has not told it, so that nothing counts as of the future."""
        now = int(self.get_clock().now().nanoseconds)
        return now if now > 0 else END_OF_TIME

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if self._engine is None or jump.clock_change not in (
            ClockChange.ROS_TIME_NO_CHANGE,
            ClockChange.SYSTEM_TIME_NO_CHANGE,
        ):
            return
        if jump.delta.nanoseconds < 0:
            self._engine.clock_set_back(int(self.get_clock().now().nanoseconds))

    # ---- questions

    def _on_query(self, message: Any, response: Any) -> Any:
        """Gives the question to the engine, which answers in time whatever happens."""
        with self._one_question():
            return convert.response_message(self._ask(message).result(), MAKE)

    def _on_batch(self, message: Any, response: Any) -> Any:
        """Gives several questions to the engine."""
        with self._one_question():
            engine = self._engine
            try:
                requests = convert.requests_of(message)
                if engine is not None:
                    return convert.batch_response(engine.ask_all(requests).result(), MAKE)
                refusal = QueryError(ErrorCode.CANCELLED, "the node is not configured")
            except QueryError as error:
                refusal = error
            return convert.batch_refusal(refusal, MAKE)

    def _on_goal(self, goal: Any) -> Any:
        """Gives a goal's question to the engine; tells the text as it comes, and gives the question up with the goal."""

        def tell(text: str) -> None:
            with suppress(InvalidHandle):  # the node is being cleaned up
                goal.publish_feedback(message_class(convert.FEEDBACK)(partial_answer=text))

        feedback = Feedback(tell)
        with self._one_question():
            future = self._ask(goal.request, feedback)
            while not future.done():
                wait([future], CANCEL_LOOK_S)
                if goal.is_cancel_requested:
                    future.cancel()
            if future.cancelled():
                answer = Answer(error_code=ErrorCode.CANCELLED, error_msg="the goal was cancelled")
                goal.canceled()
            else:
                answer = future.result()
                (goal.abort if answer.error_code else goal.succeed)()
            return convert.response_message(answer, MAKE, convert.RESULT)

    @contextmanager
    def _one_question(self) -> Iterator[None]:
        """Counts a question while it is being answered."""
        with self._idle:
            self._questions += 1
        try:
            yield
        finally:
            with self._idle:
                self._questions -= 1
                self._last_question = time.monotonic()

    def _ask(self, message: Any, on_text: OnText | None = None) -> Future[Answer]:
        engine = self._engine
        try:
            request = convert.request_of(message)
            if engine is not None:
                return engine.ask(request, on_text)
            refusal = Answer(error_code=ErrorCode.CANCELLED, error_msg="the node is not configured")
        except QueryError as error:
            refusal = Answer(error_code=error.code, error_msg=str(error))
        given: Future[Answer] = Future()
        given.set_result(refusal)
        return given

    # ---- outputs

    def _publish_keyframes(self, keyframes: KeyframeSet) -> None:
        publisher = self._keyframes
        if publisher is not None:
            with suppress(InvalidHandle):  # the node is being cleaned up
                publisher.publish(convert.keyframes_message(keyframes, MAKE))

    def _set_diagnostics_rate(self, rate_hz: float) -> None:
        if self._diagnostics_timer is not None:
            self.destroy_timer(self._diagnostics_timer)
            self._diagnostics_timer = None
        if rate_hz > 0:
            # Wall time: diagnostics must come also when a simulation pauses.
            clock = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
            self._diagnostics_timer = self.create_timer(
                1.0 / rate_hz, self._publish_diagnostics, callback_group=self._housekeeping, clock=clock
            )

    def _publish_diagnostics(self) -> None:
        engine = self._engine
        if engine is None:
            return
        self._warn_of_namesakes()
        now = int(self.get_clock().now().nanoseconds)
        self._diagnostics.publish(
            convert.diagnostics_message(engine.diagnose(), self.get_fully_qualified_name(), now, MAKE)
        )


class _LogBridge(logging.Handler):
    """What the engine logs, in the node's log."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def attach(self) -> None:
        """Hear all that the package logs.

        Where ROS's launch is imported in the same process, loggers made from then on tell their parents nothing. Ours do,
        also those of modules that are imported later: they get the logger that is made here.
        """
        package = Path(spatial_mllm_ros.__file__).parent
        for file in package.rglob("*.py"):
            parts = file.relative_to(package.parent).with_suffix("").parts
            logging.getLogger(".".join(parts).removesuffix(".__init__")).propagate = True
        PACKAGE_LOG.addHandler(self)
        PACKAGE_LOG.setLevel(logging.DEBUG)  # the node's own level decides what is shown

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy tells its callers apart by line and refuses one that changes its level, hence a line for each.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def _decode(stream: Stream, message: bytes) -> Any:
    return deserialize_message(message, message_class(stream.message_type))


def _profile(policy: QosPolicy) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=policy.depth,
        reliability=ReliabilityPolicy.RELIABLE if policy.reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if policy.transient_local else DurabilityPolicy.VOLATILE,
    )


def spin(node: SpatialMllmNode, executor: MultiThreadedExecutor, stop: threading.Event) -> None:
    """Execute callbacks until ``stop`` is set. What goes wrong in one of them is logged, and the others go on."""
    while not stop.is_set() and rclpy.ok(context=node.context):
        try:
            executor.spin_once()
        except InvalidHandle:
            continue  # something was ready when the node stopped listening to it
        except ExternalShutdownException:
            return
        except Exception:  # for example RCLError for a request that does not decode; the node keeps serving
            log.exception("a callback failed")


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit status."""
    argv = sys.argv if args is None else args
    if "--help" in argv[1:] or "-h" in argv[1:]:
        sys.stdout.write(help_text(EXECUTABLE))
        return 0
    stop = threading.Event()
    # Handled here rather than by rclpy, which would pull the context away before answers and transitions are out.
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = SpatialMllmNode(interrupted=stop.is_set)
    except (ParameterError, ParameterException) as error:
        rclpy.logging.get_logger(NODE_NAME).fatal(str(error))
        rclpy.try_shutdown()
        return 2
    settings = node.settings()
    questions = settings.query_workers + settings.query_queue + (1 + settings.model_queue if settings.model else 0)
    executor = MultiThreadedExecutor(num_threads=OTHER_THREADS + questions)
    executor.add_node(node)
    spinner = threading.Thread(target=spin, args=(node, executor, stop_spinning := threading.Event()), name="spin")
    spinner.start()
    while spinner.is_alive() and not stop.wait(0.5):
        pass
    # A terminal and ros2 launch both send SIGINT: further signals must not spoil the exit. What follows is limited in
    # time. Ignored, not handled: when the interpreter ends, it gives handled signals back to the system.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _shut_down(node)
    stop_spinning.set()
    executor.create_task(_nothing)  # waking the executor is not enough: it would go on waiting for something to do
    spinner.join(2.0)
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


def _nothing() -> None:
    """Something to do."""


def _shut_down(node: SpatialMllmNode, patience_s: float = 3.0) -> None:
    """Take the node through its shutdown transition, waiting for one that is under way."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            node.trigger_shutdown()
        except RCLError:  # between two states, or finalised already
            if node.finalized:
                return
            time.sleep(0.02)
        else:
            return
