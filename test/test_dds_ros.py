"""The tools of a real ROS 2 see a node of ours as any other, without a warning.

Runs where ROS 2 with Cyclone DDS is sourced, or installed below /opt/ros, or its setup.bash is named by ROS_SETUP.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_ros.dds import (
    DdsNode,
    DeclaredParameters,
    Descriptor,
    Lifecycle,
    ParameterServices,
    ParameterType,
    Range,
    Result,
    State,
    is_installed,
)

DOMAIN = str(60 + (os.getpid() + 7) % 40)
NAME = "/robot/tested"


def setup_file() -> Path | None:
    found = sorted(Path("/opt/ros").glob("*/setup.bash"))
    if os.environ.get("ROS_SETUP"):
        found.append(Path(os.environ["ROS_SETUP"]))
    return found[-1] if found else None


SOURCED = bool(os.environ.get("ROS_DISTRO")) and shutil.which("ros2") is not None
ENVIRONMENT = {
    "ROS_DOMAIN_ID": DOMAIN,
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp",
}

pytestmark = [
    pytest.mark.skipif(not is_installed(), reason="cyclonedds is not installed"),
    pytest.mark.skipif(not SOURCED and setup_file() is None, reason="there is no ROS 2 here (source its setup.bash)"),
]


def ros2(*arguments: str) -> str:
    """What a command of ROS 2 prints, warnings included."""
    command = shlex.join(["ros2", *arguments])
    if not SOURCED:
        command = f"source {setup_file()} && {command}"
    done = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert "WARN" not in done.stdout, done.stdout
    if "rmw_cyclonedds_cpp" in done.stdout and done.returncode:
        pytest.skip("this ROS 2 has no rmw_cyclonedds_cpp")
    return done.stdout


class Steps:
    """Lifecycle callbacks that succeed."""

    def on_configure(self) -> Result:
        return Result.SUCCESS

    on_cleanup = on_activate = on_deactivate = on_configure

    def on_shutdown(self, previous: State) -> Result:
        return Result.SUCCESS

    on_error = on_shutdown


@pytest.fixture(scope="module")
def node() -> Iterator[DdsNode]:
    """A node with one of everything, which publishes all the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.delenv("CYCLONEDDS_URI", raising=False)
        with DdsNode("tested", "/robot", ros_args=[]) as made:
            store = DeclaredParameters()
            store.declare("rate", 2.0, Descriptor(ParameterType.DOUBLE, "A rate", range=Range(0, 10)))
            ParameterServices(made, store)
            lifecycle = Lifecycle(made, Steps())
            image = made.create_publisher("sensor_msgs/msg/Image", "image", "sensor_data")
            latched = made.create_publisher("std_msgs/msg/String", "~/name", "latched")
            latched.publish(made.message("std_msgs/msg/String", data="kept"))
            made.create_service(
                "std_srvs/srv/SetBool",
                "~/set",
                lambda r: made.message("std_srvs/srv/SetBool_Response", success=r.data, message="done"),
            )
            stop = threading.Event()

            def publish() -> None:
                data = np.arange(48, dtype=np.uint8)
                message = made.message("sensor_msgs/msg/Image", height=4, width=4, step=12, encoding="rgb8", data=data)
                while not stop.wait(0.1):
                    image.publish(message)

            thread = threading.Thread(target=publish)
            thread.start()
            yield made
            stop.set()
            thread.join()
            lifecycle.close()


def test_node_and_topics(node: DdsNode) -> None:
    direct = ("--no-daemon", "--spin-time", "2")
    assert NAME in ros2("node", "list", *direct).splitlines()
    told = ros2("node", "info", *direct, NAME)
    for line in ("/robot/image: sensor_msgs/msg/Image", f"{NAME}/set: std_srvs/srv/SetBool"):
        assert line in told
    told = ros2("topic", "info", "-v", *direct, "/robot/image")
    assert node.interfaces.hash("sensor_msgs/msg/Image") in told
    assert "Reliability: BEST_EFFORT" in told
    assert f"{NAME}/set [std_srvs/srv/SetBool]" in ros2("service", "list", "-t", *direct)


def test_messages_reach_ros(node: DdsNode) -> None:
    direct = ("--once", "--no-daemon", "--spin-time", "2")
    assert "encoding: rgb8" in ros2("topic", "echo", *direct, "/robot/image")
    assert "data: kept" in ros2("topic", "echo", *direct, f"{NAME}/name")


def test_messages_of_ros_arrive(node: DdsNode) -> None:
    heard: list[str] = []
    node.create_subscription("std_msgs/msg/String", "words", lambda payload, _: heard.append(payload.decode().data))
    ros2("topic", "pub", "--once", "-w", "1", "/robot/words", "std_msgs/msg/String", "{data: a word}")
    assert heard == ["a word"]


def test_service(node: DdsNode) -> None:
    told = ros2("service", "call", f"{NAME}/set", "std_srvs/srv/SetBool", "{data: true}")
    assert "success=True, message='done'" in told


def test_parameters(node: DdsNode) -> None:
    direct = ("--no-daemon", "--spin-time", "2")
    assert ros2("param", "list", *direct, NAME).split() == ["rate"]
    assert "successful" in ros2("param", "set", *direct, NAME, "rate", "3.5")
    assert "3.5" in ros2("param", "get", *direct, NAME, "rate")
    assert "from 0 to 10" in ros2("param", "set", *direct, NAME, "rate", "30.0")
    assert "A rate" in ros2("param", "describe", *direct, NAME, "rate")


def test_lifecycle(node: DdsNode) -> None:
    direct = ("--no-daemon", "--spin-time", "2")
    assert "unconfigured [1]" in ros2("lifecycle", "get", *direct, NAME)
    assert "successful" in ros2("lifecycle", "set", *direct, NAME, "configure")
    assert "activate [3]" in ros2("lifecycle", "list", *direct, NAME)
