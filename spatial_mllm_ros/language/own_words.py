"""A user's own words: synonyms and whole sentences, put into words that the grammar knows before a question is read.

They add and never redefine: a synonym has a word that the grammar does not know, and a sentence that the grammar reads
already keeps its meaning, unless it is about an object or a room that the user's sentence says where to find.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from spatial_mllm_ros.language.phrases import GRAMMAR, SILENT
from spatial_mllm_ros.language.reader import Reading, read
from spatial_mllm_ros.language.tokens import Token, check_text, marks_in, normalise, tokens_of
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.queries.operands import Object, Room
from spatial_mllm_ros.queries.query import terms

MAX_BYTES = 1 << 20
"""Of a file at most."""
_MARKS = ("p", "box", "t")
_SILENT = frozenset(word for phrase in SILENT for word in phrase)


class OwnWordsError(ValueError):
    """A file of own words that cannot be used. ``str()`` says which file and line, what is wrong and what to do."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """A sentence, by its tokens, and what it stands for; its marks stand for any marks of their kind."""

    tokens: tuple[Token, ...]
    means: str

    def bound(self, tokens: Sequence[Token]) -> str | None:
        """What a question means that is this sentence, with the question's marks; None where it is another one."""
        if len(tokens) != len(self.tokens):
            return None
        marks: dict[str, str] = {}
        for own, asked in zip(self.tokens, tokens, strict=True):
            if own.kind != asked.kind:
                return None
            if (marks.setdefault(own.text, asked.text) if own.kind in _MARKS else own.text) != asked.text:
                return None
        return re.sub(r"<\w+>", lambda mark: marks[mark[0]], self.means)


@dataclass(frozen=True, kw_only=True)
class OwnWords:
    """synonyms: words, as tokens, to a phrase that the grammar knows."""

    synonyms: tuple[tuple[tuple[str, ...], str], ...] = ()
    wordings: tuple[Wording, ...] = ()

    def rewritten(self, text: str, *, points: int = 0, boxes: int = 0, times: int = 0) -> tuple[str, tuple[str, ...]]:
        """A question in words that the grammar knows, and what was put for what, in remarks. Never raises."""
        if not (self.synonyms or self.wordings):
            return text, ()
        tokens = tokens_of(text, points=points, boxes=boxes, times=times)
        for wording in self.wordings:
            if (means := wording.bound(tokens)) is not None:
                return means, (f'"{text.strip()}" was read as "{means}", by your own words',)
        normal, out, i, done = normalise(text), "", 0, 0
        remarks: dict[str, None] = {}
        while i < len(tokens):
            for words, means in self.synonyms:  # the longest first
                part = tokens[i : i + len(words)]
                if tuple(t.text for t in part) == words and all(t.kind == "word" for t in part):
                    out += normal[done : part[0].start] + means
                    done = part[-1].end
                    remarks[f'"{" ".join(words)}" was read as "{means}", by your own words'] = None
                    i += len(words) - 1
                    break
            i += 1
        return (out + normal[done:], tuple(remarks)) if remarks else (text, ())

    def read(
        self, text: str, *, points: int = 0, boxes: int = 0, times: int = 0, choices: Sequence[str] = ()
    ) -> Reading:
        """As ``reader.read``; remarks, or the reason of a refusal, say what was put for what. Never raises."""
        plain, remarks = self.rewritten(text, points=points, boxes=boxes, times=times)
        reading = read(plain, points=points, boxes=boxes, times=times, choices=choices)
        if remarks and reading.query is None:
            return replace(reading, reason=f"{reading.reason} ({'; '.join(remarks)})")
        return replace(reading, remarks=(*remarks, *reading.remarks))


