"""Numbers that know their errors, so that what is compared shares what it shares."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from spatial_mllm_ros.queries.answer import Evidence
from spatial_mllm_ros.queries.codes import ScaleSource
from spatial_mllm_ros.scene.uncertainty import Errors, propagate

METRIC = "metric scale"
"""The error source that all lengths share where geometry has one scale for everything."""

_DRAWS = 20_000
_SURE = 0.99


@dataclass(frozen=True, eq=False, kw_only=True)
class Measured:
    """A number as a function of the errors that may be in it.

    at: the value, in ``unit``, with the named errors applied. stddevs: their standard deviations. words: {} is where the
    value belongs in an answer. subject: what it is of. more, less: how it compares to a smaller and a larger one. period:
    360 for an angle all round, whose values are unwrapped near its own; 0 for others. doubts: what makes it uncertain
    beside Gaussian errors, as the share of confidence that is left.
    """

    at: Callable[[Errors], float]
    stddevs: Mapping[Hashable, Any]
    unit: str
    evidence: tuple[Evidence, ...] = ()
    scale: ScaleSource = ScaleSource.DEPTH
    words: str = "{}"
    subject: str = ""
    more: str = "more"
    less: str = "less"
    period: float = 0.0


def fixed(value: float, stddev: float, unit: str, key: Hashable, **fields: Any) -> Measured:
    """A number whose error is its own: ``key`` names it."""
    return Measured(at=lambda e: value + e.get(key, 0.0), stddevs={key: stddev}, unit=unit, **fields)


def unwrapped(measured: Measured) -> Measured:
    """An angle all round as a function that does not jump near its value."""
    if not measured.period:
        return measured
    value, half = measured.at({}), measured.period / 2

    def at(e: Errors) -> float:
        return value + (measured.at(e) - value + half) % measured.period - half

    return Measured(**{**vars(measured), "at": at})


def joint(of: Sequence[Measured]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values [n] and covariance [n, n] of several numbers."""
    of = [unwrapped(m) for m in of]
    base = [m.at({}) for m in of]

    def values(e: Errors) -> NDArray[np.float64]:
        return np.array([b if e.keys().isdisjoint(m.stddevs) else m.at(e) for m, b in zip(of, base, strict=True)])

    return propagate(values, merged(*(m.stddevs for m in of)))


def merged(*stddevs: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """All sources, each once."""
    out: dict[Hashable, Any] = {}
    for some in stddevs:
        out |= some
    return out


def together(of: Sequence[Measured]) -> tuple[Evidence, ...]:
    """The evidence of several numbers, each once."""
    return tuple(dict.fromkeys(e for m in of for e in m.evidence))


def chance_above(value: float, stddev: float, limit: float) -> float:
    """Probability that a number is more than ``limit``; 0.5 for one that is exactly it, by nothing known."""
    if not stddev > 0:
        return 0.5 if value == limit else float(value > limit)
    return float(ndtr((value - limit) / stddev))


def chance_of_order(values: NDArray[np.float64], covariance: NDArray[np.float64], order: Sequence[int]) -> float:
    """Probability that numbers [n] stand in this order, least first."""
    return _chance(values, covariance, list(pairwise(order)))


def chance_of_rank(values: NDArray[np.float64], covariance: NDArray[np.float64], index: int) -> float:
    """Probability that a number [n] has the rank among the others that its value says."""
    pairs = [(index, j) if values[index] <= values[j] else (j, index) for j in range(len(values)) if j != index]
    return _chance(values, covariance, pairs)


def _chance(values: NDArray[np.float64], covariance: NDArray[np.float64], below: Sequence[tuple[int, int]]) -> float:
    """Probability that of each pair the first is less than the second.

    The pairs' own probabilities bound it (Boole's inequality); where that says little it is counted among samples of the
    Gaussian, which are the same every time.
    """
    doubts = 0.0
    for i, j in below:
        variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
        doubts += 1 - chance_above(float(values[j] - values[i]), float(np.sqrt(max(variance, 0.0))), 0.0)
    if len(below) == 1 or 1 - doubts > _SURE:
        return 1 - doubts
    variances, axes = np.linalg.eigh(covariance)
    noise = np.random.default_rng(0).standard_normal((_DRAWS, len(values)))
    drawn = values + noise * np.sqrt(np.maximum(variances, 0.0)) @ axes.T
    fits = np.ones(_DRAWS)
    for i, j in below:
        gap = drawn[:, j] - drawn[:, i]
        fits *= np.where(gap == 0, 0.5, gap > 0)
    return float(np.clip(fits.mean(), 0.0, 1 - 1 / _DRAWS))
