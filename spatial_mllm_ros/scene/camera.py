"""Pinhole cameras with the distortion models of sensor_msgs/CameraInfo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

DISTORTION_MODELS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 4, 5, 8, 12, 14), "equidistant": (0, 4)}
ALSO_CALLED = {
    **dict.fromkeys(("", "radtan", "brown_conrady", "brown", "opencv", "radial_tangential"), "plumb_bob"),
    **dict.fromkeys(("rational", "full_opencv", "thin_prism", "tilted", "tilted_model"), "rational_polynomial"),
    **dict.fromkeys(("fisheye", "kannala_brandt", "kannala_brandt4", "kb4", "opencv_fisheye"), "equidistant"),
}
"""Names that calibration tools and drivers give to the models; the number of coefficients says the rest, as in OpenCV."""
LARGEST_SKEW_PX = 1.0
"""Skew, which is left out, moves a pixel by less than this inside 90 degrees of view."""
NO_DISTORTION = ("none", "no_distortion", "pinhole", "perspective", "rectified")


class InvalidCamera(ValueError):
    """A CameraInfo that cannot be used. ``str()`` says why."""


@dataclass(frozen=True)
class CameraModel:
    """A pinhole camera: ``u = fx x' + cx``, ``v = fy y' + cy`` with (x', y') the distorted (X/Z, Y/Z).

    width, height: pixels. fx, fy, cx, cy: pixels, the centre of the top-left pixel is (0, 0).
    distortion_model: ``plumb_bob`` (k1, k2, p1, p2, k3: Brown-Conrady), ``rational_polynomial`` (its extension: k4..k6 of
        the denominator, s1..s4 of a thin prism, tilt of the sensor about x and y in radians, 8, 12 or 14 coefficients as
        in OpenCV) or ``equidistant`` (k1..k4: Kannala-Brandt, IEEE TPAMI 2006), as ROS names them.
    distortion: the coefficients; empty or all zero: none.

    Raises InvalidCamera for an empty image, a focal length that is not positive, an unknown model or a wrong number of
    coefficients. Hashable, so that ray tables are computed once per camera.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = "plumb_bob"
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy)
        if self.width <= 0 or self.height <= 0:
            raise InvalidCamera(f"CameraInfo has an empty image size {self.width}x{self.height}")
        if not np.isfinite(numbers).all() or self.fx <= 0 or self.fy <= 0:
            raise InvalidCamera(f"CameraInfo is not calibrated: fx {self.fx}, fy {self.fy} (K all zero?)")
        if not np.isfinite(self.distortion).all():
            raise InvalidCamera(f"the distortion coefficients are not numbers: {self.distortion}")
        if self.distortion_model not in DISTORTION_MODELS:
            raise InvalidCamera(
                f"distortion model {self.distortion_model!r} is not supported, only {', '.join(DISTORTION_MODELS)}: publish "
                "rectified images with their CameraInfo (image_proc), or calibrate with one of these"
            )
        if len(self.distortion) not in DISTORTION_MODELS[self.distortion_model]:
            raise InvalidCamera(
                f"{self.distortion_model} does not take {len(self.distortion)} coefficients, "
                f"but {' or '.join(map(str, DISTORTION_MODELS[self.distortion_model]))}"
            )

    @classmethod
    def from_camera_info(
        cls, width: int, height: int, k: ArrayLike, d: Sequence[float] = (), distortion_model: str = ""
    ) -> CameraModel:
        """From the fields of sensor_msgs/CameraInfo: ``k`` row-major 3x3, ``d``, ``distortion_model`` ('' = plumb_bob).

        Coefficients that are all zero are no distortion, whatever the model is called; zeros beyond what the model takes
        are dropped, and Brown-Conrady with more than five coefficients is rational_polynomial.
        """
        K = np.asarray(k, dtype=np.float64).reshape(-1)
        if K.shape != (9,):
            raise InvalidCamera(f"CameraInfo.k must have 9 elements, not {K.size}")
        if K[0] > 0 and (K[3] or K[6] or K[7]):
            raise InvalidCamera(f"CameraInfo.k is not [fx, 0, cx, 0, fy, cy, 0, 0, 1] (transposed?): {K.tolist()}")
        if abs(K[1]) > LARGEST_SKEW_PX:
            raise InvalidCamera(f"CameraInfo.k has a skew of {K[1]:g} px, which is not supported: publish rectified images")
        model, coefficients = _distortion(distortion_model, tuple(float(c) for c in d))
        return cls(
            int(width), int(height), float(K[0]), float(K[4]), float(K[2]), float(K[5]), model, coefficients
        )

    @property
    def K(self) -> NDArray[np.float64]:
        """Intrinsic matrix, 3x3."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    def resized(self, width: int, height: int) -> CameraModel:
        """The camera of the same view in an image of another size."""
        x, y = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5
        return replace(self, width=width, height=height, fx=self.fx * x, fy=self.fy * y, cx=cx, cy=cy)

    def contains(self, uv: ArrayLike) -> NDArray[np.bool_]:
        """Whether pixels [..., 2] lie inside the image, that is within half a pixel of a pixel centre."""
        p = np.asarray(uv, dtype=np.float64)
        u, v = p[..., 0], p[..., 1]
        return (u >= -0.5) & (u < self.width - 0.5) & (v >= -0.5) & (v < self.height - 0.5)

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """Pixels [..., 2] of camera points [..., 3] (metres); NaN where a point is not in front of the camera.

        For the polynomial models, points so far off axis that the polynomial folds back are NaN too.
        """
        X = np.asarray(points, dtype=np.float64)
        z = X[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            xy = np.where((z > 1e-9)[..., None], X[..., :2] / z[..., None], np.nan)
        if self.distortion:
            xy = self._distort(xy)
        return xy * (self.fx, self.fy) + (self.cx, self.cy)

    def unproject(self, uv: ArrayLike) -> NDArray[np.float64]:
        """Rays [..., 3] with z = 1 of pixels [..., 2]: multiply by depth to get the camera point. NaN if there is none."""
        p = np.asarray(uv, dtype=np.float64)
        xy = (p - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.distortion:
            xy = self._undistort(xy)
        return np.concatenate([xy, np.ones((*xy.shape[:-1], 1))], axis=-1)

    def rays(self, stride: int = 1) -> NDArray[np.float32]:
        """Rays (x, y, 1) of every ``stride``-th pixel, float32 [rows, columns, 3], read-only and cached.

        The first row and column taken are ``stride // 2``, so that the samples lie evenly in the image.
        """
        return _ray_table(self, stride)

    def _radial_limit(self) -> float:
        return _fold_radius(self)

    def _distort(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = xy[..., 0], xy[..., 1]
        r2 = x * x + y * y
        if self.distortion_model == "equidistant":
            k1, k2, k3, k4 = self.distortion
            r = np.sqrt(r2)
            theta = np.arctan(r)
            t2 = theta * theta
            theta_d = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
            with np.errstate(invalid="ignore", divide="ignore"):
                scale = np.where(r > 1e-9, theta_d / r, 1.0)
            return xy * scale[..., None]
        k = np.zeros(12)
        k[: len(self.distortion[:12])] = self.distortion[:12]
        radial = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
        xd = x * radial + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x) + r2 * (k[8] + r2 * k[9])
        yd = y * radial + k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y + r2 * (k[10] + r2 * k[11])
        bad = r2 > self._radial_limit() ** 2
        return np.where(bad[..., None], np.nan, _moved(_tilt(self), np.stack([xd, yd], axis=-1)))

    def _undistort(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        given = xy
        if self.distortion_model == "equidistant":
            k1, k2, k3, k4 = self.distortion
            theta_d = np.linalg.norm(xy, axis=-1)
            theta = np.minimum(theta_d, np.pi / 2)
            for _ in range(20):  # Newton on theta (1 + k1 theta^2 + ...) = theta_d
                t2 = theta * theta
                f = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))) - theta_d
                df = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
                theta = theta - f / np.where(np.abs(df) < 1e-9, 1e-9, df)
            good = (theta >= 0) & (theta < np.pi / 2 - 1e-3)
            with np.errstate(invalid="ignore", divide="ignore"):
                scale = np.where(theta_d > 1e-9, np.tan(theta) / theta_d, 1.0)
            out = np.where(good[..., None], xy * scale[..., None], np.nan)
        else:
            out = xy = _moved(np.asarray(np.linalg.inv(_tilt(self)), np.float64), xy)
            untilted = replace(self, distortion=self.distortion[:12])
            for _ in range(50):  # fixed point on the displacement, as the distortion is small beside the coordinate
                step = xy - untilted._distort(out)
                out = out + np.where(np.isfinite(step), step, 0.0)
                if not np.any(np.abs(step) > 1e-12):
                    break
        residual = np.abs(self._distort(out) - given).max(axis=-1)
        return np.where((residual < 1e-6)[..., None], out, np.nan)


def _distortion(name: str, d: tuple[float, ...]) -> tuple[str, tuple[float, ...]]:
    """Model and coefficients, as CameraModel names and counts them, of those of a CameraInfo. Raises InvalidCamera."""
    model = name.strip().lower().replace(" ", "_").replace("-", "_")
    if not any(d):
        return "equidistant" if ALSO_CALLED.get(model, model) == "equidistant" else "plumb_bob", ()
    if model in NO_DISTORTION:
        raise InvalidCamera(f"distortion model {name!r} means that there is none, but the coefficients are {d}")
    model = ALSO_CALLED.get(model, model)
    last = max(i for i, c in enumerate(d, start=1) if c)
    if model in DISTORTION_MODELS and len(d) not in DISTORTION_MODELS[model]:
        fewer = [n for n in DISTORTION_MODELS[model] if last <= n < len(d)]
        if fewer:
            d = d[: min(fewer)]
        elif model == "plumb_bob" and len(d) > 5:
            return _distortion("rational_polynomial", d)
    return model, d


def _tilt(camera: CameraModel) -> NDArray[np.float64]:
    """What the tilt of the sensor does to normalised coordinates, a 3x3 homography (Louhichi et al., Measurement Science
    and Technology 18, 2007, as in OpenCV)."""
    tx, ty = camera.distortion[12:] or (0.0, 0.0)
    (cx, sx), (cy, sy) = (np.cos(tx), np.sin(tx)), (np.cos(ty), np.sin(ty))
    R = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    return np.array([[R[2, 2], 0, -R[0, 2]], [0, R[2, 2], -R[1, 2]], [0, 0, 1]]) @ R


def _moved(H: NDArray[np.float64], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [..., 2] by a homography."""
    if np.array_equal(H, np.eye(3)):
        return xy
    moved = xy @ H[:, :2].T + H[:, 2]
    return moved[..., :2] / moved[..., 2:]


@lru_cache(maxsize=32)
def _fold_radius(camera: CameraModel) -> float:
    """Largest undistorted radius up to which the radial polynomial grows: beyond it, far points would fold back in."""
    k = np.zeros(8)
    k[: len(camera.distortion[:8])] = camera.distortion[:8]
    r = np.linspace(0, 10, 4001)
    r2 = r * r
    rd = r * (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
    falling = np.flatnonzero(np.diff(rd) <= 0)
    return float(r[falling[0]]) if falling.size else np.inf


@lru_cache(maxsize=32)
def _ray_table(camera: CameraModel, stride: int) -> NDArray[np.float32]:
    first = stride // 2
    u, v = np.meshgrid(np.arange(first, camera.width, stride), np.arange(first, camera.height, stride))
    rays = camera.unproject(np.stack([u, v], axis=-1)).astype(np.float32)
    rays.flags.writeable = False
    return rays
