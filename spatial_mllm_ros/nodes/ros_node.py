"""The live node on ROS 2: an rclpy lifecycle node as the middleware of a NodeShell.

Why it is built as it is:

- Subscriptions take messages serialised, in a thread of their own (ros_receiver.py), and only hand them over; the engine's
  thread decodes them. A damaged message is then counted instead of ending the executor, and a dropped image costs no decoding.
- Color, depth, CameraInfo and TF are joined by the engine's FrameAssembler, decoded and looked up by its own code, not by
  message_filters, cv_bridge and tf2_ros: docs/architecture.md says why, with figures.
- The service has a callback group of its own and the executor has a thread for every question that may wait, so that
  whatever the load, parameters and transitions are served. (A coroutine would need no threads, but the executor
  of Jazzy steps every waiting coroutine whenever anything happens, and keeps a list that grows with each step.)
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import array
import importlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import suppress
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
from rclpy.signals import SignalHandlerOptions

import spatial_mllm_ros
from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.goals import Feedback
from spatial_mllm_ros.nodes.inbox import Stream
from spatial_mllm_ros.nodes.live import LiveEngine
from spatial_mllm_ros.nodes.parameters import PARAMETERS, ParameterError, Settings, help_text
from spatial_mllm_ros.nodes.qos import DIAGNOSTICS_QOS, KEYFRAMES_QOS, SERVICE_QOS, QosPolicy
from spatial_mllm_ros.nodes.ros_receiver import Receiver
from spatial_mllm_ros.nodes.shell import (
    BATCH_SERVICE,
    NODE_NAME,
    PACKAGE_LOG,
    SERVICE,
    NodeShell,
    unknown_parameters,
)
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import ErrorCode

log = logging.getLogger(__name__)
EXECUTABLE = "ros2 run spatial_mllm_ros spatial_mllm_node"
CANCEL_LOOK_S = 0.05
"""How often a goal that is being answered looks whether it was cancelled."""
OTHER_THREADS = 4
"""Executor threads beside those in which questions wait: timers, parameters, transitions."""
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


class _Listening:
    """A subscription from which the receiver takes."""

    def __init__(self, node: SpatialMllmNode) -> None:
        self._node = node
        self.subscription: Any = None
        self.topic = ""

    def close(self) -> None:
        self._node.receiver.remove(self.subscription)
        self._node.destroy_subscription(self.subscription)


class SpatialMllmNode(LifecycleNode):
    """See the module's text, and NodeShell for what happens in which state. Parameters: parameters.py.

    interrupted: asked while configuring takes long; true gives up.
    """

    make = MAKE

    def __init__(self, interrupted: Callable[[], bool] = lambda: False, **options: Any) -> None:
        super().__init__(NODE_NAME, **options)
        self._log_bridge = _LogBridge(self.get_logger())
        self._log_bridge.attach()
        self.finalized = False
        self._served: list[Callable[[], object]] = []
        self._keyframes: Any = None
        self._answers, self._housekeeping = ReentrantCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self._declare_parameters()
        unknown = [name for name in unknown_parameters(self._parameter_overrides) if not self.has_parameter(name)]
        self.shell = NodeShell(self, unknown, interrupted)
        self.receiver = Receiver(self.context)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.add_post_set_parameters_callback(self._on_parameters_set)
        profile = _profile(DIAGNOSTICS_QOS)
        self._diagnostics = self.create_publisher(message_class(convert.DIAGNOSTICS), "/diagnostics", profile)
        self._diagnostics_timer: Any = None
        self._set_diagnostics_rate(self.settings().diagnostics_rate_hz)
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(threshold, post_callback=self._on_clock_jump)
        if self.settings().auto_activate:
            self._starter = self.create_timer(0.0, self._start, callback_group=self._housekeeping)

    @property
    def engine(self) -> LiveEngine | None:
        """None while unconfigured."""
        return self.shell.engine

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
            Settings.from_values(self.parameter_values())
        except ParameterError as error:
            raise ParameterError(f"the parameters do not fit together: {error}") from error

    def parameter_values(self) -> dict[str, Any]:
        return {name: self.get_parameter(name).value for name in PARAMETERS}

    def settings(self) -> Settings:
        """The parameters as they are now."""
        return self.shell.settings()

    def _on_set_parameters(self, changes: list[RosParameter]) -> SetParametersResult:
        try:
            self.shell.changed({change.name: change.value for change in changes})
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_parameters_set(self, changes: list[RosParameter]) -> None:
        settings = self.settings()
        if self.engine is not None:
            self.engine.update(settings)
        if any(change.name == "diagnostics_rate_hz" for change in changes):
            self._set_diagnostics_rate(settings.diagnostics_rate_hz)

    # ---- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return super().on_configure(state) if self.shell.configure() else TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self.shell.activate()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.shell.halt("the node was deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.shell.dismantle("the node was cleaned up")
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.shell.dismantle("the node was shut down")
        self.finalized = True
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.shell.dismantle("the node failed")
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Ends everything, whatever the state."""
        self.shell.dismantle("the node was shut down")
        self.receiver.close()
        self._jumps.unregister()
        PACKAGE_LOG.removeHandler(self._log_bridge)
        super().destroy_node()

    def _start(self) -> None:
        self._starter.cancel()
        if self.trigger_configure() is TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def serve(self) -> None:
        keyframes = message_class(convert.KEYFRAMES)
        self._keyframes = self.create_lifecycle_publisher(keyframes, "~/keyframes", _profile(KEYFRAMES_QOS))
        self._served.append(partial(self.destroy_lifecycle_publisher, self._keyframes))
        qos = _profile(SERVICE_QOS)
        for type_name, name, answer in (
            (convert.SERVICE_TYPE, SERVICE, self._on_query),
            (convert.BATCH_TYPE, BATCH_SERVICE, self._on_batch),
        ):
            service = self.create_service(
                message_class(type_name), name, answer, qos_profile=qos, callback_group=self._answers
            )
            self._served.append(partial(self.destroy_service, service))
        action = ActionServer(
            self,
            message_class(convert.ACTION_TYPE),
            SERVICE,
            self._on_goal,
            callback_group=self._answers,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            goal_service_qos_profile=qos,
            result_service_qos_profile=qos,
        )
        self._served.append(action.destroy)

    def unserve(self) -> None:
        self._keyframes = None
        while self._served:
            self._served.pop()()

    # ---- the graph and the clock

    @property
    def full_name(self) -> str:
        return str(self.get_fully_qualified_name())

    @property
    def service_name(self) -> str:
        return str(self.resolve_service_name(SERVICE))

    def resolve(self, topic: str) -> str:
        return str(self.resolve_topic_name(topic))

    def published(self) -> dict[str, list[str]]:
        topics = self.get_topic_names_and_types()
        return {topic: types for topic, types in topics if self.count_publishers(topic)}

    def namesakes(self) -> int:
        return int(self.get_node_names_and_namespaces().count((self.get_name(), self.get_namespace())))

    def subscribe(self, stream: Stream, policy: QosPolicy, offer: Callable[[bytes], None]) -> _Listening:
        listening = _Listening(self)
        subscription = listening.subscription = self.create_subscription(
            message_class(stream.message_type),
            stream.topic,
            offer,
            _profile(policy),
            callback_group=self.receiver.group,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=partial(self._on_incompatible_qos, listening), use_default_callbacks=False
            ),
            raw=True,
        )
        listening.topic = subscription.topic_name
        self.receiver.add(subscription, offer)
        return listening

    def _on_incompatible_qos(self, listening: _Listening, event: Any) -> None:
        self.shell.on_mismatch(listening, qos_policy_name_from_kind(event.last_policy_kind))

    def clock_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if jump.delta.nanoseconds < 0 and jump.clock_change in (
            ClockChange.ROS_TIME_NO_CHANGE,
            ClockChange.SYSTEM_TIME_NO_CHANGE,
        ):
            self.shell.clock_set_back()

    # ---- questions

    def _on_query(self, message: Any, response: Any) -> Any:
        with self.shell.one_question():
            return self.shell.response(self.shell.ask(message).result())

    def _on_batch(self, message: Any, response: Any) -> Any:
        with self.shell.one_question():
            return self.shell.batch_response(self.shell.ask_all(message).result())

    def _on_goal(self, goal: Any) -> Any:
        """Tells the text of a goal's answer as it comes, and gives the question up with the goal."""

        def tell(text: str) -> None:
            with suppress(InvalidHandle):  # the node is being cleaned up
                goal.publish_feedback(self.shell.feedback(text))

        with self.shell.one_question():
            future = self.shell.ask(goal.request, Feedback(tell))
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
            return self.shell.result(answer)

    # ---- outputs

    def publish_keyframes(self, message: Any) -> None:
        publisher = self._keyframes
        if publisher is not None:
            with suppress(InvalidHandle):  # the node is being cleaned up
                publisher.publish(message)

    def publish_diagnostics(self, message: Any) -> None:
        self._diagnostics.publish(message)

    def _set_diagnostics_rate(self, rate_hz: float) -> None:
        if self._diagnostics_timer is not None:
            self.destroy_timer(self._diagnostics_timer)
            self._diagnostics_timer = None
        if rate_hz > 0:
            # Wall time: diagnostics must come also when a simulation pauses.
            clock = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
            self._diagnostics_timer = self.create_timer(
                1.0 / rate_hz, self.shell.publish_diagnostics, callback_group=self._housekeeping, clock=clock
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
