"""The confidence that ARKit gives each pixel of depth: 0 low, 1 medium, 2 high."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.sources.compressed import BadImage, decode_depth
from spatial_mllm_ros.sources.image_files import read_gray

LOWEST_KEPT = 1
"""Depth of low confidence is mostly at edges and beyond the sensor's range, and off by decimetres."""


def without_low_confidence(depth: NDArray, confidence: NDArray | None) -> NDArray:
    """Depth with 0 where its confidence is low; all of it where no confidence of its size is known."""
    if confidence is None or confidence.shape != depth.shape:
        return depth
    return np.where(confidence >= LOWEST_KEPT, depth, depth.dtype.type(0))


def _raw(path: Path) -> NDArray:
    """Of an image file, or as older Stray Scanners wrote it, of numpy's."""
    data = path.read_bytes()
    if path.suffix.lower() != ".npy":
        return decode_depth(data)
    try:
        array: NDArray = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BadImage("damaged_depth", f"{path.name} cannot be read: {error}") from error
    return array.astype(np.uint16) if array.dtype.kind in "ui" else array.astype(np.float32)


def confident_depth(depth: Path, confidence: Path | None) -> Callable[[], NDArray]:
    """Reads the raw depth of an image file without what its image of confidence calls low, when it is called."""

    def read() -> NDArray:
        known = None if confidence is None else read_gray(confidence.read_bytes())
        return without_low_confidence(_raw(depth), known)

    return read
