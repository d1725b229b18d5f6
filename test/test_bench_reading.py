"""The benchmark of reading counts what is read, and takes lines and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from spatial_mllm_ros.answering.catalogue import kinds
from spatial_mllm_ros.bench import reading
from spatial_mllm_ros.cli import main

QUESTIONS = ["How far is <p0> from <p1>?", "Why is the sky blue?", "How <p0> the of?"]


@pytest.mark.parametrize("as_json", [True, False])
def test_what_is_read_of_a_file(tmp_path: Path, as_json: bool) -> None:
    file = tmp_path / "questions"
    rows = [{"id": "a", "question": QUESTIONS[0]}, *QUESTIONS[1:]]
    file.write_text(json.dumps(rows) if as_json else "\n\n".join(QUESTIONS), encoding="utf-8")
    canonical, own = reading.run(file, rounds=2)["reading"]
    assert canonical["questions"] == sum(bool(kind.example) for kind in kinds())
    assert canonical["read_percent"] == 100.0
    assert own["questions"] == 3
    assert own["read_percent"] == pytest.approx(100 / 3)
    assert (own["ambiguous"], own["for_a_model"], own["refused"]) == (0, 1, 1)
    assert 0 < own["median_ms"] <= own["p99_ms"] <= own["max_ms"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "has no questions"),
        (b"[]", "has no questions"),
        (b"[3]", "entry 1 is neither a text"),
        (b'["How far?", {"text": "How far?"}]', "entry 2 is neither a text"),
        (b"How far?\n???", "entry 2: the question has no word"),
        (b"[", "neither lines in UTF-8 nor a JSON list"),
        (b"\xff", "neither lines in UTF-8 nor a JSON list"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "questions").write_bytes(text)
    result = CliRunner().invoke(main, ["bench", "reading", "--file", str(tmp_path / "questions")])
    assert result.exit_code == 2
    assert told in result.output.replace("\n", " ")


def test_command() -> None:
    rows = json.loads(CliRunner().invoke(main, ["bench", "reading", "--rounds", "1", "--json"]).stdout)["reading"]
    assert [row["questions_of"] for row in rows] == ["canonical"]
    assert "p99_ms" in CliRunner().invoke(main, ["bench", "reading", "--rounds", "1"], terminal_width=200).stdout
