"""Fixtures shared by the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared_data import shared_folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recordings and reference vectors; skips the test where there is none."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("no shared recordings beside this checkout (set SPATIAL_MLLM_SHARED)")
    return folder
