"""Cameras and depth from colour images alone."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.window import WindowGeometry


class GeometryPredictor(Protocol):
    """A network, or a stand-in, that sees a few overlapping images at once."""

    @property
    def name(self) -> str:
        """What people call it, with its weights where that matters."""
        ...

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        """Geometry of RGB images [T, H, W, 3], in a frame and unit of its own choice. T may be 1.

        Raises InvalidWindow when what comes out is no geometry. Called from one thread at a time.
        """
        ...
