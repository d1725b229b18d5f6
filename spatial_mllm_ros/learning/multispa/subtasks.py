"""The 26 subtasks of MultiSPA in its five tasks.

Counted as in the authors' data engine (github.com/facebookresearch/Multi-SpatialMLLM): four of depth, two of
correspondence, nine of camera movement, three of object size, and eight of object movement. The eight are distance or
vector, of a dot or a coordinate, each on two data sets, which differ in their camera: worn and moving (ADT), or fixed
(Panoptic Studio). Recordings of one's own are told apart the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What an answer is. Lengths are whole millimetres, coordinates 0 to 1000 of width and height."""

    LENGTH = "length"
    ANGLE = "angle"
    WORD = "word"
    LETTER = "letter"
    COORDINATE = "coordinate"
    VECTOR = "vector"


@dataclass(frozen=True, kw_only=True)
class Subtask:
    """name: of its files. task: the one of the five it belongs to. question_type: as published records call it.
    wording: its sentences in wordings.yaml."""

    name: str
    task: str
    question_type: str
    kind: Kind
    wording: str


def _depth(name: str, question_type: str, kind: Kind) -> Subtask:
    return Subtask(name=name, task="depth perception", question_type=question_type, kind=kind, wording=name)


def _camera(name: str, kind: Kind) -> Subtask:
    return Subtask(name=name, task="camera movement", question_type=name, kind=kind, wording=name)


def _movement(reference: str, asked: str, camera: str) -> Subtask:
    return Subtask(
        name=f"object_movement_{reference}_{asked}_{camera}_camera",
        task="object movement",
        question_type="tapvid3d_total_distance" if asked == "distance" else "tapvid3d_displacement_vector",
        kind=Kind.LENGTH if asked == "distance" else Kind.VECTOR,
        wording=f"object_movement_{reference}_{asked}",
    )


SUBTASKS: tuple[Subtask, ...] = (
    _depth("depth_estimation_dot", "depth_estimation_dot", Kind.LENGTH),
    _depth("depth_estimation_coor", "depth_estimation_coor", Kind.LENGTH),
    _depth("depth_comparison_dot", "depth_comparison_annotated", Kind.LETTER),
    _depth("depth_comparison_coor", "depth_comparison_coordinate", Kind.COORDINATE),
    Subtask(
        name="visual_correspondence_coor_2_coor",
        task="visual correspondence",
        question_type="visual_correspondence_coor_2_coor",
        kind=Kind.COORDINATE,
        wording="visual_correspondence_coor_2_coor",
    ),
    Subtask(
        name="visual_correspondence_dot_2_multichoice",
        task="visual correspondence",
        question_type="visual_correspondence_multiple_choice",
        kind=Kind.LETTER,
        wording="visual_correspondence_dot_2_multichoice",
    ),
    *(_camera(f"{name}_movement", Kind.WORD) for name in ("x", "y", "z", "yaw", "pitch")),
    *(_camera(f"{name}_angle", Kind.ANGLE) for name in ("yaw", "pitch")),
    _camera("total_distance", Kind.LENGTH),
    _camera("displacement_vector", Kind.VECTOR),
    *(
        Subtask(
            name=f"object_{dimension}",
            task="object size",
            question_type=f"object_perception_{dimension}_estimation",
            kind=Kind.LENGTH,
            wording="object_size",
        )
        for dimension in ("height", "length", "width")
    ),
    *(
        _movement(reference, asked, camera)
        for camera in ("moving", "still")
        for reference in ("dot", "coor")
        for asked in ("distance", "vector")
    ),
)
BY_NAME = {subtask.name: subtask for subtask in SUBTASKS}
WORDS = {  # the two answers of each question of direction: for a positive figure, for a negative one
    "x_movement": ("right", "left"),
    "y_movement": ("down", "up"),
    "z_movement": ("forward", "backward"),
    "yaw_movement": ("left", "right"),
    "pitch_movement": ("up", "down"),
}
