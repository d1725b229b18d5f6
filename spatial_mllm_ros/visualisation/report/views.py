"""What a question and its answer mean in an image: crosses, boxes, close-ups and a compass."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from spatial_mllm_ros.answering.geometry.places import upright_axes
from spatial_mllm_ros.queries.answer import Evidence
from spatial_mllm_ros.queries.codes import AnswerType, EvidenceKind
from spatial_mllm_ros.session.questions import Asked
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.visualisation.report.pictures import Picture, Pictures

COLORS = ("#ff8c1a", "#22c3ee", "#ff5fb0", "#c2e812", "#b48cff")
"""Of <p0>, <p1> ...; boxes take the same."""
ANSWER, TRUTH, PLAIN = "#3ddc68", "#ffffff", "#ffd84d"
CORNERS = ((0, 0), (1, 0), (1, 1), (0, 1))


@dataclass
class Cross:
    """A marked pixel, in SVG units (pixel centres at half units). inset: the corner of its close-up, if it has one."""

    x: float
    y: float
    label: str
    color: str
    answer: bool = False
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"
    inset: tuple[float, float] | None = None


@dataclass
class Box:
    """A marked box, in SVG units."""

    x: float
    y: float
    width: float
    height: float
    label: str
    color: str


@dataclass
class Ring:
    """Where the truth accepts a pixel, in SVG units."""

    x: float
    y: float
    radius: float


@dataclass
class Compass:
    """A direction seen from above: ``angle`` in degrees, clockwise from straight ahead; ``half_view``: of the image."""

    angle: float
    half_view: float
    label: str


@dataclass
class View:
    """An image with what is marked in it. unit: what a hundredth of its width is, for sizes of marks."""

    caption: str
    when: str
    picture: Picture | None
    missing: str = ""
    width: float = 640.0
    height: float = 480.0
    crosses: list[Cross] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    rings: list[Ring] = field(default_factory=list)
    compass: Compass | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def unit(self) -> float:
        return self.width / 100

    @property
    def inset_side(self) -> float:
        """Side of a close-up."""
        return 0.40 * self.height

    @property
    def zoomed(self) -> float:
        """Side of what a close-up shows."""
        return 0.10 * self.height


def frames_meant(session: Session, asked: Asked) -> list[int]:
    """Ids of the frames that a question names or its answer rests on, each once."""
    memory = session.memory
    ids: list[int] = []
    if asked.request is not None:
        stamps = [p.stamp_ns for p in asked.request.points] + [b.stamp_ns for b in asked.request.boxes]
        for stamp, tolerance in [(s, 1000) for s in stamps] + [(s, 100_000_000) for s in asked.request.times]:
            stored = memory.nearest(stamp, tolerance_ns=tolerance)
            if stored is not None:
                ids.append(stored.frame_id)
    ids += [e.keyframe_id for e in asked.answer.evidence]
    return list(dict.fromkeys(ids))


def views_of(session: Session, asked: Asked, pictures: Pictures) -> list[View]:
    """The images that a question names or its answer rests on, with all that is meant in them."""
    views = {frame_id: _view(session, frame_id, pictures) for frame_id in frames_meant(session, asked)}
    _mark_request(session, asked, views)
    _mark_answer(session, asked, views)
    for view in views.values():
        _place(view)
    return list(views.values())


def _view(session: Session, frame_id: int, pictures: Pictures) -> View:
    stored, picture = session.stored(frame_id), pictures.get(frame_id)
    if stored is None:
        return View(f"frame {frame_id}", "", None, pictures.missing.get(frame_id, "the image is no longer in memory"))
    stamp = stored.frame.stamp_ns
    view = View(
        session.name_of(stamp), f"{session.since_start_s(stamp):.2f} s", picture, pictures.missing.get(frame_id, "")
    )
    camera = stored.frame.camera
    if picture is not None:
        view.width, view.height = picture.width, picture.height
    elif camera is not None:
        view.width, view.height = camera.width, camera.height
    return view


def _mark_request(session: Session, asked: Asked, views: dict[int, View]) -> None:
    request = asked.request
    if request is None:
        return
    for i, p in enumerate(request.points):
        stored = session.memory.nearest(p.stamp_ns, tolerance_ns=1000)
        if stored is not None and stored.frame_id in views:
            views[stored.frame_id].crosses.append(Cross(p.u + 0.5, p.v + 0.5, f"p{i}", COLORS[i % len(COLORS)]))
    for i, b in enumerate(request.boxes):
        stored = session.memory.nearest(b.stamp_ns, tolerance_ns=1000)
        if stored is not None and stored.frame_id in views:
            box = Box(
                b.u_min, b.v_min, b.u_max - b.u_min + 1, b.v_max - b.v_min + 1, f"box{i}", COLORS[i % len(COLORS)]
            )
            views[stored.frame_id].boxes.append(box)
    for i, stamp in enumerate(request.times):
        stored = session.memory.nearest(stamp, tolerance_ns=100_000_000)
        if stored is not None and stored.frame_id in views:
            views[stored.frame_id].notes.append(f"t{i}")


def _mark_answer(session: Session, asked: Asked, views: dict[int, View]) -> None:
    answer = asked.answer
    for e in answer.evidence:
        view = views[e.keyframe_id]
        label = e.label.strip("<>")
        if e.kind == EvidenceKind.PIXEL and not _has_cross(view, e.u + 0.5, e.v + 0.5, label):
            meant = answer.answer_type in (AnswerType.PIXEL, AnswerType.BOOLEAN)
            text = f"here at {label}" if label.startswith("t") and meant else label
            view.crosses.append(Cross(e.u + 0.5, e.v + 0.5, "answer" if meant else text, ANSWER, answer=True))
        elif e.kind == EvidenceKind.FRAME and label and label not in view.notes:
            view.notes.append(label)
    if answer.answer_type in (AnswerType.VECTOR, AnswerType.CHOICE) and answer.evidence:
        e = answer.evidence[-1] if asked.question.points else answer.evidence[0]
        views[e.keyframe_id].compass = _compass(session, asked, e)
    expect = asked.question.expect or {}
    if expect.get("answer_type") == "PIXEL" and asked.request is not None and asked.request.times:
        stored = session.memory.nearest(asked.request.times[0], tolerance_ns=100_000_000)
        if stored is not None and stored.frame_id in views:
            u, v = expect["pixel"]
            views[stored.frame_id].rings.append(Ring(u + 0.5, v + 0.5, max(float(expect["accept_px"]), 2.0)))


def _has_cross(view: View, x: float, y: float, label: str) -> bool:
    return any(math.hypot(c.x - x, c.y - y) < 0.6 and c.label == label for c in view.crosses)


def _compass(session: Session, asked: Asked, evidence: Evidence) -> Compass | None:
    """Where the answer's vector points, seen from above by the camera of ``evidence``."""
    vector = np.array(asked.answer.pose.position)
    stored = session.memory.get(evidence.keyframe_id)
    if stored is None or stored.frame.T_world_camera is None or not np.isfinite(vector).all():
        return None
    if asked.answer.pose.frame_id != session.memory.world_frame:
        return None
    gravity = session.engine.gravity_cache.gravity(session.memory)
    right, down, forward = (upright_axes(gravity, stored.frame.T_world_camera) @ vector).tolist()
    if math.hypot(right, forward) < 0.4 * abs(down):  # up or down, which a view from above cannot show
        return None
    camera = stored.frame.camera
    half = math.degrees(math.atan2(camera.width / 2, camera.fx)) if camera is not None else 30.0
    choice = asked.answer.choice_index
    label = asked.question.choices[choice] if 0 <= choice < len(asked.question.choices) else ""
    return Compass(math.degrees(math.atan2(right, forward)), half, label)


