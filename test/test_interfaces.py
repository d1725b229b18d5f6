"""The interfaces in msg/, srv/ and action/ and the dataclasses and enums of the engine say the same."""

from __future__ import annotations

import dataclasses
import typing
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rosbags.interfaces import Nodetype
from rosbags.typesys import get_types_from_msg

from spatial_mllm_ros.queries import answer, codes, layout
from spatial_mllm_ros.queries.query import Query

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "spatial_mllm_ros"
FILES = [
    path.relative_to(ROOT).as_posix() for kind in ("msg", "srv", "action") for path in ROOT.glob(f"{kind}/*.{kind}")
]
SECTIONS = {".msg": 1, ".srv": 2, ".action": 3}

# Which section of which file a dataclass stands for.
STANDS_FOR: dict[tuple[str, int], type] = {
    ("msg/ImagePoint.msg", 0): answer.ImagePoint,
    ("msg/ImageBox.msg", 0): answer.ImageBox,
    ("msg/Pixel.msg", 0): answer.Pixel,
    ("msg/Evidence.msg", 0): answer.Evidence,
    ("srv/SpatialQuery.srv", 0): answer.Request,
    ("srv/SpatialQuery.srv", 1): answer.Answer,
    ("action/SpatialQuery.action", 0): answer.Request,
    ("action/SpatialQuery.action", 1): answer.Answer,
}

# Which Python type stands for which interface type. A sequence is a tuple of any length.
PYTHON: dict[str, Any] = {
    "string": str,
    "float32": float,
    "float64": float,
    **{f"{sign}int{bits}": int for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "builtin_interfaces/msg/Time": int,  # ns
    "builtin_interfaces/msg/Duration": int,  # ns
    "geometry_msgs/msg/PoseStamped": answer.PoseStamped,
    f"{PACKAGE}/msg/Query": Query | None,
    **{
        f"{PACKAGE}/msg/{cls.__name__}": cls
        for cls in (answer.ImagePoint, answer.ImageBox, answer.Pixel, answer.Evidence)
    },
}
HEADER = "std_msgs/msg/Header"
HEADER_FIELDS = {"stamp_ns": int, "camera_frame": str}

# Fields whose numbers have names: the enum, and what the names start with in the interface.
NAMED = {
    "error_code": (codes.ErrorCode, ""),
    "answer_type": (codes.AnswerType, ""),
    "source": (codes.AnswerSource, "SOURCE_"),
    "scale_source": (codes.ScaleSource, "SCALE_"),
    "kind": (codes.EvidenceKind, ""),
}


class Section(NamedTuple):
    """One of the parts that --- separates: fields by name, and constants (name, type, value) in their order."""

    fields: dict[str, str]
    constants: list[tuple[str, str, int]]


def texts(file: str) -> list[str]:
    return (ROOT / file).read_text(encoding="utf-8").split("\n---\n")


def section(file: str, index: int) -> Section:
    name = f"{PACKAGE}/msg/Any"  # as a message, so that Pixel is spatial_mllm_ros/msg/Pixel everywhere
    constants, fields = get_types_from_msg(texts(file)[index], name)[name]
    return Section({field: spelled(node) for field, node in fields}, [(n, t, v) for n, t, v in constants])


def spelled(node: Any) -> str:
    """A type as an interface file writes it, with the package and msg always named."""
    kind, detail = node
    if kind == Nodetype.SEQUENCE:
        return f"{spelled(detail[0])}[]"
    return str(detail[0] if kind == Nodetype.BASE else detail)


def python_type(spelling: str) -> Any:
    if spelling.endswith("[]"):
        return tuple[python_type(spelling[:-2]), ...]  # type: ignore[misc]
    return PYTHON.get(spelling, f"no Python type is stated for {spelling}: add it to PYTHON")


def test_files_are_found() -> None:
    assert {file for file, _ in STANDS_FOR} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_every_file_can_be_read(file: str) -> None:
    """By the parser that the node without rclpy uses."""
    assert len(texts(file)) == SECTIONS[Path(file).suffix]
    for index in range(len(texts(file))):
        assert section(file, index).fields, f"{file}: section {index} has no fields"


@pytest.mark.parametrize(("file", "index"), STANDS_FOR)
def test_fields(file: str, index: int) -> None:
    cls = STANDS_FOR[file, index]
    expected: dict[str, Any] = {}
    for name, spelling in section(file, index).fields.items():
        if spelling == HEADER:
            expected |= HEADER_FIELDS
        else:
            expected[name] = NAMED[name][0] if name in NAMED else python_type(spelling)
    hints = typing.get_type_hints(cls)
    actual = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    for want, got in zip_longest(expected.items(), actual.items()):
        assert want == got, f"{file}: the next field is {want}, but in {cls.__name__} it is {got}"


@pytest.mark.parametrize(("file", "index"), STANDS_FOR)
def test_constants(file: str, index: int) -> None:
    found = section(file, index)
    expected = [
        (start + member.name, spelling, member.value)
        for name, spelling in found.fields.items()
        if name in NAMED
        for enum, start in [NAMED[name]]
        for member in enum
    ]
    for want, got in zip_longest(expected, found.constants):
        assert want == got, f"{file}: the next constant is {got}, but by queries/codes.py it is {want}"


@pytest.mark.parametrize("message", layout.MESSAGES)
def test_the_messages_of_a_query_are_those_that_follow_from_its_dataclasses(message: str) -> None:
    text = (ROOT / "msg" / f"{message}.msg").read_text(encoding="utf-8")
    assert text == layout.definition(message), "write them anew: python -m spatial_mllm_ros.queries.layout msg"


def test_a_scalar_field_of_queries_has_one_type_in_every_message() -> None:
    """Fields of several classes share one field of the message, so that those of one name must hold the same."""
    for kind in layout.SELECTORS:
        seen: dict[str, Any] = {}
        for cls in layout.classes(kind):
            for field in layout.fields_of(cls):
                if field.scalar is not None:
                    known = seen.setdefault(field.name, (field.scalar, field.many))
                    assert known == (field.scalar, field.many), f"{cls.__name__}.{field.name} is another type elsewhere"


def test_an_answer_of_a_batch_is_what_the_service_answers() -> None:
    """Its text differs in the first comment alone."""
    message, service = texts("msg/SpatialAnswer.msg")[0], texts("srv/SpatialQuery.srv")[1]
    assert [line for line in message.splitlines()[1:] if line] == [line for line in service.splitlines() if line]


@pytest.mark.parametrize("index", [0, 1])
def test_the_action_asks_and_answers_as_the_service(index: int) -> None:
    """Its text differs in the first comment alone."""
    service, action = (
        [line for line in texts(file)[index].splitlines()[1:] if line] for file in FILES if Path(file).stem == "SpatialQuery"
    )
    for want, got in zip_longest(service, action):
        assert want == got, f"action/SpatialQuery.action has {got!r} where srv/SpatialQuery.srv has {want!r}"
