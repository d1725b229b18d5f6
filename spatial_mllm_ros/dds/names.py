"""Names: of nodes, topics and services as ROS 2 writes them, and of topics and types as they are in DDS."""

from __future__ import annotations

import re
from typing import NamedTuple

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FULL_NAME = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")
TYPE_NAME = re.compile(r"[a-z][a-z0-9_]*/(msg|srv|action)/[A-Za-z][A-Za-z0-9_]*")
DDS_TYPE = re.compile(r"([A-Za-z0-9_]+)::(msg|srv|action)::dds_::([A-Za-z0-9_]+)_")
TOPIC_PREFIX, REQUEST_PREFIX, REPLY_PREFIX = "rt", "rq", "rr"
REQUEST_SUFFIX, REPLY_SUFFIX = "Request", "Reply"


class InvalidName(ValueError):
    """A name that ROS 2 does not allow. ``str()`` says what is wrong with it."""


class NodeName(NamedTuple):
    """A node's name and its namespace, which starts with a slash."""

    name: str
    namespace: str = "/"

    @property
    def full(self) -> str:
        """The node's full name, for example /front/spatial_mllm."""
        return f"{self.namespace.rstrip('/')}/{self.name}"

    def checked(self) -> NodeName:
        """Itself, with a namespace that starts with a slash. Raises InvalidName."""
        namespace = "/" + self.namespace.strip("/")
        if not NAME.fullmatch(self.name):
            raise InvalidName(f"{self.name!r} is not a node name: letters, digits and _, no digit first")
        if namespace != "/" and not FULL_NAME.fullmatch(namespace):
            raise InvalidName(f"{self.namespace!r} is not a namespace: letters, digits and _ between slashes")
        return NodeName(self.name, namespace)

    def expand(self, name: str) -> str:
        """The full name of a topic or service: ~ is the node's full name, without a leading slash: in its namespace.

        {node}, {ns} and {namespace} are replaced too. Raises InvalidName.
        """
        namespace = self.namespace.rstrip("/")
        full = re.sub(r"\{(node|ns|namespace)\}", lambda m: self.name if m[1] == "node" else namespace, name)
        if full == "~" or full.startswith("~/"):
            full = self.full + full[1:]
        elif not full.startswith("/"):
            full = f"{namespace}/{full}"
        if not FULL_NAME.fullmatch(full):
            raise InvalidName(
                f"{name!r} is not a name of a topic or service: letters, digits and _ between single slashes, no digit "
                "first, ~ only in front"
            )
        return full


def dds_type(type_name: str) -> str:
    """sensor_msgs/msg/Image as DDS names it: sensor_msgs::msg::dds_::Image_."""
    if not TYPE_NAME.fullmatch(type_name):
        raise InvalidName(f"{type_name!r} is not a type: write it as package/msg/Name")
    package, kind, name = type_name.split("/")
    return f"{package}::{kind}::dds_::{name}_"


def ros_type(dds_type_name: str) -> str | None:
    """The reverse of ``dds_type``; None for a type that is not ROS 2's."""
    match = DDS_TYPE.fullmatch(dds_type_name)
    return "/".join(match.groups()) if match else None


def topic_to_dds(full_name: str) -> str:
    """/camera/image as rt/camera/image."""
    return TOPIC_PREFIX + full_name


def topic_from_dds(dds_name: str) -> str | None:
    """rt/camera/image as /camera/image; None for what is not a ROS 2 topic."""
    return dds_name[len(TOPIC_PREFIX) :] if dds_name.startswith(TOPIC_PREFIX + "/") else None


def service_to_dds(full_name: str) -> tuple[str, str]:
    """The DDS topics of a service's requests and replies."""
    return REQUEST_PREFIX + full_name + REQUEST_SUFFIX, REPLY_PREFIX + full_name + REPLY_SUFFIX


def service_from_dds(dds_name: str) -> str | None:
    """The service whose requests a DDS topic carries; None for another topic."""
    if dds_name.startswith(REQUEST_PREFIX + "/") and dds_name.endswith(REQUEST_SUFFIX):
        return dds_name[len(REQUEST_PREFIX) : -len(REQUEST_SUFFIX)]
    return None
