"""A recording by its name: whatever it is, the right Source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.sources.settings import settings_of
from spatial_mllm_ros.sources.source import Source, SourceError

UNDERSTOOD = """Understood are:
  an RGB-D folder (frame-*.color.jpg, .depth.png, .pose.txt, intrinsics.txt)
  a TUM RGB-D folder (rgb.txt, depth.txt, groundtruth.txt)
  a bag of ROS 2 (a folder with metadata.yaml, or a .mcap or .db3 file) or of ROS 1 (.bag)
  a video (.mp4, .avi, .mkv, .mov, .webm ...), or a folder of .jpg or .png images
  rendered[:options], a simulated room"""


def open_source(spec: str, settings: Mapping[str, Any] | InputSettings = MappingProxyType({})) -> Source:
    """The recording at a path, or ``rendered[:options]`` for a simulated room, which needs no settings.

    settings: fields of InputSettings; they win over recording.yaml beside the recording, see ``settings_of``.

    Raises SourceError, which lists what is understood, for what is none of these, missing or empty.
    """
    if spec == "rendered" or spec.startswith("rendered:"):
        from spatial_mllm_ros.sources.rooms.rendered import RenderedSource

        return RenderedSource.from_spec(spec)
    if not spec.strip():
        raise SourceError(f"no recording was named. {UNDERSTOOD}")
    path = Path(spec).expanduser()
    try:
        chosen = settings_of(path, settings)
        source = _open_folder(path, chosen) if path.is_dir() else _open_file(path, chosen) if path.is_file() else None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if source is None:
        what = "is empty" if path.is_dir() and not any(path.iterdir()) else "is nothing that can be read as a recording"
        raise SourceError(f"{path} {what if path.exists() else 'does not exist'}. {UNDERSTOOD}")
    return source


def _open_folder(path: Path, settings: InputSettings) -> Source | None:
    from spatial_mllm_ros.sources.bag import BagSource
    from spatial_mllm_ros.sources.bag_files import is_bag
    from spatial_mllm_ros.sources.folder import RgbdFolderSource, is_rgbd_folder
    from spatial_mllm_ros.sources.tum import TumFolderSource, is_tum_folder
    from spatial_mllm_ros.sources.video import IMAGE_SUFFIXES, ImageFolderSource

    if is_bag(path):
        return BagSource(path, settings)
    if is_tum_folder(path):
        return TumFolderSource(path, settings)
    if is_rgbd_folder(path):
        return RgbdFolderSource(path, settings)
    if any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.iterdir()):
        return ImageFolderSource(path, settings)
    return None


def _open_file(path: Path, settings: InputSettings) -> Source | None:
    from spatial_mllm_ros.sources.bag import BagSource
    from spatial_mllm_ros.sources.bag_files import BAG_SUFFIXES
    from spatial_mllm_ros.sources.video import VIDEO_SUFFIXES, VideoSource

    if path.name == "metadata.yaml":
        return BagSource(path.parent, settings)
    if path.name.endswith(BAG_SUFFIXES):
        return BagSource(path, settings)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path, settings)
    return None
