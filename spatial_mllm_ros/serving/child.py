"""A process of this package's own, which may die without taking this one along. parent.py is its side of it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import spatial_mllm_ros
from spatial_mllm_ros.serving.wire import Channel, Logged

log = logging.getLogger(__name__)

END_S = 2.0
"""A process whose channel is closed is killed when it is still there after this."""


class Child:
    """A process, the channel to it, and the last lines that it wrote.

    module: what it runs, which begins with ``parent.connect_to_parent``. what: its name for people, "the model's process" for
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
