"""C5 and C6: what their analyses say of results that are made up."""

import made_up
import pytest
from made_up import MIB

from kmemexp.claims import finding

DESIGNS = ("freebsd4", "dragonfly_2003aug25", "mail2003_bare", "freebsd5_uma", "freebsd5_uma_unified")
SPLIT = ("freebsd4", "freebsd5_uma")
EXTERNAL, SMALL = "malloc_external_frag_mean_ratio", "malloc_unusable_1m_mean_ratio"
KVA_EXTERNAL, OBJECT = "kernel_map_external_frag_mean_ratio", "total_frag_mean_ratio"
MALLOC, KVA = ": malloc's space", ": kernel_map"


def c5(values):
    cells = [
        {"design": d, "workload": "filetree", "machine.kva_bytes": kva * MIB, "machine.cpus": 2}
        for kva in (160, 192)
        for d in DESIGNS
    ]
    found = made_up.results(cells, 6, lambda axes, r: {"operations_count": 1e6} | values(axes, r))
    return finding.load("c5_long_run").analyse({"fragmentation": found})


def around(mean, axes, replica):
    return mean + 0.002 * made_up.noise(axes, replica)


def by_pair(report, what):
    """Words on the three pairs, FreeBSD 4's, FreeBSD 5's and the whole plan."""
    return [v.verdict for v in report.verdicts if v.where.endswith(what)]


def test_c5_holds_where_the_map_without_kmem_map_fragments_less():
    report = c5(lambda axes, r: {EXTERNAL: around(0.3 if axes["design"] in SPLIT else 0.2, axes, r)})
    assert by_pair(report, MALLOC) == ["holds"] * 3
    assert by_pair(report, KVA) == ["equivalent"] * 3
    assert by_pair(report, ": objects") == ["equivalent"] * 3
    first = report.verdicts[0]
    assert "160 MiB -9.89" in first.evidence
    assert "192 MiB" in first.evidence
    assert first.low < first.effect < first.high
    assert first.effect == pytest.approx(-10, abs=0.5)
    assert "malloc's space less fragmented in 2, more in 0 of 2 conditions" in report.summary


def test_c5_fails_where_it_fragments_more_and_is_mixed_where_the_measures_differ():
    def values(axes, r):
        worse = axes["design"] in ("dragonfly_2003aug25", "mail2003_bare")
        mixed = {SMALL: around(0.02 if axes["design"] == "mail2003_bare" else 0.05, axes, r)}
        return {EXTERNAL: around(0.4 if worse else 0.3, axes, r)} | mixed

    assert by_pair(c5(values), MALLOC) == ["fails", "inconclusive", "holds in part"]


def test_c5_judges_each_space_by_itself():
    """Without kmem_map kernel_map has malloc's blocks among its holes, which are no merit of malloc's space."""

    def values(axes, r):
        split = axes["design"] in SPLIT
        return {
            EXTERNAL: around(0.3 if split else 0.2, axes, r),
            KVA_EXTERNAL: around(0.01 + 0.19 * (not split), axes, r),
        }

    report = c5(values)
    assert by_pair(report, MALLOC) == ["holds"] * 3
    assert by_pair(report, KVA) == ["fails"] * 3


def test_c5_does_not_judge_where_one_of_a_pair_refuses_requests():
    def values(axes, r):
        refused = 5000 if axes["design"] == "freebsd4" else 0
        return {EXTERNAL: around(0.3 if axes["design"] in SPLIT else 0.2, axes, r), "alloc_failures_count": refused}

    report = c5(values)
    assert by_pair(report, MALLOC) == ["observed", "holds", "observed"]
    assert "(not judged" in report.verdicts[0].evidence
    assert "refusals)" in report.verdicts[0].evidence


def test_the_figure_of_c5_is_one_of_those_that_are_judged():
    def values(axes, r):
        refused = 5000 * (axes["machine.kva_bytes"] == 160 * MIB)
        more = 0.4 if refused else 0.05
        mean = 0.3 if axes["design"] in SPLIT else 0.3 - more
        return {EXTERNAL: around(mean, axes, r), "alloc_failures_count": refused}

    first = c5(values).verdicts[0]
    assert first.verdict == "holds"
    assert first.effect == pytest.approx(-5, abs=0.5)


def test_c5_takes_a_difference_of_less_than_a_tenth_of_a_point_for_equivalence():
    report = c5(lambda axes, r: {OBJECT: 0.3 if axes["design"] in SPLIT else 0.2995})
    assert by_pair(report, ": objects") == ["equivalent"] * 3


