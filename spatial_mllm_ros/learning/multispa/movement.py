"""Questions about how a tracked point moved in space between two images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.learning.multispa.samples import Mark, Picture, Sample, millimetres, thousandths
from spatial_mllm_ros.learning.multispa.scene import MARGIN_PX, Scene
from spatial_mllm_ros.learning.multispa.settings import MultiSpaSettings
from spatial_mllm_ros.learning.multispa.subtasks import Subtask
from spatial_mllm_ros.scene.pose import apply, invert
from spatial_mllm_ros.scene.tracks import Tracks

STILL_M = 0.01
"""A point, or a camera, that is displaced by less did not move (published)."""
BINS = 10
MIDDLE = 4
"""Moved pairs are put into ten bins of equal width by distance; the fifth tells how many each may give (published)."""


def movement_samples(
    subtask: Subtask,
    scenes: Sequence[Scene],
    numbers: Sequence[int],
    count: int,
    settings: MultiSpaSettings,
    rng: np.random.Generator,
    rejected: Counter[str],
) -> list[Sample]:
    """Up to ``count`` questions about tracked points, seen by a moving or by a still camera.

    As published: bodies of more than five points that keep their distances; some points of each; of each point one pair of
    images between which it rests, and moved pairs evenly by distance; a share of them reversed too; displacements in
    the axes of the first camera; a point at rest is said to be. Millimetres are rounded (published: the sentence rounds,
    the truth is cut), and the bins' quota is counted for each point anew.
    """
    moving = subtask.name.endswith("moving_camera")
    samples: list[Sample] = []
    for number in numbers:
        scene = scenes[number]
        if scene.tracks is None:
            rejected["recordings without tracked points"] += 1
            continue
        found = _pairs(scene, scene.tracks, moving, settings, rng)
        if not found:
            rejected[f"recordings whose tracked points no {'moving' if moving else 'still'} camera sees twice"] += 1
        back = rng.permutation(len(found))[: int(len(found) * settings.reversed_share)]
        found += [(found[k][0], found[k][2], found[k][1]) for k in back]
        for point, first, second in found:
            made = _one(subtask, scene, number, point, (first, second))
            if made is None:
                rejected["tracked point at the image's border"] += 1
            else:
                samples.append(made)
    order = rng.permutation(len(samples))[:count]
    return [samples[k] for k in order]


def _pairs(
    scene: Scene, tracks: Tracks, moving: bool, settings: MultiSpaSettings, rng: np.random.Generator
) -> list[tuple[int, int, int]]:
    """Points with two images each, evenly by distance."""
    position = np.stack([image.T_world_camera[:3, 3] for image in scene.images])
    moved = np.linalg.norm(position[:, None] - position[None], axis=2) >= STILL_M
    found = []
    for body in tracks.bodies():
        for point in rng.permutation(body)[: settings.points_per_group]:
            seen = np.flatnonzero(tracks.visible[:, point])
            a, b = np.triu_indices(len(seen), 1)
            first, second = seen[a], seen[b]
            right = moved[first, second] == moving
            first, second = first[right], second[right]
            distance = np.linalg.norm(tracks.world[second, point] - tracks.world[first, point], axis=1)
            chosen = _by_distance(distance, settings.pairs_per_bin, rng)
            found += [(int(point), int(first[k]), int(second[k])) for k in chosen]
    return found


def _by_distance(distance: NDArray[np.float64], most: int, rng: np.random.Generator) -> list[int]:
    """One pair at rest, and as many moved ones of each bin as the middle one has: at least one, at most ``most``."""
    chosen: list[int] = []
    rest, go = np.flatnonzero(distance < STILL_M), np.flatnonzero(distance >= STILL_M)
    if len(rest):
        chosen.append(int(rng.choice(rest)))
    if not len(go):
        return chosen
    edges = np.histogram_bin_edges(distance[go], BINS)
    bins = np.minimum(np.digitize(distance[go], edges) - 1, BINS - 1)
    quota = max(1, min(int(np.count_nonzero(bins == MIDDLE)), most))
    for b in range(BINS):
        chosen += [int(k) for k in rng.permutation(go[bins == b])[:quota]]
    return chosen


def _one(subtask: Subtask, scene: Scene, number: int, point: int, frames: tuple[int, int]) -> Sample | None:
    if scene.tracks is None:
        return None
    images = [scene.images[frame] for frame in frames]
    world = [scene.tracks.world[frame, point] for frame in frames]
    uv = [
        image.camera.project(apply(invert(image.T_world_camera), place[None]))[0]
        for image, place in zip(images, world, strict=True)
    ]
    for image, (u, v) in zip(images, uv, strict=True):
        edge = (MARGIN_PX, MARGIN_PX, image.camera.width - MARGIN_PX, image.camera.height - MARGIN_PX)
        if not (edge[0] <= u < edge[2] and edge[1] <= v < edge[3]):
            return None
    shift = world[1] - world[0]
    distance = float(np.linalg.norm(shift))
    at_rest = distance < STILL_M
    if at_rest:
        shift, distance = np.zeros(3), 0.0
    vector = images[0].T_world_camera[:3, :3].T @ shift
    camera = float(np.linalg.norm(images[1].T_world_camera[:3, 3] - images[0].T_world_camera[:3, 3]))
    (x1, y1), (x2, y2) = (
        thousandths(u, v, image.camera.width, image.camera.height) for image, (u, v) in zip(images, uv, strict=True)
    )
    asked_length = subtask.name.split("_")[3] == "distance"
    xa, ya, za = (millimetres(float(x)) for x in vector)
    dot = subtask.name.split("_")[2] == "dot"
    return Sample(
        subtask=subtask,
        scene=number,
        pictures=(Picture(frames[0], (Mark(*uv[0]),) if dot else ()), Picture(frames[1])),
        gt=millimetres(distance) if asked_length else [float(x) for x in vector],
        fill={
            "x1": x1, "y1": y1, "xa": xa, "ya": ya, "za": za,
            "answer": millimetres(distance), "at_rest": at_rest,
        },
        points=((_pixel(uv[0]),), (_pixel(uv[1]),)),
        more={
            "p1": [x1, y1],
            "p2": [x2, y2],
            "point": point,
            "point_moving": int(not at_rest),
            "cam_moving": int(camera >= STILL_M),
        },
    )  # fmt: skip


def _pixel(uv: NDArray[np.float64]) -> tuple[float, float]:
    return float(uv[0]), float(uv[1])
