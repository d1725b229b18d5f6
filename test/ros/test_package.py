"""The package as colcon installs it: the engine and the generated interfaces under one name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 is sourced")
pytest.importorskip("spatial_mllm_ros.srv", reason="the ROS 2 package is not built: scripts/test_ros.sh builds it")

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from rclpy.serialization import deserialize_message, serialize_message

import spatial_mllm_ros
from spatial_mllm_ros.action import SpatialQuery as SpatialQueryAction
from spatial_mllm_ros.dds.interfaces import interfaces
from spatial_mllm_ros.msg import Evidence, Keyframes
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import AnswerSource, ErrorCode
from spatial_mllm_ros.srv import SpatialQuery

STANDARD = ("action_msgs", "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs", "nav_msgs", "rcl_interfaces", "rosgraph_msgs",
            "sensor_msgs", "std_msgs", "tf2_msgs")  # fmt: skip


def test_engine_and_interfaces_share_one_name() -> None:
    assert SpatialQuery.Response.NOT_SEEN == ErrorCode.NOT_SEEN
    assert SpatialQueryAction.Result.SOURCE_BOTH == AnswerSource.BOTH
    assert set(SpatialQuery.Response.get_fields_and_field_types()) == set(Answer.__dataclass_fields__)


def test_messages_survive_the_wire() -> None:
    response = SpatialQuery.Response(answer="2.4 m", value=2.4, evidence=[Evidence(kind=Evidence.PIXEL, label="<p0>")])
    assert deserialize_message(serialize_message(response), SpatialQuery.Response) == response
    assert deserialize_message(serialize_message(Keyframes(total=3)), Keyframes).total == 3


@pytest.mark.parametrize("package", ["spatial_mllm_ros", *STANDARD])
def test_the_node_without_rclpy_has_the_hashes_that_ros_generates(package: str) -> None:
    """ROS 2's tools warn of a type whose hash is not that of their own definition, or refuse it."""
    known, compared = set(interfaces().names()), 0
    for file in Path(get_package_share_directory(package)).glob("*/*.json"):
        for part in json.loads(file.read_text(encoding="utf-8"))["type_hashes"]:
            if part["type_name"] in known:
                assert interfaces().hash(part["type_name"]) == part["hash_string"], part["type_name"]
                compared += 1
    assert compared


def test_what_is_installed() -> None:
    share = Path(get_package_share_directory("spatial_mllm_ros"))
    package = Path(spatial_mllm_ros.__file__).parent
    for definitions in (share, package / "interfaces"):
        assert (definitions / "srv" / "SpatialQuery.srv").is_file()
    assert (package / "language" / "lexicon.yaml").is_file()
    assert os.access(Path(get_package_prefix("spatial_mllm_ros"), "lib", "spatial_mllm_ros", "spatial-mllm"), os.X_OK)
