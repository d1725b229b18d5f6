"""ScanNet's .sens: one binary file of color, depth and poses."""

from __future__ import annotations

import struct
import zlib
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.sources.calibration import pose_of
from spatial_mllm_ros.sources.compressed import BadImage
from spatial_mllm_ros.sources.layouts.cameras import pinhole
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, ReadCamera, told
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import stamps_in_names

VERSION = 4
_COLOR = {1: "png", 2: "jpeg"}
_DEPTH = {0: "raw", 1: "zlib"}
_MATRIX = struct.Struct("<16f")
_SIZES = struct.Struct("<iiIIIIfQ")
"""Compression of color and depth, width and height of both, counts per metre, number of frames."""
_FRAME = struct.Struct("<16fQQQQ")
"""Camera to world, stamps of color and depth (microseconds), bytes of both."""
_LONGEST_NAME = 4096


def read(path: Path, settings: InputSettings) -> Listing:
    """Version 4, little-endian, as ScanNet publishes it: JPEG or PNG color, zlib or raw depth. Poses are camera to world,
    -inf where tracking was lost. A file that was cut off gives the frames before.
    """
    with path.open("rb") as file:
        try:
            (version,) = struct.unpack("<I", file.read(4))
            (length,) = struct.unpack("<Q", file.read(8))
            if version != VERSION or length > _LONGEST_NAME:
                raise SourceError(f"{path} is no ScanNet .sens file of version {VERSION} (it says version {version})")
            file.read(length)
            color_K, color_T, depth_K, depth_T = (
                np.array(_MATRIX.unpack(file.read(_MATRIX.size))).reshape(4, 4) for _ in range(4)
            )
            color, depth, width, height, depth_width, depth_height, shift, count = _SIZES.unpack(file.read(_SIZES.size))
        except struct.error as error:
            raise SourceError(f"{path} breaks off in its header: {error}") from error
        if color not in _COLOR or depth not in _DEPTH:
            raise SourceError(
                f"{path}: compression {color} of color or {depth} of depth is not known: export it to folders"
            )
        if not (np.isfinite(shift) and shift > 0 and 0 < depth_width * depth_height < 1 << 26):
            raise SourceError(f"{path}: {shift} counts per metre of {depth_width}x{depth_height} depth cannot be")
        found, cut_off = _frames(file, path.stat().st_size, int(count))
    stamps = [stamp // 1000 * 1000 for stamp, *_ in found]
    words, doubt = "stamps of the file, in microseconds", None
    if len(set(stamps)) < len(stamps):
        told_times = stamps_in_names([f"frame-{i}" for i in range(len(found))], settings.image_rate_hz)
        stamps, words, doubt = told_times.stamps, told_times.words, told_times.doubt
    shape = (depth_height, depth_width)
    entries = [
        Entry(
            name=f"frame-{number:06d}",
            stamp_ns=stamp,
            color=partial(_bytes, path, at, color_bytes),
            depth=partial(_depth, path, at + color_bytes, depth_bytes, shape, depth == 1) if depth_bytes else None,
            pose=partial(pose_of, T),
            camera=_camera(color_K, (width, height)),
            depth_camera=_camera(depth_K, (depth_width, depth_height)),
        )
        for number, (stamp, (_, T, at, color_bytes, depth_bytes)) in enumerate(zip(stamps, found, strict=True))
    ]
    return Listing(
        kind="ScanNet .sens",
        entries=entries,
        depth_unit_m=1 / float(shift),
        world_frame="world",
        chosen=(f"depth {depth_width}x{depth_height} counts 1/{shift:g} m, color {width}x{height}", words),
        doubts=told(doubt, cut_off, _extrinsics(color_T, depth_T)),
    )


def _frames(
    file: BinaryIO, size: int, count: int
) -> tuple[list[tuple[int, NDArray[np.float64], int, int, int]], Doubt | None]:
    """Stamp (ns), pose, and where color and depth lie, of each frame that is whole."""
    found: list[tuple[int, NDArray[np.float64], int, int, int]] = []
    while len(found) < count:
        header = file.read(_FRAME.size)
        at = file.tell()
        if len(header) < _FRAME.size:
            break
        *matrix, stamp_us, _, color_bytes, depth_bytes = _FRAME.unpack(header)
        if at + color_bytes + depth_bytes > size:
            break
        found.append((stamp_us * 1000, np.array(matrix).reshape(4, 4), at, color_bytes, depth_bytes))
        file.seek(at + color_bytes + depth_bytes)
    if len(found) == count:
        return found, None
    return found, Doubt(
        kind="cut_off",
        text=f"the file breaks off: {len(found)} of {count} frames are there",
        remedy="copy or download it again",
    )


def _bytes(path: Path, at: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(count)


def _depth(path: Path, at: int, count: int, shape: tuple[int, int], compressed: bool) -> NDArray[np.uint16]:
    data = _bytes(path, at, count)
    try:
        data = zlib.decompressobj().decompress(data, shape[0] * shape[1] * 2 + 1) if compressed else data
    except zlib.error as error:
        raise BadImage("damaged_depth", f"depth does not decompress: {error}") from error
    if len(data) != shape[0] * shape[1] * 2:
        raise BadImage("damaged_depth", f"depth of {len(data)} bytes is not {shape[1]}x{shape[0]}")
    return np.frombuffer(data, "<u2").reshape(shape).astype(np.uint16)


def _camera(K: NDArray[np.float64], size: tuple[int, int]) -> ReadCamera:
    return pinhole(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]), of=(int(size[0]), int(size[1])))


def _extrinsics(*matrices: NDArray[np.float64]) -> Doubt | None:
    """ScanNet's are identities: depth and color are taken from one place."""
    if all(np.abs(T - np.eye(4)).max() < 1e-3 for T in matrices):
        return None
    return Doubt(
        kind="extrinsics",
        text="the file says that depth and color cameras are not at one place, which is not followed",
        remedy="export it to folders with depth registered to color",
        confidence=0.5,
    )
