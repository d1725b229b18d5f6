"""Qualities of service by name, for either kind of node. Nothing here needs rclpy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QosPolicy:
    """What matters of a quality of service. The history is the last ``depth`` messages."""

    reliable: bool
    transient_local: bool
    depth: int


QOS_NAMES = ("auto", "sensor_data", "reliable", "latched")
TF_DEPTH = 100
"""What tf2 uses."""
KEYFRAMES_QOS = QosPolicy(reliable=True, transient_local=True, depth=1)
SERVICE_QOS = QosPolicy(reliable=True, transient_local=False, depth=1000)
"""ROS 2's default for services keeps ten requests, and ten replies to all clients together, so a burst loses some."""
DIAGNOSTICS_QOS = QosPolicy(reliable=True, transient_local=False, depth=10)


def qos_policy(name: str, depth: int) -> QosPolicy:
    """The policy of a name in QOS_NAMES: sensor_data is best effort; reliable; latched is reliable, transient local.

    auto starts as reliable; once a publisher offers less, take ``fallback``. Raises ValueError.
    """
    if name not in QOS_NAMES:
        raise ValueError(f"a quality of service is one of {', '.join(QOS_NAMES)}, not {name!r}")
    return QosPolicy(name != "sensor_data", name == "latched", depth)


def fallback(name: str, policy: QosPolicy) -> QosPolicy | None:
    """What to subscribe with instead once a publisher turned out to offer less than ``policy``; None: stay.

    Best effort, volatile is compatible with every publisher, but only ``auto`` leaves the choice to the node.
    """
    if name != "auto" or not policy.reliable:
        return None
    return QosPolicy(reliable=False, transient_local=False, depth=policy.depth)


def mismatch_remedy(topic: str, policy_name: str, parameter: str) -> str:
    """What to tell when a publisher on ``topic`` offers less than ``parameter`` asks for, in ``policy_name``.

    policy_name: RELIABILITY, DURABILITY ... as rclpy and DDS name them.
    """
    policy = policy_name.upper()
    if policy == "DURABILITY":
        what = "the publisher is volatile, but this node asks for transient local (latched)"
        instead = "reliable"
    elif policy == "RELIABILITY":
        what = "the publisher is best effort, but this node asks for reliable"
        instead = "sensor_data or auto"
    else:
        what = f"the publisher's {policy.lower()} does not meet what this node asks for"
        instead = "another name"
    return (
        f"nothing arrives on {topic} from a publisher with another quality of service: {what}. Set {parameter} to "
        f"{instead}, or change the publisher; `ros2 topic info -v {topic}` shows both"
    )
