"""Slips of the pen: words one edit away from a word that the grammar knows. Repaired only where one repair makes sense."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from spatial_mllm_ros.language.tokens import Token

SHORTEST = 3
"""Letters of a word that can be repaired at least."""
MOST_WAYS = 12
"""Ways to repair a text that are tried at most."""


class Speller:
    """Knows words, and which others are right as they are though they look like a slip of one."""

    def __init__(self, words: Iterable[str], ordinary: Iterable[str]) -> None:
        self.words = frozenset(w for w in words if w.isalpha())
        self.ordinary = frozenset(ordinary)
        self._by_rest: dict[str, set[str]] = {}
        for word in self.words:
            for rest in {word, *_without_one(word)}:
                self._by_rest.setdefault(rest, set()).add(word)

    def candidates(self, word: str) -> list[str]:
        """Known words one insertion, deletion, substitution or swap away, with the same first letter."""
        if len(word) < SHORTEST or word in self.words or word in self.ordinary or not word.isalpha():
            return []
        near = {w for rest in {word, *_without_one(word)} for w in self._by_rest.get(rest, ())}
        return sorted(w for w in near if w[0] == word[0] and len(w) > 1 and _one_edit(word, w))

    def repairs(self, tokens: tuple[Token, ...]) -> Iterator[tuple[tuple[Token, ...], dict[str, str]]]:
        """The ways to repair all that look like slips, each with what it changed."""
        options = {i: found for i, t in enumerate(tokens) if t.kind == "word" and (found := self.candidates(t.text))}
        ways = 1
        for found in options.values():
            ways *= len(found)
        if not options or ways > MOST_WAYS:
            return
        for chosen in product(*options.values()):
            changed = dict(zip(options, chosen, strict=True))
            repaired = tuple(
                Token("word", changed[i], t.value, t.start, t.end) if i in changed else t for i, t in enumerate(tokens)
            )
            yield repaired, {tokens[i].text: word for i, word in changed.items()}


def _without_one(word: str) -> set[str]:
    return {word[:i] + word[i + 1 :] for i in range(len(word))}


def _one_edit(a: str, b: str) -> bool:
    if len(a) > len(b):
        a, b = b, a
    i = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    if len(a) < len(b):
        return len(b) == len(a) + 1 and a[i:] == b[i + 1 :]
    return a[i + 1 :] == b[i + 1 :] or (a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :])
