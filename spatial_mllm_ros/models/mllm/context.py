"""What a context is, and what the parts that make and keep contexts ask of each other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spatial_mllm_ros.models.mllm.cache import FeatureCache, StaticCache
from spatial_mllm_ros.models.mllm.generate import Allowed, Limits, Writer
from spatial_mllm_ros.models.mllm.prompts import QuestionTokens
from spatial_mllm_ros.serving.interface import ModelFrame, ModelQuestion


@dataclass(eq=False)
class Context:
    """Frames in the language model's cache, ready for a question.

    frame_ids: in time order. cache: keys and values of ``length`` tokens, the last of them before the question;
    next_position: that of the question's first token. sources: for each token what it depends on.
    """

    frame_ids: tuple[int, ...]
    cache: StaticCache
    length: int
    next_position: int
    sources: tuple[Hashable, ...] = ()

    def rewind(self) -> None:
        """Forget the tokens of a question and its answer."""
        self.cache.truncate(self.length)


Steps = Generator[str, None, Context]
"""Work on a context, in steps that take a moment each and say what was done. Run under ``torch.inference_mode``."""


@dataclass(frozen=True, eq=False)
class Store:
    """Where an encoder keeps things. features: encoded images. reserve: to be called with the bytes of the keys and
    values to come before they are taken; it returns the last complete context, if there is one, and raises ModelError
    where there is no room."""

    features: FeatureCache
    reserve: Callable[[int], Context | None]


class Encoder(Protocol):
    """A loaded model, as contexts and answers need it."""

    @property
    def model_id(self) -> str:
        """The checkpoint, its precision and the runtime."""

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""

    def select(self, frames: Sequence[ModelFrame], limit: int) -> Sequence[ModelFrame]:
        """The frames that a context of these has, ``limit`` at most, in time order. frames: the best first."""

    def encode(self, frames: Sequence[ModelFrame], store: Store) -> Steps:
        """A context of selected frames."""

    def question(self, question: ModelQuestion) -> QuestionTokens:
        """A question's tokens, which follow a context's, and those of its options' labels."""

    def chat_head(self, question: ModelQuestion) -> tuple[int, ...]:
        """Tokens of the first message of a question's chat; those of the others follow with ``question``."""

    def text_context(self, token_ids: Sequence[int], limits: Limits) -> Context:
        """A context of text alone. Run under ``torch.inference_mode``; raises what ``limits`` do."""

    def allowed(self, schema: str) -> Allowed:
        """What may be written next so that the whole is of a JSON Schema. ModelError where that cannot be had."""

    def writer(self, context: Context) -> Writer:
        """The language model going on from a context."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Their text, without special tokens."""

    def memory(self) -> dict[str, int]:
        """Bytes by name: weights, and memory of a device of its own."""

    def wait(self) -> None:
        """Until the device has done what it was told."""

    def free(self) -> None:
        """Give memory that is not used back to the device."""
