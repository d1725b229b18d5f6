"""Where a camera was: its poses by stamp, bounded in count."""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.pose import Transform, from_quaternion, interpolate, to_quaternion


class PoseTrack:
    """Poses of one camera in order of their stamps.

    Holds at most ``max_poses``. Beyond that every second pose of the older half is dropped, so that the whole journey
    stays on record, coarser the longer ago.
    """

    def __init__(self, max_poses: int = 100_000) -> None:
        if max_poses < 4:
            raise ValueError(f"a track needs room for at least 4 poses, not {max_poses}")
        self.max_poses = max_poses
        self._stamps: list[int] = []
        self._poses: list[tuple[float, ...]] = []  # x, y, z, qx, qy, qz, qw

    def __len__(self) -> int:
        return len(self._stamps)

    def __contains__(self, stamp_ns: int) -> bool:
        i = bisect.bisect_left(self._stamps, stamp_ns)
        return i < len(self._stamps) and self._stamps[i] == stamp_ns

    def has_near(self, stamp_ns: int, tolerance_ns: int) -> bool:
        """Whether there is a pose at most ``tolerance_ns`` from a stamp."""
        i = bisect.bisect_left(self._stamps, stamp_ns - tolerance_ns)
        return i < len(self._stamps) and self._stamps[i] <= stamp_ns + tolerance_ns

    def set(self, stamp_ns: int, T_world_camera: Transform) -> None:
        """Add the pose at a stamp, or replace it."""
        pose = (*T_world_camera[:3, 3].tolist(), *to_quaternion(T_world_camera).tolist())
        i = bisect.bisect_left(self._stamps, stamp_ns)
        if i < len(self._stamps) and self._stamps[i] == stamp_ns:
            self._poses[i] = pose
            return
        self._stamps.insert(i, stamp_ns)
        self._poses.insert(i, pose)
        if len(self._stamps) > self.max_poses:
            half = len(self._stamps) // 2
            del self._stamps[1:half:2], self._poses[1:half:2]

    def copy(self) -> PoseTrack:
        """The same poses in a track of its own."""
        copy = PoseTrack(self.max_poses)
        copy._stamps, copy._poses = self._stamps.copy(), self._poses.copy()
        return copy

    @property
    def first(self) -> int | None:
        """Stamp (ns) of the first pose."""
        return self._stamps[0] if self._stamps else None

    @property
    def last(self) -> int | None:
        """Stamp (ns) of the newest pose."""
        return self._stamps[-1] if self._stamps else None

    def arrays(self, start: int = 0, end: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Stamps [n] (ns) and poses [n, 7] (x, y, z in metres, quaternion x, y, z, w) from ``start`` to ``end`` (0 = open)."""
        i = bisect.bisect_left(self._stamps, start)
        j = bisect.bisect_right(self._stamps, end) if end else len(self._stamps)
        return np.array(self._stamps[i:j], dtype=np.int64), np.array(self._poses[i:j], dtype=np.float64).reshape(-1, 7)

    def at(self, stamp_ns: int, max_gap_ns: int) -> Transform | None:
        """T_world_camera at a stamp, interpolated; None outside the track or inside a gap longer than ``max_gap_ns``."""
        i = bisect.bisect_left(self._stamps, stamp_ns)
        if i < len(self._stamps) and self._stamps[i] == stamp_ns:
            return self._transform(i)
        if i == 0 or i == len(self._stamps) or self._stamps[i] - self._stamps[i - 1] > max_gap_ns:
            return None
        before, after = self._stamps[i - 1], self._stamps[i]
        return interpolate(self._transform(i - 1), self._transform(i), (stamp_ns - before) / (after - before))

    def _transform(self, i: int) -> Transform:
        return from_quaternion(self._poses[i][3:], self._poses[i][:3])
