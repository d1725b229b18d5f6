"""Images that nothing places: of use to whoever looks at them, and to no measurement."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from spatial_mllm_ros.memory.keyframes.coverage import Selection
from spatial_mllm_ros.memory.stored import StoredFrame, new_memory_id
from spatial_mllm_ros.scene.frame import Frame


class UnplacedFrames:
    """Frames without a pose, evenly spread over all that came, bounded in number and in bytes. Safe for several threads.

    Has what a model is shown of a SpatialMemory: ``memory_id``, ``version``, ``keyframes``, ``frames``, ``get``. new_id:
    gives every frame its id. Beyond a bound every second frame goes, and from then on every second one is not taken.
    """

    def __init__(self, new_id: Callable[[], int], max_frames: int = 512, max_bytes: int = 1 << 30) -> None:
        if max_frames < 2 or max_bytes < 1:
            raise ValueError("max_frames must be at least 2 and max_bytes at least 1")
        self.memory_id = new_memory_id()
        self.nbytes = 0
        """Bytes of the images held."""
        self.version = 0
        """Changes whenever what is held does."""
        self._new_id = new_id
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._lock = threading.RLock()
        self._frames: dict[int, StoredFrame] = {}  # by id, as they came
        self._came = 0
        self._every = 1

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: Frame) -> None:
        """Take a frame in, if it is its turn. One without an image is of no use here."""
        if frame.image is None:
            return
        with self._lock:
            turn = self._came % self._every == 0
            self._came += 1
            if not turn:
                return
            frame_id = self._new_id()
            self._frames[frame_id] = StoredFrame(frame_id, frame)
            self.nbytes += frame.nbytes
            while len(self._frames) > self._max_frames or (self.nbytes > self._max_bytes and len(self._frames) > 1):
                self._frames = dict(list(self._frames.items())[::2])
                self.nbytes = sum(stored.frame.nbytes for stored in self._frames.values())
                self._every *= 2
            self.version += 1

    def get(self, frame_id: int) -> StoredFrame | None:
        """The frame of this id, None if it is not held."""
        return self._frames.get(frame_id)

    def frames(self, window_start: int = 0, window_end: int = 0) -> list[StoredFrame]:
        """Frames held, in order of their stamps, from ``window_start`` to ``window_end`` (ns, 0 = open)."""
        with self._lock:
            held = [s for s in self._frames.values() if s.frame.stamp_ns >= window_start]
        if window_end:
            held = [s for s in held if s.frame.stamp_ns <= window_end]
        return sorted(held, key=lambda s: s.frame.stamp_ns)

    def keyframes(self, k: int = 16, window_start: int = 0, window_end: int = 0) -> Selection:
        """Up to ``k`` frames evenly spread over those of a window: what each shows of the space, nobody knows."""
        held = self.frames(window_start, window_end)
        places = np.linspace(0, len(held) - 1, min(k, len(held))).round().astype(int)
        picked = tuple(held[i].frame_id for i in places)
        return Selection(picked, (0,) * len(picked), 0.0, 0, 0)
