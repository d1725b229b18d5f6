"""Where the things are that a query speaks of: operands as positions with their errors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.answering.geometry.sizes import Solid, solid
from spatial_mllm_ros.answering.measured import merged
from spatial_mllm_ros.answering.moments import label_of, stamp_of
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.queries import operands as o
from spatial_mllm_ros.queries.answer import Evidence
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.queries.moments import Moment, Now
from spatial_mllm_ros.queries.operands import Operand
from spatial_mllm_ros.queries.query import boxes_of, points_of
from spatial_mllm_ros.queries.term import Term
from spatial_mllm_ros.scene.gravity import Gravity
from spatial_mllm_ros.scene.measure import CameraErrors, PointMeasurement
from spatial_mllm_ros.scene.pose import Transform, invert
from spatial_mllm_ros.scene.uncertainty import Errors

BASE_FRAMES = ("base_link", "base_footprint")
"""REP 105's names of a mobile robot's base, the usual one first."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Place:
    """Where something is.

    at: world position [3] in metres with the named errors applied; of an extended thing its centre. stddevs: of the
    errors. pose: of what has an orientation, x right, y down, z forward, with the errors applied. point, solid: what was
    measured of a marked point or box.
    """

    name: str
    at: Callable[[Errors], NDArray[np.float64]]
    stddevs: Mapping[Hashable, Any]
    stamp_ns: int
    evidence: tuple[Evidence, ...] = ()
    scale: ScaleSource = ScaleSource.DEPTH
    pose: Callable[[Errors], Transform] | None = None
    own_pose: Callable[[Errors], Transform] | None = None
    point: PointMeasurement | None = None
    solid: Solid | None = None
    stored: StoredFrame | None = None

    @property
    def note(self) -> str:
        """What must be told about how it was measured."""
        return " (the pixel lies at a depth edge)" if self.point is not None and self.point.at_edge else ""


def place_of(c: Context, operand: Operand, beside: Term | None = None) -> Place:
    """Where an operand is. beside: what it is compared with, which says whose camera is meant.

    QueryError NOT_AVAILABLE for what has no single place.
    """
    key = ("place", operand, beside if isinstance(operand, o.Camera) and operand.at is None else None)
    return c.once(key, lambda: _place(c, operand, beside))


def _place(c: Context, operand: Operand, beside: Term | None) -> Place:
    if isinstance(operand, o.Point):
        return _point(c, operand.index)
    if isinstance(operand, o.Box):
        return _box(c, operand.index)
    if isinstance(operand, o.Camera):
        return _camera(c, operand.at) if operand.at is not None else _camera_of(c, beside)
    if isinstance(operand, o.Robot):
        return _robot(c, operand.at)
    if isinstance(operand, o.Origin):
        return _position(c, operand.frame_id, (0.0, 0.0, 0.0), f"the origin of {operand.frame_id or 'the fixed frame'}")
    if isinstance(operand, o.Position):
        xyz = (operand.x, operand.y, operand.z)
        name = f"({operand.x:g}, {operand.y:g}, {operand.z:g})" + (
            f" in {operand.frame_id}" if operand.frame_id else ""
        )
        return _position(c, operand.frame_id, xyz, name)
    raise QueryError(ErrorCode.INVALID_REQUEST, f"{name_of(operand)} is no single place: ask how far or how high it is")


def name_of(operand: Operand) -> str:
    """What an answer calls an operand."""
    if isinstance(operand, o.Point):
        return f"<p{operand.index}>"
    if isinstance(operand, o.Box):
        return f"<box{operand.index}>"
    if isinstance(operand, o.Camera | o.Robot):
        when = "" if operand.at is None or isinstance(operand.at, Now) else f" at {label_of(operand.at)}"
        return f"the {operand.type_name}{when}"
    return {o.Floor: "the floor", o.Ceiling: "the ceiling", o.NearestWall: "the nearest wall", o.Room: "the room"}.get(
        type(operand), "it"
    )


def _point(c: Context, index: int) -> Place:
    measured, stored = c.point(index)
    return Place(
        name=f"<p{index}>",
        at=measured.world_point,
        stddevs=measured.stddevs(),
        stamp_ns=stored.frame.stamp_ns,
        evidence=(c.point_evidence(index, stored),),
        point=measured,
        stored=stored,
    )


