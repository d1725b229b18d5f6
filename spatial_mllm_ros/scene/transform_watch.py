"""Whether several publishers tell different things about one transform."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import Transform, invert, rotation_angle
from spatial_mllm_ros.scene.transform_tree import frame_name

OFTEN = 5
"""So many contradictions are more than a restart or a correction by a localiser."""
SOON_NS = 500_000_000
"""Two publishers take turns within this; a frame that is back where it was after longer may have gone there."""
APART_M, APART_RAD = 0.03, 0.03
"""Transforms closer together than this do not contradict each other."""


@dataclass
class _Child:
    """What was last heard of a frame: stamps, parents and transforms."""

    latest: deque[tuple[int, str, Transform]] = field(default_factory=lambda: deque(maxlen=2))
    contradictions: int = 0


class TransformWatch:
    """Finds two publishers of one transform: a frame with two parents in turn, or that leaps to and fro.

    Two localisers, a bag's TF beside a live one, or two robots with the same frame names leave each single transform
    plausible, and the poses between them are of neither.
    """

    def __init__(self) -> None:
        self._children: dict[str, _Child] = {}
        self._found: dict[str, str] = {}

    def add(self, parent: str, child: str, stamp_ns: int, T_parent_child: Transform) -> None:
        """A transform, in the order in which they come."""
        parent, name = frame_name(parent), frame_name(child)
        state = self._children.setdefault(name, _Child())
        latest = state.latest
        if len(latest) >= 2 and abs(stamp_ns - latest[-2][0]) < SOON_NS:
            (_, parent_0, T_0), (_, parent_1, T_1) = latest[-2], latest[-1]
            if parent == parent_0 != parent_1:
                self._count(state, name, f"{name} hangs below {parent} and {parent_1} in turn")
            elif parent == parent_0 == parent_1 and _apart(T_0, T_1) and _leaps_back(T_0, T_1, T_parent_child):
                off = invert(T_1) @ T_parent_child
                by = f"{np.linalg.norm(off[:3, 3]):.2f} m and {np.degrees(rotation_angle(off)):.0f} degrees"
                self._count(state, name, f"{parent} -> {name} leaps to and fro by {by}")
        latest.append((stamp_ns, parent, T_parent_child))

    def _count(self, state: _Child, name: str, text: str) -> None:
        state.contradictions += 1
        if state.contradictions >= OFTEN:
            self._found[name] = f"{text}, {state.contradictions} times"

    def doubt(self) -> Doubt | None:
        """That publishers contradict each other; None as long as they do not."""
        if not self._found:
            return None
        return Doubt(
            kind="tf_publishers",
            text="two publishers tell different transforms: " + "; ".join(self._found.values()),
            remedy="stop one of them, or name the robot whose transforms count (tf_namespace)",
            confidence=0.3,
        )


def _apart(a: Transform, b: Transform) -> bool:
    off = invert(a) @ b
    return float(np.linalg.norm(off[:3, 3])) > APART_M or rotation_angle(off) > APART_RAD


def _leaps_back(before: Transform, between: Transform, now: Transform) -> bool:
    """Whether ``now`` is much closer to what was two transforms ago than to the last one."""
    back, leap = invert(before) @ now, invert(between) @ now
    return (
        _apart(between, now)
        and float(np.linalg.norm(back[:3, 3])) <= float(np.linalg.norm(leap[:3, 3])) / 2
        and rotation_angle(back) <= max(rotation_angle(leap) / 2, APART_RAD / 2)
    )
