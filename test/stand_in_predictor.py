"""A geometry predictor that knows the truth and spoils it as a network would."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.pose import make_transform
from spatial_mllm_ros.scene.sim3 import Sim3
from spatial_mllm_ros.scene.window import WindowGeometry


class StandInPredictor:
    """True depth and poses of known frames, every window in a frame and unit of its own, with noise and outliers.

    It recognises an image by its pixels, so it is handed color alone, as a network is. every: of the depth's pixels that
    it predicts (an odd number, so that they are pixels of the image). white, common: relative errors of depth, of a pixel
    and of a whole image. focal: factor on the focal lengths that it takes the camera to
    have. outliers: share of pixels that are wrong altogether. position_m, rotation_rad: errors of poses.
    spoil: number of the call to whether the whole window is nonsense.
    """

    name = "stand-in"

    def __init__(
        self,
        frames: Iterable[Frame],
        seed: int = 0,
        every: int = 5,
        white: float = 0.01,
        common: float = 0.005,
        outliers: float = 0.05,
        position_m: float = 0.002,
        rotation_rad: float = 0.001,
        focal: float = 1.0,
        spoil: Callable[[int], bool] = lambda call: False,
    ) -> None:
        self._known = {}
        for frame in frames:
            image = frame.rgb()
            assert image is not None
            self._known[fingerprint(image)] = frame
        self._random = np.random.default_rng(seed)
        self._every = every
        self._white, self._common, self._outliers = white, common, outliers
        self._position_m, self._rotation_rad = position_m, rotation_rad
        self._focal = focal
        self._spoil = spoil
        self.calls = 0
        self.windows: list[int] = []
        """How many images each call had."""

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        random, n = self._random, len(images)
        frames = [self._known[fingerprint(image)] for image in images]
        spoiled = self._spoil(self.calls)
        self.calls += 1
        self.windows.append(n)
        window = Sim3(
            float(np.exp(random.uniform(-1.5, 1.5))),
            Rotation.random(random_state=random).as_matrix(),
            random.normal(0, 3, 3),
        )
        first = self._every // 2
        poses, depths, intrinsics, confidences = [], [], [], []
        for frame in frames:
            assert frame.T_world_camera is not None
            assert frame.depth is not None
            assert frame.camera is not None
            slip = make_transform(
                Rotation.from_rotvec(random.normal(0, self._rotation_rad, 3)).as_matrix(),
                random.normal(0, self._position_m, 3),
            )
            poses.append(window.pose(frame.T_world_camera @ slip))
            z = depth_to_metres(frame.depth[first :: self._every, first :: self._every])
            z = z * window.scale * (1 + self._common * random.normal())
            z *= 1 + self._white * random.standard_normal(z.shape, dtype=np.float32)
            wrong = np.nonzero(random.random(z.shape, dtype=np.float32) < self._outliers)
            confidence = np.where(np.isfinite(z), np.float32(1) + 20 * np.float32(window.scale) / z, np.float32(0))
            z[wrong] *= np.exp(random.uniform(-1, 1, len(wrong[0])))
            confidence[wrong] *= random.uniform(0.05, 0.6, len(wrong[0]))  # it half knows
            depths.append(z)
            confidences.append(confidence)
            K = frame.camera.K
            K[:2] *= self._focal / self._every
            K[:2, 2] = ((frame.camera.cx, frame.camera.cy) - np.full(2, first)) / self._every
            intrinsics.append(K)
        depth = np.stack(depths).astype(np.float32)
        T = np.stack(poses)
        if spoiled:
            depth = random.uniform(0.2, 5, depth.shape).astype(np.float32)
            T[:, :3, :3] = Rotation.random(n, random_state=random).as_matrix()
            T[:, :3, 3] = random.normal(0, 3, (n, 3))
        return WindowGeometry(T, np.stack(intrinsics), depth, np.stack(confidences).astype(np.float32))


def fingerprint(image: NDArray[np.uint8]) -> bytes:
    """What tells an image from others."""
    return image[::37, ::41].tobytes()
