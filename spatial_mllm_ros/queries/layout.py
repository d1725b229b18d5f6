"""How a query lies in messages: ROS has no recursion, so its terms lie in five messages of fixed depth.

Query.msg holds what is asked, with Measure.msg, Operand.msg (with Landmark.msg, an operand that needs no other), Moment.msg
and Span.msg in it. A term's parts of one message type are in a list, in the order of its fields; a scalar field has a
field of the same name. Zero, the empty string and a missing part stand for the field's default. Everything follows from
the dataclasses: ``python -m spatial_mllm_ros.queries.layout msg`` writes the definitions.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap
import types
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from spatial_mllm_ros.queries.asks import Ask, Viewpoint
from spatial_mllm_ros.queries.measures import Measure
from spatial_mllm_ros.queries.moments import Moment, Span
from spatial_mllm_ros.queries.operands import Object, Operand
from spatial_mllm_ros.queries.term import Term

SELECTORS: dict[type[Term], tuple[str, str]] = {
    Ask: ("Query", "ask"),
    Measure: ("Measure", "measure"),
    Operand: ("Operand", "kind"),
    Moment: ("Moment", "kind"),
}
"""Kinds of term: the message that holds them, and its field that says which one it is."""

LISTS: dict[type[Term], str] = {Measure: "measures", Operand: "operands", Moment: "moments", Span: "spans"}
"""In which field of a message its parts of a kind are."""

LANDMARK = "Landmark"
SCALARS = {bool: "bool", int: "int32", float: "float64", str: "string"}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A dataclass's field as a message sees it. part: the kind of term it holds, or None for a scalar. many: a tuple."""

    name: str
    part: type[Term] | None
    scalar: type | None
    many: bool
    default: Any

    @property
    def optional(self) -> bool:
        """Whether it has a default."""
        return self.default is not dataclasses.MISSING


def fields_of(cls: type[Term]) -> tuple[Field, ...]:
    """The fields of a term, as messages see them."""
    return _fields_of(cls.type_name)


@cache
def _fields_of(name: str) -> tuple[Field, ...]:
    cls, out = Term.registry[name], []
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, many = hints[field.name], False
        if get_origin(hint) in (Union, types.UnionType):
            hint = next(a for a in get_args(hint) if a is not type(None))
        if get_origin(hint) is tuple:
            hint, many = get_args(hint)[0], True
        part = hint if isinstance(hint, type) and issubclass(hint, Term) else None
        default = dataclasses.MISSING if field.default is dataclasses.MISSING else field.default
        scalar = None if part else hint
        out.append(Field(name=field.name, part=part, scalar=scalar, many=many, default=default))
    return tuple(out)


def code(term: type[Term]) -> int:
    """The constant that stands for a class in its message: its place among those of its kind, from 1."""
    return classes(kind_of(term)).index(term) + 1


def classes(kind: type[Term]) -> list[type[Term]]:
    """The terms of a kind, in the order of their definition, which is that of their constants."""
    return [cls for cls in Term.registry.values() if issubclass(cls, kind)]


def kind_of(term: type[Term]) -> type[Term]:
    """The kind of a term: Ask, Measure, Operand or Moment."""
    return next(kind for kind in SELECTORS if issubclass(term, kind))


def enum_code(value: Enum) -> int:
    """The constant that stands for a member of an Enum: its place, from 1; 0 is the field's default."""
    return list(type(value)).index(value) + 1


