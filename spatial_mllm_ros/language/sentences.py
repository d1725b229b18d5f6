"""Sentences: what is asked of the things, moments and quantities of ``phrases``. ``read`` in reader.py begins here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from spatial_mllm_ros.language.chart import ANYTHING, Chart, Several
from spatial_mllm_ros.language.phrases import GRAMMAR, Arg, Bound, Quantity, rebuilt, same, says, si
from spatial_mllm_ros.language.scales import LESS, MORE, Adjective, How, Superlative, measures
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.query import Query, terms, value_unit
from spatial_mllm_ros.queries.term import InvalidQuery
from spatial_mllm_ros.queries.units import AREA, UNITS, VOLUME, convert

FLOATING = ("time", "shot", "span", "unit", "metric", "ends", "middle", "frame", "total")
"""What can be added to a question of any form; the rest of a bag are the things that it measures."""

COMPARED = {MORE: A.Comparison.MORE, LESS: A.Comparison.LESS}
END = {MORE: A.Which.LARGEST, LESS: A.Which.SMALLEST}
FRAMED = (A.Locate, A.Direction, A.SurfaceNormal, A.MotionDirection, A.Route, A.FreePlace)
"""What is answered with a place or a direction, which is in some frame."""

Args = Iterable[Any]


@dataclass(frozen=True)
class Refused:
    """A sentence that is understood and that no query can be made of. ``reason``: why, and what can be asked."""

    reason: str
    instead: tuple[Query, ...] = ()


def bag_of(*args: Any) -> dict[str, Any] | None:
    """What was added, by role; None where a role is there twice with different values."""
    bag: dict[str, Any] = {}
    for arg in args:
        if arg and isinstance(arg[0], str):
            inner: dict[str, Any] | None = {arg[0]: arg[1]}
        else:
            inner = bag_of(*arg or ())
        if inner is None or any(bag.get(role, value) != value for role, value in inner.items()):
            return None
        bag |= inner
    return bag


class Parts:
    """The values of a pattern, by what they are: ``one(kind)`` and ``all(kind)``; what was added is in ``bag``."""

    def __init__(self, values: Iterable[Any]) -> None:
        self.values: list[Any] = []
        self.args: list[Arg] = []
        for value in values:
            if isinstance(value, Arg):
                self.args.append(value)
            elif type(value) is tuple:  # repeated
                inner = Parts(value)
                self.values += inner.values
                self.args += inner.args
            elif value is not None and value is not True:
                self.values.append(value)

    def all(self, kind: Any) -> list[Any]:
        """The values of a kind, in order."""
        return [v for v in self.values if isinstance(v, kind) and (kind is not float or not isinstance(v, bool))]

    def one(self, kind: Any, otherwise: Any = None) -> Any:
        """The first of a kind."""
        return next(iter(self.all(kind)), otherwise)

    @property
    def things(self) -> list[O.Operand]:
        """The things that are not in a list."""
        return self.all(O.Operand)

    def bag(self, allowed: Iterable[str] | None = None, **more: Any) -> dict[str, Any] | None:
        """What was added, by role; None where a role has two values, or one that is not ``allowed``."""
        bag = bag_of(*self.args, *((r, v) for r, v in more.items() if v))
        return None if bag is None or (allowed is not None and bag.keys() - set(allowed)) else bag


def asked(*patterns: str, roles: Iterable[str] | None = None, exact: bool = False, negated: bool = False) -> Any:
    """Decorator of what sentences ask: ``action(parts, bag)`` gives an ask, several, or what is finished already.

    Before and after every pattern may stand what can be added, unless it is ``exact``; the bag has it, and no other
    ``roles``. What the action leaves there is put in its place.
    """

    def add(action: Any) -> Any:
        def act(*values: Any) -> Any:
            parts = Parts(values)
            bag = parts.bag(roles)
            made = None if bag is None else action(parts, bag)
            made = [made] if isinstance(made, A.Ask) else made
            return all_finished(made, bag or {}, negated) if type(made) is list else made

        return says("core", *(p if exact else f"{{arg}}* {p} {{arg}}*" for p in patterns))(act)

    return add


def parted(bag: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A bag's things, and what floats."""
    return {k: v for k, v in bag.items() if k not in FLOATING}, {k: v for k, v in bag.items() if k in FLOATING}


def finished(ask: A.Ask, floats: dict[str, Any], negated: bool = False) -> Query | None:
    """The query of what is asked with what floats put in its place; None where something has none."""
    floats = dict(floats)
    if floats.keys() - set(FLOATING):
        return None
    if "shot" in floats and floats.setdefault("time", floats["shot"]) != floats.pop("shot"):
        return None
    unit, frame_id = floats.get("unit") or "", floats.get("frame") or ""
    for role, place in (("time", _at), ("span", _over), ("metric", _by), ("ends", _between), ("middle", _middle)):
        if role in floats:
            changed = place(ask, floats[role])
            if changed is None:
                return None
            ask = changed
    if "total" in floats and not _total(ask):
        return None
    try:
        query = Query(ask=settled(ask), negated=negated, unit=unit, frame_id=frame_id)
    except InvalidQuery:
        return None
    if frame_id and not isinstance(ask, FRAMED):
        return None
    return query if not unit or unit_fits(query, unit) else None


def _total(ask: A.Ask) -> bool:
    return isinstance(ask, A.Value) and isinstance(
        ask.of, M.PathLength | M.TimeSpent | M.Turn | M.UnseenFraction | M.Elapsed | M.Extent
    )


def unit_fits(query: Query, unit: str) -> bool:
    """Whether the answer of a query can be worded in a unit."""
    ask, kind = query.ask, UNITS[unit].kind
    if isinstance(ask, A.Difference) and not ask.ratio:
        return UNITS[M.unit_of(ask.a)].kind == kind
    if isinstance(ask, A.Mean):
        return UNITS[M.unit_of(ask.of[0])].kind == kind
    if isinstance(ask, A.Dimensions | A.Locate | A.Direction | A.MotionDirection):
        return kind == "length"
    return value_unit(query) in UNITS and UNITS[value_unit(query)].kind == kind and isinstance(ask, A.Value | A.Extreme)


def _replaced(ask: A.Ask, change: Any) -> A.Ask | None:
    """``ask`` with a change to some part; None where nothing changes."""
    new = rebuilt(ask, change)
    return new if new != ask else None


def _at(ask: A.Ask, moment: T.Moment) -> A.Ask | None:
    """At a moment: of the camera, or of what else is asked at one."""
    hit: list[Any] = []

    def change(term: Any) -> Any:
        if (isinstance(term, O.Camera) and term.at is None) or (isinstance(term, O.Robot) and term.at == T.Now()):
            hit.append(term)
            return replace(term, at=moment)
        if isinstance(term, A.Visible | A.Moving | M.Heading | M.Speed) and term.at == T.Now():
            hit.append(term)
            return replace(term, at=moment)
        if isinstance(term, M.Depth) and term.at is None:
            hit.append(term)
            return replace(term, at=moment)
        return term

    new = rebuilt(ask, change)
    return new if hit else None


