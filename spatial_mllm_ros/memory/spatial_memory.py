"""The spatial memory: frames in, keyframes out, bounded in frames and in bytes."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from spatial_mllm_ros.memory.keyframes.streaming import SelectorConfig, StreamingSelector
from spatial_mllm_ros.memory.single import SingleImages
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.memory.track import PoseTrack
from spatial_mllm_ros.memory.view import MemoryView
from spatial_mllm_ros.scene.backproject import camera_points, extend_bounds
from spatial_mllm_ros.scene.depth import AS_IT_IS, DepthFormat
from spatial_mllm_ros.scene.depth_check import DepthCheck
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.metric_scale import MetricScale
from spatial_mllm_ros.scene.pose import InvalidTransform, Transform, checked_transform
from spatial_mllm_ros.scene.sensor import SensorModel


@dataclass(frozen=True)
class MemoryConfig:
    """Bounds of the memory.

    max_frames, max_bytes: images and depth kept. Beyond either, the oldest frame that is no candidate keyframe goes
    first. max_poses: poses kept per camera, also of frames that had to go. points_per_frame: about so many points of a
    frame, evenly spread, are sampled for selection. max_depth_m: deeper points do not count as seen space.
    max_future_s: a stamp further ahead of the clock is refused.
    """

    max_frames: int = 3000
    max_bytes: int = 2 << 30
    max_poses: int = 100_000
    points_per_frame: int = 20_000
    max_depth_m: float = 10.0
    max_future_s: float = 1.0
    selector: SelectorConfig = field(default_factory=SelectorConfig)

    def __post_init__(self) -> None:
        if self.max_frames < 1 or self.max_bytes < 1 or self.points_per_frame < 1 or self.max_depth_m <= 0:
            raise ValueError("max_frames, max_bytes, points_per_frame and max_depth_m must be positive")


@dataclass(frozen=True, eq=False)
class Revision:
    """What became of a frame when its geometry was estimated anew.

    stamp_ns, camera_frame: which frame. T_world_camera: its pose, in ``world_frame``. depth_factor: what its depth is
    multiplied by.
    """

    stamp_ns: int
    camera_frame: str
    T_world_camera: Transform
    depth_factor: float = 1.0
    world_frame: str = "map"


class SpatialMemory(MemoryView):
    """Holds what the camera has seen. Safe to use from several threads.

    A frame needs a pose, a camera model and a stamp of its own; others are refused and counted in ``refused`` by reason
    (``no_pose``, ``bad_pose``, ``no_camera_info``, ``stamp_repeated``, ``stamp_negative``, ``stamp_from_the_future``,
    ``other_world_frame``). A frame is never placed at the origin for want of a pose; with depth it is held in ``single``, where
    it can be measured by itself (a quarter of max_bytes beside the others). Frames may arrive out of order.

    clock: nanoseconds now, on the time line of the stamps. first_id: id of the first frame; the ``next_id`` of a memory
    that this one follows, so that an old id never names a new frame. depth: what is taken for granted of it, to be doubted.
    on_taken: called with every frame that was taken, outside the memory's lock; it calls ``consider``, at once or later.
    None: every frame is considered at once.
    """

    def __init__(
        self,
        config: MemoryConfig | None = None,
        clock: Callable[[], int] = time.time_ns,
        first_id: int = 0,
        depth: DepthFormat = AS_IT_IS,
        on_taken: Callable[[SpatialMemory, StoredFrame], object] | None = None,
    ) -> None:
        self.config = config or MemoryConfig()
        self._on_taken = on_taken
        super().__init__(StreamingSelector(self.config.selector))
        self.single = SingleImages(self.config.max_frames, self.config.max_bytes // 4)
        self.without_depth = 0
        """Frames taken that show no depth (none given, or not one valid pixel): they have a pose and an image only."""
        self.evicted = 0
        """Frames dropped to stay within the bounds."""
        self.nbytes = 0
        """Bytes of the images and depths held."""
        self._clock = clock
        self.next_id = first_id
        self._considered = first_id - 1  # the newest frame that was considered
        self._depth = depth
        self._depth_checks: dict[str, DepthCheck] = {}
        self._snapshot: MemoryView | None = None

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What depth and poses, compared between images, say against what they are taken for; of each kind the gravest."""
        with self._lock:
            found = [(camera, doubt) for camera, check in self._depth_checks.items() for doubt in check.doubts()]
            several = len(self._depth_checks) > 1
        gravest: dict[str, Doubt] = {}
        for camera, doubt in sorted(found, key=lambda of: of[1].confidence):
            gravest.setdefault(doubt.kind, replace(doubt, text=f"{camera}: {doubt.text}") if several else doubt)
        wrong_unit = "depth_scale" in gravest  # which explains why depth and poses disagree
        return (*gravest.values(), *(() if wrong_unit else self.agreement.doubts()))

    def snapshot(self) -> MemoryView:
        """What is held now, to be read while the memory goes on; the same one until the memory changes."""
        with self._lock:
            s = self._snapshot
            if s is None or (s.version, s.scale, s.sensor) != (self._version, self.scale, self.sensor):
                s = self._snapshot = self._copy()
            return s

    def add(self, frame: Frame) -> int | None:
        """Take a frame in; its id, or None when it is refused (see ``refused``)."""
        with self._lock:
            frame_id = self._add(frame)
            if frame_id is None:
                return None
            stored = self._frames[frame_id]
            if self._on_taken is None:
                self._consider(frame_id)
            self._evict()
        if self._on_taken is not None:
            self._on_taken(self, stored)
        return frame_id

    def consider(self, frame_id: int) -> None:
        """Look at a frame that was taken: whether it may become a keyframe, and how well it agrees with others.

        Nothing for one that is gone, or a candidate already.
        """
        with self._lock:
            if frame_id in self._frames and frame_id not in self._selector.candidates:
                self._consider(frame_id)
                self._version += 1

    def _consider(self, frame_id: int) -> None:
        frame = self._frames[frame_id].frame
        self._considered = max(self._considered, frame_id)
        if not self._offer(frame_id, frame):
            self.without_depth += 1
        if self.sensor is None and self.scale is None:  # estimated geometry says itself how good it is
            self.agreement.add(frame_id, frame)

    def _add(self, frame: Frame) -> int | None:
        reason = self._reason_to_refuse(frame)
        if reason is not None:
            self.refused[reason] += 1
            if reason == "no_pose" and frame.stamp_ns <= self._latest_ns() and self.single.add(self.next_id, frame):
                self.next_id += 1
            return None
        frame = self._checked_depth(frame)
        frame_id = self.next_id
        self.next_id += 1
        self._version += 1
        self._world_frame = frame.world_frame
        self._frames[frame_id] = StoredFrame(frame_id, frame)
        self.nbytes += frame.nbytes
        bisect.insort(self._order, (frame.stamp_ns, frame.camera_frame, frame_id))
        track = self._tracks.setdefault(frame.camera_frame, PoseTrack(self.config.max_poses))
        assert frame.T_world_camera is not None
        track.set(frame.stamp_ns, frame.T_world_camera)
        return frame_id

    def _offer(self, frame_id: int, frame: Frame) -> bool:
        """Let the selector look at a frame; whether it shows any depth."""
        if frame.depth is None:
            return False
        stride = max(1, round((frame.depth.size / self.config.points_per_frame) ** 0.5))
        points = camera_points(frame, stride, self.config.max_depth_m)
        if len(points) == 0:
            return False
        assert frame.T_world_camera is not None
        bounds = extend_bounds(frame, *self._selector.bounds, self.config.max_depth_m)
        self._selector.add(frame_id, frame.stamp_ns, points, frame.T_world_camera, bounds)
        return True

    def _checked_depth(self, frame: Frame) -> Frame:
        """The frame without depth that is none; what was only now recognised as that goes from the frames held, too."""
        if self.scale is not None:
            return frame  # estimated, and says itself how far it is to be believed
        check = self._depth_checks.get(frame.camera_frame)
        if check is None:
            check = self._depth_checks[frame.camera_frame] = DepthCheck(self._depth)
        frame, earlier_too = check.look(frame)
        if earlier_too:
            for _, camera, frame_id in self._order:
                held = self._frames[frame_id]
                cleaned = check.without(held.frame) if camera == frame.camera_frame else held.frame
                if cleaned is not held.frame:
                    self._frames[frame_id] = held.revised(cleaned)
                    candidate = frame_id in self._selector.candidates
                    self._selector.discard(frame_id)
                    if candidate and not self._offer(frame_id, cleaned):
                        self.without_depth += 1
            self._selector.correct([(i, T) for i in self._selector.candidates if (T := self._pose_of(i)) is not None])
        return frame

    def _pose_of(self, frame_id: int) -> Transform | None:
        return self._frames[frame_id].frame.T_world_camera

    def correct_poses(self, poses: Mapping[int, Transform], camera_frame: str = "") -> int:
        """Replace poses by stamp (ns): {stamp: T_world_camera}; how many frames held were corrected.

        For the results of loop closures and bundle adjustment. The track, the voxels of the candidates and whatever is
        derived from the memory follow. Raises InvalidTransform, and changes nothing, when one is not a rigid transform.
        """
        checked = {stamp: checked_transform(T) for stamp, T in poses.items()}
        with self._lock:
            changed = []
            for stamp, T in checked.items():
                for camera, track in self._tracks.items():
                    if camera_frame in ("", camera) and stamp in track:
                        track.set(stamp, T)
                i = bisect.bisect_left(self._order, (stamp,))
                while i < len(self._order) and self._order[i][0] == stamp:
                    _, camera, frame_id = self._order[i]
                    i += 1
                    if camera_frame in ("", camera):
                        stored = self._frames[frame_id]
                        self._frames[frame_id] = stored.revised(replace(stored.frame, T_world_camera=T))
                        changed.append((frame_id, T))
            self._selector.correct(changed)
            self.agreement.move(changed)
            self._version += 1
            return len(changed)

    def revise(
        self, revisions: Iterable[Revision], scale: MetricScale | None, sensor: SensorModel | None = None
    ) -> int:
        """Move and rescale frames in one step, with ``scale`` and ``sensor`` that then hold; how many held were revised.

        For geometry that is estimated and gets better. Frames keep their ids. A change of the world frame must revise
        every frame: those left out cannot be placed and are dropped. Raises InvalidTransform, and changes nothing, when a
        pose is not a rigid transform.
        """
        checked = [(r, checked_transform(r.T_world_camera)) for r in revisions]
        with self._lock:
            changed: dict[int, float] = {}
            poses = []
            revised_tracks = {camera: PoseTrack(self.config.max_poses) for camera in self._tracks}
            world = self._world_frame
            for r, T in checked:
                world = r.world_frame
                track = self._tracks.get(r.camera_frame)
                if track is not None and r.stamp_ns in track:
                    track.set(r.stamp_ns, T)
                    revised_tracks[r.camera_frame].set(r.stamp_ns, T)
                i = bisect.bisect_left(self._order, (r.stamp_ns, r.camera_frame))
                if i == len(self._order) or self._order[i][:2] != (r.stamp_ns, r.camera_frame):
                    continue
                frame_id = self._order[i][2]
                stored = self._frames[frame_id]
                frame, depth = stored.frame, stored.frame.depth
                if depth is not None and r.depth_factor != 1.0:
                    depth = (depth * np.float32(r.depth_factor)).astype(depth.dtype)
                revised = replace(frame, depth=depth, T_world_camera=T, world_frame=r.world_frame)
                self._frames[frame_id] = stored.revised(revised)
                poses.append((frame_id, T))
                changed[frame_id] = r.depth_factor
            if world != self._world_frame:
                self._world_frame, self._tracks = world, revised_tracks
                for frame_id in [f for f in self._frames if f not in changed]:
                    self._drop(frame_id)
            self._selector.correct(poses, changed)
            self.scale, self.sensor = scale, sensor
            self.agreement.clear()
            if changed:
                self._version += 1
            return len(changed)

    def clear(self) -> None:
        """Forget every frame and pose. Ids go on, so that an old one never names a new frame."""
        with self._lock:
            self._frames.clear()
            self._order.clear()
            self._tracks.clear()
            self._depth_checks.clear()
            self.single.clear()
            self.agreement.clear()
            self._selector = StreamingSelector(self.config.selector)
            self._world_frame, self.nbytes, self.scale, self.sensor = None, 0, None, None
            self._version += 1

    def _drop(self, frame_id: int) -> None:
        stored = self._frames.pop(frame_id)
        self._order.remove((stored.frame.stamp_ns, stored.frame.camera_frame, frame_id))
        self.nbytes -= stored.frame.nbytes
        self._selector.discard(frame_id)
        self.evicted += 1

    def _latest_ns(self) -> int:
        """The latest stamp that is taken."""
        return self._clock() + int(self.config.max_future_s * 1e9)

    def _reason_to_refuse(self, frame: Frame) -> str | None:
        if frame.T_world_camera is None:
            return "no_pose"
        if frame.camera is None:
            return "no_camera_info"
        try:
            checked_transform(frame.T_world_camera)
        except InvalidTransform:
            return "bad_pose"
        if frame.stamp_ns < 0:
            return "stamp_negative"
        if frame.stamp_ns > self._latest_ns():
            return "stamp_from_the_future"
        if self._world_frame is not None and frame.world_frame != self._world_frame:
            return "other_world_frame"
        track = self._tracks.get(frame.camera_frame)
        if track is not None and frame.stamp_ns in track:
            return "stamp_repeated"
        return None

    def _evict(self) -> None:
        while len(self._frames) > self.config.max_frames or (
            self.nbytes > self.config.max_bytes and len(self._frames) > 1
        ):
            candidates = set(self._selector.candidates)
            # what waits to be considered may become a candidate: without this a memory full of candidates took nothing new
            spare = (i for i, (_, _, f) in enumerate(self._order) if f <= self._considered and f not in candidates)
            position = next(spare, 0)
            _, _, frame_id = self._order.pop(position)
            self.nbytes -= self._frames.pop(frame_id).frame.nbytes
            self._selector.discard(frame_id)
            self.evicted += 1
