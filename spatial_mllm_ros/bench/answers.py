"""``spatial-mllm bench answers``: are answers right, and are their stated deviations honest?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spatial_mllm_ros.bench.perturbed import Perturbation, PerturbedSource, SamePoint, same_points
from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.scene.measure import PointMeasurement
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.session.questions import Asked, MarkedPoint, Question, ask, parse_questions, read_questions
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import Outcome
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.source import Source

Progress = Callable[[str, int, int | None], None]
FEATURE_PX = 0.5
"""How precisely a feature is found again in another image, px."""
FACTS = "facts"
"""Family of questions whose id names none."""


@dataclass
class Family:
    """How the answers of one kind turned out. ratios: errors of numbers in stated deviations."""

    right: int = 0
    wrong: int = 0
    refused: int = 0
    ratios: list[float] = field(default_factory=list)
    stddevs: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    def add(self, asked: Asked, truth_stddev: float = 0.0) -> None:
        """One answer, whose truth is known, with that deviation in the unit of the answer."""
        verdict = asked.verdict
        assert verdict is not None
        self.right += verdict.outcome == Outcome.RIGHT
        self.wrong += verdict.outcome == Outcome.WRONG
        self.refused += verdict.outcome == Outcome.REFUSED
        self.latencies_ms.append(asked.latency_ms)
        if asked.answer.answer_type == AnswerType.NUMBER and verdict.off is not None and verdict.stddev:
            self.ratios.append(abs(verdict.off) / math.hypot(verdict.stddev, truth_stddev))
            self.stddevs.append(verdict.stddev)

    def row(self, source: str, name: str) -> dict[str, Any]:
        """As a row of the result; shares are None where nothing was compared."""
        ratios, latencies = np.array(self.ratios), np.array(self.latencies_ms)
        return {
            "source": source,
            "family": name,
            "right": self.right,
            "wrong": self.wrong,
            "refused": self.refused,
            "errors": len(ratios),
            "within_1": float(np.mean(ratios <= 1)) if len(ratios) else None,
            "within_2": float(np.mean(ratios <= 2)) if len(ratios) else None,
            "worst": float(ratios.max()) if len(ratios) else None,
            "median_stddev": float(np.median(self.stddevs)) if self.stddevs else None,
            "median_ms": float(np.median(latencies)) if len(latencies) else None,
            "p99_ms": float(np.percentile(latencies, 99)) if len(latencies) else None,
        }

    def __iadd__(self, other: Family) -> Family:
        self.right += other.right
        self.wrong += other.wrong
        self.refused += other.refused
        for name in ("ratios", "stddevs", "latencies_ms"):
            getattr(self, name).extend(getattr(other, name))
        return self


def run(
    sources: Sequence[str],
    questions: int = 120,
    points: int = 200,
    perturbation: Perturbation | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Questions with known truth, and points that two images show, over recordings; by recording and family, and in all.

    questions: asked of each rendered house (other recordings bring theirs in questions.json beside them). points: about so
    many places seen twice are asked for in each recording. perturbation: made worse on purpose. Raises SourceError and
    QuestionsError.
    """
    perturbation = perturbation or Perturbation()
    rows: list[dict[str, Any]] = []
    models: list[dict[str, Any]] = []
    whole: defaultdict[str, Family] = defaultdict(Family)
    for number, spec in enumerate(sources):
        progress("recordings", number, len(sources))
        source = open_source(spec)
        streamed: Source = PerturbedSource(source, perturbation) if perturbation else source
        session = Session(streamed, record_coverage=False)
        progress(f"{spec}: streaming", 0, None)
        session.stream()
        families: defaultdict[str, Family] = defaultdict(Family)
        asked = _questions(spec, source, questions)
        for done, question in enumerate(asked):
            progress(f"{spec}: questions", done, len(asked))
            families[_family(question)].add(ask(session, question))
        for name, question, stddev in _twice_seen(session, points):
            families[name].add(ask(session, question), stddev)
        for name, family in families.items():
            rows.append(family.row(source.info.name, name))
            whole[name] += family
        models.append(_model(session))
    if len(sources) > 1:
        rows += [family.row("all", name) for name, family in sorted(whole.items())]
    total = Family()
    for family in whole.values():
        total += family
    rows.append(total.row("all", "all"))
    return {"perturbation": vars(perturbation), "answers": rows, "errors_of_poses": models}


