"""Two publishers of one transform are found; what robots do is not taken for them."""

from __future__ import annotations

import numpy as np

from spatial_mllm_ros.scene.rigid import Rigid, rigid
from spatial_mllm_ros.scene.transform_watch import OFTEN, TransformWatch

MS = 1_000_000
CHAIN = ("camera", "base", "odom", "map")


def at(x: float, angle: float = 0.0) -> Rigid:
    return rigid(x, 0, 0, 0, 0, float(np.sin(angle / 2)), float(np.cos(angle / 2)))


def test_two_localisers_that_disagree_are_found():
    watch = TransformWatch()
    for k in range(OFTEN + 2):
        watch.add("map", "/odom", k * 100 * MS, at(0.01 * k))
        watch.add("map", "odom", k * 100 * MS + 30 * MS, at(0.5 + 0.01 * k, 0.2))
    doubt = watch.doubt(CHAIN)
    assert doubt is not None
    assert doubt.kind == "tf_publishers"
    assert "map -> odom leaps to and fro by 0.5" in doubt.text
    assert "tf_namespace" in doubt.remedy


def test_a_frame_with_two_parents_in_turn_is_found():
    watch = TransformWatch()
    for k in range(2 * OFTEN + 2):
        watch.add(("map", "odom")[k % 2], "base", k * 20 * MS, at(1.0))
    assert "base hangs below" in watch.doubt(CHAIN).text


def test_publishers_that_agree_a_restart_and_a_correction_are_no_contradiction():
    watch = TransformWatch()
    for k in range(50):
        watch.add("map", "base", k * 100 * MS, at(0.1 * k))
        watch.add("map", "base", k * 100 * MS + 10 * MS, at(0.1 * k + 0.01))  # a second one, which agrees
    for k in range(50, 100):
        watch.add("map", "base", k * 100 * MS, at(0.1 * k + 2.0))  # a loop was closed
    for k in range(20):
        watch.add("map", "base", k * 100 * MS, at(0.0))  # played again
    assert watch.doubt(CHAIN) is None


def test_a_robot_that_goes_to_and_fro_slowly_is_none():
    watch = TransformWatch()
    for k in range(60):
        watch.add("map", "base", k * 1000 * MS, at(0.5 * (k % 2)))
    assert watch.doubt(CHAIN) is None


def test_two_publishers_with_the_same_stamps_are_found():
    """The later one of each moment replaces the other in a tree, so that nothing leaps."""
    watch = TransformWatch()
    for k in range(OFTEN + 1):
        watch.add("map", "base", (k + 1) * 100 * MS, at(0.1 * k))
        watch.add("map", "base", (k + 1) * 100 * MS, at(0.1 * k + 1.0))
    assert "two places in map at one moment, 1.00 m" in watch.doubt(CHAIN).text
    assert watch.doubt(("other",)) is None


def test_two_publishers_are_found_while_the_robot_turns():
    watch = TransformWatch()
    for k in range(20):
        watch.add("map", "base", k * 100 * MS, at(0.05 * k, 0.06 * k))
        watch.add("map", "base", k * 100 * MS + 60 * MS, at(0.05 * k + 0.3, 0.06 * k))
    assert "leaps to and fro by 0.3" in watch.doubt(CHAIN).text


def test_a_rare_second_publisher_is_found():
    watch = TransformWatch()
    for k in range(100):
        watch.add("map", "base", k * 20 * MS, at(0.01 * k))
        if k % 6 == 5:
            watch.add("map", "base", k * 20 * MS + 10 * MS, at(0.01 * k + 0.5))
    assert watch.doubt(CHAIN) is not None


def test_jitter_is_no_second_publisher():
    rng = np.random.default_rng(0)
    watch = TransformWatch()
    for k in range(500):
        watch.add("map", "base", k * 100 * MS, at(0.03 * k + 0.05 * rng.standard_normal(), 0.03 * rng.standard_normal()))
    assert watch.doubt(CHAIN) is None


def test_two_mounts_on_tf_static_that_differ_are_found():
    watch = TransformWatch()
    watch.add("base", "camera", 0, at(0.2), static=True)
    watch.add("base", "camera", 0, at(0.2), static=True)
    assert watch.doubt(CHAIN) is None
    watch.add("base", "camera", 0, at(0.5), static=True)
    assert "camera is fixed in base 0.30 m" in watch.doubt(CHAIN).text
