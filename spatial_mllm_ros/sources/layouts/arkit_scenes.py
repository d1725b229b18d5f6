"""ARKitScenes' raw data: lowres_wide/, lowres_depth/, lowres_wide_intrinsics/, lowres_wide.traj."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from scipy.spatial.transform import Rotation

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.pose import invert, make_transform
from spatial_mllm_ros.sources.calibration import read_numbers
from spatial_mllm_ros.sources.layouts.cameras import pinhole
from spatial_mllm_ros.sources.layouts.confidence import confident_depth
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, Size, no_camera, told
from spatial_mllm_ros.sources.layouts.layout import Layout, matching, ordered
from spatial_mllm_ros.sources.layouts.times import times_of
from spatial_mllm_ros.sources.layouts.trajectory import Trajectory
from spatial_mllm_ros.sources.layouts.tum import rows
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import seconds_to_ns

_MILLISECOND = 1_000_000
"""Stamps in names are rounded: the files of one moment differ by up to this (ns)."""


def read(folder: Path, settings: InputSettings) -> Listing:
    """Files are called VIDEO_SECONDS.png. lowres_wide.traj: seconds, rotation (axis times angle, rad) and translation (m),
    world to camera. lowres_wide_intrinsics: width, height, fx, fy, cx, cy. lowres_depth: uint16 mm. confidence: 0 to 2.
    """
    colors = ordered(folder, "lowres_wide/*.png", "lowres_wide/*.jpg")
    times = times_of(folder, [path.stem for path in colors], settings)
    cameras, depths, confidences = (
        _by_stamp(folder, f"{place}/*.{kind}")
        for place, kind in (("lowres_wide_intrinsics", "pincam"), ("lowres_depth", "png"), ("confidence", "png"))
    )
    poses = Trajectory(settings)
    for row in rows(folder / "lowres_wide.traj", 7):
        values = [float(x) for x in row[1:7]]
        T_camera_world = make_transform(Rotation.from_rotvec(values[:3]).as_matrix(), values[3:])
        poses.add(seconds_to_ns(row[0]), invert(T_camera_world))
    entries = []
    for path in colors:
        if path.stem not in times.stamps:
            continue
        stamp = times.stamps[path.stem]
        camera, depth, confidence = (_near(stamp, files) for files in (cameras, depths, confidences))
        entries.append(
            Entry(
                name=path.stem,
                aliases=(path.name,),
                stamp_ns=stamp,
                color=path.read_bytes,
                depth=None if depth is None else confident_depth(depth, confidence),
                pose=poses.at(stamp) if poses.count else None,
                pose_stddev=poses.stddev_at(stamp),
                camera=no_camera if camera is None else partial(_camera, camera),
            )
        )
    return Listing(
        kind="ARKitScenes recording",
        entries=entries,
        world_frame="world",
        same_view=True,
        chosen=(f"{len(depths)} depth images in mm, without what ARKit is unsure of; {poses.count} poses", times.words),
        doubts=told(times.doubt),
        refused=times.missing,
    )


def _by_stamp(folder: Path, pattern: str) -> dict[int, Path]:
    return {seconds_to_ns(path.stem.rsplit("_", 1)[-1]): path for path in matching(folder, pattern)}


def _near(stamp: int, files: dict[int, Path]) -> Path | None:
    return next((files[s] for s in (stamp, stamp - _MILLISECOND, stamp + _MILLISECOND) if s in files), None)


def _camera(path: Path, size: Size) -> CameraModel | None:
    try:
        width, height, fx, fy, cx, cy = read_numbers(path)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} must hold width, height, fx, fy, cx, cy: {error}") from error
    return pinhole(fx, fy, cx, cy, of=(int(width), int(height)))(size)


LAYOUT = Layout(
    name="ARKitScenes folder (lowres_wide/, lowres_depth/, lowres_wide.traj)",
    needs=(("lowres_wide/*.png", "lowres_wide/*.jpg"), ("lowres_wide.traj",)),
    read=read,
)
