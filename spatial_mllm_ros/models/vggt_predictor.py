"""VGGT as a geometry predictor. Needs torch; ``geometry_predictor.load_predictor`` gets here only when it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spatial_mllm_ros.models.load_vggt import load_vggt
from spatial_mllm_ros.models.processing import resize_frame, unit_range
from spatial_mllm_ros.models.vggt.vggt import VGGT
from spatial_mllm_ros.scene.window import InvalidWindow, WindowGeometry

HEADS = ("camera", "depth")
WIDTH_PX = 518
"""Width to which VGGT's images were resized in its training."""
_LEAST = 1e-6


class VGGTPredictor:
    """Cameras and depth by VGGT (arXiv 2503.11651), up to scale.

    vggt: with its camera and depth heads. width: px that images are resized to; their height follows, both rounded to
    multiples of the patch. Less is quicker: the cost of a window grows with the square of its pixels.
    """

    def __init__(self, vggt: VGGT, name: str = "VGGT", width: int = WIDTH_PX) -> None:
        if vggt.camera_head is None or vggt.depth_head is None:
            raise ValueError("geometry needs VGGT's camera head and depth head")
        patch = vggt.config.patch_size
        if width < patch:
            raise ValueError(f"width must be at least a patch ({patch} px), not {width}")
        self._vggt = vggt.eval()
        self.name = name
        self._columns = round(width / patch)

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        width: int = WIDTH_PX,
    ) -> VGGTPredictor:
        """From a checkpoint: a folder or the id of one that was downloaded, of Spatial-MLLM or of VGGT itself.

        dtype: of the aggregator; the heads stay in float32, as VGGT was published. Raises CheckpointError.
        """
        vggt = load_vggt(model, HEADS, device=device)
        vggt.aggregator.to(dtype)
        return cls(vggt, f"VGGT of {Path(os.fspath(model)).name}", width)

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        """See GeometryPredictor."""
        height, width = images.shape[1:3]
        patch = self._vggt.config.patch_size
        size = (max(1, round(height * self._columns / width)) * patch, self._columns * patch)
        weight = next(self._vggt.aggregator.parameters())
        with torch.inference_mode():
            frames = unit_range(torch.stack([resize_frame(image, size) for image in images]))
            geometry = self._vggt(frames.to(weight.device, weight.dtype))
        if geometry.extrinsic is None or geometry.intrinsic is None or geometry.depth is None:
            raise InvalidWindow("no_depth", "VGGT gave no cameras or no depth")
        assert geometry.depth_conf is not None
        T = np.tile(np.eye(4), (len(images), 1, 1))
        T_camera_world = geometry.extrinsic.double().cpu().numpy()
        R = T_camera_world[:, :, :3].transpose(0, 2, 1)
        T[:, :3, :3] = R
        T[:, :3, 3] = -np.einsum("tij,tj->ti", R, T_camera_world[:, :, 3])
        K = geometry.intrinsic.double().cpu().numpy()
        K[:, :2, 2] -= 0.5  # from the corner of the top-left pixel to its centre
        confidence = geometry.depth_conf.float().cpu().numpy() - 1  # VGGT's begins at 1
        return WindowGeometry(T, K, geometry.depth[..., 0].float().cpu().numpy(), np.maximum(confidence, _LEAST))
