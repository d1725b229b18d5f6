"""Real size of what a box in an image encloses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spatial_mllm_ros.memory.spatial_memory import StoredFrame
from spatial_mllm_ros.query.answer import Answer, ImageBox
from spatial_mllm_ros.query.codes import AnswerSource, AnswerType, ErrorCode, QueryError, ScaleSource
from spatial_mllm_ros.query.context import Context
from spatial_mllm_ros.scene.footprint import rectangle_sides, smallest_rectangle
from spatial_mllm_ros.scene.frame import depth_to_metres
from spatial_mllm_ros.scene.level import Level
from spatial_mllm_ros.scene.measure import EDGE_PX
from spatial_mllm_ros.scene.sensor import SensorModel

_MIN_PIXELS = 40
_MARGIN_PX = 12
_PLANES = 4
_TRIALS = 120
_RING_POINTS = 1500
_STANDING_M = 0.08
_SLICE_M = 0.015
_THREAD_PX = 2
_BASE_PX = 3
_ALIKE = np.cos(np.radians(30))
_RIM_PX = 1
_SMOOTH_PX = 7


@dataclass(frozen=True, eq=False)
class ObjectPoints:
    """The pixels of an object and their points.

    pixels: (u, v) [n, 2] in scan order, without the outermost ones, whose depth mixes surfaces. world: [n, 3] metres,
    smoothed. normals: [m, 3] unit normals of some of them, of either sign. right: the image's u axis in the world. depth: median
    z, metres. pixel_m: what one pixel spans at that depth, metres. support: height of what it stands on in the level
    frame, metres; None where that was not seen.
    """

    pixels: NDArray[np.int64]
    world: NDArray[np.float64]
    normals: NDArray[np.float64]
    right: NDArray[np.float64]
    depth: float
    pixel_m: float
    support: float | None


def object_points(c: Context, box: ImageBox, stored: StoredFrame) -> ObjectPoints:
    """What the box encloses: the connected surface that fills most of its middle, without the floor.

    Raises QueryError NOT_SEEN when too little was measured there.
    """
    frame = stored.frame
    camera = frame.camera
    assert frame.depth is not None and camera is not None and frame.T_world_camera is not None
    label = f"<box{c.parsed.boxes[0]}>"
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
    R, t = frame.T_world_camera[:3, :3], frame.T_world_camera[:3, 3]
    white = c.sensor.depth_white_stddev(np.where(valid, z, 0.0))
    quiet, noise = _sigma_filtered(z, white)
    raw = rays * quiet[..., None] @ R.T + t
    background, floors = _background(raw, valid & ~within, valid & within, noise, c.level())
    labels = _connected(np.where(valid & within & ~background, z, np.nan), c.sensor)
    chosen = _middle_component(labels)
    if chosen is None or np.count_nonzero(labels == chosen) < _MIN_PIXELS:
        raise QueryError(ErrorCode.NOT_SEEN, f"no surface that stands out was measured inside {label}")
    own = _without_appendages(labels == chosen)
    inside = ndimage.binary_erosion(ndimage.binary_fill_holes(own), iterations=_RIM_PX) & own
    if np.count_nonzero(inside) < _MIN_PIXELS:
        inside = own
    points = rays * _smoothed(z, inside)[..., None] @ R.T + t
    depth = float(np.median(z[inside]))
    return ObjectPoints(
        np.stack([u[inside], v[inside]], axis=1),
        points[inside],
        _normals(points, inside),
        R[:, 0],
        depth,
        depth / camera.fx,
        max(floors, default=None),
    )


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
    level: Level,
) -> tuple[NDArray[np.bool_], list[float]]:
    """Pixels on surfaces that go on beyond the box (floor, wall, table top): an object ends within its box.

    Planes are fitted one after the other to the pixels round the box (RANSAC, Fischler and Bolles 1981, with a fixed
    seed), and the floor is added. Also the heights of the level ones, in the level frame.
    """
    background = np.zeros(ring.shape, dtype=bool)
    L = level.T_zup_from_world
    floors: list[float] = []
    if level.floor_stddev_m is not None:
        with np.errstate(invalid="ignore"):
            low = world @ L[2, :3] + L[2, 3] < np.maximum(0.025, 3 * level.floor_stddev_m)
        background |= low
        if np.count_nonzero(low & (ring | within)) > _MIN_PIXELS:
            floors.append(0.0)
    facing = _facings(world)
    random = np.random.default_rng(0)
    left = ring & ~background
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
        with np.errstate(invalid="ignore"):
            on_plane = np.abs((world - centre) @ normal) < 0.008 + 2.5 * noise
            on_plane &= ~(np.abs(facing @ normal) < _ALIKE)  # where it cuts through something else it faces elsewhere
        background |= on_plane
        left &= ~on_plane
        if abs(L[2, :3] @ normal) > 0.97:
            floors.append(float(L[2, :3] @ centre + L[2, 3]))
    return background, floors


def size(c: Context) -> Answer:
    """Length, width and height of what a box encloses, or the one that is asked for.

    Of the surface that was seen: length is the longer horizontal side of its smallest upright bounding box, width the
    same unless both are asked for, height the vertical one. A side that was not seen does not count.
    """
    box, stored = c.box(0)
    found = object_points(c, box, stored)
    level = c.level()
    length, width, height, doubt = _dimensions(level, found)
    # a silhouette is placed within the sensor's lateral noise and half a pixel, at either end
    lateral = found.pixel_m * np.hypot(EDGE_PX, 0.5) * np.sqrt(2)
    noise = float(c.sensor.depth_white_stddev(found.depth)) / 2
    shared = c.sensor.depth_correlated

    def deviation(extent: float) -> float:
        return float(np.sqrt(lateral**2 + noise**2 + (shared * extent) ** 2 + 0.005**2))

    evidence = (c.box_evidence(stored, box, f"<box{c.parsed.boxes[0]}>"),)
    family = c.parsed.family
    if family == "size_height":
        return c.number(height, float(np.hypot(deviation(height), doubt)), "m", evidence, "{} tall")
    if family in ("size_width", "size_length"):
        word = "wide" if family == "size_width" else "long"
        return c.number(length, deviation(length), "m", evidence, "{} " + word)
    sides = (length, width, height)
    text = " x ".join(c.in_words(s, deviation(s), "m") for s in sides)
    total = float(np.linalg.norm(sides))
    return Answer(
        answer=f"{text} (length x width x height of the seen surface)",
        answer_type=AnswerType.VECTOR,
        value=total,
        stddev=deviation(total),
        unit="m",
        pose=c.extents(sides, stored.frame.stamp_ns),
        confidence=0.9,
        confidence_method="fixed: the far side is not seen",
        source=AnswerSource.GEOMETRY,
        scale_source=ScaleSource.DEPTH,
        evidence=evidence,
    )


def _dimensions(level: Level, found: ObjectPoints) -> tuple[float, float, float, float]:
    """Length >= width and height in metres of an object's points, and how doubtful the height is."""
    L = level.T_zup_from_world
    p = found.world @ L[:3, :3].T + L[:3, 3]
    low = float(np.percentile(p[:, 2], 0.5))
    rim = _RIM_PX * found.pixel_m
    # what it stands on was taken away with some of its foot
    bottom = found.support if found.support is not None and low - found.support < _STANDING_M else low - rim
    top, doubt = _top(p[:, 2])
    height = top + rim - bottom
    angle = _facing(found.normals @ L[:3, :3].T)
    if angle is None:
        angle = smallest_rectangle(p[:, :2])[2]
    along, across = rectangle_sides(p[:, :2], angle)
    # what the rim hid is added where it lies across the view
    right = (L[:3, :3] @ found.right)[:2]
    along += 2 * rim * abs(float(right @ (np.cos(angle), np.sin(angle))))
    across += 2 * rim * abs(float(right @ (-np.sin(angle), np.cos(angle))))
    return max(along, across), min(along, across), height, doubt


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


