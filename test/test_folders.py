"""Folders as people have them: order, stamps, what is depth and what is not, what is wrong, and what is no recording."""

from __future__ import annotations

import random
import sqlite3
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from small_recording import Changed, SmallSource, assert_same_frames
from test_layouts import CASES, COUNT, FRAMES, Case, colmap_text, png, put, scannet, three_d_match, tum

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.scene.frame import depth_to_metres
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.sources.bag_writer import write_bag
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import NS, natural_key, stamps_in_names, table_stamps
from spatial_mllm_ros.sources.video import VideoSource
from spatial_mllm_ros.sources.writers import write_folder


def gray(value: int) -> np.ndarray:
    return np.full((24, 32, 3), value, np.uint8)


def values(path: Path, **settings: object) -> list[int]:
    return [int(f.rgb()[0, 0, 0]) for f in open_source(str(path), settings).frames()]


# ---- Order and stamps


def test_images_named_by_number_come_in_the_order_of_the_numbers(tmp_path):
    for i in range(12):
        put(tmp_path / f"{i}.png", png(gray(i)))
    assert values(tmp_path) == list(range(12))
    frames = list(open_source(str(tmp_path), {"image_rate_hz": 10}).frames())
    assert [f.stamp_ns for f in frames] == [i * 100_000_000 for i in range(12)]


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_that_of_numbers(numbers):
    assert sorted([f"frame{n}.x" for n in numbers], key=natural_key) == [f"frame{n}.x" for n in sorted(numbers)]


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s"])
def test_stamps_in_names_are_used_whatever_their_unit(unit):
    """EuRoC has nanoseconds, TUM seconds."""
    stamps = [1_403_636_579_763_555_584 + i * NS["s"] for i in range(3)]
    names = [f"cam_{stamp // NS[unit]}" for stamp in stamps]
    found = stamps_in_names(names, 30.0)
    assert found.stamps == [stamp // NS[unit] * NS[unit] for stamp in stamps]
    assert found.doubt is None


def test_stamps_in_names_as_decimal_seconds():
    assert stamps_in_names(["1341841278.842700", "1341841278.942700"], 30.0).stamps[0] == 1_341_841_278_842_700_000
    assert stamps_in_names(["47334096_4123.500", "47334096_4123.600"], 30.0).stamps == [
        4_123_500_000_000,
        4_123_600_000_000,
    ]


def test_phones_write_date_and_time_into_names():
    found = stamps_in_names(["PXL_20240115_101112345", "PXL_20240115_101113000"], 30.0)
    assert found.stamps == [1_705_313_472_345_000_000, 1_705_313_473_000_000_000]
    assert stamps_in_names(["IMG_20240115_101112"], 30.0).doubt is None
    assert stamps_in_names(["x_20249915_101112", "x_20249915_101113"], 30.0).doubt is not None


def test_numbers_that_are_no_stamps_are_counted_and_told():
    for names in (["frame-000000", "frame-000010"], ["a", "b"], ["img_2", "other_2"], ["IMG_20230101", "IMG_20230102"]):
        found = stamps_in_names(names, 10.0)
        assert found.doubt is not None
        assert "image_rate_hz" in found.doubt.remedy
        assert len(set(found.stamps)) == 2
    assert stamps_in_names(["frame-000000", "frame-000010"], 10.0).stamps == [0, 1_000_000_000]


@given(
    st.sampled_from(list(NS)),
    st.lists(st.integers(10**9, 4 * 10**9), min_size=2, max_size=6, unique=True),
)
def test_a_column_of_epoch_times_is_read_in_its_unit(unit, seconds):
    text = [str(s * NS["s"] // NS[unit]) for s in seconds]
    assert table_stamps(text, "time").stamps == [s * NS["s"] for s in seconds]
    assert table_stamps([str(s) for s in seconds], f"stamp_{unit}").stamps == [s * NS[unit] for s in seconds]


@pytest.mark.parametrize(
    ("header", "times", "step_ns"),
    [
        ("name,timestamp_s", ("10.0", "10.5"), 500_000_000),
        ("name,Timestamp [ns]", ("10", "500000010"), 500_000_000),
        ("name,time", ("0.0", "0.033"), 33_000_000),
        ("name,time_stamp", ("0", "33"), 33_000_000),  # steps of 33 are milliseconds
        ("name, capture_time_us", ("0", "33000"), 33_000_000),
    ],
)
def test_any_one_column_that_says_time_tells_the_time(tmp_path, header, times, step_ns):
    write_folder(SmallSource(2), tmp_path / "r", png=True)
    rows = [f"frame-{i:06d}.color.png,{t}" if "ns" in header else f"frame-{i:06d},{t}" for i, t in enumerate(times)]
    (tmp_path / "r" / "frames.csv").write_text("\n".join([header, *rows]).replace(".color.png", ""))
    source = open_source(str(tmp_path / "r"))
    assert np.diff([f.stamp_ns for f in source.frames()]).tolist() == [step_ns]
    assert any("column" in line for line in source.info.chosen)


def test_a_table_without_times_counts_the_images_and_says_so(tmp_path):
    write_folder(SmallSource(3), tmp_path / "r", png=True)
    (tmp_path / "r" / "frames.csv").write_text("name,exposure\nframe-000000,1\nframe-000001,1\nframe-000002,1\n")
    source = open_source(str(tmp_path / "r"), {"image_rate_hz": 4})
    assert [f.stamp_ns for f in source.frames()] == [0, 250_000_000, 500_000_000]
    assert [d.kind for d in source.doubts] == ["nominal_stamps"]


# ---- Videos


def boxes(data: bytes, at: int, end: int):
    while at < end:
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at, size
        at += size


def find_box(data: bytes, *path: bytes) -> list[tuple[int, int]]:
    """Where a box and those around it lie, outermost first: (position, size)."""
    found, at, end = [], 0, len(data)
    for wanted in path:
        at, size = next((a, s) for kind, a, s in boxes(data, at, end) if kind == wanted)
        found.append((at, size))
        at, end = at + 8, at + size
    return found


@pytest.fixture
def mp4(tmp_path: Path) -> Path:
    path = tmp_path / "walk.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (64, 48))
    for i in range(20):
        image = gray(i * 12).repeat(2, 0).repeat(2, 1)
        image[:10, :10] = 255
        writer.write(image)
    writer.release()
    return path


def test_a_variable_frame_rate_is_followed(mp4):
    """As phones record: the first ten images at half the rate."""
    data = bytearray(mp4.read_bytes())
    chain = find_box(data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts")
    at, size = chain[-1]
    count, step = struct.unpack_from(">II", data, at + 16)
    assert (count, size) == (20, 24)
    table = struct.pack(">I4sIIIIII", 32, b"stts", 0, 2, 10, 2 * step, 10, step)
    data[at : at + size] = table
    for position, length in chain[:-1]:
        struct.pack_into(">I", data, position, length + 8)
    edit = find_box(data, b"moov", b"trak", b"edts", b"elst")[-1][0] + 16  # how much of the track is shown
    struct.pack_into(">I", data, edit, struct.unpack_from(">I", data, edit)[0] * 3 // 2)
    mp4.write_bytes(data)
    source = VideoSource(mp4)
    stamps = [f.stamp_ns for f in source.frames()]
    assert_allclose(np.diff(stamps) / 1e9, [1 / 15] * 10 + [1 / 30] * 9, atol=2e-3)
    assert VideoSource(mp4).stamp_of(f"{stamps[15] / 1e9:.3f}") == stamps[15]


def test_a_phone_that_was_held_upright_gives_upright_images(mp4):
    data = bytearray(mp4.read_bytes())
    at, _ = find_box(data, b"moov", b"trak", b"tkhd")[-1]
    one = 0x10000
    struct.pack_into(">9i", data, at + 48, 0, one, 0, -one, 0, 0, 48 * one, 0, 0x40000000)  # a quarter turn clockwise
    mp4.write_bytes(data)
    image = next(iter(VideoSource(mp4).frames())).rgb()
    assert image.shape == (64, 48, 3)
    assert image[:8, -8:].min() > 200, "the bright corner at the top left turns to the top right"


def test_an_azure_kinect_recording_says_how_to_convert_it(tmp_path):
    (tmp_path / "k.mkv").write_bytes(b"\x1aE\xdf\xa3" + bytes(100) + b"K4A_DEPTH_MODE" + bytes(100))
    with pytest.raises(SourceError, match=r"Azure Kinect.*azure_kinect_mkv_reader"):
        open_source(str(tmp_path / "k.mkv"))


# ---- What is depth, and what cannot be read


def test_16_bit_pngs_beside_images_are_their_depth(tmp_path):
    for i, f in enumerate(FRAMES[:3]):
        put(tmp_path / f"rgb_{i}.png", png(f.image))
        put(tmp_path / f"depth_{i}.png", png(f.depth))
    put(tmp_path / "depth_77.PNG", png(FRAMES[0].depth))
    source = open_source(str(tmp_path))
    frames = list(source.frames())
    assert len(frames) == 3
    assert all((f.depth == g.depth).all() and (f.rgb() == g.image).all() for f, g in zip(frames, FRAMES, strict=False))
    assert dict(source.refused) == {"depth_without_image": 1}


def test_heic_and_suffixes_in_capitals_are_read(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_bytes("RGB", (32, 24), gray(200).tobytes()).save(str(tmp_path / "IMG_2.HEIC"))
    put(tmp_path / "IMG_1.JPG", cv2.imencode(".jpg", gray(100))[1].tobytes())
    put(tmp_path / "IMG_3.PNG", png(gray(250)))
    assert_allclose(values(tmp_path), [100, 200, 250], atol=6)


def test_heic_without_its_reader_is_counted(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    put(tmp_path / "IMG_1.JPG", cv2.imencode(".jpg", gray(100))[1].tobytes())
    put(tmp_path / "IMG_2.HEIC", b"\0\0\0\x18ftypheic" + bytes(40))
    source = open_source(str(tmp_path))
    assert len(list(source.frames())) == 1
    assert dict(source.refused) == {"heic_without_reader": 1}


def test_files_and_folders_that_are_not_read_are_told(tmp_path):
    put(tmp_path / "a.jpg", cv2.imencode(".jpg", gray(1))[1].tobytes())
    put(tmp_path / "b.cr2", b"raw")
    put(tmp_path / "more" / "notes.txt", "x")
    doubt = next(d for d in open_source(str(tmp_path)).doubts if d.kind == "unread_files")
    assert "1 .cr2" in doubt.text
    assert "more/" in doubt.text


def test_files_that_tum_lists_and_has_not_are_told_as_absent(tmp_path):
    root = tum(tmp_path / "t")
    color, depth = (sorted((root / kind).iterdir()) for kind in ("rgb", "depth"))
    color[0].unlink()
    depth[3].unlink()
    source = open_source(str(root))
    assert len(list(source.frames())) == COUNT - 1
    assert dict(source.refused) == {"missing_file": 1}
    assert dict(source.remarks) == {"missing_depth": 1}


@pytest.mark.parametrize("separators", ["[[{}, {}], [{}, {}]]", "{},{};{},{}"])
def test_matrices_with_commas_and_brackets_are_read(tmp_path, separators):
    root = scannet(tmp_path / "s")
    for path in (root / "pose").iterdir():
        rows = [",".join(line.split()) for line in path.read_text().splitlines()]
        path.write_text("[[" + "],\n[".join(rows) + "]]" if separators.startswith("[") else ";\n".join(rows))
    frames = list(open_source(str(root)).frames())
    assert_allclose([f.T_world_camera for f in frames], [f.T_world_camera for f in FRAMES], atol=1e-9)


def test_lost_tracking_is_told_from_a_file_that_cannot_be_read(tmp_path):
    root = scannet(tmp_path / "s")
    for i, text in enumerate(("-inf " * 16, "nan " * 16, "-1 " * 16, "1 2 3", "not a number " * 6, "2 " * 16)):
        (root / "pose" / f"{i}.txt").write_text(text)
    source = open_source(str(root))
    assert sum(f.T_world_camera is None for f in source.frames()) == 6
    assert dict(source.remarks) == {"lost_pose": 3, "invalid_pose": 3}


def test_depth_of_scannets_other_camera_lands_where_color_shows_it(tmp_path):
    root = scannet(tmp_path / "s")
    K = np.eye(4)
    K[:3, :3] = [[15.0, 0, 7.5], [0, 15.5, 5.375], [0, 0, 1]]  # half the size, the same view
    put(root / "intrinsic" / "intrinsic_depth.txt", K)
    for i, f in enumerate(FRAMES):
        put(root / "depth" / f"{i}.png", png(f.depth[::2, ::2]))
    frame = next(iter(open_source(str(root)).frames()))
    assert frame.depth.shape == (24, 32)
    seen = frame.depth > 0
    assert seen.mean() > 0.85
    assert np.abs(frame.depth.astype(int) - FRAMES[0].depth)[seen & (FRAMES[0].depth > 0)].max() <= 100


def test_a_matrix_of_another_size_is_refused(tmp_path):
    """ScanNet's color is often made smaller, its matrix seldom."""
    root = scannet(tmp_path / "s")
    K = np.eye(4)
    K[:3, :3] = [[1170.0, 0, 647.7], [0, 1170.0, 483.7], [0, 0, 1]]
    put(root / "intrinsic" / "intrinsic_color.txt", K)
    with pytest.raises(SourceError, match="images of another size"):
        list(open_source(str(root)).frames())


def test_bundlefusion_keeps_its_camera_in_info_txt(tmp_path):
    root = three_d_match(tmp_path / "b")
    (root / "camera-intrinsics.txt").unlink()
    matrix = "60 0 31.5 0 0 62 23 0 0 0 1 0 0 0 0 1"  # of images twice as large
    text = f"m_colorWidth = 64\nm_colorHeight = 48\nm_calibrationColorIntrinsic = {matrix} \n"
    (root / "seq-01" / "info.txt").write_text(text)
    camera = next(iter(open_source(str(root)).frames())).camera
    assert (camera.width, camera.fx, camera.fy, camera.cx, camera.cy) == (32, 30, 31, 15.5, 11.25)


def test_tum_with_a_depth_factor_of_its_own(tmp_path):
    root = tum(tmp_path / "t")
    assert_allclose(
        depth_to_metres(next(iter(open_source(str(root), {"depth_unit_m": 1e-3}).frames())).depth)[0, 0], 5.0
    )
    (root / "camera_settings.yaml").write_text("%YAML:1.0\nCamera.fx: 535.4\nDepthMapFactor: 1000.0\n")
    source = open_source(str(root))
    assert_allclose(depth_to_metres(next(iter(source.frames())).depth)[0, 0], 5.0)
    assert "1/1000 m (camera_settings.yaml)" in " ".join(source.info.chosen)


def test_a_static_camera_needs_no_poses_and_listens_to_none(tmp_path):
    root = tum(tmp_path / "t")
    for _ in range(2):
        frames = list(open_source(str(root), {"static": True}).frames())
        assert all((f.T_world_camera == np.eye(4)).all() and f.pose_stddev is None for f in frames)
        (root / "groundtruth.txt").unlink(missing_ok=True)


def test_lengths_of_a_colmap_model_have_no_metres_until_somebody_tells_them(tmp_path):
    root = str(colmap_text(tmp_path / "c"))
    session = Session(open_source(root))
    session.stream()
    assert not session.metric
    with pytest.raises(SourceError, match="pose_unit_m"):
        write_bag(open_source(root), tmp_path / "bag")
    told = open_source(root, {"pose_unit_m": 0.5})
    assert told.info.scale is None
    assert_allclose(next(iter(told.frames())).T_world_camera[:3, 3], FRAMES[0].T_world_camera[:3, 3] * 0.5)


# ---- Which recording


def test_a_folder_around_one_recording_opens_it_and_around_several_lists_them(tmp_path):
    root = three_d_match(tmp_path / "scene")
    source = open_source(str(root))
    assert source.info.name == "seq-01"
    assert "seq-01 is the one recording in scene" in source.info.chosen[0]
    write_folder(SmallSource(2), root / "seq-02")
    with pytest.raises(SourceError, match="2 recordings, name one of them: seq-01, seq-02"):
        open_source(str(root))


def test_databases_of_others_are_no_recordings(tmp_path):
    """COLMAP's database, a file manager's thumbnails."""
    put(tmp_path / "project" / "Thumbs.db", b"\xd0\xcf\x11\xe0" + bytes(50))
    database = sqlite3.connect(tmp_path / "project" / "database.db")
    database.execute("CREATE TABLE cameras (id INTEGER)")
    database.close()
    put(tmp_path / "project" / "images" / "a.png", png(gray(3)))
    assert values(tmp_path / "project") == [3]


def test_a_folder_that_is_not_understood_says_what_it_holds_and_lacks(tmp_path):
    put(tmp_path / "traj.txt", "1 2 3")
    put(tmp_path / "mesh.ply", "ply")
    put(tmp_path / "lowres_wide.traj", "")
    put(tmp_path / "notes" / "a.txt", "x")
    with pytest.raises(SourceError) as error:
        open_source(str(tmp_path))
    text = str(error.value)
    assert "1 .txt, 1 .ply, 1 .traj, notes/" in text or all(w in text for w in ("1 .txt", "1 .ply", "notes/"))
    assert "Replica" in text
    assert "lacks results/frame*.jpg" in text
    assert "ARKitScenes" in text


# ---- Convert


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.write.__name__)
def test_a_converted_recording_is_the_same_recording(case: Case, tmp_path):
    path = str(case.write(tmp_path / "recording"))
    original = open_source(path)
    run = CliRunner().invoke(main, ["convert", path, str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    copy = open_source(str(tmp_path / "out"))
    assert (original.info.scale is None) == (copy.info.scale is None)
    for a, b in zip(original.frames(), copy.frames(), strict=True):
        assert (a.stamp_ns, a.world_frame, a.camera_frame) == (b.stamp_ns, b.world_frame, b.camera_frame)
        assert a.camera == b.camera
        assert_allclose(a.T_world_camera, b.T_world_camera, atol=1e-12)
        assert (a.depth is None) == (b.depth is None)
        if a.depth is not None:
            assert_allclose(depth_to_metres(a.depth), depth_to_metres(b.depth), atol=0.0005001)
        if not original.info.lossy_color:
            assert (a.rgb() == b.rgb()).all()
    assert {p.name for p in tmp_path.iterdir()} == {"recording", "out"}


def test_convert_keeps_what_has_no_depth_and_no_pose_and_refuses_a_folder_that_is_not_empty(tmp_path):
    put(tmp_path / "in" / "a.jpg", jpeg := cv2.imencode(".jpg", gray(9))[1].tobytes())
    put(tmp_path / "in" / "b.png", png(gray(5)))
    (tmp_path / "out").mkdir()
    assert CliRunner().invoke(main, ["convert", str(tmp_path / "in"), str(tmp_path / "out")]).exit_code == 0
    assert (tmp_path / "out" / "a.color.jpg").read_bytes() == jpeg
    assert values(tmp_path / "out") == [9, 5]
    again = CliRunner().invoke(main, ["convert", str(tmp_path / "in"), str(tmp_path / "out")])
    assert again.exit_code == 2
    assert "exists already" in again.output


def test_convert_leaves_nothing_behind_when_it_fails(tmp_path):
    broken = Changed({3: {"camera_frame": "another"}})
    with pytest.raises(SourceError):
        write_folder(broken, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert_same_frames(SmallSource(), SmallSource())


# ---- Damage


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.write.__name__)
def test_damaged_files_end_in_a_source_error_or_in_counts(case: Case, tmp_path):
    """Cut off, overwritten, emptied, removed: never another exception, and never a frame lost without a count."""
    opened = case.write(tmp_path / "recording")
    rng = random.Random(case.write.__name__)
    files = sorted(p for p in (tmp_path / "recording").rglob("*") if p.is_file())
    small = [p for p in files if p.suffix.lower() not in (".png", ".jpg")] * 3 + files
    outcomes = set()
    for _ in range(30):
        path = rng.choice(small)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        match rng.randrange(5):
            case 0:
                damaged = damaged[: rng.randrange(len(damaged) + 1)]
            case 1:
                for _ in range(rng.randrange(1, 30)):
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            case 2:
                damaged[rng.randrange(len(damaged)) :] = rng.randbytes(50)
            case 3:
                start = rng.randrange(len(damaged))
                del damaged[start : start + rng.randrange(1, 40)]
            case 4:
                text = damaged.replace(b"0", b"-", rng.randrange(1, 4)).replace(b" ", b"\n", rng.randrange(3))
                damaged = bytearray(text)
        path.write_bytes(damaged)
        try:
            source = open_source(str(opened))
            frames = list(source.frames())
            lost = sum(source.refused.values())
            outcomes.add("read")
            assert len(frames) + lost >= COUNT or source.doubts or damaged == whole, (path, dict(source.refused))
        except SourceError:
            outcomes.add("refused")
        path.write_bytes(whole)
    assert outcomes
    assert len(list(open_source(str(opened)).frames())) == COUNT


# ---- Layouts as others write them


def test_images_and_poses_with_stamps_need_no_lists(tmp_path):
    """TUM's files without rgb.txt and depth.txt; depth comes a little later."""
    root = tum(tmp_path / "t")
    for name in ("rgb.txt", "depth.txt"):
        (root / name).unlink()
    for path in sorted((root / "depth").iterdir()):
        path.rename(path.with_name(f"{float(path.stem) + 0.004:.6f}.png"))
    source = open_source(str(root), {"depth_unit_m": 1 / 5000})
    frames = list(source.frames())
    assert_allclose([f.T_world_camera for f in frames], [f.T_world_camera for f in FRAMES], atol=1e-9)
    assert all((f.depth == g.depth).all() for f, g in zip(frames, FRAMES, strict=True))


def test_a_colmap_model_without_empty_lines_loses_no_image(tmp_path):
    root = colmap_text(tmp_path / "c")
    path = root / "sparse" / "0" / "images.txt"
    path.write_text(
        "\n".join(line for line in path.read_text().splitlines() if line.strip() and not line.startswith("10.0"))
    )
    assert len(list(open_source(str(root)).frames())) == COUNT


def test_questions_about_lengths_of_a_colmap_model_are_refused(tmp_path):
    root = str(colmap_text(tmp_path / "c"))
    question = "How far did the camera move between <t0> and <t1>?"
    marks = ["--time", "0000", "--time", "0011"]
    refused = CliRunner().invoke(main, ["ask", root, question, *marks])
    assert "SCALE_UNAVAILABLE" in refused.output
    assert "pose_unit_m" in refused.output.replace("\n", " ")
    told = CliRunner().invoke(main, ["ask", root, question, *marks, "--pose-unit", "1", "--json"])
    moved = np.linalg.norm(FRAMES[11].T_world_camera[:3, 3] - FRAMES[0].T_world_camera[:3, 3])
    assert f'"value": {moved:.4f}'[:14] in told.output
