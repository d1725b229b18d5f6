"""The grammar first, a language model for what it does not read; what was asked before is remembered within bounds."""

from __future__ import annotations

from typing import Any

from spatial_mllm_ros.language import conversation
from spatial_mllm_ros.language.conversation import ConversationReader
from spatial_mllm_ros.language.endpoint import ReaderUnavailable
from spatial_mllm_ros.language.translation import Translation
from spatial_mllm_ros.queries.answer import ImagePoint, Request
from spatial_mllm_ros.queries.asks import Dimensions, Value
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.queries.measures import Distance
from spatial_mllm_ros.queries.operands import Point, Room
from spatial_mllm_ros.queries.query import Query

DISTANCE = Query(ask=Value(of=Distance(a=Point(index=0), b=Point(index=1))))
MARKS = (ImagePoint(1, "", 2, 3), ImagePoint(1, "", 4, 5))


class Fake:
    """Says what it is told to say, and remembers what it was asked."""

    name = "a fake"

    def __init__(self, says: Translation | Exception) -> None:
        self.says, self.asked = says, []  # type: ignore[var-annotated]

    def translate(self, question: str, **given: Any) -> Translation:
        self.asked.append((question, given))
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def request(text: str, conversation_id: str = "") -> Request:
    return Request(question=text, points=MARKS, conversation_id=conversation_id)


def test_what_the_grammar_reads_is_not_asked_of_a_model() -> None:
    fake = Fake(Translation(query=Query(ask=Dimensions(of=Room()))))
    reading, name = ConversationReader(fake).read(request("How far is <p0> from <p1>?"))
    assert (reading.query, name, fake.asked) == (DISTANCE, "grammar", [])


def test_what_it_does_not_read_is_translated_and_marked() -> None:
    reading, name = ConversationReader(Fake(Translation(query=DISTANCE))).read(request("Wie weit ist <p0> von <p1>?"))
    assert (reading.query, reading.code, name) == (DISTANCE, ErrorCode.NONE, "a fake")
    assert reading.read_as
    assert reading.remarks == ("read by a fake",)


def test_a_model_that_fails_leaves_the_refusal_with_its_reason() -> None:
    reading, name = ConversationReader(Fake(ReaderUnavailable("it was too slow"))).read(request("Wie weit?"))
    assert (reading.query, reading.code, name) == (None, ErrorCode.NOT_UNDERSTOOD, "grammar")
    assert "it was too slow" in reading.reason


def test_a_model_that_finds_no_query_says_why() -> None:
    reading, _ = ConversationReader(Fake(Translation(reason="it supposes a motion"))).read(request("Wenn ich ginge?"))
    assert reading.code == ErrorCode.NOT_UNDERSTOOD
    assert "a fake says: it supposes a motion" in reading.reason


def test_a_follow_up_is_told_with_what_came_before_in_its_own_conversation() -> None:
    fake = Fake(Translation(query=DISTANCE))
    reader = ConversationReader(fake)
    reader.read(request("How far is <p0> from <p1>?", "a"))
    reader.read(request("Und in Fuß?", "a"))
    reader.read(request("Und in Fuß?", "b"))
    histories = [[turn.question for turn in given["history"]] for _, given in fake.asked]
    assert histories == [["How far is <p0> from <p1>?"], []]


def test_conversations_are_bounded() -> None:
    fake = Fake(Translation(query=DISTANCE))
    reader = ConversationReader(fake)
    for number in range(conversation.MAX_CONVERSATIONS + 50):
        reader.read(request("How far is <p0> from <p1>?", str(number)))
    reader.read(request("Und?", "0"))
    reader.read(request("Und?", str(number)))
    assert [len(given["history"]) for _, given in fake.asked] == [0, 1]
