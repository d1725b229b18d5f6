"""Small text files beside a recording: camera models, poses, stamps, sensor models."""

from __future__ import annotations

import csv
import dataclasses
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from spatial_mllm_ros.scene.camera import CameraModel, InvalidCamera
from spatial_mllm_ros.scene.pose import InvalidTransform, Transform, checked_transform
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.sources.source import SourceError

STAMP_COLUMNS = ("timestamp_s", "nominal_time_s")


def seconds_to_ns(text: str) -> int:
    """Decimal seconds as integer nanoseconds, exactly: a float cannot hold an epoch stamp to the nanosecond.

    Raises ValueError.
    """
    try:
        return int((Decimal(text.strip()) * 1_000_000_000).to_integral_value())
    except (InvalidOperation, OverflowError, ValueError) as error:
        raise ValueError(f"{text!r} is not a time in seconds") from error


def ns_to_seconds(stamp_ns: int) -> str:
    """Nanoseconds as decimal seconds with nine digits, exactly."""
    sign, rest = ("-", -stamp_ns) if stamp_ns < 0 else ("", stamp_ns)
    return f"{sign}{rest // 1_000_000_000}.{rest % 1_000_000_000:09d}"


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of frames.csv, each with ``name``. Raises SourceError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if any(not row.get("name") for row in rows):
        raise SourceError(f"{path} needs a column 'name' that is filled in every row")
    return rows


def row_stamp_ns(path: Path, row: dict[str, str]) -> int:
    """Stamp of a row of frames.csv, ns. Raises SourceError when it has none."""
    for column in STAMP_COLUMNS:
        if row.get(column):
            try:
                return seconds_to_ns(row[column])
            except ValueError as error:
                raise SourceError(f"{path}, row {row['name']}: {error}") from error
    raise SourceError(f"{path}, row {row['name']}: needs a time in a column {' or '.join(STAMP_COLUMNS)}")


def read_matrix(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A text file of numbers as float64 of the given shape. Raises ValueError (also for a file cut off)."""
    numbers = np.array(path.read_text(encoding="utf-8").split(), dtype=np.float64)
    if numbers.size != shape[0] * shape[1]:
        raise ValueError(f"{path} holds {numbers.size} numbers, not {shape[0]}x{shape[1]}")
    return numbers.reshape(shape)


def read_transform(path: Path) -> Transform:
    """A 4x4 rigid transform from a text file. Raises ValueError (InvalidTransform is one)."""
    try:
        return checked_transform(read_matrix(path, (4, 4)))
    except InvalidTransform as error:
        raise InvalidTransform(f"{path}: {error}") from error


def read_camera(folder: Path, size: tuple[int, int]) -> CameraModel | None:
    """The camera of a folder: camera.yaml (the format of ROS camera calibration), else intrinsics.txt (3x3), else None.

    size: (width, height) of the images, px. Raises SourceError for a file that does not hold a camera of that size.
    """
    calibration, matrix = folder / "camera.yaml", folder / "intrinsics.txt"
    try:
        if calibration.exists():
            camera = _camera_from_yaml(yaml.safe_load(calibration.read_text(encoding="utf-8")), size)
            if (camera.width, camera.height) != size:
                raise SourceError(
                    f"{calibration} is for {camera.width}x{camera.height}, but the images are {size[0]}x{size[1]}: "
                    "calibrate at this size or scale the file"
                )
            return camera
        if matrix.exists():
            return CameraModel.from_camera_info(size[0], size[1], read_matrix(matrix, (3, 3)).reshape(-1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        path = calibration if calibration.exists() else matrix
        raise SourceError(f"{path} does not hold a camera model: {error}") from error
    return None


def _camera_from_yaml(data: dict[str, Any], size: tuple[int, int]) -> CameraModel:
    if not isinstance(data, dict) or "camera_matrix" not in data:
        raise InvalidCamera("camera_matrix is missing (the format is that of ROS camera calibration)")
    return CameraModel.from_camera_info(
        data.get("image_width", size[0]),
        data.get("image_height", size[1]),
        data["camera_matrix"]["data"],
        data.get("distortion_coefficients", {}).get("data", ()),
        data.get("distortion_model", ""),
    )


def camera_to_yaml(camera: CameraModel, name: str) -> str:
    """A camera model in the format of ROS camera calibration, which ``read_camera`` reads back exactly."""
    rows = len(camera.distortion) or 5
    return yaml.safe_dump(
        {
            "image_width": camera.width,
            "image_height": camera.height,
            "camera_name": name,
            "camera_matrix": {"rows": 3, "cols": 3, "data": [float(x) for x in camera.K.reshape(-1)]},
            "distortion_model": camera.distortion_model,
            "distortion_coefficients": {"rows": 1, "cols": rows, "data": list(camera.distortion) or [0.0] * rows},
        },
        sort_keys=False,
        default_flow_style=None,
    )


def read_sensor(folder: Path) -> SensorModel:
    """sensor.yaml (fields of SensorModel), else the default model. Raises SourceError for unknown fields or values."""
    path = folder / "sensor.yaml"
    if not path.exists():
        return SensorModel()
    try:
        return sensor_from_yaml(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def sensor_from_yaml(values: Any, where: str) -> SensorModel:
    """A mapping of fields of SensorModel; those that it lacks keep their defaults. Raises SourceError."""
    known = {f.name for f in dataclasses.fields(SensorModel)}
    if not isinstance(values, dict) or not set(values) <= known:
        raise SourceError(f"{where} may hold only {', '.join(sorted(known))}")
    try:
        numbers = {name: float(value) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise SourceError(f"{where}: {error}") from error
    if not all(np.isfinite(v) and v >= 0 for v in numbers.values()):
        raise SourceError(f"{where}: standard deviations must be finite and not negative")
    return SensorModel(**numbers)


def sensor_to_yaml(sensor: SensorModel) -> str:
    """A sensor model as ``read_sensor`` reads it."""
    return yaml.safe_dump(dataclasses.asdict(sensor), sort_keys=False)
