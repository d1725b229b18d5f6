"""A question of MultiSPA with its answer, as the records of its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spatial_mllm_ros.learning.multispa.subtasks import Subtask

Pixel = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """A dot to be drawn at a pixel (u, v), with a letter beside it or none."""

    u: float
    v: float
    letter: str = ""


@dataclass(frozen=True)
class Picture:
    """An image of a scene, by its number there, with the marks that are drawn on it."""

    frame: int
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A question before it is worded.

    scene: number of the scene. pictures: in the order of the question. gt: the answer as records keep it. fill: what
    the sentences name. points: for each picture, the pixels that the question or the answer is about. more:
    further fields of the record.
    """

    subtask: Subtask
    scene: int
    pictures: tuple[Picture, ...]
    gt: Any
    fill: dict[str, Any]
    points: tuple[tuple[Pixel, ...], ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


def deck(count: int, rng: np.random.Generator) -> Iterator[int]:
    """0 to count - 1 in random order, again and again: each comes up equally often."""
    while True:
        yield from (int(k) for k in rng.permutation(count))


def thousandths(u: float, v: float, width: int, height: int) -> tuple[int, int]:
    """Coordinates of a pixel as MultiSPA writes them: rounded 1000 u / width and 1000 v / height."""
    return round(1000 * u / width), round(1000 * v / height)


def millimetres(metres: float) -> int:
    """Whole millimetres, rounded, as depths, sizes and movements of objects are written."""
    return round(1000 * metres)


def cut_millimetres(metres: float) -> int:
    """Whole millimetres towards zero, as the published camera movements are."""
    return int(1000 * metres)