POLICIES = ("none", "good", "dear", "bad")
CLOCKS = (("none", 3440.0), ("opteron2003", 560.0))


SUPERPAGES, BOUND = "map_superpages_mean_count", "map_superpages_bound_mean_count"


def c6(external, cpu, elsewhere=0.1, kept=None, bound=20.0):
    kept = kept or {"none": 8.0, "good": 12.0, "dear": 14.0, "bad": 5.0}

    def superpages(mean, axes, r):
        return {SUPERPAGES: mean + 0.2 * made_up.noise(axes, r), BOUND: bound}

    def values(axes, r):
        policy = axes["policy"]
        return superpages(kept[policy], axes, r) | {
            KVA_EXTERNAL: around(external[policy], axes, r),
            "main_ratio": cpu[policy] * (1 + 0.001 * made_up.noise(axes, r)),
            "simulated_ns": 1e9, "operations_count": 1000, "alloc_main_p99_ns": 1000.0, "lock_wait_ratio": 0.1,
        }  # fmt: skip

    cells = [
        {"design": "mail2003_bare", "policy": p, "cost": cost, "workload.duration_s": s} for p in POLICIES
        for cost, s in CLOCKS
    ]  # fmt: skip
    others = [
        {"design": d, "workload": "pgbench", "machine.cpus": cpus, "machine.kva_bytes": 160 * MIB}
        for d in ("mail2003_bare", "proactive")
        for cpus in (2, 4)
    ]
    tried = made_up.results(
        others, 6,
        lambda axes, r: superpages(8 + 40 * elsewhere * (axes["design"] == "proactive"), axes, r)
        | {KVA_EXTERNAL: around(0.3 - elsewhere * (axes["design"] == "proactive"), axes, r)},
    )  # fmt: skip
    report = finding.load("c6_proactive").analyse(
        {"proactive": made_up.results(cells, 6, values), "proactive_elsewhere": tried}
    )
    kinds = {v: " superpages" * v.where.endswith(": superpages") for v in report.verdicts}
    return {v.where.partition(" on ")[0].partition(";")[0] + kind: v for v, kind in kinds.items()}, report


def test_c6_judges_each_policy_and_lets_the_cheapest_enough_of_the_good_ones_win():
    found, report = c6({"none": 0.3, "good": 0.2, "dear": 0.1, "bad": 0.4},
                       {"none": 0.5, "good": 0.51, "dear": 0.6, "bad": 0.4})  # fmt: skip
    assert [found[p].verdict for p in ("good", "dear", "bad")] == ["holds", "holds", "fails"]
    assert "CPU time +" in found["good"].evidence
    assert "CPU time -" in found["bad"].evidence
    assert "The winner by the rule is good" in report.summary
    assert found["design=proactive against mail2003_bare"].verdict == "holds"
    assert [found[f"{p} superpages"].verdict for p in ("good", "dear", "bad")] == ["holds", "holds", "fails"]
    assert "to 12.0; by compaction 20.0, so 34% of the gap is closed" in found["good superpages"].evidence
    assert found["design=proactive against mail2003_bare superpages"].verdict == "holds"
    paid = found["what choosing cost: good"]
    assert "one family" in paid.evidence
    assert paid.effect > 1
    assert isinstance(report.charts["pareto_mail2003_bare"].to_dict(), dict)
    assert report.tables["policies"]["policy"].tolist() == sorted(POLICIES)


def test_c6_does_not_judge_superpages_where_compaction_could_win_nothing():
    cpu = dict.fromkeys(POLICIES, 0.5)
    found, report = c6(dict.fromkeys(POLICIES, 0.3), cpu, kept=dict.fromkeys(POLICIES, 19.5))
    assert {found[f"{p} superpages"].verdict for p in POLICIES[1:]} == {"observed"}
    assert "nothing to win, not judged" in found["good superpages"].evidence
    assert "The winner by the rule is none of them" in report.summary


def test_c6_has_no_winner_where_no_policy_helps():
    same = dict.fromkeys(POLICIES, 0.3)
    cpu, kept = dict.fromkeys(POLICIES, 0.5), dict.fromkeys(POLICIES, 8.0)
    found, report = c6(same, cpu, elsewhere=-0.1, kept=kept)
    assert {found[p].verdict for p in POLICIES[1:]} <= {"inconclusive", "equivalent"}
    assert "The winner by the rule is none of them" in report.summary
    assert found["design=proactive against mail2003_bare"].verdict == "fails"
