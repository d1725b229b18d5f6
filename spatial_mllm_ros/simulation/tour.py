"""A camera carried through a house: through every door, looking round in every room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from spatial_mllm_ros.scene.pose import Transform, make_transform
from spatial_mllm_ros.simulation.layout import WALK_RADIUS_M, House, inside_turned_box

START_NS = 1_700_000_000 * 1_000_000_000
GRID_M = 0.05
WALK_M_S = 0.6  # walking and turning while looking round, so that even at MAX_PACE peaks stay below 1 m/s and 60 deg/s
TURN_RAD_S = np.radians(36)
MAX_PACE = 1.25
FINE_S = 0.02  # the path is made at this step, then sampled


@dataclass(frozen=True, eq=False)
class Tour:
    """Poses T_world_camera float64 [n, 4, 4] (optical axes: x right, y down, z forward) and stamps int64 [n], ns.

    rooms: index of the room (or of the nearer one in a doorway) in which the camera is, [n].
    """

    poses: NDArray[np.float64]
    stamps: NDArray[np.int64]
    rooms: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class FloorPlan:
    """What can be walked on. clearance: metres to the nearest obstacle, [x, y], 0 in obstacles; low: its corner [2]."""

    low: NDArray[np.float64]
    clearance: NDArray[np.float64]

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Clearance in metres at points [..., 2]."""
        cell = np.clip(((points - self.low) / GRID_M).astype(int), 0, np.array(self.clearance.shape) - 1)
        return self.clearance[cell[..., 0], cell[..., 1]]


def _cells(columns: int, rows: int) -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(columns), np.arange(rows), indexing="ij")
    return np.stack([x, y], axis=-1).astype(np.float64)


def floor_plan(house: House) -> FloorPlan:
    """Free space of a house seen from above: rooms and doorways less all that stands below 2 m and is not a rug."""
    low, high = house.walls_low_high()
    low = low - 4 * GRID_M
    columns, rows = (int(n) for n in np.ceil((high + 4 * GRID_M - low) / GRID_M))
    shape = (columns, rows)
    points = low + (_cells(columns, rows) + 0.5) * GRID_M
    free = np.zeros(shape, dtype=bool)
    for place_low, place_high in [(p.low, p.high) for p in house.rooms] + [(p.low, p.high) for p in house.doors]:
        free |= ((points > place_low - 1e-9) & (points < place_high + 1e-9)).all(axis=-1)
    for thing in house.things:
        if not thing.is_structure and not thing.flat and thing.bottom < 2.0:
            free &= ~inside_turned_box(points, thing, 0.0)
    # The distance is between cell centres: half a cell less is to the obstacle's edge.
    return FloorPlan(low, np.maximum(0.0, ndimage.distance_transform_edt(free) * GRID_M - GRID_M / 2))


def make_tour(house: House, frames: int, rate_hz: float, seed: int = 0) -> Tour:
    """A hand-held camera's path of ``frames`` poses at ``rate_hz``: always the same for the same arguments.

    The camera is 1.1 to 1.5 m high and looks slightly down. It walks below 1 m/s and turns below 60 deg/s. With time
    left it starts another round with other views; with little it turns less, and with too little for all rooms the tour
    ends early.
    """
    rng = np.random.default_rng([house.seed, seed, 11])
    plan = floor_plan(house)
    graph = _Graph(plan)
    duration = max(frames - 1, 1) / rate_hz
    start = min(range(len(house.rooms)), key=lambda room: (len(_order(house, room, rng)), rng.random()))
    # The richest first round that fits: fewer stops, then less turning, where time is short.
    for stops, sweep in ((2, 2 * np.pi), (1, 2 * np.pi), (1, 1.5 * np.pi), (1, np.pi), (1, 0.5 * np.pi), (1, 0.0)):
        legs = _lap(house, graph, np.random.default_rng([house.seed, seed, 12]), start, stops=stops, sweep=sweep)
        total = sum(leg.seconds for leg in legs)
        if total <= MAX_PACE * duration:
            break
    while total < 0.8 * duration:
        lap = _lap(house, graph, rng, legs[-1].room, stops=2, sweep=2 * np.pi, before=legs[-1])
        legs += lap
        total += sum(leg.seconds for leg in lap)
    # Stretch a tour that is too short, squeeze one that is too long as far as the limits allow.
    pace = float(np.clip(total / duration, 0.1, MAX_PACE))
    return _walk(house, plan, legs, rng, pace=pace, frames=frames, rate_hz=rate_hz)


@dataclass(frozen=True, eq=False)
class _Leg:
    """Along ``path`` [n, 2] while turning evenly from one yaw to another (radians, unwrapped)."""

    room: int
    path: NDArray[np.float64]
    yaw: tuple[float, float]

    @property
    def seconds(self) -> float:
        length = float(np.linalg.norm(np.diff(self.path, axis=0), axis=1).sum())
        return max(length / WALK_M_S, abs(self.yaw[1] - self.yaw[0]) / TURN_RAD_S, 0.1)


