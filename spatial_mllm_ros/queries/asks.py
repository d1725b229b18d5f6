"""What is asked: a measure, a place, a relation, a comparison, a choice among several.

Every class is one kind of question; its docstring is what the documentation says about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.queries.measures import Measure, unit_of
from spatial_mllm_ros.queries.moments import WHOLE, Moment, Now, Span
from spatial_mllm_ros.queries.operands import Camera, Object, Operand, Room, Where
from spatial_mllm_ros.queries.term import InvalidQuery, Term
from spatial_mllm_ros.queries.units import UNITS

MOST_OPERANDS = 32
"""Things compared in one question at most: that many can be told apart in an answer."""


@dataclass(frozen=True, kw_only=True)
class Ask(Term, abstract=True):
    """A kind of question. ``answer_type``: of its answer, where it does not depend on what is asked."""

    answer_type: ClassVar[AnswerType] = AnswerType.NUMBER


# ---- numbers


@dataclass(frozen=True, kw_only=True)
class Value(Ask):
    """The value of a measure, with its deviation."""

    of: Measure


@dataclass(frozen=True, kw_only=True)
class Mean(Ask):
    """The mean of several measures of one unit."""

    of: tuple[Measure, ...]

    def __post_init__(self) -> None:
        _check_comparable(self.of)


@dataclass(frozen=True, kw_only=True)
class Difference(Ask):
    """By how much the first measure exceeds the second, negative when it falls short. ratio: how many times as much."""

    a: Measure
    b: Measure
    ratio: bool = False

    def __post_init__(self) -> None:
        _check_comparable((self.a, self.b))


@dataclass(frozen=True, kw_only=True)
class Dimensions(Ask):
    """Length, width and height of a thing or a room."""

    answer_type: ClassVar[AnswerType] = AnswerType.VECTOR
    of: Operand


# ---- yes or no


class Comparison(Enum):
    """How a value is compared."""

    LESS = "less"
    MORE = "more"
    AT_MOST = "at_most"
    AT_LEAST = "at_least"
    ABOUT = "about"


@dataclass(frozen=True, kw_only=True)
class Threshold(Ask):
    """Whether a measure is less or more than a value, in the measure's unit. ABOUT: within a tenth of it."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    of: Measure
    comparison: Comparison
    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise InvalidQuery(f"a threshold must be a finite number, not {self.value}")


@dataclass(frozen=True, kw_only=True)
class Within(Ask):
    """Whether a measure lies between two values, in the measure's unit."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    of: Measure
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InvalidQuery(f"from {self.low} to {self.high} is no interval: low < high is needed, both finite")


@dataclass(frozen=True, kw_only=True)
class Compare(Ask):
    """Whether one measure is less or more than ``factor`` times another plus ``offset`` (in their unit)."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    a: Measure
    comparison: Comparison
    b: Measure
    factor: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        _check_comparable((self.a, self.b))
        if not (math.isfinite(self.factor) and self.factor > 0 and math.isfinite(self.offset)):
            raise InvalidQuery("factor must be positive, and factor and offset finite")


@dataclass(frozen=True, kw_only=True)
class Viewpoint(Term):
    """From where left, right, front and behind are meant: standing at ``at`` and looking at ``facing``.

    facing None: where the camera or robot at that moment looks.
    """

    at: Operand = Camera()  # noqa: RUF009
    facing: Operand | None = None


@dataclass(frozen=True, kw_only=True)
class Relation(Ask):
    """Whether a thing lies so to another one, seen from ``viewpoint``. b None: to the viewpoint itself ("on my left")."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    a: Operand
    where: Where
    b: Operand | None = None
    also: Operand | None = None
    """The other of the two that ``a`` is BETWEEN."""
    viewpoint: Viewpoint = Viewpoint()

    def __post_init__(self) -> None:
        if (self.where is Where.BETWEEN) != (self.also is not None):
            raise InvalidQuery("between, and only between, needs two other things")
        things = [x for x in (self.a, self.b, self.also) if x is not None]
        if len(set(things)) < len(things):
            raise InvalidQuery("a thing has no relation to itself")


@dataclass(frozen=True, kw_only=True)
class Visible(Ask):
    """Whether a thing is in view, in the image at a moment and not hidden."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    of: Operand
    at: Moment = Now()  # noqa: RUF009


