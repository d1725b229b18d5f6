"""Houses: rooms joined by doors, furnished so that nothing intersects and one can walk through.

World: z up, the floor at z = 0, metres (REP-103).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spatial_mllm_ros.simulation import furniture as make
from spatial_mllm_ros.simulation.furniture import Builder, Piece, Rng
from spatial_mllm_ros.simulation.materials import Material
from spatial_mllm_ros.simulation.solids import Mesh, box, quad, yaw_matrix
from spatial_mllm_ros.sources.source import SourceError

MAX_ROOMS = 12
WALL_M = 0.12
DOOR_WIDTH_M = 0.9
DOOR_HEIGHT_M = 2.05
WALK_RADIUS_M = 0.3  # half the width that a walking person needs
GAP_M = 0.02
STRUCTURE = ("floor", "ceiling", "wall", "doorway")

# Side of a room -> (axis across the wall, which end of it, yaw of the inward normal).
SIDES = ((0, 0, 0.0), (0, 1, np.pi), (1, 0, np.pi / 2), (1, 1, -np.pi / 2))


@dataclass(frozen=True, eq=False)
class Thing:
    """One object of a house, or a part of its structure (floor, ceiling, wall, doorway).

    name: unique. color: a word. room: index, of the first of both for a doorway. centre, size: metres, of the box
    that is turned by ``yaw`` (radians about z). solid: filled and box-shaped. flat: can be walked on.
    meshes: in the world.
    """

    name: str
    category: str
    color: str
    room: int
    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    yaw: float
    meshes: tuple[Mesh, ...]
    solid: bool = False
    flat: bool = False

    @property
    def is_structure(self) -> bool:
        return self.category in STRUCTURE

    def footprint(self, margin: float = 0.0) -> NDArray[np.float64]:
        """Corners of the turned box seen from above, widened by ``margin`` metres on every side, [4, 2]."""
        half = self.size[:2] / 2 + margin
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
        return corners @ yaw_matrix(self.yaw)[:2, :2].T + self.centre[:2]

    @property
    def bottom(self) -> float:
        return float(self.centre[2] - self.size[2] / 2)

    @property
    def top(self) -> float:
        return float(self.centre[2] + self.size[2] / 2)


@dataclass(frozen=True, eq=False)
class Door:
    """An opening through the wall between two rooms: the box between both faces of the wall, seen from above.

    rooms: both indices, the second lies behind the first's wall. low, high: corners [2], metres. axis: 0 when one walks
    through along x, 1 along y.
    """

    rooms: tuple[int, int]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    axis: int

    @property
    def centre(self) -> NDArray[np.float64]:
        return (self.low + self.high) / 2


@dataclass(frozen=True, eq=False)
class Room:
    """A rectangle seen from above, corners ``low`` and ``high`` [2] (faces of its walls), metres; ``kind``: its use."""

    kind: str
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def centre(self) -> NDArray[np.float64]:
        return (self.low + self.high) / 2

    @property
    def area(self) -> float:
        return float(np.prod(self.high - self.low))


@dataclass(frozen=True, eq=False)
class House:
    """Rooms, doors and things; ``ceiling`` is the height of every ceiling, metres."""

    seed: int
    ceiling: float
    rooms: tuple[Room, ...]
    doors: tuple[Door, ...]
    things: tuple[Thing, ...]

    def thing(self, name: str) -> Thing:
        """The thing of that name; KeyError when there is none."""
        for thing in self.things:
            if thing.name == name:
                return thing
        raise KeyError(f"no thing is called {name!r}")

    def walls_low_high(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners [2] of the rectangle round all rooms, metres."""
        return np.min([r.low for r in self.rooms], axis=0), np.max([r.high for r in self.rooms], axis=0)


def make_house(seed: int, rooms: int = 3) -> House:
    """The house of that seed: always the same. SourceError unless ``rooms`` is 1 to MAX_ROOMS."""
    if not 1 <= rooms <= MAX_ROOMS:
        raise SourceError(f"a house has 1 to {MAX_ROOMS} rooms, not {rooms}")
    for attempt in range(100):
        rng = np.random.default_rng([seed, rooms, attempt])
        plan = _plan(rng, rooms)
        if plan is not None:
            break
    else:
        raise SourceError(f"no plan of {rooms} rooms was found for seed {seed}: take another seed")
    ceiling = float(np.round(rng.uniform(2.4, 2.8), 2))
    return _Builder(seed, rng, ceiling, *plan).build()


