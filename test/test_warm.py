"""Contexts kept warm: token for token the answers of the cold path and of transformers, whatever happened before."""

# ruff: noqa: E402
from __future__ import annotations

import contextlib
import math
import random
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra 'model' is not installed")
pytest.importorskip("transformers", reason="the extra 'model' is not installed")

from spatial_mllm_ros.models.mllm import warm
from spatial_mllm_ros.models.mllm.encoder import VideoEncoder
from spatial_mllm_ros.models.mllm.engine import ModelEngine
from spatial_mllm_ros.models.mllm.generate import Limits, TextStream, Writer, choose
from spatial_mllm_ros.models.mllm.prompts import Prompts
from spatial_mllm_ros.models.mllm.random_weights import FAMILIES, build_random_model, make_config, make_tokenizer
from spatial_mllm_ros.models.vggt.processing import FrameFormat, frame_format, video_inputs
from spatial_mllm_ros.serving.interface import (
    Generated,
    ModelCancelled,
    ModelError,
    ModelFrame,
    ModelOptions,
    ModelQuestion,
    ModelTimeout,
)

OPTIONS = ModelOptions("random", min_pixels=60 * 60, max_pixels=120 * 120, max_new_tokens=10)
QUESTIONS = ("How far is the chair from the table?", "Is there a sofa?", "Which is it?")
SHAPE = (96, 128)


@dataclass
class Model:
    """A tiny random model with all that an engine needs."""

    model: Any
    encoder: VideoEncoder
    prompts: Prompts
    how: FrameFormat

    def engine(self, **changes: Any) -> ModelEngine:
        return ModelEngine(self.encoder, replace(OPTIONS, **changes))

    def generate(self, question: str, frames: Sequence[ModelFrame]) -> tuple[int, ...]:
        """As the published script does it: everything anew, transformers' ``generate`` with its own cache."""
        stamps = [frame.stamp_ns for frame in frames]
        prefix = self.prompts.prefix(self.how, stamps, self.how.size([SHAPE]))
        ids = torch.tensor([[*prefix, *self.prompts.question(ModelQuestion(question)).ids]])
        inputs = dict(video_inputs(frames, self.how))
        if self.how.family.startswith("qwen"):
            inputs["mm_token_type_ids"] = 2 * (ids == self.prompts.pad_id).int()
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                **inputs,
                do_sample=False,
                max_new_tokens=OPTIONS.max_new_tokens,
                eos_token_id=list(self.encoder.end_ids),
                pad_token_id=0,
            )
        return tuple(out[0, ids.shape[1] :].tolist())


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny matrices
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    made = {}
    for family in FAMILIES:
        tokenizer = make_tokenizer(family)
        model = build_random_model(make_config("tiny", tokenizer, family=family), dtype=torch.float32)
        how = frame_format(family, OPTIONS)
        if family == "internvl":
            how = replace(how, fixed_size=(56, 56), tokens_per_frame=4)
        prompts = Prompts(tokenizer, family)
        made[family] = Model(model, VideoEncoder(model, tokenizer, prompts, how, "random", OPTIONS), prompts, how)
    return made


@pytest.fixture
def spatial(models: dict[str, Model]) -> Model:
    return models["spatial-mllm"]


def frames(*ids: int) -> list[ModelFrame]:
    """Frames whose image follows from their id, as does their time."""
    return [
        ModelFrame(
            i,
            i * 10**9,
            np.kron(
                np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8)
            ),
        )
        for i in ids
    ]


def finish(engine: ModelEngine) -> int:
    """Work until nothing is pending; the number of steps."""
    steps = 0
    while engine.step():
        steps += 1
    return steps


def told(generated: Generated) -> tuple[Any, ...]:
    """What was said and how likely, to the last bit."""
    return generated.token_ids, generated.token_probabilities, generated.choice_probabilities, generated.text


