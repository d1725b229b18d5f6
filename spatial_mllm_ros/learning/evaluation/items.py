"""Questions of a benchmark, and the tables that they are read from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from spatial_mllm_ros.sources.source import SourceError

Scores = dict[str, float]
"""Of one question: a score, 0 to 1, for each variant of the rules."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question. kind: its type, as the benchmark calls it. options: as the benchmark writes them, "A. left". truth: of
    questions with options mostly the letter. media: paths of images or of a video. record: everything else."""

    id: str
    kind: str
    question: str
    truth: Any
    options: tuple[str, ...] = ()
    media: tuple[Path, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


class Benchmark(Protocol):
    """What is known of a benchmark. ``variants``: names of the rules by which it is scored, the published one first."""

    @property
    def name(self) -> str: ...

    @property
    def variants(self) -> tuple[str, ...]: ...

    def load(self, folder: Path) -> list[Item]:
        """Its questions. SourceError for a folder in another layout."""
        ...

    def score(self, item: Item, text: str) -> Scores:
        """Of an answer, by each variant."""
        ...

    def summary(self, scored: Iterable[tuple[Item, Scores]], variant: str) -> dict[str, float]:
        """Percent by type or group, and ``overall``."""
        ...


def means(scored: Iterable[tuple[Item, Scores]], variant: str) -> dict[str, float]:
    """Mean score of each kind, 0 to 1, kinds in alphabetical order."""
    by_kind: dict[str, list[float]] = {}
    for item, scores in scored:
        by_kind.setdefault(item.kind, []).append(scores[variant])
    return {kind: sum(found) / len(found) for kind, found in sorted(by_kind.items())}


def with_overall(of: Mapping[str, float]) -> dict[str, float]:
    """In percent, with their mean as ``overall`` (the macro average)."""
    if not of:
        return {"overall": 0.0}
    return {"overall": 100 * sum(of.values()) / len(of), **{name: 100 * value for name, value in of.items()}}


def micro(scored: Iterable[tuple[Item, Scores]], variant: str) -> float:
    """The mean over questions, percent."""
    found = [scores[variant] for _, scores in scored]
    return 100 * sum(found) / len(found) if found else 0.0


def rows_of(folder: Path, names: Iterable[str], needed: Iterable[str]) -> list[dict[str, Any]]:
    """The records of the first tables that match a pattern of ``names``: .jsonl, .json or .parquet.

    Raises SourceError when there is none, one is damaged (with its line), or a record lacks what is ``needed``.
    """
    names = list(names)
    for pattern in names:
        found = sorted(folder.glob(pattern)) if folder.is_dir() else []
        if found:
            rows = [row for path in found for row in _rows(path)]
            for number, row in enumerate(rows):
                lacking = [key for key in needed if key not in row]
                if lacking:
                    raise SourceError(
                        f"{found[0]}: record {number + 1} has no {', '.join(lacking)}: is this another version of the "
                        f"benchmark? It has {', '.join(sorted(row)[:12])}"
                    )
            if rows:
                return rows
            raise SourceError(f"{found[0]} has no records")
    raise SourceError(f"{folder} has none of {', '.join(names)}: name the folder that the benchmark was downloaded to")


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise SourceError(f"{path} needs pyarrow: pip install 'spatial_mllm_ros[learning]'") from error
        try:
            return list(parquet.read_table(path).to_pylist())
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} cannot be read: {error}") from error
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        rows = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                rows.append(_parsed(line, f"{path}, line {number}"))
        return rows
    whole = _parsed(text, str(path))
    listed = whole if isinstance(whole, list) else next((v for v in whole.values() if isinstance(v, list)), None)
    if listed is None:
        raise SourceError(f"{path} is no list of records")
    return listed


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SourceError(f"{where} is not JSON: {error}") from error
