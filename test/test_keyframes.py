"""Selection: the published algorithm offline, and the streaming selector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.bench.published import select_with_sets
from spatial_mllm_ros.memory.keyframes.coverage import greedy_max_coverage
from spatial_mllm_ros.memory.keyframes.offline import median, select_offline
from spatial_mllm_ros.memory.keyframes.streaming import SelectorConfig, StreamingSelector
from spatial_mllm_ros.scene.pose import make_transform
from spatial_mllm_ros.scene.region import Region
from spatial_mllm_ros.scene.voxels import voxel_keys

sets = st.lists(st.sets(st.integers(-30, 30), max_size=12), max_size=10)


@pytest.mark.parametrize("case", ["a", "b"])
def test_the_frames_that_the_published_code_picked(shared: Path, case: str) -> None:
    recorded = np.load(shared / "reference" / "space_aware_sampling.npz")
    selection = select_offline(
        recorded[f"{case}_world_points"], recorded[f"{case}_world_points_conf"], int(recorded[f"{case}_k"])
    )
    assert list(selection.picked) == recorded[f"{case}_selected_in_pick_order"].tolist()
    assert selection.voxel_size == recorded[f"{case}_voxel_size"]
    assert selection.covered == recorded[f"{case}_covered"]
    assert selection.total == recorded[f"{case}_total_voxels"]


@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 8), k=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_offline_selection_is_the_set_based_one(seed: int, frames: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(frames, 6, 9, 3)).astype(np.float32) * (3, 2, 1) + rng.normal(size=(frames, 1, 1, 3))
    confidence = rng.gamma(1.0, 1.0, (frames, 6, 9)).astype(np.float32)
    picked, edge = select_with_sets(points.astype(np.float32), confidence, k)
    selection = select_offline(points, confidence, k)
    assert list(selection.picked) == picked
    assert selection.voxel_size == edge


def test_points_that_are_not_finite_do_not_count() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3, 5, 5, 3)).astype(np.float32)
    confidence = np.ones((3, 5, 5), dtype=np.float32)
    expected = select_offline(points[:, :, :4], confidence[:, :, :4], 3)
    points[:, :, 4] = np.nan
    assert select_offline(points, confidence, 3) == expected


@pytest.mark.parametrize(
    ("points", "confidence", "k", "says"),
    [
        (np.zeros((2, 3, 4, 3)), np.ones((2, 3, 5)), 1, "must be"),
        (np.zeros((2, 3, 4)), np.ones((2, 3, 4)), 1, "must be"),
        (np.zeros((2, 3, 4, 3)), np.ones((2, 3, 4)), 0, "at least 1"),
        (np.zeros((0, 3, 4, 3)), np.ones((0, 3, 4)), 1, "no points"),
        (np.zeros((2, 3, 4, 3)), np.ones((2, 3, 4)), 1, "plane"),
        (np.full((2, 3, 4, 3), np.nan), np.ones((2, 3, 4)), 1, "no finite point"),
        (np.zeros((2, 3, 4, 3)), np.zeros((2, 3, 4)), 1, "no finite point"),
    ],
)
def test_bad_input_to_offline_selection_says_what_is_wrong(points, confidence, k: int, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=says):
        select_offline(points, confidence, k)


@pytest.mark.parametrize("kind", ["random", "few values", "constant", "sorted"])
def test_the_median_of_millions_is_that_of_numpy(kind: str) -> None:
    rng = np.random.default_rng(0)
    values = {
        "random": rng.normal(size=1 << 21),
        "few values": rng.integers(0, 3, (1 << 21) + 1),
        "constant": np.ones(1 << 21),
        "sorted": np.sort(rng.gamma(1, 1, (1 << 21) - 1)),
    }[kind].astype(np.float32)
    assert median(values) == float(np.percentile(values, 50))


@given(sets, st.integers(0, 12))
def test_lazy_greedy_is_plain_greedy(given_sets: list[set[int]], k: int) -> None:
    arrays = [np.array(sorted(s), dtype=np.int64) for s in given_sets]
    picked, gains, total = greedy_max_coverage(arrays, k)
    covered: set[int] = set()
    for step in range(k):
        left = [i for i in range(len(given_sets)) if i not in picked[:step]]
        best = max(left, key=lambda i: (len(given_sets[i] - covered), -i), default=None)
        if best is None or not given_sets[best] - covered:
            assert len(picked) == step
            break
        assert picked[step] == best
        assert gains[step] == len(given_sets[best] - covered)
        covered |= given_sets[best]
    assert total == (len(set().union(*given_sets)) if k and given_sets else 0)


def view(rng: np.random.Generator, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Points of a view somewhere in a flat of 8 x 5 x 2.5 m, in the camera frame, and its pose."""
    centre = rng.uniform((0, 0, 0), (8, 5, 2.5))
    world = np.clip(centre + rng.normal(0, 0.7, (n, 3)), (0, 0, 0), (8, 5, 2.5))
    T = make_transform(np.eye(3), centre)
    return (world - centre).astype(np.float32), T


