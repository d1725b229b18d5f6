"""Superlatives, signed differences and thresholds in rendered houses: right, or doubtful, and as doubtful as they say.

``python test/test_calibration.py`` measures at length: three houses, 360 superlatives, 360 differences, 1,000 thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from test_geometry_rendered import engine_for

from spatial_mllm_ros.answering.context import QueryConfig
from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.queries import asks, measures, operands
from spatial_mllm_ros.queries.answer import Answer, ImagePoint, Request
from spatial_mllm_ros.queries.asks import Ask
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.queries.query import Query, points_of
from spatial_mllm_ros.simulation.ground_truth import GroundTruth, Point
from spatial_mllm_ros.simulation.rendered import RenderedSource

pytest.importorskip("embreex", reason="there is no embreex wheel for this platform")

EVERYTHING = QueryConfig(min_confidence=0.5)  # also what is too close to call, to see how its probabilities fare
CONFIDENT = 0.99
BINS = (0.5, 0.7, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class Told:
    """An answer, whether it is right, and the error of a number in deviations."""

    answer: Answer
    right: bool
    off: float = np.nan


class House:
    """A noisy house, what was seen of it, and exact points to ask about."""

    def __init__(self, seed: int) -> None:
        self.source = RenderedSource(seed=seed, rooms=2, frames=90, rate_hz=4.0, width=320, height=240)
        self.rng = np.random.default_rng(seed)
        self.ground_truth = GroundTruth(self.source, self.rng, 90)
        seen = engine_for(self.source)
        self.engine = SpatialQueryEngine(seen.memory, seen.sensor, EVERYTHING)

    def points(self, count: int) -> list[Point]:
        frame = int(self.rng.choice(self.ground_truth.frames)) if self.rng.random() < 0.5 else None
        drawn = [p for _ in range(6 * count) if (p := self.ground_truth.point(frame)) is not None]
        found = list({(p.frame, p.u, p.v): p for p in drawn}.values())[:count]
        return found if len(found) == count else self.points(count)

    def ask(self, ask: Ask, points: list[Point]) -> Answer:
        marks = tuple(ImagePoint(int(self.source.stamps[p.frame]), "", p.u, p.v) for p in points)
        return self.engine.answer(Request(points=marks, query=Query(ask=ask)))

    def superlative(self) -> Told:
        points = self.points(int(self.rng.integers(3, 9)))
        of, values = self._quantities(points)
        largest = bool(self.rng.random() < 0.5)
        answer = self.ask(asks.Extreme(of=of, which=asks.Which.LARGEST if largest else asks.Which.SMALLEST), points)
        best = int(np.argmax(values) if largest else np.argmin(values))
        return Told(answer, answer.choice_index == points_of(Query(ask=asks.Value(of=of[best])))[-1])

    def _quantities(self, points: list[Point]) -> tuple[tuple[measures.Measure, ...], np.ndarray]:
        p = [operands.Point(index=i) for i in range(len(points))]
        kind = int(self.rng.integers(3))
        if kind == 0:
            return tuple(measures.Height(of=x) for x in p), np.array([x.xyz[2] for x in points])
        if kind == 1:
            camera = operands.Camera()
            return tuple(measures.Distance(a=x, b=camera) for x in p), np.array([x.range_m for x in points])
        away = [float(np.linalg.norm(x.xyz - points[0].xyz)) for x in points[1:]]
        return tuple(measures.Distance(a=p[0], b=x) for x in p[1:]), np.array(away)

    def difference(self) -> Told:
        points = self.points(3)
        p = [operands.Point(index=i) for i in range(3)]
        if self.rng.random() < 0.5:
            ask: Ask = asks.Difference(a=measures.Height(of=p[0]), b=measures.Height(of=p[1]))
            truth = float(points[0].xyz[2] - points[1].xyz[2])
        else:
            ask = asks.Difference(a=measures.Distance(a=p[0], b=p[1]), b=measures.Distance(a=p[0], b=p[2]))
            truth = float(np.linalg.norm(points[1].xyz - points[0].xyz) - np.linalg.norm(points[2].xyz - points[0].xyz))
        answer = self.ask(ask, points)
        off = (answer.value - truth) / answer.stddev
        return Told(answer, bool(abs(off) < 4), off)

    def threshold(self) -> Told:
        """A limit near the truth: within a hundredth of it, as a rule."""
        points = self.points(2)
        p = [operands.Point(index=i) for i in range(2)]
        of: measures.Measure = measures.Distance(a=p[0], b=p[1])
        truth = float(np.linalg.norm(points[0].xyz - points[1].xyz))
        if self.rng.random() < 0.5:
            of, truth = measures.Height(of=p[0]), float(points[0].xyz[2])
        limit = truth + float(self.rng.normal(0, 0.01 * max(truth, 1.0)))
        more = bool(self.rng.random() < 0.5)
        comparison = asks.Comparison.MORE if more else asks.Comparison.LESS
        answer = self.ask(asks.Threshold(of=of, comparison=comparison, value=limit), points)
        return Told(answer, bool(answer.value) == ((truth > limit) == more))


def reliability(told: list[Told]) -> list[tuple[float, float, int]]:
    """By bin of confidence: mean confidence, share that is right, count."""
    confidence = np.array([t.answer.confidence for t in told])
    right = np.array([t.right for t in told])
    rows = []
    for low, high in pairwise(BINS):
        own = (confidence >= low) & ((confidence < high) if high < 1 else (confidence <= 1))
        if own.any():
            rows.append((float(confidence[own].mean()), float(right[own].mean()), int(own.sum())))
    return rows


def measured(seeds: tuple[int, ...], superlatives: int, differences: int, thresholds: int) -> dict[str, list[Told]]:
    out: dict[str, list[Told]] = {"superlative": [], "difference": [], "threshold": []}
    for seed in seeds:
        house = House(seed)
        for kind, count in (("superlative", superlatives), ("difference", differences), ("threshold", thresholds)):
            out[kind] += [t for _ in range(count) if answered(t := getattr(house, kind)())]
    return out


def answered(told: Told) -> bool:
    assert told.answer.error_code in (ErrorCode.NONE, ErrorCode.ABSTAINED, ErrorCode.NOT_SEEN), told.answer.error_msg
    return told.answer.error_code == ErrorCode.NONE


@pytest.fixture(scope="module")
def small() -> dict[str, list[Told]]:
    return measured((7,), 40, 40, 80)


def test_nothing_is_confidently_wrong(small: dict[str, list[Told]]) -> None:
    wrong = [
        t.answer.answer for told in small.values() for t in told if not t.right and t.answer.confidence > CONFIDENT
    ]
    assert len(wrong) <= 1, wrong  # one in a hundred of what is 99 % sure may be wrong
    assert all(len(told) >= 0.8 * count for told, count in zip(small.values(), (40, 40, 80), strict=True))


def test_probabilities_of_thresholds_mean_what_they_say(small: dict[str, list[Told]]) -> None:
    for confidence, right, count in reliability(small["threshold"]):
        spread = np.sqrt(confidence * (1 - confidence) / count) if confidence < 1 else 0.0
        assert right > confidence - 3 * spread - 0.1, reliability(small["threshold"])


def test_differences_are_signed_and_their_deviations_mean_what_they_say(small: dict[str, list[Told]]) -> None:
    off = np.abs([t.off for t in small["difference"]])
    assert np.mean(off < 1) > 0.5
    assert np.mean(off < 2) > 0.85
    assert off.max() < 5


def report(told: dict[str, list[Told]]) -> Iterator[str]:
    for kind, of in told.items():
        wrong = sum(not t.right for t in of)
        sure = sum(not t.right and t.answer.confidence > CONFIDENT for t in of)
        yield f"{kind}: {len(of)} answered, {wrong} wrong, {sure} of them with more than {CONFIDENT:.0%} confidence"
        off = np.abs([t.off for t in of])
        if kind == "difference":
            shares = ", ".join(f"{np.mean(off < k):.1%}" for k in (1, 2, 3))
            yield f"  within 1, 2, 3 deviations: {shares}; worst {off.max():.1f}"
        else:
            for confidence, right, count in reliability(of):
                yield f"  told {confidence:.3f}: right {right:.3f} of {count}"
        for t in [t for t in of if not t.right and t.answer.confidence > CONFIDENT]:
            yield f"  wrong: {t.answer.answer} ({t.answer.confidence:.4f})"


if __name__ == "__main__":
    print("\n".join(report(measured((41, 42, 43), 120, 120, 334))))
