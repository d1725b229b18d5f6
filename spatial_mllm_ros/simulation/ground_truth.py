"""What a rendered recording shows where and when, exactly: the basis of every truth."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from spatial_mllm_ros.scene.pose import apply, invert
from spatial_mllm_ros.simulation.layout import Thing, yaw_matrix
from spatial_mllm_ros.simulation.raycast import View, embree_scene
from spatial_mllm_ros.simulation.rendered import RenderedSource

# Points are asked about where any good depth camera measures well, well within its range.
NEAR_M, FAR_M = 0.5, 5.0
FACING = 0.25
OCCLUDED_M = 0.3  # something this much nearer hides a point beyond doubt
CACHED_VIEWS = 250


@dataclass(frozen=True, eq=False)
class Point:
    """A pixel and the point of the world that it shows. xyz: metres, [3]; depth, range_m: from that frame's camera."""

    frame: int
    u: int
    v: int
    xyz: NDArray[np.float64]
    depth: float
    range_m: float
    thing: Thing


@dataclass(frozen=True)
class Box:
    """A box of pixels tightly round a whole thing, and the thing's size, metres.

    tall: its height. wide: its longer horizontal side, None where what is visible does not tell it.
    """

    frame: int
    u_min: int
    v_min: int
    u_max: int
    v_max: int
    tall: float
    wide: float | None
    name: str


