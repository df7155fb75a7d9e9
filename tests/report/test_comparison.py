import json
import math

import numpy as np
import pandas as pd
import pytest
import report_fakes as fakes
from hypothesis import given, settings
from hypothesis import strategies as st

from kmemexp.errors import ConfigError
from kmemexp.metrics import Margin
from kmemexp.report import families, stats
from kmemexp.report.comparison import compare
from kmemexp.report.results import Results

HELD = "held_peak_bytes"


def frame(cells, **options):
    return Results.from_tables(fakes.metrics_table(cells, **options)).metrics


def small(values: dict[str, list[float]], metric: str = HELD, **columns) -> pd.DataFrame:
    """One condition; the values of each design, replica by replica (None = failed)."""
    rows = [
        {"design": d, "workload": "w", "replica": r, "status": "failed" if v is None else "done", metric: v, **columns}
        for d, vs in values.items()
        for r, v in enumerate(vs)
    ]
    return pd.DataFrame(rows)


def of(table: pd.DataFrame, design: str) -> pd.Series:
    (row,) = (row for _, row in table[table["design"] == design].iterrows())
    return row


def test_worked_numbers():
    a, b = [126.97, 124.31, 126.68, 122.66, 127.23], [118.21, 120.22, 122.45, 122.68, 119.40]
    table = compare(small({"a": a, "b": b}), {"design": "b"}, ci=0.9)
    row = of(table, "a")
    assert (row["diff"], row["diff_low"], row["diff_high"]) == pytest.approx((4.978, 1.649127, 8.306873), abs=1e-6)
    assert (row["p"], row["p_holm"], row["pairing"]) == pytest.approx((0.033281, 0.033281, 0.636690), abs=1e-6)
    assert (row["verdict"], row["pairs"], row["n"]) == ("worse", 5, 5)
    assert of(table, "b")["verdict"] == "baseline"
    assert table["best"].tolist() == [True, False]
    assert of(compare(small({"a": a, "b": b}), "b", ci=0.99), "a")["verdict"] == "inconclusive"


def test_every_condition_is_compared_on_its_own():
    df = frame(fakes.grid())
    table = compare(df, "freebsd4", [HELD, "internal_frag_ratio"])
    assert len(table) == 4 * 2 * 3
    assert list(table.columns[:6]) == ["workload", "kva_bytes", "design", "metric", "n", "failed"]
    assert table["design"].tolist()[:3] == ["freebsd4", "dragonfly_2003aug25", "dragonfly_2003oct"]
    assert table["metric"].tolist()[:6] == [HELD] * 3 + ["internal_frag_ratio"] * 3
    row = table.query(f"workload == 'pgbench' and design == 'dragonfly_2003oct' and metric == '{HELD}'").iloc[1]
    part = df[(df["workload"] == "pgbench") & (df["kva_bytes"] == row["kva_bytes"])]
    x, y = (
        part[part["design"] == d].sort_values("replica")[HELD].to_numpy() for d in ("dragonfly_2003oct", "freebsd4")
    )
    alone = stats.paired_difference(x, y)
    assert row["diff"] == alone.diff
    assert (row["diff_low"], row["ratio_high"]) == pytest.approx((alone.low, alone.ratio_high))
    assert row["verdict"] == "better"
    assert row["best"]


def test_all_that_a_table_answers_is_one_family():
    table = compare(frame(fakes.grid(), noise=0.3), "freebsd4", [HELD, "internal_frag_ratio"])
    np.testing.assert_allclose(table["p_holm"], stats.holm(table["p"]))
    assert table["p_holm"].count() == 16
    assert set(table["family"]) == {16}


def test_what_is_only_described_is_no_part_of_the_family():
    table = compare(frame(fakes.grid()), "freebsd4", [HELD, "internal_frag_ratio"], judged=[HELD])
    assert set(table["family"]) == {8}
    described = table[table["metric"] == "internal_frag_ratio"]
    assert set(described["verdict"]) == {"", "baseline"}
    assert described["p_holm"].isna().all()
    with pytest.raises(ConfigError, match="unknown metric held_peak"):
        compare(frame(fakes.grid()), "freebsd4", [HELD], judged=["held_peak"])


