"""What the commands that use a model share: their options, loading it with a bar, encoding, answers as they come."""

from __future__ import annotations

import functools
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

import click
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.spinner import Spinner
from rich.text import Text

from spatial_mllm_ros.answering.context import QueryConfig
from spatial_mllm_ros.answering.model_backend import ModelBackend
from spatial_mllm_ros.commands import common
from spatial_mllm_ros.serving.checkpoints.hub import has_random_weights, resolve_model
from spatial_mllm_ros.serving.interface import (
    ENCODER_RUNTIMES,
    PRECISIONS,
    ModelError,
    ModelOptions,
    ModelStatus,
    ModelUnavailable,
    SpatialModel,
)
from spatial_mllm_ros.session.stream import Session

Command = TypeVar("Command", bound=Callable[..., Any])

NOISE = "random weights: the model's words are noise"
NOT_INSTALLED = "models need torch and transformers: pip install 'spatial_mllm_ros[model]'"
LOOK_S = 0.1


@dataclass(frozen=True)
class ModelChoice:
    """The model that a command was told to use, and how. timeout_s: for each question."""

    options: ModelOptions
    random_weights: bool
    timeout_s: float

    def query(self, keyframes: int) -> QueryConfig:
        """A question may take its time here, and is about all that was streamed; no robot waits for it."""
        return QueryConfig(
            timeout_s=self.timeout_s,
            max_keyframes=keyframes,
            wait_for_context=True,
            cross_check_timeout_s=self.timeout_s,
            min_model_confidence=0.0 if self.random_weights else QueryConfig.min_model_confidence,
        )


class Loads(Protocol):
    """What loads in the background, as supervised.Supervised."""

    def wait_loaded(
        self, timeout_s: float = math.inf, on_progress: Callable[[str, int, int], None] | None = None
    ) -> None: ...


class LoadedModel(SpatialModel, Loads, Protocol):
    """A model that loads in the background, as process.ProcessModel."""

    def start(self) -> None: ...


device_option = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."
)
random_weights_option = click.option(
    "--allow-random-weights",
    is_flag=True,
    help="Take a checkpoint that nobody trained, to try things out: its answers are noise, and are marked so.",
)


def model_options(command: Command) -> Command:
    """Options of every command that can use a model; the command gets a ModelChoice or None, as ``model``.

    It gets ``device`` and ``allow_random_weights``, too, which hold for more than the model.
    """

    @functools.wraps(command)
    def bundled(
        *args: Any,
        model: str | None,
        precision: str,
        device: str,
        model_timeout_s: float,
        allow_random_weights: bool,
        encoder_runtime: str | None,
        encoder_file: str,
        encoder_providers: str,
        encoder_engine_folder: str,
        **rest: Any,
    ) -> Any:
        choice = None
        if encoder_runtime == "onnx" and not encoder_file:
            raise click.UsageError(
                "--encoder-runtime onnx needs --encoder-file, as spatial-mllm export encoder writes it"
            )
        if encoder_file and model is None:
            raise click.UsageError("--encoder-file needs --model: it is a part of one")
        if model is not None:
            options = ModelOptions(
                model,
                precision,
                device,
                encoder_runtime=encoder_runtime or ("onnx" if encoder_file else "torch"),
                encoder_file=encoder_file,
                encoder_providers=encoder_providers,
                encoder_engine_folder=encoder_engine_folder,
            )
            choice = choose(options, allow_random_weights, model_timeout_s)
        return command(*args, model=choice, device=device, allow_random_weights=allow_random_weights, **rest)

    decorated: Any = bundled
    for option in reversed(
        (
            click.option(
                "--model", metavar="DIR_OR_ID",
                help="Answer free-form questions with this model too: a checkpoint's folder, or the id of a downloaded "
                "one (spatial-mllm download).",
            ),
            click.option(
                "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True,
                help="Of the model's weights; int8 and int4 need less memory, bfloat16 is what it was trained in.",
            ),
            device_option,
            click.option(
                "--model-timeout", "model_timeout_s", type=click.FloatRange(min=0.1), default=600.0, show_default=True,
                metavar="S", help="Time limit of each question to the model.",
            ),
            random_weights_option,
            click.option(
                "--encoder-file", default="", metavar="FILE.onnx",
                help="Run the model's spatial encoder from this file of spatial-mllm export encoder.",
            ),
            click.option(
                "--encoder-runtime", type=click.Choice(ENCODER_RUNTIMES),
                help="auto: torch with a warning where the file is refused.  [default: onnx with --encoder-file]",
            ),
            click.option(
                "--encoder-providers", default="auto", show_default=True, metavar="NAMES",
                help="Of ONNX Runtime by preference: some of tensorrt,cuda,cpu.",
            ),
            click.option(
                "--encoder-engine-folder", default="", metavar="DIR",
                help="Where engines that are built from the file are kept.  [default: the user's cache]",
            ),
        )
    ):  # fmt: skip
        decorated = option(decorated)
    return cast(Command, decorated)


