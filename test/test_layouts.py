"""Every layout: the same small recording, written as that layout has it, comes back with its images, depth, poses, stamps."""

from __future__ import annotations

import json
import sqlite3
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation
from small_recording import SmallSource
from test_messages import rvl

from spatial_mllm_ros.scene.backproject import camera_points
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.pose import apply, invert, make_transform, to_quaternion
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.writers import write_folder

CAMERA = CameraModel(32, 24, 30.0, 31.0, 15.5, 11.25)
START_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000
COUNT = 12  # so that 10 comes after 9, and not after 1
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
"""Between optical axes and OpenGL's; written here anew, so that the reader is not tested against itself."""


def scene(i: int) -> Frame:
    """A slanted wall with a hole, seen from a path; every pixel of color and depth tells its frame."""
    v, u = np.mgrid[0:24, 0:32]
    depth = (1000 + 10 * i + 40 * u + 7 * v).astype(np.uint16)
    depth[3:6, 4:9] = 0
    image = np.stack([u * 7, v * 9, np.full_like(u, 20 * i)], axis=-1).astype(np.uint8)
    T = make_transform(Rotation.from_rotvec((0.1 * i, 0.3, -0.05 * i)).as_matrix(), (0.2 * i, 0.1, -0.3 * i))
    return Frame(START_NS + i * STEP_NS, "camera", CAMERA, image, depth, T)


FRAMES = [scene(i) for i in range(COUNT)]


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()


