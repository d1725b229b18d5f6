"""Generated questions about small rendered houses: no confident error, and deviations that mean what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.queries.answer import Answer, ImageBox, ImagePoint, Request
from spatial_mllm_ros.queries.codes import AnswerType, ErrorCode
from spatial_mllm_ros.queries.serialization import from_json
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.simulation.truth import make_questions

pytest.importorskip("embreex", reason="there is no embreex wheel for this platform")

CONFIDENT = 0.9
REFUSALS = 0.1  # share of answerable questions that may be refused


@dataclass(frozen=True)
class Asked:
    question: dict[str, Any]
    answer: Answer

    @property
    def kind(self) -> str:
        return str(self.question["id"]).split("-")[-1]

    @property
    def deviations(self) -> float | None:
        """Error in stated deviations; None where there is no number to compare."""
        truth = self.question["expect"].get("value")
        number = self.answer.answer_type in (AnswerType.NUMBER, AnswerType.VECTOR)
        if truth is None or not number or not self.answer.stddev > 0:
            return None
        return (self.answer.value - truth) / self.answer.stddev

    @property
    def right(self) -> bool:
        expect, a = self.question["expect"], self.answer
        if expect.get("error_code", "NONE") != "NONE":
            wide = expect.get("or_answer_with_stddev_at_least")
            return a.error_code.name == expect["error_code"] or (wide is not None and a.stddev >= wide)
        if a.error_code != ErrorCode.NONE:
            return False
        if "accept" in expect:
            return bool(expect["accept"][0] <= a.value <= expect["accept"][1])
        if "choice_index" in expect:
            return bool(a.choice_index == expect["choice_index"])
        if "order" in expect:
            return list(a.order) == expect["order"]
        if "position" in expect:
            off = float(np.linalg.norm(np.subtract(a.pose.position, expect["position"])))
            return off <= max(expect["accept_m"], 3 * a.stddev)
        if "pixel" in expect:
            off = np.hypot(a.pixel.u - expect["pixel"][0], a.pixel.v - expect["pixel"][1])
            return bool(off <= max(expect["accept_px"], 3 * a.stddev))
        return bool(a.value == expect["value"])


def ask(source: RenderedSource, question: dict[str, Any], engine: SpatialQueryEngine) -> Answer:
    stamp = source.stamp_of
    return engine.answer(
        Request(
            question["question"],
            tuple(question["choices"]),
            points=tuple(ImagePoint(stamp(p["frame"]), "", p["u"], p["v"]) for p in question["points"]),
            boxes=tuple(
                ImageBox(stamp(b["frame"]), "", b["u_min"], b["v_min"], b["u_max"], b["v_max"])
                for b in question["boxes"]
            ),
            times=tuple(stamp(t["frame"]) for t in question["times"]),
            query=from_json(question["query"]) if "query" in question else None,
        )
    )


def engine_for(source: RenderedSource) -> SpatialQueryEngine:
    memory = SpatialMemory()
    for frame in source.frames():
        memory.add(frame)
    return SpatialQueryEngine(memory, source.info.sensor)


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    """Some hundreds of questions about two noisy houses and one without noise."""
    out = []
    for seed, noise, count in ((0, True, 300), (9, True, 300), (30, False, 120)):
        source = RenderedSource(seed=seed, rooms=2, frames=90, rate_hz=4.0, width=320, height=240, noise=noise)
        engine = engine_for(source)
        out += [Asked(q, ask(source, q, engine)) for q in make_questions(source, count)["questions"]]
    return out


def test_there_are_no_confident_errors(asked: list[Asked]) -> None:
    """An answer that misses its truth by more than may be accepted must have said that it is doubtful."""
    wrong = [a for a in asked if not a.right and a.answer.error_code == ErrorCode.NONE]
    confident = [a for a in wrong if a.answer.confidence > CONFIDENT and abs(a.deviations or np.inf) > 3]
    assert not confident, [(a.question["id"], a.question["question"], a.answer.answer) for a in confident]
    assert len(wrong) <= 0.01 * len(asked), [(a.question["id"], a.answer.answer) for a in wrong]


def test_refusals_are_rare(asked: list[Asked]) -> None:
    refused = [a for a in asked if not a.right and a.answer.error_code != ErrorCode.NONE]
    assert {a.answer.error_code for a in refused} <= {ErrorCode.ABSTAINED, ErrorCode.NOT_SEEN}
    assert len(refused) <= REFUSALS * len(asked), [(a.question["id"], a.answer.error_msg) for a in refused]


def test_stated_deviations_mean_what_they_say(asked: list[Asked]) -> None:
    """About 68 % of errors within one deviation and 95 % within two; more is allowed than less."""
    off = np.abs([d for a in asked if (d := a.deviations) is not None])
    assert len(off) > 150
    assert np.mean(off < 1) > 0.6
    assert np.mean(off < 2) > 0.9
    assert np.mean(off < 4) > 0.985


def test_every_kind_is_mostly_answered(asked: list[Asked]) -> None:
    for kind in {a.kind for a in asked} - {"ceiling"}:
        of_kind = [a for a in asked if a.kind == kind]
        assert np.mean([a.right for a in of_kind]) >= 0.6, (kind, [a.answer.error_msg for a in of_kind])
