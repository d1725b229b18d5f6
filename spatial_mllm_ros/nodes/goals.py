"""What a goal of the SpatialQuery action is told while its question is being answered, in either kind of node."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

FEEDBACK_PERIOD_S = 0.05


class Feedback:
    """Takes the pieces of an answer's text and tells all of it so far: the first at once, then at most every period.

    What comes last is in the answer, so that no piece waits to be told.
    """

    def __init__(
        self,
        tell: Callable[[str], object],
        period_s: float = FEEDBACK_PERIOD_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._period_s, self._monotonic = tell, period_s, monotonic
        self._text = ""
        self._told_at = -math.inf

    def __call__(self, piece: str) -> None:
        self._text += piece
        now = self._monotonic()
        if now - self._told_at >= self._period_s:
            self._told_at = now
            self._tell(self._text)
