"""What is assumed about errors of depth, poses and calibration. Every stated deviation comes from here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class SensorModel:
    """Standard deviations of an RGB-D camera with poses.

    Depth at z metres has two parts. White noise, independent per pixel:
    ``depth_base_m + depth_quadratic_per_m (z - depth_offset_m)^2`` (Nguyen, Izadi and Lovell, "Modeling Kinect Sensor
    Noise for Improved 3D Reconstruction and Tracking", 3DIMPVT 2012, equation for the axial noise). And a part common to
    the pixels of one image, which averaging over pixels does not reduce: ``depth_correlated`` times z.

    Poses: ``pose_position_m`` on every axis of the position and ``pose_rotation_rad`` about every axis, independent
    between images. Beside that they drift, by ``drift_position_m`` and ``drift_rotation_rad`` in the long run: images that
    lie dt apart in time share it with the correlation exp(-dt / ``drift_time_s``), so that neighbours agree better than
    images of another round. ``pixel_px``: how precisely a pixel names a point (marking and calibration), on u and v.
    """

    depth_base_m: float = 0.0012
    depth_quadratic_per_m: float = 0.0019
    depth_offset_m: float = 0.4
    depth_correlated: float = 0.003
    pose_position_m: float = 0.003
    pose_rotation_rad: float = 0.002
    pixel_px: float = 0.3
    drift_position_m: float = 0.0
    drift_rotation_rad: float = 0.0
    drift_time_s: float = 30.0

    def depth_white_stddev(self, z: ArrayLike) -> NDArray[np.float64]:
        """White noise of depth, metres, at depths ``z`` (metres, any shape)."""
        d = np.asarray(z, dtype=np.float64)
        return self.depth_base_m + self.depth_quadratic_per_m * (d - self.depth_offset_m) ** 2

    def depth_stddev(self, z: ArrayLike) -> NDArray[np.float64]:
        """Total standard deviation of one depth pixel, metres, at depths ``z`` (metres, any shape)."""
        return np.hypot(self.depth_white_stddev(z), self.depth_correlated * np.asarray(z, dtype=np.float64))

    @classmethod
    def exact(cls) -> SensorModel:
        """Simulated geometry without noise: what is left is rounding to millimetres and pixels."""
        return cls(
            depth_base_m=3e-4,
            depth_quadratic_per_m=0.0,
            depth_offset_m=0.0,
            depth_correlated=0.0,
            pose_position_m=1e-6,
            pose_rotation_rad=1e-6,
            pixel_px=0.05,
        )
