"""What is wrong with a live engine, if anything, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from spatial_mllm_ros.nodes.inbox import Kind, Stream
from spatial_mllm_ros.nodes.surroundings import Surroundings, large_images, why_silent
from spatial_mllm_ros.perception.rgb.rgb_geometry import RgbGeometryStatus
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.scene.clocks import OTHER_CLOCK_NS, moment_words
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.metric_scale import MetricScale
from spatial_mllm_ros.serving.interface import ModelStatus
from spatial_mllm_ros.session.sinks import SinkStatus

PATIENCE_S = 3.0
"""Silence of a camera that is worth a warning."""
FEW = 0.5
"""Share of a camera's CameraInfo rate below which its images are few."""
SET_UP = "set-up"
NO_FAULTS = ("clock_reset", "depth_resampled")
"""Remarks about frames that lack nothing."""
NOTHING = "nothing"
"""The reason of a topic on which nothing has come."""

REMEDIES = {
    "no_pose": "the camera's pose at the image's stamp is not known: see the tf_ counts",
    "bad_pose": "the transforms do not make a rigid pose",
    "no_camera_info": "no CameraInfo came: set camera_info_topic",
    "camera_size": "CameraInfo is of another size than the images: set camera_info_topic to the one of these images",
    "bad_camera_info": "the CameraInfo is not calibrated, contradicts itself, or is of a model that is not supported",
    "image_size": "the image is not of the size that its header says",
    "stamp_repeated": "an image with this stamp was seen before: is a recording playing twice?",
    "repeated_stamp": "two images with one stamp: do two publishers share the topic?",
    "out_of_order": "images came after later ones of the same camera",
    "stamp_zero": "the driver does not set the stamps of its messages: repair it, nothing says when these were",
    "stamp_outlier": (
        "single stamps far from those before and after: the publisher's clock jumps, or two publishers with different clocks "
        "share the topic"
    ),
    "info_clock": "CameraInfo is stamped by another clock than its images: its calibration is used for all of them",
    "tf_outlier": "single transforms with stamps far ahead of those before and after are left out",
    "stamp_negative": "stamps are negative: the driver does not set them",
    "stamp_from_the_future": (
        "stamps are ahead of the node's clock: set use_sim_time when a recording or a simulation gives the time, "
        "synchronise the computers' clocks, or raise max_future_s"
    ),
    "other_world_frame": "poses came in two fixed frames: set fixed_frame",
    "queue_full": "images wait too long for their transforms: shorten tf_wait_s, or repair what publishes /tf",
    "unpaired_depth": "depth images without a color image of their moment: raise sync_tolerance_s",
    "no_depth": "color images without a depth image of their moment: raise sync_tolerance_s or tf_wait_s",
    "depth_not_registered": (
        "depth of another frame needs its CameraInfo (depth_camera_info_topic) and the TF between the two cameras"
    ),
    "depth_size": "depth of another shape than the color image needs its CameraInfo: set depth_camera_info_topic",
    "depth_resampled": "depth of the image's frame and shape is taken for its view: if it is not, set depth_camera_info_topic",
    "tf_unknown_frame": "no transform names the camera's frame or the fixed frame: run a localiser, or set fixed_frame",
    "tf_not_connected": "the camera's frame and the fixed frame are in separate TF trees: publish what joins them",
    "tf_past": "images are older than the transforms remembered: raise tf_history_s, or the images come very late",
    "tf_once": "a mount was sent once on /tf, where it holds for that moment alone: publish it on /tf_static",
    "no_frame_id": "the images name no frame: set frame_id in the camera's driver",
    "tf_future": "transforms come too late (raise tf_wait_s) or not any more (does the localiser run?)",
    "tf_gap": "transforms come too seldom to interpolate between: raise tf_max_gap_s, or publish them more often",
    "tf_loop": "two publishers on /tf contradict each other (a frame would be its own ancestor): stop one of them",
    "tf_invalid": "a transform is not a rigid one (its quaternion is not of length one, or a number is not finite)",
    "tf_new_parent": "two publishers on /tf give one frame two parents: stop one of them",
    "eight_bit_depth": "depth as JPEG has 8 bits, which is no measure: set depth_transport to raw or compressedDepth",
    "unknown_encoding": "images of an encoding that cannot be read: set the driver to rgb8, bgr8, 16UC1 or 32FC1",
    "data_size": "images whose data disagrees with their own header: the driver is at fault",
    "row_step": "images whose step disagrees with their encoding: the driver is at fault",
    "undecodable_message": "bytes that are no message of the topic's type: is the publisher of another version?",
    "internal_error": "an error of the node's own: see the log",
}


