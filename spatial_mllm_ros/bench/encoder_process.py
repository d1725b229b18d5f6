"""What ``bench encoder`` runs in processes of their own: exporting, and a runtime that takes as many frames as asked."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from spatial_mllm_ros.models.vggt.config import VGGTConfig

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
PARTS: dict[str, tuple[str, ...]] = {"encoder": (), "geometry": ("camera", "depth")}
"""What is measured, and VGGT's heads for it: the aggregator alone, or all that geometry from color needs."""
Outputs = dict[str, Any]
ATTENTIONS = {
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
    "math": "MATH",
}
"""Kernels of attention that torch has, by the names that it gives them."""
PEAK_S = 0.5
"""How long a matrix product is repeated to find the least time that it takes."""


@dataclass(frozen=True)
class Runtime:
    """What is measured.

    kind: "torch", "compiled" or "onnx". place: device of torch, or ONNX Runtime's provider. precision: of the weights.
    attention: one of ATTENTIONS; "" leaves it to torch.
    """

    kind: str
    place: str
    precision: str
    attention: str = ""

    def __str__(self) -> str:
        words = {"torch": "torch eager", "compiled": "torch compiled", "onnx": "onnxruntime"}
        return " ".join(filter(None, (words[self.kind], self.place, self.precision, self.attention)))


@dataclass(frozen=True)
class Job:
    """What a process measures: a runtime of a part (see PARTS) at a size, on frames of (height, width) pixels.

    threads: of the CPU. folder: for what is exported, built and compiled.
    """

    runtime: Runtime
    part: str
    size: str
    image_size: tuple[int, int]
    threads: int
    folder: str

    @property
    def file(self) -> Path:
        """What is exported, for "onnx"."""
        return Path(self.folder) / f"{self.runtime.precision}.onnx"


@dataclass(frozen=True, eq=False)
class Ready:
    """A runtime is loaded. compile_s: seconds that torch.compile took, else 0. matrix_gflop_per_s: see ``matrix_peak``.
    outputs: what it makes of the fixed frames, by name, float32."""

    compile_s: float
    matrix_gflop_per_s: float
    outputs: Outputs


@dataclass(frozen=True)
class Pass:
    """One pass: seconds, seconds of CPU of all threads, and the most memory meanwhile, megabytes."""

    seconds: float
    cpu_s: float
    peak_mb: float


def export(pipe: Connection, part: str, size: str, file: Path) -> None:
    """Write the part with random weights, in the precision that the file is called after."""
    from spatial_mllm_ros.models.onnx.export import export_encoder, export_geometry, to_int8

    precision, float32 = file.stem, file.with_name("float32.onnx")
    if precision == "int8" and float32.exists():
        to_int8(float32, file, check=False)
    else:
        write = export_encoder if part == "encoder" else export_geometry
        write(random_vggt(part, size), file, precision=precision, name=f"random weights, {size}", check=False)
    pipe.send("written")


def expect(pipe: Connection, part: str, size: str, threads: int) -> None:
    """Send what torch makes of the fixed frames on the CPU in float32."""
    import torch

    torch.set_num_threads(threads)
    pipe.send(_of_fixed_frames(_on_torch(part, random_vggt(part, size)), size))


def serve(pipe: Connection, job: Job) -> None:
    """Load, say ``Ready``, and take as many frames as the pipe says, answering with a ``Pass`` each."""
    import torch

    torch.set_num_threads(job.threads)
    device = "cuda" if job.runtime.place != "cpu" and torch.cuda.is_available() else "cpu"
    memory = _Memory(job.runtime)
    compute = _computing(job)

    def one_pass(count: int) -> Pass:
        frames = torch.rand(count, 3, *job.image_size, device=device)
        memory.forget_peak()
        start, cpu_start = time.perf_counter(), time.process_time()
        compute(frames)
        if device == "cuda":
            torch.cuda.synchronize()
        cpu_s = time.process_time() - cpu_start
        return Pass(time.perf_counter() - start, cpu_s, memory.peak_mb())

    with torch.inference_mode():
        compile_s = 0.0
        if job.runtime.kind == "compiled":  # for one frame, and then for any number
            compile_s = sum(one_pass(count).seconds for count in (1, 2))
            compile_s -= sum(one_pass(count).seconds for count in (1, 2))
        pipe.send(
            Ready(
                max(0.0, compile_s),
                matrix_peak(device, job.runtime.precision),
                _of_fixed_frames(lambda frames: compute(frames.to(device)), job.size),
            )
        )
        while True:
            pipe.send(one_pass(pipe.recv()))


def random_vggt(part: str, size: str) -> Any:
    """As torch initialises it, with the heads of a part; always the same."""
    import torch

    from spatial_mllm_ros.models.vggt.vggt import VGGT

    torch.manual_seed(0)
    return VGGT(SIZES[size], PARTS[part]).eval().requires_grad_(False)


