"""How sure the height of a floor is: by how much independent estimates of it differ."""

import numpy as np
import pytest

from spatial_mllm_ros.scene.gravity import ImageSurfels, estimate_gravity
from spatial_mllm_ros.scene.pose import make_transform

LEVEL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # a camera that looks along y


def images(height_of, noise=0.0, count=16):
    """Views of a floor, each of another part of it, height_of(number of the image, x)."""
    rng = np.random.default_rng(0)
    for i in range(count):
        x, y = (a.ravel() for a in np.meshgrid(np.arange(i / 4, i / 4 + 1.5, 0.06), np.arange(0, 2, 0.06)))
        z = height_of(i, x) + noise * rng.standard_normal()
        normals = np.tile((0.0, 0.0, 1.0), (len(x), 1))
        points = np.stack([x, y, np.broadcast_to(z, x.shape)], axis=1)
        yield ImageSurfels(points, normals, make_transform(LEVEL, (i / 4, -1.0, 1.4)))


def stddev(*args, **more):
    return estimate_gravity(list(images(*args, **more))).floor_stddev_m


def test_a_flat_floor_is_known_better_than_one_image_tells_it():
    assert stddev(lambda i, x: 0.0, noise=0.006) < 0.006


def test_two_halves_of_a_recording_that_disagree_by_five_centimetres_make_every_height_uncertain():
    assert stddev(lambda i, x: 0.05 * (i >= 8), noise=0.002) > 0.02


@pytest.mark.parametrize("rise", [0.04, 0.06])
def test_a_floor_that_is_higher_at_one_side_is_uncertain_by_that(rise):
    assert stddev(lambda i, x: rise * (x > 2.5)) > rise / 4
