"""Request and Answer of a spatial question: the fields of srv/SpatialQuery.srv as dataclasses.

Headers become ``stamp_ns`` and a frame name; times and durations become integer nanoseconds.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, EvidenceKind, ScaleSource
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.serialization import to_json

NAN = math.nan


@dataclass(frozen=True)
class ImagePoint:
    """Pixel (u, v) of the image that ``camera_frame`` took at ``stamp_ns``. An empty frame name means the only camera."""

    stamp_ns: int
    camera_frame: str
    u: float
    v: float


@dataclass(frozen=True)
class ImageBox:
    """Box of pixels, corners included, of the image that ``camera_frame`` took at ``stamp_ns``."""

    stamp_ns: int
    camera_frame: str
    u_min: float
    v_min: float
    u_max: float
    v_max: float


@dataclass(frozen=True)
class Request:
    """A question, in words, as a ``query``, or both, which must then mean the same.

    ``points``, ``boxes`` and ``times`` (ns) are what <p0>, <box0> and <t0> in it refer to.
    ``window_start`` and ``window_end`` (ns, 0 = open) limit what may be used. ``frame_id`` is the frame of returned
    positions ('' = the fixed frame). ``max_keyframes`` and ``timeout`` (ns) of 0 mean the defaults. Questions of one
    ``conversation_id`` may refer to the ones before them, where a language model reads.
    """

    question: str = ""
    choices: tuple[str, ...] = ()
    window_start: int = 0
    window_end: int = 0
    frame_id: str = ""
    points: tuple[ImagePoint, ...] = ()
    boxes: tuple[ImageBox, ...] = ()
    times: tuple[int, ...] = ()
    max_keyframes: int = 0
    timeout: int = 0
    query: Query | None = None
    conversation_id: str = ""


@dataclass(frozen=True)
class Pixel:
    """Position in an image, px."""

    u: float = NAN
    v: float = NAN


@dataclass(frozen=True)
class PoseStamped:
    """Position (m) and orientation (quaternion x, y, z, w) in ``frame_id`` at ``stamp_ns``."""

    stamp_ns: int = 0
    frame_id: str = ""
    position: tuple[float, float, float] = (NAN, NAN, NAN)
    orientation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Evidence:
    """One image that an answer rests on, its camera's pose, and what is meant in it."""

    kind: EvidenceKind
    keyframe_id: int
    stamp_ns: int
    camera_frame: str
    camera_pose: PoseStamped
    label: str = ""
    u: float = NAN
    v: float = NAN
    u_min: float = NAN
    v_min: float = NAN
    u_max: float = NAN
    v_max: float = NAN


@dataclass(frozen=True)
class Answer:
    """The response of SpatialQuery; see srv/SpatialQuery.srv for the meaning of every field."""

    error_code: ErrorCode = ErrorCode.NONE
    error_msg: str = ""
    answer: str = ""
    answer_type: AnswerType = AnswerType.TEXT
    value: float = NAN
    stddev: float = NAN
    unit: str = ""
    pose: PoseStamped = field(default_factory=PoseStamped)
    pixel: Pixel = field(default_factory=Pixel)
    choice_index: int = -1
    order: tuple[int, ...] = ()
    confidence: float = 0.0
    confidence_method: str = ""
    source: AnswerSource = AnswerSource.NONE
    scale_source: ScaleSource = ScaleSource.NONE
    evidence: tuple[Evidence, ...] = ()
    first_stamp: int = 0
    last_stamp: int = 0
    time_queued: int = 0
    time_selecting: int = 0
    time_encoding: int = 0
    time_generating: int = 0
    model_id: str = ""
    query: Query | None = None
    read_as: str = ""
    alternatives: tuple[str, ...] = ()
    reader: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON-serialisable values: enums by name, NaN as None, the pixel as [u, v]."""
        out = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        out["pixel"] = None if math.isnan(self.pixel.u) else [self.pixel.u, self.pixel.v]
        return out


def _plain(value: Any) -> Any:
    if isinstance(value, ErrorCode | AnswerType | AnswerSource | ScaleSource | EvidenceKind):
        return value.name
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Query):
        return to_json(value)
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
