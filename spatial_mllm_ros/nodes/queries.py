"""Questions answered beside everything else: a bounded queue, a few workers, a time limit that includes the wait."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace

from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.codes import ErrorCode

log = logging.getLogger(__name__)

OnText = Callable[[str], None]
AnswerFunction = Callable[[Request, Callable[[], bool], OnText | None], Answer]
"""(request, cancelled, on_text) -> answer; asks ``cancelled`` now and then and stops once it is true. on_text: given the
text of an answer that is generated, piece by piece."""

PATIENCE = 0.8
"""Share of its time limit that a question waits for what it is about."""
LOOK_S = 0.05
GRACE_S = 0.1
"""An engine at work may overrun its limit by this much before it is answered for."""


@dataclass(eq=False)
class _Query:
    request: Request
    asked: float
    deadline: float
    on_text: OnText | None
    future: Future[Answer] = field(default_factory=Future)
    begun: float | None = None
    abandoned: bool = False

    def queued_ns(self, now: float) -> int:
        return int(((now if self.begun is None else self.begun) - self.asked) * 1e9)


class QueryPool:
    """Answers requests with ``answer`` on ``workers`` threads. Safe to use from several threads.

    ``submit`` never waits. Its Future always gets an Answer, and in time: BUSY at once when ``queue`` questions wait for
    a worker already, TIMEOUT when the time limit passes (in the queue too, and even if ``answer`` does not come back),
    CANCELLED when the pool stops. Cancelling the Future gives the question up, also while it is being answered.

    ready: whether a question can be answered now. One that cannot keeps no worker, and is looked at again after ``wake`` and
    now and then, until most of its time is up.
    """

    def __init__(
        self,
        answer: AnswerFunction,
        workers: int = 2,
        queue: int = 64,
        timeout_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        ready: Callable[[Request], bool] = lambda request: True,
    ) -> None:
        self._ready = ready
        self._queue = queue
        self.timeout_s = timeout_s
        self.answered: Counter[ErrorCode] = Counter()
        """Answers given, by error code."""
        self._answer = answer
        self._count = workers
        self._monotonic = monotonic
        self._waiting: deque[_Query] = deque()
        self._running: set[_Query] = set()
        self._latencies: deque[float] = deque(maxlen=512)
        self._changed = threading.Condition()
        self._stopped_because = "the node is not active"
        self._stopping = True
        self._threads: list[threading.Thread] = []

    @property
    def waiting(self) -> int:
        """Questions that wait for a worker."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Questions that are being answered."""
        return len(self._running)

    def latencies_s(self) -> list[float]:
        """Seconds from question to answer of the last questions that were answered, waiting included, sorted."""
        with self._changed:
            return sorted(self._latencies)

    def start(self) -> None:
        """Begin to answer. Nothing happens when it has begun already."""
        with self._changed:
            if not self._stopping:
                return
            self._stopping = False
            self._threads = [
                threading.Thread(target=self._work, name=f"query-{i}", daemon=True) for i in range(self._count)
            ]
            self._threads.append(threading.Thread(target=self._watch, name="query-limits", daemon=True))
            for thread in self._threads:
                thread.start()

    def stop(self, because: str = "the node is not active", timeout_s: float = 1.0) -> None:
        """Answer all that wait or run with CANCELLED and ``because``, and end the threads."""
        with self._changed:
            self._stopping = True
            self._stopped_because = because
            left = [*self._waiting, *self._running]
            self._waiting.clear()
            threads, self._threads = self._threads, []
            self._changed.notify_all()
        for query in left:
            self._resolve(query, self._cancelled_answer())
        deadline = time.monotonic() + timeout_s
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s is still at work on a question that was cancelled", thread.name)

    def submit(self, request: Request, on_text: OnText | None = None) -> Future[Answer]:
        """A Future of the answer; it is done at once for BUSY and while stopped (CANCELLED).

        on_text: called on the worker's thread with the pieces of text that ``answer`` gives meanwhile.
        """
        now = self._monotonic()
        limit = request.timeout / 1e9 if request.timeout > 0 else self.timeout_s
        query = _Query(request, now, now + limit, on_text)
        with self._changed:
            if self._stopping:
                refusal = self._cancelled_answer()
            elif len(self._waiting) + len(self._running) >= self._count + self._queue:
                refusal = Answer(
                    error_code=ErrorCode.BUSY,
                    error_msg=f"{len(self._waiting)} questions are waiting already: ask later",
                )
            else:
                self._waiting.append(query)
                self._changed.notify_all()
                refusal = None
        if refusal is not None:
            self._resolve(query, refusal)
        return query.future

    def wake(self) -> None:
        """Something has come that a question may have waited for."""
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    def _work(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                while (query := self._next()) is None or self._stopping or me not in self._threads:
                    if self._stopping or me not in self._threads:
                        return
                    self._changed.wait(LOOK_S if self._waiting else None)
                self._waiting.remove(query)
                query.begun = self._monotonic()
                self._running.add(query)
            try:
                answer = self._answer_in_time(query)
            finally:
                with self._changed:
                    self._running.discard(query)
            self._resolve(query, answer)

    def _next(self) -> _Query | None:
        """The question that came first of those that can be answered."""
        now = self._monotonic()
        for query in self._waiting:
            if now > query.asked + PATIENCE * (query.deadline - query.asked) or self._ready(query.request):
                return query
        return None

    def _answer_in_time(self, query: _Query) -> Answer:
        assert query.begun is not None
        left = query.deadline - query.begun
        if left <= 0:
            return _timed_out()
        try:
            # Rounded up: 0 would mean "the default".
            request = replace(query.request, timeout=max(1, int(left * 1e9)))
            return self._answer(request, lambda: query.abandoned or query.future.cancelled(), query.on_text)
        except Exception as error:
            log.exception("question %r failed", query.request.question[:200])
            return Answer(error_code=ErrorCode.UNKNOWN, error_msg=f"internal error, see the log: {error!r}")

    def _watch(self) -> None:
        """Answers TIMEOUT for questions whose time is up, wherever they are."""
        me = threading.current_thread()
        while True:
            with self._changed:
                while not (late := self._late()):
                    if self._stopping or me not in self._threads:
                        return
                    self._changed.wait(self._until_next())
                for query in late:
                    if query in self._waiting:
                        self._waiting.remove(query)
            for query in late:
                self._resolve(query, _timed_out())

    def _late(self) -> list[_Query]:
        now = self._monotonic()
        late = [q for q in self._waiting if q.deadline <= now or q.future.cancelled()]
        return late + [q for q in self._running if q.deadline + GRACE_S <= now and not q.abandoned]

    def _until_next(self) -> float:
        """Seconds until the next limit; in between, a look whether somebody gave up waiting."""
        dues = [q.deadline for q in self._waiting] + [q.deadline + GRACE_S for q in self._running if not q.abandoned]
        return min(1.0, max(0.001, min(dues, default=math.inf) - self._monotonic()))

    def _resolve(self, query: _Query, answer: Answer) -> None:
        """Give the answer, unless there is one already or nobody waits for it."""
        query.abandoned = True
        now = self._monotonic()
        try:
            query.future.set_result(replace(answer, time_queued=query.queued_ns(now) + answer.time_queued))
        except InvalidStateError:
            return
        with self._changed:
            self.answered[answer.error_code] += 1
            if query.begun is not None:
                self._latencies.append(now - query.asked)

    def _cancelled_answer(self) -> Answer:
        return Answer(error_code=ErrorCode.CANCELLED, error_msg=self._stopped_because)


def _timed_out() -> Answer:
    return Answer(
        error_code=ErrorCode.TIMEOUT, error_msg="the time limit passed before the answer was found; allow more time"
    )