def _plan(rng: Rng, count: int) -> tuple[list[Room], list[Door]] | None:
    kinds = ["living room", "kitchen", "bedroom", "study", "dining room"]
    kinds = [kinds[0], *rng.permutation(kinds[1:]).tolist()] * (count // 5 + 1)
    size = rng.uniform((3.4, 3.2), (5.6, 4.8))
    rooms = [Room(kinds[0], np.zeros(2), size)]
    doors: list[Door] = []
    used: list[tuple[int, int]] = []
    for _ in range(400):
        if len(rooms) == count:
            return rooms, doors
        i, side = int(rng.integers(max(0, len(rooms) - 2), len(rooms))), int(rng.integers(4))
        axis, end, _ = SIDES[side]
        if (i, side) in used:
            continue
        size = rng.uniform((3.0, 3.0), (5.4, 4.6))
        if rng.random() < 0.5:
            size = size[::-1]
        along = 1 - axis
        low = np.empty(2)
        low[axis] = rooms[i].high[axis] + WALL_M if end else rooms[i].low[axis] - WALL_M - size[axis]
        low[along] = rng.uniform(rooms[i].low[along] - size[along] + 1.8, rooms[i].high[along] - 1.8)
        high = low + size
        if any(((low < r.high + WALL_M / 2) & (high > r.low - WALL_M / 2)).all() for r in rooms):
            continue
        first = max(low[along], rooms[i].low[along]) + 0.3
        last = min(high[along], rooms[i].high[along]) - 0.3 - DOOR_WIDTH_M
        start = rng.uniform(first, last)
        door_low, door_high = np.empty(2), np.empty(2)
        face = rooms[i].high[axis] if end else rooms[i].low[axis] - WALL_M
        door_low[axis], door_high[axis] = face, face + WALL_M
        door_low[along], door_high[along] = start, start + DOOR_WIDTH_M
        doors.append(Door((i, len(rooms)), door_low, door_high, axis))
        rooms.append(Room(kinds[len(rooms)], low, high))
        used += [(i, side)]
    return (rooms, doors) if len(rooms) == count else None


@dataclass(eq=False)
class _Builder:
    seed: int
    rng: Rng
    ceiling: float
    rooms: list[Room]
    doors: list[Door]
    things: list[Thing] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)

    def build(self) -> House:
        for index in range(len(self.rooms)):
            self._structure(index)
        for door in self.doors:
            self._doorway(door)
        for index, room in enumerate(self.rooms):
            self._furnish(index, room)
        return House(self.seed, self.ceiling, tuple(self.rooms), tuple(self.doors), tuple(self.things))

    # structure

    def _material(self, texture: str, rgb: Sequence[float] | NDArray[np.float64], metres: float) -> Material:
        r, g, b = (int(c) for c in rgb)
        return Material(texture, (r, g, b), metres, int(self.rng.integers(1 << 30)))

    def _structure(self, index: int) -> None:
        rng, room, h = self.rng, self.rooms[index], self.ceiling
        floors = {
            "living room": ("planks", (176, 136, 96), 1.3),
            "bedroom": ("planks", (150, 112, 80), 1.1),
            "kitchen": ("tiles", (190, 186, 178), 1.6),
            "study": ("fabric", (118, 128, 136), 0.6),
            "dining room": ("checker", (206, 196, 176), 1.6),
        }
        texture, rgb, metres = floors[room.kind]
        floor = self._material(texture, np.array(rgb) * rng.uniform(0.85, 1.1), metres)
        paints = [(226, 218, 202), (196, 210, 214), (214, 202, 182), (202, 212, 192), (224, 206, 200), (208, 208, 222)]
        paper = "wallpaper" if rng.random() < 0.45 and room.kind != "kitchen" else "plaster"
        wall = self._material(paper, paints[int(rng.integers(len(paints)))], 0.9)
        white = self._material("plaster", (240, 238, 232), 1.4)
        (x0, y0), (x1, y1) = room.low, room.high
        dx, dy = x1 - x0, y1 - y0
        self._add("floor", "brown", index, (quad((x0, y0, 0), (dx, 0, 0), (0, dy, 0), floor),))
        self._add("ceiling", "white", index, (quad((x0, y0, h), (0, dy, 0), (dx, 0, 0), white),))
        for side, (axis, end, _) in enumerate(SIDES):
            self._add("wall", "beige", index, tuple(self._wall(index, side, axis, end, wall)))

    def _wall(self, index: int, side: int, axis: int, end: int, material: Material) -> list[Mesh]:
        """The inner face of one wall, its door openings left out."""
        room, along = self.rooms[index], 1 - axis
        at = room.high[axis] if end else room.low[axis]
        openings = sorted((d.low[along], d.high[along]) for d in self.doors if _opens(d, room, axis, at))
        # Seen from inside, u runs so that u x z points into the room.
        forward = side in (1, 2)
        parts = []

        def panel(a: float, b: float, low: float, high: float) -> None:
            start, edge = np.zeros(3), np.zeros(3)
            start[axis], start[along], start[2] = at, a if forward == (axis == 0) else b, low
            edge[along] = b - a if forward == (axis == 0) else a - b
            if np.cross(edge, (0, 0, 1))[axis] * (1 if end == 0 else -1) < 0:
                start[along], edge = start[along] + edge[along], -edge
            parts.append(quad(start, edge, (0, 0, high - low), material))

        a = room.low[along]
        for first, last in openings:
            panel(a, first, 0.0, self.ceiling)
            panel(first, last, DOOR_HEIGHT_M, self.ceiling)
            a = last
        panel(a, room.high[along], 0.0, self.ceiling)
        return parts

    def _doorway(self, door: Door) -> None:
        """The inside of an opening: threshold, lintel and both jambs, with a frame on both faces of the wall."""
        wood = self._material("wood", (150, 108, 70), 0.8)
        (x0, y0), (x1, y1) = door.low, door.high
        dx, dy, h = x1 - x0, y1 - y0, DOOR_HEIGHT_M
        parts = [
            quad((x0, y0, 0), (dx, 0, 0), (0, dy, 0), wood),
            quad((x0, y0, h), (0, dy, 0), (dx, 0, 0), wood),
        ]
        if door.axis == 0:
            parts += [quad((x1, y0, 0), (-dx, 0, 0), (0, 0, h), wood), quad((x0, y1, 0), (dx, 0, 0), (0, 0, h), wood)]
        else:
            parts += [quad((x0, y0, 0), (0, dy, 0), (0, 0, h), wood), quad((x1, y1, 0), (0, -dy, 0), (0, 0, h), wood)]
        along = 1 - door.axis
        for face, outward in ((door.low[door.axis], -1), (door.high[door.axis], 1)):
            for low, high, z, tall in (
                (door.low[along] - 0.07, door.low[along], 0.0, h + 0.07),
                (door.high[along], door.high[along] + 0.07, 0.0, h + 0.07),
                (door.low[along], door.high[along], h, 0.07),
            ):
                size, centre = np.zeros(3), np.zeros(3)
                size[door.axis], size[along], size[2] = 0.02, high - low, tall
                centre[door.axis], centre[along], centre[2] = face + outward * 0.01, (low + high) / 2, z + tall / 2
                parts.append(box(size.tolist(), centre.tolist(), wood))
        self._add("doorway", "brown", door.rooms[0], tuple(parts))

    def _add(
        self,
        category: str,
        color: str,
        room: int,
        meshes: tuple[Mesh, ...],
        *,
        yaw: float = 0.0,
        solid: bool = False,
        flat: bool = False,
    ) -> Thing:
        corners = np.concatenate([m.corners.reshape(-1, 3) for m in meshes])
        R = yaw_matrix(yaw)
        local = corners @ R
        low, high = local.min(axis=0), local.max(axis=0)
        number = self.names[category] = self.names.get(category, 0) + 1
        centre = R @ ((low + high) / 2)
        thing = Thing(f"{category} {number}", category, color, room, centre, high - low, yaw, meshes, solid, flat)
        self.things.append(thing)
        return thing

    # furniture

    def _furnish(self, index: int, room: Room) -> None:
        rng = self.rng
        lamp = make.ceiling_lamp(rng)
        spot = (*room.centre, self.ceiling - 0.1)
        self._add(lamp.category, lamp.color, index, tuple(m.moved(0.0, spot) for m in lamp.meshes))
        against, free, count = ROOM_CONTENTS[room.kind]
        share = min(1.0, room.area / 16)
        wanted = [*against[:2], *rng.permutation(np.array(against[2:], dtype=object)).tolist()[: round(count * share)]]
        self._windows(index, room)
        for builder in wanted:
            placed = self._against_wall(index, room, builder(rng))
            if placed is None:
                continue
            if builder is make.desk:
                self._chair_at(index, room, placed, np.array([1.0, 0.0]))
        for builder in free:
            placed = self._free_standing(index, room, builder(rng))
            if placed is not None and builder in (make.table, make.round_table):
                self._chairs_round(index, room, placed)
        for builder in (make.plant, make.carton, make.waste_bin, make.carton, make.stool, make.carton):
            if rng.random() < 0.65:
                self._anywhere(index, room, builder(rng))
        self._pictures(index, room)
        if rng.random() < 0.8:
            self._rug(index, room)

    def _put(self, index: int, piece: Piece, yaw: float, spot: Sequence[float], clear: float = 0.0) -> Thing | None:
        """Place a piece unless it would touch something or block the way. ``clear``: extra space round it, metres."""
        low, high = piece.bounds()
        middle = (low + high) / 2
        R = yaw_matrix(yaw)
        size = high - low
        centre = R @ middle + np.asarray(spot, dtype=np.float64)
        thing = Thing("", piece.category, piece.color, index, centre, size, yaw, (), piece.solid, piece.flat)
        room = self.rooms[index]
        corners = thing.footprint(0.008)
        if (corners < room.low).any() or (corners > room.high).any() or thing.top > self.ceiling - 0.01:
            return None
        for other in self.things:
            if other.room != index or other.is_structure or piece.flat or other.flat:
                continue
            if thing.bottom >= other.top - 1e-6 or thing.top <= other.bottom + 1e-6:
                continue
            if overlap(thing.footprint(max(clear, 0.004)), other.footprint(0.004)):
                return None
        for door in self.doors:
            if index in door.rooms and not piece.flat and overlap(corners, _doormat(door)):
                return None
        if thing.bottom < 1.9 and not piece.flat and spot[2] == 0.0 and not self._walkable(index, thing):
            return None
        return self._add(
            piece.category,
            piece.color,
            index,
            tuple(m.moved(yaw, spot) for m in piece.meshes),
            yaw=yaw,
            solid=piece.solid,
            flat=piece.flat,
        )

    def _walkable(self, index: int, extra: Thing) -> bool:
        """Whether doors stay joined and a third of what can be walked on stays so."""
        room = self.rooms[index]
        step = 0.1
        xs, ys = (np.arange(room.low[k] + step / 2, room.high[k], step) for k in (0, 1))
        points = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)
        reach = WALK_RADIUS_M + 0.05
        free = np.ones(points.shape[:2], dtype=bool)
        for thing in (*self.things, extra):
            if thing.room == index and not thing.is_structure and not thing.flat and thing.bottom < 1.9:
                free &= ~inside_turned_box(points, thing, reach)
        mats = [_doormat(d) for d in self.doors if index in d.rooms]
        doors = [((points >= mat.min(axis=0)) & (points <= mat.max(axis=0))).all(axis=-1) for mat in mats]
        edge = ((points < room.low + reach) | (points > room.high - reach)).any(axis=-1)
        inner = free & (~edge | np.any([*doors, np.zeros_like(edge)], axis=0))
        labels, count = ndimage.label(inner)
        if count == 0:
            return False
        sizes = np.bincount(labels.ravel())[1:]
        main = int(sizes.argmax()) + 1
        possible = max(1, int((~edge).sum()))
        return bool(sizes[main - 1] > 0.34 * possible) and all((labels[d] == main).any() for d in doors)

    def _against_wall(self, index: int, room: Room, piece: Piece) -> Thing | None:
        rng = self.rng
        low, high = piece.bounds()
        for _ in range(24):
            axis, end, yaw = SIDES[int(rng.integers(4))]
            along = 1 - axis
            half = (high - low)[1] / 2 + GAP_M
            if room.high[along] - room.low[along] < 2 * half:
                continue
            spot = np.zeros(3)
            depth = -low[0] + GAP_M
            spot[axis] = room.low[axis] + depth if end == 0 else room.high[axis] - depth
            where = rng.uniform(room.low[along] + half, room.high[along] - half)
            if rng.random() < 0.5:  # in a corner
                where = (room.low[along] + half) if rng.random() < 0.5 else (room.high[along] - half)
            spot[along] = where
            placed = self._put(index, piece, yaw, spot.tolist())
            if placed is not None:
                self._load(index, piece, placed, spot, yaw)
                return placed
        return None

    def _free_standing(self, index: int, room: Room, piece: Piece) -> Thing | None:
        rng = self.rng
        for _ in range(24):
            yaw = float(rng.choice([0.0, np.pi / 2])) + rng.uniform(-0.12, 0.12)
            middle = room.centre + rng.uniform(-0.3, 0.3, 2) * (room.high - room.low)
            placed = self._put(index, piece, yaw, (*middle, 0.0), clear=0.1)
            if placed is not None:
                self._load(index, piece, placed, np.array((*middle, 0.0)), yaw)
                return placed
        return None

    def _anywhere(self, index: int, room: Room, piece: Piece) -> None:
        rng = self.rng
        for _ in range(20):
            spot = rng.uniform(room.low + 0.25, room.high - 0.25)
            if rng.random() < 0.7:  # near a wall
                axis = int(rng.integers(2))
                reach = 0.28
                spot[axis] = room.low[axis] + reach if rng.random() < 0.5 else room.high[axis] - reach
            yaw = rng.uniform(-np.pi, np.pi)
            placed = self._put(index, piece, yaw, (*spot, 0.0))
            if placed is not None:
                self._load(index, piece, placed, np.array((*spot, 0.0)), yaw, limit=1)
                return

    def _chair_at(self, index: int, room: Room, table: Thing, side: NDArray[np.float64], shift: float = 0.0) -> None:
        """A chair that faces the table from ``side`` (unit, in its frame), moved by ``shift`` along the edge."""
        piece = make.chair(self.rng)
        _, high = piece.bounds()
        reach = abs(side) @ (table.size[:2] / 2) + high[0] + self.rng.uniform(0.03, 0.12)
        local = side * reach + np.array([-side[1], side[0]]) * shift
        spot = yaw_matrix(table.yaw)[:2, :2] @ local + table.centre[:2]
        yaw = table.yaw + np.arctan2(-side[1], -side[0]) + self.rng.uniform(-0.06, 0.06)
        self._put(index, piece, float(yaw), (*spot, 0.0))

    def _chairs_round(self, index: int, room: Room, table: Thing) -> None:
        for side in (np.array([1.0, 0.0]), np.array([-1.0, 0.0])):
            shifts = (-0.32, 0.32) if table.size[1] > 1.3 else (0.0,)
            for shift in shifts:
                self._chair_at(index, room, table, side, shift)
        for side in (np.array([0.0, 1.0]), np.array([0.0, -1.0])):
            if self.rng.random() < 0.4:
                self._chair_at(index, room, table, side)

    def _load(
        self, index: int, piece: Piece, placed: Thing, spot: NDArray[np.float64], yaw: float, *, limit: int = 4
    ) -> None:
        """Small things on top of a piece."""
        rng = self.rng
        for top in piece.tops:
            if piece.category == "desk":
                x = top.x - top.half_x + 0.14
                self._put_on(index, make.monitor(rng), spot, yaw, (x, rng.uniform(-0.1, 0.1), top.z), turn=0.0)
            large = top.half_x * top.half_y > 0.06
            count = int(rng.integers(1, limit + 1)) if large and limit > 1 else int(rng.random() < 0.35)
            for _ in range(count):
                small = SMALL_THINGS[int(rng.integers(len(SMALL_THINGS)))](rng)
                low, high = small.bounds()
                reach = float(np.hypot(*(high - low)[:2]) / 2) + 0.01
                room_x, room_y = top.half_x - reach, top.half_y - reach
                if room_x <= 0 or room_y <= 0:
                    continue
                for _ in range(5):
                    at = (top.x + rng.uniform(-room_x, room_x), top.y + rng.uniform(-room_y, room_y), top.z)
                    if self._put_on(index, small, spot, yaw, at, turn=rng.uniform(-np.pi, np.pi)):
                        break

    def _put_on(
        self,
        index: int,
        small: Piece,
        spot: NDArray[np.float64],
        yaw: float,
        at: tuple[float, float, float],
        *,
        turn: float,
    ) -> bool:
        """Put a small piece at ``at``, in the frame of a larger one that stands at ``spot``, turned by ``yaw``."""
        place = yaw_matrix(yaw) @ np.array(at) + spot
        return self._put(index, small, yaw + turn, place.tolist(), clear=0.01) is not None

    def _on_wall(self, index: int, room: Room, piece: Piece, height: float) -> bool:
        rng = self.rng
        low, high = piece.bounds()
        for _ in range(12):
            axis, end, yaw = SIDES[int(rng.integers(4))]
            along = 1 - axis
            at = room.low[axis] if end == 0 else room.high[axis]
            half = (high - low)[1] / 2 + 0.1
            first, last = room.low[along] + half, room.high[along] - half
            if last <= first:
                continue
            spot = np.zeros(3)
            spot[axis] = at + (0.01 - low[0]) * (1 if end == 0 else -1)
            spot[along], spot[2] = rng.uniform(first, last), height
            clear = any(
                _opens(d, room, axis, at)
                and spot[along] - half < d.high[along] + 0.05
                and spot[along] + half > d.low[along] - 0.05
                for d in self.doors
            )
            if not clear and self._put(index, piece, yaw, spot.tolist()) is not None:
                return True
        return False

    def _windows(self, index: int, room: Room) -> None:
        for _ in range(int(self.rng.integers(1, 3))):
            self._on_wall(index, room, make.window(self.rng), self.rng.uniform(0.85, 1.05))

    def _pictures(self, index: int, room: Room) -> None:
        for _ in range(int(self.rng.integers(3, 6))):
            self._on_wall(index, room, make.picture(self.rng), self.rng.uniform(1.15, 1.5))

    def _rug(self, index: int, room: Room) -> None:
        rng = self.rng
        for _ in range(10):
            piece = make.rug(rng)
            spot = room.centre + rng.uniform(-0.6, 0.6, 2)
            thing = self._put(index, piece, float(rng.choice([0.0, np.pi / 2])), (*spot, 0.0))
            if thing is None:
                continue
            # A rug must not go through what stands on the floor.
            others = [t for t in self.things if t.room == index and not t.is_structure and t is not thing]
            if any(t.bottom < 0.02 and overlap(t.footprint(0.005), thing.footprint()) for t in others):
                self.things.remove(thing)
                self.names[piece.category] -= 1
                continue
            return