class _Graph:
    """Shortest ways over the floor that keep off obstacles."""

    def __init__(self, plan: FloorPlan) -> None:
        self.plan = plan
        step = 2  # every second cell: 0.1 m
        self.step = step
        clearance = plan.clearance[::step, ::step]
        self.shape = (clearance.shape[0], clearance.shape[1])
        usable = clearance >= WALK_RADIUS_M
        cost = 1 + 3 * np.clip(0.6 - clearance, 0, None) / 0.3
        index = np.arange(clearance.size).reshape(self.shape)
        rows, columns, weights = [], [], []
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
            a = (slice(0, self.shape[0] - dx), slice(max(0, -dy), self.shape[1] - max(0, dy)))
            b = (slice(dx, None), slice(max(0, dy), self.shape[1] + min(0, dy)))
            both = usable[a] & usable[b]
            rows.append(index[a][both])
            columns.append(index[b][both])
            weights.append((cost[a] + cost[b])[both] / 2 * np.hypot(dx, dy) * step * GRID_M)
        pairs = (np.concatenate(rows), np.concatenate(columns))
        self.matrix = coo_matrix((np.concatenate(weights), pairs), shape=(index.size, index.size)).tocsr()
        labels, _ = ndimage.label(usable, structure=np.ones((3, 3)))
        self.joined = labels == np.bincount(labels[labels > 0]).argmax() if usable.any() else usable

    def points(self) -> NDArray[np.float64]:
        """World positions of all nodes, [x, y, 2]."""
        return self.plan.low + (_cells(*self.shape) * self.step + 0.5) * GRID_M

    def nearest(self, point: NDArray[np.float64]) -> int:
        distance = np.linalg.norm(self.points() - point, axis=-1)
        distance[~self.joined] = np.inf
        return int(distance.argmin())

    def way(self, start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points [n, 2] from start to end, smoothed."""
        a, b = self.nearest(start), self.nearest(end)
        _, before = dijkstra(self.matrix, directed=False, indices=[a], return_predecessors=True)
        nodes = [b]
        while nodes[-1] != a and before[0, nodes[-1]] >= 0:
            nodes.append(int(before[0, nodes[-1]]))
        way = self.points().reshape(-1, 2)[nodes[::-1]]
        return np.concatenate([start[None], way[1:-1], end[None]]) if len(way) > 2 else np.stack([start, end])


def _order(house: House, start: int, rng: np.random.Generator) -> list[int]:
    """Rooms in the order of a walk that sees every room, those passed again included: depth first from ``start``."""
    neighbours: dict[int, list[int]] = {i: [] for i in range(len(house.rooms))}
    for door in house.doors:
        neighbours[door.rooms[0]].append(door.rooms[1])
        neighbours[door.rooms[1]].append(door.rooms[0])
    order: list[int] = []
    seen = {start}

    def visit(room: int) -> None:
        order.append(room)
        for other in (int(k) for k in rng.permutation(neighbours[room])):
            if other not in seen:
                seen.add(other)
                visit(other)
                order.append(room)

    visit(start)
    last = max(order.index(room) for room in seen)
    return order[: last + 1]  # the way back from the last new room belongs to the next round


def _lap(
    house: House,
    graph: _Graph,
    rng: np.random.Generator,
    start: int,
    *,
    stops: int,
    sweep: float,
    before: _Leg | None = None,
) -> list[_Leg]:
    """One round through every room from room ``start``, or from the end of the leg ``before``.

    In every new room it passes ``stops`` places and turns by ``sweep`` radians, plus what faces the next door.
    """
    order = _order(house, start, rng)
    here = None if before is None else before.path[-1]
    yaw = rng.uniform(-np.pi, np.pi) if before is None else before.yaw[1]
    legs: list[_Leg] = []
    visited: set[int] = set()
    for k, room in enumerate(order):
        spots = [] if room in visited else _spots(house, graph, room, rng, stops)
        if here is None:
            here = spots.pop(0) if len(spots) > 1 or k + 1 < len(order) else spots[0]
        at = here
        spots.sort(key=lambda p: float(np.linalg.norm(p - at)))
        path = [here[None]]
        for spot in spots:
            path.append(graph.way(path[-1][-1], spot)[1:])
        if k + 1 < len(order):
            path.append(graph.way(path[-1][-1], _door_between(house, room, order[k + 1]))[1:])
        points = np.concatenate(path)
        target = yaw + (0.0 if room in visited else sweep * (1 if rng.random() < 0.5 else -1))
        if k + 1 < len(order):
            target += float((_heading(points) - target + np.pi) % (2 * np.pi) - np.pi)
        legs.append(_Leg(room, points, (yaw, target)))
        yaw, here = target, points[-1]
        visited.add(room)
    return legs


def _heading(points: NDArray[np.float64]) -> float:
    step = points[-1] - points[max(0, len(points) - 6)]
    return float(np.arctan2(step[1], step[0]))


def _spots(house: House, graph: _Graph, room: int, rng: np.random.Generator, count: int) -> list[NDArray[np.float64]]:
    """Places in a room from which to look round, far from one another."""
    points = graph.points()
    here = house.rooms[room]
    inside = ((points > here.low) & (points < here.high)).all(axis=-1) & graph.joined
    candidates = points[inside]
    if len(candidates) == 0:
        return [here.centre]
    doors = [door.centre for door in house.doors if room in door.rooms]
    chosen: list[NDArray[np.float64]] = []
    open_floor = np.minimum(graph.plan.at(candidates), 1.0)
    while len(chosen) < count:
        away = [np.linalg.norm(candidates - p, axis=1) for p in (*doors, *chosen)] or [np.full(len(candidates), 2.0)]
        score = np.minimum(np.min(away, axis=0), 2.0) + 1.5 * open_floor + rng.uniform(0, 0.5, len(candidates))
        chosen.append(candidates[int(score.argmax())])
    return chosen


def _door_between(house: House, a: int, b: int) -> NDArray[np.float64]:
    return next(d.centre for d in house.doors if set(d.rooms) == {a, b})


def _walk(
    house: House,
    plan: FloorPlan,
    legs: list[_Leg],
    rng: np.random.Generator,
    *,
    pace: float,
    frames: int,
    rate_hz: float,
) -> Tour:
    xy, yaw = [], []
    for leg in legs:
        n = max(2, round(leg.seconds / pace / FINE_S))
        fraction = np.arange(n) / n
        at = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(leg.path, axis=0), axis=1))])
        xy.append(np.stack([np.interp(fraction * at[-1], at, leg.path[:, k]) for k in range(2)], axis=1))
        yaw.append(leg.yaw[0] + fraction * (leg.yaw[1] - leg.yaw[0]))
    points, angle = np.concatenate(xy), np.concatenate(yaw)
    need = int(np.ceil((frames - 1) / rate_hz / FINE_S)) + 2
    if len(points) < need:
        points = np.concatenate([points, np.repeat(points[-1:], need - len(points), axis=0)])
        angle = np.concatenate([angle, np.repeat(angle[-1:], need - len(angle))])
    points, angle = points[: need + 200], angle[: need + 200]
    for sigma_s in (0.7, 0.5, 0.35, 0.2, 0.1):
        smooth = ndimage.gaussian_filter1d(points, sigma_s / FINE_S, axis=0, mode="nearest")
        if plan.at(smooth).min() >= 0.2:
            break
    angle = ndimage.gaussian_filter1d(angle, 0.6 / FINE_S, mode="nearest")

    t = np.arange(len(smooth)) * FINE_S
    phase = rng.uniform(0, 2 * np.pi, 9)

    def wave(k: int, hz: float) -> NDArray[np.float64]:
        return np.sin(2 * np.pi * hz * t + phase[k])

    height = 1.3 + 0.13 * wave(0, 0.031) + 0.01 * wave(1, 1.3)
    pitch = np.radians(-11 + 12 * wave(2, 0.083) + 4 * wave(3, 0.19) + 0.4 * wave(4, 0.9))
    roll = np.radians(1.2 * wave(5, 0.13) + 0.4 * wave(6, 0.7))
    angle = angle + np.radians(2.0 * wave(7, 0.23) + 0.4 * wave(8, 0.8))
    sideways = np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    smooth = smooth + 0.012 * wave(6, 0.65)[:, None] * sideways

    when = np.arange(frames) / rate_hz
    position = np.stack([np.interp(when, t, c) for c in (smooth[:, 0], smooth[:, 1], height)], axis=1)
    turned = [np.interp(when, t, c) for c in (angle, pitch, roll)]
    poses = np.stack([camera_pose(p, a, b, c) for p, a, b, c in zip(position, *turned, strict=True)])
    stamps = START_NS + np.rint(np.arange(frames) * (1e9 / rate_hz)).astype(np.int64)
    # Distance to a room's rectangle, 0 inside it.
    gap = np.stack(
        [
            np.linalg.norm(np.maximum(0, np.maximum(r.low - position[:, :2], position[:, :2] - r.high)), axis=1)
            for r in house.rooms
        ]
    )
    return Tour(poses, stamps, gap.argmin(axis=0))


def camera_pose(position: NDArray[np.float64], yaw: float, pitch: float, roll: float = 0.0) -> Transform:
    """T_world_camera of an optical frame at ``position`` (metres) that looks along yaw and pitch (up positive).

    Angles in radians; ``roll``: about the optical axis, clockwise as seen by the camera.
    """
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    return make_transform(np.stack([c * right + s * down, c * down - s * right, forward], axis=1), position)
