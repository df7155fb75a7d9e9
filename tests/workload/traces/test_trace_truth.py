"""A made-up kernel whose truth is known: recorded as a trace with snapshots, some of its frees left out, imported."""

import numpy as np
import pytest
from tracetext import cache_alloc, cache_free, ftrace

from kmemexp.predict import methods
from kmemexp.workload.lives import counting
from kmemexp.workload.lives.slabs import set_of
from kmemexp.workload.stream import OP_ALLOC
from kmemexp.workload.traces import importer, library
from kmemexp.workload.traces.choosing import Choice
from kmemexp.workload.traces.stats import stats

BASE = 0xFFFF888100000000
PER_SLAB, SIZE = 16, 256
RULES = (
    PER_SLAB,
    8,
    5,
    0,
)  # what slabinfo tells of such a cache by the rules of Linux 6.18: 256 bytes, 52 objects a CPU
HEAD = "slabinfo - version: 2.1\n# name <active_objs> …\n"


def line(st):
    slabs = int(st.counts[counting.SLABS])
    return (
        f"node {counting.active(st)} {slabs * PER_SLAB} {SIZE} {PER_SLAB} 1 : tunables 0 0 0 : slabdata "
        f"{slabs} {slabs} 0\n"
    )


def machine(draw, steps):
    """Births and deaths on SLUB, more births at first and more deaths later: yields (op, address, number, slabs)."""
    st = counting.slubs(counting.Old(np.zeros(0, np.int32), np.zeros(0, np.int16)), 5000, 1, RULES)
    slab_of = np.zeros(steps, np.int32)
    slots, where, live = {}, {}, []
    for number in range(steps):
        dies = live and draw.random() < (0.42 if number < 0.6 * steps else 0.65)
        victim = live.pop(int(draw.integers(len(live)))) if dies else number
        op = counting.FREE if dies else counting.ALLOC
        counting.replay(st, np.array([op], np.int8), np.array([victim]), np.zeros(1, np.int16), slab_of)
        if dies:
            slot = where.pop(victim)
            slots[slab_of[victim]].append(slot)
        else:
            free = slots.setdefault(slab_of[victim], list(range(PER_SLAB)))
            slot = where[victim] = free.pop()
            live.append(victim)
        yield op, BASE + 4096 * int(slab_of[victim]) + SIZE * slot, victim, st


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """A recording of which every second free is left out, and how many objects were alive before and after."""
    folder, draw = tmp_path_factory.mktemp("truth"), np.random.default_rng(5)
    before, steps, lines = 4000, 24000, []
    alive = np.zeros(2, np.int64)
    for i, (op, address, number, st) in enumerate(machine(draw, steps)):
        alive[i >= before :] += 1 if op == counting.ALLOC else -1
        if i == before:
            (folder / "load.before.slabinfo").write_text(HEAD + line(st))
            lines.append(ftrace("tracing_mark_write", "snap_before", time=f"{i / 1e4:.6f}"))
        if i < before:
            continue
        at = {"time": f"{1 + i / 1e4:.6f}"}
        if op == counting.ALLOC:
            lines.append(cache_alloc(address, "node", SIZE, allocated=SIZE, **at))
        elif number % 2:
            lines.append(cache_free(address, "node", **at))
    (folder / "load.after.slabinfo").write_text(HEAD + line(st))
    text, out = folder / "load.txt", folder / "load.parquet"
    text.write_text("".join(lines))
    importer.import_trace(text, out)
    return out, alive[1], counting.active(st)


def live_at_end(path, choice):
    stream = library.load(str(path), choice).stream
    return int(np.where(stream.op == OP_ALLOC, 1, -1).sum())


def test_the_streams_come_nearer_to_the_truth_one_by_one(truth):
    out, alive, active = truth
    found = {stream: live_at_end(out, Choice(stream, "recorded")) for stream in ("recorded", "law", "reconciled")}
    off = {stream: abs(number - alive) for stream, number in found.items()}
    assert off["law"] < off["recorded"]
    assert off["reconciled"] <= off["law"]
    hidden = active - alive  # free slots that slabinfo counts as active
    assert off["reconciled"] <= hidden + 2 * PER_SLAB


def test_what_was_left_out_is_counted(truth):
    (node,) = (c for c in stats(truth[0])["inferred"]["caches"] if c["cache"] == "node")
    assert node["deaths_proven"] > 1000
    assert node["births"] > node["deaths_seen"] > 0


def test_an_import_has_what_a_prediction_needs_and_gives_the_same(truth, tmp_path):
    out, text = truth[0], truth[0].with_name("load.txt")
    moved = tmp_path / "elsewhere.parquet"  # away from the snapshots
    moved.write_bytes(out.read_bytes())
    mine, whole = methods.predict(moved), methods.predict(text)
    assert mine.names == whole.names == ["node"]
    assert mine.lives == whole.lives
    assert mine.ends == whole.ends
    assert {m.letter: s.tolist() for m, s in mine.slabs.items()} == {
        m.letter: s.tolist() for m, s in whole.slabs.items()
    }
    off = {method: abs(int(slabs[0] - mine.after[0])) for method, slabs in mine.slabs.items()}
    assert off[methods.COUNTS] < min(off[methods.PLAIN], off[methods.LAW])


def test_a_recording_of_kva_alone_has_nothing_to_infer(tmp_path):
    text, out = tmp_path / "kva.txt", tmp_path / "kva.parquet"
    text.write_text(ftrace("alloc_vmap_area", "va_start: 18446683600683892736 size=20480 align=1 failed=0"))
    importer.import_trace(text, out)
    assert stats(out)["inferred"]["births"] == 0
    assert live_at_end(out, Choice("law")) == 1


def test_old_objects_belong_to_kmallocs_set():
    names = ["kmalloc-64", "kmalloc-cg-1k", "kmalloc-rcl-96", "dma-kmalloc-8", "msg_msg-64", "memdup_user-8", "node"]
    assert [set_of(name) for name in names] == [0, 1, 2, 3, 4, 5, -1]
