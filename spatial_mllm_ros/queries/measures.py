"""Quantities: what is answered with a number, its deviation and its unit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from spatial_mllm_ros.queries.moments import WHOLE, Moment, Now, Span
from spatial_mllm_ros.queries.operands import Floor, Object, Operand
from spatial_mllm_ros.queries.term import InvalidQuery, Term


@dataclass(frozen=True, kw_only=True)
class Measure(Term, abstract=True):
    """Something that is answered with a number. ``unit``: that of its value (key of UNITS)."""

    unit: ClassVar[str] = "m"


class Metric(Enum):
    """How a distance is measured."""

    STRAIGHT = "straight"
    HORIZONTAL = "horizontal"
    VERTICAL = "vertical"


class Ends(Enum):
    """Between which ends of extended things."""

    NEAREST = "nearest"
    CENTERS = "centers"


@dataclass(frozen=True, kw_only=True)
class Distance(Measure):
    """How far two things are apart; of the camera at two moments: its displacement.

    metric: in a straight line, in the floor plan, or their difference in height whichever is higher. ends: of boxes,
    objects and rooms, the nearest points of both or their centers.
    """

    a: Operand
    b: Operand
    metric: Metric = Metric.STRAIGHT
    ends: Ends = Ends.NEAREST

    def __post_init__(self) -> None:
        if self.a == self.b:
            raise InvalidQuery("a distance is between two different things")


@dataclass(frozen=True, kw_only=True)
class Depth(Measure):
    """z of a point along the optical axis of the camera at a moment. None: of the camera that took its image."""

    of: Operand
    at: Moment | None = None


@dataclass(frozen=True, kw_only=True)
class Height(Measure):
    """How much higher ``of`` is than ``above``, negative when it is lower. of the ceiling: how high the room is."""

    of: Operand
    above: Operand = Floor()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        if self.of == self.above:
            raise InvalidQuery("a height is above something else")


@dataclass(frozen=True, kw_only=True)
class Angle(Measure):
    """The angle at ``vertex`` between the directions to ``a`` and ``b``, 0 to 180 degrees."""

    unit: ClassVar[str] = "deg"
    a: Operand
    vertex: Operand
    b: Operand


@dataclass(frozen=True, kw_only=True)
class Bearing(Measure):
    """Horizontal angle of ``of``, seen from ``viewer`` looking at ``facing`` (None: along the camera's axis).

    Degrees, positive to the left (REP-103), -180 to 180.
    """

    unit: ClassVar[str] = "deg"
    of: Operand
    viewer: Operand
    facing: Operand | None = None


class Dimension(Enum):
    """A side of a thing, or what is made of them."""

    LENGTH = "length"
    WIDTH = "width"
    HEIGHT = "height"
    VOLUME = "volume"
    FLOOR_AREA = "floor_area"
    SURFACE_AREA = "surface_area"


@dataclass(frozen=True, kw_only=True)
class Extent(Measure):
    """One dimension of a thing or a room: length is the longer horizontal side, width the shorter, height along up.

    Width and length of what a box encloses are both its longer horizontal side, as it was seen.
    """

    of: Operand
    dimension: Dimension

    @property
    def value_unit(self) -> str:
        """m, m2 or m3."""
        return {Dimension.VOLUME: "m3", Dimension.FLOOR_AREA: "m2", Dimension.SURFACE_AREA: "m2"}.get(self.dimension, "m")


@dataclass(frozen=True, kw_only=True)
class Slope(Measure):
    """Angle between the surface at a point and the horizontal, 0 (level) to 90 degrees (upright)."""

    unit: ClassVar[str] = "deg"
    at: Operand


@dataclass(frozen=True, kw_only=True)
class PathLength(Measure):
    """Length of the camera's path."""

    span: Span = WHOLE


@dataclass(frozen=True, kw_only=True)
class Turn(Measure):
    """Angle of the rotation between the camera's orientations at both ends, 0 to 180 degrees.

    about_up: only the turn about the vertical, -180 to 180, positive to the left.
    """

    unit: ClassVar[str] = "deg"
    span: Span = WHOLE
    about_up: bool = False


class Axis(Enum):
    """An axis of the camera as it was at the beginning, level: REP-103's x, y and z."""

    FORWARD = "forward"
    LEFT = "left"
    UP = "up"


@dataclass(frozen=True, kw_only=True)
class Shift(Measure):
    """The part of the camera's displacement along an axis, negative the other way."""

    axis: Axis
    span: Span = WHOLE


@dataclass(frozen=True, kw_only=True)
class Heading(Measure):
    """Direction that the camera looks in at a moment, in the fixed frame: degrees from x towards y, -180 to 180."""

    unit: ClassVar[str] = "deg"
    at: Moment = Now()  # noqa: RUF009


@dataclass(frozen=True, kw_only=True)
class Speed(Measure):
    """The camera's speed at a moment."""

    unit: ClassVar[str] = "m/s"
    at: Moment = Now()  # noqa: RUF009


@dataclass(frozen=True, kw_only=True)
class MeanSpeed(Measure):
    """Path length over time."""

    unit: ClassVar[str] = "m/s"
    span: Span = WHOLE


@dataclass(frozen=True, kw_only=True)
class TimeSpent(Measure):
    """How long the camera stood still, or moved, within a span."""

    unit: ClassVar[str] = "s"
    moving: bool
    span: Span = WHOLE


@dataclass(frozen=True, kw_only=True)
class ClosestApproach(Measure):
    """How near the camera came to a thing."""

    to: Operand
    span: Span = WHOLE


@dataclass(frozen=True, kw_only=True)
class Elapsed(Measure):
    """Time between two moments."""

    unit: ClassVar[str] = "s"
    span: Span = WHOLE


class Event(Enum):
    """The first or the last time."""

    FIRST = "first"
    LAST = "last"


@dataclass(frozen=True, kw_only=True)
class SeenTime(Measure):
    """When a thing was first or last in view: seconds after the first image; ago: seconds before now."""

    unit: ClassVar[str] = "s"
    of: Operand
    event: Event
    ago: bool = False


@dataclass(frozen=True, kw_only=True)
class SeenDistance(Measure):
    """From how near a thing was seen."""

    of: Operand
    span: Span = WHOLE


class Countable(Enum):
    """What is counted."""

    FRAMES = "frames"
    KEYFRAMES = "keyframes"
    ROOMS = "rooms"
    DOORS = "doors"
    WALLS = "walls"


@dataclass(frozen=True, kw_only=True)
class Count(Measure):
    """How many there are."""

    unit: ClassVar[str] = "count"
    what: Countable


@dataclass(frozen=True, kw_only=True)
class ObjectCount(Measure):
    """How many objects fit the description."""

    unit: ClassVar[str] = "count"
    of: Object


@dataclass(frozen=True, kw_only=True)
class SeenCount(Measure):
    """In how many images a thing was in view."""

    unit: ClassVar[str] = "count"
    of: Operand
    span: Span = WHOLE


@dataclass(frozen=True, kw_only=True)
class UnseenFraction(Measure):
    """Fraction of the space around the camera's path that has not been seen, 0 to 1."""

    unit: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class Clearance(Measure):
    """Free space around a thing: distance to the nearest obstacle. ahead: only in the robot's direction."""

    of: Operand
    ahead: bool = False


@dataclass(frozen=True, kw_only=True)
class RouteLength(Measure):
    """Length of the way that a robot of ``radius_m`` (0: the robot's own) can drive."""

    start: Operand
    goal: Operand
    radius_m: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PassageWidth(Measure):
    """Width of the narrowest place of a corridor, door or way. of: the room or object, ``goal`` None; else from-to."""

    of: Operand
    goal: Operand | None = None


def unit_of(measure: Measure) -> str:
    """Unit of a measure's value, key of UNITS."""
    return measure.value_unit if isinstance(measure, Extent) else measure.unit


