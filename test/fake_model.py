"""A model without torch for tests of those who ask one: scripted answers, delays by hand, contexts recorded."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from spatial_mllm_ros.serving.interface import (
    Generated,
    ModelCancelled,
    ModelError,
    ModelFrame,
    ModelQuestion,
    ModelStatus,
    ModelTimeout,
    ModelUnavailable,
)

LOOK_S = 0.002
"""How often a question looks whether it was given up or is late."""


@dataclass(frozen=True)
class Said:
    """A scripted answer: text in words, their probability, of each option, seconds that it takes, or what to raise."""

    text: str = "yes"
    probability: float = 0.9
    choice_probabilities: tuple[float, ...] = ()
    seconds: float = 0.0
    error: ModelError | None = None


Script = Callable[[ModelQuestion, tuple[ModelFrame, ...]], "Said | str"]


@dataclass(frozen=True)
class Asked:
    """A question that was asked, and with which arguments."""

    question: ModelQuestion
    frames: tuple[ModelFrame, ...] | None
    wait_for_context: bool
    timeout_s: float


@dataclass(eq=False)
class FakeModel:
    """A SpatialModel that says what it is told to.

    answers: by question text (a Said, or just its text), or a function of (question, frames that are asked about); without
    an entry, the first choice, else "yes". context_s: seconds that a context takes until it is complete. Contexts complete
    one after the other, newest wins, as those of a real model. ``hold`` the answers: every question waits in ``ask``
    until ``release`` (its time limit and cancellation still work). ``hold_context``, ``release_context``: the same
    for contexts. ``go_down(reason)``: from then on ModelUnavailable.
    """

    answers: Mapping[str, Said | str] | Script = field(default_factory=dict)
    context_s: float = 0.0
    model_id: str = "fake"
    asked: list[Asked] = field(default_factory=list)
    contexts: list[tuple[int, ...]] = field(default_factory=list)
    """Every context that was set, in order, as frame ids in time order; () where it was forgotten."""

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self._held = self._context_held = self._closed = False
        self._down = ""
        self._complete: tuple[ModelFrame, ...] = ()
        self._newest: tuple[ModelFrame, ...] = ()
        self._due = -math.inf
        self._status = ModelStatus(state="ready", model_id=self.model_id)

    # ---- what a test steers

    def hold(self) -> None:
        with self._changed:
            self._held = True

    def release(self) -> None:
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def hold_context(self) -> None:
        with self._changed:
            self._context_held = True

    def release_context(self) -> None:
        with self._changed:
            self._context_held = False
            self._changed.notify_all()

    def go_down(self, reason: str) -> None:
        with self._changed:
            self._down = reason
            self._changed.notify_all()

    def come_back(self) -> None:
        self.go_down("")

    def wait_asked(self, count: int = 1, timeout_s: float = 10.0) -> None:
        """Until ``count`` questions have been asked in all; AssertionError when they have not."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.asked) >= count, timeout_s), f"asked {len(self.asked)} times"

    # ---- SpatialModel

    def set_context(self, frames: Sequence[ModelFrame]) -> None:
        with self._changed:
            self._require_available()
            self._complete_context()
            self._newest = tuple(sorted(frames, key=lambda frame: (frame.stamp_ns, frame.frame_id)))
            self.contexts.append(tuple(frame.frame_id for frame in self._newest))
            self._due = time.monotonic() + self.context_s
            if not frames:
                self._complete = ()
            self._changed.notify_all()

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
        begun = time.monotonic()
        own = None if frames is None else tuple(sorted(frames, key=lambda f: (f.stamp_ns, f.frame_id)))
        with self._changed:
            self._require_available()
            self.asked.append(Asked(question, own, wait_for_context, timeout_s))
            self._status = replace(self._status, waiting=self._status.waiting + 1)
            self._changed.notify_all()
        wait = _Wait(self, begun + timeout_s, cancelled)
        try:
            wait.until(lambda: self._turn.acquire(blocking=False))
            try:
                return self._answer(question, own, wait_for_context, wait, begun, on_text)
            finally:
                self._turn.release()
        except ModelError:
            with self._changed:
                self._status = replace(self._status, failed=self._status.failed + 1)
            raise
        finally:
            with self._changed:
                self._status = replace(self._status, waiting=self._status.waiting - 1)

    def status(self) -> ModelStatus:
        with self._changed:
            self._complete_context()
            pending = self._complete != self._newest
            state = "failed" if self._down else "updating" if pending else "ready"
            ids = tuple(frame.frame_id for frame in self._complete)
            return replace(self._status, state=state, reason=self._down, context_frames=ids, pending=pending)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # ---- inside

    def _require_available(self) -> None:
        if self._closed or self._down:
            raise ModelUnavailable(self._down or "the model was closed")

    def _complete_context(self) -> None:
        """Called with the lock: the newest context becomes the complete one when its time has come."""
        if self._complete != self._newest and not self._context_held and time.monotonic() >= self._due:
            self._complete = self._newest
            self._status = replace(self._status, updates=self._status.updates + 1)

    def _ready(self, wait_for_context: bool) -> bool:
        with self._changed:
            self._complete_context()
            return self._complete == self._newest if wait_for_context or not self._complete else True

    def _answer(
        self,
        question: ModelQuestion,
        own: tuple[ModelFrame, ...] | None,
        wait_for_context: bool,
        wait: _Wait,
        begun: float,
        on_text: Callable[[str], None] | None,
    ) -> Generated:
        warm = self._ready(wait_for_context)
        if own is None:
            wait.until(lambda: self._ready(wait_for_context))
        with self._changed:
            about = self._complete if own is None else own
        if not about:
            raise ValueError("a question needs frames: set a context first, or ask with frames")
        said = self._said(question, about)
        over = time.monotonic() + said.seconds
        wait.until(lambda: not self._held and time.monotonic() >= over)
        if said.error is not None:
            raise said.error
        words = said.text.split(" ")
        for i, word in enumerate(words):
            wait.check()
            if on_text is not None:
                on_text(word if i == 0 else f" {word}")
        with self._changed:
            self._status = replace(self._status, answered=self._status.answered + 1)
        spent = int((time.monotonic() - begun) * 1e9)
        return Generated(
            text=said.text,
            token_ids=tuple(range(len(words) + 1)),
            token_probabilities=(said.probability,) * (len(words) + 1),
            choice_probabilities=said.choice_probabilities or _sure_of(question, said),
            complete=True,
            frame_ids=tuple(frame.frame_id for frame in about),
            context="cold" if own is not None else "warm" if warm else "updated",
            encoding_ns=0 if own is None and warm else spent,
            first_token_ns=spent,
            generating_ns=spent,
        )

    def _said(self, question: ModelQuestion, about: tuple[ModelFrame, ...]) -> Said:
        default = question.choices[0] if question.choices else "yes"
        told = (
            self.answers(question, about) if callable(self.answers) else self.answers.get(question.text, Said(default))
        )
        return Said(told) if isinstance(told, str) else told


@dataclass(eq=False)
class _Wait:
    """Waits of one question, which end when it is late, given up, or the model goes away."""

    model: FakeModel
    deadline: float
    cancelled: Callable[[], bool]

    def check(self) -> None:
        if self.model._closed:
            raise ModelCancelled("the model was closed")
        if self.model._down:
            raise ModelUnavailable(self.model._down)
        if self.cancelled():
            raise ModelCancelled("the question was given up")
        if time.monotonic() >= self.deadline:
            raise ModelTimeout("the time limit passed before the answer was complete; allow more time")

    def until(self, condition: Callable[[], bool]) -> None:
        while True:
            self.check()
            if condition():
                return
            with self.model._changed:
                self.model._changed.wait(LOOK_S)


def _sure_of(question: ModelQuestion, said: Said) -> tuple[float, ...]:
    """Probability of the option said, the rest shared evenly; () without choices."""
    n = len(question.choices)
    if n == 0:
        return ()
    rest = 0.0 if n == 1 else (1 - said.probability) / (n - 1)
    return tuple((1 - rest * (n - 1)) if choice == said.text else rest for choice in question.choices)