def jpg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def put(path: Path, content: bytes | str | np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        np.savetxt(path, content, fmt="%.17g")
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def line(numbers: np.ndarray, separator: str = " ") -> str:
    return separator.join(f"{x:.17g}" for x in np.asarray(numbers).reshape(-1))


# ---- Writers. Each returns what to open.


def scannet(root: Path) -> Path:
    for i, f in enumerate(FRAMES):
        put(root / "color" / f"{i}.png", png(f.image))
        put(root / "depth" / f"{i}.png", png(f.depth))
        put(root / "pose" / f"{i}.txt", f.T_world_camera)
    for name in ("intrinsic_color", "intrinsic_depth"):
        K = np.eye(4)
        K[:3, :3] = CAMERA.K
        put(root / "intrinsic" / f"{name}.txt", K)
        put(root / "intrinsic" / f"{name.replace('intrinsic', 'extrinsic')}.txt", np.eye(4))
    return root


def open3d(root: Path) -> Path:
    log = []
    for i, f in enumerate(FRAMES):
        name = f"{i + 1:06d}-{i * 100_000:012d}"  # number and microseconds
        put(root / "image" / f"{name}.png", png(f.image))
        put(root / "depth" / f"{name}.png", png(f.depth))
        log += [f"{i} {i} {i + 1}", *(line(row) for row in f.T_world_camera)]
    put(root / "trajectory.log", "\n".join(log) + "\n")
    K = [CAMERA.fx, 0, 0, 0, CAMERA.fy, 0, CAMERA.cx, CAMERA.cy, 1]  # column by column
    put(root / "intrinsic.json", json.dumps({"width": 32, "height": 24, "intrinsic_matrix": K}))
    return root


def deep_video_mvs(root: Path) -> Path:
    for i, f in enumerate(FRAMES):
        put(root / "images" / f"{i:05d}.png", png(f.image))
        put(root / "depth" / f"{i:05d}.png", png(f.depth))
    put(root / "poses.txt", "\n".join(line(f.T_world_camera) for f in FRAMES))
    put(root / "K.txt", CAMERA.K)
    return root


def three_d_match(root: Path) -> Path:
    for i, f in enumerate(FRAMES):
        put(root / "seq-01" / f"frame-{i:06d}.color.png", png(f.image))
        put(root / "seq-01" / f"frame-{i:06d}.depth.png", png(f.depth))
        put(root / "seq-01" / f"frame-{i:06d}.pose.txt", f.T_world_camera)
    put(root / "camera-intrinsics.txt", CAMERA.K)
    return root


def tum(root: Path) -> Path:
    lists: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    for f in FRAMES:
        stamp = f"{f.stamp_ns // 10**9}.{f.stamp_ns % 10**9 // 1000:06d}"
        put(root / "rgb" / f"{stamp}.png", png(f.image))
        put(root / "depth" / f"{stamp}.png", png((f.depth * 5).astype(np.uint16)))
        for kind in ("rgb", "depth"):
            lists[kind].append(f"{stamp} {kind}/{stamp}.png")
        lists["groundtruth"].append(f"{stamp} {line(f.T_world_camera[:3, 3])} {line(to_quaternion(f.T_world_camera))}")
    for name, lines in lists.items():
        put(root / f"{name}.txt", "# a comment\n" + "\n".join(lines))
    put(root / "intrinsics.txt", CAMERA.K)
    return root


def replica(root: Path) -> Path:
    scale = 6553.5
    for i, f in enumerate(FRAMES):
        put(root / "room0" / "results" / f"frame{i:06d}.png", png(f.image))
        put(root / "room0" / "results" / f"depth{i:06d}.png", png(np.rint(f.depth / 1000 * scale).astype(np.uint16)))
    put(root / "room0" / "traj.txt", "\n".join(line(f.T_world_camera) for f in FRAMES))
    camera = {"w": 32, "h": 24, "fx": 30.0, "fy": 31.0, "cx": 15.5, "cy": 11.25, "scale": scale}
    put(root / "cam_params.json", json.dumps({"camera": camera}))
    return root / "room0"


def nerfstudio(root: Path) -> Path:
    frames = []
    for i, f in enumerate(FRAMES):
        put(root / "images" / f"frame_{i:05d}.png", png(f.image))
        put(root / "depths" / f"frame_{i:05d}.png", png(f.depth))
        frames.append(
            {
                "file_path": f"images/frame_{i:05d}.png",
                "depth_file_path": f"depths/frame_{i:05d}.png",
                "transform_matrix": (f.T_world_camera @ FLIP).tolist(),
            }
        )
    shared = {
        "w": 32,
        "h": 24,
        "fl_x": 30.0,
        "fl_y": 31.0,
        "cx": 16.0,
        "cy": 11.75,
        "camera_model": "OPENCV",
        "k1": 0.0,
    }
    put(root / "transforms.json", json.dumps(shared | {"frames": frames}))
    return root


def colmap_text(root: Path) -> Path:
    images = []
    for i, f in enumerate(FRAMES):
        put(root / "images" / f"{i:04d}.png", png(f.image))
        T = invert(f.T_world_camera)
        x, y, z, w = to_quaternion(T)
        images += [f"{i + 1} {line([w, x, y, z])} {line(T[:3, 3])} 1 {i:04d}.png", "10.0 10.0 -1" if i % 2 else ""]
    put(root / "sparse" / "0" / "images.txt", "# Image list\n" + "\n".join(images) + "\n")
    put(root / "sparse" / "0" / "cameras.txt", "# Camera list\n1 PINHOLE 32 24 30.0 31.0 16.0 11.75\n")
    return root


def colmap_binary(root: Path) -> Path:
    data = struct.pack("<Q", COUNT)
    for i, f in enumerate(FRAMES):
        put(root / "images" / f"{i:04d}.png", png(f.image))
        T = invert(f.T_world_camera)
        x, y, z, w = to_quaternion(T)
        data += struct.pack("<i7di", i + 1, w, x, y, z, *T[:3, 3], 1) + f"{i:04d}.png".encode() + b"\0"
        data += struct.pack("<Q", 1) + struct.pack("<ddq", 10.0, 10.0, -1)
    put(root / "sparse" / "0" / "images.bin", data)
    cameras = struct.pack("<QiiQQ4d", 1, 1, 1, 32, 24, 30.0, 31.0, 16.0, 11.75)
    put(root / "sparse" / "0" / "cameras.bin", cameras)
    return root


def euroc(root: Path) -> Path:
    T_body_camera = make_transform(Rotation.from_rotvec((0.4, -0.2, 1.3)).as_matrix(), (0.05, -0.02, 0.01))
    rows, truth = [], []
    for f in FRAMES:
        put(root / "mav0" / "cam0" / "data" / f"{f.stamp_ns}.png", png(f.image))
        rows.append(f"{f.stamp_ns},{f.stamp_ns}.png")
        T_world_body = f.T_world_camera @ invert(T_body_camera)
        x, y, z, w = to_quaternion(T_world_body)
        truth.append(f"{f.stamp_ns},{line(T_world_body[:3, 3], ',')},{line([w, x, y, z], ',')},0,0,0")
    put(root / "mav0" / "cam0" / "data.csv", "#timestamp [ns],filename\r\n" + "\r\n".join(rows))
    put(root / "mav0" / "state_groundtruth_estimate0" / "data.csv", "#timestamp, p, q\n" + "\n".join(truth))
    put(
        root / "mav0" / "cam0" / "sensor.yaml",
        "sensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n"
        f"  data: [{line(T_body_camera, ', ')}]\nresolution: [32, 24]\ncamera_model: pinhole\n"
        "intrinsics: [30.0, 31.0, 15.5, 11.25]\ndistortion_model: radial-tangential\n"
        "distortion_coefficients: [0.0, 0.0, 0.0, 0.0]\n",
    )
    return root


def kitti(root: Path) -> Path:
    offset = np.array([0.06, -0.001, 0.002])  # of camera 2 in camera 0
    P = np.column_stack([CAMERA.K, -CAMERA.K @ offset])
    for i, f in enumerate(FRAMES):
        put(root / "sequences" / "07" / "image_2" / f"{i:06d}.png", png(f.image))
    zero = line(np.column_stack([CAMERA.K, np.zeros(3)]))
    put(root / "sequences" / "07" / "calib.txt", f"P0: {zero}\nP1: {zero}\nP2: {line(P)}\nP3: {zero}\n")
    put(root / "sequences" / "07" / "times.txt", "\n".join(f"{i / 10:e}" for i in range(COUNT)))
    T_camera2_camera0 = make_transform(np.eye(3), -offset)
    put(root / "poses" / "07.txt", "\n".join(line((f.T_world_camera @ T_camera2_camera0)[:3]) for f in FRAMES))
    return root


def arkit_scenes(root: Path) -> Path:
    traj = []
    for i, f in enumerate(FRAMES):
        name = f"47334096_{4123.5 + i / 10:.3f}"
        put(root / "lowres_wide" / f"{name}.png", png(f.image))
        put(root / "lowres_depth" / f"{name}.png", png(f.depth))
        put(root / "confidence" / f"{name}.png", png(np.full((24, 32), 2, np.uint8)))
        late = f"47334096_{4123.5 + i / 10 + 0.001 * (i % 2):.3f}"
        put(root / "lowres_wide_intrinsics" / f"{late}.pincam", "32 24 30.0 31.0 15.5 11.25")
        T = invert(f.T_world_camera)
        traj.append(f"{4123.5 + i / 10:.6f} {line(Rotation.from_matrix(T[:3, :3]).as_rotvec())} {line(T[:3, 3])}")
    put(root / "lowres_wide.traj", "\n".join(traj))
    return root


def stray_scanner(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    video = cv2.VideoWriter(str(root / "rgb.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (32, 24))
    rows = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for i, f in enumerate(FRAMES):
        video.write(np.ascontiguousarray(f.image[..., ::-1]))
        put(root / "depth" / f"{i:06d}.png", png(f.depth))
        put(root / "confidence" / f"{i:06d}.png", png(np.full((24, 32), 1, np.uint8)))
        T = f.T_world_camera
        rows.append(f"{10 + i / 10:.3f}, {i:06d}, {line(T[:3, 3], ', ')}, {line(to_quaternion(T), ', ')}")
    video.release()
    put(root / "odometry.csv", "\n".join(rows))
    put(root / "camera_matrix.csv", "\n".join(line(row, ", ") for row in CAMERA.K))
    return root


def record3d(root: Path) -> Path:
    lzfse = pytest.importorskip("lzfse")
    poses = []
    root.mkdir(exist_ok=True)
    with zipfile.ZipFile(root / "scan.r3d", "w") as archive:
        for i, f in enumerate(FRAMES):
            archive.writestr(f"rgbd/{i}.jpg", jpg(f.image))
            archive.writestr(f"rgbd/{i}.depth", lzfse.compress((f.depth / 1000).astype("<f4").tobytes()))
            archive.writestr(f"rgbd/{i}.conf", lzfse.compress(np.full((24, 32), 2, np.uint8).tobytes()))
            T = f.T_world_camera @ FLIP
            poses.append([*to_quaternion(T), *T[:3, 3]])
        K = [30.0, 0, 0, 0, 31.0, 0, 15.5, 11.25, 1]
        times = [i / 10 for i in range(COUNT)]
        meta = {"w": 32, "h": 24, "dw": 32, "dh": 24, "K": K, "fps": 10, "poses": poses, "frameTimestamps": times}
        archive.writestr("metadata", json.dumps(meta))
    return root / "scan.r3d"


def sens(root: Path) -> Path:
    K = np.eye(4, dtype=np.float32)
    K[:3, :3] = CAMERA.K
    name = b"StructureSensor"
    data = struct.pack("<IQ", 4, len(name)) + name
    data += b"".join(np.asarray(m, "<f4").tobytes() for m in (K, np.eye(4), K, np.eye(4)))
    data += struct.pack("<iiIIIIfQ", 1, 1, 32, 24, 32, 24, 1000.0, COUNT)
    for f in FRAMES:
        color, depth = png(f.image), zlib.compress(f.depth.astype("<u2").tobytes())
        stamp = (f.stamp_ns - START_NS) // 1000
        data += f.T_world_camera.astype("<f4").tobytes()
        data += struct.pack("<QQQQ", stamp, stamp, len(color), len(depth)) + color + depth
    put(root / "scene0000_00.sens", data + struct.pack("<Q", 0))
    return root / "scene0000_00.sens"


def rtabmap(root: Path) -> Path:
    T_robot_camera = make_transform(Rotation.from_rotvec((1.2, -1.2, 1.2)).as_matrix(), (0.1, 0.0, 0.4))
    numbers = [*CAMERA.K.reshape(-1)]
    calibration = struct.pack("<11i", 0, 21, 4, 0, 32, 24, 9, 0, 0, 0, 12) + np.asarray(numbers, "<f8").tobytes()
    calibration += T_robot_camera[:3].astype("<f4").tobytes()
    root.mkdir(exist_ok=True)
    database = sqlite3.connect(root / "map.db")
    database.execute("CREATE TABLE Node (id INTEGER, map_id INTEGER, weight INTEGER, stamp FLOAT, pose BLOB)")
    database.execute("CREATE TABLE Data (id INTEGER, image BLOB, depth BLOB, calibration BLOB)")
    database.execute("CREATE TABLE Admin (version TEXT, opt_ids BLOB, opt_poses BLOB)")
    for i, f in enumerate(FRAMES):
        T = (f.T_world_camera @ invert(T_robot_camera))[:3].astype("<f4")
        depth = f.depth / 1000
        floats = cv2.imencode(".png", depth.astype("<f4").view(np.uint8).reshape(24, 32, 4))[1]
        packed = (png(f.depth), floats, b"DEPTHRVL" + rvl(f.depth))[i % 3]
        database.execute("INSERT INTO Node VALUES (?, 0, 0, ?, ?)", (i + 1, 100 + i / 10, T.tobytes()))
        database.execute("INSERT INTO Data VALUES (?, ?, ?, ?)", (i + 1, png(f.image), bytes(packed), calibration))
    database.execute("INSERT INTO Admin VALUES ('0.21.4', NULL, NULL)")
    database.commit()
    database.close()
    return root / "map.db"


class Frames(SmallSource):
    """The scene as a source of its own."""

    def frames(self) -> Iterator[Frame]:
        return iter(FRAMES)


def own(root: Path) -> Path:
    write_folder(Frames(COUNT), root, png=True)
    (root / "recording.yaml").write_text("max_depth_m: 60\n")
    return root


@dataclass(frozen=True, kw_only=True)
class Case:
    """write: the recording. depth_m: how precisely depth survives; None: the layout has none. pose: how precisely poses do.
    lossy: color is compressed. stamps: how long a step takes where the layout has no stamps of its own (ns)."""

    write: Callable[[Path], Path]
    depth_m: float | None = 1e-9
    pose: float = 1e-9
    lossy: bool = False
    step_ns: int = STEP_NS


NOMINAL_NS = 1_000_000_000 // 30
CASES = [
    Case(write=own),
    Case(write=scannet, step_ns=NOMINAL_NS),
    Case(write=open3d),
    Case(write=deep_video_mvs, step_ns=NOMINAL_NS),
    Case(write=three_d_match, step_ns=NOMINAL_NS),
    Case(write=tum),
    Case(write=replica, depth_m=0.0006, step_ns=NOMINAL_NS),
    Case(write=nerfstudio, step_ns=NOMINAL_NS),
    Case(write=colmap_text, depth_m=None, step_ns=NOMINAL_NS),
    Case(write=colmap_binary, depth_m=None, step_ns=NOMINAL_NS),
    Case(write=euroc, depth_m=None),
    Case(write=kitti, depth_m=None),
    Case(write=arkit_scenes),
    Case(write=stray_scanner, lossy=True),
    Case(write=record3d, depth_m=1e-6, lossy=True),
    Case(write=sens, pose=1e-6),
    Case(write=rtabmap, depth_m=1e-6, pose=1e-5),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.write.__name__)
def test_a_layout_comes_back_as_it_was_written(case, tmp_path):
    source = open_source(str(case.write(tmp_path / "recording")))
    frames = list(source.frames())
    assert (len(frames), dict(source.refused)) == (COUNT, {})
    assert_allclose(np.diff([f.stamp_ns for f in frames]), case.step_ns, atol=2000)
    for read, written in zip(frames, FRAMES, strict=True):
        assert_allclose(read.T_world_camera, written.T_world_camera, atol=case.pose)
        camera = read.camera
        assert (camera.width, camera.height) == (32, 24)
        assert_allclose((camera.fx, camera.fy, camera.cx, camera.cy), (30, 31, 15.5, 11.25), atol=1e-6)
        assert_allclose(camera.project([[0.2, 0.1, 1.5]]), CAMERA.project([[0.2, 0.1, 1.5]]), atol=1e-6)
        off = np.abs(read.rgb().astype(int) - written.image)
        assert off.max() < 60 if case.lossy else off.max() == 0
        assert off.mean() < 12
        if case.depth_m is None:
            assert read.depth is None
            continue
        assert_allclose(depth_to_metres(read.depth), depth_to_metres(written.depth), atol=case.depth_m + 1e-7)
        points = [apply(f.T_world_camera, camera_points(f, 1, 10.0)) for f in (read, written)]
        assert_allclose(*points, atol=case.depth_m * 2 + case.pose * 10 + 1e-5)
    assert (source.info.scale is None) == (not case.write.__name__.startswith("colmap"))
    name = source.name_of(frames[10].stamp_ns)
    assert source.stamp_of(name) == frames[10].stamp_ns


def test_what_is_read_is_told(tmp_path):
    for case in CASES:
        source = open_source(str(case.write(tmp_path / case.write.__name__)))
        assert source.info.chosen, case
        assert any(d.kind == "nominal_stamps" for d in source.doubts) == (case.step_ns == NOMINAL_NS), case


def matrix_blob(values: np.ndarray) -> bytes:
    """RTAB-Map's compressed matrix of one row."""
    return zlib.compress(values.tobytes()) + struct.pack("<3i", 1, values.size, 5)


def test_rtabmaps_optimized_poses_win_and_nodes_outside_its_graph_have_none(tmp_path):
    path = rtabmap(tmp_path / "r")
    moved = make_transform(np.eye(3), (0.0, 0.0, 5.0))
    database = sqlite3.connect(path)
    rows = database.execute("SELECT id, pose FROM Node ORDER BY id").fetchall()[:-1]
    poses = [moved @ np.vstack([np.frombuffer(pose, "<f4").reshape(3, 4), (0, 0, 0, 1)]) for _, pose in rows]
    flat = np.concatenate([T[:3].astype("<f4").reshape(-1) for T in poses])
    ids = np.array([number for number, _ in rows], "<i4")
    database.execute("UPDATE Admin SET opt_ids = ?, opt_poses = ?", (matrix_blob(ids), matrix_blob(flat)))
    database.commit()
    database.close()
    source = open_source(str(path))
    frames = list(source.frames())
    for read, written in zip(frames[:-1], FRAMES, strict=False):
        assert_allclose(read.T_world_camera, moved @ written.T_world_camera, atol=1e-5)
    assert frames[-1].T_world_camera is None
    assert dict(source.remarks) == {"not_optimized": 1}


def test_lidar_depth_of_low_confidence_is_left_out_and_of_another_size_is_resampled(tmp_path):
    root = stray_scanner(tmp_path / "s")
    for i, f in enumerate(FRAMES):
        put(root / "depth" / f"{i:06d}.png", png(f.depth[::2, ::2]))
        confidence = np.full((12, 16), 2, np.uint8)
        confidence[8:, :] = 0
        put(root / "confidence" / f"{i:06d}.png", png(confidence))
    source = open_source(str(root))
    frame = next(iter(source.frames()))
    assert frame.depth.shape == (24, 32)
    assert not frame.depth[16:].any()
    assert (frame.depth[:16:2, ::2] == FRAMES[0].depth[:16:2, ::2]).all()
    assert not source.remarks, "the layout says itself that both show one view"


def test_record3d_without_the_reader_of_its_depth_still_has_images_and_poses(tmp_path, monkeypatch):
    path = record3d(tmp_path / "r")
    monkeypatch.setitem(sys.modules, "lzfse", None)
    source = open_source(str(path))
    assert all(f.depth is None and f.T_world_camera is not None for f in source.frames())
    assert [d.kind for d in source.doubts] == ["depth_without_reader"]
    assert "spatial_mllm_ros[phone]" in source.doubts[0].remedy
    assert dict(source.remarks) == {"depth_without_reader": COUNT}


def test_a_cut_off_sens_file_gives_what_was_before(tmp_path):
    path = sens(tmp_path / "s")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(str(path))
    count = len(list(source.frames()))
    assert 3 < count < COUNT
    assert f"{count} of {COUNT} frames" in source.doubts[0].text


@pytest.mark.parametrize(
    ("model", "numbers", "expected", "d"),
    [
        ("SIMPLE_PINHOLE", "30 16 12", "plumb_bob", ()),
        ("SIMPLE_RADIAL", "30 16 12 0.1", "plumb_bob", (0.1, 0, 0, 0, 0)),
        ("RADIAL", "30 16 12 0.1 0.2", "plumb_bob", (0.1, 0.2, 0, 0, 0)),
        ("OPENCV", "30 30 16 12 0.1 0.2 0.01 0.02", "plumb_bob", (0.1, 0.2, 0.01, 0.02, 0)),
        ("OPENCV_FISHEYE", "30 30 16 12 0.1 0.2 0.3 0.4", "equidistant", (0.1, 0.2, 0.3, 0.4)),
        ("FULL_OPENCV", "30 30 16 12 1 2 3 4 5 6 7 8", "rational_polynomial", (1, 2, 3, 4, 5, 6, 7, 8)),
        ("RADIAL_FISHEYE", "30 16 12 0.1 0.2", "equidistant", (0.1, 0.2, 0, 0)),
    ],
)
def test_colmaps_camera_models(tmp_path, model, numbers, expected, d):
    root = colmap_text(tmp_path / "c")
    (root / "sparse" / "0" / "cameras.txt").write_text(f"1 {model} 32 24 {numbers}\n")
    camera = next(iter(open_source(str(root)).frames())).camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (30, 30, 15.5, 11.5)
    assert camera.distortion_model == expected
    assert_allclose(np.trim_zeros(camera.distortion, "b"), np.trim_zeros(d, "b"))


def test_colmap_models_that_are_not_supported_are_named(tmp_path):
    root = colmap_text(tmp_path / "c")
    (root / "sparse" / "0" / "cameras.txt").write_text("1 FOV 32 24 30 30 16 12 0.9\n")
    with pytest.raises(SourceError, match="FOV is not supported"):
        open_source(str(root))


def test_nerfstudios_scale_camera_angle_and_missing_suffix(tmp_path):
    root = nerfstudio(tmp_path / "n")
    content = json.loads((root / "transforms.json").read_text())
    for frame in content["frames"]:
        del frame["depth_file_path"]
        frame["file_path"] = frame["file_path"].removesuffix(".png")
        for row in frame["transform_matrix"][:3]:
            row[3] *= 0.25
    for key in ("fl_x", "fl_y", "cx", "cy"):
        del content[key]
    content |= {"applied_scale": 0.25, "camera_angle_x": 2 * np.arctan(16 / 30)}
    (root / "transforms.json").write_text(json.dumps(content))
    source = open_source(str(root))
    frames = list(source.frames())
    assert_allclose([f.T_world_camera for f in frames], [f.T_world_camera for f in FRAMES], atol=1e-9)
    assert_allclose((frames[0].camera.fx, frames[0].camera.cx, frames[0].camera.cy), (30, 15.5, 11.5))
    assert source.info.scale is not None, "nothing says that poses without depth are in metres"
    assert open_source(str(root), {"pose_unit_m": 1}).info.scale is None


def test_depth_beside_a_ground_truth_of_tum_without_its_lists_is_of_a_doubtful_unit(tmp_path: Path) -> None:
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    lines = []
    for i in range(3):
        stamp = f"{1700000000 + i / 10:.6f}"
        cv2.imwrite(str(tmp_path / f"rgb/{stamp}.png"), np.zeros((24, 32, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"depth/{stamp}.png"), np.full((24, 32), 5000, np.uint16))
        lines.append(f"{stamp} 0 0 0 0 0 0 1")
    (tmp_path / "groundtruth.txt").write_text("\n".join(lines))
    np.savetxt(tmp_path / "intrinsics.txt", [[30, 0, 15.5], [0, 30, 11.5], [0, 0, 1]])
    assert [doubt.kind for doubt in open_source(str(tmp_path)).doubts] == ["depth_scale"]
    assert open_source(str(tmp_path), {"depth_unit_m": 0.0002}).doubts == []


def test_a_folder_of_poses_by_another_name_is_named(tmp_path: Path) -> None:
    for name in ("color", "depth", "extrinsics"):
        (tmp_path / name).mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"color/{i}.png"), np.zeros((24, 32, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"depth/{i}.png"), np.full((24, 32), 1000, np.uint16))
        np.savetxt(tmp_path / f"extrinsics/{i}.txt", np.eye(4))
    told = [doubt for doubt in open_source(str(tmp_path)).doubts if doubt.kind == "unread_poses"]
    assert len(told) == 1
    assert "extrinsics/ holds 3 .txt" in told[0].text
