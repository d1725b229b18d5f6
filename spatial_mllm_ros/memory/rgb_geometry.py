"""Depth and poses for a camera that has none: windows of predicted geometry, chained, with metres where something tells."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.memory.spatial_memory import Revision, SpatialMemory
from spatial_mllm_ros.models.geometry_predictor import GeometryPredictor
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.metric_scale import (
    MetreSource,
    MetricScale,
    NoScale,
    ScaleConfig,
    ScaleObservation,
    scale_from_depth,
    scale_from_poses,
    smoothed_scales,
)
from spatial_mllm_ros.scene.pose import Transform, invert, rotation_angle
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.sim3 import NotAligned, Sim3
from spatial_mllm_ros.scene.window import InvalidWindow, WindowGeometry, resized_depth, without_specks
from spatial_mllm_ros.scene.window_chain import ChainConfig, WindowChain

log = logging.getLogger(__name__)

PREDICTED_DEPTH = SensorModel(0.003, 0.004, 0.0, 0.01, 0.005, 0.003, 0.5)
"""What is assumed at least about predicted depth and poses in metres; the scale's own deviation comes on top."""
UP_TO_SCALE = "up_to_scale"
"""World frame, with the segment's number, of geometry whose unit is not the metre."""
CHAIN_FRAME = "rgb_geometry"
"""World frame, with the segment's number, of metric geometry without measured poses: x forward, z up where it began."""


def is_own_world(world_frame: str) -> bool:
    """Whether a fixed frame was made up here: nothing that is known of another one (its floor, say) holds in it."""
    return world_frame.startswith((UP_TO_SCALE, CHAIN_FRAME))


