"""Questions to answers: the shared recordings, and requests that nobody should send but somebody will."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_model import FakeModel, Said, Script
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_queries import terms_of

from spatial_mllm_ros.answering.context import QueryConfig
from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.answering.handlers import ASKS, NEEDS_MORE
from spatial_mllm_ros.answering.measures import MEASURES
from spatial_mllm_ros.answering.model_backend import ModelBackend
from spatial_mllm_ros.memory.spatial_memory import MemoryConfig, SpatialMemory
from spatial_mllm_ros.queries.answer import Answer, ImageBox, ImagePoint, Request
from spatial_mllm_ros.queries.asks import Ask
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError
from spatial_mllm_ros.queries.measures import Depth, Extent, Measure, UnseenFraction
from spatial_mllm_ros.queries.query import Query, answer_type
from spatial_mllm_ros.queries.serialization import concrete
from spatial_mllm_ros.serving.interface import ModelBusy, ModelError, ModelUnavailable
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.session.questions import ask, read_questions
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import Outcome
from spatial_mllm_ros.simulation.rendered import RenderedSource

SOURCE = RenderedSource(seed=1, rooms=1, frames=60, rate_hz=10.0, width=160, height=120)
CAMERA = "camera_color_optical_frame"
STAMP = SOURCE.stamps[30]


@pytest.fixture(scope="module")
def engine() -> SpatialQueryEngine:
    """An engine that has seen a small rendered room."""
    memory = SpatialMemory()
    for frame in SOURCE.frames():
        memory.add(replace(frame, image=None))
    return SpatialQueryEngine(memory, SOURCE.info.sensor)


def point(u: float, v: float, stamp: int = STAMP, camera: str = "") -> ImagePoint:
    return ImagePoint(int(stamp), camera, u, v)


def test_every_kind_of_question_is_answered_or_says_what_it_needs() -> None:
    """Nothing that can be asked falls through."""
    for kind in concrete(Ask):
        assert kind in ASKS or any(kind is term for term in NEEDS_MORE), kind
    for measure in concrete(Measure):
        assert measure in MEASURES or any(measure is term for term in NEEDS_MORE), measure


DEPTH = Request("What is the depth of <p0>?", points=(point(80, 60),))
BOX = Request("How tall is the object in <box0>?", boxes=(ImageBox(int(STAMP), "", 40, 30, 120, 100),))
BAD: dict[str, tuple[Request, ErrorCode, str]] = {
    "empty": (replace(DEPTH, question=""), ErrorCode.INVALID_REQUEST, "empty"),
    "blank": (replace(DEPTH, question=" \n\t "), ErrorCode.INVALID_REQUEST, "empty"),
    "ten megabytes": (replace(DEPTH, question="a " * 5_000_000), ErrorCode.INVALID_REQUEST, "2000"),
    "lone surrogate": (replace(DEPTH, question="depth of <p0> \ud800?"), ErrorCode.INVALID_REQUEST, "UTF-8"),
    "point not given": (replace(DEPTH, question="depth of <p1>?"), ErrorCode.INVALID_REQUEST, "<p1>"),
    "free form": (Request("Describe the room."), ErrorCode.NO_MODEL, "spatial_mllm_ros[model]"),
    "free form, how to get a model": (Request("Describe the room."), ErrorCode.NO_MODEL, "spatial-mllm download"),
    "marked, in unknown words": (replace(DEPTH, question="What brand is <p0>?"), ErrorCode.INVALID_REQUEST, "cannot see"),
    "unknown frame": (replace(DEPTH, points=(point(1, 1, STAMP + 7_000_000),)), ErrorCode.INVALID_REQUEST, "no frame"),
    "unknown camera": (replace(DEPTH, points=(point(1, 1, camera="rear"),)), ErrorCode.INVALID_REQUEST, "rear"),
    "outside": (replace(DEPTH, points=(point(160, 60),)), ErrorCode.INVALID_REQUEST, "outside"),
    "far outside": (replace(DEPTH, points=(point(-1e30, 60),)), ErrorCode.INVALID_REQUEST, "outside"),
    "NaN pixel": (replace(DEPTH, points=(point(np.nan, 60),)), ErrorCode.INVALID_REQUEST, "outside"),
    "unknown moment": (Request("Where was the camera at <t0>?", times=(5,)), ErrorCode.INVALID_REQUEST, "no frame"),
    "box inside out": (
        replace(BOX, boxes=(replace(BOX.boxes[0], u_max=20),)), ErrorCode.INVALID_REQUEST, "inside out"),
    "box outside": (
        replace(BOX, boxes=(ImageBox(int(STAMP), "", 500, 500, 600, 600),)), ErrorCode.INVALID_REQUEST, "outside"),
    "box NaN": (
        replace(BOX, boxes=(replace(BOX.boxes[0], v_min=np.nan),)), ErrorCode.INVALID_REQUEST, "not numbers"),
    "window reversed": (replace(DEPTH, window_start=9, window_end=4), ErrorCode.INVALID_REQUEST, "later"),
    "outside the window": (replace(DEPTH, window_end=int(STAMP) - 1), ErrorCode.INVALID_REQUEST, "window"),
    "negative timeout": (replace(DEPTH, timeout=-1), ErrorCode.INVALID_REQUEST, "negative"),
    "one choice": (replace(DEPTH, choices=("1 m",)), ErrorCode.INVALID_REQUEST, "two choices"),
    "same choices": (replace(DEPTH, choices=("1 m", "1 m")), ErrorCode.INVALID_REQUEST, "different"),
    "choices of another kind": (replace(DEPTH, choices=("red", "blue")), ErrorCode.INVALID_REQUEST, "lengths"),
    "choices in another unit": (replace(DEPTH, choices=("10 deg", "20 deg")), ErrorCode.INVALID_REQUEST, "lengths"),
    "unknown frame_id": (
        Request("Where was the camera at <t0>?", times=(int(STAMP),), frame_id="moon"), ErrorCode.TF_ERROR, "moon"),
    "no time left": (replace(DEPTH, timeout=1), ErrorCode.TIMEOUT, "time limit"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_its_code_and_says_what_is_wrong(engine: SpatialQueryEngine, name: str) -> None:
    request, code, says = BAD[name]
    answer = engine.answer(request)
    assert (answer.error_code, says in answer.error_msg) == (code, True), answer.error_msg
    assert answer.answer == ""
    assert engine.answer(DEPTH).error_code == ErrorCode.NONE


def test_a_question_before_the_first_frame() -> None:
    memory = SpatialMemory()
    answer = SpatialQueryEngine(memory).answer(DEPTH)
    assert answer.error_code == ErrorCode.NO_FRAMES
    memory.add(replace(SOURCE.frame(0), T_world_camera=None))
    assert "1 no_pose" in SpatialQueryEngine(memory).answer(DEPTH).error_msg


def test_an_image_that_had_to_go_is_not_confused_with_one_never_seen() -> None:
    memory = SpatialMemory(MemoryConfig(max_frames=2))
    for i in range(10):
        memory.add(replace(SOURCE.frame(i), image=None))
    answer = SpatialQueryEngine(memory).answer(replace(DEPTH, points=(point(80, 60, SOURCE.stamps[3]),)))
    assert answer.error_code == ErrorCode.NO_FRAMES
    assert "max_frames" in answer.error_msg


def test_cancelling(engine: SpatialQueryEngine) -> None:
    assert engine.answer(DEPTH, cancelled=lambda: True).error_code == ErrorCode.CANCELLED


def test_a_defect_becomes_unknown_not_an_exception(
    engine: SpatialQueryEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(MEASURES, Depth, lambda context, measure: 1 // 0)
    assert engine.answer(DEPTH).error_code == ErrorCode.UNKNOWN
    assert "ZeroDivisionError" in caplog.text


def test_units_change_the_words_and_never_the_value(engine: SpatialQueryEngine) -> None:
    """A planner reads value and unit; people read the answer."""
    plain = engine.answer(DEPTH)
    for unit, mark in (("centimetres", " cm"), ("inches", " in"), ("feet", " ft"), ("mm", " mm")):
        asked = engine.answer(replace(DEPTH, question=f"What is the depth of <p0> in {unit}?"))
        assert (asked.value, asked.stddev, asked.unit) == (plain.value, plain.stddev, "m")
        assert mark in asked.answer


def test_every_answer_has_evidence_and_stamps(engine: SpatialQueryEngine) -> None:
    answer = engine.answer(DEPTH)
    assert answer.answer_type == AnswerType.NUMBER
    (evidence,) = answer.evidence
    assert (evidence.stamp_ns, evidence.u, evidence.v, evidence.label) == (STAMP, 80, 60, "<p0>")
    assert answer.first_stamp == answer.last_stamp == STAMP
    assert 0 < answer.stddev < 0.1


def test_positions_come_in_the_frame_asked_for(engine: SpatialQueryEngine) -> None:
    request = Request("Where was the camera at <t0>?", times=(int(STAMP),))
    world = engine.answer(request)
    own = engine.answer(replace(request, frame_id=CAMERA))
    assert world.pose.frame_id == "map"
    assert own.pose.frame_id == CAMERA
    np.testing.assert_allclose(own.pose.position, 0, atol=1e-9)


def test_answers_do_not_depend_on_who_asks_beside(engine: SpatialQueryEngine) -> None:
    """Many threads at once get what one alone gets."""
    requests = [replace(DEPTH, points=(point(10 + 7 * i, 60),)) for i in range(20)]
    alone = [engine.answer(r).value for r in requests]
    together: dict[int, float] = {}

    def work(i: int) -> None:
        together[i] = engine.answer(requests[i]).value

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(requests))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal([together[i] for i in range(len(requests))], alone)


@given(query=terms_of(Query), u=st.floats(-50, 250), v=st.floats(-50, 200), index=st.integers(-3, 62))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_query_breaks_the_engine(engine: SpatialQueryEngine, query: Query, u: float, v: float, index: int) -> None:
    """Whatever is asked about whatever pixel and moment, the answer is an answer or a code with a reason."""
    stamp = SOURCE.stamps[0] + index * 100_000_000
    other = SOURCE.stamps[40]
    request = Request(
        points=(point(u, v, stamp), point(70, 50, other), point(90, 60, other)),
        boxes=(ImageBox(int(stamp), "", u, v, u + 60, v + 50), ImageBox(int(other), "", 30, 20, 90, 80)),
        times=(int(stamp), int(other)),
        query=query,
    )
    answer = engine.answer(request)
    assert answer.error_code != ErrorCode.UNKNOWN, answer.error_msg
    assert bool(answer.error_msg) == (answer.error_code != ErrorCode.NONE)
    assert answer.answer if answer.error_code == ErrorCode.NONE else not answer.answer
    assert answer.query == query
    if answer.error_code == ErrorCode.NONE:
        assert answer.answer_type in (answer_type(query), AnswerType.CHOICE)
        assert 0.0 <= answer.confidence <= 1.0
    json.dumps(answer.to_json(), allow_nan=False)


def missed(recording: Path, questions: Path) -> dict[str, str]:
    """Questions of a file that are not answered right on a recording, with what was said instead."""
    session = Session(open_source(str(recording)))
    session.stream()
    asked = [ask(session, question) for question in read_questions(questions)]
    return {
        a.question.id: a.answer.answer or a.answer.error_msg
        for a in asked
        if a.verdict is None or a.verdict.outcome != Outcome.RIGHT
    }


@pytest.mark.parametrize("name", ["rgbd_room", "rgbd_object"])
def test_the_questions_of_real_recordings_are_answered_right(shared: Path, name: str) -> None:
    folder = shared / "data" / name
    assert missed(folder, folder / "questions.json") == {}


# ---- with a model

AREA = Request("What is the floor area of the room?")
ASKED_AREA = "What is the floor area of the room (in square meters)?"
DESCRIBE = Request("Describe the room.")


@pytest.fixture(scope="module")
def seen() -> SpatialMemory:
    """What the engine has seen, with images."""
    memory = SpatialMemory()
    for frame in SOURCE.frames():
        memory.add(frame)
    return memory


@pytest.fixture(scope="module")
def area(seen: SpatialMemory) -> Answer:
    """What geometry says alone."""
    return SpatialQueryEngine(seen, SOURCE.info.sensor).answer(AREA)


def engine_with(seen: SpatialMemory, model: FakeModel, **config: Any) -> SpatialQueryEngine:
    return SpatialQueryEngine(seen, SOURCE.info.sensor, QueryConfig(**config), model=ModelBackend(model))


def measured(answer: Answer) -> dict[str, object]:
    """What a planner reads of a measurement."""
    names = ("error_code", "answer_type", "value", "stddev", "unit", "choice_index", "pose", "pixel", "scale_source")
    return {name: repr(getattr(answer, name)) for name in names}


def refuse(code: ErrorCode, message: str = "too close to call") -> Callable[..., Any]:
    def handler(context: object, asked: object) -> Answer:
        raise QueryError(code, message)

    return handler


def test_what_geometry_does_not_read_is_asked_of_the_model(seen: SpatialMemory) -> None:
    engine = engine_with(seen, FakeModel({"Describe the room.": "a small kitchen"}))
    pieces: list[str] = []
    answer = engine.answer(DESCRIBE, on_text=pieces.append)
    assert (answer.error_code, answer.answer, answer.source) == (ErrorCode.NONE, "a small kitchen", AnswerSource.MODEL)
    assert "".join(pieces) == answer.answer
    stamps = [e.stamp_ns for e in answer.evidence]
    assert (answer.first_stamp, answer.last_stamp) == (min(stamps), max(stamps))


def test_choices_are_asked_of_the_model(seen: SpatialMemory) -> None:
    model = FakeModel(lambda question, about: Said("oak", choice_probabilities=(0.1, 0.9)))
    answer = engine_with(seen, model).answer(Request("What is the floor made of?", choices=("stone", "oak")))
    assert (answer.answer_type, answer.choice_index, answer.answer) == (AnswerType.CHOICE, 1, "oak")


def test_marks_are_measured_and_never_asked_of_the_model(seen: SpatialMemory) -> None:
    model = FakeModel()
    engine = engine_with(seen, model)
    assert engine.answer(DEPTH).source == AnswerSource.GEOMETRY
    for request in (
        replace(DEPTH, question="What color is <p0>?"),
        replace(DEPTH, question="Which color?"),
        Request("What happened at <t0>?", times=(int(STAMP),)),
        Request("Is it a chair in <box0>?", boxes=BOX.boxes),
        replace(DEPTH, question="What is softer?", choices=("<p0>", "the carpet")),
    ):
        answer = engine.answer(request)
        assert answer.error_code in (ErrorCode.INVALID_REQUEST, ErrorCode.NOT_UNDERSTOOD), answer
    assert model.asked == []


def test_both_are_heard_where_both_can_answer(seen: SpatialMemory, area: Answer) -> None:
    for said, word, higher in ((area.value, "agreement", True), (5 * area.value, "disagreement", False)):
        model = FakeModel({ASKED_AREA: f"{said:.1f}"})
        answer = engine_with(seen, model).answer(AREA)
        assert model.asked[0].question.text == ASKED_AREA
        assert measured(answer) == measured(area)
        assert (answer.source, answer.model_id) == (AnswerSource.BOTH, "fake")
        assert answer.answer == f"{area.answer}; the model says {said:.1f}"
        assert answer.confidence_method == f"{area.confidence_method} x {word} with the model"
        assert (answer.confidence > area.confidence) == higher
        assert {e.keyframe_id for e in answer.evidence} == {e.keyframe_id for e in area.evidence} | set(
            model.contexts[0]
        )


def test_a_unit_that_is_named_is_not_told_again(seen: SpatialMemory, area: Answer) -> None:
    model = FakeModel(lambda question, about: f"{area.value / 0.3048**2:.0f}")
    request = replace(AREA, question="What is the floor area of the room in square feet?")
    answer = engine_with(seen, model).answer(request)
    assert model.asked[0].question.text == request.question
    assert "x agreement" in answer.confidence_method


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (Said(error=ModelError("out of memory")), "out of memory"),
        (Said(error=ModelUnavailable("the worker is gone")), "gone"),
        (Said(error=ModelBusy("64 wait")), "64 wait"),
        (Said("17", seconds=30.0), "time limit"),
        ("quite large", "quite large"),
    ],
)
def test_a_model_that_fails_does_not_cost_the_measurement(
    seen: SpatialMemory, area: Answer, said: Said | str, says: str
) -> None:
    begin = time.monotonic()
    answer = engine_with(seen, FakeModel({ASKED_AREA: said}), cross_check_timeout_s=1.0).answer(AREA)
    assert time.monotonic() - begin < 10.0
    assert measured(answer) == measured(area)
    assert (answer.answer, answer.confidence, answer.source) == (area.answer, area.confidence, AnswerSource.GEOMETRY)
    assert answer.evidence == area.evidence
    assert says in answer.confidence_method
    assert "not compared" in answer.confidence_method


def test_a_defect_of_the_model_does_not_cost_the_measurement(
    seen: SpatialMemory, area: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_with(seen, FakeModel(lambda question, about: 1 // 0))  # type: ignore[arg-type,return-value]
    assert measured(engine.answer(AREA)) == measured(area)
    assert "ZeroDivisionError" in caplog.text
    assert engine.answer(DESCRIBE).error_code == ErrorCode.UNKNOWN


def test_a_check_ends_before_the_time_limit_does(seen: SpatialMemory, area: Answer) -> None:
    """What is measured is given in time, however slow the model."""
    model = FakeModel({ASKED_AREA: Said("17", seconds=30.0)})
    engine = engine_with(seen, model, cross_check_timeout_s=20.0)
    begin = time.monotonic()
    answer = engine.answer(replace(AREA, timeout=2_000_000_000))
    assert time.monotonic() - begin < 2.0
    assert measured(answer) == measured(area)


def test_a_model_that_is_not_ready_is_not_waited_for(seen: SpatialMemory, area: Answer) -> None:
    model = FakeModel()
    model.hold_context()
    answer = engine_with(seen, model, cross_check_timeout_s=20.0).answer(AREA)
    assert answer.time_generating < 5e9
    assert (measured(answer), model.asked) == (measured(area), [])
    assert "not encoded" in answer.confidence_method


def test_checking_can_be_turned_off(seen: SpatialMemory, area: Answer) -> None:
    model = FakeModel()
    answer = engine_with(seen, model, cross_check_with_model=False).answer(AREA)
    assert (answer.answer, answer.confidence_method) == (area.answer, area.confidence_method)
    assert (answer.source, model.asked) == (AnswerSource.GEOMETRY, [])


@pytest.mark.parametrize("code", [ErrorCode.ABSTAINED, ErrorCode.SCALE_UNAVAILABLE])
def test_the_model_answers_what_geometry_reads_but_cannot_tell(
    seen: SpatialMemory, monkeypatch: pytest.MonkeyPatch, code: ErrorCode
) -> None:
    monkeypatch.setitem(MEASURES, Extent, refuse(code))
    answer = engine_with(seen, FakeModel({ASKED_AREA: "17"})).answer(AREA)
    assert (answer.error_code, answer.source, answer.value, answer.unit) == (0, AnswerSource.MODEL, 17.0, "m2")
    failing = engine_with(seen, FakeModel({ASKED_AREA: Said(error=ModelError("out of memory"))})).answer(AREA)
    assert failing.error_code == code  # what geometry said tells more
    assert "too close to call" in failing.error_msg
    assert "out of memory" in failing.error_msg
    alone = SpatialQueryEngine(seen).answer(AREA)
    assert (alone.error_code, alone.error_msg) == (code, "too close to call")


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.NOT_SEEN,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.NO_FRAMES,
        ErrorCode.TF_ERROR,
        ErrorCode.TIMEOUT,
        ErrorCode.CANCELLED,
    ],
)
def test_other_refusals_of_geometry_are_final(
    seen: SpatialMemory, monkeypatch: pytest.MonkeyPatch, code: ErrorCode
) -> None:
    """A model would answer about what was never seen, too."""
    monkeypatch.setitem(MEASURES, Extent, refuse(code))
    model = FakeModel({ASKED_AREA: "17"})
    assert engine_with(seen, model).answer(AREA).error_code == code
    assert model.asked == []


def test_what_no_image_shows_is_not_asked_of_the_model(seen: SpatialMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel()
    engine = engine_with(seen, model)
    unseen = Request("How much of the room has not been seen yet?")
    assert engine.answer(unseen).source == AnswerSource.GEOMETRY
    monkeypatch.setitem(MEASURES, UnseenFraction, refuse(ErrorCode.ABSTAINED))
    assert engine.answer(unseen).error_code == ErrorCode.ABSTAINED
    assert model.asked == []


def test_a_model_that_is_not_sure_is_not_believed(seen: SpatialMemory) -> None:
    model = FakeModel({"Describe the room.": Said("a kitchen", 0.5)})  # three tokens
    answer = engine_with(seen, model, min_model_confidence=0.2).answer(DESCRIBE)
    assert (answer.error_code, answer.answer, answer.evidence) == (ErrorCode.ABSTAINED, "", ())
    assert "a kitchen" in answer.error_msg
    assert "0.12" in answer.error_msg
    assert engine_with(seen, model, min_model_confidence=0.1).answer(DESCRIBE).error_code == ErrorCode.NONE


def test_what_was_not_seen_is_not_asked_of_the_model(seen: SpatialMemory) -> None:
    model = FakeModel()
    assert engine_with(SpatialMemory(), model).answer(DESCRIBE).error_code == ErrorCode.NO_FRAMES
    later = replace(DESCRIBE, window_start=int(SOURCE.stamps[-1]) + 1)
    assert engine_with(seen, model).answer(later).error_code == ErrorCode.NO_FRAMES
    assert (model.asked, model.contexts) == ([], [])


def test_a_models_errors_get_their_codes(seen: SpatialMemory) -> None:
    model = FakeModel({"Describe the room.": Said("a kitchen", seconds=30.0), ASKED_AREA: Said("17", seconds=30.0)})
    engine = engine_with(seen, model)
    begin = time.monotonic()
    assert engine.answer(replace(DESCRIBE, timeout=100_000_000)).error_code == ErrorCode.TIMEOUT
    for request in (DESCRIBE, AREA):  # given up once the model is at it
        asked = len(model.asked)
        answer = engine.answer(request, cancelled=lambda asked=asked: len(model.asked) > asked)  # type: ignore[misc]
        assert answer.error_code == ErrorCode.CANCELLED, request
    assert time.monotonic() - begin < 15.0
    model.go_down("the worker is gone")
    assert engine.answer(DESCRIBE).error_code == ErrorCode.MODEL_ERROR


def test_geometry_answers_while_the_model_is_at_work(seen: SpatialMemory) -> None:
    model = FakeModel()
    engine = engine_with(seen, model)
    model.hold()
    threads = [threading.Thread(target=engine.answer, args=(DESCRIBE,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    model.wait_asked(4)
    begin = time.monotonic()
    assert engine.answer(DEPTH).error_code == ErrorCode.NONE
    assert time.monotonic() - begin < 5.0
    model.release()
    for thread in threads:
        thread.join()


NEEDS = {
    "Describe the room.": True,
    "What is the floor area of the room?": True,
    "How much of the room has not been seen yet?": False,
    "What is the depth of <p0>?": False,
    "What color is <p0>?": False,
    "What is the depth of <p5>?": False,
    "": False,
}


@pytest.mark.parametrize("question", NEEDS)
def test_which_questions_may_wait_for_the_model(seen: SpatialMemory, question: str) -> None:
    model = FakeModel()
    request = Request(question, points=DEPTH.points if "<p" in question else ())
    engine = engine_with(seen, model)
    assert engine.needs_model(request) == NEEDS[question]
    assert not SpatialQueryEngine(seen).needs_model(request)
    engine.answer(request)
    assert bool(model.asked) == NEEDS[question]


def test_the_context_follows_the_memory(seen: SpatialMemory) -> None:
    model = FakeModel()
    engine = engine_with(seen, model, max_keyframes=6)
    assert engine.update_context()
    assert not engine.update_context()
    engine.config = replace(engine.config, max_keyframes=4)
    assert engine.update_context()
    assert [len(c) for c in model.contexts] == [6, 4]
    assert not SpatialQueryEngine(seen).update_context()


@pytest.fixture(scope="module")
def alone(seen: SpatialMemory, area: Answer) -> dict[str, Answer]:
    """What geometry says alone, by question."""
    engine = SpatialQueryEngine(seen, SOURCE.info.sensor)
    questions = ("How big is the room?", "How far did the camera travel?", "By how many degrees did the camera turn?")
    return {AREA.question: area} | {question: engine.answer(Request(question)) for question in questions}


@pytest.fixture(scope="module")
def checking(seen: SpatialMemory) -> Callable[[Script], SpatialQueryEngine]:
    """One engine for all that a model may say."""
    model = FakeModel()
    engine = engine_with(seen, model)

    def saying(script: Script) -> SpatialQueryEngine:
        model.answers = script
        return engine

    return saying


@given(
    said=st.one_of(
        st.floats(-1e9, 1e9).map(str), st.text(max_size=40), st.sampled_from(["yes", "no", "5 m by 4 m", "B", "1e400"])
    ),
    probability=st.floats(0.0, 1.0),
    data=st.data(),
)
@settings(max_examples=30, deadline=None)
def test_no_model_alters_a_measurement(
    checking: Callable[[Script], SpatialQueryEngine],
    alone: dict[str, Answer],
    said: str,
    probability: float,
    data: st.DataObject,
) -> None:
    question = data.draw(st.sampled_from(sorted(alone)))
    answer = checking(lambda _question, _about: Said(said, probability)).answer(Request(question))
    assert measured(answer) == measured(alone[question])
    assert answer.answer.startswith(alone[question].answer)
    assert 0.0 <= answer.confidence <= 1.0
    json.dumps(answer.to_json(), allow_nan=False)
