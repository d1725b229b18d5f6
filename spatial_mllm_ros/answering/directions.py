"""Words for directions, and directions for words."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

# components: right, down, forward, as in the camera's optical frame
_AXES = {
    "right": (1.0, 0.0, 0.0),
    "left": (-1.0, 0.0, 0.0),
    "down": (0.0, 1.0, 0.0),
    "below": (0.0, 1.0, 0.0),
    "up": (0.0, -1.0, 0.0),
    "above": (0.0, -1.0, 0.0),
    "front": (0.0, 0.0, 1.0),
    "forward": (0.0, 0.0, 1.0),
    "ahead": (0.0, 0.0, 1.0),
    "back": (0.0, 0.0, -1.0),
    "backward": (0.0, 0.0, -1.0),
    "behind": (0.0, 0.0, -1.0),
    "rear": (0.0, 0.0, -1.0),
}
_SAME = {
    "forwards": "forward", "backwards": "backward", "upward": "up", "upwards": "up", "downward": "down",
    "downwards": "down", "leftward": "left", "leftwards": "left", "rightward": "right", "rightwards": "right",
    "straight": "ahead", "onward": "forward", "onwards": "forward", "reverse": "backward", "lefthand": "left",
    "righthand": "right",
}  # fmt: skip


def direction_of(words: str) -> NDArray[np.float64] | None:
    """Unit vector (right, down, forward) of words such as "front-left", "behind" or "to the left"; None if they are none."""
    total = np.zeros(3)
    found = False
    for word in re.findall(r"[a-z]+", words.lower()):
        axis = _AXES.get(_SAME.get(word, word))
        if axis is not None:
            total += axis
            found = True
    length = float(np.linalg.norm(total))
    return total / length if found and length > 0 else None


def pick_direction(
    vector: NDArray[np.float64], covariance: NDArray[np.float64], choices: Sequence[str]
) -> tuple[int, float] | None:
    """Which choice names the direction of ``vector`` (right, down, forward) best, and how certainly.

    None when a choice names no direction. The certainty is that of a Gaussian error across the plane half way to the
    next best choice.
    """
    named = [direction_of(choice) for choice in choices]
    if any(n is None for n in named) or len(named) < 2:
        return None
    axes = np.array([n for n in named if n is not None])
    match = axes @ vector
    order = np.argsort(-match, kind="stable")
    across = axes[order[0]] - axes[order[1]]
    stddev = float(np.sqrt(across @ covariance @ across))
    margin = float(match[order[0]] - match[order[1]])
    return int(order[0]), float(ndtr(margin / stddev)) if stddev > 0 else float(margin > 0)


def describe_motion(vector: NDArray[np.float64]) -> str:
    """Words for a displacement (right, down, forward): the main axis, and a second one where it matters."""
    names = (("right", "left"), ("down", "up"), ("forward", "backward"))
    order = np.argsort(-np.abs(vector), kind="stable")
    words = [names[i][0 if vector[i] > 0 else 1] for i in order]
    return words[0] if abs(vector[order[1]]) < 0.4 * abs(vector[order[0]]) else f"{words[0]} and {words[1]}"


def describe_bearing(right: float, forward: float) -> str:
    """Words for a direction seen from above, in eight sectors of 45 degrees."""
    sectors = ("front", "front-right", "right", "back-right", "back", "back-left", "left", "front-left")
    return sectors[round(np.arctan2(right, forward) / (np.pi / 4)) % 8]
