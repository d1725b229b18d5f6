"""Coordinate frames that move against each other: the tree of tf2, with its history."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field
from math import hypot, sqrt

from spatial_mllm_ros.scene.clocks import OTHER_CLOCK_NS, apart_words
from spatial_mllm_ros.scene.pose import InvalidTransform, Transform, checked_transform
from spatial_mllm_ros.scene.rigid import (
    IDENTITY,
    Rigid,
    angle,
    between,
    compose,
    distance,
    inverse,
    matrix,
    of_matrix,
)

SECOND = 1_000_000_000
Stddev = tuple[float, float]
"""One standard deviation of a pose: position along each axis, m, and rotation about each, rad."""
NO_STDDEV: Stddev = (0.0, 0.0)
PREFERRED_ROOTS = ("map", "odom", "world")
PART_OF_A_ROBOT = re.compile(r"base|body|chassis|footprint|robot|link$|camera|optical|imu|lidar|laser|sensor")
ONCE_NS = 3 * SECOND
"""A transform that was told once, and not again for so long, was meant to hold."""
RESTART_AFTER = 10
"""So many transforms in a row from before the history mean that the publisher's clock was set back."""


class TransformError(LookupError):
    """No transform between two frames at a time. ``reason`` is a short word for counting."""

    reason = "tf_error"


class UnknownFrame(TransformError):
    """A frame of which nothing was ever heard."""

    reason = "tf_unknown_frame"


class NotConnected(TransformError):
    """Two frames in different trees."""

    reason = "tf_not_connected"


class ExtrapolationIntoPast(TransformError):
    """The time asked for lies before the history of an edge, by ``by_ns``."""

    reason = "tf_past"

    def __init__(self, message: str, by_ns: int) -> None:
        super().__init__(message)
        self.by_ns = by_ns


class ExtrapolationIntoFuture(TransformError):
    """The time asked for, ``asked_ns``, lies after the latest transform of an edge, that of ``child``, by ``by_ns``."""

    reason = "tf_future"

    def __init__(self, message: str, by_ns: int, child: str, asked_ns: int) -> None:
        super().__init__(message)
        self.by_ns = by_ns
        self.child = child
        self.asked_ns = asked_ns


class TransformGap(TransformError):
    """The transforms around the time asked for are further apart (``gap_ns``) than may be bridged."""

    reason = "tf_gap"

    def __init__(self, message: str, gap_ns: int) -> None:
        super().__init__(message)
        self.gap_ns = gap_ns


class SentOnce(TransformError):
    """A moving transform of which there is only one, long before or after: a mount that belongs on tf_static."""

    reason = "tf_once"


class NoFrame(TransformError):
    """No frame was named."""

    reason = "no_frame_id"


class TransformLoop(TransformError):
    """A transform that would make a frame its own ancestor."""

    reason = "tf_loop"


