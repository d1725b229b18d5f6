"""ask and replay of images alone: a model looks at them, geometry from color measures in them, and neither pretends."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from fake_model import FakeModel
from stand_in_predictor import StandInPredictor
from test_ask_model import ROOM, LoadingModel

from spatial_mllm_ros.answering.model_backend import ModelBackend
from spatial_mllm_ros.cli import main
from spatial_mllm_ros.commands import geometry, models
from spatial_mllm_ros.memory.unplaced import UnplacedFrames
from spatial_mllm_ros.perception.rgb.rgb_geometry import RgbGeometry, RgbGeometryConfig
from spatial_mllm_ros.queries.answer import Request
from spatial_mllm_ros.queries.codes import ErrorCode, ScaleSource
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.serving.interface import ModelUnavailable
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.source import SourceInfo

COUNT = 21


class Recording:
    """Frames as a recording."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = list(frames)
        self.info = SourceInfo("recording", len(self._frames))
        self.refused: Counter[str] = Counter()
        self.doubts: list[Doubt] = []

    def frames(self) -> Iterator[Frame]:
        return iter(self._frames)

    def stamp_of(self, name: str) -> int:
        raise KeyError(name)


@pytest.fixture(scope="module")
def room() -> list[Frame]:
    pytest.importorskip("embreex", reason="there is no embreex wheel for this platform")
    return list(RenderedSource(seed=1, rooms=1, frames=COUNT, rate_hz=4.0, width=160, height=120, noise=True).frames())


