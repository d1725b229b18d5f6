"""Which way is up, where the floor is, and the ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.pose import Transform, make_transform

BLOCK_PX = 8
"""Side of the blocks that are averaged in an image 320 px wide or wider; smaller images have smaller blocks."""
CELL_M = 0.05
"""Points are thinned to one a cell and frame, so that counts measure area rather than nearness."""
MIN_AREA_M2 = 0.25
"""A floor or a ceiling must have been seen at least this large."""
_SAME_NORMAL = np.cos(np.radians(12))
_LEVEL_WORLD = np.cos(np.radians(3))
_SLAB_M = 0.04
_BEYOND_M = 0.12
_BEYOND_SHARE = 0.01
_TILT = 0.004
_USUAL_WIDTH = 320
_TILT_OF_FIT = 0.001
_ANOTHER_M = 0.08
_PARTS = 4
"""Independent estimates of a height: so many stretches of time, and quarters of its area."""


@dataclass(frozen=True, eq=False)
class Gravity:
    """The upright frame of a scene.

    T_zup_from_world: world to a frame with z up and, when the floor was seen or declared, the floor at z = 0.
    floor_stddev_m: standard deviation of the floor's height; None: no floor seen, so z = 0 means nothing.
    tilt_stddev_rad: standard deviation of the up direction about each horizontal axis.
    ceiling_m, ceiling_stddev_m: height of the ceiling in that frame; None: not seen.
    floor_area_m2: area of floor that was seen directly. centre: where the cameras were on average, x and y in that
    frame; a tilt turns the floor about there. assumed: up is the world's z axis by convention (REP-103), as
    no horizontal surface was seen.
    """

    T_zup_from_world: Transform
    floor_stddev_m: float | None
    tilt_stddev_rad: float
    ceiling_m: float | None = None
    ceiling_stddev_m: float | None = None
    floor_area_m2: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)
    assumed: bool = False


@dataclass(frozen=True, eq=False)
class ImageSurfels:
    """Oriented surface samples of one image, world frame: points [n, 3], unit normals towards the camera [n, 3]."""

    points: NDArray[np.float64]
    normals: NDArray[np.float64]
    T_world_camera: Transform


@dataclass(frozen=True, eq=False)
class _Surfels:
    """Oriented surface samples, world frame: points [n, 3], unit normals towards the camera [n, 3], their image."""

    points: NDArray[np.float64]
    normals: NDArray[np.float64]
    image: NDArray[np.int64]
    camera_up: NDArray[np.float64]  # of every image
    camera_right: NDArray[np.float64]
    camera_position: NDArray[np.float64]


def estimate_gravity(images: Sequence[ImageSurfels], T_zup_declared: Transform | None = None) -> Gravity:
    """Find up, floor and ceiling in what several images show (see ``image_surfels``).

    Surfaces that face up from below the camera vote for the up direction; those perpendicular to the cameras' x axes
    (cameras are held without roll) and near the world's z axis (fixed frames are level by REP-105) count more. The floor
    is the lowest large surface facing up with next to nothing below it; the ceiling the highest facing down with next to
    nothing above. Heights are medians over images, their deviation the scatter between images.

    T_zup_declared: where the recording declares its z-up frame with the floor at z = 0, that is taken as it is.
    """
    surfels = _joined(images)
    if T_zup_declared is not None:
        up, offset = T_zup_declared[2, :3], float(T_zup_declared[2, 3])
        ceiling = _ceiling(surfels, up, offset)
        if not len(surfels.camera_position):
            return Gravity(T_zup_declared, 0.01, 0.005)
        return Gravity(T_zup_declared, 0.01, 0.005, *ceiling, centre=_centre(surfels, T_zup_declared))
    up_found = _up(surfels)
    if up_found is None:
        return Gravity(np.eye(4), None, np.radians(2), assumed=True)
    up = up_found
    floor = _layer(surfels, up, facing=1.0)
    if floor is None:
        tilt = 0.005 if up[2] > _LEVEL_WORLD else 0.01
        T = _upright(up, 0.0)
        return Gravity(T, None, tilt, centre=_centre(surfels, T))
    tilt = _TILT
    if up[2] <= _LEVEL_WORLD:  # a world that is not level: the floor itself says how it leans
        up = _plane_normal(surfels, floor.members, up)
        floor = _layer(surfels, up, facing=1.0) or floor
    else:
        up = np.array([0.0, 0.0, 1.0])
        floor = _layer(surfels, up, facing=1.0) or floor
        tilt = _lean(surfels, floor.members, up)
    ceiling = _ceiling(surfels, up, -floor.height)
    T = _upright(up, -floor.height)
    return Gravity(T, floor.stddev, tilt, *ceiling, floor.area, _centre(surfels, T))


@dataclass(frozen=True, eq=False)
class _Layer:
    height: float
    stddev: float
    area: float
    members: NDArray[np.int64]


def _joined(images: Sequence[ImageSurfels]) -> _Surfels:
    def stack(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate(parts) if parts else np.empty((0, 3))

    rotations = np.array([i.T_world_camera[:3] for i in images]).reshape(-1, 3, 4)
    return _Surfels(
        stack([i.points for i in images]),
        stack([i.normals for i in images]),
        np.repeat(np.arange(len(images)), [len(i.points) for i in images]),
        -rotations[:, :, 1],
        rotations[:, :, 0],
        rotations[:, :, 3],
    )


def _first_per_cell(points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    cells = np.floor(points / CELL_M).astype(np.int64)
    keys = (cells[:, 0] << 42) ^ (cells[:, 1] << 21) ^ cells[:, 2]
    return np.unique(keys, return_index=True)


def image_surfels(frame: Frame) -> ImageSurfels:
    """Surface samples of a frame with depth, camera model and pose, one per block of pixels where the depth is smooth.

    Blocks of pixels (8 x 8, in small images fewer) are averaged before normals are taken, which a noisy sensor needs.
    """
    T = frame.T_world_camera
    if frame.depth is None or frame.camera is None or T is None:
        raise ValueError("only a frame with depth, a camera model and a pose shows surfaces")
    block = int(np.clip(round(BLOCK_PX * frame.camera.width / _USUAL_WIDTH), 2, BLOCK_PX))
    rows, columns = (s // block for s in frame.depth.shape)
    z = depth_to_metres(frame.depth[: rows * block, : columns * block])
    blocks = z.reshape(rows, block, columns, block)
    count = np.isfinite(blocks).sum(axis=(1, 3))
    mean = np.where(count > 0, np.nansum(blocks, axis=(1, 3)) / np.maximum(count, 1), np.nan)
    mean[count < block * block // 2] = np.nan
    v, u = np.mgrid[0:rows, 0:columns] * block + (block - 1) / 2
    X = frame.camera.unproject(np.stack([u, v], axis=-1)) * mean[..., None]
    along_u = X[1:-1, 2:] - X[1:-1, :-2]
    along_v = X[2:, 1:-1] - X[:-2, 1:-1]
    centre = X[1:-1, 1:-1]
    normal = np.cross(along_u, along_v)
    with np.errstate(invalid="ignore", divide="ignore"):
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        normal *= -np.sign(np.sum(normal * centre, axis=-1, keepdims=True))
        # the two halves of each baseline must agree, or it spans an edge
        bend = np.maximum(
            np.abs(X[1:-1, 2:, 2] + X[1:-1, :-2, 2] - 2 * centre[..., 2]),
            np.abs(X[2:, 1:-1, 2] + X[:-2, 1:-1, 2] - 2 * centre[..., 2]),
        )
        good = np.isfinite(normal).all(axis=-1) & (bend < 0.03 * centre[..., 2])
    points, normals = centre[good] @ T[:3, :3].T + T[:3, 3], normal[good] @ T[:3, :3].T
    _, first = _first_per_cell(points)
    return ImageSurfels(points[first], normals[first], T)


def _up(s: _Surfels) -> NDArray[np.float64] | None:
    """Up direction [3] in the world; None when nothing facing up was seen."""
    if not len(s.points):
        return None
    facing_up = np.sum(s.normals * s.camera_up[s.image], axis=1) > 0.4
    _, first = _first_per_cell(s.points[facing_up])
    normals = s.normals[facing_up][first]
    area = len(first) * CELL_M**2
    if area < MIN_AREA_M2:
        return None
    trial = normals[np.linspace(0, len(normals) - 1, min(300, len(normals))).astype(int)]
    trial = np.concatenate([[(0.0, 0.0, 1.0)], trial])
    votes = ((normals @ trial.T) > np.cos(np.radians(8))).sum(axis=0) * CELL_M**2
    roll = np.sqrt(((s.camera_right @ trial.T) ** 2).mean(axis=0))
    prior = np.exp(-0.5 * (roll / 0.15) ** 2) * np.where(s.camera_up.mean(axis=0) @ trial.T > 0, 1.0, 0.0)
    prior *= np.where(trial[:, 2] > _LEVEL_WORLD, 3.0, 1.0)
    score = votes * prior
    best = trial[int(np.argmax(score))]
    if votes[int(np.argmax(score))] < MIN_AREA_M2:
        return None
    for _ in range(5):
        members = normals[normals @ best > np.cos(np.radians(6))]
        if not len(members):
            break
        best = members.mean(axis=0)
        best /= np.linalg.norm(best)
    return best


def _layer(s: _Surfels, up: NDArray[np.float64], facing: float) -> _Layer | None:
    """The lowest (facing 1) or highest (facing -1) large horizontal surface with next to nothing beyond it."""
    height = s.points @ up * facing
    flat = np.flatnonzero(s.normals @ up * facing > _SAME_NORMAL)
    if not len(flat):
        return None
    _, first = _first_per_cell(s.points)
    everything = np.sort(height[first])
    step = 0.02
    low = height[flat].min()
    bins = ((height[flat] - low) / step).astype(int)
    _, unique = _first_per_cell(s.points[flat])
    histogram = np.bincount(bins[unique], minlength=bins.max() + 1)
    smooth = np.convolve(histogram, np.ones(3), mode="same")
    needed = MIN_AREA_M2 / CELL_M**2
    camera = np.median(s.camera_position @ up) * facing
    for peak in np.flatnonzero(smooth >= needed):
        window = smooth[max(peak - 3, 0) : peak + 4]
        if smooth[peak] < window.max():
            continue
        gravity = low + (peak + 0.5) * step
        beyond = np.searchsorted(everything, gravity - _BEYOND_M)
        if beyond > _BEYOND_SHARE * len(everything) or gravity > camera:
            return None
        return _refined(s, up, facing, flat, gravity)
    return None


def _refined(
    s: _Surfels, up: NDArray[np.float64], facing: float, flat: NDArray[np.int64], gravity: float
) -> _Layer | None:
    height = s.points[flat] @ up * facing
    for _ in range(4):
        members = flat[np.abs(height - gravity) < _SLAB_M]
        if not len(members):
            return None
        gravity = float(np.median(s.points[members] @ up * facing))
    images = [members[s.image[members] == i] for i in np.unique(s.image[members])]
    medians = np.array([np.median(s.points[m] @ up) for m in images if len(m) >= 5] or [gravity * facing])
    weights = np.array([len(m) for m in images if len(m) >= 5] or [1], dtype=float)
    order = np.argsort(medians)
    cumulative = np.cumsum(weights[order]) / weights.sum()
    middle = float(medians[order][np.searchsorted(cumulative, 0.5)])
    scatter = 1.4826 * float(np.median(np.abs(medians - middle)))
    # what is a little off the layer is another estimate of it, rather than something else
    near = flat[np.abs(s.points[flat] @ up - middle) < _ANOTHER_M]
    seen = [m for i in np.unique(s.image[near]) if len(m := near[s.image[near] == i]) >= 5]
    heights = np.array([np.median(s.points[m] @ up) for m in seen])
    apart = max(
        _disagreement(np.array_split(heights, _PARTS), scatter), _disagreement(_by_region(s, up, seen), scatter)
    )
    stddev = float(np.linalg.norm((0.002, scatter / np.sqrt(max(len(medians) / 2, 1)), apart)))
    _, first = _first_per_cell(s.points[members])
    return _Layer(middle, stddev, len(first) * CELL_M**2, members)


def _by_region(s: _Surfels, up: NDArray[np.float64], images: list[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
    """Heights of a layer as each image shows it, in its quarters as seen from above."""
    across = _upright(up, 0.0)[:2, :3]
    places = s.points @ across.T
    if not images:
        return []
    middle = np.median(places[np.concatenate(images)], axis=0)
    quarter = (places > middle) @ (1, 2)
    parts = [[m[quarter[m] == q] for m in images] for q in range(_PARTS)]
    return [np.array([np.median(s.points[m] @ up) for m in part if len(m) >= 5]) for part in parts]


def _disagreement(parts: list[NDArray[np.float64]], scatter: float) -> float:
    """By how much independent estimates of one height differ beyond what ``scatter`` between images explains (metres).

    parts: heights by image, of each estimate. A floor is not everywhere as high, and poses drift: what is above it is so
    for the place and the time where it stands.
    """
    parts = [part for part in parts if len(part) >= 2]
    if len(parts) < 2:
        return 0.0
    medians = np.array([np.median(part) for part in parts])
    explained = float(np.mean([(1.25 * scatter) ** 2 / len(part) for part in parts]))  # of a median
    return float(np.sqrt(max(float(np.var(medians, ddof=1)) - explained, 0.0)))


def _plane_normal(s: _Surfels, members: NDArray[np.int64], up: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal of the plane through the members; ``up`` where they are too narrow to tell."""
    points = s.points[members]
    for _ in range(3):
        centred = points - points.mean(axis=0)
        values, vectors = np.linalg.eigh(centred.T @ centred / len(points))
        if np.sqrt(values[1]) < 0.25:  # metres of spread across the narrower side
            return up
        normal = vectors[:, 0] * np.sign(vectors[:, 0] @ up)
        distance = np.abs(centred @ normal)
        points = points[distance < max(2.5 * 1.4826 * np.median(distance), 0.01)]
    return normal


