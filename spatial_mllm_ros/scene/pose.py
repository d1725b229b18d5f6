"""Rigid transforms as 4x4 float64 arrays.

``T_a_b`` maps coordinates in frame b to coordinates in frame a: ``x_a = T_a_b @ x_b``. Lengths are metres, angles
radians, quaternions (x, y, z, w) as in geometry_msgs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

Transform = NDArray[np.float64]


class InvalidTransform(ValueError):
    """The numbers given are not a rigid transform."""


def make_transform(rotation: ArrayLike, translation: ArrayLike) -> Transform:
    """4x4 transform from a 3x3 rotation matrix and a translation [3] in metres."""
    T = np.eye(4)
    T[:3, :3] = rotation
    T[:3, 3] = translation
    return T


def from_quaternion(xyzw: ArrayLike, translation: ArrayLike = (0.0, 0.0, 0.0)) -> Transform:
    """4x4 transform from a quaternion (x, y, z, w), normalised here, and a translation in metres.

    Raises InvalidTransform for a zero or non-finite quaternion or translation.
    """
    q = np.asarray(xyzw, dtype=np.float64)
    t = np.asarray(translation, dtype=np.float64)
    norm = float(np.linalg.norm(q))
    if q.shape != (4,) or t.shape != (3,) or not np.isfinite(t).all() or not 1e-6 < norm < 1e6:
        raise InvalidTransform(f"not a rigid transform: quaternion (x, y, z, w) {q.tolist()}, translation {t.tolist()}")
    return make_transform(Rotation.from_quat(q / norm).as_matrix(), t)


FURTHEST_M = 1e9
"""No frame of this world lies further from another one; damaged files tell of any number."""

T_BODY_OPTICAL = from_quaternion((-0.5, 0.5, -0.5, 0.5))
"""REP-103: from x forward, y left, z up to the optical z forward, x right, y down, at the same place."""


T_OPENGL_OPTICAL = make_transform(np.diag([1.0, -1.0, -1.0]), np.zeros(3))
"""From OpenGL's and ARKit's camera (x right, y up, z backward) to the optical axes, at the same place."""


def to_quaternion(T: Transform) -> NDArray[np.float64]:
    """Rotation of T as a unit quaternion (x, y, z, w) with w >= 0."""
    q = Rotation.from_matrix(T[:3, :3]).as_quat()
    return -q if q[3] < 0 else q


def checked_transform(matrix: ArrayLike, tolerance: float = 1e-2) -> Transform:
    """A 4x4 matrix as a rigid transform, its rotation re-orthonormalised.

    Raises InvalidTransform if it is not finite, leads further than FURTHEST_M, its
    rotation is further than ``tolerance`` from orthonormal, or its
    last row is not (0, 0, 0, 1).
    """
    T = np.array(matrix, dtype=np.float64)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise InvalidTransform(f"a transform must be 4x4 and finite, not shape {T.shape}")
    if np.abs(T[:3, 3]).max() > FURTHEST_M:
        raise InvalidTransform(f"nothing is {np.abs(T[:3, 3]).max():.3g} m away")
    R = T[:3, :3]
    if (
        np.abs(T[3] - (0, 0, 0, 1)).max() > 1e-6
        or np.abs(R @ R.T - np.eye(3)).max() > tolerance
        or np.linalg.det(R) < 0
    ):
        raise InvalidTransform("the matrix is not a rigid transform (rotation not orthonormal, or last row not 0 0 0 1)")
    U, _, Vt = np.linalg.svd(R)
    T[:3, :3] = U @ Vt
    T[3] = (0, 0, 0, 1)
    return T


def invert(T: Transform) -> Transform:
    """Inverse of a rigid transform."""
    R = T[:3, :3]
    return make_transform(R.T, -R.T @ T[:3, 3])


def apply(T: Transform, points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Map points [..., 3] by T, keeping their dtype."""
    R = T[:3, :3].astype(points.dtype, copy=False)
    return points @ R.T + T[:3, 3].astype(points.dtype, copy=False)


def interpolate(T0: Transform, T1: Transform, fraction: float) -> Transform:
    """Between T0 (fraction 0) and T1 (fraction 1): linear in position, slerp in rotation, as tf2 does."""
    rotation = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([T0[:3, :3], T1[:3, :3]])))(fraction)
    return make_transform(rotation.as_matrix(), (1.0 - fraction) * T0[:3, 3] + fraction * T1[:3, 3])


def rotation_angle(T: Transform) -> float:
    """Angle of T's rotation in radians, 0 to pi."""
    return float(Rotation.from_matrix(T[:3, :3]).magnitude())
