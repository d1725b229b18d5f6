"""The loaded checkpoint's own language model as translator of questions, its replies held to the schema."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from spatial_mllm_ros.language.endpoint import ReaderUnavailable
from spatial_mllm_ros.language.translation import (
    BadReply,
    Exchange,
    Translation,
    messages,
    reply_schema,
    translation_of,
)
from spatial_mllm_ros.serving.interface import ModelError, ModelQuestion, SpatialModel


class CheckpointReader:
    """Translates questions with a loaded model; see language/conversation.Translator. It is shown no frames."""

    def __init__(self, model: SpatialModel) -> None:
        self._model = model
        self._schema = json.dumps(reply_schema())

    @property
    def name(self) -> str:
        """How its readings are marked."""
        return self._model.model_id

    def translate(
        self,
        question: str,
        *,
        points: int,
        boxes: int,
        times: int,
        choices: Sequence[str] = (),
        history: Sequence[Exchange] = (),
        timeout_s: float = math.inf,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Translation:
        """What the question means. Raises ReaderUnavailable when the model fails, is too slow or says nonsense."""
        chat = messages(question, points=points, boxes=boxes, times=times, choices=choices, history=history)
        asked = ModelQuestion(
            chat[-1]["content"], schema=self._schema, chat=tuple((m["role"], m["content"]) for m in chat[:-1])
        )
        try:
            generated = self._model.ask(asked, timeout_s=timeout_s, cancelled=cancelled)
            if not generated.complete:
                raise BadReply("it did not come to an end")
            return translation_of(generated.text, question, points=points, boxes=boxes, times=times)
        except (ModelError, BadReply) as error:
            raise ReaderUnavailable(f"the reader ({self.name}) gave no usable reading: {error}") from error
