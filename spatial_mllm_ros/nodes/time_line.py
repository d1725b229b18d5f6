"""Which stamps belong to the time that goes on, and when another one has begun."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spatial_mllm_ros.nodes.inbox import Kind, Stream

SECOND = 1_000_000_000
STAMPS_IN_A_ROW = 3
"""So many moments in a row, on two topics, are another time line and not a slip of the driver."""
STAMPS_OF_ONE_TOPIC = 10
"""The same where the color images are alone with it."""
MOST_WAITING = 60
"""Images held back until it is known which time line is the right one."""


@dataclass(frozen=True, eq=False)
class _Held:
    stream: Stream
    stamp_ns: int
    image: Any


class TimeLine:
    """The time line of one camera. A single message with a wrong stamp must not count as a clock that was set.

    jump_ns: stamps further apart than this, and than the time that has passed, are not of one time line. refuse: told
    (stream, reason, text) of every image that is given up: ``stamp_zero``, ``stamp_outlier``. monotonic: seconds.

    The color images make the line. Images off it are held back: until three moments in a row lie on another line, on a
    second topic too (ten without one), or ``clock_set_back`` said so, and then taken in all the same; or until the next
    color image on the line, and then refused. A CameraInfo is never lost, for a calibration has no moment.
    """

    def __init__(
        self,
        jump_ns: int,
        refuse: Callable[[Stream, str, str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jump_ns = jump_ns
        self._refuse = refuse
        self._monotonic = monotonic
        self.newest_ns: int | None = None
        """Of the images that were taken."""
        self._taken = 0.0
        self._held: list[_Held] = []
        self._witnesses: dict[Stream, int] = {}
        self._clock_ns: int | None = None
        self.back_to: tuple[int, int] | None = None
        """First and last stamp (ns) of what ``take`` gave out, where it lies on an earlier line than what came before."""

    def clock_set_back(self, latest_ns: int) -> None:
        """The node's clock jumped back: an image from before ``latest_ns`` is enough to believe it."""
        self._clock_ns = latest_ns

    def take(self, stream: Stream, stamp_ns: int, image: Any) -> list[Any]:
        """The images that can be taken in now, in the order in which they came. ``back_to`` says where a line began anew."""
        self.back_to = None
        if stamp_ns <= 0:
            self._refuse(stream, "stamp_zero", f"a stamp of {stamp_ns / 1e9:.3f} s: the driver does not set it")
            return []
        if self.newest_ns is None or (self._is_on(stamp_ns) and not self._as_the_clock(stamp_ns)):
            if stream.kind is Kind.COLOR:
                self._give_up()
                self._go_on(stamp_ns)
            return [image]
        if self._held and abs(stamp_ns - self._held[-1].stamp_ns) > self._jump_ns:
            self._give_up()
        self._held.append(_Held(stream, stamp_ns, image))
        if len(self._held) > MOST_WAITING:
            self._refuse_held(self._held.pop(0))
        if not self._is_another():
            return []
        taken, self._held = self._held, []
        stamps = sorted(held.stamp_ns for held in taken)
        if stamps[-1] < self.newest_ns:
            self.back_to = stamps[0], stamps[-1]
        self._clock_ns, self.newest_ns = None, None
        self._go_on(stamps[-1])
        return [held.image for held in taken]

    def fits(self, stream: Stream, stamp_ns: int) -> bool:
        """Whether a CameraInfo's stamp is of the images' clock, as far as is known. It bears witness either way."""
        self._witnesses[stream] = stamp_ns
        return stamp_ns > 0 and (self.newest_ns is None or self._is_on(stamp_ns))

    def _is_on(self, stamp_ns: int) -> bool:
        assert self.newest_ns is not None
        passed_ns = int((self._monotonic() - self._taken) * SECOND)
        return -self._jump_ns <= stamp_ns - self.newest_ns <= self._jump_ns + 2 * passed_ns

    def _as_the_clock(self, stamp_ns: int) -> bool:
        """Whether the clock was set back to where this stamp is."""
        return self._clock_ns is not None and self.newest_ns is not None and stamp_ns <= self._clock_ns < self.newest_ns

    def _go_on(self, stamp_ns: int) -> None:
        self.newest_ns = stamp_ns if self.newest_ns is None else max(self.newest_ns, stamp_ns)
        self._taken = self._monotonic()

    def _is_another(self) -> bool:
        colors = {held.stamp_ns for held in self._held if held.stream.kind is Kind.COLOR}
        if not colors:
            return False
        if self._as_the_clock(max(colors)):
            return True
        others = any(held.stream.kind is not Kind.COLOR for held in self._held) or any(
            abs(stamp - self._held[-1].stamp_ns) <= self._jump_ns for stamp in self._witnesses.values()
        )
        return len(colors) >= (STAMPS_IN_A_ROW if others else STAMPS_OF_ONE_TOPIC)

    def _give_up(self) -> None:
        held, self._held = self._held, []
        for one in held:
            self._refuse_held(one)

    def _refuse_held(self, held: _Held) -> None:
        assert self.newest_ns is not None
        by = (held.stamp_ns - self.newest_ns) / 1e9
        self._refuse(
            held.stream,
            "stamp_outlier",
            f"a stamp of {held.stamp_ns / 1e9:.3f} s, {abs(by):.3f} s {'after' if by > 0 else 'before'} the camera's others",
        )
