"""Plays a recording as a camera and a localiser would publish it: python camera_player.py rendered:frames=60 [rate]."""

from __future__ import annotations

import sys
import time

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.inbox import Kind
from spatial_mllm_ros.nodes.ros_node import MAKE, message_class
from spatial_mllm_ros.nodes.streams import CAMERA_INFO, COMPRESSED, IMAGE, TF_MESSAGE
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.sources.pacing import paced

COLOR, DEPTH = "camera/color/image_raw", "camera/aligned_depth_to_color/image_raw"
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)


class CameraPlayer(Node):
    """Publishes frames on the node's default topics. qos: of images and CameraInfo."""

    def __init__(self, name: str = "camera", compressed: bool = False, qos: QoSProfile | int = 10) -> None:
        super().__init__(name)
        topics = {
            Kind.COLOR: (COLOR + "/compressed", COMPRESSED) if compressed else (COLOR, IMAGE),
            Kind.CAMERA_INFO: ("camera/color/camera_info", CAMERA_INFO),
            Kind.DEPTH: (DEPTH, IMAGE),
            Kind.DEPTH_CAMERA_INFO: ("camera/aligned_depth_to_color/camera_info", CAMERA_INFO),
        }
        self.outputs = {
            kind: self.create_publisher(message_class(message_type), topic, qos)
            for kind, (topic, message_type) in topics.items()
        }
        self.outputs[Kind.TF] = self.create_publisher(message_class(TF_MESSAGE), "/tf", 100)

    def wait_for_subscribers(self, timeout_s: float = 15.0) -> None:
        """Until somebody listens to all of it. TimeoutError when nobody does."""
        deadline = time.monotonic() + timeout_s
        while not all(p.get_subscription_count() for p in self.outputs.values()):
            if time.monotonic() > deadline:
                raise TimeoutError("nobody listens to the camera")
            time.sleep(0.05)

    def send(self, frame: Frame) -> None:
        """One frame."""
        for kind, message in convert.camera_messages(frame, MAKE):
            self.outputs[kind].publish(message)


def main() -> None:
    rclpy.init()
    source = open_source(sys.argv[1])
    frames = list(source.frames())
    player = CameraPlayer(compressed=isinstance(frames[0].image, EncodedImage))
    player.wait_for_subscribers()
    for frame in paced(frames, float(sys.argv[2]) if len(sys.argv) > 2 else 1.0):
        player.send(frame)
    time.sleep(1.0)
    print(f"{len(frames)} frames of {source.info.description} published")
    player.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