def test_several_tables_are_judged_as_one_question():
    both = [compare(frame(fakes.grid(), noise=0.3), "freebsd4", [name]) for name in (HELD, "internal_frag_ratio")]
    again = families.one_family(both)
    together = compare(frame(fakes.grid(), noise=0.3), "freebsd4", [HELD, "internal_frag_ratio"])
    for table, name in zip(again, (HELD, "internal_frag_ratio"), strict=True):
        whole = together[together["metric"] == name]
        assert table["verdict"].tolist() == whole["verdict"].tolist()
        np.testing.assert_allclose(table["p_holm"], whole["p_holm"])


def test_direction_decides_what_is_better():
    lower = {"a": [10.0, 11, 12], "b": [5.0, 6.1, 6.9]}
    assert of(compare(small(lower), "a"), "b")["verdict"] == "better"
    more = compare(small(lower, "map_free_bytes"), "a")
    assert (of(more, "b")["verdict"], of(more, "a")["best"]) == ("worse", True)
    neither = compare(small(lower, "operations_count"), "a")
    assert (of(neither, "b")["verdict"], neither["best"].any()) == ("", False)


def test_one_replica_gives_means_and_no_verdict():
    table = compare(small({"a": [10.0], "b": [5.0]}), "a")
    row = of(table, "b")
    assert (row["n"], row["diff"], row["ratio"], row["verdict"]) == (1, -5, 0.5, "inconclusive")
    assert row[["low", "high", "diff_low", "p", "p_holm"]].isna().all()


@pytest.mark.parametrize(
    ("n", "words"), [(2, ["inconclusive"] * 2), (5, ["inconclusive"] * 2), (6, ["better", "equivalent"])]
)
def test_replicas_that_agree_say_something_from_the_sixth_on(n, words):
    table = compare(small({"a": [10.0] * n, "b": [5.0] * n}), "a")
    other = compare(small({"a": [10.0] * n, "c": [10.0] * n}), "a")
    assert [of(table, "b")["verdict"], of(other, "c")["verdict"]] == words
    assert np.isnan([of(table, "b")["diff_low"], of(table, "b")["diff_high"]]).all()
    assert n < 6 or (of(table, "b")["p"], of(table, "b")["test"]) == (2**-5, "alike")


def configured(**workload):
    cell = {"workload": {"source": "trace", "shift_s": 1.0} | workload, "cost": {"name": "none"}, "interrupts": {}}
    return json.dumps(cell)


def test_what_is_deterministic_by_construction_is_a_fact():
    values = {"a": [10.0], "b": [5.0], "c": [10.0]}
    table = compare(small(values, config=configured(copies=1)), "a")
    assert [of(table, d)["verdict"] for d in "abc"] == ["baseline", "better", "equivalent"]
    assert of(table, "b")["test"] == "fact"
    assert (of(table, "b")["diff_low"], of(table, "b")["diff_high"]) == (-5, -5)
    assert table["p"].isna().all()
    assert of(compare(small(values, config=configured(copies=2)), "a"), "b")["verdict"] == "inconclusive"


def test_equivalent_means_certainly_within_the_margin():
    rng = np.random.default_rng(3)
    a = rng.normal(1000, 50, 12)
    df = small({"a": list(a), "b": list(a + rng.normal(0, 0.5, 12))})
    row = of(compare(df, "a"), "b")
    assert (row["verdict"], row["not_worse"]) == ("equivalent", True)
    assert row["margin"] == pytest.approx(0.01 * a.mean())
    assert of(compare(df, "a", margins={HELD: Margin(1e-3)}), "b")["verdict"] == "inconclusive"


