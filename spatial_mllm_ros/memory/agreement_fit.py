"""What errors of poses and depth explain by how much images that overlap disagree: the likeliest SensorModel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.surfaces import SurfacePair

_TAILS = 20.0  # degrees of freedom of Student's distribution: some images are plainly off, and not all of them for that
_TIMES_S = (512.0, 128.0, 32.0, 8.0, 2.0)
"""How fast drift may forget: the slowest first, since drift goes on unless images say that it levels off."""
_RANK = 7  # of a pair's columns: a motion and a scale
_PRIOR_DRIFT = 0.3  # drift that nothing is known of, as a share of the white error
_PRIOR = np.array([2.0, 2.0, 0.2, 3.0, 3.0])
"""Deviations of the logarithms of the variances: 1 is a factor of 1.6 in a deviation. The depth of a camera is known
better than its poses, and nothing of a drift."""
_FLOOR_M, _FLOOR_RAD = 1e-3, 5e-4
_FLOOR_SCALE = 5e-4
"""Finer errors of poses and scales are not told apart from what averaging and interpolation do."""
_FIT_STEPS = 12
_BETTER = 1.0  # in logarithm: what a faster drift must be likelier by


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What the overlapping images say.

    pairs: comparisons it rests on. residual_m: median distance between what two images make the same surface.
    depth_m: at that median depth. prior, sensor: the model before and after.
    """

    pairs: int
    residual_m: float
    depth_m: float
    prior: SensorModel
    sensor: SensorModel

    @property
    def displacement_m(self) -> tuple[float, float]:
        """How far two images place one point apart, one deviation a direction, by their poses: assumed and measured."""
        return _displacement(self.prior, self.depth_m), _displacement(self.sensor, self.depth_m)


def fit(pairs: Sequence[SurfacePair], prior: SensorModel) -> Agreement:
    """Variances under which the disagreements are likeliest, with a log-normal prior round the model's.

    Residuals are r = Z x + noise, x being independent of variances theta: V = Z D(theta) Z' + 1. Fisher scoring in the
    logarithms of theta (Harville 1977, for variance components), in the space of the 11 columns of Z.
    """
    g = np.array([pair.g for pair in pairs])
    G = np.array([pair.G for pair in pairs])
    apart_s = np.array([pair.apart_s for pair in pairs])
    start = np.array(
        [
            max(prior.pose_position_m, _FLOOR_M),
            max(prior.pose_rotation_rad, _FLOOR_RAD),
            max(prior.depth_correlated, 1e-4),
            prior.drift_position_m or _PRIOR_DRIFT * max(prior.pose_position_m, _FLOOR_M),
            prior.drift_rotation_rad or _PRIOR_DRIFT * max(prior.pose_rotation_rad, _FLOOR_RAD),
        ]
    )
    prior_log = 2 * np.log(start)
    # begin with as much drift as jitter, as much as was seen: a variance that begins at next to none hardly grows
    seen = np.median([pair.residual_m for pair in pairs])
    rotation = seen / np.median([pair.depth_m for pair in pairs])
    theta = np.maximum(prior_log, 2 * np.log([max(x, 1e-9) for x in (seen, rotation, start[2], seen, rotation)]))
    best: tuple[float, NDArray[np.float64], float] | None = None
    for time_s in _TIMES_S:
        theta, likelihood = _most_likely(g, G, np.exp(-apart_s / time_s), prior_log, theta)
        if best is None or likelihood > best[0] + _BETTER:
            best = (likelihood, theta, time_s)
    assert best is not None
    position, rotation, scale, drift_position, drift_rotation = np.exp(best[1] / 2).tolist()
    sensor = replace(
        prior,
        pose_position_m=_told(position, prior.pose_position_m, _FLOOR_M),
        pose_rotation_rad=_told(rotation, prior.pose_rotation_rad, _FLOOR_RAD),
        depth_correlated=_told(scale, prior.depth_correlated, _FLOOR_SCALE),
        drift_position_m=_told(drift_position, prior.drift_position_m, _FLOOR_M),
        drift_rotation_rad=_told(drift_rotation, prior.drift_rotation_rad, _FLOOR_RAD),
        drift_time_s=best[2],
    )
    return Agreement(
        pairs=len(pairs),
        residual_m=float(np.median([pair.residual_m for pair in pairs])),
        depth_m=float(np.median([pair.depth_m for pair in pairs])),
        prior=prior,
        sensor=sensor,
    )


