"""Depth and poses for a camera that has none: windows of predicted geometry, chained, with metres where something tells."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.perception.rgb.config import RgbGeometryConfig
from spatial_mllm_ros.perception.rgb.gate import ImageGate
from spatial_mllm_ros.perception.rgb.loops import LoopSearch
from spatial_mllm_ros.perception.rgb.releases import PREDICTED_DEPTH, PlacedFrames
from spatial_mllm_ros.perception.rgb.relocation import Relocation
from spatial_mllm_ros.perception.rgb.submap import Submap
from spatial_mllm_ros.perception.rgb.thread import RgbGeometryThread
from spatial_mllm_ros.perception.rgb.update import CHAIN_FRAME, UP_TO_SCALE, RgbGeometryStatus, Update, is_own_world
from spatial_mllm_ros.perception.rgb.warning_limit import WarningLimit
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.metric_scale import MetricScale
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sim3 import NotAligned
from spatial_mllm_ros.scene.window import InvalidWindow
from spatial_mllm_ros.serving.interface import GeometryPredictor

__all__ = [
    "CHAIN_FRAME",
    "PREDICTED_DEPTH",
    "UP_TO_SCALE",
    "RgbGeometry",
    "RgbGeometryConfig",
    "RgbGeometryStatus",
    "RgbGeometryThread",
    "Update",
    "is_own_world",
]

log = logging.getLogger(__name__)

_BLANK = 3.0  # deviation of grey levels over an image of a covered lens


class RgbGeometry:
    """Turns color frames into frames with depth, camera and pose, for a memory to take in unchanged.

    ``add`` and ``status`` are safe from any thread and quick; ``run_window`` is for one thread and as slow as the
    predictor. For a recording ``take`` does both. What comes out is an Update for the memory.

    Frames with poses keep them: the depth is scaled to metres by aligning the chain of windows to those poses. Frames
    with depth, if only some or sparse, give the scale themselves, and dense measured depth is kept. As long as nothing
    tells metres, the geometry is in a unit of its own in the world frame ``up_to_scale_N`` and ``scale`` says why.

    When the chain breaks, a new submap begins. Where poses are measured, submaps share the world of these. Without, the
    memory stays as it is while every window of the new submap is searched for what was seen before; once that is found,
    the old submap goes on with the new windows. When ``max_held`` images have come and it is not, the memory starts over
    with the new submap. A submap without measured poses that comes back to where it was long ago is bent accordingly.

    One camera: frames of others are left out and counted. clock: seconds, for the load and the waiting.
    """

    def __init__(
        self,
        predictor: GeometryPredictor,
        config: RgbGeometryConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.predictor = predictor
        self.config = config or RgbGeometryConfig()
        self._clock = clock
        self._lock = threading.RLock()
        self._gate = ImageGate(self.config, clock, self._lock)
        self._warnings = WarningLimit(clock)
        self.generation = 0
        """Counts resets."""
        self.reset()
        self._start_over()

    def reset(self) -> None:
        """Forget everything, for a memory that starts over. From any thread: a window in progress comes to nothing."""
        with self._lock:
            self._gate.reset()
            self._corrections: dict[int, Transform] = {}
            self._dropped: Counter[str] = Counter()
            self.generation += 1

    def _start_over(self) -> None:
        """What a reset means for the thread of ``run_window``."""
        self._at_generation = self.generation
        self._windows = 0
        self._window_s = 0.0
        self._not_before = -np.inf
        self._failures = 0
        self._room: int | None = None  # after a failure: fewer images in the next window
        self._breaks = self._relocated = self._closed = 0
        self._loops = LoopSearch()
        self._releases = PlacedFrames(self.config, self._gate)
        self._submap = Submap(self.config, 0, [], "no window of images has been seen yet")
        self._relocation: Relocation | None = None  # while what the camera sees is not connected to the memory

    # ---- frames in

    def add(self, frame: Frame) -> None:
        """Take a frame in, if it shows something new."""
        self._gate.add(frame)

    def take(self, frame: Frame) -> list[Update]:
        """``add``, and run what windows are due: for recordings."""
        self.add(frame)
        return self._run_all(force=False)

    def finish(self) -> list[Update]:
        """Run windows until no image waits: at the end of a recording."""
        return self._run_all(force=True)

    def _run_all(self, force: bool) -> list[Update]:
        updates: list[Update] = []
        while self.due(force):
            update = self.run_window(force)
            if update is not None:
                updates.append(update)
        update = self.run_window()  # images between windows
        return updates if update is None else [*updates, update]

    def due(self, force: bool = False) -> bool:
        """Whether ``run_window`` would run one now."""
        with self._lock:
            if force:
                return bool(len(self._gate))
            return self._clock() >= self._not_before and self._gate.is_due(self._new_images)

    @property
    def _new_images(self) -> int:
        """How many new images the next window takes."""
        room = self.config.window_size - len(self._submap.shared)
        return room if self._room is None else min(room, self._room)

    def correct_poses(self, poses: Mapping[int, Transform]) -> None:
        """Take better measured poses: {stamp in ns: T_world_camera}, as given to ``SpatialMemory.correct_poses``.

        They count from the next window on. Stamps of images that take no part are ignored.
        """
        with self._lock:
            self._corrections.update(poses)
            self._gate.correct_poses(poses)

    def _correct(self) -> None:
        with self._lock:
            corrections, self._corrections = self._corrections, {}
        for submap in {self._submap, self._known}:
            self._releases.correct_poses(submap, corrections)

    # ---- windows

    def run_window(self, force: bool = False) -> Update | None:
        """Run the predictor on one window and say what the memory has to do; None when that is nothing.

        force: also when it is not full yet or the predictor has had its share of time. A window that fails is counted,
        and tried again with fewer images; the next goes on from the last good one. The predictor may run a second time to
        see whether the camera is back where it was.
        """
        with self._lock:
            if self.is_stale:
                self._start_over()
            if not self.due(force):
                return self._releases.between(self._submap)
            new = self._picked()
        self._correct()
        begin = self._clock()
        images, new = self._images(new)
        if new and self._chain(images, new):
            self._look_back(len(new))
        if self.is_stale:
            return None
        took = self._window_s = self._clock() - begin
        self._not_before = begin + took / self.config.max_load
        if self._relocation is not None:
            self._releases.hold(self._submap)
            return None
        return self._releases.settle(self._submap)

    def _picked(self) -> list[Frame]:
        """The new images of the next window. When further windows wait behind it, they are given up for the newest."""
        room, count = self._new_images, len(self._gate)
        if count >= 2 * room and self.config.max_load < 1 and self._room is None:
            frames = self._gate.pick_spread(room)
            self._dropped["too_slow"] += (count - len(frames)) // room
            return frames
        return self._gate.pick(room)

    def _images(self, new: list[Frame]) -> tuple[NDArray[np.uint8], list[Frame]]:
        """Images [T, H, W, 3] shared with the last window and of the new frames; those that do not decode, have another
        size or show nothing at all are left out."""
        images, kept = [image for _, image in self._submap.shared], []
        for frame in new:
            try:
                image = frame.rgb()
            except ValueError:
                image = None
            if image is None or (images and image.shape != images[0].shape):
                self._gate.leave_out("bad_image" if image is None else "image_size")
            elif float(image[::8, ::8].mean(axis=2).std()) < _BLANK:
                self._gate.leave_out("blank")
            else:
                images.append(image)
                kept.append(frame)
        return np.stack(images) if images else np.empty((0, 0, 0, 3), np.uint8), kept

    def _chain(self, images: NDArray[np.uint8], new: list[Frame]) -> bool:
        """Add a window to the submap; whether that went well."""
        try:
            geometry = self.predictor.predict(images)
            if self.is_stale:
                return False
            if len(geometry) != len(images):
                raise InvalidWindow("window_shape", f"{len(images)} images gave geometry of {len(geometry)}")
            taken = self._submap.add(geometry, new, images)
        except (InvalidWindow, NotAligned) as error:
            if (more := self._warnings.due(error.reason)) is not None:
                log.warning("a window of %d images is dropped: %s%s", len(images), error, more)
            self._failed(error.reason, new)
            self._failures += 1
            if self._failures >= self.config.max_failures:
                self._break(str(error))
            return False
        except Exception:  # whatever a predictor raises, the camera goes on
            if (more := self._warnings.due("predictor_failed")) is not None:
                log.exception("the geometry predictor %s failed%s", self.predictor.name, more)
            self._failed("predictor_failed", new)  # which says nothing about the images: the chain holds
            return False
        if len(taken) < len(new):
            self._gate.leave_out("unsupported", len(new) - len(taken))
        self._windows += 1
        self._failures, self._room = 0, None
        return True

    def _failed(self, reason: str, new: list[Frame]) -> None:
        """Count a window that came to nothing, and see what becomes of its images."""
        with self._lock:
            self._dropped[reason] += 1
            if self._room is None and len(new) > 1:  # once more, with those nearest to what is known
                self._gate.put_back(new)
                self._room = (len(new) + 1) // 2
            else:
                self._gate.leave_out("window_dropped", len(new))
                self._room = None

    def _break(self, message: str) -> None:
        """Begin a new submap, and look out for the old one if the memory depends on it."""
        old, releases = self._submap, self._releases
        if (more := self._warnings.due("break")) is not None:
            log.warning("the chain breaks after %d failed windows: a new submap begins%s", self._failures, more)
        releases.submap_ends(old)
        if not releases.holds(old):
            releases.give_up(old)
            if self._relocation is not None:
                self._relocation.begin_again()
        else:
            self._relocation = Relocation(old)
        reason = f"the last {self._failures} windows of images could not be used: {message}"
        with self._lock:
            self._breaks += 1
            self._failures, self._room = 0, None
            self._submap, self._loops = Submap(self.config, self._breaks, old.focal_logs, reason), LoopSearch()

    def _look_back(self, new: int) -> None:
        """See whether the newest window, with so many new images, shows something from before: what the memory knows, after
        a break, else where the camera was long ago. The predictor runs once more at most."""
        submap = self._submap
        if self._releases.is_placed and submap.is_measured:
            self._relocation = None  # it is in the world of the memory anyway
        relocation = self._relocation
        try:
            if relocation is not None:
                relocation.seen += new
                found = relocation.look(self.predictor, submap)
            else:
                found = self._loops.look(self.predictor, submap)
        except (InvalidWindow, NotAligned) as error:
            log.debug("what the camera sees shows nothing from before: %s", error)
            found = None
        except Exception:
            if (more := self._warnings.due("predictor_failed")) is not None:
                log.exception("the geometry predictor %s failed%s", self.predictor.name, more)
            found = None
        if self.is_stale:
            return
        with self._lock:
            if relocation is None:
                if found is not None:
                    submap.chain.close_loop(found.link, found.window, found.before)
                    self._closed += 1
            elif found is not None:
                log.info("the camera is back where it was: the chain goes on")
                relocation.old.join(submap, found.link_of_first(submap), found.before)
                self._submap, self._relocation, self._loops = relocation.old, None, LoopSearch()
                self._relocated += 1
            elif relocation.seen > self.config.max_held:
                self._relocation = None

    # ---- what is known

    @property
    def _known(self) -> Submap:
        """The submap that the memory knows."""
        relocation = self._relocation
        return self._submap if relocation is None else relocation.old

    def predicted_poses(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Stamps [n] (ns) and poses [n, 4, 4] of the submap as the images alone show them, in the unit of ``scale``.

        Not while ``run_window`` runs.
        """
        submap = self._known
        if not submap.images:
            return np.empty(0, dtype=np.int64), np.empty((0, 4, 4))
        poses = submap.chain_poses(submap.log_scales()[0])
        return np.array(list(submap.images), dtype=np.int64), np.stack(poses)

    def status(self) -> RgbGeometryStatus:
        """How it goes; for diagnostics."""
        with self._lock:
            submap, relocation = self._known, self._relocation
            focal_logs = list(submap.focal_logs)
            return RgbGeometryStatus(
                self._windows,
                dict(self._dropped),
                dict(self._gate.left_out),
                len(self._gate),
                self._releases.held,
                self._breaks,
                submap.metres.scale,
                submap.metres.disagreement,
                float(np.exp(np.median(focal_logs))) if focal_logs else None,
                self._window_s,
                self._relocated,
                0 if relocation is None else relocation.seen,
                self._closed,
            )

    @property
    def is_stale(self) -> bool:
        """Whether a reset came after the last window began."""
        return self._at_generation != self.generation

    @property
    def scale(self) -> MetricScale:
        """Metres, or why there are none."""
        return self._known.metres.scale
