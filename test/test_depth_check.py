"""Depth that cannot be what it is taken for: told with the remedy, out of the answers, and right with the setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.queries.answer import Answer, ImagePoint, Request
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.depth import metric_depth
from spatial_mllm_ros.scene.depth_check import DepthCheck
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.scene.pose import from_quaternion
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.source import Source
from spatial_mllm_ros.sources.writers import write_folder

U, V = 40, 40


class Walk(RenderedSource):
    """A walk through a rendered room whose depth became something else."""

    def __init__(self, change: Callable[[np.ndarray], np.ndarray] = lambda depth: depth, noise: bool = True) -> None:
        super().__init__(seed=4, rooms=1, frames=60, rate_hz=3, width=96, height=72, noise=noise)
        self._change = change

    def frames(self) -> Iterator[Frame]:
        for frame in super().frames():
            yield replace(frame, depth=self._change(frame.depth))


@pytest.fixture(scope="module")
def truth() -> dict[int, float]:
    """Depth (m) at the pixel that is asked about, by stamp."""
    return {f.stamp_ns: float(depth_to_metres(f.depth)[V, U]) for f in Walk().frames()}


def streamed(source: Source) -> Session:
    session = Session(source, record_coverage=False)
    session.stream()
    return session


def ask_depth(session: Session, question: str = "What is the depth of <p0>?") -> Answer:
    stored = session.memory.frames()[-5]
    point = ImagePoint(stored.frame.stamp_ns, stored.frame.camera_frame, U, V)
    return session.engine.answer(Request(question=question, points=(point,)))


def kinds(session: Session) -> list[str]:
    return [doubt.kind for doubt in session.doubts]


def tum_folder(folder: Path, counts_per_m: float) -> None:
    """What a script makes of a camera's images, in the layout of the TUM benchmark."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    lists: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    for i, frame in enumerate(Walk().frames()):
        at = f"{i / 10:.6f}"
        cv2.imwrite(str(folder / f"rgb/{at}.png"), frame.rgb()[..., ::-1])
        counts = np.nan_to_num(depth_to_metres(frame.depth)) * counts_per_m
        cv2.imwrite(str(folder / f"depth/{at}.png"), np.rint(counts).astype(np.uint16))
        for name in ("rgb", "depth"):
            lists[name].append(f"{at} {name}/{at}.png")
        T, K = frame.T_world_camera, frame.camera.K
        w = np.sqrt(max(0.0, 1 + np.trace(T[:3, :3]))) / 2
        x, y, z = (T[2, 1] - T[1, 2], T[0, 2] - T[2, 0], T[1, 0] - T[0, 1]) / (4 * w)
        lists["groundtruth"].append(" ".join(map(str, (at, *T[:3, 3], x, y, z, w))))
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines))
    np.savetxt(folder / "intrinsics.txt", K)


def test_a_tum_folder_in_millimetres_is_told_and_right_with_the_setting(tmp_path, truth):
    tum_folder(tmp_path, 1000)
    session = streamed(open_source(str(tmp_path)))
    answer = ask_depth(session)
    assert answer.error_code == ErrorCode.ABSTAINED
    assert "set depth_unit_m to 0.001, for millimetres (now 0.0002)" in answer.error_msg
    assert kinds(session) == ["depth_scale"]
    assert ask_depth(session, "How far did the camera move?").error_code != ErrorCode.ABSTAINED  # that needs no depth
    session = streamed(open_source(str(tmp_path), {"depth_unit_m": 0.001}))
    assert session.doubts == ()
    assert ask_depth(session).value == pytest.approx(list(truth.values())[-5], abs=0.05)


