"""``spatial-mllm bench reading``: how many questions are read, and how long that takes."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spatial_mllm_ros.answering.catalogue import kinds
from spatial_mllm_ros.language.reader import Reading, read
from spatial_mllm_ros.language.tokens import check_text, marks_in
from spatial_mllm_ros.queries.codes import QueryError

Progress = Callable[[str, int, int | None], None]


class FileError(ValueError):
    """A file of questions that cannot be used. ``str()`` says which file and entry, what is wrong and what to do."""


def run(
    file: Path | None = None, rounds: int = 5, progress: Progress = lambda what, done, total: None
) -> dict[str, Any]:
    """The canonical sentence of every kind of question, and the questions of a file: what is read, and the time each takes.

    rounds: how often each is read; every reading counts. Raises FileError, and OSError where the file cannot be read.
    """
    sets = {"canonical": [kind.example for kind in kinds() if kind.example]}
    if file is not None:
        sets[file.name] = questions_of(file)
    read(sets["canonical"][0], **marks_in(sets["canonical"][0]))  # the first one prepares what all use
    return {"reading": [_row(name, questions, rounds, progress) for name, questions in sets.items()]}


def questions_of(file: Path) -> list[str]:
    """The questions of a file: one a line, or a JSON list of texts or of objects that have ``question``."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        rows: Any = (
            json.loads(text) if text.lstrip()[:1] == "[" else [line for line in text.splitlines() if line.strip()]
        )
    except (ValueError, RecursionError) as error:
        raise FileError(f"{file} is neither lines in UTF-8 nor a JSON list: {error}") from error
    questions: list[Any] = [row.get("question") if isinstance(row, dict) else row for row in rows]
    for number, question in enumerate(questions, 1):
        if not isinstance(question, str):
            raise FileError(f"{file}: entry {number} is neither a text nor an object with the text question")
        try:
            check_text(question)
        except QueryError as error:
            raise FileError(f"{file}: entry {number}: {error}") from error
    if not questions:
        raise FileError(f"{file} has no questions: one a line, or a JSON list of objects with question")
    return questions


def _row(name: str, questions: Sequence[str], rounds: int, progress: Progress) -> dict[str, Any]:
    ms: list[float] = []
    outcomes: Counter[str] = Counter()
    for number, question in enumerate(questions):
        progress(f"reading {name}", number, len(questions))
        marks = marks_in(question)
        for _ in range(rounds):
            begin = time.perf_counter()
            reading = read(question, **marks)
            ms.append((time.perf_counter() - begin) * 1e3)
        outcomes[_outcome(reading)] += 1
    return {
        "questions_of": name,
        "questions": len(questions),
        "read_percent": 100.0 * outcomes["read"] / len(questions),
        **{outcome: outcomes[outcome] for outcome in ("ambiguous", "for_a_model", "refused")},
        "median_ms": float(np.median(ms)),
        "p99_ms": float(np.percentile(ms, 99)),
        "max_ms": max(ms),
    }


def _outcome(reading: Reading) -> str:
    if reading.query is not None:
        return "read"
    return "ambiguous" if reading.code.name == "AMBIGUOUS" else "for_a_model" if reading.free_form else "refused"
