"""A model in a process of its own, which it may lose and gets back: nothing a model does takes the node down.

The client's side; neither torch nor transformers here. worker.py is the other side.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import spatial_mllm_ros
from spatial_mllm_ros.models.calls import AskedCall, AskedModel
from spatial_mllm_ros.models.interface import (
    ModelCancelled,
    ModelError,
    ModelOptions,
    ModelStatus,
    ModelTimeout,
    ModelUnavailable,
)
from spatial_mllm_ros.models.local import OnProgress
from spatial_mllm_ros.models.wire import (
    Ask,
    Channel,
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
RESTART_AFTER_S = (0.5, 5.0, 30.0)
QUICK_S = 60.0
STUCK_S = 600.0
END_S = 2.0
"""A process whose channel is closed is killed when it is still there after this."""
CLOSED = "the model was closed"


class ProcessModel(AskedModel):
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
        self._child: _Child | None = None
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
        row = 0
        while True:
            reason, served_s = self._serve()
            if self._closing.is_set():
                return
            row = 1 if served_s >= self._quick_s else row + 1
            if not self._loaded:
                self._fail(reason)
                return
            if row > len(self._restart_after_s):
                self._fail(f"{reason}; it has been given up after {row} times in a row")
                return
            log.error("%s; it is being restarted", reason)
            with self._changed:
                for call in self._sent.values():
                    call.tell(ModelError(f"{reason}; it is being restarted"))
                self._lose(reason, "restarting")
            if self._closing.wait(self._restart_after_s[row - 1]):
                return

    def _serve(self) -> tuple[str, float]:
        """One process, from its start to its end: how it ended, and how many seconds it served."""
        self._ready_at = math.inf
        try:
            child = _Child(self._python)
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

    def _listen(self, child: _Child) -> str:
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

    def _take(self, child: _Child, message: Progress | Ready | Status | Told | Logged) -> None:
        if isinstance(message, Logged):
            logger = logging.getLogger(message.record.name)
            if logger.isEnabledFor(message.record.levelno):
                logger.handle(message.record)
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

    def _write(self, child: _Child) -> None:
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

    def _loading(self) -> str:
        doing, done, total = self._progress.doing, self._progress.done, self._progress.total
        return f"{doing}, {done / 1e9:.1f} of {total / 1e9:.1f} GB" if total else doing


class _Child:
    """The worker's process, the channel to it, and the last lines that it wrote."""

    def __init__(self, python: str) -> None:
        here, there = socket.socketpair()
        self.channel = Channel(here)
        with there:
            self.process = subprocess.Popen(
                [*_worker(python), str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                errors="replace",
                pass_fds=[there.fileno()],
                env=_environment(python),
                start_new_session=True,  # the terminal's Ctrl-C is for the node
            )
        self._lines: deque[str] = deque(maxlen=20)
        self._reader = threading.Thread(target=self._read, name="model-output", daemon=True)
        self._reader.start()

    def end(self) -> str:
        """Close the channel and see the process end, by force if need be. How it ended, in words."""
        self.channel.close()
        try:
            status = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "the model's process stopped talking"
        self._reader.join(END_S)
        if status < 0:
            often = ", often for want of memory" if -status == signal.SIGKILL else ""
            if -status in (signal.SIGKILL, signal.SIGTERM):
                return f"the model's process was killed (signal {-status}){often}"
            return f"the model's process crashed (signal {-status}, {signal.strsignal(-status)})"
        if any(line.startswith("Timeout (") for line in self._lines):  # as faulthandler begins
            return "the model's process was stuck (the log says where) and has been ended"
        last = next((line for line in reversed(self._lines) if line), "")
        return f"the model's process ended with status {status}" + (f": {last}" if last else "")

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.append(line.strip())
                log.info("model's process: %s", line.rstrip())


def process_memory(pid: int) -> dict[str, int]:
    """Bytes that a process holds in memory, and has held at most; {} where the system does not say (Linux does)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {"process": "VmRSS", "process_peak": "VmHWM"}
    return {name: int(fields[field].split()[0]) << 10 for name, field in names.items() if field in fields}


def _worker(python: str) -> list[str]:
    """The command that runs worker.py; in another Python with this package from where it is, and nothing else of it."""
    if not python:
        return [sys.executable, "-m", WORKER]
    return [
        str(Path(python).expanduser()),
        "-c",
        _IN_ANOTHER_PYTHON.format(str(Path(spatial_mllm_ros.__file__).parent)),
    ]


_IN_ANOTHER_PYTHON = f"""
import importlib.util, runpy, sys
spec = importlib.util.spec_from_file_location(
    "spatial_mllm_ros", {{0!r}} + "/__init__.py", submodule_search_locations=[{{0!r}}]
)
sys.modules["spatial_mllm_ros"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
runpy.run_module("{WORKER}", run_name="__main__", alter_sys=True)
"""


def _environment(python: str) -> dict[str, str]:
    """The child finds modules where this process does, and nowhere else; another Python finds its own."""
    if python:
        own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        return {**{name: value for name, value in os.environ.items() if name not in own}, "PYTHONSAFEPATH": "1"}
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
