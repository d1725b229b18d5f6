"""From a request to the query that it means: typed, read from its words, or both, which must then agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from spatial_mllm_ros.answering.arbitration import is_marked
from spatial_mllm_ros.language.conversation import ConversationReader
from spatial_mllm_ros.language.phrases import rebuilt
from spatial_mllm_ros.language.reader import said
from spatial_mllm_ros.language.tokens import check_text
from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries.answer import Request
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.queries.measures import Distance
from spatial_mllm_ros.queries.query import Query


@dataclass(frozen=True, kw_only=True)
class Understood:
    """What a request asks.

    query: None for a question that only a model can answer. read_as: it in one sentence, with what was assumed or repaired.
    reader: who read the words, '' for a typed query. free_form: a model may answer it.
    """

    query: Query | None = None
    read_as: str = ""
    alternatives: tuple[str, ...] = ()
    reader: str = ""
    free_form: bool = False


class NotUnderstood(QueryError):
    """Words that are no query. ``understood`` holds what could be asked instead."""

    def __init__(self, code: ErrorCode, message: str, understood: Understood) -> None:
        super().__init__(code, message)
        self.understood = understood


def understand(
    request: Request,
    reader: ConversationReader,
    timeout_s: float,
    cancelled: Callable[[], bool],
    has_model: bool = False,
) -> Understood:
    """The query that a request means. Raises QueryError: INVALID_REQUEST, NOT_UNDERSTOOD or AMBIGUOUS.

    has_model: a question without marks that is not read is one for the model, which answers the words themselves.
    """
    typed = request.query
    if typed is not None and not request.question.strip():
        return Understood(query=typed, read_as=said(typed))
    check_text(request.question)
    reading, name = reader.read(request, timeout_s=timeout_s, cancelled=cancelled)
    alternatives = tuple(a.words for a in reading.alternatives)
    read_as = " ".join((reading.read_as, *(f"({remark})" for remark in reading.remarks))).strip()
    understood = Understood(
        query=reading.query, read_as=read_as, alternatives=alternatives, reader=name, free_form=reading.free_form
    )
    if typed is not None:
        if reading.query is None or not agree(typed, reading.query):
            meant = f"are read as {read_as!r}" if reading.query is not None else f"are not read: {reading.reason}"
            raise NotUnderstood(
                ErrorCode.INVALID_REQUEST,
                f"the words and the query of the request do not agree: the query is {said(typed)!r}, the words {meant}; "
                "send one of them",
                replace(understood, query=typed),
            )
        return replace(understood, query=typed)
    if (
        has_model
        and reading.query is None
        and reading.code is ErrorCode.NOT_UNDERSTOOD
        and not reading.queries
        and not is_marked(request, None)
    ):
        return replace(understood, free_form=True)
    if reading.query is None and not reading.free_form:
        code = reading.code if reading.code is not ErrorCode.NONE else ErrorCode.NOT_UNDERSTOOD
        raise NotUnderstood(code, reading.reason or "the question is not understood", understood)
    return understood


def agree(typed: Query, read: Query) -> bool:
    """Whether two queries mean the same. What the words leave open (unit, frame, window) the typed one may say."""
    left_open = {
        name: getattr(typed, name) for name in ("unit", "frame_id", "window") if getattr(read, name) == _UNSAID[name]
    }
    return _canonical(replace(read, **left_open)) == _canonical(typed)


_UNSAID: dict[str, Any] = {"unit": "", "frame_id": "", "window": None}
_MIRRORED = {
    asks.Comparison.LESS: asks.Comparison.MORE,
    asks.Comparison.AT_MOST: asks.Comparison.AT_LEAST,
}


def _canonical(query: Query) -> Any:
    """The same for queries that differ only in the order of what has none."""

    def ordered(term: Any) -> Any:
        if isinstance(term, Distance) and repr(term.b) < repr(term.a):
            return replace(term, a=term.b, b=term.a)
        if isinstance(term, asks.Compare) and term.comparison in _MIRRORED and term.factor == 1.0:
            return replace(term, a=term.b, b=term.a, comparison=_MIRRORED[term.comparison], offset=0.0 - term.offset)
        return term

    return rebuilt(query, ordered)
