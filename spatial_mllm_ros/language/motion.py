"""Sentences about what the camera did: how far it moved, how it turned, how fast, for how long, where to."""

from __future__ import annotations

from typing import Any

from spatial_mllm_ros.language.phrases import Arg, says
from spatial_mllm_ros.language.sentences import Parts, Refused, all_finished, asked, bag_of, parted
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.query import Query

# ---- how far it moved

says("how_far", "how far [away|off|out]", "[by|at] how much [distance|of a distance]", "(what|which) distance",
     "how much (distance|ground|path|way|of a distance)", "what length of path", "over (what|which) distance",
     "how long a (path|route|way|track|distance)", "by what distance", "how large a distance")(lambda: "")
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


@asked(f"{{how_far}} {{arg}}* {DONE} {{mover}} [got|get|been|ended up] MOVE [AWAY|away|off|itself|position]", "{how_far} {mover} [HAVE|was|is] MOVE [away|off]",
       "{how_far} of {mover} (position|location|place) change", f"{{how_far}} {DONE} {{owner}} (position|location) [changed|change|shift|shifted]",
       "{how_far} BE {mover} displaced", "{mover} MOVE {how_far}", "{how_far} {mover} (end|ended) up", "{how_far} BE {mover} MOVE")  # fmt: skip
def _moved(p: Parts, bag: dict[str, Any]) -> Any:
    return moved(p.args, p.one(str, ""), False)


@asked(f"{{how_far}} {{arg}}* {DONE} {{mover}} [been] TRAVEL", "{how_far} {mover} [HAVE] TRAVEL",
       f"{{how_far}} {DONE} {{mover}} (put behind|put behind it|left behind|go along its path|leave behind|gain)",
       "{how_far} (was|were|has been|BE) TRAVEL [by {mover}]", "{how_far} of path (was|were|BE|lie|lies) [TRAVEL] [by {mover}]", "(what|how) far (was|were) TRAVEL",
       "{how_far} (path|ground|distance) [DONE] {mover} [HAVE] TRAVEL")  # fmt: skip
def _travelled(p: Parts, bag: dict[str, Any]) -> Any:
    return moved(p.args, p.one(str, ""), True)


@asked("[how long|how many {unit} long|how far|how big|how large] [BE|was|did] [DET] [total|whole|overall|entire] [CAMERA|ROBOT|{owner}] [POSS] PATH [(of|by) (the CAMERA|the ROBOT|{mover})] [that|which] [{mover}] [took|TRAVEL|MOVE|went|taken|made|takes|take] [by {mover}]",
       "(what|which) length (has|have|DO) {owner} PATH [have]",
       "[what is|what was|GIVE|measure|sum up] [DET] [total|overall|whole] [PATH|travel|travelled|traveled|trip|accumulated|cumulative|accumulated travel] (distance|length) [TRAVEL|of the PATH] [of {mover}|by {mover}]",
       "how long (a|of a) PATH DO {mover} (take|TRAVEL|make|MOVE)", "sum up (the movement|the path|the motion) of {mover}",
       "(what|how much) (DO|would|did|does) the odometer (gain|read|say|show|count) [for the (trip|way|path)]",
       "[what is|what was|GIVE] the (mileage|odometer reading|arc length of {owner} PATH)", "how many {unit} BE the PATH",
       "[what is|GIVE] (the distance|how much) [that] {mover} (TRAVEL|has TRAVEL)", "how many {unit} of PATH (lie|lies|are|are there)", "{how_far} of PATH was TRAVEL",
       "how many {unit} long is the PATH of {mover}", "measure {owner} PATH")  # fmt: skip
def _path(p: Parts, bag: dict[str, Any]) -> Any:
    if bag.keys() & {"from", "to", "metric"}:
        return None
    bag.pop("total", None)
    return moved([tuple(bag.items())], p.one(str, ""), True)


