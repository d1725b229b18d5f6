"""The table of geometric questions (families.yaml) as objects, and its extension by a user's own files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.queries.units import UNITS
from spatial_mllm_ros.query.words import Slot, Speller, normalise, words_of

BUILT_IN = Path(__file__).with_name("families.yaml")
SLOTS = ("P", "BOX", "T")
AUXILIARIES = frozenset(
    ["is", "are", "was", "were", "am", "be", "been", "do", "does", "did", "has", "have", "had", "would"]
)
YES_OR_NO = "YESNO"  # the concept that the parser adds to a question for yes or no
NAMED = "NAMED"  # the one that it adds to a question that says what a placeholder stands for ("the mug at <p0>")
ROLES = ("text", "compare", "difference")
WHEN = ("", "instant", "span")
SILENT = "SILENT"

# Every scalar is a string: "on", "off", "yes" and "no" are words here.
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

Sequence_ = tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """One shape of a question: every need is met by one of its alternatives, and no other concept is there."""

    needs: tuple[tuple[str, ...], ...]  # each alternative: concepts that follow one another, space-padded
    allowed: frozenset[str]
    never: tuple[str, ...]

    def fits(self, concepts: frozenset[str], line: str) -> bool:
        """``line``: all concepts of the question in order, each with a space on both sides shared (" A B C ")."""
        return (
            concepts <= self.allowed
            and all(any(option in line for option in options) for options in self.needs)
            and not any(sequence in line for sequence in self.never)
        )


@dataclass(frozen=True)
class Family:
    """A kind of question. ``slots``: how many distinct points, boxes and times (least, most) it names."""

    name: str
    answers: str
    answer_type: AnswerType
    unit: str
    slots: dict[str, tuple[int, int]]
    together: int | None  # points and boxes together, where either will do
    roles: str
    when: str
    forms: tuple[Form, ...]
    examples: tuple[str, ...]


@dataclass
class Table:
    """Vocabulary, families in order of precedence, and literal wordings (words -> family)."""

    families: dict[str, Family] = field(default_factory=dict)
    phrases: dict[str, Any] = field(default_factory=dict)  # trie of words; "" holds the concept at its end
    concept_of: dict[tuple[str, ...], str] = field(default_factory=dict)
    ordinary: set[str] = field(default_factory=set)
    wordings: dict[tuple[str, ...], tuple[str, tuple[Slot, ...]]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for unit in UNITS.values():
            for word in unit.words if unit.key else ():
                self.add_phrase(word, f"UNIT {unit.key}")

    def add_phrase(self, phrase: str, concept: str) -> None:
        words = words_of(normalise(phrase))
        if not words or any(isinstance(w, Slot) for w in words):
            raise ValueError(f"{phrase!r} is no phrase: give words without placeholders")
        key = tuple(w for w in words if isinstance(w, str))
        known = self.concept_of.setdefault(key, concept)
        if known != concept:
            raise ValueError(f"{phrase!r} means {known} already: it cannot mean {concept} as well")
        node = self.phrases
        for word in key:
            node = node.setdefault(word, {})
        node[""] = concept

    def speller(self) -> Speller:
        spoken = {w for key, concept in self.concept_of.items() for w in key if concept != SILENT}
        words = {w for key in self.concept_of for w in key}
        return Speller(words, self.ordinary, words - spoken)


def load_table(*paths: str | Path) -> Table:
    """The built-in table, extended by the files at ``paths`` in order.

    A user's file may hold ``vocabulary`` (more phrases for the concepts there are), ``ordinary`` (words that are no
    slip of another) and ``families`` (rows with ``name`` and ``wordings``: whole questions that mean that family, in
    which <p0>, <p1> … stand for its points in the order of their roles).
    ValueError names the file and the row when something is wrong; OSError when a file cannot be read.
    """
    table = Table()
    concepts = _load(table, BUILT_IN, None)
    for path in paths:
        _load(table, Path(path), concepts)
    return table


@cache
def built_in_table() -> Table:
    """The built-in table, read once. Do not change it: ``load_table`` gives one of your own."""
    return load_table()


def wording_key(words: Sequence[str | Slot]) -> tuple[tuple[str, ...], tuple[Slot, ...]]:
    """``words`` without auxiliaries and with the placeholders' numbers taken out, and the placeholders."""
    key = tuple(f"<{w.kind}>" if isinstance(w, Slot) else w for w in words if w not in AUXILIARIES)
    return key, tuple(w for w in words if isinstance(w, Slot))


