"""What a recording is to the rest of the package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from spatial_mllm_ros.scene.depth import AS_IT_IS, DepthFormat
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.metric_scale import MetricScale
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sensor import SensorModel


class SourceError(Exception):
    """A recording that cannot be read. ``str()`` says which file, what is wrong and what to do."""


@dataclass(frozen=True)
class SourceInfo:
    """What is known before the first frame is read.

    name: short, for titles. frames: how many frames will come, None if unknown. duration_s: seconds of recording, None
    if unknown. world_frame: the fixed frame of the poses. T_zup_from_world: world to a frame with z up and the floor at
    z = 0, where the recording declares it. scale: of poses and depth that are not known to be in metres; None: they are.
    lossy_color: pixels come from a video that was compressed with loss. sensor: its error model. description: one
    line for people. chosen: what was made of the InputSettings, a line each for people: topics, encodings, units, frames,
    rates. depth: what is taken for granted of it.
    """

    name: str
    frames: int | None = None
    duration_s: float | None = None
    world_frame: str = "map"
    T_zup_from_world: Transform | None = None
    scale: MetricScale | None = None
    lossy_color: bool = False
    sensor: SensorModel = field(default_factory=SensorModel)
    description: str = ""
    chosen: tuple[str, ...] = ()
    depth: DepthFormat = AS_IT_IS


class Source(Protocol):
    """A recording. ``frames()`` may be called again to start over; it raises SourceError."""

    info: SourceInfo
    refused: Counter[str]
    """Images that never became a frame, by reason (short words such as ``no_camera_info``), of the latest ``frames()``."""
    doubts: list[Doubt]
    """What speaks against an assumption, each kind once; grows while ``frames()`` runs."""

    def frames(self) -> Iterator[Frame]:
        """Frames in the order in which a camera would deliver them."""
        ...

    def stamp_of(self, name: str) -> int:
        """Stamp (ns) of the frame that the recording calls ``name`` ("frame-000016"), as questions files name frames.

        A recording without names takes a decimal stamp in seconds. KeyError when there is no such frame.
        """
        ...


@runtime_checkable
class HasTransforms(Protocol):
    """A recording that knows more frames than its cameras'."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """T_target_source at any time of the recording, as TransformTree.lookup."""
        ...


def check_metres(source: Source) -> None:
    """ROS's poses are metres: raises SourceError for a recording whose poses are up to scale."""
    scale = source.info.scale
    if scale is not None and not scale.known:
        raise SourceError(f"{source.info.name} cannot be given out as messages, which are in metres: {scale.reason}")
