"""Messages to and from what they mean, for rclpy's and rosbags' kinds of messages alike.

Messages are read by their fields, which both kinds share. They are made by a Maker, since the kinds differ in how.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from spatial_mllm_ros.nodes.batch import BatchAnswer
from spatial_mllm_ros.nodes.diagnosis import Finding
from spatial_mllm_ros.nodes.inbox import Kind
from spatial_mllm_ros.nodes.keyframes import KeyframeSet
from spatial_mllm_ros.nodes.parameters import Change, Parameter
from spatial_mllm_ros.nodes.query_messages import query_message, query_of
from spatial_mllm_ros.queries.answer import Answer, Evidence, ImageBox, ImagePoint, Pixel, PoseStamped, Request
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, EvidenceKind, QueryError, ScaleSource
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.term import InvalidQuery
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import DEPTH_MM, Frame
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.pose import Transform, to_quaternion
from spatial_mllm_ros.sources.compressed import PNG

SECOND = 1_000_000_000
PACKAGE = "spatial_mllm_ros"
SERVICE_TYPE, ACTION_TYPE = f"{PACKAGE}/srv/SpatialQuery", f"{PACKAGE}/action/SpatialQuery"
REQUEST, RESPONSE = f"{SERVICE_TYPE}_Request", f"{SERVICE_TYPE}_Response"
GOAL, RESULT, FEEDBACK = f"{ACTION_TYPE}_Goal", f"{ACTION_TYPE}_Result", f"{ACTION_TYPE}_Feedback"
BATCH_TYPE, ANSWER = f"{PACKAGE}/srv/SpatialQueries", f"{PACKAGE}/msg/SpatialAnswer"
BATCH_REQUEST, BATCH_RESPONSE = f"{BATCH_TYPE}_Request", f"{BATCH_TYPE}_Response"
MOST_QUESTIONS = 64
"""In one batch."""
KEYFRAMES, DIAGNOSTICS = f"{PACKAGE}/msg/Keyframes", "diagnostic_msgs/msg/DiagnosticArray"
MOST_ITEMS = 1000
"""Points, boxes, times and choices in a request; more are a mistake, or worse."""
MOST_CHARACTERS = 10_000
"""In any one string of a request. A question has a lower limit of its own."""
PARAMETER_TYPES: dict[type, int] = {bool: 1, int: 2, float: 3, str: 4}
"""rcl_interfaces/ParameterType."""


class Maker(Protocol):
    """Makes messages of one kind."""

    def new(self, name: str, /, **fields: Any) -> Any:
        """A message of the type ("geometry_msgs/msg/Point"), all of whose fields are given."""
        ...

    def octets(self, data: Any) -> Any:
        """A value for a field of type uint8[], from anything with the buffer interface."""
        ...

    def doubles(self, values: Sequence[float]) -> Any:
        """A value for a field of type float64[] or float64[9]."""
        ...

    def integers(self, values: Sequence[int]) -> Any:
        """A value for a field of type int32[]."""
        ...

    def byte(self, value: int) -> Any:
        """A value for a field of type byte."""
        ...


class RosbagsMaker:
    """Makes the messages that rosbags serialises. message: (type name, fields) -> message, as Interfaces.message."""

    def __init__(self, message: Callable[..., Any]) -> None:
        self._message = message

    def new(self, name: str, /, **fields: Any) -> Any:
        return self._message(name, **fields)

    def octets(self, data: Any) -> Any:
        return np.frombuffer(data, np.uint8)

    def doubles(self, values: Sequence[float]) -> Any:
        return np.asarray(values, np.float64)

    def integers(self, values: Sequence[int]) -> Any:
        return np.asarray(values, np.int32)

    def byte(self, value: int) -> Any:
        return value


# ---- SpatialQuery


def request_of(message: Any) -> Request:
    """SpatialQuery's request, or goal. Raises QueryError (INVALID_REQUEST) for what is no request at all."""
    _check_count(message, "choices")
    return Request(
        question=_text(message.question, "question"),
        choices=tuple(_text(choice, f"choices[{i}]") for i, choice in enumerate(message.choices)),
        max_keyframes=int(message.max_keyframes),
        query=_query(message.query),
        conversation_id=_text(message.conversation_id, "conversation_id"),
        **_shared(message),
    )


