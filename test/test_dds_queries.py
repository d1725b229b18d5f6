"""Typed queries and batches over DDS: equal to the words for them, one state for all, readers as set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from chat_server import chat_server, says
from small_recording import START_NS, SmallSource
from test_endpoint import reply

from spatial_mllm_ros.clients.client import SpatialQueryClient
from spatial_mllm_ros.dds import is_installed
from spatial_mllm_ros.language.canonical import words
from spatial_mllm_ros.nodes.dds_node import SpatialMllmDdsNode
from spatial_mllm_ros.queries.answer import ImagePoint, Request
from spatial_mllm_ros.queries.asks import Reachable, Value
from spatial_mllm_ros.queries.builders import Marks
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.queries.measures import Depth, Distance, PathLength
from spatial_mllm_ros.queries.operands import Point
from spatial_mllm_ros.queries.query import Query

pytestmark = pytest.mark.skipif(not is_installed(), reason="cyclonedds is not installed")

P0, P1 = Point(index=0), Point(index=1)
MARKS = (ImagePoint(START_NS, "", 10, 8), ImagePoint(START_NS, "", 25, 18))
DISTANCE = Query(ask=Value(of=Distance(a=P0, b=P1)))


def node_with(*ros_args: str, **values: Any) -> SpatialMllmDdsNode:
    """An active node whose memory holds a small recording."""
    node = SpatialMllmDdsNode(ros_args, {"sensor_model": "exact", "fixed_frame": "map", **values})
    assert node.start(), node.failure
    assert node.engine is not None
    for frame in SmallSource().frames():
        node.engine.memory.add(frame)
    return node


@pytest.fixture(scope="module")
def client() -> Iterator[SpatialQueryClient]:
    node = node_with()
    with SpatialQueryClient(wait_s=10) as client:
        yield client
    node.close()


@pytest.mark.parametrize(
    "query", [DISTANCE, Query(ask=Value(of=Depth(of=P0)), unit="cm"), Query(ask=Value(of=PathLength()))]
)
def test_a_typed_query_and_the_words_for_it_give_equal_answers(client: SpatialQueryClient, query: Query) -> None:
    typed = client.ask(Request(points=MARKS, query=query))
    spoken = client.ask(Request(question=words(query), points=MARKS))
    assert typed.error_code == spoken.error_code == ErrorCode.NONE, (typed.error_msg, spoken.error_msg)
    assert (typed.answer, typed.value, typed.stddev) == (spoken.answer, spoken.value, spoken.stddev)
    assert (typed.query, typed.reader) == (query, "")
    assert (spoken.query, spoken.reader, spoken.read_as) == (query, "grammar", typed.read_as)


def test_a_question_as_a_method_is_answered(client: SpatialQueryClient) -> None:
    answer = client.questions.distance(*MARKS, unit="cm")
    assert answer.error_code == ErrorCode.NONE, answer.error_msg
    assert "cm" in answer.answer


def test_words_and_a_query_that_do_not_agree_are_refused(client: SpatialQueryClient) -> None:
    answer = client.ask(Request(question="What is the depth of <p0>?", points=MARKS, query=DISTANCE))
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert "do not agree" in answer.error_msg


def test_what_needs_a_map_is_understood_and_not_available(client: SpatialQueryClient) -> None:
    answer = client.ask(Request(points=MARKS, query=Query(ask=Reachable(goal=P0))))
    assert answer.error_code == ErrorCode.NOT_AVAILABLE
    assert answer.query == Query(ask=Reachable(goal=P0))


def test_words_that_are_not_understood_come_back_with_what_could_be_asked(client: SpatialQueryClient) -> None:
    answer = client.ask(Request(question="How far is <p0> from the next one?", points=MARKS))
    assert answer.error_code == ErrorCode.NOT_UNDERSTOOD
    assert answer.alternatives


def test_a_batch_answers_over_one_state(client: SpatialQueryClient) -> None:
    requests = [Request(points=MARKS, query=DISTANCE), Request(points=MARKS, query=Query(ask=Value(of=Depth(of=P0))))]
    batch = client.ask_all(requests)
    assert [a.error_code for a in batch.answers] == [ErrorCode.NONE] * 2
    assert batch.memory_version > 0
    assert [a.answer for a in batch.answers] == [client.ask(request).answer for request in requests]


def test_a_batch_of_words_tells_of_each_what_is_wrong_with_it(client: SpatialQueryClient) -> None:
    batch = client.ask_all([Request("What is the depth of <p0>?", points=MARKS), Request("Flurb?", points=MARKS)])
    assert [a.error_code for a in batch.answers] == [ErrorCode.NONE, ErrorCode.NOT_UNDERSTOOD]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (
            Request("What is the depth of <p0>?", points=MARKS[1:]),
            r"points of requests\[1\] are not those of the others",
        ),
        (Request("How far did the camera travel?", points=MARKS, window_start=START_NS), "window_start"),
        (Request("How far did the camera travel?", points=MARKS, timeout=10**9), "timeout"),
        (Request("Which?", points=MARKS, choices=("a", "b")), "choices, which a batch does not take"),
        (Request("And now?", points=MARKS, conversation_id="a"), "conversation_id"),
    ],
)
def test_requests_that_share_too_little_are_refused_not_answered_about_something_else(
    client: SpatialQueryClient, other: Request, why: str
) -> None:
    with pytest.raises(QueryError, match=why):
        client.ask_all([Request(points=MARKS, query=DISTANCE), other])


def test_requests_that_were_made_one_after_the_other_share_their_marks(client: SpatialQueryClient) -> None:
    marks = Marks()
    depth = marks.request(Depth(of=marks.operand(MARKS[0])))
    distance = marks.request(Distance(a=P0, b=marks.operand(MARKS[1])))
    batch = client.ask_all([depth, distance])
    assert [a.answer for a in batch.answers] == [client.ask(depth).answer, client.ask(distance).answer]


def test_what_was_seen_long_ago_is_told() -> None:
    """No image comes any more, and there may be only one."""
    elsewhere = ("--ros-args", "-r", "__ns:=/elsewhere")  # the node of the other tests is still there
    node = node_with(*elsewhere)
    assert node.engine is not None
    frames = list(SmallSource().frames())
    with SpatialQueryClient(ros_args=elsewhere, wait_s=10) as client:
        assert client.seen() == (frames[0].stamp_ns, frames[-1].stamp_ns)
        node.engine.memory.clear()
        assert client.seen() is None
        node.engine.memory.add(frames[0])
        assert client.seen() == (frames[0].stamp_ns, frames[0].stamp_ns)
    node.close()


def test_no_question_at_all_is_told(client: SpatialQueryClient) -> None:
    with pytest.raises(QueryError, match="no question"):
        client.ask_all([])


def test_too_many_in_a_batch_are_refused_as_a_whole(client: SpatialQueryClient) -> None:
    with pytest.raises(QueryError, match="1 to 64"):
        client.ask_all([Request(points=MARKS, query=DISTANCE)] * 65)


def test_a_language_model_reads_what_the_grammar_does_not() -> None:
    pytest.importorskip("openai", reason="the extra reader is not installed")
    with chat_server(says(reply())) as server:
        node = node_with("--ros-args", "-r", "__ns:=/reading", reader=server.url)
        try:
            with SpatialQueryClient("/reading/spatial_query", wait_s=10) as client:
                answer = client.ask(Request(question="Wie weit ist <p0> von <p1> entfernt?", points=MARKS))
                typed = client.ask(Request(points=MARKS, query=DISTANCE))
        finally:
            node.close()
    assert (answer.query, answer.value) == (DISTANCE, typed.value)
    assert server.url in answer.reader
    assert "read by" in answer.read_as


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"reader": "localhost"}, "is no URL"),
        ({"reader": "model"}, "name a checkpoint"),
        ({"time_zone": "Middle/Earth"}, "no time zone"),
    ],
)
def test_a_reader_that_cannot_be_had_fails_the_configuration_with_the_reason(values: dict[str, str], why: str) -> None:
    node = SpatialMllmDdsNode((), values)
    try:
        assert not node.start()
        assert why in node.failure
    finally:
        node.close()
