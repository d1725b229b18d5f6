"""From frames to the tensors that a model takes: common size, resizing, normalisation, patches.

Everything is done per frame or per pair of frames, so that its results can be kept: a video is nothing but its frames
resized to one size and its pairs cut into patches. The branches of Spatial-MLLM both start from the same resized uint8
frames, as in its training.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spatial_mllm_ros.serving.interface import ModelFrame, ModelOptions, ModelUnavailable

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PAIR = 2
"""Frames that a patch is long (``temporal_patch_size``), in every family that has such patches."""

MAX_ASPECT_RATIO = 200
_PADDING = 255  # white, as VGGT's own loader pads


@dataclass(frozen=True)
class FrameFormat:
    """How a family takes frames.

    mean, std: normalisation of RGB in [0, 1]. patch_size, merge_size: a patch is patch_size px wide and high and two
    frames long, and merge_size x merge_size of them become one token. min_pixels, max_pixels: budget of a resized
    frame. video_fps: frames per second that positions assume. fixed_size: (height, width) px of every frame instead;
    such a family takes frames one by one, ``tokens_per_frame`` tokens each. spatial: whether there is a spatial branch,
    which takes the frames themselves.
    """

    family: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch_size: int = 0
    merge_size: int = 0
    min_pixels: int = ModelOptions.min_pixels
    max_pixels: int = ModelOptions.max_pixels
    video_fps: float = ModelOptions.video_fps
    fixed_size: tuple[int, int] | None = None
    tokens_per_frame: int = 0
    spatial: bool = False

    @property
    def in_pairs(self) -> bool:
        """Whether frames are taken two by two, so that their number must be even."""
        return self.fixed_size is None

    @property
    def seconds_per_pair(self) -> float:
        """``second_per_grid_ts``: time between two pairs, s."""
        return PAIR / self.video_fps

    def size(self, shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """(height, width) px that all frames of a context are resized to, from theirs: that of most of them decides.

        Of sizes equally frequent the one that comes first decides. ValueError without any.
        """
        if self.fixed_size is not None:
            return self.fixed_size
        if not shapes:
            raise ValueError("no frames, so no size: give at least one frame")
        # most_common keeps the order of first appearance among equals.
        (height, width), _ = Counter(shapes).most_common(1)[0]
        return smart_resize(height, width, self.patch_size * self.merge_size, self.min_pixels, self.max_pixels)

    def resize(self, image: NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
        """A frame, uint8 RGB [height, width, 3], resized to the ``size`` of its context: uint8 [3, H, W].

        Stretched where this is the size that it would get by itself, as all frames of one camera are; a frame of other
        proportions, from another camera, is fitted inside. InternVL's are all stretched, as in its training.
        """
        shape = (image.shape[0], image.shape[1])
        own = self.fixed_size is not None or self.size([shape]) == size
        return resize_frame(image, size) if own else fit_frame(image, size)

    def patches_of_pair(self, frame_a: torch.Tensor, frame_b: torch.Tensor) -> torch.Tensor:
        """``patches_of_pair`` with the sizes and the normalisation of this family."""
        return patches_of_pair(frame_a, frame_b, self.mean, self.std, self.patch_size, self.merge_size)

    def tile(self, frame: torch.Tensor) -> torch.Tensor:
        """A resized frame [3, H, W] normalised, float32, for families that take frames one by one."""
        return normalise(frame, self.mean, self.std)

    def grid(self, frames: int, size: tuple[int, int]) -> tuple[int, int, int]:
        """(pairs, rows of patches, columns of patches) of a video; frames, 1, 1 where frames are taken one by one."""
        if not self.in_pairs:
            return frames, 1, 1
        if frames % PAIR:
            raise ValueError(f"{frames} frames do not make pairs: give an even number (see even_frames)")
        block = self.patch_size * self.merge_size
        if size[0] % block or size[1] % block:
            raise ValueError(f"{size[1]} x {size[0]} px are no multiple of {block} px: resize the frames first")
        return frames // PAIR, size[0] // self.patch_size, size[1] // self.patch_size

    def tokens(self, frames: int, size: tuple[int, int]) -> int:
        """Tokens that stand for a video in the language model, without the text between them."""
        t, h, w = self.grid(frames, size)
        return t * self.tokens_per_frame if not self.in_pairs else t * h * w // self.merge_size**2


def frame_format(family: str, options: ModelOptions, folder: str | Path | None = None) -> FrameFormat:
    """How ``family`` takes frames: as published, with the sizes and the normalisation that a checkpoint's folder names.

    The pixel budget and the frame rate come from ``options``: the budgets in checkpoints are far wider than what
    Spatial-MLLM was trained with. Raises ValueError for a family that is not known, ModelUnavailable for files of the
    folder that cannot be read.
    """
    if family not in _PUBLISHED:
        raise ValueError(f"model family {family!r} is not known: it is one of {', '.join(_PUBLISHED)}")
    fields: dict[str, Any] = {
        **_PUBLISHED[family],
        "min_pixels": options.min_pixels,
        "max_pixels": options.max_pixels,
        "video_fps": options.video_fps,
    }
    if folder is not None:
        config = _read(Path(folder) / "config.json")
        vision = config.get("vision_config") or {}
        if family == "internvl":
            fields["fixed_size"] = _sides(vision.get("image_size")) or fields["fixed_size"]
            fields["tokens_per_frame"] = config.get("image_seq_length") or fields["tokens_per_frame"]
        else:
            fields["patch_size"] = vision.get("patch_size") or fields["patch_size"]
            fields["merge_size"] = vision.get("spatial_merge_size") or fields["merge_size"]
        for settings in _processor_settings(Path(folder)):
            fields["mean"] = tuple(settings.get("image_mean") or fields["mean"])
            fields["std"] = tuple(settings.get("image_std") or fields["std"])
    return FrameFormat(family, **fields)


_CLIP = {"mean": CLIP_MEAN, "std": CLIP_STD}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "spatial-mllm": {**_CLIP, "patch_size": 14, "merge_size": 2, "spatial": True},
    "qwen2_5_vl": {**_CLIP, "patch_size": 14, "merge_size": 2},
    "qwen3_vl": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "patch_size": 16, "merge_size": 2},
    "internvl": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "fixed_size": (448, 448), "tokens_per_frame": 256},
}
FAMILIES = tuple(_PUBLISHED)
"""Model families, by the ``model_type`` of their configuration."""


def _processor_settings(folder: Path) -> list[dict[str, Any]]:
    """What a checkpoint says of its image and video processors, the latter last. Newer ones keep both in one file."""
    together = _read(folder / "processor_config.json")
    return [
        together.get("image_processor") or {},
        _read(folder / "preprocessor_config.json"),
        together.get("video_processor") or {},
        _read(folder / "video_preprocessor_config.json"),
    ]


def _sides(size: Any) -> tuple[int, int] | None:
    """(height, width) from one number or two."""
    return (size, size) if isinstance(size, int) else (size[0], size[1]) if size else None


def _read(path: Path) -> dict[str, Any]:
    """A file of settings; {} when there is none. Raises ModelUnavailable when it is broken."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelUnavailable(
            f"{path} is not readable as settings ({error}): download the checkpoint again"
        ) from error


