"""A model in a process of its own, which it may lose and gets back: nothing a model does takes the node down.

The client's side; neither torch nor transformers here. worker.py is the other side.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from spatial_mllm_ros.models.calls import AskedCall, AskedModel
from spatial_mllm_ros.models.child import (
    QUICK_S,
    RESTART_AFTER_S,
    STUCK_S,
    Child,
    Loading,
    Restarts,
    log_again,
    process_memory,
)
from spatial_mllm_ros.models.interface import (
    ModelCancelled,
    ModelError,
    ModelOptions,
    ModelStatus,
    ModelUnavailable,
)
from spatial_mllm_ros.models.wire import (
    Ask,
    GiveUp,
    Logged,
    Progress,
    Ready,
    Refused,
    SentFrames,
    SetContext,
    Start,
    Status,
    Told,
)

log = logging.getLogger(__name__)

WORKER = "spatial_mllm_ros.models.worker"
ENGINE = "spatial_mllm_ros.models.local:load_engine"
CLOSED = "the model was closed"


class ProcessModel(AskedModel, Loading):
    """A SpatialModel (see interface.py) in a child process.

    queue: questions that may wait; further ones raise ModelBusy. engine: ``module:function`` that loads the engine in
    the child, see ``local.load_engine``. restart_after_s: a process that died is replaced after so many seconds, a
    second one in a row after the next number, and so on; when none is left the model has failed. A process that served
    for ``quick_s`` ends the row. One that dies, or refuses, before the model was ever loaded is not replaced. stuck_s: one
    that neither ends a step nor a token for so long is ended, and replaced like one that died. python: interpreter of the
    process, where torch is not installed in this one's: it needs what the extra ``model`` needs, and not this package.

    Questions that the process had got when it died raise ModelError; those asked meanwhile wait for its successor,
    which gets the context again by itself. Safe to use from several threads.
    """

    def __init__(
        self,
        options: ModelOptions,
        queue: int = 64,
        engine: str = ENGINE,
        restart_after_s: Sequence[float] = RESTART_AFTER_S,
        quick_s: float = QUICK_S,
        stuck_s: float = STUCK_S,
        python: str = "",
    ) -> None:
        super().__init__(queue)
        self._python = python
        self.options = options
        self._engine = engine
        self._restart_after_s = tuple(restart_after_s)
        self._quick_s = quick_s
        self._stuck_s = stuck_s
        self._unavailable = "the model has not been started"
        self._state = "loading"
        self._reason = ""
        self._model_id = options.model
        self._progress = Progress()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._child: Child | None = None
        self._loaded = False
        self._ready_at = math.inf
        self._known = Status(ModelStatus(), 0)
        self._updates = 0
        """Of processes that are gone."""
        self._unsent: deque[AskedCall] = deque()
        self._sent: dict[int, AskedCall] = {}
        self._given_up: deque[int] = deque()
        self._sent_context = 0
        self._forget = False

    # ---- for those who use it

    def start(self) -> None:
        """Begin to load, in the background; again after it has failed. Nothing happens while it loads or is loaded."""
        with self._changed:
            if self._closing.is_set():
                raise ModelUnavailable(CLOSED)
            if self._thread is not None and self._state != "failed":
                return
            self._unavailable = self._reason = ""
            self._state = "loading"
            self._progress = Progress()
            self._loaded = False
            self._thread = threading.Thread(target=self._supervise, name="model-process", daemon=True)
            self._thread.start()

    @property
    def model_id(self) -> str:
        """See interface.SpatialModel; the name asked for until it is loaded."""
        return self._model_id

    @property
    def pid(self) -> int | None:
        """Process id of the worker, if there is one now."""
        with self._changed:
            return None if self._child is None else self._child.process.pid

    def status(self) -> ModelStatus:
        """See interface.SpatialModel. memory has ``process`` and ``process_peak`` too, where the system tells them."""
        with self._changed:
            known = self._known.status
            ready = self._state == "ready"
            status = replace(
                known,
                state=known.state if ready else self._state,
                reason=known.reason if ready else self._reason,
                model_id=self._model_id,
                pending=self._context > self._known.context or (ready and known.pending),
                waiting=max(0, len(self._calls) - (ready and known.state == "answering")),
                answered=self._answered,
                failed=self._failed,
                updates=self._updates + known.updates,
            )
            child = self._child
        memory = {} if child is None else process_memory(child.process.pid)
        return replace(status, memory={**known.memory, **memory})

    def close(self) -> None:
        """See interface.SpatialModel; returns when the process has ended."""
        self._closing.set()
        self._end(CLOSED, lambda: ModelCancelled(CLOSED))
        with self._changed:
            self._state, self._reason = "failed", CLOSED
            thread, child = self._thread, self._child
        if child is not None:
            child.channel.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # ---- asking; with the lock

    def _submit(self, call: AskedCall) -> None:
        self._unsent.append(call)
        self._changed.notify_all()

    def _withdraw(self, call: AskedCall) -> None:
        if self._sent.pop(call.number, None) is not None:
            self._given_up.append(call.number)
            self._changed.notify_all()
        elif call in self._unsent:
            self._unsent.remove(call)

    def _pass_context(self) -> None:
        self._forget |= not self._context_frames  # the next context may come before this one is sent
        self._changed.notify_all()

    # ---- the life of the process; in a thread of its own

    def _supervise(self) -> None:
        """One process after another."""
        restarts = Restarts(self._restart_after_s, self._quick_s)
        while True:
            reason, served_s = self._serve()
            if self._closing.is_set():
                return
            if not self._loaded:
                self._fail(reason)
                return
            pause_s = restarts.pause_s(served_s)
            if pause_s is None:
                self._fail(f"{reason}; it has been given up after {restarts.row} times in a row")
                return
            log.error("%s; it is being restarted", reason)
            with self._changed:
                for call in self._sent.values():
                    call.tell(ModelError(f"{reason}; it is being restarted"))
                self._lose(reason, "restarting")
            if self._closing.wait(pause_s):
                return

    def _serve(self) -> tuple[str, float]:
        """One process, from its start to its end: how it ended, and how many seconds it served."""
        self._ready_at = math.inf
        try:
            child = Child(WORKER, "the model's process", self._python)
        except OSError as error:
            return f"the model's process cannot be started: {error}", 0.0
        with self._changed:
            self._child = child
            if self._closing.is_set():
                child.channel.close()
        refused = self._listen(child)
        served_s = time.monotonic() - self._ready_at
        with self._changed:
            self._child = None
            self._changed.notify_all()  # the writer ends
        ended = child.end()
        if not self._loaded:
            ended += f", while loading ({self._loading()})"
        return refused or ended, served_s

    def _listen(self, child: Child) -> str:
        """Until the process has nothing more to say: why it refused to load, or ''."""
        try:
            child.channel.send(Start(self.options, self._engine, log.getEffectiveLevel(), os.getpid(), self._stuck_s))
            while not isinstance(message := child.channel.receive(), Refused):
                self._take(child, message)
        except (EOFError, OSError):
            return ""
        except Exception:
            log.exception("a message of the model's process could not be read")
            return ""
        return message.reason

    def _take(self, child: Child, message: Progress | Ready | Status | Told | Logged) -> None:
        if isinstance(message, Logged):
            log_again(message)
            return
        with self._changed:
            if isinstance(message, Told):
                ends = not isinstance(message.event, str)
                call = self._sent.pop(message.number, None) if ends else self._sent.get(message.number)
                if call is not None:
                    call.tell(message.event)
                return
            if isinstance(message, Status):
                self._known = message
            elif isinstance(message, Progress):
                self._progress = message
            else:
                self._model_id = message.model_id
                self._state, self._reason, self._loaded = "ready", "", True
                self._ready_at = time.monotonic()
                threading.Thread(target=self._write, args=(child,), name="model-write", daemon=True).start()
            self._changed.notify_all()

    def _write(self, child: Child) -> None:
        """Send what is asked and set, as long as this process is there to take it."""
        sent = SentFrames()
        while True:
            message = None
            with self._changed:
                while child is self._child and (message := self._next_message(sent)) is None:
                    self._changed.wait()
            if message is None:
                return
            try:
                child.channel.send(message)
            except OSError:  # the listener sees it too
                return

    def _next_message(self, sent: SentFrames) -> GiveUp | SetContext | Ask | None:
        """With the lock. A context goes before the questions about it."""
        if self._given_up:
            return GiveUp(self._given_up.popleft())
        if self._sent_context < self._context:
            self._sent_context, forget, self._forget = self._context, self._forget, False
            return SetContext(self._context, sent.context(self._context_frames), forget)
        if self._unsent:
            call = self._unsent.popleft()
            self._sent[call.number] = call
            frames = None if call.frames is None else sent.question(call.frames)
            left = call.deadline - time.monotonic()
            return Ask(call.number, call.question, frames, left, call.context, call.streams)
        return None

    def _lose(self, reason: str, state: str) -> None:
        """With the lock: the process is gone, and with it what it was about to answer and had encoded."""
        self._sent.clear()
        self._given_up.clear()
        self._sent_context = 0
        self._updates += self._known.status.updates
        self._known = Status(ModelStatus(), 0)
        self._state, self._reason = state, reason
        self._changed.notify_all()

    def _fail(self, reason: str) -> None:
        log.error("%s", reason)
        with self._changed:
            self._lose(reason, "failed")
            self._unsent.clear()
            self._end(reason, lambda: ModelUnavailable(reason))
