"""One small load in every layout that programs print: the figures are the same, or it is said what they lack."""

import json
import re

import pytest

from kmemexp import trace
from kmemexp.errors import TraceError
from kmemexp.workload import stream as form
from kmemexp.workload.traces import importer, library
from kmemexp.workload.traces.stats import stats

HEAD = "# tracer: nop\n#\n"
LOAD = (
    (0, "kmalloc", "ptr=ffff88005ee19a00 bytes_req=100 bytes_alloc=128 gfp_flags=GFP_KERNEL"),
    (0, "kmem_cache_alloc", "ptr=ffff88005ee1b0c0 name=dentry bytes_req=192 bytes_alloc=192 gfp_flags=GFP_KERNEL"),
    (1, "kmalloc", "ptr=ffff88003dd83800 bytes_req=512 bytes_alloc=512 gfp_flags=GFP_ATOMIC"),
    (0, "kfree", "ptr=ffff88005ee19a00"),
    (1, "kmem_cache_free", "ptr=ffff88005ee1b0c0 name=dentry"),
    (0, "kfree", "ptr=0000000000000000"),
    (0, "kfree", "ptr=ffff880011112220"),
)
FIGURES = {
    "allocs": 3, "frees": 2, "unmatched_frees": 1, "null": 1, "null_allocs": 0, "zero_allocs": 0, "lost_frees": 0,
    "nowait": 1, "bytes_req": 804, "bytes_alloc": 832, "cpus": 2,
}  # fmt: skip


def text(layout, change=lambda fields: fields, head=HEAD):
    """The load in a layout: a format of task, cpu, seconds, event, fields."""
    lines = []
    for i, (cpu, event, fields) in enumerate(LOAD):
        said = change(f"call_site=f+0x{i:x}/0x20 {fields}")
        lines.append(layout.format(cpu=cpu, s=2935.5 + i / 1e5, i=i, event=event, fields=said))
    return head + "".join(lines)


def numbers(kernel, atomic, base="{:#x}"):
    """Replace the names of GFP flags by numbers."""
    return lambda f: f.replace("GFP_KERNEL", base.format(kernel)).replace("GFP_ATOMIC", base.format(atomic))


def decimal(fields):
    fields = re.sub(r"ptr=(\w+)", lambda m: f"ptr={int(m[1], 16)}", fields)
    return numbers(3264, 2080, "{}")(fields)


FTRACE = "     cat-382   [{cpu:03}] .....  {s:.6f}: {event}: {fields}\n"
TRACE_CMD = "      ls-13545 [{cpu:03}] {s:.6f}: {event}:              {fields}\n"
PERF = " my task 12 [{cpu:03}] {s:.6f}: kmem:{event}: {fields}\n"
LAYOUTS = {
    "ftrace": text(FTRACE),
    "ftrace, latency format": text("     cat-382     {cpu}d..1.   {i}0us!: {event}: {fields}\n"),
    "ftrace, no flags": text("     cat-382   [{cpu:03}]  {s:.6f}: {event}: {fields}\n"),
    "ftrace, CRLF and BOM": "\ufeff" + text(FTRACE).replace("\n", "\r\n"),
    "clock of ten digits": text(FTRACE.replace("{s:.6f}", "170000{s:.6f}")),
    "trace-cmd": text(TRACE_CMD, head="cpus=2\nCPU 3 is empty\n"),
    "trace-cmd -l": text("      ls-13545       {cpu}..s.. {s:.6f}: {event}:    {fields}\n", head="cpus=2\n"),
    "trace-cmd --ts-diff": text(TRACE_CMD.replace("{event}", "(+10) {event}"), head="cpus=2\n"),
    "trace-cmd, format fails": text(TRACE_CMD.replace("{fields}", "[FAILED TO PARSE] {fields}"), numbers(0xCC0, 0x820)),
    "trace-cmd -R": text(TRACE_CMD, lambda f: decimal(f).replace("bytes_req=100", "bytes_req=0x64"), head="cpus=2\n"),
    "GFP flags of Linux 4.9": text(TRACE_CMD, numbers(0x24000C0, 0x2080020), head="cpus=2\n"),
    "GFP flags of Linux 3.10": text(TRACE_CMD, numbers(0xD0, 0x20), head="cpus=2\n"),
    "perf": text(PERF, head=""),
    "perf, call chains": text(PERF + "\t    ffffffff8116d0f4 f+0x1 ([kernel.kallsyms])\n\t    [unknown]\n\n", head=""),
    "perf, records": text(PERF, head="  perf 1 [000] 1.5: PERF_RECORD_COMM: perf:1/1\n"),
    "perf --ns": text(PERF.replace(".6f", ".9f"), head=""),
    "Perfetto": text("  cat-382   (  382) [{cpu:03}] d..1. {s:.6f}: {event}: {fields}\n", decimal),
    "systrace HTML": text(FTRACE.replace("\n", "\\n\\\n"), head="<!DOCTYPE html>\n<script>\n  var x = 1;\n")
    + "</script>\n",
    "other tracers": text(FTRACE + "     cat-382   [{cpu:03}] .....  {s:.6f}: kfree <-f\n 1)   0.5 us    |  f();\n"),
    "stack traces": text(FTRACE + "     cat-382   [{cpu:03}] .....  {s:.6f}: <stack trace>\n => f\n => g+0x1/0x2\n"),
}  # fmt: skip


