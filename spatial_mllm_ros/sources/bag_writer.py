"""Writing a rosbag2 as a robot with an RGB-D camera would record it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2 import WriterError as BagWriterError
from rosbags.typesys import Stores, get_typestore

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, Transform, from_quaternion, invert, to_quaternion
from spatial_mllm_ros.sources.bag import SENSOR_KEY
from spatial_mllm_ros.sources.calibration import sensor_to_yaml
from spatial_mllm_ros.sources.compressed import PNG
from spatial_mllm_ros.sources.source import Source, SourceError, check_metres
from spatial_mllm_ros.sources.stamps import ns_to_seconds
from spatial_mllm_ros.sources.writers import Progress, depth_in_mm, encode_png, encoded_color, replacing, same_camera

BASE, LINK = "base_link", "camera_link"
T_BASE_LINK = from_quaternion((0, 0, 0, 1), (0.2, 0.0, 0.5))
"""Where the camera sits on the imagined robot; poses of the camera do not depend on it."""

FOREVER = QosTime(9223372036, 854775807)
TYPES = {
    "image": "sensor_msgs/msg/Image",
    "compressed": "sensor_msgs/msg/CompressedImage",
    "info": "sensor_msgs/msg/CameraInfo",
    "tf": "tf2_msgs/msg/TFMessage",
}


@dataclass(frozen=True)
class BagFormat:
    """How a bag is written.

    storage: mcap or sqlite3. compressed: color as JPEG or PNG and depth as compressedDepth PNG, as image_transport
    names them, instead of raw rgb8 and 16UC1. zstd: compress the storage besides (MCAP's chunks, sqlite3's messages).
    level: poses in a frame with z up where the source knows one (its T_zup_from_world), as REP-105 wants of a map.
    offset_ns: added to all stamps. ROS takes a transform's stamp of 0 as "the latest", so a recording that starts at 0
    is better moved.
    """

    storage: Literal["mcap", "sqlite3"] = "mcap"
    compressed: bool = True
    zstd: bool = False
    level: bool = True
    offset_ns: int = 0


def write_bag(
    source: Source,
    target: Path | str,
    bag_format: BagFormat | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write all frames of ``source`` as a rosbag2, which ``ros2 bag play`` plays; the number of frames.

    /camera/color/image_raw[/compressed], /camera/color/camera_info, /camera/aligned_depth_to_color/image_raw
    [/compressedDepth] and its camera_info, /tf (world -> base_link) and /tf_static (base_link -> camera_link -> the
    optical frame). Topics of which there is nothing are left out. Depth becomes whole millimetres. The sensor model
    goes into the bag's custom data. Nothing is left at ``target`` when this is interrupted.

    Raises SourceError, also for several cameras, and for a ``target`` that exists, unless ``overwrite`` is given and it
    is a recording.
    """
    check_metres(source)
    chosen = bag_format or BagFormat()
    plugins = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
    if chosen.storage not in plugins:
        raise SourceError(f"a bag's storage is mcap or sqlite3, not {chosen.storage!r}")
    with replacing(Path(target), overwrite) as folder:
        # Version 8 is what every ROS 2 release since Humble reads.
        writer = Writer(folder, version=8, storage_plugin=plugins[chosen.storage])
        if chosen.zstd:
            mode = CompressionMode.STORAGE if chosen.storage == "mcap" else CompressionMode.MESSAGE
            writer.set_compression(mode, CompressionFormat.ZSTD)
        writer.set_custom_data(SENSOR_KEY, sensor_to_yaml(source.info.sensor))
        with writer:
            T_map_world = source.info.T_zup_from_world if chosen.level else None
            bag = _Bag(writer, chosen, T_map_world)
            for frame in source.frames():
                bag.write(frame)
                if progress is not None:
                    progress(bag.count, source.info.frames)
            if bag.count == 0:
                raise SourceError(f"{source.info.name} gave no frames to write; refused: {dict(source.refused)}")
    return bag.count


