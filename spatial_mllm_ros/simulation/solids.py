"""Triangles of simple solids, with texture coordinates and normals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_ros.simulation.materials import Material

CELL_M = 0.35  # light is baked at the corners of triangles, so that large faces need corners inside


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles of one material.

    corners: metres, float64 [n, 3, 3] (triangle, corner, xyz), counter-clockwise seen from outside.
    normals: unit, outward, of every corner, float64 [n, 3, 3]. uv: texture coordinates, metres, float64 [n, 3, 2].
    """

    corners: NDArray[np.float64]
    normals: NDArray[np.float64]
    uv: NDArray[np.float64]
    material: Material

    def moved(self, yaw: float = 0.0, offset: ArrayLike = (0.0, 0.0, 0.0)) -> Mesh:
        """Turned by ``yaw`` radians about z, then shifted by ``offset`` metres."""
        R = yaw_matrix(yaw)
        return Mesh(self.corners @ R.T + np.asarray(offset), self.normals @ R.T, self.uv, self.material)


def yaw_matrix(yaw: float) -> NDArray[np.float64]:
    """Rotation by ``yaw`` radians about z, 3x3."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def quad(origin: ArrayLike, edge_u: ArrayLike, edge_v: ArrayLike, material: Material, fit: bool = False) -> Mesh:
    """A rectangle from ``origin`` along two edges (metres), cut into cells; outward is edge_u x edge_v.

    ``fit``: one texture tile covers the whole rectangle instead of repeating.
    """
    o, eu, ev = (np.asarray(x, dtype=np.float64) for x in (origin, edge_u, edge_v))
    lengths = np.linalg.norm(eu), np.linalg.norm(ev)
    nu, nv = (max(1, int(np.ceil(length / CELL_M))) for length in lengths)
    a, b = (g.ravel() for g in np.meshgrid(np.arange(nu), np.arange(nv)))
    cell = np.stack([np.stack([a + i, b + j], axis=-1) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))], axis=1)
    fraction = cell / (nu, nv)
    fraction = np.concatenate([fraction[:, [0, 1, 2]], fraction[:, [0, 2, 3]]])
    corners = o + fraction[..., :1] * eu + fraction[..., 1:] * ev
    normal = np.cross(eu, ev)
    normals = np.broadcast_to(normal / np.linalg.norm(normal), corners.shape).copy()
    uv = fraction * (material.metres if fit else np.asarray(lengths))
    return Mesh(corners, normals, uv, material)


def box(size: Sequence[float], centre: Sequence[float], material: Material, fit: bool = False) -> Mesh:
    """An axis-aligned box of ``size`` (metres) round ``centre``; ``fit`` as in quad, for every face."""
    s, c = np.asarray(size, dtype=np.float64), np.asarray(centre, dtype=np.float64)
    low, high = c - s / 2, c + s / 2
    x, y, z = np.diag(s)
    faces = (
        quad((high[0], low[1], low[2]), y, z, material, fit),
        quad((low[0], high[1], low[2]), -y, z, material, fit),
        quad((high[0], high[1], low[2]), -x, z, material, fit),
        quad((low[0], low[1], low[2]), x, z, material, fit),
        quad((low[0], low[1], high[2]), x, y, material, fit),
        quad((low[0], high[1], low[2]), x, -y, material, fit),
    )
    return joined(faces)


def lathe(
    profile: Sequence[tuple[float, float]],
    centre: Sequence[float],
    material: Material,
    segments: int = 20,
    smooth: bool = False,
) -> Mesh:
    """A solid of revolution about the vertical through ``centre``.

    profile: (radius, height) in metres from the lowest to the highest point, heights from centre[2]; start and end at
    radius 0 to close it. ``smooth``: round shading across the profile (a ball) instead of sharp rings (a cylinder).
    """
    p = np.asarray(profile, dtype=np.float64)
    steps = np.diff(p, axis=0)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(steps, axis=1))])
    tilt = _unit(np.stack([steps[:, 1], -steps[:, 0]], axis=1))
    n_low = n_high = tilt
    if smooth:
        n_low = _unit(tilt + np.concatenate([tilt[:1], tilt[:-1]]))
        n_high = _unit(tilt + np.concatenate([tilt[1:], tilt[-1:]]))
    # Per ring and segment a rectangle: low here, low there, high there, high here.
    radius = np.stack([p[:-1, 0], p[:-1, 0], p[1:, 0], p[1:, 0]], axis=1)[:, None]
    height = np.stack([p[:-1, 1], p[:-1, 1], p[1:, 1], p[1:, 1]], axis=1)[:, None]
    normal = np.stack([n_low, n_low, n_high, n_high], axis=1)[:, None]
    along = np.stack([length[:-1], length[:-1], length[1:], length[1:]], axis=1)[:, None]
    number = np.arange(segments)[:, None] + np.array([0, 1, 1, 0])
    c, s = np.cos(2 * np.pi * number / segments), np.sin(2 * np.pi * number / segments)
    xyz = np.stack(np.broadcast_arrays(radius * c, radius * s, height), axis=-1)
    normals = np.stack(np.broadcast_arrays(normal[..., 0] * c, normal[..., 0] * s, normal[..., 1]), axis=-1)
    girth = 2 * np.pi * p[:, 0].max()
    uv = np.stack(np.broadcast_arrays(girth * number / segments, along), axis=-1)
    halves = np.array([[0, 1, 2], [0, 2, 3]])
    corners, normals, uv = (x[:, :, halves].reshape(-1, 3, x.shape[-1]) for x in (xyz, normals, uv))
    # At radius 0 one of both triangles has no area.
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    real = area > 1e-12
    return Mesh(corners[real] + np.asarray(centre, dtype=np.float64), normals[real], uv[real], material)


def cylinder(radius: float, height: float, centre: Sequence[float], material: Material, segments: int = 20) -> Mesh:
    """An upright cylinder whose lowest point is at centre[2]; metres."""
    return lathe([(0.0, 0.0), (radius, 0.0), (radius, height), (0.0, height)], centre, material, segments)


def ball(radius: float, centre: Sequence[float], material: Material, squash: float = 1.0) -> Mesh:
    """A sphere round ``centre``, its height scaled by ``squash``; metres."""
    a = np.linspace(-np.pi / 2, np.pi / 2, 11)
    profile = [
        (max(0.0, float(radius * np.cos(t))) if abs(t) < 1.57 else 0.0, float(radius * squash * np.sin(t))) for t in a
    ]
    return lathe(profile, centre, material, 20, smooth=True)


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of several that have the material of the first."""
    return Mesh(
        np.concatenate([m.corners for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.uv for m in meshes]),
        meshes[0].material,
    )


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
