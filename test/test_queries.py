"""Typed queries: what they refuse, and that JSON loses nothing."""

from __future__ import annotations

import dataclasses
import json
import types
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.queries.asks import Compare, Comparison, Extreme, Threshold, Value, Visible, Which
from spatial_mllm_ros.queries.measures import Depth, Distance, Elapsed, Height
from spatial_mllm_ros.queries.operands import Camera, Object, Point
from spatial_mllm_ros.queries.query import Query, boxes_of, points_of, times_of
from spatial_mllm_ros.queries.serialization import concrete, from_json, json_schema, to_json
from spatial_mllm_ros.queries.term import InvalidQuery, Term

P0, P1, P2 = (Point(index=i) for i in range(3))


def terms_of(base: type[Term], depth: int = 0) -> st.SearchStrategy[Any]:
    """Any term of a kind; deep ones are cut short by what is optional."""
    classes = [base] if base is Query else concrete(base)
    return st.sampled_from(classes).flatmap(lambda cls: _instances(cls, depth)).filter(lambda term: term is not None)


def _instances(cls: type[Term], depth: int) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    fields = {f.name: _values(hints[f.name], depth + 1) for f in dataclasses.fields(cls)}

    def make(**values: Any) -> Term | None:
        try:
            return cls(**values)
        except InvalidQuery:
            return None

    return st.builds(make, **fields)


def _values(hint: Any, depth: int) -> st.SearchStrategy[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        inner = next(a for a in get_args(hint) if a is not type(None))
        return st.none() if depth > 3 else st.none() | _values(inner, depth)
    if get_origin(hint) is tuple:
        return st.lists(_values(get_args(hint)[0], depth), min_size=2, max_size=4, unique=True).map(tuple)
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    if issubclass(hint, Term):
        return terms_of(hint, depth)
    return {
        bool: st.booleans(),
        int: st.integers(0, 9),
        float: st.floats(0, 9, allow_nan=False).map(lambda x: round(x, 3)),
        str: st.sampled_from(["", "chair", "m", "map"]),
    }[hint]


@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
@given(terms_of(Query))
def test_json_gives_every_query_back(query: Query) -> None:
    assert from_json(json.loads(json.dumps(to_json(query)))) == query


def test_a_query_in_json_is_short_enough_to_be_written_by_hand() -> None:
    query = Query(ask=Value(of=Distance(a=P0, b=P1)))
    assert to_json(query) == {
        "ask": {
            "type": "value",
            "of": {"type": "distance", "a": {"type": "point", "index": 0}, "b": {"type": "point", "index": 1}},
        }
    }


def test_the_schema_knows_every_term_and_all_of_its_references() -> None:
    text = json.dumps(json_schema())
    for name in Term.registry:
        assert name in json_schema()["$defs"], f"{name} is not in the schema"
    for name in {part.split('"')[0] for part in text.split("#/$defs/")[1:]}:
        assert name in json_schema()["$defs"], f"the schema refers to {name}, which is not in it"


def test_every_kind_of_question_says_what_it_is() -> None:
    for name, cls in Term.registry.items():
        assert cls.__doc__, f"{name} has no docstring"
        assert not cls.__doc__.startswith(cls.__name__ + "("), f"{name} has only the docstring that dataclass makes"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "query.ask is missing"),
        ([], "query must be an object"),
        ({"ask": {"type": "nonsense"}}, "query.ask.type must be one of"),
        ({"ask": {"type": "value", "of": {"type": "depth"}}}, "query.ask.of.of is missing"),
        ({"ask": {"type": "unseen"}, "unit": "furlong"}, "unknown unit 'furlong'"),
        ({"ask": {"type": "unseen"}, "negated": True}, "only what is answered with yes or no"),
        ({"ask": {"type": "unseen"}, "negated": 1}, "must be true or false"),
        ({"ask": {"type": "unseen", "color": 1}}, "has no field 'color'"),
        ({"ask": {"type": "locate", "of": {"type": "point", "index": -1}}}, "must not be negative"),
        ({"ask": {"type": "locate", "of": {"type": "point", "index": True}}}, "must be an integer"),
        ({"ask": {"type": "locate", "of": {"type": "position", "x": 1e9, "y": 0, "z": 0}}}, "is no position"),
        ({"ask": {"type": "locate", "of": {"type": "object", "name": "a\nb"}}}, "printable"),
    ],
)
def test_what_is_wrong_with_a_query_is_told_with_its_place(data: Any, says: str) -> None:
    with pytest.raises(InvalidQuery, match="(?s).*" + says.replace(".", r"\.")):
        from_json(data)


def test_a_query_nested_without_end_is_refused() -> None:
    inner: dict[str, Any] = {"type": "object", "name": "mug"}
    for _ in range(100):
        inner = {"type": "object", "name": "mug", "where": "on", "to": inner}
    with pytest.raises(InvalidQuery, match="nested deeper"):
        from_json({"ask": {"type": "locate", "of": inner}})


def test_measures_of_different_kinds_are_not_compared() -> None:
    with pytest.raises(InvalidQuery, match="length and time"):
        Compare(a=Distance(a=P0, b=P1), comparison=Comparison.MORE, b=Elapsed())


def test_what_cannot_be_asked_is_no_query() -> None:
    with pytest.raises(InvalidQuery):
        Distance(a=P0, b=P0)
    with pytest.raises(InvalidQuery):
        Height(of=P0, above=P0)
    with pytest.raises(InvalidQuery):
        Extreme(of=(Depth(of=P0),), which=Which.LARGEST)
    with pytest.raises(InvalidQuery):
        Extreme(of=(Depth(of=P0), Depth(of=P1)), which=Which.LARGEST, rank=3)
    with pytest.raises(InvalidQuery):
        Threshold(of=Depth(of=P0), comparison=Comparison.LESS, value=float("nan"))
    with pytest.raises(InvalidQuery):
        Object(name=" ")


def test_marks_are_listed_in_order_and_once() -> None:
    nearest = Extreme(of=tuple(Distance(a=p, b=Camera()) for p in (P2, P0, P1)), which=Which.SMALLEST)
    assert points_of(Query(ask=nearest)) == (2, 0, 1)
    assert boxes_of(Query(ask=nearest)) == times_of(Query(ask=nearest)) == ()
    assert points_of(Query(ask=Visible(of=P1))) == (1,)
