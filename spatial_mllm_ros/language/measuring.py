"""Measures as people say them: "the distance between …", "how far", "how big", and whether one is within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from spatial_mllm_ros.language.chart import ANYTHING, Chart, Several
from spatial_mllm_ros.language.phrases import GRAMMAR, Arg, Bound, Things, same, says, si
from spatial_mllm_ros.language.scales import MORE, Adjective, How, measures
from spatial_mllm_ros.language.sentences import (
    Finished,
    Parts,
    all_finished,
    asked,
    bag_of,
    bounded,
    measure_of,
    parted,
    values,
)
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.units import UNITS

# ---- measures as noun phrases


says("pre", "[DET] (current|present|latest)")(lambda: Arg("time", T.Now()))
says("pre", "(horizontal|bird 's eye|xy|lateral|2d|ground|planar|top view|map|floor plan)")(
    lambda: Arg("metric", M.Metric.HORIZONTAL)
)
says("pre", "vertical")(lambda: Arg("metric", M.Metric.VERTICAL))
says("pre",
     "(straight line|straight|euclidean|direct|perpendicular|metric|relative|total|resulting|line of sight|camera|real world|real life|3d|3 d|shortest|metric|actual|real|physical|absolute|linear|real world|point to point|point - to - point|net|three dimensional|exact|spatial|true|as the crow flies|space|3d euclidean|euclidean 3d)",
     "straight line point to point", "metric 3d", "real 3d")(lambda: Arg("metric", M.Metric.STRAIGHT))
says("pre", "camera", "camera - to")(lambda: Arg("", None))
says("pre", "{t}")(lambda t: Arg("time", t))


class Measured(NamedTuple):
    """A scale as a noun, and what was added to it."""

    scale: str
    args: tuple[Any, ...]


def noun_phrase(*parts: Any) -> Measured | None:
    scale = next(p for p in parts if isinstance(p, str))
    given = [p for p in parts if not isinstance(p, str) and p is not None]
    bag = bag_of(*(p if isinstance(p, tuple) else ("subj", p) for p in given))
    if bag is None:
        return None
    bag.pop("", None)
    exact = bag.get("metric")
    if exact is M.Metric.STRAIGHT and scale not in ("far", "in", "gap"):
        bag.pop("metric")
    return Measured(scale, tuple(bag.items()))


says("measured", "[DET] {pre}* {scale_noun} {arg}*")(noun_phrase)
says("measured", "{thing} POSS {pre}* {scale_noun} {arg}*", "{named_before} {pre}* {scale_noun} {arg}*")(lambda thing, *rest: noun_phrase(("subj", thing), *rest))  # fmt: skip


@GRAMMAR.native("named_before", [ANYTHING])
def _named_before(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """A thing right before a noun that measures; a bare word before a distance ("stopping distance") need not be one."""
    for end, (thing,), cost in chart.phrase("thing", at):
        bare = isinstance(thing, O.Object) and chart.tokens[chart.next[at]].text not in ("the", "my", "your", "a", "an")
        if not bare or not any(scale in ("far", "gap") for _, (scale,), _ in chart.phrase("scale_noun", end)):
            yield end, thing, cost


@says("measured", "[DET] {pre}* {scale_noun} {list} {arg}*", "[DET] {scale_noun} {thing} {thing} {arg}*", "[DET] {pre}* {scale_noun} {thing} to {thing} {arg}*",
      "[DET] {thing} to {thing} {scale_noun} {arg}*", "{pre}* {scale_noun} {thing} {arg}*", "[DET] {pre}* {scale_noun} [that] [is|lies|there is] {arg}*")  # fmt: skip
def _listed(*parts: Any) -> Any:
    things = [p for p in parts if isinstance(p, O.Operand)]
    rest = [p for p in parts if not isinstance(p, O.Operand)]
    lists = [p for p in rest if isinstance(p, tuple) and p and isinstance(p[0], O.Operand)]
    rest = [p for p in rest if p not in lists]
    if lists:
        return noun_phrase(("between", lists[0]), *rest) if len(lists[0]) == 2 else None
    return noun_phrase(("between", tuple(things)) if len(things) == 2 else ("subj", things[0]) if things else (), *rest)


WHAT = "(what BE|what BE|which BE|GIVE|GIVE me|what would be|what about|how MUCH BE|how MUCH would|what do you get for|what do you measure for|what value has|how many|is there a number for|please GIVE|what BE be)"


@asked(f"[{WHAT}] {{measured}}", "{measured} BE (what|which value|closest to which value|how much)", "{measured} [BE] (how large|how big|how much)",
       "what {measured} BE", "GIVE what {measured} BE", "{measured} what BE it")  # fmt: skip
def _value(p: Parts, bag: dict[str, Any]) -> Any:
    scale, args = p.one(Measured)
    merged = bag_of(args, bag)
    if merged is None:
        return None
    return values({"height": "high", "tall": "high"}.get(scale, scale) if is_placed(merged) else scale, merged)


def is_placed(bag: dict[str, Any] | None) -> bool:
    subject = (bag or {}).get("subj", (bag or {}).get("of"))
    return isinstance(subject, O.Point | O.Camera | O.Robot | O.Ceiling)


# ---- how far, how high, how many metres …


says("how", "how {adj}", "[at|by|from|up to] how {adj}", "how very {adj}", "how {adj} (a|an) (rope|string|cable|cord)")(
    lambda adj: How(adj[0])
)
says("how", "how much {unit}")(lambda unit: How("far", unit) if UNITS[unit].kind == "length" else None)
says("how", "how many {unit} {adj}", "what {unit} {adj}", "how many {unit} BE it {adj}")(
    lambda unit, adj: How(adj[0], unit)
)
says("how", "how many {unit} [is it|are there|is there|of path]", "[by] how many {unit}")(
    lambda unit: How(
        {"length": "far", "angle": "turn", "time": "time", "area": "area", "volume": "volume"}.get(
            UNITS[unit].kind, "none"
        ),
        unit,
    )
)
says("how", "[at|by|in|from] (what|which) [DET] {scale_noun}", "how much [of a] {scale_noun}", "[up] to what {scale_noun}",
     "[what is] the {scale_noun} at which", "what (horizontal|vertical) {scale_noun}", "how (big|large|great|wide|long) [of] [DET|a] {scale_noun}",
     "(what|which) (real|exact|vertical) {scale_noun}", "what BE the {scale_noun}", "how much", "how large a {scale_noun}")(lambda noun="far": How(noun))


BEING = "(BE|DO|HAVE|CAN|would)"
ENDS = "[from end to end|end to end|top to bottom|from top to bottom|from bottom to top|bottom to top|from side to side|side to side|from one end to the other|from one side to the other|from wall to wall|from its base to its top|from its bottom to its top|along its longest side|across|in real life|in reality|lengthwise]"


@asked(f"{ENDS} {{arg}}* {{how}} {{arg}}* {ENDS} {BEING} {{thing}} [LIE|have|has|measure|from it|take up|be|at|cover] {ENDS}", "{how} would you say {thing} is",
       "what would [a|the] CAMERA (read|report|measure|show)", "{thing} how {adj} is it", f"{{how}} {BEING} {{thing}} [LIE] at", "{how} {thing} would be", "{how} it is",
       "{how} had {thing} got", "{how} {arg}* {thing} (BE|LIE|has|have|measures|does) [LIE]", "{thing} BE [LIE] {arg}* {how}", "{thing} {how}",
       "{thing} LIE {arg}* {how}", f"[of] {{arg}}* {{how}} {BEING} {{arg}}* {{thing}} LIE",
       f"{{how}} {{arg}}* {BEING} {{list}} [LIE|from each other|from one another|to each other|from eachother] {{arg}}* [apart]",
       "{how} {arg}* {list} (BE|LIE) [from each other|from one another|to each other] {arg}* [apart]", "{list} {how} [apart]", "{list} BE {how}",
       "{how} BE {list} [from each other|from one another]")  # fmt: skip
def _how(p: Parts, bag: dict[str, Any]) -> Any:
    how = p.one(How) or How(p.one(Adjective, Adjective("deep", MORE)).scale)
    things = [*p.things, *p.all(Things)]
    merged = bag_of(bag, ("subj", things[0])) if things else bag
    return how_value(how, merged)


@asked(f"{{how}} {BEING} {{mover}} (see|get|read|measure|show|have|observe)")
def _how_measured(p: Parts, bag: dict[str, Any]) -> Any:
    return None if "to" in bag else how_value(p.one(How), bag)


@asked("{how} [BE (it|there)|would it be|have been seen|would i have to reach|do i have to reach|must i go|it is|was it|(lies|lie|is|are) [there]|(separate|separates|separated)|DO (lie|separate)|BE there|(is there|are there)|can be measured|BE]")
def _how_it(p: Parts, bag: dict[str, Any]) -> Any:
    return how_value(p.one(How), bag)


@asked("{how} (separate|separates|separated|is between|are between) {list}", "{how} (separate|separates|separated) {thing} from {thing}", "what separates {list}",
       "{how} (separated|separate|separates) {thing} and {thing}", "{how} (BE|are) {list} separated",
       "[i want to|measure] measure [the straight line] (between {list}|from {list})", "[measure] (from|between) {list} what do you get",
       "{how} [of] (rope|string|cable|cord) (do|would|must) (i|you|we) need to connect {list}",
       "what length of (rope|string|cable|cord) (do|would) (i|you|we) need to connect {list}", "what length of cable would span {thing} to {thing}",
       "what is between {list} in terms of distance", "how far (must|would|do) i [have to] (go|reach) {arg}* to get from {thing} to {thing}",
       "how far do i have to reach from {thing} to get to {thing}",
       "if i (stretched|ran|held) a (tape|tape measure|string|rope) from {thing} to {thing} what would it (show|read|say|measure)",
       "if i shot a laser from {thing} (at|to) {thing} what distance would it (read|show)", "measure from {thing} to {thing}",
       "how long is the (ray|line) from {thing} to {thing}", "what separates {thing} from {thing}",
       "what would [a|the] (tape|tape measure|ruler|measuring tape|laser) (say|show|read|measure) (between|from) {thing} (and|to) {thing}")  # fmt: skip
def _separate(p: Parts, bag: dict[str, Any]) -> Any:
    scale, unit = p.one(How, How("far"))
    return how_value(How("far" if scale in ("long", "wide") else scale, unit), bag_of(bag, ("between", p.one(Things) or tuple(p.things))))


def how_value(how: How, bag: dict[str, Any] | None) -> Any:
    scale, unit = how
    if bag is None or (unit and bag.get("unit", unit) != unit):
        return None
    if unit:
        bag["unit"] = unit
    if is_placed(bag) and scale == "height":
        scale = "high"
    return values(scale, bag)


@asked("[GIVE] (what|which) [are|is] [DET] {pre}* (size|dimensions|measurements|extents|extent|sizes|dims)", "[GIVE|what is|what are|which are] [DET] {pre}* SIZE",
       "[GIVE|what is|what are|which are] {thing} POSS SIZE", "[GIVE|what is|what are] {thing} SIZE",
       "(what|which) (size|dimensions|measurements) (is|are|does|do|has|have) {thing} [have|has]", "what (does|do) {thing} measure",
       "GIVE (what size|how big) {thing} is", "[can you] (measure|size up) {thing}", "(what|which) size fits {thing} [best]", "how (big|large|spacious) is {thing} SIZE",
       "how (big|large) in real life is {thing}", "how (big|large) is {thing} in (each|every) dimension", "how far does {thing} extend in each direction",
       "how much (room|space) does {thing} take up", "how (big|large) a {thing}", "GIVE {thing} SIZE", "SIZE [of] {thing}", "{thing} what size")  # fmt: skip
def _size(p: Parts, bag: dict[str, Any]) -> Any:
    bag.pop("", None)
    if bag.get("metric") is M.Metric.STRAIGHT:
        bag.pop("metric")
    return values("big", bag_of(bag, *(("subj", x) for x in p.things)))


# ---- measures, finished: (measure, what still floats)


says("mover", "[DET] CAMERA", "[DET] ROBOT", "ME", "{it_camera}", "[DET] ROBOT 's CAMERA")(lambda *_: True)


@says("m", "{measured}")
def _m_scale(measured: Any) -> Any:
    scale, bag = measured
    core, floats = parted(dict(bag))
    scale = {"height": "high", "tall": "high"}.get(scale, scale) if is_placed(core) else scale
    return Several(x for x in (measure_of(m, tuple(floats.items())) for m in measures(scale, core)) if x)


def m(*patterns: str, cost: int = 0) -> Any:
    """Decorator of a measure's noun phrase; ``{arg}*`` at the end is handled here, the action gets the rest."""

    def add(action: Any) -> Any:
        def act(*values: Any) -> Any:
            made = action(*values[:-1])
            many = made if isinstance(made, Several) else (made,)
            return Several(x for x in (measure_of(one, values[-1]) for one in many if one is not None) if x)

        return says("m", *(f"[DET] {p} {{arg}}*" for p in patterns), cost=cost)(act)

    return add


