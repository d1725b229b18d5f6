"""What could be asked instead: canonical questions about what a text marks."""

from __future__ import annotations

from collections.abc import Iterator

from spatial_mllm_ros.language.tokens import Token
from spatial_mllm_ros.queries.asks import Dimensions, Extreme, Relation, Value, Visible, Which
from spatial_mllm_ros.queries.measures import Depth, Distance, Elapsed, Extent, Height, PathLength, Turn
from spatial_mllm_ros.queries.measures import Dimension as D
from spatial_mllm_ros.queries.moments import MarkedMoment, Now, Span
from spatial_mllm_ros.queries.operands import Box, Camera, Ceiling, Operand, Point, Room, Where
from spatial_mllm_ros.queries.query import Query

MOST = 3
"""Questions offered at most."""

_WORDS = {
    Distance: "far close near away distance apart from separate gap reach range metres meters",
    Height: "high height low higher lower above below floor ceiling up tall elevation",
    Depth: "deep depth z",
    Extent: "wide width tall long length narrow high height broad",
    Dimensions: "big large size dimensions small",
    Visible: "see seen visible view hidden image show",
    Extreme: "which closest nearest closer farther highest",
    Relation: "left right behind front",
    PathLength: "drive driven travel path walked moved move far",
    Turn: "turn rotate angle degrees heading",
    Elapsed: "time seconds long passed when",
}


def suggestions(tokens: tuple[Token, ...]) -> list[Query]:
    """Up to three questions about the marks of a text, those first that share words with it."""
    words = {t.text for t in tokens}
    scored = []
    for n, query in enumerate(_possible(tokens)):
        ask = query.ask
        kind = type(ask.of) if isinstance(ask, Value) else type(ask)
        scored.append((-len(words & set(_WORDS.get(kind, "").split())), n, query))
    scored.sort(key=lambda s: s[:2])
    marked = any(t.kind in ("p", "box", "t") for t in tokens)
    return [query for score, _, query in scored[:MOST] if score < 0 or marked]


def _possible(tokens: tuple[Token, ...]) -> Iterator[Query]:
    things: list[Operand] = list(
        dict.fromkeys(
            Point(index=int(t.value)) if t.kind == "p" else Box(index=int(t.value))
            for t in tokens
            if t.kind in ("p", "box")
        )
    )
    times = list(dict.fromkeys(MarkedMoment(index=int(t.value)) for t in tokens if t.kind == "t"))
    at = times[0] if times else None
    asks: list[Value | Dimensions | Visible | Extreme | Relation] = []
    if len(things) > 1:
        asks += [Value(of=Distance(a=things[0], b=things[1])), Value(of=Height(of=things[0], above=things[1]))]
        asks.append(Extreme(of=tuple(Distance(a=x, b=Camera(at=at)) for x in things), which=Which.SMALLEST))
        asks.append(Relation(a=things[0], where=Where.LEFT_OF, b=things[1]))
    if things:
        asks += [
            Value(of=Distance(a=things[0], b=Camera(at=at))),
            Value(of=Height(of=things[0])),
            Visible(of=things[0], at=at or Now()),
        ]
    if things and isinstance(things[0], Box):
        asks += [
            Dimensions(of=things[0]),
            *(Value(of=Extent(of=things[0], dimension=d)) for d in (D.WIDTH, D.HEIGHT, D.LENGTH)),
        ]
    elif things:
        asks.append(Value(of=Depth(of=things[0])))
    if len(times) > 1 and not things:
        span = Span(begin=times[0], end=times[1])
        asks += [Value(of=m) for m in (PathLength(span=span), Turn(span=span), Elapsed(span=span))]
    if not things and not times:
        asks += [
            Value(of=PathLength()),
            Value(of=Height(of=Camera(at=Now()))),
            Value(of=Height(of=Ceiling())),
            Dimensions(of=Room()),
        ]
    yield from (Query(ask=ask) for ask in asks)