def filled(frames: int, config: SelectorConfig, seed: int = 0) -> tuple[StreamingSelector, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    selector = StreamingSelector(config)
    worlds = []
    for i in range(frames):
        points, T = view(rng)
        gone = selector.add(i, i * 1000, points, T)
        assert not set(gone) & set(selector.candidates)
        worlds.append(points + T[:3, 3].astype(np.float32))
    return selector, worlds


@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 60), pool=st.integers(4, 20))
@settings(max_examples=25, deadline=None)
def test_the_pool_is_bounded_and_selection_is_greedy_over_it(seed: int, frames: int, pool: int) -> None:
    selector, worlds = filled(frames, SelectorConfig(pool_size=pool, core_size=2), seed)
    assert len(selector.candidates) <= pool
    selection = selector.select(5)
    ids = selector.candidates
    picked, gains, total = greedy_max_coverage([voxel_keys(worlds[i], selector.lattice) for i in ids], 5)
    assert selection.picked == tuple(ids[i] for i in picked)
    assert selection.gains == tuple(gains)
    assert (selection.covered, selection.total) == (sum(gains), total)
    assert selector.select(3).picked == selection.picked[:3]


def test_asking_in_between_changes_nothing() -> None:
    quiet, _ = filled(80, SelectorConfig(pool_size=16, core_size=4))
    rng = np.random.default_rng(0)
    asked = StreamingSelector(SelectorConfig(pool_size=16, core_size=4))
    for i in range(80):
        asked.add(i, i * 1000, *view(rng))
        asked.select(4)
    assert asked.candidates == quiet.candidates
    assert asked.select(8) == quiet.select(8)


@pytest.mark.parametrize("seed", range(4))
def test_streaming_covers_nearly_what_greedy_over_all_frames_does(seed: int) -> None:
    selector, worlds = filled(1500, SelectorConfig(), seed)
    voxels = [voxel_keys(w, selector.lattice) for w in worlds]
    _, gains, _ = greedy_max_coverage(voxels, 16)
    covered = len(np.unique(np.concatenate([voxels[i] for i in selector.select(16).picked])))
    assert covered >= 0.93 * sum(gains)  # independent random views are harder than a camera's path


def test_the_core_alone_keeps_the_streaming_guarantee() -> None:
    """A quarter of the best, however bad the order: the best frames come first here, then thousands of poor ones."""
    rng = np.random.default_rng(0)
    selector = StreamingSelector(SelectorConfig(pool_size=8, core_size=4, min_voxel_size_m=0.5, drift=10.0))
    eye = np.eye(4)
    box = np.array([(0, 0, 0), (8, 8, 8)], dtype=np.float32)
    sizes = []
    for i in range(400):
        n = 200 if i < 4 else 6
        points = np.vstack([box, rng.uniform(0, 8, (n, 3))]).astype(np.float32)
        selector.add(i, i, points, eye)
        sizes.append(len(voxel_keys(points, selector.lattice)))
    assert selector.select(4).covered >= sum(sorted(sizes)[-4:]) / 4


def test_windows_and_regions_limit_what_counts() -> None:
    selector, worlds = filled(40, SelectorConfig())
    window = selector.select(10, window_start=10_000, window_end=20_000)
    assert all(10 <= i <= 20 for i in window.picked)
    region = Region((0.0, 0.0, 0.0), (2.0, 2.0, 2.5))
    inside = selector.select(10, region=region)
    keys = [voxel_keys(w[region.contains(w)], selector.lattice) for w in worlds]
    assert inside.total == len(np.unique(np.concatenate(keys)))
    assert selector.select(10, window_start=10**9).picked == ()


def test_corrected_poses_move_the_voxels() -> None:
    selector, worlds = filled(10, SelectorConfig())
    shift = np.array([100.0, 0, 0])
    before = selector.world_points(3)
    selector.correct([(3, make_transform(np.eye(3), worlds[3].mean(axis=0) + shift)), (99, np.eye(4))])
    assert np.abs(selector.world_points(3) - before).max() > 90
    assert selector.bounds[1][0] > 90
    far = Region((90.0, -10.0, -10.0), (120.0, 10.0, 10.0))
    assert selector.select(4, region=far).picked == (3,)


def test_frames_without_points_never_become_candidates() -> None:
    selector = StreamingSelector()
    assert selector.add(7, 0, np.empty((0, 3), dtype=np.float32), np.eye(4)) == [7]
    assert selector.select(4).picked == ()
    one = np.ones((1, 3), dtype=np.float32)
    selector.add(8, 0, one, np.eye(4))
    with pytest.raises(ValueError, match="already"):
        selector.add(8, 0, one, np.eye(4))


@pytest.mark.parametrize("bad", [{"pool_size": 2}, {"core_size": 65}, {"drift": 0.0}, {"phases": 0}])
def test_impossible_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        SelectorConfig(**bad)
