"""The selection benchmark measures what it says, on few and small frames."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from spatial_mllm_ros.bench import selection
from spatial_mllm_ros.cli import main
from spatial_mllm_ros.session.open_source import open_source


def quiet(what: str, done: int, total: int | None) -> None:
    """Nobody watches."""


def test_offline_selection_is_compared_on_the_same_frames() -> None:
    figures = selection.offline(3, quiet)
    assert figures["same_frames"]
    assert figures["ratio"] == figures["published_s"] / figures["ours_s"] > 1
    assert (figures["frames"], figures["height"], figures["width"]) == (3, 392, 518)


def test_streaming_is_compared_with_greedy_over_all_frames() -> None:
    spec = "rendered:rooms=2,frames=150,size=80x60"
    figures = selection.streaming(open_source(spec), spec, quiet)
    assert figures["frames"] == 150
    assert figures["evenly_spaced"] < figures["streaming"] <= 1
    assert figures["streaming_to_greedy"] >= 0.97


def test_the_command_prints_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "offline", lambda count, progress: {"frames": count})
    monkeypatch.setattr(selection, "cost", lambda count, progress: {"frames": count})
    monkeypatch.setattr(selection, "memory_curve", lambda count, progress: [{"frames": count}])
    monkeypatch.setattr(selection, "streaming", lambda source, name, progress: {"source": name})
    result = CliRunner().invoke(main, ["bench", "selection", "--quick", "--json", "--source", "rendered:frames=4"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["quick"]
    assert printed["streaming"][0]["source"] == "rendered:frames=4"
