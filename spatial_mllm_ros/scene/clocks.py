"""Stamps of different clocks: a machine's time since its start beside the time of day, a simulation's beside both."""

from __future__ import annotations

from datetime import datetime, timezone

OTHER_CLOCK_NS = 3600 * 10**9
"""Stamps further apart are of different clocks."""
SINCE_BOOT_NS = 10**17
"""Smaller stamps (three years) count from a machine's start, or a simulation's."""


def moment_words(stamp_ns: int) -> str:
    """A stamp for people, with what it is by the looks of it."""
    if stamp_ns < SINCE_BOOT_NS:
        return f"{stamp_ns / 1e9:.3f} s, as since a machine's start"
    return f"{stamp_ns / 1e9:.3f} s, which is {datetime.fromtimestamp(stamp_ns // 10**9, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def apart_words(stamp_ns: int, other_ns: int) -> str:
    """How far ``other_ns`` is from ``stamp_ns``, and that it is another clock where it can only be one."""
    by = f"{abs(other_ns - stamp_ns) / 1e9:.3f} s {'later' if other_ns > stamp_ns else 'earlier'}"
    if abs(other_ns - stamp_ns) < OTHER_CLOCK_NS:
        return by
    return f"{by}, which is another clock ({moment_words(other_ns)}; {moment_words(stamp_ns)})"
