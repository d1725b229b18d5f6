"""Poses of other moments than the images: found with the offset, told with the setting, and right with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.memory.track import PoseTrack
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.writers import write_folder


class Walk(RenderedSource):
    """A walk through a rendered room whose poses come as much later as is said."""

    def __init__(self, late_s: float, position_m: float = 0.0) -> None:
        super().__init__(seed=4, rooms=1, frames=60, rate_hz=10, width=96, height=72, noise=True)
        self._late_ns, self._position_m = round(late_s * 1e9), position_m

    def frames(self) -> Iterator[Frame]:
        frames = list(super().frames())
        track, rng = PoseTrack(), np.random.default_rng(0)
        for frame in frames:
            T = frame.T_world_camera.copy()
            T[:3, 3] += rng.normal(0, 1, 3) * self._position_m
            track.set(frame.stamp_ns, T)
        for frame in frames:
            T = track.at(frame.stamp_ns - self._late_ns, 10**9)
            if T is not None:
                yield replace(frame, T_world_camera=T)


def doubts(frames: Iterator[Frame]) -> tuple[Doubt, ...]:
    memory = SpatialMemory(clock=lambda: 2**62)
    for frame in frames:
        memory.add(frame)
    return memory.doubts


@pytest.mark.parametrize("late_s", [0.3, -0.3, 0.7])
def test_poses_of_another_time_are_doubted_with_the_offset(late_s):
    (doubt,) = doubts(Walk(late_s).frames())
    assert doubt.kind == "pose_time"
    assert doubt.confidence < 0.5
    said = float(doubt.remedy.split("pose_offset_s to ")[1].split()[0])
    assert said == pytest.approx(late_s, abs=0.1)


@pytest.mark.parametrize("position_m", [0.0, 0.01, 0.03])
def test_jitter_is_not_taken_for_another_time(position_m):
    assert "pose_time" not in [doubt.kind for doubt in doubts(Walk(0.0, position_m).frames())]


def test_the_setting_takes_the_poses_of_the_images_time_again(tmp_path):
    write_folder(Walk(0.3), tmp_path)
    as_it_is = {f.stamp_ns: f for f in open_source(str(tmp_path)).frames()}
    truth = {f.stamp_ns: f for f in Walk(0.0).frames()}
    source = open_source(str(tmp_path), InputSettings(pose_offset_s=0.3))
    placed = [f for f in source.frames() if f.T_world_camera is not None]
    assert len(placed) == len(as_it_is) - 3  # whose poses were not told any more
    assert source.remarks == {"tf_future": 3}
    for frame in placed:
        assert np.abs(frame.T_world_camera - truth[frame.stamp_ns].T_world_camera).max() < 2e-3
    assert doubts(iter(placed)) == ()


def test_an_offset_that_no_clock_has_is_refused():
    with pytest.raises(ValueError, match="pose_offset_s"):
        InputSettings(pose_offset_s=float("nan"))
