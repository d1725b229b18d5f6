"""When a query means: moments and spans to stamps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from spatial_mllm_ros.answering.context import Context, zone
from spatial_mllm_ros.queries import moments as m
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.queries.moments import Moment, Span

_S = 1_000_000_000
_EARLIEST_CLOCK_NS = 946_684_800 * _S
"""Stamps before the year 2000 do not count from 1970: a driver's or a recording's own seconds (2000-01-01T00:00Z)."""


def stamp_of(c: Context, moment: Moment) -> int:
    """Stamp (ns) of a moment, which a camera pose is known near to. QueryError where none is."""
    stamp = _raw(c, moment)
    _require_known(c, stamp, moment)
    if not isinstance(moment, m.Now | m.Start):
        c.require_window(stamp, label_of(moment))
    return stamp


def ends_of(c: Context, span: Span) -> tuple[int, int]:
    """First and last stamp (ns) of a span.

    One that reaches back before the first image begins with that, which the answer tells. INVALID_REQUEST where it ends
    before it begins, or lies outside of what was seen.
    """
    if isinstance(span.begin, m.Start) and isinstance(span.end, m.Now):
        return c.start, _last(c)
    begin, end = _raw(c, span.begin), stamp_of(c, span.end)
    if begin > end:
        raise QueryError(
            ErrorCode.INVALID_REQUEST,
            f"{label_of(span.end)} is before {label_of(span.begin)}: give the earlier moment first",
        )
    if isinstance(span.begin, m.Ago | m.ClockTime) and begin < c.start:
        c.remark(f"that is all that was seen, {(end - c.start) / 1e9:.1f} s")
        begin = c.start
    else:
        begin = stamp_of(c, span.begin)
    return begin, end


def _last(c: Context) -> int:
    """Where all that was seen ends, which the answer tells when that is not the present."""
    age_s = c.age_s(c.now)
    if not c.window_end and 0 < c.config.max_pose_age_s < age_s:
        c.remark(f"that is up to the last pose, which is {age_s:.1f} s old")
    return c.now


def window_of(c: Context, span: Span) -> tuple[int, int]:
    """Bounds (ns) of what counts. Unlike the ends of a span, they need no pose near them."""
    begin, end = _raw(c, span.begin), _raw(c, span.end)
    if begin > end:
        raise QueryError(ErrorCode.INVALID_REQUEST, "the window of the query ends before it begins")
    return begin, end


def label_of(moment: Moment) -> str:
    """What people call a moment."""
    return _LABELS[type(moment)](moment)


def _raw(c: Context, moment: Moment) -> int:
    return _STAMPS[type(moment)](c, moment)


def _marked(c: Context, moment: m.MarkedMoment) -> int:
    if moment.index >= len(c.request.times):
        raise QueryError(
            ErrorCode.INVALID_REQUEST,
            f"<t{moment.index}> is not in the request, which has {len(c.request.times) or 'none'} of them",
        )
    return c.request.times[moment.index]


def _of_mark(c: Context, moment: m.MarkMoment) -> int:
    marks = c.request.points if moment.mark == "points" else c.request.boxes
    if moment.index >= len(marks):
        raise QueryError(ErrorCode.INVALID_REQUEST, f"there is no mark that {label_of(moment)} is about")
    return marks[moment.index].stamp_ns


def _clock(c: Context, moment: m.ClockTime) -> int:
    now_ns = c.present
    if now_ns < _EARLIEST_CLOCK_NS:
        raise QueryError(
            ErrorCode.INVALID_REQUEST,
            "the stamps of these images are not times of a clock, so they have no time of day: ask about seconds after the "
            "start or seconds ago",
        )
    own = zone(c.config.time_zone)
    now = datetime.fromtimestamp(now_ns / 1e9, tz=own) if own else datetime.fromtimestamp(now_ns / 1e9).astimezone()
    meant = now.replace(hour=moment.hour, minute=moment.minute, second=moment.second, microsecond=0)
    meant -= timedelta(days=moment.days_ago)
    if moment.days_ago == 0 and meant > now:
        meant -= timedelta(days=1)
    if own is None:  # the offset of this machine's zone at that time, which daylight saving may have changed
        meant = meant.replace(tzinfo=None).astimezone()
    return round(meant.timestamp()) * _S


def _require_known(c: Context, stamp: int, moment: Moment) -> None:
    track = c.track
    first, last = track.first or 0, track.last or 0
    slack = int(c.config.moment_tolerance_s * 1e9)
    if not first - slack <= stamp <= last + slack:
        raise c.no_frame(stamp, c.camera_frame, label_of(moment))


_STAMPS: dict[type[Moment], Callable[[Context, Any], int]] = {
    m.MarkedMoment: _marked,
    m.MarkMoment: _of_mark,
    m.Now: lambda c, x: c.present,
    m.Start: lambda c, x: c.start,
    m.Stamp: lambda c, x: int(x.stamp_ns),
    m.Ago: lambda c, x: c.present - round(x.seconds * 1e9),
    m.AfterStart: lambda c, x: c.start + round(x.seconds * 1e9),
    m.ClockTime: _clock,
}
_LABELS: dict[type[Moment], Callable[[Any], str]] = {
    m.MarkedMoment: lambda x: f"<t{x.index}>",
    m.MarkMoment: lambda x: f"the image of <{'p' if x.mark == 'points' else 'box'}{x.index}>",
    m.Now: lambda x: "now",
    m.Start: lambda x: "start",
    m.Stamp: lambda x: f"stamp {x.stamp_ns / 1e9:.3f} s",
    m.Ago: lambda x: f"{x.seconds:g} s ago",
    m.AfterStart: lambda x: f"{x.seconds:g} s after the start",
    m.ClockTime: lambda x: f"{x.hour}:{x.minute:02}:{x.second:02}",
}
