"""Frames by what people call them: a name of the recording, a stamp, or seconds since its start."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.sources.source import Source

LATEST = "latest"
LOOSEST_NS = 50_000_000
MOST_DIGITS = 24


def frame_name(source: Source, stamp_ns: int) -> str | None:
    """The name by which a recording knows the frame with that stamp; None when it names none."""
    named: Any = getattr(source, "name_of", None)
    if named is None:
        return None
    name = named(stamp_ns)
    return None if name is None else str(name)


def find_stamp(source: Source, memory: SpatialMemory, text: str) -> int:
    """Stamp (ns) of the frame called ``text``: a name, "latest", a stamp in decimal seconds, or "+3.2", seconds after the
    first.

    A time means the frame in memory nearest to it, as precisely as its digits say, but within 0.05 s; where there is
    none, exactly the time as written. Raises KeyError, whose first argument says what is wrong.
    """
    text = text.strip()
    try:
        return source.stamp_of(text)
    except KeyError as error:
        wrong = str(error.args[0]) if error.args else f"there is no frame {text!r}"
    if text == LATEST:
        held = memory.frames()
        last = held[-1] if held else memory.single.latest()
        if last is None:
            raise KeyError("there is no latest image: the memory holds none")
        return last.frame.stamp_ns
    try:
        seconds = Decimal(text) if len(text) <= MOST_DIGITS else Decimal("nan")
    except InvalidOperation:
        seconds = Decimal("nan")
    if not seconds.is_finite() or abs(seconds) > 1 << 33:
        raise KeyError(f"{wrong} (or give a stamp in seconds, or +SECONDS after the first frame)")
    stamp = int(seconds * 1_000_000_000)
    track = memory.track()
    if text.startswith("+") and track is not None and track.first is not None:
        stamp += track.first
    exponent = seconds.as_tuple().exponent
    half_digit = 10 ** max(9 + int(exponent), 0) // 2
    stored = memory.nearest(stamp, tolerance_ns=min(half_digit, LOOSEST_NS))
    return stamp if stored is None else stored.frame.stamp_ns
