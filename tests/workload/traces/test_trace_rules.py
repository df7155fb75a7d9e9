"""Every rule of the traces' README on a few lines of text."""

import pytest
from tracetext import as_perf, as_trace_cmd, cache_alloc, cache_free, ftrace, kfree, kmalloc, ops, read

from kmemexp.workload.traces import lines as ln
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces import words

A, B = 0xFFFF888100000040, 0xFFFF888100000080


def test_a_free_belongs_to_the_allocation_of_its_address():
    rows, _ = read(kmalloc(A) + cache_alloc(B) + kfree(A) + cache_free(B))
    assert [sc.OPS[op] for op in rows.op] == ["alloc", "alloc", "free", "free"]
    assert rows.object_id.tolist() == [0, 1, 0, 1]
    assert rows.requested.tolist() == [100, 184, 100, 184]
    assert rows.allocated.tolist() == [128, 192, 128, 192]
    assert rows.page.tolist() == [A >> 12] * 4


def test_an_allocation_of_a_live_address_first_frees_the_old_object():
    rows, _ = read(kmalloc(A, 10) + kmalloc(A, 20, cpu=1) + kfree(A))
    assert [sc.OPS[op] for op in rows.op] == ["alloc", "lost_free", "alloc", "free"]
    assert rows.object_id.tolist() == [0, 0, 1, 1]
    assert rows.requested.tolist() == [10, 10, 20, 20]
    assert rows.event[1] == -1


def test_frees_that_match_nothing():
    assert ops(kfree(A) + cache_free(B) + kfree(0) + kfree(16)) == [
        "unmatched_free", "unmatched_free", "null_free", "unmatched_free",
    ]  # fmt: skip


def test_allocations_of_nothing():
    assert ops(kmalloc(0) + kmalloc(16, 0) + kmalloc(16, 0) + kfree(16)) == [
        "null_alloc", "zero_alloc", "zero_alloc", "unmatched_free",
    ]  # fmt: skip


def test_kva_addresses_are_decimal_in_one_event_and_hex_in_the_other():
    base = 0xFFFFC90000098000
    alloc = ftrace("alloc_vmap_area", f"va_start: {base} size=20480 align=16384 vstart=0x1 vend=0x2 failed=0")
    failed = ftrace("alloc_vmap_area", "va_start: 18446744073709551600 size=4096 align=1 vstart=0x1 vend=0x2 failed=1")
    free = ftrace("free_vmap_area_noflush", f"va_start={base:#x} nr_lazy=1 nr_lazy_max=2")
    rows, _ = read(alloc + failed + free + free + alloc + alloc)
    assert [sc.OPS[op] for op in rows.op] == [
        "kva_alloc", "kva_failed", "kva_free", "kva_unmatched_free", "kva_alloc", "kva_lost_free", "kva_alloc",
    ]  # fmt: skip
    assert rows.pages.tolist() == [5, -1, 5, -1, 5, 5, 5]


@pytest.mark.parametrize(
    ("gfp", "nowait"),
    [("GFP_ATOMIC", 1), ("GFP_NOWAIT|__GFP_ZERO", 1), ("GFP_KERNEL|__GFP_NOWARN", 0), ("__GFP_ZERO|GFP_ATOMIC", 1)],
)
def test_nowait_is_atomic_or_nowait(gfp, nowait):
    assert read(kmalloc(A, gfp=gfp))[0].nowait.tolist() == [nowait]


@pytest.mark.parametrize(
    ("flags", "context"), [(".....", 0), ("..s1.", 1), ("dNh..", 2), ("d.H2.", 2), ("d.z..", 3), ("d.Z..", 3)]
)
def test_the_third_flag_is_the_context(flags, context):
    assert read(kmalloc(A, flags=flags))[0].context.tolist() == [context]


