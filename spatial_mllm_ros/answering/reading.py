"""From a model's words to a typed answer: a number with its unit, yes or no, or just words.

A number is read only where nothing about it is open: a single number, one unit (the answer's, or else the one that the
question names), no bounds, ranges or alternatives. Whatever leaves a doubt stays TEXT, which is what the model said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from spatial_mllm_ros.answering.words import normalise, words_of
from spatial_mllm_ros.queries.answer import NAN
from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.queries.units import (
    ANGLE,
    AREA,
    LENGTH,
    RATIO,
    SPEED,
    TIME,
    UNITS,
    VOLUME,
    convert,
    parse_measures,
)

COUNT = "count"

_CONTRACT = {LENGTH: "m", AREA: "m2", VOLUME: "m3", ANGLE: "deg", TIME: "s", SPEED: "m/s", RATIO: ""}
_MAX_WORDS = 30  # a longer answer is a story

_KEYS = {word: unit.key for unit in UNITS.values() for word in unit.words if unit.key}
_UNIT = rf"(?P<unit>{'|'.join(re.escape(word) for word in sorted(_KEYS, key=len, reverse=True))})(?![a-z0-9])"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ---- questions

_HOW_MANY = re.compile(rf"\b(?:how many|(?:the|total) number of)\b(?: {_UNIT})?")
_NAMED_UNIT = re.compile(rf"(?:(?P<bracket>\(\s?)(?:in )?|\bin ){_UNIT}")
_OTHER_UNIT = re.compile(rf"\bor (?:in )?{_UNIT}")
_SINGULAR = frozenset({"second", "minute", "hour", "degree", "foot", "inch", "yard", "meter", "metre"})  # "in second"
_QUANTITY = re.compile(
    r"\bhow (?:far|long|tall|wide|high|deep|thick|big|large|much|close|near)\b"
    r"|\b(?:distance|height|width|length|depth|thickness|size|area|angle|diameter|radius)\b"
)
_AUXILIARY = re.compile(
    r"(?!(?:can|could|will|would) you (?:please|tell|say|give|estimate|guess|describe|count|measure)\b)"
    r"(?:is|are|am|was|were|do|does|did|can|could|will|would|has|have|had|should|may|might|must)(?:n't)?\b"
)
_QUESTION_WORD = re.compile(r"(?:in |at |from |to |by )?(?:what|which|where|when|who|whose|how|why)\b")

# ---- answers

_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_THOUGHT = re.compile(r"\A.*</think>", re.DOTALL)
_YES_OR_NO = re.compile(r"(?:(?P<yes>yes|yeah|yep|true)|no|nope|false)(?=\s*(?:[.,;:!–—-]|\Z))")
_TWO_MINDS = re.compile(r"\b(?:yes|no|true|false|but|or|maybe|unsure|unclear)\b")
_NONE = re.compile(r"(?:there (?:is|are) )?(?:none|no (?P<noun>\w+))\W*")

_ONES = re.findall(
    r"\w+",
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen""",
)
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SPELT = {word: value for value, word in enumerate(_ONES)} | _TENS
_SPELT |= {
    f"{ten}{gap}{one}": value + n
    for ten, value in _TENS.items()
    for n, one in enumerate(_ONES[:10])
    if n
    for gap in "- "
}
_SPELT_WORD = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(_SPELT, key=len, reverse=True))})(?![\w-])")
_GROUPED = re.compile(r"(?<![\d.,])[1-9][0-9]{0,2}(?:,[0-9]{3}){2,}(?![\d,])")  # 1,250,000
_SQUARE = re.compile(r"\bsq(?!u)\.?\s?(?=[a-z])")  # "sq. ft", "sqm"

# One number and no other digits. Before it is the start, a space or a sign of roughness; after it a unit, or a word. "in"
# means inches at the end alone. Neither "0,125" (a decimal comma?) nor "m/s" nor "m^3" is understood.
_MEASURE = re.compile(
    rf"(?P<before>(?:[^0-9]*[\s(:=~≈])?)(?P<number>[-+−]?(?!0,[0-9]{{3}}(?![0-9]))[0-9]{{1,15}}(?:[.,][0-9]{{1,9}})?)"
    rf"(?:\s?{_UNIT}(?![/^*])|\s?(?P<inches>in(?=\W*\Z))|(?![\w/^*%°'\"]))(?P<after>[^0-9]*)"
)
_AROUND = _words(
    """about approximately approx roughly around circa ca exactly precisely only just it is are was there that this be
    answer final estimate estimated total in all of them altogether overall away apart long tall wide high deep ≈ ="""
)
_TALK = _AROUND | _words(
    """i can see has have contain show shown visible present measure room scene video image from between and with me you
    distance height width length depth thickness size area angle diameter radius dimension"""
)
_DOUBTS = _words(
    """not nt no never neither or unknown unclear unsure cannot maybe half quarter third dozen hundred thousand million
    couple few several pair more less fewer least most max min maximum minimum squared cubed cubic per each plus ± +
    extra another other"""
)
_BOUND_BEFORE = _words("over under above below beyond than to within minus up until between from by next")
_BOUND_AFTER = _words("to by x × and up until")
_TURNS = _words("left right clockwise counterclockwise anticlockwise counter anti")


@dataclass(frozen=True)
class Reading:
    """What a model's words mean. words: as said, without tags.

    NUMBER: ``value`` in ``unit``, one of the contract's (m, deg, m2, s, count; '' for a ratio). BOOLEAN: ``value`` is 1
    or 0. TEXT: the words alone, ``value`` is NaN.
    """

    words: str
    answer_type: AnswerType = AnswerType.TEXT
    value: float = NAN
    unit: str = ""


