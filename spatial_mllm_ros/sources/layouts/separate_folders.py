"""color/, depth/ and poses in folders or files of their own: ScanNet as exported, Open3D and Redwood, deep-video-mvs."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.sources.calibration import pose_of, read_matrix, read_transform
from spatial_mllm_ros.sources.image_files import depth_file, is_image
from spatial_mllm_ros.sources.layouts.cameras import found_camera, pinhole
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, ReadCamera, ReadPose, no_camera, told
from spatial_mllm_ros.sources.layouts.layout import Layout, first, ordered
from spatial_mllm_ros.sources.layouts.poses import in_order, matrix_lines, trajectory_log
from spatial_mllm_ros.sources.layouts.times import times_of
from spatial_mllm_ros.sources.layouts.tum import associate, stamped_poses
from spatial_mllm_ros.sources.stamps import stamps_in_names

COLOR = ("color/*", "rgb/*", "image/*", "images/*", "color_images/*")
DEPTH = ("depth/*", "depths/*", "depth_images/*")
POSES = ("pose/*.txt", "poses/*.txt")
POSE_LISTS = ("poses.txt", "trajectory.log", "scene/trajectory.log", "*traj*.log")
STAMPED = ("groundtruth.txt", "*traj*.txt")
_TEXT = ("intrinsic/{}.txt", "intrinsics/{}.txt", "{}.txt")
COLOR_CAMERA = (
    *(pattern.format(name) for pattern in _TEXT for name in ("intrinsic_color", "intrinsics_color")),
    *("intrinsics.txt", "intrinsic.txt", "K.txt", "camera-intrinsics.txt"),
    *("intrinsic.json", "intrinsics.json", "camera_primesense.json", "camera_intrinsic.json", "camera.json"),
)
DEPTH_CAMERA = tuple(pattern.format(name) for pattern in _TEXT for name in ("intrinsic_depth", "intrinsics_depth"))
PRIMESENSE = pinhole(525.0, 525.0, 319.5, 239.5, of=(640, 480))
"""What Open3D assumes of a PrimeSense, Kinect or Xtion without calibration."""


def read(folder: Path, settings: InputSettings) -> Listing:
    """color/N.jpg, depth/N.png (uint16 mm), pose/N.txt (4x4 camera to world, -inf where tracking was lost), or poses.txt
    with a matrix a line, or trajectory.log; or groundtruth.txt as TUM has it, where names tell stamps. Cameras in
    intrinsic/intrinsic_color.txt and intrinsic_depth.txt, in K.txt or intrinsics.txt, or in Open3D's JSON; depth of another
    camera or size is moved into the color image.
    """
    colors = _images(folder, COLOR)
    depths = _images(folder, DEPTH)
    by_order: Doubt | None = None
    pairs = paired(colors, depths) or _paired_by_stamp(colors, depths, settings)
    if depths and not pairs and len(depths) == len(colors):
        pairs = dict(zip(colors, depths, strict=True))
        by_order = Doubt(
            kind="paired_by_order",
            text=f"names of color and depth have nothing in common ({colors[0].name}, {depths[0].name}): paired in order",
            remedy="give both the same names",
        )
    times = times_of(folder, [path.stem for path in colors], settings)
    poses, uneven = _poses(folder, colors)
    path = first(folder, *STAMPED)
    trajectory = stamped_poses(path, settings) if path is not None and not poses and times.doubt is None else None
    camera = found_camera(folder, *COLOR_CAMERA)
    guessed: Doubt | None = None
    if camera is None and first(folder, "trajectory.log") is not None:
        camera = PRIMESENSE
        guessed = Doubt(
            kind="guessed_camera",
            text="no camera matrix is there: that of an uncalibrated PrimeSense (525 px) is taken",
            remedy="put the camera's matrix into intrinsics.txt (3x3)",
            confidence=0.5,
        )
    known = len(poses) if trajectory is None else trajectory.count
    as_tum = trajectory is not None and path is not None and path.name.lower() == "groundtruth.txt"
    unit = _unit_of_tum() if as_tum and pairs and settings.depth_unit_m is None else None
    unread = _unread_poses(folder) if known == 0 else None
    depth_camera = _depth_camera(folder)
    by_stem = {path.stem: path for path in colors}
    entries = [
        Entry(
            name=name,
            aliases=(by_stem[name].name,),
            stamp_ns=stamp,
            color=by_stem[name].read_bytes,
            depth=depth_file(pairs[by_stem[name]]) if by_stem[name] in pairs else None,
            pose=poses.get(by_stem[name]) if trajectory is None else trajectory.at(stamp),
            pose_stddev=None if trajectory is None else trajectory.stddev_at(stamp),
            camera=camera or no_camera,
            depth_camera=depth_camera,
        )
        for name, stamp in times.stamps.items()
    ]
    times.missing["unpaired_depth"] += len(depths) - len(pairs)
    return Listing(
        kind="folders of color, depth and poses",
        entries=entries,
        depth_assumed=True,
        world_frame="world",
        chosen=(
            f"{len(colors)} color and {len(depths)} depth images, {known} poses",
            times.words,
        ),
        doubts=told(times.doubt, by_order, uneven, guessed, _extrinsics(folder), unit, unread),
        refused=+times.missing,
    )


def paired(images: list[Path], others: list[Path]) -> dict[Path, Path]:
    """What belongs to each image: by the same name, else by the number that the names begin with, or end with."""

    def stem(path: Path) -> object:
        return path.stem.lower()

    def number(at: int, path: Path) -> object:
        found = re.findall(r"\d+", path.stem)
        return int(found[at]) if found else None

    for key in (stem, partial(number, 0), partial(number, -1)):
        by_key = {key(path): path for path in others}
        pairs = {path: by_key[key(path)] for path in images if key(path) is not None and key(path) in by_key}
        if pairs and len(by_key) == len(others) and len(set(pairs.values())) == len(pairs):
            return pairs
    return {}


def _paired_by_stamp(colors: list[Path], depths: list[Path], settings: InputSettings) -> dict[Path, Path]:
    """Where both have stamps in their names, as TUM's files have."""
    told_times = [stamps_in_names([path.stem for path in files], settings.image_rate_hz) for files in (colors, depths)]
    if not depths or any(told_time.doubt is not None for told_time in told_times):
        return {}
    color_of, depth_of = (
        dict(zip(t.stamps, f, strict=True)) for t, f in zip(told_times, (colors, depths), strict=True)
    )
    pairs = associate(list(color_of), list(depth_of), round(settings.sync_tolerance_s * 1e9))
    return {color_of[color]: depth_of[depth] for color, depth in pairs.items()}


