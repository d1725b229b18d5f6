"""The space from above: seen surface, the camera's path, the keyframes, and what was never looked into."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spatial_mllm_ros.scene.backproject import camera_points
from spatial_mllm_ros.scene.gravity import Gravity
from spatial_mllm_ros.scene.pose import Transform, apply
from spatial_mllm_ros.session.stream import Session

ToSvg = Callable[[NDArray[np.float64]], NDArray[np.float64]]
LONG_SIDE = 560.0
CELLS = 260
LOOKS = 72
RAMP = ("#3556c8", "#2a8fd0", "#1fb0a0", "#6fbf3f", "#e0a81e", "#e2622b")
"""Colors of the path from its first to its last moment, legible on light and dark."""


@dataclass(frozen=True)
class Submap:
    """A piece of the path: SVG points and color."""

    points: str
    color: str


@dataclass(frozen=True)
class Frustum:
    """A keyframe: its wedge of view, its number and where that stands, SVG units; color: of its time."""

    rank: int
    wedge: str
    x: float
    y: float
    text_x: float
    text_y: float
    caption: str
    color: str


@dataclass(frozen=True)
class TopDown:
    """A map of width x height SVG units, x to the right and y up in the z-up frame.

    floor, surface, unseen: PNG data URIs whose brightness says how much of each is there. scale_m, scale_length: metres
    of the scale bar and its length. metric: whether they are metres, not an unknown unit. axes: whether x and y are those
    of the fixed frame.
    """

    width: float
    height: float
    floor: str
    surface: str
    unseen: str
    path: list[Submap]
    start: tuple[float, float]
    end: tuple[float, float]
    frusta: list[Frustum]
    scale_m: float
    scale_length: float
    metric: bool
    seconds: float
    has_floor: bool
    axes: bool
    world_frame: str
    unseen_share: float
    ramp: tuple[str, ...] = RAMP


def top_down(session: Session) -> TopDown | None:
    """The map of what a session has seen; None when nothing was."""
    points = session.memory.seen_points()
    positions = session.positions()
    if len(points) < 10 or not len(positions):
        return None
    gravity = session.engine.gravity_cache.gravity(session.memory)
    T = gravity.T_zup_from_world
    seen = _map(T, points)
    path = _map(T, positions)
    trimmed = np.percentile(seen[:, :2], [0.1, 99.9], axis=0)
    low = np.minimum(trimmed[0], path[:, :2].min(axis=0)) - 0.25
    high = np.maximum(trimmed[1], path[:, :2].max(axis=0)) + 0.25
    size = high - low
    scale = LONG_SIDE / float(size.max())
    cell = float(size.max()) / CELLS

    def to_svg(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([(xy[..., 0] - low[0]) * scale, (high[1] - xy[..., 1]) * scale], axis=-1)

    shape = (max(1, math.ceil(size[1] / cell)), max(1, math.ceil(size[0] / cell)))
    floor, surface = _layers(seen, gravity, float(np.median(path[:, 2])), low, high, cell, shape)
    looked = _looked_into(session, gravity, low, high, cell, shape)
    unseen = _unseen(floor | (surface > 0), looked, cell)
    inside = unseen | looked
    svg_path = to_svg(path[:, :2])
    metres = _nice_length(0.22 * float(size[0]))
    return TopDown(
        width=float(size[0] * scale),
        height=float(size[1] * scale),
        floor=_png(ndimage.gaussian_filter(_closed(floor).astype(np.float64), 1.0) * 255),
        surface=_png(255.0 * np.asarray(ndimage.gaussian_filter(surface, 0.8), dtype=np.float64)),
        unseen=_png(unseen * 255.0),
        path=path_segments(svg_path),
        start=_pair(svg_path[0]),
        end=_pair(svg_path[-1]),
        frusta=_frusta(session, T, to_svg, scale, size),
        scale_m=metres,
        scale_length=metres * scale,
        metric=session.metric,
        seconds=session.report.duration_s,
        has_floor=gravity.floor_stddev_m is not None,
        axes=bool(np.allclose(T[:3, :3], np.eye(3), atol=1e-3)),
        world_frame=session.memory.world_frame,
        unseen_share=float(unseen.sum() / max(inside.sum(), 1)),
    )


def color_at(fraction: float) -> str:
    """The path's color at a share of its time, 0 to 1."""
    at = min(max(fraction, 0.0), 1.0) * (len(RAMP) - 1)
    i = min(int(at), len(RAMP) - 2)
    a, b = (np.array([int(c[k : k + 2], 16) for k in (1, 3, 5)]) for c in RAMP[i : i + 2])
    r, g, b_ = np.round(a + (b - a) * (at - i)).astype(int)
    return f"#{r:02x}{g:02x}{b_:02x}"


