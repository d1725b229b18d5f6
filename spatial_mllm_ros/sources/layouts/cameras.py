"""Camera models as other layouts write them: matrices in text, and JSON of Open3D and Replica."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.sources.calibration import matrix_camera, read_camera
from spatial_mllm_ros.sources.layouts.entries import OneCamera, ReadCamera, Size
from spatial_mllm_ros.sources.layouts.layout import first
from spatial_mllm_ros.sources.source import SourceError

HALF_PIXEL = 0.5
"""COLMAP and what follows it count pixels from the corner of the top-left one; here they count from its centre."""


def pinhole(
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    model: str = "plumb_bob",
    d: tuple[float, ...] = (),
    of: Size | None = None,
) -> ReadCamera:
    """A camera by its numbers (px). of: size of the images that they are of, where it is told; images of the same view in
    another size get them scaled."""

    def camera(size: Size) -> CameraModel:
        whole = CameraModel.from_camera_info(*(of or size), (fx, 0, cx, 0, fy, cy, 0, 0, 1), d, model)
        same_view = abs(whole.width * size[1] / (whole.height * size[0]) - 1) < 0.02
        return whole.resized(*size) if size != (whole.width, whole.height) and same_view else whole

    return camera


def found_camera(folder: Path, *patterns: str) -> ReadCamera | None:
    """The camera of camera.yaml, else of the first file, JSON or matrix, that matches; None where there is none."""
    if (folder / "camera.yaml").exists():
        return OneCamera(partial(read_camera, folder))
    path = first(folder, *patterns)
    if path is None:
        return None
    return json_camera(path) if path.suffix.lower() == ".json" else OneCamera(partial(matrix_camera, path))


def json_camera(path: Path) -> ReadCamera:
    """Open3D's (width, height, intrinsic_matrix column by column), or fx, fy, cx, cy with w, h. Raises SourceError."""
    content = read_json(path)
    content = content.get("camera", content) if isinstance(content, dict) else {}
    try:
        if "intrinsic_matrix" in content:
            m = [float(x) for x in content["intrinsic_matrix"]]
            fx, fy, cx, cy = m[0], m[4], m[6], m[7]
        else:
            fx, fy, cx, cy = (float(content[key]) for key in ("fx", "fy", "cx", "cy"))
        size = [int(content[key]) for key in ("width", "height", "w", "h") if key in content]
        return pinhole(fx, fy, cx, cy, of=(size[0], size[1]) if len(size) == 2 else None)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(f"{path} does not hold a camera (intrinsic_matrix, or fx, fy, cx, cy): {error}") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises SourceError."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read as JSON: {error}") from error
