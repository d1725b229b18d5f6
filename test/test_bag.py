"""rosbag2: read, written, damaged, and recorded by robots that are not like ours."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from small_recording import CAMERA, START_NS, Changed, SmallSource, assert_same_frames

from spatial_mllm_ros.scene.frame import depth_to_metres
from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.pose import from_quaternion
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.sources.bag import BagSource
from spatial_mllm_ros.sources.bag_writer import BagFormat, write_bag
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.topics import CameraTopics, is_rectified

TYPES = get_typestore(Stores.ROS2_JAZZY)
IMAGE, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
MS = 1_000_000


def new(name: str, *fields):
    return TYPES.types[name](*fields)


class Robot:
    """Records messages one by one, stamps in milliseconds."""

    def __init__(self, path: Path, storage: StoragePlugin = StoragePlugin.MCAP) -> None:
        self.path = path
        self._writer = Writer(path, version=8, storage_plugin=storage)
        self._connections: dict = {}

    def __enter__(self) -> Robot:
        self._writer.open()
        return self

    def __exit__(self, *_) -> None:
        self._writer.close()

    def header(self, ms: int, frame: str):
        return new("std_msgs/msg/Header", new("builtin_interfaces/msg/Time", ms // 1000, ms % 1000 * MS), frame)

    def raw(self, topic: str, kind: str, ms: int, data: bytes) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=TYPES)
        self._writer.write(self._connections[topic], ms * MS, data)

    def send(self, topic: str, kind: str, ms: int, message) -> None:
        self.raw(topic, kind, ms, bytes(TYPES.serialize_cdr(message, kind)))

    def image(self, ms: int, topic: str, frame: str, encoding: str, pixels: np.ndarray, *, at: int = -1) -> None:
        h, w = pixels.shape[:2]
        data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
        message = new(IMAGE, self.header(ms, frame), h, w, encoding, 0, data.size // h, data)
        self.send(topic, IMAGE, ms if at < 0 else at, message)

    def color(
        self, ms: int, topic: str = "/cam/image_raw", frame: str = "optical", value: int = 0, size=(8, 6)
    ) -> None:
        self.image(ms, topic, frame, "rgb8", np.full((size[1], size[0], 3), value, np.uint8))

    def depth(self, ms: int, topic: str = "/cam/depth/image", frame: str = "optical", size=(8, 6)) -> None:
        self.image(ms, topic, frame, "16UC1", np.full((size[1], size[0]), 2000, np.uint16))

    def info(
        self, ms: int, topic: str = "/cam/camera_info", frame: str = "optical", size=(8, 6), *, at: int = -1
    ) -> None:
        k = np.array([10.0, 0, size[0] / 2, 0, 10, size[1] / 2, 0, 0, 1])
        p = np.array([20.0, 0, size[0] / 2, 0, 0, 20, size[1] / 2, 0, 0, 0, 1, 0])
        roi = new("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        header = self.header(ms, frame)
        eye = np.eye(3).reshape(-1)
        message = new(INFO, header, size[1], size[0], "plumb_bob", np.zeros(5), k, eye, p, 0, 0, roi)
        self.send(topic, INFO, ms if at < 0 else at, message)

    def pose(
        self, ms: int, kind: str, parent: str, child: str, x: float, *, position: float = 0.0, rotation: float = 0.0
    ) -> None:
        """On /pose: Odometry, PoseStamped or PoseWithCovarianceStamped, with these standard deviations."""
        g = "geometry_msgs/msg/"
        value = new(g + "Pose", new(g + "Point", x, 0.0, 0.0), new(g + "Quaternion", 0.0, 0.0, 0.0, 1.0))
        covariance = np.diag([position**2] * 3 + [rotation**2] * 3).reshape(-1)
        header, name = self.header(ms, parent), g + kind
        if kind != "PoseStamped":
            value = new(g + "PoseWithCovariance", value, covariance)
        if kind == "Odometry":
            name, zero = "nav_msgs/msg/Odometry", new(g + "Vector3", 0.0, 0.0, 0.0)
            twist = new(g + "TwistWithCovariance", new(g + "Twist", zero, zero), np.zeros(36))
            message = new(name, header, child, value, twist)
        else:
            message = new(name, header, value)
        self.send("/pose", name, ms, message)

    def tf(
        self, ms: int, parent: str, child: str, x: float = 0.0, *, at: int = -1, static: bool = False, topic: str = ""
    ) -> None:
        g = "geometry_msgs/msg/"
        moved = new(g + "Transform", new(g + "Vector3", x, 0.0, 0.0), new(g + "Quaternion", 0.0, 0.0, 0.0, 1.0))
        message = new("tf2_msgs/msg/TFMessage", [new(g + "TransformStamped", self.header(ms, parent), child, moved)])
        topic = topic or ("/tf_static" if static else "/tf")
        self.send(topic, "tf2_msgs/msg/TFMessage", ms if at < 0 else at, message)


# ---- Written here and read back


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize(("compressed", "zstd"), [(True, False), (False, False), (False, True)])
def test_round_trip(tmp_path, storage, compressed, zstd):
    """All but JPEG's losses survive: stamps to the nanosecond, poses through base_link and the mount, distortion."""
    done: list[int] = []
    chosen = BagFormat(storage, compressed, zstd)
    assert write_bag(SmallSource(), tmp_path / "bag", chosen, progress=lambda n, of: done.append(n)) == 6
    assert done == [1, 2, 3, 4, 5, 6]
    source = open_source(str(tmp_path / "bag"))
    assert isinstance(source, BagSource)
    assert assert_same_frames(SmallSource(), source, exact_image=not compressed) == 6
    assert assert_same_frames(SmallSource(), source, exact_image=not compressed) == 6, "a second time"
    assert source.info.frames == 6
    assert source.info.world_frame == "map"
    assert source.info.sensor == SmallSource().info.sensor
    assert not source.refused
    assert not source.remarks
    assert source.stamp_of("1341841278.942700") == START_NS + 100_000_000
    for name in ("1341841278.9", "frame-000001"):
        with pytest.raises(KeyError):
            source.stamp_of(name)


