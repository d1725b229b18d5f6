"""Templates: wordings of a class of the algebra, which say a term and read it.

A template is words and ``{field}``s of a class; ``[…]`` may be left out, where its fields have their defaults. Of the
templates of a class the first that fits is said; all of them are patterns of the grammar, phrases ``said_<class>``.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from spatial_mllm_ros.language.chart import ANYTHING, Chart
from spatial_mllm_ros.language.nouns import speakable
from spatial_mllm_ros.language.phrases import GRAMMAR, ROOMS
from spatial_mllm_ros.queries import asks as a
from spatial_mllm_ros.queries import measures as m
from spatial_mllm_ros.queries import operands as o
from spatial_mllm_ros.queries.term import Term
from spatial_mllm_ros.queries.units import UNITS


class Unspeakable(ValueError):
    """A query that no plain sentence expresses; ``str()`` says what of it."""


def no_words(what: str) -> Unspeakable:
    return Unspeakable(f"there are no plain words for {what}")


def number(value: float) -> str:
    """A number as the reader reads it back."""
    text = f"{value:.12f}".rstrip("0").rstrip(".") or "0"
    if float(text) != value or len(text) > 15:
        raise no_words(f"the number {value!r}")
    return text


# ---- values of fields: how each kind is said, and the phrase that reads it


@dataclass(frozen=True)
class Kind:
    """phrase: of the grammar, that gives the value. say: (value, the term whose field it is) to text."""

    phrase: str
    say: Callable[[Any, Any], str]


def _table(name: str, said: dict[Any, str]) -> Kind:
    GRAMMAR.table(f"said_word_{name}", {text.lower(): value for value, text in said.items()})

    def say(value: Any, _: Any) -> str:
        if value not in said:
            raise no_words(f"the {name} {getattr(value, 'value', value)!r}")
        return said[value]

    return Kind(f"said_word_{name}", say)


def _listed(name: str, one: Kind, last: str) -> Kind:
    GRAMMAR.says(f"said_{name}", f"{{{one.phrase}}} {{{one.phrase}}}* {last} {{{one.phrase}}}")(
        lambda first, between, end: (first, *between, end)
    )

    def say(values: tuple[Any, ...], term: Any) -> str:
        texts = [one.say(v, term) for v in values]
        return f"{', '.join(texts[:-1])} {last} {texts[-1]}"

    return Kind(f"said_{name}", say)


def _frame(name: str, _: Any = None) -> str:
    if not (name.isidentifier() and name.isascii() and name == name.lower()) or name.startswith("_"):
        raise no_words(f"the frame {name!r}")
    return name


def _identifier(text: str, _: Any = None) -> str:
    if not (text.isascii() and text.replace("_", "x").isalnum() and text == text.lower()):
        raise no_words(f"the id {text!r}")
    return text


@GRAMMAR.native("said_id", [ANYTHING])
def _identifier_read(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """Letters, digits and low lines without a gap."""
    end, tokens = at, chart.tokens
    while end < len(tokens) and tokens[end].kind in ("word", "number") and tokens[end].text.replace("_", "x").isalnum():
        end += 1
        if end < len(tokens) and tokens[end].start > tokens[end - 1].end:
            break
    if end > at:
        yield end, "".join(token.text for token in tokens[at:end]), 0


@GRAMMAR.native("said_frame", [ANYTHING])
def _frame_read(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """A name of letters, digits and low lines, which are several tokens without a gap."""
    tokens = chart.tokens
    if at >= len(tokens) or tokens[at].kind != "word":
        return
    end = at + 1
    while (
        end < len(tokens) and tokens[end].start == tokens[end - 1].end and tokens[end].text.replace("_", "x").isalnum()
    ):
        end += 1
    name = "".join(token.text for token in tokens[at:end])
    try:
        yield end, _frame(name), 0
    except Unspeakable:
        return


def _name(name: str, _: Any = None) -> str:
    if not speakable(name):
        raise no_words(f"the name {name!r}")
    return name


GRAMMAR.says("said_name", "{name}")(lambda named: named[0] if not named[1] and speakable(named[0]) else None)

_UNIT_WORDS = {
    "m": "m", "s": "s", "deg": "degrees", "m2": "m2", "m3": "m3", "m/s": "m/s", "count": "", "": "",
}  # fmt: skip
GRAMMAR.table("said_si", {text: text for text in _UNIT_WORDS.values() if text})
GRAMMAR.says("said_quantity", "{number} [{said_si}]")(lambda value, unit: (value, unit or ""))


def _unit(key: str) -> str:
    return {
        "in": "inches", "ft": "feet", "ft2": "square feet", "ft3": "cubic feet", "m2": "square metres", "m3": "cubic metres",
        "cm2": "square centimetres",
    }.get(key, max(UNITS[key].words[:4], key=len))  # fmt: skip


_RANKS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth")
PROPERTIES = ("color", "material", "shape", "temperature", "brand", "state", "weight", "age", "price")
LIES = {
    o.Where.LEFT_OF: "left of", o.Where.RIGHT_OF: "right of", o.Where.IN_FRONT_OF: "in front of", o.Where.BEHIND: "behind", o.Where.ABOVE: "above",
    o.Where.BELOW: "below", o.Where.ON: "on", o.Where.INSIDE: "inside", o.Where.NEXT_TO: "next to", o.Where.SAME_SURFACE: "on the same surface as",
}  # fmt: skip
_MINE = {
    o.Where.LEFT_OF: "on the left", o.Where.RIGHT_OF: "on the right", o.Where.IN_FRONT_OF: "in front", o.Where.BEHIND: "behind",
}  # fmt: skip
_COMPARED = {
    a.Comparison.LESS: "less than", a.Comparison.MORE: "more than", a.Comparison.AT_MOST: "at most", a.Comparison.AT_LEAST: "at least",
    a.Comparison.ABOUT: "about",
}  # fmt: skip

_KINDS = {
    "number": Kind("number", lambda value, _: number(value)),
    "frame": Kind("said_frame", _frame),
    "name": Kind("said_name", _name),
    "id": Kind("said_id", _identifier),
    "unit": _table("unit", {key: _unit(key) for key in UNITS if UNITS[key].words}),
    "room": _table("room", {room: room for room in ROOMS}),
    "property": _table("property", {name: name for name in PROPERTIES}),
    "rank": _table("rank", {rank + 2: word for rank, word in enumerate(_RANKS)}),
    "lies": _table("lies", LIES),
    "mine": _table("mine", _MINE),
    "comparison": _table("comparison", _COMPARED),
}
_KINDS |= {
    "lies_or": _listed("lies_or", _KINDS["lies"], "or"),
    "mine_or": _listed("mine_or", _KINDS["mine"], "or"),
}


def _kind_of(hint: Any) -> Kind:
    """Of a field's type."""
    if get_origin(hint) in (Union, types.UnionType):
        return _kind_of(next(x for x in get_args(hint) if x is not type(None)))
    if get_origin(hint) is tuple:
        one = get_args(hint)[0]
        name = f"list_{one.__name__.lower()}"
        if name not in _KINDS:
            _KINDS[name] = _listed(name, _kind_of(one), "and")
        return _KINDS[name]
    if issubclass(hint, Term):
        return Kind(f"said_{hint.__name__.lower()}", lambda value, _: say(value))
    name = hint.__name__.lower()
    if issubclass(hint, Enum) and name not in _KINDS:
        _KINDS[name] = _table(name, {value: value.value.replace("_", " ") for value in hint})
    return _KINDS["number" if hint is float else name]


