"""What a box in an image encloses: its seen surface, its real size and its place."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.perception.segmentation import (
    MIN_PIXELS,
    OTHERS,
    RIM_PX,
    USUAL,
    BoxPatch,
    NotSegmented,
    ObjectPoints,
)
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.scene.footprint import smallest_rectangle
from spatial_mllm_ros.scene.gravity import Gravity
from spatial_mllm_ros.scene.measure import EDGE_PX, CameraErrors
from spatial_mllm_ros.scene.uncertainty import Errors

# Chosen on rendered rooms, where the error of sizes is smallest.
_STANDING_M = 0.08
"""m: a thing whose lowest point is no higher above a surface stands on it."""
_SLICE_M = 0.015
"""m: height of the slices in which points are counted to find where a thing ends."""
_MAX_DOUBT = 0.1
"""Of an extent: more doubt about what belongs together is no answer."""
_TAIL = 4
"""An end slice with less than a quarter of the usual number of points may not belong to the thing."""
_MODEL_M = 0.005
"""m: what a real surface is off the model of flat sides."""
_THIN_M = 0.05
"""m: thinner things have no far side to be hidden."""
_FILLS = 0.7
"""Of its rectangle: a surface that fills more was seen on both sides."""
_HIDDEN = 0.6
"""Of its length: how deep furniture is that was seen from one side, give or take."""


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
    try:
        patch = BoxPatch.of(stored.frame, (box.u_min, box.v_min, box.u_max, box.v_max), c.sensor, gravity)
        found, sides = _measured(patch, gravity)
    except NotSegmented as error:
        raise QueryError(ErrorCode.NOT_SEEN, f"{error} {label}") from error
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


def _measured(patch: BoxPatch, gravity: Gravity) -> tuple[ObjectPoints, _Sides]:
    """The object, its length, width and height; their doubt: how much they differ between ways of separating it."""
    own = patch.segment(USUAL)
    found = patch.points_of(own)
    usual = _dimensions(gravity, found)
    every = [usual]
    for way in OTHERS:
        try:
            other = patch.segment(way)
        except NotSegmented:
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
    rim = RIM_PX * found.pixel_m
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
    return max(beneath) if beneath else low - RIM_PX * found.pixel_m


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
    extent = last - first + tails / 2 + RIM_PX * float(rates.sum())
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
    if len(upright) < MIN_PIXELS // 2:
        return None
    mean = np.exp(4j * np.arctan2(upright[:, 1], upright[:, 0])).mean()
    return float(np.angle(mean) / 4) if abs(mean) > 0.5 else None


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
