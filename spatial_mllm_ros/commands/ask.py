"""spatial-mllm ask: questions about a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spatial_mllm_ros.commands import common, geometry, models
from spatial_mllm_ros.commands.asking import Asking, failed, print_answer, print_table, question_options
from spatial_mllm_ros.language.conversation import ConversationReader
from spatial_mllm_ros.session.questions import ask
from spatial_mllm_ros.session.reasons import COLOR_ONLY

EPILOG = """
\b
Examples:
  spatial-mllm ask rendered "How high is the ceiling?"
  spatial-mllm ask rendered "How far apart are <p0> and <p1>?" \\
      --point frame-000040,320,240 --point frame-000120,200,300
  spatial-mllm ask my_room "Is <p0> visible at <t0>?" --point 1.25,310,200 --time +3.5
  spatial-mllm ask my_bag "How tall is the object in <box0>?" --box 12.4,100,80,220,300
  spatial-mllm ask my_room --query '{"ask": {"type": "dimensions", "of": {"type": "room"}}}'
  spatial-mllm ask my_room --questions questions.json --report out
  spatial-mllm ask my_room "What stands beside the window?" --model Diankun/Spatial-MLLM-v1.1-Instruct-135K
  spatial-mllm ask video.mp4 "Which way did the camera turn?" --rgb-geometry facebook/VGGT-1B

In the question, <p0>, <p1> ... are the --point options in order, <box0> ... the --box options and <t0> ... the --time
options. FRAME is the name of a frame of the recording, its stamp in seconds, or +SECONDS after the first frame.

Exit code: 0 when every question got its answer, 1 for an error code, or an answer that is not right by the truth that the
questions file states, 2 for what is wrong with the command, or a model that cannot be loaded.
"""


@click.command(name="ask", epilog=EPILOG, short_help="Ask about the space that a recording shows.")
@click.argument("arguments", nargs=-1, metavar="[SOURCE] [QUESTION]")
@question_options
@common.json_option
@common.report_option
@common.stream_options
@common.input_options
@models.model_options
@geometry.option
@click.pass_context
def ask_command(
    ctx: click.Context,
    *,
    arguments: tuple[str, ...],
    asking: Asking,
    as_json: bool,
    report_folder: Path | None,
    stream: common.StreamOptions,
    inputs: dict[str, Any],
    model: models.ModelChoice | None,
    device: str,
    allow_random_weights: bool,
    rgb_geometry: str | None,
) -> None:
    """Stream a recording into the spatial memory, then answer questions about what it shows.

    SOURCE is a recording of any known layout, a bag, a video, a folder of images, or rendered[:options] (the default),
    a simulated house. Geometry measures, with --rgb-geometry in images alone, too; with --model, a model answers what
    cannot be measured. An answer says its deviation, its confidence and the images that it rests on; where there is none,
    a code says why.
    """
    file = asking.file
    spec, text = _source_and_question(arguments, file is not None, asking.query is not None)
    questions = asking.questions(text)
    chosen = geometry.choose(rgb_geometry, device, allow_random_weights)
    with geometry.loaded(chosen) as from_color, models.loading(model, stream.keyframes) as backend:
        query = None if model is None else model.query(stream.keyframes)
        session = common.open_session(spec, stream, report_folder is not None, query, backend, from_color, inputs)
        session.engine.reader = ConversationReader(own_words=asking.own_words)
        if not as_json:
            common.say_chosen(session.source)
        if backend is not None:
            models.stop_when_failed(session, backend)
        report = common.stream_with_progress(session, stream)
        common.say_reasons(report)
        common.say_doubts(session.doubts)
        if from_color is not None:
            common.say(geometry.words(session, chosen))
        elif report.color_only and report.color_only == report.frames:
            common.say(COLOR_ONLY)
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
        from spatial_mllm_ros.visualisation.report.report import write_report

        common.say(f"report: {write_report(session, asked, report_folder)}")
    if failed(asked):
        ctx.exit(1)


def _source_and_question(arguments: tuple[str, ...], from_file: bool, typed: bool) -> tuple[str, str]:
    if from_file:
        if len(arguments) > 1:
            raise click.UsageError("with --questions give only SOURCE: the questions come from the file")
        return (arguments[0] if arguments else "rendered"), ""
    if typed and len(arguments) < 2:
        return (arguments[0] if arguments else "rendered"), ""
    if not arguments:
        raise click.UsageError("what is the question? Give it in quotes after SOURCE, or --questions FILE")
    if len(arguments) == 1:
        return "rendered", arguments[0]
    if len(arguments) > 2:
        raise click.UsageError("give SOURCE and one QUESTION; put the question in quotes")
    return arguments[0], arguments[1]
