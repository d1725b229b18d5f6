"""Units that people ask in and answer choices are written in. Inside, everything is SI: m, m2, rad, s and plain ratios.

``value_SI = value * factor``. The factors are the exact definitions (international foot, inch and yard).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

LENGTH, AREA, VOLUME, ANGLE, TIME, SPEED, RATIO, COUNT = (
    "length", "area", "volume", "angle", "time", "speed", "ratio", "count",
)  # fmt: skip

# Fewer than this many significant digits of a value say nothing more when no deviation is known.
_DIGITS_WITHOUT_DEVIATION = 3


@dataclass(frozen=True)
class Unit:
    """A unit: its key in code, its kind, what one of it is in SI, its printed symbol and the words that name it."""

    key: str
    kind: str
    factor: float
    symbol: str
    words: tuple[str, ...]


def _unit(key: str, kind: str, factor: float, symbol: str, *words: str) -> Unit:
    return Unit(key, kind, factor, symbol, words)


def _square(key: str, factor: float, symbol: str, *names: str) -> Unit:
    words = [f"{prefix} {name}" for name in names for prefix in ("square", "sq")]
    words += ["square footage"] if key == "ft" else []
    return Unit(key + "2", AREA, factor**2, symbol + "²", (key + "2", *words))


def _cubic(key: str, *names: str) -> tuple[str, ...]:
    return (key, *(f"cubic {name}" for name in names))


_METRE = ("metre", "metres", "meter", "meters", "m")
_CENTIMETRE = ("centimetre", "centimetres", "centimeter", "centimeters", "cm", "cms")
_FOOT = ("foot", "feet", "ft")
_INCH = ("inch", "inches")

UNITS: dict[str, Unit] = {
    u.key: u
    for u in (
        _unit("m", LENGTH, 1.0, "m", *_METRE),
        _unit("cm", LENGTH, 0.01, "cm", *_CENTIMETRE),
        _unit("mm", LENGTH, 0.001, "mm", "millimetre", "millimetres", "millimeter", "millimeters", "mm", "mms"),
        _unit("km", LENGTH, 1000.0, "km", "kilometre", "kilometres", "kilometer", "kilometers", "km", "kms"),
        _unit("in", LENGTH, 0.0254, "in", *_INCH),
        _unit("ft", LENGTH, 0.3048, "ft", *_FOOT),
        _unit("yd", LENGTH, 0.9144, "yd", "yard", "yards", "yd", "yds"),
        _square("m", 1.0, "m", *_METRE),
        _square("cm", 0.01, "cm", *_CENTIMETRE),
        _square("ft", 0.3048, "ft", *_FOOT),
        _unit("m3", VOLUME, 1.0, "m³", *_cubic("m3", *_METRE)),
        _unit("l", VOLUME, 0.001, "l", "litre", "litres", "liter", "liters"),
        _unit("ft3", VOLUME, 0.3048**3, "ft³", *_cubic("ft3", *_FOOT)),
        _unit("deg", ANGLE, math.pi / 180.0, "°", "degree", "degrees", "deg", "degs", "°"),
        _unit("rad", ANGLE, 1.0, "rad", "radian", "radians", "rad", "rads"),
        _unit("s", TIME, 1.0, "s", "seconds", "second", "sec", "secs", "s"),
        _unit("ms", TIME, 0.001, "ms", "millisecond", "milliseconds", "ms", "msec"),
        _unit("min", TIME, 60.0, "min", "minute", "minutes", "min", "mins"),
        _unit("h", TIME, 3600.0, "h", "hour", "hours", "h", "hr", "hrs"),
        _unit("m/s", SPEED, 1.0, "m/s", "metres per second", "meters per second", "metre per second", "m/s"),
        _unit("km/h", SPEED, 1 / 3.6, "km/h", "kilometres per hour", "kilometers per hour", "km/h", "kph"),
        _unit("mph", SPEED, 0.44704, "mph", "miles per hour", "mph"),
        _unit("count", COUNT, 1.0, ""),
        _unit("percent", RATIO, 0.01, "%", "percent", "per cent", "percentage", "%", "pct"),
        _unit("", RATIO, 1.0, ""),
    )
}

# Words of choices only: a question uses them as other words ("in the image", '5"').
_CHOICE_WORDS = {"in": "in", '"': "in", "″": "in", "'": "ft", "′": "ft", "m²": "m2", "cm²": "cm2", "ft²": "ft2"}
_SYMBOLS = {word: u.key for u in UNITS.values() for word in u.words if u.key} | _CHOICE_WORDS
_PLACEHOLDER = re.compile(r"<[a-z]+\d+>")
_NUMBER = r"[-+−]?\d{1,15}(?:[.,]\d{1,9})?"
_UNIT_WORD = "|".join(re.escape(word) for word in sorted(_SYMBOLS, key=len, reverse=True))
_MEASURE = re.compile(
    rf"(?P<number>{_NUMBER})\s?(?:(?P<unit>{_UNIT_WORD})(?![a-z0-9])|(?P<times>(?:[x×*–-]|by|to)(?=\s?{_NUMBER}))|(?![a-z0-9]))"
)


def convert(value: float, unit_from: str, unit_to: str) -> float:
    """``value`` of ``unit_from`` in ``unit_to`` (keys of UNITS). ValueError when they do not measure the same thing."""
    a, b = _known(unit_from), _known(unit_to)
    if a.kind != b.kind:
        raise ValueError(f"{unit_from!r} is {a.kind} and {unit_to!r} is {b.kind}: convert between units of one kind")
    return value if a is b else value * a.factor / b.factor


def format_measure(value: float, stddev: float, unit: str) -> str:
    """Text such as "1.64 m ± 0.02 m": both already in ``unit``, NaN ``stddev`` = unknown.

    The deviation keeps one significant digit, two where the first is a 1 (rounding 0.14 to 0.1 would lose 30 %), and
    the value gets the same place. Without a deviation the value keeps three digits.
    """
    u = _known(unit)
    mark = u.symbol if u.symbol in ("°", "") else " " + u.symbol
    if not math.isfinite(value):
        return f"unknown{mark}" if math.isnan(value) else f"{value}{mark}"
    if not (math.isfinite(stddev) and stddev > 0.0):
        place = _DIGITS_WITHOUT_DEVIATION - 1 - math.floor(math.log10(abs(value))) if value else 0
        return f"{_rounded(value, place)}{mark}"
    exponent = math.floor(math.log10(stddev))
    place = -exponent + (1 if stddev / 10.0**exponent < 1.95 else 0)
    return f"{_rounded(value, place)}{mark} ± {_rounded(stddev, place)}{mark}"


def parse_measures(text: str) -> list[tuple[float, str]]:
    """The measures in ``text`` in order: (value in SI, kind), kind "" for a number without a unit.

    In "0.2 x 0.3 m" or "2 to 3 m" a number without a unit takes the unit that follows. A comma between digits is a
    decimal comma unless three digits follow it ("1,250").
    """
    found: list[tuple[float, str | None]] = []  # the unit's key; None: takes the next one's
    for match in _MEASURE.finditer(_PLACEHOLDER.sub(" ", text.lower().replace("^2", "2"))):
        number = match["number"].replace("−", "-")
        number = number.replace(",", "") if re.search(r",\d{3}$", number) else number.replace(",", ".")
        unit = _SYMBOLS[match["unit"]] if match["unit"] else (None if match["times"] else "-")
        found.append((float(number), unit))
    measures: list[tuple[float, str]] = []
    following = "-"
    for value, unit in reversed(found):
        following = unit or following
        known = UNITS.get(following)
        measures.append((value * known.factor, known.kind) if known else (value, ""))
    return measures[::-1]


def _rounded(value: float, place: int) -> str:
    """``value`` rounded to ``place`` digits after the point (negative: before it), and never "-0"."""
    if place < -15:
        return f"{value:.3g}"
    text = f"{round(value, place):.{max(place, 0)}f}"
    return text.lstrip("-") if not any(c in "123456789" for c in text) else text


def _known(unit: str) -> Unit:
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}: use one of {', '.join(repr(k) for k in UNITS)}")
    return UNITS[unit]
