"""From a Request to an Answer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spatial_mllm_ros.answering import handlers
from spatial_mllm_ros.answering.alone import WITHOUT_POSE, alone
from spatial_mllm_ros.answering.arbitration import (
    GEOMETRY_CANNOT_TELL,
    MARK,
    both,
    in_one_line,
    is_for_a_model,
    is_marked,
    unchecked,
)
from spatial_mllm_ros.answering.choices import choose
from spatial_mllm_ros.answering.context import Context, QueryConfig, TransformLookup
from spatial_mllm_ros.answering.doubted import because_of, doubted, that_count
from spatial_mllm_ros.answering.handlers import unavailable
from spatial_mllm_ros.answering.metres import in_metres, require_metres, without_metres
from spatial_mllm_ros.answering.model_backend import ModelBackend
from spatial_mllm_ros.answering.moments import window_of
from spatial_mllm_ros.answering.space import DepthLender, GravityCache
from spatial_mllm_ros.answering.understanding import NotUnderstood, Understood, understand
from spatial_mllm_ros.language.conversation import ConversationReader
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.memory.unplaced import UnplacedFrames
from spatial_mllm_ros.memory.view import MemoryView
from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.queries.query import Query, value_unit
from spatial_mllm_ros.queries.term import InvalidQuery
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sensor import SensorModel

log = logging.getLogger(__name__)

NO_MODEL_HELP = (
    "a free-form question needs a model and none is loaded: install the extra spatial_mllm_ros[model], get a checkpoint "
    "(`spatial-mllm download Diankun/Spatial-MLLM-v1.1-Instruct-135K`) and name it in the parameter model (--model). "
    "Geometry answers the questions in docs/questions.md"
)
MARKS_HELP = (
    "marked points, boxes and moments are for measurements, which a model cannot see, and no measurement is asked for in "
    "these words: ask one of the questions in docs/questions.md about the marks, or ask without them"
)


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A request on its way: what was seen when it was asked, what it means, when its time is up (monotonic seconds),
    whether it was given up, who reads along."""

    request: Request
    seen: MemoryView
    deadline: float
    cancelled: Callable[[], bool]
    on_text: Callable[[str], None] | None
    understood: Understood = Understood()  # noqa: RUF009  frozen

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def in_words(self) -> Request:
        """The request for a model, which reads words."""
        asked = self.request.question.strip() or self.understood.read_as
        return replace(self.request, question=asked)


