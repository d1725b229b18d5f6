"""What one pixel of a depth image says about the world, and how precisely."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.uncertainty import Drifting, Errors

WINDOW_PX = 3
"""Half size of the window in which the surface round a pixel is fitted."""
EDGE_PX = 0.8
"""How precisely a depth camera places a silhouette: lateral noise, about 0.8 px (Nguyen et al. 2012)."""
_FILLED_STDDEV_M = 0.02
_NORMAL_PX = 8
_AGREE = 2.0  # deviations
_ALONE = 1.5  # a single pixel must disagree more clearly than a fit


@dataclass(frozen=True, eq=False)
class CameraErrors:
    """Error sources of one image: its pose (six) and the part of the depth error that its pixels share.

    key: names the image among error sources. pose_stddev: what is told of this very pose (m, rad), see Frame.
    """

    key: Hashable
    T_world_camera: Transform
    sensor: SensorModel
    stamp_ns: int = 0
    pose_stddev: tuple[float, float] | None = None

    @classmethod
    def of(cls, frame: Frame, key: Hashable, sensor: SensorModel) -> CameraErrors:
        """Those of a frame with a pose. ValueError for one without."""
        if frame.T_world_camera is None:
            raise ValueError("a frame without pose has no place in space")
        return cls(key, frame.T_world_camera, sensor, frame.stamp_ns, frame.pose_stddev)

    @property
    def _white(self) -> tuple[float, float]:
        """Deviations of position and rotation that no other image shares: the sensor's or what is told, if more."""
        told = self.pose_stddev or (0.0, 0.0)
        return max(self.sensor.pose_position_m, told[0]), max(self.sensor.pose_rotation_rad, told[1])

    def stddevs(self, depth: bool = True) -> dict[Hashable, float | Drifting]:
        """Standard deviation of every source; ``depth``: with the shared depth error."""
        sensor = self.sensor
        out: dict[Hashable, float | Drifting] = {("scale", self.key): sensor.depth_correlated} if depth else {}
        drifts = (sensor.drift_position_m, sensor.drift_rotation_rad)
        for kind, white, drift in zip(("position", "rotation"), self._white, drifts, strict=True):
            for axis in range(3):
                out[kind, self.key, axis] = (
                    Drifting(
                        white=white,
                        drift=drift,
                        stamp_ns=self.stamp_ns,
                        time_s=sensor.drift_time_s,
                        group=(kind, axis),
                    )
                    if drift > 0
                    else white
                )
        return out

    def pose(self, errors: Errors) -> Transform:
        """T_world_camera with the named errors applied (small angles, about the camera's axes)."""
        T = self.T_world_camera
        a, b, c = (errors.get(("rotation", self.key, axis), 0.0) for axis in range(3))
        t = [errors.get(("position", self.key, axis), 0.0) for axis in range(3)]
        if not (a or b or c or any(t)):
            return T
        out = T.copy()
        out[:3, :3] = T[:3, :3] @ np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]])
        out[:3, 3] += t
        return out

    def scale(self, errors: Errors) -> float:
        """Factor on the depths of this image."""
        return 1.0 + errors.get(("scale", self.key), 0.0)


@dataclass(frozen=True, eq=False)
class PointMeasurement:
    """A pixel with its depth.

    u, v: px. z: depth along the optical axis, metres. z_stddev: its own error, without what the image shares. slope: how
    z changes along u and v, metres per px. at_edge: another surface begins within a few pixels, so a pixel's slip would
    change the depth; ``z_stddev`` includes it. normal: unit normal of the surface towards the camera, camera frame, NaN
    where the surface is too ragged to have one. filled: the pixel itself had no data, its neighbours did.
    """

    u: float
    v: float
    z: float
    z_stddev: float
    slope: tuple[float, float]
    at_edge: bool
    filled: bool
    camera: CameraErrors
    normal: NDArray[np.float64] = field(repr=False)
    ray: NDArray[np.float64] = field(repr=False)
    ray_per_px: NDArray[np.float64] = field(repr=False)

    @property
    def key(self) -> Hashable:
        return (self.camera.key, self.u, self.v)

    def stddevs(self) -> dict[Hashable, float | Drifting]:
        """Standard deviation of every error source of this point, its image's included."""
        px = self.camera.sensor.pixel_px
        return {**self.camera.stddevs(), ("z", self.key): self.z_stddev, ("u", self.key): px, ("v", self.key): px}

    def depth(self, errors: Errors) -> float:
        """z in metres with the named errors applied."""
        du, dv = errors.get(("u", self.key), 0.0), errors.get(("v", self.key), 0.0)
        own = self.z + self.slope[0] * du + self.slope[1] * dv + errors.get(("z", self.key), 0.0)
        return own * self.camera.scale(errors)

    def camera_point(self, errors: Errors) -> NDArray[np.float64]:
        """Position [3] in the camera frame, metres."""
        du, dv = errors.get(("u", self.key), 0.0), errors.get(("v", self.key), 0.0)
        return (self.ray + self.ray_per_px @ (du, dv)) * self.depth(errors)

    def world_point(self, errors: Errors) -> NDArray[np.float64]:
        """Position [3] in the world, metres."""
        T = self.camera.pose(errors)
        return T[:3, :3] @ self.camera_point(errors) + T[:3, 3]