m("depth of {thing}", "depth at {thing}")(lambda x: M.Depth(of=x) if isinstance(x, O.Point | O.Box | O.Object) else None)
m("height of {thing} above {thing}", "height [that] {thing} (is at|has|is) above {thing}")(
    lambda x, y: M.Height(of=x, above=y)
)
m("angle at {thing} between {thing} and {thing}")(lambda v, x, y: M.Angle(a=x, vertex=v, b=y))
m("angle between {list} (at|seen from|as seen from|viewed from|from) {thing}", "angle (at|seen from|from) {thing} [,] between {list}",
  "angle that {list} make at {thing}")(
    lambda x, y: (
        (M.Angle(a=x[0], vertex=y, b=x[1]) if len(x) == 2 else None)
        if isinstance(x, tuple)
        else (M.Angle(a=y[0], vertex=x, b=y[1]) if len(y) == 2 else None)
    )
)
@asked("(what|which|how large an) angle (is|lies) [there] between {list} (at|seen from|as seen from|viewed from|from) {thing}")
def _angle_between(p: Parts, bag: dict[str, Any]) -> Any:
    of, vertex = p.one(Things), p.things[0]
    return A.Value(of=M.Angle(a=of[0], vertex=vertex, b=of[1])) if len(of) == 2 else None


