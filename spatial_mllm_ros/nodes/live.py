"""The live engine: messages in, frames into memory, questions answered beside it. Without any middleware.

A node is a shell around it: it subscribes to ``streams``, hands every message to ``offer``, passes questions to ``ask``
and publishes what ``on_keyframes`` and ``status`` give. ros_node.py and dds_node.py use it unchanged.

Threads: callbacks of the node only append to a queue; one thread decodes, assembles frames and adds them to the memory;
``query_workers`` answer by geometry, a few ask the model; one publishes keyframes, one has the model encode them, one
makes geometry from color. None of them waits for another but through bounded queues, so that an answer from geometry
never waits for the model's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from spatial_mllm_ros.answering.context import QueryConfig, zone
from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.answering.model_backend import ModelBackend
from spatial_mllm_ros.dds.interfaces import MalformedPayload, interfaces
from spatial_mllm_ros.memory.keyframes.coverage import Selection
from spatial_mllm_ros.memory.keyframes.streaming import SelectorConfig
from spatial_mllm_ros.memory.spatial_memory import MemoryConfig, SpatialMemory
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.nodes.batch import BatchAnswer, BatchRequest, SharedState, gathered
from spatial_mllm_ros.nodes.diagnosis import (
    NOTHING,
    SET_UP,
    Finding,
    Level,
    LiveStatus,
    QueryStatus,
    StreamStatus,
    findings,
)
from spatial_mllm_ros.nodes.geometry import LiveGeometry
from spatial_mllm_ros.nodes.inbox import Inbox, Kind, Stream
from spatial_mllm_ros.nodes.model import ConfigurationError, ServedPredictor, load_geometry, load_model
from spatial_mllm_ros.nodes.parameters import PARAMETERS, Change, ParameterError, Settings
from spatial_mllm_ros.nodes.progress import Progress, at_latest
from spatial_mllm_ros.nodes.queries import OnText, QueryPool
from spatial_mllm_ros.nodes.readers import make_reader
from spatial_mllm_ros.nodes.surroundings import Surroundings
from spatial_mllm_ros.nodes.time_line import TimeLine
from spatial_mllm_ros.perception.rgb.rgb_geometry import Update
from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.scene.assembler import AssemblerSettings, FrameAssembler
from spatial_mllm_ros.scene.camera import CameraModel, InvalidCamera
from spatial_mllm_ros.scene.depth import DepthFormat
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import InvalidTransform, Transform
from spatial_mllm_ros.scene.rigid import Rigid
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.transform_tree import NO_STDDEV, Stddev, TransformTree, frame_name, whose_pose
from spatial_mllm_ros.scene.transform_watch import TransformWatch
from spatial_mllm_ros.serving.interface import SpatialModel
from spatial_mllm_ros.sources import messages
from spatial_mllm_ros.sources.calibration import sensor_from_yaml
from spatial_mllm_ros.sources.compressed import BadImage
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.topics import POSE_TYPES, is_rectified

log = logging.getLogger(__name__)

Moving = tuple[str, str, int, Rigid, Stddev]
"""A moving transform: parent, child, stamp (ns), T_parent_child and its deviation."""
SECOND = 1_000_000_000
BEFORE_EVERYTHING = -(2**63)
IDLE_S = 2.0
"""When nothing has come for so long, images that still wait for their depth or transform are taken in as they are."""

LATEST_TRANSFORMS = 2000
MOST_FAULTS = 4
TELL_S, TELL_AGAIN_S = 1.0, 30.0
"""Faults are looked for this often, and one that lasts is told in the log this often."""
MODEL_WORKERS = 8
"""The model answers one question at a time; the others of these wait for it, or have geometry's answer meanwhile."""

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO, TF_MESSAGE = "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage"


@dataclass(frozen=True)
class KeyframeSet:
    """The keyframes as they are now, best first.

    voxels: what each covers alone. stamp_ns: of the newest frame considered. world_frame: of all poses.
    """

    selection: Selection
    frames: tuple[StoredFrame, ...]
    voxels: tuple[int, ...]
    stamp_ns: int
    world_frame: str


@dataclass(eq=False)
class _Scene:
    """What is forgotten together when the clock is set back."""

    assembler: FrameAssembler
    memory: SpatialMemory
    query: SpatialQueryEngine


