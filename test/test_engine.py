"""Questions to answers: the shared recordings, and requests that nobody should send but somebody will."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.memory.spatial_memory import MemoryConfig, SpatialMemory
from spatial_mllm_ros.query.answer import ImageBox, ImagePoint, Request
from spatial_mllm_ros.query.codes import AnswerType, ErrorCode
from spatial_mllm_ros.query.context import QueryConfig
from spatial_mllm_ros.query.engine import HANDLERS, SpatialQueryEngine
from spatial_mllm_ros.query.parser import QuestionParser
from spatial_mllm_ros.query.table import built_in_table
from spatial_mllm_ros.session.questions import ask, read_questions
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import Outcome
from spatial_mllm_ros.sources.open_source import open_source
from spatial_mllm_ros.sources.rooms.rendered import RenderedSource

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


def test_every_family_of_the_table_has_a_handler() -> None:
    assert set(built_in_table().families) == set(HANDLERS)


DEPTH = Request("What is the depth of <p0>?", points=(point(80, 60),))
BOX = Request("How tall is the object in <box0>?", boxes=(ImageBox(int(STAMP), "", 40, 30, 120, 100),))
BAD: dict[str, tuple[Request, ErrorCode, str]] = {
    "empty": (replace(DEPTH, question=""), ErrorCode.INVALID_REQUEST, "empty"),
    "blank": (replace(DEPTH, question=" \n\t "), ErrorCode.INVALID_REQUEST, "empty"),
    "ten megabytes": (replace(DEPTH, question="a " * 5_000_000), ErrorCode.INVALID_REQUEST, "2000"),
    "lone surrogate": (replace(DEPTH, question="depth of <p0> \ud800?"), ErrorCode.INVALID_REQUEST, "UTF-8"),
    "point not given": (replace(DEPTH, question="depth of <p1>?"), ErrorCode.INVALID_REQUEST, "<p1>"),
    "free form": (Request("Describe the room."), ErrorCode.NO_MODEL, "spatial_mllm_ros[model]"),
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
    monkeypatch.setitem(HANDLERS, "depth", lambda context: 1 // 0)
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


@given(
    question=st.sampled_from([e for f in built_in_table().families.values() for e in f.examples]),
    u=st.floats(-50, 250),
    v=st.floats(-50, 200),
    index=st.integers(-3, 62),
)
@settings(max_examples=150, deadline=None)
def test_no_question_breaks_the_engine(engine: SpatialQueryEngine, question: str, u: float, v: float, index: int) -> None:
    """Whatever is asked about whatever pixel and moment, the answer is an answer or a code with a reason."""
    stamp = SOURCE.stamps[0] + index * 100_000_000
    other = SOURCE.stamps[40]
    request = Request(
        question,
        points=(point(u, v, stamp), point(70, 50, other)),
        boxes=(ImageBox(int(stamp), "", u, v, u + 60, v + 50),),
        times=(int(stamp), int(other)),
    )
    answer = engine.answer(request)
    assert answer.error_code != ErrorCode.UNKNOWN, answer.error_msg
    assert bool(answer.error_msg) == (answer.error_code != ErrorCode.NONE)
    assert answer.answer if answer.error_code == ErrorCode.NONE else not answer.answer
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


def test_extending_the_table_reaches_the_engine(engine: SpatialQueryEngine, tmp_path: Path) -> None:
    from spatial_mllm_ros.query.table import load_table

    extra = tmp_path / "mine.yaml"
    extra.write_text("vocabulary:\n  DEPTH: [tiefe]\n")
    parser = QuestionParser(load_table(extra))
    mine = SpatialQueryEngine(engine.memory, engine.sensor, QueryConfig(), parser=parser)
    assert mine.answer(replace(DEPTH, question="tiefe of <p0>?")).value == engine.answer(DEPTH).value