@asked("[what is|what was|what be|GIVE] [DET] [net|total|straight line|overall] [CAMERA] (displacement|movement|translation|net movement|net displacement|net translation|motion|shift|offset|displacement vector|baseline) [vector] [of {mover}]",
       "[what is|what was] {owner} [net] (displacement|translation|movement|position change)",
       "[how (large|big|much|long|far) BE|what is] [the] (magnitude|length|size|change|amount) of [the] (displacement vector|displacement|translation|position|movement|location|{owner} displacement|{owner} position|{owner} translation) [of {mover}]",
       "[what is] [the] [net] distance [that] {mover} MOVE", "[what is] [the] (net|straight line|direct|straight) distance [that] {mover} [HAVE] (TRAVEL|MOVE)",
       "[what is|how large is] [the] (difference|change|change in|difference in|offset) (in|of|between) {owner} (position|location|positions|locations)",
       "how (large|big|much|far) BE the change of position of {mover}",
       "[what BE|how (far|wide|large|big) BE] the (distance|offset|baseline|difference) between [the two|the] [CAMERA|{owner}] (positions|locations|poses|position|places|pose|viewpoints)",
       "[what BE] the (distance|offset|baseline) between [the two|the] [CAMERA|{owner}] (frames|images)",
       "how far apart BE [the [two]] [CAMERA|{owner}] (positions|locations|frames|places|poses|viewpoints)",
       "how far apart {owner} (positions|locations) {arg}* (are|were)", "how far apart (was|were) {mover}",
       "how many {unit} (lie|lies|are) between {owner} (positions|locations)", "the {owner} displacement", "{owner} displacement")  # fmt: skip
def _displacement(p: Parts, bag: dict[str, Any]) -> Any:
    return None if "time" in bag and "span" not in bag else moved([tuple(bag.items())], p.one(str, ""), False)


says("span", "at {moment_mark} and [at] {moment_mark}")(lambda a, b: T.Span(begin=a, end=b))
says("span", "since {moment}")(lambda x: T.Span(begin=x, end=T.Now()))


@asked("[what is|GIVE] [the] distance from [the] START")
def _from_start(p: Parts, bag: dict[str, Any]) -> Any:
    return moved(p.args, "", False)


# ---- how it turned, where it looks, how fast it was

HOW_MUCH = "(how much|how far round|how big a turn|how large a turn|how many {unit} of (turn|rotation|turning)|in {unit} how much|how many {unit} round|how far|[by] how many {unit}|[by|through|about|over] (what|which) angle|how large an angle|[by] how strongly|how sharply|through how many {unit}|by how much|how big an angle|how much of an angle)"


@asked(f"{HOW_MUCH} {{arg}}* {DONE} {{mover}} [been] TURN [itself]", f"{HOW_MUCH} {{mover}} [HAVE|was] TURN",
       f"{HOW_MUCH} {DONE} {{owner}} (orientation|heading|direction|viewing direction|view direction) (change|differ|changed|rotate|vary)",
       "how (large|big|much|great|strong) BE [the] (rotation|turn|change of heading|change of direction|change in heading|change in orientation|change of orientation|angle of rotation|rotation angle) [of {mover}]",
       f"{HOW_MUCH} [rotation|of a rotation|of a turn|turning] [BE there|did {{mover}} (undergo|make|perform)]",
       f"{HOW_MUCH} BE {{owner}} (orientation|heading|viewing direction)", "{mover} TURN by (how much|how many {unit}|what angle)", f"{HOW_MUCH} BE the (rotation|turn)",
       f"{HOW_MUCH} {DONE} {{owner}} (view|camera view|attitude|pose|view direction) [direction] (turn|rotate|change|differ|changed|rotated|turned)",
       f"{HOW_MUCH} {DONE} {{mover}} (make|TURN through|TURN round|TURN [by])",
       f"{HOW_MUCH} {DONE} the (heading|orientation|viewing direction|view direction) [of {{mover}}] change",
       f"{HOW_MUCH} (lies|lie|are|is|happened|are there|is there|occurred|took place) [between] [the|{{owner}}] [the] [two] [orientation|orientations|viewing directions|headings|heading|views]",
       "[what is] [the] [total] [relative] (rotation|turning|turn|rotation angle|turning angle) [angle] [of|between] [the|{owner}] [two] [views|poses|view|frames]",
       f"did {{mover}} TURN {{arg}}* and {HOW_MUCH}", f"{HOW_MUCH} has {{mover}} (spun|turned|swung|rotated) (round|around)",
       f"compare {{t}} and {{t}} [,] {HOW_MUCH} did {{mover}} TURN", f"{HOW_MUCH} {{owner}} (attitude|heading|orientation) differs",
       "[{mover}] (yaw|heading|orientation) change {t} {t}")  # fmt: skip
