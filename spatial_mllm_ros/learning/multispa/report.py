"""The quality report of a built folder: what it holds, how it is balanced, what was left out, examples to look at."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from spatial_mllm_ros import __version__
from spatial_mllm_ros.learning.multispa.engine import IMAGES, Built, Made, Record
from spatial_mllm_ros.learning.multispa.subtasks import SUBTASKS, Kind, Subtask
from spatial_mllm_ros.sources.compressed import decode_rgb

FILE = "report.html"
EXAMPLES = 2
"""Of each subtask."""
WIDTH_PX = 340
UNITS = {
    Kind.LENGTH: "mm",
    Kind.ANGLE: "degrees",
    Kind.VECTOR: "length of the vector, mm",
    Kind.COORDINATE: "x, thousandths",
}
BINS = 16


@dataclass(frozen=True)
class Bar:
    """A bar in a chart of 250 x 80 SVG units."""

    kind: str
    x: float
    width: float
    height: float
    label: str
    count: int


@dataclass(frozen=True)
class Tick:
    x: float
    text: str


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    bars: list[Bar]
    ticks: list[Tick]


def write_report(built: Built, folder: Path) -> None:
    """report.html, one page without scripts or network access. OSError when it cannot be written."""
    environment = Environment(
        loader=PackageLoader("spatial_mllm_ros.learning.multispa", "."), autoescape=True, undefined=StrictUndefined
    )
    pairs = [record["overlap"] for made in built.made for record in made.records if "overlap" in record]
    charts = [_chart(subtask, built.made) for subtask in SUBTASKS if any(_of(built.made, subtask))]
    if pairs:
        charts.insert(0, _histogram("overlap of the pairs", "percent, all subtasks of pairs", {"bar": pairs}, step=1.0))
    page = environment.get_template("report.html.j2").render(
        version=__version__,
        settings=built.settings,
        total=sum(len(made.records) for made in built.made),
        scenes=[_scene_row(built, k) for k in range(len(built.scenes))],
        remarks=[f"{scene.name}: {remark}" for scene in built.scenes for remark in scene.remarks if "doubt" in remark],
        rows=[_row(made) for made in built.made],
        charts=charts,
        examples=[e for made in built.made for e in _examples(made, folder)],
    )
    (folder / FILE).write_text(page, encoding="utf-8")


def balance(made: Made) -> dict[str, int]:
    """How often each word or letter is the answer; empty for other kinds of answer."""
    if made.subtask.kind not in (Kind.WORD, Kind.LETTER):
        return {}
    return dict(sorted(Counter(str(record["gt_value"]) for record in made.records).items()))


def figures(subtask: Subtask, records: Sequence[Record]) -> list[float]:
    """One number for each answer: the length of vectors in mm, x of coordinates."""
    values = [record["gt_value"] for record in records]
    if subtask.kind is Kind.VECTOR:
        return [1000 * float(np.linalg.norm(v)) for v in values]
    return [float(v[0]) for v in values] if subtask.kind is Kind.COORDINATE else [float(v) for v in values]


def _scene_row(built: Built, number: int) -> dict[str, Any]:
    scene = built.scenes[number]
    return {
        "name": scene.name,
        "split": built.split_of[scene.name],
        "images": len(scene.images),
        "points": len(scene.points),
        "objects": len(scene.boxes),
        "tracks": "none" if scene.tracks is None else f"{scene.tracks.world.shape[1]}",
        "up": scene.upright,
        "refused": ", ".join(f"{count} {reason}" for reason, count in scene.refused.most_common()) or "none",
    }


def _row(made: Made) -> dict[str, Any]:
    return {
        "task": made.subtask.task,
        "subtask": made.subtask.name,
        "split": made.split,
        "made": len(made.records),
        "wanted": made.wanted,
        "balance": ", ".join(f"{answer} {count}" for answer, count in balance(made).items()),
        "rejected": "; ".join(f"{count} {reason}" for reason, count in made.rejected.most_common()),
    }


def _of(made: Sequence[Made], subtask: Subtask) -> list[Made]:
    return [m for m in made if m.subtask is subtask and m.records]


def _chart(subtask: Subtask, made: Sequence[Made]) -> Chart:
    kinds = {"bar" if m.split == "train" else "held": m for m in _of(made, subtask)}
    if subtask.kind not in (Kind.WORD, Kind.LETTER):
        found = {kind: figures(subtask, m.records) for kind, m in kinds.items()}
        return _histogram(subtask.name, UNITS[subtask.kind], found)
    names = sorted({answer for m in kinds.values() for answer in balance(m)})
    wide = 250 / len(names)
    bars = []
    for place, (kind, m) in enumerate(kinds.items()):
        counts = balance(m)
        tallest = max(counts.values())
        bars += [
            Bar(
                kind, wide * (k + 0.1 + 0.4 * place), 0.38 * wide, 74 * counts.get(name, 0) / tallest, name,
                counts.get(name, 0),
            )
            for k, name in enumerate(names)
        ]  # fmt: skip
    return Chart(subtask.name, "answers", bars, [Tick(wide * (k + 0.5), name) for k, name in enumerate(names)])


def _histogram(title: str, unit: str, values: dict[str, list[float]], step: float = 0.0) -> Chart:
    everything = np.concatenate([np.asarray(v) for v in values.values()])
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    if step:
        edges = np.arange(np.floor(low), np.ceil(high) + step, step)
    wide = 240 / (len(edges) - 1)
    bars = []
    for place, (kind, found) in enumerate(values.items()):
        counts, _ = np.histogram(found, edges)
        share = 0.92 / len(values)
        bars += [
            Bar(
                kind, 5 + wide * (k + share * place), share * wide, 74 * int(count) / max(int(counts.max()), 1),
                f"{edges[k]:.0f} to {edges[k + 1]:.0f}", int(count),
            )
            for k, count in enumerate(counts)
        ]  # fmt: skip
    ticks = [Tick(12 + 226 * share, f"{low + share * (high - low):.0f}") for share in (0, 0.5, 1)]
    return Chart(title, unit, bars, ticks)


def _examples(made: Made, folder: Path) -> list[dict[str, Any]]:
    """The first records of a subtask with their images, what is asked and answered drawn on them."""
    found = []
    for record in made.records[:EXAMPLES]:
        pictures = []
        for place, name in enumerate(record["image"]):
            image = decode_rgb((folder / IMAGES / name).read_bytes()).copy()
            points = record["points"][place] if place < len(record["points"]) else []
            if "marked" not in name:
                image = _ringed(image, points, answer=place > 0)
            pictures.append(_uri(image))
        answer = record["conversations"][1]["value"] if "conversations" in record else f"{record['gt_value']}"
        found.append(
            {
                "id": record["id"],
                "subtask": f"{made.subtask.name} ({made.split})",
                "question": question_of(record),
                "answer": answer,
                "pictures": pictures,
            }
        )
    return found


def question_of(record: Record) -> str:
    """The words of a record's question, without the lines for its images."""
    text = record["conversations"][0]["value"] if "conversations" in record else record["text"]
    return " ".join(line for line in str(text).splitlines() if "<image>" not in line)


def _ringed(image: NDArray[np.uint8], points: Sequence[Sequence[float]], answer: bool) -> NDArray[np.uint8]:
    size = max(6, image.shape[1] // 50)
    for u, v in points:
        at = (round(u), round(v))
        for color, wide in (((0, 0, 0), 4), ((255, 230, 0), 2)):
            if answer:
                cv2.drawMarker(image, at, color, cv2.MARKER_CROSS, 2 * size, wide)
            else:
                cv2.circle(image, at, size, color, wide, cv2.LINE_AA)
    return image


def _uri(image: NDArray[np.uint8]) -> str:
    height = max(1, round(image.shape[0] * WIDTH_PX / image.shape[1]))
    small = cv2.resize(image, (WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 78])
    if not ok:
        raise ValueError("an example could not be encoded")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
