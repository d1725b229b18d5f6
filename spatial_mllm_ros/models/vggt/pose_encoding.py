"""Pose encodings of the camera head to camera matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def cameras(encoding: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Extrinsics and intrinsics of pose encodings, computed in float32.

    encoding: [..., 9]: translation (the unit is the scene's own: VGGT is up to scale), rotation as a quaternion
    (x, y, z, w) of any length but 0, vertical and horizontal field of view in radians. image_size: (height, width).
    Returns T_camera_world [..., 3, 4], which maps world points to the optical frame of the camera (x right, y down,
    z forward), and K [..., 3, 3] in pixels of that image, its principal point in the middle of the image: (width / 2,
    height / 2) where the top-left corner of the image, not the centre of its first pixel, is (0, 0). A field of view
    of 0 gives an infinite focal length.
    """
    encoding = encoding.float()
    height, width = image_size
    extrinsic = torch.cat((rotations(encoding[..., 3:7]), encoding[..., :3, None]), dim=-1)
    half = (encoding[..., 7:] / 2).tan()
    intrinsic = torch.zeros(*encoding.shape[:-1], 3, 3, device=encoding.device)
    intrinsic[..., 0, 0] = (width / 2) / half[..., 1]
    intrinsic[..., 1, 1] = (height / 2) / half[..., 0]
    intrinsic[..., 0, 2] = width / 2
    intrinsic[..., 1, 2] = height / 2
    intrinsic[..., 2, 2] = 1
    return extrinsic, intrinsic


def rotations(quaternions: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] (x, y, z, w), which need not have unit length."""
    vector, scalar = quaternions[..., :3], quaternions[..., 3, None, None]
    zero = torch.zeros_like(quaternions[..., 0])
    x, y, z = vector.unbind(-1)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    # Rodrigues: R = 1 + 2 (w [v] + [v]^2) / |q|^2
    squared = quaternions.square().sum(-1)[..., None, None]
    return torch.eye(3, device=quaternions.device) + 2 / squared * (scalar * cross + cross @ cross)
