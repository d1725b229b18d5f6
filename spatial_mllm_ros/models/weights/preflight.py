"""How much memory a model needs, before it is loaded: from the headers of its files, its configuration and the options."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spatial_mllm_ros.models.weights.checkpoint import Checkpoint, module_name
from spatial_mllm_ros.models.weights.main_memory import CGROUP, GIB, free_main_memory
from spatial_mllm_ros.models.weights.precision import INT4_GROUPS, base_dtype
from spatial_mllm_ros.serving.interface import ModelOptions
from spatial_mllm_ros.serving.onnx_file import ExportError, describe

MIB = 1 << 20

_QUANTISED = re.compile(r"(.*\.)?language_model\.(model\.)?layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight")
_HEADS = re.compile(r"spatial_encoder\.vggt_model\.(camera|depth|point|track)_head\.")
_AGGREGATOR = "spatial_encoder.vggt_model.aggregator."
_EXPORTED_LINEAR = re.compile(r".*blocks\.\d+\.(attn|mlp)\.\w+\.weight")
EXPORTED_GROUP = 128
"""Weights that share a scale in an encoder that was exported in int8."""
_TEXT_TOKENS = 512
"""For the question and the template, beside the frames and the answer."""
_PREFIX_PIECE = 512
_WORKSPACE = 256 * MIB
"""Of libraries and allocators, whatever the model."""
_CGROUP = CGROUP


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a model needs on its device, and those that are free there.

    weights: kept while it is loaded. key_value_cache: of one full context of ``context_tokens`` tokens. feature_caches:
    what else the bound of the caches allows. activations: at the worst moment of encoding such a context. free: before
    loading. device: "cpu" or "cuda:N". exported: weights of an exported encoder, kept instead of the model's own.
    loading: all weights while both encoders are compared; 0 without an exported one.
    """

    weights: int
    key_value_cache: int
    feature_caches: int
    activations: int
    free: int
    device: str
    precision: str
    context_tokens: int
    exported: int = 0
    loading: int = 0

    @property
    def answering(self) -> int:
        """All that is there while it answers."""
        return self.weights + self.exported + self.key_value_cache + self.feature_caches + self.activations

    @property
    def needed(self) -> int:
        """The most at any time."""
        return max(self.answering, self.loading)

    @property
    def fits(self) -> bool:
        """Whether it is free."""
        return self.needed <= self.free

    def rows(self) -> list[tuple[str, int]]:
        """What and how much, for a table."""
        encoders = [("the exported encoder", self.exported)] if self.exported else []
        if self.loading > self.answering:
            encoders.append(("while both encoders are compared", self.loading))
        return [
            (f"weights ({self.precision})", self.weights),
            *encoders,
            (f"keys and values of {self.context_tokens} tokens", self.key_value_cache),
            ("other caches", self.feature_caches),
            ("activations", self.activations),
            ("needed", self.needed),
            (f"free on {self.device}", self.free),
        ]

    def problem(self) -> str:
        """Why it does not fit and what to do; "" where it does."""
        if self.fits:
            return ""
        listed = ", ".join(f"{what} {size / GIB:.1f}" for what, size in self.rows())
        smaller = {"float32": "bfloat16", "bfloat16": "int8", "int8": "int4"}.get(self.precision)
        advice = [f"precision {smaller}"] if smaller else []
        if self.loading > max(self.answering, self.free):
            advice += ["encoder runtime torch"]
        advice += ["fewer max_context_frames", "a smaller cache_mib or max_pixels", "another device"]
        return f"there is not enough memory on {self.device} (GiB: {listed}): choose {', '.join(advice)}"


