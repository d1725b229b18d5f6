"""Phrases: things, moments, spans, quantities, and what can be added to a question ("from <p1>", "at <t0>", "in feet")."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from spatial_mllm_ros.language.chart import ANYTHING, Chart, Grammar
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.term import Term
from spatial_mllm_ros.queries.units import TIME, UNITS


def _yaml(name: str) -> Any:
    return yaml.load((Path(__file__).parent / name).read_text("utf-8"), yaml.BaseLoader)


LEXICON: dict[str, list[str]] = _yaml("lexicon.yaml")
SILENT = [tuple(p.split()) for p in LEXICON.pop("SILENT")]
ORDINARY = _yaml("ordinary.yaml")["words"].split()
NAMEABLE = frozenset(LEXICON.pop("NAMEABLE"))
ROOMS = LEXICON.pop("ROOMS")
FOREIGN = frozenset(LEXICON.pop("FOREIGN"))
BOTH = [tuple(p.split()) for p in LEXICON.pop("BOTH")]
LONGEST_NAME = 4

class Quantity(NamedTuple):
    """A number and its unit, key of UNITS."""

    value: float
    unit: str


class Noun(NamedTuple):
    """A name in the singular, and whether it was said in the plural."""

    name: str
    plural: bool


class Bound(tuple[Any, ...]):
    """(Comparison, quantity), or two quantities that something is between."""


class Things(tuple[O.Operand, ...]):
    """Several things that are named together."""


class Arg(NamedTuple):
    """What is added to a question, and its role in it."""

    role: str
    value: Any


GRAMMAR = Grammar(LEXICON)
says = GRAMMAR.says


def rebuilt(term: Any, change: Any) -> Any:
    """A term with ``change`` applied to each of its parts, innermost first."""
    if isinstance(term, tuple):
        return tuple(rebuilt(t, change) for t in term)
    if not isinstance(term, Term):
        return term
    parts = {f.name: rebuilt(getattr(term, f.name), change) for f in dataclasses.fields(term)}
    same = all(parts[f.name] is getattr(term, f.name) for f in dataclasses.fields(term))
    return change(term if same else dataclasses.replace(term, **parts))


def same(*values: Any) -> Any:
    """The last value."""
    return values[-1]


# ---- marks, names, numbers


def _token(kind: str, make: Any) -> None:
    @GRAMMAR.native(kind, [f"@{kind}"])
    def read(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
        yield at + 1, make(chart.tokens[at]), 0


_token("p", lambda token: O.Point(index=int(token.value)))
_token("box", lambda token: O.Box(index=int(token.value)))
_token("t", lambda token: T.MarkedMoment(index=int(token.value)))
_token("number", lambda token: token.value)
_token("clock", lambda token: int(token.value))


@GRAMMAR.native("name", [ANYTHING])
def _name(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """Up to four words that are nothing else: (name in the singular, whether it was plural)."""
    words: list[str] = []
    while at < len(chart.tokens) and len(words) < LONGEST_NAME and is_name(chart, at):
        words.append(chart.tokens[at].text)
        at += 1
        *before, last = words
        single = singular(last)
        if len(last) > 1 and not last.endswith("ly") and (before or single not in PLACE_WORDS):
            yield at, Noun(" ".join([*before, single]), single != last), len(words)


PLACE_WORDS = frozenset(("point", "spot", "element", "target point", "marker"))
"""What alone is the name of nothing: "the other point" is no object."""


@GRAMMAR.native("label", [ANYTHING])
def _label(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """The name that a mark is given: it changes nothing."""
    for end, name, _ in _name(chart, at):
        yield end, name, 0


def _labelled(kind: str, make: Any) -> None:
    @GRAMMAR.native(f"labelled_{kind}", [ANYTHING])
    def read(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
        """A name and its mark with nothing between them: in "the picture, <p0>" they are two things."""
        for end, _, _ in _name(chart, at):
            if end < len(chart.tokens) and chart.tokens[end].kind == kind:
                yield end + 1, make(index=int(chart.tokens[end].value)), 0


_labelled("p", O.Point)
_labelled("box", O.Box)


def is_name(chart: Chart, at: int) -> bool:
    """Whether a token can be part of a name."""
    token = chart.tokens[at]
    return (
        token.kind == "word"
        and token.text[0].isalpha()
        and (token.text not in chart.grammar.words or token.text in NAMEABLE)
    )


def singular(word: str) -> str:
    """A noun in the singular; what is no plain plural stays."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("shelves", "knives", "halves", "leaves")):
        return word[:-3] + "f" if word.endswith(("shelves", "halves", "leaves")) else word[:-3] + "fe"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "ous")) and len(word) > 3:
        return word[:-1]
    return {"people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse"}.get(word, word)


