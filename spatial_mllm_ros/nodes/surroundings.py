"""What others publish: why nothing comes on a topic, and which one may have been meant."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches

from spatial_mllm_ros.nodes.inbox import Kind, Stream
from spatial_mllm_ros.sources.topics import POSE_TYPES

LOOK_S = 1.0
MOST_NAMES = 4
LIKE = 0.5
"""difflib's ratio of names that are told as near."""
LARGE_IMAGES = (
    "large images get lost on the way when they are sent best effort: let the system receive them whole (sudo sysctl -w "
    "net.core.rmem_max=33554432 net.ipv4.ipfrag_time=3 net.ipv4.ipfrag_high_thresh=134217728), take compressed ones "
    "({transport}), or have the publisher send reliably ({qos}: reliable)"
)
_TRANSPORTS = {Kind.COLOR: ("color_transport", "compressed"), Kind.DEPTH: ("depth_transport", "compressedDepth")}


class Surroundings:
    """What a node sees of others. resolve: a topic's full name, after namespace and remapping. published: the topics that
    somebody publishes, by full name, with their types; looked up once a second at most.
    """

    def __init__(self, resolve: Callable[[str], str], published: Callable[[], Mapping[str, Collection[str]]]) -> None:
        self.resolve = resolve
        self._published = published
        self._seen: Mapping[str, Collection[str]] = {}
        self._looked = -math.inf

    def published(self) -> Mapping[str, Collection[str]]:
        """Topics that somebody publishes, with their types."""
        if time.monotonic() - self._looked > LOOK_S:
            self._seen, self._looked = self._published(), time.monotonic()
        return self._seen


def why_silent(stream: Stream, surroundings: Surroundings, beside: bool) -> str:
    """Why nothing comes on a stream, and what to do. beside: messages of the same camera do come."""
    topic, published = surroundings.resolve(stream.topic), surroundings.published()
    types = published.get(topic)
    if types is None:
        return f"nobody publishes {topic}{_meant(stream, topic, published)}"
    if not _accepted(stream) & set(types):
        return (
            f"{topic} is published as {', '.join(sorted(types))}, but {' or '.join(sorted(_accepted(stream)))} is expected: "
            f"set {_parameter(stream)}{' or ' + _TRANSPORTS[stream.kind][0] if stream.kind in _TRANSPORTS else ''}"
        )
    if beside and stream.kind in _TRANSPORTS:
        return f"{topic} is published, but nothing arrives, while other topics of the camera do: {large_images(stream)}"
    return (
        f"{topic} is published, but nothing arrives: does the publisher send (`ros2 topic hz {topic}`), does a firewall stop "
        "UDP, or do the two run with different ROS_AUTOMATIC_DISCOVERY_RANGE?"
    )


def large_images(stream: Stream) -> str:
    """What to do about images that do not arrive, or few of them."""
    parameter, transport = _TRANSPORTS[stream.kind]
    return LARGE_IMAGES.format(transport=f"{parameter}: {transport}", qos=stream.qos_parameter)


def _meant(stream: Stream, topic: str, published: Mapping[str, Collection[str]]) -> str:
    if stream.kind in _TRANSPORTS:
        parameter, transport = _TRANSPORTS[stream.kind]
        raw = topic.removesuffix(f"/{transport}")
        if raw != topic and raw in published:
            return f", only {raw}: set {parameter} to raw"
        if f"{topic}/{transport}" in published:
            return f", only {topic}/{transport}: set {parameter} to {transport}"
    wanted = " or ".join(sorted(_accepted(stream)))
    same = sorted(name for name, types in published.items() if _accepted(stream) & set(types))
    if not same:
        domain = os.environ.get("ROS_DOMAIN_ID") or "0"
        return f", nor any topic of type {wanted}: does the driver run, in the same ROS_DOMAIN_ID ({domain})?"
    near = get_close_matches(topic, same, MOST_NAMES, LIKE)
    names = near or same[:MOST_NAMES]
    more = f" and {len(same) - len(names)} more" if not near and len(same) > len(names) else ""
    what = "did you mean" if near else f"of type {wanted} there are"
    return f": {what} {', '.join(names)}{more}{'?' if near else ';'} set {_parameter(stream)}, or remap the topic"


def _accepted(stream: Stream) -> set[str]:
    """The types that a stream may have; one of poses, several until it is known."""
    return set(POSE_TYPES) if stream.kind is Kind.POSE else {stream.message_type}


def _parameter(stream: Stream) -> str:
    return {Kind.TF: "a remapping", Kind.TF_STATIC: "a remapping"}.get(stream.kind, f"{stream.kind.value}_topic")
