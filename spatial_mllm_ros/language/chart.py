"""A chart parser for patterns with actions: every phrase at every place once, and all of its readings.

A pattern is words in lower case, lexical CLASSES, {phrases} and ``[optional] (this|that) repeated*``; an action gets the
values of its {phrases} in order, a tuple for a repeated one and None for an optional one that is not there. Phrases must
not begin with themselves. Commas may stand anywhere but inside open names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spatial_mllm_ros.language.tokens import Token
from spatial_mllm_ros.queries.term import InvalidQuery

Found = list[tuple[int, tuple[Any, ...], int]]
"""Readings from a place: where they end, the values, and the cost."""

ANYTHING = "*"
MOST_BEGUN = 20_000
"""Lists of patterns by their first token that are kept at most, so that unknown words do not add up."""
_PART = re.compile(r"[\[\]()|*]|\{\w+\}|[^\s\[\]()|*{}]+")


MOST_READINGS = 20_000
"""Readings of parts of patterns in one chart; an ordinary question has under 8,000, a word said over and over doubles them."""


class Tangled(Exception):
    """More readings of the parts of a text than can be followed."""


class Several(tuple[Any, ...]):
    """What an action returns for several readings."""


@dataclass
class Node:
    """Part of a pattern. kind: word, class, phrase, fixed (some of several plain wordings), seq, alt, opt or star."""

    kind: str
    key: str = ""
    parts: list[Node] = field(default_factory=list)
    fixed: list[tuple[str, ...]] = field(default_factory=list)
    first: frozenset[str] = frozenset()
    nullable: bool = False

    values: int = 0
    open: bool = False

    def __post_init__(self) -> None:
        """values: how many values it gives."""
        inner = [part.values for part in self.parts]
        if self.kind == "alt":
            self.values = max(inner)
        elif self.kind != "fixed":
            self.values = int(any(inner)) if self.kind == "star" else int(self.kind == "phrase") or sum(inner)

    def can_begin(self, keys: frozenset[str]) -> bool:
        """Whether it can be there before a token with these keys."""
        return self.nullable or self.open or not self.first.isdisjoint(keys)


@dataclass
class Rule:
    """One pattern of a phrase."""

    node: Node
    action: Callable[..., Any]
    cost: int
    text: str


class Grammar:
    """Phrases and their patterns. lexicon: class to its words and phrases."""

    def __init__(self, lexicon: Mapping[str, Iterable[str]]) -> None:
        self.rules: dict[str, list[Rule]] = {}
        self.natives: dict[str, tuple[Callable[[Chart, int], Iterable[tuple[int, Any, int]]], frozenset[str]]] = {}
        self.entries: dict[str, list[tuple[tuple[str, ...], str, Any]]] = {}
        self.words: set[str] = set()
        self.tables: set[str] = set()
        self.begun: dict[tuple[str, frozenset[str]], list[Rule]] = {}
        for name, phrases in lexicon.items():
            for phrase in phrases:
                self._enter(phrase, name)

    def _enter(self, phrase: str, key: str, value: Any = None) -> None:
        words = tuple(phrase.split())
        self.entries.setdefault(words[0], []).append((words, key, value))
        self.words.update(words)

    def says(self, name: str, *patterns: str, cost: int = 0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator of an action: the patterns of phrase ``name`` that it is called for."""

        def add(action: Callable[..., Any]) -> Callable[..., Any]:
            for pattern in patterns:
                node = _compiled(pattern)
                self.rules.setdefault(name, []).append(Rule(node, action, cost, pattern))
                self.words.update(w for w in _PART.findall(pattern) if w[0] not in "[]()|*{" and not w.isupper())
            return action

        return add

    def table(self, name: str, words: dict[str, Any]) -> None:
        """Words with values: phrase ``name`` reads them."""
        self.tables.add(name)
        for phrase, value in words.items():
            self._enter(phrase, name, value)

    def native(self, name: str, keys: Iterable[str]) -> Callable[..., Any]:
        """Decorator: ``f(chart, place)`` reads phrase ``name`` itself. keys: what it may begin with."""

        def add(action: Callable[[Chart, int], Iterable[tuple[int, Any, int]]]) -> Any:
            self.natives[name] = (action, frozenset(keys))
            return action

        return add

    def beginning(self, name: str, keys: frozenset[str]) -> list[Rule]:
        """The patterns of a phrase that can begin with a token of these keys."""
        known = self.begun.get((name, keys))
        if known is None:
            if len(self.begun) >= MOST_BEGUN:
                self.begun.clear()
            known = self.begun[name, keys] = [r for r in self.rules.get(name, ()) if r.node.can_begin(keys)]
        return known

    def ready(self) -> None:
        """Find what every pattern can begin with. Call once, when all patterns are there."""
        firsts: dict[str, frozenset[str]] = {n: keys for n, (_, keys) in self.natives.items()}
        firsts |= {n: frozenset({n}) for n in self.tables}
        nullable: dict[str, bool] = {}
        changed = True
        while changed:
            changed = False
            for name, rules in self.rules.items():
                for rule in rules:
                    _look(rule.node, firsts, nullable)
                first = frozenset().union(*(r.node.first for r in rules)) | (
                    self.natives[name][1] if name in self.natives else frozenset()
                )
                empty = any(r.node.nullable for r in rules)
                if first != firsts.get(name) or empty != nullable.get(name, False):
                    firsts[name], nullable[name], changed = first, empty, True
        self.firsts, self.nullable = firsts, nullable
        self.begun.clear()


