"""Whether the camera is back where it was long before, so that the drift since then shows."""

from __future__ import annotations

import numpy as np

from spatial_mllm_ros.perception.rgb.comparison import Found, compare
from spatial_mllm_ros.perception.rgb.submap import Submap
from spatial_mllm_ros.serving.interface import GeometryPredictor

_LONG_AGO = 8  # windows
_NEAR = 0.6  # usual depths and radians: about what an image shows beside another one
_PAUSE = 4  # windows, so that the predictor runs at most so much more


class LoopSearch:
    """Looks for loops of a submap whose poses nobody measures. Now and then; two comparisons must find the same."""

    def __init__(self) -> None:
        self._before: Found | None = None
        self._next = 0

    def look(self, predictor: GeometryPredictor, submap: Submap) -> Found | None:
        """Compare the newest window with what was seen near it long ago, if something was and it is time.

        None: nothing found, or not yet sure. Raises NotAligned or what the predictor raises.
        """
        newest, chain, anchors = submap.newest, submap.chain, submap.anchors
        if newest < self._next or submap.is_measured or not anchors.held:
            return None
        places, first = chain.place(), chain.first_index
        liked = anchors.nearness(places[-1].pose(chain.windows[-1].T_window_camera), places, first)
        liked[[anchor.window > newest - _LONG_AGO for anchor in anchors.held]] = -np.inf
        if not liked.max(initial=-np.inf) > -_NEAR:
            return None
        self._next = newest + _PAUSE
        before, self._before = self._before, None
        chosen = anchors.chosen(liked, submap.config.window_size // 2, places, first)
        found = compare(predictor, submap, chosen.tolist(), submap, liked[chosen])
        if before is not None and found.agrees_with(before, submap):
            return found
        self._before, self._next = found, newest + 1
        return None
