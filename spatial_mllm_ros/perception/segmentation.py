"""What a box in an image shows: the pixels and points of the one thing in it, parted from what lies behind and beneath."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.gravity import Gravity
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sensor import SensorModel

MIN_PIXELS = 40
"""Fewer measured pixels are no object."""
RIM_PX = 1
"""px: what is left out all round, since depth there mixes two surfaces."""
_MARGIN_PX = 12
"""px round the box in which what goes on beyond it is looked for."""
_PLANES = 4
"""Background planes at most, besides the floor."""
_TRIALS = 120
"""Triples of points tried for a plane: enough to find one that holds a third of them with 99 % probability (RANSAC)."""
_RING_POINTS = 1500
"""Points that a plane is tried on, at most."""
_BASE_PX = 3
"""px: half the base over which a normal is measured."""
_ALIKE = np.cos(np.radians(30))
"""Surfaces whose normals differ by less than 30 degrees face the same way."""
_SMOOTH_PX = 7
"""px: side of the window in which depth is smoothed."""
_NEIGHBOURS = np.ones((3, 3), dtype=np.bool_)


class NotSegmented(ValueError):
    """Nothing in the box stands out, or nothing was measured in it."""


@dataclass(frozen=True, eq=False)
class ObjectPoints:
    """The pixels of an object and their points.

    pixels: (u, v) [n, 2] in scan order, without the outermost ones, whose depth mixes surfaces. world: [n, 3] metres,
    smoothed. normals: [m, 3] unit normals of some of them, of either sign. steps: [2, n, 3] how far each moves a pixel
    further along u and v, NaN where that pixel is another surface. depth: median
    z, metres. pixel_m: what one pixel spans at that depth, metres. supports: heights, in the level frame, of what it may
    stand on, metres.
    """

    pixels: NDArray[np.int64]
    world: NDArray[np.float64]
    normals: NDArray[np.float64]
    steps: NDArray[np.float64]
    depth: float
    pixel_m: float
    supports: tuple[float, ...]


@dataclass(frozen=True)
class Separation:
    """One way of separating an object from the rest. Factors on the tolerances of background planes and of depth jumps;
    thread_px: half the width of what is cut off as an appendage."""

    plane: float = 1.0
    jump: float = 1.0
    thread_px: int = 2


USUAL = Separation()
OTHERS = (
    Separation(plane=0.5),
    Separation(plane=1.6),
    Separation(jump=0.5),
    Separation(thread_px=4),
    Separation(jump=0.5, thread_px=4),
)
"""What could as well have been chosen: how much sizes differ between these ways is how far to trust them."""


@dataclass(frozen=True, eq=False)
class BoxPatch:
    """A box with a margin round it, in which its object is to be found. All arrays are [rows, columns] of it."""

    u: NDArray[np.int64]
    v: NDArray[np.int64]
    z: NDArray[np.float32]
    candidates: NDArray[np.bool_]  # pixels in the box with a depth
    rays: NDArray[np.float64]
    T_world_camera: Transform
    fx: float
    sensor: SensorModel
    planes: list[_Plane]

    @classmethod
    def of(
        cls, frame: Frame, box: tuple[float, float, float, float], sensor: SensorModel, gravity: Gravity
    ) -> BoxPatch:
        """The patch of ``frame``, which has depth, a camera and a pose, round a box (u_min, v_min, u_max, v_max), px.

        Raises NotSegmented where next to nothing was measured.
        """
        camera = frame.camera
        assert frame.depth is not None
        assert camera is not None
        assert frame.T_world_camera is not None
        u0, v0 = int(np.ceil(box[0])), int(np.ceil(box[1]))
        u1, v1 = int(np.floor(box[2])) + 1, int(np.floor(box[3])) + 1
        # a margin round the box shows what is behind the object and under it
        rows = slice(max(v0 - _MARGIN_PX, 0), min(v1 + _MARGIN_PX, camera.height))
        columns = slice(max(u0 - _MARGIN_PX, 0), min(u1 + _MARGIN_PX, camera.width))
        v, u = np.mgrid[rows, columns]
        within = (u >= u0) & (u < u1) & (v >= v0) & (v < v1)
        z = depth_to_metres(frame.depth[rows, columns])
        valid = np.isfinite(z)
        if np.count_nonzero(valid & within) < MIN_PIXELS:
            raise NotSegmented("the depth camera measured next to nothing inside")
        rays = camera.unproject(np.stack([u, v], axis=-1))
        T = frame.T_world_camera
        quiet, noise = _sigma_filtered(z, sensor.depth_white_stddev(np.where(valid, z, 0.0)))
        world = rays * quiet[..., None] @ T[:3, :3].T + T[:3, 3]
        planes = _background(world, valid & ~within, valid & within, noise, gravity)
        return cls(
            u=u,
            v=v,
            z=z,
            candidates=valid & within,
            rays=rays,
            T_world_camera=T,
            fx=camera.fx,
            sensor=sensor,
            planes=planes,
        )

    def segment(self, way: Separation) -> NDArray[np.bool_]:
        """The object's pixels. Raises NotSegmented when there is none."""
        foreground = self.candidates.copy()
        for plane in self.planes:
            foreground &= ~plane.covers(way.plane)
        labels = _connected(np.where(foreground, self.z, np.nan), self.sensor, way.jump)
        chosen = _middle_component(labels)
        if chosen is None or np.count_nonzero(labels == chosen) < MIN_PIXELS:
            raise NotSegmented("no surface that stands out was measured inside")
        return _without_appendages(labels == chosen, way.thread_px)

    def points_of(self, own: NDArray[np.bool_]) -> ObjectPoints:
        """What the object's pixels measured."""
        inside = ndimage.binary_erosion(ndimage.binary_fill_holes(own), iterations=RIM_PX) & own
        if np.count_nonzero(inside) < MIN_PIXELS:
            inside = own
        R, t = self.T_world_camera[:3, :3], self.T_world_camera[:3, 3]
        points = self.rays * _smoothed(self.z, inside)[..., None] @ R.T + t
        depth = float(np.median(self.z[inside]))
        return ObjectPoints(
            pixels=np.stack([self.u[inside], self.v[inside]], axis=1),
            world=points[inside],
            normals=_normals(points, inside),
            steps=_steps(points)[:, inside],
            depth=depth,
            pixel_m=depth / self.fx,
            supports=tuple(p.height for p in self.planes if p.height is not None),
        )


