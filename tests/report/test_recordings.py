"""What is said below a table of recorded loads."""

import json

import pandas as pd

from kmemexp.report import recordings
from kmemexp.workload.traces import schema

METRIC = "held_peak_bytes"


def config(**changes):
    load = {"name": "mine", "source": "trace", "copies": 1, "shift_s": 0.0, **changes}
    return json.dumps({"workload": load})


def frame(**held):
    """Means of two designs under each stream."""
    rows = [
        {"design": design, recordings.STREAM: stream, METRIC: value}
        for stream, values in held.items()
        for design, value in zip("ab", values, strict=True)
    ]
    return pd.DataFrame(rows)


def said(configs, of=None):
    of = pd.DataFrame({"design": ["a"], METRIC: [1]}) if of is None else of
    return recordings.remarks(configs, of, [METRIC], ["design", recordings.STREAM])


def test_nothing_is_said_of_synthetic_loads():
    assert said([json.dumps({"workload": {"name": "x", "source": "synthetic"}})]) == []


def test_what_replicas_differ_in():
    assert "differ in nothing" in said([config()])[0]
    assert "differ in when its 2 copies begin" in said([config(copies=2, shift_s=1.0)])[0]
    assert "differ in which objects died" in said([config(stream="law")])[0]


def test_warnings_of_a_recording_stand_below_the_table_once():
    lines = said([config(warnings=["pointers are hidden"])] * 2)
    assert lines[1:] == ["mine: pointers are hidden"]


def test_a_rank_is_certain_where_all_three_streams_give_it():
    assert recordings.STREAMS == schema.STREAMS
    configs = [config(stream="law")]
    lines = said(configs, frame(recorded=(1, 2), law=(3, 4), reconciled=(1, 3)))
    assert any(line.startswith("Certain ranks") and METRIC in line for line in lines)
    assert not any("was not simulated" in line for line in lines)
    lines = said(configs, frame(recorded=(1, 2), law=(3, 4), reconciled=(3, 1)))
    assert any("Not certain" in line and f"{METRIC} (a, b)" in line for line in lines)


def test_without_one_of_the_streams_no_rank_is_certain():
    configs = [config(stream="law")]
    for second in ((3, 4), (4, 3)):
        lines = said(configs, frame(recorded=(1, 2), law=second))
        assert not any(line.startswith("Certain") for line in lines)
        assert any("No rank is certain" in line and "reconciled was not simulated" in line for line in lines)
    assert any("Not certain" in line and f"{METRIC} (a, b)" in line for line in lines)
