"""What this machine has to run models on, and what a checkpoint needs of it. torch is imported when it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from spatial_mllm_ros.serving.interface import ModelOptions, ModelUnavailable

if TYPE_CHECKING:
    from spatial_mllm_ros.models.weights.preflight import MemoryEstimate


@dataclass(frozen=True)
class Device:
    """name: as parameters name it ("cuda:0"). words: what it is. free, total: bytes of memory, 0 where the system does
    not say. bfloat16: whether it computes in it, and does not imitate it."""

    name: str
    words: str
    free: int
    total: int
    bfloat16: bool


def devices() -> list[Device]:
    """GPUs that torch can use, then the CPU. Imports torch; ImportError or OSError where that is broken."""
    import torch

    from spatial_mllm_ros.models.weights.precision import choose_precision

    found = []
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        native = choose_precision("auto", torch.device("cuda", i)) == "bfloat16"
        found.append(Device(f"cuda:{i}", torch.cuda.get_device_name(i), free, total, native))
    return [*found, Device("cpu", *_cpu(), choose_precision("auto", torch.device("cpu")) == "bfloat16")]


def _cpu() -> tuple[str, int, int]:
    """What it is, and memory available and in all, as Linux says."""
    memory = {name: int(value.split()[0]) << 10 for name, value in _fields("/proc/meminfo") if value.endswith("kB")}
    words = dict(_fields("/proc/cpuinfo")).get("model name", "CPU")
    return words, memory.get("MemAvailable", 0), memory.get("MemTotal", 0)


def needs(folder: Path, device: str, precision: str, frames: int = 16, exported: str = "") -> MemoryEstimate:
    """The memory that a checkpoint needs to answer about ``frames`` frames, from its headers; nothing is loaded.

    exported: precision of an exported spatial encoder that takes the place of its own; "": none does.
    Raises ModelUnavailable for what cannot be loaded, or not in that precision.
    """
    from transformers import AutoConfig

    from spatial_mllm_ros.models.mllm.loading import family_of
    from spatial_mllm_ros.models.mllm.spatial_mllm import config_of
    from spatial_mllm_ros.models.weights.checkpoint import read_checkpoint
    from spatial_mllm_ros.models.weights.precision import choose_device, choose_precision
    from spatial_mllm_ros.models.weights.preflight import estimate_memory, exported_bytes

    found, on = read_checkpoint(folder), choose_device(device)
    chosen = choose_precision(precision, on)
    try:
        spatial = family_of(found) == "spatial-mllm"
        config = config_of(found) if spatial else AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"the configuration in {folder} is not that of a model: {error}") from error
    options = ModelOptions(str(folder), max_context_frames=frames)
    size = exported_bytes(found, exported) if exported else 0
    return estimate_memory(found, config, options, precision=chosen, device=on, exported=size)


def vggt_needs(folder: Path) -> int | None:
    """Bytes that a checkpoint of VGGT alone needs to make geometry from color; None for one of another kind, or none."""
    from spatial_mllm_ros.models.weights.checkpoint import read_checkpoint
    from spatial_mllm_ros.models.worker.geometry_worker import needed_bytes
    from spatial_mllm_ros.serving.geometry_process import GeometryOptions

    try:
        alone = any(name.startswith("aggregator.") for name in read_checkpoint(folder).tensors)
        return needed_bytes(GeometryOptions(str(folder))) if alone else None
    except ModelUnavailable:  # what is wrong with it is told where it is to be loaded
        return None


def attentions() -> list[str]:
    """Implementations of attention that are installed, the fastest first."""
    return [*(["flash"] if find_spec("flash_attn") is not None else []), "sdpa", "eager"]


def _fields(path: str) -> list[tuple[str, str]]:
    """ "name : value" lines of a file of the system; none where there is no such file."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    pairs = (line.partition(":") for line in text.splitlines())
    return [(name.strip(), value.strip()) for name, colon, value in pairs if colon]
