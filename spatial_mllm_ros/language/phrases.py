"""Phrases: things, moments, spans, quantities, and what can be added to a question ("from <p1>", "at <t0>", "in feet")."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from spatial_mllm_ros.language.chart import ANYTHING, Chart, Grammar, Several
from spatial_mllm_ros.language.scales import ADJECTIVES, COMPARATIVES, NOUNS, SUPERLATIVES
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.term import Term
from spatial_mllm_ros.queries.units import AREA, LENGTH, TIME, UNITS, VOLUME


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


@says("amount", "{number}", "{count}")
def _amount(value: float) -> float:
    return value


@says("amount", "half [a|an]")
def _half() -> float:
    return 0.5


@says("amount", "a quarter of a")
def _quarter() -> float:
    return 0.25


@says("amount", "one and a half", "{amount_number} and a half")
def _and_half(whole: float | None = None) -> float:
    return (whole or 1.0) + 0.5


@says("amount_number", "{number}", "{count}")
def _amount_number(value: float) -> float:
    return value


@says("amount", "(a|an)")
def _a() -> float:
    return 1.0


@says("quantity", "{amount} {unit}", "{amount} {symbol}")
def _quantity(value: float, unit: str) -> Quantity:
    return Quantity(value, unit)


@says("quantity", "{amount_number} {unit} and a half")
def _quantity_and_half(value: float, unit: str) -> Quantity:
    return Quantity(value + 0.5, unit)


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


@says("moment", "[the] [time|moment|instant|timestamp|point in time] {t}", "[the] time of {t}", "the moment of {t}")
def _marked(moment: T.Moment) -> T.Moment:
    return moment


@says("moment", "now", "right now", "present", "currently", "current", "the moment", "this moment", "the present", "just now", "today", "this very moment", "presently")  # fmt: skip
def _now() -> T.Moment:
    return T.Now()


@says("moment", "[the] [very] START [of [the|this] RECORDING]", "first", "the first (image|frame)", "DET START")
def _start() -> T.Moment:
    return T.Start()


@says("moment", "the end [of [the] RECORDING]", "the (latest|last|newest|most recent) (image|frame|picture)")
def _end() -> T.Moment:
    return T.Now()


@says(
    "moment",
    "{clock} [oclock|hours] [{half_day}] [{day}]",
    "{number} {half_day} [{day}]",
    "{number} oclock [{day}]",
    "{clock} {number} days ago",
    "{clock_word} [{day}]",
)
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
def _ago(quantity: Quantity) -> T.Moment | None:
    return T.Ago(seconds=si(quantity)) if UNITS[quantity[1]].kind == TIME else None


@says(
    "moment", "{quantity} (after|from) [the] START [of the RECORDING]", "{quantity} into the RECORDING", "{quantity} in"
)
def _after_start(quantity: Quantity) -> T.Moment | None:
    return T.AfterStart(seconds=si(quantity)) if UNITS[quantity[1]].kind == TIME else None


@says("moment", "stamp {number} ns", "the stamp {number} ns")
def _stamp(value: float) -> T.Moment:
    return T.Stamp(stamp_ns=int(value))


@says("when", "(at|on|by|as of|of|for|in|during|to) {moment}", "at the time of {moment}", "when it was {moment}", "(@|in|from) {moment}",
      "[at] the time {moment}", "at its pose at {moment}", "at (that|the) moment {moment}")  # fmt: skip
def _when(moment: T.Moment) -> T.Moment | None:
    return moment


@says("when", "now", "right now", "currently", "today", "presently", "just now", "from now", "by now")
def _when_now() -> T.Moment:
    return T.Now()


@says("when", "{quantity} ago", "{day} at {clock_moment}")
def _when_ago(quantity: Any, moment: T.Moment | None = None) -> T.Moment | None:
    return _day_at(quantity, moment) if moment is not None else _ago(quantity)


@says("clock_moment", "{moment}")
def _clock_moment(moment: T.Moment) -> T.Moment | None:
    return moment if isinstance(moment, T.ClockTime) else None


@says("shot", "(in|on|into|onto|within|at|for|to|through) [the|that|your] [camera 's|colour|color|rgb] IMAGE [TAKEN|which was TAKEN|that was TAKEN] [of|at|from|for|in|by [the camera] at] {moment}",
      "(in|on|into|to|for|within) [the] {moment} (IMAGE|view)", "(in|on|into) the IMAGE [of|from] the camera [at] {moment}", "(in|on|into) the CAMERA 's IMAGE [at|from|of] {moment}",
      "(in|on) the IMAGE the CAMERA took at {moment}", "(in|from|at) the view at {moment}")  # fmt: skip
def _shot(moment: T.Moment) -> T.Moment:
    return moment


@says("span", "between {moment} and {moment}", "from {moment} (to|until|till|up to|through) {moment}", "{moment} (to|until|-|and) {moment}", "[only] (counting|considering|looking at) [only] [from|between] {moment} (to|until|and) {moment}",
      "(during|in|over) the (time|period|interval|span) (from|between) {moment} (to|and|until) {moment}", "[of] {moment} {moment}", "during {moment} to {moment}")  # fmt: skip
def _span(begin: T.Moment, end: T.Moment) -> T.Span | None:
    return T.Span(begin=begin, end=end) if begin != end and not isinstance(begin, T.Now) else None


@says(
    "span",
    "[ever] since {moment}",
    "after {moment}",
    "since {moment} until now",
    "starting (from|at) {moment}",
    "[counting] from {moment} on",
    "from {moment} until now",
)
def _since(moment: T.Moment) -> T.Span | None:
    return T.Span(begin=moment, end=T.Now()) if moment != T.Now() else None


@says("span", "(until|till|up to|before|up until|prior to|by) {moment}", "from the START (until|to) {moment}")
def _until(moment: T.Moment) -> T.Span | None:
    return T.Span(begin=T.Start(), end=moment) if moment != T.Start() else None


@says(
    "span", "(in|during|over|within|for) the (last|past|previous) {quantity}", "(in|during|over|within|for) the {quantity} before now", "(in|during|over) the (last|past) {unit}"
)
def _last(quantity: Any) -> T.Span | None:
    value = quantity if isinstance(quantity, Quantity) else Quantity(1.0, quantity)
    return T.Span(begin=T.Ago(seconds=si(value)), end=T.Now()) if UNITS[value[1]].kind == TIME else None


@says("span", "(in|during|over|within) the first {quantity}", "(in|during|over) the first {unit}")
def _first(quantity: Any) -> T.Span | None:
    value, unit = quantity if isinstance(quantity, Quantity) else Quantity(1.0, quantity)
    return T.Span(begin=T.Start(), end=T.AfterStart(seconds=si(Quantity(value, unit)))) if UNITS[unit].kind == TIME else None


@says("span", "so far", "ever", "until now", "up to now", "till now", "yet", "to date", "by now", "since the START [of the RECORDING]",
      "(over|during|in|throughout|for) [the|this] [whole|entire|complete|full] RECORDING", "from START to end", "since [it|you|we|the camera|the robot] BEGAN", "since the [very] START", "from the START (to|until) (now|the end)")  # fmt: skip
def _ever() -> T.Span:
    return T.Span(begin=T.Start(), end=T.Now())


# ---- things


def near_wall() -> O.Operand:
    return O.NearestWall()


@says("thing", "{mark}")
def _thing_mark(mark: O.Operand) -> O.Operand:
    return mark


@says("mark", "{p}", "[DET] [marked|queried|clicked|given|specified|selected] POINT [at|of|marked|marked by|number|called|in|with] {p}", "[DET] [object|thing|item|surface|spot] [at|marked|marked by|under] {p}", "[DET] {label} (at|marked|marked by|marked with|marked as) {p}", "DET {labelled_p}",
      "[DET] POINT POINT [at] {p}", "what [is|lies] at {p}", "whatever is at {p}", "[DET] (point|spot|pixel|place) marked by {p}", "the one at {p}", "the (surface|ground|floor) [point] (at|of) {p}", "[DET] {label} [that is|which is] shown at {p}", "the real world point [at] {p}", "[DET] THING [that is|which is|lying|located|seen] at {p}")  # fmt: skip
def _mark_point(*values: Any) -> O.Operand | None:
    return values[-1]


@says("mark", "{box}", "[DET] box {box}", "[DET] [real|whole|actual|entire] THING ENCLOSED [DET] [box] {box}", "[DET] {label} ENCLOSED {box}", "DET {labelled_box}", "[DET] THING {box}", "[DET] THING [that|which] (is|lies) (in|inside|within) {box}",
      "what [is|lies] (in|inside|within) [the box] {box}", "whatever is (in|inside|within) {box}", "what [the box] {box} ENCLOSES", "[DET] {label} that {box} ENCLOSES", "[DET] THING [that|which] {box} ENCLOSES", "[DET] THING of [the|DET] [box] {box}", "[DET] contents of [the box] {box}", "the box 's (content|contents) {box}", "the one in {box}", "[DET] bounding box {box}", "[DET] {label} ENCLOSED the box {box}", "{box} 's (content|contents|object)", "whatever {box} ENCLOSES", "the box labelled {box}", "what is ENCLOSED {box}")  # fmt: skip
def _mark_box(*values: Any) -> O.Operand | None:
    return values[-1]


@says("thing", "[DET] CAMERA", "[DET] (robot|rover|drone) 's CAMERA", "[the CAMERA of] the CAMERA [of the robot]", "the CAMERA that (saw|took|sees|recorded) (it|them|the image|both)", "ME", "(my|your|our) CAMERA", "the CAMERA which (saw|took) it", "the CAMERA itself", "[the] robot camera", "it 's CAMERA")  # fmt: skip
def _camera() -> O.Operand:
    return O.Camera()


@says("thing", "[DET] ROBOT", "[DET] ROBOT itself", "the ROBOT base", "the base of the ROBOT", "[DET] ROBOT 's base")
def _robot() -> O.Operand:
    return O.Robot(at=T.Now())


@says("place", "{owner} [current|own|latest|present|initial] (position|location|pose|place|viewpoint|spot|standpoint)",
      "the [current|present] (position|location|pose|place|viewpoint|standpoint) of {owner}", "{owner}")  # fmt: skip
def _place(owner: O.Operand) -> O.Operand:
    return owner


@GRAMMAR.native("it_camera", ["it", "its"])
def _it_camera(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """It is the camera only where nothing is marked that it could be."""
    if not any(t.kind in ("p", "box") for t in chart.tokens):
        yield at + 1, True, 0


@says(
    "owner",
    "[DET] CAMERA [POSS]",
    "the ROBOT 's CAMERA POSS",
    "ME",
    "{it_camera}",
    "(my|your|our)",
)
def _owner(_: Any = None) -> O.Operand:
    return O.Camera()


says("owner", "[DET] ROBOT [POSS]", cost=1)(O.Camera)


@says("thing", "{place} (at|of|in|by|from|for) {moment}", "{place} {moment_mark}", "{owner} {moment_mark} (position|location|pose|place)", "where {owner} (was|is|had been|stood|stands|were|are|am) [at|in] {moment}", "the (place|position|pose|point|spot) where {owner} was [at] {moment}", "that at {moment}", "the (position|pose|location) at {moment}", "the (position|pose|location) of {moment}", "at {moment_mark}", "{owner} {moment_mark} (position|pose|location)", "the {moment_mark} (position|pose|location)", "the (position|location|pose) [that] {owner} had at {moment}", "what it was at {moment}", "where {owner} was {ago_moment}")  # fmt: skip
def _camera_at(*values: Any) -> O.Operand | None:
    return O.Camera(at=values[-1])


@says("ago_moment", "{quantity} ago")
def _ago_moment(quantity: Any) -> T.Moment | None:
    return _ago(quantity)


@says("moment_mark", "{t}")
def _moment_mark(moment: T.Moment) -> T.Moment:
    return moment


@says("thing", "where {owner} (is|are|am|stands|stand) [now|currently|right now|at the moment]", "HERE", "{owner} (present|current|latest|most recent) (position|location|pose|place|view)", "the (present|current|latest) (position|location|pose) of {owner}", "the (current|present|latest) (position|location|pose)",
      "{owner} (position|pose) (now|right now)", "(where we are|where i am|where you are)")  # fmt: skip
def _camera_now(_: Any = None) -> O.Operand:
    return O.Camera(at=T.Now())


@says("thing", "{owner} (first|initial|starting|start|original) (position|location|pose|place|point|spot)", "[DET] (starting|start|initial) (position|point|location|pose|place) [of {owner}]", "(where|the place where|the point where|the place|the spot where|from where|the position where|the location where) {owner} BEGAN [out|off] [from]",
      "{owner} START", "the (place|point) {owner} BEGAN [from]", "[the] START [of {owner} [path|trajectory|trip|journey|route]]", "where [the] RECORDING BEGAN", "the (place|point|spot|position) where [the] RECORDING BEGAN", "the origin of {owner} (path|trajectory|route|track)", "the START of the RECORDING", "{owner} origin", "{it_camera} START")  # fmt: skip
def _camera_start(*_: Any) -> O.Operand:
    return O.Camera(at=T.Start())


@says("thing", "[the] FLOOR", "the FLOOR (of|in) {room}")
def _floor(_: Any = None) -> O.Operand:
    return O.Floor()


@says(
    "thing",
    "[the|this] CEILING",
    "the room 's CEILING",
    "the CEILING (of|in) the SPACE",
    "the CEILING [above|overhead]",
    "{room} CEILING",
    "{room} 's CEILING",
    "the CEILING in here",
    "the CEILING here",
)
def _ceiling(*_: Any) -> O.Operand:
    return O.Ceiling()


@says("thing", "[the] (nearest|closest) wall", "the wall (nearest|closest) to it", "the nearest of the walls")
def _wall() -> O.Operand:
    return O.NearestWall()


@says("thing", "{room}")
def _thing_room(room: O.Operand) -> O.Operand:
    return room


GRAMMAR.table("roomname", {name: name for name in ROOMS})


@says(
    "room",
    "(the|this|our|my|your) [whole|entire|current] SPACE [that (we|i|you) are in|here|around us|around me]",
    "SPACE",
)
def _room() -> O.Operand:
    return O.Room()


@says("room", "[the|this|our|my|your] {roomname}", "the room named {roomname}")
def _named_room(name: str) -> O.Operand:
    return O.Room(name=name)


says("room", "the room named {name}")(lambda name: O.Room(name=name[0]) if not name[1] else None)


@says(
    "thing",
    "[the] origin [of the [fixed] [frame|world|map]]",
    "the (map|world|fixed frame) [frame] 's origin",
    "the (map|world) origin",
)
def _origin() -> O.Operand:
    return O.Origin()


@says("thing", "the origin of [the] [frame] {frame_name} [frame]")
def _origin_of(name: str) -> O.Operand:
    return O.Origin(frame_id=name)


@GRAMMAR.native("frame_name", [ANYTHING])
def _frame_name(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """A frame's name: joined by underscores or slashes in the text, so that it is one word."""
    tokens, end = chart.tokens, at + 1
    if at >= len(tokens) or tokens[at].kind != "word" or tokens[at].text in ("the", "a", "this", "image", "camera", "video"):
        return
    while end < len(tokens) and tokens[end].start == tokens[end - 1].end and tokens[end].text.replace("_", "x").isalnum():
        end += 1
    name = "".join(token.text for token in tokens[at:end])
    if name.isidentifier():
        yield end, name, 0


