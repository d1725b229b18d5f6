"""``spatial-mllm bench encoder``: what the spatial encoder, or geometry from color, costs by runtime, precision and frames.

Every runtime has a process of its own, so that its memory is its own. Each is measured in turns with torch eager, which
has one too: what else the machine does then slows both alike.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from spatial_mllm_ros.bench.encoder_process import (
    ATTENTIONS,
    PARTS,
    SIZES,
    Job,
    Pass,
    Ready,
    Runtime,
    expect,
    export,
    serve,
)
from spatial_mllm_ros.bench.processes import Failed, ends_tidily, process, receive
from spatial_mllm_ros.models.vggt.config import PATCH_START, VGGTConfig
from spatial_mllm_ros.serving.interface import ModelUnavailable

Progress = Callable[[str, int, int | None], None]
COUNTS = (1, 2, 4, 8, 16, 32)
KINDS = ("torch", "compiled", "onnx")
PRECISIONS = {"torch": ("float32", "bfloat16", "float16"), "onnx": ("float32", "float16", "int8")}
PUBLISHED = {1: 0.04, 8: 0.11, 20: 0.31, 100: 3.12}
"""Seconds by number of frames of 518x336 px: VGGT-1B's aggregator on an H100 with flash attention (arXiv 2503.11651)."""
ONCE_S = 10.0
"""A pass that takes longer is not repeated, and not warmed up for."""
TURNS_S = 6.0
MAX_TURNS = 6


@dataclass(frozen=True)
class Wanted:
    """What is measured.

    part: one of PARTS. size: one of SIZES, with random weights. image_size: (height, width) of the frames, pixels. counts: of
    frames; those at which a pass would take longer than ``limit_s`` are left out. kinds: some of KINDS. precisions,
    attentions: (none) are those that make sense on the device. threads: of the CPU; 0: as many as torch takes.
    """

    size: str = "small"
    image_size: tuple[int, int] = (252, 392)
    counts: Sequence[int] = COUNTS
    limit_s: float = 120.0
    kinds: Sequence[str] = KINDS
    precisions: Sequence[str] = ()
    attentions: Sequence[str] = ()
    threads: int = 0
    part: str = "encoder"


@dataclass(eq=False)
class _Measured:
    """What came out for a runtime at a number of frames; passes of torch eager in the same turns beside its own."""

    runtime: Runtime
    frames: int
    passes: list[Pass] = field(default_factory=list)
    eager: list[Pass] = field(default_factory=list)


