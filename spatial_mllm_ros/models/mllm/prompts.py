"""From frames and a question to token ids: chat template, answer instructions, options.

A prompt has two parts. The prefix holds the frames and ends with the token that ends them; it is the same for every
question. The rest is the question. The cut is at a special token, where tokenizers always cut, so the two parts together
are exactly the tokens of the whole prompt.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from string import ascii_uppercase
from typing import Any, Protocol

from spatial_mllm_ros.models.vggt.processing import PAIR, FrameFormat
from spatial_mllm_ros.serving.interface import ModelQuestion, ModelUnavailable

SYSTEM_MESSAGE = "You are a helpful assistant."


@dataclass(frozen=True)
class Wording:
    """How a model was trained to be asked; every character counts.

    options: what comes before the list of options. choice, number, words: instruction on how to answer with an option,
    a number, or in words. opening: how every answer begins.
    """

    options: str
    choice: str
    number: str
    words: str
    opening: str = ""


PLAIN = Wording(
    "\nOptions:\n",
    "\nAnswer with the option's letter from the given choices directly.",
    "\nPlease answer the question using a single word or phrase.",
    "\nPlease answer the question using a single word or phrase.",
)
"""Spatial-MLLM v1.1, and the other families, which are asked the same way."""

TAGGED = Wording(
    "Options:\n",
    "\n Please answer with the option's letter from the given choices (e.g., A, B, etc.) within the <answer> </answer> tags.",
    " Please answer with the only numerical value (e.g., 42, 3.14, etc.) within the <answer> </answer> tags.",
    " Please answer the question simply within the <answer> </answer> tags",
    "<answer>",
)
"""Spatial-MLLM v1.0: answers stand in tags."""


def wording_of(config: Any) -> Wording:
    """How the model of a configuration is asked: v1.0 of Spatial-MLLM, known by its connector, in its own way."""
    return TAGGED if getattr(config, "connector_type", "") == "token_merge" else PLAIN


# Of v1.0's training questions, those for a number either count or name the unit in brackets.
_ASKS_NUMBER = re.compile(r"\bhow many\b|\(in [^()]*\)|\bin (?:square )?(?:centi|milli)?met(?:er|re)s\b", re.IGNORECASE)

_START, _END = "<|im_start|>", "<|im_end|>"
_QUESTION = "QuestionGoesHere"  # in a chat template; nothing that a template would change
_LABEL = re.compile(r"\(?([A-Z]+)[.):]\s+(?=\S)")


class Tokenizer(Protocol):
    """What is needed of a tokenizer of transformers."""

    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> Any: ...


@dataclass(frozen=True)
class _Media:
    """How frames are written: ``placeholder`` is their place in a chat template, ``pad`` stands for one token of them,
    ``first``, ``between`` and ``last`` are the text before, between and after the pads of pairs (or single frames);
    {n} is the number of the next pair, from 1, and {seconds} its time."""

    placeholder: str
    pad: str
    first: str
    between: str
    last: str


_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
_MEDIA = {
    "qwen2_5_vl": _Media(_VIDEO, "<|video_pad|>", "<|vision_start|>", "", "<|vision_end|>"),
    "qwen3_vl": _Media(
        _VIDEO,
        "<|video_pad|>",
        "<{seconds:.1f} seconds><|vision_start|>",
        "<|vision_end|><{seconds:.1f} seconds><|vision_start|>",
        "<|vision_end|>",
    ),
    "internvl": _Media("<video>", "<IMG_CONTEXT>", "Frame{n}: <img>", "</img>\nFrame{n}: <img>", "</img>"),
}
_MEDIA["spatial-mllm"] = _MEDIA["qwen2_5_vl"]


@dataclass(frozen=True)
class QuestionTokens:
    """Token ids of a question, what follows the prefix. labels: those of every option's label, () without options."""

    ids: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...] = ()


