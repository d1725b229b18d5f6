"""The order and the times of images: from their names, or from the column of a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation

import numpy as np

from spatial_mllm_ros.scene.inputs import Doubt

NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Nanoseconds of each unit of time."""
LATEST_NS = (1 << 63) - 1
_UNIT = {
    "s": "s",
    "sec": "s",
    "secs": "s",
    "second": "s",
    "seconds": "s",
    "ms": "ms",
    "msec": "ms",
    "us": "us",
    "usec": "us",
}
_UNIT |= {"µs": "us", "micros": "us", "millis": "ms", "ns": "ns", "nsec": "ns", "nanos": "ns", "nanoseconds": "ns"}
_UNIT |= {"milliseconds": "ms", "microseconds": "us"}
_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_EPOCH = ((Decimal(10) ** 17, "ns"), (Decimal(10) ** 14, "us"), (Decimal(10) ** 11, "ms"), (Decimal(10) ** 8, "s"))
"""From this size on, a time since 1970 (between 1973 and 5138) can only be in that unit."""
_INTERVAL = ((5, "s"), (5_000, "ms"), (5_000_000, "us"))
"""Images mostly come between 0.2 and thousands of times a second: what a smaller median interval is counted in."""


@dataclass(frozen=True, kw_only=True)
class Stamps:
    """Times of images.

    stamps: ns, in the order of the images. words: where they come from, for people. doubt: where nothing tells them.
    """

    stamps: list[int]
    words: str
    doubt: Doubt | None = None


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Key that sorts names as people count: 2 before 10."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(p)) if p.isdecimal() else (1, p) for p in parts if p)


def to_ns(text: str, unit: str) -> int:
    """A decimal number of ``unit`` (s, ms, us, ns) as integer nanoseconds, exactly.

    A float cannot hold an epoch stamp to the nanosecond. Raises ValueError, also for what 64 bits do not hold.
    """
    try:
        stamp = int((Decimal(text.strip()) * NS[unit]).to_integral_value())
        if abs(stamp) > LATEST_NS:
            raise ValueError("beyond the year 2262")
        return stamp
    except (InvalidOperation, OverflowError, ValueError) as error:
        raise ValueError(f"{text!r} is not a time in {_WORDS[unit]}") from error


def seconds_to_ns(text: str) -> int:
    """Decimal seconds as integer nanoseconds, exactly. Raises ValueError."""
    return to_ns(text, "s")


def ns_to_seconds(stamp_ns: int) -> str:
    """Nanoseconds as decimal seconds with nine digits, exactly."""
    sign, rest = ("-", -stamp_ns) if stamp_ns < 0 else ("", stamp_ns)
    return f"{sign}{rest // 1_000_000_000}.{rest % 1_000_000_000:09d}"


def unit_of_times(values: Sequence[str], name: str = "") -> tuple[str, str]:
    """In what a column of times counts (s, ms, us, ns), and why: its name, its size as an epoch, or its steps.

    Raises ValueError for what is no number.
    """
    ending = [word for word in re.split(r"[^a-zµ]+", name.lower()) if word]
    if len(ending) > 1 and ending[-1] in _UNIT:
        return _UNIT[ending[-1]], "as its name says"
    try:
        numbers = [Decimal(value.strip()) for value in values]
    except InvalidOperation as error:
        raise ValueError(f"a column of times holds what is no number: {values[0]!r} …") from error
    if not all(n.is_finite() for n in numbers):
        raise ValueError("a column of times holds numbers that are not finite")
    largest = max((abs(n) for n in numbers), default=Decimal(0))
    for least, unit in _EPOCH:
        if largest >= least:
            return unit, "as large as a time since 1970"
    steps = np.diff(sorted(float(n) for n in numbers))
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    unit = next((unit for below, unit in _INTERVAL if step <= below), "ns")
    return unit, f"steps of {step:g}"


def table_stamps(values: Sequence[str], name: str) -> Stamps:
    """Times of a column called ``name``. Raises ValueError."""
    unit, why = unit_of_times(values, name)
    return Stamps(
        stamps=[to_ns(v, unit) for v in values], words=f"stamps of column {name!r}, in {_WORDS[unit]} ({why})"
    )


def stamps_in_names(names: Sequence[str], rate_hz: float, what_to_add: str = "frames.csv") -> Stamps:
    """Times of images called ``names`` (without suffix, in order).

    A name that ends in a time since 1970 (nanoseconds to seconds, as EuRoC and TUM write it) or in decimal seconds tells
    its stamp; so do NUMBER-MICROSECONDS with twelve digits, as Redwood has it, and the YYYYMMDD_HHMMSS of phones. Else the
    number at its end counts images at ``rate_hz``, or where there is none its place, and a Doubt says that nothing tells
    the times. what_to_add: the file that could.
    """
    redwood = [re.fullmatch(r"\d+-(\d{12})", name) for name in names]
    if names and all(redwood):
        return Stamps(stamps=[to_ns(m[1], "us") for m in redwood if m], words="stamps in the names, in microseconds")
    dates = _dates(names)
    if dates is not None:
        return Stamps(stamps=dates, words="date and time in the names, taken as UTC")
    found = [re.search(r"(?<![\d.])(\d+(?:\.\d+)?)$", name) for name in names]
    numbers = [m[1] for m in found if m is not None]
    whole = len(numbers) == len(names) > 0
    if whole and (all("." in n for n in numbers) or all(Decimal(n) >= _EPOCH[-1][0] for n in numbers)):
        stated = "_s" if all("." in n and Decimal(n) < _EPOCH[-1][0] for n in numbers) else ""
        unit, _ = unit_of_times(numbers, f"time{stated}")
        stamps = [to_ns(n, unit) for n in numbers]
        if len(set(stamps)) == len(stamps):
            return Stamps(stamps=stamps, words=f"stamps in the names, in {_WORDS[unit]}")
    counts = [int(n) for n in numbers] if whole and all(n.isdecimal() for n in numbers) else list(range(len(names)))
    how = "the numbers in the names" if whole and len(set(counts)) == len(counts) else "the images in order"
    if len(set(counts)) != len(counts) or max(counts, default=0) > 1e12:
        counts = list(range(len(names)))
    doubt = Doubt(
        kind="nominal_stamps",
        text=f"nothing tells when the images were taken: {how} are counted at {rate_hz:g} Hz",
        remedy=f"set image_rate_hz (--image-rate), or add {what_to_add} with the columns name and timestamp_s",
    )
    stamps = [int(Decimal(count) * NS["s"] / Decimal(rate_hz)) for count in counts]
    return Stamps(stamps=stamps, words=f"no stamps: {how}, at {rate_hz:g} Hz", doubt=doubt)


def _dates(names: Sequence[str]) -> list[int] | None:
    """Stamps of names that end in YYYYMMDD_HHMMSS, with milliseconds or without; None unless all do, each another."""
    found = [re.search(r"(?<!\d)(\d{8})[_-]?(\d{6})(\d{3})?$", name) for name in names]
    stamps = []
    for match in found:
        if match is None:
            return None
        try:
            moment = datetime.strptime(match[1] + match[2], "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
        except ValueError:
            return None
        stamps.append(int(moment.timestamp()) * NS["s"] + int(match[3] or 0) * NS["ms"])
    return stamps if stamps and len(set(stamps)) == len(stamps) and min(stamps) > 0 else None
