"""What an import adds to a recording, in the file and in what is played of it."""

import json

import numpy as np
import pytest
from tracetext import cache_alloc, cache_free, ftrace, kfree, kmalloc

from kmemexp import trace
from kmemexp.errors import TraceError
from kmemexp.workload import build as front
from kmemexp.workload import recorded
from kmemexp.workload.stream import OP_ALLOC
from kmemexp.workload.traces import importer, library, playing
from kmemexp.workload.traces.choosing import Choice
from kmemexp.workload.traces.stats import stats

BASE = 0xFFFF888100000000


def bulk(count=20):
    """Objects of one site whose frees are never seen: each is shown dead by the next at its address; two stay open."""
    lines = []
    for i in range(count):
        lines += [cache_alloc(BASE + 0x1000 * (i % 2), "node", 256, allocated=256, time=f"{1 + i / 10:.6f}")]
    return [*lines, kmalloc(BASE + 0x9000, time="9.0")]


def write(tmp_path, lines, name="load"):
    text, out = tmp_path / f"{name}.txt", tmp_path / f"{name}.parquet"
    text.write_text("".join(lines))
    importer.import_trace(text, out)
    return text, out


def live_at_end(stream):
    return int(np.where(stream.op == OP_ALLOC, 1, -1).sum())


def test_bulk_frees_are_inferred_and_marked(tmp_path):
    text, out = write(tmp_path, bulk())
    told = stats(out)["inferred"]
    (node,) = (c for c in told["caches"] if c["cache"] == "node")
    assert (node["births"], node["deaths_seen"], node["deaths_proven"], node["deaths_by_law"]) == (20, 0, 18, 2)
    assert node["guessed_share"] > 0
    assert live_at_end(library.load(str(out)).stream) == 3
    assert live_at_end(library.load(str(out), Choice("law")).stream) == 1
    assert {k: v for k, v in stats(out).items() if k not in ("inferred", "report")} == {
        k: v for k, v in stats(text).items() if k not in ("inferred", "report")
    }
    assert stats(text)["inferred"] is None


def test_a_compact_file_plays_the_same_streams(tmp_path):
    _, full = write(tmp_path, bulk())
    compact = tmp_path / "compact.parquet"
    importer.import_trace(full, compact, compact=True)
    for choice in (Choice(), Choice("law")):
        one, other = (library.load(str(path), choice).stream for path in (full, compact))
        for a, b in zip(one.arrays, other.arrays, strict=True):
            assert a.tolist() == b.tolist()
    assert stats(full)["inferred"] == stats(compact)["inferred"]


def test_as_recorded_nothing_is_added(tmp_path):
    text, _ = write(tmp_path, bulk())
    out = tmp_path / "plain.parquet"
    importer.import_trace(text, out, options=importer.Options(as_recorded=True))
    assert stats(out)["inferred"] is None
    assert library.describe(str(out))["streams"] == ["recorded"]


def test_another_cache_in_the_page_proves_death(tmp_path):
    lines = [cache_alloc(BASE + 64 * i, "node", 64, allocated=64, time=f"1.{i}") for i in range(3)]
    lines += [cache_alloc(BASE + 0x800, "filp", time="2.0"), cache_free(BASE + 0x800, "filp", time="3.0")]
    _, out = write(tmp_path, lines)
    assert stats(out)["inferred"]["deaths_proven"] == 3
    assert stats(out)["live_at_end"]["n"] == 3
    assert live_at_end(library.load(str(out), Choice("law")).stream) == 0


def test_a_page_event_proves_death(tmp_path):
    frame = "page=ffffea0004000000 pfn=0x100000 order=0"
    lines = [
        ftrace("mm_page_alloc", f"{frame} migratetype=0 gfp_flags=GFP_KERNEL", time="0.5"),
        cache_alloc(BASE, "node", 64, time="1.0"),
        ftrace("mm_page_free", frame, time="2.0"),
        kmalloc(BASE + 0x5000, time="3.0"),
    ]
    _, out = write(tmp_path, lines)
    assert stats(out)["inferred"]["deaths_proven"] == 1
    assert stats(out)["pages"] == {"allocs": 1, "frees": 1}
    assert stats(out)["events"] == 2


def test_hashed_pointers_prove_by_reuse_alone(tmp_path):
    lines = [cache_alloc(0x1000 + 64 * i, "node", 64, allocated=64, time=f"1.{i:02}") for i in range(16)]
    lines += [cache_alloc(0x1800, "filp", time="2.0"), cache_alloc(0x1000, "node", 64, allocated=64, time="3.0")]
    _, out = write(tmp_path, lines)
    assert stats(out)["inferred"]["deaths_proven"] == 1
    assert "pointers are hashed" in " ".join(stats(out)["report"]["warnings"])


