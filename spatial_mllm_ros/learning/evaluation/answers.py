"""Benchmarks of short answers in words: ScanQA and SQA3D."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spatial_mllm_ros.learning.evaluation.items import Item, Scores, means, micro, rows_of, with_overall
from spatial_mllm_ros.sources.source import SourceError


class ScanQa:
    """ScanQA (arXiv 2112.10482): ScanQA_v1.0_val.json with question_id, question, answers, scene_id.

    Variants: ``EM``: the text is one of the answers, as published; ``EM, any case``: without regard to case, spaces at
    the ends and a full stop.
    """

    name = "scanqa"
    variants: tuple[str, ...] = ("EM", "EM, any case")

    def load(self, folder: Path) -> list[Item]:
        rows = rows_of(folder, ("ScanQA*val*.json", "*.jsonl", "*.json"), ("question_id", "question", "answers"))
        return [
            Item(id=str(r["question_id"]), kind="all", question=r["question"], truth=tuple(r["answers"]), record=r)
            for r in rows
        ]

    def score(self, item: Item, text: str) -> Scores:
        plain = text.strip().rstrip(".").lower()
        return {
            "EM": float(text in item.truth),
            "EM, any case": float(any(plain == answer.strip().rstrip(".").lower() for answer in item.truth)),
        }

    def summary(self, scored: Iterable[tuple[Item, Scores]], variant: str) -> dict[str, float]:
        return {"overall": micro(scored, variant)}


class Sqa3d(ScanQa):
    """SQA3D (arXiv 2210.07474): the questions and the annotations of a split, v1_balanced_*test*.json; the situation comes
    before the question. EM as of ScanQA, also by the first word of the question, as published."""

    name = "sqa3d"

    def load(self, folder: Path) -> list[Item]:
        questions = rows_of(folder, ("v1_balanced_questions_test*.json",), ("question_id", "question", "situation"))
        annotations = rows_of(folder, ("v1_balanced_sqa_annotations_test*.json",), ("question_id", "answers"))
        answers = {str(r["question_id"]): tuple(a["answer"] for a in r["answers"]) for r in annotations}
        missing = [r["question_id"] for r in questions if str(r["question_id"]) not in answers]
        if missing:
            raise SourceError(f"{folder}: {len(missing)} questions have no annotation, the first is {missing[0]}")
        return [
            Item(
                id=str(r["question_id"]),
                kind=_first_word(r["question"]),
                question=f"{r['situation']} {r['question']}",
                truth=answers[str(r["question_id"])],
                record=r,
            )
            for r in questions
        ]

    def summary(self, scored: Iterable[tuple[Item, Scores]], variant: str) -> dict[str, float]:
        scored = list(scored)
        return {**with_overall(means(scored, variant)), "overall": micro(scored, variant)}


def _first_word(question: str) -> str:
    word = question.split(" ", maxsplit=1)[0].lower()
    return word if word in ("what", "is", "how", "can", "which") else "other"
