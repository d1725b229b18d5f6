"""Surfaces that two images show: where each image places them, and by how much the two disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.pose import Transform

_ROWS = 24
_COLUMNS = 32
"""Blocks of pixels that a view is averaged in."""
_FLAT_M = 6.0
"""Depth cameras tell no normals of what is further away."""
_LEAST_POINTS, _SHARE_SEEN = 60, 0.25
_LEAST_SAMPLES = 40
_SAME_FACING = 0.85  # cosine
_GATE_M, _GATE_SHARE = 0.15, 0.08  # surfaces further apart are not taken for the same
_INDEPENDENT = 25  # samples of an image: errors of neighbouring blocks are alike (lens, pattern, pixels that bleed)
_MIN_NOISE_M = 5e-4
_BENT = 0.01  # of the depth, at 45 degrees off the axis


@dataclass(frozen=True, eq=False)
class SurfaceView:
    """What a frame shows, coarsely: points and unit normals [rows, columns, 3], camera frame, NaN where not smooth."""

    frame_id: int
    stamp_ns: int
    camera_frame: str
    camera: CameraModel
    T_world_camera: Transform
    points: NDArray[np.float32]
    normals: NDArray[np.float32]

    @classmethod
    def of(cls, frame_id: int, frame: Frame) -> SurfaceView | None:
        """None for a frame that shows too little."""
        assert frame.depth is not None
        assert frame.camera is not None
        assert frame.T_world_camera is not None
        block = max(min(frame.camera.height // _ROWS, frame.camera.width // _COLUMNS), 1)
        rows, columns = frame.camera.height // block, frame.camera.width // block
        step = max(block // 8, 1)  # some pixels of a block are enough
        z = depth_to_metres(frame.depth[: rows * block : step, : columns * block : step])
        side = -(-block // step)
        z = z[: rows * side, : columns * side]
        if z.shape != (rows * side, columns * side):
            rows, columns = z.shape[0] // side, z.shape[1] // side
            z = z[: rows * side, : columns * side]
        blocks = z.reshape(rows, side, columns, side)
        count = np.isfinite(blocks).sum(axis=(1, 3))
        with np.errstate(invalid="ignore"):
            inverse = np.nansum(1 / blocks, axis=(1, 3)) / np.maximum(count, 1)  # planes are linear in inverse depth
            mean = np.where(count >= 0.9 * side * side, 1 / np.where(inverse > 0, inverse, np.nan), np.nan)
            middle = (side - 1) / 2 * step
            v, u = np.mgrid[0:rows, 0:columns] * float(block) + middle
            X = frame.camera.unproject(np.stack([u, v], axis=-1)) * mean[..., None]
            normals = np.full(X.shape, np.nan)
            normal = np.cross(X[1:-1, 2:] - X[1:-1, :-2], X[2:, 1:-1] - X[:-2, 1:-1])
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
            normal *= -np.sign(np.sum(normal * X[1:-1, 1:-1], axis=-1, keepdims=True))
            d = 1 / mean
            bend = np.maximum(
                np.abs(d[1:-1, 2:] + d[1:-1, :-2] - 2 * d[1:-1, 1:-1]), np.abs(d[2:, 1:-1] + d[:-2, 1:-1] - 2 * d[1:-1, 1:-1])
            )
            flat = (bend * mean[1:-1, 1:-1] < 0.01) & (mean[1:-1, 1:-1] < _FLAT_M)
        normals[1:-1, 1:-1] = np.where(flat[..., None], normal, np.nan)
        if np.isfinite(mean).sum() < _LEAST_POINTS:
            return None
        return cls(
            frame_id=frame_id,
            stamp_ns=frame.stamp_ns,
            camera_frame=frame.camera_frame,
            camera=frame.camera,
            T_world_camera=frame.T_world_camera,
            points=X.astype(np.float32),
            normals=normals.astype(np.float32),
        )

    @property
    def block(self) -> int:
        return max(min(self.camera.height // _ROWS, self.camera.width // _COLUMNS), 1)


@dataclass(frozen=True, eq=False)
class SurfacePair:
    """What two views disagree by, in the directions in which errors of their poses and scales move surfaces.

    With residuals r along the normals and Z their derivatives (position of the one against the other, rotations of the
    first and the second, scales: 11 columns), in units of the residuals' own noise: g = Z'r, G = Z'Z. apart_s: seconds
    between the two. residual_m: the median distance between the surfaces. depth_m: their median depth.
    """

    ids: tuple[int, int]
    apart_s: float
    residual_m: float
    depth_m: float
    g: NDArray[np.float64]
    G: NDArray[np.float64]


def depth_mismatch(a: SurfaceView, b: SurfaceView, read: Callable[[Transform], Transform] = lambda T: T) -> float:
    """Median difference of depth, as a share, where both see the same if poses are read so; -1 where too little is."""
    T = np.linalg.solve(read(b.T_world_camera), read(a.T_world_camera))
    points = a.points[np.isfinite(a.points[..., 2])].astype(np.float64)
    X = points @ T[:3, :3].T + T[:3, 3]
    index, cell = _cells(X, b)
    expected, measured = X[index, 2], b.points[cell[:, 1], cell[:, 0], 2]
    known = np.isfinite(measured)
    if np.count_nonzero(known) < max(_LEAST_POINTS, _SHARE_SEEN * len(points)):
        return -1.0
    return float(np.median(np.abs(np.log(expected[known] / measured[known]))))


def _cells(X: NDArray[np.float64], b: SurfaceView) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of the points X [n, 3], in b's camera frame, lie in its image, and in which of its blocks (column, row)."""
    with np.errstate(invalid="ignore"):
        uv = b.camera.project(X)
        inside = (X[:, 2] > 0.1) & b.camera.contains(uv)
    cell = np.clip(np.round((uv[inside] - (b.block - 1) / 2) / b.block), -1, 1e4).astype(np.intp)
    rows, columns = b.points.shape[:2]
    fits = (cell >= 0).all(axis=1) & (cell[:, 0] < columns) & (cell[:, 1] < rows)
    return np.flatnonzero(inside)[fits], cell[fits]