def smart_resize(
    height: int,
    width: int,
    factor: int = 28,
    min_pixels: int = ModelOptions.min_pixels,
    max_pixels: int = ModelOptions.max_pixels,
) -> tuple[int, int]:
    """(height, width) px to resize a frame to: multiples of ``factor``, within the budget, about the same proportions.

    Qwen2.5-VL's rule: both sides to the nearest multiple; if that is above the budget both are scaled by the same number
    to reach it and rounded down, if below, rounded up. So the last rounding may leave a narrow budget again on the
    other side; that is the rule that models were trained with. Raises ValueError for sides below 1 px, proportions
    above 200 : 1 and budgets that are none.
    """
    if min(height, width) < 1:
        raise ValueError(f"a frame of {width} x {height} px cannot be resized: both sides must be at least 1 px")
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(f"a frame of {width} x {height} px is too narrow: at most {MAX_ASPECT_RATIO} : 1")
    if not 0 < min_pixels <= max_pixels:
        raise ValueError(f"a budget of {min_pixels} to {max_pixels} px is none: 0 < min_pixels <= max_pixels is needed")
    rows, columns = round(height / factor), round(width / factor)  # halves to even, as the published rule
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / factor)) for side in (height, width))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / factor) for side in (height, width))
    return rows * factor, columns * factor


