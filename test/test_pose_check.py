"""Poses that are not those of the images: told with what would fit, and no confident answers from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from spatial_mllm_ros.queries.answer import ImagePoint, Request
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, Transform, invert
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.simulation.rendered import RenderedSource

Change = Callable[[Frame], Frame]


class Walk(RenderedSource):
    def __init__(self, change: Change, rate_hz: float = 10.0) -> None:
        super().__init__(seed=4, rooms=1, frames=40, rate_hz=rate_hz, width=96, height=72, noise=True)
        self._change = change

    def frames(self) -> Iterator[Frame]:
        return map(self._change, super().frames())


def moved(change: Callable[[Transform], Transform]) -> Change:
    return lambda frame: replace(frame, T_world_camera=change(frame.T_world_camera))


def streamed(change: Change, rate_hz: float = 10.0) -> Session:
    session = Session(Walk(change, rate_hz), record_coverage=False)
    session.stream()
    return session


def in_millimetres(T: Transform) -> Transform:
    T = T.copy()
    T[:3, 3] *= 1000.0
    return T


def reciprocal(frame: Frame) -> Frame:
    with np.errstate(divide="ignore"):
        depth = np.where(frame.depth > 0, 2e6 / frame.depth, 0.0)
    return replace(frame, depth=depth.clip(0, 65000).astype(np.uint16))


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        (moved(lambda T: T @ np.diag([1.0, -1.0, -1.0, 1.0])), "poses", "OpenGL"),
        (moved(invert), "poses", "invert them"),
        (moved(lambda T: T @ invert(T_BODY_OPTICAL)), "image_frame", "image_frame to body"),
        (moved(lambda T: np.eye(4)), "poses", "of the image's moment"),
        (reciprocal, "poses", "proportional to the distance"),
        (moved(in_millimetres), "pose_unit", "pose_unit_m to 0.001"),
    ],
    ids=["opengl", "inverted", "body", "none but the origin", "inverse depth", "millimetres"],
)
def test_poses_that_depth_contradicts_are_doubted_and_give_no_confident_answer(
    change: Change, kind: str, word: str
) -> None:
    session = streamed(change)
    doubts = [doubt for doubt in session.doubts if doubt.kind == kind]
    assert len(doubts) == 1, session.doubts
    assert word in doubts[0].remedy
    frames = session.memory.frames()
    points = tuple(ImagePoint(f.frame.stamp_ns, f.frame.camera_frame, 48, 40) for f in (frames[5], frames[20]))
    answer = session.engine.answer(Request(question="How far apart are <p0> and <p1>?", points=points))
    assert answer.error_code == ErrorCode.ABSTAINED or answer.confidence <= 0.3


@pytest.mark.parametrize("rate_hz", [2.0, 10.0, 30.0])
def test_poses_of_the_images_are_not_doubted(rate_hz: float) -> None:
    assert streamed(lambda frame: frame, rate_hz).doubts == ()


def test_poses_without_depth_are_judged_by_their_speed() -> None:
    def change(frame: Frame) -> Frame:
        return replace(moved(in_millimetres)(frame), depth=None)

    assert [doubt.kind for doubt in streamed(change).doubts] == ["pose_unit"]