def _turned(p: Parts, bag: dict[str, Any]) -> Any:
    moments, unit = p.all(T.Moment), p.one(str, "")
    if len(moments) == 2:
        bag["span"] = T.Span(begin=moments[0], end=moments[1])
    if "span" not in bag and not p.mover and "deg" not in (unit, bag.get("unit")):
        return None
    if unit:
        bag.setdefault("unit", unit)
    axis = bag.pop("axis", None)
    bag.pop("total", None)
    if axis not in (None, M.Axis.LEFT) or set(bag) - {"unit", "span"}:
        return None
    return A.Value(of=M.Turn(about_up=axis is not None))


@asked("[what BE|GIVE] [the|{owner}] [total|net] (yaw change|change in yaw|change of yaw|yaw rotation|turn about the vertical) [of {mover}]",
       "how much did [the|{owner}] yaw [of {mover}] change", "[by] how many {unit} did [the|{owner}] yaw [of {mover}] change", "yaw change {t} {t}", roles=("span", "unit"))  # fmt: skip
def _yaw_change(p: Parts, bag: dict[str, Any]) -> Any:
    if moments := p.all(T.Moment):
        bag["span"] = T.Span(begin=moments[0], end=moments[1])
    if unit := p.one(str):
        bag["unit"] = unit
    return A.Value(of=M.Turn(about_up=True)) if "span" in bag else None


@asked("[by] how (much|far|high) did {mover} (rise|climb|ascend|go upwards|lift off)", "[by] how many {unit} did {mover} (rise|climb|ascend)", roles=("span", "unit"))
def _rose(p: Parts, bag: dict[str, Any]) -> Any:
    if unit := p.one(str):
        bag["unit"] = unit
    return A.Value(of=M.Shift(axis=M.Axis.UP))


@asked("did {mover} TURN [to the] left or [to the] right", "[in] (what|which) (direction|way) did {mover} TURN", "did {mover} TURN [to the] right or [to the] left", roles=("span",))
def _turned_to(p: Parts, bag: dict[str, Any]) -> Any:
    signed = all_finished([A.Value(of=M.Turn(about_up=True))], bag)
    return Refused("the side is the sign of the angle turned to the left: ask for that", tuple(signed))


LOOKING = "(facing|looking|pointing|pointed|heading|headed|oriented|aimed|turned|face|look|point)"


@asked(f"[in|to|into] (what|which) (way|direction) (BE|DO) {{mover}} {LOOKING} [in|to|at]", "where (BE|DO) {mover} (facing|looking|pointing|pointed|look|aimed) [to|at]",
       "what BE [the] (heading|yaw|yaw angle|orientation) [of {mover}]", "[{mover}] (heading|yaw) [{at_mark}]", "[the] [current|present] (heading|yaw)")  # fmt: skip
def _heading(p: Parts, bag: dict[str, Any]) -> Any:
    return None if "span" in bag else A.Value(of=M.Heading())


@asked("(how fast|at (what|which) speed) [BE|DO|HAVE|was] {mover} [been] [MOVE|TRAVEL]", "(how fast|at what speed) {mover} [HAVE|was|is] (MOVE|TRAVEL)",
       "how fast [BE|DO] {mover} [MOVE|TRAVEL] {on_average}", "[{mover}] speed [{at_mark}]", "[the] [current|present] (speed|velocity)")  # fmt: skip
def _speed(p: Parts, bag: dict[str, Any]) -> Any:
    return A.Value(of=M.MeanSpeed() if "span" in bag or p.one(str) == "mean" else M.Speed())


says("on_average", "on average")(lambda: "mean")


STILL = "(standing still|still|stationary|stopped|not moving|standing|at rest|motionless|halted|parked)"


@asked(f"BE {{mover}} {STILL}", f"{{mover}} BE {STILL}", "DO {mover} (stand still|stop)", "did {mover} not move", negated=True)
def _still(p: Parts, bag: dict[str, Any]) -> Any:
    return None if "span" in bag else A.Moving()


@asked("BE {mover} (moving|driving|in motion|travelling|going)", "{mover} BE moving")
def _moving(p: Parts, bag: dict[str, Any]) -> Any:
    return None if "span" in bag else A.Moving()


says("how_long", "[for] how long", "how much time", "[for] how much (of the time|time)", "how long a time")(lambda: "")
says("how_long", "[for|by|over] how many {unit}", "what time")(lambda unit="": unit)


@asked(f"{{how_long}} (BE|DO) {{mover}} (stand still|stop|{STILL[1:-1]}|stood still|rest|spend standing still)")
def _stood(p: Parts, bag: dict[str, Any]) -> Any:
    return spent(p, bag, False)


