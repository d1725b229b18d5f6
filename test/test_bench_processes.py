"""Processes that measure end with the command, however that ends."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spatial_mllm_ros.bench import processes

psutil = pytest.importorskip("psutil", reason="looks at processes")

WAITS = """
import operator
from spatial_mllm_ros.bench.processes import ends_tidily, process
with ends_tidily(), process(operator.methodcaller("recv")) as pipe:
    print("measuring", flush=True)
    pipe.poll(None)
"""


def wait_gone(children: list[psutil.Process], seconds: float = 10.0) -> None:
    _, alive = psutil.wait_procs(children, timeout=seconds)
    assert not alive


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_child_is_left_behind(number: signal.Signals) -> None:
    # as a shell does for a command in the foreground: Python leaves an ignored SIGINT ignored
    command = [
        sys.executable,
        "-c",
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + WAITS,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "measuring\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.send_signal(number)
        parent.wait(10)
        wait_gone(children)
    if number is signal.SIGTERM:
        assert parent.returncode == 128 + signal.SIGTERM


def test_ctrl_c_of_a_terminal_does_not_disturb_a_child() -> None:
    before = set(psutil.Process().children())
    with processes.process(operator.methodcaller("recv")):
        children = {c for c in psutil.Process().children() if "resource_tracker" not in " ".join(c.cmdline())} - before
        assert children
        for _ in range(5):
            for child in children:
                child.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert not psutil.wait_procs(list(children), timeout=0)[0]


def test_what_a_process_could_not_do_is_told() -> None:
    with pytest.raises(processes.Failed, match="TypeError"), processes.process(time.sleep) as pipe:
        processes.receive(pipe)


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(processes.Failed, match="died"), processes.process(operator.methodcaller("close")) as pipe:
        processes.receive(pipe)


def test_the_command_clears_its_folder_away(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the encoder needs torch (the extra `model`)")
    size = ["--size", "tiny", "--height", "28", "--width", "42"]
    with subprocess.Popen(
        [sys.executable, "-m", "spatial_mllm_ros.cli", "bench", "encoder", *size],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as parent:
        itself = psutil.Process(parent.pid)
        deadline = time.monotonic() + 30
        while not (children := itself.children()) or not any(tmp_path.glob("bench_encoder_*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        parent.terminate()
        assert parent.wait(15) == 128 + signal.SIGTERM
        wait_gone(children)
    assert not any(tmp_path.glob("bench_encoder_*"))