@pytest.mark.parametrize(("designs", "verdict"), [("b", "equivalent"), ("bcd", "inconclusive")])
def test_equivalence_is_corrected_for_the_family_too(designs, verdict):
    """The two one-sided tests give p = 0.023 each: enough for one comparison, too much for one of three."""
    rng = np.random.default_rng(5)
    a = rng.normal(1000, 50, 12)
    other = list(a + rng.normal(0, 10, 12))
    table = compare(small({"a": list(a)} | dict.fromkeys(designs, other)), "a", margins={HELD: Margin(9.0)})
    assert of(table, "b")["p_equal"] == pytest.approx(0.0234, abs=1e-4)
    assert {of(table, d)["verdict"] for d in designs} == {verdict}


def test_a_difference_that_does_not_matter_is_equivalence_however_sure():
    a = np.random.default_rng(4).normal(1000, 50, 12)
    df = small({"a": list(a), "b": list(a + 2 + 0.01 * np.arange(12))})
    row = of(compare(df, "a"), "b")
    assert row["p_holm"] < 1e-9
    assert row["verdict"] == "equivalent"
    assert of(compare(df, "a", margins={HELD: Margin(1.0)}), "b")["verdict"] == "worse"


def test_what_is_inconclusive_says_what_it_could_have_seen():
    rng = np.random.default_rng(6)
    a, noise = rng.normal(1000, 50, (2, 4000, 8))
    noise[0] -= noise[0].mean() - 1000.0
    seen = stats.paired_difference(noise, 1000.0)
    row = of(compare(small({"a": list(a[0]), "b": list(a[0] + noise[0] - 1000)}), "a"), "b")
    assert row["verdict"] == "inconclusive"
    sums = stats.t_quantile(8, 0.95) + stats.t_quantile(8, 0.6)
    assert row["detectable"] == pytest.approx(seen.sd[0] / 8**0.5 * sums)
    # A true difference of that size is found about four times in five.
    found = stats.paired_difference(noise - 1000 + 50 / 8**0.5 * sums, np.zeros_like(noise)).p < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.05)


def test_failed_lanes_are_counted_and_left_out():
    table = compare(small({"a": [10.0, 11, 12, 13], "b": [5.0, None, 7.5, None], "c": [None] * 4}), "a")
    row = of(table, "b")
    assert (row["n"], row["failed"], row["pairs"], row["mean"], row["diff"]) == (2, 2, 2, 6.25, -4.75)
    row = of(table, "c")
    assert (row["n"], row["failed"], row["verdict"], row["best"]) == (0, 4, "inconclusive", False)
    assert np.isnan(row["mean"])


def test_best_marks_all_ties_and_needs_a_choice():
    table = compare(small({"a": [2.0, 4], "b": [3.0, 3], "c": [9.0, 9]}), "a")
    assert [of(table, d)["best"] for d in "abc"] == [True, True, False]
    assert not compare(small({"a": [2.0, 4]}), "a")["best"].any()


def test_rare_events_get_a_wilson_interval():
    table = compare(small({"a": [0.0] * 8, "b": [3.0] + [0.0] * 7}, "panics_count"), "a")
    assert of(table, "a")["occurs_high"] == pytest.approx(0.324408, abs=1e-6)
    assert (of(table, "b")["occurs"], of(table, "b")["occurs_low"]) == pytest.approx((0.125, 0.022417), abs=1e-6)
    assert compare(small({"a": [0.0] * 8, "b": [1.0] * 8}), "a")["occurs"].isna().all()


@pytest.mark.parametrize(("n", "word"), [(2, "inconclusive"), (5, "inconclusive"), (6, "worse")])
def test_events_in_all_replicas_against_none_are_nothing_in_two(n, word):
    row = of(compare(small({"a": [0.0] * n, "b": [3.0 + r for r in range(n)]}, "panics_count"), "a"), "b")
    assert (row["verdict"], row["test"], row["p"]) == (word, "sign", 2 ** (1 - n))
    assert row["share_diff"] == 1.0
    assert np.isnan(row["diff_low"])


