"""VGGT as a geometry predictor. Needs torch; ``geometry_predictor.load_predictor`` gets here only when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spatial_mllm_ros.models.vggt.loading import load_vggt
from spatial_mllm_ros.models.vggt.processing import resize_frame, unit_range
from spatial_mllm_ros.models.vggt.vggt import VGGT
from spatial_mllm_ros.models.vggt.window import WIDTH_PX, columns_of, size_of, window_geometry
from spatial_mllm_ros.scene.window import InvalidWindow, WindowGeometry

HEADS = ("camera", "depth")


class VGGTPredictor:
    """Cameras and depth by VGGT (arXiv 2503.11651), up to scale.

    vggt: with its camera and depth heads. width: px that images are resized to; their height follows, both rounded to
    multiples of the patch. Less is quicker: the cost of a window grows with the square of its pixels.
    """

    def __init__(self, vggt: VGGT, name: str = "VGGT", width: int = WIDTH_PX) -> None:
        if vggt.camera_head is None or vggt.depth_head is None:
            raise ValueError("geometry needs VGGT's camera head and depth head")
        self._vggt = vggt.eval()
        self._name = name
        self._columns = columns_of(width, vggt.config.patch_size)

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        width: int = WIDTH_PX,
        progress: Callable[[int, int], None] | None = None,
    ) -> VGGTPredictor:
        """From a checkpoint: a folder or the id of one that was downloaded, of Spatial-MLLM or of VGGT itself.

        dtype: of the aggregator; the heads stay in float32, as VGGT was published. progress: (bytes read, bytes in
        all). Raises CheckpointError.
        """
        vggt = load_vggt(model, HEADS, device=device, progress=progress)
        vggt.aggregator.to(dtype)
        return cls(vggt, f"VGGT of {Path(os.fspath(model)).name}", width)

    @property
    def name(self) -> str:
        """See GeometryPredictor: whose weights, runtime, device and precision."""
        weight = next(self._vggt.aggregator.parameters())
        return f"{self._name}, torch {weight.device.type} {str(weight.dtype).removeprefix('torch.')}"

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        """See GeometryPredictor."""
        size = size_of((images.shape[1], images.shape[2]), self._columns, self._vggt.config.patch_size)
        weight = next(self._vggt.aggregator.parameters())
        with torch.inference_mode():
            frames = unit_range(torch.stack([resize_frame(image, size) for image in images]))
            geometry = self._vggt(frames.to(weight.device, weight.dtype))
        if geometry.pose_enc is None or geometry.depth is None or geometry.depth_conf is None:
            raise InvalidWindow("no_depth", "VGGT gave no cameras or no depth")
        found = (geometry.pose_enc, geometry.depth[..., 0], geometry.depth_conf)
        return window_geometry(*(values.float().cpu().numpy() for values in found))
