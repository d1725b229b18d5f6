"""A geometry predictor without torch for tests of its process: loaded there by its name, ``fake_predictor:load``.

What it does with a window, the first pixel of its first image says.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.window import InvalidWindow, WindowGeometry
from spatial_mllm_ros.serving.geometry_process import GeometryOptions
from spatial_mllm_ros.serving.interface import ModelUnavailable

GEOMETRY, NONSENSE, ERROR, DEATH, STUCK = range(5)
LOADED = "loaded"
"""In the folder that GeometryOptions.model names: a letter for each time that it was loaded."""


def load(options: GeometryOptions, progress: Callable[[str, int, int], None]) -> FakePredictor:
    progress("reading", 50, 100)
    with (Path(options.model) / LOADED).open("a") as loads:
        loads.write("x")
    return FakePredictor()


def refuse(options: GeometryOptions, progress: Callable[[str, int, int], None]) -> FakePredictor:
    raise ModelUnavailable("7.0 GiB are needed and 2.0 GiB are free")


def leave(options: GeometryOptions, progress: Callable[[str, int, int], None]) -> FakePredictor:
    print("the driver is too old", file=sys.stderr, flush=True)
    os._exit(3)


def flat(images: NDArray[np.uint8]) -> WindowGeometry:
    """A wall two units away, before a camera that moves to the right by as much as the image's second pixel says."""
    n, height, width = images.shape[:3]
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, 0, 3] = images[:, 0, 1, 0] / 100
    K = np.tile([[float(width), 0, width / 2], [0, float(width), height / 2], [0, 0, 1]], (n, 1, 1))
    depth = np.full((n, height, width), 2, np.float32)
    return WindowGeometry(T, K, depth, np.ones_like(depth))


class FakePredictor:
    """See ``geometry_predictor.GeometryPredictor``."""

    name = "a flat world"

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        what = int(images[0, 0, 0, 0])
        if what == NONSENSE:
            raise InvalidWindow("not_rigid", "the predicted poses are not rigid transforms")
        if what == ERROR:
            raise RuntimeError("out of memory")
        if what == DEATH:
            os.kill(os.getpid(), signal.SIGKILL)
        if what == STUCK:
            time.sleep(1000)
        return flat(images)
