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
        if mark.letter:
            _letter(out, mark.letter, at, radius, color)
    return out


def _letter(
    image: NDArray[np.uint8], letter: str, at: tuple[int, int], radius: int, color: tuple[int, int, int]
) -> None:
    """Beside the dot, inside the image, on a thin dark or light rim so that it can be read anywhere."""
    scale = image.shape[1] / 1000
    (wide, high), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
    x = at[0] + 2 * radius if at[0] + 2 * radius + wide < image.shape[1] else at[0] - 2 * radius - wide
    y = int(np.clip(at[1] + high // 2, high + 2, image.shape[0] - 3))
    rim = (0, 0, 0) if sum(color) > 380 else (255, 255, 255)
    cv2.putText(image, letter, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, rim, 4, cv2.LINE_AA)
    cv2.putText(image, letter, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 2, cv2.LINE_AA)


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