@pytest.mark.parametrize("family", FAMILIES)
def test_warm_is_cold_is_transformers(models: dict[str, Model], family: str) -> None:
    model = models[family]
    seen = frames(3, 1, 7, 4, 9, 5)
    ordered = sorted(seen, key=lambda frame: frame.stamp_ns)
    engine = model.engine()
    engine.set_context(seen)
    assert finish(engine) > 4
    for text in QUESTIONS:
        ready = engine.answer(ModelQuestion(text))
        cold = model.engine().answer(ModelQuestion(text), seen)
        assert told(ready) == told(cold)
        assert ready.token_ids == model.generate(text, ordered)
        assert (ready.context, cold.context) == ("warm", "cold")
        assert ready.frame_ids == cold.frame_ids == (1, 3, 4, 5, 7, 9)
        assert ready.encoding_ns == 0 < cold.encoding_ns


@pytest.mark.parametrize("family", FAMILIES)
def test_choices_are_scored_among_themselves(models: dict[str, Model], family: str) -> None:
    engine = models[family].engine()
    engine.set_context(frames(1, 2))
    pieces: list[str] = []
    answer = engine.answer(ModelQuestion("Which?", ("left", "right", "behind")), on_text=pieces.append)
    assert answer.text == "".join(pieces) == ("left", "right", "behind")[int(np.argmax(answer.choice_probabilities))]
    assert sum(answer.choice_probabilities) == pytest.approx(1.0, abs=1e-12)
    assert len(answer.token_ids) == len(answer.token_probabilities) == 1


