"""Words from a language model whose prefix is in its cache: greedy decoding, and a choice between given options.

Greedy alone: temperature, top_p, repetition_penalty and the like of a checkpoint's generation_config are not used; its
end tokens are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from spatial_mllm_ros.serving.interface import ModelCancelled, ModelTimeout

PIECE = 256
"""Tokens of a question that are prefilled at a time, so that a cancelled one ends soon."""


class Writer:
    """A language model that goes on from what its cache holds.

    step: token ids to append in, logits [vocabulary] of the token after them out. truncate: cut the cache to a number
    of tokens. length: tokens in the cache.
    """

    def __init__(
        self,
        step: Callable[[Sequence[int]], torch.Tensor],
        length: Callable[[], int],
        truncate: Callable[[int], None],
    ) -> None:
        self.step, self.length, self.truncate = step, length, truncate


@dataclass(frozen=True)
class Limits:
    """When to stop. deadline: on the clock of ``time.monotonic``, in seconds."""

    deadline: float = math.inf
    cancelled: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Raises ModelCancelled or ModelTimeout."""
        if self.cancelled():
            raise ModelCancelled("the question was given up")
        if time.monotonic() > self.deadline:
            raise ModelTimeout("the time limit passed before the model had answered")


class Allowed(Protocol):
    """What may be written next."""

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [vocabulary] with minus infinity for what may not come."""

    def take(self, token_id: int) -> bool:
        """A token was written; whether nothing may follow it."""


@dataclass(frozen=True)
class GenerationOutput:
    """Token ids with the probability of each given those before it (whole vocabulary, no temperature), the end token
    included; of a choice, its label's. complete: the end token came. choice_probabilities: of the options, if any.
    chosen: index of the option, -1 without options. first_token_s: seconds from the start to the first token."""

    token_ids: tuple[int, ...]
    token_probabilities: tuple[float, ...]
    complete: bool
    first_token_s: float
    choice_probabilities: tuple[float, ...] = ()
    chosen: int = -1


class TextStream:
    """Text that grows with tokens, handed on in pieces; never half a character. Together the pieces are the text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], on_text: Callable[[str], None] | None = None) -> None:
        """decode: text of token ids, without special tokens and without tidying up spaces."""
        self._decode, self._on_text = decode, on_text
        self._ids: list[int] = []
        self._begin = self._end = 0
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All that was handed on."""
        return "".join(self._pieces)

    def add(self, token_id: int) -> None:
        """A further token. It hands on what it completes."""
        self._ids.append(token_id)
        self._hand_on(final=False)

    def finish(self) -> None:
        """The end: whatever is left is handed on, bytes that are no character as U+FFFD."""
        self._hand_on(final=True)

    def _hand_on(self, final: bool) -> None:
        # Decoders look at neighbours (a leading space, bytes of one character), so the last piece is decoded again
        # together with the new one, and what it yielded alone is cut off.
        known = self._decode(self._ids[self._begin : self._end])
        text = self._decode(self._ids[self._begin :])
        if len(text) <= len(known) or (text.endswith("\ufffd") and not final):
            return
        piece = text[len(known) :]
        self._begin, self._end = self._end, len(self._ids)
        self._pieces.append(piece)
        if self._on_text is not None:
            self._on_text(piece)


def prefill(writer: Writer, token_ids: Sequence[int], limits: Limits) -> torch.Tensor:
    """Append tokens piece by piece; logits [vocabulary] of the token after them. ValueError without any."""
    if not token_ids:
        raise ValueError("no tokens to go on from")
    logits = None
    for begin in range(0, len(token_ids), PIECE):
        limits.check()
        logits = writer.step(token_ids[begin : begin + PIECE])
    return logits


def write(
    writer: Writer,
    prompt: Sequence[int],
    *,
    end_ids: Sequence[int],
    max_new_tokens: int,
    limits: Limits,
    stream: TextStream,
    allowed: Allowed | None = None,
) -> GenerationOutput:
    """The most probable token again and again, until an end token or ``max_new_tokens``.

    prompt: tokens of the question, which the cache lacks. Limits are checked before every token. allowed: what the
    answer is held to; probabilities are then given that.
    """
    start = time.perf_counter()
    first = math.nan
    ids: list[int] = []
    probabilities: list[float] = []
    logits = prefill(writer, prompt, limits)
    while True:
        logits = logits.float() if allowed is None else allowed.mask(logits.float())
        probability, chosen = torch.softmax(logits, -1).max(-1)
        ids.append(int(chosen))
        probabilities.append(float(probability))
        if len(ids) == 1:
            first = time.perf_counter() - start
        complete = ids[-1] in end_ids
        if allowed is not None and not complete and allowed.take(ids[-1]):
            stream.add(ids[-1])
            complete = True
        elif not complete:
            stream.add(ids[-1])
        if complete or len(ids) >= max_new_tokens:
            break
        limits.check()
        logits = writer.step(ids[-1:])
    stream.finish()
    return GenerationOutput(tuple(ids), tuple(probabilities), complete, first)


def choose(
    writer: Writer, prompt: Sequence[int], labels: Sequence[Sequence[int]], *, end_ids: Sequence[int], limits: Limits
) -> GenerationOutput:
    """The most probable of some labels (token ids each), given that it is one of them; the first of equals.

    A label's probability is the product of its tokens'. Where one label begins another, all are compared with the end
    token after them.
    """
    start = time.perf_counter()
    logits = prefill(writer, prompt, limits)
    asked = [tuple(label) for label in labels]
    if any(a != b and b[: len(a)] == a for a in asked for b in asked):
        asked = [(*label, end_ids[0]) for label in asked]
    at_question = torch.log_softmax(logits.float(), -1)
    first = time.perf_counter() - start
    begin = writer.length()
    scores: list[list[float]] = []
    for label in asked:
        scores.append([float(at_question[label[0]])])
        for i in range(1, len(label)):
            limits.check()
            after = torch.log_softmax(writer.step(label[i - 1 : i]).float(), -1)
            scores[-1].append(float(after[label[i]]))
        writer.truncate(begin)
    options = torch.softmax(torch.tensor([math.fsum(score) for score in scores], dtype=torch.float64), -1)
    chosen = int(options.argmax())
    probabilities = tuple(math.exp(score) for score in scores[chosen])
    return GenerationOutput(asked[chosen], probabilities, True, first, tuple(options.tolist()), chosen)
