"""Writing recordings: as an RGB-D folder or as a rosbag2."""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.depth import MILLIMETRE_M, Depth
from spatial_mllm_ros.scene.frame import DEPTH_MM, Frame, depth_to_metres
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.sources.bag_files import is_bag
from spatial_mllm_ros.sources.calibration import camera_to_yaml, sensor_to_yaml
from spatial_mllm_ros.sources.compressed import JPEG, PNG, decode_rgb
from spatial_mllm_ros.sources.layouts import rgbd_folder
from spatial_mllm_ros.sources.settings import FILE
from spatial_mllm_ros.sources.source import Source, SourceError
from spatial_mllm_ros.sources.stamps import ns_to_seconds

Progress = Callable[[int, int | None], None]
"""Called with the number of frames written and the number expected, None if unknown."""

JPEG_QUALITY = 95
MOST_COUNTS = 65534
"""Of 16 bits; the last one mostly means no data."""
COARSER_UNITS_M = (0.002, 0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written. frames: how many. notes: what is not exactly as it was, for people."""

    frames: int
    notes: tuple[str, ...] = ()


def write_folder(
    source: Source, target: Path | str, *, png: bool = False, overwrite: bool = False, progress: Progress | None = None
) -> Written:
    """Write all frames of ``source`` as an RGB-D folder that open_source reads back.

    Stamps and poses are kept exactly, JPEG and PNG byte by byte; pixels become JPEG, or with ``png`` lossless PNG. Depth
    becomes whole millimetres, or a coarser unit where it reaches beyond 65 m. Frames keep their names if the source names
    them. Nothing is left at ``target`` when this is interrupted. Raises SourceError, also for several cameras, which one
    folder cannot hold, and for a ``target`` that exists, unless it is empty, or ``overwrite`` is given and it is a
    recording.
    """
    with replacing(Path(target), overwrite) as folder:
        unit_m = MILLIMETRE_M
        while True:
            folder.mkdir()
            writing = _Folder(folder, source, png, unit_m)
            try:
                return writing.write(progress)
            except _DeeperThanCounts as error:
                shutil.rmtree(folder)
                unit_m = error.unit_m


class _DeeperThanCounts(Exception):
    """Depth that 16 bits cannot count in the unit so far; ``unit_m`` is one in which they can."""

    def __init__(self, deepest_m: float) -> None:
        super().__init__()
        self.unit_m = next(
            (unit for unit in COARSER_UNITS_M if deepest_m <= MOST_COUNTS * unit), deepest_m / MOST_COUNTS
        )


class _Folder:
    """One attempt at writing a folder."""

    def __init__(self, folder: Path, source: Source, png: bool, unit_m: float) -> None:
        self._folder, self._source, self._png, self._unit_m = folder, source, png, unit_m
        self._rows: list[tuple[str, str, str, str]] = []
        self._rounded_m = 0.0
        self._cameras: set[CameraModel] = set()

    def write(self, progress: Progress | None) -> Written:
        """Raises _DeeperThanCounts, and SourceError."""
        source, first = self._source, None
        for frame in source.frames():
            first = first or frame
            if frame.camera_frame != first.camera_frame:
                raise two_cameras(first, frame)
            self._add(frame, first.camera)
            if progress is not None:
                progress(len(self._rows), source.info.frames)
        if first is None:
            raise SourceError(f"{source.info.name} gave no frames to write; refused: {dict(source.refused) or 'none'}")
        self._finish(first)
        notes = []
        if self._unit_m != MILLIMETRE_M:
            notes.append(f"depth reaches beyond 65 m: it counts {self._unit_m:g} m, as recording.yaml says")
        if self._rounded_m > 1e-6:
            notes.append(f"depth was rounded by up to {self._rounded_m * 1000:.2f} mm to what 16 bits count")
        if len(self._cameras) > 1:
            notes.append(f"the camera's calibration changes: {len(self._cameras)} of them are in NAME.camera.yaml")
        return Written(frames=len(self._rows), notes=tuple(notes))

    def _add(self, frame: Frame, camera: CameraModel | None) -> None:
        folder = self._folder
        name = _file_name(name_of(self._source, frame.stamp_ns)) or f"frame-{len(self._rows):06d}"
        if frame.image is None and frame.depth is None:
            raise SourceError(f"the frame at {ns_to_seconds(frame.stamp_ns)} s has neither color nor depth")
        if frame.image is not None:
            data = encoded_color(frame.image, self._png)
            (folder / f"{name}.color.{'png' if data.startswith(PNG) else 'jpg'}").write_bytes(data)
        if frame.depth is not None:
            (folder / (name + rgbd_folder.DEPTH_SUFFIX)).write_bytes(encode_png(self._counts(frame.depth)))
        if frame.T_world_camera is not None:
            _write_matrix(folder / f"{name}.pose.txt", frame.T_world_camera)
        if frame.camera is not None:
            self._cameras.add(frame.camera)
            if frame.camera != camera:
                text = camera_to_yaml(frame.camera, frame.camera_frame)
                (folder / f"{name}{rgbd_folder.CAMERA_SUFFIX}").write_text(text, encoding="utf-8")
        self._rows.append((name, ns_to_seconds(frame.stamp_ns), frame.camera_frame, frame.world_frame))

    def _counts(self, depth: Depth) -> NDArray[np.uint16]:
        if depth.dtype == DEPTH_MM and self._unit_m == MILLIMETRE_M:
            return depth.astype(np.uint16, copy=False)
        metres = np.nan_to_num(depth_to_metres(depth).astype(np.float64))
        if metres.max(initial=0.0) > MOST_COUNTS * self._unit_m:
            raise _DeeperThanCounts(float(metres.max()))
        counts = np.rint(metres / self._unit_m)
        self._rounded_m = max(self._rounded_m, float(np.abs(counts * self._unit_m - metres).max(initial=0.0)))
        return counts.astype(np.uint16)

    def _finish(self, first: Frame) -> None:
        folder, info = self._folder, self._source.info
        if first.camera is not None:
            _write_matrix(folder / "intrinsics.txt", first.camera.K)
            (folder / "camera.yaml").write_text(camera_to_yaml(first.camera, first.camera_frame), encoding="utf-8")
        if info.T_zup_from_world is not None:
            _write_matrix(folder / "T_zup_from_world.txt", info.T_zup_from_world)
        (folder / "sensor.yaml").write_text(sensor_to_yaml(info.sensor), encoding="utf-8")
        settings: dict[str, float] = {}
        if self._unit_m != MILLIMETRE_M:
            settings["depth_unit_m"] = self._unit_m
        if info.scale is not None and not info.scale.known:
            settings["pose_unit_m"] = 0.0
        if settings:
            (folder / FILE).write_text(yaml.safe_dump(settings), encoding="utf-8")
        with (folder / "frames.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("name", "timestamp_s", "camera_frame", "world_frame"))
            writer.writerows(self._rows)


def _file_name(name: str | None) -> str | None:
    """A name that is one of a file: COLMAP and nerfstudio call images by their paths."""
    return None if name is None else re.sub(r'[\\/:*?"<>|]', "_", name)


def is_recording(folder: Path) -> bool:
    """Whether a folder is one that this package writes: an RGB-D folder or a bag."""
    return not rgbd_folder.LAYOUT.lacks(folder) or is_bag(folder)


@contextmanager
def replacing(
    target: Path, overwrite: bool, ours: Callable[[Path], bool] = is_recording, what: str = "a recording"
) -> Iterator[Path]:
    """Path for a new folder, on the target's disk, which takes the target's place if all goes well.

    Raises SourceError when the target exists and may not be replaced: without ``overwrite``, or when it is not ``what``
    is written here, as ``ours`` tells (a slip of the hand must not delete a home directory).
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if not overwrite:
            raise SourceError(f"{target} exists already: choose another name or allow overwriting")
        if not target.is_dir() or not ours(target):
            raise SourceError(f"{target} is not {what} and will not be overwritten: remove it yourself")
    target.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        new, old = workshop / target.name, workshop / "replaced"
        yield new
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def name_of(source: Source, stamp_ns: int) -> str | None:
    """The name by which ``source`` knows the frame, None when it names none."""
    names: Callable[[int], str | None] | None = getattr(source, "name_of", None)
    return None if names is None else names(stamp_ns)


def encoded_color(image: NDArray[np.uint8] | EncodedImage, png: bool = False) -> bytes:
    """JPEG or PNG of an image; the bytes as they are when it is one of these already, and was not to be turned.

    Raises SourceError if it is damaged.
    """
    if isinstance(image, EncodedImage):
        if image.decoder is decode_rgb and image.data.startswith((JPEG, PNG)):
            return image.data
        try:
            data, image = image.data, image.decode()
            if data.startswith((JPEG, PNG)) and np.array_equal(decode_rgb(data), image):
                return data
        except ValueError as error:
            raise SourceError(f"an image does not decode: {error}") from error
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, encoded = (
        cv2.imencode(".png", bgr) if png else cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    )
    if not ok:
        raise SourceError("an image could not be encoded")
    return encoded.tobytes()


def encode_png(image: NDArray) -> bytes:
    """Lossless PNG of a uint16 or uint8 image."""
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise SourceError("an image could not be encoded")
    return data.tobytes()


def depth_in_mm(depth: NDArray[np.uint16] | NDArray[np.float32]) -> NDArray[np.uint16]:
    """Depth as uint16 millimetres; 0 where there is no data, or more than 65.535 m."""
    if depth.dtype == DEPTH_MM:
        return depth.astype(np.uint16, copy=False)
    with np.errstate(invalid="ignore"):
        mm = np.rint(depth.astype(np.float64) * 1000)
        return np.where((mm > 0) & (mm <= 65535), mm, 0).astype(np.uint16)


def same_camera(first: Frame, frame: Frame) -> None:
    """Raises SourceError when two frames are of different cameras."""
    if (frame.camera, frame.camera_frame) != (first.camera, first.camera_frame):
        raise two_cameras(first, frame)


def two_cameras(first: Frame, frame: Frame) -> SourceError:
    """What is wrong with frames of two cameras in one recording."""
    return SourceError(
        f"{first.camera_frame} and {frame.camera_frame} are two cameras, or one whose CameraInfo changes: "
        "write one camera at a time"
    )


def _write_matrix(path: Path, matrix: NDArray[np.float64] | Transform) -> None:
    np.savetxt(path, matrix, fmt="%.17g")
