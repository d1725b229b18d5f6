"""Benchmarks of multiple choice alone: the spatial parts of BLINK, and CV-Bench."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spatial_mllm_ros.learning.evaluation.items import Item, Scores, means, micro, rows_of, with_overall
from spatial_mllm_ros.learning.evaluation.readings import letter

BLINK_SPATIAL = (
    "Relative_Depth",
    "Spatial_Relation",
    "Multi-view_Reasoning",
    "Visual_Correspondence",
    "Object_Localization",
)


def _item(record: dict[str, Any], kind: str) -> Item:
    return Item(
        id=str(record["idx"]),
        kind=kind,
        question=record["question"],
        truth=record["answer"],
        options=tuple(record["choices"]),
        record=record,
    )


def _scores(item: Item, text: str) -> Scores:
    truth = item.truth.strip().strip("()")
    return {
        "letter": float(letter(text, max(len(item.options), 2)) == truth),
        "exact": float(text.strip() == item.truth),
    }


class Blink:
    """The spatial subtasks of BLINK (arXiv 2404.12390): TASK/val*.parquet, or .jsonl of their records: idx,
    sub_task, question, choices, answer "(A)".

    Variants: ``letter``: the one letter that the text names (published: matched by a language model); ``exact``: the
    text is the answer. overall: the mean of the subtasks.
    """

    name = "blink"
    variants: tuple[str, ...] = ("letter", "exact")

    def load(self, folder: Path) -> list[Item]:
        needed = ("idx", "sub_task", "question", "choices", "answer")
        rows = rows_of(folder, ("*/val*.parquet", "*.jsonl", "*.parquet"), needed)
        return [_item(r, kind=r["sub_task"]) for r in rows if r["sub_task"] in BLINK_SPATIAL]

    def score(self, item: Item, text: str) -> Scores:
        return _scores(item, text)

    def summary(self, scored: Iterable[tuple[Item, Scores]], variant: str) -> dict[str, float]:
        return with_overall(means(scored, variant))


class CvBench:
    """CV-Bench (arXiv 2406.16860): test*.parquet or .jsonl with idx, type, task, source, question, choices, answer "(A)".

    As published: 2D is the mean of ADE20K's and COCO's accuracies, 3D that of Omni3D, overall the mean of 2D and 3D.
    """

    name = "cvbench"
    variants: tuple[str, ...] = ("letter", "exact")

    def load(self, folder: Path) -> list[Item]:
        needed = ("idx", "task", "source", "question", "choices", "answer")
        rows = rows_of(folder, ("test*.parquet", "*.jsonl", "*.parquet", "*/test*.parquet"), needed)
        return [_item(r, kind=r["source"]) for r in rows]

    def score(self, item: Item, text: str) -> Scores:
        return _scores(item, text)

    def summary(self, scored: Iterable[tuple[Item, Scores]], variant: str) -> dict[str, float]:
        scored = list(scored)
        by_source = means(scored, variant)
        flat = [mean for source, mean in by_source.items() if source != "Omni3D"]
        parts = {"2D": sum(flat) / len(flat)} if flat else {}
        if "Omni3D" in by_source:
            parts["3D"] = by_source["Omni3D"]
        return {**with_overall(parts), **{k: 100 * v for k, v in by_source.items()}, "micro": micro(scored, variant)}
