"""spatial-mllm export: parts of a model as ONNX files, for ONNX Runtime and TensorRT."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.serving.checkpoints.hub import has_random_weights, resolve_model

EPILOG = """
\b
Examples:
  spatial-mllm export encoder --model my_checkpoint --output encoder.onnx
  spatial-mllm export encoder --model my_checkpoint --output encoder.onnx --precision int8 --build
  spatial-mllm export geometry --model my_checkpoint --output geometry.onnx --precision int8 --build
  spatial-mllm ask walk.mp4 "Which way did the camera turn?" --rgb-geometry geometry.onnx
  spatial-mllm export build encoder.onnx --providers tensorrt,cuda

The weights are written beside the file, as FILE.onnx.data; keep both together.
"""
Command = TypeVar("Command", bound=Callable[..., Any])
PRECISIONS = ("float32", "float16", "int8")


@click.group(name="export", epilog=EPILOG, short_help="Parts of a model as ONNX files.")
def export_group() -> None:
    """Write parts of a model as ONNX files, for ONNX Runtime and TensorRT."""


@dataclass(frozen=True)
class Export:
    """What is exported and how. build: the engine too, which ``providers`` and ``engine_folder`` are for."""

    model: str
    output: Path
    precision: str
    check: bool
    build: bool
    providers: str
    engine_folder: Path | None


_PROVIDERS = click.option(
    "--providers", default="auto", show_default=True, help="auto, or tensorrt, cuda and cpu by preference."
)
_ENGINE_FOLDER = click.option(
    "--engine-folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of engines. [default: the user's cache]",
)


def _options(command: Command) -> Command:
    """Options of every export; the command gets them together, as ``wanted``."""

    @functools.wraps(command)
    def bundled(*args: Any, **given: Any) -> Any:
        wanted = Export(**{name: given.pop(name) for name in Export.__dataclass_fields__})
        return command(*args, wanted=wanted, **given)

    decorated: Any = bundled
    for option in reversed(
        (
            click.option(
                "--model", required=True, metavar="DIR_OR_ID", help="Folder of a checkpoint, or its id on the hub."
            ),
            click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.onnx"),
            click.option(
                "--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True,
                help="Of the linear layers: int8 is for CPUs, float16 for GPUs.",
            ),
            click.option("--check/--no-check", default=True, show_default=True, help="Check with the ONNX checker."),
            click.option(
                "--build", is_flag=True, help="Build the engine for this machine too, and compare it with the model."
            ),
            _PROVIDERS,
            _ENGINE_FOLDER,
            common.json_option,
        )
    ):  # fmt: skip
        decorated = option(decorated)
    return cast(Command, decorated)


@export_group.command(name="encoder", epilog=EPILOG)
@_options
@click.pass_context
def encoder_command(ctx: click.Context, *, wanted: Export, as_json: bool) -> None:
    """The spatial encoder: frames to the spatial tokens that a model takes.

    With --build exit code 1 when it differs too much from the model.
    """
    loading, export, gate = _libraries()
    with _failures(), common.task_progress(quiet=as_json) as progress:
        start = time.perf_counter()
        vggt = loading.load_vggt(wanted.model, progress=_bytes(progress))
        layer = loading.spatial_layer(wanted.model)
        description = export.export_encoder(vggt, wanted.output, layer=layer, **_how(wanted), progress=progress)
        result = _result(wanted.output, description, start)
        if wanted.build:
            from spatial_mllm_ros.models.onnx.onnx_encoder import OnnxEncoder
            from spatial_mllm_ros.models.vggt.spatial_encoder import TorchEncoder

            encoder = OnnxEncoder.load(
                wanted.output, providers=wanted.providers, cache=wanted.engine_folder, progress=progress
            )
            parity = gate.compare(encoder, TorchEncoder(vggt.aggregator, layer))
            result |= {"engine": encoder.name, "parity": asdict(parity), "passed": parity.passed}
    _print(result, as_json)
    if not result.get("passed", True):
        ctx.exit(1)


@export_group.command(name="geometry", epilog=EPILOG)
@_options
@click.pass_context
def geometry_command(ctx: click.Context, *, wanted: Export, as_json: bool) -> None:
    """VGGT with its camera and depth heads: frames to pose encodings, depth and its confidence.

    For --rgb-geometry and the node's rgb_geometry, without torch. What torch says about a fixed input is recorded in the
    file. With --build exit code 1 when the engine differs too much from it.
    """
    loading, export, _ = _libraries()
    with _failures(), common.task_progress(quiet=as_json) as progress:
        start = time.perf_counter()
        vggt = loading.load_vggt(wanted.model, ("camera", "depth"), progress=_bytes(progress))
        description = export.export_geometry(vggt, wanted.output, **_how(wanted), progress=progress)
        result = _result(wanted.output, description, start)
        if wanted.build:
            result |= _built_geometry(wanted.output, wanted.providers, wanted.engine_folder, progress)
    _print(result, as_json)
    if not result.get("passed", True):
        ctx.exit(1)


@export_group.command(name="build", epilog=EPILOG)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_PROVIDERS
@_ENGINE_FOLDER
@common.json_option
@click.pass_context
def build_command(ctx: click.Context, *, file: Path, providers: str, engine_folder: Path | None, as_json: bool) -> None:
    """Build the engine of an exported file for this machine, ahead of its first use.

    Geometry is compared with what torch said when it was exported, too: exit code 1 when it differs too much.
    """
    from spatial_mllm_ros.serving.onnx_file import describe

    with _failures(), common.task_progress(quiet=as_json) as progress:
        start = time.perf_counter()
        if describe(file).kind == "geometry":
            result = _built_geometry(file, providers, engine_folder, progress)
        else:
            _libraries()
            from spatial_mllm_ros.models.onnx.onnx_encoder import OnnxEncoder

            encoder = OnnxEncoder.load(file, providers=providers, cache=engine_folder, progress=progress)
            result = {"engine": encoder.name}
    from spatial_mllm_ros.models.onnx.engine_cache import EngineCache

    _print(
        {**result, "engine_folder": str(EngineCache(engine_folder).folder), "seconds": time.perf_counter() - start},
        as_json,
    )
    if not result.get("passed", True):
        ctx.exit(1)


def _built_geometry(file: Path, providers: str, engine_folder: Path | None, progress: Any) -> dict[str, Any]:
    """The engine of an exported geometry, and how far it is from torch."""
    try:
        from spatial_mllm_ros.models.onnx.onnx_predictor import OnnxPredictor
    except ImportError as error:
        from spatial_mllm_ros.serving.onnx_file import INSTALL

        raise common.Failure(f"an exported file needs {error.name}: {INSTALL}") from error
    predictor = OnnxPredictor.load(file, providers=providers, cache=engine_folder, gate=False, progress=progress)
    progress("comparing with torch", 0, None)
    parity = predictor.parity
    values = {name: value for name, value in asdict(parity).items() if name != "cosine"}  # which tokens have
    return {"engine": predictor.engine_name, "parity": values, "passed": parity.passed}


def _libraries() -> tuple[Any, Any, Any]:
    """What exports, which is slow to import. Raises Failure where a library is missing."""
    try:
        from spatial_mllm_ros.models.onnx import export
        from spatial_mllm_ros.models.vggt import loading as load_vggt
        from spatial_mllm_ros.models.worker import gate
    except ImportError as error:
        raise common.Failure(f"export needs {error.name}: pip install 'spatial_mllm_ros[model,onnx]'") from error
    return load_vggt, export, gate


class _failures:
    """What the user can put right, in one line."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from spatial_mllm_ros.serving.interface import ModelUnavailable

        if isinstance(error, (ModelUnavailable, ValueError)):
            raise common.Failure(common.printable(str(error))) from error


def _bytes(progress: Any) -> Callable[[int, int], None]:
    return lambda done, total: progress("loading", done >> 20, total >> 20)


def _how(wanted: Export) -> dict[str, Any]:
    return {
        "precision": wanted.precision,
        "name": _name(wanted.model),
        "random_weights": _random(wanted.model),
        "check": wanted.check,
    }


def _name(model: str) -> str:
    return Path(model).resolve().name if Path(model).exists() else model


def _random(model: str) -> bool:
    return has_random_weights(resolve_model(model))


def _result(output: Path, description: Any, start: float) -> dict[str, Any]:
    return {
        "file": str(output),
        "kind": description.kind,
        "precision": description.precision,
        "layer": description.layer,
        "opset": description.opset,
        "model": description.model,
        "weights": description.weights,
        "data_mb": description.data_bytes / 1e6,
        "seconds": time.perf_counter() - start,
    }


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        common.print_json(result)
        return
    for name, value in result.items():
        common.out().print(f"{name}: {f'{value:.4g}' if isinstance(value, float) else value}", markup=False)
