"""From the text of a question to its words: normal form, tokens, placeholders, and the repair of typing errors."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from spatial_mllm_ros.queries.codes import ErrorCode, QueryError

MAX_CHARACTERS = 2000
MAX_WORDS = 150  # no question about geometry is longer; what follows is not read
KINDS = {"p": "P", "t": "T", "box": "BOX"}  # placeholder in a question -> name of its slot in the table

_QUOTES = str.maketrans(dict.fromkeys("’‘ʼ′`´", "'"))
_TAG = re.compile(r",\s?(?:right|correct|yes|no)\s?\?+\s*\Z")  # "<p0> is nearer, right?"
_ARROW = re.compile(r"[-=]>|[→⟶⇒]")
_TOKEN = re.compile(
    r"<\s*(?P<kind>p|t|box)\s*(?P<index>[0-9]{1,4})\s*>"
    r"|\b(?P<bare>p|t|box)(?P<bare_index>[0-9]{1,3})\b"
    r"|(?P<word>[^\W\d_]+2?(?:'[^\W\d_]+)*|[0-9]{1,2}d\b|'[a-z]+\b)"
    r"|(?P<other>[^\s])"
)
_BRACKETED = re.compile(r"<\s*(p|t|box)\s*([0-9]+)\s*>")
_SILENT = frozenset(".,;:!?()[]{}\"'-‐–—…_*~<>|“”«»¿¡#&")
_SIGNS = {"%": ("percent",), "°": ("degrees",), "/": ("or",)}
ARTICLES = frozenset({"a", "an", "the", "teh"})
_ENDINGS = {
    "'s": (),
    "'d": (),
    "'ll": (),
    "'ve": (),
    "'re": (),
    "'m": (),
}
_IRREGULAR = {
    "can't": ("can", "nt"),
    "won't": ("will", "nt"),
    "cant": ("can", "nt"),
    "whats": ("what",),
    "were's": ("where",),
    "cannot": ("can", "not"),
}


@dataclass(frozen=True)
class Slot:
    """A placeholder such as <p0>: ``kind`` is P, T or BOX, ``index`` counts from 0."""

    kind: str
    index: int


def decode_question(data: bytes) -> str:
    """The text of a question that arrived as bytes. QueryError (INVALID_REQUEST) when they are not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(f"the question is not valid UTF-8 (byte {error.start}): send UTF-8 text") from error


def check_question(text: str) -> None:
    """QueryError (INVALID_REQUEST) unless ``text`` is 1 to 2000 printable characters with something to read in them."""
    if not text.strip():
        raise invalid("the question is empty: ask something in 1 to 2000 characters")
    if len(text) > MAX_CHARACTERS:
        raise invalid(f"the question has {len(text)} characters: ask it in at most {MAX_CHARACTERS}")
    for position, character in enumerate(text):
        category = unicodedata.category(character)
        if category == "Cs" or character == "\ufffd":
            raise invalid(f"character {position} of the question is not text (a residue of wrong decoding): send UTF-8")
        if category == "Cc" and character not in "\t\n\r":
            raise invalid(f"character {position} of the question is the control character {character!r}: remove it")
    if not any(c.isalnum() for c in text):
        raise invalid("the question has no word in it: ask something")


