"""VGGT alone, from a checkpoint that holds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import torch
from torch import nn

from spatial_mllm_ros.models.vggt.config import VGGTConfig
from spatial_mllm_ros.models.vggt.vggt import VGGT
from spatial_mllm_ros.models.weights.checkpoint import CheckpointError, load_tensors, read_checkpoint, shapes_of

INSIDE = "spatial_encoder.vggt_model."


def load_vggt(
    model: str | os.PathLike[str],
    heads: Iterable[str] = (),
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> VGGT:
    """VGGT with these heads from a checkpoint of Spatial-MLLM (v1.1 or v1.0) or of VGGT itself; the rest is not read.

    model: a folder, or the id of one that was downloaded. progress: (bytes read, bytes in all). Raises CheckpointError.
    """
    heads = tuple(heads)
    checkpoint = read_checkpoint(model)
    found = checkpoint.shapes()
    inside = any(name.startswith(INSIDE) for name in found)
    sizes = checkpoint.config.get("spatial_config") or {} if inside else checkpoint.config
    try:
        with torch.device("meta"):
            vggt = VGGT(VGGTConfig.from_dict(sizes), heads)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.folder}: {error}") from error
    holder: nn.Module = vggt
    if inside:  # where the names of a Spatial-MLLM checkpoint have it
        holder = nn.Module()
        holder.spatial_encoder = nn.Module()
        holder.spatial_encoder.vggt_model = vggt
    wrong = [name for name, shape in shapes_of(holder).items() if found.get(name) != shape]
    if wrong:
        what = f"VGGT with its {' and '.join(heads)} heads" if heads else "VGGT's aggregator"
        raise CheckpointError(
            f"{checkpoint.folder} does not hold {what}: {len(wrong)} tensors are missing or of another shape, such as "
            f"{wrong[0]}; name a checkpoint of Spatial-MLLM, or of VGGT itself, that holds it"
        )
    load_tensors(checkpoint, holder, dtype=dtype, device=torch.device(device), progress=progress)
    return vggt.eval().requires_grad_(False)


def spatial_layer(model: str | os.PathLike[str]) -> int:
    """Which of the aggregator's outputs the connector of this checkpoint takes; the last where there is none."""
    connector = read_checkpoint(model).config.get("connector_config") or {}
    return int(connector.get("spatial_embeds_layer_idx", -1))