def _place(view: View) -> None:
    """Labels and close-ups where they hide no mark."""
    u, w, h = view.unit, view.width, view.height
    for cross in view.crosses:
        cross.anchor = "start" if cross.x < 0.72 * w else "end"
        cross.label_x = cross.x + (4.2 * u if cross.anchor == "start" else -4.2 * u)
        cross.label_y = min(max(cross.y - 2.6 * u, 5.5 * u), h - 2 * u)
    for first, second in zip(view.crosses, view.crosses[1:], strict=False):
        if abs(first.label_y - second.label_y) < 5 * u and abs(first.label_x - second.label_x) < 14 * u:
            lower = second if second.y >= first.y else first
            lower.label_y = min(lower.y + 5.5 * u, h - 1.5 * u)
    side, pad = view.inset_side, 1.2 * u
    taken: list[tuple[float, float]] = []
    for cross in view.crosses[:2]:
        corners = [(pad + a * (w - side - 2 * pad), pad + b * (h - side - 2 * pad)) for a, b in CORNERS]
        if view.compass is not None:
            corners = [c for c in corners if c[1] < h / 2]
        free = [c for c in corners if c not in taken and _clear(view, c, side)]
        if free:
            cross.inset = max(free, key=lambda c: _distance(c, side, cross))
            taken.append(cross.inset)


def _clear(view: View, corner: tuple[float, float], side: float) -> bool:
    x, y = corner
    margin = 3 * view.unit
    marks = [(c.x, c.y) for c in view.crosses] + [(r.x, r.y) for r in view.rings]
    marks += [(c.label_x, c.label_y) for c in view.crosses]
    inside = any(x - margin < a < x + side + margin and y - margin < b < y + side + margin for a, b in marks)
    over = any(b.x < x + side and x < b.x + b.width and b.y < y + side and y < b.y + b.height for b in view.boxes)
    return not inside and not over


def _distance(corner: tuple[float, float], side: float, cross: Cross) -> float:
    return math.hypot(corner[0] + side / 2 - cross.x, corner[1] + side / 2 - cross.y)
