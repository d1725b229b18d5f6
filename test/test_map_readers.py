"""What is read from the map: an empty room of which all is known, and rendered houses with exact truth."""

from dataclasses import replace

import numpy as np
import pytest
from map_scene import walk
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.memory.map import extents, routes, space
from spatial_mllm_ros.memory.map.occupancy_map import OccupancyMap
from spatial_mllm_ros.memory.map.rooms import find_rooms
from spatial_mllm_ros.memory.map.snapshot import State
from spatial_mllm_ros.memory.map.upright import UprightCache, upright
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import make_transform

AREA = 4.0 * 3.0


def mapped(frames):
    m = OccupancyMap()
    for i, f in enumerate(frames):
        m.integrate(i, f)
    return m.snapshot()


@pytest.fixture(scope="module")
def room():
    return upright(mapped(walk()))


def close(measure, truth, deviations=3.0):
    return abs(measure.value - truth) <= deviations * measure.stddev


def test_an_empty_room_has_its_sides_its_area_and_its_ceiling(room):
    length, width, height = extents.extents(room)
    assert close(length, 4.0), length
    assert close(width, 3.0), width
    assert close(height, 2.5), height
    assert max(length.stddev, width.stddev, height.stddev) < 0.05
    plan = find_rooms(room)
    assert len(plan.rooms) == 1
    assert not plan.doors
    found = plan.rooms[0]
    assert found.known
    assert found.visited
    assert close(extents.area(plan), AREA), found.area_m2
    assert close(extents.outline_area(room), AREA)
    assert extents.area(plan).stddev < 0.05 * AREA
    assert extents.floor_seen(room).value < AREA + 0.3


def test_a_room_in_a_world_that_leans_is_measured_upright():
    T = make_transform(Rotation.from_euler("xyz", (12, -7, 30), degrees=True).as_matrix(), (3.0, -2.0, 1.0))
    up = upright(mapped(walk(T)))
    length, width, height = extents.extents(up)
    assert close(length, 4.0), length
    assert close(width, 3.0), width
    assert close(height, 2.5), height
    assert close(extents.area(find_rooms(up)), AREA)
    back = up.from_world @ T  # room to upright frame: z is the room's z
    np.testing.assert_allclose(back[2], (0, 0, 1, 0), atol=0.01)


def test_little_of_a_room_that_was_looked_at_from_three_places_is_unseen(room):
    found = extents.unseen(find_rooms(room))
    assert found.share.value < 0.1
    assert extents.unseen(find_rooms(room), near_m=0.5).share.value <= found.share.value + 0.05


def test_a_place_is_free_occupied_or_unknown_with_a_probability(room):
    s = room.snapshot
    state, probability = space.occupancy(s, (0.3, 0.1, 1.0))
    assert (state, probability > 0.9) == (State.FREE, True)
    assert space.occupancy(s, (8.0, 0.0, 1.0))[0] is State.UNKNOWN
    on_wall = [space.occupancy(s, (x, 0.0, 1.0))[0] for x in (1.98, 2.02)]
    assert State.OCCUPIED in on_wall


def test_sight_ends_at_a_wall_and_what_lies_beyond_is_not_claimed(room):
    s = room.snapshot
    assert space.line_of_sight(s, (-1.5, 0.0, 1.0), (1.5, 0.5, 1.2))[0] is space.Sight.CLEAR
    sight, _, where = space.line_of_sight(s, (0.0, 0.0, 1.0), (4.0, 0.0, 1.0))
    assert sight is space.Sight.BLOCKED
    assert abs(where[0] - 2.0) < 0.1
    assert space.line_of_sight(s, (5.0, 0.0, 1.0), (7.0, 0.0, 1.0))[0] is space.Sight.UNKNOWN


def test_a_box_fits_where_all_of_it_is_free_and_nowhere_else(room):
    assert space.fits(room, (0.5, 0.3, 0.0), (0.8, 0.6, 1.5)).state is State.FREE
    assert space.fits(room, (1.9, 0.0, 0.0), (0.8, 0.6, 1.5)).state is State.OCCUPIED
    assert space.fits(room, (0.0, 0.0, 0.0), (0.5, 0.5, 2.8)).state is State.OCCUPIED, "through the ceiling"
    assert space.fits(room, (6.0, 0.0, 0.0), (0.5, 0.5, 0.5)).state is State.UNKNOWN
    long = space.fits(room, (0.0, 0.0, 0.1), (3.6, 0.3, 0.3))
    assert (long.state, abs(np.sin(long.yaw)) < 0.1) == (State.FREE, True), "it fits along the room only"
    with pytest.raises(ValueError, match="three sides"):
        space.fits(room, (0, 0, 0), (1.0, 0.0, 1.0))