@dataclass(frozen=True, eq=False)
class _Plane:
    """A surface that goes on beyond the box. off: every pixel's distance from it, in units of the usual tolerance.

    elsewhere: where something that it cuts through faces another way. height: of a level one, in the level frame, metres.
    """

    off: NDArray[np.float64]
    elsewhere: NDArray[np.bool_]
    height: float | None

    def covers(self, tolerance: float) -> NDArray[np.bool_]:
        """Pixels that lie on it."""
        with np.errstate(invalid="ignore"):
            return (self.off < tolerance) & ~self.elsewhere


def _sigma_filtered(
    z: NDArray[np.float32], noise: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over those of the 7 x 7 pixels round each that are within 4 deviations (Lee's sigma filter, 1983), its noise."""
    half = _SMOOTH_PX // 2
    padded = np.pad(z.astype(np.float64), half, constant_values=np.nan)
    total, count = np.zeros(z.shape), np.zeros(z.shape)
    rows, columns = z.shape
    with np.errstate(invalid="ignore"):
        for y in range(_SMOOTH_PX):
            for x in range(_SMOOTH_PX):
                other = padded[y : y + rows, x : x + columns]
                like = np.abs(other - z) < 4 * noise + 0.01
                total[like] += other[like]
                count += like
    count = np.maximum(count, 1)
    return np.where(np.isfinite(z), total / count, np.nan), noise / np.sqrt(count)


def _background(
    world: NDArray[np.float64],
    ring: NDArray[np.bool_],
    within: NDArray[np.bool_],
    noise: NDArray[np.float64],
    gravity: Gravity,
) -> list[_Plane]:
    """Surfaces that go on beyond the box (floor, wall, table top): an object ends within its box.

    Planes are fitted one after the other to the pixels round the box (RANSAC, Fischler and Bolles 1981, with a fixed
    seed), and the floor is added.
    """
    planes: list[_Plane] = []
    L = gravity.T_zup_from_world
    left = ring.copy()
    if gravity.floor_stddev_m is not None:
        off = (world @ L[2, :3] + L[2, 3]) / max(0.025, 3 * gravity.floor_stddev_m)
        floor = _Plane(off, np.zeros(ring.shape, dtype=bool), None)
        low = floor.covers(1.0)
        planes.append(floor if np.count_nonzero(low & (ring | within)) <= MIN_PIXELS else replace(floor, height=0.0))
        left &= ~low
    facing = _facings(world)
    random = np.random.default_rng(0)
    enough = max(0.08 * np.count_nonzero(ring), MIN_PIXELS)
    for _ in range(_PLANES):
        step = max(np.count_nonzero(left) // _RING_POINTS, 1)
        points, tolerance = world[left][::step], 0.008 + 2.5 * noise[left][::step]
        if len(points) * step < enough:
            break
        trial = points[random.integers(0, len(points), (_TRIALS, 3))]
        normals = np.cross(trial[:, 1] - trial[:, 0], trial[:, 2] - trial[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        distances = np.abs(points @ normals.T - np.sum(trial[:, 0] * normals, axis=1))
        best = int(np.argmax((distances < tolerance[:, None]).sum(axis=0)))
        members = distances[:, best] < tolerance
        if np.count_nonzero(members) * step < enough:
            break
        centre = points[members].mean(axis=0)
        normal = np.linalg.svd(points[members] - centre, full_matrices=False)[2][2]
        upright = float(L[2, :3] @ normal)
        with np.errstate(invalid="ignore"):
            plane = _Plane(
                np.abs((world - centre) @ normal) / (0.008 + 2.5 * noise),
                np.abs(facing @ normal) < _ALIKE,
                float(L[2, :3] @ centre + L[2, 3]) if abs(upright) > 0.97 else None,
            )
        planes.append(plane)
        left &= ~plane.covers(1.0)
    return planes


def _connected(z: NDArray[np.float32], sensor: SensorModel, tolerance: float = 1.0) -> NDArray[np.signedinteger]:
    """Number the connected surfaces of a depth patch (NaN: none); 0 where there is none.

    Pixels belong together when no jump separates them: at a jump the pixels on both sides are cut, surfaces numbered,
    and the cut pixels given back to the nearest surface of like depth.
    """
    filled = np.where(np.isfinite(z), z, 0.0)
    jump = tolerance * (np.maximum(0.03 * filled, 6 * sensor.depth_white_stddev(filled)) + 0.01)
    cut = np.zeros(z.shape, dtype=bool)
    for axis in (0, 1):
        step = np.abs(np.diff(z, axis=axis))
        edge = step > np.take(jump, range(z.shape[axis] - 1), axis=axis)
        before = [slice(None)] * 2
        after = [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        cut[tuple(before)] |= edge
        cut[tuple(after)] |= edge
    solid = np.isfinite(z) & ~cut
    labels, _ = ndimage.label(solid, structure=np.ones((3, 3)))
    if not labels.any():
        return labels
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    border = np.isfinite(z) & cut
    donor = tuple(n[border] for n in nearest)
    like = np.abs(z[border] - z[donor]) < jump[border]
    labels[border] = np.where(like, labels[donor], 0)
    return labels


def _without_appendages(own: NDArray[np.bool_], thread_px: int) -> NDArray[np.bool_]:
    """The main part of a region, without what hangs on it by a thread of pixels (a table leg just behind a box)."""
    core = ndimage.binary_opening(own, _NEIGHBOURS, iterations=thread_px)
    labels, count = ndimage.label(core)
    if count == 0:
        return own
    main = labels == int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    return ndimage.binary_dilation(main, _NEIGHBOURS, iterations=thread_px + 1) & own


def _middle_component(labels: NDArray[np.signedinteger]) -> int | None:
    """The surface with most weight in the middle of the box."""
    rows, columns = labels.shape
    y = np.linspace(-1, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]
    weight = np.exp(-2 * (x**2 + y**2))
    totals = np.bincount(labels.ravel(), weights=weight.ravel())
    totals[0] = 0
    return int(np.argmax(totals)) if totals.any() else None


def _smoothed(z: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Depth from a plane fitted to the 7 x 7 pixels round each that lie inside, in inverse depth, where planes are linear.

    Least squares of d = a + b x + c y by window sums, x and y counted from the pixel itself; only a is wanted.
    """
    w = inside.astype(np.float64)
    d = np.where(inside, 1.0 / np.where(inside, z, 1.0), 0.0)
    half = _SMOOTH_PX // 2
    offset = np.arange(-half, half + 1, dtype=np.float64)
    flat = np.ones(_SMOOTH_PX)

    def window(values: NDArray[np.float64], y_power: int, x_power: int) -> NDArray[np.float64]:
        rows = ndimage.correlate1d(values, offset**y_power * flat, axis=0, mode="constant")
        return ndimage.correlate1d(rows, offset**x_power * flat, axis=1, mode="constant")

    n, x, y = window(w, 0, 0), window(w, 0, 1), window(w, 1, 0)
    xx, xy, yy = window(w, 0, 2), window(w, 1, 1), window(w, 2, 0)
    sums = np.stack([window(d, 0, 0), window(d, 0, 1), window(d, 1, 0)], axis=-1)
    normal = np.stack([np.stack(r, axis=-1) for r in ((n, x, y), (x, xx, xy), (y, xy, yy))], axis=-2)
    normal += 1e-6 * np.eye(3)  # a window of too few pixels has no slope
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(inside, 1.0 / np.linalg.solve(normal, sums[..., None])[..., 0, 0], np.nan)


def _normals(points: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Unit normals [m, 3] of either sign at pixels whose neighbours three pixels away on all sides lie inside."""
    return _facings(points)[ndimage.binary_erosion(inside, _NEIGHBOURS, iterations=_BASE_PX)]


def _steps(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean step of points [rows, columns, 3] to the next pixel along u and v [2, rows, columns, 3], either side counted."""
    out = []
    for axis in (1, 0):
        difference = np.diff(points, axis=axis)
        before = np.insert(difference, 0, np.nan, axis=axis)
        after = np.insert(difference, difference.shape[axis], np.nan, axis=axis)
        out.append(np.where(np.isnan(before), after, np.where(np.isnan(after), before, (before + after) / 2)))
    return np.stack(out)


def _facings(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit normals [rows, columns, 3] of either sign from neighbours three pixels away; NaN where one is missing."""
    s = _BASE_PX
    out = np.full(points.shape, np.nan)
    if min(points.shape[:2]) <= 2 * s:
        return out
    normal = np.cross(points[s:-s, 2 * s :] - points[s:-s, : -2 * s], points[2 * s :, s:-s] - points[: -2 * s, s:-s])
    with np.errstate(invalid="ignore", divide="ignore"):
        out[s:-s, s:-s] = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    return out
