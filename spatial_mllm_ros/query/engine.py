"""From a Request to an Answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.query.answer import Answer, Request
from spatial_mllm_ros.query.choices import choose
from spatial_mllm_ros.query.codes import ErrorCode, QueryError
from spatial_mllm_ros.query.context import Context, QueryConfig, TransformLookup
from spatial_mllm_ros.query.geometry import bearing, motion, points, rooms, sizes, views
from spatial_mllm_ros.query.parser import QuestionParser
from spatial_mllm_ros.query.space import DepthLender, LevelCache
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
    "a free-form question needs a model and none is loaded: a Spatial-MLLM checkpoint such as "
    "Diankun/Spatial-MLLM-v1.1-Instruct-135K and the extra spatial_mllm_ros[model], which this version cannot load yet. "
    "Geometry answers the questions in docs/questions.md"
)


class SpatialQueryEngine:
    """Answers questions about what a memory holds. Safe to use from several threads.

    memory: what was seen. sensor: error model of the camera. T_zup_from_world: world to a frame with z up and the floor
    at z = 0, where that is known; else both are found in the frames. lookup: transforms to frames other than the fixed
    one and the cameras. parser: with wordings of one's own.
    """

    def __init__(
        self,
        memory: SpatialMemory,
        sensor: SensorModel | None = None,
        config: QueryConfig | None = None,
        T_zup_from_world: Transform | None = None,
        lookup: TransformLookup | None = None,
        parser: QuestionParser | None = None,
    ) -> None:
        self.memory = memory
        self.sensor = sensor or SensorModel()
        self.config = config or QueryConfig()
        self.parser = parser or QuestionParser()
        self.levels = LevelCache(T_zup_from_world, self.config.level_frames)
        self.lender = DepthLender()
        self._lookup = lookup

    def answer(self, request: Request, cancelled: Callable[[], bool] = lambda: False) -> Answer:
        """The answer, or the error code that says why there is none. Never raises for what a caller sends.

        cancelled: asked between steps; the answer is CANCELLED once it returns true.
        """
        begin = time.monotonic()
        try:
            answer = self._answer(request, begin, cancelled)
        except QueryError as error:
            answer = Answer(error_code=error.code, error_msg=str(error))
        except Exception as error:
            log.exception("question %r failed", request.question[:200])
            answer = Answer(error_code=ErrorCode.UNKNOWN, error_msg=f"internal error, see the log: {error!r}")
        stamps = [e.stamp_ns for e in answer.evidence]
        return replace(
            answer,
            first_stamp=min(stamps, default=0),
            last_stamp=max(stamps, default=0),
            time_generating=int((time.monotonic() - begin) * 1e9),
        )

    def _answer(self, request: Request, begin: float, cancelled: Callable[[], bool]) -> Answer:
        _check(request)
        parsed = self.parser.parse(
            request.question, len(request.points), len(request.boxes), len(request.times), request.choices
        )
        if len(self.memory) == 0:
            refused = ", ".join(f"{n} {reason}" for reason, n in self.memory.refused.most_common())
            raise QueryError(
                ErrorCode.NO_FRAMES,
                "nothing has been seen yet: no frame is in memory" + (f" (refused: {refused})" if refused else ""),
            )
        if parsed is None:
            unknown = ", ".join(map(repr, self.parser.unknown_words(request.question)[:5]))
            hint = f"; words that no measurement knows: {unknown}" if unknown else ""
            raise QueryError(ErrorCode.NO_MODEL, NO_MODEL_HELP + hint)
        timeout = request.timeout / 1e9 if request.timeout else self.config.timeout_s
        context = Context(
            request,
            parsed,
            self.memory,
            self.sensor,
            self.config,
            self.levels,
            self.lender,
            self._lookup,
            begin + timeout,
            cancelled,
        )
        context.check()
        return choose(HANDLERS[parsed.family](context), request, self.config.min_confidence)


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
