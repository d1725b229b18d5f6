"""Questions about a recording: from a file or the command line to requests, and to answers."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_mllm_ros.language.reader import said
from spatial_mllm_ros.queries.answer import Answer, ImageBox, ImagePoint, Request
from spatial_mllm_ros.queries.codes import AnswerType, ErrorCode
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.serialization import from_json
from spatial_mllm_ros.queries.term import InvalidQuery
from spatial_mllm_ros.session.names import find_stamp
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import Outcome, Verdict, judge

MOST_BYTES = 8 << 20


class QuestionsError(Exception):
    """A questions file that cannot be used. ``str()`` says which file and entry, what is wrong and what to do."""


@dataclass(frozen=True)
class MarkedPoint:
    """A pixel of the image that ``frame`` names."""

    frame: str
    u: float
    v: float


@dataclass(frozen=True)
class MarkedBox:
    """A box of pixels of the image that ``frame`` names."""

    frame: str
    u_min: float
    v_min: float
    u_max: float
    v_max: float


@dataclass(frozen=True)
class Question:
    """A question whose frames are still named as people name them. ``expect``: its truth, where known; see
    docs/questions-file.md. ``note``: what the truth is about, in words. ``text``: words, '' where ``query`` alone asks."""

    id: str
    text: str
    choices: tuple[str, ...] = ()
    points: tuple[MarkedPoint, ...] = ()
    boxes: tuple[MarkedBox, ...] = ()
    times: tuple[str, ...] = ()
    window_start: str = ""
    window_end: str = ""
    frame_id: str = ""
    expect: dict[str, Any] | None = None
    note: str = ""
    query: Query | None = None

    @property
    def shown(self) -> str:
        """What people read: the question's words, or its query in words."""
        return self.text or (said(self.query) if self.query is not None else "") or f"query {self.id}"

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all frames that the question refers to."""
        return (*(p.frame for p in self.points), *(b.frame for b in self.boxes), *self.times)

    @property
    def options(self) -> tuple[str, ...]:
        """What the index of a choice counts: the choices, or the points or boxes compared."""
        kind, marks = ("p", self.points) if self.points else ("box", self.boxes)
        return self.choices or tuple(f"<{kind}{i}>" for i in range(len(marks)))

    def request(self, session: Session) -> Request:
        """With the stamps of its frames. KeyError, whose first argument says what is wrong, for an unknown frame."""

        def stamp(name: str, what: str) -> int:
            try:
                return find_stamp(session.source, session.memory, name)
            except KeyError as error:
                raise KeyError(f"{what}: {error.args[0]}") from None

        return Request(
            self.text,
            self.choices,
            stamp(self.window_start, "window start") if self.window_start else 0,
            stamp(self.window_end, "window end") if self.window_end else 0,
            self.frame_id,
            tuple(ImagePoint(stamp(p.frame, f"<p{i}>"), "", p.u, p.v) for i, p in enumerate(self.points)),
            tuple(
                ImageBox(stamp(b.frame, f"<box{i}>"), "", b.u_min, b.v_min, b.u_max, b.v_max)
                for i, b in enumerate(self.boxes)
            ),
            tuple(stamp(t, f"<t{i}>") for i, t in enumerate(self.times)),
            query=self.query,
        )


@dataclass(frozen=True)
class Asked:
    """A question, the request that it became (None when it names an unknown frame), its answer and its verdict."""

    question: Question
    request: Request | None
    answer: Answer
    latency_ms: float
    verdict: Verdict | None = None
    while_streaming: bool = False

    def to_json(self) -> dict[str, Any]:
        """The answer's fields with ``id``, ``question``, ``latency_ms`` and, where the truth is known, ``verdict``."""
        out: dict[str, Any] = {"id": self.question.id, "question": self.question.shown, **self.answer.to_json()}
        out["latency_ms"] = round(self.latency_ms, 3)
        if self.verdict is not None:
            out["verdict"] = self.verdict.outcome.value
        return out


