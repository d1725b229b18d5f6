"""Sentences for samples, drawn from wordings.yaml."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from spatial_mllm_ros.learning.multispa.samples import Sample


@cache
def wordings() -> dict[str, dict[str, list[str]]]:
    """The lists of sentences, by the wording's name and their role."""
    text = files(__package__).joinpath("wordings.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return {name: lists for name, lists in loaded.items() if isinstance(lists, dict)}


def worded(sample: Sample, rng: np.random.Generator) -> tuple[str, str]:
    """The question, with a line for each image before it, and the answer.

    ``fill["asked"]`` names the list of questions where there are several; ``fill["at_rest"]`` puts a sentence before
    the answer, as the published engine does for points that did not move.
    """
    lists = wordings()[sample.subtask.wording]

    def draw(role: str) -> str:
        sentences = lists[role]
        return sentences[int(rng.integers(len(sentences)))].format(**sample.fill)

    count = len(sample.pictures)
    images = ["<image>"] if count == 1 else [f"Image-{i}: <image>" for i in range(1, count + 1)]
    question = draw(sample.fill.get("asked", "questions"))
    if "format" in lists:
        question = f"{question} {draw('format')}"
    answer = draw("answers")
    if sample.fill.get("at_rest"):
        answer = f"{draw('still')} {answer}"
    return "\n".join([*images, draw("about"), question]), answer
