"""When the images of a folder were taken: frames.csv, else stamps in their names, else a nominal rate."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.sources.calibration import read_table
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import stamps_in_names


@dataclass(frozen=True, kw_only=True)
class Times:
    """stamps: ns by name, of the images that count. rows: of frames.csv, by name. words, doubt: to be told. missing: what
    the table and the folder do not agree on, by reason."""

    stamps: dict[str, int]
    rows: dict[str, dict[str, str]]
    words: str
    doubt: Doubt | None
    missing: Counter[str]


def times_of(folder: Path, names: list[str], settings: InputSettings) -> Times:
    """Times of the images called ``names``, in order. With frames.csv only those that it lists count. Raises SourceError."""
    table = folder / "frames.csv"
    if not table.exists():
        told = stamps_in_names(names, settings.image_rate_hz)
        return Times(
            stamps=dict(zip(names, told.stamps, strict=True)),
            rows={},
            words=told.words,
            doubt=told.doubt,
            missing=Counter(),
        )
    rows, stamps = read_table(table, set(names))
    missing = Counter(not_in_frames_csv=len(set(names) - rows.keys()), missing_file=len(rows.keys() - set(names)))
    listed = [name for name in names if name in rows]
    if not listed:
        raise SourceError(f"{table} names none of the images in {folder}: they are called as {names[0]!r}")
    told = stamps_in_names(listed, settings.image_rate_hz) if stamps is None else stamps
    by_name = dict(zip(listed if stamps is None else rows, told.stamps, strict=True))
    return Times(
        stamps={name: by_name[name] for name in listed}, rows=rows, words=told.words, doubt=told.doubt, missing=+missing
    )
