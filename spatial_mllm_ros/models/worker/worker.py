"""The process of a model, the child of a node: ``python -m spatial_mllm_ros.models.worker.worker <socket's descriptor>``.

The main thread loads the model and runs its loop; another receives what the parent says.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from typing import Any

from spatial_mllm_ros.models.worker.local import Engine, ModelLoop
from spatial_mllm_ros.models.worker.parent import Watchdog, connect_to_parent, leave
from spatial_mllm_ros.serving.calls import Call, Event
from spatial_mllm_ros.serving.interface import ModelStatus, ModelUnavailable
from spatial_mllm_ros.serving.wire import (
    Ask,
    Channel,
    GiveUp,
    HeldFrames,
    Progress,
    QuestionEvent,
    Ready,
    Refused,
    SetContext,
    Start,
    Status,
)

log = logging.getLogger(__name__)

PROGRESS_PERIOD_S = 0.1
MEMORY_PERIOD_S = 0.5
"""The parent hears at once what changed, but of memory alone and of the progress of loading only so often."""


class Worker:
    """Loads what its parent names and serves it until the parent closes the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._held = HeldFrames()
        self._calls: dict[int, Call] = {}
        self._loop: ModelLoop
        self._told: tuple[Any, ...] = ()
        self._told_at = 0.0

    def run(self, start: Start) -> None:
        threading.Thread(target=self._receive, name="receive", daemon=True).start()
        try:
            engine = self._load(start)
        except Exception as error:
            if not isinstance(error, ModelUnavailable):
                log.exception("loading failed")
            reason = "" if isinstance(error, ModelUnavailable) else f"{type(error).__name__}: "
            self._send(Refused(f"{start.options.model} cannot be loaded: {reason}{error}"))
            return
        self._loop = ModelLoop(engine, self._on_status, Watchdog(start.stuck_s).on_work)
        self._on_status()
        self._send(Ready(engine.model_id))
        self._loop.run()

    def _load(self, start: Start) -> Engine:
        module, _, function = start.engine.partition(":")
        engine: Engine = getattr(importlib.import_module(module), function)(start.options, self._on_progress)
        return engine

    # ---- to the parent

    def _send(self, message: Any) -> None:
        try:
            self._channel.send(message)
        except OSError:
            leave()

    def _on_progress(self, doing: str, done: int, total: int) -> None:
        now = time.monotonic()
        if (doing,) != self._told[:1] or done == total or now >= self._told_at + PROGRESS_PERIOD_S:
            self._told, self._told_at = (doing,), now
            self._send(Progress(doing, done, total))

    def _on_status(self) -> None:
        status, context = self._loop.status(), self._loop.finished_context
        now = time.monotonic()
        if (short := (*_without_memory(status), context)) != self._told or now >= self._told_at + MEMORY_PERIOD_S:
            self._told, self._told_at = short, now
            self._send(Status(status, context))

    def _tell(self, number: int, event: Event) -> None:
        if not isinstance(event, str):
            self._calls.pop(number, None)
        self._send(QuestionEvent(number, event))

    # ---- from the parent

    def _receive(self) -> None:
        """Until the parent is gone, and this process with it."""
        try:
            while True:
                self._take(self._channel.receive())
        except (EOFError, OSError):
            leave()
        except Exception:
            log.exception("a message from the node could not be read")
            leave(1)

    def _take(self, message: SetContext | Ask | GiveUp) -> None:
        if isinstance(message, SetContext):
            self._loop.set_context(message.number, self._held.context(message.frames), message.forget)
        elif isinstance(message, Ask):
            self._calls[message.number] = call = self._call(message)
            self._loop.submit(call)
        elif (given_up := self._calls.pop(message.number, None)) is not None:
            given_up.given_up = True

    def _call(self, ask: Ask) -> Call:
        return Call(
            ask.number,
            ask.question,
            None if ask.frames is None else self._held.question(ask.frames),
            time.monotonic() + ask.seconds_left,
            ask.context,
            ask.streams,
            lambda event: self._tell(ask.number, event),
        )


def main() -> None:
    channel, start = connect_to_parent()
    Worker(channel).run(start)


def _without_memory(status: ModelStatus) -> tuple[Any, ...]:
    return tuple(value for name, value in vars(status).items() if name not in ("memory", "update_s"))


if __name__ == "__main__":
    main()