def run(wanted: Wanted, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Time and memory of every runtime that is here, and why others are not measured. Raises ValueError for what is not
    known, and Failed where torch eager does not work."""
    import torch

    _check(wanted)
    wanted = replace(wanted, threads=wanted.threads or torch.get_num_threads())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    eager, others, absent = runtimes(wanted, device)
    bench = _Bench(wanted, eager, len(others) or 1, progress)
    bench.absent += absent
    with ends_tidily(), tempfile.TemporaryDirectory(prefix="bench_encoder_") as folder:
        for other in others or [eager]:
            bench.measure(other, folder)
    result = {
        "size": wanted.size,
        "parameters": _parameters(SIZES[wanted.size], wanted.part),
        "frame": f"{wanted.image_size[1]}x{wanted.image_size[0]} px",
        "device": _device_name(device),
        "threads": wanted.threads,
        "matrix products": [
            {"of": of, "gflop_per_s": rate} for of, rate in bench.peaks.items() if not math.isnan(rate)
        ],
        wanted.part: bench.table(),
        "compiling": [{"runtime": str(runtime), "seconds": seconds} for runtime, seconds in bench.compile_s.items()],
        "not measured": bench.absent,
    }
    if wanted.size == "full" and wanted.part == "encoder":
        result["published VGGT-1B on H100, 518x336 px"] = [
            {"frames": frames, "seconds": seconds} for frames, seconds in PUBLISHED.items()
        ]
    return result


def flops(config: VGGTConfig, frames: int, image_size: tuple[int, int]) -> float:
    """Floating-point operations of the aggregator: patches, linear layers, and both products of every attention."""
    patches = math.prod(side // config.patch_size for side in image_size)
    tokens = frames * (patches + PATCH_START)
    cut = 2 * 3 * config.patch_size**2 * config.embed_dim * frames * patches
    linear = 24 * config.embed_dim**2 * tokens
    within = 4 * config.embed_dim * tokens * (patches + PATCH_START)
    among = 4 * config.embed_dim * tokens * tokens
    return cut + config.patch_embed_depth * (linear + within) + config.depth * (2 * linear + within + among)


@cache
def counted_flops(config: VGGTConfig, heads: tuple[str, ...], frames: int, image_size: tuple[int, int]) -> float:
    """Floating-point operations of VGGT with these heads, as torch counts them without computing anything."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from spatial_mllm_ros.models.vggt.vggt import VGGT

    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        vggt = VGGT(config, heads)
        vggt.attention = "eager"  # the counter passes over the CPU's own kernel
        vggt(torch.empty(frames, 3, *image_size))
    return float(counter.get_total_flops())


def runtimes(wanted: Wanted, device: str) -> tuple[Runtime, list[Runtime], list[dict[str, Any]]]:
    """Torch eager as a model would run it, what to compare with it, and rows that say what is not here and why."""
    from spatial_mllm_ros.models.weights.precision import choose_device, choose_precision

    native = "bfloat16" if device == "cuda" else "float32"
    eager = Runtime("torch", device, native)
    others: list[Runtime] = []
    absent: list[dict[str, Any]] = []

    def leave_out(what: str, reason: str) -> None:
        absent.append({"runtime": what, "frames": "all", "reason": reason})

    of_torch = [p for p in wanted.precisions if p in PRECISIONS["torch"]] if wanted.precisions else [native]
    if not wanted.precisions:
        second = "float16" if device == "cuda" else "bfloat16"
        if device == "cuda" or choose_precision("auto", choose_device("cpu")) == second:
            of_torch.append(second)
        else:
            leave_out(
                f"torch cpu {second}", "this processor does not compute in it; --precisions measures it all the same"
            )
    if "torch" in wanted.kinds:
        kernels = wanted.attentions or (tuple(ATTENTIONS) if device == "cuda" else ())
        others += [Runtime("torch", device, p, kernel) for p in of_torch for kernel in ("", *kernels)]
        if device == "cpu":
            leave_out("torch cuda", "torch finds no CUDA device")
    if "compiled" in wanted.kinds:
        if _can_compile():
            others += [Runtime("compiled", device, p) for p in of_torch]
        else:
            leave_out(f"torch compiled {device}", "torch.compile needs a C++ compiler, and there is none")
    if "onnx" in wanted.kinds:
        others += _of_onnx(wanted, device, leave_out)
    return eager, [other for other in others if other != eager], absent


def _of_onnx(wanted: Wanted, device: str, leave_out: Callable[[str, str], None]) -> list[Runtime]:
    try:
        from spatial_mllm_ros.models.onnx import providers

        there = providers.available()
    except (ImportError, ModelUnavailable) as error:
        leave_out("onnxruntime", str(error))
        return []
    for name in providers.PREFERENCE:
        if name not in there:
            leave_out(f"onnxruntime {name}", f"the installed onnxruntime {providers.version()} has no such provider")
    usual = ("float32", "float16") if device == "cuda" else ("float32", "int8")
    precisions = [p for p in wanted.precisions or usual if p in PRECISIONS["onnx"]]
    return [Runtime("onnx", place, p) for place in there if device == "cpu" or place != "cpu" for p in precisions]


class _Bench:
    """Measures one runtime after the other and keeps what came out.

    peaks: the best matrix product, 10⁹ operations a second, by device and precision. absent: rows that say why.
    """

    def __init__(self, wanted: Wanted, eager: Runtime, pairs: int, progress: Progress) -> None:
        self.rows: list[_Measured] = []
        self.peaks: dict[str, float] = {}
        self.errors: dict[Runtime, float] = {}
        self.compile_s: dict[Runtime, float] = {}
        self.absent: list[dict[str, Any]] = []
        self._wanted, self._eager, self._pairs, self._progress = wanted, eager, pairs, progress
        self._expected: Any = None
        self._seconds_per_gflop = math.nan
        self._pair = 0
        self._loading_s: list[float] = []

    def measure(self, other: Runtime, folder: str) -> None:
        """At every number of frames, in turns with torch eager."""
        wanted = self._wanted
        begin = time.perf_counter()
        try:
            if self._expected is None:
                self._tell("computing in float32 what is to come out", 0)
                with process(expect, wanted.part, wanted.size, wanted.threads) as pipe:
                    self._expected = receive(pipe)
            jobs = [
                Job(each, wanted.part, wanted.size, wanted.image_size, wanted.threads, folder)
                for each in (self._eager, other)
            ]
            if other.kind == "onnx" and not jobs[1].file.exists():
                self._tell(f"exporting {other.precision}", 0)
                with process(export, wanted.part, wanted.size, jobs[1].file) as pipe:
                    receive(pipe)
            self._tell(f"loading {other}", 0)
            with process(serve, jobs[0]) as reference:
                self._ready(self._eager, receive(reference))
                if other == self._eager:
                    self._count_up(other, reference, reference)
                    return
                with process(serve, jobs[1]) as pipe:
                    self._ready(other, receive(pipe))
                    self._loading_s.append(time.perf_counter() - begin)
                    self._count_up(other, pipe, reference)
        except Failed as error:
            if other == self._eager or not self.errors:
                raise
            done = [row.frames for row in self.rows if row.runtime == other]
            frames = [count for count in wanted.counts if count not in done]
            self._leave_out(other, ", ".join(map(str, frames)), str(error))
        finally:
            self._pair += 1

    def table(self) -> list[dict[str, Any]]:
        """One row a runtime and number of frames; times are the least of all passes, ratios those of the same turns.

        runs: passes that counted. cpu_s tells the work on a CPU even where other processes take turns on it.
        share_of_peak: of what large matrix products reach in this precision. error: root mean square of the difference to
        torch in float32, by that of its output, of two fixed frames; where there are several outputs, that of the worst.
        """
        table = []
        for count in sorted({row.frames for row in self.rows}):
            same = [row for row in self.rows if row.frames == count]
            table.append(self._row(self._eager, count, [p for row in same for p in row.eager], 1.0))
            for row in same:
                if row.runtime != self._eager:
                    pairs = zip(row.eager, row.passes, strict=True)
                    table.append(
                        self._row(
                            row.runtime, count, row.passes, statistics.median(a.seconds / b.seconds for a, b in pairs)
                        )
                    )
        return table

    def _row(self, runtime: Runtime, count: int, passes: list[Pass], ratio: float) -> dict[str, Any]:
        rate = self._gflop(count) / min(p.seconds for p in passes)
        return {
            "runtime": str(runtime),
            "frames": count,
            "runs": len(passes),
            "seconds": min(p.seconds for p in passes),
            "x_eager": ratio,
            "cpu_s": min(p.cpu_s for p in passes),
            "peak_mb": _known(max(p.peak_mb for p in passes)),
            "gflop_per_s": rate,
            "share_of_peak": _known(rate / self.peaks.get(_kind_of_product(runtime), math.nan)),
            "error": self.errors.get(runtime),
        }

    def _count_up(self, other: Runtime, pipe: Any, reference: Any) -> None:
        each = [reference] if pipe is reference else [reference, pipe]
        longest = 0.0
        for index, count in enumerate(self._wanted.counts):
            if index:
                expected_s = longest * self._gflop(count) / self._gflop(self._wanted.counts[index - 1])
                if expected_s > self._wanted.limit_s:
                    rest = ", ".join(str(c) for c in self._wanted.counts[index:])
                    self._leave_out(other, rest, f"a pass would take about {expected_s:.0f} s; --limit allows more")
                    return
            self._tell(f"{other}, {count} frames", index)
            first = _passes(each, count)
            number = _turns(statistics.mean(p.seconds for p in first))
            turns = [_passes(each, count, backwards=turn % 2 == 0) for turn in range(number)] or [first]
            best = [min(turn[i].seconds for turn in turns) for i in range(len(each))]
            longest = max(best)
            self._seconds_per_gflop = statistics.mean(best) / self._gflop(count)
            self.rows.append(_Measured(other, count, [t[-1] for t in turns], [t[0] for t in turns]))

    def _ready(self, runtime: Runtime, ready: Ready) -> None:
        import numpy as np

        self.errors[runtime] = max(
            float(np.linalg.norm(ready.outputs[name] - expected) / np.linalg.norm(expected))
            for name, expected in self._expected.items()
        )
        product = _kind_of_product(runtime)
        known = self.peaks.get(product, math.nan)
        self.peaks[product] = ready.matrix_gflop_per_s if math.isnan(known) else max(known, ready.matrix_gflop_per_s)
        if ready.compile_s:
            self.compile_s[runtime] = ready.compile_s

    def _leave_out(self, runtime: Runtime, frames: str, reason: str) -> None:
        self.absent.append({"runtime": str(runtime), "frames": frames, "reason": reason})

    def _gflop(self, count: int) -> float:
        config, image_size = SIZES[self._wanted.size], self._wanted.image_size
        if self._wanted.part == "encoder":
            return flops(config, count, image_size) / 1e9
        return counted_flops(config, PARTS[self._wanted.part], count, image_size) / 1e9

    def _tell(self, what: str, index: int) -> None:
        counts = self._wanted.counts
        seconds = [self._seconds_per_gflop * self._gflop(count) for count in counts]
        each = [_planned_s(s) if s <= self._wanted.limit_s else 0.0 for s in seconds]
        left = sum(each) * (self._pairs - self._pair - 1) + sum(each[index:])
        left += statistics.fmean(self._loading_s or [0.0]) * (self._pairs - self._pair - 1)
        words = "" if math.isnan(left) or not self.rows else f", about {max(1, round(left / 60))} min left"
        self._progress(f"{what}{words}", self._pair * len(counts) + index, self._pairs * len(counts))


def _passes(pipes: Sequence[Any], count: int, backwards: bool = False) -> list[Pass]:
    """One pass of each, one after the other, in their order or the other way round."""
    found = {}
    for index in reversed(range(len(pipes))) if backwards else range(len(pipes)):
        pipes[index].send(count)
        found[index] = receive(pipes[index])
    return [found[index] for index in range(len(pipes))]


def _planned_s(seconds: float) -> float:
    """How long two processes are measured for whose passes take so long."""
    return 2 * seconds * (1 + _turns(seconds))


def _turns(seconds: float) -> int:
    """How often a pass of two processes is repeated after the first, which warms up; 0: the first is all."""
    return 0 if seconds > ONCE_S else min(MAX_TURNS, max(1, int(TURNS_S / (2 * seconds))))


def _kind_of_product(runtime: Runtime) -> str:
    device = "cpu" if runtime.place == "cpu" else "cuda"
    return f"{device} {runtime.precision}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _check(wanted: Wanted) -> None:
    """ValueError for names that are not known."""
    precisions = sorted({p for each in PRECISIONS.values() for p in each})
    for what, named, known in (
        ("part", [wanted.part], PARTS),
        ("size", [wanted.size], SIZES),
        ("runtime", wanted.kinds, KINDS),
        ("precision", wanted.precisions, precisions),
        ("attention", wanted.attentions, ATTENTIONS),
    ):
        for name in named:
            if name not in known:
                raise ValueError(f"{what} {name!r} is not known: it is one of {', '.join(known)}")


def _parameters(config: VGGTConfig, part: str = "encoder") -> int:
    import torch

    from spatial_mllm_ros.models.vggt.vggt import VGGT

    with torch.device("meta"):
        return sum(p.numel() for p in VGGT(config, PARTS[part]).parameters())


def _can_compile() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return bool(get_cpp_compiler())
    except InvalidCxxCompiler:
        return False


def _device_name(device: str) -> str:
    import torch

    from spatial_mllm_ros.models.onnx.providers import cpu_name

    return str(torch.cuda.get_device_name()) if device == "cuda" else cpu_name()