def _box(c: Context, index: int) -> Place:
    found = solid(c, index)
    box, stored = c.box(index)
    return Place(
        name=f"<box{index}>",
        at=found.center,
        stddevs=found.center_stddevs(),
        stamp_ns=stored.frame.stamp_ns,
        evidence=(c.box_evidence(stored, box, f"<box{index}>"),),
        solid=found,
        stored=stored,
    )


def _camera(c: Context, at: Moment) -> Place:
    stamp, label = stamp_of(c, at), label_of(at)
    return _of_errors(c, c.camera_at(stamp, label), stamp, name_of(o.Camera(at=at)), c.moment_evidence(stamp, label))


def _of_errors(c: Context, camera: CameraErrors, stamp: int, name: str, evidence: tuple[Evidence, ...]) -> Place:
    return Place(
        name=name,
        at=lambda e: camera.pose(e)[:3, 3],
        stddevs=camera.stddevs(depth=False),
        stamp_ns=stamp,
        evidence=evidence,
        scale=ScaleSource.TF,
        pose=camera.pose,
        own_pose=camera.pose,
    )


def _camera_of(c: Context, beside: Term | None) -> Place:
    """The camera that took the image of the other thing, else that of the query's first mark, else as it is now."""
    for operand in (
        beside,
        *(o.Point(index=i) for i in points_of(c.query)),
        *(o.Box(index=i) for i in boxes_of(c.query)),
    ):
        if not isinstance(operand, o.Point | o.Box):
            continue
        if isinstance(operand, o.Point):
            measured, stored = c.point(operand.index)
            camera = measured.camera
        else:
            _, stored = c.box(operand.index)
            camera = solid(c, operand.index).camera
        return _of_errors(c, camera, stored.frame.stamp_ns, "the camera", ())
    return _camera(c, Now())