def _over(ask: A.Ask, span: T.Span) -> A.Ask | None:
    hit: list[Any] = []

    def change(term: Any) -> Any:
        if hasattr(term, "span") and term.span == T.WHOLE:
            hit.append(term)
            return replace(term, span=span)
        return term

    new = rebuilt(ask, change)
    return new if hit else None


def _by(ask: A.Ask, metric: M.Metric) -> A.Ask | None:
    hit: list[Any] = []

    def change(term: Any) -> Any:
        if isinstance(term, M.Distance) and term.metric in (M.Metric.STRAIGHT, metric):
            hit.append(term)
            return replace(term, metric=metric)
        if metric is M.Metric.VERTICAL and isinstance(term, M.Height | M.Extent):
            hit.append(term)
        if metric is M.Metric.STRAIGHT and isinstance(term, M.Height):
            hit.append(term)
        return term

    new = rebuilt(ask, change)
    return new if hit else None


def _between(ask: A.Ask, ends: M.Ends) -> A.Ask | None:
    hit: list[Any] = []

    def change(term: Any) -> Any:
        if isinstance(term, M.Distance):
            hit.append(term)
            return replace(term, ends=ends)
        return term

    new = rebuilt(ask, change)
    return new if hit else None


def _middle(ask: A.Ask, thing: O.Operand) -> A.Ask | None:
    """From the middle of a thing; of the other end nothing was said, so that it must have no extent."""
    ends = [t for t in terms(ask) if isinstance(t, M.Distance)]
    others = [x for d in ends for x in (d.a, d.b) if x != thing]
    return _between(ask, M.Ends.CENTERS) if ends and not any(isinstance(x, O.Box | O.Object | O.Room) for x in others) else None


def settled(ask: A.Ask) -> A.Ask:
    """The camera of no moment is that of the marked image; where nothing is marked it is that of now."""

    def marked(term: Any) -> bool:
        return any(isinstance(part, O.Point | O.Box) for part in terms(term))

    def now(term: Any) -> Any:
        return O.Camera(at=T.Now()) if isinstance(term, O.Camera) and term.at is None else term

    def change(term: Any) -> Any:
        if isinstance(term, M.Height | A.Locate | M.ClosestApproach | A.Reachable | A.Route | M.RouteLength | M.Clearance | A.RoomOf):
            return rebuilt_parts(term, now)
        if isinstance(term, M.Measure) and not marked(term):
            return rebuilt_parts(term, now)
        return term

    def rebuilt_parts(term: Any, f: Any) -> Any:
        return replace(term, **{x.name: rebuilt(getattr(term, x.name), f) for x in dataclasses.fields(term)})

    ask = rebuilt(ask, change)
    return ask if marked(ask) else rebuilt(ask, now)


def values(scale: str, bag: dict[str, Any] | None, negated: bool = False, whole: bool = False) -> Several:
    """Queries for the value of a scale, with all that was added."""
    if bag is None:
        return Several()
    bag = dict(bag)
    if bag.pop("along", False):
        if scale not in ("deep", "far"):
            return Several()
        scale = "deep"
        if isinstance(bag.get("from"), O.Camera):
            bag.pop("from")
    core, floats = parted(bag)
    unit: str = floats.get("unit") or ""
    made: list[A.Ask] = []
    subject = core.get("subj", core.get("of"))
    if scale == "big" and len(core) == 1 and isinstance(subject, O.Box | O.Object | O.Room | O.Floor):
        if isinstance(subject, O.Floor):
            subject = O.Room()
            unit = unit or "m2"
        area = unit in UNITS and UNITS[unit].kind in (AREA, VOLUME)
        if area and UNITS[unit].kind == AREA and not isinstance(subject, O.Room):
            return Several()
        made = [A.Value(of=M.Extent(of=subject, dimension=M.Dimension.FLOOR_AREA if UNITS[unit].kind == AREA else M.Dimension.VOLUME))] if area else [A.Dimensions(of=subject)]  # fmt: skip
    else:
        made = [A.Value(of=m) for m in measures(scale, core)]
    return Several(q for q in (finished(a, floats, negated) for a in made) if q is not None)


# ---- measures as noun phrases


says("pre", "[DET] (current|present|latest)")(lambda: Arg("time", T.Now()))
says("pre", "(horizontal|bird 's eye|xy|lateral|2d|ground|planar|top view|map|floor plan)")(
    lambda: Arg("metric", M.Metric.HORIZONTAL)
)
says("pre", "vertical")(lambda: Arg("metric", M.Metric.VERTICAL))
says(
    "pre",
    "(straight line|straight|euclidean|direct|perpendicular|metric|relative|total|resulting|line of sight|camera|real world|real life|3d|3 d|shortest|metric|actual|real|physical|absolute|linear|real world|point to point|point - to - point|net|three dimensional|exact|spatial|true|as the crow flies|space|3d euclidean|euclidean 3d)",
    "straight line point to point",
    "metric 3d",
    "real 3d",
)(lambda: Arg("metric", M.Metric.STRAIGHT))
says("pre", "camera", "camera - to")(lambda: Arg("", None))
says("pre", "{t}")(lambda t: Arg("time", t))


def noun_phrase(*parts: Any) -> tuple[str, tuple[Any, ...]] | None:
    scale = next(p for p in parts if isinstance(p, str))
    given = [p for p in parts if not isinstance(p, str) and p is not None]
    bag = bag_of(*(p if isinstance(p, tuple) else ("subj", p) for p in given))
    if bag is None:
        return None
    bag.pop("", None)
    exact = bag.get("metric")
    if exact is M.Metric.STRAIGHT and scale not in ("far", "in", "gap"):
        bag.pop("metric")
    return scale, tuple(bag.items())


says("measured", "[DET] {pre}* {scale_noun} {arg}*")(noun_phrase)


@says("measured", "{thing} POSS {pre}* {scale_noun} {arg}*", "{named_before} {pre}* {scale_noun} {arg}*")
def _of_thing(thing: O.Operand, *rest: Any) -> Any:
    return noun_phrase(("subj", thing), *rest)


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


@says("core", f"{{arg}}* [{WHAT}] {{measured}}", "{arg}* {measured} BE (what|which value|closest to which value|how much)", "{measured} [BE] (how large|how big|how much)",
      "{arg}* what {measured} BE", "{arg}* GIVE what {measured} BE", "{arg}* {measured} what BE it")  # fmt: skip
def _value(*parts: Any) -> Any:
    (scale, bag) = parts[-1]
    merged = bag_of(bag, *parts[:-1])
    return (
        values({"height": "high", "tall": "high"}.get(scale, scale), merged)
        if _is_placed(merged)
        else values(scale, merged)
    )


