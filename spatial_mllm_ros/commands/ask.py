"""spatial-mllm ask: questions about a recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spatial_mllm_ros.commands import common, geometry, models
from spatial_mllm_ros.query.codes import QueryError
from spatial_mllm_ros.query.words import check_question
from spatial_mllm_ros.session.answers import (
    confidence_words,
    deviation_words,
    evidence_words,
    source_words,
    times_words,
)
from spatial_mllm_ros.session.questions import Asked, MarkedBox, MarkedPoint, Question, ask, read_questions, tally
from spatial_mllm_ros.session.reasons import COLOUR_ONLY
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import Outcome

STYLES = {Outcome.RIGHT: "green", Outcome.WRONG: "bold red", Outcome.REFUSED: "yellow"}

EPILOG = """
\b
Examples:
  spatial-mllm ask rendered "How high is the ceiling?"
  spatial-mllm ask rendered "How far apart are <p0> and <p1>?" \\
      --point frame-000040,320,240 --point frame-000120,200,300
  spatial-mllm ask my_room "Is <p0> visible at <t0>?" --point 1.25,310,200 --time +3.5
  spatial-mllm ask my_bag "How tall is the object in <box0>?" --box 12.4,100,80,220,300
  spatial-mllm ask my_room --questions questions.json --report out
  spatial-mllm ask my_room "What stands beside the window?" --model Diankun/Spatial-MLLM-v1.1-Instruct-135K
  spatial-mllm ask video.mp4 "Which way did the camera turn?" --rgb-geometry facebook/VGGT-1B

In the question, <p0>, <p1> ... are the --point options in order, <box0> ... the --box options and <t0> ... the --time
options. FRAME is the name of a frame of the recording, its stamp in seconds, or +SECONDS after the first frame.

Exit code: 0 when every question was put (an error code is an answer too), 1 when an answer is wrong by the truth that
the questions file states, 2 for what is wrong with the command, or a model that cannot be loaded.
"""


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


@click.command(name="ask", epilog=EPILOG, short_help="Ask about the space that a recording shows.")
@click.argument("arguments", nargs=-1, metavar="[SOURCE] [QUESTION]")
@click.option("--point", "points", type=Mark(2), multiple=True, help="<p0>, <p1> ... of the question: a pixel.")
@click.option("--box", "boxes", type=Mark(4), multiple=True, help="<box0>, <box1> ...: a box of pixels.")
@click.option("--time", "times", multiple=True, metavar="FRAME", help="<t0>, <t1> ...: a moment.")
@click.option("--choice", "choices", multiple=True, metavar="TEXT", help="The answer is one of these (at least two).")
@click.option("--window-start", default="", metavar="FRAME", help="Use only what was seen from here on.")
@click.option("--window-end", default="", metavar="FRAME", help="Use only what was seen until here.")
@click.option("--frame-id", default="", metavar="NAME", help="Frame of returned positions (default: the fixed frame).")
@click.option(
    "--questions",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Ask all questions of a JSON file instead (docs/questions-file.md).",
)
@common.json_option
@common.report_option
@common.stream_options
@models.model_options
@geometry.option
@click.pass_context
def ask_command(
    ctx: click.Context,
    *,
    arguments: tuple[str, ...],
    points: tuple[MarkedPoint, ...],
    boxes: tuple[MarkedBox, ...],
    times: tuple[str, ...],
    choices: tuple[str, ...],
    window_start: str,
    window_end: str,
    frame_id: str,
    file: Path | None,
    as_json: bool,
    report_folder: Path | None,
    stream: common.StreamOptions,
    model: models.ModelChoice | None,
    device: str,
    allow_random_weights: bool,
    rgb_geometry: str | None,
) -> None:
    """Stream a recording into the spatial memory, then answer questions about what it shows.

    SOURCE is an RGB-D folder, a TUM folder, a rosbag2, a video, a folder of images, or rendered[:options] (the default),
    a simulated house. Geometry measures, with --rgb-geometry in images alone, too; with --model, a model answers what
    cannot be measured. An answer says its deviation, its confidence and the images that it rests on; where there is none,
    a code says why.
    """
    spec, text = _source_and_question(arguments, file is not None)
    if file is None:
        questions = [Question("Q1", text, choices, points, boxes, times, window_start, window_end, frame_id)]
        check_text(text)
    else:
        if points or boxes or times or choices:
            raise click.UsageError("--point, --box, --time and --choice belong to one question: put them into the file")
        questions = [
            replace(
                q,
                window_start=window_start or q.window_start,
                window_end=window_end or q.window_end,
                frame_id=frame_id or q.frame_id,
            )
            for q in read_questions(file)
        ]
    chosen = geometry.choose(rgb_geometry, device, allow_random_weights)
    with geometry.loaded(chosen) as from_colour, models.loading(model, stream.keyframes) as backend:
        query = None if model is None else model.query(stream.keyframes)
        session = common.open_session(spec, stream, report_folder is not None, query, backend, from_colour)
        if backend is not None:
            models.stop_when_failed(session, backend)
        report = common.stream_with_progress(session, stream)
        if from_colour is not None:
            common.say(geometry.words(session, chosen))
        elif report.colour_only and report.colour_only == report.frames:
            common.say(COLOUR_ONLY)
        if backend is not None:
            models.wait_loaded(backend)
            models.encode(session, backend)
        asked = []
        with common.progress_bar("asking", quiet=len(questions) < 5) as update:
            for done, question in enumerate(questions, 1):
                live = backend is not None and file is None and not as_json
                with models.words_as_they_come(live and common.out().is_terminal) as on_text:
                    asked.append(ask(session, question, on_text=on_text))
                update(done, len(questions))
    warning = models.NOISE if model is not None and model.random_weights else ""
    if as_json:
        for a in asked:
            common.print_json(a.to_json())
    elif file is None:
        print_answer(common.out(), session, asked[0], warning)
    else:
        print_table(common.out(), asked)
    if warning and (as_json or file is not None):
        common.say(warning)
    if report_folder is not None:
        from spatial_mllm_ros.report.report import write_report

        common.say(f"report: {write_report(session, asked, report_folder)}")
    if any(a.verdict is not None and a.verdict.outcome is Outcome.WRONG for a in asked):
        ctx.exit(1)


def print_answer(console: Console, session: Session, asked: Asked, warning: str = "") -> None:
    """One question and its answer, a line for everything that matters. warning: about a model's answer."""
    answer = asked.answer
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: str, style: str = "") -> None:
        if value:
            table.add_row(name, Text(common.printable(value), style=style))

    row("question", asked.question.text)
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
        cells = [a.question.id, a.question.text, words]
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


def _source_and_question(arguments: tuple[str, ...], from_file: bool) -> tuple[str, str]:
    if from_file:
        if len(arguments) > 1:
            raise click.UsageError("with --questions give only SOURCE: the questions come from the file")
        return (arguments[0] if arguments else "rendered"), ""
    if not arguments:
        raise click.UsageError("what is the question? Give it in quotes after SOURCE, or --questions FILE")
    if len(arguments) == 1:
        return "rendered", arguments[0]
    if len(arguments) > 2:
        raise click.UsageError("give SOURCE and one QUESTION; put the question in quotes")
    return arguments[0], arguments[1]


def check_text(text: str) -> None:
    """Before a long recording is streamed for nothing."""
    try:
        check_question(text)
    except QueryError as error:
        raise click.UsageError(common.printable(str(error))) from error
