"""First-order propagation of independent errors through any function."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import numpy as np
from numpy.typing import NDArray

Errors = Mapping[Hashable, float]
"""How much each named error source is off; a source that is not named is not off."""


def propagate(
    function: Callable[[Errors], float | NDArray[np.float64]], stddevs: Mapping[Hashable, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Value [n] and covariance [n, n] of ``function`` when its error sources have the given standard deviations.

    The function is evaluated with every source one deviation up and one down; half the difference is that source's
    column, and columns of independent sources add in squares (the Jacobian rule of the GUM, JCGM 100:2008, equation 10,
    with differences over one deviation, which see more of a curve than a derivative).
    """
    value = np.atleast_1d(np.asarray(function({}), dtype=np.float64))
    covariance = np.zeros((len(value), len(value)))
    for name, stddev in stddevs.items():
        if stddev <= 0:
            continue
        up = np.atleast_1d(np.asarray(function({name: stddev}), dtype=np.float64))
        down = np.atleast_1d(np.asarray(function({name: -stddev}), dtype=np.float64))
        column = (up - down) / 2
        # at a minimum (a length near zero) both go the same way: take the larger step
        bend = np.maximum(np.abs(up - value), np.abs(down - value))
        column = np.where(np.abs(column) < bend / 2, bend / 2, column)
        covariance += np.outer(column, column)
    return value, covariance


def propagate_scalar(
    function: Callable[[Errors], float | NDArray[np.float64]], stddevs: Mapping[Hashable, float]
) -> tuple[float, float]:
    """Value and standard deviation of a function that returns one number."""
    value, covariance = propagate(function, stddevs)
    return float(value[0]), float(np.sqrt(covariance[0, 0]))