def _load(table: Table, path: Path, concepts: frozenset[str] | None) -> frozenset[str]:
    """Add one file. ``concepts`` None: the built-in table, which defines them; the names of all concepts come back."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error
    row = "the file"
    try:
        content = _mapping(content if content is not None else {}, _TOP if concepts is None else _TOP_USER)
        vocabulary = _mapping(content.get("vocabulary", {}), concepts)
        known = concepts or frozenset(vocabulary) | _UNITS | {
            *SLOTS,
            YES_OR_NO,
            NAMED,
        }
        for concept, phrases in vocabulary.items():
            row = f"vocabulary {concept}"
            for phrase in _strings(phrases):
                table.add_phrase(phrase, concept)
        row = "ordinary"
        table.ordinary.update(w.casefold() for w in _strings(content.get("ordinary", [])))
        row = "neutral"
        neutral = frozenset(_strings(content.get("neutral", [])))
        row = "families"
        rows = content.get("families", [])
        if not isinstance(rows, list):
            raise ValueError("must be a list of rows, each with a name")
        for number, entry in enumerate(rows):
            name = entry.get("name") if isinstance(entry, dict) else None
            row = f"families row {number + 1} ({name})"
            fields = _mapping(entry, _ROW if concepts is None else _ROW_USER)
            if concepts is None:
                table.families[str(name)] = _family(fields, neutral, known)
            elif name not in table.families:
                raise ValueError(f"no such family: use one of {', '.join(table.families)}")
            for wording in _strings(fields.get("wordings", [])):
                _add_wording(table, table.families[str(name)], wording)
        return known
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: {row}: {error}") from error


_UNITS = {name for u in UNITS.values() for name in (f"{u.kind.upper()}_UNIT", f"MANY_{u.kind.upper()}")}
_TOP = frozenset({"vocabulary", "neutral", "ordinary", "families"})
_TOP_USER = _TOP - {"neutral"}
_ROW_USER = frozenset({"name", "wordings"})
_ROW = _ROW_USER | {
    *("answers", "type", "unit", "points", "boxes", "times", "together", "roles", "when", "named", "forms", "examples"),
}


def _mapping(value: Any, keys: frozenset[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping, not {type(value).__name__}")
    unknown = [k for k in value if keys is not None and k not in keys]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}: use {', '.join(sorted(keys or ()))}")
    return value


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ValueError("must be a list of words or sentences")
    return value


def _family(row: dict[str, Any], neutral: frozenset[str], known: frozenset[str]) -> Family:
    unit, roles, when = row.get("unit", ""), row.get("roles", "text"), row.get("when", "")
    if roles not in ROLES or when not in WHEN:
        raise ValueError(f"roles must be one of {ROLES} and when one of {WHEN}")
    together = int(row["together"]) if "together" in row else None
    slots = {slot: _span(row.get(key, 0)) for slot, key in zip(SLOTS, ("points", "boxes", "times"), strict=True)}
    taken = neutral | {slot for slot, (_, most) in slots.items() if most}
    taken |= {YES_OR_NO} if row["type"] == "BOOLEAN" else set()
    taken |= {NAMED} if row.get("named") == "yes" else set()
    forms = tuple(_form(_mapping(f, frozenset({"needs", "may", "never"})), taken, known) for f in row["forms"])
    return Family(
        row["name"], row["answers"], AnswerType[row["type"]], unit, slots, together, roles, when, forms,
        tuple(_strings(row["examples"])),
    )  # fmt: skip


def _form(row: dict[str, Any], taken: frozenset[str], known: frozenset[str]) -> Form:
    needs = [need.split("|") for need in _strings(row["needs"])]
    named = {c for options in needs for option in options for c in option.split()}
    may, never = set(_strings(row.get("may", []))), _strings(row.get("never", []))
    unknown = (named | may | {c for sequence in never for c in sequence.split()}) - known
    if unknown:
        raise ValueError(f"unknown concept {sorted(unknown)[0]!r}: add it to the vocabulary")
    return Form(
        tuple(tuple(f" {option.strip()} " for option in options) for options in needs),
        frozenset(taken | named | may),
        tuple(f" {sequence} " for sequence in never),
    )


def _span(value: Any) -> tuple[int, int]:
    least, _, most = str(value).partition("..")
    return int(least), int(most or least)


def _add_wording(table: Table, family: Family, wording: str) -> None:
    key, slots = wording_key(words_of(normalise(wording)))
    if not key:
        raise ValueError(f"the wording {wording!r} has no words")
    for slot, (least, most) in family.slots.items():
        indices = sorted({s.index for s in slots if s.kind == slot})
        if not least <= len(indices) <= most or indices != list(range(len(indices))):
            raise ValueError(
                f"the wording {wording!r} names {len(indices)} of <{slot.lower()}0>, <{slot.lower()}1> …: "
                f"{family.name} takes {least}{f' to {most}' if most > least else ''}, numbered from 0"
            )
    known = table.wordings.setdefault(key, (family.name, slots))
    if known != (family.name, slots):
        raise ValueError(f"the wording {wording!r} means {known[0]} already")
    table.examples.setdefault(family.name, []).append(wording)
