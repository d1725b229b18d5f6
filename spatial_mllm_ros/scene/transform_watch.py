"""Whether several publishers tell different things about one transform."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from math import degrees
from statistics import median

from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.rigid import Rigid, angle, distance
from spatial_mllm_ros.scene.transform_tree import frame_name

OFTEN = 5
"""So many contradictions are more than a restart or a correction by a localiser."""
SOON_NS = 500_000_000
"""Two publishers take turns within this; a frame that is back where it was after longer may have gone there."""
MOSTLY, FAR_STEPS = 0.4, 4.0
"""Two publishers contradict each other in so many transforms, or by so many usual steps; jitter does neither."""
APART_M, APART_RAD = 0.03, 0.03
"""Transforms closer together than this do not contradict each other."""


@dataclass
class _Child:
    """What was last heard of a frame: stamps, parents and transforms. steps: of late, m. seen, contradictions, leaps: how
    many transforms could contradict those before, did, and did by far more than a step."""

    latest: deque[tuple[int, str, Rigid]] = field(default_factory=lambda: deque(maxlen=2))
    steps: deque[float] = field(default_factory=lambda: deque(maxlen=40))
    seen: int = 0
    contradictions: int = 0
    leaps: int = 0


class TransformWatch:
    """Finds two publishers of one transform: a frame with two parents in turn, or that leaps to and fro.

    Two localisers, a bag's TF beside a live one, or two robots with the same frame names leave each single transform
    plausible, and the poses between them are of neither.
    """

    def __init__(self) -> None:
        self._children: dict[str, _Child] = {}
        self._found: dict[str, str] = {}
        self._statics: dict[str, tuple[str, Rigid]] = {}

    def add(self, parent: str, child: str, stamp_ns: int, T_parent_child: Rigid, static: bool = False) -> None:
        """A transform, in the order in which they come. static: it holds at all times."""
        parent, name = frame_name(parent), frame_name(child)
        if static:
            former = self._statics.setdefault(name, (parent, T_parent_child))
            if former[0] != parent or _apart(former[1], T_parent_child):
                off = _by(former[1], T_parent_child)
                self._found[name] = f"{name} is fixed in {former[0]} {off} from where it is fixed in {parent}"
            return
        state = self._children.setdefault(name, _Child())
        latest = state.latest
        if latest and latest[-1][0] == stamp_ns and stamp_ns:
            if parent != latest[-1][1] or _apart(latest[-1][2], T_parent_child):
                where = f"{latest[-1][1]} and {parent}" if parent != latest[-1][1] else parent
                off = _by(latest[-1][2], T_parent_child)
                self._count(state, name, f"{name} has two places in {where} at one moment, {off} apart", certain=True)
            return  # one of the two counts here: were both remembered, every transform would seem to leap
        if len(latest) >= 2 and abs(stamp_ns - latest[-2][0]) < SOON_NS:
            (_, parent_0, T_0), (_, parent_1, T_1) = latest[-2], latest[-1]
            state.seen += 1
            if parent == parent_0 != parent_1:
                self._count(state, name, f"{name} hangs below {parent} and {parent_1} in turn", certain=True)
            elif parent == parent_0 == parent_1 and _apart(T_0, T_1) and _leaps_back(T_0, T_1, T_parent_child):
                step = distance(T_parent_child, T_1)
                state.leaps += len(state.steps) >= OFTEN and step > FAR_STEPS * median(state.steps)
                self._count(state, name, f"{parent} -> {name} leaps to and fro by {_by(T_1, T_parent_child)}")
        if latest and latest[-1][1] == parent:
            state.steps.append(distance(T_parent_child, latest[-1][2]))
        latest.append((stamp_ns, parent, T_parent_child))

    def _count(self, state: _Child, name: str, text: str, certain: bool = False) -> None:
        """certain: no jitter of a single publisher looks like that."""
        state.contradictions += 1
        often = certain or state.leaps >= OFTEN or state.contradictions >= MOSTLY * state.seen
        if state.contradictions >= OFTEN and often:
            self._found[name] = f"{text}, {state.contradictions} times"

    def doubt(self, chain: Collection[str]) -> Doubt | None:
        """That publishers contradict each other about one of the frames of a chain; None as long as they do not."""
        found = [text for name, text in self._found.items() if name in chain]
        if not found:
            return None
        return Doubt(
            kind="tf_publishers",
            text="two publishers tell different transforms: " + "; ".join(found),
            remedy="stop one of them, or name the robot whose transforms count (tf_namespace)",
            confidence=0.3,
        )


def _by(a: Rigid, b: Rigid) -> str:
    return f"{distance(a, b):.2f} m and {degrees(angle(a, b)):.0f} degrees"


def _apart(a: Rigid, b: Rigid) -> bool:
    return distance(a, b) > APART_M or angle(a, b) > APART_RAD


def _leaps_back(before: Rigid, between: Rigid, now: Rigid) -> bool:
    """Whether ``now`` is much closer to what was two transforms ago than to the last one."""
    by_m, leap_m = distance(before, now), distance(between, now)
    by_rad, leap_rad = angle(before, now), angle(between, now)
    return (leap_m > APART_M and by_m <= leap_m / 2) or (leap_rad > APART_RAD and by_rad <= leap_rad / 2)
