"""Numbers as answers: alone, as mean or difference, against a limit, against each other, in order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spatial_mllm_ros.answering.context import Context, number_confidence, tolerance_words
from spatial_mllm_ros.answering.geometry.places import name_of
from spatial_mllm_ros.answering.measured import (
    Measured,
    chance_above,
    chance_of_order,
    chance_of_rank,
    joint,
    merged,
    together,
    unwrapped,
)
from spatial_mllm_ros.answering.measures import measure
from spatial_mllm_ros.answering.metres import POWER
from spatial_mllm_ros.answering.moments import label_of
from spatial_mllm_ros.language.canonical import Unspeakable, measure_words
from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.asks import Comparison
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.queries.measures import Measure
from spatial_mllm_ros.queries.moments import Moment
from spatial_mllm_ros.queries.operands import Box, Operand, Point
from spatial_mllm_ros.queries.query import terms
from spatial_mllm_ros.queries.term import Term
from spatial_mllm_ros.scene.uncertainty import Errors, propagate_scalar

_ABOUT = 0.1
"""About a value: within this share of it."""


def number(c: Context, measured: Measured) -> Answer:
    """A NUMBER."""
    value, stddev = propagate_scalar(unwrapped(measured).at, measured.stddevs)
    if measured.period:
        value = (value + measured.period / 2) % measured.period - measured.period / 2
    return Answer(
        answer=measured.words.format(c.in_words(value, stddev, measured.unit)),
        answer_type=AnswerType.NUMBER,
        value=value,
        stddev=stddev,
        unit=measured.unit,
        confidence=number_confidence(value, stddev, measured.unit),
        confidence_method=tolerance_words(measured.unit),
        source=AnswerSource.GEOMETRY,
        scale_source=measured.scale if measured.unit in POWER else ScaleSource.NONE,
        evidence=measured.evidence,
    )


def value(c: Context, ask: asks.Value) -> Answer:
    """The value of a measure."""
    return number(c, measure(c, ask.of))


def mean(c: Context, ask: asks.Mean) -> Answer:
    """The mean of several measures."""
    of = _all(c, ask.of)

    def at(e: Errors) -> float:
        return float(np.mean([m.at(e) for m in of]))

    each = ", ".join(_told(c, m) for m in of)
    return number(c, _of_several(of, at, of[0].unit, f"{{}} is the mean of {each}"))


def difference(c: Context, ask: asks.Difference) -> Answer:
    """By how much, or how many times, one measure exceeds another."""
    a, b = _all(c, (ask.a, ask.b))
    if ask.ratio:
        if abs(b.at({})) < 1e-12:
            raise QueryError(ErrorCode.ABSTAINED, f"{b.subject} is zero, so nothing is a multiple of it")
        words = f"{a.subject} is {{}} times {b.subject}: {_told(c, a)} and {_told(c, b)}"
        return _ratio(number(c, _of_several((a, b), lambda e: a.at(e) / b.at(e), "", words)), words)
    value = a.at({}) - b.at({})
    comparative = a.more if value >= 0 else a.less
    words = f"{{}}: {a.subject} is {comparative} than {b.subject}, {_told(c, a)} and {_told(c, b)}"
    whole = _of_several((a, b), lambda e: a.at(e) - b.at(e), a.unit, words)
    return number(c, replace(whole, period=a.period))


def _ratio(answer: Answer, words: str) -> Answer:
    """A ratio is a factor in words, not a percentage."""
    digits = max(0, 1 - math.floor(math.log10(answer.stddev))) if 0 < answer.stddev < 10 else 2
    return replace(answer, answer=words.format(f"{answer.value:.{min(digits, 4)}f}"))


def _of_several(of: Sequence[Measured], at: Any, unit: str, words: str) -> Measured:
    scale = next((m.scale for m in of if m.scale is not ScaleSource.NONE), ScaleSource.NONE)
    return Measured(
        at=at, stddevs=merged(*(m.stddevs for m in of)), unit=unit, evidence=together(of), scale=scale, words=words
    )


# ---- yes or no


def threshold(c: Context, ask: asks.Threshold) -> Answer:
    """Whether a measure is less or more than a value."""
    measured = measure(c, ask.of)
    value, stddev = _value(measured)
    limit = c.in_words(ask.value, math.nan, measured.unit)
    chance = chance_of(value, stddev, ask.comparison, ask.value, measured.unit)
    words = f"{measured.words.format(c.in_words(value, stddev, measured.unit))}; asked was {_COMPARED[ask.comparison]} {limit}"
    return c.boolean(chance, measured.evidence, words, words, "gaussian", measured.scale)


def within(c: Context, ask: asks.Within) -> Answer:
    """Whether a measure lies between two values."""
    measured = measure(c, ask.of)
    value, stddev = _value(measured)
    unit = measured.unit
    above = chance_of(value, stddev, Comparison.AT_LEAST, ask.low, unit)
    chance = max(above - chance_of(value, stddev, Comparison.MORE, ask.high, unit), 0.0)
    limits = f"{c.in_words(ask.low, math.nan, unit)} to {c.in_words(ask.high, math.nan, unit)}"
    words = f"{measured.words.format(c.in_words(value, stddev, unit))}; asked was {limits}"
    return c.boolean(chance, measured.evidence, words, words, "gaussian", measured.scale)


def compare(c: Context, ask: asks.Compare) -> Answer:
    """Whether one measure is less or more than another, times a factor, plus an offset."""
    a, b = _all(c, (ask.a, ask.b))
    values, covariance = joint((a, b))
    slopes = np.array([1.0, -ask.factor])
    difference = float(slopes @ values)
    stddev = float(np.sqrt(max(slopes @ covariance @ slopes, 0.0)))
    if ask.comparison is Comparison.ABOUT:
        limit = float(ask.factor * values[1] + ask.offset)
        reach = _ABOUT * abs(limit)
        chance = chance_above(difference, stddev, ask.offset - reach) - chance_above(
            difference, stddev, ask.offset + reach
        )
    else:
        chance = chance_of(difference, stddev, ask.comparison, ask.offset, a.unit if a.unit == "count" else "")
    words = f"{_told(c, a)} and {_told(c, b)}, a difference of {c.in_words(abs(float(values[0] - values[1])), stddev, a.unit)}"
    return c.boolean(chance, together((a, b)), words, words, "gaussian", a.scale)


_COMPARED = {
    Comparison.LESS: "less than",
    Comparison.MORE: "more than",
    Comparison.AT_MOST: "at most",
    Comparison.AT_LEAST: "at least",
    Comparison.ABOUT: "about",
}


def chance_of(value: float, stddev: float, comparison: Comparison, limit: float, unit: str = "") -> float:
    """Probability that a number compares so with a limit. Counts are whole, so that more than 3 is at least 4."""
    if comparison is Comparison.ABOUT:
        reach = _ABOUT * abs(limit)
        return chance_of(value, stddev, Comparison.AT_LEAST, limit - reach, unit) - chance_of(
            value, stddev, Comparison.MORE, limit + reach, unit
        )
    exact = not stddev > 0
    if comparison in (Comparison.LESS, Comparison.AT_MOST):
        other = Comparison.AT_LEAST if comparison is Comparison.LESS else Comparison.MORE
        return 1 - chance_of(value, stddev, other, limit, unit)
    if exact:
        return float(value > limit if comparison is Comparison.MORE else value >= limit)
    if unit == "count":
        limit = math.floor(limit) + 0.5 if comparison is Comparison.MORE else math.ceil(limit) - 0.5
    return chance_above(value, stddev, limit)


def _value(measured: Measured) -> tuple[float, float]:
    return propagate_scalar(unwrapped(measured).at, measured.stddevs)


# ---- choices


def extreme(c: Context, ask: asks.Extreme) -> Answer:
    """Which of several measures is the largest or smallest, or the n-th of them."""
    of = _all(c, ask.of)
    values, covariance = joint(of)
    order = np.argsort(values if ask.which is asks.Which.SMALLEST else -values, kind="stable")
    best = int(order[ask.rank - 1])
    if ask.as_value:
        return number(c, replace(of[best], words=f"{{}}: {of[best].subject}"))
    confidence = chance_of_rank(values, covariance, best)
    words = ", ".join(_told(c, m) for m in of)
    if len(of) == 2:
        apart = np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0))
        words += f", a difference of {c.in_words(abs(float(values[0] - values[1])), float(apart), of[0].unit)}"
    c.require_confidence(confidence, f"it is too close to call: {words}")
    return Answer(
        answer=f"{of[best].subject}: {words}",
        answer_type=AnswerType.CHOICE,
        choice_index=_index(ask.of, best),
        confidence=confidence,
        confidence_method="gaussian",
        source=AnswerSource.GEOMETRY,
        scale_source=of[best].scale if of[best].unit in POWER else ScaleSource.NONE,
        evidence=together(of),
    )


def order(c: Context, ask: asks.Order) -> Answer:
    """Several measures in order, each one's place as sure as it can be."""
    of = _all(c, ask.of)
    values, covariance = joint(of)
    rising = [int(i) for i in np.argsort(values, kind="stable")]
    return ordered(c, of, rising[::-1] if ask.descending else rising, chance_of_order(values, covariance, rising))


