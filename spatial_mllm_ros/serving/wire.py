"""What a node and the process of its model say to each other, and how: pickles through a pair of sockets.

Only for a process and the child that it started itself: a pickle can do anything to whoever reads it.
"""

from __future__ import annotations

import io
import logging
import pickle
import socket
import struct
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.window import WindowGeometry
from spatial_mllm_ros.serving.calls import Event
from spatial_mllm_ros.serving.interface import ModelFrame, ModelQuestion, ModelStatus

SENT_AT_ONCE = 512
"""Buffers in one call to the system; the least that any allows is 1024 (IOV_MAX) on Linux and macOS."""


# ---- from the node


@dataclass(frozen=True)
class Start:
    """The first message. options: of what is to be loaded. engine: ``module:function`` that loads it, see
    ``local.load_engine``. log_level: what the node logs. parent: process id of the node. stuck_s: the worker ends when it
    is stuck for so long."""

    options: Any
    engine: str
    log_level: int
    parent: int
    stuck_s: float


@dataclass(frozen=True)
class SetContext:
    """frames: those that the worker does not hold, and the frame_ids of those it does; see SentFrames. forget: contexts
    before it are forgotten at once."""

    number: int
    frames: tuple[ModelFrame | int, ...]
    forget: bool


@dataclass(frozen=True)
class Ask:
    """See calls.Call. seconds_left: until its deadline."""

    number: int
    question: ModelQuestion
    frames: tuple[ModelFrame | int, ...] | None
    seconds_left: float
    context: int
    streams: bool


@dataclass(frozen=True)
class GiveUp:
    """Nobody waits for the answer any more."""

    number: int


@dataclass(frozen=True, eq=False)
class Predict:
    """A window of images for a geometry predictor: uint8 RGB [T, height, width, 3]."""

    images: NDArray[np.uint8]


# ---- from the worker


@dataclass(frozen=True)
class Progress:
    """Loading: what is being done, bytes done, bytes in all; 0 of 0 where it cannot be said."""

    doing: str = "starting"
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""

    model_id: str


@dataclass(frozen=True)
class Refused:
    """The model cannot be loaded; the worker ends."""

    reason: str


@dataclass(frozen=True)
class QuestionEvent:
    """What becomes of a question."""

    number: int
    event: Event


@dataclass(frozen=True)
class Status:
    """How the model fares; context: number of the last one that is complete, or could not be completed."""

    status: ModelStatus
    context: int


@dataclass(frozen=True, eq=False)
class Predicted:
    """What became of a window: its geometry, or the reason, in a word and in words, why there is none."""

    geometry: WindowGeometry | None
    reason: str = ""
    words: str = ""


@dataclass(frozen=True)
class Logged:
    """A record for the node's logging."""

    record: logging.LogRecord


# ---- frames are sent once


class SentFrames:
    """The node's note of what the worker holds: the frames of the context that was sent last."""

    def __init__(self) -> None:
        self._ids: set[int] = set()

    def context(self, frames: Sequence[ModelFrame]) -> tuple[ModelFrame | int, ...]:
        """A context as it is to be sent."""
        packed = self.question(frames)
        self._ids = {frame.frame_id for frame in frames}
        return packed

    def question(self, frames: Sequence[ModelFrame]) -> tuple[ModelFrame | int, ...]:
        """Frames of a question as they are to be sent."""
        return tuple(frame.frame_id if frame.frame_id in self._ids else frame for frame in frames)


class HeldFrames:
    """The worker's side of SentFrames."""

    def __init__(self) -> None:
        self._frames: dict[int, ModelFrame] = {}

    def context(self, packed: Sequence[ModelFrame | int]) -> tuple[ModelFrame, ...]:
        """A context as it was meant."""
        frames = self.question(packed)
        self._frames = {frame.frame_id: frame for frame in frames}
        return frames

    def question(self, packed: Sequence[ModelFrame | int]) -> tuple[ModelFrame, ...]:
        """Frames of a question as they were meant."""
        return tuple(self._frames[frame] if isinstance(frame, int) else frame for frame in packed)


# ---- the way


class _Pickler(pickle.Pickler):
    """Writes arrays so that every release of numpy reads them: the two ends may be two Pythons."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not np.ndarray:
            return NotImplemented
        return _array, (pickle.PickleBuffer(np.ascontiguousarray(value).data), value.dtype.str, value.shape)


def _array(buffer: memoryview, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype).reshape(shape)


class Channel:
    """One end of a pair of sockets. Any thread may send; one thread receives.

    A message is a count of buffers, the size of each and the buffers: the pickle, then arrays, which are not copied.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Waits while the other end does not read. OSError once that is gone."""
        arrays: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        _Pickler(stream, protocol=5, buffer_callback=arrays.append).dump(message)
        data = stream.getbuffer()
        parts = [data, *(array.raw() for array in arrays)]
        head = struct.pack(f"<I{len(parts)}Q", len(parts), *(len(part) for part in parts))
        with self._sending:
            self._send([memoryview(head), *parts])

    def receive(self) -> Any:
        """The next message; EOFError once the other end is gone."""
        (count,) = struct.unpack("<I", self._read(4))
        sizes = struct.unpack(f"<{count}Q", self._read(8 * count))
        data, *arrays = [self._read(size) for size in sizes]
        return pickle.loads(data, buffers=arrays)

    def close(self) -> None:
        """Both ends get EOFError or OSError from now on, a ``receive`` that waits too."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other end is gone already
            return
        finally:
            self._socket.close()

    def _send(self, parts: Iterable[memoryview]) -> None:
        left = [part for part in parts if len(part)]
        while left:
            sent = self._socket.sendmsg(left[:SENT_AT_ONCE])
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]

    def _read(self, size: int) -> memoryview:
        buffer = np.empty(size, np.uint8).data
        filled = 0
        while filled < size:
            try:
                count = self._socket.recv_into(buffer[filled:])
            except ConnectionResetError:
                count = 0
            if count == 0:
                raise EOFError("the other end of the channel is gone")
            filled += count
        return buffer
