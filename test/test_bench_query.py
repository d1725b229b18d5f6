"""The benchmark of questions measures what it says, on a tiny model with few and small frames."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="the extra 'model' is not installed")
pytest.importorskip("transformers", reason="the extra 'model' is not installed")

from spatial_mllm_ros.bench import measured, query  # noqa: E402
from spatial_mllm_ros.cli import main  # noqa: E402
from spatial_mllm_ros.serving.interface import ModelOptions  # noqa: E402

TINY = {"vggt_layers": 1, "vggt_dim": 32, "vggt_heads": 2, "dino_layers": 1, "vision_layers": 1}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_three_ways_and_changed_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "VGGT", TINY)
    options = ModelOptions("", "float32", "cpu", min_pixels=90 * 90, max_pixels=150 * 150, max_new_tokens=6, threads=1)
    told: list[str] = []
    subject = measured.random_measured(2, 64, options)
    result = query.run(subject, frames=6, questions=2, progress=lambda what, done, total: told.append(what))
    assert result["identical_tokens"]
    assert result["warm_tokens_are_published"]
    ways = {row["way"]: row for row in result["questions"]}
    assert list(ways) == ["published", "cold", "warm"]
    assert all(row["tokens"] == 6 and 0 < row["first_token_s"] < row["total_s"] for row in ways.values())
    assert result["first_token_published_to_warm"] == pytest.approx(
        ways["published"]["first_token_s"] / ways["warm"]["first_token_s"]
    )
    assert [(row["pairs_encoded"], row["frames_encoded"]) for row in result["changes_of_frames"]] == [
        (3, 6),  # everything
        (1, 1),  # the newest replaced: its pair
        (3, 1),  # the oldest dropped: all pairs shift
        (1, 1),  # one in the middle for the oldest: the pairs before it shift back
    ]
    assert result["memory_mib"]["context"] > 0
    assert "asking as published" in told
    assert "random" in result["model"]["weights"]


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "VGGT", TINY)
    arguments = ["bench", "query", "--json", "--frames", "2", "--questions", "1", "--tokens", "3", "--threads", "1"]
    result = CliRunner().invoke(main, [*arguments, "--layers", "1", "--hidden", "64"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["identical_tokens"] is True


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--frames", "3"], "even number"),
        (["--hidden", "100"], "multiple of 64"),
        (["--model", "no/such_checkpoint"], "no/such_checkpoint"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_what_cannot_be_measured(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main, ["bench", "query", *arguments])
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output
