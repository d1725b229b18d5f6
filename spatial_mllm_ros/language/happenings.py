"""Sentences about what happened: how the camera moved, what it saw and when, how time passed."""

from __future__ import annotations

from typing import Any

from spatial_mllm_ros.language.phrases import Arg, says, si
from spatial_mllm_ros.language.sentences import Parts, Refused, all_finished, bag_of, parted
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.query import Query

# ---- how far it moved

says(
    "how_far",
    "how far [away|off|out]",
    "[by|at] how much [distance|of a distance]",
    "(what|which) distance",
    "how much (distance|ground|path|way|of a distance)",
    "what length of path",
    "over (what|which) distance",
    "how long a (path|route|way|track|distance)",
    "by what distance",
    "how large a distance",
)(lambda: "")
says("how_far", "[by] how many {unit} [of path]", "[by] how much in {unit}")(lambda unit: unit)
DONE = "(DO|HAVE|BE|DID)"


def moved(args: Any, unit: str, path: bool) -> Any:
    """How far the camera moved: along its path, or in a straight line; from a place, to a place."""
    bag = bag_of(*args)
    if bag is None or (unit and bag.get("unit", unit) != unit):
        return None
    if unit:
        bag["unit"] = unit
    if path and bag.get("metric") is M.Metric.STRAIGHT and "total" not in bag:
        path = False
    if bag.pop("total", None):
        path = True
    begin, end = bag.pop("from", None), bag.pop("to", None)
    span, when, axis = bag.pop("span", None), bag.pop("time", None), bag.pop("axis", None)
    placed = begin or end or (when is not None and span is not None and when != span.begin)
    open_start = span is not None and isinstance(begin, O.Camera) and begin.at is not None and span.begin == T.Start()
    if span is not None and placed and not open_start:
        return None
    if end is not None and not (isinstance(end, O.Camera) and end.at is not None):
        return None
    if begin is not None and not (isinstance(begin, O.Camera | O.Robot) and begin.at is not None):
        return None
    if span is None:
        last = end.at if isinstance(end, O.Camera) and end.at else when or T.Now()
        first = begin.at if isinstance(begin, O.Camera | O.Robot) and begin.at else T.Start()
        span = T.WHOLE if (first, last) == (T.Start(), T.Now()) else T.Span(begin=first, end=last) if first != last else None
    elif begin is not None:
        span = T.Span(begin=begin.at or T.Start(), end=span.end)
    core, floats = parted(bag)
    if core or span is None or (path and axis):
        return None
    measure: M.Measure
    if axis:
        measure = M.Shift(axis=axis, span=span)
    elif path:
        if floats.pop("metric", M.Metric.STRAIGHT) is not M.Metric.STRAIGHT:
            return None
        measure = M.PathLength(span=span)
    else:
        measure = M.Distance(a=O.Camera(at=span.begin), b=O.Camera(at=span.end))
    return all_finished([A.Value(of=measure)], floats)


says("arg", "[to the] {axis}")(lambda axis: Arg("axis", axis))


@says(
    "core",
    f"{{arg}}* {{how_far}} {{arg}}* {DONE} {{mover}} [got|get|been|ended up] MOVE [AWAY|away|off|itself|position] {{arg}}*",
    "{arg}* {how_far} {mover} [HAVE|was|is] MOVE [away|off] {arg}*",
    "{arg}* {how_far} of {mover} (position|location|place) change {arg}*",
    f"{{arg}}* {{how_far}} {DONE} {{owner}} (position|location) [changed|change|shift|shifted] {{arg}}*",
    "{arg}* {how_far} BE {mover} displaced {arg}*",
    "{arg}* {mover} MOVE {how_far} {arg}*",
    "{arg}* {how_far} {mover} (end|ended) up {arg}*",
    "{arg}* {how_far} BE {mover} MOVE {arg}*",
)
def _moved(*parts: Any) -> Any:
    unit = next(p for p in parts if isinstance(p, str))
    return moved([p for p in parts if isinstance(p, tuple)], unit, False)


@says(
    "core",
    f"{{arg}}* {{how_far}} {{arg}}* {DONE} {{mover}} [been] TRAVEL {{arg}}*",
    "{arg}* {how_far} {mover} [HAVE] TRAVEL {arg}*",
    f"{{arg}}* {{how_far}} {DONE} {{mover}} (put behind|put behind it|left behind|go along its path|leave behind|gain) {{arg}}*",
    "{arg}* {how_far} (was|were|has been|BE) TRAVEL [by {mover}] {arg}*",
    "{arg}* {how_far} of path (was|were|BE|lie|lies) [TRAVEL] [by {mover}] {arg}*",
    "{arg}* (what|how) far (was|were) TRAVEL {arg}*",
    "{arg}* {how_far} (path|ground|distance) [DONE] {mover} [HAVE] TRAVEL {arg}*",
)
def _travelled(*parts: Any) -> Any:
    unit = next((p for p in parts if isinstance(p, str)), "")
    return moved([p for p in parts if isinstance(p, tuple)], unit, True)


@says("core", "{arg}* [how long|how many {unit} long|how far|how big|how large] [BE|was|did] [DET] [total|whole|overall|entire] [CAMERA|ROBOT|{owner}] [POSS] PATH [(of|by) (the CAMERA|the ROBOT|{mover})] [that|which] [{mover}] [took|TRAVEL|MOVE|went|taken|made|takes|take] [by {mover}] {arg}*", "{arg}* (what|which) length (has|have|DO) {owner} PATH [have] {arg}*",
      "{arg}* [what is|what was|GIVE|measure|sum up] [DET] [total|overall|whole] [PATH|travel|travelled|traveled|trip|accumulated|cumulative|accumulated travel] (distance|length) [TRAVEL|of the PATH] [of {mover}|by {mover}] {arg}*", "{arg}* how long (a|of a) PATH DO {mover} (take|TRAVEL|make|MOVE) {arg}*", "{arg}* sum up (the movement|the path|the motion) of {mover} {arg}*", "{arg}* (what|how much) (DO|would|did|does) the odometer (gain|read|say|show|count) [for the (trip|way|path)] {arg}*",
      "{arg}* [what is|what was|GIVE] the (mileage|odometer reading|arc length of {owner} PATH) {arg}*", "{arg}* how many {unit} BE the PATH {arg}*", "{arg}* [what is|GIVE] (the distance|how much) [that] {mover} (TRAVEL|has TRAVEL) {arg}*", "{arg}* how many {unit} of PATH (lie|lies|are|are there) {arg}*", "{arg}* {how_far} of PATH was TRAVEL {arg}*", "{arg}* how many {unit} long is the PATH of {mover} {arg}*", "{arg}* measure {owner} PATH {arg}*")  # fmt: skip
