"""Queries to words and back: whatever is said is read as what was meant, and what people ask can be said."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from test_queries import terms_of

from spatial_mllm_ros.language.canonical import Unspeakable, words
from spatial_mllm_ros.language.reader import read
from spatial_mllm_ros.language.sentences import settled
from spatial_mllm_ros.queries import asks as a
from spatial_mllm_ros.queries import measures as m
from spatial_mllm_ros.queries import moments as t
from spatial_mllm_ros.queries import operands as o
from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.queries.query import Query, answer_type
from spatial_mllm_ros.queries.serialization import concrete
from spatial_mllm_ros.queries.term import InvalidQuery, Term

P0, P1, P2 = (o.Point(index=i) for i in range(3))
B0, B1 = (o.Box(index=i) for i in range(2))
T0, T1 = (t.MarkedMoment(index=i) for i in range(2))
MUG = o.Object(name="red mug")
ON_DESK = o.Object(name="mug", where=o.Where.ON, to=o.Object(name="desk"))
NEAREST = o.Object(name="chair", pick=o.Pick.NEAREST, to=P0)
MOMENTS = (
    T0,
    t.Now(),
    t.Start(),
    t.Ago(seconds=90.5),
    t.AfterStart(seconds=12.25),
    t.ClockTime(hour=9, minute=5, days_ago=2),
    t.Stamp(stamp_ns=1_700_000_005_123_456_789),
    t.MarkMoment(mark="boxes", index=1),
    t.MarkMoment(mark="points", index=2),
)
SPANS = (
    t.WHOLE,
    *(t.Span(begin=x, end=T1) for x in MOMENTS if x != t.Now()),
    t.Span(begin=t.Ago(seconds=60), end=t.Now()),
)
THINGS = (
    P0,
    B0,
    o.Camera(),
    o.Camera(at=T0),
    o.Camera(at=t.Now()),
    o.Robot(at=t.Now()),
    o.Robot(at=T1),
    o.Origin(),
    o.Origin(frame_id="base_link"),
    o.Position(x=1.5, y=-2.0, z=0.25, frame_id="map"),
    o.Floor(),
    o.Ceiling(),
    o.NearestWall(),
    o.Room(),
    o.Room(name="kitchen"),
    o.Room(name="den"),
    MUG,
    ON_DESK,
    NEAREST,
    o.Object(object_id="chair_3"),
    o.Object(name="mug", object_id="17"),
)
WELL_KNOWN = (P1, B1, o.Camera(at=t.Start()), MUG)


def told(query: Query) -> str | None:
    """The words of a query after they were read as that query again; None where there are none."""
    try:
        text = words(query)
    except Unspeakable:
        return None
    reading = read(text, points=10, boxes=10, times=10)
    assert reading.query == query, f"{text!r} is read as {reading.read_as or reading.reason!r}, not as {query}"
    assert reading.read_as == text
    return text


def _made(cls: type[Term], **values: Any) -> Iterator[Any]:
    try:
        yield cls(**values)
    except InvalidQuery:
        return


def typical_measures() -> Iterator[m.Measure]:
    """Every class of measure, with every value of each field, and with several values of all fields."""
    for cls in concrete(m.Measure):
        choices: dict[str, tuple[Any, ...]] = {}
        for number, field in enumerate(dataclasses.fields(cls)):
            choices[field.name] = _typical(str(field.type), field.default, first=number == 0)
        if not choices:
            yield from _made(cls)
            continue
        first, *rest = choices.values()
        for values in itertools.chain(
            itertools.product(first, *(x[:1] for x in rest)),
            itertools.product(first[:1], *(x[:3] for x in rest)),
            *(itertools.product(first[:1], *(x if x is one else x[:1] for x in rest)) for one in rest),
        ):
            yield from _made(cls, **dict(zip(choices, values, strict=True)))


def _typical(kind: str, default: Any, first: bool) -> tuple[Any, ...]:
    enums: dict[str, type[Enum]] = {
        c.__name__: c for c in (m.Metric, m.Ends, m.Dimension, m.Axis, m.Event, m.Countable)
    }
    name = kind.removesuffix(" | None")
    if name in enums:
        return tuple(enums[name])
    more = (None,) if kind.endswith("None") else ()
    return (
        more
        + {
            "Operand": THINGS if first else WELL_KNOWN + ((default,) if isinstance(default, o.Operand) else ()),
            "Object": tuple(x for x in THINGS if isinstance(x, o.Object)),
            "Span": SPANS,
            "Moment": MOMENTS,
            "bool": (False, True),
            "float": (0.0, 0.35),
        }[name]
    )


MEASURES = list(dict.fromkeys(typical_measures()))


def as_settled(ask: a.Ask, **more: Any) -> Query:
    return Query(ask=settled(ask), **more)


def test_every_measure_of_typical_things_can_be_asked_for_in_words() -> None:
    said: dict[str, Query] = {}
    for measure in MEASURES:
        query = as_settled(a.Value(of=measure))
        text = told(query)
        if text is None:
            if isinstance(measure, m.Depth) and isinstance(measure.of, o.Room):
                continue  # "the depth of the room" is no depth along the optical axis
            assert isinstance(measure, m.Extent), f"there are no words for {measure}"
            assert not isinstance(measure.of, o.Box | o.Object | o.Room), f"there are no words for {measure}"
            continue
        assert said.setdefault(text, query) == query, f"{text!r} is said for two queries"


SOME = [
    m.Distance(a=P0, b=P1),
    m.Depth(of=P0),
    m.Height(of=P1),
    m.Height(of=P0, above=P1),
    m.Extent(of=B0, dimension=m.Dimension.WIDTH),
    m.Extent(of=MUG, dimension=m.Dimension.HEIGHT),
    m.PathLength(),
    m.ClosestApproach(to=P0),
    m.Distance(a=o.Camera(at=T0), b=MUG, metric=m.Metric.HORIZONTAL),
    m.RouteLength(start=o.Robot(at=t.Now()), goal=NEAREST),
    m.Clearance(of=P0, ahead=True),
    m.PathLength(span=SPANS[1]),
]
OTHER_UNITS = [
    m.Angle(a=P0, vertex=P1, b=P2),
    m.Turn(),
    m.Elapsed(),
    m.Speed(),
    m.SeenTime(of=P0, event=m.Event.LAST, ago=True),
    m.UnseenFraction(),
    m.Extent(of=o.Room(), dimension=m.Dimension.FLOOR_AREA),
    m.Extent(of=B0, dimension=m.Dimension.VOLUME),
    m.SeenCount(of=P0),
    m.Count(what=m.Countable.ROOMS),
]
VIEWPOINTS = (a.Viewpoint(), a.Viewpoint(at=P2), a.Viewpoint(at=o.Camera(at=T0)), a.Viewpoint(at=P2, facing=ON_DESK))
SPAN = SPANS[1]


def typical_asks() -> Iterator[a.Ask]:
    """Every class of question, with typical things."""
    for of in SOME + OTHER_UNITS:
        for comparison in a.Comparison:
            yield a.Threshold(of=of, comparison=comparison, value=1.75)
            yield a.Threshold(of=of, comparison=comparison, value=-0.5)
        yield a.Within(of=of, low=-1.5, high=3.0)
    for one, other in itertools.pairwise(SOME):
        yield a.Mean(of=(one, other))
        yield a.Difference(a=one, b=other)
        yield a.Difference(a=one, b=other, ratio=True)
        yield a.Compare(a=one, comparison=a.Comparison.MORE, b=other)
    for comparison, factor, offset in itertools.product(a.Comparison, (1.0, 2.5), (0.0, 0.3, -0.3)):
        yield a.Compare(a=SOME[0], comparison=comparison, b=SOME[1], factor=factor, offset=offset)
    for several, which in itertools.product((SOME[:2], SOME[:3], SOME), a.Which):
        for rank in {1, 2, len(several)}:
            yield a.Extreme(of=tuple(several), which=which, rank=rank)
            yield a.Extreme(of=tuple(several), which=which, rank=rank, as_value=True)
        yield a.Order(of=tuple(several), descending=which is a.Which.LARGEST)
        yield a.Mean(of=tuple(several))
    for where, view in itertools.product(o.Where, VIEWPOINTS):
        if where is o.Where.BETWEEN:
            yield a.Relation(a=P0, where=where, b=ON_DESK, also=B0, viewpoint=view)
        else:
            yield from (a.Relation(a=x, where=where, b=P1, viewpoint=view) for x in (P0, MUG))
    mine = (o.Where.LEFT_OF, o.Where.RIGHT_OF, o.Where.IN_FRONT_OF, o.Where.BEHIND)
    for view in VIEWPOINTS:
        yield from (a.Relation(a=P0, where=where, viewpoint=view) for where in mine)
        for options in (mine[:2], mine[1::-1], mine[2:], mine):
            yield a.Side(a=P0, options=options, viewpoint=view)
            yield a.Side(a=P0, options=options, b=MUG, viewpoint=view)
        yield from (a.Direction(of=x, viewpoint=view) for x in THINGS)
    near = tuple(x for x in o.Where if x is not o.Where.BETWEEN)
    for x in THINGS:
        yield from (cls(of=x, at=moment) for cls in (a.Visible, a.Pixel) for moment in MOMENTS[:2])
        yield from (cls(of=x, span=span) for cls in (a.Seen, a.Changed) for span in SPANS[:2])
        yield from (cls(of=x) for cls in (a.Open, a.Locate, a.RoomOf, a.Occupied))
        yield from (a.Occupied(of=x, state=state) for state in a.Occupancy)
        yield a.RoomOf(of=x, most=True)
        yield from (
            cls(goal=x, start=start, radius_m=r)
            for cls in (a.Reachable, a.Route)
            for start in (None, P1)
            for r in (0.0, 0.3)
        )
        yield a.LineOfSight(a=x, b=P1)
        yield a.SurfaceNormal(at=x)
        if x in WELL_KNOWN:
            yield from (a.Fits(place=x, length_m=0.5, width_m=w, height_m=h) for w in (0.0, 0.25) for h in (0.0, 1.0))
            yield from (a.FreePlace(length_m=0.5, at=x, where=where) for where in near)
        yield from (a.Fits(place=x, thing=thing) for thing in (None, MUG, B0))
        yield a.Property(of=x, name="color")
        if isinstance(x, o.Box | o.Object | o.Room):
            yield a.Dimensions(of=x)
    yield from (a.FreePlace(), a.FreePlace(area_m2=2.0), a.FreePlace(thing=MUG), a.Unseen())
    yield a.AppearanceOrder(of=(P0, MUG, ON_DESK))
    yield from (a.MotionDirection(span=span) for span in SPANS)
    yield from (a.Moving(at=moment) for moment in MOMENTS)
    yield from (a.Visited(room=x, span=span) for x in THINGS if isinstance(x, o.Room) for span in SPANS)
    for pick, to in itertools.product(o.Pick, (None, P0, o.Room(name="kitchen"), o.Camera(at=t.Now()))):
        for name in ("chair", "red mug"):
            of = o.Object(name=name, pick=pick, where=None if to is None else o.Where.NEXT_TO, to=to)
            yield from (cls(of=of) for cls in (a.Exists, a.Find, a.Locate))


ASKS = list(dict.fromkeys(typical_asks()))


def test_every_kind_of_question_about_typical_things_can_be_asked_in_words() -> None:
    assert {type(x) for x in ASKS} | {a.Value} == set(concrete(a.Ask)), "a kind of question is not tried"
    said: dict[str, Query] = {}
    for ask in ASKS:
        query = as_settled(ask)
        text = told(query)
        assert text is not None, f"there are no words for {query}"
        assert said.setdefault(text, query) == query, f"{text!r} is said for two queries"


def test_every_kind_of_question_can_be_negated_in_words() -> None:
    kinds = {type(x): as_settled(x) for x in ASKS if answer_type(as_settled(x)) is AnswerType.BOOLEAN}
    assert len(kinds) > 12
    for query in kinds.values():
        assert told(dataclasses.replace(query, negated=True)), query


@pytest.mark.parametrize(
    ("ask", "unit", "frame_id"),
    [
        *((a.Value(of=m.Distance(a=P0, b=P1)), unit, "") for unit in ("m", "cm", "mm", "km", "in", "ft", "yd")),
        *((a.Value(of=m.Turn()), unit, "") for unit in ("deg", "rad")),
        *((a.Value(of=m.Elapsed(span=SPAN)), unit, "") for unit in ("s", "ms", "min", "h")),
        *((a.Value(of=m.Speed()), unit, "") for unit in ("m/s", "km/h", "mph")),
        *((a.Value(of=m.Extent(of=B0, dimension=m.Dimension.VOLUME)), unit, "") for unit in ("m3", "l", "ft3")),
        *((a.Value(of=m.Extent(of=B0, dimension=m.Dimension.SURFACE_AREA)), unit, "") for unit in ("m2", "cm2", "ft2")),
        (a.Value(of=m.UnseenFraction()), "percent", ""),
        (a.Locate(of=o.Origin(frame_id="base_link")), "ft", "camera_1_link"),
        (a.Direction(of=P0, viewpoint=a.Viewpoint(at=P1)), "", "odom"),
        (a.Route(goal=P0), "", "map"),
    ],
)
@pytest.mark.parametrize("window", [None, t.WHOLE, t.Span(begin=t.Ago(seconds=60), end=t.Now())])
def test_unit_frame_and_window_are_said_and_read(ask: a.Ask, unit: str, frame_id: str, window: t.Span | None) -> None:
    assert told(Query(ask=ask, unit=unit, frame_id=frame_id, window=window)) is not None


@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None, derandomize=True, database=None)
@given(terms_of(Query))
def test_any_query_that_can_be_said_is_read_as_itself(query: Query) -> None:
    told(query)
