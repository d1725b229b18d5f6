"""Exact depth, color and objects of a house, by casting rays (Embree through embreex; no OpenGL, no display)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.simulation.layout import House
from spatial_mllm_ros.simulation.materials import TEXELS, Material, texture
from spatial_mllm_ros.sources.source import SourceError

LEVELS = 6  # of the texture pyramids: 256, 128, ... 8 texels
BAND = 16384  # pixels rendered at a time: what they need stays in the processor's cache, which halves the time


@dataclass(frozen=True, eq=False)
class Hits:
    """What rays meet first. distance: in units of the ray's direction, float64 [n], infinite where nothing is met.

    thing: index into ``house.things``, int32 [n], -1 where nothing is met. facing: cosine between ray and surface
    normal, 0 (grazing) to 1, float64 [n]. measurable: False where the surface returns no depth to a depth camera.
    """

    distance: NDArray[np.float64]
    thing: NDArray[np.int32]
    facing: NDArray[np.float64]
    measurable: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class View:
    """A rendered image: exact depth along the optical axis in metres (0 = nothing met), float32 [height, width].

    image: uint8 RGB [height, width, 3], or None. thing: index into ``house.things``, -1 for nothing, int16 [h, w].
    facing: cosine between ray and surface normal, 0 to 1, and 0 where the surface returns no depth, float32 [h, w].
    """

    depth: NDArray[np.float32]
    thing: NDArray[np.int16]
    facing: NDArray[np.float32]
    image: NDArray[np.uint8] | None = None


class RayCaster:
    """Casts rays into a house. Light is baked once per corner, so that an image costs one ray a pixel.

    Raises SourceError where embreex is not installed.
    """

    def __init__(self, house: House) -> None:
        self.house = house
        meshes = [(i, mesh) for i, thing in enumerate(house.things) for mesh in thing.meshes]
        counts = [len(mesh.corners) for _, mesh in meshes]
        corners = np.concatenate([mesh.corners for _, mesh in meshes])
        self._scene = embree_scene(corners)
        self._triangles = corners
        self._thing = np.repeat(np.array([i for i, _ in meshes], dtype=np.int32), counts)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self._normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
        self._offset = np.einsum("ij,ij->i", self._normal, corners[:, 0])
        materials = list(dict.fromkeys(mesh.material for _, mesh in meshes))
        number = {material: k for k, material in enumerate(materials)}
        material = np.repeat(np.array([number[mesh.material] for _, mesh in meshes]), counts)
        self._measurable = np.array([m.measurable for m in materials])[material]
        self._thing16 = self._thing.astype(np.int16)
        self._shading: _Shading | None = None
        self._shading_parts = (
            np.concatenate([mesh.normals for _, mesh in meshes]),
            np.concatenate([mesh.uv for _, mesh in meshes]),
            material,
            materials,
        )

    def cast(self, origins: ArrayLike, directions: ArrayLike) -> Hits:
        """What rays from ``origins`` [n, 3] or [3] along ``directions`` [n, 3] meet first; metres, world.

        Distances are refined to double precision with the plane of the triangle that Embree found.
        """
        d = np.atleast_2d(np.asarray(directions, dtype=np.float64))
        o = np.ascontiguousarray(np.broadcast_to(np.asarray(origins, dtype=np.float64), d.shape))
        prim = self._scene.run(o.astype(np.float32), np.ascontiguousarray(d, dtype=np.float32))
        met = prim >= 0
        k = np.where(met, prim, 0)
        along = np.einsum("ij,ij->i", self._normal[k], d)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (self._offset[k] - np.einsum("ij,ij->i", self._normal[k], o)) / along
            facing = np.abs(along) / np.linalg.norm(d, axis=1)
        return Hits(
            np.where(met, t, np.inf),
            np.where(met, self._thing[k], -1).astype(np.int32),
            np.where(met, facing, 0.0),
            met & self._measurable[k],
        )

    def cast_pixels(self, camera: CameraModel, T_world_camera: Transform, uv: ArrayLike) -> Hits:
        """What the rays through pixels [n, 2] meet; ``distance`` is the depth along the optical axis, metres."""
        rays = camera.unproject(np.atleast_2d(np.asarray(uv, dtype=np.float64)))
        return self.cast(T_world_camera[:3, 3], rays @ T_world_camera[:3, :3].T)

    def render(self, camera: CameraModel, T_world_camera: Transform, color: bool = True) -> View:
        """The image that a camera sees from a pose; without ``color`` only geometry, which is twice as fast."""
        rays = camera.rays().reshape(-1, 3)
        lengths = _ray_lengths(camera)
        R = T_world_camera[:3, :3].T.astype(np.float32)
        # |distance of the camera to a triangle's plane| / |distance to the hit| = cosine to the normal
        height = np.abs(self._normal @ T_world_camera[:3, 3] - self._offset) * self._measurable
        height = height.astype(np.float32)
        if color and self._shading is None:
            self._shading = _Shading(self, *self._shading_parts)
        depth, facing = np.empty(len(rays), dtype=np.float32), np.empty(len(rays), dtype=np.float32)
        thing = np.empty(len(rays), dtype=np.int16)
        image = np.empty((len(rays), 3), dtype=np.uint8) if color else None
        origins = np.empty((min(BAND, len(rays)), 3), dtype=np.float32)
        origins[:] = T_world_camera[:3, 3]
        for first in range(0, len(rays), BAND):
            band = slice(first, min(first + BAND, len(rays)))
            directions = rays[band] @ R
            hits = self._scene.run(origins[: len(directions)], directions, output=1)
            prim, t = hits["primID"], hits["tfar"]
            missed = prim < 0
            if missed.any():
                prim, t = np.where(missed, 0, prim), np.where(missed, np.float32(0), t)
            depth[band] = t
            facing[band] = height[prim] / (np.maximum(t, np.float32(1e-6)) * lengths[band])
            thing[band] = self._thing16[prim]
            if image is not None and self._shading is not None:
                image[band] = self._shading.image(prim, hits["u"], hits["v"], t, camera.fx)
            if missed.any():
                facing[band][missed], thing[band][missed] = 0.0, -1
                if image is not None:
                    image[band][missed] = 0
        shape = (camera.height, camera.width)
        return View(
            depth.reshape(shape),
            thing.reshape(shape),
            facing.reshape(shape),
            None if image is None else image.reshape(*shape, 3),
        )


def embree_scene(triangles: NDArray[np.float64]) -> Any:
    """An Embree scene of triangles [n, 3, 3], metres. SourceError where embreex is not installed."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError as error:
        raise SourceError(
            "rendered rooms need embreex, which is not installed: pip install embreex "
            "(Linux on x86-64, macOS and Windows; there is no wheel for Linux on ARM: use a recording of another kind "
            f"there) [{error}]"
        ) from error
    try:
        scene = EmbreeScene(None, robust=True)  # no ray slips between two triangles
    except TypeError:  # embreex before 4
        scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(triangles, dtype=np.float32))
    return scene


