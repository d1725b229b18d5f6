"""Typed queries to answers: what every kind of question means, on geometry that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest

from spatial_mllm_ros.answering.comparisons import chance_of
from spatial_mllm_ros.answering.context import QueryConfig, TransformLookup
from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.queries import asks as a
from spatial_mllm_ros.queries import measures as m
from spatial_mllm_ros.queries import moments as t
from spatial_mllm_ros.queries import operands as o
from spatial_mllm_ros.queries.answer import Answer, ImageBox, ImagePoint, Request
from spatial_mllm_ros.queries.codes import AnswerType, ErrorCode
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import Transform, make_transform
from spatial_mllm_ros.scene.sensor import SensorModel

START = 1_700_000_000_000_000_000
"""2023-11-14, 22:13:20 UTC."""
CAMERA = CameraModel(160, 120, 90.0, 90.0, 79.5, 59.5)
LOOKS_ALONG_X = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
EYE_M, WALL_M = 1.0, 3.0
P, Q, R = (o.Point(index=i) for i in range(3))
T0, T1 = t.MarkedMoment(index=0), t.MarkedMoment(index=1)


def seen_by(x: float, block: bool) -> np.ndarray:
    """Depth (m) of a camera 1 m above a floor that looks along x at a wall, with a block on the floor if asked.

    The wall is at x = 3; the block is 0.6 m wide and 0.5 m high, its front at x = 2.
    """
    v, u = np.mgrid[0:120, 0:160]
    right, down = (u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy
    with np.errstate(divide="ignore"):
        z = np.minimum(WALL_M - x, np.where(down > 0, EYE_M / down, np.inf))
    front = 2.0 - x
    on_front = (np.abs(right * front) < 0.3) & (down * front > 0.5) & (down * front < EYE_M)
    with np.errstate(divide="ignore"):
        top = np.where(down > 0, 0.5 / down, np.inf)
    on_top = (top > front) & (top < front + 0.4) & (np.abs(right * top) < 0.3)
    if block:
        z = np.where(on_front, np.minimum(z, front), z)
        z = np.where(on_top, np.minimum(z, top), z)
    return z.astype(np.float32)


def frame(i: int, x: float = 0.0, turn: float = 0.0, block: bool = True) -> Frame:
    """Taken i tenths of a second after START, ``turn`` radians to the left (then without the room)."""
    c, s = np.cos(turn), np.sin(turn)
    T = make_transform(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ LOOKS_ALONG_X, (x, 0.0, EYE_M))
    depth = None if turn else seen_by(x, block)
    return Frame(START + i * 100_000_000, "camera", CAMERA, None, depth, T)


def engine_of(frames: Sequence[Frame], lookup: TransformLookup | None = None, **config: object) -> SpatialQueryEngine:
    memory = SpatialMemory()
    for f in frames:
        assert memory.add(f) is not None
    return SpatialQueryEngine(memory, SensorModel(), QueryConfig(**config), lookup=lookup)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine() -> SpatialQueryEngine:
    """A second at rest, two at 0.3 m/s towards the wall, then a quarter turn to the left on the spot."""
    still = [frame(i) for i in range(10)]
    going = [frame(10 + i, 0.03 * i) for i in range(21)]
    return engine_of([*still, *going, *(frame(31 + i, 0.6, np.pi / 40 * (i + 1)) for i in range(20))])


def stamp(i: int) -> int:
    return START + i * 100_000_000


def ask(engine: SpatialQueryEngine, asked: a.Ask | m.Measure, **fields: object) -> Answer:
    """<p0> is on the floor, <p1> on the front of the block, <p2> on the wall at the left; <box0> is round the block."""
    of_query = {k: fields.pop(k) for k in ("unit", "frame_id", "window", "negated") if k in fields}
    query = Query(ask=a.Value(of=asked) if isinstance(asked, m.Measure) else asked, **of_query)  # type: ignore[arg-type]
    request = Request(
        points=tuple(ImagePoint(START, "", u, v) for u, v in ((140, 112), (79, 92), (12, 50))),
        boxes=(ImageBox(START, "", 62, 75, 97, 108),),
        times=(stamp(10), stamp(30)),
        query=query,
    )
    return engine.answer(replace(request, **fields))  # type: ignore[arg-type]


def number(answer: Answer) -> float:
    assert answer.error_code == ErrorCode.NONE, answer.error_msg
    assert answer.answer_type == AnswerType.NUMBER
    assert answer.stddev >= 0
    return answer.value


def yes(answer: Answer) -> bool:
    assert answer.error_code == ErrorCode.NONE, answer.error_msg
    assert answer.answer_type == AnswerType.BOOLEAN
    return bool(answer.value)


def world(u: float, v: float, z: float) -> np.ndarray:
    return np.array([z, -(u - CAMERA.cx) / CAMERA.fx * z, EYE_M - (v - CAMERA.cy) / CAMERA.fy * z])


ON_FLOOR = world(140, 112, EYE_M / (52.5 / 90))
ON_BLOCK = world(79, 92, 2.0)
ON_WALL = world(12, 50, 3.0)


def to_the_left(of: np.ndarray, at: np.ndarray, facing: np.ndarray) -> float:
    u, v = (facing - at)[:2], (of - at)[:2]
    return float(np.degrees(np.arctan2(u[0] * v[1] - u[1] * v[0], u @ v)))


# ---- numbers

MEASURES: list[tuple[m.Measure, float, float]] = [
    (m.Distance(a=P, b=Q), float(np.linalg.norm(ON_FLOOR - ON_BLOCK)), 0.03),
    (m.Distance(a=P, b=Q, metric=m.Metric.HORIZONTAL), float(np.linalg.norm((ON_FLOOR - ON_BLOCK)[:2])), 0.03),
    (m.Distance(a=Q, b=R, metric=m.Metric.VERTICAL), float(ON_WALL[2] - ON_BLOCK[2]), 0.02),
    (m.Height(of=Q, above=R), float(ON_BLOCK[2] - ON_WALL[2]), 0.02),
    (m.Distance(a=R, b=o.Floor()), float(ON_WALL[2]), 0.03),
    (m.Distance(a=R, b=o.Origin()), float(np.linalg.norm(ON_WALL)), 0.03),
    (m.Distance(a=R, b=o.Position(x=3.0, y=0.0, z=1.0)), float(np.linalg.norm(ON_WALL - [3, 0, 1])), 0.03),
    (m.Distance(a=R, b=o.Camera()), float(np.linalg.norm(ON_WALL - [0, 0, 1])), 0.03),
    (m.Distance(a=R, b=o.Camera(at=T1)), float(np.linalg.norm(ON_WALL - [0.6, 0, 1])), 0.03),
    (m.Depth(of=R), 3.0, 0.02),
    (m.Depth(of=R, at=T1), 2.4, 0.02),
    (m.Bearing(of=R, viewer=o.Camera(at=T0)), float(np.degrees(np.arctan2(ON_WALL[1], 3.0))), 1.0),
    (m.Bearing(of=R, viewer=P, facing=Q), to_the_left(ON_WALL, ON_FLOOR, ON_BLOCK), 2.0),
    (m.Slope(at=P), 0.0, 2.5),
    (m.Slope(at=R), 90.0, 2.5),
    (m.Distance(a=o.Camera(at=T0), b=o.Camera(at=T1)), 0.6, 0.01),
    (m.PathLength(), 0.6, 0.03),
    (m.PathLength(span=t.Span(begin=t.AfterStart(seconds=2.0), end=t.AfterStart(seconds=3.0))), 0.3, 0.02),
    (m.MeanSpeed(span=t.Span(begin=T0, end=T1)), 0.3, 0.02),
    (m.Speed(at=t.AfterStart(seconds=2.0)), 0.3, 0.02),
    (m.Turn(), 90.0, 0.5),
    (m.Turn(about_up=True), 90.0, 0.5),
    (m.Heading(at=t.Start()), 0.0, 0.5),
    (m.Heading(), 90.0, 0.5),
    (m.Shift(axis=m.Axis.FORWARD), 0.6, 0.02),
    (m.Shift(axis=m.Axis.LEFT), 0.0, 0.02),
    (m.Elapsed(span=t.Span(begin=T0, end=T1)), 2.0, 1e-9),
    (m.TimeSpent(moving=False), 1.0, 0.3),
    (m.ClosestApproach(to=R), float(np.linalg.norm(ON_WALL - [0.6, 0, 1])), 0.03),
    (m.Distance(a=o.Camera(at=t.Ago(seconds=2.0)), b=o.Camera(at=t.Start())), 0.6, 0.01),
    (m.SeenDistance(of=R), float(np.linalg.norm(ON_WALL - [0.6, 0, 1])), 0.5),
    (m.Count(what=m.Countable.FRAMES), 51.0, 0.0),
    (m.Extent(of=o.Box(index=0), dimension=m.Dimension.WIDTH), 0.6, 0.06),
    (m.Extent(of=o.Box(index=0), dimension=m.Dimension.HEIGHT), 0.5, 0.06),
    (m.Distance(a=o.Box(index=0), b=R), float(np.hypot(1.0, ON_WALL[1] - 0.3)), 0.25),
]  # fmt: skip


@pytest.mark.parametrize(("measure", "truth", "within"), MEASURES)
def test_every_measure_is_what_it_says(
    engine: SpatialQueryEngine, measure: m.Measure, truth: float, within: float
) -> None:
    answer = ask(engine, measure)
    assert number(answer) == pytest.approx(truth, abs=max(within, 3 * answer.stddev)), answer.answer
    assert abs(answer.value - truth) <= within + 1e-9, (answer.answer, truth)


def test_a_difference_is_signed_whichever_way_it_is_asked(engine: SpatialQueryEngine) -> None:
    heights = m.Height(of=Q), m.Height(of=R)
    lower = ask(engine, a.Difference(a=heights[0], b=heights[1]))
    higher = ask(engine, a.Difference(a=heights[1], b=heights[0]))
    assert number(lower) == pytest.approx(-number(higher))
    assert lower.value < 0
    assert "lower" in lower.answer
    assert ask(engine, m.Height(of=Q, above=R)).value == pytest.approx(lower.value)


def test_what_two_points_of_an_image_share_does_not_make_their_difference_doubtful(engine: SpatialQueryEngine) -> None:
    first, second = m.Distance(a=Q, b=o.Camera()), m.Distance(a=R, b=o.Camera())
    each = [ask(engine, x).stddev for x in (first, second)]
    assert number(ask(engine, a.Difference(a=second, b=first))) > 0
    assert ask(engine, a.Difference(a=second, b=first)).stddev < 0.95 * np.linalg.norm(each)


def test_the_mean_and_the_ratio(engine: SpatialQueryEngine) -> None:
    of = (m.Depth(of=Q), m.Depth(of=R))
    assert number(ask(engine, a.Mean(of=of))) == pytest.approx(2.5, abs=0.02)
    ratio = ask(engine, a.Difference(a=of[1], b=of[0], ratio=True))
    assert number(ratio) == pytest.approx(1.5, abs=0.02)
    assert "1.5" in ratio.answer


def test_the_unit_of_a_query_changes_the_words_alone(engine: SpatialQueryEngine) -> None:
    plain, feet = ask(engine, m.Depth(of=R)), ask(engine, m.Depth(of=R), unit="ft")
    assert (plain.value, plain.stddev, plain.unit) == (feet.value, feet.stddev, feet.unit)
    assert "9.8" in feet.answer
    assert "ft" in feet.answer


# ---- yes or no


def test_a_threshold_is_as_sure_as_the_measure(engine: SpatialQueryEngine) -> None:
    measured = ask(engine, m.Depth(of=R))
    for comparison, other in ((a.Comparison.MORE, a.Comparison.AT_MOST), (a.Comparison.AT_LEAST, a.Comparison.LESS)):
        assert yes(ask(engine, a.Threshold(of=m.Depth(of=R), comparison=comparison, value=2.5)))
        assert not yes(ask(engine, a.Threshold(of=m.Depth(of=R), comparison=other, value=2.5)))
    near = a.Threshold(of=m.Depth(of=R), comparison=a.Comparison.MORE, value=measured.value - measured.stddev)
    assert ask(engine, near).confidence == pytest.approx(0.8413, abs=0.002)
    gravity = a.Threshold(of=m.Depth(of=R), comparison=a.Comparison.MORE, value=measured.value)
    assert ask(engine, gravity).error_code == ErrorCode.ABSTAINED
    assert yes(ask(engine, a.Within(of=m.Depth(of=R), low=2.8, high=3.2)))
    assert not yes(ask(engine, a.Within(of=m.Depth(of=R), low=1.8, high=2.2)))
    assert yes(ask(engine, a.Threshold(of=m.Depth(of=R), comparison=a.Comparison.ABOUT, value=2.9)))


def test_negation_exchanges_yes_and_no_and_nothing_else(engine: SpatialQueryEngine) -> None:
    asked = a.Threshold(of=m.Depth(of=R), comparison=a.Comparison.MORE, value=2.5)
    plain, negated = ask(engine, asked), ask(engine, asked, negated=True)
    assert (yes(plain), yes(negated)) == (True, False)
    assert plain.confidence == negated.confidence


def test_whole_numbers_are_compared_as_such() -> None:
    more, least = a.Comparison.MORE, a.Comparison.AT_LEAST
    assert chance_of(3, 0, more, 3, "count") == 0.0
    assert chance_of(3, 0, least, 3, "count") == 1.0
    assert chance_of(3, 0.5, more, 3, "count") == pytest.approx(0.1587, abs=1e-3)
    assert chance_of(3, 0.5, least, 3, "count") == pytest.approx(0.8413, abs=1e-3)
    assert chance_of(3, 0.5, a.Comparison.LESS, 3, "count") == pytest.approx(0.1587, abs=1e-3)


def test_a_comparison_takes_a_factor_and_an_offset(engine: SpatialQueryEngine) -> None:
    of, than = m.Depth(of=R), m.Depth(of=Q)
    assert yes(ask(engine, a.Compare(a=of, comparison=a.Comparison.MORE, b=than)))
    assert not yes(ask(engine, a.Compare(a=of, comparison=a.Comparison.MORE, b=than, factor=2.0)))
    assert not yes(ask(engine, a.Compare(a=of, comparison=a.Comparison.MORE, b=than, offset=1.5)))
    assert yes(ask(engine, a.Compare(a=of, comparison=a.Comparison.ABOUT, b=than, factor=1.5)))


SIDES = [
    (a.Relation(a=R, where=o.Where.LEFT_OF, b=Q), True),
    (a.Relation(a=Q, where=o.Where.LEFT_OF, b=R), False),
    (a.Relation(a=P, where=o.Where.RIGHT_OF, b=Q), True),
    (a.Relation(a=Q, where=o.Where.IN_FRONT_OF, b=R), True),
    (a.Relation(a=R, where=o.Where.BEHIND, b=Q), True),
    (a.Relation(a=R, where=o.Where.ABOVE, b=Q), True),
    (a.Relation(a=R, where=o.Where.BELOW, b=Q), False),
    (a.Relation(a=R, where=o.Where.LEFT_OF), True),
    (a.Relation(a=R, where=o.Where.IN_FRONT_OF, viewpoint=a.Viewpoint(at=o.Camera(at=T0))), True),
    # after the turn the wall is at the right of the camera
    (a.Relation(a=R, where=o.Where.RIGHT_OF, viewpoint=a.Viewpoint(at=o.Camera(at=t.Now()))), True),
    # standing at the wall and facing the block, the floor point at the right of the image is at the left
    (a.Relation(a=P, where=o.Where.LEFT_OF, viewpoint=a.Viewpoint(at=R, facing=Q)), True),
    (a.Relation(a=P, where=o.Where.ON, b=o.Floor()), True),
    (a.Relation(a=R, where=o.Where.ON, b=o.Floor()), False),
    (a.Relation(a=o.Box(index=0), where=o.Where.ON, b=o.Floor()), True),
    (a.Relation(a=Q, where=o.Where.NEXT_TO, b=R), False),
    (a.Relation(a=P, where=o.Where.SAME_SURFACE, b=R), False),
    (a.Relation(a=Q, where=o.Where.BETWEEN, b=P, also=R), True),
    (a.Relation(a=R, where=o.Where.BETWEEN, b=P, also=Q), False),
]


@pytest.mark.parametrize(("relation", "truth"), SIDES, ids=lambda x: x.where.value if isinstance(x, a.Relation) else "")
def test_how_things_lie_to_each_other(engine: SpatialQueryEngine, relation: a.Relation, truth: bool) -> None:
    assert yes(ask(engine, relation)) == truth
    assert yes(ask(engine, relation, negated=True)) != truth


def test_which_side_a_thing_is_on(engine: SpatialQueryEngine) -> None:
    of_block = a.Side(a=R, options=(o.Where.RIGHT_OF, o.Where.LEFT_OF), b=Q)
    assert (ask(engine, of_block).choice_index, ask(engine, of_block, choices=("left", "right")).choice_index) == (1, 0)
    mine = a.Side(a=R, options=(o.Where.LEFT_OF, o.Where.RIGHT_OF))
    assert ask(engine, mine).choice_index == 0


def test_moving_and_seen(engine: SpatialQueryEngine) -> None:
    assert not yes(ask(engine, a.Moving(at=t.AfterStart(seconds=0.4))))
    assert yes(ask(engine, a.Moving(at=T1)))
    assert yes(ask(engine, a.Seen(of=R)))
    assert yes(ask(engine, a.Visible(of=R, at=T0)))


# ---- places and choices


def test_where_things_are_in_any_frame(engine: SpatialQueryEngine) -> None:
    here = ask(engine, a.Locate(of=R))
    assert here.answer_type == AnswerType.POSE
    assert np.linalg.norm(np.subtract(here.pose.position, ON_WALL)) < 0.05
    seen = ask(engine, a.Locate(of=R), frame_id="camera", window=t.Span(begin=t.Start(), end=T0))
    assert seen.pose.frame_id == "camera"
    assert seen.pose.position[2] == pytest.approx(3.0, abs=0.03)
    turned = ask(engine, a.Locate(of=o.Camera(at=t.Now())))
    np.testing.assert_allclose(turned.pose.position, (0.6, 0, 1), atol=1e-6)
    conflict = engine.answer(Request(frame_id="map", query=Query(ask=a.Locate(of=o.Origin()), frame_id="camera")))
    assert conflict.error_code == ErrorCode.INVALID_REQUEST


def test_a_surface_faces_who_sees_it(engine: SpatialQueryEngine) -> None:
    answer = ask(engine, a.SurfaceNormal(at=R))
    np.testing.assert_allclose(answer.pose.position, (-1, 0, 0), atol=0.05)
    assert answer.value == pytest.approx(1.0)


def test_superlatives_name_what_was_marked(engine: SpatialQueryEngine) -> None:
    heights = tuple(m.Height(of=x) for x in (R, P, Q))
    highest = ask(engine, a.Extreme(of=heights, which=a.Which.LARGEST))
    assert (highest.choice_index, highest.answer[:4]) == (2, "<p2>")
    second = ask(engine, a.Extreme(of=heights, which=a.Which.LARGEST, rank=2))
    assert second.choice_index == 1
    assert ask(engine, a.Extreme(of=heights, which=a.Which.LARGEST), choices=("<p2>", "<p0>", "<p1>")).choice_index == 0
    value = ask(engine, a.Extreme(of=heights, which=a.Which.LARGEST, as_value=True))
    assert number(value) == pytest.approx(ON_WALL[2], abs=0.03)
    assert ask(engine, a.Order(of=heights)).order == (1, 2, 0)


def test_a_tie_is_not_decided(engine: SpatialQueryEngine) -> None:
    same = engine.answer(
        Request(
            points=(ImagePoint(START, "", 12, 50), ImagePoint(START, "", 14, 50), ImagePoint(START, "", 79, 92)),
            query=Query(ask=a.Extreme(of=tuple(m.Height(of=x) for x in (P, Q, R)), which=a.Which.LARGEST)),
        )
    )
    assert same.error_code == ErrorCode.ABSTAINED


def test_many_operands(engine: SpatialQueryEngine) -> None:
    points = tuple(ImagePoint(START, "", 4 + 4.7 * i, 8 + 0.6 * i) for i in range(32))
    of = tuple(m.Distance(a=o.Point(index=i), b=o.Camera(at=T1)) for i in range(32))
    query = Query(ask=a.Extreme(of=of, which=a.Which.LARGEST))
    answer = engine.answer(Request(points=points, times=(stamp(10), stamp(30)), query=query))
    assert answer.error_code in (ErrorCode.NONE, ErrorCode.ABSTAINED)


# ---- moments


def test_a_moment_is_one_however_it_is_named(engine: SpatialQueryEngine) -> None:
    clock = datetime.fromtimestamp(stamp(20) / 1e9, tz=timezone.utc)
    assert (clock.hour, clock.minute, clock.second) == (22, 13, 22)
    utc = engine_of([s.frame for s in engine.memory.frames()], time_zone="UTC")
    paris = engine_of([s.frame for s in engine.memory.frames()], time_zone="Europe/Paris")
    moments = [
        (engine, t.Stamp(stamp_ns=stamp(20))),
        (engine, t.AfterStart(seconds=2.0)),
        (engine, t.Ago(seconds=3.0)),
        (utc, t.ClockTime(hour=22, minute=13, second=22)),
        (paris, t.ClockTime(hour=23, minute=13, second=22)),
    ]
    places = {ask(e, a.Locate(of=o.Camera(at=moment))).pose.position for e, moment in moments}
    assert len(places) == 1
    assert places.pop()[0] == pytest.approx(0.3)
    with pytest.raises(ValueError, match="time_zone"):
        QueryConfig(time_zone="Europe/Nowhere")


def test_the_last_minute_of_five_seconds_is_five_seconds_and_says_so(engine: SpatialQueryEngine) -> None:
    answer = ask(engine, m.PathLength(span=t.Span(begin=t.Ago(seconds=60.0), end=t.Now())))
    assert number(answer) == pytest.approx(0.6, abs=0.03)
    assert "all that was seen" in answer.answer


@pytest.mark.parametrize(
    ("span", "says"),
    [
        (t.Span(begin=T1, end=T0), "before"),
        (t.Span(begin=t.Start(), end=t.AfterStart(seconds=100.0)), "no frame"),
        (t.Span(begin=t.Stamp(stamp_ns=5), end=t.Now()), "no frame"),
        (t.Span(begin=t.MarkedMoment(index=7), end=t.Now()), "<t7>"),
    ],
)
def test_a_span_that_cannot_be_is_refused(engine: SpatialQueryEngine, span: t.Span, says: str) -> None:
    answer = ask(engine, m.PathLength(span=span))
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert says in answer.error_msg


def test_a_window_of_a_query_limits_what_counts(engine: SpatialQueryEngine) -> None:
    early = t.Span(begin=t.Start(), end=t.AfterStart(seconds=2.0))
    assert number(ask(engine, m.PathLength(), window=early)) == pytest.approx(0.3, abs=0.02)
    assert number(ask(engine, m.Count(what=m.Countable.FRAMES), window=early)) == 21
    outside = ask(engine, m.PathLength(), window=early, window_start=stamp(30))
    assert outside.error_code == ErrorCode.INVALID_REQUEST


# ---- the robot


def base_below(name: str = "base_link") -> TransformLookup:
    """A base 1 m below the camera, which looks where the base does."""

    def lookup(target: str, source: str, stamp_ns: int) -> Transform:
        if (target, source) != ("map", name):
            raise LookupError(f"no transform from {source} to {target}")
        x = np.clip(0.03 * ((stamp_ns - START) / 1e8 - 10), 0, 0.6)
        return make_transform(np.eye(3), (x, 0.0, 0.0))

    return lookup


def test_the_robot_is_its_base_and_never_the_camera(engine: SpatialQueryEngine) -> None:
    of_robot = m.Distance(a=R, b=o.Robot(at=T0))
    refused = ask(engine, of_robot)
    assert refused.error_code == ErrorCode.TF_ERROR
    assert "base_frame" in refused.error_msg
    frames = [s.frame for s in engine.memory.frames()]
    for name, config in (("base_link", ""), ("base_footprint", ""), ("chassis", "chassis")):
        robot = engine_of(frames, base_below(name), base_frame=config)
        assert number(ask(robot, of_robot)) == pytest.approx(float(np.linalg.norm(ON_WALL)), abs=0.03)
        left = to_the_left(ON_WALL, np.zeros(3), np.array([1.0, 0, 0]))
        assert number(ask(robot, m.Bearing(of=R, viewer=o.Robot(at=T0)))) == pytest.approx(left, abs=1.0)
        assert ask(robot, a.Locate(of=o.Robot(at=T1))).pose.position == pytest.approx((0.6, 0, 0))
    assert ask(engine_of(frames, base_below("chassis")), of_robot).error_code == ErrorCode.TF_ERROR


# ---- words, agreement, batches


def test_words_and_a_typed_query_get_equal_answers(engine: SpatialQueryEngine) -> None:
    typed = ask(engine, m.Distance(a=P, b=Q))
    spoken = ask(engine, m.Distance(a=P, b=Q), query=None, question="How far apart are <p0> and <p1>?")
    both = ask(engine, m.Distance(a=Q, b=P), question="How far apart are <p0> and <p1>?")
    assert typed.value == spoken.value == pytest.approx(both.value)
    assert (typed.reader, spoken.reader) == ("", "grammar")
    assert typed.read_as == spoken.read_as == "What is the distance between <p0> and <p1>?"
    assert (spoken.query, typed.query) == (typed.query, spoken.query)


def test_words_and_query_must_agree(engine: SpatialQueryEngine) -> None:
    for question in ("How far apart are <p0> and <p2>?", "How high is <p0> above the floor?", "Blub <p0>?"):
        answer = ask(engine, m.Distance(a=P, b=Q), question=question)
        assert answer.error_code == ErrorCode.INVALID_REQUEST
        assert "agree" in answer.error_msg


@pytest.mark.parametrize(
    "asked",
    [
        a.Locate(of=o.Object(name="mug")),
        a.Exists(of=o.Object(name="mug")),
        m.Distance(a=P, b=o.Object(name="mug")),
        a.Reachable(goal=P),
        a.Route(goal=P),
        m.Clearance(of=P),
        m.Count(what=m.Countable.DOORS),
        m.Extent(of=o.Room(name="kitchen"), dimension=m.Dimension.WIDTH),
        a.Occupied(of=P),
    ],
    ids=lambda x: x.type_name,
)
def test_what_is_not_there_yet_says_so_and_answers_nothing_else(
    engine: SpatialQueryEngine, asked: a.Ask | m.Measure
) -> None:
    answer = ask(engine, asked)
    assert answer.error_code == ErrorCode.NOT_AVAILABLE
    assert answer.error_msg


def test_a_batch_is_answered_over_one_state_of_the_memory() -> None:
    growing = engine_of([frame(i) for i in range(10)])
    request = Request(query=Query(ask=a.Value(of=m.Count(what=m.Countable.FRAMES))))
    came = iter(range(10, 100))

    def more_comes() -> bool:
        growing.memory.add(frame(next(came)))
        return False

    answers = growing.answer_all([request] * 3, more_comes)
    assert [x.value for x in answers] == [10.0] * 3
    assert growing.answer(request).value > 10
