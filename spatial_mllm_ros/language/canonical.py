"""A query in words and back: one plain English sentence for each, by templates that say it and read it.

A template is words and ``{field}``s of a class; ``[…]`` may be left out, where its fields have their defaults. Of the
templates of a class the first that fits is said; all of them are patterns of the grammar, phrases ``said_<class>``.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from spatial_mllm_ros.language.chart import ANYTHING, Chart
from spatial_mllm_ros.language.nouns import speakable
from spatial_mllm_ros.language.phrases import GRAMMAR, ROOMS
from spatial_mllm_ros.language.sentences import FRAMED, settled, unit_fits
from spatial_mllm_ros.language.tokens import MAX_CHARACTERS, Token, tokens_of
from spatial_mllm_ros.queries import asks as a
from spatial_mllm_ros.queries import measures as m
from spatial_mllm_ros.queries import moments as t
from spatial_mllm_ros.queries import operands as o
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.term import Term
from spatial_mllm_ros.queries.units import UNITS


class Unspeakable(ValueError):
    """A query that no plain sentence expresses; ``str()`` says what of it."""


def words(query: Query) -> str:
    """One canonical English sentence for a query; ``read`` gives the query back. Raises Unspeakable."""
    if settled(query.ask) != query.ask:
        raise _no("the camera of a marked image where nothing is marked")
    if query.frame_id and not isinstance(query.ask, FRAMED):
        raise _no("a frame of what is no place")
    if query.unit and not unit_fits(query, query.unit):
        raise _no("a unit of what has none")
    sentence = _say(query)
    if len(sentence) >= MAX_CHARACTERS:
        raise _no("so much at once")
    return f"{sentence[0].upper()}{sentence[1:]}?"


def measure_words(measure: m.Measure) -> str:
    """A measure as a noun phrase: "the distance between <p0> and <p1>". Raises Unspeakable."""
    return _say(measure)


def read_canonical(tokens: tuple[Token, ...]) -> Query | None:
    """The query whose canonical sentence has these tokens, commas aside; None where there is none, or more than one."""
    found = {replace(query, ask=settled(query.ask)) for query in Chart(GRAMMAR, tokens).whole("said_query")}
    fitting = [query for query in found if _is_said(query, tokens)]
    return fitting[0] if len(fitting) == 1 else None


def _is_said(query: Query, tokens: tuple[Token, ...]) -> bool:
    try:
        again = tokens_of(words(query), points=0, boxes=0, times=0)
    except Unspeakable:
        return False
    return [x.text for x in again if x.kind != ","] == [x.text for x in tokens if x.kind != ","]


def _no(what: str) -> Unspeakable:
    return Unspeakable(f"there are no plain words for {what}")


def number(value: float) -> str:
    """A number as the reader reads it back."""
    text = f"{value:.12f}".rstrip("0").rstrip(".") or "0"
    if float(text) != value or len(text) > 15:
        raise _no(f"the number {value!r}")
    return text


# ---- values of fields: how each kind is said, and the phrase that reads it


@dataclass(frozen=True)
class Kind:
    """phrase: of the grammar, that gives the value. say: (value, the term whose field it is) to text."""

    phrase: str
    say: Callable[[Any, Any], str]


def _table(name: str, said: dict[Any, str]) -> Kind:
    GRAMMAR.table(f"said_word_{name}", {text.lower(): value for value, text in said.items()})

    def say(value: Any, _: Any) -> str:
        if value not in said:
            raise _no(f"the {name} {getattr(value, 'value', value)!r}")
        return said[value]

    return Kind(f"said_word_{name}", say)


def _listed(name: str, one: Kind, last: str) -> Kind:
    GRAMMAR.says(f"said_{name}", f"{{{one.phrase}}} {{{one.phrase}}}* {last} {{{one.phrase}}}")(
        lambda first, between, end: (first, *between, end)
    )

    def say(values: tuple[Any, ...], term: Any) -> str:
        texts = [one.say(v, term) for v in values]
        return f"{', '.join(texts[:-1])} {last} {texts[-1]}"

    return Kind(f"said_{name}", say)


def _frame(name: str, _: Any = None) -> str:
    if not (name.isidentifier() and name.isascii() and name == name.lower()) or name.startswith("_"):
        raise _no(f"the frame {name!r}")
    return name


@GRAMMAR.native("said_frame", [ANYTHING])
def _frame_read(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """A name of letters, digits and low lines, which are several tokens without a gap."""
    tokens = chart.tokens
    if at >= len(tokens) or tokens[at].kind != "word":
        return
    end = at + 1
    while (
        end < len(tokens) and tokens[end].start == tokens[end - 1].end and tokens[end].text.replace("_", "x").isalnum()
    ):
        end += 1
    name = "".join(token.text for token in tokens[at:end])
    try:
        yield end, _frame(name), 0
    except Unspeakable:
        return


def _name(name: str, _: Any = None) -> str:
    if not speakable(name):
        raise _no(f"the name {name!r}")
    return name


GRAMMAR.says("said_name", "{name}")(lambda named: named[0] if not named[1] and speakable(named[0]) else None)

_UNIT_WORDS = {
    "m": "m", "s": "s", "deg": "degrees", "m2": "m2", "m3": "m3", "m/s": "m/s", "count": "", "": "",
}  # fmt: skip
GRAMMAR.table("said_si", {text: text for text in _UNIT_WORDS.values() if text})
GRAMMAR.says("said_quantity", "{number} [{said_si}]")(lambda value, unit: (value, unit or ""))


def _unit(key: str) -> str:
    return {
        "in": "inches", "ft": "feet", "ft2": "square feet", "ft3": "cubic feet", "m2": "square metres", "m3": "cubic metres",
        "cm2": "square centimetres",
    }.get(key, max(UNITS[key].words[:4], key=len))  # fmt: skip


_RANKS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth")
PROPERTIES = ("color", "material", "shape", "temperature", "brand", "state", "weight", "age", "price")
_LIES = {
    o.Where.LEFT_OF: "left of", o.Where.RIGHT_OF: "right of", o.Where.IN_FRONT_OF: "in front of", o.Where.BEHIND: "behind", o.Where.ABOVE: "above",
    o.Where.BELOW: "below", o.Where.ON: "on", o.Where.INSIDE: "inside", o.Where.NEXT_TO: "next to", o.Where.SAME_SURFACE: "on the same surface as",
}  # fmt: skip
_MINE = {
    o.Where.LEFT_OF: "on the left", o.Where.RIGHT_OF: "on the right", o.Where.IN_FRONT_OF: "in front", o.Where.BEHIND: "behind",
}  # fmt: skip
_COMPARED = {
    a.Comparison.LESS: "less than", a.Comparison.MORE: "more than", a.Comparison.AT_MOST: "at most", a.Comparison.AT_LEAST: "at least",
    a.Comparison.ABOUT: "about",
}  # fmt: skip

_KINDS = {
    "number": Kind("number", lambda value, _: number(value)),
    "frame": Kind("said_frame", _frame),
    "name": Kind("said_name", _name),
    "unit": _table("unit", {key: _unit(key) for key in UNITS if UNITS[key].words}),
    "room": _table("room", {room: room for room in ROOMS}),
    "property": _table("property", {name: name for name in PROPERTIES}),
    "rank": _table("rank", {rank + 2: word for rank, word in enumerate(_RANKS)}),
    "lies": _table("lies", _LIES),
    "mine": _table("mine", _MINE),
    "comparison": _table("comparison", _COMPARED),
}
_KINDS |= {
    "lies_or": _listed("lies_or", _KINDS["lies"], "or"),
    "mine_or": _listed("mine_or", _KINDS["mine"], "or"),
}


def _kind_of(hint: Any) -> Kind:
    """Of a field's type."""
    if get_origin(hint) in (Union, types.UnionType):
        return _kind_of(next(x for x in get_args(hint) if x is not type(None)))
    if get_origin(hint) is tuple:
        one = get_args(hint)[0]
        name = f"list_{one.__name__.lower()}"
        if name not in _KINDS:
            _KINDS[name] = _listed(name, _kind_of(one), "and")
        return _KINDS[name]
    if issubclass(hint, Term):
        return Kind(f"said_{hint.__name__.lower()}", lambda value, _: _say(value))
    name = hint.__name__.lower()
    if issubclass(hint, Enum) and name not in _KINDS:
        _KINDS[name] = _table(name, {value: value.value.replace("_", " ") for value in hint})
    return _KINDS["number" if hint is float else name]


