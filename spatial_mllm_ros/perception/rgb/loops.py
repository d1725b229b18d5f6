"""Whether the camera is back where it was long before, so that the drift since then shows."""

from __future__ import annotations

import numpy as np

from spatial_mllm_ros.perception.rgb.comparison import Found, compare
from spatial_mllm_ros.perception.rgb.segment import Segment
from spatial_mllm_ros.serving.interface import GeometryPredictor

_LONG_AGO = 8  # windows
_NEAR = 0.6  # usual depths and radians: about what an image shows beside another one
_PAUSE = 4  # windows, so that the predictor runs at most so much more


class LoopSearch:
    """Looks for loops of a segment whose poses nobody measures. Now and then; two comparisons must find the same."""

    def __init__(self) -> None:
        self._before: Found | None = None
        self._next = 0

    def look(self, predictor: GeometryPredictor, segment: Segment) -> Found | None:
        """Compare the newest window with what was seen near it long ago, if something was and it is time.

        None: nothing found, or not yet sure. Raises NotAligned or what the predictor raises.
        """
        newest, chain, anchors = segment.newest, segment.chain, segment.anchors
        if newest < self._next or segment.is_measured or not anchors.held:
            return None
        places, first = chain.place(), chain.first_index
        liked = anchors.nearness(places[-1].pose(chain.windows[-1].T_window_camera), places, first)
        liked[[anchor.window > newest - _LONG_AGO for anchor in anchors.held]] = -np.inf
        if not liked.max(initial=-np.inf) > -_NEAR:
            return None
        self._next = newest + _PAUSE
        before, self._before = self._before, None
        chosen = anchors.chosen(liked, segment.config.window_size // 2, places, first)
        found = compare(predictor, segment, chosen.tolist(), segment, liked[chosen])
        if before is not None and found.agrees_with(before, segment):
            return found
        self._before, self._next = found, newest + 1
        return None
