"""Dots and letters on images."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.learning.multispa.samples import Mark

RADIUS_SHARE = 100
"""The radius of a dot is the width by this (published for object movement; about the same for the others)."""
APART = 300
"""Colors differ by more than this, summed over channels, from one another (published) and from what they cover."""
PLAIN = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (255, 255, 255), (0, 0, 0))


def drawn(image: NDArray[np.uint8], marks: Sequence[Mark], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A copy of an RGB image with the marks on it, each in a color of its own."""
    out = image.copy()
    radius = max(3, image.shape[1] // RADIUS_SHARE)
    used: list[tuple[int, int, int]] = []
    for mark in marks:
        at = (round(mark.u), round(mark.v))
        color = _color(image, at, 2 * radius, used, rng)
        used.append(color)
        cv2.circle(out, at, radius, color, -1, cv2.LINE_AA)
    for mark, color in zip(marks, used, strict=True):
        if mark.letter:
            _letter(out, mark, marks, radius, color)
    return out


def _letter(
    image: NDArray[np.uint8], mark: Mark, marks: Sequence[Mark], radius: int, color: tuple[int, int, int]
) -> None:
    """Beside its dot, inside the image and off the other dots, with a thin dark or light rim so that it can be read."""
    scale = image.shape[1] / 1000
    (wide, high), _ = cv2.getTextSize(mark.letter, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
    others = np.array([(m.u, m.v) for m in marks if m is not mark]).reshape(-1, 2)
    gap = 2 * radius

    def room(corner: tuple[int, int]) -> float:
        """Pixels between a letter with its lower left corner there and the nearest other dot or border."""
        x, y = corner
        low, high_ = np.array([x, y - high]), np.array([x + wide, y])
        away = np.linalg.norm(np.maximum(0, np.maximum(low - others, others - high_)), axis=1)
        border = min(x, y - high, image.shape[1] - x - wide, image.shape[0] - y)
        return min(float(away.min(initial=3.0 * gap)), 3.0 * gap, border + gap if border >= 2 else -1.0)

    u, v = round(mark.u), round(mark.v)
    places = [(u + gap, v + high // 2), (u - gap - wide, v + high // 2)]
    places += [(u - wide // 2, v - gap), (u - wide // 2, v + gap + high)]
    x, y = max(places, key=room)
    rim = (0, 0, 0) if sum(color) > 380 else (255, 255, 255)
    cv2.putText(image, mark.letter, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, rim, 4, cv2.LINE_AA)
    cv2.putText(image, mark.letter, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 2, cv2.LINE_AA)


def _color(
    image: NDArray[np.uint8],
    at: tuple[int, int],
    reach: int,
    used: Sequence[tuple[int, int, int]],
    rng: np.random.Generator,
) -> tuple[int, int, int]:
    """A random color that is far from those used and from what it covers; a plain one if none is found."""
    rows, columns = (slice(max(0, at[k] - reach), at[k] + reach + 1) for k in (1, 0))
    below = image[rows, columns].reshape(-1, 3).mean(axis=0)
    away = [*(np.array(color) for color in used), below]
    random = [tuple(int(c) for c in rng.integers(0, 256, 3)) for _ in range(10)]

    def nearest(color: tuple[int, ...]) -> float:
        return min(float(np.abs(np.array(color) - other).sum()) for other in away)

    chosen = next((color for color in random if nearest(color) > APART), None) or max(PLAIN, key=nearest)
    return chosen[0], chosen[1], chosen[2]
