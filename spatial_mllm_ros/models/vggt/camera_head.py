"""VGGT's camera head: the camera tokens of all frames to a pose encoding each, refined in rounds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import VGGTConfig
from .layers import Block, Mlp

ENCODING = 9  # translation, quaternion (x, y, z, w), vertical and horizontal field of view


class CameraHead(nn.Module):
    """Starts from a learned pose and adds what a small transformer across the frames says, four times over."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = 2 * config.embed_dim
        self.token_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, ENCODING))
        self.embed_pose = nn.Linear(ENCODING, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.trunk = nn.Sequential(
            *(Block(dim, config.camera_num_heads, layer_scale=0.01) for _ in range(config.camera_trunk_depth))
        )
        self.trunk_norm = nn.LayerNorm(dim)
        self.pose_branch = Mlp(dim, dim // 2, ENCODING)

    def forward(self, tokens: Tensor, rounds: int = 4) -> Tensor:
        """Pose encodings after the last round.

        tokens: [T, 5 + patches, 2 * embed_dim], the aggregator's last output. Returns [T, 9] in the dtype of the
        weights, as ``pose_encoding.cameras`` reads it. Fields of view are not negative; 0 is possible.
        """
        camera = self.token_norm(tokens[:, 0].to(self.token_norm.weight.dtype))[None]
        standard = F.layer_norm(camera, camera.shape[-1:], eps=1e-6)
        pose = self.empty_pose_tokens.expand(1, camera.shape[1], -1)
        change: Tensor | None = None
        for _ in range(rounds):
            # Adaptive layer norm (DiT, arXiv 2212.09748): the pose so far shifts, scales and gates the camera tokens.
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(pose)).chunk(3, dim=-1)
            features = self.trunk(camera + gate * (standard * (1 + scale) + shift))
            step = self.pose_branch(self.trunk_norm(features))
            change = step if change is None else change + step
            pose = change
        return torch.cat((pose[..., :7], pose[..., 7:].relu()), dim=-1)[0]
