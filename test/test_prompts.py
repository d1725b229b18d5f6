"""Prompts as models were trained on them, cut where nothing changes, and questions that cannot pose as instructions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.serving.interface import ModelOptions, ModelQuestion, ModelUnavailable

pytest.importorskip("torch", reason="torch is not installed (the extra spatial_mllm_ros[model])")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from spatial_mllm_ros.models.mllm import prompts  # noqa: E402
from spatial_mllm_ros.models.vggt import processing  # noqa: E402

SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"),
    *("<|image_pad|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
]
PLAIN_ADDED = ["<tool_call>", "</think>"]  # added, but not marked as special
SIZE = (224, 448)  # fits patches of 14 and of 16 px
STAMPS = [10**9, 15 * 10**8, 5 * 10**9, 6 * 10**9]
QUESTION = ModelQuestion("How many chair(s) are in this room?")
CHOICE = ModelQuestion("Is the sofa to my left or right?", ("left", "right"))
# As a published checkpoint of Qwen3-VL writes a turn of the user, cut down to what is needed here.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def trained_tokenizer(special: list[str]) -> Any:
    """A byte-level BPE tokenizer that splits words as Qwen's does, trained on a few lines."""
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.normalizer = tokenizers.normalizers.NFC()
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(words), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = tokenizers.decoders.ByteLevel()
    text = [
        *("You are a helpful assistant.", "user assistant system", "<answer>A</answer> >A >A", "seconds> Frame1:"),
        *(prompts.PLAIN.choice, prompts.PLAIN.words, prompts.TAGGED.choice, QUESTION.text, CHOICE.text),
    ]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(text * 20, trainer)
    bpe.add_special_tokens(special)
    bpe.add_tokens(PLAIN_ADDED)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return trained_tokenizer(SPECIAL)


@pytest.fixture(params=processing.FAMILIES)
def how(request: pytest.FixtureRequest) -> Any:
    return processing.frame_format(request.param, ModelOptions("none"))


# ---- the published words


def test_instructions_are_those_of_training() -> None:
    """Character for character: the model was trained on them."""
    assert prompts.instructed(QUESTION) == (
        "How many chair(s) are in this room?\nPlease answer the question using a single word or phrase."
    )
    assert prompts.instructed(CHOICE) == (
        "Is the sofa to my left or right?\nOptions:\nA. left\nB. right\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_instructions_of_the_first_version() -> None:
    """v1.0 has no line break before the list and one after it, and answers in tags."""
    assert prompts.instructed(CHOICE, prompts.TAGGED) == (
        "Is the sofa to my left or right?Options:\nA. left\nB. right\n"
        " Please answer with the option's letter from the given choices (e.g., A, B, etc.) within the <answer> </answer> tags."
    )
    number = " Please answer with the only numerical value (e.g., 42, 3.14, etc.) within the <answer> </answer> tags."
    assert prompts.instructed(QUESTION, prompts.TAGGED) == QUESTION.text + number
    metres = "What is the distance between the sofa and the stove (in meters)?"
    assert prompts.instructed(ModelQuestion(metres), prompts.TAGGED) == metres + number
    color = "What color is it?"
    words = " Please answer the question simply within the <answer> </answer> tags"
    assert prompts.instructed(ModelQuestion(color), prompts.TAGGED) == color + words


def test_the_connector_tells_the_version() -> None:
    assert prompts.wording_of(SimpleNamespace(connector_type="token_merge")) == prompts.TAGGED
    assert prompts.wording_of(SimpleNamespace(connector_type="mlp_add")) == prompts.PLAIN
    assert prompts.wording_of(SimpleNamespace()) == prompts.PLAIN


@pytest.mark.parametrize(
    "choices", [("A. left", "B. right"), ("(A) left", "(B) right"), ("A: left", "B: right"), (" left\n", "right")]
)
def test_options_that_have_labels_keep_one(choices: tuple[str, ...]) -> None:
    assert prompts.instructed(ModelQuestion(CHOICE.text, choices)) == prompts.instructed(CHOICE)


def test_other_beginnings_of_options_stay() -> None:
    text = prompts.instructed(ModelQuestion("Which?", ("B. right", "A. left")))
    assert "\nA. B. right\nB. A. left\n" in text


@given(st.integers(2, 800))
def test_labels_are_distinct_and_none_begins_another(count: int) -> None:
    labels = prompts.option_labels(count)
    assert len(set(labels)) == count
    assert len({len(label) for label in labels}) == 1


def test_labels_are_letters() -> None:
    assert prompts.option_labels(26) == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert prompts.option_labels(27)[:2] + prompts.option_labels(27)[-1:] == ("AA", "AB", "BA")
    assert prompts.option_labels(0) == ()


# ---- the template


def test_prompt_of_spatial_mllm(tokenizer: Any) -> None:
    how = processing.frame_format("spatial-mllm", ModelOptions("none"))
    text = prompts.Prompts(tokenizer, "spatial-mllm").text(how, STAMPS, (56, 84), QUESTION)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        + "<|video_pad|>" * 12
        + "<|vision_end|>How many chair(s) are in this room?\n"
        "Please answer the question using a single word or phrase.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_prompt_of_qwen3_tells_the_time_of_every_pair(tokenizer: Any) -> None:
    """Seconds since the first frame, the middle of a pair, with the template of the tokenizer or without one alike."""
    how = processing.frame_format("qwen3_vl", ModelOptions("none"))
    with_template = trained_tokenizer(SPECIAL)
    with_template.chat_template = TEMPLATE
    for one in (tokenizer, with_template):
        text = prompts.Prompts(one, "qwen3_vl").text(how, STAMPS, (64, 96), QUESTION)
        pads = "<|vision_start|>" + "<|video_pad|>" * 6 + "<|vision_end|>"
        assert text.startswith(f"<|im_start|>user\n<0.2 seconds>{pads}<4.5 seconds>{pads}How many chair(s)")
        assert text.endswith("phrase.<|im_end|>\n<|im_start|>assistant\n")


def test_prompt_of_internvl(tokenizer: Any) -> None:
    how = processing.frame_format("internvl", ModelOptions("none"))
    text = prompts.Prompts(tokenizer, "internvl").text(how, STAMPS[:3], (448, 448), QUESTION)
    images = [f"Frame{n}: <img>{'<IMG_CONTEXT>' * 256}</img>" for n in (1, 2, 3)]
    assert text.startswith("<|im_start|>user\n" + "\n".join(images) + "\nHow many chair(s)")


def test_a_template_without_a_place_for_frames_is_refused() -> None:
    blind = trained_tokenizer(SPECIAL)
    blind.chat_template = TEMPLATE.replace("<|video_pad|>", "")
    with pytest.raises(ModelUnavailable, match="video_pad"):
        prompts.Prompts(blind, "qwen3_vl")
    # Spatial-MLLM's is part of what it was trained on, and so does not depend on the tokenizer's.
    prompts.Prompts(blind, "spatial-mllm")


def test_a_tokenizer_of_another_model_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match=r"no token <\|video_pad\|>, <\|vision_end\|>, <\|vision_start\|>"):
        prompts.Prompts(trained_tokenizer(["<|im_start|>", "<|im_end|>"]), "spatial-mllm")
    with pytest.raises(ValueError, match="not known"):
        prompts.Prompts(None, "llava")


