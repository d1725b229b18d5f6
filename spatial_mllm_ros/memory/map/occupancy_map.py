"""The map: evidence of what is free and what is occupied, exact to add and to take away."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.memory.map import kernels
from spatial_mllm_ros.memory.map.blocks import LARGEST, Blocks, packed, unpacked
from spatial_mllm_ros.memory.map.depth_cells import CellCamera, Pyramids
from spatial_mllm_ros.memory.map.snapshot import MapSnapshot
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import InvalidTransform, Transform, checked_transform, invert
from spatial_mllm_ros.scene.sensor import SensorModel


@dataclass(frozen=True)
class MapConfig:
    """voxel_m: edge of a voxel. reach_m: deeper than this nothing is entered; space nearer is still free.

    max_blocks: blocks of 8 x 8 x 8 voxels held (28 KiB each); beyond it those go that are furthest from the camera. max_frames:
    frames whose depth is kept (38 KiB each) so that they can be taken away or moved; what older ones showed stays.
    max_speed_m_s: a pose that is further from the one before than this allows, and 0.3 m, is taken for a jump of the tracker.
    sensor: how good depth is.
    """

    voxel_m: float = 0.05
    reach_m: float = 5.0
    max_blocks: int = 16384
    max_frames: int = 3000
    max_speed_m_s: float = 5.0
    sensor: SensorModel = field(default_factory=SensorModel)

    def __post_init__(self) -> None:
        if not (0.01 <= self.voxel_m <= 1.0 and 0.5 <= self.reach_m <= 16.0):
            raise ValueError(f"voxel_m must be 0.01 to 1 and reach_m 0.5 to 16, not {self.voxel_m} and {self.reach_m}")
        if self.max_blocks < 1000 or self.max_frames < 1 or not self.max_speed_m_s > 0:
            raise ValueError("max_blocks must be 1000 or more, max_frames 1 or more, and max_speed_m_s positive")


@dataclass(frozen=True, eq=False)
class _Entered:
    """A frame in the map: its depth, and the blocks that it shows something of."""

    cells: NDArray[np.uint16]
    camera: CellCamera
    camera_frame: str
    stamp_ns: int
    T_world_camera: Transform
    turn: int
    keys: NDArray[np.int64]


class OccupancyMap:
    """Evidence in voxels of the world frame, kept up while frames come in. Safe to use from several threads.

    A frame says of a voxel that there is a surface in it, that it is free, or nothing. The counts are integers: what a frame
    added is taken away exactly, and the order of frames does not matter. ``refused`` counts frames by reason (``no_depth``,
    ``no_pose``, ``no_camera_info``, ``bad_pose``, ``pose_jump``, ``too_far``, ``repeated``); a jump of the pose is believed
    when the next frame confirms it. ``evicted``: blocks that went to stay within the bounds. ``settled``: frames that can no
    longer be taken away.
    """

    def __init__(self, config: MapConfig | None = None) -> None:
        self.config = config or MapConfig()
        self.refused: Counter[str] = Counter()
        self.evicted = 0
        self.settled = 0
        self._lock = threading.RLock()
        self._blocks = Blocks()
        self._frames: dict[int, _Entered] = {}
        self._turn = 0
        self._version = self._epoch = 0
        self._snapshot: MapSnapshot | None = None
        self._offered: dict[str, list[tuple[int, NDArray[np.float64]]]] = {}
        s = self.config.sensor
        self._noise = np.array([s.depth_base_m, s.depth_quadratic_per_m, s.depth_offset_m, s.depth_correlated])

    def __len__(self) -> int:
        """Frames that can be taken away or moved."""
        return len(self._frames)

    def __contains__(self, frame_id: int) -> bool:
        return frame_id in self._frames

    @property
    def version(self) -> int:
        """Changes whenever the map does."""
        return self._version

    @property
    def depth_nbytes(self) -> int:
        """Bytes of the depth that is kept so that frames can be taken away."""
        with self._lock:
            return sum(e.cells.nbytes + e.keys.nbytes for e in self._frames.values())

    @property
    def nbytes(self) -> int:
        """Bytes held: of the voxels, and of the frames' depth."""
        with self._lock:
            return self._blocks.nbytes + self.depth_nbytes

    def integrate(self, frame_id: int, frame: Frame) -> bool:
        """Enter a frame; False when it is refused (see ``refused``)."""
        with self._lock:
            reason = self._reason_to_refuse(frame_id, frame)
            if reason:
                self.refused[reason] += 1
                return False
            assert frame.camera is not None
            assert frame.T_world_camera is not None
            camera = CellCamera.of(frame.camera)
            cells, known = camera.reduce(frame)
            if known < 0.01 * cells.size:
                self.refused["no_depth"] += 1
                return False
            T = checked_transform(frame.T_world_camera)
            if not self._enter(frame_id, cells, camera, frame.camera_frame, frame.stamp_ns, T):
                self.refused["too_far"] += 1
                return False
            self._bound(frame_id, T[:3, 3])
            self._version += 1
            return True

    def remove(self, frame_id: int) -> bool:
        """Take away all that a frame added; False when it is not held."""
        with self._lock:
            if frame_id not in self._frames:
                return False
            self._mend(self._leave(frame_id))
            self._version += 1
            return True

    def correct(self, poses: Mapping[int, Transform]) -> int:
        """Move frames to corrected poses T_world_camera; how many moved. Frames that are not held are left out.

        The map is then that of the corrected poses, exactly. Raises InvalidTransform, and changes nothing, when a pose is
        not a rigid transform.
        """
        checked = {i: checked_transform(T) for i, T in poses.items()}
        with self._lock:
            held = self._frames
            moved = [i for i, T in checked.items() if i in held and not np.array_equal(T, held[i].T_world_camera)]
            if not moved:
                return 0
            if self.settled == 0 and self.evicted == 0 and 2 * len(moved) > len(held):  # cheaper from the beginning
                everything, self._frames, self._blocks = held, {}, Blocks()
                for i, e in everything.items():
                    self._enter(i, e.cells, e.camera, e.camera_frame, e.stamp_ns, checked.get(i, e.T_world_camera))
            else:
                gone = [(i, held[i]) for i in moved]
                stale = np.unique(np.concatenate([self._leave(i) for i in moved]))
                for i, e in gone:
                    self._enter(i, e.cells, e.camera, e.camera_frame, e.stamp_ns, checked[i])
                self._mend(stale)
            self._offered.clear()
            self._version += 1
            self._epoch += 1
            return len(moved)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._blocks, self._frames, self._offered = Blocks(), {}, {}
            self.evicted = self.settled = 0
            self._version += 1
            self._epoch += 1

    def snapshot(self) -> MapSnapshot:
        """What is known now, to be read while the map goes on; the same one until the map changes."""
        with self._lock:
            if self._snapshot is None or self._snapshot.version != self._version:
                self._snapshot = self._copy()
            return self._snapshot

    def _copy(self) -> MapSnapshot:
        b = self._blocks
        slots = b.places()
        frames = sorted(self._frames.values(), key=lambda e: (e.stamp_ns, e.camera_frame))
        poses = np.array([e.T_world_camera for e in frames]).reshape(-1, 4, 4)
        return MapSnapshot(
            version=self._version,
            epoch=self._epoch,
            voxel_m=self.config.voxel_m,
            reach_m=self.config.reach_m,
            blocks=unpacked(b.keys[slots]),
            hits=b.hits[slots],
            free=b.free[slots],
            first=b.first[slots],
            last=b.last[slots],
            weight=b.weight[slots],
            sums=b.sums[slots],
            poses=poses,
            stamps=np.array([e.stamp_ns for e in frames], dtype=np.int64),
            sensor=self.config.sensor,
        )

    def _reason_to_refuse(self, frame_id: int, frame: Frame) -> str:
        if frame_id in self._frames:
            return "repeated"
        if frame.depth is None:
            return "no_depth"
        if frame.camera is None:
            return "no_camera_info"
        if frame.T_world_camera is None:
            return "no_pose"
        try:
            place = checked_transform(frame.T_world_camera)[:3, 3]
        except InvalidTransform:
            return "bad_pose"
        return "" if self._follows(frame.camera_frame, frame.stamp_ns, place) else "pose_jump"

    def _follows(self, camera_frame: str, stamp_ns: int, place: NDArray[np.float64]) -> bool:
        """Whether the camera can be there, after where it was when it was last believed, or last doubted."""
        before = self._offered.get(camera_frame, [])
        good = not before or any(
            np.linalg.norm(place - there) <= 0.3 + self.config.max_speed_m_s * abs(stamp_ns - then) / 1e9
            for then, there in before
        )
        self._offered[camera_frame] = [(stamp_ns, place)] if good else [before[0], (stamp_ns, place)]
        return good

    def _enter(
        self,
        frame_id: int,
        cells: NDArray[np.uint16],
        camera: CellCamera,
        camera_frame: str,
        stamp_ns: int,
        T: Transform,
    ) -> bool:
        images = camera.pyramids(cells)
        blocks = self._in_view(images[2], camera, T)
        if blocks is None:
            return False
        self._turn += 1
        keys = packed(blocks)
        slots = self._blocks.take(keys, self._turn)
        told = self._tell(images, camera, T, stamp_ns, blocks, slots, 1)
        shown = (told & 1) > 0
        self._blocks.users[slots[shown]] += 1
        self._blocks.release(slots[~shown & (self._blocks.users[slots] == 0)])
        self._frames[frame_id] = _Entered(cells, camera, camera_frame, stamp_ns, T, self._turn, keys[shown])
        return True

    def _leave(self, frame_id: int) -> NDArray[np.int64]:
        """Take a frame away; keys of the blocks whose stamps other frames must now tell."""
        e = self._frames.pop(frame_id)
        b = self._blocks
        slots = b.find(e.keys)
        slots[(slots >= 0) & (b.born[slots] > e.turn)] = -1  # evicted, and begun anew since
        told = self._tell(
            e.camera.pyramids(e.cells), e.camera, e.T_world_camera, e.stamp_ns, unpacked(e.keys), slots, -1
        )
        mine = slots >= 0
        b.users[slots[mine]] -= 1
        empty = mine & (b.users[slots] == 0)
        b.drop(slots[empty])
        return e.keys[(told & 2 > 0) & ~empty]

    def _mend(self, keys: NDArray[np.int64]) -> None:
        """Let the frames held tell the stamps of these blocks."""
        if not len(keys):
            return
        for e in self._frames.values():
            shared = e.keys[np.isin(e.keys, keys, assume_unique=True)]
            slots = self._blocks.find(shared)
            known = slots >= 0
            known[known] = self._blocks.born[slots[known]] <= e.turn
            if known.any():
                where = shared[known]
                self._tell(
                    e.camera.pyramids(e.cells), e.camera, e.T_world_camera, e.stamp_ns, unpacked(where), slots[known], 0
                )

    def _in_view(self, far: NDArray[np.float32], camera: CellCamera, T: Transform) -> NDArray[np.int32] | None:
        """Blocks that a frame may show something of; None where they lie too far from the origin to be named."""
        side = self.config.voxel_m * kernels.SIDE
        reach = self.config.reach_m
        if np.abs(T[:3, 3]).max() > side * LARGEST - 4 * reach:
            return None
        corners = np.array([(u, v) for u in (-0.5, camera.width - 0.5) for v in (-0.5, camera.height - 0.5)])
        rays = np.column_stack([(corners - (camera.cu, camera.cv)) / camera.f, np.ones(4)]) * reach
        ends = np.vstack([rays @ T[:3, :3].T + T[:3, 3], T[:3, 3]])
        low = np.floor(ends.min(axis=0) / side).astype(np.int64)
        shape = np.floor(ends.max(axis=0) / side).astype(np.int64) - low + 1
        inverse = invert(T)
        blocks: NDArray[np.int32] = kernels.blocks_in_view(
            far, camera.f, camera.cu, camera.cv, inverse[:3, :3].copy(), inverse[:3, 3].copy(),
            self.config.voxel_m, low, shape, reach,
        )  # fmt: skip
        return blocks

    def _tell(
        self,
        images: Pyramids,
        camera: CellCamera,
        T: Transform,
        stamp_ns: int,
        blocks: NDArray[np.int32],
        slots: NDArray[np.int64],
        sign: int,
    ) -> NDArray[np.uint8]:
        """Add or take away what a frame shows of blocks; see ``kernels.add_views`` for what is returned."""
        told = np.zeros(len(blocks), dtype=np.uint8)
        if not len(blocks):
            return told
        b, c = self._blocks, self.config
        low = blocks.min(axis=0).astype(np.int64)
        number = np.full(blocks.max(axis=0) - low + 1, -1, dtype=np.int32)
        number[tuple((blocks - low).T)] = np.arange(len(blocks))
        hit = np.zeros((len(blocks), kernels.CELLS), dtype=np.uint8)
        struck = np.zeros((len(blocks), 8), dtype=np.uint8)
        depth, near, far = images
        inverse = invert(T)
        lens = (camera.f, camera.cu, camera.cv)
        kernels.add_points(
            depth, *lens, T[:3, :3].copy(), T[:3, 3].copy(), c.voxel_m, c.reach_m, self._noise,
            low, number, slots, sign, b.weight, b.sums, hit, struck,
        )  # fmt: skip
        kernels.add_views(
            near, far, *lens, inverse[:3, :3].copy(), inverse[:3, 3].copy(), c.voxel_m, c.reach_m, self._noise,
            blocks, slots, sign, stamp_ns, b.hits, b.free, b.first, b.last, hit, struck, told,
        )  # fmt: skip
        return told

    def _bound(self, newest: int, place: NDArray[np.float64]) -> None:
        """Let go of what is too much: depth of the frames entered first, blocks furthest from ``place``."""
        while len(self._frames) > self.config.max_frames:
            oldest = next(iter(self._frames))
            if oldest == newest:
                break
            del self._frames[oldest]
            self.settled += 1
        excess = len(self._blocks) - self.config.max_blocks
        if excess > 0:
            slots = self._blocks.places()
            middles = (unpacked(self._blocks.keys[slots]) + 0.5) * (self.config.voxel_m * kernels.SIDE)
            apart = np.linalg.norm(middles - place, axis=1)
            go = min(excess + self.config.max_blocks // 10, len(slots))
            self._blocks.drop(slots[np.argsort(-apart, kind="stable")[:go]])
            self.evicted += go