says("core", "[what|which|how large an] angle (do|does|is formed by) {list} [form|make|span] [at {mark}]", "[what is] the angle [formed] by {list} [at {mark}]")(
    lambda x, vertex=None: all_finished([A.Value(of=M.Angle(a=x[0], vertex=x[1], b=x[2]))], {}) if len(x) == 3 and vertex in (None, x[1]) else None
)
m("angle between {thing} {thing} and {thing}", "angle {thing} {thing} {thing}")(
    lambda x, v, y: M.Angle(a=x, vertex=v, b=y)
)


@m("horizontal angle of {thing} from {thing} [facing {thing}]")
def _bearing(x: O.Operand, viewer: O.Operand, facing: Any) -> Any:

    return M.Bearing(of=x, viewer=viewer, facing=facing)


m("(slope|inclination|tilt|steepness) of [the surface at] {thing}", "(slope|inclination|tilt) at {thing}")(
    lambda x: M.Slope(at=x)
)
m("[total|overall|whole|entire] (length|distance) of [the|its|your|my] [CAMERA|ROBOT] [POSS] PATH [of the (CAMERA|ROBOT)]", "[{owner}|CAMERA|ROBOT] [total|overall] PATH length", "length of the [whole|entire|total] PATH", "[total|overall|cumulative|accumulated|whole] distance [that] [{mover}] [was|has|had] (TRAVEL|moved|went|come) [by {mover}]", "[total|overall|whole|cumulative] (travel|travelled|traveled|driven|walked) distance [of {mover}]",
  "(mileage|odometer distance|arc length of [DET] [CAMERA|ROBOT] [POSS] PATH)", "(length of {owner} PATH|length of the PATH {mover} (took|TRAVEL|went|MOVE)|length of the PATH taken by {mover}|length of the PATH TRAVEL [by {mover}]|length of the PATH that {mover} (took|TRAVEL|MOVE))", "(total|cumulative|overall) (length of {owner} PATH|movement of {mover})", "{owner} PATH 's length", "distance TRAVEL [by {mover}]", "distance {mover} TRAVEL", "distance that {mover} TRAVEL")(lambda *_: M.PathLength())  # fmt: skip
