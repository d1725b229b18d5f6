"""Requests with a typed query from what a program has at hand: marked pixels, stamps, names.

    Questions(client.ask).distance(ImagePoint(stamp, "", 320, 240), ImagePoint(stamp, "", 100, 90), unit="ft")

Where an operand is wanted, an ImagePoint or ImageBox marks it in an image, a string names an object, and an Operand is
itself. Where a moment is wanted, an int is a stamp in nanoseconds, a float so many seconds ago, None now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from spatial_mllm_ros.queries import asks, measures, moments, operands
from spatial_mllm_ros.queries.answer import ImageBox, ImagePoint, Request
from spatial_mllm_ros.queries.query import Query

Thing = ImagePoint | ImageBox | operands.Operand | str
When = moments.Moment | int | float | None
Reply = TypeVar("Reply")


class Marks:
    """Points and boxes of a request, numbered as they come; the same mark is the same operand."""

    def __init__(self) -> None:
        self.points: list[ImagePoint] = []
        self.boxes: list[ImageBox] = []

    def operand(self, thing: Thing) -> operands.Operand:
        """The operand that stands for a thing. Raises TypeError for what is none."""
        if isinstance(thing, operands.Operand):
            return thing
        if isinstance(thing, ImagePoint):
            return operands.Point(index=_index(self.points, thing))
        if isinstance(thing, ImageBox):
            return operands.Box(index=_index(self.boxes, thing))
        if isinstance(thing, str):
            return operands.Object(name=thing)
        raise TypeError(f"give an ImagePoint, an ImageBox, an Operand or a name, not {thing!r}")

    def request(self, ask: asks.Ask | measures.Measure, **fields: Any) -> Request:
        """The request that asks this. fields: those of Query (unit, frame_id, window, negated) and of Request."""
        own = {name: fields.pop(name) for name in ("unit", "window", "negated") if name in fields}
        asked = asks.Value(of=ask) if isinstance(ask, measures.Measure) else ask
        query = Query(ask=asked, frame_id=fields.pop("frame_id", ""), **own)
        return replace(Request(points=tuple(self.points), boxes=tuple(self.boxes), query=query), **fields)


def moment(when: When) -> moments.Moment:
    """The moment that is meant. Raises TypeError for what is none."""
    if when is None:
        return moments.Now()
    if isinstance(when, moments.Moment):
        return when
    if isinstance(when, bool) or not isinstance(when, int | float):
        raise TypeError(f"give a stamp (int, ns), seconds ago (float), a Moment or None for now, not {when!r}")
    return moments.Stamp(stamp_ns=when) if isinstance(when, int) else moments.Ago(seconds=when)


def span(begin: When | moments.Span, end: When = None) -> moments.Span:
    """From begin to end; a Span is itself."""
    return begin if isinstance(begin, moments.Span) else moments.Span(begin=moment(begin), end=moment(end))


class Questions(Generic[Reply]):
    """Typed questions as methods. ``send`` gets the request of each; what it returns, the method returns.

    Every method takes the fields of Query and Request by name: unit, frame_id, window, negated, timeout, choices.
    """

    def __init__(self, send: Callable[[Request], Reply]) -> None:
        self._send = send

    def ask(self, ask: asks.Ask | measures.Measure, marks: Marks | None = None, **fields: Any) -> Reply:
        """Any question of the algebra (queries/asks.py and measures.py)."""
        return self._send((marks or Marks()).request(ask, **fields))

    def distance(self, a: Thing, b: Thing | None = None, *, metric: str = "straight", **fields: Any) -> Reply:
        """How far two things are apart; b None: from the camera that saw a. metric: straight, horizontal, vertical."""
        marks = Marks()
        first = marks.operand(a)
        second = operands.Camera() if b is None else marks.operand(b)
        return self.ask(measures.Distance(a=first, b=second, metric=measures.Metric(metric)), marks, **fields)

    def height(self, of: Thing, above: Thing | None = None, **fields: Any) -> Reply:
        """How much higher a thing is than another; above None: than the floor."""
        marks = Marks()
        first = marks.operand(of)
        return self.ask(
            measures.Height(of=first, above=operands.Floor() if above is None else marks.operand(above)), marks, **fields
        )

    def size(self, of: Thing, **fields: Any) -> Reply:
        """Length, width and height of a thing."""
        marks = Marks()
        return self.ask(asks.Dimensions(of=marks.operand(of)), marks, **fields)

    def locate(self, of: Thing, **fields: Any) -> Reply:
        """Where a thing is: a pose in frame_id, or in the fixed frame."""
        marks = Marks()
        return self.ask(asks.Locate(of=marks.operand(of)), marks, **fields)

    def camera_pose(self, when: When = None, **fields: Any) -> Reply:
        """Where the camera was at a moment."""
        return self.ask(asks.Locate(of=operands.Camera(at=moment(when))), **fields)

    def direction(self, of: Thing, *, standing_at: Thing | None = None, facing: Thing | None = None, **fields: Any) -> Reply:
        """The direction of a thing from the camera now, or standing at a thing and facing another."""
        marks = Marks()
        thing = marks.operand(of)
        at = operands.Camera(at=moments.Now()) if standing_at is None else marks.operand(standing_at)
        viewpoint = asks.Viewpoint(at=at, facing=None if facing is None else marks.operand(facing))
        return self.ask(asks.Direction(of=thing, viewpoint=viewpoint), marks, **fields)

    def visible(self, of: Thing, when: When = None, **fields: Any) -> Reply:
        """Whether a thing is in view at a moment."""
        marks = Marks()
        return self.ask(asks.Visible(of=marks.operand(of), at=moment(when)), marks, **fields)

    def nearest(self, things: Sequence[Thing], to: Thing | None = None, *, farthest: bool = False, **fields: Any) -> Reply:
        """Which of several things is nearest to another; to None: to the camera that saw them."""
        marks = Marks()
        candidates = [marks.operand(thing) for thing in things]
        reference = operands.Camera() if to is None else marks.operand(to)
        of = tuple(measures.Distance(a=candidate, b=reference) for candidate in candidates)
        which = asks.Which.LARGEST if farthest else asks.Which.SMALLEST
        return self.ask(asks.Extreme(of=of, which=which), marks, **fields)

    def within(self, a: Thing, b: Thing, metres: float, **fields: Any) -> Reply:
        """Whether two things are at most so many metres apart, with its probability."""
        marks = Marks()
        of = measures.Distance(a=marks.operand(a), b=marks.operand(b))
        return self.ask(asks.Threshold(of=of, comparison=asks.Comparison.AT_MOST, value=float(metres)), marks, **fields)

    def seen(self, of: Thing, *, last: bool = False, **fields: Any) -> Reply:
        """When a thing was first, or last, in view."""
        marks = Marks()
        event = measures.Event.LAST if last else measures.Event.FIRST
        return self.ask(measures.SeenTime(of=marks.operand(of), event=event), marks, **fields)

    def path_length(self, begin: When | moments.Span = moments.WHOLE, end: When = None, **fields: Any) -> Reply:
        """How long the camera's path was."""
        return self.ask(measures.PathLength(span=span(begin, end)), **fields)

    def displacement(self, begin: When, end: When = None, **fields: Any) -> Reply:
        """How far the camera is at one moment from where it was at another."""
        ends = operands.Camera(at=moment(end)), operands.Camera(at=moment(begin))
        return self.ask(measures.Distance(a=ends[0], b=ends[1]), **fields)

    def turned(self, begin: When | moments.Span, end: When = None, *, about_up: bool = False, **fields: Any) -> Reply:
        """By what angle the camera turned; about_up: positive to the left."""
        return self.ask(measures.Turn(span=span(begin, end), about_up=about_up), **fields)

    def ceiling_height(self, **fields: Any) -> Reply:
        """How high the room is."""
        return self.ask(measures.Height(of=operands.Ceiling()), **fields)

    def route(self, goal: Thing, start: Thing | None = None, *, radius_m: float = 0.0, **fields: Any) -> Reply:
        """The way to a thing for a robot of that radius (0: the robot's own)."""
        marks = Marks()
        end = marks.operand(goal)
        begin = None if start is None else marks.operand(start)
        return self.ask(asks.Route(goal=end, start=begin, radius_m=radius_m), marks, **fields)


def _index(marks: list[Any], mark: Any) -> int:
    if mark not in marks:
        marks.append(mark)
    return marks.index(mark)
