"""Images with depth that nothing places: what one of them shows can be measured in that image alone."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.scene.frame import Frame


class SingleImages:
    """Frames with depth and camera model, without a pose; the oldest goes first. Safe to use from several threads.

    max_frames, max_bytes: bounds of what is held.
    """

    def __init__(self, max_frames: int = 3000, max_bytes: int = 1 << 29) -> None:
        self.nbytes = 0
        """Bytes of the images and depths held."""
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._lock = threading.RLock()
        self._frames: OrderedDict[tuple[int, str], StoredFrame] = OrderedDict()

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame_id: int, frame: Frame) -> bool:
        """Take a frame in; False for one without depth, camera model or a stamp of its own."""
        key = (frame.stamp_ns, frame.camera_frame)
        with self._lock:
            if frame.depth is None or frame.camera is None or frame.stamp_ns < 0 or key in self._frames:
                return False
            self._frames[key] = StoredFrame(frame_id, frame)
            self.nbytes += frame.nbytes
            while len(self._frames) > self._max_frames or (self.nbytes > self._max_bytes and len(self._frames) > 1):
                _, gone = self._frames.popitem(last=False)
                self.nbytes -= gone.frame.nbytes
            return True

    def nearest(self, stamp_ns: int, camera_frame: str = "", tolerance_ns: int = 0) -> StoredFrame | None:
        """The frame nearest to a stamp, at most ``tolerance_ns`` away."""
        with self._lock:
            near = [
                stored
                for (stamp, camera), stored in self._frames.items()
                if camera_frame in ("", camera) and abs(stamp - stamp_ns) <= tolerance_ns
            ]
        return min(near, key=lambda stored: abs(stored.frame.stamp_ns - stamp_ns), default=None)

    def latest(self, camera_frame: str = "") -> StoredFrame | None:
        """The newest frame of a camera ('' = any), None when none is held."""
        with self._lock:
            held: Iterable[StoredFrame] = self._frames.values()
            of_camera = [stored for stored in held if camera_frame in ("", stored.frame.camera_frame)]
        return max(of_camera, key=lambda stored: stored.frame.stamp_ns, default=None)

    def clear(self) -> None:
        """Forget every frame."""
        with self._lock:
            self._frames.clear()
            self.nbytes = 0
