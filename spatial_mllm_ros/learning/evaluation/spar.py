"""SPAR-Bench (arXiv 2503.22976)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from spatial_mllm_ros.learning.evaluation.items import Item, Scores, means, rows_of, with_overall
from spatial_mllm_ros.learning.evaluation.readings import to_float
from spatial_mllm_ros.learning.evaluation.scores import signed_mra

LOW = tuple(
    f"{what}_prediction_{who}{views}" for what in ("depth", "distance") for who in ("oc", "oo") for views in ("", "_mv")
)
LAST_NUMBER = tuple(kind for kind in LOW if kind.endswith("_mv"))
MIDDLE = ("view_change_infer", "position_matching", "camera_motion_infer")
VIEW_CHANGE = "view_change_infer"
OPPOSED = (
    ("move_right", "move_left"), ("move_up", "move_down"), ("move_forward", "move_backward"),
    ("rotate_right", "rotate_left"), ("rotate_up", "rotate_down"),
)  # fmt: skip
_UNSIGNED = re.compile(r"(?<!\^)\d+\.\d+|(?<!\^)\d+")


class SparBench:
    """*.jsonl, .json or .parquet with id, task, question and answer.

    Numbers: ``signed_mra`` of the first number, for several views of the last, without its sign. Choices: the answer, a
    part of it, or a text that begins with it, as published. View changes: the mean over five opposed movements, relative
    to what was told. overall: the mean of the tasks; also of the low, middle and high ones.
    """

    name = "sparbench"
    variants: tuple[str, ...] = ("sparbench",)

    def load(self, folder: Path) -> list[Item]:
        rows = rows_of(folder, ("*.jsonl", "*.parquet", "*/*.parquet", "*.json"), ("id", "task", "question", "answer"))
        return [
            Item(id=str(r["id"]), kind=r["task"], question=r["question"], truth=str(r["answer"]), record=r)
            for r in rows
        ]

    def score(self, item: Item, text: str) -> Scores:
        if item.kind == VIEW_CHANGE:
            return {"sparbench": _view_change(text, item.truth)}
        if item.kind in LOW:
            found = _UNSIGNED.findall(text) or (["-1"] if item.kind in LAST_NUMBER else [])
            told = to_float(found[-1 if item.kind in LAST_NUMBER else 0]) if found else None
            truth = to_float(item.truth)
            return {"sparbench": 0.0 if told is None or truth is None else signed_mra(told, truth)}
        told_text, truth_text = text.lower(), item.truth.lower()
        right = told_text in truth_text or told_text[:1] == truth_text
        return {"sparbench": float(bool(told_text) and right)}

    def summary(self, scored: Iterable[tuple[Item, Scores]], variant: str) -> dict[str, float]:
        by_kind = means(scored, variant)
        groups: dict[str, list[float]] = {"low": [], "middle": [], "high": []}
        for kind, mean in by_kind.items():
            groups["low" if kind in LOW else "middle" if kind in MIDDLE else "high"].append(mean)
        levels = {name: 100 * sum(found) / len(found) for name, found in groups.items() if found}
        return {**with_overall(by_kind), **levels}


def _view_change(text: str, truth: str) -> float:
    """0 where the text is not of the form "move_right:0.3,rotate_left:20"."""
    try:
        told, true = (
            {key: float(value) for key, value in (part.split(":") for part in told.split(","))}
            for told in (text, truth)
        )
    except ValueError:
        return 0.0
    found = [signed_mra(true.get(a, 0.0) - true.get(b, 0.0), told.get(a, 0.0) - told.get(b, 0.0)) for a, b in OPPOSED]
    return sum(found) / len(found)
