"""C1, C2 and C3: what their analyses say of results that are made up."""

import made_up
import pytest

from kmemexp.claims import finding

DESIGNS = ("freebsd4", "freebsd4_unified", "dragonfly_2003aug25", "dragonfly_2003oct")
DEADLOCK = [
    {"design": design, "machine.cpus": 1, "interrupts.rate_hz": 1000, "interrupts.clock_allocates": allocates}
    for allocates in (False, True)
    for design in DESIGNS
]
LATENCY = [
    {"design": design, "machine.cpus": cpus, "interrupts.rate_hz": 1000}
    for cpus in (1, 2)
    for design in ("freebsd4", "dragonfly_2003aug25", "dragonfly_2003oct")
]


def c1(deadlocks, history=None):
    """The report where `deadlocks(design, replica)` closed a circle."""
    found = made_up.results(
        DEADLOCK, 20, lambda axes, r: {"deadlocks_count": deadlocks(axes["design"], r), "deadlock": "a waits for b"}
    )
    return finding.load("c1_deadlock").analyse({"deadlock": found, "history": history or made_up.scenarios()})


def test_c1_holds_where_only_the_design_without_kmem_map_deadlocks():
    history = made_up.scenarios(interrupted_holder={"deadlocks_count": 1}, pageout_circle={"deadlocks_count": 1})
    report = c1(lambda design, r: design == "freebsd4_unified" and r < 6, history)
    assert made_up.words(report) == ["holds", "holds", "observed"]
    assert "6 of 20 replicas (15% to 52%)" in report.verdicts[0].evidence
    assert report.verdicts[0].effect == pytest.approx(0.3)
    assert "a waits for b" in report.summary
    assert set(report.tables) == set(report.charts) == {"deadlocks"}


@pytest.mark.parametrize(
    ("split", "unified", "word"),
    [
        (0, 0, "inconclusive"),
        (3, 3, "inconclusive"),
        (20, 0, "fails"),
        (1, 20, "holds in part"),
        (0, 5, "inconclusive"),
    ],
)
def test_c1_counts_what_kmem_map_does_not_prevent(split, unified, word):
    many = {"freebsd4": split, "freebsd4_unified": unified}
    assert made_up.words(c1(lambda design, r: r < many.get(design, 0)), "recorded load") == [word]


def test_c1_fails_in_the_scenario_if_kmem_map_does_not_help():
    history = made_up.scenarios(interrupted_holder_kmem_map={"deadlocks_count": 1})
    assert made_up.words(c1(lambda design, r: 0, history), "scenario interrupted") == ["fails"]


def c2(values, history=None, replicas=8):
    found = made_up.results(LATENCY, replicas, values)
    many = made_up.results(DEADLOCK, replicas, values)
    history = history or made_up.scenarios()
    return finding.load("c2_latency").analyse({"latency": found, "deadlock": many, "history": history})


def slower(axes, replica):
    """Threads cost device interrupts 5 µs and nothing else."""
    done = 10_000 + 5_000 * (axes["design"] != "freebsd4") + 100 * made_up.noise(axes, replica)
    return {"irq_device_done_p99_ns": done, "irq_device_start_p99_ns": 500, "alloc_main_p99_ns": 1000}


def test_c2_holds_where_only_interrupts_are_slower():
    report = c2(slower, replicas=160)
    assert made_up.words(report)[:3] == ["holds"] * 3
    assert made_up.words(report, "price") == ["observed"] * 2
    assert made_up.words(report, "the only price") == ["holds"] * 3
    price = next(v for v in report.verdicts if v.where.startswith("price"))
    assert "+4.98" in price.evidence
    assert price.low < price.effect < price.high
    assert price.effect == pytest.approx(1.5, abs=0.01)
    assert "longer under 2 of 2 conditions" in report.summary


def test_c2_a_deadlock_among_threads_and_slower_allocations_contradict_it():
    def values(axes, replica):
        threads = axes["design"] == "dragonfly_2003aug25"
        alloc = 1000 + 800 * threads + 10 * made_up.noise(axes, replica)
        return slower(axes, replica) | {"deadlocks_count": threads and replica == 0, "alloc_main_p99_ns": alloc}

    report = c2(values, made_up.scenarios(sleeping_holder_fixed={"panics_count": 1}))
    assert made_up.words(report)[:3] == ["fails", "holds", "fails"]
    assert "in 3 of 24 runs on 8 seeds" in report.verdicts[0].evidence
    assert made_up.words(report, "the only price") == ["inconclusive", "fails", "fails"]


def test_c2_fails_where_interrupts_are_lost_with_threads_only():
    report = c2(lambda axes, r: slower(axes, r) | {"lost_interrupts_count": axes["design"] == "dragonfly_2003aug25"})
    assert made_up.words(report, "the only price") == ["fails", "holds", "holds"]
    assert "in 24 of 24 pairs of replicas with it only" in report.verdicts[-3].evidence


def c3(values, history=None, replicas=20):
    found = made_up.results(DEADLOCK, replicas, values)
    history = history or made_up.scenarios(oversize_fast={"blockable_locks_count": 10})
    return finding.load("c3_fast").analyse({"deadlock": found, "history": history})


def test_c3_holds_while_only_a_clock_that_allocates_is_unsafe():
    report = c3(lambda axes, r: {"blockable_locks_count": 3 * axes["interrupts.clock_allocates"] * (r < 10)})
    assert made_up.words(report) == ["inconclusive"] + ["observed"] * 5
    assert "0 of 60 runs on 20 seeds (0.0% to 16.1%" in report.verdicts[0].evidence
    assert report.verdicts[1].effect == pytest.approx(0.5)
    assert "under 3 of 3 conditions" in report.summary
    assert "10; mended: 0" in report.verdicts[4].evidence


def test_c3_fails_if_a_clock_that_does_not_allocate_is_unsafe():
    report = c3(lambda axes, r: {"would_sleep_count": axes["design"] == "dragonfly_2003oct" and r == 0})
    assert made_up.words(report)[0] == "fails"
    assert "not always safe" in report.summary


def test_the_design_that_deadlocks_anyway_is_not_held_against_c3():
    report = c3(lambda axes, r: {"deadlocks_count": axes["design"] == "freebsd4_unified"}, replicas=80)
    assert made_up.words(report)[0] == "holds"