def _opens(door: Door, room: Room, axis: int, at: float) -> bool:
    """Whether the door opens in the wall of the room at coordinate ``at`` of ``axis``."""
    if door.axis != axis or min(abs(door.low[axis] - at), abs(door.high[axis] - at)) > 1e-6:
        return False
    along = 1 - axis
    return bool(door.low[along] >= room.low[along] - 1e-6 and door.high[along] <= room.high[along] + 1e-6)


def _doormat(door: Door) -> NDArray[np.float64]:
    """What must stay free on both sides of a door, corners [4, 2]."""
    low, high = door.low - 0.09, door.high + 0.09
    low[door.axis] -= 0.8
    high[door.axis] += 0.8
    return np.array([low, (high[0], low[1]), high, (low[0], high[1])])


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether two rectangles, corners [4, 2] in order, share area (separating axes)."""
    for corners in (a, b):
        for edge in (corners[1] - corners[0], corners[3] - corners[0]):
            p, q = a @ edge, b @ edge
            if p.max() <= q.min() or q.max() <= p.min():
                return False
    return True


def inside_turned_box(points: NDArray[np.float64], thing: Thing, margin: float) -> NDArray[np.bool_]:
    """Whether points [..., 2], seen from above, are within ``margin`` metres of the thing's box (square corners)."""
    local = (points - thing.centre[:2]) @ yaw_matrix(thing.yaw)[:2, :2]
    return np.asarray((np.abs(local) <= thing.size[:2] / 2 + margin).all(axis=-1))


