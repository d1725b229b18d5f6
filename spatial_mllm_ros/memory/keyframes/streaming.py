"""Space-aware selection while frames stream in, with bounded memory and bounded work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.memory.keyframes.coverage import Selection, greedy_max_coverage
from spatial_mllm_ros.scene.pose import Transform, apply
from spatial_mllm_ros.scene.region import Region
from spatial_mllm_ros.scene.voxels import Lattice, shortest_side_edge, small_numbers, voxel_keys


@dataclass(frozen=True)
class SelectorConfig:
    """Bounds of the streaming selector.

    pool_size: candidate frames kept. core_size: size of the set with the streaming guarantee, at most half the pool.
    min_voxel_size_m: voxels never get finer than this, however small the scene. drift: the lattice that frames are
    compared on follows the scene's bounding box once its edge is off by this share, or its corner by this share of an
    edge. phases: lattices, each shifted by a part of an edge, on which the pool is kept good, since the final corner is
    not known while the scene still grows. group: frames that are counted together.
    """

    pool_size: int = 128
    core_size: int = 16
    min_voxel_size_m: float = 0.02
    drift: float = 0.05
    phases: int = 6
    phases_stride: int = 4
    group: int = 16

    def __post_init__(self) -> None:
        if self.pool_size < 4 or not 1 <= self.core_size <= self.pool_size // 2:
            raise ValueError("pool_size must be at least 4, and core_size between 1 and half of it")
        if min(self.min_voxel_size_m, self.drift) <= 0 or min(self.phases, self.phases_stride, self.group) < 1:
            raise ValueError("min_voxel_size_m, drift, phases, phases_stride and group must be positive")


@dataclass(eq=False)
class _Candidate:
    frame_id: int
    stamp_ns: int
    points: NDArray[np.float32]  # camera frame, so that a corrected pose only means mapping them again
    T_world_camera: Transform
    keys: NDArray[np.int64]  # on the counted lattice
    shifted: list[NDArray[np.int64]] | None = None  # on its other phases, once they were needed
    asked: tuple[Lattice, NDArray[np.int64]] | None = None  # on the lattice that was last asked about

    def world_points(self) -> NDArray[np.float32]:
        return apply(self.T_world_camera, self.points)


class StreamingSelector:
    """Keeps a pool of candidate frames out of a stream; greedy maximum coverage over the pool gives the keyframes.

    Every frame with points enters the pool, in groups of ``group``: while a scene grows, its lattice changes with nearly
    every frame, and is followed once a group. Frames that wait for that are candidates as the others are. When the pool is
    full it is thinned to three quarters: greedy maximum coverage orders the candidates by marginal coverage, on several
    shifted lattices, and those that come last go. Beside that a core of ``core_size`` candidates is kept by swapping: a
    frame replaces the core member of least weight when it adds at least twice that weight to the core, the weight being
    what a member added when it came.

    Guarantee: on a fixed lattice, the core covers at least 1/4 of the best ``core_size`` frames of the whole stream
    (Chakrabarti and Kale, "Submodular maximization meets streaming", Mathematical Programming 154, 2015, for one
    cardinality constraint). The core is part of the pool, so greedy over the pool covers at least (1 - 1/e) / 4 of that
    best (Nemhauser, Wolsey and Fisher 1978) in the worst order of frames. A change of lattice, as the scene grows,
    starts the guarantee anew from the pool. In practice the pool loses little: ``spatial-mllm bench selection`` compares
    with greedy over all frames.

    Cost per frame with n sampled points that fall into m voxels, f phases, a core of c and a pool of p frames:
    O(n + m log(c m)); thinning costs O(f p m) once in p/4 frames, and recounting O(p n) once a group at most, while the
    lattice drifts.
    Memory: p (n points + f m voxels), whatever the length of the stream.

    Deterministic: the same frames in the same order give the same keyframes, whether or not somebody asked in between.
    """

    def __init__(self, config: SelectorConfig | None = None) -> None:
        self.config = config or SelectorConfig()
        self._pool: dict[int, _Candidate] = {}  # in order of arrival
        self._fresh: dict[int, _Candidate] = {}  # the group that is not counted yet
        self._core: dict[int, int] = {}  # id: weight
        self._core_keys = np.empty(0, dtype=np.int64)
        self._low = np.full(3, np.inf)
        self._high = np.full(3, -np.inf)
        self._counted = Lattice(self.config.min_voxel_size_m)  # the lattice of every candidate's keys

    @property
    def candidates(self) -> tuple[int, ...]:
        """Ids of the frames in the pool, in order of arrival."""
        return (*self._pool, *self._fresh)

    @property
    def nbytes(self) -> int:
        """Bytes of points and voxels in the pool."""
        keys = (k for c in self._all() for k in (c.keys, *(c.shifted or ()), *(() if c.asked is None else c.asked[1:])))
        return sum(c.points.nbytes for c in self._all()) + sum(k.nbytes for k in keys)

    @property
    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Low and high corner [3] of all that was seen (metres, world); infinite before the first frame."""
        return self._low, self._high

    @property
    def lattice(self) -> Lattice:
        """Voxels of the published rule for the space seen so far: edge = shortest side of its bounding box / 20.

        The lattice begins at the corner of the bounding box, as published: where walls are aligned with the axes, a
        lattice shifted by half a voxel counts several percent differently.
        """
        if not np.isfinite(self._low).all():
            return Lattice(self.config.min_voxel_size_m)
        edge = max(self.config.min_voxel_size_m, shortest_side_edge(self._low, self._high))
        x, y, z = self._low.tolist()
        return Lattice(edge, (x, y, z))

    def add(
        self,
        frame_id: int,
        stamp_ns: int,
        points: NDArray[np.float32],
        T_world_camera: Transform,
        bounds: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    ) -> list[int]:
        """Look at a frame; returns the ids that are no longer candidates, its own if it has no points.

        points: [n, 3] float32 metres in the camera frame; T_world_camera: 4x4. An id may be given once.
        bounds: low and high corner [3] of all that was seen so far, this frame included, where the caller knows it more
        precisely than from sampled points.
        """
        if frame_id in self._pool or frame_id in self._fresh:
            raise ValueError(f"frame {frame_id} is a candidate already")
        if len(points) == 0:
            return [frame_id]
        candidate = _Candidate(frame_id, stamp_ns, points, T_world_camera, np.empty(0, dtype=np.int64))
        if bounds is None:
            world = candidate.world_points()
            bounds = np.array([world[:, a].min() for a in range(3)]), np.array([world[:, a].max() for a in range(3)])
        self._low, self._high = np.minimum(self._low, bounds[0]), np.maximum(self._high, bounds[1])
        self._fresh[frame_id] = candidate
        full = len(self._pool) + len(self._fresh) > self.config.pool_size
        return self._count_group() if full or len(self._fresh) >= self.config.group else []

    def select(self, k: int, window_start: int = 0, window_end: int = 0, region: Region | None = None) -> Selection:
        """Greedy maximum coverage over the pool; ``Selection.picked`` holds frame ids in pick order.

        Voxels are those of ``lattice``. window_start, window_end (ns, 0 = open) limit the frames, ``region`` the
        points that count. ``Selection.total`` counts the voxels of all candidates within these limits.
        """
        lattice = self.lattice
        ids, sets = [], []
        for c in self._all():
            if c.stamp_ns < window_start or (window_end and c.stamp_ns > window_end):
                continue
            if region is None:
                sets.append(self._keys_on(lattice, c))
            else:
                points = c.world_points()
                sets.append(voxel_keys(points[region.contains(points)], lattice))
            ids.append(c.frame_id)
        picked, gains, total = _greedy(sets, k)
        return Selection(tuple(ids[i] for i in picked), tuple(gains), lattice.edge, sum(gains), total)

    def copy(self) -> StreamingSelector:
        """A selector of its own with the same candidates; their points are shared."""
        copy = StreamingSelector(self.config)
        copy._pool = {i: replace(candidate) for i, candidate in self._pool.items()}
        copy._fresh = {i: replace(candidate) for i, candidate in self._fresh.items()}
        copy._core, copy._core_keys = self._core.copy(), self._core_keys
        copy._low, copy._high, copy._counted = self._low, self._high, self._counted
        return copy

    def world_points(self, frame_id: int) -> NDArray[np.float32]:
        """Sampled points [n, 3] (float32, metres, world) of a candidate."""
        return (self._pool.get(frame_id) or self._fresh[frame_id]).world_points()

    def correct(self, poses: Iterable[tuple[int, Transform]], factors: Mapping[int, float] | None = None) -> None:
        """Replace the poses of candidates (id, T_world_camera); voxels and bounds follow. Other ids are ignored.

        factors: by id, what the points (in the camera frame) of a candidate are multiplied by, where not 1.
        """
        changed = False
        for frame_id, T in poses:
            candidate = self._pool.get(frame_id) or self._fresh.get(frame_id)
            if candidate is not None:
                candidate.T_world_camera, candidate.asked = T, None
                factor = 1.0 if factors is None else factors.get(frame_id, 1.0)
                if factor != 1.0:
                    candidate.points = candidate.points * np.float32(factor)
                changed = True
        if not changed:
            return
        worlds = [c.world_points() for c in self._all()]
        self._low = np.min([w.min(axis=0) for w in worlds], axis=0).astype(np.float64)
        self._high = np.max([w.max(axis=0) for w in worlds], axis=0).astype(np.float64)
        self._counted = self.lattice
        self._recount()

    def discard(self, frame_id: int) -> None:
        """Forget a candidate, for example because its images had to go."""
        self._fresh.pop(frame_id, None)
        if self._pool.pop(frame_id, None) is not None and frame_id in self._core:
            del self._core[frame_id]
            self._core_keys = self._union(self._core)

    def _all(self) -> Iterator[_Candidate]:
        yield from self._pool.values()
        yield from self._fresh.values()

    def _keys_on(self, lattice: Lattice, candidate: _Candidate) -> NDArray[np.int64]:
        """Voxels of a candidate; those of the lattice that was asked about last are kept."""
        if lattice == self._counted and candidate.frame_id in self._pool:
            return candidate.keys
        if candidate.asked is None or candidate.asked[0] != lattice:
            candidate.asked = lattice, voxel_keys(candidate.world_points(), lattice)
        return candidate.asked[1]

    def _count_group(self) -> list[int]:
        """Take the fresh frames into the pool; the ids that are no candidates any more."""
        if self._drifted():
            self._counted = self.lattice
            self._recount()
        dropped: list[int] = []
        fresh, self._fresh = self._fresh, {}
        for candidate in fresh.values():
            candidate.keys, candidate.asked = voxel_keys(candidate.world_points(), self._counted), None
            self._pool[candidate.frame_id] = candidate
            self._offer_to_core(candidate)
            if len(self._pool) > self.config.pool_size:
                dropped += self._thin()
        return dropped

    def _drifted(self) -> bool:
        """Whether the lattice that keys are counted on is no longer that of the scene."""
        now, counted = self.lattice, self._counted
        slack = self.config.drift * now.edge
        return abs(now.edge - counted.edge) > slack or max(abs(np.subtract(now.origin, counted.origin))) > slack

    def _shifted_keys(self, candidate: _Candidate) -> list[NDArray[np.int64]]:
        """Voxels of a candidate on the other phases of the counted lattice, judged on some of its points."""
        if candidate.shifted is None:
            points = apply(candidate.T_world_camera, candidate.points[:: self.config.phases_stride])
            edge, origin = self._counted.edge, np.asarray(self._counted.origin)
            # shifts spread evenly in the plane whatever their number (golden ratio and its square); where the floor is
            # does not depend on where one has been, so height needs no phases
            shifts = [np.array([0.618 * i % 1.0, 0.382 * i % 1.0, 0.0]) for i in range(1, self.config.phases)]
            candidate.shifted = [voxel_keys(points, Lattice(edge, tuple(origin - s * edge))) for s in shifts]
        return candidate.shifted

    def _offer_to_core(self, candidate: _Candidate) -> None:
        keys = candidate.keys
        known = np.isin(keys, self._core_keys, assume_unique=True) if len(self._core_keys) else ()
        gain = len(keys) - int(np.count_nonzero(known))
        if gain == 0:
            return
        if len(self._core) >= self.config.core_size:
            least = min(self._core, key=lambda i: self._core[i])
            if gain < 2 * self._core[least]:
                return
            del self._core[least]
        self._core[candidate.frame_id] = gain
        self._core_keys = self._union(self._core)

    def _thin(self) -> list[int]:
        """Drop the candidates that add least, all but the core and three quarters of the pool; their ids."""
        candidates = list(self._pool.values())
        target = self.config.pool_size * 3 // 4
        sets = [[c.keys for c in candidates], *map(list, zip(*map(self._shifted_keys, candidates), strict=True))]
        orders = [_greedy(phase, target * 2 // (self.config.phases + 1))[0] for phase in sets]
        keep = set(self._core)
        for rank in range(len(candidates)):
            for order in orders:
                if rank < len(order) and len(keep) < target:
                    keep.add(candidates[order[rank]].frame_id)
        self._pool = {c.frame_id: c for c in candidates if c.frame_id in keep}
        return [c.frame_id for c in candidates if c.frame_id not in keep]

    def _recount(self) -> None:
        """Voxels of every candidate on the current lattice, and the core anew, greedily from the pool."""
        candidates = list(self._pool.values())
        for c in candidates:
            c.keys, c.shifted, c.asked = voxel_keys(c.world_points(), self._counted), None, None
        picked, gains, _ = _greedy([c.keys for c in candidates], self.config.core_size)
        self._core = {candidates[i].frame_id: gain for i, gain in zip(picked, gains, strict=True)}
        self._core_keys = self._union(self._core)

    def _union(self, ids: Iterable[int]) -> NDArray[np.int64]:
        keys = [self._pool[i].keys for i in ids]
        return np.unique(np.concatenate(keys)) if keys else np.empty(0, dtype=np.int64)


def _greedy(sets: list[NDArray[np.int64]], k: int) -> tuple[list[int], list[int], int]:
    """``greedy_max_coverage`` over voxel keys, renumbered so that it can use a table."""
    if not sets:
        return [], [], 0
    ends = np.cumsum([len(s) for s in sets])[:-1]
    return greedy_max_coverage(np.split(small_numbers(np.concatenate(sets)), ends), k)
