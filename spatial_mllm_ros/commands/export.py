"""spatial-mllm export: parts of a model as ONNX files, for ONNX Runtime and TensorRT."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.models.hub import has_random_weights, resolve_model

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
PRECISIONS = ("float32", "float16", "int8")


@click.group(name="export", epilog=EPILOG, short_help="Parts of a model as ONNX files.")
def export_group() -> None:
    """Write parts of a model as ONNX files, for ONNX Runtime and TensorRT."""


def _options(command: Any) -> Any:
    for option in (
        click.option(
            "--model", required=True, metavar="DIR_OR_ID", help="Folder of a checkpoint, or its id on the hub."
        ),
        click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.onnx"),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="float32",
            show_default=True,
            help="Of the linear layers: int8 is for CPUs, float16 for GPUs.",
        ),
        click.option("--check/--no-check", default=True, show_default=True, help="Check with the ONNX checker."),
        common.json_option,
    ):
        command = option(command)
    return command


_BUILD = click.option(
    "--build", is_flag=True, help="Build the engine for this machine too, and compare it with the model."
)
_PROVIDERS = click.option(
    "--providers", default="auto", show_default=True, help="auto, or tensorrt, cuda and cpu by preference."
)
_CACHE = click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), default=None, help="Folder of engines."
)


@export_group.command(name="encoder", epilog=EPILOG)
@_options
@_BUILD
@_PROVIDERS
@_CACHE
@click.pass_context
def encoder_command(
    ctx: click.Context,
    *,
    model: str,
    output: Path,
    precision: str,
    check: bool,
    as_json: bool,
    build: bool,
    providers: str,
    cache: Path | None,
) -> None:
    """The spatial encoder: frames to the spatial tokens that a model takes.

    With --build exit code 1 when it differs too much from the model.
    """
    loading, export, gate = _libraries()
    with _failures(), common.task_progress(quiet=as_json) as progress:
        start = time.perf_counter()
        vggt = loading.load_vggt(model, progress=lambda done, total: progress("loading", done >> 20, total >> 20))
        layer = loading.spatial_layer(model)
        description = export.export_encoder(
            vggt,
            output,
            precision=precision,
            layer=layer,
            name=_name(model),
            random_weights=_random(model),
            check=check,
            progress=progress,
        )
        result = _result(output, description, start)
        passed = True
        if build:
            from spatial_mllm_ros.models.runtime.onnx_encoder import OnnxEncoder
            from spatial_mllm_ros.models.runtime.spatial_encoder import TorchEncoder

            encoder = OnnxEncoder.load(output, providers=providers, cache=cache, progress=progress)
            parity = gate.compare(encoder, TorchEncoder(vggt.aggregator, layer))
            passed = parity.passed
            result |= {"engine": encoder.name, "parity": asdict(parity), "passed": passed}
    _print(result, as_json)
    if not passed:
        ctx.exit(1)


@export_group.command(name="geometry", epilog=EPILOG)
@_options
@_BUILD
@_PROVIDERS
@_CACHE
@click.pass_context
def geometry_command(
    ctx: click.Context,
    *,
    model: str,
    output: Path,
    precision: str,
    check: bool,
    as_json: bool,
    build: bool,
    providers: str,
    cache: Path | None,
) -> None:
    """VGGT with its camera and depth heads: frames to pose encodings, depth and its confidence.

    For --rgb-geometry and the node's rgb_geometry, without torch. What torch says about a fixed input is recorded in the
    file. With --build exit code 1 when the engine differs too much from it.
    """
    loading, export, _ = _libraries()
    with _failures(), common.task_progress(quiet=as_json) as progress:
        start = time.perf_counter()
        vggt = loading.load_vggt(
            model, ("camera", "depth"), progress=lambda done, total: progress("loading", done >> 20, total >> 20)
        )
        description = export.export_geometry(
            vggt,
            output,
            precision=precision,
            name=_name(model),
            random_weights=_random(model),
            check=check,
            progress=progress,
        )
        result = _result(output, description, start)
        if build:
            result |= _built_geometry(output, providers, cache, progress)
    _print(result, as_json)
    if not result.get("passed", True):
        ctx.exit(1)


@export_group.command(name="build", epilog=EPILOG)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_PROVIDERS
@_CACHE
@common.json_option
@click.pass_context
def build_command(ctx: click.Context, *, file: Path, providers: str, cache: Path | None, as_json: bool) -> None:
    """Build the engine of an exported file for this machine, ahead of its first use.

    Geometry is compared with what torch said when it was exported, too: exit code 1 when it differs too much.
    """
    from spatial_mllm_ros.models.export.onnx_file import describe

    with _failures(), common.task_progress(quiet=as_json) as progress:
        start = time.perf_counter()
        if describe(file).kind == "geometry":
            result = _built_geometry(file, providers, cache, progress)
        else:
            _libraries()
            from spatial_mllm_ros.models.runtime.onnx_encoder import OnnxEncoder

            encoder = OnnxEncoder.load(file, providers=providers, cache=cache, progress=progress)
            result = {"engine": encoder.name}
    from spatial_mllm_ros.models.runtime.engine_cache import EngineCache

    _print({**result, "cache": str(EngineCache(cache).folder), "seconds": time.perf_counter() - start}, as_json)
    if not result.get("passed", True):
        ctx.exit(1)


def _built_geometry(file: Path, providers: str, cache: Path | None, progress: Any) -> dict[str, Any]:
    """The engine of an exported geometry, and how far it is from torch."""
    try:
        from spatial_mllm_ros.models.runtime.onnx_predictor import OnnxPredictor
    except ImportError as error:
        from spatial_mllm_ros.models.export.onnx_file import INSTALL

        raise common.Failure(f"an exported file needs {error.name}: {INSTALL}") from error
    predictor = OnnxPredictor.load(file, providers=providers, cache=cache, gate=False, progress=progress)
    progress("comparing with torch", 0, None)
    parity = predictor.parity
    values = {name: value for name, value in asdict(parity).items() if name != "cosine"}  # which tokens have
    return {"engine": predictor.engine_name, "parity": values, "passed": parity.passed}


def _libraries() -> tuple[Any, Any, Any]:
    """What exports, which is slow to import. Raises Failure where a library is missing."""
    try:
        from spatial_mllm_ros.models import load_vggt
        from spatial_mllm_ros.models.export import export
        from spatial_mllm_ros.models.runtime import gate
    except ImportError as error:
        raise common.Failure(f"export needs {error.name}: pip install 'spatial_mllm_ros[model,onnx]'") from error
    return load_vggt, export, gate


class _failures:
    """What the user can put right, in one line."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from spatial_mllm_ros.models.interface import ModelUnavailable

        if isinstance(error, (ModelUnavailable, ValueError)):
            raise common.Failure(common.printable(str(error))) from error


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
