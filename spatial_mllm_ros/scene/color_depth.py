"""Whether depth shows what the color image shows, pixel for pixel and at the same moment: by where their edges are."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, sobel, uniform_filter
from scipy.signal import fftconvolve

from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.inputs import Doubt

WIDTH = 160
"""Images are compared at about this width, px."""
JUMP = 0.08
"""An edge of depth: neighbours differ by so much of it."""
FEWEST_EDGES = 150
ASIDE, ABOVE = 24, 8
"""How far images may be shifted against each other, px of WIDTH."""
IMAGES, FEWEST, EVERY_NS = 24, 8, 400_000_000
"""Images that are looked at, how many tell enough, and how far apart in time they are at least."""
LAGS = 8
"""Images before and after that depth is matched with where it fits its own nowhere."""
OFF_PX = 4
"""Edges of depth lie a little beside those of color in most cameras: further than this is another view."""
PLAIN, BETTER = 5.0, 1.6
"""What stands out: so many deviations above other shifts, and so many times what there is without a shift."""

Maps = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Of edges across and along the rows."""


class ColorDepthCheck:
    """Looks at some images of one camera. Costs some milliseconds for each of them, and nothing after.

    Where edges fit at no shift, depth is matched with the color images of just before and just after, too.
    """

    def __init__(self) -> None:
        self._next_ns = -(2**63)
        self._looked_at = 0
        self._straight: deque[NDArray[np.float64]] = deque(maxlen=IMAGES)
        self._mirrored: deque[NDArray[np.float64]] = deque(maxlen=IMAGES)
        self._recent: deque[Frame] = deque(maxlen=LAGS)
        self._lags: dict[int, list[tuple[float, NDArray[np.float64]]]] = {}

    def add(self, frame: Frame) -> None:
        """Look at a frame, if it has an image and depth and its turn has come."""
        if frame.depth is None or frame.image is None or self._looked_at >= 3 * IMAGES:
            return
        if frame.stamp_ns >= self._next_ns:
            self._next_ns = frame.stamp_ns + EVERY_NS
            self._look(frame)
        self._recent.append(frame)
        if len(self._straight) == IMAGES:
            self._recent.clear()
            self._looked_at = 3 * IMAGES

    def _look(self, frame: Frame) -> None:
        self._looked_at += 1
        depth = _edges(frame)
        color = None if depth is None else _gradients(frame)
        if depth is None or color is None:
            return
        self._straight.append(_match(color, depth))
        self._mirrored.append(_match(color, (depth[0][:, ::-1], depth[1][:, ::-1])))
        if len(self._straight) < FEWEST or _here(_summed(self._straight)) >= PLAIN:
            return
        for steps, other in enumerate(reversed(self._recent), 1):
            by_s = (frame.stamp_ns - other.stamp_ns) / 1e9
            before, its_edges = _gradients(other), _edges(other)
            if before is not None and before[0].shape == depth[0].shape:
                self._lags.setdefault(steps, []).append((by_s, _match(before, depth)))
            if its_edges is not None and its_edges[0].shape == color[0].shape:
                self._lags.setdefault(-steps, []).append((-by_s, _match(color, its_edges)))

    def doubt(self) -> Doubt | None:
        """That depth shows another view than the color image; None as long as nothing says so."""
        if len(self._straight) < FEWEST:
            return None
        straight, mirrored = _summed(self._straight), _summed(self._mirrored)
        v, u = (int(i) for i in np.unravel_index(np.argmax(straight), straight.shape))
        aside, above = u - ASIDE, v - ABOVE
        if mirrored.max() > max(PLAIN, BETTER * straight.max()):
            return _doubt(
                "edges of depth lie where the color image has none, and fit when one of the two is mirrored",
                "turn off mirroring (flip) in the driver, for both images or for none",
                0.1,
            )
        if (lag := self._lag_doubt(max(BETTER * _here(straight), float(straight.max())))) is not None:
            return lag
        off_px = max(abs(aside), abs(above))
        if off_px >= OFF_PX and straight.max() > max(PLAIN, BETTER * _here(straight)):
            return _doubt(
                f"edges of depth lie beside those of the color image, by about {off_px / WIDTH:.0%} of its width: depth is of "
                "another view",
                "register depth to the color image (align_depth, depth_registered), or publish it in the frame of its own "
                "camera with its own CameraInfo",
                0.3,
            )
        return None

    def _lag_doubt(self, least: float) -> Doubt | None:
        """That depth fits the color image of another moment, by more than ``least``."""
        enough = [found for found in self._lags.values() if len(found) >= FEWEST]
        scored = [(_here(_summed([match for _, match in f])), float(np.median([s for s, _ in f]))) for f in enough]
        best, by_s = max(scored, default=(0.0, 0.0))
        if best < max(PLAIN, least):
            return None
        return _doubt(
            f"edges of depth fit the color image of {abs(by_s):.2f} s {'earlier' if by_s > 0 else 'later'}, not the one of the "
            "same stamp",
            "have both drivers stamp their images with the time at which they were taken",
            0.2,
        )