says("plain_frame", "{frame_name}")(lambda name: name if "_" in name or name in ("map", "odom", "world") else None)


@says(
    "thing",
    "[the] [position|point|place] {number} {number} [{number}] [m|metres|meters]",
    "x {number} y {number} [z {number}]",
    "[the] [position|point|place] {number} {number} {number} [m|metres|meters] (in|of) [the] [frame] {frame_name} [frame]",
)
def _position(x: float, y: float, z: float | None, frame: str = "") -> O.Operand:
    return O.Position(x=x, y=y, z=z or 0.0, frame_id=frame)


@says(
    "thing",
    "(it|this|that|this one|this point|that point|the point|the marked point|this box|the box|the marked object|this object|this thing)",
)
def _it() -> O.Operand:
    return IT


IT = O.Object(name="it", object_id="?")
"""The one mark of the request that "it" means; the reader puts it in."""

_PICKS = {"nearest": O.Pick.NEAREST, "closest": O.Pick.NEAREST, "farthest": O.Pick.FARTHEST, "furthest": O.Pick.FARTHEST, "most distant": O.Pick.FARTHEST,
          "largest": O.Pick.LARGEST, "biggest": O.Pick.LARGEST, "smallest": O.Pick.SMALLEST, "other": O.Pick.OTHER, "all": O.Pick.ALL, "any": O.Pick.ANY}  # fmt: skip
