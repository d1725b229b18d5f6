"""Triangles of simple solids, with texture coordinates and normals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_ros.sources.rooms.materials import Material

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
    tilt = np.stack([steps[:, 1], -steps[:, 0]], axis=1) / np.linalg.norm(steps, axis=1, keepdims=True)
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    radial = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    girth = 2 * np.pi * p[:, 0].max()
    out = []
    for k, (low, high) in enumerate(pairwise(p)):
        n_low = n_high = tilt[k]
        if smooth:
            n_low = _unit(tilt[k] + tilt[max(k - 1, 0)])
            n_high = _unit(tilt[k] + tilt[min(k + 1, len(tilt) - 1)])
        for i in range(segments):
            ring = [(low, i, n_low, length[k]), (low, i + 1, n_low, length[k])]
            ring += [(high, i + 1, n_high, length[k + 1]), (high, i, n_high, length[k + 1])]
            for triangle in ((0, 1, 2), (0, 2, 3)):
                rows = [ring[j] for j in triangle]
                xyz = np.array([(*(q[0] * radial[j]), q[1]) for q, j, _, _ in rows])
                if np.linalg.norm(np.cross(xyz[1] - xyz[0], xyz[2] - xyz[0])) < 1e-12:
                    continue
                normal = np.array([(*(n[0] * radial[j]), n[1]) for _, j, n, _ in rows])
                out.append((xyz, normal, [(girth * j / segments, s) for _, j, _, s in rows]))
    corners = np.array([t[0] for t in out]) + np.asarray(centre, dtype=np.float64)
    return Mesh(corners, np.array([t[1] for t in out]), np.array([t[2] for t in out]), material)


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
    return x / np.linalg.norm(x)
