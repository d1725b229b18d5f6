"""Models that nobody trained: complete checkpoints of any size with random weights, for tests and for measuring.

They take as long and as much memory as trained ones of their sizes, and say nothing that means anything; ``random_weights``
in their ``config.json`` says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, PreTrainedTokenizerFast

from spatial_mllm_ros.models.mllm.config import V1_0_ARCHITECTURE, SpatialMLLMConfig
from spatial_mllm_ros.models.mllm.spatial_mllm import SpatialMLLMForConditionalGeneration
from spatial_mllm_ros.models.weights import checkpoint as files

FAMILIES = ("spatial-mllm", "qwen2_5_vl", "qwen3_vl", "internvl")
_POOL = 1 << 22
"""Random numbers that are drawn; larger tensors repeat them, so that billions of weights take seconds, not minutes."""


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a model.

    The language model: layers, hidden (width), attention_heads, kv_heads, intermediate; vocabulary, at least that of the
    tokenizer. The 2D encoder: vision_layers, vision_hidden, vision_heads; every vision_full-th of its layers attends to
    the whole frame. The spatial encoder: vggt_layers, vggt_dim, vggt_heads, dino_layers, dpt_features, dpt_channels.
    """

    layers: int = 2
    hidden: int = 64
    attention_heads: int = 4
    kv_heads: int = 2
    intermediate: int = 128
    vocabulary: int = 0
    vision_layers: int = 2
    vision_hidden: int = 32
    vision_intermediate: int = 64
    vision_heads: int = 2
    vision_full: int = 2
    vggt_layers: int = 2
    vggt_dim: int = 32
    vggt_heads: int = 2
    dino_layers: int = 2
    dpt_features: int = 16
    dpt_channels: tuple[int, int, int, int] = (8, 16, 24, 24)


SIZES = {
    "tiny": ModelSize(),
    "small": ModelSize(
        layers=12,
        hidden=768,
        attention_heads=12,
        kv_heads=2,
        intermediate=2048,
        vision_layers=8,
        vision_hidden=320,
        vision_intermediate=856,
        vision_heads=4,
        vision_full=4,
        vggt_layers=6,
        vggt_dim=256,
        vggt_heads=4,
        dino_layers=6,
        dpt_features=64,
        dpt_channels=(32, 64, 128, 128),
    ),
    "full": ModelSize(
        layers=36,
        hidden=2048,
        attention_heads=16,
        kv_heads=2,
        intermediate=11008,
        vocabulary=151_936,
        vision_layers=32,
        vision_hidden=1280,
        vision_intermediate=3420,
        vision_heads=16,
        vision_full=8,
        vggt_layers=24,
        vggt_dim=1024,
        vggt_heads=16,
        dino_layers=24,
        dpt_features=256,
        dpt_channels=(256, 512, 1024, 1024),
    ),
}
"""By name: the least that works, one large enough to measure on a CPU, and that of the published checkpoints."""


