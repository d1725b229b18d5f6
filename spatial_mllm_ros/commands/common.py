"""What the commands share: consoles, options, failures and the progress of a stream."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from spatial_mllm_ros.answering.context import QueryConfig
from spatial_mllm_ros.answering.model_backend import ModelBackend
from spatial_mllm_ros.memory.spatial_memory import MemoryConfig
from spatial_mllm_ros.perception.rgb.rgb_geometry import RgbGeometry
from spatial_mllm_ros.scene.inputs import IMAGE_FRAMES, Doubt
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.session.questions import QuestionsError
from spatial_mllm_ros.session.reasons import what_to_do
from spatial_mllm_ros.session.stream import Session, StreamReport
from spatial_mllm_ros.sources.source import Source, SourceError

Command = TypeVar("Command", bound=Callable[..., Any])

PLAIN_WIDTH = 140
"""Columns of tables where the output is no terminal."""


class Failure(click.ClickException):
    """What the user can put right: one line on stderr, exit code 2."""

    exit_code = 2


class Group(click.Group):
    """Commands in the order in which they were added; what users can put right never shows a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SourceError, QuestionsError) as error:
            raise Failure(printable(str(error))) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            what = f"{error.filename}: " if error.filename else ""
            raise Failure(printable(f"{what}{error.strerror or error}")) from error


def out() -> Console:
    """Results, on stdout."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def err() -> Console:
    """Progress and remarks, on stderr."""
    return Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """A remark for people, on stderr."""
    click.echo(printable(message), err=True)


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    click.echo(json.dumps(value, allow_nan=False))


def printable(text: str) -> str:
    """The text with what no terminal shows (lone surrogates, control characters) replaced."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c >= " " or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def finite(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no pace: give 0 (as fast as possible) or a positive number", ctx, param)
    return value


@dataclass(frozen=True)
class StreamOptions:
    """How a recording is streamed. rate: 1 is real time, 0 as fast as possible; keyframes: how many; limit: stop after
    so many frames, 0: never; max_frames, max_mb: bounds of the memory."""

    rate: float
    keyframes: int
    limit: int
    max_frames: int
    max_mb: int

    @property
    def memory(self) -> MemoryConfig:
        return MemoryConfig(max_frames=self.max_frames, max_bytes=self.max_mb << 20)


def stream_options(command: Command) -> Command:
    """Options of every command that streams a recording; the command gets them together, as ``stream``."""

    @functools.wraps(command)
    def bundled(*args: Any, rate: float, keyframes: int, limit: int, max_frames: int, max_mb: int, **rest: Any) -> Any:
        return command(*args, stream=StreamOptions(rate, keyframes, limit, max_frames, max_mb), **rest)

    decorated: Any = bundled
    for option in reversed(
        (
            click.option(
                "--rate", type=click.FloatRange(min=0), default=0.0, show_default=True, metavar="R",
                callback=finite,
                help="Pace: 1 is real time, 2 twice that, 0 as fast as possible.",
            ),
            click.option(
                "--keyframes", type=click.IntRange(1, 128), default=16, show_default=True, metavar="K",
                help="How many keyframes to keep: the K frames that together cover the most space.",
            ),
            click.option(
                "--limit", type=click.IntRange(min=0), default=0, metavar="N", help="Stop after N frames.",
            ),
            click.option(
                "--max-frames", type=click.IntRange(min=1), default=MemoryConfig().max_frames, show_default=True,
                metavar="N", help="Bound of the memory: frames kept. Beyond it the oldest that is no keyframe goes.",
            ),
            click.option(
                "--max-mb", type=click.IntRange(min=1), default=MemoryConfig().max_bytes >> 20, show_default=True,
                metavar="MB", help="Bound of the memory: megabytes of images and depth kept.",
            ),
        )
    ):  # fmt: skip
        decorated = option(decorated)
    return cast(Command, decorated)


def input_options(command: Command) -> Command:
    """Options for what is assumed about a recording; the command gets the given ones, fields of InputSettings by name,
    as ``inputs`` for open_source."""

    @functools.wraps(command)
    def bundled(*args: Any, **rest: Any) -> Any:
        inputs = {name: rest.pop(name) for name in _INPUT_OPTIONS}
        given = {name: value for name, value in inputs.items() if value not in (None, ())}
        return command(*args, inputs=given, **rest)

    decorated: Any = bundled
    for name, (flag, parameters) in reversed(_INPUT_OPTIONS.items()):
        decorated = click.option(flag, name, **parameters)(decorated)
    return cast(Command, decorated)


