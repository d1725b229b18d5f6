"""Requests built by a program."""

from __future__ import annotations

import pytest

from spatial_mllm_ros.queries.answer import ImageBox, ImagePoint, Request
from spatial_mllm_ros.queries.asks import Comparison, Extreme, Locate, Threshold, Value, Which
from spatial_mllm_ros.queries.builders import Questions
from spatial_mllm_ros.queries.measures import Distance, Height, PathLength
from spatial_mllm_ros.queries.moments import Ago, Now, Span, Stamp
from spatial_mllm_ros.queries.operands import Box, Camera, Floor, Object, Point
from spatial_mllm_ros.queries.query import Query

A, B = ImagePoint(5, "camera", 10, 20), ImagePoint(5, "camera", 30, 40)
BOX = ImageBox(5, "camera", 1, 2, 3, 4)
ASK: Questions[Request] = Questions(lambda request: request)


def test_marks_are_numbered_in_the_order_in_which_they_are_named() -> None:
    request = ASK.distance(A, B, unit="ft")
    assert request.points == (A, B)
    assert request.query == Query(ask=Value(of=Distance(a=Point(index=0), b=Point(index=1))), unit="ft")


def test_the_nearest_is_the_smallest_of_distances() -> None:
    request = ASK.nearest([A, B], to=BOX)
    assert (request.points, request.boxes) == ((A, B), (BOX,))
    assert isinstance(request.query.ask, Extreme)  # type: ignore[union-attr]
    assert request.query.ask.which is Which.SMALLEST  # type: ignore[union-attr]


def test_the_same_mark_is_one_point() -> None:
    assert ASK.direction(A, standing_at=B, facing=A).points == (A, B)


def test_without_a_second_thing_the_camera_is_meant() -> None:
    assert ASK.distance(A).query == Query(ask=Value(of=Distance(a=Point(index=0), b=Camera())))
    assert ASK.height(BOX).query == Query(ask=Value(of=Height(of=Box(index=0), above=Floor())))


def test_a_string_names_an_object() -> None:
    request = ASK.within("mug", A, 0.8)
    threshold = Threshold(
        of=Distance(a=Object(name="mug"), b=Point(index=0)), comparison=Comparison.AT_MOST, value=0.8
    )
    assert request.query == Query(ask=threshold)


def test_a_moment_is_a_stamp_seconds_ago_or_now() -> None:
    assert ASK.camera_pose(7).query == Query(ask=Locate(of=Camera(at=Stamp(stamp_ns=7))))
    assert ASK.camera_pose(60.0).query == Query(ask=Locate(of=Camera(at=Ago(seconds=60))))
    assert ASK.path_length(60.0).query == Query(ask=Value(of=PathLength(span=Span(begin=Ago(seconds=60), end=Now()))))


def test_fields_of_the_request_are_passed_on() -> None:
    request = ASK.locate(A, frame_id="map", timeout=5)
    assert request.timeout == 5
    assert request.query is not None
    assert request.query.frame_id == "map"


def test_what_is_no_thing_and_no_moment_is_refused() -> None:
    with pytest.raises(TypeError, match="give an ImagePoint"):
        ASK.locate(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give a stamp"):
        ASK.camera_pose(True)
