"""The whole node with a model, as users run it: a process on DDS, its model in a process of its own, weights random."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_dds_live import COMMAND, SCENE, line_with, running, wait_for

from spatial_mllm_ros.clients.client import SpatialQueryClient
from spatial_mllm_ros.dds import DdsNode, ServiceTimeout, is_installed
from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.dds_node import SpatialMllmDdsNode
from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode
from spatial_mllm_ros.serving.interface import ModelFrame, ModelOptions, ModelQuestion, ModelUnavailable
from spatial_mllm_ros.serving.process import ProcessModel
from spatial_mllm_ros.simulation.rendered import RenderedSource

pytest.importorskip("torch", reason="models need torch: pip install 'spatial_mllm_ros[model]'")
pytestmark = pytest.mark.skipif(not is_installed(), reason="cyclonedds is not installed")

CHOICES = ("red", "green", "blue")
COLOR, TRAVELLED = "What color is the sofa?", "How far did the camera travel?"
ENDLESS = "Describe the room."
PATIENCE_S = 60.0
LONG = 1500
SMALL = (
    "allow_random_weights:=true", "model_min_pixels:=3136", "model_max_pixels:=12544", f"model_max_new_tokens:={LONG}",
    "min_model_confidence:=0.0", "model_context_period_s:=0.05", "keyframes_count:=8", "model_precision:=float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny one that never ends a free answer by itself, so that there is a middle of an answer to be killed in."""
    from spatial_mllm_ros.models import make_checkpoint

    folder = make_checkpoint(tmp_path_factory.mktemp("tiny"))
    path = folder / "generation_config.json"
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": vocabulary - 1}))
    return folder


@contextlib.contextmanager
def node_with(model: Path, *parameters: str) -> Iterator[subprocess.Popen[str]]:
    values = [part for value in (*SMALL, *parameters) for part in ("-p", value)]
    with running("up", "--fixed-frame", "map", "--model", str(model), "--ros-args", *values) as node:
        line_with(node, "the model is loaded")
        line_with(node, "listening to")
        yield node


@pytest.fixture(scope="module")
def node(checkpoint: Path, client: SpatialQueryClient) -> Iterator[subprocess.Popen[str]]:
    """A node that has seen a recording, and whose model has seen the keyframes of now when it answers."""
    with node_with(checkpoint, "timeout_s:=120.0", "model_context:=wait") as process:
        play("--rate", "4")
        wait_for(lambda: color(client).error_code is ErrorCode.NONE, "the first answer", PATIENCE_S)
        yield process


@pytest.fixture(scope="module")
def client() -> Iterator[SpatialQueryClient]:
    with SpatialQueryClient(ros_args=[], wait_s=PATIENCE_S) as made:
        yield made


