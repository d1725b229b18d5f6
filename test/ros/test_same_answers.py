"""The node on ROS 2 answers what the recording itself does. Played and asked over plain DDS, as from another machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 is sourced")
pytest.importorskip("spatial_mllm_ros.srv", reason="the ROS 2 package is not built: scripts/test_ros.sh builds it")

from robot import Robot, wait_for

from spatial_mllm_ros.dds import is_installed
from spatial_mllm_ros.session.questions import ask, parse_questions
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.simulation.truth import demo_questions

SCENE = "rendered:rooms=1,frames=30,size=160x120,rate=15"
COMMAND = [sys.executable, "-m", "spatial_mllm_ros.cli"]


@pytest.mark.skipif(not is_installed(), reason="cyclonedds is not installed")
@pytest.mark.skipif(find_spec("embreex") is None, reason="rendered rooms need embreex: pip install embreex")
def test_answers_are_those_of_the_file(robots: Callable[..., Robot], tmp_path: Path) -> None:
    source = RenderedSource.from_spec(SCENE)
    content = demo_questions(source)
    session = Session(source, record_coverage=False)
    session.stream()
    expected = [ask(session, question).to_json() for question in parse_questions(content)]
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    robot = robots(sensor_model="rgbd", max_pose_age_s=0.0)  # asked after the recording has ended, whenever that is
    robot.activate()
    subprocess.run([*COMMAND, "play", SCENE, "--rate", "4"], timeout=60, check=True)
    wait_for(lambda: len(robot.engine.memory) == 30, "30 frames in memory")
    call = [*COMMAND, "call", "--questions", str(file), "--source", SCENE, "--json"]
    asked = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    got = [json.loads(line) for line in asked.stdout.splitlines()]
    assert len(got) == len(expected) >= 8, asked.stderr
    for theirs, ours in zip(got, expected, strict=True):
        for key in ("error_code", "answer_type", "choice_index", "answer", "unit", "source"):
            assert theirs[key] == ours[key], (ours["question"], key, theirs)
        for key in ("value", "stddev", "confidence"):
            assert theirs[key] == (None if ours[key] is None else pytest.approx(ours[key], abs=1e-6)), theirs
