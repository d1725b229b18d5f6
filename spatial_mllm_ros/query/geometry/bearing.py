"""In which direction something lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.queries.answer import Answer, Evidence
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.query.context import Context
from spatial_mllm_ros.query.directions import describe_bearing, direction_of, pick_direction
from spatial_mllm_ros.scene.level import Level
from spatial_mllm_ros.scene.measure import CameraErrors
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.uncertainty import Errors, propagate


def direction(c: Context) -> Answer:
    """Direction of a point from the camera at a moment or now: front, left, back, right seen from above."""
    point, stored = c.point(0)
    stamp = c.moment(0) if c.parsed.times else c.present
    label = f"<t{c.parsed.times[0]}>" if c.parsed.times else "now"
    camera = c.camera_at(stamp, label)
    level = c.level()

    def seen(e: Errors) -> NDArray[np.float64]:
        T = camera.pose(e)
        return heading_axes(level, T) @ (point.world_point(e) - T[:3, 3])

    value, covariance = propagate(seen, {**point.stddevs(), **camera.stddevs(depth=False)})
    world = point.world_point({}) - camera.T_world_camera[:3, 3]
    length = float(np.linalg.norm(world))
    along = value / max(length, 1e-12)
    stddev = float(np.sqrt(along @ covariance @ along))
    if not _vertical(c.request.choices) and np.hypot(value[0], value[2]) < 3 * np.sqrt(np.trace(covariance)):
        raise QueryError(
            ErrorCode.ABSTAINED, "it lies straight above or below the camera: no direction seen from above"
        )
    words = f"{describe_bearing(value[0], value[2])}, {c.in_words(length, stddev, 'm')}"
    evidence = (c.point_evidence(0, stored), *c.moment_evidence(stamp, label))
    return direction_answer(c, value, covariance, words, world, (length, stddev), stamp, evidence)


def direction_answer(
    c: Context,
    vector: NDArray[np.float64],
    covariance: NDArray[np.float64],
    words: str,
    world: NDArray[np.float64],
    length: tuple[float, float],
    stamp_ns: int,
    evidence: tuple[Evidence, ...],
) -> Answer:
    """A direction as one of the choices, or as a VECTOR.

    vector, covariance: right, down, forward in metres. world: the same displacement in the fixed frame. length: metres
    with its deviation.
    """
    common: dict[str, Any] = {
        "source": AnswerSource.GEOMETRY,
        "scale_source": ScaleSource.DEPTH if c.parsed.points else ScaleSource.TF,
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


def heading_axes(level: Level, T_world_camera: Transform) -> NDArray[np.float64]:
    """Rows right, down, forward (3x3, world to them) of somebody who stands upright and looks where the camera looks."""
    R = T_world_camera[:3, :3]
    if level.assumed:  # nothing tells which way is up: the camera is taken to be held level
        return R.T
    up = level.T_zup_from_world[2, :3]
    forward = R[:, 2] - (R[:, 2] @ up) * up
    if np.linalg.norm(forward) < 0.17:  # looking within 10 degrees of straight up or down: the image's top says forward
        top = -R[:, 1] * np.sign(-R[:, 2] @ up or 1.0)
        forward = top - (top @ up) * up
    forward /= np.linalg.norm(forward)
    return np.stack([np.cross(forward, up), -up, forward])


def bearing_words(level: Level, camera: CameraErrors, world_point: NDArray[np.float64]) -> str:
    """Where a world point lies from a camera, in words: "front-left"."""
    v = heading_axes(level, camera.T_world_camera) @ (world_point - camera.T_world_camera[:3, 3])
    return describe_bearing(float(v[0]), float(v[2]))


def _vertical(choices: tuple[str, ...]) -> bool:
    named = [direction_of(choice) for choice in choices]
    return any(n is not None and abs(n[1]) > 0 for n in named)
