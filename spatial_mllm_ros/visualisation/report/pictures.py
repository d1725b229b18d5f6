"""Images of frames as data URIs, each once, small enough together for one page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.memory.stored import StoredFrame

BUDGET = 3_400_000
"""Bytes of base64 for all images together."""
MOST_PICTURES = 240
SETTINGS = ((720, 82), (640, 78), (560, 74), (480, 70), (400, 64), (320, 58), (256, 50))
"""Widths (px) and JPEG qualities, best first."""


@dataclass(frozen=True)
class Picture:
    """An embedded image. ``key`` names it in the page; width, height: of the camera's image, px; uri: JPEG, base64."""

    key: str
    width: int
    height: int
    uri: str


class Pictures:
    """Embeds images of frames. ``missing`` says why a wanted one is not there."""

    def __init__(self, stored: Callable[[int], StoredFrame | None], wanted: Sequence[int]) -> None:
        ids = list(dict.fromkeys(wanted))
        self._left_out = set(ids[MOST_PICTURES:])
        self._stored = {i: found for i in ids[:MOST_PICTURES] if (found := stored(i)) is not None}
        width, quality = _setting(list(self._stored.values()))
        self._pictures: dict[int, Picture] = {}
        self.missing: dict[int, str] = {i: "the image is no longer in memory" for i in ids if stored(i) is None}
        self.missing |= dict.fromkeys(self._left_out, "the image is left out to keep this page small")
        for frame_id, kept in self._stored.items():
            rgb = _rgb(kept)
            if rgb is None:
                self.missing[frame_id] = "the frame has no color image, or it does not decode"
                continue
            uri = "data:image/jpeg;base64," + base64.b64encode(jpeg(rgb, width, quality)).decode("ascii")
            self._pictures[frame_id] = Picture(f"frame{frame_id}", rgb.shape[1], rgb.shape[0], uri)

    def get(self, frame_id: int) -> Picture | None:
        """The picture of a frame, None if there is none (see ``missing``)."""
        return self._pictures.get(frame_id)

    def all(self) -> list[Picture]:
        """All pictures, in the order in which they were wanted."""
        return list(self._pictures.values())


def jpeg(rgb: NDArray[np.uint8], width: int, quality: int) -> bytes:
    """JPEG of an image [h, w, 3], scaled down to at most ``width``."""
    if rgb.shape[1] > width:
        height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), flags)
    if not ok:
        raise ValueError("the image could not be encoded")
    return bytes(data)


def _setting(stored: list[StoredFrame]) -> tuple[int, int]:
    """The best width and quality with which all images fit, judged by a few of them."""
    sample = [rgb for s in stored[:: max(1, len(stored) // 6)] if (rgb := _rgb(s)) is not None]
    if not sample:
        return SETTINGS[0]
    for width, quality in SETTINGS:
        mean = float(np.mean([len(jpeg(rgb, width, quality)) for rgb in sample]))
        if 1.1 * mean * 4 / 3 * len(stored) <= BUDGET:
            return width, quality
    return SETTINGS[-1]


def _rgb(stored: StoredFrame) -> NDArray[np.uint8] | None:
    try:
        return stored.frame.rgb()
    except ValueError:  # the page says so where the image would be
        return None