m("angle [that|which] {mover} [has] TURN [to the left|left]", "angle {mover} [has] TURN [by]", "(rotation|turn|rotation angle|turning angle|change (of|in) (orientation|heading|direction|viewing direction)|heading change|orientation change|angular change|angle of rotation|amount of rotation|rotational motion|change of orientation) [angle] [of {mover}]", "{owner} (rotation|turn|change of heading|heading change|orientation change|change (of|in) (orientation|heading|direction))", "difference in (heading|orientation|viewing direction) [of {mover}]", "angle between {owner} (orientations|headings|viewing directions|orientation|heading|view directions)", "(angular|rotational) (displacement|difference|change|motion) [of {mover}]")(lambda *_: M.Turn())  # fmt: skip
m("angle [that|which] {mover} TURN (to the left|left)", "left turn of {mover}")(lambda *_: M.Turn(about_up=True))
GRAMMAR.table("axis", {w: a for a, ws in {M.Axis.FORWARD: "forward, forwards, ahead", M.Axis.LEFT: "leftward, left, to the left, leftwards, lateral, sideways, laterally", M.Axis.UP: "upward, up, upwards"}.items() for w in ws.split(", ")})  # fmt: skip
m("{axis} (movement|motion|displacement|shift|part of the movement) [of {mover}]")(lambda axis, *_: M.Shift(axis=axis))
m("(heading|yaw|compass heading|view direction|viewing direction|orientation) of {mover}", "{owner} (heading|yaw|yaw angle|heading angle|orientation)")(lambda *_: M.Heading())
m("(speed|velocity) of {mover}", "{owner} (speed|velocity)", "current speed [of {mover}]")(lambda *_: M.Speed())
m("(mean|average) (speed|velocity) [of {mover}]", "{owner} (mean|average) (speed|velocity)")(lambda *_: M.MeanSpeed())
m("time [that] {mover} [was|has|had|spent] (stood still|standing still|still|stopped|stationary|not moving)")(
    lambda *_: M.TimeSpent(moving=False)
)
m("time [that] {mover} [was|has|had|spent] (MOVE|TRAVEL|moving)")(lambda *_: M.TimeSpent(moving=True))
m("closest approach of {mover} to {thing}", "(closest|nearest|least|smallest|minimum) distance [ever] [between|of] {mover} (and|to|from) {thing}", "{owner} (closest|nearest|least|smallest|minimum) distance [ever] (to|from) {thing}")(lambda _, x: M.ClosestApproach(to=x))
m("[least|closest|nearest|smallest|shortest] distance [that|at which|from which] {thing} was [ever] seen [from]", "(closest|nearest) [that] {thing} was [ever] seen [from]")(lambda x: M.SeenDistance(of=x))