def _is_placed(bag: dict[str, Any] | None) -> bool:
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
says(
    "how",
    "[at|by|in|from] (what|which) [DET] {scale_noun}",
    "how much [of a] {scale_noun}",
    "[up] to what {scale_noun}",
    "[what is] the {scale_noun} at which",
    "what (horizontal|vertical) {scale_noun}",
    "how (big|large|great|wide|long) [of] [DET|a] {scale_noun}",
    "(what|which) (real|exact|vertical) {scale_noun}",
    "what BE the {scale_noun}",
    "how much",
    "how large a {scale_noun}",
)(lambda noun="far": How(noun))


BEING = "(BE|DO|HAVE|CAN|would)"
ENDS = "[from end to end|end to end|top to bottom|from top to bottom|from bottom to top|bottom to top|from side to side|side to side|from one end to the other|from one side to the other|from wall to wall|from its base to its top|from its bottom to its top|along its longest side|across|in real life|in reality|lengthwise]"


@says("core", f"{ENDS} {{arg}}* {{how}} {{arg}}* {ENDS} {BEING} {{thing}} [LIE|have|has|measure|from it|take up|be|at|cover] {ENDS} {{arg}}*", "{arg}* {how} would you say {thing} is {arg}*", "{arg}* what would [a|the] CAMERA (read|report|measure|show) {arg}*", "{arg}* {thing} how {adj} is it {arg}*", f"{{arg}}* {{how}} {BEING} {{thing}} [LIE] at {{arg}}*", "{arg}* {how} {thing} would be {arg}*", "{arg}* {how} it is {arg}*", "{arg}* {how} had {thing} got {arg}*", "{arg}* {how} {arg}* {thing} (BE|LIE|has|have|measures|does) [LIE] {arg}*",
      "{arg}* {thing} BE [LIE] {arg}* {how} {arg}*", "{arg}* {thing} {how} {arg}*", "{arg}* {thing} LIE {arg}* {how} {arg}*", f"{{arg}}* [of] {{arg}}* {{how}} {BEING} {{arg}}* {{thing}} LIE {{arg}}*",
      f"{{arg}}* {{how}} {{arg}}* {BEING} {{list}} [LIE|from each other|from one another|to each other|from eachother] {{arg}}* [apart]", "{arg}* {how} {arg}* {list} (BE|LIE) [from each other|from one another|to each other] {arg}* [apart]",
      "{arg}* {list} {how} [apart] {arg}*", "{arg}* {list} BE {how} {arg}*", "{arg}* {how} BE {list} [from each other|from one another] {arg}*")  # fmt: skip
def _how(*parts: Any) -> Any:
    how = next(
        (
            p
            for p in parts
            if isinstance(p, tuple)
            and len(p) == 2
            and isinstance(p[0], str)
            and (isinstance(p[1], str) or type(p[1]) is int)
        ),
        ("deep", ""),
    )
    if how[1] in (MORE, LESS):
        parts = tuple((how[0], "") if p is how else p for p in parts)
        how = next(p for p in parts if p == (how[0], ""))
    things = [p for p in parts if isinstance(p, O.Operand) or (isinstance(p, tuple) and p and isinstance(p[0], O.Operand))]
    rest = [p for p in parts if p is not how and p not in things and p is not None and p is not True]
    return _how_value(how, bag_of(*(("subj", t) for t in things[:1]), *rest))


@says("core", f"{{arg}}* {{how}} {BEING} {{mover}} (see|get|read|measure|show|have|observe) {{arg}}*")
def _how_measured(*values: Any) -> Any:
    """What depth one gets at a point; "how close did you get to it" is about the way."""
    parts = Parts(values)
    bag = parts.bag()
    return None if bag is None or "to" in bag else _how_value(parts.one(How), bag)


@says(
    "core",
    "{arg}* {how} [BE (it|there)|would it be|have been seen|would i have to reach|do i have to reach|must i go|it is|was it|(lies|lie|is|are) [there]|(separate|separates|separated)|DO (lie|separate)|BE there|(is there|are there)|can be measured|BE] {arg}*",
)
def _how_it(*parts: Any) -> Any:
    how = next(
        p for p in parts if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], str)
    )
    return _how_value(how, bag_of(*(p for p in parts if p is not how and p is not None)))


@says(
    "core",
    "{how} (separate|separates|separated|is between|are between) {list} {arg}*",
    "{how} (separate|separates|separated) {thing} from {thing} {arg}*",
    "what separates {list} {arg}*",
    "{how} (separated|separate|separates) {thing} and {thing}",
    "{arg}* {how} (BE|are) {list} separated {arg}*",
    "[i want to|measure] measure [the straight line] (between {list}|from {list}) {arg}*",
    "[measure] (from|between) {list} what do you get",
    "{how} [of] (rope|string|cable|cord) (do|would|must) (i|you|we) need to connect {list}",
    "what length of (rope|string|cable|cord) (do|would) (i|you|we) need to connect {list}",
    "what length of cable would span {thing} to {thing}",
    "what is between {list} in terms of distance",
    "how far (must|would|do) i [have to] (go|reach) {arg}* to get from {thing} to {thing}",
    "how far do i have to reach from {thing} to get to {thing}",
    "if i (stretched|ran|held) a (tape|tape measure|string|rope) from {thing} to {thing} what would it (show|read|say|measure)",
    "if i shot a laser from {thing} (at|to) {thing} what distance would it (read|show)",
    "measure from {thing} to {thing}",
    "how long is the (ray|line) from {thing} to {thing}",
    "what separates {thing} from {thing} {arg}*",
    "what would [a|the] (tape|tape measure|ruler|measuring tape|laser) (say|show|read|measure) (between|from) {thing} (and|to) {thing} {arg}*",
)
def _separate(*parts: Any) -> Any:
    how = next(
        (p for p in parts if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], str)),
        ("far", ""),
    )
    pair = next((p for p in parts if isinstance(p, tuple) and p and isinstance(p[0], O.Operand)), None) or tuple(
        p for p in parts if isinstance(p, O.Operand)
    )
    rest = [p for p in parts if isinstance(p, tuple) and p is not how and p is not pair]
    scale = "far" if how[0] in ("long", "wide") else how[0]
    return _how_value((scale, how[1]), bag_of(("between", pair), *rest))


def _how_value(how: tuple[str, str], bag: dict[str, Any] | None) -> Any:
    scale, unit = how
    if bag is None or (unit and bag.get("unit", unit) != unit):
        return None
    if unit:
        bag["unit"] = unit
    if _is_placed(bag) and scale == "height":
        scale = "high"
    return values(scale, bag)


