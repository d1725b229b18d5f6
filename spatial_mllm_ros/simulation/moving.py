"""Things that move through a rendered house, and points of them that are tracked exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.pose import Transform, apply, invert, make_transform
from spatial_mllm_ros.simulation.furniture import carton, toy_ball, waste_bin
from spatial_mllm_ros.simulation.layout import House, Room, Thing
from spatial_mllm_ros.simulation.raycast import RayCaster, View
from spatial_mllm_ros.simulation.solids import yaw_matrix
from spatial_mllm_ros.simulation.tour import FloorPlan, floor_plan
from spatial_mllm_ros.sources.source import SourceError

MOST = 12
RADIUS_M = 0.45
"""Free floor round a mover: half the diagonal of the largest box, and some air."""
LEG_M = (0.4, 3.0)
"""How far one rolls before it rests."""
ROLL_S, REST_S = 4.0, 2.0
"""Time of one way, there or back, and of the rest after it."""
PIECES = (carton, carton, waste_bin, toy_ball)
_SAME_M = 0.01
"""A tracked point is seen where the image has its depth to within this."""


@dataclass(frozen=True, eq=False)
class Mover:
    """One thing that rolls to and fro between two places on the floor, turning, with a rest at each end.

    caster: renders it alone, in its own frame. start, end: x and y in metres. turn: radians about z on one way.
    phase_s: when in its round it begins. points: on its surface, in its own frame, [n, 3], metres.
    """

    thing: Thing
    caster: RayCaster
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    turn: float
    phase_s: float
    points: NDArray[np.float64]

    def pose(self, seconds: float) -> Transform:
        """T_world_thing at a time."""
        half = ROLL_S + REST_S
        within = (seconds + self.phase_s) % (2 * half)
        way = min(within % half / ROLL_S, 1.0)
        share = (1 - np.cos(np.pi * way)) / 2
        share = share if within < half else 1 - share
        place = self.start + share * (self.end - self.start)
        return make_transform(yaw_matrix(share * self.turn), (*place, 0.0))


def make_movers(house: House, count: int, seed: int, points: int) -> tuple[Mover, ...]:
    """``count`` movers of a house with ``points`` tracked points each, always the same for the same arguments.

    Raises SourceError when there are more than MOST, or the house has no free floor for them.
    """
    if count > MOST:
        raise SourceError(f"at most {MOST} things move in a house, not {count}")
    rng = np.random.default_rng([house.seed, seed, 21])
    plan = floor_plan(house)
    taken: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    return tuple(_mover(house, plan, rng, number, taken, points) for number in range(count))


def _mover(
    house: House,
    plan: FloorPlan,
    rng: np.random.Generator,
    number: int,
    taken: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    points: int,
) -> Mover:
    piece = PIECES[int(rng.integers(len(PIECES)))](rng)
    low, high = piece.bounds()
    start, end = _way(house, plan, rng, taken)
    thing = Thing(
        f"moving {piece.category} {number}", piece.category, piece.color, 0,
        (low + high) / 2, high - low, 0.0, piece.meshes, piece.solid, piece.flat,
    )  # fmt: skip
    wide = np.full(2, 3.0)
    alone = House(house.seed, house.ceiling, (Room("alone", -wide, wide),), (), (thing,))
    turn = float(rng.uniform(-np.pi, np.pi))
    caster = RayCaster(alone)
    return Mover(thing, caster, start, end, turn, float(rng.uniform(0, 12)), _on_surface(thing, rng, points))


def _way(
    house: House,
    plan: FloorPlan,
    rng: np.random.Generator,
    taken: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of a straight way over free floor that keeps off the others' ways."""
    along = np.linspace(0, 1, 30)[:, None]
    for radius in (RADIUS_M, 0.35, 0.28):
        for _ in range(1000):
            room = house.rooms[int(rng.integers(len(house.rooms)))]
            start = rng.uniform(room.low, room.high)
            angle, length = rng.uniform(-np.pi, np.pi), rng.uniform(*LEG_M)
            end = start + length * np.array([np.cos(angle), np.sin(angle)])
            way = start + along * (end - start)
            if plan.at(way).min() < radius or not ((end > room.low) & (end < room.high)).all():
                continue
            if all(_apart(way, a + along * (b - a)) > 2 * radius for a, b in taken):
                taken.append((start, end))
                return start, end
    raise SourceError(f"house {house.seed} has no free floor for so many moving things: take fewer, or another seed")


def _apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(a[:, None] - b[None], axis=2).min())


def _on_surface(thing: Thing, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Points [n, 3] spread over the triangles by area."""
    corners = np.concatenate([mesh.corners for mesh in thing.meshes])
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = corners[rng.choice(len(corners), count, p=area / area.sum())]
    a, b = rng.random((2, count, 1))
    a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)
    return np.asarray(chosen[:, 0] + a * (chosen[:, 1] - chosen[:, 0]) + b * (chosen[:, 2] - chosen[:, 0]))


def with_movers(
    view: View, movers: Sequence[Mover], camera: CameraModel, T_world_camera: Transform, seconds: float, first: int
) -> View:
    """The view of a house with its movers in it; the things' numbers are ``first`` and on."""
    depth, thing, facing = view.depth.copy(), view.thing.copy(), view.facing.copy()
    image = None if view.image is None else view.image.copy()
    for number, mover in enumerate(movers):
        T_thing_camera = invert(mover.pose(seconds)) @ T_world_camera
        if not _in_view(mover.thing, camera, T_thing_camera):
            continue
        own = mover.caster.render(camera, T_thing_camera, image is not None)
        nearer = (own.thing >= 0) & (own.depth > 0) & ((depth <= 0) | (own.depth < depth))
        depth[nearer], facing[nearer] = own.depth[nearer], own.facing[nearer]
        thing[nearer] = first + number
        if image is not None and own.image is not None:
            image[nearer] = own.image[nearer]
    return View(depth, thing, facing, image)


def _in_view(thing: Thing, camera: CameraModel, T_thing_camera: Transform) -> bool:
    """Whether an image can show a thing: False only when its box is behind the camera, or to one side of the image."""
    corners = thing.centre + (np.indices((2, 2, 2)).reshape(3, -1).T - 0.5) * thing.size
    local = apply(invert(T_thing_camera), corners)
    if (local[:, 2] <= 0).all():
        return False
    if (local[:, 2] <= 0).any():
        return True
    low, high = (f(camera.project(local), axis=0) for f in (np.min, np.max))
    return not ((high < -1).any() or (low > (camera.width, camera.height)).any())


def tracked(mover: Mover, seconds: float) -> NDArray[np.float64]:
    """Where its points are at a time, world, [n, 3], metres."""
    return np.asarray(apply(mover.pose(seconds), mover.points), dtype=np.float64)


def seen(points: NDArray[np.float64], view: View, camera: CameraModel, T_world_camera: Transform) -> NDArray[np.bool_]:
    """Which world points [n, 3] an exact view shows: inside the image, at the depth that it has there."""
    local = apply(invert(T_world_camera), points)
    uv = camera.project(local)
    inside = np.isfinite(uv).all(axis=1) & camera.contains(np.nan_to_num(uv, nan=-9.0))
    u, v = (np.rint(np.nan_to_num(uv[:, k])).astype(int) for k in (0, 1))
    u, v = np.clip(u, 0, camera.width - 1), np.clip(v, 0, camera.height - 1)
    return np.asarray(inside & (np.abs(view.depth[v, u] - local[:, 2]) < _SAME_M))
