"""The models: VGGT, Spatial-MLLM and plain video-language models, their checkpoints.

Importing this package loads neither torch nor transformers; what is named here does so when it is first used.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

# torchao, where it is installed for int4, tells of kernels for other devices that it cannot load here.
logging.getLogger("torchao").setLevel(logging.ERROR)
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)

_HOMES = {
    "SpatialMLLMConfig": "mllm.config",
    "SpatialMLLMForConditionalGeneration": "mllm.spatial_mllm",
    "VGGT": "vggt.vggt",
    "VGGTConfig": "vggt.config",
    "LoadedModel": "mllm.loading",
    "load_model": "mllm.loading",
    "make_checkpoint": "mllm.random_weights",
    "estimate_memory": "weights.preflight",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
