"""What the scale of estimated geometry means for answers.

Geometry measured by a depth camera is in metres. Geometry estimated from color has one scale for everything, which is
known with a deviation, or not at all: then lengths cannot be told, while ratios, directions, angles and visibility can.
"""

from __future__ import annotations

import math
from dataclasses import replace

from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries import measures as q
from spatial_mllm_ros.queries.answer import NAN, Answer
from spatial_mllm_ros.queries.codes import AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.queries.measures import unit_of
from spatial_mllm_ros.queries.operands import Where
from spatial_mllm_ros.queries.query import Query, terms
from spatial_mllm_ros.scene.metric_scale import MetricScale

POWER = {"m": 1, "m2": 2, "m3": 3, "m/s": 1}
"""How the units that a scale concerns grow with it."""

_IN_METRES = {Where.ON, Where.NEXT_TO, Where.SAME_SURFACE, Where.INSIDE}
"""Relations that mean so and so many metres."""


def needs_metres(query: Query) -> bool:
    """Whether a query has no answer without a scale: a length, or what is decided by one."""
    ask = query.ask
    if isinstance(ask, asks.Locate | asks.Dimensions | asks.Unseen | asks.Moving):  # Unseen looks so many metres around
        return True
    if isinstance(ask, asks.Relation):
        return ask.where in _IN_METRES
    if isinstance(ask, asks.Side):
        return not _IN_METRES.isdisjoint(ask.options)
    if isinstance(ask, asks.Compare):
        lengths = ask.offset != 0
    else:
        ratio = isinstance(ask, asks.Difference) and ask.ratio
        lengths = not (isinstance(ask, asks.Order) or (isinstance(ask, asks.Extreme) and not ask.as_value) or ratio)
    measures = [term for term in terms(query) if isinstance(term, q.Measure)]
    if any(isinstance(m, q.UnseenFraction | q.TimeSpent) for m in measures):
        return True
    return lengths and any(unit_of(m) in POWER for m in measures)


def require_metres(scale: MetricScale | None, query: Query) -> None:
    """SCALE_UNAVAILABLE for a query that needs metres where there are none."""
    if scale is not None and not scale.known and needs_metres(query):
        raise QueryError(
            ErrorCode.SCALE_UNAVAILABLE, f"the geometry is known up to its scale only, so not in metres: {scale.reason}"
        )


def widened(scale: MetricScale, value: float, stddev: float, unit: str) -> float:
    """The deviation of a value when the scale's is added (first order: an area is off by twice as much)."""
    power = POWER.get(unit, 0)
    return math.hypot(stddev, power * value * scale.stddev) if power else stddev


def in_metres(answer: Answer, scale: MetricScale | None) -> Answer:
    """An answer with where its metres come from, and with the scale's deviation (NUMBERs have it already)."""
    if scale is None or not scale.known:
        return answer
    source = ScaleSource[scale.source.name] if answer.scale_source != ScaleSource.NONE else ScaleSource.NONE
    stddev = answer.stddev
    if answer.answer_type == AnswerType.POSE:
        stddev = widened(scale, math.hypot(*answer.pose.position), stddev, answer.unit)
    elif answer.answer_type != AnswerType.NUMBER:
        stddev = widened(scale, answer.value, stddev, answer.unit)
    return replace(answer, scale_source=source, stddev=stddev)


def without_metres(answer: Answer, scale: MetricScale | None) -> Answer:
    """What is left of an answer where there are no metres: no length, and a direction of length one."""
    if scale is None or scale.known:
        return answer
    if answer.unit not in POWER:
        return replace(answer, scale_source=ScaleSource.NONE)
    x, y, z = answer.pose.position
    length = math.hypot(x, y, z)
    if length > 0:
        x, y, z = x / length, y / length, z / length
    pose = replace(answer.pose, position=(x, y, z))
    return replace(answer, value=NAN, stddev=NAN, unit="", pose=pose, scale_source=ScaleSource.NONE)
