"""After a break: whether the camera sees again what it saw before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.memory.colour.anchors import in_one_window, small_image, thumbnail
from spatial_mllm_ros.memory.colour.segment import Segment
from spatial_mllm_ros.models.geometry_predictor import GeometryPredictor
from spatial_mllm_ros.scene.overlap import detail, overlap
from spatial_mllm_ros.scene.sim3 import NotAligned, Sim3
from spatial_mllm_ros.scene.window import WindowGeometry
from spatial_mllm_ros.scene.window_chain import NOMINAL_DEPTH, ChainConfig, Link, link_windows

_MIN_SHARE = 0.2
_MIN_AGREEMENT = 0.55  # two rooms of one size may have it, too
_MIN_CORRELATION = 0.6  # of images that show different things: below 0.5
_MIN_IMAGES = 2
_SAME_SCALE = 0.1
_SAME_TURN_RAD = 0.1
_SAME_PLACE = 0.15 * NOMINAL_DEPTH
_STRICTER = 0.75  # than a window that follows another


@dataclass(frozen=True, eq=False)
class Found:
    """Where a new segment lies in an old one. before: number of the old window that ``link`` leads to, from the first new
    one. sim3: points of the new chain to points of the old one."""

    link: Link
    before: int
    sim3: Sim3

    def agrees_with(self, other: Found, centres: NDArray[np.float64]) -> bool:
        """Whether two searches found the same. centres: of the new segment's cameras [n, 3], in its chain."""
        turn = Rotation.from_matrix(self.sim3.rotation.T @ other.sim3.rotation).magnitude()
        off = np.linalg.norm(self.sim3.apply(centres) - other.sim3.apply(centres), axis=1)
        return bool(
            abs(np.log(self.sim3.scale / other.sim3.scale)) < _SAME_SCALE
            and turn < _SAME_TURN_RAD
            and np.median(off) < _SAME_PLACE
        )


class Relocation:
    """Looks for an old segment in the windows of a new one. Once for every window; two must find the same."""

    def __init__(self, old: Segment) -> None:
        self.old = old
        self.seen = 0
        """New images since the break."""
        self._before: Found | None = None
        self._first = 0
        self._looks = 0

    def begin_again(self) -> None:
        """For another new segment."""
        self._before, self._first, self._looks = None, 0, 0

    def look(self, predictor: GeometryPredictor, new: Segment) -> Found | None:
        """Compare the newest window of ``new`` with the anchors that look most like it.

        None: not yet sure. Raises NotAligned (also with ``other_place``) or what the predictor raises.
        """
        if new.chain.first_index != self._first:  # what was found was said of a window that has gone
            self._before, self._first = None, new.chain.first_index
        found = self._look(predictor, new)
        places, first = new.chain.place(), new.chain.first_index
        centres = [places[i.window - first].apply(i.T_window_camera[:3, 3]) for i in new.images.values()]
        before, self._before = self._before, found
        if before is None or not found.agrees_with(before, np.stack(centres)):
            return None
        return min(before, found, key=lambda f: f.link.log_scale_stddev)

    def _look(self, predictor: GeometryPredictor, new: Segment) -> Found:
        old, size = self.old, new.config.window_size
        places, first = old.chain.place(), old.chain.first_index
        small = [small_image(image) for image in new.latest]
        if not old.anchors.held or old.anchors.held[0].image.shape != small[0].shape:
            raise NotAligned("other_place", "no image of this size is known from before")
        liked = self._liked(new, small, places, first)
        chosen = old.anchors.chosen(liked, size // 2, places, first)
        anchors = [old.anchors.held[i] for i in chosen]
        order = np.argsort(-liked[chosen].max(axis=0), kind="stable")
        mine = sorted(order[: size - len(anchors)])
        shown = [anchor.image for anchor in anchors] + [small[i] for i in mine]
        geometry = predictor.predict(np.stack(shown))
        if len(geometry) != len(shown):
            raise NotAligned("window_shape", f"{len(shown)} images gave geometry of {len(geometry)}")
        try:
            self._check_overlap(geometry, shown, len(anchors))
            window = anchors[0].window
            last, last_keys = new.chain.last
            keys = [anchor.stamp_ns for anchor in anchors] + [last_keys[i] for i in mine]
            known = in_one_window(anchors, places, first, window)
            config = _strict(new.config.chain)
            to_old = link_windows(known, keys[: len(anchors)], geometry, keys, config)
            to_new = link_windows(last, last_keys, geometry, keys, config)
        except NotAligned:
            for anchor in anchors:
                anchor.tried += 1
            raise
        return _found(new, places[window - first], window, to_old, to_new)

    def _liked(
        self, new: Segment, small: Sequence[NDArray[np.uint8]], places: Sequence[Sim3], first: int
    ) -> NDArray[np.float64]:
        """Which anchors to compare with which images of the newest window: [anchors, n], more is better.

        First those seen last with those seen first, which are often near; then what looks alike; and once something was
        found, what must be near then.
        """
        anchors = self.old.anchors
        self._looks += 1
        if self._before is not None:
            T = self._before.sim3.pose(new.chain.place()[-1].pose(new.chain.windows[-1].T_window_camera))
            return anchors.nearness(T, places, first)
        if self._looks == 1:
            return np.add.outer(np.arange(len(anchors.held)), -np.arange(len(small))).astype(np.float64)
        return anchors.likeness(np.stack([thumbnail(x) for x in small]))

    @staticmethod
    def _check_overlap(geometry: WindowGeometry, shown: Sequence[NDArray[np.uint8]], anchors: int) -> None:
        """Alignment shows that each half of the window is right in itself; this, that the two show the same place."""
        details = [detail(image) for image in shown]
        again = 0
        best = 0.0
        for b in range(anchors, len(shown)):
            pairs = [overlap(geometry, a, b, details[a], details[b]) for a in range(anchors)]
            sure = [p for p in pairs if p.share >= _MIN_SHARE and p.agreement >= _MIN_AGREEMENT]
            likeness = max((p.correlation for p in sure if np.isfinite(p.correlation)), default=0.0)
            best = max(best, likeness)
            again += likeness >= _MIN_CORRELATION
        if again < min(_MIN_IMAGES, len(shown) - anchors):
            raise NotAligned(
                "other_place", f"{again} images show what was seen before (correlation {best:.2f} at best)"
            )


def _found(new: Segment, place: Sim3, window: int, to_old: Link, to_new: Link) -> Found:
    """From links of the window that both take part in: to the old ``window``, at ``place``, and to the newest one."""
    mine = new.chain.place()
    from_first = mine[-1].inverse() @ mine[0]
    sim3 = to_old.sim3 @ to_new.sim3.inverse() @ from_first
    drift = new.chain.link_logs()[1]
    link = replace(
        to_old,
        sim3=sim3,
        centroid=from_first.inverse().apply(to_new.sim3.apply(to_old.centroid)),
        log_scale_stddev=float(np.sqrt(to_old.log_scale_stddev**2 + to_new.log_scale_stddev**2 + np.sum(drift**2))),
    )
    return Found(link, window, place @ sim3 @ mine[0].inverse())


def _strict(config: ChainConfig) -> ChainConfig:
    return replace(
        config,
        max_residual=_STRICTER * config.max_residual,
        max_turn_rad=_STRICTER * config.max_turn_rad,
        max_scale_stddev=_STRICTER * config.max_scale_stddev,
    )
