"""A part of the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Region:
    """Axis-aligned box of the world frame from ``low`` to ``high`` (x, y, z in metres)."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def contains(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which of the points [..., 3] lie inside."""
        inside = (points >= np.asarray(self.low)) & (points <= np.asarray(self.high))
        return np.asarray(inside.all(axis=-1))