@lru_cache(maxsize=16)
def _ray_lengths(camera: CameraModel) -> NDArray[np.float32]:
    return np.linalg.norm(camera.rays(), axis=2).ravel().astype(np.float32)


class _Shading:
    """Color of hits: a texture pyramid for every material, and light interpolated between corners."""

    def __init__(
        self,
        caster: RayCaster,
        normals: NDArray[np.float64],
        uv: NDArray[np.float64],
        material: NDArray[np.intp],
        materials: list[Material],
    ) -> None:
        texels = np.array([TEXELS / m.metres for m in materials])[material]
        st = uv * texels[:, None, None]
        st += TEXELS * (1 - np.floor(st.min(axis=1, keepdims=True) / TEXELS))  # positive, so that int() rounds down
        glow = np.array([m.glow for m in materials])[material]
        light = _baked_light(caster, normals)
        light[glow] = 1.0
        channels = [st[..., 0], st[..., 1], light * 256]
        rows = [np.stack([c[:, 0], c[:, 1] - c[:, 0], c[:, 2] - c[:, 0]], axis=1) for c in channels]
        self._table = np.concatenate([*rows, texels[:, None]], axis=1).astype(np.float32)
        pyramids = [_pyramid(texture(m)) for m in materials]
        self._texels = np.concatenate(pyramids)
        self._base = (material * len(pyramids[0])).astype(np.int32)
        sizes = [(TEXELS >> k) ** 2 for k in range(LEVELS)]
        self._level_offset = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)

    def image(
        self,
        prim: NDArray[np.int32],
        u: NDArray[np.float32],
        v: NDArray[np.float32],
        depth: NDArray[np.float32],
        fx: float,
    ) -> NDArray[np.uint8]:
        """uint8 RGB [n, 3] of hits at barycentric (u, v) of triangles ``prim``, ``depth`` metres away."""
        row = self._table[prim]
        s = (row[:, 0] + u * row[:, 1] + v * row[:, 2]).astype(np.int32) & (TEXELS - 1)
        t = (row[:, 3] + u * row[:, 4] + v * row[:, 5]).astype(np.int32) & (TEXELS - 1)
        light = np.clip(row[:, 6] + u * row[:, 7] + v * row[:, 8], 0, 256).astype(np.uint16)
        step = depth * row[:, 9] * np.float32(1.0 / fx)  # texels between neighbouring pixels
        level = np.zeros(len(prim), dtype=np.int32)
        for k in range(LEVELS - 1):
            level += step > 1.5 * 2**k
        where = self._base[prim] + self._level_offset[level] + ((t >> level) << (8 - level)) + (s >> level)
        color = self._texels[where].view(np.uint8).reshape(-1, 4)[:, :3].astype(np.uint16)
        color *= light[:, None]
        color >>= 8
        return color.astype(np.uint8)


