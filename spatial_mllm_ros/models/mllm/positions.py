"""Positions of tokens: multimodal rotary embedding (M-RoPE) with which the published checkpoints were trained.

A token has three positions: time, row, column. Text counts all three together. The tokens of a video start at the next
position: rows and columns count merged patches, time counts ``seconds_per_grid * tokens_per_second`` a frame pair, rounded
down. Text after it continues from the largest position of the video, its time included (transformers 4.51; newer releases
look at rows and columns only, which puts the question among the frames of a long clip).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PADDING_POSITION = 1


def text_positions(length: int, start: int = 0) -> tuple[Tensor, int]:
    """Positions [3, length] of a text from position ``start`` on, and the next free position."""
    return torch.arange(start, start + length).expand(3, -1), start + length


def video_positions(
    grid_thw: Sequence[int] | Tensor,
    start: int = 0,
    *,
    seconds_per_grid: float | Tensor = 1.0,
    tokens_per_second: float = 2.0,
    merge_size: int = 2,
) -> tuple[Tensor, int]:
    """Positions [3, t * h/merge * w/merge] of a video's tokens from ``start`` on, and the next free position.

    grid_thw: frame pairs, rows and columns of patches. seconds_per_grid: seconds from one frame pair to the next, 0 for a
    still image.
    """
    t, h, w = (int(n) for n in grid_thw)
    h, w = h // merge_size, w // merge_size
    seconds = torch.as_tensor(seconds_per_grid, dtype=torch.float32, device="cpu")
    # In this order and in float32, as in training: rounding down must fall on the same side.
    time = (torch.arange(t) * seconds * tokens_per_second).long()
    rows, columns = torch.arange(h), torch.arange(w)
    positions = torch.stack(torch.meshgrid(time, rows, columns, indexing="ij")).reshape(3, -1) + start
    return positions, int(positions.max()) + 1


def rope_index(
    input_ids: Tensor,
    *,
    image_token_id: int,
    video_token_id: int,
    image_grid_thw: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    second_per_grid_ts: Tensor | Sequence[float] | None = None,
    attention_mask: Tensor | None = None,
    tokens_per_second: float = 2.0,
    merge_size: int = 2,
) -> tuple[Tensor, Tensor]:
    """Positions of a batch, and by how much they are ahead of the place in the sequence.

    input_ids [B, L]; attention_mask [B, L], 0 on padding (left or right); the grids [n, 3] in the order of the batch;
    second_per_grid_ts: a number for each video, 1 when absent. Returns positions [3, B, L] and deltas [B, 1] such that the
    token that comes at place ``p`` of the padded sequence during decoding has position ``p + delta``.
    Raises ValueError where the tokens of the text do not fit the grids.
    """
    images = [] if image_grid_thw is None else image_grid_thw.tolist()
    videos = [] if video_grid_thw is None else video_grid_thw.tolist()
    seconds = [1.0] * len(videos) if second_per_grid_ts is None else list(second_per_grid_ts)
    if len(seconds) != len(videos):
        raise ValueError(f"second_per_grid_ts has {len(seconds)} numbers for {len(videos)} videos: give one for each")
    n_images = n_videos = 0
    positions = torch.full((3, *input_ids.shape), PADDING_POSITION, dtype=torch.long)
    deltas = torch.zeros((len(input_ids), 1), dtype=torch.long)
    for row, padded in enumerate(input_ids.cpu()):
        kept = torch.ones_like(padded, dtype=torch.bool) if attention_mask is None else attention_mask[row].cpu() == 1
        ids = padded[kept]
        visual = ((ids == image_token_id) | (ids == video_token_id)).nonzero()[:, 0].tolist()
        parts, place, next_position = [torch.empty((3, 0), dtype=torch.long)], 0, 0
        while visual:
            first = visual[0]
            part, next_position = text_positions(first - place, next_position)
            parts.append(part)
            token = int(ids[first])
            if token == image_token_id:
                grid, interval, n_images = _next_grid(images, n_images, "image"), 0.0, n_images + 1
            else:
                grid, interval, n_videos = _next_grid(videos, n_videos, "video"), seconds[n_videos], n_videos + 1
            part, next_position = video_positions(
                grid,
                next_position,
                seconds_per_grid=interval,
                tokens_per_second=tokens_per_second,
                merge_size=merge_size,
            )
            parts.append(part)
            place = first + part.shape[1]
            if not bool((ids[first:place] == token).all()) or place > len(ids):
                raise ValueError(
                    f"sequence {row} has fewer visual tokens from place {first} on than the {part.shape[1]} of grid {grid}: "
                    "expand the placeholder to the grid's number of tokens"
                )
            del visual[: part.shape[1]]
        part, next_position = text_positions(len(ids) - place, next_position)
        parts.append(part)
        positions[:, row, kept] = torch.cat(parts, dim=1)
        deltas[row] = next_position - len(padded)
    if n_images != len(images) or n_videos != len(videos):
        raise ValueError(
            f"the text holds {n_images} images and {n_videos} videos, the grids {len(images)} and {len(videos)}"
        )
    return positions.to(input_ids.device), deltas.to(input_ids.device)


def _next_grid(grids: list[list[int]], index: int, kind: str) -> list[int]:
    if index == len(grids):
        raise ValueError(f"the text holds tokens of more {kind}s than the {len(grids)} of {kind}_grid_thw")
    return grids[index]
