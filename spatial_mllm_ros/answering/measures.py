"""Every quantity, and what measures it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spatial_mllm_ros.answering.context import Context
from spatial_mllm_ros.answering.geometry import motion, points, rooms, seen, surfaces
from spatial_mllm_ros.answering.measured import METRIC, Measured
from spatial_mllm_ros.answering.metres import POWER
from spatial_mllm_ros.queries import measures as q
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.queries.measures import Measure
from spatial_mllm_ros.scene.uncertainty import Errors

MEASURES: dict[type[Measure], Callable[[Context, Any], Measured]] = {
    q.Distance: points.distance,
    q.Depth: points.depth,
    q.Height: points.height,
    q.Angle: points.angle,
    q.Bearing: points.bearing,
    q.Extent: rooms.extent,
    q.Slope: surfaces.slope,
    q.PathLength: motion.path_length,
    q.Turn: motion.turn,
    q.Shift: motion.shift,
    q.Heading: motion.heading,
    q.Speed: motion.speed,
    q.MeanSpeed: motion.mean_speed,
    q.TimeSpent: motion.time_spent,
    q.ClosestApproach: motion.closest_approach,
    q.Elapsed: motion.elapsed,
    q.SeenTime: seen.seen_time,
    q.SeenDistance: seen.seen_distance,
    q.SeenCount: seen.seen_count,
    q.Count: seen.count,
    q.UnseenFraction: rooms.unseen_fraction,
}


def measure(c: Context, of: Measure) -> Measured:
    """A quantity with its errors, that of the metric scale among them. QueryError NOT_AVAILABLE where nothing measures it."""
    return c.once(("measure", of), lambda: _measure(c, of))


def _measure(c: Context, of: Measure) -> Measured:
    c.check()
    handler = MEASURES.get(type(of))
    if handler is None:
        raise QueryError(ErrorCode.NOT_AVAILABLE, f"nothing measures a {of.type_name.replace('_', ' ')} yet")
    own, scale = handler(c, of), c.memory.scale
    power = POWER.get(own.unit, 0)
    if scale is None or not scale.known or not power:
        return own

    def at(e: Errors) -> float:
        return own.at(e) * (1.0 + e.get(METRIC, 0.0)) ** power

    return Measured(**{**vars(own), "at": at, "stddevs": {**own.stddevs, METRIC: scale.stddev}})