def _shared(message: Any) -> dict[str, Any]:
    """The fields of a Request that the questions of a batch have in common."""
    for name in ("points", "boxes", "times"):
        _check_count(message, name)
    return {
        "window_start": _stamp(message.window_start, "window_start"),
        "window_end": _stamp(message.window_end, "window_end"),
        "frame_id": _text(message.frame_id, "frame_id").lstrip("/"),
        "points": tuple(
            ImagePoint(*_header(point.header, f"points[{i}]"), float(point.u), float(point.v))
            for i, point in enumerate(message.points)
        ),
        "boxes": tuple(
            ImageBox(
                *_header(box.header, f"boxes[{i}]"),
                float(box.u_min),
                float(box.v_min),
                float(box.u_max),
                float(box.v_max),
            )
            for i, box in enumerate(message.boxes)
        ),
        "times": tuple(_stamp(time, f"times[{i}]") for i, time in enumerate(message.times)),
        "timeout": _stamp(message.timeout, "timeout"),
    }


def _check_count(message: Any, name: str) -> None:
    if len(getattr(message, name)) > MOST_ITEMS:
        raise _invalid(f"{name} holds {len(getattr(message, name))} items; at most {MOST_ITEMS} are taken")


def _query(message: Any, where: str = "query") -> Query | None:
    try:
        return query_of(message, where)
    except InvalidQuery as error:
        raise _invalid(str(error)) from error


def request_message(request: Request, make: Maker, type_name: str = REQUEST) -> Any:
    """The message of a request, or of a GOAL."""
    return make.new(
        type_name,
        question=request.question,
        choices=list(request.choices),
        window_start=_time(request.window_start, make),
        window_end=_time(request.window_end, make),
        frame_id=request.frame_id,
        points=[
            make.new(
                f"{PACKAGE}/msg/ImagePoint",
                header=header(p.stamp_ns, p.camera_frame, make),
                u=float(p.u),
                v=float(p.v),
            )
            for p in request.points
        ],
        boxes=[
            make.new(
                f"{PACKAGE}/msg/ImageBox",
                header=header(b.stamp_ns, b.camera_frame, make),
                u_min=float(b.u_min),
                v_min=float(b.v_min),
                u_max=float(b.u_max),
                v_max=float(b.v_max),
            )
            for b in request.boxes
        ],
        times=[_time(t, make) for t in request.times],
        max_keyframes=request.max_keyframes,
        timeout=_duration(request.timeout, make),
        query=query_message(request.query, make),
        conversation_id=request.conversation_id,
    )


def requests_of(message: Any) -> list[Request]:
    """The requests of SpatialQueries. Raises QueryError (INVALID_REQUEST)."""
    words, queries = list(message.questions), list(message.queries)
    count = max(len(words), len(queries))
    if not 1 <= count <= MOST_QUESTIONS or (words and queries and len(words) != len(queries)):
        raise _invalid(
            f"there are {len(words)} questions and {len(queries)} queries: give 1 to {MOST_QUESTIONS} of either, or as many "
            "of both"
        )
    shared = _shared(message)
    return [
        Request(
            question=_text(words[i], f"questions[{i}]") if words else "",
            query=_query(queries[i], f"queries[{i}]") if queries else None,
            **shared,
        )
        for i in range(count)
    ]


