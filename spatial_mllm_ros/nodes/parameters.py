"""Every parameter of the node, declared once.

The dataclass ``Settings`` is the table: a field's name, type and default, and in its metadata what it means, its range
and when it may change. The configuration file, launch arguments, ``ros2 param describe``, ``--help`` and the README's
table are made from it. ``python -m spatial_mllm_ros.nodes.parameters config/spatial_mllm.yaml`` writes the file.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from spatial_mllm_ros.nodes.qos import QOS_NAMES
from spatial_mllm_ros.scene.inputs import IMAGE_FRAMES, OPTICAL, InputSettings
from spatial_mllm_ros.serving.geometry_process import PRECISIONS as GEOMETRY_PRECISIONS
from spatial_mllm_ros.serving.interface import ATTENTIONS, ENCODER_RUNTIMES, PRECISIONS
from spatial_mllm_ros.sources.topics import POSE_TYPES, CameraTopics

Value = bool | int | float | str
TYPE_NAMES: dict[type, str] = {bool: "bool", int: "integer", float: "double", str: "string"}
TOPIC = re.compile(r"(~?/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
FRAME = re.compile(r"[^\s]*")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)
UNCALIBRATED = "none"
RENAMED = {"question_table": "own_words now, for files of another form: see docs/questions.md"}
"""Parameters that there were, and what there is instead."""
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


class Change(Enum):
    """When a parameter may be set. The value is how people are told."""

    ANY_TIME = "any time"
    UNCONFIGURED = "while unconfigured"
    START = "at start only"


class ParameterError(ValueError):
    """Values that the node cannot run with. ``str()`` has one line for each, with what is allowed."""


@dataclass(frozen=True)
class Parameter:
    """One row of the table. ``least`` and ``most`` are inclusive; ``choices``, if any, are all values of a string."""

    name: str
    type: type[bool] | type[int] | type[float] | type[str]
    default: Value
    description: str
    section: str
    unit: str
    least: float | None
    most: float | None
    choices: tuple[str, ...]
    change: Change

    @property
    def type_name(self) -> str:
        """bool, integer, double or string, as ROS calls it."""
        return TYPE_NAMES[self.type]

    @property
    def allowed(self) -> str:
        """The range or the choices, as people read it; '' for free text and bool."""
        if self.choices:
            return ", ".join(choice or "''" for choice in self.choices)
        if self.least is None or self.most is None:
            return ""
        return f"{self.type(self.least):{_format(self.type)}} to {self.type(self.most):{_format(self.type)}}"

    def check(self, value: Any) -> str:
        """What is wrong with ``value``; '' when nothing is. An integer will do for a double."""
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not self.type:
            return f"{self.name} must be {_a(self.type_name)}, not {value!r}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{self.name} must be a finite number, not {value}"
        if self.least is not None and self.most is not None and not self.least <= float(value) <= self.most:
            return f"{self.name} must be {self.allowed}{f' {self.unit}' if self.unit else ''}, not {value:g}"
        if self.choices and value not in self.choices:
            return f"{self.name} must be one of {self.allowed}, not {value!r}"
        return ""

    def parse(self, text: str) -> Value:
        """The value that ``text`` writes; two quotes are the empty string, as in YAML. Raises ParameterError."""
        value: Value = "" if text in ("''", '""') else text
        try:
            if self.type is bool:
                value = {"true": True, "false": False}[text.strip().lower()]
            elif self.type is not str:
                value = self.type(text)
        except (ValueError, KeyError):
            raise ParameterError(f"{self.name} must be {_a(self.type_name)}, not {text!r}") from None
        error = self.check(value)
        if error:
            raise ParameterError(error)
        return value

    def yaml(self, value: Value | None = None) -> str:
        """A value (default: the default) as YAML that ROS reads with the right type."""
        value = self.default if value is None else value
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return value if re.fullmatch(r"[A-Za-z_/][\w/.-]*", value) else "'" + value.replace("'", "''") + "'"
        return repr(value)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _format(kind: type) -> str:
    return "d" if kind is int else "g"


def _parameter(
    default: Any,
    description: str,
    *,
    section: str = "",
    unit: str = "",
    within: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    change: Change = Change.UNCONFIGURED,
) -> Any:
    """A field with its row of the table. A section goes on until the next one is named."""
    least, most = (None, None) if within is None else within
    return field(
        default=default,
        metadata={
            "description": description,
            "section": section,
            "unit": unit,
            "least": least,
            "most": most,
            "choices": choices,
            "change": change,
        },
    )


@dataclass(frozen=True)
class Settings:
    """The node's parameters with their values. Raises ParameterError for values that do not fit together."""

    color_topic: str = _parameter(
        "camera/color/image_raw",
        "Color images (sensor_msgs/Image). Several cameras: topics separated by commas, here and in the other topics.",
        section="Cameras",
    )
    color_transport: str = _parameter(
        "raw",
        "compressed: take <color_topic>/compressed (sensor_msgs/CompressedImage, JPEG or PNG) instead. Images then "
        "stay compressed in memory, which holds ten times as many.",
        choices=("raw", "compressed"),
    )
    depth_topic: str = _parameter(
        "camera/aligned_depth_to_color/image_raw",
        "Depth images (sensor_msgs/Image, 16UC1 or 32FC1); empty: the camera has none. Depth of another optical frame "
        "or size is registered to the color image, for which its CameraInfo and the TF between the two are needed.",
    )
    depth_transport: str = _parameter(
        "raw",
        "compressedDepth: take <depth_topic>/compressedDepth (PNG or RVL) instead.",
        choices=("raw", "compressedDepth"),
    )
    camera_info_topic: str = _parameter(
        "",
        "CameraInfo of the color images; empty: camera_info beside the image topic. none: the camera is not calibrated, "
        "for which rgb_geometry is needed, which estimates its focal length, too.",
    )
    depth_camera_info_topic: str = _parameter(
        "", "CameraInfo of the depth images; empty: camera_info beside the depth topic."
    )
    depth_unit_m: float = _parameter(
        0.0,
        "Metres of one count of a depth image; 0: that of its format (integers 0.001, floating point 1).",
        section="Depth",
        unit="m",
        within=(0.0, 1000.0),
    )
    invalid_depth: str = _parameter(
        "65535", "Raw values of depth, separated by commas, that mean no data, beside 0, NaN and infinity."
    )
    min_depth_m: float = _parameter(0.0, "Depth below is no data; 0: no bound.", unit="m", within=(0.0, 1000.0))
    max_depth_m: float = _parameter(0.0, "Depth beyond is no data; 0: no bound.", unit="m", within=(0.0, 1000.0))
    color_qos: str = _parameter(
        "auto",
        "Quality of service of the color subscriptions. auto: reliable, and best effort where a publisher offers no "
        "more.",
        section="Quality of service",
        choices=QOS_NAMES,
    )
    depth_qos: str = _parameter("auto", "Quality of service of the depth subscriptions.", choices=QOS_NAMES)
    camera_info_qos: str = _parameter("auto", "Quality of service of the CameraInfo subscriptions.", choices=QOS_NAMES)
    tf_qos: str = _parameter("auto", "Quality of service of the subscription to /tf.", choices=QOS_NAMES)
    tf_static_qos: str = _parameter(
        "latched", "Quality of service of the subscription to /tf_static.", choices=QOS_NAMES
    )
    pose_qos: str = _parameter("auto", "Quality of service of the subscription to pose_topic.", choices=QOS_NAMES)
    qos_depth: int = _parameter(
        10, "Messages that a subscription to images or CameraInfo keeps until they are taken.", within=(1, 1000)
    )
    fixed_frame: str = _parameter(
        "",
        "Frame in which the camera's poses are remembered. Empty: map, odom or world, whichever the camera hangs "
        "below, else the top of its TF tree.",
        section="Time and transforms",
    )
    image_frame: str = _parameter(
        OPTICAL,
        "Axes of the frame that images are stamped with. optical: x right, y down, z forward. body: x forward, y left, z up, "
        "as some simulators have it.",
        choices=IMAGE_FRAMES,
    )
    tf_namespace: str = _parameter(
        "", "Whose transforms count: robot1 for /robot1/tf and /robot1/tf_static; empty: /tf."
    )
    pose_topic: str = _parameter(
        "",
        "Where the robot or the camera is, instead of TF up to the fixed frame: nav_msgs/Odometry, geometry_msgs/PoseStamped "
        "or PoseWithCovarianceStamped, whose covariance goes into the answers' deviations; empty: TF.",
    )
    pose_type: str = _parameter(
        "auto",
        "Type of pose_topic. auto: as it is published.",
        choices=("auto", *(name.rpartition("/")[2] for name in POSE_TYPES)),
    )
    pose_frame: str = _parameter(
        "",
        "The frame whose pose pose_topic tells; empty: child_frame_id of Odometry, else base_link or what else the camera "
        "hangs below, else the camera's own frame.",
    )
    static: bool = _parameter(
        False, "The camera does not move, and needs no pose: every image is taken at the origin of the fixed frame."
    )
    sync_tolerance_s: float = _parameter(
        0.02, "Color and depth whose stamps differ by at most this belong together.", unit="s", within=(0.0, 1.0)
    )
    tf_wait_s: float = _parameter(
        1.2,
        "How much newer a camera's data may get while an image waits for its depth and for the transform at its stamp. "
        "An image without its transform is refused and counted; the latest transform is never taken instead.",
        unit="s",
        within=(0.0, 30.0),
    )
    tf_history_s: float = _parameter(30.0, "Transforms are remembered for this long.", unit="s", within=(0.1, 3600.0))
    tf_max_gap_s: float = _parameter(
        2.0,
        "Transforms further apart than this are not interpolated between; poses in between are the less certain the less "
        "evenly the camera moves. 0: however far apart.",
        unit="s",
        within=(0.0, 60.0),
    )
    pose_offset_s: float = _parameter(
        0.0,
        "How much later transforms and poses are stamped than images of the same moment. Images wait for them, so that "
        "tf_wait_s must be longer than that.",
        unit="s",
        within=(-5.0, 5.0),
    )
    clock_reset_s: float = _parameter(
        5.0,
        "Stamps that jump back by more than this mean that the clock was set back: a recording started over.",
        unit="s",
        within=(0.1, 3600.0),
    )
    on_clock_reset: str = _parameter(
        "forget",
        "What happens to the memory when the clock is set back. keep: it stays, and images of stamps that are in it "
        "already are refused.",
        choices=("forget", "keep"),
        change=Change.ANY_TIME,
    )
    max_future_s: float = _parameter(
        1.0, "Images whose stamps are further ahead of the node's clock are refused.", unit="s", within=(0.0, 1e9)
    )
    image_queue: int = _parameter(
        30,
        "Messages of one image or CameraInfo topic that wait to be taken in; beyond that the oldest is dropped, and "
        "counted.",
        section="Queues",
        within=(1, 1000),
    )
    tf_queue: int = _parameter(1000, "The same for /tf and /tf_static.", within=(1, 100_000))
    max_frames: int = _parameter(
        3000, "Frames in memory; beyond that the oldest that is no keyframe candidate goes.",
        section="Memory", within=(1, 10_000_000),
    )  # fmt: skip
    max_memory_mib: int = _parameter(
        2048, "Images and depth in memory, the same.", unit="MiB", within=(1, 1_000_000)
    )  # fmt: skip
    max_frame_rate_hz: float = _parameter(
        0.0,
        "Frames of one camera taken into memory at most; 0: all. Images left out cannot be referred to in questions.",
        unit="Hz",
        within=(0.0, 1000.0),
        change=Change.ANY_TIME,
    )
    coverage_depth_m: float = _parameter(
        10.0, "Deeper points do not count as seen space when keyframes are selected.", unit="m", within=(0.1, 1000.0)
    )
    points_per_frame: int = _parameter(
        20_000, "About so many points of a frame, evenly spread, are sampled for selection.", within=(100, 1_000_000)
    )
    pool_size: int = _parameter(128, "Candidate keyframes kept.", within=(2, 4096))
    core_size: int = _parameter(
        16, "Size of the core with the streaming guarantee, at most half of pool_size.", within=(1, 2048)
    )
    min_voxel_size_m: float = _parameter(
        0.02, "The voxels that selection counts are never finer than this.", unit="m", within=(0.001, 10.0)
    )
    sensor_model: str = _parameter(
        "rgbd",
        "What is assumed about errors of depth and poses: rgbd (a consumer RGB-D camera), exact (a simulation without "
        "noise), or the path of a sensor.yaml. Depth that rgb_geometry predicts has errors of its own.",
    )
    level: str = _parameter(
        "estimate",
        "Where up and the floor are. estimate: found in the depth images, up near the fixed frame's z where it fits. "
        "fixed_frame: z of the fixed frame is up and its z = 0 is the floor.",
        choices=("estimate", "fixed_frame"),
    )
    keyframes_count: int = _parameter(
        16, "Keyframes published, and frames for a model's answer.", section="Keyframes", within=(1, 1024),
        change=Change.ANY_TIME,
    )  # fmt: skip
    keyframes_rate_hz: float = _parameter(
        1.0,
        "~/keyframes is published when the keyframes have changed, at most this often; 0: never.",
        unit="Hz",
        within=(0.0, 100.0),
        change=Change.ANY_TIME,
    )
    query_workers: int = _parameter(2, "Questions answered at the same time.", section="Questions", within=(1, 64))
    query_queue: int = _parameter(
        64, "Questions that wait for a worker; further ones are told BUSY.", within=(1, 1000), change=Change.START
    )
    timeout_s: float = _parameter(
        30.0,
        "Time limit, waiting included, of a question that sets none.",
        unit="s",
        within=(0.001, 3600.0),
        change=Change.ANY_TIME,
    )
    min_confidence: float = _parameter(
        0.6, "A choice or a yes/no that is less certain is not given (ABSTAINED).",
        within=(0.0, 1.0), change=Change.ANY_TIME,
    )  # fmt: skip
    moment_tolerance_s: float = _parameter(
        0.1,
        "A moment in a question means the frame at most this far from it.",
        unit="s",
        within=(0.0, 60.0),
        change=Change.ANY_TIME,
    )
    max_pose_age_s: float = _parameter(
        5.0,
        "Questions about where the camera is now get a code that says how old its last pose is when that is older; 0: any "
        "age.",
        unit="s",
        within=(0.0, 1e9),
        change=Change.ANY_TIME,
    )
    reader: str = _parameter(
        "grammar",
        "What reads questions in words. grammar: English, by rule. A URL, as http://127.0.0.1:8080/v1: what the grammar does "
        "not read, any language and follow-ups too, goes to a language model behind this OpenAI-compatible endpoint, its key "
        "in the environment variable SPATIAL_MLLM_READER_API_KEY. model: to the language model of the checkpoint in model.",
    )
    reader_model: str = _parameter("", "Name of the endpoint's model; empty: the first one that it lists.")
    reader_timeout_s: float = _parameter(
        10.0, "Time limit of the endpoint for one question.", unit="s", within=(0.1, 600.0)
    )
    base_frame: str = _parameter(
        "",
        "Frame of the robot's base, for questions about the robot; empty: base_link or base_footprint, whichever TF has.",
    )
    time_zone: str = _parameter(
        "", "Time zone of times of day in questions, as Europe/Paris; empty: that of the machine."
    )
    own_words: str = _parameter(
        "", "A YAML file with words and sentences of your own for what can be asked (docs/questions.md); empty: none."
    )
    model: str = _parameter(
        "",
        "Checkpoint for questions that geometry cannot answer: a folder, or the id of one that `spatial-mllm download` "
        "brought; empty: none, they get NO_MODEL.",
        section="Model",
    )
    model_python: str = _parameter(
        "",
        "Python that runs the model and the geometry from color, where the node's own has no torch: that of a virtual "
        "environment with what the extra model needs, ~/venv/bin/python for example.",
    )
    model_precision: str = _parameter(
        "auto",
        "Of the model's weights; int8 and int4 are weight-only. auto: bfloat16 where the device computes in it, else "
        "float32.",
        choices=PRECISIONS,
    )
    model_device: str = _parameter("auto", "Device of the model: auto, cpu, cuda or cuda:N.")
    model_attention: str = _parameter(
        "auto",
        "Implementation of attention. auto: the fastest that is installed; each must agree with eager before it is used.",
        choices=ATTENTIONS,
    )
    model_threads: int = _parameter(
        0,
        "Threads of the CPU that the model, or the geometry from color, computes with; 0: all but one, which is left to "
        "the node.",
        within=(0, 256),
    )
    model_max_frames: int = _parameter(
        32, "Frames that the model is shown at most, whatever keyframes_count or a question says.", within=(2, 256)
    )
    model_encoder_runtime: str = _parameter(
        "torch",
        "What runs the model's spatial encoder. onnx: model_encoder_file on ONNX Runtime, refused when it does not agree "
        "with torch. auto: the same, and torch with a warning where it is refused.",
        choices=ENCODER_RUNTIMES,
    )
    model_encoder_file: str = _parameter("", "The spatial encoder as `spatial-mllm export encoder` wrote it.")
    model_encoder_providers: str = _parameter(
        "auto", "Execution providers of ONNX Runtime by preference: some of tensorrt,cuda,cpu; auto: those installed."
    )
    model_encoder_engine_folder: str = _parameter(
        "", "Folder of the engines that are built from model_encoder_file; empty: the user's cache."
    )
    model_context: str = _parameter(
        "latest",
        "A question that comes while changed keyframes are being encoded. latest: the last complete set answers it. "
        "wait: it waits for the newest.",
        choices=("latest", "wait"),
        change=Change.ANY_TIME,
    )
    model_context_period_s: float = _parameter(
        2.0,
        "Changed keyframes are encoded for the model at most this often.",
        unit="s",
        within=(0.05, 3600.0),
        change=Change.ANY_TIME,
    )
    model_queue: int = _parameter(
        64, "Questions that wait for the model; further ones are told BUSY.", within=(1, 1000), change=Change.START
    )
    model_max_new_tokens: int = _parameter(128, "Length of a model's answer at most, in tokens.", within=(1, 4096))
    model_min_pixels: int = _parameter(
        293_216,
        "Frames are resized for the model to at least so many pixels; the default is that of Spatial-MLLM's training.",
        unit="px",
        within=(3136, 16_777_216),
    )
    model_max_pixels: int = _parameter(
        324_576, "And to at most so many. Fewer make the model faster and less exact.", unit="px",
        within=(3136, 16_777_216),
    )  # fmt: skip
    model_cache_mib: int = _parameter(
        1024, "Bound of the model's caches of encoded frames.", unit="MiB", within=(0, 1_000_000)
    )
    model_load_timeout_s: float = _parameter(
        600.0,
        "Configuring fails when the model, or the geometry from color, has not been loaded by then.",
        unit="s",
        within=(1.0, 86_400.0),
    )
    min_model_confidence: float = _parameter(
        0.1, "A model's answer that is less certain is not given (ABSTAINED).",
        within=(0.0, 1.0), change=Change.ANY_TIME,
    )  # fmt: skip
    cross_check: bool = _parameter(
        True,
        "Where geometry and the model can both answer, ask both: they confirm or doubt each other. Geometry's value is "
        "given either way.",
        change=Change.ANY_TIME,
    )
    cross_check_timeout_s: float = _parameter(
        2.0,
        "How long geometry's answer waits for the model's.",
        unit="s",
        within=(0.0, 3600.0),
        change=Change.ANY_TIME,
    )
    allow_random_weights: bool = _parameter(
        False, "Take a checkpoint that nobody trained, to try things out: its answers are noise, and its name says so."
    )
    rgb_geometry: str = _parameter(
        "",
        "Checkpoint of VGGT, or of Spatial-MLLM, which holds one, that gives images without depth their depth and pose: a "
        "folder, or the id of one that `spatial-mllm download` brought. Or a file of `spatial-mllm export geometry`, which "
        "ends in .onnx and runs on ONNX Runtime, without torch. For one camera. Metres come from its TF, or from depth where "
        "there is some now and then. Empty: none, images without depth only show something.",
        section="Geometry from color",
    )
    rgb_geometry_device: str = _parameter("auto", "Device that it runs on: auto, cpu, cuda or cuda:N.")
    rgb_geometry_precision: str = _parameter(
        "auto",
        "Of its large part. auto: bfloat16 where the device computes in it, else float32; that of an exported file is its own.",
        choices=GEOMETRY_PRECISIONS,
    )
    rgb_geometry_providers: str = _parameter(
        "auto",
        "Execution providers of ONNX Runtime for an exported file, by preference: some of tensorrt,cuda,cpu; auto: those "
        "installed.",
    )
    rgb_geometry_engine_folder: str = _parameter(
        "", "Folder of the engines that are built from an exported file; empty: the user's cache."
    )
    rgb_geometry_width_px: int = _parameter(
        518,
        "Images are resized to this width for it; the default is that of its training. Half as wide is some four times as "
        "quick, and less exact.",
        unit="px",
        within=(56, 2072),
    )
    rgb_geometry_window_size: int = _parameter(8, "Images that it sees at once.", within=(3, 64))
    rgb_geometry_overlap: int = _parameter(
        3, "Of these, images that were in the window before, by which windows are joined.", within=(1, 32)
    )
    rgb_geometry_max_load: float = _parameter(
        0.5,
        "Share of the time that it may compute; images that come faster than that are left out.",
        within=(0.01, 1.0),
    )
    diagnostics_rate_hz: float = _parameter(
        1.0, "/diagnostics is published this often; 0: never.",
        section="Node", unit="Hz", within=(0.0, 100.0), change=Change.ANY_TIME,
    )  # fmt: skip
    auto_activate: bool = _parameter(
        False,
        "Configure and activate at start, without a lifecycle manager. The launch file does it by lifecycle events.",
        change=Change.START,
    )

    def __post_init__(self) -> None:
        errors = list(self._misfits())
        if errors:
            raise ParameterError("\n".join(errors))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Settings:
        """From values by name; missing ones have their defaults. Raises ParameterError, naming all at fault."""
        errors = [f"there is no parameter {name!r}{_did_you_mean(name)}" for name in values if name not in PARAMETERS]
        errors += [e for name, value in values.items() if name in PARAMETERS and (e := PARAMETERS[name].check(value))]
        if errors:
            raise ParameterError("\n".join(errors))
        typed: dict[str, Any] = {name: PARAMETERS[name].type(value) for name, value in values.items()}
        return cls(**typed)

    def changed(self, changes: Mapping[str, Any], configured: str = "") -> Settings:
        """With these values; names that are no parameters here are passed over. configured: full name of the node, if it
        is configured, when not everything can be changed. Raises ParameterError."""
        known = {name: value for name, value in changes.items() if name in PARAMETERS}
        for name, value in known.items():
            fixed = configured and PARAMETERS[name].change is Change.UNCONFIGURED
            if fixed and value != getattr(self, name):
                raise ParameterError(
                    f"{name} can be set while the node is unconfigured: `ros2 lifecycle set {configured} cleanup` first "
                    "(it forgets what has been seen)"
                )
        return self.from_values({**asdict(self), **known})

    @property
    def cameras(self) -> tuple[CameraTopics, ...]:
        """The topics of each camera, without the transports' suffixes."""
        colors = _listed(self.color_topic)
        columns = [
            (_listed(text) or [""]) + [""] * len(colors)
            for text in (self.camera_info_topic, self.depth_topic, self.depth_camera_info_topic)
        ]
        return tuple(
            CameraTopics(
                color,
                None if info == UNCALIBRATED else info or _info_beside(color),
                depth or None,
                (depth_info or _info_beside(depth)) if depth else None,
            )
            for color, info, depth, depth_info in zip(colors, *columns, strict=False)
        )

    @property
    def inputs(self) -> InputSettings:
        """What is assumed about the input, apart from topics. Raises ValueError for what contradicts itself."""
        return InputSettings(
            depth_unit_m=self.depth_unit_m or None,
            invalid_depth=tuple(float(value) for value in filter(None, _listed(self.invalid_depth))),
            min_depth_m=self.min_depth_m,
            max_depth_m=self.max_depth_m,
            image_frame=self.image_frame,
            world_frame=self.fixed_frame,
            tf_namespace=self.tf_namespace,
            pose_topic=self.pose_topic,
            static=self.static,
            sync_tolerance_s=self.sync_tolerance_s,
            tf_max_gap_s=self.tf_max_gap_s,
            pose_offset_s=self.pose_offset_s,
        )

    def _misfits(self) -> Iterator[str]:
        if self.core_size > self.pool_size // 2:
            yield f"core_size must be at most half of pool_size, {self.pool_size // 2}, not {self.core_size}"
        cameras = len(_listed(self.color_topic))
        for name in ("color_topic", "camera_info_topic", "depth_topic", "depth_camera_info_topic"):
            topics = _listed(getattr(self, name))
            if name == "color_topic" and not all(topics):
                yield "color_topic must name a topic, or several, separated by commas"
            if len(topics) > max(cameras, 1):
                yield f"{name} names {len(topics)} topics, but color_topic names {cameras}"
            for topic in topics:
                if topic and not TOPIC.fullmatch(topic):
                    yield f"{name}: {topic!r} is not a topic name"
        colors = _listed(self.color_topic)
        if len(set(colors)) < len(colors):
            yield "color_topic names a topic twice"
        if self.model_min_pixels > self.model_max_pixels:
            yield f"model_min_pixels must be at most model_max_pixels, {self.model_max_pixels}, not {self.model_min_pixels}"
        if self.model_encoder_runtime == "onnx" and not self.model_encoder_file:
            yield "model_encoder_runtime is onnx, so model_encoder_file must name a file"
        if not DEVICE.fullmatch(self.model_device):
            yield f"model_device must be auto, cpu, cuda or cuda:N, not {self.model_device!r}"
        if not DEVICE.fullmatch(self.rgb_geometry_device):
            yield f"rgb_geometry_device must be auto, cpu, cuda or cuda:N, not {self.rgb_geometry_device!r}"
        if self.rgb_geometry_overlap >= self.rgb_geometry_window_size:
            yield (
                f"rgb_geometry_overlap must be less than rgb_geometry_window_size, {self.rgb_geometry_window_size}, not "
                f"{self.rgb_geometry_overlap}"
            )
        if UNCALIBRATED in _listed(self.camera_info_topic) and not self.rgb_geometry:
            yield "camera_info_topic is none: without a calibration nothing is measured but with rgb_geometry"
        if self.rgb_geometry and cameras > 1:
            yield f"rgb_geometry follows one camera, but color_topic names {cameras}"
        if self.rgb_geometry and self.on_clock_reset == "keep":
            yield (
                "on_clock_reset must be forget with rgb_geometry, which cannot join what it sees next to what it saw at a "
                "later time"
            )
        for name in ("fixed_frame", "pose_frame", "tf_namespace"):
            if not FRAME.fullmatch(getattr(self, name)):
                yield f"{name} must be a name without spaces, not {getattr(self, name)!r}"
        if self.pose_topic and not TOPIC.fullmatch(self.pose_topic):
            yield f"pose_topic: {self.pose_topic!r} is not a topic name"
        if self.pose_topic and self.static:
            yield "static cameras need no pose_topic: set one of the two"
        if self.static and cameras > 1:
            yield f"static is for one camera, but color_topic names {cameras}"
        for value in filter(None, _listed(self.invalid_depth)):
            if not NUMBER.fullmatch(value):
                yield f"invalid_depth must be numbers, separated by commas, not {self.invalid_depth!r}"
                return
        try:
            _ = self.inputs
        except ValueError as error:
            yield str(error)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _info_beside(image_topic: str) -> str:
    folder, slash, _ = image_topic.rpartition("/")
    return f"{folder}{slash}camera_info"


