"""What is doubted about the input, in the answers that rest on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.scene.inputs import Doubt

REFUSED_BELOW = 0.2
"""Where the doubts leave less of the confidence than this, the input is nonsense, and so would be the answer."""


def trust_in(doubts: Sequence[Doubt]) -> float:
    """What the confidence of a measured answer is multiplied by. Raises QueryError (ABSTAINED) for nonsense."""
    factor = math.prod(doubt.confidence for doubt in doubts)
    if factor < REFUSED_BELOW:
        words = "; ".join(str(doubt) for doubt in doubts if doubt.confidence < 1)
        raise QueryError(ErrorCode.ABSTAINED, f"the input is not what it is taken for: {words}")
    return factor
