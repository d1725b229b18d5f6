"""What is derived from the memory and kept until the memory changes."""

from __future__ import annotations

import threading

import numpy as np

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.scene.level import ImageSurfels, Level, estimate_level, image_surfels
from spatial_mllm_ros.scene.pose import Transform


class LevelCache:
    """Up, floor and ceiling of a memory, found anew when its candidate frames change.

    What each image shows is kept by frame, so that a change costs one image, not all of them.

    T_zup_from_world: the level that a recording declares, if it does. max_frames: images used.
    """

    def __init__(self, T_zup_from_world: Transform | None = None, max_frames: int = 48) -> None:
        self._declared = T_zup_from_world
        self._max_frames = max_frames
        self._lock = threading.Lock()
        self._surfels: dict[int, ImageSurfels] = {}
        self._key: tuple[object, ...] | None = None
        self._level: Level | None = None

    def level(self, memory: SpatialMemory) -> Level:
        """The level of what ``memory`` holds now."""
        with self._lock:
            candidates = memory.candidates
            chosen = [candidates[i] for i in spread(len(candidates), self._max_frames)]
            stored = [s for s in map(memory.get, chosen) if s is not None]
            key = tuple((s.frame_id, id(s.frame)) for s in stored)
            if self._level is None or key != self._key:
                kept = self._surfels
                self._surfels = {}
                for s in stored:
                    known = kept.get(s.frame_id)
                    if known is None or known.T_world_camera is not s.frame.T_world_camera:
                        known = image_surfels(s.frame)
                    self._surfels[s.frame_id] = known
                self._level = estimate_level(list(self._surfels.values()), self._declared)
                self._key = key
            return self._level


def spread(count: int, at_most: int) -> list[int]:
    """Up to ``at_most`` of the indices 0 .. count - 1, evenly spread, both ends included."""
    if count <= at_most:
        return list(range(count))
    return np.unique(np.linspace(0, count - 1, at_most).round().astype(int)).tolist()
