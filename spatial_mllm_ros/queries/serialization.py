"""Queries as JSON, and the JSON Schema of it; both follow from the dataclasses' type hints.

A term is an object with its ``type`` and its fields, those at their defaults left out:
``{"ask": {"type": "value", "of": {"type": "distance", "a": {"type": "point", "index": 0}, …}}}``.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from spatial_mllm_ros.queries import asks, measures, moments, operands  # noqa: F401  they register their terms
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.term import InvalidQuery, Term

MAX_DEPTH = 12
"""Terms within terms at most; the deepest that can be expressed are seven."""
MAX_ITEMS = 64
"""Terms in a list at most."""

SCHEMA_ID = "urn:spatial_mllm_ros:query"


def to_json(term: Term) -> dict[str, Any]:
    """A term as JSON-serialisable values. ``from_json`` gives it back."""
    out: dict[str, Any] = {} if isinstance(term, Query) else {"type": term.type_name}
    for field in dataclasses.fields(term):
        value = getattr(term, field.name)
        if field.default is dataclasses.MISSING or value != field.default:
            out[field.name] = _plain(value)
    return out


def from_json(data: Any) -> Query:
    """The query that ``to_json`` wrote. Raises InvalidQuery, which names the place and what is allowed there."""
    return cast(Query, _term(data, Query, "query", 0))


@cache
def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a query."""
    definitions: dict[str, Any] = {}
    for name, cls in sorted(Term.registry.items()):
        hints = _hints(cls)
        properties: dict[str, Any] = {} if cls is Query else {"type": {"const": name}}
        required = [] if cls is Query else ["type"]
        for field in dataclasses.fields(cls):
            properties[field.name] = _schema_of(hints[field.name])
            if field.default is dataclasses.MISSING:
                required.append(field.name)
        definitions[name] = {
            "type": "object",
            "description": (cls.__doc__ or "").strip(),
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "A query about the space that a camera has seen",
        "$ref": "#/$defs/query",
        "$defs": definitions,
    }


def concrete(base: type[Term]) -> list[type[Term]]:
    """The terms that are a ``base``, by name."""
    return [cls for _, cls in sorted(Term.registry.items()) if issubclass(cls, base)]


def _hints(cls: type[Term]) -> dict[str, Any]:
    return _hints_of(cls.type_name)


@cache
def _hints_of(name: str) -> dict[str, Any]:
    return get_type_hints(Term.registry[name])


def _plain(value: Any) -> Any:
    if isinstance(value, Term):
        return to_json(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def _term(data: Any, base: type[Term], where: str, depth: int) -> Term:
    if depth > MAX_DEPTH:
        raise InvalidQuery(f"{where}: nested deeper than any query is")
    if not isinstance(data, Mapping):
        raise InvalidQuery(f"{where} must be an object, not {_what(data)}")
    cls = base
    if base is not Query:
        known = {c.type_name: c for c in concrete(base)}
        name = data.get("type")
        if not isinstance(name, str) or name not in known:
            raise InvalidQuery(f"{where}.type must be one of {', '.join(known)}, not {_what(name)}")
        cls = known[name]
    names = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(str(k) for k in data if k not in names and not (k == "type" and cls is not Query))
    if unknown:
        raise InvalidQuery(f"{where} has no field {unknown[0][:50]!r}: {cls.type_name} has {', '.join(names) or 'none'}")
    hints, values = _hints(cls), {}
    for name, field in names.items():
        if name in data:
            values[name] = _value(data[name], hints[name], f"{where}.{name}", depth + 1)
        elif field.default is dataclasses.MISSING:
            raise InvalidQuery(f"{where}.{name} is missing")
    try:
        return cls(**values)
    except InvalidQuery as error:
        raise InvalidQuery(f"{where}: {error}") from error


def _value(data: Any, hint: Any, where: str, depth: int) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [a for a in get_args(hint) if a is not type(None)]
        return None if data is None else _value(data, inner[0], where, depth)
    if origin is tuple:
        if not isinstance(data, list | tuple) or len(data) > MAX_ITEMS:
            raise InvalidQuery(f"{where} must be a list of at most {MAX_ITEMS}, not {_what(data)}")
        return tuple(_value(d, get_args(hint)[0], f"{where}[{i}]", depth) for i, d in enumerate(data))
    if issubclass(hint, Term):
        return _term(data, hint, where, depth)
    if issubclass(hint, Enum):
        try:
            return hint(data)
        except ValueError:
            raise InvalidQuery(
                f"{where} must be one of {', '.join(str(e.value) for e in hint)}, not {_what(data)}"
            ) from None
    if hint is float and isinstance(data, int) and not isinstance(data, bool) and abs(data) < 2**1000:
        return float(data)
    if type(data) is not hint or (hint is float and not math.isfinite(data)):
        raise InvalidQuery(f"{where} must be {_NAMES[hint]}, not {_what(data)}")
    return data


_NAMES = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}


def _what(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _schema_of(hint: Any) -> dict[str, Any]:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [a for a in get_args(hint) if a is not type(None)]
        return {"anyOf": [_schema_of(inner[0]), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _schema_of(get_args(hint)[0]), "minItems": 2, "maxItems": MAX_ITEMS}
    if issubclass(hint, Enum):
        return {"enum": [e.value for e in hint], "description": (hint.__doc__ or "").strip()}
    if issubclass(hint, Term):
        options = [{"$ref": f"#/$defs/{c.type_name}"} for c in concrete(hint)]
        return options[0] if len(options) == 1 else {"anyOf": options}
    if hint is int:
        return {"type": "integer", "minimum": 0}
    return {"type": {bool: "boolean", float: "number", str: "string"}[hint]}