class LiveEngine:
    """Holds what streams in and answers questions about it. Safe to use from several threads.

    settings: see parameters.py. clock: nanoseconds now, on the time line of the stamps. on_keyframes: called from a thread
    of the engine's when the keyframes have changed. monotonic: seconds. load_model: called when the settings name a model;
    returns it loaded, or raises ConfigurationError. load_geometry: the same for the predictor of geometry from color.
    surroundings: what others publish, where the node knows. subscribe: called from a thread of the engine's with a stream
    that was found under way, and is in ``streams`` from then on. troubles: what is wrong with the node's set-up, such as
    parameters that do not exist.

    Raises ConfigurationError when something named in the settings cannot be had. ``close`` it when it is done with.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], int] = time.time_ns,
        on_keyframes: Callable[[KeyframeSet], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        load_model: Callable[[Settings], SpatialModel] = load_model,
        load_geometry: Callable[[Settings], ServedPredictor] = load_geometry,
        surroundings: Surroundings | None = None,
        subscribe: Callable[[Stream], None] = lambda stream: None,
        troubles: Sequence[str] = (),
    ) -> None:
        self.settings = settings
        self.on_keyframes = on_keyframes
        self.refused: Counter[tuple[Stream, str]] = Counter()
        """Messages that became no part of a frame because of what is in them, by stream and reason."""
        self.throttled = 0
        """Frames left out because of max_frame_rate_hz."""
        self.resets = 0
        """How often the memory was forgotten because the clock was set back."""
        self._clock = clock
        self._monotonic = monotonic
        self._sensor = _sensor_model(settings.sensor_model)
        predictor = load_geometry(settings) if settings.rgb_geometry else None
        try:
            self._model = load_model(settings) if settings.model else None
        except BaseException:
            if predictor is not None:
                predictor.close()
            raise
        self._backend = None if self._model is None else ModelBackend(self._model, settings.model_max_frames)
        try:
            self._reader = make_reader(settings, self._model)
        except BaseException:
            for loaded in (predictor, self._model):
                if loaded is not None:
                    loaded.close()
            raise
        self._inbox = Inbox(_streams(settings), monotonic)
        self._inbox.close()
        self._handlers = {stream: self._handler(stream) for stream in self.streams}
        self._faults: dict[Stream, str] = {}
        self._mismatches: dict[Stream, str] = {}
        self._surroundings = surroundings
        self._troubles = tuple(troubles)
        self._diagnosed: LiveStatus | None = None
        self._infos: dict[Stream, CameraModel] = {}
        self._sizes: dict[tuple[str, Kind], tuple[int, int]] = {}
        """(width, height), px, of the latest image, by camera and the kind of CameraInfo that goes with it."""
        self._last_kept: dict[str, int] = {}
        jump_ns = int(settings.clock_reset_s * SECOND)
        self._progress = Progress(monotonic)
        self._subscribe = subscribe
        self._pose_frame = ""
        """Whose pose pose_topic tells; '' until its first message."""
        self._watch = TransformWatch()
        self._camera_frame = ""
        self._early_poses: deque[tuple[Stream, Any]] = deque(maxlen=LATEST_TRANSFORMS)
        """From before the first image, which tells the camera's frame."""
        self._lines = {s.camera: TimeLine(jump_ns, self._refuse, monotonic) for s in self.streams}
        self._transforms: deque[Moving] = deque(maxlen=LATEST_TRANSFORMS)
        """The moving ones that came last: those of a time line that begins anew come before it is believed."""
        self._geometry = None if predictor is None else LiveGeometry(predictor, settings, self._update, monotonic)
        self._newest_given = BEFORE_EVERYTHING
        """Stamp (ns) of the newest frame that was passed on to become geometry; the memory has it later, or never."""
        self._lifecycle = threading.RLock()
        self._scene_lock = threading.RLock()
        self._scene = self._new_scene(TransformTree(int(settings.tf_history_s * SECOND), 10_000, self._max_gap_ns))

        def pool(workers: int, queue: int) -> QueryPool:
            return QueryPool(self._answer, workers, queue, settings.timeout_s, monotonic, self._can_be_answered)

        self._pool = pool(settings.query_workers, settings.query_queue)
        at_once = min(MODEL_WORKERS, settings.model_queue + 1)
        self._model_pool = pool(at_once, settings.model_queue + 1 - at_once)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._started: float | None = None

    # ---- for the node

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What to subscribe to."""
        return self._inbox.streams

    @property
    def memory(self) -> SpatialMemory:
        """What has been seen; another one after a reset."""
        return self._scene.memory

    @property
    def running(self) -> bool:
        return self._started is not None

    def offer(self, stream: Stream, message: Any) -> None:
        """Hand over a message, serialised (CDR) or not: appends to a queue, no more."""
        if stream.kind is Kind.COLOR and self.running:
            self._progress.received(stream.camera, message)
        self._inbox.put(stream, message)

    def ask(self, request: Request, on_text: OnText | None = None) -> Future[Answer]:
        """A Future that gets an Answer in time, whatever happens; see QueryPool. on_text: given the text of a model that
        answers, piece by piece."""
        pool = self._model_pool if self._backend is not None and self._scene.query.needs_model(request) else self._pool
        return pool.submit(request, on_text)

    def ask_all(self, requests: Sequence[Request]) -> Future[BatchAnswer]:
        """The answers to requests over one state of the memory; see ``ask``."""
        shared = SharedState(self.memory.snapshot, requests)
        return gathered([self.ask(BatchRequest.of(request, shared)) for request in requests], shared)

    def start(self) -> None:
        """Take messages in and answer questions. What was remembered before a ``stop`` still is."""
        with self._lifecycle:
            if self.running:
                return
            self._stop = stop = threading.Event()
            interfaces()  # before the first message waits for it
            self._inbox.open()
            self._threads = [
                threading.Thread(target=self._ingest, args=(stop,), name="ingest", daemon=True),
                threading.Thread(target=self._watch_keyframes, args=(stop,), name="keyframes", daemon=True),
                threading.Thread(target=self._tell_faults, args=(stop,), name="faults", daemon=True),
            ]
            if self._backend is not None:
                update = threading.Thread(
                    target=self._update_context, args=(self._backend, stop), name="context", daemon=True
                )
                self._threads.append(update)
            for thread in self._threads:
                thread.start()
            if self._geometry is not None:
                self._geometry.start()
            for pool in (self._pool, self._model_pool):
                pool.start()
            self._started = self._monotonic()

    def stop(self, because: str = "the node is not active", timeout_s: float = 1.0) -> None:
        """Take nothing more in, answer questions that wait or run CANCELLED with ``because``. Keeps the memory.

        Images that wait to become geometry still do.
        """
        with self._lifecycle:
            if not self.running:
                return
            self._started = None
            self._stop.set()
            self._inbox.close()
            for pool in (self._pool, self._model_pool):
                pool.stop(because, timeout_s)
            deadline = time.monotonic() + timeout_s
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    log.warning("the %s thread has not ended yet", thread.name)
            self._threads = []
            self._mismatches.clear()
            self._diagnosed = None

    def close(self) -> None:
        """Stop, and free the models. There is no way back."""
        self.stop("the node was cleaned up")
        if self._geometry is not None:
            self._geometry.close()
        if self._model is not None:
            self._model.close()

    def reset(self) -> None:
        """Forget everything but static transforms and calibrations."""
        with self._scene_lock:
            tree = self._scene.assembler.tree
            tree.forget_after(BEFORE_EVERYTHING)
            self._start_over(tree)

    def clock_set_back(self, now_ns: int) -> None:
        """The node's clock jumped back to ``now_ns``: what is of a later time is forgotten with the first image of that time.

        Not before: a single wrong /clock must not wipe the memory.
        """
        latest_ns = now_ns + int(self.settings.max_future_s * SECOND)
        if self._newest() > latest_ns:
            log.warning("the clock was set back to %.3f s: waiting for images of that time", now_ns / 1e9)
            for line in self._lines.values():
                line.clock_set_back(latest_ns)

    def qos_mismatch(self, stream: Stream, remedy: str) -> None:
        """Nothing can come on a stream because of a quality of service."""
        if self._mismatches.get(stream) != remedy:
            log.error("%s", remedy)
        self._mismatches[stream] = remedy

    def diagnose(self) -> list[Finding]:
        """What is worth telling now; a fault is what has happened since this was asked last."""
        status = self.status()
        found = findings(status, self._diagnosed, self._surroundings)
        self._diagnosed = status
        return found

    def update(self, settings: Settings) -> None:
        """Take over the values that may change at any time. Raises ParameterError for a change of others."""
        for name, parameter in PARAMETERS.items():
            if getattr(settings, name) != getattr(self.settings, name) and parameter.change is not Change.ANY_TIME:
                raise ParameterError(f"{name} can be set {parameter.change.value}")
        self.settings = settings
        for pool in (self._pool, self._model_pool):
            pool.timeout_s = settings.timeout_s
        self._scene.query.config = _query_config(settings)

    def keyframes(self) -> KeyframeSet:
        """The keyframes now."""
        memory = self.memory
        selection = memory.keyframes(self.settings.keyframes_count)
        frames = [memory.get(frame_id) for frame_id in selection.picked]
        if not all(frames):  # one was evicted in between
            return self.keyframes()
        stored = tuple(frame for frame in frames if frame is not None)
        voxels = tuple(_alone(memory, frame, gain) for frame, gain in zip(stored, selection.gains, strict=True))
        return KeyframeSet(selection, stored, voxels, max(self._newest(), 0), memory.world_frame)

    def status(self) -> LiveStatus:
        """Everything that is worth knowing about the engine now."""
        scene, inbox = self._scene, self._inbox
        streams = tuple(
            StreamStatus(
                stream,
                inbox.received[stream],
                inbox.dropped[stream],
                inbox.waiting(stream),
                inbox.rate_hz(stream),
                inbox.silent_s(stream),
                {reason: n for (s, reason), n in self.refused.items() if s == stream},
                self._faults.get(stream, ""),
                self._mismatches.get(stream, ""),
            )
            for stream in self.streams
        )
        if self.settings.pose_topic and not any(s.stream.kind is Kind.POSE for s in streams):  # of a type not known yet
            streams += (StreamStatus(_pose_stream(self.settings, POSE_TYPES[0]), 0, 0, 0, 0.0, None, {}),)
        refused = Counter(scene.assembler.refused)
        refused.update(scene.memory.refused)
        return LiveStatus(
            running_s=None if self._started is None else self._monotonic() - self._started,
            streams=streams,
            frames=len(scene.memory),
            nbytes=scene.memory.nbytes,
            max_bytes=scene.memory.config.max_bytes,
            evicted=scene.memory.evicted,
            throttled=self.throttled,
            without_depth=scene.memory.without_depth,
            world_frame=scene.memory.world_frame,
            refused=dict(refused),
            remarks=dict(scene.assembler.remarks),
            tf_counts=dict(scene.assembler.tree.counts),
            resets=self.resets,
            queries=_query_status(self._pool),
            model_queries=None if self._model is None else _query_status(self._model_pool),
            model=None if self._model is None else self._model.status(),
            geometry=None if self._geometry is None else self._geometry.status(),
            texts=dict(scene.assembler.texts),
            above=self._above(),
            image_ns=max((line.newest_ns for line in self._lines.values() if line.newest_ns is not None), default=None),
            tf_ns=self._transforms[-1][2] if self._transforms else None,
            troubles=self._troubles,
            doubts=self._doubts(),
        )

    def _above_camera(self) -> tuple[str, ...]:
        with self._scene_lock:
            return self._scene.assembler.tree.ancestors(self._camera_frame)

    def _doubts(self) -> tuple[Doubt, ...]:
        """What speaks against the settings."""
        doubts = [self._watch.doubt(self._above_camera())]
        scene = self._scene
        return (*(doubt for doubt in doubts if doubt is not None), *scene.assembler.doubts, *scene.memory.doubts)

    def _above(self) -> str:
        """The fixed frame that would be taken if the memory began now, if it is another than the memory's."""
        with self._scene_lock:
            scene = self._scene
            cameras, world = scene.memory.cameras(), scene.memory.world_frame
            root = scene.assembler.tree.root_of(cameras[0]) if cameras else None
        return root if root and root != world and not self.settings.fixed_frame and self._geometry is None else ""

    # ---- taking messages in

    def _ingest(self, stop: threading.Event) -> None:
        flushed = False
        while not stop.is_set():
            item = self._inbox.get(IDLE_S)
            if item is not None:
                flushed = False
                self._take(*item)
            elif not flushed:
                flushed = True
                self._flush()
        self._flush()

    def _take(self, stream: Stream, message: Any) -> None:
        try:
            if isinstance(message, bytes):
                message = interfaces().decode(message, stream.message_type)
            self._handlers[stream](message)
        except BadImage as error:
            self._refuse(stream, error.reason, str(error))
        except MalformedPayload as error:
            self._refuse(stream, "undecodable_message", str(error))
        except InvalidCamera as error:
            self._refuse(stream, "bad_camera_info", str(error))
        except InvalidTransform as error:
            self._refuse(stream, "tf_invalid", str(error))
        except Exception as error:  # whatever a publisher sends, the node keeps serving
            if (stream, "internal_error") not in self.refused:
                log.exception("a message on %s could not be taken in", stream.topic)
            self._refuse(stream, "internal_error", repr(error))

    def _refuse(self, stream: Stream, reason: str, text: str) -> None:
        if (stream, reason) not in self.refused:
            log.warning("%s: %s (further ones are counted, see /diagnostics)", stream.topic, text)
        self.refused[stream, reason] += 1
        self._faults[stream] = text

    def _handler(self, stream: Stream) -> Callable[[Any], None]:
        """What is done with a message of a stream."""
        compressed = stream.message_type == COMPRESSED

        def color(message: Any) -> None:
            image: NDArray[np.uint8] | EncodedImage
            if compressed:
                image, size = messages.compressed_color(message)
            else:
                image = messages.color_image(message)
                size = (image.shape[1], image.shape[0])
            self._sizes[stream.camera, Kind.CAMERA_INFO] = size
            self._add_image(
                stream, message, lambda a, stamp, frame: a.add_color(stamp, frame, image, size, stream.camera)
            )

        def depth(message: Any) -> None:
            image = messages.depth_of(message, self.settings.inputs)
            self._sizes[stream.camera, Kind.DEPTH_CAMERA_INFO] = (image.shape[1], image.shape[0])
            self._add_image(stream, message, lambda a, stamp, frame: a.add_depth(stamp, frame, image, stream.camera))

        def camera_info(message: Any) -> None:
            size = self._sizes.get((stream.camera, stream.kind))
            model = messages.camera_model(message, is_rectified(self._image_topic(stream)), size)
            self._infos[stream] = model
            stamp_ns = messages.stamp_ns(message.header.stamp)
            fits = self._lines[stream.camera].fits(stream, stamp_ns)
            if not fits:
                self._scene.assembler.remarks["info_clock"] += 1
            self._assemble(lambda a: _add_info(a, stream, stamp_ns if fits else BEFORE_EVERYTHING, model))

        def transforms(message: Any) -> None:
            static = stream.kind is Kind.TF_STATIC
            for stamped in message.transforms:
                try:
                    parent, child, stamp, T = messages.transform(stamped)
                except InvalidTransform as error:
                    self._refuse(stream, "tf_invalid", str(error))
                    continue
                if self._pose_frame and frame_name(child) == self._pose_frame:
                    continue  # pose_topic tells that
                if static or frame_name(child) in self._above_camera():
                    self._watch.add(parent, child, stamp, T, static)
                self._add_transform(parent, child, stamp, T, static)

        def pose(message: Any) -> None:
            parent, child, stamp, T, stddev = messages.pose(message)
            if not (self._pose_frame or child or self.settings.pose_frame or self._camera_frame):
                self._early_poses.append((stream, message))
                return
            if not self._pose_frame:
                with self._scene_lock:
                    tree = self._scene.assembler.tree
                    self._pose_frame, how = whose_pose(tree, self._camera_frame, child, self.settings.pose_frame)
                log.info("%s tells the pose of %s (%s) in %s", stream.topic, self._pose_frame, how, parent)
            self._add_transform(parent, self._pose_frame, stamp, T, False, stddev)

        return {
            Kind.POSE: pose,
            Kind.COLOR: color,
            Kind.DEPTH: depth,
            Kind.CAMERA_INFO: camera_info,
            Kind.DEPTH_CAMERA_INFO: camera_info,
        }.get(stream.kind, transforms)

    def _image_topic(self, info: Stream) -> str:
        """The image topic that a CameraInfo stream belongs to."""
        kind = Kind.COLOR if info.kind is Kind.CAMERA_INFO else Kind.DEPTH
        return next((s.topic for s in self.streams if (s.kind, s.camera) == (kind, info.camera)), "")

    def _add_image(self, stream: Stream, message: Any, add: Callable[[FrameAssembler, int, str], list[Frame]]) -> None:
        """An image that is one, now or when its time line is believed."""
        self._camera_frame = self._camera_frame or frame_name(message.header.frame_id)
        while self._early_poses:
            early, pose = self._early_poses.popleft()
            self._handlers[early](pose)
        stamp_ns, frame_id = messages.stamp_ns(message.header.stamp), message.header.frame_id
        line = self._lines[stream.camera]
        due = line.take(stream, stamp_ns, lambda a: add(a, stamp_ns, frame_id))
        if line.back_to is not None:
            self._go_back(*line.back_to)
        for held in due:
            self._assemble(held)

    def _add_transform(
        self, parent: str, child: str, stamp_ns: int, T: Rigid, static: bool, stddev: Stddev = NO_STDDEV
    ) -> None:
        if not static:
            self._transforms.append((parent, child, stamp_ns, T, stddev))
        self._assemble(lambda a: a.add_transform(parent, child, stamp_ns, T, static, stddev))

    def _assemble(self, add: Callable[[FrameAssembler], list[Frame]]) -> None:
        with self._scene_lock:
            scene = self._scene
            frames = add(scene.assembler)
        self._remember(scene, frames)

    def _remember(self, scene: _Scene, frames: list[Frame]) -> None:
        shortest = 1e9 / self.settings.max_frame_rate_hz if self.settings.max_frame_rate_hz else 0.0
        for frame in frames:
            last = self._last_kept.get(frame.camera_frame)
            # A camera's stamps jitter; a twentieth of its period is forgiven so that 30 Hz at most lets 30 Hz through.
            if shortest and last is not None and 0 <= frame.stamp_ns - last < 0.95 * shortest:
                self.throttled += 1
                continue
            if self._geometry is not None and self._geometry.add(frame):
                self._newest_given = max(self._newest_given, frame.stamp_ns)
                self._last_kept[frame.camera_frame] = frame.stamp_ns
            elif scene.memory.add(frame) is not None:
                self._last_kept[frame.camera_frame] = frame.stamp_ns
        for frame in frames:  # now that the memory has them
            self._progress.taken(frame.camera_frame, frame.stamp_ns)
        if frames:
            for pool in (self._pool, self._model_pool):
                pool.wake()

    def _update(self, update: Update) -> None:
        """Geometry from color has something new; called in its thread, not after a reset."""
        update.apply_to(self._scene.memory)

    def _flush(self) -> None:
        self._assemble(FrameAssembler.flush)

    # ---- the scene

    def _new_assembler(self, tree: TransformTree) -> FrameAssembler:
        s = self.settings
        tf_wait_ns = int(s.tf_wait_s * SECOND)
        assembler = FrameAssembler(
            tree,
            s.fixed_frame,
            AssemblerSettings(
                pair_tolerance_ns=int(s.sync_tolerance_s * SECOND),
                wait_ns=tf_wait_ns,
                clock_reset_ns=int(s.clock_reset_s * SECOND),
                queue_size=60 + int(60 * s.tf_wait_s),
                pose_offset_ns=round(s.pose_offset_s * SECOND),
                image_frame=s.image_frame,
                static=s.static,
            ),
            color_only=[camera.color for camera in s.cameras if camera.depth is None],
            uncalibrated=[camera.color for camera in s.cameras if camera.info is None],
        )
        for stream, model in self._infos.items():
            _add_info(assembler, stream, BEFORE_EVERYTHING, model)
        return assembler

    def _new_scene(self, tree: TransformTree) -> _Scene:
        s = self.settings
        memory = SpatialMemory(
            MemoryConfig(
                max_frames=s.max_frames,
                max_bytes=s.max_memory_mib << 20,
                points_per_frame=s.points_per_frame,
                max_depth_m=s.coverage_depth_m,
                max_future_s=s.max_future_s,
                selector=SelectorConfig(s.pool_size, s.core_size, s.min_voxel_size_m),
            ),
            self._clock,
            first_id=self._scene.memory.next_id if hasattr(self, "_scene") else 0,  # unique while the node lives
            depth=DepthFormat(unit_m=s.inputs.depth_unit_m),
        )
        level = np.eye(4) if s.level == "fixed_frame" else None
        query = SpatialQueryEngine(
            memory,
            self._sensor,
            _query_config(s),
            level,
            self._lookup(tree),
            self._reader,
            self._backend,
            age_s=lambda stamp_ns: self._progress.age_s(stamp_ns, self._line_ns(stamp_ns), self._clock()),
            doubts=self._doubts,
        )
        return _Scene(self._new_assembler(tree), memory, query)

    def _start_over(self, tree: TransformTree) -> None:
        """With the scene's lock: nothing has been seen."""
        if self._geometry is not None:
            self._geometry.reset()
        self._scene = self._new_scene(tree)
        self._last_kept.clear()
        self._newest_given = BEFORE_EVERYTHING

    def _lookup(self, tree: TransformTree) -> Callable[[str, str, int], Transform]:
        def lookup(target: str, source: str, stamp_ns: int) -> Transform:
            with self._scene_lock:
                return tree.lookup(target, source, stamp_ns)

        return lookup

    def _line_ns(self, stamp_ns: int) -> int:
        """Newest stamp (ns) of the images, whatever became of them; at least ``stamp_ns``."""
        return max(stamp_ns, *(line.newest_ns or 0 for line in self._lines.values()))

    def _can_be_answered(self, request: Request) -> bool:
        waiting = any(self._inbox.waiting(stream) for stream in self.streams if stream.kind is Kind.COLOR)
        together = request.shared.requests if isinstance(request, BatchRequest) else (request,)
        return not any(self._progress.on_its_way(one, waiting) for one in together)

    def _answer(self, request: Request, cancelled: Callable[[], bool], on_text: OnText | None) -> Answer:
        scene = self._scene
        seen = request.shared.snapshot() if isinstance(request, BatchRequest) else None
        answer = scene.query.answer(at_latest(request, scene.memory), cancelled, on_text, seen)
        if answer.error_code is ErrorCode.NO_FRAMES and not len(scene.memory):
            why = [] if self._geometry is None else [self._geometry.why_nothing()]
            return replace(answer, error_msg="; ".join([answer.error_msg, *why, *self._why_nothing()]))
        return answer

    def _why_nothing(self) -> list[str]:
        """Why no frame has come, as /diagnostics has it."""
        found = sorted(findings(self.status(), None, self._surroundings), key=lambda f: f.name != SET_UP)
        faults = [f.message for f in found if f.level in (Level.WARN, Level.ERROR) and f.name != "questions"]
        silent = [
            s.stream.topic for s in self.status().streams if not s.received and s.stream.kind is not Kind.TF_STATIC
        ]
        return faults[:MOST_FAULTS] or ([f"nothing has come yet on {', '.join(silent)}"] if silent else [])

    def _newest(self) -> int:
        """Stamp (ns) of the newest pose in memory, or of a newer image on its way; before everything without any."""
        memory = self.memory
        tracks = [memory.track(camera) for camera in memory.cameras()]
        return max((self._newest_given, *(t.last for t in tracks if t is not None and t.last is not None)))

    def _go_back(self, first_ns: int, last_ns: int) -> None:
        """The images have begun anew at an earlier time: forget what is of the later one, unless the settings say keep."""
        self._progress.start_over()
        if self._newest() <= last_ns:
            return  # another camera has done it
        because = f"stamps jumped back to {first_ns / 1e9:.3f} s"
        with self._scene_lock:
            scene, tree = self._scene, self._scene.assembler.tree
            if self.settings.on_clock_reset == "keep":
                log.warning("%s: the memory is kept (on_clock_reset is keep)", because)
                frames, former = scene.assembler.flush(), scene.assembler
                tree.forget_after(BEFORE_EVERYTHING)
                scene.assembler = self._new_assembler(tree)
                scene.assembler.refused, scene.assembler.remarks = former.refused, former.remarks
                scene.assembler.placed_in = former.placed_in
            else:
                log.warning("%s: %d frames are forgotten (set on_clock_reset to keep them)", because, len(self.memory))
                self.resets += 1
                frames = []
                self.reset()
            for parent, child, stamp, T, stddev in self._transforms_until(last_ns + SECOND):
                self._scene.assembler.add_transform(parent, child, stamp, T, stddev=stddev)
        self._remember(scene, frames)

    def _transforms_until(self, stamp_ns: int) -> list[Moving]:
        """The transforms that came last, back to the first that is of a later time."""
        of_the_time = list(takewhile(lambda transform: transform[2] <= stamp_ns, reversed(self._transforms)))
        return of_the_time[::-1]

    # ---- keyframes

    def _watch_keyframes(self, stop: threading.Event) -> None:
        seen: tuple[int, int] | None = None
        published: tuple[int, ...] = ()
        while True:
            rate = self.settings.keyframes_rate_hz
            if stop.wait(min(1.0 / rate, 0.5) if rate else 0.5):
                return
            begin = self._monotonic()
            memory = self.memory
            now = (id(memory), memory.version)
            if not rate or self.on_keyframes is None or now == seen:
                continue
            seen = now
            try:
                keyframes = self.keyframes()
                if keyframes.selection.picked != published:
                    published = keyframes.selection.picked
                    self.on_keyframes(keyframes)
                    if stop.wait(max(0.0, 1.0 / rate - (self._monotonic() - begin))):
                        return
            except Exception:  # the node keeps serving
                log.exception("keyframes could not be published")

    # ---- faults

    def _tell_faults(self, stop: threading.Event) -> None:
        """Faults in the log: at once, and again while they last."""
        told: dict[tuple[str, str, str], float] = {}
        before: LiveStatus | None = None
        while not stop.wait(TELL_S):
            try:
                self._look_for_poses()
                status = self.status()
                found = findings(status, before, self._surroundings)
                before = status
            except Exception:  # the node keeps serving
                log.exception("the node could not be diagnosed")
                continue
            now = self._monotonic()
            for finding in found:
                # Why nothing comes changes as others come and go; what counts something is the same with another figure.
                key = (finding.name, finding.reason, finding.message if finding.reason == NOTHING else "")
                if finding.level is Level.OK or now - told.get(key, -TELL_AGAIN_S) < TELL_AGAIN_S:
                    continue
                told[key] = now
                level = logging.ERROR if finding.level is Level.ERROR else logging.WARNING
                log.log(level, "%s: %s", finding.name, finding.message)

    def _look_for_poses(self) -> None:
        """Subscribe to pose_topic once somebody publishes it, which tells its type."""
        topic, around = self.settings.pose_topic, self._surroundings
        if not topic or around is None or any(stream.kind is Kind.POSE for stream in self.streams):
            return
        types = around.published().get(around.resolve(topic), ())
        for message_type in POSE_TYPES:
            if message_type in types:
                stream = _pose_stream(self.settings, message_type)
                self._inbox.add(stream)
                self._handlers[stream] = self._handler(stream)
                self._subscribe(stream)
                log.info("listening to %s (%s)", around.resolve(topic), message_type)
                return

    def _update_context(self, backend: ModelBackend, stop: threading.Event) -> None:
        """Has the model encode the keyframes when they have changed."""
        while not stop.is_set():
            try:
                backend.update(self.memory, self.settings.keyframes_count)
            except Exception:  # the node keeps serving
                log.exception("the model's context could not be updated")
            stop.wait(self.settings.model_context_period_s)

    @property
    def _max_gap_ns(self) -> int | None:
        return int(self.settings.tf_max_gap_s * SECOND) or None


