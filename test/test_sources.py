"""Recordings that are read and written: folders, TUM sequences, videos, images, and finding out which it is."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from small_recording import START_NS, Changed, SmallSource, assert_same_frames

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.pose import from_quaternion, to_quaternion
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.sources.layouts.tum import CAMERAS
from spatial_mllm_ros.sources.pacing import paced
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import ns_to_seconds, seconds_to_ns
from spatial_mllm_ros.sources.video import VideoSource
from spatial_mllm_ros.sources.writers import write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small RGB-D folder, lossless."""
    write_folder(SmallSource(), tmp_path / "recording", png=True)
    return tmp_path / "recording"


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_stamps_survive_as_text(stamp_ns):
    """A float holds an epoch stamp to 200 ns only."""
    assert seconds_to_ns(ns_to_seconds(stamp_ns)) == stamp_ns


# ---- RGB-D folders


def test_folder_round_trip(folder):
    """Stamps to the nanosecond, poses, depth, color, camera with distortion, and the sensor model."""
    source = open_source(str(folder))
    assert assert_same_frames(SmallSource(), source) == 6
    assert source.info.sensor == SmallSource().info.sensor
    assert source.info.frames == 6
    assert source.stamp_of("frame-000002") == START_NS + 200_000_000
    with pytest.raises(KeyError, match="frame-000000"):
        source.stamp_of("frame-999999")
    assert not source.refused
    assert not source.remarks


def test_jpeg_stays_as_it_is_and_names_are_kept(folder, tmp_path):
    jpeg = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    for path in folder.glob("*.color.png"):
        path.with_name(path.name.replace(".png", ".jpg")).write_bytes(jpeg)
        path.unlink()
    for path in sorted(folder.glob("frame-000000.*")):
        path.rename(path.with_name(path.name.replace("000000", "000100")))
    table = folder / "frames.csv"
    table.write_text(table.read_text().replace("frame-000000", "frame-000100"))
    write_folder(open_source(str(folder)), tmp_path / "copy")
    assert (tmp_path / "copy" / "frame-000100.color.jpg").read_bytes() == jpeg
    assert open_source(str(tmp_path / "copy")).stamp_of("frame-000100") == START_NS


def test_folder_without_times_counts_the_numbers_in_the_names(folder):
    (folder / "frames.csv").unlink()
    assert [f.stamp_ns for f in open_source(str(folder)).frames()][:4] == [0, 33_333_333, 66_666_666, 100_000_000]


def test_folder_without_poses_depth_or_calibration(folder):
    for pattern in ("*.pose.txt", "*.depth.png", "camera.yaml", "intrinsics.txt", "sensor.yaml"):
        for path in folder.glob(pattern):
            path.unlink()
    frames = list(open_source(str(folder)).frames())
    assert len(frames) == 6
    assert all(f.T_world_camera is None and f.depth is None and f.camera is None for f in frames)


def test_damaged_files_in_a_folder_cost_only_themselves(folder):
    for name, keep in (
        ("frame-000000.color.png", 500),
        ("frame-000001.depth.png", 300),
        ("frame-000002.pose.txt", 50),
    ):
        (folder / name).write_bytes((folder / name).read_bytes()[:keep])
    (folder / "frame-000003.depth.png").write_bytes(cv2.imencode(".png", np.zeros((5, 5), np.uint16))[1].tobytes())
    (folder / "frame-000004.pose.txt").write_text("inf " * 16)
    (folder / "frame-000005.color.png").write_bytes(cv2.imencode(".png", np.zeros((5, 5, 3), np.uint8))[1].tobytes())
    source = open_source(str(folder))
    for _ in range(2):  # the counts are those of the latest reading
        frames = list(source.frames())
        assert [round((f.stamp_ns - START_NS) / 1e8) for f in frames] == [1, 2, 3, 4]
        assert [f.depth is None for f in frames] == [True, False, True, False]
        assert [f.T_world_camera is None for f in frames] == [False, True, False, True]
        assert dict(source.refused) == {"truncated_png": 1, "image_size": 1}
        assert dict(source.remarks) == {"damaged_depth": 1, "depth_size": 1, "invalid_pose": 1, "lost_pose": 1}


