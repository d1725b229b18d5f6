"""Sentences that set one measure against another: of two pairs, at two moments, of two sides of a thing; ratios, orders, bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from spatial_mllm_ros.language.happenings import moved
from spatial_mllm_ros.language.phrases import FLIPPED, GRAMMAR, Arg, Bound, Quantity, Things, says
from spatial_mllm_ros.language.scales import LESS, MORE, Adjective, How, distance, measures
from spatial_mllm_ros.language.sentences import Parts, all_finished, bounded, finished, over_list, parted
from spatial_mllm_ros.queries import asks as a
from spatial_mllm_ros.queries import measures as m
from spatial_mllm_ros.queries.moments import Moment
from spatial_mllm_ros.queries.operands import Box, Floor, Object, Operand, Point, Room

COMPARED = {MORE: a.Comparison.MORE, LESS: a.Comparison.LESS}
END = {MORE: a.Which.LARGEST, LESS: a.Which.SMALLEST}

# ---- how far two are apart, against how far two others are


@says("pair", "{thing} and {thing}", "from {thing} to {thing}")
def _pair(x: Operand, y: Operand) -> m.Measure | None:
    return distance(x, y) if x != y else None


says("apart", "(further|farther|more) [apart|from each other]")(lambda: MORE)
says("apart", "(closer|nearer|less) [together|to each other|apart|far apart]")(lambda: LESS)


@says("core", "BE {pair} {apart} than {pair} [are]", "is it {apart} {pair} than {pair}")
def _pairs(*values: Any) -> Any:
    parts = Parts(values)
    x, y = parts.all(m.Measure)
    return all_finished([a.Compare(a=x, comparison=COMPARED[parts.one(int)], b=y)], {})


@says("core", "BE {pair} {apart} than {quantity} [apart]")
def _pair_bound(x: m.Measure, sign: int, quantity: Quantity) -> Any:
    return all_finished(bounded(x, Bound((COMPARED[sign], quantity))), {})


@says("core", "is it {bound} {pair}")
def _pair_within(bound: Bound, x: m.Measure) -> Any:
    return all_finished(bounded(x, bound), {})


@says("core", "which [two|pair|ones|points|of the two pairs] BE {apart} {pair} or {pair}", "BE {pair} or {pair} {apart}")
def _which_pair(*values: Any) -> Any:
    parts = Parts(values)
    return all_finished([a.Extreme(of=tuple(parts.all(m.Measure)), which=END[parts.one(int)])], {})


@says("core", "is it {more_adj} to {thing} than to {thing}", "is it {more_adj} [from {thing}] to {thing} than to {thing}")
def _nearer_to(adj: Adjective, *things: Any) -> Any:
    *start, x, y = Parts(things).things
    if adj.scale != "far":
        return None
    bag = {"from": start[0]} if start else {}
    one, other = (next(measures("far", {**bag, "subj": thing}), None) for thing in (x, y))
    return all_finished([a.Compare(a=one, comparison=COMPARED[adj.sign], b=other)], {}) if one and other else None


# ---- the same at two moments


def _then(scale: str, bag: dict[str, Any], at: Moment) -> Iterator[m.Measure]:
    core, floats = parted({**bag, "time": at})
    for measure in measures(scale, core):
        query = finished(a.Value(of=measure), floats)
        if query is not None and isinstance(query.ask, a.Value):
            yield query.ask.of


def _exceeds(x: m.Measure, y: m.Measure) -> a.Ask:
    """By how much; of heights it is the one above the other."""
    if isinstance(x, m.Height) and isinstance(y, m.Height) and x.above == y.above == Floor():
        return a.Value(of=m.Height(of=x.of, above=y.of))
    return a.Difference(a=x, b=y)


def _at_two_moments(make: Any, *patterns: str) -> None:
    @says("core", *patterns)
    def act(*values: Any) -> Any:
        parts = Parts(values)
        adj, bag = parts.one(Adjective), parts.bag(subj=parts.one(Operand), unit=parts.one(str))
        if bag is None or "time" in bag or "span" in bag:
            return None
        unit = {"unit": bag.pop("unit")} if "unit" in bag else {}
        pairs = zip(*(_then(adj.scale, bag, at) for at in parts.all(Moment)), strict=False)
        return all_finished([make(adj, x, y) for x, y in pairs if type(x) is type(y) and x != y], unit)


_at_two_moments(
    lambda adj, x, y: a.Extreme(of=(x, y), which=END[adj.sign]),
    "{arg}* BE {thing} {more_adj} {arg}* [at] {moment_mark} or [at] {moment_mark}",
    "[at] (which moment|which time|when) BE {thing} {more_adj} {arg}* [at] {moment_mark} or [at] {moment_mark}",
)
_at_two_moments(
    lambda adj, x, y: _exceeds(*((x, y) if adj.sign == MORE else (y, x))),
    "{arg}* [by] (how much|how many {unit}) {more_adj} BE {thing} {arg}* at {moment_mark} than [at] {moment_mark}",
)

# ---- sides of one thing, and ratios


@says("core", "BE {thing} {more_adj} than [it is] {adj}")
def _than_itself(thing: Operand, more: Adjective, adj: Adjective) -> Any:
    if not isinstance(thing, Box | Object | Room):
        return None
    found = [list(measures("tall" if x.scale == "high" else x.scale, {"subj": thing})) for x in (more, adj)]
    ours, theirs = found
    if len(ours) != 1 or len(theirs) != 1 or adj.sign != MORE:
        return None
    return all_finished([a.Compare(a=ours[0], comparison=COMPARED[more.sign], b=theirs[0])], {})


@says(
    "core",
    "{arg}* how many times as {adj} {arg}* BE {thing} {arg}* as {thing} {arg}*",
    "{arg}* how many times {more_adj} {arg}* BE {thing} {arg}* than {thing} {arg}*",
    "{arg}* how many times as {adj} {arg}* as {thing} BE {swapped} {arg}*",
)
def _times(*values: Any) -> Any:
    parts = Parts(values)
    things, adj, bag = parts.things, parts.one(Adjective), parts.bag()
    if parts.one(Swapped):
        things = [parts.one(Swapped).thing, *things]
    return None if bag is None or adj.sign != MORE else _ratio(adj.scale, things, bag)


class Swapped:
    """A thing that is named after the one it is compared with."""

    def __init__(self, thing: Operand) -> None:
        self.thing = thing


says("swapped", "{thing}")(Swapped)


@says(
    "core",
    "{arg}* [what BE|GIVE] [the] ratio (of|between) [the] {scale_noun} of {list} {arg}*",
    "{arg}* [what BE|GIVE] [the] ratio of [the] {scale_noun} of {thing} to (that|the one) of {thing} {arg}*",
    "{arg}* [what BE|GIVE] [the] {scale_noun} ratio (of|between) {list} {arg}*",
)
def _ratio_of(*values: Any) -> Any:
    parts = Parts(values)
    bag = parts.bag()
    return None if bag is None else _ratio(parts.one(str), [*parts.things, *(parts.one(Things) or ())], bag)


def _ratio(scale: str, things: list[Operand], bag: dict[str, Any]) -> Any:
    core, floats = parted(bag)
    if len(things) != 2 or "subj" in core:
        return None
    scale = "tall" if scale in ("height", "high") and all(isinstance(x, Box | Object | Room) for x in things) else scale
    pairs = zip(*(measures(scale, {**core, "subj": x}) for x in things), strict=False)
    return all_finished([a.Difference(a=x, b=y, ratio=True) for x, y in pairs if type(x) is type(y)], floats)


@says("core", "{arg}* [what BE|GIVE] [the] difference between {m} and {m} {arg}*")
def _difference(*values: Any) -> Any:
    x, y = (v for v in values if isinstance(v, tuple) and v and isinstance(v[0], m.Measure))
    parts = Parts(v for v in values if v is not x and v is not y)
    bag = parts.bag()
    if bag is None:
        return None
    p, q = x[0], y[0]
    if isinstance(p, m.Height) and isinstance(q, m.Height) and p.above == q.above and p.of != q.of:
        return all_finished([a.Value(of=m.Distance(a=p.of, b=q.of, metric=m.Metric.VERTICAL))], bag)
    return all_finished([a.Difference(a=p, b=q)], bag)


@says("core", "BE {m} {m_comparison} {m}", "BE {m} {m_comparison} (that|the one) of {thing}")
def _compare_measures(x: Any, comparison: a.Comparison, y: Any) -> Any:
    if isinstance(y, Operand):
        subject = getattr(x[0], "of", None)
        if subject is None or x[1] or type(subject) is not type(y):
            return None
        y = (replace(x[0], of=y), ())
    return all_finished([a.Compare(a=x[0], comparison=comparison, b=y[0])], {}) if not x[1] and not y[1] else None


@says("core", "{arg}* (BE|DO) {thing} {comparison} as {adj} {arg}* as {thing} {arg}*")
def _at_least_as(*values: Any) -> Any:
    parts = Parts(values)
    (x, y), adj, bag = parts.things, parts.one(Adjective), parts.bag()
    comparison = parts.one(a.Comparison)
    if bag is None or "subj" in bag or comparison not in (a.Comparison.AT_LEAST, a.Comparison.AT_MOST, a.Comparison.ABOUT):
        return None
    core, floats = parted(bag)
    pairs = zip(measures(adj.scale, {**core, "subj": x}), measures(adj.scale, {**core, "subj": y}), strict=False)
    comparison = comparison if adj.sign == MORE else FLIPPED[comparison]
    return all_finished([a.Compare(a=p, comparison=comparison, b=q) for p, q in pairs if type(p) is type(q)], floats)


@says("core", "{arg}* (BE|DO) {thing} (not|n't) (as|so) {adj} [away] {arg}* as {thing} {arg}*")
def _not_as(*values: Any) -> Any:
    parts = Parts(values)
    (x, y), adj, bag = parts.things, parts.one(Adjective), parts.bag()
    if bag is None or "subj" in bag:
        return None
    core, floats = parted(bag)
    pairs = zip(measures(adj.scale, {**core, "subj": x}), measures(adj.scale, {**core, "subj": y}), strict=False)
    return all_finished([a.Compare(a=p, comparison=COMPARED[-adj.sign], b=q) for p, q in pairs if type(p) is type(q)], floats)


# ---- orders


GRAMMAR.table("first_end", {w: s for s, ws in {MORE: "biggest, largest, highest, longest, widest, tallest, farthest, furthest, greatest, deepest", LESS: "smallest, lowest, shortest, narrowest, nearest, closest, least, shallowest"}.items() for w in ws.split(", ")})  # fmt: skip


@says("core", "ORDERING [the|these] [boxes|points|objects] {list} by [their] {scale_noun} {arg}* [with|from|starting with] [the] {first_end} first")
def _order(*values: Any) -> Any:
    parts = Parts(values)
    scale, down = parts.one(str), parts.one(int) == MORE
    return over_list(lambda of: [a.Order(of=of, descending=down)], "high" if scale == "height" and isinstance(parts.one(Things)[0], Point) else scale, "subj", parts.one(Things), *parts.args)  # fmt: skip


@says("core", "ORDERING {list} [in order of|in order by|sorted by|ordered by] [their] {scale_noun} {arg}*")
def _order_of(*values: Any) -> Any:
    parts = Parts(values)
    scale, things = parts.one(str), parts.one(Things)
    scale = "high" if scale == "height" and isinstance(things[0], Point) else scale
    return over_list(lambda of: [a.Order(of=of)], scale, "subj", things, *parts.args)


@says("core", "{arg}* {how} (BE|DO) {end_of} {list} {arg}*", "{arg}* [what BE|GIVE] the {scale_noun} of the {most_adj} of {list} {arg}*")
def _of_the_most(*values: Any) -> Any:
    """How far the nearest of several is; how high the highest is."""
    parts = Parts(values)
    how, end, most = parts.one(How), parts.one(a.Which), parts.one(Adjective)
    unit = how.unit if how else ""
    scale = how.scale if how else parts.one(str)
    if most is not None:
        end = END[most.sign]
        if not {scale, most.scale} <= {"height", "high", "up", "tall"} and scale != most.scale:
            return None
        scale = most.scale
    elif scale != "far":
        return None
    args = [*parts.args, *([Arg("unit", unit)] if unit else [])]
    return over_list(lambda of: [a.Extreme(of=of, which=end, as_value=True)], scale, "subj", parts.one(Things), *args)


@says("core", "{arg}* [what BE|GIVE] [the] (mean|average) {scale_noun} (of|to) {list} {arg}*")
def _mean(*values: Any) -> Any:
    parts = Parts(values)
    return over_list(lambda of: [a.Mean(of=of)], parts.one(str), "subj", parts.one(Things), *parts.args)


@says("core", "which [of {list}] [came|comes|come|was|is] (APPEAR|SEEN|VISIBLE|into view) first [{list}]", "which [of {list}] (was|came|comes|came into view|comes into view|appeared|appears|did {mover} see) {event_first} [{list}]")
def _which_first(*values: Any) -> Any:
    things = Parts(values).all(Things)
    of = tuple(m.SeenTime(of=x, event=m.Event.FIRST) for x in things[0]) if len(things) == 1 else ()
    return all_finished([a.Extreme(of=of, which=a.Which.SMALLEST)], {}) if of else None


says("event_first", "first", "first (seen|into view|visible)")(lambda: True)

# ---- how far it went, and whether that was more than so much


@says(
    "core",
    "{arg}* (DO|HAVE|BE) {mover} [been] TRAVEL {bound} {arg}*",
)
def _travelled_more(*values: Any) -> Any:
    return _moved_more(values, True)


@says("core", "{arg}* (DO|HAVE|BE) {mover} [been] MOVE [by|for] {bound} [away|off] {arg}*")
def _went_more(*values: Any) -> Any:
    return _moved_more(values, False)


def _moved_more(values: Any, path: bool) -> Any:
    parts = Parts(values)
    found, bound = moved(parts.args, "", path), parts.one(Bound)
    return all_finished([ask for q in found or () for ask in bounded(q.ask.of, bound)], {})


@says("core", "{arg}* (DO|HAVE|BE) {mover} [been] TURN [itself] [by|through] {bound} {arg}*")
def _turned_more(*values: Any) -> Any:
    parts = Parts(values)
    bag = parts.bag(("span",))
    return None if bag is None else all_finished(bounded(m.Turn(), parts.one(Bound)), bag)


@says("core", "{arg}* (was|were|has|have|did) {mover} [ever] [been|come|get|got] {more_adj} than {quantity} (to|from) {thing} {arg}*")
def _ever_closer(*values: Any) -> Any:
    parts = Parts(values)
    bag = parts.bag(("span",))
    if bag is None or parts.one(Adjective) != Adjective("far", LESS):
        return None
    return all_finished(bounded(m.ClosestApproach(to=parts.one(Operand)), Bound((a.Comparison.LESS, parts.one(Quantity)))), bag)

