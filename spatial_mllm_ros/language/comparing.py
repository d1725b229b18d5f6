"""Sentences that set one measure against another: of two pairs, at two moments, of two sides of a thing; ratios, differences, bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from spatial_mllm_ros.language.additions import FLIPPED
from spatial_mllm_ros.language.motion import moved
from spatial_mllm_ros.language.phrases import GRAMMAR, Bound, Quantity, Things, says
from spatial_mllm_ros.language.scales import LESS, MORE, Adjective, distance, measures
from spatial_mllm_ros.language.sentences import (
    COMPARED,
    END,
    OPPOSITE,
    Parts,
    Refused,
    Than,
    all_finished,
    asked,
    bounded,
    compared,
    finished,
    parted,
)
from spatial_mllm_ros.language.several import placed
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.query import Query

EXTENDED = O.Box | O.Object | O.Room

# ---- how far two are apart, against how far two others are


@says("pair", "[between] {thing} and {thing}", "from {thing} to {thing}")
def _pair(x: O.Operand, y: O.Operand) -> M.Measure | None:
    return distance(x, y) if x != y else None


says("apart", "(further|farther|more) [apart|from each other]")(lambda: MORE)
says("apart", "(closer|nearer|less) [together|to each other|apart|far apart]")(lambda: LESS)


@asked("BE {pair} {apart} than {pair} [are]", "is it {apart} {pair} than {pair}", "BE {pair} {apart} than {quantity} [apart]", "is it {bound} {pair}", exact=True)
def _pairs(p: Parts, _: Any) -> Any:
    of, *other = p.all(M.Measure)
    if other:
        return A.Compare(a=of, comparison=COMPARED[p.one(int)], b=other[0])
    return list(bounded(of, p.one(Bound) or Bound((COMPARED[p.one(int)], p.one(Quantity)))))


@asked("which [two|pair|ones|points|of the two pairs] BE {apart} {pair} or {pair}", "BE {pair} or {pair} {apart}", exact=True)
def _which_pair(p: Parts, _: Any) -> Any:
    return A.Extreme(of=tuple(p.all(M.Measure)), which=END[p.one(int)])


@asked("is it {more_adj} [from {thing}] to {thing} than to {thing}", exact=True)
def _nearer_to(p: Parts, _: Any) -> Any:
    *start, x, y = p.things
    adj = p.one(Adjective)
    one, other = (next(measures("far", {**({"from": start[0]} if start else {}), "subj": thing}), None) for thing in (x, y))
    return A.Compare(a=one, comparison=COMPARED[adj.sign], b=other) if one and other and adj.scale == "far" else None


# ---- the same at two moments


def _then(scale: str, bag: dict[str, Any], at: T.Moment) -> Iterator[M.Measure]:
    core, floats = parted({**bag, "time": at})
    for measure in measures(scale, core):
        query = finished(A.Value(of=measure), floats)
        if query is not None and isinstance(query.ask, A.Value):
            yield query.ask.of


def _exceeds(x: M.Measure, y: M.Measure) -> A.Ask:
    """By how much; of heights it is the one above the other."""
    if isinstance(x, M.Height) and isinstance(y, M.Height) and x.above == y.above == O.Floor():
        return A.Value(of=M.Height(of=x.of, above=y.of))
    return A.Difference(a=x, b=y)


def _at_two_moments(make: Any, *patterns: str) -> None:
    @asked(*patterns)
    def act(p: Parts, bag: dict[str, Any]) -> Any:
        adj, unit = p.one(Adjective), p.one(str) or bag.pop("unit", "")
        if bag.keys() & {"time", "span", "subj"}:
            return None
        pairs = zip(*(_then(adj.scale, {**bag, "subj": p.things[0]}, at) for at in p.all(T.Moment)), strict=False)
        return all_finished([make(adj, x, y) for x, y in pairs if type(x) is type(y) and x != y], {"unit": unit})


_at_two_moments(lambda adj, x, y: A.Extreme(of=(x, y), which=END[adj.sign]), "BE {thing} {more_adj} {arg}* [at] {moment_mark} or [at] {moment_mark}",
                "[at] (which moment|which time|when) BE {thing} {more_adj} {arg}* [at] {moment_mark} or [at] {moment_mark}")  # fmt: skip
_at_two_moments(lambda adj, x, y: _exceeds(*((x, y) if adj.sign == MORE else (y, x))), "[by] (how much|how many {unit}) {more_adj} BE {thing} {arg}* at {moment_mark} than [at] {moment_mark}")

# ---- one thing against another, and two sides of one


def both(scale: str, things: Any, bag: dict[str, Any], make: Any) -> Any:
    """What is made of the same measure of two things."""
    core, floats = parted(bag)
    if len(things) != 2 or "subj" in core:
        return None
    pairs = zip(*(measures(scale, {**core, "subj": x}) for x in things), strict=False)
    return all_finished([make(x, y) for x, y in pairs if type(x) is type(y)], floats)


@asked("BE {thing} {more_adj} than [it is] {adj}", exact=True)
def _than_itself(p: Parts, _: Any) -> Any:
    (thing,), (more, adj) = p.things, p.all(Adjective)
    if not isinstance(thing, EXTENDED) or adj.sign != MORE:
        return None
    ours, theirs = (list(measures("tall" if x.scale == "high" else x.scale, {"subj": thing})) for x in (more, adj))
    return A.Compare(a=ours[0], comparison=COMPARED[more.sign], b=theirs[0]) if len(ours) == len(theirs) == 1 else None


GRAMMAR.table("times", {"twice": 2.0, "half": 0.5, "three times": 3.0, "double": 2.0, "four times": 4.0, "thrice": 3.0})
says("factor", "{times} [as]", "{amount_number} times [as]")(lambda factor: factor)


@asked("BE {thing} [{comparison}|exactly] {factor} as {adj} {arg}* as {thing}", "(BE|DO) {thing} {comparison} as {adj} {arg}* as {thing}")
def _times_as(p: Parts, bag: Any) -> Any:
    adj, comparison, factor = p.one(Adjective), p.one(A.Comparison, A.Comparison.ABOUT), p.one(float)
    if factor is None and comparison not in (A.Comparison.AT_LEAST, A.Comparison.AT_MOST, A.Comparison.ABOUT):
        return None
    if adj.sign != MORE:
        if factor is not None:
            return None
        comparison = FLIPPED[comparison]
    return both(adj.scale, p.things, bag, lambda x, y: A.Compare(a=x, comparison=comparison, b=y, factor=factor or 1.0))


@asked("(BE|DO) {thing} (just as|as|exactly as|equally) {adj} [away] {arg}* as {thing}", "BE {list} (equally|the same|just as) {adj} [away]", "(BE|DO) {list} [LIE] (at|of|on) the same {scale_noun}",
       "BE {thing} (at|on|of) the same {scale_noun} as {thing}", "(do|does) {list} have the same {scale_noun}", "BE {thing} the same {scale_noun} as {thing}")  # fmt: skip
def _as(p: Parts, bag: Any) -> Any:
    things, adj = p.things or p.one(Things), p.one(Adjective)
    return both(placed(adj.scale if adj else p.one(str), things), things, bag, lambda x, y: A.Compare(a=x, comparison=A.Comparison.ABOUT, b=y))


@asked("(BE|DO) {thing} (not|n't) (as|so) {adj} [away] {arg}* as {thing}")
def _not_as(p: Parts, bag: Any) -> Any:
    adj = p.one(Adjective)
    return both(adj.scale, p.things, bag, lambda x, y: A.Compare(a=x, comparison=COMPARED[-adj.sign], b=y))


@says("swapped", "{thing}")
def _swapped(thing: O.Operand) -> Any:
    """A thing that is named after the one it is compared with."""
    return Things((thing,))


@asked("how many times as {adj} {arg}* BE {thing} {arg}* as {thing}", "how many times {more_adj} {arg}* BE {thing} {arg}* than {thing}", "how many times as {adj} {arg}* as {thing} BE {swapped}",
       "[what BE|GIVE] [the] ratio (of|between) [the] {scale_noun} of {list}", "[what BE|GIVE] [the] ratio of [the] {scale_noun} of {thing} to (that|the one) of {thing}", "[what BE|GIVE] [the] {scale_noun} ratio (of|between) {list}")  # fmt: skip
def _ratio(p: Parts, bag: Any) -> Any:
    things, adj = [*(p.one(Things) or ()), *p.things], p.one(Adjective, Adjective(p.one(str, ""), MORE))
    scale = "tall" if adj.scale in ("height", "high") and all(isinstance(x, EXTENDED) for x in things) else adj.scale
    return both(scale, things, bag, lambda x, y: A.Difference(a=x, b=y, ratio=True)) if adj.sign == MORE else None


# ---- measures as noun phrases, set against each other


@says("core", "{arg}* [what BE|GIVE] [the] difference between {m} and {m} {arg}*")
def _difference(*values: Any) -> Any:
    x, y = (v for v in values if isinstance(v, tuple) and v and isinstance(v[0], M.Measure))
    bag = Parts(v for v in values if v is not x and v is not y).bag()
    if bag is None or x[1] or y[1]:
        return None
    p, q = x[0], y[0]
    if isinstance(p, M.Height) and isinstance(q, M.Height) and p.above == q.above and p.of != q.of:
        return all_finished([A.Value(of=M.Distance(a=p.of, b=q.of, metric=M.Metric.VERTICAL))], bag)
    return all_finished([A.Difference(a=p, b=q)], bag)


@says("core", "BE {m} {m_comparison} {m}", "BE {m} {m_comparison} (that|the one) of {thing}", "BE {m} {m_comparison} (that|the one|it is) {pair}")
def _compare_measures(x: Any, comparison: A.Comparison, y: Any) -> Any:
    if isinstance(y, M.Measure):
        y = (y, ())
    if isinstance(y, O.Operand):
        subject = getattr(x[0], "of", None)
        if subject is None or x[1] or type(subject) is not type(y):
            return None
        y = (replace(x[0], of=y), ())
    return all_finished([A.Compare(a=x[0], comparison=comparison, b=y[0])], {}) if not x[1] and not y[1] else None


# ---- bounds


def within_bounds(p: Parts, bag: dict[str, Any], scale: str) -> Any:
    """Whether a scale of the thing (or the two things) that is asked about is within bounds."""
    things = [*p.things, *p.all(Things)]
    if things:
        bag["subj"] = things[0]
        if scale == "far" and "of" in bag and "from" not in bag:
            bag["from"] = bag.pop("of")
    core, floats = parted(bag)
    return all_finished([ask for m in measures(scale, core) for ask in bounded(m, p.one(Bound))], floats)


@asked("BE {thing} [LIE] {bound} [AWAY|away|off|apart]", "{thing} BE {bound} [away]", "BE {list} [LIE] {bound} [apart|away from each other|from each other|of each other]", "(is there|are there) {bound} [of space|of distance]",
       "DO {thing} LIE {bound} [away]", "BE {list} {bound} {arg}* apart")  # fmt: skip
def _so_far(p: Parts, bag: Any) -> Any:
    return within_bounds(p, bag, "far")


@asked("BE {thing} not {bound} [away|off]", "BE {list} not {bound} [apart]")
def _not_so_far(p: Parts, bag: Any) -> Any:
    found = within_bounds(p, bag, "far")
    return type(found)(
        replace(q, ask=replace(q.ask, comparison=OPPOSITE[q.ask.comparison])) if isinstance(q.ask, A.Threshold) and q.ask.comparison in OPPOSITE else replace(q, negated=True)
        for q in found
    )  # fmt: skip


@asked("(BE|DO) {thing} {bound} {adj}", "(BE|DO) {thing} {bound} in (height|width|length|size)")
def _so_wide(p: Parts, bag: Any) -> Any:
    adj = p.one(Adjective)
    return within_bounds(p, bag, adj.scale) if adj is not None and adj.sign == MORE and adj.scale != "far" else None


GRAMMAR.table("above_below", {w: s for s, ws in {MORE: "above, over, higher than", LESS: "below, under, lower than, beneath"}.items() for w in ws.split(", ")})


@asked("{arg}* (BE|DO) {thing} [LIE] {above_below} {thing} by {bound}", "{arg}* (BE|DO) {thing} [LIE] {bound} {above_below} {thing}", exact=True)
def _above_by(p: Parts, _: Any) -> Any:
    x, y = p.things if p.one(int) == MORE else reversed(p.things)
    return list(bounded(M.Height(of=x, above=y), p.one(Bound)))


@asked("(is|are) {thing} (far|near|close) [away|off] {arg}*", exact=True, roles=("from", "to"))
def _vague(p: Parts, bag: dict[str, Any]) -> Any:
    ask = A.Value(of=M.Distance(a=p.things[0], b=bag.get("from", bag.get("to", O.Camera()))))
    return Refused("this has no threshold: say how many metres", tuple(q for q in all_finished([ask], {}) if isinstance(q, Query)))


def _went(path: bool, *patterns: str) -> None:
    @asked(*patterns)
    def act(p: Parts, _: Any) -> Any:
        return all_finished([ask for q in moved(p.args, "", path) or () for ask in bounded(q.ask.of, p.one(Bound))], {})


_went(True, "(DO|HAVE|BE) {mover} [been] TRAVEL {bound}")
_went(False, "(DO|HAVE|BE) {mover} [been] MOVE [by|for] {bound} [away|off]")


@asked("(DO|HAVE|BE) {mover} [been] TURN [itself] [by|through] {bound}", roles=("span",))
def _turned(p: Parts, _: Any) -> Any:
    return list(bounded(M.Turn(), p.one(Bound)))


@asked("(was|were|has|have|did) {mover} [ever] [been|come|get|got] {more_adj} than {quantity} (to|from) {thing}", roles=("span",))
def _ever_closer(p: Parts, _: Any) -> Any:
    if p.one(Adjective) != Adjective("far", LESS):
        return None
    return list(bounded(M.ClosestApproach(to=p.things[0]), Bound((A.Comparison.LESS, p.one(Quantity)))))


# ---- by how much


def differing(adj: Adjective, thing: O.Operand, bag: dict[str, Any], than: Any) -> Any:
    """By how much a scale says more (or less) of one thing than of another."""
    scale, sign = adj
    core, floats = parted(bag)
    if "subj" in core:
        return None
    if than[0][0] == "subj" and ((scale == "up" and not core) or (scale in ("high", "tall", "far", "up") and core == {"above": O.Floor()})):
        x, y = (thing, than[0][1]) if sign == MORE else (than[0][1], thing)
        return all_finished([A.Value(of=M.Height(of=x, above=y))], floats)
    found = [a for a in compared(scale, MORE, {**core, "subj": thing}, than) if isinstance(a, A.Compare)]
    return all_finished([A.Difference(a=a.a, b=a.b) if sign == MORE else A.Difference(a=a.b, b=a.a) for a in found], floats)


@asked("[by] (how much|how far|how many {unit}) {more_adj} (BE|DO) {thing} [LIE] {arg}* {than_marked}", "[by] (how much|how far|how many {unit}) {more_adj} {thing} (BE|LIE) {arg}* {than_marked}",
       "[by] (how much|how far|how many {unit}) (BE|DO) {thing} [LIE] {more_adj} {arg}* {than_marked}", "[by] (how much|how many {unit}) {more_adj} {arg}* {than_marked} {arg}* (BE|is) {thing}",
       "[by] (how much|how many {unit}) {more_adj} {arg}* (BE|is) {thing} {arg}* {than_marked}")  # fmt: skip
def _how_much_more(p: Parts, bag: dict[str, Any]) -> Any:
    than, unit = p.one(Than).of, p.one(str)
    if not (isinstance(than[0], tuple) and than[0][0] in ("subj", "from", "to")) or (unit and bag.setdefault("unit", unit) != unit):
        return None
    return differing(p.one(Adjective), p.things[0], bag, than)


def _from(swap: bool, *patterns: str) -> None:
    @asked(*patterns, exact=True)
    def act(p: Parts, bag: dict[str, Any]) -> Any:
        thing, other = reversed(p.things) if swap else p.things
        return differing(p.one(Adjective), thing, {"unit": u} if (u := p.one(str)) else {}, (("subj", other),)) if p.one(Adjective).scale == "up" else None


_from(True, "from {thing} (how much|how many {unit}) {more_adj} (BE|LIE) {thing}", "(compared with|compared to|relative to) {thing} [by] (how much|how many {unit}) {more_adj} (BE|LIE) {thing}")
_from(False, "(how much|how many {unit}) {more_adj} (BE|LIE) {thing} (compared with|compared to|relative to|from) {thing}")


def _than_other(swap: bool, pattern: str) -> None:
    @asked(pattern)
    def act(p: Parts, bag: dict[str, Any]) -> Any:
        thing, other = reversed(p.things) if swap else p.things
        core, floats = parted(bag)
        scale, sign = p.one(Adjective)
        return None if "subj" in core else all_finished(compared(scale, sign, {**core, "subj": thing}, (("subj", other),)), floats)


_than_other(True, "(compared with|compared to) {thing} BE {thing} {more_adj}")
_than_other(False, "BE {thing} {more_adj} {arg}* (compared with|compared to) {thing}")
DIFFERENCE = "(height difference|difference in height|difference between the heights|vertical difference|elevation difference|difference in heights|difference in elevation|vertical distance|vertical gap|vertical separation|vertical offset|elevation change)"


@asked(f"[what is|GIVE] [the] {DIFFERENCE} [in height|in elevation|in heights|between the heights] (between|of|for|in height between|in height of) {{list}}", f"how (big|large|much|great) is the {DIFFERENCE} (between|of) {{list}}",
       "how much do {list} differ in (height|elevation)", "how much do the heights of {list} differ")  # fmt: skip
def _height_difference(p: Parts, bag: Any) -> Any:
    things = p.one(Things)
    of = distance(*things) if len(things) == 2 else None
    return A.Value(of=replace(of, metric=M.Metric.VERTICAL) if isinstance(of, M.Distance) else of) if of else None



