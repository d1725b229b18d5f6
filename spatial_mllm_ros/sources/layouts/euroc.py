"""EuRoC, TUM-VI and others in the ASL format: mav0/cam0/data.csv, sensor.yaml, state_groundtruth_estimate0."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.pose import Transform, checked_transform, from_quaternion
from spatial_mllm_ros.sources.layouts.cameras import pinhole
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, ReadCamera, no_camera
from spatial_mllm_ros.sources.layouts.layout import Layout
from spatial_mllm_ros.sources.layouts.trajectory import Trajectory
from spatial_mllm_ros.sources.layouts.tum import rows, unlisted
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import to_ns

TRUTHS = ("state_groundtruth_estimate0", "mocap0", "vicon0")
"""Folders with the body's poses, the best one first."""
_MODELS = {"radial-tangential": "plumb_bob", "radtan": "plumb_bob", "equidistant": "equidistant", "": "plumb_bob"}


def read(folder: Path, settings: InputSettings) -> Listing:
    """cam0/data.csv: stamp (ns) and file. cam0/sensor.yaml: intrinsics, distortion, T_BS (camera in the body). Body poses:
    stamp (ns), position, quaternion w first. There is no depth.
    """
    camera_folder = folder if (folder / "data.csv").exists() else folder / "cam0"
    sensor = _sensor(camera_folder / "sensor.yaml")
    T_body_camera = _mounting(sensor)
    poses = Trajectory(settings)
    whence = ""
    for name in TRUTHS:
        path = camera_folder.resolve().parent / name / "data.csv"
        if path.exists():
            T_body_marker = _mounting(_sensor(path.with_name("sensor.yaml")))
            T_marker_camera = np.linalg.inv(T_body_marker) @ T_body_camera
            for row in rows(path, 8):
                x, y, z, qw, qx, qy, qz = (float(value) for value in row[1:8])
                poses.add(to_ns(row[0], "ns"), from_quaternion((qx, qy, qz, qw), (x, y, z)) @ T_marker_camera)
            whence = f"{poses.count} poses of {name}"
            break
    camera = _camera(sensor)
    entries = []
    files = []
    for row in rows(camera_folder / "data.csv", 2):
        path, stamp = camera_folder / "data" / row[1], to_ns(row[0], "ns")
        files.append(path)
        entries.append(
            Entry(
                name=path.stem,
                aliases=(path.name,),
                stamp_ns=stamp,
                color=path.read_bytes,
                pose=poses.at(stamp) if poses.count else None,
                pose_stddev=poses.stddev_at(stamp),
                camera=camera,
                camera_frame=camera_folder.name,
            )
        )
    return Listing(
        kind="EuRoC (ASL) sequence",
        entries=entries,
        world_frame="world",
        refused=+Counter(not_listed=unlisted(files)),
        chosen=(f"camera {camera_folder.resolve().name}, {whence or 'no poses'}",),
    )


def _sensor(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8").replace("%YAML:1.0", ""))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} must hold a sensor's calibration")
    return content


def _mounting(sensor: dict[str, Any]) -> Transform:
    """T_BS: the sensor in the body."""
    if "T_BS" not in sensor:
        return np.eye(4)
    return checked_transform(np.array(sensor["T_BS"]["data"], dtype=np.float64).reshape(4, 4))


def _camera(sensor: dict[str, Any]) -> ReadCamera:
    if "intrinsics" not in sensor:
        return no_camera
    model = str(sensor.get("distortion_model", ""))
    if model not in _MODELS:
        raise SourceError(
            f"sensor.yaml: distortion_model {model!r} is not supported, only {', '.join(filter(None, _MODELS))}"
        )
    fx, fy, cx, cy = (float(x) for x in sensor["intrinsics"])
    d = tuple(float(x) for x in sensor.get("distortion_coefficients") or ())
    size = sensor.get("resolution")
    return pinhole(fx, fy, cx, cy, _MODELS[model], d, None if size is None else (int(size[0]), int(size[1])))


LAYOUT = Layout(
    name="EuRoC (ASL) folder (cam0/data.csv, cam0/data/, cam0/sensor.yaml)",
    needs=(("cam0/data.csv", "data.csv"), ("cam0/data/*", "data/*.png"), ("cam0/sensor.yaml", "sensor.yaml")),
    read=read,
)
