"""The live engine: messages in, frames into memory, questions answered beside it. Without any middleware.

A node is a shell around it: it subscribes to ``streams``, hands every message to ``offer``, passes questions to ``ask``
and publishes what ``on_keyframes`` and ``status`` give: shell.py.

Threads: callbacks of the node only append to a queue; one thread decodes, assembles frames and adds them to the memory;
every sink of the memory has one; ``query_workers`` answer by geometry, a few ask the model; one publishes keyframes, one
has the model encode them, one makes geometry from color. None of them waits for another but through bounded queues, so
that an answer from geometry never waits for the model's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.answering.model_backend import ModelBackend
from spatial_mllm_ros.dds.interfaces import interfaces
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.nodes.batch import BatchAnswer, BatchRequest, SharedState, gathered
from spatial_mllm_ros.nodes.configs import sensor_model
from spatial_mllm_ros.nodes.diagnosis import SET_UP, Finding, Level, LiveStatus, findings
from spatial_mllm_ros.nodes.fault_log import FaultLog
from spatial_mllm_ros.nodes.inbox import Inbox, Kind, Stream
from spatial_mllm_ros.nodes.keyframes import KeyframeSet, publish_changes
from spatial_mllm_ros.nodes.live_memory import LiveMemory
from spatial_mllm_ros.nodes.loaded import LoadedModels
from spatial_mllm_ros.nodes.model import ServedPredictor, load_geometry, load_model
from spatial_mllm_ros.nodes.parameters import PARAMETERS, Change, ParameterError, Settings
from spatial_mllm_ros.nodes.progress import at_latest
from spatial_mllm_ros.nodes.queries import OnText, QueryPool
from spatial_mllm_ros.nodes.status import query_status, stream_statuses
from spatial_mllm_ros.nodes.streams import pose_stream, streams_of
from spatial_mllm_ros.nodes.surroundings import Surroundings
from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.serving.interface import SpatialModel
from spatial_mllm_ros.sources.topics import POSE_TYPES

log = logging.getLogger(__name__)
IDLE_S = 2.0
"""When nothing has come for so long, images that still wait for their depth or transform are taken in as they are."""
MOST_FAULTS = 4
LOOK_S = 1.0
"""Faults are looked for this often."""
SETTLE_S = 0.2
"""An answer waits so long at most for the sinks to have seen what the memory has."""
MODEL_WORKERS = 8
"""The model answers one question at a time; the others of these wait for it, or have geometry's answer meanwhile."""


