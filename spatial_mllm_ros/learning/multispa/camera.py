"""Questions about how the camera moved between two images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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

    As published: pairs by overlap with equal quotas; both images swapped with probability one half; movements in the axes
    of the first camera (x right, y down, z forward); angles from the upright frame, wrapped to 180 degrees; millimetres
    and degrees cut, not rounded; vectors kept in metres. Of our own: a direction is asked only where the movement is at
    least ``least_move_m`` or ``least_turn_deg`` in both orders of the images, and with both answers in equal number: pairs
    are drawn for each, in the order that gives it (``most_share``).
    """
    allowed = _clear(subtask, pairs, settings)
    unclear = int(np.count_nonzero(~allowed))
    if unclear:
        rejected["pairs that hardly move or turn so (never drawn)"] += unclear
    if subtask.name in WORDS:
        drawn = _both_ways(subtask, pairs, allowed, count, settings, rng, rejected)
    else:
        rows = chosen_pairs(pairs.overlap, allowed, count, settings.overlap_percent, rng)
        drawn = [(int(row), bool(rng.random() < 0.5)) for row in rows]
    samples = []
    for row, swap in drawn:
        frames = (int(pairs.first[row]), int(pairs.second[row]))
        gt, fill = _answer(subtask, pairs, row, swap)
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


def _figure(subtask: Subtask, pairs: Pairs, swap: bool) -> NDArray[np.float64]:
    """What a direction is told by, of all pairs in one order of their images: positive is the first of its words."""
    if subtask.name in AXES:
        return (pairs.back if swap else pairs.move)[:, AXES[subtask.name]]
    return (-1.0 if swap else 1.0) * (pairs.yaw if subtask.name.startswith("yaw") else pairs.pitch)


def _both_ways(
    subtask: Subtask,
    pairs: Pairs,
    allowed: NDArray[np.bool_],
    count: int,
    settings: MultiSpaSettings,
    rng: np.random.Generator,
    rejected: Counter[str],
) -> list[tuple[int, bool]]:
    """Rows and whether their images are swapped: half of them for each answer, as far as ``most_share`` asks."""
    positive = np.stack([_figure(subtask, pairs, swap) > 0 for swap in (False, True)])
    free = allowed.copy()
    drawn: dict[bool, list[tuple[int, bool]]] = {}
    for want in sorted((True, False), key=lambda w: int(np.count_nonzero(allowed & (positive == w).any(axis=0)))):
        gives = positive == want
        most = count - count // 2 if not drawn else count - len(next(iter(drawn.values())))
        rows = chosen_pairs(pairs.overlap, free & gives.any(axis=0), most, settings.overlap_percent, rng)
        free[rows] = False
        drawn[want] = [(int(row), bool(rng.choice(np.flatnonzero(gives[:, row])))) for row in rows]
    fewer = min(map(len, drawn.values()))
    share = settings.most_share
    bound = count if share >= 1 else max(1, int(np.ceil(fewer * share / (1 - share))))
    for want, rows_ in drawn.items():
        if len(rows_) > bound:
            rejected[f"pairs with the answer {WORDS[subtask.name][0 if want else 1]!r} beyond {share:.0%}"] += (
                len(rows_) - bound
            )
    kept = [pair for rows_ in drawn.values() for pair in rows_[:bound]]
    return [kept[k] for k in rng.permutation(len(kept))]


def _clear(subtask: Subtask, pairs: Pairs, settings: MultiSpaSettings) -> NDArray[np.bool_]:
    """Which pairs have an unambiguous answer."""
    name = subtask.name
    if name in AXES:
        axis = AXES[name]
        return np.minimum(np.abs(pairs.move[:, axis]), np.abs(pairs.back[:, axis])) >= settings.least_move_m
    if name in ("yaw_movement", "pitch_movement"):
        angle = np.abs(pairs.yaw if name.startswith("yaw") else pairs.pitch)
        return (angle >= settings.least_turn_deg) & (angle <= 180 - settings.least_turn_deg)
    return np.ones(len(pairs), dtype=bool)


def _answer(subtask: Subtask, pairs: Pairs, row: int, swap: bool) -> tuple[object, dict[str, object]]:
    """The truth, and what the answer's sentence names."""
    name = subtask.name
    if name in WORDS:
        word = WORDS[name][0 if _figure(subtask, pairs, swap)[row] > 0 else 1]
        return word, {"answer": word}
    if name in ("yaw_angle", "pitch_angle"):
        degrees = int(abs((pairs.yaw if name == "yaw_angle" else pairs.pitch)[row]))
        return degrees, {"answer": degrees}
    move = (pairs.back if swap else pairs.move)[row]
    if name == "total_distance":
        length = cut_millimetres(float(np.linalg.norm(move)))
        return length, {"answer": length}
    xa, ya, za = (cut_millimetres(float(x)) for x in move)
    return [float(x) for x in move], {"xa": xa, "ya": ya, "za": za}
