"""A benchmark from question to table: resumable, a line of JSON for each question."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spatial_mllm_ros.learning.evaluation.answerers import Answerer, Failed, Refused
from spatial_mllm_ros.learning.evaluation.items import Benchmark, Item, Scores
from spatial_mllm_ros.sources.source import SourceError

RESULTS = "results.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one answerer. predictions: text by question, None where it refused. refused: why, with counts. figures: of each
    variant of the rules, percent by type; a refused question scores 0. answered: percent of the questions.
    """

    answerer: str
    predictions: dict[str, str | None]
    refused: Counter[str]
    figures: dict[str, dict[str, float]]
    answered: float = field(default=100.0)


def evaluate(
    benchmark: Benchmark,
    items: Sequence[Item],
    answerer: Answerer,
    folder: Path,
    progress: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> Outcome:
    """Answer all questions and score them. Answers are added to ``folder``/ANSWERER.jsonl one by one, and what is there is
    not asked again, apart from a last line that was cut off and questions that failed.

    Raises SourceError where that file is of other questions; OSError when it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{answerer.name}.jsonl"
    done = _resumed(path, {item.id for item in items})
    with path.open("a", encoding="utf-8") as file:
        for number, item in enumerate(items, 1):
            if item.id not in done:
                done[item.id] = _answered(benchmark, item, answerer)
                file.write(json.dumps(done[item.id], ensure_ascii=False) + "\n")
                file.flush()
            progress(f"{answerer.name}: {benchmark.name}", number, len(items))
    texts = {item.id: done[item.id]["prediction"] for item in items}
    return Outcome(
        answerer=answerer.name,
        predictions=texts,
        refused=Counter(done[item.id]["refused"].split(":")[0] for item in items if done[item.id]["refused"]),
        figures=figures(benchmark, items, texts),
        answered=100 * sum(text is not None for text in texts.values()) / max(len(items), 1),
    )


def figures(benchmark: Benchmark, items: Sequence[Item], texts: dict[str, str | None]) -> dict[str, dict[str, float]]:
    """Percent by type, of each variant."""
    scored = [(item, _scores(benchmark, item, texts[item.id])) for item in items]
    return {variant: benchmark.summary(scored, variant) for variant in benchmark.variants}


def write_results(
    benchmark: Benchmark, outcomes: Iterable[Outcome], folder: Path, count: int, extra: dict[str, Any] | None = None
) -> Path:
    """results.json, whole or not at all."""
    content = {
        "benchmark": benchmark.name,
        "questions": count,
        **(extra or {}),
        "answerers": {
            o.answerer: {"answered": o.answered, "refused": dict(o.refused), "scores": o.figures} for o in outcomes
        },
    }
    path, part = folder / RESULTS, folder / f".{RESULTS}.part"
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def _answered(benchmark: Benchmark, item: Item, answerer: Answerer) -> dict[str, Any]:
    begin = time.perf_counter()
    text: str | None = None
    refused, failed = "", False
    try:
        text = answerer.answer(item)
    except Refused as error:
        refused, failed = str(error) or "refused", isinstance(error, Failed)
    return {
        "id": item.id,
        "kind": item.kind,
        "truth": item.truth,
        "prediction": text,
        "refused": refused,
        "failed": failed,
        "scores": _scores(benchmark, item, text),
        "seconds": round(time.perf_counter() - begin, 3),
    }


def _scores(benchmark: Benchmark, item: Item, text: str | None) -> Scores:
    return dict.fromkeys(benchmark.variants, 0.0) if text is None else benchmark.score(item, text)


def _resumed(path: Path, known: set[str]) -> dict[str, dict[str, Any]]:
    """What is answered already, by question."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    whole, _, cut = text.rpartition("\n")
    if cut:  # written when the run was killed
        path.write_text(whole + "\n" if whole else "", encoding="utf-8")
    done = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            done[str(row["id"])] = row
        except (ValueError, KeyError) as error:
            raise SourceError(f"{path}, line {number} is no answer: {error}; remove the file to start over") from error
    strange = set(done) - known
    if strange:
        raise SourceError(f"{path} has answers to other questions, such as {min(strange)}: name another --output")
    return {key: row for key, row in done.items() if not row.get("failed")}