def read(tmp_path, content):
    path = tmp_path / "trace.txt"
    path.write_text(content, "utf-8", newline="")
    return path


def base(figures):
    return {key: figures[key] for key in FIGURES}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_figures(tmp_path, layout):
    figures = stats(read(tmp_path, LAYOUTS[layout]))
    assert base(figures) == FIGURES
    assert {c["cache"]: c["allocs"] for c in figures["per_cache"]} == {"kmalloc": 2, "dentry": 1}
    assert figures["live_at_end"]["alloc"] == 512
    assert figures["report"]["bad_lines"] == 0
    assert figures["report"]["warnings"] == []


def warnings(figures):
    return " ".join(figures["report"]["warnings"])


def test_a_line_without_a_cpu_counts_as_cpu_0_and_is_warned_about(tmp_path):
    figures = stats(read(tmp_path, text(" my task 12 {s:.6f}: kmem:{event}: {fields}\n", head="")))
    assert base(figures) == {**FIGURES, "cpus": 1}
    assert "7 lines name no CPU" in warnings(figures)


def test_a_counter_gives_the_order_only(tmp_path):
    figures = stats(read(tmp_path, text("     cat-382   [{cpu:03}] ..... 123456{i}: {event}: {fields}\n")))
    assert base(figures) == FIGURES
    assert "times are not seconds" in warnings(figures)


def test_numbers_of_an_unknown_layout_are_warned_about(tmp_path):
    figures = stats(read(tmp_path, text(FTRACE, numbers(0x800, 0x820))))
    assert "3 allocations print GFP flags as a number" in warnings(figures)


def test_hidden_pointers_are_no_null_pointers(tmp_path, capsys):
    hidden = read(tmp_path, text(FTRACE, lambda f: re.sub(r"ptr=ffff\w+", "ptr=(____ptrval____)", f)))
    figures = stats(hidden)
    assert (figures["null_allocs"], figures["report"]["bad_lines"]) == (0, 6)
    assert "the kernel hid 6 pointers" in warnings(figures)
    assert trace.main(["import", str(hidden), "-o", str(tmp_path / "out.parquet")]) == 1
    said = capsys.readouterr().err
    assert "holds no allocation" in said
    assert "no_hash_pointers" in said


def test_hashed_pointers_to_nothing(tmp_path):
    nothing = "ptr=00000000c0ffee10"
    lines = [("kmalloc", f"{nothing} bytes_req=0 bytes_alloc=0 gfp_flags=GFP_KERNEL")] * 3 + [("kfree", nothing)] * 2
    content = "".join(FTRACE.format(cpu=0, s=1 + i / 10, event=e, fields=f) for i, (e, f) in enumerate(lines))
    figures = stats(read(tmp_path, HEAD + content))
    assert (figures["zero_allocs"], figures["null"], figures["lost_frees"], figures["unmatched_frees"]) == (3, 2, 0, 0)


def test_what_the_header_says_was_overwritten_is_lost(tmp_path):
    head = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 7/250287   #P:2\n##### CPU 1 buffer started ####\n"
    figures = stats(read(tmp_path, text(FTRACE, head=head)))
    assert figures["report"]["lost_events"] == 250280
    assert "the CPUs begin at different times" in warnings(figures)
    assert figures["report"]["bad_lines"] == 0


