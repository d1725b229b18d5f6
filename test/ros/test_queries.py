"""Typed queries and several questions at once, on a real ROS 2: equal to the words for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 is sourced")
pytest.importorskip("spatial_mllm_ros.srv", reason="the ROS 2 package is not built: scripts/test_ros.sh builds it")

from robot import Robot
from wall import frame, point

from spatial_mllm_ros.language.canonical import words
from spatial_mllm_ros.msg import Measure, Operand
from spatial_mllm_ros.msg import Query as QueryMessage
from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.query_messages import query_message
from spatial_mllm_ros.nodes.ros_node import MAKE
from spatial_mllm_ros.queries import asks, measures
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.queries.operands import Camera, Point
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.srv import SpatialQueries

MARKS = [point(0, 10.0, 20.0), point(9, 50.0, 20.0)]
P0, P1 = Point(index=0), Point(index=1)
DISTANCE = measures.Distance(a=P0, b=P1)
RANGES = tuple(measures.Distance(a=mark, b=Camera()) for mark in (P0, P1))
QUERIES = [
    Query(ask=asks.Value(of=DISTANCE)),
    Query(ask=asks.Value(of=measures.Depth(of=P0)), unit="cm"),
    Query(ask=asks.Value(of=measures.PathLength())),
    Query(ask=asks.Threshold(of=DISTANCE, comparison=asks.Comparison.MORE, value=0.5)),
    Query(ask=asks.Threshold(of=DISTANCE, comparison=asks.Comparison.MORE, value=0.5), negated=True),
    Query(ask=asks.Extreme(of=RANGES, which=asks.Which.LARGEST)),
    Query(ask=asks.Locate(of=P0)),
    Query(ask=asks.Reachable(goal=P0)),
]


def value_of(measure: Measure) -> QueryMessage:
    return QueryMessage(ask=QueryMessage.VALUE, measures=[measure])


@pytest.fixture
def robot(robots: Callable[..., Robot]) -> Robot:
    """An active node that remembers ten frames of a camera that slides along a wall."""
    robot = robots()
    robot.activate()
    for index in range(10):
        robot.engine.memory.add(frame(index))
    return robot


def ask(robot: Robot, question: str = "", **fields: Any) -> Answer:
    return convert.answer_of(robot.ask(question, points=MARKS, **fields))


def told(answer: Answer) -> Answer:
    """What an answer says, without what differs from one time to the next, and without who read the question."""
    times = ("time_queued", "time_selecting", "time_encoding", "time_generating")
    return replace(answer, reader="", **dict.fromkeys(times, 0))


@pytest.mark.parametrize("query", QUERIES, ids=words)
def test_a_typed_query_and_the_words_for_it_give_equal_answers(robot: Robot, query: Query) -> None:
    typed = ask(robot, query=query_message(query, MAKE))
    spoken = ask(robot, words(query))
    assert str(told(typed)) == str(told(spoken))  # as text, since NaN is not equal to itself
    assert (typed.query, typed.read_as) == (query, words(query))
    assert (typed.reader, spoken.reader) == ("", "grammar")
    wanted = ErrorCode.NOT_AVAILABLE if isinstance(query.ask, asks.Reachable) else ErrorCode.NONE
    assert typed.error_code == wanted, typed.error_msg


def test_several_questions_are_answered_over_one_state(robot: Robot) -> None:
    request = SpatialQueries.Request(points=MARKS, queries=[query_message(query, MAKE) for query in QUERIES])
    typed = robot.call(SpatialQueries, "spatial_queries", request)
    assert (typed.error_code, typed.memory_version) == (ErrorCode.NONE, robot.engine.memory.snapshot().version)
    spoken = robot.call(
        SpatialQueries, "spatial_queries", SpatialQueries.Request(points=MARKS, questions=[words(q) for q in QUERIES])
    )
    one_by_one = [ask(robot, query=query_message(query, MAKE)) for query in QUERIES]
    for response in (typed, spoken):
        assert [str(told(convert.answer_of(a))) for a in response.answers] == [str(told(a)) for a in one_by_one]
    robot.engine.memory.add(frame(10))
    assert robot.call(SpatialQueries, "spatial_queries", request).memory_version > typed.memory_version


def test_words_and_a_query_that_do_not_agree_are_refused(robot: Robot) -> None:
    answer = ask(robot, "What is the depth of <p0>?", query=query_message(QUERIES[0], MAKE))
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert "do not agree" in answer.error_msg


@pytest.mark.parametrize(
    ("query", "place"),
    [
        (QueryMessage(ask=9999), "query.ask is 9999"),
        (value_of(Measure(measure=999)), "query.measures[0].measure is 999"),
        (value_of(Measure(measure=Measure.DEPTH, operands=[Operand(kind=Operand.POINT, index=7)])), "<p7>"),
        (QueryMessage(ask=QueryMessage.VALUE), "query: value needs of"),
    ],
    ids=["ask", "measure", "mark", "nothing to measure"],
)
def test_what_is_wrong_with_a_query_is_named_with_its_place(robot: Robot, query: QueryMessage, place: str) -> None:
    answer = ask(robot, query=query)
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert place in answer.error_msg
    batch = robot.call(SpatialQueries, "spatial_queries", SpatialQueries.Request(points=MARKS, queries=[query]))
    told_of = [batch.error_msg, *(a.error_msg for a in batch.answers)]
    assert any(place.replace("query", "queries[0]") in text for text in told_of), told_of