GEOMETRY_REMEDIES = {
    "UNKNOWN": "failed: see the log",
    "BUSY": "told BUSY: raise query_queue or query_workers, or ask less often",
    "TIMEOUT": "told TIMEOUT: raise timeout_s or query_workers",
}
MODEL_REMEDIES = {
    "UNKNOWN": "failed: see the log",
    "MODEL_ERROR": "failed in the model: see the log",
    "BUSY": "told BUSY: the model answers one at a time; raise model_queue, or ask less often",
    "TIMEOUT": "told TIMEOUT: raise timeout_s, or use a smaller model or fewer keyframes",
}


WINDOW_REMEDIES = {
    "too_slow": "it computes too slowly for the camera's motion; raise rgb_geometry_max_load, or lower "
    "rgb_geometry_width_px",
    "predictor_lost": "its process died: see the log",
    "predictor_failed": "see the log",
}
WINDOW_REMEDY = "the images do not fit together: is the view blocked, dark, or full of what moves?"
LOST_REMEDY = "move the camera to where it was before, or the memory starts over soon with what it sees now"


class Level(IntEnum):
    """The levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class StreamStatus:
    """One input. silent_s: seconds since the last message, None before the first. fault: the latest refusal.

    mismatch: what to do about a quality of service because of which nothing can come; '' when there is none.
    """

    stream: Stream
    received: int
    dropped: int
    waiting: int
    rate_hz: float
    silent_s: float | None
    refused: Mapping[str, int]
    fault: str = ""
    mismatch: str = ""


@dataclass(frozen=True)
class QueryStatus:
    """Questions: answers by code, now waiting and running, and percentiles of seconds from question to answer."""

    answered: Mapping[ErrorCode, int]
    waiting: int
    running: int
    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True)
class GeometryStatus:
    """Geometry from color: how its process fares, and what comes of the images."""

    process: ModelStatus
    images: RgbGeometryStatus


@dataclass(frozen=True)
class LiveStatus:
    """A snapshot of a live engine. running_s: None while it is stopped. Counts by reason are since the last reset.

    model_queries: questions that needed the model, or might have. Both None without a model. geometry: from color, None
    without. texts: the latest case of a reason, in words. above: a frame that would be the fixed frame by now, '' when it is.
    image_ns, tf_ns: newest stamps of images and of moving transforms, None before the first. troubles: what is wrong with the
    node's own set-up. doubts: what speaks against the settings of the input. sinks: what the memory's frames are handed to.
    """

    running_s: float | None
    streams: tuple[StreamStatus, ...]
    frames: int
    nbytes: int
    max_bytes: int
    evicted: int
    throttled: int
    without_depth: int
    world_frame: str
    refused: Mapping[str, int]
    remarks: Mapping[str, int]
    tf_counts: Mapping[str, int]
    resets: int
    queries: QueryStatus
    model_queries: QueryStatus | None = None
    model: ModelStatus | None = None
    geometry: GeometryStatus | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    above: str = ""
    image_ns: int | None = None
    tf_ns: int | None = None
    troubles: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    sinks: tuple[SinkStatus, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One line of /diagnostics. ``values`` are as people read them. reason: a short word, the same while a fault lasts."""

    name: str
    level: Level
    message: str
    values: tuple[tuple[str, str], ...]
    reason: str = ""


def findings(
    status: LiveStatus, before: LiveStatus | None = None, surroundings: Surroundings | None = None
) -> list[Finding]:
    """The state of inputs, geometry from color, memory and questions, of a model and its questions, and of the set-up.

    before: an earlier snapshot; only what has grown since then counts as a fault, so that trouble long past is not told
    for ever. None: everything counts. surroundings: what others publish, as far as the node knows.
    """
    return [
        *(_input(s, status, before, surroundings) for s in status.streams),
        *_geometry(status, before),
        _memory(status, before),
        *(_sink(now, before) for now in status.sinks),
        _questions(status, status.queries, before.queries if before else None, "questions", GEOMETRY_REMEDIES),
        *_model(status, before),
        *_set_up(status),
    ]


def remedy(reason: str) -> str:
    """What a reason for refusing means and what to do; the reason itself when nothing better is known."""
    return REMEDIES.get(reason, reason.replace("_", " "))


