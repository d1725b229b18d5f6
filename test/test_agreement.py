"""What images that overlap say about errors of poses, in a box of a room that is seen exactly."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.memory.agreement import PoseAgreement
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import make_transform
from spatial_mllm_ros.scene.sensor import SensorModel

CAMERA = CameraModel(160, 120, 130.0, 130.0, 79.5, 59.5)
ROOM = np.array([4.0, 3.0, 2.5])
BOX_LOW, BOX_HIGH = np.array([1.5, 1.2, 0.0]), np.array([2.2, 1.8, 0.8])
LEVEL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # z of the camera along y of the world, its y down


def depth_at(T, rng=None, noise=0.002):
    """Exact depth of a box in a room, metres, with white noise where a generator is given."""
    rays = CAMERA.rays().reshape(-1, 3).astype(np.float64) @ T[:3, :3].T
    eye = T[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.max([(0 - eye) / rays, (ROOM - eye) / rays], axis=0).min(axis=1)
        ends = np.stack([(BOX_LOW - eye) / rays, (BOX_HIGH - eye) / rays])
        near, out = ends.min(axis=0).max(axis=1), ends.max(axis=0).min(axis=1)
    z = np.where((near < out) & (near > 0.1), near, far)
    if rng is not None:
        z = z + noise * rng.standard_normal(len(z))
    return z.reshape(CAMERA.height, CAMERA.width).astype(np.float32)


def walk(count, rate=2.0):
    """Poses that look about in the room, and come back to where they were."""
    for i in range(count):
        yaw, pitch = 2 * np.pi * i / 25, 0.25 * np.sin(i / 3)
        R = Rotation.from_euler("z", yaw).as_matrix() @ LEVEL @ Rotation.from_euler("x", -0.2 + pitch).as_matrix()
        yield int(1e9 + i / rate * 1e9), make_transform(R, (1.0 + 0.3 * np.cos(yaw), 0.7 + 0.2 * np.sin(yaw), 1.3))


def frames(count=60, position=0.0, rotation=0.0, drift=0.0, drift_s=10.0, seed=0, exact=False, moving=False):
    rng = np.random.default_rng(seed)
    slow = rng.standard_normal(3)
    for i, (stamp, T) in enumerate(walk(count)):
        depth = depth_at(T, None if exact else rng)
        if moving:  # something large in front of the camera, at another place in every image
            u = int(rng.integers(0, 110))
            depth[20:90, u : u + 40] = rng.uniform(0.4, 0.9)
        if i:
            kept = np.exp(-0.5 / drift_s)
            slow = kept * slow + np.sqrt(1 - kept**2) * rng.standard_normal(3)
        turn = Rotation.from_rotvec(rotation * rng.standard_normal(3)).as_matrix()
        told = make_transform(T[:3, :3] @ turn, T[:3, 3] + position * rng.standard_normal(3) + drift * slow)
        yield Frame(stamp, "camera", CAMERA, None, depth, told)


def measured(prior=None, **how):
    agreement = PoseAgreement()
    for i, frame in enumerate(frames(**how)):
        agreement.add(i, frame)
    return agreement.measured(prior or SensorModel())


@pytest.mark.parametrize(("position", "rotation"), [(0.01, 0.0), (0.03, 0.0), (0.0, 0.0175), (0.03, 0.01)])
def test_errors_that_were_put_on_poses_are_found(position, rotation):
    sensor = measured(position=position, rotation=rotation).sensor
    along = np.hypot(sensor.pose_position_m, sensor.drift_position_m)
    about = np.hypot(sensor.pose_rotation_rad, sensor.drift_rotation_rad)
    if position:
        assert position / 1.5 < along < position * 1.5
    if rotation:
        assert rotation / 1.5 < about < rotation * 1.5


def test_exact_poses_and_depth_are_not_doubted():
    found = measured(SensorModel.exact(), exact=True)
    assert found.sensor.pose_position_m < 0.0005
    assert found.sensor.pose_rotation_rad < 0.0005


def test_good_poses_get_deviations_no_wider_than_assumed():
    prior = SensorModel(pose_position_m=0.02, pose_rotation_rad=0.01)
    sensor = measured(prior, position=0.003, rotation=0.001).sensor
    assert sensor.pose_position_m < 0.012
    assert sensor.pose_rotation_rad < 0.006


def test_a_drift_is_told_from_jitter():
    drifting, jittering = measured(drift=0.04).sensor, measured(position=0.03).sensor
    assert drifting.drift_position_m > 2 * drifting.pose_position_m
    assert jittering.pose_position_m > 2 * jittering.drift_position_m


def test_something_that_moves_is_no_error_of_the_poses():
    quiet, busy = measured(position=0.005).sensor, measured(position=0.005, moving=True).sensor
    assert busy.pose_position_m < 2 * max(quiet.pose_position_m, 0.005)


def test_nothing_is_said_of_images_that_share_nothing():
    agreement = PoseAgreement()
    agreement.add(0, next(frames()))
    assert agreement.measured(SensorModel()) is None
    assert agreement.doubts() == ()


def test_poses_that_contradict_each_other_are_doubted_with_figures_and_a_remedy():
    agreement = PoseAgreement()
    for i, frame in enumerate(frames(position=0.05)):
        agreement.add(i, frame)
    (doubt,) = agreement.doubts()
    assert doubt.kind == "poses_disagree"
    assert "cm apart" in doubt.text
    assert "loop closure" in doubt.remedy
    assert doubt.confidence < 1


def test_a_memory_tells_once_that_poses_contradict_each_other():
    memory = SpatialMemory(clock=lambda: 10**18)
    for frame in frames(position=0.08):
        memory.add(frame)
    assert len(memory.doubts) == 1


def test_a_snapshot_answers_with_what_was_measured():
    memory = SpatialMemory(clock=lambda: 10**18)
    for frame in frames(position=0.03):
        memory.add(frame)
    assert memory.snapshot().sensor_from(SensorModel()).pose_position_m > 0.015


def test_corrected_poses_are_compared_anew():
    memory = SpatialMemory(clock=lambda: 10**18)
    for frame in frames(position=0.08):
        memory.add(frame)
    memory.correct_poses(dict(walk(60)))
    assert memory.doubts == ()
    assert memory.sensor_from(SensorModel()).pose_position_m < 0.01


def test_the_comparison_is_bounded():
    agreement = PoseAgreement()
    most = 0
    for i, frame in enumerate(frames(count=220, exact=True)):
        agreement.add(i, frame)
        most = max(most, len(agreement._pairs), len(agreement._views))
    assert most <= 161