GRAMMAR.table("pick", _PICKS)
RELATIONS = {
    O.Where.LEFT_OF: "left of, to the left of, on the left of, on the left side of, to the left hand side of, on the left hand side of",
    O.Where.RIGHT_OF: "right of, to the right of, on the right of, on the right side of, on the right hand side of",
    O.Where.IN_FRONT_OF: "in front of, ahead of",
    O.Where.BEHIND: "behind, in back of, at the back of",
    O.Where.ABOVE: "above, over, directly above, right above",
    O.Where.BELOW: "below, under, beneath, underneath, directly below",
    O.Where.ON: "on, on top of, upon, atop, standing on, lying on",
    O.Where.INSIDE: "in, inside, within, inside of",
    O.Where.NEXT_TO: "next to, beside, by, adjacent to, alongside, right next to, directly next to, against, near, close to",
    O.Where.SAME_SURFACE: "on the same surface as, on the same plane as",
}
GRAMMAR.table("rel", {w: where for where, words in RELATIONS.items() for w in words.split(", ")})


@says("noun", "{name}")
def _noun(name: Noun) -> Noun:
    return name


@says("noun", "(object|thing|item)")
def _any_noun() -> Noun:
    return Noun("", False)


@says("noun", "(objects|things|items)")
def _any_nouns() -> Noun:
    return Noun("", True)


