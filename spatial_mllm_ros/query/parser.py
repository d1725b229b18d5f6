"""From the text of a question to a typed one, by rule: exact, quick and the same every time.

A question is geometric only if every word of it is understood: the words become the concepts of the table
(families.yaml) and the first family with a form of exactly these concepts wins. Everything else is free-form. Only the
name of what a placeholder stands for ("the mug at <p0>") may be any word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.queries.units import UNITS
from spatial_mllm_ros.query.table import AUXILIARIES, NAMED, SILENT, Family, Table, built_in_table, wording_key
from spatial_mllm_ros.query.words import (
    ARTICLES,
    KINDS,
    MAX_WORDS,
    Slot,
    check_question,
    decode_question,
    invalid,
    normalise,
    placeholders,
    words_of,
)

__all__ = ["ParsedQuestion", "QuestionParser", "decode_question"]

_COMPARING = frozenset({"THAN", "COMPARED", "AS", "EXCEED", "SUBTRACT"})
_ENDS = frozenset({"SINCE", "FROM", "AFTER", "UNTIL", "BEFORE", "TO", "START", "NOW"})  # what makes one time a span
_AGAINST = frozenset({"FROM", "BETWEEN", "AND", "TO", "THAN", "OR"})
_BRIDGES = frozenset(
    ["THING", "IN", "POSITION", "POSE", "TIME", "MOMENT", "WHERE", "CAMERA", "ME", "HEADING", "IMAGE", "HIGH"]
)
_THINGS = {"P": "point", "BOX": "box", "T": "time"}
_AUXILIARY = "AUXILIARY"
_SUBJECTS = frozenset({"P", "BOX", "T", "CAMERA", "ME", "THING", "ROOM", "CEILING", "FLOOR", "PLACE", "NT"})
_DETERMINERS = ARTICLES | {"this", "my", "our", "your"}
_NOUNS = frozenset({None, "THING", "PART", "BEAM"})  # concepts that a name may have: none of the table's, or these
_LINKS = [
    *("at", "in", "inside", "within", "marked", "shown", "labelled", "labeled", "at point", "at pixel", "in box"),
    *(f"{seen} at" for seen in ("seen", "located", "found", "shown", "marked")),
    *(f"{bound} by" for bound in ("marked", "enclosed", "framed", "bounded", "outlined", "surrounded", "indicated")),
    *("marked as", "labelled as", "labeled as", "marked with", "shown in", "contained in", "in bounding box"),
]
_LINK_WORDS = frozenset(tuple(link.split()) for link in _LINKS)
_LONGEST_NAME = 4  # words
_PARTICIPLES = ("ing", "ted", "sed", "ned", "ked", "ced", "led", "ped", "hed", "ged")
_VERBS_AHEAD = frozenset({"do", "does", "did", "can", "could", "will", "would", "should", "must", "may", "might"})
_QUESTION_WORDS = frozenset({"what", "how", "which", "where", "when", "who", "whose", "whichever", "whereabouts"})


@dataclass(frozen=True)
class ParsedQuestion:
    """A question of a family of the table.

    ``points``, ``boxes`` and ``times`` are indices into the request's, in the order of their roles: the subject of a
    comparison or difference first, a span's start before its end. ``unit`` is the key (units.UNITS) of the unit asked
    for, '' when none is. ``from_start``: the span begins where the recording does. ``now``: the present is meant, as
    the instant or as the end of the span. ``negated``: the yes/no answer is the opposite of the family's. ``signed``:
    a difference whose sign is asked for ("how much higher"), not only its size.
    """

    family: str
    points: tuple[int, ...] = ()
    boxes: tuple[int, ...] = ()
    times: tuple[int, ...] = ()
    unit: str = ""
    from_start: bool = False
    now: bool = False
    negated: bool = False
    signed: bool = False


@dataclass(frozen=True)
class _Question:
    """Concepts in order, with the placeholder where one is a slot, and the units named."""

    concepts: tuple[str, ...]
    slots: tuple[Slot | None, ...]
    units: tuple[str, ...]

    def of(self, kind: str) -> tuple[int, ...]:
        """Indices of the slots of a kind in order, each once."""
        return tuple(dict.fromkeys(s.index for s in self.slots if s and s.kind == kind))


class QuestionParser:
    """Parses questions by ``table`` (default: the built-in one). Safe to share between threads."""

    def __init__(self, table: Table | None = None) -> None:
        self.table = built_in_table() if table is None else table
        self._speller = self.table.speller()

    def parse(
        self, text: str, points: int, boxes: int, times: int, choices: Sequence[str] = ()
    ) -> ParsedQuestion | None:
        """The typed question, or None when it is free-form. ``points``, ``boxes``, ``times``: how many the request has.

        QueryError (INVALID_REQUEST): no readable text, a placeholder of the question or of ``choices`` that the request
        does not have, or a question that lacks a placeholder it needs.
        """
        check_question(text)
        text = normalise(text)
        given = {"P": points, "BOX": boxes, "T": times}
        for kind, index in placeholders(" ".join([text, *map(normalise, choices)])):
            if index >= given[KINDS[kind]]:
                name = _THINGS[KINDS[kind]]
                raise invalid(
                    f"<{kind}{index}> is not in the request, which has {given[KINDS[kind]]} {_plural(name)}: "
                    f"add the {name} or correct the placeholder"
                )
        full = words_of(text, articles=True)
        words = _without_articles(full)
        if len(words) > MAX_WORDS or any(isinstance(w, Slot) and w.index >= given[w.kind] for w in words):
            return None
        parsed = self._by_wording(words) or self._by_concepts(words, given)
        if parsed is None:
            bare = _without_articles(self._without_names(full))
            parsed = self._by_concepts(bare, given, named=True) if len(bare) < len(words) else None
        return parsed

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """The words of ``text`` that are not in the vocabulary and so make the question free-form."""
        check_question(text)
        unknown: list[str] = []
        self._understand(_without_articles(self._without_names(words_of(normalise(text), articles=True))), unknown)
        return tuple(dict.fromkeys(unknown))

    def _by_wording(self, words: list[str | Slot]) -> ParsedQuestion | None:
        """A wording of the table, word for word but for auxiliaries, articles and a unit at the end."""
        unit = ""
        for length, concept in self._phrases(words[-2:])[-1:]:
            if concept and concept.startswith("UNIT ") and wording_key(words)[0] not in self.table.wordings:
                unit, words = concept[5:], words[:-length]
                words = words[:-1] if words[-1:] == ["in"] else words
        key, slots = wording_key(words)
        if key not in self.table.wordings:
            return None
        name, roles = self.table.wordings[key]
        family = self.table.families[name]
        if unit and UNITS[unit].kind not in _dimensions(family):
            return None
        meant = dict(zip(roles, slots, strict=True))
        points, boxes, times = (
            tuple(meant[r].index for r in sorted(meant, key=lambda r: r.index) if r.kind == kind)
            for kind in ("P", "BOX", "T")
        )
        whole = family.when == "span" and not times
        return ParsedQuestion(
            name, points, boxes, times, unit, whole, whole or (family.when == "instant" and not times)
        )

    def _without_names(self, words: list[str | Slot]) -> list[str | Slot]:
        """``words`` (with articles) without the names of what points and boxes show: "the red mug at <p0>" is <p0>.

        A name is a determiner and up to four words before the placeholder, none of which means anything else. Without
        "at" or the like between, or after "did", it is one word: in "did the gripper push <p0>" the second is a verb.
        """
        kept: list[str | Slot] = []
        for word in words:
            if isinstance(word, Slot) and word.kind != "T":
                end = len(kept)
                link = next((n for n in (3, 2, 1) if tuple(kept[-n:]) in _LINK_WORDS), 0)
                start = end = end - link
                while start and end - start < _LONGEST_NAME and self._is_noun(kept[start - 1]):
                    start -= 1
                short = not link or (start > 1 and kept[start - 2] in _VERBS_AHEAD)
                if 0 < start < end and kept[start - 1] in _DETERMINERS and (end - start == 1 or not short):
                    del kept[start - 1 :]
            kept.append(word)
        return kept

    def _is_noun(self, word: str | Slot) -> bool:
        if isinstance(word, Slot) or word in _DETERMINERS or len(word) < 3 or word.endswith(_PARTICIPLES):
            return False
        known = self._speller.repair(word)
        return known is None or self.table.concept_of.get((known,)) in _NOUNS

    def _by_concepts(
        self, words: list[str | Slot], given: dict[str, int], named: bool = False
    ) -> ParsedQuestion | None:
        question = self._understand(words)
        if question is None:
            return None
        if named:  # in front, so that what stands side by side still does
            question = _Question((NAMED, *question.concepts), (None, *question.slots), question.units)
        counts = {kind: len(question.of(kind)) for kind in _THINGS}
        concepts, line = frozenset(question.concepts), f" {' '.join(question.concepts)} "
        if " AND WHAT " in line:  # two questions in one
            return None
        if not any(counts.values()):
            # "Which point is nearer?": the request itself says which ones, when it has just what the family needs.
            implied = frozenset(kind for kind, count in given.items() if count)
            for family in self._fitting(concepts | implied, line + " ".join(_tail(given)), question):
                if not (_misfit(family, given) or _dangling(family, question, given)):
                    return _typed(family, question, given)
        lacking: tuple[Family, dict[str, int]] | None = None
        for family in self._fitting(concepts, line, question):
            misfit = _misfit(family, counts) or _dangling(family, question, counts)
            if misfit == {"T": 1} and "NOW" in question.concepts:
                misfit = {}
            if not misfit:
                _check_distinct(question)
                return _typed(family, question, {})
            filled = {kind: given[kind] if kind in misfit else 0 for kind in _THINGS}
            if not _misfit(family, {kind: counts[kind] + filled[kind] for kind in _THINGS}) and not any(
                counts[kind] for kind in misfit
            ):
                return _typed(family, question, {k: n for k, n in filled.items() if not counts[k]})
            # With not even one point or box named the question may be about another thing: that is free-form.
            about = any(counts.values()) and all(counts[k] or k == "T" for k in misfit)
            if about and not lacking and all(counts[k] < least for k, least in misfit.items()):
                lacking = (family, misfit)
        if lacking and not named:
            raise invalid(_lack(*lacking, counts))
        return None

    def _fitting(self, concepts: frozenset[str], line: str, question: _Question) -> list[Family]:
        dimensions = {UNITS[u].kind for u in question.units}
        return [
            family
            for family in self.table.families.values()
            if dimensions <= _dimensions(family) and any(form.fits(concepts, line) for form in family.forms)
        ]

    def _understand(self, words: list[str | Slot], unknown: list[str] | None = None) -> _Question | None:
        """``words`` as concepts, longest phrase first; None at the first unknown word, unless these are collected."""
        spelt = [w if isinstance(w, Slot) else self._speller.repair(w) for w in words]
        if unknown is None and None in spelt:
            return None
        concepts: list[tuple[str, Slot | None]] = []
        units: list[str] = []
        asks = False
        i = 0
        for length, concept in self._phrases(spelt):
            word = spelt[i]
            asks |= concept not in (SILENT, "THING") and not _QUESTION_WORDS.isdisjoint(spelt[i : i + length])
            if isinstance(word, Slot):
                concepts.append((word.kind, word))
            elif concept is None:
                if unknown is None:
                    return None
                unknown.append(str(words[i]))
            elif concept == SILENT and length == 1 and word in AUXILIARIES:
                concepts.append((_AUXILIARY, None))
            elif concept.startswith("UNIT "):
                units.append(concept[5:])
                concepts.append((f"{UNITS[units[-1]].kind.upper()}_UNIT", None))
            elif concept != SILENT:
                concepts.append((concept, None))
            i += length
        concepts = _tidied(concepts, asks)
        return _Question(tuple(c for c, _ in concepts), tuple(s for _, s in concepts), tuple(dict.fromkeys(units)))

    def _phrases(self, words: Sequence[str | Slot | None]) -> list[tuple[int, str | None]]:
        """``words`` cut into phrases, with the fewest words left unknown and then the fewest, first longest, phrases.

        Each as its number of words and its concept (None: an unknown word or a placeholder).
        """
        best: list[tuple[int, int, int, str | None]] = [(0, 0, 0, None)]  # for the last i words: unknown, phrases, ...
        for start in range(len(words) - 1, -1, -1):
            word = words[start]
            unknown, phrases, _, _ = best[-1]
            cut = (unknown + (not isinstance(word, Slot)), phrases + 1, 1, None)
            node: Any = self.table.phrases
            for i in range(start, len(words)):
                word = words[i]
                node = node.get(word) if isinstance(word, str) else None
                if node is None:
                    break
                if "" in node:
                    unknown, phrases, _, _ = best[len(words) - i - 1]
                    if (unknown, phrases + 1) <= cut[:2]:
                        cut = (unknown, phrases + 1, i - start + 1, node[""])
            best.append(cut)
        found, start = [], 0
        while start < len(words):
            _, _, length, concept = best[len(words) - start]
            found.append((length, concept))
            start += length
        return found


def _without_articles(words: list[str | Slot]) -> list[str | Slot]:
    return [w for w in words if isinstance(w, Slot) or w not in ARTICLES]


def _tidied(concepts: list[tuple[str, Slot | None]], asks: bool) -> list[tuple[str, Slot | None]]:
    """``concepts`` with what only its neighbours explain resolved.

    "How many metres" becomes MANY_LENGTH; "at the moment" goes when a time follows. Auxiliaries go, and a question for
    yes or no, one that an auxiliary or its inversion opens and that ``asks`` no what, how or which, gets YESNO instead.
    """
    names = [concept for concept, _ in concepts]
    inverted = any(
        a == _AUXILIARY and (i == 0 or b in _SUBJECTS)
        for i, (a, b) in enumerate(zip(names, [*names[1:], ""], strict=False))
    )
    kept: list[tuple[str, Slot | None]] = []
    for concept, slot in (pair for pair in concepts if pair[0] != _AUXILIARY):
        before = kept[-1][0] if kept else ""
        if (before == "COUNT" and concept.endswith("_UNIT")) or (before == "NOW" and concept == "T"):
            kept.pop()
            concept = f"MANY_{concept[:-5]}" if before == "COUNT" else concept  # noqa: PLW2901
        kept.append((concept, slot))
    return [("YESNO", None), *kept] if inverted and not asks else kept


def _dimensions(family: Family) -> set[str]:
    """What a unit in a question of this family may measure."""
    measures = family.answer_type is AnswerType.NUMBER or family.unit
    return {UNITS[family.unit].kind} if measures and family.unit in UNITS else set()


def _tail(given: dict[str, int]) -> list[str]:
    return [kind for kind, count in given.items() for _ in range(count)]


def _misfit(family: Family, counts: dict[str, int]) -> dict[str, int]:
    """Slots whose count is outside what the family takes -> the least it takes; empty when all fit."""
    wrong = {kind: least for kind, (least, most) in family.slots.items() if not least <= counts[kind] <= most}
    if not wrong and family.together is not None and counts["P"] + counts["BOX"] != family.together:
        wrong = {"P": family.together}
    return wrong


def _lack(family: Family, misfit: dict[str, int], named: dict[str, int]) -> str:
    needs = " and ".join(f"{n} {_plural(_THINGS[kind]) if n > 1 else _THINGS[kind]}" for kind, n in misfit.items())
    has = " and ".join(f"{named[kind]}" for kind in misfit)
    example = family.examples[0]
    return f'a question about {family.answers} needs {needs}, this one names {has}: ask for example "{example}"'


def _plural(name: str) -> str:
    return name + ("es" if name.endswith("x") else "s")


def _check_distinct(question: _Question) -> None:
    """QueryError when a point or time is set against itself ("between <p0> and <p0>")."""
    named: set[Slot] = set()
    for before, slot in zip(("", *question.concepts), question.slots, strict=False):
        if slot in named and before in (*_AGAINST, *_THINGS):
            name = f"<{slot.kind.lower()}{slot.index}>" if slot else ""
            raise invalid(f"the question sets {name} against itself: name two different ones")
        if slot is not None:
            named.add(slot)


def _typed(family: Family, question: _Question, implied: dict[str, int]) -> ParsedQuestion:
    slots = {kind: question.of(kind) or tuple(range(implied.get(kind, 0))) for kind in _THINGS}
    concepts = question.concepts
    points, signed = _roles(family, question, slots["P"])
    times, from_start, now = _span(family, question, slots["T"])
    return ParsedQuestion(
        family.name, points, slots["BOX"], times, question.units[0] if question.units else "", from_start, now,
        family.answer_type is AnswerType.BOOLEAN and _negated(concepts), signed,
    )  # fmt: skip


def _roles(family: Family, question: _Question, points: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    """``points`` with the subject first, and whether a sign is asked for."""
    if family.roles == "text" or len(points) != 2:
        return points, False
    marks = [(c, i) for i, c in enumerate(question.concepts)]
    # What the subject is compared with stands after "than" (anywhere), else directly after "above", else after "from".
    found = [p for c, i in marks if c in _COMPARING and (p := _point_after(question, i, near=False)) is not None]
    found += [
        p for c, i in marks if c in ("ABOVE", "BELOW") and (p := _point_after(question, i, near=True)) is not None
    ]
    signed = family.roles == "difference" and (bool(found) or not {"UP", "DOWN"}.isdisjoint(question.concepts))
    if family.roles == "difference":
        found += [p for c, i in marks if c == "FROM" and (p := _point_after(question, i, near=True)) is not None]
    subject, reference = points
    if found and found[0] == subject:
        subject, reference = reference, subject
    swap = family.roles == "difference" and not {"LOWER", "BELOW", "DOWN"}.isdisjoint(question.concepts)
    return (reference, subject) if swap else (subject, reference), signed


def _point_after(question: _Question, i: int, near: bool) -> int | None:
    """The first point after concept ``i``; ``near``: only words such as "the thing at" may stand between."""
    for concept, slot in zip(question.concepts[i + 1 :], question.slots[i + 1 :], strict=True):
        if slot is not None and slot.kind == "P":
            return slot.index
        if near and concept not in _BRIDGES:
            return None
    return None


def _span(family: Family, question: _Question, times: tuple[int, ...]) -> tuple[tuple[int, ...], bool, bool]:
    """Times with the start first, whether the span is from the recording's start, and whether it is until now."""
    concepts = question.concepts
    present = "NOW" in concepts or "HERE" in concepts
    if family.when != "span":
        return times, False, (family.when == "instant" and not times) or (present and not times)
    if not times:
        return times, True, True
    starts = [t for c in ("FROM", "SINCE", "AFTER", "THAN") if (t := _time_after(question, c)) is not None]
    ends = [t for c in ("UNTIL", "BEFORE", "TO") if (t := _time_after(question, c)) is not None]
    if len(times) == 1:
        if "START" in concepts or (ends and not starts):
            return times, True, False
        return times, False, True
    if "EARLIER" in concepts:
        starts, ends = ends, starts
    if (starts and starts[0] == times[1]) or (ends and not starts and ends[0] == times[0]):
        return (times[1], times[0]), False, False
    return times, False, False


