"""A query in words and back: one plain English sentence for each, by templates that say it and read it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from spatial_mllm_ros.language.chart import Chart
from spatial_mllm_ros.language.phrases import GRAMMAR, ROOMS
from spatial_mllm_ros.language.sentences import FRAMED, settled, unit_fits
from spatial_mllm_ros.language.templates import Unspeakable, no_words, one_of, own_wording, say, wording
from spatial_mllm_ros.language.tokens import MAX_CHARACTERS, Token, tokens_of
from spatial_mllm_ros.queries import asks as a
from spatial_mllm_ros.queries import measures as m
from spatial_mllm_ros.queries import moments as t
from spatial_mllm_ros.queries import operands as o
from spatial_mllm_ros.queries.query import Query


def words(query: Query) -> str:
    """One canonical English sentence for a query; ``read`` gives the query back. Raises Unspeakable."""
    if settled(query.ask) != query.ask:
        raise no_words("the camera of a marked image where nothing is marked")
    if query.frame_id and not isinstance(query.ask, FRAMED):
        raise no_words("a frame of what is no place")
    if query.unit and not unit_fits(query, query.unit):
        raise no_words("a unit of what has none")
    sentence = say(query)
    if len(sentence) >= MAX_CHARACTERS:
        raise no_words("so much at once")
    return f"{sentence[0].upper()}{sentence[1:]}?"


def measure_words(measure: m.Measure) -> str:
    """A measure as a noun phrase: "the distance between <p0> and <p1>". Raises Unspeakable."""
    return say(measure)


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


# ---- moments


def _stamp(x: t.Stamp) -> str:
    if x.stamp_ns < 0:
        raise no_words("a stamp below zero")
    return f"stamp {x.stamp_ns // 10**9}.{x.stamp_ns % 10**9:09}"


@GRAMMAR.native("said_seconds", ["@number"])
def _seconds(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """Seconds as integer nanoseconds: a float would lose some."""
    yield at + 1, int(Decimal(chart.tokens[at].text.replace(",", ".")) * 10**9), 0


def _days(x: t.ClockTime) -> str:
    return f", {x.days_ago} days ago" if x.days_ago else ""


def _clock(seconds: int, days: float | None) -> t.ClockTime:
    return t.ClockTime(hour=seconds // 3600, minute=seconds // 60 % 60, second=seconds % 60, days_ago=int(days or 0))


own_wording(t.MarkedMoment, lambda x: f"<t{x.index}>", "{t}", lambda x: x)
own_wording(
    t.MarkMoment,
    lambda x: f"the moment of <{'p' if x.mark == 'points' else 'box'}{x.index}>",
    "the moment of ({p}|{box})",
    lambda x: t.MarkMoment(mark="points" if isinstance(x, o.Point) else "boxes", index=x.index),
)
wording(t.Now, "now")
wording(t.Start, "the start")
own_wording(t.Stamp, _stamp, "stamp {said_seconds}", lambda ns: t.Stamp(stamp_ns=ns))
wording(t.Ago, "{seconds} s ago")
wording(t.AfterStart, "{seconds} s after the start")
own_wording(t.ClockTime, lambda x: f"{x.hour}:{x.minute:02}:{x.second:02}{_days(x)}", "{clock} [{number} days ago]", _clock)
one_of(t.Moment)
wording(t.Span, "from {begin} to {end}", fits=lambda x: x.begin != x.end and not isinstance(x.begin, t.Now))

# ---- things

own_wording(o.Point, lambda x: f"<p{x.index}>", "{p}", lambda x: x)
own_wording(o.Box, lambda x: f"<box{x.index}>", "{box}", lambda x: x)
wording(o.Camera, "the camera")
wording(o.Camera, "the camera now", at=t.Now())
wording(o.Camera, "the camera at {at}")
wording(o.Robot, "the robot now", at=t.Now())
wording(o.Robot, "the robot base at {at}")
wording(o.Origin, "the origin[ of frame {frame_id|frame}]")
wording(o.Position, "the position ({x}, {y}, {z})[ of frame {frame_id|frame}]")
wording(o.Floor, "the floor")
wording(o.Ceiling, "the ceiling")
wording(o.NearestWall, "the nearest wall")
wording(o.Room, "the room")
wording(o.Room, "the {name|room}", fits=lambda x: x.name in ROOMS)
wording(o.Room, "the room named {name|name}", fits=lambda x: x.name not in ("", *ROOMS))

_PICKED = {
    o.Pick.THE_ONE: "the", o.Pick.ANY: "any", o.Pick.ALL: "all of the", o.Pick.NEAREST: "the nearest", o.Pick.FARTHEST: "the farthest",
    o.Pick.LARGEST: "the largest", o.Pick.SMALLEST: "the smallest", o.Pick.OTHER: "the other",
}  # fmt: skip


def _is_named(x: o.Object) -> bool:
    return bool(x.name) and not (x.name == "wall" and x.pick is o.Pick.NEAREST and x.to is None)


for _pick, _before in _PICKED.items():
    for _noun, _fixed, _fits in (("object", {"name": ""}, lambda x: not x.name), ("{name|name}", {}, _is_named)):
        wording(o.Object, f"{_before} {_noun}", pick=_pick, fits=_fits, **_fixed)
        wording(o.Object, f"{_before} {_noun} that is {{where|lies}} {{to}}", pick=_pick, fits=_fits, **_fixed)
        if _pick in (o.Pick.NEAREST, o.Pick.FARTHEST):
            wording(o.Object, f"the {_noun} {_pick.value} to {{to}}", pick=_pick, fits=_fits, **_fixed)
wording(o.Object, "the object with id {object_id|id}", "the {name|name} with id {object_id|id}", fits=lambda x: bool(x.object_id))
one_of(o.Operand)

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
        wording(m.Distance, _between, metric=_metric, fits=_fits)
        wording(m.Distance, f"{_between} between their centers", metric=_metric, ends=m.Ends.CENTERS, fits=_fits)
_no_room = lambda x: not isinstance(x.of, o.Room)  # noqa: E731  the depth of a room is no optical one
wording(m.Depth, "the depth of {of}", fits=_no_room)
wording(m.Depth, "the depth of {of} in the latest image", at=t.Now(), fits=_no_room)
wording(m.Depth, "the depth of {of} in the image at {at}", fits=_no_room)
wording(m.Height, "the height of {of} above {above}")
wording(m.Angle, "the angle at {vertex} between {a} and {b}")
wording(m.Bearing, "the horizontal angle of {of} from {viewer}[ facing {facing}]")
wording(m.Extent, "the {dimension} of {of}", fits=_extended)
wording(m.Slope, "the slope of the surface at {at}")
wording(m.PathLength, "the length of the camera's path[ {span}]")
wording(m.Turn, "the angle that the camera turned[ {span}]")
wording(m.Turn, "the angle that the camera turned to the left[ {span}]", about_up=True)
for _axis, _way in ((m.Axis.FORWARD, "forward"), (m.Axis.LEFT, "leftward"), (m.Axis.UP, "upward")):
    wording(m.Shift, f"the {_way} movement of the camera[ {{span}}]", axis=_axis)
wording(m.Heading, "the heading of the camera now", "the heading of the camera at {at}")
wording(m.Speed, "the speed of the camera now", "the speed of the camera at {at}")
wording(m.MeanSpeed, "the mean speed of the camera[ {span}]")
wording(m.TimeSpent, "the time that the camera moved[ {span}]", moving=True)
wording(m.TimeSpent, "the time that the camera stood still[ {span}]", moving=False)
wording(m.ClosestApproach, "the closest approach of the camera to {to}[ {span}]")
wording(m.Elapsed, "the time {span}")
wording(m.SeenTime, "the time when {of} was {event} seen")
wording(m.SeenTime, "the time since {of} was {event} seen", ago=True)
wording(m.SeenDistance, "the least distance that {of} was seen from[ {span}]")
wording(m.Count, "the number of {what}")
wording(m.ObjectCount, "the number of objects that are {of}")
wording(m.SeenCount, "the number of images that show {of}[ {span}]")
wording(m.UnseenFraction, "the unseen fraction of the space")
wording(m.Clearance, "the clearance around {of}")
wording(m.Clearance, "the clearance ahead of {of}", ahead=True)
wording(m.RouteLength, "the length of the route from {start} to {goal}[ for a robot of radius {radius_m} m]")
wording(m.PassageWidth, "the width of the passage of {of}", "the width of the passage from {of} to {goal}")
one_of(m.Measure)

# ---- what is asked

wording(a.Viewpoint, "standing at {at}[ and facing {facing}]")
wording(a.Value, "what is {of}")
wording(a.Mean, "what is the mean of {of}")
wording(a.Difference, "by how much is {a} more than {b}")
wording(a.Difference, "how many times {b} is {a}", ratio=True)
wording(a.Dimensions, "what are the dimensions of {of}", fits=_extended)
wording(a.Threshold, "is {of} {comparison} {value:of}")
wording(a.Within, "is {of} between {low:of} and {high:of}")
for _offset in ("", " plus {+offset:a}", " minus {-offset:a}"):
    wording(a.Compare, f"is {{a}} {{comparison}}[ {{factor}} times] {{b}}{_offset}")
wording(a.Relation, "is {a} {where|lies} {b}[, {viewpoint}]", "is {a} {where|mine}[, {viewpoint}]")
wording(a.Relation, "is {a} between {b} and {also}[, {viewpoint}]", where=o.Where.BETWEEN)
wording(a.Visible, "is {of} visible now", "is {of} visible at {at}")
wording(a.Seen, "was {of} seen at any time[ {span}]")
wording(a.Moving, "is the camera moving now", "is the camera moving at {at}")
wording(a.Visited, "has the robot been in {room}[ {span}]")
wording(a.Changed, "did {of} change[ {span}]")
wording(a.Exists, "does {of} exist")
wording(a.Reachable, "is {goal} reachable[ from {start}][ for a robot of radius {radius_m} m]")
wording(a.LineOfSight, "is there a free line of sight between {a} and {b}")
wording(a.Open, "is {of} open")
wording(a.Locate, "where is {of}")
wording(a.Pixel, "at which pixel is {of} in the image at {at}")
wording(a.Direction, "in which direction is {of}[, {viewpoint}]")
wording(a.MotionDirection, "in which direction did the camera move[ {span}]")
wording(a.SurfaceNormal, "what is the normal of the surface at {at}")
wording(a.Unseen, "where is the unseen space")
wording(a.Route, "what is the route[ from {start}] to {goal}[ for a robot of radius {radius_m} m]")
wording(a.Extreme, "which is the[ {rank|rank}] {which} of {of}")
wording(a.Extreme, "what is the[ {rank|rank}] {which} of {of}", as_value=True)
wording(a.Order, "what is the order of {of} from small to large")
wording(a.Order, "what is the order of {of} from large to small", descending=True)
wording(a.Side, "is {a} {options|lies_or} {b}[, {viewpoint}]", "is {a} {options|mine_or}[, {viewpoint}]")
wording(a.Occupied, "is {of} free, occupied or unknown", "is {of} {state}")
wording(a.Find, "which objects are {of}")
wording(a.RoomOf, "which room is {of} in")
wording(a.RoomOf, "which room are most of {of} in", most=True)
wording(a.AppearanceOrder, "in which order did {of} appear")
wording(a.Property, "what {name|property} is {of}")
_SIDES = ("{length_m} m long", "{width_m} m wide", "{height_m} m high")
for _what in ("the robot", "{thing}", "an area of {area_m2} m2", *("a box " + " and ".join(sides) for n in (1, 2, 3) for sides in itertools.combinations(_SIDES, n))):  # fmt: skip
    wording(a.FreePlace, f"where is a free place for {_what}[ {{where|lies}} {{at}}]")
    if "area" not in _what:
        wording(a.Fits, f"does {_what} fit at {{place}}")
one_of(a.Ask)
for _no_first, _negated in (("", False), ("is the answer no: ", True)):
    wording(Query, f"{_no_first}{{ask}}[, in frame {{frame_id|frame}}][, in {{unit|unit}}][, with only the images {{window}}]", negated=_negated)  # fmt: skip
