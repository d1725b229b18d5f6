"""Which images take part in geometry from color, and which of them wait for a window."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.perception.rgb.config import RgbGeometryConfig
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import Transform, invert, rotation_angle

_THUMBNAIL = 16
_SAME_IMAGE = 4.0
_OCCASIONAL_NS = 2 * 10**9  # depth that comes now and then comes about so far apart


class ImageGate:
    """Lets images in that show something new; they wait here for their window. Safe from any thread.

    left_out: images by reason. clock: seconds.
    """

    def __init__(self, config: RgbGeometryConfig, clock: Callable[[], float], lock: threading.RLock) -> None:
        self._config, self._clock, self._lock = config, clock, lock
        self.left_out: Counter[str] = Counter()
        self.reset()

    def __len__(self) -> int:
        return len(self._waiting)

    def reset(self) -> None:
        """As if nothing had come."""
        with self._lock:
            self._waiting: deque[tuple[float, Frame]] = deque()
            self._between: list[Frame] = []
            self._latest: Frame | None = None
            self._latest_depth_ns = -_OCCASIONAL_NS
            self._thumbnail: NDArray[np.float32] | None = None
            self.left_out.clear()

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count images that take no part."""
        with self._lock:
            self.left_out[reason] += count

    def add(self, frame: Frame) -> None:
        """Take a frame in, if it shows something new."""
        with self._lock:
            reason = self._reason_to_leave_out(frame)
            if reason is not None:
                self.left_out[reason] += 1
                return
            try:
                is_new = self._is_new(frame)
            except ValueError:
                self.left_out["bad_image"] += 1
                return
            if not is_new:
                if frame.T_world_camera is not None:
                    self._between.append(frame)
                    if len(self._between) > self._config.max_waiting:
                        del self._between[0]
                        self.left_out["little_change"] += 1
                else:
                    self.left_out["little_change"] += 1
                return
            self._latest = frame
            if frame.depth is not None:
                self._latest_depth_ns = frame.stamp_ns
            self._waiting.append((self._clock(), frame))
            if len(self._waiting) > self._config.max_waiting:
                older = list(self._waiting)[: len(self._waiting) // 2 : 2]
                for item in older:
                    self._waiting.remove(item)
                self.left_out["too_slow"] += len(older)

    def is_due(self, room: int) -> bool:
        """Whether a window with ``room`` for new images is full, or one of them has waited long enough."""
        if not self._waiting:
            return False
        return len(self._waiting) >= room or self._clock() - self._waiting[0][0] >= self._config.max_wait_s

    def pick(self, room: int) -> list[Frame]:
        """The next ``room`` images, which wait no longer."""
        with self._lock:
            return [self._waiting.popleft()[1] for _ in range(min(room, len(self._waiting)))]

    def pick_spread(self, room: int) -> list[Frame]:
        """``room`` images evenly spread over all that wait, the newest among them; the others are given up."""
        with self._lock:
            count = len(self._waiting)
            chosen = np.unique(np.linspace(0, count - 1, room).round().astype(int))
            frames = [self._waiting[i][1] for i in chosen]
            self.left_out["too_slow"] += count - len(frames)
            self._waiting.clear()
            return frames

    def put_back(self, frames: list[Frame]) -> None:
        """Images that were picked have their turn again."""
        with self._lock:
            self._waiting.extendleft((self._clock(), frame) for frame in reversed(frames))

    def take_between(self) -> list[Frame]:
        """Frames with poses that joined no window, since the last call."""
        with self._lock:
            frames, self._between = self._between, []
            return frames

    def correct_poses(self, poses: Mapping[int, Transform]) -> None:
        """Better measured poses, by stamp, for those that wait."""
        with self._lock:
            self._waiting = deque(
                (t, replace(f, T_world_camera=poses.get(f.stamp_ns, f.T_world_camera))) for t, f in self._waiting
            )

    def _reason_to_leave_out(self, frame: Frame) -> str | None:
        latest = self._latest
        if frame.image is None:
            return "no_image"
        if latest is not None and frame.camera_frame != latest.camera_frame:
            return "other_camera"
        if latest is not None and frame.stamp_ns <= latest.stamp_ns:
            return "out_of_order"
        return None

    def _is_new(self, frame: Frame) -> bool:
        """Whether the camera has moved, turned or, where that is not known, the image changed since the last one."""
        c, latest = self._config, self._latest
        if latest is None or not (c.min_interval_s or c.min_translation_m or c.min_rotation_rad):
            return True
        if frame.stamp_ns - latest.stamp_ns < c.min_interval_s * 1e9:
            return False
        if frame.depth is not None and frame.stamp_ns - self._latest_depth_ns > _OCCASIONAL_NS:
            return True  # it tells the scale, moved or not
        if frame.T_world_camera is not None and latest.T_world_camera is not None:
            T = invert(latest.T_world_camera) @ frame.T_world_camera
            return bool(np.linalg.norm(T[:3, 3]) >= c.min_translation_m) or rotation_angle(T) >= c.min_rotation_rad
        image = frame.rgb()
        assert image is not None
        small = image[::_THUMBNAIL, ::_THUMBNAIL].mean(axis=2, dtype=np.float32)
        before, same_size = self._thumbnail, self._thumbnail is not None and self._thumbnail.shape == small.shape
        if same_size and before is not None and float(np.abs(small - before).mean()) < _SAME_IMAGE:
            return False
        self._thumbnail = small
        return True
