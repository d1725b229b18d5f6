"""Sparse models of COLMAP, text and binary: cameras and poses, up to scale."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.metric_scale import MetricScale
from spatial_mllm_ros.scene.pose import from_quaternion, invert
from spatial_mllm_ros.sources.layouts.cameras import HALF_PIXEL, pinhole
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, ReadCamera, ReadPose, told
from spatial_mllm_ros.sources.layouts.layout import Layout, first
from spatial_mllm_ros.sources.layouts.times import times_of
from spatial_mllm_ros.sources.source import SourceError

MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
)
"""Camera models by COLMAP's number, with how many parameters each has."""
_ONE_FOCAL_LENGTH = {"SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}
_MODEL_FOLDERS = ("", "sparse/0/", "sparse/", "colmap/sparse/0/", "dense/sparse/")
_Cameras = dict[int, ReadCamera]
_Images = list[tuple[str, int, ReadPose]]
REASON = "poses of COLMAP are known up to scale: set pose_unit_m, the metres of one unit, where you know them"


def read(folder: Path, settings: InputSettings) -> Listing:
    """cameras and images, .bin or .txt, in the folder or its sparse/0; images/ with the files. Poses are world to camera,
    quaternion w first; pixels count from the corner of the image.
    """
    model = first(folder, *(f"{place}images.{kind}" for place in _MODEL_FOLDERS for kind in ("bin", "txt")))
    assert model is not None
    binary = model.suffix.lower() == ".bin"
    cameras_file = model.with_name("cameras" + model.suffix)
    cameras = _binary_cameras(cameras_file) if binary else _text_cameras(cameras_file)
    images = sorted(_binary_images(model) if binary else _text_images(model), key=lambda image: image[0])
    files = _image_folder(folder, model.parent, [name for name, _, _ in images])
    names = [str(Path(name).with_suffix("")) for name, _, _ in images]
    if len(set(names)) < len(names):
        names = [name for name, _, _ in images]
    times = times_of(folder, names, settings)
    entries = []
    for name, (file, camera, pose) in zip(names, images, strict=True):
        if camera not in cameras:
            raise SourceError(f"{model} names camera {camera} of {file}, which {cameras_file.name} does not hold")
        if name in times.stamps:
            color = (files / file).read_bytes
            aliases = tuple({file, Path(file).stem, Path(file).name} - {name})
            entries.append(
                Entry(
                    name=name,
                    aliases=aliases,
                    stamp_ns=times.stamps[name],
                    color=color,
                    pose=pose,
                    camera=cameras[camera],
                )
            )
    return Listing(
        kind="COLMAP model",
        entries=entries,
        world_frame="world",
        scale=MetricScale(reason=REASON),
        chosen=(f"{len(images)} registered images of {len(cameras)} cameras, poses up to scale", times.words),
        doubts=told(times.doubt),
        refused=times.missing,
    )


def _image_folder(folder: Path, model: Path, names: list[str]) -> Path:
    for place in (folder / "images", folder, model.parent.parent / "images", model.parent / "images", folder / "input"):
        if names and (place / names[0]).is_file():
            return place
    raise SourceError(
        f"{folder}: the images of the COLMAP model ({names[0] if names else 'none'} …) are not in images/"
    )


def _camera(model: str, width: int, height: int, p: list[float]) -> ReadCamera:
    """Raises SourceError for a model that is not supported."""
    if model in _ONE_FOCAL_LENGTH:
        p = [p[0], *p]
    fx, fy, cx, cy, *d = p
    if model.endswith("FISHEYE") and model != "THIN_PRISM_FISHEYE":
        name, d = "equidistant", (d + [0.0] * 4)[:4]
    elif model == "FULL_OPENCV":
        name = "rational_polynomial"
    elif model in ("FOV", "THIN_PRISM_FISHEYE") or not p:
        raise SourceError(
            f"COLMAP's camera model {model} is not supported: undistort the images (colmap image_undistorter)"
        )
    else:
        name, d = "plumb_bob", [*d, *[0.0] * (5 - len(d))] if d else []
    return pinhole(fx, fy, cx - HALF_PIXEL, cy - HALF_PIXEL, name, tuple(d), (width, height))


def _pose(q: tuple[float, ...], t: tuple[float, ...]) -> ReadPose:
    w, x, y, z = q
    return lambda: invert(from_quaternion((x, y, z, w), t))


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    return [line for line in lines if not line.startswith("#")]


def _text_cameras(path: Path) -> _Cameras:
    rows = [line.split() for line in _lines(path) if line.strip()]
    known = dict(MODELS)
    cameras = {}
    for at, row in enumerate(rows, start=1):
        if len(row) < 4 or row[1] not in known or len(row) != 4 + known[row[1]]:
            raise SourceError(
                f"{path}, camera {at}: {' '.join(row[:4])!r} is none of {', '.join(known)} with its parameters"
            )
        cameras[int(row[0])] = _camera(row[1], int(row[2]), int(row[3]), [float(x) for x in row[4:]])
    return cameras


def _text_images(path: Path) -> Iterator[tuple[str, int, ReadPose]]:
    """Two lines an image, the second one with its points, numbers in threes; empty, or left out by some, where it has none."""
    for at, line in enumerate(_lines(path), start=1):
        row = line.split(maxsplit=9)
        if not row or _all_numbers(line):
            continue
        if len(row) != 10:
            raise SourceError(f"{path}, line {at}: 10 columns of an image expected, {len(row)} found")
        values = tuple(float(x) for x in row[1:8])
        yield row[9].strip(), int(row[8]), _pose(values[:4], values[4:])


def _all_numbers(line: str) -> bool:
    try:
        return len([float(x) for x in line.split()]) % 3 == 0
    except ValueError:
        return False


def _binary_cameras(path: Path) -> _Cameras:
    data = path.read_bytes()
    (count,) = struct.unpack_from("<Q", data)
    at, cameras = 8, {}
    for _ in range(count):
        number, model, width, height = struct.unpack_from("<iiQQ", data, at)
        if not 0 <= model < len(MODELS):
            raise SourceError(f"{path}: camera model number {model} is not supported: undistort the images")
        name, parameters = MODELS[model]
        cameras[number] = _camera(name, width, height, list(struct.unpack_from(f"<{parameters}d", data, at + 24)))
        at += 24 + 8 * parameters
    return cameras


def _binary_images(path: Path) -> Iterator[tuple[str, int, ReadPose]]:
    data = path.read_bytes()
    (count,) = struct.unpack_from("<Q", data)
    at = 8
    for _ in range(count):
        values = struct.unpack_from("<7d", data, at + 4)
        (camera,) = struct.unpack_from("<i", data, at + 60)
        end = data.index(b"\0", at + 64)
        name = data[at + 64 : end].decode("utf-8")
        (points,) = struct.unpack_from("<Q", data, end + 1)
        at = end + 9 + 24 * points
        yield name, camera, _pose(values[:4], values[4:])


LAYOUT = Layout(
    name="COLMAP model (sparse/0/cameras and images, .bin or .txt; images/)",
    needs=tuple(
        tuple(f"{place}{name}.{kind}" for place in _MODEL_FOLDERS for kind in ("bin", "txt"))
        for name in ("cameras", "images")
    ),
    read=read,
)
