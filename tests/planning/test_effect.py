"""Settings that change nothing are refused; a baseline that has gone from the plan is told."""

import re

import pytest

from kmemexp.errors import ConfigError
from kmemexp.planning.plan import plan_from
from kmemexp.planning.predicates import Predicate

SLAB = "objects.params.dfly_slab.release_threshold"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+sweap=smoke"], r"\+sweap=smoke: unknown key sweap \(did you mean \+sweep\?\)"),
        (["+mykey=1"], r"\+mykey=1: unknown key mykey; there are design"),
        (["+mykey=1,2"], "mykey: unknown key"),
        (["cost.lock_ns=5"], "cost.lock_ns: has no effect without a clock"),
        (["interrupts.rate_hz=100,200"], "interrupts.rate_hz: has no effect without a clock"),
        (["memory.limited=true"], "memory.limited: has no effect without a clock"),
        (["+sweep=latency", "cost=none"], "interrupts.rate_hz: has no effect without a clock"),
        ([f"{SLAB}=2"], f"{SLAB}: dfly_slab serves nothing in this sweep; its designs have buckets"),
        (["maps.params.buddy.nodes=2"], "maps.params.buddy.nodes: buddy serves nothing"),
        (["cost=zero", "memory.user_ratio=0.8,0.9", "seed=1,2"], "memory.user_ratio: has no effect here"),
        (["+sweep=smoke", "sweep.baseline={design: linux_slub}"], "no cell of the plan has design=linux_slub; it has"),
        (["seed=1,2", "sweep.baseline={seed: 3}"], "no cell of the plan has seed=3; it has seed: 1, 2"),
        (["+sweep=smoke", "sweep.exclude=['design == 1']"], "design is never 1 in this sweep; it is freebsd4"),
        (["machine.cpus=1,2", "sweep.exclude=['machine.cpus in (2, 4)']"], "machine.cpus is never 4"),
        (["sweep.exclude=[\"cost != 'opteron'\"]"], "cost is never 'opteron' in this sweep; it is"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_changes_nothing_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        plan_from(overrides)


@pytest.mark.parametrize(
    ("overrides", "cells"),
    [
        (["design=freebsd4,dragonfly_2003oct", f"{SLAB}=2,8"], 3),  # the other design has no such axis
        (["design=freebsd4,dragonfly_2003oct", f"{SLAB}=2"], 2),
        (["machine.cpus=1,1"], 1),
        (["machine.ram_bytes=64MiB,65536KiB"], 1),
        (["cost=none,zero", "interrupts.rate_hz=100"], 2),
        (["machine.kva_bytes=256MiB,512MiB", "sweep.exclude=[\"machine.kva_bytes == '512MiB'\"]"], 1),
        (["seed=1,2", "sweep.exclude=['machine.cpus == 8']"], 2),  # cpus is no axis: what it is, nobody has listed
    ],
)
def test_what_changes_something_is_planned(overrides, cells):
    (plan,) = plan_from(overrides)
    assert len(plan.columns["cell_key"]) == cells
    assert list(plan.notes) == []


UNION = [
    "+sweep.union=[{axes: {cost: [none]}}, {axes: {cost: [zero], interrupts.rate_hz: [100, 200]}}]",
    "+sweep.union=[{axes: {design: [freebsd4]}}, {axes: {design: [dragonfly_2003oct]}}]",
]


@pytest.mark.parametrize(
    ("overrides", "cells"),
    [([UNION[0]], 3), ([UNION[1], f"{SLAB}=2"], 2), ([UNION[1], f"{SLAB}=2,8"], 3)],
)
def test_what_one_grid_of_a_union_reads_has_an_effect(overrides, cells):
    (plan,) = plan_from([text.removeprefix("+") for text in overrides])
    assert len(plan.columns["cell_key"]) == cells


def test_what_no_grid_of_a_union_reads_is_refused():
    with pytest.raises(ConfigError, match="dfly_slab serves nothing"):
        plan_from(["sweep.union=[{axes: {seed: [1]}}, {axes: {seed: [2]}}]", f"{SLAB}=2"])


def test_a_baseline_that_the_command_line_has_taken_out_is_replaced_and_told():
    (plan,) = plan_from(["+sweep=smoke", "design=dragonfly_2003oct,linux_slub"])
    assert plan.baseline == {"design": "dragonfly_2003oct"}
    (note,) = plan.notes
    assert re.search("design=freebsd4 is not in this plan: design=dragonfly_2003oct takes its place", note)
    (alone,) = plan_from(["+sweep=smoke", "design=dragonfly_2003oct"])
    assert alone.baseline == {}
    assert "no other one takes its place" in alone.notes[0]


def test_values_that_a_predicate_asks_for():
    predicate = Predicate("1 == a.b and c in ('x', 'y') and d > 3 and 'z' != e and not (f == g) and h == null", "here")
    assert list(predicate.equated()) == [("a.b", 1), ("c", "x"), ("c", "y"), ("e", "z")]
