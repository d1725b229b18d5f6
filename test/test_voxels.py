"""Voxels and back-projection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spatial_mllm_ros.scene.backproject import camera_points, extend_bounds
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import apply, from_quaternion
from spatial_mllm_ros.scene.voxels import Lattice, small_numbers, voxel_centres, voxel_keys

points = arrays(np.float64, st.tuples(st.integers(0, 40), st.just(3)), elements=st.floats(-50, 50))
lattices = st.builds(Lattice, st.floats(0.01, 3), st.tuples(*[st.floats(-5, 5)] * 3))
CAMERA = CameraModel(50, 38, 40.0, 41.0, 24.0, 19.0)


@given(points, lattices)
def test_every_point_lies_in_its_voxel(p: np.ndarray, lattice: Lattice) -> None:
    keys = voxel_keys(p, lattice)
    assert (np.diff(keys) > 0).all()
    centres = voxel_centres(keys, lattice)
    for point in p:
        assert np.abs(centres - point).max(axis=1).min() <= lattice.edge / 2 * (1 + 1e-6) + 1e-9
    assert len(keys) <= len(p)


@given(points, lattices)
def test_sorting_and_table_agree(p: np.ndarray, lattice: Lattice) -> None:
    """A far point makes the box too large for the table; the other voxels stay the same."""
    far = np.vstack([p, [(900.0, 900.0, 900.0)]])
    np.testing.assert_array_equal(np.setdiff1d(voxel_keys(far, lattice), voxel_keys(p, lattice)).size <= 1, True)
    assert np.isin(voxel_keys(p, lattice), voxel_keys(far, lattice)).all()


@given(points, lattices)
def test_small_numbers_tell_the_same_voxels_apart(p: np.ndarray, lattice: Lattice) -> None:
    keys = voxel_keys(p, lattice)
    assert len(np.unique(small_numbers(keys))) == len(keys)


def test_points_that_are_not_finite_or_too_far_are_left_out() -> None:
    p = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [1e9, 0, 0], [0.5, 0.5, 0.5]], dtype=np.float32)
    assert len(voxel_keys(p, Lattice(1.0))) == 1


@settings(deadline=None)
@given(
    depth=arrays(np.uint16, (38, 50), elements=st.integers(0, 9000)),
    q=arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1),
    metres=st.booleans(),
    limit=st.sampled_from([3.0, np.inf]),
)
def test_bounds_are_those_of_every_pixel(depth: np.ndarray, q: np.ndarray, metres: bool, limit: float) -> None:
    if metres:
        depth = (depth * np.float32(0.001)).astype(np.float32)
        depth[0, 0] = np.nan
    frame = Frame(0, "camera", CAMERA, None, depth, from_quaternion(q, (1.0, -2.0, 0.5)))
    low, high = extend_bounds(frame, np.full(3, np.inf), np.full(3, -np.inf), limit)
    world = apply(frame.T_world_camera, camera_points(frame, 1, limit))
    if not len(world):
        assert not np.isfinite(low).any()
        return
    np.testing.assert_allclose(low, world.min(axis=0), atol=2e-3)
    np.testing.assert_allclose(high, world.max(axis=0), atol=2e-3)
    again = extend_bounds(frame, low, high, limit)
    np.testing.assert_allclose(again, (low, high), atol=1e-6)
    wider = extend_bounds(frame, low - 1, high + 1, limit)
    np.testing.assert_array_equal(wider, (low - 1, high + 1))


def test_depth_in_millimetres_and_in_metres_give_the_same_points() -> None:
    depth = np.random.default_rng(0).integers(0, 5000, (38, 50)).astype(np.uint16)
    frame = Frame(0, "camera", CAMERA, None, depth)
    other = replace(frame, depth=depth.astype(np.float32) / 1000)
    np.testing.assert_allclose(camera_points(frame, 3), camera_points(other, 3), rtol=1e-6)
    assert len(camera_points(frame, 1, 2.0)) == np.count_nonzero((depth > 0) & (depth <= 2000))
