"""Questions about the depth of one or two points of an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.learning.multispa.samples import Mark, Picture, Sample, deck, millimetres, thousandths
from spatial_mllm_ros.learning.multispa.scene import Scene, SceneImage
from spatial_mllm_ros.learning.multispa.settings import MultiSpaSettings
from spatial_mllm_ros.learning.multispa.subtasks import Subtask

TRIES = 11
"""Pairs of points that are tried in an image (published: one and ten more)."""


def depth_samples(
    subtask: Subtask,
    scenes: Sequence[Scene],
    numbers: Sequence[int],
    count: int,
    settings: MultiSpaSettings,
    rng: np.random.Generator,
    rejected: Counter[str],
) -> list[Sample]:
    """Up to ``count`` questions of a subtask of depth.

    As published: the same number of images from each scene, each image again only when there are too few; points drawn
    from those that the image sees; depths rounded to millimetres; nearer and farther, and each letter, equally
    often (published: at random).
    """
    usable = [number for number in numbers if scenes[number].has_depth]
    rejected["no depth"] += len(numbers) - len(usable)
    samples: list[Sample] = []
    choices = deck(4, rng)
    for number in usable:
        per_scene = count // len(usable) + 1
        images = len(scenes[number].images)
        frames = rng.choice(images, per_scene, replace=per_scene > images)
        for frame in frames:
            made = _one(subtask, scenes[number], number, int(frame), settings, rng, rejected, choices)
            if made is not None:
                samples.append(made)
    order = rng.permutation(len(samples))[:count]
    return [samples[k] for k in order]


def _one(
    subtask: Subtask,
    scene: Scene,
    number: int,
    frame: int,
    settings: MultiSpaSettings,
    rng: np.random.Generator,
    rejected: Counter[str],
    choices: Iterator[int],
) -> Sample | None:
    image = scene.images[frame]
    width, height = image.camera.width, image.camera.height
    flat = image.askable()
    if len(flat) < 2:
        rejected["image without smooth depth"] += 1
        return None
    dots = subtask.name.endswith("_dot")
    if "estimation" in subtask.name:
        at = rng.choice(flat, 1)
        gt = millimetres(float(_depths(image, at)[0]))
        v, u = divmod(int(at[0]), width)
        x, y = thousandths(u, v, width, height)
        marks = (Mark(u, v),) if dots else ()
        return Sample(
            subtask=subtask,
            scene=number,
            pictures=(Picture(frame, marks),),
            gt=gt,
            fill={"x1": x, "y1": y, "answer": gt},
            points=(((u, v),),),
        )
    for _ in range(TRIES):
        both = rng.choice(flat, 2, replace=False)
        (v1, u1), (v2, u2) = (divmod(int(k), width) for k in both)
        z1, z2 = (float(z) for z in _depths(image, both))
        if abs(z1 - z2) < max(settings.least_depth_gap * min(z1, z2), 0.001):
            continue
        if np.hypot(u1 - u2, v1 - v2) < 0.05 * width:  # two dots must not lie on one another
            continue
        nearer, first_letter = divmod(next(choices), 2)
        right = 0 if (z1 < z2) == bool(nearer) else 1
        letters = "AB" if (right == 0) == (first_letter == 0) else "BA"
        (x1, y1), (x2, y2) = thousandths(u1, v1, width, height), thousandths(u2, v2, width, height)
        xa, ya = [(x1, y1), (x2, y2)][right]
        fill = {
            "asked": "nearer" if nearer else "farther",
            "x1": x1, "y1": y1, "x2": x2, "y2": y2, "xa": xa, "ya": ya, "answer": letters[right],
        }  # fmt: skip
        both_marks = (Mark(u1, v1, letters[0]), Mark(u2, v2, letters[1])) if dots else ()
        return Sample(
            subtask=subtask,
            scene=number,
            pictures=(Picture(frame, both_marks),),
            gt=letters[right] if dots else [xa, ya],
            fill=fill,
            points=(((u1, v1), (u2, v2)),),
            more={"is_closer_question": bool(nearer), "letters": letters if dots else ""},
        )
    rejected["no two points of clearly different depth"] += 1
    return None


def _depths(image: SceneImage, flat: NDArray[np.intp]) -> NDArray[np.float64]:
    """Metres at flat indices of pixels."""
    return image.depth(*np.divmod(flat, image.camera.width)).astype(np.float64)
