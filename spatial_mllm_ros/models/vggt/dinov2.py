"""DINOv2 with registers (arXiv 2304.07193, 2309.16588), the frame-wise first part of VGGT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import NUM_REGISTERS, PATCH_START, VGGTConfig
from .layers import Block

EPS = 1e-6  # of DINOv2's layer norms; VGGT's own have torch's default


class PatchProjection(nn.Module):
    """[n, 3, height, width] to a token a patch, [n, patches, dim], rows first."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class DinoV2(nn.Module):
    """Vision transformer whose patch tokens describe a frame by itself."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.patch_size = config.patch_size
        self.side = config.img_size // config.patch_size
        self.patch_embed = PatchProjection(config.patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, NUM_REGISTERS, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.side**2, dim))
        # Hides patches in DINOv2's own training; checkpoints hold it, nothing here reads it.
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(dim, config.patch_embed_num_heads, layer_scale=1.0, eps=EPS) for _ in range(config.patch_embed_depth)
        )
        self.norm = nn.LayerNorm(dim, eps=EPS)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def position_embedding(self, rows: int, columns: int) -> Tensor:
        """The position embedding of a patch grid, [1, 1 + rows * columns, dim], the class token's first.

        For other grids than that of training, the patches' part is resized as in DINOv2 with registers: bicubic, with
        antialiasing, in float32, to the grid's size (no offset to the scale, unlike in the first DINOv2).
        """
        if rows == columns == self.side:
            return self.pos_embed
        patches = self.pos_embed[:, 1:].float().unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        patches = F.interpolate(patches, size=(rows, columns), mode="bicubic", antialias=True)
        return torch.cat((self.pos_embed[:, :1], patches.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [n, 3, height, width], sides multiples of the patch, to patch tokens [n, patches, dim]."""
        n, _, height, width = images.shape
        tokens = torch.cat((self.cls_token.expand(n, -1, -1), self.patch_embed(images)), dim=1)
        tokens = tokens + self.position_embedding(height // self.patch_size, width // self.patch_size)
        tokens = torch.cat((tokens[:, :1], self.register_tokens.expand(n, -1, -1), tokens[:, 1:]), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, PATCH_START:])


def patch_grid(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Patch rows and columns of an image (height, width). Raises ValueError unless both are multiples of a patch."""
    height, width = image_size
    if min(height, width) <= 0 or height % patch_size or width % patch_size:
        raise ValueError(
            f"frames of {width}x{height} px: both sides must be multiples of {patch_size} px, so resize them"
        )
    return height // patch_size, width // patch_size
