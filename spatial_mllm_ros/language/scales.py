"""Words that measure: far and near, high, wide, deep …, each with the measure that it makes of the things it is said of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import operands as O

MORE, LESS = 1, -1


class Adjective(NamedTuple):
    """A scale, and whether more or less of it is meant."""

    scale: str
    sign: int


class Superlative(NamedTuple):
    """The ``rank``-th most, or least, of a scale."""

    scale: str
    sign: int
    rank: int = 1


class How(NamedTuple):
    """How much of a scale is asked, in which unit ('': any)."""

    scale: str
    unit: str = ""


def _forms(scale: str, sign: int, words: str) -> dict[str, Adjective]:
    return {word.strip(): Adjective(scale, sign) for word in words.split(",")}


ADJECTIVES = (
    _forms(
        "far",
        MORE,
        "far, off, far away, far off, far apart, distant, remote, away, apart, far removed, far out, distant from one another",
    )
    | _forms("far", LESS, "near, close, close together, near together, close by")
    | _forms("high", MORE, "high")
    | _forms("up", MORE, "up, elevated, high up, up high, far up")
    | _forms("high", LESS, "low")
    | _forms("tall", MORE, "tall")
    | _forms("wide", MORE, "wide, broad, wide from side to side, wide across")
    | _forms("wide", LESS, "narrow")
    | _forms("long", MORE, "long, long from end to end")
    | _forms("short", LESS, "short")
    | _forms(
        "deep",
        MORE,
        "deep, deep into the image, deep in the image, deep into the scene, deep in the scene, far along the optical axis, far along the viewing axis, deep in the camera frame, deep in the view, deep in the picture, far along the camera 's axis, deep into the view, far along the camera axis, deep in the room, deep into the picture, far into the image, far into the scene, far from the image plane, far from the camera plane, far along the camera 's optical axis, far along the z axis, far in z, far along z, far in depth",
    )
    | _forms("deep", LESS, "shallow")
    | _forms("big", MORE, "big, large, great, big in size, spacious")
    | _forms("big", LESS, "small")
    | _forms("steep", MORE, "steep, inclined, tilted, sloped")
    | _forms("fast", MORE, "fast, quick")
    | _forms("fast", LESS, "slow, slowly")
)
COMPARATIVES = (
    _forms(
        "far",
        MORE,
        "farther, further, farther away, further away, farther off, further off, farther out, further out, more distant, more remote, less close, less near, farther back, further back, more far away, more far, any further, any further off, any farther, any further away, less nearby, further behind, farther behind",
    )
    | _forms(
        "far",
        LESS,
        "nearer, closer, less far, less distant, less far away, less remote, closer by, nearer by, any closer, any nearer",
    )
    | _forms(
        "up",
        MORE,
        "higher, higher up, more elevated, further up, farther up, farther above the floor, further above the floor, upper, higher above the floor, higher off the floor, higher up above the floor, higher above the ground, further above the ground, higher off the ground, farther from the floor, further from the floor, nearer to the ceiling, closer to the ceiling, higher from the floor, farther off the floor, further off the floor, farther above the ground, nearer the ceiling",
    )
    | _forms(
        "up",
        LESS,
        "lower, lower down, less high, further down, farther down, less elevated, closer to the floor, nearer to the floor, nearer the floor, closer to the ground, nearer to the ground, less high above the floor, lower above the floor, further from the ceiling, farther from the ceiling, less far above the floor, nearer the ground, less high up",
    )
    | _forms("tall", MORE, "taller")
    | _forms("wide", MORE, "wider, broader")
    | _forms("wide", LESS, "narrower, less wide")
    | _forms("long", MORE, "longer")
    | _forms("short", LESS, "shorter")
    | _forms("deep", MORE, "deeper")
    | _forms("deep", LESS, "shallower, less deep")
    | _forms(
        "in",
        MORE,
        "deeper in the scene, deeper into the scene, deeper in the image, deeper into the image, deeper in the view, deeper in the room, deeper into the room",
    )
    | _forms("in", LESS, "less deep in the scene, less deep into the scene, less deep in the image")
    | _forms("big", MORE, "bigger, larger")
    | _forms("big", LESS, "smaller")
    | _forms("steep", MORE, "steeper")
    | _forms("fast", MORE, "faster")
    | _forms("fast", LESS, "slower")
)
SUPERLATIVES = (
    _forms(
        "far",
        MORE,
        "farthest, furthest, farthest away, furthest away, most distant, most remote, least close, least near, farthest off, furthest off, farthest out, furthest back, farthest back, remotest, furthest out",
    )
    | _forms(
        "far", LESS, "nearest, closest, least far, least distant, least far away, nearest by, foremost, closest by"
    )
    | _forms(
        "up",
        MORE,
        "highest, topmost, uppermost, highest up, most elevated, highest above the floor, highest off the floor, farthest from the floor, furthest from the floor, nearest to the ceiling, closest to the ceiling, farthest above the floor, furthest above the floor, furthest up",
    )
    | _forms(
        "up",
        LESS,
        "lowest, lowermost, closest to the floor, nearest to the floor, nearest the floor, lowest down, closest to the ground, nearest to the ground, furthest down, farthest from the ceiling, least high",
    )
    | _forms("tall", MORE, "tallest")
    | _forms("wide", MORE, "widest, broadest")
    | _forms("wide", LESS, "narrowest")
    | _forms("long", MORE, "longest")
    | _forms("short", LESS, "shortest")
    | _forms("deep", MORE, "deepest")
    | _forms("deep", LESS, "shallowest, least deep")
    | _forms("big", MORE, "biggest, largest")
    | _forms("big", LESS, "smallest")
    | _forms("steep", MORE, "steepest")
)
NOUNS = {
    word.strip(): scale
    for scale, words in {
        "gap": "separation, gap, spacing, space, offset, separation distance, clearance, interval",
        "far": "distance, distance value, range, distances, slant range, range value, ray length, radial distance, slant distance, dist, length of the ray, length of the viewing ray, line of sight distance, length of the line of sight, line, length of the line, length of the straight line, length of the segment, length of a straight line, straight line, distance along the ray",
        "height": "height, heights, clear height, tallness, mounting height, vertical space, vertical extent, vertical size, vertical dimension, vertical measurement, real height",
        "up": "elevation, floor clearance, altitude, vertical position, height level, z height, height above the floor, height above ground, height coordinate, vertical coordinate, elevations",
        "wide": "width, breadth, widths, shorter side, shortest side, shorter dimension, horizontal width, wideness, shorter horizontal side, shortest dimension",
        "long": "length, lengths, longest side, longer side, longest dimension, longer dimension, long side, longer horizontal side, horizontal length",
        "deep": "depth, z, depth map value, depth value stored, z component, perpendicular depth, metric depth, camera frame z coordinate, z value, z coordinate, z depth, depth value, depth reading, z distance, depth measurement, depths, depth coordinate, camera z, distance along the optical axis, distance along the viewing axis, optical axis distance, depth component, z component, distance in z, depth along the optical axis, depth along the camera axis, depth along z, distance along z",
        "volume": "volume",
        "area": "floor area, floor space, area, square footage, footprint, ground area, floor surface, floor surface area, floor size",
        "surface": "surface area",
        "steep": "slope, steepness, inclination, tilt, incline, gradient",
        "fast": "speed, velocity",
        "bearing": "horizontal angle, bearing angle, azimuth, azimuth angle",
    }.items()
    for word in words.split(",")
}

_SIDES = {"wide": M.Dimension.WIDTH, "long": M.Dimension.LENGTH, "tall": M.Dimension.HEIGHT, "height": M.Dimension.HEIGHT}
_SIDES |= {
    "volume": M.Dimension.VOLUME,
    "big": M.Dimension.VOLUME,
    "area": M.Dimension.FLOOR_AREA,
    "surface": M.Dimension.SURFACE_AREA,
}
EXTENDED = (O.Box, O.Object, O.Room)
PLACED = (O.Point, O.Camera, O.Robot, O.Position, O.Ceiling)


def distance(a: O.Operand, b: O.Operand) -> M.Measure | None:
    """How far two things are apart; from floor or ceiling it is a height, from "the wall" to the nearest one."""
    a, b = (O.NearestWall() if x == O.Object(name="wall") else x for x in (a, b))
    if isinstance(b, O.Floor) or isinstance(a, O.Ceiling):
        return M.Height(of=a, above=b)
    if isinstance(a, O.Floor) or isinstance(b, O.Ceiling):
        return M.Height(of=b, above=a)
    if isinstance(a, O.NearestWall):
        a, b = b, a
    return None if isinstance(a, O.Camera | O.Room | O.Floor) and a == b else M.Distance(a=a, b=b)


def measures(scale: str, bag: dict[str, Any]) -> Iterator[M.Measure]:
    """What a scale measures of the things in ``bag``: subject ``subj`` (or ``of``), ``from``, ``to``, ``between``, ``above`` …

    Every entry of the bag must have its role, else there is nothing.
    """
    roles = dict(bag)
    if (
        scale in ("deep", "high", "height", "up")
        and "to" in roles
        and roles.keys() <= {"to", "from"}
        and not isinstance(roles["to"], O.Floor | O.Ceiling)
    ):
        roles["of"] = roles.pop("to")
    if (scale == "height" and roles.keys() == {"from", "to"}) or (scale == "height" and roles.keys() == {"between"}):
        scale = "far"
    if "of" in roles and "subj" not in roles:
        roles["subj"] = roles.pop("of")
    keys, subject = frozenset(roles), roles.get("subj")
    if scale == "gap":
        if keys <= {"subj", "to"} and len(keys) == 1 and isinstance(roles[next(iter(keys))], O.Operand):
            return  # the gap or space at one thing is not how far it is away
        scale = "far"
    if any(
        isinstance(x, O.Object) and x.pick is O.Pick.ALL
        for v in roles.values()
        for x in (v if isinstance(v, tuple) else (v,))
    ):
        return
    made = list(_made(scale, keys, subject, roles))
    yield from (m for m in made if m is not None)


def _made(scale: str, keys: frozenset[str], x: Any, roles: dict[str, Any]) -> Iterator[M.Measure | None]:
    if keys == {"subj", "above"} and scale in ("far", "high", "height", "tall", "up") and isinstance(x, O.Operand) and not isinstance(x, O.Room):
        yield M.Height(of=x, above=roles["above"])
    elif keys == {"subj", "below"} and scale in ("far", "high", "up") and isinstance(x, O.Operand):
        yield M.Height(of=roles["below"], above=x)
    elif isinstance(x, O.Room) and scale in ("far", "gap") and keys not in ({"subj", "from"}, {"subj", "to"}):
        return
    elif keys == {"subj", "from"} and scale in ("high", "height", "tall", "up") and isinstance(roles["from"], O.Floor):
        yield M.Height(of=x)
    elif keys == {"subj", "from"} and scale in ("height", "high", "up") and isinstance(x, PLACED):
        yield M.Height(of=x, above=roles["from"])
    elif scale in ("far", "in"):
        yield from _apart(keys, x, roles)
    elif scale == "bearing" and keys == {"subj", "from"} and isinstance(x, O.Operand):
        yield M.Bearing(of=x, viewer=roles["from"])
    elif keys != {"subj"} or not isinstance(x, O.Operand):
        return
    elif scale == "up":
        yield M.Height(of=x)
    elif scale == "high" and isinstance(x, O.Object):
        yield from (M.Height(of=x), M.Extent(of=x, dimension=M.Dimension.HEIGHT))
    elif scale in ("high", "height", "tall") and isinstance(x, PLACED) and (scale != "tall" or isinstance(x, O.Ceiling)):
        yield M.Height(of=x)
    elif scale == "high" and isinstance(x, O.Box | O.Room):
        yield M.Extent(of=x, dimension=M.Dimension.HEIGHT)
    elif scale == "area" and isinstance(x, O.Floor):
        yield M.Extent(of=O.Room(), dimension=M.Dimension.FLOOR_AREA)
    elif scale == "short" and isinstance(x, EXTENDED):
        yield from (M.Extent(of=x, dimension=d) for d in (M.Dimension.HEIGHT, M.Dimension.LENGTH))
    elif scale in _SIDES and isinstance(x, EXTENDED) and (scale != "area" or isinstance(x, O.Room)):
        yield M.Extent(of=x, dimension=_SIDES[scale])
    elif scale == "deep" and isinstance(x, O.Point):
        yield M.Depth(of=x)
    elif scale == "deep" and isinstance(x, EXTENDED):
        sides = (M.Extent(of=x, dimension=d) for d in (M.Dimension.LENGTH, M.Dimension.WIDTH))
        yield from (*sides, *([] if isinstance(x, O.Room) else [M.Depth(of=x)]))
    elif scale == "steep" and isinstance(x, O.Point | O.Box | O.Object | O.Floor):
        yield M.Slope(at=x)
    elif scale == "fast" and isinstance(x, O.Camera | O.Robot):
        yield M.Speed()


def _apart(keys: frozenset[str], x: Any, roles: dict[str, Any]) -> Iterator[M.Measure | None]:
    pair = None
    if keys == {"between"}:
        pair = roles["between"]
    elif keys == {"subj"} and isinstance(x, tuple) and len(x) == 2:
        pair = x
    elif keys in ({"subj", "from"}, {"subj", "to"}) and isinstance(x, O.Operand):
        pair = (x, roles.get("from", roles.get("to")))
    elif keys == {"from", "to"}:
        pair = (roles["from"], roles["to"])
    elif keys in ({"subj"}, {"to"}):
        one = roles.get("subj", roles.get("to"))
        if isinstance(one, O.Operand) and not isinstance(one, O.Camera | O.Robot | O.Floor | O.Ceiling | O.Room):
            pair = (one, O.Camera())
    if isinstance(pair, tuple) and len(pair) == 2:
        yield distance(*pair)