def _lean(s: _Surfels, members: NDArray[np.int64], up: NDArray[np.float64]) -> float:
    """How far, in radians, the floor that was seen leans against ``up``, with what its own fit may be off."""
    normal = _plane_normal(s, members, up)
    if normal is up:
        return _TILT
    return min(float(np.hypot(np.linalg.norm(np.cross(normal, up)), _TILT_OF_FIT)), _TILT)


def _ceiling(s: _Surfels, up: NDArray[np.float64], offset: float) -> tuple[float | None, float | None]:
    layer = _layer(s, up, facing=-1.0) if len(s.points) else None
    return (None, None) if layer is None else (layer.height + offset, layer.stddev)


def _centre(s: _Surfels, T_zup_from_world: Transform) -> tuple[float, float]:
    x, y, _ = T_zup_from_world[:3, :3] @ s.camera_position.mean(axis=0) + T_zup_from_world[:3, 3]
    return float(x), float(y)


def _upright(up: NDArray[np.float64], offset: float) -> Transform:
    """Transform to a frame whose z axis is ``up``, its x axis as near to the world's as can be, shifted by ``offset``."""
    x = np.array([1.0, 0.0, 0.0]) if abs(up[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    x = x - (x @ up) * up
    x /= np.linalg.norm(x)
    return make_transform(np.stack([x, np.cross(up, x), up]), (0.0, 0.0, offset))