def test_headroom_is_the_ceiling_s_height_and_what_was_not_seen_is_not_claimed(room):
    found, ended = space.headroom(room, (0.6, 0.4))
    assert ended
    assert close(found, 2.5), found
    assert not space.headroom(room, (9.0, 0.0))[1]


def test_a_floor_is_level_and_a_wall_is_not(room):
    floor = space.patch(room, (0.5, 0.5, 0.0))
    assert close(floor.slope_rad, 0.0)
    assert floor.roughness_m < 0.01
    assert close(space.patch(room, (2.0, 0.2, 1.2)).slope_rad, np.pi / 2)
    with pytest.raises(ValueError, match="too little"):
        space.patch(room, (0.0, 0.0, 1.2))


def test_a_free_patch_is_found_at_the_height_that_is_asked_for(room):
    found = space.free_patch(room, (0.5, 0.4), (-0.05, 0.05))
    assert found is not None
    assert abs(found.middle[2]) < 0.02
    assert (np.abs(found.middle[:2]) < (1.8, 1.3)).all()
    assert space.free_patch(room, (0.5, 0.4), (0.7, 0.9)) is None
    assert space.free_patch(room, (0.5, 0.4), (-0.05, 0.05), near=(50.0, 0.0), reach_m=1.0) is None


def test_clearance_is_the_distance_to_the_nearest_wall(room):
    distance, stddev, state = routes.clearance(room, (0.5, 0.6), 1.0)
    assert state is State.FREE
    assert abs(distance - 0.9) < 3 * stddev
    assert routes.clearance(room, (0.5, 9.0), 1.0)[0] == 0.0
    assert routes.clearance(room, (0.5, 9.0), 1.0)[2] is State.UNKNOWN


def test_a_way_across_an_empty_room_is_straight(room):
    found, why = routes.route(room, (-1.4, -0.9), (1.4, 0.9), 0.25, 1.0)
    assert why is None
    assert abs(found.length_m - np.hypot(2.8, 1.8)) < 2 * found.length_stddev_m
    np.testing.assert_allclose(found.poses[[0, -1], :2], [(-1.4, -0.9), (1.4, 0.9)], atol=0.06)
    assert found.narrowest_m > 0.5


@pytest.mark.parametrize(
    ("goal", "radius", "why"),
    [
        ((30.0, 0.0), 0.25, routes.Why.GOAL_UNKNOWN),
        ((3.5, 0.0), 0.25, routes.Why.GOAL_UNKNOWN),
        ((2.0, 1.5), 1.4, routes.Why.GOAL_NOT_FREE),
        ((1.0, 0.0), 2.0, routes.Why.START_NOT_FREE),
    ],
)
def test_no_way_leads_into_a_wall_or_into_the_unknown(room, goal, radius, why):
    assert routes.route(room, (0.0, 0.0), goal, radius, 1.0) == (None, why)
    reached, probability = routes.reachable(room, (0.0, 0.0), goal, radius, 1.0)
    assert not reached
    assert (probability > 0.6) == (why in (routes.Why.START_NOT_FREE, routes.Why.GOAL_NOT_FREE)), (
        "the unknown is not told"
    )


@pytest.mark.parametrize(("radius", "height"), [(0.0, 1.0), (100.0, 1.0), (0.3, 0.0), (0.3, np.nan), (np.inf, 1.0)])
def test_a_robot_that_cannot_be_is_refused(room, radius, height):
    with pytest.raises(ValueError, match="a robot's"):
        routes.route(room, (0, 0), (1, 0), radius, height)


def test_an_empty_map_knows_nothing_and_says_so():
    up = upright(OccupancyMap().snapshot())
    assert find_rooms(up).rooms == ()
    assert routes.route(up, (0, 0), (1, 0), 0.3, 1.0) == (None, routes.Why.START_UNKNOWN)
    assert space.occupancy(up.snapshot, (0, 0, 0))[0] is State.UNKNOWN
    assert space.headroom(up, (0, 0))[1] is False
    assert space.fits(up, (0, 0, 0), (1, 1, 1)).state is State.UNKNOWN
    assert space.free_patch(up, (0.5, 0.5), (0, 1)) is None
    assert extents.unseen(find_rooms(up)).share.value == 1.0
    with pytest.raises(ValueError, match="no floor"):
        extents.floor_seen(up)
    assert extents.outline_area(up).value == 0.0