# ---- templates

_SLOT = re.compile(r"\{([+-]?)(\w+)(?:\|(\w+))?(?::(\w+))?\}")


@dataclass(frozen=True)
class Slot:
    """A field in a template. like: the field that holds the measure in whose unit it is. sign: that it must have."""

    field: str
    kind: Kind
    like: str = ""
    sign: str = ""

    def say(self, term: Any) -> str | None:
        """None where it does not fit."""
        value = getattr(term, self.field)
        if value is None or (self.sign and (value > 0) != (self.sign == "+")):
            return None
        if not self.like:
            return self.kind.say(value, term)
        unit = _UNIT_WORDS[m.unit_of(getattr(term, self.like))]
        return number(abs(value) if self.sign else value) + (f" {unit}" if unit else "")


@dataclass(frozen=True)
class Template:
    """One wording of a class. parts: text and slots in turn. rest: what the fields without a slot must be."""

    cls: type[Any]
    parts: tuple[str | Slot, ...]
    rest: dict[str, Any]
    fits: Callable[[Any], bool]

    def say(self, term: Any) -> str | None:
        if any(getattr(term, name) != value for name, value in self.rest.items()) or not self.fits(term):
            return None
        said = [part if isinstance(part, str) else part.say(term) for part in self.parts]
        return None if None in said else "".join(str(s) for s in said)

    def pattern(self) -> str:
        text = "".join(p if isinstance(p, str) else f" {{{p.kind.phrase}}} " for p in self.parts)
        return re.sub(r"[,:()]", " ", text.replace("'s", " 's"))

    def made(self, *values: Any) -> Any:
        fields = dict(self.rest)
        slots = [part for part in self.parts if isinstance(part, Slot)]
        for slot, value in zip(slots, values, strict=True):
            fields[slot.field] = value[0] if slot.like else value
            if slot.sign == "-":
                fields[slot.field] = -fields[slot.field]
        for slot, value in zip(slots, values, strict=True):
            if slot.like and _UNIT_WORDS[m.unit_of(fields[slot.like])] != value[1]:
                return None
        term = self.cls(**fields)
        return term if self.fits(term) else None


