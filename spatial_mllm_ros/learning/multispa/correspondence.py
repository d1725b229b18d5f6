"""Questions about where a point of one image is in another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.learning.multispa.pairs import Pairs, chosen_pairs
from spatial_mllm_ros.learning.multispa.samples import Mark, Picture, Pixel, Sample, deck, thousandths
from spatial_mllm_ros.learning.multispa.scene import MARGIN_PX, Scene, SceneImage, visible
from spatial_mllm_ros.learning.multispa.settings import MultiSpaSettings
from spatial_mllm_ros.learning.multispa.subtasks import Subtask
from spatial_mllm_ros.scene.pose import apply

TRIES = 40
"""Pixels of the first image that are tried for one that the second sees, all at once."""
EASY_FROM = 0.15
HARD = (0.05, 0.15)
APART = 0.05
"""Distractors, in widths of the image from the right dot: easy ones are at least so far (published: anywhere else at
random); hard ones lie between both. No two dots are nearer than ``APART``."""


def correspondence_samples(
    subtask: Subtask,
    scenes: Sequence[Scene],
    pairs: Pairs,
    count: int,
    settings: MultiSpaSettings,
    rng: np.random.Generator,
    rejected: Counter[str],
) -> list[Sample]:
    """Up to ``count`` questions: coordinates to coordinates, or a dot to one of four.

    As published: pairs by overlap with equal quotas; which image comes first is drawn; the point is drawn from those
    that both see. The right dot has each letter equally often (published: at random). Of four-choice questions each
    second one has hard distractors.
    """
    allowed = np.array([scenes[s].has_depth for s in pairs.scene], dtype=bool)
    rows = chosen_pairs(pairs.overlap, allowed, count + count // 8 + 2, settings.overlap_percent, rng)
    samples: list[Sample] = []
    places = deck(4, rng)
    for row in rows:  # shuffled, and some more than needed, for those that give no point
        if len(samples) == count:
            break
        number = int(pairs.scene[row])
        frames = [int(pairs.first[row]), int(pairs.second[row])]
        if rng.random() < 0.5:
            frames.reverse()
        images = [scenes[number].images[frame] for frame in frames]
        match = _match(images[0], images[1], rng)
        if match is None:
            rejected["no smooth point that both images see"] += 1
            continue
        (u1, v1), (u2, v2) = match
        x1, y1 = thousandths(u1, v1, images[0].camera.width, images[0].camera.height)
        x2, y2 = thousandths(u2, v2, images[1].camera.width, images[1].camera.height)
        more: dict[str, object] = {
            "overlap": round(float(pairs.overlap[row]), 2),
            "p1_list": [x1, y1],
            "p2_list": [x2, y2],
        }
        if subtask.name.endswith("multichoice"):
            hard = len(samples) % 2 == 1
            others = _distractors(images[1], match[1], hard, rng)
            if others is None:
                rejected["no room for three distractors"] += 1
                continue
            place = next(places)
            dots = [*others[:place], match[1], *others[place:]]
            letter = "ABCD"[place]
            marks = tuple(Mark(u, v, name) for (u, v), name in zip(dots, "ABCD", strict=True))
            pictures = (Picture(frames[0], (Mark(u1, v1),)), Picture(frames[1], marks))
            more["distractors"] = "hard" if hard else "easy"
            gt: object = letter
            fill: dict[str, object] = {"answer": letter}
            points: tuple[tuple[Pixel, ...], ...] = ((match[0],), tuple(dots))
        else:
            pictures = (Picture(frames[0]), Picture(frames[1]))
            gt, fill = [x2, y2], {"x1": x1, "y1": y1, "xa": x2, "ya": y2}
            points = ((match[0],), (match[1],))
        samples.append(
            Sample(subtask=subtask, scene=number, pictures=pictures, gt=gt, fill=fill, points=points, more=more)
        )
    return samples


def _match(first: SceneImage, second: SceneImage, rng: np.random.Generator) -> tuple[Pixel, Pixel] | None:
    """A pixel of the first image and where the second, which sees it, has it."""
    flat = first.askable()
    if not len(flat):
        return None
    v, u = np.divmod(rng.choice(flat, min(TRIES, len(flat)), replace=False), first.camera.width)
    z = first.depth(v, u).astype(np.float64)
    uv = np.stack([u, v], axis=1).astype(np.float64)
    world = apply(first.T_world_camera, first.camera.unproject(uv) * z[:, None])
    seen, there = visible(second, world)
    smooth = np.zeros(second.camera.width * second.camera.height, dtype=bool)
    smooth[second.askable()] = True
    for k in np.flatnonzero(seen):
        column, row = np.rint(there[k]).astype(int)
        inside = 0 <= column < second.camera.width and 0 <= row < second.camera.height
        if inside and smooth[row * second.camera.width + column]:
            return (float(u[k]), float(v[k])), (float(there[k, 0]), float(there[k, 1]))
    return None


def _distractors(image: SceneImage, right: Pixel, hard: bool, rng: np.random.Generator) -> list[Pixel] | None:
    """Three other places of the image."""
    width, height = image.camera.width, image.camera.height
    low, high = HARD if hard else (EASY_FROM, 2.0)
    dots: list[NDArray[np.float64]] = [np.asarray(right)]
    for _ in range(400):
        if len(dots) == 4:
            return [(float(u), float(v)) for u, v in dots[1:]]
        dot = rng.integers((MARGIN_PX, MARGIN_PX), (width - MARGIN_PX, height - MARGIN_PX)).astype(np.float64)
        if hard:  # drawn round the right one, or most would be too far
            dot = np.rint(dots[0] + rng.uniform(-high, high, 2) * width)
            if not (MARGIN_PX <= dot[0] < width - MARGIN_PX and MARGIN_PX <= dot[1] < height - MARGIN_PX):
                continue
        distance = np.linalg.norm(np.stack(dots) - dot, axis=1) / width
        if low <= distance[0] <= high and distance.min() >= APART:
            dots.append(dot)
    return None
