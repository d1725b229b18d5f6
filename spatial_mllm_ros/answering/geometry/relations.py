"""How things lie to each other: left and right, in front and behind, above, on, inside, next to, between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.answering.directions import pick_direction
from spatial_mllm_ros.answering.geometry.places import Viewer, gravity_stddevs, height_at, name_of, place_of, viewer_of
from spatial_mllm_ros.answering.geometry.points import angle_between, distance, height
from spatial_mllm_ros.answering.geometry.sizes import Solid
from spatial_mllm_ros.answering.geometry.surfaces import on_one_surface
from spatial_mllm_ros.answering.measured import chance_above, merged
from spatial_mllm_ros.queries import measures as q
from spatial_mllm_ros.queries.answer import Answer, Evidence
from spatial_mllm_ros.queries.asks import Relation, Side
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.queries.operands import Ceiling, Floor, NearestWall, Operand, Where
from spatial_mllm_ros.scene.uncertainty import Errors, propagate, propagate_scalar

NEXT_TO_M = 0.5
"""Things with less than this between them are next to each other."""
RESTS_M = 0.04
"""What lies on something is no further above it than this."""
_BETWEEN_DEG = 135.0
"""At what is between two others they are seen at least so far apart: within half a right angle of the straight way."""

WORDS = {where: where.value.replace("_", " ") for where in Where} | {
    Where.LEFT_OF: "to the left of",
    Where.RIGHT_OF: "to the right of",
    Where.SAME_SURFACE: "on the same surface as",
}
_ALONE = {
    Where.LEFT_OF: "left",
    Where.RIGHT_OF: "right",
    Where.IN_FRONT_OF: "front",
    Where.BEHIND: "back",
    Where.ABOVE: "up",
    Where.BELOW: "down",
}

Found = tuple[float, str, tuple[Evidence, ...]]
"""Probability, what was measured in words, and evidence."""


def relation(c: Context, ask: Relation) -> Answer:
    """Whether a thing lies so to another one."""
    chance, measured, evidence = _chance(c, ask)
    return c.boolean(chance, evidence, measured, measured, "gaussian")


def side(c: Context, ask: Side) -> Answer:
    """Which of several relations holds."""
    if ask.b is None and set(ask.options) <= set(_ALONE):
        return _side_of_viewer(c, ask)
    found = [_chance(c, Relation(a=ask.a, where=where, b=ask.b, viewpoint=ask.viewpoint)) for where in ask.options]
    order = sorted(range(len(found)), key=lambda i: -found[i][0])
    best, second = found[order[0]], found[order[1]]
    c.require_confidence(best[0], f"none of these is clear: {best[1]}")
    if second[0] >= c.config.min_confidence:
        both = " and ".join(WORDS[ask.options[i]] for i in order[:2])
        raise QueryError(ErrorCode.ABSTAINED, f"more than one is true, it is {both}: {best[1]}")
    return Answer(
        answer=f"{WORDS[ask.options[order[0]]]}: {best[1]}",
        answer_type=AnswerType.CHOICE,
        choice_index=order[0],
        confidence=best[0],
        confidence_method="gaussian",
        source=AnswerSource.GEOMETRY,
        scale_source=ScaleSource.DEPTH,
        evidence=best[2],
    )


def _side_of_viewer(c: Context, ask: Side) -> Answer:
    place = place_of(c, ask.a)
    viewer = viewer_of(c, ask.viewpoint.at, ask.viewpoint.facing, ask.a)
    value, covariance = propagate(viewer.sees(place), merged(place.stddevs, viewer.stddevs))
    picked = pick_direction(value, covariance, [_ALONE[where] for where in ask.options])
    assert picked is not None
    index, confidence = picked
    words = f"{place.name} is {_offsets(c, value)} {viewer.name}"
    c.require_confidence(confidence, f"it is too close to call: {words}")
    return Answer(
        answer=f"{WORDS[ask.options[index]].removesuffix(' of')}: {words}",
        answer_type=AnswerType.CHOICE,
        choice_index=index,
        confidence=confidence,
        confidence_method="gaussian",
        source=AnswerSource.GEOMETRY,
        scale_source=ScaleSource.DEPTH,
        evidence=(*place.evidence, *viewer.evidence),
    )


def _chance(c: Context, ask: Relation) -> Found:
    where = ask.where
    if where in (Where.LEFT_OF, Where.RIGHT_OF, Where.IN_FRONT_OF, Where.BEHIND):
        return _seen_from(c, ask)
    if ask.b is None:
        raise QueryError(ErrorCode.INVALID_REQUEST, f"{WORDS[where]} what? Say which other thing is meant")
    if where is Where.SAME_SURFACE:
        return on_one_surface(c, ask.a, ask.b)
    if where is Where.BETWEEN:
        assert ask.also is not None
        return _between(c, ask.a, ask.b, ask.also)
    return _TO_ANOTHER[where](c, ask.a, ask.b)


def _seen_from(c: Context, ask: Relation) -> Found:
    """Left, right, in front of and behind, as somebody sees it from a viewpoint.

    Without another thing: on which side of the viewer it is. With one: by direction where both are ahead of the viewer,
    else by how far to the side they are; in front is what is nearer along the line of view.
    """
    a = place_of(c, ask.a, ask.b)
    viewer = viewer_of(c, ask.viewpoint.at, ask.viewpoint.facing, ask.a)
    b = None if ask.b is None else place_of(c, ask.b, ask.a)
    sees_a = viewer.sees(a)
    lateral = ask.where in (Where.LEFT_OF, Where.RIGHT_OF)
    sign = 1.0 if ask.where in (Where.RIGHT_OF, Where.IN_FRONT_OF) else -1.0
    if b is None:

        def amount(e: Errors) -> float:
            right, _, forward = sees_a(e).tolist()
            return float(right if lateral else forward)

        words = f"{a.name} is {_offsets(c, sees_a({}))} {viewer.name}"
        stddevs, evidence = merged(a.stddevs, viewer.stddevs), (*a.evidence, *viewer.evidence)
    else:
        sees_b = viewer.sees(b)
        ahead = min(sees_a({})[2], sees_b({})[2]) > 0

        def amount(e: Errors) -> float:
            (right_a, _, forward_a), (right_b, _, forward_b) = sees_a(e).tolist(), sees_b(e).tolist()
            if not lateral:
                return float(forward_b - forward_a)
            if not ahead:
                return float(right_a - right_b)
            return float(np.arctan2(right_a, forward_a) - np.arctan2(right_b, forward_b))

        words = f"seen from {viewer.name}, {_pair_words(c, a.name, b.name, viewer, lateral, ahead, amount)}"
        stddevs = merged(a.stddevs, b.stddevs, viewer.stddevs)
        evidence = (*a.evidence, *b.evidence, *viewer.evidence)
    value, stddev = propagate_scalar(amount, stddevs)
    return chance_above(sign * value, stddev, 0.0), words, evidence


def _pair_words(
    c: Context, a: str, b: str, viewer: Viewer, lateral: bool, ahead: bool, amount: Callable[[Errors], float]
) -> str:
    value = amount({})
    if not lateral:
        return f"{a} is {c.in_words(abs(value), np.nan, 'm')} {'nearer' if value > 0 else 'farther'} than {b}"
    side = "right" if value > 0 else "left"
    if ahead:
        return f"{a} is {np.degrees(abs(value)):.1f}° to the {side} of {b}"
    return f"{a} is {c.in_words(abs(value), np.nan, 'm')} to the {side} of {b}"


def _offsets(c: Context, seen: Any) -> str:
    """ "0.5 m to the left and 2.1 m in front of" """
    right, _, forward = (float(x) for x in seen)
    aside = f"{c.in_words(abs(right), np.nan, 'm')} to the {'right' if right > 0 else 'left'}"
    return f"{aside} and {c.in_words(abs(forward), np.nan, 'm')} {'in front of' if forward > 0 else 'behind'}"


def _higher(c: Context, a: Operand, b: Operand, sign: float) -> Found:
    measured = height(c, q.Height(of=a, above=b))
    value, stddev = propagate_scalar(measured.at, measured.stddevs)
    first, second = name_of(a), name_of(b)
    words = f"{first} is {c.in_words(abs(value), stddev, 'm')} {'higher' if value >= 0 else 'lower'} than {second}"
    return chance_above(sign * value, stddev, 0.0), words, measured.evidence


def _next_to(c: Context, a: Operand, b: Operand) -> Found:
    measured = distance(c, q.Distance(a=a, b=b))
    value, stddev = propagate_scalar(measured.at, measured.stddevs)
    words = f"{c.in_words(value, stddev, 'm')} are between {name_of(a)} and {name_of(b)}; next to means less than {NEXT_TO_M} m"
    return chance_above(-value, stddev, -NEXT_TO_M), words, measured.evidence


def _on(c: Context, a: Operand, b: Operand) -> Found:
    """Whether a thing rests on another: its foot is at the height of the other's top, and above it."""
    if isinstance(b, NearestWall | Ceiling):
        measured = distance(c, q.Distance(a=a, b=b))
        value, stddev = propagate_scalar(measured.at, measured.stddevs)
        words = f"{name_of(a)} is {c.in_words(value, stddev, 'm')} from {name_of(b)}"
        return _chance_touching(value, stddev), words, measured.evidence
    place = place_of(c, a)
    gravity = c.gravity_with_floor() if isinstance(b, Floor) else c.gravity()
    foot = _rise(place.solid, top=False)
    if isinstance(b, Floor):

        def gap(e: Errors) -> float:
            return height_at(gravity, place.at(e), e) + foot

        value, stddev = propagate_scalar(gap, merged(place.stddevs, gravity_stddevs(gravity)))
        words = f"{_lowest(place.solid)}{place.name} is {c.in_words(value, stddev, 'm')} above the floor"
        return _chance_touching(value, stddev), words, place.evidence
    other = place_of(c, b)
    if other.solid is None:
        raise QueryError(
            ErrorCode.INVALID_REQUEST, f"things are on a box, the floor or a wall, not on {other.name}: mark a box"
        )
    top = _rise(other.solid, top=True)

    def clearance(e: Errors) -> float:
        return height_at(gravity, place.at(e), e) + foot - height_at(gravity, other.at(e), e) - top

    value, stddev = propagate_scalar(clearance, merged(place.stddevs, other.stddevs, gravity_stddevs(gravity)))
    over = _above_plan(c, place.at({}), other.solid)
    evidence = (*place.evidence, *other.evidence)
    words = f"{_lowest(place.solid)}{place.name} is {c.in_words(value, stddev, 'm')} above the top of {other.name}"
    if over < 0.5:
        return min(over, _chance_touching(value, stddev)), f"{words}, but beside it", evidence
    return over * _chance_touching(value, stddev), words, evidence


