"""spatial-mllm doctor: what is installed, what is missing, what each lack costs."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from spatial_mllm_ros import __version__
from spatial_mllm_ros.commands import common
from spatial_mllm_ros.commands.models import gigabytes
from spatial_mllm_ros.models.worker import machine
from spatial_mllm_ros.models.worker.machine import Device
from spatial_mllm_ros.serving.checkpoints import hub
from spatial_mllm_ros.serving.interface import PRECISIONS, ModelUnavailable

EPILOG = """
\b
Examples:
  spatial-mllm doctor
  spatial-mllm doctor --json | jq '.parts[] | select(.status == "missing")'

Exit code: 0 unless something that the package cannot do without is missing or broken.
"""


@dataclass(frozen=True)
class Wanted:
    """A library: how it is imported, its distribution, whether the package needs it, what its lack costs, the cure."""

    module: str
    distribution: str
    needed: bool
    costs: str
    cure: str


@dataclass(frozen=True)
class Part:
    """What was found. status: ok, missing (and not needed), or broken (needed and missing, or it does not import)."""

    name: str
    status: str
    version: str = ""
    remark: str = ""


_BASE = "pip install --force-reinstall spatial_mllm_ros"
_MODEL = "pip install 'spatial_mllm_ros[model]'"
_ONNX = "pip install 'spatial_mllm_ros[onnx-runtime]'"
_PHONE = "pip install 'spatial_mllm_ros[phone]'"
_ROS = "install ROS 2 (Humble or newer) and source its setup.bash; rosbags and Cyclone DDS work without"
WANTED = (
    Wanted("numpy", "numpy", True, "nothing works", _BASE),
    Wanted("scipy", "scipy", True, "nothing works", _BASE),
    Wanted("cv2", "opencv-python-headless", True, "no image is read or written", _BASE),
    Wanted("rosbags", "rosbags", True, "no rosbag2 is read or written", _BASE),
    Wanted("yaml", "pyyaml", True, "questions are not understood", _BASE),
    Wanted("click", "click", True, "no command line", _BASE),
    Wanted("rich", "rich", True, "no command line", _BASE),
    Wanted("jinja2", "jinja2", True, "no reports", _BASE),
    Wanted("embreex", "embreex", False, "no rendered recordings (demo, render)", "pip install embreex"),
    Wanted("pillow_heif", "pillow-heif", False, "no HEIC images", _PHONE),
    Wanted("lzfse", "lzfse", False, "no depth of Record3D files", _PHONE),
    Wanted("cyclonedds", "cyclonedds", False, "no node without ROS installed", "pip install cyclonedds"),
    Wanted("rclpy", "rclpy", False, "no ROS 2 node in this environment", _ROS),
    Wanted("torch", "torch", False, "no model: geometry alone answers", _MODEL),
    Wanted("transformers", "transformers", False, "no model: geometry alone answers", _MODEL),
    Wanted("safetensors", "safetensors", False, "no checkpoints are read", _MODEL),
    Wanted("huggingface_hub", "huggingface_hub", False, "no checkpoints are downloaded", _MODEL),
    Wanted("onnxruntime", "onnxruntime", False, "models do not run on ONNX Runtime", _ONNX),
    Wanted("tensorrt", "tensorrt", False, "models do not run on TensorRT", "pip install tensorrt (NVIDIA GPUs only)"),
)


@click.command(name="doctor", epilog=EPILOG, short_help="What is installed, what is missing, what each lack costs.")
@common.json_option
@click.pass_context
def doctor_command(ctx: click.Context, *, as_json: bool) -> None:
    """Look at this machine and this environment: versions, what is missing, what each lack costs, how to get it."""
    parts = [python_part(), *map(library_part, WANTED), ros_part(), *machine_parts(), *model_parts()]
    broken = [part for part in parts if part.status == "broken"]
    if as_json:
        common.print_json({"ok": not broken, "version": __version__, "parts": [asdict(part) for part in parts]})
    else:
        print_parts(parts, len(broken))
    if broken:
        ctx.exit(1)


def print_parts(parts: list[Part], broken: int) -> None:
    """The findings for people."""
    styles = {"ok": "green", "missing": "yellow", "broken": "bold red"}
    table = Table.grid(padding=(0, 2))
    for part in parts:
        table.add_row(
            Text(part.status, style=styles[part.status]), part.name, Text(part.version), Text(part.remark, style="dim")
        )
    console = common.out()
    console.print(Text(f"spatial_mllm_ros {__version__}", style="bold"))
    console.print(table)
    if broken:
        console.print(Text(f"{broken} that the package cannot do without: see 'broken' above", style="bold red"))
    else:
        console.print(Text("Everything that geometry needs is here.", style="green"))


def python_part() -> Part:
    """The interpreter."""
    return Part("python", "ok", platform.python_version(), sys.executable)


def library_part(wanted: Wanted) -> Part:
    """Whether a library is installed, and whether it imports if it is needed and quick to import."""
    absent = "broken" if wanted.needed else "missing"
    try:
        found = importlib.util.find_spec(wanted.module) is not None
    except (ImportError, ValueError) as error:
        return Part(wanted.module, "broken", "", f"does not import: {error}")
    if not found:
        return Part(wanted.module, absent, "", f"{wanted.costs}; {wanted.cure}")
    try:
        version = importlib.metadata.version(wanted.distribution)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    if wanted.needed or wanted.module == "embreex":
        try:
            importlib.import_module(wanted.module)
        except ImportError as error:
            return Part(wanted.module, "broken", version, f"does not import: {error}; {wanted.cure}")
    return Part(wanted.module, "ok", version)


def ros_part() -> Part:
    """The sourced ROS 2 environment."""
    distro = os.environ.get("ROS_DISTRO", "")
    if not distro:
        return Part("ROS 2", "missing", "", f"ROS_DISTRO is not set: {_ROS}")
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    middleware = os.environ.get("RMW_IMPLEMENTATION", "default middleware")
    return Part("ROS 2", "ok", distro, f"domain {domain}, {middleware}")


def machine_parts() -> list[Part]:
    """Cores, memory, disk and GPU."""
    parts = [Part("cores", "ok", str(_cores()))]
    free, total = _memory_gb()
    if total:
        little = free < 2
        remark = "less than the memory's default bound of 2 GB: lower --max-mb" if little else ""
        parts.append(Part("memory", "ok", f"{free:.1f} GB free of {total:.1f} GB", remark))
    parts.append(Part("disk", "ok", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB free here"))
    gpu = _gpu()
    parts.append(
        Part("GPU", "ok", gpu) if gpu else Part("GPU", "missing", "", "nvidia-smi finds none: models are slow")
    )
    return parts


def model_parts() -> list[Part]:
    """What models run on, and the checkpoints that are here. No model is loaded."""
    found = []
    devices: list[Device] = []
    if _installed("torch") and _installed("transformers"):
        try:
            devices = machine.devices()
        except (ImportError, OSError) as error:
            found.append(Part("models", "broken", "", f"torch does not import: {error}; {_MODEL}"))
        found += [device_part(device) for device in devices]
        flash = "flash" in machine.attentions()
        remark = "" if flash or len(devices) < 2 else "flash_attn is not installed: sdpa is nearly as fast"
        found.append(Part("attention", "ok", ", ".join(machine.attentions()), remark))
    if _installed("onnxruntime"):
        found.append(providers_part())
        found += engine_parts()
    checkpoints = hub.checkpoints()
    if not checkpoints:
        remark = f"none in {hub.models_folder()}; spatial-mllm download Diankun/Spatial-MLLM-v1.1-Instruct-135K"
        found.append(Part("checkpoints", "missing", "", f"geometry alone answers: {remark}"))
    return found + [checkpoint_part(checkpoint, devices) for checkpoint in checkpoints]


def providers_part() -> Part:
    """What ONNX Runtime runs on, in the order in which it is preferred."""
    from spatial_mllm_ros.models.onnx import providers
    from spatial_mllm_ros.serving.onnx_file import ExportError

    try:
        found = providers.summary()["providers"]
    except ExportError as error:
        return Part("execution providers", "broken", "", str(error))
    words = ", ".join(f"{name} ({device})" if device else name for name, device in found.items())
    return Part("execution providers", "ok", words)


def engine_parts() -> list[Part]:
    """Engines that were built from exported files, in the usual folder: whose, runtime, provider and precision."""
    from spatial_mllm_ros.models.onnx.engine_cache import EngineCache

    return [Part("engine", "ok", name, source.get("file", "")) for name, source in EngineCache().engines()]


def device_part(device: Device) -> Part:
    """A device that models can run on."""
    memory = f", {device.free / 1e9:.1f} GB free of {device.total / 1e9:.1f} GB" if device.total else ""
    remark = "" if device.bfloat16 else "no bfloat16 in hardware: float32 is taken, which needs twice the memory"
    return Part(device.name, "ok", f"{device.words}{memory}", remark)


def checkpoint_part(checkpoint: hub.Checkpoint, devices: list[Device]) -> Part:
    """A checkpoint, and what it would run in on the first device."""
    if checkpoint.problem:
        return Part(checkpoint.model, "missing", gigabytes(checkpoint.size), checkpoint.problem)
    return Part(checkpoint.model, "ok", gigabytes(checkpoint.size), fit(checkpoint, devices[0]) if devices else "")


def fit(checkpoint: hub.Checkpoint, device: Device) -> str:
    """What a checkpoint needs in every precision that is to be had, and which of them the device has room for."""
    needed = machine.vggt_needs(checkpoint.folder)
    if needed is not None:
        much = " (too much)" if 0 < device.free < needed else ""
        return f"VGGT, for geometry from color (rgb_geometry): needs {needed / 1e9:.1f} GB on {device.name}{much}"
    sizes = {}
    for precision in PRECISIONS[1:]:
        try:
            sizes[precision] = machine.needs(checkpoint.folder, device.name, precision)
        except ModelUnavailable as error:
            if precision != "int4":  # which needs a library of its own
                return str(error)
    words = ", ".join(
        f"{name} {size.needed / 1e9:.1f} GB{'' if size.fits else ' (too much)'}" for name, size in sizes.items()
    )
    free = next(iter(sizes.values())).free / 1e9
    exported = machine.needs(checkpoint.folder, device.name, "bfloat16", exported="int8")
    if exported.exported:
        words += f"; bfloat16 with the spatial encoder exported in int8 {exported.needed / 1e9:.1f} GB"
    return f"needs with 16 frames, of {free:.1f} GB free on {device.name}: {words}"


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else (os.cpu_count() or 1)


def _memory_gb() -> tuple[float, float]:
    """Gigabytes available and in all; zeros where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = {line.split(":")[0]: float(line.split()[1]) * 1024 / 1e9 for line in lines if ":" in line}
        return fields["MemAvailable"], fields["MemTotal"]
    except (OSError, KeyError, ValueError, IndexError):
        return 0.0, 0.0


def _gpu() -> str:
    """Name and memory of the GPUs, as nvidia-smi says; '' where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        run = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(line.strip() for line in run.stdout.splitlines() if line.strip()) if run.returncode == 0 else ""
