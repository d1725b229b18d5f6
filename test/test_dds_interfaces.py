"""Types, their hashes and their encoding, without any middleware."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_ros.dds.interfaces import MalformedPayload, UnknownType, interfaces

# As ROS 2 Jazzy's own generators make them, and `ros2 topic info -v` shows them.
HASHES = {
    "builtin_interfaces/msg/Time": "RIHS01_b106235e25a4c5ed35098aa0a61a3ee9c9b18d197f398b0e4206cea9acf9c197",
    "std_msgs/msg/String": "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
    "std_msgs/msg/Char": "RIHS01_3ad2d04dd29ba19d04b16659afa3ccaedd691914b02a64e82e252f2fa6a586a9",
    "sensor_msgs/msg/Image": "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
    "sensor_msgs/msg/CameraInfo": ("RIHS01_b3dfd68ff46c9d56c80fd3bd4ed22c7a4ddce8c8348f2f59c299e73118e7e275"),
    "sensor_msgs/msg/CompressedImage": ("RIHS01_15640771531571185e2efc8a100baf923961a4d15d5569652e6cb6691e8e371a"),
    "tf2_msgs/msg/TFMessage": ("RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"),
    "rmw_dds_common/msg/ParticipantEntitiesInfo": (
        "RIHS01_91a0593bacdcc50ea9bdcf849a938b128412cc1ea821245c663bcd26f83c295e"
    ),
    "rcl_interfaces/msg/ParameterEvent": "RIHS01_043e627780fcad87a22d225bc2a037361dba713fca6a6b9f4b869a5aa0393204",
    "rcl_interfaces/srv/SetParameters_Request": (
        "RIHS01_130d46386b7e84ea9ecf60608a4d83cbe5e5cb7c6cc5b712b7a4e3a6c254e932"
    ),
    "lifecycle_msgs/srv/GetState_Request": ("RIHS01_77a9c844e7975f15bc2221e8bbebafc4d118afb78c7f7071eef91f83f940f2f6"),
    "std_srvs/srv/Trigger_Response": ("RIHS01_2d946c21e2fc3f1e9ca6986a8191d85fcc70097a8bb7771a053564bc47009cdf"),
    "spatial_mllm_ros/msg/Keyframes": ("RIHS01_0a3d82cd245f463f8e88f031a21438433437c5d9ab0fd21844fe97a13b7645ba"),
    "spatial_mllm_ros/srv/SpatialQuery_Request": (
        "RIHS01_444ffb367e0dc0adfebaa9f24055dd3f247be84063ad9efb495d138beed7be50"
    ),
    "spatial_mllm_ros/srv/SpatialQuery_Response": (
        "RIHS01_e02cacab9f7354fa08221b459365c015082fd526d5ce147f1bd6e8b0937a8ea3"
    ),
    "spatial_mllm_ros/msg/Query": "RIHS01_7658adcf06b93921eb1af1d154bb20d74a453afc8000d35747f2541689143e74",
    "spatial_mllm_ros/msg/SpatialAnswer": "RIHS01_01ac836d11cb0f9bb585de0bbe121a3b3b552252a34e09b18f01ae79da74a9fa",
    "spatial_mllm_ros/srv/SpatialQueries_Request": (
        "RIHS01_0441327e9a552bc8f8a25545e7cc153cb6e816c9ae77c347c8c706891b2832e2"
    ),
    "spatial_mllm_ros/srv/SpatialQueries_Response": (
        "RIHS01_145c217db40d2b0961ce67c064e99f90946c79a3026bdbf407f92258415c83d8"
    ),
    "spatial_mllm_ros/action/SpatialQuery_SendGoal_Request": (
        "RIHS01_cd6dc0f81938167e5d48b6b853a53e2c8d84928dead4da51380813cd28a08d28"
    ),
    "spatial_mllm_ros/action/SpatialQuery_FeedbackMessage": (
        "RIHS01_2eb9a2daa8130a64ab69e0175442f133fbdd5374c9199949655a7f4eb2e81f8f"
    ),
}
IMAGE = "sensor_msgs/msg/Image"


def image(height: int = 4, width: int = 6) -> Any:
    data = np.arange(height * width * 3, dtype=np.uint8)
    return interfaces().message(IMAGE, height=height, width=width, encoding="rgb8", step=3 * width, data=data)


@pytest.mark.parametrize("name", HASHES)
def test_hashes(name: str) -> None:
    """ROS 2 warns, and its tools refuse, when a type's hash is not that of its own definition."""
    assert interfaces().hash(name) == HASHES[name]


