"""A thread that waits for several readers and writers at once and calls who is concerned."""

from __future__ import annotations

import ctypes as ct
import itertools
import queue
import threading
from collections.abc import Callable

from spatial_mllm_ros.dds.library import FOREVER_NS, check, library
from spatial_mllm_ros.dds.troubles import Troubles

AT_ONCE = 64


class Loop:
    """Calls ``handle`` of an entity, in one thread, whenever one of its enabled statuses is set.

    A handler does a bounded piece of work and returns whether there may be more; others get their turn in between.
    """

    def __init__(self, participant: int, name: str, troubles: Troubles) -> None:
        lib = library()
        self._troubles = troubles
        self._waitset = check(lib.dds_create_waitset(participant), "creating a wait set")
        self._wake = check(lib.dds_create_guardcondition(participant), "creating a guard condition")
        check(lib.dds_waitset_attach(self._waitset, self._wake, 0), "attaching a guard condition")
        self._handlers: dict[int, tuple[int, Callable[[], bool]]] = {}
        self._cookies = itertools.count(1)
        self._new: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._turn = threading.RLock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def attach(self, entity: int, handle: Callable[[], bool]) -> int:
        """Start calling ``handle``, once in any case, for what happened before; a number for ``detach``."""
        cookie = next(self._cookies)
        self._handlers[cookie] = (entity, handle)
        check(library().dds_waitset_attach(self._waitset, entity, cookie), "attaching to a wait set")
        self._new.put(cookie)
        library().dds_set_guardcondition(self._wake, True)
        return cookie

    def detach(self, cookie: int) -> None:
        """Stop calling; when this returns, no call goes on, except the one that this was called from."""
        entity, _ = self._handlers.pop(cookie)
        library().dds_waitset_detach(self._waitset, entity)
        with self._turn:
            pass

    def close(self) -> None:
        """Stop the thread and wait for its end, unless called from it."""
        self._stopped = True
        library().dds_set_guardcondition(self._wake, True)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        library().dds_delete(self._waitset)
        library().dds_delete(self._wake)

    def _run(self) -> None:
        lib = library()
        triggered = (ct.c_ssize_t * AT_ONCE)()
        unfinished: set[int] = set()
        while not self._stopped:
            count = lib.dds_waitset_wait(self._waitset, triggered, AT_ONCE, 0 if unfinished else FOREVER_NS)
            if count < 0:
                if not self._stopped:
                    self._troubles.add("wait_failed", "wait set", lib.dds_strretcode(count).decode())
                    threading.Event().wait(0.1)
                continue
            lib.dds_set_guardcondition(self._wake, False)
            cookies = dict.fromkeys([*unfinished, *triggered[: min(count, AT_ONCE)]])
            while not self._new.empty():
                cookies[self._new.get()] = None
            unfinished = {cookie for cookie in cookies if cookie and not self._stopped and self._call(cookie)}

    def _call(self, cookie: int) -> bool:
        with self._turn:
            _, handle = self._handlers.get(cookie, (0, None))
            if handle is None:
                return False
            try:
                return handle()
            except Exception as error:  # noqa: BLE001 - one handler's fault must not end the others' service
                self._troubles.add("internal_error", "event loop", f"{type(error).__name__}: {error}", error=error)
                return False