def test_odd_frames_and_none_are_refused(tokenizer: Any) -> None:
    how = processing.frame_format("spatial-mllm", ModelOptions("none"))
    maker = prompts.Prompts(tokenizer, "spatial-mllm")
    with pytest.raises(ValueError, match="even"):
        maker.prefix(how, STAMPS[:3], SIZE)
    with pytest.raises(ValueError, match="no frames"):
        maker.prefix(how, [], SIZE)
    with pytest.raises(ValueError, match="empty"):
        maker.question(ModelQuestion("  "))
    with pytest.raises(ValueError, match="no choice"):
        maker.question(ModelQuestion("Which?", ("this",)))


# ---- tokens


@pytest.mark.parametrize("wording", ["PLAIN", "TAGGED"])
@pytest.mark.parametrize("question", [QUESTION, CHOICE, ModelQuestion("Which?", tuple(map(str, range(40))))])
def test_the_two_parts_are_the_tokens_of_the_whole(tokenizer: Any, how: Any, question: Any, wording: str) -> None:
    """So a prefix that was computed beforehand gives the very answer that the whole prompt would."""
    maker = prompts.Prompts(tokenizer, how.family, getattr(prompts, wording))
    prefix, tokens = maker.prefix(how, STAMPS, SIZE), maker.question(question)
    text = maker.text(how, STAMPS, SIZE, question)
    assert prefix.count(maker.pad_id) == how.tokens(4, SIZE)
    assert tokenizer.decode(prefix[-1:]) in ("<|vision_end|>", "</img>")
    if not question.choices:
        assert [*prefix, *tokens.ids] == tokenizer.encode(text, add_special_tokens=False)
    for label, ids in zip(prompts.option_labels(len(question.choices)), tokens.labels, strict=True):
        # A tokenizer may merge what opens an answer with the letter: so it is compared as a whole.
        whole = tokenizer.encode(text + maker.wording.opening + label, add_special_tokens=False)
        assert [*prefix, *tokens.ids, *ids] == whole


def test_letters_are_what_is_scored(tokenizer: Any) -> None:
    tokens = prompts.Prompts(tokenizer, "spatial-mllm").question(CHOICE)
    assert [tokenizer.decode(label) for label in tokens.labels] == ["A", "B"]
    assert prompts.Prompts(tokenizer, "spatial-mllm").end_ids == tuple(
        tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    )


hostile = st.lists(
    st.sampled_from(
        [*SPECIAL, *PLAIN_ADDED, "<|im_", "end|>", "<", "|>", " ", "\n", "a", "é", "e\u0301", "\u202e", "😀"]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile | st.text(max_size=60), hostile)
def test_no_question_can_pose_as_the_template(tokenizer: Any, text: str, option: str) -> None:
    """Whatever is asked, the only special tokens are the template's own."""
    maker = prompts.Prompts(tokenizer, "spatial-mllm")
    added = set(tokenizer.get_added_vocab().values())
    asked = ModelQuestion(f"x{text}", ("left", f"y{option}"))
    found = [tokenizer.decode([i]) for i in maker.question(asked).ids if i in added]
    assert found == ["<|im_end|>", "<|im_start|>"]


def test_a_neutralised_question_still_says_the_same(tokenizer: Any) -> None:
    neutralise = prompts.Prompts(tokenizer, "spatial-mllm").neutralise
    assert neutralise("What does <|im_end|> mean?") == "What does < |im_end|> mean?"
    assert neutralise("Where is <p0>, at 3 < 4?") == "Where is <p0>, at 3 < 4?"
