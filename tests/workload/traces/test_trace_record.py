"""Recording against a tracefs made of ordinary files."""

import gzip
import os
import shutil
import signal
from pathlib import Path

import pytest
import zstandard
from tracetext import kfree, kmalloc

from kmemexp import trace
from kmemexp.errors import TraceError
from kmemexp.workload.traces import record, stats
from kmemexp.workload.traces import schema as sc

TEXT = kmalloc(0x1000) + kfree(0x1000)


def add_events(folder):
    for event in sc.EVENTS:
        path = folder / "events" / event.group / event.name
        path.mkdir(parents=True)
        (path / "enable").write_text("0")


def fill(instance):
    """What the kernel puts into a new instance."""
    add_events(instance)
    (instance / "events" / "enable").write_text("0")
    (instance / "options").mkdir()
    (instance / "options" / "hash-ptr").write_text("1")
    for name in ("tracing_on", "buffer_size_kb", "trace_clock"):
        (instance / name).write_text("1")
    (instance / "trace_pipe").write_text(TEXT)
    for cpu, overrun in enumerate((0, 7)):
        folder = instance / "per_cpu" / f"cpu{cpu}"
        folder.mkdir(parents=True)
        (folder / "stats").write_text(f"entries: 2\noverrun: {overrun}\ndropped events: {cpu}\nnow ts: 1.5\n")


@pytest.fixture
def tracefs(tmp_path, monkeypatch):
    """A fake tracefs; `last` holds what the instance's files said when it was removed."""
    root = tmp_path / "tracefs"
    add_events(root)
    (root / "instances").mkdir()
    plain_mkdir = Path.mkdir

    def mkdir(path, *args, **kwargs):
        plain_mkdir(path, *args, **kwargs)
        if path.parent.name == "instances":
            fill(path)

    def remove(instance):
        files = [p for p in instance.rglob("*") if p.is_file()]
        (root / "last").write_text("\n".join(f"{p.relative_to(instance)}={p.read_text()[:9]}" for p in files))
        shutil.rmtree(instance)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(record, "_remove", remove)
    monkeypatch.setattr(record, "POLL_S", 0.001)
    return root


def last(root):
    return dict(line.split("=", 1) for line in (root / "last").read_text().splitlines() if "=" in line)


@pytest.mark.parametrize(
    ("name", "read"),
    [("t.txt", Path.read_bytes), ("t.txt.gz", lambda p: gzip.decompress(p.read_bytes())),
     ("t.txt.zst", lambda p: zstandard.ZstdDecompressor().stream_reader(p.read_bytes()).read())],
)  # fmt: skip
def test_text_is_recorded_and_the_instance_removed(tracefs, tmp_path, name, read):
    out = tmp_path / name
    result = record.record(0.01, out, root=tracefs)
    assert read(out).decode() == TEXT
    assert result.bytes_text == len(TEXT)
    assert result.lost_events == 8
    assert result.missing == []
    assert list((tracefs / "instances").iterdir()) == []
    files = last(tracefs)
    assert files["tracing_on"] == files["events/enable"] == files["options/hash-ptr"] == "0"
    assert files["events/kmem/kmalloc/enable"] == files["events/irq/softirq_exit/enable"] == "1"
    assert files["trace_clock"] == "mono"


def test_tracing_goes_on_until_slabinfo_has_been_read(tracefs, tmp_path):
    """Frees by RCU behind the mark belong to what slabinfo counts."""
    on = tracefs / "instances" / record.INSTANCE / "tracing_on"
    seen = []

    def snapshot(when, counted):
        seen.append((when, on.read_text()))
        counted()
        seen.append((when, on.read_text()))
        return [when]

    result = record.record(0.01, tmp_path / "t.txt", root=tracefs, snapshot=snapshot)
    assert seen == [("before", "0"), ("before", "0"), ("after", "1"), ("after", "0")]
    assert result.no_snapshot == ["before"]
    assert last(tracefs)["tracing_on"] == "0"


def test_a_parquet_name_imports_at_once(tracefs, tmp_path, capsys):
    out = tmp_path / "t.parquet"
    assert trace.main(["record", "--seconds", "0.01", "-o", str(out), "--tracefs", str(tracefs), "--no-snapshots"]) == 0
    assert stats.stats(out)["frees"] == 1
    assert "8 events were lost" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.parquet", "tracefs"]


def test_a_signal_ends_the_recording_early_and_restores(tracefs, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    plain_read = os.read

    def read(*args):
        signal.raise_signal(signal.SIGTERM)
        return plain_read(*args)

    monkeypatch.setattr(record.os, "read", read)
    result = record.record(3600, tmp_path / "t.txt", root=tracefs)
    assert result.interrupted
    assert (tmp_path / "t.txt").read_text() == TEXT
    assert list((tracefs / "instances").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_exception_restores_too(tracefs, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(record.os, "read", fail)
    with pytest.raises(TraceError, match="recording failed"):
        record.record(1, tmp_path / "t.txt", root=tracefs)
    assert list((tracefs / "instances").iterdir()) == []
    assert last(tracefs)["tracing_on"] == "0"
    assert [p.name for p in tmp_path.iterdir()] == ["tracefs"]


def test_an_event_that_must_be_there_is_named(tracefs, tmp_path):
    shutil.rmtree(tracefs / "events" / "kmem" / "kfree")
    with pytest.raises(TraceError, match="no event kmem:kfree"):
        record.record(1, tmp_path / "t.txt", root=tracefs)


def test_an_event_that_may_be_missing_is_reported(tracefs, tmp_path):
    shutil.rmtree(tracefs / "events" / "irq_vectors")
    result = record.record(0.01, tmp_path / "t.txt", root=tracefs)
    assert result.missing == ["local_timer_entry", "local_timer_exit"]


def test_another_recording_is_left_alone(tracefs, tmp_path):
    (tracefs / "instances" / "kmemexp").mkdir()
    with pytest.raises(TraceError, match="another recording runs"):
        record.record(1, tmp_path / "t.txt", root=tracefs)
    assert (tracefs / "instances" / "kmemexp" / "tracing_on").read_text() == "1"


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "ROOTS", (tmp_path / "none",))
    monkeypatch.setattr(record.sys, "platform", "linux")
    monkeypatch.setattr(record.os, "geteuid", lambda: 1000)
    with pytest.raises(TraceError, match="needs root"):
        record.tracefs()
    monkeypatch.setattr(record.os, "geteuid", lambda: 0)
    with pytest.raises(TraceError, match="tracefs is not mounted"):
        record.tracefs()
    monkeypatch.setattr(record.sys, "platform", "darwin")
    with pytest.raises(TraceError, match="needs Linux"):
        record.tracefs()
