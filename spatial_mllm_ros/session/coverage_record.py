"""How much of the space seen so far the keyframes covered while frames streamed in, beside evenly spaced frames."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.scene.backproject import camera_points, extend_bounds
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import apply
from spatial_mllm_ros.scene.voxels import Lattice, voxel_keys

CHECKPOINTS = 40
POINTS_PER_FRAME = 10_000
MOST_FRAMES = 600
"""Frames of which points are kept: beyond that every second one goes, so that a long stream stays bounded."""


@dataclass(frozen=True)
class CoverageCurve:
    """Covered share (0 to 1) of all voxels seen up to each moment.

    seconds: since the first frame. streaming: by the keyframes of that moment. uniform: by as many frames, evenly
    spaced over all until then. voxel_size_m: edge of the one lattice used throughout. frames: how many frames each
    moment had.
    """

    seconds: tuple[float, ...]
    streaming: tuple[float, ...]
    uniform: tuple[float, ...]
    frames: tuple[int, ...]
    voxel_size_m: float


@dataclass
class _Moment:
    frame_number: int
    stamp_ns: int
    picked: tuple[int, ...]


@dataclass
class CoverageRecord:
    """Watches a memory while it is filled: call ``add`` after every frame that it took, ``curve`` at the end.

    expected: how many frames will come, None if unknown.
    """

    memory: SpatialMemory
    count: int = 16
    expected: int | None = None
    _points: dict[int, NDArray[np.float32]] = field(default_factory=dict)  # by number of the frame
    _picked_points: dict[int, NDArray[np.float32]] = field(default_factory=dict)  # by id, of the moments' keyframes
    _moments: list[_Moment] = field(default_factory=list)
    _low: NDArray[np.float64] = field(default_factory=lambda: np.full(3, np.inf))
    _high: NDArray[np.float64] = field(default_factory=lambda: np.full(3, -np.inf))
    _frames: int = 0
    _stride: int = 1
    _first: int = 0
    _last: _Moment | None = None

    def add(self, frame_id: int, frame: Frame) -> None:
        """After ``frame`` became ``frame_id`` of the memory. Frames without depth or pose show no space."""
        number = self._frames
        if frame.depth is None or frame.T_world_camera is None or frame.camera is None:
            return
        if number == 0:
            self._first = frame.stamp_ns
        self._frames += 1
        self._low, self._high = extend_bounds(frame, self._low, self._high, self.memory.config.max_depth_m)
        if number % self._stride == 0:
            self._points[number] = self._world_points(frame)
            if len(self._points) > MOST_FRAMES:
                self._stride *= 2
                self._points = {n: p for n, p in self._points.items() if n % self._stride == 0}
        interval = max(1, (self.expected or 4 * self._stride * CHECKPOINTS) // CHECKPOINTS)
        self._last = None
        if self._frames % interval == 0:
            self._moments.append(self._moment(frame.stamp_ns))
            if len(self._moments) > 2 * CHECKPOINTS:
                self._moments = self._moments[1::2]
        else:
            self._last = _Moment(self._frames, frame.stamp_ns, ())

    def curve(self) -> CoverageCurve | None:
        """The coverage so far; None when no frame showed any space."""
        if not any(map(len, self._points.values())):
            return None
        moments = list(self._moments)
        if self._last is not None:
            moments.append(self._moment(self._last.stamp_ns))
        edge = self.memory.keyframes(1).voxel_size
        x, y, z = self._low.tolist()
        lattice = Lattice(edge, (x, y, z))  # as the published rule lays it
        keys = {number: voxel_keys(points, lattice) for number, points in self._points.items()}
        picked_keys = {i: voxel_keys(points, lattice) for i, points in self._picked_points.items()}
        numbers = sorted(keys)
        universe = np.unique(np.concatenate([*keys.values(), *picked_keys.values()]))
        first_seen = np.full(len(universe), np.iinfo(np.int64).max)
        for number in reversed(numbers):
            first_seen[np.searchsorted(universe, keys[number])] = number
        rows: list[tuple[float, float, float, int]] = []
        for moment in moments:
            upto = [n for n in numbers if n < moment.frame_number]
            if not upto:
                continue
            picked = [picked_keys[i] for i in moment.picked if i in picked_keys]
            streaming = _union(picked)
            even = _union([keys[upto[i]] for i in _evenly(len(upto), self.count)])
            # with thinned points a keyframe may show what no kept frame shows: it was seen all the same
            total = int(np.count_nonzero(first_seen < moment.frame_number))
            total += int(np.count_nonzero(first_seen[np.searchsorted(universe, streaming)] >= moment.frame_number))
            if total:
                seconds = (moment.stamp_ns - self._first) / 1e9
                rows.append((seconds, len(streaming) / total, len(even) / total, moment.frame_number))
        if not rows:
            return None
        seconds_, streaming_, uniform_, frames_ = zip(*rows, strict=True)
        return CoverageCurve(seconds_, streaming_, uniform_, frames_, edge)

    def _moment(self, stamp_ns: int) -> _Moment:
        picked = self.memory.keyframes(self.count).picked
        for frame_id in picked:
            stored = self.memory.get(frame_id) if frame_id not in self._picked_points else None
            if stored is not None:
                self._picked_points[frame_id] = self._world_points(stored.frame)
        return _Moment(self._frames, stamp_ns, picked)

    def _world_points(self, frame: Frame) -> NDArray[np.float32]:
        assert frame.T_world_camera is not None
        assert frame.depth is not None
        stride = max(1, round((frame.depth.size / POINTS_PER_FRAME) ** 0.5))
        points = camera_points(frame, stride, self.memory.config.max_depth_m)
        return np.asarray(apply(frame.T_world_camera, points), dtype=np.float32)


def _union(keys: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate(keys)) if keys else np.empty(0, dtype=np.int64)


def _evenly(count: int, k: int) -> NDArray[np.int64]:
    """Up to ``k`` of the indices 0 .. count - 1, evenly spaced, both ends included."""
    return np.unique(np.linspace(0, count - 1, min(k, count)).round().astype(np.int64))