def ordered(c: Context, of: Sequence[Measured], indices: Sequence[int], confidence: float) -> Answer:
    """An ORDER. ABSTAINED where it is not sure enough."""
    words = ", ".join(_told(c, of[i]) for i in indices)
    c.require_confidence(confidence, f"some of them are too close to call: {words}")
    return Answer(
        answer=words,
        answer_type=AnswerType.ORDER,
        order=tuple(indices),
        confidence=confidence,
        confidence_method="gaussian",
        source=AnswerSource.GEOMETRY,
        scale_source=of[0].scale if of[0].unit in POWER else ScaleSource.NONE,
        evidence=together(of),
    )


# ---- what measures are of


def _all(c: Context, of: Sequence[Measure]) -> list[Measured]:
    """Several measures, each with what tells it from the others as its subject."""
    subjects = _subjects(of)
    return [replace(measure(c, m), subject=subject) for m, subject in zip(of, subjects, strict=True)]


def _subjects(of: Sequence[Measure]) -> list[str]:
    own = [_own(m, of) for m in of]
    names = [_name(parts[0]) if len(parts) == 1 else _said(m) for parts, m in zip(own, of, strict=True)]
    return names if len(set(names)) == len(names) else [_said(m) for m in of]


def _own(m: Measure, of: Sequence[Measure]) -> list[Term]:
    """What a measure speaks of and the others do not all."""
    kinds = (Operand, Moment)
    shared = set.intersection(*({t for t in terms(other) if isinstance(t, kinds)} for other in of))
    own = [t for t in terms(m) if isinstance(t, kinds) and t not in shared]
    inner = {part for t in own for part in terms(t) if part is not t}
    return [t for t in own if t not in inner]


def _name(term: Term) -> str:
    return label_of(term) if isinstance(term, Moment) else name_of(term) if isinstance(term, Operand) else "it"


def _said(m: Measure) -> str:
    try:
        return measure_words(m)
    except Unspeakable:
        return f"the {m.type_name.replace('_', ' ')}"


def _told(c: Context, m: Measured) -> str:
    """ "<p0> 3.9 m" """
    return f"{m.subject} {c.in_words(m.at({}), math.nan, m.unit)}"


def _index(of: Sequence[Measure], best: int) -> int:
    """Of the point or box that was picked, its number; of other things, the place among what was compared."""
    own = [_own(m, of) for m in of]
    marks = [parts[0] for parts in own if len(parts) == 1 and isinstance(parts[0], Point | Box)]
    if len(marks) == len(of) and len({type(mark) for mark in marks}) == 1:
        return int(marks[best].index)
    return best


def subjects(ask: asks.Extreme) -> list[str]:
    """What its measures are of, in words, in their order."""
    return _subjects(ask.of)