class SpatialQueryEngine:
    """Answers questions about what a memory holds. Safe to use from several threads.

    memory: what was seen. sensor: error model of the camera; that of the memory, if it has one, comes first.
    T_zup_from_world: world to a frame with z up and the floor at z = 0, where that is known; else both are found in the
    frames. lookup: transforms to frames other than the fixed one and the cameras. reader: of words; the grammar by default.
    model: answers what geometry does not, and is heard beside it; see arbitration.py for who answers what. unplaced:
    images that came without poses, which a model is shown where the memory holds fewer. age_s: see Context.
    doubts: about the input, by now; what is measured is less certain by them, or refused.
    """

    def __init__(
        self,
        memory: SpatialMemory,
        sensor: SensorModel | None = None,
        config: QueryConfig | None = None,
        T_zup_from_world: Transform | None = None,
        lookup: TransformLookup | None = None,
        reader: ConversationReader | None = None,
        model: ModelBackend | None = None,
        unplaced: UnplacedFrames | None = None,
        age_s: Callable[[int], float] = lambda stamp_ns: 0.0,
        doubts: Callable[[], Sequence[Doubt]] = lambda: (),
    ) -> None:
        self.memory = memory
        self.sensor = sensor or SensorModel()
        self.config = config or QueryConfig()
        self.reader = reader or ConversationReader()
        self.gravity_cache = GravityCache(T_zup_from_world, self.config.gravity_frames)
        self.lender = DepthLender()
        self.model = model
        self._lookup = lookup
        self._unplaced = unplaced
        self._age_s = age_s
        self._doubts = doubts

    def answer(
        self,
        request: Request,
        cancelled: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        seen: MemoryView | None = None,
    ) -> Answer:
        """The answer, or the error code that says why there is none. Never raises for what a caller sends.

        cancelled: asked between steps; the answer is CANCELLED once it returns true. on_text: given the text of a model
        that answers alone, piece by piece as it comes; the answer that is returned is the one that counts. seen: a
        snapshot of the memory to answer from; None: the memory as it is now.
        """
        return self._timed(request, self.memory.snapshot() if seen is None else seen, cancelled, on_text)

    def answer_all(
        self, requests: Sequence[Request], cancelled: Callable[[], bool] = lambda: False
    ) -> tuple[Answer, ...]:
        """The answers to several requests over one state of the memory, each as ``answer`` gives it."""
        seen = self.memory.snapshot()
        return tuple(self._timed(request, seen, cancelled, None) for request in requests)

    def _timed(
        self,
        request: Request,
        seen: MemoryView,
        cancelled: Callable[[], bool],
        on_text: Callable[[str], None] | None,
    ) -> Answer:
        begin = time.monotonic()
        limit = request.timeout / 1e9 if request.timeout > 0 else self.config.timeout_s
        call = _Call(request=request, seen=seen, deadline=begin + limit, cancelled=cancelled, on_text=on_text)
        understood = Understood(query=request.query)
        try:
            _check(request)
            understood = understand(request, self.reader, call.left_s, cancelled, self.model is not None)
            answer = self._answer(replace(call, understood=understood))
        except QueryError as error:
            understood = error.understood if isinstance(error, NotUnderstood) else understood
            answer = Answer(error_code=error.code, error_msg=str(error))
        except InvalidQuery as error:  # a query that follows from the one asked contradicts itself
            answer = Answer(error_code=ErrorCode.INVALID_REQUEST, error_msg=str(error))
        except Exception as error:
            log.exception("question %r failed", request.question[:200] or request.query)
            answer = Answer(error_code=ErrorCode.UNKNOWN, error_msg=f"internal error, see the log: {error!r}")
        stamps = [e.stamp_ns for e in answer.evidence]
        elsewhere = answer.time_queued + answer.time_selecting + answer.time_encoding
        return replace(
            answer,
            first_stamp=min(stamps, default=0),
            last_stamp=max(stamps, default=0),
            time_generating=max(int((time.monotonic() - begin) * 1e9) - elsewhere, 0),
            query=understood.query,
            read_as=understood.read_as,
            alternatives=understood.alternatives,
            reader=understood.reader,
        )

    def needs_model(self, request: Request) -> bool:
        """Whether the answer may wait for a model, so that what geometry alone answers need not queue behind it.

        Reads the question with the grammar and no more.
        """
        if self.model is None and not self.reader.translates:
            return False
        grammar = ConversationReader(own_words=self.reader.own_words)
        try:
            _check(request)
            understood = understand(request, grammar, math.inf, lambda: False, self.model is not None)
        except QueryError as error:
            return self.reader.translates and error.code in (ErrorCode.NOT_UNDERSTOOD, ErrorCode.AMBIGUOUS)
        return self.model is not None and is_for_a_model(request, understood.query)

    def update_context(self) -> bool:
        """Show the model the keyframes as they are now, where there is one; whether they had changed. Never waits for it.

        Raises ModelError.
        """
        return self.model is not None and self.model.update(self._shown, self.config.max_keyframes)

    @property
    def _shown(self) -> SpatialMemory | UnplacedFrames:
        """What a model is shown frames of: whichever of the two holds more of what was seen."""
        unplaced = self._unplaced
        return self.memory if unplaced is None or len(self.memory) >= len(unplaced) else unplaced

    def _answer(self, call: _Call) -> Answer:
        request, query = call.request, call.understood.query
        lacks = "" if query is None else unavailable(query)
        if query is not None and not lacks:
            only = alone(request, query, call.seen)
            if only is not None:
                return self._measured(replace(call, seen=only), query, GravityCache())
        if len(call.seen) == 0:
            return self._without_memory(call, lacks)
        if query is None or (lacks and call.understood.free_form):
            return self._free_form(call)
        may_ask = is_for_a_model(request, query)
        try:
            if lacks:
                raise QueryError(ErrorCode.NOT_AVAILABLE, lacks)
            measured = self._measured(call, query)
        except QueryError as error:
            if self.model is None or not may_ask or error.code not in GEOMETRY_CANNOT_TELL:
                raise
            return self._instead(self.model, call, error)
        if self.model is not None and may_ask and self.config.cross_check_with_model:
            return self._checked(self.model, call, measured)
        return measured

    def _without_memory(self, call: _Call, lacks: str) -> Answer:
        """A model's answer from images that nothing places, where there are some; nothing can be measured."""
        refused = ", ".join(f"{n} {reason}" for reason, n in call.seen.refused.most_common())
        error = QueryError(
            ErrorCode.NO_FRAMES,
            (WITHOUT_POSE if len(call.seen.single) else "nothing has been seen yet: no frame is in memory")
            + (f" (refused: {refused})" if refused else ""),
        )
        if not self._unplaced:
            raise error
        if call.understood.query is None or (lacks and call.understood.free_form):
            return self._free_form(call)
        error = QueryError(
            ErrorCode.NO_FRAMES,
            f"nothing can be measured in images without poses{f' (refused: {refused})' if refused else ''}: give poses, or "
            "let geometry from color find them (--rgb-geometry)",
        )
        if self.model is None or not is_for_a_model(call.request, call.understood.query):
            raise error
        return self._instead(self.model, call, error)

    def _measured(self, call: _Call, query: Query, gravity_cache: GravityCache | None = None) -> Answer:
        """Geometry's answer. levels: of what was seen, where that is not the memory."""
        request, scale = call.request, call.seen.scale
        require_metres(scale, query)
        if query.frame_id and request.frame_id and query.frame_id != request.frame_id:
            raise QueryError(
                ErrorCode.INVALID_REQUEST,
                f"positions are asked for in {request.frame_id!r} by the request and in {query.frame_id!r} by its query",
            )
        context = Context(
            request=request,
            query=query,
            memory=call.seen,
            sensor=call.seen.sensor_from(self.sensor),
            config=self.config,
            gravity_cache=gravity_cache or self.gravity_cache,
            lender=self.lender,
            lookup=self._lookup,
            deadline=call.deadline,
            cancelled=call.cancelled,
            age_s=self._age_s,
        )
        context.window_start, context.window_end = _window(context)
        doubts = that_count(self._doubts(), query)
        try:
            measured = in_metres(handlers.answer(context), scale)
            measured = without_metres(choose(measured, request, query, self.config.min_confidence), scale)
        except QueryError as error:
            raise because_of(error, doubts) from error
        return doubted(measured, doubts, self.config.min_confidence)

    def _free_form(self, call: _Call) -> Answer:
        """The answer to a question that is for a model alone."""
        if is_marked(call.request, call.understood.query):
            raise QueryError(ErrorCode.INVALID_REQUEST, MARKS_HELP)
        if self.model is None:
            raise QueryError(ErrorCode.NO_MODEL, NO_MODEL_HELP)
        return self._judged(self.model, call)

    def _judged(self, model: ModelBackend, call: _Call, unit: str = "") -> Answer:
        """The model's answer, where it is sure enough. unit: see ModelBackend.answer."""
        answer = model.answer(
            call.in_words,
            self._shown,
            self.config,
            timeout_s=call.left_s,
            cancelled=call.cancelled,
            on_text=call.on_text,
            unit=unit,
        )
        if answer.confidence < self.config.min_model_confidence:
            raise QueryError(
                ErrorCode.ABSTAINED,
                f"the model says {in_one_line(answer.answer)!r}, but only with confidence {answer.confidence:.2g} "
                f"({answer.confidence_method}); min_model_confidence is {self.config.min_model_confidence:g}",
            )
        return answer

    def _instead(self, model: ModelBackend, call: _Call, error: QueryError) -> Answer:
        """The model's answer to what geometry reads but cannot tell (``error``)."""
        try:
            return self._judged(model, call, _unit_to_tell(call))
        except QueryError as other:
            if other.code == ErrorCode.CANCELLED:
                raise
            raise QueryError(error.code, f"{error}; nor does the model answer: {in_one_line(str(other))}") from other

    def _checked(self, model: ModelBackend, call: _Call, measured: Answer) -> Answer:
        """Geometry's answer, confirmed or doubted by the model where that answers soon enough."""
        # a fifth of the time left is kept for the way back: what is measured must not be lost to a model that overruns
        limit = min(self.config.cross_check_timeout_s, 0.8 * call.left_s)
        if limit <= 0:
            return unchecked(measured, "there was no time")
        try:
            judged = model.answer(
                call.in_words,
                self.memory,
                self.config,
                timeout_s=limit,
                cancelled=call.cancelled,
                unit=_unit_to_tell(call),
                only_if_ready=True,
            )
            together = both(measured, judged, _asked_unit(call), self.config.model_trust, len(call.request.choices))
        except QueryError as error:
            if error.code == ErrorCode.CANCELLED:
                raise
            return unchecked(measured, str(error))
        except Exception as error:
            log.exception("the model failed at %r", call.request.question[:200])
            return unchecked(measured, f"internal error, see the log: {error!r}")
        return together or unchecked(measured, f"it says {judged.answer!r}")


