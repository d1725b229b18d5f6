"""Questions about the size of an object that one image shows, or only two together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.learning.multispa.samples import Picture, Sample, millimetres
from spatial_mllm_ros.learning.multispa.scene import Scene
from spatial_mllm_ros.learning.multispa.settings import MultiSpaSettings
from spatial_mllm_ros.learning.multispa.subtasks import Subtask
from spatial_mllm_ros.scene.pose import apply, invert

LEAST_SHARE = 0.05
"""An image shows an object when it sees this share of its points (published)."""
COVERED = 0.1
"""An object is covered along an axis when what is seen spans its size to within this share (published)."""
MOST_IMAGES = 25
"""Of those that show an object, so many are drawn (published)."""
LEAST_SIZE_M = 0.1
"""Smaller ones are below what points of 5 cm tell."""
MARGIN_M = 0.03
"""Points belong to an object inside its box and this round it, but for its bottom: the floor below is not its own."""


def size_samples(
    subtask: Subtask,
    scenes: Sequence[Scene],
    numbers: Sequence[int],
    count: int,
    settings: MultiSpaSettings,
    rng: np.random.Generator,
    rejected: Counter[str],
) -> list[Sample]:
    """Up to ``count`` questions about height, length or width.

    As published: the smallest sets of images whose points together span the size, so that leaving one out would not; the
    images are shuffled. A union spans from the least to the largest of its images, so that such sets have one image or
    two. Both are asked in equal number as far as there are both. The size is that of the box along its own axes; the
    published one is along the axes of the room. Of our own: the object must be the only one of its category in these
    images.
    """
    dimension = subtask.name.removeprefix("object_")
    single: list[Sample] = []
    double: list[Sample] = []
    for number in numbers:
        scene = scenes[number]
        if not scene.boxes:
            rejected["recordings without known objects"] += 1
            continue
        owners = _points_of(scene)
        shown = np.stack([_shows(scene, members) for members in owners])
        for index, box in enumerate(scene.boxes):
            axis = box.axis_of[dimension]
            size = float(box.size[axis])
            if size < LEAST_SIZE_M:
                rejected["objects too small along that axis"] += 1
                continue
            for frames in _spanning(scene, index, owners[index], shown[index], axis, rng):
                alike = [k for k, b in enumerate(scene.boxes) if b.category == box.category and k != index]
                if shown[np.ix_(alike, frames)].any() or _in_view(scene, alike, frames):
                    rejected["another object of that category is in view"] += 1
                    continue
                order = rng.permutation(frames)
                gt = millimetres(size)
                sample = Sample(
                    subtask=subtask,
                    scene=number,
                    pictures=tuple(Picture(int(frame)) for frame in order),
                    gt=gt,
                    fill={"dimension": dimension, "category": box.category, "answer": gt},
                    more={"object": box.name, "images": len(frames)},
                )
                (single if len(frames) == 1 else double).append(sample)
    return _halves(single, double, count, rng)


def _halves(single: list[Sample], double: list[Sample], count: int, rng: np.random.Generator) -> list[Sample]:
    """``count`` samples, half of each kind as far as there are."""
    first = min(len(single), max(count - count // 2, count - len(double)))
    second = min(len(double), count - first)
    chosen = [single[k] for k in rng.permutation(len(single))[:first]]
    chosen += [double[k] for k in rng.permutation(len(double))[:second]]
    return [chosen[k] for k in rng.permutation(len(chosen))]


def _points_of(scene: Scene) -> list[NDArray[np.intp]]:
    """Indices of the scene's points inside each box."""
    upright = np.asarray(apply(scene.T_zup_from_world, scene.points), dtype=np.float64)
    owners = []
    for box in scene.boxes:
        local, half = box.local(upright), box.size / 2
        inside = (np.abs(local[:, :2]) <= half[:2] + MARGIN_M).all(axis=1)
        inside &= (local[:, 2] <= half[2] + MARGIN_M) & (local[:, 2] >= -half[2] + MARGIN_M)
        owners.append(np.flatnonzero(inside))
    return owners


def _shows(scene: Scene, members: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which images show an object of these points."""
    if not len(members):
        return np.zeros(len(scene.images), dtype=bool)
    least = max(1, int(LEAST_SHARE * len(members)))
    return np.asarray(scene.sees[:, members].sum(axis=1) >= least)


def _in_view(scene: Scene, boxes: Sequence[int], frames: Sequence[int]) -> bool:
    """Whether the centre of one of the boxes lies in one of the images, in front, hidden or not."""
    for index in boxes:
        centre = apply(invert(scene.T_zup_from_world), scene.boxes[index].centre[None])
        for frame in frames:
            image = scene.images[frame]
            uv = image.camera.project(apply(invert(image.T_world_camera), centre))
            if np.isfinite(uv).all() and image.camera.contains(uv).all():
                return True
    return False


def _spanning(
    scene: Scene,
    index: int,
    members: NDArray[np.intp],
    shown: NDArray[np.bool_],
    axis: int,
    rng: np.random.Generator,
) -> list[list[int]]:
    """The smallest sets of images that span the object along an axis."""
    frames = np.flatnonzero(shown)
    if len(frames) > MOST_IMAGES:
        frames = np.sort(rng.choice(frames, MOST_IMAGES, replace=False))
    box = scene.boxes[index]
    along = box.local(np.asarray(apply(scene.T_zup_from_world, scene.points[members]), dtype=np.float64))[:, axis]
    sees = scene.sees[np.ix_(frames, members)]
    low = np.where(sees, along, np.inf).min(axis=1, initial=np.inf)
    high = np.where(sees, along, -np.inf).max(axis=1, initial=-np.inf)
    size = float(box.size[axis])

    def spans(a: int, b: int) -> bool:
        return bool(abs(max(high[a], high[b]) - min(low[a], low[b]) - size) <= COVERED * size)

    alone = [k for k in range(len(frames)) if spans(k, k)]
    rest = [k for k in range(len(frames)) if k not in alone]
    sets = [[int(frames[k])] for k in alone]
    sets += [[int(frames[a]), int(frames[b])] for i, a in enumerate(rest) for b in rest[i + 1 :] if spans(a, b)]
    return sets
