"""Geometry from color in the background of a live camera."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from spatial_mllm_ros.perception.rgb.update import Update
from spatial_mllm_ros.scene.frame import Frame

if TYPE_CHECKING:
    from spatial_mllm_ros.perception.rgb.rgb_geometry import RgbGeometry

log = logging.getLogger(__name__)


class RgbGeometryThread:
    """Runs the windows of an RgbGeometry in the background, as ``add`` brings images.

    on_update: called from the thread with every Update, in order; usually ``update.apply_to(memory)``. Not called any more
    with what was seen before a ``reset``.
    """

    def __init__(self, geometry: RgbGeometry, on_update: Callable[[Update], object]) -> None:
        self.geometry = geometry
        self._on_update = on_update
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._updating = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="rgb_geometry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, frame: Frame) -> None:
        """Take a frame in; never waits for the predictor."""
        self.geometry.add(frame)
        self._wake.set()

    def reset(self) -> None:
        """Forget everything: call it before the memory starts over. Does not wait for the predictor."""
        with self._updating:
            self.geometry.reset()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Stop after the window in progress; whether it ended in time."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                update = self.geometry.run_window()
                with self._updating:
                    if update is not None and not self.geometry.is_stale:
                        self._on_update(update)
            except Exception:  # one bad update must not end the geometry of all later ones
                log.exception("an update of the geometry from color failed")
            if not self.geometry.due():
                self._wake.wait(0.1)
                self._wake.clear()