def test_table_and_files_that_disagree(folder):
    table = folder / "frames.csv"
    rows = table.read_text().splitlines()
    rows[2] = rows[2].replace("frame-000001", "frame-000077")
    rows[4] = f"frame-000003,{rows[3].split(',', 1)[1]}"
    table.write_text("\n".join(rows))
    source = open_source(str(folder))
    assert len(list(source.frames())) == 4
    assert dict(source.refused) == {"missing_file": 1, "not_in_frames_csv": 1, "repeated_stamp": 1}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("frames.csv", "frame,time\nx,1", "column 'name'"),
        ("frames.csv", "name,timestamp_s\nframe-000000,soon", "not a time"),
        ("frames.csv", "name,time,stamp\nframe-000000,1,1", "which of the columns time, stamp"),
        ("frames.csv", "name,time\nframe-000000,", "row frame-000000: has no time"),
        ("frames.csv", "name,timestamp_s\nother,1", "none of the images"),
        ("sensor.yaml", "depth_base_mm: 3", "may hold only"),
        ("sensor.yaml", "depth_base_m: -3", "negative"),
        ("sensor.yaml", "depth_base_m: [", "sensor.yaml"),
        ("T_zup_from_world.txt", "1 0 0", "4x4"),
        ("camera.yaml", "nothing: here", "camera_matrix"),
        ("camera.yaml", "image_width: 64\nimage_height: 48\ncamera_matrix: {data: [9,0,1,0,9,1,0,0,1]}", "32x24"),
    ],
)
def test_folder_files_that_are_wrong_are_named(folder, name, text, words):
    (folder / name).write_text(text)
    with pytest.raises(SourceError, match=words) as error:
        list(open_source(str(folder)).frames())
    assert name in str(error.value)


# ---- Writing


def test_float_depth_is_written_as_millimetres(tmp_path):
    depth = np.full((24, 32), 1.2346, np.float32)
    depth[0, :4] = (np.nan, 0, np.inf, -1)
    written = write_folder(Changed({0: {"depth": depth}}), tmp_path / "out")
    out = next(iter(open_source(str(tmp_path / "out")).frames())).depth
    assert out[0, :5].tolist() == [0, 0, 0, 0, 1235]
    assert written.notes == ("depth was rounded by up to 0.40 mm to what 16 bits count",)


def test_depth_beyond_what_millimetres_can_count_gets_a_coarser_unit(tmp_path):
    depth = np.full((24, 32), 1.25, np.float32)
    depth[0, 0] = 99.0
    written = write_folder(Changed({2: {"depth": depth}}), tmp_path / "out")
    frames = list(open_source(str(tmp_path / "out")).frames())
    assert_allclose(frames[2].depth, depth, atol=0.001)
    assert_allclose(
        depth_to_metres(frames[0].depth), depth_to_metres(next(iter(SmallSource().frames())).depth), atol=0.0011
    )
    assert "recording.yaml" in written.notes[0]


def test_a_camera_whose_calibration_changes_keeps_each(tmp_path):
    other = CameraModel(32, 24, 99.0, 99.0, 15.5, 11.5)
    original = Changed({3: {"camera": other}})
    written = write_folder(original, tmp_path / "out", png=True)
    assert "2 of them" in written.notes[0]
    assert_same_frames(original, open_source(str(tmp_path / "out")))


def test_world_is_levelled_where_the_recording_knows_how(tmp_path):
    T = from_quaternion((0.5, 0.5, 0.5, 0.5), (0, 0, 1))
    write_folder(SmallSource(T_zup=T), tmp_path / "out")
    assert_allclose(open_source(str(tmp_path / "out")).info.T_zup_from_world, T, atol=1e-12)


