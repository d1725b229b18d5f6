"""Asks a model: which frames it is shown, how long it may take, and which frames an answer rests on."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from spatial_mllm_ros.answering.context import QueryConfig, frame_evidence
from spatial_mllm_ros.answering.reading import answer_confidence, read_answer
from spatial_mllm_ros.memory.keyframes.coverage import Selection
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.queries.answer import Answer, Evidence, Request
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, QueryError
from spatial_mllm_ros.serving.interface import (
    Generated,
    ModelBusy,
    ModelCancelled,
    ModelError,
    ModelFrame,
    ModelQuestion,
    ModelStatus,
    ModelTimeout,
    SpatialModel,
)

log = logging.getLogger(__name__)

LABEL = "seen by the model"
REMEMBERED = 10_000
"""Frames of former contexts that can still be named as evidence."""

_UNIT_WORDS = {"m": "meters", "m2": "square meters", "deg": "degrees"}
_CODES = {ModelBusy: ErrorCode.BUSY, ModelCancelled: ErrorCode.CANCELLED, ModelTimeout: ErrorCode.TIMEOUT}


class Shown(Protocol):
    """What a model is shown frames of: a SpatialMemory, or UnplacedFrames."""

    @property
    def memory_id(self) -> int: ...

    @property
    def version(self) -> int: ...

    def keyframes(self, k: int = ..., window_start: int = ..., window_end: int = ...) -> Selection: ...

    def frames(self, window_start: int = ..., window_end: int = ...) -> list[StoredFrame]: ...

    def get(self, frame_id: int) -> StoredFrame | None: ...


class ModelBackend:
    """A model as a source of answers about a memory. Safe to use from several threads.

    The model keeps the keyframes of one memory encoded: its context. ``update`` says which these are whenever the
    memory has changed; a question without a window and with the usual number of keyframes is about the context, any other
    is about frames of its own. Frames are known by their ids, so a model that is to see several memories, one after the
    other, needs memories that go on numbering (``first_id``).

    max_frames: so many frames at most are shown, whatever a request asks for.
    """

    def __init__(self, model: SpatialModel, max_frames: int = 32) -> None:
        if max_frames < 1:
            raise ValueError(f"max_frames must be at least 1, not {max_frames}")
        self.model = model
        self.max_frames = max_frames
        self._lock = threading.Lock()
        self._memory_id = 0  # of the memory that the context is of
        self._seen: tuple[int, int] | None = None  # version of the memory and number of keyframes
        self._context: dict[int, ModelFrame] = {}
        self._evidence: OrderedDict[int, Evidence] = OrderedDict()
        self._undecodable: set[int] = set()

    @property
    def model_id(self) -> str:
        """The model and its runtime."""
        return self.model.model_id

    def status(self) -> ModelStatus:
        """How the model fares; never waits for it."""
        return self.model.status()

    def update(self, memory: Shown, max_keyframes: int) -> bool:
        """Make the best up to ``max_keyframes`` frames of ``memory`` the model's context; whether that changed it.

        Never waits for the model, and costs next to nothing when the memory has not changed. The context is forgotten
        at once when the memory is empty or another one than before. Raises what the model raises, ModelError above all.
        """
        with self._lock:
            same = self._is_current(memory)
            seen = (memory.version, max_keyframes)
            if same and seen == self._seen:
                return False
            if not same and self._context:
                self.model.set_context(())
                self._context = {}
            stored = self._chosen(memory, max_keyframes)
            frames = self._model_frames(stored, self._context)
            changed = [f.frame_id for f in frames] != list(self._context)
            if changed:
                self._remember(stored)
                self.model.set_context(frames)
                self._context = {f.frame_id: f for f in frames}
            self._memory_id, self._seen = memory.memory_id, seen
            return changed

    def answer(
        self,
        request: Request,
        memory: Shown,
        config: QueryConfig,
        *,
        timeout_s: float,
        cancelled: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        unit: str = "",
        only_if_ready: bool = False,
    ) -> Answer:
        """The model's answer. on_text: given its text piece by piece. unit: the one (key of UNITS) that a number is wanted
        in where the question names none; the model is told. only_if_ready: about what the model has encoded already,
        whatever ``wait_for_context`` says; BUSY while it is not loaded or has encoded nothing.

        Raises QueryError: NO_FRAMES, MODEL_ERROR, BUSY, CANCELLED or TIMEOUT.
        """
        begin = time.monotonic()
        wait = config.wait_for_context and not only_if_ready
        question = ModelQuestion(_with_unit(request.question.strip(), unit), request.choices)
        try:
            frames, shown = self._frames_for(request, memory, config.max_keyframes, wait)
            if only_if_ready:
                self._require_ready(about_context=frames is None)
            selected = time.monotonic()
            generated = self._ask(question, frames, wait, begin + timeout_s - selected, cancelled, on_text)
        except ModelError as error:
            code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), ErrorCode.MODEL_ERROR)
            raise QueryError(code, str(error)) from error
        waited = int((time.monotonic() - selected) * 1e9) - generated.encoding_ns - generated.generating_ns
        evidence = tuple(self._evidence_of(i, memory, shown) for i in generated.frame_ids)
        return replace(
            _as_answer(question, generated),
            source=AnswerSource.MODEL,
            evidence=evidence,
            time_queued=max(waited, 0),
            time_selecting=int((selected - begin) * 1e9),
            time_encoding=generated.encoding_ns,
            time_generating=generated.generating_ns,
            model_id=self.model_id,
        )

    def _ask(
        self,
        question: ModelQuestion,
        frames: Sequence[ModelFrame] | None,
        wait_for_context: bool,
        timeout_s: float,
        cancelled: Callable[[], bool],
        on_text: Callable[[str], None] | None,
    ) -> Generated:
        if timeout_s <= 0:
            raise ModelTimeout("the time limit passed before the model could be asked; allow more time")
        try:
            return self.model.ask(
                question,
                frames,
                timeout_s=timeout_s,
                cancelled=cancelled,
                on_text=on_text,
                wait_for_context=wait_for_context,
            )
        except ValueError as error:
            if frames is not None:
                raise
            # what the context was about has been forgotten since
            raise QueryError(ErrorCode.NO_FRAMES, f"there is nothing to show the model: {error}") from error

    # ---- frames

    def _frames_for(
        self, request: Request, memory: Shown, usual: int, wait_for_context: bool
    ) -> tuple[list[ModelFrame] | None, dict[int, Evidence]]:
        """Frames of the question's own, by stamp, and their evidence; None where it is about the context."""
        count = min(request.max_keyframes or usual, self.max_frames)
        if count == min(usual, self.max_frames) and not (request.window_start or request.window_end):
            if memory.memory_id > self._memory_id or (wait_for_context and self._is_current(memory)):
                self.update(memory, usual)
            if self._is_current(memory) and self._context:
                return None, {}
        stored = self._chosen(memory, count, request.window_start, request.window_end)
        with self._lock:
            known = dict(self._context) if self._is_current(memory) else {}
        frames = self._model_frames(stored, known)
        if not frames:
            raise QueryError(ErrorCode.NO_FRAMES, _why_none(request, memory))
        by_id = {s.frame_id: s for s in stored}
        return frames, {f.frame_id: frame_evidence(by_id[f.frame_id], LABEL) for f in frames}

    def _chosen(self, memory: Shown, count: int, start: int = 0, end: int = 0) -> list[StoredFrame]:
        """The frames with an image that together show most, best first.

        Without depth nobody knows what they show, so these are evenly spread instead, and mostly stay the same ones as
        more come.
        """
        count = min(count, self.max_frames)
        picked = [memory.get(i) for i in memory.keyframes(count, start, end).picked]
        chosen = [s for s in picked if s is not None and s.frame.image is not None]
        if chosen:
            return chosen
        held = [s for s in memory.frames(start, end) if s.frame.image is not None]
        stride = 1
        while len(held) > count:
            stride *= 2
            held = [s for s in held if s.frame_id % stride == 0] or held[:1]
        return held

    def _model_frames(self, stored: Sequence[StoredFrame], known: dict[int, ModelFrame]) -> list[ModelFrame]:
        """The frames with their pixels, by stamp: an even number of them, or a single one, the last ones left out."""
        frames = [f for f in (known.get(s.frame_id) or self._decoded(s) for s in stored) if f is not None]
        if len(frames) > 1:
            frames = frames[: len(frames) // 2 * 2]
        return sorted(frames, key=lambda f: (f.stamp_ns, f.frame_id))

    def _decoded(self, stored: StoredFrame) -> ModelFrame | None:
        """A frame with its pixels; None when its image does not decode, which is logged once."""
        try:
            image = stored.frame.rgb()
        except ValueError as error:
            if stored.frame_id not in self._undecodable:
                self._undecodable.add(stored.frame_id)
                log.warning("the model is not shown frame %d: %s", stored.frame_id, error)
            return None
        return None if image is None else ModelFrame(stored.frame_id, stored.frame.stamp_ns, image)

    def _is_current(self, memory: Shown) -> bool:
        """Whether the context is of this memory."""
        return self._memory_id == memory.memory_id

    def _require_ready(self, about_context: bool) -> None:
        status = self.model.status()
        if status.state in ("loading", "failed", "restarting"):
            raise ModelBusy(f"the model is not ready ({status.reason or status.state})")
        if about_context and not status.context_frames:
            raise ModelBusy("the model has not encoded the keyframes yet")

    # ---- evidence

    def _remember(self, frames: Sequence[StoredFrame]) -> None:
        """Keep what evidence needs of the frames of a context: the memory may drop them while the model answers."""
        for stored in frames:
            self._evidence[stored.frame_id] = frame_evidence(stored, LABEL)
            self._evidence.move_to_end(stored.frame_id)
        while len(self._evidence) > REMEMBERED:
            self._evidence.popitem(last=False)

    def _evidence_of(self, frame_id: int, memory: Shown, shown: dict[int, Evidence]) -> Evidence:
        """A frame that the model answered about, with its pose as corrected since, where the memory still holds it."""
        with self._lock:
            known = shown.get(frame_id) or self._evidence.get(frame_id)
        if known is None:
            raise QueryError(
                ErrorCode.MODEL_ERROR, f"the model answered about frame {frame_id}, which nobody showed it"
            )
        held = memory.get(frame_id)
        if held is None or (held.frame.stamp_ns, held.frame.camera_frame) != (known.stamp_ns, known.camera_frame):
            return known
        return frame_evidence(held, LABEL)


def _with_unit(question: str, unit: str) -> str:
    """A question with the unit of its answer in brackets, as in the training of models for such questions."""
    if unit not in _UNIT_WORDS:
        return question
    return f"{question.rstrip('?').rstrip()} (in {_UNIT_WORDS[unit]})?"


def _as_answer(question: ModelQuestion, generated: Generated) -> Answer:
    """What the model said, typed. QueryError (MODEL_ERROR) when it said nothing, or nothing that can be right."""
    try:
        confidence, method = answer_confidence(generated.token_probabilities, generated.choice_probabilities)
    except ValueError as error:  # NaN, for example
        raise QueryError(ErrorCode.MODEL_ERROR, f"the model computes nonsense: {error}") from error
    answer = Answer(answer=generated.text.strip(), confidence=confidence, confidence_method=method)
    if question.choices:
        of_choices = generated.choice_probabilities
        if len(of_choices) != len(question.choices):
            raise QueryError(ErrorCode.MODEL_ERROR, "the model did not choose between the choices")
        index = of_choices.index(max(of_choices))
        return replace(answer, answer=question.choices[index], answer_type=AnswerType.CHOICE, choice_index=index)
    reading = read_answer(generated.text, question.text)
    if not reading.words:
        raise QueryError(ErrorCode.MODEL_ERROR, "the model said nothing")
    if not generated.complete:  # what was cut off might have changed the meaning
        return replace(answer, answer=f"{reading.words} …")
    return replace(
        answer, answer=reading.words, answer_type=reading.answer_type, value=reading.value, unit=reading.unit
    )


def _why_none(request: Request, memory: Shown) -> str:
    """Why there is no frame to show a model."""
    start, end = request.window_start, request.window_end
    where = " between window_start and window_end" if start or end else ""
    if memory.frames(start, end):
        return f"no frame{where} has a color image that can be shown to the model"
    tracks = [memory.track(camera) for camera in memory.cameras()] if isinstance(memory, SpatialMemory) else []
    if any(len(t.arrays(start, end)[0]) for t in tracks if t is not None):
        return (
            f"the images{where} were dropped to stay within max_frames and max_bytes; raise them to look back further"
        )
    return f"nothing was seen{where}"
