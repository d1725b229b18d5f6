"""What a handler works with: one query, and the memory as it was when it was asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Any, TypeVar, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from spatial_mllm_ros.answering.metres import POWER
from spatial_mllm_ros.answering.space import DepthLender, GravityCache
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.memory.track import PoseTrack
from spatial_mllm_ros.memory.view import MemoryView
from spatial_mllm_ros.queries.answer import Answer, Evidence, ImageBox, ImagePoint, PoseStamped, Request
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, EvidenceKind, QueryError, ScaleSource
from spatial_mllm_ros.queries.query import Query, boxes_of, points_of
from spatial_mllm_ros.queries.units import UNITS, convert, format_measure
from spatial_mllm_ros.scene.gravity import Gravity
from spatial_mllm_ros.scene.measure import CameraErrors, PointMeasurement, measure_point
from spatial_mllm_ros.scene.pose import Transform, invert, to_quaternion
from spatial_mllm_ros.scene.sensor import SensorModel

TransformLookup = Callable[[str, str, int], Transform]
"""(target frame, source frame, stamp in ns) -> T_target_source; LookupError when there is none."""


@dataclass(frozen=True)
class QueryConfig:
    """Parameters of answering.

    min_confidence: a choice or a yes/no less certain than this is ABSTAINED. moment_tolerance_s: a moment means the
    frame at most this far from it. max_gap_s: poses are not interpolated across longer gaps. level_frames: frames used
    to find up, floor and ceiling. near_m: what "around the path" means. timeout_s: time limit where the request sets
    none. max_pose_age_s: older poses are not where the camera is now; 0: any age. max_keyframes: frames for a
    model's answer where the request sets none.

    min_model_confidence: a model's answer less certain than this is ABSTAINED. wait_for_context: a model answers about
    the newest keyframes, also if it must encode them first; else about the last ones that it has encoded.
    cross_check_with_model: what geometry answers and a model can see for itself is asked of both.
    cross_check_timeout_s: how long geometry's answer waits for the model's. model_trust: how far a model's probabilities
    are believed when it confirms or doubts geometry, from 0 (guesses) to 1 (as it says); see arbitration.py.

    base_frame: the frame of the robot's base; '': base_link or base_footprint, whichever TF knows. time_zone: in which
    wall-clock times are meant, an IANA name such as Europe/Paris; '': that of this machine.
    """

    min_confidence: float = 0.6
    moment_tolerance_s: float = 0.1
    max_gap_s: float = 2.0
    gravity_frames: int = 48
    near_m: float = 3.0
    timeout_s: float = 30.0
    max_pose_age_s: float = 0.0
    max_keyframes: int = 16
    min_model_confidence: float = 0.1
    wait_for_context: bool = False
    cross_check_with_model: bool = True
    cross_check_timeout_s: float = 2.0
    model_trust: float = 0.4
    base_frame: str = ""
    time_zone: str = ""

    def __post_init__(self) -> None:
        zone(self.time_zone)
        if not 0.0 <= self.model_trust <= 1.0:
            raise ValueError(f"model_trust must be from 0 to 1, not {self.model_trust:g}")


def zone(name: str) -> tzinfo | None:
    """The time zone of an IANA name, None (that of this machine) for ''. ValueError for an unknown one."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"time_zone {name!r} is no time zone that this machine knows: give Europe/Paris, say"
        ) from error


