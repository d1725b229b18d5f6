"""Who is asked, and what geometry's answer and a model's become together."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spatial_mllm_ros.answering.arbitration import both, in_one_line, is_for_a_model, is_marked, unchecked
from spatial_mllm_ros.queries.answer import Answer, Evidence, ImagePoint, PoseStamped, Request
from spatial_mllm_ros.queries.asks import Dimensions, Exists, Extreme, Locate, MotionDirection, Reachable, Value, Which
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, EvidenceKind, ScaleSource
from spatial_mllm_ros.queries.measures import Distance, PathLength, UnseenFraction
from spatial_mllm_ros.queries.moments import MarkedMoment, Now, Span
from spatial_mllm_ros.queries.operands import Camera, Object, Point, Room
from spatial_mllm_ros.queries.query import Query

POINT = ImagePoint(1, "", 2.0, 3.0)


def frame(frame_id: int, label: str = "") -> Evidence:
    return Evidence(EvidenceKind.FRAME, frame_id, frame_id * 10, "camera", PoseStamped(), label)


AREA = Answer(
    answer="18.4 m² ± 0.6 m²",
    answer_type=AnswerType.NUMBER,
    value=18.4,
    stddev=0.6,
    unit="m2",
    confidence=0.95,
    confidence_method="gaussian",
    source=AnswerSource.GEOMETRY,
    scale_source=ScaleSource.DEPTH,
    evidence=(frame(1, "seen space"), frame(2, "seen space")),
)
SAID = Answer(
    answer="17 m²",
    answer_type=AnswerType.NUMBER,
    value=17.0,
    unit="m2",
    confidence=0.8,
    source=AnswerSource.MODEL,
    evidence=(frame(2, "seen by the model"), frame(3, "seen by the model")),
    time_selecting=5,
    time_encoding=6,
    time_queued=7,
    model_id="fake",
)
CHOICE = replace(AREA, answer_type=AnswerType.CHOICE, choice_index=1, answer="B", value=math.nan, unit="")
PICK = replace(SAID, answer_type=AnswerType.CHOICE, choice_index=1, answer="B", value=math.nan, unit="")


def together(geometry: Answer, model: Answer, unit: str = "", trust: float = 0.4, choices: int = 0) -> Answer:
    answer = both(geometry, model, unit, trust, choices)
    assert answer is not None
    return answer


# ---- who is asked

NEARER = Query(ask=Extreme(of=tuple(Distance(a=Point(index=i), b=Camera()) for i in (0, 1)), which=Which.SMALLEST))
SINCE = Query(ask=Value(of=PathLength(span=Span(begin=MarkedMoment(index=0), end=Now()))))


@pytest.mark.parametrize(
    ("request_", "query", "marked", "asked"),
    [
        (Request("Describe the room."), None, False, True),
        (Request("What is <p0>?", points=(POINT,)), None, True, False),
        (Request("What is this?", points=(POINT,)), None, True, False),  # what else would the point be for
        (Request("What happened then?", times=(5,)), None, True, False),
        (Request("Which is softer?", choices=("<p0>", "<p1>"), points=(POINT, POINT)), None, True, False),
        (Request("How big is the room?"), Query(ask=Dimensions(of=Room())), False, True),
        (Request("How big is the room?", points=(POINT,)), Query(ask=Dimensions(of=Room())), False, True),
        (Request("Which is nearer?", points=(POINT, POINT)), NEARER, True, False),
        (Request("How far since <t0>?", times=(5,)), SINCE, True, False),
        (Request("Which way?", choices=("<p0>", "left"), points=(POINT,)), Query(ask=MotionDirection()), True, False),
        (Request("How much is unseen?"), Query(ask=Value(of=UnseenFraction())), False, False),  # no image shows it
        (Request("Where is the camera?"), Query(ask=Locate(of=Camera(at=Now()))), False, False),
        (Request("Is there a chair?"), Query(ask=Exists(of=Object(name="chair"))), False, True),
        (Request("Can you get to the chair?"), Query(ask=Reachable(goal=Object(name="chair"))), False, False),
    ],
)
def test_who_is_asked(request_: Request, query: Query | None, marked: bool, asked: bool) -> None:
    assert (is_marked(request_, query), is_for_a_model(request_, query)) == (marked, asked)


# ---- both


def test_geometry_is_given_and_the_model_beside_it() -> None:
    answer = together(AREA, SAID)
    assert answer.answer == "18.4 m² ± 0.6 m²; the model says 17 m²"
    assert (answer.value, answer.stddev, answer.unit, answer.scale_source) == (18.4, 0.6, "m2", ScaleSource.DEPTH)
    assert (answer.source, answer.model_id) == (AnswerSource.BOTH, "fake")
    assert (answer.time_selecting, answer.time_encoding, answer.time_queued) == (5, 6, 7)
    assert [e.keyframe_id for e in answer.evidence] == [1, 2, 3]


def test_agreement_raises_the_confidence_and_disagreement_lowers_it() -> None:
    for said in (18.4, 17.0, 20.0):
        answer = together(AREA, replace(SAID, value=said))
        assert answer.confidence > AREA.confidence
        assert answer.confidence_method == "gaussian x agreement with the model"
    for said in (9.0, 30.0, 184.0, 0.0, -3.0):
        answer = together(AREA, replace(SAID, value=said))
        assert answer.confidence < AREA.confidence
        assert answer.confidence_method == "gaussian x disagreement with the model"


def test_the_confidence_is_bayes_rule() -> None:
    """By hand: the model is no guess in 0.4 * 0.8 of its answers, and says exactly what was measured."""
    exact = replace(AREA, stddev=math.nan)
    likelihood = 1 - 0.32 + 0.32 * math.log(4) / (0.2 * math.sqrt(2 * math.pi))
    odds = 0.95 / 0.05 * likelihood
    assert together(exact, replace(SAID, value=18.4)).confidence == pytest.approx(odds / (1 + odds))
    # of four choices it picks one with (1 - 0.32) / 4 + 0.32 = 0.49, and each other with 0.17
    for index, ratio in ((1, 0.49 / 0.17), (2, 0.17 * 3 / 0.83)):
        odds = 0.95 / 0.05 * ratio
        answer = together(CHOICE, replace(PICK, choice_index=index), choices=4)
        assert answer.confidence == pytest.approx(odds / (1 + odds))
        assert answer.choice_index == 1


def test_a_bare_number_is_in_the_unit_of_the_question() -> None:
    bare = replace(SAID, value=198.0, unit="")  # square feet are 18.4 m²
    assert together(AREA, bare, "ft2").confidence > AREA.confidence
    assert together(AREA, bare).confidence < AREA.confidence
    assert together(AREA, bare, "ft").confidence < AREA.confidence  # no unit of areas


def test_sizes_compare_side_by_side() -> None:
    size = replace(
        AREA, answer_type=AnswerType.VECTOR, unit="m", value=7.0, stddev=0.1, pose=PoseStamped(0, "", (5.0, 4.0, 2.7))
    )
    text = replace(SAID, answer_type=AnswerType.TEXT, value=math.nan, unit="")
    assert together(size, replace(text, answer="about 4 m by 5 m")).confidence > size.confidence
    assert together(size, replace(text, answer="4 x 5 x 2.5 metres")).confidence > size.confidence
    assert together(size, replace(text, answer="16.4 by 13"), "ft").confidence > size.confidence
    assert together(size, replace(text, answer="16.4 by 13")).confidence < size.confidence
    assert together(size, replace(text, answer="12 m by 10 m")).confidence < size.confidence
    for incomparable in ("quite large", "5 m", "20 m²", "1 m, 2 m, 3 m and 4 m", "0 m by 4 m"):
        assert both(size, replace(text, answer=incomparable), "", 0.4) is None
    elsewhere = replace(size, pose=PoseStamped(0, "map", (1.0, 0.0, 0.0)))
    assert both(elsewhere, replace(text, answer="4 m by 5 m"), "", 0.4) is None


@pytest.mark.parametrize(
    ("geometry", "model"),
    [
        (AREA, replace(SAID, answer_type=AnswerType.TEXT, value=math.nan, unit="")),
        (AREA, replace(SAID, unit="m")),
        (AREA, replace(SAID, unit="count")),
        (AREA, replace(SAID, value=math.nan)),
        (CHOICE, replace(PICK, answer_type=AnswerType.TEXT)),
        (replace(AREA, answer_type=AnswerType.POSE), SAID),
    ],
)
def test_what_does_not_compare(geometry: Answer, model: Answer) -> None:
    assert both(geometry, model, "", 0.4, 4) is None


def test_a_model_that_is_not_trusted_changes_nothing() -> None:
    for model in (SAID, replace(SAID, value=90.0)):
        assert together(AREA, model, trust=0.0).confidence == pytest.approx(AREA.confidence)
        assert together(AREA, replace(model, confidence=0.0)).confidence == pytest.approx(AREA.confidence)


def test_why_a_model_was_not_heard() -> None:
    answer = unchecked(AREA, "it did not answer\nin time")
    assert answer == replace(AREA, confidence_method="gaussian; not compared with the model: it did not answer in time")


def test_a_line_is_short() -> None:
    assert in_one_line(" a\n b ") == "a b"
    assert len(in_one_line("word " * 100, 50)) <= 50


PROBABILITY = st.floats(0.0, 1.0)
NUMBER = st.floats(-1e6, 1e6)


@given(
    p=PROBABILITY,
    c=PROBABILITY,
    trust=PROBABILITY,
    value=NUMBER,
    stddev=st.one_of(st.just(math.nan), st.floats(0.0, 1e3)),
    said=NUMBER,
    n=st.integers(2, 20),
    pick=st.integers(0, 19),
)
def test_geometry_is_never_altered(
    p: float, c: float, trust: float, value: float, stddev: float, said: float, n: int, pick: int
) -> None:
    """Whatever the model says, what was measured stays, and the confidence stays a probability."""
    assume(abs(value) > 1e-300 and abs(said) > 1e-300)
    number = replace(AREA, value=value, stddev=stddev, confidence=p)
    for geometry, model in (
        (number, replace(SAID, value=said, confidence=c)),
        (replace(CHOICE, confidence=p), replace(PICK, choice_index=pick % n, confidence=c)),
    ):
        answer = together(geometry, model, trust=trust, choices=n)
        assert 0.0 <= answer.confidence <= 1.0
        assert answer.error_code == ErrorCode.NONE
        for name in ("answer_type", "value", "stddev", "unit", "pose", "pixel", "choice_index", "scale_source"):
            assert repr(getattr(answer, name)) == repr(getattr(geometry, name))
        assert answer.answer.startswith(geometry.answer)
        assert answer.evidence[: len(geometry.evidence)] == geometry.evidence


@given(p=st.floats(0.01, 0.99), c=st.floats(0.1, 1.0), off=st.floats(0.0, 2.0), more=st.floats(0.0, 2.0))
def test_the_farther_off_the_model_the_lower_the_confidence(p: float, c: float, off: float, more: float) -> None:
    near, far = (
        together(replace(AREA, confidence=p), replace(SAID, confidence=c, value=18.4 * math.exp(x))).confidence
        for x in (off, off + more)
    )
    assert far <= near + 1e-12