def test_up_and_floor_are_found_again_when_poses_were_corrected_or_much_was_added():
    frames = walk()
    m = OccupancyMap()
    for i, f in enumerate(frames[:48]):
        m.integrate(i, f)
    cache = UprightCache()
    first = cache.of(m.snapshot())
    assert cache.of(m.snapshot()) is first
    m.integrate(48, frames[48])
    again = cache.of(m.snapshot())
    assert again is not first
    assert again.gravity is first.gravity
    raised = make_transform(np.eye(3), (0, 0, 1.0))
    m.correct({i: raised @ f.T_world_camera for i, f in enumerate(frames[:49])})
    corrected = cache.of(m.snapshot())
    assert abs(corrected.from_world[2, 3] - (first.from_world[2, 3] - 1.0)) < 0.01
    for i, f in enumerate(frames[49:], 49):
        m.integrate(i, replace(f, T_world_camera=raised @ f.T_world_camera))
    assert cache.of(m.snapshot()).gravity is not corrected.gravity


# ---- rendered houses


@pytest.fixture(scope="module")
def house():
    pytest.importorskip("embreex")
    from spatial_mllm_ros.simulation.rendered import RenderedSource

    source = RenderedSource(seed=611, rooms=2, frames=220, rate_hz=3.2, width=320, height=240)
    frames = []
    for i in range(220):
        view = source.view(i, color=False)
        T = source.sensor.pose(source.true_pose(i), i)
        frames.append(Frame(int(source.stamps[i]), "camera", source.camera, None, source.sensor.depth(view, i), T))
    return source, upright(mapped(frames))


def test_rooms_of_a_house_have_their_number_area_and_door(house):
    source, up = house
    plan = find_rooms(up)
    assert len(plan.rooms) == 2
    for true in source.house.rooms:
        found = plan.room_at(true.centre)
        assert found is not None
        assert found.visited
        assert abs(found.area_m2 - true.area) < 3 * found.area_stddev_m2, (found.area_m2, true.area)
    door, true = plan.doors[0], source.house.doors[0]
    assert len(plan.doors) == 1
    assert np.linalg.norm(door.centre - true.centre) < 0.12
    assert abs(door.width_m - 0.9) < 0.05
    assert abs(door.across[true.axis]) > 0.95, "through it is across its wall"


def test_ways_through_a_house_keep_clear_of_everything_in_it(house):
    source, up = house
    spots = source.tour.poses[::20, :2, 3]
    for height in (0.4, 1.6):
        obstacles = exact_obstacles(source.house, height)
        found = 0
        for a, b in zip(spots[:-1], spots[::-1], strict=False):
            way, _ = routes.route(up, a, b, 0.25, height)
            if way is None:
                continue
            found += 1
            steps = np.linspace(0, 1, 40)[:, None]
            legs = [p + steps * (q - p) for p, q in zip(way.poses[:-1, :2], way.poses[1:, :2], strict=True)]
            points = np.concatenate([*legs, way.poses[-1:, :2]])
            assert obstacles.query(points)[0].min() > 0.25 - 0.03
        assert found >= 3


def exact_obstacles(house, height_m):
    """All that stands between the floor and a height: points 2 cm apart on its triangles, from above."""
    from scipy.spatial import cKDTree

    a, b = (g.ravel() for g in np.meshgrid(np.linspace(0, 1, 18), np.linspace(0, 1, 18)))
    a, b = a[a + b <= 1], b[a + b <= 1]
    points = []
    for thing in house.things:
        if thing.category not in ("floor", "ceiling"):
            for mesh in thing.meshes:
                c = mesh.corners
                p = c[:, :1] + a[:, None] * (c[:, 1:2] - c[:, :1]) + b[:, None] * (c[:, 2:] - c[:, :1])
                points.append(p.reshape(-1, 3))
    p = np.concatenate(points)
    return cKDTree(p[(p[:, 2] > 0.04) & (p[:, 2] < height_m), :2])
