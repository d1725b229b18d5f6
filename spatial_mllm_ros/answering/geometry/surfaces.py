"""Which way a surface faces, how steep it is, and whether two points are on one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.answering.geometry.places import Place, gravity_stddevs, place_of
from spatial_mllm_ros.answering.geometry.points import angle_between
from spatial_mllm_ros.answering.measured import Measured, merged
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries import measures as q
from spatial_mllm_ros.queries.answer import Answer, Evidence
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.queries.operands import Operand, Point
from spatial_mllm_ros.scene.frame import depth_to_metres
from spatial_mllm_ros.scene.measure import PointMeasurement
from spatial_mllm_ros.scene.uncertainty import Errors, propagate

_HALVES_PX = (3, 5, 8)
_AGREE = 2.0  # deviations
_CLEAR_RAD = 0.2
_BENT_RAD = 0.01
"""What a depth camera bends a plane by over a window, beside its noise (rendered flat faces, 0.6 degrees)."""
_SAMPLES = 24
_GAP_SHARE = 0.1
_STEP_M = 0.02


@dataclass(frozen=True, eq=False, kw_only=True)
class Facing:
    """The unit normal of the surface at a marked point, towards the camera.

    at: world [3] with the named errors applied. stddev: of its direction about either axis across it, rad.
    """

    at: Callable[[Errors], NDArray[np.float64]]
    stddevs: Mapping[Hashable, Any]
    stddev: float
    place: Place


def facing(c: Context, operand: Operand) -> Facing:
    """Which way the surface at a marked point faces. NOT_SEEN where it is too ragged to tell."""
    if not isinstance(operand, Point):
        raise QueryError(ErrorCode.INVALID_REQUEST, "a surface is asked about at a marked point: mark one on it")
    place = place_of(c, operand)
    assert place.point is not None
    assert place.stored is not None
    fitted = _fit(place.point, place.stored)
    if fitted is None:
        raise QueryError(
            ErrorCode.NOT_SEEN, f"the surface at {place.name} is too small or too ragged to have a direction"
        )
    normal, stddev = fitted
    first = np.cross(normal, [1.0, 0.0, 0.0] if abs(normal[0]) < 0.9 else [0.0, 1.0, 0.0])
    first /= np.linalg.norm(first)
    across = np.stack([first, np.cross(normal, first)])
    point = place.point

    def at(e: Errors) -> NDArray[np.float64]:
        lean = np.array([e.get(("normal", point.key, axis), 0.0) for axis in range(2)])
        local = normal + lean @ across
        return np.asarray(point.camera.pose(e)[:3, :3] @ (local / np.linalg.norm(local)))

    stddevs: dict[Hashable, Any] = {("normal", point.key, axis): stddev for axis in range(2)}
    return Facing(at=at, stddevs={**point.camera.stddevs(depth=False), **stddevs}, stddev=stddev, place=place)


def _fit(point: PointMeasurement, stored: StoredFrame) -> tuple[NDArray[np.float64], float] | None:
    """Unit normal [3] towards the camera, camera frame, and its deviation (rad), from the pixels round a point.

    That of the largest window that agrees with those of the smaller ones (Lepski's method, 1991): a plane across a crease
    leans. What they still differ by goes into the deviation.
    """
    chosen: list[tuple[NDArray[np.float64], float]] = []
    for half in _HALVES_PX:
        fit = _plane(point, stored, half)
        if fit is None:
            if half == _HALVES_PX[-1] and not chosen:
                return None
            continue
        turned = [
            np.radians(angle_between(fit[0], other)) - _AGREE * np.hypot(fit[1], stddev) for other, stddev in chosen
        ]
        if chosen and max(turned) > 0:
            break
        chosen.append(fit)
    if not chosen:
        return None
    normal, stddev = chosen[-1]
    spread = max(np.radians(angle_between(normal, other)) - other_stddev for other, other_stddev in chosen)
    stddev = float(np.linalg.norm((stddev, max(spread, 0.0) / 2, _BENT_RAD)))
    return (normal, stddev) if stddev < _CLEAR_RAD else None


def _plane(point: PointMeasurement, stored: StoredFrame, half: int) -> tuple[NDArray[np.float64], float] | None:
    """Unit normal [3] and its deviation (rad) from a window; None where too little of it is one plane.

    1 / z = n . ray / d is linear in the ray; the normal equations tell how well noise lets n be known.
    """
    frame = stored.frame
    assert frame.depth is not None
    assert frame.camera is not None
    row, column = round(point.v), round(point.u)
    rows = slice(max(row - half, 0), row + half + 1)
    columns = slice(max(column - half, 0), column + half + 1)
    z = depth_to_metres(frame.depth[rows, columns]).astype(np.float64)
    rays = frame.camera.rays()[rows, columns].astype(np.float64)
    noise = max(float(point.camera.sensor.depth_white_stddev(point.z)), 3e-4)
    own = np.abs(z - point.z) < max(6 * noise, 0.04 * point.z)
    for _ in range(4):
        if np.count_nonzero(own) < max(z.size // 3, 9):
            return None
        A = rays[own]
        plane, *_ = np.linalg.lstsq(A, 1.0 / z[own], rcond=None)
        with np.errstate(divide="ignore", invalid="ignore"):
            own = np.abs(z - 1.0 / (rays @ plane)) < 4 * noise
    if np.count_nonzero(own) < max(z.size // 3, 9):
        return None
    A, length = rays[own], float(np.linalg.norm(plane))
    residual = 1.0 / (A @ plane) - z[own]
    spread = max(float(np.std(residual)), noise) / point.z**2  # of inverse depth
    covariance = np.linalg.pinv(A.T @ A) * spread**2
    n = np.asarray(-plane / length, dtype=np.float64)
    across = np.eye(3) - np.outer(n, n)
    lean = float(np.linalg.eigvalsh(across @ covariance @ across)[-1]) / length**2
    return n, float(np.sqrt(max(lean, 0.0)))


def slope(c: Context, m: q.Slope) -> Measured:
    """Angle between the surface at a point and the horizontal, 0 to 90 degrees."""
    found, gravity = facing(c, m.at), c.gravity()
    up = gravity.T_zup_from_world[2, :3]

    def steepness(e: Errors) -> float:
        R = gravity.T_zup_from_world[:3, :3]
        lean = np.array([e.get(("tilt", 0), 0.0), e.get(("tilt", 1), 0.0), 0.0]) @ R
        off = angle_between(found.at(e), up + lean)
        return min(off, 180.0 - off)

    return Measured(
        at=steepness,
        stddevs=merged(found.stddevs, gravity_stddevs(gravity)),
        unit="deg",
        evidence=found.place.evidence,
        scale=ScaleSource.NONE,
        more="steeper",
        less="less steep",
    )


def surface_normal(c: Context, ask: asks.SurfaceNormal) -> Answer:
    """The unit normal of the surface at a point, towards the camera that saw it."""
    found = facing(c, ask.at)
    value, covariance = propagate(found.at, found.stddevs)
    stddev = float(np.sqrt(np.linalg.eigvalsh(covariance)[-1]))
    pose = c.vector(value, found.place.stamp_ns)
    x, y, z = pose.position
    return Answer(
        answer=f"({x:.3f}, {y:.3f}, {z:.3f}) in {pose.frame_id}, ± {np.degrees(stddev):.1f}°",
        answer_type=AnswerType.VECTOR,
        value=1.0,
        stddev=stddev,
        pose=pose,
        confidence=1.0,
        confidence_method="gaussian; the deviation is that of the direction, in radians",
        source=AnswerSource.GEOMETRY,
        evidence=found.place.evidence,
    )


def on_one_surface(c: Context, first: Operand, second: Operand) -> tuple[float, str, tuple[Evidence, ...]]:
    """Probability that two marked points are on one flat surface, the reason, and the evidence.

    They face alike, lie in one plane, and neither image looks through the straight way between them.
    """
    a, b = facing(c, first), facing(c, second)
    evidence = (*a.place.evidence, *b.place.evidence)

    def apart(e: Errors) -> NDArray[np.float64]:
        step = b.place.at(e) - a.place.at(e)
        return np.array([a.at(e) @ step, b.at(e) @ step, *np.cross(a.at(e), b.at(e))])

    value, covariance = propagate(apart, merged(a.place.stddevs, b.place.stddevs, a.stddevs, b.stddevs))
    turned = angle_between(a.at({}), b.at({}))
    slack = np.degrees(3 * np.hypot(a.stddev, b.stddev)) + 2
    if turned > max(slack, 10.0):
        return 0.03, f"they face {turned:.0f}° apart", evidence
    off = min(abs(value[:2]))
    stddev = float(np.sqrt(min(covariance[0, 0], covariance[1, 1])))
    if off > 3 * stddev + _STEP_M:
        return 0.03, f"one lies {off:.2f} m off the plane of the other", evidence
    if turned > slack or off > 2 * stddev + _STEP_M / 2:
        return 0.5, "they nearly face alike and lie nearly in one plane", evidence
    through, known = _between(c, a.place, b.place, stddev)
    if through > _GAP_SHARE:
        return 0.05, "they lie in one plane, but with a gap between them", evidence
    if known < 0.5:
        return 0.5, "they lie in one plane, but what is between them was not seen", evidence
    return (0.95 if stddev < _STEP_M else 0.8), "they face alike, in one plane without a gap", evidence


def _between(c: Context, a: Place, b: Place, stddev: float) -> tuple[float, float]:
    """Shares of the straight way between two points that an image looked through, and that an image shows anything of."""
    way = a.at({}) + np.linspace(0.05, 0.95, _SAMPLES)[:, None] * (b.at({}) - a.at({}))
    there, through = np.zeros(_SAMPLES, dtype=bool), np.zeros(_SAMPLES, dtype=bool)
    for place in (a, b):
        assert place.stored is not None
        frame = place.stored.frame
        camera, T, depth = frame.camera, frame.T_world_camera, frame.depth
        if camera is None or T is None or depth is None:
            continue
        local = (way - T[:3, 3]) @ T[:3, :3]
        uv = camera.project(local)
        shown = np.flatnonzero(camera.contains(uv) & (local[:, 2] > 0.1))
        pixel = np.round(uv[shown]).astype(int)
        z = depth_to_metres(depth[pixel[:, 1], pixel[:, 0]])
        slack = 3 * (stddev + c.sensor.depth_stddev(local[shown, 2])) + _STEP_M
        with np.errstate(invalid="ignore"):
            there[shown[np.abs(z - local[shown, 2]) <= slack]] = True
            through[shown[z > local[shown, 2] + slack]] = True
    return float(np.mean(through & ~there)), float(np.mean(there))