@says("core", "{arg}* [GIVE] (what|which) [are|is] [DET] {pre}* (size|dimensions|measurements|extents|extent|sizes|dims) {arg}*", "{arg}* [GIVE|what is|what are|which are] [DET] {pre}* SIZE {arg}*", "{arg}* [GIVE|what is|what are|which are] {thing} POSS SIZE {arg}*", "{arg}* [GIVE|what is|what are] {thing} SIZE {arg}*",
      "{arg}* (what|which) (size|dimensions|measurements) (is|are|does|do|has|have) {thing} [have|has] {arg}*", "{arg}* what (does|do) {thing} measure {arg}*", "{arg}* GIVE (what size|how big) {thing} is {arg}*", "[can you] (measure|size up) {thing} {arg}*", "(what|which) size fits {thing} [best]", "how (big|large|spacious) is {thing} SIZE {arg}*", "how (big|large) in real life is {thing} {arg}*", "how (big|large) is {thing} in (each|every) dimension {arg}*", "how far does {thing} extend in each direction", "how much (room|space) does {thing} take up {arg}*", "how (big|large) a {thing} {arg}*", "GIVE {thing} SIZE {arg}*", "SIZE [of] {thing} {arg}*", "{thing} what size {arg}*")  # fmt: skip
def _size(*parts: Any) -> Any:
    things = [p for p in parts if isinstance(p, O.Operand)]
    bag = bag_of(*(("subj", t) for t in things), *(p for p in parts if not isinstance(p, O.Operand) and p is not None))
    if bag:
        bag.pop("", None)
        if bag.get("metric") is M.Metric.STRAIGHT:
            bag.pop("metric")
    return values("big", bag)


# ---- yes or no


def compared(scale: str, sign: int, bag: dict[str, Any], than: Any) -> Iterator[A.Ask]:
    """Whether a scale says more (or less) of one thing than of another, or than a quantity."""
    comparison = A.Comparison.MORE if sign == MORE else A.Comparison.LESS
    if isinstance(than, Quantity):
        if scale == "big" and UNITS[than.unit].kind == AREA and isinstance(bag.get("subj"), O.Room) and len(bag) == 1:
            yield from bounded(M.Extent(of=bag["subj"], dimension=M.Dimension.FLOOR_AREA), Bound((comparison, than)))
            return
        for m in measures("high" if scale == "height" else scale, bag):
            yield from bounded(m, Bound((comparison, than)))
        return
    other = dict(bag)
    for role, thing in than:
        place = role if role in other or role == "subj" else next((r for r in ("from", "to") if r in other), role)
        other[place] = thing
    pairs = zip(measures(scale, bag), measures(scale, other), strict=False)
    for a, b in pairs:
        if type(a) is type(b) and a != b:
            yield A.Compare(a=a, comparison=comparison, b=b)


def bounded(measure: M.Measure, bound: tuple[Any, ...]) -> Iterator[A.Ask]:
    """Whether a measure is within bounds."""
    unit = M.unit_of(measure)
    low = bound[0]
    quantities = [b for b in bound if isinstance(b, Quantity)]
    if any(UNITS[q[1]].kind != UNITS[unit].kind for q in quantities):
        return
    inside = [convert(si(q), "deg" if UNITS[q[1]].kind == "angle" else _SI[UNITS[q[1]].kind], unit) for q in quantities]
    if isinstance(low, A.Comparison):
        yield A.Threshold(of=measure, comparison=low, value=round(inside[0], 12))
    else:
        yield A.Within(of=measure, low=round(inside[0], 12), high=round(inside[1], 12))


_SI = {"length": "m", "area": "m2", "volume": "m3", "time": "s", "speed": "m/s", "ratio": "", "count": "count"}


def all_finished(found: Iterable[A.Ask], floats: dict[str, Any], negated: bool = False) -> Several:
    return Several(q for q in (finished(a, floats, negated) for a in found) if q is not None)


@says("than", "than {thing} [is|are|am|do|does|would be|'s]")
def _than(thing: O.Operand) -> Any:
    return (("subj", thing),)


@says("than", "than {thing} (was|were|did|has been|had been)")
def _than_was(thing: O.Operand) -> Any:
    """ "than <p1> was at <t0>" is of that moment alone, which no comparison says; the camera's moment is its own."""
    return (("subj", thing),) if isinstance(thing, O.Camera | O.Robot) else None


says("than", "than {quantity}")(same)
says("than", "compared (to|with) {thing}")(lambda t: (("subj", t),))
says("than", "than from {thing}", "than that from {thing}")(lambda t: (("from", t),))
says("than", "than to {thing}", "than the distance to {thing}", "than that to {thing}")(lambda t: (("to", t),))
says("than", "than that of {thing}", "than the one (of|at|in) {thing}")(lambda t: (("subj", t),))
says("than", "than {when}", "than it was {when}")(lambda t: (("time", t),))


@dataclass(frozen=True)
class Than:
    """What stands after "than", so that it is not taken for what is added to the question ("from the robot")."""

    of: Any


says("than_marked", "{than}")(lambda than: Than(of=than))


@says("core", "{arg}* BE {thing} [LIE|have] [much|any] {than_adj} {arg}* {than} {arg}*", "{arg}* {thing} BE [LIE] {than_adj} {arg}* {than} {arg}*", "{arg}* DO {thing} [LIE|have] {than_adj} {arg}* {than} {arg}*", "{arg}* {thing} LIE {than_adj} {arg}* {than} {arg}*",
      "{arg}* {thing} {than_adj} {arg}* {than} {arg}*", "{arg}* (BE|DO) n't {thing} [LIE|have] {than_adj} {arg}* {than} {arg}*", "{arg}* DO {thing} have {than_adj} {arg}* {than} {arg}*")  # fmt: skip
def _more(*parts: Any) -> Any:
    return _compare(parts, False)


@says(
    "core",
    "{arg}* BE {thing} (not|no) {than_adj} {arg}* {than} {arg}*",
    "{arg}* {thing} BE (not|n't) {than_adj} {arg}* {than} {arg}*",
)
def _not_more(*parts: Any) -> Any:
    return Several(
        replace(q, ask=replace(q.ask, comparison=OPPOSITE[q.ask.comparison]))
        for q in _compare(parts, False) or ()
        if isinstance(q.ask, A.Threshold | A.Compare)
    )


OPPOSITE = {
    A.Comparison.MORE: A.Comparison.AT_MOST,
    A.Comparison.LESS: A.Comparison.AT_LEAST,
    A.Comparison.AT_MOST: A.Comparison.MORE,
    A.Comparison.AT_LEAST: A.Comparison.LESS,
}
"""What a comparison is when it is denied."""


def _compare(parts: tuple[Any, ...], negated: bool) -> Any:
    thing = next(p for p in parts if isinstance(p, O.Operand))
    at = next(
        i
        for i, p in enumerate(parts)
        if isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], int)
    )
    (scale, sign), than = parts[at], parts[-2]
    bag = bag_of(
        ("subj", thing),
        *(p for i, p in enumerate(parts) if i not in (at, len(parts) - 2) and not isinstance(p, O.Operand)),
    )
    if bag is None or than is None:
        return None
    core, floats = parted(bag)
    return all_finished(compared(scale, sign, core, than), floats, negated)


