"""Sentences about ways, free space, and what fits where."""

from __future__ import annotations

from typing import Any

from spatial_mllm_ros.language.phrases import GRAMMAR, Quantity, says, si
from spatial_mllm_ros.language.sentences import Parts, asked
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.units import UNITS

HERE = O.Robot(at=T.Now())
LEVEL_DEG = 5.0
"""degrees: a surface no steeper than this is called level."""


def _is(quantity: Quantity, kind: str) -> bool:
    return UNITS[quantity.unit].kind == kind


# ---- ways


def _trip(p: Parts) -> tuple[Any, Any, float]:
    """Start (None: from here), goal and the robot's radius."""
    here = (O.Camera(), O.Camera(at=T.Now()))
    things = p.things
    if len(things) > 1:
        things = [x for x in (things[0], things[-1]) if x not in here] or things[-1:]
    return (things[0] if len(things) > 1 else None), things[-1], p.one(float, 0.0)


class Start:
    """Where a way begins that is named before its goal."""

    def __init__(self, thing: O.Operand) -> None:
        self.thing = thing


says("start", "{thing}")(Start)
says("thing_here", "{thing}")(lambda thing: thing if thing == O.Camera(at=T.Now()) else None)
says("robot_of", "a robot (of|with) [a] {quantity} radius", "a robot (of|with) [a] radius [of] {quantity}")(
    lambda q: si(q) if _is(q, "length") else None
)


@asked("[tell me] how (do|can|should) {mover} (get|go|drive|walk|come) [from {thing}] to {thing} [from {thing_here}] [{radius}]", "[the] [shortest] (route|way|path) [from] {thing} to {thing}",
       "what is the [shortest|best|fastest|quickest] (route|way|path) [from {thing}] to {thing} [{radius}]", "(find|plan|show|GIVE) [me] (a|the) [shortest|best] (route|way|path) [from {thing}] to {thing}",
       "how to (get|go|drive) [from {thing}] to {thing}", exact=True)  # fmt: skip
def _route(p: Parts, _: Any) -> Any:
    start, goal, radius = _trip(p)
    return A.Route(goal=goal, start=start, radius_m=radius)


@asked("[what is|GIVE] [the] (shortest|driving|walking|shortest driving|shortest walking) (distance|way) [from {thing}] to {thing} [{radius}] {arg}*", "how (long|far) is the [shortest] (route|way|path|drive|walk) [from {thing}] to {thing} [{radius}] {arg}*",
       "how far (would|does|must|do|will) {mover} have to (drive|travel|walk|go) [from {thing}] to [get to|reach] {thing} {arg}*", "how far (is it|is) to (drive|walk) [from {thing}] to {thing} {arg}*",
       "how far do {mover} still have to (drive|travel|walk|go) [from {thing}] to [get to|reach] {thing} {arg}*", "how far (do|would|must) {mover} [need to|have to] (drive|walk) [from {thing}] to {thing} {arg}*",
       "how far (would|does|must|do) {mover} have to (drive|travel|walk|go) to get from {thing} to {thing} {arg}*", "what is the length of the (route|way) [from {thing}] to {thing} {arg}*", exact=True, roles=("unit",))  # fmt: skip
def _route_length(p: Parts, _: Any) -> Any:
    start, goal, radius = _trip(p)
    if isinstance(goal, O.Camera | O.Robot) and goal.at in (None, T.Now()):
        return None
    return A.Value(of=M.RouteLength(start=start or HERE, goal=goal, radius_m=radius))


@asked("(is|are) {thing} reachable [from {thing}] [{radius}]", "(can|could) {mover} (reach|get to|drive to|go to|access) {thing} [from {thing_here}] [{radius}]", "(is|would|can) {robot_of} [be] [able to] (reach|get to|drive to|go to) {thing}",
       "is the [way|path|route] (way|path|route) to {thing} (free|clear|open|unobstructed)", "is it possible [for {mover}] to (get|go|drive|reach) [to] {thing} [from {thing}]", "(can|could) {mover} (get|go|drive) to {thing} from {thing}", "is it possible to (get|go|drive) from {start} to {thing}", "can {thing} be reached [from {thing}] [by {mover}]", exact=True)  # fmt: skip
def _reachable(p: Parts, _: Any) -> Any:
    goal, *start = p.things
    start += [s.thing for s in p.all(Start)]
    return A.Reachable(goal=goal, start=start[0] if start and start[0] != O.Camera(at=T.Now()) else None, radius_m=p.one(float, 0.0))