class LiveEngine:
    """Holds what streams in and answers questions about it. Safe to use from several threads.

    settings: see parameters.py. clock: nanoseconds now, on the time line of the stamps. on_keyframes: called from a thread
    of the engine's when the keyframes have changed. monotonic: seconds. load_model: called when the settings name a model;
    returns it loaded, or raises ConfigurationError. load_geometry: the same for the predictor of geometry from color.
    surroundings: what others publish, where the node knows. subscribe: called from a thread of the engine's with a stream
    that was found under way, and is in ``streams`` from then on. troubles: what is wrong with the node's set-up, such as
    parameters that do not exist.

    Raises ConfigurationError when something named in the settings cannot be had. ``close`` it when it is done with.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], int] = time.time_ns,
        on_keyframes: Callable[[KeyframeSet], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        load_model: Callable[[Settings], SpatialModel] = load_model,
        load_geometry: Callable[[Settings], ServedPredictor] = load_geometry,
        surroundings: Surroundings | None = None,
        subscribe: Callable[[Stream], None] = lambda stream: None,
        troubles: Sequence[str] = (),
    ) -> None:
        self.settings = settings
        self.on_keyframes = on_keyframes
        self._monotonic = monotonic
        sensor = sensor_model(settings.sensor_model)
        self._loaded = LoadedModels(settings, load_model, load_geometry)
        self._inbox = Inbox(streams_of(settings), monotonic)
        self._inbox.close()
        self._seen = LiveMemory(settings, self.streams, sensor, self._loaded, clock, monotonic, self._wake)
        self._mismatches: dict[Stream, str] = {}
        self._surroundings = surroundings
        self._subscribe = subscribe
        self._troubles = tuple(troubles)
        self._diagnosed: LiveStatus | None = None
        self._lifecycle = threading.RLock()

        def pool(workers: int, queue: int) -> QueryPool:
            return QueryPool(self._answer, workers, queue, settings.timeout_s, monotonic, self._can_be_answered)

        self._pool = pool(settings.query_workers, settings.query_queue)
        at_once = min(MODEL_WORKERS, settings.model_queue + 1)
        self._model_pool = pool(at_once, settings.model_queue + 1 - at_once)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._started: float | None = None

    # ---- for the node

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What to subscribe to."""
        return self._inbox.streams

    @property
    def memory(self) -> SpatialMemory:
        """What has been seen; another one after a reset."""
        return self._seen.memory

    @property
    def query(self) -> SpatialQueryEngine:
        """What answers about it; another one after a reset."""
        return self._seen.query

    @property
    def resets(self) -> int:
        """How often the memory was forgotten because the clock was set back."""
        return self._seen.resets

    @property
    def refused(self) -> Counter[tuple[Stream, str]]:
        """Messages that became no part of a frame because of what is in them, by stream and reason."""
        return self._seen.intake.refused

    @property
    def running(self) -> bool:
        return self._started is not None

    def offer(self, stream: Stream, message: Any) -> None:
        """Hand over a message, serialised (CDR) or not: appends to a queue, no more."""
        if stream.kind is Kind.COLOR and self.running:
            self._seen.progress.received(stream.camera, message)
        self._inbox.put(stream, message)

    def ask(self, request: Request, on_text: OnText | None = None) -> Future[Answer]:
        """A Future that gets an Answer in time, whatever happens; see QueryPool. on_text: given the text of a model that
        answers, piece by piece."""
        pool = self._model_pool if self._loaded.backend is not None and self.query.needs_model(request) else self._pool
        return pool.submit(request, on_text)

    def ask_all(self, requests: Sequence[Request]) -> Future[BatchAnswer]:
        """The answers to requests over one state of the memory; see ``ask``."""
        shared = SharedState(self.memory.snapshot, requests)
        return gathered([self.ask(BatchRequest.of(request, shared)) for request in requests], shared)

    def start(self) -> None:
        """Take messages in and answer questions. What was remembered before a ``stop`` still is."""
        with self._lifecycle:
            if self.running:
                return
            self._stop = stop = threading.Event()
            interfaces()  # before the first message waits for it
            self._inbox.open()
            self._threads = [
                threading.Thread(target=self._ingest, args=(stop,), name="ingest", daemon=True),
                threading.Thread(target=self._look_round, args=(stop,), name="faults", daemon=True),
            ]
            if self.on_keyframes is not None:
                publish = threading.Thread(
                    target=publish_changes,
                    args=(
                        self.keyframes,
                        lambda: self._seen.state,
                        lambda: self.settings.keyframes_rate_hz,
                        self.on_keyframes,
                        stop,
                    ),
                    name="keyframes",
                    daemon=True,
                )
                self._threads.append(publish)
            if self._loaded.backend is not None:
                update = threading.Thread(
                    target=self._update_context, args=(self._loaded.backend, stop), name="context", daemon=True
                )
                self._threads.append(update)
            self._seen.sinks.start()
            for thread in self._threads:
                thread.start()
            if self._seen.geometry is not None:
                self._seen.geometry.start()
            for pool in (self._pool, self._model_pool):
                pool.start()
            self._started = self._monotonic()

    def stop(self, because: str = "the node is not active", timeout_s: float = 1.0) -> None:
        """Take nothing more in, answer questions that wait or run CANCELLED with ``because``. Keeps the memory.

        Images that wait to become geometry still do.
        """
        with self._lifecycle:
            if not self.running:
                return
            self._started = None
            self._stop.set()
            self._inbox.close()
            for pool in (self._pool, self._model_pool):
                pool.stop(because, timeout_s)
            deadline = time.monotonic() + timeout_s
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    log.warning("the %s thread has not ended yet", thread.name)
            self._threads = []
            self._seen.sinks.stop(max(0.1, deadline - time.monotonic()))
            self._mismatches.clear()
            self._diagnosed = None

    def close(self) -> None:
        """Stop, and free the models. There is no way back."""
        self.stop("the node was cleaned up")
        if self._seen.geometry is not None:
            self._seen.geometry.close()
        self._loaded.close()

    def reset(self) -> None:
        """Forget everything but static transforms and calibrations."""
        self._seen.reset()

    def clock_set_back(self, now_ns: int) -> None:
        """The node's clock jumped back to ``now_ns``; see LiveMemory."""
        self._seen.clock_set_back(now_ns)

    def qos_mismatch(self, stream: Stream, remedy: str) -> None:
        """Nothing can come on a stream because of a quality of service."""
        if self._mismatches.get(stream) != remedy:
            log.error("%s", remedy)
        self._mismatches[stream] = remedy

    def diagnose(self) -> list[Finding]:
        """What is worth telling now; a fault is what has happened since this was asked last."""
        status = self.status()
        found = findings(status, self._diagnosed, self._surroundings)
        self._diagnosed = status
        return found

    def update(self, settings: Settings) -> None:
        """Take over the values that may change at any time. Raises ParameterError for a change of others."""
        for name, parameter in PARAMETERS.items():
            if getattr(settings, name) != getattr(self.settings, name) and parameter.change is not Change.ANY_TIME:
                raise ParameterError(f"{name} can be set {parameter.change.value}")
        self._seen.update(settings)
        self.settings = settings
        for pool in (self._pool, self._model_pool):
            pool.timeout_s = settings.timeout_s

    def keyframes(self) -> KeyframeSet:
        """The keyframes now."""
        self._seen.sinks.settle(SETTLE_S)
        return KeyframeSet.of(self.memory.snapshot(), self.settings.keyframes_count, max(self._seen.newest_ns, 0))

    def status(self) -> LiveStatus:
        """Everything that is worth knowing about the engine now."""
        seen, memory, intake = self._seen, self.memory, self._seen.intake
        refused = Counter(intake.assembler.refused)
        refused.update(memory.refused)
        return LiveStatus(
            running_s=None if self._started is None else self._monotonic() - self._started,
            streams=stream_statuses(self._inbox, intake, self._mismatches, self.settings),
            frames=len(memory),
            nbytes=memory.nbytes,
            max_bytes=memory.config.max_bytes,
            evicted=memory.evicted,
            throttled=seen.throttled,
            without_depth=memory.without_depth,
            world_frame=memory.world_frame,
            refused=dict(refused),
            remarks=dict(intake.assembler.remarks),
            tf_counts=dict(intake.tree.counts),
            resets=seen.resets,
            queries=query_status(self._pool),
            model_queries=None if self._loaded.model is None else query_status(self._model_pool),
            model=None if self._loaded.model is None else self._loaded.model.status(),
            geometry=None if seen.geometry is None else seen.geometry.status(),
            texts=dict(intake.assembler.texts),
            above=seen.above,
            image_ns=intake.image_ns,
            tf_ns=intake.tf_ns,
            troubles=self._troubles,
            doubts=seen.doubts(),
            sinks=seen.sinks.status(),
        )

    # ---- threads

    def _ingest(self, stop: threading.Event) -> None:
        flushed = False
        while not stop.is_set():
            item = self._inbox.get(IDLE_S)
            if item is not None:
                flushed = False
                self._seen.intake.take(*item)
            elif not flushed:
                flushed = True
                self._seen.intake.flush()
        self._seen.intake.flush()

    # ---- questions

    def _wake(self) -> None:
        """Frames have come that a question may have waited for."""
        for pool in (self._pool, self._model_pool):
            pool.wake()

    def _can_be_answered(self, request: Request) -> bool:
        waiting = any(self._inbox.waiting(stream) for stream in self.streams if stream.kind is Kind.COLOR)
        together = request.shared.requests if isinstance(request, BatchRequest) else (request,)
        return not any(self._seen.progress.on_its_way(one, waiting) for one in together)

    def _answer(self, request: Request, cancelled: Callable[[], bool], on_text: OnText | None) -> Answer:
        self._seen.sinks.settle(SETTLE_S)
        query, memory = self.query, self.memory
        seen = request.shared.snapshot() if isinstance(request, BatchRequest) else None
        answer = query.answer(at_latest(request, memory), cancelled, on_text, seen)
        if answer.error_code is ErrorCode.NO_FRAMES and not len(memory):
            why = [] if self._seen.geometry is None else [self._seen.geometry.why_nothing()]
            return replace(answer, error_msg="; ".join([answer.error_msg, *why, *self._why_nothing()]))
        return answer

    def _why_nothing(self) -> list[str]:
        """Why no frame has come, as /diagnostics has it."""
        found = sorted(findings(self.status(), None, self._surroundings), key=lambda f: f.name != SET_UP)
        faults = [f.message for f in found if f.level in (Level.WARN, Level.ERROR) and f.name != "questions"]
        silent = [
            s.stream.topic for s in self.status().streams if not s.received and s.stream.kind is not Kind.TF_STATIC
        ]
        return faults[:MOST_FAULTS] or ([f"nothing has come yet on {', '.join(silent)}"] if silent else [])

    def _look_round(self, stop: threading.Event) -> None:
        """For faults, and for a topic of poses."""
        faults, before = FaultLog(self._monotonic), None
        while not stop.wait(LOOK_S):
            try:
                self._look_for_poses()
                status = self.status()
                faults.tell(findings(status, before, self._surroundings))
                before = status
            except Exception:  # the node keeps serving
                log.exception("the node could not be diagnosed")

    def _look_for_poses(self) -> None:
        """Subscribe to pose_topic once somebody publishes it, which tells its type."""
        topic, around = self.settings.pose_topic, self._surroundings
        if not topic or around is None or any(stream.kind is Kind.POSE for stream in self.streams):
            return
        types = around.published().get(around.resolve(topic), ())
        for message_type in POSE_TYPES:
            if message_type in types:
                stream = pose_stream(self.settings, message_type)
                self._inbox.add(stream)
                self._seen.intake.add(stream)
                self._subscribe(stream)
                log.info("listening to %s (%s)", around.resolve(topic), message_type)
                return

    def _update_context(self, backend: ModelBackend, stop: threading.Event) -> None:
        """Has the model encode the keyframes when they have changed."""
        while not stop.is_set():
            try:
                backend.update(self.memory, self.settings.keyframes_count)
            except Exception:  # the node keeps serving
                log.exception("the model's context could not be updated")
            stop.wait(self.settings.model_context_period_s)
