"""Folders of the TUM RGB-D benchmark (Sturm et al., IROS 2012): rgb.txt, depth.txt, groundtruth.txt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.scene.pose import InvalidTransform, from_quaternion
from spatial_mllm_ros.scene.transform_tree import TransformError, TransformTree
from spatial_mllm_ros.sources.calibration import read_camera, read_sensor
from spatial_mllm_ros.sources.compressed import BadImage, decode_png16, encoded_image
from spatial_mllm_ros.sources.folder import CAMERA_FRAME
from spatial_mllm_ros.sources.source import SourceError, SourceInfo
from spatial_mllm_ros.sources.stamps import seconds_to_ns

DEPTH_UNITS_PER_METRE = 5000
ASSOCIATION_NS = 20_000_000
LONGEST_GAP_NS = 100_000_000
"""Motion capture runs at 100 Hz or more; a longer gap in it is not interpolated across."""

# Colour cameras as the benchmark publishes them ("Intrinsic Camera Calibration of the Kinect"): fx, fy, cx, cy and
# k1, k2, p1, p2, k3. freiburg3's images are rectified.
CAMERAS = {
    "1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "3": ((535.4, 539.2, 320.1, 247.6), ()),
}
SIZE = (640, 480)


@dataclass(frozen=True)
class _Image:
    stamp_ns: int
    path: Path


class TumFolderSource:
    """A sequence of the TUM RGB-D benchmark, or another in its format.

    rgb.txt, depth.txt: lines "stamp file". groundtruth.txt: lines "stamp tx ty tz qx qy qz qw", the colour camera in
    the world (z up). Depth PNGs count 1/5000 m. A colour image takes the nearest depth within 20 ms, one each, and the
    pose interpolated at its stamp. The camera is camera.yaml or intrinsics.txt, else the published one of the
    freiburg1, freiburg2 or freiburg3 in the folder's name. ``remarks``: frames without depth or pose, by reason. Raises
    SourceError.
    """

    def __init__(self, folder: Path | str, settings: InputSettings | None = None) -> None:
        self._folder = Path(folder)
        self._settings = settings or InputSettings()
        self.doubts: list[Doubt] = []
        self.refused: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self._repeated = 0
        self._colour = self._list("rgb.txt")
        if not self._colour:
            raise SourceError(f"{self._folder / 'rgb.txt'} lists no images")
        self._depth = self._list("depth.txt") if (self._folder / "depth.txt").exists() else []
        self._pairs = _associate([i.stamp_ns for i in self._colour], [i.stamp_ns for i in self._depth])
        self._poses = self._trajectory()
        self._camera = self._find_camera()
        self._stamps = {image.path.name: image.stamp_ns for image in self._colour}
        self._stamps.update({image.path.stem: image.stamp_ns for image in self._colour})
        duration_s = (self._colour[-1].stamp_ns - self._colour[0].stamp_ns) / 1e9
        self.info = SourceInfo(
            name=self._folder.resolve().name,
            frames=len(self._colour),
            duration_s=duration_s,
            world_frame="world",
            sensor=read_sensor(self._folder),
            description=f"TUM RGB-D sequence, {len(self._colour)} colour and {len(self._depth)} depth images, "
            f"{duration_s:.1f} s",
        )

    def stamp_of(self, name: str) -> int:
        """Stamp (ns) of the colour image with that file name, with or without its suffix. KeyError if there is none."""
        try:
            return self._stamps[name]
        except KeyError:
            raise KeyError(
                f"{self.info.name} has no image {name!r}; names are as {next(iter(self._stamps))!r}"
            ) from None

    def frames(self) -> Iterator[Frame]:
        """Frames by increasing stamp. A damaged colour image is refused; damaged depth is left out."""
        self.refused.clear()
        self.remarks.clear()
        if self._repeated:
            self.refused["repeated_stamp"] = self._repeated
        for at, colour in enumerate(self._colour):
            try:
                image, size = encoded_image(colour.path.read_bytes())
            except (BadImage, OSError) as error:
                self.refused[error.reason if isinstance(error, BadImage) else "unreadable_file"] += 1
                continue
            if size != (self._camera.width, self._camera.height):
                self.refused["image_size"] += 1
                continue
            pose = None
            try:
                pose = self._poses.lookup("world", CAMERA_FRAME, colour.stamp_ns)
            except TransformError as error:
                self.remarks[error.reason] += 1
            depth = self._depth_mm(self._pairs.get(at), size)
            yield Frame(colour.stamp_ns, CAMERA_FRAME, self._camera, image, depth, pose, "world")

    def _depth_mm(self, at: int | None, size: tuple[int, int]) -> NDArray[np.uint16] | None:
        if at is None:
            self.remarks["no_depth"] += 1
            return None
        try:
            raw = decode_png16(self._depth[at].path.read_bytes())
        except (BadImage, OSError):
            self.remarks["damaged_depth"] += 1
            return None
        if raw.shape != (size[1], size[0]):
            self.remarks["depth_size"] += 1
            return None
        return np.rint(raw * (1000 / DEPTH_UNITS_PER_METRE)).astype(np.uint16)

    def _rows(self, name: str, columns: int) -> Iterator[list[str]]:
        path = self._folder / name
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path} cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            fields = line.replace(",", " ").split()
            if not fields or fields[0].startswith("#"):
                continue
            if len(fields) < columns:
                raise SourceError(f"{path}, line {number}: {columns} columns expected, {len(fields)} found")
            yield fields

    def _list(self, name: str) -> list[_Image]:
        images: dict[int, _Image] = {}
        for fields in self._rows(name, 2):
            try:
                stamp = seconds_to_ns(fields[0])
            except ValueError as error:
                raise SourceError(f"{self._folder / name}: {error}") from error
            if stamp in images:
                self._repeated += 1
            images.setdefault(stamp, _Image(stamp, self._folder / fields[1]))
        return [images[stamp] for stamp in sorted(images)]

    def _trajectory(self) -> TransformTree:
        poses = TransformTree(history_ns=2**62, history_count=2**31, max_gap_ns=LONGEST_GAP_NS)
        if not (self._folder / "groundtruth.txt").exists():
            return poses
        for fields in self._rows("groundtruth.txt", 8):
            try:
                values = [float(x) for x in fields[1:8]]
                T = from_quaternion(values[3:], values[:3])
                poses.add("world", CAMERA_FRAME, seconds_to_ns(fields[0]), T)
            except (ValueError, InvalidTransform) as error:
                raise SourceError(f"{self._folder / 'groundtruth.txt'}, stamp {fields[0]}: {error}") from error
        return poses

    def _find_camera(self) -> CameraModel:
        camera = read_camera(self._folder, SIZE) if self._has_calibration() else None
        if camera is not None:
            return camera
        found = re.search(r"(?:freiburg|fr)([123])", self._folder.resolve().name)
        if found is None:
            raise SourceError(
                f"{self._folder}: the camera is not known. Put its matrix into intrinsics.txt (3x3) or camera.yaml, "
                "or let the folder's name contain freiburg1, freiburg2 or freiburg3"
            )
        (fx, fy, cx, cy), distortion = CAMERAS[found[1]]
        return CameraModel(*SIZE, fx, fy, cx, cy, "plumb_bob", distortion)

    def _has_calibration(self) -> bool:
        return any((self._folder / name).exists() for name in ("camera.yaml", "intrinsics.txt"))


def is_tum_folder(folder: Path) -> bool:
    """Whether the folder holds rgb.txt."""
    return (folder / "rgb.txt").exists()


def _associate(colours: list[int], depths: list[int]) -> dict[int, int]:
    """Which depth image belongs to which colour image, by index: nearest pairs first, each image in one at most."""
    if not depths:
        return {}
    stamps = np.array(depths)
    candidates = []
    for at, stamp in enumerate(colours):
        first, last = np.searchsorted(stamps, (stamp - ASSOCIATION_NS, stamp + ASSOCIATION_NS + 1))
        candidates += [(abs(depths[d] - stamp), at, d) for d in range(int(first), int(last))]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, at, d in sorted(candidates):
        if at not in pairs and d not in taken:
            pairs[at] = d
            taken.add(d)
    return pairs
