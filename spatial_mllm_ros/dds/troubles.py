"""What goes wrong is counted, and told often enough but not too often."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

REPEAT_AFTER_S = 5.0


class Troubles:
    """Counts of what went wrong, by a short word; each kind is logged at once and then at most every five seconds."""

    def __init__(self, logger: logging.Logger) -> None:
        self.counts: Counter[str] = Counter()
        self._logger = logger
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def add(
        self, kind: str, where: str, message: str, *, level: int = logging.WARNING, error: BaseException | None = None
    ) -> None:
        """Count one of a kind at a topic or service, and log it unless one was a moment ago.

        ``error`` adds its traceback to the log.
        """
        now = time.monotonic()
        with self._lock:
            self.counts[kind] += 1
            last, silent = self._told.get((kind, where), (float("-inf"), 0))
            if now - last < REPEAT_AFTER_S:
                self._told[kind, where] = (last, silent + 1)
                return
            self._told[kind, where] = (now, 0)
        more = f" ({silent} more like this since the last time)" if silent else ""
        self._logger.log(level, "%s: %s%s", where, message, more, exc_info=error)
