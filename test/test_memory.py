"""The spatial memory: what it takes, what it refuses and counts, what it keeps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from spatial_mllm_ros.memory.keyframes.streaming import SelectorConfig
from spatial_mllm_ros.memory.spatial_memory import MemoryConfig, Revision, SpatialMemory
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.memory.track import PoseTrack
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame, InvalidFrame
from spatial_mllm_ros.scene.pose import InvalidTransform, make_transform

CAMERA = CameraModel(32, 24, 30.0, 30.0, 15.5, 11.5)


def frame(i: int, x: float = 0.0, **changes: object) -> Frame:
    depth = np.full((24, 32), 1500 + 10 * i, dtype=np.uint16)
    image = np.full((24, 32, 3), i % 256, dtype=np.uint8)
    T = make_transform(np.eye(3), (x, 0.0, 0.0))
    return replace(Frame(1_000_000_000 + i * 100_000_000, "camera", CAMERA, image, depth, T), **changes)  # type: ignore[arg-type]


def test_frames_without_a_place_in_space_are_refused_and_counted() -> None:
    memory = SpatialMemory(clock=lambda: 10**12)
    assert memory.add(frame(0)) == 0
    refused = [
        frame(1, T_world_camera=None),
        frame(2, T_world_camera=np.zeros((4, 4))),
        frame(3, T_world_camera=np.full((4, 4), np.nan)),
        frame(4, camera=None),
        frame(0),
        frame(5, stamp_ns=-1),
        frame(6, stamp_ns=2 * 10**12),
        frame(7, world_frame="odom"),
    ]
    assert [memory.add(f) for f in refused] == [None] * len(refused)
    assert memory.refused == Counter(
        no_pose=1, bad_pose=2, no_camera_info=1, stamp_repeated=1, stamp_negative=1, stamp_from_the_future=1,
        other_world_frame=1,
    )  # fmt: skip
    assert len(memory) == 1


def test_frames_out_of_order_find_their_place() -> None:
    memory = SpatialMemory()
    for i in (3, 1, 2, 0):
        memory.add(frame(i))
    assert [f.frame.stamp_ns for f in memory.frames()] == [frame(i).stamp_ns for i in range(4)]
    assert [f.frame_id for f in memory.frames(frame(1).stamp_ns, frame(2).stamp_ns)] == [1, 2]
    track = memory.track()
    assert track is not None
    assert track.first == frame(0).stamp_ns


@pytest.mark.parametrize(
    "depth",
    [np.zeros((24, 32), np.uint16), np.full((24, 32), np.nan, np.float32), np.full((24, 32), np.inf, np.float32), None],
    ids=["zero", "NaN", "infinite", "none"],
)
def test_frames_that_show_no_depth_are_kept_but_never_keyframes(depth: np.ndarray | None) -> None:
    memory = SpatialMemory()
    memory.add(frame(0, depth=depth))
    assert (len(memory), memory.without_depth, memory.keyframes(4).picked) == (1, 1, ())


def test_both_bounds_hold_and_candidates_stay_longest() -> None:
    size = frame(0).nbytes
    config = MemoryConfig(max_frames=12, selector=SelectorConfig(pool_size=4, core_size=1))
    memory = SpatialMemory(config)
    for i in range(40):
        memory.add(frame(i, x=0.3 * i))
        assert len(memory) <= 12
        assert set(memory.candidates) <= {f.frame_id for f in memory.frames()}
    assert memory.evicted == 28
    tight = SpatialMemory(replace(config, max_bytes=5 * size))
    for i in range(20):
        tight.add(frame(i, x=0.3 * i))
        assert tight.nbytes == sum(f.frame.nbytes for f in tight.frames()) <= 5 * size
    assert set(memory.candidates) <= {f.frame_id for f in memory.frames()}


def test_poses_outlive_their_images() -> None:
    memory = SpatialMemory(MemoryConfig(max_frames=3))
    for i in range(10):
        memory.add(frame(i))
    track = memory.track("camera")
    assert track is not None
    assert len(track) == 10
    assert memory.nearest(frame(0).stamp_ns) is None


def test_corrected_poses_are_followed() -> None:
    memory = SpatialMemory()
    for i in range(4):
        memory.add(frame(i, x=float(i)))
    version = memory.version
    T = make_transform(np.eye(3), (50.0, 0, 0))
    assert memory.correct_poses({frame(2).stamp_ns: T, 5: T}) == 1
    stored = memory.get(2)
    track = memory.track()
    assert stored is not None
    assert track is not None
    np.testing.assert_array_equal(stored.frame.T_world_camera, T)
    np.testing.assert_allclose(track.at(frame(2).stamp_ns, 0), T)
    assert memory.seen_points()[:, 0].max() > 45
    assert memory.version != version


def test_a_bad_correction_changes_nothing() -> None:
    memory = SpatialMemory()
    memory.add(frame(0))
    memory.add(frame(1))
    before = [f.frame.T_world_camera for f in memory.frames()]
    with pytest.raises(InvalidTransform):
        memory.correct_poses({frame(0).stamp_ns: np.eye(4), frame(1).stamp_ns: np.zeros((4, 4))})
    for f, T in zip(memory.frames(), before, strict=True):
        np.testing.assert_array_equal(f.frame.T_world_camera, T)


def test_a_long_track_gets_coarser_the_longer_ago() -> None:
    track = PoseTrack(max_poses=100)
    for i in range(1000):
        track.set(i, make_transform(np.eye(3), (i * 0.01, 0, 0)))
    stamps, poses = track.arrays()
    assert len(track) <= 100
    assert (stamps[0], stamps[-1]) == (0, 999)
    np.testing.assert_allclose(poses[:, 0], stamps * 0.01)
    assert np.diff(stamps)[-10:].max() < np.diff(stamps)[:10].min()


def test_poses_are_interpolated_but_not_across_gaps() -> None:
    track = PoseTrack()
    track.set(0, make_transform(np.eye(3), (0.0, 0, 0)))
    track.set(100, make_transform(np.eye(3), (1.0, 0, 0)))
    middle = track.at(25, max_gap_ns=100)
    assert middle is not None
    assert middle[0, 3] == pytest.approx(0.25)
    assert track.at(25, max_gap_ns=99) is None
    assert track.at(101, max_gap_ns=10**9) is None
    assert track.at(-1, max_gap_ns=10**9) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"depth": np.zeros((12, 16), np.uint16)}, "depth_size"),
        ({"depth": np.zeros((24, 32), np.int32)}, "bad_depth"),
        ({"depth": np.zeros((24, 32, 1), np.uint16)}, "bad_depth"),
        ({"image": np.zeros((12, 32, 3), np.uint8)}, "image_size"),
        ({"image": np.zeros((24, 32), np.uint8)}, "bad_image"),
        ({"camera": replace(CAMERA, width=64)}, "image_size"),
    ],
)
def test_a_frame_that_contradicts_itself_cannot_be_made(changes: dict, reason: str) -> None:
    with pytest.raises(InvalidFrame) as caught:
        frame(0, **changes)
    assert caught.value.reason == reason


def test_an_answer_on_its_way_sees_the_poses_from_before_a_correction_or_those_after_it_never_both() -> None:
    memory = SpatialMemory()
    for i in range(4):
        memory.add(frame(i, x=0.1 * i))
    seen = memory.snapshot()
    before = (seen.seen_points(), seen.track().arrays()[1], [s.frame.T_world_camera for s in seen.frames()])  # type: ignore[union-attr]
    assert memory.correct_poses({frame(i).stamp_ns: make_transform(np.eye(3), (9.0, i, 0)) for i in range(4)}) == 4
    after = (seen.seen_points(), seen.track().arrays()[1], [s.frame.T_world_camera for s in seen.frames()])  # type: ignore[union-attr]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    now = memory.snapshot()
    assert now is not seen
    assert {s.frame.T_world_camera[0, 3] for s in now.frames()} == {9.0}
    assert now.track().arrays()[1][:, 0].tolist() == [9.0] * 4  # type: ignore[union-attr]


def test_frames_that_are_considered_later_are_remembered_at_once() -> None:
    later: list[int] = []
    memory = SpatialMemory(on_taken=lambda memory, stored: later.append(stored.frame_id))
    at_once = SpatialMemory()
    for i in range(5):
        memory.add(frame(i, x=0.1 * i))
        at_once.add(frame(i, x=0.1 * i))
    assert (len(memory), memory.candidates) == (5, ())
    version = memory.version
    for frame_id in (*later, *later, 99):
        memory.consider(frame_id)
    assert memory.version > version
    assert memory.candidates == at_once.candidates
    assert memory.keyframes(3) == at_once.keyframes(3)


def test_a_snapshot_stays_as_it_was_while_the_memory_goes_on() -> None:
    memory = SpatialMemory(MemoryConfig(max_frames=5))
    for i in range(5):
        memory.add(frame(i, x=0.1 * i))
    seen = memory.snapshot()
    assert memory.snapshot() is seen
    before = (seen.frames(), seen.keyframes(4), seen.seen_points(), seen.track().arrays()[1], seen.version)  # type: ignore[union-attr]
    memory.revise(
        [Revision(frame(i).stamp_ns, "camera", make_transform(np.eye(3), (9.0, 0, 0)), 2.0) for i in range(5)], None
    )
    for i in range(5, 15):
        memory.add(frame(i))
    assert memory.snapshot() is not seen
    after = (seen.frames(), seen.keyframes(4), seen.seen_points(), seen.track().arrays()[1], seen.version)  # type: ignore[union-attr]
    assert after[:2] == before[:2]
    np.testing.assert_array_equal(after[2], before[2])
    np.testing.assert_array_equal(after[3], before[3])
    assert [s.frame_id for s in memory.frames()] != [s.frame_id for s in seen.frames()]
    memory.clear()
    assert (len(seen), len(memory.snapshot())) == (5, 0)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
def test_a_memory_full_of_candidates_takes_what_is_new(later: bool) -> None:
    """Large images: fewer fit in than may be keyframes. What waits to be considered is not what goes first."""
    waiting: list[int] = []

    def take(memory: SpatialMemory, stored: StoredFrame) -> None:
        waiting.append(stored.frame_id)
        while len(waiting) > (2 if later else 0):
            memory.consider(waiting.pop(0))

    memory = SpatialMemory(MemoryConfig(max_frames=5), on_taken=take)
    for i in range(12):
        memory.add(frame(i, x=0.5 * i))
    assert [stored.frame_id for stored in memory.frames()] == [7, 8, 9, 10, 11]
