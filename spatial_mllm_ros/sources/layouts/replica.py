"""Replica as NICE-SLAM rendered it: results/frame*.jpg, results/depth*.png, traj.txt, cam_params.json."""

from __future__ import annotations

from pathlib import Path

from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.sources.image_files import depth_file
from spatial_mllm_ros.sources.layouts.cameras import json_camera, pinhole, read_json
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, told
from spatial_mllm_ros.sources.layouts.layout import Layout, first, ordered
from spatial_mllm_ros.sources.layouts.poses import in_order, matrix_lines
from spatial_mllm_ros.sources.layouts.separate_folders import paired
from spatial_mllm_ros.sources.layouts.times import times_of

COUNTS_PER_METRE = 6553.5
PUBLISHED = pinhole(600.0, 600.0, 599.5, 339.5, of=(1200, 680))
"""The camera and the unit of depth with which the scenes were published."""


def read(folder: Path, settings: InputSettings) -> Listing:
    """traj.txt: a line of 16 numbers an image, 4x4 camera to world, row by row, in metres, optical axes. cam_params.json,
    here or in the folder above: the camera, and counts of depth per metre (``scale``).
    """
    colors = ordered(folder, "results/frame*.jpg", "results/frame*.png")
    pairs = paired(colors, ordered(folder, "results/depth*.png"))
    traj = first(folder, "traj.txt")
    assert traj is not None
    poses, uneven = in_order(matrix_lines(traj), len(colors), traj)
    parameters = first(folder, "cam_params.json") or first(folder.resolve().parent, "cam_params.json")
    scale, camera, guessed = COUNTS_PER_METRE, PUBLISHED, None
    if parameters is None:
        guessed = Doubt(
            kind="guessed_camera",
            text="cam_params.json is not there: camera and depth unit are those with which Replica was published",
            remedy="copy cam_params.json beside traj.txt",
            confidence=0.8,
        )
    else:
        content = read_json(parameters)
        camera = json_camera(parameters)
        scale = float(content.get("camera", content).get("scale", COUNTS_PER_METRE))
    times = times_of(folder, [path.stem for path in colors], settings)
    entries = [
        Entry(
            name=path.stem,
            aliases=(path.name,),
            stamp_ns=times.stamps[path.stem],
            color=path.read_bytes,
            depth=depth_file(pairs[path]) if path in pairs else None,
            pose=pose,
            camera=camera,
        )
        for path, pose in zip(colors, poses, strict=True)
        if path.stem in times.stamps
    ]
    return Listing(
        kind="Replica",
        entries=entries,
        depth_unit_m=1 / scale,
        depth_assumed=parameters is None,
        world_frame="world",
        chosen=(
            f"depth counts 1/{scale:g} m ({'as published' if parameters is None else parameters.name})",
            times.words,
        ),
        doubts=told(times.doubt, uneven, guessed),
        refused=times.missing,
    )


LAYOUT = Layout(
    name="Replica or NICE-SLAM folder (traj.txt, results/frame*.jpg, results/depth*.png)",
    needs=(("traj.txt",), ("results/frame*.jpg", "results/frame*.png")),
    read=read,
)
