"""Plain video-language models beside Spatial-MLLM: Qwen2.5-VL, Qwen3-VL and InternVL, as transformers loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging

from spatial_mllm_ros.models.weights import precision as precisions
from spatial_mllm_ros.models.weights.checkpoint import LISTED, CheckpointError


def load_plain(folder: Path, *, precision: str, device: torch.device) -> Any:
    """Load a checkpoint in the layout of transformers ("-hf"), strictly.

    Raises CheckpointError that lists tensors that are missing, left over or of another shape.
    """
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, said = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=precisions.base_dtype(precision), local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded: {error}") from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    faults = [
        f"{len(names)} {what}: {', '.join(sorted(map(str, names))[:LISTED])}"
        for what, names in (
            ("missing", said.get("missing_keys")),
            ("left over", said.get("unexpected_keys")),
            ("of another shape", said.get("mismatched_keys")),
        )
        if names
    ]
    if faults:
        raise CheckpointError(f"the tensors of {folder} are not those of its configuration; {'; '.join(faults)}")
    if precision in precisions.QUANTISED:
        precisions.quantise(model, precision, device)
    return model.to(device).eval()
