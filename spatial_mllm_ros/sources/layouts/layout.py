"""What a layout is: by which files it is recognised, and who reads it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.sources.stamps import natural_key

if TYPE_CHECKING:  # which loads the image library, and a layout is looked for without
    from spatial_mllm_ros.sources.layouts.entries import Listing


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A way in which recordings are kept in a folder.

    name: for people. needs: what must be there, each one pattern or several of which one must match; patterns are
    relative, with * and ?, whatever the case. read: lists what is there; raises SourceError.
    """

    name: str
    needs: tuple[tuple[str, ...], ...]
    read: Callable[[Path, InputSettings], Listing]

    def lacks(self, folder: Path) -> list[str]:
        """What the folder lacks to be of this layout."""
        return [" or ".join(need) for need in self.needs if not any(first(folder, pattern) for pattern in need)]


def matching(folder: Path, pattern: str) -> Iterator[Path]:
    """What matches a pattern with / and *, whatever the case, in no order."""
    head, _, rest = pattern.partition("/")
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in found if fnmatchcase(entry.name.lower(), head.lower())]
    except OSError:  # not there, no folder, or not ours to look into
        return
    for name in names:
        if rest:
            yield from matching(folder / name, rest)
        else:
            yield folder / name


def first(folder: Path, *patterns: str) -> Path | None:
    """The first, as people count, of what the first pattern that matches anything matches; None when none does."""
    for pattern in patterns:
        found = min(matching(folder, pattern), key=lambda path: natural_key(path.name), default=None)
        if found is not None:
            return found
    return None


def ordered(folder: Path, *patterns: str) -> list[Path]:
    """All that matches any of the patterns, in the order in which people count."""
    found = {path for pattern in patterns for path in matching(folder, pattern)}
    return sorted(found, key=lambda path: natural_key(path.name))


def found_in(folder: Path) -> str:
    """What is in a folder, for people: how many files of each kind, and the folders."""
    files: Counter[str] = Counter()
    folders = []
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        if path.is_dir():
            folders.append(path.name + "/")
        else:
            files[path.suffix.lower() or "without suffix"] += 1
    words = [f"{count} {kind}" for kind, count in files.most_common(8)]
    shown = folders[:8] + ([f"… {len(folders) - 8} more folders"] if len(folders) > 8 else [])
    return ", ".join([*words, *shown]) or "nothing"