_TEMPLATES: dict[type, list[Template]] = {}


def _said(cls: type[Any], *templates: str, fits: Callable[[Any], bool] = lambda term: True, **fixed: Any) -> None:
    """Add templates of a class. fixed: fields that have a value other than their default in them."""
    hints = get_type_hints(cls)
    defaults = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
    for template in templates:
        pieces = re.split(r"\[([^\]]*)\]", template)
        for chosen in itertools.product(*([p] if i % 2 == 0 else ["", p] for i, p in enumerate(pieces))):
            text = "".join(chosen)
            parts: list[str | Slot] = []
            at = 0
            for match in _SLOT.finditer(text):
                sign, field, kind, like = match.groups(default="")
                known = (
                    Kind("said_quantity", lambda *_: "") if like else _KINDS[kind] if kind else _kind_of(hints[field])
                )
                parts += [text[at : match.start()], Slot(field=field, kind=known, like=like, sign=sign)]
                at = match.end()
            parts.append(text[at:])
            slots = {part.field for part in parts if isinstance(part, Slot)}
            rest = {name: value for name, value in {**defaults, **fixed}.items() if name not in slots}
            made = Template(cls=cls, parts=tuple(parts), rest=rest, fits=fits)
            _TEMPLATES.setdefault(cls, []).append(made)
            GRAMMAR.says(f"said_{cls.__name__.lower()}", made.pattern())(made.made)


def _say(term: Any) -> str:
    for template in _TEMPLATES.get(type(term), ()):
        text = template.say(term)
        if text is not None:
            return text
    raise _no(f"this {type(term).__name__}: {term}")


