"""Entries and exits as handlers; a trace is read once for its operations and its interrupts."""

import pytest
from tracetext import ftrace, kfree, kmalloc

from kmemexp.sim.tables import flag
from kmemexp.workload.traces import importer, library, reading

TEXT = [
    ftrace("local_timer_entry", "vector=236", time="0.5", flags="d.h.."),
    kmalloc(0x1000, time="1.0"),
    ftrace("local_timer_exit", "vector=236", time="1.1", flags="d.h.."),  # began before the first allocation
    ftrace("softirq_entry", "vec=1", time="1.2", flags="..s.."),
    ftrace("irq_handler_entry", "irq=9", time="1.3", flags="d.h.."),
    ftrace("irq_handler_entry", "irq=8", time="1.35", cpu=1, flags="d.h.."),
    ftrace("local_timer_entry", "vector=236", time="1.4", flags="d.h.."),
    ftrace("local_timer_exit", "vector=236", time="1.4", flags="d.h.."),
    ftrace("irq_handler_exit", "irq=9", time="1.6", flags="d.h.."),
    ftrace("softirq_exit", "vec=1", time="1.9", flags="..s.."),
    ftrace("softirq_exit", "vec=1", time="2.0", cpu=1, flags="..s.."),  # without an entry
    kfree(0x1000, time="2.1"),
]


@pytest.fixture(params=["text", "parquet"])
def path(request, tmp_path):
    text = tmp_path / "trace.txt"
    text.write_text("".join(TEXT))
    if request.param == "text":
        return text
    importer.import_trace(text, tmp_path / "trace.parquet")
    return tmp_path / "trace.parquet"


def test_exits_end_the_last_entry_of_their_cpu_and_context(path):
    found = library.load(str(path)).handlers
    assert found.time_ns.tolist() == [200_000_000, 300_000_000, 400_000_000]
    assert found.ns.tolist() == [700_000_000, 300_000_000, 1]
    assert found.cpu.tolist() == [0, 0, 0]
    assert found.flags.tolist() == [flag.SOFT, flag.HARD, flag.HARD]


def test_a_trace_is_read_once(path, monkeypatch):
    read, imported = [], library.imported(str(path))
    batches = reading.Reader.batches
    monkeypatch.setattr(reading.Reader, "batches", lambda self: read.append(self.path) or batches(self))
    for _ in range(2):
        trace = library.load(str(path))
        assert trace.stream.length == 2
        assert len(trace.handlers.ns) == 3
    assert read == [imported]