def _layers(
    seen: NDArray[np.float64],
    gravity: Gravity,
    camera_z: float,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    cell: float,
    shape: tuple[int, int],
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Floor cells, and how tall the surface that stands in each cell is, 0 to 1."""
    rows, columns, inside = _cells(seen, low, high, cell, shape)
    z = seen[inside, 2]
    if gravity.floor_stddev_m is not None:
        bottom, top = 0.08, (gravity.ceiling_m - 0.25 if gravity.ceiling_m is not None else camera_z + 0.6)
    else:
        bottom, top = -np.inf, camera_z + 0.4
    is_floor = z < bottom
    stands = ~is_floor & (z < top)
    floor = np.zeros(shape, dtype=bool)
    floor[rows[is_floor], columns[is_floor]] = True
    slices = np.zeros((*shape, 12), dtype=bool)
    base = 0.0 if np.isfinite(bottom) else float(z.min())
    slot = np.clip(((z[stands] - base) / max(top - base, 0.1) * 12).astype(int), 0, 11)
    slices[rows[stands], columns[stands], slot] = True
    height = slices.sum(axis=2) / 12
    return floor, np.where(height > 0, 0.25 + 0.75 * np.minimum(height * 1.8, 1.0), 0.0)


def _cells(
    xyz: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], cell: float, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Rows (downwards, from the largest y) and columns of the points on the map, and which these are."""
    columns = np.floor((xyz[:, 0] - low[0]) / cell).astype(np.int64)
    rows = np.floor((high[1] - xyz[:, 1]) / cell).astype(np.int64)
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return rows[inside], columns[inside], inside


def _looked_into(
    session: Session,
    gravity: Gravity,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    cell: float,
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Cells above or below which some ray from a camera to a measured point passed."""
    looked = np.zeros(shape, dtype=bool)
    frames = [s.frame for s in session.memory.frames() if s.frame.depth is not None]
    max_depth_m = session.memory.config.max_depth_m
    for i in np.unique(np.linspace(0, len(frames) - 1, min(LOOKS, len(frames))).round().astype(int)):
        frame = frames[i]
        assert frame.T_world_camera is not None
        assert frame.camera is not None
        stride = max(1, frame.camera.width // 40)
        T = gravity.T_zup_from_world @ frame.T_world_camera
        ends = _map(T, camera_points(frame, stride, max_depth_m))
        eye = T[:3, 3]
        longest = float(np.linalg.norm(ends - eye, axis=1).max(initial=0.0))
        steps = np.linspace(0, 1, min(max(int(longest / cell), 2), 200))
        rays = eye + steps[:, None, None] * (ends - eye)
        rows, columns, _ = _cells(rays.reshape(-1, 3), low, high, cell, shape)
        looked[rows, columns] = True
    return _closed(looked)


def _unseen(surface: NDArray[np.bool_], looked: NDArray[np.bool_], cell: float) -> NDArray[np.bool_]:
    """Cells enclosed by what was seen that nothing looked into, without specks."""
    radius = max(1, round(0.15 / cell))
    disc = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    known = np.pad(looked | surface, radius)
    enclosed = ndimage.binary_fill_holes(ndimage.binary_closing(known, disc))
    hidden = (enclosed & ~known)[radius:-radius, radius:-radius]
    return np.asarray(ndimage.binary_opening(hidden, disc), dtype=bool)


def _closed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_closing(np.pad(mask, 3), iterations=2)[3:-3, 3:-3], dtype=bool)


def path_segments(svg: NDArray[np.float64]) -> list[Submap]:
    """The path in up to 48 pieces, each of the color of its time."""
    keep = np.unique(np.linspace(0, len(svg) - 1, min(len(svg), 480)).round().astype(int))
    points = svg[keep]
    bounds = np.unique(np.linspace(0, len(points) - 1, min(len(points), 49)).round().astype(int))
    return [
        Submap(
            " ".join(f"{x:.1f},{y:.1f}" for x, y in points[a : b + 1]),
            color_at((a + b) / 2 / max(len(points) - 1, 1)),
        )
        for a, b in itertools.pairwise(bounds)
    ]


def _frusta(session: Session, T: Transform, to_svg: ToSvg, scale: float, size: NDArray[np.float64]) -> list[Frustum]:
    length = min(max(0.055 * float(size.max()), 0.12), 0.6)
    found: list[tuple[int, str, NDArray[np.float64], NDArray[np.float64], str, str]] = []
    for rank, stored, gain in session.stored_keyframes():
        frame = stored.frame
        if frame.T_world_camera is None or frame.camera is None:
            continue
        pose = T @ frame.T_world_camera
        tangent = frame.camera.width / 2 / frame.camera.fx
        corners = np.array([(0, 0, 0), (-tangent, 0, 1), (tangent, 0, 1)]) * length
        wedge = to_svg(_map(pose, corners)[:, :2])
        eye, ahead = wedge[0], (wedge[1] + wedge[2]) / 2
        seconds = session.since_start_s(frame.stamp_ns)
        share = seconds / session.report.duration_s if session.report.duration_s else 0.0
        caption = f"keyframe {rank}: {session.name_of(frame.stamp_ns)}, {seconds:.1f} s, {gain} voxels gained"
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in wedge)
        out = ahead - eye
        norm = float(np.linalg.norm(out))
        label = ahead + (out / norm * 11 if norm > 1e-6 else np.array([0.0, -11.0]))
        found.append((rank, text, eye, label, caption, color_at(share)))
    limits = np.array([size[0] * scale, size[1] * scale])
    labels = _spread(np.array([f[3] for f in found]), limits) if found else np.empty((0, 2))
    return [
        Frustum(rank, wedge, *_pair(eye), *_pair(labels[i]), caption, color)
        for i, (rank, wedge, eye, _, caption, color) in enumerate(found)
    ]


def _spread(labels: NDArray[np.float64], limits: NDArray[np.float64], gap: float = 22.0) -> NDArray[np.float64]:
    """Labels [n, 2] pushed apart until they do not touch, as near to where they were as that allows."""
    at = labels.copy()
    for _ in range(200):
        at += 0.02 * (labels - at)
        moved = False
        for i in range(len(at)):
            for j in range(i):
                step = at[i] - at[j]
                distance = float(np.linalg.norm(step))
                if distance < gap:
                    along = step / distance if distance > 1e-6 else np.array([math.cos(i), math.sin(i)])
                    at[i] += along * (gap - distance) / 2
                    at[j] -= along * (gap - distance) / 2
                    moved = True
        at = np.clip(at, 12, limits - 12)
        if not moved:
            break
    return at


def _map(T: Transform, points: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(apply(T, points.astype(np.float64)), dtype=np.float64)


def _nice_length(metres: float) -> float:
    return max((m for p in (0.01, 0.1, 1.0, 10.0, 100.0) for m in (p, 2 * p, 5 * p) if m <= metres), default=0.01)


def _png(values: NDArray[np.floating]) -> str:
    ok, data = cv2.imencode(".png", np.clip(values, 0, 255).astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not ok:
        raise ValueError("the map could not be encoded")
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _pair(p: NDArray[np.float64]) -> tuple[float, float]:
    return float(p[0]), float(p[1])
