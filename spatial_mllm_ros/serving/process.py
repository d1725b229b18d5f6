"""A model in a process of its own, which it may lose and gets back: nothing a model does takes the node down.

The client's side; neither torch nor transformers here. worker.py is the other side.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from spatial_mllm_ros.serving.calls import AskedCall, AskedModel
from spatial_mllm_ros.serving.child import Child, process_memory
from spatial_mllm_ros.serving.interface import ModelError, ModelOptions, ModelStatus
from spatial_mllm_ros.serving.supervised import QUICK_S, RESTART_AFTER_S, STUCK_S, Supervised
from spatial_mllm_ros.serving.wire import Ask, GiveUp, QuestionEvent, SentFrames, SetContext, Status

WORKER = "spatial_mllm_ros.models.worker.worker"
ENGINE = "spatial_mllm_ros.models.worker.local:load_engine"


class ProcessModel(AskedModel, Supervised):
    """A SpatialModel (see interface.py) in a child process.

    queue: questions that may wait; further ones raise ModelBusy. engine: ``module:function`` that loads the engine in
    the child, see ``local.load_engine``. The others as for ``supervised.Supervised``.

    Questions that the process had got when it died raise ModelError; those asked meanwhile wait for its successor,
    which gets the context again by itself.
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
        AskedModel.__init__(self, queue)
        Supervised.__init__(
            self,
            options,
            WORKER,
            engine,
            "the model's process",
            "the model",
            restart_after_s,
            quick_s,
            stuck_s,
            python,
        )
        self._known = Status(ModelStatus(), 0)
        self._updates = 0
        """Of processes that are gone."""
        self._unsent: deque[AskedCall] = deque()
        self._sent: dict[int, AskedCall] = {}
        self._given_up: deque[int] = deque()
        self._sent_context = 0
        self._forget = False

    # ---- for those who use it

    @property
    def model_id(self) -> str:
        """See interface.SpatialModel; the name asked for until it is loaded."""
        return self._model_id

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

    # ---- the process; with the lock

    def _on_ready(self, child: Child) -> None:
        threading.Thread(target=self._write, args=(child,), name="model-write", daemon=True).start()

    def _on_message(self, message: QuestionEvent | Status) -> None:
        if isinstance(message, Status):
            self._known = message
            self._changed.notify_all()
            return
        ends = not isinstance(message.event, str)
        call = self._sent.pop(message.number, None) if ends else self._sent.get(message.number)
        if call is not None:
            call.tell(message.event)

    def _on_lost(self, error: ModelError) -> None:
        """What it was about to answer and had encoded is gone with it."""
        for call in self._sent.values():
            call.tell(error)
        self._sent.clear()
        self._given_up.clear()
        self._sent_context = 0
        self._updates += self._known.status.updates
        self._known = Status(ModelStatus(), 0)

    # ---- to the process; in a thread of its own

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
