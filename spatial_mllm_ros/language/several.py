"""Sentences about several things: each of them, the nearest of them, their order, which two."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from spatial_mllm_ros.language.choosing import extreme
from spatial_mllm_ros.language.phrases import GRAMMAR, Arg, Things, says
from spatial_mllm_ros.language.questions import Both
from spatial_mllm_ros.language.scales import LESS, MORE, Adjective, How, Superlative, distance
from spatial_mllm_ros.language.sentences import (
    END,
    Parts,
    Refused,
    Than,
    all_finished,
    asked,
    compared,
    over_list,
    parted,
    values,
)
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.query import Query


def placed(scale: str, things: Any) -> str:
    """ "height" of points is how high they are, of what is extended how tall."""
    return "high" if scale == "height" and not isinstance(things[0], O.Box | O.Object | O.Room) else scale


# ---- each of them


def each_of(things: Any, ask: Any) -> Both | None:
    """One question for each of several things; None where one of them cannot be asked or can mean two things."""
    found = [list(ask(thing) or ()) for thing in things]
    return Both(tuple(one for (one,) in found)) if all(len(one) == 1 for one in found) else None


@asked("{how} BE {list} [each|both]", "(what BE|GIVE) the {scale_noun} (of|to) {list} [each|both]")
def _value_of_each(p: Parts, bag: dict[str, Any]) -> Any:
    things, how = p.one(Things), p.one(How)
    scale, unit = how or (p.one(str), "")
    if len({type(x) for x in things}) > 1 or "subj" in bag or (scale == "far" and how and not bag.keys() & {"from", "to"}):
        return None  # "how far are" several asks how far they are apart
    if unit and bag.setdefault("unit", unit) != unit:
        return None
    return each_of(things, lambda thing: values(scale, {**bag, "subj": thing}))


@asked("BE {list} [each|both] {than_adj} {arg}* {than_marked}")
def _more_of_each(p: Parts, bag: dict[str, Any]) -> Any:
    scale, sign = p.one(Adjective)
    core, floats = parted(bag)
    if "subj" in core:
        return None
    return each_of(p.one(Things), lambda x: all_finished(compared(scale, sign, {**core, "subj": x}, p.one(Than).of), floats))


# ---- the nearest of them, the two nearest


@asked("{how} (BE|DO) {thing} [LIE] [AWAY] (from|to) {end_of} {list}")
def _to_the_nearest(p: Parts, bag: dict[str, Any]) -> Any:
    thing, how, things = p.things[0], p.one(How), p.one(Things)
    core, floats = parted({**bag, **({"unit": how.unit} if how.unit else {})})
    of = tuple(d for x in things if x != thing and isinstance(d := distance(thing, x), M.Distance))
    if core or how.scale != "far" or len(of) < len(things):
        return None
    return all_finished([A.Extreme(of=of, which=p.one(A.Which), as_value=True)], floats)


says("end_of", "the (nearest|closest) of")(lambda: A.Which.SMALLEST)
says("end_of", "the (farthest|furthest) of")(lambda: A.Which.LARGEST)


@asked("{how} (BE|DO) {end_of} {list}", "[what BE|GIVE] the {scale_noun} of the {most_adj} of {list}")
def _of_the_nearest(p: Parts, _: Any) -> Any:
    """How far the nearest of several is; how high the highest is."""
    how, end, most = p.one(How), p.one(A.Which), p.one(Adjective)
    scale, unit = how or (p.one(str), "")
    if most is not None:
        if not {scale, most.scale} <= {"height", "high", "up", "tall"} and scale != most.scale:
            return None
        scale, end = most.scale, END[most.sign]
    elif scale != "far":
        return None
    args = [*p.args, *([Arg("unit", unit)] if unit else [])]
    return over_list(lambda of: [A.Extreme(of=of, which=end, as_value=True)], scale, "subj", p.one(Things), *args)


GRAMMAR.table("pair_end", {f"{word} {tail}": which for which, words in {A.Which.SMALLEST: "closest, nearest", A.Which.LARGEST: "farthest, furthest"}.items()
                           for word in words.split(", ") for tail in ("together", "apart", "to each other", "from each other")})  # fmt: skip


def _pairs(things: Any, least: int) -> tuple[M.Distance, ...]:
    pairs = tuple(M.Distance(a=x, b=y) for x, y in combinations(things, 2))
    return pairs if len(pairs) >= least else ()


@asked("which (pair|two) of {list} BE [the] {pair_end}", "which [two] of {list} BE [the] {pair_end}", "(name|PICK) the (two|pair) of {list} that BE {pair_end}")
def _which_pair(p: Parts, _: Any) -> Any:
    pairs = _pairs(p.one(Things), 3)
    return A.Extreme(of=pairs, which=p.one(A.Which)) if pairs else None


@asked("[what is] [the] [longest|largest|greatest|shortest|smallest] {end} distance between any two of {list}")
def _any_two(p: Parts, _: Any) -> Any:
    pairs = _pairs(p.one(Things), 2)
    return A.Extreme(of=pairs, which=p.one(A.Which), as_value=True) if pairs else None


@asked("WHICHEVER [of {list}] BE (not|n't) the {most_adj} {arg}* [of {list}]", "WHICHEVER BE (not|n't) the {most_adj} {arg}* {list}")
def _not_the_most(p: Parts, _: Any) -> Any:
    lists, adj = p.all(Things), p.one(Adjective)
    if len(lists) != 1:
        return None
    opposite = extreme(lists[0], Superlative(adj.scale, -adj.sign), *p.args)
    if len(lists[0]) == 2 or not opposite:
        return opposite
    return Refused("all but one are not that: ask which one is, or for the order", tuple(q for q in opposite if isinstance(q, Query)))


@asked("which [of {list}] [came|comes|come|was|is] (APPEAR|SEEN|VISIBLE|into view) first [{list}]", "which [of {list}] (was|came|comes|came into view|comes into view|appeared|appears|did {mover} see) first [(seen|into view|visible)] [{list}]",
       exact=True)  # fmt: skip
def _which_first(p: Parts, _: Any) -> Any:
    lists = p.all(Things)
    return A.Extreme(of=tuple(M.SeenTime(of=x, event=M.Event.FIRST) for x in lists[0]), which=A.Which.SMALLEST) if len(lists) == 1 else None


# ---- their order


GRAMMAR.table("first_end", {w: s for s, ws in {MORE: "biggest, largest, highest, longest, widest, tallest, farthest, furthest, greatest, deepest", LESS: "smallest, lowest, shortest, narrowest, nearest, closest, least, shallowest"}.items() for w in ws.split(", ")})  # fmt: skip
GRAMMAR.table("updown", {"descending": MORE, "in descending order": MORE, "ascending": LESS, "in ascending order": LESS})
ORDERED = "[the|these] [boxes|points|objects] {list} (by|in order of|in order by|sorted by|ordered by) [their] {scale_noun}"


@asked(f"ORDERING {ORDERED} {{arg}}* [{{updown}}]", f"ORDERING {ORDERED} {{arg}}* [with|from|starting with] [the] {{first_end}} first")
def _order(p: Parts, _: Any) -> Any:
    return _ordered(p, p.one(str), p.one(int, LESS) == MORE)


@asked("ORDERING [the|these] [boxes|points|objects] {list} [by [their] {scale_noun}] [by|from] {how_ordered}", "what is the order of {list} (by|from) {how_ordered}")
def _order_by_adjective(p: Parts, _: Any) -> Any:
    how = p.one(Superlative)
    return _ordered(p, how.scale, how.sign == MORE)


def _ordered(p: Parts, scale: str, down: bool) -> Any:
    things = p.one(Things)
    return over_list(lambda of: [A.Order(of=of, descending=down)], placed(scale, things), "subj", things, *p.args)


@says("how_ordered", "[from] {adj} to {adj}", "[the] {most_adj} first", "[from] [the] {most_adj} to [the] {most_adj}")
def _how_ordered(first: Adjective, last: Any = None) -> Any:
    if last is not None and "short" in (first.scale, last.scale):
        first = Adjective(first.scale, MORE) if last.scale == "short" else Adjective(last.scale, LESS)
    elif last is not None and (first.scale != last.scale or first.sign == last.sign):
        return None
    return Superlative(first.scale, first.sign)


says("how_ordered", "increasing {scale_noun}")(lambda noun: Superlative(noun, LESS))


@asked("[what BE|GIVE] [the] (mean|average) {scale_noun} (of|to) {list}", "[what BE|GIVE] [the] (mean|average) of [the] {scale_noun} (of|to) {list}")
def _mean(p: Parts, _: Any) -> Any:
    return over_list(lambda of: [A.Mean(of=of)], p.one(str), "subj", p.one(Things), *p.args)
