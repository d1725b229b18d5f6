"""Stray Scanner: rgb.mp4, depth/, confidence/, odometry.csv, camera_matrix.csv."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import cv2

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.pose import Transform, from_quaternion
from spatial_mllm_ros.sources.calibration import read_matrix
from spatial_mllm_ros.sources.compressed import BadImage
from spatial_mllm_ros.sources.layouts.cameras import pinhole
from spatial_mllm_ros.sources.layouts.confidence import confident_depth
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing
from spatial_mllm_ros.sources.layouts.layout import Layout, matching
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import seconds_to_ns
from spatial_mllm_ros.sources.video import Video

JPEG_QUALITY = 95
_POSE = ("qx", "qy", "qz", "qw", "x", "y", "z")


def read(folder: Path, settings: InputSettings) -> Listing:
    """odometry.csv: timestamp (s), frame, position and quaternion of the camera in the world, in optical axes; in newer
    recordings fx, fy, cx, cy of each frame. camera_matrix.csv: 3x3 of the images of rgb.mp4. depth/N.png: uint16 mm of the
    same view, smaller. confidence/N.png: 0 to 2.
    """
    path = folder / "odometry.csv"
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [{str(k).strip(): str(v).strip() for k, v in row.items()} for row in csv.DictReader(file)]
    if not rows or any(column not in rows[0] for column in ("timestamp", "frame", *_POSE)):
        raise SourceError(f"{path} needs the columns timestamp, frame, {', '.join(_POSE)}")
    K = read_matrix(folder / "camera_matrix.csv", (3, 3))
    shared = pinhole(K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    images = _Images(folder / "rgb.mp4")
    depths = {file.stem: file for kind in ("npy", "png") for file in matching(folder, f"depth/*.{kind}")}
    confidences = {file.stem: file for file in matching(folder, "confidence/*.png")}
    entries = []
    for number, row in enumerate(rows):
        name = row["frame"]
        own = [float(row[key]) for key in ("fx", "fy", "cx", "cy") if row.get(key)]
        entries.append(
            Entry(
                name=name,
                stamp_ns=seconds_to_ns(row["timestamp"]),
                color=partial(images.at, number),
                depth=confident_depth(depths[name], confidences.get(name)) if name in depths else None,
                pose=partial(_pose, [row[column] for column in _POSE]),
                camera=pinhole(own[0], own[1], own[2], own[3]) if len(own) == 4 else shared,
            )
        )
    return Listing(
        kind="Stray Scanner recording",
        entries=entries,
        world_frame="world",
        lossy_color=True,
        same_view=True,
        chosen=(f"{len(rows)} poses, {len(depths)} depth images in mm, without what ARKit is unsure of",),
    )


class _Images:
    """Images of a video by number, asked for in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._video: Video | None = None
        self._next = 0

    def at(self, number: int) -> bytes:
        """As JPEG: pixels of a phone's video would fill the memory. Raises BadImage."""
        if self._video is None or number < self._next:
            self._video = Video(self._path, upright=False)  # the camera's matrix is that of the image as it is stored
            self._next = 0
        while self._next <= number:
            if not self._video.grab():
                raise BadImage("truncated_video", f"{self._path.name} has no image {number}")
            self._next += 1
        image = self._video.image()
        if image is None:
            raise BadImage("does_not_decode", f"image {number} of {self._path.name} does not decode")
        ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not ok:
            raise BadImage("does_not_decode", f"image {number} of {self._path.name} cannot be compressed")
        return data.tobytes()


def _pose(values: list[str]) -> Transform:
    numbers = [float(value) for value in values]
    return from_quaternion(numbers[:4], numbers[4:])


LAYOUT = Layout(
    name="Stray Scanner folder (rgb.mp4, odometry.csv, camera_matrix.csv, depth/)",
    needs=(("rgb.mp4",), ("odometry.csv",), ("camera_matrix.csv",)),
    read=read,
)
