"""The gate before an exported encoder: it must say what the torch encoder says, on a fixed input."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from spatial_mllm_ros.models.onnx.onnx_encoder import OnnxEncoder
from spatial_mllm_ros.models.onnx.parity import Parity, difference
from spatial_mllm_ros.models.onnx.sessions import OnProgress, Profile
from spatial_mllm_ros.models.vggt.spatial_encoder import SpatialEncoder, TorchEncoder, fixed_frames
from spatial_mllm_ros.serving.interface import ENCODER_RUNTIMES, ModelOptions
from spatial_mllm_ros.serving.onnx_file import ExportError

log = logging.getLogger(__name__)
TOLERANCE = {"float32": 1e-3, "float16": 0.01, "bfloat16": 0.05, "int8": 0.05}
"""Largest relative error by precision; that of the coarser of both encoders counts."""


def compare(encoder: SpatialEncoder, reference: SpatialEncoder, frames: int = 2, tolerance: float = math.nan) -> Parity:
    """Both on the same fixed frames. tolerance: NaN takes that of the coarser precision, from the names of both.

    Raises ExportError for encoders of other sizes.
    """
    for what in ("patch_size", "embed_dim"):
        theirs, ours = getattr(encoder, what), getattr(reference, what)
        if theirs != ours:
            raise ExportError(
                f"the exported encoder is of another model: its {what} is {theirs}, the model's {ours}; export the encoder "
                "of this model with `spatial-mllm export encoder`"
            )
    if math.isnan(tolerance):
        tolerance = max(TOLERANCE.get(each.name.split()[-1], 0.05) for each in (encoder, reference))
    images = fixed_frames(frames, reference.patch_size)
    with torch.inference_mode():
        there, expected = (each.encode(images).float().cpu() for each in (encoder, reference))
    if there.shape != expected.shape:
        raise ExportError(
            f"the exported encoder returns {list(there.shape)} where the model returns {list(expected.shape)}: export "
            "the encoder of this model with `spatial-mllm export encoder`"
        )
    return difference(there.numpy(), expected.numpy(), tolerance, tokens=True)


def choose_encoder(
    reference: TorchEncoder,
    runtime: str,
    path: str | os.PathLike[str] = "",
    *,
    providers: str | Sequence[str] = "auto",
    cache: str | os.PathLike[str] | None = None,
    profile: Profile | None = None,
    tolerance: float = math.nan,
    progress: OnProgress = lambda what, done, total: None,
) -> SpatialEncoder:
    """The encoder to use: ``reference``, or an exported one that passes the gate; the log says which, and why.

    runtime: one of ENCODER_RUNTIMES; with "auto" and no path it is torch without a word. Raises ExportError with "onnx" where
    the exported one does not load, or differs by more than ``tolerance``; the message says by how much.
    """
    if runtime not in ENCODER_RUNTIMES:
        raise ExportError(f"encoder runtime {runtime!r} is not known: it is one of {', '.join(ENCODER_RUNTIMES)}")
    if runtime == "torch" or (runtime == "auto" and not os.fspath(path)):
        return reference
    try:
        if not os.fspath(path):
            raise ExportError('encoder runtime "onnx" needs the exported file: run `spatial-mllm export encoder`')
        encoder = OnnxEncoder.load(path, providers=providers, cache=cache, profile=profile, progress=progress)
        parity = compare(encoder, reference, tolerance=tolerance)
        if not parity.passed:
            raise ExportError(
                f"{path} ({encoder.name}) differs too much from {reference.name}: {parity}; export the encoder of this model "
                "with `spatial-mllm export encoder`, or use another provider"
            )
    except ExportError as error:
        if runtime == "onnx":
            raise
        log.warning("the spatial encoder runs on %s instead of the exported one: %s", reference.name, error)
        return reference
    log.info("%s passed the gate: %s", encoder.name, parity)
    return encoder


def exported_encoder(model: Any, options: ModelOptions, progress: OnProgress) -> SpatialEncoder | None:
    """The exported encoder that ``options`` name for a loaded Spatial-MLLM, whose own is then taken out of memory; None
    where the model's own is to be used. As ``choose_encoder``; raises ExportError for a model without a spatial branch.
    """
    own = getattr(model, "spatial_encoder", None)
    if own is None:
        if options.encoder_runtime == "auto":
            return None
        raise ExportError(f"{options.model} has no spatial encoder: choose encoder runtime torch")
    reference = TorchEncoder(own.aggregator, model.config.spatial_layer)
    chosen = choose_encoder(
        reference,
        options.encoder_runtime,
        options.encoder_file,
        providers=options.encoder_providers,
        cache=options.encoder_engine_folder or None,
        progress=progress,
    )
    if chosen is reference:
        return None
    own.vggt_model.aggregator = nn.Identity()
    return chosen
