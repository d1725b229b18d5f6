"""Every kind of question, and what answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from spatial_mllm_ros.answering import comparisons
from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.answering.geometry import bearing, motion, relations, rooms, seen, surfaces
from spatial_mllm_ros.answering.geometry.places import place_of
from spatial_mllm_ros.queries import asks
from spatial_mllm_ros.queries import measures as q
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.asks import Ask
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError
from spatial_mllm_ros.queries.operands import Object, Room
from spatial_mllm_ros.queries.query import Query, terms
from spatial_mllm_ros.scene.pose import make_transform
from spatial_mllm_ros.scene.uncertainty import propagate


def locate(c: Context, ask: asks.Locate) -> Answer:
    """Where a thing is: its pose, or its position where it has no orientation."""
    place = place_of(c, ask.of)
    value, covariance = propagate(place.at, place.stddevs)
    stddev = float(np.sqrt(max(np.linalg.eigvalsh(covariance)[-1], 0.0)))
    T = make_transform(np.eye(3), value) if place.own_pose is None else place.own_pose({})
    pose = c.position(value, place.stamp_ns) if place.own_pose is None else c.pose(T, place.stamp_ns)
    x, y, z = pose.position
    return Answer(
        answer=f"at ({x:.2f}, {y:.2f}, {z:.2f}) m in {pose.frame_id}" + place.note,
        answer_type=AnswerType.POSE,
        stddev=stddev,
        unit="m",
        pose=pose,
        confidence=1.0,
        confidence_method="gaussian; the deviation is that of the worst direction",
        source=AnswerSource.GEOMETRY,
        scale_source=place.scale,
        evidence=place.evidence,
    )


def appearance_order(c: Context, ask: asks.AppearanceOrder) -> Answer:
    """The order in which marked points and boxes were first in view."""
    return comparisons.order(c, asks.Order(of=tuple(q.SeenTime(of=thing, event=q.Event.FIRST) for thing in ask.of)))


ASKS: dict[type[Ask], Callable[[Context, Any], Answer]] = {
    asks.Value: comparisons.value,
    asks.Mean: comparisons.mean,
    asks.Difference: comparisons.difference,
    asks.Dimensions: rooms.dimensions,
    asks.Threshold: comparisons.threshold,
    asks.Within: comparisons.within,
    asks.Compare: comparisons.compare,
    asks.Relation: relations.relation,
    asks.Visible: seen.visible,
    asks.Seen: seen.seen,
    asks.Moving: motion.moving,
    asks.Locate: locate,
    asks.Pixel: seen.pixel,
    asks.Direction: bearing.direction,
    asks.MotionDirection: motion.moved_direction,
    asks.SurfaceNormal: surfaces.surface_normal,
    asks.Unseen: rooms.unseen,
    asks.Extreme: comparisons.extreme,
    asks.Order: comparisons.order,
    asks.Side: relations.side,
    asks.AppearanceOrder: appearance_order,
}

NEEDS_MORE: dict[type[Any], str] = {
    asks.Visited: "rooms that it can tell apart",
    asks.Changed: "a memory of what was there before",
    asks.Exists: "objects that it can tell apart",
    asks.Reachable: "a map of what is free",
    asks.LineOfSight: "a map of what is free",
    asks.Fits: "a map of what is free",
    asks.Open: "objects that it can tell apart",
    asks.Route: "a map of what is free",
    asks.FreePlace: "a map of what is free",
    asks.Occupied: "a map of what is free",
    asks.Find: "objects that it can tell apart",
    asks.RoomOf: "rooms that it can tell apart",
    asks.Property: "a model that has looked at it",
    q.ObjectCount: "objects that it can tell apart",
    q.Clearance: "a map of what is free",
    q.RouteLength: "a map of what is free",
    q.PassageWidth: "a map of what is free",
}
"""What geometry alone does not answer, and what that needs."""


def unavailable(query: Query) -> str:
    """What a query needs that geometry does not have, in one line; '' where it has it all."""
    for term in terms(query):
        if isinstance(term, Object):
            return f"{term.name or 'an object'!r} is a thing by its name, and no objects are known by name: mark it instead"
        if isinstance(term, Room) and term.name:
            return f"{term.name!r} is a room by its name, and rooms are not told apart: ask about the whole space seen"
        if type(term) in NEEDS_MORE:
            return f"that needs {NEEDS_MORE[type(term)]}, which is not there"
        if isinstance(term, q.Count) and term.what not in (q.Countable.FRAMES, q.Countable.KEYFRAMES):
            return f"{term.what.value} are not counted: that needs a map which knows them"
    return ""


def answer(c: Context) -> Answer:
    """Geometry's answer to the context's query."""
    c.check()
    ask = c.query.ask
    handler = ASKS.get(type(ask))
    if handler is None:
        raise QueryError(ErrorCode.NOT_AVAILABLE, unavailable(c.query))
    found = handler(c, ask)
    return replace(found, answer=f"{found.answer} ({'; '.join(c.remarks)})") if c.remarks else found
