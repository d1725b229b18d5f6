"""Answers of a language model held to a JSON Schema, by llguidance (extra ``reader``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from spatial_mllm_ros.serving.interface import ModelError

_SHIFTS = torch.arange(32, dtype=torch.int32)
"""Tokens of one integer of the library's masks, the first one in the lowest bit."""


class JsonSchema:
    """What may be written next so that the whole is JSON of a schema. See ``generate.Allowed``.

    tokenizer: a fast one of transformers. end_ids: tokens that end an answer. vocabulary: number of logits. Raises
    ModelError when the library is missing or cannot hold an answer to the schema.
    """

    def __init__(self, tokenizer: Any, schema: str, end_ids: Sequence[int], vocabulary: int) -> None:
        try:
            import llguidance.torch as masks
            from llguidance import LLMatcher
        except ImportError as error:
            raise ModelError(
                "holding an answer to a schema needs llguidance: pip install 'spatial_mllm_ros[reader]'"
            ) from error
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
        self._masks: Any = masks
        self._matcher: Any = LLMatcher(_tokenizer(tokenizer, vocabulary, end_ids[0] if end_ids else None), grammar)
        if problem := self._matcher.get_error():
            raise ModelError(f"an answer cannot be held to the schema: {problem}")
        self._bits = masks.allocate_token_bitmask(1, vocabulary)

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [vocabulary] with minus infinity for what may not come."""
        self._masks.fill_next_token_bitmask(self._matcher, self._bits)
        # the library's own function compiles a kernel first, which takes longer than a whole answer on a CPU
        bits = (self._bits[0, :, None] >> _SHIFTS) & 1
        return logits.masked_fill(bits.reshape(-1)[: len(logits)].to(logits.device) == 0, -math.inf)

    def take(self, token_id: int) -> bool:
        """A token was written; whether nothing may follow it."""
        if not self._matcher.consume_token(token_id):
            raise ModelError(f"the model left the schema: {self._matcher.get_error()}")
        return bool(self._matcher.is_stopped())


@lru_cache(maxsize=2)
def _tokenizer(tokenizer: Any, vocabulary: int, end_id: int | None) -> Any:
    """The library's own form of a tokenizer, which takes a second to make."""
    from llguidance import hf

    return hf.from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=end_id)
