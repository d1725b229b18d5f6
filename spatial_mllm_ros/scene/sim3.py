"""Similarity transforms (rotation, translation and one scale), and the robust fit of one to points and orientations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.scene.pose import Transform

TRIALS = 256
_MEDIAN_OF_3D = 1.538  # median length of a Gaussian vector in space, in deviations of an axis
_CUT_OFF = 6.0  # deviations beyond which a point has no weight (Tukey's biweight)
_INLIER = 4.0  # deviations
_UNDETERMINED_RAD = 0.35
_SAME_SPOT = 1e-9
_BALANCE = 1e-5  # points without noise must not drown orientations in rounding errors


class NotAligned(ValueError):
    """Two sets of points that no similarity maps onto each other. ``reason`` is a short word for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Sim3:
    """``x_a = scale * rotation @ x_b + translation``: from a frame b in its own unit to a frame a in another."""

    scale: float
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    @classmethod
    def identity(cls) -> Sim3:
        return cls(1.0, np.eye(3), np.zeros(3))

    def apply(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points [..., 3] of b in a."""
        return self.scale * np.asarray(points, dtype=np.float64) @ self.rotation.T + self.translation

    def pose(self, T_b_camera: Transform) -> Transform:
        """Camera poses [..., 4, 4] in b as poses in a: the centre moves, the orientation turns, and stays rigid."""
        T = np.array(T_b_camera, dtype=np.float64)
        T[..., :3, 3] = self.apply(T[..., :3, 3])
        T[..., :3, :3] = self.rotation @ T[..., :3, :3]
        return T

    def inverse(self) -> Sim3:
        back = self.rotation.T
        return Sim3(1.0 / self.scale, back, -(back @ self.translation) / self.scale)

    def part(self, share: float, about: NDArray[np.float64]) -> Sim3:
        """This share (0: nothing, 1: all) of the way there, on which ``about`` [3] goes straight."""
        turn = Rotation.from_matrix(self.rotation).as_rotvec()
        scale, R = self.scale**share, Rotation.from_rotvec(share * turn).as_matrix()
        return Sim3(scale, R, about + share * (self.apply(about) - about) - scale * R @ about)

    def __matmul__(self, other: Sim3) -> Sim3:
        """First ``other``, then this one."""
        return Sim3(self.scale * other.scale, self.rotation @ other.rotation, self.apply(other.translation))


@dataclass(frozen=True, eq=False)
class Alignment:
    """A fitted similarity, source to target, and how far to trust it.

    covariance: [7, 7] of log scale, rotation [3] about the target's axes through ``centroid`` (radians), and the
        centroid's translation [3] (target unit).
    residual: deviation per axis of the inliers (target unit). inliers: [n]. rotation_residual: root mean square angle
        between orientations after alignment (radians), NaN where none were given.
    """

    sim3: Sim3
    covariance: NDArray[np.float64]
    centroid: NDArray[np.float64]
    residual: float
    rotation_residual: float
    inliers: NDArray[np.bool_]

    @property
    def scale_stddev(self) -> float:
        """Standard deviation of the scale relative to the scale."""
        return float(np.sqrt(self.covariance[0, 0]))


ErrorsIn = Literal["target", "source", "both"]


def align(
    source: ArrayLike,
    target: ArrayLike,
    weights: ArrayLike | None = None,
    source_rotations: ArrayLike | None = None,
    target_rotations: ArrayLike | None = None,
    *,
    rotation_stddev: float = 0.01,
    noise_floor: float = 0.0,
    groups: ArrayLike | None = None,
    errors_in: ErrorsIn = "both",
    seed: int = 0,
) -> Alignment:
    """The similarity that maps ``source`` points [n, 3] to ``target`` points [n, 3], whatever some of them say.

    The best of many minimal samples by least median of squares (Rousseeuw, JASA 79, 1984), then weighted closed-form
    fits (Umeyama, PAMI 13(4), 1991) with Tukey's biweight on the residuals.

    weights: [n], proportional to one over a point's variance. source_rotations, target_rotations: [m, 3, 3], the same
    orientations (such as of cameras) in both frames: they settle the rotation about a line when the points lie on one.
    rotation_stddev: how well they agree at best, radians. noise_floor: how well points agree at best, target unit per axis.
    groups: [n], points that share errors (those of one image); the deviation of the scale then follows from the
    scatter between groups where that is larger. errors_in: which points are noisy; Umeyama's scale is for a noisy
    target and comes out too small for a noisy source.

    Raises NotAligned: ``too_few``, ``no_spread`` (all in one spot), ``collinear`` (on a line, and no orientations),
    ``no_agreement`` (no similarity fits half of the points).
    """
    p, q = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    usable = np.isfinite(p).all(axis=1) & np.isfinite(q).all(axis=1) & np.isfinite(w) & (w > 0)
    turns = _turns(source_rotations, target_rotations)
    needed = 3 if turns is None else 2
    if np.count_nonzero(usable) < needed:
        raise NotAligned(
            "too_few", f"{np.count_nonzero(usable)} points are too few for an alignment, {needed} are needed"
        )
    p, q, w = p[usable], q[usable], w[usable] / w[usable].mean()
    p_size, q_size = _spread(p), _spread(q)
    if p_size <= _SAME_SPOT * (1 + float(np.abs(p).max())) or q_size <= _SAME_SPOT * (1 + float(np.abs(q).max())):
        raise NotAligned("no_spread", "the points all lie in one spot, which fixes no scale")
    if turns is None and _second_extent(p) < 1e-6 * p_size:
        raise NotAligned("collinear", "the points lie on a line, and no orientations tell the rotation about it")
    floor = max(noise_floor, 1e-12 * q_size)
    fit = _best_sample(p, q, turns, np.random.default_rng(seed))
    lengths = np.linalg.norm(q - fit.apply(p), axis=1) * np.sqrt(w)
    sigma = max(float(np.median(lengths)) / _MEDIAN_OF_3D * (1 + 5 / max(len(p) - needed, 1)), floor)
    turned = None if turns is None else _robust_sum(turns, rotation_stddev)
    for _ in range(20):
        trust = np.clip(1 - (lengths / (_CUT_OFF * sigma)) ** 2, 0, None) ** 2
        if np.count_nonzero(trust) < needed:
            raise NotAligned("no_agreement", "no similarity fits the points")
        before = fit
        fit = _closed_form(p, q, w * trust, turned, sigma, errors_in)
        lengths = np.linalg.norm(q - fit.apply(p), axis=1) * np.sqrt(w)
        kept = lengths < _CUT_OFF * sigma
        sigma = max(float(np.median(lengths[kept])) / _MEDIAN_OF_3D if kept.any() else sigma, floor)
        sigma *= 1 + 2.5 / max(len(p) - needed, 1)
        if abs(np.log(fit.scale / before.scale)) < 1e-12 and np.abs(fit.rotation - before.rotation).max() < 1e-12:
            break
    inliers = lengths < _INLIER * sigma
    return _judged(
        fit, p, q, w, usable, inliers, turns, floor, rotation_stddev, None if groups is None else np.asarray(groups)
    )


def umeyama(source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None) -> Sim3:
    """The weighted least-squares similarity, closed form, of points [n, 3] (Umeyama 1991, equations 40 to 43).

    Not robust: one wrong point spoils it. Raises NotAligned when the source points all lie in one spot.
    """
    p, q = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    return _closed_form(p, q, w, None, 1.0, "target")


def _closed_form(
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    w: NDArray[np.float64],
    turned: NDArray[np.float64] | None,
    sigma: float,
    errors_in: ErrorsIn,
) -> Sim3:
    """Least squares with weights w. turned: what orientations add (see ``_robust_sum``).

    They are like further columns of the covariance: |R A - B|^2 is linear in R just as |q - s R p|^2 is.
    """
    total = w.sum()
    p_mean, q_mean = w @ p / total, w @ q / total
    P, Q = p - p_mean, q - q_mean
    H = (Q * w[:, None]).T @ P
    spp, sqq = float(w @ (P * P).sum(axis=1)), float(w @ (Q * Q).sum(axis=1))
    if spp <= 0:
        raise NotAligned("no_spread", "the points all lie in one spot, which fixes no scale")
    scale = np.sqrt(sqq / spp)
    R = np.eye(3)
    for _ in range(1 if turned is None else 4):
        M = H * (scale / sigma**2)
        if turned is not None:
            M = H * (scale / max(sigma, _BALANCE * np.sqrt(sqq / total)) ** 2) + turned
        R = _nearest_rotation(M)
        spq = float(np.sum(R * H))
        if spq <= 0:
            raise NotAligned("no_agreement", "the points move against their orientations")
        scale = {"target": spq / spp, "source": sqq / spq, "both": np.sqrt(sqq / spp)}[errors_in]
    return Sim3(float(scale), R, q_mean - scale * R @ p_mean)


def _best_sample(
    p: NDArray[np.float64], q: NDArray[np.float64], turns: NDArray[np.float64] | None, random: np.random.Generator
) -> Sim3:
    """The similarity of a minimal sample (three points, or two and an orientation) that has the least median residual."""
    n = len(p)
    size = 3 if turns is None else 2
    picks = (
        np.argsort(random.random((TRIALS, n)), axis=1)[:, :size] if n <= 64 else random.integers(0, n, (TRIALS, size))
    )
    P, Q = p[picks], q[picks]
    p_mean, q_mean = P.mean(axis=1, keepdims=True), Q.mean(axis=1, keepdims=True)
    spp = ((P - p_mean) ** 2).sum(axis=(1, 2))
    sqq = ((Q - q_mean) ** 2).sum(axis=(1, 2))
    good = (spp > 0) & (sqq > 0)
    if turns is None:
        R = _nearest_rotation(np.einsum("kni,knj->kij", Q - q_mean, P - p_mean))
    else:
        R = turns[random.integers(0, len(turns), TRIALS)]
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.sqrt(sqq / spp)
    t = q_mean[:, 0] - s[:, None] * np.einsum("kij,kj->ki", R, p_mean[:, 0])
    moved = np.einsum("kij,nj->kni", R * s[:, None, None], p) + t[:, None]
    with np.errstate(invalid="ignore"):
        off = np.median(((moved - q) ** 2).sum(axis=2), axis=1)
    off[~good] = np.inf
    best = int(np.argmin(off))
    if not np.isfinite(off[best]):
        raise NotAligned("no_spread", "the points all lie in one spot, which fixes no scale")
    return Sim3(float(s[best]), R[best], t[best])


def _judged(
    fit: Sim3,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    w: NDArray[np.float64],
    usable: NDArray[np.bool_],
    inliers: NDArray[np.bool_],
    turns: NDArray[np.float64] | None,
    floor: float,
    rotation_stddev: float,
    groups: NDArray[np.generic] | None,
) -> Alignment:
    """The fit with its covariance, from its residuals and from how the points lie."""
    if np.count_nonzero(inliers) * 2 < len(p):
        raise NotAligned("no_agreement", f"only {np.count_nonzero(inliers)} of {len(p)} points agree on an alignment")
    p, q, w = p[inliers], q[inliers], w[inliers] / w[inliers].mean()
    r = q - fit.apply(p)
    freedom = max(3 * len(p) - (7 if turns is None else 4), 1)
    sigma = max(float(np.sqrt(w @ (r * r).sum(axis=1) / freedom)), floor)
    arm = fit.scale * (p - w @ p / w.sum()) @ fit.rotation.T
    spread = float(w @ (arm * arm).sum(axis=1))
    if spread <= 0:
        raise NotAligned("no_spread", "the points that agree all lie in one spot, which fixes no scale")
    inertia = spread * np.eye(3) - (arm * w[:, None]).T @ arm
    turned, about = np.nan, np.zeros((3, 3))
    if turns is not None:
        angles = Rotation.from_matrix(turns @ fit.rotation.T).magnitude()
        turned = float(np.sqrt(np.mean(angles**2)))
        deviation = max(1.4826 * float(np.median(angles)) / np.sqrt(2), rotation_stddev)
        about = np.eye(3) * len(turns) / deviation**2
    least = float(np.linalg.eigvalsh(inertia / sigma**2 + about)[0])
    if turns is None and least * _UNDETERMINED_RAD**2 < 1:
        raise NotAligned("collinear", "the points lie nearly on a line, and no orientations tell the rotation about it")
    covariance = np.zeros((7, 7))
    covariance[0, 0] = sigma**2 / spread
    covariance[1:4, 1:4] = np.linalg.pinv(inertia / sigma**2 + about)
    covariance[4:, 4:] = np.eye(3) * sigma**2 / w.sum()
    if groups is not None:
        group = groups[usable][inliers]
        pull = w * np.sum(arm * r, axis=1)
        sums = np.array([pull[group == g].sum() for g in np.unique(group)])
        if len(sums) > 1:
            between = len(sums) / (len(sums) - 1) * float(sums @ sums) / spread**2
            covariance *= max(between / covariance[0, 0], 1.0)
    all_inliers = np.zeros(len(usable), dtype=bool)
    all_inliers[np.flatnonzero(usable)[inliers]] = True
    return Alignment(fit, covariance, w @ q / w.sum(), sigma, turned, all_inliers)


def _turns(source: ArrayLike | None, target: ArrayLike | None) -> NDArray[np.float64] | None:
    """Rotations source to target [m, 3, 3] that each pair of orientations stands for."""
    if source is None or target is None:
        return None
    A, B = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    good = np.isfinite(A).all(axis=(1, 2)) & np.isfinite(B).all(axis=(1, 2))
    return B[good] @ A[good].transpose(0, 2, 1) if good.any() else None


def _robust_sum(turns: NDArray[np.float64], stddev: float) -> NDArray[np.float64]:
    """Sum of rotations over twice their variance, without those far from the middle one (|R A - B|^2 = 2 angle^2)."""
    flat = turns.reshape(len(turns), 9)
    alike = flat @ flat.T  # 1 + 2 cos of the angle between two
    middle = flat[int(np.argmax(np.median(alike, axis=1)))]
    off = Rotation.from_matrix(turns @ middle.reshape(3, 3).T).magnitude()
    sigma = max(1.4826 * float(np.median(off)) / np.sqrt(2), stddev)
    trust = np.clip(1 - (off / (_CUT_OFF * sigma)) ** 2, 0, None) ** 2
    return np.asarray(np.einsum("k,kij->ij", trust, turns) / (2 * sigma**2))


def _nearest_rotation(M: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotations [..., 3, 3] that maximise the trace of R^T M."""
    U, _, Vt = np.linalg.svd(M)
    U[..., :, 2] *= np.sign(np.linalg.det(U @ Vt))[..., None]
    return np.asarray(U @ Vt)


def _spread(points: NDArray[np.float64]) -> float:
    """Root mean square distance from the mean."""
    return float(np.sqrt(np.mean(np.sum((points - points.mean(axis=0)) ** 2, axis=1))))


def _second_extent(points: NDArray[np.float64]) -> float:
    """Root mean square extent along the second longest direction."""
    centred = points - points.mean(axis=0)
    return float(np.linalg.svd(centred, compute_uv=False)[1] / np.sqrt(len(points)))
