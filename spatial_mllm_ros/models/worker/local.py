"""A model in this process: one thread answers its questions and, between them, encodes its context."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from spatial_mllm_ros.serving.calls import AskedCall, AskedModel, Call, late, no_frames
from spatial_mllm_ros.serving.interface import (
    Generated,
    ModelCancelled,
    ModelError,
    ModelFrame,
    ModelOptions,
    ModelQuestion,
    ModelStatus,
    ModelUnavailable,
)
from spatial_mllm_ros.serving.supervised import OnProgress

log = logging.getLogger(__name__)

CONTEXT_SHARE = 0.2
"""Where questions come without end, the context is encoded for this much of the time that they take,"""
CONTEXT_DEBT_S = 1.0
"""but never for longer than this, and one step, while one waits."""


class Engine(Protocol):
    """What the loop runs: see ``engine.ModelEngine``, which does it with torch."""

    @property
    def model_id(self) -> str: ...

    @property
    def context_pending(self) -> bool: ...

    def set_context(self, frames: Sequence[ModelFrame]) -> None: ...

    def step(self) -> bool: ...

    def answer(
        self,
        question: ModelQuestion,
        frames: Sequence[ModelFrame] | None = None,
        *,
        deadline: float = ...,
        cancelled: Callable[[], bool] = ...,
        on_text: Callable[[str], None] | None = None,
        wait_for_context: bool = False,
    ) -> Generated: ...

    def status(self) -> ModelStatus: ...


class ModelLoop:
    """Works through calls and contexts with an engine, in the thread that calls ``run``. The rest: from any thread.

    Questions come first, in the order in which they were asked, but for those that wait for a context that is not
    complete; between two of them the context advances by a step at least. A context that is being encoded is completed
    before the next one is begun, so that some are complete however often they change; of those that wait, only the
    newest is kept. on_status: called in that thread when something began or ended. on_work: called there with True when
    work begins and again and again while it goes on, with False when there is none.
    """

    def __init__(
        self,
        engine: Engine,
        on_status: Callable[[], None] = lambda: None,
        on_work: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.engine = engine
        self._on_status = on_status
        self._on_work = on_work
        self._changed = threading.Condition()
        self._calls: list[Call] = []
        self._next_context: tuple[int, tuple[ModelFrame, ...]] | None = None
        self._context: tuple[int, tuple[ModelFrame, ...]] = (0, ())
        self._finished = 0
        self._forget = self._pending = self._has_context = False
        self._answering = self._closed = False
        self._encoded_ns = 0
        self._context_debt_s = 0.0

    def submit(self, call: Call) -> None:
        with self._changed:
            self._calls.append(call)
            if not self._ready(call):
                call.waits_since_ns = self._encoded_ns
            self._changed.notify()

    def set_context(self, number: int, frames: Sequence[ModelFrame], forget: bool) -> None:
        """A context and its number, which is larger than those before. forget: all before it are forgotten at once."""
        with self._changed:
            self._next_context = (number, tuple(frames))
            self._forget |= forget
            self._changed.notify()

    def close(self) -> None:
        """``run`` returns soon: between two tokens or steps."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def finished_context(self) -> int:
        """Number of the last context that was completed, or could not be."""
        return self._finished

    def status(self) -> ModelStatus:
        """Never waits for the engine."""
        status = self.engine.status()
        with self._changed:
            pending = status.pending or self._next_context is not None
            state = "answering" if self._answering else "updating" if pending else status.state
            waiting = sum(not call.given_up for call in self._calls)
        return replace(status, state=state, pending=pending, waiting=waiting)

    def run(self) -> None:
        """Until ``close``; calls that are left are told ModelCancelled."""
        ended: ModelError = ModelCancelled("the model was closed")
        try:
            while (task := self._next()) is not None:
                self._on_work(True)
                task()
        except Exception as error:
            ended = failed(error)
            raise
        finally:
            with self._changed:
                left, self._calls = self._calls, []
            for call in left:
                call.tell(ended)

    # ---- in the thread of the loop

    def _next(self) -> Callable[[], None] | None:
        """What to do next; waits for it. None: nothing any more."""
        with self._changed:
            while not self._closed:
                if self._next_context is not None and (self._forget or not self._pending):
                    begin = functools.partial(self._begin_context, forget=self._forget)
                    self._context, self._next_context, self._forget = self._next_context, None, False
                    return begin
                owing = self._pending and self._context_debt_s > 0
                if not owing and (call := next(filter(self._ready, self._calls), None)) is not None:
                    self._calls.remove(call)
                    return functools.partial(self._answer, call)
                if self._pending:
                    return self._step
                self._on_work(False)
                self._changed.wait()
            return None

    def _ready(self, call: Call) -> bool:
        """Whether a call can be answered, or dropped, as things are."""
        if call.given_up or call.frames is not None or call.question.schema:
            return True
        settled = self._next_context is None and not self._pending
        return self._finished >= call.context and (self._has_context or settled)

    def _begin_context(self, forget: bool) -> None:
        if forget:
            self.engine.set_context(())
        self.engine.set_context(self._context[1])
        self._context_debt_s = 0.0
        self._note_context()

    def _step(self) -> None:
        begun = time.monotonic()
        self.engine.step()
        spent = time.monotonic() - begun
        self._encoded_ns += int(spent * 1e9)
        self._context_debt_s -= spent
        self._note_context()

    def _note_context(self) -> None:
        with self._changed:
            self._pending = self.engine.context_pending
            if not self._pending:
                self._finished = self._context[0]
            self._has_context = bool(self.engine.status().context_frames)
        self._on_status()

    def _answer(self, call: Call) -> None:
        if call.given_up:
            return
        begun = time.monotonic()
        if begun >= call.deadline:
            call.tell(late())
            return
        if call.frames is None and not self._context[1] and not call.question.schema:  # forgotten since it was asked
            call.tell(no_frames())
            return
        self._answering = True
        self._on_status()
        try:
            outcome = self._generate(call)
        except ModelError as error:
            outcome = error
        except Exception as error:
            log.exception("the model failed at %r", call.question.text[:200])
            outcome = failed(error)
        self._answering = False
        self._context_debt_s = min(
            CONTEXT_DEBT_S, max(0.0, self._context_debt_s) + CONTEXT_SHARE * (time.monotonic() - begun)
        )
        self._note_context()
        call.tell(outcome)

    def _generate(self, call: Call) -> Generated | ModelError:

        def cancelled() -> bool:
            self._on_work(True)
            return call.given_up or self._closed

        waited_ns = 0 if call.waits_since_ns is None else self._encoded_ns - call.waits_since_ns
        generated = self.engine.answer(
            call.question,
            call.frames,
            deadline=call.deadline,
            cancelled=cancelled,
            on_text=call.tell if call.streams else None,
            wait_for_context=call.context > 0,
        )
        if not waited_ns or generated.context == "cold":
            return generated
        return replace(generated, context="updated", encoding_ns=generated.encoding_ns + waited_ns)


