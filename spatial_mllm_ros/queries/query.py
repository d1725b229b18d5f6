"""A typed query: what is asked, and in which unit, frame and window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum

from spatial_mllm_ros.queries.asks import Ask, Extreme, Occupied, Order, Value
from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.queries.measures import unit_of
from spatial_mllm_ros.queries.moments import MarkedMoment, Span
from spatial_mllm_ros.queries.operands import Box, Point
from spatial_mllm_ros.queries.term import InvalidQuery, Term
from spatial_mllm_ros.queries.units import UNITS


@dataclass(frozen=True, kw_only=True)
class Query(Term):
    """A question that can be answered without reading words.

    negated: yes and no are exchanged. unit: of the words of the answer, key of UNITS; '': that of the value. frame_id:
    frame of returned positions; '': the fixed frame. window: only what was seen within it counts; None: everything.
    """

    ask: Ask
    negated: bool = False
    unit: str = ""
    frame_id: str = ""
    window: Span | None = None

    def __post_init__(self) -> None:
        if self.unit and self.unit not in UNITS:
            raise InvalidQuery(f"unknown unit {self.unit!r}: use one of {', '.join(u for u in UNITS if u)}")
        if self.negated and answer_type(self) is not AnswerType.BOOLEAN:
            raise InvalidQuery("only what is answered with yes or no can be negated")


def answer_type(query: Query) -> AnswerType:
    """What type of answer a query gets."""
    ask = query.ask
    if isinstance(ask, Extreme) and ask.as_value:
        return AnswerType.NUMBER
    if isinstance(ask, Occupied) and ask.state is not None:
        return AnswerType.BOOLEAN
    return ask.answer_type


def value_unit(query: Query) -> str:
    """Unit of ``value`` in the answer, key of UNITS; '' where it has none or is a plain ratio."""
    ask = query.ask
    if isinstance(ask, Value):
        return unit_of(ask.of)
    if isinstance(ask, Extreme | Order) and answer_type(query) is AnswerType.NUMBER:
        return unit_of(ask.of[0])
    return ""


def terms(term: Term) -> Iterator[Term]:
    """A term and all that it is made of, outermost first."""
    yield term
    for field in fields(term):
        value = getattr(term, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Term) and not isinstance(part, Enum):
                yield from terms(part)


def points_of(query: Query) -> tuple[int, ...]:
    """Indices of the points that a query speaks of, in order, each once."""
    return tuple(dict.fromkeys(t.index for t in terms(query) if isinstance(t, Point)))


def boxes_of(query: Query) -> tuple[int, ...]:
    """Indices of its boxes, the same."""
    return tuple(dict.fromkeys(t.index for t in terms(query) if isinstance(t, Box)))


def times_of(query: Query) -> tuple[int, ...]:
    """Indices of its marked moments, the same."""
    return tuple(dict.fromkeys(t.index for t in terms(query) if isinstance(t, MarkedMoment)))
