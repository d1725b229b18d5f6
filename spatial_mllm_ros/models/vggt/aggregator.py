"""VGGT's aggregator: attention within frames and across all frames in turn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence

import torch
from torch import Tensor, nn

from .config import NUM_REGISTERS, PATCH_START, VGGTConfig
from .dinov2 import DinoV2, patch_grid
from .layers import Block, Rope, rope_tables, set_attention

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Aggregator(nn.Module):
    """Frames to spatial tokens, in two parts.

    ``frame_tokens`` looks at each frame by itself, so its result can be kept while frames come and go;
    ``aggregate`` relates all frames, of which the first is the reference that the others are described from.
    Everything is computed in the dtype and on the device of the weights. There are no buffers: what is not in a
    checkpoint is made when needed.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.patch_size = config.patch_size
        self.head_dim = dim // config.num_heads
        self.depth = config.depth
        self.patch_embed = DinoV2(config)
        # Of both: one for the first frame, one that all other frames share.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, NUM_REGISTERS, dim))
        self.frame_blocks = nn.ModuleList(_blocks(config))
        self.global_blocks = nn.ModuleList(_blocks(config))
        self.attention = "sdpa"
        nn.init.normal_(self.camera_token, std=1e-6)
        nn.init.normal_(self.register_token, std=1e-6)

    @property
    def attention(self) -> str:
        """Implementation of attention: "eager", "sdpa" or "flash"; to be set for all layers at once."""
        return self._attention

    @attention.setter
    def attention(self, implementation: str) -> None:
        set_attention(self, implementation)
        self._attention = implementation

    @property
    def dtype(self) -> torch.dtype:
        """In which everything is computed (linear layers may hold their weights quantised)."""
        return self.camera_token.dtype

    def frame_tokens(self, frames: Tensor) -> Tensor:
        """Tokens of each frame by itself.

        frames: [T, 3, height, width], RGB in [0, 1], any float dtype; sides multiples of the patch.
        Returns [T, patches, embed_dim]. Frames are worked off one at a time, so a frame's tokens are the same to the
        last bit whatever others it comes with. Raises ValueError for another shape.
        """
        if frames.ndim != 4 or frames.shape[0] == 0 or frames.shape[1] != 3:
            raise ValueError(f"frames must be [T, 3, height, width] with T at least 1, not {list(frames.shape)}")
        patch_grid((frames.shape[2], frames.shape[3]), self.patch_size)
        place = {"device": self.camera_token.device, "dtype": self.dtype}
        mean, std = (torch.tensor(values, **place).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return torch.cat([self.patch_embed((frame[None].to(**place) - mean) / std) for frame in frames])

    def aggregate_steps(
        self, frame_tokens: Tensor, image_size: tuple[int, int], layers: Iterable[int] = (-1,)
    ) -> Generator[int, None, dict[int, Tensor]]:
        """``aggregate`` in steps: yields after every block the number of blocks done, then returns the result.

        Not ``torch.no_grad`` by itself: the caller decides, at every step.
        """
        wanted = {layer: self._layer(layer) for layer in layers}
        grid = patch_grid(image_size, self.patch_size)
        if frame_tokens.ndim != 3 or frame_tokens.shape[0] == 0 or frame_tokens.shape[1] != grid[0] * grid[1]:
            raise ValueError(
                f"frame tokens {list(frame_tokens.shape)} are not [T, {grid[0] * grid[1]}, channels], "
                f"as frames of {image_size[1]}x{image_size[0]} px have them"
            )
        rope = self.rope(image_size)
        outputs = yield from self.relate_steps(frame_tokens, rope, wanted.values())
        return {layer: outputs[index] for layer, index in wanted.items()}

    def rope(self, image_size: tuple[int, int]) -> Rope:
        """Tables of the rotary position embedding for frames of (height, width) pixels."""
        place = {"device": self.camera_token.device, "dtype": self.dtype}
        return rope_tables(patch_grid(image_size, self.patch_size), PATCH_START, self.head_dim, **place)

    def relate_steps(
        self, frame_tokens: Tensor, rope: Rope, wanted: Collection[int]
    ) -> Generator[int, None, dict[int, Tensor]]:
        """The alternating blocks alone, up to the last of those ``wanted`` (counted from 0), in steps."""
        tokens = self._with_special_tokens(frame_tokens)
        frames, per_frame, dim = tokens.shape
        outputs: dict[int, Tensor] = {}
        for index in range(max(wanted, default=-1) + 1):
            within = tokens = self.frame_blocks[index](tokens, rope)
            yield 2 * index + 1
            tokens = self.global_blocks[index](tokens.view(1, -1, dim), rope).view(frames, per_frame, dim)
            if index in wanted:
                outputs[index] = torch.cat((within, tokens), dim=-1)
            yield 2 * index + 2
        return outputs

    def aggregate(
        self,
        frame_tokens: Tensor,
        image_size: tuple[int, int],
        layers: Iterable[int] = (-1,),
        step: Callable[[int], object] | None = None,
    ) -> dict[int, Tensor]:
        """Relate the frames to each other.

        frame_tokens: [T, patches, embed_dim] of ``frame_tokens``; image_size: (height, width) of the frames, pixels.
        layers: the outputs wanted, counted from the end if negative; only these are kept, and blocks after the last of
        them are not run. step: called after every block with the number of blocks done; what it raises ends the work.
        Returns for each layer [T, 5 + patches, 2 * embed_dim]: frame-attention and global-attention halves, tokens in
        the order camera, registers, patches. Raises ValueError for layers or sizes that are not there.
        """
        steps = self.aggregate_steps(frame_tokens, image_size, layers)
        while True:
            try:
                done = next(steps)
            except StopIteration as finished:
                return finished.value
            if step is not None:
                step(done)

    def forward(self, frames: Tensor, layers: Sequence[int] | None = None) -> tuple[list[Tensor], int]:
        """Frames to the outputs of these layers, in their order (all layers if None), and the first patch's index, 5.

        frames: [T, 3, height, width] or [B, T, 3, height, width] as for ``frame_tokens``. Returns a tensor a layer,
        [T, 5 + patches, 2 * embed_dim], with B before if the frames had it; each of the B is worked off by itself.
        """
        wanted = range(self.depth) if layers is None else layers
        if frames.ndim == 5:
            each = [self(clip, wanted)[0] for clip in frames]
            return [torch.stack(clips) for clips in zip(*each, strict=True)], PATCH_START
        tokens = self.frame_tokens(frames)
        outputs = self.aggregate(tokens, (frames.shape[-2], frames.shape[-1]), wanted)
        return [outputs[layer] for layer in wanted], PATCH_START

    def _layer(self, layer: int) -> int:
        if not -self.depth <= layer < self.depth:
            raise ValueError(f"layer {layer} of an aggregator with {self.depth}")
        return layer % self.depth

    def _with_special_tokens(self, frame_tokens: Tensor) -> Tensor:
        special = torch.cat((self.camera_token, self.register_token), dim=2)[0]
        patches = frame_tokens.to(device=special.device, dtype=special.dtype)
        kind = (torch.arange(patches.shape[0], device=special.device) > 0).long()  # 0: the first frame, 1: another
        return torch.cat((special[kind], patches), dim=1)


def _blocks(config: VGGTConfig) -> list[Block]:
    return [Block(config.embed_dim, config.num_heads, layer_scale=0.01, qk_norm=True) for _ in range(config.depth)]
