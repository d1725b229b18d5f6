"""Rigid transforms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spatial_mllm_ros.scene import pose

coordinates = st.floats(-100, 100)
translations = arrays(np.float64, 3, elements=coordinates)
quaternions = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1)
transforms = st.builds(pose.from_quaternion, quaternions, translations)


@given(transforms, transforms, translations)
def test_transforms_compose_and_invert(A: np.ndarray, B: np.ndarray, p: np.ndarray) -> None:
    np.testing.assert_allclose(pose.apply(A @ B, p), pose.apply(A, pose.apply(B, p)), atol=1e-9)
    np.testing.assert_allclose(pose.invert(A) @ A, np.eye(4), atol=1e-10)


@given(transforms)
def test_quaternions_come_back(T: np.ndarray) -> None:
    q = pose.to_quaternion(T)
    assert q[3] >= 0
    np.testing.assert_allclose(pose.from_quaternion(q, T[:3, 3]), T, atol=1e-9)


@given(transforms, transforms, st.floats(0, 1))
def test_interpolation_stays_between(A: np.ndarray, B: np.ndarray, fraction: float) -> None:
    M = pose.interpolate(A, B, fraction)
    np.testing.assert_allclose(M[:3, 3], (1 - fraction) * A[:3, 3] + fraction * B[:3, 3], atol=1e-9)
    whole = pose.rotation_angle(pose.invert(A) @ B)
    assert pose.rotation_angle(pose.invert(A) @ M) == pytest.approx(fraction * whole, abs=1e-6)


@pytest.mark.parametrize(
    "matrix",
    [np.eye(3), np.full((4, 4), np.nan), np.diag([1.0, 1, -1, 1]), np.diag([2.0, 1, 1, 1]), np.ones((4, 4))],
    ids=["3x3", "NaN", "mirror", "scaled", "ones"],
)
def test_what_is_no_rigid_transform_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(pose.InvalidTransform):
        pose.checked_transform(matrix)


@pytest.mark.parametrize("q", [(0, 0, 0, 0), (np.nan, 0, 0, 1), (np.inf, 0, 0, 1)])
def test_bad_quaternions_are_refused(q: tuple) -> None:
    with pytest.raises(pose.InvalidTransform):
        pose.from_quaternion(q)


def test_a_number_that_is_no_distance_is_no_transform():
    """As damaged files tell them: finite, and beyond what can be computed with."""
    T = np.eye(4)
    T[0, 3] = 1e200
    with pytest.raises(pose.InvalidTransform, match="away"):
        pose.checked_transform(T)