def _grown(now: Mapping[str, int], before: Mapping[str, int] | None) -> dict[str, int]:
    grown = {key: n - (before or {}).get(key, 0) for key, n in now.items()}
    # After a reset counts begin anew, and all of them are new.
    return {key: (n if n > 0 else now[key]) for key, n in grown.items() if n > 0 or (n < 0 and now[key] > 0)}


def _input(
    now: StreamStatus, status: LiveStatus, before: LiveStatus | None, surroundings: Surroundings | None
) -> Finding:
    stream = now.stream
    earlier = next((s for s in before.streams if s.stream == stream), None) if before else None
    level, message, reason = Level.OK, f"{now.rate_hz:.1f} Hz" if now.received else "nothing yet", ""
    patient = status.running_s is not None and status.running_s > PATIENCE_S
    refused = _grown(now.refused, earlier.refused if earlier else None)
    dropped = now.dropped - (earlier.dropped if earlier else 0)
    beside = [s for s in status.streams if s.stream.camera == stream.camera and s.stream != stream and s.rate_hz > 0]
    if status.running_s is None:
        message = "the node is not active"
    elif now.mismatch:
        level, message, reason = Level.ERROR, now.mismatch, "qos"
    elif refused:
        reason = max(refused, key=lambda r: refused[r])
        level, message = Level.ERROR, f"{refused[reason]} refused ({reason}): {remedy(reason)}. Latest: {now.fault}"
    elif patient and now.silent_s is None and stream.kind is not Kind.TF_STATIC:
        needed = stream.kind in (Kind.COLOR, Kind.CAMERA_INFO, Kind.DEPTH, Kind.POSE)
        level, reason = Level.WARN if needed else Level.OK, NOTHING
        message = (
            f"nothing has come on {stream.topic}: is it published? `ros2 topic info -v {stream.topic}`"
            if surroundings is None
            else why_silent(stream, surroundings, bool(beside))
        )
    elif patient and now.silent_s is not None and now.silent_s > PATIENCE_S and stream.kind in (Kind.COLOR, Kind.DEPTH):
        level, message, reason = Level.WARN, f"nothing on {stream.topic} for {now.silent_s:.1f} s", "silent"
    elif dropped > 0:
        level, reason = Level.WARN, "dropped"
        message = (
            f"{dropped} dropped: the node is too slow for {now.rate_hz:.1f} Hz; lower the camera's rate or resolution, or "
            "raise image_queue where it is only now and then"
        )
    elif patient and stream.kind in (Kind.COLOR, Kind.DEPTH) and now.rate_hz < FEW * _info_rate(now, beside):
        level, reason = Level.WARN, "few"
        message = (
            f"{now.rate_hz:.1f} Hz on {stream.topic}, but CameraInfo comes at {_info_rate(now, beside):.1f} Hz: "
            f"{large_images(stream)}"
        )
    values = [("topic", stream.topic), ("type", stream.message_type), ("rate_hz", f"{now.rate_hz:.2f}")]
    values += [("received", str(now.received)), ("dropped", str(now.dropped)), ("waiting", str(now.waiting))]
    values += [(f"refused_{reason}", str(n)) for reason, n in sorted(now.refused.items())]
    name = stream.kind.value if len({s.stream.camera for s in status.streams}) <= 2 else (
        f"{stream.kind.value} {stream.camera}".strip()
    )  # fmt: skip
    return Finding(f"input: {name}", level, message, tuple(values), reason)


def _info_rate(now: StreamStatus, beside: list[StreamStatus]) -> float:
    """Hz of the CameraInfo of an image topic."""
    kind = Kind.CAMERA_INFO if now.stream.kind is Kind.COLOR else Kind.DEPTH_CAMERA_INFO
    return max((s.rate_hz for s in beside if s.stream.kind is kind), default=0.0)


def _set_up(status: LiveStatus) -> Iterator[Finding]:
    if status.troubles:
        yield Finding(SET_UP, Level.WARN, "; ".join(status.troubles), (), "set_up")
    for doubt in status.doubts:
        yield Finding(f"doubt: {doubt.kind}", Level.WARN, str(doubt), (), doubt.kind)


def _other_clock(status: LiveStatus) -> str:
    """That images and transforms are stamped by different clocks; '' when they are not."""
    if status.image_ns is None or status.tf_ns is None or abs(status.image_ns - status.tf_ns) < OTHER_CLOCK_NS:
        return ""
    images, transforms = (moment_words(stamp) for stamp in (status.image_ns, status.tf_ns))
    return (
        f"images and /tf are stamped by different clocks: images {images}, /tf {transforms}; have the driver stamp with the "
        "system's time (or all with /clock)"
    )


