"""Video files: frames without geometry, at the container's own time stamps."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.sources.layouts.entries import CAMERA_FRAME
from spatial_mllm_ros.sources.source import SourceError, SourceInfo
from spatial_mllm_ros.sources.stamps import seconds_to_ns

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")
_KINECT_MARKS = (b"K4A_DEPTH_MODE", b"DEPTH_BRIDGE", b"K4A_COLOR_MODE")
"""Tags that the recorder of the Azure Kinect writes into its files, near their beginning."""
_HEAD_BYTES = 1 << 20


class Video:
    """Images of a video file in order, each with its time in the container.

    upright: turned as the file's rotation says, which phones write; else as they are stored.
    Raises SourceError for what OpenCV does not open.
    """

    def __init__(self, path: Path, upright: bool = True) -> None:
        if not path.is_file():
            raise SourceError(f"{path} does not exist")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise SourceError(
                f"{path} cannot be opened as a video: it is damaged, or its codec is not built into OpenCV "
                "(convert it, for example with ffmpeg to H.264)"
            )
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, float(upright))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = float(rate) if np.isfinite(rate) and 0 < rate < 1000 else 0.0
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 else None

    def stamps(self, nominal_hz: float) -> Iterator[int]:
        """Steps through the images: the time of each, ns from the first; where the container tells none, at a rate."""
        first_ms: float | None = None
        last, number = -1, 0
        while self.grab():
            ms = float(self._capture.get(cv2.CAP_PROP_POS_MSEC))
            first_ms = ms if first_ms is None else first_ms
            stamp = round((ms - first_ms) * 1e6)
            if stamp <= last:  # no time, or one that goes back
                stamp = max(round(number * 1e9 / (self.rate_hz or nominal_hz)), last + 1)
            yield stamp
            last, number = stamp, number + 1

    def grab(self) -> bool:
        """Go to the next image; False where there is none."""
        return bool(self._capture.grab())

    def image(self) -> NDArray[np.uint8] | None:
        """The image that was gone to, RGB; None when it does not decode."""
        ok, image = self._capture.retrieve()
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8) if ok else None

    def close(self) -> None:
        self._capture.release()


class VideoSource:
    """A video file, as far as OpenCV decodes it. Stamps are the container's, from 0, also at a variable frame rate.

    ``refused``: ``truncated_video`` when fewer images come than the file promises. Raises SourceError.
    """

    def __init__(self, path: Path | str, settings: InputSettings | None = None) -> None:
        self._path = Path(path)
        self._settings = settings or InputSettings()
        self.doubts: list[Doubt] = []
        self.refused: Counter[str] = Counter()
        self._known_stamps: list[int] | None = None
        _refuse_azure_kinect(self._path)
        video = Video(self._path)
        video.close()
        count = video.count
        rate_hz = video.rate_hz or self._settings.image_rate_hz
        self.info = SourceInfo(
            name=self._path.stem,
            frames=count,
            duration_s=None if count is None else count / rate_hz,
            description=f"video, {'unknown number of' if count is None else count} images at {rate_hz:g} Hz",
            lossy_color=True,
            chosen=("stamps: the container's own",),
        )

    def stamp_of(self, name: str) -> int:
        """Stamp (ns) of the image nearest to ``name``, decimal seconds. KeyError when there is none."""
        try:
            wanted = seconds_to_ns(name)
        except ValueError:
            raise KeyError(f"a video names no images: give a time in seconds, not {name!r}") from None
        stamps = self._stamps()
        after = bisect.bisect_left(stamps, wanted)
        near = min(stamps[max(after - 1, 0) : after + 1], key=lambda stamp: abs(stamp - wanted), default=None)
        step = (stamps[-1] - stamps[0]) / max(len(stamps) - 1, 1) if stamps else 0
        if near is None or wanted < 0 or wanted > stamps[-1] + step:
            raise KeyError(f"{self.info.name} has no image at {name} s")
        return near

    def frames(self) -> Iterator[Frame]:
        """Frames with an image and nothing else."""
        self.refused.clear()
        video = Video(self._path)
        stamps: list[int] = []
        try:
            for stamp in video.stamps(self._settings.image_rate_hz):
                image = video.image()
                stamps.append(stamp)
                if image is None:
                    self.refused["does_not_decode"] += 1
                else:
                    yield Frame(stamp, CAMERA_FRAME, image=image)
        finally:
            video.close()
        if not stamps:
            raise SourceError(f"{self._path} holds no image that OpenCV decodes: convert it, for example with ffmpeg")
        self._known_stamps = stamps
        if self.info.frames is not None and len(stamps) < self.info.frames:
            self.refused["truncated_video"] = self.info.frames - len(stamps)

    def _stamps(self) -> list[int]:
        """Of all images; the file is stepped through once for them."""
        if self._known_stamps is None:
            video = Video(self._path)
            self._known_stamps = list(video.stamps(self._settings.image_rate_hz))
            video.close()
        return self._known_stamps


def _refuse_azure_kinect(path: Path) -> None:
    if path.suffix.lower() != ".mkv":
        return
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if any(mark in head for mark in _KINECT_MARKS):
        raise SourceError(
            f"{path} is a recording of an Azure Kinect: its depth and calibration need the Kinect's own library, which has "
            "no wheel. Convert it where that is installed: Open3D's azure_kinect_mkv_reader.py --input FILE --output FOLDER "
            "writes color/, depth/ and intrinsic.json, which are read here (FOLDER)"
        )