def choose(options: ModelOptions, allow_random_weights: bool, timeout_s: float) -> ModelChoice:
    """What can be found wrong before anything is loaded is a Failure."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        raise common.Failure(NOT_INSTALLED)
    try:
        random = has_random_weights(resolve_model(options.model))
    except ModelUnavailable as error:
        raise common.Failure(common.printable(str(error))) from error
    if random and not allow_random_weights:
        raise common.Failure(
            f"{common.printable(options.model)} has random weights: nobody trained it, and its words mean nothing; "
            "--allow-random-weights tries it nevertheless"
        )
    return ModelChoice(options, random, timeout_s)


def make_model(options: ModelOptions) -> LoadedModel:
    """In a process of its own, so that loading does not slow down the recording."""
    from spatial_mllm_ros.serving.process import ProcessModel

    return ProcessModel(options)


@contextmanager
def loading(choice: ModelChoice | None, keyframes: int) -> Iterator[ModelBackend | None]:
    """Within, the model loads and then serves, with so many keyframes; None without one."""
    if choice is None:
        yield None
        return
    model = make_model(replace(choice.options, max_context_frames=keyframes))
    try:
        model.start()
        yield ModelBackend(model, keyframes)
    finally:
        model.close()


def stop_when_failed(session: Session, backend: ModelBackend) -> None:
    """While the session streams, a model that cannot be loaded is a Failure at once, not at the end."""

    def look(*_: object) -> None:
        check(backend.status())

    session.listeners.append(look)


def check(status: ModelStatus) -> None:
    """Failure when the model has failed."""
    if status.state == "failed":
        raise common.Failure(common.printable(status.reason or "the model failed"))


def wait_loaded(backend: ModelBackend) -> None:
    """Wait for the model behind a bar on stderr. Failure when it cannot be loaded."""
    wait_with_progress(cast(LoadedModel, backend.model), "loading the model")


def wait_with_progress(loads: Loads, what: str) -> None:
    """Wait for what loads behind a bar on stderr. Failure when it cannot be loaded."""
    console = common.err()
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[size]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, size="")

        def update(doing: str, done: int, total: int) -> None:
            words = Text(common.printable(doing or what)).markup
            size = f"{gigabytes(done)} of {gigabytes(total)}" if total else ""
            bar.update(task, description=words, completed=done, total=total or None, size=size)

        try:
            loads.wait_loaded(on_progress=update)
        except ModelError as error:
            raise common.Failure(common.printable(str(error))) from error


def encode(session: Session, backend: ModelBackend) -> None:
    """Show the model the keyframes, and wait until it has encoded them, behind a bar on stderr."""
    begin = time.monotonic()
    try:
        session.engine.update_context()
    except ModelError as error:
        raise common.Failure(common.printable(str(error))) from error
    console = common.err()
    with console.status("the model encodes the keyframes ...") if console.is_terminal else nullcontext():
        while (status := backend.status()).pending:
            check(status)
            time.sleep(LOOK_S)
    seconds = time.monotonic() - begin
    check(status)
    if status.context_frames:
        placed = all(session.memory.get(i) is not None for i in status.context_frames)
        what = "keyframes" if placed else "evenly spaced images"
        common.say(f"{backend.model_id}: {len(status.context_frames)} {what} encoded in {seconds:.1f} s")
    elif status.reason:
        common.say(f"{backend.model_id}: the keyframes are not encoded: {status.reason}")


@contextmanager
def words_as_they_come(shown: bool, whom: str = "the model") -> Iterator[Callable[[str], None] | None]:
    """Yields ``on_text``: what it is told appears on the terminal at once, and goes when the whole answer is there.

    None where nothing is to be shown.
    """
    if not shown:
        yield None
        return
    words = Text(style="green")
    with Live(Spinner("dots", f"asking {whom} ..."), console=common.out(), transient=True) as live:

        def on_text(piece: str) -> None:
            words.append(common.printable(piece))
            live.update(words)

        yield on_text


def gigabytes(count: int) -> str:
    """Bytes as people write them, from kilobytes to gigabytes."""
    if count >= 1_000_000_000:
        return f"{count / 1e9:.1f} GB"
    return common.megabytes(count) if count >= 100_000 else f"{count / 1e3:.0f} kB"
