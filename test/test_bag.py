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

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.pose import from_quaternion
from spatial_mllm_ros.sources.bag import BagSource
from spatial_mllm_ros.sources.bag_writer import BagFormat, write_bag
from spatial_mllm_ros.sources.open_source import open_source
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.topics import CameraTopics, is_rectified

TYPES = get_typestore(Stores.ROS2_JAZZY)
IMAGE, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
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

    def colour(
        self, ms: int, topic: str = "/cam/image_raw", frame: str = "optical", value: int = 0, size=(8, 6)
    ) -> None:
        self.image(ms, topic, frame, "rgb8", np.full((size[1], size[0], 3), value, np.uint8))

    def depth(self, ms: int, topic: str = "/cam/depth/image", frame: str = "optical", size=(8, 6)) -> None:
        self.image(ms, topic, frame, "16UC1", np.full((size[1], size[0]), 2000, np.uint16))

    def info(self, ms: int, topic: str = "/cam/camera_info", frame: str = "optical", size=(8, 6)) -> None:
        k = np.array([10.0, 0, size[0] / 2, 0, 10, size[1] / 2, 0, 0, 1])
        p = np.array([20.0, 0, size[0] / 2, 0, 0, 20, size[1] / 2, 0, 0, 0, 1, 0])
        roi = new("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        header = self.header(ms, frame)
        eye = np.eye(3).reshape(-1)
        self.send(topic, INFO, ms, new(INFO, header, size[1], size[0], "plumb_bob", np.zeros(5), k, eye, p, 0, 0, roi))

    def tf(self, ms: int, parent: str, child: str, x: float = 0.0, *, at: int = -1, static: bool = False) -> None:
        g = "geometry_msgs/msg/"
        moved = new(g + "Transform", new(g + "Vector3", x, 0.0, 0.0), new(g + "Quaternion", 0.0, 0.0, 0.0, 1.0))
        message = new("tf2_msgs/msg/TFMessage", [new(g + "TransformStamped", self.header(ms, parent), child, moved)])
        topic = "/tf_static" if static else "/tf"
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
            robot.colour(ms)
        robot.raw("/cam/image_raw", IMAGE, 1000, b"\x00\x01\x00\x00nonsense")
        robot.image(1001, "/cam/image_raw", "optical", "rgb17", np.zeros((6, 8, 3), np.uint8))
        robot.image(1002, "/cam/depth/image", "optical", "16UC1", np.zeros((6, 8), np.float32))
        robot.image(1003, "/cam/depth/image", "optical", "16UC1", np.zeros((6, 4), np.uint16))
        robot.colour(1003)
    source = BagSource(tmp_path / "bag")
    frames = list(source.frames())
    assert len(frames) == 11
    assert frames[-1].depth is None
    assert dict(source.refused) == {"undecodable_message": 1, "unknown_encoding": 1, "row_step": 1}
    assert dict(source.remarks) == {"depth_size": 1}


def test_static_transforms_recorded_late_hold_from_the_beginning(tmp_path):
    """A bag cut out of a longer one, or a latched topic that the recorder got last."""
    with Robot(tmp_path / "bag") as robot:
        for ms in range(0, 500, 100):
            robot.tf(ms, "odom", "base", ms / 100)
            robot.info(ms)
            robot.colour(ms)
        robot.tf(0, "base", "optical", 10.0, at=499, static=True)
    frames = list(BagSource(tmp_path / "bag").frames())
    assert [round(f.T_world_camera[0, 3]) for f in frames] == [10, 11, 12, 13, 14]
    assert {f.world_frame for f in frames} == {"odom"}


def test_transforms_that_are_late_missing_or_contradictory(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        robot.info(0)
        robot.tf(0, "map", "optical", 0.0)
        robot.colour(50)
        robot.tf(100, "map", "optical", 1.0, at=240)  # late, but in time
        robot.colour(300)
        robot.colour(3400)  # by now the one at 300 has waited long enough
        robot.tf(3450, "map", "optical", 2.0)  # too late for it, and too far from the one before
        robot.tf(3500, "somewhere", "optical", 9.0)  # another parent
        robot.colour(3510)
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
            robot.colour(ms)
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
            robot.colour(ms)
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
            robot.colour(ms)
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
            robot.colour(ms, "/cam/color/image_raw", size=(16, 12))
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
        robot.colour(0, "/cam/image_rect_color")
    assert next(iter(BagSource(tmp_path / "bag").frames())).camera.fx == 20
    assert is_rectified("/cam/image_rect")
    assert not is_rectified("/rectory/image_raw")


def test_topics_can_be_chosen(tmp_path):
    with Robot(tmp_path / "bag") as robot:
        for name in ("front", "rear"):
            robot.tf(0, "map" if name == "front" else "odom", name, static=True)
            for ms in range(0, 300, 100):
                robot.info(ms, f"/{name}/camera_info", name)
                robot.colour(ms, f"/{name}/image_raw", name)
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
    with pytest.raises(SourceError, match=r"no colour images.*/cam/depth/image"):
        BagSource(tmp_path / "bag")
    with Robot(tmp_path / "empty"):
        pass
    with pytest.raises(SourceError, match="no colour images"):
        BagSource(tmp_path / "empty")


def test_a_custom_type_in_the_bag_is_no_obstacle(tmp_path):
    """Robots record types of their own, whose definitions nobody here can parse."""
    with Robot(tmp_path / "bag") as robot:
        robot.info(0)
        robot.colour(0)
        connection = robot._writer.add_connection(
            "/secret", "acme_msgs/msg/Secret", msgdef="this is { no definition", rihs01="RIHS01_" + "0" * 64
        )
        robot._writer.write(connection, 0, b"\x00\x01\x00\x00?")
    assert len(list(BagSource(tmp_path / "bag").frames())) == 1


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
