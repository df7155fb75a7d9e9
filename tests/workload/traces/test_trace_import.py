"""Text to Parquet to figures, and what happens to damaged files."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from tracetext import as_perf, as_trace_cmd, cache_alloc, cache_free, ftrace, kfree, kmalloc

from kmemexp import trace
from kmemexp.errors import TraceError
from kmemexp.workload.traces import importer, source
from kmemexp.workload.traces.stats import stats

SMALL = [
    "# tracer: nop\n",
    kmalloc(0x1000, 100, gfp="GFP_ATOMIC"),
    cache_alloc(0x2040, time="1.000010", cpu=1),
    ftrace("irq_handler_entry", "irq=36 name=disk", flags="d.h..", time="1.000011"),
    ftrace("irq_handler_exit", "irq=36 ret=handled", flags="d.h..", time="1.000015"),
    ftrace("alloc_vmap_area", "va_start: 18446683600683892736 size=20480 align=1 failed=0", time="1.000016"),
    kfree(0, time="1.000017"),
    kmalloc(0x1000, 9000, allocated=16384, time="1.000020"),
    cache_free(0x2040, time="1.001034"),
    cache_free(0x3000, time="1.001035"),
    ftrace("free_vmap_area_noflush", "va_start=0xffffc90006c98000 nr_lazy=1", time="1.001036"),
]


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.txt"
    path.write_text("".join(SMALL))
    return path


def without_report(figures):
    return {k: v for k, v in figures.items() if k != "report"}


def without_inferred(figures):
    """What was recorded: of text nothing is inferred before it is imported."""
    return {k: v for k, v in figures.items() if k != "inferred"}


def test_figures_of_a_small_trace(small):
    f = stats(small)
    assert (f["events"], f["cpus"], f["span_us"]) == (10, 2, 1035)
    assert (f["allocs"], f["frees"], f["lost_frees"], f["unmatched_frees"], f["null"]) == (3, 1, 1, 1, 1)
    assert f["context"] == {"alloc_task": 3, "free_task": 1}
    assert (f["bytes_req"], f["bytes_alloc"], f["nowait"], f["caches"]) == (9284, 16704, 1, 1)
    assert f["peak"] == {"n": 2, "req": 9184, "alloc": 16576, "pow2": 12544, "uma": 12544, "dfly": 9408}
    assert f["live_at_end"] == {"n": 1, "req": 9000, "alloc": 16384, "pow2": 12288, "uma": 12288, "dfly": 9216}
    assert (f["buckets_pages_peak"], f["buckets_pages_end"]) == (5, 5)
    assert f["vmap"] == {"allocs": 1, "frees": 1, "unmatched_frees": 0, "bytes": 20480, "cur": 0, "peak": 20480}
    assert f["kva"]["mean_lifetime_ns"] == 1_020_000
    assert f["ping_pong"] == 1
    filp = next(c for c in f["per_cache"] if c["cache"] == "filp")
    assert (filp["allocs"], filp["ping_pong"], filp["mean_lifetime_ns"]) == (1, 1, 1_024_000)
    assert {"event": "irq_handler_entry", "count": 1, "mean_ns": 4000} in f["interrupts"]


@pytest.mark.parametrize("compact", [False, True])
def test_parquet_gives_the_figures_of_the_text(small, tmp_path, compact):
    out = tmp_path / "small.parquet"
    importer.import_trace(small, out, compact=compact)
    assert without_inferred(stats(out)) == without_inferred(stats(small))
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_parquet_made_compact_afterwards_is_the_same(small, tmp_path):
    full, one, two = (tmp_path / name for name in ("full.parquet", "one.parquet", "two.parquet"))
    importer.import_trace(small, full)
    importer.import_trace(full, one, compact=True)
    importer.import_trace(small, two, compact=True)
    assert pq.read_table(one).equals(pq.read_table(two))


def test_columns_read_well_in_pandas(small, tmp_path):
    out = tmp_path / "small.parquet"
    importer.import_trace(small, out)
    frame = pd.read_parquet(out)
    assert frame["op"].tolist()[:3] == ["alloc", "alloc", "irq_enter"]
    assert frame["cache"].tolist()[:2] == ["kmalloc", "filp"]
    assert frame.loc[frame["op"] == "free", "requested_bytes"].tolist() == [184]
    assert frame["context"].isin(["task", "hardirq"]).all()
    meta = json.loads(pq.ParquetFile(out).metadata.metadata[b"kmemexp.trace"])
    assert (meta["schema_version"], meta["report"]["format"], meta["report"]["source"]) == (3, "ftrace", "small.txt")


@pytest.mark.parametrize(("form", "name"), [(as_trace_cmd, "trace-cmd report"), (as_perf, "perf script")])
def test_other_programs_text(small, tmp_path, form, name):
    path = tmp_path / "other.txt"
    path.write_text("".join(map(form, SMALL[1:])))
    figures = stats(path)
    assert without_report(figures) == without_report(stats(small))
    assert figures["report"]["format"] == name


def test_compressed_text_in_several_frames(small, tmp_path):
    half = [line.encode() for line in SMALL]
    want = without_report(stats(small))
    for name, compress in (("a.gz", gzip.compress), ("a.zst", zstandard.compress)):
        path = tmp_path / name
        path.write_bytes(compress(b"".join(half[:5])) + compress(b"".join(half[5:])))
        assert without_report(stats(path)) == want


@pytest.mark.parametrize("block", [1, 7, 100, 1 << 20])
def test_the_size_of_blocks_does_not_matter(small, block):
    blocks = list(source.text_blocks(small, block))
    assert b"".join(data[:end] for data, end, _ in blocks) == small.read_bytes()


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_cut_off_compression_is_refused_with_the_line(tmp_path, compress):
    draw = np.random.default_rng(1)
    lines = [kmalloc(int(p)) for p in draw.integers(1, 2**62, 20000)]
    path, out = tmp_path / "cut", tmp_path / "out.parquet"
    whole = compress("".join(lines).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match=r"cut: line \d{2,}: the compressed data end or break off"):
        importer.import_trace(path, out)
    assert [p.name for p in tmp_path.iterdir()] == ["cut"]


def test_damage_inside_compression_is_refused(tmp_path):
    whole = bytearray(zstandard.compress("".join(kmalloc(i) for i in range(1, 3000)).encode()))
    whole[len(whole) // 2] ^= 0xFF
    path = tmp_path / "bad.zst"
    path.write_bytes(whole)
    with pytest.raises(TraceError, match=r"bad.zst: "):
        stats(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1: the file is empty"),
        (gzip.compress(b"", mtime=0), "without any known event"),
        (b"\x7fELF\0\0\0\1" * 50, "line 1: binary data"),
        (b"\x17\x08\x44tracing6\0", "trace-cmd report"),
        (b"PERFILE2\0\0", "perf script"),
        (b"hello\nworld\n", "line 2: the end is reached without any known event"),
        (b"# tracer: nop\n", "without any known event"),
        (b"x" * (3 << 20), "line 1: longer than"),
        (b"PAR1 not really", "cannot be read as Parquet"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, content, says, capsys, monkeypatch):
    monkeypatch.setattr(source, "BLOCK", 1 << 20)
    path, out = tmp_path / "file", tmp_path / "out.parquet"
    path.write_bytes(content)
    for arguments in (["stats", str(path)], ["import", str(path), "-o", str(out), "--compact"]):
        assert trace.main(arguments) == 1
        message = capsys.readouterr().err
        assert says in " ".join(message.split())
        assert str(path) in message
        assert "Traceback" not in message
    assert not out.exists()


def test_a_foreign_parquet_file_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(TraceError, match="not one that"):
        stats(path)


def test_no_such_file_and_no_such_folder(small, tmp_path, capsys):
    assert trace.main(["stats", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err
    for folder in (tmp_path / "no", small):
        assert trace.main(["import", str(small), "-o", str(folder / "out.parquet")]) == 1
        assert "cannot be written" in capsys.readouterr().err


def test_damage_in_the_text_is_counted_and_reported(tmp_path, capsys):
    path, out = tmp_path / "damaged.txt", tmp_path / "out.parquet"
    lines = [*SMALL[:3], "gar\0bage\n", "CPU:1 [LOST 123 EVENTS]\n", *SMALL[3:], SMALL[-1].rstrip("\n")]
    path.write_text("".join(lines))
    assert trace.main(["import", str(path), "-o", str(out)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "2 lines could not be read and were left out (lines 4, 14 …; the last line has no end)" in said
    assert "123 events were lost" in said
    report = stats(out)["report"]
    assert (report["lines"], report["bad_lines"], report["first_bad_lines"]) == (14, 2, [4, 14])
    assert (report["lost_events"], report["first_lost_lines"]) == (123, [5])
    assert report["truncated"] is True


def test_stats_prints_tables_and_json(small, capsys):
    assert trace.main(["stats", str(small)]) == 0
    printed = capsys.readouterr().out
    assert "9,284" in printed
    assert "filp" in printed
    assert trace.main(["stats", str(small), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == stats(small)


@pytest.mark.parametrize("command", [[], ["import"], ["stats"], ["record"]])
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        trace.main([*command, "--help"])
    assert stop.value.code == 0
    assert "python -m kmemexp.trace" in capsys.readouterr().out


def test_a_shipped_trace_goes_by_its_name(capsys):
    assert trace.main(["stats", "filetree", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["allocs"] == 434504
