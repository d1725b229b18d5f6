"""What could be asked instead: canonical questions about what a text marks."""

from __future__ import annotations

from collections.abc import Iterator

from spatial_mllm_ros.language.tokens import Token
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.query import Query

MOST = 3
"""Questions offered at most."""

_WORDS = {
    M.Distance: "far close near away distance apart from separate gap reach range metres meters",
    M.Height: "high height low higher lower above below floor ceiling up tall elevation",
    M.Depth: "deep depth z",
    M.Extent: "wide width tall long length narrow high height broad",
    A.Dimensions: "big large size dimensions small",
    A.Visible: "see seen visible view hidden image show",
    A.Extreme: "which closest nearest closer farther highest",
    A.Relation: "left right behind front",
    M.PathLength: "drive driven travel path walked moved move far",
    M.Turn: "turn rotate angle degrees heading",
    M.Elapsed: "time seconds long passed when",
}


def suggestions(tokens: tuple[Token, ...]) -> list[Query]:
    """Up to three questions about the marks of a text, those first that share words with it."""
    words = {t.text for t in tokens}
    scored = []
    for n, query in enumerate(_possible(tokens)):
        ask = query.ask
        kind = type(ask.of) if isinstance(ask, A.Value) else type(ask)
        scored.append((-len(words & set(_WORDS.get(kind, "").split())), n, query))
    scored.sort(key=lambda s: s[:2])
    marked = any(t.kind in ("p", "box", "t") for t in tokens)
    return [query for score, _, query in scored[:MOST] if score < 0 or marked]


def _possible(tokens: tuple[Token, ...]) -> Iterator[Query]:
    things: list[O.Operand] = list(
        dict.fromkeys(
            O.Point(index=int(t.value)) if t.kind == "p" else O.Box(index=int(t.value))
            for t in tokens
            if t.kind in ("p", "box")
        )
    )
    times = list(dict.fromkeys(T.MarkedMoment(index=int(t.value)) for t in tokens if t.kind == "t"))
    at = times[0] if times else None
    asks: list[A.Value | A.Dimensions | A.Visible | A.Extreme | A.Relation] = []
    if len(things) > 1:
        asks += [A.Value(of=M.Distance(a=things[0], b=things[1])), A.Value(of=M.Height(of=things[0], above=things[1]))]
        asks.append(A.Extreme(of=tuple(M.Distance(a=x, b=O.Camera(at=at)) for x in things), which=A.Which.SMALLEST))
        asks.append(A.Relation(a=things[0], where=O.Where.LEFT_OF, b=things[1]))
    if things:
        asks += [
            A.Value(of=M.Distance(a=things[0], b=O.Camera(at=at))),
            A.Value(of=M.Height(of=things[0])),
            A.Visible(of=things[0], at=at or T.Now()),
        ]
    if things and isinstance(things[0], O.Box):
        asks += [
            A.Dimensions(of=things[0]),
            *(A.Value(of=M.Extent(of=things[0], dimension=d)) for d in (M.Dimension.WIDTH, M.Dimension.HEIGHT, M.Dimension.LENGTH)),
        ]
    elif things:
        asks.append(A.Value(of=M.Depth(of=things[0])))
    if len(times) > 1 and not things:
        span = T.Span(begin=times[0], end=times[1])
        asks += [A.Value(of=m) for m in (M.PathLength(span=span), M.Turn(span=span), M.Elapsed(span=span))]
    if not things and not times:
        asks += [
            A.Value(of=M.PathLength()),
            A.Value(of=M.Height(of=O.Camera(at=T.Now()))),
            A.Value(of=M.Height(of=O.Ceiling())),
            A.Dimensions(of=O.Room()),
        ]
    yield from (Query(ask=ask) for ask in asks)
