"""The benchmark of the map asks both ways about the same frames."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from spatial_mllm_ros.bench import map as of_map
from spatial_mllm_ros.cli import main

OPTIONS = ["bench", "map", "--rooms", "1", "--rounds", "1", "--json"]


def test_both_ways_are_asked_at_every_number_of_frames() -> None:
    pytest.importorskip("embreex")
    done = CliRunner().invoke(main, [*OPTIONS, "--size", "96x72", "--frames", "20", "--frames", "30"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert [row["frames"] for row in result["entering"]] == [20, 30]
    for row in result["entering"]:
        assert 0 < row["median_ms"] <= row["p99_ms"]
        assert row["seen_m3"] > 1
        assert row["map_mib"] > row["of_it_depth_mib"] > 0
    assert [row["question"] for row in result["reading"]] == 2 * list(of_map.FAMILIES)
    for row in result["reading"]:
        assert row["map_ms"] > 0
        assert (row["times_faster"] is not None) == (of_map.FAMILIES[row["question"]] is not None)
        assert row["the_map"]
    assert result["correction"]["frames"] >= 30


def test_a_size_that_is_none_is_refused() -> None:
    assert CliRunner().invoke(main, [*OPTIONS, "--size", "large"]).exit_code == 2
