"""What ONNX Runtime can run on here. No torch here."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from spatial_mllm_ros.serving.onnx_file import INSTALL, ExportError

PREFERENCE = ("tensorrt", "cuda", "cpu")
"""Providers by preference; each is used for what those before it do not run."""
NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


def onnxruntime() -> ModuleType:
    """The library. Raises ExportError where it is not installed, or does not load."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(f"onnxruntime does not import ({error}): {INSTALL}") from error
    return onnxruntime


def available() -> tuple[str, ...]:
    """Providers that the installed ONNX Runtime has, by preference. Raises ExportError without one."""
    there = onnxruntime().get_available_providers()
    return tuple(name for name in PREFERENCE if NAMES[name] in there)


def choose(wanted: str | Sequence[str] = "auto") -> tuple[str, ...]:
    """Providers to try, in order: all that are there (auto), or those named, which must be there.

    Raises ExportError for one that is not known or not there.
    """
    there = available()
    if wanted == "auto":
        return there
    names = tuple(part.strip() for part in wanted.split(",")) if isinstance(wanted, str) else tuple(wanted)
    for name in names:
        if name not in NAMES:
            raise ExportError(f"provider {name!r} is not known: it is auto, or of {', '.join(PREFERENCE)}")
        if name not in there:
            raise ExportError(
                f"the installed onnxruntime {version()} has no provider {name} (it has {', '.join(there)}): install "
                "onnxruntime-gpu (on a Jetson NVIDIA's build of it), or choose auto"
            )
    return names


def version() -> str:
    """Of ONNX Runtime."""
    return str(onnxruntime().__version__)


def versions(provider: str) -> dict[str, str]:
    """Everything whose change makes an engine of this provider stale."""
    found = {"onnxruntime": version(), "build": str(onnxruntime().get_build_info())}
    if provider != "cpu":
        found["driver"] = _nvidia("driver_version")
    if provider == "tensorrt":
        found["tensorrt"] = _tensorrt_version()
    return found


def device_name(provider: str) -> str:
    """The device that a provider computes on: the GPU's name, or the CPU's with a digest of what it can do."""
    return (_nvidia("name") or "CUDA device") if provider != "cpu" else cpu_name()


def free_gpu_memory() -> int | None:
    """Bytes that are free on the first GPU; None where the driver does not say."""
    words = _nvidia("memory.free").split()  # "1234 MiB"
    return int(words[0]) << 20 if words and words[0].isdigit() else None


@lru_cache
def cpu_name() -> str:
    """Model of the CPU and a digest of its instruction sets."""
    model, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        fields = [line.split(":", 1) for line in info.read_text(encoding="utf-8", errors="replace").splitlines()]
        values = {field[0].strip(): field[1].strip() for field in reversed(fields) if len(field) == 2}
        model = values.get("model name", model)
        flags = values.get("flags", values.get("Features", ""))
    return f"{model} {platform.machine()} {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def _nvidia(field: str) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, f"--query-gpu={field}", "--format=csv,noheader", "--id=0"]
    try:
        run = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def _tensorrt_version() -> str:
    if find_spec("tensorrt") is None:
        return "of the system"
    try:
        return importlib.metadata.version("tensorrt")
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module("tensorrt"), "__version__", "unknown"))


def summary() -> dict[str, Any]:
    """For ``doctor``: the version, and the device of every provider that is there."""
    return {"version": version(), "providers": {name: device_name(name) for name in available()}}
