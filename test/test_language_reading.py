"""Words to queries: what is read, what is refused, and that nothing is read as something else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_folder

from spatial_mllm_ros.language.reader import Reading, read
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.queries.serialization import from_json

SHARED = shared_folder()
# fmt: off
READ = {  # question -> the canonical sentence that it is read as
    "How far is <p0> from <p1>?": "What is the distance between <p0> and <p1>?",
    "From <p1>, how much higher is <p0>?": "What is the height of <p0> above <p1>?",
    "From <p1>, how much lower is <p0>?": "What is the height of <p1> above <p0>?",
    "How far is <p0> from <p1>, not counting the height?": "What is the horizontal distance between <p0> and <p1>?",
    "Is <p0> not further than 2 m from <p1>?": "Is the distance between <p0> and <p1> at most 2 m?",
    "Is <p0> between 1 m and 3 m from <p1>?": "Is the distance between <p0> and <p1> between 1 m and 3 m?",
    "Is <p0> more than 5 ft 3 in from <p1>?": "Is the distance between <p0> and <p1> more than 1.6002 m?",
    "Is <p0> within 80cm of <p1>?": "Is the distance between <p0> and <p1> at most 0.8 m?",
    "Is <box0> more than 1,5 m wide?": "Is the width of <box0> more than 1.5 m?",
    "Is <box0> twice as wide as <box1>?": "Is the width of <box0> about 2 times the width of <box1>?",
    "Does <p0> lie below the ceiling by more than half a metre?": "Is the height of the ceiling above <p0> more than 0.5 m?",
    "Did the camera see <p0>?": "Was <p0> seen at any time?",
    "Can you see <p0>?": "Is <p0> visible now?",
    "How long ago was <p0> last seen?": "What is the time since <p0> was last seen?",
    "How long was the robot driving?": "What is the time that the camera moved?",
    "How far did you drive in the last minute?": "What is the length of the camera's path from 60 s ago to now?",
    "Where were you at 10:32?": "Where is the camera at 10:32:00?",
    "How high up is the object in <box0>?": "What is the height of <box0> above the floor?",
    "How high is <p0> above me?": "What is the height of <p0> above the camera now?",
    "How far is the red mug on the desk from <p0>?": "What is the distance between the red mug that is on the desk and <p0>?",
    "Is <p0> closer to the door than <p1>?": "Is the distance between <p0> and the door less than the distance between <p1> and the door?",
    "how far ist p0 from p1": "What is the distance between <p0> and <p1>?",
    "What is the dpeth of <p0>?": "What is the depth of <p0>?",
    "Facing <p1> from <p0>, is <p2> behind me?": "Is <p2> behind, standing at <p0> and facing <p1>?",
    "How many seconds after <t1> is <t0>?": "What is the time from <t1> to <t0>, in seconds?",
    "How much earlier is <t0> than <t1>?": "What is the time from <t0> to <t1>?",
    "What is the yaw of the camera?": "What is the heading of the camera now?",
    "How far is it from <p0> to the yard?": "What is the distance between <p0> and the yard?",
    "How much further is <p0> from the robot than <p1>?": "By how much is the distance between <p0> and the robot now more than the distance between <p1> and the robot now?",
    "How much further is <p0> from the robot than from <p1>?": "By how much is the distance between <p0> and the robot now more than the distance between <p0> and <p1>?",
    "How much closer to <p1> is <p0> than <p2>?": "By how much is the distance between <p2> and <p1> more than the distance between <p0> and <p1>?",
    "Which is closer to the picture, <p0> or <p1>?": "Which is the smallest of the distance between <p0> and the picture and the distance between <p1> and the picture?",
    "Which point is closer to the camera at <t0>, <p0> or <p1>?": "Which is the smallest of the distance between <p0> and the camera at <t0> and the distance between <p1> and the camera at <t0>?",
    "Which of the three points is lowest: <p0>, <p1> or <p2>?": "Which is the smallest of the height of <p0> above the floor, the height of <p1> above the floor and the height of <p2> above the floor?",
    "Which two of <p0>, <p1> and <p2> are farthest apart?": "Which is the largest of the distance between <p0> and <p1>, the distance between <p0> and <p2> and the distance between <p1> and <p2>?",
    "How far is <p0> from the nearest of <p1> and <p2>?": "What is the smallest of the distance between <p0> and <p1> and the distance between <p0> and <p2>?",
    "If I stand at <p0> facing <p1>, is <p2> on my left?": "Is <p2> on the left, standing at <p0> and facing <p1>?",
    "How long ago did you see <p0>?": "What is the time since <p0> was last seen?",
    "How long did the drive from <t0> to <t1> take?": "What is the time from <t0> to <t1>?",
    "How far apart were you at <t0> and <t1>?": "What is the distance between the camera at <t0> and the camera at <t1>?",
    "How far did you drive since noon?": "What is the length of the camera's path from 12:00:00 to now?",
    "How far did you drive in the first minute?": "What is the length of the camera's path from the start to 60 s after the start?",
    "How do I get to <p0> from here?": "What is the route to <p0>?",
    "route kitchen -> bedroom": "What is the route from the kitchen to the bedroom?",
    "speed <t0>": "What is the speed of the camera at <t0>?",
    "pose at <t0>": "Where is the camera at <t0>?",
}
REFUSED = (
    "How far did the object move between <t0> and <t1>?",
    "How far would the robot have to drive?",
    "How far did the robot carry the box between <t0> and <t1>?",
    "How far is the object from the start?",
    "Where is the other robot?",
    "Would <p0> be visible if the camera moved?",
    "If the camera moved 1 m forward, how far would <p0> be?",
    "How wide is the next room?",
    "How big are the rooms?",
    "What is the floor area of each room?",
    "What percentage of the object is unseen?",
    "How far was <p0> from <p1> yesterday?",
    "How far is <p0> from its position at <t0>?",
    "How far is <p1> (not <p0>) from the camera?",
    "How large is the table, in acres?",
    "Is <p0> far away?",
    "How far did the elevator travel?",
    "How far did the camera not move between <t0> and <t1>?",
    "Who is closest to <p0>?",
    "What is the weight above <box0>?",
    "What is the heading of <p0> at <t0>?",
    "What is <box0>'s yaw?",
    "stopping distance to <p0>",
    "How long have you been standing still?",
    "Which two of <p0>, <p1> and <p2> are highest?",
    "What is the distance to <p0> and to <p1>?",
    "Did you turn left or right between <t0> and <t1>?",
    "What is the distance between <p0> and the middle of <box0>?",
    "How high is the top of <box0>?",
    "How big is the space under <box0>?",
    "What is the gap at <p0>?",
    "How fast did you turn at <t0>?",
    "Was <p0> ever out of view?",
    "What is the difference between <p0> and <p1>?",
    "Is <p0> closer to the camera than <p1> was at <t0>?",
)


def reading_of(question: str) -> Reading:
    """With just the marks that a question names, p0 as <p0> too."""
    counts = [
        max((int(n) + 1 for n in re.findall(rf"\b{k}(\d+)\b", question.lower())), default=0) for k in ("p", "box", "t")
    ]
    return read(question, points=counts[0], boxes=counts[1], times=counts[2])


@pytest.mark.parametrize(("question", "canonical"), READ.items())
def test_what_is_asked_is_read(question: str, canonical: str) -> None:
    reading = reading_of(question)
    assert reading.read_as == canonical, reading
    assert reading_of(canonical).query == reading.query, "the canonical sentence is read as something else"


@pytest.mark.parametrize("question", REFUSED)
def test_what_cannot_be_answered_is_refused_with_a_reason(question: str) -> None:
    reading = reading_of(question)
    assert reading.query is None, reading.read_as
    assert reading.reason
    assert reading.code in (ErrorCode.NOT_UNDERSTOOD, ErrorCode.AMBIGUOUS)


def test_a_mark_that_the_request_does_not_have_is_invalid() -> None:
    reading = read("How far is <p0> from <p3>?", points=2)
    assert (reading.code, reading.query) == (ErrorCode.INVALID_REQUEST, None)
    assert "<p3>" in reading.reason


@pytest.mark.parametrize(
    "question",
    ["Wie weit ist <p0> von <p1> entfernt?", "¿Qué distancia hay entre <p0> y <p1>?", "<p0>和<p1>之间的距离是多少?"],
)
def test_another_language_is_said_to_be_one(question: str) -> None:
    assert "reads English" in reading_of(question).reason


@pytest.mark.parametrize("question", ["Describe the room.", "What is the person doing?", "Why is it dark?"])
def test_a_question_for_a_model_is_marked_as_one(question: str) -> None:
    reading = reading_of(question)
    assert reading.free_form
    assert reading.query is None


def test_nothing_with_a_mark_is_a_question_for_a_model() -> None:
    assert not reading_of("What is <p0> used for?").free_form


@pytest.mark.parametrize(
    "question", ["What is the length of the camera's path?", "What is the height of the ceiling above the floor?"]
)
def test_marks_for_another_question_of_a_batch_do_not_hinder(question: str) -> None:
    assert read(question, points=2).query == read(question, boxes=3).query == read(question).query is not None


def test_two_questions_are_two_queries() -> None:
    reading = reading_of("how tall is <box0> and how wide is <box1>")
    assert reading.query is None
    assert len(reading.queries) == len(reading.alternatives) == 2
    assert "one by one" in reading.reason


@pytest.mark.parametrize(
    ("question", "each"),
    [
        ("How far are <p0> and <p1> each from the camera?", "What is the distance between {} and the camera?"),
        ("How high are <p0> and <p1>?", "What is the height of {} above the floor?"),
        ("Are both <p0> and <p1> higher than one metre?", "Is the height of {} above the floor more than 1 m?"),
    ],
)
def test_a_question_about_each_of_several_is_one_for_each(question: str, each: str) -> None:
    assert [a.words for a in reading_of(question).alternatives] == [each.format("<p0>"), each.format("<p1>")]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_mark_vanishes(data: st.DataObject) -> None:
    """Halves of two questions: what is read of them has every mark of the text."""
    a, b = (data.draw(st.sampled_from(list(READ))).split() for _ in range(2))
    text = " ".join([*a[: data.draw(st.integers(1, len(a)))], *b[data.draw(st.integers(0, len(b) - 1)) :]])
    reading = reading_of(text)
    if reading.query is not None:
        assert set(re.findall(r"<\w+>", text)) <= set(re.findall(r"<\w+>", reading.read_as)), (text, reading.read_as)


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in list(READ)[:8] for b in list(READ)[8:16]])
def test_two_questions_are_never_one(first: str, second: str) -> None:
    for joined in (f"{first} {second}", f"{first.rstrip('?')} and {second[0].lower()}{second[1:]}"):
        assert reading_of(joined).query is None, reading_of(joined).read_as


@pytest.mark.parametrize("question", list(READ)[:20])
@pytest.mark.parametrize("word", ["other", "next", "each", "not", "would"])
def test_a_word_more_changes_what_is_read(question: str, word: str) -> None:
    """Put in anywhere, it changes the query or there is none."""
    words = question.split()
    before = reading_of(question).query
    for i in range(1, len(words)):
        text = " ".join([*words[:i], word, *words[i:]])
        after = reading_of(text)
        assert after.query is None or after.query != before, text


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(sorted({w for q in (*READ, *REFUSED) for w in q.split()})), max_size=14))
def test_no_mixture_of_words_raises(words: list[str]) -> None:
    reading = reading_of(" ".join(words))
    assert (reading.query is None) == (reading.code != ErrorCode.NONE)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80))
def test_no_text_raises(text: str) -> None:
    assert (read(text, points=2, boxes=1, times=2).query is None) or text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "Wie " * 24 + "weit ist <p0> von <p1> entfernt?",
        "Is <p0> exactly " + "1 " * 44 + "m high?",
        "obstacles " * 60 + "within 1 m?",
        "Which " + "way " * 44 + "was the camera facing at <t1>?",
    ],
)
def test_a_word_said_over_and_over_is_refused_and_does_not_hang(text: str) -> None:
    reading = reading_of(text)
    assert reading.query is None
    assert reading.reason


@pytest.mark.skipif(SHARED is None, reason="the questions that people asked are not here")
def test_no_question_that_was_misread_is_read_as_what_it_was() -> None:
    assert SHARED is not None
    items: list[dict[str, Any]] = json.loads((SHARED / "questions" / "misread.json").read_text("utf-8"))
    wrong = {
        "What is the length of the camera's path?", "Is <p0> visible now?", "Where is the camera now?", "What are the dimensions of the room?",
        "What is the height of the camera now above the floor?", "What is the unseen fraction of the space?", "What is the distance between <p0> and the camera?",
    }  # fmt: skip
    for item in items:
        assert reading_of(item["question"]).read_as not in wrong, item["question"]


def test_wordings_are_read_as_what_they_ask() -> None:
    """Those with a query were checked against the families and roles that they had in the table of words."""
    items: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "wordings.json").read_text("utf-8"))
    wrong = []
    for item in items:
        if "query" in item:
            named = " ".join([item["question"], *item.get("choices", ())])
            counts = [max((int(n) + 1 for n in re.findall(rf"<{k}(\d+)>", named)), default=0) for k in ("p", "box", "t")]
            reading = read(item["question"], points=counts[0], boxes=counts[1], times=counts[2], choices=item.get("choices", ()))
            if reading.query != from_json(item["query"]):
                wrong.append((item["question"], reading.read_as or reading.reason))
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("question", "point"),
    [
        ("How deep is the sink at <p0>?", False),
        ("What is the height of the chair marked by <p0>?", False),
        ("How high is the thing at <p0>?", False),
        ("How high is the chair at <p0> above the floor?", True),
        ("How high is the surface at <p0>?", True),
        ("What is the depth of the thing at <p0>?", True),
    ],
)
def test_a_point_does_not_tell_a_size(question: str, point: bool) -> None:
    reading = read(question, points=1)
    assert (reading.query is not None) == point, reading.read_as
    if not point:
        assert "draw a box" in reading.reason
        assert reading.alternatives


@pytest.mark.parametrize("question", ["What is the height of <p1> at <p0>?", "Give me the height of the kitchen at <p0>"])
def test_a_height_of_two_things_is_not_read_as_their_distance(question: str) -> None:
    assert read(question, points=2).query is None