# ---- templates

_SLOT = re.compile(r"\{([+-]?)(\w+)(?:\|(\w+))?(?::(\w+))?\}")


@dataclass(frozen=True)
class Slot:
    """A field in a template. like: the field that holds the measure in whose unit it is. sign: that it must have."""

    field: str
    kind: Kind
    like: str = ""
    sign: str = ""

    def say(self, term: Any) -> str | None:
        """None where it does not fit."""
        value = getattr(term, self.field)
        if value is None or (self.sign and (value > 0) != (self.sign == "+")):
            return None
        if not self.like:
            return self.kind.say(value, term)
        unit = _UNIT_WORDS[m.unit_of(getattr(term, self.like))]
        return number(abs(value) if self.sign else value) + (f" {unit}" if unit else "")


@dataclass(frozen=True)
class Template:
    """One wording of a class. parts: text and slots in turn. rest: what the fields without a slot must be."""

    cls: type[Any]
    parts: tuple[str | Slot, ...]
    rest: dict[str, Any]
    fits: Callable[[Any], bool]

    def say(self, term: Any) -> str | None:
        if any(getattr(term, name) != value for name, value in self.rest.items()) or not self.fits(term):
            return None
        said = [part if isinstance(part, str) else part.say(term) for part in self.parts]
        return None if None in said else "".join(str(s) for s in said)

    def pattern(self) -> str:
        text = "".join(p if isinstance(p, str) else f" {{{p.kind.phrase}}} " for p in self.parts)
        return re.sub(r"[,:()]", " ", text.replace("'s", " 's"))

    def made(self, *values: Any) -> Any:
        fields = dict(self.rest)
        slots = [part for part in self.parts if isinstance(part, Slot)]
        for slot, value in zip(slots, values, strict=True):
            fields[slot.field] = value[0] if slot.like else value
            if slot.sign == "-":
                fields[slot.field] = -fields[slot.field]
        for slot, value in zip(slots, values, strict=True):
            if slot.like and _UNIT_WORDS[m.unit_of(fields[slot.like])] != value[1]:
                return None
        term = self.cls(**fields)
        return term if self.fits(term) else None