def _lowest(solid: Solid | None) -> str:
    return "" if solid is None else "the foot of "


def _rise(solid: Solid | None, top: bool) -> float:
    """From the middle of a solid to its top or its foot, metres; 0 for a point."""
    if solid is None:
        return 0.0
    middle = (solid.top + solid.bottom) / 2
    return (solid.top if top else solid.bottom) - middle


def _chance_touching(gap: float, stddev: float) -> float:
    """Probability that a gap (m) is one of things that touch, for surfaces as they are seen."""
    spread = max(stddev, 1e-6)
    return float(ndtr((RESTS_M - gap) / spread) - ndtr((-RESTS_M - gap) / spread))


def _above_plan(c: Context, world: Any, solid: Solid) -> float:
    """Probability that a world position is over what was seen of a solid, seen from above."""
    inside, slack = _inside_sides(c, world, solid)
    return float(ndtr(min(inside[:2]) / slack))


def _inside_sides(c: Context, world: Any, solid: Solid) -> tuple[list[float], float]:
    """How far a position is inside the upright box round a solid [3] (negative: outside), metres, and its deviation."""
    R = c.gravity().T_zup_from_world
    plan = solid.found.world @ R[:3, :3].T + R[:3, 3]
    p = R[:3, :3] @ world + R[:3, 3]
    turn = solid.turn
    low, high = np.percentile(plan[:, :2] @ turn.T, [0.5, 99.5], axis=0)
    at = turn @ p[:2]
    margins = [float(min(at[i] - low[i], high[i] - at[i])) for i in range(2)]
    margins.append(float(min(p[2] - solid.bottom, solid.top - p[2])))
    hidden = 0.0 if solid.deep else 0.5 * solid.sides[0][0]
    return margins, float(np.hypot(0.02, hidden))


