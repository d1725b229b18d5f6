"""The plan of a rendered house as an SVG: what is really there, beside what the camera saw of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.visualisation.report.templates import environment
from spatial_mllm_ros.visualisation.report.topdown import RAMP, Submap, path_segments

PIXELS_PER_M = 90.0
MARGIN_M = 0.45
ROOM_FONT = 17.0
LEAST_LABEL_M2 = 0.35
"""Smaller things get no name: it would not fit."""


@dataclass(frozen=True)
class Shape:
    """A filled outline with a name: SVG points, and where its text stands and how large it is (0: no text)."""

    points: str
    name: str
    x: float
    y: float
    font: float
    color: str = ""


def floor_plan_svg(source: RenderedSource) -> str:
    """The plan as the text of a self-contained SVG: rooms, doors, furniture with names, and the camera's path."""
    house = source.house
    low, high = (np.asarray(c, dtype=np.float64) for c in house.walls_low_high())
    low, high = low - MARGIN_M, high + MARGIN_M
    size = (high - low) * PIXELS_PER_M

    def svg(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([(xy[..., 0] - low[0]), (high[1] - xy[..., 1])], axis=-1) * PIXELS_PER_M

    def rectangle(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([(a[0], a[1]), (b[0], a[1]), (b[0], b[1]), (a[0], b[1])])

    def shape(corners: NDArray[np.float64], name: str, font: float, color: str = "") -> Shape:
        at = svg(corners)
        x, y = at.mean(axis=0)
        return Shape(" ".join(f"{u:.1f},{v:.1f}" for u, v in at), name, float(x), float(y), font, color)

    things = []
    for thing in sorted((t for t in house.things if not t.is_structure), key=lambda t: t.top):
        footprint = thing.footprint()
        area = float(thing.size[0] * thing.size[1])
        things.append(shape(footprint, thing.name, 12 if area >= LEAST_LABEL_M2 else 0, thing.color))
    rooms = []
    for room in house.rooms:
        name = f"{room.kind}, {room.area:.1f} m²"
        left, top = svg(np.array([room.low[0], room.high[1]]))
        right, bottom = svg(np.array([room.high[0], room.low[1]]))
        x, y = _free_spot(name, (float(left), float(top), float(right), float(bottom)), things)
        rooms.append(Shape(shape(rectangle(room.low, room.high), "", 0).points, name, x, y, ROOM_FONT))
    path: list[Submap] = path_segments(svg(source.tour.poses[:, :2, 3]))
    return (
        environment()
        .get_template("floorplan.svg.j2")
        .render(
            width=float(size[0]),
            height=float(size[1]) + 40,
            rooms=rooms,
            doors=[shape(rectangle(d.low, d.high), "", 0) for d in house.doors],
            things=things,
            path=path,
            start=svg(source.tour.poses[0, :2, 3]).tolist(),
            ramp=RAMP,
            metre=PIXELS_PER_M,
            title=source.info.description,
        )
    )


def _free_spot(name: str, room: tuple[float, float, float, float], things: list[Shape]) -> tuple[float, float]:
    """Where a room's name (start of its baseline, SVG units) covers the fewest names of things, then farthest up."""
    left, top, right, bottom = room
    width = 0.6 * ROOM_FONT * len(name)

    def covered(spot: tuple[float, float]) -> tuple[int, float, float]:
        x, y = spot
        hit = [
            t
            for t in things
            if t.font and abs(t.x - x - width / 2) < width / 2 + 3.5 * len(t.name) and abs(t.y - y + 6) < 20
        ]
        return len(hit), y, x

    xs = np.linspace(left + 10, max(left + 10, right - width - 6), 8).tolist()
    ys = np.linspace(top + 22, bottom - 10, 24).tolist()
    return min(((x, y) for y in ys for x in xs), key=covered)