def batch_message(requests: Sequence[Request], make: Maker) -> Any:
    """The message of requests that share everything but what is asked; marks may be added from one to the next.

    Raises QueryError (INVALID_REQUEST) for others, which would be answered about something else.
    """
    if not requests:
        raise _invalid("there is no question")
    most = max(requests, key=lambda r: (len(r.points), len(r.boxes), len(r.times)))
    for i, request in enumerate(requests):
        for name in ("points", "boxes", "times"):
            mine, all_of_them = getattr(request, name), getattr(most, name)
            if mine != all_of_them[: len(mine)]:
                raise _invalid(
                    f"{name} of requests[{i}] are not those of the others: a batch has one list of them for all"
                )
        for name in ("window_start", "window_end", "frame_id", "timeout"):
            if getattr(request, name) != getattr(most, name):
                raise _invalid(f"{name} of requests[{i}] is not that of the others: a batch has one for all")
        for name in ("choices", "max_keyframes", "conversation_id"):
            if getattr(request, name):
                raise _invalid(f"requests[{i}] has {name}, which a batch does not take: ask it alone")
    shared = request_message(most, make)
    names = ("window_start", "window_end", "frame_id", "points", "boxes", "times", "timeout")
    return make.new(
        BATCH_REQUEST,
        questions=[r.question for r in requests] if any(r.question for r in requests) else [],
        queries=[query_message(r.query, make) for r in requests] if any(r.query for r in requests) else [],
        **{name: getattr(shared, name) for name in names},
    )


def batch_response(batch: BatchAnswer, make: Maker) -> Any:
    """The message of the answers of a batch."""
    messages = [response_message(answer, make, ANSWER) for answer in batch.answers]
    return make.new(BATCH_RESPONSE, error_code=0, error_msg="", answers=messages, memory_version=batch.memory_version)


def batch_of(message: Any) -> BatchAnswer:
    """The answers in the response of a batch, for clients. Raises QueryError where there are none."""
    if message.error_code:
        raise QueryError(_code(ErrorCode, message.error_code, ErrorCode.UNKNOWN), message.error_msg)
    return BatchAnswer(
        answers=tuple(answer_of(answer) for answer in message.answers), memory_version=int(message.memory_version)
    )


def batch_refusal(error: QueryError, make: Maker) -> Any:
    """The message of a batch that is not answered."""
    return make.new(
        BATCH_RESPONSE, error_code=int(error.code), error_msg=_clean(str(error)), answers=[], memory_version=0
    )


def response_message(answer: Answer, make: Maker, type_name: str = RESPONSE) -> Any:
    """The message of an answer, as a response or a RESULT."""
    return make.new(
        type_name,
        error_code=int(answer.error_code),
        error_msg=_clean(answer.error_msg),
        answer=_clean(answer.answer),
        answer_type=int(answer.answer_type),
        value=float(answer.value),
        stddev=float(answer.stddev),
        unit=answer.unit,
        pose=_pose_stamped(answer.pose, make),
        pixel=make.new(f"{PACKAGE}/msg/Pixel", u=float(answer.pixel.u), v=float(answer.pixel.v)),
        choice_index=int(answer.choice_index),
        order=make.integers(answer.order),
        confidence=float(answer.confidence),
        confidence_method=_clean(answer.confidence_method),
        source=int(answer.source),
        scale_source=int(answer.scale_source),
        evidence=[_evidence(e, make) for e in answer.evidence],
        first_stamp=_time(answer.first_stamp, make),
        last_stamp=_time(answer.last_stamp, make),
        time_queued=_duration(answer.time_queued, make),
        time_selecting=_duration(answer.time_selecting, make),
        time_encoding=_duration(answer.time_encoding, make),
        time_generating=_duration(answer.time_generating, make),
        model_id=_clean(answer.model_id),
        query=query_message(answer.query, make),
        read_as=_clean(answer.read_as),
        alternatives=[_clean(a) for a in answer.alternatives],
        reader=_clean(answer.reader),
    )


