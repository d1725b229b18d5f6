"""Sentences about objects, rooms and ways: how things lie, how many there are, what fits, how to get there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from spatial_mllm_ros.language.chart import Several
from spatial_mllm_ros.language.phrases import GRAMMAR, Quantity, same, says, si
from spatial_mllm_ros.language.questions import Both
from spatial_mllm_ros.language.scales import LESS, MORE, distance, measures
from spatial_mllm_ros.language.sentences import (
    OPPOSITE,
    Refused,
    all_finished,
    bag_of,
    bounded,
    compared,
    extreme,
    over_list,
    parted,
    values,
)
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.query import Query

LEVEL_DEG = 5.0
"""degrees: a surface no steeper than this is called level."""

# ---- relations


def viewed(bag: dict[str, Any]) -> tuple[A.Viewpoint, dict[str, Any]] | None:
    """The viewpoint of a bag, and what else is in it."""
    rest = dict(bag)
    view = rest.pop("view", None)
    place = rest.pop("from", None)
    when = rest.pop("time", None)
    if place is not None and view is not None:
        return None
    if view is None:
        at = place or O.Camera(at=when)
        if when is not None and place is not None:
            if not isinstance(place, O.Camera | O.Robot) or place.at not in (None, T.Now()):
                return None
            at = replace(place, at=when)
        view = A.Viewpoint(at=at)
    elif when is not None:
        return None
    return view, rest


def relation(a: O.Operand, where: O.Where, b: Any, args: Any, negated: bool = False, also: Any = None) -> Any:
    bag = bag_of(*args)
    parts = None if bag is None else viewed(bag)
    if parts is None:
        return None
    view, rest = parts
    if where in (O.Where.INSIDE, O.Where.ON) and isinstance(b, O.Camera | O.Robot):
        return None
    if b == O.Camera() and view.facing is not None:
        b = None  # "behind me", who stands there
    if isinstance(b, O.Camera | O.Robot) and where in SIDED and view.facing is None and isinstance(view.at, O.Camera):
        if view.at.at is not None and b.at not in (None, T.Now(), view.at.at):
            return None
        view, b = A.Viewpoint(at=b if view.at.at is None else replace(b, at=view.at.at)), None
    return None if rest else all_finished([A.Relation(a=a, where=where, b=b, also=also, viewpoint=view)], {}, negated)


SIDED = (O.Where.LEFT_OF, O.Where.RIGHT_OF, O.Where.IN_FRONT_OF, O.Where.BEHIND)


@says(
    "core",
    "{arg}* BE {thing} [LIE|standing|directly|located] {rel} {thing} {arg}*",
    "{arg}* {thing} BE [LIE] {rel} {thing} {arg}*",
    "{arg}* DO {thing} LIE {rel} {thing} {arg}*",
    "{arg}* BE n't {thing} {rel} {thing} {arg}*",
    "{arg}* {thing} LIE {rel} {thing} {arg}*",
)
def _related(a: Any, thing: O.Operand, where: O.Where, other: O.Operand, b: Any) -> Any:
    return relation(thing, where, other, (a, b))


@says("core", "{arg}* BE {thing} not {rel} {thing} {arg}*")
def _unrelated(a: Any, thing: O.Operand, where: O.Where, other: O.Operand, b: Any) -> Any:
    return relation(thing, where, other, (a, b), negated=True)


@says(
    "core",
    "{arg}* BE {thing} [LIE] between {thing} and {thing} {arg}*",
    "{arg}* DO {thing} LIE between {thing} and {thing} {arg}*",
)
def _between(a: Any, thing: O.Operand, x: O.Operand, y: O.Operand, b: Any) -> Any:
    return relation(thing, O.Where.BETWEEN, x, (a, b), also=y)


says("core", "{arg}* BE {thing} against the wall {arg}*", "{arg}* BE {thing} (at|by|next to) the wall {arg}*")(
    lambda a, thing, b: relation(thing, O.Where.NEXT_TO, O.NearestWall(), (a, b))
)
says("core", "BE {list} on the same (surface|plane)", "DO {list} (lie|stand|rest) on the same (surface|plane)")(
    lambda things: relation(things[0], O.Where.SAME_SURFACE, things[1], ()) if len(things) == 2 else None
)
says("core", "BE {list} (next to|beside) (each other|one another)")(
    lambda things: relation(things[0], O.Where.NEXT_TO, things[1], ()) if len(things) == 2 else None
)
MINE = {
    O.Where.LEFT_OF: "left, the left, on the left, to the left, on my left, to my left, on your left, on the left side, on the left hand side, on its left, to its left, to your left, my left, left hand side, the left hand side, at left, to the left of me, left of me, left of you, to the left of you, to the left of us",
    O.Where.RIGHT_OF: "right, the right, on the right, to the right, on my right, to my right, on your right, on the right side, on the right hand side, on its right, to its right, to your right, my right, right hand side, the right hand side, at right, to the right of me, right of me, right of you, to the right of you, to the right of us",
    O.Where.IN_FRONT_OF: "front, in front, in front of me, in front of you, ahead, in front of it, in the front, to the front, the front, straight ahead, ahead of me, ahead of you, my front, in front of us",
    O.Where.BEHIND: "back, behind, behind me, behind you, behind it, in the back, at the back, to the back, the back, my back, the rear, to my back, rear, behind us",
}
GRAMMAR.table("mine", {w: where for where, words in MINE.items() for w in words.split(", ")})


@says("core", "{arg}* BE {thing} [LIE] {mine} {arg}*", "{arg}* {thing} BE {mine} {arg}*")
def _mine(a: Any, thing: O.Operand, where: O.Where, b: Any) -> Any:
    return relation(thing, where, None, (a, b))


says("option", "{mine}", "{rel}")(
    lambda where: ("option", where, None) if where in SIDED or where in (O.Where.ABOVE, O.Where.BELOW) else None
)
says("option", "{rel} {simple}", "{mine} of {simple}")(lambda where, thing: ("option", where, thing))
says("more_option", "[or] {option}")(same)


@says(
    "core",
    "{arg}* (BE|DO) {thing} [LIE] [at|to|on] {option} {more_option}* or [to|on] {option} [{side_of}] {arg}*",
    "{arg}* {thing} [LIE] {option} {more_option}* or {option} [{side_of}] {arg}*",
    "{arg}* where (BE|DO) {thing} [LIE] {arg}* {option} {more_option}* or {option} [{side_of}] {arg}*",
)
def _side(*parts: Any) -> Any:
    thing = next(p for p in parts if isinstance(p, O.Operand))
    of = parts[-2]
    options: list[O.Where] = []
    others = {of} if of is not None else set()
    args = []
    for part in parts:
        for one in part if isinstance(part, tuple) and part and isinstance(part[0], tuple) else (part,):
            if isinstance(one, tuple) and one and one[0] == "option":
                options.append(one[1])
                others |= {one[2]} if one[2] is not None else set()
            elif isinstance(one, tuple):
                args.append(one)
    bag = bag_of(*args)
    got = None if bag is None else viewed(bag)
    if got is None or len(others) > 1:
        return None
    view, rest = got
    other = next(iter(others), None)
    if isinstance(other, O.Camera | O.Robot):
        if (
            view.facing is not None
            or not isinstance(view.at, O.Camera)
            or (view.at.at is not None and isinstance(other, O.Camera) and other.at not in (None, view.at.at))
        ):
            return None
        at = view.at.at
        view = A.Viewpoint(at=other if at is None else replace(other, at=at))
        other = None
    if rest or len(set(options)) < 2:
        return None
    return all_finished([A.Side(a=thing, options=tuple(dict.fromkeys(options)), b=other, viewpoint=view)], {})


says("side_of", "of {simple}")(same)
GRAMMAR.table(
    "diagonal",
    {
        f"{a}{f} {s}": True
        for a in ("", "the ", "at ", "to the ", "in ")
        for f in ("front", "back")
        for s in ("left", "right")
    },
)
says("more_diagonal", "{diagonal}")(same)


@says(
    "core",
    "{arg}* (BE|DO) {thing} [LIE] {diagonal} {more_diagonal}* or {diagonal} {arg}*",
    "{arg}* (what|which) (side|quadrant|hand) (BE|DO) {thing} [LIE] [on|in] {arg}*",
    "{arg}* (on|to|at|in) (what|which) (side|quadrant|hand) [of the camera|around the camera] (BE|DO) {thing} [LIE] {arg}*",
    "{arg}* (on|to|in) (what|which) (side|quadrant) of {simple} (BE|DO) {thing} [LIE] {arg}*",
    "{arg}* which quadrant [around the camera] contains {thing} {arg}*",
)
def _quadrant(*parts: Any) -> Any:
    things = [p for p in parts if isinstance(p, O.Operand)]
    bag = bag_of(*(p for p in parts if isinstance(p, tuple) and not (p and p[0] is True)))
    if bag is None:
        return None
    if len(things) == 2:
        if not isinstance(things[0], O.Camera | O.Robot) or "from" in bag:
            return None
        bag["from"] = things[0]
    if "of" in bag and isinstance(bag["of"], O.Camera | O.Robot):
        bag["from"] = bag.pop("of")
    got = viewed(bag)
    if got is None or got[1]:
        return None
    return all_finished([A.Direction(of=things[-1], viewpoint=got[0])], {})


def towards(thing: O.Operand, *args: Any) -> Any:
    """The direction of a thing, seen from where the camera is then."""
    bag = bag_of(*args)
    got = None if bag is None else viewed(bag)
    if got is None or got[1].keys() - {"frame"}:
        return None
    return all_finished([A.Direction(of=thing, viewpoint=got[0])], got[1])


@says("core", "{arg}* [in|to|towards|at] [what|which] (what|which) [egocentric] (direction|way|bearing) (BE|DO|should|would|must|do|does) [{mover}] [have to|need to] [LIE|turn|look|head|go|face|point|turn to|steer] [to|towards] [face|reach|see|look at|get to|hit|find|go to] {thing} [LIE|be|in] {arg}*", "{arg}* [in] (what|which) (direction|way) {thing} (is|lies|was) [in] {arg}*", "{arg}* {thing} (BE|LIE) in (what|which) (direction|way) {arg}*", "{arg}* [what is|what was|GIVE|which is] [DET] [egocentric] (direction|bearing) (of|to|towards|for|at) {thing} [is|lies] {arg}*", "{arg}* [what is|what was|GIVE] [DET] heading (to|towards) {thing} {arg}*", "{arg}* point {mover} (to|towards) {thing} {arg}*", "{arg}* [in] (what|which) (direction|way) {arg}* (is|was|does|lies) {thing} [LIE] {arg}*", "{arg}* [in] (what|which) (direction|way) (do|would) {mover} (see|find|point to hit|point to) {thing} {arg}*", "{arg}* where (do|does|should|must) {mover} [have to] (go|turn|look) {arg}* to (get to|reach|see|face) {thing} {arg}*", "{arg}* {thing} direction {arg}*", "{arg}* which way BE {thing} {arg}*")  # fmt: skip
def _towards(*parts: Any) -> Any:
    thing = next(p for p in parts if isinstance(p, O.Operand))
    if isinstance(thing, O.Camera | O.Robot):
        return None
    return towards(thing, *(p for p in parts if isinstance(p, tuple)))


@says(
    "core",
    "{arg}* [what is|what was|GIVE] DET (heading|yaw|yaw angle|orientation) (of|at|for) {thing} {arg}*",
    "{arg}* [what is|what was|GIVE] {thing} POSS (heading|yaw|yaw angle|orientation) {arg}*",
)
def _no_heading(a: Any, thing: O.Operand, b: Any) -> Any:
    bag = bag_of(a, b)
    if bag is None or not isinstance(thing, O.Point | O.Box):
        return None
    seen = towards(thing, a, b)
    return Refused(
        "a marked thing has no heading of its own: ask in which direction it is, or for the heading of the camera",
        tuple(q for q in seen or () if isinstance(q, Query)),
    )


@says(
    "core",
    "{arg}* where (BE|DO|would) {thing} [LIE|be] {arg}*",
    "{arg}* where {arg}* (BE|DO) {thing} [LIE] {arg}*",
    "{arg}* if i am the camera at {moment} where is {thing}",
)
def _where_from(*parts: Any) -> Any:
    """Where a thing is, seen from somewhere: without that it is a place."""

    thing = next(p for p in parts if isinstance(p, O.Operand))
    args = [
        *(p for p in parts if isinstance(p, tuple)),
        *(("from", O.Camera(at=p)) for p in parts if isinstance(p, T.Moment)),
    ]
    bag = bag_of(*args)
    return (
        None
        if bag is None or not bag.keys() & {"from", "view"} or isinstance(thing, O.Camera | O.Robot)
        else towards(thing, *args)
    )


# ---- how many, is there, what is


@says(
    "core",
    "{arg}* how many {counted_object} (BE there|BE|can be seen|do you see|exist|does the room have|are in it|have you seen) {arg}*",
    "how many {counted_object}",
    "{arg}* [GIVE] [the] number of {counted_object} {arg}*",
    "count [the|all] {counted_object} {arg}*",
    "how many {counted_object} (does|do) {room} (have|contain)",
    "how many {counted_object} (is|are) (there in|in) {room}",
    "how many {counted_object} (are|stand|lie|sit) {rel} {simple}",
)
def _object_count(*parts: Any) -> Any:
    of = next(p for p in parts if isinstance(p, O.Object))
    place = next((p for p in parts if isinstance(p, O.Operand) and p is not of), None)
    where = next((p for p in parts if isinstance(p, O.Where)), O.Where.INSIDE)
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if (
        bag is None
        or (not of.name and of.where is None and place is None)
        or bag.keys() - {"of"}
        or (place is not None and of.to is not None)
    ):
        return None
    if "of" in bag and not isinstance(bag["of"], O.Room):
        return None
    place = place or bag.get("of")
    if (
        place is not None
        and not isinstance(place, O.Room)
        and where is O.Where.INSIDE
        and not isinstance(place, O.Box | O.Object)
    ):
        return None
    if place is not None and place != O.Room():
        of = replace(of, where=where, to=place)
    return all_finished([A.Value(of=M.ObjectCount(of=of))], {})


@says(
    "core",
    "how many {counted} (BE there|BE|DO {room} have|DO {mover} (record|see|take|have)|have you [seen|recorded]|were (recorded|taken|captured)|were there) [in {room}|so far|in [the] RECORDING]",
    "how many {counted} have {mover} (seen|recorded|taken)",
)
def _count(what: M.Countable, *_: Any) -> Any:
    return all_finished([A.Value(of=M.Count(what=what))], {})


@says(
    "core",
    "{arg}* (is|are|was) there [any|a|an|some] {counted_object} {arg}*",
    "DO {object_any} exist",
    "DO {room} have [any] {object_in}",
    "(is|are) [any] {counted_object} (here|present|around)",
    "(is|are) there [any|a|an] {noun_or}",
)
def _exists(*parts: Any) -> Any:
    of = next(p for p in parts if isinstance(p, O.Object))
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None or bag:
        return None
    room = next((p for p in parts if isinstance(p, O.Room)), None)
    if of.pick is O.Pick.ALL:
        of = replace(of, pick=O.Pick.ANY)
    if room is not None:
        of = replace(of, where=O.Where.INSIDE, to=room)
    return all_finished([A.Exists(of=of)], {}) if of.name or of.where else None


says("object_in", "[a|an|some] {noun}")(lambda noun: O.Object(name=noun[0], pick=O.Pick.ANY) if noun[0] else None)
says("object_any", "{thing}")(lambda x: x if isinstance(x, O.Object) else None)
says("noun_or", "{noun} or {noun}")(lambda a, b: None)


@says(
    "core",
    "{arg}* (what|which (object|thing|objects|things|item|items)|what else|who) (is|are|lies|stands|sits|lie|stand|hangs|was) [standing|lying|located|there] {rel} {simple} {arg}*",
    "{arg}* what (do you see|is there|can you see|can be seen|is) {rel} {simple} {arg}*",
    "what is to the {rel_of}",
    "(list|find|name|show) [me] [all|the] [of the] (objects|things|items) {rel} {simple}",
    "which objects are all of the object that is {rel} {simple}",
)
def _find(*parts: Any) -> Any:
    where, to = next(p for p in parts if isinstance(p, O.Where)), next(p for p in parts if isinstance(p, O.Operand))
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None or bag or where is O.Where.SAME_SURFACE:
        return None
    return all_finished([A.Find(of=O.Object(pick=O.Pick.ALL, where=where, to=to))], {})


says("rel_of", "{rel}")(lambda _: None)


@says("core", "which objects are {thing}", "(list|find|name|show|count) [me|all|the] {found}")
def _find_object(thing: Any) -> Any:
    return all_finished([A.Find(of=thing)], {}) if isinstance(thing, O.Object) else None


says("found", "all [of] [the] {noun} [{rel} {simple}]")(
    lambda noun, where, to: O.Object(name=noun[0], pick=O.Pick.ALL, where=where, to=to) if noun[0] or where else None
)


@says(
    "core",
    "{arg}* (what|which) (is|are|was) the {pick} (object|thing|item|one|{noun}) [{in_room}] [to {thing}|from {thing}|{in_room}]",
    "(what|which) (object|thing|item|{noun}) (is|are|lies|stands) [the] {pick} [to {thing}|from {thing}|in {room}]",
    "{arg}* what (is|lies) {pick} (to|from) {thing}",
    "(find|show me|name) the {pick} (object|thing|{noun}) [to {thing}|from {thing}]",
)
def _find_pick(*parts: Any) -> Any:
    pick = next(p for p in parts if isinstance(p, O.Pick))
    noun = next(
        (p for p in parts if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], bool)),
        ("", False),
    )
    things = [p for p in parts if isinstance(p, O.Operand)]
    if pick in (O.Pick.ALL, O.Pick.ANY, O.Pick.OTHER) or len(things) > 1:
        return None
    to = things[0] if things else None
    if isinstance(to, O.Room):
        return all_finished([A.Find(of=O.Object(name=noun[0], pick=pick, where=O.Where.INSIDE, to=to))], {})
    if to is not None and pick not in (O.Pick.NEAREST, O.Pick.FARTHEST):
        return None
    return all_finished([A.Find(of=O.Object(name=noun[0], pick=pick, to=to))], {})


says("in_room", "in {room}")(same)


@says(
    "core",
    "(which|what) room (is|am|are|was) {mover} [now|currently] (in|inside)",
    "in (which|what) room (is|am|are) {mover} [now]",
    "(which|what) room is (this|it|here)",
    "where am i , (which|what) room",
)
def _room_now(*_: Any) -> Any:
    return all_finished([A.RoomOf(of=O.Camera(at=T.Now()))], {})


@says("core", "(which|what) room (is|are) {thing} in", "in (which|what) room (is|are|can i find) {thing}")
def _room_of(thing: O.Operand) -> Any:
    return all_finished([A.RoomOf(of=thing)], {})


says(
    "core",
    "which room (has|contains) the most {noun}",
    "in which room are [there] the most {noun}",
    "which room are most of {named} in",
)(
    lambda noun: all_finished(
        [A.RoomOf(of=noun if isinstance(noun, O.Operand) else O.Object(name=noun[0], pick=O.Pick.ALL), most=True)], {}
    )
)
says("named", "{thing}")(same)


@says(
    "core",
    "{arg}* (are|is) there (more|as many|fewer|less) {more_kind} than {noun} {arg}*",
    "(are|is) there {fewer} {noun} than {noun}",
)
def _more_of(*_: Any) -> Any:
    return None


@says("core", "(are|is) there more {noun} than {noun}")
def _more_objects(a: Any, b: Any) -> Any:
    x, y = (M.ObjectCount(of=O.Object(name=n[0], pick=O.Pick.ALL)) for n in (a, b))
    return all_finished([A.Compare(a=x, comparison=A.Comparison.MORE, b=y)], {}) if a[0] and b[0] else None


@says("core", "(are|is) there (fewer|less) {noun} than {noun}")
def _fewer_objects(a: Any, b: Any) -> Any:
    x, y = (M.ObjectCount(of=O.Object(name=n[0], pick=O.Pick.ALL)) for n in (a, b))
    return all_finished([A.Compare(a=x, comparison=A.Comparison.LESS, b=y)], {}) if a[0] and b[0] else None


says("core", "(are|is) there {comparison} {amount_number} {noun}")(
    lambda c, n, noun: (
        all_finished([A.Threshold(of=M.ObjectCount(of=O.Object(name=noun[0], pick=O.Pick.ALL)), comparison=c, value=n)], {})
        if noun[0]
        else None
    )
)
says(
    "core",
    "{arg}* [what|which] [is|will be|was|be] [the] [first time|first] appearance order of [the following [categories|objects|things]] [in the RECORDING] {list} {arg}*",
    "in (which|what) order (did|do|does|were|are) {list} [first] (APPEAR|VISIBLE|SEEN)",
    "what will be the first time appearance order of the following categories in the video {list}",
)(
    lambda *v: all_finished(
        [A.AppearanceOrder(of=next(p for p in v if isinstance(p, tuple) and p and isinstance(p[0], O.Operand)))], {}
    )
)
GRAMMAR.table(
    "property",
    {
        "color": "color",
        "colour": "color",
        "material": "material",
        "shape": "shape",
        "temperature": "temperature",
        "brand": "brand",
        "state": "state",
        "weight": "weight",
        "age": "age",
        "price": "price",
    },
)
says(
    "core",
    "(what|which) {property} (is|are|has|does) {thing} [have|made of]",
    "what is the {property} of {thing}",
    "{thing} is what {property}",
)(
    lambda *v: all_finished(
        [A.Property(of=next(p for p in v if isinstance(p, O.Operand)), name=next(p for p in v if isinstance(p, str)))], {}
    )
)
says("core", "(is|are|was) {thing} open", "(is|are) {thing} opened")(lambda thing: all_finished([A.Open(of=thing)], {}))
says("core", "(is|are) {thing} (closed|shut)")(lambda thing: all_finished([A.Open(of=thing)], {}, negated=True))

# ---- ways and free places


@says(
    "core",
    "[tell me] how (do|can|should) {mover} (get|go|drive|walk|come) [from {thing}] to {thing} [from {thing_here}] [{radius}]",
    "[the] [shortest] (route|way|path) [from] {thing} to {thing}",
    "what is the [shortest|best|fastest|quickest] (route|way|path) [from {thing}] to {thing} [{radius}]",
    "(find|plan|show|GIVE) [me] (a|the) [shortest|best] (route|way|path) [from {thing}] to {thing}",
    "how to (get|go|drive) [from {thing}] to {thing}",
)
def _route(*parts: Any) -> Any:
    start, goal, radius = _trip(parts)
    if isinstance(start, O.Camera) and start.at in (None, T.Now()):
        start = None
    return all_finished([A.Route(goal=goal, start=start, radius_m=radius)], {})


def _trip(parts: Any) -> tuple[Any, Any, float]:
    things = [p for p in parts if isinstance(p, O.Operand)]
    if len(things) > 1 and things[-1] == O.Camera(at=T.Now()):
        things = [things[-1], *things[:-1]]
    if len(things) > 1 and isinstance(things[0], O.Camera) and things[0].at in (None, T.Now()):
        things = things[1:]
    radius = next((p for p in parts if isinstance(p, float)), 0.0)
    return (things[0] if len(things) > 1 else None), things[-1], radius


says("robot_of", "a robot (of|with) [a] {quantity} radius", "a robot (of|with) [a] radius [of] {quantity}")(lambda q: si(q) if _metres(q) else None)
says("thing_here", "{thing}")(lambda thing: thing if thing == O.Camera(at=T.Now()) else None)
HERE = O.Robot(at=T.Now())


@says(
    "core",
    "[what is|GIVE] [the] (shortest|driving|walking|shortest driving|shortest walking) (distance|way) [from {thing}] to {thing} [{radius}] {arg}*",
    "how (long|far) is the [shortest] (route|way|path|drive|walk) [from {thing}] to {thing} [{radius}] {arg}*",
    "how far (would|does|must|do|will) {mover} have to (drive|travel|walk|go) [from {thing}] to [get to|reach] {thing} {arg}*",
    "how far (is it|is) to (drive|walk) [from {thing}] to {thing} {arg}*",
    "how far do {mover} still have to (drive|travel|walk|go) [from {thing}] to [get to|reach] {thing} {arg}*",
    "how far (do|would|must) {mover} [need to|have to] (drive|walk) [from {thing}] to {thing} {arg}*",
    "how far (would|does|must|do) {mover} have to (drive|travel|walk|go) to get from {thing} to {thing} {arg}*",
    "what is the length of the (route|way) [from {thing}] to {thing} {arg}*",
)
def _route_length(*parts: Any) -> Any:
    start, goal, radius = _trip(parts)
    bag = bag_of(parts[-1])
    if isinstance(start, O.Camera) and start.at in (None, T.Now()):
        start = HERE
    if isinstance(goal, O.Camera | O.Robot) and goal.at in (None, T.Now()):
        return None
    return (
        None
        if bag is None or bag.keys() - {"unit"}
        else all_finished([A.Value(of=M.RouteLength(start=start or HERE, goal=goal, radius_m=radius))], bag)
    )


@says(
    "core",
    "(is|are) {thing} reachable [from {thing}] [{radius}]",
    "(can|could) {mover} (reach|get to|drive to|go to|access) {thing} [from {thing_here}] [{radius}]",
    "(is|would|can) {robot_of} [be] [able to] (reach|get to|drive to|go to) {thing}",
    "is the [way|path|route] (way|path|route) to {thing} (free|clear|open|unobstructed)",
    "can {thing} be reached [from {thing}] [by {mover}]",
)
def _reachable(*parts: Any) -> Any:
    things = [p for p in parts if isinstance(p, O.Operand)]
    radius = next((p for p in parts if isinstance(p, float)), 0.0)
    start = things[1] if len(things) > 1 and things[1] != O.Camera(at=T.Now()) else None
    return all_finished([A.Reachable(goal=things[0], start=start, radius_m=radius)], {})


says("core", "(is|are) {thing} (unreachable|not reachable)")(
    lambda thing: all_finished([A.Reachable(goal=thing)], {}, negated=True)
)
says("core", "is the (way|path|route) to {thing} (blocked|obstructed)")(
    lambda thing: all_finished([A.Reachable(goal=thing)], {}, negated=True)
)
says(
    "core",
    "is the (way|path|route) (between|from) {thing} (and|to) {thing} (free|clear|open)",
    "is there a (way|path|route|free path|clear path) from {thing} to {thing}",
)(lambda a, b: all_finished([A.Reachable(goal=b, start=a)], {}))
says(
    "core",
    "is there [a] [free|clear] line of sight (between|from) {thing} (and|to) {thing}",
    "is anything between {thing} and {thing}",
    "(can|could) {thing} be SEEN from {thing}",
)(lambda a, b: all_finished([A.LineOfSight(a=a, b=b)], {}) if not isinstance(b, O.Camera | O.Robot) else None)
says(
    "core",
    "how much (clearance|free space|room|space) (is|are) [there] around {thing} {arg}*",
    "[what is|GIVE] the clearance (around|of) {thing} {arg}*",
)(lambda thing, args: _clear(M.Clearance(of=thing), args))
says(
    "core",
    "how far can {mover} (drive|go|move|travel) [straight] (forward|ahead|forwards) [before (hitting|it hits|i hit|bumping into) (something|anything|an obstacle|a wall)] {arg}*",
    "how far is the (nearest|next|closest) obstacle (ahead|in front|in front of {mover}) {arg}*",
    "how much (free space|space|room|clearance) is (ahead|in front) [of {mover}] {arg}*",
)(lambda *v: _clear(M.Clearance(of=HERE, ahead=True), v[-1]))
says(
    "core",
    "how far (is|am) {mover} from the (nearest|closest) obstacle {arg}*",
    "how far is the (nearest|closest) obstacle {arg}*",
)(lambda *v: _clear(M.Clearance(of=HERE), v[-1]))


def _clear(measure: M.Measure, args: Any) -> Any:
    bag = bag_of(args)
    return (
        None
        if bag is None or bag.keys() - {"unit", "time"} or bag.get("time", T.Now()) != T.Now()
        else all_finished([A.Value(of=measure)], {k: v for k, v in bag.items() if k == "unit"})
    )


says("core", "how wide is the (passage|way|opening) (between|from) {thing} (and|to) {thing} {arg}*")(
    lambda a, b, args: _clear(M.PassageWidth(of=a, goal=b), args)
)
GRAMMAR.table(
    "occupancy",
    {
        "free": A.Occupancy.FREE,
        "occupied": A.Occupancy.OCCUPIED,
        "unknown": A.Occupancy.UNKNOWN,
        "empty": A.Occupancy.FREE,
        "unoccupied": A.Occupancy.FREE,
        "in free space": A.Occupancy.FREE,
        "in unknown space": A.Occupancy.UNKNOWN,
        "in occupied space": A.Occupancy.OCCUPIED,
    },
)
says("core", "(is|are|was) {thing} {occupancy}", "is the (place|space|area|spot) at {thing} {occupancy}")(
    lambda thing, state: all_finished([A.Occupied(of=thing, state=state)], {})
)
says(
    "core",
    "(is|are) {thing} [in] {occupancy} [{occupancy}] or {occupancy} [space]",
    "is {thing} [in] (free|occupied|unknown) [occupied|unknown|or occupied] or (unknown|occupied|free) [space]",
)(lambda thing, *_: all_finished([A.Occupied(of=thing)], {}))


@says(
    "box_sides",
    "[a|the] {side_length} [,|and] {side_length} [[and] {side_length}]",
    "[a|an|the] [{kind}] {side_length}",
    "[a|the] {kind} [that is] {side_length} [[and] {side_length}] [[and] {side_length}]",
    "[a|the] {kind} (of|with|that is) {side_length} [and {side_length}] [and {side_length}]",
)
def _box_sides(*parts: Any) -> Any:
    sides: dict[str, float] = dict(p for p in parts if isinstance(p, tuple))
    return ("sides", tuple(sorted(sides.items()))) if len(sides) == sum(isinstance(p, tuple) for p in parts) else None


says("kind_of", "{kind}")(lambda _: "kind")
says("kind", "(box|thing|object|robot|parcel|package|crate|cabinet)")(lambda: True)
says("kind", "{noun} (of|with|measuring)")(lambda noun: True if noun[0] and not noun[1] else None)
says("side_length", "{quantity} (long|in length|deep)")(lambda q: ("length_m", si(q)) if _metres(q) else None)
says("side_length", "{quantity} (wide|in width)")(lambda q: ("width_m", si(q)) if _metres(q) else None)
says("side_length", "{quantity} (high|tall|in height)")(lambda q: ("height_m", si(q)) if _metres(q) else None)


@says(
    "box_sides", "[a|an|the] {amount_number} {by} {quantity} [{kind}]", "[a|an|the] {quantity} {by} {quantity} [{kind}]",
    "[a|an|the] {kind_of} {amount_number} {by} {quantity}", "[a|an|the] {kind_of} {quantity} {by} {quantity}"
)
def _box_by(*values: Any) -> Any:
    *first, b = (v for v in values if isinstance(v, Quantity))
    a = first[0] if first else Quantity(next(v for v in values if type(v) is float), b.unit)
    return (
        ("sides", (("length_m", max(si(a), si(b))), ("width_m", min(si(a), si(b)))))
        if _metres(a) and _metres(b)
        else None
    )


says("by", "(x|by|times)")(lambda: True)


def _metres(quantity: Any) -> bool:
    from spatial_mllm_ros.queries.units import UNITS

    return UNITS[quantity[1]].kind == "length"


FIT = "(fit|go|pass|fits|get)"
PLACES = "(at|in|under|through|into|on|between|underneath|below|beside|inside|within)"


@says(
    "core",
    f"(would|does|will|can|could|do) {{fitting}} {FIT} {PLACES} {{thing}}",
    "is {thing} (wide|big|large|high) enough for {fitting}",
    "is there (room|space|enough space|enough room) for {fitting} (on|in|under|at|beside) {thing}",
    "is there (enough [free] (space|room)|room|space) (on|in|at|under) {thing} for {fitting}",
    "(can|could) {mover} (place|put|set|park) {fitting} (at|on|in|under) {thing}",
)
def _fits(*parts: Any) -> Any:
    things = [p for p in parts if isinstance(p, O.Operand)]
    fitting = next((p for p in parts if isinstance(p, tuple) and p and p[0] == "fitting"), None)
    if fitting is None or not things:
        return None
    return all_finished([A.Fits(place=things[-1], **dict(fitting[1]))], {})


says("fitting", "{box_sides}")(lambda sides: ("fitting", sides[1]))
says("fitting", "(the robot|i|it|we|you|me|the rover|a robot)")(lambda: ("fitting", ()))
says("fitting", "{fit_thing}")(lambda thing: ("fitting", (("thing", thing),)))
says("fit_thing", "{thing}")(lambda x: x if isinstance(x, O.Box | O.Object) else None)
says("core", f"does {{box_sides}} {FIT} at {{thing}}")(
    lambda sides, thing: all_finished([A.Fits(place=thing, **dict(sides[1]))], {})
)


@says(
    "core",
    "where (can|could|should|may) {mover} (put|place|set|set down|store|park) {fitting} [{rel} {simple}]",
    "where is [there] [a|the|room for] [nearest] [free] (place|spot|space|room) (for|to park|to put) {fitting} [{rel} {simple}]",
    "where is room for {fitting} [{rel} {simple}]",
    "find [a|me a] [free] (place|spot|space) for {fitting} [{rel} {simple}]",
    "where is the (nearest|next) free (spot|place|space) [to park {fitting}|for {fitting}]",
)
def _free_place(*parts: Any) -> Any:
    fitting = next((p for p in parts if isinstance(p, tuple) and p and p[0] == "fitting"), ("fitting", ()))
    where = next((p for p in parts if isinstance(p, O.Where)), None)
    at = next((p for p in parts if isinstance(p, O.Operand)), None)
    return all_finished([A.FreePlace(at=at, where=where, **dict(fitting[1]))], {})


says(
    "core",
    "(find|where is) [a] [free|flat|horizontal] (surface|area|place|spot|free place) [of|for] [at least|an area of] {quantity} [{rel} {simple}]",
    "where is a free place for an area of {quantity} [{rel} {simple}]",
)(
    lambda q, where=None, at=None: (
        all_finished([A.FreePlace(area_m2=si(q), where=where, at=at)], {}) if _square(q) else None
    )
)


def _square(quantity: Any) -> bool:
    from spatial_mllm_ros.queries.units import UNITS

    return UNITS[quantity[1]].kind == "area"


says("core", "how (many {unit}|much|steeply) does the (floor|surface|ground) (slope|tilt|incline) at {thing}", "how (many {unit}|much|steeply) does {thing} (slope|tilt|incline)")(lambda *v: all_finished([A.Value(of=M.Slope(at=v[-1]))], {"unit": v[0]} if v[0] else {}))
says("core", "(is|are) [the surface (at|of)] {thing} (level|horizontal|flat|even)")(
    lambda thing: all_finished([A.Threshold(of=M.Slope(at=thing), comparison=A.Comparison.AT_MOST, value=LEVEL_DEG)], {})
)
says("core", "(is|are) [the surface (at|of)] {thing} (vertical|upright)")(
    lambda thing: all_finished(
        [A.Threshold(of=M.Slope(at=thing), comparison=A.Comparison.AT_LEAST, value=90 - LEVEL_DEG)], {}
    )
)
says(
    "core",
    "[what is|GIVE|in which direction is|where does] [the] [surface|unit] normal [vector] (of|at) [the surface] [at|of] [{thing}|] {arg}*",
    "what is the normal of the surface at {thing} {arg}*",
    "which way does the surface at {thing} (face|point) {arg}*",
)(lambda *v: all_finished([A.SurfaceNormal(at=v[0])], bag_of(v[-1]) or {}) if isinstance(v[0], O.Operand) else None)

# ---- the same of each of several


def each_of(things: Any, ask: Any) -> Both | None:
    """One question for each of several things; None where one of them cannot be asked or can mean two things."""
    asked = [list(ask(thing) or ()) for thing in things]
    return Both(tuple(one for (one,) in asked)) if all(len(a) == 1 for a in asked) else None


@says(
    "core",
    "{arg}* {how} BE {list} [each|both] {arg}*",
    "{arg}* (what BE|GIVE) the {scale_noun} (of|to) {list} [each|both] {arg}*",
)
def _value_of_each(*parts: Any) -> Any:
    things = next(p for p in parts if isinstance(p, tuple) and p and isinstance(p[0], O.Operand))
    if len({type(x) for x in things}) > 1:
        return None
    scale = noun = next((p for p in parts if isinstance(p, str)), None)
    unit = ""
    rest = [p for p in parts if isinstance(p, tuple) and p is not things]
    if scale is None:
        how = next(p for p in rest if len(p) == 2 and all(isinstance(x, str) for x in p))
        rest.remove(how)
        scale, unit = how
    bag = bag_of(*rest, ("unit", unit) if unit else ())
    if bag is None or "subj" in bag or (scale == "far" and noun is None and not bag.keys() & {"from", "to"}):
        return None  # "how far are" several asks how far they are apart
    return each_of(things, lambda thing: values(scale, {**bag, "subj": thing}))


@says("core", "{arg}* BE {list} [each|both] {than_adj} {arg}* {than_marked} {arg}*")
def _more_of_each(*parts: Any) -> Any:
    things = next(p for p in parts if isinstance(p, tuple) and p and isinstance(p[0], O.Operand))
    scale, sign = next(p for p in parts if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str))
    than = next(p for p in parts if isinstance(p, Than)).of
    bag = bag_of(*(p for p in parts if isinstance(p, tuple) and p is not things and p != (scale, sign)))
    if bag is None or "subj" in bag:
        return None
    core, floats = parted(bag)
    return each_of(things, lambda t: all_finished(compared(scale, sign, {**core, "subj": t}, than), floats))


# ---- comparing several


@says("core", "{arg}* {how} (BE|DO) {thing} [LIE] [AWAY] (from|to) {end_of} {list} {arg}*")
def _from_extreme(*parts: Any) -> Any:
    """How far it is to the nearest (or farthest) of several."""
    thing = next(p for p in parts if isinstance(p, O.Operand))
    how = next(p for p in parts if isinstance(p, tuple) and len(p) == 2 and all(isinstance(x, str) for x in p))
    things = next(p for p in parts if isinstance(p, tuple) and p and isinstance(p[0], O.Operand))
    which = next(p for p in parts if isinstance(p, A.Which))
    bag = bag_of(*(p for p in parts if isinstance(p, tuple) and p is not how and p is not things))
    if bag is None or how[0] != "far" or thing in things:
        return None
    core, floats = parted({**bag, **({"unit": how[1]} if how[1] else {})})
    of = tuple(d for x in things if isinstance(d := distance(thing, x), M.Distance))
    if core or len(of) < len(things):
        return None
    return all_finished([A.Extreme(of=of, which=which, as_value=True)], floats)


says("end_of", "the (nearest|closest) of")(lambda: A.Which.SMALLEST)
says("end_of", "the (farthest|furthest) of")(lambda: A.Which.LARGEST)


@says(
    "core",
    "{arg}* which (pair|two) of {list} BE [the] ({pair_end}) {arg}*",
    "{arg}* which [two] of {list} BE [the] ({pair_end}) {arg}*",
)
def _which_pair(a: Any, things: Any, end: A.Which, b: Any) -> Any:
    bag = bag_of(a, b)
    pairs = tuple(M.Distance(a=x, b=y) for x, y in combinations(things, 2))
    return None if bag is None or len(pairs) < 3 else all_finished([A.Extreme(of=pairs, which=end)], bag)


GRAMMAR.table(
    "pair_end",
    {f"{word} {tail}": which for which, words in {A.Which.SMALLEST: "closest, nearest", A.Which.LARGEST: "farthest, furthest"}.items()
     for word in words.split(", ") for tail in ("together", "apart", "to each other", "from each other")},
)  # fmt: skip


@says(
    "core",
    "ORDERING {list} (by|from) {how_ordered} {arg}*",
    "ORDERING {list} {how_ordered} {arg}*",
    "ORDERING [the] {list} by [their] {scale_noun} {arg}* [{updown}]",
    "what is the order of {list} (by|from) {how_ordered} {arg}*",
)
def _order(*parts: Any) -> Any:
    things = next(p for p in parts if isinstance(p, tuple) and p and isinstance(p[0], O.Operand))
    how = next((p for p in parts if isinstance(p, tuple) and len(p) == 3 and isinstance(p[0], str)), None)
    scale = next((p for p in parts if isinstance(p, str)), None)
    rest = [p for p in parts if p is not things and p is not how and isinstance(p, tuple)]
    if scale is not None:
        down = any(p == ("down",) for p in rest)
        how = (scale, MORE, down)
        rest = [p for p in rest if p not in (("down",), ("up",))]
    if how is None:
        return None
    scale_name, _, descending = how
    return over_list(
        lambda of: [A.Order(of=of, descending=descending)],
        "high" if scale_name == "height" else scale_name,
        "subj",
        things,
        *rest,
    )


says("updown", "descending", "in descending order", "from (large|big|far|high) to (small|near|low)")(lambda: ("down",))
says("updown", "ascending", "in ascending order", "from (small|near|low) to (large|far|high)")(lambda: ("up",))


@says(
    "how_ordered",
    "[from] {adj} to {adj}",
    "[the] {most_adj} first",
    "[from] [the] {most_adj} to [the] {most_adj}",
    "increasing {scale_noun}",
)
def _how_ordered(a: Any, b: Any = None) -> Any:
    if isinstance(a, str):
        return (a, MORE, False)
    if b is not None and (a[0] != b[0] or a[1] == b[1]):
        return None
    return (a[0], MORE, a[1] == MORE)


GRAMMAR.table("times", {"twice": 2.0, "half": 0.5, "three times": 3.0, "double": 2.0, "four times": 4.0, "thrice": 3.0})
says("factor", "{times} [as]", "{amount_number} times [as]")(same)


@says(
    "core",
    "{arg}* BE {thing} [{comparison}|exactly] {factor} as {adj} {arg}* as {thing} {arg}*",
)
def _times_as(*parts: Any) -> Any:
    things = [p for p in parts if isinstance(p, O.Operand)]
    factor = next((p for p in parts if isinstance(p, float)), None)
    comparison = next((p for p in parts if isinstance(p, A.Comparison)), A.Comparison.ABOUT)
    adj = next(
        p
        for p in parts
        if isinstance(p, tuple)
        and len(p) == 2
        and isinstance(p[0], str)
        and isinstance(p[1], int)
        and p[0] not in ("time",)
    )
    bag = bag_of(*(p for p in parts if isinstance(p, tuple) and p is not adj))
    if bag is None or len(things) != 2 or factor is None or adj[1] != MORE:
        return None
    return _pairwise(adj[0], things, bag, comparison, factor)


@says(
    "core",
    "{arg}* (BE|DO) {thing} (just as|as|exactly as|equally) {adj} [away] {arg}* as {thing} {arg}*",
    "{arg}* BE {list} (equally|the same|just as) {adj} [away] {arg}*",
    "{arg}* (BE|DO) {list} [LIE] (at|of|on) the same {scale_noun} {arg}*",
    "{arg}* BE {thing} (at|on|of) the same {scale_noun} as {thing} {arg}*",
    "{arg}* (do|does) {list} have the same {scale_noun} {arg}*",
    "{arg}* BE {thing} the same {scale_noun} as {thing} {arg}*",
)
def _as(*parts: Any) -> Any:
    lists: list[Any] = [p for p in parts if isinstance(p, tuple) and p and isinstance(p[0], O.Operand)]
    things: Any = [p for p in parts if isinstance(p, O.Operand)] or (lists[0] if lists else ())
    adj = next(
        (p for p in parts if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], int)),
        None,
    )
    scale = adj[0] if adj else next((p for p in parts if isinstance(p, str)), "")
    bag = bag_of(*(p for p in parts if isinstance(p, tuple) and p is not adj and not (p and isinstance(p[0], O.Operand))))
    if bag is None or len(things) != 2:
        return None
    return _pairwise(
        "high" if scale == "height" and not isinstance(things[0], O.Box | O.Object | O.Room) else scale,
        list(things),
        bag,
        A.Comparison.ABOUT,
        1.0,
    )


def _pairwise(scale: str, things: list[O.Operand], bag: dict[str, Any], comparison: A.Comparison, factor: float) -> Any:
    core, floats = parted(bag)
    pairs = zip(
        measures(scale, {**core, "subj": things[0]}), measures(scale, {**core, "subj": things[1]}), strict=False
    )
    return all_finished(
        [A.Compare(a=a, comparison=comparison, b=b, factor=factor) for a, b in pairs if type(a) is type(b)], floats
    )


@says(
    "core",
    "{arg}* BE {thing} [LIE] {bound} [AWAY|away|off|apart] {arg}*",
    "{arg}* {thing} BE {bound} [away] {arg}*",
    "{arg}* BE {list} [LIE] {bound} [apart|away from each other|from each other|of each other] {arg}*",
    "{arg}* (is there|are there) {bound} [of space|of distance] {arg}*",
    "{arg}* DO {thing} LIE {bound} [away] {arg}*",
    "{arg}* BE {list} {bound} {arg}* apart",
)
def _bounded_far(*parts: Any) -> Any:
    return _bounded(parts, "far", False)


@says("core", "{arg}* BE {thing} not {bound} [away|off] {arg}*", "{arg}* BE {list} not {bound} [apart] {arg}*")
def _not_bounded_far(*parts: Any) -> Any:
    return Several(
        replace(q, ask=replace(q.ask, comparison=OPPOSITE[q.ask.comparison]))
        if isinstance(q.ask, A.Threshold) and q.ask.comparison in OPPOSITE
        else replace(q, negated=True)
        for q in _bounded(parts, "far", False) or ()
    )


@says(
    "core",
    "{arg}* (BE|DO) {thing} {bound} {adj} {arg}*",
    "{arg}* (BE|DO) {thing} {bound} in (height|width|length|size) {arg}*",
)
def _bounded_adj(*parts: Any) -> Any:
    adj = next(
        (
            p
            for p in parts
            if isinstance(p, tuple)
            and len(p) == 2
            and isinstance(p[0], str)
            and isinstance(p[1], int)
            and not isinstance(p[1], bool)
        ),
        None,
    )
    if adj is None or adj[1] != MORE or adj[0] == "far":
        return None
    return _bounded([p for p in parts if p is not adj], adj[0], False)


def _bounded(parts: Any, scale: str, negated: bool) -> Any:
    things = [p for p in parts if isinstance(p, O.Operand) or (isinstance(p, tuple) and p and isinstance(p[0], O.Operand))]
    bound = next(
        p
        for p in parts
        if isinstance(p, tuple)
        and p
        and (
            isinstance(p[0], A.Comparison) or (isinstance(p[0], tuple) and len(p[0]) == 2 and isinstance(p[0][0], float))
        )
    )
    bag = bag_of(*(p for p in parts if isinstance(p, tuple) and p is not bound and p not in things))
    if bag is None:
        return None
    if things:
        bag["subj"] = things[0]
        if scale == "far" and "of" in bag and "from" not in bag:
            bag["from"] = bag.pop("of")
    core, floats = parted(bag)
    return all_finished([a for m in measures(scale, core) for a in bounded(m, bound)], floats, negated)


@says(
    "core",
    "{arg}* (BE|DO) {thing} [LIE] {above_below} {thing} by {bound}",
    "{arg}* (BE|DO) {thing} [LIE] {bound} {above_below} {thing}",
)
def _above_by(*parts: Any) -> Any:
    a, b = (p for p in parts if isinstance(p, O.Operand))
    sign = next(p for p in parts if isinstance(p, int) and not isinstance(p, bool))
    bound = next(
        p for p in parts if isinstance(p, tuple) and p and (isinstance(p[0], A.Comparison | tuple))
    )
    return all_finished(bounded(M.Height(of=a, above=b) if sign == MORE else M.Height(of=b, above=a), bound), {})


GRAMMAR.table(
    "above_below",
    {
        "above": MORE,
        "below": LESS,
        "under": LESS,
        "over": MORE,
        "higher than": MORE,
        "lower than": LESS,
        "beneath": LESS,
    },
)


@says(
    "core",
    "{arg}* [by] (how much|how far|how many {unit}) {more_adj} (BE|DO) {thing} [LIE] {arg}* {than_marked} {arg}*",
    "{arg}* [by] (how much|how far|how many {unit}) {more_adj} {thing} (BE|LIE) {arg}* {than_marked} {arg}*",
    "{arg}* [by] (how much|how far|how many {unit}) (BE|DO) {thing} [LIE] {more_adj} {arg}* {than_marked} {arg}*",
    "{arg}* [by] (how much|how many {unit}) {more_adj} {arg}* {than_marked} {arg}* (BE|is) {thing} {arg}*",
    "{arg}* [by] (how much|how many {unit}) {more_adj} {arg}* (BE|is) {thing} {arg}* {than_marked} {arg}*",
)
def _how_much_more(*parts: Any) -> Any:
    thing = next(p for p in parts if isinstance(p, O.Operand))
    adj = next(
        p for p in parts if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], int)
    )
    than = next(p for p in parts if isinstance(p, Than))
    unit = next((p for p in parts if isinstance(p, str)), "")
    bag = bag_of(*(p for p in parts if isinstance(p, tuple) and p is not adj), ("unit", unit) if unit else ())
    things = isinstance(than.of[0], tuple) and than.of[0][0] in ("subj", "from", "to")
    return differing(adj, thing, bag, than.of) if bag is not None and things else None


@dataclass(frozen=True)
class Than:
    """What stands after "than", so that it is not taken for what is added to the question ("from the robot")."""

    of: Any


says("than_marked", "{than}")(lambda than: Than(of=than))


def differing(adj: Any, thing: O.Operand, bag: dict[str, Any], than: Any) -> Any:
    """By how much a scale says more (or less) of one thing than of another."""
    scale, sign = adj
    core, floats = parted(bag)
    if "subj" in core:
        return None
    if than[0][0] == "subj" and (
        (scale == "up" and not core) or (scale in ("high", "tall", "far", "up") and core == {"above": O.Floor()})
    ):
        a, b = (thing, than[0][1]) if sign == MORE else (than[0][1], thing)
        return all_finished([A.Value(of=M.Height(of=a, above=b))], floats)
    found = []
    for ask in compared(scale, MORE, {**core, "subj": thing}, than):
        if isinstance(ask, A.Compare):
            found.append(A.Difference(a=ask.a, b=ask.b) if sign == MORE else A.Difference(a=ask.b, b=ask.a))
    return all_finished(found, floats)


@says(
    "core",
    "from {thing} (how much|how many {unit}) {more_adj} (BE|LIE) {thing}",
    "(compared with|compared to|relative to) {thing} [by] (how much|how many {unit}) {more_adj} (BE|LIE) {thing}",
    "(how much|how many {unit}) {more_adj} (BE|LIE) {thing} (compared with|compared to|relative to|from) {thing}",
)
def _from_how_much(*parts: Any) -> Any:
    a, b = (p for p in parts if isinstance(p, O.Operand))
    adj = next(p for p in parts if isinstance(p, tuple))
    unit = next((p for p in parts if isinstance(p, str)), "")
    if parts.index(a) < parts.index(adj) and parts.index(b) > parts.index(adj):
        a, b = b, a
    return differing(adj, a, {"unit": unit} if unit else {}, (("subj", b),)) if adj[0] == "up" else None


@says(
    "core",
    "{arg}* (compared with|compared to) {thing} BE {thing} {more_adj} {arg}*",
    "{arg}* BE {thing} {more_adj} {arg}* (compared with|compared to) {thing}",
)
def _compared_with(*parts: Any) -> Any:
    a, b = (p for p in parts if isinstance(p, O.Operand))
    at = next(
        i
        for i, p in enumerate(parts)
        if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], int)
    )
    thing, other = (b, a) if parts.index(b) < at and parts.index(a) < at else (a, b)
    bag = bag_of(*(p for i, p in enumerate(parts) if isinstance(p, tuple) and i != at))
    if bag is None:
        return None
    core, floats = parted(bag)
    scale, sign = parts[at]
    if "subj" in core:
        return None
    return all_finished(compared(scale, sign, {**core, "subj": thing}, (("subj", other),)), floats)


@says(
    "core",
    "{arg}* [what is|GIVE] [the] (height difference|difference in height|difference between the heights|vertical difference|elevation difference|difference in heights|vertical distance|vertical gap|vertical separation|vertical offset|elevation change) [in height|in elevation|in heights|between the heights] (between|of|for|in height between|in height of) {list} {arg}*",
    "{arg}* how (big|large|much|great) is the (height difference|difference in height|difference between the heights|vertical difference|vertical gap|vertical offset|elevation difference|difference in elevation) (between|of) {list} {arg}*",
    "{arg}* how much do {list} differ in (height|elevation) {arg}*",
    "{arg}* how much do the heights of {list} differ {arg}*",
)
def _height_difference(a: Any, things: Any, b: Any) -> Any:

    bag = bag_of(a, b)
    if bag is None or len(things) != 2:
        return None
    of = distance(*things)
    return (
        all_finished([A.Value(of=replace(of, metric=M.Metric.VERTICAL) if isinstance(of, M.Distance) else of)], bag)
        if of
        else None
    )


@says(
    "core",
    "{arg}* [what is] [the] [longest|largest|greatest|shortest|smallest] {end} distance between any two of {list} {arg}*",
)
def _any_two(a: Any, end: A.Which, things: Any, b: Any) -> Any:
    bag = bag_of(a, b)
    pairs = tuple(M.Distance(a=x, b=y) for x, y in combinations(things, 2))
    return None if bag is None or len(pairs) < 2 else all_finished([A.Extreme(of=pairs, which=end, as_value=True)], bag)


@says(
    "core",
    "{arg}* WHICHEVER [of {list}] BE (not|n't) the {most_adj} {arg}* [of {list}]",
    "{arg}* WHICHEVER [of {list}] BE (not|n't) the {most_adj} {arg}* {list}",
)
def _not_most(*parts: Any) -> Any:
    lists = [p for p in parts if isinstance(p, tuple) and p and isinstance(p[0], O.Operand)]
    adj = next(
        p for p in parts if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], int)
    )
    if len(lists) != 1:
        return None
    rest = [p for p in parts if isinstance(p, tuple) and p is not adj and p is not lists[0]]
    opposite = extreme(lists[0], (adj[0], -adj[1], 1), *rest)
    if len(lists[0]) == 2 or not opposite:
        return opposite
    return Refused(
        "all but one are not that: ask which one is, or for the order",
        tuple(q for q in opposite if isinstance(q, Query)),
    )


@says("core", "(is|are) {thing} (far|near|close) [away|off] {arg}*")
def _vague(thing: O.Operand, args: Any) -> Any:
    bag = bag_of(args)
    if bag is None or bag.keys() - {"from", "to"}:
        return None
    ask = A.Value(of=M.Distance(a=thing, b=bag.get("from", bag.get("to", O.Camera()))))
    return Refused(
        "this has no threshold: say how many metres", tuple(q for q in all_finished([ask], {}) if isinstance(q, Query))
    )
