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
from spatial_mllm_ros.scene.footprint import smallest_rectangle
from spatial_mllm_ros.scene.frame import depth_to_metres
from spatial_mllm_ros.scene.level import Level
from spatial_mllm_ros.scene.measure import EDGE_PX

_MIN_PIXELS = 40
_SUPPORT_M = 0.02


@dataclass(frozen=True, eq=False)
class ObjectPoints:
    """The pixels of an object and their points.

    pixels: (u, v) [n, 2] in scan order. world: [n, 3] metres. depth: median z, metres. pixel_m: what one pixel spans
    at that depth, metres.
    """

    pixels: NDArray[np.int64]
    world: NDArray[np.float64]
    depth: float
    pixel_m: float


def object_points(c: Context, box: ImageBox, stored: StoredFrame) -> ObjectPoints:
    """What the box encloses: the connected surface that fills most of its middle, without the floor.

    Raises QueryError NOT_SEEN when too little was measured there.
    """
    frame = stored.frame
    camera = frame.camera
    assert frame.depth is not None and camera is not None and frame.T_world_camera is not None
    u0, v0 = int(np.ceil(box.u_min)), int(np.ceil(box.v_min))
    u1, v1 = int(np.floor(box.u_max)) + 1, int(np.floor(box.v_max)) + 1
    z = depth_to_metres(frame.depth[v0:v1, u0:u1])
    label = f"<box{c.parsed.boxes[0]}>"
    valid = np.isfinite(z)
    if np.count_nonzero(valid) < _MIN_PIXELS:
        raise QueryError(ErrorCode.NOT_SEEN, f"the depth camera measured next to nothing inside {label}")
    v, u = np.mgrid[v0:v1, u0:u1]
    world = camera.unproject(np.stack([u, v], axis=-1)) * z[..., None]
    world = world @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3]
    level = c.level()
    keep = valid.copy()
    if level.floor_stddev_m is not None:
        height = world @ level.T_zup_from_world[2, :3] + level.T_zup_from_world[2, 3]
        with np.errstate(invalid="ignore"):
            keep &= height > max(0.025, 3 * level.floor_stddev_m)
    labels = _connected(np.where(keep, z, np.nan), c.sensor.depth_white_stddev)
    chosen = _middle_component(labels)
    if chosen is None or np.count_nonzero(labels == chosen) < _MIN_PIXELS:
        raise QueryError(ErrorCode.NOT_SEEN, f"no surface that stands out was measured inside {label}")
    inside = labels == chosen
    depth = float(np.median(z[inside]))
    return ObjectPoints(np.stack([u[inside], v[inside]], axis=1), world[inside], depth, depth / camera.fx)


def size(c: Context) -> Answer:
    """Length, width and height of what a box encloses, or the one that is asked for.

    Of the surface that was seen: length is the longer horizontal side of its smallest upright bounding box, width the
    same unless both are asked for, height the vertical one. A side that was not seen does not count.
    """
    box, stored = c.box(0)
    found = object_points(c, box, stored)
    level = c.level()
    length, width, height = _dimensions(level, found)
    # a silhouette is placed within the sensor's lateral noise and half a pixel, at either end
    lateral = found.pixel_m * np.hypot(EDGE_PX, 0.5) * np.sqrt(2)
    noise = float(c.sensor.depth_white_stddev(found.depth)) / 2
    shared = c.sensor.depth_correlated

    def deviation(extent: float) -> float:
        return float(np.sqrt(lateral**2 + noise**2 + (shared * extent) ** 2 + 0.005**2))

    evidence = (c.box_evidence(stored, box, f"<box{c.parsed.boxes[0]}>"),)
    family = c.parsed.family
    if family == "size_height":
        return c.number(height, deviation(height), "m", evidence, "{} tall")
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


def _dimensions(level: Level, found: ObjectPoints) -> tuple[float, float, float]:
    """Length >= width and height in metres of an object's points."""
    p = found.world @ level.T_zup_from_world[:3, :3].T + level.T_zup_from_world[:3, 3]
    low, high = np.percentile(p[:, 2], [0.5, 99.5])
    bottom = float(low)
    if level.floor_stddev_m is not None and low < 0.06:
        bottom = 0.0  # it stands on the floor, whose own points were left out
    length, width = smallest_rectangle(p[:, :2])
    # percentiles and pixel centres fall short of the silhouette by half a pixel at either end
    return length + found.pixel_m, width, float(high) - bottom + found.pixel_m * (0.5 if bottom == 0.0 else 1.0)


def _connected(z: NDArray[np.float32], noise) -> NDArray[np.int32]:  # type: ignore[no-untyped-def]
    """Number the connected surfaces of a depth patch (NaN: none); 0 where there is none.

    Pixels belong together when no jump separates them: at a jump the pixels on both sides are cut, surfaces numbered,
    and the cut pixels given back to the nearest surface of like depth.
    """
    filled = np.where(np.isfinite(z), z, 0.0)
    jump = np.maximum(0.03 * filled, 6 * noise(filled)) + 0.01
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


def _middle_component(labels: NDArray[np.int32]) -> int | None:
    """The surface with most weight in the middle of the box."""
    rows, columns = labels.shape
    y = np.linspace(-1, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]
    weight = np.exp(-2 * (x**2 + y**2))
    totals = np.bincount(labels.ravel(), weights=weight.ravel())
    totals[0] = 0
    return int(np.argmax(totals)) if totals.any() else None