def _robot(c: Context, at: Moment) -> Place:
    stamp, label = stamp_of(c, at), label_of(at)
    camera = c.camera_at(stamp, label)
    T_camera_base = invert(camera.T_world_camera) @ _T_world_base(c, stamp)
    optical = np.eye(4)
    optical[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # REP 103: a base looks along x, with z up
    return Place(
        name=name_of(o.Robot(at=at)),
        at=lambda e: (camera.pose(e) @ T_camera_base)[:3, 3],
        stddevs=camera.stddevs(depth=False),
        stamp_ns=stamp,
        evidence=c.moment_evidence(stamp, label),
        scale=ScaleSource.TF,
        pose=lambda e: camera.pose(e) @ T_camera_base @ optical,
        own_pose=lambda e: camera.pose(e) @ T_camera_base,
    )


def _T_world_base(c: Context, stamp_ns: int) -> Transform:
    reasons = []
    for name in (c.config.base_frame,) if c.config.base_frame else BASE_FRAMES:
        if c.lookup is None:
            break
        try:
            return c.lookup(c.memory.world_frame, name, stamp_ns)
        except LookupError as error:
            reasons.append(f"{name}: {error}")
    raise QueryError(
        ErrorCode.TF_ERROR,
        f"where the robot's base is is not known ({'; '.join(reasons) or 'there are no transforms but those of the camera'}): "
        "publish its frame in TF and name it in base_frame, or ask about the camera",
    )


def _position(c: Context, frame_id: str, xyz: tuple[float, float, float], name: str) -> Place:
    if frame_id in c.memory.cameras():
        stamp = c.present
        camera = c.camera_at(stamp, "now")
        stddevs: dict[Hashable, Any] = camera.stddevs(depth=False)
        T_of: Callable[[Errors], Transform] = camera.pose
    else:
        stamp = c.now
        T = invert(c.T_frame_world(frame_id, stamp))
        stddevs = {}
        T_of = partial(lambda T, e: T, T)
    place = np.array([*xyz, 1.0])
    return Place(
        name=name,
        at=lambda e: (T_of(e) @ place)[:3],
        stddevs=stddevs,
        stamp_ns=stamp,
        scale=ScaleSource.TF,
        own_pose=T_of if not any(xyz) else None,
    )


# ---- what is upright


def height_at(gravity: Gravity, world: NDArray[np.float64], errors: Errors) -> float:
    """Height [m] of a world position [3] in the level frame, with the floor's and the tilt's errors applied."""
    T = gravity.T_zup_from_world
    p = T[:3, :3] @ world + T[:3, 3]
    # the floor was fitted where the cameras were, so a tilt turns about a place near them: the cameras' own scatter is
    # of the order of metres, and a point's horizontal distance from there is what a tilt lifts
    lever = p[:2] - gravity.centre
    tilted = float(p[2] + lever[0] * errors.get(("tilt", 0), 0.0) + lever[1] * errors.get(("tilt", 1), 0.0))
    return tilted - errors.get("floor", 0.0)


def gravity_stddevs(gravity: Gravity) -> dict[Hashable, Any]:
    """Standard deviations of the level's error sources."""
    return {
        "floor": gravity.floor_stddev_m or 0.0,
        ("tilt", 0): gravity.tilt_stddev_rad,
        ("tilt", 1): gravity.tilt_stddev_rad,
    }


def upright_axes(gravity: Gravity, T_world_camera: Transform) -> NDArray[np.float64]:
    """Rows right, down, forward (3x3, world to them) of somebody who stands upright and looks where the camera looks."""
    R = T_world_camera[:3, :3]
    if gravity.assumed:  # nothing tells which way is up: the camera is taken to be held level
        return R.T
    up = gravity.T_zup_from_world[2, :3]
    forward = R[:, 2] - (R[:, 2] @ up) * up
    if np.linalg.norm(forward) < 0.17:  # looking within 10 degrees of straight up or down: the image's top says forward
        top = -R[:, 1] * np.sign(-R[:, 2] @ up or 1.0)
        forward = top - (top @ up) * up
    return _axes(forward, up)


def _axes(forward: NDArray[np.float64], up: NDArray[np.float64]) -> NDArray[np.float64]:
    forward = forward / max(float(np.linalg.norm(forward)), 1e-12)
    return np.stack([np.cross(forward, up), -up, forward])


@dataclass(frozen=True, eq=False, kw_only=True)
class Viewer:
    """Somebody who stands somewhere and looks somewhere.

    axes: rows right, down, forward [3, 3] with the named errors applied; at: where, world [3].
    """

    name: str
    at: Callable[[Errors], NDArray[np.float64]]
    axes: Callable[[Errors], NDArray[np.float64]]
    stddevs: Mapping[Hashable, Any]
    evidence: tuple[Evidence, ...]
    stamp_ns: int

    def sees(self, place: Place) -> Callable[[Errors], NDArray[np.float64]]:
        """Right, down and forward [3], metres, of a place from here."""
        return lambda e: self.axes(e) @ (place.at(e) - self.at(e))


def viewer_of(c: Context, at: Operand, facing: Operand | None, beside: Operand | None) -> Viewer:
    """From where left, right, front and behind are meant. INVALID_REQUEST where nothing says where one looks."""
    gravity, stand = c.gravity(), place_of(c, at, beside)
    if facing is not None:
        target = place_of(c, facing, beside)
        up = gravity.T_zup_from_world[2, :3]

        def towards(e: Errors) -> NDArray[np.float64]:
            along = target.at(e) - stand.at(e)
            return _axes(along - (along @ up) * up, up)

        step = target.at({}) - stand.at({})
        if np.linalg.norm(step - (step @ up) * up) < 0.05:
            raise QueryError(
                ErrorCode.ABSTAINED, f"{target.name} is straight above or below {stand.name}: facing it is no direction"
            )
        return Viewer(
            name=f"{stand.name} facing {target.name}",
            at=stand.at,
            axes=towards,
            stddevs=merged(stand.stddevs, target.stddevs),
            evidence=(*stand.evidence, *target.evidence),
            stamp_ns=stand.stamp_ns,
        )
    pose = stand.pose
    if pose is None:
        raise QueryError(
            ErrorCode.INVALID_REQUEST,
            f"where one looks from {stand.name} is not said: say what it is facing, or ask from the camera or the robot",
        )
    return Viewer(
        name=stand.name,
        at=stand.at,
        axes=lambda e: upright_axes(gravity, pose(e)),
        stddevs=stand.stddevs,
        evidence=stand.evidence,
        stamp_ns=stand.stamp_ns,
    )
