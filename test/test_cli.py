"""The command line: every command, what users can get wrong, and the JSON that other programs read."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.queries.answer import Answer

SMALL = "rendered:frames=40,size=160x120,rooms=1"
TINY = "rendered:frames=8,size=64x48,rooms=1"


def run(*arguments: str, code: int | None = 0) -> Result:
    """code: that it must exit with; None: whether all is right is not the point."""
    result = CliRunner().invoke(main, arguments)
    allowed = (0, 1) if code is None else (code,)
    assert result.exit_code in allowed, f"{result.exit_code}: {result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    return result


def write_json(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered recording on disk with its questions."""
    folder = tmp_path_factory.mktemp("render") / "house"
    run("render", str(folder), SMALL, "--questions", "12", "--no-noise")
    return folder


@pytest.mark.parametrize(
    "command", ["", "ask", "replay", "render", "demo", "doctor", "download", "questions", "bench", "bench selection"]
)
def test_help_teaches(command: str) -> None:
    result = run(*command.split(), "--help")
    assert "spatial-mllm" in result.output
    if command:
        assert "Examples:" in result.output


def test_replay_shows_keyframes_and_costs() -> None:
    result = run("replay", SMALL)
    for words in ("frame-0000", "voxels gained", "evenly spaced", "cost of a frame", "median"):
        assert words in result.stdout


def test_replay_json_is_pure_and_consistent() -> None:
    summary = json.loads(run("replay", SMALL, "--json", "--keyframes", "4").stdout)
    assert summary["frames"] == summary["taken"] == summary["held"] == 40
    gains = [k["voxels_gained"] for k in summary["keyframes"]]
    assert len(gains) == 4
    assert gains == sorted(gains, reverse=True)
    curve = summary["coverage_over_time"]
    assert len(curve["seconds"]) == len(curve["streaming"]) == len(curve["uniform"]) <= 81
    assert curve["seconds"] == sorted(curve["seconds"])
    assert all(0 < share <= 1 for share in curve["streaming"] + curve["uniform"])
    assert curve["streaming"][0] == curve["uniform"][0] == 1.0, "as long as all frames fit, both cover everything"


def test_replay_stops_at_the_limit_and_keeps_the_bound() -> None:
    summary = json.loads(run("replay", SMALL, "--json", "--limit", "20", "--max-frames", "5").stdout)
    assert (summary["frames"], summary["held"], summary["evicted"]) == (20, 5, 15)


def test_replay_of_images_says_that_they_carry_no_geometry(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"image{i}.jpg"), np.full((24, 32, 3), 40 * i, np.uint8))
    result = run("replay", str(tmp_path))
    assert "no geometry" in result.stdout.replace("\n", " ")
    assert "3 no_pose" in result.stdout
    assert json.loads(run("replay", str(tmp_path), "--json").stdout)["refused"] == {"no_pose": 3}
    asked = run("ask", str(tmp_path), "How high is the ceiling?", "--json", code=1)
    assert json.loads(asked.stdout)["error_code"] == "NO_FRAMES"


def test_ask_for_people() -> None:
    result = run(
        "ask", SMALL, "How far apart are <p0> and <p1>?", "--point", "frame-000003,80,60", "--point", "+3.2,30,40"
    )
    for words in ("m ±", "deviation", "confidence", "geometry", "frame-000032", "pixel (30, 40)", "ms"):
        assert words in result.stdout


def test_ask_json_is_the_answer_with_its_id() -> None:
    result = run("ask", SMALL, "What is the depth of <p0>?", "--point", "frame-000003,80,60", "--json")
    answer = json.loads(result.stdout)
    assert set(answer) == {f.name for f in dataclasses.fields(Answer)} | {"id", "question", "latency_ms"}
    assert answer["error_code"] == "NONE"
    assert answer["answer_type"] == "NUMBER"
    assert answer["unit"] == "m"
    assert answer["evidence"][0]["u"] == 80


