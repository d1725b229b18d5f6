"""The pieces that rooms are furnished with.

Every builder takes a random generator and returns a Piece in its own frame: the middle of its footprint at the origin,
z = 0 where it stands, its front towards +x. Metres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.simulation.materials import COLORS, Material
from spatial_mllm_ros.simulation.solids import Mesh, ball, box, cylinder, lathe


@dataclass(frozen=True)
class Top:
    """A surface on which things can stand: its height, the middle of it and half its size along x and y, metres."""

    z: float
    x: float
    y: float
    half_x: float
    half_y: float


@dataclass(frozen=True, eq=False)
class Piece:
    """One thing before it has a place. ``solid``: filled and box-shaped to within 2 cm. ``flat``: can be walked on."""

    category: str
    color: str
    meshes: tuple[Mesh, ...]
    tops: tuple[Top, ...] = field(default=())
    solid: bool = False
    flat: bool = False

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest coordinates [3], metres."""
        corners = np.concatenate([m.corners.reshape(-1, 3) for m in self.meshes])
        return corners.min(axis=0), corners.max(axis=0)


Builder = Callable[[np.random.Generator], Piece]
Rng = np.random.Generator

WOODS = {"brown": (126, 86, 56), "beige": (196, 164, 118), "white": (228, 226, 220), "black": (58, 52, 50)}