@says("object", "[the|my|your] {noun}")
def _object(noun: Noun) -> O.Operand | None:
    name, plural = noun
    return O.Object(name=name, pick=O.Pick.ALL if plural else O.Pick.THE_ONE) if name else None


@says("object", "(a|an|any|some) {noun}", "any of the {noun}")
def _some_object(noun: Noun) -> O.Operand | None:
    return O.Object(name=noun[0], pick=O.Pick.ANY) if noun[0] else None


@says(
    "object", "[the|all|any] {pick} [the] {noun} [to {thing}|from {thing}]", "the {noun} (nearest|closest) to {thing}"
)
def _picked(*values: Any) -> O.Operand | None:
    if isinstance(values[0], tuple):
        return O.Object(name=values[0][0], pick=O.Pick.NEAREST, to=values[1])
    pick, (name, plural), to = values
    if (plural and pick is not O.Pick.ALL) or (to is not None and pick not in (O.Pick.NEAREST, O.Pick.FARTHEST)):
        return None
    return O.Object(name=name, pick=pick, to=to) if name or pick is not O.Pick.OTHER else None


@says("thing", "{object}")
def _thing_object(thing: O.Object) -> O.Operand:
    return thing


@says(
    "thing",
    "{object} [that is|which is|standing|lying] {rel} {simple}",
    "{object} between {simple} and {simple}",
    cost=1,
)
def _qualified(thing: O.Object, where: Any, to: Any) -> O.Operand | None:
    if isinstance(where, O.Operand):
        return None
    if where in (O.Where.INSIDE, O.Where.SAME_SURFACE) and not isinstance(to, O.Object | O.Room):
        return None
    return dataclasses.replace(thing, where=where, to=to) if thing.to is None else None