def _memory(status: LiveStatus, before: LiveStatus | None) -> Finding:
    level, message, reason = Level.OK, f"{status.frames} frames, {status.nbytes / 2**20:.0f} MiB", ""
    refused = _grown(status.refused, before.refused if before else None)
    remarks = _grown(
        {r: n for r, n in status.remarks.items() if r not in NO_FAULTS}, before.remarks if before else None
    )
    if status.geometry is not None:  # which needs neither depth nor transforms
        remarks = {r: n for r, n in remarks.items() if r != "no_depth" and not r.startswith("tf_")}
    if status.running_s is None:
        message += "; the node is not active"
    elif refused or remarks:
        # Why there is no pose says more than that there is none.
        faults = {**refused, **remarks}
        faults.update({r: n for r, n in _grown(status.tf_counts, before.tf_counts if before else None).items()
                       if r == "tf_new_parent"})  # fmt: skip
        if len(faults) > 1:
            faults.pop("no_pose", None)
        reason = max(faults, key=lambda r: faults[r])
        level = Level.WARN if status.frames else Level.ERROR
        why = (reason.startswith("tf_") and _other_clock(status)) or remedy(reason)
        latest = f". Latest: {status.texts[reason]}" if reason in status.texts else ""
        message += f"; {reason} {faults[reason]} times: {why}{latest}"
    elif status.above:
        level, reason = Level.WARN, "above"
        message += (
            f"; {status.above} is above {status.world_frame} in TF by now, but poses stay in {status.world_frame}, in which "
            f"the memory began: what corrects {status.world_frame} in {status.above} does not correct the memory; set "
            f"fixed_frame to {status.above}"
        )
    values = [
        ("frames", str(status.frames)),
        ("memory_mib", f"{status.nbytes / 2**20:.1f}"),
        ("memory_bound_mib", f"{status.max_bytes / 2**20:.0f}"),
        ("fixed_frame", status.world_frame),
        ("evicted", str(status.evicted)),
        ("throttled", str(status.throttled)),
        ("without_depth", str(status.without_depth)),
        ("clock_resets", str(status.resets)),
    ]
    values += [(f"refused_{reason}", str(n)) for reason, n in sorted(status.refused.items())]
    values += [(f"remark_{reason}", str(n)) for reason, n in sorted(status.remarks.items())]
    values += [(reason, str(n)) for reason, n in sorted(status.tf_counts.items())]
    return Finding("memory", level, message, tuple(values), reason)


def _geometry(status: LiveStatus, before: LiveStatus | None) -> Iterator[Finding]:
    if status.geometry is None:
        return
    process, images = status.geometry.process, status.geometry.images
    earlier = before.geometry.images if before is not None and before.geometry is not None else None
    level, message = Level.OK, f"{images.windows} windows, {scale_words(images.scale)}"
    dropped = _grown(images.dropped_windows, earlier.dropped_windows if earlier else None)
    if process.state in ("failed", "restarting"):
        level = Level.ERROR if process.state == "failed" else Level.WARN
        message = f"{process.state}: {process.reason}"
    elif status.running_s is None:
        message += "; the node is not active"
    elif images.lost:
        level = Level.WARN
        message += f"; {images.lost} images show nothing of what is known from before the chain broke: {LOST_REMEDY}"
    elif dropped:
        reason = max(dropped, key=lambda r: dropped[r])
        level = Level.WARN
        message += f"; {dropped[reason]} windows dropped ({reason}): {WINDOW_REMEDIES.get(reason, WINDOW_REMEDY)}"
    elif images.windows and not images.scale.known:
        level = Level.WARN
    values = [("predictor", process.model_id), ("state", process.state), ("windows", str(images.windows))]
    values += [(f"dropped_{reason}", str(n)) for reason, n in sorted(images.dropped_windows.items())]
    values += [(f"left_out_{reason}", str(n)) for reason, n in sorted(images.left_out.items())]
    values += [("waiting", str(images.waiting)), ("held_back", str(images.held)), ("submap", str(images.submap))]
    values += [("relocated", str(images.relocated)), ("lost", str(images.lost)), ("loops", str(images.loops))]
    values += [("scale_source", images.scale.source.name)]
    if images.scale.known:
        values += [("scale_stddev_percent", f"{100 * images.scale.stddev:.2f}")]
        values += [("scale_residual", f"{images.scale.residual:.4f}")]
    if images.disagreement is not None:
        values += [
            ("depth_ratio", f"{images.disagreement[0]:.3f}"),
            ("depth_ratio_spread", f"{images.disagreement[1]:.3f}"),
        ]
    values += [] if images.focal_ratio is None else [("focal_length_ratio", f"{images.focal_ratio:.3f}")]
    values += [("last_window_s", f"{images.window_s:.2f}")]
    values += [(f"{name}_mib", f"{n / 2**20:.1f}") for name, n in process.memory.items()]
    yield Finding("geometry from color", level, message, tuple(values))


