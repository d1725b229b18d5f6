"""What each image shows of each known object: how much of it, and from where to where along its axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.learning.objects import ObjectBox
from spatial_mllm_ros.scene.voxels import Lattice, voxel_keys

INSIDE_M = 0.015
"""Measured points belong to an object inside its box and this round it, for the sensor's noise; above its bottom by the
same, as the floor below is not its own. Of boxes that overlap, the smallest has the point. Where a recording knows which
pixel is on which object, as rendered ones do, that counts instead."""
TRIM_PERCENT = 0.5
"""Of an image's points at each end of an axis that are noise."""
LEAST_POINTS = 12


@dataclass(frozen=True, eq=False, kw_only=True)
class Sightings:
    """For each object and image. share: of the object's voxels that any image shows, those that this one shows, 0 to 1.
    low, high: metres from the box's centre along its axes, [objects, images, 3]; infinite where nothing is shown.
    distance: of what is shown from the camera, the median, metres, infinite where nothing is."""

    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    distance: NDArray[np.float64]


class Looking:
    """Collects sightings image by image."""

    def __init__(self, boxes: Sequence[ObjectBox], voxel_m: float) -> None:
        self.boxes, self._lattice = boxes, Lattice(voxel_m)
        self._smallest_first = sorted(range(len(boxes)), key=lambda k: float(np.prod(boxes[k].size)))
        self._keys: list[list[NDArray[np.int64]]] = []
        self._span: list[NDArray[np.float64]] = []
        self._distance: list[NDArray[np.float64]] = []

    def add(
        self, upright: NDArray[np.float64], camera: NDArray[np.float64], owner: NDArray[np.int64] | None = None
    ) -> None:
        """The points [n, 3] that the next image measured, and its camera's position, in the upright frame.

        owner: the object that each is on, -1 for none, [n], where that is known; points far outside of its box are mixed
        with what is behind it, and left out.
        """
        keys: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * len(self.boxes)
        span = np.stack([np.full((len(self.boxes), 3), np.inf), np.full((len(self.boxes), 3), -np.inf)])
        distance = np.full(len(self.boxes), np.inf)
        free = np.ones(len(upright), dtype=bool)
        for index in self._smallest_first:
            box = self.boxes[index]
            near = np.flatnonzero(
                free & (np.abs(upright - box.centre).max(axis=1) < np.linalg.norm(box.size) / 2 + 0.1)
            )
            local, half = box.local(upright[near]), box.size / 2
            inside = (np.abs(local) <= half + INSIDE_M).all(axis=1)
            if owner is None:
                inside &= local[:, 2] >= -half[2] + INSIDE_M
                free[near[inside]] = False
            else:
                inside &= owner[near] == index
            if np.count_nonzero(inside) < LEAST_POINTS:
                continue
            keys[index] = voxel_keys(upright[near[inside]], self._lattice)
            span[:, index] = np.percentile(local[inside], [TRIM_PERCENT, 100 - TRIM_PERCENT], axis=0)
            distance[index] = np.median(np.linalg.norm(upright[near[inside]] - camera, axis=1))
        self._distance.append(distance)
        self._keys.append(keys)
        self._span.append(span)

    def sightings(self) -> Sightings:
        """Of all images so far."""
        count, images = len(self.boxes), len(self._keys)
        share = np.zeros((count, images))
        for index in range(count):
            if images:
                whole = np.unique(np.concatenate([keys[index] for keys in self._keys]))
                share[index] = [len(keys[index]) / max(len(whole), 1) for keys in self._keys]
        spans = np.stack(self._span, axis=2) if images else np.empty((2, count, 0, 3))
        distance = np.stack(self._distance, axis=1) if images else np.empty((count, 0))
        return Sightings(share=share, low=spans[0], high=spans[1], distance=distance)