def test_a_tum_folder_in_millimetres_is_told_without_motion(tmp_path):
    """From a camera that stands still, by what the benchmark's camera cannot have measured."""
    tum_folder(tmp_path, 1000)
    first = (tmp_path / "groundtruth.txt").read_text().splitlines()[0].split()[1:]
    stamps = [line.split()[0] for line in (tmp_path / "rgb.txt").read_text().splitlines()]
    (tmp_path / "groundtruth.txt").write_text("\n".join(" ".join((stamp, *first)) for stamp in stamps))
    session = streamed(open_source(str(tmp_path)))
    (scale,) = (doubt for doubt in session.doubts if doubt.kind == "depth_scale")
    assert set(kinds(session)) <= {"depth_scale", "poses", "poses_disagree"}  # the images were not taken from one place
    assert "cameras of this format measure nothing" in scale.text
    assert "set depth_unit_m" in scale.remedy
    answer = ask_depth(session)
    assert answer.confidence < 0.5
    assert "doubtful" in answer.answer
    assert "depth_scale" not in kinds(streamed(open_source(str(tmp_path), {"depth_unit_m": 0.001})))


@pytest.mark.parametrize(
    ("counts_per_m", "unit", "says"),
    [
        (10_000, 0.0001, "set depth_unit_m to 0.0001, for 0.1 mm (now 0.001)"),  # D405
        (6553.5, 1 / 6553.5, "set depth_unit_m to 0.0001526, for 1/6553.5 m (now 0.001)"),
        (5000, 1 / 5000, "set depth_unit_m to 0.0002, for 1/5000 m (now 0.001)"),
        (256, 1 / 256, "set depth_unit_m to 0.003906, for 1/256 m (now 0.001)"),
        (100, 0.01, "set depth_unit_m to 0.01, for centimetres (now 0.001)"),
    ],
)
def test_a_folder_in_another_unit_is_told_and_right_with_the_setting(tmp_path, truth, counts_per_m, unit, says):
    def counts(depth: np.ndarray) -> np.ndarray:
        return np.rint(np.minimum(np.nan_to_num(depth_to_metres(depth)) * counts_per_m, 65535)).astype(np.uint16)

    write_folder(Walk(counts), tmp_path)
    answer = ask_depth(streamed(open_source(str(tmp_path))))
    assert answer.error_code == ErrorCode.ABSTAINED
    assert says in answer.error_msg
    (tmp_path / "recording.yaml").write_text(f"depth_unit_m: {unit}")
    session = streamed(open_source(str(tmp_path)))
    assert session.doubts == ()
    assert ask_depth(session).value == pytest.approx(list(truth.values())[-5], abs=0.05)


def test_floating_point_depth_in_millimetres_is_told_and_right_with_the_setting(truth):
    def read(settings: InputSettings) -> Session:
        return streamed(Walk(lambda depth: metric_depth(depth.astype(np.float32), settings)))

    session = read(InputSettings())
    answer = ask_depth(session)
    assert answer.error_code == ErrorCode.ABSTAINED
    assert "set depth_unit_m to 0.001, for millimetres (now 1)" in answer.error_msg
    assert session.memory.without_depth == 60  # whole numbers of hundreds are no metres: nothing is built on them
    session = read(InputSettings(depth_unit_m=0.001))
    assert session.doubts == ()
    assert ask_depth(session).value == pytest.approx(list(truth.values())[-5], abs=0.05)


def test_the_largest_count_of_16_bits_is_no_depth(tmp_path):
    write_folder(Walk(lambda depth: np.where(depth > 1500, 65535, depth).astype(np.uint16)), tmp_path)
    session = streamed(open_source(str(tmp_path)))
    assert session.doubts == ()
    assert max(stored.frame.depth.max() for stored in session.memory.frames()) <= 1500


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_a_value_for_no_return_is_found_and_leaves_the_frames_held_too(kind):
    far = 8000 if kind == np.uint16 else 8.0
    beyond = 2500 if kind == np.uint16 else 2.5
    unit = 1 if kind == np.uint16 else 0.001

    def cut(depth: np.ndarray) -> np.ndarray:
        values = (depth * unit).astype(kind)
        return np.where(values > beyond, kind(far), values)

    session = streamed(Walk(cut))
    assert [d.kind for d in session.doubts] == ["depth_maximum"]
    assert "exactly 8 m" in str(session.doubts[0])
    assert session.doubts[0].confidence == 1.0
    assert "invalid_depth" in session.doubts[0].remedy
    for stored in session.memory.frames():
        assert np.nan_to_num(stored.frame.depth).max() <= beyond
    low, high = (f(session.memory.seen_points(), axis=0) for f in (np.min, np.max))
    assert (high - low < 8).all()


