"""The predictor of geometry from colour in a process of its own, which it may lose and gets back.

The client's side; no torch here. geometry_worker.py is the other side.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

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
from spatial_mllm_ros.models.interface import ModelStatus
from spatial_mllm_ros.models.wire import Logged, Predict, Predicted, Progress, Ready, Refused, Start
from spatial_mllm_ros.scene.window import InvalidWindow, WindowGeometry

log = logging.getLogger(__name__)

WORKER = "spatial_mllm_ros.models.geometry_worker"
LOADER = f"{WORKER}:load_predictor"
PRECISIONS = ("auto", "float32", "bfloat16")
CLOSED = "the geometry from colour was closed"
_LOOK_S = 0.2


@dataclass(frozen=True)
class GeometryOptions:
    """How a predictor is loaded and run.

    model: folder of a checkpoint of Spatial-MLLM or VGGT, or its id on the hub when it was downloaded. precision: of the
    large part; auto is bfloat16 where the device computes in it, else float32. device: auto, cpu, cuda or cuda:N. width:
    px that images are resized to. window_size: images at once, for the memory that is needed. threads: of the CPU; 0 is
    all but one, which is left to the node.
    """

    model: str
    precision: str = "auto"
    device: str = "auto"
    width: int = 518
    window_size: int = 8
    threads: int = 0


class PredictorLost(InvalidWindow):
    """Nothing came out, for the process died, or was closed."""

    def __init__(self, message: str) -> None:
        super().__init__("predictor_lost", message)


class ProcessPredictor(Loading):
    """A GeometryPredictor (see geometry_predictor.py) in a child process.

    loader: ``module:function`` that loads it in the child, see ``geometry_worker.load_predictor``. The others as for
    ``process.ProcessModel``. A window that the process had got when it died raises PredictorLost; the next waits for its
    successor. When there is to be none, ``status`` says failed, and every window raises PredictorLost at once.
    """

    def __init__(
        self,
        options: GeometryOptions,
        loader: str = LOADER,
        restart_after_s: Sequence[float] = RESTART_AFTER_S,
        quick_s: float = QUICK_S,
        stuck_s: float = STUCK_S,
        python: str = "",
    ) -> None:
        self.options = options
        self._loader = loader
        self._restart_after_s, self._quick_s, self._stuck_s = tuple(restart_after_s), quick_s, stuck_s
        self._python = python
        self._changed = threading.Condition()
        self._unavailable = ""
        self._state, self._reason = "loading", ""
        self._name = options.model
        self._progress = Progress()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._child: Child | None = None
        self._loaded = False
        self._ready_at = math.inf
        self._task: _Task | None = None
        self._predicted = self._failed = 0

    def start(self) -> None:
        """Begin to load, in the background. Once."""
        # the process ends with the thread that made it
        self._thread = threading.Thread(target=self._supervise, name="geometry-process", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """See GeometryPredictor; the checkpoint asked for until it is loaded."""
        return self._name

    @property
    def pid(self) -> int | None:
        """Process id of the worker, if there is one now."""
        child = self._child
        return None if child is None else child.process.pid

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        """See GeometryPredictor. Waits for a process that is being replaced; PredictorLost when it dies meanwhile."""
        task = _Task(images)
        with self._changed:
            self._task = task
            self._changed.notify_all()
            self._changed.wait_for(lambda: task.outcome is not None or self._unavailable)
            outcome = task.outcome or PredictorLost(self._unavailable)
            self._task = None
            self._failed += isinstance(outcome, InvalidWindow)
            self._predicted += isinstance(outcome, WindowGeometry)
        if isinstance(outcome, InvalidWindow):
            raise outcome
        return outcome

    def status(self) -> ModelStatus:
        """How it fares; never waits. answered, failed: windows."""
        with self._changed:
            child = self._child
            state = "answering" if self._state == "ready" and self._task is not None else self._state
            status = ModelStatus(state, self._reason, self._name, answered=self._predicted, failed=self._failed)
        return status if child is None else replace(status, memory=process_memory(child.process.pid))

    def close(self) -> None:
        """End the process; returns when it has ended. A window that waits raises PredictorLost."""
        with self._changed:
            self._closing.set()
            self._unavailable = CLOSED
            self._state, self._reason = "failed", CLOSED
            child = self._child
            self._changed.notify_all()
        if child is not None:
            child.channel.close()
        if self._thread is not None:
            self._thread.join()

    # ---- the life of the process; in a thread of its own

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
            if self._closing.wait(pause_s):
                return

    def _fail(self, reason: str) -> None:
        log.error("%s", reason)
        with self._changed:
            self._state, self._reason, self._unavailable = "failed", reason, reason
            self._changed.notify_all()

    def _serve(self) -> tuple[str, float]:
        """One process, from its start to its end: how it ended, and how many seconds it served."""
        self._ready_at = math.inf
        try:
            child = Child(WORKER, "the process of the geometry from colour", self._python)
        except OSError as error:
            return f"the process of the geometry from colour cannot be started: {error}", 0.0
        with self._changed:
            self._child = child
            if self._closing.is_set():
                child.channel.close()
        refused, task = self._talk(child)
        served_s = time.monotonic() - self._ready_at
        with self._changed:
            self._child = None
        ended = child.end()
        if not self._loaded:
            ended += f", while loading ({self._loading()})"
        if task is not None:
            self._tell(task, PredictorLost(ended))
        return refused or ended, served_s

    def _talk(self, child: Child) -> tuple[str, _Task | None]:
        """Until the process has nothing more to say: why it refused to load, or '', and the window that it had got."""
        channel, task = child.channel, None
        try:
            channel.send(Start(self.options, self._loader, log.getEffectiveLevel(), os.getpid(), self._stuck_s))
            while not isinstance(message := channel.receive(), Ready):
                if isinstance(message, Refused):
                    return message.reason, None
                self._note(message)
            with self._changed:
                self._name = message.model_id
                self._state, self._reason, self._loaded = "ready", "", True
                self._ready_at = time.monotonic()
                self._changed.notify_all()
            while (task := self._next_task(child)) is not None:
                channel.send(Predict(task.images))
                while not isinstance(message := channel.receive(), Predicted):
                    self._note(message)
                self._tell(task, message.geometry or InvalidWindow(message.reason, message.words))
        except (EOFError, OSError):
            pass  # it has ended: how, its status tells
        except Exception:
            log.exception("a message of the process of the geometry from colour could not be read")
        return "", task

    def _note(self, message: Progress | Logged) -> None:
        if isinstance(message, Logged):
            log_again(message)
            return
        with self._changed:
            self._progress = message
            self._changed.notify_all()

    def _next_task(self, child: Child) -> _Task | None:
        """The next window; None when the process has ended, or is to end."""
        with self._changed:
            while not self._closing.is_set() and child.process.poll() is None:
                if self._task is not None and self._task.outcome is None:
                    return self._task
                self._changed.wait(_LOOK_S)
        return None

    def _tell(self, task: _Task, outcome: WindowGeometry | InvalidWindow) -> None:
        with self._changed:
            task.outcome = outcome
            self._changed.notify_all()


@dataclass(eq=False)
class _Task:
    """A window of images, and what became of it."""

    images: NDArray[np.uint8]
    outcome: WindowGeometry | InvalidWindow | None = None
