"""Who answers a question, and what becomes of an answer that geometry and a model both give.

Geometry measures; a model judges by eye. So geometry's answer is never changed by a model's, and is never lost because of
one: the model confirms or doubts it, which its confidence then shows. Where geometry cannot tell although it reads the
question, a model may answer alone. What geometry knows not to have been seen is not asked of a model at all: it would
answer nevertheless.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

from spatial_mllm_ros.queries import asks, moments, operands
from spatial_mllm_ros.queries import measures as q
from spatial_mllm_ros.queries.answer import Answer, Evidence, Request
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode
from spatial_mllm_ros.queries.query import Query, boxes_of, points_of, terms, times_of
from spatial_mllm_ros.queries.units import LENGTH, UNITS, convert, parse_measures

GEOMETRY_CANNOT_TELL = frozenset({ErrorCode.ABSTAINED, ErrorCode.SCALE_UNAVAILABLE, ErrorCode.NOT_AVAILABLE})
"""Refusals of geometry after which a model may be asked; all others are the answer."""

MARK = re.compile(r"<\s*(?P<kind>p|box|t)\s*(?P<index>\d{1,9})\s*>", re.IGNORECASE)
"""<p0>, <box0> or <t0> in words."""

BEYOND_A_MODEL = (
    asks.Locate, asks.Unseen, asks.Moving, asks.Pixel, asks.SurfaceNormal, asks.Visible, asks.Seen, asks.AppearanceOrder,
    asks.Visited, asks.Changed, asks.Reachable, asks.LineOfSight, asks.Fits, asks.Route, asks.FreePlace, asks.Occupied,
    q.Clearance, q.RouteLength, q.PassageWidth,
    q.UnseenFraction, q.Elapsed, q.Count, q.SeenCount, q.SeenTime, q.SeenDistance, q.Heading, q.Speed, q.MeanSpeed,
    q.TimeSpent, moments.MarkedMoment, moments.MarkMoment, moments.Stamp, moments.ClockTime, moments.Ago,
    moments.AfterStart, operands.Point, operands.Box, operands.Robot, operands.Origin, operands.Position,
)  # fmt: skip
"""What images alone do not tell: marks, moments, places in the fixed frame, stamps, and what no image shows."""

SPREAD = 0.2
GUESSES = math.log(4.0)
"""A model's number is off by a normal error of the logarithm with this deviation when it is not a guess, and within a
factor of two either way when it is. With two guesses in five answers or more (model_trust 0.4) this gives a mean relative
accuracy of 0.53 and, of four choices, 0.55 right: about what Spatial-MLLM v1.1 reports on VSI-Bench (0.53 and 0.49 to
0.52, at https://github.com/diankun-wu/Spatial-MLLM)."""


def is_marked(request: Request, query: Query | None) -> bool:
    """Whether the question is about marked points, boxes or moments, which a model cannot see.

    Marks that come with a question that is not understood are taken to be what it is about.
    """
    if query is None:
        if request.points or request.boxes or request.times:
            return True
    elif points_of(query) or boxes_of(query) or times_of(query):
        return True
    return any(MARK.search(text) for text in (request.question, *request.choices))


def is_for_a_model(request: Request, query: Query | None) -> bool:
    """Whether a model could answer, alone or beside geometry."""
    if is_marked(request, query):
        return False
    return query is None or not any(isinstance(term, BEYOND_A_MODEL) for term in terms(query))


def both(geometry: Answer, model: Answer, asked_unit: str, trust: float, choices: int = 0) -> Answer | None:
    """Geometry's answer with a model's beside it: its words, its frames, and what that does to the confidence.

    asked_unit: unit (key of UNITS) that the question asks for, '' for none; a bare number of the model is taken to be in
    it. trust: see ``QueryConfig.model_trust``. choices: how many there were. None where the two do not compare.

    The two are independent witnesses: with p the confidence of geometry and L how much likelier the model's answer is
    when geometry is right than when it is wrong, the odds p / (1 - p) are multiplied by L (Bayes' rule).
    """
    likelihood = _likelihood_ratio(geometry, model, asked_unit, trust, choices)
    if likelihood is None:
        return None
    p = geometry.confidence
    confidence = min(p * likelihood / (p * likelihood + 1 - p), 1.0)
    word = "agreement" if likelihood >= 1 else "disagreement"
    return replace(
        geometry,
        answer=f"{geometry.answer}; the model says {in_one_line(model.answer)}",
        confidence=confidence,
        confidence_method=f"{geometry.confidence_method} x {word} with the model",
        source=AnswerSource.BOTH,
        evidence=_together(geometry.evidence, model.evidence),
        time_queued=model.time_queued,
        time_selecting=model.time_selecting,
        time_encoding=model.time_encoding,
        model_id=model.model_id,
    )


def unchecked(geometry: Answer, because: str) -> Answer:
    """Geometry's answer, with the reason why no model was heard about it."""
    return replace(
        geometry, confidence_method=f"{geometry.confidence_method}; not compared with the model: {in_one_line(because)}"
    )


def in_one_line(text: str, at_most: int = 200) -> str:
    """``text`` without line breaks and cut to ``at_most`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= at_most else text[: at_most - 1].rstrip() + "…"


def _likelihood_ratio(geometry: Answer, model: Answer, asked_unit: str, trust: float, choices: int) -> float | None:
    weight = min(trust * model.confidence, 0.95)  # share of its answers that are no guesses
    if geometry.answer_type in (AnswerType.CHOICE, AnswerType.BOOLEAN):
        if model.answer_type != geometry.answer_type:
            return None
        boolean = geometry.answer_type == AnswerType.BOOLEAN
        n = 2 if boolean else max(choices, 2)
        same = model.value == geometry.value if boolean else model.choice_index == geometry.choice_index
        said = weight + (1 - weight) / n
        of_geometry = said if same else (1 - said) / (n - 1)  # the model's probability of what geometry says
        return of_geometry * (n - 1) / (1 - of_geometry)
    apart = _apart(geometry, model, asked_unit)
    if apart is None:
        return None
    off, doubt = apart
    spread = math.hypot(SPREAD, doubt)
    normal = math.exp(-0.5 * (off / spread) ** 2) / (spread * math.sqrt(2 * math.pi))
    return 1 - weight + weight * normal * GUESSES


def _apart(geometry: Answer, model: Answer, asked_unit: str) -> tuple[float, float] | None:
    """How far two measures are apart (difference of logarithms), and the relative deviation of geometry's."""
    if geometry.answer_type == AnswerType.VECTOR and geometry.unit == "m" and geometry.pose.frame_id == "":
        sides = sorted(geometry.pose.position, reverse=True)
        bare = asked_unit if asked_unit and UNITS[asked_unit].kind == LENGTH else "m"
        measures = [m for m in parse_measures(model.answer) if m[1] in (LENGTH, "")]
        given = sorted((v if kind else convert(v, bare, "m") for v, kind in measures), reverse=True)
        if not 2 <= len(given) <= len(sides) or min(*given, *sides) <= 0:
            return None
        offs = [abs(math.log(a / b)) for a, b in zip(given, sides, strict=False)]
        return sum(offs) / len(offs), geometry.stddev / geometry.value
    if geometry.answer_type != AnswerType.NUMBER or model.answer_type != AnswerType.NUMBER:
        return None
    here, kind = geometry.unit, UNITS[geometry.unit].kind if geometry.unit in UNITS else None
    unit = model.unit or (asked_unit if asked_unit and UNITS[asked_unit].kind == kind else here)
    if unit != here and (kind is None or unit not in UNITS or UNITS[unit].kind != kind):
        return None
    value = convert(model.value, unit, here) if unit != here else model.value
    if not (math.isfinite(value) and math.isfinite(geometry.value)):
        return None
    doubt = geometry.stddev / abs(geometry.value) if geometry.stddev > 0 and geometry.value else 0.0
    if geometry.value * value <= 0:
        return (0.0 if geometry.value == value else math.inf), 0.0
    return abs(math.log(value / geometry.value)), doubt


def _together(geometry: tuple[Evidence, ...], model: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """Evidence of both, each frame as a whole once."""
    shown = {(e.kind, e.keyframe_id) for e in geometry}
    return (*geometry, *(e for e in model if (e.kind, e.keyframe_id) not in shown))