_COUNTS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
GRAMMAR.table("count", {w: float(i + 1) for i, w in enumerate(_COUNTS)} | {"fifteen": 15.0, "twenty": 20.0, "thirty": 30.0, "fifty": 50.0, "hundred": 100.0})  # fmt: skip
GRAMMAR.table("ordinal", {w: i + 2 for i, w in enumerate(["second", "third", "fourth", "fifth", "sixth"])} | {"2nd": 2, "3rd": 3, "4th": 4})  # fmt: skip
GRAMMAR.table("unit", {w: u.key for u in UNITS.values() for w in u.words if u.key and w not in ("s", "h", "l", "m", '"')}
              | {"sqm": "m2", "sqft": "ft2", "m2": "m2", "cm2": "cm2", "ft2": "ft2", "meters squared": "m2", "metres squared": "m2", "cms": "cm", "m3": "m3", "cubic metres": "m3", "cubic meters": "m3"})  # fmt: skip
GRAMMAR.table("symbol", {"s": "s", "h": "h", "l": "l", "m": "m", "in": "in", '"': "in", "'": "ft"})
says("amount", "{number}", "{count}")(same)
says("amount", "half [a|an]")(lambda: 0.5)
says("amount", "a quarter of a")(lambda: 0.25)
says("amount", "one and a half", "{amount_number} and a half")(lambda whole=None: (whole or 1.0) + 0.5)
says("amount_number", "{number}", "{count}")(same)
says("amount", "(a|an)")(lambda: 1.0)
says("quantity", "{amount} {unit}", "{amount} {symbol}")(Quantity)
says("quantity", "{amount_number} {unit} and a half")(lambda value, unit: Quantity(value + 0.5, unit))


@says("quantity", "{amount_number} ({unit}|{symbol}) [and] {amount_number} [({unit}|{symbol})]")
def _compound(a: float, unit: str, b: float, small: str | None) -> Quantity | None:
    """5 ft 3 in, 1 m 80, 2 minutes and 30 seconds."""
    small = small or {"m": "cm", "ft": "in"}.get(unit)
    if (
        small is None
        or small not in UNITS
        or UNITS[small].kind != UNITS[unit].kind
        or UNITS[small].factor >= UNITS[unit].factor
    ):
        return None
    value = a + b * UNITS[small].factor / UNITS[unit].factor
    return Quantity(value, unit) if 0 <= b * UNITS[small].factor < UNITS[unit].factor else None


def si(quantity: Quantity) -> float:
    """A quantity in SI (and degrees)."""
    value, unit = quantity
    factor = UNITS[unit].factor
    return round(math.degrees(value * factor) if UNITS[unit].kind == "angle" and unit != "deg" else value if unit == "deg" else value * factor, 12)  # fmt: skip


# ---- moments and spans


says("moment", "[the] [time|moment|instant|timestamp|point in time] {t}", "[the] time of {t}", "the moment of {t}")(same)
says("moment", "now", "right now", "present", "currently", "current", "the moment", "this moment", "the present", "just now", "today", "this very moment", "presently")(T.Now)  # fmt: skip
says("moment", "[the] [very] START [of [the|this] RECORDING]", "first", "the first (image|frame)", "DET START")(T.Start)
says("moment", "the end [of [the] RECORDING]", "the (latest|last|newest|most recent) (image|frame|picture)")(T.Now)


@says("moment", "{clock} [oclock|hours] [{half_day}] [{day}]", "{number} {half_day} [{day}]", "{number} oclock [{day}]", "{clock} {number} days ago",
      "{clock_word} [{day}]")  # fmt: skip