def normalise(text: str) -> str:
    """Compatibility normal form (NFKC), lower case, plain quotes and arrows, no invisible format characters."""
    text = "".join(c for c in text.translate(_QUOTES) if unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFKC", text).casefold()
    return _TAG.sub("?", _ARROW.sub(" to ", text).replace("^2", "2").replace("3-d", "3d").replace("2-d", "2d"))


def placeholders(text: str) -> list[tuple[str, int]]:
    """(kind as written, index) of every <p0>, <t0> and <box0> in normalised ``text``."""
    return [(kind, int(digits[-9:])) for kind, digits in _BRACKETED.findall(text)]


def words_of(text: str, articles: bool = False) -> list[str | Slot]:
    """Words and placeholders of normalised ``text``: contractions taken apart, punctuation left out.

    The articles are left out too, unless ``articles``.
    """
    found: list[str | Slot] = []
    for match in _TOKEN.finditer(text):
        if len(found) > MAX_WORDS:
            break
        kind = match["kind"] or match["bare"]
        if kind:
            found.append(Slot(KINDS[kind], int(match["index"] or match["bare_index"])))
        elif match["word"]:
            found.extend(w for w in _taken_apart(match["word"]) if articles or w not in ARTICLES)
        elif match["other"] in _SIGNS:
            found.extend(_SIGNS[match["other"]])
        elif match["other"] not in _SILENT:
            found.append(match["other"])
    return found


def _taken_apart(word: str) -> tuple[str, ...]:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("n't"):
        return (word[:-3], "nt")
    head, quote, _ = word.partition("'")
    if not quote:
        return (word,)
    return (head,) if head and word[len(head) :] in _ENDINGS else (() if word in _ENDINGS else (word,))


class Speller:
    """Repairs typing errors: one letter too many, too few or wrong, or two swapped.

    The first letter must be right unless it is swapped, and a wrong letter is forgiven in long words only. A word is
    only ever turned into one of ``vocabulary`` (of four letters or more, three where two are swapped), never when it is
    in ``ordinary`` (words that are right as they are), and never when two words of the vocabulary are equally near.
    Short words of ``idle`` (those that mean nothing by themselves) are only meant when two letters are swapped: "drone"
    is not "done".
    """

    def __init__(self, vocabulary: Iterable[str], ordinary: Iterable[str], idle: Iterable[str] = ()) -> None:
        self._idle = frozenset(word for word in idle if len(word) < 6)
        self._known = frozenset(vocabulary)
        self._ordinary = frozenset(ordinary)
        self._near: dict[str, set[str]] = {}
        for word in self._known:
            if len(word) >= 3 and word.isalpha():
                for key in _deletions(word):
                    self._near.setdefault(key, set()).add(word)

    def repair(self, word: str) -> str | None:
        """``word`` if it is known, the one known word that it is a slip of, or None."""
        if word in self._known:
            return word
        if not 3 <= len(word) <= 20 or word in self._ordinary or not word.isalpha():
            return None
        candidates = {c for key in _deletions(word) for c in self._near.get(key, ())}
        slips = ((_slip(word, c), c) for c in candidates)
        ranked = sorted((slip, c) for slip, c in slips if slip is not None and not (slip > 1 and c in self._idle))
        if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return None
        return ranked[0][1]


def _deletions(word: str) -> set[str]:
    return {word} | {word[:i] + word[i + 1 :] for i in range(len(word))}


def _slip(typed: str, meant: str) -> int | None:
    """How ``typed`` differs from ``meant``, likelier slips first (swapped, left out, added, wrong), else None."""
    n = next((i for i, (a, b) in enumerate(zip(typed, meant, strict=False)) if a != b), min(len(typed), len(meant)))
    if len(typed) == len(meant) and typed[n : n + 2] == meant[n : n + 2][::-1] and typed[n + 2 :] == meant[n + 2 :]:
        return 0 if n else 1
    if n == 0 or len(meant) < 4:
        return None
    if len(typed) == len(meant):  # short words have too many neighbours
        return 4 if typed[n + 1 :] == meant[n + 1 :] and len(meant) >= 6 else None
    if len(typed) + 1 == len(meant):
        doubled = meant[n] == meant[n - 1]
        return 2 if typed[n:] == meant[n + 1 :] and (len(typed) > 3 or doubled) else None
    return 3 if len(typed) == len(meant) + 1 and typed[n + 1 :] == meant[n:] else None


def invalid(message: str) -> QueryError:
    return QueryError(ErrorCode.INVALID_REQUEST, message)