def test_two_recordings_in_one_file_are_refused_with_the_line(tmp_path):
    path = read(tmp_path, text(FTRACE) + text(FTRACE.replace("{s:.6f}", "12.{i:06}")))
    with pytest.raises(TraceError, match=r"line 12: time runs back from 2935\.500060 to 12\.000000 s.*head -n 11"):
        stats(path)


def nameless(fields):
    return fields.replace(" name=dentry", "")


def test_a_name_on_the_free_alone_names_the_object(tmp_path):
    late = text(FTRACE, lambda f: nameless(f) if "bytes_req" in f else f)
    more = "".join(
        FTRACE.format(cpu=0, s=2936 + i, event="kmem_cache_alloc", fields=fields)
        for i, fields in enumerate(
            (
                "call_site=f+0x1/0x20 ptr=ffff88005ee1c000 bytes_req=192 bytes_alloc=192 gfp_flags=GFP_KERNEL",
                "call_site=h+0x1/0x20 ptr=ffff88005ee1d000 bytes_req=200 bytes_alloc=200 gfp_flags=GFP_KERNEL",
            )
        )
    )
    figures = stats(read(tmp_path, late + more))
    assert {c["cache"]: (c["allocs"], c["frees"]) for c in figures["per_cache"]} == {
        "kmalloc": (2, 1), "dentry": (2, 1), "(unnamed) h+0x1/0x20 200": (1, 0)
    }  # fmt: skip
    assert "caches are unknown for 1 allocations" in warnings(figures)


def test_without_names_each_site_and_size_is_a_cache_of_its_exact_size(tmp_path, capsys):
    path, out = read(tmp_path, text(FTRACE, nameless)), tmp_path / "out.parquet"
    figures = stats(path)
    assert base(figures) == FIGURES
    assert [c["cache"] for c in figures["per_cache"]] == ["kmalloc", "(unnamed) f+0x1/0x20 192"]
    importer.import_trace(path, out)
    for recording in (library.load(str(path)), library.load(str(out))):
        assert recording.kinds.names == ("(unnamed) f+0x1/0x20 192", "kmalloc")
        assert (recording.kinds.klass[0], recording.kinds.size[0]) == (form.ZONE, 192)
    assert trace.main(["stats", str(out), "--json"]) == 0
    assert "caches are unknown" in json.loads(capsys.readouterr().out)["report"]["warnings"][0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("slabinfo - version: 2.1\n# name <active_objs>\nfilp 1 2 3\n", "this is /proc/slabinfo"),
        (" Active / Total Objects (% used)    : 1 / 2 (50%)\n", "slabtop"),
        ("ITEM                   SIZE  LIMIT     USED     FREE\n", "vmstat -z"),
        ("         Type InUse MemUse HighUse Requests  Size(s)\n", "vmstat -m"),
        ("Attaching 2 probes...\n@[1]: 2\n", "bpftrace"),
        ("unreferenced object 0xffff88003dd83800 (size 64):\n", "kmemleak"),
        ("CPU     ID                    FUNCTION:NAME\n", "DTrace"),
        ("[    0.000000] Linux version 6.1.0\n", "dmesg"),
        ("MemTotal:       24689764 kB\n", "/proc/meminfo"),
        ("Node 0, zone      DMA      1      0\n", "/proc/buddyinfo"),
        ('{"traceEvents": []}\n', "traceconv systrace"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, says):
    with pytest.raises(TraceError, match=re.escape(says)):
        stats(read(tmp_path, content))


def test_the_cases_from_the_field(shared_traces):
    """Files in formats that were posted publicly; figures as their README gives them."""
    folder = shared_traces.parent / "cases" / "traces"
    if not folder.is_dir():
        pytest.skip("the cases are not there")
    same = 0
    for path in sorted(folder.glob("*.txt")):
        if path.name[:2] in ("07", "08", "54"):
            continue
        figures = stats(path)
        assert (path.name, base(figures)) == (path.name, FIGURES)
        assert figures["report"]["bad_lines"] == 0
        same += 1
    assert same
    with pytest.raises(TraceError, match="trace-cmd report"):
        stats(folder / "33_trace.dat.gz")