def _questions(spec: str, source: Source, count: int) -> list[Question]:
    if isinstance(source, RenderedSource):
        from spatial_mllm_ros.simulation.truth import make_questions

        return parse_questions(make_questions(source, count)) if count else []
    file = Path(spec).expanduser() / "questions.json"
    return [q for q in read_questions(file) if q.expect is not None] if file.is_file() else []


def _family(question: Question) -> str:
    return question.id.partition("-")[2] or FACTS


def _model(session: Session) -> dict[str, Any]:
    """What is assumed of the poses after having compared the images."""
    prior = session.engine.sensor
    found, sensor = session.memory.agreement.measured(prior), session.memory.sensor_from(prior)
    return {
        "source": session.source.info.name,
        "compared": 0 if found is None else found.pairs,
        "apart_m": None if found is None else found.residual_m,
        "position_m": sensor.pose_position_m,
        "rotation_deg": math.degrees(sensor.pose_rotation_rad),
        "depth_share": sensor.depth_correlated,
        "drift_position_m": sensor.drift_position_m,
        "drift_rotation_deg": math.degrees(sensor.drift_rotation_rad),
        "drift_time_s": sensor.drift_time_s,
    }


def _twice_seen(session: Session, count: int) -> Iterable[tuple[str, Question, float]]:
    """Questions about places that two images show, with the deviation of their truth (metres), which needs no pose.

    same_point: the two are no distance apart. same_range: how far from the second camera is what the first image marks.
    same_distance: as far from a third point, marked in the first image, as in that image itself.
    """
    found = same_points([s.frame for s in session.memory.frames()], count)
    by_frames: defaultdict[tuple[int, int], list[SamePoint]] = defaultdict(list)
    for point in found:
        by_frames[point.frames[0].stamp_ns, point.frames[1].stamp_ns].append(point)
    for (first, second), points in by_frames.items():
        name_a, name_b = (f"{stamp // 10**9}.{stamp % 10**9:09d}" for stamp in (first, second))
        for k, same in enumerate(points):
            a, b = same.a, same.b
            mark_a, mark_b = MarkedPoint(name_a, a.u, a.v), MarkedPoint(name_b, b.u, b.v)
            slip = math.hypot(_slip(a), _slip(b))
            yield "same_point", _asked("How far apart are <p0> and <p1>?", (mark_a, mark_b), (), 0.0, 3.0), slip
            away = float(np.linalg.norm(b.camera_point({})))
            yield (
                "same_range",
                _asked("How far is <p0> from the camera at <t0>?", (mark_a,), (name_b,), away, 3.0),
                b.z_stddev,
            )
            other = points[(k + 1) % len(points)].a
            apart = float(np.linalg.norm(a.camera_point({}) - other.camera_point({})))
            if apart > 0.2:
                third = MarkedPoint(name_a, other.u, other.v)
                yield "same_distance", _asked("How far apart are <p0> and <p1>?", (mark_b, third), (), apart, 3.0), slip


def _slip(point: PointMeasurement) -> float:
    """How far a feature may lie from where it was found, metres across the line of sight."""
    return FEATURE_PX * point.z * float(np.linalg.norm(point.ray_per_px[:, 0]))


def _asked(text: str, points: tuple[MarkedPoint, ...], times: tuple[str, ...], truth: float, within: float) -> Question:
    expect = {
        "error_code": "NONE",
        "answer_type": "NUMBER",
        "value": truth,
        "unit": "m",
        "accept": [truth - within, truth + within],
    }
    return Question(id="", text=text, points=points, times=times, expect=expect)
