"""Pairs of images of one scene, and which of them are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.learning.multispa.scene import Scene


@dataclass(frozen=True, eq=False, kw_only=True)
class Pairs:
    """Pairs of images of several scenes, a row each, all of the same length.

    scene: its number. first, second: numbers of the images, the first of them earlier. overlap: percent. move: of the
    camera, from first to second in the first's axes, metres [n, 3]. back: the same from second to first. yaw, pitch:
    degrees from first to second, positive to the left and up, in the upright frame.
    """

    scene: NDArray[np.intp]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    overlap: NDArray[np.float64]
    move: NDArray[np.float64]
    back: NDArray[np.float64]
    yaw: NDArray[np.float64]
    pitch: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scene)


def heading(R: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Yaw and pitch (degrees) of lines of sight, of rotations [n, 3, 3] to an upright frame.

    As in the published engine: of the camera's z axis, its direction seen from above, counter-clockwise, and its
    elevation.
    """
    z = R[:, :, 2]
    return np.degrees(np.arctan2(z[:, 1], z[:, 0])), np.degrees(np.arcsin(np.clip(z[:, 2], -1, 1)))


def wrapped(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles in -180 to 180 degrees."""
    return (degrees + 180) % 360 - 180


def pairs_of(scenes: Sequence[Scene], numbers: Sequence[int]) -> Pairs:
    """All pairs of images of the scenes with those numbers."""
    rows = []
    for number in numbers:
        scene = scenes[number]
        first, second = np.triu_indices(len(scene.images), 1)
        T = np.stack([image.T_world_camera for image in scene.images])
        across = T[second, :3, 3] - T[first, :3, 3]
        yaw, pitch = heading(np.stack([image.T_zup_camera[:3, :3] for image in scene.images]))
        rows.append(
            (
                np.full(len(first), number, dtype=np.intp),
                first,
                second,
                scene.overlap[first, second],
                np.einsum("nij,ni->nj", T[first, :3, :3], across),
                np.einsum("nij,ni->nj", T[second, :3, :3], -across),
                wrapped(yaw[second] - yaw[first]),
                pitch[second] - pitch[first],
            )
        )
    columns = [np.concatenate([row[k] for row in rows]) for k in range(8)] if rows else [np.empty(0)] * 8
    names = ("scene", "first", "second", "overlap", "move", "back", "yaw", "pitch")
    return Pairs(**dict(zip(names, columns, strict=True)))


def chosen_pairs(
    overlap: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    count: int,
    percent: tuple[int, int],
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Up to ``count`` rows, the same number from each percent of overlap.

    As in the published engine: bins of 1 % from low to high, each with the same quota; what the bins with few pairs
    leave over goes to those with more, smallest first. Only ``allowed`` rows are taken, shuffled.
    """
    low, high = percent
    edges = np.arange(low, high + 1)
    bins = np.searchsorted(edges, overlap, side="left")  # (low, low + 1] is 1, and so on
    bins[overlap == low] = 1  # the lowest bin has its lower edge
    inside = allowed & (bins >= 1) & (bins < len(edges))
    groups = [np.flatnonzero(inside & (bins == b)) for b in np.unique(bins[inside])]
    if not groups:
        return np.empty(0, dtype=np.intp)
    base, more = divmod(count, len(groups))
    quotas = [(base + (place < more), group) for place, group in enumerate(groups)]
    taken, left = [], 0
    for quota, group in sorted(quotas, key=lambda q: len(q[1])):
        most = quota + left
        taken.append(group if len(group) <= most else rng.choice(group, most, replace=False))
        left = most - len(taken[-1])
    return rng.permutation(np.concatenate(taken))