def answer_of(message: Any) -> Answer:
    """The answer in SpatialQuery's response, or result, for clients. Codes that are not known here become UNKNOWN or NONE."""
    return Answer(
        error_code=_code(ErrorCode, message.error_code, ErrorCode.UNKNOWN),
        error_msg=message.error_msg,
        answer=message.answer,
        answer_type=_code(AnswerType, message.answer_type, AnswerType.TEXT),
        value=float(message.value),
        stddev=float(message.stddev),
        unit=message.unit,
        pose=_pose_of(message.pose),
        pixel=Pixel(float(message.pixel.u), float(message.pixel.v)),
        choice_index=int(message.choice_index),
        order=tuple(int(i) for i in message.order),
        confidence=float(message.confidence),
        confidence_method=message.confidence_method,
        source=_code(AnswerSource, message.source, AnswerSource.NONE),
        scale_source=_code(ScaleSource, message.scale_source, ScaleSource.NONE),
        evidence=tuple(
            Evidence(
                _code(EvidenceKind, e.kind, EvidenceKind.FRAME),
                int(e.keyframe_id),
                _ns(e.header.stamp),
                e.header.frame_id,
                _pose_of(e.camera_pose),
                e.label,
                *(float(x) for x in (e.u, e.v, e.u_min, e.v_min, e.u_max, e.v_max)),
            )
            for e in message.evidence
        ),
        first_stamp=_ns(message.first_stamp),
        last_stamp=_ns(message.last_stamp),
        time_queued=_ns(message.time_queued),
        time_selecting=_ns(message.time_selecting),
        time_encoding=_ns(message.time_encoding),
        time_generating=_ns(message.time_generating),
        model_id=message.model_id,
        query=_query(message.query),
        read_as=message.read_as,
        alternatives=tuple(message.alternatives),
        reader=message.reader,
    )


# ---- what the node publishes


def keyframes_message(keyframes: KeyframeSet, make: Maker) -> Any:
    """spatial_mllm_ros/Keyframes."""
    selection = keyframes.selection
    rows = zip(keyframes.frames, keyframes.voxels, selection.gains, strict=True)
    return make.new(
        KEYFRAMES,
        header=header(keyframes.stamp_ns, keyframes.world_frame, make),
        keyframes=[
            make.new(
                f"{PACKAGE}/msg/Keyframe",
                header=header(stored.frame.stamp_ns, stored.frame.camera_frame, make),
                keyframe_id=stored.frame_id,
                rank=rank,
                camera_pose=_pose_stamped(_camera_pose(stored.frame), make),
                voxels=voxels,
                marginal_voxels=gain,
            )
            for rank, (stored, voxels, gain) in enumerate(rows)
        ],
        voxel_size=float(selection.voxel_size),
        covered=selection.covered,
        total=selection.total,
    )


def diagnostics_message(findings: Iterable[Finding], node: str, stamp_ns: int, make: Maker) -> Any:
    """diagnostic_msgs/DiagnosticArray of the node with this full name."""
    return make.new(
        DIAGNOSTICS,
        header=header(stamp_ns, "", make),
        status=[
            make.new(
                "diagnostic_msgs/msg/DiagnosticStatus",
                level=make.byte(int(f.level)),
                name=f"{node.lstrip('/')}: {f.name}",
                message=_clean(f.message),
                hardware_id=PACKAGE,
                values=[make.new("diagnostic_msgs/msg/KeyValue", key=k, value=_clean(v)) for k, v in f.values],
            )
            for f in findings
        ],
    )


def parameter_descriptor(parameter: Parameter, make: Maker) -> Any:
    """rcl_interfaces/ParameterDescriptor."""
    floats, integers = [], []
    if parameter.least is not None and parameter.most is not None:
        if parameter.type is float:
            name = "rcl_interfaces/msg/FloatingPointRange"
            floats = [make.new(name, from_value=float(parameter.least), to_value=float(parameter.most), step=0.0)]
        else:
            name = "rcl_interfaces/msg/IntegerRange"
            # A step of 0 would do, but rclpy's message for a value out of range reads better with 1.
            integers = [make.new(name, from_value=int(parameter.least), to_value=int(parameter.most), step=1)]
    constraints = [f"one of {parameter.allowed}" if parameter.choices else "", f"set {parameter.change.value}"]
    constraints.insert(0, f"unit {parameter.unit}" if parameter.unit else "")
    return make.new(
        "rcl_interfaces/msg/ParameterDescriptor",
        name=parameter.name,
        type=PARAMETER_TYPES[parameter.type],
        description=parameter.description,
        additional_constraints="; ".join(filter(None, constraints)),
        read_only=parameter.change is Change.START,
        dynamic_typing=False,
        floating_point_range=floats,
        integer_range=integers,
    )


