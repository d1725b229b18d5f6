"""Depth of another view, or another moment, than the color image: told, and not answered with confidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from spatial_mllm_ros.scene.color_depth import ColorDepthCheck
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.simulation.rendered import RenderedSource

Change = Callable[[list[Frame]], list[Frame]]


@pytest.fixture(scope="module")
def tour() -> list[Frame]:
    return list(RenderedSource(seed=0, rooms=2, frames=60, rate_hz=3, width=320, height=240, noise=True).frames())


def looked_at(frames: list[Frame]) -> Doubt | None:
    check = ColorDepthCheck()
    for frame in frames:
        check.add(frame)
    return check.doubt()


def depth(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda frames: [replace(f, depth=change(f.depth)) for f in frames]


def test_depth_that_shows_what_the_image_shows_is_not_doubted(tour):
    assert looked_at(tour) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (depth(lambda d: np.roll(d, 20, axis=1)), "about 6% of its width: depth is of another view"),
        (depth(lambda d: np.roll(d, -14, axis=0)), "depth is of another view"),
        (depth(lambda d: d[:, ::-1]), "when one of the two is mirrored"),
        (lambda fs: [replace(f, depth=g.depth) for f, g in zip(fs[2:], fs, strict=False)], "of 0.67 s earlier"),
        (lambda fs: [replace(f, image=g.image) for f, g in zip(fs[1:], fs, strict=False)], "of 0.33 s later"),
    ],
    ids=["aside", "above", "mirrored", "depth late", "color late"],
)
def test_what_does_not_belong_together_is_doubted(tour, change: Change, says: str):
    doubt = looked_at(change(tour))
    assert doubt is not None
    assert doubt.kind == "depth_registration"
    assert says in doubt.text
    assert doubt.confidence <= 0.3


def test_images_without_edges_say_nothing(tour):
    assert looked_at([replace(f, image=np.full_like(f.rgb(), 128)) for f in tour]) is None
    assert looked_at([replace(f, depth=np.full_like(f.depth, 2000)) for f in tour]) is None
    rng = np.random.default_rng(0)
    assert looked_at([replace(f, image=rng.integers(0, 256, f.rgb().shape, dtype=np.uint8)) for f in tour]) is None


def test_an_image_that_does_not_decode_is_passed_over(tour):
    def broken(data: bytes) -> np.ndarray:
        raise ValueError("damaged")

    from spatial_mllm_ros.scene.images import EncodedImage

    damaged = EncodedImage(b"", broken)
    assert looked_at([replace(f, image=damaged) if i % 3 else f for i, f in enumerate(tour)]) is None
