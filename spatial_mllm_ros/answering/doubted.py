"""What is doubted about the input, in the answers that rest on it: less confidence with the reason, or none at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries import measures as m
from spatial_mllm_ros.queries import operands as o
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import AnswerType, ErrorCode, QueryError
from spatial_mllm_ros.queries.query import Query, terms
from spatial_mllm_ros.scene.inputs import Doubt

REFUSED_BELOW = 0.2
"""Where the doubts leave less of the confidence than this, the input is nonsense, and so would be the answer."""
DEPTH = "depth_"
"""What the kinds of doubts about depth begin with; the others are about poses and calibration, which all rests on."""
OF_DEPTH = (o.Point, o.Box, o.Room, o.Floor, o.Ceiling, o.NearestWall, asks.Unseen, m.UnseenFraction, m.Shift)
"""What is placed by depth; a shift by which way is up, which the floor tells."""
CHOSEN = (AnswerType.BOOLEAN, AnswerType.CHOICE, AnswerType.ORDER)


def that_count(doubts: Sequence[Doubt], query: Query) -> list[Doubt]:
    """The doubts that the answer to a query is the less certain for."""
    of_depth = any(isinstance(t, OF_DEPTH) or (isinstance(t, m.Turn) and t.about_up) for t in terms(query))
    return [d for d in doubts if d.confidence < 1 and (of_depth or not d.kind.startswith(DEPTH))]


def doubted(answer: Answer, doubts: Sequence[Doubt], min_confidence: float) -> Answer:
    """A measured answer with the confidence that the doubts leave it, and why in its words.

    Raises QueryError (ABSTAINED) for nonsense, and for a choice or a yes or no less certain than ``min_confidence``.
    """
    if not doubts:
        return answer
    trust = math.prod(doubt.confidence for doubt in doubts)
    confidence, because = answer.confidence * trust, "; ".join(map(str, doubts))
    if trust < REFUSED_BELOW or (answer.answer_type in CHOSEN and confidence < min_confidence):
        raise QueryError(ErrorCode.ABSTAINED, f"the input is not what it is taken for: {because}")
    method = f"{answer.confidence_method}; times {' and '.join(f'{d.confidence:g} for {d.kind}' for d in doubts)}"
    return replace(
        answer, confidence=confidence, confidence_method=method, answer=f"{answer.answer} (doubtful: {because})"
    )


def because_of(error: QueryError, doubts: Sequence[Doubt]) -> QueryError:
    """Why there is no answer, with what may be the reason; ABSTAINED where the input is nonsense."""
    if not doubts or error.code in (ErrorCode.TIMEOUT, ErrorCode.CANCELLED, ErrorCode.INVALID_REQUEST):
        return error
    nonsense = math.prod(doubt.confidence for doubt in doubts) < REFUSED_BELOW
    code = ErrorCode.ABSTAINED if nonsense else error.code
    return QueryError(code, f"{error}. The input is doubtful: {'; '.join(map(str, doubts))}")
