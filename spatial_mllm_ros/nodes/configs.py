"""What the parts of a live engine take of its settings."""

from __future__ import annotations

from pathlib import Path

import yaml

from spatial_mllm_ros.answering.context import QueryConfig, zone
from spatial_mllm_ros.memory.keyframes.streaming import SelectorConfig
from spatial_mllm_ros.memory.spatial_memory import MemoryConfig
from spatial_mllm_ros.nodes.model import ConfigurationError
from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.scene.assembler import AssemblerSettings
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.sources.calibration import sensor_from_yaml
from spatial_mllm_ros.sources.source import SourceError

SECOND = 1_000_000_000


def assembler_settings(settings: Settings) -> AssemblerSettings:
    """How messages are joined to frames."""
    return AssemblerSettings(
        pair_tolerance_ns=int(settings.sync_tolerance_s * SECOND),
        wait_ns=int(settings.tf_wait_s * SECOND),
        clock_reset_ns=int(settings.clock_reset_s * SECOND),
        queue_size=60 + int(60 * settings.tf_wait_s),
        pose_offset_ns=round(settings.pose_offset_s * SECOND),
        image_frame=settings.image_frame,
        static=settings.static,
    )


def memory_config(settings: Settings) -> MemoryConfig:
    """Bounds of the memory."""
    return MemoryConfig(
        max_frames=settings.max_frames,
        max_bytes=settings.max_memory_mib << 20,
        points_per_frame=settings.points_per_frame,
        max_depth_m=settings.coverage_depth_m,
        max_future_s=settings.max_future_s,
        selector=SelectorConfig(settings.pool_size, settings.core_size, settings.min_voxel_size_m),
    )


def query_config(settings: Settings) -> QueryConfig:
    """How questions are answered. Raises ConfigurationError."""
    try:
        zone(settings.time_zone)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return QueryConfig(
        min_confidence=settings.min_confidence,
        base_frame=settings.base_frame,
        time_zone=settings.time_zone,
        moment_tolerance_s=settings.moment_tolerance_s,
        timeout_s=settings.timeout_s,
        max_pose_age_s=settings.max_pose_age_s,
        max_keyframes=settings.keyframes_count,
        min_model_confidence=settings.min_model_confidence,
        wait_for_context=settings.model_context == "wait",
        cross_check_with_model=settings.cross_check,
        cross_check_timeout_s=settings.cross_check_timeout_s,
    )


def sensor_model(name: str) -> SensorModel:
    """The error model that sensor_model names. Raises ConfigurationError."""
    if name == "rgbd":
        return SensorModel()
    if name == "exact":
        return SensorModel.exact()
    path = Path(name).expanduser()
    try:
        return sensor_from_yaml(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, SourceError) as error:
        raise ConfigurationError(
            f"sensor_model is {name!r}, which is neither rgbd nor exact, nor a sensor.yaml that can be read: {error}"
        ) from error
