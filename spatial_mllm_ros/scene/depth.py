"""From the counts of a depth image to metres: the one place that knows units, values that mean no data, and bounds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.frame import DEPTH_M, DEPTH_MM
from spatial_mllm_ros.scene.inputs import InputSettings

Depth = NDArray[np.uint16] | NDArray[np.float32]
COUNT_M, FLOAT_M = 0.001, 1.0
"""Metres of one count where nothing says otherwise (REP 118): 16-bit integers are millimetres, floating point metres."""
MILLIMETRE_M = 0.001
LARGEST = 65535.0
"""Floating point from here on is no distance in any unit, but what means none: as FLT_MAX, or the largest of 16 bits."""


@dataclass(frozen=True, kw_only=True)
class DepthFormat:
    """What the format of a recording says of its depth.

    unit_m: metres of one count; None: what the type of the images says. nearest_m: nothing nearer is measured by the cameras
    that the format was made for; 0: nothing is known of them. assumed: nothing in the recording tells the unit, it is only
    what is usual for its layout.
    """

    unit_m: float | None = None
    nearest_m: float = 0.0
    assumed: bool = False


AS_IT_IS = DepthFormat()


def depth_unit_m(dtype: np.dtype, settings: InputSettings, format_unit_m: float | None = None) -> float:
    """Metres of one count of a depth image: what is set, else what its format says, else what its type means."""
    if settings.depth_unit_m is not None:
        return settings.depth_unit_m
    if format_unit_m is not None:
        return format_unit_m
    return FLOAT_M if dtype.kind == "f" else COUNT_M


def metric_depth(raw: NDArray, settings: InputSettings, format_unit_m: float | None = None) -> Depth:
    """Depth as a Frame has it, uint16 millimetres or float32 metres (0 or NaN: no data), from the counts of an image.

    raw: [height, width] of uint16, int16, float32 or float64; negative is no data. format_unit_m: metres of a count where
    the format of the recording says so. 16-bit counts become millimetres, or metres where their unit is coarser than
    that. Returns ``raw`` itself where nothing changes. Raises ValueError for other types and shapes.
    """
    if raw.ndim != 2:
        raise ValueError(f"depth must have one channel, not shape {raw.shape}")
    unit_m = depth_unit_m(raw.dtype, settings, format_unit_m)
    if raw.dtype in (np.float32, np.float64):
        return _from_floats(raw, unit_m, settings)
    if raw.dtype not in (np.uint16, np.int16):
        raise ValueError(f"depth must be uint16, int16, float32 or float64, not {raw.dtype}")
    table, same, zero_beyond = _table(raw.dtype.char, unit_m, settings)
    counts = raw.view(np.uint16)
    if same == len(table) or not raw.size or counts.max() < same:
        return counts
    return np.multiply(counts, counts < same, dtype=np.uint16) if zero_beyond else table[counts]


def _from_floats(raw: NDArray, unit_m: float, settings: InputSettings) -> NDArray[np.float32]:
    metres = raw.astype(DEPTH_M, copy=False)
    if unit_m != 1.0:
        metres = metres * np.float32(unit_m)
    none = [raw >= LARGEST]
    none += [raw == value for value in settings.invalid_depth if 0 < value < LARGEST]
    if settings.min_depth_m:
        none.append(metres < settings.min_depth_m)
    if settings.max_depth_m:
        none.append(metres > settings.max_depth_m * (1 + 1e-6))  # however the bound rounds
    found = [mask for mask in none if mask.any()]
    return np.where(np.logical_or.reduce(found), np.float32(np.nan), metres) if found else metres


@lru_cache(maxsize=16)
def _table(type_char: str, unit_m: float, settings: InputSettings) -> tuple[Depth, int, bool]:
    """Depth by 16-bit count; below which count it is the count itself; whether it is 0 from there on."""
    counts = np.arange(1 << 16, dtype=np.uint16)
    values = counts.view(np.dtype(type_char)).astype(np.float64)
    metres = values * unit_m
    valid = (values > 0) & ~np.isin(values, settings.invalid_depth)
    # half a millimetre is what rounding may add
    valid &= metres >= settings.min_depth_m - MILLIMETRE_M / 2
    if settings.max_depth_m:
        valid &= metres <= settings.max_depth_m + MILLIMETRE_M / 2
    table: Depth
    if unit_m > MILLIMETRE_M:
        table = np.where(valid, metres, np.nan).astype(DEPTH_M)
        return table, 0, False
    table = np.where(valid, np.rint(metres / MILLIMETRE_M), 0).astype(DEPTH_MM)
    changed = np.flatnonzero(table != counts)
    same = int(changed[0]) if changed.size else len(table)
    return table, same, not table[same:].any()
