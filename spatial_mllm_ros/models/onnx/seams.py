"""Where an exported graph is cut into parts that run one after the other, and what its values there are called. No torch.

Each part is below the 2 GB that ONNX Runtime can pass to TensorRT (VGGT-1B in float16), and what looks at each frame by
itself can be run frame by frame, which bounds its memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FRAMES = "frames"
SEAM = ("frame_tokens", "cosine", "sine")
"""Of each frame by itself: DINOv2's tokens; and the tables of the rotary embedding for the frames' size."""


@dataclass(frozen=True)
class Part:
    """takes, gives: values of the graph that it begins and ends with. by_frame: whether it looks at frames one by one."""

    name: str
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    by_frame: bool = False


def parts_of(kind: str, config: Mapping[str, Any]) -> tuple[Part, ...]:
    """The parts of an exported graph in the order in which they run. kind, config: as in its ``Description``."""
    frames = Part("frames", (FRAMES,), SEAM, by_frame=True)
    if kind == "encoder":
        return frames, Part("relate", SEAM, ("spatial_tokens",))
    of_depth = tuple(f"tokens_{layer}" for layer in layers_of_depth(config))
    last = f"tokens_{config['depth'] - 1}"
    return (
        frames,
        Part("relate", SEAM, tuple(dict.fromkeys((*of_depth, last)))),
        Part("camera", (last,), ("pose_enc",)),
        Part("depth", (FRAMES, *of_depth), ("depth", "depth_conf"), by_frame=True),
    )


def layers_of_depth(config: Mapping[str, Any]) -> list[int]:
    """The aggregator's outputs that the depth head reads, counted from 0, each once."""
    return sorted({layer % config["depth"] for layer in config["dpt_layers"]})
