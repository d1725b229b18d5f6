"""A frame with its name in the memory."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_ros.scene.frame import Frame


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """A frame in memory. ``frame_id`` is unique while the memory lives and grows with arrival."""

    frame_id: int
    frame: Frame