def test_no_event_in_either_is_equivalence_only_in_very_many_replicas():
    few, many = (of(compare(small({"a": [0.0] * n, "b": [0.0] * n}, "panics_count"), "a"), "b") for n in (20, 59))
    assert (few["verdict"], many["verdict"]) == ("inconclusive", "equivalent")
    assert stats_of_binomial(20, 6, few["detectable"]) == pytest.approx(0.8)  # 6 of 20 is what the sign test needs


def stats_of_binomial(n, least, share):
    """Chance of `least` hits or more."""
    return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(least, n + 1))


def test_a_rare_event_that_always_happens_is_compared_by_its_counts():
    values = {"a": [50.0, 51, 48, 55, 52, 50, 49, 51], "b": [5.0, 6, 4, 5, 7, 5, 6, 4]}
    row = of(compare(small(values, "alloc_failures_count"), "a"), "b")
    assert (row["test"], row["verdict"]) == ("bootstrap-t", "better")
    assert row["diff_low"] < row["diff"] < row["diff_high"] < 0


@pytest.mark.parametrize(
    ("words", "not_worse", "word"),
    [
        (("better", "equivalent"), (True, True), "better"),
        (("better", "inconclusive"), (True, True), "better"),
        (("better", "inconclusive"), (True, False), "mixed"),
        (("better", "worse"), (True, False), "mixed"),
        (("worse", "equivalent"), (False, True), "worse"),
        (("equivalent", "equivalent"), (True, True), "equivalent"),
        (("equivalent", "inconclusive"), (True, True), "inconclusive"),
    ],
)
def test_several_measures_of_one_thing(words, not_worse, word):
    rows = [pd.Series({"verdict": v, "not_worse": ok}) for v, ok in zip(words, not_worse, strict=True)]
    assert families.combined(rows) == word


def test_bootstrap_interval():
    values = {"a": [10.0, 12, 11, 14, 10, 13], "b": [5.0, 8, 6, 10, 6, 7]}
    t, bca = compare(small(values), "a"), compare(small(values), "a", interval="bca")
    row = of(bca, "b")
    expected = stats.bootstrap_interval(values["b"], values["a"])
    assert (row["diff_low"], row["diff_high"]) == expected
    assert row["p"] == of(t, "b")["p"]
    with pytest.raises(ConfigError, match='"t" or "bca"'):
        compare(small(values), "a", interval="z")


def test_a_baseline_may_name_any_axis():
    cells = [{"design": d, "objects.malloc": m, "machine.cpus": c} for d in "ab" for m in ("buckets", "slab") for c in (1, 2)]  # fmt: skip # noqa: E501
    df = frame(cells, noise=0.01, held_peak_bytes=lambda axes, r: 10 + r + 100 * axes["machine.cpus"])
    table = compare(df, {"machine.cpus": 1}, [HELD])
    other = table[table["cpus"] == 2]
    assert (table["cpus"] == 1).sum() == (table["verdict"] == "baseline").sum() == 4
    assert (other["diff"] == 100).all()
    # With two variants of the named design, each variant is compared with the one of its own malloc.
    table = compare(df, "a", [HELD]).set_index(["cpus", "malloc", "design"])
    assert (table["verdict"] == "baseline").sum() == 4
    assert (table.xs("b", level="design")["diff"] == 0).all()


def test_an_axis_that_only_some_designs_have():
    cells = [{"design": "a"}, *({"design": "b", "objects.params.slab.zone_bytes": z} for z in (32768, 65536))]
    table = compare(frame(cells), "a", [HELD])
    assert table["verdict"].tolist()[0] == "baseline"
    assert table["slab_zone_bytes"].tolist() == [pd.NA, 32768, 65536]
    assert table["diff"].notna().tolist() == [False, True, True]


def test_a_condition_without_the_baseline_has_means_only():
    cells = [*fakes.grid(workloads=("x",)), {"design": "dragonfly_2003oct", "workload": "y", "machine.kva_bytes": 1}]
    table = compare(frame(cells), "freebsd4", [HELD])
    row = table[table["workload"] == "y"].iloc[0]
    assert (row["verdict"], row["n"]) == ("", 6)
    assert np.isnan(row["diff"])


