"""Frames at the pace at which they were recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator

from spatial_mllm_ros.scene.frame import Frame

LONGEST_GAP_NS = 10_000_000_000


def paced(
    frames: Iterable[Frame],
    rate: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Frame]:
    """The same frames, each no earlier than its stamp is after the first one's.

    rate: 1 is real time, 2 twice as fast, 0 as fast as possible. A consumer that is late is not waited for, and later
    frames catch up, as with a camera. A jump of stamps backwards or by more than ten seconds (a clock that was set) is
    not waited out; pacing starts anew there. clock: seconds, monotonic. Raises ValueError for a negative rate.
    """
    if not math.isfinite(rate) or rate < 0:
        raise ValueError(f"the rate must be 0 (as fast as possible) or positive, not {rate}")
    start: tuple[float, int] | None = None
    previous = 0
    for frame in frames:
        if rate > 0:
            now = clock()
            if start is None or not 0 <= frame.stamp_ns - previous <= LONGEST_GAP_NS:
                start = (now, frame.stamp_ns)
            due = start[0] + (frame.stamp_ns - start[1]) / 1e9 / rate
            if due > now:
                sleep(due - now)
            previous = frame.stamp_ns
        yield frame
