"""A recording streamed into a spatial memory, with what is worth knowing about how that went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.answering.context import QueryConfig
from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.answering.model_backend import ModelBackend
from spatial_mllm_ros.memory.keyframes.coverage import Selection
from spatial_mllm_ros.memory.spatial_memory import MemoryConfig, SpatialMemory
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.memory.unplaced import UnplacedFrames
from spatial_mllm_ros.perception.rgb.rgb_geometry import RgbGeometry, Update
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.session.coverage_record import CoverageRecord
from spatial_mllm_ros.session.names import frame_name
from spatial_mllm_ros.session.sinks import Sinks, all_sinks
from spatial_mllm_ros.sources.pacing import paced
from spatial_mllm_ros.sources.source import HasTransforms, Source

LAST_STAMP = (1 << 63) - 1


@dataclass
class StreamReport:
    """How a stream went so far.

    frames: given by the source; taken: into the memory. refused, remarks: by reason, of source and memory together; a
    remark is about a frame that was taken without something. texts: the latest case of a reason, in figures.
    color_only: frames that came with neither depth nor pose. dropped_windows: of geometry from color, by reason.
    first_stamp, last_stamp: ns, of the frames given. wall_s: seconds since the start. costs_s: seconds that the memory
    spent on each frame. done: the source ended. live: what a node took of the recording, in words, where one was asked.
    """

    frames: int = 0
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    texts: Mapping[str, str] = field(default_factory=dict)
    color_only: int = 0
    dropped_windows: Counter[str] = field(default_factory=Counter)
    first_stamp: int | None = None
    last_stamp: int | None = None
    wall_s: float = 0.0
    costs_s: list[float] = field(default_factory=list)
    done: bool = False
    live: str = ""

    @property
    def duration_s(self) -> float:
        """Seconds between the first and the last stamp."""
        if self.first_stamp is None or self.last_stamp is None:
            return 0.0
        return (self.last_stamp - self.first_stamp) / 1e9

    @property
    def fps(self) -> float:
        """Frames a second of wall time."""
        return self.frames / self.wall_s if self.wall_s > 0 else 0.0

    def cost_percentile_s(self, percent: float) -> float:
        """Seconds that a frame costs the memory, at a percentile; 0 before the first frame."""
        return float(np.percentile(self.costs_s, percent)) if self.costs_s else 0.0


class Session:
    """One recording, the memory that it streams into, and the engine that answers about it.

    keyframes: how many keyframes are asked for. model: answers what geometry does not, see the engine; where most frames
    cannot be placed it is shown evenly spaced images. geometry: makes frames without depth, or pose, ones with both.
    The memory's clock stands at the end of time: a recording's stamps are whatever they were.
    """

    def __init__(
        self,
        source: Source,
        memory: MemoryConfig | None = None,
        query: QueryConfig | None = None,
        keyframes: int = 16,
        record_coverage: bool = True,
        model: ModelBackend | None = None,
        geometry: RgbGeometry | None = None,
    ) -> None:
        self.source = source
        self.keyframe_count = keyframes
        self.geometry = geometry
        self.sinks = Sinks(all_sinks())
        """Not started: what becomes of a frame has become of it when the next one comes."""
        self.memory = SpatialMemory(
            memory, clock=lambda: LAST_STAMP, depth=source.info.depth, on_taken=self.sinks.give
        )
        self.memory.scale = source.info.scale
        self.unplaced: UnplacedFrames | None = None
        """Images without poses, for a model to look at."""
        if model is not None:
            self.unplaced = UnplacedFrames(self._new_id, max_bytes=self.memory.config.max_bytes)
        self.engine = SpatialQueryEngine(
            self.memory,
            source.info.sensor,
            query,
            source.info.T_zup_from_world,
            source.lookup if isinstance(source, HasTransforms) else None,
            model=model,
            unplaced=self.unplaced,
            doubts=lambda: self.doubts,
        )
        self.report = StreamReport()
        self.listeners: list[Callable[[Frame, StreamReport], None]] = []
        """Called after every frame of a stream."""
        self.coverage: CoverageRecord | None = None
        if record_coverage and geometry is None:  # whose frames move while the recording goes on
            self.coverage = CoverageRecord(self.memory, keyframes, source.info.frames)

    def stream(
        self,
        rate: float = 0.0,
        limit: int = 0,
        on_frame: Callable[[Frame, StreamReport], None] = lambda frame, report: None,
    ) -> StreamReport:
        """Stream the recording: ``rate`` 1 is real time, 0 as fast as possible; ``limit`` frames at most (0: all).

        on_frame: called after every frame. Raises SourceError.
        """
        report = self.report
        begin = time.monotonic()
        for frame in paced(self.source.frames(), rate):
            before = time.perf_counter()
            frame_id = self._take(frame)
            report.costs_s.append(time.perf_counter() - before)
            report.frames += 1
            report.color_only += frame.depth is None and frame.T_world_camera is None
            report.first_stamp = frame.stamp_ns if report.first_stamp is None else report.first_stamp
            report.last_stamp = frame.stamp_ns
            report.wall_s = time.monotonic() - begin
            self._count()
            if self.coverage is not None and frame_id is not None:
                kept = self.memory.get(frame_id)
                self.coverage.add(frame_id, frame if kept is None else kept.frame)
            for listener in (*self.listeners, on_frame):
                listener(frame, report)
            if limit and report.frames >= limit:
                break
        if self.geometry is not None:
            self._follow(self.geometry.finish())
        report.wall_s = time.monotonic() - begin
        self._count()
        report.texts = dict(getattr(self.source, "texts", {}))
        report.remarks = +Counter(getattr(self.source, "remarks", None) or {})
        report.done = True
        return report

    def _take(self, frame: Frame) -> int | None:
        """A frame into the memory, at once or by way of geometry; its id, if it has one by now."""
        if self.unplaced is not None and frame.T_world_camera is None:
            self.unplaced.add(frame)
        if self.geometry is not None:
            if self.source.info.scale is not None and not self.source.info.scale.known:
                frame = replace(frame, T_world_camera=None)  # poses without metres must not pass for a source of metres
            self._follow(self.geometry.take(frame))
            return None
        frame_id = self.memory.add(frame)
        self.report.taken += frame_id is not None
        return frame_id

    def _follow(self, updates: Iterable[Update]) -> None:
        self.report.taken += sum(update.apply_to(self.memory) for update in updates)

    def _count(self) -> None:
        self.report.refused = self.memory.refused + self.source.refused
        if self.geometry is not None:
            status = self.geometry.status()
            self.report.refused += Counter(status.left_out)
            self.report.dropped_windows = Counter(status.dropped_windows)

    def _new_id(self) -> int:
        """An id that the memory will not give, so that every frame of the session has its own."""
        self.memory.next_id += 1
        return self.memory.next_id - 1

    def stored(self, frame_id: int) -> StoredFrame | None:
        """A frame that is held, whether something places it or not."""
        found = self.memory.get(frame_id)
        return self.unplaced.get(frame_id) if found is None and self.unplaced is not None else found

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What speaks against the assumptions about the recording, as its reader and the memory see it."""
        return (*self.source.doubts, *self.memory.doubts)

    @property
    def metric(self) -> bool:
        """Whether lengths are metres."""
        return self.memory.scale is None or self.memory.scale.known

    def keyframes(self) -> Selection:
        """The keyframes now."""
        return self.memory.keyframes(self.keyframe_count)

    def name_of(self, stamp_ns: int) -> str:
        """What people call the frame with that stamp: its name in the recording, else its stamp in seconds."""
        return frame_name(self.source, stamp_ns) or f"{stamp_ns / 1e9:.3f} s"

    def since_start_s(self, stamp_ns: int) -> float:
        """Seconds since the recording's first frame."""
        return (stamp_ns - (self.report.first_stamp or 0)) / 1e9

    def stored_keyframes(self) -> list[tuple[int, StoredFrame, int]]:
        """Rank (1 is the first pick), frame and voxels gained of the keyframes, in pick order."""
        selection = self.keyframes()
        picked = zip(selection.picked, selection.gains, strict=True)
        found = [(rank, self.memory.get(frame_id), gain) for rank, (frame_id, gain) in enumerate(picked, 1)]
        return [(rank, stored, gain) for rank, stored, gain in found if stored is not None]

    def positions(self) -> NDArray[np.float64]:
        """Camera positions [n, 3] in the world, metres, by stamp."""
        track = self.memory.track()
        return np.empty((0, 3)) if track is None else track.arrays()[1][:, :3]
