"""ask --model: what a model adds, what it says while it says it, and what can be wrong with one."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_model import FakeModel, Said

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.commands import models
from spatial_mllm_ros.serving.interface import ModelOptions, ModelQuestion, ModelUnavailable
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.writers import write_folder

RECORDING: list[str] = []
ROOM = "What kind of room is this?"


class LoadingModel(FakeModel):
    """A scripted model that loads, as one in a process of its own."""

    started = closed = False
    refusal = ""

    def start(self) -> None:
        self.started, self.closed, self._closed = True, False, False
        if self.refusal:
            self.go_down(self.refusal)

    def wait_loaded(
        self, timeout_s: float = math.inf, on_progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        if self.refusal:
            raise ModelUnavailable(self.refusal)
        if on_progress is not None:
            on_progress("reading", 50, 100)

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.fixture(scope="module", autouse=True)
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is asked about."""
    folder = tmp_path_factory.mktemp("recording") / "room"
    write_folder(RenderedSource.from_spec("rendered:frames=8,size=64x48,rooms=1"), folder)
    RECORDING.append(str(folder))
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> LoadingModel:
    """What ask is given instead of a real one."""
    fake = LoadingModel({ROOM: "a kitchen with a table"})
    monkeypatch.setattr(models, "make_model", lambda options: fake)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        models.importlib.util, "find_spec", lambda name: True if name in ("torch", "transformers") else found(name)
    )
    return fake


def ask(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["ask", RECORDING[-1], *arguments])
    assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    return result


def test_a_model_answers_what_is_not_measured(model: LoadingModel, checkpoint: Path) -> None:
    result = ask(ROOM, "--model", str(checkpoint))
    for words in (
        "a kitchen with a table",
        "sequence probability",
        "model (fake)",
        "8 images, frame-000000 (+0.00 s)",
        "seen by the model",
    ):
        assert words in result.stdout
    assert "fake: 8 keyframes encoded in" in result.stderr
    assert model.started
    assert model.closed


def test_it_is_warm_and_about_all_that_was_streamed(model: LoadingModel, checkpoint: Path) -> None:
    answer = json.loads(ask(ROOM, "--model", str(checkpoint), "--keyframes", "4", "--json").stdout)
    assert answer["source"] == "MODEL"
    assert answer["model_id"] == "fake"
    assert len(answer["evidence"]) == 4
    assert answer["time_encoding"] == 0, "encoded before it was asked"
    (asked,) = model.asked
    assert asked.frames is None
    assert asked.timeout_s > 500


def test_geometry_measures_and_the_model_confirms(model: LoadingModel, checkpoint: Path) -> None:
    question = "How long is the path?"
    alone = json.loads(ask(question, "--json").stdout)
    model.answers = lambda question, frames: Said("0.5 m", 0.95)
    answer = json.loads(ask(question, "--model", str(checkpoint), "--json").stdout)
    assert answer["source"] == "BOTH"
    assert answer["value"] == alone["value"]
    assert "the model says 0.5 m" in answer["answer"]


