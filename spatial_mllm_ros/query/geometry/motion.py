"""How the camera moved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.queries.answer import Answer, Evidence
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.query.context import Context
from spatial_mllm_ros.query.directions import describe_motion
from spatial_mllm_ros.query.geometry.bearing import direction_answer
from spatial_mllm_ros.scene.pose import invert, rotation_angle
from spatial_mllm_ros.scene.uncertainty import Errors, propagate, propagate_scalar

_SHORTEST_STEP = 4  # deviations of a position


def displacement(c: Context) -> Answer:
    """Straight distance between the camera's positions at two moments."""
    start, end = _interval(c)
    a, b = c.camera_at(start), c.camera_at(end)
    value, stddev = propagate_scalar(
        lambda e: float(np.linalg.norm(b.pose(e)[:3, 3] - a.pose(e)[:3, 3])),
        {**a.stddevs(depth=False), **b.stddevs(depth=False)},
    )
    return c.number(value, stddev, "m", _ends(c, start, end), scale=ScaleSource.TF)


def turned(c: Context) -> Answer:
    """Angle of the rotation between the camera's orientations at two moments, 0 to 180 degrees."""
    start, end = _interval(c)
    a, b = c.camera_at(start), c.camera_at(end)
    value, stddev = propagate_scalar(
        lambda e: np.degrees(rotation_angle(invert(a.pose(e)) @ b.pose(e))),
        {**a.stddevs(depth=False), **b.stddevs(depth=False)},
    )
    return c.number(value, stddev, "deg", _ends(c, start, end))


def path(c: Context) -> Answer:
    """Length of the camera's path between two moments, or over all that was seen.

    Noise makes a path look longer: each step d of noisy positions is too long by about 2 s^2 / d, s being the noise on
    an axis (the two directions across the step, to second order, for two noisy ends). Steps are therefore taken no
    shorter than 4 s, and that excess is taken off. To first order the noise of an inner vertex counts only as far as
    the path bends there, |u' - u| for directions u; the two ends count whole.
    """
    start, end = _interval(c, whole=True)
    stamps, poses = c.track.arrays(start, end)
    if len(stamps) < 2:
        raise QueryError(ErrorCode.NO_FRAMES, "a path needs at least two poses within the interval")
    noise = c.sensor.pose_position_m
    steps = _steps(poses[:, :3], _SHORTEST_STEP * noise)
    lengths = np.linalg.norm(steps, axis=1)
    excess = float(np.sum(2 * noise**2 / np.maximum(lengths, _SHORTEST_STEP * noise)))
    value = max(float(lengths.sum()) - excess, 0.0)
    bends = np.diff(steps / lengths[:, None], axis=0)
    stddev = float(np.sqrt(noise**2 * (2 + np.sum(bends**2)) + (0.15 * excess) ** 2))
    return c.number(value, stddev, "m", _ends(c, int(stamps[0]), int(stamps[-1])), scale=ScaleSource.TF)


def moved_direction(c: Context) -> Answer:
    """Direction of the camera's displacement, in the camera's axes at the first moment."""
    start, end = _interval(c)
    a, b = c.camera_at(start), c.camera_at(end)

    def moved(e: Errors) -> NDArray[np.float64]:
        A = a.pose(e)
        return A[:3, :3].T @ (b.pose(e)[:3, 3] - A[:3, 3])

    value, covariance = propagate(moved, {**a.stddevs(depth=False), **b.stddevs(depth=False)})
    length = float(np.linalg.norm(value))
    along = value / max(length, 1e-12)
    stddev = float(np.sqrt(along @ covariance @ along))
    if length < 3 * stddev:
        raise QueryError(
            ErrorCode.ABSTAINED,
            f"the camera hardly moved: {c.in_words(length, stddev, 'm')}, too little for a direction",
        )
    world = b.T_world_camera[:3, 3] - a.T_world_camera[:3, 3]
    words = f"{describe_motion(value)}, {c.in_words(length, stddev, 'm')}"
    return direction_answer(c, value, covariance, words, world, (length, stddev), start, _ends(c, start, end))


def camera_height(c: Context) -> Answer:
    """Height of the camera above the floor, at a moment or now."""
    level = c.level_with_floor()
    stamp = c.moment(0) if c.parsed.times else c.present
    camera = c.camera_at(stamp)
    T = level.T_zup_from_world
    value = float(T[2, :3] @ camera.T_world_camera[:3, 3] + T[2, 3])
    assert level.floor_stddev_m is not None
    stddev = float(np.hypot(level.floor_stddev_m, c.sensor.pose_position_m))
    return c.number(value, stddev, "m", c.moment_evidence(stamp, "camera"), "{} above the floor", ScaleSource.TF)


def camera_position(c: Context) -> Answer:
    """Pose of the camera at a moment or now."""
    stamp = c.moment(0) if c.parsed.times else c.present
    camera = c.camera_at(stamp)
    pose = c.pose(camera.T_world_camera, stamp)
    x, y, z = pose.position
    return Answer(
        answer=f"at ({x:.2f}, {y:.2f}, {z:.2f}) m in {pose.frame_id}",
        answer_type=AnswerType.POSE,
        stddev=c.sensor.pose_position_m,
        unit="m",
        pose=pose,
        confidence=1.0,
        confidence_method="pose as received",
        source=AnswerSource.GEOMETRY,
        scale_source=ScaleSource.TF,
        evidence=c.moment_evidence(stamp, "camera"),
    )


def elapsed(c: Context) -> Answer:
    """Time between two moments."""
    start, end = _interval(c)
    return c.number((end - start) / 1e9, 0.0, "s", _ends(c, start, end))


def _interval(c: Context, whole: bool = False) -> tuple[int, int]:
    """Start and end (ns) of what is asked: two moments, one until now, from the start, or everything."""
    times = [c.moment(i) for i in range(len(c.parsed.times))]
    if len(times) >= 2:
        return times[0], times[1]
    if len(times) == 1:
        return (c.start, times[0]) if c.parsed.from_start else (times[0], c.present)
    return c.start, c.present if "now" in c.request.question.lower().split() else c.now


def _ends(c: Context, start: int, end: int) -> tuple[Evidence, ...]:
    return (*c.moment_evidence(start, "start"), *c.moment_evidence(end, "end"))


def _steps(positions: NDArray[np.float64], shortest: float) -> NDArray[np.float64]:
    """Steps [m, 3] between successive positions [n, 3] that lie at least ``shortest`` apart; the last one is the rest."""
    steps = []
    last = positions[0]
    for position in positions[1:]:
        step = position - last
        if np.linalg.norm(step) >= max(shortest, 1e-9):
            steps.append(step)
            last = position
    rest = positions[-1] - last
    length = float(np.linalg.norm(rest))
    if length > 0 and (steps or length > shortest / 2):
        steps.append(rest)
    return np.array(steps).reshape(-1, 3)