def model_process(node: subprocess.Popen[str]) -> int:
    """Process id of the node's model."""
    children = Path(f"/proc/{node.pid}/task").glob("*/children")
    found = [int(pid) for path in children for pid in path.read_text().split()]
    (pid,) = (pid for pid in found if b"models.worker" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return pid


def play(*arguments: str) -> None:
    done = subprocess.run(
        [*COMMAND, "play", SCENE, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr


def color(client: SpatialQueryClient, **more: Any) -> Answer:
    return client.ask(COLOR, choices=CHOICES, **more)


def test_it_answers_while_keyframes_change(checkpoint: Path, client: SpatialQueryClient) -> None:
    """Every answer names frames of one context, the newest that was complete; later answers never rest on an older one."""
    stamps = {frame.stamp_ns for frame in RenderedSource.from_spec(SCENE).frames()}
    with node_with(checkpoint), running("play", SCENE, "--rate", "1") as player:
        answers: list[Answer] = []
        while player.poll() is None:
            answer = color(client)
            if answer.error_code is not ErrorCode.NO_FRAMES:
                answers.append(answer)
        last = wait_for(
            lambda: (a := color(client)).error_code is ErrorCode.NONE and len(a.evidence) == 8 and a, "an answer"
        )
        answers.append(last)
        distance = client.ask(TRAVELLED)
    assert {a.error_code for a in answers} == {ErrorCode.NONE}, [a.error_msg for a in answers if a.error_code]
    for answer in answers:
        assert (answer.answer_type, answer.source) == (AnswerType.CHOICE, AnswerSource.MODEL)
        assert answer.answer in CHOICES
        assert answer.confidence_method == "probability among choices"
        assert "random weights" in answer.model_id
        shown = [e.stamp_ns for e in answer.evidence]
        assert shown == sorted(set(shown))
        assert set(shown) <= stamps
        assert (answer.first_stamp, answer.last_stamp) == (shown[0], shown[-1])
    newest = [max(e.keyframe_id for e in a.evidence) for a in answers]
    assert newest == sorted(newest), "an answer rests on an older context than one before it"
    assert len({tuple(e.keyframe_id for e in a.evidence) for a in answers}) > 2, "the keyframes did not change"
    assert distance.source in (AnswerSource.GEOMETRY, AnswerSource.BOTH)


def test_sixty_four_calls_are_all_answered(node: subprocess.Popen[str], client: SpatialQueryClient) -> None:
    pending: list[Future[Answer]] = [client.ask_async(COLOR, choices=CHOICES) for _ in range(64)]
    answers = [future.result(PATIENCE_S) for future in pending]
    assert {a.error_code for a in answers} == {ErrorCode.NONE}
    given: dict[tuple[int, ...], set[tuple[str, float]]] = {}  # the frames of a busy machine may still be coming in
    for answer in answers:
        shown = tuple(evidence.stamp_ns for evidence in answer.evidence)
        given.setdefault(shown, set()).add((answer.answer, answer.confidence))
    assert all(len(same) == 1 for same in given.values()), f"the same question, the same frames, other answers: {given}"


def test_a_time_limit_ends_an_answer_between_two_tokens(
    node: subprocess.Popen[str], client: SpatialQueryClient
) -> None:
    """The model is free for the next question at once, not after the hundreds of tokens that were left."""
    begin = time.monotonic()
    whole = client.ask(ENDLESS)
    took = time.monotonic() - begin
    assert whole.error_code is ErrorCode.NONE, whole.error_msg
    late = client.ask(ENDLESS, timeout=int(took / 20 * 1e9))
    begin = time.monotonic()
    after = color(client)
    assert time.monotonic() - begin < took / 2
    assert late.error_code is ErrorCode.TIMEOUT
    assert after.error_code is ErrorCode.NONE


def test_text_comes_as_it_is_generated(node: subprocess.Popen[str], client: SpatialQueryClient) -> None:
    """Long before the whole answer. A model of noise writes pieces of characters, which wait for the rest of them."""
    heard: list[tuple[float, str]] = []
    begin = time.monotonic()
    answer = client.ask(ENDLESS, on_text=lambda piece: heard.append((time.monotonic() - begin, piece)))
    took = time.monotonic() - begin
    assert answer.error_code is ErrorCode.NONE, answer.error_msg
    assert answer.answer == client.ask(ENDLESS).answer
    text = "".join(piece for _, piece in heard)
    assert len(heard) > 1
    assert answer.answer.startswith(text.strip()[:50])
    assert heard[0][0] < took / 2


def test_a_goal_that_is_given_up_frees_the_model(node: subprocess.Popen[str], client: SpatialQueryClient) -> None:
    begin = time.monotonic()
    assert client.ask(ENDLESS).error_code is ErrorCode.NONE
    took = time.monotonic() - begin
    with DdsNode("impatient", ros_args=[]) as other:
        action = other.create_action_client(convert.ACTION_TYPE, "spatial_query")
        assert action.wait_for_server(PATIENCE_S)
        heard: list[Any] = []
        goal = convert.request_message(Request(ENDLESS), convert.RosbagsMaker(other.message), convert.GOAL)
        with pytest.raises(ServiceTimeout):
            action.call(goal, took / 4, heard.append)
        begin = time.monotonic()
        after = color(client)
        assert time.monotonic() - begin < took / 2
    assert heard
    assert after.error_code is ErrorCode.NONE


def test_the_model_is_killed_mid_answer(node: subprocess.Popen[str], client: SpatialQueryClient) -> None:
    """Its question says so, geometry goes on, and the model comes back with its context by itself."""
    before = color(client)
    asked = client.ask_async(ENDLESS)
    pid = model_process(node)
    wait_for(lambda: _busy(pid), "the model at work")
    os.kill(pid, signal.SIGKILL)
    answer = asked.result(PATIENCE_S)
    assert (answer.error_code, "signal 9" in answer.error_msg) == (ErrorCode.MODEL_ERROR, True), answer.error_msg
    assert client.ask(TRAVELLED).error_code is ErrorCode.NONE
    after = color(client)
    assert model_process(node) != pid
    assert (after.error_code, after.answer) == (ErrorCode.NONE, before.answer), after.error_msg
    assert after.confidence == pytest.approx(before.confidence, abs=1e-6)
    assert [e.keyframe_id for e in after.evidence] == [e.keyframe_id for e in before.evidence]


def test_it_ends_in_good_order(node: subprocess.Popen[str], client: SpatialQueryClient) -> None:
    """And takes its model along, which is in the middle of an answer. The last of these tests."""
    asked = client.ask_async(ENDLESS)
    pid = model_process(node)
    wait_for(lambda: _busy(pid), "the model at work")
    node.send_signal(signal.SIGINT)
    assert asked.result(PATIENCE_S).error_code is ErrorCode.CANCELLED
    _, said = node.communicate(timeout=20)
    assert node.returncode == 0, said
    assert "Traceback" not in said
    assert not Path(f"/proc/{pid}").exists()


def _busy(pid: int) -> bool:
    """Whether a process has computed since it was last looked at: within 50 ms."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(0.05)
    return ticks() > before


def test_what_cannot_be_loaded_fails_the_configuration(checkpoint: Path, tmp_path: Path) -> None:
    """The reason is told, and nothing is left running."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in checkpoint.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with running("up", "--model", str(broken), "--ros-args", "-p", "allow_random_weights:=true") as node:
        _, said = node.communicate(timeout=PATIENCE_S)
    assert node.returncode == 2
    assert "cannot be configured" in said
    assert "model.safetensors" in said
    assert "Traceback" not in said


def test_an_encoder_that_cannot_be_used_leaves_the_node_configurable(checkpoint: Path, tmp_path: Path) -> None:
    """The reason is told before any weight is read, and the same node then takes a right parameter."""
    pytest.importorskip("onnx", reason="exported files need onnx: pip install 'spatial_mllm_ros[onnx]'")
    text = tmp_path / "text.onnx"
    text.write_text("this is no graph")
    values = {
        "model": str(checkpoint),
        "allow_random_weights": True,
        "model_precision": "float32",
        "model_encoder_runtime": "onnx",
        "model_encoder_file": str(text),
    }
    with contextlib.closing(SpatialMllmDdsNode((), values)) as node:
        assert not node.start()
        assert f"{text} is not an ONNX file" in node.failure
        assert node.parameters.set({"model_encoder_runtime": "torch"}).successful
        assert node.start(), node.failure


def test_the_model_in_another_python(checkpoint: Path, tmp_path: Path) -> None:
    """Where ROS 2 runs on the system's Python, torch lives in a virtual environment, which has no package of ours."""
    venv.create(tmp_path / "venv", with_pip=False)
    (folder,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # In a .pth file's folder no other .pth file counts, so what is installed editable here is not found there.
    (folder / "libraries.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    python = tmp_path / "venv/bin/python"
    options = ModelOptions(str(checkpoint), min_pixels=3136, max_pixels=12544, precision="float32")
    model = ProcessModel(options, python=str(python))
    frames = [ModelFrame(i, i * 10**8, np.full((56, 56, 3), 40 * i, np.uint8)) for i in range(4)]
    with contextlib.closing(model):
        model.start()
        model.wait_loaded(PATIENCE_S)
        assert model.pid is not None
        assert Path(f"/proc/{model.pid}/cmdline").read_bytes().startswith(str(python).encode())
        said = model.ask(ModelQuestion(COLOR, CHOICES), frames, timeout_s=PATIENCE_S)
    assert (said.text in CHOICES, said.frame_ids) == (True, (0, 1, 2, 3))
    missing = ProcessModel(options, python=str(tmp_path / "nothing"))
    with contextlib.closing(missing):
        missing.start()
        with pytest.raises(ModelUnavailable, match="cannot be started"):
            missing.wait_loaded(PATIENCE_S)
