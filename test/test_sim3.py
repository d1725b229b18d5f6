"""Similarities: exact without noise, within what they state with it, and nothing where nothing can be told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.scene.pose import make_transform
from spatial_mllm_ros.scene.sim3 import NotAligned, Sim3, align, umeyama

SEEDS = st.integers(0, 2**32 - 1)


def random_sim3(random: np.random.Generator) -> Sim3:
    return Sim3(
        float(np.exp(random.uniform(-3, 3))), Rotation.random(random_state=random).as_matrix(), random.normal(0, 5, 3)
    )


def rotations(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.asarray(Rotation.random(n, random_state=random).as_matrix())


def angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(Rotation.from_matrix(a.T @ b).magnitude())


def assert_same(found: Sim3, true: Sim3, tolerance: float = 1e-7) -> None:
    assert found.scale == pytest.approx(true.scale, rel=tolerance)
    assert angle(found.rotation, true.rotation) < tolerance
    assert np.abs(found.translation - true.translation).max() < tolerance * (1 + 10 * true.scale)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(4, 40), st.sampled_from(["target", "source", "both"]))
def test_it_finds_the_similarity_exactly(seed: int, n: int, errors_in: str) -> None:
    random = np.random.default_rng(seed)
    true = random_sim3(random)
    p = random.normal(0, 2, (n, 3))
    assert_same(align(p, true.apply(p), errors_in=errors_in).sim3, true)  # type: ignore[arg-type]
    assert_same(umeyama(p, true.apply(p), random.uniform(0.1, 9, n)), true)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 12))
def test_orientations_settle_what_centres_on_a_line_leave_open(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    true = random_sim3(random)
    p = np.outer(np.linspace(-1, 1, n) * random.uniform(0.5, 3), random.normal(size=3)) + random.normal(size=3)
    R = rotations(random, n)
    with pytest.raises(NotAligned) as told:
        align(p, true.apply(p))
    assert told.value.reason == ("too_few" if n < 3 else "collinear")
    assert_same(align(p, true.apply(p), None, R, true.rotation @ R).sim3, true, 1e-6)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0.0, 0.4))
def test_outliers_do_not_matter(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    true = random_sim3(random)
    p = random.normal(0, 2, (80, 3))
    q = true.apply(p)
    wrong = random.permutation(80)[: int(share * 80)]
    q[wrong] += random.normal(0, 20 * true.scale, (len(wrong), 3))
    found = align(p, q)
    assert_same(found.sim3, true, 1e-6)
    assert not found.inliers[wrong].any()


def test_stated_deviations_mean_what_they_say() -> None:
    """Scale, rotation and translation are off by one deviation on the average, whether or not outliers are about."""
    random = np.random.default_rng(3)
    off = []
    for trial in range(150):
        true = random_sim3(random)
        n, noise = int(random.integers(12, 60)), 0.05 * true.scale
        p = random.normal(0, (2, 1, 0.4), (n, 3))
        q = true.apply(p) + random.normal(0, noise, (n, 3))
        if trial % 2:
            q[: n // 5] += random.normal(0, 3 * true.scale, (n // 5, 3))
        found = align(p, q)
        error = np.concatenate(
            [
                [np.log(found.sim3.scale / true.scale)],
                Rotation.from_matrix(found.sim3.rotation @ true.rotation.T).as_rotvec(),
                found.sim3.apply(true.inverse().apply(found.centroid)) - found.centroid,
            ]
        )
        off.append(error / np.sqrt(np.diag(found.covariance)))
    off = np.array(off)
    assert np.all(np.abs(off.mean(axis=0)) < 0.3)
    assert np.all((np.sqrt((off**2).mean(axis=0)) > 0.8) & (np.sqrt((off**2).mean(axis=0)) < 1.35))
    assert np.mean(np.abs(off) < 3) > 0.97


def test_a_noisy_source_does_not_shrink_the_scale() -> None:
    """Umeyama's scale is for a noisy target: with a tenth of noise in the source it is 1 % small."""
    random = np.random.default_rng(1)
    p = random.normal(0, 1, (4000, 3))
    noisy = p + random.normal(0, 0.2, p.shape)
    assert umeyama(noisy, 2 * p).scale < 1.95
    assert align(noisy, 2 * p, errors_in="source").sim3.scale == pytest.approx(2, rel=0.01)
    assert align(noisy, 2 * p, errors_in="target").sim3.scale < 1.95


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_invariances(seed: int) -> None:
    """Moving, turning and scaling either side moves the answer along; the order of the points does not matter."""
    random = np.random.default_rng(seed)
    p = random.normal(0, 1, (15, 3))
    q = random_sim3(random).apply(p) + random.normal(0, 0.02, (15, 3))
    plain = align(p, q)
    a, b = random_sim3(random), random_sim3(random)
    moved = align(a.apply(p), b.apply(q))
    assert_same(moved.sim3, b @ plain.sim3 @ a.inverse(), 1e-5)
    assert moved.scale_stddev == pytest.approx(plain.scale_stddev, rel=1e-4)
    assert align(q, p).sim3.scale == pytest.approx(1 / plain.sim3.scale, rel=0.01)  # errors_in is both
    order = random.permutation(15)
    assert_same(align(p[order], q[order]).sim3, plain.sim3, 0.02)


def test_errors_that_an_image_shares_are_not_averaged_away() -> None:
    """A thousand pixels of three images do not know the scale better than three images."""
    random = np.random.default_rng(5)
    errors, stated = [], []
    for _ in range(40):
        p = random.normal((0, 0, 4), 1, (600, 3))
        group = np.repeat(np.arange(3), 200)
        q = p * np.exp(random.normal(0, 0.02, 3))[group][:, None] + random.normal(0, 0.05, p.shape)
        found = align(p, q, groups=group)
        errors.append(np.log(found.sim3.scale))
        stated.append(found.scale_stddev)
    assert np.std(errors) > 3 * align(p, p + random.normal(0, 0.05, p.shape)).scale_stddev
    assert 0.4 < np.sqrt(np.mean(np.square(stated))) / np.std(errors) < 2


@pytest.mark.parametrize(
    ("p", "reason"),
    [
        (np.zeros((0, 3)), "too_few"),
        (np.eye(3)[:2], "too_few"),
        (np.full((5, 3), np.nan), "too_few"),
        (np.ones((6, 3)), "no_spread"),
        (np.outer(np.arange(6), (1, 2, 3)), "collinear"),
    ],
)
def test_nothing_is_made_up(p: NDArray[np.float64], reason: str) -> None:
    with pytest.raises(NotAligned) as told:
        align(p, 2 * p)
    assert told.value.reason == reason


def test_points_that_have_nothing_to_do_with_each_other() -> None:
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(20):
        p, q = random.normal(size=(2, 30, 3))
        R = rotations(random, 30)
        try:
            refused += align(p, q, None, R, R).residual > 0.4  # as large as the points are far apart
        except NotAligned:
            refused += 1
    assert refused == 20


def test_similarities_compose() -> None:
    random = np.random.default_rng(2)
    a, b = random_sim3(random), random_sim3(random)
    x = random.normal(size=(7, 3))
    np.testing.assert_allclose((a @ b).apply(x), a.apply(b.apply(x)))
    np.testing.assert_allclose((a.inverse() @ a).apply(x), x, atol=1e-9)
    T = make_transform(rotations(random, 1)[0], (1, 2, 3))
    moved = a.pose(T)
    np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(moved[:3, 3], a.apply((1, 2, 3)))
