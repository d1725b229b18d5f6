"""Geometry from color in a process of its own: windows there and back, processes that die, checkpoints that are refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_predictor
import numpy as np
import pytest
from numpy.typing import NDArray

from spatial_mllm_ros.scene.window import InvalidWindow
from spatial_mllm_ros.serving.geometry_process import GeometryOptions, PredictorLost, ProcessPredictor
from spatial_mllm_ros.serving.interface import ModelUnavailable

LONG_S = 60.0
"""More than anything here takes, on any machine."""
Start = Callable[..., ProcessPredictor]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Makes processes, loaded, and ends them."""
    made = []

    def make(load: str = "load", **options: Any) -> ProcessPredictor:
        predictor = ProcessPredictor(GeometryOptions(str(tmp_path)), f"fake_predictor:{load}", **options)
        made.append(predictor)
        predictor.start()
        predictor.wait_loaded(LONG_S)
        return predictor

    yield make
    for predictor in made:
        predictor.close()


def window(what: int = fake_predictor.GEOMETRY, count: int = 3) -> NDArray[np.uint8]:
    images = np.zeros((count, 6, 8, 3), np.uint8)
    images[0, 0, 0, 0] = what
    images[:, 0, 1] = np.arange(count)[:, None]
    return images


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def test_geometry_comes_back_as_it_was_predicted(start: Start) -> None:
    predictor = start()
    assert predictor.name == "a flat world"
    found, here = predictor.predict(window()), fake_predictor.flat(window())
    for name in ("T_window_camera", "K", "depth", "confidence"):
        np.testing.assert_array_equal(getattr(found, name), getattr(here, name))
        assert getattr(found, name).dtype == getattr(here, name).dtype
    status = predictor.status()
    assert (status.state, status.answered, status.failed) == ("ready", 1, 0)
    assert status.memory.get("process", 1) > 0


def test_what_is_no_geometry_is_a_reason_and_the_process_goes_on(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = start()
    with pytest.raises(InvalidWindow, match="not rigid") as nonsense:
        predictor.predict(window(fake_predictor.NONSENSE))
    assert nonsense.value.reason == "not_rigid"
    with pytest.raises(InvalidWindow, match="RuntimeError: out of memory") as failed:
        predictor.predict(window(fake_predictor.ERROR))
    assert failed.value.reason == "predictor_failed"
    assert "could not be predicted" in caplog.text  # its traceback, from there
    assert len(predictor.predict(window())) == 3
    assert predictor.status().failed == 2


def test_a_process_that_dies_costs_one_window(start: Start, tmp_path: Path) -> None:
    predictor = start(restart_after_s=(0.0, 0.0), quick_s=0.0)
    with pytest.raises(PredictorLost, match="was killed") as lost:
        predictor.predict(window(fake_predictor.DEATH))
    assert lost.value.reason == "predictor_lost"
    assert len(predictor.predict(window())) == 3, "the next waits for the successor"
    assert (tmp_path / fake_predictor.LOADED).read_text() == "xx"


def test_one_that_dies_while_it_waits_is_replaced_too(start: Start) -> None:
    predictor = start(restart_after_s=(0.0,), quick_s=0.0)
    first = predictor.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: predictor.pid not in (first, None) and predictor.status().state == "ready")
    assert len(predictor.predict(window())) == 3


def test_one_that_dies_again_and_again_is_given_up(start: Start) -> None:
    predictor = start(restart_after_s=(0.0,))
    for _ in range(2):
        with pytest.raises(PredictorLost, match="was killed"):
            predictor.predict(window(fake_predictor.DEATH))
    until(lambda: predictor.status().state == "failed")
    assert "given up after 2 times" in predictor.status().reason
    with pytest.raises(PredictorLost, match="given up"):
        predictor.predict(window())


def test_one_that_is_stuck_is_ended(start: Start) -> None:
    predictor = start(restart_after_s=(0.0,), stuck_s=0.3)
    with pytest.raises(PredictorLost, match="was stuck"):
        predictor.predict(window(fake_predictor.STUCK))


