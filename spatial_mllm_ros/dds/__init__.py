"""ROS 2 on the wire without ROS 2 installed: a node on Cyclone DDS, with rosbags for the encoding.

    with DdsNode("talker") as node:
        publisher = node.create_publisher("sensor_msgs/msg/Image", "image", "sensor_data")
        publisher.publish(node.message("sensor_msgs/msg/Image", height=480, ...))

To nodes of ROS 2 with RMW_IMPLEMENTATION=rmw_cyclonedds_cpp it is one of them. Importing this needs no Cyclone DDS;
making a node does (DdsNotInstalled).
"""

from spatial_mllm_ros.dds.actions import ActionClient, ActionServer, GoalStatus
from spatial_mllm_ros.dds.clock import NodeClock, time_message
from spatial_mllm_ros.dds.domain import DomainError
from spatial_mllm_ros.dds.endpoints import Payload, Publisher, SampleInfo, Subscription
from spatial_mllm_ros.dds.graph import TopicEndpoint
from spatial_mllm_ros.dds.interfaces import Interfaces, MalformedPayload, UnknownType, interfaces
from spatial_mllm_ros.dds.library import DdsError, DdsNotInstalled, is_installed
from spatial_mllm_ros.dds.lifecycle import Lifecycle, LifecycleCallbacks, Result, State
from spatial_mllm_ros.dds.names import InvalidName, NodeName
from spatial_mllm_ros.dds.node import DdsNode
from spatial_mllm_ros.dds.parameters import (
    DeclaredParameters,
    Descriptor,
    ParameterServices,
    ParameterStore,
    ParameterType,
    Range,
    SetResult,
)
from spatial_mllm_ros.dds.qos import PROFILES, QosMismatch, QosProfile
from spatial_mllm_ros.dds.ros_args import RosArgumentError, RosArguments
from spatial_mllm_ros.dds.rosout import RosoutHandler
from spatial_mllm_ros.dds.services import Client, Service, ServiceNotAvailable, ServiceTimeout
from spatial_mllm_ros.dds.workers import WorkerPool

__all__ = [
    "PROFILES",
    "ActionClient",
    "ActionServer",
    "Client",
    "DdsError",
    "DdsNode",
    "DdsNotInstalled",
    "DeclaredParameters",
    "Descriptor",
    "DomainError",
    "GoalStatus",
    "Interfaces",
    "InvalidName",
    "Lifecycle",
    "LifecycleCallbacks",
    "MalformedPayload",
    "NodeClock",
    "NodeName",
    "ParameterServices",
    "ParameterStore",
    "ParameterType",
    "Payload",
    "Publisher",
    "QosMismatch",
    "QosProfile",
    "Range",
    "Result",
    "RosArgumentError",
    "RosArguments",
    "RosoutHandler",
    "SampleInfo",
    "Service",
    "ServiceNotAvailable",
    "ServiceTimeout",
    "SetResult",
    "State",
    "Subscription",
    "TopicEndpoint",
    "UnknownType",
    "WorkerPool",
    "interfaces",
    "is_installed",
    "time_message",
]
