"""Rendered rooms: what is exact must be exact, what is noisy must be as noisy as stated."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.queries import asks, measures, moments, operands
from spatial_mllm_ros.queries.query import Query, points_of, terms
from spatial_mllm_ros.queries.serialization import from_json
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import apply, invert, rotation_angle
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.simulation.layout import House, Room, Thing, make_house, overlap
from spatial_mllm_ros.simulation.materials import Material
from spatial_mllm_ros.simulation.noise import DepthCamera, exact_depth
from spatial_mllm_ros.simulation.raycast import RayCaster, View
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.simulation.solids import Mesh, ball, box, cylinder, quad
from spatial_mllm_ros.simulation.tour import START_NS, camera_pose, make_tour
from spatial_mllm_ros.simulation.truth import WORDINGS, demo_questions, make_questions
from spatial_mllm_ros.simulation.typed import TYPED
from spatial_mllm_ros.sources.source import SourceError

pytest.importorskip("embreex", reason="there is no embreex wheel for this platform")

PLAIN = Material("plain", (200, 100, 50))


@pytest.fixture(scope="module")
def exact() -> RenderedSource:
    """Three rooms in 30 s, without noise."""
    return RenderedSource(seed=2, rooms=3, frames=90, rate_hz=3.0, width=320, height=240, noise=False)


@pytest.fixture(scope="module")
def small() -> RenderedSource:
    return RenderedSource(seed=5, rooms=2, frames=20, rate_hz=2.0, width=160, height=120)


def one_box_house() -> House:
    """A floor at z = 0 and a box of 1 x 2 x 0.5 m on it, nothing else."""
    floor = quad((-10, -10, 0), (20, 0, 0), (0, 20, 0), PLAIN)
    block = box((1.0, 2.0, 0.5), (3.0, 0.0, 0.25), PLAIN)
    things = (
        Thing("floor 1", "floor", "brown", 0, np.zeros(3), np.array([20.0, 20, 0]), 0.0, (floor,)),
        Thing("box 1", "box", "red", 0, np.array([3, 0, 0.25]), np.array([1.0, 2, 0.5]), 0.0, (block,), solid=True),
    )
    return House(0, 2.5, (Room("study", np.array([-10.0, -10]), np.array([10.0, 10])),), (), things)


# solids


def volume(mesh: Mesh) -> float:
    """Signed volume by the divergence theorem: right only when closed and with normals outward."""
    a, b, c = mesh.corners[:, 0], mesh.corners[:, 1], mesh.corners[:, 2]
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def test_solids_are_closed_and_face_outward() -> None:
    assert volume(box((1, 2, 0.5), (4, 5, 6), PLAIN)) == pytest.approx(1.0)
    ring = 24 / 2 * np.sin(2 * np.pi / 24)  # area of a regular 24-gon of radius 1
    assert volume(cylinder(0.5, 2.0, (1, 1, 0), PLAIN, 24)) == pytest.approx(ring * 0.25 * 2)
    assert 0.85 < volume(ball(1.0, (0, 0, 3), PLAIN)) / (4 / 3 * np.pi) < 1.0


# layout


@pytest.mark.parametrize(("seed", "rooms"), [(0, 3), (1, 3), (7, 1), (3, 5)])
def test_nothing_intersects_and_everything_stands_on_something(seed: int, rooms: int) -> None:
    house = make_house(seed, rooms)
    assert (len(house.rooms), len(house.doors)) == (rooms, rooms - 1)
    assert len({t.name for t in house.things}) == len(house.things)
    pieces = [t for t in house.things if not t.is_structure]
    assert len(pieces) >= 6 * rooms
    for a, b in itertools.combinations(pieces, 2):
        apart_in_height = a.bottom >= b.top - 1e-6 or b.bottom >= a.top - 1e-6
        assert apart_in_height or not overlap(a.footprint(), b.footprint()), f"{a.name} and {b.name}"
    for a in pieces:
        room = house.rooms[a.room]
        assert (a.footprint() >= room.low - 1e-9).all(), a.name
        assert (a.footprint() <= room.high + 1e-9).all(), a.name
        assert a.top < house.ceiling
        hangs = a.category in ("picture", "window", "ceiling lamp")
        stands = abs(a.bottom) < 1e-9 or any(abs(a.bottom - b.top) < 1e-6 for b in pieces if b is not a)
        assert hangs or stands, a.name


def test_sizes_are_those_of_the_triangles() -> None:
    for thing in make_house(4, 2).things:
        if thing.is_structure:
            continue
        corners = np.concatenate([m.corners.reshape(-1, 3) for m in thing.meshes])
        c, s = np.cos(thing.yaw), np.sin(thing.yaw)
        local = (corners - thing.centre) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        np.testing.assert_allclose(local.max(axis=0), thing.size / 2, atol=1e-9)
        np.testing.assert_allclose(local.min(axis=0), -thing.size / 2, atol=1e-9)


def test_a_house_is_closed() -> None:
    """From the middle of every room every ray meets something, within the length of the house."""
    house = make_house(6, 3)
    caster = RayCaster(house)
    ways = np.random.default_rng(0).standard_normal((5000, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    for room in house.rooms:
        hits = caster.cast((*room.centre, house.ceiling - 0.3), ways)
        assert (hits.thing >= 0).all()
        assert hits.distance.max() < 25


def test_wrong_number_of_rooms() -> None:
    with pytest.raises(SourceError, match="1 to 12 rooms"):
        make_house(0, 0)


# ray casting


def test_depth_of_planes_and_a_box_is_analytic() -> None:
    """The floor and the box's front, from a camera 1 m high that looks along x and 0.3 rad down."""
    camera = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)
    T = camera_pose(np.array([0.0, 0.0, 1.0]), 0.0, -0.3)
    view = RayCaster(one_box_house()).render(camera, T)
    rays = camera.rays().reshape(-1, 3).astype(np.float64) @ T[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(rays[:, 2] < 0, -1.0 / rays[:, 2], np.inf)
        ends = T[:3, 3] + rays * depth[:, None]
        depth[(np.abs(ends[:, :2]) > 10).any(axis=1)] = np.inf
        thing = np.where(np.isfinite(depth), 0, -1)
        for axis, at in ((0, 2.5), (2, 0.5)):  # front and top of the box
            t = (at - T[axis, 3]) / rays[:, axis]
            p = T[:3, 3] + rays * t[:, None]
            on = (t > 0) & (t < depth) & (np.abs(p - (3, 0, 0.25)) <= np.array([0.5, 1.0, 0.25]) + 1e-9).all(axis=1)
            depth[on], thing[on] = t[on], 1
    np.testing.assert_array_equal(view.thing.ravel(), thing)
    met = thing >= 0
    np.testing.assert_allclose(view.depth.ravel()[met], depth[met], rtol=2e-6)
    assert (view.depth.ravel()[~met] == 0).all()
    floor = thing == 0
    lengths = np.linalg.norm(rays, axis=1)
    np.testing.assert_allclose(view.facing.ravel()[floor], -rays[floor, 2] / lengths[floor], rtol=1e-4)
    assert view.image is not None
    assert (view.image.reshape(-1, 3)[~met] == 0).all()
    assert view.image.reshape(-1, 3)[met].max() > 50


def test_single_rays_agree_with_the_image(small: RenderedSource) -> None:
    view = small.view(7, color=False)
    uv = np.random.default_rng(1).integers((0, 0), (160, 120), (200, 2))
    hits = small.caster.cast_pixels(small.camera, small.true_pose(7), uv)
    np.testing.assert_allclose(hits.distance, view.depth[uv[:, 1], uv[:, 0]], rtol=1e-5)
    np.testing.assert_array_equal(hits.thing, view.thing[uv[:, 1], uv[:, 0]])


def test_points_of_one_frame_lie_on_surfaces_in_the_others(exact: RenderedSource) -> None:
    """No camera may look through a point that another camera measured."""
    rays = exact.camera.rays(stride=8).reshape(-1, 3).astype(np.float64)
    for i, j in ((0, 3), (20, 24), (50, 61)):
        depth = exact.view(i, color=False).depth[4::8, 4::8].reshape(-1, 1)
        world = apply(exact.true_pose(i), rays * depth)
        centre = exact.true_pose(j)[:3, 3]
        hits = exact.caster.cast(centre, world - centre)
        assert hits.distance.max() < 1 + 1e-3
        seen = np.abs(hits.distance - 1) < 1e-5
        local = apply(invert(exact.true_pose(j)), world[seen])
        uv = exact.camera.project(local)
        inside = exact.camera.contains(uv)
        if i == 20:
            assert inside.sum() > 50
        again = exact.caster.cast_pixels(exact.camera, exact.true_pose(j), uv[inside]).distance
        np.testing.assert_allclose(again, local[inside, 2], rtol=1e-4)


def test_missing_embreex_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embreex.mesh_construction", None)
    with pytest.raises(SourceError, match="pip install embreex"):
        RayCaster(one_box_house())


# tour


@pytest.mark.parametrize(
    ("seed", "rooms", "frames", "rate"), [(0, 3, 300, 10.0), (1, 3, 300, 10.0), (4, 4, 5000, 10.0), (2, 2, 40, 2.0)]
)
def test_tour_is_a_plausible_walk_through_all_rooms(seed: int, rooms: int, frames: int, rate: float) -> None:
    house = make_house(seed, rooms)
    tour = make_tour(house, frames, rate, seed)
    p = tour.poses[:, :3, 3]
    assert set(tour.rooms.tolist()) == set(range(rooms))
    assert tour.stamps[0] == START_NS
    assert tour.stamps[-1] - tour.stamps[0] == round((frames - 1) / rate * 1e9)
    assert p[:, 2].min() > 1.0
    assert p[:, 2].max() < 1.5
    assert np.linalg.norm(np.diff(p, axis=0), axis=1).max() * rate < 1.0
    turns = [rotation_angle(invert(a) @ b) for a, b in itertools.pairwise(tour.poses)]
    assert np.degrees(max(turns)) * rate < 60
    # Nothing within arm's length at any height below the camera, and nothing between two poses.
    caster = RayCaster(house)
    around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ways = np.stack([np.cos(around), np.sin(around), np.zeros(24)], axis=1)
    for height in (0.1, 0.6, 1.2):
        starts = np.repeat(p[::4] * (1, 1, 0) + (0, 0, height), 24, axis=0)
        assert caster.cast(starts, np.tile(ways, (len(p[::4]), 1))).distance.min() > 0.15
    steps = np.diff(p, axis=0)
    assert caster.cast(p[:-1], steps).distance.min() > 1


def test_a_tour_too_short_for_all_rooms_keeps_its_pace() -> None:
    tour = make_tour(make_house(1, 4), 30, 10.0)
    assert np.linalg.norm(np.diff(tour.poses[:, :3, 3], axis=0), axis=1).max() * 10 < 1.0


@given(st.floats(-10, 10), st.floats(-1.4, 1.4), st.floats(-1, 1))
@settings(max_examples=30, deadline=None)
def test_camera_pose_is_optical(yaw: float, pitch: float, roll: float) -> None:
    T = camera_pose(np.array([1.0, 2, 3]), yaw, pitch, roll)
    np.testing.assert_allclose(T[:3, :3].T @ T[:3, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
    assert T[2, 2] == pytest.approx(np.sin(pitch))
    level = camera_pose(np.zeros(3), yaw, 0.0)
    np.testing.assert_allclose(level[:3, 1], (0, 0, -1), atol=1e-12)


# noise


def flat_view(depth: float, facing: float = 1.0) -> View:
    shape = (100, 120)
    return View(np.full(shape, depth, np.float32), np.zeros(shape, np.int16), np.full(shape, facing, np.float32))


@pytest.mark.parametrize("depth", [0.8, 2.0, 4.5])
def test_depth_noise_is_that_of_the_sensor_model(depth: float) -> None:
    sensor = SensorModel()
    images = np.stack([DepthCamera(sensor, seed=3).depth(flat_view(depth), i) for i in range(150)]) / 1000.0
    white = images.std(axis=(1, 2)).mean()
    common = images.mean(axis=(1, 2)).std()
    rounding = 0.001 / np.sqrt(12)
    assert white == pytest.approx(np.hypot(sensor.depth_white_stddev(depth), rounding), rel=0.03)
    assert common == pytest.approx(sensor.depth_correlated * depth, rel=0.2)
    assert images.mean() == pytest.approx(depth, abs=4 * common / np.sqrt(150))


def test_pose_noise_is_that_of_the_sensor_model() -> None:
    sensor = SensorModel()
    camera = DepthCamera(sensor, seed=1)
    T = camera_pose(np.array([1.0, 2, 3]), 0.7, -0.2)
    reported = [camera.pose(T, i) for i in range(600)]
    shift = np.array([R[:3, 3] - T[:3, 3] for R in reported])
    angles = np.array([rotation_angle(invert(T) @ R) for R in reported])
    assert shift.std() == pytest.approx(sensor.pose_position_m, rel=0.06)
    assert np.sqrt((angles**2).mean() / 3) == pytest.approx(sensor.pose_rotation_rad, rel=0.06)


def test_what_a_depth_camera_does_not_see() -> None:
    camera = DepthCamera()
    assert (camera.depth(flat_view(0.2), 0) == 0).all()
    assert (camera.depth(flat_view(7.0), 0) == 0).all()
    assert (camera.depth(flat_view(2.0, facing=0.05), 0) == 0).all()
    step = flat_view(2.0)
    step.depth[:, 60:] = 3.0
    lost = np.mean([camera.depth(step, i)[:, 59:61] == 0 for i in range(20)])
    between = np.mean([np.isin(camera.depth(step, i)[:, 59:61] // 100, np.arange(21, 29)) for i in range(20)])
    assert lost == pytest.approx(camera.share_lost, abs=0.05)
    assert between == pytest.approx(0.8 * camera.share_flying, abs=0.03)
    assert (camera.depth(step, 0)[:, :58] > 0).all()


# the recording


def same(a: Frame, b: Frame) -> bool:
    return (
        a.stamp_ns == b.stamp_ns
        and np.array_equal(a.rgb(), b.rgb())
        and np.array_equal(a.depth, b.depth)
        and np.array_equal(a.T_world_camera, b.T_world_camera)
    )


def test_a_recording_is_the_same_every_time_and_in_any_order(small: RenderedSource) -> None:
    again = RenderedSource.from_spec("rendered:seed=5, rooms=2, frames=20, rate=2, size=160x120, noise=on")
    forward = list(small.frames())
    assert len(forward) == small.info.frames == 20
    for i in (19, 0, 7):
        assert same(forward[i], again.frame(i))
    other = RenderedSource(seed=6, rooms=2, frames=20, rate_hz=2.0, width=160, height=120)
    assert not same(forward[0], other.frame(0))


def test_frames_are_what_the_source_says(small: RenderedSource, exact: RenderedSource) -> None:
    frame = small.frame(3)
    image, depth = frame.rgb(), frame.depth
    assert image is not None
    assert image.shape == (120, 160, 3)
    assert depth is not None
    assert depth.dtype == np.uint16
    assert (frame.world_frame, frame.camera_frame) == ("map", "camera_color_optical_frame")
    assert small.camera.fx == pytest.approx(525 / 4)
    assert small.info.sensor == SensorModel()
    assert exact.info.sensor == SensorModel.exact()
    assert small.info.T_zup_from_world is None
    assert frame.T_world_camera is not None
    assert not np.array_equal(frame.T_world_camera, small.true_pose(3))
    assert np.median(depth[depth > 0] / exact_depth(small.view(3))[depth > 0]) == pytest.approx(1.0, abs=0.02)
    clean = exact.frame(5)
    assert np.array_equal(clean.T_world_camera, exact.true_pose(5))
    assert clean.depth is not None
    np.testing.assert_allclose(clean.depth / 1000.0, exact.view(5).depth, atol=5.1e-4)
    textured = [frame.std() for frame in (small.frame(i).rgb() for i in range(0, 20, 5)) if frame is not None]
    assert min(textured) > 8  # images have something to see


def test_names_and_stamps(small: RenderedSource) -> None:
    assert small.stamp_of("frame-000016") == small.stamps[16] == START_NS + 8_000_000_000
    for name in ("frame-000020", "16", "frame-", "frame-x", "frame--00001"):
        with pytest.raises(KeyError):
            small.stamp_of(name)
    for index in (-1, 20):
        with pytest.raises(IndexError):
            small.frame(index)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rooms:seed=3", "must begin with 'rendered'"),
        ("rendered:seeds=3", "'seeds=3' is not one of seed=3"),
        ("rendered:seed", "'seed' is not one of"),
        ("rendered:seed=x", "seed=x does not work, write for example seed=3"),
        ("rendered:seed=-1", "seed must be 0"),
        ("rendered:size=320", "size=320 does not work"),
        ("rendered:size=4x4", "width must be 16"),
        ("rendered:noise=yes", "for example noise=off"),
        ("rendered:rooms=0", "rooms must be 1 to 12, not 0"),
        ("rendered:rate=0", "rate must be"),
        ("rendered:rate=nan", "rate must be"),
        ("rendered:frames=0", "frames must be"),
        ("rendered:seed=1,seed=2", "seed is given twice"),
    ],
)
def test_wrong_specs_say_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(SourceError) as error:
        RenderedSource.from_spec(spec)
    assert message in str(error.value)


def test_a_single_frame_is_a_recording() -> None:
    source = RenderedSource.from_spec("rendered:frames=1,rooms=1,size=64x48")
    assert len(list(source.frames())) == 1
    assert source.info.duration_s == 0


# questions


class Solver:
    """Answers questions from depth images and poses alone, as a check of the truth that comes from rays."""

    def __init__(self, source: RenderedSource) -> None:
        self.source = source
        self.frames = list(source.frames())
        self.stamps = [f.stamp_ns for f in self.frames]
        self.poses = np.stack([source.true_pose(i) for i in range(len(self.frames))])

    def index(self, name: str) -> int:
        return self.stamps.index(self.source.stamp_of(name))

    def depth(self, p: dict[str, Any]) -> float:
        image = self.frames[self.index(p["frame"])].depth
        assert image is not None
        return float(image[p["v"], p["u"]]) / 1000

    def local(self, p: dict[str, Any]) -> np.ndarray:
        return self.source.camera.unproject([p["u"], p["v"]]) * self.depth(p)

    def world(self, p: dict[str, Any]) -> np.ndarray:
        return apply(self.poses[self.index(p["frame"])], self.local(p))

    def shows(self, frame: int, xyz: np.ndarray) -> tuple[bool, np.ndarray]:
        local = apply(invert(self.poses[frame]), xyz)
        uv = self.source.camera.project(local)
        if not (local[2] > 0 and self.source.camera.contains(uv)):
            return False, uv
        image = self.frames[frame].depth
        assert image is not None
        u, v = np.rint(uv).astype(int)
        return bool(abs(image[v, u] / 1000 - local[2]) < 0.03 + 0.03 * local[2]), uv

    def answer(self, kind: str, q: dict[str, Any]) -> Any:
        p = q["points"]
        t = [self.index(x["frame"]) for x in q["times"]]
        match kind:
            case "depth":
                return self.depth(p[0])
            case "range":
                return float(np.linalg.norm(self.local(p[0])))
            case "compare":
                nearer = int(self.depth(p[1]) < self.depth(p[0]))
                return 1 - nearer if "far" in q["question"] or "further" in q["question"] else nearer
            case "distance":
                return float(np.linalg.norm(self.world(p[0]) - self.world(p[1])))
            case "height":
                return float(self.world(p[0])[2])
            case "where" | "where_not" | "visible":
                shown, uv = self.shows(t[0], self.world(p[0]))
                return float(shown) if kind == "visible" else uv if shown else None
            case "moved":
                return float(np.linalg.norm(self.poses[t[1], :3, 3] - self.poses[t[0], :3, 3]))
            case "path":
                a, b = t or (0, len(self.poses) - 1)
                return float(np.linalg.norm(np.diff(self.poses[a : b + 1, :3, 3], axis=0), axis=1).sum())
            case "turned":
                return np.degrees(rotation_angle(invert(self.poses[t[0]]) @ self.poses[t[1]]))
            case "moved_dir":
                step = apply(invert(self.poses[t[0]]), self.poses[t[1], :3, 3])
                axis = int(np.abs(step).argmax())
                return (("left", "right"), ("up", "down"), ("backward", "forward"))[axis][int(step[axis] > 0)]
            case "quadrant":
                step = self.world(p[0]) - self.poses[t[0], :3, 3]
                ahead = step[:2] @ self.poses[t[0], :2, 2] > 0
                right = step[:2] @ self.poses[t[0], :2, 0] > 0
                return f"{'front' if ahead else 'back'}-{'right' if right else 'left'}"
            case "direction":
                return float(np.linalg.norm(self.world(p[0]) - self.poses[t[0], :3, 3]))
            case "first_seen" | "last_seen":
                seen = [i for i in range(len(self.frames)) if self.shows(i, self.world(p[0]))[0]]
                i = seen[0] if kind == "first_seen" else seen[-1]
                return (self.stamps[i] - self.stamps[0]) / 1e9
            case "size":
                return self.size(q["boxes"][0], "wide" in q["question"] or "width" in q["question"])
            case "ceiling":
                return self.source.house.ceiling
        return self.answer_typed(from_json(q["query"]), [self.world(x) for x in p], t)

    def answer_typed(self, query: Query, points: list[Any], t: list[int]) -> Any:
        """What a query asks, from what the frames show: None where that is not repeated here."""
        if any(isinstance(x, operands.Box | operands.NearestWall | moments.Ago) for x in terms(query)):
            return None
        match query.ask:
            case asks.Locate():
                return points[0]
            case asks.Extreme(of=of, which=which):
                values = [self.measure(m, points, t) for m in of]
                best = max(values) if which is asks.Which.LARGEST else min(values)
                (index,) = points_of(Query(ask=asks.Value(of=of[values.index(best)])))[-1:]
                return index
            case asks.Order(of=of):
                return np.argsort([self.measure(m, points, t) for m in of]).tolist()
            case asks.Threshold(of=of, comparison=comparison, value=limit) if not isinstance(
                of, measures.ClosestApproach
            ):
                return float((self.measure(of, points, t) > limit) == (comparison is asks.Comparison.MORE))
            case asks.Value(of=measures.Distance() | measures.Height() | measures.Angle() as of):
                return self.measure(of, points, t)
        return None

    def measure(self, m: Any, points: list[Any], t: list[int]) -> float:
        def at(x: Any) -> Any:
            return points[x.index] if isinstance(x, operands.Point) else self.poses[t[x.at.index], :3, 3]

        match m:
            case measures.Distance():
                return float(np.linalg.norm(at(m.a) - at(m.b)))
            case measures.Height():
                return float(at(m.of)[2] - (at(m.above)[2] if isinstance(m.above, operands.Point) else 0.0))
        u, v = at(m.a) - at(m.vertex), at(m.b) - at(m.vertex)
        return float(np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))))

    def size(self, b: dict[str, Any], wide: bool) -> float:
        """Extent of the thing that fills most of the box."""
        frame = self.index(b["frame"])
        view = self.source.view(frame, color=False)
        part = (slice(b["v_min"], b["v_max"] + 1), slice(b["u_min"], b["u_max"] + 1))
        name = int(np.bincount(view.thing[part].ravel()).argmax())
        mask = view.thing == name
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert (columns[0], rows[0], columns[-1], rows[-1]) == (b["u_min"], b["v_min"], b["u_max"], b["v_max"])
        local = self.source.camera.rays()[mask] * view.depth[mask][:, None]
        world = apply(self.poses[frame], local)
        if not wide:
            return float(np.ptp(world[:, 2]))
        # The smallest rectangle round it from above, by trying all directions.
        turns = np.radians(np.arange(0, 90, 0.5))
        a = np.ptp(world[:, :2] @ np.stack([np.cos(turns), np.sin(turns)]), axis=0)
        c = np.ptp(world[:, :2] @ np.stack([-np.sin(turns), np.cos(turns)]), axis=0)
        return float(max(a[(a * c).argmin()], c[(a * c).argmin()]))


def test_truth_agrees_with_what_the_frames_show(exact: RenderedSource) -> None:
    questions = make_questions(exact, 400, seed=1)["questions"]
    assert len(questions) == 400
    solver = Solver(exact)
    kinds, unchecked = set(), set()
    for q in questions:
        kind = q["id"].split("-")[1]
        kinds.add(kind)
        got, expect = solver.answer(kind, q), q["expect"]
        if kind == "where_not":
            assert expect == {"error_code": "NOT_SEEN"}, q
            assert got is None, q
        elif kind in TYPED and got is None:
            unchecked.add(kind)
        elif expect["answer_type"] in ("NUMBER", "VECTOR"):
            assert expect["accept"][0] <= got <= expect["accept"][1], (q, got)
            assert expect["accept"][0] <= expect["value"] <= expect["accept"][1]
        elif expect["answer_type"] == "PIXEL":
            assert got is not None, q
            assert np.linalg.norm(got - expect["pixel"]) < 1.5, (q, got)
        elif expect["answer_type"] == "BOOLEAN":
            assert got == expect["value"], q
        elif expect["answer_type"] == "POSE":
            assert np.linalg.norm(got - expect["position"]) < 0.01, (q, got)
        elif expect["answer_type"] == "ORDER":
            assert got == expect["order"], q
        elif kind in ("compare", "superlative"):
            assert got == expect["choice_index"], q
        else:
            assert got == q["choices"][expect["choice_index"]], q
    assert kinds >= {"depth", "compare", "where", "where_not", "visible", "quadrant", "size", "first_seen", "ceiling"}
    assert not unchecked & {"superlative", "order", "higher_by", "angle", "locate"}
    both = {q["expect"]["value"] for q in questions if q["id"].endswith("-visible")}
    assert both == {0.0, 1.0}
    assert {q["truth"].split("; ")[-1] for q in questions if "where_not" in q["id"]} == {"hidden", "out of view"}


def test_questions_of_a_noisy_recording(small: RenderedSource) -> None:
    """Their truth is that of the exact recording; questions about missing depth are asked where depth is missing."""
    asked = make_questions(small, 60, seed=3)
    assert asked == make_questions(small, 60, seed=3)
    assert asked != make_questions(small, 60, seed=4)
    assert len({q["id"] for q in asked["questions"]}) == 60
    clean = Solver(RenderedSource(seed=5, rooms=2, frames=20, rate_hz=2.0, width=160, height=120, noise=False))
    for q in asked["questions"]:
        kind = q["id"].split("-")[1]
        if kind in ("depth", "distance", "height", "moved"):
            assert clean.answer(kind, q) == pytest.approx(q["expect"]["value"], abs=0.003), q
        if kind == "no_depth":
            p = q["points"][0]
            depth = small.frame(clean.index(p["frame"])).depth
            assert depth is not None
            assert (depth[p["v"] - 3 : p["v"] + 4, p["u"] - 3 : p["u"] + 4] == 0).all()
            assert q["expect"]["error_code"] == "NOT_SEEN"


def test_questions_have_the_format_of_shared_ones(exact: RenderedSource) -> None:
    asked = make_questions(exact, 40)
    assert set(asked) == {"recording", "note", "questions"}
    for q in asked["questions"]:
        assert {"id", "question", "points", "times", "boxes", "choices", "expect"} <= set(q)
        for name, entries in (("p", q["points"]), ("t", q["times"]), ("box", q["boxes"])):
            for k, entry in enumerate(entries):
                assert entry["name"] == f"{name}{k}"
                assert f"<{name}{k}>" in q["question"] or (not q["question"] and "query" in q)
                exact.stamp_of(entry["frame"])
    assert all(len(set(w)) >= 3 for w in WORDINGS.values())
    with pytest.raises(SourceError, match="no questions of kind nonsense"):
        make_questions(exact, 1, kinds=("nonsense",))


def test_demo_questions_are_ten_of_ten_kinds() -> None:
    source = RenderedSource(seed=0, frames=120, rate_hz=4.0, width=160, height=120)
    asked = demo_questions(source)["questions"]
    assert len(asked) == 10
    assert len({q["id"].split("-")[1] for q in asked}) == 10
