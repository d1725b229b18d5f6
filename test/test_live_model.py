"""The live engine with a model, without torch: questions queued apart, contexts that follow the keyframes, an honest state."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_model import FakeModel, Said
from test_live import BASIC, DEPTH, finding, play, small, wait_for

from spatial_mllm_ros.nodes import model as node_model
from spatial_mllm_ros.nodes.diagnosis import Level
from spatial_mllm_ros.nodes.live import LiveEngine
from spatial_mllm_ros.nodes.model import ConfigurationError
from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.queries.answer import Request
from spatial_mllm_ros.queries.codes import AnswerSource, ErrorCode
from spatial_mllm_ros.serving.interface import ModelError, ModelFrame, ModelQuestion

WITH_MODEL = replace(BASIC, model="somebody/something", model_context_period_s=0.05, cross_check=False)
FREE = Request("What color is the sofa?")
Engines = Callable[..., LiveEngine]


@pytest.fixture
def model() -> FakeModel:
    return FakeModel({FREE.question: "red"})


@pytest.fixture
def engines(model: FakeModel) -> Iterator[Engines]:
    """Makes engines that run with the model, and closes them in the end."""
    made: list[LiveEngine] = []

    def make(settings: Settings = WITH_MODEL, frames: int = 6, **options: Any) -> LiveEngine:
        engine = LiveEngine(settings, load_model=lambda _: model, **options)
        made.append(engine)
        engine.start()
        play(engine, small(frames))
        wait_for(lambda: len(engine.memory) == frames)
        return engine

    yield make
    model.release()
    for engine in made:
        engine.close()


def test_a_free_form_question_is_answered_by_the_model(engines: Engines, model: FakeModel) -> None:
    engine = engines()
    wait_for(lambda: model.status().context_frames)
    answer = engine.ask(FREE).result(5)
    assert (answer.answer, answer.source, answer.model_id) == ("red", AnswerSource.MODEL, "fake")
    assert [e.keyframe_id for e in answer.evidence] == list(model.status().context_frames)
    assert answer.first_stamp == min(e.stamp_ns for e in answer.evidence)


def test_geometry_does_not_wait_for_the_model(engines: Engines, model: FakeModel) -> None:
    """A model takes seconds; a planner that asks for a distance must not notice."""
    engine = engines()
    wait_for(lambda: model.status().context_frames)
    model.hold()
    slow = [engine.ask(FREE) for _ in range(8)]
    assert engine.ask(DEPTH).result(5).source is AnswerSource.GEOMETRY
    assert not any(future.done() for future in slow)
    model.release()
    assert {future.result(5).answer for future in slow} == {"red"}


def test_a_full_queue_of_the_model_is_busy_and_geometry_is_not(engines: Engines, model: FakeModel) -> None:
    engine = engines(replace(WITH_MODEL, model_queue=3))
    wait_for(lambda: model.status().context_frames)
    model.hold()
    first = engine.ask(FREE)
    model.wait_asked()
    rest = [engine.ask(FREE) for _ in range(5)]
    assert engine.ask(DEPTH).result(5).error_code is ErrorCode.NONE
    model.release()
    codes = [future.result(5).error_code for future in (first, *rest)]
    assert codes == [ErrorCode.NONE] * 4 + [ErrorCode.BUSY] * 2
    told = finding(engine, "model questions")
    assert (told.level, dict(told.values)["answered_BUSY"]) == (Level.WARN, "2")
    assert "model_queue" in told.message


def test_the_context_follows_the_keyframes(engines: Engines, model: FakeModel) -> None:
    engine = engines(frames=4)
    wait_for(lambda: len(model.status().context_frames) == 4)
    play(engine, small(8, start_ns=small(4)[-1].stamp_ns + 10**8))
    wait_for(lambda: len(model.status().context_frames) > 4)
    engine.reset()
    wait_for(lambda: model.contexts[-1] == ())
    assert engine.ask(FREE).result(5).error_code is ErrorCode.NO_FRAMES


def test_evidence_is_what_the_model_saw(engines: Engines, model: FakeModel) -> None:
    """Keyframes change all the time; an answer names those that it rests on, not those of now."""
    seen: list[tuple[int, ...]] = []

    def script(_: ModelQuestion, frames: tuple[ModelFrame, ...]) -> Said:
        seen.append(tuple(frame.frame_id for frame in frames))
        return Said("red")

    model.answers = script
    engine = engines(frames=3)
    wait_for(lambda: model.status().context_frames)
    stop = threading.Event()

    def stream_on() -> None:
        start = small(3)[-1].stamp_ns
        for i in range(12):
            play(engine, small(1, start_ns=start + (i + 1) * 10**8))
            if stop.wait(0.02):
                return

    thread = threading.Thread(target=stream_on)
    thread.start()
    for _ in range(10):
        answer = engine.ask(FREE).result(5)
        assert tuple(e.keyframe_id for e in answer.evidence) == seen[-1]
    stop.set()
    thread.join()


def test_stopping_gives_up_the_question_and_closing_frees_the_model(engines: Engines, model: FakeModel) -> None:
    engine = engines()
    wait_for(lambda: model.status().context_frames)
    model.hold()
    asked = engine.ask(FREE)
    model.wait_asked()
    engine.stop("the node was deactivated")
    answer = asked.result(5)
    assert (answer.error_code, answer.error_msg) == (ErrorCode.CANCELLED, "the node was deactivated")
    model.release()
    engine.start()
    assert engine.ask(FREE).result(5).answer == "red"
    engine.close()
    assert model._closed


def test_a_failing_model_is_an_error_of_the_call_and_of_the_diagnosis(engines: Engines, model: FakeModel) -> None:
    model.answers = {FREE.question: Said(error=ModelError("the model's process was killed"))}
    engine = engines()
    wait_for(lambda: model.status().context_frames)
    answer = engine.ask(FREE).result(5)
    assert (answer.error_code, answer.error_msg) == (ErrorCode.MODEL_ERROR, "the model's process was killed")
    assert finding(engine, "model questions").level is Level.ERROR
    assert finding(engine, "model").level is Level.OK
    model.go_down("it died five times in a row")
    told = finding(engine, "model")
    assert told.level is Level.ERROR
    assert "it died five times in a row" in told.message
    assert engine.ask(DEPTH).result(5).error_code is ErrorCode.NONE


def test_a_time_limit_holds_while_the_model_answers(engines: Engines, model: FakeModel) -> None:
    engine = engines()
    wait_for(lambda: model.status().context_frames)
    model.hold()
    assert engine.ask(replace(FREE, timeout=50_000_000)).result(5).error_code is ErrorCode.TIMEOUT


def test_a_checkpoint_that_nobody_trained_is_refused(tmp_path: Path) -> None:
    """Its answers would look like answers."""
    (tmp_path / "config.json").write_text('{"model_type": "spatial-mllm", "random_weights": true}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="nobody trained"):
        node_model.load_model(Settings(model=str(tmp_path)))


def test_what_the_parameters_say_reaches_the_model() -> None:
    options = node_model.model_options(
        Settings(
            model="a/b",
            model_precision="int8",
            model_device="cuda:1",
            model_attention="eager",
            model_min_pixels=4000,
            model_max_pixels=9000,
            model_max_new_tokens=7,
            model_cache_mib=3,
            model_max_frames=6,
            model_threads=5,
            model_encoder_runtime="onnx",
            model_encoder_file="encoder.onnx",
            model_encoder_providers="cuda,cpu",
            model_encoder_engine_folder="engines",
        )
    )
    assert (options.encoder_runtime, options.encoder_file) == ("onnx", "encoder.onnx")
    assert (options.encoder_providers, options.encoder_engine_folder) == ("cuda,cpu", "engines")
    assert (options.model, options.precision, options.device, options.attention) == ("a/b", "int8", "cuda:1", "eager")
    assert (options.min_pixels, options.max_pixels, options.max_new_tokens) == (4000, 9000, 7)
    assert (options.cache_mib, options.max_context_frames, options.threads) == (3, 6, 5)
