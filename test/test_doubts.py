"""What is doubted about a recording: told, in the confidence of answers, and refused where it is nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from spatial_mllm_ros.queries.answer import Request
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, invert
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.bag import BagSource
from spatial_mllm_ros.sources.bag_writer import BagFormat, write_bag

QUESTION = Request(question="How long is the path that the camera travelled?")


class Simulated(RenderedSource):
    """A walk whose images are stamped with a frame of which x is forward, as simulators do."""

    def frames(self) -> Iterator[Frame]:
        for frame in super().frames():
            yield replace(
                frame, T_world_camera=frame.T_world_camera @ invert(T_BODY_OPTICAL), camera_frame="sim_camera"
            )


@pytest.fixture(scope="module")
def walk() -> RenderedSource:
    return RenderedSource(seed=4, rooms=1, frames=60, width=96, height=72)


def test_a_doubt_lowers_the_confidence_and_nonsense_is_refused(walk):
    session = Session(walk)
    session.stream()
    sure = session.engine.answer(QUESTION)
    assert sure.error_code == ErrorCode.NONE
    walk.doubts.append(Doubt(kind="tf", text="two publishers", remedy="stop one", confidence=0.5))
    unsure = session.engine.answer(QUESTION)
    assert unsure.value == sure.value
    assert unsure.confidence == pytest.approx(sure.confidence / 2)
    walk.doubts.append(Doubt(kind="axes", text="wrong axes", remedy="set image_frame", confidence=0.1))
    refused = session.engine.answer(QUESTION)
    assert refused.error_code == ErrorCode.ABSTAINED
    assert "wrong axes: set image_frame" in refused.error_msg
    walk.doubts.clear()


def test_a_bag_whose_images_are_stamped_with_a_body_frame(tmp_path, walk):
    """Read as optical, nothing is measured in it, and the remedy is told; with the setting it is as it was."""
    source = Simulated(seed=4, rooms=1, frames=60, width=96, height=72)
    write_bag(source, tmp_path / "bag", BagFormat(compressed=False))
    answers, poses = {}, {}
    for image_frame in ("optical", "body"):
        recording = BagSource(tmp_path / "bag", InputSettings(image_frame=image_frame))
        session = Session(recording)
        session.stream()
        answers[image_frame] = session.engine.answer(QUESTION)
        poses[image_frame] = np.array([frame.T_world_camera for frame in recording.frames()])
    assert answers["optical"].error_code == ErrorCode.ABSTAINED
    assert "set image_frame to body" in answers["optical"].error_msg
    assert answers["body"].error_code == ErrorCode.NONE
    assert_allclose(poses["body"], [frame.T_world_camera for frame in walk.frames()], atol=1e-9)
