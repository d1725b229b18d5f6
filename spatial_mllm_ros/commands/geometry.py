"""What the commands that can make geometry from color share: loading its predictor, and words about what came of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from spatial_mllm_ros.commands import common, models
from spatial_mllm_ros.nodes.diagnosis import scale_words
from spatial_mllm_ros.perception.rgb.rgb_geometry import RgbGeometry, RgbGeometryConfig
from spatial_mllm_ros.serving.checkpoints.hub import has_random_weights, resolve_model
from spatial_mllm_ros.serving.geometry_process import GeometryOptions, ProcessPredictor
from spatial_mllm_ros.serving.interface import ModelUnavailable
from spatial_mllm_ros.serving.onnx_file import INSTALL, describe, is_export
from spatial_mllm_ros.session.stream import Session

NOISE = "random weights: the geometry from color is noise"
NOT_INSTALLED = (
    "geometry from color needs torch: pip install 'spatial_mllm_ros[model]'; a file of `spatial-mllm export geometry` runs "
    f"without it: {INSTALL}"
)

option = click.option(
    "--rgb-geometry",
    metavar="DIR_ID_OR_ONNX",
    help="Where depth or poses are missing, estimate them from the images with VGGT: a checkpoint of VGGT or of "
    "Spatial-MLLM, its folder, or the id of a downloaded one; or FILE.onnx of `export geometry`, which runs without torch. "
    "Metres come from the poses, or from depth now and then.",
)


@dataclass(frozen=True)
class GeometryChoice:
    """The predictor that a command was told to use."""

    options: GeometryOptions
    random_weights: bool


def choose(model: str | None, device: str, allow_random_weights: bool) -> GeometryChoice | None:
    """None without one. What can be found wrong before anything is loaded is a Failure."""
    if model is None:
        return None
    exported = is_export(model)
    if not exported and importlib.util.find_spec("torch") is None:
        raise common.Failure(NOT_INSTALLED)
    try:
        random = describe(model).random_weights if exported else has_random_weights(resolve_model(model))
    except ModelUnavailable as error:
        raise common.Failure(common.printable(str(error))) from error
    if random and not allow_random_weights:
        raise common.Failure(
            f"{common.printable(model)} has random weights: nobody trained it, and its geometry means nothing; "
            "--allow-random-weights tries it nevertheless"
        )
    return GeometryChoice(GeometryOptions(model, device=device, allow_random_weights=allow_random_weights), random)


def make_predictor(options: GeometryOptions) -> ProcessPredictor:
    """In a process of its own, which may die without taking the command along."""
    return ProcessPredictor(options)


@contextmanager
def loaded(choice: GeometryChoice | None) -> Iterator[RgbGeometry | None]:
    """Within, the predictor is loaded; None without one. Failure when it cannot be."""
    if choice is None:
        yield None
        return
    predictor = make_predictor(choice.options)
    try:
        predictor.start()
        models.wait_with_progress(predictor, "loading the geometry from color")
        yield RgbGeometry(predictor, RgbGeometryConfig.for_recordings())
    finally:
        predictor.close()


def report(session: Session) -> dict[str, Any] | None:
    """What came of the images, as JSON-serialisable values; None without geometry from color."""
    if session.geometry is None:
        return None
    status = session.geometry.status()
    known = status.scale.known
    return {
        "predictor": session.geometry.predictor.name,
        "windows": status.windows,
        "dropped_windows": status.dropped_windows,
        "submaps": status.submap + 1 - status.relocated,
        "scale_source": status.scale.source.name,
        "scale_stddev": status.scale.stddev if known else None,
        "scale_residual": status.scale.residual if known else None,
        "no_metres_because": status.scale.reason,
        "depth_ratio": None if status.disagreement is None else status.disagreement[0],
        "world_frame": session.memory.world_frame,
    }


def words(session: Session, choice: GeometryChoice | None) -> str:
    """The same in a line for people; '' without geometry from color."""
    if session.geometry is None:
        return ""
    status = session.geometry.status()
    parts = [f"{status.windows} windows", scale_words(status.scale)]
    dropped = sum(status.dropped_windows.values())
    if dropped:
        reason = max(status.dropped_windows, key=lambda r: status.dropped_windows[r])
        parts.insert(1, f"{dropped} dropped (most often: {reason})")
    noise = f". {NOISE}" if choice is not None and choice.random_weights else ""
    return f"{session.geometry.predictor.name}: {', '.join(parts)}{noise}"
