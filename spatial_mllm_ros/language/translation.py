"""A language model as translator: what it is told, what it may reply, and how a reply becomes a query.

The model translates words of any language into the algebra, no more: it never sees an image and never computes a number.
Its reply is held to a JSON Schema, read strictly, and checked against the marks of the request before it counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from spatial_mllm_ros.queries.asks import (
    Ask,
    Comparison,
    Extreme,
    Relation,
    Threshold,
    Value,
    Viewpoint,
    Visible,
    Which,
)
from spatial_mllm_ros.queries.layout import classes, fields_of
from spatial_mllm_ros.queries.measures import (
    Depth,
    Dimension,
    Distance,
    Event,
    Extent,
    Height,
    Measure,
    PathLength,
    SeenTime,
    Turn,
)
from spatial_mllm_ros.queries.moments import Ago, MarkedMoment, Moment, Now, Span
from spatial_mllm_ros.queries.operands import Box, Camera, Object, Operand, Point, Where
from spatial_mllm_ros.queries.query import Query, boxes_of, points_of, times_of
from spatial_mllm_ros.queries.serialization import from_json, json_schema, to_json
from spatial_mllm_ros.queries.term import InvalidQuery, Term

MAX_REPLY = 20_000
"""Characters of a reply at most; the longest query that can be asked is a tenth of that."""
MAX_TURNS = 4
"""Earlier questions of a conversation that the model is told, the latest ones."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """An earlier question of a conversation, and what it was read as."""

    question: str
    query: Query


@dataclass(frozen=True, kw_only=True)
class Translation:
    """What a reply says: a query, or why there is none."""

    query: Query | None = None
    reason: str = ""


class BadReply(ValueError):
    """A reply that is no translation. ``str()`` says why."""


def reply_schema() -> dict[str, Any]:
    """JSON Schema of a reply: a query, or null with the reason."""
    schema = dict(json_schema())
    definitions = schema.pop("$defs")
    return {
        "$schema": schema["$schema"],
        "type": "object",
        "properties": {
            "query": {"anyOf": [{"$ref": "#/$defs/query"}, {"type": "null"}]},
            "reason": {"type": "string", "description": "why query is null, in one line; empty otherwise"},
        },
        "required": ["query", "reason"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def messages(
    question: str, *, points: int, boxes: int, times: int, choices: Sequence[str] = (), history: Sequence[Exchange] = ()
) -> list[dict[str, str]]:
    """The chat that asks for a translation: roles and contents. points, boxes, times: how many the request has."""
    chat = [{"role": "system", "content": instructions()}]
    for turn in history[-MAX_TURNS:]:
        chat += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": json.dumps({"query": to_json(turn.query), "reason": ""})},
        ]
    marks = [
        f"<{name}{i}>" for name, count in (("p", points), ("box", boxes), ("t", times)) for i in range(min(count, 32))
    ]
    notes = [f"Marks of this request: {', '.join(marks) or 'none'}."]
    if choices:
        notes.append("The answer will be one of: " + "; ".join(choices))
    return [*chat, {"role": "user", "content": "\n".join([question, *notes])}]


def translation_of(reply: str, question: str, *, points: int, boxes: int, times: int) -> Translation:
    """What a reply says. Raises BadReply for what is not held to the schema or speaks of marks that are not there."""
    if len(reply) > MAX_REPLY:
        raise BadReply(f"the reply has {len(reply)} characters, more than any query needs")
    try:
        data = json.loads(reply, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadReply(f"the reply is no JSON: {error}") from error
    if not isinstance(data, dict) or set(data) - {"query", "reason"} or "query" not in data:
        raise BadReply("the reply must be an object with query and reason")
    if data["query"] is None:
        reason = data.get("reason")
        return Translation(reason=" ".join(reason.split())[:300] if isinstance(reason, str) else "")
    try:
        query = from_json(data["query"])
    except InvalidQuery as error:
        raise BadReply(str(error)) from error
    for name, used, count in (
        ("p", points_of(query), points),
        ("box", boxes_of(query), boxes),
        ("t", times_of(query), times),
    ):
        for index in used:
            if index >= count:
                raise BadReply(f"it speaks of <{name}{index}>, which the request does not have")
        named = {int(i) for i in re.findall(rf"<{name}(\d{{1,4}})>", question)}
        if lost := sorted(named - set(used)):
            raise BadReply(f"<{name}{lost[0]}> of the question is not in what it was read as")
    return Translation(query=query)


@cache
def instructions() -> str:
    """What the model is told: the algebra, in one line a term, and examples."""
    parts = [_HEAD]
    for kind, title in ((Ask, "What can be asked"), (Measure, "Measures"), (Operand, "Things"), (Moment, "Moments")):
        parts += ["", f"{title}:"]
        parts += [f"- {_line(cls)}" for cls in classes(kind)]
    parts += [f"- {_line(Span)}", f"- {_line(Viewpoint)}", "", "Examples:"]
    for question, query in EXAMPLES:
        reply = {"query": None if query is None else to_json(query), "reason": "" if query else _NO_QUERY}
        parts += [f"Q: {question}", f"A: {json.dumps(reply)}"]
    return "\n".join(parts)


_HEAD = """You translate questions about the space that a robot's camera has seen into typed queries, as JSON.
Translate exactly what is asked, in whatever language; add nothing, drop nothing, compute nothing. <p0> are marked points,
<box0> marked boxes, <t0> marked moments of the request. A thing that is only named is an object; its name is in English,
in the singular. Lengths are in metres, angles in degrees, times in seconds, whatever unit the question uses; the unit that
the question wants its answer in goes into query.unit. A follow-up takes what it leaves out from the question before it.
If the question cannot be expressed, if it supposes what might be (would, if ... moved), or if it can mean two things,
reply with query null and the reason. Never answer the question."""

_NO_QUERY = "it supposes a motion that did not happen"
_P0, _P1 = Point(index=0), Point(index=1)

EXAMPLES: tuple[tuple[str, Query | None], ...] = (
    ("How far is <p0> from <p1>, in feet?", Query(ask=Value(of=Distance(a=_P0, b=_P1)), unit="ft")),
    ("Wie weit ist <p0> von der Kamera entfernt?", Query(ask=Value(of=Distance(a=_P0, b=Camera())))),
    ("What is the depth of <p0>?", Query(ask=Value(of=Depth(of=_P0)))),
    ("How much higher is <p1> than <p0>?", Query(ask=Value(of=Height(of=_P1, above=_P0)))),
    ("How tall is the thing in <box0>?", Query(ask=Value(of=Extent(of=Box(index=0), dimension=Dimension.HEIGHT)))),
    (
        "Is <p0> not further than 80 cm from the red mug?",
        Query(
            ask=Threshold(of=Distance(a=_P0, b=Object(name="red mug")), comparison=Comparison.AT_MOST, value=0.8),
        ),
    ),
    (
        "Which of <p0> and <p1> is nearest to the camera?",
        Query(
            ask=Extreme(of=(Distance(a=_P0, b=Camera()), Distance(a=_P1, b=Camera())), which=Which.SMALLEST),
        ),
    ),
    (
        "Standing at <p0> and facing <p1>, is the sofa on my left?",
        Query(
            ask=Relation(a=Object(name="sofa"), where=Where.LEFT_OF, viewpoint=Viewpoint(at=_P0, facing=_P1)),
        ),
    ),
    ("Can you see <p0> now?", Query(ask=Visible(of=_P0))),
    ("How long ago was <p0> last seen?", Query(ask=Value(of=SeenTime(of=_P0, event=Event.LAST, ago=True)))),
    (
        "How far did the robot drive in the last minute?",
        Query(ask=Value(of=PathLength(span=Span(begin=Ago(seconds=60.0), end=Now())))),
    ),
    (
        "By how many degrees did the camera turn from <t0> to <t1>?",
        Query(ask=Value(of=Turn(span=Span(begin=MarkedMoment(index=0), end=MarkedMoment(index=1)))), unit="deg"),
    ),
    ("If the camera moved 1 m forward, how far would <p0> be?", None),
)
"""Questions and their translations, of this project's own wording. None: there is no query."""


def _line(cls: type[Term]) -> str:
    """A term in one line: its name, its fields with what they hold, what it means."""
    fields = []
    for field in fields_of(cls):
        if field.part is not None:
            holds = field.part.type_name or field.part.__name__.lower()
        elif isinstance(field.scalar, type) and issubclass(field.scalar, Enum):
            holds = "|".join(str(member.value) for member in field.scalar)
        else:
            holds = {bool: "true|false", int: "integer", float: "number"}.get(field.scalar or str, "text")
        fields.append(f"{field.name}{'?' if field.optional else ''}: {holds}{'[]' if field.many else ''}")
    return f"{cls.type_name}({', '.join(fields)}): {' '.join((cls.__doc__ or '').split())}"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
