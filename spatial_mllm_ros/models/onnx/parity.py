"""How far what one runtime says is from what another says. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Parity:
    """How far a result is from a reference.

    error: root mean square of the difference by that of the reference. largest: difference by the largest value.
    tolerance: what ``error`` may be. cosine: the least between two tokens; NaN for what is no tokens. of: what was
    compared, '' where there is one thing only.
    """

    error: float
    largest: float
    tolerance: float
    cosine: float = math.nan
    of: str = ""

    @property
    def passed(self) -> bool:
        """NaN does not pass."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        where = f" in {self.of}" if self.of else ""
        words = f"relative error {self.error:.2g}{where} (allowed {self.tolerance:.2g}), largest {self.largest:.2g}"
        return words if math.isnan(self.cosine) else f"{words}, least cosine {self.cosine:.5f}"


def difference(
    there: NDArray[Any], expected: NDArray[Any], tolerance: float, *, tokens: bool = False, of: str = ""
) -> Parity:
    """Of two arrays of one shape. tokens: whether the last axis is the channels of tokens."""
    there, expected = there.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        apart = there - expected
        cosine = math.nan
        if tokens:
            lengths = np.linalg.norm(there, axis=-1) * np.linalg.norm(expected, axis=-1)
            cosine = float(((there * expected).sum(axis=-1) / lengths).min())
        return Parity(
            error=float(np.linalg.norm(apart) / np.linalg.norm(expected)),
            largest=float(np.abs(apart).max() / np.abs(expected).max()),
            tolerance=tolerance,
            cosine=cosine,
            of=of,
        )


def worst(parities: Mapping[str, Parity]) -> Parity:
    """The one that is furthest beyond what it may be, or nearest to it."""
    return max(parities.values(), key=lambda p: math.inf if math.isnan(p.error) else p.error / p.tolerance)
