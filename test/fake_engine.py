"""An engine without torch for tests of how models are served. It is loaded in the process of the model by its name,
``fake_engine:load``, does what the question says, and is held up by files in the folder that ModelOptions.model names."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from spatial_mllm_ros.serving.interface import (
    Generated,
    ModelCancelled,
    ModelError,
    ModelFrame,
    ModelOptions,
    ModelQuestion,
    ModelStatus,
    ModelTimeout,
    ModelUnavailable,
)

STEPS = 3
"""Steps of a context."""
TOKEN_S = 0.02
"""Time of a token that the question "tell me everything" takes."""
LOADING, CONTEXT, CANCELLED, LOADED = "hold-loading", "hold-context", "cancelled-at", "loaded"
"""While the first two exist, loading or contexts wait. The others are written: when a cancellation was seen, and a letter
for each time that the engine was loaded."""


def load(options: ModelOptions, progress: Callable[[str, int, int], None]) -> FakeEngine:
    """An engine, after loading 100 bytes in ten pieces."""
    folder = Path(options.model)
    for done in range(0, 101, 10):
        progress("reading", done, 100)
    while (folder / LOADING).exists():
        time.sleep(0.002)
    with (folder / LOADED).open("a") as loads:
        loads.write("x")
    return FakeEngine(folder)


def refuse(options: ModelOptions, progress: Callable[[str, int, int], None]) -> FakeEngine:
    raise ModelUnavailable("5.3 GB are needed and 2.0 GB are there: choose a smaller precision")


def fail(options: ModelOptions, progress: Callable[[str, int, int], None]) -> FakeEngine:
    raise KeyError("lm_head.weight")


def leave(options: ModelOptions, progress: Callable[[str, int, int], None]) -> FakeEngine:
    print("the driver is too old", file=sys.stderr, flush=True)
    os._exit(3)


def only_once(options: ModelOptions, progress: Callable[[str, int, int], None]) -> FakeEngine:
    """Can be loaded one time; after that the process dies while it loads."""
    if (Path(options.model) / LOADED).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return load(options, progress)


class FakeEngine:
    """See ``local.Engine``. The text of an answer is the sum of the pixels of each frame."""

    model_id = "fake engine"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._current: tuple[ModelFrame, ...] = ()
        self._making: tuple[ModelFrame, ...] = ()
        self._steps = self._updates = 0

    @property
    def context_pending(self) -> bool:
        return bool(self._making)

    def set_context(self, frames: Sequence[ModelFrame]) -> None:
        self._making, self._steps = tuple(frames), 0
        if not frames:
            self._current = ()

    def step(self) -> bool:
        if (self._folder / CONTEXT).exists():
            time.sleep(0.002)
            return True
        self._steps += 1
        if self._steps == STEPS:
            self._current, self._making = self._making, ()
            self._updates += 1
        return True

    def answer(
        self,
        question: ModelQuestion,
        frames: Sequence[ModelFrame] | None = None,
        *,
        deadline: float = float("inf"),
        cancelled: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        wait_for_context: bool = False,
    ) -> Generated:
        about = self._current if frames is None else tuple(frames)
        assert about
        match question.text:
            case "tell me everything":
                pieces = self._endless(deadline, cancelled, on_text or (lambda _: None))
            case "run out of memory":
                raise ModelError("out of memory: use fewer frames")
            case "divide by zero":
                raise ZeroDivisionError("division by zero")
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "get stuck":
                time.sleep(3600)
            case "log":
                logging.getLogger("fake_engine").warning("it is %s", "warm")
        pieces = [f"{frame.image.sum()} " for frame in about]
        for piece in pieces:
            if on_text is not None:
                on_text(piece)
        return Generated(
            text="".join(pieces),
            token_ids=(1,),
            token_probabilities=(1.0,),
            choice_probabilities=(),
            complete=True,
            frame_ids=tuple(frame.frame_id for frame in about),
            context="warm" if frames is None else "cold",
            encoding_ns=0,
            first_token_ns=1,
            generating_ns=1,
        )

    def status(self) -> ModelStatus:
        return ModelStatus(
            state="ready",
            model_id=self.model_id,
            memory={"weights": 100},
            context_frames=tuple(frame.frame_id for frame in self._current),
            pending=self.context_pending,
            updates=self._updates,
        )

    def _endless(self, deadline: float, cancelled: Callable[[], bool], on_text: Callable[[str], None]) -> list[str]:
        """Tokens until somebody minds."""
        while True:
            on_text("more ")
            time.sleep(TOKEN_S)
            if cancelled():
                (self._folder / CANCELLED).write_text(repr(time.monotonic()))
                raise ModelCancelled("the question was given up")
            if time.monotonic() >= deadline:
                raise ModelTimeout("the time limit passed")
