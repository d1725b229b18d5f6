"""Questions about one image that nothing places: what it shows is measured in its own camera's frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spatial_mllm_ros.memory.single import SingleImages
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.memory.view import MemoryView
from spatial_mllm_ros.queries.answer import ImageBox, ImagePoint, Request
from spatial_mllm_ros.queries.codes import ErrorCode, QueryError
from spatial_mllm_ros.queries.moments import MarkMoment, Moment
from spatial_mllm_ros.queries.query import Query, terms

_SAME_IMAGE_NS = 1000
WITHOUT_POSE = (
    "the image came without a pose, so only what it shows by itself can be measured: depth, distances and sizes between "
    "marks in one image. For more give poses (TF or pose_topic at the images' stamps, pose files), or set static for a camera "
    "that does not move"
)


def alone(request: Request, query: Query, seen: MemoryView) -> MemoryView | None:
    """A view of nothing but the one image without a pose in which everything was marked; None where poses are known.

    Raises QueryError (NO_FRAMES, with what poses are needed for) where more than that image is asked about.
    """
    marks: Sequence[ImagePoint | ImageBox] = (*request.points, *request.boxes)
    single: SingleImages = seen.single
    if not marks or not len(single):
        return None
    found: dict[int, StoredFrame] = {}
    placed = 0
    for mark in marks:
        if seen.nearest(mark.stamp_ns, mark.camera_frame, _SAME_IMAGE_NS) is not None:
            placed += 1
            continue
        stored = single.nearest(mark.stamp_ns, mark.camera_frame, _SAME_IMAGE_NS)
        if stored is not None:
            found[stored.frame_id] = stored
    if not found:
        return None
    elsewhere = any(isinstance(t, Moment) and not isinstance(t, MarkMoment) for t in terms(query))
    if placed or len(found) > 1 or elsewhere or request.times:
        raise QueryError(ErrorCode.NO_FRAMES, WITHOUT_POSE)
    (stored,) = found.values()
    frame = stored.frame
    memory = SpatialMemory(clock=lambda: frame.stamp_ns, first_id=stored.frame_id)
    memory.add(
        replace(frame, T_world_camera=np.eye(4), world_frame=frame.camera_frame)
    )  # its own camera is all it knows
    return memory.snapshot()
