"""Things in space that a query speaks of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from spatial_mllm_ros.queries.moments import Moment
from spatial_mllm_ros.queries.term import InvalidQuery, Term

MAX_NAME = 200
"""Characters of an object's or a room's name at most."""


@dataclass(frozen=True, kw_only=True)
class Operand(Term, abstract=True):
    """Something that has a place."""


@dataclass(frozen=True, kw_only=True)
class Point(Operand):
    """<pN> of the request: the surface that the marked pixel shows."""

    index: int

    def __post_init__(self) -> None:
        _check_index(self.index)


@dataclass(frozen=True, kw_only=True)
class Box(Operand):
    """<boxN> of the request: what the box encloses in its image."""

    index: int

    def __post_init__(self) -> None:
        _check_index(self.index)


@dataclass(frozen=True, kw_only=True)
class Camera(Operand):
    """The camera's optical centre at a moment. None: the camera that took the image in which the other thing was marked."""

    at: Moment | None = None


@dataclass(frozen=True, kw_only=True)
class Robot(Operand):
    """The robot's base at a moment, where TF or a parameter says which frame that is."""

    at: Moment


@dataclass(frozen=True, kw_only=True)
class Origin(Operand):
    """The origin of a frame; '': of the fixed frame."""

    frame_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Position(Operand):
    """A position in a frame, metres; '': in the fixed frame."""

    x: float
    y: float
    z: float
    frame_id: str = ""

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) and abs(v) <= 1e6 for v in (self.x, self.y, self.z)):
            raise InvalidQuery(f"({self.x}, {self.y}, {self.z}) m is no position: finite and within 1000 km is needed")


@dataclass(frozen=True, kw_only=True)
class Floor(Operand):
    """The floor."""


@dataclass(frozen=True, kw_only=True)
class Ceiling(Operand):
    """The ceiling."""


@dataclass(frozen=True, kw_only=True)
class NearestWall(Operand):
    """The wall nearest to what it is compared with."""


@dataclass(frozen=True, kw_only=True)
class Room(Operand):
    """A room. '': the space that has been seen, as one."""

    name: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name, empty=True)


class Where(Enum):
    """How an object lies to another thing; also what Relation asks."""

    LEFT_OF = "left_of"
    RIGHT_OF = "right_of"
    IN_FRONT_OF = "in_front_of"
    BEHIND = "behind"
    ABOVE = "above"
    BELOW = "below"
    ON = "on"
    INSIDE = "inside"
    NEXT_TO = "next_to"
    BETWEEN = "between"
    SAME_SURFACE = "same_surface"


class Pick(Enum):
    """Which of several objects of a name is meant."""

    THE_ONE = "the_one"
    ANY = "any"
    ALL = "all"
    NEAREST = "nearest"
    FARTHEST = "farthest"
    LARGEST = "largest"
    SMALLEST = "smallest"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Object(Operand):
    """A thing by its name, or by the id that the object memory gave it.

    name: a noun phrase, as "chair" or "red mug", in the singular; '': any object. object_id: '' when it is not known.
    pick: which of those that fit; NEAREST and FARTHEST to ``to``, or to the robot where that is None. where, to: only
    those that lie so to another thing.
    """

    name: str = ""
    object_id: str = ""
    pick: Pick = Pick.THE_ONE
    where: Where | None = None
    to: Operand | None = None

    def __post_init__(self) -> None:
        _check_name(self.name, empty=True)
        _check_name(self.object_id, empty=True)
        if isinstance(self.to, Object) and self.to.to is not None:
            raise InvalidQuery("an object is described by one other thing, not by a chain of them")
        if self.where is not None and self.to is None:
            raise InvalidQuery(f"{self.where.value} what? An object that lies so needs the thing that it lies to")


def _check_index(index: int) -> None:
    if index < 0:
        raise InvalidQuery(f"an index must not be negative, but is {index}")


def _check_name(name: str, empty: bool = False) -> None:
    if (not name.strip() and not (empty and name == "")) or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidQuery(f"a name has 1 to {MAX_NAME} printable characters, unlike {name[:50]!r}")
