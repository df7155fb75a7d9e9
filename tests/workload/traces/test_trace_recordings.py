"""The recorded kernel traces: figures equal those of an independent program."""

import json

import pytest

from kmemexp.workload.traces import importer, library
from kmemexp.workload.traces.stats import stats

pytestmark = pytest.mark.slow


def differences(figures, expected):
    return {key: (figures.get(key), value) for key, value in expected.items() if figures.get(key) != value}


@pytest.mark.parametrize("name", ["compile", "filetree", "pgbench"])
def test_text_gives_the_expected_figures(shared_traces, name):
    expected = json.loads((shared_traces / f"{name}.expected.json").read_text())
    figures = stats(shared_traces / f"{name}.txt.zst")
    assert differences(figures, expected) == {}
    assert figures["report"]["bad_lines"] == 0


def test_imported_gives_the_expected_figures(shared_traces, tmp_path):
    expected = json.loads((shared_traces / "compile.expected.json").read_text())
    importer.import_trace(shared_traces / "compile.txt.zst", tmp_path / "compile.parquet")
    assert differences(stats(tmp_path / "compile.parquet"), expected) == {}


@pytest.mark.parametrize("name", ["filetree", "pgbench"])
def test_shipped_gives_the_expected_figures(shared_traces, name):
    expected = json.loads((shared_traces / f"{name}.expected.json").read_text())
    assert differences(stats(library.path_of(name)), expected) == {}


def test_perf_script(shared_traces):
    figures = stats(shared_traces / "ls.perf-script.txt.zst")
    assert figures["report"]["format"] == "perf script"
    assert figures["report"]["bad_lines"] == 0
    assert figures["events_by_name"]["kfree"] == 12731
    assert figures["events"] == 40349
