"""Any model by its name: which kind it is, whether it fits, its weights, its tokenizer and how it is prompted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from spatial_mllm_ros.models.mllm.attention import choose_attention
from spatial_mllm_ros.models.mllm.config import V1_0_ARCHITECTURE, SpatialMLLMConfig
from spatial_mllm_ros.models.mllm.plain import load_plain
from spatial_mllm_ros.models.mllm.prompts import PLAIN, TAGGED, Prompts
from spatial_mllm_ros.models.mllm.spatial_mllm import SpatialMLLMForConditionalGeneration, config_of
from spatial_mllm_ros.models.vggt.processing import FAMILIES, FrameFormat, frame_format
from spatial_mllm_ros.models.weights import precision as precisions
from spatial_mllm_ros.models.weights.checkpoint import LAYOUTS, Checkpoint, CheckpointError, read_checkpoint
from spatial_mllm_ros.models.weights.preflight import MemoryEstimate, estimate_memory
from spatial_mllm_ros.serving.interface import ModelOptions, ModelUnavailable

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is), in bytes."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to encode frames and to write.

    model: of transformers or of this package. tokenizer: of transformers. family: one of ``processing.FAMILIES``.
    format: how it takes frames. prompts: how it is asked. model_id: the checkpoint, its precision and its device, for
    people. precision, attention: what was chosen. memory: what was estimated before loading. random_weights: nobody
    trained it.
    """

    model: Any
    tokenizer: Any
    family: str
    format: FrameFormat
    prompts: Prompts
    folder: Path
    model_id: str
    precision: str
    attention: str
    memory: MemoryEstimate
    random_weights: bool = False


def load_model(options: ModelOptions, progress: OnProgress = lambda *_: None) -> LoadedModel:
    """Load the model that ``options`` name: Spatial-MLLM v1.1 or v1.0, Qwen2.5-VL, Qwen3-VL or InternVL.

    Raises ModelUnavailable with the reason and what to do: no such checkpoint, names that do not match, a tokenizer
    that is missing, not enough memory, a precision or an attention that does not work here.
    """
    device = precisions.choose_device(options.device)
    precision = precisions.choose_precision(options.precision, device)
    progress("reading the checkpoint", 0, 0)
    found = read_checkpoint(options.model)
    family = family_of(found)
    config = config_of(found) if family == "spatial-mllm" else _plain_config(found)
    tokenizer = _tokenizer(found.folder)
    is_v1_0 = family == "spatial-mllm" and V1_0_ARCHITECTURE in (config.architectures or ())
    prompts = Prompts(tokenizer, family, TAGGED if is_v1_0 else PLAIN)
    how = frame_format(family, options, found.folder)
    memory = estimate_memory(
        found, config, options, precision=precision, device=device, eager=options.attention == "eager"
    )
    if problem := memory.problem():
        raise ModelUnavailable(problem)
    try:
        model = _load(found, family, config, precision, device, progress)
        progress("checking attention", 0, 0)
        attention = choose_attention(model, options.attention)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise ModelUnavailable(
            f"there was not enough memory on {device} after all ({error}): choose a smaller precision"
        ) from error
    random = bool(found.config.get("random_weights"))
    name = (
        Path(options.model).expanduser().resolve().name
        if Path(options.model).exists()
        else options.model.split("/")[-1]
    )
    model_id = f"{name} {precision} {device.type}" + (" (random weights)" if random else "")
    if random:
        log.warning("%s was never trained: what it answers means nothing", name)
    return LoadedModel(
        model, tokenizer, family, how, prompts, found.folder, model_id, precision, attention, memory, random
    )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; on the CPU torch has no class of its own for that."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def family_of(found: Checkpoint) -> str:
    """One of ``processing.FAMILIES``. Raises CheckpointError for a model that is none of them."""
    kind = str(found.config.get("model_type"))
    if found.layout == LAYOUTS[1] or V1_0_ARCHITECTURE in (found.config.get("architectures") or ()):
        return "spatial-mllm"
    if kind in FAMILIES:
        return kind
    hint = '; of InternVL the checkpoints whose names end in "-hf" are needed' if "intern" in kind else ""
    raise CheckpointError(
        f"{found.folder} holds a model of type {kind!r}, which is none of {', '.join(FAMILIES)}{hint}"
    )


def _plain_config(found: Checkpoint) -> Any:
    try:
        return AutoConfig.from_pretrained(found.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the configuration in {found.folder} is not that of a model: {error}") from error


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} has no tokenizer that can be read ({error}): download the checkpoint completely, or copy the "
            "tokenizer's files of its base model into the folder"
        ) from error


def _load(
    found: Checkpoint, family: str, config: Any, precision: str, device: torch.device, progress: OnProgress
) -> Any:
    if family != "spatial-mllm":
        progress("loading weights", 0, found.n_bytes)
        model = load_plain(found.folder, precision=precision, device=device)
        progress("loading weights", found.n_bytes, found.n_bytes)
        return model
    assert isinstance(config, SpatialMLLMConfig)
    model = SpatialMLLMForConditionalGeneration.from_pretrained(
        found.folder,
        config=config,
        dtype=precisions.base_dtype(precision),
        device_map=device,
        after=precisions.quantise_as_loaded(precision),
        progress=lambda done, total: progress("loading weights", done, total),
    )
    if precision in precisions.QUANTISED:
        model.quantized = precision
    return model