def _normals(points: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Unit normals [m, 3] of either sign at pixels whose neighbours three pixels away on all sides lie inside."""
    return _facings(points)[ndimage.binary_erosion(inside, np.ones((3, 3)), iterations=_BASE_PX)]


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


def _connected(z: NDArray[np.float32], sensor: SensorModel) -> NDArray[np.int32]:
    """Number the connected surfaces of a depth patch (NaN: none); 0 where there is none.

    Pixels belong together when no jump separates them: at a jump the pixels on both sides are cut, surfaces numbered,
    and the cut pixels given back to the nearest surface of like depth.
    """
    filled = np.where(np.isfinite(z), z, 0.0)
    jump = np.maximum(0.03 * filled, 6 * sensor.depth_white_stddev(filled)) + 0.01
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


def _without_appendages(own: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The main part of a region, without what hangs on it by a thread of pixels (a table leg just behind a box)."""
    core = ndimage.binary_opening(own, np.ones((3, 3)), iterations=_THREAD_PX)
    labels, count = ndimage.label(core)
    if count == 0:
        return own
    main = labels == int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    return ndimage.binary_dilation(main, np.ones((3, 3)), iterations=_THREAD_PX + 1) & own


def _middle_component(labels: NDArray[np.int32]) -> int | None:
    """The surface with most weight in the middle of the box."""
    rows, columns = labels.shape
    y = np.linspace(-1, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]
    weight = np.exp(-2 * (x**2 + y**2))
    totals = np.bincount(labels.ravel(), weights=weight.ravel())
    totals[0] = 0
    return int(np.argmax(totals)) if totals.any() else None
