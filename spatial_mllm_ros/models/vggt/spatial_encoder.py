"""The spatial encoder as contexts need it, whatever computes it; here with torch."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

import torch
from torch import Tensor

from spatial_mllm_ros.models.vggt.aggregator import Aggregator
from spatial_mllm_ros.models.vggt.config import PATCH_START


class SpatialEncoder(Protocol):
    """Frames to spatial tokens, in two parts: the first looks at each frame by itself, so its result can be kept."""

    @property
    def name(self) -> str:
        """What computes: runtime, provider or device, and precision; part of ``model_id``."""

    @property
    def patch_size(self) -> int:
        """Side of a patch, pixels."""

    @property
    def embed_dim(self) -> int:
        """Channels of a frame's token; spatial tokens have twice as many."""

    def frame_tokens(self, frames: Tensor) -> Tensor:
        """Frames [T, 3, height, width], RGB in [0, 1], sides multiples of a patch, to [T, patches, embed_dim].

        A frame's tokens are the same to the last bit whatever others it comes with. Raises ValueError for other shapes.
        """

    def relate_steps(self, frame_tokens: Tensor, image_size: tuple[int, int]) -> Generator[None, None, Tensor]:
        """Relate frames to each other, in steps; returns the spatial tokens [T, patches, 2 * embed_dim].

        frame_tokens: of ``frame_tokens``; image_size: (height, width) of the frames, pixels. The first frame is the one
        that the others are described from. Raises ValueError for other shapes.
        """

    def encode(self, frames: Tensor) -> Tensor:
        """Both parts: frames as above to [T, patches, 2 * embed_dim]."""


class TorchEncoder:
    """VGGT's aggregator in torch. A ``SpatialEncoder``; a step is a block."""

    def __init__(self, aggregator: Aggregator, layer: int = -1) -> None:
        """layer: which of its outputs is used."""
        self._aggregator = aggregator
        self._layer = layer

    @property
    def name(self) -> str:
        """See SpatialEncoder."""
        place = self._aggregator.camera_token
        return f"torch {place.device.type} {str(place.dtype).removeprefix('torch.')}"

    @property
    def patch_size(self) -> int:
        """See SpatialEncoder."""
        return self._aggregator.patch_size

    @property
    def embed_dim(self) -> int:
        """See SpatialEncoder."""
        return int(self._aggregator.camera_token.shape[-1])

    def frame_tokens(self, frames: Tensor) -> Tensor:
        """See SpatialEncoder."""
        return self._aggregator.frame_tokens(frames)

    def relate_steps(self, frame_tokens: Tensor, image_size: tuple[int, int]) -> Generator[None, None, Tensor]:
        """See SpatialEncoder."""
        steps = self._aggregator.aggregate_steps(frame_tokens, image_size, (self._layer,))
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value[self._layer][:, PATCH_START:]
            yield

    def encode(self, frames: Tensor) -> Tensor:
        """See SpatialEncoder."""
        return finish(self.relate_steps(self.frame_tokens(frames), (int(frames.shape[2]), int(frames.shape[3]))))


def finish(steps: Generator[None, None, Tensor]) -> Tensor:
    """Go through steps to their result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: Tensor = done.value
            return result


def fixed_frames(count: int, patch_size: int, rows: int = 6, columns: int = 8) -> Tensor:
    """Always the same frames [count, 3, rows * patch, columns * patch] in [0, 1]: colored waves that move, with noise."""
    y, x = torch.meshgrid(
        torch.linspace(0, 1, rows * patch_size), torch.linspace(0, 1, columns * patch_size), indexing="ij"
    )
    phase = torch.arange(count)[:, None, None, None] / 3 + torch.arange(3)[:, None, None]
    waves = torch.sin(5 * x + 3 * y + phase) * torch.cos(4 * y - 2 * x - 2 * phase)
    noise = torch.rand(waves.shape, generator=torch.Generator().manual_seed(0))
    return (0.5 + 0.35 * waves + 0.3 * (noise - 0.5)).clamp(0, 1)