@pytest.mark.parametrize("noise", [True, False])
def test_rendered_rooms_are_beyond_doubt(noise):
    """Also without noise, where walls seen head-on are all of one depth."""
    assert streamed(Walk(noise=noise)).doubts == ()


WALL = CameraModel(96, 72, 80.0, 80.0, 47.5, 35.5)


def wall(z_m: float, yaw: float = 0.0, height_m: float = 1.0, x_m: float = 0.0) -> Frame:
    """A wall 3 m ahead of the origin of which the lower part is seen, in front of it a floor; exact, in mm."""
    c, s = np.cos(yaw), np.sin(yaw)
    R = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    rays = WALL.rays() @ R.T
    with np.errstate(divide="ignore"):
        ahead = np.where(rays[..., 2] > 0, (3.0 - z_m) / rays[..., 2], np.inf)
        floor = np.where(rays[..., 1] > 0, height_m / rays[..., 1], np.inf)
    depth = np.minimum(ahead, floor) * 1000
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, (x_m, 0, z_m)
    return Frame(
        int(1e9 * (z_m + yaw + x_m + 10)), "camera", WALL, None, np.where(depth < 60e3, depth, 0).astype(np.uint16), T
    )


def looked_at(frames: list[Frame]) -> tuple[list[Frame], tuple[Doubt, ...]]:
    check = DepthCheck()
    return [check.look(frame)[0] for frame in frames], check.doubts()


@pytest.mark.parametrize("motion", ["still", "ahead", "aside", "turning", "quarters"])
def test_a_wall_seen_head_on_is_not_eaten(motion):
    frames = {
        "still": [wall(0.0)] * 40,
        "ahead": [wall(z) for z in np.arange(0, 1, 0.05)],
        "aside": [wall(0, x_m=x) for x in np.arange(0, 2, 0.1)],
        "turning": [wall(0, yaw) for yaw in np.arange(-0.6, 0.6, 0.1)],
        "quarters": [replace(wall(0), T_world_camera=turned(quarter)) for quarter in range(8)],
    }[motion]
    out, doubts = looked_at(frames)
    assert all(a is b for a, b in zip(out, frames, strict=True))
    assert all(doubt.kind == "depth_maximum" and doubt.confidence >= 0.8 for doubt in doubts)
    assert motion == "still" or not doubts


def turned(quarters: int) -> np.ndarray:
    angle = quarters * np.pi / 2
    return from_quaternion((0, np.sin(angle / 2), 0, np.cos(angle / 2)), (0, 0, 0))


def test_a_still_camera_tells_of_a_plateau_that_only_its_user_can_explain():
    frames = [replace(wall(0), stamp_ns=i) for i in range(40)]
    for i, frame in enumerate(frames):
        depth = np.where(
            frame.depth == 3000, 2990 + np.random.default_rng(i).integers(0, 20, frame.depth.shape), frame.depth
        )
        depth[:30] = 10_000
        frames[i] = replace(frame, depth=depth.astype(np.uint16))
    out, doubts = looked_at(frames)
    assert (out[-1].depth[:30] == 10_000).all()
    assert [doubt.kind for doubt in doubts] == ["depth_maximum"]
    assert "exactly 10 m" in doubts[0].text
    assert "invalid_depth" in doubts[0].remedy


@pytest.mark.parametrize(
    ("median_m", "confidence"), [(0.1, 0.3), (0.3, 1.0), (15.0, 1.0), (40.0, 0.3), (1500.0, 0.0), (0.005, 0.0)]
)
def test_how_far_things_are_without_motion(median_m, confidence):
    rng = np.random.default_rng(0)
    frames = []
    for i in range(8):
        depth = (median_m * rng.uniform(0.8, 1.2, (72, 96))).astype(np.float32)
        frames.append(Frame(i, "camera", WALL, None, depth, np.eye(4)))
    out, doubts = looked_at(frames)
    assert [doubt.confidence for doubt in doubts] == ([] if confidence == 1 else [confidence])
    assert all((frame.depth is None) == (confidence == 0) for frame in out)


