"""Predictions: SLUB as the sweeps simulate it against SLUB's counts, what a table says, and real recordings."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from kmemexp import trace
from kmemexp.errors import TraceError
from kmemexp.predict import around, methods, table
from kmemexp.predict.playing import One, least_objects, slabs_at_the_end
from kmemexp.sim.allocators.slub import layout
from kmemexp.workload.lives import counting, reconcile
from kmemexp.workload.lives.hindsight import Start
from kmemexp.workload.lives.reconcile import Operations
from kmemexp.workload.lives.snapshots import Cache, Snapshot, Snapshots
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces import track

CPUS = 2


def cache(size: int) -> Cache:
    plan = layout.layout(size, CPUS)
    return Cache(size, plan.objects, plan.order, plan.min_partial, plan.cpu_slabs, 0)


def random_one(size: int, slabs: int, seed: int) -> One:
    """A cache that begins with some slabs and lives through births, deaths, and frees of older objects."""
    rng = np.random.default_rng(seed)
    figures = cache(size)
    free = np.where(rng.random(slabs) < 0.5, rng.integers(0, figures.per_slab, slabs), 0).astype(np.int32)
    cpu = np.full(slabs, -1, np.int16)
    if slabs > 3:
        cpu[:2] = [1, -1]
        free[0] = max(free[0], 1)
    left = figures.per_slab - free.astype(np.int64)
    op, item, on, alive, born = [], [], [], [], 0
    for _ in range(3000):
        kind, phase = rng.random(), 0.7 if len(op) < 1500 else 0.25
        if kind < phase:
            op.append(counting.ALLOC)
            item.append(born)
            alive.append(born)
            born += 1
        elif kind < 0.9 and alive:
            op.append(counting.FREE)
            item.append(alive.pop(int(rng.integers(len(alive)))))
        elif left.any():
            which = int(rng.choice(np.flatnonzero(left)))
            left[which] -= 1
            op.append(counting.FREE_OLD)
            item.append(which)
        else:
            continue
        on.append(int(rng.integers(CPUS)))
    done = Operations(np.arange(len(op)), np.array(op, np.int8), np.array(item), np.array(on, np.int16))
    return One(f"size-{size}-{slabs}", figures, Start(np.arange(0), free, cpu), done)


def test_slub_ends_with_the_slabs_that_its_counts_say() -> None:
    """Two programs that share nothing: the allocator that sweeps simulate, and counts of slabs and free objects."""
    caches = [random_one(size, slabs, seed) for seed, (size, slabs) in enumerate(
        (size, slabs) for size in (64, 192, 1128, 4096) for slabs in (0, 3, 40))]  # fmt: skip
    counted = [reconcile.count(one.done, one.start, one.cache, CPUS, 3000).slabs for one in caches]
    assert slabs_at_the_end(caches, CPUS).tolist() == counted
    assert len(set(counted)) > 4


def test_the_kernel_s_own_cpus_follow_from_the_orders_of_its_slabs() -> None:
    """A recording may show fewer CPUs than the kernel has: by their number it chose how many objects a slab holds."""

    def of(cpus: int, least: int = 0) -> list[Cache]:
        plans = [layout.layout(size, cpus, least=least) for size in (192, 376, 1128, 1216, 4096)]
        return [Cache(plan.size, plan.objects, plan.order, plan.min_partial, plan.cpu_slabs, 0) for plan in plans]

    assert of(1) != of(8) != of(64)
    assert least_objects(of(2), 2) == least_objects(of(2), 3) == 0  # SLUB's own rule
    for cpus, seen in itertools.product((1, 2, 8, 64, 4096), (1, 2, 5)):
        assert of(seen, least_objects(of(cpus), seen)) == of(cpus)
    odd = [of(2)[0]._replace(per_slab=20)]
    assert least_objects(odd, 2) == 0
    with pytest.raises(TraceError, match="no number of CPUs gives all caches what they have"):
        slabs_at_the_end([random_one(192, 3, 0)._replace(cache=odd[0])], CPUS)


def test_a_recording_of_one_cpu_is_predicted_with_the_slabs_of_its_kernel() -> None:
    of_eight = layout.layout(312, 8)
    figures = Cache(312, of_eight.objects, of_eight.order, of_eight.min_partial, of_eight.cpu_slabs, 0)
    assert of_eight.objects != cache(312).per_slab
    births = 3 * of_eight.objects
    done = Operations(np.arange(births), np.zeros(births, np.int8), np.arange(births), np.zeros(births, np.int16))
    nothing = Start(np.arange(0), np.zeros(0, np.int32), np.zeros(0, np.int16))
    assert slabs_at_the_end([One("node", figures, nothing, done)], 1).tolist() == [3]


def made_up(**slabs: list[int]) -> methods.Predicted:
    lives = {
        "quiet": {"births": 100, "deaths_seen": 90, "deaths_proven": 2, "deaths_by_law": 1, "unmatched_frees": 3},
        "bulk": {"births": 100, "deaths_seen": 5, "deaths_proven": 80, "deaths_by_law": 5, "unmatched_frees": 0},
        "unseen": {"births": 10, "deaths_seen": 9, "deaths_proven": 0, "deaths_by_law": 0, "unmatched_frees": 20},
    }
    one_of = {"law": methods.LAW, "counts": methods.COUNTS, "map": methods.MAP, "plain": methods.PLAIN}
    return methods.Predicted(
        names=["quiet", "bulk", "unseen", "silent"],
        order=np.array([0, 3, 0, 3]),
        before=np.array([100, 100, 100, 100]),
        after=np.array([110, 101, 120, 101]),
        slabs={one_of[name]: np.array(found) for name, found in slabs.items()},
        lives=lives,
        births_by_counts=np.array([0, 0, 30, 0]),
        deaths_by_counts=np.array([0, 5, 0, 0]),
        ends=(104, 85, 21),
        guessed_share=0.4,
    )


def test_a_table_begins_with_what_is_farthest_off_and_says_what_figures_rest_on() -> None:
    found = made_up(law=[110, 103, 101, 100], counts=[110, 103, 119, 100], plain=[110, 100, 120, 100])
    rows = table.frame(found, methods.COUNTS)
    assert rows["cache"].tolist() == ["bulk", "silent", "unseen", "quiet"]
    assert rows["off_pages"].tolist() == [16, -8, -1, 0]
    assert rows["grade"].tolist() == ["imputed", "not told", "counts used", "seen"]
    assert rows["births_added"].tolist() == [0, 0, 30, 0]
    assert table.frame(found, methods.LAW)["births_added"].sum() == 0


def test_a_model_that_does_not_beat_counting_says_so() -> None:
    found = made_up(law=[110, 103, 101, 100], counts=[110, 103, 119, 100], plain=[110, 101, 120, 100])
    text = "\n".join(table.lines(found, methods.COUNTS))
    assert "counting alone (N) is as good as any of them" in text
    assert "F counts  0.54  footprint +0.38%" in text
    assert "too quiet" not in text
    better = made_up(law=[110, 101, 120, 101], counts=[110, 101, 120, 101], plain=[100, 100, 100, 100])
    assert not any("counting alone" in line for line in table.lines(better, methods.LAW))


def test_a_recording_in_which_nothing_happens_is_too_quiet_to_judge() -> None:
    found = made_up(law=[110, 101, 120, 101], counts=[110, 101, 120, 101], plain=[110, 101, 120, 101])
    found = found._replace(before=found.before * 100, after=found.before * 100 + 1)
    assert table.lines(found, methods.LAW)[-1].startswith("too quiet to judge")


def test_each_method_is_shown_if_there_is_what_it_needs(capsys) -> None:
    found = made_up(law=[110, 103, 101, 100], counts=[110, 103, 119, 100], plain=[110, 100, 120, 100])
    with pytest.raises(trace.TraceError, match="no map of slab pages"):
        table.chosen(found, "map")
    table.show(found, table.chosen(found, "counts"), "it", Console(width=140))
    text = capsys.readouterr().out
    for word in ("unseen", "+20", "+19", "counts used"):
        assert word in text


def test_a_table_of_all_caches_can_be_kept(tmp_path: Path) -> None:
    import pandas as pd

    found = made_up(law=[110, 103, 101, 100], counts=[110, 103, 119, 100], plain=[110, 100, 120, 100])
    for name, read in (("t.csv", pd.read_csv), ("t.parquet", pd.read_parquet)):
        table.write(found, methods.COUNTS, tmp_path / name)
        assert read(tmp_path / name)["cache"].tolist() == ["bulk", "silent", "unseen", "quiet"]


def test_what_cannot_be_predicted_is_refused(tmp_path: Path, capsys) -> None:
    text = tmp_path / "alone.txt"
    text.write_text("  a-1 [000] .... 1.0: kmalloc: call_site=f+0x1/0x2 ptr=ffff888000000000 bytes_req=8 bytes_alloc=8 "
                    "gfp_flags=GFP_KERNEL\n")  # fmt: skip
    assert trace.main(["predict", str(text)]) == 1
    assert "no counts from before and after" in capsys.readouterr().err
    assert trace.main(["import", str(text), "-o", str(tmp_path / "alone.parquet")]) == 0
    assert trace.main(["predict", str(tmp_path / "alone.parquet")]) == 1
    assert "no counts from before and after" in capsys.readouterr().err
    assert trace.main(["import", str(text), "-o", str(tmp_path / "small.parquet"), "--compact"]) == 0
    assert trace.main(["predict", str(tmp_path / "small.parquet")]) == 1
    assert "without the addresses of objects" in capsys.readouterr().err
    assert trace.main(["predict", str(text), "-o", str(tmp_path / "nowhere" / "t.csv")]) == 1


DOCS = Path(__file__).parents[2] / "docs" / "recordings.md"
BARS = {methods.LAW: (0.25, 0.02), methods.COUNTS: (0.10, 0.006)}  # share of the change, error of the footprint
ALLOWANCE = 0.007  # of the footprint, where little changes
COLUMNS = (methods.LAW, methods.COUNTS, methods.MAP, methods.PLAIN)


def rows_of_the_docs() -> dict[str, list[str]]:
    """Cells of the table of recordings, by recording; the last row is of all together."""
    _, table = DOCS.read_text().split("| recording | real | D, law | F, counts | K, map | N, plain |\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n\n")[0].splitlines()[1:]]
    return {name.partition(",")[0]: cells for name, *cells in rows}


def shown(ratio: float, digits: int, footprint: float | None = None) -> str:
    """A share, and an error of the footprint, as the docs print them."""
    text = f"{ratio:.{digits}f}".lstrip("0")
    if footprint is None:
        return text
    error = f"{footprint:+.2%}".replace("-", "\N{MINUS SIGN}").replace("%", " %")
    return f"{text}, {'0.00 %' if error[1:] == '0.00 %' else error}"


@pytest.mark.slow
def test_real_kernels_are_predicted_within_the_bars_and_as_the_docs_say(shared_traces: Path) -> None:
    """Seven recordings: each method's share of the change, error of the footprint, and all together."""
    docs = rows_of_the_docs()
    *names, together = docs
    off, change = dict.fromkeys(COLUMNS, 0), dict.fromkeys(COLUMNS, 0)
    for name in names:
        found = methods.predict(shared_traces / f"{name}.txt.zst")
        of = {method: methods.summary(found, method) for method in COLUMNS if method in found.slabs}
        after = int((found.after << found.order).sum())
        for method, (ratio, footprint) in BARS.items():
            assert of[method]["off_pages"] <= ratio * of[method]["change_pages"] + ALLOWANCE * after, name
            assert abs(of[method]["footprint_error"]) <= footprint, name
        if methods.MAP in of:
            assert abs(of[methods.MAP]["footprint_error"]) <= 0.001, name
            assert of[methods.MAP]["ratio"] <= 0.05 or name != "r_tree2"
        real = int(((found.after - found.before) << found.order).sum())
        cells = [shown(of[m]["ratio"], 2, of[m]["footprint_error"]) if m in of else "" for m in COLUMNS]
        assert docs[name] == [f"{real:+}", *cells], name
        for method, mine in of.items():
            off[method] += mine["off_pages"]
            change[method] += mine["change_pages"]
    pooled = {method: off[method] / change[method] for method in COLUMNS}
    assert pooled[methods.LAW] <= 0.25
    assert pooled[methods.COUNTS] <= min(0.10, 0.5 * pooled[methods.PLAIN])
    law, counts, plain = (pooled[m] for m in (methods.LAW, methods.COUNTS, methods.PLAIN))
    assert docs[together] == ["", shown(law, 2), shown(counts, 3), "", shown(plain, 2)]


