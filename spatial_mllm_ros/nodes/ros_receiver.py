"""Messages of rclpy's subscriptions taken in a thread of its own, serialised, several at a time.

rclpy's executors build a wait set of everything that a node has for every few messages, and spend some 0.3 ms on each. That is
nothing for a service and too much for TF at 1 kHz, of which DDS then keeps the last hundred and drops the rest without a
word. Here the wait set holds the subscriptions alone, and stays as it is while these do.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.subscription import Subscription

log = logging.getLogger(__name__)
BATCH = 8
"""Messages that one subscription gives before others get their turn."""
LOOK_NS = 1_000_000_000


class KeptFromExecutors(ReentrantCallbackGroup):
    """A callback group whose subscriptions no executor takes from; their events it does."""

    def can_execute(self, entity: Any) -> bool:
        """As a callback group is asked by an executor."""
        return not isinstance(entity, Subscription) and bool(super().can_execute(entity))


class Receiver:
    """Takes from subscriptions of ``group`` and hands the bytes over, in one thread.

    context: rclpy's.
    """

    def __init__(self, context: Any) -> None:
        self.group = KeptFromExecutors()
        self._context = context
        self._takes: dict[Subscription, Callable[[bytes], None]] = {}
        self._lock = threading.Lock()
        self._turn = threading.RLock()
        self._changed, self._stopped = False, False
        self._wake = GuardCondition(None, None, context)
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self._thread.start()

    def add(self, subscription: Subscription, take: Callable[[bytes], None]) -> None:
        """Call ``take`` with every message from now on."""
        with self._lock:
            self._takes[subscription] = take
        self._tell()

    def remove(self, subscription: Subscription) -> None:
        """Call nothing more for it; when this returns no call goes on, except the one that this was called from."""
        with self._lock:
            self._takes.pop(subscription, None)
        self._tell()
        with self._turn:
            pass

    def close(self) -> None:
        """End the thread."""
        self._stopped = True
        self._tell()
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)
        self._wake.destroy()

    def _tell(self) -> None:
        self._changed = True
        try:
            self._wake.trigger()
        except InvalidHandle:
            log.debug("the receiver has ended already")

    def _run(self) -> None:
        while not self._stopped and self._context.ok():
            self._changed = False
            with self._lock:
                takes = list(self._takes.items())
            try:
                self._receive(takes)
            except InvalidHandle:
                continue  # a subscription was destroyed in between
            except Exception:
                log.exception("receiving failed")
                threading.Event().wait(0.1)

    def _receive(self, takes: list[tuple[Subscription, Callable[[bytes], None]]]) -> None:
        """Hand messages over until the subscriptions change."""
        with ExitStack() as held:
            handles = [subscription.handle for subscription, _ in takes]
            for handle in (*handles, self._wake.handle, self._context.handle):
                held.enter_context(handle)
            wait_set = _rclpy.WaitSet(len(handles), 1, 0, 0, 0, 0, self._context.handle)
            while not self._changed and not self._stopped and self._context.ok():
                wait_set.clear_entities()
                for handle in handles:
                    wait_set.add_subscription(handle)
                wait_set.add_guard_condition(self._wake.handle)
                wait_set.wait(LOOK_NS)
                ready = set(wait_set.get_ready_entities("subscription"))
                for handle, (subscription, take) in zip(handles, takes, strict=True):
                    if handle.pointer in ready:
                        self._take(handle, subscription, take)

    def _take(self, handle: Any, subscription: Subscription, take: Callable[[bytes], None]) -> None:
        with self._turn:
            for _ in range(BATCH):
                taken = handle.take_message(subscription.msg_type, True)
                if taken is None or subscription not in self._takes:
                    return
                try:
                    take(taken[0])
                except Exception:  # one message's fault must not end the others
                    log.exception("a message on %s could not be handed over", subscription.topic)
