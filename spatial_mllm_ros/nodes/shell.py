"""What the live node does whatever carries its messages: ros_node.py and dds_node.py are this and their middleware."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.batch import BatchAnswer
from spatial_mllm_ros.nodes.inbox import Stream
from spatial_mllm_ros.nodes.keyframes import KeyframeSet
from spatial_mllm_ros.nodes.live import LiveEngine
from spatial_mllm_ros.nodes.model import ConfigurationError, load_geometry, load_model
from spatial_mllm_ros.nodes.parameters import PARAMETERS, ParameterError, Settings, without_effect
from spatial_mllm_ros.nodes.qos import QosPolicy, fallback, mismatch_remedy, qos_policy
from spatial_mllm_ros.nodes.queries import OnText
from spatial_mllm_ros.nodes.surroundings import Surroundings
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError

NODE_NAME, SERVICE, BATCH_SERVICE = "spatial_mllm", "spatial_query", "spatial_queries"
PACKAGE_LOG = logging.getLogger("spatial_mllm_ros")
log = logging.getLogger(__name__)
END_OF_TIME = 2**63 - 1
NAMESAKE_S = 3.0
"""A node that ended without a word is still known for a while; one that stays longer is there."""
ANSWERS_LEAVE_S, QUIET_S = 0.5, 0.05
"""Answers leave within this time; none has come or gone for so long."""


class Subscribed(Protocol):
    """A subscription of the middleware's. ``topic``: its full name."""

    @property
    def topic(self) -> str: ...

    def close(self) -> None:
        """Stop listening."""


class Middleware(Protocol):
    """What the shell needs of what carries the messages."""

    @property
    def make(self) -> convert.Maker:
        """Of its messages."""

    @property
    def full_name(self) -> str:
        """The node's, with its namespace."""

    @property
    def service_name(self) -> str:
        """The full name of the service SERVICE."""

    def parameter_values(self) -> Mapping[str, Any]:
        """The values of PARAMETERS as they are now."""

    def clock_ns(self) -> int:
        """The node's clock, ns; 0 while /clock has not told it."""

    def resolve(self, topic: str) -> str:
        """A topic's full name, after namespace and remapping."""

    def published(self) -> Mapping[str, Collection[str]]:
        """The topics that somebody publishes, by full name, with their types."""

    def namesakes(self) -> int:
        """How many nodes have this one's name, itself included."""

    def subscribe(self, stream: Stream, policy: QosPolicy, offer: Callable[[bytes], None]) -> Subscribed:
        """Hand every message on a stream's topic, serialised, to ``offer``."""

    def serve(self) -> None:
        """Make what answers and publishes while the node is configured: services, action, keyframes."""

    def unserve(self) -> None:
        """Undo ``serve``; nothing when it was not called."""

    def publish_keyframes(self, message: Any) -> None:
        """Once served."""

    def publish_diagnostics(self, message: Any) -> None:
        """In any state."""


