"""Traces as streams of operations."""

import subprocess
import sys

import numpy as np
import pytest
from tracetext import cache_alloc, cache_free, ftrace, kfree, kmalloc

from kmemexp.errors import TraceError
from kmemexp.sim.tables import flag
from kmemexp.workload import stream as form
from kmemexp.workload.traces import importer, library

TEXT = [
    kfree(0x9000, time="0.5"),
    kmalloc(0x1000, 100, gfp="GFP_ATOMIC", time="1.0"),
    cache_alloc(0x2000, "names_cache", 4096, time="1.1", flags="..s.."),
    cache_alloc(0x3000, "skbuff_head_cache", 224, time="1.05", flags="d.h.."),
    ftrace("alloc_vmap_area", "va_start: 18446683600683892736 size=20480 align=1 failed=0", time="1.2"),
    kfree(0x1000, time="1.3", cpu=1),
    kmalloc(0x2000, 50, time="1.4"),
    ftrace("local_timer_entry", "vector=236", time="1.4"),
    ftrace("free_vmap_area_noflush", "va_start=0xffffc90006c98000 nr_lazy=1", time="1.5"),
    cache_free(0x3000, "skbuff_head_cache", time="1.6"),
    kmalloc(0x0, time="1.7"),
]


@pytest.fixture(params=["text", "parquet", "compact"])
def path(request, tmp_path):
    text = tmp_path / "trace.txt"
    text.write_text("".join(TEXT))
    if request.param == "text":
        return text
    out = tmp_path / "trace.parquet"
    importer.import_trace(text, out, compact=request.param == "compact")
    return out


def test_a_trace_as_a_stream(path):
    trace = library.load(str(path))
    kinds, stream = trace.kinds, trace.stream
    assert kinds.names == ("kmalloc", "names_cache", "skbuff_head_cache", "vmap")
    assert kinds.recorded
    assert kinds.klass.tolist() == [form.MALLOC, form.ZONE, form.ZONE, form.KVA_WIRED]
    assert kinds.size[1] == 4096
    assert [each.stride for each in kinds.traits] == [0, 192, 192, 0]
    assert kinds.growth.tolist() == [0] * 4
    assert kinds.limit.tolist() == [0] * 4
    a, f = form.OP_ALLOC, form.OP_FREE
    assert stream.op.tolist() == [a, a, a, a, f, f, a, f, f]
    assert stream.kind.tolist() == [0, 1, 2, 3, 0, 1, 0, 3, 2]
    assert stream.slot.tolist() == [0, 1, 2, 3, 0, 1, 1, 3, 2]
    assert stream.slots == 4
    assert stream.size.tolist() == [100, 4096, 224, 20480, 0, 0, 50, 0, 0]
    assert stream.time_ns.tolist() == [round(t * 1e9) for t in (0, 0.1, 0.1, 0.2, 0.3, 0.4, 0.4, 0.5, 0.6)]
    assert stream.cpu.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert stream.flags.tolist()[:4] == [flag.NOWAIT, flag.SOFT, flag.HARD, 0]
    types = (np.int64, np.uint8, np.int16, np.int32, np.int32, np.int16, np.uint8)
    assert [column.dtype for column in stream[:-1]] == list(types)


def test_describe_agrees_with_load(path):
    stream = library.load(str(path)).stream
    told = library.describe(str(path))
    assert (told["ops"], told["allocs"], told["cpus"]) == (stream.length, 5, 2)


def test_the_last_trace_is_kept_until_the_file_changes(path):
    first = library.load(str(path))
    assert library.load(str(path)) is first
    path.write_bytes(path.read_bytes() + (b"\n" if path.suffix == ".txt" else b""))
    if path.suffix == ".txt":
        assert library.load(str(path)) is not first


def test_errors_list_what_exists():
    known = r"\(filetree, pgbench, removal, threads\)"
    with pytest.raises(TraceError, match=rf"'nope': neither a shipped trace {known} nor a file"):
        library.load("nope")
    with pytest.raises(TraceError, match="filetree"):
        library.describe("nope")


def test_a_trace_without_allocations_is_refused(tmp_path):
    path = tmp_path / "frees.txt"
    path.write_text(kfree(0x1000))
    with pytest.raises(TraceError, match="holds no allocation"):
        library.load(str(path))


@pytest.mark.parametrize(("name", "ops", "allocs"), [("filetree", 835192, 434510), ("pgbench", 2442923, 1231007)])
def test_shipped_traces(name, ops, allocs):
    assert library.names() == ["filetree", "pgbench", "removal", "threads"]
    told = library.describe(name)
    assert (told["ops"], told["allocs"], told["cpus"]) == (ops, allocs, 2)
    trace = library.load(name)
    found, stream = trace.kinds, trace.stream
    assert stream.length == ops
    assert np.all(np.diff(stream.time_ns) >= 0)
    assert stream.time_ns[0] == 0
    live = np.cumsum(np.where(stream.op == form.OP_ALLOC, 1, -1))
    assert live.max() == stream.slots
    assert stream.slot.max() + 1 == stream.slots
    assert set(found.klass.tolist()) >= {form.MALLOC, form.ZONE, form.KVA_WIRED}


def test_shipped_traces_are_small():
    assert sum(library.path_of(name).stat().st_size for name in library.names()) <= 9 << 20


def test_names_and_describe_need_no_compiler():
    code = (
        "import sys; from kmemexp.workload.traces import library as l; l.describe('pgbench');"
        "print({'numba', 'pandas', 'rich', 'scipy', 'hydra'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
