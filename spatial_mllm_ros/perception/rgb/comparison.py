"""Whether a submap's newest images show what some images from before show, and how the two lie to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.perception.rgb.anchors import in_one_window, small_image
from spatial_mllm_ros.perception.rgb.overlap import detail, overlap
from spatial_mllm_ros.perception.rgb.submap import Submap
from spatial_mllm_ros.perception.rgb.window_chain import NOMINAL_DEPTH, ChainConfig, Link, link_windows
from spatial_mllm_ros.scene.sim3 import NotAligned, Sim3
from spatial_mllm_ros.scene.window import WindowGeometry
from spatial_mllm_ros.serving.interface import GeometryPredictor

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
    """How what is seen now lies to what was seen before.

    link: of the window of number ``window`` in the new submap to the window ``before`` in the old one. sim3: points of the
    new chain to points of the old one, as the chains lie.
    """

    link: Link
    window: int
    before: int
    sim3: Sim3

    def agrees_with(self, other: Found, new: Submap) -> bool:
        """Whether two comparisons of this new submap found the same."""
        places, first = new.chain.place(), new.chain.first_index
        centres = np.stack([places[i.window - first].apply(i.T_window_camera[:3, 3]) for i in new.images.values()])
        turn = Rotation.from_matrix(self.sim3.rotation.T @ other.sim3.rotation).magnitude()
        off = np.linalg.norm(self.sim3.apply(centres) - other.sim3.apply(centres), axis=1)
        return bool(
            abs(np.log(self.sim3.scale / other.sim3.scale)) < _SAME_SCALE
            and turn < _SAME_TURN_RAD
            and np.median(off) < _SAME_PLACE
        )

    def link_of_first(self, new: Submap) -> Link:
        """The same as a link of the new submap's first window."""
        places = new.chain.place()
        from_first = places[self.window - new.chain.first_index].inverse() @ places[0]
        drift = np.sum(new.chain.link_logs()[1] ** 2)
        return replace(
            self.link,
            sim3=self.link.sim3 @ from_first,
            centroid=from_first.inverse().apply(self.link.centroid),
            log_scale_stddev=float(np.sqrt(self.link.log_scale_stddev**2 + drift)),
        )


def compare(
    predictor: GeometryPredictor, old: Submap, chosen: Sequence[int], new: Submap, liked: NDArray[np.float64]
) -> Found:
    """Have the predictor see images of before beside the newest ones, once.

    chosen: which anchors of ``old``. liked: [chosen, n], which of the n images of the newest window go well with them. Raises
    NotAligned, with ``other_place`` when they show different things, or what the predictor raises.
    """
    anchors = [old.anchors.held[i] for i in chosen]
    small = [small_image(image) for image in new.latest]
    if anchors[0].image.shape != small[0].shape:
        raise NotAligned("other_place", "no image of this size is known from before")
    order = np.argsort(-liked.max(axis=0), kind="stable")
    mine = sorted(order[: new.config.window_size - len(anchors)])
    shown = [anchor.image for anchor in anchors] + [small[i] for i in mine]
    geometry = predictor.predict(np.stack(shown))
    if len(geometry) != len(shown):
        raise NotAligned("window_shape", f"{len(shown)} images gave geometry of {len(geometry)}")
    _check_overlap(geometry, shown, len(anchors))
    places, first, window = old.chain.place(), old.chain.first_index, anchors[0].window
    last, last_keys = new.chain.last
    # not by stamp: an image may be on both sides
    keys = [("before", anchor.stamp_ns) for anchor in anchors] + [("now", last_keys[i]) for i in mine]
    known = in_one_window(anchors, places, first, window)
    config = _strict(new.config.chain)
    to_old = link_windows(known, keys[: len(anchors)], geometry, keys, config)
    to_new = link_windows(last, [("now", key) for key in last_keys], geometry, keys, config)
    link = replace(
        to_old,
        sim3=to_old.sim3 @ to_new.sim3.inverse(),
        centroid=to_new.sim3.apply(to_old.centroid),
        log_scale_stddev=float(np.hypot(to_old.log_scale_stddev, to_new.log_scale_stddev)),
    )
    there = places[window - first] @ link.sim3 @ new.chain.place()[-1].inverse()
    return Found(link, new.newest, window, there)


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
        raise NotAligned("other_place", f"{again} images show what was seen before (correlation {best:.2f} at best)")


def _strict(config: ChainConfig) -> ChainConfig:
    return replace(
        config,
        max_residual=_STRICTER * config.max_residual,
        max_turn_rad=_STRICTER * config.max_turn_rad,
        max_scale_stddev=_STRICTER * config.max_scale_stddev,
    )
