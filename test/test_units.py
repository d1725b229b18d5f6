"""Units: conversion, measures as text, and measures read from choices."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_ros.queries.units import UNITS, convert, format_measure, parse_measures


@pytest.mark.parametrize(
    ("value", "unit_from", "unit_to", "expected"),
    [
        (1.0, "ft", "in", 12.0),
        (1.0, "yd", "ft", 3.0),
        (1.0, "in", "mm", 25.4),
        (1.0, "m2", "ft2", 10.763910416709722),
        (180.0, "deg", "rad", math.pi),
        (2.0, "h", "min", 120.0),
        (0.4, "", "percent", 40.0),
    ],
)
def test_convert(value: float, unit_from: str, unit_to: str, expected: float) -> None:
    assert convert(value, unit_from, unit_to) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("unit_from", "unit_to"), [("m", "s"), ("m", "m2"), ("m", "furlong"), ("px", "m")])
def test_convert_refuses_what_does_not_fit(unit_from: str, unit_to: str) -> None:
    with pytest.raises(ValueError, match=r"unit|convert"):
        convert(1.0, unit_from, unit_to)


@given(st.floats(-1e9, 1e9), st.sampled_from(sorted(UNITS)), st.sampled_from(sorted(UNITS)))
def test_convert_is_reversible(value: float, a: str, b: str) -> None:
    if UNITS[a].kind == UNITS[b].kind:
        assert convert(convert(value, a, b), b, a) == pytest.approx(value, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize(
    ("value", "stddev", "unit", "expected"),
    [
        (1.6384, 0.0213, "m", "1.64 m ± 0.02 m"),
        (5.38, 0.14, "ft", "5.38 ft ± 0.14 ft"),
        (5.38, 0.0999, "ft", "5.38 ft ± 0.10 ft"),
        (163.84, 2.13, "cm", "164 cm ± 2 cm"),
        (1638.0, 213.0, "mm", "1600 mm ± 200 mm"),
        (-0.001, 0.02, "m", "0.00 m ± 0.02 m"),
        (42.1, 3.0, "percent", "42 % ± 3 %"),
        (8.1, 0.3, "m2", "8.1 m² ± 0.3 m²"),
        (12.34, math.nan, "deg", "12.3°"),
        (0.0, math.nan, "m", "0 m"),
        (math.nan, 1.0, "m", "unknown m"),
    ],
)
def test_format_measure(value: float, stddev: float, unit: str, expected: str) -> None:
    assert format_measure(value, stddev, unit) == expected


@given(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(sorted(UNITS)),
)  # fmt: skip
def test_format_measure_never_fails(value: float, stddev: float, unit: str) -> None:
    assert format_measure(value, stddev, unit)


@given(st.floats(0.01, 1e5), st.floats(1e-3, 10.0), st.sampled_from(["m", "cm", "ft", "s", "m2"]))
def test_text_holds_the_value_to_within_its_deviation(value: float, stddev: float, unit: str) -> None:
    (shown, kind), _ = parse_measures(format_measure(value, stddev, unit))
    assert kind == UNITS[unit].kind
    assert shown == pytest.approx(value * UNITS[unit].factor, abs=0.51 * stddev * UNITS[unit].factor)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2 m", [(1.2, "length")]),
        ("15 degrees", [(math.radians(15), "angle")]),
        ("90°", [(math.pi / 2, "angle")]),
        ("8 m²", [(8.0, "area")]),
        ("8 m^2", [(8.0, "area")]),
        ("100 square feet", [(9.290304, "area")]),
        ("0.2 x 0.3 m", [(0.2, "length"), (0.3, "length")]),
        ("3×4×2.5 m", [(3.0, "length"), (4.0, "length"), (2.5, "length")]),
        ("20 by 30 cm", [(0.2, "length"), (0.3, "length")]),
        ("2 to 3 m", [(2.0, "length"), (3.0, "length")]),
        ("40 %", [(0.4, "ratio")]),
        ("2 s", [(2.0, "time")]),
        ("5 in", [(0.127, "length")]),
        ('5"', [(0.127, "length")]),
        ("1,5 m", [(1.5, "length")]),
        ("1,250 mm", [(1.25, "length")]),
        ("-0.3 m", [(-0.3, "length")]),
        ("10.5ft", [(3.2004, "length")]),
        ("7", [(7.0, "")]),
        ("<p0>", []),
        ("left", []),
        ("the 2nd", []),
    ],
)
def test_parse_measures(text: str, expected: list[tuple[float, str]]) -> None:
    found = parse_measures(text)
    assert [kind for _, kind in found] == [kind for _, kind in expected]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected])


@given(st.text(max_size=300))
def test_parse_measures_never_fails(text: str) -> None:
    assert all(math.isfinite(value) for value, _ in parse_measures(text))
