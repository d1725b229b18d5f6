"""Where recordings and reference vectors are, which a checkout may lack."""

from __future__ import annotations

import os
from pathlib import Path


def shared_folder() -> Path | None:
    """The folder that SPATIAL_MLLM_SHARED names, or else ``shared`` beside the checkout; None where it is not."""
    folder = Path(os.environ.get("SPATIAL_MLLM_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    return folder if folder.is_dir() else None
