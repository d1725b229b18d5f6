"""Line chart of coverage and strips of error: numbers to SVG coordinates. The template draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.session.coverage_record import CoverageCurve
from spatial_mllm_ros.session.questions import Asked
from spatial_mllm_ros.session.verdict import short, to_base, with_unit


@dataclass(frozen=True)
class Tick:
    """Position along an axis, SVG units, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A curve: SVG points, its name, its last value in words and where that text stands."""

    name: str
    points: str
    last: str
    end_x: float
    end_y: float
    text_y: float


@dataclass(frozen=True)
class CoverageChart:
    """Coverage of keyframes and of evenly spaced frames over time, in a box of width x height SVG units."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    voxel_size_m: float


def coverage_chart(curve: CoverageCurve, width: float = 480, height: float = 300) -> CoverageChart:
    """The chart of a curve."""
    left, right, top, bottom = 46.0, width - 104.0, 14.0, height - 44.0
    low = min(0.9, math.floor(10 * min((*curve.streaming, *curve.uniform))) / 10)
    first, last = curve.seconds[0], curve.seconds[-1]
    first = min(first, 0.05 * last)
    span = max(last - first, 1e-9)

    def x(seconds: float) -> float:
        return left + (right - left) * (seconds - first) / span

    def y(share: float) -> float:
        return bottom - (bottom - top) * (share - low) / (1 - low)

    step = 0.1 if low < 0.75 else 0.05
    shares = [low + i * step for i in range(round((1 - low) / step) + 1)]
    ends = {"keyframes": y(curve.streaming[-1]), "evenly spaced": y(curve.uniform[-1])}
    texts = _apart(ends, 30.0, top + 8, bottom - 8)
    lines = [
        Line(
            name,
            " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(curve.seconds, values, strict=True)),
            f"{values[-1]:.1%}".replace("%", " %"),
            x(last),
            ends[name],
            texts[name],
        )
        for name, values in (("keyframes", curve.streaming), ("evenly spaced", curve.uniform))
    ]
    return CoverageChart(
        width,
        height,
        left,
        right,
        top,
        bottom,
        [Tick(x(s), f"{s:g}") for s in nice_ticks(first, last, 6)],
        [Tick(y(s), f"{round(100 * s)} %") for s in shares],
        lines,
        curve.voxel_size_m,
    )


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from ``low`` to ``high``, about so many."""
    raw = max(high - low, 1e-9) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 9) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _apart(at: dict[str, float], gap: float, low: float, high: float) -> dict[str, float]:
    """Two heights moved so that their texts do not touch."""
    (a, ya), (b, yb) = sorted(at.items(), key=lambda item: item[1])
    if yb - ya < gap:
        middle = min(max((ya + yb) / 2, low + gap / 2), high - gap / 2)
        ya, yb = middle - gap / 2, middle + gap / 2
    return {a: ya, b: yb}


@dataclass(frozen=True)
class ErrorStrip:
    """A number against its truth, SVG units: the accepted interval, truth, answer, one and two deviations."""

    width: float
    height: float
    accept: tuple[float, float]
    truth: float
    value: float
    one: tuple[float, float]
    two: tuple[float, float]
    truth_text: str
    accept_texts: tuple[str, str]
    off_text: str


def error_strip(asked: Asked, width: float = 420, height: float = 64) -> ErrorStrip | None:
    """The strip of a NUMBER or VECTOR with a known truth; None for other answers."""
    answer, expect, verdict = asked.answer, asked.question.expect, asked.verdict
    if expect is None or verdict is None or verdict.off is None or answer.answer_type == AnswerType.PIXEL:
        return None
    unit = expect.get("unit", "")
    truth, base = to_base(expect["value"], unit)
    value, stddev = truth + verdict.off, verdict.stddev or 0.0
    accept = [to_base(x, unit)[0] for x in expect.get("accept", (truth, truth))]
    low = min(truth, value - 2 * stddev, *accept)
    high = max(truth, value + 2 * stddev, *accept)
    margin = 0.04 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def x(v: float) -> float:
        return 6 + (width - 12) * (v - low) / (high - low)

    off = f"off by {verdict.error}"
    if stddev > 0:
        ratio = abs(verdict.off) / stddev
        off += f", {ratio:.1f} deviations" if ratio >= 0.05 else ", less than 0.1 deviations"
    return ErrorStrip(
        width,
        height,
        (x(accept[0]), x(accept[1])),
        x(truth),
        x(value),
        (x(value - stddev), x(value + stddev)),
        (x(value - 2 * stddev), x(value + 2 * stddev)),
        with_unit(short(truth), base),
        (short(accept[0]), short(accept[1])),
        off,
    )
