"""Images without poses: what one of them shows is measured, what takes poses is refused with what to do."""

from dataclasses import replace

import numpy as np
import pytest
from test_agreement import CAMERA, depth_at, walk

from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.memory.single import SingleImages
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.queries.answer import ImagePoint, Request
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.sensor import SensorModel

STEPS = list(walk(6))


def frame(i, posed=False):
    stamp, T = STEPS[i]
    return Frame(stamp, "camera", CAMERA, None, depth_at(T), T if posed else None)


@pytest.fixture
def engine():
    memory = SpatialMemory(clock=lambda: 10**18)
    for i in range(6):
        memory.add(frame(i))
    return SpatialQueryEngine(memory, SensorModel.exact())


def asked(engine, words, *marks, **more):
    return engine.answer(Request(words, points=tuple(ImagePoint(STEPS[i][0], "", u, v) for i, u, v in marks), **more))


def truth(i, u, v):
    return CAMERA.unproject((u, v)) * depth_at(STEPS[i][1])[v, u]


def test_depth_and_range_need_no_pose(engine):
    depth = asked(engine, "What is the depth of <p0>?", (2, 60, 50))
    assert depth.value == pytest.approx(depth_at(STEPS[2][1])[50, 60], abs=0.005)
    away = asked(engine, "How far is <p0> from the camera that saw it?", (2, 60, 50))
    assert away.value == pytest.approx(np.linalg.norm(truth(2, 60, 50)), abs=0.005)


def test_a_distance_within_one_image_needs_no_pose(engine):
    answer = asked(engine, "How far apart are <p0> and <p1>?", (3, 20, 40), (3, 120, 70))
    assert answer.error_code == ErrorCode.NONE
    assert answer.value == pytest.approx(np.linalg.norm(truth(3, 20, 40) - truth(3, 120, 70)), abs=0.01)
    assert answer.evidence[0].stamp_ns == STEPS[3][0]


@pytest.mark.parametrize(
    ("words", "marks"),
    [
        ("How far apart are <p0> and <p1>?", [(1, 20, 40), (3, 120, 70)]),
        ("How far is <p0> from the camera now?", [(3, 20, 40)]),
        ("How far did the camera travel?", []),
    ],
)
def test_what_takes_poses_says_which_and_how_to_give_them(engine, words, marks):
    answer = asked(engine, words, *marks)
    assert answer.error_code == ErrorCode.NO_FRAMES
    assert "pose" in answer.error_msg
    assert "static" in answer.error_msg


def test_which_way_is_up_is_not_made_up(engine):
    depth = np.full((CAMERA.height, CAMERA.width), 2.0, np.float32)  # a wall and nothing else
    engine.memory.add(replace(frame(0), stamp_ns=5, depth=depth))
    marks = (ImagePoint(5, "", 20, 40), ImagePoint(5, "", 80, 90))
    answer = engine.answer(Request("How much higher is <p0> than <p1>?", points=marks))
    assert answer.error_code == ErrorCode.NOT_SEEN
    assert "up" in answer.error_msg


def test_an_image_without_a_pose_among_others_is_measured_alone_and_never_placed(engine):
    memory = engine.memory
    memory.add(replace(frame(4, posed=True), stamp_ns=10**10))
    assert len(memory) == 1
    assert asked(engine, "What is the depth of <p0>?", (2, 60, 50)).error_code == ErrorCode.NONE
    marks = (ImagePoint(STEPS[2][0], "", 60, 50), ImagePoint(10**10, "", 60, 50))
    assert engine.answer(Request("How far apart are <p0> and <p1>?", points=marks)).error_code == ErrorCode.NO_FRAMES


def test_single_images_stay_bounded_and_keep_the_newest():
    held = SingleImages(max_frames=3)
    assert all(held.add(i, frame(i)) for i in range(6))
    assert not held.add(9, frame(5)), "a stamp twice"
    assert len(held) == 3
    assert held.latest().frame.stamp_ns == STEPS[5][0]
    assert held.nbytes == sum(frame(i).nbytes for i in (3, 4, 5))
    assert held.nearest(STEPS[0][0]) is None