def matrix_peak(device: str, precision: str) -> float:
    """10⁹ operations a second of large products of square matrices, best of several; NaN where torch has none.

    int8: products of these with sums in int32.
    """
    import torch

    best = math.nan
    for side in (8192,) if device == "cuda" else (1024, 2048):
        if precision == "int8":
            a = torch.randint(-127, 128, (side, side), device=device).to(torch.int8)
            b, product = a.T.contiguous(), torch._int_mm
        else:
            a = torch.randn(side, side, device=device).to(getattr(torch, precision))
            b, product = a.T.contiguous(), torch.matmul
        begin = time.perf_counter()
        while time.perf_counter() - begin < PEAK_S:
            start = time.perf_counter()
            try:
                product(a, b)
                if device == "cuda":
                    torch.cuda.synchronize()
            except RuntimeError:  # this device has none in this precision
                return math.nan
            rate = 2 * side**3 / (time.perf_counter() - start) / 1e9
            best = rate if math.isnan(best) else max(best, rate)
    return best


def _of_fixed_frames(compute: Callable[[Any], Outputs], size: str) -> Outputs:
    import numpy as np
    import torch

    from spatial_mllm_ros.models.vggt.spatial_encoder import fixed_frames

    with torch.inference_mode():
        found = compute(fixed_frames(2, SIZES[size].patch_size))
    return {
        name: value if isinstance(value, np.ndarray) else value.float().cpu().numpy() for name, value in found.items()
    }


def _computing(job: Job) -> Callable[[Any], Outputs]:
    """What is measured: frames [T, 3, height, width] on the runtime's device to the outputs."""
    import torch

    runtime = job.runtime
    if runtime.kind == "onnx":
        return _on_onnx(job)
    vggt = random_vggt(job.part, job.size).to(runtime.place)
    vggt.aggregator.to(getattr(torch, runtime.precision))  # heads stay in float32, as VGGT was published
    if runtime.kind == "compiled":
        _compile(vggt.aggregator, job.folder)
    on_torch = _on_torch(job.part, vggt)

    def compute(frames: Any) -> Outputs:
        with _kernel(runtime.attention):
            return on_torch(frames)

    return compute


def _on_onnx(job: Job) -> Callable[[Any], Outputs]:
    how: dict[str, Any] = {
        "providers": [job.runtime.place],
        "cache": Path(job.folder) / "engines",
        "threads": job.threads,
    }
    if job.part == "encoder":
        from spatial_mllm_ros.models.onnx.onnx_encoder import OnnxEncoder

        encoder = OnnxEncoder.load(job.file, **how)
        return lambda frames: {"tokens": encoder.encode(frames)}
    from spatial_mllm_ros.models.onnx.onnx_predictor import OnnxPredictor

    predictor = OnnxPredictor.load(job.file, **how)
    return lambda frames: predictor.outputs(frames.cpu().numpy())


def _on_torch(part: str, vggt: Any) -> Callable[[Any], Outputs]:
    if part == "encoder":
        from spatial_mllm_ros.models.vggt.spatial_encoder import TorchEncoder

        encoder = TorchEncoder(vggt.aggregator)
        return lambda frames: {"tokens": encoder.encode(frames)}

    def geometry(frames: Any) -> Outputs:
        found = vggt(frames.to(next(vggt.aggregator.parameters()).dtype))
        return {"pose_enc": found.pose_enc, "depth": found.depth[..., 0], "depth_conf": found.depth_conf}

    return geometry


def _compile(aggregator: Any, folder: str) -> None:
    """Block by block, all alike, so for every number and size of frames at once. What is compiled is kept in the folder
    alone, and made without further processes."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.fspath(Path(folder) / "compiled")
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    for block in (*aggregator.patch_embed.blocks, *aggregator.frame_blocks, *aggregator.global_blocks):
        block.compile(dynamic=True)


def _kernel(attention: str) -> AbstractContextManager[object]:
    """Within, torch computes attention with this kernel or not at all."""
    if not attention:
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(getattr(SDPBackend, ATTENTIONS[attention]))


class _Memory:
    """Most memory that this process has: resident on a CPU, else that of the device."""

    def __init__(self, runtime: Runtime) -> None:
        """To be made before anything is loaded."""
        self._of_torch = runtime.place == "cuda" and runtime.kind != "onnx"
        self._on_device = runtime.place != "cpu"
        self._before = self._in_use() if self._on_device and not self._of_torch else 0

    def forget_peak(self) -> None:
        """Start the record anew, where the system allows that. ONNX Runtime keeps what it ever took of a GPU."""
        if self._of_torch:
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        elif not self._on_device:
            try:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            except OSError:
                return

    def peak_mb(self) -> float:
        """Since ``forget_peak``; NaN if unknown."""
        if self._of_torch:
            import torch

            peak = torch.cuda.max_memory_reserved()
            torch.cuda.empty_cache()  # so that it is not taken for another process's
            return peak / 1e6
        if self._on_device:
            return (self._in_use() - self._before) / 1e6
        status = Path("/proc/self/status")
        lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
        found = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), math.nan)
        return found * 1024 / 1e6

    @staticmethod
    def _in_use() -> float:
        """Bytes of the first device, by all processes; NaN where torch cannot tell."""
        import torch

        if not torch.cuda.is_available():
            return math.nan
        free, total = torch.cuda.mem_get_info()
        return float(total - free)
