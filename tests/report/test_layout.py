import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemexp.report import layout
from kmemexp.report.layout import axis_value, decimals_for, factor, labels, number, unit_of


@pytest.mark.parametrize(
    ("metric", "largest", "unit"),
    [
        ("map_external_frag_ratio", 0.9, "%"),
        ("held_peak_bytes", 3 * 2**20, "MiB"),
        ("held_peak_bytes", 2**20 - 1, "KiB"),
        ("held_peak_bytes", 5e9, "GiB"),
        ("held_peak_bytes", 0, "B"),
        ("held_peak_bytes", math.nan, "B"),
        ("wait_p99_ns", 2500, "µs"),
        ("steps_count", 9_999_999, ""),
        ("steps_count", 1e7, "10⁶"),
    ],
)
def test_units(metric, largest, unit):
    assert unit_of(metric, largest).name == unit


@pytest.mark.parametrize(
    ("values", "halves", "decimals"),
    [
        ([34.213], [1.1], 1),
        ([34.213], [0.013], 3),
        ([34.213], [12.0], 0),
        ([123456.7], [0.5], 0),
        ([3.0, 4.0], [0.0, 0.0], 0),
        ([3.25], [math.nan], 3),
        ([math.nan], [math.nan], 0),
        ([0.0], [0.0], 0),
    ],
)
def test_decimals_follow_the_half_width(values, halves, decimals):
    assert decimals_for(values, halves) == decimals


@pytest.mark.parametrize(
    ("x", "decimals", "text"),
    [(1234567.0, 0, "1,234,567"), (-0.04, 1, "~0"), (0.0, 1, "0"), (-21.94, 1, "-21.9"), (math.nan, 1, "nan")],
)
def test_numbers(x, decimals, text):
    assert number(x, decimals) == text


def test_signs_and_factors():
    assert number(5.0, 1, sign=True) == "+5.0"
    assert [factor(r) for r in (0.5123, 1.0, 12.34, 1234.5, 0.0123, 0.0)] == [
        f"{layout.TIMES}{t}" for t in ("0.51", "1.00", "12.3", "1,234", "0.012", "0")
    ]
    assert factor(math.nan) == factor(math.inf) == ""


def test_an_interval_says_how_far_it_reaches_and_where_it_has_no_end():
    assert layout.interval(5, 4, 6, 1) == "± 1.0"
    assert layout.interval(5, 4.5, 8, 1) == "-0.5 +3.0"
    assert layout.interval(5, 4.5, math.inf, 1) == "-0.5 +∞"
    assert layout.interval(5, -math.inf, 6, 1) == "-∞ +1.0"
    assert layout.interval(5, math.nan, math.nan, 1) == layout.interval(5, 5, 5, 1) == ""
    assert layout.interval(5, -math.inf, math.inf, 1) == ""


@given(st.floats(-1e12, 1e12), st.integers(0, 3), st.booleans())
def test_numbers_read_back_as_what_they_were(x, decimals, sign):
    text = number(x, decimals, sign)
    back = 0.0 if text == "~0" else float(text.replace(",", ""))
    assert abs(back - x) <= 0.5 * 10**-decimals * (1 + 1e-9) + abs(x) * 1e-15
    assert (text == "0") == (x == 0)


@given(st.lists(st.floats(0, 1e12), min_size=1), st.lists(st.floats(0, 1e12)))
def test_decimals_stay_readable(values, halves):
    assert 0 <= decimals_for(values, halves) <= 3


def test_axis_values_read_as_they_are_typed():
    assert axis_value("machine.kva_bytes", np.int64(192 << 20)) == "192 MiB"
    assert axis_value("machine.kva_bytes", 1000) == "1,000 B"
    assert axis_value("workload.rate", 0.5) == "0.5"
    assert axis_value("machine.cpus", 4) == "4"
    assert axis_value("machine.cpus", pd.NA) == "-"


def test_labels_name_what_varies():
    keys = pd.DataFrame({"design": ["a", "a", "b"], "x.bytes": [1, 2, 2], "y.bytes": [5, 6, 6], "x.n": [1, 1, 1]})
    assert labels(keys, ["design", "x.bytes", "y.bytes", "x.n"], " ") == [
        "a x.bytes 1 y.bytes 5", "a x.bytes 2 y.bytes 6", "b x.bytes 2 y.bytes 6",
    ]  # fmt: skip
    assert labels(keys, ["x.n"], " ") == ["", "", ""]