def test_frames_that_lack_something(tmp_path):
    lacking = Changed({0: {"depth": None}, 1: {"T_world_camera": None}, 2: {"image": None}, 3: {"depth": None}})
    write_bag(lacking, tmp_path / "bag", BagFormat(compressed=False))
    frames = list(BagSource(tmp_path / "bag").frames())
    assert [round((f.stamp_ns - START_NS) / 1e8) for f in frames] == [0, 1, 3, 4, 5]
    assert [f.depth is None for f in frames] == [True, False, True, False, False]
    assert_allclose(frames[2].T_world_camera, list(SmallSource().frames())[3].T_world_camera, atol=1e-12)


def test_map_is_level_and_stamps_can_be_moved(tmp_path):
    T = from_quaternion((0.5, 0.5, 0.5, 0.5), (0, 0, 1))
    write_bag(SmallSource(T_zup=T), tmp_path / "bag", BagFormat(offset_ns=5))
    frame = next(iter(BagSource(tmp_path / "bag").frames()))
    original = next(iter(SmallSource().frames()))
    assert frame.stamp_ns == START_NS + 5
    assert_allclose(frame.T_world_camera, T @ original.T_world_camera, atol=1e-12)


def test_nothing_half_done_is_left(tmp_path):
    def interrupt(done: int, expected: int | None) -> None:
        raise KeyboardInterrupt

    for storage in ("mcap", "sqlite3"):
        with pytest.raises(KeyboardInterrupt):
            write_bag(SmallSource(), tmp_path / "bag", BagFormat(storage), progress=interrupt)
    for source, words in ((SmallSource(start_ns=-5), "offset_ns"), (SmallSource(0), "no frames")):
        with pytest.raises(SourceError, match=words):
            write_bag(source, tmp_path / "bag")
    with pytest.raises(SourceError, match="mcap or sqlite3"):
        write_bag(SmallSource(), tmp_path / "bag", BagFormat("rosbag1"))
    assert list(tmp_path.iterdir()) == []
    write_bag(SmallSource(3), tmp_path / "bag")
    with pytest.raises(SourceError, match="exists already"):
        write_bag(SmallSource(), tmp_path / "bag")
    write_bag(SmallSource(), tmp_path / "bag", overwrite=True)
    assert BagSource(tmp_path / "bag").info.frames == 6
    assert [p.name for p in tmp_path.iterdir()] == ["bag"]


# ---- Other robots