def _table() -> dict[str, Parameter]:
    types, section, table = get_type_hints(Settings), "", {}
    for f in dataclasses.fields(Settings):
        section = f.metadata["section"] or section
        row = {**f.metadata, "section": section}
        table[f.name] = Parameter(f.name, types[f.name], f.default, **row)  # type: ignore[arg-type]
        fault = table[f.name].check(f.default)
        assert not fault, fault
    return table


PARAMETERS: dict[str, Parameter] = _table()
"""The table, by name, in the order in which people read it."""


def without_effect(names: Iterable[str]) -> tuple[str, ...]:
    """What to tell about given parameters that the node does not have."""
    told = []
    for name in sorted(names):
        if name.startswith("qos_overrides."):
            own = [p for p in PARAMETERS if p.endswith("_qos")]
            told.append(f"{name} has no effect: set {', '.join(own)} and qos_depth instead")
        else:
            told.append(f"there is no parameter {name!r}, so it has no effect{_did_you_mean(name)}")
    return tuple(told)


def _did_you_mean(name: str) -> str:
    if name in RENAMED:
        return f"; it is {RENAMED[name]}"
    close = get_close_matches(name, PARAMETERS, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def config_yaml() -> str:
    """The configuration file: every parameter with its default, commented."""
    lines = [
        "# The parameters of the spatial_mllm node with their defaults. Copy this file, change the copy, and give it",
        "# as params_file:=<copy> to the launch file or as --params-file <copy> after --ros-args.",
        "# Made by python -m spatial_mllm_ros.nodes.parameters; a test keeps it up to date.",
        "/**:",
        "  ros__parameters:",
    ]
    section = ""
    for p in PARAMETERS.values():
        if p.section != section:
            section = p.section
            lines += ["", f"    # ---- {section}"]
        about = f"{p.description} ({_summary(p)})"
        lines += ["", *textwrap.wrap(about, 110, initial_indent="    # ", subsequent_indent="    # ")]
        lines.append(f"    {p.name}: {p.yaml()}")
    return "\n".join(lines) + "\n"


def _summary(p: Parameter) -> str:
    parts = [p.type_name, p.allowed and p.allowed + (f" {p.unit}" if p.unit else ""), f"set {p.change.value}"]
    return "; ".join(filter(None, parts))


def markdown_table() -> str:
    """The table for the README."""
    lines = ["| Parameter | Type | Default | Allowed | Set | Meaning |", "|---|---|---|---|---|---|"]
    for p in PARAMETERS.values():
        allowed = p.allowed + (f" {p.unit}" if p.unit and p.allowed else "")
        cells = (f"`{p.name}`", p.type_name, f"`{p.yaml()}`", allowed, p.change.value, p.description)
        lines.append("| " + " | ".join(c.replace("|", "\\|").replace("<", "&lt;") for c in cells) + " |")
    return "\n".join(lines) + "\n"


def help_text(executable: str) -> str:
    """What ``--help`` of a node prints."""
    lines = [
        f"usage: {executable} [--ros-args [-p NAME:=VALUE]... [--params-file FILE] [-r FROM:=TO]...]",
        "",
        "Remembers the space that a camera has seen and answers questions about it.",
        "in:  images, CameraInfo, /tf, /tf_static     out: ~/keyframes, /diagnostics     service: spatial_query",
    ]
    section = ""
    for p in PARAMETERS.values():
        if p.section != section:
            section = p.section
            lines += ["", f"{section}:"]
        lines.append(f"  {p.name} [{p.yaml()}]  ({_summary(p)})")
        lines += textwrap.wrap(p.description, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines) + "\n"


def launch_arguments() -> list[tuple[str, str]]:
    """(name, description) of a launch argument for every parameter."""
    return [(p.name, f"{p.description} ({_summary(p)}; default {p.yaml()})") for p in PARAMETERS.values()]


def misspelt(given: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """What to tell about arguments of a launch (``name:=value``) that are not there, but nearly.

    Others may belong to a launch file around this one.
    """
    names, told = list(known), []
    for name in (text.partition(":=")[0] for text in given if ":=" in text):
        close = [] if name in names else get_close_matches(name, names, 1, 0.75)
        told += [f"there is no argument {name!r}, so it has no effect; did you mean {close[0]!r}?"] if close else []
    return tuple(told)


def values_from_text(texts: Mapping[str, str]) -> dict[str, Value]:
    """Values that were written as text, for example as launch arguments. Raises ParameterError, naming all at fault."""
    values, errors = {}, []
    for name, text in texts.items():
        try:
            if name not in PARAMETERS:
                raise ParameterError(f"there is no parameter {name!r}{_did_you_mean(name)}")
            values[name] = PARAMETERS[name].parse(text)
        except ParameterError as error:
            errors.append(str(error))
    if errors:
        raise ParameterError("\n".join(errors))
    return values


def main() -> None:
    """Write the configuration file to the path given, else the README's table to standard output."""
    parser = argparse.ArgumentParser(prog="python -m spatial_mllm_ros.nodes.parameters", description=main.__doc__)
    parser.add_argument("path", nargs="?", type=Path, help="where the configuration file goes")
    path = parser.parse_args().path
    if path is not None:
        path.write_text(config_yaml(), encoding="utf-8")
    else:
        sys.stdout.write(markdown_table())


if __name__ == "__main__":
    main()
