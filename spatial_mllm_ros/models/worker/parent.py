"""A child's side of child.py: it ends with its parent, leaves Ctrl-C to it, and logs through it."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import logging.handlers
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from spatial_mllm_ros.serving.wire import Channel, Logged, Start

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # linux/prctl.h
OOM_SCORE_ADJ = 500  # as if half of the machine's memory were used on top; proc(5)


def connect_to_parent() -> tuple[Channel, Start]:
    """The first thing that the process does: the channel to its parent, and what that wants started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()  # a crash leaves its place on stderr, which the parent reads
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        start = channel.receive()
    except EOFError:
        leave()
    end_with(start.parent)
    root = logging.getLogger()
    root.addHandler(_Forward(channel))
    root.setLevel(start.log_level)
    logging.captureWarnings(True)
    go_first()
    return channel, start


class Watchdog:
    """Ends this process when work goes on for ``limit_s`` without a sign of life, whatever holds it up; where it was stuck
    is written to stderr."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._wound_at: float | None = None

    def on_work(self, works: bool) -> None:
        """A sign of life. works: False when there is nothing to do, so that none is expected."""
        now = time.monotonic()
        if not works:
            faulthandler.cancel_dump_traceback_later()
            self._wound_at = None
        elif self._wound_at is None or now - self._wound_at > 0.1 * self._limit_s:
            faulthandler.dump_traceback_later(self._limit_s, exit=True)
            self._wound_at = now


class _Forward(logging.handlers.QueueHandler):
    """Hands records to the parent's logging."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # the channel is the queue
        self._channel = channel

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self._channel.send(Logged(record))
        except OSError:
            leave()


def leave(status: int = 0) -> NoReturn:
    """End at once, whatever other threads do: there is nothing to save."""
    os._exit(status)


def end_with(parent: int) -> None:
    """Be killed when the parent dies, where the system offers that; elsewhere the channel's end is the sign."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before
        leave()


def go_first() -> None:
    """When memory runs out, Linux shall end this process rather than the node."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ), encoding="ascii")
    except OSError as error:  # another system, or a container that forbids it
        log.debug("the kernel may end the node before its model when memory runs out: %s", error)
