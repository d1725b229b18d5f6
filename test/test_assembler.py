"""Joining messages into frames: pairing, waiting, refusing, and never a pose of another moment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from spatial_mllm_ros.scene.assembler import MILLISECOND, AssemblerSettings, FrameAssembler
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import from_quaternion

SIZE = (8, 6)
CAMERA = CameraModel(8, 6, 10.0, 10.0, 3.5, 2.5)
MS = MILLISECOND
OPTICAL = "camera_optical"


def color(value: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((size[1], size[0], 3), value, np.uint8)


def depth(value: int = 1000, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((size[1], size[0]), value, np.uint16)


def shift(x: float) -> np.ndarray:
    return from_quaternion((0, 0, 0, 1), (x, 0, 0))


class Stream:
    """An assembler, the frames that it gave so far, and messages that are all alike."""

    def __init__(self, **options) -> None:
        self.assembler = FrameAssembler(**options)
        self.frames: list[Frame] = []

    def color(self, ms: float, value: int = 0, size=SIZE, frame_id=OPTICAL, camera="") -> Stream:
        stamp = round(ms * MS)
        self.frames += self.assembler.add_color(stamp, frame_id, color(value, size), size, camera)
        return self

    def depth(self, ms: float, value: int = 1000, size=SIZE, frame_id=OPTICAL, camera="") -> Stream:
        self.frames += self.assembler.add_depth(round(ms * MS), frame_id, depth(value, size), camera)
        return self

    def info(self, ms: float, model: CameraModel = CAMERA, camera="") -> Stream:
        self.frames += self.assembler.add_camera_info(round(ms * MS), model, camera)
        return self

    def depth_info(self, ms: float, model: CameraModel = CAMERA) -> Stream:
        self.frames += self.assembler.add_depth_info(round(ms * MS), model)
        return self

    def tf(self, ms: float, x: float = 0.0, parent="map", child=OPTICAL, static=False) -> Stream:
        self.frames += self.assembler.add_transform(parent, child, round(ms * MS), shift(x), static)
        return self

    def flush(self) -> list[Frame]:
        self.frames += self.assembler.flush()
        return self.frames

    @property
    def stamps_ms(self) -> list[float]:
        return [frame.stamp_ns / MS for frame in self.frames]

    @property
    def refused(self) -> dict[str, int]:
        return dict(self.assembler.refused)

    @property
    def remarks(self) -> dict[str, int]:
        return dict(self.assembler.remarks)


@settings(max_examples=60, deadline=None)
@given(st.permutations(["color", "depth", "info", "tf"]))
def test_complete_as_soon_as_the_last_part_is_there(order):
    """Topics race each other: nothing may depend on which wins, and nothing waits once all is there."""
    s = Stream()
    for i, part in enumerate(order):
        assert not s.frames
        getattr(s, part)(1000)
        assert len(s.frames) == (i == 3)
    frame = s.frames[0]
    assert frame.camera == CAMERA
    assert frame.depth is not None
    assert frame.T_world_camera is not None
    assert frame.world_frame == "map"
    assert s.refused == {}
    assert s.remarks == {}


def test_pose_is_that_of_the_image_not_the_latest():
    """A robot that turns while an image is on its way would otherwise smear the map."""
    s = Stream().info(0).tf(0, x=0.0).tf(100, x=1.0).tf(200, x=9.0)
    s.color(50).depth(50)
    assert_allclose(s.frames[0].T_world_camera[0, 3], 0.5)


def test_image_waits_for_its_transform_then_goes_without():
    s = Stream().info(0).tf(0)
    s.color(50).depth(50)
    assert not s.frames
    s.depth(250)
    assert not s.frames
    s.depth(251)
    assert s.frames[0].T_world_camera is None
    assert s.remarks == {"tf_future": 1}
    s.color(300).depth(300).tf(400)
    assert s.stamps_ms == [50, 300]
    assert s.frames[1].T_world_camera is not None


def test_late_transform_within_the_wait_is_used():
    s = Stream().info(0).tf(0, x=0.0).color(50).depth(50).depth(150).tf(100, x=2.0)
    assert_allclose(s.frames[0].T_world_camera[0, 3], 1.0)
    assert s.remarks == {}


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda s: s, "tf_unknown_frame"),
        (lambda s: s.tf(0, parent="map", child="base").tf(0, parent="odom"), "tf_not_connected"),
        (lambda s: s.tf(90).tf(110), "tf_past"),
        (lambda s: s.tf(0).tf(700), "tf_gap"),
        (lambda s: s.tf(0, parent="map").tf(60, parent="odom").tf(61, parent="map"), "tf_past"),
    ],
)
def test_frames_without_a_pose_say_why(build, reason):
    """Missing, unconnected, too late, silent and contradictory transforms: no pose, and it is counted."""
    s = build(Stream(world_frame="map").info(0))
    s.color(50).depth(50).flush()
    assert [f.T_world_camera for f in s.frames] == [None]
    assert s.remarks == {reason: 1}


def test_impossible_transforms_are_counted_not_raised():
    s = Stream().tf(0, parent="map", child="odom").tf(0, parent="odom", child="map")
    s.assembler.add_transform("map", "base", 0, np.full((4, 4), np.nan))
    assert s.refused == {"tf_loop": 1, "tf_invalid": 1}


def test_nearest_depth_within_the_tolerance():
    s = Stream().info(0).tf(0).tf(200)
    s.depth(81, 1).depth(108, 2).color(100).depth(140, 3)
    assert s.frames[0].depth[0, 0] == 2
    s.color(170).depth(195, 4).flush()
    assert s.frames[1].depth is None
    assert s.remarks == {"no_depth": 1}
    assert s.refused == {"unpaired_depth": 3}


def test_depth_nearer_to_the_next_image_is_left_to_it():
    s = Stream().info(0).tf(0).tf(100).color(10).color(30).depth(25, 7).depth(80).flush()
    assert [None if f.depth is None else int(f.depth[0, 0]) for f in s] == [None, 7]


def test_color_with_every_third_depth_keeps_all_images():
    s = Stream().info(0)
    for i in range(30):
        s.tf(i * 66).color(i * 66)
        if i % 3 == 0:
            s.depth(i * 66)
    s.flush()
    assert len(s.frames) == 30
    assert [i for i, f in enumerate(s.frames) if f.depth is not None] == list(range(0, 30, 3))
    assert s.remarks == {"no_depth": 20}


def test_a_color_only_camera_does_not_wait():
    s = Stream(color_only=[""]).info(0).tf(0).color(0)
    assert s.stamps_ms == [0]
    assert s.remarks == {}


def test_an_uncalibrated_camera_gives_frames_without_a_model():
    s = Stream(color_only=[""], uncalibrated=[""]).color(0)
    s.flush()
    assert s.frames[0].camera is None


def test_camera_info_after_the_first_image():
    """Calibration is often published once a second."""
    s = Stream().tf(0).color(0).depth(0).depth(900)
    assert not s.frames
    s.info(950)
    assert s.frames[0].camera == CAMERA


def test_no_camera_info_refuses():
    s = Stream().tf(0).color(0).depth(0).depth(1001)
    assert s.frames == []
    assert s.refused == {"no_camera_info": 1}
    s.flush()
    assert s.refused == {"no_camera_info": 1, "unpaired_depth": 2}


def test_camera_info_of_another_size_refuses():
    """A driver that publishes the full-resolution calibration beside a scaled image would shift every point."""
    s = Stream().info(0, CameraModel(16, 12, 20, 20, 8, 6)).tf(0).color(0).depth(0)
    assert s.flush() == []
    assert s.refused == {"camera_size": 1, "unpaired_depth": 1}


def test_resolution_may_change_with_its_camera_info():
    large = CameraModel(16, 12, 20, 20, 8, 6)
    s = Stream().tf(0).tf(300).info(0).color(0).depth(0)
    s.color(100, size=(16, 12)).depth(100, size=(16, 12)).info(100, large)
    s.info(200).color(200).depth(200)
    assert [f.camera for f in s.frames] == [CAMERA, large, CAMERA]
    s.color(300, size=(4, 3)).flush()
    assert s.refused == {"camera_size": 1}


def test_repeated_and_late_stamps():
    s = Stream().info(0).tf(0).tf(300)
    s.color(100, 1).color(100, 2).depth(100)
    s.color(100, 3).color(50, 4).flush()
    assert s.stamps_ms == [100]
    assert s.frames[0].rgb()[0, 0, 0] == 1
    assert s.refused == {"repeated_stamp": 2, "out_of_order": 1}


def test_out_of_order_within_the_queue_is_sorted():
    s = Stream().info(0).tf(0)
    for ms in (30, 10, 20):
        s.color(ms).depth(ms)
    s.tf(100)
    assert s.stamps_ms == [10, 20, 30]


def test_queues_are_bounded():
    s = Stream(settings=AssemblerSettings(queue_size=5, wait_ns=10**12, info_ahead_ns=10**12))
    for i in range(20):
        s.color(i).depth(i)
    s.info(0).flush()
    assert s.stamps_ms == [15, 16, 17, 18, 19]
    assert s.refused == {"queue_full": 30}


def test_a_clock_set_back_starts_over():
    """A bag played in a loop: the second round must not be refused as late, nor use the first one's transforms."""
    s = Stream().info(0)
    for start in (0, 0):
        for ms in (start, start + 3000, start + 6000, start + 9000):
            s.tf(ms).color(ms).depth(ms)
    s.flush()
    assert s.stamps_ms == [0, 3000, 6000, 9000] * 2
    assert all(f.T_world_camera is not None for f in s.frames)
    assert s.remarks["clock_reset"] == 1
    assert s.refused == {}