class _Bag:
    """Frames to messages of an open bag."""

    def __init__(self, writer: Writer, bag_format: BagFormat, T_map_world: Transform | None) -> None:
        self.count = 0
        self._writer = writer
        self._format = bag_format
        self._T_map_world = T_map_world
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[str, Connection] = {}
        self._first: Frame | None = None

    def write(self, frame: Frame) -> None:
        if self._first is None:
            self._first = frame
            self._write_mount(frame)
        same_camera(self._first, frame)
        stamp = self._stamp(frame)
        header = self._header(stamp, frame.camera_frame)
        if frame.T_world_camera is not None:
            T_map_camera = (
                frame.T_world_camera if self._T_map_world is None else self._T_map_world @ frame.T_world_camera
            )
            T_map_base = T_map_camera @ invert(T_BASE_LINK @ T_BODY_OPTICAL)
            self._transforms("/tf", stamp, [(frame.world_frame, BASE, T_map_base)])
        if frame.image is not None:
            self._write_color(frame, stamp, header)
        if frame.depth is not None:
            self._write_depth(frame, stamp, header)
        self.count += 1

    def _write_mount(self, frame: Frame) -> None:
        mount = [(BASE, LINK, T_BASE_LINK), (LINK, frame.camera_frame, T_BODY_OPTICAL)]
        self._transforms("/tf_static", self._stamp(frame), mount)

    def _write_color(self, frame: Frame, stamp: int, header: Any) -> None:
        topic = "/camera/color/image_raw"
        if frame.camera is not None:
            self._send("/camera/color/camera_info", "info", stamp, self._camera_info(frame.camera, header))
        assert frame.image is not None
        if self._format.compressed:
            data = encoded_color(frame.image)
            kind = "rgb8; png compressed bgr8" if data.startswith(PNG) else "rgb8; jpeg compressed bgr8"
            self._send(topic + "/compressed", "compressed", stamp, self._compressed(header, kind, data))
            return
        try:
            rgb = frame.rgb()
        except ValueError as error:
            raise SourceError(f"the image at {ns_to_seconds(frame.stamp_ns)} s does not decode: {error}") from error
        assert rgb is not None
        self._send(topic, "image", stamp, self._image(header, "rgb8", rgb))

    def _write_depth(self, frame: Frame, stamp: int, header: Any) -> None:
        topic = "/camera/aligned_depth_to_color/image_raw"
        if frame.camera is not None:
            info = self._camera_info(frame.camera, header)
            self._send("/camera/aligned_depth_to_color/camera_info", "info", stamp, info)
        assert frame.depth is not None
        depth = depth_in_mm(frame.depth)
        if self._format.compressed:
            data = struct.pack("<iff", 0, 0.0, 0.0) + encode_png(depth)
            message = self._compressed(header, "16UC1; compressedDepth png", data)
            self._send(topic + "/compressedDepth", "compressed", stamp, message)
        else:
            self._send(topic, "image", stamp, self._image(header, "16UC1", depth))

    def _stamp(self, frame: Frame) -> int:
        stamp = frame.stamp_ns + self._format.offset_ns
        if not 0 <= stamp < 2**31 * 10**9:
            raise SourceError(f"ROS 2 cannot hold the stamp {ns_to_seconds(stamp)} s: set offset_ns")
        return stamp

    def _send(self, topic: str, kind: str, stamp: int, message: Any) -> None:
        connection = self._connections.get(topic)
        try:
            if connection is None:
                static = topic == "/tf_static"
                connection = self._connections[topic] = self._writer.add_connection(
                    topic, TYPES[kind], typestore=self._types, offered_qos_profiles=[_qos(static)]
                )
            self._writer.write(connection, stamp, self._types.serialize_cdr(message, TYPES[kind]))
        except BagWriterError as error:
            raise SourceError(f"{topic} cannot be written: {error}") from error

    def _transforms(self, topic: str, stamp: int, transforms: list[tuple[str, str, Transform]]) -> None:
        geometry = "geometry_msgs/msg/"
        stamped = []
        for parent, child, T in transforms:
            translation = self._new(geometry + "Vector3", *(float(x) for x in T[:3, 3]))
            rotation = self._new(geometry + "Quaternion", *(float(x) for x in to_quaternion(T)))
            value = self._new(geometry + "Transform", translation, rotation)
            stamped.append(self._new(geometry + "TransformStamped", self._header(stamp, parent), child, value))
        self._send(topic, "tf", stamp, self._new(TYPES["tf"], stamped))

    def _camera_info(self, camera: CameraModel, header: Any) -> Any:
        K = camera.K
        distortion = camera.distortion or (0.0,) * (4 if camera.distortion_model == "equidistant" else 5)
        return self._new(
            TYPES["info"],
            header,
            camera.height,
            camera.width,
            camera.distortion_model,
            np.array(distortion, np.float64),
            K.reshape(-1),
            np.eye(3).reshape(-1),
            np.hstack([K, np.zeros((3, 1))]).reshape(-1),
            0,
            0,
            self._new("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False),
        )

    def _image(self, header: Any, encoding: str, pixels: np.ndarray) -> Any:
        height, width = pixels.shape[:2]
        data = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).view(np.uint8).reshape(-1)
        return self._new(TYPES["image"], header, height, width, encoding, 0, data.size // height, data)

    def _compressed(self, header: Any, kind: str, data: bytes) -> Any:
        return self._new(TYPES["compressed"], header, kind, np.frombuffer(data, np.uint8))

    def _header(self, stamp: int, frame_id: str) -> Any:
        time = self._new("builtin_interfaces/msg/Time", stamp // 10**9, stamp % 10**9)
        return self._new("std_msgs/msg/Header", time, frame_id)

    def _new(self, name: str, *fields: Any) -> Any:
        return self._types.types[name](*fields)


def _qos(static: bool) -> Qos:
    """Reliable, so that subscribers of either kind match; static transforms also for those who come late."""
    return Qos(
        QosHistory.KEEP_LAST,
        1 if static else 10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if static else QosDurability.VOLATILE,
        FOREVER,
        FOREVER,
        QosLiveliness.AUTOMATIC,
        FOREVER,
        False,
    )
