"""All readings of a tokenised text: of one question, of several sentences, of a statement that is asked whether it holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spatial_mllm_ros.language import comparing, measuring, motion, relations, sightings, things, ways  # noqa: F401  parts of the grammar
from spatial_mllm_ros.language.chart import Chart, Work
from spatial_mllm_ros.language.nouns import IT
from spatial_mllm_ros.language.phrases import GRAMMAR, LEXICON, rebuilt
from spatial_mllm_ros.language.questions import Both
from spatial_mllm_ros.language.sentences import unit_fits
from spatial_mllm_ros.language.tokens import Token
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.queries.query import Query, answer_type, terms
from spatial_mllm_ros.queries.term import InvalidQuery

Tokens = tuple[Token, ...]
_VERBS = ("is", "are", "was", "were", "can", "could", "has", "have")
_MARKS = {"p": O.Point, "box": O.Box, "t": T.MarkedMoment}


class Readings:
    """Reads token sequences of one text, within the work that a text may cost. given: how many marks of each kind there are."""

    def __init__(self, given: dict[str, int]) -> None:
        self.given, self.work = given, Work()

    def of(self, tokens: Tokens) -> tuple[dict[Any, int], int]:
        """The readings of a text with their costs, and how far it was understood. Raises Tangled."""
        found, farthest = self._parsed(tokens)
        if not found and len(tokens) > 1 and tokens[1].text == "n't" and tokens[0].text in (*_VERBS, "do", "does", "did"):
            found, _ = self._parsed((tokens[0], *tokens[2:]))  # "isn't it so?" asks whether it is
        if not found and (asked := self._asked(tokens)):
            found = {q: c for q, c in self._parsed(asked)[0].items() if _is_yes_no(q)}
        if not found and any(t.kind == "." for t in tokens):
            found = self._sentences(tokens)
        return found, farthest

    def _sentences(self, tokens: Tokens) -> dict[Any, int]:
        """Of a question with sentences around it, or of several questions."""
        stops = [i for i, t in enumerate(tokens) if t.kind == "."]
        parts = [p for a, b in zip([-1, *stops], [*stops, len(tokens)], strict=True) if (p := tokens[a + 1 : b])]
        questions: list[dict[Any, int]] = []
        context: Tokens = ()
        for part in parts:
            chart = Chart(GRAMMAR, part, self.work)
            if chart.whole("aside"):
                continue
            unit = chart.whole("unit_aside")
            if unit and questions:
                questions[-1] = {
                    replace(q, unit=u): c
                    for q, c in questions[-1].items()
                    for u in unit
                    if isinstance(q, Query) and q.unit in ("", u) and unit_fits(q, u)
                }
                continue
            intro = chart.whole("context")
            if intro and not questions:
                context = (*part[next(iter(intro)) :], Token(",", ","))
                continue
            one, _ = self._parsed((*context, *part))
            if not one:
                return {}
            questions.append(one)
        if len(questions) == 1:
            return questions[0]
        single = [next(iter(q)) for q in questions if len(q) == 1]
        if questions and len(single) == len(questions) and all(isinstance(q, Query) for q in single):
            return {Both(tuple(single)): 0}
        return {}

    def _asked(self, tokens: Tokens) -> Tokens:
        """ "Check that <p0> is reachable" with its verb in front: "is <p0> reachable"; empty where it is no statement."""
        chart = Chart(GRAMMAR, tokens, self.work)
        begin = max((end for end, _, _ in chart.phrase("stated", 0)), default=0)
        if not begin and any(tokens[0].text in LEXICON[name] for name in ("BE", "DO", "CAN", "HAVE", "WHICHEVER")):
            return ()
        verb = next((i for i in range(begin + 1, len(tokens)) if tokens[i].text in _VERBS), 0)
        if not verb:
            return (Token("word", "is"), *tokens[begin:]) if begin else ()
        return (tokens[verb], *tokens[begin:verb], *tokens[verb + 1 :])

    def _parsed(self, tokens: Tokens) -> tuple[dict[Any, int], int]:
        chart = Chart(GRAMMAR, tokens, self.work)
        found: dict[Any, int] = {}
        for reading, cost in chart.whole("question").items():
            resolved = _resolved(reading, tokens, self.given)
            if resolved is not None and _keeps_marks(resolved, tokens):
                found[resolved] = min(cost, found.get(resolved, cost))
        return found, chart.farthest


def _is_yes_no(reading: Any) -> bool:
    return isinstance(reading, Query) and answer_type(reading) is AnswerType.BOOLEAN


def _keeps_marks(reading: Any, tokens: Tokens) -> bool:
    """Whether every mark that the text names is in the query: one that vanished was misread."""
    queries = reading.queries if isinstance(reading, Both) else (reading,) if isinstance(reading, Query) else ()
    if not queries:
        return True
    asked = {part for query in queries for part in terms(query)}
    return all(_MARKS[t.kind](index=int(t.value)) in asked for t in tokens if t.kind in _MARKS)


def _resolved(reading: Any, tokens: Tokens, given: dict[str, int]) -> Any:
    """A reading with "it" put in: the one thing that the text marks, or that the request does. None where there is none."""
    if isinstance(reading, Both):
        parts = tuple(_resolved(q, tokens, given) for q in reading.queries)
        return None if None in parts else Both(parts)
    if not isinstance(reading, Query):
        return reading
    if not any(t == IT for t in terms(reading)):
        return reading
    marks: set[O.Operand] = {
        O.Point(index=int(t.value)) if t.kind == "p" else O.Box(index=int(t.value))
        for t in tokens
        if t.kind in ("p", "box")
    }
    if not marks and given["p"] + given["box"] == 1:
        marks = {O.Point(index=0) if given["p"] else O.Box(index=0)}
    if len(marks) != 1:
        return None
    (mark,) = marks
    try:
        return rebuilt(reading, lambda term: mark if term == IT else term)
    except InvalidQuery:
        return None


GRAMMAR.ready()