def _told(measured: float, prior: float, floor: float) -> float:
    """A measured deviation; what was assumed where both are too small to be measured."""
    return prior if measured <= floor and prior <= floor else measured


def _most_likely(
    g: NDArray[np.float64],
    G: NDArray[np.float64],
    correlation: NDArray[np.float64],
    prior: NDArray[np.float64],
    theta: NDArray[np.float64],
) -> tuple[NDArray[np.float64], float]:
    """Logarithms of the variances (position, rotation, scale, drift of position, of rotation), and their likelihood.

    g, G: of the pairs, see _Pair. correlation: of drift between the two of each. prior, theta: where the logarithms are
    expected, and where to begin.
    """
    count = len(g)
    ridge = 1e-9 * np.einsum("nii->n", G)[:, None, None] * np.eye(11)
    whole = np.einsum("ni,ni->n", g, np.linalg.solve(G + ridge, g[..., None])[..., 0])
    parts = np.zeros((5, count, 11, 11))
    axis = np.arange(3)
    parts[0][:, axis, axis] = 2
    for first in (3, 6):
        parts[1][:, first + axis, first + axis] = 1
        parts[4][:, first + axis, first + axis] = 1
    parts[2][:, 9, 9] = parts[2][:, 10, 10] = 1
    parts[3][:, axis, axis] = 2 * (1 - correlation)[:, None]
    parts[4][:, 3 + axis, 6 + axis] = parts[4][:, 6 + axis, 3 + axis] = correlation[:, None]
    eye = np.eye(11)

    Left = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

    def likelihood(theta: NDArray[np.float64]) -> tuple[float, Left]:
        D = np.einsum("k,knij->nij", np.exp(theta), parts)
        M = eye + G @ D
        solved = np.linalg.solve(M, np.concatenate([G, g[..., None]], axis=2))
        P, y = solved[..., :11], solved[..., 11]
        left = np.maximum(whole - np.sum(g * np.matmul(D, y[..., None])[..., 0], axis=1), 0.0)
        value = -0.5 * float(np.sum(np.linalg.slogdet(M)[1]) + np.sum((_TAILS + _RANK) * np.log1p(left / _TAILS)))
        return value - 0.5 * float(np.sum(((theta - prior) / _PRIOR) ** 2)), (P, y, left)

    def slopes(theta: NDArray[np.float64], at: Left) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Score and Fisher information."""
        P, y, left = at
        weight = (_TAILS + _RANK) / (_TAILS + left)
        PD = [np.exp(theta[k]) * (P @ parts[k]) for k in range(5)]
        flat = np.array([m.reshape(-1) for m in PD])
        turned = np.array([m.transpose(0, 2, 1).reshape(-1) for m in PD])
        traces = np.array([np.einsum("nii->", m) for m in PD])
        moved = [np.matmul(parts[k], y[..., None])[..., 0] for k in range(5)]
        squares = np.array([np.exp(theta[k]) * float(weight @ np.sum(y * moved[k], axis=1)) for k in range(5)])
        return 0.5 * (squares - traces) - (theta - prior) / _PRIOR**2, 0.5 * flat @ turned.T + np.diag(1 / _PRIOR**2)

    value, at = likelihood(theta)
    for _ in range(_FIT_STEPS):
        score, fisher = slopes(theta, at)
        step = np.clip(np.linalg.solve(fisher, score), -2.0, 2.0)
        for _ in range(4):
            trial, trial_at = likelihood(theta + step)
            if trial >= value:
                break
            step = step / 3
        else:
            break
        theta, value, at = theta + step, trial, trial_at
        if np.abs(step).max() < 0.02:
            break
    return theta, value


def _displacement(sensor: SensorModel, depth_m: float) -> float:
    position = np.hypot(sensor.pose_position_m, sensor.drift_position_m)
    rotation = np.hypot(sensor.pose_rotation_rad, sensor.drift_rotation_rad)
    return float(np.sqrt(2) * np.hypot(position, rotation * depth_m))
