"""Rigid transforms as seven plain floats: for what comes a thousand times a second, one at a time.

A transform of one moment is composed and interpolated some ten times faster so than as a 4x4 array, whose every operation
costs a call of numpy. ``matrix`` makes the array at the end.
"""

from __future__ import annotations

from math import acos, atan2, hypot, isfinite, sin, sqrt

import numpy as np

from spatial_mllm_ros.scene.pose import InvalidTransform, Transform, to_quaternion

Rigid = tuple[float, float, float, float, float, float, float]
"""Position x, y, z in metres, and a unit quaternion x, y, z, w. Maps points of the child to points of the parent."""

IDENTITY: Rigid = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
LEAST_NORM, MOST_NORM = 1e-6, 1e6
"""A quaternion whose length is not between these is no rotation that somebody meant."""
NEARLY_ONE = 1.0 - 1e-12
"""Cosine of half the angle above which a chord is as good as the arc, in double precision."""


def rigid(x: float, y: float, z: float, qx: float, qy: float, qz: float, qw: float) -> Rigid:
    """A transform of these numbers, its quaternion normalised. Raises InvalidTransform for numbers that are none."""
    norm = sqrt(qx * qx + qy * qy + qz * qz + qw * qw)
    if not (LEAST_NORM < norm < MOST_NORM and isfinite(x + y + z)):
        raise InvalidTransform(
            f"not a rigid transform: quaternion (x, y, z, w) {[qx, qy, qz, qw]}, translation {[x, y, z]}"
        )
    return (x, y, z, qx / norm, qy / norm, qz / norm, qw / norm)


def of_matrix(T: Transform) -> Rigid:
    """Of a 4x4 rigid transform."""
    x, y, z = T[:3, 3].tolist()
    qx, qy, qz, qw = to_quaternion(T).tolist()
    return (x, y, z, qx, qy, qz, qw)


def matrix(a: Rigid) -> Transform:
    """As a 4x4 array."""
    x, y, z, qx, qy, qz, qw = a
    xx, yy, zz, ww = qx * qx, qy * qy, qz * qz, qw * qw
    xy, xz, yz, xw, yw, zw = qx * qy, qx * qz, qy * qz, qx * qw, qy * qw, qz * qw
    return np.array(
        (
            (xx - yy - zz + ww, 2 * (xy - zw), 2 * (xz + yw), x),
            (2 * (xy + zw), yy - xx - zz + ww, 2 * (yz - xw), y),
            (2 * (xz - yw), 2 * (yz + xw), zz - xx - yy + ww, z),
            (0.0, 0.0, 0.0, 1.0),
        )
    )


def compose(a: Rigid, b: Rigid) -> Rigid:
    """a after b: where ``b`` maps c to b and ``a`` maps b to a, what maps c to a."""
    ax, ay, az, i, j, k, w = a
    x, y, z, bi, bj, bk, bw = b
    # v + 2 w (q x v) + 2 q x (q x v)
    tx, ty, tz = 2 * (j * z - k * y), 2 * (k * x - i * z), 2 * (i * y - j * x)
    return (
        ax + x + w * tx + j * tz - k * ty,
        ay + y + w * ty + k * tx - i * tz,
        az + z + w * tz + i * ty - j * tx,
        w * bi + i * bw + j * bk - k * bj,
        w * bj - i * bk + j * bw + k * bi,
        w * bk + i * bj - j * bi + k * bw,
        w * bw - i * bi - j * bj - k * bk,
    )


def inverse(a: Rigid) -> Rigid:
    """What undoes ``a``."""
    x, y, z, i, j, k, w = a
    turned = compose((0.0, 0.0, 0.0, -i, -j, -k, w), (x, y, z, 0.0, 0.0, 0.0, 1.0))
    return (-turned[0], -turned[1], -turned[2], -i, -j, -k, w)


def between(a: Rigid, b: Rigid, share: float) -> Rigid:
    """From ``a`` (share 0) to ``b`` (share 1): linear in position, slerp the shorter way in rotation, as tf2 does."""
    ax, ay, az, ai, aj, ak, aw = a
    bx, by, bz, bi, bj, bk, bw = b
    left = 1.0 - share
    cosine = ai * bi + aj * bj + ak * bk + aw * bw
    sign = -1.0 if cosine < 0 else 1.0
    cosine *= sign
    if cosine > NEARLY_ONE:
        p, q = left, share * sign
    else:
        angle = acos(cosine)
        sine = sin(angle)
        p, q = sin(left * angle) / sine, sign * sin(share * angle) / sine
    i, j, k, w = p * ai + q * bi, p * aj + q * bj, p * ak + q * bk, p * aw + q * bw
    norm = sqrt(i * i + j * j + k * k + w * w)
    return (
        left * ax + share * bx,
        left * ay + share * by,
        left * az + share * bz,
        i / norm,
        j / norm,
        k / norm,
        w / norm,
    )


def distance(a: Rigid, b: Rigid) -> float:
    """Between the positions, metres."""
    return hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2])


def angle(a: Rigid, b: Rigid) -> float:
    """Between the rotations, rad, 0 to pi."""
    _, _, _, i, j, k, w = a
    _, _, _, bi, bj, bk, bw = b
    return 2 * atan2(
        hypot(
            w * bi - i * bw - j * bk + k * bj,
            w * bj + i * bk - j * bw - k * bi,
            w * bk - i * bj + j * bi - k * bw,
        ),
        abs(w * bw + i * bi + j * bj + k * bk),
    )
