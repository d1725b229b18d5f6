"""Plain words of a question or an answer, for reading what a model says."""

from __future__ import annotations

import re
import unicodedata

MAX_WORDS = 150  # no question about geometry is longer; what follows is not read

_QUOTES = str.maketrans(dict.fromkeys("’‘ʼ′`´", "'"))
_TAG = re.compile(r",\s?(?:right|correct|yes|no)\s?\?+\s*\Z")  # "<p0> is nearer, right?"
_ARROW = re.compile(r"[-=]>|[→⟶⇒]")
_TOKEN = re.compile(
    r"(?P<word>[^\W\d_]+2?(?:'[^\W\d_]+)*|[0-9]{1,2}d\b|'[a-z]+\b)"
    r"|(?P<other>[^\s])"
)
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


def normalise(text: str) -> str:
    """Compatibility normal form (NFKC), lower case, plain quotes and arrows, no invisible format characters."""
    text = "".join(c for c in text.translate(_QUOTES) if unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFKC", text).casefold()
    return _TAG.sub("?", _ARROW.sub(" to ", text).replace("^2", "2").replace("3-d", "3d").replace("2-d", "2d"))


def words_of(text: str) -> list[str]:
    """Words of normalised ``text``: contractions taken apart, punctuation and articles left out."""
    found: list[str] = []
    for match in _TOKEN.finditer(text):
        if len(found) > MAX_WORDS:
            break
        if match["word"]:
            found.extend(w for w in _taken_apart(match["word"]) if w not in ARTICLES)
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
