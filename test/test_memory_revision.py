"""Frames in memory that are placed and scaled anew."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_ros.memory.spatial_memory import MemoryConfig, Revision, SpatialMemory
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.metric_scale import MetreSource, MetricScale
from spatial_mllm_ros.scene.pose import InvalidTransform, make_transform

CAMERA = CameraModel(32, 24, 30.0, 30.0, 15.5, 11.5)
SCALE = MetricScale(MetreSource.TF, 0.01, 0.002)


def frame(i: int, world: str = "map") -> Frame:
    depth = np.full((24, 32), 2.0, np.float32)
    return Frame(i * 10**9, "camera", CAMERA, None, depth, make_transform(np.eye(3), (i, 0, 0)), world)


@pytest.fixture
def memory() -> SpatialMemory:
    memory = SpatialMemory(clock=lambda: 1 << 62)
    for i in range(6):
        memory.add(frame(i))
    return memory


def doubled(i: int, world: str = "map") -> Revision:
    return Revision(i * 10**9, "camera", make_transform(np.eye(3), (2 * i, 0, 0)), 2.0, world)


def test_a_revision_moves_and_scales_everything_that_belongs_to_a_frame(memory: SpatialMemory) -> None:
    ids = [s.frame_id for s in memory.frames()]
    points = memory.seen_points()
    version = memory.version
    assert memory.revise([doubled(i) for i in range(6)], SCALE) == 6
    assert memory.scale is SCALE
    assert memory.version == version + 1
    assert [s.frame_id for s in memory.frames()] == ids
    np.testing.assert_allclose(memory.seen_points(), 2 * points, rtol=1e-6)
    track = memory.track()
    assert track is not None
    np.testing.assert_allclose(track.arrays()[1][:, 0], 2 * np.arange(6))
    for stored in memory.frames():
        assert stored.frame.depth is not None
        assert stored.frame.depth.dtype == np.float32
        assert float(stored.frame.depth[0, 0]) == 4.0
    assert memory.keyframes(3).picked


def test_a_few_frames_may_be_revised_alone(memory: SpatialMemory) -> None:
    assert memory.revise([doubled(2), doubled(99)], SCALE) == 1
    assert len(memory) == 6
    depths = [float(s.frame.depth[0, 0]) for s in memory.frames() if s.frame.depth is not None]
    assert depths == [2, 2, 4, 2, 2, 2]


def test_a_new_world_keeps_what_was_moved_into_it(memory: SpatialMemory) -> None:
    nbytes = memory.nbytes
    assert memory.revise([doubled(i, "odom") for i in (1, 2, 3)], SCALE) == 3
    assert memory.world_frame == "odom"
    assert [s.frame.stamp_ns // 10**9 for s in memory.frames()] == [1, 2, 3]
    assert memory.nbytes == nbytes // 2
    assert len(memory.seen_points()) > 0
    track = memory.track()
    assert track is not None
    assert len(track) == 3
    assert memory.add(frame(7, "odom")) is not None
    assert memory.add(frame(8, "map")) is None
    assert memory.refused["other_world_frame"] == 1


def test_poses_of_images_that_had_to_go_are_revised_too() -> None:
    memory = SpatialMemory(MemoryConfig(max_frames=3), clock=lambda: 1 << 62)
    for i in range(6):
        memory.add(frame(i))
    assert memory.revise([doubled(i, "odom") for i in range(6)], SCALE) == 3
    track = memory.track()
    assert track is not None
    np.testing.assert_allclose(track.arrays()[1][:, 0], 2 * np.arange(6))


def test_clearing(memory: SpatialMemory) -> None:
    memory.revise([], SCALE)
    version, next_id = memory.version, memory.next_id
    memory.clear()
    assert (len(memory), memory.nbytes, memory.world_frame, memory.scale) == (0, 0, "", None)
    assert memory.version > version
    assert memory.keyframes(4).picked == ()
    assert memory.add(frame(0, "elsewhere")) == next_id


def test_what_is_no_pose_changes_nothing(memory: SpatialMemory) -> None:
    before = memory.seen_points()
    with pytest.raises(InvalidTransform):
        memory.revise([doubled(0), Revision(10**9, "camera", np.full((4, 4), np.nan))], SCALE)
    np.testing.assert_array_equal(memory.seen_points(), before)
    assert memory.scale is None
    assert float(memory.frames()[0].frame.depth[0, 0]) == 2.0  # type: ignore[index]
