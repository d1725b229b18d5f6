"""In which direction something lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.answering.directions import describe_bearing, direction_of, pick_direction
from spatial_mllm_ros.answering.geometry.places import place_of, viewer_of
from spatial_mllm_ros.answering.measured import merged
from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries.answer import Answer, Evidence
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.scene.uncertainty import propagate


def direction(c: Context, ask: asks.Direction) -> Answer:
    """Direction of a thing from a viewpoint: front, left, back, right seen from above."""
    place = place_of(c, ask.of)
    viewer = viewer_of(c, ask.viewpoint.at, ask.viewpoint.facing, ask.of)
    value, covariance = propagate(viewer.sees(place), merged(place.stddevs, viewer.stddevs))
    world = place.at({}) - viewer.at({})
    length = float(np.linalg.norm(world))
    along = value / max(length, 1e-12)
    stddev = float(np.sqrt(along @ covariance @ along))
    if not _vertical(c.request.choices) and np.hypot(value[0], value[2]) < 3 * np.sqrt(np.trace(covariance)):
        raise QueryError(
            ErrorCode.ABSTAINED, f"it lies straight above or below {viewer.name}: no direction seen from above"
        )
    words = f"{describe_bearing(value[0], value[2])}, {c.in_words(length, stddev, 'm')}"
    evidence = (*place.evidence, *viewer.evidence)
    return direction_answer(
        c, value, covariance, words, world, (length, stddev), viewer.stamp_ns, evidence, place.scale
    )


def direction_answer(
    c: Context,
    vector: NDArray[np.float64],
    covariance: NDArray[np.float64],
    words: str,
    world: NDArray[np.float64],
    length: tuple[float, float],
    stamp_ns: int,
    evidence: tuple[Evidence, ...],
    scale: ScaleSource,
) -> Answer:
    """A direction as one of the choices, or as a VECTOR.

    vector, covariance: right, down, forward in metres. world: the same displacement in the fixed frame. length: metres
    with its deviation.
    """
    common: dict[str, Any] = {
        "source": AnswerSource.GEOMETRY,
        "scale_source": scale,
        "evidence": evidence,
        "confidence_method": "gaussian",
        "value": length[0],
        "stddev": length[1],
        "unit": "m",
        "pose": c.vector(world, stamp_ns),
    }
    if not c.request.choices:
        return Answer(answer=words, answer_type=AnswerType.VECTOR, confidence=1.0, **common)
    picked = pick_direction(vector, covariance, c.request.choices)
    if picked is None:
        raise QueryError(
            ErrorCode.INVALID_REQUEST,
            "the choices of a question for a direction must name directions, such as front-left, behind, up or forward",
        )
    index, confidence = picked
    c.require_confidence(confidence, f"it is too close to call between two of the choices: {words}")
    return Answer(
        answer=f"{c.request.choices[index]} (measured: {words})",
        answer_type=AnswerType.CHOICE,
        choice_index=index,
        confidence=confidence,
        **common,
    )


def _vertical(choices: tuple[str, ...]) -> bool:
    named = [direction_of(choice) for choice in choices]
    return any(n is not None and abs(n[1]) > 0 for n in named)
