"""Typed queries as messages: nothing is lost, and what is wrong is told with its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from live_messages import MAKE, over_the_wire
from test_queries import terms_of

from spatial_mllm_ros.nodes.query_messages import query_message, query_of
from spatial_mllm_ros.queries.asks import Ask, Extreme, Relation, Value, Viewpoint, Which
from spatial_mllm_ros.queries.layout import classes
from spatial_mllm_ros.queries.measures import Depth, Distance, PathLength
from spatial_mllm_ros.queries.moments import Ago, MarkedMoment, Now, Span
from spatial_mllm_ros.queries.operands import Box, Camera, Object, Point, Where
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.term import InvalidQuery

P0, P1 = Point(index=0), Point(index=1)


def sent(query: Query | None) -> Any:
    return over_the_wire(query_message(query, MAKE))


@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(terms_of(Query))
def test_every_query_survives_the_wire(query: Query) -> None:
    assert query_of(sent(query)) == query


def test_no_query_is_no_query() -> None:
    assert query_of(sent(None)) is None


def test_a_distance_is_short_enough_to_be_written_by_hand() -> None:
    message = sent(Query(ask=Value(of=Distance(a=P0, b=P1))))
    assert (message.ask, message.measures[0].measure) == (1, 1)
    assert [o.index for o in message.measures[0].operands] == [0, 1]


@pytest.mark.parametrize(
    "query",
    [
        Query(ask=Value(of=Distance(a=P0, b=Camera(at=Now()))), unit="ft", frame_id="map"),
        Query(ask=Value(of=PathLength(span=Span(begin=Ago(seconds=60), end=Now())))),
        Query(ask=Value(of=Depth(of=P0)), window=Span(begin=MarkedMoment(index=0), end=MarkedMoment(index=1))),
        Query(ask=Extreme(of=(Depth(of=P0), Depth(of=P1)), which=Which.SMALLEST, rank=2)),
        Query(ask=Relation(a=P0, where=Where.LEFT_OF, viewpoint=Viewpoint(at=P1, facing=Box(index=0))), negated=True),
        Query(ask=Value(of=Distance(a=P0, b=Object(name="mug", where=Where.ON, to=Object(name="desk"))))),
    ],
    ids=lambda query: type(query.ask).__name__,
)
def test_queries_as_they_are_asked_survive_the_wire(query: Query) -> None:
    assert query_of(sent(query)) == query


def test_what_a_message_leaves_out_has_its_default() -> None:
    message = sent(Query(ask=Value(of=PathLength())))
    message.measures[0].spans = []
    assert query_of(message) == Query(ask=Value(of=PathLength()))


def changed(**fields: Any) -> Any:
    message = sent(Query(ask=Value(of=Distance(a=P0, b=P1))))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_an_unknown_kind_of_question_is_refused() -> None:
    with pytest.raises(InvalidQuery, match=f"ask is 999.*the largest is {len(classes(Ask))}"):
        query_of(changed(ask=999))


def test_a_missing_operand_is_named() -> None:
    message = changed()
    message.measures[0].operands = message.measures[0].operands[:1]
    with pytest.raises(InvalidQuery, match=r"measures\[0\]: distance needs b"):
        query_of(message)


def test_too_many_operands_are_refused_not_dropped() -> None:
    message = changed()
    message.measures[0].operands = [*message.measures[0].operands, message.measures[0].operands[0]]
    with pytest.raises(InvalidQuery, match=r"operands holds 3; distance takes 2"):
        query_of(message)


def test_a_thousand_parts_are_refused() -> None:
    with pytest.raises(InvalidQuery, match="at most 64"):
        query_of(changed(measures=changed().measures * 1000))


def test_an_unknown_member_of_an_enumeration_is_refused() -> None:
    message = changed()
    message.measures[0].metric = 77
    with pytest.raises(InvalidQuery, match=r"metric is 77"):
        query_of(message)


def test_a_query_that_contradicts_itself_is_refused_with_the_reason() -> None:
    message = changed()
    message.measures[0].operands[1].index = 0
    with pytest.raises(InvalidQuery, match="two different things"):
        query_of(message)
