"""Moving depth into the color image."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.pose import from_quaternion, make_transform
from spatial_mllm_ros.scene.registration import depth_from_the_same_place, register_depth

SMALL = CameraModel(160, 120, 130.0, 130.0, 79.5, 59.5)
LARGE = CameraModel(640, 480, 520.0, 525.0, 319.5, 239.5)
BASELINE = from_quaternion((0.0, 0.01, 0.004, 1.0), (-0.025, 0.003, 0.001))


def plane_depth(camera: CameraModel, T_camera_plane: np.ndarray) -> np.ndarray:
    """Depth (m) of the plane z = 0 of a frame, seen by a camera."""
    normal, origin = T_camera_plane[:3, 2], T_camera_plane[:3, 3]
    return (normal @ origin) / (camera.rays().astype(np.float64) @ normal)


def test_same_camera_is_the_identity():
    depth = np.random.default_rng(0).integers(0, 5000, (120, 160)).astype(np.uint16)
    assert_array_equal(register_depth(depth, SMALL, SMALL, np.eye(4)), depth)


@pytest.mark.parametrize("color", [LARGE, SMALL, CameraModel(60, 45, 48.0, 48.0, 29.5, 22.0)])
@pytest.mark.parametrize("distortion", [(), (0.1, -0.2, 0.001, 0.001, 0.0)])
def test_a_slanted_plane_stays_that_plane_without_holes(color, distortion):
    """Upsampled, equal and downsampled; a sieve of holes would be read as 'never seen'."""
    color = CameraModel(color.width, color.height, color.fx, color.fy, color.cx, color.cy, "plumb_bob", distortion)
    T_depth_plane = make_transform(from_quaternion((0.2, 0.3, 0.0, 1.0))[:3, :3], (0.1, 0.0, 2.0))
    depth = plane_depth(SMALL, T_depth_plane).astype(np.float32)
    out = register_depth(depth, SMALL, color, BASELINE)
    truth = plane_depth(color, BASELINE @ T_depth_plane)
    h, w = out.shape
    inner = (slice(h // 8, -h // 8), slice(w // 8, -w // 8))
    assert np.isfinite(out[inner]).mean() > 0.999
    error = np.abs(out - truth)[inner]
    assert np.nanmedian(error) < 0.004  # a patch faces the camera: half a depth pixel on a slant
    assert np.nanmax(error) < 0.05


def test_the_nearer_surface_wins():
    """A box in front of a wall hides the wall behind it, wherever the depth camera saw that."""
    depth = np.full((120, 160), 3000, np.uint16)
    depth[40:80, 60:100] = 1000
    out = register_depth(depth, SMALL, SMALL, make_transform(np.eye(3), (-0.1, 0.0, 0.0)))
    assert set(np.unique(out)) <= {0, 1000, 3000}
    assert (out[45:75, 50:85] == 1000).all()  # moved 13 px left by parallax
    # The far pixels moved 4.3 px left: the strip right of the box was seen by nobody.
    assert (out[60, 88:94] == 0).all()


def test_what_is_not_seen_stays_empty():
    depth = np.zeros((120, 160), np.uint16)
    depth[:, :80] = 2000
    out = register_depth(depth, SMALL, LARGE, np.eye(4))
    assert (out[:, 330:] == 0).all()
    assert (out[:, :310] == 2000).all()
    assert not register_depth(np.zeros((120, 160), np.uint16), SMALL, LARGE, np.eye(4)).any()
    assert np.isnan(register_depth(np.full((120, 160), np.nan, np.float32), SMALL, LARGE, np.eye(4))).all()


def test_points_behind_the_color_camera_and_beyond_16_bit_are_dropped():
    depth = np.full((120, 160), 500, np.uint16)
    assert not register_depth(depth, SMALL, SMALL, make_transform(np.eye(3), (0, 0, -1.0))).any()
    assert not register_depth(depth, SMALL, SMALL, make_transform(np.eye(3), (0, 0, 70.0))).any()


def test_rolled_camera():
    """A depth camera mounted on its side."""
    quarter = from_quaternion((0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4)))
    square = CameraModel(100, 100, 90.0, 90.0, 49.5, 49.5)
    depth = np.random.default_rng(0).integers(1000, 5000, (100, 100)).astype(np.uint16)
    assert_allclose(register_depth(depth, square, square, quarter), np.rot90(depth, -1), atol=1)


def test_wrong_size_is_an_error():
    with pytest.raises(ValueError, match="160x120"):
        register_depth(np.zeros((10, 10), np.uint16), SMALL, LARGE, np.eye(4))


def test_depth_from_the_same_place_agrees_with_registering_it():
    """Another focal length, size and centre: moving patches and looking up directions give the same surface."""
    depth_camera = CameraModel(64, 48, 60.0, 61.0, 31.0, 24.5)
    color_camera = CameraModel(120, 90, 100.0, 101.0, 61.0, 43.0)
    v, u = np.mgrid[0:48, 0:64]
    for depth in ((1500 + 3 * u + 2 * v).astype(np.uint16), (1.5 + 0.003 * u + 0.002 * v).astype(np.float32)):
        looked_up = depth_from_the_same_place(depth, depth_camera, color_camera)
        moved = register_depth(depth, depth_camera, color_camera, np.eye(4))
        assert looked_up.shape == (90, 120)
        assert looked_up.dtype == depth.dtype
        seen, also = looked_up > 0, np.nan_to_num(moved) > 0
        assert seen.mean() > 0.7
        assert (seen == also).mean() > 0.97
        both = seen & also
        step = 6 if depth.dtype == np.uint16 else 0.006
        assert np.abs(looked_up[both].astype(float) - moved[both]).max() <= step
    assert not depth_from_the_same_place(depth, depth_camera, CameraModel(120, 90, 20.0, 20.0, 60.0, 45.0))[0, 0]
