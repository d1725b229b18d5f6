"""The executable and the launch files, as users run them: in processes of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 is sourced")
pytest.importorskip("spatial_mllm_ros.srv", reason="the ROS 2 package is not built: scripts/test_ros.sh builds it")
if shutil.which("ros2") is None:
    pytest.skip("there is no ros2 command", allow_module_level=True)

from ament_index_python.packages import get_package_prefix
from robot import wait_for

from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.sources.writers import write_folder

EXECUTABLE = Path(get_package_prefix("spatial_mllm_ros"), "lib", "spatial_mllm_ros", "spatial_mllm_node")
PLAYER = Path(__file__).with_name("camera_player.py")
RECORDING = "rendered:frames=30,rooms=1,size=160x120,noise=off"
needs_embreex = pytest.mark.skipif(
    find_spec("embreex") is None, reason="rendered rooms need embreex: pip install embreex"
)
Run = Callable[..., "Process"]


class Process:
    """A process whose output can be looked at while it runs."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.popen = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, text: str) -> None:
        wait_for(lambda: text in self.output or self.popen.poll() is not None, f"{text!r} in the output", 60.0)
        assert text in self.output

    def end(self, number: int = signal.SIGINT) -> int:
        """The exit status after a signal to all of it, as a terminal sends Ctrl-C."""
        os.killpg(self.popen.pid, number)
        return self.popen.wait(30)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts processes, and kills what is left of them."""
    started: list[Process] = []

    def start(*command: str) -> Process:
        started.append(Process(list(command), tmp_path / f"{len(started)}.log"))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.popen.pid, signal.SIGKILL)  # what it started too: a node left over answers the next test
        process.popen.wait(5)


def ros2(*command: str, timeout_s: float = 40.0) -> str:
    """What a ros2 command prints."""
    done = subprocess.run(["ros2", *command], capture_output=True, text=True, timeout=timeout_s, check=False)
    return done.stdout + done.stderr


def lifecycle(*words: str) -> str:
    return ros2("lifecycle", words[0], "--no-daemon", "--spin-time", "2", "/spatial_mllm", *words[1:]).strip()


@needs_embreex
def test_bringup_to_answer(run: Run) -> None:
    """Launched, configured, activated; a camera comes, a question is asked on the command line, all of it ends well."""
    begin = time.monotonic()
    launch = run("ros2", "launch", "spatial_mllm_ros", "bringup.launch.py", "sensor_model:=exact", "max_frames:=50")
    launch.says("answering on /spatial_query")
    assert time.monotonic() - begin < 15.0
    assert lifecycle("get") == "active [3]"
    assert ros2("param", "get", "--no-daemon", "--spin-time", "2", "/spatial_mllm", "max_frames").endswith("50\n")
    player = run(sys.executable, str(PLAYER), RECORDING, "5.0")
    player.says("30 frames")
    answer = ros2(
        "service", "call", "/spatial_query", "spatial_mllm_ros/srv/SpatialQuery",
        "{question: 'How far did the camera travel, in cm?'}",
    )  # fmt: skip
    assert "error_code=0" in answer
    assert " cm ± " in answer
    keyframes = ros2("topic", "echo", "--no-daemon", "--once", "--qos-durability", "transient_local",
                     "--qos-reliability", "reliable", "/spatial_mllm/keyframes")  # fmt: skip
    assert "marginal_voxels" in keyframes
    assert lifecycle("set", "deactivate") == "Transitioning successful"
    assert lifecycle("set", "cleanup") == "Transitioning successful"
    assert lifecycle("set", "configure") == "Transitioning successful"
    assert lifecycle("get") == "inactive [2]"  # the launch file does not activate it a second time
    launch.end()
    assert "process has finished cleanly" in launch.output
    assert "Traceback" not in launch.output


def test_bringup_tells_what_is_missing(run: Run) -> None:
    """Nothing is worse than a launch that looks well and does nothing."""
    launch = run("ros2", "launch", "spatial_mllm_ros", "bringup.launch.py", "model:=some/checkpoint")
    launch.says("could not be configured")
    assert "spatial-mllm download some/checkpoint" in launch.output
    launch.end()


@pytest.fixture
def model_python() -> str:
    """A Python with torch: that of ./test.sh, or another one."""
    repository = Path(__file__).resolve().parents[2]
    python = os.environ.get("MODEL_PYTHON", str(repository / ".venv-test/bin/python"))
    code = "import torch, transformers, spatial_mllm_ros.models"
    if not Path(python).exists() or subprocess.run([python, "-c", code], check=False).returncode != 0:
        pytest.skip(f"{python} has no torch: ./test.sh makes it, MODEL_PYTHON names another one")
    return python


@needs_embreex
def test_bringup_with_a_model(run: Run, model_python: str, tmp_path: Path) -> None:
    """ROS 2 has its Python and torch another: the model is loaded there, answers, and ends with the node."""
    code = f"from spatial_mllm_ros.models import make_checkpoint; make_checkpoint({str(tmp_path / 'tiny')!r})"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([model_python, "-c", code], check=True, env=environment, timeout=120)
    arguments = {
        "model": tmp_path / "tiny",
        "model_python": model_python,
        "allow_random_weights": "true",
        "model_min_pixels": 3136,
        "model_max_pixels": 12544,
        "min_model_confidence": 0.0,
        "keyframes_count": 4,
        "sensor_model": "exact",
    }
    launch = run(
        "ros2", "launch", "spatial_mllm_ros", "bringup.launch.py", *(f"{k}:={v}" for k, v in arguments.items())
    )
    launch.says("answering on /spatial_query")
    assert "the model is loaded" in launch.output
    run(sys.executable, str(PLAYER), RECORDING, "5.0").says("30 frames")
    ask = ("service", "call", "/spatial_query", "spatial_mllm_ros/srv/SpatialQuery")
    answer = ros2(*ask, "{question: 'What color is the sofa?', choices: [red, green, blue]}")
    assert "error_code=0" in answer
    assert "source=2" in answer  # SOURCE_MODEL
    assert "confidence_method='probability among choices'" in answer
    assert " cm ± " in ros2(*ask, "{question: 'How far did the camera travel, in cm?'}")
    workers = subprocess.run(["pgrep", "-f", str(tmp_path / "tiny")], capture_output=True, text=True, check=False)
    launch.end()
    assert "process has finished cleanly" in launch.output
    assert "Traceback" not in launch.output
    assert workers.stdout


@needs_embreex
def test_replay_reaches_a_node_in_a_namespace_and_on_other_topics(run: Run, tmp_path: Path) -> None:
    """What the node is told is told to the player, too."""
    if subprocess.run(["python3", "-c", "import cyclonedds"], capture_output=True, check=False).returncode != 0:
        pytest.skip("ROS 2's Python has no cyclonedds: pip install cyclonedds")
    write_folder(open_source(RECORDING), tmp_path / "room")
    launch = run(
        "ros2", "launch", "spatial_mllm_ros", "replay.launch.py", f"recording:={tmp_path / 'room'}", "namespace:=robot1",
        "color_topic:=front/image", "use_sim_time:=true", "rate:=5.0", "sensor_model:=exact",
    )  # fmt: skip
    launch.says("The recording has ended.")
    answer = ros2(
        "service", "call", "/robot1/spatial_query", "spatial_mllm_ros/srv/SpatialQuery",
        "{question: 'How deep is <p0>?', points: [{u: 80, v: 60}]}",
    )  # fmt: skip
    assert "error_code=0" in answer, answer + launch.output
    launch.end()
    assert "Traceback" not in launch.output


def test_the_arguments_of_replay_are_those_of_bringup_too() -> None:
    shown = ros2("launch", "spatial_mllm_ros", "replay.launch.py", "--show-args")
    for name in ("recording", "player_arguments", "color_topic", "depth_unit_m", "pose_topic", "params_file"):
        assert f"'{name}'" in shown


@needs_embreex
def test_what_is_misspelt_is_told(run: Run, tmp_path: Path) -> None:
    """A launch argument, a parameter, a topic."""
    file = tmp_path / "params.yaml"
    file.write_text("/**:\n  ros__parameters:\n    depth_unit: 0.001\n    qos_overrides./tf.subscription.depth: 5\n")
    launch = run(
        "ros2", "launch", "spatial_mllm_ros", "bringup.launch.py", f"params_file:={file}", "color_topc:=a",
        "depth_topic:=camera/aligned_depth/image_raw",
    )  # fmt: skip
    run(sys.executable, str(PLAYER), RECORDING, "0.5")
    launch.says("there is no argument 'color_topc', so it has no effect; did you mean 'color_topic'?")
    launch.says("there is no parameter 'depth_unit', so it has no effect; did you mean 'depth_unit_m'?")
    launch.says("qos_overrides./tf.subscription.depth has no effect: set color_qos")
    launch.says("did you mean /camera/aligned_depth_to_color/image_raw")
    launch.end()


def test_wrong_launch_arguments_are_refused(run: Run) -> None:
    launch = run("ros2", "launch", "spatial_mllm_ros", "bringup.launch.py", "max_frames:=many")
    assert launch.popen.wait(20) != 0
    assert "max_frames must be an integer, not 'many'" in launch.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("state", ["starting", "unconfigured", "inactive", "active", "finalized"])
def test_signals_end_the_node_in_every_state(run: Run, state: str, number: int) -> None:
    """With status 0, without a word of complaint."""
    options = ["--ros-args", "-p", "auto_activate:=true"] if state in ("active", "finalized") else []
    node = run(str(EXECUTABLE), *options)
    if state == "starting":
        time.sleep(0.9)
    elif state in ("active", "finalized"):
        node.says("answering on")
        if state == "finalized":
            assert lifecycle("set", "shutdown") == "Transitioning successful"
    else:
        wait_for(lambda: lifecycle("get").startswith("unconfigured"), "the node is up", 30.0)
        if state == "inactive":
            assert lifecycle("set", "configure") == "Transitioning successful"
    status = node.end(number)
    if state != "starting":
        assert status == 0
    assert "Traceback" not in node.output or state == "starting"


def test_a_hail_of_signals_is_one(run: Run) -> None:
    """A terminal and ros2 launch both send SIGINT, the second perhaps while the interpreter is ending."""
    node = run(str(EXECUTABLE), "--ros-args", "-p", "auto_activate:=true")
    node.says("answering on")
    while node.popen.poll() is None:
        node.popen.send_signal(signal.SIGINT)
        time.sleep(0.005)
    assert node.popen.returncode == 0
    assert "Traceback" not in node.output


def test_help() -> None:
    done = subprocess.run([str(EXECUTABLE), "--help"], capture_output=True, text=True, timeout=20, check=True)
    assert "color_topic" in done.stdout


@pytest.mark.parametrize(
    ("parameter", "message"),
    [("timeout_s:=-1.0", "timeout_s"), ("max_frames:=many", "max_frames"), ("color_topic:=''", "color_topic")],
)
def test_wrong_parameters_are_told_plainly(parameter: str, message: str) -> None:
    done = subprocess.run(
        [str(EXECUTABLE), "--ros-args", "-p", parameter], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
