"""Things that roll through a rendered house, and the points tracked on them."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_ros.simulation.rendered import TRACKED_POINTS, RenderedSource
from spatial_mllm_ros.simulation.truth import make_questions
from spatial_mllm_ros.sources.source import SourceError

pytest.importorskip("embreex")

SPEC = "rendered:seed=2,rooms=2,frames=12,rate=1,size=160x120"


@pytest.fixture(scope="module")
def source() -> RenderedSource:
    return RenderedSource.from_spec(f"{SPEC},moving=3,still=on")


def test_a_visible_tracked_point_lies_on_the_thing_that_it_belongs_to(source: RenderedSource) -> None:
    tracks, camera, things = source.tracks, source.camera, len(source.house.things)
    assert tracks is not None
    assert tracks.visible.sum() > 30
    right = 0
    for frame in range(12):
        view, T = source.view(frame, color=False), np.linalg.inv(source.true_pose(frame))
        for point in np.flatnonzero(tracks.visible[frame]):
            x, y, z = T[:3, :3] @ tracks.world[frame, point] + T[:3, 3]
            u, v = round(camera.fx * x / z + camera.cx), round(camera.fy * y / z + camera.cy)
            right += int(view.thing[v, u] == things + point // TRACKED_POINTS)
    assert right >= 0.97 * tracks.visible.sum(), "more than pixels at the silhouette are off"


def test_tracked_points_of_one_thing_keep_their_distances_and_rest_at_times(source: RenderedSource) -> None:
    tracks = source.tracks
    assert tracks is not None
    assert tracks.group is not None
    for label in np.unique(tracks.group):
        world = tracks.world[:, tracks.group == label]
        apart = np.linalg.norm(world[:, :, None] - world[:, None], axis=3)
        assert np.allclose(apart, apart[0], atol=1e-9)
        moved = np.linalg.norm(np.diff(world.mean(axis=1), axis=0), axis=1)
        assert moved.max() > 0.05
        assert moved.min() < 0.2 * moved.max()


def test_things_never_roll_into_one_another_or_out_of_their_room(source: RenderedSource) -> None:
    for seconds in np.linspace(0, 30, 200):
        at = np.array([mover.pose(float(seconds))[:2, 3] for mover in source.movers])
        apart = np.linalg.norm(at[:, None] - at[None], axis=2) + 9 * np.eye(len(at))
        assert apart.min() > 0.5
        inside = [any(((p > r.low) & (p < r.high)).all() for r in source.house.rooms) for p in at]
        assert all(inside)


def test_a_still_camera_tells_one_pose_and_a_house_at_rest_is_as_before(source: RenderedSource) -> None:
    poses = [source.frame(k).T_world_camera for k in (0, 5, 11)]
    assert all(np.array_equal(pose, poses[0]) for pose in poses)
    plain, moving = RenderedSource.from_spec(SPEC), RenderedSource.from_spec(f"{SPEC},moving=3")
    assert plain.tracks is None
    for k in (0, 7):
        a, b = plain.view(k), moving.view(k)
        other = b.thing != a.thing
        assert (b.thing[other] >= len(moving.house.things)).all()
        assert np.array_equal(a.image[~other], b.image[~other])


def test_the_truth_of_questions_is_refused_where_things_move(source: RenderedSource) -> None:
    with pytest.raises(SourceError, match="house at rest"):
        make_questions(source, 3)


@pytest.mark.parametrize("options", ["moving=13", "moving=-1", "moving=few", "still=yes"])
def test_movers_out_of_range_are_refused(options: str) -> None:
    with pytest.raises(SourceError, match=options.split("=", maxsplit=1)[0]):
        RenderedSource.from_spec(f"{SPEC},{options}")
