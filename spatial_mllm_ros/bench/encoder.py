"""``spatial-mllm bench encoder``: what the spatial encoder costs, by runtime, precision and number of frames.

Every runtime has a process of its own, so that its memory is its own. Each is measured in turns with torch eager, which
has one too: what else the machine does then slows both alike.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from spatial_mllm_ros.bench.processes import ends_tidily, process, receive
from spatial_mllm_ros.models.vggt.config import PATCH_START, VGGTConfig

Progress = Callable[[str, int, int | None], None]
COUNTS = (1, 2, 4, 8, 16, 32)
PUBLISHED = {1: 0.04, 8: 0.11, 20: 0.31, 100: 3.12}
"""Seconds by number of frames of 518x336 px: VGGT-1B's aggregator on an H100 with flash attention (arXiv 2503.11651)."""
SIZES = {
    "tiny": VGGTConfig(
        embed_dim=64, depth=2, num_heads=2, patch_embed_depth=2, patch_embed_num_heads=2, dpt_layers=(0, 0, 1, 1)
    ),
    "small": VGGTConfig(
        embed_dim=256, depth=6, num_heads=4, patch_embed_depth=6, patch_embed_num_heads=4, dpt_layers=(1, 2, 4, 5)
    ),
    "base": VGGTConfig(
        embed_dim=512, depth=12, num_heads=8, patch_embed_depth=12, patch_embed_num_heads=8, dpt_layers=(2, 5, 8, 11)
    ),
    "full": VGGTConfig(),
}
"""Sizes by name, all with heads of 64 channels but the first's 32; "full" is VGGT-1B."""


@dataclass(frozen=True)
class Runtime:
    """What is measured. kind: "torch", "compiled" or "onnx". place: device of torch, or ONNX Runtime's provider."""

    kind: str
    place: str
    precision: str

    def __str__(self) -> str:
        words = {"torch": "torch eager", "compiled": "torch compiled", "onnx": "onnxruntime"}
        return f"{words[self.kind]} {self.place} {self.precision}"


@dataclass(frozen=True)
class Job:
    """What a process measures: a runtime at a size, on frames of (height, width) pixels; file: exported, for "onnx"."""

    runtime: Runtime
    size: str
    image_size: tuple[int, int]
    threads: int
    file: str = ""
    cache: str = ""