class LocalModel(AskedModel):
    """A SpatialModel (see interface.py) whose engine runs in a thread of this process. ``queue``: see AskedModel.

    For tests, benchmarks and one-shot commands; a robot is better served by ``process.ProcessModel``, which survives
    its model.
    """

    def __init__(self, engine: Engine, queue: int = 64) -> None:
        super().__init__(queue)
        self._loop = ModelLoop(engine)
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @classmethod
    def load(cls, options: ModelOptions, queue: int = 64, progress: OnProgress = lambda *_: None) -> LocalModel:
        """Load what ``options`` name; ModelUnavailable when that cannot be done."""
        return cls(load_engine(options, progress), queue)

    @property
    def model_id(self) -> str:
        """See interface.SpatialModel."""
        return self._loop.engine.model_id

    def status(self) -> ModelStatus:
        """See interface.SpatialModel."""
        with self._changed:
            status = replace(self._loop.status(), answered=self._answered, failed=self._failed)
            return replace(status, state="failed", reason=self._unavailable) if self._unavailable else status

    def close(self) -> None:
        """See interface.SpatialModel; returns when the thread is done, between two tokens or steps."""
        self._end("the model was closed", lambda: ModelCancelled("the model was closed"))
        self._loop.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _submit(self, call: AskedCall) -> None:
        self._loop.submit(call)

    def _withdraw(self, call: AskedCall) -> None:
        """Nothing to do: the loop sees that it is given up."""

    def _pass_context(self) -> None:
        self._loop.set_context(self._context, self._context_frames, forget=not self._context_frames)

    def _run(self) -> None:
        try:
            self._loop.run()
        except Exception as error:
            log.exception("the loop of the model ended")
            reason = f"{failed(error)}; it has to be loaded again"
            self._end(reason, lambda: ModelUnavailable(reason))


def load_engine(options: ModelOptions, progress: OnProgress = lambda *_: None) -> Engine:
    """The engine of the model that ``options`` name, loaded. Imports torch, whose number of threads it sets.

    Raises ModelUnavailable with the reason: no such checkpoint, names that do not match, not enough memory, no torch.
    """
    progress("importing torch and transformers", 0, 0)
    try:
        import torch

        from spatial_mllm_ros.models.mllm.encoder import VideoEncoder
        from spatial_mllm_ros.models.mllm.engine import ModelEngine
        from spatial_mllm_ros.models.mllm.loading import load_model
    except ImportError as error:
        raise ModelUnavailable(
            f"a model needs torch and transformers ({error}): install them with pip install 'spatial_mllm_ros[model]'"
        ) from error
    torch.set_num_threads(options.threads or max(1, available_cpus() - 1))
    loaded = load_model(options, progress)
    spatial, model_id = None, loaded.model_id
    if options.encoder_runtime != "torch":
        from spatial_mllm_ros.models.worker.gate import exported_encoder

        spatial = exported_encoder(loaded.model, options, progress)
        model_id = f"{model_id}, encoder {spatial.name}" if spatial is not None else model_id
    encoder = VideoEncoder(loaded.model, loaded.tokenizer, loaded.prompts, loaded.format, model_id, options, spatial)
    return ModelEngine(encoder, options)


def available_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def failed(error: Exception) -> ModelError:
    """For what the engine should not have raised."""
    return ModelError(f"the model failed: {type(error).__name__}: {error}; the log has more")
