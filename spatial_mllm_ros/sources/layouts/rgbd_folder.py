"""This package's own layout, which is that of 7-Scenes and 3DMatch: frame-*.color.jpg, .depth.png, .pose.txt."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.sources.calibration import camera_from_file, matrix_camera, read_camera, read_transform
from spatial_mllm_ros.sources.image_files import IMAGE_SUFFIXES, depth_file
from spatial_mllm_ros.sources.layouts.cameras import pinhole
from spatial_mllm_ros.sources.layouts.entries import CAMERA_FRAME, Entry, Listing, OneCamera, Size, told
from spatial_mllm_ros.sources.layouts.layout import Layout, first, matching
from spatial_mllm_ros.sources.layouts.times import times_of
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import natural_key

DEPTH_SUFFIX = ".depth.png"
_COLOR_SUFFIXES = tuple(f".color{suffix}" for suffix in IMAGE_SUFFIXES)
CAMERA_SUFFIX = ".camera.yaml"
_POSE_SUFFIX = ".pose.txt"


def read(folder: Path, settings: InputSettings) -> Listing:
    """NAME.color.jpg (or .png): 8-bit color. NAME.depth.png: uint16 mm along the optical axis, 0 = no data, registered
    to the color image. NAME.pose.txt: 4x4 camera to world, metres. intrinsics.txt: 3x3; or camera.yaml, the format of ROS
    camera calibration, which takes precedence and can hold a distortion; or NAME.camera.yaml where each image has its
    own. frames.csv: ``name`` and a column of times; without it the number in the name counts. T_zup_from_world.txt: 4x4 to
    a frame with z up and the floor at z = 0. All but the images is optional.
    """
    colors = _by_name(folder, *_COLOR_SUFFIXES)
    depths = _by_name(folder, DEPTH_SUFFIX)
    poses = _by_name(folder, _POSE_SUFFIX)
    names = sorted(colors.keys() | depths.keys(), key=natural_key)
    times = times_of(folder, names, settings)
    own_cameras = _by_name(folder, CAMERA_SUFFIX)
    camera = OneCamera(partial(_camera, folder))
    entries = [
        Entry(
            name=name,
            stamp_ns=stamp,
            color=colors[name].read_bytes if name in colors else None,
            depth=depth_file(depths[name]) if name in depths else None,
            pose=partial(read_transform, poses[name]) if name in poses else None,
            camera=partial(camera_from_file, own_cameras[name]) if name in own_cameras else camera,
            camera_frame=times.rows.get(name, {}).get("camera_frame") or CAMERA_FRAME,
            world_frame=times.rows.get(name, {}).get("world_frame") or "",
        )
        for name, stamp in times.stamps.items()
    ]
    return Listing(
        kind="RGB-D folder",
        entries=entries,
        depth_assumed=True,
        T_zup_from_world=_zup(folder),
        chosen=(times.words,),
        doubts=told(times.doubt),
        refused=times.missing,
        remarks=+Counter(pose_without_image=len(poses.keys() - colors.keys() - depths.keys())),
    )


def _by_name(folder: Path, *suffixes: str) -> dict[str, Path]:
    """Files by what their names begin with; of several the first of the suffixes."""
    found: dict[str, Path] = {}
    for suffix in suffixes:
        for path in matching(folder, f"*{suffix}"):
            found.setdefault(path.name[: -len(suffix)], path)
    return found


def _camera(folder: Path, size: Size) -> CameraModel | None:
    """3DMatch keeps one matrix for all sequences, in the folder above."""
    camera = read_camera(folder, size)
    shared = first(folder, "camera-intrinsics.txt") or first(folder.resolve().parent, "camera-intrinsics.txt")
    if camera is None and shared is not None:
        return matrix_camera(shared, size)
    return camera or _info_camera(folder, size)


def _info_camera(folder: Path, size: Size) -> CameraModel | None:
    """BundleFusion's info.txt, which says of what size the images are that its 4x4 matrix is of."""
    path = first(folder, "info.txt", "_info.txt")
    text = "" if path is None else path.read_text(encoding="utf-8", errors="replace")
    values = dict(re.findall(r"(m_color(?:Width|Height)|m_calibrationColorIntrinsic)\s*=\s*([^\n]+)", text))
    try:
        K = [float(x) for x in values["m_calibrationColorIntrinsic"].split()]
        of = (int(values["m_colorWidth"]), int(values["m_colorHeight"]))
        return pinhole(K[0], K[5], K[2], K[6], of=of)(size)
    except (KeyError, IndexError, ValueError):
        return None


def _zup(folder: Path) -> Transform | None:
    path = folder / "T_zup_from_world.txt"
    try:
        return read_transform(path) if path.exists() else None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} is not a 4x4 rigid transform: {error}") from error


LAYOUT = Layout(
    name="RGB-D folder (frame-*.color.jpg, .depth.png, .pose.txt, intrinsics.txt)",
    needs=(tuple(f"*{suffix}" for suffix in (".color.jpg", ".color.png", DEPTH_SUFFIX, *_COLOR_SUFFIXES)),),
    read=read,
)
