"""report.html: everything about one session on one page that needs no network."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spatial_mllm_ros import __version__
from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.session.answers import confidence_words, deviation_words, source_words
from spatial_mllm_ros.session.questions import Asked, Tally, tally
from spatial_mllm_ros.session.reasons import COLOR_ONLY, what_to_do
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.visualisation.report.charts import ErrorStrip, coverage_chart, error_strip
from spatial_mllm_ros.visualisation.report.pictures import Picture, Pictures
from spatial_mllm_ros.visualisation.report.templates import environment
from spatial_mllm_ros.visualisation.report.topdown import top_down
from spatial_mllm_ros.visualisation.report.views import View, frames_meant, views_of

FILE_NAME = "report.html"


@dataclass(frozen=True)
class Fact:
    """A number of the head line: its name, itself, and a remark."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Thumbnail:
    """A keyframe of the contact sheet."""

    rank: int
    name: str
    seconds: float
    gain: int
    covered: float
    picture: Picture | None
    missing: str


@dataclass(frozen=True)
class Card:
    """A question with all that is shown of it."""

    anchor: str
    asked: Asked
    outcome: str
    deviation: str
    confidence: str
    source: str
    strip: ErrorStrip | None
    views: list[View]


def write_report(session: Session, asked: Sequence[Asked], folder: Path) -> Path:
    """Write ``folder``/report.html (and the folder); its path. What was there is replaced only by a whole page.

    Raises OSError when it cannot be written.
    """
    html = render_report(session, asked)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / FILE_NAME
    handle, temporary = tempfile.mkstemp(prefix=".report.", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(html)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def render_report(session: Session, asked: Sequence[Asked]) -> str:
    """The page as text."""
    keyframes = session.stored_keyframes()
    wanted = [stored.frame_id for _, stored, _ in keyframes]
    wanted += [frame_id for a in asked for frame_id in frames_meant(session, a)]
    pictures = Pictures(session.stored, wanted)
    curve = session.coverage.curve() if session.coverage is not None else None
    counts = tally(asked)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            version=__version__,
            info=session.source.info,
            facts=_facts(session, counts),
            refused=_reasons(session, session.report.refused),
            remarks=_reasons(session, session.report.remarks),
            doubts=[str(doubt) for doubt in session.doubts],
            color_only=COLOR_ONLY if session.report.color_only and not len(session.memory) else "",
            map=top_down(session),
            chart=None if curve is None or len(curve.seconds) < 2 else coverage_chart(curve),
            keyframe_count=session.keyframe_count,
            thumbnails=_thumbnails(session, pictures),
            cards=[_card(session, i, a, pictures) for i, a in enumerate(asked, 1)],
            tally=counts,
            pictures=pictures.all(),
        )
    )


def _reasons(session: Session, counts: Counter[str]) -> list[tuple[int, str, str]]:
    """How often, the reason, and what to do about it."""
    texts = session.report.texts
    return [(count, reason, what_to_do(reason, texts.get(reason, ""))) for reason, count in counts.most_common()]


def _facts(session: Session, counts: Tally) -> list[Fact]:
    report, memory = session.report, session.memory
    refused = sum(report.refused.values())
    facts = [
        Fact("frames", str(report.frames), report.live or (f"{refused} refused" if refused else "none refused")),
        Fact(
            "duration",
            f"{report.duration_s:.1f} s",
            f"{report.frames / report.duration_s:.1f} frames a second" if report.duration_s else "",
        ),
    ]
    if len(memory):
        path = _ask(session, "How long is the path that the camera travelled?")
        if path.error_code == 0:
            facts.append(Fact("path", f"{path.value:.2f} m", f"± {path.stddev:.2f} m"))
        space = _ask(session, "How big is the room?")
        if space.error_code == 0 and space.answer_type == AnswerType.VECTOR:
            length, width, height = space.pose.position
            facts.append(Fact("space seen", f"{length:.1f} × {width:.1f} × {height:.1f} m", "length × width × height"))
    scale = memory.scale
    if scale is not None:
        known = f"± {scale.stddev:.1%}".replace("%", " %")
        facts.append(
            Fact("metres", known, f"from {scale.source.value}") if scale.known else Fact("metres", "none", scale.reason)
        )
    selection = session.keyframes()
    if selection.picked:
        facts.append(
            Fact(
                "keyframes",
                str(len(selection.picked)),
                f"cover {selection.fraction:.0%}".replace("%", " %") + f" of {selection.total} voxels",
            )
        )
    facts.append(
        Fact("memory", f"{memory.nbytes / 1e6:.0f} MB", f"{report.cost_percentile_s(50) * 1e3:.1f} ms a frame (median)")
    )
    if counts.total:
        facts.append(
            Fact(
                "answers", f"{counts.right} of {counts.total} right", f"{counts.wrong} wrong, {counts.refused} refused"
            )
        )
    return facts


def _ask(session: Session, question: str) -> Answer:
    return session.engine.answer(Request(question))


def _thumbnails(session: Session, pictures: Pictures) -> list[Thumbnail]:
    total, covered = session.keyframes().total, 0
    found = []
    for rank, stored, gain in session.stored_keyframes():
        covered += gain
        stamp = stored.frame.stamp_ns
        found.append(
            Thumbnail(
                rank,
                session.name_of(stamp),
                session.since_start_s(stamp),
                gain,
                covered / total if total else 0.0,
                pictures.get(stored.frame_id),
                pictures.missing.get(stored.frame_id, ""),
            )
        )
    return found


def _card(session: Session, number: int, asked: Asked, pictures: Pictures) -> Card:
    answer = asked.answer
    outcome = asked.verdict.outcome.value if asked.verdict is not None else ""
    failed = bool(answer.error_code)
    return Card(
        f"q{number}",
        asked,
        outcome,
        "" if failed else deviation_words(answer),
        "" if failed else confidence_words(answer),
        "" if failed else source_words(answer),
        error_strip(asked),
        views_of(session, asked, pictures),
    )
