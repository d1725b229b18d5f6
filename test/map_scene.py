"""A box-shaped room seen by a small depth camera, computed exactly, for tests of the map."""

import numpy as np

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.pose import make_transform

CAMERA = CameraModel(96, 72, 80.0, 80.0, 47.5, 35.5)
ROOM = np.array([[-2.0, -1.5, 0.0], [2.0, 1.5, 2.5]])
START_NS = 1_700_000_000_000_000_000


def pose(x=0.0, y=0.0, z=1.2, yaw=0.0, pitch=0.0):
    """T_world_camera of a camera that looks along yaw and pitch (up is positive), radians."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    return make_transform(np.stack([right, np.cross(forward, right), forward], axis=1), (x, y, z))


def depth_in(room, T, camera=CAMERA):
    """Depth of a box-shaped room seen from inside, float32 metres [h, w]."""
    rays = camera.rays().reshape(-1, 3).astype(float) @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        walls = (room[:, None] - T[:3, 3]) / rays
    return walls.max(axis=0).min(axis=1).reshape(camera.height, camera.width).astype(np.float32)


def frame(T, stamp_s=0.0, depth=None, camera=CAMERA, room=ROOM):
    """A frame of the room from a pose."""
    depth = depth_in(room, T, camera) if depth is None else depth
    return Frame(START_NS + round(stamp_s * 1e9), "camera", camera, depth=depth, T_world_camera=T)


def look_round(n=24, turns=1.0):
    """Frames of a camera that turns once, looking down and up."""
    yaws = np.linspace(0, 2 * np.pi * turns, n, endpoint=False)
    return [frame(pose(yaw=a, pitch=0.5 * np.sin(3 * a + a / 4)), 0.5 * i) for i, a in enumerate(yaws)]


def walk(T_map_room=None):
    """Frames of a camera that looks round from three places of the room; its world turned by ``T_map_room``."""
    frames = []
    for place in ((-1.2, -0.7), (1.2, 0.6), (0.2, -0.4)):
        for i, yaw in enumerate(np.linspace(0, 6 * np.pi, 48, endpoint=False)):
            T = pose(*place, yaw=yaw, pitch=(-0.5, 0.0, 0.5)[i // 16])
            depth = depth_in(ROOM, T)
            T = T if T_map_room is None else T_map_room @ T
            frames.append(frame(T, 0.5 * len(frames), depth))
    return frames
