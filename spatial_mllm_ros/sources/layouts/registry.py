"""All layouts of folders, and what to say of a folder that is none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.sources.layouts import images, rgbd_folder, tum
from spatial_mllm_ros.sources.layouts.entries import Listing
from spatial_mllm_ros.sources.layouts.layout import Layout

GEOMETRIC: tuple[Layout, ...] = (rgbd_folder.LAYOUT, tum.LAYOUT)
"""In the order in which they are tried."""
LAYOUTS: tuple[Layout, ...] = (*GEOMETRIC, images.LAYOUT)


@dataclass(frozen=True, kw_only=True)
class FileLayout:
    """A recording in one file: the suffix by which it is recognised, and who reads it."""

    suffix: str
    read: Callable[[Path, InputSettings], Listing]


FILE_LAYOUTS: tuple[FileLayout, ...] = ()


def file_layout_of(path: Path) -> FileLayout | None:
    """The layout of a file, by its suffix, whatever the case."""
    return next((layout for layout in FILE_LAYOUTS if path.suffix.lower() == layout.suffix), None)


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