def _alone(memory: SpatialMemory, stored: StoredFrame, gain: int) -> int:
    """Voxels that a keyframe covers alone; at least ``gain``, which it added to those before it."""
    stamp = stored.frame.stamp_ns
    alone = memory.keyframes(1, stamp, stamp)
    return alone.covered if alone.picked == (stored.frame_id,) else gain


def _add_info(assembler: FrameAssembler, stream: Stream, stamp_ns: int, model: CameraModel) -> list[Frame]:
    add = assembler.add_camera_info if stream.kind is Kind.CAMERA_INFO else assembler.add_depth_info
    return add(stamp_ns, model, stream.camera)


def _streams(settings: Settings) -> list[Stream]:
    color, depth = settings.color_transport, settings.depth_transport
    streams = []
    for camera in settings.cameras:
        topics = (
            (Kind.COLOR, _with(camera.color, color), COMPRESSED if color != "raw" else IMAGE, "color_qos"),
            (Kind.CAMERA_INFO, camera.info, CAMERA_INFO, "camera_info_qos"),
            (Kind.DEPTH, _with(camera.depth, depth), COMPRESSED if depth != "raw" else IMAGE, "depth_qos"),
            (Kind.DEPTH_CAMERA_INFO, camera.depth_info, CAMERA_INFO, "camera_info_qos"),
        )
        streams += [
            Stream(
                kind,
                topic,
                message_type,
                getattr(settings, parameter),
                settings.qos_depth,
                parameter,
                settings.image_queue,
                camera.color,
            )
            for kind, topic, message_type, parameter in topics
            if topic
        ]
    robot = f"/{settings.tf_namespace.strip('/')}".rstrip("/")
    for kind, topic, parameter in (
        (Kind.TF, f"{robot}/tf", "tf_qos"),
        (Kind.TF_STATIC, f"{robot}/tf_static", "tf_static_qos"),
    ):
        streams.append(Stream(kind, topic, TF_MESSAGE, getattr(settings, parameter), 100, parameter, settings.tf_queue))
    if settings.pose_topic and settings.pose_type != "auto":
        message_type = next(name for name in POSE_TYPES if name.endswith("/" + settings.pose_type))
        streams.append(_pose_stream(settings, message_type))
    return streams


