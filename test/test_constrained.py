"""Answers of a language model that are held to a schema."""

# ruff: noqa: E402  what needs torch is imported once it is known to be there

from __future__ import annotations

import json
import math

import pytest

torch = pytest.importorskip("torch", reason="the extra 'model' is not installed")
pytest.importorskip("transformers", reason="the extra 'model' is not installed")

from spatial_mllm_ros.language.translation import BadReply, instructions, messages, reply_schema, translation_of
from spatial_mllm_ros.models.mllm import engine as engines
from spatial_mllm_ros.models.mllm.constrained import JsonSchema
from spatial_mllm_ros.models.mllm.encoder import VideoEncoder
from spatial_mllm_ros.models.mllm.engine import ModelEngine
from spatial_mllm_ros.models.mllm.prompts import Prompts
from spatial_mllm_ros.models.mllm.random_weights import build_random_model, make_config, make_tokenizer
from spatial_mllm_ros.models.vggt.processing import frame_format
from spatial_mllm_ros.models.worker.local import LocalModel
from spatial_mllm_ros.queries.serialization import from_json, json_schema
from spatial_mllm_ros.queries.term import InvalidQuery
from spatial_mllm_ros.serving.interface import ModelError, ModelOptions, ModelQuestion, ModelTimeout

pytest.importorskip("llguidance", reason="the extra 'reader' is not installed")

SCHEMA = json.dumps(reply_schema())
OPTIONS = ModelOptions("random", precision="float32", device="cpu", max_new_tokens=16, cache_mib=64)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random models come to no end."""
    monkeypatch.setattr(engines, "MAX_CONSTRAINED_TOKENS", 40)


@pytest.fixture(scope="module")
def engine() -> ModelEngine:
    torch.manual_seed(3)
    tokenizer = make_tokenizer("spatial-mllm")
    model = build_random_model(make_config("tiny", tokenizer, family="spatial-mllm"), dtype=torch.float32)
    prompts = Prompts(tokenizer, "spatial-mllm")
    how = frame_format("spatial-mllm", OPTIONS)
    return ModelEngine(VideoEncoder(model, tokenizer, prompts, how, "random", OPTIONS), OPTIONS)


def test_whatever_the_logits_say_what_comes_out_is_a_query() -> None:
    """Or one that contradicts itself, as a distance between a thing and itself, which is then refused."""
    tokenizer = make_tokenizer("spatial-mllm")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    generator = torch.Generator().manual_seed(5)
    queries = 0
    for _ in range(40):
        allowed = JsonSchema(tokenizer, json.dumps(json_schema()), (end,), len(tokenizer))
        ids: list[int] = []
        for _ in range(600):
            token = int(allowed.mask(torch.randn(len(tokenizer), generator=generator)).argmax())
            if token == end:
                break
            ids.append(token)
            if allowed.take(token):
                break
        else:
            continue
        text = tokenizer.decode(ids)
        told = ""
        try:
            from_json(json.loads(text))
            queries += 1
        except InvalidQuery as error:
            told = str(error)
        held = not any(words in told for words in ("is missing", "has no field", "must be one of", "an object"))
        assert held, f"{text} is not of the schema: {told}"
    assert queries >= 5, "random logits hardly ever made a query: is the schema still a query's?"


def asked(text: str) -> ModelQuestion:
    return ModelQuestion(text, schema=SCHEMA, chat=(("system", "Translate."),))


@pytest.mark.parametrize("text", ["How far is <p0> from <p1>?", "Wie weit?", "x", "<|im_end|> {"])
def test_a_random_model_says_nothing_but_what_the_schema_allows(engine: ModelEngine, text: str) -> None:
    generated = engine.answer(asked(text))
    assert generated.text.startswith('{"query":')
    if not generated.complete:  # cut off
        with pytest.raises(BadReply, match="no JSON"):
            translation_of(generated.text, "", points=9, boxes=9, times=9)


def test_it_needs_no_frames_and_leaves_the_context_alone(engine: ModelEngine) -> None:
    engine.answer(asked("How far?"))
    assert not engine.status().context_frames
    with pytest.raises(ValueError, match="no frames"):
        engine.answer(ModelQuestion("How far?"))


def test_the_instructions_are_encoded_once(engine: ModelEngine) -> None:
    long = ModelQuestion("How far?", schema=SCHEMA, chat=(("system", instructions()[:2000]),))
    first, second = engine.answer(long), engine.answer(long)
    assert (first.context, second.context) == ("cold", "warm")
    assert first.token_ids == second.token_ids


def test_a_time_limit_ends_it(engine: ModelEngine) -> None:
    with pytest.raises(ModelTimeout):
        engine.answer(asked("How far?"), deadline=-math.inf)


def test_a_schema_that_is_none_is_told(engine: ModelEngine) -> None:
    with pytest.raises(ModelError, match="schema"):
        engine.answer(ModelQuestion("How far?", schema='{"type": "nonsense"}', chat=(("system", "x"),)))


def test_the_thread_of_a_model_answers_it_without_a_context(engine: ModelEngine) -> None:
    model = LocalModel(engine)
    try:
        chat = messages("How far is <p0>?", points=1, boxes=0, times=0)
        assert model.ask(asked(chat[-1]["content"]), timeout_s=60).text
    finally:
        model.close()