def test_messages_that_do_not_decode_are_counted_and_the_rest_goes_on(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "map", "optical", static=True)
        for ms in range(0, 1000, 100):
            robot.info(ms)
            robot.depth(ms)
            robot.color(ms)
        robot.raw("/cam/image_raw", IMAGE, 1000, b"\x00\x01\x00\x00nonsense")
        robot.image(1001, "/cam/image_raw", "optical", "rgb17", np.zeros((6, 8, 3), np.uint8))
        robot.image(1002, "/cam/depth/image", "optical", "16UC1", np.zeros((6, 8), np.float32))
        robot.image(1003, "/cam/depth/image", "optical", "16UC1", np.zeros((6, 4), np.uint16))
        robot.color(1003)
    source = BagSource(tmp_path / "bag")
    frames = list(source.frames())
    assert len(frames) == 11
    assert frames[-1].depth is None
    assert dict(source.refused) == {"undecodable_message": 1, "unknown_encoding": 1, "row_step": 1}
    assert dict(source.remarks) == {"depth_size": 1}


@pytest.mark.parametrize(
    ("encoding", "values"),
    [
        ("16UC1", np.uint16(2000)),
        ("mono16", np.uint16(2000)),
        ("16SC1", np.int16(2000)),
        ("32FC1", np.float32(2)),
        ("64FC1", np.float64(2)),
    ],
)
def test_depth_of_every_encoding_is_chosen_and_read(tmp_path, encoding, values):
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "map", "optical", static=True)
        for ms in range(0, 500, 100):
            robot.info(ms)
            robot.image(ms, "/cam/depth/image_raw", "optical", encoding, np.full((6, 8), values))
            robot.color(ms)
    frames = list(BagSource(tmp_path / "bag").frames())
    assert [frame.depth is not None for frame in frames] == [True] * 5
    assert np.allclose(depth_to_metres(frames[0].depth), 2.0)


@pytest.mark.parametrize(
    ("name", "d", "says"),
    [
        ("double_sphere", [0.1, 0.6], "'double_sphere' is not supported"),
        ("double_sphere", [0.0, 0.0], ""),
        ("equidistant", [0.01, 0.0, 0.0, 0.0, 0.0], ""),
        ("rational_polynomial", [0.01] * 12, ""),
        ("", [0.01] * 14, ""),
        ("plumb_bob", [np.nan] * 5, "not numbers"),
    ],
)
def test_a_distortion_is_used_or_named_with_what_to_do(tmp_path, name, d, says):
    k = np.array([10.0, 0, 4, 0, 10, 3, 0, 0, 1])
    roi = new("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "map", "optical", static=True)
        for ms in range(0, 500, 100):
            fields = (6, 8, name, np.array(d), k, np.eye(3).reshape(-1), np.zeros(12), 0, 0, roi)
            robot.send("/cam/camera_info", INFO, ms, new(INFO, robot.header(ms, "optical"), *fields))
            robot.color(ms)
    source = BagSource(tmp_path / "bag")
    assert len(list(source.frames())) == (0 if says else 5)
    assert says in source.texts.get("bad_camera_info", "")
    assert source.refused["bad_camera_info"] == (5 if says else 0)


@pytest.mark.parametrize("kind", ["16UC1; compressedDepth png", "16UC1; compressedDepth", "png", ""])
def test_compressed_depth_is_chosen_and_read_whatever_its_format_says(tmp_path, kind):
    data = bytes(12) + cv2.imencode(".png", np.full((6, 8), 2000, np.uint16))[1].tobytes()
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "map", "optical", static=True)
        for ms in range(0, 500, 100):
            robot.info(ms)
            message = new(COMPRESSED, robot.header(ms, "optical"), kind, np.frombuffer(data, np.uint8))
            robot.send("/cam/depth/image_raw/compressedDepth", COMPRESSED, ms, message)
            robot.color(ms)
    frames = list(BagSource(tmp_path / "bag").frames())
    assert [frame.depth is not None for frame in frames] == [True] * 5
    assert np.allclose(depth_to_metres(frames[0].depth), 2.0)


@pytest.mark.parametrize(
    "encoding", ["nv12", "nv21", "nv24", "bayer_grbg8", "bayer_rggb16", "bgra8", "mono8", "rgb16", "yuv422"]
)
def test_color_of_every_encoding_is_chosen_and_read(tmp_path, encoding):
    bytes_per_pixel = {"nv12": 1.5, "nv21": 1.5, "nv24": 3, "bgra8": 4, "rgb16": 6, "yuv422": 2}.get(encoding)
    if bytes_per_pixel is None:
        bytes_per_pixel = 2 if encoding.endswith("16") else 1
    data = np.full(round(48 * bytes_per_pixel), 128, np.uint8)
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "map", "optical", static=True)
        for ms in range(0, 500, 100):
            robot.info(ms)
            robot.depth(ms)
            step = 8 if encoding.startswith("nv") else data.size // 6
            message = new(IMAGE, robot.header(ms, "optical"), 6, 8, encoding, 0, step, data)
            robot.send("/cam/image_raw", IMAGE, ms, message)
    frames = list(BagSource(tmp_path / "bag").frames())
    assert [frame.image.shape for frame in frames] == [(6, 8, 3)] * 5
    assert all(frame.depth is not None for frame in frames)


