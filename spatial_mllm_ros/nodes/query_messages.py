"""Typed queries to messages and back; queries/layout.py says what lies where."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any, Protocol, cast

from spatial_mllm_ros.queries.asks import Ask, Viewpoint
from spatial_mllm_ros.queries.layout import (
    LANDMARK,
    LISTS,
    SELECTORS,
    Field,
    classes,
    code,
    enum_code,
    fields_of,
    kind_of,
)
from spatial_mllm_ros.queries.measures import Measure
from spatial_mllm_ros.queries.moments import Moment, Span
from spatial_mllm_ros.queries.operands import Operand
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.term import InvalidQuery, Term

PACKAGE = "spatial_mllm_ros"
SECOND = 1_000_000_000
MOST_PARTS = 64
"""Parts in one list of a message; more are a mistake, or worse."""


class Maker(Protocol):
    """What makes a message; see convert.py."""

    def new(self, name: str, /, **fields: Any) -> Any:
        """A message of the type, with all of its fields."""
        ...

    def octets(self, data: Any) -> Any:
        """A value for a field of type uint8[]."""
        ...


def query_message(query: Query | None, make: Maker) -> Any:
    """msg/Query; that of None has ask 0."""
    if query is None:
        return _message(None, "Query", make, {"negated": False, "unit": "", "frame_id": "", "window": []})
    own = {"negated": query.negated, "unit": query.unit, "frame_id": query.frame_id}
    window = [] if query.window is None else [_span(query.window, make)]
    return _message(query.ask, "Query", make, {**own, "window": window})


def query_of(message: Any, where: str = "query") -> Query | None:
    """The query in msg/Query, None where its ask is 0. Raises InvalidQuery, which names the place, as in ``where``."""
    if not message.ask:
        return None
    _check_length(message.window, f"{where}.window", 1)
    return Query(
        ask=_required(_term(message, Ask, where), where),
        negated=bool(message.negated),
        unit=message.unit,
        frame_id=message.frame_id.lstrip("/"),
        window=_span_of(message.window[0], f"{where}.window[0]") if len(message.window) else None,
    )


def _message(term: Term | None, name: str, make: Maker, more: dict[str, Any] | None = None) -> Any:
    """The message of a term, or the one that stands for none."""
    kind = Operand if name == LANDMARK else next(k for k, (message, _) in SELECTORS.items() if message == name)
    values: dict[str, Any] = {SELECTORS[kind][1]: 0 if term is None else code(type(term))}
    for cls in classes(kind):
        for field in fields_of(cls):
            if field.part is Viewpoint:
                values |= {"viewpoint_at": None, "viewpoint_facing": None}
            elif field.part is not None:
                if not (name == LANDMARK and issubclass(field.part, Operand)):
                    values.setdefault(_list_of(field), [])
            elif field.name == "stamp_ns":
                values["stamp"] = 0
            elif field.many:
                values[field.name] = []
            else:
                values[field.name] = 0 if issubclass(_scalar(field), Enum) else _scalar(field)()
    for field in () if term is None else fields_of(type(term)):
        value = getattr(term, field.name)
        if isinstance(value, Viewpoint):
            values |= {"viewpoint_at": value.at, "viewpoint_facing": value.facing}
        elif field.part is not None:
            if _list_of(field) in values:
                values[_list_of(field)] += list(value) if field.many else [value]
        elif field.many:
            values[field.name] = [enum_code(v) for v in value]
        elif isinstance(value, Enum):
            values[field.name] = enum_code(value)
        elif value is not None:
            values["stamp" if field.name == "stamp_ns" else field.name] = value
    for key, value in values.items():
        if key in LISTS.values():
            while value and value[-1] is None:
                value.pop()
            values[key] = [_part(v, key, name, make) for v in value]
        elif key.startswith("viewpoint"):
            values[key] = _message(value, "Operand", make)
        elif key == "stamp":
            sec, nanosec = divmod(value, SECOND)
            values[key] = make.new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        elif isinstance(value, list):
            values[key] = make.octets(bytes(value))
    return make.new(f"{PACKAGE}/msg/{name}", **values, **(more or {}))


def _part(value: Term | None, key: str, holder: str, make: Maker) -> Any:
    if key == LISTS[Span]:
        return _span(value if isinstance(value, Span) else None, make)
    inner = {LISTS[Measure]: "Measure", LISTS[Moment]: "Moment"}.get(key, LANDMARK if holder == "Operand" else "Operand")
    return _message(value, inner, make)


def _span(span: Span | None, make: Maker) -> Any:
    begin, end = (None, None) if span is None else (span.begin, span.end)
    return make.new(f"{PACKAGE}/msg/Span", begin=_message(begin, "Moment", make), end=_message(end, "Moment", make))


def _term(message: Any, kind: type[Term], where: str) -> Term | None:
    selector = SELECTORS[kind][1]
    number = int(getattr(message, selector))
    if not number:
        return None
    known = classes(kind)
    if number > len(known):
        raise InvalidQuery(f"{where}.{selector} is {number}, of which nothing is known; the largest is {len(known)}")
    cls = known[number - 1]
    given: dict[str, int] = {}
    values: dict[str, Any] = {}
    for field in fields_of(cls):
        value = _field(message, field, where, given)
        if value is None and field.default is not dataclasses.MISSING:
            continue
        if value is None or value == ():
            raise InvalidQuery(f"{where}: {cls.type_name} needs {field.name}")
        values[field.name] = value
    for key, count in given.items():
        held = len(getattr(message, key, ()))  # a Landmark has no operands
        if held > count:
            raise InvalidQuery(f"{where}.{key} holds {held}; {cls.type_name} takes {count}")
    try:
        return cls(**values)
    except InvalidQuery as error:
        raise InvalidQuery(f"{where}: {error}") from error


def _field(message: Any, field: Field, where: str, given: dict[str, int]) -> Any:
    """The value of a field, None where the message leaves it at its default. given: parts taken from each list."""
    if field.part is Viewpoint:
        at = _term(message.viewpoint_at, Operand, f"{where}.viewpoint_at")
        facing = _term(message.viewpoint_facing, Operand, f"{where}.viewpoint_facing")
        given_at: Any = {} if at is None else {"at": at}
        return None if at is None and facing is None else Viewpoint(**given_at, facing=cast(Operand | None, facing))
    if field.part is not None:
        key = _list_of(field)
        parts = getattr(message, key, ())
        _check_length(parts, f"{where}.{key}", MOST_PARTS)
        first = given.get(key, 0)
        last = len(parts) if field.many else first + 1
        given[key] = last
        found = tuple(
            _span_of(p, f"{where}.{key}[{i}]")
            if field.part is Span
            else _term(p, _kind_of_part(field), f"{where}.{key}[{i}]")
            for i, p in enumerate(parts[first:last], first)
        )
        if field.many:
            return tuple(_required(part, f"{where}.{key}[{i}]") for i, part in enumerate(found, first))
        part = found[0] if found else None
        if part is not None and not isinstance(part, field.part):
            raise InvalidQuery(f"{where}: {field.name} must be a {field.part.type_name}, not a {part.type_name}")
        return part
    if field.name == "stamp_ns":
        return int(message.stamp.sec) * SECOND + int(message.stamp.nanosec)
    value = getattr(message, field.name)
    scalar = _scalar(field)
    if issubclass(scalar, Enum):
        if field.many:
            return tuple(_member(scalar, int(v), f"{where}.{field.name}") for v in value)
        return _member(scalar, int(value), f"{where}.{field.name}") if value else None
    value = scalar(value)
    return None if not value and field.default not in (dataclasses.MISSING, value) else value


def _kind_of_part(field: Field) -> type[Term]:
    """The kind (see layout.SELECTORS) of what a field holds."""
    part = field.part or Term
    return part if part in SELECTORS else kind_of(part)


def _list_of(field: Field) -> str:
    return LISTS[Span] if field.part is Span else LISTS[_kind_of_part(field)]


def _scalar(field: Field) -> Any:
    return field.scalar or str


def _member(enum: type[Enum], number: int, where: str) -> Enum:
    members = list(enum)
    if not 1 <= number <= len(members):
        raise InvalidQuery(f"{where} is {number}, of which nothing is known; the largest is {len(members)}")
    return members[number - 1]


def _span_of(message: Any, where: str) -> Span | None:
    begin = _term(message.begin, Moment, f"{where}.begin")
    end = _term(message.end, Moment, f"{where}.end")
    if begin is None and end is None:
        return None
    return Span(begin=_required(begin, f"{where}.begin"), end=_required(end, f"{where}.end"))


def _required(term: Term | None, where: str) -> Any:
    if term is None:
        raise InvalidQuery(f"{where} is missing: its kind is 0")
    return term


def _check_length(parts: Any, where: str, most: int) -> None:
    if len(parts) > most:
        raise InvalidQuery(f"{where} holds {len(parts)}; at most {most} are taken")
