"""Warnings that may come with every window, without flooding the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class WarningLimit:
    """Lets the first warning of each reason pass, then at most one of the reason every ``interval_s``.

    clock: seconds.
    """

    def __init__(self, clock: Callable[[], float], interval_s: float = 10.0) -> None:
        self._clock, self._interval_s = clock, interval_s
        self._said: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def due(self, reason: str) -> str | None:
        """None when it is too soon for another; else what to add to it: how many were kept back since the last."""
        now = self._clock()
        if now - self._said.get(reason, -self._interval_s) < self._interval_s:
            self._unsaid[reason] += 1
            return None
        self._said[reason] = now
        kept_back = self._unsaid.pop(reason, 0)
        return f" ({kept_back} more of the kind ({reason}) since the last warning)" if kept_back else ""
