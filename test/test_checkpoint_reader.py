"""The loaded model as translator of questions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from spatial_mllm_ros.answering.checkpoint_reader import CheckpointReader
from spatial_mllm_ros.language.endpoint import ReaderUnavailable
from spatial_mllm_ros.queries.asks import Value
from spatial_mllm_ros.queries.measures import Distance
from spatial_mllm_ros.queries.operands import Point
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.serialization import to_json
from spatial_mllm_ros.serving.interface import Generated, ModelBusy, ModelError, ModelQuestion

DISTANCE = Query(ask=Value(of=Distance(a=Point(index=0), b=Point(index=1))))
SAID = Generated(json.dumps({"query": to_json(DISTANCE), "reason": ""}), (1,), (1.0,), (), True, (), "warm", 0, 1, 1)


class Model:
    """Says one thing, and remembers what it was asked."""

    model_id = "a model"

    def __init__(self, says: Generated | ModelError) -> None:
        self.says = says
        self.asked: list[tuple[ModelQuestion, dict[str, Any]]] = []

    def ask(self, question: ModelQuestion, **given: Any) -> Generated:
        self.asked.append((question, given))
        if isinstance(self.says, ModelError):
            raise self.says
        return self.says


def translate(says: Generated | ModelError) -> tuple[Any, Model]:
    model: Any = Model(says)
    return CheckpointReader(model).translate(
        "Wie weit ist <p0> von <p1>?", points=2, boxes=0, times=0, timeout_s=3
    ), model


def test_the_model_is_asked_without_frames_and_held_to_the_schema() -> None:
    translation, model = translate(SAID)
    assert translation.query == DISTANCE
    question, given = model.asked[0]
    assert "frames" not in given
    assert given["timeout_s"] == 3
    assert "$defs" in json.loads(question.schema)
    assert question.chat[0][0] == "system"
    assert question.text.startswith("Wie weit")


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (replace(SAID, complete=False), "did not come to an end"),
        (replace(SAID, text="three metres"), "no JSON"),
        (ModelBusy("64 questions are waiting"), "64 questions are waiting"),
    ],
)
def test_what_is_no_translation_is_told(says: Any, told: str) -> None:
    with pytest.raises(ReaderUnavailable, match=told):
        translate(says)
