"""The transform tree: what it composes, what it interpolates, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from spatial_mllm_ros.scene.pose import InvalidTransform, from_quaternion, interpolate, invert, rotation_angle
from spatial_mllm_ros.scene.transform_tree import (
    SECOND,
    ExtrapolationIntoFuture,
    ExtrapolationIntoPast,
    NotConnected,
    TransformError,
    TransformGap,
    TransformLoop,
    TransformTree,
    UnknownFrame,
)

coordinates = st.floats(-10, 10).map(lambda x: round(x, 3))
quaternions = st.tuples(coordinates, coordinates, coordinates, coordinates).filter(lambda q: np.linalg.norm(q) > 0.1)
transforms = st.builds(from_quaternion, quaternions, st.tuples(coordinates, coordinates, coordinates))
quick = settings(max_examples=40, deadline=None)


def shift(x: float, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    return from_quaternion((0, 0, 0, 1), (x, y, z))


@quick
@given(transforms, transforms, transforms)
def test_composition_and_inverse(T_map_odom, T_odom_base, T_map_arm):
    """Any two frames of one tree relate by the product along the path, whichever way it is walked."""
    tree = TransformTree()
    tree.add("map", "odom", 5, T_map_odom)
    tree.add("odom", "base", 5, T_odom_base)
    tree.add("map", "arm", 0, T_map_arm, static=True)
    assert_allclose(tree.lookup("map", "base", 5), T_map_odom @ T_odom_base, atol=1e-9)
    assert_allclose(tree.lookup("arm", "base", 5), invert(T_map_arm) @ T_map_odom @ T_odom_base, atol=1e-8)
    assert_allclose(tree.lookup("arm", "base", 5) @ tree.lookup("base", "arm", 5), np.eye(4), atol=1e-8)
    assert_allclose(tree.lookup("base", "base", 5), np.eye(4), atol=1e-12)


@quick
@given(transforms, transforms, st.integers(1, 10**8), st.floats(0, 1))
def test_interpolation_meets_its_ends_and_stays_between(T0, T1, length, fraction):
    """At the ends the transforms given; between them linear position, and a rotation no longer than the whole."""
    tree = TransformTree()
    tree.add("map", "base", 100 + length, T1)
    tree.add("map", "base", 100, T0)
    assert_allclose(tree.lookup("map", "base", 100), T0, atol=1e-9)
    assert_allclose(tree.lookup("map", "base", 100 + length), T1, atol=1e-9)
    at = round(fraction * length)
    T = tree.lookup("map", "base", 100 + at)
    if rotation_angle(invert(T0) @ T1) < 3.1:  # half a turn has two shortest ways
        assert_allclose(T, interpolate(T0, T1, at / length), atol=1e-7)
    assert rotation_angle(invert(T0) @ T) <= rotation_angle(invert(T0) @ T1) + 1e-6


@quick
@given(st.permutations(list(range(8))))
def test_order_of_arrival_does_not_matter(order):
    """Transforms come late over a network; the history must be the same."""
    tree = TransformTree()
    for i in order:
        tree.add("map", "base", i * 1000, shift(i))
    for stamp in (0, 500, 3250, 7000):
        assert_allclose(tree.lookup("map", "base", stamp)[0, 3], stamp / 1000)


def test_outside_the_history_is_an_error_that_says_how_far():
    """Never extrapolate: the robot may have turned."""
    tree = TransformTree()
    tree.add("map", "base", 1 * SECOND, shift(1))
    tree.add("map", "base", 1 * SECOND + 1000, shift(2))
    with pytest.raises(ExtrapolationIntoPast, match=r"0\.250 s later than the time asked") as past:
        tree.lookup("map", "base", SECOND * 3 // 4)
    assert (past.value.by_ns, past.value.reason) == (SECOND // 4, "tf_past")
    with pytest.raises(ExtrapolationIntoFuture) as future:
        tree.lookup("base", "map", 2 * SECOND)
    assert (future.value.by_ns, future.value.reason) == (SECOND - 1000, "tf_future")


def test_a_silent_stretch_is_not_bridged():
    """A localiser that was lost for two seconds says nothing about the seconds between."""
    tree = TransformTree()
    patient = TransformTree(max_gap_ns=None)
    for t in (tree, patient):
        t.add("map", "base", 0, shift(0))
        t.add("map", "base", 2 * SECOND, shift(2))
    with pytest.raises(TransformGap) as gap:
        tree.lookup("map", "base", SECOND)
    assert gap.value.gap_ns == 2 * SECOND
    assert tree.lookup("map", "base", 2 * SECOND)[0, 3] == 2
    assert_allclose(patient.lookup("map", "base", SECOND)[0, 3], 1)


def test_unknown_and_unconnected_frames():
    tree = TransformTree()
    tree.add("map", "base", 0, shift(1))
    tree.add("other", "thing", 0, shift(1))
    with pytest.raises(UnknownFrame, match="known frames: map, base, other, thing"):
        tree.lookup("map", "camera", 0)
    with pytest.raises(NotConnected):
        tree.lookup("map", "thing", 0)
    assert issubclass(NotConnected, LookupError)


def test_loops_are_refused_and_leave_the_tree_as_it_was():
    tree = TransformTree()
    tree.add("map", "odom", 0, shift(1))
    tree.add("odom", "base", 0, shift(1))
    for parent, child in (("base", "map"), ("base", "odom"), ("odom", "odom")):
        with pytest.raises(TransformLoop):
            tree.add(parent, child, 0, shift(1))
    assert_allclose(tree.lookup("map", "base", 0)[0, 3], 2)


def test_latest_parent_wins():
    """Two parents contradict each other; the newer holds, an older message does not bring the former back."""
    tree = TransformTree()
    tree.add("map", "base", 10, shift(1))
    tree.add("odom", "base", 20, shift(2))
    tree.add("map", "base", 15, shift(1))
    assert tree.lookup("odom", "base", 20)[0, 3] == 2
    with pytest.raises(NotConnected):
        tree.lookup("map", "base", 10)
    assert tree.counts["tf_new_parent"] == 2


@pytest.mark.parametrize("bad", [np.full((4, 4), np.nan), np.eye(4) * 2, np.eye(3), np.diag([1.0, 1.0, -1.0, 1.0])])
def test_numbers_that_are_no_transform(bad):
    with pytest.raises(InvalidTransform):
        TransformTree().add("map", "base", 0, bad)


def test_frames_need_names_and_lose_ros1_slashes():
    tree = TransformTree()
    with pytest.raises(InvalidTransform):
        tree.add("", "base", 0, shift(0))
    tree.add("/map", "/base", 0, shift(3))
    assert tree.lookup("map", "/base", 0)[0, 3] == 3


def test_static_holds_at_all_times_and_the_last_one_wins():
    tree = TransformTree()
    tree.add("base", "camera", 7, shift(1), static=True)
    tree.add("base", "camera", 3, shift(2), static=True)
    assert tree.lookup("base", "camera", -(10**18))[0, 3] == 2


def test_a_leap_ahead_that_the_next_transform_confirms_keeps_each_its_own_deviation():
    """A clock that was set right: the history before is dropped with its deviations."""
    tree = TransformTree(history_ns=SECOND)
    for i in range(3):
        tree.add("map", "base", i * 1000, shift(i), stddev=(9.0, 9.0))
    for i in range(2):
        tree.add("map", "base", 10 * SECOND + i * 1000, shift(i), stddev=(0.1 * (i + 1), 0.0))
    assert tree.stddev("map", "base", 10 * SECOND) == pytest.approx((0.1, 0.0))
    assert tree.stddev("map", "base", 10 * SECOND + 1000) == pytest.approx((0.2, 0.0))


def test_repeated_stamp_replaces():
    tree = TransformTree()
    tree.add("map", "base", 5, shift(1))
    tree.add("map", "base", 5, shift(2))
    assert tree.lookup("map", "base", 5)[0, 3] == 2
    assert tree.counts["tf_repeated"] == 1


def test_history_is_bounded_in_seconds_and_in_number():
    tree = TransformTree(history_ns=SECOND, history_count=5)
    for i in range(100):
        tree.add("map", "base", i * 1000, shift(i))
    with pytest.raises(ExtrapolationIntoPast):
        tree.lookup("map", "base", 94_000)
    assert tree.lookup("map", "base", 95_000)[0, 3] == 95
    tree.add("map", "base", 99_001 + SECOND, shift(0))
    assert tree.lookup("map", "base", 95_000)[0, 3] == 95, "one so far ahead may be a slip"
    tree.add("map", "base", 99_002 + SECOND, shift(0))
    with pytest.raises(ExtrapolationIntoPast):
        tree.lookup("map", "base", 99_000)


def test_one_old_transform_is_ignored_but_a_clock_set_back_starts_anew():
    """A bag that starts over sends old stamps for good: the edge must not stay deaf."""
    tree = TransformTree(history_ns=SECOND)
    tree.add("map", "base", 100 * SECOND, shift(1))
    tree.add("map", "base", 1, shift(9))
    assert tree.lookup("map", "base", 100 * SECOND)[0, 3] == 1
    for i in range(20):
        tree.add("map", "base", i * 1000, shift(i))
    assert tree.lookup("map", "base", 19_000)[0, 3] == 19
    assert tree.counts["tf_restarted"] == 1


def test_forgetting_the_future_keeps_the_rest():
    """After a clock was set back, newer transforms are of another time."""
    tree = TransformTree()
    tree.add("map", "base", 5, shift(1))
    tree.add("map", "base", 9, shift(2))
    tree.add("base", "camera", 10, shift(1), static=True)
    tree.forget_after(7)
    assert tree.lookup("map", "camera", 5)[0, 3] == 2
    with pytest.raises(ExtrapolationIntoFuture):
        tree.lookup("map", "camera", 9)
    tree.forget_after(1)
    assert tree.frames() == ("base", "camera")


def test_the_fixed_frame_is_found():
    tree = TransformTree()
    assert tree.root_of("camera") is None
    tree.add("base", "camera", 0, shift(1), static=True)
    tree.add("odom", "base", 0, shift(1))
    tree.add("earth", "odom", 0, shift(1))
    assert tree.root_of("camera") == "odom"
    tree.add("map", "odom", 1, shift(1))
    assert tree.root_of("camera") == "map"


def test_a_robot_is_no_fixed_frame():
    """Without a localiser all frames would be piled up at one place, as if the robot had never moved."""
    tree = TransformTree()
    tree.add("base_link", "head", 0, shift(1))  # a moving neck
    tree.add("head", "camera", 0, shift(1), static=True)
    assert tree.root_of("camera") is None
    tree.add("lab", "other_camera", 0, shift(1), static=True)
    assert tree.root_of("other_camera") is None, "nothing says that lab is fixed: it must be named as the world frame"
    tree.add("mocap", "base_link", 0, shift(1))
    assert tree.root_of("camera") == "mocap"
    tree.add("robot1/map", "robot1/camera", 0, shift(1), static=True)
    assert tree.root_of("robot1/camera") == "robot1/map"


# ---- How uncertain an interpolated pose is


def yaw(angle: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    return from_quaternion((0, 0, np.sin(angle / 2), np.cos(angle / 2)), (x, y, 0))


def test_a_transform_at_its_own_stamp_and_a_steady_motion_add_nothing():
    tree = TransformTree(max_gap_ns=None)
    for second in range(6):
        tree.add("map", "camera", second * SECOND, yaw(0.1 * second, 0.3 * second))
    assert tree.stddev("map", "camera", 2 * SECOND) == (0.0, 0.0)
    assert_allclose(tree.stddev("map", "camera", 2_500_000_000), (0, 0), atol=1e-7)


def test_the_uncertainty_grows_into_the_gap_and_with_how_unevenly_the_frame_moves():
    def at(share: float, bend: float) -> float:
        tree = TransformTree(max_gap_ns=None)
        for second in range(6):
            tree.add("map", "camera", second * SECOND, yaw(0, 0.3 * second, bend * second**2))
        return tree.stddev("map", "camera", round((2 + share) * SECOND))[0]

    assert at(0.05, 0.1) < at(0.2, 0.1) < at(0.5, 0.1)
    assert_allclose(at(0.5, 0.2), 2 * at(0.5, 0.1))
    assert at(0.5, 0.1) > 0.1 / 4, "of a parabola the chord is bend / 4 off in the middle"


def test_a_frame_that_starts_in_the_gap_and_one_without_neighbours():
    tree = TransformTree(max_gap_ns=None)
    for second, x in enumerate((0, 0, 0, 0.8, 0.8)):
        tree.add("map", "camera", second * SECOND, yaw(0, x))
    assert 0.15 < tree.stddev("map", "camera", 2_500_000_000)[0] < 0.4, "it is anywhere within 0.4 m of the middle"
    alone = TransformTree(max_gap_ns=None)
    alone.add("map", "camera", 0, yaw(0))
    alone.add("map", "camera", SECOND, yaw(0.4, 0.8))
    assert_allclose(alone.stddev("map", "camera", SECOND // 2), (0.2, 0.1))


def test_a_long_silence_is_judged_at_its_own_pace():
    """Thirty transforms a second say nothing of what happens in two seconds of silence; the two seconds before do."""
    tree = TransformTree(max_gap_ns=None)
    for k in [*range(61), *range(121, 181)]:
        t = k / 30
        tree.add("map", "camera", round(t * SECOND), yaw(0, 0, 0.1 * np.sin(1.5 * t)))
    off = abs(0.1 * np.sin(1.5 * 3) - (0.1 * np.sin(1.5 * 2) + 0.1 * np.sin(1.5 * 121 / 30)) / 2)
    assert off / 3 < tree.stddev("map", "camera", 3 * SECOND)[0] < 4 * off


def test_rotations_act_over_the_distance_and_what_publishers_tell_counts():
    tree = TransformTree()
    tree.add("map", "odom", 0, yaw(0), static=True, stddev=(0.03, 0.01))
    tree.add("odom", "base", 0, yaw(0), stddev=(0.04, 0.0))
    tree.add("base", "camera", 0, yaw(0, 5.0), static=True)
    assert_allclose(tree.stddev("map", "camera", 0), (np.sqrt(0.03**2 + 0.04**2 + 0.05**2), 0.01))
    assert_allclose(tree.stddev("camera", "map", 0)[1], 0.01)


def test_the_deviation_covers_what_interpolating_a_localiser_at_one_hertz_is_off_by():
    """Walks that speed up, turn and stop: two thirds of the errors within one deviation or more, nearly all within three."""
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(20):
        knots = np.cumsum(rng.normal(0, 0.35, (40, 2)) * (rng.random((40, 1)) < 0.7), axis=0)
        fine = np.arange(0, 39, 0.02)
        x, y = (np.interp(fine, np.arange(40), np.convolve(k, [0.25, 0.5, 0.25], "same")) for k in knots.T)
        begin = 17  # the knots lie between the transforms
        tree = TransformTree(history_ns=2**62, max_gap_ns=None)
        for k in range(begin, len(fine), 50):
            tree.add("map", "camera", round(fine[k] * SECOND), yaw(0, x[k], y[k]))
        for k in range(200 + begin, len(fine) - 250, 7):
            stamp = round(fine[k] * SECOND)
            error = tree.lookup("map", "camera", stamp)[:2, 3] - (x[k], y[k])
            deviation = tree.stddev("map", "camera", stamp)[0]
            if deviation > 1e-4:
                ratios += list(np.abs(error) / deviation)
    assert 0.68 < np.mean(np.array(ratios) < 1) < 0.95
    assert np.mean(np.array(ratios) < 3) > 0.98


def test_a_mount_that_was_sent_once_and_not_as_static_is_named_as_such():
    tree = TransformTree()
    tree.add("base", "camera", 1_000_000_000, np.eye(4))
    for second in range(1, 8):
        tree.add("map", "base", second * 1_000_000_000, np.eye(4))
    with pytest.raises(TransformError, match="was told once") as caught:
        tree.lookup("map", "camera", 6_000_000_000)
    assert caught.value.reason == "tf_once"
    with pytest.raises(TransformError) as caught:
        tree.lookup("map", "camera", 2_000_000_000)  # its next one may still come
    assert caught.value.reason == "tf_future"


def test_images_that_name_no_frame_are_told_so():
    tree = TransformTree()
    tree.add("map", "camera", 0, np.eye(4))
    with pytest.raises(TransformError, match="frame_id is empty") as caught:
        tree.lookup("map", "", 0)
    assert caught.value.reason == "no_frame_id"
