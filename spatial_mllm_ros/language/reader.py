"""Words to a query. ``read`` never guesses: what it does not read as a whole it refuses, with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spatial_mllm_ros.language.canonical import Unspeakable, read_canonical, words
from spatial_mllm_ros.language.chart import Tangled
from spatial_mllm_ros.language.own_size import height_of_two, own_size
from spatial_mllm_ros.language.phrases import BOTH, FOREIGN, GRAMMAR, ORDINARY, SILENT, rebuilt
from spatial_mllm_ros.language.questions import Both
from spatial_mllm_ros.language.readings import Readings
from spatial_mllm_ros.language.sentences import Refused
from spatial_mllm_ros.language.spelling import Speller
from spatial_mllm_ros.language.tokens import Token, normalise, tokens_of
from spatial_mllm_ros.queries.asks import Property
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.queries.measures import Depth, Distance, Height
from spatial_mllm_ros.queries.query import Query, terms

LONGEST = 70
"""Tokens of a question at most, other than a canonical sentence."""

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


_FREE = re.compile(
    r"(?:describe|summari[sz]e|explain|why|who|whose|what (?:is|are|was|were|do|does|did|can|could|kind|type|sort|happen)|what|which|tell me about"
    r"|list|name|give (?:me )?a (?:summary|description)|how (?:do|does|is|are|would|old|come|clean|bright|hot|heavy)|is it (?:day|night|safe))\b"
)
_SPATIAL = re.compile(
    r"\bhow (?:far|long|high|tall|wide|deep|big|large|many|much|close|near|fast|steep|often|low|small|narrow|thick|broad|distant)\b|\bwhere\b|\bwhen\b"
    r"|\b(?:distance|height|width|length|depth|area|volume|angle|direction|position|coordinates|size|speed|diameter|farther|further|closer|nearer|nearest|closest"
    r"|farthest|furthest|higher|lower|highest|lowest|larger|largest|bigger|biggest|taller|tallest|wider|widest|number of|count|dimensions|extents?|part|parts|areas?|regions?|space|surface|unseen|unexplored|temperature|weight|fraction|percentage|route|path|way to)\b|\d"
)
_YES_NO = re.compile(r"(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|may|might|must)\b")


def read(text: str, *, points: int = 0, boxes: int = 0, times: int = 0, choices: Sequence[str] = ()) -> Reading:
    """Read a question about a request that has so many points, boxes and times, and these choices. Never raises."""
    try:
        return _read(text, points, boxes, times, choices)
    except Tangled:
        why = "the words can be put together in too many ways: ask in fewer words"
        return Reading(code=ErrorCode.NOT_UNDERSTOOD, reason=why)


def _read(text: str, points: int, boxes: int, times: int, choices: Sequence[str]) -> Reading:
    given = {"p": points, "box": boxes, "t": times}
    tokens = tokens_of(text, points=points, boxes=boxes, times=times)
    for token in tokens:
        if token.kind in given and token.value >= given[token.kind]:
            have = given[token.kind]
            name = {"p": "points", "box": "boxes", "t": "times"}[token.kind]
            return Reading(
                code=ErrorCode.INVALID_REQUEST,
                reason=f"{token.text} is not among the {name} of the request, which has {have or 'none'}",
            )
    canonical = read_canonical(tokens)
    if canonical is not None:
        return _reading(canonical, "")
    plain = _without_silent(tokens)
    if not plain or len(tokens) > LONGEST:
        why = f"a question of more than {LONGEST} words is not read" if plain else "there is no question"
        return Reading(code=ErrorCode.NOT_UNDERSTOOD, reason=why)
    tokens = _named_list(plain, given, choices)
    readings = Readings(given)
    found, farthest = readings.of(tokens)
    if not found and tokens != plain:  # marks may be there for another question of the batch
        tokens = plain
        found, farthest = readings.of(tokens)
    remarks: dict[Query, str] = {}
    if not any(isinstance(f, Query) for f in found) or min(found.values()) > 0:
        for repaired, changed in _SPELLER.repairs(tokens):
            more, _ = readings.of(repaired)
            note = ", ".join(f'"{a}" was read as "{b}"' for a, b in changed.items())
            for query, cost in more.items():
                if isinstance(query, Query) and cost + len(changed) <= found.get(query, 1 << 30) and query not in found:
                    found[query] = cost
                    remarks[query] = note
    queries = {q: c for q, c in found.items() if isinstance(q, Query)}
    cheapest = sorted((q for q, c in queries.items() if c == min(queries.values())), key=repr, reverse=True)
    best = list({_unordered(q): q for q in cheapest}.values())
    if len(best) == 1 and (thing := own_size(tokens)) and any(isinstance(t, Depth | Height) for t in terms(best[0])):
        why = f"a point does not tell the size of the {thing}: draw a box closely round it, or ask where the point is"
        return Reading(code=ErrorCode.AMBIGUOUS, reason=why, alternatives=_alternatives(best))
    if len(best) == 1 and height_of_two(tokens, best[0]):
        why = "a height of two things at once: ask for the height of one, or of one above the other"
        return Reading(code=ErrorCode.AMBIGUOUS, reason=why, alternatives=_alternatives(best))
    if len(best) == 1:
        return _reading(best[0], remarks.get(best[0], ""))
    if best:
        return Reading(
            code=ErrorCode.AMBIGUOUS, reason="this can mean more than one thing", alternatives=_alternatives(best)
        )
    return _refusal(text, tokens, found, farthest, given)


def _unordered(query: Query) -> Query:
    """The same for what differs only in which end of a distance comes first."""

    def sorted_ends(term: Any) -> Any:
        if isinstance(term, Distance) and repr(term.b) < repr(term.a):
            return replace(term, a=term.b, b=term.a)
        return term

    return rebuilt(query, sorted_ends)


def _reading(query: Query, remark: str) -> Reading:
    return Reading(
        query=query,
        queries=(query,),
        read_as=said(query),
        remarks=(remark,) if remark else (),
        free_form=isinstance(query.ask, Property),
    )


def _alternatives(queries: Iterable[Query]) -> tuple[Alternative, ...]:
    return tuple(Alternative(words=words_, query=q) for q in queries if (words_ := said(q)))


def _refusal(
    text: str, tokens: tuple[Token, ...], found: dict[Any, int], farthest: int, given: dict[str, int]
) -> Reading:
    """Why there is no query, and what could be asked instead."""
    for several in (f for f in found if isinstance(f, Both)):
        return Reading(
            queries=several.queries,
            code=ErrorCode.NOT_UNDERSTOOD,
            reason="there is more than one question: ask them one by one, or as one batch",
            alternatives=_alternatives(several.queries),
        )
    for refused in (f for f in found if isinstance(f, Refused)):
        code = ErrorCode.AMBIGUOUS if refused.instead else ErrorCode.NOT_UNDERSTOOD
        return Reading(code=code, reason=refused.reason, alternatives=_alternatives(refused.instead))
    plain = normalise(text)
    letters = [c for c in plain if c.isalpha()]
    foreign = [t.text for t in tokens if t.text in FOREIGN and t.text not in GRAMMAR.words]
    if sum(ord(c) > 0x24F for c in letters) > len(letters) / 4 or len(foreign) >= 2 or "¿" in plain:
        return Reading(code=ErrorCode.NOT_UNDERSTOOD, reason=OTHER_LANGUAGE)
    marks = any(t.kind in given for t in tokens)
    start = " ".join(t.text for t in tokens)
    if not marks and _FREE.match(start) and not _SPATIAL.search(start):
        return Reading(code=ErrorCode.NOT_UNDERSTOOD, reason="this is a question for a model", free_form=True)
    stop = tokens[farthest].text if farthest < len(tokens) else ""
    before = " ".join(t.text for t in tokens[max(0, farthest - 3) : farthest])
    where = (
        f'"{stop}" has no role after "{before}"'
        if stop and before
        else f'"{stop}" has no role'
        if stop
        else "the question is not complete"
    )
    return Reading(code=ErrorCode.NOT_UNDERSTOOD, reason=where, alternatives=_nearest(tokens))


OTHER_LANGUAGE = "this reader reads English; a language model can be set as reader (parameter reader)"


def _nearest(tokens: tuple[Token, ...]) -> tuple[Alternative, ...]:
    """Canonical questions about what the text marks, those first that share its words."""
    from spatial_mllm_ros.language.suggestions import suggestions

    return _alternatives(suggestions(tokens))


def _named_list(tokens: tuple[Token, ...], given: dict[str, int], choices: Sequence[str]) -> tuple[Token, ...]:
    """ "the two points" and "which point" of a request with several marks, none of which the text names, with their names."""
    if any(t.kind in ("p", "box") for t in tokens):
        return tokens
    chosen = [t for c in choices for t in tokens_of(c, points=given["p"], boxes=given["box"], times=given["t"])]
    marks = chosen if chosen and all(t.kind in ("p", "box") for t in chosen) and len(chosen) == len(choices) else []
    if not marks:
        kind = "p" if given["p"] > 1 and not given["box"] else "box" if given["box"] > 1 and not given["p"] else ""
        marks = [Token(kind, f"<{kind}{i}>", i) for i in range(given[kind])] if kind else []
    if len(marks) < 2:
        return tokens
    named = [token for mark in marks[:-1] for token in (mark, Token("word", "and"))] + [marks[-1]]
    texts = [t.text for t in tokens]
    for phrase in BOTH:
        for i in range(len(texts) - len(phrase) + 1):
            if tuple(texts[i : i + len(phrase)]) == phrase:
                return (*tokens[:i], *named, *tokens[i + len(phrase) :])
    return (*named, Token(",", ","), *tokens) if texts[0] in ("which", "who", "what") and len(texts) < 12 else tokens


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
_SPELLER = Speller(GRAMMAR.words, ORDINARY)
