"""The live engine with geometry from color: a camera without depth becomes answers, or says why it does not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from stand_in_predictor import StandInPredictor
from test_live import finding, play, wait_for

from spatial_mllm_ros.commands.up import status_line
from spatial_mllm_ros.nodes import model as node_model
from spatial_mllm_ros.nodes.diagnosis import Level
from spatial_mllm_ros.nodes.live import LiveEngine
from spatial_mllm_ros.nodes.model import ConfigurationError, ServedPredictor
from spatial_mllm_ros.nodes.parameters import ParameterError, Settings
from spatial_mllm_ros.queries.answer import Answer, ImagePoint, Request
from spatial_mllm_ros.queries.codes import ErrorCode, ScaleSource
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.metric_scale import MetreSource, pose_source
from spatial_mllm_ros.scene.pose import make_transform
from spatial_mllm_ros.scene.window import WindowGeometry
from spatial_mllm_ros.serving.geometry_process import GeometryOptions, PredictorLost, ProcessPredictor
from spatial_mllm_ros.serving.interface import ModelStatus
from spatial_mllm_ros.simulation.rendered import RenderedSource

pytest.importorskip("embreex", reason="there is no embreex wheel for this platform")

SETTINGS = Settings(
    depth_topic="",
    rgb_geometry="somebody/something",
    rgb_geometry_max_load=1.0,
    keyframes_rate_hz=0.0,
    image_queue=1000,
)
LONG_S = 60.0
Engines = Callable[..., LiveEngine]


class Served(StandInPredictor):
    """The stand-in as a process serves it: it can be held up, die and be given up."""

    def __init__(self, frames: list[Frame]) -> None:
        super().__init__(frames)
        self.state, self.reason, self.closed = "ready", "", False
        self.deaths = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        self.go_on.wait(LONG_S)
        if self.deaths:
            self.deaths -= 1
            raise PredictorLost("the process of the geometry from color was killed (signal 9)")
        return super().predict(images)

    def status(self) -> ModelStatus:
        return ModelStatus(self.state, self.reason, self.name, {"process": 3 << 20})

    def close(self) -> None:
        self.closed = True
        self.go_on.set()


@pytest.fixture(scope="module")
def room() -> list[Frame]:
    """A tour of a rendered room, seen by a camera without depth beside which the truth is known."""
    return list(RenderedSource(seed=1, rooms=1, frames=32, rate_hz=4.0, width=160, height=120, noise=True).frames())


@pytest.fixture(scope="module")
def turning() -> list[Frame]:
    """The same room from one spot, looking about."""
    source = RenderedSource(seed=1, rooms=1, frames=2, rate_hz=4.0, width=160, height=120)
    start, frames = source.true_pose(0), []
    for i in range(20):
        T = start @ make_transform(Rotation.from_euler("y", 6 * i, degrees=True).as_matrix(), np.zeros(3))
        view = source.caster.render(source.camera, T, True)
        depth = source.sensor.depth(view, i)
        frames.append(Frame(10**9 + i * 250_000_000, "camera", source.camera, view.image, depth, T, "map"))
    return frames


@pytest.fixture
def engines() -> Iterator[Engines]:
    """Makes engines that run with a predictor, and closes them in the end."""
    made: list[LiveEngine] = []

    def make(predictor: ServedPredictor, settings: Settings = SETTINGS, **options: Any) -> LiveEngine:
        engine = LiveEngine(settings, lambda: 1 << 62, load_geometry=lambda _: predictor, **options)
        made.append(engine)
        engine.start()
        return engine

    yield make
    for engine in made:
        engine.close()


def color(frames: list[Frame], poses: bool = True) -> list[Frame]:
    return [replace(f, depth=None, T_world_camera=f.T_world_camera if poses else None) for f in frames]


def windows(engine: LiveEngine) -> int:
    status = engine.status().geometry
    assert status is not None
    return status.images.windows


def metric(engine: LiveEngine) -> bool:
    scale = engine.memory.scale
    return scale is not None and scale.known


def ask(engine: LiveEngine, question: str, *points: ImagePoint) -> Answer:
    answer: Answer = engine.ask(Request(question, points=points)).result(LONG_S)
    return answer


def middle(frame: Frame) -> ImagePoint:
    return ImagePoint(frame.stamp_ns, "", 80.0, 60.0)


def true_depth(frame: Frame) -> float:
    assert frame.depth is not None
    return float(np.median(frame.depth[55:66, 75:86])) / 1000


def test_a_camera_without_depth_answers_in_metres(engines: Engines, room: list[Frame]) -> None:
    engine = engines(Served(room))
    play(engine, color(room))
    wait_for(lambda: metric(engine) and len(engine.memory) > 16, LONG_S)
    held = {stored.frame.stamp_ns for stored in engine.memory.frames()}
    frame = next(f for f in room if f.stamp_ns in held)
    answer = ask(engine, "What is the depth at <p0>?", middle(frame))
    assert (answer.error_code, answer.scale_source) == (ErrorCode.NONE, ScaleSource.TF)
    assert answer.value == pytest.approx(true_depth(frame), rel=0.1)
    scale = engine.memory.scale
    assert scale is not None
    assert answer.stddev > scale.stddev * answer.value
    told = finding(engine, "geometry from color")
    values = dict(told.values)
    assert (told.level, values["scale_source"], values["state"]) == (Level.OK, "TF", "ready")
    assert "metres from camera poses ±" in told.message
    assert 0 < float(values["scale_stddev_percent"]) < 5
    assert values["process_mib"] == "3.0"


def test_after_a_break_the_memory_stays_and_the_diagnostics_say_so(engines: Engines, room: list[Frame]) -> None:
    predictor = Served(room)
    engine = engines(predictor)
    play(engine, color(room[:16], poses=False))
    wait_for(lambda: len(engine.memory) >= 13, LONG_S)
    known = {stored.frame_id for stored in engine.memory.frames()}
    calls = predictor.calls
    predictor._spoil = lambda call: call < calls + 3
    play(engine, color(room[16:], poses=False))
    wait_for(lambda: "show nothing of what is known" in finding(engine, "geometry from color").message, LONG_S)
    told = finding(engine, "geometry from color")
    values = dict(told.values)
    assert (told.level, values["submap"], values["relocated"]) == (Level.WARN, "1", "0")
    assert int(values["lost"]) > 0
    assert known <= {stored.frame_id for stored in engine.memory.frames()}


def test_turning_on_the_spot_makes_up_no_metres(engines: Engines, turning: list[Frame]) -> None:
    engine = engines(Served(turning))
    play(engine, color(turning))
    wait_for(lambda: windows(engine) >= 2 and len(engine.memory) >= 8, LONG_S)
    answer = ask(engine, "How far did the camera travel?")
    assert answer.error_code is ErrorCode.SCALE_UNAVAILABLE
    assert "the camera has moved" in answer.error_msg
    assert ask(engine, "How far did the camera turn?").error_code is ErrorCode.NONE
    told = finding(engine, "geometry from color")
    assert told.level is Level.WARN
    assert "turning does not help" in told.message


def test_images_without_any_transform_are_used(engines: Engines, room: list[Frame]) -> None:
    engine = engines(Served(room), replace(SETTINGS, tf_wait_s=0.0))
    play(engine, color(room, poses=False))
    wait_for(lambda: windows(engine) >= 3, LONG_S)
    wait_for(lambda: len(engine.memory) >= 8, LONG_S)
    assert engine.memory.world_frame == "up_to_scale_0"
    assert ask(engine, "How far did the camera travel?").error_code is ErrorCode.SCALE_UNAVAILABLE
    assert finding(engine, "memory").level is Level.OK
    told = finding(engine, "geometry from color")
    assert "without poses and without depth" in told.message


def test_a_camera_without_calibration(engines: Engines, room: list[Frame]) -> None:
    engine = engines(Served(room), replace(SETTINGS, camera_info_topic="none"))
    play(engine, color([replace(f, camera=None) for f in room]))
    wait_for(lambda: metric(engine) and len(engine.memory) > 8, LONG_S)
    stored, true = engine.memory.frames()[0].frame.camera, room[0].camera
    assert stored is not None
    assert true is not None
    assert stored.fx == pytest.approx(true.fx, rel=0.02)
    assert ask(engine, "How far did the camera travel?").error_code is ErrorCode.NONE


def test_depth_now_and_then_gives_metres(engines: Engines, room: list[Frame]) -> None:
    """Where depth is there it is kept; how it disagrees with what was predicted is told."""
    engine = engines(Served(room), replace(SETTINGS, depth_topic="depth/image", tf_wait_s=0.0))
    play(engine, [f if i % 6 == 0 else replace(f, depth=None, T_world_camera=None) for i, f in enumerate(room)])
    wait_for(lambda: metric(engine) and windows(engine) >= 4, LONG_S)
    scale = engine.memory.scale
    assert scale is not None
    assert scale.source is MetreSource.DEPTH
    values = dict(finding(engine, "geometry from color").values)
    assert float(values["depth_ratio"]) == pytest.approx(1, abs=0.05)
    stored = next(s for s in engine.memory.frames() if s.frame.stamp_ns == room[0].stamp_ns)
    np.testing.assert_array_equal(stored.frame.depth, room[0].depth)


def test_a_predictor_that_dies_costs_windows_and_the_node_lives(engines: Engines, room: list[Frame]) -> None:
    predictor = Served(room)
    predictor.deaths = 1
    engine = engines(predictor)
    play(engine, color(room))
    wait_for(lambda: metric(engine), LONG_S)
    told = finding(engine, "geometry from color")
    assert told.level is Level.WARN
    assert dict(told.values)["dropped_predictor_lost"] == "1"
    predictor.state, predictor.reason = "restarting", "it was killed (signal 9)"
    assert finding(engine, "geometry from color").message == "restarting: it was killed (signal 9)"
    predictor.state, predictor.reason = "failed", "given up after 3 times in a row"
    told = finding(engine, "geometry from color")
    assert (told.level, told.message) == (Level.ERROR, "failed: given up after 3 times in a row")
    late = [replace(f, stamp_ns=f.stamp_ns + 10**11) for f in color(room[:3])]
    play(engine, late)  # as without geometry from color: a pose and an image
    wait_for(lambda: {f.stamp_ns for f in late} <= {s.frame.stamp_ns for s in engine.memory.frames()})
    assert ask(engine, "How far did the camera travel?").error_code is ErrorCode.NONE


def test_a_process_that_is_killed_is_replaced_and_the_node_goes_on(engines: Engines, tmp_path: Path) -> None:
    """A real process, with a flat world in it: without torch, but dying as one with it would."""
    predictor = ProcessPredictor(
        GeometryOptions(str(tmp_path)), "fake_predictor:load", restart_after_s=(2.0,), quick_s=0.0
    )
    predictor.start()
    predictor.wait_loaded(LONG_S)
    engine = engines(predictor)
    play(engine, sideways(20))
    wait_for(lambda: metric(engine), LONG_S)
    assert 3 < float(np.nanmedian(engine.memory.frames()[0].frame.depth)) < 7  # two units of 2.5 m
    first, done = predictor.pid, windows(engine)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: "was killed (signal 9)" in finding(engine, "geometry from color").message, LONG_S)
    assert ask(engine, "How far did the camera travel?").scale_source is ScaleSource.TF
    play(engine, sideways(40)[20:])
    wait_for(lambda: predictor.pid not in (None, first) and windows(engine) > done, LONG_S)


def sideways(count: int) -> list[Frame]:
    """A camera that moves 0.1 m a frame along a wall, as ``fake_predictor.flat`` sees it at 0.04 units a frame."""
    frames = []
    for i in range(count):
        image = np.zeros((24, 32, 3), np.uint8)
        image[12:] = 100
        image[0, 1] = 4 * i
        T = make_transform(np.eye(3), (0.1 * i, 0, 0))
        frames.append(Frame(10**9 + i * 10**8, "camera", CameraModel(32, 24, 32, 32, 16, 12), image, None, T, "map"))
    return frames


def test_a_slow_predictor_holds_nothing_up(engines: Engines, room: list[Frame]) -> None:
    predictor = Served(room)
    predictor.go_on.clear()
    engine = engines(predictor)
    play(engine, color(room))
    wait_for(lambda: not any(s.waiting for s in engine.status().streams))
    answer = ask(engine, "How far did the camera travel?")
    assert answer.error_code is ErrorCode.NO_FRAMES
    assert "0 windows done" in answer.error_msg
    engine.stop()
    engine.start()
    engine.close()
    assert predictor.closed


def test_a_clock_set_back_starts_over_whatever_is_on_its_way(engines: Engines, room: list[Frame]) -> None:
    predictor = Served(room)
    predictor.go_on.clear()
    engine = engines(predictor)
    play(engine, color(room)[-12:])
    wait_for(lambda: not any(s.waiting for s in engine.status().streams))
    assert len(engine.memory) == 0, "nothing has become geometry yet"
    early = [replace(f, stamp_ns=f.stamp_ns - 60 * 10**9) for f in color(room)]
    play(engine, early)
    wait_for(lambda: engine.resets == 1)
    predictor.go_on.set()
    wait_for(lambda: metric(engine), LONG_S)
    assert {s.frame.stamp_ns for s in engine.memory.frames()} <= {f.stamp_ns for f in early}


def test_what_cannot_be_configured_says_why(tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"rgb_geometry: .* is neither a folder"):
        LiveEngine(replace(SETTINGS, rgb_geometry="nothing here"))
    (tmp_path / "config.json").write_text('{"random_weights": true}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="rgb_geometry: nobody trained"):
        node_model.load_geometry(Settings(rgb_geometry=str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rgb_geometry_overlap": 8}, "less than rgb_geometry_window_size"),
        ({"color_topic": "a,b"}, "one camera"),
        ({"camera_info_topic": "none", "rgb_geometry": ""}, "nothing is measured"),
        ({"on_clock_reset": "keep"}, "must be forget"),
        ({"rgb_geometry_device": "tpu"}, "rgb_geometry_device must be"),
    ],
)
def test_parameters_that_do_not_fit(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        replace(SETTINGS, **changes)


def test_what_the_parameters_say_reaches_the_predictor() -> None:
    options = node_model.geometry_options(
        replace(SETTINGS, rgb_geometry_device="cuda:1", rgb_geometry_precision="bfloat16", rgb_geometry_width_px=280)
    )
    assert (options.model, options.device, options.precision) == ("somebody/something", "cuda:1", "bfloat16")
    assert (options.width, options.window_size) == (280, 8)


def test_odometry_is_known_by_its_frame() -> None:
    """REP 105."""
    for name in ("odom", "robot1/odom", "odometry", "camera_odom_frame", "odom_combined"):
        assert pose_source(name) is MetreSource.ODOM, name
    for name in ("map", "world", "podometer", ""):
        assert pose_source(name) is MetreSource.TF, name


def test_the_status_line_tells_how_it_goes(engines: Engines, room: list[Frame]) -> None:
    predictor = Served(room)
    engine = engines(predictor)

    def line() -> str:
        return status_line(SimpleNamespace(full_name="node", engine=engine, state=SimpleNamespace(label="active")))

    assert "geometry of 0 windows, no metres" in line()
    play(engine, color(room[:12]))
    wait_for(lambda: "windows, ± " in line(), LONG_S)
    predictor.state = "restarting"
    assert "geometry restarting" in line()