def _pyramid(tile: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """All levels of a texture one after the other, RGBX packed into uint32."""
    level: NDArray[np.floating] = tile.astype(np.float32)
    out = []
    for _ in range(LEVELS):
        packed = np.zeros((*level.shape[:2], 4), dtype=np.uint8)
        packed[..., :3] = level + 0.5
        out.append(packed.reshape(-1, 4).view(np.uint32).ravel())
        level = (level[0::2, 0::2] + level[1::2, 0::2] + level[0::2, 1::2] + level[1::2, 1::2]) / 4
    return np.concatenate(out)


def _baked_light(caster: RayCaster, normals: NDArray[np.float64], samples: int = 16) -> NDArray[np.float64]:
    """Light at every corner, [n, 3], 0.05 to 1: sky (how open a corner is) plus the lamp of its room (Lambert)."""
    rng = np.random.default_rng(0)
    corners = caster._triangles
    room = np.array([thing.room for thing in caster.house.things])[caster._thing]
    inward = corners.mean(axis=1, keepdims=True) - corners
    flat = np.concatenate([corners, normals], axis=2).reshape(-1, 6)
    keys = np.rint(np.concatenate([flat[:, :3] * 1000, flat[:, 3:] * 10], axis=1)).astype(np.int32)
    _, first, same = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    same = same.ravel()
    count = np.bincount(same)
    shift = np.stack([np.bincount(same, inward.reshape(-1, 3)[:, k]) / count for k in range(3)], axis=1)
    shift *= 0.02 / np.maximum(np.linalg.norm(shift, axis=1, keepdims=True), 0.02)
    normal = flat[first, 3:]
    point = flat[first, :3] + 0.004 * normal + shift
    room = room[first // 3]

    # Openness: rays with the cosine's density about the normal, by adding a point of the unit sphere to it.
    spread = rng.standard_normal((samples, 3))
    spread /= np.linalg.norm(spread, axis=1, keepdims=True)
    way = normal[:, None] + 0.98 * spread
    way /= np.linalg.norm(way, axis=2, keepdims=True)
    sky = ~_blocked(caster, point, way, 0.7)

    centres = np.array([(*r.centre, caster.house.ceiling - 0.25) for r in caster.house.rooms])
    area = np.concatenate([rng.uniform(-0.5, 0.5, (samples, 2)), np.zeros((samples, 1))], axis=1)
    to_lamp = centres[room][:, None] + area - point[:, None]
    reach = np.linalg.norm(to_lamp, axis=2, keepdims=True)
    lit = ~_blocked(caster, point, to_lamp, 0.99)
    cosine = np.clip(np.einsum("nsk,nk->ns", to_lamp / reach, normal), 0, None)
    lamp = (lit * cosine / (1 + 0.12 * reach[..., 0] ** 2)).mean(axis=1)
    # A fixed direction tells the faces of a box apart where the lamp does not.
    sun = 0.08 * (normal @ np.array([0.6, 0.35, 0.2]))
    light = 0.2 + 0.46 * sky.mean(axis=1) + 0.75 * lamp + sun + 0.16 * (normal[:, 2] < -0.9)
    return np.clip(light, 0.05, 1.0)[same].reshape(-1, 3)


def _blocked(
    caster: RayCaster, points: NDArray[np.float64], ways: NDArray[np.float64], reach: float
) -> NDArray[np.bool_]:
    """Whether something is met from points [n, 3] along ways [n, s, 3] within ``reach`` of their length, [n, s]."""
    n, s, _ = ways.shape
    out = np.empty((n, s), dtype=bool)
    for k in range(s):
        hit = caster._scene.run(
            points.astype(np.float32),
            np.ascontiguousarray(ways[:, k], dtype=np.float32),
            dists=np.full(n, reach, dtype=np.float32),
            query="OCCLUDED",
        )
        out[:, k] = hit >= 0
    return out
