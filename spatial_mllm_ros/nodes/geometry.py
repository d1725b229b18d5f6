"""Geometry from color beside a live engine: frames in, updates of the memory out."""

from __future__ import annotations

from collections.abc import Callable

from spatial_mllm_ros.nodes.diagnosis import GeometryStatus
from spatial_mllm_ros.nodes.model import ServedPredictor
from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.perception.rgb.rgb_geometry import RgbGeometry, RgbGeometryConfig, RgbGeometryThread, Update
from spatial_mllm_ros.scene.frame import Frame

_END_S = 2.0


class LiveGeometry:
    """Runs a predictor in a thread of its own. Safe to use from several threads.

    on_update: called from that thread with what the memory has to do, in order; never with what was seen before a reset.
    monotonic: seconds.
    """

    def __init__(
        self,
        predictor: ServedPredictor,
        settings: Settings,
        on_update: Callable[[Update], object],
        monotonic: Callable[[], float],
    ) -> None:
        self._predictor = predictor
        window = settings.rgb_geometry_window_size
        config = RgbGeometryConfig(
            window,
            settings.rgb_geometry_overlap,
            max_load=settings.rgb_geometry_max_load,
            max_waiting=max(RgbGeometryConfig.max_waiting, 2 * window),
        )
        self._geometry = RgbGeometry(predictor, config, monotonic)
        self._thread = RgbGeometryThread(self._geometry, on_update)
        self._started = False

    def start(self) -> None:
        """Work on what comes. Again: nothing."""
        if not self._started:
            self._started = True
            self._thread.start()

    def add(self, frame: Frame) -> bool:
        """Take a frame in; never waits. False when the predictor has failed for good: it can do nothing with it."""
        if self._predictor.status().state == "failed":
            return False
        self._thread.add(frame)
        return True

    def reset(self) -> None:
        """Forget everything, before the memory does. Does not wait for the predictor."""
        self._thread.reset()

    def close(self) -> None:
        """End the predictor, in the middle of a window if need be."""
        if self._started:
            self._thread.stop(0.0)
        self._predictor.close()
        if self._started:
            self._thread.stop(_END_S)

    def why_nothing(self) -> str:
        """How far geometry from color is, for whoever asks while there is none yet."""
        status = self.status()
        images, process = status.images, status.process
        if process.state in ("failed", "restarting"):
            return f"geometry from color is {process.state}: {process.reason}"
        words = f"geometry from color has {images.waiting} images waiting and {images.windows} windows done"
        dropped = ", ".join(f"{n} {reason}" for reason, n in images.dropped_windows.items())
        return words + (f" (dropped: {dropped})" if dropped else "")

    def status(self) -> GeometryStatus:
        """How it goes; never waits for the predictor."""
        return GeometryStatus(self._predictor.status(), self._geometry.status())