def _pose_stream(settings: Settings, message_type: str) -> Stream:
    topic, qos, queue = settings.pose_topic, settings.pose_qos, settings.tf_queue
    return Stream(Kind.POSE, topic, message_type, qos, 100, "pose_qos", queue)


def _with(topic: str | None, transport: str) -> str | None:
    return topic if topic is None or transport == "raw" else f"{topic}/{transport}"


def _query_config(settings: Settings) -> QueryConfig:
    """Raises ConfigurationError."""
    try:
        zone(settings.time_zone)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return QueryConfig(
        min_confidence=settings.min_confidence,
        base_frame=settings.base_frame,
        time_zone=settings.time_zone,
        moment_tolerance_s=settings.moment_tolerance_s,
        timeout_s=settings.timeout_s,
        max_pose_age_s=settings.max_pose_age_s,
        max_keyframes=settings.keyframes_count,
        min_model_confidence=settings.min_model_confidence,
        wait_for_context=settings.model_context == "wait",
        cross_check_with_model=settings.cross_check,
        cross_check_timeout_s=settings.cross_check_timeout_s,
    )


def _query_status(pool: QueryPool) -> QueryStatus:
    latencies = pool.latencies_s()
    return QueryStatus(
        dict(pool.answered),
        pool.waiting,
        pool.running,
        *(float(np.percentile(latencies, p)) if latencies else 0.0 for p in (50, 95, 99)),
    )


def _sensor_model(name: str) -> SensorModel:
    if name == "rgbd":
        return SensorModel()
    if name == "exact":
        return SensorModel.exact()
    path = Path(name).expanduser()
    try:
        return sensor_from_yaml(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, SourceError) as error:
        raise ConfigurationError(
            f"sensor_model is {name!r}, which is neither rgbd nor exact, nor a sensor.yaml that can be read: {error}"
        ) from error
