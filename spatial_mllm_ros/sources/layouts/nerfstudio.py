"""transforms.json of nerfstudio and instant-ngp."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.metric_scale import MetricScale
from spatial_mllm_ros.scene.pose import T_OPENGL_OPTICAL, Transform
from spatial_mllm_ros.sources.calibration import pose_of
from spatial_mllm_ros.sources.image_files import IMAGE_SUFFIXES, depth_file
from spatial_mllm_ros.sources.layouts.cameras import HALF_PIXEL, pinhole, read_json
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, ReadCamera, Size, told
from spatial_mllm_ros.sources.layouts.layout import Layout, first
from spatial_mllm_ros.sources.layouts.times import times_of
from spatial_mllm_ros.sources.source import SourceError

MILLIMETRE = 0.001
"""Nerfstudio's unit of depth where none is told."""
_DEPTH_UNITS = ("depth_unit_scale_factor", "integer_depth_scale")
_MODELS = {
    "OPENCV": "plumb_bob",
    "PINHOLE": "plumb_bob",
    "SIMPLE_PINHOLE": "plumb_bob",
    "OPENCV_FISHEYE": "equidistant",
}
REASON = "transforms.json without depth does not say that it is in metres: set pose_unit_m to 1 where it is"
_PATHS = ("depth_file_path", "depth_path")


def read(folder: Path, settings: InputSettings) -> Listing:
    """transform_matrix: camera to world in OpenGL's axes (x right, y up, z backward), row by row. fl_x, fl_y, cx, cy, k1 …
    for all images or each; pixels count from the corner of the image. depth_file_path: integer depth in
    depth_unit_scale_factor, millimetres if it is not told. Poses without any depth are taken to be up to scale.
    """
    path = first(folder, "transforms.json", "transforms_train.json")
    assert path is not None
    content = read_json(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) and "file_path" in f for f in frames):
        raise SourceError(f"{path}: 'frames' must be a list of images, each with its file_path")
    files = [_image(folder, str(frame["file_path"])) for frame in frames]
    names = [path.stem for path in files]
    if len(set(names)) < len(names):
        names = [str(frame["file_path"]) for frame in frames]
    times = times_of(folder, names, settings)
    depths = [next((folder / str(f[key]) for key in _PATHS if f.get(key)), None) for f in frames]
    unit, whence = next(
        ((float(content[key]), key) for key in _DEPTH_UNITS if key in content), (MILLIMETRE, "by default")
    )
    scale = float(content.get("applied_scale", 1.0))  # what nerfstudio multiplied positions by
    if not scale > 0:
        raise SourceError(f"transforms.json: applied_scale must be positive, not {scale}")
    shared = {key: value for key, value in content.items() if key != "frames"}
    entries = [
        Entry(
            name=name,
            aliases=tuple({path.name, path.stem, str(frame["file_path"])} - {name}),
            stamp_ns=times.stamps[name],
            color=path.read_bytes,
            depth=None if depth is None else depth_file(depth),
            pose=partial(_pose, frame["transform_matrix"], scale) if "transform_matrix" in frame else None,
            camera=_camera(shared | frame),
        )
        for name, path, depth, frame in zip(names, files, depths, frames, strict=True)
        if name in times.stamps
    ]
    measured = any(depth is not None for depth in depths)
    words = f"depth counts {unit:g} m ({whence})" if measured else "poses up to scale, as no depth comes with them"
    return Listing(
        kind="nerfstudio transforms.json",
        entries=entries,
        depth_unit_m=unit,
        depth_assumed=whence == "by default",
        world_frame="world",
        scale=None if measured else MetricScale(reason=REASON),
        chosen=(words, times.words),
        doubts=told(times.doubt),
        refused=times.missing,
    )


def _image(folder: Path, name: str) -> Path:
    """NeRF's synthetic scenes leave out the suffix."""
    path = folder / name.replace("\\", "/")
    if path.suffix.lower() in IMAGE_SUFFIXES or path.exists():
        return path
    return first(path.parent, *(path.name + suffix for suffix in (".png", ".jpg", ".jpeg"))) or path


def _pose(matrix: Any, scale: float) -> Transform:
    T = pose_of(np.array(matrix, dtype=np.float64).reshape(-1, 4)).copy()
    T[:3, 3] /= scale
    return T @ T_OPENGL_OPTICAL


def _camera(values: dict[str, Any]) -> ReadCamera:
    """OpenCV's coefficients by name; a fisheye's are four."""
    name = str(values.get("camera_model", "OPENCV")).upper()
    if values.get("is_fisheye"):  # as instant-ngp says it
        name = "OPENCV_FISHEYE"
    if name not in _MODELS:
        raise SourceError(f"transforms.json: camera_model {name} is not supported, only {', '.join(_MODELS)}")
    keys = ("k1", "k2", "k3", "k4") if name == "OPENCV_FISHEYE" else ("k1", "k2", "p1", "p2", "k3")
    d = () if "PINHOLE" in name else tuple(float(values.get(key) or 0.0) for key in keys)
    of: Size | None = (int(values["w"]), int(values["h"])) if "w" in values and "h" in values else None
    if "fl_x" not in values and of is None and "camera_angle_x" not in values:
        raise SourceError("transforms.json: neither fl_x nor camera_angle_x tells the focal length")

    def camera(size: Size) -> CameraModel | None:
        w, h = of or size
        fx = float(values["fl_x"]) if "fl_x" in values else w / 2 / math.tan(float(values["camera_angle_x"]) / 2)
        fy = float(values.get("fl_y", fx))
        cx, cy = float(values.get("cx", w / 2)), float(values.get("cy", h / 2))
        return pinhole(fx, fy, cx - HALF_PIXEL, cy - HALF_PIXEL, _MODELS[name], d, (w, h))(size)

    return camera


LAYOUT = Layout(
    name="nerfstudio or instant-ngp folder (transforms.json)",
    needs=(("transforms.json", "transforms_train.json"),),
    read=read,
)
