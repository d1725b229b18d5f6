"""Writing recordings: as an RGB-D folder or as a rosbag2."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.frame import DEPTH_MM, Frame
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.sources.bag_files import is_bag
from spatial_mllm_ros.sources.calibration import camera_to_yaml, sensor_to_yaml
from spatial_mllm_ros.sources.compressed import JPEG, PNG, decode_rgb
from spatial_mllm_ros.sources.layouts import rgbd_folder
from spatial_mllm_ros.sources.source import Source, SourceError
from spatial_mllm_ros.sources.stamps import ns_to_seconds

Progress = Callable[[int, int | None], None]
"""Called with the number of frames written and the number expected, None if unknown."""

JPEG_QUALITY = 95


def write_folder(
    source: Source, target: Path | str, *, png: bool = False, overwrite: bool = False, progress: Progress | None = None
) -> int:
    """Write all frames of ``source`` as an RGB-D folder that open_source reads back; the number of frames.

    Stamps and poses are kept exactly, compressed images byte by byte; others become JPEG, or with ``png`` lossless PNG.
    Depth becomes whole millimetres. Frames keep their names if the source names them. Nothing is left at ``target``
    when this is interrupted. Raises SourceError, also for several cameras, which one folder cannot hold, and for a
    ``target`` that exists, unless ``overwrite`` is given and it is a recording.
    """
    with replacing(Path(target), overwrite) as folder:
        folder.mkdir()
        rows: list[tuple[str, str, str, str]] = []
        first: Frame | None = None
        for frame in source.frames():
            first = first or frame
            same_camera(first, frame)
            name = name_of(source, frame.stamp_ns) or f"frame-{len(rows):06d}"
            if frame.image is not None:
                data = encoded_colour(frame.image, png)
                (folder / f"{name}.color.{'png' if data.startswith(PNG) else 'jpg'}").write_bytes(data)
            if frame.depth is not None:
                (folder / (name + rgbd_folder.DEPTH_SUFFIX)).write_bytes(encode_png(depth_in_mm(frame.depth)))
            if frame.image is None and frame.depth is None:
                raise SourceError(f"the frame at {ns_to_seconds(frame.stamp_ns)} s has neither colour nor depth")
            if frame.T_world_camera is not None:
                _write_matrix(folder / f"{name}.pose.txt", frame.T_world_camera)
            rows.append((name, ns_to_seconds(frame.stamp_ns), frame.camera_frame, frame.world_frame))
            if progress is not None:
                progress(len(rows), source.info.frames)
        if first is None:
            raise SourceError(f"{source.info.name} gave no frames to write; refused: {dict(source.refused) or 'none'}")
        if first.camera is not None:
            _write_matrix(folder / "intrinsics.txt", first.camera.K)
            (folder / "camera.yaml").write_text(camera_to_yaml(first.camera, first.camera_frame), encoding="utf-8")
        if source.info.T_zup_from_world is not None:
            _write_matrix(folder / "T_zup_from_world.txt", source.info.T_zup_from_world)
        (folder / "sensor.yaml").write_text(sensor_to_yaml(source.info.sensor), encoding="utf-8")
        with (folder / "frames.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("name", "timestamp_s", "camera_frame", "world_frame"))
            writer.writerows(rows)
    return len(rows)


@contextmanager
def replacing(target: Path, overwrite: bool) -> Iterator[Path]:
    """Path for a new folder, on the target's disk, which takes the target's place if all goes well.

    Raises SourceError when the target exists and may not be replaced: without ``overwrite``, or when it is no recording
    (a slip of the hand must not delete a home directory).
    """
    if target.exists():
        if not overwrite:
            raise SourceError(f"{target} exists already: choose another name or allow overwriting")
        if not target.is_dir() or not (not rgbd_folder.LAYOUT.lacks(target) or is_bag(target) or not any(target.iterdir())):
            raise SourceError(f"{target} is not a recording and will not be overwritten: remove it yourself")
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


def encoded_colour(image: NDArray[np.uint8] | EncodedImage, png: bool = False) -> bytes:
    """JPEG or PNG of an image; the bytes as they are when it is one of these already. SourceError if it is damaged."""
    if isinstance(image, EncodedImage):
        if image.decoder is decode_rgb and image.data.startswith((JPEG, PNG)):
            return image.data
        try:
            image = image.decode()
        except ValueError as error:
            raise SourceError(f"an image does not decode: {error}") from error
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".png", bgr) if png else cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise SourceError("an image could not be encoded")
    return data.tobytes()


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
        raise SourceError(
            f"{first.camera_frame} and {frame.camera_frame} are two cameras, or one whose CameraInfo changes: "
            "write one camera at a time"
        )


def _write_matrix(path: Path, matrix: NDArray[np.float64] | Transform) -> None:
    np.savetxt(path, matrix, fmt="%.17g")