@dataclass(eq=False, kw_only=True)
class Context:
    """One query on its way to an answer. Methods raise QueryError with the code that fits."""

    request: Request
    query: Query
    memory: MemoryView
    sensor: SensorModel
    config: QueryConfig
    gravity_cache: GravityCache
    lender: DepthLender
    lookup: TransformLookup | None = None
    deadline: float = math.inf
    cancelled: Callable[[], bool] = field(default=lambda: False)
    age_s: Callable[[int], float] = field(default=lambda stamp_ns: 0.0)
    """Seconds from a stamp (ns) to the present; a recording has none."""
    known: dict[Hashable, Any] = field(default_factory=dict)
    """What was worked out for this query already."""
    remarks: list[str] = field(default_factory=list)
    """What the answer must tell about how it was meant."""
    window_start: int = 0
    window_end: int = 0
    """ns, 0 = open: only what was seen within counts."""

    def once(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """What ``make`` returns, worked out once for a query."""
        if key not in self.known:
            self.known[key] = make()
        return cast(Result, self.known[key])

    def remark(self, text: str) -> None:
        """Tell this in the answer, once."""
        if text not in self.remarks:
            self.remarks.append(text)

    # ---- what the question refers to

    def check(self) -> None:
        """Stop here when the time is up or the caller has gone; call it in loops."""
        if self.cancelled():
            raise QueryError(ErrorCode.CANCELLED, "the question was cancelled")
        if time.monotonic() > self.deadline:
            raise QueryError(ErrorCode.TIMEOUT, "the time limit passed before the answer was found; allow more time")

    def point(self, index: int) -> tuple[PointMeasurement, StoredFrame]:
        """The measured point <p{index}>, and its frame."""
        asked = _mark(self.request.points, index, "p")
        stored = self.frame_of(asked, f"<p{index}>")
        camera = stored.frame.camera
        assert camera is not None
        if not (math.isfinite(asked.u) and math.isfinite(asked.v)) or not camera.contains((asked.u, asked.v)):
            raise QueryError(
                ErrorCode.INVALID_REQUEST,
                f"<p{index}> ({asked.u:g}, {asked.v:g}) is outside its {camera.width}x{camera.height} image",
            )
        if stored.frame.depth is None:
            raise QueryError(
                ErrorCode.NOT_SEEN,
                f"the image of <p{index}> came without depth, so the point cannot be placed in space",
            )
        measured = measure_point(stored.frame, stored.frame_id, asked.u, asked.v, self.sensor)
        if measured is None:
            raise QueryError(ErrorCode.NOT_SEEN, f"the depth camera measured nothing at <p{index}>")
        own = self.memory.get(stored.frame_id)
        if own is not None and own.frame.depth is None:  # lent by another image: the other pose's error comes on top
            other = math.hypot(self.sensor.pose_position_m, self.sensor.pose_rotation_rad * measured.z)
            measured = replace(measured, z_stddev=math.hypot(measured.z_stddev, other))
        return measured, stored

    def box(self, index: int) -> tuple[ImageBox, StoredFrame]:
        """<box{index}>, clipped to its image, and its frame."""
        asked = _mark(self.request.boxes, index, "box")
        stored = self.frame_of(asked, f"<box{index}>")
        camera = stored.frame.camera
        assert camera is not None
        if not np.isfinite([asked.u_min, asked.v_min, asked.u_max, asked.v_max]).all():
            raise QueryError(ErrorCode.INVALID_REQUEST, f"<box{index}> has coordinates that are not numbers")
        if asked.u_min >= asked.u_max or asked.v_min >= asked.v_max:
            raise QueryError(
                ErrorCode.INVALID_REQUEST, f"<box{index}> is inside out: u_min < u_max and v_min < v_max are needed"
            )
        clipped = ImageBox(
            asked.stamp_ns,
            asked.camera_frame,
            max(asked.u_min, 0.0),
            max(asked.v_min, 0.0),
            min(asked.u_max, camera.width - 1.0),
            min(asked.v_max, camera.height - 1.0),
        )
        if clipped.u_min >= clipped.u_max or clipped.v_min >= clipped.v_max:
            raise QueryError(
                ErrorCode.INVALID_REQUEST, f"<box{index}> is outside its {camera.width}x{camera.height} image"
            )
        if stored.frame.depth is None:
            raise QueryError(ErrorCode.NOT_SEEN, f"the image of <box{index}> came without depth")
        return clipped, stored

    def frame_of(self, asked: ImagePoint | ImageBox, name: str) -> StoredFrame:
        """The frame in which a point or box was marked: exactly that image, not a neighbour."""
        if asked.camera_frame and asked.camera_frame not in self.memory.cameras():
            raise QueryError(
                ErrorCode.INVALID_REQUEST,
                f"{name} names camera {asked.camera_frame!r}; known are {', '.join(self.memory.cameras())}",
            )
        stored = self.memory.nearest(asked.stamp_ns, asked.camera_frame, tolerance_ns=1000)
        if stored is None:
            raise self.no_frame(asked.stamp_ns, asked.camera_frame, name, tolerance_ns=1000)
        self.require_window(stored.frame.stamp_ns, name)
        return self.lender.with_depth(stored, self.memory)

    def frame_at(self, stamp_ns: int, label: str) -> StoredFrame:
        """The frame nearest to a stamp."""
        tolerance = int(self.config.moment_tolerance_s * 1e9)
        stored = self.memory.nearest(stamp_ns, self.camera_frame, tolerance)
        if stored is None:
            raise self.no_frame(stamp_ns, self.camera_frame, label)
        return self.lender.with_depth(stored, self.memory)

    @property
    def camera_frame(self) -> str:
        """The camera that the question is about: that of its first point or box, else the first one seen."""
        points, boxes = self.request.points, self.request.boxes
        for marks, meant in ((points, points_of(self.query)), (boxes, boxes_of(self.query))):
            for index in meant:
                if index < len(marks) and marks[index].camera_frame:
                    return marks[index].camera_frame
        return self.memory.cameras()[0]

    @property
    def track(self) -> PoseTrack:
        """Poses of ``camera_frame``."""
        track = self.memory.track(self.camera_frame)
        if track is None or not len(track):
            raise QueryError(ErrorCode.NO_FRAMES, f"camera {self.camera_frame!r} has no poses yet")
        return track

    @property
    def start(self) -> int:
        """Stamp of the first pose within the request's window."""
        stamps, _ = self.track.arrays(self.window_start, self.window_end)
        if not len(stamps):
            raise QueryError(ErrorCode.NO_FRAMES, "nothing was seen between window_start and window_end")
        return int(stamps[0])

    @property
    def now(self) -> int:
        """Stamp of the last pose within the request's window."""
        stamps, _ = self.track.arrays(self.window_start, self.window_end)
        if not len(stamps):
            raise QueryError(ErrorCode.NO_FRAMES, "nothing was seen between window_start and window_end")
        return int(stamps[-1])

    @property
    def present(self) -> int:
        """Stamp of the last pose, for what is asked about the camera as it is now. NO_FRAMES where that is too long ago."""
        stamp_ns, limit = self.now, self.config.max_pose_age_s
        age_s = 0.0 if self.window_end or not limit else self.age_s(stamp_ns)
        if age_s > limit:
            raise QueryError(
                ErrorCode.NO_FRAMES,
                f"where the camera is now is not known: its last pose is {age_s:.1f} s old, more than max_pose_age_s "
                f"({limit:g} s); ask about a moment <t0>, or see /diagnostics for what keeps poses from coming",
            )
        return stamp_ns

    def camera_at(self, stamp_ns: int, name: str = "that moment") -> CameraErrors:
        """The camera's pose at a stamp, interpolated between its neighbours, with its error sources."""
        T = self.track.at(stamp_ns, int(self.config.max_gap_s * 1e9))
        key = stamp_ns
        if T is None:
            first, last = self.track.first or 0, self.track.last or 0
            near = min((first, last), key=lambda s: abs(s - stamp_ns))
            if abs(near - stamp_ns) > self.config.moment_tolerance_s * 1e9:
                raise self.no_frame(stamp_ns, self.camera_frame, name)
            T, key = self.track.at(near, 0), near
            assert T is not None
        stored = self.memory.nearest(key, self.camera_frame)
        told = (0.0, 0.0) if stored is None else stored.frame.pose_stddev or (0.0, 0.0)
        gap = self.track.gap_stddev(key)
        if stored is None or any(gap):  # an error of its own, which no image shares
            both = math.hypot(told[0], gap[0]), math.hypot(told[1], gap[1])
            return CameraErrors(("pose", key), T, self.sensor, stamp_ns, both)
        return CameraErrors(stored.frame_id, T, self.sensor, stamp_ns, stored.frame.pose_stddev)

    def frames(self) -> list[StoredFrame]:
        """Frames held within the request's window, of ``camera_frame``, by stamp."""
        return self.memory.frames(self.window_start, self.window_end, self.camera_frame)

    def gravity(self) -> Gravity:
        """Up, floor and ceiling. NOT_SEEN where the fixed frame is the camera's own and no floor was seen: then neither the
        images nor convention tell which way is up."""
        gravity = self.gravity_cache.gravity(self.memory)
        track = self.memory.track() if gravity.assumed else None
        if track is not None and len(track) and np.array_equal(track.arrays()[1][0, 3:], (0.0, 0.0, 0.0, 1.0)):
            raise QueryError(
                ErrorCode.NOT_SEEN,
                "which way is up is not known: the camera has no pose of its own, and no floor is clearly seen",
            )
        return gravity

    def gravity_with_floor(self) -> Gravity:
        """As ``level``, NOT_SEEN where the floor was not."""
        gravity = self.gravity()
        if gravity.floor_stddev_m is None:
            raise QueryError(
                ErrorCode.NOT_SEEN,
                "the floor was not seen (no large, lowest surface facing up), so nothing is above it",
            )
        return gravity

    def require_window(self, stamp_ns: int, name: str) -> None:
        start, end = self.window_start, self.window_end
        if (start and stamp_ns < start) or (end and stamp_ns > end):
            raise QueryError(ErrorCode.INVALID_REQUEST, f"{name} lies outside the window of the question")

    def no_frame(self, stamp_ns: int, camera_frame: str, name: str, tolerance_ns: int | None = None) -> QueryError:
        track = self.memory.track(camera_frame)
        tolerance = int(self.config.moment_tolerance_s * 1e9) if tolerance_ns is None else tolerance_ns
        if track is not None and track.has_near(stamp_ns, tolerance):
            return QueryError(
                ErrorCode.NO_FRAMES,
                f"the image at {name} was dropped to stay within max_frames and max_bytes; raise them to look back further",
            )
        known = (
            "no pose is known"
            if track is None or track.first is None or track.last is None
            else (f"frames are known from {track.first / 1e9:.3f} s to {track.last / 1e9:.3f} s")
        )
        return QueryError(ErrorCode.INVALID_REQUEST, f"there is no frame at {name} ({stamp_ns / 1e9:.3f} s); {known}")

    # ---- evidence

    def evidence(self, stored: StoredFrame, label: str = "", pixel: tuple[float, float] | None = None) -> Evidence:
        """A frame, or one pixel of it, as evidence."""
        whole = frame_evidence(stored, label)
        return whole if pixel is None else replace(whole, kind=EvidenceKind.PIXEL, u=float(pixel[0]), v=float(pixel[1]))

    def box_evidence(self, stored: StoredFrame, box: ImageBox, label: str) -> Evidence:
        """A box in a frame as evidence."""
        return replace(
            frame_evidence(stored, label),
            kind=EvidenceKind.BOX,
            u_min=box.u_min,
            v_min=box.v_min,
            u_max=box.u_max,
            v_max=box.v_max,
        )

    def point_evidence(self, index: int, stored: StoredFrame) -> Evidence:
        """The marked pixel <p{index}> as evidence."""
        asked = self.request.points[index]
        return self.evidence(stored, f"<p{index}>", (asked.u, asked.v))

    def moment_evidence(self, stamp_ns: int, label: str) -> tuple[Evidence, ...]:
        """The frame nearest to a stamp, where it is still held."""
        stored = self.memory.nearest(stamp_ns, self.camera_frame, int(self.config.moment_tolerance_s * 1e9))
        return () if stored is None else (self.evidence(stored, label),)

    # ---- answers

    def in_words(self, value: float, stddev: float, unit: str) -> str:
        """A measure as text, in the unit of the question where that measures the same kind of thing."""
        scale = self.memory.scale
        if scale is not None and not scale.known and unit in POWER:
            return f"{value:.2g} of an unknown unit"
        asked = self.query.unit
        shown = asked if asked and UNITS[asked].kind == UNITS[unit].kind else {"": "percent"}.get(unit, unit)
        return format_measure(convert(value, unit, shown), convert(stddev, unit, shown), shown)

    def boolean(
        self,
        probability: float,
        evidence: tuple[Evidence, ...],
        yes: str,
        no: str,
        method: str,
        scale: ScaleSource = ScaleSource.DEPTH,
    ) -> Answer:
        """A BOOLEAN from the probability of yes; ABSTAINED when it is too close to call."""
        probability = 1 - probability if self.query.negated else probability
        value = probability >= 0.5
        confidence = probability if value else 1 - probability
        words = yes if value != self.query.negated else no
        self.require_confidence(confidence, f"it is too close to call ({probability:.0%} for yes): {words}")
        return Answer(
            answer=f"{'Yes' if value else 'No'}: {words}",
            answer_type=AnswerType.BOOLEAN,
            value=float(value),
            confidence=confidence,
            confidence_method=method,
            source=AnswerSource.GEOMETRY,
            scale_source=scale,
            evidence=evidence,
        )

    def require_confidence(self, confidence: float, message: str) -> None:
        """ABSTAINED below the configured confidence."""
        if confidence < self.config.min_confidence:
            raise QueryError(ErrorCode.ABSTAINED, message)

    def position(self, world: NDArray[np.float64], stamp_ns: int) -> PoseStamped:
        """A world position [3] as asked for: in ``frame_id`` of the request, or in the fixed frame."""
        T, frame_id = self._to_requested(stamp_ns)
        x, y, z = (T[:3, :3] @ world + T[:3, 3]).tolist()
        return PoseStamped(stamp_ns, frame_id, (x, y, z))

    def vector(self, world: NDArray[np.float64], stamp_ns: int) -> PoseStamped:
        """A world displacement [3] as asked for: in ``frame_id`` of the request, or in the fixed frame."""
        T, frame_id = self._to_requested(stamp_ns)
        x, y, z = (T[:3, :3] @ world).tolist()
        return PoseStamped(stamp_ns, frame_id, (x, y, z))

    def pose(self, T_world: Transform, stamp_ns: int) -> PoseStamped:
        """A world pose as asked for: in ``frame_id`` of the request, or in the fixed frame."""
        T, frame_id = self._to_requested(stamp_ns)
        return pose_stamped(T @ T_world, stamp_ns, frame_id)

    # ---- what was seen of the space

    def seen_points(self) -> NDArray[np.float32]:
        """Seen surface [n, 3], world. NOT_SEEN where there is none."""
        points = self.memory.seen_points(self.window_start, self.window_end)
        if not len(points):
            raise QueryError(ErrorCode.NOT_SEEN, "no frame with depth was seen within the window")
        return points

    def surfels(self) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """Points and unit normals of what was seen, by image, world."""
        images = self.gravity_cache.surfels(self.memory)
        if not images:
            raise QueryError(ErrorCode.NOT_SEEN, "no frame with depth was seen")
        return [s.points for s in images], [s.normals for s in images]

    def best_frames(self, k: int) -> tuple[Evidence, ...]:
        """The frames that show most of the space."""
        picked = self.memory.keyframes(k, self.window_start, self.window_end).picked
        held = (self.memory.get(i) for i in picked)
        return tuple(self.evidence(stored, "seen space") for stored in held if stored is not None)

    def _to_requested(self, stamp_ns: int) -> tuple[Transform, str]:
        wanted = self.query.frame_id or self.request.frame_id or self.memory.world_frame
        return self.T_frame_world(wanted, stamp_ns), wanted

    def T_frame_world(self, frame_id: str, stamp_ns: int) -> Transform:
        """World points to points of a frame at a stamp ('': the fixed frame). TF_ERROR where nothing tells it."""
        world = self.memory.world_frame
        if frame_id in ("", world):
            return np.eye(4)
        if frame_id in self.memory.cameras():
            track = self.memory.track(frame_id)
            T = None if track is None else track.at(stamp_ns, int(self.config.max_gap_s * 1e9))
            if T is not None:
                return invert(T)
        elif self.lookup is not None:
            try:
                return self.lookup(frame_id, world, stamp_ns)
            except LookupError as error:
                raise QueryError(ErrorCode.TF_ERROR, f"positions in {frame_id!r}: {error}") from error
        raise QueryError(
            ErrorCode.TF_ERROR,
            f"positions in {frame_id!r} are not known: known frames are {', '.join((world, *self.memory.cameras()))}",
        )


Mark = TypeVar("Mark", ImagePoint, ImageBox)
Result = TypeVar("Result")


def _mark(marks: tuple[Mark, ...], index: int, kind: str) -> Mark:
    if index >= len(marks):
        raise QueryError(
            ErrorCode.INVALID_REQUEST,
            f"<{kind}{index}> is not in the request, which has {len(marks) or 'no'} of them",
        )
    return marks[index]


def frame_evidence(stored: StoredFrame, label: str = "") -> Evidence:
    """A whole frame as evidence, with its camera's pose in the fixed frame; NaN where that is not known."""
    frame = stored.frame
    pose = PoseStamped(frame.stamp_ns)
    if frame.T_world_camera is not None:
        pose = pose_stamped(frame.T_world_camera, frame.stamp_ns, frame.world_frame)
    return Evidence(EvidenceKind.FRAME, stored.frame_id, frame.stamp_ns, frame.camera_frame, pose, label)


_TOLERANCE = {"m": 0.05, "deg": 5.0, "s": 0.5, "m2": 0.5, "m3": 0.5, "m/s": 0.05, "count": 0.5, "": 0.05}


def number_confidence(value: float, stddev: float, unit: str) -> float:
    """Probability that a Gaussian error stays within 10 % of the value, or within a small absolute tolerance."""
    if not stddev > 0:
        return 1.0
    return float(erf(tolerance(value, unit) / (stddev * math.sqrt(2))))


def tolerance_words(unit: str) -> str:
    """How near counts as right, for people."""
    return f"gaussian, within 10 % or {f'{_TOLERANCE.get(unit, 0.05):g} {unit}'.strip()}"


def tolerance(value: float, unit: str) -> float:
    """How far off a number may be and still be right: 10 % of it, or a small absolute tolerance of its unit."""
    return max(0.1 * abs(value), _TOLERANCE.get(unit, 0.05))


def pose_stamped(T: Transform, stamp_ns: int, frame_id: str) -> PoseStamped:
    """A 4x4 transform as position and quaternion."""
    x, y, z = T[:3, 3].tolist()
    qx, qy, qz, qw = to_quaternion(T).tolist()
    return PoseStamped(stamp_ns, frame_id, (x, y, z), (qx, qy, qz, qw))
