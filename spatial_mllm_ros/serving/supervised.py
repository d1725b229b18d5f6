"""What a child process serves: started, watched over, and replaced when it dies."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from spatial_mllm_ros.serving.child import Child, log_again
from spatial_mllm_ros.serving.interface import ModelCancelled, ModelError, ModelTimeout, ModelUnavailable
from spatial_mllm_ros.serving.wire import Logged, Progress, Ready, Refused, Start

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is), in bytes; 0 of 0 where it cannot be said."""
RESTART_AFTER_S = (0.5, 5.0, 30.0)
QUICK_S = 60.0
STUCK_S = 600.0


class Supervised(ABC):
    """A service in a child process, which it may lose and gets back. Safe to use from several threads.

    options: what the child loads; ``options.model`` is its name for people. worker: the module that it runs. loader:
    ``module:function`` that loads the service there. process, service: what people call them. restart_after_s: a process
    that died is replaced after so many seconds, a second one in a row after the next number, and so on; when none is left
    the service has failed. A process that served for ``quick_s`` ends the row. One that dies, or refuses, before anything
    was ever loaded is not replaced. stuck_s: one that shows no sign of life for so long is ended, and replaced like one
    that died. python: interpreter of the process, where torch is not installed in this one's: it needs what the extra
    ``model`` needs, and not this package.

    A subclass sets ``_changed`` first; what it implements is called with that held, and must not wait.
    """

    _changed: threading.Condition
    _unavailable: str
    """Why nothing can be asked; '' while something can."""

    def __init__(
        self,
        options: Any,
        worker: str,
        loader: str,
        process: str,
        service: str,
        restart_after_s: Sequence[float],
        quick_s: float,
        stuck_s: float,
        python: str,
    ) -> None:
        self.options = options
        self._worker, self._loader = worker, loader
        self._process_words, self._service_words = process, service
        self._restart_after_s, self._quick_s, self._stuck_s = tuple(restart_after_s), quick_s, stuck_s
        self._python = python
        self._unavailable = f"{service} has not been started"
        self._state, self._reason = "loading", ""
        self._model_id: str = options.model
        self._progress = Progress()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._child: Child | None = None
        self._loaded = False
        self._ready_at = math.inf

    # ---- for those who use it

    def start(self) -> None:
        """Begin to load, in the background; again after it has failed. Nothing happens while it loads or is loaded."""
        with self._changed:
            if self._closing.is_set():
                raise ModelUnavailable(self._closed)
            if self._thread is not None and self._state != "failed":
                return
            self._unavailable = self._reason = ""
            self._state = "loading"
            self._progress = Progress()
            self._loaded = False
            # the process ends with the thread that made it
            self._thread = threading.Thread(target=self._supervise, name="child-process", daemon=True)
            self._thread.start()

    @property
    def pid(self) -> int | None:
        """Process id of the worker, if there is one now."""
        with self._changed:
            return None if self._child is None else self._child.process.pid

    def wait_loaded(self, timeout_s: float = math.inf, on_progress: OnProgress | None = None) -> None:
        """Wait until it is loaded. on_progress: called in this thread as loading goes on.

        Raises ModelUnavailable with the reason when it cannot be loaded; ModelTimeout when it is not loaded by then, and
        loading goes on.
        """
        deadline = time.monotonic() + timeout_s
        seen: Progress | None = None
        while True:
            with self._changed:
                while self._progress == seen and self._state != "ready" and not self._unavailable:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise ModelTimeout(f"{self.options.model} is not loaded yet: {self._loading()}")
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                if self._unavailable:
                    raise ModelUnavailable(self._unavailable)
                before, seen, loaded = seen, self._progress, self._state == "ready"
            if on_progress is not None and seen != before:
                on_progress(seen.doing, seen.done, seen.total)
            if loaded:
                return

    def close(self) -> None:
        """End the process, and what waits for it with ModelCancelled; returns when it has ended."""
        self._closing.set()
        with self._changed:
            self._state, self._reason = "failed", self._closed
            self._end(self._closed, lambda: ModelCancelled(self._closed))
            thread, child = self._thread, self._child
        if child is not None:
            child.channel.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # ---- what is served; with the lock

    @abstractmethod
    def _on_ready(self, child: Child) -> None:
        """A process has loaded it."""

    @abstractmethod
    def _on_message(self, message: Any) -> None:
        """What the process says of what it was asked. Wakes whoever waits for that."""

    @abstractmethod
    def _on_lost(self, error: ModelError) -> None:
        """The process is gone, and with it what it had been sent."""

    @abstractmethod
    def _end(self, reason: str, error: Callable[[], ModelError]) -> None:
        """Nothing can be asked from now on, because of ``reason``; who waits gets ``error()``."""

    # ---- the life of the process; in a thread of its own

    @property
    def _closed(self) -> str:
        return f"{self._service_words} was closed"

    def _supervise(self) -> None:
        """One process after another."""
        restarts = Restarts(self._restart_after_s, self._quick_s)
        while True:
            reason, served_s = self._serve()
            if self._closing.is_set():
                return
            if not self._loaded:
                return self._fail(reason)
            pause_s = restarts.pause_s(served_s)
            if pause_s is None:
                return self._fail(f"{reason}; it has been given up after {restarts.row} times in a row")
            log.error("%s; it is being restarted", reason)
            with self._changed:
                self._state, self._reason = "restarting", reason
                self._on_lost(ModelError(f"{reason}; it is being restarted"))
                self._changed.notify_all()
            if self._closing.wait(pause_s):
                return

    def _fail(self, reason: str) -> None:
        log.error("%s", reason)
        with self._changed:
            self._state, self._reason = "failed", reason
            self._on_lost(ModelUnavailable(reason))
            self._end(reason, lambda: ModelUnavailable(reason))

    def _serve(self) -> tuple[str, float]:
        """One process, from its start to its end: how it ended, and how many seconds it served."""
        self._ready_at = math.inf
        try:
            child = Child(self._worker, self._process_words, self._python)
        except OSError as error:
            return f"{self._process_words} cannot be started: {error}", 0.0
        with self._changed:
            self._child = child
            if self._closing.is_set():
                child.channel.close()
        refused = self._listen(child)
        served_s = time.monotonic() - self._ready_at
        with self._changed:
            self._child = None
            self._changed.notify_all()
        ended = child.end()
        if not self._loaded:
            ended += f", while loading ({self._loading()})"
        return refused or ended, served_s

    def _listen(self, child: Child) -> str:
        """Until the process has nothing more to say: why it refused to load, or ''."""
        try:
            child.channel.send(Start(self.options, self._loader, log.getEffectiveLevel(), os.getpid(), self._stuck_s))
            while not isinstance(message := child.channel.receive(), Refused):
                self._take(child, message)
        except (EOFError, OSError):
            return ""  # it has ended: how, its status tells
        except Exception:
            log.exception("a message of %s could not be read", self._process_words)
            return ""
        return message.reason

    def _take(self, child: Child, message: Any) -> None:
        if isinstance(message, Logged):
            log_again(message)
            return
        with self._changed:
            if isinstance(message, Progress):
                self._progress = message
            elif isinstance(message, Ready):
                self._model_id, self._loaded = message.model_id, True
                self._ready_at = time.monotonic()
                if not self._closing.is_set():
                    self._state, self._reason = "ready", ""
                    self._on_ready(child)
            else:
                self._on_message(message)
                return
            self._changed.notify_all()

    def _loading(self) -> str:
        doing, done, total = self._progress.doing, self._progress.done, self._progress.total
        return f"{doing}, {done / 1e9:.1f} of {total / 1e9:.1f} GB" if total else doing


class Restarts:
    """When a process that died is replaced: after so many seconds, the second one in a row after the next number, and so
    on. One that served for ``quick_s`` ends the row."""

    def __init__(self, after_s: Sequence[float], quick_s: float) -> None:
        self._after_s = tuple(after_s)
        self._quick_s = quick_s
        self.row = 0

    def pause_s(self, served_s: float) -> float | None:
        """Until the next process, when the last one served for so long; None when there is to be none."""
        self.row = 1 if served_s >= self._quick_s else self.row + 1
        return self._after_s[self.row - 1] if self.row <= len(self._after_s) else None
