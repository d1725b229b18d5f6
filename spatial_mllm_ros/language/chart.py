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
FEW = 6
"""Ways to go on that are looked through faster than they are looked up."""
MOST_KNOWN = 1_000
"""Tokens at most for which a step keeps how it goes on, so that unknown words do not add up."""
_PART = re.compile(r"[\[\]()|*]|\{\w+\}|[^\s\[\]()|*{}]+")


MOST_READINGS = 6_000
"""Readings of parts of patterns for one text; an ordinary question has under 1,800, a word said over and over doubles them."""


class Tangled(Exception):
    """More readings of the parts of a text than can be followed."""


@dataclass
class Work:
    """How much the charts of one text have done together."""

    readings: int = 0

    def spend(self, readings: int) -> None:
        """Tangled if there have been too many."""
        self.readings += readings
        if self.readings > MOST_READINGS:
            raise Tangled


class Several(tuple[Any, ...]):
    """What an action returns for several readings."""


@dataclass(eq=False)
class Node:
    """Part of a pattern; equal parts are one node. kind: word, class, phrase, fixed (some of several plain wordings), seq, alt, opt or star.

    values: how many values it gives. first: what it can begin with. nullable: it may be absent.
    """

    kind: str
    key: str = ""
    parts: tuple[Node, ...] = ()
    fixed: tuple[tuple[str, ...], ...] = ()
    first: frozenset[str] = frozenset()
    nullable: bool = False
    values: int = 0

    def __post_init__(self) -> None:
        inner = [part.values for part in self.parts]
        if self.kind == "alt":
            self.values = max(inner)
        elif self.kind != "fixed":
            self.values = int(any(inner)) if self.kind == "star" else int(self.kind == "phrase") or sum(inner)

    def nothing(self) -> tuple[Any, ...]:
        """Its values where it is absent."""
        if self.kind == "star":
            return ((),) * self.values
        return sum((part.nothing() for part in self.parts), ()) if self.kind == "seq" else (None,) * self.values


@dataclass
class Rule:
    """What a pattern of a phrase makes of its values."""

    action: Callable[..., Any]
    cost: int


@dataclass
class Step:
    """A place in the patterns of a phrase, which share what they begin with. rules: those that end here."""

    rules: list[Rule] = field(default_factory=list)
    steps: dict[Node, Step] = field(default_factory=dict)
    first: frozenset[str] = frozenset()
    edges: list[tuple[frozenset[str], Node, Step]] = field(default_factory=list)
    known: dict[frozenset[str], list[tuple[Node, Step]]] = field(default_factory=dict)

    @property
    def nullable(self) -> bool:
        """Whether a pattern may end here."""
        return bool(self.rules) or any(node.nullable and step.nullable for node, step in self.steps.items())

    def look(self) -> None:
        """Find what can begin here, steps ahead included."""
        self.edges.clear()
        for node, step in self.steps.items():
            step.look()
            first = node.first | (step.first if node.nullable else frozenset())
            self.edges.append((frozenset((ANYTHING,)) if node.nullable and step.nullable else first, node, step))
        self.first = frozenset().union(*(first for first, _, _ in self.edges))
        self.known.clear()

    def ahead(self, keys: frozenset[str]) -> list[tuple[Node, Step]]:
        """The parts that can come before a token of these keys."""
        found = self.known.get(keys)
        if found is None:
            found = [(node, step) for first, node, step in self.edges if ANYTHING in first or not first.isdisjoint(keys)]
            if len(self.edges) > FEW:
                if len(self.known) >= MOST_KNOWN:
                    self.known.clear()
                self.known[keys] = found
        return found