def test_nothing_half_done_is_left(tmp_path):
    """Not when the source breaks, not when the person does."""

    def interrupt(done: int, expected: int | None) -> None:
        assert expected == 6
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(SmallSource(), tmp_path / "out", progress=interrupt)
    with pytest.raises(SourceError, match="two cameras"):
        write_folder(Changed({3: {"camera_frame": "another"}}), tmp_path / "out")
    with pytest.raises(SourceError, match="no frames"):
        write_folder(SmallSource(0), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_existing_targets(folder, tmp_path):
    with pytest.raises(SourceError, match="exists already"):
        write_folder(SmallSource(), folder)
    write_folder(SmallSource(2), folder, overwrite=True)
    assert open_source(str(folder)).info.frames == 2
    with pytest.raises(KeyboardInterrupt):
        write_folder(SmallSource(3), folder, overwrite=True, progress=_interrupt)
    assert open_source(str(folder)).info.frames == 2
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(SourceError, match="not a recording"):
        write_folder(SmallSource(), home, overwrite=True)
    assert (home / "thesis.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "recording"]


def _interrupt(done: int, expected: int | None) -> None:
    raise KeyboardInterrupt


def test_images_with_a_decoder_of_their_own_are_encoded_anew(tmp_path):
    image = EncodedImage(b"private format", lambda data: np.full((24, 32, 3), 200, np.uint8))
    write_folder(Changed({0: {"image": image}}), tmp_path / "out")
    assert abs(int(next(iter(open_source(str(tmp_path / "out")).frames())).rgb()[5, 5, 1]) - 200) < 3


# ---- TUM


@pytest.fixture
def tum(tmp_path: Path) -> Path:
    """Five images at 30 Hz, depth 8 ms later, motion capture at 100 Hz, as in freiburg3."""
    path = tmp_path / "rgbd_dataset_freiburg3_small"
    (path / "rgb").mkdir(parents=True)
    (path / "depth").mkdir()
    rgb, depth = ["# color images"], ["# depth maps"]
    for i in range(5):
        stamp = f"{1341841278 + i / 30:.6f}"
        later = f"{1341841278 + i / 30 + 0.008:.6f}"
        cv2.imwrite(str(path / "rgb" / f"{stamp}.png"), np.full((480, 640, 3), i, np.uint8))
        cv2.imwrite(str(path / "depth" / f"{later}.png"), np.full((480, 640), 5000 + 5 * i, np.uint16))
        rgb.append(f"{stamp} rgb/{stamp}.png")
        depth.append(f"{later} depth/{later}.png")
    truth = ["# timestamp tx ty tz qx qy qz qw"]
    for i in range(9):
        q = to_quaternion(from_quaternion((0, 0, 0.01 * i, 1)))
        truth.append(f"{1341841278 + i / 100:.4f} {i / 100} 0 1 {' '.join(map(str, q))}")
    for name, lines in (("rgb.txt", rgb), ("depth.txt", depth), ("groundtruth.txt", truth)):
        (path / name).write_text("\n".join(lines))
    return path


def test_tum_sequence(tum):
    source = open_source(str(tum))
    frames = list(source.frames())
    assert_allclose([depth_to_metres(f.depth)[0, 0] for f in frames], [1, 1.001, 1.002, 1.003, 1.004], atol=1e-6)
    assert frames[1].stamp_ns == 1341841278_033333000
    assert source.stamp_of("1341841278.033333") == frames[1].stamp_ns
    assert_allclose(frames[1].T_world_camera[0, 3], 0.033333, atol=1e-9)
    assert [f.T_world_camera is None for f in frames] == [False, False, False, True, True]
    assert dict(source.remarks) == {"tf_future": 2}
    assert frames[0].camera.fx == 535.4
    assert not source.refused


def test_tum_cameras_are_usable_over_the_whole_image():
    for (fx, fy, cx, cy), distortion in CAMERAS.values():
        camera = CameraModel(640, 480, fx, fy, cx, cy, "plumb_bob", distortion)
        assert np.isfinite(camera.rays(8)).all()


def test_tum_needs_a_known_camera(tum):
    other = tum.rename(tum.with_name("my_sequence"))
    with pytest.raises(SourceError, match="freiburg1"):
        open_source(str(other))
    (other / "intrinsics.txt").write_text("500 0 320 0 500 240 0 0 1")
    assert next(iter(open_source(str(other)).frames())).camera.fx == 500


def test_tum_pairs_each_image_once(tum):
    """One depth image per color image; without one within 20 ms there is none."""
    lines = (tum / "depth.txt").read_text().splitlines()
    (tum / "depth.txt").write_text("\n".join([*lines[:2], *lines[4:]]))
    source = open_source(str(tum))
    assert [f.depth is None for f in source.frames()] == [False, True, True, False, False]
    assert source.remarks["no_depth"] == 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("rgb.txt", "# nothing", "lists no images"),
        ("rgb.txt", "1.0", "line 1: 2 columns"),
        ("rgb.txt", "yesterday rgb/1.png", "not a time"),
        ("groundtruth.txt", "1.0 0 0 0", "line 1: 8 columns"),
        ("groundtruth.txt", "1.0 0 0 0 0 0 0 0", "not a rigid transform"),
    ],
)
def test_tum_files_that_are_wrong_are_named(tum, name, text, words):
    (tum / name).write_text(text)
    with pytest.raises(SourceError, match=words) as error:
        open_source(str(tum))
    assert name in str(error.value)


# ---- Videos and images


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for i in range(12):
        writer.write(np.full((48, 64, 3), (i * 20, 0, 255), np.uint8))  # BGR
    writer.release()
    return path


def test_video(video):
    source = VideoSource(video)
    for _ in range(2):
        frames = list(source.frames())
        assert [f.stamp_ns for f in frames] == [i * 100_000_000 for i in range(12)]
        assert frames[0].camera is None
        assert frames[0].T_world_camera is None
        red, _, blue = frames[10].rgb()[20, 20].tolist()
        assert red > 200
        assert abs(blue - 200) < 30
    assert source.stamp_of("0.31") == 300_000_000
    assert (source.info.frames, source.info.duration_s) == (12, 1.2)
    for name in ("9", "-1", "frame-000001"):
        with pytest.raises(KeyError):
            source.stamp_of(name)


def test_videos_that_are_none(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"not a video" * 100)
    for name in ("bad.mp4", "absent.mp4"):
        with pytest.raises(SourceError, match=name):
            VideoSource(tmp_path / name)