def ask(
    session: Session,
    question: Question,
    while_streaming: bool = False,
    on_text: Callable[[str], None] | None = None,
) -> Asked:
    """Put one question to what the session has seen so far. What is wrong with it comes back as its answer's code.

    on_text: given the text of a model that answers alone, piece by piece as it comes.
    """
    begin = time.perf_counter()
    request = None
    try:
        request = question.request(session)
        answer = session.engine.answer(request, on_text=on_text)
    except KeyError as error:
        answer = Answer(error_code=ErrorCode.INVALID_REQUEST, error_msg=str(error.args[0]))
    latency_ms = (time.perf_counter() - begin) * 1e3
    verdict = None if question.expect is None else judge(question.expect, answer, question.options)
    return Asked(question, request, answer, latency_ms, verdict, while_streaming)


@dataclass(frozen=True)
class Tally:
    """How answers with a known truth turned out. ``within``: share of the errors of numbers within one and within two
    stated deviations, None where no number has both."""

    right: int
    wrong: int
    refused: int
    within: tuple[float, float] | None
    numbers: int

    @property
    def total(self) -> int:
        return self.right + self.wrong + self.refused


def tally(asked: Sequence[Asked]) -> Tally:
    """Counts over those whose truth is known."""
    verdicts = [a.verdict for a in asked if a.verdict is not None]
    count = Counter(v.outcome for v in verdicts)
    ratios = [
        abs(a.verdict.off) / a.verdict.stddev
        for a in asked
        if a.verdict is not None
        and a.verdict.off is not None
        and a.verdict.stddev
        and a.answer.answer_type == AnswerType.NUMBER
    ]
    within = None
    if ratios:
        within = (sum(r <= 1 for r in ratios) / len(ratios), sum(r <= 2 for r in ratios) / len(ratios))
    return Tally(count[Outcome.RIGHT], count[Outcome.WRONG], count[Outcome.REFUSED], within, len(ratios))


