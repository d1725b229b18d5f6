"""What tells the metres of a submap: measured depth, or measured poses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.perception.rgb.image import ChainImage
from spatial_mllm_ros.perception.rgb.window_chain import WindowChain
from spatial_mllm_ros.scene.metric_scale import (
    MetreSource,
    MetricScale,
    NoScale,
    ScaleConfig,
    ScaleObservation,
    pose_source,
    scale_from_depth,
    scale_from_poses,
    smoothed_scales,
)
from spatial_mllm_ros.scene.sim3 import Sim3
from spatial_mllm_ros.scene.window import WindowGeometry

_DEPTH_PIXELS = 5_000


class Metres:
    """Collects what tells the scale of a chain of windows. Windows are numbered as in the chain.

    scale: whether there are metres, as of the last ``log_scales``. disagreement: median and spread of the ratio of
    measured to predicted depth; None without both.
    """

    def __init__(self, config: ScaleConfig, reason: str) -> None:
        self._config = config
        self._span: list[int] = []
        self._span_found: ScaleObservation | None = None
        self._from_poses: list[ScaleObservation] = []
        self._from_depth: list[ScaleObservation] = []
        self._reason = ""
        self._source = MetreSource.TF
        self.scale = MetricScale(reason=reason)
        self.disagreement: tuple[float, float] | None = None

    def see_depth(self, geometry: WindowGeometry, index: int, measured: NDArray[np.float32], number: int) -> None:
        """Compare measured depth (metres, NaN: none) with that of image ``index`` of window ``number``."""
        rows, columns = np.nonzero(np.isfinite(measured))
        step = max(len(rows) // _DEPTH_PIXELS, 1)
        rows, columns = rows[::step], columns[::step]
        h, w = geometry.depth.shape[1:]
        there = (
            ((rows + 0.5) * h / measured.shape[0]).astype(np.int64),
            ((columns + 0.5) * w / measured.shape[1]).astype(np.int64),
        )
        _, predicted, confidence = geometry.points(index, *there)
        try:
            log_scale, stddev, spread = scale_from_depth(
                predicted, measured[rows, columns].astype(np.float64), confidence, self._config
            )
        except NoScale as error:
            self._reason = str(error)
            return
        self._from_depth.append(ScaleObservation(number, log_scale, stddev, spread))

    def see_poses(
        self, number: int, places: Sequence[Sim3], offset: int, images: Iterable[ChainImage], overlap: int
    ) -> None:
        """Let the poses of window ``number``, the newest, tell the scale, together with as many before it as it takes.

        places: of the windows from number ``offset`` on. images: of the submap, by stamp. overlap: how many images of the
        window before the first one take part.
        """
        self._span.append(number)
        self._span = [k for k in self._span if k >= offset]
        inside = set(self._span)
        known = [image for image in images if image.measured is not None]
        # with the shared images of the span's first window
        seen = [image for image in known if image.window == self._span[0] - 1][-overlap:]
        seen += [image for image in known if image.window in inside]
        self._span_found = None
        if not seen:
            self._reason = self._reason or (
                "the images come without poses and without depth, so nothing tells metres: give the camera's transform to "
                "the fixed frame, odometry or some depth"
            )
            return
        self._source = pose_source(seen[-1].world_frame)
        predicted = np.stack([places[i.window - offset].pose(i.T_window_camera) for i in seen if i.window >= offset])
        measured = np.stack([i.measured for i in seen if i.window >= offset and i.measured is not None])
        c = self._config
        try:
            found, residual = scale_from_poses(predicted, measured, c)
        except NoScale as error:
            self._reason = str(error)
            if len(self._span) >= c.max_windows:
                del self._span[0]
            return
        middle = self._span[len(self._span) // 2]
        log_scale = float(np.log(found.sim3.scale * places[middle - offset].scale))
        observation = ScaleObservation(middle, log_scale, found.scale_stddev, residual)
        if found.scale_stddev <= c.enough_stddev or len(self._span) >= c.max_windows:
            self._from_poses.append(observation)
            self._span = []
        else:
            self._span_found = observation

    def log_scales(
        self, chain: WindowChain, focal_logs: Sequence[float]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log scale [K] of every window and its deviation [K], infinite without metres; ``scale`` follows.

        focal_logs: logarithms of the ratio of stated to predicted focal lengths.
        """
        offset = chain.first_index
        from_poses = [*self._from_poses, *([self._span_found] if self._span_found else [])]
        observations = [
            replace(o, window=o.window - offset) for o in (self._from_depth or from_poses) if o.window >= offset
        ]
        nominal = chain.log_scales()
        nothing = np.full(len(nominal), np.inf)
        if not observations:
            self.scale = MetricScale(reason=self._reason)
            return nominal, nothing
        x, stddev = smoothed_scales(*chain.link_logs(), observations, chain.before())
        what_to_do = "move the camera further sideways, by 0.5 m or more"
        if not self._from_depth and focal_logs:
            # With another focal length the same images mean other depths for the same motion: as much other when it
            # goes sideways, not at all when it goes forward. Evenly between the two.
            focal = abs(float(np.median(focal_logs)))
            stddev = np.hypot(stddev, focal / np.sqrt(3))
            if focal / np.sqrt(3) > 0.5 * self._config.max_stddev:
                what_to_do = (
                    f"the camera's focal length as calibrated and as seen in the images differ by {np.expm1(focal):.0%}: "
                    "check its CameraInfo"
                )
        good = stddev <= self._config.max_stddev
        if not good.any():
            self.scale = MetricScale(reason=f"the scale is known to {stddev.min():.0%} only; {what_to_do}")
            return nominal, nothing
        source = MetreSource.DEPTH if self._from_depth else self._source
        residual = float(np.median([o.residual for o in observations]))
        self.scale = MetricScale(source, float(np.sqrt(np.mean(stddev[good] ** 2))), residual)
        if self._from_depth:
            ratios = np.array([o.log_scale - x[o.window] for o in observations])
            self.disagreement = float(np.exp(np.median(ratios))), residual
        return x, stddev

    def join(self, other: Metres, shift: int) -> None:
        """Take over what another submap's windows tell, whose numbers grow by ``shift``."""

        def shifted(observations: Iterable[ScaleObservation]) -> list[ScaleObservation]:
            return [replace(o, window=o.window + shift) for o in observations]

        self._from_poses += shifted(other._from_poses)
        self._from_depth += shifted(other._from_depth)
        self._span = [k + shift for k in other._span]
        self._span_found = shifted([other._span_found])[0] if other._span_found else None
        self._reason, self._source = other._reason or self._reason, other._source
        self.disagreement = other.disagreement or self.disagreement
