"""Folders of the TUM RGB-D benchmark (Sturm et al., IROS 2012): rgb.txt, depth.txt, groundtruth.txt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.pose import from_quaternion
from spatial_mllm_ros.sources.calibration import read_camera
from spatial_mllm_ros.sources.image_files import depth_file, is_image
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, OneCamera, Size
from spatial_mllm_ros.sources.layouts.layout import Layout, matching, ordered
from spatial_mllm_ros.sources.layouts.trajectory import Trajectory
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import seconds_to_ns

DEPTH_UNITS_PER_METRE = 5000
"""Of the benchmark; other recordings in its format are often in millimetres."""
KINECT_NEAREST_M = 0.35
"""The benchmark's camera measures nothing nearer than 0.4 m (Kinect for Xbox 360, the near end of its range)."""
AS_PUBLISHED = "as the benchmark has it"
FACTOR_KEYS = ("DepthMapFactor", "depth_factor", "depth_scale", "depthScale", "png_depth_scale")
"""Counts per metre, as SLAM systems call it in the yaml file of a camera."""

# Color cameras as the benchmark publishes them ("Intrinsic Camera Calibration of the Kinect"): fx, fy, cx, cy and
# k1, k2, p1, p2, k3. freiburg3's images are rectified.
CAMERAS = {
    "1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "3": ((535.4, 539.2, 320.1, 247.6), ()),
}
SIZE = (640, 480)


def read(folder: Path, settings: InputSettings) -> Listing:
    """rgb.txt, depth.txt: lines "stamp file". groundtruth.txt: lines "stamp tx ty tz qx qy qz qw", the color camera in the
    world (z up). Depth PNGs count 1/5000 m, or what a yaml file in the folder says. A color image takes the nearest depth
    within sync_tolerance_s, one each, and the pose interpolated at its stamp. The camera is camera.yaml or intrinsics.txt,
    else the published one of the freiburg1, freiburg2 or freiburg3 in the folder's name.
    """
    colors, repeated = _images(folder, "rgb.txt")
    if not colors:
        raise SourceError(f"{folder / 'rgb.txt'} lists no images")
    depths = _images(folder, "depth.txt")[0] if (folder / "depth.txt").exists() else {}
    pairs = associate(list(colors), list(depths), round(settings.sync_tolerance_s * 1e9))
    poses = stamped_poses(folder / "groundtruth.txt", settings)
    camera = _camera(folder)
    factor, whence = _depth_factor(folder)
    entries = [
        Entry(
            name=path.stem,
            aliases=(path.name,),
            stamp_ns=stamp,
            color=path.read_bytes,
            depth=depth_file(depths[pairs[stamp]]) if stamp in pairs else None,
            pose=poses.at(stamp) if poses.count else None,
            pose_stddev=poses.stddev_at(stamp),
            camera=camera,
        )
        for stamp, path in colors.items()
    ]
    unit = "" if not depths or settings.depth_unit_m else f"; depth counts 1/{factor:g} m ({whence})"
    return Listing(
        kind="TUM RGB-D sequence",
        entries=entries,
        depth_unit_m=1 / factor,
        depth_assumed=whence == AS_PUBLISHED,
        depth_nearest_m=KINECT_NEAREST_M if factor == DEPTH_UNITS_PER_METRE else 0.0,
        world_frame="world",
        chosen=(f"{len(colors)} color and {len(depths)} depth images, {poses.count} poses{unit}",),
        refused=+Counter(repeated_stamp=repeated, not_listed=unlisted(colors.values())),
        remarks=+Counter(no_depth=len(colors) - len(pairs), unpaired_depth=len(depths) - len(pairs)),
    )