class Grammar:
    """Phrases and their patterns. lexicon: class to its words and phrases."""

    def __init__(self, lexicon: Mapping[str, Iterable[str]]) -> None:
        self.patterns: dict[str, Step] = {}
        self.nodes: dict[tuple[Any, ...], Node] = {}
        self.natives: dict[str, tuple[Callable[[Chart, int], Iterable[tuple[int, Any, int]]], frozenset[str]]] = {}
        self.entries: dict[str, list[tuple[tuple[str, ...], str, Any]]] = {}
        self.words: set[str] = set()
        self.tables: set[str] = set()
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
                step = self.patterns.setdefault(name, Step())
                node = self._compiled(pattern)
                for part in node.parts if node.kind == "seq" else (node,):
                    step = step.steps.setdefault(part, Step())
                step.rules.append(Rule(action, cost))
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

    def _node(self, kind: str, key: str = "", parts: Sequence[Node] = (), fixed: Sequence[tuple[str, ...]] = ()) -> Node:
        if kind == "seq" and len(parts) == 1:
            return parts[0]
        known = (kind, key, tuple(parts), tuple(fixed))
        if known not in self.nodes:
            self.nodes[known] = Node(kind, key, tuple(parts), tuple(fixed))
        return self.nodes[known]

    def _compiled(self, pattern: str) -> Node:
        parts = _PART.findall(pattern)

        def alternatives(i: int) -> tuple[Node, int]:
            found: list[list[Node]] = [[]]
            while i < len(parts) and parts[i] not in ")]":
                part = parts[i]
                if part == "|":
                    found.append([])
                elif part == "*":
                    found[-1][-1] = self._node("star", parts=[found[-1][-1]])
                elif part in "[(":
                    inner, i = alternatives(i + 1)
                    found[-1].append(self._node("opt", parts=[inner]) if part == "[" else inner)
                elif part[0] == "{":
                    found[-1].append(self._node("phrase", part[1:-1]))
                else:
                    found[-1].append(self._node("class" if part.isupper() else "word", part))
                i += 1
            if len(found) == 1:
                return self._node("seq", parts=found[0]), i
            if all(p.kind == "word" for sequence in found for p in sequence):
                return self._node("fixed", fixed=[tuple(p.key for p in sequence) for sequence in found]), i
            return self._node("alt", parts=[self._node("seq", parts=sequence) for sequence in found]), i

        node, end = alternatives(0)
        if end != len(parts):
            raise ValueError(f"brackets do not match in {pattern!r}")
        return node

    def ready(self) -> None:
        """Find what every pattern can begin with. Call once, when all patterns are there."""
        firsts: dict[str, frozenset[str]] = {n: keys for n, (_, keys) in self.natives.items()}
        firsts |= {n: frozenset({n}) for n in self.tables}
        nullable: dict[str, bool] = {}
        changed = True
        while changed:
            changed = False
            for node in self.nodes.values():
                _look(node, firsts, nullable)
            for name, step in self.patterns.items():
                step.look()
                first = step.first | (self.natives[name][1] if name in self.natives else frozenset())
                if first != firsts.get(name) or step.nullable != nullable.get(name, False):
                    firsts[name], nullable[name], changed = first, step.nullable, True


