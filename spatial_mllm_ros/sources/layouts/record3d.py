"""Record3D's .r3d: a zip of JPEG color, and depth and confidence compressed with LZFSE."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.scene.pose import T_OPENGL_OPTICAL, Transform, from_quaternion
from spatial_mllm_ros.sources.compressed import BadImage
from spatial_mllm_ros.sources.layouts.cameras import pinhole
from spatial_mllm_ros.sources.layouts.confidence import without_low_confidence
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, ReadCamera, told
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import natural_key, stamps_in_names

_DAMAGED = (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, NotImplementedError, EOFError)


def read(path: Path, settings: InputSettings) -> Listing:
    """metadata: JSON with K (3x3, column by column) or perFrameIntrinsicCoeffs (fx, fy, cx, cy) of the w x h color images,
    poses (quaternion x y z w, then position: ARKit's camera in the world), frameTimestamps (s) or fps, and dw x dh of
    depth. rgbd/N.jpg, rgbd/N.depth (float32 metres), rgbd/N.conf.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            meta = json.loads(archive.read("metadata"))
    except (*_DAMAGED, ValueError, RecursionError) as error:
        raise SourceError(f"{path} is no whole Record3D recording (a zip with 'metadata'): {error}") from error
    poses, per_frame, times = (meta.get(key) or [] for key in ("poses", "perFrameIntrinsicCoeffs", "frameTimestamps"))
    colors = sorted((m for m in members if m.startswith("rgbd/") and m.endswith((".jpg", ".png"))), key=natural_key)
    numbers = [Path(member).stem for member in colors]
    doubt, words = None, "frameTimestamps, in seconds"
    if len(times) >= len(colors) and len(set(times[: len(colors)])) == len(colors):
        stamps = [round(float(times[int(number)]) * 1e9) for number in numbers]
    else:
        told_times = stamps_in_names(numbers, float(meta.get("fps") or settings.image_rate_hz))
        stamps, words, doubt = told_times.stamps, told_times.words, None if meta.get("fps") else told_times.doubt
    with_depth = f"rgbd/{numbers[0]}.depth" in members if numbers else False
    lacking = _lacking() if with_depth else None
    shape = (int(meta.get("dh", 0)), int(meta.get("dw", 0)))
    size = (int(meta["w"]), int(meta["h"]))
    K = [float(x) for x in meta.get("K", [])]
    entries = []
    for member, number, stamp in zip(colors, numbers, stamps, strict=True):
        at = int(number)
        depth = f"rgbd/{number}.depth"
        intrinsics = per_frame[at] if at < len(per_frame) else [K[0], K[4], K[6], K[7]]
        entries.append(
            Entry(
                name=number,
                aliases=(member,),
                stamp_ns=stamp,
                color=partial(_member, path, member),
                depth=partial(_depth, path, number, shape, members) if depth in members and not lacking else None,
                pose=partial(_pose, poses[at]) if at < len(poses) else None,
                camera=_camera(intrinsics, size),
            )
        )
    return Listing(
        kind="Record3D recording",
        entries=entries,
        world_frame="world",
        same_view=True,
        chosen=(f"depth {shape[1]}x{shape[0]} in metres, without what ARKit is unsure of", words),
        doubts=told(doubt, lacking),
        remarks=+Counter(depth_without_reader=len(entries) if lacking else 0),
    )


def _lacking() -> Doubt | None:
    try:
        import lzfse  # noqa: F401
    except ImportError:
        return Doubt(
            kind="depth_without_reader",
            text="depth of Record3D is compressed with LZFSE, whose reader is not installed: images come without depth",
            remedy="pip install 'spatial_mllm_ros[phone]'",
        )
    return None


def _camera(values: list[Any], size: tuple[int, int]) -> ReadCamera:
    fx, fy, cx, cy = (float(x) for x in values[:4])
    return pinhole(fx, fy, cx, cy, of=size)


def _pose(values: list[Any]) -> Transform:
    numbers = [float(x) for x in values]
    return from_quaternion(numbers[:4], numbers[4:7]) @ T_OPENGL_OPTICAL


def _member(path: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except _DAMAGED as error:
        raise BadImage("damaged_file", f"{name} in {path} cannot be read: {error}") from error


def _depth(path: Path, number: str, shape: tuple[int, int], members: set[str]) -> NDArray[np.float32]:
    depth = np.frombuffer(_unpacked(path, f"rgbd/{number}.depth", shape, 4), "<f4").reshape(shape).astype(np.float32)
    name = f"rgbd/{number}.conf"
    if name not in members:
        return depth
    return without_low_confidence(depth, np.frombuffer(_unpacked(path, name, shape, 1), np.uint8).reshape(shape))


def _unpacked(path: Path, name: str, shape: tuple[int, int], bytes_each: int) -> bytes:
    import lzfse

    packed = _member(path, name)
    wanted = shape[0] * shape[1] * bytes_each
    try:
        data = packed if len(packed) == wanted else lzfse.decompress(packed)
    except (lzfse.error, MemoryError, ValueError) as error:
        raise BadImage("damaged_depth", f"{name} does not decompress: {error}") from error
    if len(data) != wanted:
        raise BadImage("damaged_depth", f"{name} holds {len(data)} bytes, not {shape[1]}x{shape[0]}")
    return bytes(data)