_HELD_LEVEL = np.array(
    [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
)  # a level camera's axes to x forward, z up
_THUMBNAIL = 16
_SAME_IMAGE = 4.0
_DEPTH_PIXELS = 5_000
_FOCAL_LENGTHS = 100
_OCCASIONAL_NS = 2 * 10**9  # depth that comes now and then comes about so far apart


@dataclass(frozen=True)
class RgbGeometryConfig:
    """How colour becomes geometry.

    window_size: images that the predictor sees at once. overlap: of these, shared with the window before.
    min_translation_m, min_rotation_rad: an image joins once the camera has moved or turned so much since the last one
    (where poses are known; else once the image has changed), or when it comes with depth after a while without.
    min_interval_s: and no sooner than this. max_wait_s: an image waits no longer than this for its window to fill.
    max_load: share of the time that the predictor may run; 1: no limit, and every image has its turn. max_waiting: images
    waiting. max_failures: windows that may fail one after the other before the chain breaks. max_held: images kept back
    until their metres are known. min_confidence: depth less sure than this, relative to the median of its image, is no
    data. dense_depth: from this share of valid pixels on, measured depth is kept instead. pose_source: what the frames'
    poses come from, for ``scale_source``.
    """

    window_size: int = 8
    overlap: int = 3
    min_translation_m: float = 0.05
    min_rotation_rad: float = 0.09
    min_interval_s: float = 0.1
    max_wait_s: float = 2.0
    max_load: float = 0.5
    max_waiting: int = 64
    max_failures: int = 3
    max_held: int = 64
    min_confidence: float = 0.2
    dense_depth: float = 0.2
    pose_source: MetreSource = MetreSource.TF
    chain: ChainConfig = field(default_factory=ChainConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.overlap < self.window_size:
            raise ValueError(f"overlap must be between 1 and window_size - 1, not {self.overlap} of {self.window_size}")
        if not 0 < self.max_load <= 1:
            raise ValueError(f"max_load must be above 0 and at most 1, not {self.max_load}")
        if self.max_waiting < 2 * self.window_size or self.max_failures < 1 or self.max_held < 1:
            raise ValueError("max_waiting must be at least twice window_size, max_failures and max_held at least 1")
        if not 0 <= self.min_confidence < 1 or not 0 < self.dense_depth <= 1:
            raise ValueError("min_confidence must be at least 0 and below 1, dense_depth above 0 and at most 1")

    @classmethod
    def for_recordings(cls, **changes: object) -> RgbGeometryConfig:
        """Every image takes part and none is dropped, however long that takes."""
        return replace(
            cls(min_translation_m=0.0, min_rotation_rad=0.0, min_interval_s=0.0, max_wait_s=1e9, max_load=1.0),
            **changes,  # type: ignore[arg-type]
        )


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

    left_out: images by reason. segment: counts the breaks of the chain. disagreement: median and spread of the ratio of
    measured to predicted depth where both are there, None where not. focal_ratio: focal length that the camera states to
    the predicted one. window_s: seconds that the last window took.
    """

    windows: int
    dropped_windows: dict[str, int]
    left_out: dict[str, int]
    waiting: int
    held: int
    segment: int
    scale: MetricScale
    disagreement: tuple[float, float] | None
    focal_ratio: float | None
    window_s: float


@dataclass(frozen=True, eq=False)
class _Released:
    """How the memory knows a frame."""

    log_scale: float
    T_world_camera: Transform
    world_frame: str


@dataclass(eq=False)
class _Image:
    """An image of the chain. window: number of its window in the segment. depth: in the window's unit, until released."""

    frame: Frame | None
    stamp_ns: int
    camera_frame: str
    window: int
    T_window_camera: Transform
    measured: Transform | None
    world_frame: str
    depth: NDArray[np.float32] | None
    camera: CameraModel
    dense: bool = False
    released: _Released | None = None


class RgbGeometry:
    """Turns colour frames into frames with depth, camera and pose, for a memory to take in unchanged.

    ``add`` and ``status`` are safe from any thread and quick; ``run_window`` is for one thread and as slow as the
    predictor. For a recording ``take`` does both. What comes out is an Update for the memory.

    Frames with poses keep them: the depth is scaled to metres by aligning the chain of windows to those poses. Frames
    with depth, if only some or sparse, give the scale themselves, and dense measured depth is kept. As long as nothing
    tells metres, the geometry is in a unit of its own in the world frame ``up_to_scale_N`` and ``scale`` says why.

    When the chain breaks, a new segment begins. Where poses are measured, segments share the world of these and what was
    known stays; without, nothing connects them and the memory starts over with the newest.

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
        self._left_out: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._anchors: list[tuple[int, NDArray[np.uint8]]] = []  # stamp and image
        self._room: int | None = None
        self.generation = 0
        """Counts resets."""
        self.reset()
        self._start_over()

    def reset(self) -> None:
        """Forget everything, for a memory that starts over. From any thread: a window in progress comes to nothing."""
        with self._lock:
            self._waiting: deque[tuple[float, Frame]] = deque()
            self._between: list[Frame] = []
            self._latest: Frame | None = None
            self._latest_depth_ns = -_OCCASIONAL_NS
            self._thumbnail: NDArray[np.float32] | None = None
            self._corrections: dict[int, Transform] = {}
            self._left_out.clear()
            self._dropped.clear()
            self.generation += 1

    def _start_over(self) -> None:
        """What a reset means for the thread of ``run_window``."""
        self._at_generation = self.generation
        self._windows = 0
        self._window_s = 0.0
        self._not_before = -np.inf
        self._held = 0
        self._memory_world = ""
        self._memory_is_placed = False  # in the world of measured poses, which outlives a segment
        self._memory_scale: MetricScale | None = None
        self._memory_sensor: SensorModel | None = None
        self._earlier_stddev = 0.0  # of the scales of former segments in the same memory
        self._segment = -1
        self._disagreement: tuple[float, float] | None = None
        self._focal_logs: deque[float] = deque(maxlen=_FOCAL_LENGTHS)
        self._new_segment()

    # ---- frames in

    def add(self, frame: Frame) -> None:
        """Take a frame in, if it shows something new."""
        reason = self._reason_to_leave_out(frame)
        with self._lock:
            if reason is not None:
                self._left_out[reason] += 1
                return
            if not self._is_new(frame):
                if frame.T_world_camera is not None:
                    self._between.append(frame)
                    if len(self._between) > self.config.max_waiting:
                        del self._between[0]
                        self._left_out["little_change"] += 1
                else:
                    self._left_out["little_change"] += 1
                return
            self._latest = frame
            if frame.depth is not None:
                self._latest_depth_ns = frame.stamp_ns
            self._waiting.append((self._clock(), frame))
            if len(self._waiting) > self.config.max_waiting:
                older = list(self._waiting)[: len(self._waiting) // 2 : 2]
                for item in older:
                    self._waiting.remove(item)
                self._left_out["too_slow"] += len(older)

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
            return bool(self._waiting) if force else self._is_due()

    def _is_due(self) -> bool:
        now = self._clock()
        if not self._waiting or now < self._not_before:
            return False
        return len(self._waiting) >= self._new_images or now - self._waiting[0][0] >= self.config.max_wait_s

    @property
    def _new_images(self) -> int:
        """How many new images the next window takes."""
        room = self.config.window_size - len(self._anchors)
        return room if self._room is None else min(room, self._room)

    def _leave_out(self, reason: str, count: int = 1) -> None:
        with self._lock:
            self._left_out[reason] += count

    def _reason_to_leave_out(self, frame: Frame) -> str | None:
        latest = self._latest
        if frame.image is None:
            return "no_image"
        if latest is not None and frame.camera_frame != latest.camera_frame:
            return "other_camera"
        if latest is not None and frame.stamp_ns <= latest.stamp_ns:
            return "out_of_order"
        return None

    def _is_new(self, frame: Frame) -> bool:
        """Whether the camera has moved, turned or, where that is not known, the image changed since the last one."""
        c, latest = self.config, self._latest
        if latest is None or not (c.min_interval_s or c.min_translation_m or c.min_rotation_rad):
            return True
        if frame.stamp_ns - latest.stamp_ns < c.min_interval_s * 1e9:
            return False
        if frame.depth is not None and frame.stamp_ns - self._latest_depth_ns > _OCCASIONAL_NS:
            return True  # it tells the scale, moved or not
        if frame.T_world_camera is not None and latest.T_world_camera is not None:
            T = invert(latest.T_world_camera) @ frame.T_world_camera
            return bool(np.linalg.norm(T[:3, 3]) >= c.min_translation_m) or rotation_angle(T) >= c.min_rotation_rad
        image = frame.rgb()
        assert image is not None
        small = image[::_THUMBNAIL, ::_THUMBNAIL].mean(axis=2, dtype=np.float32)
        before, same_size = self._thumbnail, self._thumbnail is not None and self._thumbnail.shape == small.shape
        if same_size and before is not None and float(np.abs(small - before).mean()) < _SAME_IMAGE:
            return False
        self._thumbnail = small
        return True

    def correct_poses(self, poses: Mapping[int, Transform]) -> None:
        """Take better measured poses: {stamp in ns: T_world_camera}, as given to ``SpatialMemory.correct_poses``.

        They count from the next window on. Stamps of images that take no part are ignored.
        """
        with self._lock:
            self._corrections.update(poses)
            waiting = [
                (t, replace(f, T_world_camera=poses.get(f.stamp_ns, f.T_world_camera))) for t, f in self._waiting
            ]
            self._waiting = deque(waiting)

    def _correct(self) -> None:
        with self._lock:
            corrections, self._corrections = self._corrections, {}
        for stamp, T in corrections.items():
            image = self._of_segment.get(stamp)
            if image is not None:
                image.measured = T
                if image.released is not None and self._memory_is_placed:
                    image.released = replace(image.released, T_world_camera=T)

    # ---- windows

    def run_window(self, force: bool = False) -> Update | None:
        """Run the predictor on one window and say what the memory has to do; None when none is due.

        force: also when it is not full yet or the predictor has had its share of time. A window that fails is counted,
        and tried again with fewer images; the next goes on from the last good one.
        """
        with self._lock:
            if self.is_stale:
                self._start_over()
            if not self._waiting or not (force or self._is_due()):
                between = self._released_between()
                return Update(tuple(between), (), self._memory_scale, self._memory_sensor) if between else None
            new = self._picked()
        self._correct()
        begin = self._clock()
        try:
            images, new = self._images(new)
            if new:
                geometry = self.predictor.predict(images)
                if self.is_stale:
                    return None
                if len(geometry) != len(images):
                    raise InvalidWindow("window_shape", f"{len(images)} images gave geometry of {len(geometry)}")
                self._chained(geometry, new, images)
        except (InvalidWindow, NotAligned) as error:
            self._failed(error.reason, str(error), new)
        except Exception as error:  # whatever a predictor raises, the camera goes on
            log.exception("the geometry predictor %s failed", self.predictor.name)
            self._failed("predictor_failed", repr(error), new)
        took = self._window_s = self._clock() - begin
        self._not_before = begin + took / self.config.max_load
        return self._settle()

    def _picked(self) -> list[Frame]:
        """The new images of the next window. When further windows wait behind it, they are given up for the newest."""
        room = self._new_images
        count = len(self._waiting)
        if count >= 2 * room and self.config.max_load < 1 and self._room is None:
            chosen = np.unique(np.linspace(0, count - 1, room).round().astype(int))
            frames = [self._waiting[i][1] for i in chosen]
            self._left_out["too_slow"] += count - len(frames)
            with_work = (count - len(frames)) // room
            self._dropped["too_slow"] += with_work
            self._waiting.clear()
            return frames
        return [self._waiting.popleft()[1] for _ in range(min(room, count))]

    def _images(self, new: list[Frame]) -> tuple[NDArray[np.uint8], list[Frame]]:
        """Images [T, H, W, 3] of the anchors and the new frames; those that do not decode or have another size are left out."""
        images, kept = [image for _, image in self._anchors], []
        for frame in new:
            try:
                image = frame.rgb()
            except ValueError:
                image = None
            if image is None or (images and image.shape != images[0].shape):
                self._leave_out("bad_image" if image is None else "image_size")
                continue
            images.append(image)
            kept.append(frame)
        return np.stack(images) if images else np.empty((0, 0, 0, 3), np.uint8), kept

    def _failed(self, reason: str, message: str, new: list[Frame]) -> None:
        with self._lock:
            self._dropped[reason] += 1
            self._failures += 1
            log.warning("a window of %d images is dropped: %s", len(self._anchors) + len(new), message)
            if self._room is None and len(new) > 1:  # once more, with those nearest to what is known
                self._waiting.extendleft((self._clock(), frame) for frame in reversed(new))
                self._room = (len(new) + 1) // 2
            else:
                self._left_out["window_dropped"] += len(new)
                self._room = None
        if self._failures >= self.config.max_failures:
            log.warning("the chain breaks after %d failed windows: a new segment begins", self._failures)
            self._earlier_stddev = max(self._earlier_stddev, self._scale.stddev if self._scale.known else 0.0)
            with self._lock:
                self._new_segment(f"the last {self._failures} windows of images could not be used: {message}")

    def _new_segment(self, reason: str = "no window of images has been seen yet") -> None:
        self._segment += 1
        self._failures = 0
        self._room = None  # after a failure: fewer images in the next window
        self._anchors = []
        self._chain = WindowChain(self.config.chain)
        self._of_segment: dict[int, _Image] = {}  # by stamp
        self._span: list[int] = []
        self._span_found: ScaleObservation | None = None
        self._from_poses: list[ScaleObservation] = []
        self._from_depth: list[ScaleObservation] = []
        self._camera: CameraModel | None = None
        self._base: Sim3 | None = None
        self._places: list[Sim3] = []
        self._places_from = 0
        self._reason = ""
        self._scale = MetricScale(reason=reason)

    def _chained(self, geometry: WindowGeometry, new: list[Frame], images: NDArray[np.uint8]) -> None:
        stamps = [stamp for stamp, _ in self._anchors] + [frame.stamp_ns for frame in new]
        self._chain.add(geometry, stamps)
        number = self._chain.first_index + len(self._chain) - 1
        first = len(self._anchors)
        for i, frame in enumerate(new, first):
            self._of_segment[frame.stamp_ns] = self._image(geometry, i, frame, number, images.shape[1:3])
        self._windows += 1
        self._failures, self._room = 0, None
        keep = range(max(0, len(stamps) - self.config.overlap), len(stamps))
        self._anchors = [(stamps[i], images[i]) for i in keep]
        self._observe(number)
        oldest = self._chain.first_index
        if oldest:  # images of windows that the chain no longer holds stay as they are
            for stamp in [s for s, image in self._of_segment.items() if image.window < oldest]:
                del self._of_segment[stamp]

    def _image(self, geometry: WindowGeometry, index: int, frame: Frame, number: int, size: tuple[int, int]) -> _Image:
        depth = np.where(geometry.valid[index], geometry.depth[index], np.nan).astype(np.float32)
        confidence = geometry.confidence[index]
        if np.isfinite(depth).any():
            enough = self.config.min_confidence * np.median(confidence[np.isfinite(depth)])
            depth[~(confidence >= enough)] = np.nan
            depth = without_specks(depth)
        height, width = size
        if self._camera is None or (self._camera.width, self._camera.height) != (width, height):
            self._camera = _predicted_camera(geometry, width, height)
        if frame.camera is not None:
            predicted = float(geometry.K[index, 0, 0]) * width / geometry.depth.shape[2]
            self._focal_logs.append(float(np.log(frame.camera.fx / predicted)))
        measured = _measured_depth(frame)
        if measured is not None:
            self._observe_depth(geometry, index, measured, number)
        return _Image(
            frame,
            frame.stamp_ns,
            frame.camera_frame,
            number,
            np.array(geometry.T_window_camera[index], dtype=np.float64),
            frame.T_world_camera,
            frame.world_frame,
            depth,
            frame.camera or self._camera,
            measured is not None and bool(np.isfinite(measured).mean() >= self.config.dense_depth),
        )

    # ---- metres

    def _observe_depth(self, geometry: WindowGeometry, index: int, measured: NDArray[np.float32], number: int) -> None:
        rows, columns = np.nonzero(np.isfinite(measured))
        step = max(len(rows) // _DEPTH_PIXELS, 1)
        rows, columns = rows[::step], columns[::step]
        h, w = geometry.depth.shape[1:]
        there = (
            ((rows + 0.5) * h / measured.shape[0]).astype(np.int64),
            ((columns + 0.5) * w / measured.shape[1]).astype(np.int64),
        )
        _, predicted, confidence = geometry.points(index, *there)
        try:
            log_scale, stddev, spread = scale_from_depth(
                predicted, measured[rows, columns].astype(np.float64), confidence, self.config.scale
            )
        except NoScale as error:
            self._reason = str(error)
            return
        self._from_depth.append(ScaleObservation(number, log_scale, stddev, spread))

    def _observe(self, number: int) -> None:
        """Let the newest window's poses tell the scale, together with as many before it as it takes."""
        self._span.append(number)
        places = self._chain.place()
        offset = self._chain.first_index
        self._span = [k for k in self._span if k >= offset]
        inside = set(self._span)
        known = [image for image in self._of_segment.values() if image.measured is not None]
        images = [image for image in known if image.window in inside]
        before = [
            image for image in known if image.window == self._span[0] - 1
        ]  # the anchors of the span's first window
        images = before[-self.config.overlap :] + images
        self._span_found = None
        if not images:
            self._reason = self._reason or (
                "the images come without poses and without depth, so nothing tells metres: give the camera's transform to "
                "the fixed frame, odometry or some depth"
            )
            return
        predicted = np.stack([places[i.window - offset].pose(i.T_window_camera) for i in images if i.window >= offset])
        measured = np.stack([i.measured for i in images if i.window >= offset and i.measured is not None])
        c = self.config.scale
        try:
            found, residual = scale_from_poses(predicted, measured, c)
        except NoScale as error:
            self._reason = str(error)
            if len(self._span) >= c.max_windows:
                del self._span[0]
            return
        middle = self._span[len(self._span) // 2]
        log_scale = float(np.log(found.sim3.scale * places[middle - offset].scale))
        observation = ScaleObservation(middle, log_scale, found.scale_stddev, residual)
        if found.scale_stddev <= c.enough_stddev or len(self._span) >= c.max_windows:
            self._from_poses.append(observation)
            self._span = []
        else:
            self._span_found = observation

    def _metres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log scale [K] of every window and its deviation [K], infinite without metres; ``_scale`` follows."""
        chain, offset = self._chain, self._chain.first_index
        from_poses = [*self._from_poses, *([self._span_found] if self._span_found else [])]
        observations = [
            replace(o, window=o.window - offset) for o in (self._from_depth or from_poses) if o.window >= offset
        ]
        nominal = chain.log_scales()
        nothing = np.full(len(nominal), np.inf)
        if not observations:
            self._scale = MetricScale(reason=self._reason)
            return nominal, nothing
        x, stddev = smoothed_scales(*chain.link_logs(), observations)
        what_to_do = "move the camera further sideways, by 0.5 m or more"
        if not self._from_depth and self._focal_logs:
            # With another focal length the same images mean other depths for the same motion: as much other when it
            # goes sideways, not at all when it goes forward. Evenly between the two.
            focal = abs(float(np.median(list(self._focal_logs))))
            stddev = np.hypot(stddev, focal / np.sqrt(3))
            if focal / np.sqrt(3) > 0.5 * self.config.scale.max_stddev:
                what_to_do = (
                    f"the camera's focal length as calibrated and as seen in the images differ by {np.expm1(focal):.0%}: "
                    "check its CameraInfo"
                )
        good = stddev <= self.config.scale.max_stddev
        if not good.any():
            self._scale = MetricScale(reason=f"the scale is known to {stddev.min():.0%} only; {what_to_do}")
            return nominal, nothing
        source = MetreSource.DEPTH if self._from_depth else self.config.pose_source
        residual = float(np.median([o.residual for o in observations]))
        self._scale = MetricScale(source, float(np.sqrt(np.mean(stddev[good] ** 2))), residual)
        if self._from_depth:
            ratios = np.array([o.log_scale - x[o.window] for o in observations])
            self._disagreement = float(np.exp(np.median(ratios))), residual
        return x, stddev

    # ---- frames out

    def _settle(self) -> Update | None:
        """Place every image of the segment by what is known now; what the memory has to do to follow."""
        if not len(self._chain):
            return None
        x, stddev = self._metres()
        known = self._scale.known
        images = list(self._of_segment.values())
        placed = known and any(i.measured is not None for i in images)  # in the world of the measured poses
        if placed:
            world = next(i.world_frame for i in images if i.measured is not None)
        else:
            world = f"{CHAIN_FRAME if known else UP_TO_SCALE}_{self._segment}"
        mine = any(i.released is not None for i in images)
        if self._memory_is_placed and not mine and world != self._memory_world:
            self._hold()  # the memory is in metres elsewhere: wait until this segment can join it
            return None
        forget = bool(self._memory_world) and not mine and world != self._memory_world
        if forget:
            log.warning("the memory starts over: nothing connects it to what the camera sees now (%s)", world)
        poses = self._measured_or_near(images, x) if placed else self._chain_poses(images, x)
        frames, revisions = [], []
        moved = world != self._memory_world
        for image, T in zip(images, poses, strict=True):
            k = image.window - self._chain.first_index
            if T is None or (known and not stddev[k] <= self.config.scale.max_stddev):
                if moved and image.released is not None:  # the memory drops what does not move along
                    image.released = None
                    self._leave_out("scale_uncertain")
                continue
            target = _Released(float(x[k]), T, world)
            if image.released is None:
                if image.frame is not None:
                    frames.append(self._frame(image, target))
                    image.released, image.frame, image.depth = target, None, None
            elif moved or _differs(image.released, target, 0.5 * stddev[k] if known else 0.0):
                factor = 1.0 if image.dense else float(np.exp(target.log_scale - image.released.log_scale))
                revisions.append(Revision(image.stamp_ns, image.camera_frame, T, factor, world))
                image.released = target
        self._memory_world, self._memory_is_placed = world, placed
        self._memory_scale = self._scale_to_state(images, placed, forget)
        self._memory_sensor = None if self._memory_scale is None else self._sensor()
        self._hold()
        with self._lock:
            frames += self._released_between()
        frames.sort(key=lambda frame: frame.stamp_ns)
        return Update(tuple(frames), tuple(revisions), self._memory_scale, self._memory_sensor, forget)

    def _scale_to_state(self, images: Sequence[_Image], placed: bool, forget: bool) -> MetricScale | None:
        """The scale of all that the memory holds; None where both depth and poses were measured."""
        if forget or not placed:
            self._earlier_stddev = 0.0
        released = [image for image in images if image.released is not None]
        if placed and not self._earlier_stddev and all(i.dense and i.measured is not None for i in released):
            return None
        return replace(self._scale, stddev=max(self._scale.stddev, self._earlier_stddev))

    def _sensor(self) -> SensorModel:
        """What is assumed of predicted depth, or more where windows differ by more."""
        image, pixel = self._chain.depth_errors()
        return replace(
            PREDICTED_DEPTH,
            # about ``pixel`` times the depth at the usual distances, in a form that sensors have
            depth_base_m=float(np.nanmax([PREDICTED_DEPTH.depth_base_m, 0.5 * pixel])),
            depth_quadratic_per_m=float(np.nanmax([PREDICTED_DEPTH.depth_quadratic_per_m, 0.375 * pixel])),
            depth_correlated=float(np.nanmax([PREDICTED_DEPTH.depth_correlated, image])),
        )

    def _released_between(self) -> list[Frame]:
        """Frames with poses that joined no window: of use to a memory once it is in the world of those poses."""
        if not self._memory_is_placed:
            return []
        frames, self._between = self._between, []
        return [replace(f, camera=f.camera or self._camera) for f in frames if f.world_frame == self._memory_world]

    def _hold(self) -> None:
        """Forget the oldest of the images that could not be released, beyond a bound."""
        held = [image for image in self._of_segment.values() if image.frame is not None]
        for image in held[: max(len(held) - self.config.max_held, 0)]:
            image.frame = image.depth = None
            self._leave_out("scale_came_too_late")
        self._held = min(len(held), self.config.max_held)

    def _frame(self, image: _Image, target: _Released) -> Frame:
        frame = image.frame
        assert frame is not None
        assert image.depth is not None
        depth = frame.depth
        if not (image.dense and self._scale.known):
            image.dense = False
            metres = np.float32(np.exp(target.log_scale))
            depth = resized_depth(image.depth, image.camera.height, image.camera.width) * metres
        return replace(
            frame,
            camera=image.camera,
            depth=depth,
            T_world_camera=target.T_world_camera,
            world_frame=target.world_frame,
        )

    def _chain_poses(self, images: Sequence[_Image], x: NDArray[np.float64]) -> list[Transform | None]:
        """Poses as predicted; upright if measured ones tell how the first window stands, else as if held level."""
        if self._base is None:
            first = [i for i in images if i.window == 0]
            turns = [i.measured[:3, :3] @ i.T_window_camera[:3, :3].T for i in first if i.measured is not None]
            R = turns[0] if turns else _HELD_LEVEL @ first[0].T_window_camera[:3, :3].T
            self._base = Sim3(1.0, R, np.zeros(3))
        gone = self._chain.first_index - self._places_from
        if gone > 0:  # the first window has gone: hold on to where the one that is the oldest now was last put
            was = self._places[gone]
            unit = float(np.exp(x[0])) / was.scale
            self._base = Sim3(1.0, was.rotation, unit * was.translation)
        self._places, self._places_from = self._chain.place(x, self._base), self._chain.first_index
        return [self._places[i.window - self._places_from].pose(i.T_window_camera) for i in images]

    def _measured_or_near(self, images: Sequence[_Image], x: NDArray[np.float64]) -> list[Transform | None]:
        """Measured poses; where one is missing, the nearest measured one and the predicted way from there."""
        predicted = self._chain_poses(images, x)
        known = [n for n, image in enumerate(images) if image.measured is not None]
        out: list[Transform | None] = []
        for n, image in enumerate(images):
            if image.measured is not None:
                out.append(image.measured)
                continue
            near = min(known, key=lambda m: abs(images[m].stamp_ns - image.stamp_ns))
            there, here, anchor = predicted[near], predicted[n], images[near].measured
            assert there is not None
            assert here is not None
            assert anchor is not None
            out.append(anchor @ invert(there) @ here)
        return out

    def predicted_poses(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Stamps [n] (ns) and poses [n, 4, 4] of the segment as the images alone show them, in the unit of ``scale``.

        Not while ``run_window`` runs.
        """
        images = list(self._of_segment.values())
        if not images:
            return np.empty(0, dtype=np.int64), np.empty((0, 4, 4))
        poses = self._chain_poses(images, self._metres()[0])
        return np.array([i.stamp_ns for i in images], dtype=np.int64), np.stack([T for T in poses if T is not None])

    def status(self) -> RgbGeometryStatus:
        """How it goes; for diagnostics."""
        with self._lock:
            return RgbGeometryStatus(
                self._windows,
                dict(self._dropped),
                dict(self._left_out),
                len(self._waiting),
                self._held,
                self._segment,
                self._scale,
                self._disagreement,
                float(np.exp(np.median(list(self._focal_logs)))) if self._focal_logs else None,
                self._window_s,
            )

    @property
    def is_stale(self) -> bool:
        """Whether a reset came after the last window began."""
        return self._at_generation != self.generation

    @property
    def scale(self) -> MetricScale:
        """Metres, or why there are none."""
        return self._scale


class RgbGeometryThread:
    """Runs the windows of an RgbGeometry in the background, as ``add`` brings images.

    on_update: called from the thread with every Update, in order; usually ``update.apply_to(memory)``. Not called any more
    with what was seen before a ``reset``.
    """

    def __init__(self, geometry: RgbGeometry, on_update: Callable[[Update], object]) -> None:
        self.geometry = geometry
        self._on_update = on_update
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._updating = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="rgb_geometry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, frame: Frame) -> None:
        """Take a frame in; never waits for the predictor."""
        self.geometry.add(frame)
        self._wake.set()

    def reset(self) -> None:
        """Forget everything: call it before the memory starts over. Does not wait for the predictor."""
        with self._updating:
            self.geometry.reset()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Stop after the window in progress; whether it ended in time."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                update = self.geometry.run_window()
                with self._updating:
                    if update is not None and not self.geometry.is_stale:
                        self._on_update(update)
            except Exception:  # one bad update must not end the geometry of all later ones
                log.exception("an update of the geometry from colour failed")
            if not self.geometry.due():
                self._wake.wait(0.1)
                self._wake.clear()


def _measured_depth(frame: Frame) -> NDArray[np.float32] | None:
    """Depth in metres, NaN for no data; None without."""
    return None if frame.depth is None else depth_to_metres(frame.depth)


def _predicted_camera(geometry: WindowGeometry, width: int, height: int) -> CameraModel:
    """The pinhole camera of images [height, width] that the window's matrices mean, the median of its images."""
    h, w = geometry.depth.shape[1:]
    fx, fy, cx, cy = (float(np.median(geometry.K[:, r, c])) for r, c in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return CameraModel(
        width,
        height,
        fx * width / w,
        fy * height / h,
        (cx + 0.5) * width / w - 0.5,
        (cy + 0.5) * height / h - 0.5,
    )


def _differs(before: _Released, now: _Released, tolerance: float) -> bool:
    if abs(now.log_scale - before.log_scale) > max(tolerance, 0.005):
        return True
    step = np.linalg.norm(now.T_world_camera[:3, 3] - before.T_world_camera[:3, 3])
    return bool(step > 0.01) or rotation_angle(invert(before.T_world_camera) @ now.T_world_camera) > 0.003