class Chart:
    """The readings of one sequence of tokens."""

    def __init__(self, grammar: Grammar, tokens: Sequence[Token]) -> None:
        self.grammar, self.tokens = grammar, tokens
        self.memo: dict[tuple[str, int], Found] = {}
        self.farthest = 0
        self.spent = 0
        n = len(tokens)
        self.next = list(range(n + 1))  # the first place from here that is no comma
        for i in range(n - 1, -1, -1):
            self.next[i] = self.next[i + 1] if tokens[i].kind == "," else i
        self.keys: list[frozenset[str]] = []
        self.ends: dict[tuple[str, int], list[tuple[int, Any]]] = {}
        self.plain = [i for i in range(n) if tokens[i].kind != ","]
        self.rank = [0] * (n + 1)
        for i in range(n):
            self.rank[i + 1] = self.rank[i] + (tokens[i].kind != ",")
        self.texts = texts = tuple(tokens[i].text for i in self.plain)
        for i, token in enumerate(tokens):
            keys = {token.text, f"@{token.kind}"}
            for words, key, value in grammar.entries.get(token.text, ()):
                r = self.rank[i]
                if texts[r : r + len(words)] == words:
                    self.ends.setdefault((key, i), []).append((self.plain[r + len(words) - 1] + 1, value))
                    keys.add(key)
            self.keys.append(frozenset(keys))
        self.keys.append(frozenset())

    def phrase(self, name: str, at: int) -> Found:
        """The readings of a phrase from a place."""
        at = self.next[at]
        known = self.memo.get((name, at))
        if known is not None:
            return known
        self.memo[name, at] = []  # a phrase that begins with itself finds nothing
        best: dict[tuple[int, Any], int] = {}
        keys = self.keys[at]
        grammar = self.grammar
        if name in grammar.natives and (ANYTHING in grammar.natives[name][1] or grammar.natives[name][1] & keys):
            for end, value, cost in grammar.natives[name][0](self, at):
                best[end, value] = min(cost, best.get((end, value), cost))
        for end, value in self.ends.get((name, at), ()) if name in grammar.tables else ():
            best[end, value] = 0
        for rule in grammar.beginning(name, keys):
            for end, values, cost in self.match(rule.node, at):
                try:
                    value = rule.action(*values)
                except InvalidQuery:
                    continue
                if value is None:
                    continue
                for one in value if isinstance(value, Several) else (value,):
                    total = cost + rule.cost
                    if total < best.get((end, one), 1 << 30):
                        best[end, one] = total
        out = [(end, (value,), cost) for (end, value), cost in best.items()]
        self.memo[name, at] = out
        return out

    def match(self, node: Node, at: int) -> Found:
        """The readings of a part of a pattern from a place."""
        kind = node.kind
        if not node.can_begin(self.keys[self.next[at]]):
            return []
        if kind == "phrase":
            return self.phrase(node.key, at)
        if kind == "seq":
            found: Found = [(at, (), 0)]
            for part in node.parts:
                found = [
                    (end2, values + more, cost + cost2)
                    for end, values, cost in found
                    for end2, more, cost2 in self.match(part, end)
                ]
                if not found:
                    break
                self._spend(len(found))
            return found
        if kind == "opt":
            (part,) = node.parts
            nothing: Found = [(at, (None,) * part.values, 0)]
            return nothing + self.match(part, at) if part.can_begin(self.keys[self.next[at]]) else nothing
        if kind in ("word", "class", "fixed"):
            at = self.next[at]
            self.farthest = max(self.farthest, at + 1)
            if kind == "word":
                return [(at + 1, (), 0)]
            if kind == "class":
                return [(end, (), 0) for end, _ in self.ends[node.key, at]]
            r = self.rank[at]
            return [(self.plain[r + len(w) - 1] + 1, (), 0) for w in node.fixed if self.texts[r : r + len(w)] == w]
        if kind == "alt":
            width = node.values
            keys = self.keys[self.next[at]]
            return [
                (e, v + (None,) * (width - len(v)), c)
                for part in node.parts
                if part.can_begin(keys)
                for e, v, c in self.match(part, at)
            ]
        (part,) = node.parts
        at = self.next[at]
        known = self.memo.get((part.key + "*", at)) if part.key else None
        if known is not None:
            return known
        found, reached = [(at, (), 0)], [(at, (), 0)]
        while reached:
            reached = [(e2, (*v, *v2), c + c2) for e, v, c in reached for e2, v2, c2 in self.match(part, e) if e2 > e]
            self._spend(len(reached))
            found += reached
        out = [(e, (v,) if part.values else (), c) for e, v, c in found]
        if part.key:
            self.memo[part.key + "*", at] = out
        return out

    def _spend(self, readings: int) -> None:
        """Tangled if there have been too many."""
        self.spent += readings
        if self.spent > MOST_READINGS:
            raise Tangled

    def whole(self, name: str) -> dict[Any, int]:
        """The readings of a phrase that use every token, with their costs."""
        n = len(self.tokens)
        return {v[0]: c for e, v, c in self.phrase(name, 0) if self.next[e] == n}


