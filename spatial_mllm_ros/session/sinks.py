"""What becomes of a frame once the memory has it: a list of sinks, each with a queue, a thread and figures of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.memory.stored import StoredFrame

log = logging.getLogger(__name__)
QUEUE = 32
"""Frames that wait for a sink; beyond that the oldest is left out, and counted."""


class Sink(Protocol):
    """A module that looks at every frame that a memory takes. Called from one thread at a time."""

    @property
    def name(self) -> str:
        """As /diagnostics has it."""

    def take(self, memory: SpatialMemory, stored: StoredFrame) -> None:
        """Look at a frame. It may be gone from the memory by now, or placed elsewhere."""


class KeyframeSelection:
    """Has the memory consider its frames as keyframes."""

    name = "selector"

    def take(self, memory: SpatialMemory, stored: StoredFrame) -> None:
        memory.consider(stored.frame_id)


def all_sinks() -> list[Sink]:
    """What every memory feeds, in a node as in a session."""
    return [KeyframeSelection()]


@dataclass(frozen=True, kw_only=True)
class SinkStatus:
    """How a sink fares. taken, dropped, failed: frames so far. waiting: frames in its queue. mean_s: a frame costs it."""

    name: str
    taken: int
    dropped: int
    failed: int
    waiting: int
    mean_s: float


class Sinks:
    """Hands every frame to every sink: on a thread of each while started, else at once. Safe to use from several threads.

    A sink that fails on its thread has that logged and counted; the others, and the memory, go on.
    """

    def __init__(self, sinks: Sequence[Sink], queue: int = QUEUE) -> None:
        self._changed = threading.Condition()
        self._fed = [_Fed(sink, self._changed, queue) for sink in sinks]

    def give(self, memory: SpatialMemory, stored: StoredFrame) -> None:
        """A frame that a memory has taken. Never waits while started."""
        for fed in self._fed:
            fed.give(memory, stored)

    def start(self) -> None:
        """A thread for each sink from now on."""
        for fed in self._fed:
            fed.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the threads once they have taken what waits."""
        deadline = time.monotonic() + timeout_s
        for fed in self._fed:
            fed.end()
        for fed in self._fed:
            fed.join(max(0.0, deadline - time.monotonic()))

    def settle(self, timeout_s: float) -> bool:
        """Wait until every sink has taken what was given before; whether all have."""
        goals = [(fed, fed.given) for fed in self._fed]
        with self._changed:
            return self._changed.wait_for(lambda: all(fed.done >= given for fed, given in goals), timeout_s)

    def status(self) -> tuple[SinkStatus, ...]:
        """How each fares."""
        return tuple(fed.status() for fed in self._fed)


class _Fed:
    """A sink with its queue."""

    def __init__(self, sink: Sink, changed: threading.Condition, queue: int) -> None:
        self.given = 0
        self.done = 0
        self._sink = sink
        self._changed = changed
        self._most = queue
        self._waiting: deque[tuple[SpatialMemory, StoredFrame]] = deque()
        self._dropped = self._failed = 0
        self._spent_s = 0.0
        self._thread: threading.Thread | None = None
        self._ending = False

    def give(self, memory: SpatialMemory, stored: StoredFrame) -> None:
        with self._changed:
            self.given += 1
            if self._thread is not None and not self._ending:
                self._waiting.append((memory, stored))
                if len(self._waiting) > self._most:
                    self._waiting.popleft()
                    self._dropped += 1
                    self.done += 1
                self._changed.notify_all()
                return
        begin = time.perf_counter()
        self._sink.take(memory, stored)
        self._note(begin)

    def start(self) -> None:
        with self._changed:
            if self._thread is None or self._ending:
                self._ending = False
                self._thread = threading.Thread(target=self._run, name=f"sink-{self._sink.name}", daemon=True)
                self._thread.start()

    def end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
            if thread.is_alive():
                log.warning("the %s thread has not ended yet", thread.name)

    def status(self) -> SinkStatus:
        with self._changed:
            taken = self.done - self._dropped
            return SinkStatus(
                name=self._sink.name,
                taken=taken,
                dropped=self._dropped,
                failed=self._failed,
                waiting=len(self._waiting),
                mean_s=self._spent_s / taken if taken else 0.0,
            )

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending or self._thread is not me)
                if not self._waiting or self._thread is not me:
                    return
                memory, stored = self._waiting.popleft()
            self._take(memory, stored)

    def _take(self, memory: SpatialMemory, stored: StoredFrame) -> None:
        begin = time.perf_counter()
        try:
            self._sink.take(memory, stored)
        except Exception:
            if not self._failed:
                log.exception("%s failed on the frame at %.3f s", self._sink.name, stored.frame.stamp_ns / 1e9)
            self._failed += 1
        self._note(begin)

    def _note(self, begin: float) -> None:
        with self._changed:
            self._spent_s += time.perf_counter() - begin
            self.done += 1
            self._changed.notify_all()


