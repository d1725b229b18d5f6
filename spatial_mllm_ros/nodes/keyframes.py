"""The keyframes as a node publishes them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from spatial_mllm_ros.memory.keyframes.coverage import Selection
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.memory.view import MemoryView

log = logging.getLogger(__name__)
LOOK_S = 0.5


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

    @classmethod
    def of(cls, memory: MemoryView, count: int, stamp_ns: int) -> KeyframeSet:
        """The keyframes of a snapshot, ``count`` at most."""
        selection = memory.keyframes(count)
        stored = tuple(frame for frame in map(memory.get, selection.picked) if frame is not None)
        voxels = tuple(_alone(memory, frame, gain) for frame, gain in zip(stored, selection.gains, strict=True))
        return cls(selection, stored, voxels, stamp_ns, memory.world_frame)


def publish_changes(
    keyframes: Callable[[], KeyframeSet],
    state: Callable[[], object],
    rate_hz: Callable[[], float],
    publish: Callable[[KeyframeSet], None],
    stop: threading.Event,
) -> None:
    """Publish the keyframes when others are picked, ``rate_hz`` times a second at most, until ``stop``.

    state: changes whenever they may have. rate_hz: 0 publishes nothing.
    """
    seen: object = None
    published: tuple[int, ...] = ()
    while True:
        rate = rate_hz()
        if stop.wait(1.0 / rate if rate > 1.0 / LOOK_S else LOOK_S):
            return
        now = state()
        if not rate or now == seen:
            continue
        seen = now
        try:
            found = keyframes()
            if found.selection.picked != published:
                published = found.selection.picked
                publish(found)
                if stop.wait(max(0.0, 1.0 / rate - LOOK_S)):
                    return
        except Exception:  # the node keeps serving
            log.exception("keyframes could not be published")


def _alone(memory: MemoryView, stored: StoredFrame, gain: int) -> int:
    """Voxels that a keyframe covers alone; at least ``gain``, which it added to those before it."""
    stamp = stored.frame.stamp_ns
    alone = memory.keyframes(1, stamp, stamp)
    return alone.covered if alone.picked == (stored.frame_id,) else gain