def _doubt(text: str, remedy: str, confidence: float) -> Doubt:
    return Doubt(kind="depth_registration", text=text, remedy=remedy, confidence=confidence)


def _here(match: NDArray[np.float64]) -> float:
    """Of no shift, or next to none."""
    return float(match[ABOVE - 1 : ABOVE + 2, ASIDE - 2 : ASIDE + 3].max())


def _edges(frame: Frame) -> Maps | None:
    """Where depth leaps between neighbours, the nearer side; None for too little of that."""
    assert frame.depth is not None
    step = _step(frame)
    h, w = (pixels // step for pixels in frame.depth.shape)
    z = depth_to_metres(frame.depth[step // 2 :: step, step // 2 :: step][:h, :w])
    with np.errstate(invalid="ignore", divide="ignore"):
        log = np.log(z)
        across, along = np.zeros(z.shape, np.float32), np.zeros(z.shape, np.float32)
        leap = np.diff(log, axis=1)
        across[:, 1:] += leap < -JUMP
        across[:, :-1] += leap > JUMP
        leap = np.diff(log, axis=0)
        along[1:] += leap < -JUMP
        along[:-1] += leap > JUMP
    counts = [int(np.count_nonzero(edges)) for edges in (across, along)]
    return None if sum(counts) < FEWEST_EDGES or min(counts) < FEWEST_EDGES / 3 else (across, along)


def _gradients(frame: Frame) -> Maps | None:
    """How much stronger the color image changes than its neighbourhood does, at the size of ``_edges``; None where it does
    not decode."""
    try:
        rgb = frame.rgb()
    except ValueError:
        return None  # counted by whoever shows it
    assert rgb is not None
    step = _step(frame)
    h, w = rgb.shape[0] // step, rgb.shape[1] // step
    whole = rgb[: h * step, : w * step].astype(np.float32)
    grey = gaussian_filter(whole.reshape(h, step, w, step, 3).mean(axis=(1, 3, 4)), 0.7)
    found = []
    for axis in (1, 0):
        strength = np.abs(sobel(grey, axis=axis))
        found.append(np.minimum(strength / (uniform_filter(strength, 31) + 4.0), 4.0))
    return found[0], found[1]


def _step(frame: Frame) -> int:
    """Pixels of the image that become one."""
    assert frame.depth is not None
    return max(frame.depth.shape[1] // WIDTH, 1)


def _match(color: Maps, depth: Maps) -> NDArray[np.float64]:
    """How strongly the color image changes, on average, at edges of depth that are shifted by (v, u)."""
    total = np.zeros((2 * ABOVE + 1, 2 * ASIDE + 1))
    for image, edges in zip(color, depth, strict=True):
        h, w = image.shape
        whole = fftconvolve(image - image.mean(), edges[::-1, ::-1], mode="full")
        total += whole[h - 1 - ABOVE : h + ABOVE, w - 1 - ASIDE : w + ASIDE] / max(float(edges.sum()), 1.0)
    return total


def _summed(matches: Collection[NDArray[np.float64]]) -> NDArray[np.float64]:
    """In deviations of what shifts do at random."""
    mean = np.mean(list(matches), axis=0)
    around = np.concatenate([mean[:, :6].ravel(), mean[:, -6:].ravel()])
    middle = float(np.median(mean))
    spread = max(1.4826 * float(np.median(np.abs(mean - middle))), float(np.std(around)) / 2, 1e-3)
    return (mean - middle) / spread
