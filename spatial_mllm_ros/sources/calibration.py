"""Small text files beside a recording: camera models, poses, stamps, sensor models."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from spatial_mllm_ros.scene.camera import CameraModel, InvalidCamera
from spatial_mllm_ros.scene.pose import InvalidTransform, Transform, checked_transform
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import Stamps, table_stamps

STAMP_COLUMNS = ("timestamp_s", "nominal_time_s")


class LostPose(InvalidTransform):
    """A pose file that says that tracking was lost: infinities, NaN, all zero or all -1."""


def read_table(path: Path, names: Collection[str]) -> tuple[dict[str, dict[str, str]], Stamps | None]:
    """frames.csv: its rows by the name of the frame, and their times in that order.

    names: of the frames; a row may call one by the name of its file. The time is the column ``timestamp_s`` or
    ``nominal_time_s`` in seconds, else the one column whose name says time or stamp, in what its name or its size says;
    None where there is none. Raises SourceError.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in reader.fieldnames or () if column is not None]
            rows = [{str(k).strip(): v for k, v in row.items() if isinstance(v, str)} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if any(not row.get("name") for row in rows):
        raise SourceError(f"{path} needs a column 'name' that is filled in every row; its columns are {columns}")
    for row in rows:
        if row["name"] not in names and Path(row["name"]).stem in names:
            row["name"] = Path(row["name"]).stem
    by_name = {row["name"]: row for row in rows}
    known = [column for column in STAMP_COLUMNS if column in columns]
    others = [column for column in columns if re.search("time|stamp", column, re.IGNORECASE)]
    if not known and len(others) > 1:
        raise SourceError(f"{path}: which of the columns {', '.join(others)} is the time? Call it timestamp_s (in seconds)")
    if not known and not others:
        return by_name, None
    values = []
    for row in by_name.values():
        value = next((row[column] for column in known or others if row.get(column)), None)
        if value is None:
            raise SourceError(f"{path}, row {row['name']}: has no time in {' or '.join(known or others)}")
        values.append(value)
    try:
        return by_name, table_stamps(values, "timestamp_s" if known else others[0])
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error


def read_numbers(path: Path) -> np.ndarray:
    """The numbers in a text file, however they are separated (spaces, commas, brackets), float64 [n]. Raises ValueError."""
    text = path.read_text(encoding="utf-8-sig")
    return np.array(re.sub(r"[\[\](){},;]", " ", text).split(), dtype=np.float64)


def read_matrix(path: Path, *shapes: tuple[int, int]) -> np.ndarray:
    """A text file of numbers as float64 of the first of the shapes that fits. Raises ValueError (also for a file cut off)."""
    numbers = read_numbers(path)
    for shape in shapes:
        if numbers.size == shape[0] * shape[1]:
            return numbers.reshape(shape)
    wanted = " or ".join(f"{rows}x{columns}" for rows, columns in shapes)
    raise ValueError(f"{path} holds {numbers.size} numbers, not {wanted}")


def pose_of(matrix: np.ndarray) -> Transform:
    """A 4x4 or 3x4 matrix as a rigid transform. Raises LostPose where tracking was lost, InvalidTransform for others."""
    if not np.isfinite(matrix).all() or (matrix == 0).all() or (matrix == -1).all():
        raise LostPose("tracking was lost")
    return checked_transform(matrix if matrix.shape[0] == 4 else np.vstack([matrix, (0, 0, 0, 1)]))


def read_transform(path: Path) -> Transform:
    """A 4x4 or 3x4 rigid transform from a text file. Raises LostPose, and other ValueErrors (InvalidTransform is one)."""
    try:
        return pose_of(read_matrix(path, (4, 4), (3, 4)))
    except LostPose:
        raise
    except InvalidTransform as error:
        raise InvalidTransform(f"{path}: {error}") from error


def read_camera(folder: Path, size: tuple[int, int]) -> CameraModel | None:
    """The camera of a folder: camera.yaml (the format of ROS camera calibration), else intrinsics.txt (3x3), else None.

    size: (width, height) of the images, px. Raises SourceError for a file that does not hold a camera of that size.
    """
    calibration, matrix = folder / "camera.yaml", folder / "intrinsics.txt"
    if not calibration.exists():
        return matrix_camera(matrix, size) if matrix.exists() else None
    return camera_from_file(calibration, size)


def camera_from_file(calibration: Path, size: tuple[int, int]) -> CameraModel:
    """The camera of a file in the format of ROS camera calibration. Raises SourceError as ``read_camera``."""
    try:
        camera = _camera_from_yaml(yaml.safe_load(calibration.read_text(encoding="utf-8")), size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise SourceError(f"{calibration} does not hold a camera model: {error}") from error
    if (camera.width, camera.height) != size:
        raise SourceError(
            f"{calibration} is for {camera.width}x{camera.height}, but the images are {size[0]}x{size[1]}: "
            "calibrate at this size or scale the file"
        )
    return camera


def matrix_camera(path: Path, size: tuple[int, int]) -> CameraModel:
    """The camera of a text file with its matrix (3x3 or 4x4, px), of images of a size. Raises SourceError."""
    try:
        return CameraModel.from_camera_info(*size, read_matrix(path, (3, 3), (4, 4))[:3, :3])
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} does not hold a camera model: {error}") from error


def _camera_from_yaml(data: dict[str, Any], size: tuple[int, int]) -> CameraModel:
    if not isinstance(data, dict) or "camera_matrix" not in data:
        raise InvalidCamera("camera_matrix is missing (the format is that of ROS camera calibration)")
    return CameraModel.from_camera_info(
        data.get("image_width") or size[0],
        data.get("image_height") or size[1],
        data["camera_matrix"]["data"],
        (data.get("distortion_coefficients") or {}).get("data") or (),
        data.get("distortion_model") or "",
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
