"""Metres for geometry that is known up to scale: from measured camera poses, or from measured depth."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.sim3 import Alignment, NotAligned, align

_MIN_PIXELS = 20
_NEIGHBOURS_ALIKE = 10  # pixels whose errors count as one
_MAX_SPREAD = 0.3
_MIN_IMAGES = 5  # fewer fit too easily, whatever they show
_ENOUGH_MOTION = 4  # times the least


class MetreSource(Enum):
    """What metres were taken from. Named as the answers name it."""

    NONE = "nothing"
    DEPTH = "measured depth"
    ODOM = "odometry"
    TF = "camera poses"


_ODOMETRY = re.compile(r"(.*[/_])?odom(etry)?(_.*)?")


def pose_source(world_frame: str) -> MetreSource:
    """What poses in a fixed frame come from: by REP 105 those in ``odom`` are odometry's."""
    return MetreSource.ODOM if _ODOMETRY.fullmatch(world_frame) else MetreSource.TF


@dataclass(frozen=True)
class MetricScale:
    """Whether lengths are in metres, and how precisely.

    source: NONE as long as there are no metres. stddev: of the scale, relative to it; every length shares it. residual:
    what is left of the fit, metres for poses, a ratio for depth. reason: why there are no metres, and what to do.
    """

    source: MetreSource = MetreSource.NONE
    stddev: float = np.inf
    residual: float = np.nan
    reason: str = ""

    @property
    def known(self) -> bool:
        return self.source is not MetreSource.NONE


@dataclass(frozen=True)
class ScaleConfig:
    """When a scale is good enough to speak of metres.

    max_stddev: relative deviation; above, there are no metres. enough_stddev: a stretch of the path that fixes the scale
    this well needs not be longer. min_motion_m: measured poses must span at least so much. pose_stddev_m,
    pose_stddev_rad: of measured poses. max_residual: deviation of the camera centres after alignment relative to how far
    they spread. max_turn_rad: root mean square difference of orientations after alignment. max_windows: windows in one
    stretch. depth_stddev: relative error of a predicted depth image's scale within its window.
    """

    max_stddev: float = 0.1
    enough_stddev: float = 0.02
    min_motion_m: float = 0.05
    pose_stddev_m: float = 0.003
    pose_stddev_rad: float = 0.002
    max_residual: float = 0.15
    max_turn_rad: float = 0.17
    max_windows: int = 12
    depth_stddev: float = 0.01

    def __post_init__(self) -> None:
        positive = (self.max_stddev, self.enough_stddev, self.min_motion_m, self.max_residual, self.max_turn_rad)
        if min(positive) <= 0 or self.max_windows < 1:
            raise ValueError("ScaleConfig: limits must be positive and max_windows at least 1")


class NoScale(ValueError):
    """No scale can be told. ``reason`` is a short word for counting, ``str()`` says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ScaleObservation:
    """Metres per unit of one window, as a logarithm with its deviation. residual: as in MetricScale."""

    window: int
    log_scale: float
    stddev: float
    residual: float


def scale_from_poses(
    predicted: NDArray[np.float64], measured: NDArray[np.float64], config: ScaleConfig
) -> tuple[Alignment, float]:
    """The similarity that maps predicted poses [n, 4, 4] to measured ones [n, 4, 4] (metres), and what is left
    of the centres' differences per axis, metres.

    Raises NoScale: ``little_motion``, ``poor_fit`` or ``uncertain``.
    """
    centres = measured[:, :3, 3]
    moved = float(np.linalg.norm(centres - centres[:1], axis=1).max(initial=0.0))
    if moved < config.min_motion_m or len(measured) < _MIN_IMAGES:
        what = (
            f"the camera has moved {moved:.2f} m only"
            if len(measured) >= _MIN_IMAGES
            else f"only {len(measured)} images have poses"
        )
        raise NoScale(
            "little_motion",
            f"{what}; turning does not help: move it sideways by {_ENOUGH_MOTION * config.min_motion_m:.1f} m or more",
        )
    try:
        found = align(
            predicted[:, :3, 3],
            centres,
            source_rotations=predicted[:, :3, :3],
            target_rotations=measured[:, :3, :3],
            rotation_stddev=config.pose_stddev_rad,
            noise_floor=config.pose_stddev_m,
            errors_in="source",
        )
    except NotAligned as error:
        raise NoScale(
            "poor_fit",
            f"the camera's measured poses and those seen in the images do not fit ({error}): check that the poses are the "
            "camera's own at the images' stamps",
        ) from error
    spread = float(np.sqrt(np.mean(np.sum((centres - centres.mean(axis=0)) ** 2, axis=1))))
    far_off = found.residual > config.max_residual * spread or found.rotation_residual > config.max_turn_rad
    if far_off and moved >= _ENOUGH_MOTION * config.min_motion_m:
        raise NoScale(
            "poor_fit",
            f"the camera's measured path and the one seen in the images differ by {found.residual:.2f} m and "
            f"{np.degrees(found.rotation_residual):.0f} degrees over {moved:.2f} m: check that the poses are the camera's "
            "own at the images' stamps",
        )
    if far_off or found.scale_stddev > config.max_stddev:
        further = moved * max(found.scale_stddev / config.max_stddev, found.residual / (config.max_residual * spread))
        raise NoScale(
            "uncertain",
            f"the camera has moved {moved:.2f} m, which fixes the scale to {found.scale_stddev:.0%} only: "
            f"move it over {max(1.5 * further, _ENOUGH_MOTION * config.min_motion_m):.1f} m or more",
        )
    off = found.sim3.apply(predicted[:, :3, 3]) - centres
    return found, float(np.sqrt(np.mean(off[found.inliers] ** 2)))


def scale_from_depth(
    predicted: NDArray[np.float64], measured: NDArray[np.float64], confidence: NDArray[np.float64], config: ScaleConfig
) -> tuple[float, float, float]:
    """Logarithm of metres per unit, its deviation, and the spread of the ratios, from depths [n] of the same pixels.

    predicted: unit; measured: metres; NaN or 0: no data. Weighted median of the log ratios, then Cauchy weights.

    Raises NoScale: ``few_pixels`` or ``poor_fit``.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        log_ratio = np.log(measured / predicted)
    good = np.isfinite(log_ratio) & (confidence > 0)
    n = np.count_nonzero(good)
    if n < _MIN_PIXELS:
        raise NoScale("few_pixels", f"measured and predicted depth have {n} pixels in common, {_MIN_PIXELS} are needed")
    x, w = log_ratio[good], confidence[good] / np.median(confidence[good])
    w = np.clip(w, 0.1, 10.0)
    middle = _weighted_median(x, w)
    spread = max(1.4826 * _weighted_median(np.abs(x - middle), w), 1e-6)
    if spread > _MAX_SPREAD:
        raise NoScale(
            "poor_fit", f"measured and predicted depth do not have the same shape (their ratio spreads by {spread:.0%})"
        )
    for _ in range(10):
        trust = w / (1 + ((x - middle) / (2.385 * spread)) ** 2)
        middle = float(np.average(x, weights=trust))
    stddev = spread / np.sqrt(max(n / _NEIGHBOURS_ALIKE, 1.0))
    return middle, float(np.hypot(stddev, config.depth_stddev)), spread


