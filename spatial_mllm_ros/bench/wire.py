"""What the benchmarks of the live node share: processes, CPU time, and a domain that nobody else is in."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from spatial_mllm_ros.dds import domain


@contextlib.contextmanager
def alone() -> Iterator[int]:
    """A domain of this benchmark's own, on this computer only; within, children inherit it. Yields its id."""
    own = domain.private()
    former = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield int(own["ROS_DOMAIN_ID"])
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def processes(commands: list[list[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Python programs, given by the arguments after the interpreter's name; ended at the end in any case."""
    running: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            running.append(
                subprocess.Popen(
                    [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
                )
            )
        yield running
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line that a child prints. RuntimeError when it ended instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a child of the benchmark ended with exit code {process.wait()}")
    return line.strip()


def tell(process: subprocess.Popen[str], text: str) -> None:
    """A line for a child."""
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used so far, in all its threads; NaN where the system does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if pid == os.getpid():
        return time.process_time()
    if not stat.exists():
        return float("nan")
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
