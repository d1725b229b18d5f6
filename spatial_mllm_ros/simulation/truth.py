"""Questions about a rendered recording with their exact truth, in the format of questions.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.simulation.ground_truth import Box, GroundTruth, Point
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.simulation.typed import TYPED
from spatial_mllm_ros.sources.source import SourceError

Question = dict[str, Any]  # one entry of questions.json

NOTE = (
    "frame names the image a point, box or time belongs to; pixels are (u, v); accept is an interval in the unit "
    "given; the truth is exact: rays and true poses, never what the sensor measured"
)
DEMO = ("range", "distance", "height", "size", "compare", "where", "where_not", "quadrant", "path", "first_seen")
DEMO_SPARE = ("visible", "turned", "depth", "ceiling", "moved", "last_seen")

WORDINGS: dict[str, tuple[str, ...]] = {
    "depth": (
        "What is the depth of <p0>?",
        "How deep is <p0> along the optical axis?",
        "What depth does <p0> have?",
    ),
    "range": (
        "How far is <p0> from the camera that saw it?",
        "What is the distance from the camera to <p0>?",
        "How far away from the camera is <p0>?",
    ),
    "nearer": (
        "Which point is nearer to the camera, <p0> or <p1>?",
        "Which is closer to the camera: <p0> or <p1>?",
        "Is <p0> or <p1> closer to the camera?",
    ),
    "farther": (
        "Which point is farther from the camera, <p0> or <p1>?",
        "Which of <p0> and <p1> is farther away from the camera?",
        "Which is further away from the camera: <p0> or <p1>?",
    ),
    "distance": (
        "How far apart are <p0> and <p1>?",
        "What is the distance between <p0> and <p1>?",
        "How far is <p0> from <p1>?",
        "How many metres are there between <p0> and <p1>?",
    ),
    "height": (
        "How high is <p0> above the floor?",
        "What is the height of <p0> above the floor?",
        "How far above the floor is <p0>?",
    ),
    "where": (
        "Where is <p0> in the image at <t0>?",
        "At which pixel is <p0> in the image at <t0>?",
        "Where in the image taken at <t0> does <p0> appear?",
    ),
    "visible": (
        "Is <p0> visible at <t0>?",
        "Can <p0> be seen at <t0>?",
        "Does the camera see <p0> at <t0>?",
    ),
    "moved": (
        "How far did the camera move between <t0> and <t1>?",
        "How far is the camera at <t1> from where it was at <t0>?",
        "What is the camera's displacement between <t0> and <t1>?",
    ),
    "path": (
        "How long is the path that the camera travelled between <t0> and <t1>?",
        "What is the length of the camera's path from <t0> to <t1>?",
        "How long is the path of the camera between <t0> and <t1>?",
    ),
    "whole_path": (
        "How long is the path that the camera travelled?",
        "What is the length of the camera's path?",
        "How long is the whole path of the camera?",
    ),
    "turned": (
        "By how many degrees did the camera turn between <t0> and <t1>?",
        "How far did the camera turn from <t0> to <t1>?",
        "By what angle did the camera rotate between <t0> and <t1>?",
    ),
    "moved_dir": (
        "In which direction did the camera mainly move between <t0> and <t1>?",
        "Which way did the camera mainly move from <t0> to <t1>?",
        "In what direction did the camera mostly move between <t0> and <t1>?",
    ),
    "direction": (
        "In which direction is <p0> from the camera at <t0>?",
        "Seen from the camera at <t0>, in which direction is <p0>?",
        "In what direction is <p0> relative to the camera at <t0>?",
    ),
    "tall": (
        "How tall is what <box0> encloses?",
        "How tall is the object in <box0>?",
        "What is the height of the object in <box0>?",
    ),
    "wide": (
        "How wide is what <box0> encloses?",
        "How wide is the object in <box0>?",
        "What is the width of the object in <box0>?",
    ),
    "ceiling": (
        "How high is the ceiling?",
        "How high is the ceiling above the floor?",
        "What is the height of the ceiling?",
    ),
    "first_seen": (
        "When was <p0> first seen?",
        "After how many seconds was <p0> seen for the first time?",
        "How many seconds after the start was <p0> first seen?",
    ),
    "last_seen": (
        "When was <p0> last seen?",
        "After how many seconds was <p0> seen for the last time?",
        "How many seconds after the start was <p0> last seen?",
    ),
}
DIRECTIONS = ["left", "right", "up", "down", "forward", "backward"]
QUADRANTS = ["front-left", "front-right", "back-left", "back-right"]


def make_questions(source: RenderedSource, count: int, seed: int = 0, kinds: tuple[str, ...] = ()) -> dict[str, Any]:
    """``count`` questions, evenly over the kinds (all of them by default) as far as the recording allows.

    The same for the same recording and seed. Fewer than ``count`` come only when no kind has any more to ask.

    Sizes: "tall" is the vertical extent, "wide" the longer horizontal side of the box-shaped thing; they are asked only
    where the visible surface spans both. "wide" is never the depth of a thing seen from its narrow side.
    "first_seen" and "last_seen" are seconds since the recording's first frame. Raises SourceError for an unknown kind.
    """
    return Asker(source, seed).ask(count, kinds or tuple(_MAKERS))


def demo_questions(source: RenderedSource, seed: int = 0) -> dict[str, Any]:
    """Ten different questions, one of each main kind, as far as the recording allows; the format of make_questions."""
    asker = Asker(source, seed, pool=90)  # ten questions need no more, and are there sooner
    out: list[Question] = []
    for kind in (*DEMO, *DEMO_SPARE):
        if len(out) == len(DEMO):
            break
        question = asker.one(kind)
        if question is not None:
            out.append({"id": f"R{len(out) + 1:04d}-{kind}", **question})
    return {"recording": source.info.name, "note": NOTE, "questions": out}


class Asker:
    """Asks about one recording, never the same twice."""

    def __init__(self, source: RenderedSource, seed: int, pool: int = 240) -> None:
        if source.movers:
            raise SourceError(f"{source.info.name}: truth is known of a house at rest alone, leave out moving=")
        self.source = source
        self.rng = np.random.default_rng([source.seed, seed, 21])
        self.ground_truth = GroundTruth(source, self.rng, pool)
        self.asked: set[str] = set()
        self.times = (source.stamps - source.stamps[0]) * 1e-9
        self.positions: NDArray[np.float64] = source.tour.poses[:, :3, 3]
        self.rotations = Rotation.from_matrix(source.tour.poses[:, :3, :3])

    def ask(self, count: int, kinds: tuple[str, ...]) -> dict[str, Any]:
        unknown = [kind for kind in kinds if kind not in _MAKERS]
        if unknown:
            raise SourceError(f"no questions of kind {', '.join(unknown)}, only {', '.join(_MAKERS)}")
        questions: list[Question] = []
        open_kinds = list(kinds)
        while len(questions) < count and open_kinds:
            for kind in list(open_kinds):
                if len(questions) == count:
                    break
                question = self.one(kind)
                if question is None:
                    open_kinds.remove(kind)
                else:
                    questions.append({"id": f"R{len(questions) + 1:04d}-{kind}", **question})
        return {"recording": self.source.info.name, "note": NOTE, "questions": questions}

    def one(self, kind: str, tries: int = 60) -> Question | None:
        """A new question of that kind; None when none is found."""
        for _ in range(tries):
            question = _MAKERS[kind](self)
            if question is None:
                continue
            key = repr([question[k] for k in ("question", "points", "times", "boxes")])
            if key not in self.asked:
                self.asked.add(key)
                return question
        return None

    # what questions are made of

    def word(self, key: str) -> str:
        return WORDINGS[key][int(self.rng.integers(len(WORDINGS[key])))]

    def name(self, frame: int) -> str:
        name = self.source.name_of(int(self.source.stamps[frame]))
        assert name is not None
        return name

    def question(
        self,
        text: str,
        expect: dict[str, Any],
        *,
        points: tuple[Point, ...] = (),
        times: tuple[int, ...] = (),
        boxes: tuple[Box, ...] = (),
        choices: list[str] | None = None,
        truth: str = "",
    ) -> Question:
        shown = [f"p{k}: {p.thing.color} {p.thing.name}" for k, p in enumerate(points)]
        shown += [f"box{k}: {b.name}" for k, b in enumerate(boxes)]
        return {
            "question": text,
            "points": [
                {"name": f"p{k}", "frame": self.name(p.frame), "u": p.u, "v": p.v} for k, p in enumerate(points)
            ],
            "times": [{"name": f"t{k}", "frame": self.name(t)} for k, t in enumerate(times)],
            "boxes": [
                {"name": f"box{k}", "frame": self.name(b.frame)}
                | {"u_min": b.u_min, "v_min": b.v_min, "u_max": b.u_max, "v_max": b.v_max}
                for k, b in enumerate(boxes)
            ],
            "choices": choices or [],
            "expect": expect,
            "truth": "; ".join([*shown, truth] if truth else shown),
        }

    def two_times(self, least: int = 2) -> tuple[int, int] | None:
        n = len(self.times)
        if n < least + 1:
            return None
        a = int(self.rng.integers(0, n - least))
        return a, int(self.rng.integers(a + least, n))

    # the kinds

    def depth(self) -> Question | None:
        p = self.ground_truth.point()
        if p is None:
            return None
        return self.question(self.word("depth"), _number(p.depth, "m", 0.02, 0.02), points=(p,))

    def range(self) -> Question | None:
        p = self.ground_truth.point()
        if p is None:
            return None
        return self.question(self.word("range"), _number(p.range_m, "m", 0.02, 0.02), points=(p,))

    def compare(self) -> Question | None:
        p = self.ground_truth.point()
        q = p and self.ground_truth.point(p.frame)
        if not p or not q:
            return None
        for a, b in ((p.depth, q.depth), (p.range_m, q.range_m)):
            if not (a > 1.12 * b if p.depth > q.depth else b > 1.12 * a):
                return None
        nearer = bool(self.rng.random() < 0.5)
        index = int((p.depth < q.depth) != nearer)
        text = self.word("nearer" if nearer else "farther")
        return self.question(text, _choice(index), points=(p, q), choices=["<p0>", "<p1>"])

    def distance(self) -> Question | None:
        p = self.ground_truth.point()
        q = self.ground_truth.point(p.frame if p and self.rng.random() < 0.5 else None)
        if not p or not q:
            return None
        value = float(np.linalg.norm(p.xyz - q.xyz))
        if value < 0.15:
            return None
        return self.question(self.word("distance"), _number(value, "m", 0.05, 0.04), points=(p, q))

    def height(self) -> Question | None:
        p = self.ground_truth.point()
        if p is None:
            return None
        return self.question(self.word("height"), _number(float(p.xyz[2]), "m", 0.05, 0.03), points=(p,))

    def _seen(self, wanted: int) -> tuple[Point, int, NDArray[np.float64]] | None:
        """A point, another frame in which it is clearly visible (1) or clearly not (-1), and its pixel there."""
        p = self.ground_truth.point()
        if p is None:
            return None
        seen, uv = self.ground_truth.seen(p.xyz)
        if seen[p.frame] != 1:
            return None
        frames = np.flatnonzero(seen == wanted)
        frames = frames[np.abs(frames - p.frame) > 1]
        if wanted == -1 and self.rng.random() < 0.5:  # prefer hidden to out of view, which is more frequent
            hidden = frames[self.source.camera.contains(uv[frames])]
            frames = hidden if len(hidden) else frames
        if len(frames) == 0:
            return None
        t = int(self.rng.choice(frames))
        return p, t, uv[t]

    def where(self) -> Question | None:
        found = self._seen(1)
        if found is None:
            return None
        p, t, uv = found
        accept_px = round(max(4.0, 12 * self.source.camera.width / 640), 1)
        expect = _expect("PIXEL", pixel=[round(float(uv[0]), 2), round(float(uv[1]), 2)], accept_px=accept_px)
        return self.question(self.word("where"), expect, points=(p,), times=(t,))

    def where_not(self) -> Question | None:
        found = self._seen(-1)
        if found is None:
            return None
        p, t, uv = found
        why = "hidden" if self.source.camera.contains(uv) else "out of view"
        return self.question(self.word("where"), {"error_code": "NOT_SEEN"}, points=(p,), times=(t,), truth=why)

    def visible(self) -> Question | None:
        wanted = 1 if self.rng.random() < 0.5 else -1
        found = self._seen(wanted)
        if found is None:
            return None
        p, t, _ = found
        return self.question(self.word("visible"), _expect("BOOLEAN", value=float(wanted > 0)), points=(p,), times=(t,))

    def moved(self) -> Question | None:
        times = self.two_times()
        if times is None:
            return None
        value = float(np.linalg.norm(self.positions[times[1]] - self.positions[times[0]]))
        return self.question(self.word("moved"), _number(value, "m", 0.02, 0.03), times=times) if value > 0.3 else None

    def path(self) -> Question | None:
        whole = bool(self.rng.random() < 0.1)
        times = (0, len(self.times) - 1) if whole else self.two_times(5)
        if times is None:
            return None
        steps = np.linalg.norm(np.diff(self.positions[times[0] : times[1] + 1], axis=0), axis=1)
        value = float(steps.sum())
        # Pose noise lengthens every step d by about 2 sigma^2 / d: ask only where that stays small.
        longer = float((2 * self.source.info.sensor.pose_position_m**2 / np.maximum(steps, 1e-4)).sum())
        if value < 0.5 or longer > 0.05 * value:
            return None
        expect = _number(value, "m", 0.05, 0.1)
        if whole:
            return self.question(self.word("whole_path"), expect)
        return self.question(self.word("path"), expect, times=times)

    def turned(self) -> Question | None:
        times = self.two_times()
        if times is None:
            return None
        value = float(np.degrees((self.rotations[times[0]].inv() * self.rotations[times[1]]).magnitude()))
        if not 5 < value < 172:
            return None
        return self.question(self.word("turned"), _number(value, "deg", 1.5, 0.02), times=times)

    def moved_dir(self) -> Question | None:
        times = self.two_times()
        if times is None:
            return None
        step = self.rotations[times[0]].inv().apply(self.positions[times[1]] - self.positions[times[0]])
        share = np.sort(np.abs(step))
        if share[2] < 0.2 or share[2] < 1.7 * share[1]:
            return None
        axis = int(np.abs(step).argmax())
        index = ((0, 1), (2, 3), (5, 4))[axis][int(step[axis] > 0)]
        return self.question(self.word("moved_dir"), _choice(index), times=times, choices=DIRECTIONS)

    def _from_camera(self) -> tuple[Point, int, NDArray[np.float64]] | None:
        p = self.ground_truth.point()
        if p is None:
            return None
        t = int(self.rng.integers(len(self.times)))
        return p, t, p.xyz - self.positions[t]

    def quadrant(self) -> Question | None:
        found = self._from_camera()
        if found is None:
            return None
        p, t, step = found
        forward = self.source.tour.poses[t, :2, 2]
        forward = forward / np.linalg.norm(forward)
        front = float(step[:2] @ forward)
        left = float(step[:2] @ np.array([-forward[1], forward[0]]))
        if np.hypot(front, left) < 0.5 or min(abs(front), abs(left)) < 0.3 * np.hypot(front, left):
            return None
        index = (0 if left > 0 else 1) + (0 if front > 0 else 2)
        return self.question(self.word("direction"), _choice(index), points=(p,), times=(t,), choices=QUADRANTS)

    def direction(self) -> Question | None:
        found = self._from_camera()
        if found is None:
            return None
        p, t, step = found
        value = float(np.linalg.norm(step))
        if value < 0.3:
            return None
        expect = _number(value, "m", 0.05, 0.04) | {"answer_type": "VECTOR"}
        return self.question(self.word("direction"), expect, points=(p,), times=(t,))

    def size(self) -> Question | None:
        boxes = self.ground_truth.boxes()
        if not boxes:
            return None
        b = boxes[int(self.rng.integers(len(boxes)))]
        kind = "wide" if b.wide is not None and self.rng.random() < 0.5 else "tall"
        value = b.wide if b.wide is not None and kind == "wide" else b.tall
        return self.question(self.word(kind), _number(value, "m", 0.05, 0.05), boxes=(b,))

    def ceiling(self) -> Question | None:
        if not self.ground_truth.ceiling_seen():
            return None
        return self.question(self.word("ceiling"), _number(self.source.house.ceiling, "m", 0.05, 0.02))

    def first_seen(self) -> Question | None:
        return self._end_of_sight("first_seen")

    def last_seen(self) -> Question | None:
        return self._end_of_sight("last_seen")

    def _end_of_sight(self, kind: str) -> Question | None:
        """Asked where a point comes into sight, or leaves it, clearly: within three frames."""
        p = self.ground_truth.point()
        if p is None:
            return None
        seen, _ = self.ground_truth.seen(p.xyz)
        if kind == "last_seen":
            seen = seen[::-1]
        clear = np.flatnonzero(seen == 1)
        maybe = np.flatnonzero(seen >= 0)
        if len(clear) == 0 or clear[0] - maybe[0] > 3:
            return None
        if clear[0] < min(10, len(seen) // 4):  # what is seen from the start on says little
            return None
        slack = max(3 / self.source.rate_hz, 0.3)
        at = [len(seen) - 1 - i if kind == "last_seen" else i for i in (int(maybe[0]), int(clear[0]))]
        t = sorted(float(self.times[i]) for i in at)
        low, high = max(0.0, t[0] - slack), t[1] + slack
        expect = _expect("NUMBER", value=round((t[0] + t[1]) / 2, 4), unit="s", accept=[round(low, 4), round(high, 4)])
        return self.question(self.word(kind), expect, points=(p,))

    def no_depth(self) -> Question | None:
        if not self.source.noise:
            return None
        frame = int(self.rng.choice(self.ground_truth.frames))
        blind = self.ground_truth.blind(frame)
        if len(blind) == 0:
            return None
        pixel, width = int(self.rng.choice(blind)), self.source.camera.width
        p = self.ground_truth.point_at(frame, pixel % width, pixel // width)
        expect = {"error_code": "NOT_SEEN", "or_answer_with_stddev_at_least": 0.02}
        return self.question(self.word("depth"), expect, points=(p,))


def _expect(answer_type: str, **rest: Any) -> dict[str, Any]:
    return {"error_code": "NONE", "answer_type": answer_type, **rest}


def _number(value: float, unit: str, absolute: float, relative: float) -> dict[str, Any]:
    """A number, accepted within ``absolute`` (in its unit) or ``relative`` of it, whichever is more."""
    slack = max(absolute, relative * abs(value))
    return _expect(
        "NUMBER", value=round(value, 7), unit=unit, accept=[round(value - slack, 4), round(value + slack, 4)]
    )


def _choice(index: int) -> dict[str, Any]:
    return _expect("CHOICE", choice_index=index)


_MAKERS: dict[str, Callable[[Asker], Question | None]] = {
    "depth": Asker.depth,
    "range": Asker.range,
    "compare": Asker.compare,
    "distance": Asker.distance,
    "height": Asker.height,
    "where": Asker.where,
    "where_not": Asker.where_not,
    "visible": Asker.visible,
    "moved": Asker.moved,
    "path": Asker.path,
    "turned": Asker.turned,
    "moved_dir": Asker.moved_dir,
    "quadrant": Asker.quadrant,
    "direction": Asker.direction,
    "size": Asker.size,
    "ceiling": Asker.ceiling,
    "first_seen": Asker.first_seen,
    "last_seen": Asker.last_seen,
    "no_depth": Asker.no_depth,
    **TYPED,
}