_METRES = {"type": click.FloatRange(min=0), "metavar": "M"}
_SECONDS = {"type": click.FloatRange(min=0), "metavar": "S"}
_INPUT_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "color_topic": ("--color-topic", {"metavar": "NAME", "help": "Of a bag: the color images (default: found)."}),
    "depth_topic": ("--depth-topic", {"metavar": "NAME", "help": "Its depth images; none: without."}),
    "camera_info_topic": ("--camera-info-topic", {"metavar": "NAME", "help": "CameraInfo of the color images."}),
    "depth_camera_info_topic": ("--depth-camera-info-topic", {"metavar": "NAME", "help": "CameraInfo of the depth images."}),
    "depth_unit_m": (
        "--depth-unit",
        {**_METRES, "help": "Metres of one count of a depth image (default: that of its format; 0.001 for millimetres)."},
    ),
    "invalid_depth": (
        "--invalid-depth",
        {"type": float, "multiple": True, "metavar": "V", "help": "A raw depth value that means no data; repeatable."},
    ),
    "min_depth_m": ("--min-depth", {**_METRES, "help": "Depth below is no data."}),
    "max_depth_m": ("--max-depth", {**_METRES, "help": "Depth beyond is no data; 0: no bound."}),
    "image_frame": (
        "--image-frame",
        {
            "type": click.Choice(IMAGE_FRAMES),
            "help": "Axes of the frame that images are stamped with: z forward (optical), or x forward, z up (body).",
        },
    ),
    "world_frame": ("--world-frame", {"metavar": "NAME", "help": "The fixed frame of poses (default: map, odom or world)."}),
    "tf_namespace": ("--tf-namespace", {"metavar": "NAME", "help": "Whose tf topics count, where a bag holds several robots."}),
    "pose_topic": ("--pose-topic", {"metavar": "NAME", "help": "Odometry or PoseStamped that tells poses instead of TF."}),
    "pose_frame": ("--pose-frame", {"metavar": "NAME", "help": "The frame whose pose that topic tells (default: found)."}),
    "static": ("--static", {"is_flag": True, "default": None, "help": "The camera does not move, and needs no pose."}),
    "sync_tolerance_s": ("--sync-tolerance", {**_SECONDS, "help": "How far apart color and depth of one moment are."}),
    "tf_max_gap_s": ("--tf-max-gap", {**_SECONDS, "help": "Longest silence of TF that is interpolated across; 0: any."}),
    "pose_offset_s": (
        "--pose-offset",
        {"type": float, "metavar": "S", "help": "How much later poses are stamped than images of the same moment."},
    ),
    "pose_unit_m": ("--pose-unit", {**_METRES, "help": "Metres of one unit of a folder's positions; 0: up to scale."}),
    "image_rate_hz": ("--image-rate", {"type": float, "metavar": "HZ", "help": "Rate of images without stamps."}),
}  # fmt: skip
"""Fields of InputSettings: flag and click's parameters."""


report_option = click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write DIR/report.html: one self-contained page with keyframes, map, coverage and evidence.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Results as JSON on stdout, nothing else there.")


def open_session(
    spec: str,
    stream: StreamOptions,
    record_coverage: bool = True,
    query: QueryConfig | None = None,
    model: ModelBackend | None = None,
    geometry: RgbGeometry | None = None,
    inputs: Mapping[str, Any] = MappingProxyType({}),
) -> Session:
    """A session of the recording at ``spec``. SourceError when there is none."""
    return Session(open_source(spec, inputs), stream.memory, query, stream.keyframes, record_coverage, model, geometry)


def say_chosen(source: Source) -> None:
    """What was made of a recording's input, on stderr: topics, encodings, units, frames, rates."""
    for line in source.info.chosen:
        say(f"{source.info.name}: {line}")


def say_reasons(report: StreamReport) -> None:
    """Why frames were refused or came without something, on stderr."""
    for what, counts in (("refused", report.refused), ("taken without", report.remarks)):
        for reason, count in counts.most_common():
            say(f"{what}: {count} {reason}: {what_to_do(reason, report.texts.get(reason, ''))}")


def say_doubts(doubts: Iterable[Doubt]) -> None:
    """What speaks against the assumptions about a recording, on stderr."""
    for doubt in doubts:
        say(f"doubt: {doubt}")


def stream_with_progress(session: Session, options: StreamOptions) -> StreamReport:
    """Stream the whole recording behind a progress bar on stderr."""
    expected, limit = session.source.info.frames, options.limit
    total = min(limit, expected) if limit and expected else (limit or expected)
    with progress_bar(f"streaming {session.source.info.name}") as update:
        return session.stream(options.rate, limit, lambda frame, report: update(report.frames, total))


@contextmanager
def progress_bar(what: str, quiet: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr, only on a terminal; yields ``update(done, total)`` with ``total`` None if unknown."""
    console = err()
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(Text(printable(what)).markup, total=None)

        def update(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield update


@contextmanager
def task_progress(quiet: bool = False) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar on stderr for several tasks, only on a terminal; yields ``update(what, done, total)``."""
    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def update(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=Text(printable(what)).markup, completed=done, total=total)

        yield update


def megabytes(count: int) -> str:
    """Bytes as people write them."""
    return f"{count / 1e6:.0f} MB" if count >= 10_000_000 else f"{count / 1e6:.1f} MB"


def counted(counter: Counter[str]) -> str:
    """ "3 no_pose, 1 bad_image", or "none"."""
    return ", ".join(f"{n} {reason}" for reason, n in counter.most_common()) or "none"