def test_several_cameras_keep_apart():
    front, rear = CameraModel(8, 6, 10, 10, 4, 3), CameraModel(8, 6, 20, 20, 4, 3)
    s = Stream(color_only=["rear"]).info(0, front, camera="front").info(0, rear, camera="rear")
    s.tf(0, 1, child="front").tf(0, 2, child="rear")
    s.color(0, frame_id="front", camera="front").color(0, frame_id="rear", camera="rear")
    assert [(f.camera_frame, f.camera) for f in s.frames] == [("rear", rear)]
    s.depth(0, frame_id="front", camera="front")
    assert [(f.camera_frame, f.camera) for f in s.frames] == [("rear", rear), ("front", front)]


def test_depth_of_another_camera_is_registered():
    """The depth camera sits 10 cm to the right and has half the resolution."""
    depth_camera = CameraModel(80, 60, 50.0, 50.0, 39.5, 29.5)
    camera = CameraModel(160, 120, 100.0, 100.0, 79.5, 59.5)
    s = Stream().info(0, camera).depth_info(0, depth_camera).tf(0)
    s.tf(0, 0.1, parent=OPTICAL, child="depth_optical", static=True)
    s.color(0, size=(160, 120)).depth(0, 2000, size=(80, 60), frame_id="depth_optical")
    out = s.frames[0].depth
    assert out.shape == (120, 160)
    assert (out[:, 8:] == 2000).all()  # 100 px * 0.1 m / 2 m = 5 px to the right
    assert (out[:, :3] == 0).all()


