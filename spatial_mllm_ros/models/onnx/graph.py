"""VGGT's modules as they are exported: the same weights and arithmetic, from tensors whose sizes may change.

What differs from ``vggt``: linear layers see two dimensions (one Gemm each, its bias inside); attention and rotary
embedding are nodes of their own, which ``functions`` gives a body and runtimes replace by their kernels; heads' channels
are ordered for the usual form of the rotary embedding; the position embedding is resized by two matrices, because not
every runtime resizes with antialiasing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import MethodType
from typing import TypeVar

import torch
from torch import Tensor, nn

from spatial_mllm_ros.models.vggt.aggregator import IMAGENET_MEAN, IMAGENET_STD, Aggregator
from spatial_mllm_ros.models.vggt.camera_head import CameraHead
from spatial_mllm_ros.models.vggt.config import PATCH_START
from spatial_mllm_ros.models.vggt.dinov2 import DinoV2
from spatial_mllm_ros.models.vggt.dpt_head import DPTHead
from spatial_mllm_ros.models.vggt.layers import Attention, Block, Rope
from spatial_mllm_ros.models.vggt.vggt import VGGT

Module = TypeVar("Module", bound=nn.Module)
DOMAIN = "spatial_mllm_ros"
"""Of the functions that an exported file brings along."""
ATTENTION, ROTARY = "Attention", "RotaryEmbedding"


class FramePart(nn.Module):
    """What is computed for each frame by itself, and the tables of the rotary embedding for the frames' size."""

    def __init__(self, aggregator: Aggregator) -> None:
        super().__init__()
        self.aggregator = aggregator

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[1, T, 3, height, width] in [0, 1] to [T, patches, dim] and tables [5 + patches, head_dim / 2]."""
        cosine, sine = self.aggregator.rope((frames.shape[-2], frames.shape[-1]))
        return _frame_tokens(self.aggregator, frames), cosine.flatten(1), sine.flatten(1)


class RelatePart(nn.Module):
    """The alternating blocks, and what they make of the frames' tokens."""

    def __init__(self, aggregator: Aggregator, layers: Sequence[int]) -> None:
        """layers: whose outputs are wanted, counted from 0."""
        super().__init__()
        self.aggregator = aggregator
        self.layers = tuple(layers)

    def forward(self, frame_tokens: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, ...]:
        """[T, patches, dim] to [T, 5 + patches, 2 * dim] for each layer."""
        for table in (cosine, sine):  # so that the exporter knows these sizes to be one
            torch._check(table.shape[0] == PATCH_START + frame_tokens.shape[1])
        outputs = _relate(self.aggregator, frame_tokens, (cosine, sine), list(self.layers))
        return tuple(outputs[layer] for layer in self.layers)


class PatchTokens(RelatePart):
    """The same of one layer, without the camera's token and the registers."""

    def forward(self, frame_tokens: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, ...]:
        """[T, patches, dim] to [1, T, patches, 2 * dim]."""
        (output,) = super().forward(frame_tokens, cosine, sine)
        return (output[None, :, PATCH_START:],)


class CameraPart(nn.Module):
    """The camera head."""

    def __init__(self, head: CameraHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, tokens: Tensor) -> Tensor:
        """The last layer's output [T, 5 + patches, 2 * dim] to [1, T, 9]."""
        return self.head(tokens)[None]