def test_closing_does_not_wait_for_a_window(start: Start) -> None:
    predictor = start()
    lost: list[InvalidWindow] = []

    def predict() -> None:
        try:
            predictor.predict(window(fake_predictor.STUCK))
        except InvalidWindow as error:
            lost.append(error)

    thread = threading.Thread(target=predict)
    thread.start()
    until(lambda: predictor.status().state == "answering")
    pid = predictor.pid
    assert pid is not None
    predictor.close()
    thread.join(LONG_S)
    assert "was closed" in str(lost[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("load", "says"),
    [("refuse", "7.0 GiB are needed"), ("leave", "the driver is too old"), ("nothing", "no attribute 'nothing'")],
)
def test_what_cannot_be_loaded_says_why(start: Start, load: str, says: str) -> None:
    with pytest.raises(ModelUnavailable, match=says):
        start(load)


def test_a_python_that_is_not_there(start: Start) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be started"):
        start(python="/nowhere/bin/python")


def test_the_node_s_process_stays_light() -> None:
    code = "import spatial_mllm_ros.serving.geometry_process, sys; print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


# ---- VGGT itself


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As facebook/VGGT-1B is published: plain names, and in its config.json its sizes."""
    pytest.importorskip("torch", reason="VGGT needs torch: pip install 'spatial_mllm_ros[model]'")
    from safetensors.torch import save_file
    from test_vggt_predictor import SMALL, small

    folder = tmp_path_factory.mktemp("vggt")
    save_file(small().state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SMALL), encoding="utf-8")
    return folder


def test_vggt_in_its_process_is_vggt(checkpoint: Path) -> None:
    from spatial_mllm_ros.models.worker.geometry_predictor import load_predictor

    options = GeometryOptions(str(checkpoint), "float32", "cpu", width=56, threads=1)
    predictor = ProcessPredictor(options)
    predictor.start()
    try:
        predictor.wait_loaded(LONG_S)
        images = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3)).astype(np.uint8)
        found = predictor.predict(images)
    finally:
        predictor.close()
    expected = load_predictor(str(checkpoint), width=56).predict(images)
    assert found.depth.shape == (3, 42, 56)
    np.testing.assert_allclose(found.depth, expected.depth, rtol=1e-3)
    np.testing.assert_allclose(found.T_window_camera, expected.T_window_camera, atol=1e-4)


def test_reading_the_weights_is_told_in_bytes(checkpoint: Path) -> None:
    from spatial_mllm_ros.models.worker.geometry_worker import load_predictor

    told: list[tuple[str, int, int]] = []
    load_predictor(GeometryOptions(str(checkpoint), device="cpu", width=56, threads=1), lambda *each: told.append(each))
    read = [(done, total) for doing, done, total in told if doing.startswith("reading the weights of vggt")]
    assert 0 < read[0][0] <= read[-1][0] == read[-1][1]


def test_memory_is_counted_before_loading(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatial_mllm_ros.models.weights import preflight
    from spatial_mllm_ros.models.worker import geometry_worker

    options = GeometryOptions(str(checkpoint), device="cpu")
    needed = geometry_worker.needed_bytes(options)
    assert geometry_worker.needed_bytes(replace(options, width=1036)) > 3 * needed
    monkeypatch.setattr(preflight, "free_memory", lambda _: needed - 1)
    with pytest.raises(ModelUnavailable, match="choose smaller windows"):
        geometry_worker.load_predictor(options)


def test_a_checkpoint_without_the_heads_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from spatial_mllm_ros.models.worker.geometry_worker import load_predictor

    kept = {k: v for k, v in load_file(checkpoint / "model.safetensors").items() if not k.startswith("depth_head.")}
    save_file(kept, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    with pytest.raises(ModelUnavailable, match="camera and depth heads"):
        load_predictor(GeometryOptions(str(tmp_path), device="cpu"))


def test_doctor_knows_what_it_is_for(checkpoint: Path) -> None:
    from spatial_mllm_ros.commands.doctor import fit
    from spatial_mllm_ros.models.worker.machine import Device
    from spatial_mllm_ros.serving.checkpoints.hub import Checkpoint

    words = fit(Checkpoint("somebody/VGGT", checkpoint, 1000), Device("cpu", "a CPU", 1000, 1000, False))
    assert "for geometry from color (rgb_geometry): needs 0." in words
    assert words.endswith("GB on cpu (too much)")
