"""A query in words: one plain English sentence, which the reader reads as that query again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spatial_mllm_ros.language.phrases import GRAMMAR, ROOMS, speakable
from spatial_mllm_ros.language.sentences import FRAMED, settled, unit_fits
from spatial_mllm_ros.queries import asks as a
from spatial_mllm_ros.queries import measures as m
from spatial_mllm_ros.queries import moments as t
from spatial_mllm_ros.queries import operands as o
from spatial_mllm_ros.queries.query import Query
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
    parts = [_say(query.ask)]
    if query.window is not None:
        raise _no("a window of its own; a span of what is asked has words")
    if query.frame_id:
        parts.append(f"in frame {_frame(query.frame_id)}")
    if query.unit:
        parts.append(f"in {_unit(query.unit)}")
    sentence = ", ".join(parts)
    return f"Is the answer no: {sentence[0].lower()}{sentence[1:]}?" if query.negated else f"{sentence}?"


def measure_words(measure: m.Measure) -> str:
    """A measure as a noun phrase: "the distance between <p0> and <p1>". Raises Unspeakable."""
    return _say(measure)


_SPOKEN: dict[type, Callable[[Any], str]] = {}


def _spoken(cls: type) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    def add(say: Callable[[Any], str]) -> Callable[[Any], str]:
        _SPOKEN[cls] = say
        return say

    return add


def _say(term: Any) -> str:
    say = _SPOKEN.get(type(term))
    if say is None:
        raise Unspeakable(f"there are no words for {type(term).__name__}")
    return say(term)


def _no(what: str) -> Unspeakable:
    return Unspeakable(f"there are no plain words for {what}")


# ---- numbers, names, moments


def number(value: float) -> str:
    """A number as the reader reads it back."""
    text = f"{value:.12f}".rstrip("0").rstrip(".") or "0"
    if float(text) != value or len(text) > 15:
        raise _no(f"the number {value!r}")
    return text


def _unit(key: str) -> str:
    if not UNITS[key].words:
        raise _no(f"the unit {key!r}")
    return {
        "in": "inches",
        "ft": "feet",
        "ft2": "square feet",
        "ft3": "cubic feet",
        "m2": "square metres",
        "m3": "cubic metres",
        "cm2": "square centimetres",
    }.get(key, max(UNITS[key].words[:4], key=len))


def _frame(name: str) -> str:
    if not (name.isidentifier() and name.isascii() and name == name.lower()) or (name in GRAMMAR.words and name not in FRAMES):
        raise _no(f"the frame {name!r}")
    return name


FRAMES = ("map", "odom", "world")
"""Names of frames that are words of questions as well."""

_MOMENTS: dict[type, Callable[[Any], str]] = {
    t.MarkedMoment: lambda x: f"<t{x.index}>",
    t.MarkMoment: lambda x: f"the moment of <{'p' if x.mark == 'points' else 'box'}{x.index}>",
    t.Now: lambda x: "now",
    t.Start: lambda x: "the start",
    t.Stamp: lambda x: f"stamp {x.stamp_ns} ns",
    t.Ago: lambda x: f"{number(x.seconds)} s ago",
    t.AfterStart: lambda x: f"{number(x.seconds)} s after the start",
    t.ClockTime: lambda x: f"{x.hour}:{x.minute:02}:{x.second:02}" + (f", {x.days_ago} days ago" if x.days_ago else ""),
}


def _moment(x: t.Moment) -> str:
    if isinstance(x, t.Stamp) and x.stamp_ns < 0:
        raise _no("a stamp below zero")
    return _MOMENTS[type(x)](x)


def _when(x: t.Moment) -> str:
    return " now" if isinstance(x, t.Now) else f" at {_moment(x)}"


def _span(x: t.Span) -> str:
    if x.begin == x.end or isinstance(x.begin, t.Now):
        raise _no("a span that is empty")
    return f"from {_moment(x.begin)} to {_moment(x.end)}"


def _within(x: t.Span) -> str:
    return "" if x == t.WHOLE else " " + _span(x)


def _quantity(value: float, unit: str) -> str:
    if not unit or unit == "count":
        return number(value)
    return f"{number(value)} {'degrees' if unit == 'deg' else unit}"


# ---- things


def _name(name: str) -> str:
    if not speakable(name):
        raise _no(f"the name {name!r}")
    return name


_SPOKEN |= {
    o.Point: lambda x: f"<p{x.index}>",
    o.Box: lambda x: f"<box{x.index}>",
    o.Camera: lambda x: "the camera" if x.at is None else f"the camera{_when(x.at)}",
    o.Robot: lambda x: f"the robot{_when(x.at)}",
    o.Origin: lambda x: f"the origin of frame {_frame(x.frame_id)}" if x.frame_id else "the origin",
    o.Position: lambda x: (
        f"the position ({number(x.x)}; {number(x.y)}; {number(x.z)})".replace(";", ",")
        + (f" of frame {_frame(x.frame_id)}" if x.frame_id else "")
    ),
    o.Floor: lambda x: "the floor",
    o.Ceiling: lambda x: "the ceiling",
    o.NearestWall: lambda x: "the nearest wall",
    o.Room: lambda x: (
        "the room" if not x.name else f"the {x.name}" if x.name in ROOMS else f"the room named {_name(x.name)}"
    ),
}

_PICKED = {
    o.Pick.THE_ONE: "the {}", o.Pick.ANY: "any {}", o.Pick.ALL: "all of the {}", o.Pick.NEAREST: "the nearest {}", o.Pick.FARTHEST: "the farthest {}",
    o.Pick.LARGEST: "the largest {}", o.Pick.SMALLEST: "the smallest {}", o.Pick.OTHER: "the other {}",
}  # fmt: skip
_LIES = {
    o.Where.LEFT_OF: "left of", o.Where.RIGHT_OF: "right of", o.Where.IN_FRONT_OF: "in front of", o.Where.BEHIND: "behind", o.Where.ABOVE: "above",
    o.Where.BELOW: "below", o.Where.ON: "on", o.Where.INSIDE: "inside", o.Where.NEXT_TO: "next to", o.Where.SAME_SURFACE: "on the same surface as",
}  # fmt: skip


@_spoken(o.Object)
def _object(x: o.Object) -> str:
    if x.object_id:
        raise _no("an object's id")
    text = _PICKED[x.pick].format(_name(x.name) if x.name else "object")
    if x.where is o.Where.BETWEEN or x.where is o.Where.SAME_SURFACE:
        raise _no("an object between others")
    if x.to is None:
        return text
    if x.where is None and x.pick not in (o.Pick.NEAREST, o.Pick.FARTHEST):
        raise _no("an object and another thing without a relation")
    if not isinstance(x.to, o.Point | o.Box | o.Object | o.Room | o.Floor | o.Camera | o.Robot):
        raise _no("an object that lies to this")
    return f"{text} {'to' if x.where is None else 'that is ' + _LIES[x.where]} {_say(x.to)}"


# ---- measures

_DIMENSION = {d: d.value.replace("_", " ") for d in m.Dimension}
_COUNTED = {c: c.value for c in m.Countable}
_AXES = {m.Axis.FORWARD: "forward", m.Axis.LEFT: "leftward", m.Axis.UP: "upward"}


def _extended(x: o.Operand) -> str:
    if not isinstance(x, o.Box | o.Object | o.Room):
        raise _no(f"the size of {_say(x)}")
    return _say(x)


@_spoken(m.Distance)
def _distance(x: m.Distance) -> str:
    metric = "" if x.metric is m.Metric.STRAIGHT else x.metric.value + " "
    ends = "" if x.ends is m.Ends.NEAREST else " between their centers"
    return f"the {metric}distance between {_say(x.a)} and {_say(x.b)}{ends}"


def _radius(x: Any) -> str:
    return f" for a robot of radius {number(x.radius_m)} m" if x.radius_m else ""


_SPOKEN |= {
    m.Depth: lambda x: f"the depth of {_say(x.of)}" + (_when(x.at) if x.at is not None else ""),
    m.Height: lambda x: f"the height of {_say(x.of)} above {_say(x.above)}",
    m.Angle: lambda x: f"the angle at {_say(x.vertex)} between {_say(x.a)} and {_say(x.b)}",
    m.Bearing: lambda x: (
        f"the horizontal angle of {_say(x.of)} from {_say(x.viewer)}"
        + (f" facing {_say(x.facing)}" if x.facing else "")
    ),
    m.Extent: lambda x: f"the {_DIMENSION[x.dimension]} of {_extended(x.of)}",
    m.Slope: lambda x: f"the slope of the surface at {_say(x.at)}",
    m.PathLength: lambda x: "the length of the camera's path" + _within(x.span),
    m.Turn: lambda x: f"the angle that the camera turned{' to the left' if x.about_up else ''}" + _within(x.span),
    m.Shift: lambda x: f"the {_AXES[x.axis]} movement of the camera" + _within(x.span),
    m.Heading: lambda x: f"the heading of the camera{_when(x.at)}",
    m.Speed: lambda x: f"the speed of the camera{_when(x.at)}",
    m.MeanSpeed: lambda x: "the mean speed of the camera" + _within(x.span),
    m.TimeSpent: lambda x: f"the time that the camera {'moved' if x.moving else 'stood still'}" + _within(x.span),
    m.ClosestApproach: lambda x: f"the closest approach of the camera to {_say(x.to)}" + _within(x.span),
    m.Elapsed: lambda x: f"the time {_span(x.span)}",
    m.SeenTime: lambda x: f"the time {'since' if x.ago else 'when'} {_say(x.of)} was {x.event.value} seen",
    m.SeenDistance: lambda x: f"the least distance that {_say(x.of)} was seen from" + _within(x.span),
    m.Count: lambda x: f"the number of {_COUNTED[x.what]}",
    m.ObjectCount: lambda x: f"the number of objects that are {_say(x.of)}",
    m.SeenCount: lambda x: f"the number of images that show {_say(x.of)}" + _within(x.span),
    m.UnseenFraction: lambda x: "the unseen fraction of the space",
    m.Clearance: lambda x: f"the clearance {'ahead of' if x.ahead else 'around'} {_say(x.of)}",
    m.RouteLength: lambda x: f"the length of the route from {_say(x.start)} to {_say(x.goal)}{_radius(x)}",
    m.PassageWidth: lambda x: (
        f"the width of the passage {f'from {_say(x.of)} to {_say(x.goal)}' if x.goal else f'of {_say(x.of)}'}"
    ),
}


# ---- what is asked

_COMPARED = {
    a.Comparison.LESS: "less than", a.Comparison.MORE: "more than", a.Comparison.AT_MOST: "at most", a.Comparison.AT_LEAST: "at least",
    a.Comparison.ABOUT: "about",
}  # fmt: skip
_RANKS = {1: "", 2: "second ", 3: "third ", 4: "fourth ", 5: "fifth ", 6: "sixth "}


def _list(of: tuple[Any, ...]) -> str:
    said = [_say(x) for x in of]
    return f"{', '.join(said[:-1])} and {said[-1]}"


@_spoken(a.Compare)
def _compare(x: a.Compare) -> str:
    factor = "" if x.factor == 1 else f"{number(x.factor)} times "
    offset = (
        "" if x.offset == 0 else f" {'plus' if x.offset > 0 else 'minus'} {_quantity(abs(x.offset), m.unit_of(x.a))}"
    )
    return f"Is {_say(x.a)} {_COMPARED[x.comparison]} {factor}{_say(x.b)}{offset}"


def _viewed(x: a.Viewpoint) -> str:
    if x == a.Viewpoint():
        return ""
    return f", standing at {_say(x.at)}" + (f" and facing {_say(x.facing)}" if x.facing else "")


@_spoken(a.Relation)
def _relation(x: a.Relation) -> str:
    if x.where is o.Where.BETWEEN and x.b is not None:
        return f"Is {_say(x.a)} between {_say(x.b)} and {_say(x.also)}{_viewed(x.viewpoint)}"
    if x.where is o.Where.BETWEEN or (x.b is None and x.where not in _MINE):
        raise _no("a relation to nothing")
    return f"Is {_say(x.a)} {_MINE[x.where] if x.b is None else _LIES[x.where] + ' ' + _say(x.b)}{_viewed(x.viewpoint)}"


_MINE = {
    o.Where.LEFT_OF: "on the left",
    o.Where.RIGHT_OF: "on the right",
    o.Where.IN_FRONT_OF: "in front",
    o.Where.BEHIND: "behind",
}


@_spoken(a.Side)
def _side(x: a.Side) -> str:
    options = [_MINE.get(w) for w in x.options] if x.b is None else [_LIES.get(w) for w in x.options]
    if None in options:
        raise _no("these sides")
    said = " or ".join(str(w) for w in options)
    return f"Is {_say(x.a)} {said}{'' if x.b is None else ' ' + _say(x.b)}{_viewed(x.viewpoint)}"


def _sides(x: Any) -> str:
    given = [f"{number(v)} m {w}" for v, w in ((x.length_m, "long"), (x.width_m, "wide"), (x.height_m, "high")) if v]
    if x.thing is not None and given:
        raise _no("a thing and sides at once")
    return f"a box {' and '.join(given)}" if given else _say(x.thing) if x.thing is not None else "the robot"


@_spoken(a.FreePlace)
def _free(x: a.FreePlace) -> str:
    if (x.where is None) != (x.at is None) or (x.where is not None and x.where not in _LIES):
        raise _no("this free place")
    what = _sides(x)
    if x.area_m2:
        if what != "the robot":
            raise _no("a thing and an area at once")
        what = f"an area of {number(x.area_m2)} m2"
    return f"Where is a free place for {what}" + (f" {_LIES[x.where]} {_say(x.at)}" if x.at and x.where else "")


_SPOKEN |= {
    a.Value: lambda x: f"What is {_say(x.of)}",
    a.Mean: lambda x: f"What is the mean of {_list(x.of)}",
    a.Difference: lambda x: (
        f"How many times {_say(x.b)} is {_say(x.a)}" if x.ratio else f"By how much is {_say(x.a)} more than {_say(x.b)}"
    ),
    a.Dimensions: lambda x: f"What are the dimensions of {_extended(x.of)}",
    a.Threshold: lambda x: f"Is {_say(x.of)} {_COMPARED[x.comparison]} {_quantity(x.value, m.unit_of(x.of))}",
    a.Within: lambda x: (
        f"Is {_say(x.of)} between {_quantity(x.low, m.unit_of(x.of))} and {_quantity(x.high, m.unit_of(x.of))}"
    ),
    a.Visible: lambda x: f"Is {_say(x.of)} visible{_when(x.at)}",
    a.Seen: lambda x: f"Was {_say(x.of)} seen at any time" + _within(x.span),
    a.Moving: lambda x: f"Is the camera moving{_when(x.at)}",
    a.Visited: lambda x: f"Has the robot been in {_say(x.room)}" + _within(x.span),
    a.Changed: lambda x: f"Did {_say(x.of)} change" + _within(x.span),
    a.Exists: lambda x: f"Does {_say(x.of)} exist",
    a.Reachable: lambda x: f"Is {_say(x.goal)} reachable" + (f" from {_say(x.start)}" if x.start else "") + _radius(x),
    a.LineOfSight: lambda x: f"Is there a free line of sight between {_say(x.a)} and {_say(x.b)}",
    a.Fits: lambda x: f"Does {_sides(x)} fit at {_say(x.place)}",
    a.Open: lambda x: f"Is {_say(x.of)} open",
    a.Locate: lambda x: f"Where is {_say(x.of)}",
    a.Pixel: lambda x: f"At which pixel is {_say(x.of)} in the image at {_moment(x.at)}",
    a.Direction: lambda x: f"In which direction is {_say(x.of)}{_viewed(x.viewpoint)}",
    a.MotionDirection: lambda x: "In which direction did the camera move" + _within(x.span),
    a.SurfaceNormal: lambda x: f"What is the normal of the surface at {_say(x.at)}",
    a.Unseen: lambda x: "Where is the unseen space",
    a.Route: lambda x: f"What is the route{f' from {_say(x.start)}' if x.start else ''} to {_say(x.goal)}{_radius(x)}",
    a.Extreme: lambda x: f"{'What' if x.as_value else 'Which'} is the {_rank(x.rank)}{x.which.value} of {_list(x.of)}",
    a.Order: lambda x: (
        f"What is the order of {_list(x.of)} from {'large to small' if x.descending else 'small to large'}"
    ),
    a.Occupied: lambda x: f"Is {_say(x.of)} {'free, occupied or unknown' if x.state is None else x.state.value}",
    a.Find: lambda x: f"Which objects are {_say(x.of)}",
    a.RoomOf: lambda x: f"Which room {'are most of' if x.most else 'is'} {_say(x.of)} in",
    a.AppearanceOrder: lambda x: f"In which order did {_list(x.of)} appear",
    a.Property: lambda x: f"What {_property(x.name)} is {_say(x.of)}",
}


def _rank(rank: int) -> str:
    if rank not in _RANKS:
        raise _no(f"rank {rank}")
    return _RANKS[rank]


PROPERTIES = ("color", "material", "shape", "temperature", "brand", "state", "weight", "age", "price")


def _property(name: str) -> str:
    if name not in PROPERTIES:
        raise _no(f"the property {name!r}")
    return name
