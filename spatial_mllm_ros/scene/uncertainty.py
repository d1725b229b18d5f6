"""First-order propagation of errors through any function."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Errors = Mapping[Hashable, float]
"""How much each named error source is off; a source that is not named is not off."""


@dataclass(frozen=True, kw_only=True)
class Drifting:
    """The deviation of an error source that shares a slow part with others of its ``group``.

    white, drift: standard deviations of the part of its own and of the shared one. stamp_ns: when it was. Two sources of a
    group that lie dt apart share drift with the correlation exp(-dt / time_s), as of a first-order Gauss-Markov process.
    """

    white: float
    drift: float
    stamp_ns: int
    time_s: float
    group: Hashable

    @property
    def total(self) -> float:
        return float(np.hypot(self.white, self.drift))


Stddevs = Mapping[Hashable, "float | Drifting"]
"""Standard deviation of each named error source."""


def propagate(
    function: Callable[[Errors], float | NDArray[np.float64]], stddevs: Stddevs
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Value [n] and covariance [n, n] of ``function`` when its error sources have the given standard deviations.

    The function is evaluated with every source one deviation up and one down; half the difference is that source's
    column, and columns of independent sources add in squares (the Jacobian rule of the GUM, JCGM 100:2008, equation 10,
    with differences over one deviation, which see more of a curve than a derivative). Sources that drift together are
    moved together, along the principal axes of their covariance, which are independent again.
    """
    value = np.atleast_1d(np.asarray(function({}), dtype=np.float64))
    covariance = np.zeros((len(value), len(value)))
    for moved in _independent(stddevs):
        up = np.atleast_1d(np.asarray(function(moved), dtype=np.float64))
        down = np.atleast_1d(np.asarray(function({name: -step for name, step in moved.items()}), dtype=np.float64))
        column = (up - down) / 2
        # at a minimum (a length near zero) both go the same way: take the larger step
        bend = np.maximum(np.abs(up - value), np.abs(down - value))
        column = np.where(np.abs(column) < bend / 2, bend / 2, column)
        covariance += np.outer(column, column)
    return value, covariance


def propagate_scalar(
    function: Callable[[Errors], float | NDArray[np.float64]], stddevs: Stddevs
) -> tuple[float, float]:
    """Value and standard deviation of a function that returns one number."""
    value, covariance = propagate(function, stddevs)
    return float(value[0]), float(np.sqrt(covariance[0, 0]))


def _independent(stddevs: Stddevs) -> list[dict[Hashable, float]]:
    """Independent errors of one deviation each, that together have the covariance of the sources."""
    moved: list[dict[Hashable, float]] = []
    groups: dict[Hashable, list[tuple[Hashable, Drifting]]] = defaultdict(list)
    for name, stddev in stddevs.items():
        if isinstance(stddev, Drifting):
            groups[stddev.group].append((name, stddev))
        elif stddev > 0:
            moved.append({name: stddev})
    for members in groups.values():
        names, sources = zip(*members, strict=True)
        if len(sources) == 1:
            moved.append({names[0]: sources[0].total})
            continue
        stamps_s = np.array([s.stamp_ns for s in sources], dtype=np.int64)
        apart_s = np.abs(stamps_s[:, None] - stamps_s) / 1e9
        drift = np.array([s.drift for s in sources])
        shared = np.outer(drift, drift) * np.exp(-apart_s / sources[0].time_s)
        variances, axes = np.linalg.eigh(shared + np.diag([s.white**2 for s in sources]))
        for variance, axis in zip(variances, axes.T, strict=True):
            if variance > 0:
                moved.append(dict(zip(names, (np.sqrt(variance) * axis).tolist(), strict=True)))
    return moved
