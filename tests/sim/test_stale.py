"""What a reader of a freed object finds: every outcome by hand, then programs against a naive twin, then real parts."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_stale import PAGE, NaiveStale
from small_cell import LOAD, cell

import kmemexp
from kmemexp.boot.machine import boot
from kmemexp.lane import simulate_lanes
from kmemexp.metrics import INDEX
from kmemexp.sim import ops, stale
from kmemexp.sim import slots as s
from kmemexp.sim.tables import regs
from kmemexp.workload import build, stability, stream

KIND, OTHER_KIND, DIRECT = 3, 5, 7
PAGES = 16
ADDR = 2 * PAGE + 512


class Table:
    """One table of watches, driven by hand."""

    def __init__(self, watches: int = 8, direct_map: int = DIRECT) -> None:
        self.w = stale.table(kind=KIND, watches=watches, references=10, kva_bytes=PAGES * PAGE, direct_map=direct_map)

    def step(self, answer: int, addr: int, nbytes: int, m: int = 0) -> None:
        reg = np.zeros((1, regs.COLUMNS), np.int64)
        reg[0, regs.MAP], reg[0, regs.BASE], reg[0, regs.BYTES] = m, addr, nbytes
        stale.note_map_step(reg, 0, self.w, answer)

    def read(self, number: int = 0, *, checks: bool = False, last: bool = True) -> str:
        """Read once; returns what was counted."""
        before = self.w[: stale.HEADER].copy()
        stale.read_freed(self.w, number, checks * ops.CHECKS | last * ops.LAST)
        (changed,) = np.flatnonzero(self.w[: stale.HEADER] != before)
        return {stale.SAME_OBJECT: "same object", stale.SAME_TYPE: "same type", stale.WRONG_OBJECT: "wrong object",
                stale.OTHER_TYPE: "other type", stale.UNMAPPED: "unmapped"}[changed]  # fmt: skip

    @property
    def counts(self) -> dict[str, int]:
        names = ("same_object", "same_type", "wrong_object", "other_type", "unmapped")
        return dict(zip(names, self.w[stale.SAME_OBJECT : stale.UNMAPPED + 1].tolist(), strict=True))


@pytest.fixture
def table() -> Table:
    made = Table()
    stale.begin_watch(made.w, 0, ADDR)
    return made


def test_memory_that_nobody_has_used_since_still_holds_the_object(table: Table) -> None:
    stale.note_object(table.w, ADDR + 64, 64, OTHER_KIND)
    stale.note_object(table.w, ADDR - 64, 64, OTHER_KIND)
    assert table.read() == "same object"


@pytest.mark.parametrize(("checks", "found"), [(True, "same type"), (False, "wrong object")])
def test_another_object_of_the_kind_is_benign_only_if_the_reader_checks(table: Table, checks: bool, found: str) -> None:
    stale.note_object(table.w, ADDR, 64, KIND)
    assert table.read(checks=checks) == found


def test_another_kind_violates_whatever_the_reader_checks(table: Table) -> None:
    stale.note_object(table.w, ADDR - 32, 64, OTHER_KIND)
    assert table.read(checks=True) == "other type"


def test_the_middle_of_an_object_of_the_kind_is_something_else(table: Table) -> None:
    stale.note_object(table.w, ADDR - 32, 64, KIND)
    assert table.read(checks=True) == "other type"


def test_the_latest_occupant_counts(table: Table) -> None:
    stale.note_object(table.w, ADDR, 64, OTHER_KIND)
    stale.note_object(table.w, ADDR, 64, KIND)
    assert table.read(last=False) == "wrong object"
    stale.note_object(table.w, ADDR, 64, OTHER_KIND)
    assert table.read() == "other type"


def test_a_page_given_back_is_unmapped_then_recycled_then_whatever_comes_there(table: Table) -> None:
    table.step(s.MAP_FREE, 2 * PAGE, PAGE)
    assert table.read(last=False) == "unmapped"
    table.step(s.MAP_ALLOC, PAGE, 4 * PAGE)
    assert table.read(last=False) == "other type"
    stale.note_object(table.w, ADDR, 64, KIND)
    assert table.read() == "wrong object"


def test_pages_beside_the_objects_do_not_matter(table: Table) -> None:
    table.step(s.MAP_FREE, PAGE, PAGE)
    table.step(s.MAP_FREE, 3 * PAGE, PAGE)
    assert table.read() == "same object"


def test_wiring_pages_changes_nothing(table: Table) -> None:
    table.step(s.MAP_FREE, 2 * PAGE, PAGE)
    table.step(s.WIRE, 2 * PAGE, PAGE)
    assert table.read() == "unmapped"


def test_a_direct_map_keeps_what_is_free_mapped_until_it_is_given_out_again(table: Table) -> None:
    table.step(s.MAP_FREE, 2 * PAGE, PAGE, m=DIRECT)
    assert table.read(last=False) == "same object"
    table.step(s.MAP_ALLOC, 2 * PAGE, PAGE, m=DIRECT)
    assert table.read() == "other type"


def test_an_object_that_was_never_there_is_not_read() -> None:
    made = Table()
    stale.begin_watch(made.w, 0, -1)
    stale.read_freed(made.w, 0, ops.LAST)
    assert sum(made.counts.values()) == 0


def test_the_census_counts_references_of_both_sorts_and_violations_among_them(table: Table) -> None:
    stale.begin_watch(table.w, 1, 5 * PAGE)
    stale.note_object(table.w, ADDR, 64, OTHER_KIND)
    assert table.read(0, last=False) == table.read(0) == "other type"
    assert table.read(1) == "same object"
    found = stale.census(table.w)
    assert found["references_count"] == 10 + 3
    assert found["stale_reads_count"] == 3
    assert found["violations_per_million"] == pytest.approx(2 / 13 * 1e6)


ADDRESSES = st.integers(0, PAGES * 16 - 1).map(lambda unit: unit * 256)
PROGRAMS = st.lists(
    st.one_of(
        st.tuples(st.just("watch"), st.integers(0, 7), st.one_of(ADDRESSES, st.just(-1))),
        st.tuples(
            st.just("put"), ADDRESSES, st.sampled_from([64, 256, 768, 9000]), st.sampled_from([KIND, OTHER_KIND])
        ),
        st.tuples(st.just("map"), st.integers(0, PAGES - 3), st.integers(1, 3)),
        st.tuples(st.just("unmap"), st.sampled_from([0, DIRECT]), st.integers(0, PAGES - 3), st.integers(1, 3)),
        st.tuples(st.just("read"), st.integers(0, 7), st.booleans(), st.booleans()),
    ),
    max_size=60,
)


@given(program=PROGRAMS)
@settings(max_examples=300)
def test_programs_count_what_the_naive_twin_counts(program: list[tuple[Any, ...]]) -> None:
    table, naive = Table(), NaiveStale(KIND, DIRECT)
    begun: set[int] = set()
    for what, *args in program:
        if what == "watch":
            if args[0] in begun:  # a watch begins once
                continue
            begun.add(args[0])
            stale.begin_watch(table.w, *args)
            naive.watch(*args)
        elif what == "put":
            nbytes = min(args[1], PAGES * PAGE - args[0])
            stale.note_object(table.w, args[0], nbytes, args[2])
            naive.put(args[0], nbytes, args[2])
        elif what == "map":
            table.step(s.MAP_ALLOC, args[0] * PAGE, args[1] * PAGE)
            naive.map(args[0] * PAGE, args[1] * PAGE)
        elif what == "unmap":
            table.step(s.MAP_FREE, args[1] * PAGE, args[2] * PAGE, m=args[0])
            naive.unmap(args[0], args[1] * PAGE, args[2] * PAGE)
        elif args[0] in begun:
            stale.read_freed(table.w, args[0], args[1] * ops.CHECKS | args[2] * ops.LAST)
            naive.read(*args)
    assert table.counts == naive.counts


# Whole lanes.


def watched_cell(kind: str, protection: str, *, objects: str = "slab", **reader: Any) -> dict:
    """A small cell in which `kind` is looked at, by one reader that is so often wrong that all outcomes occur."""
    config = cell("unified", objects, "reservation" if objects == "slab" else "kmapentzone", kva_mib=192)
    one = {"name": "r", "rate_hz": 2.0, "hold_s": 1.0, "sleeps": True, "checks": False} | reader
    node = {"kind": kind, "protection": protection, "hold_ratio": 1.0, "oversample": 1, "readers": {kind: [one]}}
    if protection == "grace":
        node["grace_s"] = 0.02
    return config | {"stability": node, "policy": {}}


def outcome(config: dict) -> dict[str, float]:
    values = simulate_lanes(config, [0])[0].metrics
    names = ("references_count", "stale_reads_count", "stale_same_object_count", "stale_same_type_count",
             "stale_wrong_object_count", "stale_other_type_count", "stale_unmapped_count", "violations_per_million",
             "operations_count", "requested_total_bytes")  # fmt: skip
    return {name: values[INDEX[name]] for name in names}


def test_outcomes_add_up_and_protections_are_asked_the_same_references() -> None:
    found = {p: outcome(watched_cell("vnode", p)) for p in stability.PROTECTIONS}
    assert len({f["references_count"] for f in found.values()}) == 1
    assert found["none"]["stale_reads_count"] > 100
    assert found["none"]["stale_other_type_count"] > 0
    for f in found.values():
        parts = sum(f[f"stale_{n}_count"] for n in ("same_object", "same_type", "other_type", "unmapped"))
        assert parts == f["stale_reads_count"]
        assert f["requested_total_bytes"] == found["none"]["requested_total_bytes"]


@pytest.mark.parametrize("protection", ["zone", "percpu"])
@pytest.mark.parametrize("kind", ["vnode", "socket"])
def test_a_protected_kind_never_shows_another_type_nor_a_missing_page(protection: str, kind: str) -> None:
    for hold_s in (0.05, 1.0, 5.0):
        found = outcome(watched_cell(kind, protection, hold_s=hold_s))
        assert found["stale_reads_count"] > 0
        assert found["stale_other_type_count"] == found["stale_unmapped_count"] == 0


def test_readers_that_check_turn_a_type_stable_kind_safe() -> None:
    found = outcome(watched_cell("vnode", "zone", checks=True))
    assert found["stale_same_type_count"] > 0
    assert found["violations_per_million"] == 0


def test_nobody_reads_what_a_count_of_references_keeps() -> None:
    assert outcome(watched_cell("vnode", "refcount"))["stale_reads_count"] == 0


def test_a_grace_period_covers_whoever_does_not_sleep() -> None:
    assert outcome(watched_cell("vnode", "grace", sleeps=False))["stale_reads_count"] == 0
    assert outcome(watched_cell("vnode", "grace", sleeps=True))["stale_reads_count"] > 0


def test_memory_that_a_map_serves_itself_is_gone_with_its_free() -> None:
    found = outcome(watched_cell("uarea", "none", hold_s=0.001, rate_hz=500.0))
    assert found["stale_unmapped_count"] > 0
    assert found["stale_same_object_count"] == 0


def test_looking_does_not_change_what_is_looked_at() -> None:
    off = watched_cell("vnode", "none") | {"stability": {"kind": ""}}
    a, b = (simulate_lanes(c, [1])[0] for c in (off, watched_cell("vnode", "none")))
    memory = [INDEX[n] for n in ("held_mean_bytes", "map_holes_count", "operations_count", "map_operations_count")]
    np.testing.assert_array_equal(a.metrics[memory], b.metrics[memory])
    assert np.isnan(a.metrics[INDEX["references_count"]])


def test_a_stream_with_reads_plays_on_a_machine_that_watches_nothing() -> None:
    config = watched_cell("vnode", "none")
    load = stability.protect(build.build(LOAD, cpus=3, seed=7, replicas=[0]), config, [0], reads=True)
    assert (load.streams[0].op == stream.OP_READ).any()
    machine = boot(config, load.kinds, load.streams[0].slots)
    n = load.streams[0].length
    assert machine.replay(machine.world, *stream.columns(load.streams[0]), 0, n) == n


def test_with_a_clock_frees_are_delayed_and_nobody_reads() -> None:
    small = ("workload=server2003", "workload.scale=0.02", "machine=i386_512m", "design=freebsd4",
             "stability.kind=proc", "cost=opteron2003", "sample.points=2", "sample.snapshots=0")  # fmt: skip
    (plan,) = kmemexp.plan([*small, "stability=none,grace"])
    none, grace = (simulate_lanes(json.loads(text), [0])[0].metrics for text in plan.cells["config"])
    assert np.isnan(grace[INDEX["references_count"]])
    assert none[INDEX["unfinished_count"]] == grace[INDEX["unfinished_count"]] == 0
    assert grace[INDEX["operations_count"]] <= none[INDEX["operations_count"]]
    assert grace[INDEX["requested_total_bytes"]] == none[INDEX["requested_total_bytes"]]
