"""A depth image of any camera as cells of a small pinhole image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.memory.map import kernels
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import DEPTH_MM, Frame

QUANTUM_M = 0.00025
"""Depths of cells are kept in this unit, in 16 bits: to 16.4 m."""
CELLS_PER_RAD = 131.0
"""Cells are at least so fine at the middle of the image: 3.8 cm at 5 m. 640 x 480 pixels of 60 degrees make 160 x 120."""
MANY = 4
"""Pixels along a cell from which on a quarter of them is looked at."""
WIDEST = 1.73  # tangent of 60 degrees: what a lens sees beyond is left out


Pyramids = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Depth of the cells [h, w], metres, and its smallest and largest over squares of cells [levels, h, w]."""


@dataclass(frozen=True, eq=False)
class CellCamera:
    """The pinhole camera of the cells, and which pixels of the camera each has; see ``kernels.nearest_layer``."""

    width: int
    height: int
    f: float
    cu: float
    cv: float
    order: NDArray[np.int32]
    start: NDArray[np.int32]

    @staticmethod
    @lru_cache(maxsize=8)
    def of(camera: CameraModel) -> CellCamera:
        """Those for a camera: a whole number of pixels for each cell where its lens does not bend rays."""
        rays = camera.rays().reshape(-1, 3)[:, :2]
        straight = camera.distortion_model != "equidistant" and not any(camera.distortion)
        stride = max(1, int(camera.fx / CELLS_PER_RAD))
        f = camera.fx / stride
        if straight and abs(camera.fy / camera.fx - 1) < 1e-9:
            width, height = -(-camera.width // stride), -(-camera.height // stride)
            cu, cv = (camera.cx + 0.5) / stride - 0.5, (camera.cy + 0.5) / stride - 0.5
        else:
            ok = np.isfinite(rays).all(axis=1) & (np.abs(rays) < WIDEST).all(axis=1)
            low, high = (rays[ok].min(axis=0), rays[ok].max(axis=0)) if ok.any() else (np.zeros(2), np.zeros(2))
            width, height = (int(n) for n in np.floor((high - low) * f) + 1)
            cu, cv = (float(c) for c in -low * f)
        with np.errstate(invalid="ignore"):
            uv = np.floor(rays * f + (cu + 0.5, cv + 0.5) + 1e-6)
            inside = ((uv >= 0) & (uv < (width, height))).all(axis=1)
        row, column = np.divmod(np.arange(len(rays)), camera.width)
        if stride >= MANY:  # every second pixel of every second row tells as much
            inside &= (row % 2 == 0) & (column % 2 == 0)
        pixels = np.flatnonzero(inside)
        cell = (uv[pixels, 1] * width + uv[pixels, 0]).astype(np.int64)
        by_cell = np.argsort(cell, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=width * height))])
        return CellCamera(
            width, height, f, cu, cv, order=pixels[by_cell].astype(np.int32), start=start.astype(np.int32)
        )

    def reduce(self, frame: Frame) -> tuple[NDArray[np.uint16], int]:
        """Depth of the nearest surface in each cell, [height, width] in ``QUANTUM_M``, 0 = unknown; how many cells know it."""
        assert frame.depth is not None
        out = np.empty(self.width * self.height, dtype=np.float32)
        depth = np.ascontiguousarray(frame.depth).reshape(-1)
        unit = 0.001 if depth.dtype == DEPTH_MM else 1.0
        known = kernels.nearest_layer(depth, unit, self.order, self.start, out)
        quantised = np.minimum(out * np.float32(1 / QUANTUM_M) + np.float32(0.5), 65535).astype(np.uint16)
        return quantised.reshape(self.height, self.width), known

    def levels(self) -> int:
        """How many times the image can be halved."""
        return max(1, int(np.ceil(np.log2(max(self.width, self.height)))) + 1)

    def pyramids(self, cells: NDArray[np.uint16]) -> Pyramids:
        """Depth in metres, and its smallest and largest over squares of cells; see ``kernels.pyramids``."""
        depth = cells.astype(np.float32) * np.float32(QUANTUM_M)
        near = np.empty((self.levels(), self.height, self.width), dtype=np.float32)
        far = np.empty_like(near)
        kernels.pyramids(depth, near, far)
        return depth, near, far