@pytest.fixture(scope="module")
def images(room: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, which is all that is left of the room."""
    folder = tmp_path_factory.mktemp("images")
    for i, frame in enumerate(room):
        assert isinstance(frame.image, np.ndarray)
        cv2.imwrite(str(folder / f"{i:04d}.png"), frame.image[..., ::-1])
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch were installed, for all but those who use it."""
    if "tiny" in request.fixturenames:
        return
    found = importlib.util.find_spec
    for module in (models, geometry):
        monkeypatch.setattr(
            module.importlib.util, "find_spec", lambda name: True if name in ("torch", "transformers") else found(name)
        )


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> LoadingModel:
    fake = LoadingModel({ROOM: "a kitchen with a table"})
    monkeypatch.setattr(models, "make_model", lambda options: fake)
    return fake


class Predictor(StandInPredictor):
    """The stand-in, to be loaded."""

    refusal = ""
    closed = False

    def start(self) -> None: ...

    def wait_loaded(self, timeout_s: float = 0.0, on_progress: Any = None) -> None:
        on_progress("reading", 50, 100)
        if self.refusal:
            raise ModelUnavailable(self.refusal)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def predictor(room: list[Frame], monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """Loaded instead of VGGT."""
    made = Predictor(room)
    monkeypatch.setattr(geometry, "make_predictor", lambda options: made)
    return made


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    return result


# ---- a model alone


def test_a_model_looks_at_evenly_spaced_images(model: LoadingModel, images: Path, checkpoint: Path) -> None:
    result = run("ask", str(images), ROOM, "--model", str(checkpoint), "--keyframes", "6", "--json")
    answer = json.loads(result.stdout)
    assert (answer["answer"], answer["source"]) == ("a kitchen with a table", "MODEL")
    spacing = 1e9 / 30
    assert [round(e["stamp_ns"] / spacing) for e in answer["evidence"]] == [0, 4, 8, 12, 16, 20]
    assert len({e["keyframe_id"] for e in answer["evidence"]}) == 6
    assert {e["camera_pose"]["position"][0] for e in answer["evidence"]} == {None}
    assert "6 evenly spaced images encoded" in result.stderr
    assert "--rgb-geometry" in result.stderr


def test_an_even_number_of_them_and_no_more_than_there_are(model: LoadingModel, images: Path, checkpoint: Path) -> None:
    for asked, shown in (("5", 4), ("64", COUNT - 1)):
        result = run("ask", str(images), ROOM, "--model", str(checkpoint), "--keyframes", asked, "--json")
        assert len(json.loads(result.stdout)["evidence"]) == shown


def test_only_those_between_two_moments(model: LoadingModel, images: Path, checkpoint: Path) -> None:
    window = ("--window-start", "0004", "--window-end", "0009")
    result = run("ask", str(images), ROOM, "--model", str(checkpoint), *window)
    assert "6 images, 0004 (+0.13 s) to 0009 (+0.30 s)" in result.stdout


def test_its_answer_has_pictures_in_a_report(
    model: LoadingModel, images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    run("ask", str(images), ROOM, "--model", str(checkpoint), "--report", str(tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 16
    assert "no longer in memory" not in page


def test_nothing_is_measured_in_images_alone(model: LoadingModel, images: Path, checkpoint: Path) -> None:
    marked = ("How far is <p0> from the camera?", "--point", "0003,80,60")
    answer = json.loads(run("ask", str(images), *marked, "--model", str(checkpoint), "--json", code=1).stdout)
    assert answer["error_code"] == "NO_FRAMES"
    assert "nothing can be measured in images without poses" in answer["error_msg"]
    assert not model.asked
    model.answers = lambda question, frames: "about 4 meters"
    words = "What is the height of the ceiling?"
    answer = json.loads(run("ask", str(images), words, "--model", str(checkpoint), "--json").stdout)
    assert (answer["source"], answer["scale_source"]) == ("MODEL", "NONE")
    (asked,) = model.asked
    assert asked.question.text == "What is the height of the ceiling (in meters)?"


def test_without_a_model_it_is_as_ever(images: Path) -> None:
    result = run("ask", str(images), ROOM, "--json", code=1)
    answer = json.loads(result.stdout)
    assert (answer["error_code"], answer["error_msg"].split(":")[0]) == ("NO_FRAMES", "nothing has been seen yet")


def test_frames_that_can_be_placed_come_first(room: list[Frame]) -> None:
    """Ids are of one series, so that a model never takes one image for another."""
    model = FakeModel({ROOM: "a kitchen"})
    placed = [replace(f, T_world_camera=None) if i < 10 else f for i, f in enumerate(room)]
    session = Session(Recording(placed), model=ModelBackend(model))
    session.stream(limit=10)
    before = session.engine.answer(Request(ROOM)).evidence
    session = Session(Recording(placed), model=ModelBackend(model))
    session.stream()
    after = session.engine.answer(Request(ROOM)).evidence
    assert {e.stamp_ns for e in before} <= {f.stamp_ns for f in placed[:10]}
    assert {e.stamp_ns for e in after} <= {f.stamp_ns for f in placed[10:]}
    assert not {e.keyframe_id for e in before} & {e.keyframe_id for e in after}


def test_images_that_nothing_places_stay_bounded() -> None:
    ids = iter(range(10**6))
    held = UnplacedFrames(lambda: next(ids), max_frames=16, max_bytes=10 * 300)
    for i in range(1000):
        held.add(Frame(i, "camera", image=np.zeros((10, 10, 3), np.uint8)))
        assert len(held) <= 10
        assert held.nbytes == 300 * len(held)
    stamps = [stored.frame.stamp_ns for stored in held.frames()]
    assert np.ptp(np.diff(stamps)) == 0, "evenly spaced"
    assert (stamps[0], stamps[-1] > 750) == (0, True)
    held.add(Frame(5000, "camera"))
    assert held.keyframes(3).picked == tuple(held.frames()[i].frame_id for i in (0, len(held) // 2, len(held) - 1))
    assert held.keyframes(3, 10_000).picked == ()


# ---- geometry from color


def test_images_alone_are_known_up_to_scale(predictor: Predictor, images: Path, checkpoint: Path) -> None:
    option = ("--rgb-geometry", str(checkpoint))
    travelled = run("ask", str(images), "How far did the camera travel?", *option, "--json", code=1)
    answer = json.loads(travelled.stdout)
    assert answer["error_code"] == "SCALE_UNAVAILABLE"
    assert "so nothing tells metres" in answer["error_msg"]
    assert "no metres: the images come without poses and without depth" in travelled.stderr
    assert predictor.closed
    turned = json.loads(run("ask", str(images), "By how many degrees did the camera turn?", *option, "--json").stdout)
    assert (turned["error_code"], turned["scale_source"]) == ("NONE", "NONE")


def test_a_replay_tells_what_became_of_them(
    predictor: Predictor, images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    option = ("--rgb-geometry", str(checkpoint), "--report", str(tmp_path / "out"))
    told = json.loads(run("replay", str(images), *option, "--json").stdout)
    found = told["geometry_from_color"]
    assert (told["taken"], found["scale_source"], found["world_frame"]) == (COUNT, "NONE", "up_to_scale_0")
    assert found["windows"] >= 3
    assert told["keyframes"]
    assert told["voxel_size_m"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert "(not metres)" in page
    assert "nothing tells metres" in page


def test_odometry_gives_metres(room: list[Frame]) -> None:
    source = Recording(replace(f, depth=None, world_frame="odom") for f in room)
    source.info = replace(source.info, world_frame="odom")
    session = Session(source, geometry=RgbGeometry(StandInPredictor(room), RgbGeometryConfig.for_recordings()))
    assert session.stream().taken == COUNT
    answer = session.engine.answer(Request("How far did the camera travel?"))
    assert (answer.error_code, answer.scale_source) == (ErrorCode.NONE, ScaleSource.ODOM)
    found = geometry.report(session)
    assert found is not None
    assert found["scale_stddev"] < 0.05
    assert "metres from odometry ±" in geometry.words(session, None)


@pytest.mark.parametrize("command", [("ask", "{}", "why?"), ("replay", "{}")])
def test_what_is_wrong_with_the_checkpoint_is_said_before_anything_is_streamed(
    command: tuple[str, ...], predictor: Predictor, images: Path, checkpoint: Path
) -> None:
    arguments = [part.format(images) for part in command]
    missing = run(*arguments, "--rgb-geometry", "facebook/VGGT-0B", code=2)
    assert "spatial-mllm download facebook/VGGT-0B" in missing.stderr
    predictor.refusal = "there is not enough memory"
    refused = run(*arguments, "--rgb-geometry", str(checkpoint), code=2)
    assert "there is not enough memory" in refused.stderr
    (checkpoint / "config.json").write_text('{"random_weights": true}')
    random = run(*arguments, "--rgb-geometry", str(checkpoint), code=2)
    assert "nobody trained it" in random.stderr


# ---- with real ones, whose weights are random


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="models need torch: pip install 'spatial_mllm_ros[model]'")
    from spatial_mllm_ros.models import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_the_whole_path_with_weights_that_know_nothing(tiny: Path, images: Path) -> None:
    """Processes, checkpoints, windows: all but trained weights. No metres are made up, and the model answers."""
    result = run(
        *("ask", str(images), ROOM, "--limit", "12", "--keyframes", "4", "--json"),
        *("--model", str(tiny), "--rgb-geometry", str(tiny), "--allow-random-weights", "--device", "cpu"),
    )
    answer = json.loads(result.stdout)
    assert answer["error_code"] == "NONE", answer["error_msg"]
    assert (answer["source"], answer["scale_source"]) == ("MODEL", "NONE")
    assert [round(e["stamp_ns"] * 30 / 1e9) for e in answer["evidence"]] == [0, 4, 7, 11], "whatever was placed"
    assert "no metres" in result.stderr
    assert geometry.NOISE in result.stderr
    assert models.NOISE in result.stderr
