"""Threads that answer service calls, and the queue before them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

LOG = logging.getLogger(__name__)


class WorkerPool:
    """A fixed number of threads and a queue of bounded length: who comes when it is full is told so at once."""

    def __init__(self, threads: int = 2, queue_size: int = 64, name: str = "worker") -> None:
        if threads < 1 or queue_size < 1:
            raise ValueError(f"a pool needs a thread and room for a task, not {threads} and {queue_size}")
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._room = queue_size
        self._lock = threading.Lock()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable[[], None]) -> bool:
        """Run ``task`` when a thread is free; False, and nothing is done, when the queue is full or the pool closed."""
        with self._lock:
            if self._closed or self._tasks.qsize() >= self._room:
                return False
            self._tasks.put(task)
            return True

    @property
    def waiting(self) -> int:
        """Tasks in the queue."""
        return self._tasks.qsize()

    def close(self, timeout_s: float = 5.0) -> None:
        """Drop what waits and let running tasks end, for at most ``timeout_s`` each."""
        with self._lock:
            self._closed = True
            while not self._tasks.empty():
                self._tasks.get()
            for _ in self._threads:
                self._tasks.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout_s)
                if thread.is_alive():
                    LOG.warning("a task in %s goes on after closing", thread.name)

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            if task is None:
                return
            try:
                task()
            except Exception:  # a task's fault must not end the thread
                LOG.exception("a task failed")
