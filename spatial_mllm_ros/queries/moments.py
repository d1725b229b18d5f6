"""Moments and spans of time that a query speaks of."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_ros.queries.term import InvalidQuery, Term


@dataclass(frozen=True, kw_only=True)
class Moment(Term, abstract=True):
    """A point in time."""


@dataclass(frozen=True, kw_only=True)
class MarkedMoment(Moment):
    """<tN> of the request: ``times[index]``."""

    index: int

    def __post_init__(self) -> None:
        if self.index < 0:
            raise InvalidQuery(f"a moment's index must not be negative, but is {self.index}")


@dataclass(frozen=True, kw_only=True)
class MarkMoment(Moment):
    """The moment of the image in which <pN> or <boxN> was marked. mark: ``points`` or ``boxes``; index: which."""

    mark: str = "points"
    index: int = 0

    def __post_init__(self) -> None:
        if self.mark not in ("points", "boxes") or self.index < 0:
            raise InvalidQuery("mark must be points or boxes, and index not negative")


@dataclass(frozen=True, kw_only=True)
class Now(Moment):
    """The present: the newest image."""


@dataclass(frozen=True, kw_only=True)
class Start(Moment):
    """The first image of the recording, or since the node was started."""


@dataclass(frozen=True, kw_only=True)
class Stamp(Moment):
    """A stamp as messages carry it, integer nanoseconds."""

    stamp_ns: int


@dataclass(frozen=True, kw_only=True)
class Ago(Moment):
    """So many seconds before now."""

    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < 1e9:
            raise InvalidQuery(f"seconds must be from 0 to 1e9, not {self.seconds:g}")


@dataclass(frozen=True, kw_only=True)
class AfterStart(Moment):
    """So many seconds after the first image."""

    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < 1e9:
            raise InvalidQuery(f"seconds must be from 0 to 1e9, not {self.seconds:g}")


@dataclass(frozen=True, kw_only=True)
class ClockTime(Moment):
    """Wall-clock time in the time zone that is set. days_ago: 0: the latest such time that is not after now; 1: yesterday."""

    hour: int
    minute: int
    second: int = 0
    days_ago: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.hour < 24 and 0 <= self.minute < 60 and 0 <= self.second < 60):
            raise InvalidQuery(f"{self.hour}:{self.minute}:{self.second} is no time of day")
        if not 0 <= self.days_ago < 366:
            raise InvalidQuery(f"days_ago must be from 0 to 365, not {self.days_ago}")


@dataclass(frozen=True, kw_only=True)
class Span(Term):
    """From ``begin`` to ``end``, both included."""

    begin: Moment
    end: Moment


WHOLE = Span(begin=Start(), end=Now())
"""The whole recording."""
