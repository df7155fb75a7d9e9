"""The kernel's counts around a recording: taking them, reading them, and playing what was there before."""

import numpy as np
import pytest
import zstandard
from tracetext import as_perf, as_trace_cmd, cache_alloc, cache_free, ftrace, kfree, read

from kmemexp import trace
from kmemexp.errors import TraceError
from kmemexp.workload.lives import history, snapshots
from kmemexp.workload.stream import OP_ALLOC
from kmemexp.workload.traces import capturing, importer, library
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.choosing import Choice
from kmemexp.workload.traces.reading import Reader
from kmemexp.workload.traces.stats import stats

BASE = 0xFFFF888100000000
HEAD = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : …\n"


def slabinfo(**caches):
    """Lines of /proc/slabinfo: (active, slots, size, per slab) by cache."""
    lines = [
        f"{name} {active} {slots} {size} {per} 1 : tunables 0 0 0 : slabdata {slots // per} {slots // per} 0\n"
        for name, (active, slots, size, per) in caches.items()
    ]
    return HEAD + "".join(lines)


def recording(tmp_path, after):
    """Three old objects of one cache in a slab of four, one of which is freed; two new ones; a cache nobody touches."""
    (tmp_path / "load.before.slabinfo").write_text(slabinfo(node=(3, 4, 1024, 4), quiet=(7, 8, 512, 8)))
    (tmp_path / "load.after.slabinfo").write_text(slabinfo(node=(after, 4 * -(-after // 4), 1024, 4)))
    lines = [
        cache_free(BASE + 0x8000, "node", time="0.1"),  # before the mark: it is none of the old objects
        ftrace("tracing_mark_write", "snap_before", time="0.5"),
        cache_free(BASE, "node", time="1.0"),
        *(cache_alloc(BASE + 0x400 * i, "node", 1000, allocated=1024, time=f"2.{i}") for i in range(2)),
        ftrace("tracing_mark_write", "snap_after", time="3.0"),
    ]
    text = tmp_path / "load.txt"
    text.write_text("".join(lines))
    out = tmp_path / "load.parquet"
    importer.import_trace(text, out)
    return out


def live_at_end(path, choice):
    stream = library.load(str(path), choice).stream
    changes = np.cumsum(np.where(stream.op == OP_ALLOC, 1, -1))
    assert changes.min() >= 0
    return int(changes[-1])


def test_old_objects_are_played_where_they_are_wanted(tmp_path):
    out = recording(tmp_path, after=4)
    told = stats(out)["inferred"]
    assert (told["streams"], told["start"], told["old_objects"]) == (["law", "reconciled"], True, 10)
    assert live_at_end(out, Choice("recorded", "empty")) == 2
    assert live_at_end(out, Choice("recorded", "recorded")) == 11  # 3 + 7 before, one freed, two born
    kinds = library.load(str(out), Choice("law", "recorded")).kinds
    assert kinds.names == ("node", "quiet")


def test_counts_after_add_births_that_were_not_seen(tmp_path):
    out = recording(tmp_path, after=24)
    (node,) = (c for c in stats(out)["inferred"]["caches"] if c["cache"] == "node")
    assert node["births_by_counts"] >= 16
    more = live_at_end(out, Choice("reconciled", "recorded")) - live_at_end(out, Choice("law", "recorded"))
    assert more == node["births_by_counts"]


def test_a_page_that_is_no_slab_afterwards_holds_nothing(tmp_path):
    (tmp_path / "load.before.slabinfo").write_text(slabinfo(node=(0, 0, 1024, 4)))
    (tmp_path / "load.after.slabinfo").write_text(slabinfo(node=(1, 4, 1024, 4)))
    frames = np.zeros(1 << 21, np.uint8)
    (tmp_path / "load.before.kpf.zst").write_bytes(zstandard.compress(frames.tobytes()))
    frames[0x100001] = 1
    (tmp_path / "load.after.kpf.zst").write_bytes(zstandard.compress(frames.tobytes()))
    lines = [cache_alloc(BASE + 0x1000 * i, "node", 1000, allocated=1024, time=f"1.{i}") for i in range(2)]
    (tmp_path / "load.txt").write_text("".join(lines))
    out = tmp_path / "load.parquet"
    importer.import_trace(tmp_path / "load.txt", out)
    assert stats(out)["inferred"]["deaths_proven"] == 1
    assert live_at_end(out, Choice("law")) == 1


def test_snapshots_that_are_asked_for_must_be_there(tmp_path, capsys):
    recording(tmp_path, after=4)
    text, out = tmp_path / "load.txt", tmp_path / "other.parquet"
    assert trace.main(["import", str(text), "-o", str(out), "--snapshots", str(tmp_path / "none")]) == 1
    assert "none.before.slabinfo: there is no such snapshot" in " ".join(capsys.readouterr().err.split())
    assert trace.main(["import", str(text), "-o", str(out), "--snapshots", str(tmp_path / "load")]) == 0
    assert stats(out)["inferred"]["start"]


def test_a_snapshot_that_is_none_is_refused_with_its_line(tmp_path):
    (tmp_path / "load.before.slabinfo").write_text(HEAD + "node 1 2\n")
    with pytest.raises(TraceError, match=r"before\.slabinfo: line 3: not a line of /proc/slabinfo"):
        snapshots.find(tmp_path / "load.txt")


def of(task, line, site="g"):
    """The line as a task of that number printed it, from that call site."""
    return line.replace("task-12", f"task-{task}").replace("call_site=g+", f"call_site={site}+")


def reading(*, reaped_by=12, form=lambda line: line):
    """A mark, three frees by RCU, the burial of the task that read the counts, frees after it."""
    lines = [
        ftrace("tracing_mark_write", "snap_before", time="0.5"),
        cache_free(BASE, "dentry", time="1.0"),
        cache_alloc(BASE + 0x800, "dentry", time="1.5"),
        ftrace("tracing_mark_write", "snap_after", time="2.0"),
        of(7, cache_free(BASE + 0x100, "dentry", time="2.1"), "rcu_do_batch"),
        of(7, cache_free(BASE + 0x200, "dentry", time="2.2"), "release_task"),  # somebody else's child
        cache_free(BASE + 0x300, "dentry", time="2.3"),  # the recorder's own, of another kind
        of(reaped_by, cache_free(BASE + 0x400, "sighand_cache", time="2.4"), "release_task"),
        of(7, cache_free(BASE + 0x500, "dentry", time="2.5"), "rcu_do_batch"),
        of(12, kfree(BASE + 0x600, time="2.6"), "release_task"),
    ]
    return "".join(map(form, lines))


def window_of(text):
    """Times of the events that count, in seconds."""
    events = gathered_of(text)
    first, end = history.window(events)
    part = slice(first, end)
    return (events.time_ns[part][np.isin(events.op[part], (sc.FREE, sc.UNMATCHED_FREE))] / 1e9).tolist()


@pytest.mark.parametrize("form", [lambda line: line, as_trace_cmd, as_perf])
def test_events_count_until_the_counts_after_have_been_read(form):
    """Objects that RCU frees behind the mark are gone when the recorder's child reads slabinfo."""
    if form is as_perf:  # whose tasks are named otherwise
        text = reading().replace("task-7 ", "other-7")
        text = "".join(as_perf(line) if "task-12" in line else as_perf(line).replace("my", "no") for line in
                       text.splitlines(keepends=True))  # fmt: skip
    else:
        text = reading(form=form)
    assert window_of(text) == [1.0, 2.1, 2.2, 2.3, 2.4]


def test_the_reading_is_over_when_the_recorder_closes_the_file_or_it_ends_with_the_mark():
    inside = reading(reaped_by=9).replace("call_site=g+", "call_site=seq_release+")
    assert window_of(inside) == [1.0, 2.1, 2.2, 2.3]
    unseen = "".join(line for line in reading(reaped_by=9).splitlines(keepends=True) if " 2.6: " not in line)
    assert window_of(unseen) == [1.0]


def gathered_of(text):
    gathered = history.Gathering()
    gathered.add(read(text)[0])
    return gathered.events()


def test_a_recording_that_lacks_a_mark_says_so():
    lines = reading().splitlines(keepends=True)
    whole = gathered_of("".join(lines))
    assert history.cut(whole) == history.cut(gathered_of(lines[1])) == []
    (end,) = history.cut(gathered_of("".join(lines[:3])))
    assert "mark of the end is missing" in end
    (beginning,) = history.cut(gathered_of("".join(lines[1:])))
    assert "mark of the beginning is missing" in beginning
    behind = gathered_of("".join([lines[3], *lines[:3]]))  # the end of another recording
    assert history.window(behind) == (1, 4)
    assert history.window(gathered_of("".join(lines[3:5]))).end == 0


def test_a_mark_that_is_inferred_survives_the_import(tmp_path):
    (tmp_path / "load.txt").write_text(reading())
    for name in ("load.before.slabinfo", "load.after.slabinfo"):
        (tmp_path / name).write_text(slabinfo(dentry=(21, 21, 192, 21), sighand_cache=(4, 4, 1024, 4)))
    report = importer.import_trace(tmp_path / "load.txt", tmp_path / "load.parquet")
    assert report.events == 10
    windows = []
    for name in ("load.txt", "load.parquet"):
        gathered = history.Gathering()
        for rows in Reader(tmp_path / name).batches():
            gathered.add(rows)
        windows.append(history.window(gathered.events()))
    assert windows[0] == windows[1]
    assert windows[0].end - windows[0].first == 8


def sysfs(**caches):
    """Lines of PREFIX.WHEN.sysfs: (partial, objects, slots, slabs) by cache."""
    return "".join(
        f"{name} partial={partial} objects={objects} total_objects={slots} slabs={slabs}\n"
        for name, (partial, objects, slots, slabs) in caches.items()
    )


def test_slabinfo_counts_but_where_it_estimates(tmp_path):
    """It is read next to the mark; what sysfs says comes later, with what reading it has allocated."""
    few, many = snapshots.MOST_PARTIAL, snapshots.MOST_PARTIAL + 1
    (tmp_path / "load.before.slabinfo").write_text(slabinfo(a=(90, 100, 1024, 4), b=(40_000, 80_000, 1024, 4)))
    (tmp_path / "load.before.sysfs").write_text(
        sysfs(a=(few, 70, 120, 30), b=(many, 60_000, 80_080, 20_020), c=(1, 3, 4, 1))
    )
    counts = snapshots.find(tmp_path / "load.txt").before.counts
    assert counts["a"] == snapshots.Count(90, 100, 25, exact=True)
    assert counts["b"] == snapshots.Count(80_000 - 20_080, 80_000, 20_000, exact=True)
    assert counts["c"] == snapshots.Count(3, 4, 1, exact=True)


def test_constants_follow_the_kernel_s_rules(tmp_path):
    (tmp_path / "load.before.slabinfo").write_text(slabinfo(dentry=(1, 21, 192, 21), big=(1, 4, 8192, 4)))
    caches = snapshots.find(tmp_path / "load.zst").caches
    assert caches["dentry"] == snapshots.Cache(192, 21, 0, 5, 12, 0)
    assert (caches["big"].min_partial, caches["big"].cpu_slabs) == (6, 3)


def test_counts_are_captured_as_they_are_read(tmp_path):
    proc, slab = tmp_path / "proc", tmp_path / "slab"
    proc.mkdir()
    (slab / ":0001024").mkdir(parents=True)
    (slab / "node").symlink_to(":0001024")
    flags = np.zeros(6, np.uint64)
    flags[1], flags[2], flags[3] = 1 << 7, 1 << 7 | 1 << 15, 1 << 7 | 1 << 16
    (proc / "kpageflags").write_bytes(flags.tobytes())
    (proc / "slabinfo").write_text(slabinfo(node=(3, 4, 1024, 4)))
    (proc / "buddyinfo").write_text("Node 0, zone DMA 1 2\n")
    values = {"objects": "3 N0=3", "total_objects": "4 N0=4", "slabs": "1 N0=1", "partial": "1", "objects_partial": "3",
              "cpu_slabs": "0", "slabs_cpu_partial": "0(0)", "object_size": "1000", "slab_size": "1024",
              "objs_per_slab": "4", "order": "0", "min_partial": "5", "cpu_partial": "24"}  # fmt: skip
    for name, value in values.items():
        (slab / ":0001024" / name).write_text(f"{value}\n")
    written = []
    missing = capturing.capture(
        tmp_path / "load", "before", lambda: written.extend(tmp_path.glob("load.*")), proc=proc, slab=slab
    )
    assert written == []  # it is called before all the rest is read
    assert missing == ["pagetypeinfo", "vmallocinfo", "meminfo", "zoneinfo"]
    assert (tmp_path / "load.aliases").read_text() == "node :0001024\n"
    found = snapshots.find(tmp_path / "load.txt.zst")
    assert found.before.counts["node"] == snapshots.Count(3, 4, 1, exact=True)
    assert found.before.bitmap.tolist() == [0, 1, 2, 3, 0, 0]
    assert found.caches["node"] == snapshots.Cache(1024, 4, 0, 5, 12, 0)
    assert found.before.others == {"buddyinfo": "Node 0, zone DMA 1 2\n"}
    packed = zstandard.ZstdDecompressor().decompress((tmp_path / "load.before.kpf.zst").read_bytes())
    assert packed == b"\0\1\2\3\0\0"
