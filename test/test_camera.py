"""Cameras: projection and back-projection agree for every distortion model of CameraInfo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.scene.camera import CameraModel, InvalidCamera

PINHOLE = CameraModel(640, 480, 525.0, 520.0, 319.5, 239.5)
PLUMB_BOB = CameraModel(640, 480, 525.0, 520.0, 310.0, 245.0, "plumb_bob", (0.12, -0.25, 0.001, -0.002, 0.08))
RATIONAL = CameraModel(
    640, 480, 525.0, 520.0, 310.0, 245.0, "rational_polynomial", (0.5, 0.1, 0.001, -0.001, 0.02, 0.8, 0.2, 0.03)
)
FISHEYE = CameraModel(640, 480, 300.0, 300.0, 320.0, 240.0, "equidistant", (0.02, -0.01, 0.003, -0.001))
THIN_PRISM = CameraModel(
    640, 480, 525.0, 520.0, 310.0, 245.0, "rational_polynomial", (*RATIONAL.distortion, 0.01, -0.02, 0.015, 0.005)
)
TILTED = CameraModel(
    640, 480, 525.0, 520.0, 310.0, 245.0, "rational_polynomial", (*THIN_PRISM.distortion, 0.02, -0.03)
)
CAMERAS = {"pinhole": PINHOLE, "plumb_bob": PLUMB_BOB, "rational": RATIONAL, "equidistant": FISHEYE}
CAMERAS |= {"thin_prism": THIN_PRISM, "tilted": TILTED}
pixels = st.tuples(st.floats(20, 619), st.floats(20, 459))


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
@given(pixel=pixels, depth=st.floats(0.1, 20))
@settings(max_examples=60, deadline=None)
def test_a_pixel_comes_back_to_itself(camera: CameraModel, pixel: tuple[float, float], depth: float) -> None:
    ray = camera.unproject(pixel)
    assert ray[2] == 1
    np.testing.assert_allclose(camera.project(ray * depth), pixel, atol=1e-3)


@pytest.mark.parametrize("name", ["plumb_bob", "rational", "thin_prism", "tilted", "equidistant"])
def test_projection_is_that_of_opencv(name: str) -> None:
    """OpenCV is what calibrated the cameras that people have."""
    camera = CAMERAS[name]
    points = np.random.default_rng(0).uniform((-0.5, -0.4, 1.5), (0.5, 0.4, 4), (50, 3))
    project = cv2.fisheye.projectPoints if name == "equidistant" else cv2.projectPoints
    expected = project(points[:, None], np.zeros(3), np.zeros(3), camera.K, np.array(camera.distortion))[0]
    np.testing.assert_allclose(camera.project(points), expected[:, 0], atol=1e-6)


def test_points_behind_the_camera_have_no_pixel() -> None:
    assert np.isnan(PINHOLE.project([0.1, 0.1, -1.0])).all()
    assert np.isnan(PINHOLE.project([0.1, 0.1, 0.0])).all()


def test_points_far_off_axis_do_not_fold_back_into_the_image() -> None:
    """A negative k1 maps a point at 80 degrees into the image, where it is not."""
    camera = CameraModel(640, 480, 525.0, 525.0, 320.0, 240.0, "plumb_bob", (-0.3, 0.0, 0.0, 0.0, 0.0))
    assert np.isnan(camera.project([5.67, 0.0, 1.0])).all()


def test_rays_are_those_of_single_pixels() -> None:
    rays = PLUMB_BOB.rays(stride=7)
    np.testing.assert_allclose(rays[5, 8], PLUMB_BOB.unproject((3 + 8 * 7, 3 + 5 * 7)), atol=1e-6)
    assert not rays.flags.writeable


def test_the_image_reaches_half_a_pixel_beyond_its_outermost_centres() -> None:
    assert PINHOLE.contains([(-0.5, -0.5), (639.49, 479.49)]).all()
    assert not PINHOLE.contains([(-0.51, 0), (639.5, 0), (0, 479.5), (np.nan, 0)]).any()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, 480, np.eye(3)), "empty image size"),
        ((640, 480, np.zeros(9)), "not calibrated"),
        ((640, 480, np.eye(2)), "9 elements"),
        ((640, 480, np.eye(3), (0.1,)), "does not take 1 coefficients"),
        ((640, 480, np.eye(3), (0.1, 0, 0, 0), "spline"), "'spline' is not supported.*publish rectified"),
        ((640, 480, np.eye(3), (0.1, 0.6), "double_sphere"), "'double_sphere' is not supported.*publish rectified"),
        ((640, 480, np.eye(3), (0.1, 0, 0, 0, 0.2), "equidistant"), "equidistant does not take 5 coefficients"),
        ((640, 480, np.eye(3), (0.1, 0, 0, 0, 0, 0.2), "plumb_bob"), "does not take 6 coefficients"),
        ((640, 480, np.eye(3), (np.nan, 0, 0, 0, 0)), "not numbers"),
        ((640, 480, np.eye(3), (0.1, 0, 0, 0, 0), "none"), "'none' means that there is none"),
        ((640, 480, np.full(9, np.nan)), "not calibrated"),
        ((640, 480, PINHOLE.K.T), "transposed"),
        ((640, 480, PINHOLE.K + np.diag([12.0, 0], 1)), "skew of 12 px"),
    ],
)
def test_bad_camera_info_says_what_is_wrong(arguments: tuple, says: str) -> None:
    with pytest.raises(InvalidCamera, match=says):
        CameraModel.from_camera_info(*arguments)


def test_zero_coefficients_are_no_distortion() -> None:
    """Drivers of rectified images send five zeros."""
    K = np.diag([500.0, 500.0, 1.0])
    assert CameraModel.from_camera_info(640, 480, K, [0.0] * 5) == CameraModel.from_camera_info(640, 480, K)


COEFFICIENTS = (0.1, -0.2, 0.001, 0.002)


@pytest.mark.parametrize(
    ("name", "d", "model", "kept"),
    [
        ("", (*COEFFICIENTS, 0.3), "plumb_bob", 5),
        ("radtan", COEFFICIENTS, "plumb_bob", 4),
        ("brown_conrady", (*COEFFICIENTS, 0.3), "plumb_bob", 5),
        ("Brown Conrady", (*COEFFICIENTS, 0.3), "plumb_bob", 5),
        ("plumb_bob", (*COEFFICIENTS, 0.3, 0, 0, 0), "plumb_bob", 5),
        ("plumb_bob", (*COEFFICIENTS, 0.3, 0.1, 0.2, 0.3), "rational_polynomial", 8),
        ("", (*COEFFICIENTS, 0.3, 0.1, 0.2, 0.3, 0.01, 0.01, 0.01, 0.01), "rational_polynomial", 12),
        ("rational_polynomial", (*COEFFICIENTS, 0.3, *[0.0] * 9), "rational_polynomial", 14),
        ("rational_polynomial", (*COEFFICIENTS, 0.3, 0.1, *[0.0] * 7), "rational_polynomial", 8),
        ("thin_prism", (*COEFFICIENTS, 0.3, 0.1, 0.2, 0.3, 0.01, 0.01, 0.01, 0.01), "rational_polynomial", 12),
        ("tilted", (*COEFFICIENTS, *[0.01] * 10), "rational_polynomial", 14),
        ("fisheye", COEFFICIENTS, "equidistant", 4),
        ("kannala_brandt4", COEFFICIENTS, "equidistant", 4),
        ("equidistant", (*COEFFICIENTS, 0), "equidistant", 4),
        ("equidistant", (*COEFFICIENTS, 0, 0, 0, 0), "equidistant", 4),
        ("none", (), "plumb_bob", 0),
        ("double_sphere", (0.0,) * 5, "plumb_bob", 0),
        ("something", (0.0,) * 12, "plumb_bob", 0),
        ("something", (), "plumb_bob", 0),
    ],
)
def test_models_by_the_names_that_drivers_and_calibration_tools_give_them(name, d, model, kept) -> None:
    camera = CameraModel.from_camera_info(640, 480, PINHOLE.K, d, name)
    assert camera.distortion_model == model
    assert camera.distortion == d[:kept]
