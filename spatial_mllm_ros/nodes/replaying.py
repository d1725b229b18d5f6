"""What a player must be told so that a node with given parameters hears it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spatial_mllm_ros.dds.names import NodeName
from spatial_mllm_ros.dds.ros_args import RosArguments
from spatial_mllm_ros.nodes.parameters import PARAMETERS, ParameterError, Settings
from spatial_mllm_ros.sources.topics import CameraTopics


def settings_of(params_file: Path, name: str, namespace: str, given: Mapping[str, Any]) -> Settings:
    """A node's settings: those of a parameter file, and above them those ``given``. Raises ParameterError and ValueError."""
    arguments = RosArguments.parse(("--ros-args", "--params-file", str(params_file)))
    of_file = arguments.parameters(NodeName(name, namespace or "/").checked())
    return Settings.from_values({**{n: v for n, v in of_file.items() if n in PARAMETERS}, **given})


def player_arguments(settings: Settings, namespace: str, clock: bool) -> list[str]:
    """Arguments of ``spatial-mllm play`` with which a node of these settings in that namespace hears it.

    clock: the node takes its time from /clock. Raises ParameterError for what no player can do.
    """
    if (settings.color_transport == "raw") != (settings.depth_transport == "raw") and any(
        camera.depth for camera in settings.cameras
    ):
        raise ParameterError(
            "a player sends either all images compressed or none: set color_transport and depth_transport"
        )
    compressed = settings.color_transport != "raw"
    arguments = ["--compressed"] if compressed else []
    arguments += ["--clock"] if clock else []
    ros = ["-r", f"__ns:=/{namespace.strip('/')}"] if namespace.strip("/") else []
    for number, camera in enumerate(settings.cameras, 1):
        own = "camera" if number == 1 else f"camera_{number}"
        for played, heard in _topics(own, camera, compressed):
            ros += ["-r", f"{played}:={heard}"] if played != heard else []
    return [*arguments, "--ros-args", *ros] if ros else arguments


def _topics(own: str, camera: CameraTopics, compressed: bool) -> Iterator[tuple[str, str]]:
    """Topics of a player's camera, and of the node's."""
    color, depth = f"{own}/color", f"{own}/aligned_depth_to_color"
    yield (
        f"{color}/image_raw{'/compressed' if compressed else ''}",
        camera.color + ("/compressed" if compressed else ""),
    )
    if camera.info:
        yield f"{color}/camera_info", camera.info
    if camera.depth:
        suffix = "/compressedDepth" if compressed else ""
        yield f"{depth}/image_raw{suffix}", camera.depth + suffix
    if camera.depth_info:
        yield f"{depth}/camera_info", camera.depth_info