def elapsed(args: Any) -> Any:
    bag = bag_of(args)
    span = (bag or {}).pop("span", None)
    return None if bag is None or span is None or span == T.WHOLE else measure_of(M.Elapsed(span=span), tuple(bag.items()))


says("m",
     "[the] (time|duration|elapsed time|time difference|time span|time interval|time gap|period) [of time] [that] [elapsed|passed|went by|there is|lies|lay] {arg}*")(elapsed)
GRAMMAR.table("event", {"first": M.Event.FIRST, "last": M.Event.LAST, "for the first time": M.Event.FIRST, "for the last time": M.Event.LAST, "initially": M.Event.FIRST, "most recently": M.Event.LAST, "finally": M.Event.LAST, "earliest": M.Event.FIRST, "first time": M.Event.FIRST, "last time": M.Event.LAST, "latest": M.Event.LAST, "the first time": M.Event.FIRST, "the last time": M.Event.LAST, "most recent": M.Event.LAST, "first of all": M.Event.FIRST, "very first": M.Event.FIRST, "very last": M.Event.LAST})  # fmt: skip
m("time (when|at which|that) {thing} was {event} SEEN",
  "{event} (time|moment|instant|image|frame|sighting|observation|appearance) [at which|when|that|in which|of] [the camera|we|you] [SAW|saw] {thing} [was|is|be] [SEEN]")(
    lambda *v: M.SeenTime(
        of=next(x for x in v if isinstance(x, O.Operand)), event=next(x for x in v if isinstance(x, M.Event))
    )
)
m("time since {thing} was {event} SEEN")(lambda x, e: M.SeenTime(of=x, event=e, ago=True))
GRAMMAR.table("counted", {w: c for c, ws in {M.Countable.FRAMES: "frames, images, pictures", M.Countable.KEYFRAMES: "keyframes, key frames", M.Countable.ROOMS: "rooms", M.Countable.DOORS: "doors", M.Countable.WALLS: "walls"}.items() for w in ws.split(", ")})  # fmt: skip
m("number of {counted}")(lambda c: M.Count(what=c))
m("number of objects that are {thing}")(lambda x: M.ObjectCount(of=x) if isinstance(x, O.Object) else None)
m("[total] number of {counted_object}")(lambda x: M.ObjectCount(of=x))
m("number of (images|frames|pictures) [that|which|in which] (show|shows|contain|see) {thing}",
  "number of (images|frames|pictures) in which {thing} (is|was) VISIBLE")(lambda x: M.SeenCount(of=x))
