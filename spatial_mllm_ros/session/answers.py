"""Answers in words, for the terminal and the report."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import groupby

from spatial_mllm_ros.queries.answer import Answer, Evidence
from spatial_mllm_ros.queries.codes import AnswerSource, EvidenceKind, ScaleSource
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import short, with_unit

MOST_LINES = 4
SHORTEST_NS = 5_000_000
_SOURCES = {
    AnswerSource.NONE: "none",
    AnswerSource.GEOMETRY: "geometry",
    AnswerSource.MODEL: "model",
    AnswerSource.BOTH: "geometry and model",
}
_SCALES = {
    ScaleSource.NONE: "",
    ScaleSource.DEPTH: ", metres from depth",
    ScaleSource.ODOM: ", metres from odometry",
    ScaleSource.TF: ", metres from poses",
}


def stddev_words(answer: Answer) -> str:
    """ "± 0.012 m", '' where there is none."""
    if answer.error_code or not math.isfinite(answer.stddev):
        return ""
    return f"± {with_unit(short(answer.stddev, 2), answer.unit)}"


def deviation_words(answer: Answer) -> str:
    """One standard deviation with its unit; '' where there is none."""
    words = stddev_words(answer)
    return words and f"{words} (one standard deviation)"


def confidence_words(answer: Answer) -> str:
    """The confidence and how it was computed."""
    method = f" ({answer.confidence_method})" if answer.confidence_method else ""
    return f"{percent(answer.confidence)}{method}"


def percent(share: float) -> str:
    """A probability as people read it: never "100 %" for what is not certain."""
    if 0.995 <= share < 1.0 - 1e-6:
        return "> 99 %"
    return f"{share:.0%}".replace("%", " %")


def source_words(answer: Answer) -> str:
    """Where the answer and its metres come from."""
    model = f" ({answer.model_id})" if answer.model_id else ""
    return _SOURCES[answer.source] + model + _SCALES[answer.scale_source]


def times_words(answer: Answer) -> str:
    """Where the time of an answer that a model had a part in went; '' for others."""
    if answer.source not in (AnswerSource.MODEL, AnswerSource.BOTH):
        return ""
    spent = (
        ("waiting", answer.time_queued),
        ("choosing frames", answer.time_selecting),
        ("encoding frames", answer.time_encoding),
        ("answering", answer.time_generating),
    )
    return ", ".join(f"{what} {ns / 1e9:.2f} s" for what, ns in spent if ns >= SHORTEST_NS)


def evidence_words(session: Session, answer: Answer) -> list[str]:
    """A line for every image that the answer rests on; many whole images in a row, with the same label, share one."""
    lines: list[str] = []
    for (kind, label), group in groupby(answer.evidence, lambda e: (e.kind, e.label)):
        items = list(group)
        if kind == EvidenceKind.FRAME and len(items) > MOST_LINES:
            first, last = (evidence_line(session, replace(e, label="")) for e in (items[0], items[-1]))
            lines.append(f"{len(items)} images, {first} to {last}" + (f": {label}" if label else ""))
        else:
            lines += [evidence_line(session, e) for e in items]
    return lines


def evidence_line(session: Session, evidence: Evidence) -> str:
    """The image by its name and time, and what is meant in it."""
    seconds = session.since_start_s(evidence.stamp_ns)
    line = f"{session.name_of(evidence.stamp_ns)} (+{seconds:.2f} s)"
    if evidence.kind == EvidenceKind.PIXEL:
        line += f", pixel ({evidence.u:.0f}, {evidence.v:.0f})"
    elif evidence.kind == EvidenceKind.BOX:
        line += f", box ({evidence.u_min:.0f}, {evidence.v_min:.0f}) to ({evidence.u_max:.0f}, {evidence.v_max:.0f})"
    return f"{line}: {evidence.label}" if evidence.label else line
