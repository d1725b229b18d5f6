"""``bench answers``: what it counts, and recordings made worse on purpose."""

import numpy as np
import pytest

from spatial_mllm_ros.bench import answers
from spatial_mllm_ros.bench.perturbed import Perturbation, PerturbedSource, rigid_motion
from spatial_mllm_ros.scene.pose import from_quaternion
from spatial_mllm_ros.session.open_source import open_source

pytest.importorskip("embreex")
HOUSE = "rendered:seed=1,rooms=1,frames=40,size=160x120"


def test_questions_of_a_house_are_counted_by_family_with_coverage_and_latency():
    result = answers.run([HOUSE], questions=20, points=4)
    total = result["answers"][-1]
    assert (total["source"], total["family"]) == ("all", "all")
    assert total["right"] >= 15
    assert total["right"] + total["wrong"] + total["refused"] >= 20
    assert 0 <= total["within_1"] <= total["within_2"] <= 1
    assert 0 < total["median_ms"] <= total["p99_ms"]


def test_a_perturbed_recording_is_off_by_what_was_asked_and_the_same_twice():
    source = open_source(HOUSE)
    perturbed = PerturbedSource(source, Perturbation(position_m=0.05))
    first, again, true = (list(s.frames()) for s in (perturbed, perturbed, source))
    off = np.array([a.T_world_camera[:3, 3] - b.T_world_camera[:3, 3] for a, b in zip(first, true, strict=True)])
    assert np.std(off) == pytest.approx(0.05, rel=0.3)
    assert all(np.array_equal(a.T_world_camera, b.T_world_camera) for a, b in zip(first, again, strict=True))


def test_a_drift_is_slow():
    source = open_source(HOUSE)
    drifting = PerturbedSource(source, Perturbation(drift_position_m=0.05, drift_time_s=100.0))
    off = np.array(
        [
            a.T_world_camera[:3, 3] - b.T_world_camera[:3, 3]
            for a, b in zip(drifting.frames(), source.frames(), strict=True)
        ]
    )
    assert np.abs(np.diff(off, axis=0)).max() < 0.01
    assert np.linalg.norm(off[0]) > 0


def test_a_rigid_motion_is_found():
    T = from_quaternion((0.1, 0.2, 0.3, 0.9), (1.0, 2.0, 3.0))
    X = np.random.default_rng(0).normal(size=(5, 3))
    assert rigid_motion(X, X @ T[:3, :3].T + T[:3, 3]) == pytest.approx(T)