m("unseen fraction of [the|this] SPACE")(M.UnseenFraction)
m("clearance around {thing}", "free space around {thing}")(lambda x: M.Clearance(of=x))
m("clearance ahead of {thing}", "free space ahead of {thing}")(lambda x: M.Clearance(of=x, ahead=True))


@m("[DET|shortest] (length|distance) of [the] [shortest] (route|way|path) from {thing} to {thing} [{radius}]",
   "(shortest|driving|walking|travel|path|route|drivable) [driving|walking] (distance|path length|route length) from {thing} to {thing} [{radius}]",
   "length of the shortest (path|route|way) from {thing} to {thing} [{radius}]")  # fmt: skip
def _route_length(start: O.Operand, goal: O.Operand, radius: float | None) -> M.Measure:
    start = O.Robot(at=T.Now()) if start in (O.Camera(), O.Camera(at=T.Now())) else start
    return M.RouteLength(start=start, goal=goal, radius_m=radius or 0.0)


says("radius", "for a robot (of|with [a]) radius [of] {quantity}", "with [a] [robot] radius [of] {quantity}", "for a [robot of] {quantity} radius")(lambda q: si(q) if UNITS[q[1]].kind == "length" else None)
m("width of the passage [of] {thing}", "width of the passage from {thing} to {thing}", "width of the passage between {thing} and {thing}")(lambda *v: M.PassageWidth(of=v[0], goal=v[1] if len(v) > 1 else None))


@says("counted_object", "{noun} [that are|which are|there are|standing|lying] {rel} {simple}", "{noun}", "(objects|things|items) {rel} {simple}")
def _counted_object(noun: Any, where: Any = None, to: Any = None) -> Any:
    if isinstance(noun, O.Where):
        return O.Object(pick=O.Pick.ALL, where=noun, to=where) if where is not O.Where.SAME_SURFACE else None
    return O.Object(name=noun[0], pick=O.Pick.ALL, where=where, to=to) if where is not O.Where.SAME_SURFACE else None


# ---- sentences of measures


@asked("[what BE|GIVE|GIVE me|what about|how much BE|how long BE|how (big|large|great|high) BE] {m}")
def _value_of(p: Parts, bag: dict[str, Any]) -> Any:
    of = p.one(Finished)
    merged = bag_of(bag, of.args)
    return None if merged is None else all_finished([A.Value(of=of.measure)], merged)




@asked("BE {m} {m_bound}", "{m} BE {m_bound}")
def _threshold(p: Parts, bag: dict[str, Any]) -> Any:
    of = p.one(Finished)
    merged = bag_of(of.args, bag)
    return None if merged is None else all_finished(bounded(of.measure, p.one(Bound)), merged)




says("m_bound", "{bound}")(same)
says("m_bound", "{m_comparison} {quantity}")(lambda c, q: Bound((c, q)))
GRAMMAR.table(
    "end",
    {
        "largest": A.Which.LARGEST,
        "smallest": A.Which.SMALLEST,
        "greatest": A.Which.LARGEST,
        "longest": A.Which.LARGEST,
        "shortest": A.Which.SMALLEST,
    },
)