class DepthPart(nn.Module):
    """The depth head."""

    def __init__(self, head: DPTHead, layers: Sequence[int], depth: int) -> None:
        """layers: of the outputs that it is given, counted from 0; depth: of the aggregator."""
        super().__init__()
        self.head = head
        self.indices = [list(layers).index(layer % depth) for layer in head.layers]

    def forward(self, frames: Tensor, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """[1, T, 3, height, width], of which the size is used, and outputs [T, 5 + patches, 2 * dim] to
        [1, T, height, width, 1] and [1, T, height, width]."""
        size = (frames.shape[-2], frames.shape[-1])
        rows, columns = (side // self.head.patch_size for side in size)
        for each in tokens:
            torch._check(each.shape[1] == PATCH_START + rows * columns)
        by_layer = {layer: tokens[index] for layer, index in zip(self.head.layers, self.indices, strict=True)}
        depth, confidence = self.head(by_layer, size, frames_at_once=None)
        return depth[None], confidence[None]


def exportable(vggt: VGGT, precision: torch.dtype = torch.float32) -> VGGT:
    """The same VGGT with modules made for export, sharing those of its weights that need no change.

    vggt: in float32, on the CPU. precision: of linear layers and attention within the aggregator's blocks; norms, sums,
    embeddings and heads are in float32 whatever it is, as VGGT was trained.
    """
    twin = _twin(vggt, torch.float32)
    twin.attention = "eager"
    aggregator = twin.aggregator
    dino = aggregator.patch_embed
    setattr(dino, "position_embedding", MethodType(_position_embedding, dino))  # noqa: B010 - mypy knows a method
    for blocks, turned in ((dino.blocks, False), (aggregator.frame_blocks, True), (aggregator.global_blocks, True)):
        for index, block in enumerate(blocks):
            blocks[index] = FlatBlock(block, precision, turned)
    return twin.eval()


def _twin(module: Module, dtype: torch.dtype) -> Module:
    """A copy in that dtype, whose parameters are views of the old ones where these have it already."""
    return copy.deepcopy(
        module, memo={id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in module.parameters()}
    )


class FlatBlock(nn.Module):
    """``layers.Block`` whose linear layers see two dimensions, [tokens, dim]."""

    def __init__(self, block: Block, precision: torch.dtype, turned: bool) -> None:
        """turned: whether queries and keys are turned by a rotary embedding."""
        super().__init__()
        self.block = block
        self.precision = precision
        self.attn = FlatAttention(_twin(block.attn, precision), turned)
        self.mlp = _twin(block.mlp, precision)

    def forward(self, x: Tensor, rope: Rope | None = None) -> Tensor:
        block, shape = self.block, x.shape
        x = x.reshape(shape[0] * shape[1], shape[2])
        attended = self.attn(block.norm1(x).to(self.precision), shape[:2], rope)
        x = x + block.ls1(attended.to(x.dtype))
        x = x + block.ls2(self.mlp(block.norm2(x).to(self.precision)).to(x.dtype))
        return x.view(shape)


class FlatAttention(nn.Module):
    """``layers.Attention`` on [tokens, dim], with the rotary embedding in its usual form.

    VGGT's head has channels (axis, half, quarter); here they are (half, axis, quarter), so that each channel of the
    first half turns with its partner in the second. Queries and keys are reordered alike, so their products are the same.
    """

    def __init__(self, attention: Attention, turned: bool) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.qk_norm = attention.qk_norm
        self.proj = attention.proj
        self.qkv = attention.qkv
        if self.qk_norm:
            self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        if turned:
            order = (
                torch.arange(attention.qkv.in_features // attention.num_heads).view(2, 2, -1).transpose(0, 1).flatten()
            )
            self._reorder(attention, order)

    def _reorder(self, attention: Attention, order: Tensor) -> None:
        self.qkv = nn.Linear(attention.qkv.in_features, attention.qkv.out_features, device="meta")
        for name, values in attention.qkv.named_parameters():
            query, key, value = values.unflatten(0, (3, self.num_heads, -1))
            rows = torch.cat((query[:, order], key[:, order], value)).flatten(0, 1)
            setattr(self.qkv, name, nn.Parameter(rows, requires_grad=False))
        for norm in ("q_norm", "k_norm") if self.qk_norm else ():
            old = getattr(attention, norm)
            new = nn.LayerNorm(old.normalized_shape, eps=old.eps, device="meta")
            for name, values in old.named_parameters():
                setattr(new, name, nn.Parameter(values[order], requires_grad=False))
            setattr(self, norm, new)

    def forward(self, x: Tensor, groups: Sequence[int], rope: Rope | None) -> Tensor:
        """groups: how many, and of how many tokens that attend to each other."""
        tokens, dim = x.shape
        query, key, value = self.qkv(x).split(dim, dim=1)
        if self.qk_norm:
            heads = (tokens, self.num_heads, dim // self.num_heads)
            query = self.q_norm(query.reshape(heads)).reshape(tokens, dim)
            key = self.k_norm(key.reshape(heads)).reshape(tokens, dim)
        if rope is not None:
            query, key = (_turn(each, groups, rope, self.num_heads) for each in (query, key))
        inputs = tuple(each.reshape(*groups, dim) for each in (query, key, value))
        attributes = {"num_heads": self.num_heads, "scale": (dim // self.num_heads) ** -0.5}
        out = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{ATTENTION}", inputs, attributes, dtype=x.dtype, shape=inputs[0].shape, version=1
        )
        return self.proj(out.reshape(tokens, dim))


def _turn(tokens: Tensor, groups: Sequence[int], rope: Rope, num_heads: int) -> Tensor:
    """Turn [frames * n, dim] by tables of n tokens."""
    cosine, sine = (table.to(tokens.dtype) for table in rope)
    n = cosine.shape[0]
    frames = tokens.reshape(groups[0] * (groups[1] // n), n, tokens.shape[1])
    turned = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{ROTARY}",
        (frames, cosine, sine),
        {"num_heads": num_heads},
        dtype=tokens.dtype,
        shape=frames.shape,
        version=1,
    )
    return turned.reshape(tokens.shape)


def _frame_tokens(aggregator: Aggregator, frames: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return aggregator.patch_embed((frames[0] - mean) / std)


def _relate(aggregator: Aggregator, frame_tokens: Tensor, rope: Rope, layers: list[int]) -> dict[int, Tensor]:
    steps = aggregator.relate_steps(frame_tokens, rope, layers)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def _position_embedding(dino: DinoV2, rows: int, columns: int) -> Tensor:
    """``DinoV2.position_embedding`` for any grid, that of training included (whose matrices are 1)."""
    patches = dino.pos_embed[0, 1:].unflatten(0, (dino.side, dino.side))
    by_row = _resizing(dino.side, rows) @ patches.flatten(1)
    patches = _resizing(dino.side, columns) @ by_row.reshape(-1, dino.side, patches.shape[2])
    return torch.cat((dino.pos_embed[:, :1], patches.reshape(1, -1, patches.shape[2])), dim=1)


def _resizing(old: int, new: int) -> Tensor:
    """The matrix [new, old] that resizes a row of ``old`` values: bicubic (a = -0.5, Keys 1981) with antialiasing."""
    target = torch.arange(new)
    scale = old / torch.ones_like(target, dtype=torch.float32).sum()
    reach = scale.clamp(min=1)
    centre = scale * (target + 0.5)
    x = ((torch.arange(old) + 0.5 - centre[:, None]) / reach).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(dim=1, keepdim=True)
