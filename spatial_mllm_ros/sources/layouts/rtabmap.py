"""RTAB-Map's database, .db: images, depth, calibration and poses in SQLite."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.scene.pose import Transform, checked_transform
from spatial_mllm_ros.sources.calibration import pose_of
from spatial_mllm_ros.sources.compressed import BadImage
from spatial_mllm_ros.sources.image_files import decode_any
from spatial_mllm_ros.sources.layouts.cameras import pinhole
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, ReadCamera, ReadPose, no_camera, told
from spatial_mllm_ros.sources.rvl import decode_rvl
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import stamps_in_names

_HEADER = struct.Struct("<11i")
"""Version (3), type, width, height, and how many numbers K, D, R, P (float64) and the mounting (float32) have."""
_RVL = b"DEPTHRVL"
_SQLITE = b"SQLite format 3\0"
_MONO = 0
_BROKEN = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged database raises; the second where it cannot even say what is wrong."""


def is_database(path: Path) -> bool:
    """Whether a file is a database of SQLite with nodes, or a damaged one: not a COLMAP's, nor a file manager's."""
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            return False
    try:
        with closing(_connect(path)) as database:
            return database.execute("SELECT 1 FROM sqlite_master WHERE name = 'Node'").fetchone() is not None
    except _BROKEN:
        return True


def read(path: Path, settings: InputSettings) -> Listing:
    """Node: stamp (s) and pose (3x4 float32: robot in the map). Data: image, depth (16-bit PNG or RVL in mm, or float32
    metres packed into an 8-bit PNG) and calibration with the camera's mounting on the robot. Poses are those of the last
    optimisation (Admin) where it was saved, else odometry's.
    """
    try:
        with closing(_connect(path)) as database:
            nodes = database.execute(
                "SELECT Node.id, Node.stamp, Node.pose, Data.calibration, length(Data.image), length(Data.depth) "
                "FROM Node JOIN Data ON Data.id = Node.id ORDER BY Node.id"
            ).fetchall()
            optimized = _optimized(database)
    except _BROKEN as error:
        raise SourceError(f"{path} is no RTAB-Map database of version 0.11 or later: {error}") from error
    nodes = [node for node in nodes if node[4] or node[5]]
    stamps = [round(float(node[1] or 0) * 1e9) for node in nodes]
    words, doubt = "stamps of the nodes, in seconds", None
    if len(set(stamps)) < len(stamps):
        told_times = stamps_in_names([str(node[0]) for node in nodes], settings.image_rate_hz)
        stamps, words, doubt = told_times.stamps, told_times.words, told_times.doubt
    entries = []
    distorted: Doubt | None = None
    for (number, _, pose, calibration, has_image, has_depth), stamp in zip(nodes, stamps, strict=True):
        camera, mounting, distortion = _calibration(calibration, path, number)
        T = optimized.get(number) if optimized else _matrix(pose)
        entries.append(
            Entry(
                name=str(number),
                stamp_ns=stamp,
                color=partial(_blob, path, "image", number) if has_image else None,
                depth=partial(_depth, path, number) if has_depth else None,
                pose=None if T is None else _placed(T, mounting),
                camera=camera,
            )
        )
        if distortion and distorted is None:
            distorted = Doubt(
                kind="distortion_ignored",
                text="the database holds lens distortion, and RTAB-Map takes images as rectified all the same",
                remedy="record rectified images",
                confidence=0.8,
            )
    return Listing(
        kind="RTAB-Map database",
        entries=entries,
        same_view=True,
        chosen=(f"{'optimized' if optimized else 'odometry'} poses of {len(entries)} nodes", words),
        doubts=told(doubt, distorted),
        remarks=+Counter(not_optimized=sum(entry.pose is None for entry in entries) if optimized else 0),
    )


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{path.resolve().as_posix().replace('?', '%3f').replace('#', '%23')}?mode=ro", uri=True
    )


