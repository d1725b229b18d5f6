"""A recording by its name: whatever it is, the right Source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.sources.layouts.layout import found_in, ordered
from spatial_mllm_ros.sources.settings import settings_of
from spatial_mllm_ros.sources.source import Source, SourceError

UNDERSTOOD = """Understood are:
  folders of RGB-D frames, TUM, ScanNet, Open3D, Replica, nerfstudio, COLMAP, EuRoC, KITTI, Stray Scanner, ARKitScenes
  files of ScanNet (.sens), Record3D (.r3d) and RTAB-Map (.db)
  a bag of ROS 2 (a folder with metadata.yaml, or a .mcap or .db3 file) or of ROS 1 (.bag), such as a rosbag2
  a video (.mp4, .avi, .mkv, .mov, .webm ...), or a folder of images
  rendered[:options], a simulated room
docs/recordings.md says which files each of them has."""
DEEPEST = 3
"""Levels of folders below the one that is named in which a recording is looked for."""
MOST_FOLDERS = 5000
"""Of files and folders that are looked at for that: a home directory is not searched whole."""


def open_source(spec: str, settings: Mapping[str, Any] | InputSettings = MappingProxyType({})) -> Source:
    """The recording at a path, or ``rendered[:options]`` for a simulated room, which needs no settings.

    settings: fields of InputSettings; they win over recording.yaml beside the recording, see ``settings_of``.

    Raises SourceError, which lists what is understood, for what is none of these, missing or empty.
    """
    if spec == "rendered" or spec.startswith("rendered:"):
        from spatial_mllm_ros.simulation.rendered import RenderedSource

        return RenderedSource.from_spec(spec)
    if not spec.strip():
        raise SourceError(f"no recording was named. {UNDERSTOOD}")
    path = Path(spec).expanduser()
    try:
        found = recordings_in(path)
        if len(found) > 1:
            shown = ", ".join(str(p.relative_to(path)) for p in found[:12])
            more = f" and {len(found) - 12} more" if len(found) > 12 else ""
            raise SourceError(f"{path} holds {len(found)} recordings, name one of them: {shown}{more}")
        if not found:
            raise SourceError(_not_understood(path))
        chosen = settings_of(path, settings)
        if found[0] == path:
            return _open(path, chosen)
        source = _open(found[0], settings_of(found[0], chosen))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    note = f"{found[0].relative_to(path)} is the one recording in {path.name or path}"
    source.info = replace(source.info, chosen=(note, *source.info.chosen))
    return source


def recordings_in(path: Path) -> list[Path]:
    """The recordings at a path: itself, or the nearest below it; those with geometry before bare images."""
    if _kind(path) is not None:
        return [path]
    gravity = [path] if path.is_dir() else []
    looked_at = 0
    for _ in range(DEEPEST):
        children: list[Path] = []
        for folder in gravity:
            if looked_at + len(children) > MOST_FOLDERS:
                break
            children += [child for child in ordered(folder, "*") if not child.name.startswith(".")]
        looked_at += len(children)
        kinds = {child: _kind(child) for child in children}
        for wanted in ("geometry", "images"):
            found = [child for child, kind in kinds.items() if kind == wanted]
            if found:
                return found
        gravity = [child for child in children if child.is_dir()]
    return []


def _kind(path: Path) -> str | None:
    """``geometry`` for what has poses or depth, ``images`` for what has not; None for what is no recording."""
    from spatial_mllm_ros.sources.bag_files import BAG_SUFFIXES, is_bag
    from spatial_mllm_ros.sources.layouts.registry import GEOMETRIC, file_layout_of, layout_of
    from spatial_mllm_ros.sources.video import VIDEO_SUFFIXES

    if path.is_dir():
        if is_bag(path):
            return "geometry"
        layout = layout_of(path)
        return None if layout is None else "geometry" if layout in GEOMETRIC else "images"
    if not path.is_file():
        return None
    if path.name == "metadata.yaml" or path.name.endswith(BAG_SUFFIXES) or file_layout_of(path) is not None:
        return "geometry"
    return "images" if path.suffix.lower() in VIDEO_SUFFIXES else None


def _open(path: Path, settings: InputSettings) -> Source:
    """What ``_kind`` knows."""
    from spatial_mllm_ros.sources.bag import BagSource
    from spatial_mllm_ros.sources.bag_files import BAG_SUFFIXES, is_bag
    from spatial_mllm_ros.sources.layouts.entries import EntriesSource
    from spatial_mllm_ros.sources.layouts.registry import listed
    from spatial_mllm_ros.sources.video import VideoSource

    if (path.is_dir() and is_bag(path)) or path.name.endswith(BAG_SUFFIXES):
        return BagSource(path, settings)
    if path.name == "metadata.yaml":
        return BagSource(path.parent, settings)
    listing = listed(path, settings)
    return VideoSource(path, settings) if listing is None else EntriesSource(path, listing, settings)


def _not_understood(path: Path) -> str:
    from spatial_mllm_ros.sources.layouts.registry import nearest

    if not path.exists():
        return f"{path} does not exist. {UNDERSTOOD}"
    if not path.is_dir():
        return f"{path} is nothing that can be read as a recording. {UNDERSTOOD}"
    if not any(path.iterdir()):
        return f"{path} is empty. {UNDERSTOOD}"
    near = "".join(f"\n  {words}" for words in nearest(path))
    return (
        f"{path} is nothing that can be read as a recording: it holds {found_in(path)}."
        f"{f' Nearest are:{near}' if near else ''}\n{UNDERSTOOD}"
    )