def test_every_type_has_a_hash() -> None:
    for name in interfaces().names():
        assert re.fullmatch("RIHS01_[0-9a-f]{64}", interfaces().hash(name)), name


def test_own_interfaces_are_found() -> None:
    root = Path(__file__).resolve().parents[1]
    known = set(interfaces().names())
    for path in [*root.glob("msg/*.msg"), *root.glob("srv/*.srv"), *root.glob("action/*.action")]:
        kind, suffix = path.parent.name, {"msg": "", "srv": "_Request", "action": "_Goal"}[path.parent.name]
        assert f"spatial_mllm_ros/{kind}/{path.stem}{suffix}" in known


def test_constants() -> None:
    assert interfaces().message_class("spatial_mllm_ros/srv/SpatialQuery_Response").BUSY == 1109


def test_messages_are_zero_where_nothing_is_said() -> None:
    info = interfaces().message("sensor_msgs/msg/CameraInfo")
    assert info.k.shape == (9,)
    assert info.k.dtype == np.float64
    assert not info.k.any()
    assert info.d.size == 0
    assert info.header.frame_id == ""
    assert info.roi.do_rectify is False


def test_every_type_goes_there_and_back() -> None:
    for name in interfaces().names():
        if "wstring" not in name.lower():
            encoded = interfaces().encode(interfaces().message(name), name)
            again = interfaces().encode(interfaces().decode(encoded, name), name)
            assert bytes(encoded) == bytes(again), name


def test_pixels_are_not_copied() -> None:
    """An image's array looks into the bytes that came from the network."""
    payload = bytes(interfaces().encode(image(), IMAGE))
    decoded = interfaces().decode(payload, IMAGE)
    assert isinstance(decoded.data, np.ndarray)
    assert np.shares_memory(decoded.data, np.frombuffer(payload, np.uint8))
    np.testing.assert_array_equal(decoded.data, image().data)


def test_unknown_types_and_fields() -> None:
    with pytest.raises(UnknownType, match="nothing/msg/Here"):
        interfaces().message("nothing/msg/Here")
    with pytest.raises(TypeError, match="no field wide"):
        interfaces().message(IMAGE, wide=3)
    with pytest.raises(ValueError, match=IMAGE):
        interfaces().encode(interfaces().message("std_msgs/msg/String"), IMAGE)
    with pytest.raises(ValueError, match="String"):
        interfaces().encode(interfaces().message("std_msgs/msg/String", data=3), "std_msgs/msg/String")


@given(st.data())
def test_damaged_payloads_are_refused_or_read_but_nothing_else(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([IMAGE, "tf2_msgs/msg/TFMessage", "rcl_interfaces/srv/SetParameters_Request"]))
    message = interfaces().message(name) if name != IMAGE else image()
    payload = bytearray(interfaces().encode(message, name))
    for _ in range(data.draw(st.integers(0, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))]) + data.draw(st.binary(max_size=9))
    with suppress(MalformedPayload):
        interfaces().decode(cut, name)


@pytest.mark.parametrize("size", [0, 3, 4, 12, 40])
def test_truncated_image(size: int) -> None:
    with pytest.raises(MalformedPayload):
        interfaces().decode(bytes(interfaces().encode(image(), IMAGE))[:size], IMAGE)


def test_oversized_image() -> None:
    with pytest.raises(MalformedPayload):
        interfaces().decode(bytes(interfaces().encode(image(), IMAGE)) + bytes(8), IMAGE)
