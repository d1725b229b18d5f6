"""Which topics of a recording are a camera's color, depth and calibration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spatial_mllm_ros.sources.messages import COLOR_ENCODINGS, DEPTH_ENCODINGS, encoding_name
from spatial_mllm_ros.sources.source import SourceError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
TF_TYPE = "tf2_msgs/msg/TFMessage"
POSE_TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)
NONE = "none"
TRANSPORTS = ("/compressed", "/compressedDepth")
DEPTH = re.compile(r"depth|(^|[/_])(range|tof|z|stereo)([/_]|$)")
"""What names of depth say; the latter ones count for encodings that only depth has."""
BESIDE_DEPTH = re.compile(
    r"confiden|dispar|uncertain|varian|stddev|sigma|normal|amplitude|intensity|reflect|index_map|label|segment|mask|"
    r"cost|weight|quality|color(iz|_?map)|debug|preview|visuali[sz]"
)
"""What depth cameras and stereo matchers publish besides, some of it as one channel of numbers that are no metres."""
INFRARED = re.compile(r"infra|(^|[/_])ir\d?([/_]|$)")
NOT_A_COLOR_IMAGE = re.compile(rf"depth|thermal|{BESIDE_DEPTH.pattern}|{INFRARED.pattern}|detect|overlay|annotat")
A_COLOR_IMAGE = re.compile(r"colou?r|rgb")
SECONDARY = re.compile(r"(^|[/_])(right|stereo|second)([/_]|$)")
LEFT = re.compile(r"(^|[/_])left([/_]|$)")
GREY = re.compile(r"gr[ae]y|mono")
ALIGNED = re.compile(r"align|regist|_to_(colou?r|rgb)")
NUMBERS = re.compile(r"\d+[USF]C\d*")


@dataclass(frozen=True)
class Topic:
    """A topic and what its first message says.

    encoding: Image.encoding or CompressedImage.format, '' for others. size: (width, height) px of Image and CameraInfo.
    """

    name: str
    type: str
    frame_id: str
    encoding: str = ""
    size: tuple[int, int] | None = None

    @property
    def base(self) -> str:
        """The name without the suffix of a compressing transport."""
        return next((self.name[: -len(t)] for t in TRANSPORTS if self.name.endswith(t)), self.name)

    @property
    def compressed(self) -> bool:
        return self.type == IMAGE_TYPES[1]

    @property
    def kind(self) -> str:
        """The encoding of the pixels, before compression."""
        return encoding_name(self.encoding)


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera; None: there is none."""

    color: str
    info: str | None = None
    depth: str | None = None
    depth_info: str | None = None


def is_rectified(topic: str) -> bool:
    """Whether the name says, as image_proc's do, that images are rectified. RealSense's depth is called so, too."""
    parts = topic.split("/")
    return "rect" in topic.rsplit("/image", maxsplit=1)[-1] or "rect" in parts


def depth_fault(topic: Topic) -> str | None:
    """Why an image topic is not taken for depth, '' when it can be; None for one that nobody would take for it."""
    name = topic.base.lower()
    says_depth = "depth" in name
    if topic.compressed and not (topic.kind in DEPTH_ENCODINGS or (says_depth and topic.name.endswith(TRANSPORTS))):
        return None
    if not topic.compressed and not (topic.kind in DEPTH_ENCODINGS and (says_depth or topic.kind != "mono16")):
        return None
    if topic.name.endswith("/compressed") and "png" not in topic.encoding and "compressedDepth" not in topic.encoding:
        return "depth of 8 bits, as JPEG: record raw depth or compressedDepth"
    if beside := BESIDE_DEPTH.search(name):
        return f"its name says {beside[0]!r}"
    without_depth = "/".join(part for part in name.split("/") if not DEPTH.search(part))
    if infrared := INFRARED.search(without_depth):
        return f"its name says {infrared[0].strip('/_')!r}"
    return "" if DEPTH.search(name) else "its name does not say depth"


def _shows(topic: Topic) -> bool:
    """Whether an image topic can be shown as color or grey."""
    if topic.compressed:
        return depth_fault(topic) is None and not topic.name.endswith("/compressedDepth")
    known = topic.kind in COLOR_ENCODINGS
    return depth_fault(topic) is None and (known or not NUMBERS.fullmatch(topic.kind))


def find_cameras(topics: Sequence[Topic]) -> list[CameraTopics]:
    """Cameras of a recording, the likeliest main color camera first: one with depth, in its own frame if possible.

    Depth is known by its encoding and its name, see ``depth_fault``; of several depth topics the one in the color
    camera's frame (registered already) and of its size, then the one whose name shares most with the color topic's.
    CameraInfo lies beside its image, or has its frame. Of a topic and its compressed forms the uncompressed one is
    taken, then the one that loses nothing.
    """
    images = [t for t in topics if t.type in IMAGE_TYPES]
    infos = [t for t in topics if t.type == INFO_TYPE]
    depths = _one_per_image([t for t in images if depth_fault(t) == ""])
    colors = _one_per_image([t for t in images if _shows(t)])
    chosen = [(color, _depth_of(color, depths, infos, only=len(colors) == 1)) for color in colors]
    chosen.sort(key=lambda pair: _likeliest(*pair))
    return [
        CameraTopics(
            color.name,
            info_of(color, infos),
            None if depth is None else depth.name,
            None if depth is None else info_of(depth, infos),
        )
        for color, depth in chosen
    ]