def definition(message: str) -> str:
    """The text of a .msg file."""
    if message == "Span":
        return "# From begin to end, both included.\n\nMoment begin\nMoment end\n"
    kind = Operand if message == LANDMARK else next(k for k, (name, _) in SELECTORS.items() if name == message)
    selector = SELECTORS[kind][1]
    members = classes(kind)
    lines = [*_comment(_HEADS[message]), "", f"# {_sentence(kind)}"]
    for cls in members:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()
        lines += [f"uint16 {name}={code(cls)}".ljust(34) + f"# {_about(cls, message)}"]
    none = "there is no query, the words count" if message == "Query" else "none, or the default"
    lines += [f"uint16 {selector}".ljust(34) + f"# 0: {none}", ""]
    enums: dict[type[Enum], None] = {}
    scalars: dict[str, str] = {}
    lists: dict[type[Term], None] = {}
    for cls in members:
        for field in fields_of(cls):
            if field.part is not None:
                lists.setdefault(_list_kind(field.part))
            elif issubclass(field.scalar or object, Enum):
                enums.setdefault(field.scalar)  # type: ignore[arg-type]
                scalars[field.name] = f"uint8{'[]' if field.many else ''}"
            elif field.name == "stamp_ns":
                scalars["stamp"] = "builtin_interfaces/Time"
            else:
                scalars[field.name] = SCALARS[field.scalar or str]
    for part in lists:
        if part is Operand and message == LANDMARK:
            continue
        if part is Viewpoint:
            lines += [
                "Operand viewpoint_at              # kind 0: the camera",
                "Operand viewpoint_facing          # kind 0: nothing, it looks straight ahead",
            ]
        else:
            inner = LANDMARK if message == "Operand" and part is Operand else SELECTORS.get(part, ("Span", ""))[0]
            note = "# in the order above; what is left out at the end has its default"
            lines += [f"{inner}[] {LISTS[part]}".ljust(34) + note]
    for enum in enums:
        lines += ["", f"# {_sentence(enum)} 0: the default, where there is one"]
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.__name__).upper()
        lines += [f"uint8 {prefix}_{member.name}={enum_code(member)}" for member in enum]
    lines += ["", "# Where the lists above name them. Zero, or empty: the default"] if scalars else []
    lines += [f"{kind_name} {name}" for name, kind_name in scalars.items()]
    if message == "Query":
        lines += [
            "",
            "bool negated                      # yes and no are exchanged",
            "string unit                       # of the words of the answer, as m, cm, ft, deg; empty: that of the value",
            "string frame_id                   # of returned positions; empty: the fixed frame",
            "Span[] window                     # at most one: only what was seen within it counts",
        ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


MESSAGES = ("Moment", "Span", LANDMARK, "Operand", "Measure", "Query")

_HEADS = {
    "Moment": "A moment that a query speaks of.",
    LANDMARK: "The thing that an object is described by: an operand that needs no other one.",
    "Operand": "A thing in space that a query speaks of.",
    "Measure": "A quantity that a query asks for or compares.",
    "Query": "A question that needs no words. The same query has a JSON form: spatial-mllm questions --schema.",
}


def _list_kind(part: type[Term]) -> type[Term]:
    return next((k for k in (*SELECTORS, Span, Viewpoint) if issubclass(part, k)), part)


def _about(cls: type[Term], message: str) -> str:
    """What a class is, and which of its fields are where."""
    by_list: dict[str, list[str]] = {}
    scalars = []
    for field in fields_of(cls):
        if field.part is None:
            scalars.append("stamp" if field.name == "stamp_ns" else field.name)
        elif field.part is not Viewpoint:
            by_list.setdefault(LISTS[_list_kind(field.part)], []).append(field.name + (" ..." if field.many else ""))
        else:
            scalars.append("viewpoint")
    parts = [f"{name}: {', '.join(names)}" for name, names in by_list.items()] + scalars
    where = f" ({'; '.join(parts)})" if parts and not (message == LANDMARK and cls is Object) else ""
    return _sentence(cls) + where


def _sentence(cls: type) -> str:
    doc = " ".join((cls.__doc__ or "").split())
    return doc[: doc.index(".") + 1] if "." in doc else doc


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 118)]


def main(folder: str) -> None:
    """Write the definitions into a folder."""
    for message in MESSAGES:
        Path(folder, f"{message}.msg").write_text(definition(message), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