BUDDY = "Node 0, zone      DMA      1      0      3\nNode 0, zone   Normal     10     20     30\n"
VMALLOC = "0xffffc90000000000-0xffffc90000005000   20480 f+0x1/0x2 pages=4 vmalloc\n"


def test_areas_are_counted_between_the_snapshots_and_free_blocks_are_shown() -> None:
    begins, ends = (sc.MARK, sc.SNAP_BEFORE), (sc.MARK, sc.SNAP_AFTER)
    born, freed, lost = ((op, -1) for op in (sc.KVA_ALLOC, sc.KVA_FREE, sc.KVA_LOST_FREE))
    ops = [born, begins, born, born, freed, lost, born, born, ends, freed]
    op, vector = (np.array(column) for column in zip(*ops, strict=True))
    for cuts in ((), (4,), (1, 2, 9), (5, 8)):
        found = around.Areas()
        for part in np.split(np.arange(len(op)), cuts):
            found.add(track.rows(len(part))._replace(op=op[part], vector=vector[part]))
        assert found.more == 2, cuts
    others = {
        "buddyinfo": BUDDY,
        "vmallocinfo": VMALLOC * 3 + "0xffffc90000006000-0xffffc90000007000 4096 unpurged vm_area\n",
    }
    later = others | {"vmallocinfo": VMALLOC * 6}
    taken = Snapshots("x", {}, Snapshot({}, None, others), Snapshot({}, None, later))
    areas, blocks = around.lines(taken, found.more)
    assert areas.endswith("3, 6, 5")
    assert "before: 11 20 33; after: 11 20 33" in blocks
    assert around.lines(taken._replace(after=Snapshot({}, None, {})), 2) == []
