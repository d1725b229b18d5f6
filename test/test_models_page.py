"""docs/models.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spatial_mllm_ros.nodes.parameters import PARAMETERS

SPATIAL_MLLM = "Spatial-MLLM v1.1"
PAGE = (Path(__file__).resolve().parents[1] / "docs" / "models.md").read_text(encoding="utf-8")


def test_its_parameters_exist() -> None:
    named = set(re.findall(r"`((?:min_)?model_[a-z_]+|cross_check\w*|keyframes_\w+)", PAGE))
    assert named
    assert named <= set(PARAMETERS)


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", PAGE):
        assert (Path(__file__).resolve().parents[1] / "docs" / target).exists(), target


@pytest.fixture(scope="module")
def lines() -> dict[str, str]:
    """Lines of the memory table by the name of the checkpoint."""
    begin, end = PAGE.index("<!-- memory table"), PAGE.index("<!-- end of memory table")
    return {line.split("|")[1].strip(): line for line in PAGE[begin:end].splitlines() if line.startswith("| ")}


def test_the_memory_table_is_up_to_date(lines: dict[str, str]) -> None:
    """A few lines, as the large ones take seconds."""
    pytest.importorskip("transformers", reason="the extra model is not installed")
    from spatial_mllm_ros.models.mllm.memory_table import MODELS, row

    assert set(lines) == {"Checkpoint", *MODELS}
    for name in (SPATIAL_MLLM, "InternVL3-1B"):
        assert lines[name] == row(name), "run python -m spatial_mllm_ros.models.mllm.memory_table docs/models.md"


def test_figures_in_its_text(lines: dict[str, str]) -> None:
    """What is said of small machines follows from the same arithmetic."""
    pytest.importorskip("transformers", reason="the extra model is not installed")
    from spatial_mllm_ros.models.mllm.memory_table import estimate
    from spatial_mllm_ros.serving.interface import ModelOptions

    small = estimate(SPATIAL_MLLM, "int4", ModelOptions("", max_context_frames=8, cache_mib=256))
    assert f"({small.needed / 1e9:.1f} GB)" in PAGE
    less, more = (estimate(SPATIAL_MLLM, "bfloat16", ModelOptions("", max_context_frames=n)).needed for n in (16, 32))
    assert f"take {(more - less) / 1e9:.1f} GB in bfloat16" in PAGE
    exported = estimate(SPATIAL_MLLM, "bfloat16", exported="int8")
    assert f"needs {exported.needed / 1e9:.1f} GB on a CPU" in PAGE
    assert f"{exported.loading / 1e9:.1f} GB of weights" in PAGE
