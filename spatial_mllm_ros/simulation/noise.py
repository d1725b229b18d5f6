"""What a real depth camera and a real localisation do to exact geometry, as SensorModel describes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.scene.pose import Transform, make_transform
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.simulation.raycast import View


@dataclass(frozen=True)
class DepthCamera:
    """The errors of an RGB-D camera with poses.

    sensor: white and correlated depth noise and pose noise. range_m: depths outside return nothing. grazing_cosine:
    nor do surfaces whose normal is further from the ray than this. jump: neighbouring depths that differ by more than
    this share are an edge; there a pixel returns nothing (share_lost) or a depth between both surfaces (share_flying).
    seed: errors depend on it and on the frame's index alone.
    """

    sensor: SensorModel = field(default_factory=SensorModel)
    range_m: tuple[float, float] = (0.3, 6.0)
    grazing_cosine: float = 0.12
    jump: float = 0.05
    share_lost: float = 0.5
    share_flying: float = 0.1
    seed: int = 0

    def depth(self, view: View, index: int) -> NDArray[np.uint16]:
        """Measured depth of frame ``index`` from its exact view, uint16 mm [height, width], 0 = no data."""
        rng = np.random.default_rng([self.seed, index, 1])
        exact, sensor = view.depth, self.sensor
        common = 1.0 + sensor.depth_correlated * rng.standard_normal()
        noise = rng.standard_normal(exact.shape, dtype=np.float32)
        spread = exact - np.float32(sensor.depth_offset_m)
        spread *= spread
        spread *= np.float32(sensor.depth_quadratic_per_m)
        spread += np.float32(sensor.depth_base_m)
        noise *= spread
        source, lost = exact, np.zeros(0, dtype=np.intp)
        near, far, where = _edges(exact, self.jump)
        if len(where):
            draw = rng.random(len(where), dtype=np.float32)
            lost = where[draw < self.share_lost]
            flying = (draw >= self.share_lost) & (draw < self.share_lost + self.share_flying)
            mix = rng.random(len(where), dtype=np.float32)[flying]
            source = exact.copy()
            source.ravel()[where[flying]] = near[flying] + mix * (far[flying] - near[flying])
        measured = source * np.float32(1000.0 * common)
        noise *= np.float32(1000.0)
        measured += noise
        measured += np.float32(0.5)
        low, high = self.range_m
        valid = (view.facing > self.grazing_cosine) & (exact >= low) & (exact <= high)
        valid.ravel()[lost] = False
        measured *= valid
        return np.clip(measured, 0, 65535, out=measured).astype(np.uint16)

    def pose(self, T_world_camera: Transform, index: int) -> Transform:
        """Reported pose of frame ``index``: position and rotation (about the camera's axes) with errors."""
        rng = np.random.default_rng([self.seed, index, 2])
        shift = self.sensor.pose_position_m * rng.standard_normal(3)
        turn = Rotation.from_rotvec(self.sensor.pose_rotation_rad * rng.standard_normal(3)).as_matrix()
        return make_transform(T_world_camera[:3, :3] @ turn, T_world_camera[:3, 3] + shift)


def exact_depth(view: View) -> NDArray[np.uint16]:
    """Exact depth rounded to millimetres, uint16 [height, width], 0 where nothing is met."""
    return np.clip(np.rint(view.depth * np.float32(1000.0)), 0, 65535).astype(np.uint16)


def _edges(
    depth: NDArray[np.float32], jump: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
    """Pixels beside a depth jump (either side): the nearer and farther depth there, and flat indices."""
    flat, width = depth.ravel(), depth.shape[1]
    one = np.float32(1 + jump)
    pairs = []
    for axis, step in ((1, 1), (0, width)):
        a = depth[:, :-1] if axis == 1 else depth[:-1]
        b = depth[:, 1:] if axis == 1 else depth[1:]
        big = (a > one * b) | (b > one * a)
        rows, columns = np.nonzero(big)
        first = rows * width + columns
        pairs += [(first, first + step), (first + step, first)]
    here = np.concatenate([p[0] for p in pairs])
    there = np.concatenate([p[1] for p in pairs])
    where, chosen = np.unique(here, return_index=True)
    mine, other = flat[where], flat[there[chosen]]
    return np.minimum(mine, other), np.maximum(mine, other), where