@asked("{how_long} (BE|DO) {mover} (MOVE|TRAVEL|in motion|spend moving|spend driving)", "{how_long} HAVE {mover} (MOVE|TRAVEL)")
def _drove(p: Parts, bag: dict[str, Any]) -> Any:
    return spent(p, bag, True)


@asked(f"{{how_long}} HAVE {{mover}} been {STILL}")
def _standing_since(p: Parts, bag: dict[str, Any]) -> Any:
    return until_now(p, bag, False)


@asked("{how_long} HAVE {mover} been (MOVE|TRAVEL|in motion)")
def _driving_since(p: Parts, bag: dict[str, Any]) -> Any:
    return until_now(p, bag, True)


def until_now(p: Parts, bag: dict[str, Any], moving: bool) -> Any:
    """ "How long have you been driving?" asks since when, unless it says in what time."""
    time = spent(p, bag, moving)
    if not time or any(q.ask.of.span != T.WHOLE for q in time):
        return time
    now = Query(ask=A.Moving(), negated=not moving)
    return Refused("this asks since when: ask whether it is so now, or for the time altogether", (*time, now))


def spent(p: Parts, bag: dict[str, Any], moving: bool) -> Any:
    """How long it moved, or stood."""
    if bag.keys() & {"from", "to", "axis"}:
        return None
    if unit := p.one(str):
        bag["unit"] = unit
    return all_finished([A.Value(of=M.TimeSpent(moving=moving))], bag)


@asked("[in|to|into|towards|along] (what|which) (way|direction|side|axis) {arg}* (BE|DO|HAVE) {mover} [mostly|MAIN] [MOVE|TRAVEL|take|displaced] [in|to] [MAIN]",
       "[what is|what was|GIVE|GIVE me] [DET] [MAIN] (direction|component) of [the] [MAIN] [{owner}|the] (movement|motion|travel|translation|displacement|CAMERA movement|shift) [of {mover}]",
       "where (BE|DO|HAVE) {mover} [MAIN] (MOVE|TRAVEL) [to|towards]", "[in] (what|which) (way|direction) {mover} [HAVE|was] [MAIN] (MOVE|TRAVEL) [in|to]",
       "{mover} [HAVE|was] (MOVE|TRAVEL) [MAIN] [in|to] (what|which) (way|direction)",
       "[what is|what was|MAIN] [the] [MAIN] (travel|motion|movement|moving) direction [of {mover}]",
       "[did|has|was|is|does|were] {mover} [MAIN] (MOVE|TRAVEL|moving) [MAIN] {sides}", "[how|where] (BE|DO|HAVE) {mover} [MAIN] (MOVE|TRAVEL) [to] {sides}",
       "[how|where] (BE|DO|HAVE) {mover} [MAIN] (MOVE|TRAVEL) [to] {arg}* {sides}", "(is|was) (the|{owner}) (motion|movement) [MAIN] {arg}* [MAIN] {sides}",
       "[describe] the direction [in which|that] {mover} [MAIN] (MOVE|TRAVEL) [in]", "the (motion|movement) was [MAIN] in (what|which) direction",
       "(did|has) {mover} {sides}", "which direction (describes|best describes) {owner} (motion|movement)")  # fmt: skip
def _moved_direction(p: Parts, bag: dict[str, Any]) -> Any:
    begin, end, span = bag.pop("from", None), bag.pop("to", None), bag.get("span")
    if span is not None and bag.get("time") == span.begin:
        bag.pop("time")
    if isinstance(begin, O.Camera) and begin.at is not None:
        if isinstance(end, O.Camera) and end.at is not None:
            bag["span"] = T.Span(begin=begin.at, end=end.at)
        elif span is not None and span.begin == T.Start():
            bag["span"] = T.Span(begin=begin.at, end=span.end)
    elif begin is not None or end is not None:
        return None
    bag.pop("axis", None)
    return None if bag.keys() - {"span"} else A.MotionDirection()


says("sides", "{side_word} or {side_word}", "{side_word} {side_word} or {side_word}", "{side_word} {side_word} {side_word} or {side_word}",
     "{side_word} {side_word} {side_word} {side_word} {side_word} or {side_word}", "more {side_word} or more {side_word}")(lambda *_: True)
says("side_word", "[to the|to its] (left|right|front|back|rear)",
     "(forward|forwards|backward|backwards|up|down|upward|downward|upwards|downwards|advance|retreat|go sideways|sideways|ahead|back|left|right)")(lambda: True)
