"""Windows of predicted geometry: what they share links them, and what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.perception.rgb.overlap import detail, overlap, supported
from spatial_mllm_ros.perception.rgb.window_chain import NOMINAL_DEPTH, ChainConfig, Link, WindowChain, link_windows
from spatial_mllm_ros.scene.metric_scale import (
    NoScale,
    ScaleConfig,
    ScaleObservation,
    scale_from_depth,
    scale_from_poses,
    smoothed_scales,
)
from spatial_mllm_ros.scene.pose import make_transform
from spatial_mllm_ros.scene.sim3 import NotAligned, Sim3
from spatial_mllm_ros.scene.window import InvalidWindow, WindowGeometry, resized_depth, without_specks

SIZE = (24, 32)
K = np.array([[28.0, 0, 15.5], [0, 28.0, 11.5], [0, 0, 1]])
STEP = 0.15


class Corridor:
    """A camera that goes sideways along a wall with bumps, and the windows that a predictor would make of it."""

    def __init__(self, seed: int = 0, noise: float = 0.0) -> None:
        self.random = np.random.default_rng(seed)
        self.noise = noise
        self.windows: list[Sim3] = []

    def pose(self, i: int) -> NDArray[np.float64]:
        return make_transform(
            Rotation.from_euler("yx", [0.05 * i, 0.02 * i]).as_matrix(), (STEP * i, 0.3 * np.sin(0.4 * i), 0)
        )

    def depth(self, i: int) -> NDArray[np.float64]:
        v, u = np.mgrid[: SIZE[0], : SIZE[1]]
        return 2 + 0.5 * np.sin(0.3 * u + 0.7 * i) + 0.3 * np.cos(0.4 * v)

    def window(self, images: range) -> WindowGeometry:
        random = self.random
        warp = Sim3(
            float(np.exp(random.uniform(-2, 2))),
            Rotation.random(random_state=random).as_matrix(),
            random.normal(0, 4, 3),
        )
        self.windows.append(warp)
        depth = np.stack([self.depth(i) for i in images]) * warp.scale
        depth *= 1 + self.noise * random.normal(size=depth.shape)
        slips = [
            make_transform(
                Rotation.from_rotvec(random.normal(0, 0.1 * self.noise, 3)).as_matrix(),
                random.normal(0, 0.2 * self.noise, 3),
            )
            for _ in images
        ]
        T = np.stack([warp.pose(self.pose(i) @ slip) for i, slip in zip(images, slips, strict=True)])
        n = len(images)
        confidence = np.ones((n, *SIZE), np.float32)
        return WindowGeometry(T, np.tile(K, (n, 1, 1)), depth.astype(np.float32), confidence)

    def spoiled(self, images: range) -> WindowGeometry:
        good = self.window(images)
        depth = self.random.uniform(0.5, 5, good.depth.shape).astype(np.float32)
        return WindowGeometry(good.T_window_camera, good.K, depth, good.confidence)


def chained(corridor: Corridor, count: int, config: ChainConfig | None = None) -> WindowChain:
    chain = WindowChain(config or ChainConfig())
    for n in range(count):
        images = range(5 * n, 5 * n + 8)
        chain.add(corridor.window(images), images)
    return chain


def test_a_chain_without_noise_is_exact() -> None:
    corridor = Corridor()
    chain = chained(corridor, 6)
    places = chain.place()
    there = corridor.pose(0) @ np.linalg.inv(places[0].pose(chain.windows[0].pose(0)))  # where the chain's frame lies
    unit = 1 / (places[0].scale * corridor.windows[0].scale)
    for window, place, warp in zip(chain.windows, places, corridor.windows, strict=True):
        assert place.scale * warp.scale * unit == pytest.approx(1, rel=1e-5)
        for key in window.keys:
            T = place.pose(window.pose(key))
            T[:3, 3] *= unit
            moved = there.copy()
            moved[:3, 3] = (
                corridor.pose(0)[:3, 3] - there[:3, :3] @ places[0].pose(chain.windows[0].pose(0))[:3, 3] * unit
            )
            np.testing.assert_allclose(moved @ T, corridor.pose(key), atol=1e-4)  # type: ignore[arg-type]


def test_the_unit_is_about_a_metre_in_a_room() -> None:
    corridor = Corridor()
    chain = chained(corridor, 1)
    assert np.exp(chain.log_scales()[0]) * corridor.windows[0].scale * 2 == pytest.approx(NOMINAL_DEPTH, rel=0.1)


def test_a_link_states_its_deviation() -> None:
    off, stated = [], []
    for seed in range(8):
        corridor = Corridor(seed, noise=0.01)
        chain = chained(corridor, 4)
        logs, stddevs = chain.link_logs()
        true = -np.diff(np.log([w.scale for w in corridor.windows]))
        off += (logs - true).tolist()
        stated += stddevs.tolist()
    z = np.array(off) / np.array(stated)
    assert np.sqrt(np.mean(z**2)) < 1.5
    assert np.abs(z).max() < 4


@pytest.mark.parametrize("kind", ["depth", "poses", "nothing shared", "no depth"])
def test_a_window_that_does_not_fit_is_refused_and_the_chain_goes_on(kind: str) -> None:
    corridor = Corridor(noise=0.005)
    chain = chained(corridor, 2)
    images, keys = range(10, 18), range(10, 18)
    bad = corridor.spoiled(images) if kind == "depth" else corridor.window(images)
    if kind == "poses":
        T = bad.T_window_camera.copy()
        T[:, :3, :3] = Rotation.random(8, random_state=1).as_matrix()
        bad = WindowGeometry(T, bad.K, bad.depth, bad.confidence)
    elif kind == "nothing shared":
        keys = range(100, 108)
    elif kind == "no depth":
        depth = bad.depth.copy()
        depth[:3] = np.nan
        bad = WindowGeometry(bad.T_window_camera, bad.K, depth, bad.confidence)
    with pytest.raises(NotAligned) as told:
        chain.add(bad, keys)
    reasons = {"depth": {"residual", "no_agreement", "scale"}, "poses": {"residual", "turn", "no_agreement"}}
    assert told.value.reason in reasons.get(kind, {"no_shared_image", "shared_depth"})
    assert len(chain) == 2
    chain.add(corridor.window(images), images)
    assert len(chain) == 3


def test_outliers_within_a_window_do_not_matter() -> None:
    corridor = Corridor()
    chain = chained(corridor, 1)
    window = corridor.window(range(5, 13))
    depth = window.depth.copy()
    wrong = corridor.random.random(depth.shape) < 0.3
    depth[wrong] *= corridor.random.uniform(0.3, 3, np.count_nonzero(wrong)).astype(np.float32)
    link = chain.add(WindowGeometry(window.T_window_camera, window.K, depth, window.confidence), range(5, 13)).link
    assert link is not None
    true = corridor.windows[0].scale / corridor.windows[1].scale
    assert link.sim3.scale == pytest.approx(true, rel=0.002)
    assert 0.5 < link.inliers < 0.85


def test_depths_of_another_resolution_link_too() -> None:
    corridor = Corridor()
    chain = chained(corridor, 1)
    w = corridor.window(range(5, 13))
    half = K.copy()
    half[:2] /= 2
    half[:2, 2] = (K[:2, 2] + 0.5) / 2 - 0.5
    small = np.stack([resized_depth(d, SIZE[0] // 2, SIZE[1] // 2) for d in w.depth])
    chain.add(WindowGeometry(w.T_window_camera, np.tile(half, (8, 1, 1)), small, np.ones_like(small)), range(5, 13))
    logs, _ = chain.link_logs()
    assert logs[0] == pytest.approx(np.log(corridor.windows[0].scale / corridor.windows[1].scale), abs=0.02)


def test_a_long_chain_is_bounded() -> None:
    corridor = Corridor()
    chain = chained(corridor, 12, ChainConfig(max_windows=5))
    assert (len(chain), chain.first_index) == (5, 7)
    products = np.exp(chain.log_scales()) * [w.scale for w in corridor.windows[-5:]]
    np.testing.assert_allclose(products, products[0], rtol=1e-5)  # all in one unit, that of the beginning
    assert products[0] * 2 == pytest.approx(NOMINAL_DEPTH, rel=0.1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: (w.T_window_camera[:-1], w.K, w.depth, w.confidence), "window_shape"),
        (lambda w: (w.T_window_camera * np.nan, w.K, w.depth, w.confidence), "not_finite"),
        (lambda w: (w.T_window_camera * 2, w.K, w.depth, w.confidence), "not_rigid"),
        (lambda w: (w.T_window_camera, -w.K, w.depth, w.confidence), "bad_intrinsics"),
        (lambda w: (w.T_window_camera, w.K, w.depth * np.nan, w.confidence), "no_depth"),
        (lambda w: (w.T_window_camera, w.K, w.depth, w.confidence * 0), "no_depth"),
    ],
)
def test_a_prediction_that_is_no_geometry(change, reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidWindow) as told:
        WindowGeometry(*change(Corridor().window(range(3))))
    assert told.value.reason == reason


# ---- metres


def poses(centres: NDArray[np.float64], seed: int = 0, noise: float = 0.0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    out = np.tile(np.eye(4), (len(centres), 1, 1))
    out[:, :3, :3] = Rotation.from_rotvec(random.normal(0, 0.3, (len(centres), 3))).as_matrix()
    out[:, :3, 3] = centres + random.normal(0, noise, centres.shape)
    return out


def path(length: float, count: int = 12) -> NDArray[np.float64]:
    return np.stack([np.linspace(0, length, count), 0.1 * length * np.sin(np.arange(count)), np.zeros(count)], axis=1)


def test_scale_from_poses() -> None:
    true = Sim3(2.5, Rotation.from_euler("xyz", [1, 2, 3]).as_matrix(), np.array([4.0, 5, 6]))
    measured = poses(path(1.0))
    found, residual = scale_from_poses(true.inverse().pose(measured), measured, ScaleConfig())
    assert found.sim3.scale == pytest.approx(2.5, rel=1e-6)
    assert residual < 1e-9
    assert 0 < found.scale_stddev < 0.01  # measured poses are not taken to be exact


@pytest.mark.parametrize(
    ("predicted", "measured", "reason", "says"),
    [
        (poses(path(0.02)), poses(path(0.02)), "little_motion", "has moved 0.02 m only"),
        (poses(path(2.0))[:2], poses(path(2.0))[:2], "little_motion", "only 2 images"),
        (poses(path(0.06), 1, 0.02), poses(path(0.06), 1), "uncertain", "or more"),
        (poses(path(1.0), 1, 1.0), poses(path(1.0), 1), "", "."),
        (poses(path(1.0), 5), poses(path(1.0)), "poor_fit", "do not fit|differ"),
    ],
)
def test_no_scale_says_what_to_do(
    predicted: NDArray[np.float64], measured: NDArray[np.float64], reason: str, says: str
) -> None:
    with pytest.raises(NoScale, match=says) as told:
        scale_from_poses(predicted, measured, ScaleConfig())
    assert reason in ("", told.value.reason)


def test_a_path_that_has_nothing_to_do_with_the_measured_one_fixes_no_scale() -> None:
    for seed in range(60):
        random = np.random.default_rng(seed)
        count = int(random.integers(5, 20))
        centres = random.normal(0, 1, (count, 3))
        predicted = poses(np.cumsum(centres, axis=0) if seed % 2 else centres, 1)
        predicted[:, :3, :3] = np.eye(3)  # orientations agree, of a camera that does not turn
        measured = poses(path(1.0, count), 1)
        measured[:, :3, :3] = np.eye(3)
        with pytest.raises(NoScale):
            scale_from_poses(predicted, measured, ScaleConfig())


def test_turning_on_the_spot_fixes_no_scale() -> None:
    """Noise alone must not be taken for motion, however small the scale that would explain it."""
    for seed in range(30):
        random = np.random.default_rng(seed)
        measured = poses(random.normal(0, 0.004, (20, 3)), seed)
        predicted = poses(random.normal(0, 0.01, (20, 3)), seed)
        with pytest.raises(NoScale):
            scale_from_poses(predicted, measured, ScaleConfig())


def test_scale_from_depth() -> None:
    random = np.random.default_rng(0)
    z = random.uniform(1, 4, 3000)
    measured = 3 * z * (1 + random.normal(0, 0.02, z.shape))
    measured[:600] *= 1.7
    measured[600:900] = np.nan
    log_scale, stddev, spread = scale_from_depth(z, measured, np.ones_like(z), ScaleConfig())
    assert log_scale == pytest.approx(np.log(3), abs=3 * stddev)
    assert stddev < 0.015
    assert spread < 0.06
    with pytest.raises(NoScale, match="10 pixels in common"):
        scale_from_depth(z[:10], measured[-10:], np.ones(10), ScaleConfig())
    with pytest.raises(NoScale, match="shape"):
        scale_from_depth(z, random.permutation(np.exp(random.normal(0, 1, z.shape))), np.ones_like(z), ScaleConfig())


def test_smoothing_is_the_least_squares_of_the_chain() -> None:
    random = np.random.default_rng(4)
    links, stddevs = random.normal(0, 1, 9), random.uniform(0.01, 0.05, 9)
    observations = [
        ScaleObservation(k, float(random.normal(0, 0.01)) + np.r_[0, np.cumsum(links)][k], 0.02, 0) for k in (1, 5, 8)
    ]
    x, stddev = smoothed_scales(links, stddevs, observations)
    A = np.zeros((12, 10))
    b = np.zeros(12)
    for k in range(9):
        A[k, k : k + 2] = np.array([-1, 1]) / stddevs[k]
        b[k] = links[k] / stddevs[k]
    for row, o in enumerate(observations, 9):
        A[row, o.window] = 1 / o.stddev
        b[row] = o.log_scale / o.stddev
    np.testing.assert_allclose(x, np.linalg.lstsq(A, b, rcond=None)[0], atol=0.002)
    np.testing.assert_allclose(stddev, np.sqrt(np.diag(np.linalg.inv(A.T @ A))), rtol=0.2)
    assert stddev.argmax() in (0, 9)  # the farthest from an observation


def test_one_wrong_observation_does_not_pull_the_others() -> None:
    links, stddevs = np.zeros(9), np.full(9, 0.005)
    good = [ScaleObservation(k, 0.0, 0.02, 0) for k in range(0, 10, 2)]
    x, stddev = smoothed_scales(links, stddevs, [*good, ScaleObservation(5, 0.7, 0.02, 0)])
    assert np.abs(x).max() < 0.01
    assert (np.abs(x) < 2 * stddev).all()
    with pytest.raises(ValueError, match="no observation"):
        smoothed_scales(links, stddevs, [])


# ---- depth images


def test_depth_is_resized_along_planes_and_not_across_edges() -> None:
    v, u = np.mgrid[:30, :40]
    plane = (1 / (0.5 + 0.004 * u - 0.003 * v)).astype(np.float32)
    step = np.where(u < 20, plane, 3 * plane).astype(np.float32)
    step[4, 5] = np.nan
    big = resized_depth(step, 90, 120)
    V, U = np.mgrid[:90, :120]
    true = 1 / (0.5 + 0.004 * ((U + 0.5) / 3 - 0.5) - 0.003 * ((V + 0.5) / 3 - 0.5))
    true[:, 60:] *= 3
    finite = np.isfinite(big)
    assert np.isnan(big[12:15, 15:18]).all()
    assert np.mean(finite) > 0.99
    assert np.abs(big / true - 1)[finite].max() < 0.01
    assert resized_depth(step, 30, 40) is step


def test_specks_go_and_surfaces_stay() -> None:
    v, u = np.mgrid[:30, :40]
    true = np.where(u < 20, 1.5, 2.5).astype(np.float32) + 0.01 * v.astype(np.float32)
    spoiled = true.copy()
    spoiled[3::6, 3::6] *= 1.4
    spoiled[10, 19:21] = np.nan
    clean = without_specks(spoiled)
    np.testing.assert_allclose(
        clean[spoiled != true], np.where(np.isnan(spoiled), np.nan, true)[spoiled != true], rtol=0.02
    )
    same = spoiled == true
    np.testing.assert_array_equal(clean[same], true[same])


def test_scales_follow_the_links_wherever_they_lead() -> None:
    """A tree of windows, as after a submap has joined another: the least squares of all links and observations."""
    random = np.random.default_rng(3)
    before = np.array([0, 1, 0, 3, 1, 5, 5])
    links, stddevs = random.normal(0, 1, 7), random.uniform(0.01, 0.05, 7)
    true = np.zeros(8)
    for k in range(7):
        true[k + 1] = true[before[k]] + links[k]
    observations = [ScaleObservation(k, float(true[k] + random.normal(0, 0.01)), 0.02, 0) for k in (2, 4, 7)]
    x, stddev = smoothed_scales(links, stddevs, observations, before)
    A, b = np.zeros((10, 8)), np.zeros(10)
    for k in range(7):
        A[k, k + 1], A[k, before[k]] = 1 / stddevs[k], -1 / stddevs[k]
        b[k] = links[k] / stddevs[k]
    for row, o in enumerate(observations, 7):
        A[row, o.window], b[row] = 1 / o.stddev, o.log_scale / o.stddev
    np.testing.assert_allclose(x, np.linalg.lstsq(A, b, rcond=None)[0], atol=0.002)
    np.testing.assert_allclose(stddev, np.sqrt(np.diag(np.linalg.inv(A.T @ A))), rtol=0.25)


# ---- chains that join


def test_a_chain_that_joins_another_lies_where_it_belongs() -> None:
    corridor = Corridor()
    old = chained(corridor, 4, ChainConfig(max_windows=6))
    new = WindowChain(ChainConfig())
    for n in range(5, 9):
        new.add(corridor.window(range(5 * n, 5 * n + 8)), range(5 * n, 5 * n + 8))
    warps = [*corridor.windows]
    sim3 = warps[2] @ warps[4].inverse()  # window 2 is among the images that window 4 comes back to, say
    link = Link(sim3, 0.01, np.zeros(3), 0.01, 1.0, np.nan, 0.01)
    with pytest.raises(ValueError, match="window 7 is not held"):
        old.join(new, link, 7)
    old.join(new, link, 2)
    assert (len(old), old.first_index) == (6, 2)  # the oldest had to go
    assert old.before().tolist() == [0, 0, 2, 3, 4]
    assert old.last[1] == tuple(range(40, 48))
    products = np.exp(old.log_scales()) * [w.scale for w in warps[2:]]
    np.testing.assert_allclose(products, products[0], rtol=1e-5)
    places = old.place()
    for window, place in zip(old.windows, places, strict=True):
        for key in window.keys:
            T = np.linalg.inv(places[0].pose(old.windows[0].pose(10))) @ place.pose(window.pose(key))
            true = np.linalg.inv(corridor.pose(10)) @ corridor.pose(key)  # type: ignore[arg-type]
            true[:3, 3] *= products[0]
            np.testing.assert_allclose(T, true, atol=2e-4)
    old.add(corridor.window(range(45, 53)), range(45, 53))
    old.add(corridor.window(range(50, 58)), range(50, 58))
    assert old.before().tolist() == [0, 1, 2, 3, 4]  # what was linked to one that has gone is linked to its heir
    products = np.exp(old.log_scales()) * [w.scale for w in corridor.windows[-6:]]
    np.testing.assert_allclose(products, products[0], rtol=1e-5)


def test_a_loop_takes_the_drift_out() -> None:
    """A chain with noise, and one exact link from its end to its beginning: every window is nearer to where it is."""
    before, after = [], []
    for seed in range(3):
        corridor = Corridor(seed, noise=0.02)
        chain = chained(corridor, 10)
        warps = corridor.windows
        errors = []
        for closed in (False, True):
            if closed:
                link = Link(warps[0] @ warps[9].inverse(), 0.001, np.zeros(3), 0.01, 1.0, np.nan, 0.01)
                with pytest.raises(ValueError, match="in this order"):
                    chain.close_loop(link, 0, 9)
                stds = chain.link_logs()[1]
                chain.close_loop(link, 9, 0)
                np.testing.assert_array_equal(chain.link_logs()[1], stds)
            places = chain.place()
            true = [places[0] @ warps[0] @ w.inverse() for w in warps]  # the first window stays
            centres = [w.T_window_camera[3, :3, 3] for w in chain.windows]
            errors.append(
                [np.linalg.norm(a.apply(c) - b.apply(c)) for a, b, c in zip(places, true, centres, strict=True)]
            )
            scales = [np.log(a.scale / b.scale) for a, b in zip(places, true, strict=True)]
        before.append(errors[0])
        after.append(errors[1])
        assert abs(scales[-1]) < 0.002
    rms = [np.sqrt(np.mean(np.square(e), axis=0)) for e in (before, after)]
    assert rms[1][9] < 0.1 * rms[0][9]
    assert rms[1].mean() < 0.6 * rms[0].mean()


# ---- what images show


def wall(u0: int) -> NDArray[np.uint8]:
    """A wall with a pattern, seen from u0 pixels further right."""
    pattern = gaussian_filter(np.random.default_rng(0).normal(size=(60, 500)), 3)[:, u0 : u0 + 80]
    return np.repeat((128 + 400 * pattern)[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def test_images_of_one_place_overlap_and_others_do_not() -> None:
    """A wall 2 away, focal length 70 px: so much to the right are 18 px."""
    K80 = np.array([[70.0, 0, 39.5], [0, 70.0, 29.5], [0, 0, 1]])
    T = np.stack([make_transform(np.eye(3), (x, 0, 0)) for x in (0.0, 36 / 70)])
    window = WindowGeometry(
        T, np.tile(K80, (2, 1, 1)), np.full((2, 60, 80), 2, np.float32), np.ones((2, 60, 80), np.float32)
    )
    here, there = detail(wall(0)), detail(wall(18))
    same = overlap(window, 0, 1, here, there)
    assert same.share == pytest.approx(1 - 18 / 80, abs=0.03)
    assert same.agreement == 1
    assert same.correlation > 0.8
    other = overlap(window, 0, 1, here, detail(wall(300)))  # geometry that fits, and another picture
    assert (other.agreement, abs(other.correlation) < 0.4) == (1, True)
    T[1, 2, 3] = -3  # the same picture, and geometry that does not fit
    assert overlap(WindowGeometry(T, window.K, window.depth, window.confidence), 0, 1, here, there).agreement == 0
    T[1, 0, 3] = 50
    assert overlap(WindowGeometry(T, window.K, window.depth, window.confidence), 0, 1, here, there).share == 0


def test_images_that_no_other_confirms() -> None:
    corridor = Wall()
    assert supported(corridor.window()).all()
    T, depth = corridor.window().T_window_camera.copy(), corridor.window().depth.copy()
    T[2] = make_transform(Rotation.from_euler("y", 2).as_matrix(), (0, 0, 0))
    depth[4] *= 2.5
    spoiled = WindowGeometry(T, corridor.window().K, depth, np.ones_like(depth))
    assert supported(spoiled).tolist() == [True, True, False, True, False, True]
    assert supported(corridor.window().subset([3])).tolist() == [True]


class Wall:
    """Six images of a slanted wall."""

    def window(self) -> WindowGeometry:
        v, u = np.mgrid[: SIZE[0], : SIZE[1]]
        rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(SIZE)], axis=-1)
        normal = np.array([0.2, 0.1, -1.0])
        x = 0.1 * np.arange(6)
        depth = np.stack([(-2 - normal[0] * c) / (rays @ normal) for c in x]).astype(np.float32)
        T = np.stack([make_transform(np.eye(3), (c, 0, 0)) for c in x])
        return WindowGeometry(T, np.tile(K, (6, 1, 1)), depth, np.ones_like(depth))


def test_a_small_copy_of_an_image_links_as_well() -> None:
    corridor = Corridor(noise=0.01)
    chain = chained(corridor, 1)
    geometry, _ = chain.last
    small = [geometry.reduced(i, 108) for i in (5, 6, 7)]
    assert small[0].depth.shape[1:] == (9, 12)
    again = WindowGeometry(*(np.concatenate([getattr(s, name) for s in small]) for name in
                             ("T_window_camera", "K", "depth", "confidence")))  # fmt: skip
    window = corridor.window(range(5, 13))
    link = link_windows(again, (5, 6, 7), window, range(5, 13), ChainConfig())
    assert link.sim3.scale == pytest.approx(corridor.windows[0].scale / corridor.windows[1].scale, rel=0.02)