def _images(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    for pattern in patterns:
        found = [path for path in ordered(folder, pattern) if is_image(path)]
        if found:
            return found
    return []


def _poses(folder: Path, colors: list[Path]) -> tuple[dict[Path, ReadPose], Doubt | None]:
    files = ordered(folder, *POSES)
    single = paired(colors, files)
    if single:
        return {path: partial(read_transform, file) for path, file in single.items()}, None
    path = first(folder, *POSE_LISTS) or (files[0] if len(files) == 1 else None)
    if path is None:
        return {}, None
    if path.suffix.lower() == ".log":
        log = trajectory_log(path)
        return {colors[i]: partial(pose_of, T) for i, T in log.items() if 0 <= i < len(colors)}, None
    poses, doubt = in_order(matrix_lines(path), len(colors), path)
    return {color: pose for color, pose in zip(colors, poses, strict=True) if pose is not None}, doubt


def _depth_camera(folder: Path) -> ReadCamera | None:
    return None if first(folder, *DEPTH_CAMERA) is None else found_camera(folder, *DEPTH_CAMERA)


def _unit_of_tum() -> Doubt:
    return Doubt(
        kind="depth_scale",
        text="groundtruth.txt is TUM's, whose depth counts 1/5000 m, but rgb.txt is not there: depth is taken for millimetres",
        remedy="set depth_unit_m to 0.0002 if it is TUM's, or to 0.001 if it is in millimetres",
        confidence=0.3,
    )


def _unread_poses(folder: Path) -> Doubt | None:
    """Folders of text files that may hold the poses that are missing."""
    used = {pattern.split("/")[0] for pattern in (*POSES, *_TEXT) if "/" in pattern}
    counts = {
        sub.name: len(ordered(sub, "*.txt")) for sub in sorted(folder.iterdir()) if sub.is_dir() and sub.name not in used
    }
    found = [f"{name}/ holds {count} .txt" for name, count in counts.items() if count > 1]
    if not found:
        return None
    return Doubt(
        kind="unread_poses",
        text=f"no poses are known, and what may be them is not read: {', '.join(found)}",
        remedy="if these are poses (4x4, camera to world), call the folder pose/",
    )


def _extrinsics(folder: Path) -> Doubt | None:
    """Depth is taken from where color is, which ScanNet's extrinsics mostly say."""
    for name in ("extrinsic_color", "extrinsic_depth"):
        path = first(folder, *(pattern.format(name) for pattern in _TEXT))
        if path is not None and np.abs(read_matrix(path, (4, 4)) - np.eye(4)).max() > 1e-3:
            return Doubt(
                kind="extrinsics",
                text=f"{path.name} says that the depth camera is not where the color camera is, which is not followed",
                remedy="register depth to the color image",
                confidence=0.5,
            )
    return None


LAYOUT = Layout(
    name="recording in color/, depth/ and pose/ folders (ScanNet exported, Open3D, deep-video-mvs)",
    needs=(COLOR, (*DEPTH, *POSES, *POSE_LISTS, *STAMPED)),
    read=read,
)