# For every kind of room: against the walls (the first two always, then some of the rest, this many), standing free.
ROOM_CONTENTS: dict[str, tuple[list[Builder], list[Builder], int]] = {
    "living room": (
        [make.sofa, make.tv_stand, make.bookcase, make.cabinet, make.armchair, make.floor_lamp, make.bookcase],
        [make.coffee_table, make.armchair],
        4,
    ),
    "kitchen": (
        [make.counter, make.fridge, make.cabinet, make.counter, make.bookcase],
        [make.table],
        2,
    ),
    "bedroom": (
        [make.bed, make.wardrobe, make.nightstand, make.dresser, make.nightstand, make.floor_lamp, make.cabinet],
        [],
        4,
    ),
    "study": (
        [make.desk, make.bookcase, make.bookcase, make.cabinet, make.armchair, make.floor_lamp, make.dresser],
        [make.round_table],
        4,
    ),
    "dining room": (
        [make.cabinet, make.dresser, make.bookcase, make.armchair, make.floor_lamp],
        [make.table],
        2,
    ),
}
SMALL_THINGS: list[Builder] = [
    make.cup,
    make.bottle,
    make.toy_ball,
    make.bowl,
    make.books,
    make.small_box,
    make.vase,
    make.table_lamp,
    make.small_box,
    make.cup,
]
