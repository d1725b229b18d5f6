"""The benchmark of MultiSPA, on a folder that ``spatial-mllm data multispa`` wrote, or one in its form."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spatial_mllm_ros.learning.evaluation.items import Item, Scores, means, rows_of, with_overall
from spatial_mllm_ros.learning.evaluation.readings import letter, marked, numbers
from spatial_mllm_ros.learning.multispa.engine import IMAGES
from spatial_mllm_ros.learning.multispa.subtasks import BY_NAME, WORDS, Kind

RELATIVE = 0.2
"""A number, or the length of a vector's error, is right to within this share of the truth (arXiv 2505.17015)."""
PIXELS = 0.1
"""A coordinate is right to within this share of the image's width (arXiv 2505.17015)."""
REST_MM = 10.0
"""Where the truth is no movement: the bound below which points count as at rest. The paper tells none."""


class MultiSpa:
    """eval/*.jsonl. Words and letters as they are; numbers and vectors to within 20 %, coordinates 10 % of the width; of
    two compared points the nearer one to what is told must be the right one. overall: the mean of the subtasks."""

    name = "multispa"
    variants: tuple[str, ...] = ("multispa",)

    def load(self, folder: Path) -> list[Item]:
        needed = ("id", "image", "text", "question_type", "gt_value", "subtask", "width_list", "height_list")
        return [
            Item(
                id=row["id"],
                kind=row["subtask"],
                question=row["text"],
                truth=row["gt_value"],
                options=_options(row["subtask"]),
                media=tuple(folder / IMAGES / name for name in row["image"]),
                record=row,
            )
            for row in rows_of(folder, ("eval/*.jsonl", "*.jsonl"), needed)
            if row["subtask"] in BY_NAME
        ]

    def score(self, item: Item, text: str) -> Scores:
        return {"multispa": float(_right(item, text))}

    def summary(self, scored: Iterable[tuple[Item, Scores]], variant: str) -> dict[str, float]:
        """By subtask, by task, and overall."""
        by_kind = means(scored, variant)
        tasks: dict[str, list[float]] = {}
        for kind, mean in by_kind.items():
            tasks.setdefault(BY_NAME[kind].task, []).append(mean)
        return {**with_overall(by_kind), **{task: 100 * sum(found) / len(found) for task, found in tasks.items()}}


def _options(subtask: str) -> tuple[str, ...]:
    if subtask in WORDS:
        return WORDS[subtask]
    choices = {"depth_comparison_dot": ("A", "B"), "visual_correspondence_dot_2_multichoice": ("A", "B", "C", "D")}
    return choices.get(subtask, ())


def _right(item: Item, text: str) -> bool:
    kind, told = BY_NAME[item.kind].kind, marked(text)
    if kind is Kind.WORD:
        words = [word for word in item.options if word in told.lower().replace(".", " ").replace(",", " ").split()]
        return words == [item.truth]
    if kind is Kind.LETTER:
        return letter(told, len(item.options)) == item.truth
    found = numbers(told)
    if kind is Kind.COORDINATE:
        return len(found) >= 2 and _coordinate(item, np.array(found[-2:]))
    if kind is Kind.VECTOR:
        truth = 1000 * np.asarray(item.truth, dtype=np.float64)
        return len(found) >= 3 and _close(
            float(np.linalg.norm(np.array(found[-3:]) - truth)), float(np.linalg.norm(truth))
        )
    return bool(found) and _close(abs(found[-1] - float(item.truth)), abs(float(item.truth)))


def _close(error: float, size: float) -> bool:
    return error <= (RELATIVE * size if size > 0 else REST_MM)


def _coordinate(item: Item, told: np.ndarray) -> bool:
    size = np.array([item.record["width_list"][-1], item.record["height_list"][-1]], dtype=np.float64)
    truth = np.asarray(item.truth, dtype=np.float64)
    if item.kind.startswith("depth_comparison"):
        both = [np.array(p) / size * 1000 for p in item.record["points"][0]]
        nearest = both[int(np.argmin([np.linalg.norm(told - p) for p in both]))]
        return bool(np.abs(nearest - truth).max() < 1)
    return bool(np.linalg.norm((told - truth) / 1000 * size) <= PIXELS * size[0])
