"""From the counts of a depth image to a Frame's depth: units, values that mean no data, bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spatial_mllm_ros.scene.depth import metric_depth
from spatial_mllm_ros.scene.frame import depth_to_metres
from spatial_mllm_ros.scene.inputs import InputSettings

PLAIN = InputSettings()


def counts(*values: float, dtype: type = np.uint16) -> np.ndarray:
    return np.array([values], dtype)


@pytest.mark.parametrize(
    ("raw", "settings", "format_unit_m", "metres"),
    [
        (counts(0, 1, 1540), PLAIN, None, [np.nan, 0.001, 1.54]),
        (counts(65535, 1540), PLAIN, None, [np.nan, 1.54]),  # 7-Scenes, and several drivers
        (counts(7700), PLAIN, 1 / 5000, [1.54]),  # TUM
        (counts(1540), InputSettings(depth_unit_m=0.001), 1 / 5000, [1.54]),  # TUM's files with a RealSense's counts
        (counts(15400), InputSettings(depth_unit_m=0.0001), None, [1.54]),  # D405
        (counts(10093), InputSettings(depth_unit_m=1 / 6553.5), None, [1.540]),
        (counts(0, 20480, 65535), InputSettings(depth_unit_m=1 / 256), None, [np.nan, 80.0, np.nan]),  # KITTI
        (counts(-1, 0, 1540, -32768, dtype=np.int16), PLAIN, None, [np.nan, np.nan, 1.54, np.nan]),
        (counts(np.nan, 0, np.inf, 1.54, 65535, dtype=np.float32), PLAIN, None, [np.nan, np.nan, np.nan, 1.54, np.nan]),
        (counts(1.54, dtype=np.float64), PLAIN, None, [1.54]),
        (counts(1.54, 3.4028235e38, 1e10, dtype=np.float32), PLAIN, None, [1.54, np.nan, np.nan]),
        (counts(1540, dtype=np.float32), InputSettings(depth_unit_m=0.001), None, [1.54]),
        (counts(4095, 4094), InputSettings(invalid_depth=(4095.0,)), None, [np.nan, 4.094]),
        (counts(10, 9, dtype=np.float32), InputSettings(invalid_depth=(10.0,)), None, [np.nan, 9]),
        (counts(299, 300, 4000, 4001), InputSettings(min_depth_m=0.3, max_depth_m=4.0), None, [np.nan, 0.3, 4.0, np.nan]),
        (
            counts(0.25, 0.3125, 4.0, 4.5, np.nan, dtype=np.float32),
            InputSettings(min_depth_m=0.3125, max_depth_m=4.0),
            None,
            [np.nan, 0.3125, 4.0, np.nan, np.nan],
        ),
    ],
)
def test_counts_become_metres(raw: np.ndarray, settings: InputSettings, format_unit_m: float, metres: list) -> None:
    before = raw.copy()
    depth = metric_depth(raw, settings, format_unit_m)
    np.testing.assert_allclose(depth_to_metres(depth)[0], metres, atol=5.1e-4)
    np.testing.assert_array_equal(raw, before)  # what a reader handed over may be shared


@pytest.mark.parametrize("raw", [counts(0, 900, 65534), counts(0, 900, dtype=np.int16), counts(0.5, np.nan, dtype=np.float32)])
def test_nothing_is_copied_where_nothing_changes(raw: np.ndarray) -> None:
    assert np.shares_memory(metric_depth(raw, PLAIN), raw)


@pytest.mark.parametrize("raw", [np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int32), np.zeros((2, 2, 1), np.uint16)])
def test_what_is_no_depth_image_is_refused(raw: np.ndarray) -> None:
    with pytest.raises(ValueError, match="depth must"):
        metric_depth(raw, PLAIN)


@given(
    raw=arrays.arrays(np.uint16, (3, 4)),
    unit=st.sampled_from([1e-4, 1 / 5000, 0.001, 0.00025, 1 / 256]),
    bounds=st.tuples(st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 1.0, 10.0, 65.535])),
    invalid=st.sets(st.sampled_from([65535.0, 0.0, 4096.0, 1.0]), max_size=3),
)
def test_whatever_the_settings_valid_depth_is_count_times_unit(raw, unit, bounds, invalid) -> None:
    settings = InputSettings(depth_unit_m=unit, min_depth_m=bounds[0], max_depth_m=bounds[1], invalid_depth=tuple(invalid))
    metres = depth_to_metres(metric_depth(raw, settings))
    expected = raw * unit
    none = (raw == 0) | np.isin(raw, list(invalid)) | (expected < bounds[0] - 6e-4)
    if bounds[1]:
        none |= expected > bounds[1] + 6e-4
    assert np.isnan(metres[none]).all()
    known = ~none & (expected > max(bounds[0], 6e-4)) & (expected < (bounds[1] or np.inf))
    np.testing.assert_allclose(metres[known], expected[known], atol=5.1e-4)