@dataclass
class _Edge:
    """Transforms of one child in its parent, by stamp. A static edge holds one, whose stamp does not matter."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    transforms: list[Rigid] = field(default_factory=list)
    stddevs: list[Stddev] = field(default_factory=list)
    too_old_in_a_row: int = 0
    ahead: tuple[int, Rigid, Stddev] | None = None
    """The latest transform, if it lies further ahead than the history is long: a slip, until the next one confirms it."""


class TransformTree:
    """Transforms between frames over time, each frame with one parent.

    history_ns: how far back from its newest transform an edge remembers. history_count: how many transforms at most.
    max_gap_ns: longest stretch without a transform that is interpolated across; None: any. A stretch in which a
        localiser was silent is thus an error, not a straight line.

    Against contradictions: the latest parent wins, and the history under the former one is dropped, since nothing says
    how the two relate (tf2 keeps it and mixes them). A transform from before an edge's history is ignored, but ten of
    them in a row mean that the publisher's clock was set back, and the edge starts anew. One further ahead than the history
    is long counts once the next one confirms it. ``counts`` tells how often: ``tf_new_parent``, ``tf_too_old``,
    ``tf_restarted``, ``tf_repeated``, ``tf_outlier``.
    """

    def __init__(
        self, history_ns: int = 30 * SECOND, history_count: int = 10_000, max_gap_ns: int | None = SECOND // 2
    ) -> None:
        if history_ns <= 0 or history_count < 2 or (max_gap_ns is not None and max_gap_ns < 0):
            raise ValueError("history_ns must be positive, history_count at least 2, max_gap_ns not negative")
        self._history_ns = history_ns
        self._history_count = history_count
        self._max_gap_ns = max_gap_ns
        self._edges: dict[str, _Edge] = {}
        self._frames: dict[str, None] = {}  # in the order in which they were first heard of
        self._above: dict[str, tuple[str, ...]] = {}  # of every frame that was asked for, until the tree changes
        self.counts: Counter[str] = Counter()
        self.shape = 0
        """Changes with which frames there are and how they hang together, and with every static transform."""

    def add(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        T_parent_child: Transform | Rigid,
        static: bool = False,
        stddev: Stddev = NO_STDDEV,
    ) -> None:
        """Note where ``child`` is in ``parent`` at ``stamp_ns``, in any order; a repeated stamp replaces the former.

        T_parent_child: metres; maps points of child to points of parent. static: holds at all times.
        stddev: as its publisher tells it.
        Raises InvalidTransform for what is not a rigid transform or names no frame, TransformLoop for a loop.
        """
        parent, child = frame_name(parent), frame_name(child)
        if not parent or not child:
            raise InvalidTransform(f"a transform needs two frame names, not {parent!r} and {child!r}")
        T = T_parent_child if isinstance(T_parent_child, tuple) else of_matrix(checked_transform(T_parent_child))
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.static != static:
            if child == parent or child in self.ancestors(parent):
                raise TransformLoop(f"{parent} -> {child} would make {child} its own ancestor: drop this publisher")
            if edge is not None and edge.parent != parent:
                self.counts["tf_new_parent"] += 1
                if not (static or edge.static) and stamp_ns < edge.stamps[-1]:
                    return
            edge = self._edges[child] = _Edge(parent, static)
            self._frames.setdefault(parent)
            self._frames.setdefault(child)
            self._reshaped()
        if static:
            if edge.transforms != [T]:
                self._reshaped()
            edge.stamps, edge.transforms, edge.stddevs = [stamp_ns], [T], [stddev]
        else:
            self._insert(edge, stamp_ns, T, stddev)

    def _insert(self, edge: _Edge, stamp_ns: int, T: Rigid, stddev: Stddev) -> None:
        stamps, transforms, stddevs = edge.stamps, edge.transforms, edge.stddevs
        if stamps and stamp_ns < stamps[-1] - self._history_ns:
            self.counts["tf_too_old"] += 1
            edge.too_old_in_a_row += 1
            if edge.too_old_in_a_row < RESTART_AFTER:
                return
            self.counts["tf_restarted"] += 1
            stamps.clear()
            transforms.clear()
            stddevs.clear()
        edge.too_old_in_a_row = 0
        if stamps and stamp_ns > stamps[-1] + self._history_ns:
            former, edge.ahead = edge.ahead, (stamp_ns, T, stddev)
            if former is None or abs(stamp_ns - former[0]) > self._history_ns:
                self.counts["tf_outlier"] += former is not None
                return
            stamps[:], transforms[:], stddevs[:] = [former[0]], [former[1]], [former[2]]
        elif edge.ahead is not None:
            self.counts["tf_outlier"] += 1
        edge.ahead = None
        at = len(stamps) if not stamps or stamp_ns > stamps[-1] else bisect_left(stamps, stamp_ns)
        if at < len(stamps) and stamps[at] == stamp_ns:
            self.counts["tf_repeated"] += 1
            transforms[at], stddevs[at] = T, stddev
            return
        stamps.insert(at, stamp_ns)
        transforms.insert(at, T)
        stddevs.insert(at, stddev)
        drop = max(bisect_left(stamps, stamps[-1] - self._history_ns), len(stamps) - self._history_count)
        if drop > 0:
            del stamps[:drop], transforms[:drop], stddevs[:drop]

    def _reshaped(self) -> None:
        self.shape += 1
        self._above.clear()

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """T_target_source at ``stamp_ns``: 4x4, maps points of source to points of target, metres.

        Linear in position and slerp in rotation between the two nearest transforms of every edge, as tf2 does; never
        beyond the first or last. Raises UnknownFrame, NotConnected, ExtrapolationIntoPast, ExtrapolationIntoFuture or
        TransformGap, all of them LookupErrors.
        """
        below_target, below_source = self._paths(target, source)
        T = self._chain(below_source, stamp_ns)
        return matrix(compose(inverse(self._chain(below_target, stamp_ns)), T) if below_target else T)

    def stddev(self, target: str, source: str, stamp_ns: int) -> Stddev:
        """Standard deviation of what ``lookup`` gives for the same arguments: origin of source in target (m, per axis),
        and rotation (rad, per axis).

        It is what the publishers tell of their transforms, and what interpolation adds: between two transforms it grows
        with how unevenly the frame moves at that pace, see ``_gap_stddev``. The errors of rotations act over the
        distance to the source's origin. Raises as ``lookup``.
        """
        below_target, below_source = self._paths(target, source)
        origin = self._chain(below_source, stamp_ns)
        position = rotation = 0.0
        for path in (below_target, below_source):
            for i, frame in enumerate(path):
                moved, turned = _edge_stddev(self._edges[frame], stamp_ns)
                if moved or turned:
                    arm = distance(origin, self._chain(path[i:], stamp_ns))
                    position += moved**2 + (turned * arm) ** 2
                    rotation += turned**2
        return sqrt(position), sqrt(rotation)

    def _paths(self, target: str, source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The frames from each up to below the first that both hang below. Raises UnknownFrame, NotConnected."""
        target, source = frame_name(target), frame_name(source)
        for name in (target, source):
            if not name:
                raise NoFrame("its header.frame_id is empty")
            if name not in self._frames:
                known = ", ".join(list(self._frames)[:20]) or "none"
                raise UnknownFrame(f"frame {name!r} is in no transform received so far; known frames: {known}")
        up_target, up_source = self.ancestors(target), self.ancestors(source)
        for i, name in enumerate(up_source):
            if name in up_target:
                return up_target[: up_target.index(name)], up_source[:i]
        raise NotConnected(
            f"{target} and {source} are not connected: the first hangs below {up_target[-1]}, the second "
            f"below {up_source[-1]}"
        )

    def root_of(self, frame: str) -> str | None:
        """The fixed frame to place ``frame`` in, None when there is none.

        map, odom or world (in a namespace or not) if it hangs below one; else the top of its tree, provided that it
        moves in that and the top is not named like a part of a robot: poses relative to base_link say nothing about
        where the camera was.
        """
        name = frame_name(frame)
        if name not in self._frames:
            return None
        ancestors = self.ancestors(name)
        for root in PREFERRED_ROOTS:
            for ancestor in ancestors:
                if ancestor.rsplit("/", maxsplit=1)[-1] == root:
                    return ancestor
        moves = any(not self._edges[ancestor].static for ancestor in ancestors[:-1])
        return ancestors[-1] if moves and not PART_OF_A_ROBOT.search(ancestors[-1]) else None

    def ancestors(self, frame: str) -> tuple[str, ...]:
        """The frame itself and those that it hangs below, nearest first."""
        above = self._above.get(frame)
        if above is None:
            name = frame_name(frame)
            found = [name]
            while (edge := self._edges.get(name)) is not None:
                name = edge.parent
                found.append(name)
            above = self._above[frame] = tuple(found)
        return above

    def frames(self) -> tuple[str, ...]:
        """Names of all frames, in the order in which they were first heard of."""
        return tuple(self._frames)

    def forget_after(self, stamp_ns: int) -> None:
        """Drop moving transforms newer than ``stamp_ns``: after a clock was set back, they are of another time."""
        for child, edge in list(self._edges.items()):
            if not edge.static:
                keep = bisect_right(edge.stamps, stamp_ns)
                del edge.stamps[keep:], edge.transforms[keep:], edge.stddevs[keep:]
                if not edge.stamps:
                    del self._edges[child]
        known = {name for child, edge in self._edges.items() for name in (child, edge.parent)}
        self._frames = {name: None for name in self._frames if name in known}
        self._reshaped()

    def _chain(self, path: tuple[str, ...], stamp_ns: int) -> Rigid:
        """Of the first frame of a path in the parent of the last."""
        T = IDENTITY
        for frame in path:
            T = compose(self._at(self._edges[frame], frame, stamp_ns), T)
        return T

    def _at(self, edge: _Edge, child: str, stamp_ns: int) -> Rigid:
        stamps = edge.stamps
        if edge.static:
            return edge.transforms[0]
        after = bisect_left(stamps, stamp_ns)
        by = abs(stamp_ns - stamps[0])
        if len(stamps) == 1 and by > ONCE_NS and (by < OTHER_CLOCK_NS or not stamps[0]):
            raise SentOnce(
                f"{edge.parent} -> {child} was told once, {apart_words(stamp_ns, stamps[0])} than the time asked, and not as "
                "static"
            )
        if after == len(stamps):
            raise ExtrapolationIntoFuture(
                f"{edge.parent} -> {child}: the latest transform is {apart_words(stamp_ns, stamps[-1])} than the time asked",
                stamp_ns - stamps[-1],
                child,
                stamp_ns,
            )
        if stamps[after] == stamp_ns:
            return edge.transforms[after]
        if after == 0:
            by = stamps[0] - stamp_ns
            raise ExtrapolationIntoPast(
                f"{edge.parent} -> {child}: the first transform is {apart_words(stamp_ns, stamps[0])} than the time asked", by
            )
        t0, t1 = stamps[after - 1], stamps[after]
        if self._max_gap_ns is not None and t1 - t0 > self._max_gap_ns:
            raise TransformGap(
                f"{edge.parent} -> {child}: silent for {_seconds(t1 - t0)} around the time asked, more than "
                f"{_seconds(self._max_gap_ns)}",
                t1 - t0,
            )
        return between(edge.transforms[after - 1], edge.transforms[after], (stamp_ns - t0) / (t1 - t0))


