"""VGGT's tracking head, for its tensors: checkpoints hold it, and what was loaded is to be saved again.

Answering does not track points, so there is nothing here that computes tracks.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import nn

from .config import TrackerSizes, VGGTConfig
from .dpt_head import DPT
from .layers import Mlp

HEADS = 8  # of its attention; no tensor tells


class TrackHead(nn.Module):
    """Parameters of the tracking head, by the names and shapes of the checkpoints. It cannot be run."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        sizes = config.tracker
        self.feature_extractor = DPT(2 * config.embed_dim, sizes.features, sizes.out_channels, last=sizes.features)
        self.tracker = Tracker(sizes)

    def forward(self, *_: object) -> NoReturn:
        raise NotImplementedError("the tracking head is only loaded and saved: answering does not track points")


class Tracker(nn.Module):
    """Iterative refinement of tracks (after CoTracker, arXiv 2307.07635)."""

    def __init__(self, sizes: TrackerSizes) -> None:
        super().__init__()
        features, state = sizes.features, 3 * sizes.features + 4
        self.query_ref_token = nn.Parameter(torch.zeros(1, 2, state))
        self.corr_mlp = Mlp(sizes.correlation, sizes.hidden, features)
        self.updateformer = UpdateFormer(sizes, state)
        self.fmap_norm = nn.LayerNorm(features)
        self.ffeat_norm = nn.GroupNorm(1, features)
        self.ffeat_updater = nn.Sequential(nn.Linear(features, features), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(features, 1))
        if sizes.confidence:
            self.conf_predictor = nn.Sequential(nn.Linear(features, 1))


class UpdateFormer(nn.Module):
    """Attention along each track and, by way of virtual tracks, between tracks."""

    def __init__(self, sizes: TrackerSizes, state: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(state)
        self.input_transform = nn.Linear(state, sizes.hidden)
        self.time_blocks = nn.ModuleList(SelfBlock(sizes) for _ in range(sizes.time_depth))
        if sizes.space_depth:
            # "virual" is how the checkpoints spell it.
            self.virual_tracks = nn.Parameter(torch.zeros(1, sizes.virtual_tracks, 1, sizes.hidden))
            self.space_virtual_blocks = nn.ModuleList(SelfBlock(sizes) for _ in range(sizes.space_depth))
            self.space_point2virtual_blocks = nn.ModuleList(CrossBlock(sizes) for _ in range(sizes.space_depth))
            self.space_virtual2point_blocks = nn.ModuleList(CrossBlock(sizes) for _ in range(sizes.space_depth))
        self.output_norm = nn.LayerNorm(sizes.hidden)
        self.flow_head = nn.Linear(sizes.hidden, sizes.features + 2)


class SelfBlock(nn.Module):
    """Attention within a set of tokens, then an MLP."""

    def __init__(self, sizes: TrackerSizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.hidden)
        self.attn = nn.MultiheadAttention(sizes.hidden, HEADS, batch_first=True)
        self.norm2 = nn.LayerNorm(sizes.hidden)
        self.mlp = Mlp(sizes.hidden, sizes.mlp)


class CrossBlock(nn.Module):
    """Attention to another set of tokens, then an MLP."""

    def __init__(self, sizes: TrackerSizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.hidden)
        self.norm_context = nn.LayerNorm(sizes.hidden)
        self.cross_attn = nn.MultiheadAttention(sizes.hidden, HEADS, batch_first=True)
        self.norm2 = nn.LayerNorm(sizes.hidden)
        self.mlp = Mlp(sizes.hidden, sizes.mlp)
