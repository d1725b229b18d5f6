"""VGGT's dense heads: tokens of four aggregator outputs to a value for every pixel (DPT, arXiv 2103.13413)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import PATCH_START, VGGTConfig
from .dinov2 import patch_grid


def signed_expm1(x: Tensor) -> Tensor:
    """sign(x) (e^|x| - 1): large values of both signs from small ones."""
    return x.sign() * x.abs().expm1()


class DPT(nn.Module):
    """A feature map from patch tokens: projected, resized to a pyramid of four levels, fused from coarse to fine.

    dim: of the tokens. features: channels while fusing. out_channels: of the levels. last: of the map.
    """

    def __init__(self, dim: int, features: int, out_channels: Sequence[int], last: int) -> None:
        super().__init__()
        first, second, _, fourth = out_channels
        self.norm = nn.LayerNorm(dim)
        self.projects = nn.ModuleList(nn.Conv2d(dim, channels, 1) for channels in out_channels)
        # To 4, 2, 1 and 1/2 times the patch grid.
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
            )
        )
        self.scratch = nn.Module()  # the checkpoints' name for all that follows the pyramid
        for number, channels in enumerate(out_channels, start=1):
            self.scratch.add_module(f"layer{number}_rn", nn.Conv2d(channels, features, 3, padding=1, bias=False))
            self.scratch.add_module(f"refinenet{number}", Fusion(features, coarsest=number == 4))
        self.scratch.add_module("output_conv1", nn.Conv2d(features, last, 3, padding=1))

    def feature_map(self, outputs: Sequence[Tensor], grid: tuple[int, int], aspect: float) -> Tensor:
        """Four aggregator outputs [T, 5 + patches, dim] to [T, last, 8 * rows, 8 * columns].

        grid: patch rows and columns. aspect: width by height of the frames.
        """
        levels = []
        for tokens, project, resize in zip(outputs, self.projects, self.resize_layers, strict=True):
            patches = self.norm(tokens[:, PATCH_START:].to(self.norm.weight.dtype))
            levels.append(resize(with_position(project(patches.transpose(1, 2).unflatten(2, grid)), aspect)))
        fused: Tensor | None = None
        for number in (4, 3, 2, 1):
            level = self.scratch.get_submodule(f"layer{number}_rn")(levels.pop())
            height, width = levels[-1].shape[-2:] if levels else (2 * side for side in level.shape[-2:])
            fused = self.scratch.get_submodule(f"refinenet{number}")(level, fused, (height, width))
        return self.scratch.get_submodule("output_conv1")(fused)


class DPTHead(DPT):
    """Values and their confidence, which is at least 1, for every pixel.

    channels: of the values. activation: makes them from what the network says.
    """

    def __init__(self, config: VGGTConfig, channels: int, activation: Callable[[Tensor], Tensor]) -> None:
        half = config.dpt_features // 2
        super().__init__(2 * config.embed_dim, config.dpt_features, config.dpt_out_channels, last=half)
        to_pixels = nn.Sequential(nn.Conv2d(half, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, channels + 1, 1))
        self.scratch.add_module("output_conv2", to_pixels)
        self.activation = activation
        self.layers = config.dpt_layers
        self.patch_size = config.patch_size

    def forward(
        self, outputs: Mapping[int, Tensor], image_size: tuple[int, int], frames_at_once: int | None = 8
    ) -> tuple[Tensor, Tensor]:
        """Values [T, height, width, channels] and confidence [T, height, width], in the dtype of the weights.

        outputs: at least the aggregator's outputs of ``layers``, [T, 5 + patches, 2 * embed_dim]. image_size: (height,
        width) of the frames, pixels. frames_at_once: bounds the memory for the maps on the way; None: all.
        """
        if frames_at_once is None:
            return self._values(self._pixels([outputs[layer] for layer in self.layers], image_size))
        chunks = zip(*(outputs[layer].split(frames_at_once) for layer in self.layers), strict=True)
        return self._values(torch.cat([self._pixels(chunk, image_size) for chunk in chunks]))

    def _values(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        raw = raw.permute(0, 2, 3, 1)
        return self.activation(raw[..., :-1]), 1 + raw[..., -1].exp()

    def _pixels(self, outputs: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        aspect = image_size[1] / image_size[0]
        coarse = self.feature_map(outputs, patch_grid(image_size, self.patch_size), aspect)
        fine = F.interpolate(coarse, size=image_size, mode="bilinear", align_corners=True)
        return self.scratch.get_submodule("output_conv2")(with_position(fine, aspect))


class Residual(nn.Module):
    """Two convolutions beside a shortcut, all of them seeing the input without its negative part."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # The shortcut too: published checkpoints were trained with an activation that works in place.
        x = x.relu()
        return x + self.conv2(self.conv1(x).relu())


class Fusion(nn.Module):
    """Adds a level of the pyramid to the coarser map and brings both to the size of the next level."""

    def __init__(self, features: int, coarsest: bool) -> None:
        super().__init__()
        if not coarsest:
            self.resConfUnit1 = Residual(features)
        self.resConfUnit2 = Residual(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, level: Tensor, coarser: Tensor | None, size: tuple[int, int]) -> Tensor:
        both = level if coarser is None else coarser + self.resConfUnit1(level)
        resized = F.interpolate(self.resConfUnit2(both), size=size, mode="bilinear", align_corners=True)
        return self.out_conv(resized)


def with_position(features: Tensor, aspect: float, strength: float = 0.1) -> Tensor:
    """Add to [T, channels, rows, columns] sines and cosines of where a cell's centre lies in the image.

    The image's diagonal is 2 long, its middle is (0, 0). A quarter of the channels each: sine and cosine of x, of y,
    with angular frequencies from 1 down to almost 1/100. aspect: width by height of the image.
    """
    channels, rows, columns = features.shape[1:]
    quarter = channels // 4
    place = {"device": features.device, "dtype": torch.float32}
    frequency = 1 / 100 ** (torch.arange(quarter, **place) / quarter)
    width = torch.full((), aspect, **place)
    diagonal = (width.square() + 1).sqrt()

    def wave(span: Tensor, cells: int) -> Tensor:
        angle = frequency[:, None] * (span * ((2 * torch.arange(cells, **place) + (1 - cells)) / cells))
        return torch.cat((angle.sin(), angle.cos()))

    across = wave(width / diagonal, columns)[:, None, :].expand(-1, rows, -1)
    down = wave(1 / diagonal, rows)[:, :, None].expand(-1, -1, columns)
    return features + (strength * torch.cat((across, down))).to(features.dtype)
