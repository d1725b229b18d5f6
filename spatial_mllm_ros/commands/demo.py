"""spatial-mllm demo: ask a walking camera ten questions, and check the answers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.commands.asking import STYLES, closing_line
from spatial_mllm_ros.commands.replay import watch
from spatial_mllm_ros.dds import is_installed
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.session.answers import stddev_words
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.session.questions import Asked, Question, ask, parse_questions
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import Outcome
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.simulation.truth import demo_questions
from spatial_mllm_ros.sources.writers import write_folder
from spatial_mllm_ros.visualisation.report.report import write_report

EPILOG = """
\b
Examples:
  spatial-mllm demo                                   about a minute, half of it in real time
  spatial-mllm demo --no-live                         node, camera and client in one process
  spatial-mllm demo --fast --report out
  spatial-mllm demo --source rendered:seed=7,rooms=4

Exit code: 0 when no answer is wrong, 1 when one lies outside what its truth accepts, 2 for what is wrong with the
command.
"""
OF_THE_WHOLE = ("first_seen", "last_seen", "ceiling")
"""Kinds of questions whose truth is about the whole recording: they are asked at its end."""


class RenderedAhead:
    """A rendered recording whose frames are made ahead in a thread, so that it can be streamed in real time."""

    def __init__(self, source: RenderedSource) -> None:
        self.source, self.info = source, source.info
        self.refused: Counter[str] = Counter()
        self.doubts: list[Doubt] = []
        self.stamps = source.stamps
        self._frames: list[Frame] = []
        self._error: BaseException | None = None
        self._ready = threading.Condition()
        self._begin = time.monotonic()
        self._thread = threading.Thread(target=self._render, daemon=True, name="render")
        self._thread.start()

    def _render(self) -> None:
        try:
            for frame in self.source.frames():
                with self._ready:
                    self._frames.append(frame)
                    self._ready.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised again where the frames are waited for
            with self._ready:
                self._error = error
                self._ready.notify_all()

    @property
    def made(self) -> int:
        """Frames rendered so far."""
        return len(self._frames)

    def head_start(self) -> int:
        """Frames needed before the first one is shown, at the pace so far, for all of them to come in time."""
        count = len(self.stamps)
        if not self.made:
            return count
        each = 1.15 * (time.monotonic() - self._begin) / self.made
        return min(count, max(1, round(count * (1 - 1 / (each * self.source.rate_hz)))))

    def frames(self) -> Iterator[Frame]:
        """Frames in order, each as soon as it is there."""
        for index in range(len(self.stamps)):
            with self._ready:
                self._ready.wait_for(lambda i=index: len(self._frames) > i or self._error is not None)  # type: ignore[misc]
                if len(self._frames) <= index:
                    assert self._error is not None
                    raise self._error
                frame = self._frames[index]
            yield frame

    def stamp_of(self, name: str) -> int:
        return self.source.stamp_of(name)

    def name_of(self, key: int) -> str | None:
        return self.source.name_of(key)


@dataclass
class Interview:
    """Questions put to a session as soon as it has seen what they refer to, in a thread of their own."""

    session: Session
    questions: list[Question]
    asked: dict[str, Future[Asked]] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "ask"))

    def on_frame(self, frame: Frame) -> None:
        """Ask what has become answerable with this frame."""
        for question in self.questions:
            if question.id not in self.asked and self._answerable(question, frame.stamp_ns):
                self.asked[question.id] = self._pool.submit(ask, self.session, question, True)

    def finish(self) -> list[Asked]:
        """Ask the rest; all answers in the order of the questions."""
        for question in self.questions:
            if question.id not in self.asked:
                self.asked[question.id] = self._pool.submit(ask, self.session, question)
        answers = [self.asked[question.id].result() for question in self.questions]
        self._pool.shutdown()
        return answers

    def so_far(self) -> list[Asked]:
        """Answers that are there."""
        done = [self.asked[q.id] for q in self.questions if q.id in self.asked]
        return [future.result() for future in done if future.done()]

    def _answerable(self, question: Question, stamp_ns: int) -> bool:
        if not question.frames or question.id.endswith(OF_THE_WHOLE):
            return False
        return all(self.session.source.stamp_of(name) < stamp_ns for name in question.frames)


@click.command(name="demo", epilog=EPILOG, short_help="Ask ten questions while a simulated camera walks; check them.")
@click.option("--fast", is_flag=True, help="As fast as possible, in this process, instead of in real time.")
@click.option(
    "--live/--no-live",
    default=None,
    help="Node, camera and client as processes of their own over DDS, or all in this one (default: live where the "
    "extra dds is installed).",
)
@click.option("--source", "spec", default="rendered", show_default=True, metavar="SPEC", help="rendered[:options].")
@click.option(
    "--report",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default="spatial_mllm_demo",
    show_default=True,
    metavar="DIR",
    help="Where the report goes.",
)
@common.json_option
@click.pass_context
def demo_command(ctx: click.Context, *, fast: bool, live: bool | None, spec: str, folder: Path, as_json: bool) -> None:
    """Stream a simulated house in real time, ask ten questions while and after it streams, check every answer.

    No robot, no ROS and no model are needed. The page that it writes shows the evidence of every answer.
    """
    rendered = RenderedSource.from_spec(spec)
    common.say(f"{rendered.info.description}; preparing ...")
    if live is None:
        live = not fast and is_installed()
    if live:
        session, asked = _over_dds(rendered, folder)
    else:
        session, asked = _in_this_process(rendered, fast)
    if as_json:
        for a in asked:
            common.print_json(a.to_json())
    else:
        console = common.out()
        console.print(answers_table(asked))
        console.print(Text(closing_line(asked)))
    common.say(f"report: {write_report(session, asked, folder)}")
    if any(a.verdict is not None and a.verdict.outcome is Outcome.WRONG for a in asked):
        ctx.exit(1)


def _in_this_process(rendered: RenderedSource, fast: bool) -> tuple[Session, list[Asked]]:
    """Streamed into a session here, asked while it streams."""
    source = RenderedAhead(rendered)
    session = Session(source)
    interview = Interview(session, parse_questions(demo_questions(rendered)))
    session.listeners.append(lambda frame, report: interview.on_frame(frame))
    if not fast:
        _wait_for_head_start(source)
    watch(session, 0.0 if fast else 1.0, below=lambda: answers_table(interview.so_far()))
    asked = interview.finish()
    report = session.report
    pace = "as fast as possible" if fast else "in real time"
    common.say(f"{report.frames} frames ({report.duration_s:.1f} s) streamed {pace} in {report.wall_s:.1f} s")
    return session, asked


def _over_dds(rendered: RenderedSource, folder: Path) -> tuple[Session, list[Asked]]:
    """Played by a camera process to a node process, asked over DDS; the session is streamed afterwards, for the report."""
    from spatial_mllm_ros.commands.live_demo import ask_live

    recording = folder / "recording"
    folder.mkdir(parents=True, exist_ok=True)
    with common.progress_bar("rendering") as update:
        write_folder(rendered, recording, overwrite=True, progress=update)
    session = Session(open_source(str(recording)))
    questions = parse_questions(demo_questions(rendered))
    asked = ask_live(recording, session, questions, OF_THE_WHOLE, int(rendered.stamps[-1]))
    session.stream()
    return session, asked


def _wait_for_head_start(source: RenderedAhead) -> None:
    with common.progress_bar("rendering ahead") as update:
        while source.made < source.head_start():
            update(source.made, source.head_start())
            time.sleep(0.05)


def answers_table(asked: list[Asked]) -> RenderableType:
    """Question, answer, truth, error, stated deviation and latency."""
    table = Table(pad_edge=False, header_style="bold")
    table.add_column("question", ratio=4)
    table.add_column("answer", ratio=4)
    table.add_column("truth", ratio=2)
    for name in ("error", "deviation", "latency"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for a in asked:
        answer = a.answer
        words = f"{answer.error_code.name}: {answer.error_msg}" if answer.error_code else answer.answer
        verdict = a.verdict
        table.add_row(
            Text(a.question.shown),
            Text(words),
            Text(verdict.truth if verdict else ""),
            Text(verdict.error if verdict else ""),
            Text(stddev_words(answer)),
            f"{a.latency_ms:.1f} ms",
            Text(verdict.outcome.value, style=STYLES[verdict.outcome]) if verdict else "",
        )
    return table
