"""From a Request to an Answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.memory.unplaced import UnplacedFrames
from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.query.arbitration import (
    GEOMETRY_CANNOT_TELL,
    both,
    in_one_line,
    is_for_a_model,
    is_marked,
    unchecked,
)
from spatial_mllm_ros.query.choices import choose
from spatial_mllm_ros.query.context import Context, QueryConfig, TransformLookup
from spatial_mllm_ros.query.doubted import because_of, doubted, that_count
from spatial_mllm_ros.query.geometry import bearing, motion, points, rooms, sizes, views
from spatial_mllm_ros.query.metres import in_metres, require_metres, without_metres
from spatial_mllm_ros.query.model_backend import ModelBackend
from spatial_mllm_ros.query.parser import ParsedQuestion, QuestionParser
from spatial_mllm_ros.query.space import DepthLender, LevelCache
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sensor import SensorModel

log = logging.getLogger(__name__)

Handler = Callable[[Context], Answer]

HANDLERS: dict[str, Handler] = {
    "depth": points.depth,
    "range": points.distance_from_camera,
    "range_at": points.distance_from_camera,
    "nearer": points.nearer_or_farther,
    "farther": points.nearer_or_farther,
    "is_nearer": points.is_nearer_or_farther,
    "is_farther": points.is_nearer_or_farther,
    "distance": points.distance,
    "horizontal_distance": points.horizontal_distance,
    "height": points.height,
    "height_difference": points.height_difference,
    "higher": points.higher_or_lower,
    "lower": points.higher_or_lower,
    "is_higher": points.is_higher_or_lower,
    "is_lower": points.is_higher_or_lower,
    "where": views.where,
    "visible": views.visible,
    "first_seen": views.seen_when,
    "last_seen": views.seen_when,
    "displacement": motion.displacement,
    "path": motion.path,
    "turned": motion.turned,
    "moved_dir": motion.moved_direction,
    "camera_height": motion.camera_height,
    "camera_position": motion.camera_position,
    "elapsed": motion.elapsed,
    "direction": bearing.direction,
    "size": sizes.size,
    "size_height": sizes.size,
    "size_width": sizes.size,
    "size_length": sizes.size,
    "extent": rooms.extent,
    "extent_length": rooms.extent,
    "extent_width": rooms.extent,
    "extent_height": rooms.extent,
    "floor_area": rooms.floor_area,
    "ceiling": rooms.ceiling,
    "unseen": rooms.unseen,
    "unseen_where": rooms.unseen,
}
"""The geometry handler of every question family."""

NO_MODEL_HELP = (
    "a free-form question needs a model and none is loaded: install the extra spatial_mllm_ros[model], get a checkpoint "
    "(`spatial-mllm download Diankun/Spatial-MLLM-v1.1-Instruct-135K`) and name it in the parameter model (--model). "
    "Geometry answers the questions in docs/questions.md"
)
MARKS_HELP = (
    "marked points, boxes and moments are for measurements, which a model cannot see, and no measurement is asked for in "
    "these words: ask one of the questions in docs/questions.md about the marks, or ask without them"
)


@dataclass(frozen=True)
class _Call:
    """A request on its way: when its time is up (monotonic seconds), whether it was given up, who reads along."""

    request: Request
    deadline: float
    cancelled: Callable[[], bool]
    on_text: Callable[[str], None] | None

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()


class SpatialQueryEngine:
    """Answers questions about what a memory holds. Safe to use from several threads.

    memory: what was seen. sensor: error model of the camera; that of the memory, if it has one, comes first.
    T_zup_from_world: world to a frame with z up and the floor at z = 0, where that is known; else both are found in the
    frames. lookup: transforms to frames other than the fixed one and the cameras. parser: with wordings of one's own.
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
        parser: QuestionParser | None = None,
        model: ModelBackend | None = None,
        unplaced: UnplacedFrames | None = None,
        age_s: Callable[[int], float] = lambda stamp_ns: 0.0,
        doubts: Callable[[], Sequence[Doubt]] = lambda: (),
    ) -> None:
        self.memory = memory
        self.sensor = sensor or SensorModel()
        self.config = config or QueryConfig()
        self.parser = parser or QuestionParser()
        self.levels = LevelCache(T_zup_from_world, self.config.level_frames)
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
    ) -> Answer:
        """The answer, or the error code that says why there is none. Never raises for what a caller sends.

        cancelled: asked between steps; the answer is CANCELLED once it returns true. on_text: given the text of a model
        that answers alone, piece by piece as it comes; the answer that is returned is the one that counts.
        """
        begin = time.monotonic()
        try:
            limit = request.timeout / 1e9 if request.timeout > 0 else self.config.timeout_s
            answer = self._answer(_Call(request, begin + limit, cancelled, on_text))
        except QueryError as error:
            answer = Answer(error_code=error.code, error_msg=str(error))
        except Exception as error:
            log.exception("question %r failed", request.question[:200])
            answer = Answer(error_code=ErrorCode.UNKNOWN, error_msg=f"internal error, see the log: {error!r}")
        stamps = [e.stamp_ns for e in answer.evidence]
        elsewhere = answer.time_queued + answer.time_selecting + answer.time_encoding
        return replace(
            answer,
            first_stamp=min(stamps, default=0),
            last_stamp=max(stamps, default=0),
            time_generating=max(int((time.monotonic() - begin) * 1e9) - elsewhere, 0),
        )

    def needs_model(self, request: Request) -> bool:
        """Whether the answer may wait for the model, so that what geometry alone answers need not queue behind it.

        Reads the question and no more.
        """
        if self.model is None:
            return False
        try:
            return is_for_a_model(request, self._parse(request))
        except QueryError:
            return False

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

    def _parse(self, request: Request) -> ParsedQuestion | None:
        _check(request)
        return self.parser.parse(
            request.question, len(request.points), len(request.boxes), len(request.times), request.choices
        )

    def _answer(self, call: _Call) -> Answer:
        request = call.request
        parsed = self._parse(request)
        if len(self.memory) == 0:
            return self._without_memory(call, parsed)
        if parsed is None:
            return self._free_form(call)
        may_ask = is_for_a_model(request, parsed)
        try:
            measured = self._measured(call, parsed)
        except QueryError as error:
            if self.model is None or not may_ask or error.code not in GEOMETRY_CANNOT_TELL:
                raise
            return self._instead(self.model, call, parsed, error)
        if self.model is not None and may_ask and self.config.cross_check_with_model:
            return self._checked(self.model, call, parsed, measured)
        return measured

    def _without_memory(self, call: _Call, parsed: ParsedQuestion | None) -> Answer:
        """A model's answer from images that nothing places, where there are some; nothing can be measured."""
        refused = ", ".join(f"{n} {reason}" for reason, n in self.memory.refused.most_common())
        error = QueryError(
            ErrorCode.NO_FRAMES,
            "nothing has been seen yet: no frame is in memory" + (f" (refused: {refused})" if refused else ""),
        )
        if not self._unplaced:
            raise error
        if parsed is None:
            return self._free_form(call)
        error = QueryError(
            ErrorCode.NO_FRAMES,
            f"nothing can be measured in images without poses{f' (refused: {refused})' if refused else ''}: give poses, or "
            "let geometry from colour find them (--rgb-geometry)",
        )
        if self.model is None or not is_for_a_model(call.request, parsed):
            raise error
        return self._instead(self.model, call, parsed, error)

    def _measured(self, call: _Call, parsed: ParsedQuestion) -> Answer:
        """Geometry's answer. Anew where what is held was placed or scaled anew meanwhile: the two do not mix."""
        while True:
            epoch = self.memory.epoch
            try:
                answer = self._measured_once(call, parsed)
            except QueryError as error:
                if self.memory.epoch == epoch or error.code in (ErrorCode.TIMEOUT, ErrorCode.CANCELLED):
                    raise
            else:
                if self.memory.epoch == epoch:
                    return answer

    def _measured_once(self, call: _Call, parsed: ParsedQuestion) -> Answer:
        scale = self.memory.scale
        require_metres(scale, parsed.family)
        context = Context(
            call.request,
            parsed,
            self.memory,
            self.memory.sensor or self.sensor,
            self.config,
            self.levels,
            self.lender,
            self._lookup,
            call.deadline,
            call.cancelled,
            self._age_s,
        )
        context.check()
        doubts = that_count(self._doubts(), parsed.family)
        try:
            answer = in_metres(HANDLERS[parsed.family](context), scale)
            answer = without_metres(choose(answer, call.request, self.config.min_confidence), scale)
        except QueryError as error:
            raise because_of(error, doubts) from error
        return doubted(answer, doubts, self.config.min_confidence)

    def _free_form(self, call: _Call) -> Answer:
        """The answer to a question that geometry does not read."""
        unknown = ", ".join(map(repr, self.parser.unknown_words(call.request.question)[:5]))
        hint = f"; words that no measurement knows: {unknown}" if unknown else ""
        if is_marked(call.request, None):
            raise QueryError(ErrorCode.INVALID_REQUEST, MARKS_HELP + hint)
        if self.model is None:
            raise QueryError(ErrorCode.NO_MODEL, NO_MODEL_HELP + hint)
        return self._judged(self.model, call)

    def _judged(self, model: ModelBackend, call: _Call, unit: str = "") -> Answer:
        """The model's answer, where it is sure enough. unit: see ModelBackend.answer."""
        answer = model.answer(
            call.request,
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

    def _instead(self, model: ModelBackend, call: _Call, parsed: ParsedQuestion, error: QueryError) -> Answer:
        """The model's answer to what geometry reads but cannot tell (``error``)."""
        try:
            return self._judged(model, call, self._unit_to_tell(call, parsed))
        except QueryError as other:
            if other.code == ErrorCode.CANCELLED:
                raise
            raise QueryError(error.code, f"{error}; nor does the model answer: {in_one_line(str(other))}") from other

    def _checked(self, model: ModelBackend, call: _Call, parsed: ParsedQuestion, measured: Answer) -> Answer:
        """Geometry's answer, confirmed or doubted by the model where that answers soon enough."""
        # a fifth of the time left is kept for the way back: what is measured must not be lost to a model that overruns
        limit = min(self.config.cross_check_timeout_s, 0.8 * call.left_s)
        if limit <= 0:
            return unchecked(measured, "there was no time")
        try:
            judged = model.answer(
                call.request,
                self.memory,
                self.config,
                timeout_s=limit,
                cancelled=call.cancelled,
                unit=self._unit_to_tell(call, parsed),
                only_if_ready=True,
            )
            together = both(measured, judged, parsed.unit, self.config.model_trust, len(call.request.choices))
        except QueryError as error:
            if error.code == ErrorCode.CANCELLED:
                raise
            return unchecked(measured, str(error))
        except Exception as error:
            log.exception("the model failed at %r", call.request.question[:200])
            return unchecked(measured, f"internal error, see the log: {error!r}")
        return together or unchecked(measured, f"it says {judged.answer!r}")

    def _unit_to_tell(self, call: _Call, parsed: ParsedQuestion) -> str:
        """The unit that a question means but does not name."""
        return "" if parsed.unit or call.request.choices else self.parser.table.families[parsed.family].unit


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
