"""Lists of poses as other layouts write them: a matrix a line, or Open3D's trajectory.log."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.sources.calibration import pose_of, read_numbers
from spatial_mllm_ros.sources.layouts.entries import ReadPose
from spatial_mllm_ros.sources.source import SourceError


def matrix_lines(path: Path) -> list[np.ndarray]:
    """Matrices of 4x4 or 3x4, row by row, one a line. Raises SourceError."""
    try:
        lines = [line.replace(",", " ").split() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        numbers = [[float(x) for x in line] for line in lines if line and not line[0].startswith("#")]
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    for at, row in enumerate(numbers, start=1):
        if len(row) not in (12, 16):
            raise SourceError(
                f"{path}, pose {at}: 12 or 16 numbers expected (3x4 or 4x4, row by row), {len(row)} found"
            )
    return [np.array(row).reshape(-1, 4) for row in numbers]


def trajectory_log(path: Path) -> dict[int, np.ndarray]:
    """Open3D's: for each image its number, two more, and four lines of its camera-to-world matrix. Raises SourceError."""
    try:
        numbers = read_numbers(path)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if numbers.size % 19:
        raise SourceError(f"{path}: blocks of 3 and 16 numbers expected, {numbers.size} numbers found: it is cut off")
    return {int(block[0]): block[3:].reshape(4, 4) for block in numbers.reshape(-1, 19)}


def in_order(matrices: list[np.ndarray], count: int, path: Path) -> tuple[list[ReadPose | None], Doubt | None]:
    """A pose for each of ``count`` images in order, and what is wrong where there are more or fewer."""
    poses: list[ReadPose | None] = [partial(pose_of, matrix) for matrix in matrices[:count]]
    poses += [None] * (count - len(poses))
    if len(matrices) == count:
        return poses, None
    return poses, Doubt(
        kind="pose_count",
        text=f"{path.name} holds {len(matrices)} poses for {count} images, which are taken in order",
        remedy="check that both are of the same recording and complete",
        confidence=0.5,
    )
