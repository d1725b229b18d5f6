"""Video files and folders of plain images: frames without geometry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.sources.calibration import read_camera, read_table, row_stamp_ns, seconds_to_ns
from spatial_mllm_ros.sources.compressed import BadImage, encoded_image
from spatial_mllm_ros.sources.source import SourceError, SourceInfo

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
CAMERA_FRAME = "camera_color_optical_frame"
DEFAULT_HZ = 30.0


class VideoSource:
    """A video file, as far as OpenCV decodes it. Stamps count from 0 at the file's frame rate (30 Hz if it has none).

    ``refused``: ``truncated_video`` when fewer images come than the file promises. Raises SourceError.
    """

    def __init__(self, path: Path | str, settings: InputSettings | None = None) -> None:
        self._path = Path(path)
        self._settings = settings or InputSettings()
        self.doubts: list[Doubt] = []
        self.refused: Counter[str] = Counter()
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        self._rate = rate if np.isfinite(rate) and 0 < rate < 1000 else DEFAULT_HZ
        frames = count if count > 0 else None
        self.info = SourceInfo(
            name=self._path.stem,
            frames=frames,
            duration_s=None if frames is None else frames / self._rate,
            description=f"video, {'unknown number of' if frames is None else frames} images at {self._rate:g} Hz",
        )

    def stamp_of(self, name: str) -> int:
        """Stamp (ns) of the image nearest to ``name``, decimal seconds. KeyError when there is none."""
        try:
            number = round(Decimal(seconds_to_ns(name)) * Decimal(self._rate) / 10**9)
        except ValueError:
            raise KeyError(f"a video names no images: give a time in seconds, not {name!r}") from None
        if number < 0 or (self.info.frames is not None and number >= self.info.frames):
            raise KeyError(f"{self.info.name} has no image at {name} s")
        return self._stamp(number)

    def frames(self) -> Iterator[Frame]:
        """Frames with an image and nothing else."""
        self.refused.clear()
        capture = self._open()
        count = 0
        try:
            while True:
                ok, image = capture.read()
                if not ok:
                    break
                rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(self._stamp(count), CAMERA_FRAME, image=rgb)
                count += 1
        finally:
            capture.release()
        if count == 0:
            raise SourceError(f"{self._path} holds no image that OpenCV decodes: convert it, for example with ffmpeg")
        if self.info.frames is not None and count < self.info.frames:
            self.refused["truncated_video"] = self.info.frames - count

    def _stamp(self, number: int) -> int:
        return round(number * 1e9 / self._rate)

    def _open(self) -> cv2.VideoCapture:
        if not self._path.is_file():
            raise SourceError(f"{self._path} does not exist")
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SourceError(
                f"{self._path} cannot be opened as a video: it is damaged, or its codec is not built into OpenCV "
                "(convert it, for example with ffmpeg to H.264)"
            )
        return capture


class ImageFolderSource:
    """A folder of JPEG or PNG images in order of their names, turned upright by their EXIF tags.

    With intrinsics.txt or camera.yaml they have a camera model (and are not turned). frames.csv gives stamps by name
    (without suffix); else they count at ``image_rate_hz`` from 0. Raises SourceError.
    """

    def __init__(self, folder: Path | str, settings: InputSettings | None = None) -> None:
        self._folder = Path(folder)
        self._settings = settings or InputSettings()
        self.doubts: list[Doubt] = []
        self.refused: Counter[str] = Counter()
        if not self._folder.is_dir():
            raise SourceError(f"{self._folder} is not a folder")
        paths = sorted(p for p in self._folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise SourceError(f"{self._folder} holds no .jpg or .png images")
        table = self._folder / "frames.csv"
        if table.exists():
            stamps = {row["name"]: row_stamp_ns(table, row) for row in read_table(table)}
            self._unlisted = sum(p.stem not in stamps for p in paths)
            self._images = sorted((stamps[p.stem], p) for p in paths if p.stem in stamps)
            if not self._images:
                raise SourceError(f"{table} names none of the images in {self._folder}")
        else:
            self._unlisted = 0
            self._images = [(round(i * 1e9 / self._settings.image_rate_hz), p) for i, p in enumerate(paths)]
        self._stamps = {key: stamp for stamp, path in self._images for key in (path.stem, path.name)}
        duration_s = (self._images[-1][0] - self._images[0][0]) / 1e9
        self.info = SourceInfo(
            name=self._folder.resolve().name,
            frames=len(self._images),
            duration_s=duration_s,
            description=f"{len(self._images)} images without depth or poses, {duration_s:.1f} s",
        )

    def stamp_of(self, name: str) -> int:
        """Stamp (ns) of the image with that file name, with or without its suffix. KeyError when there is none."""
        try:
            return self._stamps[name]
        except KeyError:
            example = self._images[0][1].stem
            raise KeyError(f"{self.info.name} has no image {name!r}; names are as {example!r}") from None

    def name_of(self, stamp_ns: int) -> str | None:
        """The name of the image with that stamp, None when there is none."""
        return next((path.stem for stamp, path in self._images if stamp == stamp_ns), None)

    def frames(self) -> Iterator[Frame]:
        """Frames with an image and, where there is one, a camera model."""
        self.refused.clear()
        if self._unlisted:
            self.refused["not_in_frames_csv"] = self._unlisted
        calibrated = any((self._folder / name).exists() for name in ("intrinsics.txt", "camera.yaml"))
        previous: int | None = None
        camera = None
        for stamp, path in self._images:
            try:
                image, size = encoded_image(path.read_bytes(), upright=not calibrated)
            except (BadImage, OSError) as error:
                self.refused[error.reason if isinstance(error, BadImage) else "unreadable_file"] += 1
                continue
            if stamp == previous:
                self.refused["repeated_stamp"] += 1
                continue
            if calibrated and camera is None:
                camera = read_camera(self._folder, size)
            if camera is not None and size != (camera.width, camera.height):
                self.refused["image_size"] += 1
                continue
            previous = stamp
            yield Frame(stamp, CAMERA_FRAME, camera, image)