def _asked_unit(call: _Call) -> str:
    return "" if call.understood.query is None else call.understood.query.unit


def _unit_to_tell(call: _Call) -> str:
    """The unit that a question means but does not name."""
    query = call.understood.query
    return "" if query is None or query.unit or call.request.choices else value_unit(query)


def _window(context: Context) -> tuple[int, int]:
    """What may be used (ns, 0 = open): the request's window, and the query's within it."""
    start, end = context.request.window_start, context.request.window_end
    if context.query.window is None:
        return start, end
    first, last = window_of(context, context.query.window)
    start, end = max(start, first), min(end, last) if end else last
    if start > end:
        raise QueryError(ErrorCode.INVALID_REQUEST, "the window of the query lies outside that of the request")
    return start, end


def _check(request: Request) -> None:
    """INVALID_REQUEST for what is wrong with a request whatever it asks."""
    if request.window_start and request.window_end and request.window_start > request.window_end:
        raise QueryError(ErrorCode.INVALID_REQUEST, "window_start is later than window_end")
    if min(request.window_start, request.window_end, request.timeout, request.max_keyframes) < 0:
        raise QueryError(ErrorCode.INVALID_REQUEST, "window, timeout and max_keyframes must not be negative")
    if len(request.choices) == 1 or len(set(request.choices)) < len(request.choices):
        raise QueryError(ErrorCode.INVALID_REQUEST, "give at least two choices, all different, or none")
    if any(not choice.strip() for choice in request.choices):
        raise QueryError(ErrorCode.INVALID_REQUEST, "a choice is empty")
    given = {"p": request.points, "box": request.boxes, "t": request.times}
    for mark in (mark for choice in request.choices for mark in MARK.finditer(choice)):
        if int(mark["index"]) >= len(given[mark["kind"].lower()]):
            raise QueryError(ErrorCode.INVALID_REQUEST, f"the choice {mark[0]} is not in the request: add it")