def test_columns_of_the_machine_count_where_no_axis_explains_them():
    df = small({"a": [1.0, 2], "b": [3.0, 4]}, cpus=1, kva_bytes=7)
    both = pd.concat([df, df.assign(cpus=2)])
    assert "cpus" in compare(both, "a").columns
    assert "kva_bytes" not in compare(both, "a").columns
    assert len(compare(both, "a", by=["workload", "cpus"])) == 4


def test_no_baseline_gives_means():
    table = compare(frame(fakes.grid()), None, [HELD])
    assert table["diff"].isna().all()
    assert (table["verdict"] == "").all()
    assert table["best"].sum() == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("freebsd5",), r"baseline .*freebsd5.* not among the cells; there are design: dragonfly_2003aug25, "),
        (({"machine.cups": 1},), r"machine\.cups is not an axis"),
        (("freebsd4", ["held_peak"]), r"unknown metric held_peak: did you mean held_peak_bytes\?"),
        (("freebsd4", ["error"]), "unknown metric error: "),
        (("freebsd4", None, ["cup"]), "by: no column cup"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        compare(frame(fakes.grid()), *arguments)


def test_cells_that_the_axes_do_not_tell_apart_are_refused():
    df = frame([{"design": "a", "workload": "w"}, {"design": "a", "workload": "w"}, {"design": "b", "workload": "w"}])
    with pytest.raises(ConfigError, match=r"2 different cells have the same axis values \(workload=w, design=a\)"):
        compare(df, "a")


def test_a_table_without_metrics_is_refused():
    with pytest.raises(ConfigError, match="no metric columns"):
        compare(pd.DataFrame({"design": ["a"], "workload": ["w"], "replica": [0]}), "a")


def test_a_column_of_the_users_own_is_a_metric_when_asked_for():
    df = small({"a": [1.0, 2], "b": [3.0, 4]}).assign(mine=lambda d: d[HELD] * 2)
    assert of(compare(df, "a", ["mine"]), "b")["diff"] == 4


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=8), st.integers(-(2**40), 2**40), st.randoms())
def test_the_shift_between_two_designs_comes_out_whatever_the_order_of_rows(values, shift, random):
    df = small({"a": [float(v) for v in values], "b": [float(v + shift) for v in values]})
    order = list(range(len(df)))
    random.shuffle(order)
    row = of(compare(df.iloc[order], "a"), "b")
    assert row["diff"] == shift
    assert np.isnan(row["diff_low"])  # a constant shift has no scatter to make an interval of
    words = {"inconclusive"} if len(values) < 6 else {"equivalent", "worse" if shift > 0 else "better"}
    assert row["verdict"] in words


def noise(cells: int, replicas: int, names) -> pd.DataFrame:
    """Five designs that do not differ, in `cells` / 5 conditions."""
    rng = np.random.default_rng(0)
    design = np.repeat(np.tile([f"d{i}" for i in range(5)], cells // 5), replicas)
    scale = np.repeat(np.repeat(np.arange(cells // 5), 5), replicas)
    axes = {"design": design, "workload": "w", "machine.cpus": scale, "replica": np.tile(range(replicas), cells)}
    return pd.DataFrame(axes | {name: rng.normal(10, 1, len(design)) for name in names})


def test_ten_thousand_cells():
    names = fakes.NAMES[:4]
    table = compare(noise(10_000, 4, names), "d0")
    assert len(table) == 10_000 * len(names)
    assert (table["p_holm"] < 0.05).mean() < 0.001


def test_every_metric():
    table = compare(noise(50, 4, fakes.NAMES), "d0")
    assert len(table) == 50 * len(fakes.NAMES)
    assert list(table["metric"].cat.categories) == list(fakes.NAMES)
    assert (table["p_holm"] < 0.05).mean() < 0.01
