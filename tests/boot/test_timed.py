"""A timed machine after boot: its settings, its queues of operations, room that grows, kinds that interrupts add."""

import numpy as np
import pytest
from small_cell import MIB, cell

from kmemexp.boot import timed
from kmemexp.boot.tasks import sources_of
from kmemexp.errors import ConfigError
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock
from kmemexp.sim.maps import KMEM, MAP_NAMES
from kmemexp.sim.tables import flag, obj
from kmemexp.workload.stream import OP_ALLOC, OP_WORK, Handlers, Kinds, Stream

NET = {"mode": "device", "class": "net", "law": "poisson", "rate_hz": 1000.0, "scales": True,
       "program": [{"work": 100}]}  # fmt: skip
MBUF = {"kind": "packet", "class": "mbuf", "bytes": 256, "flags": "nowait"}
KINDS = Kinds(("a", "b"), np.zeros(2, np.int8), np.full(2, 64, np.int32), np.ones(2, np.int32), np.zeros(2, np.int32))
INTERRUPTS = {
    "model": "spl", "nested": True, "big_lock": True, "would_sleep": "panic", "on_deadlock": "continue",
    "big_wait": "spin", "dispatch": "borrow", "slice_ns": 0,
    "rate_hz": None, "clock_allocates": False, "depth": 9, "queue": 5, "sources": {"net": NET},
}  # fmt: skip
LIMITED = {
    "limited": True, "user_ratio": 0.5, "cache_ratio": 0.25, "fault_hz": 0.0, "cluster": 4, "scan_ns": 10, "io_ns": 20,
    "sleep_locked": True,
}  # fmt: skip


def config(**nodes: dict) -> dict:
    plain = cell("split", "buckets", "kmapentzone") | {"cost": {"name": "zero"}, "interrupts": INTERRUPTS}
    return {name: {**node, **nodes.get(name, {})} if isinstance(node, dict) else node for name, node in plain.items()}


def stream(flags: list[int], cpus: list[int]) -> Stream:
    n = len(flags)
    none = np.zeros(n, np.int32)
    return Stream(
        np.arange(n) * 1000, np.full(n, OP_ALLOC, np.uint8), none.astype(np.int16), np.arange(n, dtype=np.int32),
        none + 64, np.array(cpus, np.int16), np.array(flags, np.uint8), n,
    )  # fmt: skip


MAINLINE = stream([0, 0, 0, 0], [0, 2, 0, 1])
MIXED = stream([0, flag.SOFT, flag.HARD, 0, flag.SOFT], [0, 1, 0, 2, 1])