# ---- what a camera publishes


def camera_messages(frame: Frame, make: Maker, T_fixed_world: Transform | None = None) -> list[tuple[Kind, Any]]:
    """A frame as a camera and a localiser would publish it: TF, CameraInfo, color, depth; what it has of these.

    A compressed image stays as it is (CompressedImage), others are rgb8. Depth stays 16UC1 or 32FC1; as it is
    registered to the color image it has the same CameraInfo. T_fixed_world: moves the poses to another fixed frame,
    for example to one with z up.
    """
    out: list[tuple[Kind, Any]] = []
    head = header(frame.stamp_ns, frame.camera_frame, make)
    if frame.T_world_camera is not None:
        T = frame.T_world_camera if T_fixed_world is None else T_fixed_world @ frame.T_world_camera
        out.append((Kind.TF, tf_message([(frame.world_frame, frame.camera_frame, frame.stamp_ns, T)], make)))
    if frame.camera is not None:
        info = camera_info_message(frame.camera, frame.stamp_ns, frame.camera_frame, make)
        out.append((Kind.CAMERA_INFO, info))
        if frame.depth is not None:
            out.append((Kind.DEPTH_CAMERA_INFO, info))
    if isinstance(frame.image, EncodedImage):
        kind = "png" if frame.image.data.startswith(PNG) else "jpeg"
        data = make.octets(frame.image.data)
        compressed = make.new(
            "sensor_msgs/msg/CompressedImage", header=head, format=f"rgb8; {kind} compressed bgr8", data=data
        )
        out.append((Kind.COLOR, compressed))
    elif frame.image is not None:
        out.append((Kind.COLOR, image_message(frame.image, "rgb8", head, make)))
    if frame.depth is not None:
        out.append(
            (Kind.DEPTH, image_message(frame.depth, "16UC1" if frame.depth.dtype == DEPTH_MM else "32FC1", head, make))
        )
    return out


def image_message(pixels: np.ndarray, encoding: str, head: Any, make: Maker) -> Any:
    """sensor_msgs/Image of pixels [height, width, ...] that have the encoding's type."""
    rows = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    height, width = pixels.shape[:2]
    return make.new(
        "sensor_msgs/msg/Image",
        header=head,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=rows.nbytes // height,
        data=make.octets(rows.reshape(-1).view(np.uint8)),
    )


