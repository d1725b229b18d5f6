"""Image files as people have them: whatever OpenCV decodes, HEIC of phones, and 16-bit PNGs, which are depth."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.sources.compressed import JPEG, PNG, BadImage, decode_depth, encoded_image, image_size, imdecode

HEIC_SUFFIXES = (".heic", ".heif")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", *HEIC_SUFFIXES)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def is_image(path: Path) -> bool:
    """Whether the name is that of an image, whatever the case of its suffix."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_depth_png(path: Path) -> bool:
    """Whether the file is a PNG of 16 bits with one channel: that is depth, not a picture."""
    if path.suffix.lower() != ".png":
        return False
    with path.open("rb") as file:
        head = file.read(26)
    return head.startswith(PNG) and len(head) == 26 and head[24] == 16 and head[25] == 0


def open_image(data: bytes, *, upright: bool = False) -> tuple[EncodedImage, tuple[int, int]]:
    """An image file's bytes as an image to be decoded on demand, and its (width, height).

    upright: turn it as its EXIF tag asks. Raises BadImage, also for HEIC where its reader is not installed.
    """
    if data.startswith((JPEG, PNG)):
        return encoded_image(data, upright=upright)
    decoder = partial(_decode_heic if _is_heic(data) else _decode_other, upright=upright)
    height, width = decoder(data).shape[:2]
    return EncodedImage(data, decoder), (width, height)


def read_gray(data: bytes) -> NDArray:
    """Pixels of an image file with one channel. Raises BadImage."""
    image = decode_any(data, cv2.IMREAD_UNCHANGED)
    if image.ndim != 2:
        raise BadImage("bad_image", f"an image of one channel was expected, not {image.shape}")
    return image


def depth_file(path: Path) -> Callable[[], NDArray]:
    """Reads the raw depth of an image file, when it is called."""
    return lambda: decode_depth(path.read_bytes())


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS


def _decode_heic(data: bytes, upright: bool) -> NDArray[np.uint8]:
    """HEIC stores its turning in the image itself, so that it comes upright always."""
    try:
        import pillow_heif
    except ImportError as error:
        raise BadImage("heic_without_reader", "HEIC needs pip install 'spatial_mllm_ros[phone]'") from error
    try:
        image = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        pixels = np.asarray(image.to_pillow().convert("RGB"), np.uint8)
    except (ValueError, OSError, RuntimeError, EOFError, SyntaxError, MemoryError) as error:
        raise BadImage("does_not_decode", f"the HEIC image does not decode: {error}") from error
    return pixels


def _decode_other(data: bytes, upright: bool) -> NDArray[np.uint8]:
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return np.asarray(cv2.cvtColor(decode_any(data, flags), cv2.COLOR_BGR2RGB), np.uint8)


def decode_any(data: bytes, flags: int) -> NDArray:
    """Pixels of an image file by OpenCV, with its flags. Raises BadImage, also for a file that was cut off."""
    if data.startswith((JPEG, PNG)):
        image_size(data)
        return imdecode(data, flags)
    try:
        return imdecode(data, flags)
    except BadImage as error:
        raise BadImage("unknown_compression", f"{len(data)} bytes that are no image (start {data[:8]!r})") from error