# ---- measures, finished: (measure, what still floats)


def measure_of(measure: M.Measure | None, *args: Any) -> tuple[M.Measure, tuple[Any, ...]] | None:
    """A measure with time, span, metric and ends in their place."""
    bag = bag_of(*args)
    if measure is None or bag is None or any(k not in FLOATING for k in bag):
        return None
    unit, total = bag.pop("unit", None), bag.pop("total", None)
    query = finished(A.Value(of=measure), bag)
    if query is None or not isinstance(query.ask, A.Value):
        return None
    floats = tuple((k, v) for k, v in (("unit", unit), ("total", total)) if v is not None)
    return query.ask.of, floats


def mover_says(name: str, *patterns: str) -> Any:
    """Patterns in which {mover} is the camera or robot that moves."""
    return says(name, *patterns)


says("mover", "[DET] CAMERA", "[DET] ROBOT", "ME", "{it_camera}", "[DET] ROBOT 's CAMERA")(lambda *_: True)


@says("m", "{measured}")
def _m_scale(measured: Any) -> Any:
    scale, bag = measured
    core, floats = parted(dict(bag))
    scale = {"height": "high", "tall": "high"}.get(scale, scale) if _is_placed(core) else scale
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
m(
    "angle between {list} (at|seen from|as seen from|viewed from|from) {thing}",
    "angle (at|seen from|from) {thing} [,] between {list}",
    "angle that {list} make at {thing}",
)(
    lambda x, y: (
        (M.Angle(a=x[0], vertex=y, b=x[1]) if len(x) == 2 else None)
        if isinstance(x, tuple)
        else (M.Angle(a=y[0], vertex=x, b=y[1]) if len(y) == 2 else None)
    )
)
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
m(
    "(heading|yaw|compass heading|view direction|viewing direction|orientation) of {mover}",
    "{owner} (heading|yaw|yaw angle|heading angle|orientation)",
)(lambda *_: M.Heading())
m("(speed|velocity) of {mover}", "{owner} (speed|velocity)", "current speed [of {mover}]")(lambda *_: M.Speed())
m("(mean|average) (speed|velocity) [of {mover}]", "{owner} (mean|average) (speed|velocity)")(lambda *_: M.MeanSpeed())
m("time [that] {mover} [was|has|had|spent] (stood still|standing still|still|stopped|stationary|not moving)")(
    lambda *_: M.TimeSpent(moving=False)
)
m("time [that] {mover} [was|has|had|spent] (MOVE|TRAVEL|moving)")(lambda *_: M.TimeSpent(moving=True))
m(
    "closest approach of {mover} to {thing}",
    "(closest|nearest|least|smallest|minimum) distance [ever] [between|of] {mover} (and|to|from) {thing}",
)(lambda _, x: M.ClosestApproach(to=x))
m("[least|closest|nearest|smallest|shortest] distance [that|at which|from which] {thing} was [ever] seen [from]", "(closest|nearest) [that] {thing} was [ever] seen [from]")(lambda x: M.SeenDistance(of=x))


def elapsed(args: Any) -> Any:
    bag = bag_of(args)
    span = (bag or {}).pop("span", None)
    return None if bag is None or span is None or span == T.WHOLE else measure_of(M.Elapsed(span=span), tuple(bag.items()))


says(
    "m",
    "[the] (time|duration|elapsed time|time difference|time span|time interval|time gap|period) [of time] [that] [elapsed|passed|went by|there is|lies|lay] {arg}*",
)(elapsed)
GRAMMAR.table("event", {"first": M.Event.FIRST, "last": M.Event.LAST, "for the first time": M.Event.FIRST, "for the last time": M.Event.LAST, "initially": M.Event.FIRST, "most recently": M.Event.LAST, "finally": M.Event.LAST, "earliest": M.Event.FIRST, "first time": M.Event.FIRST, "last time": M.Event.LAST, "latest": M.Event.LAST, "the first time": M.Event.FIRST, "the last time": M.Event.LAST, "most recent": M.Event.LAST, "first of all": M.Event.FIRST, "very first": M.Event.FIRST, "very last": M.Event.LAST})  # fmt: skip
m(
    "time (when|at which|that) {thing} was {event} SEEN",
    "{event} (time|moment|instant|image|frame|sighting|observation|appearance) [at which|when|that|in which|of] [the camera|we|you] [SAW|saw] {thing} [was|is|be] [SEEN]",
)(
    lambda *v: M.SeenTime(
        of=next(x for x in v if isinstance(x, O.Operand)), event=next(x for x in v if isinstance(x, M.Event))
    )
)
m("time since {thing} was {event} SEEN")(lambda x, e: M.SeenTime(of=x, event=e, ago=True))
GRAMMAR.table("counted", {w: c for c, ws in {M.Countable.FRAMES: "frames, images, pictures", M.Countable.KEYFRAMES: "keyframes, key frames", M.Countable.ROOMS: "rooms", M.Countable.DOORS: "doors", M.Countable.WALLS: "walls"}.items() for w in ws.split(", ")})  # fmt: skip
m("number of {counted}")(lambda c: M.Count(what=c))
m("number of objects that are {thing}")(lambda x: M.ObjectCount(of=x) if isinstance(x, O.Object) else None)
m("[total] number of {counted_object}")(lambda x: M.ObjectCount(of=x))
m(
    "number of (images|frames|pictures) [that|which|in which] (show|shows|contain|see) {thing}",
    "number of (images|frames|pictures) in which {thing} (is|was) VISIBLE",
)(lambda x: M.SeenCount(of=x))
m("unseen fraction of [the|this] SPACE")(M.UnseenFraction)
m("clearance around {thing}", "free space around {thing}")(lambda x: M.Clearance(of=x))
m("clearance ahead of {thing}", "free space ahead of {thing}")(lambda x: M.Clearance(of=x, ahead=True))


@m(
    "[DET|shortest] (length|distance) of [the] [shortest] (route|way|path) from {thing} to {thing} [{radius}]",
    "(shortest|driving|walking|travel|path|route|drivable) [driving|walking] (distance|path length|route length|route|path) from {thing} to {thing} [{radius}]",
    "length of the shortest (path|route|way) from {thing} to {thing} [{radius}]",
)
def _route_length(start: O.Operand, goal: O.Operand, radius: float | None) -> M.Measure:
    start = O.Robot(at=T.Now()) if start in (O.Camera(), O.Camera(at=T.Now())) else start
    return M.RouteLength(start=start, goal=goal, radius_m=radius or 0.0)