def test_settings_of_a_cell_arrive_in_the_machine() -> None:
    m = timed.boot(config(memory=LIMITED), KINDS, MAINLINE, 2).wired.m
    assert (m[glob.MODEL], m[glob.WOULD_SLEEP], m[glob.ON_DEADLOCK]) == (mc.SPL, mc.WOULD_PANIC, mc.CONTINUE)
    assert (m[glob.DEPTH], m[glob.QUEUE], m[glob.BIG_LOCK], m[glob.SLEEP_LOCKED]) == (9, 5, 1, 1)
    pages = 128 * MIB // 4096
    assert (m[glob.USER], m[glob.CACHE], m[glob.FREE], m[glob.CLUSTER]) == (pages // 2, pages // 4, pages // 4, 4)
    assert m[glob.LEFT] == 4
    assert m[glob.SEED] == 7 * 1_000_003 + 2, "each replica draws numbers of its own"


def test_kmem_map_is_entered_at_splvm_where_there_is_one() -> None:
    t = timed.boot(config(), KINDS, MAINLINE, 0)
    assert t.wired.names.lock_classes[: len(MAP_NAMES) + 1] == ("big", *MAP_NAMES)
    locks, first = t.wired.table("locks"), 1
    assert locks[first + KMEM, lock.MASK] != 0
    assert locks[first, lock.MASK] == 0


def test_each_cpu_has_its_operations_in_the_order_of_the_stream() -> None:
    t = timed.boot(config(), KINDS, MAINLINE, 0)
    cpus = t.wired.table("cpus")
    mine = [t.stream.order[begin:end].tolist() for begin, end in cpus[:, [cpu.OP, cpu.END]].tolist()]
    assert mine == [[0, 2], [3], [1]]
    assert "recorded_soft" not in t.wired.names.sources


def test_what_a_stream_has_in_interrupts_goes_to_contexts_of_its_own() -> None:
    t = timed.boot(config(), KINDS, MIXED, 0)
    cpus, contexts, names = t.wired.table("cpus"), t.wired.table("contexts"), t.wired.names.contexts
    order = t.stream.order
    assert [order[b:e].tolist() for b, e in cpus[:, [cpu.OP, cpu.END]].tolist()] == [[0], [], [3]]
    for name, wanted in (("recorded_soft", [[], [1, 4], []]), ("recorded_device", [[2], [], []])):
        first = names.index(name)
        rows = contexts[first : first + 3]
        assert [order[b:e].tolist() for b, e in rows[:, [ctx.PC, ctx.BURST]].tolist()] == wanted


def test_recorded_interrupts_are_operations_that_use_the_cpu() -> None:
    handlers = Handlers(np.array([500, 2500]), np.array([1, 0], np.int16), np.array([flag.HARD, flag.SOFT], np.uint8),
                        np.array([30, 40], np.int32))  # fmt: skip
    both = timed.with_handlers(MAINLINE, handlers)
    assert both.op.tolist() == [OP_ALLOC] * 4 + [OP_WORK] * 2
    assert both.size.tolist()[4:] == [30, 40]
    assert both.slots == MAINLINE.slots
    assert [a.dtype for a in both[:-1]] == [a.dtype for a in MAINLINE[:-1]]
    assert timed.with_handlers(MAINLINE, None) is MAINLINE


def test_kinds_that_programs_allocate_join_those_of_the_workload() -> None:
    program = [{"alloc": MBUF}, {"alloc": {**MBUF, "kind": "a"}}, {"alloc": {**MBUF, "kind": "entry", "class": "zone"}}]
    kinds = timed.with_interrupt_kinds(KINDS, {"net": {**NET, "program": program}})
    assert kinds.names == ("a", "b", "entry", "packet"), "by name; `a` stays the workload's"
    assert kinds.klass.tolist() == [0, 0, 1, 2]
    assert kinds.size.tolist() == [64, 64, 256, 256]
    assert timed.with_interrupt_kinds(KINDS, {"net": NET}) is KINDS


def test_rates_follow_the_fastest_source_that_scales() -> None:
    slow = {**NET, "rate_hz": 10.0}
    fixed = {**slow, "scales": False}
    interrupts = {"rate_hz": 2000.0, "sources": {"net": NET, "slow": slow, "fixed": fixed, "gone": None}}
    sources = sources_of(config(interrupts=interrupts))
    assert {name: source["rate_hz"] for name, source in sources.items()} == {"net": 2000, "slow": 20, "fixed": 10}


def test_a_clock_that_allocates_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"interrupts\.clock_allocates=true: there is no source called clock"):
        sources_of(config(interrupts={"clock_allocates": True}))


def test_rows_of_objects_grow_only_when_there_is_none_left() -> None:
    t = timed.boot(config(), KINDS, MAINLINE, 0)
    assert timed.enlarge(t) is t
    t.wired.m[glob.ROW_FREE] = -1
    more = timed.enlarge(t)
    assert len(more.world.objects) == 2 * timed.ROWS
    free, row = 0, int(more.wired.m[glob.ROW_FREE])
    while row >= 0:
        free, row = free + 1, int(more.world.objects[row, obj.SIZE])
    assert free == timed.ROWS


def test_there_are_rows_for_the_slots_of_a_stream() -> None:
    t = timed.boot(config(), KINDS, MAINLINE._replace(slots=3000), 0)
    assert len(t.world.objects) == 3000


def test_room_for_messages_grows_when_that_is_what_there_is_none_of() -> None:
    t = timed.boot(config(), KINDS, MAINLINE, 0)
    rows = t.wired.shape["messages"][1]
    t.wired.m[glob.MSG_FREE] = -1
    more = timed.enlarge(t)
    assert more.wired.shape["messages"][1] == 2 * rows
    assert more.world is t.world
