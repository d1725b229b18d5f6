"""What the commands that ask share: the options of questions, and how answers are printed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.language.own_words import OwnWords, OwnWordsError, load_own_words
from spatial_mllm_ros.language.tokens import check_text
from spatial_mllm_ros.queries.codes import QueryError
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.serialization import from_json
from spatial_mllm_ros.session.answers import (
    confidence_words,
    deviation_words,
    evidence_words,
    source_words,
    times_words,
)
from spatial_mllm_ros.session.questions import Asked, MarkedBox, MarkedPoint, Question, read_questions, tally
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import Outcome

Command = TypeVar("Command", bound=Callable[..., Any])
STYLES = {Outcome.RIGHT: "green", Outcome.WRONG: "bold red", Outcome.REFUSED: "yellow"}


class Mark(click.ParamType):
    """FRAME and numbers, with commas between; the frame comes first and may hold commas itself."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.name = "FRAME,U,V" if count == 2 else "FRAME,U0,V0,U1,V1"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> MarkedPoint | MarkedBox:
        if isinstance(value, MarkedPoint | MarkedBox):
            return value
        frame, *texts = value.rsplit(",", self.count)
        try:
            numbers = [float(t) for t in texts]
        except ValueError:
            numbers = []
        if len(numbers) != self.count or not frame.strip():
            example = "frame-000016,320,240" + (",400,300" if self.count == 4 else "")
            self.fail(f"{common.printable(value)!r} is not {self.name}, for example {example}", param, ctx)
        return MarkedPoint(frame, *numbers) if self.count == 2 else MarkedBox(frame, *numbers)


def _query(ctx: click.Context, param: click.Parameter, text: str) -> Query | None:
    """A typed query: JSON, or @FILE that holds it."""
    if not text:
        return None
    try:
        return from_json(json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text))
    except (OSError, ValueError) as error:
        raise click.BadParameter(common.printable(f"{error} (spatial-mllm questions --schema)"), ctx, param) from error


def _own_words(ctx: click.Context, param: click.Parameter, path: Path | None) -> OwnWords:
    try:
        return OwnWords() if path is None else load_own_words(path)
    except (OSError, OwnWordsError) as error:
        raise common.Failure(common.printable(f"--own-words cannot be used: {error}")) from error


own_words_option = click.option(
    "--own-words", type=click.Path(path_type=Path), metavar="FILE", callback=_own_words,
    help="Your own words and sentences, a YAML file (docs/questions.md).",
)  # fmt: skip


@dataclass(frozen=True)
class Asking:
    """What the options say of questions. file: of questions; without one there is one question, whose text is the
    command's argument."""

    points: tuple[MarkedPoint, ...]
    boxes: tuple[MarkedBox, ...]
    times: tuple[str, ...]
    choices: tuple[str, ...]
    window_start: str
    window_end: str
    frame_id: str
    file: Path | None
    query: Query | None
    own_words: OwnWords

    def questions(self, text: str) -> list[Question]:
        """Those to ask. Raises click.UsageError, and QuestionsError for a file that holds none."""
        where = (self.window_start, self.window_end, self.frame_id)
        if self.file is None:
            if not text and self.query is None:
                raise click.UsageError("what is the question? Give it in quotes, or --query JSON, or --questions FILE")
            try:  # before a long recording is streamed for nothing
                if text or self.query is None:
                    check_text(text)
            except QueryError as error:
                raise click.UsageError(common.printable(str(error))) from error
            return [Question("Q1", text, self.choices, self.points, self.boxes, self.times, *where, query=self.query)]
        if text or self.points or self.boxes or self.times or self.choices or self.query:
            raise click.UsageError(
                "with --questions, the questions come from the file, with what --point, --box, --time, --choice and "
                "--query say"
            )
        return [
            replace(
                question,
                window_start=self.window_start or question.window_start,
                window_end=self.window_end or question.window_end,
                frame_id=self.frame_id or question.frame_id,
            )
            for question in read_questions(self.file)
        ]


