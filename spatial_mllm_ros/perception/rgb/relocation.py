"""After a break: whether the camera sees again what it saw before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.perception.rgb.anchors import small_image, thumbnail
from spatial_mllm_ros.perception.rgb.comparison import Found, compare
from spatial_mllm_ros.perception.rgb.submap import Submap
from spatial_mllm_ros.scene.sim3 import NotAligned
from spatial_mllm_ros.serving.interface import GeometryPredictor


class Relocation:
    """Looks for an old submap in the windows of a new one. Once for every window; two must find the same."""

    def __init__(self, old: Submap) -> None:
        self.old = old
        self.seen = 0
        """New images since the break."""
        self._before: Found | None = None
        self._first = 0
        self._looks = 0

    def begin_again(self) -> None:
        """For another new submap."""
        self._before, self._first, self._looks = None, 0, 0

    def look(self, predictor: GeometryPredictor, new: Submap) -> Found | None:
        """Compare the newest window of ``new`` with some of what was seen before the break.

        None: not yet sure. Raises NotAligned or what the predictor raises.
        """
        if new.chain.first_index != self._first:  # what was found was said of a window that has gone
            self._before, self._first = None, new.chain.first_index
        anchors, places, first = self.old.anchors, self.old.chain.place(), self.old.chain.first_index
        if not anchors.held:
            raise NotAligned("other_place", "no image with depth is known from before")
        liked = self._liked(new)
        chosen = anchors.chosen(liked, new.config.window_size // 2, places, first)
        try:
            found = compare(predictor, self.old, chosen.tolist(), new, liked[chosen])
        except NotAligned:
            for i in chosen:
                anchors.held[i].tried += 1
            raise
        before, self._before = self._before, found
        if before is None or not found.agrees_with(before, new):
            return None
        return min(before, found, key=lambda f: f.link.log_scale_stddev)

    def _liked(self, new: Submap) -> NDArray[np.float64]:
        """Which anchors to compare with which images of the newest window: [anchors, n], more is better.

        First those seen last with those seen first, which are often near; then what looks alike; and once something was
        found, what must be near then.
        """
        anchors = self.old.anchors
        self._looks += 1
        if self._before is not None:
            T = self._before.sim3.pose(new.chain.place()[-1].pose(new.chain.windows[-1].T_window_camera))
            return anchors.nearness(T, self.old.chain.place(), self.old.chain.first_index)
        if self._looks == 1:
            return np.add.outer(np.arange(len(anchors.held)), -np.arange(len(new.latest))).astype(np.float64)
        return anchors.likeness(np.stack([thumbnail(small_image(image)) for image in new.latest]))