@dataclass(frozen=True, eq=False)
class _Met:
    """Points of one view where the other shows a surface that faces the same way: how far they are from it along its
    normal [n], m; its normals and the points [n, 3], world; their depth in the other view [n]."""

    r: NDArray[np.float64]
    normals: NDArray[np.float64]
    points: NDArray[np.float64]
    depth: NDArray[np.float64]


def _met(a: SurfaceView, b: SurfaceView) -> _Met:
    Ta, Tb = a.T_world_camera, b.T_world_camera
    own = np.isfinite(a.normals[..., 0])
    world = a.points[own].astype(np.float64) @ Ta[:3, :3].T + Ta[:3, 3]
    facing = a.normals[own].astype(np.float64) @ Ta[:3, :3].T
    X = (world - Tb[:3, 3]) @ Tb[:3, :3]
    index, cell = _cells(X, b)
    normal = b.normals[cell[:, 1], cell[:, 0]].astype(np.float64) @ Tb[:3, :3].T
    place = b.points[cell[:, 1], cell[:, 0]].astype(np.float64) @ Tb[:3, :3].T + Tb[:3, 3]
    with np.errstate(invalid="ignore"):
        same = np.sum(normal * facing[index], axis=1) > _SAME_FACING
    index, normal, place = index[same], normal[same], place[same]
    return _Met(np.sum(normal * (world[index] - place), axis=1), normal, world[index], X[index, 2])


def apart_m(a: SurfaceView, b: SurfaceView) -> float:
    """Upper quartile of the distance between what two views make the same surfaces, also of ones far apart: along walls that
    the camera moves along, they do not part. NaN for too few."""
    r = _met(a, b).r
    return float(np.percentile(np.abs(r), 75)) if len(r) >= _LEAST_SAMPLES else np.nan


def compare(a: SurfaceView, b: SurfaceView) -> SurfacePair | None:
    """The disagreement of two views; None where they share too little."""
    Ta, Tb = a.T_world_camera, b.T_world_camera
    met = _met(a, b)
    with np.errstate(invalid="ignore"):
        good = np.abs(met.r) < _GATE_M + _GATE_SHARE * met.depth
    if np.count_nonzero(good) < _LEAST_SAMPLES:
        return None
    r, n, p, depth = met.r[good], met.normals[good], met.points[good], met.depth[good]
    from_a, from_b = p - Ta[:3, 3], p - Tb[:3, 3]
    Z = np.column_stack(
        [n, np.cross(from_a, n), -np.cross(from_b, n), np.sum(n * from_a, axis=1), -np.sum(n * from_b, axis=1)]
    )
    # what a rigid motion does not explain is noise, and things that moved: begun with all, and with the bulk alone
    noise, left = min((_rest(Z[:, :6], r, start) for start in (None, r - np.median(r))), key=lambda found: found[0])
    kept = np.abs(left) < 3 * noise
    if np.count_nonzero(kept) < max(_LEAST_SAMPLES, 0.3 * len(r)):
        return None
    r, Z = r[kept], Z[kept]
    noise *= np.sqrt(max(len(r) / _INDEPENDENT, 1.0))
    # depth that is bent over the image, as lenses and patterns do it, is neither a motion nor a scale: it counts as noise
    views = ((from_a[kept], Ta[:3, :3]), (from_b[kept], Tb[:3, :3]))
    Q = np.column_stack([_bends(away @ R, n[kept] @ R) for away, R in views]) * (_BENT / noise)
    white = np.linalg.solve(np.eye(Q.shape[1]) + Q.T @ Q, Q.T @ np.column_stack([Z, r]))
    W = (np.column_stack([Z, r]) - Q @ white) / noise**2
    return SurfacePair(
        (a.frame_id, b.frame_id),
        abs(a.stamp_ns - b.stamp_ns) / 1e9,
        float(np.median(np.abs(r))),
        float(np.median(depth)),
        Z.T @ W[:, -1],
        Z.T @ W[:, :-1],
    )


def _rest(
    Z: NDArray[np.float64], r: NDArray[np.float64], left: NDArray[np.float64] | None
) -> tuple[float, NDArray[np.float64]]:
    """What a robust fit of residuals [n] by columns [n, 6] leaves, its deviation first. left: to weigh them by at first."""
    noise = 0.0
    for turn in range(7):
        if left is None:
            weight = np.ones(len(r))
        else:
            noise = max(1.4826 * float(np.median(np.abs(left))), _MIN_NOISE_M)
            weight = 1 / (1 + (left / (2 * noise)) ** (2 if turn < 3 else 4))  # Cauchy, then what is far off hardly counts
        root = np.sqrt(weight)
        left = r - Z @ np.linalg.lstsq(Z * root[:, None], r * root, rcond=1e-4)[0]
    assert left is not None
    return max(1.4826 * float(np.median(np.abs(left))), _MIN_NOISE_M), left


def _bends(X: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far surfaces move along their normals where depth is off by x^2, x y and y^2 times itself [n, 3]; camera frame."""
    x, y = X[:, 0] / X[:, 2], X[:, 1] / X[:, 2]
    along = np.sum(X * normals, axis=1)
    return np.column_stack([along * x * x, along * x * y, along * y * y])