@says("thing", "[DET] (object|thing|item) [that is|which is] {rel} {simple}")
def _thing_beside(where: O.Where, to: Any) -> O.Operand | None:
    return (
        O.Object(where=where, to=to)
        if where not in (O.Where.ON, O.Where.INSIDE, O.Where.SAME_SURFACE) or isinstance(to, O.Object)
        else None
    )


says("named_object", "(the|my|your|a|an|this|that|any|our) {noun}")(
    lambda noun: O.Object(name=noun[0]) if noun[0] and not noun[1] else None
)


@says("simple", "{mark}", "{named_object}", "{room}")
def _simple(thing: O.Operand) -> O.Operand:
    return thing


@says("simple", "[the] FLOOR")
def _simple_floor() -> O.Operand:
    return O.Floor()


@says("simple", "[the] CAMERA")
def _simple_camera() -> O.Operand:
    return O.Camera()


@says("simple", "[the] ROBOT")
def _simple_robot() -> O.Operand:
    return O.Robot(at=T.Now())


@says(
    "list",
    "[{how_many}] [DET] [{how_many}] [POINT|boxes|THING|of] {first_of} {more}* (and|or|and to|or to|and from|vs|versus|with|compared to) {each}",
    "[{how_many}] [DET] [{how_many}] [POINT|boxes|THING|of] {first_of} {more}* ({mark}|{after_pause})",
)
def _list(before: Any, count: Any, first: O.Operand, more: tuple[Any, ...], last: O.Operand) -> tuple[O.Operand, ...] | None:
    """Several things, as many as it says: "two of <p0>, <p1> and <p2>" is no list of three."""
    things = Things((first, *more, last))
    said = {before, count} - {None}
    return things if len(set(things)) == len(things) and said <= {len(things)} else None


