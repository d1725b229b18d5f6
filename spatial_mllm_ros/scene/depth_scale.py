"""Whether the unit that depth is read in can be right: by how far things are, and by what motion shows."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.depth import AS_IT_IS, COUNT_M, FLOAT_M, DepthFormat
from spatial_mllm_ros.scene.depth_sample import DepthSample
from spatial_mllm_ros.scene.frame import DEPTH_M, Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import invert, rotation_angle

NEAR_M, FAR_M = 0.15, 20.0
"""Rooms are seen at median distances between these."""
NONSENSE_NEAR_M, NONSENSE_FAR_M = 0.01, 200.0
"""No depth camera measures so near, or the middle of its image so far."""
MEDIANS = 30
FEWEST_MEDIANS = 5
MILLIMETRES = 300.0
"""Whole numbers with a median beyond this are rather millimetres than centimetres."""
TOO_NEAR = 0.05
"""Share of the depth that may be nearer than the cameras measure that a format was made for."""

APART_M, TURNED_RAD = 0.08, 1.0
"""How far the camera moves at least, and turns at most, between images that are compared."""
STEP_M, STEP_RAD = 0.04, 0.2
"""How far it moves or turns from one image that is kept to the next."""
KEPT, PARTNERS = 12, 3
FEWEST_POINTS, SHARE_SEEN = 60, 0.25
AGREES, CONTRADICTS = 0.05, 3.0
"""Depth that fits motion differs between images by less than this share; one that does not by so many times more."""
RIGHT_ENOUGH = (0.7, 1.4)
"""Factors that are errors of calibration or poses, not of units."""
VOTES, CERTAIN_VOTES, MOST_VOTES, MOST_SEARCHES = 3, 6, 12, 60
ALIKE = 0.12
UNITS = {
    1.0: "metres",
    0.01: "centimetres",
    1 / 256: "1/256 m",
    0.001: "millimetres",
    0.0005: "half millimetres",
    0.00025: "quarter millimetres",
    1 / 5000: "1/5000 m",
    1 / 6553.5: "1/6553.5 m",
    0.0001: "0.1 mm",
    0.000125: "1/8 mm",
    1e-5: "0.01 mm",
    1e-6: "micrometres",
}
_FACTORS = np.unique(
    np.concatenate([np.geomspace(1e-3, 1e3, 41), np.divide.outer(list(UNITS), [1.0, 0.001, 0.0002]).ravel()])
)


class DepthScale:
    """Watches depth of one camera. Costs nothing while the camera stands, and next to nothing once motion has confirmed it.

    A surface seen from two places tells how far it is, if the way between is known: with depth multiplied by the right
    factor, what one image shows lies where the other measured it. depth: what is taken for granted, to name the setting's
    value.
    """

    def __init__(self, depth: DepthFormat = AS_IT_IS) -> None:
        self._unit_m, self._nearest_m, self._assumed = depth.unit_m, depth.nearest_m, depth.assumed
        self._too_near: deque[float] = deque(maxlen=MEDIANS)
        self._medians: deque[float] = deque(maxlen=MEDIANS)
        self._kept: deque[DepthSample] = deque(maxlen=KEPT)
        self._votes: list[float] = []
        self._searches = 0
        self._refused: deque[bool] = deque(maxlen=MEDIANS)
        self._whole = False

    def add(self, sample: DepthSample, frame: Frame) -> bool:
        """Look at a frame and its sample; whether its depth can be a measurement at all."""
        if not len(sample.metres):
            return True
        if self._unit_m is None:
            self._unit_m = FLOAT_M if sample.values.dtype == DEPTH_M else COUNT_M
        median = float(np.median(sample.metres))
        self._medians.append(median)
        self._too_near.append(float((sample.metres < self._nearest_m).mean()))
        if len(self._votes) < MOST_VOTES and self._searches < MOST_SEARCHES and self._moved(sample):
            for earlier in self._partners(sample):
                self._compare(earlier, frame)
            self._kept.append(sample)
        self._whole = _are_counts(sample.values) and median > FAR_M
        refused = self._whole or not NONSENSE_NEAR_M <= median <= NONSENSE_FAR_M
        self._refused.append(refused)
        return not refused

    @property
    def factor(self) -> float | None:
        """What depth must be multiplied by to fit the motion, as far as several images agree; None: not known."""
        if len(self._votes) < VOTES:
            return None
        middle = float(np.median(self._votes))
        agreeing = np.abs(np.log(np.divide(self._votes, middle))) < 1.5 * ALIKE
        return middle if agreeing.mean() >= 0.75 else None

    def doubt(self) -> Doubt | None:
        """That the unit is wrong; None as long as nothing says so."""
        factor = self.factor
        middle = float(np.median(self._medians)) if self._medians else np.nan
        if self._refused and np.mean(self._refused) > 0.5:
            why = "in whole numbers, so that they are no metres" if self._whole else "which no camera measures"
            return Doubt(
                kind="depth_scale",
                text=f"depth with a median of {middle:.4g} m, {why}, is left out",
                remedy=self._remedy(0.001 if factor is None and self._whole and middle >= MILLIMETRES else factor),
                confidence=0.0,
            )
        if factor is not None and RIGHT_ENOUGH[0] <= factor <= RIGHT_ENOUGH[1]:
            return None
        if factor is not None:
            return Doubt(
                kind="depth_scale",
                text=(
                    f"depth contradicts the camera's motion: surfaces seen from two places fit together if all depth is "
                    f"multiplied by {_plain(factor)}"
                ),
                remedy=f"{self._remedy(factor)}; if the unit is right, that of the poses is wrong",
                confidence=0.0 if len(self._votes) >= CERTAIN_VOTES else 0.1,
            )
        if len(self._medians) < FEWEST_MEDIANS:
            return None
        if not NEAR_M <= middle <= FAR_M:
            what = f"depth has a median of {middle:.3g} m, and rooms are seen from {NEAR_M} m to {FAR_M:g} m"
        elif (share := float(np.median(self._too_near))) > TOO_NEAR:
            what = f"{share:.0%} of the depth is nearer than {self._nearest_m} m, where cameras of this format measure nothing"
        else:
            return self._unconfirmed(middle)
        return Doubt(
            kind="depth_scale",
            text=what,
            remedy=self._remedy(None),
            confidence=0.3,
        )

    def _unconfirmed(self, middle: float) -> Doubt | None:
        """That nothing but habit tells the unit: neither the recording, nor, by its motion, the camera."""
        if not self._assumed or self.factor is not None:
            return None
        unit_m = _plain(self._unit_m or COUNT_M)
        return Doubt(
            kind="depth_unconfirmed",
            text=(
                f"the depth unit is not confirmed, for nothing moved that could show it: {unit_m} m a count is only what is "
                f"usual, and places half of what is seen beyond {middle:.2f} m"
            ),
            remedy=f"set depth_unit_m, to {unit_m} if that is right",
            confidence=0.6,
        )

    def _remedy(self, factor: float | None) -> str:
        if factor is None:
            now = "" if self._unit_m is None else f" (now {_plain(self._unit_m)})"
            return f"set depth_unit_m to the metres of one count{now}, such as 0.001 for millimetres, 0.0001 for 0.1 mm"
        assert self._unit_m is not None  # where there is a factor there was depth
        unit_m = self._unit_m * factor
        known = min(UNITS, key=lambda u: abs(np.log(u / unit_m)))
        if abs(np.log(known / unit_m)) > ALIKE:
            return f"set depth_unit_m to about {_plain(unit_m)} (now {_plain(self._unit_m)})"
        return f"set depth_unit_m to {_plain(known)}, for {UNITS[known]} (now {_plain(self._unit_m)})"

    def _moved(self, sample: DepthSample) -> bool:
        if not self._kept:
            return True
        moved_m, turned_rad = _motion(self._kept[-1], sample)
        return moved_m >= STEP_M or turned_rad >= STEP_RAD

    def _partners(self, sample: DepthSample) -> list[DepthSample]:
        """Images from elsewhere that may show the same: the latest one, the earliest one, and one between."""
        fitting = []
        for earlier in self._kept:
            moved_m, turned_rad = _motion(earlier, sample)
            if moved_m >= APART_M and turned_rad <= TURNED_RAD:
                fitting.append(earlier)
        return fitting if len(fitting) <= PARTNERS else [fitting[0], fitting[len(fitting) // 2], fitting[-1]]

    def _compare(self, earlier: DepthSample, frame: Frame) -> None:
        """A vote for a factor, if the two tell one."""
        as_it_is = _mismatch(earlier, frame, 1.0)
        if as_it_is < AGREES:
            if _is_lowest(as_it_is, earlier, frame, 1.0):
                self._votes.append(1.0)
            return
        self._searches += 1
        factor = _best(_FACTORS, earlier, frame)
        factor = _best(factor * np.geomspace(0.8, 1.25, 15), earlier, frame)
        best = _mismatch(earlier, frame, factor)
        if best < AGREES and not as_it_is < CONTRADICTS * best and _is_lowest(best, earlier, frame, factor):
            self._votes.append(factor)


def _motion(a: DepthSample, b: DepthSample) -> tuple[float, float]:
    """How far (m) and by what angle (rad) the camera moved between two images."""
    T = invert(a.T_world_camera) @ b.T_world_camera
    return float(np.linalg.norm(T[:3, 3])), rotation_angle(T)


def _best(factors: NDArray[np.float64], earlier: DepthSample, frame: Frame) -> float:
    return float(min(factors, key=lambda f: _mismatch(earlier, frame, f)))


def _mismatch(earlier: DepthSample, frame: Frame, factor: float) -> float:
    """Median difference of depth, as a share, where both see the same; infinite where too little is."""
    expected, measured = earlier.seen_by(frame, factor)
    if len(expected) < max(FEWEST_POINTS, SHARE_SEEN * len(earlier.metres)):
        return np.inf
    return float(np.median(np.abs(np.log(expected / measured))))


def _is_lowest(value: float, earlier: DepthSample, frame: Frame, factor: float) -> bool:
    """Whether half and double the factor fit plainly worse: a wall that the camera moves along fits with any."""
    return _mismatch(earlier, frame, 2 * factor) < np.inf and all(
        _mismatch(earlier, frame, f * factor) > 2 * value + 0.01 for f in (0.5, 2)
    )


def _are_counts(values: NDArray) -> bool:
    """Whether floating point numbers are counts: all whole, and of more than a few kinds."""
    return values.dtype == DEPTH_M and bool((values == np.rint(values)).all()) and len(np.unique(values)) >= 8


def _plain(value: float) -> str:
    return f"{value:.4g}"
