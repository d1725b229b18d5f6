"""Cameras and depth from colour images alone."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.models.interface import ModelUnavailable
from spatial_mllm_ros.scene.window import WindowGeometry


class GeometryPredictor(Protocol):
    """A network, or a stand-in, that sees a few overlapping images at once."""

    @property
    def name(self) -> str:
        """What people call it, with its weights where that matters."""
        ...

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        """Geometry of RGB images [T, H, W, 3], in a frame and unit of its own choice. T may be 1.

        Raises InvalidWindow when what comes out is no geometry. Called from one thread at a time.
        """
        ...


def load_predictor(model: str, device: str = "cpu", dtype: str = "float32", width: int = 518) -> GeometryPredictor:
    """VGGT from a checkpoint: a folder, or the id of one that was downloaded, of Spatial-MLLM or of VGGT itself.

    device: "cpu", "cuda" or "auto". dtype: "float32", "bfloat16" or "float16", of the large part. width: px that images
    are resized to. Raises ModelUnavailable, also where torch is not installed.
    """
    try:
        import torch

        from spatial_mllm_ros.models.vggt_predictor import VGGTPredictor
    except ImportError as error:
        raise ModelUnavailable(
            f"geometry from colour needs torch and more ({error}): pip install 'spatial_mllm_ros[model]'"
        ) from error
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ModelUnavailable(f"dtype must be float32, bfloat16 or float16, not {dtype!r}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnavailable(f"device is {device}, but torch sees no CUDA device: use cpu or auto")
    return VGGTPredictor.load(model, device, getattr(torch, dtype), width)
