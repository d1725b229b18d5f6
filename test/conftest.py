"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_folder() -> Path | None:
    """Folder with recordings and reference vectors, which a checkout may lack."""
    folder = Path(os.environ.get("SPATIAL_MLLM_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recordings and reference vectors; skips the test where there is none."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("no shared recordings beside this checkout (set SPATIAL_MLLM_SHARED)")
    return folder
