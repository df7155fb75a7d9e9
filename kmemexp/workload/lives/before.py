"""The start of a recording's window by its snapshots, and what the counts after it say: all caches together."""

from typing import NamedTuple

import numpy as np

from kmemexp.workload.lives import hindsight, history, law, reconcile
from kmemexp.workload.lives.hindsight import Start, Touched
from kmemexp.workload.lives.history import Window
from kmemexp.workload.lives.known import Known
from kmemexp.workload.lives.reconcile import Ended, Lived
from kmemexp.workload.lives.snapshots import Count, Snapshots


class Beginning(NamedTuple):
    """What was there before."""

    window: Window
    starts: dict[int, Start]  # by slab cache
    lived: Lived
    touched: Touched
    new_frees: np.ndarray  # int64, events that free what was neither seen born nor there before


def beginning(known: Known, snapshots: Snapshots, after: np.ndarray | None = None) -> Beginning:
    """Find the slabs of every cache at the start. `after`: a map of slab pages after the recording, if it may tell."""
    events, window = known.events, history.window(known.events)
    part = slice(window.first, window.end)
    found = hindsight.touched(
        events.op[part], events.cpu[part], known.slab[part], events.address[part], known.frame[part], known.order
    )
    bitmaps = (snapshots.before.bitmap, after)
    starts = {}
    local = np.full(len(found.base), -1, np.int32)
    for name, count in snapshots.before.counts.items():
        cache = snapshots.caches.get(name)
        if cache is None or not cache.per_slab or not (count.slabs or name in known.slabs.names):
            continue
        which = known.slabs.number(name)
        starts[which] = hindsight.start(found, which, cache, count, bitmaps)
        local[starts[which].touched] = np.arange(len(starts[which].touched))
    row = found.slab_of
    frees = np.flatnonzero(row >= 0)
    was_there = local[row[frees]] >= 0
    new_frees, frees = frees[~was_there] + window.first, frees[was_there]
    lives = known.lives
    return Beginning(
        window,
        starts,
        Lived(
            np.maximum.accumulate(events.time_ns), events.cpu, known.slab[lives.born], lives.born,
            np.where(lives.end == history.SEEN, lives.died, -1), frees + window.first,
            known.slab[frees + window.first], local[row[frees]],
        ),
        found,
        new_frees,
    )  # fmt: skip


def ended(known: Known, found: law.Deaths, which: np.ndarray) -> Ended:
    """Deaths as they are put: on the CPU of the birth, or on that which used the address again."""
    life = found.life[which]
    died = known.lives.died[life]
    cpu = np.where(died >= 0, known.events.cpu[died], known.events.cpu[known.lives.born[life]])
    return Ended(life, found.time_ns[which], cpu)


def open_lives(known: Known, found: law.Deaths, end_ns: int) -> tuple[Ended, np.ndarray]:
    """Lives without a death, and the chance that they are over; where there is a law, with the time that it gives."""
    lives = known.lives
    is_open = lives.end == history.OPEN
    is_open[found.life[found.chance >= 1]] = False
    born = known.events.time_ns[lives.born]
    time_ns, chance = (born + end_ns) // 2, np.zeros(len(born))
    likely = found.chance < 1
    time_ns[found.life[likely]], chance[found.life[likely]] = found.time_ns[likely], found.chance[likely]
    life = np.flatnonzero(is_open)
    return Ended(life, time_ns[life], known.events.cpu[lives.born[life]]), chance[life]


class Row(NamedTuple):
    """One cache of the table of counts."""

    cache: str
    before: int  # slabs
    after: int
    order: int
    law: int  # slabs at the end, nothing of the counts after used
    reconciled: int  # slabs at the end, their object counts used
    plain: int  # slabs at the end by object counts alone, without an allocator
    births_added: int
    deaths_added: int


class Reconciled(NamedTuple):
    """What the counts after say."""

    rows: list[Row]
    births: dict[int, int]  # by slab cache, births that left no event
    ended: Ended  # open lives that are over


def plain(before: Count, after: Count, per_slab: int) -> int:
    """Slabs at the end by object counts alone: those that were there, and more for what did not fit into them."""
    return before.slabs + max(0, -(-(after.active - before.slots) // per_slab))


def counted(known: Known, start: Beginning, found: law.Deaths, snapshots: Snapshots) -> Reconciled:
    """Replay every cache on SLUB's counts: with the law, and with what the counts after say."""
    after = snapshots.after
    if after is None:
        raise ValueError("there is no snapshot after")
    cpus, items = np.unique(known.events.cpu), len(known.lives.born)
    names = known.slabs.names
    by_law = reconcile.operations(start.lived, start.window, ended(known, found, found.dies), len(names))
    proven = reconcile.operations(start.lived, start.window, ended(known, found, found.chance >= 1), len(names))
    still, chance = open_lives(known, found, int(start.lived.clock[start.window.end - 1]))
    inside = (known.lives.born[still.life] >= start.window.first) & (known.lives.born[still.life] < start.window.end)
    still, chance = still.of(inside), chance[inside]
    slab = start.lived.slab[still.life]
    rows, births, over = [], {}, []
    for which, begun in start.starts.items():
        name = names[which]
        cache, before = snapshots.caches[name], snapshots.before.counts[name]
        now = after.counts.get(name)
        if now is None:
            continue
        mine = np.flatnonzero(slab == which)
        mine = mine[np.lexsort((mine, -chance[mine]))]
        with_law = reconcile.count(by_law[which], begun, cache, int(cpus[-1]) + 1, items)
        said = reconcile.reconcile(
            proven[which], begun, cache, now, still.of(mine), start.lived, start.window, cpus
        )  # fmt: skip
        births[which] = said.births
        over.append(still.of(mine[said.ended]))
        rows.append(Row(name, before.slabs, now.slabs, cache.order, with_law.slabs, said.result.slabs,
                        plain(before, now, cache.per_slab), said.births, len(said.ended)))  # fmt: skip
    return Reconciled(rows, births, Ended(*(np.concatenate(c) for c in zip(*over, strict=True))))