def resize_frame(image: NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
    """A frame, uint8 RGB [height, width, 3], resized to ``size`` (height, width): uint8 [3, H, W], on the CPU.

    Antialiased bicubic in uint8: rounded and clamped after each axis, as in PIL, with which the training frames were
    resized; within 2 grey levels of it. Raises ValueError for anything but such a frame.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"a frame is uint8 RGB [height, width, 3]; this one is {image.dtype} {list(image.shape)}")
    frame = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    if image.shape[:2] != size:
        frame = torch.nn.functional.interpolate(frame, size=size, mode="bicubic", antialias=True)
    return frame[0].contiguous()


def fit_frame(image: NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
    """As ``resize_frame``, but its proportions stay: it is fitted inside, in the middle of white."""
    height, width = image.shape[:2]
    scale = min(size[0] / max(height, 1), size[1] / max(width, 1))
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    framed = torch.full((3, *size), _PADDING, dtype=torch.uint8)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    framed[:, top : top + inner[0], left : left + inner[1]] = resize_frame(image, inner)
    return framed


def unit_range(frames: torch.Tensor) -> torch.Tensor:
    """Frames as float32 in [0, 1], what the spatial branch takes; uint8 is divided by 255, floats are taken as they are."""
    return frames.float() / 255.0 if frames.dtype == torch.uint8 else frames.float()


def normalise(frames: torch.Tensor, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> torch.Tensor:
    """Frames [..., 3, H, W], uint8 or in [0, 1], minus the mean and by the deviation of each channel; float32."""
    shift, scale = (torch.tensor(v, dtype=torch.float32, device=frames.device)[:, None, None] for v in (mean, std))
    return (unit_range(frames) - shift) / scale


def patches_of_pair(
    frame_a: torch.Tensor,
    frame_b: torch.Tensor,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    patch_size: int = 14,
    merge_size: int = 2,
) -> torch.Tensor:
    """The patches of two frames [3, H, W] (uint8 or in [0, 1]) in the order of the vision tower: float32 [h * w, 6 p²].

    h, w = H / p, W / p patches of p px. Rows of the result: blocks of merge_size x merge_size patches, each block row by
    row, one block after the other. Columns: channel, frame of the pair, row, column. Raises ValueError for frames that
    differ in size or are no multiple of a block.
    """
    if frame_a.shape != frame_b.shape or frame_a.ndim != 3:
        raise ValueError(f"a pair is two frames [3, H, W] of one size, not {[*frame_a.shape]} and {[*frame_b.shape]}")
    channels, height, width = frame_a.shape
    block = patch_size * merge_size
    if height % block or width % block:
        raise ValueError(f"{width} x {height} px are no multiple of {block} px: resize the frame first")
    pair = normalise(torch.stack((frame_a, frame_b)), mean, std)
    cut = pair.reshape(2, channels, height // block, merge_size, patch_size, width // block, merge_size, patch_size)
    # frame, channel, (block row, row in it, y), (block column, column in it, x)
    ordered = cut.permute(2, 5, 3, 6, 1, 0, 4, 7)
    return ordered.reshape(height * width // patch_size**2, channels * 2 * patch_size**2)


def frames_of_patches(
    patches: torch.Tensor,
    grid: Sequence[int],
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    patch_size: int = 14,
    merge_size: int = 2,
) -> torch.Tensor:
    """The frames [2t, 3, H, W] in [0, 1], float32, that patches [t * h * w, 6 p²] were cut from.

    grid: (t, h, w). The inverse of ``patches_of_pair`` and of stock processors: patches hold every pixel, normalised. Where
    all of them are grey levels of 8 bits but for rounding (within 1/100), they become exactly these. Raises ValueError for
    patches that do not fit the grid.
    """
    t, h, w = (int(n) for n in grid)
    columns = 3 * PAIR * patch_size**2
    if patches.shape != (t * h * w, columns) or h % merge_size or w % merge_size:
        raise ValueError(f"patches {[*patches.shape]} do not fit the grid {[t, h, w]} of {patch_size} px")
    cut = patches.float().reshape(
        t, h // merge_size, w // merge_size, merge_size, merge_size, 3, PAIR, patch_size, patch_size
    )
    # pair, frame of it, channel, (block row, row in it, y), (block column, column in it, x)
    frames = cut.permute(0, 6, 5, 1, 3, 7, 2, 4, 8).reshape(t * PAIR, 3, h * patch_size, w * patch_size)
    shift, scale = (torch.tensor(v, dtype=torch.float32, device=patches.device)[:, None, None] for v in (mean, std))
    levels = (frames * scale + shift) * 255.0
    rounded = levels.round()
    exact = bool((levels - rounded).abs().amax() < 0.01)
    return (rounded if exact else levels).clamp(0.0, 255.0) / 255.0


def even_frames(frames: Sequence[ModelFrame], limit: int | None = None) -> list[ModelFrame]:
    """Frames for pairs: an even number of them, in time order.

    frames: in the caller's order of worth, the best first. Of a frame given twice the second is left out, then those
    beyond ``limit`` (1 or more), then the last if their number is odd; a single frame is doubled. No frames give none.
    """
    first: dict[int, ModelFrame] = {}
    for frame in frames:
        first.setdefault(frame.frame_id, frame)
    kept = list(first.values())[:limit]
    kept = kept * 2 if len(kept) == 1 else kept[: len(kept) // 2 * 2]
    return sorted(kept, key=lambda frame: (frame.stamp_ns, frame.frame_id))


def video_inputs(frames: Sequence[ModelFrame], how: FrameFormat) -> dict[str, torch.Tensor]:
    """The tensors of a video, under the names that the family's ``forward`` has for them.

    frames: in time order, an even number of them where they are taken in pairs. With pairs: ``pixel_values_videos``
    float32 [patches, 6 p²], ``video_grid_thw`` [1, 3], and ``second_per_grid_ts`` [1] (Qwen2.5-VL) in seconds; with a
    spatial branch also ``video_tchw`` [T, 3, H, W] in [0, 1]. One by one: ``pixel_values`` [T, 3, H, W].
    """
    size = how.size([(frame.image.shape[0], frame.image.shape[1]) for frame in frames])
    resized = [how.resize(frame.image, size) for frame in frames]
    grid = how.grid(len(resized), size)
    if not how.in_pairs:
        return {"pixel_values": torch.stack([how.tile(frame) for frame in resized])}
    pairs = [how.patches_of_pair(a, b) for a, b in zip(resized[::2], resized[1::2], strict=True)]
    inputs = {"pixel_values_videos": torch.cat(pairs), "video_grid_thw": torch.tensor([grid])}
    if how.family != "qwen3_vl":
        inputs["second_per_grid_ts"] = torch.tensor([how.seconds_per_pair])
    if how.spatial:
        inputs["video_tchw"] = unit_range(torch.stack(resized))
    return inputs
