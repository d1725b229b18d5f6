"""spatial-mllm bench: measurements that back what the documentation says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from spatial_mllm_ros.commands import common, wire
from spatial_mllm_ros.commands.models import NOT_INSTALLED
from spatial_mllm_ros.serving.interface import PRECISIONS, ModelError, ModelOptions

EPILOG = """
\b
Examples:
  spatial-mllm bench selection --quick
  spatial-mllm bench selection --json > selection.json
  spatial-mllm bench selection --source my_recording
  spatial-mllm bench answers --seed 0 --seed 1 --source my_recording
  spatial-mllm bench answers --source my_recording --perturb-position 0.03
  spatial-mllm bench ingest --seconds 10
  spatial-mllm bench service --json
  spatial-mllm bench reading --file questions.txt
  spatial-mllm bench map
  spatial-mllm bench query
  spatial-mllm bench query --model Diankun/Spatial-MLLM-v1.1-Instruct-135K
  spatial-mllm bench encoder --size base
"""


_ERROR: dict[str, Any] = {"type": click.FloatRange(min=0), "default": 0.0}


@click.group(name="bench", epilog=EPILOG, short_help="Measure this package on this machine.")
def bench_group() -> None:
    """Measure this package on this machine."""


@bench_group.command(name="selection", epilog=EPILOG)
@common.json_option
@click.option("--quick", is_flag=True, help="A shorter run, for a first impression.")
@click.option("--source", "sources", multiple=True, metavar="SOURCE", help="Judge the selector on this recording too.")
def selection_command(*, as_json: bool, quick: bool, sources: tuple[str, ...]) -> None:
    """Compare selection with what is published, and streaming with greedy over all frames: coverage, time and memory.

    Takes about five minutes, with --quick one.
    """
    from spatial_mllm_ros.bench import selection

    with common.task_progress(quiet=as_json) as progress:
        result: dict[str, Any] = selection.run(quick, sources, progress)
    print_result(result, as_json)


@bench_group.command(name="answers", epilog=EPILOG)
@common.json_option
@click.option(
    "--source", "sources", multiple=True, metavar="SOURCE", help="A recording, with questions.json if it has."
)
@click.option(
    "--seed", "seeds", multiple=True, type=int, metavar="N", help="A rendered house.  [default: 0, no source]"
)
@click.option("--questions", type=click.IntRange(0, 5000), default=120, show_default=True, help="Of a rendered house.")
@click.option("--points", type=click.IntRange(0, 5000), default=200, show_default=True, help="Places seen twice.")
@click.option("--frames", type=click.IntRange(2), default=300, show_default=True, help="Of a rendered house.")
@click.option("--size", default="320x240", show_default=True, metavar="WxH", help="Of its images.")
@click.option("--perturb-position", "position_m", **_ERROR, metavar="M", help="Put on every pose: one deviation.")
@click.option("--perturb-rotation", "rotation_deg", **_ERROR, metavar="DEG", help="The same for the rotation.")
@click.option(
    "--drift-position", "drift_position_m", **_ERROR, metavar="M", help="A slow error instead of a white one."
)
@click.option("--drift-rotation", "drift_rotation_deg", **_ERROR, metavar="DEG", help="The same for the rotation.")
@click.option(
    "--drift-time", "drift_time_s", type=click.FloatRange(min=0.1), default=20.0, show_default=True, metavar="S"
)
def answers_command(
    *,
    as_json: bool,
    sources: tuple[str, ...],
    seeds: tuple[int, ...],
    questions: int,
    points: int,
    frames: int,
    size: str,
    **perturbation: Any,
) -> None:
    """Ask what the truth is known of: right, wrong, refused; errors within one and two stated deviations; latency.

    Questions come with a recording (questions.json) or with a rendered house. Beside them, in every recording, places are
    found that two images show (by their looks, without the poses): one point is no distance from itself. Deviations are
    exact where 68 % of the errors lie within one and 95 % within two.
    """
    from spatial_mllm_ros.bench import answers
    from spatial_mllm_ros.bench.perturbed import Perturbation

    houses = seeds or (() if sources else (0,))
    specs = (*sources, *(f"rendered:seed={seed},frames={frames},size={size}" for seed in houses))
    with common.task_progress(quiet=as_json) as progress:
        result = answers.run(specs, questions, points, Perturbation(**perturbation), progress)
    print_result(result, as_json)


@bench_group.command(name="ingest")
@common.json_option
@click.option("--seconds", type=click.FloatRange(min=1), default=20.0, show_default=True, help="Length of each run.")
@click.option("--streams", type=click.IntRange(1, 16), default=4, show_default=True, help="Cameras at the same time.")
@click.option("--tf-rate", type=click.FloatRange(1, 2000), default=100.0, show_default=True, help="Of each camera, in Hz.")
@click.option("--source", default="", metavar="SOURCE", help="A recording to play.  [default: rendered houses, 640x480]")
@click.pass_context
def ingest_command(
    ctx: click.Context, *, as_json: bool, seconds: float, streams: int, tf_rate: float, source: str
) -> None:
    """Play RGB-D streams at 30 Hz, with TF, from other processes into the node without ROS: losses and CPU.

    The cameras move, so that the scene grows and keyframes change.

    Exit code 1 when a message was lost that nobody counted.
    """
    from spatial_mllm_ros.bench import ingest

    with wire.failures(), common.task_progress(quiet=as_json) as progress:
        result = ingest.run(seconds, streams, tf_rate, source, progress)
    print_result(result, as_json)
    if result["lost_without_a_trace"]:
        ctx.exit(1)


@bench_group.command(name="service")
@common.json_option
@click.option("--questions", type=click.IntRange(min=10), default=500, show_default=True, help="Asked one by one.")
@click.option("--each", type=click.IntRange(min=1), default=20, show_default=True, help="Asked by each of 64 clients.")
@click.pass_context
def service_command(ctx: click.Context, *, as_json: bool, questions: int, each: int) -> None:
    """Ask a node in another process: round trips beyond the engine's time, and 64 clients at the same time.

    Exit code 1 when a question stayed without an answer.
    """
    from spatial_mllm_ros.bench import service

    with wire.failures(), common.task_progress(quiet=as_json) as progress:
        result = service.run(questions, each, progress)
    print_result(result, as_json)
    if result["lost"]:
        ctx.exit(1)


@bench_group.command(name="reading")
@common.json_option
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Questions to read too: one a line, or a JSON list of objects with question.",
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="How often each is read.")
def reading_command(*, as_json: bool, file: Path | None, rounds: int) -> None:
    """Read questions without answering them: the canonical sentence of every kind of question, and those of a file.

    How many the grammar reads as a whole, and the median, 99th percentile and longest time in ms. Whether they are read
    right this cannot tell: "spatial-mllm explain" shows how.
    """
    from spatial_mllm_ros.bench import reading

    try:
        with common.task_progress(quiet=as_json) as progress:
            result = reading.run(file, rounds, progress)
    except (OSError, reading.FileError) as error:
        raise common.Failure(common.printable(str(error))) from error
    print_result(result, as_json)


@bench_group.command(name="map")
@common.json_option
@click.option(
    "--frames", multiple=True, type=click.IntRange(20, 100_000), help="Held when asked.  [default: 300, 1000]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="The rendered house.")
@click.option("--rooms", type=click.IntRange(1, 12), default=3, show_default=True, help="Of the house.")
@click.option("--size", default="320x240", show_default=True, metavar="WxH", help="Of its images.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Each question, this often.")
def map_command(*, as_json: bool, frames: tuple[int, ...], seed: int, rooms: int, size: str, rounds: int) -> None:
    """What a frame costs the map, its memory, and what is read from it beside reading the frames again: times and answers.

    Both ways are asked in one run, each time after another frame came. Rendering takes most of the time.
    """
    try:
        from spatial_mllm_ros.bench import map as of_map
    except ImportError as error:
        raise common.Failure(f"the map needs more ({error}): pip install 'spatial_mllm_ros[map]'") from error
    from spatial_mllm_ros.sources.source import SourceError

    try:
        width, height = (int(side) for side in size.lower().split("x"))
    except ValueError as error:
        raise click.BadParameter(f"{size!r} is no size such as 320x240", param_hint="--size") from error
    try:
        with common.task_progress(quiet=as_json) as progress:
            result = of_map.run(
                frames or (300, 1000), seed=seed, rooms=rooms, size=(width, height), rounds=rounds, progress=progress
            )
    except SourceError as error:
        raise common.Failure(common.printable(str(error))) from error
    print_result(result, as_json)


@bench_group.command(name="query")
@common.json_option
@click.option("--model", help="A checkpoint: its folder, or its id when downloaded. [default: random weights]")
@click.option(
    "--frames", type=click.IntRange(2, 64), default=16, show_default=True, help="Frames of the context, even."
)
@click.option(
    "--questions", type=click.IntRange(1), default=3, show_default=True, help="Asked in each of the three ways."
)
@click.option("--tokens", type=click.IntRange(2), default=24, show_default=True, help="Length of an answer.")
@click.option("--layers", type=click.IntRange(1), default=12, show_default=True, help="Random language model: layers.")
@click.option("--hidden", type=click.IntRange(64), default=768, show_default=True, help="Random language model: width.")
@click.option("--full-size", is_flag=True, help="Random weights in the published sizes: 5.3 billion.")
@click.option("--threads", type=click.IntRange(0), default=0, help="Of the CPU. [default: as many as it has cores]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), help="Of the weights. [default: auto; of random ones float32]"
)
@click.pass_context
def query_command(
    ctx: click.Context,
    *,
    as_json: bool,
    model: str | None,
    frames: int,
    questions: int,
    tokens: int,
    layers: int,
    hidden: int,
    full_size: bool,
    threads: int,
    device: str,
    precision: str | None,
) -> None:
    """Ask a model as published, cold and from a warm context: time to the first token; what a changed frame costs.

    No answer is shown: without --model nobody trained the model. Takes about two minutes on two cores. Exit code 1 when
    the warm context's tokens are not those of the cold one, or in float32 not those of the published way.
    """
    if frames % 2:
        raise click.BadParameter("the model takes frames in pairs: give an even number", param_hint="--frames")
    if hidden % 64:
        raise click.BadParameter("give a multiple of 64", param_hint="--hidden")
    options = ModelOptions(
        model or "",
        precision or ("auto" if model or full_size else "float32"),
        device,
        max_new_tokens=tokens,
        max_context_frames=frames,
        threads=threads,
    )
    try:
        from spatial_mllm_ros.bench import measured, query
    except ImportError as error:
        raise common.Failure(f"{NOT_INSTALLED} ({error})") from error
    try:
        with common.task_progress(quiet=as_json) as progress:
            progress("loading", 0, None)
            subject = (
                measured.load_measured(options)
                if model
                else measured.random_measured(layers, hidden, options, full=full_size)
            )
            result = query.run(subject, frames, questions, progress)
    except ModelError as error:
        raise common.Failure(str(error)) from error
    print_result(result, as_json)
    if not result["identical_tokens"]:
        ctx.exit(1)


@bench_group.command(name="encoder")
@common.json_option
@click.option(
    "--size",
    type=click.Choice(("tiny", "small", "base", "full")),
    default="small",
    show_default=True,
    help="Of the encoder, with random weights; full is that of the published checkpoints: 0.91 billion.",
)
@click.option("--full", is_flag=True, help="The same as --size full.")
@click.option("--geometry", is_flag=True, help="Measure geometry from color: the encoder with camera and depth heads.")
@click.option("--height", type=click.IntRange(28), default=252, show_default=True, help="Of the frames, px.")
@click.option("--width", type=click.IntRange(28), default=392, show_default=True, help="Of the frames, px.")
@click.option("--frames", default="1,2,4,8,16,32", show_default=True, help="Numbers of frames.")
@click.option("--runtimes", default="torch,compiled,onnx", show_default=True, help="Compared with torch eager.")
@click.option(
    "--precisions",
    default="",
    help="Some of float32,bfloat16,float16,int8. [default: those that make sense on the device]",
)
@click.option(
    "--attention",
    default="",
    help="Torch's kernels to compare, beside its own choice: some of flash,efficient,cudnn,math. [default: on a GPU all]",
)
@click.option(
    "--limit", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Seconds a pass at most."
)
@click.option("--threads", type=click.IntRange(0), default=0, help="Of the CPU. [default: as many as it has cores]")
def encoder_command(
    *,
    as_json: bool,
    size: str,
    full: bool,
    geometry: bool,
    height: int,
    width: int,
    frames: str,
    runtimes: str,
    precisions: str,
    attention: str,
    limit: float,
    threads: int,
) -> None:
    """Compare runtimes of the spatial encoder: torch, torch.compile and ONNX Runtime, over numbers of frames.

    Each is measured in turns with torch eager. Beside time and memory stand the share of what large matrix products reach
    here and the error against float32. Passes of more than 10 s are not repeated; numbers of frames that would take longer
    than --limit are left out. Takes about ten minutes on two cores.
    """
    if height % 14 or width % 14:
        raise click.BadParameter("give multiples of 14, the side of a patch", param_hint="--height and --width")
    try:
        counts = sorted({int(part) for part in frames.split(",")})
    except ValueError as error:
        raise click.BadParameter("give whole numbers, with commas between", param_hint="--frames") from error
    if counts[0] < 1:
        raise click.BadParameter("give numbers of at least 1", param_hint="--frames")
    try:
        import torch  # noqa: F401

        from spatial_mllm_ros.bench import encoder
    except ImportError as error:
        raise common.Failure(f"{NOT_INSTALLED} ({error})") from error
    wanted = encoder.Wanted(
        "full" if full else size,
        (height, width),
        counts,
        limit,
        _listed(runtimes),
        _listed(precisions),
        _listed(attention),
        threads,
        "geometry" if geometry else "encoder",
    )
    try:
        with common.task_progress(quiet=as_json) as progress:
            result = encoder.run(wanted, progress)
    except (ModelError, RuntimeError, ValueError) as error:
        raise common.Failure(common.printable(str(error))) from error
    print_result(result, as_json)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """A benchmark's result: JSON, or every list of rows as a table and the rest as lines."""
    if as_json:
        common.print_json(result)
        return
    console = common.out()
    for name, value in result.items():
        rows = value if isinstance(value, list) else None
        if rows and all(isinstance(row, dict) for row in rows):
            table = Table(title=name, pad_edge=False, header_style="bold", title_justify="left")
            for column in rows[0]:
                table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
            for row in rows:
                table.add_row(*(Text(_cell(row.get(column))) for column in rows[0]))
            console.print(table)
        elif isinstance(value, dict):
            for key, item in value.items():
                console.print(Text(f"{name} {key}: {_cell(item)}"))
        else:
            console.print(Text(f"{name}: {_cell(value)}"))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
