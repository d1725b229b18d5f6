"""Questions on their way to a model and back: a bound on how many wait, time limits, cancellation, streamed text."""

from __future__ import annotations

import itertools
import math
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spatial_mllm_ros.serving.interface import (
    Generated,
    ModelBusy,
    ModelCancelled,
    ModelError,
    ModelFrame,
    ModelQuestion,
    ModelTimeout,
    ModelUnavailable,
)

LOOK_S = 0.02
"""How often a waiting question looks whether it was given up."""

Event = str | Generated | ModelError | ValueError
"""What becomes of a question: pieces of text, and at last what was generated or why nothing was."""


@dataclass(eq=False)
class Call:
    """A question for the loop of a model. Whoever answers it calls ``tell`` with Events, the last of them not a str.

    frames: those that it is about; None: a context. deadline: seconds on the clock of ``time.monotonic``. context: the
    number of the context that must be complete first (counted from 1); 0: any. streams: whether pieces of text are
    wanted. given_up: nobody waits any more; it may be set at any time.
    """

    number: int
    question: ModelQuestion
    frames: tuple[ModelFrame, ...] | None
    deadline: float
    context: int
    streams: bool
    tell: Callable[[Event], None]
    given_up: bool = False
    waits_since_ns: int | None = None
    """The loop's: time it had spent on contexts when this came, if this has to wait for one."""


@dataclass(eq=False)
class AskedCall(Call):
    """A call whose asker waits for the events in its own thread."""

    tell: Callable[[Event], None] = field(init=False)
    _events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self.tell = self._events.put

    def wait(self, cancelled: Callable[[], bool], on_text: Callable[[str], None] | None) -> Generated:
        """The answer. Raises what the model raised, ModelCancelled or ModelTimeout; the call is given up then."""
        try:
            while True:
                event = self._next(cancelled)
                if isinstance(event, Generated):
                    return event
                if not isinstance(event, str):
                    raise event
                if on_text is not None:
                    on_text(event)
        finally:
            self.given_up = True

    def _next(self, cancelled: Callable[[], bool]) -> Event:
        while True:
            if cancelled():
                raise ModelCancelled("the question was given up")
            left = self.deadline - time.monotonic()
            try:
                event = self._events.get(timeout=min(LOOK_S, max(0.0, left)))
            except queue.Empty:
                event = ""
            if not isinstance(event, str):
                return event
            if time.monotonic() >= self.deadline:
                raise late()
            if event:
                return event


class AskedModel(ABC):
    """The asker's side of a SpatialModel: numbers contexts, bounds the questions that wait, and waits with them.

    queue: questions that may wait while one is answered; further ones raise ModelBusy. What a subclass implements is
    called with ``_changed`` held and must not wait.
    """

    def __init__(self, queue: int = 64) -> None:
        self.queue = queue
        self._changed = threading.Condition(threading.RLock())
        self._calls: dict[int, AskedCall] = {}
        self._numbers = itertools.count(1)
        self._context = 0
        """Number of the context set last."""
        self._context_frames: tuple[ModelFrame, ...] = ()
        self._unavailable = ""
        """Why nothing can be asked; '' while something can."""
        self._answered = 0
        self._failed = 0

    @abstractmethod
    def _submit(self, call: AskedCall) -> None:
        """Pass a call on to the model."""

    @abstractmethod
    def _withdraw(self, call: AskedCall) -> None:
        """Nobody waits for the call any more."""

    @abstractmethod
    def _pass_context(self) -> None:
        """Pass ``_context_frames`` on, which are the context numbered ``_context``."""

    def set_context(self, frames: Sequence[ModelFrame]) -> None:
        """See interface.SpatialModel. Raises ModelUnavailable once the model is gone."""
        with self._changed:
            if self._unavailable:
                raise ModelUnavailable(self._unavailable)
            self._context_frames = tuple(frames)
            self._context += 1
            self._pass_context()

    def ask(
        self,
        question: ModelQuestion,
        frames: Sequence[ModelFrame] | None = None,
        *,
        timeout_s: float = math.inf,
        cancelled: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        wait_for_context: bool = False,
    ) -> Generated:
        """See interface.SpatialModel; ModelBusy too. ``on_text`` and ``cancelled`` are called in this thread."""
        deadline = time.monotonic() + timeout_s
        own = None if frames is None else tuple(frames)
        with self._changed:
            if self._unavailable:
                raise ModelUnavailable(self._unavailable)
            if not (question.schema or (self._context_frames if own is None else own)):
                raise no_frames()
            if len(self._calls) > self.queue:  # one of them is being answered
                raise ModelBusy(f"{self.queue} questions are waiting for the model already: ask later")
            context = self._context if wait_for_context and own is None else 0
            call = AskedCall(next(self._numbers), question, own, deadline, context, on_text is not None)
            self._calls[call.number] = call
            self._submit(call)
        try:
            generated = call.wait(cancelled, on_text)
        except (ModelError, ValueError) as error:
            with self._changed:
                self._failed += not isinstance(error, ModelCancelled)
            raise
        finally:
            with self._changed:
                del self._calls[call.number]
                self._withdraw(call)
        with self._changed:
            self._answered += 1
        return generated

    def _end(self, reason: str, error: Callable[[], ModelError]) -> None:
        """Nothing can be asked from now on, because of ``reason``; all calls get ``error()``."""
        with self._changed:
            self._unavailable = reason
            for call in self._calls.values():
                call.tell(error())
            self._changed.notify_all()


def no_frames() -> ValueError:
    """Why a question without frames, and without a context, is not answered."""
    return ValueError("there are no frames to answer from: set a context, or give frames with the question")


def late() -> ModelTimeout:
    """For a call whose time is up."""
    return ModelTimeout("the time limit passed before the model's answer was complete; allow more time")
