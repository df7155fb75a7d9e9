"""What analyses use to judge: figures and conditions in words, the row of a comparison, several verdicts in one."""

import sys
from pathlib import Path

import pandas as pd
import pytest

import kmemexp
from kmemexp.claims import judging
from kmemexp.report import results

sys.path.append(str(Path(__file__).parents[1] / "report"))
import report_fakes as fakes


def test_figures_in_words():
    row = pd.Series({"diff": -6.0 * 2**20, "diff_low": -8.0 * 2**20, "diff_high": -4.0 * 2**20, "occurs": 0.5, "n": 6})
    assert judging.change(row, "MiB", 2**20) == "-6.0 ± 2.0 MiB"
    assert judging.spread(3, float("nan"), float("nan"), sign=False) == "3"
    assert judging.in_replicas(row) == "3 of 6"
    assert [judging.cpus_text(n) for n in (1, 2)] == ["1 CPU", "2 CPUs"]


def test_a_row_that_is_not_there_once_is_an_error():
    table = pd.DataFrame({"metric": ["a", "a"], "cpus": [1, 2]})
    assert judging.pick(table, "a", cpus=2)["cpus"] == 2
    with pytest.raises(LookupError, match=r"no row for a with cpus=3"):
        judging.pick(table, "a", cpus=3)
    with pytest.raises(LookupError, match="more than one"):
        judging.pick(table, "a")


def test_conditions_in_words():
    """A gap in `cost` is a run without a clock; what follows from another axis is not said."""
    cells = [
        {"design": d, "workload": "filetree", "machine.cpus": n, "workload.copies": n, "machine.kva_bytes": 192 << 20}
        for n in (1, 8)
        for d in ("freebsd4", "dragonfly_2003oct")
    ]
    cells[0]["cost"] = "none"
    clocks = [cells[2] | {"cost": "opteron2003"}, cells[3] | {"cost": "opteron2003"}]
    metrics = results.Results.from_tables(fakes.metrics_table([*cells, *clocks], 2)).metrics
    table = kmemexp.compare(judging.without_gaps(metrics), "freebsd4", ["held_peak_bytes"])
    found = {where: rows["design"].tolist() for where, rows in judging.conditions(table)}
    both = ["freebsd4", "dragonfly_2003oct"]
    assert found == {
        "filetree, 1 CPU, without a clock": both,
        "filetree, 8 CPUs, without a clock": both,
        "filetree, 8 CPUs, with a clock (opteron2003)": both,
    }


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (("better", "equivalent"), "holds"),
        (("better", "inconclusive"), "holds in part"),
        (("better", "worse"), "holds in part"),
        (("worse", "inconclusive"), "fails"),
        (("equivalent", "equivalent"), "equivalent"),
        (("inconclusive", "equivalent"), "inconclusive"),
        ((), "inconclusive"),
    ],
)
def test_several_measures_make_one_verdict(found, word):
    rows = [pd.Series({"verdict": v, "not_worse": v in ("better", "equivalent")}) for v in found]
    assert judging.together(*rows) == word
    assert word in judging.VERDICTS


@pytest.mark.parametrize(("seeds", "hit", "word"), [(20, 0, "inconclusive"), (80, 0, "holds"), (80, 1, "fails")])
def test_what_never_happened_is_bounded_by_the_seeds(seeds, hit, word):
    """Conditions that share seeds are no further evidence, however many they are."""
    events = pd.DataFrame({"seed": 0, "replica": list(range(seeds)) * 18, "deadlock": False})
    events.loc[: hit - 1, "deadlock"] = True
    found, text, share = judging.never(events)
    assert found == word
    assert f"in {hit} of {18 * seeds} runs on {seeds} seeds" in text
    assert share["low"] <= share["effect"] <= share["high"]
    assert seeds > 20 or share["high"] == pytest.approx(0.161, abs=1e-3)
    assert ("seen" in share) == (word == "inconclusive")


def test_an_inconclusive_difference_says_what_could_have_been_seen():
    row = pd.Series({"diff": 1.0, "diff_low": -1.0, "diff_high": 3.0, "verdict": "inconclusive", "detectable": 4.2,
                     "test": "t"})  # fmt: skip
    assert judging.change(row) == "+1.0 ± 2.0 (could have seen 4.2)"
    assert judging.change(row.to_dict() | {"test": "sign", "detectable": 0.5}).endswith(
        "(could have seen 50% of replicas)"
    )
    assert judging.change(row.to_dict() | {"detectable": float("nan")}).endswith("(so few replicas can show nothing)")
    assert judging.change(row.to_dict() | {"verdict": "better"}) == "+1.0 ± 2.0"


def test_a_gap_in_the_costs_is_a_run_without_a_clock():
    assert judging.without_gaps(pd.DataFrame({"cost": [None, "haswell2015"]}))["cost"].tolist() == [
        "none",
        "haswell2015",
    ]
    assert list(judging.without_gaps(pd.DataFrame({"x": [1]}))) == ["x"]
