"""Space-aware selection while frames stream in, with bounded memory and bounded work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.keyframes.coverage import Selection, greedy_max_coverage
from spatial_mllm_ros.scene.pose import Transform, apply
from spatial_mllm_ros.scene.region import Region
from spatial_mllm_ros.scene.voxels import shortest_side_edge, voxel_keys


@dataclass(frozen=True)
class SelectorConfig:
    """Bounds of the streaming selector.

    pool_size: candidate frames kept. core_size: size of the set with the streaming guarantee, at most half the pool.
    min_voxel_size_m: voxels never get finer than this, however small the scene. growth: the edge is only changed once
    the scene asks for one larger by this factor. redundancy: a frame whose voxels are, but for this share, those of the
    candidate admitted last is the same view: the one that covers more stays.
    """

    pool_size: int = 128
    core_size: int = 16
    min_voxel_size_m: float = 0.02
    growth: float = 1.25
    redundancy: float = 0.02

    def __post_init__(self) -> None:
        if self.pool_size < 2 or not 1 <= self.core_size <= self.pool_size // 2:
            raise ValueError("pool_size must be at least 2, and core_size between 1 and half of it")
        if self.min_voxel_size_m <= 0 or self.growth <= 1 or not 0 <= self.redundancy < 1:
            raise ValueError("min_voxel_size_m must be positive, growth above 1, redundancy in [0, 1)")


@dataclass(eq=False)
class _Candidate:
    frame_id: int
    stamp_ns: int
    points: NDArray[np.float32]  # camera frame, so that a corrected pose only means mapping them again
    T_world_camera: Transform
    keys: NDArray[np.int64]

    def world_points(self) -> NDArray[np.float32]:
        return apply(self.T_world_camera, self.points)


class StreamingSelector:
    """Keeps a pool of candidate frames out of a stream; greedy maximum coverage over the pool gives the keyframes.

    Every frame is looked at once. It enters the pool unless it is the same view as the last one that did. When the pool
    is full it is thinned to half: greedy maximum coverage orders the candidates by marginal coverage, and those that add
    least go. Beside that a core of ``core_size`` candidates is kept by swapping: a frame replaces the core member of
    least weight when it adds at least twice that weight to the core, the weight being what a member added when it came.

    Guarantee: for a fixed voxel edge, the core covers at least 1/4 of the best ``core_size`` frames of the whole stream
    (Chakrabarti and Kale, "Submodular maximization meets streaming", Mathematical Programming 154, 2015, for one
    cardinality constraint). The core is part of the pool, so greedy over the pool covers at least (1 - 1/e) / 4 of that
    best (Nemhauser, Wolsey and Fisher 1978) in the worst order of frames. A change of the voxel edge starts the
    guarantee anew from the pool; edges grow by at least ``growth`` each, so there are logarithmically many. In practice
    the pool loses next to nothing: ``spatial-mllm bench selection`` compares with greedy over all frames.

    Cost per frame with n sampled points that fall into m voxels, a core of c and a pool of p frames: O(n + m log(c m)),
    and O(p m log m) once in about p/2 frames that enter. Memory: p n points, whatever the length of the stream.

    Deterministic: the same frames in the same order give the same keyframes, whether or not somebody asked in between.
    """

    def __init__(self, config: SelectorConfig | None = None) -> None:
        self.config = config or SelectorConfig()
        self._pool: dict[int, _Candidate] = {}  # in order of arrival
        self._core: dict[int, int] = {}  # id: weight
        self._core_keys = np.empty(0, dtype=np.int64)
        self._view_keys: NDArray[np.int64] | None = None  # of the frame that opened the current view
        self._view_id: int | None = None  # its best representative in the pool
        self._low = np.full(3, np.inf)
        self._high = np.full(3, -np.inf)
        self._edge = self.config.min_voxel_size_m

    @property
    def candidates(self) -> tuple[int, ...]:
        """Ids of the frames in the pool, in order of arrival."""
        return tuple(self._pool)

    @property
    def nbytes(self) -> int:
        """Bytes of points and voxels in the pool."""
        return sum(c.points.nbytes + c.keys.nbytes for c in self._pool.values()) + self._core_keys.nbytes

    @property
    def voxel_size(self) -> float:
        """Edge in metres that the published rule gives for the space seen so far: shortest side / 20."""
        if not np.isfinite(self._low).all():
            return self.config.min_voxel_size_m
        return max(self.config.min_voxel_size_m, shortest_side_edge(self._low, self._high))

    def add(
        self, frame_id: int, stamp_ns: int, points: NDArray[np.float32], T_world_camera: Transform
    ) -> list[int]:
        """Look at a frame; returns the ids that are no longer candidates, its own if it did not become one.

        points: [n, 3] float32 metres in the camera frame; T_world_camera: 4x4. An id may be given once. A frame without
        points never becomes a candidate.
        """
        if frame_id in self._pool:
            raise ValueError(f"frame {frame_id} is a candidate already")
        if len(points) == 0:
            return [frame_id]
        candidate = _Candidate(frame_id, stamp_ns, points, T_world_camera, np.empty(0, dtype=np.int64))
        world = candidate.world_points()
        self._low = np.minimum(self._low, [world[:, a].min() for a in range(3)])
        self._high = np.maximum(self._high, [world[:, a].max() for a in range(3)])
        if self.voxel_size > self.config.growth * self._edge:
            self._edge = self.voxel_size
            self._recount()
        candidate.keys = voxel_keys(world, self._edge)
        before = set(self._pool)
        self._pool[frame_id] = candidate
        self._offer_to_core(candidate)
        self._offer_to_view(candidate)
        if len(self._pool) > self.config.pool_size:
            self._thin()
        return [i for i in (*before, frame_id) if i not in self._pool]

    def select(
        self, k: int, window_start: int = 0, window_end: int = 0, region: Region | None = None
    ) -> Selection:
        """Greedy maximum coverage over the pool; ``Selection.picked`` holds frame ids in pick order.

        Voxels have the edge of ``voxel_size``. window_start, window_end (ns, 0 = open) limit the frames, ``region`` the
        points that count. ``Selection.total`` counts the voxels of all candidates within these limits.
        """
        edge = self.voxel_size
        ids, sets = [], []
        for c in self._pool.values():
            if c.stamp_ns < window_start or (window_end and c.stamp_ns > window_end):
                continue
            if region is None and edge == self._edge:
                keys = c.keys
            else:
                points = c.world_points()
                keys = voxel_keys(points if region is None else points[region.contains(points)], edge)
            ids.append(c.frame_id)
            sets.append(keys)
        picked, gains, total = greedy_max_coverage(sets, k)
        return Selection(tuple(ids[i] for i in picked), tuple(gains), edge, sum(gains), total)

    def world_points(self, frame_id: int) -> NDArray[np.float32]:
        """Sampled points [n, 3] (float32, metres, world) of a candidate."""
        return self._pool[frame_id].world_points()

    def correct(self, poses: Iterable[tuple[int, Transform]]) -> None:
        """Replace the poses of candidates (id, T_world_camera); voxels and bounds follow. Other ids are ignored."""
        changed = False
        for frame_id, T in poses:
            if frame_id in self._pool:
                self._pool[frame_id].T_world_camera = T
                changed = True
        if not changed:
            return
        worlds = [c.world_points() for c in self._pool.values()]
        self._low = np.min([w.min(axis=0) for w in worlds], axis=0).astype(np.float64)
        self._high = np.max([w.max(axis=0) for w in worlds], axis=0).astype(np.float64)
        self._edge = self.voxel_size
        self._recount()

    def discard(self, frame_id: int) -> None:
        """Forget a candidate, for example because its images had to go."""
        if self._pool.pop(frame_id, None) is not None and frame_id in self._core:
            del self._core[frame_id]
            self._core_keys = self._union(self._core)

    def _offer_to_core(self, candidate: _Candidate) -> None:
        known = np.isin(candidate.keys, self._core_keys, assume_unique=True) if len(self._core_keys) else ()
        gain = len(candidate.keys) - int(np.count_nonzero(known))
        if gain == 0:
            return
        if len(self._core) >= self.config.core_size:
            least = min(self._core, key=lambda i: self._core[i])
            if gain < 2 * self._core[least]:
                return
            del self._core[least]
        self._core[candidate.frame_id] = gain
        self._core_keys = self._union(self._core)

    def _offer_to_view(self, candidate: _Candidate) -> None:
        """Of successive frames that show the same, only the one that shows most stays in the pool."""
        best = None if self._view_id is None else self._pool.get(self._view_id)
        if best is not None and self._view_keys is not None:
            new = len(candidate.keys) - int(
                np.count_nonzero(np.isin(candidate.keys, self._view_keys, assume_unique=True))
            )
            if new <= self.config.redundancy * len(candidate.keys):
                loser = candidate if len(candidate.keys) <= len(best.keys) else best
                if loser is best:
                    self._view_id = candidate.frame_id
                if loser.frame_id not in self._core:
                    del self._pool[loser.frame_id]
                return
        self._view_keys, self._view_id = candidate.keys, candidate.frame_id

    def _thin(self) -> None:
        """Keep the core and, up to half the pool, those that add most."""
        candidates = list(self._pool.values())
        keep = set(self._core)
        rest = candidates
        while rest and len(keep) < self.config.pool_size // 2:
            # once everything is covered, a further layer keeps alternatives instead of leaving room empty
            picked, _, _ = greedy_max_coverage([c.keys for c in rest], self.config.pool_size // 2 - len(keep))
            if not picked:
                break
            keep.update(rest[i].frame_id for i in picked)
            chosen = set(picked)
            rest = [c for i, c in enumerate(rest) if i not in chosen]
        self._pool = {c.frame_id: c for c in candidates if c.frame_id in keep}

    def _recount(self) -> None:
        """Voxels of every candidate at the current edge, and the core anew, greedily from the pool."""
        for c in self._pool.values():
            c.keys = voxel_keys(c.world_points(), self._edge)
        candidates = list(self._pool.values())
        picked, gains, _ = greedy_max_coverage([c.keys for c in candidates], self.config.core_size)
        self._core = {candidates[i].frame_id: gain for i, gain in zip(picked, gains, strict=True)}
        self._core_keys = self._union(self._core)
        self._view_keys = self._view_id = None

    def _union(self, ids: Iterable[int]) -> NDArray[np.int64]:
        keys = [self._pool[i].keys for i in ids]
        return np.unique(np.concatenate(keys)) if keys else np.empty(0, dtype=np.int64)
