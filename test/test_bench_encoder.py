"""The benchmark of the encoder measures what it says, on a tiny one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the encoder needs torch (the extra `model`)")

from spatial_mllm_ros.bench import encoder
from spatial_mllm_ros.cli import main
from spatial_mllm_ros.models.vggt.config import VGGTConfig


def test_every_size_can_be_built_and_full_is_the_published_one() -> None:
    assert encoder._parameters(encoder.SIZES["full"]) == 909_112_320
    counts = [encoder._parameters(config) for config in encoder.SIZES.values()]
    assert counts == sorted(counts)


def test_operations_are_counted() -> None:
    """One layer of each kind by hand: a frame of 2x3 patches has 11 tokens."""
    config = VGGTConfig(embed_dim=8, depth=1, num_heads=2, patch_embed_depth=1, patch_embed_num_heads=2)
    linear = 2 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 32)  # qkv, proj and both layers of the MLP, for each token
    attention = 2 * 2 * 8  # scores and sums, for each pair of tokens
    for frames in (1, 3):
        tokens = frames * 11
        expected = 3 * linear * tokens + attention * (2 * tokens * 11 + tokens**2)
        assert encoder.flops(config, frames, (28, 42)) == expected


def test_ratios_are_those_of_the_same_turns() -> None:
    eager, other = encoder.Runtime("torch", "cpu", "float32"), encoder.Runtime("onnx", "cpu", "int8")
    row = {"runtime": other, "frames": 2, "times": [1.0, 2.0, 3.0], "eager": [2.0, 6.0, 6.0]}
    table = encoder._table(
        [row | {"cpu_s": 1.0, "eager_cpu_s": 2.0, "peak_mb": 5.0, "eager_peak_mb": 9.0, "gflop": 10.0}], eager
    )
    assert [r["runtime"] for r in table] == ["torch eager cpu float32", "onnxruntime cpu int8"]
    assert [r["seconds"] for r in table] == [2.0, 1.0]
    assert [r["times_faster_than_eager"] for r in table] == [1.0, 2.0]
    assert [r["cpu_s"] for r in table] == [2.0, 1.0]
    assert [r["peak_mb"] for r in table] == [9.0, 5.0]
    assert table[1]["gflop_per_s"] == 10.0


def test_a_run_measures_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an exported encoder, which would take long; counts beyond the limit are left out."""
    monkeypatch.setattr("spatial_mllm_ros.models.runtime.providers.available", lambda: ())
    result = encoder.run("tiny", (28, 42), counts=(1, 2, 10**6), limit_s=2.0, threads=1, compiled=False)
    assert [(row["runtime"], row["frames"]) for row in result["encoder"]] == [
        ("torch eager cpu float32", 1),
        ("torch eager cpu float32", 2),
    ]
    for row in result["encoder"]:
        assert row["seconds"] > 0
        assert row["times_faster_than_eager"] == 1
        assert row["peak_mb"] > 50
    assert result["published VGGT-1B on H100"][0] == {"frames": 1, "seconds": 0.04}


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(encoder, "run", lambda *arguments: asked.append(arguments) or {"encoder": []})
    result = CliRunner().invoke(
        main, ["bench", "encoder", "--json", "--full", "--frames", "4,1", "--precisions", "int8"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"encoder": []}
    assert asked[0][:6] == ("full", (336, 518), [1, 4], 20.0, ("int8",), 0)
    for arguments, message in (
        (["--height", "100"], "multiples of 14"),
        (["--frames", "one"], "whole numbers"),
        (["--frames", "0"], "at least 1"),
    ):
        result = CliRunner().invoke(main, ["bench", "encoder", *arguments])
        assert result.exit_code == 2
        assert message in result.output