def test_of_several_cameras_the_gravest_doubt_is_told_with_its_name():
    memory = SpatialMemory(clock=lambda: 2**62)
    for i in range(8):
        for camera, metres in (("near", 1.0), ("far", 40.0), ("mad", 900.0)):
            depth = (metres * np.linspace(0.8, 1.2, 72 * 96).reshape(72, 96)).astype(np.float32)
            memory.add(Frame(i, camera, WALL, None, depth, np.eye(4)))
    assert [(doubt.kind, doubt.confidence) for doubt in memory.doubts] == [("depth_scale", 0.0)]
    assert memory.doubts[0].text.startswith("mad: ")


def test_one_frame_of_nonsense_is_left_out_and_forgotten():
    frames = list(Walk().frames())[:20]
    frames[7] = replace(frames[7], depth=np.full((72, 96), 3, np.uint16))
    out, doubts = looked_at(frames)
    assert [frame.depth is None for frame in out] == [i == 7 for i in range(20)]
    assert doubts == ()


def test_wrong_poses_alone_do_not_make_a_wrong_unit():
    """A rough tracker: half a metre and some degrees off, at random. Nothing is told of a scale that is right."""
    rng = np.random.default_rng(1)
    frames = []
    for frame in Walk().frames():
        rotation = from_quaternion((*rng.normal(0, 0.03, 3), 1), rng.normal(0, 0.2, 3))
        frames.append(replace(frame, T_world_camera=frame.T_world_camera @ rotation))
    assert looked_at(frames)[1] == ()


def test_settings_of_bounds_apply_to_folders(tmp_path):
    write_folder(Walk(), tmp_path)
    session = streamed(open_source(str(tmp_path), InputSettings(min_depth_m=1.0, max_depth_m=2.0)))
    depths = np.concatenate([stored.frame.depth[stored.frame.depth > 0] for stored in session.memory.frames()])
    assert depths.min() >= 1000
    assert depths.max() <= 2000


def test_a_unit_that_is_only_assumed_and_that_nothing_confirms_is_told_and_lowers_confidence(tmp_path):
    """A camera that stands: 0.1 mm taken for millimetres would be answered with certainty."""

    class Standing(Walk):
        def frames(self) -> Iterator[Frame]:
            frames = list(super().frames())
            for frame in frames:
                yield replace(frames[0], stamp_ns=frame.stamp_ns)

    write_folder(Standing(), tmp_path)
    session = streamed(open_source(str(tmp_path)))
    assert "depth_unconfirmed" in kinds(session)
    answer = ask_depth(session)
    assert answer.confidence <= 0.6
    assert "set depth_unit_m, to 0.001 if that is right" in answer.answer
    assert "depth_unconfirmed" not in kinds(streamed(open_source(str(tmp_path), {"depth_unit_m": 0.001})))


def test_a_unit_that_the_motion_confirms_is_not_doubted(tmp_path):
    write_folder(Walk(), tmp_path)
    assert streamed(open_source(str(tmp_path))).doubts == ()


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_depth_at_the_bound_itself_counts_everywhere(kind):
    """3000 mm at a bound of 3 m."""
    from spatial_mllm_ros.scene.backproject import camera_points, extend_bounds

    depth = np.full((72, 96), 3000 if kind == np.uint16 else 3.0, kind)
    frame = Frame(0, "camera", WALL, None, depth, np.eye(4))
    assert len(camera_points(frame, 8, 3.0)) == len(camera_points(frame, 8))
    _, high = extend_bounds(frame, np.full(3, np.inf), np.full(3, -np.inf), 3.0)
    assert high[2] == pytest.approx(3.0, abs=1e-3)
    assert (metric_depth(depth, InputSettings(max_depth_m=3.0)) > 0).all()
    assert len(camera_points(frame, 8, 2.999)) == 0