says(
    "radius",
    "for a robot (of|with [a]) radius [of] {quantity}",
    "with [a] [robot] radius [of] {quantity}",
    "for a [robot of] {quantity} radius",
)(lambda q: si(q) if UNITS[q[1]].kind == "length" else None)
m(
    "width of the passage [of] {thing}",
    "width of the passage from {thing} to {thing}",
    "width of the passage between {thing} and {thing}",
)(lambda *v: M.PassageWidth(of=v[0], goal=v[1] if len(v) > 1 else None))


@says(
    "counted_object",
    "{noun} [that are|which are|there are|standing|lying] {rel} {simple}",
    "{noun}",
    "(objects|things|items) {rel} {simple}",
)
def _counted_object(noun: Any, where: Any = None, to: Any = None) -> Any:
    if isinstance(noun, O.Where):
        return O.Object(pick=O.Pick.ALL, where=noun, to=where) if where is not O.Where.SAME_SURFACE else None
    return O.Object(name=noun[0], pick=O.Pick.ALL, where=where, to=to) if where is not O.Where.SAME_SURFACE else None


# ---- sentences of measures


@says("core", "{arg}* [what BE|GIVE|GIVE me|what about|how much BE|how long BE|how (big|large|great|high) BE] {m}")
def _value_of(args: Any, of: Any) -> Any:
    bag = bag_of(args, of[1])
    return None if bag is None else all_finished([A.Value(of=of[0])], bag)


@says("ms", "{m} {more_m}* (and|or) {m}")
def _ms(first: Any, more: Any, last: Any) -> Any:
    bag = bag_of(*(x[1] for x in (first, *more, last)))
    return None if bag is None else (tuple(x[0] for x in (first, *more, last)), tuple(bag.items()))


says("more_m", "{m}")(same)


@says("core", "{arg}* (what BE|GIVE) the (mean|average) of {ms} {arg}*")
def _mean(a: Any, ms: Any, b: Any) -> Any:
    bag = bag_of(a, ms[1], b)
    return None if bag is None else all_finished([A.Mean(of=ms[0])], bag)


@says("core", "{arg}* (what BE|GIVE) the (mean|average) {scale_noun} (of|to) {list} {arg}*")
def _mean_of(a: Any, scale: str, things: Any, b: Any) -> Any:
    return over_list(lambda of: [A.Mean(of=of)], scale, "subj", things, a, b)


def over_list(make: Any, scale: str, role: str, things: Any, *args: Any) -> Any:
    """What is made of one measure of each of several things."""
    bag = bag_of(*args)
    if bag is None:
        return None
    core, floats = parted(bag)
    columns = [list(measures(scale, {**core, role: thing})) for thing in things]
    if len({len(c) for c in columns}) != 1:
        return None
    found = []
    for of in zip(*columns, strict=True):
        if len({type(x) for x in of}) == 1:
            found += make(tuple(of))
    return all_finished(found, floats)


@says("core", "[by] how much BE {m} (more|larger|greater|bigger|higher|longer) than {m}")
def _difference(x: Any, y: Any) -> Any:
    bag = bag_of(x[1], y[1])
    return None if bag is None else all_finished([A.Difference(a=x[0], b=y[0])], bag)


@says("core", "how many times {m} BE {m}")
def _ratio(y: Any, x: Any) -> Any:
    return all_finished([A.Difference(a=x[0], b=y[0], ratio=True)], {})


@says("core", "{arg}* BE {m} {m_bound} {arg}*", "{m} BE {m_bound}")
def _threshold(*parts: Any) -> Any:
    i = next(k for k, p in enumerate(parts) if isinstance(p, tuple) and p and isinstance(p[0], M.Measure))
    of, bound, rest = parts[i], parts[i + 1], (*parts[:i], *parts[i + 2 :])
    bag = bag_of(of[1], *rest)
    return None if bag is None else all_finished(bounded(of[0], bound), bag)


@says("core", "BE {m} {number_bound}")
def _threshold_plain(of: Any, bound: Any) -> Any:
    comparison, *numbers = bound
    if UNITS[M.unit_of(of[0])].kind not in ("ratio", "count"):
        return None
    ask: A.Ask = (
        A.Threshold(of=of[0], comparison=comparison, value=numbers[0])
        if comparison
        else A.Within(of=of[0], low=numbers[0], high=numbers[1])
    )
    return all_finished([ask], dict(of[1]))


says("m_bound", "{bound}")(same)
says("m_bound", "{m_comparison} {quantity}")(lambda c, q: Bound((c, q)))
says("number_bound", "{comparison} {number}")(lambda c, n: (c, n))
says("number_bound", "between {number} and {number}")(lambda x, y: (None, x, y))


@says("core", "BE {m} {comparison} [{number} times] {m} [{offset}]")
def _compare_measures(x: Any, comparison: A.Comparison, factor: Any, y: Any, offset: Any) -> Any:
    bag = bag_of(x[1], y[1])
    unit = M.unit_of(x[0])
    add = 0.0
    if offset is not None:
        sign, q = offset
        if isinstance(q, Quantity):
            if UNITS[q[1]].kind != UNITS[unit].kind:
                return None
            add = sign * convert(si(q), "deg" if unit == "deg" else _SI[UNITS[unit].kind], unit)
        else:
            add = sign * q
    return (
        None
        if bag is None
        else all_finished(
            [A.Compare(a=x[0], comparison=comparison, b=y[0], factor=1.0 if factor is None else factor, offset=add)], bag
        )
    )


says("offset", "plus {quantity}", "plus {number}")(lambda q: (1.0, q))
says("offset", "minus {quantity}", "minus {number}")(lambda q: (-1.0, q))
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


@says("core", "which BE the [{ordinal}] {end} of {ms}", "which is [the] [{ordinal}] {end} {ms}")
def _which_measure(rank: Any, end: A.Which, ms: Any) -> Any:
    return all_finished([A.Extreme(of=ms[0], which=end, rank=rank or 1)], dict(ms[1]))


@says("core", "what BE the [{ordinal}] {end} of {ms} {arg}*")
def _extreme_value(rank: Any, end: A.Which, ms: Any, args: Any) -> Any:
    bag = bag_of(ms[1], args)
    return None if bag is None else all_finished([A.Extreme(of=ms[0], which=end, rank=rank or 1, as_value=True)], bag)


@says("core", "(what BE the order of|ORDERING) {ms} {direction}")
def _order_measures(ms: Any, down: bool) -> Any:
    return all_finished([A.Order(of=ms[0], descending=down)], dict(ms[1]))


says("direction", "from (large|largest|big|high|highest) to (small|smallest|low|lowest)", "in descending order")(
    lambda: True
)
says(
    "direction",
    "from (small|smallest|low|lowest) to (large|largest|big|high|highest)",
    "in ascending order",
    "in increasing order",
)(lambda: False)


# ---- which of several


