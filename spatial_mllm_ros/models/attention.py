"""Which implementation of attention a model computes with."""

from __future__ import annotations

from importlib.util import find_spec

from torch import nn

from spatial_mllm_ros.models.interface import ModelUnavailable

_OF_TRANSFORMERS = {"eager": "eager", "sdpa": "sdpa", "flash": "flash_attention_2"}


def set_attention(model: nn.Module, implementation: str) -> None:
    """Choose the implementation for all parts of a model: "eager", "sdpa" or "flash" (or as transformers names it).

    Raises ModelUnavailable where it is not installed, ValueError where it is not known.
    """
    own = {theirs: ours for ours, theirs in _OF_TRANSFORMERS.items()}.get(implementation, implementation)
    if own not in _OF_TRANSFORMERS:
        raise ValueError(f"attention {implementation!r} is not known: it is one of {', '.join(_OF_TRANSFORMERS)}")
    if own == "flash" and find_spec("flash_attn") is None:
        raise ModelUnavailable('attention "flash" needs the package flash_attn, which is not installed: choose sdpa')
    model.set_attn_implementation(_OF_TRANSFORMERS[own])
    spatial = getattr(model, "spatial_encoder", None)
    if spatial is not None:
        spatial.vggt_model.attention = own
