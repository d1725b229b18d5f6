"""Recordings whose poses are made worse on purpose, and the same places in two of their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.measure import PointMeasurement, measure_point
from spatial_mllm_ros.scene.pose import Transform, make_transform
from spatial_mllm_ros.sources.source import Source, SourceInfo

_FEATURES = 1500
_RATIO = 0.75  # of the best to the second best match (Lowe 2004)
_TRIALS = 300
_SAME_M, _SAME_SHARE = 0.015, 0.01  # of the depth: what a rigid motion may leave
_LEAST_MATCHES = 12


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Errors that are put on poses: of every image its own (white), and a slow drift.

    position_m, rotation_deg: one standard deviation along and about each axis. drift_position_m, drift_rotation_deg: of a
    first-order Gauss-Markov process that forgets with the time constant drift_time_s.
    """

    position_m: float = 0.0
    rotation_deg: float = 0.0
    drift_position_m: float = 0.0
    drift_rotation_deg: float = 0.0
    drift_time_s: float = 20.0
    seed: int = 0

    def __bool__(self) -> bool:
        return any((self.position_m, self.rotation_deg, self.drift_position_m, self.drift_rotation_deg))


class PerturbedSource:
    """A recording with a Perturbation on its poses; the same at every reading."""

    def __init__(self, source: Source, perturbation: Perturbation) -> None:
        self._source, self._by = source, perturbation
        self.info: SourceInfo = source.info
        self.refused: Counter[str] = source.refused
        self.doubts: list[Doubt] = source.doubts

    def stamp_of(self, name: str) -> int:
        return self._source.stamp_of(name)

    def frames(self) -> Iterator[Frame]:
        by = self._by
        rng = np.random.default_rng(by.seed)
        slow = rng.standard_normal(6)
        last: int | None = None
        for frame in self._source.frames():
            if last is not None:
                kept = float(np.exp(-abs(frame.stamp_ns - last) / 1e9 / by.drift_time_s))
                slow = kept * slow + np.sqrt(1 - kept**2) * rng.standard_normal(6)
            last = frame.stamp_ns
            shift = by.position_m * rng.standard_normal(3) + by.drift_position_m * slow[:3]
            turn = np.radians(by.rotation_deg * rng.standard_normal(3) + by.drift_rotation_deg * slow[3:])
            T = frame.T_world_camera
            if T is not None:
                T = make_transform(T[:3, :3] @ Rotation.from_rotvec(turn).as_matrix(), T[:3, 3] + shift)
            yield replace(frame, T_world_camera=T)


@dataclass(frozen=True)
class SamePoint:
    """One physical point in two images, found by its looks alone; how precisely the two pixels and depths agree is that of
    the features and of the depth camera, never that of the poses."""

    a: PointMeasurement
    b: PointMeasurement
    frames: tuple[Frame, Frame]


def same_points(frames: Sequence[Frame], count: int, seed: int = 0) -> list[SamePoint]:
    """About ``count`` points that two images of a recording show, the images any time apart.

    Matched by SIFT features with mutual best matches, and kept where one rigid motion between the two cameras explains the
    measured depths of many (RANSAC): what the recording says of its poses is not looked at.
    """
    rng = np.random.default_rng(seed)
    usable = [f for f in frames if f.depth is not None and f.camera is not None and f.T_world_camera is not None]
    if len(usable) < 2:
        return []
    features: dict[int, _Features] = {}
    found: list[SamePoint] = []
    apart = np.unique(np.geomspace(1, len(usable) - 1, 12).astype(int))
    for trial in range(count):
        if len(found) >= count:
            break
        step = int(apart[trial % len(apart)])
        i = int(rng.integers(0, len(usable) - step))
        pair = (usable[i], usable[i + step])
        for frame in pair:
            if frame.stamp_ns not in features:
                features[frame.stamp_ns] = _Features.of(frame)
        matches = _matches(*(features[frame.stamp_ns] for frame in pair))
        for k in rng.permutation(len(matches))[:6]:
            found.append(SamePoint(*matches[int(k)], pair))
    return found


@dataclass(frozen=True, eq=False)
class _Features:
    points: list[PointMeasurement]
    descriptors: NDArray[np.float32]

    @classmethod
    def of(cls, frame: Frame) -> _Features:
        image = frame.rgb()
        if image is None:
            return cls([], np.empty((0, 128), np.float32))
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        keypoints, descriptors = cv2.SIFT_create(nfeatures=_FEATURES).detectAndCompute(grey, None)  # type: ignore[attr-defined]
        points, kept = [], []
        sensor = SourceInfo("").sensor
        for k, keypoint in enumerate(keypoints):
            u, v = keypoint.pt
            assert frame.camera is not None
            if not frame.camera.contains((u, v)):
                continue
            point = measure_point(frame, frame.stamp_ns, u, v, sensor)
            if point is not None and not point.at_edge and not point.filled:
                points.append(point)
                kept.append(k)
        return cls(points, descriptors[kept] if kept else np.empty((0, 128), np.float32))


def _matches(a: _Features, b: _Features) -> list[tuple[PointMeasurement, PointMeasurement]]:
    if min(len(a.points), len(b.points)) < _LEAST_MATCHES:
        return []
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    ways = []
    for x, y in ((a, b), (b, a)):
        two = matcher.knnMatch(x.descriptors, y.descriptors, k=2)
        ways.append({m.queryIdx: m.trainIdx for m, n in two if m.distance < _RATIO * n.distance})
    pairs = [(i, j) for i, j in ways[0].items() if ways[1].get(j) == i]
    if len(pairs) < _LEAST_MATCHES:
        return []
    X = np.array([a.points[i].camera_point({}) for i, _ in pairs])
    Y = np.array([b.points[j].camera_point({}) for _, j in pairs])
    allowed = _SAME_M + _SAME_SHARE * Y[:, 2]
    rng = np.random.default_rng(0)
    best = np.zeros(len(X), dtype=bool)
    for _ in range(_TRIALS):
        some = rng.choice(len(X), 3, replace=False)
        T = rigid_motion(X[some], Y[some])
        same = np.linalg.norm(X @ T[:3, :3].T + T[:3, 3] - Y, axis=1) < allowed
        if same.sum() > best.sum():
            best = same
    if best.sum() < _LEAST_MATCHES:
        return []
    for _ in range(3):
        T = rigid_motion(X[best], Y[best])
        best = np.linalg.norm(X @ T[:3, :3].T + T[:3, 3] - Y, axis=1) < allowed
        if best.sum() < _LEAST_MATCHES:
            return []
    return [(a.points[pairs[k][0]], b.points[pairs[k][1]]) for k in np.flatnonzero(best)]


def rigid_motion(X: NDArray[np.float64], Y: NDArray[np.float64]) -> Transform:
    """The transform that maps points X [n, 3] to Y [n, 3] best (Arun, Huang and Blostein 1987)."""
    x, y = X.mean(axis=0), Y.mean(axis=0)
    U, _, Vt = np.linalg.svd((Y - y).T @ (X - x))
    R = U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
    return make_transform(R, y - R @ x)
