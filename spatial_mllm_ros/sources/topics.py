"""Which topics of a recording are a camera's colour, depth and calibration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spatial_mllm_ros.sources.messages import is_depth_encoding
from spatial_mllm_ros.sources.source import SourceError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
TF_TYPE = "tf2_msgs/msg/TFMessage"
NONE = "none"
TRANSPORTS = ("/compressed", "/compressedDepth")
NOT_A_COLOUR_IMAGE = re.compile(r"depth|disparity|mask|segment|label|debug|infra|(^|[/_])ir\d?([/_]|$)")
A_COLOUR_IMAGE = re.compile(r"colou?r|rgb")


@dataclass(frozen=True)
class Topic:
    """A topic and what its first message says. encoding: Image.encoding or CompressedImage.format, '' for others."""

    name: str
    type: str
    frame_id: str
    encoding: str = ""

    @property
    def base(self) -> str:
        """The name without the suffix of a compressing transport."""
        return next((self.name[: -len(t)] for t in TRANSPORTS if self.name.endswith(t)), self.name)

    @property
    def compressed(self) -> bool:
        return self.type == IMAGE_TYPES[1]


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera; None: there is none."""

    colour: str
    info: str | None = None
    depth: str | None = None
    depth_info: str | None = None


def is_rectified(topic: str) -> bool:
    """Whether the name says, as image_proc's do, that images are rectified. RealSense's depth is called so, too."""
    return "rect" in topic.rsplit("/image", maxsplit=1)[-1]


def find_cameras(topics: Sequence[Topic]) -> list[CameraTopics]:
    """Cameras of a recording, the likeliest main colour camera first.

    Depth is known by its encoding; of several depth topics the one in the colour camera's frame (registered already),
    then the one whose name shares most with the colour topic's. CameraInfo lies beside its image, or has its frame.
    Of a topic and its compressed form the uncompressed one is taken.
    """
    images = [t for t in topics if t.type in IMAGE_TYPES]
    infos = [t for t in topics if t.type == INFO_TYPE]
    depths = [t for t in images if is_depth_encoding(t.encoding)]
    colours = _one_per_image([t for t in images if not is_depth_encoding(t.encoding)])
    colours.sort(key=lambda t: (bool(NOT_A_COLOUR_IMAGE.search(t.base)), not A_COLOUR_IMAGE.search(t.base), t.name))
    cameras = []
    for colour in colours:
        depth = _depth_of(colour, depths, infos, only=len(colours) == 1)
        cameras.append(
            CameraTopics(
                colour.name,
                info_of(colour, infos),
                None if depth is None else depth.name,
                None if depth is None else info_of(depth, infos),
            )
        )
    return cameras


def choose_cameras(path: Path, topics: Sequence[Topic], asked: CameraTopics, all_cameras: bool) -> list[CameraTopics]:
    """The cameras of the recording at ``path`` to be read, with the topics that were asked for put in.

    asked: '' for colour and None for the others: to be found. NONE for depth: there is to be none.
    Raises SourceError when a topic is not there, or no colour images are.
    """
    images = {t.name: t for t in topics if t.type in IMAGE_TYPES}
    infos = {t.name: t for t in topics if t.type == INFO_TYPE}
    for name, there in ((asked.colour, images), (asked.depth, images), (asked.info, infos), (asked.depth_info, infos)):
        if name and name != NONE and name not in there:
            names = ", ".join(there) or "none"
            raise SourceError(f"{path} has no messages on {name}; topics of that kind: {names}")
    cameras = find_cameras(topics)
    if asked.colour:
        beside = info_of(images[asked.colour], list(infos.values()))
        cameras = [c for c in cameras if c.colour == asked.colour] or [CameraTopics(asked.colour, beside)]
    if not cameras:
        raise SourceError(
            f"{path} has no colour images; it needs messages of type {' or '.join(IMAGE_TYPES)}. Image topics in it: "
            f"{', '.join(images) or 'none'}"
        )
    if all_cameras and asked == CameraTopics(""):
        return cameras
    camera = cameras[0]
    if asked.depth == NONE:
        camera = replace(camera, depth=None, depth_info=None)
    elif asked.depth:
        camera = replace(camera, depth=asked.depth, depth_info=info_of(images[asked.depth], list(infos.values())))
    return [replace(camera, info=asked.info or camera.info, depth_info=asked.depth_info or camera.depth_info)]


def info_of(image: Topic, infos: Sequence[Topic]) -> str | None:
    """The CameraInfo topic of an image topic: beside it, else one of the same frame; None when there is none."""
    beside = image.base.rpartition("/")[0] + "/camera_info"
    for name in (beside, image.base + "/camera_info"):
        if any(info.name == name for info in infos):
            return name
    same = [info for info in infos if info.frame_id == image.frame_id]
    return min(same, key=lambda info: (-_shared(info.name, image.name), info.name)).name if same else None


def _one_per_image(images: Sequence[Topic]) -> list[Topic]:
    chosen: dict[str, Topic] = {}
    for image in sorted(images, key=lambda t: (t.compressed, t.name)):
        chosen.setdefault(image.base, image)
    return list(chosen.values())


def _depth_of(colour: Topic, depths: Sequence[Topic], infos: Sequence[Topic], only: bool) -> Topic | None:
    fitting = [
        depth
        for depth in depths
        if depth.frame_id == colour.frame_id
        or (info_of(depth, infos) is not None and (only or _shared(depth.name, colour.name) > 0))
    ]
    return min(
        fitting,
        key=lambda d: (d.frame_id != colour.frame_id, -_shared(d.name, colour.name), d.compressed, d.name),
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