def test_many_questions(model: LoadingModel, checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "questions.json"
    either = {"question": "Is it a kitchen or a bathroom?", "choices": ["kitchen", "bathroom"]}
    truth = {"answer_type": "CHOICE", "choice_index": 0}
    file.write_text(json.dumps({"questions": [{"question": ROOM}, either | {"expect": truth}]}))
    result = ask("--questions", str(file), "--model", str(checkpoint))
    assert "a kitchen with a table" in result.stdout
    assert "1 of 1 right" in result.stdout


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_one_that_cannot_be_loaded_is_one_line(
    model: LoadingModel, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    """At once, not when a long recording has been streamed."""
    monkeypatch.setattr(LoadingModel, "refusal", "5.3 GB are needed and 2.0 GB are free: choose a smaller precision")
    result = ask(ROOM, "--model", str(checkpoint), *how, code=2)
    assert result.stderr.splitlines()[-1] == "Error: 5.3 GB are needed and 2.0 GB are free: choose a smaller precision"
    assert result.stdout == ""
    assert model.closed


def test_what_names_no_model(model: LoadingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said = ask(ROOM, "--model", "Diankun/no-such-model", code=2).stderr
    assert "spatial-mllm download Diankun/no-such-model" in said
    assert "no config.json" in ask(ROOM, "--model", str(tmp_path), code=2).stderr
    assert "neither a folder" in ask(ROOM, "--model", "/no/such/folder", code=2).stderr
    assert not model.started


def test_without_the_extra(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'spatial_mllm_ros[model]'" in ask(ROOM, "--model", str(checkpoint), code=2).stderr


def test_random_weights_are_refused_or_marked(model: LoadingModel, checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text('{"random_weights": true}')
    assert "its words mean nothing" in ask(ROOM, "--model", str(checkpoint), code=2).stderr
    assert not model.started
    allowed = ["--model", str(checkpoint), "--allow-random-weights"]
    assert "the model's words are noise" in ask(ROOM, *allowed).stdout
    result = ask(ROOM, *allowed, "--json")
    assert "the model's words are noise" in result.stderr
    json.loads(result.stdout)
    assert "noise" not in ask("How long is the path?", *allowed, "--point", "frame-000001,3,4").stdout


def test_options_reach_the_model(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, model: LoadingModel) -> None:
    seen: list[ModelOptions] = []
    monkeypatch.setattr(models, "make_model", lambda options: (seen.append(options), model)[1])
    ask(ROOM, "--model", str(checkpoint), "--precision", "int8", "--device", "cuda:1", "--model-timeout", "7")
    assert seen == [ModelOptions(str(checkpoint), "int8", "cuda:1", max_context_frames=16)]
    assert model.asked[0].timeout_s < 7
    assert "int3" in ask(ROOM, "--model", str(checkpoint), "--precision", "int3", code=2).stderr


def test_an_exported_encoder_reaches_the_model(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, model: LoadingModel
) -> None:
    seen: list[ModelOptions] = []
    monkeypatch.setattr(models, "make_model", lambda options: (seen.append(options), model)[1])
    named = ["--model", str(checkpoint), "--encoder-file", "encoder.onnx"]
    ask(ROOM, *named)
    ask(ROOM, *named, "--encoder-runtime", "auto", "--encoder-providers", "cpu", "--encoder-engine-folder", "engines")
    assert [(o.encoder_runtime, o.encoder_file, o.encoder_providers, o.encoder_engine_folder) for o in seen] == [
        ("onnx", "encoder.onnx", "auto", ""),
        ("auto", "encoder.onnx", "cpu", "engines"),
    ]
    without_file = ask(ROOM, "--model", str(checkpoint), "--encoder-runtime", "onnx", code=2)
    assert "--encoder-file" in without_file.stderr
    assert "--model" in ask(ROOM, "--encoder-file", "encoder.onnx", code=2).stderr


def test_a_model_that_fails_at_a_question_is_an_answer(model: LoadingModel, checkpoint: Path) -> None:
    def fail(question: ModelQuestion, frames: Any) -> Said:
        raise_ = ModelUnavailable("out of memory on cuda:0")
        return Said(error=raise_)

    model.answers = fail
    answer = json.loads(ask(ROOM, "--model", str(checkpoint), "--json", code=1).stdout)
    assert answer["error_code"] == "MODEL_ERROR"
    assert "out of memory" in answer["error_msg"]


def test_a_checkpoint_in_a_process_of_its_own(tmp_path: Path) -> None:
    """As users run it, but for the weights, which nobody trained."""
    pytest.importorskip("transformers", reason="the extra model is not installed")
    from spatial_mllm_ros.models import make_checkpoint

    folder = make_checkpoint(tmp_path / "noise")
    assert "mean nothing" in ask(ROOM, "--model", str(folder), code=2).stderr
    choices = ["--choice", "kitchen", "--choice", "bathroom"]
    how = ["--model", str(folder), "--allow-random-weights", "--keyframes", "2", "--json"]
    result = ask("Is it a kitchen or a bathroom?", *choices, *how)
    answer = json.loads(result.stdout)
    assert (answer["source"], answer["answer_type"]) == ("MODEL", "CHOICE")
    assert answer["choice_index"] in (0, 1)
    assert "random weights" in answer["model_id"]
    assert len(answer["evidence"]) == 2
    assert "2 keyframes encoded in" in result.stderr
    assert "noise" in result.stderr


SHOWN = """
import sys, time
sys.path.insert(0, {folder!r})
from test_ask_model import *
class Slow(LoadingModel):
    def _said(self, question, about):
        return Said("one two three four five six", seconds=0.2)
    def wait_loaded(self, timeout_s=0, on_progress=None):
        for done in range(3):
            on_progress("reading model.safetensors", done * 50, 100)
            time.sleep(0.15)
models.make_model = lambda options: Slow()
found = importlib.util.find_spec
models.importlib.util.find_spec = lambda name: True if name in ("torch", "transformers") else found(name)
main(["ask", {source!r}, {question!r}, "--model", {model!r}])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_on_a_terminal_words_come_as_they_are_said(checkpoint: Path) -> None:
    code = SHOWN.format(folder=str(Path(__file__).parent), source=RECORDING[-1], question=ROOM, model=str(checkpoint))
    screen, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    running = subprocess.Popen([sys.executable, "-c", code], stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    seen = b""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            chunk = os.read(screen, 65536)
        except OSError:  # the other end is gone
            break
        if not chunk:
            break
        seen += chunk
    assert running.wait(10) == 0, seen.decode(errors="replace")
    os.close(screen)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert "reading model.safetensors" in text
    assert "asking the model" in text
    assert text.rstrip().splitlines()[-1].startswith("latency")
    assert "one two three four five six" in text
