"""Sentences about how things lie to each other, and in which direction they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spatial_mllm_ros.language.phrases import GRAMMAR, Arg, Things, says
from spatial_mllm_ros.language.sentences import Parts, Refused, all_finished, asked, parted
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.query import Query

W = O.Where
SIDED = (W.LEFT_OF, W.RIGHT_OF, W.IN_FRONT_OF, W.BEHIND)
WHO = O.Camera | O.Robot


def viewed(bag: dict[str, Any]) -> tuple[A.Viewpoint, dict[str, Any]] | None:
    """The viewpoint of a bag, and what else is in it."""
    rest = dict(bag)
    view, place, when = rest.pop("view", None), rest.pop("from", None), rest.pop("time", None)
    if view is not None:
        return None if place is not None or when is not None else (view, rest)
    at = place or O.Camera(at=when)
    if when is not None and place is not None:
        if not isinstance(place, WHO) or place.at not in (None, T.Now()):
            return None
        at = replace(place, at=when)
    return A.Viewpoint(at=at), rest


def seen_by(who: Any, view: A.Viewpoint) -> A.Viewpoint | None:
    """The viewpoint of a camera or robot that a thing is said to lie to, at the moment that was told."""
    if view.facing is not None or not isinstance(view.at, O.Camera):
        return None
    if view.at.at is not None and who.at not in (None, T.Now(), view.at.at):
        return None
    return A.Viewpoint(at=who if view.at.at is None else replace(who, at=view.at.at))


def relation(thing: O.Operand, where: W, to: Any, bag: dict[str, Any], also: Any = None, negated: bool = False) -> Any:
    got = viewed(bag)
    if got is None or got[1] or (where in (W.INSIDE, W.ON) and isinstance(to, WHO)):
        return None
    view = got[0]
    if to == O.Camera() and view.facing is not None:
        to = None  # "behind me", who stands there
    if isinstance(to, WHO) and where in SIDED and isinstance(view.at, O.Camera) and view.facing is None:
        by = seen_by(to, view)
        if by is None:
            return None
        view, to = by, None
    return all_finished([A.Relation(a=thing, where=where, b=to, also=also, viewpoint=view)], {}, negated)


@asked("BE {thing} [LIE|standing|directly|located] {rel} {thing}", "{thing} BE [LIE] {rel} {thing}", "DO {thing} LIE {rel} {thing}",
       "BE n't {thing} {rel} {thing}", "{thing} LIE {rel} {thing}")  # fmt: skip
def _related(p: Parts, bag: Any) -> Any:
    return relation(p.things[0], p.one(W), p.things[1], bag)


@asked("BE {thing} not {rel} {thing}")
def _unrelated(p: Parts, bag: Any) -> Any:
    return relation(p.things[0], p.one(W), p.things[1], bag, negated=True)


@asked("BE {thing} [LIE] between {thing} and {thing}", "DO {thing} LIE between {thing} and {thing}")
def _between(p: Parts, bag: Any) -> Any:
    thing, one, other = p.things
    return relation(thing, W.BETWEEN, one, bag, also=other)


@asked("BE {thing} (against|at|by|next to) the wall")
def _at_the_wall(p: Parts, bag: Any) -> Any:
    return relation(p.things[0], W.NEXT_TO, O.NearestWall(), bag)


def _of_two(where: W, *patterns: str) -> None:
    @asked(*patterns, exact=True)
    def act(p: Parts, bag: Any) -> Any:
        things = p.one(Things)
        return relation(things[0], where, things[1], bag) if len(things) == 2 else None


_of_two(W.SAME_SURFACE, "BE {list} on the same (surface|plane)", "DO {list} (lie|stand|rest) on the same (surface|plane)")
_of_two(W.NEXT_TO, "BE {list} (next to|beside) (each other|one another)")
MINE = {
    W.LEFT_OF: "left, the left, on the left, to the left, on my left, to my left, on your left, on the left side, on the left hand side, on its left, to its left, to your left, my left, left hand side, the left hand side, at left, to the left of me, left of me, left of you, to the left of you, to the left of us",
    W.RIGHT_OF: "right, the right, on the right, to the right, on my right, to my right, on your right, on the right side, on the right hand side, on its right, to its right, to your right, my right, right hand side, the right hand side, at right, to the right of me, right of me, right of you, to the right of you, to the right of us",
    W.IN_FRONT_OF: "front, in front, in front of me, in front of you, ahead, in front of it, in the front, to the front, the front, straight ahead, ahead of me, ahead of you, my front, in front of us",
    W.BEHIND: "back, behind, behind me, behind you, behind it, in the back, at the back, to the back, the back, my back, the rear, to my back, rear, behind us",
}
GRAMMAR.table("mine", {w: where for where, words in MINE.items() for w in words.split(", ")})


@asked("BE {thing} [LIE] {mine}", "{thing} BE {mine}")
def _mine(p: Parts, bag: Any) -> Any:
    return relation(p.things[0], p.one(W), None, bag)


says("option", "{mine}", "{rel}")(lambda where: (Arg(f"option {where.value}", where),) if where in (*SIDED, W.ABOVE, W.BELOW) else None)
says("option", "{rel} {simple}", "{mine} of {simple}")(lambda where, thing: (Arg(f"option {where.value}", where), Arg("option of", thing)))
says("more_option", "[or] {option}")(lambda option: option)
says("side_of", "of {simple}")(lambda thing: Arg("option of", thing))


@asked("(BE|DO) {thing} [LIE] [at|to|on] {option} {more_option}* or [to|on] {option} [{side_of}]", "{thing} [LIE] {option} {more_option}* or {option} [{side_of}]",
       "where (BE|DO) {thing} [LIE] {arg}* {option} {more_option}* or {option} [{side_of}]")  # fmt: skip
def _side(p: Parts, bag: dict[str, Any]) -> Any:
    options = tuple(dict.fromkeys(bag.pop(key) for key in list(bag) if key.startswith("option ") and key != "option of"))
    other, got = bag.pop("option of", None), viewed(bag)
    bag.clear()
    if got is None or got[1] or len(options) < 2:
        return None
    view = got[0]
    if isinstance(other, WHO):
        view, other = seen_by(other, view), None  # type: ignore[assignment]
    return A.Side(a=p.things[0], options=options, b=other, viewpoint=view) if view else None


GRAMMAR.table("diagonal", {f"{a}{f} {s}": True for a in ("", "the ", "at ", "to the ", "in ") for f in ("front", "back") for s in ("left", "right")})  # fmt: skip
says("more_diagonal", "{diagonal}")(lambda one: one)


@asked("(BE|DO) {thing} [LIE] {diagonal} {more_diagonal}* or {diagonal}", "(what|which) (side|quadrant|hand) (BE|DO) {thing} [LIE] [on|in]",
       "(on|to|at|in) (what|which) (side|quadrant|hand) [of the camera|around the camera] (BE|DO) {thing} [LIE]",
       "(on|to|in) (what|which) (side|quadrant) of {simple} (BE|DO) {thing} [LIE]", "which quadrant [around the camera] contains {thing}")  # fmt: skip
def _quadrant(p: Parts, bag: dict[str, Any]) -> Any:
    *by, thing = p.things
    by += [bag.pop("of")] if isinstance(bag.get("of"), WHO) else []
    if by:
        if not isinstance(by[0], WHO) or len(by) > 1 or "from" in bag:
            return None
        bag["from"] = by[0]
    return towards(thing, bag, ())


def towards(thing: O.Operand, bag: dict[str, Any], also: tuple[str, ...] = ("frame",)) -> Any:
    """The direction of a thing, seen from where the camera is then."""
    got = viewed(bag)
    bag.clear()
    if got is None or got[1].keys() - set(also) or isinstance(thing, WHO):
        return None
    return all_finished([A.Direction(of=thing, viewpoint=got[0])], got[1])


@asked("[in|to|towards|at] [what|which] (what|which) [egocentric] (direction|way|bearing) (BE|DO|should|would|must|do|does) [{mover}] [have to|need to] [LIE|turn|look|head|go|face|point|turn to|steer] [to|towards] [face|reach|see|look at|get to|hit|find|go to] {thing} [LIE|be|in]",
       "[in] (what|which) (direction|way) {thing} (is|lies|was) [in]", "{thing} (BE|LIE) in (what|which) (direction|way)", "[what is|what was|GIVE|which is] [DET] [egocentric] (direction|bearing) (of|to|towards|for|at) {thing} [is|lies]",
       "[what is|what was|GIVE] [DET] heading (to|towards) {thing}", "point {mover} (to|towards) {thing}", "[in] (what|which) (direction|way) {arg}* (is|was|does|lies) {thing} [LIE]",
       "[in] (what|which) (direction|way) (do|would) {mover} (see|find|point to hit|point to) {thing}", "where (do|does|should|must) {mover} [have to] (go|turn|look) {arg}* to (get to|reach|see|face) {thing}", "{thing} direction", "which way BE {thing}")  # fmt: skip
def _towards(p: Parts, bag: Any) -> Any:
    return towards(p.things[0], bag)


@asked("[what is|what was|GIVE] DET (heading|yaw|yaw angle|orientation) (of|at|for) {thing}", "[what is|what was|GIVE] {thing} POSS (heading|yaw|yaw angle|orientation)")
def _no_heading(p: Parts, bag: Any) -> Any:
    if not isinstance(p.things[0], O.Point | O.Box):
        return None
    seen = tuple(q for q in towards(p.things[0], bag) or () if isinstance(q, Query))
    return Refused("a marked thing has no heading of its own: ask in which direction it is, or for the heading of the camera", seen)


@asked("where (BE|DO|would) {thing} [LIE|be]", "where {arg}* (BE|DO) {thing} [LIE]", "if i am the camera at {moment} where is {thing}")
def _where_from(p: Parts, bag: dict[str, Any]) -> Any:
    """Where a thing is, seen from somewhere: without that it is a place."""
    moment = p.one(T.Moment)
    if moment is not None:
        bag["from"] = O.Camera(at=moment)
    return towards(p.things[0], bag) if bag.keys() & {"from", "view"} else None


@asked("[in|to] (what|which) (direction|way) (BE|DO) {thing} [LIE] [in]", "{thing} BE [LIE] in (what|which) direction", "[what is|GIVE] [the] (direction|bearing) (of|to|towards|for) {thing}")
def _direction(p: Parts, bag: dict[str, Any]) -> Any:
    """Of the camera, too."""
    view = bag.pop("view", None)
    core, floats = parted(bag)
    if core.keys() - {"from"} or (view and core):
        return None
    return all_finished([A.Direction(of=p.things[0], viewpoint=view or A.Viewpoint(at=core.get("from", O.Camera())))], floats)