def load_own_words(path: Path) -> OwnWords:
    """Own words of a YAML file: ``synonyms`` (words: words that the grammar knows) and ``wordings`` (sentence: sentence).

    Raises OwnWordsError, and OSError where the file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OwnWordsError(f"{path} is larger than {MAX_BYTES >> 20} MiB: is it a file of own words?")
    try:  # composed, not loaded: rows keep their lines, "on" and "no" stay words, and repeated keys can be seen
        root = yaml.compose(data.decode(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise OwnWordsError(f"{path} is not YAML in UTF-8: {' '.join(str(error).split())}") from error
    synonyms: dict[tuple[str, ...], str] = {}
    wordings: list[Wording] = []
    for section, rows, line in _pairs(root, path, 1):
        if section not in ("synonyms", "wordings"):
            raise OwnWordsError(f"{path}:{line}: {section!r} is neither synonyms nor wordings")
        for said, means, row in _pairs(rows, path, line):
            if not isinstance(means, yaml.ScalarNode):
                raise OwnWordsError(f"{path}:{row}: {said!r} must stand for one text")
            try:
                for text in (said, means.value):
                    check_text(text)
                if section == "wordings":
                    wordings.append(_wording(said, means.value, wordings))
                else:
                    words = _synonym(said, means.value)
                    if words in synonyms:
                        raise OwnWordsError(f"{said!r} is there twice, as {synonyms[words]!r} before: keep one")
                    synonyms[words] = normalise(means.value).strip()
            except (OwnWordsError, QueryError) as error:
                raise OwnWordsError(f"{path}:{row}: {error}") from error
    if not synonyms and not wordings:
        raise OwnWordsError(f"{path} has neither synonyms nor wordings: see docs/questions.md for an example")
    longest_first = sorted(synonyms.items(), key=lambda pair: -len(pair[0]))
    return OwnWords(synonyms=tuple(longest_first), wordings=tuple(wordings))


def _pairs(node: yaml.Node | None, path: Path, line: int) -> list[tuple[str, yaml.Node, int]]:
    """The keys and values of a mapping, with their lines."""
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        return []
    if not isinstance(node, yaml.MappingNode) or not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
        raise OwnWordsError(f"{path}:{line}: rows of the form words: other words are expected, see docs/questions.md")
    return [(key.value, value, key.start_mark.line + 1) for key, value in node.value]


def _synonym(said: str, means: str) -> tuple[str, ...]:
    tokens = tokens_of(said, points=0, boxes=0, times=0)
    words = tuple(t.text for t in tokens)
    if not words or any(t.kind != "word" for t in tokens):
        raise OwnWordsError(f"{said!r} must be words: a sentence with marks or numbers belongs under wordings")
    if all(word in GRAMMAR.words or word in _SILENT for word in words):
        raise OwnWordsError(
            f"{said!r} has only words that the grammar knows, which keep their meaning: give the whole sentence under wordings"
        )
    target = tokens_of(means, points=0, boxes=0, times=0)
    strange = [t.text for t in target if t.kind != "number" and not (t.kind == "word" and t.text in GRAMMAR.words)]
    if strange or not target:
        raise OwnWordsError(f"{said!r} stands for {means!r}, of which the grammar does not know {strange or 'a word'}")
    return words


def _wording(said: str, means: str, others: Sequence[Wording]) -> Wording:
    given = marks_in(f"{said} {means}")
    tokens, target = tokens_of(said, **given), tokens_of(means, **given)
    marks, meant = ({t.text for t in ts if t.kind in _MARKS} for ts in (tokens, target))
    if marks != meant:
        differ = ", ".join(sorted(marks ^ meant))
        raise OwnWordsError(f"{differ} must be in both {said!r} and {means!r}, or in neither")
    reading = read(means, **given)
    if reading.query is None:
        near = (
            "; what can be asked: " + " | ".join(a.words for a in reading.alternatives[:3])
            if reading.alternatives
            else ""
        )
        raise OwnWordsError(f"{means!r} is not read: {reading.reason}{near}")
    before = read(said, **given)
    open_noun = before.query is not None and any(isinstance(t, Object | Room) for t in terms(before.query))
    if before.query not in (None, reading.query) and not open_noun:
        raise OwnWordsError(f"{said!r} is already read, as {before.read_as!r}: leave it out, or word it differently")
    if before.code is ErrorCode.AMBIGUOUS and reading.query not in [a.query for a in before.alternatives]:
        raise OwnWordsError(f"{said!r} can mean {' or '.join(a.words for a in before.alternatives)}, not {means!r}")
    if any(other.bound(tokens) is not None for other in others):
        raise OwnWordsError(f"{said!r} is there twice: keep one")
    return Wording(tokens=tokens, means=_marked(means, target))


def _marked(text: str, tokens: Sequence[Token]) -> str:
    """A text with its marks as <p0>, however they were written."""
    normal, out, done = normalise(text), "", 0
    for token in tokens:
        if token.kind in _MARKS:
            out += normal[done : token.start] + token.text
            done = token.end
    return out + normal[done:]
