"""The connector: spatial tokens merged two by two by two, and projected to the language model's width."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from spatial_mllm_ros.models.mllm.config import MERGE_ORDERS, SpatialMLLMConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, computed in float32."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * functional.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype)


def merge_blocks(
    tokens: Tensor, grid_hw: tuple[int, int], *, order: str, spatial: int = 2, temporal: int = 2
) -> Tensor:
    """Flatten each block of ``temporal`` x ``spatial`` x ``spatial`` patches into one vector.

    tokens [T, h * w, C] of T frames in raster order, T a multiple of ``temporal``. order: one of MERGE_ORDERS; it says how
    the sub-row, sub-column, channel and time of a block are ordered in its vector, the last changing fastest.
    Returns [T/temporal * h/spatial * w/spatial, temporal * spatial**2 * C], blocks in the order of the visual tokens.
    """
    frames, _, channels = tokens.shape
    h, w = grid_hw
    blocks = tokens.reshape(frames // temporal, temporal, h // spatial, spatial, w // spatial, spatial, channels)
    # axes: pair, time, row, sub-row, column, sub-column, channel
    if order == MERGE_ORDERS[0]:
        blocks = blocks.permute(0, 2, 4, 3, 5, 6, 1)
    elif order == MERGE_ORDERS[1]:
        blocks = blocks.permute(0, 2, 4, 1, 3, 5, 6)
    else:
        raise ValueError(f"merge order {order!r} is not known: it is one of {', '.join(MERGE_ORDERS)}")
    return blocks.reshape(-1, temporal * spatial**2 * channels)


def _mlp(size_in: int, size_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size_in, size_in), nn.GELU(), nn.Linear(size_in, size_out))


class Connector(nn.Module, ABC):
    """What the connectors of v1.0 and v1.1 share: the merging of blocks."""

    def __init__(self, config: SpatialMLLMConfig) -> None:
        super().__init__()
        self.order = config.merge_order
        self.spatial = int(config.vision_config.spatial_merge_size)
        self.temporal = int(config.vision_config.temporal_patch_size)
        channels = 2 * int((config.spatial_config or {})["embed_dim"])  # the halves of frame and global attention
        self.merged_size = channels * self.temporal * self.spatial**2
        self.hidden_size = int(config.text_config.hidden_size)

    @abstractmethod
    def project(self, merged: Tensor) -> Tensor:
        """Merged blocks [N, merged_size] to [N, hidden]."""

    def forward(self, spatial_tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Spatial tokens [T, h * w, 2C] to [T/2 * h/2 * w/2, hidden], to be added to the visual tokens."""
        merged = merge_blocks(spatial_tokens, grid_hw, order=self.order, spatial=self.spatial, temporal=self.temporal)
        return self.project(merged)


class MLPAddConnector(Connector):
    """The connector of v1.1."""

    def __init__(self, config: SpatialMLLMConfig) -> None:
        super().__init__(config)
        self.ln_q = RMSNorm(self.merged_size)
        self.mlp = _mlp(self.merged_size, self.hidden_size)

    def project(self, merged: Tensor) -> Tensor:
        return self.mlp(self.ln_q(merged))


class TokenMergeConnector(Connector):
    """The connector of v1.0: merging and projection have a network each."""

    def __init__(self, config: SpatialMLLMConfig) -> None:
        super().__init__(config)
        self.token_merge_ln_q = RMSNorm(self.merged_size)
        self.token_merge_mlp = _mlp(self.merged_size, self.hidden_size)
        self.vgg_to_language_ln_q = RMSNorm(self.hidden_size)
        self.vgg_to_language_mlp = _mlp(self.hidden_size, self.hidden_size)

    def project(self, merged: Tensor) -> Tensor:
        merged = self.token_merge_mlp(self.token_merge_ln_q(merged))
        return self.vgg_to_language_mlp(self.vgg_to_language_ln_q(merged))


def make_connector(config: SpatialMLLMConfig) -> Connector:
    """The connector that the configuration names."""
    return MLPAddConnector(config) if config.connector_type == "mlp_add" else TokenMergeConnector(config)
