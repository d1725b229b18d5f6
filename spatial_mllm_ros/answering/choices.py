"""From an answer to the one of the choices that says the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtr

from spatial_mllm_ros.answering import comparisons
from spatial_mllm_ros.answering.directions import direction_of
from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.codes import AnswerType, ErrorCode, QueryError
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.units import (
    ANGLE,
    AREA,
    COUNT,
    LENGTH,
    RATIO,
    SPEED,
    TIME,
    UNITS,
    VOLUME,
    convert,
    parse_measures,
)

_YES = {"yes", "true", "y", "correct", "right", "visible", "it is", "1"}
_NO = {"no", "false", "n", "incorrect", "wrong", "not visible", "hidden", "it is not", "0"}
_ORDINALS = (("first", "1st", "former"), ("second", "2nd", "latter"), ("third", "3rd"), ("fourth", "4th"))


def choose(answer: Answer, request: Request, query: Query, min_confidence: float) -> Answer:
    """The answer as a CHOICE among ``request.choices``; unchanged when there are none or it is one already.

    Raises QueryError: INVALID_REQUEST for choices that do not fit the question, ABSTAINED when two are equally good.
    """
    if answer.answer_type == AnswerType.CHOICE:
        if isinstance(query.ask, asks.Extreme):
            return _thing_choice(answer, request, comparisons.subjects(query.ask))
        if isinstance(query.ask, asks.Side):
            return _side_choice(answer, request, query.ask)
        return answer
    if not request.choices:
        return answer
    if answer.answer_type == AnswerType.BOOLEAN:
        return _yes_or_no(answer, request.choices)
    if answer.answer_type == AnswerType.NUMBER:
        return _number_choice(answer, request, min_confidence)
    if answer.answer_type == AnswerType.VECTOR and answer.pose.frame_id == "":
        return _extent_choice(answer, request.choices, min_confidence)
    raise _unfit(request.choices, "name what the question asks for")


def _thing_choice(answer: Answer, request: Request, subjects: Sequence[str]) -> Answer:
    """``choice_index`` of a comparison names what was compared; make it an index into the choices."""
    if not request.choices:
        return answer
    picked = answer.answer.split(": ", 1)[0]
    named = [_thing_named(choice, subjects) for choice in request.choices]
    if picked not in named or len(set(named)) < len(named):
        raise _unfit(request.choices, f"name what is compared: {', '.join(subjects)}")
    return replace(answer, choice_index=named.index(picked))


def _thing_named(choice: str, subjects: Sequence[str]) -> str | None:
    """The one of ``subjects`` that a choice names: as it is, by its mark, or by its place among them."""
    text = choice.strip().lower()
    if text in subjects:
        return text
    marks = {f"<{kind}{number}>" for kind, number in re.findall(r"\b(p|box|t)\s*(\d+)\b", text)}
    fitting = [s for s in subjects if marks & set(re.findall(r"<\w+>", s))]
    if len(marks) == 1 and len(fitting) == 1:
        return fitting[0]
    for words, subject in zip(_ORDINALS, subjects, strict=False):
        if any(re.search(rf"\b{word}\b", text) for word in words):
            return subject
    return None


def _side_choice(answer: Answer, request: Request, ask: asks.Side) -> Answer:
    """``choice_index`` of a side names one of the relations; make it an index into the choices."""
    if not request.choices:
        return answer
    meant = {tuple(d) for d in [direction_of(ask.options[answer.choice_index].value)] if d is not None}
    named = [direction_of(choice) for choice in request.choices]
    fitting = [i for i, d in enumerate(named) if d is not None and tuple(d) in meant]
    if len(fitting) != 1:
        raise _unfit(request.choices, "name the sides that are asked about, such as left and right")
    return replace(answer, choice_index=fitting[0])


def _yes_or_no(answer: Answer, choices: Sequence[str]) -> Answer:
    words = [re.sub(r"[^\w ]", "", choice.strip().lower()) for choice in choices]
    wanted = _YES if answer.value else _NO
    fitting = [
        i for i, w in enumerate(words) if w in wanted or w.split(" ")[0] in wanted & {"yes", "no", "true", "false"}
    ]
    if len(fitting) != 1:
        raise _unfit(choices, "be yes and no")
    return replace(answer, answer_type=AnswerType.CHOICE, choice_index=fitting[0], value=float("nan"))


def _number_choice(answer: Answer, request: Request, min_confidence: float) -> Answer:
    if answer.unit == "s" and all(re.fullmatch(r"\s*<t\d+>\s*", choice) for choice in request.choices):
        return _moment_choice(answer, request)
    kind = UNITS[answer.unit].kind
    values = []
    for choice in request.choices:
        measures = [m for m in parse_measures(choice) if m[1] in (kind, "")]
        if not measures:
            raise _unfit(request.choices, f"be {_KIND_WORDS[kind]}")
        # "between 1 m and 2 m" means its middle
        in_base = [v if k else convert(v, answer.unit, _BASE[kind]) for v, k in measures]
        values.append(float(np.mean(in_base)))
    return _nearest(answer, np.array(values), convert(answer.value, answer.unit, _BASE[kind]),
                    convert(answer.stddev, answer.unit, _BASE[kind]), request.choices, min_confidence)  # fmt: skip


def _moment_choice(answer: Answer, request: Request) -> Answer:
    stamps = []
    for choice in request.choices:
        index = int(re.findall(r"\d+", choice)[0])
        if index >= len(request.times):
            raise QueryError(ErrorCode.INVALID_REQUEST, f"choice {choice} names a moment that was not given")
        stamps.append(request.times[index])
    found = answer.evidence[-1].stamp_ns
    nearest = int(np.argmin([abs(s - found) for s in stamps]))
    return replace(answer, answer_type=AnswerType.CHOICE, choice_index=nearest)


def _extent_choice(answer: Answer, choices: Sequence[str], min_confidence: float) -> Answer:
    """Sizes such as "0.5 x 1.0 m": compared side by side, longest first."""
    sides = sorted(answer.pose.position, reverse=True)
    distances = []
    for choice in choices:
        given = sorted((v for v, k in parse_measures(choice) if k in (LENGTH, "")), reverse=True)
        if not given:
            raise _unfit(choices, "be sizes, such as 0.5 x 1.0 m")
        compared = sides[: len(given)]
        distances.append(float(np.abs(np.log(np.array(given[: len(compared)]) / np.array(compared))).mean()))
    order = np.argsort(distances)
    index = int(order[0])
    confidence = float(ndtr((distances[order[1]] - distances[order[0]]) / 0.1)) if len(order) > 1 else 0.5
    if confidence < min_confidence:
        raise QueryError(ErrorCode.ABSTAINED, f"two of the choices fit equally well: {answer.answer}")
    return replace(answer, answer_type=AnswerType.CHOICE, choice_index=index, confidence=confidence)


def _nearest(
    answer: Answer, values: np.ndarray, value: float, stddev: float, choices: Sequence[str], min_confidence: float
) -> Answer:
    order = np.argsort(np.abs(values - value), kind="stable")
    index = int(order[0])
    confidence = 1.0
    if len(order) > 1 and stddev > 0:
        halfway = (values[order[0]] + values[order[1]]) / 2
        confidence = float(ndtr(abs(halfway - value) / stddev))
    if confidence < min_confidence:
        raise QueryError(ErrorCode.ABSTAINED, f"{answer.answer}: too close to call between two of the choices")
    return replace(
        answer,
        answer=f"{choices[index]} (measured: {answer.answer})",
        answer_type=AnswerType.CHOICE,
        choice_index=index,
        confidence=confidence,
        confidence_method="gaussian",
    )


_BASE = {
    LENGTH: "m", AREA: "m2", VOLUME: "m3", ANGLE: "rad", TIME: "s", SPEED: "m/s", RATIO: "", COUNT: "count"
}  # fmt: skip
_KIND_WORDS = {
    LENGTH: "lengths", AREA: "areas", VOLUME: "volumes", ANGLE: "angles", TIME: "times", SPEED: "speeds",
    RATIO: "shares, such as 40 %", COUNT: "numbers",
}  # fmt: skip


def _unfit(choices: Sequence[str], should: str) -> QueryError:
    return QueryError(
        ErrorCode.INVALID_REQUEST, f"the choices must {should}; given were {', '.join(map(repr, choices))[:300]}"
    )