def test_static_transforms_recorded_late_hold_from_the_beginning(tmp_path):
    """A bag cut out of a longer one, or a latched topic that the recorder got last."""
    with Robot(tmp_path / "bag") as robot:
        for ms in range(0, 500, 100):
            robot.tf(ms, "odom", "base", ms / 100)
            robot.info(ms)
            robot.color(ms)
        robot.tf(0, "base", "optical", 10.0, at=499, static=True)
    frames = list(BagSource(tmp_path / "bag").frames())
    assert [round(f.T_world_camera[0, 3]) for f in frames] == [10, 11, 12, 13, 14]
    assert {f.world_frame for f in frames} == {"odom"}


def test_transforms_that_are_late_missing_or_contradictory(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        robot.info(0)
        robot.tf(0, "map", "optical", 0.0)
        robot.color(50)
        robot.tf(100, "map", "optical", 1.0, at=240)  # late, but in time
        robot.color(300)
        robot.color(3400)  # by now the one at 300 has waited long enough
        robot.tf(3450, "map", "optical", 2.0)  # too late for it, and too far from the one before
        robot.tf(3500, "somewhere", "optical", 9.0)  # another parent
        robot.color(3510)
    source = BagSource(tmp_path / "bag")
    frames = list(source.frames())
    assert [f.stamp_ns // MS for f in frames] == [50, 300, 3400, 3510]
    assert_allclose(frames[0].T_world_camera[0, 3], 0.5)
    assert [f.T_world_camera is None for f in frames] == [False, True, True, True]
    assert sum(source.remarks.values()) == 3
    assert set(source.remarks) <= {"tf_future", "tf_gap", "tf_not_connected", "tf_past"}


def test_a_localiser_at_one_hertz_is_interpolated_with_a_deviation_that_grows_in_the_gap(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        robot.info(0)
        for ms in range(0, 5001, 100):
            if ms % 1000 == 0:
                robot.tf(ms, "map", "optical", 0.1 * (ms / 1000) ** 2)
            robot.color(ms)
    frames = list(BagSource(tmp_path / "bag").frames())
    assert all(f.T_world_camera is not None for f in frames)
    assert frames[20].pose_stddev is None, "at a transform's own stamp"
    deviations = [f.pose_stddev[0] for f in frames[21:26]]
    assert deviations == sorted(deviations)
    assert 0.1 / 4 < deviations[-1] < 0.2, "a chord of this parabola is 0.025 m off in its middle"
    strict = BagSource(tmp_path / "bag", InputSettings(tf_max_gap_s=0.5))
    assert sum(f.T_world_camera is None for f in strict.frames()) == 45


def test_repeated_and_backward_stamps(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "map", "optical", static=True)
        robot.info(0)
        for ms, at in ((100, 100), (100, 110), (200, 200), (150, 210), (300, 300)):
            robot.image(ms, "/cam/image_raw", "optical", "rgb8", np.zeros((6, 8, 3), np.uint8), at=at)
    source = BagSource(tmp_path / "bag")
    assert [f.stamp_ns // MS for f in source.frames()] == [100, 200, 300]
    assert dict(source.refused) == {"repeated_stamp": 1, "out_of_order": 1}


def test_no_calibration_no_transforms(tmp_path):
    """A webcam: images are all there is, and a model can still answer about them."""
    with Robot(tmp_path / "bag") as robot:
        for ms in range(0, 500, 100):
            robot.color(ms)
    source = BagSource(tmp_path / "bag")
    frames = list(source.frames())
    assert len(frames) == 5
    assert frames[0].camera is None
    assert dict(source.remarks) == {"tf_unknown_frame": 5}


def test_a_robot_without_a_localiser_gives_no_poses(tmp_path):
    """Its base_link is not the world."""
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "base_link", "optical", static=True)
        for ms in range(0, 300, 100):
            robot.info(ms)
            robot.color(ms)
    source = BagSource(tmp_path / "bag")
    assert all(f.T_world_camera is None for f in source.frames())
    assert dict(source.remarks) == {"tf_unknown_frame": 3}
    asked = BagSource(tmp_path / "bag", InputSettings(world_frame="base_link"))
    assert all(f.T_world_camera is not None for f in asked.frames())


def test_depth_of_another_camera_is_registered(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "map", "optical", static=True)
        robot.tf(0, "optical", "depth_optical", 0.2, static=True)
        for ms in range(0, 300, 100):
            robot.info(ms, "/cam/color/camera_info", size=(16, 12))
            robot.info(ms, "/cam/depth/camera_info", "depth_optical")
            robot.depth(ms, "/cam/depth/image_rect", "depth_optical")
            robot.color(ms, "/cam/color/image_raw", size=(16, 12))
    source = BagSource(tmp_path / "bag")
    assert source.cameras == [
        CameraTopics(
            "/cam/color/image_raw", "/cam/color/camera_info", "/cam/depth/image_rect", "/cam/depth/camera_info"
        )
    ]
    frames = list(source.frames())
    assert len(frames) == 3
    assert frames[0].depth.shape == (12, 16)
    assert (frames[0].depth == 2000).sum() == 12  # its 8 x 6 px at fx 20 are 4 x 3 at fx 10
    assert not source.refused
    assert not source.remarks
    assert all(f.depth is None for f in BagSource(tmp_path / "bag", InputSettings(depth_topic="none")).frames())


def test_rectified_images_use_the_projection_matrix(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        robot.info(0)
        robot.color(0, "/cam/image_rect_color")
    assert next(iter(BagSource(tmp_path / "bag").frames())).camera.fx == 20
    assert is_rectified("/cam/image_rect")
    assert not is_rectified("/rectory/image_raw")


def test_topics_can_be_chosen(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        for name in ("front", "rear"):
            robot.tf(0, "map" if name == "front" else "odom", name, static=True)
            for ms in range(0, 300, 100):
                robot.info(ms, f"/{name}/camera_info", name)
                robot.color(ms, f"/{name}/image_raw", name)
    bag = tmp_path / "bag"
    assert {f.camera_frame for f in BagSource(bag).frames()} == {"front"}
    assert {f.camera_frame for f in BagSource(bag, InputSettings(color_topic="/rear/image_raw")).frames()} == {"rear"}
    everything = BagSource(bag, all_cameras=True)
    assert sorted(f.camera_frame for f in everything.frames()) == ["front"] * 3 + ["rear"] * 3
    assert everything.info.frames == 6
    source = BagSource(bag, InputSettings(world_frame="/odom"))
    assert all(f.T_world_camera is None for f in source.frames())
    assert dict(source.remarks) == {"tf_not_connected": 3}
    with pytest.raises(SourceError, match="/front/image_raw, /rear/image_raw"):
        BagSource(bag, InputSettings(color_topic="/left/image_raw"))


def test_a_bag_without_images(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "map", "base")
        robot.depth(0)
    with pytest.raises(SourceError, match=r"no color images.*/cam/depth/image"):
        BagSource(tmp_path / "bag")
    with Robot(tmp_path / "empty"):
        pass
    with pytest.raises(SourceError, match="no color images"):
        BagSource(tmp_path / "empty")


def test_a_custom_type_in_the_bag_is_no_obstacle(tmp_path):
    """Robots record types of their own, whose definitions nobody here can parse."""
    with Robot(tmp_path / "bag") as robot:
        robot.info(0)
        robot.color(0)
        connection = robot._writer.add_connection(
            "/secret", "acme_msgs/msg/Secret", msgdef="this is { no definition", rihs01="RIHS01_" + "0" * 64
        )
        robot._writer.write(connection, 0, b"\x00\x01\x00\x00?")
    assert len(list(BagSource(tmp_path / "bag").frames())) == 1


# ---- Several robots, other poses, other depth


def test_transforms_of_several_robots_are_kept_apart(tmp_path):
    """Both have a base_link below map; the camera's robot is the one in whose namespace it publishes."""
    with Robot(tmp_path / "bag") as robot:
        for ms in range(0, 1000, 100):
            for name, x in (("robot1", 1.0), ("robot2", 5.0)):
                robot.tf(ms, "map", "base_link", x + ms / 1000, topic=f"/{name}/tf")
                robot.tf(ms, "base_link", "optical", 0.1, static=True, topic=f"/{name}/tf_static")
                robot.info(ms, f"/{name}/cam/camera_info")
                robot.color(ms, f"/{name}/cam/image_raw")
    bag = tmp_path / "bag"
    for settings, x in (
        (InputSettings(), 1.1),
        (InputSettings(color_topic="/robot2/cam/image_raw"), 5.1),
        (InputSettings(tf_namespace="robot2"), 5.1),
        (InputSettings(tf_namespace="/robot2/"), 5.1),
    ):
        source = BagSource(bag, settings)
        assert_allclose([f.T_world_camera[0, 3] for f in source.frames()], np.arange(x, x + 0.95, 0.1))
        assert not source.doubts
        assert any(line.startswith("not read: ") and "other robots" in line for line in source.info.chosen)
    nobody = BagSource(bag, InputSettings(tf_namespace="/"))
    assert all(f.T_world_camera is None for f in nobody.frames())
    assert nobody.doubts[0].kind == "tf_namespace"


def test_two_publishers_of_one_transform_are_doubted(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        for ms in range(0, 2000, 100):
            robot.tf(ms, "map", "optical", ms / 1000)
            robot.tf(ms + 40, "map", "optical", ms / 1000 + 3)
            robot.tf(ms, "base", "wheel", ms % 200)  # a wheel, of which the camera does not hang
            robot.info(ms)
            robot.color(ms)
    source = BagSource(tmp_path / "bag")
    list(source.frames())
    (doubt,) = source.doubts
    assert doubt.kind == "tf_publishers"
    assert "map -> optical leaps to and fro by 3.00 m" in doubt.text
    assert doubt.confidence < 1


@pytest.mark.parametrize("kind", ["Odometry", "PoseStamped", "PoseWithCovarianceStamped"])
def test_poses_of_a_topic_instead_of_tf(tmp_path, kind):
    """The robot's pose, the camera's place on it from tf_static, its covariance on the frame."""
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "base_link", "optical", 0.5, static=True)
        for ms in range(0, 1000, 100):
            robot.tf(ms, "odom", "base_link", -9.0)  # what the topic is to replace
            robot.pose(ms, kind, "world", "base_link", ms / 1000, position=0.04, rotation=0.1)
            robot.info(ms)
            robot.color(ms)
    source = BagSource(tmp_path / "bag", InputSettings(pose_topic="/pose"))
    frames = list(source.frames())
    assert_allclose([f.T_world_camera[0, 3] for f in frames], np.arange(0.5, 1.45, 0.1))
    assert {f.world_frame for f in frames} == {source.info.world_frame} == {"world"}
    covered = kind != "PoseStamped"
    assert [f.pose_stddev is not None for f in frames] == [covered] * 10
    if covered:
        assert_allclose(frames[3].pose_stddev, (np.hypot(0.04, 0.05), 0.1))
    told = next(line for line in source.info.chosen if line.startswith("poses: "))
    assert "/pose" in told
    assert ("child_frame_id" if kind == "Odometry" else "assumed") in told
    with pytest.raises(SourceError, match="no poses on /nowhere; topics of poses: /pose"):
        BagSource(tmp_path / "bag", InputSettings(pose_topic="/nowhere"))


def test_a_tracker_that_tells_the_camera_s_own_pose(tmp_path):
    """Without any TF, and as the pose of a body frame."""
    with Robot(tmp_path / "bag") as robot:
        for ms in range(0, 500, 100):
            robot.pose(ms, "PoseStamped", "world", "", ms / 1000)
            robot.info(ms)
            robot.color(ms)
    source = BagSource(tmp_path / "bag", InputSettings(pose_topic="/pose", image_frame="body"))
    frames = list(source.frames())
    assert_allclose([f.T_world_camera[0, 3] for f in frames], np.arange(0, 0.45, 0.1))
    assert_allclose(frames[0].T_world_camera[:3, 2], (1, 0, 0), atol=1e-12)
    assert any("nothing tells of another one" in line for line in source.info.chosen)


def test_covariances_of_publishers_that_do_not_know(tmp_path):
    """Zeros, minus one and a million mean nothing."""
    with Robot(tmp_path / "bag") as robot:
        for ms, position in ((0, 0.0), (100, 1000.0)):
            robot.pose(ms, "PoseWithCovarianceStamped", "map", "", 0.0, position=position)
            robot.info(ms)
            robot.color(ms)
    frames = list(BagSource(tmp_path / "bag", InputSettings(pose_topic="/pose")).frames())
    assert [f.pose_stddev for f in frames] == [None, None]


def test_a_camera_alone_is_read_without_poses_and_that_is_said(tmp_path):
    """One RGB-D camera and no robot, the commonest first try: color and depth come."""
    with Robot(tmp_path / "bag") as robot:
        for ms in range(0, 500, 100):
            robot.info(ms)
            robot.depth(ms)
            robot.color(ms)
    source = BagSource(tmp_path / "bag")
    frames = list(source.frames())
    assert [f.depth is not None for f in frames] == [True] * 5
    assert dict(source.remarks) == {"tf_unknown_frame": 5}
    assert "known frames: none" in source.texts["tf_unknown_frame"]
    assert any("frames come without pose" in line for line in source.info.chosen)
    standing = BagSource(tmp_path / "bag", InputSettings(static=True))
    assert all(np.array_equal(f.T_world_camera, np.eye(4)) for f in standing.frames())
    assert not standing.remarks


def test_units_and_invalid_values_of_depth_can_be_set(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        robot.tf(0, "map", "optical", static=True)
        robot.info(0)
        values = np.array([[0, 1, 9999], [20000, 40000, 65535]], np.uint16).repeat(4, 0)[:6].repeat(3, 1)[:, :8]
        robot.image(0, "/cam/depth/image", "optical", "16UC1", values)
        robot.color(0)
    (frame,) = BagSource(tmp_path / "bag").frames()
    assert frame.depth.dtype == np.uint16
    assert set(np.unique(frame.depth)) == {0, 1, 9999, 20000, 40000}, "65535 means no data"
    settings = InputSettings(depth_unit_m=0.0001, invalid_depth=(9999,), max_depth_m=5.0, min_depth_m=0.01)
    source = BagSource(tmp_path / "bag", settings)
    (frame,) = source.frames()
    assert_allclose(np.unique(np.nan_to_num(frame.depth_m(slice(None), slice(None)))), (0, 2, 4))
    assert any("0.0001 m a count" in line for line in source.info.chosen)


def test_what_is_read_and_what_is_not_is_told(tmp_path):
    """A ZED's layout: the confidence beside the depth is never taken for it, and both are said."""
    z = "/zed/zed_node/"
    with Robot(tmp_path / "bag") as robot:
        for ms in range(0, 1000, 100):
            robot.tf(ms, "map", "left", ms / 1000)
            robot.info(ms, z + "rgb/camera_info", "left")
            robot.info(ms, z + "depth/camera_info", "left")
            robot.image(ms, z + "confidence/confidence_map", "left", "32FC1", np.full((6, 8), 80, np.float32))
            robot.image(ms, z + "depth/depth_registered", "left", "32FC1", np.full((6, 8), 2, np.float32))
            robot.color(ms, z + "rgb/image_rect_color", "left")
            robot.color(ms, z + "right/image_rect_color", "right")
    source = BagSource(tmp_path / "bag")
    assert all(np.all(f.depth == 2) for f in source.frames())
    assert source.info.chosen == (
        f"color: {z}rgb/image_rect_color (rgb8, 8x6, 11.1 Hz, frame left); CameraInfo: {z}rgb/camera_info",
        f"depth: {z}depth/depth_registered (32FC1, 8x6, 11.1 Hz, frame left), 1 m a count, in the color camera's frame",
        f"not depth: {z}confidence/confidence_map (32FC1): its name says 'confiden'",
        "poses: TF of /tf; fixed frame: map",
    )


@pytest.mark.parametrize(
    ("lacking", "reason", "words"),
    [
        ("clock", "tf_future", "another clock"),
        ("frame", "tf_unknown_frame", "frame 'optical' is in no transform"),
        ("pairs", "no_depth", "the nearest depth image is 0.050 s"),
        ("info clock", "info_clock", "another clock"),
    ],
)
def test_why_frames_lack_something_is_kept_in_figures(tmp_path, lacking, reason, words):
    with Robot(tmp_path / "bag") as robot:
        for ms in range(1_700_000_000_000, 1_700_000_003_000, 100):
            robot.tf(
                ms % 10**8 if lacking == "clock" else ms, "map", "link" if lacking == "frame" else "optical", at=ms
            )
            robot.info(ms + 10**8 if lacking == "info clock" else ms, at=ms)
            robot.depth(ms + 50 if lacking == "pairs" else ms)
            robot.color(ms)
    source = BagSource(tmp_path / "bag")
    frames = list(source.frames())
    assert len(frames) == 30
    assert source.remarks[reason] >= 25
    assert words in source.texts[reason]


def test_images_from_before_the_first_camera_info_take_it_and_that_is_told(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        for ms in range(1000, 6000, 100):
            robot.tf(ms, "map", "optical")
            robot.color(ms)
            robot.depth(ms)
            if ms >= 4000:
                robot.info(ms)
    source = BagSource(tmp_path / "bag")
    assert len([f for f in source.frames() if f.camera is not None]) == 50
    assert not source.refused
    assert "whose first message comes 3.0 s later and is taken for the images before" in source.info.chosen[0]


def test_odometry_tells_poses_where_tf_places_the_camera_nowhere(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        robot.tf(1000, "base_link", "optical", 0.2, static=True)
        for ms in range(1000, 3000, 100):
            robot.pose(ms, "Odometry", "odom", "base_link", ms / 1000)
            robot.info(ms)
            robot.color(ms)
            robot.depth(ms)
    source = BagSource(tmp_path / "bag")
    positions = [f.T_world_camera[0, 3] for f in source.frames()]
    assert_allclose(positions, np.arange(1.0, 3.0, 0.1) + 0.2)
    assert "as TF places the camera nowhere" in " ".join(source.info.chosen)


def test_a_pose_topic_that_could_tell_poses_is_named(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        for ms in range(1000, 2000, 100):
            robot.pose(ms, "PoseStamped", "map", "", 0.0)
            robot.info(ms)
            robot.color(ms)
    assert "pose_topic could be /pose" in " ".join(BagSource(tmp_path / "bag").info.chosen)


# ---- Recordings of real sensors


@pytest.mark.parametrize(
    ("bag", "folder", "expected"),
    [
        ("kitchen_15hz_converted", "rgbd_room", (90, 30, 1_700_000_000_000_000_000, 45)),
        ("cabinet_keyframes_converted", "rgbd_object", (58, 58, 0, 58)),
    ],
)
def test_real_bags_equal_the_folders_they_come_from(shared, bag, folder, expected):
    """The same image bytes, depth and poses, whichever way they were stored."""
    count, with_depth, offset_ns, common = expected
    source = open_source(str(shared / "data" / "bags" / bag))
    frames = list(source.frames())
    assert len(frames) == source.info.frames == count
    assert sum(f.depth is not None for f in frames) == with_depth
    assert all(f.T_world_camera is not None for f in frames)
    assert not source.refused
    assert dict(source.remarks) == ({"no_depth": count - with_depth} if count != with_depth else {})
    # The kitchen's folder has its stamps rounded to microseconds.
    by_stamp = {round((f.stamp_ns - offset_ns) / 1e4): f for f in frames}
    same = 0
    for original in open_source(str(shared / "data" / folder)).frames():
        frame = by_stamp.get(round(original.stamp_ns / 1e4))
        if frame is not None:
            same += 1
            assert frame.image.data == original.image.data
            assert frame.camera == original.camera
            assert np.abs(frame.T_world_camera - original.T_world_camera).max() < 1e-9
            assert frame.depth is None or (frame.depth == original.depth).all()
    assert same == common


def test_a_jpeg_goes_into_the_bag_as_it_is(tmp_path):
    from spatial_mllm_ros.sources.compressed import encoded_image

    data = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    write_bag(Changed({0: {"image": encoded_image(data)[0]}}), tmp_path / "bag")
    frame = next(iter(BagSource(tmp_path / "bag").frames()))
    assert frame.image.data == data
    assert frame.camera == CAMERA


def test_where_the_robots_base_is_is_answered_of_a_bag_with_its_transforms(tmp_path):
    """At any time of the recording, also at its beginning, when transforms of a live robot would be long forgotten."""
    from spatial_mllm_ros.queries.asks import Locate
    from spatial_mllm_ros.queries.codes import ErrorCode
    from spatial_mllm_ros.queries.moments import Ago, Start
    from spatial_mllm_ros.queries.operands import Robot as Base
    from spatial_mllm_ros.queries.query import Query
    from spatial_mllm_ros.session.questions import Question, ask
    from spatial_mllm_ros.session.stream import Session

    begin = 1_700_000_000_000
    with Robot(tmp_path / "bag") as robot:
        robot.tf(begin, "base_link", "optical", 0.25, static=True)
        for ms in range(begin, begin + 60_000, 400):
            robot.tf(ms, "map", "base_link", (ms - begin) / 10_000)
            robot.info(ms)
            robot.depth(ms)
            robot.color(ms)
    session = Session(BagSource(tmp_path / "bag"))
    session.stream()
    for base, x in ((Base(at=Start()), 0.0), (Base(at=Ago(seconds=10)), 4.96)):
        answer = ask(session, Question("Q1", "", query=Query(ask=Locate(of=base)))).answer
        assert answer.error_code == ErrorCode.NONE, answer.error_msg
        assert abs(answer.pose.position[0] - x) < 0.05, answer
