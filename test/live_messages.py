"""ROS messages without ROS, for tests of the live engine: rosbags' kind, with the package's own interfaces."""

from __future__ import annotations

from typing import Any

from spatial_mllm_ros.dds.interfaces import Interfaces
from spatial_mllm_ros.nodes.convert import RosbagsMaker

INTERFACES = Interfaces()
MAKE = RosbagsMaker(INTERFACES.message)


def over_the_wire(message: Any) -> Any:
    """The message as a receiver has it."""
    name = message.__msgtype__
    return INTERFACES.decode(INTERFACES.encode(message, name), name)
