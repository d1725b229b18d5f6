"""A language model behind an endpoint as translator: good, slow, wrong and hostile replies."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from chat_server import Behaviour, chat_server, dribbles, says

from spatial_mllm_ros.language import translation
from spatial_mllm_ros.language.endpoint import EndpointReader, ReaderUnavailable
from spatial_mllm_ros.language.translation import BadReply, Exchange, Translation, messages, translation_of
from spatial_mllm_ros.queries.asks import Value
from spatial_mllm_ros.queries.measures import Distance, Extent
from spatial_mllm_ros.queries.operands import Point
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.serialization import to_json

pytest.importorskip("openai", reason="the extra reader is not installed")

P0, P1 = Point(index=0), Point(index=1)
DISTANCE = Query(ask=Value(of=Distance(a=P0, b=P1)))
GERMAN = "Wie weit ist <p0> von <p1> entfernt?"


def reply(query: Query | None = DISTANCE, reason: str = "") -> str:
    return json.dumps({"query": None if query is None else to_json(query), "reason": reason})


def translate(behaviour: Behaviour, question: str = GERMAN, timeout_s: float = 5.0, **given: Any) -> Translation:
    marks = {"points": 2, "boxes": 0, "times": 0} | given
    with chat_server(behaviour) as server:
        reader = EndpointReader(server.url, timeout_s=timeout_s)
        try:
            return reader.translate(question, **marks)
        finally:
            reader.close()


def test_a_question_of_another_language_becomes_a_query() -> None:
    assert translate(says(reply())).query == DISTANCE


def test_the_endpoint_is_given_the_schema_the_algebra_and_the_marks() -> None:
    with chat_server(says(reply())) as server:
        EndpointReader(server.url).translate(GERMAN, points=2, boxes=0, times=0)
    body = server.requests[0]
    assert body["model"] == "tiny"
    assert body["response_format"]["json_schema"]["schema"] == translation.reply_schema()
    assert "closest_approach(" in body["messages"][0]["content"]
    assert body["messages"][-1]["content"].startswith(GERMAN)
    assert "<p0>, <p1>" in body["messages"][-1]["content"]


def test_a_follow_up_is_told_what_was_asked_before() -> None:
    turn = Exchange(question="How far is <p0> from <p1>?", query=DISTANCE)
    chat = messages("And in feet?", points=2, boxes=0, times=0, history=[turn] * 9)
    assert [m["role"] for m in chat[1:]] == ["user", "assistant"] * translation.MAX_TURNS + ["user"]
    assert json.loads(chat[2]["content"])["query"] == to_json(DISTANCE)


def test_no_query_comes_with_the_reason() -> None:
    result = translate(says(reply(None, "it supposes\na motion")))
    assert result == Translation(query=None, reason="it supposes a motion")


@pytest.mark.parametrize(
    ("text", "says_what"),
    [
        ("The distance is 3.2 m.", "no JSON"),
        ('{"query": {"ask": {"type": "exec"}}, "reason": ""}', "must be one of"),
        ('{"query": {"ask": {"type": "unseen"}, "then": 1}, "reason": ""}', "has no field 'then'"),
        ('{"answer": 3.2}', "an object with query and reason"),
        ("[" * 5000, "no JSON"),
        ('{"query": ' + '{"ask":' * 3000 + "1" + "}" * 3000 + "}", "reply"),
        ('{"query": {"ask": {"type": "mean", "of": NaN}}, "reason": ""}', "NaN is no JSON"),
        ("x" * 30_000, "more than any query needs"),
        ("", "no JSON"),
    ],
)
def test_a_reply_that_is_no_translation_is_refused_with_the_reason(text: str, says_what: str) -> None:
    with pytest.raises(BadReply, match=says_what):
        translation_of(text, GERMAN, points=2, boxes=0, times=0)


def test_marks_that_are_not_there_and_marks_that_were_lost_are_refused() -> None:
    with pytest.raises(BadReply, match="<p1>, which the request does not have"):
        translation_of(reply(), "How far?", points=1, boxes=0, times=0)
    with pytest.raises(BadReply, match="<p2> of the question is not in"):
        translation_of(reply(), "How far is <p0> from <p2>?", points=3, boxes=0, times=0)


def test_a_server_that_dribbles_is_cut_off_at_the_time_limit() -> None:
    begin = time.monotonic()
    with pytest.raises(ReaderUnavailable, match="too slow"):
        translate(dribbles(reply(), 0.05), timeout_s=0.4)
    assert time.monotonic() - begin < 4


def test_a_server_that_says_nothing_is_too_slow() -> None:
    with pytest.raises(ReaderUnavailable, match="too slow"):
        translate(lambda handler, body: time.sleep(1.0), timeout_s=0.3)


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_an_error_of_the_server_is_told(status: int) -> None:
    with pytest.raises(ReaderUnavailable, match=str(status)):
        translate(lambda handler, body: handler.reply(status, {"error": {"message": "no"}}))


def test_a_reply_without_an_end_is_refused() -> None:
    with pytest.raises(ReaderUnavailable, match="did not come to an end"):
        translate(lambda handler, body: handler.stream(["{"], finish="length"))


def test_a_server_that_is_not_there_is_told() -> None:
    reader = EndpointReader("http://127.0.0.1:9/v1", timeout_s=2)
    with pytest.raises(ReaderUnavailable, match=r"failed|too slow"):
        reader.translate(GERMAN, points=2, boxes=0, times=0)


def test_a_cancelled_question_hangs_up() -> None:
    with chat_server(dribbles(reply(), 0.02)) as server:
        reader = EndpointReader(server.url)
        with pytest.raises(ReaderUnavailable, match="given up"):
            reader.translate(GERMAN, points=2, boxes=0, times=0, cancelled=lambda: True)


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(ReaderUnavailable, match="is no URL"):
        EndpointReader("localhost:8080")


def test_every_example_of_the_instructions_is_a_query_that_survives_its_own_reply() -> None:
    for question, query in translation.EXAMPLES:
        assert translation_of(reply(query), question, points=2, boxes=1, times=2).query == query, question


def test_the_instructions_name_every_term_with_its_fields() -> None:
    text = translation.instructions()
    for name in ("threshold(", "distance(", "closest_approach(", "object(", "clock_time(", "viewpoint("):
        assert f"- {name}" in text
    assert Extent.type_name in text
