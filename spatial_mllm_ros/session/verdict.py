"""An answer held against the truth that a questions file states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import AnswerType, ErrorCode

BASE = {"cm": ("m", 0.01), "mm": ("m", 0.001), "rad": ("deg", math.degrees(1.0))}
"""Units that are not the base of their kind: the base and what one is in it."""
DIGITS = {"m": 3, "deg": 2, "s": 2, "m2": 2, "m3": 2, "m/s": 3, "px": 1}


class Outcome(Enum):
    """RIGHT and WRONG speak of answers; REFUSED is an error code where there was an answer."""

    RIGHT = "right"
    WRONG = "wrong"
    REFUSED = "refused"


@dataclass(frozen=True)
class Verdict:
    """outcome; truth: in words; error: in words, '' where there is none. off: the error of a number, in the unit of the
    answer, None for other answers. stddev: what the answer stated, same unit."""

    outcome: Outcome
    truth: str
    error: str = ""
    off: float | None = None
    stddev: float | None = None


def to_base(value: float, unit: str) -> tuple[float, str]:
    """A value in the base unit of its kind: m, deg, or the unit itself."""
    base, factor = BASE.get(unit, (unit, 1.0))
    return value * factor, base


def judge(expect: Mapping[str, Any], answer: Answer, choices: Sequence[str] = ()) -> Verdict:
    """Whether ``answer`` is right by ``expect``, as docs/questions-file.md defines it."""
    wanted = expect.get("error_code", "NONE")
    truth = truth_in_words(expect, choices)
    given = answer.error_code.name
    if wanted != "NONE":
        least = expect.get("or_answer_with_stddev_at_least")
        vague = least is not None and given == "NONE" and to_base(_finite(answer.stddev), answer.unit)[0] >= least
        if given == wanted or vague:
            return Verdict(Outcome.RIGHT, truth)
        return Verdict(Outcome.WRONG if given == "NONE" else Outcome.REFUSED, truth)
    if answer.error_code != ErrorCode.NONE:
        return Verdict(Outcome.REFUSED, truth)
    kind = expect.get("answer_type", "NUMBER")
    if answer.answer_type.name != kind:
        return Verdict(Outcome.WRONG, truth, f"a {answer.answer_type.name.lower()}, not a {kind.lower()}")
    if answer.answer_type in (AnswerType.NUMBER, AnswerType.VECTOR):
        return _judge_number(expect, answer, truth)
    if answer.answer_type == AnswerType.BOOLEAN:
        return _verdict(bool(answer.value) == bool(expect["value"]), truth)
    if answer.answer_type == AnswerType.CHOICE:
        return _verdict(answer.choice_index == expect["choice_index"], truth)
    if answer.answer_type == AnswerType.PIXEL:
        u, v = expect["pixel"]
        off = math.hypot(answer.pixel.u - u, answer.pixel.v - v)
        return _verdict(off <= expect["accept_px"], truth, f"{off:.1f} px", off, answer.stddev)
    if answer.answer_type in (AnswerType.POSE, AnswerType.POINT):
        off = math.dist(answer.pose.position, expect["position"])
        return _verdict(off <= expect["accept_m"], truth, f"{off:.3f} m", off, answer.stddev)
    if answer.answer_type == AnswerType.ORDER:
        return _verdict(list(answer.order) == list(expect["order"]), truth)
    return Verdict(Outcome.WRONG, truth, f"there is no rule to judge a {kind.lower()}")


def truth_in_words(expect: Mapping[str, Any], choices: Sequence[str] = ()) -> str:
    """The truth as people write it."""
    if expect.get("error_code", "NONE") != "NONE":
        return str(expect["error_code"])
    kind = expect.get("answer_type", "NUMBER")
    if kind == "CHOICE":
        index = expect["choice_index"]
        return choices[index] if 0 <= index < len(choices) else f"choice {index}"
    if kind == "BOOLEAN":
        return "yes" if expect["value"] else "no"
    if kind == "PIXEL":
        return f"({expect['pixel'][0]:.0f}, {expect['pixel'][1]:.0f})"
    if kind in ("POSE", "POINT"):
        return "({:.2f}, {:.2f}, {:.2f})".format(*expect["position"])
    if kind == "ORDER":
        return ", ".join(map(str, expect["order"]))
    if "value" not in expect:
        return ""
    return with_unit(short(expect["value"]), expect.get("unit", ""))


def unit_symbol(unit: str) -> str:
    """A unit of an answer as people write it."""
    return {"deg": "°", "m2": "m²", "count": ""}.get(unit, unit)


def with_unit(number: str, unit: str) -> str:
    """A number and its unit as people write them: "1.5 m", "12°"."""
    symbol = unit_symbol(unit)
    return number + symbol if symbol == "°" else f"{number} {symbol}".strip()


def short(value: float, significant: int = 3) -> str:
    """A number with so many significant digits, never in powers of ten for what people measure."""
    if not math.isfinite(value):
        return "unknown"
    digits = max(0, significant - 1 - math.floor(math.log10(abs(value)))) if abs(value) > 1e-4 else 3
    return f"{value:.{min(digits, 4)}f}"


def _judge_number(expect: Mapping[str, Any], answer: Answer, truth: str) -> Verdict:
    value, unit = to_base(answer.value, answer.unit)
    true, true_unit = to_base(expect["value"], expect.get("unit", ""))
    low, high = (to_base(x, expect.get("unit", ""))[0] for x in expect.get("accept", (-math.inf, math.inf)))
    if unit != true_unit:
        return Verdict(Outcome.WRONG, truth, f"in {unit or 'no unit'}, not in {true_unit or 'no unit'}")
    off = value - true
    stddev = to_base(answer.stddev, answer.unit)[0]
    number = f"{off:+.{DIGITS.get(unit, 3)}f}".replace("-", "\N{MINUS SIGN}")
    error = with_unit(number if any(c in "123456789" for c in number) else number[1:], unit)
    return _verdict(low <= value <= high, truth, error, off, stddev if math.isfinite(stddev) else None)


def _verdict(
    right: bool, truth: str, error: str = "", off: float | None = None, stddev: float | None = None
) -> Verdict:
    return Verdict(Outcome.RIGHT if right else Outcome.WRONG, truth, error, off, stddev)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
