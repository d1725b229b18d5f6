"""Words to a query. ``read`` never guesses: what it does not read as a whole it refuses, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spatial_mllm_ros.language.canonical import Unspeakable, words
from spatial_mllm_ros.language.chart import Chart
from spatial_mllm_ros.language.phrases import GRAMMAR, SILENT
from spatial_mllm_ros.language.tokens import Token, tokens_of
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.queries.query import Query

LONGEST = 70
"""Tokens of a question at most."""

__all__ = ["Alternative", "Reading", "read"]


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Another thing that could be meant, or be asked instead: a canonical sentence and its query."""

    words: str
    query: Query


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a text asks.

    queries: exactly one where it was read; several for several questions in one text, each to be asked on its own.
    read_as: the canonical sentence of ``query``. remarks: what was assumed or repaired. code: NONE where ``query`` is
    there, else INVALID_REQUEST (marks that do not exist), AMBIGUOUS (see ``alternatives``) or NOT_UNDERSTOOD, with
    ``reason`` in one line. free_form: a question for a model (with a query: one that a model may answer as well); it says
    nothing of marks, quantities, places, times or yes and no.
    """

    query: Query | None = None
    queries: tuple[Query, ...] = ()
    read_as: str = ""
    alternatives: tuple[Alternative, ...] = ()
    remarks: tuple[str, ...] = ()
    code: ErrorCode = ErrorCode.NONE
    reason: str = ""
    free_form: bool = False


def said(query: Query) -> str:
    """The canonical sentence, '' where there is none."""
    try:
        return words(query)
    except Unspeakable:
        return ""


def read(text: str, *, points: int = 0, boxes: int = 0, times: int = 0, choices: Sequence[str] = ()) -> Reading:
    """Read a question about a request that has so many points, boxes and times, and these choices. Never raises."""
    del choices
    tokens = tokens_of(text, points=points, boxes=boxes, times=times)
    given = {"p": points, "box": boxes, "t": times}
    for token in tokens:
        if token.kind in given and token.value >= given[token.kind]:
            have = given[token.kind]
            name = {"p": "point", "box": "box", "t": "time"}[token.kind]
            many = f"it has {have}" if have else "it has none"
            return Reading(code=ErrorCode.INVALID_REQUEST, reason=f"{token.text} is not among the {name}s of the request: {many}")
    if not tokens or len(tokens) > LONGEST:
        return Reading(code=ErrorCode.NOT_UNDERSTOOD, reason="there is no question" if not tokens else "the question is too long")
    tokens = _without_silent(tokens)
    chart = Chart(GRAMMAR, tokens)
    found = {q: c for q, c in chart.whole("core").items() if isinstance(q, Query)}
    least = min(found.values(), default=0)
    best = [q for q, c in found.items() if c == least]
    if len(best) == 1:
        return Reading(query=best[0], queries=(best[0],), read_as=said(best[0]))
    if best:
        return Reading(code=ErrorCode.AMBIGUOUS, reason="more than one thing can be meant", alternatives=tuple(Alternative(words=said(q), query=q) for q in best))
    return Reading(code=ErrorCode.NOT_UNDERSTOOD, reason="not understood")


def _without_silent(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    out: list[Token] = []
    i = 0
    texts = [t.text for t in tokens]
    while i < len(tokens):
        length = max((len(p) for p in _SILENT.get(texts[i], ()) if tuple(texts[i : i + len(p)]) == p), default=0)
        if length:
            i += length
        else:
            out.append(tokens[i])
            i += 1
    while out and out[0].kind in ",.":
        out.pop(0)
    return tuple(out)


_SILENT: dict[str, list[tuple[str, ...]]] = {}
for _phrase in SILENT:
    _SILENT.setdefault(_phrase[0], []).append(_phrase)
GRAMMAR.ready()