def scale_words(scale: MetricScale) -> str:
    """Whether there are metres, and how precisely."""
    if scale.known:
        return f"metres from {scale.source.value} ± {scale.stddev:.1%}"
    return f"no metres: {scale.reason}"


def _sink(now: SinkStatus, before: LiveStatus | None) -> Finding:
    earlier = next((s for s in before.sinks if s.name == now.name), None) if before else None
    dropped = now.dropped - (earlier.dropped if earlier else 0)
    failed = now.failed - (earlier.failed if earlier else 0)
    level, message, reason = Level.OK, f"{now.taken} frames, {1e3 * now.mean_s:.1f} ms each", ""
    if failed > 0:
        level, reason = Level.ERROR, "failed"
        message += f"; {failed} failed: see the log"
    elif dropped > 0:
        level, reason = Level.WARN, "dropped"
        message += f"; {dropped} left out, which it was too slow for: lower max_frame_rate_hz"
    values = (
        ("taken", str(now.taken)),
        ("dropped", str(now.dropped)),
        ("failed", str(now.failed)),
        ("waiting", str(now.waiting)),
        ("mean_ms", f"{1e3 * now.mean_s:.2f}"),
    )
    return Finding(now.name, level, message, values, reason)


def _questions(
    status: LiveStatus, queries: QueryStatus, before: QueryStatus | None, name: str, remedies: Mapping[str, str]
) -> Finding:
    total = sum(queries.answered.values())
    level, reason = Level.OK, ""
    message = f"{total} answered, {queries.running} being answered, {queries.waiting} waiting"
    if status.running_s is None:
        message = "the node is not active: questions get CANCELLED"
    else:
        new = _grown(_by_name(queries.answered), _by_name(before.answered) if before else None)
        for code, what in remedies.items():
            if new.get(code):
                level = Level.WARN if code in ("BUSY", "TIMEOUT") else Level.ERROR
                message, reason = f"{new[code]} questions {what}", code
                break
    values = [("waiting", str(queries.waiting)), ("running", str(queries.running))]
    values += [(f"p{p}_ms", f"{1000 * s:.1f}") for p, s in _percentiles(queries)]
    values += [(f"answered_{code}", str(n)) for code, n in sorted(_by_name(queries.answered).items())]
    return Finding(name, level, message, tuple(values), reason)


def _model(status: LiveStatus, before: LiveStatus | None) -> Iterator[Finding]:
    model, queries = status.model, status.model_queries
    if model is None or queries is None:
        return
    yield _questions(status, queries, before.model_queries if before else None, "model questions", MODEL_REMEDIES)
    level = {"failed": Level.ERROR, "restarting": Level.WARN, "loading": Level.WARN}.get(model.state, Level.OK)
    message = f"{model.state}: {model.reason}" if model.reason and level else model.state
    values = [("model", model.model_id), ("context_frames", str(len(model.context_frames)))]
    values += [("context_pending", str(model.pending).lower()), ("context_updates", str(model.updates))]
    values += [("last_update_s", f"{model.update_s:.2f}")] if math.isfinite(model.update_s) else []
    values += [("answered", str(model.answered)), ("failed", str(model.failed)), ("waiting", str(model.waiting))]
    values += [(f"{name}_mib", f"{n / 2**20:.1f}") for name, n in model.memory.items()]
    yield Finding("model", level, message, tuple(values))


def _percentiles(queries: QueryStatus) -> Iterator[tuple[int, float]]:
    return zip((50, 95, 99), (queries.p50_s, queries.p95_s, queries.p99_s), strict=True)


def _by_name(answered: Mapping[ErrorCode, int]) -> dict[str, int]:
    return {code.name: n for code, n in answered.items()}