def _edge_stddev(edge: _Edge, stamp_ns: int) -> Stddev:
    """Of an edge at a time that it holds: what is told of the transforms around it, and what interpolation adds."""
    if edge.static:
        return edge.stddevs[0]
    after = bisect_left(edge.stamps, stamp_ns)
    if edge.stamps[after] == stamp_ns:
        return edge.stddevs[after]
    before, behind = edge.stddevs[after - 1], edge.stddevs[after]
    moved, turned = _gap_stddev(edge, after, stamp_ns)
    return hypot(max(before[0], behind[0]), moved), hypot(max(before[1], behind[1]), turned)


def _gap_stddev(edge: _Edge, after: int, stamp_ns: int) -> Stddev:
    """What interpolating between the transforms ``after - 1`` and ``after`` may be off by, judged by the edge itself.

    With the gap's length T, the transform T before the gap, at its ends and T after it should lie on a line, too; how
    far those at the ends are off it (d, rms) tells how unevenly the frame moves at that pace. A frame under constant
    acceleration is d/4 off in the middle of the gap, one that starts or stops in the gap up to d; taken is d/2 in the
    middle, and less towards the ends, as s (1 - s). Where there are transforms within T, what a chord across them is off
    in its middle counts as well. Without any neighbour d is half the way between the ends.
    """
    begin, end = edge.stamps[after - 1], edge.stamps[after]
    span = end - begin
    T0, T1 = edge.transforms[after - 1], edge.transforms[after]
    share = (stamp_ns - begin) / span
    off: list[Stddev] = []
    for time, outer, inner in ((begin - span, T1, T0), (end + span, T0, T1)):
        nearest = min(max(time, edge.stamps[0]), edge.stamps[-1])
        reach = (begin - nearest if time < begin else nearest - end) / span
        if reach <= 0:
            continue
        scale = 1 / reach if reach < 1 else 1.0  # closer by, less of a bend is seen
        end_of_it = _within(edge, nearest)
        bend = _difference(between(end_of_it, outer, reach / (1 + reach)), inner, scale)
        if abs(bisect_left(edge.stamps, nearest) - bisect_left(edge.stamps, begin if time < begin else end)) > 1:
            middle = _within(edge, (nearest + (begin if time < begin else end)) // 2)
            chord = _difference(between(end_of_it, inner, 0.5), middle, 2 * scale)
            bend = max(bend[0], chord[0]), max(bend[1], chord[1])
        off.append(bend)
    if not off:
        off.append(_difference(T0, T1, 0.5))
    weight = 2 * share * (1 - share) / sqrt(len(off))
    return weight * hypot(*(bend[0] for bend in off)), weight * hypot(*(bend[1] for bend in off))


def _within(edge: _Edge, stamp_ns: int) -> Rigid:
    """The edge at a time between its first and its last transform, across whatever gap."""
    after = bisect_left(edge.stamps, stamp_ns)
    if edge.stamps[after] == stamp_ns:
        return edge.transforms[after]
    t0, t1 = edge.stamps[after - 1], edge.stamps[after]
    return between(edge.transforms[after - 1], edge.transforms[after], (stamp_ns - t0) / (t1 - t0))


def _difference(a: Rigid, b: Rigid, times: float) -> Stddev:
    """Distance (m) and angle (rad) between two transforms, multiplied."""
    return times * distance(a, b), times * angle(a, b)


def whose_pose(tree: TransformTree, camera_frame: str, child: str, asked: str = "") -> tuple[str, str]:
    """The frame whose pose a message tells that names ``child`` or, as '', none; and how that was found, in words."""
    if asked:
        return frame_name(asked), "as set"
    if child:
        return frame_name(child), "its child_frame_id"
    above = [frame for frame in tree.ancestors(camera_frame) if frame.rpartition("/")[2] not in PREFERRED_ROOTS]
    for base in ("base_link", "base_footprint"):
        for frame in above:
            if frame.rpartition("/")[2] == base:
                return frame, "assumed, it names none: set pose_frame otherwise"
    if above[-1] == frame_name(camera_frame):
        return above[-1], "assumed, nothing tells of another one: set pose_frame otherwise"
    return above[-1], "assumed, what the camera hangs below: set pose_frame otherwise"


def frame_name(name: str) -> str:
    """A frame's name without the leading slash that ROS 1 allowed."""
    return name.lstrip("/")


def _seconds(ns: int) -> str:
    return f"{ns / SECOND:.3f} s"
