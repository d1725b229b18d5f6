"""A recording of a few small frames, for tests of what reads and writes recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import from_quaternion
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.sources.source import Source, SourceInfo

CAMERA = CameraModel(32, 24, 30.0, 31.0, 15.5, 11.25, "plumb_bob", (0.1, -0.2, 0.001, 0.002, 0.03))
START_NS = 1_341_841_278_842_700_123


class SmallSource:
    """``count`` frames 100 ms apart that differ in everything that may differ."""

    def __init__(self, count: int = 6, start_ns: int = START_NS, T_zup: np.ndarray | None = None) -> None:
        self.info = SourceInfo(
            "small", frames=count, duration_s=count / 10, sensor=SensorModel.exact(), T_zup_from_world=T_zup
        )
        self.refused: Counter[str] = Counter()
        self.doubts: list[Doubt] = []
        self.start_ns = start_ns

    def frames(self) -> Iterator[Frame]:
        for i in range(self.info.frames or 0):
            rng = np.random.default_rng(i)
            depth = rng.integers(0, 4000, (24, 32)).astype(np.uint16)
            T = from_quaternion(rng.normal(size=4), rng.normal(size=3))
            image = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
            yield Frame(self.start_ns + i * 100_000_000, "camera_color_optical_frame", CAMERA, image, depth, T)

    def stamp_of(self, name: str) -> int:
        raise KeyError(name)


class Changed(SmallSource):
    """The same frames with some fields replaced: ``{index: {field: value}}``."""

    def __init__(self, changes: dict[int, dict[str, object]], count: int = 6) -> None:
        super().__init__(count)
        self._changes = changes

    def frames(self) -> Iterator[Frame]:
        for i, frame in enumerate(super().frames()):
            yield replace(frame, **self._changes.get(i, {}))


def assert_same_frames(a: Source, b: Source, *, exact_image: bool = True, offset_ns: int = 0) -> int:
    """Both recordings give the same frames; their number."""
    first, second = list(a.frames()), list(b.frames())
    assert [f.stamp_ns + offset_ns for f in first] == [f.stamp_ns for f in second]
    for x, y in zip(first, second, strict=True):
        assert (x.camera, x.camera_frame, x.world_frame) == (y.camera, y.camera_frame, y.world_frame)
        assert (x.depth is None) == (y.depth is None)
        assert x.depth is None or (x.depth == y.depth).all()
        assert (x.T_world_camera is None) == (y.T_world_camera is None)
        assert x.T_world_camera is None or np.abs(x.T_world_camera - y.T_world_camera).max() < 1e-12
        assert (x.image is None) == (y.image is None)
        if x.image is not None and exact_image:
            assert (x.rgb() == y.rgb()).all()
    return len(first)