def rows(path: Path, columns: int) -> Iterator[list[str]]:
    """The fields of the lines of a text file, separated by spaces or commas, without comments. Raises SourceError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        fields = line.replace(",", " ").split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) < columns:
            raise SourceError(f"{path}, line {number}: {columns} columns expected, {len(fields)} found")
        yield fields


def unlisted(listed: Iterable[Path]) -> int:
    """How many images lie beside those that are listed."""
    names: dict[Path, set[str]] = {}
    for path in listed:
        names.setdefault(path.parent, set()).add(path.name)
    return sum(is_image(path) and path.name not in names[folder] for folder in names for path in matching(folder, "*"))


def associate(colors: list[int], depths: list[int], tolerance_ns: int) -> dict[int, int]:
    """Which depth image belongs to which color image, by stamp: nearest pairs first, each image in one at most."""
    stamps = np.array(sorted(depths), np.int64)
    candidates = []
    for color in colors:
        near, far = np.searchsorted(stamps, (color - tolerance_ns, color + tolerance_ns + 1))
        candidates += [(abs(int(depth) - color), color, int(depth)) for depth in stamps[near:far]]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, color, depth in sorted(candidates):
        if color not in pairs and depth not in taken:
            pairs[color] = depth
            taken.add(depth)
    return pairs


def _images(folder: Path, name: str) -> tuple[dict[int, Path], int]:
    """Files by stamp, in order, and how many stamps came twice."""
    images: dict[int, Path] = {}
    repeated = 0
    for fields in rows(folder / name, 2):
        try:
            stamp = seconds_to_ns(fields[0])
        except ValueError as error:
            raise SourceError(f"{folder / name}: {error}") from error
        repeated += stamp in images
        images.setdefault(stamp, folder / fields[1].replace("\\", "/"))
    return dict(sorted(images.items())), repeated


def stamped_poses(path: Path, settings: InputSettings) -> Trajectory:
    """Lines "stamp tx ty tz qx qy qz qw", seconds and metres; none where the file is not there. Raises SourceError."""
    poses = Trajectory(settings)
    for fields in rows(path, 8) if path.exists() else ():
        try:
            values = [float(x) for x in fields[1:8]]
            poses.add(seconds_to_ns(fields[0]), from_quaternion(values[3:], values[:3]))
        except ValueError as error:
            raise SourceError(f"{path}, stamp {fields[0]}: {error}") from error
    return poses


def _camera(folder: Path) -> OneCamera:
    if (folder / "camera.yaml").exists() or (folder / "intrinsics.txt").exists():
        return OneCamera(partial(read_camera, folder))
    found = re.search(r"(?:freiburg|fr)([123])", folder.resolve().name)
    if found is None:
        raise SourceError(
            f"{folder}: the camera is not known. Put its matrix into intrinsics.txt (3x3) or camera.yaml, "
            "or let the folder's name contain freiburg1, freiburg2 or freiburg3"
        )

    def published(size: Size) -> CameraModel:
        (fx, fy, cx, cy), distortion = CAMERAS[found[1]]
        return CameraModel(*SIZE, fx, fy, cx, cy, "plumb_bob", distortion)

    return OneCamera(published)


def _depth_factor(folder: Path) -> tuple[float, str]:
    """Counts per metre, and who says so: a yaml file in the folder, else the benchmark."""
    for path in ordered(folder, "*.yaml", "*.yml"):
        try:
            text = path.read_text(encoding="utf-8").replace("%YAML:1.0", "")  # as OpenCV writes it
            content = yaml.safe_load(re.sub(r"!!opencv-matrix", "", text))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        levels = [content, *content.values()] if isinstance(content, dict) else []
        for level in levels:
            for key, value in level.items() if isinstance(level, dict) else ():
                if str(key).rsplit(".", 1)[-1] in FACTOR_KEYS and isinstance(value, int | float) and value > 1:
                    return float(value), path.name
    return DEPTH_UNITS_PER_METRE, AS_PUBLISHED


LAYOUT = Layout(name="TUM RGB-D folder (rgb.txt, depth.txt, groundtruth.txt)", needs=(("rgb.txt",),), read=read)
