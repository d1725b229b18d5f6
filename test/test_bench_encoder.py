"""The benchmark of the encoder measures what it says, on a tiny one."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the encoder needs torch (the extra `model`)")

import torch
from torch.utils.flop_counter import FlopCounterMode

from spatial_mllm_ros.bench import encoder
from spatial_mllm_ros.bench.encoder_process import Pass, Ready, Runtime, matrix_peak
from spatial_mllm_ros.bench.processes import Failed
from spatial_mllm_ros.cli import main
from spatial_mllm_ros.models.vggt.aggregator import Aggregator
from spatial_mllm_ros.models.vggt.config import VGGTConfig
from spatial_mllm_ros.serving.onnx_file import ExportError

EAGER = Runtime("torch", "cpu", "float32")
TINY = encoder.Wanted("tiny", (28, 42), (1, 2), limit_s=2.0, kinds=("torch",), precisions=("float32",), threads=1)


def test_every_size_can_be_built_and_full_is_the_published_one() -> None:
    assert encoder._parameters(encoder.SIZES["full"]) == 909_112_320
    counts = [encoder._parameters(config) for config in encoder.SIZES.values()]
    assert counts == sorted(counts)


@pytest.mark.parametrize("frames", [1, 3])
def test_operations_are_counted_as_torch_counts_them(frames: int) -> None:
    config = VGGTConfig(embed_dim=32, depth=2, num_heads=2, patch_embed_depth=3, patch_embed_num_heads=2)
    aggregator = Aggregator(config).eval()
    aggregator.attention = "eager"  # torch's counter passes over the CPU's own kernel
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        aggregator(torch.rand(frames, 3, 28, 42), (-1,))
    assert encoder.flops(config, frames, (28, 42)) == counter.get_total_flops()


def test_operations_can_be_counted_without_computing() -> None:
    """For the heads; without any, it is the same as by the formula."""
    config = VGGTConfig(
        embed_dim=32, depth=2, num_heads=2, patch_embed_depth=3, patch_embed_num_heads=2, dpt_layers=(0, 0, 1, 1)
    )
    alone = encoder.counted_flops(config, (), 3, (28, 42))
    assert alone == encoder.flops(config, 3, (28, 42))
    assert encoder.counted_flops(config, ("camera", "depth"), 3, (28, 42)) > 2 * alone


def test_geometry_is_measured_like_the_encoder() -> None:
    result = encoder.run(replace(TINY, part="geometry", counts=(2,), precisions=("bfloat16",)))
    reference, other = result["geometry"]
    assert (reference["runtime"], other["runtime"]) == ("torch eager cpu float32", "torch eager cpu bfloat16")
    assert reference["error"] == 0 < other["error"] < 0.1
    assert all(row["seconds"] > 0 and row["gflop_per_s"] > 0 for row in (reference, other))


def test_ratios_are_those_of_the_same_turns() -> None:
    other = Runtime("onnx", "cpu", "int8")
    bench = encoder._Bench(replace(TINY, counts=(2,)), EAGER, 1, lambda *_: None)
    bench.peaks, bench.errors = {"cpu float32": 100.0}, {EAGER: 0.0, other: 0.01}
    passes = [Pass(1.0, 1.0, 5.0), Pass(2.0, 3.0, 4.0), Pass(3.0, 3.0, 4.0)]
    eager = [Pass(2.0, 2.0, 9.0), Pass(6.0, 6.0, 9.0), Pass(6.0, 6.0, 9.0)]
    bench.rows.append(encoder._Measured(other, 2, passes, eager))
    table = bench.table()
    assert [r["runtime"] for r in table] == ["torch eager cpu float32", "onnxruntime cpu int8"]
    for name, expected in (
        ("runs", [3, 3]),
        ("seconds", [2.0, 1.0]),
        ("x_eager", [1.0, 2.0]),
        ("cpu_s", [2.0, 1.0]),
        ("peak_mb", [9.0, 5.0]),
        ("error", [0.0, 0.01]),
    ):
        assert [r[name] for r in table] == expected, name
    gflop = encoder.flops(encoder.SIZES["tiny"], 2, (28, 42)) / 1e9
    assert table[1]["gflop_per_s"] == gflop
    assert (table[0]["share_of_peak"], table[1]["share_of_peak"]) == (pytest.approx(gflop / 200), None)


def test_a_run_measures_in_processes_of_their_own() -> None:
    """Counts beyond the limit are left out and say so."""
    wanted = replace(TINY, counts=(1, 2, 10**6), precisions=("float32", "bfloat16"))
    told: list[str] = []
    result = encoder.run(wanted, lambda what, done, total: told.append(what))
    assert [(row["runtime"], row["frames"]) for row in result["encoder"]] == [
        (f"torch eager cpu {precision}", frames) for frames in (1, 2) for precision in ("float32", "bfloat16")
    ]
    for row in result["encoder"]:
        assert row["seconds"] > 0
        assert row["runs"] >= 1
        assert row["peak_mb"] > 50
        assert row["share_of_peak"] > 0  # the peak is measured, too: with other jobs on the machine it may come out low
        assert row["error"] < (0.05 if "bfloat16" in row["runtime"] else 1e-6)
    reasons = {row["runtime"]: row for row in result["not measured"]}
    assert reasons["torch eager cpu bfloat16"]["frames"] == "1000000"
    assert "--limit" in reasons["torch eager cpu bfloat16"]["reason"]
    assert any("left" in what for what in told)
    json.dumps(result, allow_nan=False)


def test_what_is_compared_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatial_mllm_ros.models.onnx.providers.available", lambda: ("cpu",))
    monkeypatch.setattr("spatial_mllm_ros.models.onnx.providers.version", lambda: "1.2")
    monkeypatch.setattr(encoder, "_can_compile", lambda: True)
    for auto, compared in (("bfloat16", ("float32", "bfloat16")), ("float32", ("float32",))):
        monkeypatch.setattr("spatial_mllm_ros.models.weights.precision.choose_precision", lambda *_, auto=auto: auto)
        eager, others, absent = encoder.runtimes(encoder.Wanted(), "cpu")
        assert eager == EAGER
        assert [str(other) for other in others] == [
            *(f"torch eager cpu {p}" for p in compared[1:]),
            *(f"torch compiled cpu {p}" for p in compared),
            "onnxruntime cpu float32",
            "onnxruntime cpu int8",
        ]
        assert {row["runtime"] for row in absent} >= {"torch cuda", "onnxruntime cuda", "onnxruntime tensorrt"}
        assert any("does not compute in it" in row["reason"] for row in absent) == (auto == "float32")


def test_a_gpu_has_kernels_of_attention_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent_library() -> tuple[str, ...]:
        raise ExportError("onnxruntime does not import")

    monkeypatch.setattr("spatial_mllm_ros.models.onnx.providers.available", absent_library)
    monkeypatch.setattr(encoder, "_can_compile", lambda: False)
    eager, others, absent = encoder.runtimes(encoder.Wanted(), "cuda")
    assert str(eager) == "torch eager cuda bfloat16"
    names = [str(other) for other in others]
    assert str(eager) not in names
    assert {f"torch eager cuda {p} {k}" for p in ("bfloat16", "float16") for k in ("flash", "efficient", "math")} < {
        *names
    }
    assert {row["reason"] for row in absent} == {
        "onnxruntime does not import",
        "torch.compile needs a C++ compiler, and there is none",
    }


def test_a_runtime_that_breaks_down_does_not_end_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = encoder._Bench(TINY, EAGER, 2, lambda *_: None)
    monkeypatch.setattr(encoder, "receive", lambda pipe: (_ for _ in ()).throw(Failed("out of memory")))
    monkeypatch.setattr(encoder, "process", lambda *_: nullcontext())
    with pytest.raises(Failed):  # torch eager itself
        bench.measure(Runtime("torch", "cpu", "bfloat16"), "")
    bench._expected, bench.errors = {"tokens": np.ones(3)}, {EAGER: 0.0}
    bench.measure(Runtime("torch", "cpu", "bfloat16"), "")
    assert bench.absent == [{"runtime": "torch eager cpu bfloat16", "frames": "1, 2", "reason": "out of memory"}]


def test_names_that_are_not_known_are_refused() -> None:
    for wrong in (
        {"size": "huge"},
        {"kinds": ("jax",)},
        {"precisions": ("int3",)},
        {"attentions": ("fast",)},
        {"part": "head"},
    ):
        with pytest.raises(ValueError, match="is not known: it is one of"):
            encoder.run(replace(TINY, **wrong))


def test_a_product_has_a_rate() -> None:
    assert matrix_peak("cpu", "float32") > 0.01


def test_errors_and_peaks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = encoder._Bench(TINY, EAGER, 1, lambda *_: None)
    bench._expected = {"depth": np.array([3.0, 4.0]), "depth_conf": np.array([1.0, 0.0])}
    other = Runtime("compiled", "cpu", "float32")
    bench._ready(EAGER, Ready(0.0, 50.0, bench._expected))
    bench._ready(other, Ready(7.0, 40.0, {"depth": np.array([3.0, 4.5]), "depth_conf": np.array([1.0, 0.05])}))
    assert (bench.errors, bench.peaks, bench.compile_s) == (
        {EAGER: 0.0, other: 0.1},
        {"cpu float32": 50.0},
        {other: 7.0},
    )


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(encoder, "run", lambda wanted, progress: asked.append(wanted) or {"encoder": []})
    arguments = [
        "--full",
        "--frames",
        "4,1",
        "--precisions",
        "int8",
        "--runtimes",
        "onnx",
        "--attention",
        "flash, math",
    ]
    result = CliRunner().invoke(main, ["bench", "encoder", "--json", *arguments])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"encoder": []}
    assert asked == [
        encoder.Wanted("full", (252, 392), [1, 4], 120.0, ("onnx",), ("int8",), ("flash", "math"), 0),
    ]
    for arguments, message in (
        (["--height", "100"], "multiples of 14"),
        (["--frames", "one"], "whole numbers"),
        (["--frames", "0"], "at least 1"),
    ):
        result = CliRunner().invoke(main, ["bench", "encoder", *arguments])
        assert result.exit_code == 2
        assert message in result.output
