"""How well images that overlap agree on where surfaces are, and what that says about errors of poses and depth.

Two images of the same surfaces should place them at the same spot. By how much they do not, and how that varies over
the image, tells errors of position, rotation and scale apart; how it grows with the time between the two tells drift
from jitter. What is measured refines the SensorModel that was assumed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sensor import SensorModel

_ROWS = 24
_COLUMNS = 32
"""Blocks of pixels that a view is averaged in."""
_MAX_DEPTH_M = 6.0
_LEAST_SAMPLES = 40
_SAME_FACING = 0.85  # cosine
_GATE_M, _GATE_SHARE = 0.15, 0.08  # surfaces further apart are not taken for the same
_INDEPENDENT = 25  # samples of an image: errors of neighbouring blocks are alike (lens, pattern, pixels that bleed)
_MIN_NOISE_M = 5e-4
_BENT = 0.01  # of the depth, at 45 degrees off the axis
_TAILS = 20.0  # degrees of freedom of Student's distribution: some images are plainly off, and not all of them for that
_SHORTEST_S = 0.125
_TIMES_S = (512.0, 128.0, 32.0, 8.0, 2.0)
"""How fast drift may forget: the slowest first, since drift goes on unless images say that it levels off."""
_PARTNERS = 4
_RANK = 7  # of a pair's columns: a motion and a scale
_PRIOR_DRIFT = 0.3  # drift that nothing is known of, as a share of the white error
_PRIOR = np.array([2.0, 2.0, 0.2, 3.0, 3.0])
"""Deviations of the logarithms of the variances: 1 is a factor of 1.6 in a deviation. The depth of a camera is known
better than its poses, and nothing of a drift."""
_LEAST_PAIRS = 6
_FLOOR_M, _FLOOR_RAD = 1e-3, 5e-4
_FLOOR_SCALE = 5e-4
"""Finer errors of poses and scales are not told apart from what averaging and interpolation do."""
_DOUBTED, _DOUBTED_M = 3.0, 0.04
"""Poses are doubted that are off by so many times what was assumed, and by so many metres at the usual depth."""
_FIT_STEPS = 12
_BETTER = 1.0  # in logarithm: what a faster drift must be likelier by


@dataclass(frozen=True)
class AgreementConfig:
    """Bounds of the comparison.

    every_s, every_m: a frame is compared when it comes that much later, or from that much further away, than the last
    one that was. max_views: views kept to compare with. max_pairs: comparisons kept.
    """

    every_s: float = 0.5
    every_m: float = 0.3
    max_views: int = 160
    max_pairs: int = 160

    def __post_init__(self) -> None:
        if min(self.every_s, self.every_m, self.max_views - 1, self.max_pairs - 1) <= 0:
            raise ValueError("every_s and every_m must be positive, max_views and max_pairs at least 2")


@dataclass(frozen=True, eq=False)
class _View:
    """What a frame shows, coarsely: points and unit normals [rows, columns, 3], camera frame, NaN where not smooth."""

    frame_id: int
    stamp_ns: int
    camera: CameraModel
    T_world_camera: Transform
    points: NDArray[np.float32]
    normals: NDArray[np.float32]

    @classmethod
    def of(cls, frame_id: int, frame: Frame) -> _View | None:
        """None for a frame that shows too little."""
        assert frame.depth is not None
        assert frame.camera is not None
        assert frame.T_world_camera is not None
        block = max(min(frame.camera.height // _ROWS, frame.camera.width // _COLUMNS), 1)
        rows, columns = frame.camera.height // block, frame.camera.width // block
        step = max(block // 8, 1)  # some pixels of a block are enough
        z = depth_to_metres(frame.depth[: rows * block : step, : columns * block : step])
        side = -(-block // step)
        z = z[: rows * side, : columns * side]
        if z.shape != (rows * side, columns * side):
            rows, columns = z.shape[0] // side, z.shape[1] // side
            z = z[: rows * side, : columns * side]
        blocks = z.reshape(rows, side, columns, side)
        count = np.isfinite(blocks).sum(axis=(1, 3))
        with np.errstate(invalid="ignore"):
            inverse = np.nansum(1 / blocks, axis=(1, 3)) / np.maximum(count, 1)  # planes are linear in inverse depth
            mean = np.where(count >= 0.9 * side * side, 1 / np.where(inverse > 0, inverse, np.nan), np.nan)
            mean[mean > _MAX_DEPTH_M] = np.nan
            middle = (side - 1) / 2 * step
            v, u = np.mgrid[0:rows, 0:columns] * float(block) + middle
            X = frame.camera.unproject(np.stack([u, v], axis=-1)) * mean[..., None]
            normals = np.full(X.shape, np.nan)
            normal = np.cross(X[1:-1, 2:] - X[1:-1, :-2], X[2:, 1:-1] - X[:-2, 1:-1])
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
            normal *= -np.sign(np.sum(normal * X[1:-1, 1:-1], axis=-1, keepdims=True))
            d = 1 / mean
            bend = np.maximum(
                np.abs(d[1:-1, 2:] + d[1:-1, :-2] - 2 * d[1:-1, 1:-1]), np.abs(d[2:, 1:-1] + d[:-2, 1:-1] - 2 * d[1:-1, 1:-1])
            )
            flat = bend * mean[1:-1, 1:-1] < 0.01
        normals[1:-1, 1:-1] = np.where(flat[..., None], normal, np.nan)
        if np.isfinite(normals[..., 0]).sum() < _LEAST_SAMPLES:
            return None
        return cls(
            frame_id, frame.stamp_ns, frame.camera, frame.T_world_camera, X.astype(np.float32), normals.astype(np.float32)
        )

    @property
    def block(self) -> int:
        return max(min(self.camera.height // _ROWS, self.camera.width // _COLUMNS), 1)


@dataclass(frozen=True, eq=False)
class _Pair:
    """What two views disagree by, in the directions in which errors of their poses and scales move surfaces.

    With residuals r along the normals and Z their derivatives (position of the one against the other, rotations of the
    first and the second, scales: 11 columns), in units of the residuals' own noise: g = Z'r, G = Z'Z. apart_s: seconds
    between the two. residual_m: the median distance between the surfaces. depth_m: their median depth.
    """

    ids: tuple[int, int]
    apart_s: float
    residual_m: float
    depth_m: float
    g: NDArray[np.float64]
    G: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What the overlapping images say.

    pairs: comparisons it rests on. residual_m: median distance between what two images make the same surface.
    depth_m: at that median depth. prior, sensor: the model before and after.
    """

    pairs: int
    residual_m: float
    depth_m: float
    prior: SensorModel
    sensor: SensorModel

    @property
    def displacement_m(self) -> tuple[float, float]:
        """How far two images place one point apart, one deviation a direction, by their poses: assumed and measured."""
        return _displacement(self.prior, self.depth_m), _displacement(self.sensor, self.depth_m)


