"""A frame with its name in the memory."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from spatial_mllm_ros.scene.frame import Frame

new_memory_id = itertools.count(1).__next__
"""A number for each memory of this process, larger than those of the memories before it."""


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """A frame in memory. ``frame_id`` is unique while the memory lives and grows with arrival; ``revision`` counts how often
    its pose or depth was corrected."""

    frame_id: int
    frame: Frame
    revision: int = 0

    @property
    def key(self) -> tuple[int, int]:
        """Names the frame as it is now."""
        return self.frame_id, self.revision

    def revised(self, frame: Frame) -> StoredFrame:
        """The same frame, corrected."""
        return StoredFrame(self.frame_id, frame, self.revision + 1)