def estimate_memory(
    found: Checkpoint,
    config: Any,
    options: ModelOptions,
    *,
    precision: str,
    device: torch.device,
    eager: bool = False,
    exported: int | None = None,
) -> MemoryEstimate:
    """What a checkpoint needs with these options.

    config: its configuration, as transformers reads it. precision: not "auto". eager: whether attention is, which takes
    memory quadratic in the number of tokens. exported: weights of an exported encoder, bytes; None: those of the file in
    the options. The activations are counted, not measured: the widest layers of every part, for a full context.
    Raises ExportError where the exported file cannot be read: now, rather than after all weights are.
    """
    both = weights = weight_bytes(found, precision)
    replaced = encoder_bytes(found, precision)
    if exported is None:
        exported = _exported(options, device)
    exported = exported if replaced else 0
    if exported and (options.encoder_runtime != "auto" or exported > replaced):  # with auto, either may be kept
        weights -= replaced
    itemsize = base_dtype(precision).itemsize
    text, vision = config.get_text_config(), config.vision_config
    tokens, per_step, patches = _tokens(config, options)
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * itemsize
    key_value_cache = per_token * tokens
    piece = min(_PREFIX_PIECE, tokens)
    language = piece * (3 * text.intermediate_size + 8 * text.hidden_size) * itemsize + 4 * text.vocab_size
    seen = tokens * text.hidden_size * itemsize * 4  # visual tokens, embeddings and the cosines of their positions
    tower = _width(vision) * 14 * per_step * itemsize
    spatial = 0
    if hasattr(config, "spatial_config"):
        width = int((config.spatial_config or {})["embed_dim"])
        frames = options.max_context_frames
        together = frames * (patches + 5)
        # In torch queries, keys, values and their rotation, or the block's hidden layer; input, output, the frame
        # attention's half.
        # Measured on a CPU: 15 times the tokens in float32, 18 in bfloat16.
        # ONNX Runtime computes in float32 whatever the weights are: measured 28 times in float32, 32 in int8.
        spatial = together * width * (32 * 4 if exported else 20 * itemsize)
        if eager:
            spatial += 2 * together**2 * int((config.spatial_config or {}).get("num_heads", 16)) * 4
    if eager:
        language += 2 * piece * tokens * text.num_attention_heads * 4
        tower += 2 * per_step**2 * getattr(vision, "num_heads", 16) * 4
    rest = max(0, options.cache_mib * MIB - key_value_cache)
    return MemoryEstimate(
        weights=weights,
        key_value_cache=key_value_cache,
        feature_caches=rest,
        activations=_WORKSPACE + seen + max(language, tower, spatial),
        free=free_memory(device),
        device=str(device),
        precision=precision,
        context_tokens=tokens,
        exported=exported if weights < both else 0,
        loading=both + exported + _WORKSPACE if exported else 0,
    )


def weight_bytes(found: Checkpoint, precision: str) -> int:
    """Bytes of the weights that are kept: without VGGT's heads."""
    itemsize = base_dtype(precision).itemsize
    total = 0
    for published, info in found.tensors.items():
        name = module_name(published, found.layout)
        count = math.prod(info.shape)
        if _HEADS.match(name):
            continue
        if precision in ("int8", "int4") and _QUANTISED.fullmatch(name) and len(info.shape) == 2:
            rows = info.shape[0]
            # a scale a row, or a scale and a zero point a group
            total += count + 2 * rows if precision == "int8" else count // 2 + count // INT4_GROUPS[0] * 4
        else:
            total += count * itemsize
    return total


def encoder_bytes(found: Checkpoint, precision: str) -> int:
    """Bytes of the spatial encoder among the weights that are kept."""
    return sum(math.prod(shape) for shape in _encoder(found).values()) * base_dtype(precision).itemsize


def exported_bytes(found: Checkpoint, precision: str) -> int:
    """Bytes of the weights of the spatial encoder once it is exported: float32, float16 or int8."""
    total = 0
    for name, shape in _encoder(found).items():
        linear = _EXPORTED_LINEAR.fullmatch(name) and len(shape) == 2
        each = {"float32": 4.0, "float16": 2.0, "int8": 1 + 4 / EXPORTED_GROUP}[precision] if linear else 4.0
        total += int(math.prod(shape) * each)
    return total


def _encoder(found: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Shapes of the spatial encoder; empty without one."""
    return {name: shape for name, shape in found.shapes().items() if name.startswith(_AGGREGATOR)}


def _exported(options: ModelOptions, device: torch.device) -> int:
    """Bytes that the exported encoder of the options takes on a device; 0 where there is none.

    Raises ExportError where it cannot be read, unless torch is to take its place then.
    """
    on_cpu = device.type == "cpu"
    if options.encoder_runtime == "torch" or not options.encoder_file:
        return 0
    if not on_cpu and options.encoder_providers == "cpu":
        return 0
    try:
        file = describe(Path(options.encoder_file).expanduser())
    except ExportError:
        if options.encoder_runtime == "auto":  # which is told where it is loaded
            return 0
        raise
    return file.data_bytes * (2 if on_cpu and file.precision == "float16" else 1)  # which a CPU widens


def _width(vision: Any) -> int:
    return max(int(vision.hidden_size), int(getattr(vision, "intermediate_size", 0)) // 2)


def _tokens(config: Any, options: ModelOptions) -> tuple[int, int, int]:
    """Tokens of a full context; patches that the 2D encoder looks at together; patches of a frame."""
    vision = config.vision_config
    others = _TEXT_TOKENS + options.max_new_tokens
    frames = options.max_context_frames
    if not hasattr(vision, "spatial_merge_size"):  # InternVL: frames one by one, of one size
        size = vision.image_size
        height, width = (size, size) if isinstance(size, int) else size
        side = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
        patches = height * width // side**2
        return frames * int(config.image_seq_length) + others, patches, patches
    patches = options.max_pixels // vision.patch_size**2
    pairs = math.ceil(frames / vision.temporal_patch_size)
    return pairs * patches // vision.spatial_merge_size**2 + others, patches, patches


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device. On the CPU within the limit of the container, if there is one."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_main_memory(_CGROUP)