class PoseAgreement:
    """Compares a small share of the frames with earlier ones that show the same surfaces. Safe for several threads.

    Bounded in views and comparisons. A frame costs one comparison at most, a few milliseconds, and mostly nothing. Moving
    things are left out as outliers, images that share no surface are not compared.
    """

    def __init__(self, config: AgreementConfig | None = None) -> None:
        self.config = config or AgreementConfig()
        self.version = 0
        """Changes with what was compared."""
        self._lock = threading.RLock()
        self._views: dict[int, _View] = {}
        self._last: dict[str, _View] = {}
        self._due: deque[tuple[_View, _View]] = deque()
        self._pairs: list[_Pair] = []
        self._fitted: tuple[int, SensorModel, Agreement] | None = None

    def add(self, frame_id: int, frame: Frame) -> None:
        """Look at a frame with depth, camera model and pose."""
        T = frame.T_world_camera
        if frame.depth is None or frame.camera is None or T is None:
            return
        with self._lock:
            last = self._last.get(frame.camera_frame)
            if last is not None and abs(frame.stamp_ns - last.stamp_ns) < self.config.every_s * 1e9:
                moved = float(np.linalg.norm(T[:3, 3] - last.T_world_camera[:3, 3]))
                if moved < self.config.every_m:
                    self._compare_one()
                    return
            view = _View.of(frame_id, frame)
            if view is None:
                return
            self._last[frame.camera_frame] = view
            while len(self._due) > _PARTNERS:  # frames that come slowly are all looked at
                self._compare_one()
            self._due.extend((view, other) for other in self._partners(view))
            self._views[frame_id] = view
            if len(self._views) > self.config.max_views:
                self._views = dict(list(self._views.items())[::2])

    def move(self, poses: Iterable[tuple[int, Transform]]) -> None:
        """Compare anew after poses were corrected (frame id, T_world_camera)."""
        with self._lock:
            moved = dict(poses)
            if not moved.keys() & self._views.keys():
                return
            for frame_id in moved.keys() & self._views.keys():
                self._views[frame_id] = replace(self._views[frame_id], T_world_camera=moved[frame_id])
            views = list(self._views.values())
            self._pairs.clear()
            self._due.clear()
            self._views = {}
            for view in views:
                self._due.extend((view, other) for other in self._partners(view))
                self._views[view.frame_id] = view
            self.version += 1

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._views.clear()
            self._last.clear()
            self._due.clear()
            self._pairs.clear()
            self._fitted = None
            self.version += 1

    def measured(self, prior: SensorModel) -> Agreement | None:
        """What the images say, with ``prior`` weighed against it; None before a few of them could be compared."""
        with self._lock:
            while self._due:
                self._compare_one()
            if len(self._pairs) < _LEAST_PAIRS:
                return None
            known = self._fitted
            if known is None or known[1] != prior or self.version > known[0] + max(known[2].pairs // 5, 2):
                self._fitted = known = (self.version, prior, _fit(self._pairs, prior))
            return known[2]

    def doubt(self) -> Doubt | None:
        """Poses that contradict each other by much more than was assumed of them."""
        with self._lock:
            found = self.measured(SensorModel() if self._fitted is None else self._fitted[1])
        if found is None:
            return None
        assumed, measured = found.displacement_m
        if measured < max(_DOUBTED * assumed, _DOUBTED_M):
            return None
        return Doubt(
            kind="poses_disagree",
            text=(
                f"images of the same surfaces place them {measured * 100:.0f} cm apart ({found.pairs} comparisons, at about "
                f"{found.depth_m:.1f} m; {assumed * 100:.1f} cm were assumed); stated deviations allow for it"
            ),
            remedy=(
                "give poses after loop closure or bundle adjustment, check that images and poses have one clock, and the "
                "transform from the robot to the camera"
            ),
            confidence=0.9,
        )

    def _compare_one(self) -> None:
        if not self._due:
            return
        pair = _compare(*self._due.popleft())
        if pair is None:
            return
        self._pairs.append(pair)
        self.version += 1
        if len(self._pairs) > self.config.max_pairs:
            # evenly over the times apart: pairs of long ago are rare and tell of drift
            order = sorted(range(len(self._pairs)), key=lambda i: self._pairs[i].apart_s)
            gone = set(order[1::4])
            self._pairs = [pair for i, pair in enumerate(self._pairs) if i not in gone]

    def _partners(self, view: _View) -> list[_View]:
        """Some views of the same place: of just before, of long ago, and of between."""
        near = []
        middle = np.nanmedian(view.points.reshape(-1, 3), axis=0)
        world = view.T_world_camera[:3, :3] @ middle + view.T_world_camera[:3, 3]
        for other in self._views.values():
            T = other.T_world_camera
            X = T[:3, :3].T @ (world - T[:3, 3])
            if X[2] > 0.2 and T[:3, 2] @ view.T_world_camera[:3, 2] > 0.5:
                u, v = other.camera.project(X)
                if -0.2 < u / other.camera.width < 1.2 and -0.2 < v / other.camera.height < 1.2:
                    near.append(other)
        near.sort(key=lambda other: abs(other.stamp_ns - view.stamp_ns))
        if len(near) <= _PARTNERS:
            return near
        return [near[i] for i in np.linspace(0, len(near) - 1, _PARTNERS).round().astype(int)]


def _compare(a: _View, b: _View) -> _Pair | None:
    """The disagreement of two views; None where they share too little."""
    Ta, Tb = a.T_world_camera, b.T_world_camera
    own = np.isfinite(a.normals[..., 0])
    world = a.points[own].astype(np.float64) @ Ta[:3, :3].T + Ta[:3, 3]
    facing = a.normals[own].astype(np.float64) @ Ta[:3, :3].T
    X = (world - Tb[:3, 3]) @ Tb[:3, :3]
    with np.errstate(invalid="ignore"):
        uv = b.camera.project(X)
        inside = (X[:, 2] > 0.1) & b.camera.contains(uv)
    cell = np.clip(np.round((uv[inside] - (b.block - 1) / 2) / b.block), -1, 1e4).astype(int)
    rows, columns = b.points.shape[:2]
    fits = (cell >= 0).all(axis=1) & (cell[:, 0] < columns) & (cell[:, 1] < rows)
    index, cell = np.flatnonzero(inside)[fits], cell[fits]
    normal = b.normals[cell[:, 1], cell[:, 0]].astype(np.float64) @ Tb[:3, :3].T
    place = b.points[cell[:, 1], cell[:, 0]].astype(np.float64) @ Tb[:3, :3].T + Tb[:3, 3]
    p, depth = world[index], X[index, 2]
    r = np.sum(normal * (p - place), axis=1)
    with np.errstate(invalid="ignore"):
        good = (np.sum(normal * facing[index], axis=1) > _SAME_FACING) & (np.abs(r) < _GATE_M + _GATE_SHARE * depth)
    if np.count_nonzero(good) < _LEAST_SAMPLES:
        return None
    r, n, p, depth = r[good], normal[good], p[good], depth[good]
    from_a, from_b = p - Ta[:3, 3], p - Tb[:3, 3]
    Z = np.column_stack(
        [n, np.cross(from_a, n), -np.cross(from_b, n), np.sum(n * from_a, axis=1), -np.sum(n * from_b, axis=1)]
    )
    # what a rigid motion does not explain is noise, and things that moved: begun with all, and with the bulk alone
    noise, left = min((_rest(Z[:, :6], r, start) for start in (None, r - np.median(r))), key=lambda found: found[0])
    kept = np.abs(left) < 3 * noise
    if np.count_nonzero(kept) < max(_LEAST_SAMPLES, 0.3 * len(r)):
        return None
    r, Z = r[kept], Z[kept]
    noise *= np.sqrt(max(len(r) / _INDEPENDENT, 1.0))
    # depth that is bent over the image, as lenses and patterns do it, is neither a motion nor a scale: it counts as noise
    views = ((from_a[kept], Ta[:3, :3]), (from_b[kept], Tb[:3, :3]))
    Q = np.column_stack([_bends(away @ R, n[kept] @ R) for away, R in views]) * (_BENT / noise)
    white = np.linalg.solve(np.eye(Q.shape[1]) + Q.T @ Q, Q.T @ np.column_stack([Z, r]))
    W = (np.column_stack([Z, r]) - Q @ white) / noise**2
    return _Pair(
        (a.frame_id, b.frame_id),
        abs(a.stamp_ns - b.stamp_ns) / 1e9,
        float(np.median(np.abs(r))),
        float(np.median(depth)),
        Z.T @ W[:, -1],
        Z.T @ W[:, :-1],
    )


def _rest(
    Z: NDArray[np.float64], r: NDArray[np.float64], left: NDArray[np.float64] | None
) -> tuple[float, NDArray[np.float64]]:
    """What a robust fit of residuals [n] by columns [n, 6] leaves, its deviation first. left: to weigh them by at first."""
    noise = 0.0
    for turn in range(7):
        if left is None:
            weight = np.ones(len(r))
        else:
            noise = max(1.4826 * float(np.median(np.abs(left))), _MIN_NOISE_M)
            weight = 1 / (1 + (left / (2 * noise)) ** (2 if turn < 3 else 4))  # Cauchy, then what is far off hardly counts
        root = np.sqrt(weight)
        left = r - Z @ np.linalg.lstsq(Z * root[:, None], r * root, rcond=1e-4)[0]
    assert left is not None
    return max(1.4826 * float(np.median(np.abs(left))), _MIN_NOISE_M), left


def _bends(X: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far surfaces move along their normals where depth is off by x^2, x y and y^2 times itself [n, 3]; camera frame."""
    x, y = X[:, 0] / X[:, 2], X[:, 1] / X[:, 2]
    along = np.sum(X * normals, axis=1)
    return np.column_stack([along * x * x, along * x * y, along * y * y])


def _fit(pairs: list[_Pair], prior: SensorModel) -> Agreement:
    """Variances under which the disagreements are likeliest, with a log-normal prior round the model's.

    Residuals are r = Z x + noise, x being independent of variances theta: V = Z D(theta) Z' + 1. Fisher scoring in the
    logarithms of theta (Harville 1977, for variance components), in the space of the 11 columns of Z.
    """
    g = np.array([pair.g for pair in pairs])
    G = np.array([pair.G for pair in pairs])
    apart_s = np.array([pair.apart_s for pair in pairs])
    start = np.array(
        [
            max(prior.pose_position_m, _FLOOR_M),
            max(prior.pose_rotation_rad, _FLOOR_RAD),
            max(prior.depth_correlated, 1e-4),
            prior.drift_position_m or _PRIOR_DRIFT * max(prior.pose_position_m, _FLOOR_M),
            prior.drift_rotation_rad or _PRIOR_DRIFT * max(prior.pose_rotation_rad, _FLOOR_RAD),
        ]
    )
    prior_log = 2 * np.log(start)
    # begin with as much drift as jitter, as much as was seen: a variance that begins at next to none hardly grows
    seen = np.median([pair.residual_m for pair in pairs])
    rotation = seen / np.median([pair.depth_m for pair in pairs])
    theta = np.maximum(prior_log, 2 * np.log([max(x, 1e-9) for x in (seen, rotation, start[2], seen, rotation)]))
    best: tuple[float, NDArray[np.float64], float] | None = None
    for time_s in _TIMES_S:
        theta, likelihood = _most_likely(g, G, np.exp(-apart_s / time_s), prior_log, theta)
        if best is None or likelihood > best[0] + _BETTER:
            best = (likelihood, theta, time_s)
    assert best is not None
    position, rotation, scale, drift_position, drift_rotation = np.exp(best[1] / 2).tolist()
    sensor = replace(
        prior,
        pose_position_m=_told(position, prior.pose_position_m, _FLOOR_M),
        pose_rotation_rad=_told(rotation, prior.pose_rotation_rad, _FLOOR_RAD),
        depth_correlated=_told(scale, prior.depth_correlated, _FLOOR_SCALE),
        drift_position_m=_told(drift_position, prior.drift_position_m, _FLOOR_M),
        drift_rotation_rad=_told(drift_rotation, prior.drift_rotation_rad, _FLOOR_RAD),
        drift_time_s=best[2],
    )
    return Agreement(
        pairs=len(pairs),
        residual_m=float(np.median([pair.residual_m for pair in pairs])),
        depth_m=float(np.median([pair.depth_m for pair in pairs])),
        prior=prior,
        sensor=sensor,
    )


def _told(measured: float, prior: float, floor: float) -> float:
    """A measured deviation; what was assumed where both are too small to be measured."""
    return prior if measured <= floor and prior <= floor else measured


def _most_likely(
    g: NDArray[np.float64],
    G: NDArray[np.float64],
    correlation: NDArray[np.float64],
    prior: NDArray[np.float64],
    theta: NDArray[np.float64],
) -> tuple[NDArray[np.float64], float]:
    """Logarithms of the variances (position, rotation, scale, drift of position, of rotation), and their likelihood.

    g, G: of the pairs, see _Pair. correlation: of drift between the two of each. prior, theta: where the logarithms are
    expected, and where to begin.
    """
    count = len(g)
    ridge = 1e-9 * np.einsum("nii->n", G)[:, None, None] * np.eye(11)
    whole = np.einsum("ni,ni->n", g, np.linalg.solve(G + ridge, g[..., None])[..., 0])
    parts = np.zeros((5, count, 11, 11))
    axis = np.arange(3)
    parts[0][:, axis, axis] = 2
    for first in (3, 6):
        parts[1][:, first + axis, first + axis] = 1
        parts[4][:, first + axis, first + axis] = 1
    parts[2][:, 9, 9] = parts[2][:, 10, 10] = 1
    parts[3][:, axis, axis] = 2 * (1 - correlation)[:, None]
    parts[4][:, 3 + axis, 6 + axis] = parts[4][:, 6 + axis, 3 + axis] = correlation[:, None]
    eye = np.eye(11)

    def terms(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        D = np.einsum("k,knij->nij", np.exp(theta), parts)
        M = eye + G @ D
        P = np.linalg.solve(M, G)
        y = np.linalg.solve(M, g[..., None])[..., 0]
        left = np.maximum(whole - np.einsum("ni,nij,nj->n", g, D, y), 0.0)
        value = -0.5 * float(np.sum(np.linalg.slogdet(M)[1]) + np.sum((_TAILS + _RANK) * np.log1p(left / _TAILS)))
        weight = (_TAILS + _RANK) / (_TAILS + left)
        PD = [np.exp(theta[k]) * (P @ parts[k]) for k in range(5)]
        traces = np.array([np.einsum("nii->", m) for m in PD])
        squares = np.array([np.exp(theta[k]) * np.einsum("n,ni,nij,nj->", weight, y, parts[k], y) for k in range(5)])
        fisher = 0.5 * np.array([[np.einsum("nij,nji->", a, b) for b in PD] for a in PD])
        off = (theta - prior) / _PRIOR**2
        return (
            value - 0.5 * float(np.sum(((theta - prior) / _PRIOR) ** 2)),
            0.5 * (squares - traces) - off,
            fisher + np.diag(1 / _PRIOR**2),
        )

    value, score, fisher = terms(theta)
    for _ in range(_FIT_STEPS):
        step = np.clip(np.linalg.solve(fisher, score), -2.0, 2.0)
        for _ in range(4):
            trial = terms(theta + step)
            if trial[0] >= value:
                break
            step = step / 3
        else:
            break
        theta = theta + step
        value, score, fisher = trial
        if np.abs(step).max() < 0.02:
            break
    return theta, value


def _displacement(sensor: SensorModel, depth_m: float) -> float:
    position = np.hypot(sensor.pose_position_m, sensor.drift_position_m)
    rotation = np.hypot(sensor.pose_rotation_rad, sensor.drift_rotation_rad)
    return float(np.sqrt(2) * np.hypot(position, rotation * depth_m))
