"""Sizes of things that a point does not tell: "How deep is the sink at <p0>?" asks about the sink, not about the point."""

from __future__ import annotations

from collections.abc import Sequence

from spatial_mllm_ros.language.phrases import LEXICON
from spatial_mllm_ros.language.tokens import Token
from spatial_mllm_ros.queries.asks import Value
from spatial_mllm_ros.queries.measures import Distance, Metric
from spatial_mllm_ros.queries.query import Query

_SIZES = {"deep", "high", "depth", "height"}
"""Words for a size of a thing that are as well words for where a point is."""
_AT = {"at", "marked", "under", "by", "with", "as", "that", "which", "is", "shown", "seen"}
_WHERE = {
    *("above", "over", "off", "from", "up", "floor", "ground", "camera", "sensor", "lens", "robot", "away", "mounted"),
    *("z", "map", "value", "reading", "image", "elevation", "distance", "range", "below", "beneath"),
}
"""Words that say that where the point is, is meant."""
_NO_THINGS = {"surface", "scene", "spot", "depth", "height", "measurement", "metres", "meters", *LEXICON["POINT"]}

_HEIGHTS = {"height", "elevation", "altitude"}
_DISTANCES = {
    "distance",
    "far",
    "apart",
    "range",
    "away",
    "gap",
    "space",
    "close",
    "near",
    "separation",
    "length",
    "between",
}


def height_of_two(tokens: Sequence[Token], query: Query) -> bool:
    """Whether words that name a height, and no distance, would be taken for the distance of two things."""
    of = query.ask.of if isinstance(query.ask, Value) else None
    words = {t.text for t in tokens}
    return (
        isinstance(of, Distance) and of.metric is Metric.STRAIGHT and bool(_HEIGHTS & words) and not _DISTANCES & words
    )


def own_size(tokens: Sequence[Token]) -> str:
    """The thing whose own size the words may ask for, though a mere point marks it; '' where there is none."""
    words = [t.text for t in tokens]
    asked = next((i for i, word in enumerate(words) if word in _SIZES), None)
    mark = next((i for i, token in enumerate(tokens) if token.kind == "p"), None)
    if asked is None or mark is None or mark < asked or _WHERE & set(words):
        return ""
    end = mark
    while end > asked and words[end - 1] in _AT:
        end -= 1
    label = words[end - 1]
    if end == mark or end - 1 == asked or label in _NO_THINGS or tokens[end - 1].kind != "word":
        return ""
    if label in LEXICON["THING"] and words[asked] in ("deep", "depth"):
        return ""
    return label