def test_a_free_after_a_free_tells_of_a_birth_in_between(tmp_path):
    lines = [cache_alloc(BASE), cache_free(BASE), cache_free(BASE), kfree(BASE + 0x40)]
    _, out = write(tmp_path, lines)
    assert stats(out)["inferred"]["births_added"] == 1
    stream = library.load(str(out), Choice("law")).stream
    assert stream.length == 4
    assert stream.size[stream.op == OP_ALLOC].tolist() == [184, 184]


WORKLOAD = {"name": "trace", "source": "trace", "copies": 1, "shift_s": 0.0, "window_s": 0.0, "interrupts": False,
            "stream": "auto", "start": "empty"}  # fmt: skip


def test_a_load_of_its_own_is_named_after_its_file(tmp_path):
    text, out = write(tmp_path, bulk(), "my.load")
    node = recorded.node({**WORKLOAD, "path": str(out)})
    assert (node["name"], node["stream"], node["trace"]) == ("my.load", "law", str(out))
    assert "start" not in node
    raw = recorded.node({**WORKLOAD, "path": str(text)})
    assert (raw["name"], raw["trace"]) == ("my.load", str(text))
    shipped = recorded.node({**WORKLOAD, "path": "filetree", "name": "x"})
    assert (shipped["name"], shipped["trace"], shipped["stream"]) == ("x", "filetree", "law")


def test_text_is_imported_once(tmp_path):
    text, _ = write(tmp_path, bulk())
    first = library.imported(str(text))
    assert first.parent == library.cache_folder()
    made = first.stat().st_mtime_ns
    assert library.imported(str(text)) == first
    assert first.stat().st_mtime_ns == made
    text.write_text(text.read_text() + kmalloc(BASE + 0xF000, time="9.5"))
    assert library.imported(str(text)) != first


def test_replicas_differ_in_what_is_a_guess_and_designs_do_not(tmp_path):
    many = sorted((line for i in range(30) for line in bulk_site(i)), key=lambda line: float(line.split()[3][:-1]))
    _, out = write(tmp_path, many)
    node = recorded.node({**WORKLOAD, "path": str(out)})
    lanes = front.build(node, cpus=2, seed=1, replicas=range(6)).streams
    again = front.build(node, cpus=2, seed=1, replicas=[3]).streams[0]
    assert lanes[3].time_ns.tolist() == again.time_ns.tolist()
    assert len({lane.time_ns.tobytes() for lane in lanes}) > 1
    for lane in lanes:
        assert np.cumsum(np.where(lane.op == OP_ALLOC, 1, -1)).min() >= 0
        assert np.all(np.diff(lane.time_ns) >= 0)
    same = front.build(recorded.node({**WORKLOAD, "path": str(out), "stream": "recorded"}), cpus=2, seed=1,
                       replicas=range(2)).streams  # fmt: skip
    assert same[0] is same[1]


def test_a_worker_reads_a_recording_once(tmp_path, monkeypatch):
    _, out = write(tmp_path, bulk())
    read = []
    monkeypatch.setattr(playing, "read", lambda path, of=playing.read: read.append(path) or of(path))
    for cpus, stream in ((1, "law"), (2, "law"), (1, "recorded"), (2, "recorded")):
        node = recorded.node({**WORKLOAD, "path": str(out), "stream": stream})
        for seed in range(2):
            front.build(node, cpus=cpus, seed=seed, replicas=range(3))
    assert read == [out]


def bulk_site(i):
    """Some lives of one address, of growing length, the last of which is open."""
    starts = np.cumsum([0, 1, 2, 4, 8, 16]) * (1 + i) / 100
    return [cache_alloc(BASE + 0x1000 * i, "node", 256, allocated=256, time=f"{1 + t:.6f}") for t in starts]


def test_a_stream_that_the_import_does_not_have_is_refused(tmp_path):
    _, out = write(tmp_path, bulk())
    with pytest.raises(TraceError, match=r"workload\.stream=reconciled: .* has recorded, law only"):
        recorded.node({**WORKLOAD, "path": str(out), "stream": "reconciled"})
    with pytest.raises(TraceError, match=r"workload\.start=recorded: .* snapshots"):
        recorded.node({**WORKLOAD, "path": str(out), "start": "recorded"})


def test_stats_says_what_is_a_guess(tmp_path, capsys):
    _, out = write(tmp_path, bulk())
    assert trace.main(["stats", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Deaths and births that left no event" in said
    assert "are a guess" in " ".join(said.split())
    assert trace.main(["stats", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["inferred"]["deaths_by_law"] == 2
