"""The map's evidence: exact to add, to take away and to move; bounded; not misled by bad frames."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_scene import ROOM, START_NS, depth_in, frame, look_round, pose

from spatial_mllm_ros.memory.map.occupancy_map import MapConfig, OccupancyMap
from spatial_mllm_ros.memory.map.snapshot import State
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.pose import InvalidTransform, make_transform

FIELDS = ("blocks", "hits", "free", "first", "last", "weight", "sums", "poses", "stamps")
FRAMES = look_round(48, 2.0)


def built(frames, config=None):
    m = OccupancyMap(config)
    for i, f in frames:
        assert m.integrate(i, f), m.refused
    return m


def assert_same(a, b):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a.snapshot(), name), getattr(b.snapshot(), name), err_msg=name)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(8)), st.sets(st.integers(0, 7), max_size=8))
def test_what_is_removed_leaves_no_trace_and_the_order_of_frames_does_not_matter(order, removed):
    m = built([(i, FRAMES[i]) for i in order], MapConfig(max_speed_m_s=100))
    for i in removed:
        assert m.remove(i)
    assert_same(m, built([(i, FRAMES[i]) for i in range(8) if i not in removed]))


@settings(max_examples=10, deadline=None)
@given(st.sets(st.integers(0, 7), min_size=1, max_size=8), st.floats(-0.3, 0.3), st.floats(-0.2, 0.2))
def test_the_map_after_a_correction_is_that_of_the_corrected_poses(moved, shift, turn):
    T = make_transform([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]], (shift, 0.1, 0))
    m = built(list(enumerate(FRAMES[:8])))
    corrected = {i: T @ FRAMES[i].T_world_camera for i in moved}
    assert m.correct(corrected) == len(moved)
    frames = [replace(f, T_world_camera=corrected.get(i, f.T_world_camera)) for i, f in enumerate(FRAMES[:8])]
    assert_same(m, built(list(enumerate(frames))))
    assert m.correct(corrected) == 0, "the same poses again move nothing"


def test_a_correction_that_is_no_rigid_transform_changes_nothing():
    m = built(list(enumerate(FRAMES[:3])))
    with pytest.raises(InvalidTransform):
        m.correct({0: np.eye(4), 1: np.full((4, 4), np.nan)})
    assert_same(m, built(list(enumerate(FRAMES[:3]))))


def test_a_room_is_free_inside_occupied_at_its_walls_and_unknown_beyond():
    s = built(list(enumerate(FRAMES))).snapshot()
    assert s.at([[0.5, 0.2, 1.0], [1.2, -0.8, 1.2]]).state.tolist() == [State.FREE] * 2
    assert (
        s.at([[1.99, 0.0, 1.2], [0.0, 1.49, 1.2]]).state.tolist() == [State.OCCUPIED] * 2
        or s.at([[2.01, 0.0, 1.2], [0.0, 1.51, 1.2]]).state.tolist() == [State.OCCUPIED] * 2
    )
    assert s.at([[2.6, 0.0, 1.2], [0.0, 0.0, 3.2], [500.0, 0.0, 0.0]]).state.tolist() == [State.UNKNOWN] * 3


def test_surfaces_lie_within_millimetres_of_the_walls():
    s = built(list(enumerate(FRAMES))).snapshot()
    off = np.abs(s.surface[:, None] - ROOM).min(axis=(1, 2))
    assert len(off) > 1000
    assert np.percentile(off, 90) < 0.004


def test_first_and_last_stamps_are_those_of_the_frames_that_show_a_place():
    m = OccupancyMap()
    for i, yaw in enumerate((0.0, 0.0, np.pi, 0.0, np.pi)):
        assert m.integrate(i, frame(pose(yaw=yaw), float(i)))
    ahead, behind, nowhere = (1.0, 0.0, 1.2), (-1.0, 0.0, 1.2), (0.0, 0.0, 2.9)
    found = m.snapshot().at([ahead, behind, nowhere])
    assert ((found.first - START_NS) // 10**9).tolist()[:2] == [0, 2]
    assert ((found.last - START_NS) // 10**9).tolist()[:2] == [3, 4]
    assert (found.first[2], found.last[2]) == (-1, -1)
    m.remove(3)
    m.remove(0)
    found = m.snapshot().at([ahead])
    assert ((found.first - START_NS) // 10**9, (found.last - START_NS) // 10**9) == (1, 1)


def test_images_that_contradict_a_wall_leave_no_tunnel_through_it():
    m = built(list(enumerate(FRAMES)))
    y, z = (a.ravel() for a in np.meshgrid(np.linspace(-0.5, 0.5, 21), np.linspace(0.9, 1.5, 13)))

    def across(field):
        s = m.snapshot()
        found = [s.at(np.stack([np.full_like(y, x), y, z], axis=1)) for x in (1.925, 1.975, 2.025, 2.075)]
        return np.stack([getattr(voxels, field) for voxels in found])

    seen = across("hits").sum(axis=0) >= 5
    assert seen.mean() > 0.8
    deep = np.array([[-2.0, -1.5, 0.0], [4.5, 1.5, 2.5]])  # as if the wall at x = 2 were not there
    for i in range(12):
        m.integrate(100 + i, frame(pose(yaw=0.02 * i), 20 + i, room=deep))
    assert (across("state") != State.FREE).any(axis=0)[seen].all(), "a way through the wall"


def test_one_wild_pose_is_refused_and_a_new_place_is_believed_when_it_is_confirmed():
    m = built(list(enumerate(FRAMES[:4])))
    for i, x, taken in ((10, 40.0, False), (11, 0.1, True), (12, 40.0, False), (13, 40.1, True), (14, 40.2, True)):
        assert m.integrate(i, frame(pose(x=x), 0.1 * i + 1.1, room=ROOM + np.array([x, 0, 0]))) == taken, i
    assert m.refused == {"pose_jump": 2}


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0, 1e30])
def test_depth_that_is_none_is_refused(value):
    m = OccupancyMap()
    assert not m.integrate(0, frame(pose(), depth=np.full((72, 96), value, dtype=np.float32)))
    assert m.refused == {"no_depth": 1}
    assert not len(m.snapshot().blocks)


def test_random_depth_leaves_the_map_bounded_and_walls_closed():
    rng = np.random.default_rng(0)
    m = built(list(enumerate(FRAMES)))
    for i in range(4):
        noise = rng.uniform(0.01, 60.0, (72, 96)).astype(np.float32)
        m.integrate(100 + i, frame(pose(yaw=0.1 * i), 20 + i, depth=noise))
    s = m.snapshot()
    assert len(s.blocks) < 6000
    wall = s.at([[1.975, y, 1.2] for y in np.linspace(-1, 1, 41)]).state
    assert (wall != State.FREE).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": None}, "no_depth"),
        ({"camera": None}, "no_camera_info"),
        ({"T_world_camera": None}, "no_pose"),
        ({"T_world_camera": np.diag([1.0, 1.0, -1.0, 1.0])}, "bad_pose"),
        ({"T_world_camera": make_transform(np.eye(3), (1e9, 0, 0))}, "too_far"),
    ],
)
def test_a_frame_that_cannot_be_placed_is_refused_by_reason(change, reason):
    m = OccupancyMap()
    assert not m.integrate(0, replace(frame(pose()), **change))
    assert m.refused == {reason: 1}


def test_memory_stays_bounded_and_what_went_is_counted_and_never_subtracted():
    config = MapConfig(max_blocks=1000, max_frames=10, max_speed_m_s=100)
    m = OccupancyMap(config)
    for i in range(30):  # a corridor of rooms, 60 m long
        T = pose(x=2.0 * i, yaw=0.3 * i)
        assert m.integrate(i, frame(T, float(i), room=ROOM + np.array([2.0 * i, 0, 0])))
    assert len(m.snapshot().blocks) <= 1000
    assert m.evicted > 0
    assert (len(m), m.settled) == (10, 20)
    for i in range(20, 30):
        assert m.remove(i)
    s = m.snapshot()
    assert min(s.hits.min(), s.free.min(), s.weight.min()) >= 0


def test_a_frame_leaves_nothing_after_its_blocks_went_and_came_back():
    m = built(list(enumerate(FRAMES[:6])), MapConfig(max_speed_m_s=1000))
    m._blocks.drop(m._blocks.places()[::2])
    assert m.integrate(50, frame(pose(yaw=0.05), 9.0))
    for i in (*range(6), 50):
        assert m.remove(i)
    assert not len(m.snapshot().blocks)


def test_a_lens_that_bends_rays_shows_the_same_room():
    bent = CameraModel(96, 72, 80.0, 80.0, 47.5, 35.5, "plumb_bob", (-0.2, 0.05, 0.0, 0.0, 0.0))
    m = OccupancyMap()
    for i, f in enumerate(FRAMES):
        T = f.T_world_camera
        assert m.integrate(i, frame(T, 0.5 * i, depth_in(ROOM, T, bent), bent))
    off = np.abs(m.snapshot().surface[:, None] - ROOM).min(axis=(1, 2))
    assert np.percentile(off, 90) < 0.02
    assert m.snapshot().at([[1.0, 0.4, 1.2]]).state[0] == State.FREE


def test_a_snapshot_does_not_change_and_is_the_same_until_the_map_does():
    m = built(list(enumerate(FRAMES[:3])))
    s = m.snapshot()
    hits = s.hits.copy()
    assert m.snapshot() is s
    m.integrate(3, FRAMES[3])
    np.testing.assert_array_equal(s.hits, hits)
    assert m.snapshot() is not s


def test_bounds_that_make_no_sense_are_refused():
    for bad in ({"voxel_m": 0.0}, {"reach_m": 100.0}, {"max_blocks": 1}, {"max_frames": 0}, {"max_speed_m_s": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            MapConfig(**bad)


def test_a_frame_is_entered_once():
    m = built([(0, FRAMES[0])])
    assert not m.integrate(0, FRAMES[1])
    assert m.refused == {"repeated": 1}
    assert not m.remove(7)
