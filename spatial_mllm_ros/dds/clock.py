"""Time: the system's, or that of /clock when a simulation or a recording sets it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spatial_mllm_ros.dds.endpoints import Payload, SampleInfo
    from spatial_mllm_ros.dds.node import DdsNode

S_NS = 1_000_000_000


def time_message(node: DdsNode, stamp_ns: int | None = None) -> Any:
    """builtin_interfaces/msg/Time of a stamp in nanoseconds; None: the system's time."""
    seconds, nanoseconds = divmod(time.time_ns() if stamp_ns is None else stamp_ns, S_NS)
    return node.message("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)


class NodeClock:
    """The node's time in nanoseconds, by the system or, with use_sim_time, by /clock.

    on_jump is called, in the thread of the node's subscriptions, with the old and the new time when /clock goes back.
    """

    def __init__(
        self, node: DdsNode, use_sim_time: bool = False, on_jump: Callable[[int, int], None] | None = None
    ) -> None:
        self._node = node
        self._on_jump = on_jump
        self._now_ns = 0
        self._subscription: Any = None
        self.use_sim_time = use_sim_time

    @property
    def use_sim_time(self) -> bool:
        """Whether /clock sets the time. May be changed at any time."""
        return self._subscription is not None

    @use_sim_time.setter
    def use_sim_time(self, wanted: bool) -> None:
        if wanted and self._subscription is None:
            self._now_ns = 0
            self._subscription = self._node.create_subscription(
                "rosgraph_msgs/msg/Clock", "/clock", self._on_clock, "clock"
            )
        elif not wanted and self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def now_ns(self) -> int:
        """Nanoseconds; 0 with use_sim_time until the first message on /clock, as in ROS 2."""
        return self._now_ns if self.use_sim_time else time.time_ns()

    def _on_clock(self, payload: Payload, _: SampleInfo) -> None:
        clock = payload.decode().clock
        before, self._now_ns = self._now_ns, int(clock.sec) * S_NS + int(clock.nanosec)
        if self._now_ns < before and self._on_jump is not None:
            self._on_jump(before, self._now_ns)
