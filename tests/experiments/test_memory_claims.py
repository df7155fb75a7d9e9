"""C4 and C7: what their analyses say of results that are made up."""

import made_up
import pytest
from made_up import MIB

from kmemexp.claims import finding

MEMORY = ("freebsd4", "dragonfly_2003aug25", "mail2003_bare")
UMA = ("freebsd5_uma", "freebsd5_uma_unified")


def fragmentation(values, designs=MEMORY):
    cells = [
        {"design": d, "workload": "filetree", "machine.kva_bytes": kva * MIB} for kva in (152, 192) for d in designs
    ]
    return made_up.results(cells, 12, values)


def c4(values, designs=MEMORY):
    return finding.load("c4_headroom").analyse({"fragmentation": fragmentation(values, designs)})


def room(axes, replica, split=20.0, unified=30.0):
    mib = split if axes["design"] in ("freebsd4", "freebsd5_uma") else unified
    return (mib + 0.1 * made_up.noise(axes, replica)) * MIB


def test_c4_holds_where_failures_become_fewer():
    def values(axes, replica):
        failures = 50 + round(made_up.noise(axes, replica)) if axes["design"] == "freebsd4" else 0
        return {"malloc_headroom_min_bytes": room(axes, replica), "alloc_failures_count": failures}

    report = c4(values)
    assert made_up.words(report) == ["holds", "holds"]
    first = report.verdicts[0]
    assert "KVA 152 MiB" in first.where
    assert "any in 12 of 12 replicas with kmem_map, 0 of 12 without" in first.evidence
    assert (first.effect, first.unit) == (-1, "share of replicas with any")
    assert first.low < -0.7 < first.high < 0


def test_c4_holds_in_part_where_there_is_more_room_and_nothing_failed():
    report = c4(lambda axes, r: {"malloc_headroom_min_bytes": room(axes, r)})
    assert made_up.words(report) == ["holds in part"] * 2
    first = report.verdicts[0]
    assert first.low < 10 < first.high
    assert (first.effect, first.unit) == (pytest.approx(10, abs=0.5), "MiB")


def test_c4_fails_where_there_is_less_room():
    report = c4(lambda axes, r: {"malloc_headroom_min_bytes": room(axes, r, unified=10)})
    assert made_up.words(report) == ["fails", "fails"]
    assert "worse in 2" in report.summary


def test_c4_does_not_count_room_where_something_failed():
    """What is refused takes no room, so the split design's headroom is no merit of it."""

    def values(axes, replica):
        failed = axes["design"] == "freebsd4" or replica == 0
        number = (9000 if axes["design"] == "freebsd4" else 30_000) if replica == 0 else 5000 * failed
        return {"malloc_headroom_min_bytes": room(axes, replica, unified=10), "alloc_failures_count": number}

    report = c4(values)
    assert made_up.words(report) == ["holds"] * 2
    assert "any in 12 of 12 replicas with kmem_map, 1 of 12 without" in report.verdicts[0].evidence


def test_c4_does_not_judge_what_comes_after_a_panic():
    def values(axes, replica):
        split = axes["design"] == "freebsd4"
        lives = not split and axes["machine.kva_bytes"] == 192 * MIB and replica == 3
        return {"alloc_failures_count": 900 if split else 100, "panics_count": 0 if lives else 5}

    report = c4(values)
    assert [v.verdict for v in sorted(report.verdicts, key=lambda v: v.where)] == ["observed", "holds"]
    assert "in 1 every replica panics" in report.summary


def test_c4_is_equivalent_where_nothing_differs():
    assert made_up.words(c4(lambda axes, r: {"malloc_headroom_min_bytes": 7 * MIB})) == ["equivalent"] * 2


def test_c4_judges_the_pairs_that_the_sweep_has():
    values = {"malloc_headroom_min_bytes": 7 * MIB}
    assert len(c4(lambda axes, r: values, (*MEMORY, *UMA)).verdicts) == 4
    assert len(c4(lambda axes, r: values, UMA).verdicts) == 2
    with pytest.raises(LookupError, match="none of the pairs"):
        c4(lambda axes, r: values, ("freebsd4", "freebsd5_uma_unified"))


def c7(memory, speed):
    cells = [
        {"design": d, "workload": "kernel_loop", "machine.cpus": cpus, "interrupts.big_lock": lock}
        for cpus in (1, 4)
        for lock in (True, False)
        for d in MEMORY[1:]
    ]
    found = {"fragmentation": fragmentation(memory), "scaling": made_up.results(cells, 4, speed)}
    return finding.load("c7_slab").analyse(found)


def held(axes, replica):
    slab = axes["design"] == "mail2003_bare"
    return {"held_peak_bytes": (20 - 5 * slab + 0.1 * made_up.noise(axes, replica)) * MIB}


def faster(axes, replica):
    slab = axes["design"] == "mail2003_bare"
    gain = 1.5 if slab and not axes["interrupts.big_lock"] else 1.0
    return {
        "throughput_hz": 1e6 * gain * (1 + 0.001 * made_up.noise(axes, replica)),
        "held_peak_bytes": MIB * (1 + slab + 0.01 * made_up.noise(axes, replica)),
    }


def test_c7_is_judged_measure_by_measure():
    report = c7(held, faster)
    assert made_up.words(report, "served entirely") == ["inconclusive"]  # 12 seeds exclude no less than 24 %
    assert made_up.words(report, "memory held: filetree") == ["holds"] * 2
    assert made_up.words(report, "memory held: kernel_loop") == ["fails"] * 4
    loops = {v.where: v.verdict for v in report.verdicts if v.where.startswith("throughput")}
    assert {word for where, word in loops.items() if "no big lock" in where} == {"holds"}
    assert "memory held: holds under 2, fails under 4 of 6 conditions" in report.summary
    assert set(report.charts) == {"throughput", "memory"}


def test_c7_fails_where_only_slabs_run_out_of_memory():
    def values(axes, replica):
        return held(axes, replica) | {"alloc_failures_count": 9 * (axes["design"] == "mail2003_bare")}

    report = c7(values, faster)
    assert made_up.words(report, "served entirely") == ["fails"]
    assert made_up.words(report, "memory held: filetree") == ["fails"] * 2


def test_c7_holds_in_part_where_slabs_fail_only_with_buckets():
    report = c7(lambda axes, r: held(axes, r) | {"alloc_failures_count": r == 0}, faster)
    assert made_up.words(report, "served entirely") == ["inconclusive"]
    assert "an allocation failed in 0 of 40 pairs of replicas with it only" in report.verdicts[0].evidence
    assert "in 2 with both" in report.verdicts[0].evidence