def measure_point(frame: Frame, key: Hashable, u: float, v: float, sensor: SensorModel) -> PointMeasurement | None:
    """Measure the surface at pixel (u, v); None where the depth image has no data within two pixels.

    A plane (in inverse depth, where planes are linear) is fitted to the pixels of a 7 x 7 window that belong to the
    surface of the middle one, which averages white noise and follows a slant; over a crease or a bend the window is
    smaller. Near a silhouette the chance that the
    pixel belongs to the other surface, for the sensor's lateral precision, times the jump goes into the deviation.

    frame: with depth, camera model and pose. key: names the image among error sources. Raises ValueError for a pixel
    outside the image.
    """
    camera = frame.camera
    if camera is None or frame.depth is None or frame.T_world_camera is None:
        raise ValueError("measuring needs depth, a camera model and a pose")
    if not camera.contains((u, v)):
        raise ValueError(f"pixel ({u:g}, {v:g}) is outside the {camera.width}x{camera.height} image")
    column, row = min(max(round(u), 0), camera.width - 1), min(max(round(v), 0), camera.height - 1)
    rows = np.arange(max(row - WINDOW_PX, 0), min(row + WINDOW_PX + 1, camera.height))
    columns = np.arange(max(column - WINDOW_PX, 0), min(column + WINDOW_PX + 1, camera.width))
    window = depth_to_metres(frame.depth[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    dv, du = np.meshgrid(rows - v, columns - u, indexing="ij")
    valid = np.isfinite(window)
    if not valid.any():
        return None
    z, du, dv = window[valid].astype(np.float64), du[valid], dv[valid]
    distance = np.hypot(du, dv)
    middle = int(np.argmin(distance))
    filled = bool(not np.isfinite(window[row - rows[0], column - columns[0]]))
    if distance[middle] > 2.3:
        return None
    value, stddev, slope, own = _fit_surface(z, du, dv, middle, sensor)
    value, stddev, slope = _fit_smaller(z, du, dv, own, (value, stddev, slope), sensor)
    if filled:
        stddev = max(stddev, _FILLED_STDDEV_M)
    # another surface nearby: how likely is it the one meant?
    other = ~own & (np.abs(z - value) > np.maximum(5 * sensor.depth_white_stddev(value), 0.02))
    at_edge = False
    if other.any():
        nearest = float(distance[other].min())
        chance = float(ndtr(-(nearest - 0.5) / EDGE_PX))
        jump = float(np.median(np.abs(z[other] - value)))
        at_edge = nearest < 2.5
        stddev = float(np.hypot(stddev, np.sqrt(chance) * jump))
    ray = camera.unproject((u, v))
    if not np.isfinite(ray).all():
        return None
    step = 0.5
    neighbours = camera.unproject([(u + step, v), (u - step, v), (u, v + step), (u, v - step)])
    ray_per_px = np.stack([neighbours[0] - neighbours[1], neighbours[2] - neighbours[3]], axis=1) / (2 * step)
    ray_per_px = np.where(np.isfinite(ray_per_px), ray_per_px, 0.0)
    errors = CameraErrors.of(frame, key, sensor)
    return PointMeasurement(
        float(u),
        float(v),
        value,
        stddev,
        slope,
        at_edge,
        filled,
        errors,
        surface_normal(frame, u, v, value, sensor),
        ray,
        ray_per_px,
    )


def surface_normal(frame: Frame, u: float, v: float, z: float, sensor: SensorModel) -> NDArray[np.float64]:
    """Unit normal [3] towards the camera, camera frame, of the surface at depth ``z`` round a pixel; NaN where unclear.

    From a plane through the pixels of a 17 x 17 window that lie on it: 1 / z = n . ray / d is linear in the ray.
    """
    assert frame.depth is not None
    assert frame.camera is not None
    half = _NORMAL_PX
    row, column = round(v), round(u)
    rows = slice(max(row - half, 0), row + half + 1)
    columns = slice(max(column - half, 0), column + half + 1)
    depth = depth_to_metres(frame.depth[rows, columns]).astype(np.float64)
    rays = frame.camera.rays()[rows, columns].astype(np.float64)
    noise = max(float(sensor.depth_white_stddev(z)), 3e-4)
    own = np.abs(depth - z) < max(6 * noise, 0.04 * z)
    for _ in range(3):
        if np.count_nonzero(own) < depth.size // 3:
            return np.full(3, np.nan)
        plane, *_ = np.linalg.lstsq(rays[own], 1.0 / depth[own], rcond=None)
        with np.errstate(divide="ignore", invalid="ignore"):
            own = np.abs(depth - 1.0 / (rays @ plane)) < 4 * noise
    length = float(np.linalg.norm(plane))
    return np.asarray(-plane / length, dtype=np.float64) if length > 0 else np.full(3, np.nan)


def _fit_surface(
    z: NDArray[np.float64], du: NDArray[np.float64], dv: NDArray[np.float64], middle: int, sensor: SensorModel
) -> tuple[float, float, tuple[float, float], NDArray[np.bool_]]:
    """Depth at (0, 0), its deviation, its slope along u and v, and which samples lie on the surface of the middle one."""
    z0 = z[middle]
    noise = max(float(sensor.depth_white_stddev(z0)), 3e-4)
    own = np.abs(z - z0) < max(5 * noise, 0.02 * z0)
    design = np.stack([np.ones_like(du), du, dv], axis=1)
    for _ in range(3):
        if own.sum() < 8:
            break
        A = design[own]
        plane, *_ = np.linalg.lstsq(A, 1.0 / z[own], rcond=None)
        with np.errstate(divide="ignore"):
            fitted = 1.0 / (design @ plane)
        residual = np.abs(z - fitted)
        spread = max(1.4826 * float(np.median(residual[own])), noise)
        kept = residual < 4 * spread
        if not kept[middle] or kept.sum() < 8:
            break  # the middle one is not part of the surface round it
        if (kept == own).all():
            value = 1.0 / plane[0]
            leverage = np.linalg.pinv(A.T @ A)[0, 0]
            rms = float(np.sqrt(np.mean((z[own] - fitted[own]) ** 2)))
            slope = (float(-plane[1] * value**2), float(-plane[2] * value**2))
            return float(value), max(noise, rms) * float(np.sqrt(leverage)), slope, own
        own = kept
    else:
        value = 1.0 / plane[0]
        leverage = np.linalg.pinv(A.T @ A)[0, 0]
        slope = (float(-plane[1] * value**2), float(-plane[2] * value**2))
        return float(value), float(max(noise, spread) * np.sqrt(leverage)), slope, own
    # a thin or ragged thing: no plane to lean on, the middle sample stands alone
    own = np.abs(z - z0) < 4 * noise
    return float(z0), float(np.hypot(noise, z[own].std())), (0.0, 0.0), own


def _fit_smaller(
    z: NDArray[np.float64],
    du: NDArray[np.float64],
    dv: NDArray[np.float64],
    own: NDArray[np.bool_],
    fit: tuple[float, float, tuple[float, float]],
    sensor: SensorModel,
) -> tuple[float, float, tuple[float, float]]:
    """The fit of the largest window that agrees with those of the smaller ones inside it (Lepski's method, 1991).

    A plane across a crease misses the middle, by more than noise explains. fit: depth, deviation and slope in the whole
    window; what is left of the disagreement with the chosen fit goes into the deviation.
    """
    noise = max(float(sensor.depth_white_stddev(fit[0])), 3e-4)
    reach = np.maximum(np.abs(du), np.abs(dv))
    fits = []
    for half in range(1, WINDOW_PX):
        near = own & (reach < half + 0.75)
        if near.sum() < 7:
            continue
        A = np.stack([np.ones(near.sum()), du[near], dv[near]], axis=1)
        plane, *_ = np.linalg.lstsq(A, 1.0 / z[near], rcond=None)
        if not plane[0] > 0:
            continue
        value = float(1.0 / plane[0])
        stddev = noise * float(np.sqrt(np.linalg.pinv(A.T @ A)[0, 0]))
        fits.append((value, stddev, (float(-plane[1] * value**2), float(-plane[2] * value**2))))
    middle = int(np.argmin(np.hypot(du, dv)))
    if own[middle]:  # the pixel alone: what counts where there is next to no noise
        slope = fits[0][2] if fits else fit[2]
        fits.insert(0, (float(z[middle]) - slope[0] * du[middle] - slope[1] * dv[middle], _ALONE * noise, slope))
    fits.append(fit)
    for i in range(len(fits) - 1, 0, -1):
        if all(abs(fits[i][0] - smaller[0]) < _AGREE * smaller[1] for smaller in fits[:i]):
            chosen = fits[i]
            break
    else:
        chosen = fits[0]
    bend = max(abs(chosen[0] - fits[0][0]) - fits[0][1], 0.0) / 2
    return chosen[0], float(np.hypot(chosen[1], bend)), chosen[2]
