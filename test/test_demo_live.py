"""The main job, live: node, camera and client as separate processes over DDS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spatial_mllm_ros.dds import is_installed


@pytest.mark.skipif(not is_installed(), reason="cyclonedds is not installed (the extra dds)")
def test_ten_questions_over_dds(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    spec = "rendered:frames=60,size=160x120,rooms=1"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "spatial_mllm_ros.cli",
            "demo",
            "--live",
            "--source",
            spec,
            "--report",
            str(folder),
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 10, done.stderr
    assert {a["verdict"] for a in answers} <= {"right", "refused"}, done.stderr
    assert sum(a["verdict"] == "right" for a in answers) >= 8
    assert done.returncode == 0
    assert (folder / "report.html").stat().st_size > 10_000
    assert "answering on /spatial_query" in (folder / "node.log").read_text()
