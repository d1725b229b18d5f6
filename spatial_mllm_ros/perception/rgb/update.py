"""What comes out of geometry from color: updates of a memory, and how it goes."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_ros.memory.spatial_memory import Revision, SpatialMemory
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.metric_scale import MetricScale
from spatial_mllm_ros.scene.sensor import SensorModel

UP_TO_SCALE = "up_to_scale"
"""World frame, with the submap's number, of geometry whose unit is not the metre."""
CHAIN_FRAME = "rgb_geometry"
"""World frame, with the submap's number, of metric geometry without measured poses: x forward, z up where it began."""


def is_own_world(world_frame: str) -> bool:
    """Whether a fixed frame was made up here: nothing that is known of another one (its floor, say) holds in it."""
    return world_frame.startswith((UP_TO_SCALE, CHAIN_FRAME))


@dataclass(frozen=True, eq=False)
class Update:
    """What a memory has to do to follow: forget all, then revise, then take frames in.

    ``scale`` and ``sensor``, the error model of the geometry, hold from then on.
    """

    frames: tuple[Frame, ...] = ()
    revisions: tuple[Revision, ...] = ()
    scale: MetricScale | None = None
    sensor: SensorModel | None = None
    forget: bool = False

    def apply_to(self, memory: SpatialMemory) -> int:
        """Bring a memory up to date; how many frames it took."""
        if self.forget:
            memory.clear()
        memory.revise(self.revisions, self.scale, self.sensor)
        return sum(memory.add(frame) is not None for frame in self.frames)


@dataclass(frozen=True)
class RgbGeometryStatus:
    """How it goes. windows: chained. dropped_windows: by reason; ``too_slow``: given up to keep up with the camera.

    left_out: images by reason. submap: counts the breaks of the chain. relocated: of these, how many were mended. lost:
    images held back since a break because nothing connects them to what the memory knows; 0 while connected. loops: closed.
    disagreement: median and spread of the ratio of measured to predicted depth where both are there, None where not.
    focal_ratio: focal length that the camera states to the predicted one. window_s: seconds that the last window took.
    """

    windows: int
    dropped_windows: dict[str, int]
    left_out: dict[str, int]
    waiting: int
    held: int
    submap: int
    scale: MetricScale
    disagreement: tuple[float, float] | None
    focal_ratio: float | None
    window_s: float
    relocated: int = 0
    lost: int = 0
    loops: int = 0