@says("superlative", "[the] {most_adj}")
def _most(adj: Any) -> Any:
    return Superlative(adj.scale, adj.sign)


says("superlative", "[the] {ordinal} {most_adj}", "[the] {ordinal} {more_adj}")(lambda rank, adj: Superlative(adj.scale, adj.sign, rank))
says("superlative", "the most {scale_noun}")(lambda s: Superlative(s, MORE))
says("superlative", "the least {scale_noun}")(lambda s: Superlative(s, LESS))
says(
    "superlative",
    "(the|at the|at a|a) [camera] (greater|larger|greatest|largest|bigger|higher|longer|highest|longest) {scale_noun}",
)(lambda s: Superlative(s, MORE))
says("superlative", "(the|at the|at a|a) (smaller|smallest|lesser|shorter|shortest|lower|lowest|least) {scale_noun}")(
    lambda s: Superlative(s, LESS)
)
says(
    "comparative",
    "[the] {more_adj} [one|point|object|thing|spot|of the two|of both|of them|item]",
    "more {adj}",
    "the more {adj} [one|point|of the two]",
)(lambda adj: Superlative(adj.scale, adj.sign))
says("than_adj", "{more_adj}", "the {more_adj} one", "more {adj}")(same)
says("than_adj", "less {adj}")(lambda adj: Adjective(adj[0], -adj[1]))
says(
    "than_adj",
    "at a (greater|larger|longer|bigger|higher) {scale_noun}",
    "a (greater|larger|longer|bigger|higher) {scale_noun}",
)(lambda s: Adjective(s, MORE))
says("than_adj", "at a (smaller|shorter|lesser|lower) {scale_noun}", "a (smaller|shorter|lesser|lower) {scale_noun}")(
    lambda s: Adjective(s, LESS)
)
says("comparative", "(less|not as|not so) {adj}")(lambda adj: Superlative(adj[0], -adj[1]) if adj[0] != "deep" else None)


def extreme(things: Any, how: Any, *args: Any, role: str = "subj") -> Any:
    scale, sign, rank = how
    which = A.Which.LARGEST if sign == MORE else A.Which.SMALLEST
    bag = bag_of(*args)
    if bag is None:
        return None
    if scale == "height":
        scale = "high" if all(isinstance(x, O.Point | O.Camera | O.Ceiling | O.Robot) for x in things) else "tall"
    found = over_list(
        lambda of: [A.Extreme(of=of, which=which, rank=rank)] if rank <= len(of) else [],
        scale,
        role,
        things,
        tuple(bag.items()),
    )
    return found


WHICH = "[to] WHICHEVER"


@says("core", f"{{arg}}* {WHICH} [[of] {{list}}] [HAVING|BE] {{superlative}} {{arg}}* [of {{list}}]", f"{{arg}}* {WHICH} [[of] {{list}}] [HAVING|BE] {{comparative}} {{arg}}*",
      f"{{arg}}* {WHICH} [HAVING|BE] {{superlative}} {{arg}}* {{list}} {{arg}}*", f"{{arg}}* {WHICH} [HAVING|BE] {{comparative}} {{arg}}* {{list}} {{arg}}*", f"{{arg}}* [(of|among|between|given|from|out of|considering|comparing|compare|take)] {{list}} {WHICH} [of them|one|of the two|of these] [HAVING|BE] ({{superlative}}|{{comparative}}) {{arg}}*",
      "[compare|comparing] [the {scale_noun}] [of] {list} WHICHEVER (is|has) ({superlative}|{comparative})", "{arg}* to WHICHEVER is it ({superlative}|{comparative}) {arg}* {list}", "{arg}* to WHICHEVER of {list} is the {scale_noun} (larger|greater|bigger)", "is it {mark} or is it {mark} that [is|has] ({comparative}|{superlative}) {arg}*", "{arg}* WHICHEVER of {list} would {mover} reach first", "{arg}* of {list} WHICHEVER would {mover} reach first", "{arg}* PICK [ONE] [of {list}] [HAVING|BE] ({superlative}|{comparative}) {arg}* [of {list}] {arg}*", "{arg}* PICK [ONE] [HAVING|BE] ({superlative}|{comparative}) {arg}* {list} {arg}*", "{arg}* PICK ONE of {list} [that] [HAVING|BE] ({superlative}|{comparative}) {arg}*", "(given|of|considering) {list} PICK [ONE] [HAVING|BE] ({superlative}|{comparative}) {arg}*",
      f"{{arg}}* {WHICH} of [DET] [two|three|four|five] (points|objects|things|spots|boxes) [HAVING|BE] ({{superlative}}|{{comparative}}) {{arg}}* {{list}} {{arg}}*", f"{{arg}}* {WHICH} (of these|of the following) (points|objects|things|spots|boxes) {{list}} [HAVING|BE] ({{superlative}}|{{comparative}}) {{arg}}*", "{arg}* the ({superlative}|{comparative}) of {list} {arg}*", "{arg}* what is the ({superlative}|{comparative}) [one|point|object] of {list} {arg}*", "{arg}* ({superlative}|{comparative}) {arg}* {list} {arg}*")  # fmt: skip
def _which(*parts: Any) -> Any:
    lists = [p for p in parts if isinstance(p, tuple) and p and isinstance(p[0], O.Operand)]
    how = next((p for p in parts if isinstance(p, tuple) and len(p) == 3 and isinstance(p[0], str)), None)
    marks = tuple(p for p in parts if isinstance(p, O.Operand))
    if len(marks) == 2 and not lists:
        return extreme(marks, how, *(p for p in parts if isinstance(p, tuple) and p is not how)) if how else None
    if len(lists) != 1 or how is None or any(isinstance(p, str) for p in parts):
        return None
    return extreme(lists[0], how, *(p for p in parts if p is not how and p is not lists[0] and p is not None))


@says(
    "core",
    "{arg}* (BE|DO|is it|was it) {list} [that] [HAVING|LIE|BE] ({comparative}|{superlative}) {arg}*",
    "{arg}* {list} [HAVING|LIE] ({comparative}|{superlative}) {arg}*",
    "{arg}* (BE|is) the ({comparative}|{superlative}) {list} {arg}*",
    "{arg}* whether {list} [HAVING|LIE|BE] ({comparative}|{superlative}) {arg}*",
)
def _either(*parts: Any) -> Any:
    return _which(*parts)


@says(
    "core",
    "{arg}* BE {thing} ({comparative}|{superlative}) {arg}* [to|from|than to|than from] {list}",
    "{arg}* WHICHEVER BE {thing} ({comparative}|{superlative}) (to|from) {list} {arg}*",
    "{arg}* WHICHEVER of {list} BE {thing} ({comparative}|{superlative}) (to|from) {arg}*",
)
def _nearer_to(*parts: Any) -> Any:
    thing = next(p for p in parts if isinstance(p, O.Operand))
    lists = [p for p in parts if isinstance(p, tuple) and p and isinstance(p[0], O.Operand)]
    how = next((p for p in parts if isinstance(p, tuple) and len(p) == 3 and isinstance(p[0], str)), None)
    if how is None or how[0] != "far" or len(lists) != 1:
        return None
    rest = [p for p in parts if p is not how and p is not lists[0] and not isinstance(p, O.Operand) and p is not None]
    return extreme(lists[0], how, ("subj", thing), *rest, role="from")


