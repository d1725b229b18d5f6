"""What a node listens to, by its settings."""

from __future__ import annotations

from collections.abc import Iterable

from spatial_mllm_ros.nodes.inbox import Kind, Stream
from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.sources.topics import POSE_TYPES

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO, TF_MESSAGE = "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage"
TF_QOS_DEPTH = 100
"""What tf2 uses."""


def streams_of(settings: Settings) -> list[Stream]:
    """Images, depth and CameraInfo of every camera, TF, and poses where their type is set."""
    color, depth = settings.color_transport, settings.depth_transport
    streams = []
    for camera in settings.cameras:
        topics = (
            (Kind.COLOR, _with(camera.color, color), COMPRESSED if color != "raw" else IMAGE, "color_qos"),
            (Kind.CAMERA_INFO, camera.info, CAMERA_INFO, "camera_info_qos"),
            (Kind.DEPTH, _with(camera.depth, depth), COMPRESSED if depth != "raw" else IMAGE, "depth_qos"),
            (Kind.DEPTH_CAMERA_INFO, camera.depth_info, CAMERA_INFO, "camera_info_qos"),
        )
        streams += [
            Stream(
                kind,
                topic,
                message_type,
                getattr(settings, parameter),
                settings.qos_depth,
                parameter,
                settings.image_queue,
                camera.color,
            )
            for kind, topic, message_type, parameter in topics
            if topic
        ]
    robot = f"/{settings.tf_namespace.strip('/')}".rstrip("/")
    for kind, topic, parameter in (
        (Kind.TF, f"{robot}/tf", "tf_qos"),
        (Kind.TF_STATIC, f"{robot}/tf_static", "tf_static_qos"),
    ):
        qos, queue = getattr(settings, parameter), settings.tf_queue
        streams.append(Stream(kind, topic, TF_MESSAGE, qos, TF_QOS_DEPTH, parameter, queue))
    if settings.pose_topic and settings.pose_type != "auto":
        message_type = next(name for name in POSE_TYPES if name.endswith("/" + settings.pose_type))
        streams.append(pose_stream(settings, message_type))
    return streams


def pose_stream(settings: Settings, message_type: str) -> Stream:
    """Of pose_topic, with messages of that type."""
    topic, qos, queue = settings.pose_topic, settings.pose_qos, settings.tf_queue
    return Stream(Kind.POSE, topic, message_type, qos, TF_QOS_DEPTH, "pose_qos", queue)


def image_topic(info: Stream, streams: Iterable[Stream]) -> str:
    """The image topic that a CameraInfo stream belongs to; '' when there is none."""
    kind = Kind.COLOR if info.kind is Kind.CAMERA_INFO else Kind.DEPTH
    return next((s.topic for s in streams if (s.kind, s.camera) == (kind, info.camera)), "")


def _with(topic: str | None, transport: str) -> str | None:
    return topic if topic is None or transport == "raw" else f"{topic}/{transport}"
