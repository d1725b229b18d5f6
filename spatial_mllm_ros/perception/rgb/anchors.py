"""Images that stand for what a submap has seen, to find back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from spatial_mllm_ros.perception.rgb.window_chain import NOMINAL_DEPTH
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sim3 import Sim3
from spatial_mllm_ros.scene.window import InvalidWindow, WindowGeometry

MAX_ANCHORS = 48
_PIXELS = 6_000  # of depth
_WIDTH = 518  # px, about, that predictors see
_THUMBNAIL = (12, 16)
_TRIED = 0.1


@dataclass(eq=False)
class Anchor:
    """An image, small, with its depth and pose in its window. tried: how often it was compared with new ones in vain."""

    stamp_ns: int
    image: NDArray[np.uint8]
    thumbnail: NDArray[np.float32]
    geometry: WindowGeometry
    window: int
    tried: int = 0


@dataclass(eq=False)
class Anchors:
    """Up to ``MAX_ANCHORS`` images of a submap, spread over where the camera was and looked."""

    held: list[Anchor] = field(default_factory=list)

    def add(self, stamp_ns: int, image: NDArray[np.uint8], geometry: WindowGeometry, index: int, window: int) -> None:
        """Take in image ``index`` of a window, but not one whose depth is all unknown."""
        try:
            alone = geometry.reduced(index, _PIXELS)
        except InvalidWindow:
            return
        small = small_image(image)
        self.held.append(Anchor(stamp_ns, small, thumbnail(small), alone, window))

    def thin(self, places: Sequence[Sim3], first: int) -> None:
        """Of those nearest to each other one goes, until few enough are left.

        places: of the windows from number ``first`` on; anchors of older ones go.
        """
        self.held = [anchor for anchor in self.held if anchor.window >= first]
        if len(self.held) <= MAX_ANCHORS:
            return
        poses = self._poses(places, first)
        apart = cdist(poses, poses)
        np.fill_diagonal(apart, np.inf)
        while len(self.held) > MAX_ANCHORS:
            a, b = np.unravel_index(int(np.argmin(apart)), apart.shape)
            goes = a if np.partition(apart[a], 1)[1] < np.partition(apart[b], 1)[1] else b
            del self.held[goes]
            apart = np.delete(np.delete(apart, goes, axis=0), goes, axis=1)

    def likeness(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """How much anchors look like images, whose thumbnails these are [n, d]: [held, n], at most 1. Less for those that
        were compared in vain."""
        tried = np.array([[anchor.tried] for anchor in self.held])
        return np.stack([anchor.thumbnail for anchor in self.held]) @ images.T - _TRIED * tried

    def nearness(self, T_chain_camera: NDArray[np.float64], places: Sequence[Sim3], first: int) -> NDArray[np.float64]:
        """How near anchors are to cameras [n, 4, 4] of their chain, and look their way: [held, n], at most 0."""
        return -cdist(self._poses(places, first), _pose_vectors(T_chain_camera))

    def chosen(self, liked: NDArray[np.float64], count: int, places: Sequence[Sim3], first: int) -> NDArray[np.int64]:
        """Up to ``count`` anchors near to each other, about the one that is liked best. liked: [held, n], -inf: not at all."""
        score = liked.max(axis=1)
        poses = self._poses(places, first)
        around = np.argsort(cdist(poses[[int(np.argmax(score))]], poses)[0], kind="stable")[: 2 * count]
        around = around[np.isfinite(score[around])]
        return np.sort(around[np.argsort(-score[around], kind="stable")[:count]])

    def join(self, other: Anchors, shift: int) -> None:
        """Take over the anchors of a submap whose windows' numbers grow by ``shift``."""
        self.held += [replace(anchor, window=anchor.window + shift) for anchor in other.held]

    def _poses(self, places: Sequence[Sim3], first: int) -> NDArray[np.float64]:
        return _pose_vectors(
            np.stack([places[a.window - first].pose(a.geometry.T_window_camera[0]) for a in self.held])
        )


def _pose_vectors(T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses [n, 4, 4] of a chain as vectors [n, 12] whose distances are in usual depths and in radians."""
    return np.concatenate([T[:, :3, 3] / NOMINAL_DEPTH, T[:, :3, :3].reshape(-1, 9) / np.sqrt(2)], axis=1)


def in_one_window(anchors: Sequence[Anchor], places: Sequence[Sim3], first: int, window: int) -> WindowGeometry:
    """Anchors as if they were of the window of this number. places: of the windows from number ``first`` on."""
    back = places[window - first].inverse()
    T: list[Transform] = []
    depth = []
    for anchor in anchors:
        there = back @ places[anchor.window - first]
        T.append(there.pose(anchor.geometry.T_window_camera[0]))
        depth.append(anchor.geometry.depth[0] * np.float32(there.scale))
    return WindowGeometry(
        np.stack(T),
        np.concatenate([anchor.geometry.K for anchor in anchors]),
        np.stack(depth),
        np.concatenate([anchor.geometry.confidence for anchor in anchors]),
    )


def small_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image [H, W, 3] about as wide as predictors see it, by means of blocks."""
    step = max(1, round(image.shape[1] / _WIDTH))
    return image if step == 1 else _blocks(image, image.shape[0] // step, image.shape[1] // step).astype(np.uint8)


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What tells roughly whether two images look alike: a vector of length one; the product of two is their correlation."""
    rows, columns = (min(n, size) for n, size in zip(_THUMBNAIL, image.shape, strict=False))
    x = _blocks(image, rows, columns).ravel()
    x = x - x.mean()
    return np.asarray(x / max(float(np.linalg.norm(x)), 1e-6), dtype=np.float32)


def _blocks(image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float32]:
    """Mean colors [rows, columns, 3] of blocks of one size."""
    h, w = image.shape[0] // rows, image.shape[1] // columns
    cut = image[: rows * h, : columns * w].reshape(rows, h, columns, w, 3)
    return np.asarray(cut.mean(axis=(1, 3), dtype=np.float32))
