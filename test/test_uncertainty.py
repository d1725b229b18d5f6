"""Propagation of errors, also of such as drift together."""

import numpy as np
import pytest

from spatial_mllm_ros.scene.measure import CameraErrors
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.uncertainty import Drifting, propagate, propagate_scalar

SENSOR = SensorModel(pose_position_m=0.01, drift_position_m=0.1, drift_time_s=10.0)


def distance_between(apart_s, sensor=SENSOR):
    a = CameraErrors("a", np.eye(4), sensor, 0)
    b = CameraErrors("b", np.eye(4), sensor, int(apart_s * 1e9))
    stddevs = {**a.stddevs(depth=False), **b.stddevs(depth=False)}
    return propagate_scalar(lambda e: b.pose(e)[0, 3] - a.pose(e)[0, 3], stddevs)[1]


@pytest.mark.parametrize("apart_s", [0.1, 3.0, 100.0])
def test_two_images_differ_by_jitter_and_by_the_drift_between_them(apart_s):
    expected = np.sqrt(2 * 0.01**2 + 2 * 0.1**2 * (1 - np.exp(-apart_s / 10)))
    assert distance_between(apart_s) == pytest.approx(expected, rel=1e-6)


def test_images_further_apart_in_time_are_less_certain():
    assert distance_between(0.1) < distance_between(1.0) < distance_between(20.0)


def test_without_drift_the_time_between_does_not_matter():
    sensor = SensorModel()
    assert distance_between(0.1, sensor) == pytest.approx(distance_between(100.0, sensor))


def test_one_drifting_source_alone_has_its_whole_deviation():
    source = Drifting(white=0.03, drift=0.04, stamp_ns=0, time_s=1.0, group="x")
    assert propagate_scalar(lambda e: e.get("x", 0.0), {"x": source})[1] == pytest.approx(0.05)


def test_what_is_told_of_a_pose_counts_where_it_is_more():
    camera = CameraErrors("a", np.eye(4), SensorModel(), 0, (0.2, 0.0))
    _, covariance = propagate(lambda e: camera.pose(e)[:3, 3], camera.stddevs(depth=False))
    assert np.sqrt(np.diag(covariance)) == pytest.approx(0.2)
    assert camera.stddevs()["rotation", "a", 0] == SensorModel().pose_rotation_rad