def camera_info_message(camera: CameraModel, stamp_ns: int, camera_frame: str, make: Maker) -> Any:
    """sensor_msgs/CameraInfo."""
    K = camera.K
    distortion = camera.distortion or (0.0,) * (4 if camera.distortion_model == "equidistant" else 5)
    roi = make.new("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return make.new(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp_ns, camera_frame, make),
        height=camera.height,
        width=camera.width,
        distortion_model=camera.distortion_model,
        d=make.doubles([float(x) for x in distortion]),
        k=make.doubles(K.reshape(-1).tolist()),
        r=make.doubles(np.eye(3).reshape(-1).tolist()),
        p=make.doubles(np.hstack([K, np.zeros((3, 1))]).reshape(-1).tolist()),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def tf_message(transforms: Iterable[tuple[str, str, int, Transform]], make: Maker) -> Any:
    """tf2_msgs/TFMessage of (parent, child, stamp in ns, T_parent_child)."""
    stamped = []
    for parent, child, stamp_ns, T in transforms:
        x, y, z = T[:3, 3].tolist()
        qx, qy, qz, qw = to_quaternion(T).tolist()
        transform = make.new(
            "geometry_msgs/msg/Transform",
            translation=make.new("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
            rotation=make.new("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        )
        stamped.append(
            make.new(
                "geometry_msgs/msg/TransformStamped",
                header=header(stamp_ns, parent, make),
                child_frame_id=child,
                transform=transform,
            )
        )
    return make.new("tf2_msgs/msg/TFMessage", transforms=stamped)


def header(stamp_ns: int, frame_id: str, make: Maker) -> Any:
    """std_msgs/Header."""
    return make.new("std_msgs/msg/Header", stamp=_time(stamp_ns, make), frame_id=frame_id)


# ---- pieces


def _ns(time: Any) -> int:
    return int(time.sec) * SECOND + int(time.nanosec)


def _stamp(time: Any, name: str) -> int:
    if int(time.nanosec) >= SECOND:
        raise _invalid(f"{name} has {time.nanosec} nanoseconds, a whole second or more")
    return _ns(time)


def _header(message: Any, name: str) -> tuple[int, str]:
    return _stamp(message.stamp, f"{name}.header.stamp"), _text(message.frame_id, f"{name}.header.frame_id").lstrip("/")


def _text(text: Any, name: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise _invalid(f"{name} has {len(text)} characters; at most {MOST_CHARACTERS} are taken")
    return str(text)


def _clean(text: str) -> str:
    """Text that every kind of message can hold: valid UTF-8 without NUL."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _invalid(message: str) -> QueryError:
    return QueryError(ErrorCode.INVALID_REQUEST, message)


def _code(kind: Any, value: Any, otherwise: Any) -> Any:
    try:
        return kind(int(value))
    except ValueError:
        return otherwise


def _time(stamp_ns: int, make: Maker) -> Any:
    sec, nanosec = divmod(_within_time(stamp_ns), SECOND)
    return make.new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)


def _duration(ns: int, make: Maker) -> Any:
    sec, nanosec = divmod(_within_time(ns), SECOND)
    return make.new("builtin_interfaces/msg/Duration", sec=sec, nanosec=nanosec)


def _within_time(ns: int) -> int:
    """What int32 seconds can hold."""
    return min(max(int(ns), -(2**31) * SECOND), 2**31 * SECOND - 1)


def _pose_stamped(pose: PoseStamped, make: Maker) -> Any:
    x, y, z = (float(v) for v in pose.position)
    qx, qy, qz, qw = (float(v) for v in pose.orientation)
    return make.new(
        "geometry_msgs/msg/PoseStamped",
        header=header(pose.stamp_ns, pose.frame_id, make),
        pose=make.new(
            "geometry_msgs/msg/Pose",
            position=make.new("geometry_msgs/msg/Point", x=x, y=y, z=z),
            orientation=make.new("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        ),
    )


def _pose_of(message: Any) -> PoseStamped:
    p, q = message.pose.position, message.pose.orientation
    return PoseStamped(
        _ns(message.header.stamp),
        message.header.frame_id,
        (float(p.x), float(p.y), float(p.z)),
        (float(q.x), float(q.y), float(q.z), float(q.w)),
    )


def _camera_pose(frame: Frame) -> PoseStamped:
    T = frame.T_world_camera
    if T is None:
        return PoseStamped(frame.stamp_ns, frame.world_frame, orientation=(math.nan,) * 4)
    x, y, z = T[:3, 3].tolist()
    qx, qy, qz, qw = to_quaternion(T).tolist()
    return PoseStamped(frame.stamp_ns, frame.world_frame, (x, y, z), (qx, qy, qz, qw))


def _evidence(e: Evidence, make: Maker) -> Any:
    return make.new(
        f"{PACKAGE}/msg/Evidence",
        kind=int(e.kind),
        keyframe_id=e.keyframe_id,
        header=header(e.stamp_ns, e.camera_frame, make),
        camera_pose=_pose_stamped(e.camera_pose, make),
        label=_clean(e.label),
        u=float(e.u),
        v=float(e.v),
        u_min=float(e.u_min),
        v_min=float(e.v_min),
        u_max=float(e.u_max),
        v_max=float(e.v_max),
    )