def make_checkpoint(
    folder: str | Path,
    size: str | ModelSize = "tiny",
    *,
    family: str = "spatial-mllm",
    version: str = "v1.1",
    dtype: torch.dtype = torch.float32,
    heads: Collection[str] = ("camera", "depth", "point"),
    max_shard_size: int | str = "5GB",
    seed: int = 0,
    **sizes: Any,
) -> Path:
    """Write a complete checkpoint with random weights: configuration, tokenizer, weights. Returns its folder.

    size: one of SIZES, or sizes; more keywords change single ones. family: one of FAMILIES; for Spatial-MLLM, version is
    "v1.1" or "v1.0", and heads are those of VGGT that the file holds. Existing files are overwritten.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(family)
    config = make_config(size, tokenizer, family=family, version=version, heads=heads, **sizes)
    model = build_random_model(config, dtype=dtype, seed=seed, heads=heads)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends[1], do_sample=False)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    _mark(folder / files.CONFIG_FILE)
    return folder


def _mark(path: Path) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, "random_weights": True}, indent=2) + "\n", encoding="utf-8")


def make_config(
    size: str | ModelSize = "tiny",
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    family: str = "spatial-mllm",
    version: str = "v1.1",
    heads: Collection[str] = ("camera", "depth", "point"),
    **sizes: Any,
) -> Any:
    """The configuration of a model of this size, for a tokenizer of ``make_tokenizer``. Raises ValueError for a family."""
    if family not in FAMILIES:
        raise ValueError(f"model family {family!r} is not known: it is one of {', '.join(FAMILIES)}")
    s = replace(SIZES[size] if isinstance(size, str) else size, **sizes)
    tokenizer = tokenizer or make_tokenizer(family)
    quarter = (
        s.hidden // s.attention_heads // 8
    )  # of the head's halves: time has a quarter, rows and columns share the rest
    rest = s.hidden // s.attention_heads // 2 - quarter
    sections = [quarter, rest - rest // 2, rest // 2]
    text: dict[str, Any] = {
        "vocab_size": max(s.vocabulary, -(-len(tokenizer) // 64) * 64),
        "hidden_size": s.hidden,
        "intermediate_size": s.intermediate,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.attention_heads,
        "num_key_value_heads": s.kv_heads,
        "max_position_embeddings": 128_000,
        "rms_norm_eps": 1e-6,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    }
    vision: dict[str, Any] = {
        "depth": s.vision_layers,
        "hidden_size": s.vision_hidden,
        "intermediate_size": s.vision_intermediate,
        "num_heads": s.vision_heads,
        "out_hidden_size": s.hidden,
        "patch_size": 16 if family == "qwen3_vl" else 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    places = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    common = {"tie_word_embeddings": True, "random_weights": True}
    rope = {"rope_type": "default", "mrope_section": sections, "rope_theta": 1_000_000.0}
    if family in ("spatial-mllm", "qwen2_5_vl"):
        full = list(range(s.vision_full - 1, s.vision_layers, s.vision_full))
        vision |= {"window_size": 112, "tokens_per_second": 2, "fullatt_block_indexes": full}
        text["rope_parameters"] = rope
        values = {"text_config": text, "vision_config": vision, **places, **common}
        if family == "qwen2_5_vl":
            return AutoConfig.for_model(family, **values)
        spatial = {
            "img_size": 518,
            "embed_dim": s.vggt_dim,
            "depth": s.vggt_layers,
            "num_heads": s.vggt_heads,
            "patch_embed_depth": s.dino_layers,
            "patch_embed_num_heads": s.vggt_heads,
            "camera_trunk_depth": min(4, s.vggt_layers),
            "camera_num_heads": s.vggt_heads,
            "dpt_features": s.dpt_features,
            "dpt_out_channels": list(s.dpt_channels),
            "dpt_layers": [max(0, round(s.vggt_layers * part) - 1) for part in (5 / 24, 12 / 24, 18 / 24, 1)],
            "track_head": "track" in heads,
            "heads": list(heads),
        }
        architecture = V1_0_ARCHITECTURE if version == "v1.0" else "SpatialMLLMForConditionalGeneration"
        return SpatialMLLMConfig(spatial_config=spatial, architectures=[architecture], **values)
    if family == "qwen3_vl":
        vision |= {"num_position_embeddings": 256, "deepstack_visual_indexes": [0]}
        text |= {"head_dim": s.hidden // s.attention_heads, "rope_parameters": {**rope, "mrope_interleaved": True}}
        return AutoConfig.for_model(family, text_config=text, vision_config=vision, **places, **common)
    side = 56
    vision = {
        "image_size": [side, side],
        "patch_size": [14, 14],
        "hidden_size": s.vision_hidden,
        "intermediate_size": s.vision_intermediate,
        "num_hidden_layers": s.vision_layers,
        "num_attention_heads": s.vision_heads,
    }
    return AutoConfig.for_model(
        family,
        text_config={"model_type": "qwen2", **text, "tie_word_embeddings": True},
        vision_config=vision,
        image_seq_length=(side // 14 // 2) ** 2,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        **common,
    )


def build_random_model(
    config: Any,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    *,
    heads: Collection[str] = (),
    seed: int = 0,
) -> Any:
    """A model with random weights, made where it is to live: no more memory is needed than it takes.

    config: as of ``make_config``, or of any checkpoint. heads: of VGGT, which to make.
    """
    device = torch.device(device)
    is_spatial = isinstance(config, SpatialMLLMConfig)
    with torch.device("meta"):
        if is_spatial:
            model = SpatialMLLMForConditionalGeneration(config)
            model.spatial_encoder.keep_heads(heads)
            kept = [head for head in config.heads if head in heads]
            model.config.spatial_config = {**(config.spatial_config or {}), "heads": kept}
        else:
            model = AutoModelForImageTextToText.from_config(config)
    fill_random(model, dtype, device, seed)
    files.fill_buffers(model, device)
    model.tie_weights()
    model.config.dtype = dtype
    return model.eval()


def fill_random(model: nn.Module, dtype: torch.dtype, device: torch.device, seed: int = 0) -> None:
    """Give every parameter random values that keep signals at about their size from layer to layer."""
    generator = torch.Generator(device=device).manual_seed(seed)
    pool = torch.randn(_POOL, generator=generator, device=device).to(dtype)
    start = 0
    for module in model.modules():
        for leaf, old in list(module.named_parameters(recurse=False)):
            values = torch.empty(old.shape, dtype=dtype, device=device)
            _draw(values.view(-1), pool, start)
            start = (start + 7919 + values.numel()) % _POOL
            if old.ndim > 1:
                values *= (0.5 if isinstance(module, nn.Embedding) else 1.0) / math.sqrt(old.numel() / old.shape[0])
            elif leaf == "bias":
                values *= 0.02
            else:  # norms and layer scales
                values.mul_(0.1).add_(0.2 if leaf == "gamma" else 1.0)
            module._parameters[leaf] = nn.Parameter(values, requires_grad=old.requires_grad)


def _draw(values: Tensor, pool: Tensor, start: int) -> None:
    """Fill from the pool, from ``start`` on and around."""
    done = 0
    while done < len(values):
        count = min(len(values) - done, len(pool) - start)
        values[done : done + count] = pool[start : start + count]
        done, start = done + count, 0


SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_INTERNVL_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")
_SENTENCES = (
    "How far is the chair from the table, measured in metres?",
    "Is there a sofa in this room? Yes, it stands to the left of the window.",
    "The distance between the door and the bed is about two and a half meters.",
    "Which object is closest to the camera: the lamp, the shelf, the desk or the bin?",
    "Please answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
    "What is the size of this room in square metres? How many chairs are in it?",
    "If I am standing by the stove and facing the television, is the refrigerator behind me?",
)

CHAT_TEMPLATE = (
    "{% set start = '<|im_start|>' %}{% set end = '<|im_end|>\\n' %}"
    "{% set media = {'video': '<|vision_start|><|video_pad|><|vision_end|>', "
    "'image': '<|vision_start|><|image_pad|><|vision_end|>'} %}"
    "{% if messages[0]['role'] != 'system' %}{{ start + 'system\\nYou are a helpful assistant.' + end }}{% endif %}"
    "{% for message in messages %}{{ start + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ media.get(part['type'], part.get('text', '')) }}{% endfor %}{% endif %}"
    "{{ end }}{% endfor %}"
    "{% if add_generation_prompt %}{{ start + 'assistant\\n' }}{% endif %}"
)


def make_tokenizer(family: str = "spatial-mllm", vocabulary: int = 512) -> PreTrainedTokenizerFast:
    """A small tokenizer with Qwen's special tokens and chat format, trained here on a few sentences.

    Byte-level, so that any text can be written. vocabulary: its size without special tokens.
    """
    special = [*SPECIAL_TOKENS, *(_INTERNVL_TOKENS if family == "internvl" else ())]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(_SENTENCES, trainer)
    bpe.add_special_tokens(special)
    media = (
        CHAT_TEMPLATE
        if family != "internvl"
        else CHAT_TEMPLATE.replace("<|vision_start|><|video_pad|><|vision_end|>", "<video>\\n").replace(
            "<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\\n"
        )
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=media,
        clean_up_tokenization_spaces=False,
    )
