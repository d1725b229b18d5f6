"""All layouts of folders, and what to say of a folder that is none of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.sources.layouts import (
    arkit_scenes,
    colmap,
    euroc,
    images,
    kitti,
    nerfstudio,
    record3d,
    replica,
    rgbd_folder,
    rtabmap,
    sens,
    separate_folders,
    stray_scanner,
    tum,
)
from spatial_mllm_ros.sources.layouts.entries import Listing
from spatial_mllm_ros.sources.layouts.layout import Layout
from spatial_mllm_ros.sources.source import SourceError

GEOMETRIC: tuple[Layout, ...] = (
    rgbd_folder.LAYOUT,
    tum.LAYOUT,
    replica.LAYOUT,
    nerfstudio.LAYOUT,
    stray_scanner.LAYOUT,
    arkit_scenes.LAYOUT,
    euroc.LAYOUT,
    kitti.LAYOUT,
    colmap.LAYOUT,
    separate_folders.LAYOUT,
)
"""In the order in which they are tried."""
LAYOUTS: tuple[Layout, ...] = (*GEOMETRIC, images.LAYOUT)


@dataclass(frozen=True, kw_only=True)
class FileLayout:
    """A recording in one file: the suffix by which it is recognised, what else its content must be, and who reads it."""

    suffix: str
    read: Callable[[Path, InputSettings], Listing]
    fits: Callable[[Path], bool] = lambda path: True


FILE_LAYOUTS = (
    FileLayout(suffix=".sens", read=sens.read),
    FileLayout(suffix=".r3d", read=record3d.read),
    FileLayout(suffix=".db", read=rtabmap.read, fits=rtabmap.is_database),
)


_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error, zlib.error, EOFError)
"""What comes of files that do not hold what their layout says."""


def listed(path: Path, settings: InputSettings) -> Listing | None:
    """What the layout of a folder or file lists; None where it has none. Raises SourceError."""
    layout = layout_of(path) if path.is_dir() else file_layout_of(path)
    if layout is None:
        return None
    try:
        return layout.read(path, settings)
    except _UNREADABLE as error:
        what = layout.name if isinstance(layout, Layout) else layout.suffix
        raise SourceError(f"{path} cannot be read as {what}: {type(error).__name__}: {error}") from error


def file_layout_of(path: Path) -> FileLayout | None:
    """The layout of a file, by its suffix, whatever the case, and its content."""
    return next((layout for layout in FILE_LAYOUTS if path.suffix.lower() == layout.suffix and layout.fits(path)), None)


def layout_of(folder: Path) -> Layout | None:
    """The first layout that has all that it needs."""
    return next((layout for layout in LAYOUTS if not layout.lacks(folder)), None)


def nearest(folder: Path, count: int = 3) -> list[str]:
    """The layouts that come nearest, with what they lack, for people; none that has nothing of what it needs."""
    found = []
    for layout in LAYOUTS:
        lacks = layout.lacks(folder)
        if 0 < len(lacks) < len(layout.needs):
            found.append((len(lacks) / len(layout.needs), f"to be a {layout.name}, it lacks {' and '.join(lacks)}"))
    return [words for _, words in sorted(found, key=lambda pair: pair[0])[:count]]
