"""Sentences: what is asked of the things, moments and quantities of ``phrases``. ``read`` in reader.py begins here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from spatial_mllm_ros.language.chart import Several
from spatial_mllm_ros.language.phrases import Arg, Bound, Quantity, rebuilt, says, si
from spatial_mllm_ros.language.scales import LESS, MORE, measures
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
        inner: dict[str, Any] | None
        if isinstance(arg, dict):
            inner = arg
        elif arg and isinstance(arg[0], str):
            inner = {arg[0]: arg[1]}
        else:
            inner = bag_of(*arg or ())
        if inner is None or any(bag.get(role, value) != value for role, value in inner.items()):
            return None
        bag |= inner
    return bag


class Parts:
    """The values of a pattern, by what they are: ``one(kind)`` and ``all(kind)``; what was added is in ``bag``.

    mover: whether the camera or robot was named as what moves (or a word that only has to be there).
    """

    def __init__(self, values: Iterable[Any]) -> None:
        self.values: list[Any] = []
        self.args: list[Arg] = []
        self.mover = False
        for value in values:
            if isinstance(value, Arg):
                self.args.append(value)
            elif type(value) is tuple:  # repeated
                inner = Parts(value)
                self.values += inner.values
                self.args += inner.args
            elif value is True:
                self.mover = True
            elif value is not None:
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


class Finished(NamedTuple):
    """A measure with what was added in its place, and what still floats: unit and total."""

    measure: M.Measure
    args: tuple[Any, ...]


def measure_of(measure: M.Measure | None, *args: Any) -> Finished | None:
    """A measure with time, span, metric and ends in their place."""
    bag = bag_of(*args)
    if measure is None or bag is None or any(k not in FLOATING for k in bag):
        return None
    unit, total = bag.pop("unit", None), bag.pop("total", None)
    query = finished(A.Value(of=measure), bag)
    if query is None or not isinstance(query.ask, A.Value):
        return None
    floats = tuple((k, v) for k, v in (("unit", unit), ("total", total)) if v is not None)
    return Finished(query.ask.of, floats)


OPPOSITE = {
    A.Comparison.MORE: A.Comparison.AT_MOST,
    A.Comparison.LESS: A.Comparison.AT_LEAST,
    A.Comparison.AT_MOST: A.Comparison.MORE,
    A.Comparison.AT_LEAST: A.Comparison.LESS,
}
"""What a comparison is when it is denied."""


@dataclass(frozen=True)
class Than:
    """What stands after "than", so that it is not taken for what is added to the question ("from the robot")."""

    of: Any
