"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from shared_data import shared_folder

from spatial_mllm_ros.dds import domain

if "PYTEST_XDIST_WORKER" in os.environ:  # one core for each of the processes that run tests side by side
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A robot on this computer or network must not hear the tests, nor they it. Children inherit it.
os.environ.update(domain.private())


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recordings and reference vectors; skips the test where there is none."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("no shared recordings beside this checkout (set SPATIAL_MLLM_SHARED)")
    return folder