def question_options(command: Command) -> Command:
    """Options of every command that asks; the command gets them together, as ``asking``."""

    @functools.wraps(command)
    def bundled(*args: Any, **given: Any) -> Any:
        own = {name: given.pop(name) for name in Asking.__dataclass_fields__}
        return command(*args, asking=Asking(**own), **given)

    decorated: Any = bundled
    for option in reversed(
        (
            click.option("--point", "points", type=Mark(2), multiple=True, help="<p0>, <p1> ... of the question: a pixel."),
            click.option("--box", "boxes", type=Mark(4), multiple=True, help="<box0>, <box1> ...: a box of pixels."),
            click.option("--time", "times", multiple=True, metavar="FRAME", help="<t0>, <t1> ...: a moment."),
            click.option(
                "--choice", "choices", multiple=True, metavar="TEXT", help="The answer is one of these (at least two).",
            ),
            click.option("--window-start", default="", metavar="FRAME", help="Use only what was seen from here on."),
            click.option("--window-end", default="", metavar="FRAME", help="Use only what was seen until here."),
            click.option(
                "--frame-id", default="", metavar="NAME", help="Frame of returned positions (default: the fixed frame).",
            ),
            click.option(
                "--questions", "file", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
                help="Ask all questions of a JSON file instead (docs/questions-file.md).",
            ),
            click.option(
                "--query", default="", metavar="JSON", callback=_query,
                help="A typed query in place of words, or beside them: JSON (questions --schema), or @FILE.",
            ),
            own_words_option,
        )
    ):  # fmt: skip
        decorated = option(decorated)
    return cast(Command, decorated)


def print_answer(console: Console, session: Session, asked: Asked, warning: str = "") -> None:
    """One question and its answer, a line for everything that matters. warning: about a model's answer."""
    answer = asked.answer
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: str, style: str = "") -> None:
        if value:
            table.add_row(name, Text(common.printable(value), style=style))

    row("question", asked.question.shown)
    if answer.error_code:
        row("no answer", f"{answer.error_code.name} ({answer.error_code.value})", "bold yellow")
        row("why", answer.error_msg)
    else:
        row("answer", answer.answer, "bold green")
        if answer.model_id:
            row("warning", warning, "bold red")
        row("deviation", deviation_words(answer))
        row("confidence", confidence_words(answer))
        row("source", source_words(answer))
        row("times", times_words(answer))
        for i, line in enumerate(evidence_words(session, answer)):
            row("" if i else "evidence", line)
    row("latency", f"{asked.latency_ms:.1f} ms")
    console.print(table)


def failed(asked: list[Asked]) -> bool:
    """Whether one got an error code, or an answer that is not right by the truth that is stated for it."""
    return any(a.answer.error_code if a.verdict is None else a.verdict.outcome is not Outcome.RIGHT for a in asked)


def print_table(console: Console, asked: list[Asked]) -> None:
    """Many questions, with truth and verdict where they are known, and a closing line."""
    judged = any(a.verdict is not None for a in asked)
    table = Table(show_lines=False, pad_edge=False, header_style="bold")
    table.add_column("id", no_wrap=True)
    table.add_column("question", ratio=3)
    table.add_column("answer", ratio=3)
    if judged:
        table.add_column("truth", ratio=1)
        table.add_column("error", justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
    else:
        table.add_column("confidence", justify="right", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    for a in asked:
        answer = a.answer
        words = f"{answer.error_code.name}: {answer.error_msg}" if answer.error_code else answer.answer
        cells = [a.question.id, a.question.shown, words]
        if a.verdict is not None:
            cells += [a.verdict.truth, a.verdict.error, a.verdict.outcome.value]
        elif judged:
            cells += ["", "", ""]
        else:
            cells.append("" if answer.error_code else f"{answer.confidence:.0%}")
        cells.append(f"{a.latency_ms:.1f}")
        style = STYLES[a.verdict.outcome] if a.verdict else ("yellow" if answer.error_code else "")
        texts = [Text(common.printable(c)) for c in cells]
        if a.verdict is not None:
            texts[5].stylize(style)
        elif style:
            texts[2].stylize(style)
        table.add_row(*texts)
    console.print(table)
    if judged:
        console.print(Text(closing_line(asked)))


def closing_line(asked: list[Asked]) -> str:
    """How many were right, and how honest the stated deviations were."""
    t = tally(asked)
    line = f"{t.right} of {t.total} right, {t.wrong} wrong, {t.refused} refused"
    if t.within is not None:
        line += (
            f"; of {t.numbers} errors {t.within[0]:.0%} within one stated deviation, {t.within[1]:.0%} within two "
            "(68 % and 95 % when deviations are exact)"
        )
    return line