def _optimized(database: sqlite3.Connection) -> dict[int, NDArray[np.float64]]:
    """Poses of the optimised graph by node; none where they were not saved."""
    columns = {row[1] for row in database.execute("PRAGMA table_info(Admin)")}
    if not {"opt_ids", "opt_poses"} <= columns:
        return {}
    row = database.execute("SELECT opt_ids, opt_poses FROM Admin WHERE opt_poses IS NOT NULL").fetchone()
    if row is None or not row[0] or not row[1]:
        return {}
    try:
        ids, poses = np.frombuffer(_unpacked(row[0]), "<i4"), np.frombuffer(_unpacked(row[1]), "<f4")
    except (zlib.error, ValueError):
        return {}
    if poses.size != 12 * ids.size:
        return {}
    return {int(i): T.astype(np.float64) for i, T in zip(ids, poses.reshape(-1, 3, 4), strict=True)}


def _unpacked(blob: bytes) -> bytes:
    """RTAB-Map's compressed matrix: zlib, then rows, columns and type (int32 each)."""
    return zlib.decompress(blob[:-12])


def _matrix(blob: bytes | None) -> NDArray[np.float64] | None:
    if not isinstance(blob, bytes) or len(blob) != 48:
        return None
    return np.frombuffer(blob, "<f4").astype(np.float64).reshape(3, 4)


def _placed(T_map_robot: NDArray[np.float64], T_robot_camera: Transform) -> ReadPose:
    return lambda: pose_of(T_map_robot) @ T_robot_camera


def _calibration(blob: bytes | None, path: Path, node: int) -> tuple[ReadCamera, Transform, bool]:
    """The camera, its mounting on the robot (optical axes), and whether lens distortion is told."""
    if not isinstance(blob, bytes) or len(blob) < _HEADER.size:
        return no_camera, np.eye(4), False
    *_, kind, width, height, k, d, r, p, mounting = _HEADER.unpack_from(blob)
    counts = (k, d, r, p)
    needed = _HEADER.size + 8 * sum(counts) + 4 * mounting
    if kind != _MONO or min(counts) < 0 or k != 9 or mounting not in (0, 12) or len(blob) != needed:
        what = "stereo" if kind == 1 else "several cameras" if len(blob) > needed else "unknown"
        raise SourceError(f"{path}, node {node}: the calibration is {what}: only one RGB-D camera a node can be read")
    numbers = np.frombuffer(blob, "<f8", sum(counts), _HEADER.size)
    K, D, P = numbers[:9].reshape(3, 3), numbers[9 : 9 + d], numbers[9 + d + r :]
    if p == 12 and P[0] > 0:
        K = P.reshape(3, 4)[:, :3]
    T = np.eye(4)
    if mounting:
        T[:3] = np.frombuffer(blob, "<f4", 12, _HEADER.size + 8 * sum(counts)).reshape(3, 4)
    of = (width, height) if width > 0 and height > 0 else None
    camera = pinhole(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]), of=of)
    return camera, checked_transform(T), bool(np.any(D))


def _blob(path: Path, column: str, node: int) -> bytes:
    try:
        with closing(_connect(path)) as database:
            row = database.execute(f"SELECT {column} FROM Data WHERE id = ?", (node,)).fetchone()
    except _BROKEN as error:
        raise BadImage("damaged_file", f"node {node} of {path} cannot be read: {error}") from error
    if row is None or not isinstance(row[0], bytes):
        raise BadImage("damaged_file", f"node {node} of {path} has no {column}")
    return row[0]


def _depth(path: Path, node: int) -> NDArray:
    data = _blob(path, "depth", node)
    if data.startswith(_RVL):
        return decode_rvl(data[len(_RVL) :])
    image = decode_any(data, cv2.IMREAD_UNCHANGED)
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 4:
        return np.ascontiguousarray(image).view("<f4")[..., 0].astype(np.float32)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise BadImage("bad_depth", f"depth of node {node} is {image.dtype} {image.shape}: a stereo image?")
    return image