def _inside(c: Context, a: Operand, b: Operand) -> Found:
    place, other = place_of(c, a), place_of(c, b)
    if other.solid is None:
        raise QueryError(ErrorCode.INVALID_REQUEST, f"nothing is inside {other.name}: mark a box round what is meant")
    margins, slack = _inside_sides(c, place.at({}), other.solid)
    stddev = float(np.hypot(slack, propagate_scalar(lambda e: float(place.at(e)[2]), place.stddevs)[1]))
    least = min(margins)
    side = "within" if least > 0 else "outside"
    words = f"{place.name} is {c.in_words(abs(least), stddev, 'm')} {side} what was seen of {other.name}"
    return float(ndtr(least / stddev)), words, (*place.evidence, *other.evidence)


def _between(c: Context, a: Operand, b: Operand, also: Operand) -> Found:
    """Whether two others are seen in nearly opposite directions, seen from above."""
    middle, first, second = (place_of(c, x) for x in (a, b, also))
    R = c.gravity().T_zup_from_world[:2, :3]

    def opening(e: Errors) -> float:
        corner = middle.at(e)
        u, v = (np.append(R @ (x.at(e) - corner), 0.0) for x in (first, second))
        return angle_between(u, v)

    value, stddev = propagate_scalar(opening, merged(middle.stddevs, first.stddevs, second.stddevs))
    apart = f"{value:.0f}° apart; between means at least {_BETWEEN_DEG:.0f}°"
    words = f"from {middle.name}, {first.name} and {second.name} are {apart}"
    return chance_above(value, stddev, _BETWEEN_DEG), words, (*middle.evidence, *first.evidence, *second.evidence)


_TO_ANOTHER: dict[Where, Callable[[Context, Operand, Operand], Found]] = {
    Where.ABOVE: lambda c, a, b: _higher(c, a, b, 1.0),
    Where.BELOW: lambda c, a, b: _higher(c, a, b, -1.0),
    Where.ON: _on,
    Where.INSIDE: _inside,
    Where.NEXT_TO: _next_to,
}
