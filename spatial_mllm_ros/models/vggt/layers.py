"""Transformer layers that DINOv2, the aggregator and the camera head share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

ATTENTIONS = ("eager", "sdpa", "flash")
Rope = tuple[Tensor, Tensor]


def attend(query: Tensor, key: Tensor, value: Tensor, implementation: str) -> Tensor:
    """Full softmax attention. All [..., heads, tokens, channels]; no mask.

    implementation: "eager" writes the formula out, which takes memory quadratic in the tokens; "sdpa" leaves the kernel
    to torch; "flash" insists on its flash kernel. Raises ValueError where that kernel cannot run.
    """
    if implementation == "eager":
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        return scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
    if implementation == "sdpa":
        return F.scaled_dot_product_attention(query, key, value)
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"flash attention computes float16 and bfloat16 on CUDA, not {query.dtype} on {query.device.type}: "
            'choose attention "sdpa"'
        )
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(query, key, value)


def set_attention(module: nn.Module, implementation: str) -> None:
    """Choose the implementation of every attention within ``module``. Raises ValueError for one that is not known."""
    if implementation not in ATTENTIONS:
        raise ValueError(f"attention {implementation!r} is not known, only {', '.join(ATTENTIONS)}")
    for part in module.modules():
        if isinstance(part, Attention):
            part.implementation = implementation


def rope_tables(
    grid: tuple[int, int], special: int, head_dim: int, *, device: torch.device, dtype: torch.dtype, base: float = 100.0
) -> Rope:
    """Cosines and sines of 2D rotary position embedding: half of a head turns with the row, half with the column.

    grid: patch rows and columns. special: tokens before the patches, which all stand at (0, 0); patches count from 1.
    Returns two tables [special + rows * columns, 2, 1, head_dim / 4] for ``rotate``. Angles are rounded to ``dtype``
    before the cosine is taken, as in training: in bfloat16 that moves them by up to 1/8 radian.
    """
    rows, columns = grid
    quarter = head_dim // 4
    frequency = 1 / base ** (torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    row = torch.arange(1, rows + 1, device=device)[:, None].expand(rows, columns)
    column = torch.arange(1, columns + 1, device=device).expand(rows, columns)
    patches = torch.stack((row, column), dim=-1).flatten(0, 1).to(torch.float32)
    position = torch.cat((torch.zeros(special, 2, device=device), patches))
    angle = (position[:, :, None, None] * frequency).to(dtype)
    return angle.cos(), angle.sin()


def rotate(tokens: Tensor, rope: Rope) -> Tensor:
    """Turn [..., k * n, head_dim] by tables of n tokens, each of the k frames alike (RoFormer, arXiv 2104.09864)."""
    cosine, sine = rope
    # Tokens to frames of n, channels to (axis, half, quarter): each channel of the first half turns with its partner.
    paired = tokens.unflatten(-1, (2, 2, -1)).unflatten(-4, (-1, cosine.shape[0]))
    turned = torch.stack((-paired[..., 1, :], paired[..., 0, :]), dim=-2)
    return (paired * cosine + turned * sine).flatten(-3).flatten(-3, -2)


class Attention(nn.Module):
    """Multi-head self-attention on [batch, tokens, dim], with normalised queries and keys on request."""

    def __init__(self, dim: int, num_heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.implementation = "sdpa"
        self.qkv = nn.Linear(dim, 3 * dim)
        if qk_norm:
            self.q_norm = nn.LayerNorm(dim // num_heads)
            self.k_norm = nn.LayerNorm(dim // num_heads)
        self.qk_norm = qk_norm
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rope: Rope | None = None) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        if rope is not None:
            query, key = rotate(query, rope), rotate(key, rope)
        out = attend(query, key, value, self.implementation)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between, on [..., dim]."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out or dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor a channel (CaiT, arXiv 2103.17239)."""

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block with layer scale, on [batch, tokens, dim]."""

    def __init__(
        self, dim: int, num_heads: int, *, layer_scale: float, eps: float = 1e-5, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, qk_norm)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, 4 * dim)
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(self, x: Tensor, rope: Rope | None = None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rope))
        return x + self.ls2(self.mlp(self.norm2(x)))