def run(
    size: str = "small",
    image_size: tuple[int, int] = (336, 518),
    counts: Sequence[int] = COUNTS,
    limit_s: float = 20.0,
    precisions: Sequence[str] = (),
    threads: int = 0,
    compiled: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Time and memory of every runtime that is here.

    size: one of SIZES, with random weights. image_size: (height, width) of the frames, pixels. counts: of frames; those
    at which one pass would take longer than ``limit_s`` are left out. precisions: of exported encoders; by default those
    that make sense on the device. threads: of the CPU; 0: as many as torch takes. compiled: measure torch.compile too.
    Raises ValueError for a size, and ExportError.
    """
    import torch

    if size not in SIZES:
        raise ValueError(f"size {size!r} is not known: it is one of {', '.join(SIZES)}")
    threads = threads or torch.get_num_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    native = "bfloat16" if device == "cuda" else "float32"
    eager = Runtime("torch", device, native)
    others = [Runtime("compiled", device, native)] if compiled and _can_compile() else []
    remarks = [] if others or not compiled else ["torch.compile is not measured: there is no C++ compiler"]
    try:
        from spatial_mllm_ros.models.runtime.providers import available

        wanted = precisions or (("float32", "float16") if device == "cuda" else ("float32", "int8"))
        others += [
            Runtime("onnx", place, p) for place in available() for p in wanted if device == "cpu" or place != "cpu"
        ]
    except ImportError as error:
        remarks.append(f"ONNX Runtime is not measured: {error}")
    rows: list[dict[str, Any]] = []
    with ends_tidily(), tempfile.TemporaryDirectory(prefix="bench_encoder_") as folder:
        jobs = [Job(eager, size, image_size, threads)]
        for other in others:
            file = Path(folder) / f"{other.precision}.onnx"
            if other.kind == "onnx" and not file.exists():
                progress(f"exporting {other.precision}", 0, None)
                with process(_export, size, other.precision, folder) as pipe:
                    receive(pipe)
            jobs.append(Job(other, size, image_size, threads, os.fspath(file), os.fspath(Path(folder) / "engines")))
        for job in jobs[1:] or jobs:
            rows += _measure(jobs[0], job, counts, limit_s, progress)
    return {
        "size": size,
        "parameters": _parameters(SIZES[size]),
        "frame": f"{image_size[1]}x{image_size[0]} px",
        "device": _device_name(device),
        "threads": threads,
        "encoder": _table(rows, eager),
        "published VGGT-1B on H100": [{"frames": frames, "seconds": seconds} for frames, seconds in PUBLISHED.items()],
        "remarks": "; ".join(remarks) or "none",
    }


def flops(config: VGGTConfig, frames: int, image_size: tuple[int, int]) -> float:
    """Floating-point operations of the aggregator: linear layers, and both products of every attention."""
    patches = math.prod(side // config.patch_size for side in image_size)
    tokens = frames * (patches + PATCH_START)
    linear = 24 * config.embed_dim**2 * tokens
    within = 4 * config.embed_dim * tokens * (patches + PATCH_START)
    among = 4 * config.embed_dim * tokens * tokens
    return config.patch_embed_depth * (linear + within) + config.depth * (2 * linear + within + among)


def _measure(
    eager: Job, other: Job, counts: Sequence[int], limit_s: float, progress: Progress
) -> Iterator[dict[str, Any]]:
    """A row for each number of frames: of ``other``, with eager's figures from the same turns."""
    with process(_serve, eager) as reference, process(_serve, other) as pipe:
        for each in (reference, pipe):
            receive(each)
        last = 0.0
        for index, count in enumerate(counts):
            progress(f"{other.runtime}, {count} frames", index, len(counts))
            if index and last * (count / counts[index - 1]) ** 1.5 > limit_s:
                return
            times: dict[Connection, list[float]] = {reference: [], pipe: []}
            work: dict[Connection, list[float]] = {reference: [], pipe: []}
            peaks: dict[Connection, float] = {}
            start = time.perf_counter()
            turns = 0
            while turns < 2 or (turns < 7 and time.perf_counter() - start < limit_s / 2):
                for each in (reference, pipe) if turns % 2 else (pipe, reference):
                    each.send(count)
                    seconds, cpu_s, peaks[each] = receive(each)
                    if turns:  # the first warms up
                        times[each].append(seconds)
                        work[each].append(cpu_s)
                turns += 1
            last = min(times[reference])
            yield {
                "runtime": other.runtime,
                "frames": count,
                "times": times[pipe],
                "eager": times[reference],
                "cpu_s": min(work[pipe]),
                "eager_cpu_s": min(work[reference]),
                "peak_mb": peaks[pipe],
                "eager_peak_mb": peaks[reference],
                "gflop": flops(SIZES[other.size], count, other.image_size) / 1e9,
            }


def _table(rows: list[dict[str, Any]], eager: Runtime) -> list[dict[str, Any]]:
    """One row a runtime and number of frames; times are the least of all turns, ratios those of the same turns.

    cpu_s tells the work on a CPU even where other processes take turns on it.
    """
    table = []
    for count in sorted({row["frames"] for row in rows}):
        same = [row for row in rows if row["frames"] == count]
        every = [t for row in same for t in row["eager"]]
        cpu_s, peak = min(row["eager_cpu_s"] for row in same), max(row["eager_peak_mb"] for row in same)
        table.append(_row(eager, count, every, 1.0, cpu_s, peak, same[0]["gflop"]))
        for row in same:
            if row["runtime"] != eager:
                ratio = statistics.median(a / b for a, b in zip(row["eager"], row["times"], strict=True))
                table.append(
                    _row(row["runtime"], count, row["times"], ratio, row["cpu_s"], row["peak_mb"], row["gflop"])
                )
    return table


def _row(
    runtime: Runtime, count: int, times: list[float], ratio: float, cpu_s: float, peak: float, gflop: float
) -> dict[str, Any]:
    return {
        "runtime": str(runtime),
        "frames": count,
        "seconds": min(times),
        "times_faster_than_eager": ratio,
        "cpu_s": cpu_s,
        "peak_mb": peak,
        "gflop_per_s": gflop / min(times),
    }


def _export(pipe: Connection, size: str, precision: str, folder: str) -> None:
    from spatial_mllm_ros.models.export.export import export_encoder, to_int8

    float32, file = Path(folder) / "float32.onnx", Path(folder) / f"{precision}.onnx"
    if precision == "int8" and float32.exists():
        to_int8(float32, file, check=False)
    else:
        export_encoder(_random_vggt(size), file, precision=precision, name=f"random weights, {size}", check=False)
    pipe.send("written")


def _serve(pipe: Connection, job: Job) -> None:
    """Load, say so, and encode as many frames as the pipe says, answering (seconds, seconds of CPU, peak
    megabytes)."""
    import torch

    torch.set_num_threads(job.threads)
    encode = _encoder(job)
    on_gpu = torch.cuda.is_available()
    pipe.send("ready")
    with torch.inference_mode():
        while True:
            count = pipe.recv()
            frames = torch.rand(count, 3, *job.image_size, device="cuda" if on_gpu else "cpu")
            _forget_peak()
            start, cpu_start = time.perf_counter(), time.process_time()
            encode(frames)
            if on_gpu:
                torch.cuda.synchronize()
            cpu_s = time.process_time() - cpu_start
            pipe.send((time.perf_counter() - start, cpu_s, _peak_mb(on_gpu)))


def _encoder(job: Job) -> Callable[[Any], Any]:
    import torch

    from spatial_mllm_ros.models.runtime.spatial_encoder import TorchEncoder

    if job.runtime.kind == "onnx":
        from spatial_mllm_ros.models.runtime.onnx_encoder import OnnxEncoder

        return OnnxEncoder.load(job.file, providers=[job.runtime.place], cache=job.cache, threads=job.threads).encode
    aggregator = _random_vggt(job.size).aggregator.to(job.runtime.place, getattr(torch, job.runtime.precision))
    if job.runtime.kind == "compiled":
        aggregator.patch_embed.compile(dynamic=False)
        for block in (*aggregator.frame_blocks, *aggregator.global_blocks):
            block.compile(dynamic=True)
    return TorchEncoder(aggregator).encode


def _random_vggt(size: str) -> Any:
    """As torch initialises it."""
    import torch

    from spatial_mllm_ros.models.vggt.vggt import VGGT

    torch.manual_seed(0)
    return VGGT(SIZES[size]).eval().requires_grad_(False)


def _parameters(config: VGGTConfig) -> int:
    import torch

    from spatial_mllm_ros.models.vggt.vggt import VGGT

    with torch.device("meta"):
        return sum(p.numel() for p in VGGT(config).parameters())


def _can_compile() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return bool(get_cpp_compiler())
    except InvalidCxxCompiler:
        return False


def _device_name(device: str) -> str:
    import torch

    from spatial_mllm_ros.models.runtime.providers import cpu_name

    return str(torch.cuda.get_device_name()) if device == "cuda" else cpu_name()


def _forget_peak() -> None:
    """Start the system's record of this process's peak anew, where it allows that."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_mb(on_gpu: bool) -> float:
    """Most memory since the last ``_forget_peak``: resident, or on a GPU what is in use of the device; NaN if unknown."""
    if on_gpu:
        import torch

        free, total = torch.cuda.mem_get_info()
        return (total - free) / 1e6
    status = Path("/proc/self/status")
    if not status.exists():
        return math.nan
    for line in status.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return math.nan
