"""What is derived from the memory and kept until the memory changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

import numpy as np

from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.memory.view import MemoryView
from spatial_mllm_ros.perception.rgb.rgb_geometry import is_own_world
from spatial_mllm_ros.scene.gravity import Gravity, ImageSurfels, estimate_gravity, image_surfels
from spatial_mllm_ros.scene.pose import Transform, invert
from spatial_mllm_ros.scene.registration import register_depth


class GravityCache:
    """Up, floor and ceiling of a memory, found anew when its candidate frames change.

    What each image shows is kept by frame, so that a change costs one image, not all of them.

    T_zup_from_world: the level that a recording declares for its world, if it does. max_frames: images used.
    """

    def __init__(self, T_zup_from_world: Transform | None = None, max_frames: int = 48) -> None:
        self._declared = T_zup_from_world
        self._max_frames = max_frames
        self._lock = threading.Lock()
        self._surfels: dict[int, ImageSurfels] = {}
        self._key: tuple[object, ...] | None = None
        self._gravity: Gravity | None = None

    def gravity(self, memory: MemoryView) -> Gravity:
        """The level of what ``memory`` holds now."""
        with self._lock:
            return self._find(memory)

    def _find(self, memory: MemoryView) -> Gravity:
        # by a hash of the id: evenly spread, and nearly the same ones when some candidates change
        chosen = sorted(memory.candidates, key=lambda i: (i * 2654435761) % 2**32)[: self._max_frames]
        stored = [s for s in map(memory.get, sorted(chosen)) if s is not None]
        key = tuple(s.key for s in stored)
        if self._gravity is None or key != self._key:
            kept = self._surfels
            self._surfels = {}
            for s in stored:
                known = kept.get(s.frame_id)
                if known is None or known.T_world_camera is not s.frame.T_world_camera:
                    known = image_surfels(s.frame)
                self._surfels[s.frame_id] = known
            self._gravity = estimate_gravity(
                list(self._surfels.values()), None if is_own_world(memory.world_frame) else self._declared
            )
            self._key = key
        return self._gravity

    def surfels(self, memory: MemoryView) -> list[ImageSurfels]:
        """What the images show that the level of ``memory`` was found in."""
        with self._lock:
            self._find(memory)
            return list(self._surfels.values())


class DepthLender:
    """Gives images without depth the depth of the nearest image of the same camera, moved by the two poses.

    Color often comes faster than depth. The scene is taken to stand still for the moment between.

    max_gap_s: depth is not lent over a longer time. keep: images whose lent depth is remembered.
    """

    def __init__(self, max_gap_s: float = 0.25, keep: int = 16) -> None:
        self._max_gap_ns = int(max_gap_s * 1e9)
        self._keep = keep
        self._lock = threading.Lock()
        self._lent: OrderedDict[tuple[int, int, int, int], StoredFrame] = OrderedDict()

    def with_depth(self, stored: StoredFrame, memory: MemoryView) -> StoredFrame:
        """The frame with its own or with lent depth; unchanged when nobody near has any."""
        frame = stored.frame
        if frame.depth is not None or frame.camera is None or frame.T_world_camera is None:
            return stored
        around = memory.frames(
            max(frame.stamp_ns - self._max_gap_ns, 1), frame.stamp_ns + self._max_gap_ns, frame.camera_frame
        )
        lenders = [s for s in around if s.frame.depth is not None]
        if not lenders:
            return stored
        lender = min(lenders, key=lambda s: abs(s.frame.stamp_ns - frame.stamp_ns))
        key = (*stored.key, *lender.key)
        with self._lock:
            if key not in self._lent:
                theirs = lender.frame
                assert theirs.depth is not None
                assert theirs.camera is not None
                assert theirs.T_world_camera is not None
                T = invert(frame.T_world_camera) @ theirs.T_world_camera
                depth = register_depth(theirs.depth, theirs.camera, frame.camera, T)
                self._lent[key] = replace(stored, frame=replace(frame, depth=depth))
                while len(self._lent) > self._keep:
                    self._lent.popitem(last=False)
            self._lent.move_to_end(key)
            return self._lent[key]


def spread(count: int, at_most: int) -> list[int]:
    """Up to ``at_most`` of the indices 0 .. count - 1, evenly spread, both ends included."""
    if count <= at_most:
        return list(range(count))
    return np.unique(np.linspace(0, count - 1, at_most).round().astype(int)).tolist()
