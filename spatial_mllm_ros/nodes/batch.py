"""Several questions about one state of the memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields

from spatial_mllm_ros.memory.view import MemoryView
from spatial_mllm_ros.queries.answer import Answer, Request


class SharedState:
    """The state of a memory that the first question of a batch finds, for all of them.

    take: makes the snapshot. requests: of the batch.
    """

    def __init__(self, take: Callable[[], MemoryView], requests: Sequence[Request]) -> None:
        self.requests = tuple(requests)
        self._take = take
        self._seen: MemoryView | None = None
        self._lock = threading.Lock()

    def snapshot(self) -> MemoryView:
        """The same one every time."""
        with self._lock:
            if self._seen is None:
                self._seen = self._take()
            return self._seen

    @property
    def version(self) -> int:
        """Of the memory; 0 before the first question looked at it."""
        return 0 if self._seen is None else self._seen.version


@dataclass(frozen=True, kw_only=True)
class BatchRequest(Request):
    """A request that is answered from the state which its batch shares."""

    shared: SharedState

    @classmethod
    def of(cls, request: Request, shared: SharedState) -> BatchRequest:
        """``request`` as one of a batch."""
        return cls(**{field.name: getattr(request, field.name) for field in fields(Request)}, shared=shared)


@dataclass(frozen=True, kw_only=True)
class BatchAnswer:
    """Answers in the order of the requests, and the version of the memory that they are about; 0: none was answered."""

    answers: tuple[Answer, ...]
    memory_version: int


def gathered(futures: Sequence[Future[Answer]], shared: SharedState) -> Future[BatchAnswer]:
    """All answers, once the last one is there. Cancelling it gives all questions up."""
    together: Future[BatchAnswer] = Future()
    left = [len(futures)]
    lock = threading.Lock()

    def one_more(_: Future[Answer]) -> None:
        with lock:
            left[0] -= 1
            done = left[0] == 0
        if done and together.set_running_or_notify_cancel():
            answers = tuple(future.result() for future in futures)
            together.set_result(BatchAnswer(answers=answers, memory_version=shared.version))

    def give_up(given_up: Future[BatchAnswer]) -> None:
        if given_up.cancelled():
            for future in futures:
                future.cancel()

    together.add_done_callback(give_up)
    for future in futures:
        future.add_done_callback(one_more)
    return together
