"""What /diagnostics has, in the log as well: for whoever looks there first."""

from __future__ import annotations

import logging
from collections.abc import Callable

from spatial_mllm_ros.nodes.diagnosis import NOTHING, Finding, Level

log = logging.getLogger(__name__)
TELL_AGAIN_S = 30.0
"""A fault that lasts is told again after this."""


class FaultLog:
    """Tells faults at once, and again while they last. monotonic: seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._told: dict[tuple[str, str, str], float] = {}

    def tell(self, findings: list[Finding]) -> None:
        """Log what is a fault and was not told of late."""
        now = self._monotonic()
        for finding in findings:
            # Why nothing comes changes as others come and go; what counts something is the same with another figure.
            key = (finding.name, finding.reason, finding.message if finding.reason == NOTHING else "")
            if finding.level is Level.OK or now - self._told.get(key, -TELL_AGAIN_S) < TELL_AGAIN_S:
                continue
            self._told[key] = now
            level = logging.ERROR if finding.level is Level.ERROR else logging.WARNING
            log.log(level, "%s: %s", finding.name, finding.message)
