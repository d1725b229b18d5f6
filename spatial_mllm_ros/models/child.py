"""A process of this package's own, which may die without taking this one along. parent.py is its side of it."""

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import spatial_mllm_ros
from spatial_mllm_ros.models.interface import ModelTimeout, ModelUnavailable
from spatial_mllm_ros.models.wire import Channel, Logged, Progress

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is), in bytes; 0 of 0 where it cannot be said."""
RESTART_AFTER_S = (0.5, 5.0, 30.0)
QUICK_S = 60.0
STUCK_S = 600.0
END_S = 2.0
"""A process whose channel is closed is killed when it is still there after this."""


class Child:
    """A process, the channel to it, and the last lines that it wrote.

    module: what it runs, which begins with ``parent.meet_parent``. what: its name for people, "the model's process" for
    example. python: another interpreter than this one's. It ends with the thread that makes it, at the latest.
    """

    def __init__(self, module: str, what: str, python: str = "") -> None:
        self._what = what
        here, there = socket.socketpair()
        self.channel = Channel(here)
        with there:
            self.process = subprocess.Popen(
                [*_command(module, python), str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                errors="replace",
                pass_fds=[there.fileno()],
                env=_environment(python),
                start_new_session=True,  # the terminal's Ctrl-C is for the node
            )
        self._lines: deque[str] = deque(maxlen=20)
        self._reader = threading.Thread(target=self._read, name="child-output", daemon=True)
        self._reader.start()

    def end(self) -> str:
        """Close the channel and see the process end, by force if need be. How it ended, in words."""
        self.channel.close()
        try:
            status = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"{self._what} stopped talking"
        self._reader.join(END_S)
        if status < 0:
            often = ", often for want of memory" if -status == signal.SIGKILL else ""
            if -status in (signal.SIGKILL, signal.SIGTERM):
                return f"{self._what} was killed (signal {-status}){often}"
            return f"{self._what} crashed (signal {-status}, {signal.strsignal(-status)})"
        if any(line.startswith("Timeout (") for line in self._lines):  # as faulthandler begins
            return f"{self._what} was stuck (the log says where) and has been ended"
        last = next((line for line in reversed(self._lines) if line), "")
        return f"{self._what} ended with status {status}" + (f": {last}" if last else "")

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.append(line.strip())
                log.info("%s: %s", self._what, line.rstrip())


class Loading:
    """What waits until a child process has loaded what ``options.model`` names."""

    options: Any
    _changed: threading.Condition
    _progress: Progress
    _state: str
    _unavailable: str

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


def log_again(message: Logged) -> None:
    """Have this process's logging take a record of the child's."""
    logger = logging.getLogger(message.record.name)
    if logger.isEnabledFor(message.record.levelno):
        logger.handle(message.record)


def process_memory(pid: int) -> dict[str, int]:
    """Bytes that a process holds in memory, and has held at most; {} where the system does not say (Linux does)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {"process": "VmRSS", "process_peak": "VmHWM"}
    return {name: int(fields[field].split()[0]) << 10 for name, field in names.items() if field in fields}


def _command(module: str, python: str) -> list[str]:
    """The command that runs a module; in another Python with this package from where it is, and nothing else of it."""
    if not python:
        return [sys.executable, "-m", module]
    return [
        str(Path(python).expanduser()),
        "-c",
        _IN_ANOTHER_PYTHON.format(str(Path(spatial_mllm_ros.__file__).parent), module),
    ]


_IN_ANOTHER_PYTHON = """
import importlib.util, runpy, sys
spec = importlib.util.spec_from_file_location(
    "spatial_mllm_ros", {0!r} + "/__init__.py", submodule_search_locations=[{0!r}]
)
sys.modules["spatial_mllm_ros"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
runpy.run_module({1!r}, run_name="__main__", alter_sys=True)
"""


def _environment(python: str) -> dict[str, str]:
    """The child finds modules where this process does, and nowhere else; another Python finds its own."""
    if python:
        own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        return {**{name: value for name, value in os.environ.items() if name not in own}, "PYTHONSAFEPATH": "1"}
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
