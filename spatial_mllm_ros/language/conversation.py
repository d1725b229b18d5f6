"""Readers of questions: the grammar, and behind it a language model where there is one.

What the grammar reads counts. Only what it does not read, or reads in several ways, goes to the model, whose translation
is checked and marked with its name; where the model fails, the grammar's refusal stands, with the reason.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

from spatial_mllm_ros.language.endpoint import ReaderUnavailable
from spatial_mllm_ros.language.own_words import OwnWords
from spatial_mllm_ros.language.reader import Reading, said
from spatial_mllm_ros.language.translation import MAX_TURNS, Exchange, Translation
from spatial_mllm_ros.queries.answer import Request
from spatial_mllm_ros.queries.codes import ErrorCode

GRAMMAR = "grammar"
MAX_CONVERSATIONS = 256
"""Conversations whose last questions are remembered; the one that was silent longest goes first."""

REMEMBERED = 512
"""Readings that are remembered: planners ask the same words all day, and where a model is loaded words are looked at twice."""


class Translator(Protocol):
    """A language model that translates questions into queries."""

    @property
    def name(self) -> str:
        """How its readings are marked."""

    def translate(
        self,
        question: str,
        *,
        points: int,
        boxes: int,
        times: int,
        choices: Sequence[str] = (),
        history: Sequence[Exchange] = (),
        timeout_s: float = math.inf,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Translation:
        """What a question means. Raises ReaderUnavailable."""


@lru_cache(maxsize=REMEMBERED)
def _by_grammar(own_words: OwnWords, text: str, points: int, boxes: int, times: int, choices: tuple[str, ...]) -> Reading:
    return own_words.read(text, points=points, boxes=boxes, times=times, choices=choices)


class ConversationReader:
    """Reads the words of requests. Safe to use from several threads. translator None: the grammar alone."""

    def __init__(self, translator: Translator | None = None, own_words: OwnWords | None = None) -> None:
        self.own_words = own_words or OwnWords()
        self._translator = translator
        self._conversations: OrderedDict[str, list[Exchange]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def translates(self) -> bool:
        """Whether a language model reads what the grammar does not."""
        return self._translator is not None

    def read(
        self, request: Request, *, timeout_s: float = math.inf, cancelled: Callable[[], bool] = lambda: False
    ) -> tuple[Reading, str]:
        """What a request's words ask, and the name of the reader that says so. Never raises."""
        marks = {"points": len(request.points), "boxes": len(request.boxes), "times": len(request.times)}
        reading, name = _by_grammar(self.own_words, request.question, **marks, choices=tuple(request.choices)), GRAMMAR
        if self._translator is not None and reading.code in (ErrorCode.AMBIGUOUS, ErrorCode.NOT_UNDERSTOOD):
            history = self._history(request.conversation_id)
            try:
                found = self._translator.translate(
                    self.own_words.rewritten(request.question, **marks)[0],
                    **marks,
                    choices=request.choices,
                    history=history,
                    timeout_s=timeout_s,
                    cancelled=cancelled,
                )
                reading, name = self._translated(found, reading)
            except ReaderUnavailable as error:
                reading = replace(reading, reason=f"{reading.reason}; {error}")
        if reading.query is not None:
            self._remember(request, Exchange(question=request.question, query=reading.query))
        return reading, name

    def _translated(self, found: Translation, refused: Reading) -> tuple[Reading, str]:
        assert self._translator is not None
        name = self._translator.name
        if found.query is None:
            reason = f"{refused.reason}; {name} says: {found.reason or 'it cannot be expressed'}"
            return replace(refused, reason=reason), name
        remark = f"read by {name}"
        return Reading(query=found.query, queries=(found.query,), read_as=said(found.query), remarks=(remark,)), name

    def _history(self, conversation_id: str) -> tuple[Exchange, ...]:
        with self._lock:
            return tuple(self._conversations.get(conversation_id, ())) if conversation_id else ()

    def _remember(self, request: Request, exchange: Exchange) -> None:
        if not request.conversation_id:
            return
        with self._lock:
            turns = self._conversations.pop(request.conversation_id, [])
            self._conversations[request.conversation_id] = [*turns, exchange][-MAX_TURNS:]
            while len(self._conversations) > MAX_CONVERSATIONS:
                self._conversations.popitem(last=False)