@asked("(is|are) {thing} (unreachable|not reachable)", "is the (way|path|route) to {thing} (blocked|obstructed)", exact=True, negated=True)
def _unreachable(p: Parts, _: Any) -> Any:
    return A.Reachable(goal=p.things[0])


@asked("is the (way|path|route) (between|from) {thing} (and|to) {thing} (free|clear|open)", "is there a (way|path|route|free path|clear path) from {thing} to {thing}", exact=True)
def _reachable_from(p: Parts, _: Any) -> Any:
    return A.Reachable(goal=p.things[1], start=p.things[0])


@asked("is there [a] [free|clear] line of sight (between|from) {thing} (and|to) {thing}", "is anything between {thing} and {thing}", "(can|could) {thing} be SEEN from {thing}", exact=True)
def _line_of_sight(p: Parts, _: Any) -> Any:
    one, other = p.things
    return None if isinstance(other, O.Camera | O.Robot) else A.LineOfSight(a=one, b=other)


# ---- free space


def _space(measure: Any, *patterns: str) -> None:
    """What is free now: ``measure`` of the things that are named."""

    @asked(*(f"{p} {{arg}}*" for p in patterns), exact=True, roles=("unit", "time"))
    def act(p: Parts, bag: dict[str, Any]) -> Any:
        return A.Value(of=measure(*p.things)) if bag.pop("time", T.Now()) == T.Now() else None


_space(lambda x: M.Clearance(of=x), "how much (clearance|free space|room|space) (is|are) [there] around {thing}", "[what is|GIVE] the clearance (around|of) {thing}")
_space(lambda: M.Clearance(of=HERE, ahead=True), "how far can {mover} (drive|go|move|travel) [straight] (forward|ahead|forwards) [before (hitting|it hits|i hit|bumping into) (something|anything|an obstacle|a wall)]",
       "how far is the (nearest|next|closest) obstacle (ahead|in front|in front of {mover})", "how much (free space|space|room|clearance) is (ahead|in front) [of {mover}]")  # fmt: skip
_space(lambda: M.Clearance(of=HERE), "how far (is|am) {mover} from the (nearest|closest) obstacle", "[how far is|GIVE|what is] [the] [distance to] [the] (nearest|closest) obstacle")
_space(lambda x, y: M.PassageWidth(of=x, goal=y), "how wide is the (passage|way|opening) (between|from) {thing} (and|to) {thing}")
GRAMMAR.table("occupancy", {w: s for s, ws in {A.Occupancy.FREE: "free, empty, unoccupied, in free space", A.Occupancy.OCCUPIED: "occupied, in occupied space", A.Occupancy.UNKNOWN: "unknown, in unknown space"}.items() for w in ws.split(", ")})  # fmt: skip


@asked("(is|are|was) {thing} {occupancy}", "is the (place|space|area|spot) at {thing} {occupancy}", exact=True)
def _occupied(p: Parts, _: Any) -> Any:
    return A.Occupied(of=p.things[0], state=p.one(A.Occupancy))


@asked("(is|are) {thing} [in] {occupancy} [{occupancy}] or {occupancy} [space]", "is {thing} [in] (free|occupied|unknown) [occupied|unknown|or occupied] or (unknown|occupied|free) [space]", exact=True)
def _occupancy(p: Parts, _: Any) -> Any:
    return A.Occupied(of=p.things[0])


# ---- what fits