def _path(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None or "from" in bag or "to" in bag:
        return None
    unit = next((p for p in parts if isinstance(p, str)), "")
    bag.pop("total", None)
    return moved([tuple(bag.items())], unit, True) if "metric" not in bag else None


@says("core", "{arg}* [what is|what was|what be|GIVE] [DET] [net|total|straight line|overall] [CAMERA] (displacement|movement|translation|net movement|net displacement|net translation|motion|shift|offset|displacement vector|baseline) [vector] [of {mover}] {arg}*", "{arg}* [what is|what was] {owner} [net] (displacement|translation|movement|position change) {arg}*", "{arg}* [how (large|big|much|long|far) BE|what is] [the] (magnitude|length|size|change|amount) of [the] (displacement vector|displacement|translation|position|movement|location|{owner} displacement|{owner} position|{owner} translation) [of {mover}] {arg}*", "{arg}* [what is] [the] [net] distance [that] {mover} MOVE {arg}*", "{arg}* [what is] [the] (net|straight line|direct|straight) distance [that] {mover} [HAVE] (TRAVEL|MOVE) {arg}*", "{arg}* [what is|how large is] [the] (difference|change|change in|difference in|offset) (in|of|between) {owner} (position|location|positions|locations) {arg}*", "{arg}* how (large|big|much|far) BE the change of position of {mover} {arg}*",
      "{arg}* [what BE|how (far|wide|large|big) BE] the (distance|offset|baseline|difference) between [the two|the] [CAMERA|{owner}] (positions|locations|poses|position|places|pose|viewpoints) {arg}*", "{arg}* [what BE] the (distance|offset|baseline) between [the two|the] [CAMERA|{owner}] (frames|images) {arg}*", "{arg}* how far apart BE [the [two]] [CAMERA|{owner}] (positions|locations|frames|places|poses|viewpoints) {arg}*", "{arg}* how far apart {owner} (positions|locations) {arg}* (are|were)", "{arg}* how far apart (was|were) {mover} {arg}*", "{arg}* how many {unit} (lie|lies|are) between {owner} (positions|locations) {arg}*", "{arg}* the {owner} displacement {arg}*", "{arg}* {owner} displacement {arg}*")  # fmt: skip
def _displacement(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None:
        return None
    if {"time"} <= bag.keys() and "span" not in bag:
        return None
    return moved([tuple(bag.items())], next((p for p in parts if isinstance(p, str)), ""), False)


says("span", "at {moment_mark} and [at] {moment_mark}")(lambda a, b: T.Span(begin=a, end=b))
says("span", "since {moment}")(lambda x: T.Span(begin=x, end=T.Now()))


@says("core", "[what is|GIVE] [the] distance from [the] START {arg}*")
def _from_start(args: Any) -> Any:
    return moved([args], "", False)


# ---- how it turned, where it looks, how fast it was

HOW_MUCH = "(how much|how far round|how big a turn|how large a turn|how many {unit} of (turn|rotation|turning)|in {unit} how much|how many {unit} round|how far|[by] how many {unit}|[by|through|about|over] (what|which) angle|how large an angle|[by] how strongly|how sharply|through how many {unit}|by how much|how big an angle|how much of an angle)"


@says(
    "core",
    f"{{arg}}* {HOW_MUCH} {{arg}}* {DONE} {{mover}} [been] TURN [itself] {{arg}}*",
    f"{{arg}}* {HOW_MUCH} {{mover}} [HAVE|was] TURN {{arg}}*",
    f"{{arg}}* {HOW_MUCH} {DONE} {{owner}} (orientation|heading|direction|viewing direction|view direction) (change|differ|changed|rotate|vary) {{arg}}*",
    "{arg}* how (large|big|much|great|strong) BE [the] (rotation|turn|change of heading|change of direction|change in heading|change in orientation|change of orientation|angle of rotation|rotation angle) [of {mover}] {arg}*",
    f"{{arg}}* {HOW_MUCH} [rotation|of a rotation|of a turn|turning] [BE there|did {{mover}} (undergo|make|perform)] {{arg}}*",
    f"{{arg}}* {HOW_MUCH} BE {{owner}} (orientation|heading|viewing direction) {{arg}}*",
    "{arg}* {mover} TURN by (how much|how many {unit}|what angle) {arg}*",
    f"{{arg}}* {HOW_MUCH} BE the (rotation|turn) {{arg}}*",
    f"{{arg}}* {HOW_MUCH} {DONE} {{owner}} (view|camera view|attitude|pose|view direction) [direction] (turn|rotate|change|differ|changed|rotated|turned) {{arg}}*",
    f"{{arg}}* {HOW_MUCH} {DONE} {{mover}} (make|TURN through|TURN round|TURN [by]) {{arg}}*",
    f"{{arg}}* {HOW_MUCH} {DONE} the (heading|orientation|viewing direction|view direction) [of {{mover}}] change {{arg}}*",
    f"{{arg}}* {HOW_MUCH} (lies|lie|are|is|happened|are there|is there|occurred|took place) [between] [the|{{owner}}] [the] [two] [orientation|orientations|viewing directions|headings|heading|views] {{arg}}*",
    "{arg}* [what is] [the] [total] [relative] (rotation|turning|turn|rotation angle|turning angle) [angle] [of|between] [the|{owner}] [two] [views|poses|view|frames] {arg}*",
    f"{{arg}}* did {{mover}} TURN {{arg}}* and {HOW_MUCH}",
    f"{{arg}}* {HOW_MUCH} has {{mover}} (spun|turned|swung|rotated) (round|around) {{arg}}*",
    f"compare {{t}} and {{t}} [,] {HOW_MUCH} did {{mover}} TURN",
    f"{{arg}}* {HOW_MUCH} {{owner}} (attitude|heading|orientation) differs {{arg}}*",
    "[{mover}] (yaw|heading|orientation) change {t} {t}",
)
def _turned(*parts: Any) -> Any:
    moments = [p for p in parts if isinstance(p, T.Moment)]
    bag = bag_of(
        *(p for p in parts if isinstance(p, tuple)),
        *((("span", T.Span(begin=moments[0], end=moments[1])),) if len(moments) == 2 else ()),
    )
    unit = next((p for p in parts if isinstance(p, str)), "")
    if bag is None or (
        "span" not in bag and not any(p is True for p in parts) and "deg" not in (unit, bag.get("unit"))
    ):
        return None
    if unit:
        bag.setdefault("unit", unit)
    about_up = False
    if "axis" in bag:
        if bag.pop("axis") is not M.Axis.LEFT:
            return None
        about_up = True
    bag.pop("total", None)
    return all_finished([A.Value(of=M.Turn(about_up=about_up))], bag) if set(bag) <= {"unit", "span"} else None


@says(
    "core",
    "{arg}* [what BE|GIVE] [the|{owner}] [total|net] (yaw change|change in yaw|change of yaw|yaw rotation|turn about the vertical) [of {mover}] {arg}*",
    "{arg}* how much did [the|{owner}] yaw [of {mover}] change {arg}*",
    "{arg}* [by] how many {unit} did [the|{owner}] yaw [of {mover}] change {arg}*",
    "yaw change {t} {t}",
)
def _yaw_change(*values: Any) -> Any:
    parts = Parts(values)
    moments = parts.all(T.Moment)
    bag = parts.bag(("span", "unit"), unit=parts.one(str), span=T.Span(begin=moments[0], end=moments[1]) if moments else None)
    return None if bag is None or "span" not in bag else all_finished([A.Value(of=M.Turn(about_up=True))], bag)


@says("core", "{arg}* [by] how (much|far|high) did {mover} (rise|climb|ascend|go upwards|lift off) {arg}*", "{arg}* [by] how many {unit} did {mover} (rise|climb|ascend) {arg}*")
def _rose(*values: Any) -> Any:
    parts = Parts(values)
    bag = parts.bag(("span", "unit"), unit=parts.one(str))
    return None if bag is None else all_finished([A.Value(of=M.Shift(axis=M.Axis.UP))], bag)


@says(
    "core",
    "{arg}* did {mover} TURN [to the] left or [to the] right {arg}*",
    "{arg}* [in] (what|which) (direction|way) did {mover} TURN {arg}*",
    "{arg}* did {mover} TURN [to the] right or [to the] left {arg}*",
)
def _turned_to(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None or bag.keys() - {"span"}:
        return None
    signed = all_finished([A.Value(of=M.Turn(about_up=True))], bag)
    return Refused("the side is the sign of the angle turned to the left: ask for that", tuple(signed))


LOOKING = "(facing|looking|pointing|pointed|heading|headed|oriented|aimed|turned|face|look|point)"


@says(
    "core",
    f"{{arg}}* [in|to|into] (what|which) (way|direction) (BE|DO) {{mover}} {LOOKING} [in|to|at] {{arg}}*",
    "{arg}* where (BE|DO) {mover} (facing|looking|pointing|pointed|look|aimed) [to|at] {arg}*",
    "{arg}* what BE [the] (heading|yaw|yaw angle|orientation) [of {mover}] {arg}*",
    "[{mover}] (heading|yaw) [{at_mark}]",
    "[the] [current|present] (heading|yaw) {arg}*",
)
def _heading(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None or "span" in bag:
        return None
    return all_finished([A.Value(of=M.Heading())], bag)


@says(
    "core",
    "{arg}* (how fast|at (what|which) speed) [BE|DO|HAVE|was] {mover} [been] [MOVE|TRAVEL] {arg}*",
    "{arg}* (how fast|at what speed) {mover} [HAVE|was|is] (MOVE|TRAVEL) {arg}*",
    "{arg}* how fast [BE|DO] {mover} [MOVE|TRAVEL] {on_average} {arg}*",
    "[{mover}] speed [{at_mark}]",
    "[the] [current|present] (speed|velocity) {arg}*",
)
def _speed(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None:
        return None
    mean = "span" in bag or any(p == "mean" for p in parts)
    return all_finished([A.Value(of=M.MeanSpeed() if mean else M.Speed())], bag)


says("on_average", "on average")(lambda: "mean")


STILL = "(standing still|still|stationary|stopped|not moving|standing|at rest|motionless|halted|parked)"


@says(
    "core",
    f"{{arg}}* BE {{mover}} {STILL} {{arg}}*",
    f"{{arg}}* {{mover}} BE {STILL} {{arg}}*",
    "{arg}* DO {mover} (stand still|stop) {arg}*",
    "{arg}* did {mover} not move {arg}*",
)
def _still(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    return None if bag is None or "span" in bag else all_finished([A.Moving()], bag, negated=True)


@says("core", "{arg}* BE {mover} (moving|driving|in motion|travelling|going) {arg}*", "{arg}* {mover} BE moving {arg}*")
def _moving(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    return None if bag is None or "span" in bag else all_finished([A.Moving()], bag)


says("how_long", "[for] how long", "how much time", "[for] how much (of the time|time)", "how long a time")(lambda: "")
says("how_long", "[for|by|over] how many {unit}", "what time")(lambda unit="": unit)


@says(
    "core",
    f"{{arg}}* {{how_long}} (BE|DO) {{mover}} (stand still|stop|{STILL[1:-1]}|stood still|rest|spend standing still) {{arg}}*",
)
def _stood(*parts: Any) -> Any:
    return _spent(parts, False)


@says("core", "{arg}* {how_long} (BE|DO) {mover} (MOVE|TRAVEL|in motion|spend moving|spend driving) {arg}*", "{arg}* {how_long} HAVE {mover} (MOVE|TRAVEL) {arg}*")
def _drove(*parts: Any) -> Any:
    return _spent(parts, True)


@says("core", f"{{arg}}* {{how_long}} HAVE {{mover}} been {STILL} {{arg}}*")
def _standing_since(*parts: Any) -> Any:
    return _until_now(parts, False)


@says("core", "{arg}* {how_long} HAVE {mover} been (MOVE|TRAVEL|in motion) {arg}*")
def _driving_since(*parts: Any) -> Any:
    return _until_now(parts, True)


def _until_now(parts: tuple[Any, ...], moving: bool) -> Any:
    """"How long have you been driving?" asks since when, unless it says in what time."""
    spent = _spent(parts, moving)
    if not spent or any(q.ask.of.span != T.WHOLE for q in spent):
        return spent
    now = Query(ask=A.Moving(), negated=not moving)
    return Refused("this asks since when: ask whether it is so now, or for the time altogether", (*spent, now))


def _spent(parts: tuple[Any, ...], moving: bool) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    unit = next(p for p in parts if isinstance(p, str))
    if bag is None or bag.keys() & {"from", "to", "axis"}:
        return None
    if unit:
        bag["unit"] = unit
    return all_finished([A.Value(of=M.TimeSpent(moving=moving))], bag)


@says("core", "{arg}* [in|to|into|towards|along] (what|which) (way|direction|side|axis) {arg}* (BE|DO|HAVE) {mover} [mostly|MAIN] [MOVE|TRAVEL|take|displaced] [in|to] [MAIN] {arg}*", "{arg}* [what is|what was|GIVE|GIVE me] [DET] [MAIN] (direction|component) of [the] [MAIN] [{owner}|the] (movement|motion|travel|translation|displacement|CAMERA movement|shift) [of {mover}] {arg}*", "{arg}* where (BE|DO|HAVE) {mover} [MAIN] (MOVE|TRAVEL) [to|towards] {arg}*", "{arg}* [in] (what|which) (way|direction) {mover} [HAVE|was] [MAIN] (MOVE|TRAVEL) [in|to] {arg}*",
      "{arg}* {mover} [HAVE|was] (MOVE|TRAVEL) [MAIN] [in|to] (what|which) (way|direction) {arg}*", "{arg}* [what is|what was|MAIN] [the] [MAIN] (travel|motion|movement|moving) direction [of {mover}] {arg}*", "{arg}* [did|has|was|is|does|were] {mover} [MAIN] (MOVE|TRAVEL|moving) [MAIN] {sides} {arg}*", "{arg}* [how|where] (BE|DO|HAVE) {mover} [MAIN] (MOVE|TRAVEL) [to] {sides} {arg}*", "{arg}* [how|where] (BE|DO|HAVE) {mover} [MAIN] (MOVE|TRAVEL) [to] {arg}* {sides}", "{arg}* (is|was) (the|{owner}) (motion|movement) [MAIN] {arg}* [MAIN] {sides} {arg}*", "{arg}* [describe] the direction [in which|that] {mover} [MAIN] (MOVE|TRAVEL) [in] {arg}*", "{arg}* the (motion|movement) was [MAIN] in (what|which) direction {arg}*", "{arg}* (did|has) {mover} {sides} {arg}*", "{arg}* which direction (describes|best describes) {owner} (motion|movement) {arg}*")  # fmt: skip
def _moved_direction(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None:
        return None
    begin, end = bag.pop("from", None), bag.pop("to", None)
    if "time" in bag and "span" in bag and bag["time"] == bag["span"].begin:
        bag.pop("time")
    if begin is not None and isinstance(begin, O.Camera) and begin.at is not None:
        if isinstance(end, O.Camera) and end.at is not None:
            bag["span"] = T.Span(begin=begin.at, end=end.at)
        elif "span" in bag and bag["span"] == T.Span(begin=T.Start(), end=bag["span"].end):
            bag["span"] = T.Span(begin=begin.at, end=bag["span"].end)
    elif begin is not None or end is not None:
        return None
    bag.pop("axis", None)
    if bag.keys() - {"span"}:
        return None
    return all_finished([A.MotionDirection()], bag)


says(
    "sides",
    "{side_word} or {side_word}",
    "{side_word} {side_word} or {side_word}",
    "{side_word} {side_word} {side_word} or {side_word}",
    "{side_word} {side_word} {side_word} {side_word} {side_word} or {side_word}",
    "more {side_word} or more {side_word}",
)(lambda *_: True)
says(
    "side_word",
    "[to the|to its] (left|right|front|back|rear)",
    "(forward|forwards|backward|backwards|up|down|upward|downward|upwards|downwards|advance|retreat|go sideways|sideways|ahead|back|left|right)",
)(lambda: True)

# ---- seen


def seen_or_visible(thing: O.Operand, args: Any, past: bool, negated: bool = False) -> Any:
    """In view at a moment, or at any time of a span; from another thing: whether nothing stands between."""
    bag = bag_of(*args)
    if bag is None or isinstance(thing, O.Camera | O.Robot):
        return None
    bag.pop("image", None)
    if "shot" in bag and bag.setdefault("time", bag["shot"]) != bag.pop("shot"):
        return None
    if "from" in bag or "by" in bag:
        place = bag.pop("from", None) or bag.pop("by")
        if isinstance(place, O.Camera | O.Robot):
            if place.at not in (None, T.Now()):
                bag.setdefault("time", place.at)
                if bag["time"] != place.at:
                    return None
        else:
            if past or bag:
                return None
            return all_finished([A.LineOfSight(a=place, b=thing)], bag, negated)
    if bag.keys() - {"time", "span"}:
        return None
    if "span" in bag or (past and "time" not in bag):
        return all_finished([A.Seen(of=thing)], bag, negated)
    return all_finished([A.Visible(of=thing)], bag, negated)


says("arg", "by {mover}")(lambda _: Arg("by", O.Camera()))
VIS = "(VISIBLE|SEEN)"


def view_says(patterns: tuple[str, ...], past: bool, negated: bool) -> None:
    @says("core", *patterns)
    def act(*parts: Any) -> Any:
        things = [p for p in parts if isinstance(p, O.Operand)]
        return seen_or_visible(things[-1], [p for p in parts if isinstance(p, tuple)], past, negated)


PRESENT, PAST = (
    "(is|are|be|is n't|are n't|would|does|do|'s)",
    "(was|were|was n't|were n't|has been|have been|had been|had)",
)
NOW_STILL = "[now|still|already|currently|also|ever|being|be]"
view_says((f"{{arg}}* {PRESENT} {{thing}} {NOW_STILL} {VIS} {{arg}}*", "{arg}* (does|do) {mover} [still|currently] SEE {thing} {arg}*", "{arg}* CAN [n't] {mover} [still|also] SEE {thing} {arg}*", "{arg}* CAN [n't] {thing} [still] be SEEN {arg}*", f"{{arg}}* {{mark}} [is|be] {NOW_STILL} VISIBLE {{arg}}*", "{arg}* (does|do|would) {thing} APPEAR [VISIBLE] {arg}*", "{arg}* (is|are) there a (clear|free) (view|line of sight) (of|to) {thing} {arg}*", "{arg}* [what is|GIVE] [the] visibility of {thing} {arg}*", "{arg}* (does|do) {mover} have {thing} (in view|in sight|in its view) {arg}*", "{arg}* (do|does) {moment_arg} (show|contain) {thing}", "{arg}* (do|does|did) {seen_image} (show|contain|have) {thing}", "{arg}* {thing} [is] being VISIBLE {arg}*", "{arg}* would {mover} [be able to] SEE {thing} {arg}*", "{arg}* {mover} (sees|see) {thing} {arg}*", f"{{arg}}* (is|are) {{thing}} HIDDEN or {VIS} {{arg}}*", f"{{arg}}* (is|are|was) {{thing}} HIDDEN {{arg}}* or [can it be] {VIS} {{arg}}*", f"{{arg}}* (is|are) {{thing}} {VIS} (and unoccluded|or HIDDEN|or not) {{arg}}*", "{arg}* is {thing} among the things that (were|are) VISIBLE {arg}*"), False, False)  # fmt: skip
view_says((f"{{arg}}* {PAST} {{thing}} {NOW_STILL} {VIS} {{arg}}*", "{arg}* (did|has|have|had|did n't|has n't) {mover} [ever|already|still] (SEE|SAW|seen|got|get) {thing} [in view|in sight] {arg}*", "{arg}* did {thing} [ever] APPEAR {arg}*", "{arg}* (has|have|had) {thing} [ever|already] (been|come) VISIBLE {arg}*", "{arg}* was there a (clear|free) (view|line of sight) (of|to) {thing} {arg}*", "{arg}* (has|have) {thing} [ever|already] been SEEN {arg}*", "{arg}* was {mover} able to SEE {thing} {arg}*", "{arg}* did {mover} have (sight of|in view) {thing} {arg}*", "{arg}* was {thing} SEEN at any time {arg}*", "{arg}* {mover} (has|have) [ever|already] seen {thing} {arg}*", "(has|have|had|did) {mover} [ever|already] (seen|SEE) {thing} (before|already|earlier|yet)"), True, False)  # fmt: skip
view_says((f"{{arg}}* {PRESENT} {{thing}} {NOW_STILL} (HIDDEN|not VISIBLE|not SEEN|not in view|no longer VISIBLE) {{arg}}*", "{arg}* {thing} [is|be] HIDDEN {arg}*", "{arg}* (does|do) (anything|something) (hide|occlude|block|cover|obscure) {thing} {arg}*", "{arg}* is (anything|something) (hiding|occluding|blocking|covering|obscuring) [the view of|the view to] {thing} {arg}*", "{arg}* is the (view|line of sight) (of|to) {thing} (blocked|obstructed) {arg}*", "{arg}* is {thing} not {CANT} {arg}*".replace("{CANT}", "to be SEEN"), "{arg}* (does|do) {mover} not SEE {thing} {arg}*", "{arg}* can not {mover} SEE {thing} {arg}*", "{arg}* can {mover} not SEE {thing} {arg}*"), False, True)  # fmt: skip
view_says((f"{{arg}}* {PAST} {{thing}} [now|still|already|currently|also|being|be] (HIDDEN|not VISIBLE|not SEEN|not in view) {{arg}}*", "{arg}* did {thing} fall (outside the image|outside the view|out of view|outside the frame) {arg}*", "{arg}* had {thing} left (the view|the picture|the image|the frame) {arg}*", "{arg}* did {mover} (lose sight of|not SEE) {thing} {arg}*", "{arg}* (has|have|had) {mover} not [yet] seen {thing} {arg}*", "{arg}* (has|have|had) {mover} never seen {thing} {arg}*", "{arg}* (has|have) {thing} (never|not) [yet] been SEEN {arg}*", "{arg}* was {thing} (never|not) [yet] SEEN {arg}*"), True, True)  # fmt: skip
says("at_mark", "[at] {moment_mark}")(lambda x: Arg("time", x))
view_says(("(visible|seen) {mark}",), False, False)
says("moment_arg", "{moment_mark}")(lambda x: Arg("time", x))

WHEN = "(when|after how many seconds|how many seconds after the start|how many seconds after the beginning|what time was it when|since when|until when|up to what time|up to when|find the moment when|the moment when|at which time stamp|find when|(at|on|in) what [point in] time|at which time|what time|at (what|which) moment|which (moment|time)|how (early|late|soon|recently)|in (what|which) (image|frame)|which [image|frame]|what (was|is) the time when|at (what|which) point in time|at (what|which) stamp|what (timestamp|stamp)|at (what|which) instant|at (which|what) timestamp)"


@says("core", f"{{arg}}* {WHEN} (BE|DO|HAVE|was it) {{thing}} {{event}} [be|been|come to be] (SEEN|APPEAR|VISIBLE|seen|in the image) {{arg}}* [by {{mover}}]", f"{{arg}}* {WHEN} (BE|DO|HAVE) {{thing}} [be] (SEEN|APPEAR|VISIBLE) [by {{mover}}] {{event}} {{arg}}*", f"{{arg}}* {WHEN} (BE|DO|HAVE) {{mover}} {{event}} (SEE|SAW|seen|get {{thing}} in view) [of] {{thing}} {{arg}}*", f"{{arg}}* {WHEN} (BE|DO|HAVE) {{mover}} (SEE|SAW|seen|have) {{thing}} {{event}} {{arg}}*", f"{{arg}}* {WHEN} {{mover}} {{event}} (SAW|saw) {{thing}} {{arg}}*", f"{{arg}}* {WHEN} {{thing}} (was|is|be) {{event}} (SEEN|VISIBLE) {{arg}}*",
      f"{{arg}}* {{thing}} {WHEN} (was|is) it {{event}} (SEEN|VISIBLE) {{arg}}*", f"{{arg}}* {WHEN} (is|was) [it] [the] {{event}} [time|moment|image|frame|instant] [that|when|in which|at which|to show] [{{mover}}] [SAW|saw|sees|see] {{thing}} [was|is|be|came|comes] [SEEN|VISIBLE|APPEAR|into view] {{arg}}*", f"{{arg}}* [{WHEN} was|what is|what was|GIVE|which was] [the] [{{owner}}] {{event}} [time of|moment of] (view|sighting|observation|appearance|glimpse|sight|image|frame|detection) (of|that shows|showing|with|containing) {{thing}} [when] {{arg}}*", "{arg}* [what is|what was|which is|which was] [the] {event} (time|moment|instant|point in time|timestamp|image|frame) [at which|when|that|in which|where|for which] [{mover}] [SAW|saw|sees|can see|could see|see] {thing} [is|was|be|can be|could be|came] [in view|SEEN|VISIBLE|APPEAR|into view] {arg}*", "{arg}* {event} (time|moment) [that] {thing} [was] (SEEN|VISIBLE) {arg}*", f"{{arg}}* {WHEN} DO {{thing}} {{event}} (disappear|go out of view|leave the view|leave the image|vanish|go out of sight) {{arg}}*", f"{{arg}}* {WHEN} DO {{thing}} (disappear|go out of view|leave the view|vanish|come into view) {{event}} {{arg}}*", "{arg}* {thing} {event} (SEEN|VISIBLE) (when|at what time) {arg}*", f"{{arg}}* {WHEN} was {{event}} {{thing}} (SEEN|VISIBLE) {{arg}}*", "{arg}* when {event} (did|was) {mover} (SEE|SAW) {thing} {arg}*", f"{{arg}}* {WHEN} (is|was) {{thing}} in (view|the image|sight|the picture) {{event}} {{arg}}*", f"{{arg}}* {WHEN} (BE|DO) {{mover}} {{event}} (have|get|catch) {{thing}} in (view|sight) {{arg}}*")  # fmt: skip
def _seen_time(*parts: Any) -> Any:
    thing = next(p for p in parts if isinstance(p, O.Operand))
    event = next(p for p in parts if isinstance(p, M.Event))
    if isinstance(thing, O.Camera | O.Robot):
        return None
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None or not bag.pop("by", True) or bag.keys() - {"unit"}:
        return None
    return all_finished([A.Value(of=M.SeenTime(of=thing, event=event))], bag)


@says(
    "core",
    "{arg}* {how_long} ago (BE|DO|HAVE) {thing} {event} (SEEN|VISIBLE|APPEAR) {arg}*",
    "{arg}* {how_long} ago DO {mover} [{event}] (SEE|SAW) {thing} {arg}*",
    "{arg}* {how_long} [is it|has it been] since {thing} was [{event}] (SEEN|VISIBLE) {arg}*",
    "{arg}* {how_long} [is it|has it been] since {mover} [{event}] (SAW|saw) {thing} {arg}*",
)
def _seen_ago(*parts: Any) -> Any:
    thing = next(p for p in parts if isinstance(p, O.Operand))
    event = next((p for p in parts if isinstance(p, M.Event)), M.Event.LAST)
    unit = next(p for p in parts if isinstance(p, str))
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)), ("unit", unit) if unit else ())
    return (
        None
        if bag is None or bag.keys() - {"unit"}
        else all_finished([A.Value(of=M.SeenTime(of=thing, event=event, ago=True))], bag)
    )


@says(
    "core",
    "(how often|how many times|in how many (images|frames|pictures)) (BE|DO|HAVE) {thing} [been] (SEEN|VISIBLE|APPEAR) {arg}*",
    "how many (images|frames|pictures) (show|contain|see) {thing} {arg}*",
    "in how many (images|frames|pictures) (is|was) {thing} {arg}*",
    "how many (images|frames|pictures) (is|was) {thing} in {arg}*",
    "(how often|how many times) (DO|HAVE) {mover} (SEE|seen) {thing} {arg}*",
)
def _seen_count(*parts: Any) -> Any:
    thing = next(p for p in parts if isinstance(p, O.Operand))
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    return None if bag is None or bag.keys() - {"span"} else all_finished([A.Value(of=M.SeenCount(of=thing))], bag)


@says(
    "core",
    "from (how near|how close|what distance|how far) (BE|DO) {thing} [be] (SEEN|VISIBLE) {arg}*",
    "how (near|close) (was|is) {thing} seen {arg}*",
)
def _seen_distance(thing: O.Operand, args: Any) -> Any:
    bag = bag_of(args)
    return (
        None if bag is None or bag.keys() - {"span", "unit"} else all_finished([A.Value(of=M.SeenDistance(of=thing))], bag)
    )


@says(
    "core",
    "{arg}* how (close|near) (DO|HAVE|was) {mover} [ever] (get|come|got|gotten|go|been) to {thing} {arg}*",
    "{arg}* (how close|how near) {mover} (came|got|has come) to {thing} {arg}*",
)
def _approach(a: Any, _: Any, thing: O.Operand, b: Any) -> Any:
    bag = bag_of(a, b)
    return None if bag is None else all_finished([A.Value(of=M.ClosestApproach(to=thing))], bag)


@says(
    "core",
    "{arg}* (has|have|had|was|were|did|DO) {mover} [ever] [been|come|get|got|gotten|gone] [to] within {quantity} (of|from) {thing} {arg}*",
)
def _been_within(a: Any, _: Any, quantity: Any, thing: O.Operand, b: Any) -> Any:
    bag = bag_of(a, b)
    if bag is None or bag.keys() - {"span"}:
        return None
    return all_finished(
        [A.Threshold(of=M.ClosestApproach(to=thing), comparison=A.Comparison.AT_MOST, value=si(quantity))], bag
    )


NEAR_M = 0.5
"""m: what "at" a place is taken to be in the alternatives that are offered."""


@says(
    "core",
    "{arg}* (has|have|had|was|were) {mover} [ever] [been] [back] (at|to|on|near) {thing} {arg}*",
    "{arg}* did {mover} [ever] (visit|reach|pass|pass by|go to|get to) {thing} {arg}*",
)
def _been_at(a: Any, _: Any, thing: O.Operand, b: Any) -> Any:
    bag = bag_of(a, b)
    if bag is None:
        return None
    if isinstance(thing, O.Room):
        return all_finished([A.Visited(room=thing)], bag)
    near = all_finished([A.Threshold(of=M.ClosestApproach(to=thing), comparison=A.Comparison.AT_MOST, value=NEAR_M)], bag)
    return (
        Refused(
            f'"at" does not say how near; {NEAR_M} m would be a choice', tuple(q for q in near if isinstance(q, Query))
        )
        if near
        else None
    )


@says(
    "core",
    "{arg}* (has|have|had) {mover} [ever] been in {room} {arg}*",
    "{arg}* did {mover} [ever] (visit|enter|see) {room} {arg}*",
    "{arg}* (was|were) {mover} [ever] in {room} {arg}*",
)
def _visited(a: Any, _: Any, room: O.Room, b: Any) -> Any:
    bag = bag_of(a, b)
    return None if bag is None or bag.keys() - {"span"} or not room.name else all_finished([A.Visited(room=room)], bag)


@says(
    "core",
    "(is|are|am) {mover} back (at|in|on|to) {thing}",
    "(is|are|am) {mover} back where {mover} BEGAN",
    "(is|are|has|have) {mover} (back|returned) [to [the] START|home]",
)
def _back(*parts: Any) -> Any:
    thing = next((p for p in parts if isinstance(p, O.Operand)), O.Camera(at=T.Start()))
    near = all_finished(
        [A.Threshold(of=M.Distance(a=O.Camera(at=T.Now()), b=thing), comparison=A.Comparison.AT_MOST, value=NEAR_M)], {}
    )
    return Refused(f'"back at" does not say how near; {NEAR_M} m would be a choice', tuple(near))


@says(
    "core",
    "{arg}* [what is|what was|GIVE] {owner} (position|pose|location|coordinates) {arg}*",
    "[{mover}] (pose|position) {at_mark}",
)
def _where_camera(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None or bag.keys() - {"time", "frame"}:
        return None
    return all_finished([A.Locate(of=O.Camera(at=bag.pop("time", T.Now())))], bag)


# ---- time


@says(
    "core",
    "{arg}* {how_long} (passed|elapsed|went by|lies|lie|is there|was there|is it|was it|has passed|are there|passes|separates|did it take|has elapsed|does it take|lay|is|goes by|pass|did (the camera|the robot|it|we|you) take|were there|ran) {arg}*",
    "{arg}* {how_long} (DO|was) {mover} (take|need) {arg}*",
    "{arg}* {how_long} did it take [{mover}] [to (get|go|drive|travel|move|come)] {arg}*",
    "{arg}* {how_long} DO DET PATH {arg}* (take|last) {arg}*",
    "{arg}* {how_long} [passed|time] {arg}*",
    "{arg}* what (amount|period|length|span|stretch|interval) of time (passed|elapsed|separates|lies|is|went by|is there) {arg}*",
    "{arg}* how (long|big|large|much) (is|was) [the] (time|interval|period|duration|gap|time span|time interval|time difference|time gap|delay|span of time) {arg}*",
    "{arg}* [what is|GIVE] [the] (time|duration|interval|time gap|delay|time span|elapsed time|time difference|time interval|seconds|number of seconds) [that] [passed|elapsed|went by|passes] {arg}*",
)
def _elapsed(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    unit = next((p for p in parts if isinstance(p, str)), "")
    if bag is None or bag.keys() - {"span", "unit"} or "span" not in bag or bag["span"] == T.WHOLE:
        return None
    if unit:
        bag["unit"] = unit
    span = bag.pop("span")
    return all_finished([A.Value(of=M.Elapsed(span=span))], bag)


says(
    "span",
    "(of|for) {moment_mark} and {moment_mark}",
    "{moment_mark} {moment_mark}",
    "separates {moment_mark} (from|and) {moment_mark}",
)(lambda a, b: T.Span(begin=a, end=b))


@says(
    "core",
    "{how_long} (after|later than) {moment_mark} (is|was|comes|came) {moment_mark} {arg}*",
    "{how_long} (is|was|does|did) {moment_mark} (before|earlier than) {moment_mark} {arg}*",
    "{how_long} earlier (is|was) {moment_mark} than {moment_mark} {arg}*",
    "how much earlier (is|was) {moment_mark} than {moment_mark} {arg}*",
)
def _later(*parts: Any) -> Any:
    """From the first that is named to the second; negative where that is the earlier one."""
    begin, end = (p for p in parts if isinstance(p, T.Moment))
    return _between_moments(begin, end, parts)


@says(
    "core",
    "{how_long} (before|earlier than) {moment_mark} (is|was|comes|came) {moment_mark} {arg}*",
    "{how_long} (is|was|does|did) {moment_mark} [come] (after|later than) {moment_mark} {arg}*",
    "{how_long} (later|after) (is|was) {moment_mark} than {moment_mark} {arg}*",
    "how much later (is|was) {moment_mark} than {moment_mark} {arg}*",
)
def _earlier(*parts: Any) -> Any:
    end, begin = (p for p in parts if isinstance(p, T.Moment))
    return _between_moments(begin, end, parts)


def _between_moments(begin: T.Moment, end: T.Moment, parts: tuple[Any, ...]) -> Any:
    unit = next((p for p in parts if isinstance(p, str)), "")
    bag = bag_of(parts[-1], ("unit", unit) if unit else ())
    return None if bag is None else all_finished([A.Value(of=M.Elapsed(span=T.Span(begin=begin, end=end)))], bag)


@says(
    "core",
    "{how_long} (BE|HAVE|DO) [{mover}] [been] (recording|running|on|recorded|the RECORDING|this RECORDING|the RECORDING last|filming|active|record) {arg}*",
    "{how_long} (does|did|is|was) the RECORDING [last] {arg}*",
    "[what is|GIVE] [the] (length|duration) of the RECORDING {arg}*",
)
def _recording(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    return None if bag is None or bag.keys() - {"unit"} else all_finished([A.Value(of=M.Elapsed())], bag)


# ---- unseen space, changes

says("percent", "percent", "in percent", "per cent")(lambda: Arg("unit", "percent"))

SPACES = "(DET SPACE|SPACE|it|PART|the|everything|that|DET PART|them|us|here|DET PART of DET SPACE|the PART|DET environment|{room})"


@says("core", "{arg}* (what SHARE|which SHARE|how much|how large a (part|SHARE)|how big a (part|SHARE)|how many {unit}) [of {room}|of it] [around [the|{owner}] PATH|near [the|{owner}] PATH|around the CAMERA|nearby|around us] [that] (is|are|has|have|remains|remain|was|do|did) [{mover}] [still|yet|n't|not yet] [been] UNSEEN [by {mover}] {arg}*", "{arg}* [what is|GIVE|how (large|big) is] [DET] UNSEEN (SHARE|part) [of {room}|of it] [around [the|{owner}] PATH|near the PATH] {arg}*", "{arg}* [what is|what|GIVE|how much of] [DET] SHARE of UNSEEN (SPACE|volume) {arg}*", "{arg}* how much UNSEEN SPACE (is there|is left|remains|are there) {arg}*", "{arg}* (how much|what SHARE) [of {room}] (have|has) {mover} (not|n't) [yet] (seen|explored|observed|covered|looked at) {arg}*", "{arg}* (what|which) SHARE of {room} (has|have) {mover} missed {arg}*", "{arg}* UNSEEN SPACE {percent}", "{arg}* SHARE of UNSEEN SPACE {arg}*", "{arg}* UNSEEN SHARE {arg}*", "{arg}* (how much|what SHARE) of {room} (has|have) (n't|not) [been] {mover} (seen|explored|covered)", "{arg}* (how much|what SHARE) [of {room}] (did|do|does) {mover} (miss|fail to see|not see) {arg}*", "{arg}* how UNSEEN is {room}")  # fmt: skip
def _unseen_fraction(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    unit = next((p for p in parts if isinstance(p, str)), "")
    if bag is not None and unit:
        bag["unit"] = unit
    if (
        bag is None
        or bag.keys() - {"unit", "span"}
        or bag.get("unit", "percent") != "percent"
        or bag.pop("span", T.WHOLE) != T.WHOLE
    ):
        return None
    return all_finished([A.Value(of=M.UnseenFraction())], bag)


@says("core", "{arg}* (where|in (what|which) direction) (is|are|do|does|lies|lie|would|have|has) [most of] [the] [largest|biggest|most] [UNSEEN] [PART|most] [of {room}] [UNSEEN|lie|be|located|not yet seen] {arg}*", "{arg}* where (is|are|does|do|lies) [most of] [DET] UNSEEN (SPACE|PART) [of {room}] [mostly] [lie|be|found] {arg}*", "{arg}* (which|what) PART [of {room}|around [the|{owner}] PATH|of it] (is|are|has|have|remain|remains|was) [still|n't|not yet] [been|to be] (UNSEEN|seen yet|seen|explored|observed so far|observed|explored yet) {arg}*", "{arg}* (which|what) PART [of {room}] (has|have|did) {mover} (missed|miss|not seen|not see|not explored|n't seen) {arg}*", "{arg}* (which|what) PART [of {room}] have {mover} not [yet] (seen|explored|looked at) {arg}*", "{arg}* where (have|has|did) (n't {mover}|{mover} not|{mover} n't) [yet] (looked|look|been|seen|see|explored|explore) [yet] {arg}*", "{arg}* where (is|are) [DET] UNSEEN (SPACE|PART|volume) {arg}*", "{arg}* UNSEEN (PART|SPACE) where {arg}*", "{arg}* [show|find|GIVE] [me] where [DET] UNSEEN (PART|SPACE) [of {room}|of it] (is|are|lie|lies) {arg}*", "{arg}* (which way|on which side|to which side|in what place) (is|are|lies) [most of] [the] [most|biggest|largest] UNSEEN (SPACE|PART|volume) {arg}*", "{arg}* [in] which direction is the (most|largest) UNSEEN (SPACE|PART) {arg}*", "{arg}* where are {mover} still blind", "{arg}* where should {mover} (look|go|point the camera) [next] to see (what has n't been seen|unexplored space|UNSEEN SPACE|something new|new space|what it has n't seen)", "{arg}* where are the parts of {room} the camera has n't (observed|seen|covered)", "{arg}* (in which direction|where) is the space that is still UNSEEN", "{arg}* where (should|must|do) {mover} (look|explore) next {arg}*", "{arg}* (in|to) (which|what) direction (is|are|does) [most of] [the] UNSEEN (SPACE|PART) [mostly|MAIN] [lie|of {room}] {arg}*", "where is the UNSEEN SPACE")  # fmt: skip
def _unseen(*parts: Any) -> Any:
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    return None if bag is None or bag.keys() - {"span"} else all_finished([A.Unseen()], {})


@says("core", "{arg}* (from|at) (what|which) height (was|is) {seen_image} TAKEN {arg}*", "how high [over the FLOOR|above the FLOOR] was {seen_image} TAKEN {arg}*")
def _taken_from(*values: Any) -> Any:
    bag = Parts(values).bag(("shot", "unit"))
    return None if bag is None else all_finished([A.Value(of=M.Height(of=O.Camera(at=bag.pop("shot"))))], bag)


@says("core", "{arg}* did [the] [depth (at|of)] {thing} change {arg}*", "{arg}* (has|have) {thing} changed {arg}*", "{arg}* (has|did) (anything|something) (changed|change) (at|in|inside) {thing} {arg}*", "{arg}* did {thing} change {arg}*")
def _changed(a: Any, thing: O.Operand, b: Any) -> Any:
    bag = bag_of(a, b)
    return None if bag is None or bag.keys() - {"span"} else all_finished([A.Changed(of=thing)], bag)
