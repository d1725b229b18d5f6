"""Cameras and depth from color images alone."""

from __future__ import annotations

from collections.abc import Callable

from spatial_mllm_ros.serving.interface import GeometryPredictor, ModelUnavailable
from spatial_mllm_ros.serving.onnx_file import INSTALL


def load_predictor(
    model: str,
    device: str = "cpu",
    dtype: str = "float32",
    width: int = 518,
    progress: Callable[[int, int], None] | None = None,
) -> GeometryPredictor:
    """VGGT from a checkpoint: a folder, or the id of one that was downloaded, of Spatial-MLLM or of VGGT itself.

    device: "cpu", "cuda" or "auto". dtype: "float32", "bfloat16" or "float16", of the large part. width: px that images
    are resized to. progress: (bytes read, bytes in all). Raises ModelUnavailable, also where torch is not installed.
    """
    try:
        import torch

        from spatial_mllm_ros.models.vggt.predictor import VGGTPredictor
    except ImportError as error:
        raise ModelUnavailable(
            f"geometry from color needs torch and more ({error}): pip install 'spatial_mllm_ros[model]'"
        ) from error
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ModelUnavailable(f"dtype must be float32, bfloat16 or float16, not {dtype!r}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnavailable(f"device is {device}, but torch sees no CUDA device: use cpu or auto")
    return VGGTPredictor.load(model, device, getattr(torch, dtype), width, progress)


def load_exported_predictor(
    file: str,
    device: str = "auto",
    providers: str = "auto",
    width: int = 518,
    *,
    engine_folder: str = "",
    threads: int = 0,
    progress: Callable[[str, int, int], object] = lambda what, done, total: None,
) -> GeometryPredictor:
    """VGGT from a file of ``spatial-mllm export geometry``, on ONNX Runtime, without torch.

    device: "auto", "cpu" or "cuda". providers: "auto" (those that the device allows), or of tensorrt, cuda and cpu by
    preference. engine_folder: '' is the user's. threads: of the CPU; 0: as many as ONNX Runtime chooses. progress: (what
    is being done, steps done, steps in all). Raises ModelUnavailable, also where ONNX Runtime is not installed.
    """
    try:
        from spatial_mllm_ros.models.onnx.onnx_predictor import OnnxPredictor
    except ImportError as error:
        raise ModelUnavailable(
            f"geometry from color from an exported file needs onnxruntime and more ({error}): {INSTALL}"
        ) from error
    return OnnxPredictor.load(
        file,
        providers=providers_on(device, providers),
        cache=engine_folder or None,
        width=width,
        threads=threads,
        progress=progress,
    )


def providers_on(device: str, providers: str) -> str:
    """The providers to try for an exported file, where ``device`` restricts them. Raises ModelUnavailable."""
    if device == "auto" or providers != "auto":
        return providers
    if device in ("cpu", "cuda"):
        return device
    raise ModelUnavailable(
        f"an exported file runs on device auto, cpu or cuda, not {device}: ONNX Runtime is given the first GPU"
    )
