"""Transforms as seven floats do what 4x4 matrices do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from spatial_mllm_ros.scene.pose import InvalidTransform, from_quaternion, interpolate, invert, rotation_angle
from spatial_mllm_ros.scene.rigid import IDENTITY, angle, between, compose, distance, inverse, matrix, of_matrix, rigid

numbers = st.floats(-10, 10).map(lambda x: round(x, 3))
quaternions = st.tuples(numbers, numbers, numbers, numbers).filter(lambda q: np.linalg.norm(q) > 0.1)
rigids = st.builds(lambda p, q: rigid(*p, *q), st.tuples(numbers, numbers, numbers), quaternions)
quick = settings(max_examples=60, deadline=None)


@quick
@given(rigids, rigids)
def test_they_compose_and_invert_as_matrices_do(a, b):
    assert_allclose(matrix(compose(a, b)), matrix(a) @ matrix(b), atol=1e-9)
    assert_allclose(matrix(inverse(a)), invert(matrix(a)), atol=1e-9)
    assert_allclose(matrix(compose(a, inverse(a))), np.eye(4), atol=1e-9)
    assert_allclose(matrix(of_matrix(matrix(a))), matrix(a), atol=1e-9)
    assert_allclose(matrix(a), from_quaternion(a[3:], a[:3]), atol=1e-12)
    assert compose(IDENTITY, a) == pytest.approx(a)


@quick
@given(rigids, rigids, st.floats(0, 1))
def test_between_two_they_go_the_way_of_slerp(a, b, share):
    off = invert(matrix(a)) @ matrix(b)
    assert angle(a, b) == pytest.approx(rotation_angle(off), abs=1e-6)
    assert distance(a, b) == pytest.approx(np.linalg.norm(off[:3, 3]), abs=1e-9)
    if angle(a, b) < 3.1:  # half a turn has two shortest ways
        assert_allclose(matrix(between(a, b, share)), interpolate(matrix(a), matrix(b), share), atol=1e-7)


@quick
@given(rigids, st.floats(0, 1), st.floats(1e-12, 1e-3))
def test_a_tiny_turn_is_interpolated_too(a, share, turn):
    """The arc's formula divides by its sine: nothing may blow up where that is next to nothing."""
    b = compose(a, rigid(0, 0, 0, np.sin(turn / 2).item(), 0, 0, np.cos(turn / 2).item()))
    assert angle(a, between(a, b, share)) == pytest.approx(share * turn, abs=1e-9)


@pytest.mark.parametrize(
    "numbers", [(0,) * 7, (float("nan"), 0, 0, 0, 0, 0, 1), (0, 0, float("inf"), 0, 0, 0, 1), (0, 0, 0, 0, 0, 0, float("nan"))]
)
def test_numbers_that_are_no_transform_are_refused(numbers):
    with pytest.raises(InvalidTransform, match="not a rigid transform"):
        rigid(*numbers)
