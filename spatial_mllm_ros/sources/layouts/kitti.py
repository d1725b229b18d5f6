"""Sequences of the KITTI odometry benchmark: image_2/, calib.txt, times.txt, poses/XX.txt."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.pose import Transform, make_transform
from spatial_mllm_ros.sources.calibration import read_numbers
from spatial_mllm_ros.sources.layouts.cameras import pinhole
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, ReadPose, told
from spatial_mllm_ros.sources.layouts.layout import Layout, first, ordered
from spatial_mllm_ros.sources.layouts.poses import in_order, matrix_lines
from spatial_mllm_ros.sources.layouts.tum import rows
from spatial_mllm_ros.sources.source import SourceError

CAMERAS = ("image_2", "image_3", "image_0", "image_1")
"""Color left and right, then grey left and right."""


def read(folder: Path, settings: InputSettings) -> Listing:
    """calib.txt: P0 to P3, 3x4, of the rectified images, of which the last column says where each camera is. times.txt:
    seconds. poses/XX.txt: 3x4 a line, camera 0 in the world, which has the axes of its first image. There is no depth.
    """
    place = next(name for name in CAMERAS if first(folder, f"{name}/*.png", f"{name}/*.jpg") is not None)
    images = ordered(folder, f"{place}/*.png", f"{place}/*.jpg")
    P = _projection(folder / "calib.txt", int(place[-1]))
    times = read_numbers(folder / "times.txt")
    if len(times) != len(images):
        raise SourceError(f"{folder / 'times.txt'} holds {len(times)} times for {len(images)} images of {place}")
    name = folder.resolve().name
    places = [
        folder / "poses.txt",
        *(above / "poses" / f"{name}.txt" for above in (folder, *folder.resolve().parents[:2])),
    ]
    path = next((place for place in places if place.is_file()), None)
    poses, uneven = in_order(matrix_lines(path) if path is not None else [], len(images), path or folder)
    T_camera0_camera = make_transform(np.eye(3), -np.linalg.solve(P[:, :3], P[:, 3]))
    entries = [
        Entry(
            name=image.stem,
            aliases=(image.name,),
            stamp_ns=round(float(time) * 1e9),
            color=image.read_bytes,
            pose=None if pose is None else partial(_placed, pose, T_camera0_camera),
            camera=pinhole(P[0, 0], P[1, 1], P[0, 2], P[1, 2]),
            camera_frame=place,
        )
        for image, time, pose in zip(images, times, poses, strict=True)
    ]
    return Listing(
        kind="KITTI odometry sequence",
        entries=entries,
        world_frame="world",
        chosen=(f"camera {place}, {'no poses' if path is None else f'poses of {path}'}",),
        doubts=told(uneven if path is not None else None),
    )


def _placed(pose: ReadPose, T_camera0_camera: Transform) -> Transform:
    return pose() @ T_camera0_camera


def _projection(path: Path, camera: int) -> np.ndarray:
    for row in rows(path, 2):
        if row[0].rstrip(":") == f"P{camera}":
            if len(row) != 13:
                raise SourceError(f"{path}: P{camera} must hold 12 numbers, not {len(row) - 1}")
            return np.array(row[1:], dtype=np.float64).reshape(3, 4)
    raise SourceError(f"{path} holds no P{camera}")


LAYOUT = Layout(
    name="KITTI odometry sequence (image_2/, calib.txt, times.txt)",
    needs=(tuple(f"{name}/*.{kind}" for name in CAMERAS for kind in ("png", "jpg")), ("calib.txt",), ("times.txt",)),
    read=read,
)
