"""Depth, distance and height of marked points, and comparisons of two."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ScaleSource
from spatial_mllm_ros.query.context import Context
from spatial_mllm_ros.scene.level import Level
from spatial_mllm_ros.scene.measure import CameraErrors, PointMeasurement
from spatial_mllm_ros.scene.uncertainty import Errors, propagate_scalar


def depth(c: Context) -> Answer:
    """z of a point in the image that it was marked in, or in the camera's frame at a moment."""
    point, stored = c.point(0)
    evidence = [c.point_evidence(0, stored)]
    if c.parsed.times:
        viewer = c.camera_in_role(0)
        evidence += c.moment_evidence(c.moment(0), f"<t{c.parsed.times[0]}>")
        value, stddev = propagate_scalar(
            lambda e: float(_seen_from(viewer, point, e)[2]), {**point.stddevs(), **viewer.stddevs(depth=False)}
        )
    else:
        value, stddev = propagate_scalar(point.depth, point.stddevs())
    return c.number(value, stddev, "m", tuple(evidence), "{}" + _edge_note(point))


def distance_from_camera(c: Context) -> Answer:
    """Length of the ray from the camera to a point: the camera that saw it, or at a moment, or now."""
    point, stored = c.point(0)
    evidence = [c.point_evidence(0, stored)]
    viewer = _viewer(c)
    if viewer is None:
        value, stddev = propagate_scalar(lambda e: float(np.linalg.norm(point.camera_point(e))), point.stddevs())
    else:
        camera, stamp, label = viewer
        evidence += c.moment_evidence(stamp, label)
        value, stddev = propagate_scalar(
            lambda e: float(np.linalg.norm(point.world_point(e) - camera.pose(e)[:3, 3])),
            {**point.stddevs(), **camera.stddevs(depth=False)},
        )
    return c.number(value, stddev, "m", tuple(evidence), "{}" + _edge_note(point))


def distance(c: Context) -> Answer:
    """Straight distance between two points, of one image or of two."""
    a, b, evidence = _pair(c)
    value, stddev = propagate_scalar(
        lambda e: float(np.linalg.norm(a.world_point(e) - b.world_point(e))), {**a.stddevs(), **b.stddevs()}
    )
    return c.number(value, stddev, "m", evidence, "{}" + _edge_note(a, b))


def horizontal_distance(c: Context) -> Answer:
    """Distance between two points seen from above."""
    a, b, evidence = _pair(c)
    R = c.level().T_zup_from_world[:2, :3]
    value, stddev = propagate_scalar(
        lambda e: float(np.linalg.norm(R @ (a.world_point(e) - b.world_point(e)))), {**a.stddevs(), **b.stddevs()}
    )
    return c.number(value, stddev, "m", evidence, "{} on the ground plane" + _edge_note(a, b))


def height(c: Context) -> Answer:
    """Height of a point above the floor."""
    point, stored = c.point(0)
    level = c.level_with_floor()
    value, stddev = propagate_scalar(
        lambda e: height_of(level, point, e), {**point.stddevs(), **level_stddevs(level, point)}
    )
    return c.number(value, stddev, "m", (c.point_evidence(0, stored),), "{} above the floor" + _edge_note(point))


def height_difference(c: Context) -> Answer:
    """How much higher the first point is than the second (negative: lower), or by how much the two differ."""
    a, b, evidence = _pair(c)
    value, stddev = _height_difference(c.level(), a, b)
    first, second = (f"<p{i}>" for i in c.parsed.points)
    words = f"{{}}: {first} is {'higher' if value >= 0 else 'lower'} than {second}" + _edge_note(a, b)
    return c.number(value if c.parsed.signed else abs(value), stddev, "m", evidence, words)


def nearer_or_farther(c: Context) -> Answer:
    """Which of two points is nearer to (farther from) the camera that saw them, or at a moment, or now."""
    sign = 1 if c.parsed.family == "nearer" else -1
    difference, stddev, evidence, words = _range_difference(c)
    return _which(c, sign * difference, stddev, evidence, words)


def is_nearer_or_farther(c: Context) -> Answer:
    """Whether the first point is nearer (farther) than the second."""
    sign = 1 if c.parsed.family == "is_nearer" else -1
    difference, stddev, evidence, words = _range_difference(c)
    return c.boolean(_chance(sign * difference, stddev), evidence, words, words, "gaussian")


def higher_or_lower(c: Context) -> Answer:
    """Which of two points is higher (lower)."""
    a, b, evidence = _pair(c)
    value, stddev = _height_difference(c.level(), a, b)
    sign = -1 if c.parsed.family == "higher" else 1
    return _which(c, sign * value, stddev, evidence, f"they differ by {c.in_words(abs(value), stddev, 'm')}")


def is_higher_or_lower(c: Context) -> Answer:
    """Whether the first point is higher (lower) than the second."""
    a, b, evidence = _pair(c)
    value, stddev = _height_difference(c.level(), a, b)
    sign = -1 if c.parsed.family == "is_higher" else 1
    words = f"they differ by {c.in_words(abs(value), stddev, 'm')}"
    return c.boolean(_chance(sign * value, stddev), evidence, words, words, "gaussian")