class Chart:
    """The readings of one sequence of tokens."""

    def __init__(self, grammar: Grammar, tokens: Sequence[Token], work: Work | None = None) -> None:
        self.grammar, self.tokens = grammar, tokens
        self.spend = (work or Work()).spend
        self.memo: dict[tuple[str, int], Found] = {}
        self.matched: dict[tuple[Node, int], Found] = {}
        self.farthest = 0
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
        grammar = self.grammar
        if name in grammar.natives and not grammar.natives[name][1].isdisjoint((ANYTHING, *self.keys[at])):
            for end, value, cost in grammar.natives[name][0](self, at):
                best[end, value] = min(cost, best.get((end, value), cost))
        for end, value in self.ends.get((name, at), ()) if name in grammar.tables else ():
            best[end, value] = 0
        if name in grammar.patterns:
            self._follow(grammar.patterns[name], at, [((), 0)], best)
        out = [(end, (value,), cost) for (end, value), cost in best.items()]
        self.memo[name, at] = out
        return out

    def _follow(self, step: Step, at: int, read: list[tuple[tuple[Any, ...], int]], best: dict[tuple[int, Any], int]) -> None:
        """Add the readings of the patterns that go on from a step. read: values and costs of the parts before it."""
        self.spend(len(read))
        for rule in step.rules:
            for values, cost in read:
                try:
                    value = rule.action(*values)
                except InvalidQuery:
                    continue
                total = cost + rule.cost
                for one in value if isinstance(value, Several) else () if value is None else (value,):
                    if total < best.get((at, one), 1 << 30):
                        best[at, one] = total
        for node, following in step.ahead(self.keys[self.next[at]]):
            ends: dict[int, list[tuple[tuple[Any, ...], int]]] = {}
            for end, more, cost in self.match(node, at):
                ends.setdefault(end, []).append((more, cost))
            for end, found in ends.items():
                self._follow(following, end, [(v + v2, c + c2) for v, c in read for v2, c2 in found], best)

    def match(self, node: Node, at: int) -> Found:
        """The readings of a part of a pattern from a place."""
        if node.kind == "phrase":
            return self.phrase(node.key, at)
        known = self.matched.get((node, at))
        if known is None:
            begun = ANYTHING in node.first or not node.first.isdisjoint(self.keys[self.next[at]])
            nothing = [(at, node.nothing(), 0)] if node.nullable else []
            known = self.matched[node, at] = self._matched(node, at) if begun else nothing
        return known

    def _matched(self, node: Node, at: int) -> Found:
        kind = node.kind
        found: Found
        reached: Found
        if kind == "seq":
            found = [(at, (), 0)]
            for part in node.parts:
                found = [(e2, v + v2, c + c2) for e, v, c in found for e2, v2, c2 in self.match(part, e)]
                self.spend(len(found))
            return found
        if kind == "opt":
            return [(at, (None,) * node.values, 0), *self.match(node.parts[0], at)]
        if kind == "alt":
            width = node.values
            return [(e, v + (None,) * (width - len(v)), c) for part in node.parts for e, v, c in self.match(part, at)]
        at = self.next[at]
        if kind == "star":
            (part,) = node.parts
            found, reached = [(at, (), 0)], [(at, (), 0)]
            while reached:
                reached = [(e2, v + v2, c + c2) for e, v, c in reached for e2, v2, c2 in self.match(part, e) if e2 > e]
                self.spend(len(reached))
                found += reached
            return [(e, (v,) if part.values else (), c) for e, v, c in found]
        self.farthest = max(self.farthest, at + 1)
        if kind == "word":
            return [(at + 1, (), 0)]
        if kind == "class":
            return [(end, (), 0) for end, _ in self.ends[node.key, at]]
        r = self.rank[at]
        return [(self.plain[r + len(w) - 1] + 1, (), 0) for w in node.fixed if self.texts[r : r + len(w)] == w]

    def whole(self, name: str) -> dict[Any, int]:
        """The readings of a phrase that use every token, with their costs."""
        n = len(self.tokens)
        return {v[0]: c for e, v, c in self.phrase(name, 0) if self.next[e] == n}


def _look(node: Node, firsts: dict[str, frozenset[str]], nullable: dict[str, bool]) -> None:
    """Find what a part can begin with, when that is known of what it is made of."""
    if node.kind in ("word", "class"):
        node.first = frozenset({node.key})
    elif node.kind == "fixed":
        node.first = frozenset(words[0] for words in node.fixed)
    elif node.kind == "phrase":
        node.first, node.nullable = firsts.get(node.key, frozenset()), nullable.get(node.key, False)
    elif node.kind == "seq":
        until = next((i + 1 for i, part in enumerate(node.parts) if not part.nullable), len(node.parts))
        node.first = frozenset().union(*(part.first for part in node.parts[:until]))
        node.nullable = all(p.nullable for p in node.parts)
    else:
        node.first = frozenset().union(*(p.first for p in node.parts))
        node.nullable = node.kind in ("opt", "star") or any(p.nullable for p in node.parts)
