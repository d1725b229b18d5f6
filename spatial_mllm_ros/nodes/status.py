"""How the parts of a live engine fare, as /diagnostics and the log have it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spatial_mllm_ros.nodes.diagnosis import QueryStatus, StreamStatus
from spatial_mllm_ros.nodes.inbox import Inbox, Kind, Stream
from spatial_mllm_ros.nodes.intake import Intake
from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.nodes.queries import QueryPool
from spatial_mllm_ros.nodes.streams import pose_stream
from spatial_mllm_ros.sources.topics import POSE_TYPES


def stream_statuses(
    inbox: Inbox, intake: Intake, mismatches: Mapping[Stream, str], settings: Settings
) -> tuple[StreamStatus, ...]:
    """Of every input; of poses too where their topic is set and its type is not known yet."""
    streams = tuple(
        StreamStatus(
            stream,
            inbox.received[stream],
            inbox.dropped[stream],
            inbox.waiting(stream),
            inbox.rate_hz(stream),
            inbox.silent_s(stream),
            {reason: n for (s, reason), n in intake.refused.items() if s == stream},
            intake.faults.get(stream, ""),
            mismatches.get(stream, ""),
        )
        for stream in inbox.streams
    )
    if settings.pose_topic and not any(s.stream.kind is Kind.POSE for s in streams):
        streams += (StreamStatus(pose_stream(settings, POSE_TYPES[0]), 0, 0, 0, 0.0, None, {}),)
    return streams


def query_status(pool: QueryPool) -> QueryStatus:
    """Of the questions that a pool answers."""
    latencies = pool.latencies_s()
    return QueryStatus(
        dict(pool.answered),
        pool.waiting,
        pool.running,
        *(float(np.percentile(latencies, p)) if latencies else 0.0 for p in (50, 95, 99)),
    )