# ---- places and directions


@says(
    "core",
    "{arg}* where [exactly] (BE|DO) {thing} [LIE|be] {arg}*",
    "where {thing} (is|was|are|LIE) {arg}*",
    "{arg}* (find|locate) {thing} {arg}*",
    "{thing} where [is it] {arg}*",
)
def _where(a: Any, thing: Any = None, b: Any = ()) -> Any:
    if isinstance(a, O.Operand):
        thing, a, b = a, (), thing or ()
    bag = bag_of(a, b)
    if bag is None:
        return None
    core, floats = parted(bag)
    if not core and ("time" not in floats or isinstance(thing, O.Camera | O.Robot)):
        return all_finished([A.Locate(of=thing)], floats)
    if core.keys() == {"from"} and isinstance(core["from"], O.Camera | O.Robot):
        return all_finished([A.Direction(of=thing, viewpoint=viewpoint(core["from"]))], floats)
    return None


def viewpoint(at: O.Operand) -> A.Viewpoint:
    return A.Viewpoint(at=at)


says(
    "core",
    "[what BE|GIVE|GIVE me|what are] [DET] (position|location|coordinates|pose|place|3d position|3d coordinates|xyz) of {thing} {arg}*",
    "[what BE|GIVE|what are] {thing} POSS (position|location|coordinates|pose) {arg}*",
    "(position|coordinates|location|pose|xyz) {thing} {arg}*",
)(lambda thing, args: _where((), thing, args))
SIDES = {O.Where.LEFT_OF: "left", O.Where.RIGHT_OF: "right", O.Where.IN_FRONT_OF: "front", O.Where.BEHIND: "back"}


@says(
    "core",
    "{arg}* [in|to] (what|which) (direction|way) (BE|DO) {thing} [LIE] [in] {arg}*",
    "{arg}* {thing} BE [LIE] in (what|which) direction {arg}*",
    "[what is|GIVE] [the] (direction|bearing) (of|to|towards|for) {thing} {arg}*",
)
def _direction(*parts: Any) -> Any:
    thing = next(p for p in parts if isinstance(p, O.Operand))
    bag = bag_of(*(p for p in parts if not isinstance(p, O.Operand)))
    if bag is None:
        return None
    view = bag.pop("view", None)
    core, floats = parted(bag)
    if core.keys() <= {"from"} and not (view and core):
        at = core.get("from", O.Camera())
        return all_finished([A.Direction(of=thing, viewpoint=view or A.Viewpoint(at=at))], floats)
    return None


says(
    "arg",
    "standing (at|by|in|where) {thing} [and] [facing|looking (at|to|towards)] {thing}",
    "(if|when) (i|you) (am|are|stand|were|was) [standing] (at|by) {thing} [and] [am] (facing|looking at|face|look at|looking towards) {thing}",
)(lambda at, facing: Arg("view", A.Viewpoint(at=at, facing=facing)))
says("arg", "(facing|looking at) {thing} from {thing}", "(facing|looking at) {thing} [while] standing at {thing}")(
    lambda facing, at: Arg("view", A.Viewpoint(at=at, facing=facing))
)
says("arg", "standing at {thing}")(lambda at: Arg("view", A.Viewpoint(at=at)))


PIXEL = "(pixel|pixels|pixel position|pixel coordinates|pixel location|image coordinates|image position|image location|u and v|u v|u , v|(u , v)|u v coordinates|u , v coordinates|pixel coordinate|coordinates|x and y|position|location|(u v)|correspondence|place|u v position|spot)"
SHOWS = "(appear|appears|show up|shows up|land|land on|lands|fall|falls|project|project to|projected|reproject|reprojects|found|be|seen|be seen|map|map to|projects to|lie|lies|located|end up|ends up|moved|moved to|move|go|gone|sit|see|find|click|visible|be found|come to lie|correspond|corresponds|match|matches|shows|show)"


@says(
    "core",
    f"{{arg}}* [GIVE] [at|in|into|to|on] (what|which) [image] {PIXEL} [(BE|DO|HAVE|can|would|will)] [{{mover}}] [SHOWS] {{thing}} [LIE] [{SHOWS}] [at|to|in|on] {{arg}}*".replace(
        "[SHOWS]", f"[{SHOWS}]"
    ),
    f"{{arg}}* [what is|what are|GIVE|GIVE me] [the] [image] {PIXEL} [position|coordinates|location] (of|for) {{thing}} {{arg}}*",
    f"{{arg}}* [find|locate|GIVE] (where|whereabouts) {{arg}}* [is|are|was|would|will|does|do|did|can|has|could|should] [{{mover}}] [{SHOWS}] {{thing}} [{SHOWS}] [is|was|be] {{arg}}*",
    "{arg}* (project|reproject|find|locate|point out|track|GIVE|mark) {thing} {arg}* [and return the pixel|[which|what] pixel|where is it]",
    f"{{arg}}* {{thing}} [at|in] (which|what) {PIXEL} {{arg}}*",
    "{arg}* (find|GIVE) where {thing} is {arg}*",
    f"{{arg}}* (where|whereabouts) {{arg}}* {{thing}} [{SHOWS}] [is|was|be] {{arg}}*",
    f"{{arg}}* {{thing}} {PIXEL} {{arg}}*",
    "{arg}* where would i click {arg}* to select {thing}",
    "same point as {thing} but {arg}* which pixel",
    "{arg}* if i look at {seen_image} where (do|would|can) i (find|see) {thing}",
)
def _pixel(*parts: Any) -> Any:
    """Where in an image: it must say that it is the image, by its name or by the pixel."""
    things = [p for p in parts if isinstance(p, O.Operand)]
    bag = bag_of(*(p for p in parts if isinstance(p, tuple)))
    if bag is None or len(things) != 1 or isinstance(things[0], O.Camera | O.Robot | O.Room):
        return None
    moment = bag.pop("shot", None)
    moment = bag.pop("time", moment) if moment is None else moment
    bag.pop("image", None)
    return all_finished([A.Pixel(of=things[0], at=moment)], {}) if moment is not None and not bag else None


says("seen_image", "the {moment_mark} (image|frame|picture)", "the IMAGE [TAKEN] (at|from|of) {moment}")(lambda moment: Arg("shot", moment))
says(
    "arg", "(in|on|within|to) (the|its) (image|picture|frame|screen|camera frame|camera image|photo|view)", "on screen"
)(lambda: Arg("image", True))
