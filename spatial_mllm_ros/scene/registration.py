"""Depth seen from the depth camera, moved into the color image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import DEPTH_MM, depth_to_metres
from spatial_mllm_ros.scene.pose import Transform

OVERLAP = 1.1
"""Footprints are drawn this much larger, so that slanted surfaces and distortion tear no cracks between them."""
LARGEST_FOOTPRINT_PX = 16
SAME_VIEW_PX, SAME_VIEW = 2.0, 0.01
"""Rows by which, and part of the height by which, two images of one view may differ in shape."""


def register_depth(
    depth: NDArray[np.uint16] | NDArray[np.float32],
    depth_camera: CameraModel,
    color_camera: CameraModel,
    T_color_depth: Transform,
) -> NDArray[np.uint16] | NDArray[np.float32]:
    """Depth registered to the color image: [color height, color width], same type and unit as ``depth``.

    depth: [height, width] along the depth camera's axis, uint16 mm (0 = no data) or float32 m (0, NaN = no data).
    T_color_depth: depth camera points to color camera points, metres.

    Every depth pixel is moved as a small patch facing the camera, as large as its footprint in the color image, and
    the nearest patch wins: a color image of higher resolution is covered without holes, and what only the color
    camera sees stays without data (0, or NaN for float32).

    Raises ValueError when ``depth`` has another size than its camera.
    """
    if depth.shape != (depth_camera.height, depth_camera.width):
        raise ValueError(
            f"depth is {depth.shape[1]}x{depth.shape[0]} but its CameraInfo says "
            f"{depth_camera.width}x{depth_camera.height}"
        )
    metres = depth_to_metres(depth)
    rays = depth_camera.rays()
    valid = np.isfinite(metres) & np.isfinite(rays[..., 0])
    z_depth = metres[valid].astype(np.float64)
    points = (rays[valid] * z_depth[:, None]) @ T_color_depth[:3, :3].T + T_color_depth[:3, 3]
    z = points[:, 2]
    uv = color_camera.project(points)
    ahead = np.isfinite(uv).all(axis=1)
    uv, z, z_depth = uv[ahead], z[ahead], z_depth[ahead]

    # Half the footprint of a depth pixel in color pixels: focal lengths and distances give the scale, the rotation
    # about the optical axis mixes its two edges.
    R = np.abs(T_color_depth[:2, :2])
    edges = np.array([1 / depth_camera.fx, 1 / depth_camera.fy])
    half = 0.5 * OVERLAP * (z_depth / z)[:, None] * (R @ edges) * (color_camera.fx, color_camera.fy)
    half = np.minimum(half, LARGEST_FOOTPRINT_PX / 2)
    first = np.ceil(uv - half).astype(np.int64)
    last = np.floor(uv + half).astype(np.int64)

    nearest = np.full(color_camera.height * color_camera.width, np.inf, dtype=np.float32)
    z32 = z.astype(np.float32)
    spans = (last - first).max(axis=0, initial=0)
    for dv in range(int(spans[1]) + 1):
        for du in range(int(spans[0]) + 1):
            u, v = first[:, 0] + du, first[:, 1] + dv
            drawn = (u <= last[:, 0]) & (v <= last[:, 1])
            drawn &= (u >= 0) & (u < color_camera.width) & (v >= 0) & (v < color_camera.height)
            np.minimum.at(nearest, v[drawn] * color_camera.width + u[drawn], z32[drawn])
    out = nearest.reshape(color_camera.height, color_camera.width)
    if depth.dtype == DEPTH_MM:
        millimetres = np.rint(out * 1000)
        return np.where(millimetres <= 65535, millimetres, 0).astype(np.uint16)
    out[~np.isfinite(out)] = np.nan
    return out


def resampled_depth(
    depth: NDArray[np.uint16] | NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.uint16] | NDArray[np.float32] | None:
    """Depth of the color camera's own view, but of another resolution, at that of the color image; None where the shapes
    are not those of one view.

    size: (width, height) of the color image, px. Each pixel takes the depth at its centre, so that no depth is made up
    between two surfaces; corners of the two images coincide. Shapes may differ by what rounding and cropping make.
    """
    (height, width), (columns, rows) = depth.shape, size
    off = abs(height - rows * width / columns)
    if off > max(0.5, min(SAME_VIEW_PX, SAME_VIEW * height)):
        return None
    u = ((np.arange(columns) + 0.5) * (width / columns)).astype(np.intp)
    v = ((np.arange(rows) + 0.5) * (height / rows)).astype(np.intp)
    return depth[v][:, u]


def depth_from_the_same_place(
    depth: NDArray[np.uint16] | NDArray[np.float32], depth_camera: CameraModel, color_camera: CameraModel
) -> NDArray[np.uint16] | NDArray[np.float32]:
    """Depth registered to the color image of a camera at the same place with the same axes, but another model.

    Which pixels show the same direction does not depend on depth then: each color pixel takes the depth pixel that it falls
    into, and is without data (0) where there is none. depth: [height, width] of ``depth_camera``; type and unit stay.
    """
    rows, columns, inside = _pixels_of_the_same_direction(depth_camera, color_camera)
    return depth[rows, columns] * inside.astype(depth.dtype)


@lru_cache(maxsize=4)
def _pixels_of_the_same_direction(
    depth_camera: CameraModel, color_camera: CameraModel
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """For each color pixel the row and column of the depth image that it falls into, and whether it does."""
    uv = depth_camera.project(color_camera.rays().astype(np.float64))
    inside = depth_camera.contains(np.nan_to_num(uv, nan=-1e9))
    nearest = np.rint(np.where(inside[..., None], uv, 0)).astype(np.intp)
    columns = np.clip(nearest[..., 0], 0, depth_camera.width - 1)
    return np.clip(nearest[..., 1], 0, depth_camera.height - 1), columns, inside
