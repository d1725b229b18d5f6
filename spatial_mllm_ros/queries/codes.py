"""The constants of srv/SpatialQuery.srv. A test compares the two."""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """Why there is no answer; NONE when there is one. A wrong answer is worse than a code."""

    NONE = 0
    INVALID_REQUEST = 1100
    NO_FRAMES = 1101
    NOT_SEEN = 1102
    TF_ERROR = 1103
    SCALE_UNAVAILABLE = 1104
    NO_MODEL = 1105
    MODEL_ERROR = 1106
    ABSTAINED = 1107
    TIMEOUT = 1108
    BUSY = 1109
    CANCELLED = 1110
    UNKNOWN = 1111
    NOT_AVAILABLE = 1112
    AMBIGUOUS = 1113
    NOT_UNDERSTOOD = 1114
    OBJECT_UNKNOWN = 1115


class AnswerType(IntEnum):
    """Which fields of an Answer hold the answer."""

    TEXT = 0
    NUMBER = 1
    CHOICE = 2
    BOOLEAN = 3
    PIXEL = 4
    POINT = 5
    POSE = 6
    VECTOR = 7
    ORDER = 8


class AnswerSource(IntEnum):
    """Where an answer comes from."""

    NONE = 0
    GEOMETRY = 1
    MODEL = 2
    BOTH = 3


class ScaleSource(IntEnum):
    """Where an answer's metres come from."""

    NONE = 0
    DEPTH = 1
    ODOM = 2
    TF = 3


class EvidenceKind(IntEnum):
    """What an evidence means in its image."""

    FRAME = 0
    PIXEL = 1
    BOX = 2


class QueryError(Exception):
    """A question that gets a code instead of an answer. ``str()`` says what is wrong and what to do."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