@pytest.mark.parametrize(
    ("family", "seed"), [("spatial-mllm", 0), ("spatial-mllm", 1), ("qwen2_5_vl", 2), ("qwen3_vl", 3)]
)
def test_whatever_happens_answers_are_those_of_their_frames(
    models: dict[str, Model], family: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contexts that change, questions in the middle of it, cancelled ones, dropped caches: no answer is stale or wrong."""
    monkeypatch.setattr(warm, "MIB", 1000)
    model, draw = models[family], random.Random(seed)
    bound = draw.choice((500, 900, 4000))
    engine = model.engine(cache_mib=bound)
    known: dict[tuple[str, tuple[int, ...]], tuple[Any, ...]] = {}
    window = frames(0, 1, 2, 3)
    history: list[tuple[int, ...]] = []

    def check(text: str, answer: Generated) -> None:
        key = (text, answer.frame_ids)
        if key not in known:
            known[key] = told(model.engine().answer(ModelQuestion(text), frames(*answer.frame_ids)))
        assert told(answer) == known[key]

    for turn in range(60):
        action = draw.choice(("change", "step", "step", "ask", "ask", "wait", "own", "cancel", "drop"))
        text = draw.choice(QUESTIONS)
        if action == "change" or turn == 0:
            kept = draw.sample(window, min(draw.choice((2, 3, 4)), len(window)))
            window = frames(*sorted({frame.frame_id for frame in kept} | {draw.randrange(8)}))
            engine.set_context(window)
            history.append(tuple(dict.fromkeys(frame.frame_id for frame in model.encoder.select(window, 32))))
        elif action == "step":
            for _ in range(draw.randrange(12)):
                engine.step()
        elif action == "ask":
            before = engine.status().context_frames
            answer = engine.answer(ModelQuestion(text))
            check(text, answer)
            assert answer.frame_ids == before or (not before and answer.frame_ids in history)
            assert answer.context == ("warm" if before else "updated")
        elif action == "wait":
            answer = engine.answer(ModelQuestion(text), wait_for_context=True)
            check(text, answer)
            assert answer.frame_ids == history[-1]
        elif action == "own":
            own = frames(*draw.sample(range(8), 2))
            before = engine.status().context_frames
            answer = engine.answer(ModelQuestion(text), own)
            check(text, answer)
            assert sorted(answer.frame_ids) == sorted(frame.frame_id for frame in own)
            assert engine.status().context_frames == before
        elif action == "cancel":
            calls = iter(range(draw.randrange(1, 9)))
            with contextlib.suppress(ModelCancelled):  # a short answer may be complete before
                check(text, engine.answer(ModelQuestion(text), cancelled=lambda calls=calls: next(calls, None) is None))
        elif action == "drop":
            engine.drop_caches()
            assert engine.status().context_frames == ()
        status = engine.status()
        held = {name: size for name, size in status.memory.items() if name not in ("weights", "device")}
        assert sum(held.values()) <= bound * 1000
    assert engine.status().answered > 10


def test_a_changed_pair_alone_is_encoded_again(spatial: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest frame replaced: one pair and one frame are new. The oldest dropped: all pairs, one frame."""
    engine = spatial.engine()
    calls = {"pair": 0, "frame": 0}

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    aggregator = spatial.model.spatial_encoder.aggregator
    monkeypatch.setattr(spatial.model.model.visual, "forward", counted("pair", spatial.model.model.visual.forward))
    monkeypatch.setattr(aggregator, "frame_tokens", counted("frame", aggregator.frame_tokens))
    for ids, pairs, singles in (
        ((1, 2, 3, 4), 2, 4),
        ((1, 2, 3, 5), 1, 1),
        ((2, 3, 5, 6), 2, 1),
        ((1, 2, 3, 4), 0, 0),
    ):
        calls.update(pair=0, frame=0)
        engine.set_context(frames(*ids))
        finish(engine)
        assert calls == {"pair": pairs, "frame": singles}, ids


def test_without_a_spatial_branch_unchanged_pairs_need_no_prefill(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spatial_mllm_ros.models.mllm.encoder.PREFIX_PIECE", 16)
    model = models["qwen2_5_vl"]
    language_model = model.model.model.language_model
    forward, fed = language_model.forward, []
    monkeypatch.setattr(
        language_model, "forward", lambda **inputs: fed.append(inputs["inputs_embeds"].shape[1]) or forward(**inputs)
    )
    engine = model.engine()
    engine.set_context(frames(1, 2, 3, 4, 5, 6))
    finish(engine)
    whole = sum(fed)
    fed.clear()
    engine.set_context(frames(1, 2, 3, 4, 5, 7))
    finish(engine)
    assert sum(fed) < whole / 3, "the last of three pairs, and what is after it"
    answer = engine.answer(ModelQuestion(QUESTIONS[0]))
    cold = model.engine().answer(ModelQuestion(QUESTIONS[0]), frames(1, 2, 3, 4, 5, 7))
    assert told(answer) == told(cold)


def test_contexts_are_completed_however_often_they_change(spatial: Model) -> None:
    engine = spatial.engine()
    for newest in range(4, 44):
        engine.set_context(frames(newest - 3, newest - 2, newest - 1, newest))
        engine.step()
    status = engine.status()
    assert status.updates >= 2
    assert status.pending
    assert engine.answer(ModelQuestion("Where?"), wait_for_context=True).frame_ids == (40, 41, 42, 43)


def test_forgets_at_once(spatial: Model) -> None:
    engine = spatial.engine()
    engine.set_context(frames(1, 2))
    engine.answer(ModelQuestion("Where?"))
    engine.set_context(frames(1, 3))
    engine.step()
    engine.set_context([])
    assert not engine.context_pending
    assert not engine.step()
    status = engine.status()
    assert status.context_frames == ()
    assert sum(size for name, size in status.memory.items() if name != "weights") == 0
    with pytest.raises(ValueError, match="no frames"):
        engine.answer(ModelQuestion("Where?"))
    with pytest.raises(ValueError, match="no frames"):
        engine.answer(ModelQuestion("Where?"), [])


def test_the_same_frames_are_not_encoded_twice(spatial: Model) -> None:
    engine = spatial.engine()
    engine.set_context(frames(1, 2))
    finish(engine)
    engine.set_context(frames(2, 1))
    assert not engine.context_pending
    assert engine.answer(ModelQuestion("Where?"), frames(1, 2)).context == "warm"
    engine.set_context(frames(1, 3))
    engine.step()
    engine.set_context(frames(3, 1))
    finish(engine)
    assert engine.status().updates == 2
    engine.set_context(frames(1, 4))
    engine.step()
    engine.set_context(frames(1, 3))  # back again, while another one is being made
    finish(engine)
    assert engine.answer(ModelQuestion("Where?")).frame_ids == (1, 3)


def test_given_up_between_tokens(spatial: Model) -> None:
    engine = spatial.engine()
    engine.set_context(frames(1, 2))
    whole = engine.answer(ModelQuestion("Where?"))
    pieces: list[str] = []
    with pytest.raises(ModelCancelled):
        engine.answer(ModelQuestion("Where?"), on_text=pieces.append, cancelled=lambda: len(pieces) > 2)
    assert whole.text.startswith("".join(pieces))
    assert len(pieces) == 3
    with pytest.raises(ModelTimeout):
        engine.answer(ModelQuestion("Where?"), deadline=time.monotonic() - 1)
    looks = iter(range(4))
    with pytest.raises(ModelCancelled):  # while its own frames are encoded
        engine.answer(ModelQuestion("Where?"), frames(5, 6), cancelled=lambda: next(looks, None) is None)
    assert told(engine.answer(ModelQuestion("Where?"))) == told(whole)


def test_text_comes_in_pieces(spatial: Model) -> None:
    engine = spatial.engine()
    engine.set_context(frames(1, 2))
    for text in QUESTIONS:
        pieces: list[str] = []
        answer = engine.answer(ModelQuestion(text), on_text=pieces.append)
        assert "".join(pieces) == answer.text
        assert answer.text == spatial.encoder.decode([i for i in answer.token_ids if i not in spatial.encoder.end_ids])


def test_an_answer_has_a_bound(spatial: Model) -> None:
    engine = spatial.engine(max_new_tokens=3)
    engine.set_context(frames(1, 2))
    answer = engine.answer(ModelQuestion("Where?"))
    assert len(answer.token_ids) == len(answer.token_probabilities) == 3
    assert not answer.complete
    assert all(0 < probability <= 1 for probability in answer.token_probabilities)


def test_out_of_memory_in_an_answer(spatial: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call fails, everything is dropped, the engine goes on and encodes the context again by itself."""
    engine = spatial.engine()
    engine.set_context(frames(1, 2))
    expected = told(engine.answer(ModelQuestion("Where?")))
    with monkeypatch.context() as patch:
        patch.setattr(spatial.model.lm_head, "forward", raising(torch.OutOfMemoryError("CUDA out of memory.")))
        held = weakref.ref(engine._warm.current.cache)
        with pytest.raises(ModelError, match="out of memory") as error:
            engine.answer(ModelQuestion("Where?"))
        assert held() is None, f"{error.value!r} keeps the cache alive"
    status = engine.status()
    assert (status.context_frames, status.pending, status.failed) == ((), True, 1)
    assert sum(size for name, size in status.memory.items() if name != "weights") == 0
    finish(engine)
    assert told(engine.answer(ModelQuestion("Where?"))) == expected


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_in_an_update(spatial: Model, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Once it is tried again with everything else dropped; then the context has failed, until frames change."""
    engine = spatial.engine()
    engine.set_context(frames(1, 2))
    finish(engine)
    connector = spatial.model.connector
    forward = connector.forward
    fails = iter((True,))
    with monkeypatch.context() as patch:

        def once(*args: Any) -> Any:
            return raising(error)() if next(fails, False) else forward(*args)

        patch.setattr(connector, "forward", once)
        engine.set_context(frames(1, 3))
        finish(engine)
        assert engine.answer(ModelQuestion("Where?")).frame_ids == (1, 3)
        patch.setattr(connector, "forward", raising(error))
        engine.set_context(frames(1, 4))
        finish(engine)
        status = engine.status()
        assert "out of memory" in status.reason
        assert (status.context_frames, status.pending) == ((), False)
        with pytest.raises(ModelError, match="out of memory while 2 frames"):
            engine.answer(ModelQuestion("Where?"))
    engine.set_context(frames(1, 4))
    assert engine.answer(ModelQuestion("Where?")).frame_ids == (1, 4)


def test_other_errors_are_not_hidden(spatial: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = spatial.engine()
    engine.set_context(frames(1, 2))
    finish(engine)
    monkeypatch.setattr(spatial.model.lm_head, "forward", raising(RuntimeError("a kernel is broken")))
    with pytest.raises(RuntimeError, match="a kernel is broken"):
        engine.answer(ModelQuestion("Where?"))


def test_a_context_too_large_for_the_caches(spatial: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "MIB", 1000)
    engine = spatial.engine(cache_mib=250)
    engine.set_context(frames(1, 2))
    finish(engine)
    with pytest.raises(ModelError, match=r"beside the one that is kept.*raise cache_mib"):
        engine.answer(ModelQuestion("Where?"), frames(3, 4))
    assert engine.answer(ModelQuestion("Where?")).frame_ids == (1, 2)
    engine = spatial.engine(cache_mib=150)
    engine.set_context(frames(*range(20)))
    finish(engine)
    with pytest.raises(ModelError, match="raise cache_mib"):
        engine.answer(ModelQuestion("Where?"))
    assert "raise cache_mib" in engine.status().reason


def test_no_more_frames_than_a_context_may_have(spatial: Model) -> None:
    engine = spatial.engine(max_context_frames=4)
    engine.set_context(frames(9, 1, 8, 2, 7, 3))
    assert engine.answer(ModelQuestion("Where?")).frame_ids == (1, 2, 8, 9)


def raising(error: Exception) -> Any:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise type(error)(*error.args)  # a new one: an error keeps what it met

    return fail


@given(st.lists(st.sampled_from(["a", " b", "é", "€", "𝄞", "\ufffd", "日本"]), max_size=12), st.data())
@settings(max_examples=100, deadline=None)
def test_never_half_a_character(words: list[str], data: st.DataObject) -> None:
    """Tokens that are single bytes, the worst case; cut off anywhere."""
    raw = "".join(words).encode()
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    pieces: list[str] = []
    stream = TextStream(lambda ids: bytes(ids).decode("utf-8", "replace"), pieces.append)
    for byte in raw:
        stream.add(byte)
    stream.finish()
    assert stream.text == "".join(pieces) == raw.decode("utf-8", "replace")


def test_labels_of_several_tokens() -> None:
    """A label is as probable as all its tokens together; where one begins another, the end decides."""
    probabilities = {
        (): {1: 0.5, 2: 0.3, 3: 0.1, 0: 0.1},
        (1,): {1: 0.2, 2: 0.6, 3: 0.1, 0: 0.1},
        (2,): {0: 0.9, 1: 0.1},
        (1, 2): {0: 0.5, 1: 0.5},
    }
    held: list[int] = []

    def step(ids: Sequence[int]) -> Any:
        held.extend(ids)
        known = probabilities[tuple(held[1:])]
        return torch.tensor([math.log(known.get(i, 1e-30)) for i in range(4)])

    writer = Writer(step, lambda: len(held), lambda length: held.__delitem__(slice(length, None)))
    chosen = choose(writer, [9], [[1, 2], [2], [1]], end_ids=[0], limits=Limits())
    expected = np.array([0.5 * 0.6 * 0.5, 0.3 * 0.9, 0.5 * 0.1])
    assert chosen.choice_probabilities == pytest.approx(expected / expected.sum())
    assert (chosen.chosen, chosen.token_ids, held) == (1, (2, 0), [9])
    assert chosen.token_probabilities == pytest.approx((0.3, 0.9))
