"""Names and command line of a node without ROS, by ROS 2's rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatial_mllm_ros.dds import domain, names
from spatial_mllm_ros.dds.names import InvalidName, NodeName
from spatial_mllm_ros.dds.ros_args import RosArgumentError, RosArguments

NODE = NodeName("spatial_mllm", "/robot")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("image", "/robot/image"),
        ("camera/image", "/robot/camera/image"),
        ("/tf", "/tf"),
        ("~/query", "/robot/spatial_mllm/query"),
        ("~", "/robot/spatial_mllm"),
        ("{node}/x", "/robot/spatial_mllm/x"),
        ("{ns}/x", "/robot/x"),
    ],
)
def test_expansion(name: str, full: str) -> None:
    assert NODE.expand(name) == full


def test_root_namespace() -> None:
    assert NodeName("n").checked().expand("image") == "/image"
    assert NodeName("n").full == "/n"
    assert NodeName("n", "a/b/").checked().full == "/a/b/n"


@pytest.mark.parametrize("name", ["", "/", "a b", "a//b", "a/", "1a", "a/~", "~a", "a/1", "ä"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidName):
        NODE.expand(name)


@pytest.mark.parametrize("name", ["", "a/b", "1a", "a-b"])
def test_node_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidName):
        NodeName(name).checked()


def test_names_in_dds() -> None:
    assert names.dds_type("sensor_msgs/msg/Image") == "sensor_msgs::msg::dds_::Image_"
    assert names.ros_type("std_srvs::srv::dds_::Trigger_Request_") == "std_srvs/srv/Trigger_Request"
    assert names.ros_type("Other") is None
    assert names.service_to_dds("/a/b") == ("rq/a/bRequest", "rr/a/bReply")
    assert names.service_from_dds("rq/a/bRequest") == "/a/b"
    assert names.service_from_dds("rt/a") is None
    assert names.topic_from_dds("rt/a") == "/a"
    assert names.topic_from_dds("ros_discovery_info") is None
    with pytest.raises(InvalidName, match="package/msg/Name"):
        names.dds_type("Image")


def test_arguments_that_are_not_for_ros_are_kept() -> None:
    arguments = RosArguments.parse(
        ["--a", "b", "--ros-args", "-r", "x:=y", "--", "c", "--ros-args", "--log-level", "debug"]
    )
    assert arguments.rest == ("--a", "b", "c")
    assert arguments.log_levels == ("debug",)
    assert arguments.resolve(NODE, "x", "topic") == "/robot/y"


def test_node_is_renamed() -> None:
    for key in ("__node", "__name", "old:__node"):
        arguments = RosArguments.parse(["--ros-args", "-r", f"{key}:=new", "--remap", "__ns:=/there"])
        assert arguments.node_name("old", "/") == NodeName("new", "/there")
    other = RosArguments.parse(["--ros-args", "-r", "other:__node:=new"])
    assert other.node_name("old", "/") == NodeName("old", "/")


@pytest.mark.parametrize(
    ("rule", "name", "kind", "full"),
    [
        ("image:=/camera/rgb", "image", "topic", "/camera/rgb"),
        ("/robot/image:=other", "image", "topic", "/robot/other"),
        ("~/query:=/ask", "~/query", "service", "/ask"),
        ("spatial_mllm:image:=b", "image", "topic", "/robot/b"),
        ("another:image:=b", "image", "topic", "/robot/image"),
        ("rostopic://image:=b", "image", "topic", "/robot/b"),
        ("rostopic://image:=b", "image", "service", "/robot/image"),
        ("rosservice://image:=rosservice://b", "image", "service", "/robot/b"),
    ],
)
def test_remapping(rule: str, name: str, kind: str, full: str) -> None:
    assert RosArguments.parse(["--ros-args", "-r", rule]).resolve(NODE, name, kind) == full


def test_parameters(tmp_path: Path) -> None:
    """The last value of a name holds, and files may address nodes by patterns or nested namespaces."""
    file = tmp_path / "params.yaml"
    file.write_text(
        "/**:\n  ros__parameters: {rate: 1.0, group: {a: 1, b: [1, 2.5]}, model: ''}\n"
        "robot:\n  spatial_mllm:\n    ros__parameters: {rate: 2.0}\n"
        "/other:\n  ros__parameters: {rate: 9.0}\n"
        "/robot/*:\n  ros__parameters: {star: 1e3}\n"
    )
    arguments = RosArguments.parse(
        [
            "--ros-args",
            "--params-file",
            str(file),
            "-p",
            "flag:=true",
            "-p",
            "other:rate:=5.0",
            "-p",
            "n:=7",
            "-p",
            "s:=",
        ]
    )
    assert arguments.parameters(NODE) == {
        "rate": 2.0, "group.a": 1, "group.b": [1.0, 2.5], "model": "", "star": 1000.0, "flag": True, "n": 7, "s": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-r"], "needs a value"),
        (["-r", "x"], "from:=to"),
        (["-p", "x"], "name:=value"),
        (["-p", "x:=[1, a]"], "one type"),
        (["-p", "x:={a: 1}"], "not a value"),
        (["x:=y"], "-r or -p"),
        (["--nothing"], "not known"),
    ],
)
def test_arguments_that_are_wrong(arguments: list[str], words: str) -> None:
    with pytest.raises(RosArgumentError, match=words.replace("[", r"\[")):
        RosArguments.parse(["--ros-args", *arguments])


@pytest.mark.parametrize("text", ["a: 1", "- a", "a: {b: {}}", "a: [", "/**: {ros__parameters: {x: [1, a]}}"])
def test_parameter_files_that_are_wrong(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(RosArgumentError, match=r"params\.yaml"):
        RosArguments.parse(["--ros-args", "--params-file", str(file)])


def test_domain_id() -> None:
    assert domain.domain_id(None, {}) == 0
    assert domain.domain_id(None, {"ROS_DOMAIN_ID": "7"}) == 7
    assert domain.domain_id(3, {"ROS_DOMAIN_ID": "7"}) == 3
    for wrong in ("x", "-1", "233"):
        with pytest.raises(domain.DomainError, match="ROS_DOMAIN_ID"):
            domain.domain_id(None, {"ROS_DOMAIN_ID": wrong})


def test_discovery_range() -> None:
    """Which variables lead to what; what the user writes in CYCLONEDDS_URI comes last and so overrides."""
    local = domain.configuration({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "CYCLONEDDS_URI": "<Tracing/>"})
    assert "<AllowMulticast>false" in local
    assert '<Peer address="localhost"/>' in local
    assert local.endswith(",<Tracing/>")
    assert domain.configuration({"ROS_LOCALHOST_ONLY": "1"}) == local.removesuffix(",<Tracing/>")
    subnet = domain.configuration({"ROS_STATIC_PEERS": "10.0.0.2;robot.local"})
    assert "<AllowMulticast>" not in subnet
    assert '<Peer address="10.0.0.2"/><Peer address="robot.local"/>' in subnet
    own = domain.configuration({"CYCLONEDDS_URI": "<General><Interfaces/></General>"})
    assert own.count("Interface") == 1, "interfaces that the user chose must not be added to"
    assert domain.configuration({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT"}) == ""
    assert "ros_discovery_off" in domain.configuration({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"})
