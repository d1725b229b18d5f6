"""Whether poses and images are of the same moments: which other time of the poses makes surfaces fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.memory.track import PoseTrack
from spatial_mllm_ros.scene.pose import Transform, from_quaternion, rotation_angle
from spatial_mllm_ros.scene.surfaces import SurfaceView, apart_m

_COARSE_S = (-0.8, -0.5, -0.3, -0.15, 0.15, 0.3, 0.5, 0.8)
_FINE_S = (0.08, 0.04, 0.02, 0.01)
_MAX_GAP_NS = 1_000_000_000
_MOST, _FEWEST = 12, 8
_TELLING_M_S = 0.15
"""Pairs that a shift in time moves apart by less than this, m a second, tell nothing of it."""
_BETTER, _MIRRORED = 0.6, 1.0
"""Surfaces must be so much closer together at the offset, and not closer at the opposite one: jitter is smoothed either way."""
_SHARE_BETTER = 0.75
_LEAST_M, _LEAST_S = 0.012, 0.02


@dataclass(frozen=True, kw_only=True)
class PoseOffset:
    """How much later poses are stamped than images of the same moment, s; how far apart they place surfaces as they are,
    and so shifted, m."""

    offset_s: float
    apart_m: float
    then_m: float


Pairs = Sequence[tuple[SurfaceView, SurfaceView]]


def pose_offset(pairs: Pairs, tracks: Mapping[str, PoseTrack]) -> PoseOffset | None:
    """The offset in time under which surfaces of the pairs fit together plainly better; None where none does.

    tracks: poses by camera frame. Some pairs that tell the most are looked at, some twenty times each.
    """
    poses = {camera: track.arrays() for camera, track in tracks.items()}
    chosen = _telling(pairs, poses)
    if len(chosen) < _FEWEST:
        return None
    at: dict[float, NDArray[np.float64]] = {0.0: _apart(chosen, poses, 0.0)}
    if not _median(at[0.0]) >= _LEAST_M:
        return None
    for offset in _COARSE_S:
        at[offset] = _apart(chosen, poses, offset)
    for step in _FINE_S:
        best = _best(at)
        for offset in (round(best - step, 3), round(best + step, 3)):
            if offset not in at:
                at[offset] = _apart(chosen, poses, offset)
    best = _best(at)
    if abs(best) < _LEAST_S:
        return None
    both = np.isfinite(at[best]) & np.isfinite(at[0.0])
    now, then = _median(at[0.0][both]), _median(at[best][both])
    against = _median(at[-best] if -best in at else _apart(chosen, poses, -best))
    if then > _BETTER * now or against < _MIRRORED * now or np.mean(at[best][both] < at[0.0][both]) < _SHARE_BETTER:
        return None
    return PoseOffset(offset_s=best, apart_m=now, then_m=then)


_Poses = Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]


def _telling(pairs: Pairs, poses: _Poses, step_s: float = 0.1) -> list[tuple[SurfaceView, SurfaceView]]:
    """The pairs that a shift in time moves apart the most."""
    now, later = (_shifted(pairs, poses, offset) for offset in (0.0, step_s))
    telling = []
    for i, ((a, _), before, after) in enumerate(zip(pairs, now, later, strict=True)):
        if before is None or after is None:
            continue
        relative = [np.linalg.solve(x.T_world_camera, y.T_world_camera) for x, y in (before, after)]
        change = np.linalg.solve(*relative)
        moved = float(np.linalg.norm(change[:3, 3])) + float(np.nanmedian(a.points[..., 2])) * rotation_angle(change)
        telling.append((moved / step_s, i))
    return [pairs[i] for speed, i in sorted(telling, reverse=True)[:_MOST] if speed > _TELLING_M_S]


def _best(at: dict[float, NDArray[np.float64]]) -> float:
    """The offset at which surfaces lie closest; one that leaves few of the pairs comparable is none."""
    needed = max(_FEWEST, np.isfinite(at[0.0]).sum() / 2)
    known = [offset for offset, values in at.items() if np.isfinite(values).sum() >= needed]
    return min(known, key=lambda offset: _median(at[offset]), default=0.0)


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) >= _FEWEST else np.inf


def _apart(pairs: Pairs, poses: _Poses, offset_s: float) -> NDArray[np.float64]:
    """How far apart each pair places surfaces with the poses of another time, m; NaN where these are not known."""
    return np.array([np.nan if pair is None else apart_m(*pair) for pair in _shifted(pairs, poses, offset_s)])


def _shifted(pairs: Pairs, poses: _Poses, offset_s: float) -> list[tuple[SurfaceView, SurfaceView] | None]:
    """The pairs with the poses of another time, None where these are not known."""
    views = {id(view): view for pair in pairs for view in pair}
    moved: dict[int, SurfaceView] = {}
    for camera, (stamps, track) in poses.items():
        own = [view for view in views.values() if view.camera_frame == camera]
        asked = np.array([view.stamp_ns for view in own], dtype=np.int64) + round(offset_s * 1e9)
        for view, T in zip(own, _between(stamps, track, asked), strict=True):
            if T is not None:
                moved[id(view)] = replace(view, T_world_camera=T)
    return [(moved[id(a)], moved[id(b)]) if id(a) in moved and id(b) in moved else None for a, b in pairs]


def _between(stamps: NDArray[np.int64], track: NDArray[np.float64], asked: NDArray[np.int64]) -> list[Transform | None]:
    """Poses at stamps, interpolated between neighbours that are no further apart than may be bridged."""
    if len(stamps) < 2 or not len(asked):
        return [None] * len(asked)
    after = np.clip(np.searchsorted(stamps, asked), 1, len(stamps) - 1)
    span = stamps[after] - stamps[after - 1]
    share = (asked - stamps[after - 1])[:, None] / span[:, None]
    known = (span <= _MAX_GAP_NS) & (share[:, 0] >= 0) & (share[:, 0] <= 1)
    first, second = track[after - 1], track[after]
    sign = np.where(np.sum(first[:, 3:] * second[:, 3:], axis=1) < 0, -1.0, 1.0)[:, None]
    between = first * (1 - share) + np.hstack([second[:, :3], second[:, 3:] * sign]) * share
    return [from_quaternion(pose[3:], pose[:3]) if there else None for pose, there in zip(between, known, strict=True)]
