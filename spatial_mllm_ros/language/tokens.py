"""Text to tokens: words, numbers, times of day, marks and the punctuation that matters."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TypedDict

from spatial_mllm_ros.queries.codes import ErrorCode, QueryError

MAX_CHARACTERS = 2000
"""Of a question at most."""

_QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"', "″": '"', "′": "'", "−": "-"})
_FRACTIONS = {"½": 0.5, "¼": 0.25, "¾": 0.75, "⅓": 1 / 3, "⅔": 2 / 3}
_WRITTEN_OUT = (  # contractions; 's after a question word or a pronoun is "is", elsewhere it owns
    (r"\bcan't\b", "can n't"),
    (r"\bwon't\b", "will n't"),
    (r"\bshan't\b", "shall n't"),
    (r"\bcannot\b", "can not"),
    (r"(?<=[a-z])n't\b", " n't"),
    (r"\blet's\b", "let us"),
    (r"\b(what|where|when|who|how|which|that|there|here|it|this|one)'s\b", r"\1 is"),
    (r"\b(i)'m\b", r"\1 am"),
    (r"(?<=[a-z])'re\b", " are"),
    (r"(?<=[a-z])'ve\b", " have"),
    (r"(?<=[a-z])'d\b", " would"),
    (r"(?<=[a-z])'ll\b", " will"),
    (r"\bfurther more\b", "furthermore"),
    (r"\be\.g\.|\bi\.e\.", ","),
    (r"\bsq\.", "sq"),
    (r"\bo'clock\b", "oclock"),
)
_TOKEN = re.compile(
    r"(?P<mark><\s*(?P<kind>p|box|t)\s*(?P<index>\d{1,4})\s*>)"
    r"|(?P<clock>(?<![\d.,])\d{1,2}:\d{2}(?::\d{2})?(?!\d))"
    r"|(?P<fraction>(?:(?P<whole>\d{1,4})[ -])?(?P<over>\d{1,4})/(?P<under>[1-9]\d{0,3})(?![\d/]))"
    r"|(?P<half>(?P<halfwhole>\d{1,4})?\s?(?P<sign>[½¼¾⅓⅔]))"
    r"|(?P<number>(?:(?<![\w)>])-)?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d{1,15}(?:[.,]\d{1,12})?|\.\d{1,12}))"
    r"|(?P<unit>m/s|km/h|(?:mm|cm|dm|km|m|ft|in)(?:\^?[23]|[²³])(?!\w)|sq\s?m(?!\w)|sq\s?ft(?!\w)|[°%\"])"
    r"|(?P<owner>'s(?!\w)|'(?=\s\w))"
    r"|(?P<word>n't|[^\W\d_]+(?:\d+(?=[^\w]|$))?)"
    r"|(?P<end>[.!?;]+(?=\s|$)|[?!;]+|\n)"
    r"|(?P<comma>[,:|–—&/@]|->|→|[()\[\]]|(?<!\w)-(?!\w))|(?P<hyphen>-)"
    r"|(?P<feet>')"
    r"|(?P<other>\S)"
)
_BARE_MARK = re.compile(r"(p|box|t)(\d{1,4})")
_MARK_WORDS = {"p": ("p", "point"), "box": ("box",), "t": ("t", "time", "moment")}
_OTHER = {"&": "and", "->": "to", "→": "to", "@": "at"}


class Marks(TypedDict):
    """How many marks of each kind a request has."""

    points: int
    boxes: int
    times: int


@dataclass(frozen=True)
class Token:
    """kind: word, number, clock, p, box, t, ``,`` (a pause) or ``.`` (the end of a sentence).

    text: as patterns match it. value: of a number, the index of a mark, or seconds of a time of day.
    start, end: characters of the normalised text.
    """

    kind: str
    text: str
    value: float = 0.0
    start: int = 0
    end: int = 0


def check_text(text: str) -> None:
    """QueryError (INVALID_REQUEST) unless ``text`` is 1 to 2000 printable characters with something to read in them."""
    if not text.strip():
        raise _unreadable("the question is empty: ask something in 1 to 2000 characters")
    if len(text) > MAX_CHARACTERS:
        raise _unreadable(f"the question has {len(text)} characters: ask it in at most {MAX_CHARACTERS}")
    for position, character in enumerate(text):
        category = unicodedata.category(character)
        if category == "Cs" or character == "\ufffd":
            raise _unreadable(
                f"character {position} of the question is not text (a residue of wrong decoding): send UTF-8"
            )
        if category == "Cc" and character not in "\t\n\r":
            raise _unreadable(f"character {position} of the question is the control character {character!r}: remove it")
    if not any(c.isalnum() for c in text):
        raise _unreadable("the question has no word in it: ask something")


def _unreadable(message: str) -> QueryError:
    return QueryError(ErrorCode.INVALID_REQUEST, message)


def normalise(text: str) -> str:
    """One spelling of what looks the same: NFKC, lower case, straight quotes, no invisible characters."""
    signs = "".join(f" {c} " if c in _FRACTIONS else c for c in text) if any(c in text for c in _FRACTIONS) else text
    text = "".join(s if s in _FRACTIONS or s in "²³°" else unicodedata.normalize("NFKC", s) for s in signs)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").translate(_QUOTES).lower()
    for pattern, written in _WRITTEN_OUT:
        text = re.sub(pattern, written, text)
    return text


def marks_in(text: str) -> Marks:
    """The marks of a request that has just those which a text names: ``<p2>`` is the third point."""
    found = [
        max((int(n) + 1 for n in re.findall(rf"<\s*{k}\s*(\d{{1,4}})\s*>", text.lower())), default=0)
        for k in _MARK_WORDS
    ]
    return Marks(points=found[0], boxes=found[1], times=found[2])


def tokens_of(text: str, *, points: int, boxes: int, times: int) -> tuple[Token, ...]:
    """The tokens of a text. ``p0``, ``P 0`` and ``point 0`` are marks where the request has that mark."""
    given = {"p": points, "box": boxes, "t": times}
    found: list[Token] = []
    normal = normalise(text)
    for match in _TOKEN.finditer(normal):
        if not match["hyphen"]:
            found.append(_token(match, given))
    return _joined(found, given)


def _token(match: re.Match[str], given: dict[str, int]) -> Token:
    kind, text = match.lastgroup, match[0]
    at = {"start": match.start(), "end": match.end()}
    if match["mark"]:
        return Token(match["kind"], f"<{match['kind']}{int(match['index'])}>", int(match["index"]), **at)
    if match["clock"]:
        hour, minute, second = (*map(int, text.split(":")), 0)[:3]
        return Token(
            "clock" if hour < 24 and minute < 60 and second < 60 else "word",
            text,
            hour * 3600 + minute * 60 + second,
            **at,
        )
    if match["fraction"]:
        return Token("number", text, int(match["whole"] or 0) + int(match["over"]) / int(match["under"]), **at)
    if match["half"]:
        return Token("number", text, int(match["halfwhole"] or 0) + _FRACTIONS[match["sign"]], **at)
    if match["number"]:
        plain = text.replace(",", "") if re.search(r",\d{3}(?!\d)", text) else text.replace(",", ".")
        return Token("number", text, float(plain), **at)
    if match["unit"]:
        return Token("word", re.sub(r"[\^\s]", "", text).replace("²", "2").replace("³", "3"), **at)
    if match["comma"] and text not in _OTHER:
        return Token(",", ",", **at)
    if match["end"]:
        return Token(".", ".", **at)
    if match["feet"] or match["owner"]:
        return Token("word", "'s" if match["owner"] else "'", **at)
    bare = _BARE_MARK.fullmatch(text)
    if bare:
        return Token(bare[1], f"<{bare[1]}{int(bare[2])}>", int(bare[2]), **at)
    del kind
    return Token("word", _OTHER.get(text, text), **at)


def _joined(tokens: list[Token], given: dict[str, int]) -> tuple[Token, ...]:
    """``point 0`` and ``p 0`` become one mark, "point <p0>" stays two tokens."""
    out: list[Token] = []
    for token in tokens:
        if token.kind == "number" and token.text.isdecimal() and out and out[-1].kind == "word":
            for kind, words in _MARK_WORDS.items():
                if out[-1].text in words and token.value < given[kind] and out[-1].end >= token.start - 1:
                    index = int(token.value)
                    out[-1] = Token(kind, f"<{kind}{index}>", index, out[-1].start, token.end)
                    break
            else:
                out.append(token)
            continue
        if token.kind == "," and out and out[-1].kind == ",":
            continue
        out.append(replace(token))
    while out and out[-1].kind in ",.":
        out.pop()
    while out and out[0].kind in ",.":
        out.pop(0)
    return tuple(out)