def _compiled(pattern: str) -> Node:
    parts = _PART.findall(pattern)

    def alternatives(i: int) -> tuple[Node, int]:
        found: list[Node] = []
        sequence: list[Node] = []
        while i < len(parts) and parts[i] not in ")]":
            part = parts[i]
            if part == "|":
                found.append(Node("seq", parts=sequence))
                sequence = []
            elif part == "*":
                sequence[-1] = Node("star", parts=[sequence[-1]])
            elif part in "[(":
                inner, i = alternatives(i + 1)
                sequence.append(Node("opt", parts=[inner]) if part == "[" else inner)
            elif part[0] == "{":
                sequence.append(Node("phrase", part[1:-1]))
            else:
                sequence.append(Node("class" if part.isupper() else "word", part))
            i += 1
        found.append(Node("seq", parts=sequence))
        if len(found) > 1 and all(p.kind == "word" for f in found for p in f.parts):
            return Node("fixed", fixed=[tuple(p.key for p in f.parts) for f in found]), i
        return (found[0] if len(found) == 1 else Node("alt", parts=found)), i

    node, end = alternatives(0)
    if end != len(parts):
        raise ValueError(f"brackets do not match in {pattern!r}")
    return node


def _look(node: Node, firsts: dict[str, frozenset[str]], nullable: dict[str, bool]) -> None:
    for part in node.parts:
        _look(part, firsts, nullable)
    if node.kind in ("word", "class"):
        node.first = frozenset({node.key})
    elif node.kind == "fixed":
        node.first = frozenset(words[0] for words in node.fixed)
    elif node.kind == "phrase":
        node.first, node.nullable = firsts.get(node.key, frozenset()), nullable.get(node.key, False)
    elif node.kind == "seq":
        first: frozenset[str] = frozenset()
        for part in node.parts:
            first |= part.first
            if not part.nullable:
                break
        node.first, node.nullable = first, all(p.nullable for p in node.parts)
    else:
        node.first = frozenset().union(*(p.first for p in node.parts))
        node.nullable = node.kind in ("opt", "star") or any(p.nullable for p in node.parts)
    node.open = ANYTHING in node.first
