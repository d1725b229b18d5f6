"""Questions about how the camera moved between two images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from spatial_mllm_ros.learning.multispa.pairs import Pairs, chosen_pairs
from spatial_mllm_ros.learning.multispa.samples import Picture, Sample, cut_millimetres
from spatial_mllm_ros.learning.multispa.scene import Scene
from spatial_mllm_ros.learning.multispa.settings import MultiSpaSettings
from spatial_mllm_ros.learning.multispa.subtasks import WORDS, Subtask

AXES = {"x_movement": 0, "y_movement": 1, "z_movement": 2}


def camera_samples(
    subtask: Subtask,
    scenes: Sequence[Scene],
    pairs: Pairs,
    count: int,
    settings: MultiSpaSettings,
    rng: np.random.Generator,
    rejected: Counter[str],
) -> list[Sample]:
    """Up to ``count`` questions of a subtask of camera movement.

    As published: pairs by overlap with equal quotas; both images swapped with probability one half, which balances the
    directions; movements in the axes of the first camera (x right, y down, z forward); angles from the upright frame,
    wrapped to 180 degrees; millimetres and degrees cut, not rounded; vectors kept in metres. Of our own: a direction is
    asked only where the movement is at least ``least_move_m`` or ``least_turn_deg`` in both orders of the images.
    """
    allowed = _clear(subtask, pairs, settings)
    unclear = int(np.count_nonzero(~allowed))
    if unclear:
        rejected["pairs that hardly move or turn so (never drawn)"] += unclear
    samples = []
    for row in chosen_pairs(pairs.overlap, allowed, count, settings.overlap_percent, rng):
        swap = bool(rng.random() < 0.5)
        frames = (int(pairs.first[row]), int(pairs.second[row]))
        move = pairs.back[row] if swap else pairs.move[row]
        sign = -1.0 if swap else 1.0
        turns = {"yaw": sign * float(pairs.yaw[row]), "pitch": sign * float(pairs.pitch[row])}
        gt, fill = _answer(subtask, move, turns)
        samples.append(
            Sample(
                subtask=subtask,
                scene=int(pairs.scene[row]),
                pictures=tuple(Picture(frame) for frame in (frames[::-1] if swap else frames)),
                gt=gt,
                fill=fill,
                more={"overlap": round(float(pairs.overlap[row]), 2)},
            )
        )
    return samples


def _clear(subtask: Subtask, pairs: Pairs, settings: MultiSpaSettings) -> np.ndarray:
    """Which pairs have an unambiguous answer."""
    name = subtask.name
    if name in AXES:
        axis = AXES[name]
        return np.minimum(np.abs(pairs.move[:, axis]), np.abs(pairs.back[:, axis])) >= settings.least_move_m
    if name in ("yaw_movement", "pitch_movement"):
        angle = np.abs(pairs.yaw if name.startswith("yaw") else pairs.pitch)
        return (angle >= settings.least_turn_deg) & (angle <= 180 - settings.least_turn_deg)
    return np.ones(len(pairs), dtype=bool)


def _answer(subtask: Subtask, move: np.ndarray, turns: dict[str, float]) -> tuple[object, dict[str, object]]:
    """The truth, and what the answer's sentence names."""
    name = subtask.name
    if name in WORDS:
        figure = float(move[AXES[name]]) if name in AXES else turns[name.split("_")[0]]
        word = WORDS[name][0 if figure > 0 else 1]
        return word, {"answer": word}
    if name in ("yaw_angle", "pitch_angle"):
        degrees = int(abs(turns[name.split("_")[0]]))
        return degrees, {"answer": degrees}
    if name == "total_distance":
        length = cut_millimetres(float(np.linalg.norm(move)))
        return length, {"answer": length}
    xa, ya, za = (cut_millimetres(float(x)) for x in move)
    return [float(x) for x in move], {"xa": xa, "ya": ya, "za": za}
