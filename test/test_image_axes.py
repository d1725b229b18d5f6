"""Whether a wrong reading of a camera frame's axes is found, and only that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.image_axes import ImageAxesCheck
from spatial_mllm_ros.scene.inputs import BODY, OPTICAL
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, invert
from spatial_mllm_ros.simulation.rendered import RenderedSource


@pytest.fixture(scope="module")
def tour() -> list[Frame]:
    """A walk through a furnished room, with a depth camera's noise."""
    return list(RenderedSource(seed=4, rooms=1, frames=60, width=96, height=72).frames())


def checked(frames: list[Frame], image_frame: str) -> ImageAxesCheck:
    check = ImageAxesCheck(image_frame)
    for frame in frames:
        check.add(frame)
    return check


def test_poses_that_are_right_are_not_doubted(tour):
    assert checked(tour, OPTICAL).doubt() is None
    assert checked(tour, BODY).doubt() is None


def test_a_body_frame_taken_for_an_optical_one_is_doubted_with_the_remedy(tour):
    """As a simulator stamps its images: the frame's x is forward."""
    body = [
        replace(f, T_world_camera=f.T_world_camera @ invert(T_BODY_OPTICAL), camera_frame="camera_link") for f in tour
    ]
    doubt = checked(body, OPTICAL).doubt()
    assert doubt is not None
    assert doubt.remedy == "set image_frame to body"
    assert "'camera_link' of the images is taken to be optical (z forward)" in doubt.text
    assert doubt.confidence <= 0.1


def test_an_optical_frame_taken_for_a_body_frame_is_doubted_with_the_remedy(tour):
    turned = [replace(f, T_world_camera=f.T_world_camera @ T_BODY_OPTICAL) for f in tour]
    doubt = checked(turned, BODY).doubt()
    assert doubt is not None
    assert doubt.remedy == "set image_frame to optical"


def test_a_camera_that_stands_still_or_has_no_depth_says_nothing(tour):
    assert checked([tour[0]] * 20, OPTICAL).doubt() is None
    assert checked([replace(f, depth=None) for f in tour], OPTICAL).doubt() is None