class GroundTruth:
    """Looks into a recording with exact rays and true poses; never at what its sensor measured, but for ``blind``.

    frames: the indices of those from which points are taken, at most ``pool`` of them.
    """

    def __init__(self, source: RenderedSource, rng: np.random.Generator, pool: int = 240) -> None:
        self.source = source
        self.count = len(source.stamps)
        self.frames = np.unique(np.linspace(0, self.count - 1, min(pool, self.count)).round().astype(int))
        self._rng = rng
        self._views: OrderedDict[int, View] = OrderedDict()
        self._good: dict[int, dict[int, NDArray[np.intp]]] = {}
        self._T_camera_world = np.stack([invert(source.true_pose(i)) for i in range(self.count)])
        self._boxes: list[Box] | None = None
        # Pixels kept clear of edges and borders.
        self.clear_px = 4 if source.camera.width >= 320 else 2

    def view(self, frame: int) -> View:
        """Exact depth and objects of a frame, without color."""
        if frame in self._views:
            self._views.move_to_end(frame)
        else:
            self._views[frame] = self.source.view(frame, color=False)
            if len(self._views) > CACHED_VIEWS:
                self._views.popitem(last=False)
        return self._views[frame]

    def point(self, frame: int | None = None) -> Point | None:
        """A random point on a random thing, away from edges; None when the frame shows nothing suitable."""
        if frame is None:
            frame = int(self._rng.choice(self.frames))
        places = self._good_pixels(frame)
        if not places:
            return None
        things = list(places)
        furniture = [t for t in things if not self.source.house.things[t].is_structure]
        if furniture and self._rng.random() < 0.7:
            things = furniture
        pixel = int(self._rng.choice(places[things[int(self._rng.integers(len(things)))]]))
        return self.point_at(frame, pixel % self.source.camera.width, pixel // self.source.camera.width)

    def point_at(self, frame: int, u: int, v: int) -> Point:
        """What pixel (u, v) of a frame shows."""
        camera, T = self.source.camera, self.source.true_pose(frame)
        hit = self.source.caster.cast_pixels(camera, T, [(u, v)])
        depth = float(hit.distance[0])
        local = camera.unproject(np.array([[u, v]])) * depth
        thing = self.source.house.things[int(hit.thing[0])]
        return Point(frame, u, v, apply(T, local)[0], depth, float(np.linalg.norm(local)), thing)

    def _good_pixels(self, frame: int) -> dict[int, NDArray[np.intp]]:
        """Flat indices of suitable pixels, by thing."""
        if frame not in self._good:
            view = self.view(frame)
            good = (view.facing > FACING) & (view.depth > NEAR_M) & (view.depth < FAR_M) & (view.thing >= 0)
            good &= ~ndimage.maximum_filter(_edges(view), 2 * self.clear_px + 1)
            edge = self.clear_px + 2
            good[:edge], good[-edge:], good[:, :edge], good[:, -edge:] = False, False, False, False
            flat = np.flatnonzero(good)
            things = view.thing.ravel()[flat]
            order = np.argsort(things, kind="stable")
            names, starts = np.unique(things[order], return_index=True)
            ends = np.append(starts, len(flat))[1:]
            spans = zip(names.tolist(), starts, ends, strict=True)
            self._good[frame] = {name: flat[order][a:b] for name, a, b in spans if b - a >= 12}
        return self._good[frame]

    def project(self, xyz: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels [frames, 2] (NaN behind the camera) and depths [frames] of a world point in every frame."""
        local = self._T_camera_world[:, :3, :3] @ xyz + self._T_camera_world[:, :3, 3]
        return self.source.camera.project(local), local[:, 2]

    def seen(self, xyz: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """For every frame: 1 where a world point is clearly visible, -1 where clearly not, 0 between; and its pixels.

        Clearly visible: well inside the image, within the depth camera's range, not grazing, and so are the rays round
        it. Clearly not: well outside the image, or hidden behind something at least OCCLUDED_M nearer.
        """
        camera = self.source.camera
        uv, z = self.project(xyz)
        margin = max(3.0, 8 * camera.width / 640)
        u, v = uv[:, 0], uv[:, 1]
        with np.errstate(invalid="ignore"):
            inside = (u > margin) & (u < camera.width - 1 - margin) & (v > margin) & (v < camera.height - 1 - margin)
            near = (u > -margin) & (u < camera.width - 1 + margin) & (v > -margin) & (v < camera.height - 1 + margin)
        near &= z > 0.05
        out = np.where(near, 0, -1).astype(np.int8)
        look = np.flatnonzero(near)
        if len(look) == 0:
            return out, uv
        k = max(1.5, self.clear_px * 0.75)
        offsets = np.array([(0, 0), (k, 0), (-k, 0), (0, k), (0, -k)])
        rays = camera.unproject(uv[look][:, None] + offsets)
        poses = self.source.tour.poses[look]
        directions = np.einsum("nij,nkj->nki", poses[:, :3, :3], rays)
        origins = np.broadcast_to(poses[:, None, :3, 3], directions.shape)
        hits = self.source.caster.cast(origins.reshape(-1, 3), directions.reshape(-1, 3))
        shape = (len(look), len(offsets))
        depth, facing = hits.distance.reshape(shape), hits.facing.reshape(shape)
        thing, measurable = hits.thing.reshape(shape), hits.measurable.reshape(shape)
        here = z[look]
        same = (np.abs(depth[:, 0] - here) < 0.005) & (thing == thing[:, :1]).all(axis=1)
        fits = (here > NEAR_M) & (here < FAR_M) & (facing[:, 0] > FACING) & measurable[:, 0]
        smooth = (np.abs(depth - here[:, None]) < 0.08 * here[:, None] + 0.02).all(axis=1)
        hidden = ((depth < here[:, None] - OCCLUDED_M) & measurable & (depth > 0.35)).all(axis=1)
        out[look[same & fits & smooth & inside[look]]] = 1
        out[look[hidden]] = -1
        return out, uv

    def blind(self, frame: int) -> NDArray[np.intp]:
        """Flat indices of pixels whose measured depth is missing in 7 x 7 pixels round them."""
        measured = self.source.sensor.depth(self.view(frame), frame) > 0
        empty = ~ndimage.maximum_filter(measured, 7)
        empty[:4], empty[-4:], empty[:, :4], empty[:, -4:] = False, False, False, False
        return np.flatnonzero(empty)

    def ceiling_seen(self) -> bool:
        """Whether at least three frames show the ceiling on 2 % of their pixels or more, within range."""
        ceilings = [i for i, t in enumerate(self.source.house.things) if t.category == "ceiling"]
        shown = 0
        for frame in self.frames:
            view = self.view(int(frame))
            ok = np.isin(view.thing, ceilings) & (view.depth < FAR_M) & (view.facing > FACING)
            shown += bool(ok.mean() > 0.02)
        return shown >= 3

    def boxes(self) -> list[Box]:
        """Boxes round whole solid things that nothing hides and no border cuts, in the frames of the pool."""
        if self._boxes is None:
            self._boxes = [box for frame in self.frames for box in self._boxes_of(int(frame))]
        return self._boxes

    def _boxes_of(self, frame: int) -> list[Box]:
        view, camera = self.view(frame), self.source.camera
        things = self.source.house.things
        out = []
        for index in np.unique(view.thing):
            thing = things[index]
            if index < 0 or not thing.solid:
                continue
            mask = view.thing == index
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            v0, v1, u0, u1 = rows[0], rows[-1], columns[0], columns[-1]
            border = self.clear_px
            if v0 < border or u0 < border or v1 >= camera.height - border or u1 >= camera.width - border:
                continue
            part = (slice(v0, v1 + 1), slice(u0, u1 + 1))
            inside, depth, facing = mask[part], view.depth[part], view.facing[part]
            # Other things close by in depth could not be told apart; what is far behind can.
            close = (view.depth[part] < depth[inside].max() + 0.3) & ~inside
            others = close & np.isin(view.thing[part], [i for i, t in enumerate(things) if not t.is_structure])
            if (
                mask.sum() < 0.006 * mask.size
                or inside.mean() < 0.55
                or others.sum() > 0.03 * inside.size
                or depth[inside].min() < NEAR_M
                or depth[inside].max() > FAR_M
                or np.mean(facing[inside] < FACING) > 0.1
            ):
                continue
            if not self._whole(frame, thing, mask, (v0, v1, u0, u1)):
                continue
            tall, wide = self._visible_size(frame, mask, thing)
            if abs(tall - thing.size[2]) > 0.02 + 0.03 * thing.size[2]:
                continue
            out.append(Box(frame, int(u0), int(v0), int(u1), int(v1), float(thing.size[2]), wide, thing.name))
        return out

    def _whole(self, frame: int, thing: Thing, mask: NDArray[np.bool_], span: tuple[int, int, int, int]) -> bool:
        """Whether a thing fills the box that it would fill in an empty world, and nine tenths of it are visible."""
        camera, T = self.source.camera, self.source.true_pose(frame)
        v0, v1, u0, u1 = span
        pad = 12
        rows = slice(max(0, v0 - pad), min(camera.height, v1 + pad + 1))
        columns = slice(max(0, u0 - pad), min(camera.width, u1 + pad + 1))
        rays = camera.rays()[rows, columns].reshape(-1, 3) @ T[:3, :3].T.astype(np.float32)
        origins = np.broadcast_to(T[:3, 3].astype(np.float32), rays.shape).copy()
        scene = embree_scene(np.concatenate([m.corners for m in thing.meshes]))
        alone = scene.run(origins, np.ascontiguousarray(rays)) >= 0
        alone = alone.reshape(mask[rows, columns].shape)
        r, c = np.flatnonzero(alone.any(axis=1)) + rows.start, np.flatnonzero(alone.any(axis=0)) + columns.start
        return bool(mask.sum() > 0.9 * alone.sum()) and (r[0], r[-1], c[0], c[-1]) == span

    def _visible_size(self, frame: int, mask: NDArray[np.bool_], thing: Thing) -> tuple[float, float | None]:
        """Height of the visible surface, and the thing's longer horizontal side where that can be told, metres.

        It can when the top is visible, or only the longer side is. Two sides without the top fill just half of their
        rectangle seen from above, and the rectangle along the diagonal is then as small as the true one.
        """
        view = self.view(frame)
        points = self.source.camera.rays()[mask] * view.depth[mask][:, None]
        world = apply(self.source.true_pose(frame), points.astype(np.float64))
        local = np.ptp((world - thing.centre) @ yaw_matrix(thing.yaw), axis=0)
        filled = ConvexHull(world[:, :2], qhull_options="QJ").volume / float(np.prod(thing.size[:2]))
        long = int(thing.size[1] > thing.size[0])
        spans = abs(local[long] - thing.size[long]) < 0.02 + 0.03 * thing.size[long]
        told = filled > 0.8 or local[1 - long] < 0.04
        return float(np.ptp(world[:, 2])), float(thing.size[long]) if spans and told else None


def _edges(view: View) -> NDArray[np.bool_]:
    """Pixels at the border of two things or at a depth jump within one (planes have linear inverse depth)."""
    edge = np.zeros(view.depth.shape, dtype=bool)
    with np.errstate(divide="ignore"):
        inverse = np.where(view.depth > 0, 1 / view.depth, 0)
    for axis in (0, 1):
        a = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        b = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        edge[a] |= view.thing[a] != view.thing[b]
        edge[b] |= view.thing[a] != view.thing[b]
        bend = np.abs(np.diff(inverse, 2, axis=axis))
        middle = (slice(1, -1), slice(None)) if axis == 0 else (slice(None), slice(1, -1))
        edge[middle] |= bend > 0.02 * inverse[middle]
    return edge