@pytest.mark.parametrize("form", [as_trace_cmd, as_perf])
def test_without_flags_the_interrupts_of_the_cpu_tell_the_context(form):
    lines = [
        ftrace("softirq_entry", "vec=3 [action=NET_RX]"),
        kmalloc(A),
        ftrace("irq_handler_entry", "irq=36 name=disk"),
        kfree(A),
        kmalloc(B, cpu=1),
        ftrace("irq_handler_exit", "irq=36 ret=handled"),
        kmalloc(A),
        ftrace("softirq_exit", "vec=3 [action=NET_RX]"),
        kfree(A),
    ]
    rows, _ = read("".join(map(form, lines)))
    assert [sc.CONTEXTS[c] for c in rows.context] == [
        "softirq", "softirq", "hardirq", "hardirq", "task", "hardirq", "softirq", "softirq", "task",
    ]  # fmt: skip
    assert rows.vector.tolist() == [3, -1, 36, -1, -1, 36, -1, 3, -1]


@pytest.mark.parametrize("form", [as_trace_cmd, as_perf])
def test_all_forms_give_the_same_rows(form):
    lines = [kmalloc(A), cache_alloc(B, cpu=1, time="1.5"), kfree(0), kfree(A), cache_free(B)]
    one, other = read("".join(lines))[0], read("".join(map(form, lines)))[0]
    for a, b in zip(one, other, strict=True):
        assert a.tolist() == b.tolist()


def test_task_names_may_hold_anything():
    line = kmalloc(A).replace("task-12", "[foo] a:1 [x] [7]b-12")
    rows, _ = read(line)
    assert rows.cpu.tolist() == [0]


def test_times_of_any_resolution():
    rows, _ = read("".join(kmalloc(A, time=t) for t in ("1.5", "2.000001", "3.000000001", "123456.7")))
    assert rows.time_ns[rows.op == sc.ALLOC].tolist() == [1_500_000_000, 2_000_001_000, 3_000_000_001, 123456700000000]


def test_older_kernels_name_no_cache():
    line = cache_alloc(A).replace("name=filp ", "") + kmalloc(B).replace("kmalloc:", "kmalloc_node:")
    rows, scan = read(line)
    assert [words.listed(scan.names)[c] for c in rows.cache] == [sc.UNNAMED, sc.KMALLOC]


@pytest.mark.parametrize(
    ("marker", "lost"),
    [
        ("CPU:1 [LOST 123 EVENTS]\n", 123),
        ("CPU:0 [LOST EVENTS]\n", 0),
        ("CPU:1 [7 EVENTS DROPPED]\n", 7),
        (" perf 1 [001] 12.345: PERF_RECORD_LOST lost 9\n", 9),
    ],
)
def test_lost_events_are_counted(marker, lost):
    _, scan = read(kmalloc(A) + marker + kfree(A))
    assert scan.counts[ln.SEEN_GAPS] == 1
    assert scan.counts[ln.SEEN_LOST] == lost
    assert scan.gaps[0] == 2
    assert scan.counts[ln.SEEN_BAD] == 0


@pytest.mark.parametrize("cut", ["bytes_alloc=128", "gfp_flags=GFP_KERNEL", "00000040 bytes_req=100"])
def test_a_line_without_a_field_is_counted(cut):
    line = kmalloc(A)
    broken = line[: line.index(cut)] + "\n"
    rows, scan = read(line + broken + kfree(A) + kfree(A)[:-5] + "\n")
    assert len(rows.op) == 2
    assert scan.counts[ln.SEEN_BAD] == 2
    assert scan.bad[:2].tolist() == [2, 4]


def test_other_lines_are_told_apart():
    other = ftrace("sched_switch", "prev_comm=a")
    _, scan = read("# tracer: nop\n\ncpus=2\n" + other + kmalloc(A) + " => f\n" + "\0\1garbage [000\n")
    counts = scan.counts
    assert (counts[ln.SEEN_LINES], counts[ln.SEEN_ROWS]) == (7, 1)
    assert (counts[ln.SEEN_REMARK], counts[ln.SEEN_OTHER], counts[ln.SEEN_BAD]) == (4, 1, 1)