class Prompts:
    """Prompts of one model.

    family: one of ``processing.FAMILIES``. Spatial-MLLM and Qwen2.5-VL have the template of their training, the others
    that of their tokenizer, or if it has none, the same without a system message. wording: TAGGED for Spatial-MLLM v1.0.
    Raises ModelUnavailable when the tokenizer lacks a token or its template has no place for frames or a question.
    """

    def __init__(self, tokenizer: Tokenizer, family: str, wording: Wording = PLAIN) -> None:
        if family not in _MEDIA:
            raise ValueError(f"model family {family!r} is not known: it is one of {', '.join(_MEDIA)}")
        self.family, self.wording, self._tokenizer = family, wording, tokenizer
        self._media = _MEDIA[family]
        added = tokenizer.get_added_vocab()
        needed = {_START, _END, *re.findall(r"<[^<> {}]+>", self._media.first + self._media.pad + self._media.last)}
        if missing := sorted(needed - added.keys()):
            raise ModelUnavailable(
                f"the tokenizer has no token {', '.join(missing)}: it is not that of a {family} model; "
                "put the tokenizer's files of the checkpoint into its folder"
            )
        self.pad_id = added[self._media.pad]
        """Token that stands for features of frames."""
        self.end_ids = tuple(added[token] for token in (_END, "<|endoftext|>") if token in added)
        """Tokens that end an answer."""
        self.neutralise = _neutraliser(added)
        """Text without any of the tokenizer's special tokens: a space is put into each, so that it is read as text."""
        self._head, self._after, self._tail = self._template()

    def prefix(self, how: FrameFormat, stamps_ns: Sequence[int], size: tuple[int, int]) -> tuple[int, ...]:
        """Token ids up to and including the one that ends the frames.

        stamps_ns: of the frames, in time order; the times that Qwen3-VL is told are from the first of them, the middle of
        a pair. size: (height, width) px of the resized frames.
        """
        pieces = self._prefix_pieces(how, stamps_ns, size)
        ids: list[int] = []
        for piece in pieces:
            ids.extend(self._encode(piece) if isinstance(piece, str) else [self.pad_id] * piece)
        return tuple(ids)

    def question(self, question: ModelQuestion) -> QuestionTokens:
        """Token ids after the prefix, up to where the answer begins, or with options, its label.

        Raises ValueError for a question without text, or with a single option.
        """
        if question.schema:
            return QuestionTokens(self.chat((*question.chat[1:], ("user", question.text)), open_answer=True))
        text = self._question_text(question)
        if not question.choices:
            return QuestionTokens(tuple(self._encode(text)))
        if len(question.choices) == 1:
            raise ValueError("one option is no choice: give at least two, or none")
        labels = [self._encode(self.wording.opening + label) for label in option_labels(len(question.choices))]
        # What begins every answer belongs to the question. It is cut off as tokens: text and a letter may share one.
        shared = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*labels, strict=False)))
        ids = (*self._encode(text), *labels[0][:shared])
        return QuestionTokens(ids, tuple(tuple(label[shared:]) for label in labels))

    def chat(self, messages: Sequence[tuple[str, str]], open_answer: bool = False) -> tuple[int, ...]:
        """Token ids of messages (role, content) of a chat. open_answer: up to where the answer begins."""
        text = "".join(f"{_START}{role}\n{self.neutralise(content)}{_END}\n" for role, content in messages)
        return tuple(self._encode(text + (f"{_START}assistant\n" if open_answer else "")))

    def text(self, how: FrameFormat, stamps_ns: Sequence[int], size: tuple[int, int], question: ModelQuestion) -> str:
        """The whole prompt as text, up to where the answer begins: its tokens are those of the two parts."""
        pieces = self._prefix_pieces(how, stamps_ns, size)
        prefix = "".join(piece if isinstance(piece, str) else self._media.pad * piece for piece in pieces)
        return prefix + self._question_text(question)

    def _question_text(self, question: ModelQuestion) -> str:
        return self._after + self.neutralise(instructed(question, self.wording)) + self._tail

    def _prefix_pieces(self, how: FrameFormat, stamps_ns: Sequence[int], size: tuple[int, int]) -> list[str | int]:
        """Text, and numbers of pads, by turns."""
        if not stamps_ns:
            raise ValueError("no frames: give at least one")
        step = PAIR if how.in_pairs else 1
        tokens = how.tokens(step, size)
        how.grid(len(stamps_ns), size)  # refuses an odd number where pairs are needed
        pieces: list[str | int] = [self._head]
        for index in range(0, len(stamps_ns), step):
            pair = stamps_ns[index : index + step]
            seconds = (sum(pair) / len(pair) - stamps_ns[0]) / 1e9
            before = self._media.between if index else self._media.first
            text = before.format(n=index // step + 1, seconds=seconds)
            if index and not text:
                pieces[-1] = int(pieces[-1]) + tokens
            elif index:
                pieces += [text, tokens]
            else:
                pieces = [self._head + text, tokens]
        return [*pieces, self._media.last]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _template(self) -> tuple[str, str, str]:
        """The text before the frames, between them and the question, and after the question."""
        own = self.family in ("spatial-mllm", "qwen2_5_vl")
        template = getattr(self._tokenizer, "chat_template", None)
        if own or not template:
            system = f"{_START}system\n{SYSTEM_MESSAGE}{_END}\n" if own else ""
            after = "\n" if self.family == "internvl" else ""
            return f"{system}{_START}user\n", after, f"{_END}\n{_START}assistant\n"
        content = [{"type": "video"}, {"type": "text", "text": _QUESTION}]
        rendered = str(
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        )
        head, found, rest = rendered.partition(self._media.placeholder)
        after, asked, tail = rest.partition(_QUESTION)
        if not (found and asked):
            raise ModelUnavailable(
                f"the tokenizer's chat template has no place for {'a question' if found else self._media.placeholder}: "
                f"it is not that of a {self.family} model"
            )
        return head, after, tail


def instructed(question: ModelQuestion, wording: Wording = PLAIN) -> str:
    """A question with its options and the instruction how to answer. Raises ValueError when it has no text."""
    text = question.text.strip()
    if not text:
        raise ValueError("the question is empty")
    if question.choices:
        options = [" ".join(option.split()) for option in _without_labels(question.choices)]
        labels = option_labels(len(options))
        listed = "\n".join(f"{label}. {option}" for label, option in zip(labels, options, strict=True))
        return text + wording.options + listed + wording.choice
    return text + (wording.number if _ASKS_NUMBER.search(text) else wording.words)


def option_labels(count: int) -> tuple[str, ...]:
    """Labels of ``count`` options: A, B … Z; of more than 26 options AA, AB …, all equally long, so that none begins
    another one and their probabilities can be compared."""
    labels = list(ascii_uppercase)
    while len(labels) < count:
        labels = [label + letter for label in labels for letter in ascii_uppercase]
    return tuple(labels[:count])


def _without_labels(choices: Sequence[str]) -> list[str]:
    """The options without labels "A. ", "(B) " of their own, if all have exactly the right ones."""
    found = [_LABEL.match(choice.strip()) for choice in choices]
    own = tuple(match[1] if match else "" for match in found)
    if own != option_labels(len(choices)):
        return list(choices)
    return [choice.strip()[match.end() :] for choice, match in zip(choices, found, strict=True) if match]


def _neutraliser(added: dict[str, int]) -> Callable[[str], str]:
    tokens = sorted((token for token in added if len(token) > 1 and not token.isspace()), key=len, reverse=True)
    special = re.compile("|".join(map(re.escape, tokens)) or r"(?!)")

    def neutralise(text: str) -> str:
        text = unicodedata.normalize("NFC", text)  # as tokenizers do before they look for some of their tokens
        while special.search(text):
            text = special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return text

    return neutralise