def height_of(level: Level, point: PointMeasurement, errors: Errors) -> float:
    """Height of a point in the level frame, metres, with the floor's and the tilt's errors applied."""
    p = level.T_zup_from_world[:3, :3] @ point.world_point(errors) + level.T_zup_from_world[:3, 3]
    return _tilted(level, p, errors) - errors.get("floor", 0.0)


def level_stddevs(level: Level, *points: PointMeasurement) -> dict[object, float]:
    """Standard deviations of the level's error sources."""
    return {
        "floor": level.floor_stddev_m or 0.0,
        ("tilt", 0): level.tilt_stddev_rad,
        ("tilt", 1): level.tilt_stddev_rad,
    }


def _tilted(level: Level, p: NDArray[np.float64], errors: Errors) -> float:
    # the floor was fitted where the cameras were, so a tilt turns about a place near them: the cameras' own scatter is
    # of the order of metres, and a point's horizontal distance from there is what a tilt lifts
    lever = p[:2] - level.centre
    return float(p[2] + lever[0] * errors.get(("tilt", 0), 0.0) + lever[1] * errors.get(("tilt", 1), 0.0))


def _height_difference(level: Level, a: PointMeasurement, b: PointMeasurement) -> tuple[float, float]:
    stddevs = {**a.stddevs(), **b.stddevs(), **level_stddevs(level)}
    return propagate_scalar(lambda e: height_of(level, a, e) - height_of(level, b, e), stddevs)


def _pair(c: Context) -> tuple[PointMeasurement, PointMeasurement, tuple]:
    a, stored_a = c.point(0)
    b, stored_b = c.point(1)
    return a, b, (c.point_evidence(0, stored_a), c.point_evidence(1, stored_b))


def _viewer(c: Context) -> tuple[CameraErrors, int, str] | None:
    """The camera at the moment asked for, or now; None: the camera that saw the point."""
    if c.parsed.times:
        return c.camera_in_role(0), c.moment(0), f"<t{c.parsed.times[0]}>"
    if c.parsed.now:
        return c.camera_at(c.present), c.now, "now"
    return None


def _seen_from(viewer: CameraErrors, point: PointMeasurement, errors: Errors) -> NDArray[np.float64]:
    T = viewer.pose(errors)
    return T[:3, :3].T @ (point.world_point(errors) - T[:3, 3])


def _range_difference(c: Context) -> tuple[float, float, tuple, str]:
    """Distance of the first point minus that of the second, its deviation, the evidence, and both in words."""
    a, b, evidence = _pair(c)
    viewer = _viewer(c)
    if viewer is None:

        def ranges(e: Errors) -> NDArray[np.float64]:
            return np.array([np.linalg.norm(a.camera_point(e)), np.linalg.norm(b.camera_point(e))])

        stddevs = {**a.stddevs(), **b.stddevs()}
    else:
        camera, stamp, label = viewer
        evidence += c.moment_evidence(stamp, label)

        def ranges(e: Errors) -> NDArray[np.float64]:
            centre = camera.pose(e)[:3, 3]
            return np.array([np.linalg.norm(p.world_point(e) - centre) for p in (a, b)])

        stddevs = {**a.stddevs(), **b.stddevs(), **camera.stddevs(depth=False)}
    difference, stddev = propagate_scalar(lambda e: float(ranges(e)[0] - ranges(e)[1]), stddevs)
    names = [f"<p{i}>" for i in c.parsed.points]
    at = ranges({})
    words = " and ".join(
        f"{n} is {c.in_words(float(r), float('nan'), 'm')} away" for n, r in zip(names, at, strict=True)
    )
    return difference, stddev, evidence, words


def _which(c: Context, first_minus_second: float, stddev: float, evidence: tuple, words: str) -> Answer:
    """The point of smaller value, as an index into the request's points (choices are matched later)."""
    chance = _chance(first_minus_second, stddev)
    winner = c.parsed.points[0] if chance >= 0.5 else c.parsed.points[1]
    confidence = max(chance, 1 - chance)
    c.require_confidence(confidence, f"the two are too close to call: {words}")
    return Answer(
        answer=f"<p{winner}>: {words}",
        answer_type=AnswerType.CHOICE,
        choice_index=winner,
        confidence=confidence,
        confidence_method="gaussian",
        source=AnswerSource.GEOMETRY,
        scale_source=ScaleSource.DEPTH,
        evidence=evidence,
    )


def _chance(first_minus_second: float, stddev: float) -> float:
    """Probability that the first is smaller."""
    if stddev <= 0:
        return 0.5 if first_minus_second == 0 else float(first_minus_second < 0)
    return float(ndtr(-first_minus_second / stddev))


def _edge_note(*points: PointMeasurement) -> str:
    return " (the pixel lies at a depth edge)" if any(p.at_edge for p in points) else ""
