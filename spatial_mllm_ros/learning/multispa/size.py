"""Questions about the size of an object that one image shows, or only two together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from spatial_mllm_ros.learning.multispa.samples import Picture, Sample, millimetres
from spatial_mllm_ros.learning.multispa.scene import Scene
from spatial_mllm_ros.learning.multispa.settings import MultiSpaSettings
from spatial_mllm_ros.learning.multispa.sightings import Sightings
from spatial_mllm_ros.learning.multispa.subtasks import Subtask
from spatial_mllm_ros.scene.pose import apply, invert

LEAST_SHARE = 0.05
"""An image shows an object when it sees this share of its points (published)."""
COVERED = 0.1
"""An object is covered along an axis when what is seen spans its size to within this share (published)."""
MOST_IMAGES = 25
"""Of those that show an object, so many are drawn (published)."""
NOISE = 5.0
"""Deviations of depth that must be within what a size is covered to: a flat face alone seems so many of them deep, once
half a percent at each end is left out, and must not make an object look whole."""
LEAST_SIZE_M = 0.1


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
        if not scene.boxes or scene.sightings is None:
            rejected["recordings without known objects"] += 1
            continue
        shown = scene.sightings.share >= LEAST_SHARE
        for index, box in enumerate(scene.boxes):
            axis = box.axis_of[dimension]
            size = float(box.size[axis])
            if size < LEAST_SIZE_M:
                rejected["objects too small along that axis"] += 1
                continue
            for frames in _spanning(scene, scene.sightings, index, axis, size, rng):
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
    scene: Scene, seen: Sightings, index: int, axis: int, size: float, rng: np.random.Generator
) -> list[list[int]]:
    """The smallest sets of images that span an object along an axis, of those whose depth is precise enough to tell."""
    noise = scene.sensor.depth_stddev(seen.distance[index])
    frames = np.flatnonzero((seen.share[index] >= LEAST_SHARE) & (NOISE * noise <= COVERED * size))
    if len(frames) > MOST_IMAGES:
        frames = np.sort(rng.choice(frames, MOST_IMAGES, replace=False))
    low, high = seen.low[index, frames, axis], seen.high[index, frames, axis]

    def spans(a: int, b: int) -> bool:
        return bool(abs(max(high[a], high[b]) - min(low[a], low[b]) - size) <= COVERED * size)

    alone = [k for k in range(len(frames)) if spans(k, k)]
    rest = [k for k in range(len(frames)) if k not in alone]
    sets = [[int(frames[k])] for k in alone]
    sets += [[int(frames[a]), int(frames[b])] for i, a in enumerate(rest) for b in rest[i + 1 :] if spans(a, b)]
    return sets
