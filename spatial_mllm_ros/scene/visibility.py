"""Does a camera see a measured point, or is it out of view or behind something?"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.measure import CameraErrors, PointMeasurement
from spatial_mllm_ros.scene.uncertainty import Errors, propagate

_MARGIN_M = 0.02
_MAX_WINDOW_PX = 8
_SURE = 0.98
_SLANT = 0.01  # of the depth
_FROM_BEHIND = -0.25  # cosine: a normal is good to ten degrees or so


@dataclass(frozen=True)
class Sighting:
    """How a point would appear in an image.

    probability: that the image shows it. pixel: where, px (NaN when behind the camera). pixel_stddev: of the worse
    direction, px. depth: expected z, metres. reason: what speaks against it, for people ('' when nothing does).
    undecided: the image has no depth there, so an occlusion can be neither seen nor ruled out.
    """

    probability: float
    pixel: tuple[float, float]
    pixel_stddev: float
    depth: float
    reason: str = ""
    undecided: bool = False


def sight(point: PointMeasurement, frame: Frame, key: Hashable) -> Sighting:
    """How ``point`` appears in ``frame`` (with camera model and pose); ``key`` names the frame among error sources.

    The point is projected with all errors of both images; the depth measured round its pixel, within the pixel's own
    uncertainty, decides: equal means seen, nearer means hidden, farther means that the camera looked through the place.
    """
    camera, T = frame.camera, frame.T_world_camera
    if camera is None or T is None:
        raise ValueError("a frame without camera model or pose cannot show where a point is")
    if key == point.camera.key:
        return Sighting(1.0, (point.u, point.v), point.camera.sensor.pixel_px, point.z)
    viewer = CameraErrors.of(frame, key, point.camera.sensor)

    def appearance(errors: Errors) -> NDArray[np.float64]:
        V = viewer.pose(errors)
        X = V[:3, :3].T @ (point.world_point(errors) - V[:3, 3])
        return np.append(camera.project(X), X[2])

    value, covariance = propagate(appearance, {**point.stddevs(), **viewer.stddevs(depth=False)})
    u, v, z = value.tolist()
    if not z > 0 or not np.isfinite([u, v]).all():
        return Sighting(1 - _SURE, (np.nan, np.nan), np.nan, z, "it lies behind the camera")
    if not np.isfinite(covariance).all():  # an error would move it out of the lens
        covariance = np.nan_to_num(covariance, nan=1e4)
    su, sv = np.sqrt(np.diag(covariance)[:2])
    stddev = float(np.sqrt(max(np.linalg.eigvalsh(covariance[:2, :2])[-1], 0.0)))
    inside = float(
        ndtr((u + 0.5) / su)
        * ndtr((camera.width - 0.5 - u) / su)
        * ndtr((v + 0.5) / sv)
        * ndtr((camera.height - 0.5 - v) / sv)
    )
    if inside < 0.5:
        return Sighting(inside, (u, v), stddev, z, "it lies outside the image")
    eye = T[:3, 3] - point.world_point({})
    facing = point.camera.T_world_camera[:3, :3] @ point.normal @ eye / max(float(np.linalg.norm(eye)), 1e-9)
    if facing < _FROM_BEHIND:  # false for a surface whose normal is not known
        return Sighting(1 - _SURE, (u, v), stddev, z, "it would be seen from behind")
    seen, reason, undecided = _compare(frame, u, v, z, stddev, float(np.sqrt(covariance[2, 2])), point)
    return Sighting(min(seen * inside, _SURE), (u, v), stddev, z, reason, undecided)


def _compare(
    frame: Frame, u: float, v: float, z: float, stddev_px: float, z_stddev: float, point: PointMeasurement
) -> tuple[float, str, bool]:
    """Probability that the surface at (u, v) is the point's, why not, and whether there was nothing to compare."""
    if frame.depth is None:
        return 0.5, "there is no depth to rule out that something hides it", True
    radius = int(np.clip(np.ceil(1 + 2 * stddev_px), 2, _MAX_WINDOW_PX))
    height, width = frame.depth.shape
    column, row = min(max(round(u), 0), width - 1), min(max(round(v), 0), height - 1)
    r0, c0 = max(row - radius, 0), max(column - radius, 0)
    window = depth_to_metres(frame.depth[r0 : row + radius + 1, c0 : column + radius + 1])
    rows, columns = np.nonzero(np.isfinite(window))
    if not len(rows):
        return 0.5, "the depth image has no data there", True
    measured = window[rows, columns].astype(np.float64)
    distance = np.hypot(rows + r0 - v, columns + c0 - u)
    noise = float(point.camera.sensor.depth_stddev(z))
    tolerance = 3 * float(np.hypot(z_stddev, noise)) + _MARGIN_M
    near_px = max(stddev_px, 0.8)
    middle = distance <= max(distance.min(), 1.5)
    # a slanted surface changes within a pixel; at an edge that says nothing, hence the limit
    tolerance += min(float(np.ptp(measured[middle])) / 2, _SLANT * z)
    same = np.abs(measured - z) <= tolerance
    if np.mean(same[middle]) > 0.5:
        return _SURE, "", False
    in_front = bool(np.median(measured[middle]) < z)
    reason = (
        f"something at {np.median(measured[middle]):.2f} m hides it, it would be at {z:.2f} m"
        if in_front
        else f"the camera looked past the place, to {np.median(measured[middle]):.2f} m"
    )
    if not same.any():
        return 1 - _SURE, reason, False
    # its surface begins a little way off: the pixel may lie there after all
    weight = np.exp(-0.5 * (distance / near_px) ** 2)
    return float(np.clip(weight[same].sum() / weight.sum(), 1 - _SURE, _SURE)), reason, False
