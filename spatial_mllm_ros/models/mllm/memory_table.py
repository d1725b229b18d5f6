"""The table of docs/models.md: memory that published checkpoints need, by ``preflight`` on their sizes, without weights.

``python -m spatial_mllm_ros.models.mllm.memory_table docs/models.md`` writes it.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, InternVLConfig, Qwen2_5_VLConfig, Qwen3VLConfig

from spatial_mllm_ros.models.mllm.config import SpatialMLLMConfig
from spatial_mllm_ros.models.mllm.spatial_mllm import SpatialMLLMForConditionalGeneration
from spatial_mllm_ros.models.weights.checkpoint import Checkpoint, TensorInfo
from spatial_mllm_ros.models.weights.preflight import MemoryEstimate, estimate_memory, exported_bytes, weight_bytes
from spatial_mllm_ros.serving.interface import PRECISIONS, ModelOptions

OPTIONS = ModelOptions("", max_context_frames=16)
COLUMNS = tuple(precision for precision in PRECISIONS if precision != "auto")
_BETWEEN = re.compile(r"(<!-- memory table: .*? -->\n).*?(<!-- end of memory table -->)", re.DOTALL)


def _qwen2_5(hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
    }


def _qwen2_5_vl(kind: Callable[..., Any], tied: bool, *text: int) -> Any:
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": text[0]}
    words = {**_qwen2_5(*text), "tie_word_embeddings": tied}
    return kind(text_config=words, vision_config=vision, tie_word_embeddings=tied)


def _qwen3_vl(tied: bool, depth: int, width: int, inner: int, *text: int) -> Any:
    vision = {"depth": depth, "hidden_size": width, "intermediate_size": inner, "out_hidden_size": text[0]}
    words = {**_qwen2_5(*text), "head_dim": 128, "tie_word_embeddings": tied}
    return Qwen3VLConfig(text_config=words, vision_config=vision, tie_word_embeddings=tied)


def _internvl3(*text: int) -> Any:
    vision = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "image_size": [448, 448],
        "patch_size": [14, 14],
        "attention_bias": True,
        "use_qk_norm": False,
        "norm_type": "layer_norm",
    }
    words = {"model_type": "qwen2", **_qwen2_5(*text), "tie_word_embeddings": False}
    return InternVLConfig(text_config=words, vision_config=vision, image_seq_length=256, tie_word_embeddings=False)


MODELS: dict[str, Callable[[], Any]] = {
    "Spatial-MLLM v1.1": lambda: _qwen2_5_vl(SpatialMLLMConfig, True, 2048, 36, 16, 2, 11008, 151936),
    "Qwen2.5-VL-3B": lambda: _qwen2_5_vl(Qwen2_5_VLConfig, True, 2048, 36, 16, 2, 11008, 151936),
    "Qwen2.5-VL-7B": lambda: _qwen2_5_vl(Qwen2_5_VLConfig, False, 3584, 28, 28, 4, 18944, 152064),
    "Qwen3-VL-2B": lambda: _qwen3_vl(True, 24, 1024, 4096, 2048, 28, 16, 8, 6144, 151936),
    "Qwen3-VL-4B": lambda: _qwen3_vl(True, 24, 1024, 4096, 2560, 36, 32, 8, 9728, 151936),
    "Qwen3-VL-8B": lambda: _qwen3_vl(False, 27, 1152, 4304, 4096, 36, 32, 8, 12288, 151936),
    "InternVL3-1B": lambda: _internvl3(896, 24, 14, 2, 4864, 151674),
    "InternVL3-2B": lambda: _internvl3(1536, 28, 12, 2, 8960, 151674),
    "InternVL3-8B": lambda: _internvl3(3584, 28, 28, 4, 18944, 151674),
}
"""Configurations as published, by name."""


@functools.cache
def without_weights(name: str) -> tuple[Checkpoint, Any]:
    """A checkpoint of MODELS that has names and shapes alone, and its configuration."""
    config = MODELS[name]()
    with torch.device("meta"):
        if isinstance(config, SpatialMLLMConfig):
            model: Any = SpatialMLLMForConditionalGeneration(config)
        else:
            model = AutoModelForImageTextToText.from_config(config)
    tensors = {n: TensorInfo(Path(), "BF16", tuple(p.shape), 0, 2 * p.numel()) for n, p in model.named_parameters()}
    return Checkpoint(Path(), {}, tensors), config


def estimate(name: str, precision: str, options: ModelOptions = OPTIONS, exported: str = "") -> MemoryEstimate:
    """What a checkpoint of MODELS needs. exported: precision of a spatial encoder in the place of its own; "": none."""
    found, config = without_weights(name)
    size = exported_bytes(found, exported) if exported else 0
    return estimate_memory(found, config, options, precision=precision, device=torch.device("cpu"), exported=size)


def row(name: str) -> str:
    """A line of the table."""
    parameters = weight_bytes(without_weights(name)[0], "float32") / 4e9
    each = [estimate(name, precision) for precision in COLUMNS]
    cells = [f"{memory.needed / 1e9:.1f} ({memory.weights / 1e9:.1f})" for memory in each]
    return f"| {name} | {parameters:.2f} | {' | '.join(cells)} |"


def table() -> str:
    """The table, in Markdown."""
    head = f"| Checkpoint | parameters kept, 10⁹ | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}\n"
    return head + "".join(f"{row(name)}\n" for name in MODELS)


def write_into(page: str) -> str:
    """The page with the table where its marks are."""
    return _BETWEEN.sub(lambda match: f"{match[1]}{table()}{match[2]}", page)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(write_into(path.read_text(encoding="utf-8")), encoding="utf-8")