def _likeliest(color: Topic, depth: Topic | None) -> tuple[bool | str, ...]:
    """Smaller for what is rather the main color camera."""
    name = color.base.lower()
    return (
        bool(NOT_A_COLOR_IMAGE.search(name)),
        depth is None,
        depth is not None and depth.frame_id != color.frame_id,
        bool(SECONDARY.search(name)),
        bool(GREY.search(name)) or color.kind.startswith("mono"),
        not A_COLOR_IMAGE.search(name),
        bool(LEFT.search(name)),
        not is_rectified(name),
        color.name,
    )


def choose_cameras(path: Path, topics: Sequence[Topic], asked: CameraTopics, all_cameras: bool) -> list[CameraTopics]:
    """The cameras of the recording at ``path`` to be read, with the topics that were asked for put in.

    asked: '' for color and None for the others: to be found. NONE for depth: there is to be none.
    Raises SourceError when a topic is not there, or no color images are.
    """
    images = {t.name: t for t in topics if t.type in IMAGE_TYPES}
    infos = {t.name: t for t in topics if t.type == INFO_TYPE}
    for name, there in ((asked.color, images), (asked.depth, images), (asked.info, infos), (asked.depth_info, infos)):
        if name and name != NONE and name not in there:
            names = ", ".join(there) or "none"
            raise SourceError(f"{path} has no messages on {name}; topics of that kind: {names}")
    cameras = find_cameras(topics)
    if asked.color:
        beside = info_of(images[asked.color], list(infos.values()))
        cameras = [c for c in cameras if c.color == asked.color] or [CameraTopics(asked.color, beside)]
    if not cameras:
        raise SourceError(
            f"{path} has no color images; it needs messages of type {' or '.join(IMAGE_TYPES)}. Image topics in it: "
            f"{', '.join(images) or 'none'}"
        )
    if all_cameras and asked == CameraTopics(""):
        return cameras
    camera = cameras[0]
    if asked.depth == NONE:
        camera = replace(camera, depth=None, depth_info=None)
    elif asked.depth:
        if (fault := depth_fault(images[asked.depth]) or "").startswith("depth of 8 bits"):
            raise SourceError(f"{path}: {asked.depth} holds {fault}")
        camera = replace(camera, depth=asked.depth, depth_info=info_of(images[asked.depth], list(infos.values())))
    return [replace(camera, info=asked.info or camera.info, depth_info=asked.depth_info or camera.depth_info)]


def info_of(image: Topic, infos: Sequence[Topic]) -> str | None:
    """The CameraInfo topic of an image topic: beside it, else one of the same frame, and size if possible; None when
    there is none."""
    beside = image.base.rpartition("/")[0] + "/camera_info"
    for name in (beside, image.base + "/camera_info"):
        if any(info.name == name for info in infos):
            return name
    same = [info for info in infos if info.frame_id == image.frame_id]
    same.sort(key=lambda info: (info.size != image.size, -_shared(info.name, image.name), info.name))
    return same[0].name if same else None


def tf_namespaces(tf_topics: Sequence[str], color_topic: str, asked: str = "") -> tuple[list[str], list[str]]:
    """The tf topics that tell of the camera's robot, and the others, each sorted.

    A robot's are those in one namespace: the one asked for ('/': those without namespace); else the innermost that the
    color topic is in, too; else those without namespace, or the only ones that there are. Where a robot has no tf, or no
    tf_static, of its own, the one without namespace counts, which several then share with prefixes in frame names.
    """
    by_namespace: dict[str, list[str]] = {}
    for topic in sorted(tf_topics):
        by_namespace.setdefault(topic.rpartition("/")[0], []).append(topic)
    if asked:
        chosen = by_namespace.get("" if asked == "/" else "/" + asked.strip("/"), [])
    else:
        around = [n for n in by_namespace if color_topic.startswith(n + "/")]
        namespace = max(around, key=len) if around else next(iter(by_namespace), "") if len(by_namespace) == 1 else None
        chosen = [] if namespace is None else list(by_namespace[namespace]) if by_namespace else []
        if chosen:
            kinds = {is_static_tf(topic) for topic in chosen}
            chosen += [t for t in by_namespace.get("", ()) if t not in chosen and is_static_tf(t) not in kinds]
    return sorted(chosen), sorted(set(tf_topics) - set(chosen))


def is_static_tf(topic: str) -> bool:
    """Whether a tf topic tells transforms that hold at all times."""
    return "tf_static" in topic.rpartition("/")[2]


def _one_per_image(images: Sequence[Topic]) -> list[Topic]:
    chosen: dict[str, Topic] = {}
    for image in sorted(images, key=lambda t: (t.compressed, not t.name.endswith("/compressedDepth"), t.name)):
        chosen.setdefault(image.base, image)
    return list(chosen.values())


def _depth_of(color: Topic, depths: Sequence[Topic], infos: Sequence[Topic], only: bool) -> Topic | None:
    fitting = [
        depth
        for depth in depths
        if depth.frame_id == color.frame_id
        or (info_of(depth, infos) is not None and (only or _shared(depth.name, color.name) > 0))
    ]
    return min(
        fitting,
        key=lambda d: (
            d.frame_id != color.frame_id,
            None not in (d.size, color.size) and d.size != color.size,
            d.frame_id == color.frame_id and not ALIGNED.search(d.base),
            -_shared(d.name, color.name),
            d.compressed,
            d.name,
        ),
        default=None,
    )


def _shared(a: str, b: str) -> int:
    """How many leading parts two topic names share."""
    count = 0
    for x, y in zip(a.strip("/").split("/"), b.strip("/").split("/"), strict=False):
        if x != y:
            break
        count += 1
    return count
