"""What a model is shown, and what its answers become."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_model import FakeModel, Said

from spatial_mllm_ros.answering.context import QueryConfig
from spatial_mllm_ros.answering.model_backend import ModelBackend
from spatial_mllm_ros.memory.spatial_memory import MemoryConfig, SpatialMemory
from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, EvidenceKind, QueryError, ScaleSource
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.serving.interface import (
    ModelBusy,
    ModelCancelled,
    ModelError,
    ModelTimeout,
    ModelUnavailable,
)
from spatial_mllm_ros.simulation.rendered import RenderedSource

SOURCE = RenderedSource(seed=1, rooms=1, frames=40, rate_hz=10.0, width=96, height=72)
ROOM = Request("Describe the room.")
EIGHT = QueryConfig(max_keyframes=8, timeout_s=5.0)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(SOURCE.frames())


def remembering(frames: list[Frame], config: MemoryConfig | None = None, first_id: int = 0) -> SpatialMemory:
    memory = SpatialMemory(config, first_id=first_id)
    for frame in frames:
        assert memory.add(frame) is not None
    return memory


def ask(
    backend: ModelBackend,
    memory: SpatialMemory,
    request: Request = ROOM,
    config: QueryConfig = EIGHT,
    timeout_s: float = 5.0,
    cancelled: Callable[[], bool] = lambda: False,
    on_text: Callable[[str], None] | None = None,
    only_if_ready: bool = False,
) -> Answer:
    return backend.answer(
        request,
        memory,
        config,
        timeout_s=timeout_s,
        cancelled=cancelled,
        on_text=on_text,
        only_if_ready=only_if_ready,
    )


def ids(answer: Answer) -> list[int]:
    return [e.keyframe_id for e in answer.evidence]


# ---- the context


def test_the_context_is_the_keyframes_in_time_order(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel()
    assert ModelBackend(model).update(memory, 8)
    assert model.contexts == [tuple(sorted(memory.keyframes(8).picked))]


def test_an_update_without_news_does_nothing(frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    memory, model = remembering(frames), FakeModel()
    backend = ModelBackend(model)
    backend.update(memory, 8)
    monkeypatch.setattr(memory, "keyframes", None)  # not even asked
    assert not backend.update(memory, 8)
    assert len(model.contexts) == 1


def test_a_frame_that_adds_nothing_changes_no_context(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel()
    backend = ModelBackend(model)
    backend.update(memory, 8)
    again = replace(frames[-1], stamp_ns=frames[-1].stamp_ns + 1)
    memory.add(again)
    assert not backend.update(memory, 8)
    assert backend.update(memory, 6)  # another number of them does
    assert len(model.contexts[-1]) == 6


def test_frames_are_decoded_once(frames: list[Frame]) -> None:
    """A change of one keyframe costs one decoded image, not all of them."""
    decoded: list[bytes] = []

    def decoder(data: bytes) -> np.ndarray:
        decoded.append(data)
        return np.zeros((72, 96, 3), dtype=np.uint8)

    packed = [replace(f, image=EncodedImage(b"%d" % i, decoder)) for i, f in enumerate(frames)]
    memory, model = remembering(packed[:10]), FakeModel()
    backend = ModelBackend(model)
    backend.update(memory, 8)
    for frame in packed[10:]:
        memory.add(frame)
        backend.update(memory, 8)
    shown = {i for context in model.contexts for i in context}
    assert len(model.contexts) > 2
    assert (
        len(shown)
        <= len(decoded)
        <= sum(len(set(b) - set(a)) for a, b in zip([(), *model.contexts], model.contexts, strict=False))
        + len(model.contexts)
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_the_number_of_frames_is_even(frames: list[Frame], count: int) -> None:
    """The frame that adds least goes; a single one stays alone."""
    memory, model = remembering(frames), FakeModel()
    ModelBackend(model).update(memory, count)
    picked = memory.keyframes(count).picked
    assert len(picked) == count
    assert model.contexts == [tuple(sorted(picked[: count // 2 * 2] or picked))]


def test_an_empty_memory_is_forgotten_at_once(frames: list[Frame]) -> None:
    model = FakeModel()
    backend = ModelBackend(model)
    assert not backend.update(SpatialMemory(), 8)
    backend.update(remembering(frames[:6]), 8)
    assert backend.update(SpatialMemory(), 8) is False
    assert model.contexts[-1] == ()


def test_another_memory_forgets_the_former_first(frames: list[Frame]) -> None:
    """Else the last complete context would still answer about the past that was forgotten."""
    old, model = remembering(frames[:20]), FakeModel()
    backend = ModelBackend(model)
    backend.update(old, 8)
    new = remembering(frames[20:], first_id=old.next_id)
    backend.update(new, 8)
    assert model.contexts[1] == ()
    assert min(model.contexts[2]) >= old.next_id
    # a question about the old one that is still on its way gets frames of its own and leaves the context alone
    assert max(ids(ask(backend, old))) < old.next_id
    assert len(model.contexts) == 3
    assert min(ids(ask(backend, new))) >= old.next_id


def test_images_without_depth_are_spread_evenly_and_mostly_stay(frames: list[Frame]) -> None:
    memory, model = SpatialMemory(), FakeModel()
    backend = ModelBackend(model)
    for frame in frames:
        memory.add(replace(frame, depth=None))
        backend.update(memory, 8)
    last = model.contexts[-1]
    assert len(last) in (4, 6, 8)
    assert set(np.diff(last).tolist()) == {8}
    assert len(model.contexts) < len(frames) / 2


def test_frames_that_cannot_be_shown(frames: list[Frame], caplog: pytest.LogCaptureFixture) -> None:
    def broken(data: bytes) -> np.ndarray:
        raise ValueError("no JPEG")

    memory = remembering(
        [replace(f, image=EncodedImage(b"x", broken) if i % 2 else f.image) for i, f in enumerate(frames)]
    )
    model = FakeModel()
    backend = ModelBackend(model)
    backend.update(memory, 8)
    assert model.contexts[0]
    assert all(i % 2 == 0 for i in model.contexts[0])
    assert "no JPEG" in caplog.text
    bare = remembering([replace(f, image=None) for f in frames])
    with pytest.raises(QueryError, match="color image") as error:
        ask(ModelBackend(FakeModel()), bare)
    assert error.value.code == ErrorCode.NO_FRAMES


def test_no_more_frames_than_the_model_takes(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel()
    backend = ModelBackend(model, max_frames=4)
    backend.update(memory, 8)
    assert len(model.contexts[0]) == 4
    assert len(ids(ask(backend, memory, replace(ROOM, max_keyframes=60_000)))) == 4


# ---- which frames a question is about


def test_a_question_is_about_the_context(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel()
    backend = ModelBackend(model)
    answer = ask(backend, memory)  # nobody had updated it
    assert model.asked[0].frames is None
    assert tuple(ids(answer)) == model.contexts[0]
    assert ask(backend, memory, replace(ROOM, max_keyframes=8)).evidence == answer.evidence
    assert model.asked[1].frames is None


def test_a_window_is_asked_about_its_own_frames(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel()
    start, end = frames[10].stamp_ns, frames[20].stamp_ns
    answer = ask(ModelBackend(model), memory, replace(ROOM, window_start=start, window_end=end))
    assert model.contexts == []
    assert len(answer.evidence) % 2 == 0
    assert all(start <= e.stamp_ns <= end for e in answer.evidence)
    assert [e.stamp_ns for e in answer.evidence] == sorted(e.stamp_ns for e in answer.evidence)


def test_fewer_keyframes_are_frames_of_their_own(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel()
    backend = ModelBackend(model)
    assert len(ids(ask(backend, memory, replace(ROOM, max_keyframes=5)))) == 4
    assert len(ids(ask(backend, memory, replace(ROOM, max_keyframes=1)))) == 1


def test_a_window_in_which_nothing_was_seen(frames: list[Frame]) -> None:
    model = FakeModel()
    with pytest.raises(QueryError, match="nothing was seen") as error:
        ask(ModelBackend(model), remembering(frames), replace(ROOM, window_start=frames[-1].stamp_ns + 1))
    assert (error.value.code, model.asked) == (ErrorCode.NO_FRAMES, [])
    few = remembering(frames, MemoryConfig(max_frames=4))
    lost = next(f.stamp_ns for f in frames if few.nearest(f.stamp_ns) is None)
    with pytest.raises(QueryError, match="max_frames") as error:
        ask(ModelBackend(model), few, replace(ROOM, window_start=lost, window_end=lost))
    assert error.value.code == ErrorCode.NO_FRAMES


def test_latest_answers_about_the_last_complete_context_and_wait_about_the_newest(frames: list[Frame]) -> None:
    memory, model = remembering(frames[:12]), FakeModel()
    backend = ModelBackend(model)
    first = ids(ask(backend, memory))
    model.hold_context()
    for frame in frames[12:]:
        memory.add(frame)
    assert ids(ask(backend, memory)) == first  # and it is the node that says when to encode
    assert len(model.contexts) == 1
    backend.update(memory, 8)
    assert ids(ask(backend, memory)) == first
    threading.Timer(0.05, model.release_context).start()
    newest = ids(ask(backend, memory, config=replace(EIGHT, wait_for_context=True)))
    assert newest == list(model.contexts[-1]) != first


def test_evidence_is_what_was_used_while_contexts_change(frames: list[Frame]) -> None:
    """The memory drops frames and the context moves on while a question is being answered."""
    memory, model = remembering(frames[:10], MemoryConfig(max_frames=10)), FakeModel()
    backend = ModelBackend(model)
    backend.update(memory, 8)
    stamps = {s.frame_id: s.frame.stamp_ns for s in memory.frames()}
    poses = {s.frame_id: s.frame.T_world_camera for s in memory.frames()}
    model.hold()
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask(backend, memory)))
    thread.start()
    model.wait_asked()
    used = model.contexts[0]
    for i, frame in enumerate(frames[10:]):
        memory.add(frame)
        if i % 4 == 0:
            backend.update(memory, 8)
    assert len(model.contexts) > 2
    assert any(memory.get(i) is None for i in used)
    model.release()
    thread.join()
    (answer,) = answers
    assert [(e.keyframe_id, e.stamp_ns) for e in answer.evidence] == [(i, stamps[i]) for i in ids(answer)]
    assert tuple(ids(answer)) in model.contexts
    for e in answer.evidence:
        if e.keyframe_id in poses:
            T = poses[e.keyframe_id]
            assert T is not None
            assert e.camera_pose.position == tuple(T[:3, 3].tolist())


def test_a_corrected_pose_is_the_one_in_the_evidence(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel()
    backend = ModelBackend(model)
    before = ask(backend, memory).evidence[0]
    moved = np.eye(4)
    moved[:3, 3] = (1.0, 2.0, 3.0)
    memory.correct_poses({before.stamp_ns: moved})
    after = next(e for e in ask(backend, memory).evidence if e.keyframe_id == before.keyframe_id)
    assert after.camera_pose.position == (1.0, 2.0, 3.0)


def test_frames_that_nobody_showed_are_no_evidence(frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    memory, model = remembering(frames), FakeModel()
    answered = model.ask
    monkeypatch.setattr(model, "ask", lambda *a, **k: replace(answered(*a, **k), frame_ids=(977,)))
    with pytest.raises(QueryError, match="977") as error:
        ask(ModelBackend(model), memory)
    assert error.value.code == ErrorCode.MODEL_ERROR


# ---- answers


def test_the_unit_that_is_meant_is_told(frames: list[Frame]) -> None:
    """So that a bare number has one."""
    memory, model = remembering(frames), FakeModel(lambda question, about: "17")
    backend = ModelBackend(model)
    request = Request("What is the floor area of the room?")
    answer = backend.answer(request, memory, EIGHT, timeout_s=5.0, unit="m2")
    assert model.asked[0].question.text == "What is the floor area of the room (in square meters)?"
    assert (answer.answer_type, answer.value, answer.unit) == (AnswerType.NUMBER, 17.0, "m2")
    backend.answer(request, memory, EIGHT, timeout_s=5.0)
    assert model.asked[1].question.text == request.question


@pytest.mark.parametrize(
    ("change", "choices", "says"),
    [
        ({"text": " "}, (), "said nothing"),
        ({"text": "<answer></answer>"}, (), "said nothing"),
        ({"token_probabilities": (math.nan,)}, (), "nonsense"),
        ({"choice_probabilities": (math.nan, 0.5)}, ("a", "b"), "nonsense"),
        ({"choice_probabilities": ()}, ("a", "b"), "did not choose"),
    ],
)
def test_what_is_no_answer(
    frames: list[Frame],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    choices: tuple[str, ...],
    says: str,
) -> None:
    memory, model = remembering(frames[:4]), FakeModel()
    asked = model.ask
    monkeypatch.setattr(model, "ask", lambda *a, **k: replace(asked(*a, **k), **change))
    with pytest.raises(QueryError, match=says) as raised:
        ask(ModelBackend(model), memory, replace(ROOM, choices=choices))
    assert raised.value.code == ErrorCode.MODEL_ERROR


def test_what_was_cut_off_is_words(frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    """About 2 … what?"""
    memory, model = remembering(frames[:4]), FakeModel({"How far is the door in metres?": "2"})
    asked = model.ask
    monkeypatch.setattr(model, "ask", lambda *a, **k: replace(asked(*a, **k), complete=False))
    answer = ask(ModelBackend(model), memory, Request("How far is the door in metres?"))
    assert (answer.answer_type, answer.answer) == (AnswerType.TEXT, "2 …")


def test_an_answer_says_where_it_comes_from(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel({"Describe the room.": Said("a small kitchen", 0.8)})
    pieces: list[str] = []
    answer = ask(ModelBackend(model), memory, on_text=pieces.append)
    assert (answer.answer, "".join(pieces)) == ("a small kitchen", "a small kitchen")
    assert (answer.answer_type, answer.source, answer.scale_source) == (
        AnswerType.TEXT,
        AnswerSource.MODEL,
        ScaleSource.NONE,
    )
    assert answer.model_id == "fake"
    assert 0 < answer.confidence <= 1
    assert answer.confidence_method
    assert all(e.kind == EvidenceKind.FRAME and e.label == "seen by the model" for e in answer.evidence)
    assert answer.time_selecting > 0


def test_numbers_and_choices(frames: list[Frame]) -> None:
    memory = remembering(frames)
    model = FakeModel(
        {
            "How far is the table from the door?": "2.5 m",
            "What is it?": Said("a chair", choice_probabilities=(0.2, 0.7, 0.1)),
        }
    )
    backend = ModelBackend(model)
    number = ask(backend, memory, Request("How far is the table from the door?"))
    assert (number.answer_type, number.value, number.unit) == (AnswerType.NUMBER, 2.5, "m")
    choice = ask(backend, memory, Request("What is it?", choices=("a table", "a chair", "a bed")))
    assert (choice.answer_type, choice.choice_index) == (AnswerType.CHOICE, 1)
    assert choice.confidence == pytest.approx(0.7)
    assert model.asked[1].question.choices == ("a table", "a chair", "a bed")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelError("out of memory"), ErrorCode.MODEL_ERROR),
        (ModelUnavailable("the worker is gone"), ErrorCode.MODEL_ERROR),
        (ModelBusy("64 wait"), ErrorCode.BUSY),
        (ModelCancelled("given up"), ErrorCode.CANCELLED),
        (ModelTimeout("too late"), ErrorCode.TIMEOUT),
    ],
)
def test_errors_become_codes(frames: list[Frame], error: ModelError, code: ErrorCode) -> None:
    model = FakeModel({"Describe the room.": Said(error=error)})
    with pytest.raises(QueryError, match=str(error)) as raised:
        ask(ModelBackend(model), remembering(frames))
    assert raised.value.code == code


def test_a_model_that_is_gone_when_the_context_is_to_be_set(
    frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, model = remembering(frames), FakeModel()

    def gone(frames: object) -> None:
        raise ModelUnavailable("the worker is gone")

    backend = ModelBackend(model)
    with monkeypatch.context() as patched:
        patched.setattr(model, "set_context", gone)
        with pytest.raises(ModelUnavailable):
            backend.update(memory, 8)
    assert backend.update(memory, 8)  # nothing was lost


def test_time_and_patience_end(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel()
    backend = ModelBackend(model)
    model.hold()
    begin = time.monotonic()
    with pytest.raises(QueryError) as raised:
        ask(backend, memory, timeout_s=0.1)
    assert raised.value.code == ErrorCode.TIMEOUT
    with pytest.raises(QueryError) as raised:
        ask(backend, memory, cancelled=lambda: time.monotonic() > begin + 0.2)
    assert raised.value.code == ErrorCode.CANCELLED
    with pytest.raises(QueryError) as raised:
        ask(backend, memory, timeout_s=0.0)
    assert raised.value.code == ErrorCode.TIMEOUT
    assert time.monotonic() - begin < 10.0


def test_what_was_forgotten_meanwhile_is_no_frames(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel()
    backend = ModelBackend(model)
    backend.update(memory, 8)
    model.set_context(())
    with pytest.raises(QueryError) as raised:
        ask(backend, memory, timeout_s=0.2)
    assert raised.value.code in (ErrorCode.NO_FRAMES, ErrorCode.TIMEOUT)


def test_only_if_ready(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel()
    backend = ModelBackend(model)
    model.hold_context()
    with pytest.raises(QueryError, match="not encoded") as raised:
        ask(backend, memory, only_if_ready=True)
    assert raised.value.code == ErrorCode.BUSY
    model.release_context()
    complete = ids(ask(backend, memory, only_if_ready=True))
    model.hold_context()
    backend.update(memory, 6)
    patient = QueryConfig(max_keyframes=6, wait_for_context=True)
    assert ids(ask(backend, memory, config=patient, only_if_ready=True)) == complete  # and does not wait for six
    model.go_down("out of memory")
    with pytest.raises(QueryError, match="out of memory"):
        ask(backend, memory, only_if_ready=True)


def test_times_add_up(frames: list[Frame]) -> None:
    memory, model = remembering(frames), FakeModel({"Describe the room.": Said("yes", seconds=0.1)})
    backend = ModelBackend(model)
    ask(backend, memory)
    begin = time.monotonic()
    answer = ask(backend, memory)
    spent = time.monotonic() - begin
    parts = answer.time_queued + answer.time_selecting + answer.time_encoding + answer.time_generating
    assert 0.09e9 < answer.time_generating <= parts <= spent * 1e9
    assert not math.isnan(answer.confidence)


def test_torch_is_not_needed() -> None:
    source = Path(__file__).parents[1] / "spatial_mllm_ros" / "answering" / "model_backend.py"
    assert "torch" not in source.read_text(encoding="utf-8")
