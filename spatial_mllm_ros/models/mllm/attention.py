"""Which implementation of attention a model computes with, and whether it computes the same."""

from __future__ import annotations

import logging
import math
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from spatial_mllm_ros.serving.interface import ATTENTIONS, ModelUnavailable

log = logging.getLogger(__name__)

TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}
"""Largest relative difference to eager attention. In bfloat16 rounding alone makes 0.01 to 0.03 through dozens of layers;
a mask or a scale that is wrong makes 0.3 and more."""

_OF_TRANSFORMERS = {"eager": "eager", "sdpa": "sdpa", "flash": "flash_attention_2"}
_PROBE_TOKENS = 16


def set_attention(model: Any, implementation: str) -> None:
    """Choose the implementation for all parts of a model: "eager", "sdpa" or "flash" (or as transformers names it).

    Raises ModelUnavailable where it is not installed, ValueError where it is not known.
    """
    own = {theirs: ours for ours, theirs in _OF_TRANSFORMERS.items()}.get(implementation, implementation)
    if own not in _OF_TRANSFORMERS:
        raise ValueError(f"attention {implementation!r} is not known: it is one of {', '.join(_OF_TRANSFORMERS)}")
    if own == "flash" and not flash_is_installed():
        raise ModelUnavailable('attention "flash" needs the package flash_attn, which is not installed: choose sdpa')
    model.set_attn_implementation(_OF_TRANSFORMERS[own])
    spatial = getattr(model, "spatial_encoder", None)
    if spatial is not None:
        spatial.vggt_model.attention = own


def flash_is_installed() -> bool:
    """Whether there is a flash_attn to import."""
    return find_spec("flash_attn") is not None


def choose_attention(model: Any, attention: str) -> str:
    """Set the implementation asked for, once it was seen to agree with eager attention; returns which it is.

    "auto" takes flash where it is installed and the model is on a CUDA device, else sdpa; where these do not agree, eager,
    with a warning. Raises ModelUnavailable, with the figure, where another does not agree or cannot run.
    """
    if attention not in ATTENTIONS:
        raise ModelUnavailable(f"attention {attention!r} is not known: it is one of {', '.join(ATTENTIONS)}")
    if attention == "eager":
        set_attention(model, "eager")
        return "eager"
    if attention != "auto":
        require_parity(model, attention)
        return attention
    flash = flash_is_installed() and model.device.type == "cuda" and model.dtype != torch.float32
    for candidate in ("flash", "sdpa") if flash else ("sdpa",):
        try:
            require_parity(model, candidate)
        except ModelUnavailable as error:
            log.warning("%s", error)
        else:
            return candidate
    log.warning("the model computes with eager attention, which is slow and takes much memory for many frames")
    set_attention(model, "eager")
    return "eager"


def require_parity(model: Any, implementation: str) -> None:
    """Set an implementation. Raises ModelUnavailable, with eager attention set, where it fails or differs from that."""
    try:
        difference = check_attention(model, implementation)
    except (ValueError, RuntimeError, ImportError) as error:
        set_attention(model, "eager")
        raise ModelUnavailable(
            f'attention "{implementation}" does not run here ({error}): choose auto or eager'
        ) from error
    tolerance = TOLERANCES[model.dtype]
    if not difference <= tolerance:  # not a number is no parity either
        set_attention(model, "eager")
        raise ModelUnavailable(
            f'attention "{implementation}" differs from eager attention by {difference:.2g} of the result on this machine '
            f"({model.dtype} allows {tolerance:.2g}): choose auto or eager"
        )


@torch.inference_mode()
def check_attention(model: Any, implementation: str) -> float:
    """Relative difference to eager attention on a fixed small input, the largest over the parts of a model.

    It is the norm of the difference over the norm of the result. Leaves the implementation set.
    """
    set_attention(model, "eager")
    expected = _probe(model)
    set_attention(model, implementation)
    differences = [
        float((a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-20))
        for a, b in zip(_probe(model), expected, strict=True)
    ]
    return math.nan if any(math.isnan(d) for d in differences) else max(differences)


def _probe(model: Any) -> list[Tensor]:
    """What the language model, the 2D encoder and VGGT make of a small input that is always the same."""
    place = {"device": model.device, "dtype": model.dtype}
    core = model.model
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.arange(_PROBE_TOKENS, device=model.device)[None] * 31 % vocabulary
    embeds = model.get_input_embeddings()(ids)
    results = [core.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state]
    vision = model.config.vision_config
    if hasattr(core, "visual"):
        side, channels = 2 * vision.spatial_merge_size, 3 * vision.temporal_patch_size * vision.patch_size**2
        grid = torch.tensor([[1, side, side]], device=model.device)
        results.append(core.visual(_waves(side * side, channels).to(**place), grid_thw=grid).pooler_output)
    else:
        size = vision.image_size
        height, width = (size, size) if isinstance(size, int) else size
        frame = _waves(3 * height, width).reshape(1, 3, height, width)
        results.append(core.get_image_features(frame.to(**place)).pooler_output)
    if hasattr(model, "spatial_encoder"):
        patch = model.spatial_encoder.aggregator.patch_size
        frames = _waves(2 * 3 * 2 * patch, 3 * patch).reshape(2, 3, 2 * patch, 3 * patch)
        results.append(model.encode_3d(frames / 4 + 0.5))
    return results


def _waves(rows: int, columns: int) -> Tensor:
    """Numbers in [-2, 2] that look like noise, the same everywhere and whatever the random state."""
    index = torch.arange(rows * columns, dtype=torch.float64).reshape(rows, columns)
    return (2 * torch.sin(index * index * 0.37 + index)).float()