def _pick(rng: Rng, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _material(rng: Rng, texture: str, color: str, metres: float = 0.8, **options: bool) -> Material:
    return Material(texture, COLORS[color], metres, int(rng.integers(1 << 30)), **options)


def _wood(rng: Rng, color: str, metres: float = 0.9) -> Material:
    texture = "plain" if color in ("white", "black") else "wood"
    return Material(texture, WOODS[color], metres, int(rng.integers(1 << 30)))


def _legs(
    length: float, width: float, height: float, thick: float, wood: Material, *, inset: float = 0.03
) -> list[Mesh]:
    x, y = length / 2 - thick / 2 - inset, width / 2 - thick / 2 - inset
    return [box((thick, thick, height), (i * x, j * y, height / 2), wood) for i in (-1, 1) for j in (-1, 1)]


def table(rng: Rng) -> Piece:
    """A dining table; its long side is along y."""
    deep, wide, high = rng.uniform(0.75, 0.9), rng.uniform(1.2, 1.7), rng.uniform(0.7, 0.77)
    color = _pick(rng, list(WOODS))
    wood = _wood(rng, color)
    top = box((deep, wide, 0.035), (0, 0, high - 0.0175), wood)
    parts = [top, *_legs(deep, wide, high - 0.035, rng.uniform(0.05, 0.07), wood)]
    return Piece("table", color, tuple(parts), (Top(high, 0, 0, deep / 2, wide / 2),))


def round_table(rng: Rng) -> Piece:
    radius, high = rng.uniform(0.4, 0.55), rng.uniform(0.7, 0.76)
    color = _pick(rng, list(WOODS))
    wood = _wood(rng, color)
    parts = (
        cylinder(0.24, 0.03, (0, 0, 0), wood),
        cylinder(0.05, high - 0.06, (0, 0, 0.03), wood, 12),
        cylinder(radius, 0.03, (0, 0, high - 0.03), wood, 28),
    )
    return Piece("round table", color, parts, (Top(high, 0, 0, 0.6 * radius, 0.6 * radius),))


def chair(rng: Rng) -> Piece:
    size, seat, back = rng.uniform(0.4, 0.45), rng.uniform(0.43, 0.47), rng.uniform(0.8, 0.95)
    color = _pick(rng, ["brown", "beige", "white", "black"])
    wood = _wood(rng, color)
    cushion = _pick(rng, ["red", "blue", "green", "grey", "yellow"])
    parts = [
        *_legs(size, size, seat - 0.03, 0.038, wood, inset=0.0),
        box((size, size, 0.03), (0, 0, seat - 0.015), wood),
        box((size - 0.05, size - 0.05, 0.025), (0.01, 0, seat + 0.0125), _material(rng, "fabric", cushion, 0.3)),
        box((0.03, 0.04, back - seat), (-size / 2 + 0.015, size / 2 - 0.02, (back + seat) / 2), wood),
        box((0.03, 0.04, back - seat), (-size / 2 + 0.015, -size / 2 + 0.02, (back + seat) / 2), wood),
        box((0.025, size - 0.08, 0.22), (-size / 2 + 0.015, 0, back - 0.12), wood),
    ]
    return Piece("chair", color, tuple(parts))


def stool(rng: Rng) -> Piece:
    color = _pick(rng, ["red", "yellow", "teal", "white", "orange"])
    high = rng.uniform(0.42, 0.5)
    wood = _wood(rng, "beige")
    parts = [*_legs(0.26, 0.26, high - 0.06, 0.03, wood, inset=0.0)]
    parts.append(cylinder(0.19, 0.06, (0, 0, high - 0.06), _material(rng, "fabric", color, 0.4)))
    return Piece("stool", color, tuple(parts))


def _seat(rng: Rng, category: str, wide: float, cushions: int) -> Piece:
    color = _pick(rng, ["grey", "blue", "green", "red", "beige", "teal", "purple"])
    cloth, deep, arm = _material(rng, "fabric", color, 0.5), rng.uniform(0.82, 0.92), 0.15
    inner = wide - 2 * arm
    parts = [
        box((deep, wide - 0.02, 0.24), (0, 0, 0.18), cloth),
        box((0.2, wide, 0.5), (-deep / 2 + 0.1, 0, 0.55), cloth),
        *(box((deep - 0.2, arm, 0.3), (0.1, j * (wide - arm) / 2, 0.45), cloth) for j in (-1, 1)),
        *_legs(deep - 0.1, wide - 0.1, 0.06, 0.05, _wood(rng, "black")),
    ]
    each = inner / cushions
    for i in range(cushions):
        y = -inner / 2 + (i + 0.5) * each
        parts.append(box((deep - 0.22, each - 0.012, 0.13), (0.1, y, 0.365), cloth))
    if rng.random() < 0.8:
        accent = _pick(rng, ["yellow", "orange", "white", "pink", "blue", "red"])
        pillow = box(
            (0.14, 0.38, 0.36), (-deep / 2 + 0.28, inner / 2 - 0.22, 0.61), _material(rng, "stripes", accent, 0.4)
        )
        parts.append(pillow)
    return Piece(category, color, tuple(parts))


def sofa(rng: Rng) -> Piece:
    wide = rng.uniform(1.55, 2.1)
    return _seat(rng, "sofa", wide, 2 if wide < 1.9 else 3)


def armchair(rng: Rng) -> Piece:
    return _seat(rng, "armchair", rng.uniform(0.85, 0.95), 1)


def bed(rng: Rng) -> Piece:
    long, wide, head = 2.06, rng.uniform(1.0, 1.6), rng.uniform(0.85, 1.05)
    wood_color = _pick(rng, ["brown", "beige", "white"])
    color = _pick(rng, ["blue", "green", "red", "purple", "grey", "teal", "pink"])
    wood, cloth = _wood(rng, wood_color), _material(rng, _pick(rng, ["stripes", "fabric", "checker"]), color, 0.7)
    white = _material(rng, "fabric", "white", 0.4)
    parts = [
        box((long - 0.06, wide, 0.2), (0.03, 0, 0.2), wood),
        *_legs(long - 0.1, wide, 0.1, 0.07, wood),
        box((0.06, wide, head), (-long / 2 + 0.03, 0, head / 2), wood),
        box((long - 0.1, wide - 0.04, 0.16), (0.03, 0, 0.38), white),
        box((long * 0.66, wide - 0.01, 0.05), (0.2 * long - 0.07, 0, 0.485), cloth),
    ]
    pillows = 1 if wide < 1.25 else 2
    for i in range(pillows):
        y = (i - (pillows - 1) / 2) * wide / 2
        parts.append(box((0.36, min(0.62, 0.9 * wide / pillows), 0.11), (-long / 2 + 0.3, y, 0.515), white))
    return Piece("bed", color, tuple(parts))


def _chest(rng: Rng, category: str, size: tuple[float, float, float], columns: int, rows: int) -> Piece:
    deep, wide, high = size
    color = _pick(rng, ["brown", "beige", "white", "blue", "green", "grey"])
    body = _wood(rng, color) if color in WOODS else _material(rng, "plain", color)
    front, knob = (
        _wood(rng, color) if color in WOODS else _material(rng, "plain", color),
        _material(rng, "plain", "black"),
    )
    parts = [box((deep - 0.015, wide, high), (-0.0075, 0, high / 2), body)]
    each_y, each_z = wide / columns, (high - 0.08) / rows
    for i in range(columns):
        for j in range(rows):
            y, z = -wide / 2 + (i + 0.5) * each_y, 0.06 + (j + 0.5) * each_z
            parts.append(box((0.012, each_y - 0.02, each_z - 0.02), (deep / 2 - 0.009, y, z), front))
            pull = (0.004, 0.1, 0.02) if rows > 1 else (0.004, 0.02, 0.14)
            shift = 0.0 if rows > 1 else (0.5 - i) * 2 * (each_y / 2 - 0.05) if columns == 2 else each_y / 2 - 0.05
            parts.append(box(pull, (deep / 2 - 0.001, y + shift, z), knob))
    return Piece(category, color, tuple(parts), (Top(high, 0, 0, deep / 2, wide / 2),), solid=True)


def cabinet(rng: Rng) -> Piece:
    return _chest(rng, "cabinet", (rng.uniform(0.38, 0.48), rng.uniform(0.8, 1.3), rng.uniform(0.75, 1.05)), 2, 1)


def dresser(rng: Rng) -> Piece:
    return _chest(rng, "dresser", (rng.uniform(0.42, 0.5), rng.uniform(0.75, 1.2), rng.uniform(0.75, 1.0)), 1, 4)


def wardrobe(rng: Rng) -> Piece:
    piece = _chest(rng, "wardrobe", (rng.uniform(0.55, 0.62), rng.uniform(1.0, 1.7), rng.uniform(1.9, 2.1)), 2, 1)
    return Piece(piece.category, piece.color, piece.meshes, (), True)


def nightstand(rng: Rng) -> Piece:
    return _chest(rng, "nightstand", (rng.uniform(0.36, 0.42), rng.uniform(0.4, 0.5), rng.uniform(0.45, 0.58)), 1, 2)


def fridge(rng: Rng) -> Piece:
    deep, wide, high = 0.65, rng.uniform(0.58, 0.66), rng.uniform(1.6, 1.85)
    color = _pick(rng, ["white", "grey", "red", "teal"])
    skin, dark = _material(rng, "plain", color), _material(rng, "plain", "black")
    parts = (
        box((deep - 0.02, wide, high), (-0.01, 0, high / 2), skin),
        box((0.015, wide - 0.01, high * 0.34), (deep / 2 - 0.0125, 0, high * 0.82), skin),
        box((0.015, wide - 0.01, high * 0.60), (deep / 2 - 0.0125, 0, high * 0.335), skin),
        box((0.005, 0.025, 0.3), (deep / 2 - 0.0025, wide / 2 - 0.07, high * 0.5), dark),
    )
    return Piece("fridge", color, parts, solid=True)


def counter(rng: Rng) -> Piece:
    deep, wide, high = 0.6, rng.uniform(1.4, 2.3), rng.uniform(0.88, 0.93)
    color = _pick(rng, ["white", "grey", "blue", "green", "beige"])
    body, dark = _material(rng, "plain", color), _material(rng, "plain", "black")
    stone = _material(rng, "plaster", _pick(rng, ["grey", "brown", "beige"]), 0.3)
    parts = [
        box((deep - 0.05, wide, high - 0.04), (-0.025, 0, (high - 0.04) / 2), body),
        box((deep, wide + 0.02, 0.04), (0, 0, high - 0.02), stone),
    ]
    doors = max(2, round(wide / 0.5))
    for i in range(doors):
        y = -wide / 2 + (i + 0.5) * wide / doors
        parts.append(box((0.015, wide / doors - 0.015, high - 0.18), (deep / 2 - 0.0425, y, high / 2 + 0.01), body))
        parts.append(box((0.012, 0.12, 0.015), (deep / 2 - 0.029, y, high - 0.12), dark))
    return Piece("kitchen counter", color, tuple(parts), (Top(high, 0, 0, deep / 2, wide / 2),))


def bookcase(rng: Rng) -> Piece:
    deep, wide, high, t = rng.uniform(0.28, 0.34), rng.uniform(0.75, 1.2), rng.uniform(1.5, 2.0), 0.025
    color = _pick(rng, ["brown", "beige", "white", "black"])
    wood = _wood(rng, color)
    parts = [
        *(box((deep, t, high), (0, j * (wide - t) / 2, high / 2), wood) for j in (-1, 1)),
        box((0.01, wide - 2 * t, high), (-deep / 2 + 0.005, 0, high / 2), wood),
    ]
    shelves = int(rng.integers(4, 6))
    gap = (high - t - 0.06) / shelves
    for i in range(shelves + 1):
        z = 0.06 + i * gap
        parts.append(box((deep - 0.02, wide - 2 * t, t), (0.0, 0, z + t / 2), wood))
        if i == shelves:
            break
        filled = rng.uniform(0.35, 1.0) * (wide - 2 * t)
        tall = gap - t - rng.uniform(0.03, 0.08)
        books = Material("books", (200, 200, 200), 0.5, int(rng.integers(1 << 30)))
        y = -(wide - 2 * t) / 2 + filled / 2 if rng.random() < 0.5 else (wide - 2 * t) / 2 - filled / 2
        parts.append(box((deep - 0.09, filled, tall), (-0.02, y, z + t + tall / 2), books))
    return Piece("bookcase", color, tuple(parts))


def desk(rng: Rng) -> Piece:
    deep, wide, high = rng.uniform(0.65, 0.75), rng.uniform(1.15, 1.55), rng.uniform(0.71, 0.75)
    color = _pick(rng, ["beige", "white", "brown"])
    wood = _wood(rng, color)
    parts = (
        box((deep, wide, 0.03), (0, 0, high - 0.015), wood),
        *(box((deep - 0.06, 0.03, high - 0.03), (0, j * (wide / 2 - 0.05), (high - 0.03) / 2), wood) for j in (-1, 1)),
        box((0.02, wide - 0.13, 0.3), (-deep / 2 + 0.08, 0, high - 0.2), wood),
    )
    return Piece("desk", color, parts, (Top(high, 0, 0, deep / 2, wide / 2),))


def coffee_table(rng: Rng) -> Piece:
    deep, wide, high = rng.uniform(0.5, 0.6), rng.uniform(0.8, 1.1), rng.uniform(0.38, 0.46)
    color = _pick(rng, list(WOODS))
    wood = _wood(rng, color)
    parts = [
        box((deep, wide, 0.03), (0, 0, high - 0.015), wood),
        box((deep - 0.14, wide - 0.14, 0.02), (0, 0, 0.14), wood),
        *_legs(deep, wide, high - 0.03, 0.045, wood),
    ]
    return Piece("coffee table", color, tuple(parts), (Top(high, 0, 0, deep / 2, wide / 2),))


def tv_stand(rng: Rng) -> Piece:
    """A low board with a television on it."""
    deep, wide, high = rng.uniform(0.38, 0.45), rng.uniform(1.2, 1.6), rng.uniform(0.4, 0.52)
    color = _pick(rng, list(WOODS))
    wood, dark = _wood(rng, color), _material(rng, "plain", "black")
    screen = Material("screen", (24, 28, 40), 1.0, int(rng.integers(1 << 30)), measurable=False)
    tall, across = rng.uniform(0.55, 0.65), rng.uniform(0.95, 1.1)
    parts = (
        box((deep, wide, high), (0, 0, high / 2), wood),
        box((0.2, 0.4, 0.02), (-0.05, 0, high + 0.01), dark),
        box((0.04, 0.08, 0.08), (-0.07, 0, high + 0.06), dark),
        box((0.045, across, tall), (-0.05, 0, high + 0.1 + tall / 2), dark),
        box((0.004, across - 0.03, tall - 0.03), (-0.0255, 0, high + 0.1 + tall / 2), screen, fit=True),
    )
    return Piece("television on a stand", color, parts)


def floor_lamp(rng: Rng) -> Piece:
    color = _pick(rng, ["white", "yellow", "red", "beige", "teal"])
    high = rng.uniform(1.45, 1.7)
    metal = _material(rng, "plain", _pick(rng, ["black", "grey"]))
    shade = Material("fabric", COLORS[color], 0.3, int(rng.integers(1 << 30)), glow=True)
    parts = (
        cylinder(0.15, 0.025, (0, 0, 0), metal),
        cylinder(0.014, high - 0.3, (0, 0, 0.025), metal, 8),
        lathe([(0.0, 0.0), (0.2, 0.0), (0.13, 0.28), (0.0, 0.28)], (0, 0, high - 0.28), shade),
    )
    return Piece("floor lamp", color, parts)


def plant(rng: Rng) -> Piece:
    color = _pick(rng, ["brown", "white", "blue", "orange"])
    high, radius = rng.uniform(0.8, 1.4), rng.uniform(0.16, 0.2)
    leaves = Material("leaves", COLORS["green"], 0.35, int(rng.integers(1 << 30)))
    parts = [
        lathe([(0.0, 0.0), (0.75 * radius, 0.0), (radius, 0.3), (0.0, 0.3)], (0, 0, 0), _material(rng, "plain", color)),
        cylinder(0.02, high - 0.5, (0, 0, 0.3), _wood(rng, "brown"), 8),
    ]
    for i in range(4):
        turn = i * 2.4 + rng.uniform(0, 1)
        out = 0.0 if i == 0 else 0.13
        z = high - 0.18 - 0.11 * i
        parts.append(ball(rng.uniform(0.13, 0.18), (out * np.cos(turn), out * np.sin(turn), z), leaves, 0.8))
    return Piece("plant", color, tuple(parts))


def carton(rng: Rng) -> Piece:
    size = rng.uniform(0.28, 0.55, 3)
    color = _pick(rng, ["brown", "beige", "brown", "blue", "red"])
    rgb = (176, 134, 88) if color == "brown" else COLORS[color]
    skin = Material("cardboard", rgb, 0.6, int(rng.integers(1 << 30)))
    body = box(size.tolist(), (0, 0, size[2] / 2), skin, fit=True)
    tops = (Top(size[2], 0, 0, size[0] / 2, size[1] / 2),)
    return Piece("box", color, (body,), tops, solid=True)


def waste_bin(rng: Rng) -> Piece:
    color = _pick(rng, ["grey", "black", "green", "red"])
    radius, high = rng.uniform(0.13, 0.17), rng.uniform(0.3, 0.45)
    inner = radius - 0.012
    profile = [(0.0, 0.0), (0.8 * radius, 0.0), (radius, high), (inner, high), (0.78 * inner, 0.02), (0.0, 0.02)]
    return Piece("bin", color, (lathe(profile, (0, 0, 0), _material(rng, "plain", color)),))


def rug(rng: Rng) -> Piece:
    color = _pick(rng, ["red", "blue", "green", "beige", "purple", "orange", "teal"])
    deep, wide = rng.uniform(1.0, 1.6), rng.uniform(1.4, 2.2)
    body = box((deep, wide, 0.012), (0, 0, 0.006), _material(rng, "carpet", color, 1.0), fit=True)
    return Piece("rug", color, (body,), flat=True)


def cup(rng: Rng) -> Piece:
    color = _pick(rng, ["white", "red", "blue", "yellow", "green", "orange"])
    r, h = rng.uniform(0.035, 0.045), rng.uniform(0.08, 0.1)
    profile = [(0.0, 0.0), (0.85 * r, 0.0), (r, h), (0.85 * r, h), (0.75 * r, 0.01), (0.0, 0.01)]
    return Piece("cup", color, (lathe(profile, (0, 0, 0), _material(rng, "plain", color), 14),))


def bottle(rng: Rng) -> Piece:
    color = _pick(rng, ["green", "blue", "brown", "white", "red"])
    r, h = rng.uniform(0.035, 0.045), rng.uniform(0.24, 0.32)
    profile = [(0.0, 0.0), (r, 0.0), (r, 0.6 * h), (0.35 * r, 0.78 * h), (0.35 * r, h), (0.0, h)]
    return Piece("bottle", color, (lathe(profile, (0, 0, 0), _material(rng, "plain", color), 14),))


def toy_ball(rng: Rng) -> Piece:
    color = _pick(rng, ["red", "blue", "yellow", "orange", "green", "purple"])
    r = rng.uniform(0.06, 0.12)
    return Piece("ball", color, (ball(r, (0, 0, r), _material(rng, "checker", color, 0.3)),))


def bowl(rng: Rng) -> Piece:
    color = _pick(rng, ["white", "teal", "orange", "blue"])
    r = rng.uniform(0.1, 0.15)
    profile = [(0.0, 0.0), (0.45 * r, 0.0), (0.85 * r, 0.3 * r), (r, 0.6 * r), (0.93 * r, 0.6 * r), (0.5 * r, 0.1 * r)]
    shell = lathe([*profile, (0.0, 0.08 * r)], (0, 0, 0), _material(rng, "plain", color))
    fruit = _material(rng, "plain", _pick(rng, ["red", "orange", "green"]))
    fruits = (ball(0.28 * r, (0.3 * r * np.cos(a), 0.3 * r * np.sin(a), 0.42 * r), fruit) for a in (0.0, 2.1, 4.2))
    return Piece("bowl", color, (shell, *fruits))


def books(rng: Rng) -> Piece:
    parts, z = [], 0.0
    color = _pick(rng, ["red", "blue", "green", "yellow", "purple"])
    for i in range(int(rng.integers(2, 5))):
        name = color if i == 0 else _pick(rng, list(COLORS))
        size = (rng.uniform(0.15, 0.2), rng.uniform(0.21, 0.26), rng.uniform(0.02, 0.045))
        parts.append(box(size, (rng.uniform(-0.01, 0.01), 0, z + size[2] / 2), _material(rng, "plain", name)))
        z += size[2]
    return Piece("stack of books", color, tuple(parts))


def small_box(rng: Rng) -> Piece:
    size = rng.uniform((0.12, 0.12, 0.1), (0.26, 0.3, 0.28))
    color = _pick(rng, ["red", "blue", "green", "yellow", "orange", "teal", "pink"])
    texture = _pick(rng, ["stripes", "checker", "cardboard"])
    body = box(size.tolist(), (0, 0, size[2] / 2), _material(rng, texture, color, 0.3), fit=True)
    return Piece("small box", color, (body,), solid=True)


def vase(rng: Rng) -> Piece:
    color = _pick(rng, ["blue", "white", "teal", "red"])
    h = rng.uniform(0.2, 0.3)
    profile = [(0.0, 0.0), (0.05, 0.0), (0.085, 0.35 * h), (0.06, 0.75 * h), (0.035, 0.9 * h), (0.05, h), (0.0, h)]
    leaves = Material("leaves", COLORS["green"], 0.25, int(rng.integers(1 << 30)))
    parts = [lathe(profile, (0, 0, 0), _material(rng, "plain", color), 16, smooth=True)]
    parts += [ball(0.06, (0.03 * np.cos(a), 0.03 * np.sin(a), h + 0.05), leaves) for a in (0.0, 2.1, 4.2)]
    return Piece("vase", color, tuple(parts))


def table_lamp(rng: Rng) -> Piece:
    color = _pick(rng, ["white", "yellow", "orange", "beige"])
    metal = _material(rng, "plain", _pick(rng, ["black", "grey", "teal"]))
    shade = Material("fabric", COLORS[color], 0.3, int(rng.integers(1 << 30)), glow=True)
    parts = (
        cylinder(0.07, 0.02, (0, 0, 0), metal, 16),
        cylinder(0.015, 0.22, (0, 0, 0.02), metal, 8),
        lathe([(0.0, 0.0), (0.12, 0.0), (0.08, 0.17), (0.0, 0.17)], (0, 0, 0.24), shade, 16),
    )
    return Piece("table lamp", color, parts)


def monitor(rng: Rng) -> Piece:
    dark = _material(rng, "plain", "black")
    screen = Material("screen", (30, 40, 62), 1.0, int(rng.integers(1 << 30)), measurable=False)
    parts = (
        box((0.18, 0.26, 0.015), (0, 0, 0.0075), dark),
        box((0.03, 0.05, 0.12), (-0.03, 0, 0.075), dark),
        box((0.03, 0.56, 0.34), (0.0, 0, 0.3), dark),
        box((0.004, 0.54, 0.32), (0.017, 0, 0.3), screen, fit=True),
    )
    return Piece("monitor", "black", parts)


def picture(rng: Rng) -> Piece:
    """A picture for the wall: its back at x < 0, z = 0 its lower edge."""
    wide, high = rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.75)
    color = _pick(rng, ["red", "blue", "green", "yellow", "teal", "purple", "orange"])
    canvas = _material(rng, "painting", color, 1.0)
    return Piece("picture", color, (box((0.025, wide, high), (0, 0, high / 2), canvas, fit=True),))


def window(rng: Rng) -> Piece:
    """A window for the wall: glass returns no depth."""
    wide, high = rng.uniform(0.9, 1.5), rng.uniform(0.9, 1.2)
    pane = Material("view", (200, 220, 240), 1.0, int(rng.integers(1 << 30)), glow=True, measurable=False)
    frame = _material(rng, "plain", "white")
    parts = (
        box((0.02, wide - 0.08, high - 0.08), (0, 0, high / 2), pane, fit=True),
        *(box((0.04, 0.04, high), (0, j * (wide - 0.04) / 2, high / 2), frame) for j in (-1, 1)),
        box((0.04, wide - 0.08, 0.04), (0, 0, 0.02), frame),
        box((0.04, wide - 0.08, 0.04), (0, 0, high - 0.02), frame),
    )
    return Piece("window", "white", parts)


def ceiling_lamp(rng: Rng) -> Piece:
    """Hangs with its top at z = 0.08."""
    shade = Material("plain", (250, 244, 226), 0.5, int(rng.integers(1 << 30)), glow=True)
    return Piece("ceiling lamp", "white", (cylinder(rng.uniform(0.18, 0.28), 0.08, (0, 0, 0), shade, 24),))