class NodeShell:
    """The engine's life, subscriptions, questions and diagnostics of a node. Safe to use from several threads.

    unconfigured: parameters may be set. ``configure`` builds the engine, or tells in ``failure`` why not; what asks from then
    on gets CANCELLED until the node is active. ``activate`` subscribes and serves, ``halt`` stops both and keeps the memory,
    ``dismantle`` forgets it.

    unknown: names of parameters that were given and do not exist. interrupted: asked while configuring takes long; true
    gives up.
    """

    def __init__(
        self, middleware: Middleware, unknown: Collection[str] = (), interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        self.engine: LiveEngine | None = None
        self.failure = ""
        """Why the last configure failed; '' when it did not."""
        self.subscriptions: dict[Stream, Subscribed] = {}
        self._middleware = middleware
        self._interrupted = interrupted
        self._policies: dict[Stream, QosPolicy] = {}
        self._subscribing = threading.RLock()
        self._questions = 0
        self._last_question = -math.inf
        self._idle = threading.Condition()
        self._namesakes_since: float | None = None
        self._troubles = without_effect(unknown)
        for trouble in self._troubles:
            log.warning("%s", trouble)

    # ---- parameters

    def settings(self) -> Settings:
        """The parameters as they are now."""
        return Settings.from_values(self._middleware.parameter_values())

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """The parameters as they would be. Raises ParameterError for what cannot be, or not now."""
        configured = self._middleware.full_name if self.engine is not None else ""
        return self.settings().changed(changes, configured)

    # ---- lifecycle

    def configure(self) -> bool:
        """Build the engine and what it is asked by; whether that went well."""
        middleware = self._middleware
        try:
            self.engine = LiveEngine(
                self.settings(),
                self.now_ns,
                on_keyframes=self._publish_keyframes,
                load_model=partial(load_model, interrupted=self._interrupted),
                load_geometry=partial(load_geometry, interrupted=self._interrupted),
                surroundings=Surroundings(middleware.resolve, middleware.published),
                subscribe=self.subscribe,
                troubles=self._troubles,
            )
        except (ConfigurationError, ParameterError) as error:
            self.failure = str(error)
            log.error("cannot be configured: %s", error)
            return False
        self.failure = ""
        middleware.serve()
        return True

    def activate(self) -> None:
        """Take messages in, and answer."""
        assert self.engine is not None
        self.engine.start()
        for stream in self.engine.streams:
            self.subscribe(stream)
        topics = ", ".join(subscription.topic for subscription in self.subscriptions.values())
        log.info("listening to %s; answering on %s", topics, self._middleware.service_name)

    def halt(self, because: str) -> None:
        """Take nothing more in; questions that wait or run are CANCELLED with ``because``."""
        if self.engine is not None:
            self.engine.stop(because)
        with self._subscribing:
            subscriptions = list(self.subscriptions.values())
            self.subscriptions.clear()
            self._policies.clear()
        for subscription in subscriptions:  # unlocked: closing waits for callbacks, and one may wait for the lock
            subscription.close()

    def dismantle(self, because: str) -> None:
        """Halt, and end the engine and what it is asked by."""
        self.halt(because)
        if self.engine is None:
            return
        self._wait_for_quiet()
        self._middleware.unserve()
        engine, self.engine = self.engine, None
        engine.close()

    def _wait_for_quiet(self) -> None:
        """Until no question has come or been answered for a moment: some may have been taken and not be counted yet, and
        an answer is sent after it was given, both of which need the service."""
        begin = time.monotonic()
        with self._idle:
            while (now := time.monotonic()) < begin + ANSWERS_LEAVE_S:
                if not self._questions and now >= max(begin, self._last_question) + QUIET_S:
                    return
                self._idle.wait(QUIET_S / 5)

    # ---- inputs

    def subscribe(self, stream: Stream, policy: QosPolicy | None = None) -> None:
        """Listen to a stream, in place of a former subscription; with the policy of its settings unless one is given."""
        policy = qos_policy(stream.qos, stream.qos_depth) if policy is None else policy
        with self._subscribing:
            engine = self.engine
            if engine is None or not engine.running:
                return
            former = self.subscriptions.pop(stream, None)
            self._policies[stream] = policy
            self.subscriptions[stream] = self._middleware.subscribe(stream, policy, partial(engine.offer, stream))
        if former is not None:
            former.close()

    def on_mismatch(self, subscription: Subscribed, policy_name: str) -> bool:
        """A publisher offers less than a subscription asks for: ask for less where that is ``auto``, or tell the remedy.

        False when the subscription is none of these, or one that was replaced meanwhile.
        """
        with self._subscribing:
            stream = next((s for s, own in self.subscriptions.items() if own is subscription), None)
            if stream is None:
                return False
            instead = fallback(stream.qos, self._policies[stream])
            if instead is not None:
                log.info("a publisher on %s is best effort: subscribing as best effort, too", subscription.topic)
                self.subscribe(stream, instead)
            elif self.engine is not None:
                self.engine.qos_mismatch(stream, mismatch_remedy(subscription.topic, policy_name, stream.qos_parameter))
            return True

    def now_ns(self) -> int:
        """The node's clock; the end of time while /clock has not told it, so that nothing counts as of the future."""
        now = self._middleware.clock_ns()
        return now if now > 0 else END_OF_TIME

    def clock_set_back(self) -> None:
        """The node's clock jumped back to what it tells now."""
        engine = self.engine
        if engine is not None:
            engine.clock_set_back(self._middleware.clock_ns())

    # ---- questions

    def ask(self, message: Any, on_text: OnText | None = None) -> Future[Answer]:
        """The answer to SpatialQuery's request or goal, which comes in time whatever happens."""
        engine = self.engine
        try:
            request = convert.request_of(message)
        except QueryError as error:
            return given(Answer(error_code=error.code, error_msg=str(error)))
        if engine is None:
            return given(Answer(error_code=ErrorCode.CANCELLED, error_msg="the node is not configured"))
        return engine.ask(request, on_text)

    def ask_all(self, message: Any) -> Future[BatchAnswer | QueryError]:
        """The answers to SpatialQueries' request, or why there are none."""
        engine = self.engine
        try:
            requests = convert.requests_of(message)
        except QueryError as error:
            return given(error)
        if engine is None:
            return given(QueryError(ErrorCode.CANCELLED, "the node is not configured"))
        answers: Future[Any] = engine.ask_all(requests)
        return answers

    def response(self, answer: Answer) -> Any:
        """The message of an answer."""
        return convert.response_message(answer, self._middleware.make)

    def batch_response(self, batch: BatchAnswer | QueryError) -> Any:
        """The message of what ``ask_all`` gave."""
        if isinstance(batch, QueryError):
            return convert.batch_refusal(batch, self._middleware.make)
        return convert.batch_response(batch, self._middleware.make)

    def result(self, answer: Answer) -> Any:
        """The result of a goal that was answered so."""
        return convert.response_message(answer, self._middleware.make, convert.RESULT)

    def feedback(self, text: str) -> Any:
        """The feedback of a goal whose answer is so far."""
        return self._middleware.make.new(convert.FEEDBACK, partial_answer=text)

    @contextmanager
    def one_question(self) -> Iterator[None]:
        """Counts a question until its answer is made."""
        self.begin_question()
        try:
            yield
        finally:
            self.end_question()

    def begin_question(self) -> None:
        """See ``one_question``."""
        with self._idle:
            self._questions += 1

    def end_question(self) -> None:
        """See ``one_question``."""
        with self._idle:
            self._questions -= 1
            self._last_question = time.monotonic()
            self._idle.notify_all()

    # ---- outputs

    def _publish_keyframes(self, keyframes: KeyframeSet) -> None:
        self._middleware.publish_keyframes(convert.keyframes_message(keyframes, self._middleware.make))

    def publish_diagnostics(self) -> None:
        """What is worth telling now, once there is an engine."""
        engine, middleware = self.engine, self._middleware
        if engine is None:
            return
        self._warn_of_namesakes()
        findings: Sequence[Any] = engine.diagnose()
        stamp_ns = middleware.clock_ns()
        middleware.publish_diagnostics(
            convert.diagnostics_message(findings, middleware.full_name, stamp_ns, middleware.make)
        )

    def _warn_of_namesakes(self) -> None:
        now = time.monotonic()
        if self._middleware.namesakes() < 2:
            self._namesakes_since = None
        elif self._namesakes_since is None:
            self._namesakes_since = now  # it may be one that has just ended
        elif now - self._namesakes_since > NAMESAKE_S:
            self._namesakes_since = math.inf
            log.warning(
                "another node is called %s: questions, parameters and transitions may reach either; start one with "
                "--ros-args -r __node:=<another name>",
                self._middleware.full_name,
            )


def given(result: Any) -> Future[Any]:
    """A Future that is done."""
    future: Future[Any] = Future()
    future.set_result(result)
    return future


def unknown_parameters(names: Collection[str], others: Collection[str] = ()) -> list[str]:
    """Those of the given names that no parameter has, nor one of ``others``."""
    return [name for name in names if name not in PARAMETERS and name not in others]
