"""What the tests on ROS share: a domain of their own on this computer, and nodes that are ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from robot import Robot

from spatial_mllm_ros.dds import domain

# A robot on this computer or network must not hear the tests, nor they it. Children inherit it.
os.environ.update(domain.private())


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    """rclpy, begun and ended."""
    rclpy = pytest.importorskip("rclpy", reason="no ROS 2 is sourced")
    pytest.importorskip("spatial_mllm_ros.srv", reason="the ROS 2 package is not built: scripts/test_ros.sh builds it")
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    yield
    rclpy.try_shutdown()


@pytest.fixture
def robots(ros: None) -> Iterator[Callable[..., Robot]]:
    """Makes robots, and ends them."""
    made: list[Robot] = []

    def make(**parameters: Any) -> Robot:
        defaults = {
            "sensor_model": "exact",
            "fixed_frame": "map",
            "keyframes_rate_hz": 10.0,
            "diagnostics_rate_hz": 10.0,
        }
        made.append(Robot(**{**defaults, **parameters}))
        return made[-1]

    yield make
    for robot in made:
        robot.close()


@pytest.fixture
def cameras(ros: None) -> Iterator[Callable[..., Any]]:
    """Makes cameras, and ends them: one that is left over keeps the players of later tests away from its topics."""
    from camera_player import CameraPlayer

    made: list[CameraPlayer] = []

    def make(name: str = "camera", **options: Any) -> CameraPlayer:
        made.append(CameraPlayer(name, **options))
        return made[-1]

    yield make
    for player in made:
        player.destroy_node()