@dataclass(frozen=True, kw_only=True)
class Seen(Ask):
    """Whether a thing was in view at any time of a span."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    of: Operand
    span: Span = WHOLE


@dataclass(frozen=True, kw_only=True)
class Moving(Ask):
    """Whether the camera was moving at a moment."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    at: Moment = Now()  # noqa: RUF009


@dataclass(frozen=True, kw_only=True)
class Visited(Ask):
    """Whether the robot has been in a room."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    room: Room
    span: Span = WHOLE


@dataclass(frozen=True, kw_only=True)
class Changed(Ask):
    """Whether what is at a point, or an object, changed between two moments."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    of: Operand
    span: Span = WHOLE


@dataclass(frozen=True, kw_only=True)
class Exists(Ask):
    """Whether there is such an object."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    of: Object


@dataclass(frozen=True, kw_only=True)
class Reachable(Ask):
    """Whether a robot of ``radius_m`` (0: the robot's own) can drive to a place."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    goal: Operand
    start: Operand | None = None
    radius_m: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LineOfSight(Ask):
    """Whether nothing stands between two things."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    a: Operand
    b: Operand


@dataclass(frozen=True, kw_only=True)
class Fits(Ask):
    """Whether a box of these sides (m, 0: the robot, or ``thing``) fits at, in, under or through a place."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    place: Operand
    length_m: float = 0.0
    width_m: float = 0.0
    height_m: float = 0.0
    thing: Operand | None = None


@dataclass(frozen=True, kw_only=True)
class Open(Ask):
    """Whether a door is open."""

    answer_type: ClassVar[AnswerType] = AnswerType.BOOLEAN
    of: Operand


# ---- places and directions


@dataclass(frozen=True, kw_only=True)
class Locate(Ask):
    """Where a thing is: its pose in the frame that is asked for."""

    answer_type: ClassVar[AnswerType] = AnswerType.POSE
    of: Operand


@dataclass(frozen=True, kw_only=True)
class Pixel(Ask):
    """The pixel at which a thing appears in the image at a moment."""

    answer_type: ClassVar[AnswerType] = AnswerType.PIXEL
    of: Operand
    at: Moment


@dataclass(frozen=True, kw_only=True)
class Direction(Ask):
    """The direction of a thing, seen from ``viewpoint``."""

    answer_type: ClassVar[AnswerType] = AnswerType.VECTOR
    of: Operand
    viewpoint: Viewpoint = Viewpoint()


@dataclass(frozen=True, kw_only=True)
class MotionDirection(Ask):
    """The direction in which the camera moved, in its axes at the beginning."""

    answer_type: ClassVar[AnswerType] = AnswerType.VECTOR
    span: Span = WHOLE


@dataclass(frozen=True, kw_only=True)
class SurfaceNormal(Ask):
    """The unit normal of the surface at a point."""

    answer_type: ClassVar[AnswerType] = AnswerType.VECTOR
    at: Operand


@dataclass(frozen=True, kw_only=True)
class Unseen(Ask):
    """Where most of the space is that has not been seen yet."""

    answer_type: ClassVar[AnswerType] = AnswerType.POINT


@dataclass(frozen=True, kw_only=True)
class Route(Ask):
    """The way for a robot of ``radius_m`` (0: the robot's own). start None: from where it is."""

    answer_type: ClassVar[AnswerType] = AnswerType.POSE
    goal: Operand
    start: Operand | None = None
    radius_m: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FreePlace(Ask):
    """A free place for a box of these sides (m; 0: the robot's own, or that of ``thing``), or of ``area_m2``.

    at: on, beside or in what; None: anywhere. where: how to it.
    """

    answer_type: ClassVar[AnswerType] = AnswerType.POSE
    length_m: float = 0.0
    width_m: float = 0.0
    height_m: float = 0.0
    area_m2: float = 0.0
    thing: Operand | None = None
    at: Operand | None = None
    where: Where | None = None


# ---- choices


class Which(Enum):
    """The end of an order."""

    LARGEST = "largest"
    SMALLEST = "smallest"


@dataclass(frozen=True, kw_only=True)
class Extreme(Ask):
    """Which of several measures is the largest or smallest, or the ``rank``-th of them; the answer names its subject.

    as_value: the answer is its value instead.
    """

    answer_type: ClassVar[AnswerType] = AnswerType.CHOICE
    of: tuple[Measure, ...]
    which: Which
    rank: int = 1
    as_value: bool = False

    def __post_init__(self) -> None:
        _check_comparable(self.of)
        if not 1 <= self.rank <= len(self.of):
            raise InvalidQuery(f"rank must be from 1 to {len(self.of)}, not {self.rank}")


@dataclass(frozen=True, kw_only=True)
class Order(Ask):
    """Several measures in order. The answer lists the indices of ``of``."""

    answer_type: ClassVar[AnswerType] = AnswerType.ORDER
    of: tuple[Measure, ...]
    descending: bool = False

    def __post_init__(self) -> None:
        _check_comparable(self.of)


@dataclass(frozen=True, kw_only=True)
class Side(Ask):
    """Which of several relations holds, as left or right; see Relation."""

    answer_type: ClassVar[AnswerType] = AnswerType.CHOICE
    a: Operand
    options: tuple[Where, ...]
    b: Operand | None = None
    viewpoint: Viewpoint = Viewpoint()

    def __post_init__(self) -> None:
        if len(self.options) < 2 or len(set(self.options)) < len(self.options):
            raise InvalidQuery("give at least two relations, all different")
        if self.a == self.b:
            raise InvalidQuery("a thing has no relation to itself")


class Occupancy(Enum):
    """What is known of a place."""

    FREE = "free"
    OCCUPIED = "occupied"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Occupied(Ask):
    """Whether a place is free, occupied or unknown. state None: which of the three; else: whether it is that (BOOLEAN)."""

    answer_type: ClassVar[AnswerType] = AnswerType.CHOICE
    of: Operand
    state: Occupancy | None = None


# ---- objects and rooms


@dataclass(frozen=True, kw_only=True)
class Find(Ask):
    """The objects that fit a description, by name."""

    answer_type: ClassVar[AnswerType] = AnswerType.TEXT
    of: Object


@dataclass(frozen=True, kw_only=True)
class RoomOf(Ask):
    """In which room a thing is. most: in which room most of such objects are."""

    answer_type: ClassVar[AnswerType] = AnswerType.TEXT
    of: Operand
    most: bool = False


@dataclass(frozen=True, kw_only=True)
class AppearanceOrder(Ask):
    """The order in which things were first in view. The answer lists the indices of ``of``."""

    answer_type: ClassVar[AnswerType] = AnswerType.ORDER
    of: tuple[Operand, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(set(self.of)) == len(self.of) <= MOST_OPERANDS:
            raise InvalidQuery(f"give 2 to {MOST_OPERANDS} different things")


@dataclass(frozen=True, kw_only=True)
class Property(Ask):
    """Color, material or state of a thing, as the model or the object memory tells it. name: which property."""

    answer_type: ClassVar[AnswerType] = AnswerType.TEXT
    of: Operand
    name: str


def _check_comparable(measures: tuple[Measure, ...]) -> None:
    if not 2 <= len(measures) <= MOST_OPERANDS:
        raise InvalidQuery(f"give 2 to {MOST_OPERANDS} measures, not {len(measures)}")
    if len(set(measures)) < len(measures):
        raise InvalidQuery("the measures must differ")
    kinds = {UNITS[unit_of(m)].kind for m in measures}
    if len(kinds) > 1:
        raise InvalidQuery(f"measures of {' and '.join(sorted(kinds))} cannot be compared")
