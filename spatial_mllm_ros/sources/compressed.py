"""JPEG and PNG bytes: their size and completeness without decoding, and their pixels."""

from __future__ import annotations

import struct
import zlib
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.images import EncodedImage

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*")


class BadImage(ValueError):
    """Image data that cannot be used. ``reason`` is a short word for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height (px) of a complete JPEG or PNG, read from its header.

    Raises BadImage for other data and for a file that was cut off: decoders fill what is missing with grey or black
    without a word, which must not pass for measured pixels.
    """
    if data.startswith(PNG):
        if len(data) < 33 or b"IEND" not in data[-64:]:
            raise BadImage("truncated_png", f"the PNG breaks off after {len(data)} bytes")
        width, height, check = struct.unpack(">II5xI", data[16:33])
        if zlib.crc32(data[12:29]) != check or not width or not height:
            raise BadImage("does_not_decode", f"the PNG's header is damaged: it says {width}x{height}")
        return int(width), int(height)
    if data.startswith(JPEG):
        # Some cameras pad the end with zeros.
        if not data[-4096:].rstrip(b"\0").endswith(b"\xff\xd9"):
            raise BadImage("truncated_jpeg", f"the JPEG breaks off after {len(data)} bytes (no end marker)")
        return _jpeg_size(data)
    raise BadImage("unknown_compression", f"{len(data)} bytes that are neither JPEG nor PNG (start {data[:8]!r})")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            if not width or not height:
                break
            return int(width), int(height)
        else:
            at += 2 + int(struct.unpack(">H", data[at + 2 : at + 4])[0])
    raise BadImage("bad_jpeg", "the JPEG has no frame header")


def decode_rgb(
    data: bytes, *, upright: bool = False, stored_as_rgb: bool = False, mosaic: int | None = None
) -> NDArray[np.uint8]:
    """Pixels of a JPEG or PNG, uint8 RGB [height, width, 3]. Of 16 bits the higher ones count; alpha is left out.

    upright: turn the image as its EXIF tag asks. Never for a calibrated camera, whose model is that of the raw pixels.
    stored_as_rgb: the writer handed RGB to an encoder that expects BGR, so red and blue are swapped inside.
    mosaic: OpenCV's conversion from a Bayer pattern, for a single channel that is one.
    Raises BadImage when the data is cut off or does not decode.
    """
    image_size(data)
    if mosaic is not None:
        image = imdecode(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image.ndim == 2:
            eight_bits = (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image
            return np.asarray(cv2.cvtColor(eight_bits, mosaic), np.uint8)
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = imdecode(data, flags)
    if stored_as_rgb:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def decode_depth(data: bytes) -> NDArray:
    """Counts of a 16-bit PNG or of a TIFF, [height, width], of a type that ``metric_depth`` takes. Raises BadImage."""
    if not data.startswith(TIFF):
        return decode_png16(data)
    image = imdecode(data, cv2.IMREAD_UNCHANGED)
    if image.ndim != 2 or image.dtype not in (np.uint16, np.int16, np.float32, np.float64):
        raise BadImage("bad_depth", f"a depth TIFF must be 16 bit or float with one channel, not {image.dtype} {image.shape}")
    return image


def decode_png16(data: bytes) -> NDArray[np.uint16]:
    """Values of a 16-bit single-channel PNG, uint16 [height, width]. Raises BadImage when it is something else."""
    image_size(data)
    image = imdecode(data, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise BadImage("bad_depth", f"a depth PNG must be 16 bit with one channel, not {image.dtype} {image.shape}")
    return image


def imdecode(data: bytes, flags: int) -> NDArray:
    """Pixels of an image file by OpenCV, with its flags. Raises BadImage; a file that was cut off may pass."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise BadImage("does_not_decode", f"the image does not decode: {error}") from error
    if image is None:
        raise BadImage("does_not_decode", f"the image ({len(data)} bytes) does not decode")
    return image


def encoded_image(
    data: bytes, *, upright: bool = False, stored_as_rgb: bool = False, mosaic: int | None = None
) -> tuple[EncodedImage, tuple[int, int]]:
    """A JPEG or PNG to be decoded on demand, and its (width, height). Options and errors as for ``decode_rgb``."""
    size = image_size(data)
    plain = not upright and not stored_as_rgb and mosaic is None
    decoder = decode_rgb if plain else partial(decode_rgb, upright=upright, stored_as_rgb=stored_as_rgb, mosaic=mosaic)
    return EncodedImage(data, decoder), size
