"""Memory of this machine that is free. No torch here."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

GIB = 1 << 30
CGROUP = Path("/sys/fs/cgroup")


def free_main_memory(cgroup: Path = CGROUP) -> int:
    """Bytes that are free, within the limit of the container if there is one."""
    free = int(psutil.virtual_memory().available)
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is not None and used is not None:
        statistics = cgroup / "memory.stat"
        reclaimable = 0
        if statistics.is_file():
            found = re.search(r"^inactive_file (\d+)$", statistics.read_text(), re.MULTILINE)
            reclaimable = int(found[1]) if found else 0
        free = min(free, max(0, limit - used + reclaimable))
    return free


def _number(path: Path) -> int | None:
    """The number in a file of the kernel; None where there is no file, or no limit ("max")."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
