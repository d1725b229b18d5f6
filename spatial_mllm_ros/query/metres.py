"""What the scale of estimated geometry means for answers.

Geometry measured by a depth camera is in metres. Geometry estimated from colour has one scale for everything, which is
known with a deviation, or not at all: then lengths cannot be told, while ratios, directions, angles and visibility can.
"""

from __future__ import annotations

import math
from dataclasses import replace

from spatial_mllm_ros.queries.answer import NAN, Answer
from spatial_mllm_ros.queries.codes import AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.scene.metric_scale import MetricScale

NEEDS_METRES = frozenset(
    {
        *("depth", "range", "range_at", "distance", "horizontal_distance", "height", "height_difference"),
        *("displacement", "path", "camera_height", "camera_position"),
        *("size", "size_height", "size_width", "size_length"),
        *("extent", "extent_length", "extent_width", "extent_height", "floor_area", "ceiling"),
        *("unseen", "unseen_where"),  # they look so many metres around
    }
)
"""Question families that have no answer without a scale."""

POWER = {"m": 1, "m2": 2}
"""How the units that a scale concerns grow with it."""


def require_metres(scale: MetricScale | None, family: str) -> None:
    """SCALE_UNAVAILABLE for a family that needs metres where there are none."""
    if scale is not None and not scale.known and family in NEEDS_METRES:
        raise QueryError(
            ErrorCode.SCALE_UNAVAILABLE, f"the geometry is known up to its scale only, so not in metres: {scale.reason}"
        )


def widened(scale: MetricScale | None, value: float, stddev: float, unit: str) -> float:
    """The deviation of a value when the scale's is added (first order: an area is off by twice as much)."""
    power = POWER.get(unit, 0)
    if scale is None or not scale.known or not power:
        return stddev
    return math.hypot(stddev, power * value * scale.stddev)


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
