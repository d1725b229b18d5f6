"""RVL, the lossless depth compression of Wilson, "Fast Lossless Depth Image Compression", ISS 2017."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.sources.compressed import BadImage

LARGEST_IMAGE = 1 << 26


def decode_rvl(data: bytes) -> NDArray[np.uint16]:
    """uint16 [height, width] from RVL as compressed_depth_image_transport sends it: width, height (uint32), the stream.

    The stream is of nibbles, most significant first within little-endian 32-bit words. A number is a run of nibbles of
    three bits each, least significant first, all but the last with the fourth bit set. The numbers are: zeros to skip,
    values to follow, and then the zigzag-coded differences of those from the value before. Raises BadImage.
    """
    if len(data) < 8:
        raise BadImage("truncated_rvl", f"RVL depth of {len(data)} bytes has no header")
    width, height = struct.unpack_from("<II", data)
    total = width * height
    if not 0 < total <= LARGEST_IMAGE:
        raise BadImage("bad_rvl", f"RVL depth says that it is {width}x{height}")
    numbers = _numbers(data[8:])
    targets, sources, at, pixel = [], [], 0, 0
    while pixel < total:
        if at + 2 > len(numbers):
            raise BadImage("truncated_rvl", f"RVL depth breaks off at pixel {pixel} of {total}")
        zeros, values = int(numbers[at]), int(numbers[at + 1])
        at, pixel = at + 2, pixel + zeros
        if pixel + values > total or (zeros == values == 0) or at + values > len(numbers):
            raise BadImage("truncated_rvl", f"RVL depth breaks off or is damaged at pixel {pixel} of {total}")
        targets.append(np.arange(pixel, pixel + values))
        sources.append(np.arange(at, at + values))
        at, pixel = at + values, pixel + values
    coded = numbers[np.concatenate(sources)]
    differences = (coded >> 1) ^ -(coded & 1)
    depth = np.zeros(total, np.uint16)
    depth[np.concatenate(targets)] = np.cumsum(differences).astype(np.uint16)
    return depth.reshape(height, width)


def _numbers(stream: bytes) -> NDArray[np.int64]:
    words = np.frombuffer(stream[: len(stream) // 4 * 4], "<u4").astype(">u4").view(np.uint8)
    nibbles = np.stack([words >> 4, words & 15], axis=1).reshape(-1)
    ends = np.flatnonzero(nibbles < 8)
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
    place = np.arange(ends[-1] + 1 if ends.size else 0) - np.repeat(starts, ends - starts + 1)
    if place.size and place.max() > 10:  # 32 bits are 11 nibbles
        raise BadImage("bad_rvl", "RVL depth holds a number of more than 32 bits")
    digits = (nibbles[: place.size] & 7).astype(np.int64) << (3 * place)
    return np.add.reduceat(digits, starts) if starts.size else np.zeros(0, np.int64)
