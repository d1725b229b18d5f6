"""Bounded queues between the callbacks, which must not wait, and the thread that takes messages in."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """What a stream of messages is about."""

    COLOR = "color"
    DEPTH = "depth"
    CAMERA_INFO = "camera_info"
    DEPTH_CAMERA_INFO = "depth_camera_info"
    TF = "tf"
    TF_STATIC = "tf_static"
    POSE = "pose"


@dataclass(frozen=True)
class Stream:
    """One input. ``camera`` is the color topic of the camera it belongs to, '' for TF and poses.

    message_type: "sensor_msgs/msg/Image", for example. qos: a name for ``qos_policy``, given by ``qos_parameter``;
    qos_depth: its history. queue: messages that may wait.
    """

    kind: Kind
    topic: str
    message_type: str
    qos: str
    qos_depth: int
    qos_parameter: str
    queue: int
    camera: str = ""


class Inbox:
    """A queue for each stream; when one is full its oldest message is dropped and counted. Safe to use from threads.

    ``get`` gives messages in the order in which they came, over all streams.
    """

    def __init__(self, streams: Iterable[Stream], monotonic: Callable[[], float] = time.monotonic) -> None:
        self.received: Counter[Stream] = Counter()
        self.dropped: Counter[Stream] = Counter()
        self._monotonic = monotonic
        self._queues: dict[Stream, deque[tuple[int, Any]]] = {stream: deque() for stream in streams}
        self._arrivals: dict[Stream, deque[float]] = {stream: deque(maxlen=64) for stream in self._queues}
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._open = True

    @property
    def streams(self) -> tuple[Stream, ...]:
        return tuple(self._queues)

    def add(self, stream: Stream) -> None:
        """Take messages of another stream, too."""
        with self._changed:
            self._arrivals[stream] = deque(maxlen=64)
            self._queues = {**self._queues, stream: deque()}

    def put(self, stream: Stream, message: Any) -> None:
        """Hand a message over. Never waits for anything but another ``put`` or ``get``."""
        with self._changed:
            self.received[stream] += 1
            self._arrivals[stream].append(self._monotonic())
            queue = self._queues[stream]
            if not self._open:
                self.dropped[stream] += 1
                return
            if len(queue) >= stream.queue:
                queue.popleft()
                self.dropped[stream] += 1
            queue.append((next(self._numbers), message))
            self._changed.notify()

    def get(self, timeout_s: float) -> tuple[Stream, Any] | None:
        """The message that came first; None after ``timeout_s`` without one, or at once when closed."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open or any(self._queues.values()), timeout_s):
                return None
            if not self._open:
                return None
            stream = min((s for s, queue in self._queues.items() if queue), key=lambda s: self._queues[s][0][0])
            return stream, self._queues[stream].popleft()[1]

    def clear(self) -> None:
        """Drop, and count, everything that waits."""
        with self._changed:
            for stream, queue in self._queues.items():
                self.dropped[stream] += len(queue)
                queue.clear()

    def open(self) -> None:
        """Take messages (the state at the beginning)."""
        with self._changed:
            self._open = True

    def close(self) -> None:
        """Drop what waits and what comes from now on; ``get`` returns."""
        self.clear()
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def waiting(self, stream: Stream) -> int:
        """Messages of a stream that wait."""
        return len(self._queues[stream])

    def silent_s(self, stream: Stream) -> float | None:
        """Seconds since the last message of a stream, None when there was none."""
        with self._changed:
            arrivals = self._arrivals[stream]
            return self._monotonic() - arrivals[-1] if arrivals else None

    def rate_hz(self, stream: Stream) -> float:
        """Messages a second, from the last ones; 0 when the last is long past."""
        with self._changed:
            arrivals = self._arrivals[stream]
            if len(arrivals) < 2 or arrivals[-1] <= arrivals[0]:
                return 0.0
            rate = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
            return rate if self._monotonic() - arrivals[-1] < max(2.0, 5.0 / rate) else 0.0