def _clock(value: float, half: Any = None, day: Any = None) -> T.Moment | None:
    if isinstance(value, float):
        if value != int(value) or not 0 <= value <= 24:
            return None
        value = value * 3600
    if isinstance(half, int | float):
        half, day = None, half
    seconds = int(value)
    if half is not None:
        if not 3600 <= seconds < 13 * 3600:
            return None
        seconds = seconds % (12 * 3600) + (12 * 3600 if half == "pm" else 0)
    return T.ClockTime(hour=seconds // 3600, minute=seconds // 60 % 60, second=seconds % 60, days_ago=int(day or 0))


GRAMMAR.table("clock_word", {"noon": 12.0, "midday": 12.0})
GRAMMAR.table("half_day", {"am": "am", "pm": "pm", "a m": "am", "p m": "pm", "in the morning": "am", "in the afternoon": "pm", "in the evening": "pm"})  # fmt: skip
GRAMMAR.table("day", {"today": 0, "yesterday": 1})


@says("moment", "{day} at {moment}", "{number} days ago at {moment}")
def _day_at(day: float, moment: T.Moment) -> T.Moment | None:
    return (
        dataclasses.replace(moment, days_ago=int(day))
        if isinstance(moment, T.ClockTime) and not moment.days_ago
        else None
    )


@says("moment", "{quantity} ago", "{quantity} before now", "{quantity} earlier than now")
def ago(quantity: Quantity) -> T.Moment | None:
    return T.Ago(seconds=si(quantity)) if UNITS[quantity[1]].kind == TIME else None


says("moment", "{quantity} (after|from) [the] START [of the RECORDING]", "{quantity} into the RECORDING", "{quantity} in")(lambda quantity: T.AfterStart(seconds=si(quantity)) if UNITS[quantity[1]].kind == TIME else None)  # fmt: skip
says("moment", "stamp {number} ns", "the stamp {number} ns")(lambda value: T.Stamp(stamp_ns=int(value)))
says("when", "(at|on|by|as of|of|for|in|during|to) {moment}", "at the time of {moment}", "when it was {moment}", "(@|in|from) {moment}",
     "[at] the time {moment}", "at its pose at {moment}", "at (that|the) moment {moment}")(same)  # fmt: skip


says("when", "now", "right now", "currently", "today", "presently", "just now", "from now", "by now")(T.Now)
says("when", "{quantity} ago", "{day} at {clock_moment}")(lambda quantity, moment=None: _day_at(quantity, moment) if moment is not None else ago(quantity))  # fmt: skip
says("clock_moment", "{moment}")(lambda moment: moment if isinstance(moment, T.ClockTime) else None)
says("shot", "(in|on|into|onto|within|at|for|to|through) [the|that|your] [camera 's|colour|color|rgb] IMAGE [TAKEN|which was TAKEN|that was TAKEN] [of|at|from|for|in|by [the camera] at] {moment}",
     "(in|on|into|to|for|within) [the] {moment} (IMAGE|view)", "(in|on|into) the IMAGE [of|from] the camera [at] {moment}", "(in|on|into) the CAMERA 's IMAGE [at|from|of] {moment}",
     "(in|on) the IMAGE the CAMERA took at {moment}", "(in|from|at) the view at {moment}")(same)  # fmt: skip


says("span", "between {moment} and {moment}", "from {moment} (to|until|till|up to|through) {moment}", "{moment} (to|until|-|and) {moment}", "[only] (counting|considering|looking at) [only] [from|between] {moment} (to|until|and) {moment}",
     "(during|in|over) the (time|period|interval|span) (from|between) {moment} (to|and|until) {moment}", "[of] {moment} {moment}", "during {moment} to {moment}")(lambda begin, end: T.Span(begin=begin, end=end) if begin != end and not isinstance(begin, T.Now) else None)  # fmt: skip


says("span", "[ever] since {moment}", "after {moment}", "since {moment} until now", "starting (from|at) {moment}", "[counting] from {moment} on",
     "from {moment} until now")(lambda moment: T.Span(begin=moment, end=T.Now()) if moment != T.Now() else None)  # fmt: skip


says("span", "(until|till|up to|before|up until|prior to|by) {moment}", "from the START (until|to) {moment}")(lambda moment: T.Span(begin=T.Start(), end=moment) if moment != T.Start() else None)  # fmt: skip


@says("span", "(in|during|over|within|for) the (last|past|previous) {quantity}", "(in|during|over|within|for) the {quantity} before now",
      "(in|during|over) the (last|past) {unit}")  # fmt: skip
def _last(quantity: Any) -> T.Span | None:
    value = quantity if isinstance(quantity, Quantity) else Quantity(1.0, quantity)
    return T.Span(begin=T.Ago(seconds=si(value)), end=T.Now()) if UNITS[value[1]].kind == TIME else None


@says("span", "(in|during|over|within) the first {quantity}", "(in|during|over) the first {unit}")
def _first(quantity: Any) -> T.Span | None:
    value, unit = quantity if isinstance(quantity, Quantity) else Quantity(1.0, quantity)
    return T.Span(begin=T.Start(), end=T.AfterStart(seconds=si(Quantity(value, unit)))) if UNITS[unit].kind == TIME else None


says("span", "so far", "ever", "until now", "up to now", "till now", "yet", "to date", "by now", "since the START [of the RECORDING]",
     "(over|during|in|throughout|for) [the|this] [whole|entire|complete|full] RECORDING", "from START to end", "since [it|you|we|the camera|the robot] BEGAN", "since the [very] START", "from the START (to|until) (now|the end)")(lambda: T.Span(begin=T.Start(), end=T.Now()))  # fmt: skip