def _own(cls: type[Any], say: Callable[[Any], str], pattern: str, made: Callable[..., Any]) -> None:
    """One template whose single value is no field."""
    kind = Kind("", lambda value, term: say(term))
    only = Template(cls=cls, parts=(Slot(field="__class__", kind=kind),), rest={}, fits=lambda term: True)
    _TEMPLATES.setdefault(cls, []).append(only)
    GRAMMAR.says(f"said_{cls.__name__.lower()}", pattern)(made)


def _one_of(base: type[Any]) -> None:
    """The phrase of a base is that of each of its classes."""
    for cls in _TEMPLATES:
        if issubclass(cls, base):
            GRAMMAR.says(f"said_{base.__name__.lower()}", f"{{said_{cls.__name__.lower()}}}")(lambda term: term)


# ---- moments


def _stamp(x: t.Stamp) -> str:
    if x.stamp_ns < 0:
        raise _no("a stamp below zero")
    return f"stamp {x.stamp_ns // 10**9}.{x.stamp_ns % 10**9:09}"


@GRAMMAR.native("said_seconds", ["@number"])
def _seconds(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """Seconds as integer nanoseconds: a float would lose some."""
    yield at + 1, int(Decimal(chart.tokens[at].text.replace(",", ".")) * 10**9), 0


def _days(x: t.ClockTime) -> str:
    return f", {x.days_ago} days ago" if x.days_ago else ""


def _clock(seconds: int, days: float | None) -> t.ClockTime:
    return t.ClockTime(hour=seconds // 3600, minute=seconds // 60 % 60, second=seconds % 60, days_ago=int(days or 0))


_own(t.MarkedMoment, lambda x: f"<t{x.index}>", "{t}", lambda x: x)
_own(
    t.MarkMoment,
    lambda x: f"the moment of <{'p' if x.mark == 'points' else 'box'}{x.index}>",
    "the moment of ({p}|{box})",
    lambda x: t.MarkMoment(mark="points" if isinstance(x, o.Point) else "boxes", index=x.index),
)
_said(t.Now, "now")
_said(t.Start, "the start")
_own(t.Stamp, _stamp, "stamp {said_seconds}", lambda ns: t.Stamp(stamp_ns=ns))
_said(t.Ago, "{seconds} s ago")
_said(t.AfterStart, "{seconds} s after the start")
_own(t.ClockTime, lambda x: f"{x.hour}:{x.minute:02}:{x.second:02}{_days(x)}", "{clock} [{number} days ago]", _clock)
_one_of(t.Moment)
_said(t.Span, "from {begin} to {end}", fits=lambda x: x.begin != x.end and not isinstance(x.begin, t.Now))

# ---- things

_own(o.Point, lambda x: f"<p{x.index}>", "{p}", lambda x: x)
_own(o.Box, lambda x: f"<box{x.index}>", "{box}", lambda x: x)
_said(o.Camera, "the camera")
_said(o.Camera, "the camera now", at=t.Now())
_said(o.Camera, "the camera at {at}")
_said(o.Robot, "the robot now", at=t.Now())
_said(o.Robot, "the robot base at {at}")
_said(o.Origin, "the origin[ of frame {frame_id|frame}]")
_said(o.Position, "the position ({x}, {y}, {z})[ of frame {frame_id|frame}]")
_said(o.Floor, "the floor")
_said(o.Ceiling, "the ceiling")
_said(o.NearestWall, "the nearest wall")
_said(o.Room, "the room")
_said(o.Room, "the {name|room}", fits=lambda x: x.name in ROOMS)
_said(o.Room, "the room named {name|name}", fits=lambda x: x.name not in ("", *ROOMS))

_PICKED = {
    o.Pick.THE_ONE: "the", o.Pick.ANY: "any", o.Pick.ALL: "all of the", o.Pick.NEAREST: "the nearest", o.Pick.FARTHEST: "the farthest",
    o.Pick.LARGEST: "the largest", o.Pick.SMALLEST: "the smallest", o.Pick.OTHER: "the other",
}  # fmt: skip


def _is_named(x: o.Object) -> bool:
    return bool(x.name) and not (x.name == "wall" and x.pick is o.Pick.NEAREST and x.to is None)


for _pick, _before in _PICKED.items():
    for _noun, _fixed, _fits in (("object", {"name": ""}, lambda x: not x.name), ("{name|name}", {}, _is_named)):
        _said(o.Object, f"{_before} {_noun}", pick=_pick, fits=_fits, **_fixed)
        _said(o.Object, f"{_before} {_noun} that is {{where|lies}} {{to}}", pick=_pick, fits=_fits, **_fixed)
        if _pick in (o.Pick.NEAREST, o.Pick.FARTHEST):
            _said(o.Object, f"the {_noun} {_pick.value} to {{to}}", pick=_pick, fits=_fits, **_fixed)
_one_of(o.Operand)

# ---- measures


def _extended(x: Any) -> bool:
    return isinstance(x.of, o.Box | o.Object | o.Room)


def _level(x: m.Distance) -> bool:
    """The distance from floor or ceiling, in words, is a height, which has a sign."""
    return isinstance(x.a, o.Floor | o.Ceiling) or isinstance(x.b, o.Floor | o.Ceiling)


for _metric, _before in (
    (m.Metric.STRAIGHT, ""),
    (m.Metric.HORIZONTAL, "horizontal "),
    (m.Metric.VERTICAL, "vertical "),
):
    for _unsigned, _fits in (("", lambda x: not _level(x)), ("unsigned ", _level)):
        _between = f"the {_unsigned}{_before}distance between {{a}} and {{b}}"
        _said(m.Distance, _between, metric=_metric, fits=_fits)
        _said(m.Distance, f"{_between} between their centers", metric=_metric, ends=m.Ends.CENTERS, fits=_fits)
_no_room = lambda x: not isinstance(x.of, o.Room)  # noqa: E731  the depth of a room is no optical one
_said(m.Depth, "the depth of {of}", fits=_no_room)
_said(m.Depth, "the depth of {of} in the latest image", at=t.Now(), fits=_no_room)
_said(m.Depth, "the depth of {of} in the image at {at}", fits=_no_room)
_said(m.Height, "the height of {of} above {above}")
_said(m.Angle, "the angle at {vertex} between {a} and {b}")
_said(m.Bearing, "the horizontal angle of {of} from {viewer}[ facing {facing}]")
_said(m.Extent, "the {dimension} of {of}", fits=_extended)
_said(m.Slope, "the slope of the surface at {at}")
_said(m.PathLength, "the length of the camera's path[ {span}]")
_said(m.Turn, "the angle that the camera turned[ {span}]")
_said(m.Turn, "the angle that the camera turned to the left[ {span}]", about_up=True)
for _axis, _way in ((m.Axis.FORWARD, "forward"), (m.Axis.LEFT, "leftward"), (m.Axis.UP, "upward")):
    _said(m.Shift, f"the {_way} movement of the camera[ {{span}}]", axis=_axis)
_said(m.Heading, "the heading of the camera now", "the heading of the camera at {at}")
_said(m.Speed, "the speed of the camera now", "the speed of the camera at {at}")
_said(m.MeanSpeed, "the mean speed of the camera[ {span}]")
_said(m.TimeSpent, "the time that the camera moved[ {span}]", moving=True)
_said(m.TimeSpent, "the time that the camera stood still[ {span}]", moving=False)
_said(m.ClosestApproach, "the closest approach of the camera to {to}[ {span}]")
_said(m.Elapsed, "the time {span}")
_said(m.SeenTime, "the time when {of} was {event} seen")
_said(m.SeenTime, "the time since {of} was {event} seen", ago=True)
_said(m.SeenDistance, "the least distance that {of} was seen from[ {span}]")
_said(m.Count, "the number of {what}")
_said(m.ObjectCount, "the number of objects that are {of}")
_said(m.SeenCount, "the number of images that show {of}[ {span}]")
_said(m.UnseenFraction, "the unseen fraction of the space")
_said(m.Clearance, "the clearance around {of}")
_said(m.Clearance, "the clearance ahead of {of}", ahead=True)
_said(m.RouteLength, "the length of the route from {start} to {goal}[ for a robot of radius {radius_m} m]")
_said(m.PassageWidth, "the width of the passage of {of}", "the width of the passage from {of} to {goal}")
_one_of(m.Measure)

# ---- what is asked

_said(a.Viewpoint, "standing at {at}[ and facing {facing}]")
_said(a.Value, "what is {of}")
_said(a.Mean, "what is the mean of {of}")
_said(a.Difference, "by how much is {a} more than {b}")
_said(a.Difference, "how many times {b} is {a}", ratio=True)
_said(a.Dimensions, "what are the dimensions of {of}", fits=_extended)
_said(a.Threshold, "is {of} {comparison} {value:of}")
_said(a.Within, "is {of} between {low:of} and {high:of}")
for _offset in ("", " plus {+offset:a}", " minus {-offset:a}"):
    _said(a.Compare, f"is {{a}} {{comparison}}[ {{factor}} times] {{b}}{_offset}")
_said(a.Relation, "is {a} {where|lies} {b}[, {viewpoint}]", "is {a} {where|mine}[, {viewpoint}]")
_said(a.Relation, "is {a} between {b} and {also}[, {viewpoint}]", where=o.Where.BETWEEN)
_said(a.Visible, "is {of} visible now", "is {of} visible at {at}")
_said(a.Seen, "was {of} seen at any time[ {span}]")
_said(a.Moving, "is the camera moving now", "is the camera moving at {at}")
_said(a.Visited, "has the robot been in {room}[ {span}]")
_said(a.Changed, "did {of} change[ {span}]")
_said(a.Exists, "does {of} exist")
_said(a.Reachable, "is {goal} reachable[ from {start}][ for a robot of radius {radius_m} m]")
_said(a.LineOfSight, "is there a free line of sight between {a} and {b}")
_said(a.Open, "is {of} open")
_said(a.Locate, "where is {of}")
_said(a.Pixel, "at which pixel is {of} in the image at {at}")
_said(a.Direction, "in which direction is {of}[, {viewpoint}]")
_said(a.MotionDirection, "in which direction did the camera move[ {span}]")
_said(a.SurfaceNormal, "what is the normal of the surface at {at}")
_said(a.Unseen, "where is the unseen space")
_said(a.Route, "what is the route[ from {start}] to {goal}[ for a robot of radius {radius_m} m]")
_said(a.Extreme, "which is the[ {rank|rank}] {which} of {of}")
_said(a.Extreme, "what is the[ {rank|rank}] {which} of {of}", as_value=True)
_said(a.Order, "what is the order of {of} from small to large")
_said(a.Order, "what is the order of {of} from large to small", descending=True)
_said(a.Side, "is {a} {options|lies_or} {b}[, {viewpoint}]", "is {a} {options|mine_or}[, {viewpoint}]")
_said(a.Occupied, "is {of} free, occupied or unknown", "is {of} {state}")
_said(a.Find, "which objects are {of}")
_said(a.RoomOf, "which room is {of} in")
_said(a.RoomOf, "which room are most of {of} in", most=True)
_said(a.AppearanceOrder, "in which order did {of} appear")
_said(a.Property, "what {name|property} is {of}")
_SIDES = ("{length_m} m long", "{width_m} m wide", "{height_m} m high")
for _what in ("the robot", "{thing}", "an area of {area_m2} m2", *("a box " + " and ".join(sides) for n in (1, 2, 3) for sides in itertools.combinations(_SIDES, n))):  # fmt: skip
    _said(a.FreePlace, f"where is a free place for {_what}[ {{where|lies}} {{at}}]")
    if "area" not in _what:
        _said(a.Fits, f"does {_what} fit at {{place}}")
_one_of(a.Ask)
for _no_first, _negated in (("", False), ("is the answer no: ", True)):
    _said(Query, f"{_no_first}{{ask}}[, in frame {{frame_id|frame}}][, in {{unit|unit}}][, with only the images {{window}}]", negated=_negated)  # fmt: skip
