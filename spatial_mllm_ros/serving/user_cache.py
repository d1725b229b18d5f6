"""The user's cache folder: where downloads and what is built from them are kept unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """``spatial_mllm_ros/<name>`` in $XDG_CACHE_HOME, which counts where it is an absolute path, else in ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "spatial_mllm_ros" / name