def _time_after(question: _Question, concept: str) -> int | None:
    """The time that ``concept`` governs: the first with it before, and only words such as "its position at" between."""
    for i, slot in enumerate(question.slots):
        if slot is not None and slot.kind == "T":
            before = next((c for c in reversed(question.concepts[:i]) if c not in _BRIDGES), "")
            if before == concept:
                return slot.index
    return None


def _dangling(family: Family, question: _Question, counts: dict[str, int]) -> dict[str, int]:
    """What a span lacks of which one end is named and the other is not even implied ("since", "until", "now")."""
    alone = family.when == "span" and counts["T"] == 1 and _ENDS.isdisjoint(question.concepts)
    return {"T": 2} if alone else {}


def _negated(concepts: tuple[str, ...]) -> bool:
    """Whether yes means no. "Isn't <p0> closer?" asks what "is <p0> closer?" does; "is <p0> not visible?" does not."""
    subject = next((i for i, c in enumerate(concepts) if c in ("P", "BOX", "CAMERA", "ME")), 0)
    nots = sum(c == "NOT" or (c == "NT" and i > subject) for i, c in enumerate(concepts))
    hidden = not {"HIDDEN", "OUTSIDE"}.isdisjoint(concepts) and "OR" not in concepts
    return (nots + hidden) % 2 == 1
