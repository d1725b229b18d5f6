"""What a text says: a number, a letter, coordinates. Suites read the same text differently; each way has a name."""

from __future__ import annotations

import re

NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?|[-+]?\.\d+")


def to_float(text: str) -> float | None:
    """A whole text as a number, None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def first_word(text: str) -> str:
    """Up to the first space, without full stops at its end (VSI-Bench's suite in lmms-eval)."""
    return text.split(" ", maxsplit=1)[0].rstrip(".").strip()


def cleaned(text: str) -> str:
    """What is between the last <answer> tags, on one line, in lower case, without full stops at its end (Spatial-MLLM)."""
    tagged = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    line = (tagged[-1] if tagged else text).replace("\n", " ").replace("\r", " ")
    return re.sub(r"\s+", " ", line).strip().rstrip(".").lower()


def whole_number(text: str) -> float | None:
    """A text that is nothing but a number, thousands with commas (Spatial-MLLM)."""
    return to_float(text.replace(",", ""))


def numbers(text: str) -> list[float]:
    """All numbers in a text, in order, with their signs."""
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def first_number(text: str) -> float | None:
    """None where a text has none."""
    found = numbers(text)
    return found[0] if found else None


def last_number(text: str) -> float | None:
    """None where a text has none."""
    found = numbers(text)
    return found[-1] if found else None


def letter(text: str, options: int = 26) -> str:
    """The letter of an option that a text names: alone, in brackets or after "answer is"; '' where that is not one alone."""
    last = chr(ord("A") + options - 1)
    whole = cleaned(text).upper()
    if re.fullmatch(rf"\(?[A-{last}]\)?[.:)]?", whole):
        return whole.strip("().:")
    bracketed = set(re.findall(rf"\(([A-{last}])\)", whole))
    start = re.match(rf"\(?([A-{last}])\)?[.:)](?:\s|$)", whole)
    if start and len(bracketed) < 2:
        return start[1]
    found = bracketed or set(re.findall(rf"`([A-{last}])`", whole))
    found = found or set(re.findall(rf"(?:ANSWER|OPTION|CHOICE|POINT)(?: IS)?:? ?([A-{last}])\b", whole))
    return found.pop() if len(found) == 1 else ""


def marked(text: str) -> str:
    """What is in the last pair of backticks, where MultiSPA's answers have their value; else the whole text."""
    found = re.findall(r"`([^`]*)`", text)
    return found[-1].strip() if found else text