class Sides(dict[str, Any]):
    """The sides of what is to fit, or the thing itself; none: the robot."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items(), key=repr)))


@says("box_sides", "[a|the] {side_length} [,|and] {side_length} [[and] {side_length}]", "[a|an|the] [{kind}] {side_length}", "[a|the] {kind} [that is] {side_length} [[and] {side_length}] [[and] {side_length}]",
      "[a|the] {kind} (of|with|that is) {side_length} [and {side_length}] [and {side_length}]")  # fmt: skip
def _box_sides(*values: Any) -> Any:
    sides = [v for v in values if isinstance(v, Sides)]
    merged = Sides({k: v for s in sides for k, v in s.items()})
    return merged if len(merged) == len(sides) else None


says("kind", "(box|thing|object|robot|parcel|package|crate|cabinet)", "(box|cabinet) of")(lambda: True)
says("kind", "{noun} (of|with|measuring)")(lambda noun: True if noun[0] and not noun[1] else None)
for _side, _words in (("length_m", "long|in length|deep"), ("width_m", "wide|in width"), ("height_m", "high|tall|in height")):
    says("side_length", f"{{quantity}} ({_words})")(lambda q, side=_side: Sides({side: si(q)}) if _is(q, "length") else None)


@says("box_sides", "[a|an|the] [{kind}] ({amount_number}|{quantity}) (x|by|times) {quantity} [{kind}]")
def _box_by(*values: Any) -> Any:
    *first, b = (v for v in values if isinstance(v, Quantity))
    a = first[0] if first else Quantity(next(v for v in values if type(v) is float), b.unit)
    return Sides(length_m=max(si(a), si(b)), width_m=min(si(a), si(b))) if _is(a, "length") and _is(b, "length") else None


says("fitting", "{box_sides}")(lambda sides: sides)
says("fitting", "(the robot|i|it|we|you|me|the rover|a robot)")(Sides)
says("fitting", "{thing}")(lambda x: Sides(thing=x) if isinstance(x, O.Box | O.Object) else None)
FIT = "(fit|go|pass|fits|get)"


@asked(f"(would|does|will|can|could|do) {{fitting}} {FIT} (at|in|under|through|into|on|between|underneath|below|beside|inside|within) {{thing}}", "is {thing} (wide|big|large|high) enough for {fitting}", "(can|could) {mover} (place|put|set|park) {fitting} (at|on|in|under) {thing}",
       "is there (room|space|enough space|enough room) for {fitting} (on|in|under|at|beside) {thing}", "is there (enough [free] (space|room)|room|space) (on|in|at|under) {thing} for {fitting}", exact=True)  # fmt: skip
def _fits(p: Parts, _: Any) -> Any:
    return A.Fits(place=p.things[-1], **p.one(Sides))


@asked("where (can|could|should|may) {mover} (put|place|set|set down|store|park) {fitting} [{rel} {simple}]", "where is [there] [a|the|room for] [nearest] [free] (place|spot|space|room) (for|to park|to put) {fitting} [{rel} {simple}]",
       "where is room for {fitting} [{rel} {simple}]", "find [a|me a] [free] (place|spot|space) for {fitting} [{rel} {simple}]", "where is the (nearest|next) free (spot|place|space) [to park {fitting}|for {fitting}]",
       "where can {mover} park", exact=True)  # fmt: skip
def _free_place(p: Parts, _: Any) -> Any:
    return A.FreePlace(at=p.one(O.Operand), where=p.one(O.Where), **p.one(Sides, {}))


@asked("(find|where is) [a] [free|flat|horizontal] (surface|area|place|spot|free place) [of|for] [at least|an area of] {quantity} [{rel} {simple}]", "where is a free place for an area of {quantity} [{rel} {simple}]", exact=True)
def _free_area(p: Parts, _: Any) -> Any:
    quantity = p.one(Quantity)
    return A.FreePlace(area_m2=si(quantity), where=p.one(O.Where), at=p.one(O.Operand)) if _is(quantity, "area") else None


# ---- surfaces


def _sloped(comparison: A.Comparison, value: float, words: str) -> None:
    @asked(f"(is|are) [the surface (at|of)] {{thing}} ({words})", exact=True)
    def act(p: Parts, _: Any) -> Any:
        return A.Threshold(of=M.Slope(at=p.things[0]), comparison=comparison, value=value)


_sloped(A.Comparison.AT_MOST, LEVEL_DEG, "level|horizontal|flat|even")
_sloped(A.Comparison.AT_LEAST, 90 - LEVEL_DEG, "vertical|upright")


@asked("how (many {unit}|much|steeply) does the (floor|surface|ground) (slope|tilt|incline) at {thing}", "how (many {unit}|much|steeply) does {thing} (slope|tilt|incline)", exact=True)
def _slopes(p: Parts, bag: dict[str, Any]) -> Any:
    bag["unit"] = p.one(str, "")
    return A.Value(of=M.Slope(at=p.things[0]))


@asked("[what is|GIVE|in which direction is|where does] [the] [surface|unit] normal [vector] (of|at) [the surface] [at|of] {thing} {arg}*", "which way does the surface at {thing} (face|point) {arg}*", exact=True)
def _normal(p: Parts, _: Any) -> Any:
    return A.SurfaceNormal(at=p.things[0])
