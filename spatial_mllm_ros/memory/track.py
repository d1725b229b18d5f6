"""Where a camera was: its poses by stamp, bounded in count."""

from __future__ import annotations

import bisect
import math

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.pose import Transform, from_quaternion, interpolate, to_quaternion
from spatial_mllm_ros.scene.transform_tree import TransformTree

_CLOSE_NS = 200_000_000
"""Between poses so close together no camera goes another way than straight."""
_AROUND = 8
"""Poses before and after a gap by which it is judged."""


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

    def latest(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The newest ``count`` stamps and poses, as ``arrays``."""
        return np.array(self._stamps[-count:], dtype=np.int64), np.array(self._poses[-count:], dtype=np.float64).reshape(-1, 7)

    def at(self, stamp_ns: int, max_gap_ns: int) -> Transform | None:
        """T_world_camera at a stamp, interpolated; None outside the track or inside a gap longer than ``max_gap_ns``."""
        i = bisect.bisect_left(self._stamps, stamp_ns)
        if i < len(self._stamps) and self._stamps[i] == stamp_ns:
            return self._transform(i)
        if i == 0 or i == len(self._stamps) or self._stamps[i] - self._stamps[i - 1] > max_gap_ns:
            return None
        before, after = self._stamps[i - 1], self._stamps[i]
        return interpolate(self._transform(i - 1), self._transform(i), (stamp_ns - before) / (after - before))

    def gap_stddev(self, stamp_ns: int) -> tuple[float, float]:
        """What ``at`` may be off by, m and rad, for interpolating in a gap: judged by how unevenly the camera moves round it,
        as TransformTree.stddev does; none at a pose, or between poses that lie close together."""
        i = bisect.bisect_left(self._stamps, stamp_ns)
        if i in (0, len(self._stamps)) or self._stamps[i] == stamp_ns or self._stamps[i] - self._stamps[i - 1] < _CLOSE_NS:
            return 0.0, 0.0
        begin, end = self._stamps[i - 1], self._stamps[i]
        first = bisect.bisect_left(self._stamps, 2 * begin - end)
        last = bisect.bisect_right(self._stamps, 2 * end - begin)
        around = TransformTree(history_ns=2**62, max_gap_ns=None)
        before, after = range(first, i), range(i, last)
        for k in sorted({*before[:: max(len(before) // _AROUND, 1)], i - 1, i, *after[:: max(len(after) // _AROUND, 1)]}):
            around.add("world", "camera", self._stamps[k], self._transform(k))
        return around.stddev("world", "camera", stamp_ns)

    def _transform(self, i: int) -> Transform:
        return from_quaternion(self._poses[i][3:], self._poses[i][:3])


_ORDERS = (2, 3, 4, 5, 6)
_EVEN = 0.3  # by how much steps in time may differ and still count as even
_LEAST_DIFFERENCES = 8
GAP_STEPS = 3.0
GAP_S = 0.3
"""A gap in a track: longer than so many usual steps, and than so many seconds."""
_AROUND_S = 0.5
_LEAST_SHARE = 0.02  # of a chord: nothing is known of what lies between its ends


def jitter(stamps: NDArray[np.int64], positions: NDArray[np.float64]) -> float | None:
    """White noise of positions [n, 3] on each axis, metres, as the positions themselves tell it; None for too few.

    Differences of order k of white noise have the variance C(2k, k) s^2, those of a motion that is sampled densely next to
    none, the less the higher the order: the smallest of the estimates counts (Gasser, Sroka and Jennen-Steinmetz 1986 for
    the second order). It is an upper bound: what moves as fast as the poses come counts as noise. Medians, so that a jump
    is none.
    """
    gaps = np.diff(stamps)
    if not len(gaps):
        return None
    usual = float(np.median(gaps))
    even = np.abs(gaps - usual) <= _EVEN * usual
    best: float | None = None
    for order in _ORDERS:
        differences = np.diff(positions, n=order, axis=0)
        runs = np.convolve(even, np.ones(order), mode="valid") == order
        if np.count_nonzero(runs) < _LEAST_DIFFERENCES:
            break
        spread = 1.4826 * float(np.median(np.abs(differences[runs]))) / math.sqrt(math.comb(2 * order, order))
        best = spread if best is None else min(best, spread)
    return best


def gaps(stamps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices i of the steps from stamp i to i + 1 that are much longer than usual: images were lost there."""
    steps = np.diff(stamps) / 1e9
    if not len(steps):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(steps > max(GAP_STEPS * float(np.median(steps)), GAP_S))


def across_gap(stamps: NDArray[np.int64], positions: NDArray[np.float64], i: int) -> tuple[float, float]:
    """How much longer than its chord the path may have been between positions i and i + 1, and the deviation, metres.

    Between none and what the curve is longer that goes on with the velocities before and after (a cubic), or what the
    speed round the gap would have driven: it may have gone a corner, or there and back.
    """
    seconds = (stamps - stamps[i]) / 1e9
    duration = float(seconds[i + 1])
    chord = positions[i + 1] - positions[i]
    before, after = _slope(seconds[: i + 1], positions[: i + 1], 0.0), _slope(seconds[i + 1 :], positions[i + 1 :], duration)
    known = [v for v in (before, after) if v is not None]
    if not known:
        return 0.0, float(np.linalg.norm(chord))
    a, b = known[0] * duration, known[-1] * duration
    t = np.linspace(0, 1, 33)[:, None]
    curve = (t**3 - 2 * t**2 + t) * a + (3 * t**2 - 2 * t**3) * chord + (t**3 - t**2) * b
    length = float(np.linalg.norm(chord))
    curved = max(float(np.linalg.norm(np.diff(curve, axis=0), axis=1).sum()) - length, 0.0)
    speed = float(np.mean([np.linalg.norm(v) for v in known]))
    more = max(curved, speed * duration - length, 0.0) / 2
    return more, max(more, _LEAST_SHARE * length)


def _slope(seconds: NDArray[np.float64], positions: NDArray[np.float64], at: float) -> NDArray[np.float64] | None:
    """Velocity [3] near a moment, from the positions within half a second of it; None for fewer than two."""
    near = np.abs(seconds - at) <= _AROUND_S
    if np.count_nonzero(near) < 2:
        return None
    t = seconds[near] - seconds[near].mean()
    return np.asarray(t @ (positions[near] - positions[near].mean(axis=0)) / (t @ t))