def test_a_typed_query_is_asked_without_words(tmp_path: Path) -> None:
    query = json.dumps({"ask": {"type": "value", "of": {"type": "depth", "of": {"type": "point", "index": 0}}}})
    (tmp_path / "query.json").write_text(query)
    of = ("--point", "frame-000003,80,60", "--json")
    typed = json.loads(run("ask", SMALL, "--query", query, *of).stdout)
    assert typed["error_code"] == "NONE"
    in_words = json.loads(run("ask", SMALL, "What is the depth of <p0>?", *of).stdout)
    for again in (in_words, json.loads(run("ask", SMALL, "--query", f"@{tmp_path / 'query.json'}", *of).stdout)):
        assert again["value"] == typed["value"]
        assert again["read_as"] == typed["read_as"]


def test_what_is_no_query_says_what_is_wrong_and_where_the_schema_is() -> None:
    result = run("ask", SMALL, "--query", '{"ask": {"type": "valu"}}', code=2)
    assert "query.ask.type must be one of" in result.stderr
    assert "--schema" in result.stderr


def test_ask_without_a_source_uses_the_rendered_house(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatial_mllm_ros.commands import common

    specs: list[str] = []
    original = common.open_source
    monkeypatch.setattr(common, "open_source", lambda spec, _: (specs.append(spec), original(TINY))[1])
    run("ask", "How long is the path?")
    assert specs == ["rendered"]


def test_unknown_frames_are_an_answer_not_a_crash() -> None:
    answer = json.loads(run("ask", TINY, "What is the depth of <p0>?", "--point", "nowhere,1,2", "--json", code=1).stdout)
    assert answer["error_code"] == "INVALID_REQUEST"
    assert "nowhere" in answer["error_msg"]
    assert "<p0>" in answer["error_msg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("replay", "/no/such/recording"), "does not exist"),
        (("replay",), "Missing argument"),
        (("replay", TINY, "--rate", "-1"), "-1"),
        (("replay", TINY, "--rate", "nan"), "no pace"),
        (("replay", "rendered:frames=many"), "frames=many"),
        (("ask",), "what is the question"),
        (("ask", TINY, "a", "b"), "quotes"),
        (("ask", TINY, "  "), "empty"),
        (("ask", TINY, "?" * 30), "no word"),
        (("ask", TINY, "How high? " * 1_000_000), "10000000 characters"),
        (("ask", TINY, "How high is \udcff?"), "UTF-8"),
        (("ask", TINY, "What is the depth of <p0>?", "--point", "frame-000001,3"), "FRAME,U,V"),
        (("ask", TINY, "How tall is <box0>?", "--box", "frame-000001,3,x,4,5"), "FRAME,U0,V0,U1,V1"),
        (("ask", TINY, "--questions", "/no/such/file.json"), "does not exist"),
        (("render", "/tmp", TINY), "exists already"),
        (("demo", "--source", "/no/such"), "rendered"),
        (("nonsense",), "No such command"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_get_one_clear_line(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments, code=2)
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe{}", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "questions"),
        (b'{"questions": [3]}', "question 1: it must be a JSON object"),
        (b'{"questions": [{"question": 5}]}', '"question" must be a string'),
        (b'{"questions": [{"question": "a", "points": [{"frame": "x", "u": "1", "v": 2}]}]}', '"points[0].u"'),
        (b'{"questions": [{"question": "a", "times": [{"frame": null}]}]}', '"times[0].frame"'),
        (b'{"questions": [{"question": "a", "choices": "ab"}]}', '"choices" must be a list'),
        (b'{"questions": [{"question": "a", "id": "x"}, {"question": "b", "id": "x"}]}', "more than once"),
        (b'{"questions": [{"question": "a", "expect": {"answer_type": "TEXT"}}]}', "cannot be judged"),
        (b'{"questions": [{"question": "a", "expect": {"answer_type": "NUMBER", "value": 1}}]}', "expect.accept"),
        (b'{"questions": [{"question": "a", "expect": {"error_code": "OOPS"}}]}', "OOPS"),
        (b" " * (9 << 20), "at most 8 MB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_questions_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "questions.json"
    path.write_bytes(content)
    assert message in run("ask", TINY, "--questions", str(path), code=2).stderr


def test_one_bad_question_does_not_stop_the_others(tmp_path: Path) -> None:
    questions = [
        {"question": "x" * 5000},
        {"question": "What is the depth of <p0>?", "points": [{"frame": "frame-999999", "u": 1, "v": 1}]},
        {"question": "How long is the path?"},
    ]
    result = run("ask", TINY, "--questions", write_json(tmp_path / "q.json", {"questions": questions}), "--json", code=1)
    codes = [json.loads(line)["error_code"] for line in result.stdout.splitlines()]
    assert codes == ["INVALID_REQUEST", "INVALID_REQUEST", "NONE"]


def test_verdicts(tmp_path: Path) -> None:
    """Right, wrong and refused, each told apart; all but right makes the command fail."""

    def number(value: float, accept: list[float], unit: str = "m") -> dict[str, Any]:
        return {"answer_type": "NUMBER", "value": value, "unit": unit, "accept": accept}

    path = "How long is the path?"
    right = {"id": "right", "question": path, "expect": number(50, [0, 1e6], "cm")}
    refused = {"id": "refused", "question": path, "expect": {"error_code": "NOT_SEEN"}}
    unanswered = {"id": "unanswered", "question": "Which color is love?", "expect": number(1, [0, 2])}
    good = {"questions": [right, unanswered]}
    run("ask", TINY, "--questions", write_json(tmp_path / "q.json", {"questions": [right]}))
    result = run("ask", TINY, "--questions", write_json(tmp_path / "q.json", good), code=1)
    assert "1 of 2 right, 0 wrong, 1 refused" in result.stdout
    bad = {"questions": [right, refused, {"id": "w", "question": path, "expect": number(9e5, [8e5, 1e6])}]}
    result = run("ask", TINY, "--questions", write_json(tmp_path / "q.json", bad), code=1)
    assert "1 of 3 right, 2 wrong, 0 refused" in result.stdout
    result = run("ask", TINY, "--questions", write_json(tmp_path / "q.json", bad), "--json", code=1)
    assert [json.loads(line)["verdict"] for line in result.stdout.splitlines()] == ["right", "wrong", "wrong"]


def test_rendered_recording_and_its_questions_agree(house: Path) -> None:
    """What render writes can be asked, and exact depth is answered within what the truth accepts."""
    assert {p.name for p in house.iterdir()} >= {"questions.json", "floor-plan.svg", "frame-000039.depth.png"}
    result = run("ask", str(house), "--questions", str(house / "questions.json"), code=None)
    assert "0 wrong" in result.stdout
    assert "INVALID_REQUEST" not in result.stdout


def test_render_a_bag_that_its_questions_fit(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    run("render", str(bag), "--bag", "--storage", "sqlite3", "--frames", "20", "--rooms", "1", "--size", "64x48",
        "--questions", "5")  # fmt: skip
    result = run("ask", str(bag), "--questions", str(bag / "questions.json"), "--json", code=None)
    codes = {json.loads(line)["error_code"] for line in result.stdout.splitlines()}
    assert "INVALID_REQUEST" not in codes


def test_render_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatial_mllm_ros.commands import render

    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(render, "floor_plan_svg", fail)
    result = run("render", str(tmp_path / "house"), TINY, "--questions", "0", code=2)
    assert "No space left" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pace", [["--fast"], []])
def test_demo(tmp_path: Path, pace: list[str]) -> None:
    frames = 60 if pace else 16
    spec = f"rendered:frames={frames},size=160x120,rooms=1,noise=off"
    result = CliRunner().invoke(main, ["demo", *pace, "--source", spec, "--report", str(tmp_path)])
    assert result.exit_code in (0, 1), result.output
    assert "right" in result.stdout
    assert (tmp_path / "report.html").stat().st_size > 10_000
    if pace:
        assert "10 right" in result.stdout


def test_questions_lists_every_kind() -> None:
    listed = json.loads(run("questions", "--json").stdout)
    assert {"distance", "threshold", "relation", "route"} <= {kind["name"] for kind in listed}
    assert all(kind["example"] for kind in listed)
    assert "closest_approach" in run("questions").stdout


def test_doctor() -> None:
    found = json.loads(run("doctor", "--json").stdout)
    assert found["ok"]
    status = {part["name"]: part["status"] for part in found["parts"]}
    assert status["numpy"] == "ok"
    assert {"torch", "rclpy", "GPU", "ROS 2"} <= set(status)
    assert all(part["remark"] for part in found["parts"] if part["status"] == "missing"), "a lack says what it costs"
    assert "Everything that geometry needs" in run("doctor").stdout


def test_doctor_names_execution_providers() -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    assert "cpu" in doctor_parts()["execution providers"]["version"]


def test_doctor_finds_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is downloaded, what is not complete, and what they need of the devices; no model is loaded."""
    from spatial_mllm_ros.serving.checkpoints.hub import HubFile, Record, models_folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "spatial-mllm download" in doctor_parts()["checkpoints"]["remark"]
    half = models_folder() / "some--model"
    Record("some/model", "", "0123", "mit", {"config.json": HubFile(3, "git:0")}).write(half)
    found = doctor_parts()["some/model"]
    assert found["status"] == "missing"
    assert "interrupted" in found["remark"]
    (half / "config.json").write_text("{ }")
    Record("some/model", "", "0123", "mit", {"config.json": HubFile(3, "git:0")}, complete=True).write(half)
    assert doctor_parts()["some/model"]["status"] == "ok"


def doctor_parts() -> dict[str, dict[str, str]]:
    return {part["name"]: part for part in json.loads(run("doctor", "--json").stdout)["parts"]}


def test_doctor_says_what_a_checkpoint_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="the extra model is not installed")
    from spatial_mllm_ros.models import make_checkpoint
    from spatial_mllm_ros.serving.checkpoints.hub import HubFile, Record, models_folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = make_checkpoint(models_folder() / "some--model")
    files = {path.name: HubFile(path.stat().st_size, "git:0") for path in folder.iterdir()}
    Record("some/model", "", "0123", "mit", files, complete=True).write(folder)
    remark = doctor_parts()["some/model"]["remark"]
    needed = re.search(r"bfloat16 (\d\.\d) GB", remark)
    assert needed is not None, remark
    assert 1.0 < float(needed[1]) < 2.0, "the caches' bound above all, for so small a model"
    assert re.search(r"with the spatial encoder exported in int8 \d\.\d GB", remark)
    monkeypatch.setattr("spatial_mllm_ros.models.weights.preflight.free_memory", lambda device: 10_000_000)
    assert "(too much)" in doctor_parts()["some/model"]["remark"]


def test_doctor_fails_without_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatial_mllm_ros.commands import doctor

    wanted = doctor.Wanted("no_such_module", "no-such-module", True, "nothing works", "install it")
    monkeypatch.setattr(doctor, "WANTED", (wanted,))
    assert "broken" in run("doctor", code=1).stdout


def test_as_a_program_into_a_pipe(house: Path) -> None:
    """Not a terminal: no bars, no escape codes, pure JSON on stdout, and a reader that leaves early is no crash."""
    program = [sys.executable, "-m", "spatial_mllm_ros.cli"]
    arguments = ["ask", str(house), "--questions", str(house / "questions.json"), "--json"]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 12
    assert "\x1b" not in done.stdout + done.stderr
    bad = subprocess.run([*program, "replay", "/no/such"], capture_output=True, text=True, check=False, timeout=60)
    assert bad.returncode == 2
    assert bad.stderr.startswith("Error: /no/such does not exist")


def test_bytes_that_are_not_utf8_as_arguments() -> None:
    program = [sys.executable, "-m", "spatial_mllm_ros.cli", "ask", TINY, b"How high is \xff\xfe?"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "UTF-8" in done.stderr
    assert "Traceback" not in done.stderr
