"""What a live engine remembers: frames from the intake into a memory, which begins anew when the time of the images does."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.nodes.configs import SECOND, memory_config, query_config
from spatial_mllm_ros.nodes.geometry import LiveGeometry
from spatial_mllm_ros.nodes.inbox import Stream
from spatial_mllm_ros.nodes.intake import BEFORE_EVERYTHING, Intake
from spatial_mllm_ros.nodes.loaded import LoadedModels
from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.nodes.progress import Progress
from spatial_mllm_ros.perception.rgb.rgb_geometry import Update
from spatial_mllm_ros.scene.depth import DepthFormat
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.session.sinks import Sinks, all_sinks

log = logging.getLogger(__name__)


class LiveMemory:
    """The intake, the memory that its frames go to and the engine that answers from it; the latter two are others after a
    reset. Safe to use from several threads.

    clock: nanoseconds now, on the time line of the stamps. monotonic: seconds. on_frames: called when the memory has got
    frames.
    """

    def __init__(
        self,
        settings: Settings,
        streams: tuple[Stream, ...],
        sensor: SensorModel,
        loaded: LoadedModels,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        on_frames: Callable[[], object],
    ) -> None:
        self._settings = settings
        self.throttled = 0
        """Frames left out because of max_frame_rate_hz."""
        self.resets = 0
        """How often the memory was forgotten because the clock was set back."""
        self.progress = Progress(monotonic)
        self.sinks = Sinks(all_sinks())
        self.intake = Intake(settings, streams, self, monotonic)
        self._loaded = loaded
        self._clock = clock
        self._on_frames = on_frames
        self._sensor = sensor
        self._last_kept: dict[str, int] = {}
        self._newest_given = BEFORE_EVERYTHING
        """Stamp (ns) of the newest frame that was passed on to become geometry; the memory has it later, or never."""
        predictor = loaded.predictor
        self.geometry = None if predictor is None else LiveGeometry(predictor, settings, self._update, monotonic)
        """From color; None without."""
        self.query = self._new_query(first_id=0)

    @property
    def memory(self) -> SpatialMemory:
        """What has been seen."""
        return self.query.memory

    def update(self, settings: Settings) -> None:
        """Take over the values that may change at any time. Raises ConfigurationError."""
        self.query.config = query_config(settings)
        self._settings = self.intake.settings = settings

    def reset(self) -> None:
        """Forget everything but static transforms and calibrations."""
        self.intake.begin_anew()
        self._start_over()

    def clock_set_back(self, now_ns: int) -> None:
        """The clock jumped back to ``now_ns``: what is of a later time is forgotten with the first image of that time.

        Not before: a single wrong /clock must not wipe the memory.
        """
        latest_ns = now_ns + int(self._settings.max_future_s * SECOND)
        if self.newest_ns > latest_ns:
            self.intake.clock_set_back(latest_ns)
            log.warning("the clock was set back to %.3f s: waiting for images of that time", now_ns / 1e9)

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest pose in memory, or of a newer image on its way; before everything without any."""
        memory = self.memory
        tracks = [memory.track(camera) for camera in memory.cameras()]
        return max((self._newest_given, *(t.last for t in tracks if t is not None and t.last is not None)))

    @property
    def above(self) -> str:
        """The fixed frame that would be taken if the memory began now, if it is another than the memory's."""
        memory = self.memory
        cameras, world = memory.cameras(), memory.world_frame
        root = self.intake.root_of(cameras[0]) if cameras else None
        return root if root and root != world and not self._settings.fixed_frame and self.geometry is None else ""

    @property
    def state(self) -> object:
        """Changes with the memory."""
        memory = self.memory
        return id(memory), memory.version

    def doubts(self) -> tuple[Doubt, ...]:
        """What speaks against the settings."""
        return (*self.intake.doubts, *self.memory.doubts)

    # ---- for the intake

    def remember(self, frames: list[Frame]) -> None:
        """Frames from the intake: into the memory, at once or by way of geometry from color."""
        shortest = 1e9 / self._settings.max_frame_rate_hz if self._settings.max_frame_rate_hz else 0.0
        for frame in frames:
            last = self._last_kept.get(frame.camera_frame)
            # A camera's stamps jitter; a twentieth of its period is forgiven so that 30 Hz at most lets 30 Hz through.
            if shortest and last is not None and 0 <= frame.stamp_ns - last < 0.95 * shortest:
                self.throttled += 1
                continue
            if self.geometry is not None and self.geometry.add(frame):
                self._newest_given = max(self._newest_given, frame.stamp_ns)
                self._last_kept[frame.camera_frame] = frame.stamp_ns
            elif self.memory.add(frame) is not None:
                self._last_kept[frame.camera_frame] = frame.stamp_ns
        for frame in frames:  # now that the memory has them
            self.progress.taken(frame.camera_frame, frame.stamp_ns)
        if frames:
            self._on_frames()

    def go_back(self, first_ns: int, last_ns: int) -> None:
        """The images have begun anew at an earlier time: forget what is of the later one, unless the settings say keep."""
        self.progress.start_over()
        if self.newest_ns <= last_ns:
            return  # another camera has done it
        because = f"stamps jumped back to {first_ns / 1e9:.3f} s"
        keep = self._settings.on_clock_reset == "keep"
        if keep:
            log.warning("%s: the memory is kept (on_clock_reset is keep)", because)
        else:
            log.warning("%s: %d frames are forgotten (set on_clock_reset to keep them)", because, len(self.memory))
            self.resets += 1
            self._start_over()
        self.intake.begin_anew(last_ns + SECOND, keep=keep)

    # ----

    def _update(self, update: Update) -> None:
        """Geometry from color has something new; called in its thread, not after a reset."""
        update.apply_to(self.memory)

    def _start_over(self) -> None:
        """Nothing has been seen."""
        if self.geometry is not None:
            self.geometry.reset()
        self.query = self._new_query(self.memory.next_id)
        self._last_kept.clear()
        self._newest_given = BEFORE_EVERYTHING

    def _new_query(self, first_id: int) -> SpatialQueryEngine:
        """An engine over a memory that has seen nothing. first_id: of its frames, which is unique while the node lives."""
        settings = self._settings
        memory = SpatialMemory(
            memory_config(settings),
            self._clock,
            first_id=first_id,
            depth=DepthFormat(unit_m=settings.inputs.depth_unit_m),
            on_taken=self.sinks.give,
        )
        return SpatialQueryEngine(
            memory,
            self._sensor,
            query_config(settings),
            np.eye(4) if settings.level == "fixed_frame" else None,
            self.intake.lookup,
            self._loaded.reader,
            self._loaded.backend,
            age_s=self._age_s,
            doubts=self.doubts,
        )

    def _age_s(self, stamp_ns: int) -> float:
        """Seconds since the pose of that stamp."""
        line_ns = max(stamp_ns, self.intake.image_ns or 0)
        return self.progress.age_s(stamp_ns, line_ns, self._clock())
