"""This package's own geometry as a contestant: MultiSPA's questions put to the engine as typed queries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.learning.evaluation.answerers import Progress, Refused
from spatial_mllm_ros.learning.evaluation.items import Item
from spatial_mllm_ros.learning.multispa.engine import SCENES
from spatial_mllm_ros.learning.multispa.subtasks import WORDS
from spatial_mllm_ros.queries import asks, measures
from spatial_mllm_ros.queries.answer import Answer, ImagePoint
from spatial_mllm_ros.queries.builders import Marks, Questions
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.queries.moments import Stamp
from spatial_mllm_ros.scene.pose import Transform, from_quaternion
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.sources.source import SourceError


class GeometryAnswerer:
    """Streams the recording of a question's scene into a memory, and asks its engine.

    It answers depth, correspondence and camera movement. It refuses sizes, as nothing marks the object, and movements of
    points, as its scenes are at rest. Only the scene asked about last is in memory.
    """

    name = "geometry"

    def __init__(self, folder: Path, progress: Progress = lambda what, done, total: None) -> None:
        path = folder / SCENES
        if not path.is_file():
            raise SourceError(
                f"{path} is missing: geometry needs the recordings, which only folders of 'spatial-mllm data multispa' name"
            )
        self._scenes = json.loads(path.read_text(encoding="utf-8"))
        self._progress = progress
        self._name = ""
        self._questions: Questions[Answer] | None = None
        self._session: Session | None = None
        self._stamps: dict[str, int] = {}

    def answer(self, item: Item) -> str:
        """Raises Refused, with the engine's words, where it has no answer."""
        kind = item.kind
        if kind.startswith("object_"):
            what = (
                "nothing marks the object"
                if not kind.startswith("object_movement")
                else "scenes are taken to be at rest"
            )
            raise Refused(what)
        ask = self._open(item.record["scene"])
        stamps = [self._stamps[frame] for frame in item.record["frames"]]
        points = [[ImagePoint(t, "", u, v) for u, v in uv] for t, uv in zip(stamps, item.record["points"])]  # noqa: B905
        if kind.startswith("depth_estimation"):
            return f"{1000 * _depth(ask, points[0][0]):.0f}"
        if kind.startswith("depth_comparison"):
            return _compared(ask, item, points[0])
        if kind.startswith("visual_correspondence"):
            return _matched(ask, item, points, stamps)
        return _moved(kind, *(self._pose(ask, stamp) for stamp in stamps))

    def _open(self, name: str) -> Questions[Answer]:
        if name != self._name or self._questions is None:
            source = open_source(self._scenes[name]["source"])
            session = Session(source, record_coverage=False)
            session.stream(
                on_frame=lambda frame, report: self._progress(f"streaming {name}", report.frames, source.info.frames)
            )
            self._name, self._session, self._questions = name, session, Questions(session.engine.answer)
            images = self._scenes[name]["images"].values()
            self._stamps = {image["frame"]: int(image["stamp_ns"]) for image in images}
        return self._questions

    def _pose(self, ask: Questions[Answer], stamp: int) -> Transform:
        """The camera's upright pose at a moment, optical axes."""
        pose = _checked(ask.camera_pose(Stamp(stamp_ns=stamp))).pose
        T = from_quaternion(pose.orientation, pose.position)
        session = self._session
        up = np.eye(4) if session is None else session.engine.gravity_cache.gravity(session.memory).T_zup_from_world
        return np.asarray(up @ T)


def _checked(answer: Answer) -> Answer:
    if answer.error_code is not ErrorCode.NONE:
        raise Refused(f"{answer.error_code.name}: {answer.error_msg}")
    return answer


def _depth(ask: Questions[Answer], point: ImagePoint) -> float:
    marks = Marks()
    return _checked(ask.ask(measures.Depth(of=marks.operand(point)), marks)).value


def _compared(ask: Questions[Answer], item: Item, points: list[ImagePoint]) -> str:
    z = [_depth(ask, point) for point in points]
    right = int(np.argmin(z) if item.record["is_closer_question"] else np.argmax(z))
    if item.kind.endswith("_dot"):
        return str(item.record["letters"][right])
    return _coordinate(item, points[right].u, points[right].v, 0)


def _matched(ask: Questions[Answer], item: Item, points: list[list[ImagePoint]], stamps: list[int]) -> str:
    marks = Marks()
    query = asks.Pixel(of=marks.operand(points[0][0]), at=Stamp(stamp_ns=stamps[1]))
    pixel = _checked(ask.ask(query, marks)).pixel
    if item.kind.endswith("multichoice"):
        away = [np.hypot(dot.u - pixel.u, dot.v - pixel.v) for dot in points[1]]
        return "ABCD"[int(np.argmin(away))]
    return _coordinate(item, pixel.u, pixel.v, 1)


def _coordinate(item: Item, u: float, v: float, image: int) -> str:
    width, height = item.record["width_list"][image], item.record["height_list"][image]
    return f"`[ {round(1000 * u / width)} , {round(1000 * v / height)} ]`"


def _moved(kind: str, first: Transform, second: Transform) -> str:
    """The camera's movement in MultiSPA's terms, from two upright poses; degrees are cut, as there."""
    move: NDArray[np.float64] = first[:3, :3].T @ (second[:3, 3] - first[:3, 3])
    if kind == "total_distance":
        return f"{1000 * np.linalg.norm(move):.0f}"
    if kind == "displacement_vector":
        return "`[ " + " , ".join(f"{1000 * x:.0f}" for x in move) + " ]`"
    if kind in ("x_movement", "y_movement", "z_movement"):
        return WORDS[kind][0 if move["xyz".index(kind[0])] > 0 else 1]
    looks = [T[:3, 2] for T in (first, second)]
    yaw = [np.degrees(np.arctan2(z[1], z[0])) for z in looks]
    pitch = [np.degrees(np.arcsin(np.clip(z[2], -1, 1))) for z in looks]
    turn = (yaw[1] - yaw[0] + 180) % 360 - 180 if kind.startswith("yaw") else pitch[1] - pitch[0]
    return f"{int(abs(turn))}" if kind.endswith("angle") else WORDS[kind][0 if turn > 0 else 1]