_TEMPLATES: dict[type, list[Template]] = {}


def wording(cls: type[Any], *templates: str, fits: Callable[[Any], bool] = lambda term: True, **fixed: Any) -> None:
    """Add templates of a class. fixed: fields that have a value other than their default in them."""
    hints = get_type_hints(cls)
    defaults = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
    for template in templates:
        pieces = re.split(r"\[([^\]]*)\]", template)
        for chosen in itertools.product(*([p] if i % 2 == 0 else ["", p] for i, p in enumerate(pieces))):
            text = "".join(chosen)
            parts: list[str | Slot] = []
            at = 0
            for match in _SLOT.finditer(text):
                sign, field, kind, like = match.groups(default="")
                known = (
                    Kind("said_quantity", lambda *_: "") if like else _KINDS[kind] if kind else _kind_of(hints[field])
                )
                parts += [text[at : match.start()], Slot(field=field, kind=known, like=like, sign=sign)]
                at = match.end()
            parts.append(text[at:])
            slots = {part.field for part in parts if isinstance(part, Slot)}
            rest = {name: value for name, value in {**defaults, **fixed}.items() if name not in slots}
            made = Template(cls=cls, parts=tuple(parts), rest=rest, fits=fits)
            _TEMPLATES.setdefault(cls, []).append(made)
            GRAMMAR.says(f"said_{cls.__name__.lower()}", made.pattern())(made.made)


def say(term: Any) -> str:
    for template in _TEMPLATES.get(type(term), ()):
        text = template.say(term)
        if text is not None:
            return text
    raise no_words(f"this {type(term).__name__}: {term}")


def own_wording(cls: type[Any], say: Callable[[Any], str], pattern: str, made: Callable[..., Any]) -> None:
    """One template whose single value is no field."""
    kind = Kind("", lambda value, term: say(term))
    only = Template(cls=cls, parts=(Slot(field="__class__", kind=kind),), rest={}, fits=lambda term: True)
    _TEMPLATES.setdefault(cls, []).append(only)
    GRAMMAR.says(f"said_{cls.__name__.lower()}", pattern)(made)


def one_of(base: type[Any]) -> None:
    """The phrase of a base is that of each of its classes."""
    for cls in _TEMPLATES:
        if issubclass(cls, base):
            GRAMMAR.says(f"said_{base.__name__.lower()}", f"{{said_{cls.__name__.lower()}}}")(lambda term: term)