def read_questions(path: Path) -> list[Question]:
    """Questions of a file in the format of docs/questions-file.md. Raises QuestionsError."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise QuestionsError(f"{path} has {size / 1e6:.0f} MB: a questions file has at most {MOST_BYTES >> 20} MB")
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise QuestionsError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise QuestionsError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise QuestionsError(f"{path} is not JSON: {error}") from error
    return parse_questions(content, str(path))


def parse_questions(content: Any, where: str = "the questions") -> list[Question]:
    """As ``read_questions``, from the parsed JSON: an object with ``questions``, or the list itself."""
    entries = content.get("questions") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise QuestionsError(f'{where}: needs a list under "questions" with at least one question')
    questions: list[Question] = []
    for number, entry in enumerate(entries, 1):
        try:
            questions.append(_question(_Fields(entry), number))
        except ValueError as error:
            raise QuestionsError(f"{where}: question {number}: {error}") from error
    repeated = [i for i, n in Counter(q.id for q in questions).items() if n > 1]
    if repeated:
        raise QuestionsError(f"{where}: the id {repeated[0]!r} is used more than once")
    return questions


class _Fields:
    """Typed access to a JSON object; ValueError says which field is wrong."""

    def __init__(self, entry: Any, what: str = "") -> None:
        if not isinstance(entry, dict):
            raise ValueError(f"{what or 'it'} must be a JSON object")
        self._entry, self._what = entry, f"{what}." if what else ""

    def text(self, key: str, default: str | None = None) -> str:
        value = self._entry.get(key, default)
        if not isinstance(value, str):
            raise ValueError(f'"{self._what}{key}" must be a string')
        return value

    def number(self, key: str) -> float:
        value = self._entry.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f'"{self._what}{key}" must be a number')
        return float(value)

    def frame(self, key: str = "frame") -> str:
        value = self._entry.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f'"{self._what}{key}" must name a frame, or give its stamp in seconds')
        return str(value)

    def items(self, key: str) -> list[Any]:
        value = self._entry.get(key) or []
        if not isinstance(value, list):
            raise ValueError(f'"{self._what}{key}" must be a list')
        return value

    def marks(self, key: str) -> list[_Fields]:
        return [_Fields(item, f"{key}[{i}]") for i, item in enumerate(self.items(key))]

    def get(self, key: str) -> Any:
        return self._entry.get(key)


def _question(e: _Fields, number: int) -> Question:
    given = e.get("id")
    choices = e.items("choices")
    if not all(isinstance(choice, str) for choice in choices):
        raise ValueError('"choices" must be a list of strings')
    expect = e.get("expect")
    if expect is not None:
        check_expect(expect, len(choices))
    note = e.get("truth")
    query = None
    if e.get("query") is not None:
        try:
            query = from_json(e.get("query"))
        except InvalidQuery as error:
            raise ValueError(f'"query" is none: {error}') from error
    return Question(
        id=f"Q{number}" if given is None else str(given),
        text=e.text("question", None if query is None else ""),
        choices=tuple(choices),
        points=tuple(MarkedPoint(p.frame(), p.number("u"), p.number("v")) for p in e.marks("points")),
        boxes=tuple(
            MarkedBox(b.frame(), *(b.number(k) for k in ("u_min", "v_min", "u_max", "v_max"))) for b in e.marks("boxes")
        ),
        times=tuple(t.frame() for t in e.marks("times")),
        window_start=e.frame("window_start") if e.get("window_start") is not None else "",
        window_end=e.frame("window_end") if e.get("window_end") is not None else "",
        frame_id=e.text("frame_id", ""),
        expect=expect,
        note=note if isinstance(note, str) else "",
        query=query,
    )


def check_expect(expect: Any, choices: int) -> None:
    """ValueError unless ``expect`` is a truth that answers can be judged by."""
    fields = _Fields(expect, "expect")
    code = fields.text("error_code", "NONE")
    if code not in ErrorCode.__members__:
        raise ValueError(f'"expect.error_code" must be one of {", ".join(ErrorCode.__members__)}, not {code!r}')
    if code != "NONE":
        if fields.get("or_answer_with_stddev_at_least") is not None:
            fields.number("or_answer_with_stddev_at_least")
        return
    kind = fields.text("answer_type")
    if kind in ("NUMBER", "VECTOR"):
        fields.number("value")
        fields.text("unit", "")
        _numbers(fields, "accept", 2)
    elif kind == "BOOLEAN":
        if fields.get("value") not in (0, 1, True, False):
            raise ValueError('"expect.value" of a BOOLEAN must be 0 or 1')
    elif kind == "CHOICE":
        index = fields.number("choice_index")
        if choices and not 0 <= index < choices:
            raise ValueError(f'"expect.choice_index" {index:g} is not an index into the {choices} choices')
    elif kind == "PIXEL":
        _numbers(fields, "pixel", 2)
        fields.number("accept_px")
    elif kind in ("POSE", "POINT"):
        _numbers(fields, "position", 3)
        fields.number("accept_m")
    elif kind == "ORDER":
        if not all(isinstance(i, int) for i in fields.items("order")) or len(fields.items("order")) < 2:
            raise ValueError('"expect.order" must be a list of indices')
    else:
        raise ValueError(
            f'"expect.answer_type" {kind!r} cannot be judged: use NUMBER, VECTOR, BOOLEAN, CHOICE, PIXEL, POSE, POINT or ORDER'
        )


def _numbers(fields: _Fields, key: str, count: int) -> None:
    value = fields.items(key)
    good = [isinstance(x, int | float) and not isinstance(x, bool) for x in value]
    if len(value) != count or not all(good):
        raise ValueError(f'"expect.{key}" must be a list of {count} numbers')
