"""From recordings to a folder of MultiSPA questions."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spatial_mllm_ros import __version__
from spatial_mllm_ros.learning.multispa.camera import camera_samples
from spatial_mllm_ros.learning.multispa.correspondence import correspondence_samples
from spatial_mllm_ros.learning.multispa.depth import depth_samples
from spatial_mllm_ros.learning.multispa.drawing import drawn
from spatial_mllm_ros.learning.multispa.movement import movement_samples
from spatial_mllm_ros.learning.multispa.pairs import Pairs, pairs_of
from spatial_mllm_ros.learning.multispa.samples import Sample
from spatial_mllm_ros.learning.multispa.scene import Progress, Scene, read_scene
from spatial_mllm_ros.learning.multispa.settings import MultiSpaSettings
from spatial_mllm_ros.learning.multispa.size import size_samples
from spatial_mllm_ros.learning.multispa.subtasks import SUBTASKS, Subtask
from spatial_mllm_ros.learning.multispa.wording import worded
from spatial_mllm_ros.sources.compressed import decode_rgb
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.writers import encoded_color, replacing

SUMMARY = "summary.json"
SCENES = "scenes.json"
IMAGES = "images"
FORMAT = "multispa-1"
SPLITS = ("train", "eval")
Record = dict[str, Any]


@dataclass(kw_only=True)
class Made:
    """What became of one subtask in one split. wanted: questions asked for. records: those made, in their order.
    rejected: why others were not, with counts."""

    split: str
    subtask: Subtask
    wanted: int
    records: list[Record] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


@dataclass(kw_only=True)
class Built:
    """What was built: the scenes, their split by name, and what became of each subtask in each split."""

    settings: MultiSpaSettings
    scenes: list[Scene]
    split_of: dict[str, str]
    made: list[Made]


def build(
    specs: Sequence[str],
    output: Path,
    settings: MultiSpaSettings,
    progress: Progress,
    *,
    overwrite: bool = False,
    finish: Callable[[Built, Path], None] = lambda built, folder: None,
) -> Built:
    """Write the questions of all subtasks about the recordings ``specs`` to the folder ``output``.

    The folder appears whole or not at all: what is written before is beside it, and is removed when this fails.
    finish: is given what was built, and the folder before it gets its name.

    Raises SourceError for recordings that cannot be used, an ``output`` that exists and is not overwritten, and where
    not one question could be made; OSError when it cannot be written.
    """
    if not specs:
        raise SourceError("no recording was named")
    with replacing(output, overwrite, _is_ours, "a MultiSPA folder") as folder:
        folder.mkdir()
        depth_folder = folder.parent / "depth"
        scenes = [
            read_scene(spec, name, depth_folder / name, folder / IMAGES, settings.frames, progress)
            for spec, name in zip(specs, scene_names(specs), strict=True)
        ]
        split_of = split_scenes(specs, scenes, settings)
        built = Built(settings=settings, scenes=scenes, split_of=split_of, made=[])
        for split in SPLITS:
            numbers = [k for k, scene in enumerate(scenes) if split_of[scene.name] == split]
            wanted = settings.train if split == "train" else settings.evaluation
            if numbers and wanted:
                built.made += _made(scenes, numbers, split, wanted, settings, folder, progress)
        if not any(made.records for made in built.made):
            why = sum((made.rejected for made in built.made), Counter[str]())
            told = "; ".join(f"{reason} ({count})" for reason, count in why.most_common(6))
            raise SourceError(
                f"not one question could be made of {', '.join(specs)}: {told or _no_pairs(scenes, settings)}"
            )
        _write_index(built, folder)
        finish(built, folder)
    return built


def samples_of(
    subtask: Subtask,
    scenes: Sequence[Scene],
    numbers: Sequence[int],
    pairs: Pairs,
    count: int,
    settings: MultiSpaSettings,
    rng: np.random.Generator,
    rejected: Counter[str],
) -> list[Sample]:
    """Up to ``count`` questions of a subtask about the scenes with those numbers."""
    by_scene = {"depth perception": depth_samples, "object size": size_samples, "object movement": movement_samples}
    by_pair = {"visual correspondence": correspondence_samples, "camera movement": camera_samples}
    if subtask.task in by_scene:
        return by_scene[subtask.task](subtask, scenes, numbers, count, settings, rng, rejected)
    return by_pair[subtask.task](subtask, scenes, pairs, count, settings, rng, rejected)


def _made(
    scenes: Sequence[Scene],
    numbers: Sequence[int],
    split: str,
    wanted: int,
    settings: MultiSpaSettings,
    folder: Path,
    progress: Progress,
) -> Iterator[Made]:
    """The files of one split."""
    (folder / split).mkdir()
    pairs = pairs_of(scenes, numbers)
    low, high = settings.overlap_percent
    for subtask in SUBTASKS:
        made = Made(split=split, subtask=subtask, wanted=wanted)
        rng = np.random.default_rng([settings.seed, zlib.crc32(f"{split}/{subtask.name}".encode())])
        samples = samples_of(subtask, scenes, numbers, pairs, wanted, settings, rng, made.rejected)
        if len(samples) < wanted and subtask.task in ("visual correspondence", "camera movement"):
            inside = int(np.count_nonzero((pairs.overlap >= low) & (pairs.overlap <= high)))
            made.rejected[f"pairs of images outside of {low} to {high} % overlap"] += len(pairs) - inside
        made.rejected = +made.rejected
        for number, sample in enumerate(samples):
            key = f"{split}-{subtask.name}-{number:06d}"
            made.records.append(_record(key, sample, scenes[sample.scene], rng, folder, split))
            progress(f"{split}: {subtask.name}", number + 1, len(samples))
        if made.records:
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in made.records)
            (folder / split / f"{subtask.name}.jsonl").write_text(lines, encoding="utf-8")
        yield made


def _record(key: str, sample: Sample, scene: Scene, rng: np.random.Generator, folder: Path, split: str) -> Record:
    """The published record (InternVL's), with where it comes from beside it; marked images are written."""
    question, answer = worded(sample, rng)
    images, sizes = [], []
    for place, picture in enumerate(sample.pictures):
        image = scene.images[picture.frame]
        name = f"{scene.name}/{image.name}"
        if picture.marks:
            plain = decode_rgb((folder / IMAGES / name).read_bytes())
            name = f"{scene.name}/marked/{key}-{place + 1}.jpg"
            (folder / IMAGES / scene.name / "marked").mkdir(exist_ok=True)
            (folder / IMAGES / name).write_bytes(encoded_color(drawn(plain, picture.marks, rng)))
        images.append(name)
        sizes.append((image.camera.height, image.camera.width))
    conversation = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {
        "id": key,
        "image": images,
        **({"conversations": conversation} if split == "train" else {"text": question}),
        "height_list": [height for height, _ in sizes],
        "width_list": [width for _, width in sizes],
        "question_type": sample.subtask.question_type,
        "gt_value": sample.gt,
        "subtask": sample.subtask.name,
        "scene": scene.name,
        "frames": [scene.images[picture.frame].frame for picture in sample.pictures],
        "points": [[[round(u, 3), round(v, 3)] for u, v in points] for points in sample.points],
        **sample.more,
    }


def scene_names(specs: Sequence[str]) -> list[str]:
    """A short name for each recording, which no other has."""
    names: list[str] = []
    for spec in specs:
        last = spec if spec.startswith("rendered") else Path(spec).expanduser().resolve().name
        short = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "scene"
        count = sum(1 for name in names if name == short or name.startswith(f"{short}~"))
        names.append(short if not count else f"{short}~{count + 1}")
    return names


def place_of(spec: str) -> str:
    """What recordings of one place have in common: they go into the same split.

    Rendered: the house (its seed and rooms). ScanNet: the room, ``scene0012`` of ``scene0012_01``. Of others each is taken
    to be a place of its own.
    """
    if spec.startswith("rendered"):
        options = dict(part.partition("=")[::2] for part in spec.partition(":")[2].split(","))
        return f"rendered {options.get('seed', '0')} {options.get('rooms', '3')}"
    scannet = re.search(r"(scene\d{4})_\d{2}", Path(spec).name)
    return scannet[1] if scannet else str(Path(spec).expanduser().resolve())


def split_scenes(specs: Sequence[str], scenes: Sequence[Scene], settings: MultiSpaSettings) -> dict[str, str]:
    """``train`` or ``eval`` for each scene: whole places are held out, at least one where there are two and any is asked."""
    places = list(dict.fromkeys(place_of(spec) for spec in specs))
    held_out = round(settings.evaluation_share * len(places))
    if settings.evaluation_share and settings.evaluation and len(places) > 1:
        held_out = int(np.clip(held_out, 1, len(places) - 1))
    order = np.random.default_rng([settings.seed, 3]).permutation(len(places))
    evaluated = {places[k] for k in order[:held_out]}
    return {
        scene.name: "eval" if place_of(spec) in evaluated else "train"
        for spec, scene in zip(specs, scenes, strict=True)
    }


def _write_index(built: Built, folder: Path) -> None:
    """scenes.json, internvl.json and summary.json."""
    scenes = {
        scene.name: {
            "source": str(Path(scene.spec).expanduser().resolve())
            if not scene.spec.startswith("rendered")
            else scene.spec,
            "split": built.split_of[scene.name],
            "images": {image.name: {"frame": image.frame, "stamp_ns": image.stamp_ns} for image in scene.images},
            "upright": scene.upright,
            "remarks": list(scene.remarks),
            "refused": dict(scene.refused),
        }
        for scene in built.scenes
    }
    files = {
        made.subtask.name: {
            "root": IMAGES,
            "annotation": f"train/{made.subtask.name}.jsonl",
            "data_augment": False,
            "repeat_time": 1,
            "length": len(made.records),
        }
        for made in built.made
        if made.split == "train" and made.records
    }
    summary = {
        "format": FORMAT,
        "made_by": f"spatial_mllm_ros {__version__}",
        "settings": asdict(built.settings),
        "subtasks": [
            {
                "split": made.split,
                "subtask": made.subtask.name,
                "task": made.subtask.task,
                "wanted": made.wanted,
                "made": len(made.records),
                "rejected": dict(made.rejected),
            }
            for made in built.made
        ],
    }
    for name, content in ((SCENES, scenes), ("internvl.json", files), (SUMMARY, summary)):
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _no_pairs(scenes: Sequence[Scene], settings: MultiSpaSettings) -> str:
    low, high = settings.overlap_percent
    return f"no two images overlap by {low} to {high} %" if scenes else "nothing was read"


def _is_ours(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / SUMMARY).read_text(encoding="utf-8")).get("format", "").startswith("multispa"))
    except (OSError, ValueError, AttributeError):
        return False
