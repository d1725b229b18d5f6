"""VGGT: frames to tokens, cameras, depth and points (arXiv 2503.11651)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from .aggregator import Aggregator
from .camera_head import CameraHead
from .config import HEADS, VGGTConfig
from .dpt_head import DPTHead, signed_expm1
from .layers import set_attention
from .pose_encoding import cameras
from .track_head import TrackHead


@dataclass(frozen=True, eq=False)
class Geometry:
    """What the heads say about T frames, None where there is no such head.

    The world is the first camera's optical frame (x right, y down, z forward), its unit the scene's own: VGGT is up to
    scale. pose_enc: [T, 9], see ``pose_encoding.cameras``. extrinsic: T_camera_world [T, 3, 4], world points to the
    camera's. intrinsic: K [T, 3, 3], pixels. depth: along the optical axis [T, height, width, 1]. world_points:
    [T, height, width, 3]. depth_conf, world_points_conf: [T, height, width], at least 1, larger is surer. All with a
    dimension B before if the frames had it.
    """

    pose_enc: Tensor | None = None
    extrinsic: Tensor | None = None
    intrinsic: Tensor | None = None
    depth: Tensor | None = None
    depth_conf: Tensor | None = None
    world_points: Tensor | None = None
    world_points_conf: Tensor | None = None


class VGGT(nn.Module):
    """The aggregator and the heads asked for: any of "camera", "depth", "point" and "track".

    Names and shapes of the state are those of the published checkpoints. Can be built on the ``meta`` device and loaded
    with ``load_state_dict(..., assign=True)``: there is nothing but parameters. Raises ValueError for another head.
    """

    def __init__(self, config: VGGTConfig, heads: Iterable[str] = ()) -> None:
        super().__init__()
        wanted = set(heads)
        if wanted - set(HEADS):
            raise ValueError(f"heads {', '.join(sorted(wanted - set(HEADS)))} are not known, only {', '.join(HEADS)}")
        self.config = config
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config) if "camera" in wanted else None
        self.depth_head = DPTHead(config, 1, torch.exp) if "depth" in wanted else None
        self.point_head = DPTHead(config, 3, signed_expm1) if "point" in wanted else None
        self.track_head = TrackHead(config) if "track" in wanted else None

    @property
    def attention(self) -> str:
        """Implementation of attention: "eager", "sdpa" or "flash"; to be set for the aggregator and all heads at once."""
        return self.aggregator.attention

    @attention.setter
    def attention(self, implementation: str) -> None:
        self.aggregator.attention = implementation
        set_attention(self, implementation)

    def forward(self, frames: Tensor) -> Geometry:
        """What the heads say about [T, 3, height, width] or [B, T, 3, height, width], RGB in [0, 1].

        Each head computes in the dtype of its own weights, so that heads may stay in float32 beside an aggregator in
        bfloat16, as VGGT was published; camera matrices are always made in float32. Each of the B is worked off by
        itself. Raises ValueError for frames that the aggregator does not take or outputs that it does not have.
        """
        if frames.ndim == 5:
            clips = [self(clip) for clip in frames]
            return Geometry(**{f.name: _stack([getattr(clip, f.name) for clip in clips]) for f in fields(Geometry)})
        size = (frames.shape[-2], frames.shape[-1])
        dense = self.depth_head is not None or self.point_head is not None
        layers = {-1, *(self.config.dpt_layers if dense else ())}
        outputs = self.aggregator.aggregate(self.aggregator.frame_tokens(frames), size, layers)
        pose_enc = extrinsic = intrinsic = depth = depth_conf = points = points_conf = None
        if self.camera_head is not None:
            pose_enc = self.camera_head(outputs[-1])
            extrinsic, intrinsic = cameras(pose_enc, size)
        if self.depth_head is not None:
            depth, depth_conf = self.depth_head(outputs, size)
        if self.point_head is not None:
            points, points_conf = self.point_head(outputs, size)
        return Geometry(pose_enc, extrinsic, intrinsic, depth, depth_conf, points, points_conf)


def _stack(values: list[Tensor | None]) -> Tensor | None:
    return None if any(value is None for value in values) else torch.stack([v for v in values if v is not None])