GRAMMAR.table("how_many", {"both": 2, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6})


says("list", "{mark} to {mark}")(lambda a, b: Things((a, b)) if a != b else None)


@says("more", "(and|or) {each}", "{mark}", "{after_pause}")
def _more(thing: O.Operand) -> O.Operand:
    return thing


@GRAMMAR.native("after_pause", [ANYTHING])
def _after_pause(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """A further thing of a list after a comma: two nouns side by side are no list."""
    if 0 < at < len(chart.tokens) and chart.tokens[at - 1].kind == ",":
        yield from ((end, thing, cost) for end, (thing,), cost in chart.phrase("each", at))


says("first_of", "for {thing}", "[DET] [one|object|thing|point|spot|item] (at|in) {mark}")(lambda thing: thing)


@GRAMMAR.native("first_of", [ANYTHING])
def _first_of(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """The first of a list; "closer at <t0>, <p0> or <p1>" lists two things."""
    if at < len(chart.tokens) and chart.tokens[at].text != "at":
        yield from ((end, thing, cost) for end, (thing,), cost in chart.phrase("thing", at))


@says(
    "each",
    "{thing}",
    "for {thing}",
    "[DET] [one|object|thing|point|spot|item] (at|in) {mark}",
    "to {thing}",
    "with {thing}",
)
def _each(thing: O.Operand) -> O.Operand:
    return thing


# ---- what can be added


GRAMMAR.table("comparison", {
    w: c for c, words in {
        A.Comparison.MORE: "more than, over, exceeding, beyond, in excess of",
        A.Comparison.LESS: "less than, under",
        A.Comparison.AT_MOST: "at most, no more than, not more than, up to, within, not over, no further than, no farther than",
        A.Comparison.AT_LEAST: "at least, no less than, not less than, not under, no closer than, no nearer than",
        A.Comparison.ABOUT: "about, around",
    }.items() for w in words.split(", ")
})  # fmt: skip
GRAMMAR.table("m_comparison", {
    w: c for c, words in {
        A.Comparison.MORE: "greater than, larger than, bigger than, longer than, wider than, broader than, steeper than, taller than, deeper than, faster than, above, farther than, further than, higher than",
        A.Comparison.LESS: "smaller than, shorter than, narrower than, slower than, shallower than, below, lower than, nearer than, closer than, fewer than",
        A.Comparison.AT_MOST: "no greater than, not greater than, no larger than, not larger than, no longer than, not longer than",
        A.Comparison.AT_LEAST: "no smaller than, not smaller than, no shorter than",
    }.items() for w in words.split(", ")
})  # fmt: skip
FLIPPED = {A.Comparison.MORE: A.Comparison.LESS, A.Comparison.LESS: A.Comparison.MORE, A.Comparison.AT_MOST: A.Comparison.AT_LEAST, A.Comparison.AT_LEAST: A.Comparison.AT_MOST, A.Comparison.ABOUT: A.Comparison.ABOUT}  # fmt: skip


@says("bound", "{comparison} {quantity}", "{quantity}")
def _bound(*values: Any) -> tuple[Any, ...]:
    return Bound(values if len(values) == 2 else (A.Comparison.ABOUT, values[0]))


@says("bound", "{quantity} or (more|farther|further|longer|higher|above)", "{quantity} at least")
def _or_more(quantity: Any) -> tuple[Any, ...]:
    return Bound((A.Comparison.AT_LEAST, quantity))


@says("bound", "{quantity} or (less|nearer|closer|shorter|below|under)", "{quantity} at most")
def _or_less(quantity: Any) -> tuple[Any, ...]:
    return Bound((A.Comparison.AT_MOST, quantity))


@says("bound", "between {quantity} and {quantity}", "within {quantity} (to|and) {quantity}", "from {quantity} to {quantity}", "{quantity} to {quantity}")
def _within(low: Any, high: Any) -> tuple[Any, ...]:
    return Bound((low, high))


@says("bound", "between {amount_number} and {quantity}", "within {amount_number} (to|and) {quantity}", "{amount_number} to {quantity}")
def _within_short(low: float, high: Any) -> tuple[Any, ...]:
    return Bound((Quantity(low, high.unit), high))


def arg(role: str, *patterns: str, cost: int = 0) -> Any:
    """Decorator of what can be added to a question; its role is what the bag keeps it under."""

    def add(action: Any) -> Any:
        def tagged(*values: Any) -> Any:
            value = action(*values)
            return (
                None
                if value is None
                else Several(Arg(role, v) for v in value)
                if isinstance(value, Several)
                else Arg(role, value)
            )

        return says("arg", *patterns, cost=cost)(tagged)

    return add


def same(*values: Any) -> Any:
    """The last value."""
    return values[-1]


arg("from", "[AWAY|away|off|apart|over] (from|off) {thing}", "[measured|as measured|counted|starting|starting out|seen|as seen|viewed|as viewed] from {thing}", "from {thing} (on|over|away)", "(relative to|with respect to) {thing}", "(compared with|compared to) {camera_then}", "from {thing} 's (standpoint|point of view|position|perspective|viewpoint|pose|location)")(same)  # fmt: skip
says("camera_then", "{moment}")(lambda at: O.Camera(at=at))
arg("to", "[over|up|away|all the way] (to|until) {thing}", "to (reach|get to|touch|hit) {thing}", "with {thing}")(same)
arg(
    "of",
    "(of|for|at|in|on|by) {thing}",
    "of {list}",
    "that {thing} has",
    "under {thing}",
    "stored at {thing}",
    "for {list}",
    "POSS {thing}",
)(same)
arg(
    "between",
    "[in] between {list}",
    "from {each} (to|and) {each}",
    "(connecting|joining|separating) {list}",
    "(connecting|joining) {each} (to|with|and) {each}",
    "reaching from {each} to {each}",
)(lambda *v: v[0] if len(v) == 1 else tuple(v))
arg(
    "above",
    "[up|high|higher|located] (above|over) [the level of] {thing}",
    "(off|from|over) [the] {floor}",
    "up from {thing}",
    "(with respect to|relative to) the {floor}",
)(same)
arg("below", "[down] (below|beneath|under|underneath) {thing}", "down from {thing}")(same)
arg("shot", "{shot}")(same)
arg(
    "time",
    "{when}",
    "when {owner} was at its (pose|position|place) at {moment}",
    "when {owner} was at its {moment_mark} (pose|position|place)",
    "(if|when) (i|you) (am|are) at the {moment_mark} (position|pose) [facing forward]",
    "from the viewpoint at {moment}",
    "from where {owner} (is|was) at {moment}",
    "with the CAMERA (at its|where it was at|at) {moment} [pose]",
)(same)
arg("span", "{span}")(same)
arg("unit", "in {unit} please", "[stated|expressed|given|quoted|measured|answer|respond|reply|in terms of|and answer] in [unit|units of] {unit}", "in {unit_in}", "[the|a] (answer|number|value|result) in {unit}", "{bare_unit}", "[answer] with a number in {unit}", "in {unit} and {unit}", "to the nearest {unit}", "as a {unit}", "as {unit}")(lambda *v: v[0])  # fmt: skip
says("unit_in", "{symbol}")(lambda s: s if s != "in" else None)
says("bare_unit", "{unit}", cost=1)(same)
arg(
    "along",
    "(along|measured along|parallel to|measured parallel to) (the|its) (optical|viewing|camera|z|view|camera 's optical|camera 's viewing|camera 's z|camera 's) axis",
    "along (the|its) (camera|lens) axis",
    "in [the] (camera frame|camera 's frame|frame of the camera|camera coordinates)",
    "(from|to) the (image|camera) plane",
    "not ray length",
    "z not ray length",
    "in the image",
    "z",
    "into the image",
    "from the camera plane",
    "its distance along the optical axis",
)(lambda: True)
arg("metric", "horizontally", "(ignoring|disregarding|neglecting|regardless of|without|not counting|leaving out|excluding|irrespective of|without counting|not considering|setting aside|leaving aside) [the|their|any|its] (height|heights|height difference|height differences|vertical|elevation|difference in height|differences in height|vertical difference|vertical component|vertical distance|altitude)",
    "if we disregard their heights", "[from] [a] bird 's eye [view]", "projected (on|onto) the floor", "[when|as|if] [seen|viewed|looking|measured|looked at] from (above|the top|overhead|a bird 's eye view|top|straight above|directly above)", "[measured] (on|in|over|along|across|as seen on) [the|a] (floor|ground|floor plan|floorplan|map of the floor|horizontal plane|ground plane|floor plane|plan view|top view|top down view|bird 's eye view|2d map|plan|ground plan|xy plane|top down map)", "[measured] (on|over|along|across|as seen on) [the|a] map",
    "in a top (view|down view)", "on the level", "in (plan|the horizontal|the horizontal direction|2d|the plane|two dimensions)", "if you look straight down", "looking straight down", "(when|if) projected (on|onto|to|down to|down onto) the (floor|ground|floor plane|ground plane)", "bird 's eye", "a bird 's eye view", "looking down from above", "if you look down from above", "regardless of their heights", "projected onto the floor", "when both are projected onto the floor", "measured horizontally", "measured along the floor", "measured on the floor", "in the horizontal plane", "in a horizontal direction")(lambda: M.Metric.HORIZONTAL)  # fmt: skip
arg(
    "metric",
    "vertically",
    "in (height|the vertical|the vertical direction|elevation)",
    "measured vertically",
    "along the vertical",
)(lambda: M.Metric.VERTICAL)
arg("metric", "[measured] in a (straight line|beeline|bee line|direct line)", "as the crow flies", "(in|as|along|on) a straight line", "straight", "directly", "in a beeline", "in 3d", "in 3d space", "through the air", "straight through the air", "in space", "in three dimensions", "in three dimensional space", "line of sight", "straight line", "in direct line", "point to point", "in real life", "in reality", "in the real world", "net", "measured straight")(lambda: M.Metric.STRAIGHT)  # fmt: skip
arg("ends", "(at|between|measured at|measuring from|measured from|from|measured between|taking) [the|their] (nearest|closest) point[s] [of each object|of each|of both|to each other|of the objects]".replace("[s]", ""), "(at|between|measured at|measuring from|measured from|from|measured between) [the|their] (nearest|closest) (points|edges|parts) [of each object|of each|of both|of the objects]", "edge to edge", "at the nearest point", "at their closest", "surface to surface")(lambda: M.Ends.NEAREST)  # fmt: skip
arg("ends", "(between|measured between|from|measured from) [the|their] (centers|centres) [of each object|of each|of both]", "(center to center|centre to centre)", "measured (center to center|centre to centre)", "from center to center", "from centre to centre")(lambda: M.Ends.CENTERS)  # fmt: skip
arg(
    "frame",
    "in [the] [coordinates of] [frame] {frame_name} (frame|coordinates|coordinate system)",
    "in {plain_frame}",
    "in [the] frame {frame_name}",
    "in the coordinates of [the] {frame_name}",
    "in the coordinate (system|frame) of [the] {frame_name}",
)(same)
says("arg", "from the (center|centre|middle) of {thing} to the (center|centre|middle) of {thing}", "[between] the (centers|centres|middles|midpoints) of {thing} and {thing}", "between the (center|centre|middle) of {thing} and the (center|centre|middle) of {thing}")(
    lambda a, b: (Arg("between", (a, b)), Arg("ends", M.Ends.CENTERS)) if a != b else None
)
says("arg", "from the (center|centre|middle) of {thing}")(lambda a: (Arg("from", a), Arg("middle", a)))
says("arg", "to the (center|centre|middle) of {thing}")(lambda a: (Arg("to", a), Arg("middle", a)))
arg("total", "in (total|all|sum)", "altogether", "all told", "overall", "along (its|the|the whole|my|your|our|this) PATH", "measured along (its|the) PATH", "all in all", "along the way", "counting every (step|metre|meter|detour)", "summing up every step", "with all (detours|turns|bends)", "not the straight line", "not as the crow flies", "not in a straight line", "cumulatively", "following every bend", "including (all|every) (detours|detour|loops)")(lambda: True)  # fmt: skip
says("floor", "FLOOR", "FLOOR (surface|level)")(O.Floor)
GRAMMAR.table("adj", ADJECTIVES)
GRAMMAR.table("more_adj", COMPARATIVES)
GRAMMAR.table("most_adj", SUPERLATIVES)
GRAMMAR.table("scale_noun", NOUNS)
DIMENSIONLESS = {LENGTH, AREA, VOLUME}


def speakable(name: str) -> bool:
    """Whether a name is read as one: up to four lower-case words that are nothing else, in the singular."""
    words = name.split(" ")
    if (
        not 0 < len(words) <= LONGEST_NAME
        or singular(words[-1]) != words[-1]
        or words[-1].endswith("ly")
        or len(words[-1]) < 2
    ):
        return False
    return all(
        w.isalpha() and w.isascii() and w == w.lower() and (w not in GRAMMAR.words or w in NAMEABLE) for w in words
    )
