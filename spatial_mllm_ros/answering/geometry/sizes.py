"""What a box in an image encloses: its seen surface, its real size and its place."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.queries.answer import ImageBox
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.scene.footprint import smallest_rectangle
from spatial_mllm_ros.scene.frame import depth_to_metres
from spatial_mllm_ros.scene.gravity import Gravity
from spatial_mllm_ros.scene.measure import EDGE_PX, CameraErrors
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.uncertainty import Errors

_MIN_PIXELS = 40
_MARGIN_PX = 12
_PLANES = 4
_TRIALS = 120
_RING_POINTS = 1500
_STANDING_M = 0.08
_SLICE_M = 0.015
_MAX_DOUBT = 0.1
_TAIL = 4
_MODEL_M = 0.005
_BASE_PX = 3
_ALIKE = np.cos(np.radians(30))
_RIM_PX = 1
_SMOOTH_PX = 7
_THIN_M = 0.05
_FILLS = 0.7
_HIDDEN = 0.6  # of its length: how deep furniture is that was seen from one side, give or take
_NEIGHBOURS = np.ones((3, 3), dtype=np.bool_)


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
class _Way:
    """One way of separating an object from the rest. Factors on the tolerances of background planes and of depth jumps;
    thread_px: half the width of what is cut off as an appendage."""

    plane: float = 1.0
    jump: float = 1.0
    thread_px: int = 2


_USUAL = _Way()
_OTHERS = (_Way(plane=0.5), _Way(plane=1.6), _Way(jump=0.5), _Way(thread_px=4), _Way(jump=0.5, thread_px=4))
"""What could as well have been chosen: how much sizes differ between these ways is how far to trust them."""


@dataclass(frozen=True, eq=False)
class _Patch:
    """A box with a margin round it, in which its object is to be found. All arrays are [rows, columns] of it."""

    label: str
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
    def of(cls, c: Context, label: str, box: ImageBox, stored: StoredFrame) -> _Patch:
        frame = stored.frame
        camera = frame.camera
        assert frame.depth is not None
        assert camera is not None
        assert frame.T_world_camera is not None
        u0, v0 = int(np.ceil(box.u_min)), int(np.ceil(box.v_min))
        u1, v1 = int(np.floor(box.u_max)) + 1, int(np.floor(box.v_max)) + 1
        # a margin round the box shows what is behind the object and under it
        rows = slice(max(v0 - _MARGIN_PX, 0), min(v1 + _MARGIN_PX, camera.height))
        columns = slice(max(u0 - _MARGIN_PX, 0), min(u1 + _MARGIN_PX, camera.width))
        v, u = np.mgrid[rows, columns]
        within = (u >= u0) & (u < u1) & (v >= v0) & (v < v1)
        z = depth_to_metres(frame.depth[rows, columns])
        valid = np.isfinite(z)
        if np.count_nonzero(valid & within) < _MIN_PIXELS:
            raise QueryError(ErrorCode.NOT_SEEN, f"the depth camera measured next to nothing inside {label}")
        rays = camera.unproject(np.stack([u, v], axis=-1))
        T = frame.T_world_camera
        quiet, noise = _sigma_filtered(z, c.sensor.depth_white_stddev(np.where(valid, z, 0.0)))
        world = rays * quiet[..., None] @ T[:3, :3].T + T[:3, 3]
        planes = _background(world, valid & ~within, valid & within, noise, c.gravity())
        return cls(label, u, v, z, valid & within, rays, T, camera.fx, c.sensor, planes)

    def segment(self, way: _Way) -> NDArray[np.bool_]:
        """The object's pixels. Raises QueryError NOT_SEEN when there is none."""
        foreground = self.candidates.copy()
        for plane in self.planes:
            foreground &= ~plane.covers(way.plane)
        labels = _connected(np.where(foreground, self.z, np.nan), self.sensor, way.jump)
        chosen = _middle_component(labels)
        if chosen is None or np.count_nonzero(labels == chosen) < _MIN_PIXELS:
            raise QueryError(ErrorCode.NOT_SEEN, f"no surface that stands out was measured inside {self.label}")
        return _without_appendages(labels == chosen, way.thread_px)

    def points_of(self, own: NDArray[np.bool_]) -> ObjectPoints:
        """What the object's pixels measured."""
        inside = ndimage.binary_erosion(ndimage.binary_fill_holes(own), iterations=_RIM_PX) & own
        if np.count_nonzero(inside) < _MIN_PIXELS:
            inside = own
        R, t = self.T_world_camera[:3, :3], self.T_world_camera[:3, 3]
        points = self.rays * _smoothed(self.z, inside)[..., None] @ R.T + t
        depth = float(np.median(self.z[inside]))
        return ObjectPoints(
            np.stack([self.u[inside], self.v[inside]], axis=1),
            points[inside],
            _normals(points, inside),
            _steps(points)[:, inside],
            depth,
            depth / self.fx,
            tuple(p.height for p in self.planes if p.height is not None),
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
        planes.append(floor if np.count_nonzero(low & (ring | within)) <= _MIN_PIXELS else replace(floor, height=0.0))
        left &= ~low
    facing = _facings(world)
    random = np.random.default_rng(0)
    enough = max(0.08 * np.count_nonzero(ring), _MIN_PIXELS)
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


@dataclass(frozen=True, eq=False, kw_only=True)
class Solid:
    """What a box encloses.

    found: its pixels and points. sides: length, width and height of the seen surface, each with its deviation, metres.
    middle: centre [3] of its upright bounding box, world. turn: rotation [2, 2] of the
    level frame to its sides. top, bottom: heights in the level frame. deep: whether both of
    its horizontal sides were seen, so that its depth is known.
    """

    label: str
    found: ObjectPoints
    camera: CameraErrors
    sides: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    middle: NDArray[np.float64]
    turn: NDArray[np.float64]
    top: float
    bottom: float
    deep: bool

    def _moved(self, world: NDArray[np.float64], errors: Errors) -> NDArray[np.float64]:
        """World points [..., 3] with the errors of the image applied."""
        T, moved = self.camera.T_world_camera, self.camera.pose(errors)
        local = (world - T[:3, 3]) @ T[:3, :3] * self.camera.scale(errors)
        return np.asarray(local @ moved[:3, :3].T + moved[:3, 3], dtype=np.float64)

    def surface(self, indices: NDArray[np.intp], errors: Errors) -> NDArray[np.float64]:
        """Points [n, 3] of the surface, world."""
        return self._moved(self.found.world[indices], errors)

    def center(self, errors: Errors) -> NDArray[np.float64]:
        """Its centre, world [3]: of what was seen of it."""
        slip = [errors.get(("center", self.label, axis), 0.0) for axis in range(3)]
        return self._moved(self.middle, errors) + slip

    def center_stddevs(self) -> dict[Hashable, Any]:
        """Error sources of ``center``; what was not seen of its far side is the largest."""
        (length, length_stddev), (_, width_stddev), (_, height_stddev) = self.sides
        hidden = 0.0 if self.deep else _HIDDEN * length
        across = float(np.hypot(max(length_stddev, width_stddev) / 2, hidden / 2))
        slips = (across, across, height_stddev / 2)
        return {**self.camera.stddevs(), **{("center", self.label, axis): s for axis, s in enumerate(slips)}}

    def surface_stddevs(self) -> dict[Hashable, Any]:
        """Error sources of ``surface``."""
        return dict(self.camera.stddevs())

    def side(self, index: int) -> tuple[float, float]:
        """Length (0), width (1) or height (2) with its deviation. ABSTAINED where it is not clear what belongs together."""
        return self.sure(*self.sides[index])

    def sure(self, extent: float, stddev: float) -> tuple[float, float]:
        """The same, ABSTAINED where it is not clear what belongs together."""
        if stddev > max(_MAX_DOUBT * extent, 0.02):
            raise QueryError(
                ErrorCode.ABSTAINED,
                f"it is not clear what in {self.label} belongs together or where it ends: {extent - stddev:.2f} to "
                f"{extent + stddev:.2f} m; draw the box closely round one thing, or mark it in a clearer view",
            )
        return extent, stddev


def solid(c: Context, index: int) -> Solid:
    """What <box{index}> encloses: the connected surface that fills most of its middle, without the floor.

    Its sides are those of the surface that was seen: length is the longer horizontal side of its smallest upright bounding
    box, height the vertical one. A side that was not seen does not count. QueryError NOT_SEEN when too little was
    measured there.
    """
    return c.once(("solid", index), lambda: _solid(c, index))


def _solid(c: Context, index: int) -> Solid:
    box, stored = c.box(index)
    label = f"<box{index}>"
    gravity = c.gravity()
    patch = _Patch.of(c, label, box, stored)
    found, sides = _measured(patch, gravity)
    noise = float(c.sensor.depth_white_stddev(found.depth)) / 2
    shared = c.sensor.depth_correlated

    def deviation(side: _Side) -> float:
        return float(np.linalg.norm((side.lateral, noise, shared * side.extent, _MODEL_M, side.doubt)))

    length, width, height = ((side.extent, deviation(side)) for side in sides)
    L = gravity.T_zup_from_world
    p = found.world @ L[:3, :3].T + L[:3, 3]
    angle = _facing(found.normals @ L[:3, :3].T)
    if angle is None:
        angle = smallest_rectangle(p[:, :2])[2]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    low, high = np.percentile(p[:, :2] @ turn.T, [0.5, 99.5], axis=0)
    bottom = _foot(found, p[:, 2])
    top = bottom + height[0]
    middle = np.append(turn.T @ ((low + high) / 2), (top + bottom) / 2)
    return Solid(
        label=label,
        found=found,
        camera=CameraErrors(stored.frame_id, patch.T_world_camera, c.sensor),
        sides=(length, width, height),
        middle=L[:3, :3].T @ (middle - L[:3, 3]),
        turn=turn,
        top=top,
        bottom=bottom,
        deep=_both_sides_seen(p[:, :2], length[0], width[0]),
    )


def _both_sides_seen(plan: NDArray[np.float64], length: float, width: float) -> bool:
    """Whether a surface seen from above [n, 2] fills its rectangle: its top was seen, or it is round.

    Two upright faces alone fill half of their rectangle, one face next to nothing.
    """
    if width < _THIN_M:
        return False
    try:
        return float(ConvexHull(plan, qhull_options="QJ").volume) > _FILLS * length * width
    except QhullError:
        return False


@dataclass(frozen=True)
class _Side:
    """One side of an object, metres. lateral: its error from where the silhouette lies; doubt: from what belongs to it."""

    extent: float
    lateral: float
    doubt: float


_Sides = tuple[_Side, _Side, _Side]


def _measured(patch: _Patch, gravity: Gravity) -> tuple[ObjectPoints, _Sides]:
    """The object, its length, width and height; their doubt: how much they differ between ways of separating it."""
    own = patch.segment(_USUAL)
    found = patch.points_of(own)
    usual = _dimensions(gravity, found)
    every = [usual]
    for way in _OTHERS:
        try:
            other = patch.segment(way)
        except QueryError:
            continue
        every.append(usual if np.array_equal(other, own) else _dimensions(gravity, patch.points_of(other)))
    extents = np.array([[side.extent for side in sides] for sides in every])
    middle = np.median(extents, axis=0)
    doubts = np.abs(extents - middle).max(axis=0) / 2
    length, width, height = (
        _Side(float(m), side.lateral, float(np.hypot(side.doubt, d)))
        for m, d, side in zip(middle, doubts, usual, strict=True)
    )
    return found, (length, width, height)


def _dimensions(gravity: Gravity, found: ObjectPoints) -> _Sides:
    """Length >= width, and height, of an object's points."""
    L = gravity.T_zup_from_world
    p = found.world @ L[:3, :3].T + L[:3, 3]
    steps = found.steps @ L[:3, :3].T
    rim = _RIM_PX * found.pixel_m
    bottom = _foot(found, p[:, 2])
    top, doubt = _top(p[:, 2])
    height = _Side(top + rim - bottom, found.pixel_m * np.hypot(EDGE_PX, 0.5) * np.sqrt(2), doubt)
    angle = _facing(found.normals @ L[:3, :3].T)
    if angle is None:
        angle = smallest_rectangle(p[:, :2])[2]
    c, s = np.cos(angle), np.sin(angle)
    along = _side(p[:, :2] @ (c, s), steps[..., :2] @ (c, s))
    across = _side(p[:, :2] @ (-s, c), steps[..., :2] @ (-s, c))
    longer, shorter = (along, across) if along.extent >= across.extent else (across, along)
    return longer, shorter, height


def _foot(found: ObjectPoints, heights: NDArray[np.float64]) -> float:
    """Height of what an object stands on, or of its lowest part where that is not seen; given those of its points."""
    low = float(np.percentile(heights, 0.5))
    # what it stands on was taken away with some of its foot
    beneath = [s for s in found.supports if -_SLICE_M < low - s < _STANDING_M]
    return max(beneath) if beneath else low - _RIM_PX * found.pixel_m


def _side(places: NDArray[np.float64], steps: NDArray[np.float64]) -> _Side:
    """Extent of an object along an axis.

    places: its points on that axis [n], metres. steps: how far these move a pixel further, along u and v [2, n]. A pixel
    at the rim of a surface seen at a slant spans more of it: what the rim hid and the silhouette's error grow alike.
    """
    low, high = np.percentile(places, [0.5, 99.5]).tolist()
    first, last = _without_tails(places, low, high)
    margin = max(0.03 * (last - first), 0.005)
    span = np.fmax(*np.abs(steps))
    ends = [span[np.abs(places - first) <= margin], span[np.abs(places - last) <= margin]]
    rates = np.array([float(np.nanmedian(e)) if np.isfinite(e).any() else 0.0 for e in ends])
    tails = (high - low) - (last - first)
    # a tail of few points may or may not belong: half of it
    extent = last - first + tails / 2 + _RIM_PX * float(rates.sum())
    return _Side(extent, float(np.hypot(EDGE_PX, 0.5) * np.hypot(*rates)), tails / 2)


def _without_tails(places: NDArray[np.float64], low: float, high: float) -> tuple[float, float]:
    """Ends of places [n] between ``low`` and ``high`` without outer slices that hold few of them."""
    edges = np.arange(low, high + _SLICE_M, _SLICE_M)
    if len(edges) < 5:
        return low, high
    counts, _ = np.histogram(places, bins=edges)
    full = np.flatnonzero(counts >= np.median(counts) / _TAIL)
    first, last = float(edges[full[0]]), float(min(edges[full[-1] + 1], high))
    return (low, high) if (high - low) - (last - first) < 1.5 * _SLICE_M else (first, last)


def _facing(normals: NDArray[np.float64]) -> float | None:
    """Direction (radians, modulo a right angle) that upright faces with these normals (z up) agree on; None if they don't.

    The mean of the fourfold angle: faces at right angles to each other point the same way.
    """
    upright = normals[np.abs(normals[:, 2]) < 0.5]
    if len(upright) < _MIN_PIXELS // 2:
        return None
    mean = np.exp(4j * np.arctan2(upright[:, 1], upright[:, 0])).mean()
    return float(np.angle(mean) / 4) if abs(mean) > 0.5 else None


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


def _steps(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean step of points [rows, columns, 3] to the next pixel along u and v [2, rows, columns, 3], either side counted."""
    out = []
    for axis in (1, 0):
        difference = np.diff(points, axis=axis)
        before = np.insert(difference, 0, np.nan, axis=axis)
        after = np.insert(difference, difference.shape[axis], np.nan, axis=axis)
        out.append(np.where(np.isnan(before), after, np.where(np.isnan(after), before, (before + after) / 2)))
    return np.stack(out)


def _normals(points: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Unit normals [m, 3] of either sign at pixels whose neighbours three pixels away on all sides lie inside."""
    return _facings(points)[ndimage.binary_erosion(inside, _NEIGHBOURS, iterations=_BASE_PX)]


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


def _top(heights: NDArray[np.float64]) -> tuple[float, float]:
    """Height of an object's top, given those of its points, and how doubtful it is (metres).

    What little sticks out above it (the foot of a lamp on a cabinet) may or may not be meant: the top is where at least
    a third of the usual number of points lies, and the doubt half of what sticks out.
    """
    highest = float(np.percentile(heights, 99.5))
    edges = np.arange(heights.min(), highest + _SLICE_M, _SLICE_M)
    if len(edges) < 4:
        return highest, 0.0
    counts, _ = np.histogram(heights, bins=edges)
    full = np.flatnonzero(counts >= np.median(counts) / 3)
    within = heights[heights <= edges[full[-1] + 1]]
    top = min(float(np.percentile(within, 99.5)), highest)
    return (top, (highest - top) / 2) if highest - top > _SLICE_M else (highest, 0.0)


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
