"""VSI-Bench, and its debiased part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spatial_mllm_ros.learning.evaluation import readings, scores
from spatial_mllm_ros.learning.evaluation.items import Item, Scores, means, micro, rows_of, with_overall
from spatial_mllm_ros.sources.source import SourceError

DIRECTION = "object_rel_direction"
GRADES = tuple(f"{DIRECTION}_{grade}" for grade in ("easy", "medium", "hard"))
NEEDED = ("id", "dataset", "scene_name", "question_type", "question", "ground_truth")


@dataclass(frozen=True)
class VsiBench:
    """test.jsonl or .parquet with id, dataset, scene_name, question_type, question, ground_truth and options; videos at
    DATASET/SCENE.mp4. debiased: without the questions marked ``pruned``.

    Variants: ``vsibench``: the first word; numbers by ``mra``; direction is the mean of its three grades, overall the
    mean of the types. ``spatial-mllm``: the whole cleaned text; numbers by ``strict_mra``; averaged in the same way.
    ``last-number``: as vsibench, but of the last number, or letter, in the text.
    """

    name: str = "vsibench"
    debiased: bool = False
    variants: tuple[str, ...] = ("vsibench", "spatial-mllm", "last-number")

    def load(self, folder: Path) -> list[Item]:
        rows = rows_of(folder, ("test.jsonl", "test*.parquet", "*.jsonl", "*.parquet", "*/test*.parquet"), NEEDED)
        if self.debiased:
            if not any("pruned" in row for row in rows):
                raise SourceError(
                    f"{folder} does not mark the questions that debiasing prunes: use vsibench, or a newer copy"
                )
            rows = [row for row in rows if not row.get("pruned")]
        return [
            Item(
                id=str(row["id"]),
                kind=row["question_type"],
                question=row["question"],
                truth=str(row["ground_truth"]),
                options=tuple(row.get("options") or ()),
                media=(folder / row["dataset"] / f"{row['scene_name']}.mp4",),
                record=row,
            )
            for row in rows
        ]

    def score(self, item: Item, text: str) -> Scores:
        if item.options:
            return {
                "vsibench": float(readings.first_word(text).lower() == item.truth.lower()),
                "spatial-mllm": float(readings.cleaned(text) == readings.cleaned(item.truth)),
                "last-number": float(readings.letter(text, len(item.options)) == item.truth.upper()),
            }
        truth = readings.to_float(readings.first_word(item.truth))
        clean = readings.whole_number(readings.cleaned(item.truth))
        if truth is None or clean is None:
            return dict.fromkeys(self.variants, 0.0)
        first = readings.to_float(readings.first_word(text))
        whole = readings.whole_number(readings.cleaned(text))
        last = readings.last_number(text)
        return {
            "vsibench": 0.0 if first is None else scores.mra(first, truth),
            "spatial-mllm": 0.0 if whole is None else scores.strict_mra(whole, clean),
            "last-number": 0.0 if last is None else scores.mra(last, truth),
        }

    def summary(self, scored: Iterable[tuple[Item, Scores]], variant: str) -> dict[str, float]:
        """By type, ``overall`` (macro) and ``micro``."""
        scored = list(scored)
        by_kind = means(scored, variant)
        grades = [by_kind.pop(kind) for kind in GRADES if kind in by_kind]
        if grades:
            by_kind[DIRECTION] = sum(grades) / len(grades)
        return {**with_overall(by_kind), "micro": micro(scored, variant)}