def test_folder_of_images(tmp_path):
    for i in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"img_{i}.png"), np.full((20, 30, 3), i, np.uint8))
    (tmp_path / "img_1.png").write_bytes(b"no image")
    source = open_source(str(tmp_path), {"image_rate_hz": 4})
    frames = list(source.frames())
    assert [(f.stamp_ns, int(f.rgb()[0, 0, 0])) for f in frames] == [(0, 0), (500_000_000, 2)]
    assert dict(source.refused) == {"unknown_compression": 1}
    assert source.stamp_of("img_2") == source.stamp_of("img_2.png") == 500_000_000
    assert source.name_of(500_000_000) == "img_2"
    (tmp_path / "frames.csv").write_text("name,timestamp_s\nimg_0,7.5\n")
    (tmp_path / "intrinsics.txt").write_text("20 0 15 0 20 10 0 0 1")
    source = open_source(str(tmp_path))
    frame = next(iter(source.frames()))
    assert (frame.stamp_ns, frame.camera.width) == (7_500_000_000, 30)
    assert dict(source.refused) == {"not_in_frames_csv": 2}


# ---- Which recording is it


def test_open_source_finds_out(folder, tum, video, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a.jpg"), np.zeros((20, 30, 3), np.uint8))
    for path, kind in (
        (folder, "RGB-D folder"),
        (tum, "TUM RGB-D sequence"),
        (video, "video"),
        (images, "folder of images"),
    ):
        assert open_source(str(path)).info.description.startswith(kind)


def test_open_source_says_what_it_understands(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0")
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: 5}")
    for spec, words in (
        ("", "no recording was named"),
        (str(tmp_path / "absent"), "does not exist"),
        (str(tmp_path / "empty"), "is empty"),
        (str(tmp_path / "notes.txt"), "nothing that can be read"),
    ):
        with pytest.raises(SourceError, match=words) as error:
            open_source(spec)
        assert "a bag of ROS 2" in str(error.value)
    with pytest.raises(SourceError, match="cannot be opened"):
        open_source(str(tmp_path / "bag"))
    with pytest.raises(SourceError, match=r"old\.bag cannot be read"):
        open_source(str(tmp_path / "old.bag"))


# ---- Pacing


class Clock:
    """Time that only passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 50.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def stamps(*seconds: float) -> list[Frame]:
    return [Frame(round(s * 1e9), "camera") for s in seconds]


@pytest.mark.parametrize(("rate", "expected"), [(1.0, [1.0, 0.5]), (2.0, [0.5, 0.25]), (0, [])])
def test_pace(rate, expected):
    clock = Clock()
    assert len(list(paced(stamps(100, 101, 101.5), rate, clock, clock.sleep))) == 3
    assert_allclose(clock.slept, expected)


def test_pace_catches_up_and_survives_jumps():
    clock = Clock()
    frames = paced(stamps(0, 1, 2, 3, 1000, 1001, 5, 6), 1.0, clock, clock.sleep)
    next(frames)
    clock.now += 2.5  # a slow consumer
    list(frames)
    assert_allclose(clock.slept, [0.5, 1.0, 1.0])
    with pytest.raises(ValueError, match="rate"):
        list(paced(stamps(0), -1.0))


# ---- Recordings of real sensors


def test_real_folders(shared):
    """Every frame is there, with depth and pose, and the questions' frames are found by name."""
    for name, count, levelled in (("rgbd_room", 125, True), ("rgbd_object", 58, False)):
        source = open_source(str(shared / "data" / name))
        assert source.info.description.startswith("RGB-D folder")
        frames = list(source.frames())
        assert len(frames) == source.info.frames == count
        assert all(f.depth is not None and f.T_world_camera is not None and f.camera is not None for f in frames)
        assert not source.refused
        assert not source.remarks
        assert (source.info.T_zup_from_world is not None) == levelled
        questions = json.loads((shared / "data" / name / "questions.json").read_text())["questions"]
        names = {x["frame"] for q in questions for kind in ("points", "times", "boxes") for x in q[kind]}
        assert {source.stamp_of(n) for n in names} <= {f.stamp_ns for f in frames}


def test_real_images(shared):
    source = open_source(str(shared / "data" / "rgb_room"))
    frames = list(source.frames())
    assert len(frames) == 28
    assert frames[0].rgb().shape == (640, 480, 3)
    assert not source.refused


def test_a_whole_folder_written_and_read(shared, tmp_path):
    original = open_source(str(shared / "data" / "rgbd_object"))
    assert write_folder(original, tmp_path / "copy").frames == 58
    copy = open_source(str(tmp_path / "copy"))
    assert assert_same_frames(original, copy, exact_image=False) == 58
    assert copy.stamp_of("frame-000020") == original.stamp_of("frame-000020")
