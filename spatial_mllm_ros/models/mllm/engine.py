"""The loop of one model: contexts encoded in small steps, questions answered between two of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

import torch

from spatial_mllm_ros.models.mllm.context import Context, Encoder
from spatial_mllm_ros.models.mllm.generate import GenerationOutput, Limits, TextStream, choose, write
from spatial_mllm_ros.models.mllm.warm import Stage, WarmContext, frame_ids, out_of_memory
from spatial_mllm_ros.serving.interface import (
    Generated,
    ModelError,
    ModelFrame,
    ModelOptions,
    ModelQuestion,
    ModelStatus,
)

MAX_CONSTRAINED_TOKENS = 1024
"""Tokens of an answer that is held to a schema at most: three times what the longest example of a query takes."""


class ModelEngine:
    """One loaded model and what it has encoded. Single-threaded: one thread owns it and calls everything but ``status``.

    The owner calls ``step`` again and again while ``context_pending``, and ``answer`` between two steps when a question
    has come; a step takes as long as one frame, one frame pair, one block or one piece of the prefix.
    """

    def __init__(self, encoder: Encoder, options: ModelOptions) -> None:
        """encoder: the loaded model, as ``context.make_encoder`` returns it."""
        self._encoder, self._options = encoder, options
        self._warm = WarmContext(encoder, options)
        self._chat: tuple[tuple[int, ...], Context] | None = None
        self._answered = self._failed = 0
        self._lock = threading.Lock()
        self._report()

    @property
    def model_id(self) -> str:
        """The checkpoint, its precision and the runtime."""
        return self._encoder.model_id

    @property
    def context_pending(self) -> bool:
        """Whether ``step`` has something to do."""
        return self._warm.pending

    def set_context(self, frames: Sequence[ModelFrame]) -> None:
        """Frames to encode in the steps that follow. Takes no time itself.

        An update in progress goes on to its end, so that contexts are completed however often they change; of those
        that wait only the newest is kept. No frames: everything is forgotten at once, an update in progress too.
        """
        self._warm.set(frames)
        self._report()

    def step(self) -> bool:
        """Advance the update of the context by one step; False when there was nothing to do.

        Does not raise for a context that cannot be encoded (out of memory, too large for the caches): ``status`` says
        why, and so does the ``ModelError`` of a question that needs it.
        """
        worked = self._warm.step()
        if worked:
            self._report()
        return worked

    def answer(
        self,
        question: ModelQuestion,
        frames: Sequence[ModelFrame] | None = None,
        *,
        deadline: float = math.inf,
        cancelled: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        wait_for_context: bool = False,
    ) -> Generated:
        """Answer now, as ``interface.SpatialModel.ask`` says. deadline: on the clock of ``time.monotonic``, in seconds.

        ``cancelled`` is asked between tokens and between steps of encoding. An update in progress is left where it is,
        unless the question has to wait for it.
        Raises ModelError (out of memory too: caches are dropped, the engine lives on and encodes the context again),
        ModelCancelled, ModelTimeout; ValueError without any frames.
        """
        answered, ran_out = False, ""
        self._report("answering")
        try:
            generated = self._answer(question, frames, Limits(deadline, cancelled), on_text, wait_for_context)
            answered = True
            return generated
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            ran_out = str(error) or type(error).__name__
        finally:
            self._answered, self._failed = self._answered + answered, self._failed + (not answered)
            self._warm.fit()
            self._report()
        # Out of the handler: while the error lives, so do the tensors of where it was raised.
        self.drop_caches()
        raise ModelError(
            f"out of memory ({ran_out}): everything that was encoded is dropped, and the context will be encoded again; use"
            " fewer or smaller frames if it happens again"
        )

    def status(self) -> ModelStatus:
        """From any thread, at any time; ``waiting`` is left to the owner."""
        with self._lock:
            return self._status

    @property
    def last_update(self) -> dict[str, Stage]:
        """What was done for the last context that was completed between questions, and how long it took."""
        return dict(self._warm.last_update)

    def drop_caches(self) -> None:
        """Free every cache, the contexts too; the context asked for last is encoded again in the steps that follow."""
        self._chat = None
        self._warm.drop()
        self._warm.again()
        self._report()

    def _answer(
        self,
        question: ModelQuestion,
        frames: Sequence[ModelFrame] | None,
        limits: Limits,
        on_text: Callable[[str], None] | None,
        wait: bool,
    ) -> Generated:
        limits.check()
        start = time.perf_counter_ns()
        if question.schema:
            context, kind = self._chat_context(question, limits)
        else:
            context, kind = self._context(wait, limits) if frames is None else self._own_context(frames, limits)
        encoded = time.perf_counter_ns()
        written, text = self._write(context, question, limits, on_text)
        return Generated(
            text,
            written.token_ids,
            written.token_probabilities,
            written.choice_probabilities,
            written.complete,
            context.frame_ids,
            kind,
            encoding_ns=encoded - start if kind != "warm" else 0,
            first_token_ns=encoded - start + round(1e9 * written.first_token_s),
            generating_ns=time.perf_counter_ns() - encoded,
        )

    def _chat_context(self, question: ModelQuestion, limits: Limits) -> tuple[Context, str]:
        """The context of a chat's first message alone, which is the same again and again and so is kept."""
        ids = self._encoder.chat_head(question)
        if self._chat is not None and self._chat[0] == ids:
            return self._chat[1], "warm"
        self._chat = None
        with torch.inference_mode():
            context = self._encoder.text_context(ids, limits)
        self._chat = (ids, context)
        return context, "cold"

    def _context(self, wait: bool, limits: Limits) -> tuple[Context, str]:
        """The context that a question without frames of its own is about, and how it came by it."""
        warm = self._warm
        if warm.current is not None and not (wait and warm.pending):
            if wait and warm.failure:
                raise ModelError(warm.failure)
            return warm.current, "warm"
        if wait:
            warm.newest_only()
        while warm.pending and (wait or warm.current is None):
            limits.check()
            warm.step()
        if warm.failure and (wait or warm.current is None):
            raise ModelError(warm.failure)
        if warm.current is None:
            raise ValueError("no frames: neither the question nor the context has any")
        return warm.current, "updated"

    def _own_context(self, frames: Sequence[ModelFrame], limits: Limits) -> tuple[Context, str]:
        """A context for one question alone; the one that is kept when it is of the same frames."""
        if not frames:
            raise ValueError("no frames: the question is about an empty list of them")
        if self._warm.current is not None and self._warm.current.frame_ids == frame_ids(self._warm.select(frames)):
            return self._warm.current, "warm"
        making = self._warm.own(frames)
        context = None
        while context is None:
            limits.check()
            context = self._warm.advance(making)
        return context, "cold"

    def _write(
        self, context: Context, question: ModelQuestion, limits: Limits, on_text: Callable[[str], None] | None
    ) -> tuple[GenerationOutput, str]:
        """The answer from a context, which is afterwards as it was before."""
        encoder = self._encoder
        writer = encoder.writer(context)
        try:
            with torch.inference_mode():
                prompt = encoder.question(question)
                allowed = encoder.allowed(question.schema) if question.schema else None
                if prompt.labels:
                    written = choose(writer, prompt.ids, prompt.labels, end_ids=encoder.end_ids, limits=limits)
                    text = question.choices[written.chosen]
                    if on_text is not None:
                        on_text(text)
                    return written, text
                stream = TextStream(encoder.decode, on_text)
                written = write(
                    writer,
                    prompt.ids,
                    end_ids=encoder.end_ids,
                    max_new_tokens=self._options.max_new_tokens if allowed is None else MAX_CONSTRAINED_TOKENS,
                    limits=limits,
                    stream=stream,
                    allowed=allowed,
                )
                return written, stream.text
        finally:
            context.rewind()

    def _report(self, state: str = "") -> None:
        warm = self._warm
        status = ModelStatus(
            state=state or ("updating" if warm.pending else "ready"),
            reason=warm.failure,
            model_id=self._encoder.model_id,
            memory={**self._encoder.memory(), **warm.nbytes},
            context_frames=warm.current.frame_ids if warm.current is not None else (),
            pending=warm.pending,
            answered=self._answered,
            failed=self._failed,
            updates=warm.updates,
            update_s=sum(stage.seconds for stage in warm.last_update.values()) if warm.updates else math.nan,
        )
        with self._lock:
            self._status = status
