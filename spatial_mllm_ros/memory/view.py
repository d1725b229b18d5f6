"""What a memory holds, to be read: the memory itself, or a snapshot of it that no longer changes."""

from __future__ import annotations

import bisect
import threading
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.memory.agreement import PoseAgreement
from spatial_mllm_ros.memory.keyframes.coverage import Selection
from spatial_mllm_ros.memory.keyframes.streaming import StreamingSelector
from spatial_mllm_ros.memory.single import SingleImages
from spatial_mllm_ros.memory.stored import StoredFrame, new_memory_id
from spatial_mllm_ros.memory.track import PoseTrack
from spatial_mllm_ros.scene.metric_scale import MetricScale
from spatial_mllm_ros.scene.region import Region
from spatial_mllm_ros.scene.sensor import SensorModel


class MemoryView:
    """Reads frames, poses and keyframes. Safe to use from several threads."""

    def __init__(self, selector: StreamingSelector) -> None:
        self.memory_id = new_memory_id()
        """Of the memory, and of its snapshots."""
        self.refused: Counter[str] = Counter()
        self.scale: MetricScale | None = None
        """Whether lengths are in metres, where depth and poses were estimated from color; None: both were measured."""
        self.sensor: SensorModel | None = None
        """Error model of depth and poses that were estimated; None: the camera's own holds."""
        self.single = SingleImages()
        """Images with depth that came without a pose. A snapshot shares them with its memory."""
        self.agreement = PoseAgreement()
        """Compares images that overlap. A snapshot shares it with its memory, so that it knows the most."""
        self._lock = threading.RLock()
        self._version = 0
        self._frames: dict[int, StoredFrame] = {}
        self._order: list[tuple[int, str, int]] = []  # (stamp, camera frame, id), sorted
        self._tracks: dict[str, PoseTrack] = {}
        self._selector = selector
        self._world_frame: str | None = None

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def version(self) -> int:
        """Changes whenever the memory does."""
        return self._version

    @property
    def world_frame(self) -> str:
        """The fixed frame of all poses; '' before the first frame."""
        return self._world_frame or ""

    @property
    def candidates(self) -> tuple[int, ...]:
        """Ids of the frames that may become keyframes."""
        with self._lock:
            return self._selector.candidates

    def sensor_from(self, prior: SensorModel) -> SensorModel:
        """The error model of what is held: that of estimated geometry, else ``prior`` refined by what the images say."""
        if self.sensor is not None:
            return self.sensor
        found = self.agreement.measured(prior)
        return prior if found is None else found.sensor

    def frames(self, window_start: int = 0, window_end: int = 0, camera_frame: str = "") -> list[StoredFrame]:
        """Frames held, in order of their stamps, from ``window_start`` to ``window_end`` (ns, 0 = open), of one camera."""
        with self._lock:
            i = bisect.bisect_left(self._order, (window_start,)) if window_start else 0
            j = bisect.bisect_left(self._order, (window_end + 1,)) if window_end else len(self._order)
            return [self._frames[f] for _, c, f in self._order[i:j] if camera_frame in ("", c)]

    def get(self, frame_id: int) -> StoredFrame | None:
        """The frame of this id, None if it is not held."""
        return self._frames.get(frame_id)

    def nearest(self, stamp_ns: int, camera_frame: str = "", tolerance_ns: int = 0) -> StoredFrame | None:
        """The frame nearest to a stamp, at most ``tolerance_ns`` away; of two equally near the earlier."""
        with self._lock:
            i = bisect.bisect_left(self._order, (stamp_ns - tolerance_ns,))
            best: tuple[int, int] | None = None
            while i < len(self._order) and self._order[i][0] <= stamp_ns + tolerance_ns:
                stamp, camera, frame_id = self._order[i]
                distance = abs(stamp - stamp_ns)
                if camera_frame in ("", camera) and (best is None or distance < best[0]):
                    best = (distance, frame_id)
                i += 1
            return None if best is None else self._frames[best[1]]

    def cameras(self) -> tuple[str, ...]:
        """Camera frames seen, in order of their first frame."""
        with self._lock:
            return tuple(self._tracks)

    def track(self, camera_frame: str = "") -> PoseTrack | None:
        """Poses of a camera ('' = the first one seen), also where its images had to go; None for an unknown camera."""
        with self._lock:
            if camera_frame == "":
                return next(iter(self._tracks.values()), None)
            return self._tracks.get(camera_frame)

    def keyframes(
        self, k: int = 16, window_start: int = 0, window_end: int = 0, region: Region | None = None
    ) -> Selection:
        """The up to ``k`` frames that cover the most space (ids in pick order); see ``StreamingSelector.select``."""
        with self._lock:
            return self._selector.select(k, window_start, window_end, region)

    def seen_points(self, window_start: int = 0, window_end: int = 0) -> NDArray[np.float32]:
        """Sampled surface points [n, 3] (metres, world) of the candidate frames within the window (ns, 0 = open)."""
        with self._lock:
            points = [
                self._selector.world_points(i)
                for i in self._selector.candidates
                if self._frames[i].frame.stamp_ns >= window_start
                and (not window_end or self._frames[i].frame.stamp_ns <= window_end)
            ]
            return np.concatenate(points) if points else np.empty((0, 3), dtype=np.float32)

    def _copy(self) -> MemoryView:
        """The same at this moment, of its own; frames and points are shared, and so is the count of what was refused."""
        copy = MemoryView(self._selector.copy())
        copy.memory_id = self.memory_id
        copy.refused, copy.scale, copy.sensor = self.refused, self.scale, self.sensor
        copy.agreement, copy.single = self.agreement, self.single
        copy._version, copy._world_frame = self._version, self._world_frame
        copy._frames, copy._order = self._frames.copy(), self._order.copy()
        copy._tracks = {camera: track.copy() for camera, track in self._tracks.items()}
        return copy
