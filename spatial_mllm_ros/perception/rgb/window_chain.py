"""Overlapping windows of predicted geometry, chained into one frame by the images they share."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sim3 import NotAligned, Sim3, align
from spatial_mllm_ros.scene.window import WindowGeometry

NOMINAL_DEPTH = 2.0
"""Median depth of a chain's first window, in the chain's unit: about what it is in a room in metres, so that thresholds
in metres are of the right order as long as no scale is known."""

_POOLED = 0.75
_FEW_IMAGES = 1.25  # a deviation from the scatter of three images is too small by about this much


@dataclass(frozen=True)
class ChainConfig:
    """When two windows count as aligned.

    pixels: compared for every shared image. min_confidence_percentile: less sure pixels do not count. max_residual:
    deviation of the shared points relative to their depth. max_turn_rad: how differently the two may orient a shared
    camera. max_scale_stddev: relative deviation of the link's scale. drift: relative deviation of the scale that every
    link adds at least. max_windows: windows kept of a submap; beyond, the oldest goes.
    """

    pixels: int = 300
    min_confidence_percentile: float = 20.0
    max_residual: float = 0.08
    max_turn_rad: float = 0.17
    max_scale_stddev: float = 0.08
    drift: float = 0.002
    max_windows: int = 400

    def __post_init__(self) -> None:
        limits = (self.max_residual, self.max_turn_rad, self.max_scale_stddev)
        if (
            self.pixels < 10
            or not 0 <= self.min_confidence_percentile < 100
            or min(limits) <= 0
            or self.max_windows < 2
        ):
            raise ValueError(
                "ChainConfig: pixels >= 10, a percentile below 100, positive limits and two windows are needed"
            )


@dataclass(frozen=True, eq=False)
class Link:
    """How a window lies in the one that it is linked to, which came before it.

    sim3: points of this window to points of that one. log_scale_stddev: deviation of the logarithm of its
    scale. centroid: middle [3] of the shared points in this window. residual: relative to depth. inliers: share of the
    shared points. image_scatter: deviation of the logarithm of the depth ratio between shared images, NaN for one.
    pixel_scatter: of the same between the pixels of an image.
    """

    sim3: Sim3
    log_scale_stddev: float
    centroid: NDArray[np.float64]
    residual: float
    inliers: float
    image_scatter: float
    pixel_scatter: float


@dataclass(frozen=True, eq=False)
class ChainedWindow:
    """A window of the chain: its images by key, their poses [T, 4, 4] in the window, and its link; the first has none.

    before: number of the window that it is linked to, counted like ``WindowChain.first_index``; nearly always the one
    before it.
    """

    keys: tuple[Hashable, ...]
    T_window_camera: NDArray[np.float64]
    link: Link | None
    before: int = -1

    def pose(self, key: Hashable) -> Transform:
        return np.asarray(self.T_window_camera[self.keys.index(key)])


@dataclass(eq=False)
class WindowChain:
    """A submap of windows, each linked to one before it.

    The scale of a chain drifts: every link's scale has an error, and errors multiply. ``log_scales`` are the scales of
    the windows as the links alone say; ``place`` takes better ones, where metres tell.
    """

    config: ChainConfig = field(default_factory=ChainConfig)
    windows: list[ChainedWindow] = field(default_factory=list)
    first_index: int = 0
    """Number of the oldest window held, counted from the submap's beginning."""

    def __post_init__(self) -> None:
        self._last: tuple[WindowGeometry, tuple[Hashable, ...]] | None = None
        self._unit = 1.0

    def __len__(self) -> int:
        return len(self.windows)

    def add(self, geometry: WindowGeometry, keys: Sequence[Hashable]) -> ChainedWindow:
        """Link a window, whose images have these keys, to the last one. Raises NotAligned, and the chain is as before.

        Reasons: ``no_shared_image``, ``shared_depth`` (no valid depth in common), ``residual``, ``turn``, ``scale`` and
        those of ``align``.
        """
        if len(keys) != len(geometry) or len(set(keys)) != len(keys):
            raise ValueError(f"{len(geometry)} images need as many different keys, not {len(keys)}")
        link = None
        if self._last is None:
            self._unit = NOMINAL_DEPTH / float(np.median(geometry.depth[geometry.valid]))
        else:
            link = link_windows(*self._last, geometry, keys, self.config)
        before = self.first_index + len(self.windows) - 1
        window = ChainedWindow(tuple(keys), np.array(geometry.T_window_camera, dtype=np.float64), link, before)
        self.windows.append(window)
        self._last = (geometry, tuple(keys))
        self._forget_oldest()
        return window

    @property
    def last(self) -> tuple[WindowGeometry, tuple[Hashable, ...]]:
        """Geometry of the newest window, and the keys of its images."""
        assert self._last is not None
        return self._last

    def join(self, other: WindowChain, link: Link, before: int) -> None:
        """Go on with the windows of another chain, whose first lies in the window of number ``before`` as ``link`` says."""
        if not 0 <= before - self.first_index < len(self.windows):
            raise ValueError(f"window {before} is not held")
        shift = self.first_index + len(self.windows) - other.first_index
        for n, window in enumerate(other.windows):
            to = (link, before) if n == 0 else (window.link, window.before + shift)
            self.windows.append(replace(window, link=to[0], before=to[1]))
        self._last = other._last
        self._forget_oldest()

    def close_loop(self, link: Link, window: int, before: int) -> None:
        """Bend the chain so that ``window`` lies in the earlier window ``before`` as this link says, which is no part of it.

        The difference is spread over the links in between by their variance, and only as much of it as the variances of
        chain and link allow (one step of a Kalman filter, with the variance of the scale for all of the similarity).
        """
        places, parents, variances = self.place(), [-1, *self.before().tolist()], [0.0, *(self.link_logs()[1] ** 2)]
        k, j = window - self.first_index, before - self.first_index
        if not 0 <= j < k < len(self.windows):
            raise ValueError(f"windows {before} and {window} are not held in this order")
        ancestors = set(_path(parents, j))
        path = {m for m in _path(parents, k) if m not in ancestors}
        total = sum(variances[m] for m in path)
        gain = total / (total + link.log_scale_stddev**2)
        off = places[j] @ link.sim3 @ places[k].inverse()
        about = places[k].apply(link.centroid)
        share = np.zeros(len(places))
        for m in range(1, len(places)):
            share[m] = share[parents[m]] + (gain * variances[m] / total if m in path else 0.0)
        moved = [off.part(float(f), about) @ place for f, place in zip(share, places, strict=True)]
        for m in range(1, len(places)):
            old = self.windows[m].link
            if old is not None and share[m] > share[parents[m]]:
                bent = replace(old, sim3=moved[parents[m]].inverse() @ moved[m])
                self.windows[m] = replace(self.windows[m], link=bent)

    def _forget_oldest(self) -> None:
        while len(self.windows) > self.config.max_windows:
            heir = self.windows[1].link  # which is linked to the oldest: there is no other before it
            assert heir is not None
            self._unit *= heir.sim3.scale
            del self.windows[0]
            self.first_index += 1
            for n, window in enumerate(self.windows[1:], 1):
                if window.link is not None and window.before < self.first_index:
                    through = replace(
                        window.link,
                        sim3=heir.sim3.inverse() @ window.link.sim3,
                        log_scale_stddev=float(np.hypot(heir.log_scale_stddev, window.link.log_scale_stddev)),
                    )
                    self.windows[n] = replace(window, link=through, before=self.first_index)

    def log_scales(self) -> NDArray[np.float64]:
        """Logarithm [K] of the chain's unit per window unit, as the links alone say."""
        x = np.full(len(self.windows), np.log(self._unit))
        for k, (step, before) in enumerate(zip(self.link_logs()[0], self.before(), strict=True), 1):
            x[k] = x[before] + step
        return x

    def before(self) -> NDArray[np.int64]:
        """Place [K - 1] in ``windows`` of the window that each but the first is linked to."""
        return np.array([w.before - self.first_index for w in self.windows[1:]], dtype=np.int64)

    def link_logs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logarithm [K - 1] of every link's scale, and its deviation [K - 1].

        A link knows its own deviation from a few images only, so it is drawn towards that of all links.
        """
        links = [w.link for w in self.windows[1:] if w.link is not None]
        variances = np.array([x.log_scale_stddev**2 for x in links])
        if len(links) > 1:
            variances = (1 - _POOLED) * variances + _POOLED * variances.mean()
        return np.array([np.log(x.sim3.scale) for x in links]), _FEW_IMAGES * np.sqrt(variances)

    def depth_errors(self) -> tuple[float, float]:
        """Relative errors of predicted depth, of a whole image and of a pixel, from how windows differ; NaN if unknown.

        What a predictor gets wrong in the same way every time does not show.
        """
        links = [w.link for w in self.windows if w.link is not None]
        image = [x.image_scatter**2 / 2 for x in links if np.isfinite(x.image_scatter)]  # of two independent ones
        pixel = [x.pixel_scatter**2 / 2 for x in links]
        return float(np.sqrt(np.mean(image))) if image else np.nan, float(
            np.sqrt(np.median(pixel))
        ) if pixel else np.nan

    def place(self, log_scales: NDArray[np.float64] | None = None, base: Sim3 | None = None) -> list[Sim3]:
        """Where every window lies: window points to chain points, in the unit that ``log_scales`` [K] give.

        Windows meet in the middle of what they share, so that a corrected scale does not tear them apart. base: where
        the first window lies (its rotation and translation count), else the chain's frame is that of the first window.
        """
        x = self.log_scales() if log_scales is None else log_scales
        rotation, translation = (np.eye(3), np.zeros(3)) if base is None else (base.rotation, base.translation)
        placed = [Sim3(float(np.exp(x[0])), rotation, translation)]
        for window, log_scale in zip(self.windows[1:], x[1:], strict=True):
            assert window.link is not None
            before, scale = placed[window.before - self.first_index], float(np.exp(log_scale))
            R = before.rotation @ window.link.sim3.rotation
            meet = before.apply(window.link.sim3.apply(window.link.centroid))
            placed.append(Sim3(scale, R, meet - scale * R @ window.link.centroid))
        return placed


def link_windows(
    last: WindowGeometry,
    last_keys: Sequence[Hashable],
    geometry: WindowGeometry,
    keys: Sequence[Hashable],
    config: ChainConfig,
) -> Link:
    """The similarity from a window to the last one, from the images they share. Raises NotAligned.

    The same pixel of the same image is the same point in both, whose resolutions may differ; every shared camera's centre
    and orientation count too.
    """
    shared = [(list(last_keys).index(key), i) for i, key in enumerate(keys) if key in last_keys]
    if not shared:
        raise NotAligned("no_shared_image", "the window shares no image with the one before it")
    source, target, weight, group = [], [], [], []
    middles, spreads = [], []
    for number, (a, b) in enumerate(shared):
        here, there = _same_pixels(geometry, b, last, config.pixels)
        p, z_p, c_p = geometry.points(b, *here)
        q, z_q, c_q = last.points(a, *there)
        sure = np.isfinite(z_p) & np.isfinite(z_q)
        if np.count_nonzero(sure) >= 10:
            enough = [np.percentile(c[sure], config.min_confidence_percentile) for c in (c_p, c_q)]
            sure &= (c_p >= enough[0]) & (c_q >= enough[1])
        p, q, z, c = p[sure], q[sure], z_p[sure], np.minimum(c_p, c_q)[sure]
        if len(p) == 0:
            continue
        ratio = np.log(z_q[sure] / z)
        middles.append(np.median(ratio))
        spreads.append(1.4826 * np.median(np.abs(ratio - middles[-1])))
        source.append(p)
        target.append(q)
        # depth errors grow with depth; confidence is in a unit of its own
        weight.append(np.clip(c / np.median(c), 0.1, 10.0) * (np.median(z) / z) ** 2)
        group.append(np.full(len(p), number))
    count = sum(map(len, source))
    if count < 10:
        raise NotAligned("shared_depth", f"the shared images have only {count} pixels with depth in both windows")
    cameras_p = np.stack([geometry.T_window_camera[b] for _, b in shared])
    cameras_q = np.stack([last.T_window_camera[a] for a, _ in shared])
    found = align(
        np.concatenate([*source, cameras_p[:, :3, 3]]),
        np.concatenate([*target, cameras_q[:, :3, 3]]),
        np.concatenate([*weight, np.full(len(shared), 0.1 * count / len(shared))]),
        cameras_p[:, :3, :3],
        cameras_q[:, :3, :3],
        groups=np.concatenate([*group, np.arange(len(shared))]),
    )
    _, depths, _ = last.points(shared[-1][0], *last.sampled(shared[-1][0], config.pixels))
    residual = found.residual / float(np.nanmedian(depths)) if np.isfinite(depths).any() else np.inf
    if not residual <= config.max_residual:
        raise NotAligned("residual", f"what the windows share differs by {residual:.0%} of its depth after alignment")
    turns = Rotation.from_matrix(
        cameras_q[:, :3, :3].transpose(0, 2, 1) @ found.sim3.rotation @ cameras_p[:, :3, :3]
    ).magnitude()
    if np.median(turns) > config.max_turn_rad:
        raise NotAligned("turn", f"the windows orient shared cameras {np.degrees(np.median(turns)):.0f} degrees apart")
    if not found.scale_stddev <= config.max_scale_stddev:
        raise NotAligned("scale", f"the windows fix their common scale to {found.scale_stddev:.0%} only")
    everything = np.concatenate(source)
    return Link(
        found.sim3,
        float(np.hypot(found.scale_stddev, config.drift)),
        everything.mean(axis=0),
        residual,
        float(np.mean(found.inliers)),
        float(np.std(middles, ddof=1)) if len(middles) > 1 else np.nan,
        float(np.median(spreads)),
    )


def _path(parents: Sequence[int], k: int) -> list[int]:
    """The places from k to the root, both included."""
    path = [k]
    while parents[path[-1]] >= 0:
        path.append(parents[path[-1]])
    return path


Pixels = tuple[NDArray[np.int64], NDArray[np.int64]]


def _same_pixels(one: WindowGeometry, index: int, other: WindowGeometry, pixels: int) -> tuple[Pixels, Pixels]:
    """Rows and columns of about ``pixels`` places of an image in two windows. They are pixel centres of the coarser one,
    which may have little to choose from."""
    (h, w), (h2, w2) = one.depth.shape[1:], other.depth.shape[1:]
    if h2 < h:
        there, here = _same_pixels(other, 0, one, pixels)
        return here, there
    rows, columns = one.sampled(index, pixels)
    return (rows, columns), ((2 * rows + 1) * h2 // (2 * h), (2 * columns + 1) * w2 // (2 * w))