def read_answer(words: str, question: str) -> Reading:
    """A model's words as the answer to a question without choices. Never raises.

    A question for yes or no has no other answer, so numbers are left in words there.
    """
    said = spoken(words)
    answer, asked = normalise(said).strip(), normalise(question)
    if is_yes_no(question):
        value = _truth(answer)
        return Reading(said) if value is None else Reading(said, AnswerType.BOOLEAN, value)
    measured = _number(answer, asked)
    return Reading(said) if measured is None else Reading(said, AnswerType.NUMBER, *measured)


def spoken(words: str) -> str:
    """What is said in a model's words: the last <answer>, and no thoughts before it."""
    tagged = _TAGGED.findall(words)
    return str(tagged[-1] if tagged else _THOUGHT.sub("", words)).strip()


def is_yes_no(question: str) -> bool:
    """Whether a question is one for yes or no: its last clause to ask opens with an auxiliary, and offers nothing else."""
    clauses = [clause.strip() for clause in re.split(r"[?!,;:]|\.(?=\s|\Z)", normalise(question))]
    opening = [i for i, clause in enumerate(clauses) if _AUXILIARY.match(clause)]
    if not opening or any(_QUESTION_WORD.match(clause) for clause in clauses):
        return False
    return not re.search(r"\bor\b(?! not\b)", " ".join(clauses[opening[0] :]))


def asked_unit(question: str) -> str:
    """The unit that a question names for its answer: a key of units.UNITS, COUNT, or '' for none, or for several."""
    text = _SQUARE.sub("sq ", normalise(question))
    many = _HOW_MANY.search(text)
    if many:
        return COUNT if many["unit"] in (None, *_SINGULAR) else _KEYS[many["unit"]]
    named = [m["unit"] for m in _NAMED_UNIT.finditer(text) if m["bracket"] or m["unit"] not in _SINGULAR]
    if not named:
        return ""
    units = {_KEYS[word] for word in (*named, *(m["unit"] for m in _OTHER_UNIT.finditer(text)))}
    return units.pop() if len(units) == 1 else ""


def answer_confidence(
    token_probabilities: Sequence[float], choice_probabilities: Sequence[float] = ()
) -> tuple[float, str]:
    """How sure a model is of its answer, from 0 to 1, and the name of the method.

    Without choices: the probability that it says exactly this, the product over all its tokens, the end token included.
    That is strict: an answer that could as well be worded or rounded otherwise has less. With choices: the probability of
    the likeliest, given that it is one of them. Raises ValueError for what is no probability.
    """
    for probability in (*token_probabilities, *choice_probabilities):
        if not 0.0 <= probability <= 1.0 + 1e-6:
            raise ValueError(f"{probability} is no probability: 0 to 1 is")
    if choice_probabilities:
        return min(max(choice_probabilities), 1.0), "probability among choices"
    return min(math.prod(token_probabilities), 1.0) if token_probabilities else 0.0, "sequence probability"


def _truth(answer: str) -> float | None:
    """1 for yes, 0 for no, None for anything else: "no chairs are visible" is no plain no."""
    match = _YES_OR_NO.match(answer)
    if match is None or _TWO_MINDS.search(answer[match.end() :]):
        return None
    return float(match["yes"] is not None)


def _number(answer: str, question: str) -> tuple[float, str] | None:
    """Value and unit of the contract, or None where they are not beyond doubt. Both texts normalised."""
    asked = asked_unit(question)
    nouns = {stem for word in words_of(question) if word not in _AROUND for stem in _stems(str(word))}
    none = _NONE.fullmatch(answer)
    if none and asked == COUNT and (none["noun"] is None or _stems(none["noun"]) & nouns):
        return 0.0, COUNT
    text = _GROUPED.sub(lambda match: match[0].replace(",", ""), _SQUARE.sub("sq ", answer.replace("**", "")))
    match = _MEASURE.fullmatch(_SPELT_WORD.sub(lambda match: str(_SPELT[match[0]]), text))
    if match is None:
        return None
    before, after = ([str(word) for word in words_of(match[part])] for part in ("before", "after"))
    around = {*before, *after}
    if around & _DOUBTS or {*before[-2:]} & _BOUND_BEFORE or {*after[:1]} & _BOUND_AFTER:
        return None
    if len(before) + len(after) > _MAX_WORDS:
        return None
    unit = "in" if match["inches"] else _KEYS.get(match["unit"] or "", "")
    ((value, _),) = parse_measures(match["number"])
    plain = around <= _AROUND
    repeats = all(_stems(word) & (nouns | _TALK) for word in around)  # says nothing but what was asked
    if asked == COUNT:
        counted = plain or (repeats and bool(after and _stems(after[0]) & nouns))
        return (value, COUNT) if not unit and counted and value >= 0 and value.is_integer() else None
    if unit and asked and UNITS[unit].kind != UNITS[asked].kind:
        return None
    if not unit and (after or not asked or UNITS[asked].kind == RATIO):  # 0.4 or 40 of "what share in percent"?
        return None
    if not (plain or (repeats and (asked or _QUANTITY.search(question)))):
        return None
    unit = unit or asked
    kind = UNITS[unit].kind
    if (value < 0 and kind != ANGLE) or (kind == ANGLE and around & _TURNS):
        return None
    return convert(value, unit, _CONTRACT[kind]), _CONTRACT[kind]


def _stems(word: str) -> set[str]:
    """A noun and what it may be the plural of."""
    return {word, word.removesuffix("s"), word.removesuffix("es")}