def smoothed_scales(
    link_logs: NDArray[np.float64],
    link_stddevs: NDArray[np.float64],
    observations: Sequence[ScaleObservation],
    before: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithm [K] of metres per unit of every window, and its deviation [K].

    link_logs [K - 1]: log scale of window k + 1 in window ``before[k]`` <= k (by default k), with deviations. The random
    walk along the links and the observations in one least-squares fit, exact, by messages in both directions along the
    links (the Kalman smoother of one number, on a tree); observations that disagree with the rest count less (Cauchy),
    and the deviations grow by what the disagreement of all is beyond what they state. Raises ValueError without an
    observation.
    """
    if not observations:
        raise ValueError("no observation, no scale")
    count = len(link_logs) + 1
    parents = np.arange(count - 1) if before is None else before
    at = np.array([o.window for o in observations])
    value = np.array([o.log_scale for o in observations])
    stddev = np.maximum([o.stddev for o in observations], 1e-6)
    trust = np.ones(len(at))
    for _ in range(8):
        information, weighted = np.zeros(count), np.zeros(count)
        np.add.at(information, at, trust / stddev**2)
        np.add.at(weighted, at, trust * value / stddev**2)
        x, variance = _walk(link_logs, link_stddevs, parents, information, weighted)
        off = (value - x[at]) / stddev
        trust = 1 / (1 + (off / 2.385) ** 2)
    excess = float(np.median(np.abs(off))) / 0.6745 if len(off) > 2 else 1.0
    return x, np.sqrt(variance) * max(excess, 1.0)


def _walk(
    steps: NDArray[np.float64],
    stddevs: NDArray[np.float64],
    before: NDArray[np.int64],
    information: NDArray[np.float64],
    weighted: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance [K] of a walk ``x[k + 1] = x[before[k]] + steps[k]`` seen with some information [K] at each place."""
    count = len(information)

    def passed(message: NDArray[np.float64], step: float, deviation: float) -> tuple[float, float]:
        info, total = message
        if info <= 0:
            return 0.0, 0.0
        variance = 1 / info + deviation**2
        return 1 / variance, (total / info + step) / variance

    own = np.stack([information, weighted], axis=1)
    branches = np.zeros((count, 2))  # what each place is told by those that follow it
    for k in range(count - 1, 0, -1):
        branches[before[k - 1]] += passed(own[k] + branches[k], -steps[k - 1], stddevs[k - 1])
    total = own + branches
    for k in range(1, count):
        told = np.array(passed(own[k] + branches[k], -steps[k - 1], stddevs[k - 1]))
        rest = total[before[k - 1]] - told
        if rest[0] > 1e-9 * told[0]:  # else what is left of it is rounding
            total[k] += passed(rest, steps[k - 1], stddevs[k - 1])
    return total[:, 1] / total[:, 0], 1 / total[:, 0]


def _weighted_median(x: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    order = np.argsort(x)
    cumulative = np.cumsum(w[order])
    return float(x[order][np.searchsorted(cumulative, cumulative[-1] / 2)])
