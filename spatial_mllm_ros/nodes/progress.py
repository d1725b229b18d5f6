"""How far the images have come: received, taken in; what of a question is still on its way, and how old "now" is."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.queries.answer import ImageBox, ImagePoint, Request
from spatial_mllm_ros.sources import messages

SECOND = 1_000_000_000
AHEAD_NS = SECOND
"""A question may overtake the images on the network by this much of their time."""
STALLED_S = 2.5
"""When no image has been received or taken in for so long, none is on its way."""
SAME_CLOCK_NS = 5 * SECOND
"""A clock this near to the newest image is the one that stamps them; else they are of a recording."""
_LITTLE_ENDIAN = 1


class Progress:
    """Newest stamps (ns) by camera: of what was received, by topic, and of what was taken in, by frame of the camera.

    Safe to use from several threads. monotonic: seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._received: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self._moved = monotonic()

    def received(self, camera: str, message: Any) -> None:
        """A color image has come, decoded or not."""
        stamp_ns = _stamp_of(message)
        if stamp_ns is not None and stamp_ns > 0:
            self._note(self._received, camera, stamp_ns)

    def taken(self, camera_frame: str, stamp_ns: int) -> None:
        """An image has become a frame, whether or not the memory keeps it."""
        self._note(self._taken, camera_frame, stamp_ns)

    def start_over(self) -> None:
        """Stamps have jumped back."""
        with self._lock:
            self._received.clear()
            self._taken.clear()

    def on_its_way(self, request: Request, waiting: bool) -> bool:
        """Whether an image that the question is about has not been taken in yet, but will be soon.

        waiting: there are color images that were received and not looked at.
        """
        asked = [(mark.stamp_ns, mark.camera_frame) for mark in _marks(request)]
        asked += [(stamp_ns, "") for stamp_ns in request.times]
        with self._lock:
            if not self._received or (not waiting and self._monotonic() - self._moved > STALLED_S):
                return False
            until = max(self._received.values()) + AHEAD_NS
            newest = max(self._taken.values(), default=0)
            return any(self._taken.get(camera, newest) < stamp <= until for stamp, camera in asked)

    def age_s(self, newest_ns: int, line_ns: int, now_ns: int) -> float:
        """Seconds from a pose's stamp to the present.

        line_ns: newest stamp on the images' time line. now_ns: the clock, which tells the present where it is the images'
        own; else it is that stamp and the time since something moved.
        """
        if abs(now_ns - line_ns) <= SAME_CLOCK_NS:
            return (now_ns - newest_ns) / SECOND
        return (line_ns - newest_ns) / SECOND + self._monotonic() - self._moved

    def _note(self, newest: dict[str, int], camera: str, stamp_ns: int) -> None:
        with self._lock:
            newest[camera] = max(stamp_ns, newest.get(camera, stamp_ns))
            self._moved = self._monotonic()


def at_latest(request: Request, memory: SpatialMemory) -> Request:
    """The request with the stamp of the latest image in place of zeros, as ROS means them: one image for all of them."""
    latest: dict[str, int] = {}

    def stamp(stamp_ns: int, camera: str) -> int:
        if stamp_ns:
            return stamp_ns
        if camera not in latest:
            named = camera or next(iter(memory.cameras()), "")
            held = memory.frames(request.window_start, request.window_end, named)
            last = held[-1] if held else memory.single.latest(camera)
            latest[camera] = 0 if last is None else last.frame.stamp_ns
        return latest[camera]

    if all(mark.stamp_ns for mark in _marks(request)) and all(request.times):
        return request
    cameras = [mark.camera_frame for mark in _marks(request) if mark.camera_frame]
    return replace(
        request,
        points=tuple(replace(p, stamp_ns=stamp(p.stamp_ns, p.camera_frame)) for p in request.points),
        boxes=tuple(replace(b, stamp_ns=stamp(b.stamp_ns, b.camera_frame)) for b in request.boxes),
        times=tuple(stamp(t, cameras[0] if cameras else "") for t in request.times),
    )


def _marks(request: Request) -> tuple[ImagePoint | ImageBox, ...]:
    return (*request.points, *request.boxes)


def _stamp_of(message: Any) -> int | None:
    """The header's stamp (ns) of a message with a header, decoded or as CDR; None for what is damaged."""
    if hasattr(message, "header"):
        return messages.stamp_ns(message.header.stamp)
    data = message if isinstance(message, bytes) else getattr(message, "data", b"")
    if not isinstance(data, bytes) or len(data) < 12:
        return None
    sec, nanosec = struct.unpack_from("<iI" if data[1] & _LITTLE_ENDIAN else ">iI", data, 4)
    return int(sec) * SECOND + int(nanosec)