def test_the_value_for_no_return_is_left_out_before_depth_is_registered():
    """The depth camera writes 8 m where nothing came back; moved into the color camera, that would be 7.9 m, and a wall."""
    camera = CameraModel(160, 120, 100.0, 100.0, 79.5, 59.5)
    s = Stream().info(0, camera).depth_info(0, camera)
    s.frames += s.assembler.add_transform(
        OPTICAL, "depth_optical", 0, from_quaternion((0, 0, 0, 1), (0, 0, -0.1)), True
    )
    seen = np.full((120, 160), 8000, np.uint16)
    for i in range(8):  # straight ahead at a box 2 m from the start
        seen[40:80, 60:100] = 2000 - 100 * i
        s.frames += s.assembler.add_transform(
            "map", OPTICAL, 100 * i * MS, from_quaternion((0, 0, 0, 1), (0, 0, 0.4 * i))
        )
        s.color(100 * i, size=(160, 120))
        s.frames += s.assembler.add_depth(100 * i * MS, "depth_optical", seen.copy())
    assert len(s.flush()) == 8
    assert s.frames[0].depth.max() == 7900
    assert s.frames[-1].depth.max() == 1200
    assert [doubt.kind for doubt in s.assembler.doubts] == ["depth_maximum"]


@pytest.mark.parametrize("size", [(80, 60), (320, 240), (160, 119), (160, 121)])
def test_depth_of_another_size_but_the_same_view_is_resampled(size):
    """A scene point keeps its depth: the corners of both images coincide, and no depth is made up between surfaces."""
    camera = CameraModel(160, 120, 100.0, 100.0, 79.5, 59.5)
    near = np.full((size[1], size[0]), 4000, np.uint16)
    near[: size[1] // 2, : size[0] // 4] = 1000
    s = Stream().info(0, camera).tf(0).color(0, size=(160, 120))
    s.frames += s.assembler.add_depth(0, OPTICAL, near)
    out = s.frames[0].depth
    assert out.shape == (120, 160)
    assert set(np.unique(out)) == {1000, 4000}
    assert abs(int((out[:, 0] == 1000).sum()) - 60) <= 1
    assert abs(int((out[0] == 1000).sum()) - 40) <= 1
    assert s.remarks["depth_resampled"] == 1
    assert f"depth of {size[0]}x{size[1]}" in s.assembler.texts["depth_resampled"]


@pytest.mark.parametrize("size", [(128, 128), (160, 90), (8, 5)])
def test_depth_of_another_shape_says_which_sizes(size):
    s = Stream().info(0, CameraModel(160, 120, 100.0, 100.0, 79.5, 59.5)).tf(0).tf(400)
    s.color(0, size=(160, 120)).depth(0, size=size).flush()
    assert s.frames[0].depth is None
    assert s.remarks["depth_size"] == 1
    assert f"depth of {size[0]}x{size[1]}, images of 160x120" in s.assembler.texts["depth_size"]


def test_depth_that_cannot_be_registered_is_left_out():
    s = Stream().info(0).tf(0).tf(400)
    s.color(0).depth(0, frame_id="depth_optical").depth(201)
    assert s.frames[0].depth is None
    s.color(300).depth(300, size=(4, 5)).flush()
    assert s.frames[1].depth is None
    assert s.remarks == {"depth_not_registered": 1, "depth_size": 1}


def test_registration_accounts_for_the_motion_between_the_two_stamps():
    """10 ms apart at 10 m/s is 10 cm: more than the error of any depth camera."""
    camera = CameraModel(160, 120, 100.0, 100.0, 79.5, 59.5)
    s = Stream().info(0, camera).depth_info(0, camera).tf(0, 0.0, child="base").tf(100, 1.0, child="base")
    s.tf(0, 0.0, parent="base", child=OPTICAL, static=True).tf(0, 0.0, parent="base", child="depth", static=True)
    s.color(50, size=(160, 120)).depth(60, 2000, size=(160, 120), frame_id="depth").depth(90)
    assert (s.frames[0].depth[:, :4] == 0).all()
    assert (s.frames[0].depth[:, 6:] == 2000).all()


def test_frames_that_contradict_themselves_are_refused():
    s = Stream().info(0).tf(0)
    s.frames += s.assembler.add_color(0, OPTICAL, color(size=(4, 3)), SIZE)
    s.depth(0).flush()
    assert s.refused == {"image_size": 1}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_shuffled_arrival_gives_the_same_frames(data):
    """Whatever the network does within the waiting time, the same frames come out in the same order."""
    messages = []
    for i in range(6):
        messages += [(part, i * 20.0) for part in ("color", "depth", "tf")]
    s = Stream().info(0)
    for part, ms in data.draw(st.permutations(messages)):
        getattr(s, part)(ms, i) if part == "tf" else getattr(s, part)(ms)
    s.flush()
    kept = s.stamps_ms
    assert kept == sorted(kept)
    assert len(kept) + s.refused.get("out_of_order", 0) == 6
    assert all(a != b for a, b in itertools.pairwise(kept))


# ---- Frames that are not optical, cameras that do not move, other clocks


def test_a_body_frame_is_turned_into_an_optical_one():
    """Simulators stamp images with a frame whose x is forward."""
    from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL

    assert_allclose(T_BODY_OPTICAL @ (0, 0, 1, 1), (1, 0, 0, 1), atol=1e-12)
    assert_allclose(T_BODY_OPTICAL @ (1, 0, 0, 1), (0, -1, 0, 1), atol=1e-12)
    frames = []
    for image_frame in ("optical", "body"):
        assembler = FrameAssembler(
            settings=AssemblerSettings(image_frame=image_frame), color_only=[""], uncalibrated=[""]
        )
        assembler.add_transform("map", "link", 0, np.eye(4), static=True)
        frames += assembler.add_color(0, "link", np.zeros((2, 2, 3), np.uint8), (2, 2)) + assembler.flush()
    assert_allclose(frames[0].T_world_camera, np.eye(4))
    assert_allclose(frames[1].T_world_camera, T_BODY_OPTICAL)


def test_a_static_camera_needs_no_transforms():
    assembler = FrameAssembler(settings=AssemblerSettings(static=True), color_only=[""], uncalibrated=[""])
    (frame,) = assembler.add_color(7, "camera", np.zeros((2, 2, 3), np.uint8), (2, 2)) + assembler.flush()
    assert_allclose(frame.T_world_camera, np.eye(4))
    assert not assembler.remarks


def test_another_clock_is_named_as_such():
    """Images by the time of day, transforms by the time since the machine's start."""
    now = 1_700_000_000_000_000_000
    assembler = FrameAssembler(color_only=[""], uncalibrated=[""])
    assembler.add_transform("map", "camera", 40_000_000_000, np.eye(4))
    assembler.add_color(now, "camera", np.zeros((2, 2, 3), np.uint8), (2, 2))
    assembler.flush()
    assert "another clock (40.000 s, as since a machine's start; 1700000000.000 s" in assembler.texts["tf_future"]


@pytest.mark.parametrize("offset_ms", [-40, 0, 40])
def test_an_image_is_complete_with_the_transform_that_it_waited_for(offset_ms):
    """Neither before, nor only with the next image: a question about it may be waiting."""
    settings = AssemblerSettings(pose_offset_ns=offset_ms * MS)
    s = Stream(settings=settings, color_only=[""]).info(0)
    s.tf(0).tf(0, parent="map", child="arm").color(100)
    s.tf(90 + offset_ms).tf(150 + offset_ms, parent="map", child="arm")
    assert s.stamps_ms == []
    assert s.tf(101 + offset_ms).stamps_ms == [100]


def test_an_image_waits_for_whichever_transform_of_its_chain_is_behind():
    s = Stream(color_only=[""], world_frame="map").info(0)
    s.tf(0, parent="map", child="odom").tf(0, parent="odom", child=OPTICAL).color(100)
    s.tf(110, parent="odom", child=OPTICAL)
    assert s.stamps_ms == []
    assert s.tf(110, parent="map", child="odom").stamps_ms == [100]


def test_a_static_transform_that_comes_late_completes_an_image_that_waits_for_it():
    s = Stream(color_only=[""], world_frame="map").info(0)
    s.tf(0, parent="map", child="base").tf(120, parent="map", child="base").color(100)
    assert s.stamps_ms == []
    assert s.tf(0, parent="base", child=OPTICAL, static=True).stamps_ms == [100]
