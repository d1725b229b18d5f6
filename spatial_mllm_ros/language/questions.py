"""Whole questions: a sentence with what people say around it, and several at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from spatial_mllm_ros.language.chart import Several
from spatial_mllm_ros.language.phrases import GRAMMAR, same, says
from spatial_mllm_ros.language.sentences import Refused
from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.queries.query import Query, answer_type


@dataclass(frozen=True)
class Both:
    """Several questions in one text."""

    queries: tuple[Query, ...]


@says("question", "ASK* [{whether}] {core} [[.] TAG]", "[the] {core}")
def _question(whether: Any, core: Any = None) -> Any:
    core = whether if core is None else core
    return (
        core
        if not whether or whether is core or isinstance(core, Refused) or answer_type(core) is AnswerType.BOOLEAN
        else None
    )


says("stated", "ASK* {whether}", "(check|verify|assert|confirm|test) [that|if|whether]")(lambda *_: True)
says("whether", "WHETHER [.]")(lambda: True)


@says("question", "is the answer no {core}", "is it false that {core}", "is it not [true] that {core}", "is it wrong that {core}",
      "is it untrue that {core}")  # fmt: skip
def _false(core: Any) -> Any:
    if not isinstance(core, Query) or answer_type(core) is not AnswerType.BOOLEAN:
        return None
    return replace(core, negated=not core.negated)


@says("question", "ASK* {core} [.] (and|but|also|then) [ASK] {core}", "ASK* {core} , {core}")
def _both(first: Any, second: Any) -> Any:
    return Both((first, second)) if isinstance(first, Query) and isinstance(second, Query) else None


says("aside",
     "(thanks|thank you|answer yes or no|answer with yes or no|yes or no|answer with a (number|word)|choose one|be brief|answer briefly|a number [is enough]|single number|just (a|the) number|i need it|hello|hi|choose one of the options)")(lambda: True)
says("unit_aside",
     "[answer|respond|reply|give|state|i need] [the|your|an|me] [answer|value|it|result|number|distance] [a number|with a number] [in] {unit} [please]",
     "(answer|respond|reply) [with a number] in {unit}", "use {unit}")(same)
_OPENINGS = ("i have two points", "i have clicked", "i clicked", "i clicked on", "i have clicked on", "i marked", "i have marked", "here are two points", "here are", "i have", "consider", "take", "given", "there are two points", "look at", "i selected", "i have selected", "there are", "these are")  # fmt: skip
GRAMMAR.table("opening", {words: len(words.split()) for words in _OPENINGS})


@says("context", "{opening} [DET] [two|three] [POINT|points|boxes|objects] {list}", "{opening} {thing}")
def _context(opening: int, _: Any) -> int:
    """How many words come before the things."""
    return opening


__all__ = ["Both", "Several"]
