"""Compares images that overlap: whether poses are read as they are meant, are of the images' moments, and how good they are.

Two images of the same surfaces should place them at the same spot. By how much they do not, and how that varies over
the image, tells errors of position, rotation and scale apart; how it grows with the time between the two tells drift
from jitter. What is measured refines the SensorModel that was assumed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from spatial_mllm_ros.memory.agreement_fit import Agreement, fit
from spatial_mllm_ros.memory.pose_time import PoseOffset, pose_offset
from spatial_mllm_ros.memory.track import PoseTrack
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.pose_check import PoseCheck
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.surfaces import SurfacePair, SurfaceView, compare

_PARTNERS = 4
_LEAST_PAIRS = 6
_MOST_FITTED = 96
"""Comparisons that the model is fitted to: more tell little more, and take time."""
_DOUBTED, _DOUBTED_M = 3.0, 0.04
"""Poses are doubted that are off by so many times what was assumed, and by so many metres at the usual depth."""
_TIMED, _FIRST_TIMED = 64, 8
"""Comparisons of late that tell of the time of poses; after how many that is looked at first, and
then at half as many more."""
_POSES = 4000
_EVERY_FRAMES = 15
"""Frames whose stamps are made up may all be of one moment."""
_FASTEST_M_S, _FEWEST_SPEEDS = 50.0, 5
"""No camera that sees rooms or streets moves so fast."""


@dataclass(frozen=True)
class AgreementConfig:
    """Bounds of the comparison.

    every_s, every_m: a frame is compared when it comes that much later, or from that much further away, than the last
    one that was. max_views: views kept to compare with. max_pairs: comparisons kept.
    """

    every_s: float = 0.5
    every_m: float = 0.3
    max_views: int = 160
    max_pairs: int = 160

    def __post_init__(self) -> None:
        if min(self.every_s, self.every_m, self.max_views - 1, self.max_pairs - 1) <= 0:
            raise ValueError("every_s and every_m must be positive, max_views and max_pairs at least 2")


class PoseAgreement:
    """Compares a small share of the frames with earlier ones that show the same surfaces. Safe for several threads.

    Bounded in views and comparisons. A frame costs one comparison at most, a few milliseconds, and mostly nothing. Moving
    things are left out as outliers, images that share no surface are not compared.
    """

    def __init__(self, config: AgreementConfig | None = None) -> None:
        self.config = config or AgreementConfig()
        self.version = 0
        """Changes with what was compared."""
        self._lock = threading.RLock()
        self._views: dict[int, SurfaceView] = {}
        self._last: dict[str, SurfaceView] = {}
        self._since: dict[str, int] = {}
        self._tracks: dict[str, PoseTrack] = {}
        self._due: deque[tuple[SurfaceView, SurfaceView]] = deque()
        self._pairs: list[SurfacePair] = []
        self._fitted: tuple[int, SensorModel, Agreement] | None = None
        self._readings: dict[str, PoseCheck] = {}
        self._timed: deque[tuple[SurfaceView, SurfaceView]] = deque(maxlen=_TIMED)
        self._compared, self._time_at = 0, _FIRST_TIMED
        self._offset: PoseOffset | None = None

    def add(self, frame_id: int, frame: Frame) -> None:
        """Look at a frame with a pose; at one that shows surfaces more closely."""
        T, camera = frame.T_world_camera, frame.camera_frame
        if T is None:
            return
        with self._lock:
            self._tracks.setdefault(camera, PoseTrack(_POSES)).set(frame.stamp_ns, T)
            if frame.depth is None or frame.camera is None:
                return
            last = self._last.get(camera)
            self._since[camera] = self._since.get(camera, 0) + 1
            if last is not None and abs(frame.stamp_ns - last.stamp_ns) < self.config.every_s * 1e9:
                moved = float(np.linalg.norm(T[:3, 3] - last.T_world_camera[:3, 3]))
                if moved < self.config.every_m and self._since[camera] < _EVERY_FRAMES:
                    self._compare_one()
                    return
            view = SurfaceView.of(frame_id, frame)
            if view is None:
                return
            self._last[camera], self._since[camera] = view, 0
            self._readings.setdefault(camera, PoseCheck()).add(view)
            while len(self._due) > _PARTNERS:  # frames that come slowly are all looked at
                self._compare_one()
            self._due.extend((view, other) for other in self._partners(view))
            self._views[frame_id] = view
            if len(self._views) > self.config.max_views:
                self._views = dict(list(self._views.items())[::2])

    def move(self, poses: Iterable[tuple[int, Transform]]) -> None:
        """Compare anew after poses were corrected (frame id, T_world_camera)."""
        with self._lock:
            moved = dict(poses)
            self._readings.clear()
            if not moved.keys() & self._views.keys():
                return
            for frame_id in moved.keys() & self._views.keys():
                view = self._views[frame_id] = replace(self._views[frame_id], T_world_camera=moved[frame_id])
                self._tracks[view.camera_frame].set(view.stamp_ns, view.T_world_camera)
            views = list(self._views.values())
            self._pairs.clear()
            self._forget_time()
            self._views = {}
            for view in views:
                self._due.extend((view, other) for other in self._partners(view))
                self._views[view.frame_id] = view
            self.version += 1

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            for held in (self._views, self._last, self._since, self._tracks, self._readings, self._pairs):
                held.clear()
            self._forget_time()
            self._fitted = None
            self.version += 1

    def measured(self, prior: SensorModel) -> Agreement | None:
        """What the images say, with ``prior`` weighed against it; None before a few of them could be compared."""
        with self._lock:
            self._compare_all()
            if len(self._pairs) < _LEAST_PAIRS:
                return None
            known = self._fitted
            if known is None or known[1] != prior or self.version > known[0] + max(known[2].pairs // 5, 2):
                some = self._pairs[:: -(-len(self._pairs) // _MOST_FITTED)]
                self._fitted = known = (self.version, prior, fit(some, prior))
            return known[2]

    def doubts(self) -> tuple[Doubt, ...]:
        """The gravest that speaks against the poses of each camera, or against them all."""
        with self._lock:
            of_each = {camera: _too_fast(track) for camera, track in self._tracks.items()}
            of_each = {camera: of_each[camera] or check.doubt() for camera, check in self._readings.items()} | {
                camera: doubt for camera, doubt in of_each.items() if doubt
            }
            found = sorted(((c, d) for c, d in of_each.items() if d is not None), key=lambda of: of[1].confidence)
            if found:
                camera, doubt = found[0]
                return (replace(doubt, text=f"{camera}: {doubt.text}") if len(self._tracks) > 1 else doubt,)
            self._compare_all()
            if self._compared >= self._time_at:
                self._time_at = self._compared * 3 // 2
                self._offset = pose_offset(self._timed, self._tracks)
            general = _of_another_time(self._offset) if self._offset is not None else self._disagreement()
        return () if general is None else (general,)

    def _disagreement(self) -> Doubt | None:
        """Poses that contradict each other by much more than was assumed of them."""
        found = self.measured(SensorModel() if self._fitted is None else self._fitted[1])
        if found is None:
            return None
        assumed, measured = found.displacement_m
        if measured < max(_DOUBTED * assumed, _DOUBTED_M):
            return None
        return Doubt(
            kind="poses_disagree",
            text=(
                f"images of the same surfaces place them {measured * 100:.0f} cm apart ({found.pairs} comparisons, at about "
                f"{found.depth_m:.1f} m; {assumed * 100:.1f} cm were assumed); stated deviations allow for it"
            ),
            remedy=(
                "give poses after loop closure or bundle adjustment, check that images and poses have one clock, and the "
                "transform from the robot to the camera"
            ),
            confidence=0.9,
        )

    def _compare_all(self) -> None:
        while self._due:
            self._compare_one()

    def _compare_one(self) -> None:
        if not self._due:
            return
        views = self._due.popleft()
        self._compared += 1
        self._timed.append(views)
        pair = compare(*views)
        if pair is None:
            return
        self._pairs.append(pair)
        self.version += 1
        if len(self._pairs) > self.config.max_pairs:
            # evenly over the times apart: pairs of long ago are rare and tell of drift
            order = sorted(range(len(self._pairs)), key=lambda i: self._pairs[i].apart_s)
            gone = set(order[1::4])
            self._pairs = [pair for i, pair in enumerate(self._pairs) if i not in gone]

    def _forget_time(self) -> None:
        self._due.clear()
        self._timed.clear()
        self._compared, self._time_at, self._offset = 0, _FIRST_TIMED, None

    def _partners(self, view: SurfaceView) -> list[SurfaceView]:
        """Some views of the same place: of just before, of long ago, and of between."""
        near = []
        middle = np.nanmedian(view.points.reshape(-1, 3), axis=0)
        world = view.T_world_camera[:3, :3] @ middle + view.T_world_camera[:3, 3]
        for other in self._views.values():
            T = other.T_world_camera
            X = T[:3, :3].T @ (world - T[:3, 3])
            if X[2] > 0.2 and T[:3, 2] @ view.T_world_camera[:3, 2] > 0.5:
                u, v = other.camera.project(X)
                if -0.2 < u / other.camera.width < 1.2 and -0.2 < v / other.camera.height < 1.2:
                    near.append(other)
        near.sort(key=lambda other: abs(other.stamp_ns - view.stamp_ns))
        if len(near) <= _PARTNERS:
            return near
        return [near[i] for i in np.linspace(0, len(near) - 1, _PARTNERS).round().astype(int)]


def _of_another_time(offset: PoseOffset) -> Doubt:
    late = "later" if offset.offset_s > 0 else "earlier"
    return Doubt(
        kind="pose_time",
        text=(
            f"depth fits the poses of {abs(offset.offset_s):.2f} s {late}: images of the same surfaces then place them "
            f"{offset.then_m * 100:.1f} cm apart, and {offset.apart_m * 100:.1f} cm as it is"
        ),
        remedy=(
            f"set pose_offset_s to {offset.offset_s:.2f} if images and poses have different clocks; if it is depth that comes "
            "late, have its driver stamp it with the time at which it was taken"
        ),
        confidence=0.3,
    )


def _too_fast(track: PoseTrack) -> Doubt | None:
    stamps, poses = track.latest(40)
    seconds = np.diff(stamps) / 1e9
    if len(seconds) < _FEWEST_SPEEDS:
        return None
    speed = float(np.median(np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1) / seconds))
    if speed <= _FASTEST_M_S:
        return None
    return Doubt(
        kind="pose_unit",
        text=f"by its poses and stamps the camera moves at {speed:.3g} m/s",
        remedy="set pose_unit_m to 0.001 if poses are in millimetres, or repair the stamps",
        confidence=0.1,
    )
