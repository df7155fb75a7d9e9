"""What those who wrote page allocators and BSD's kernels have reported, beside ours: L23, R05 to R20. Never judged."""

import json
from collections.abc import Iterator

import numpy as np

from kmemexp.jit import entry
from kmemexp.lane import simulate_lanes
from kmemexp.metrics import INDEX
from kmemexp.planning.plan import plan_from
from kmemexp.sim import slots
from kmemexp.sim.aliases import Words
from kmemexp.sim.allocators import dfly_slab, dfly_slab_2020
from kmemexp.sim.allocators.dfly_slab_2020.state import release_threshold
from kmemexp.sim.arenas import buddy, vmem
from kmemexp.sim.slots import PAGE
from kmemexp.sim.tables import gauge
from kmemexp.validate.check import Check
from kmemexp.validate.churn import Churn, bound, exchange
from kmemexp.validate.hand import Hand
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting

HUGE = 512  # pages
THREADS, ROUNDS = 8, 100


def huge_frames(s: Setting) -> Iterator[Row]:
    """L23: LLFree's `frag` on Linux's buddy: memory is filled, half freed at random, a tenth renewed again and again.

    The protocol is that of linux-alloc-bench (alloc.c, 3788f9b), the figures are of llfree-bench (frag/latest-bu and
    out/frag.dref, 775e549): Linux 6.0, 128 GiB, 8 threads, 100 rounds of 10 %, order 0. Here the zone is smaller, the
    threads take turns, and there are no lists of CPUs, which hold a hundredth of a round there and all of one here.
    """
    of = Wanted("L23", "Wrenger et al., USENIX ATC 2023", "C")
    pages = round(s.long(1 << 17, 1 << 19))
    zone = _Zone(pages, 0)
    each = int((pages - THREADS * 10) / THREADS * 0.9)
    deal = s.rng.permutation(each * THREADS).reshape(THREADS, each)
    zone.play(np.arange(each * THREADS), gives=False)
    zone.play(deal[:, each // 2 :].T.ravel(), gives=True)
    kept, renewed, looks = deal[:, : each // 2], each // 2 // 10, []
    for _ in range(ROUNDS):
        chosen = np.stack([s.rng.choice(row, renewed, replace=False) for row in kept], axis=1).ravel()
        zone.play(chosen, gives=True)
        zone.play(chosen, gives=False)
        looks.append(zone.look())
    (free, huge, moves), (_, huge_last, moves_last) = looks[0], looks[-1]
    what = f"Linux's buddy, zone of {pages >> 8} MiB"
    yield of.beside(f"{what}: free memory in whole huge frames, %", 100 * 5108 * HUGE / 17_363_262,
                    100 * huge * HUGE / free)  # fmt: skip
    yield of.beside(
        f"{what}: free huge frames after {ROUNDS} rounds, by those after one", 5107 / 5108, huge_last / huge
    )
    yield of.beside(f"{what}: page moves that compact it, by free page", 6_861_079 / 17_363_262, moves / free)
    yield of.beside(f"{what}: moves after {ROUNDS} rounds, by those after one", 6_634_775 / 6_861_079,
                    moves_last / moves, "LLFree's own: 0.043")  # fmt: skip


class _Zone:
    """A zone of Linux's page allocator, whose pages are numbered by who has them."""

    def __init__(self, pages: int, pcp: int) -> None:
        self.state = buddy.init(buddy.Params(pcp=pcp), kva_bytes=pages * PAGE, cpus=THREADS, maps=1)
        self.addrs = np.full(pages, -1, np.int64)
        self.run, self.measure = bound(exchange, buddy), entry(buddy.map_measure)
        self.totals = np.zeros(gauge.COLUMNS, np.int64)

    def play(self, which: Words, *, gives: bool) -> None:
        """Let the threads free, or allocate, these pages in turns."""
        cpus = np.arange(len(which)) % THREADS
        if self.run(self.state, self.addrs, which, cpus, gives) != 0:
            raise RuntimeError("the zone is empty")

    def look(self) -> tuple[int, int, int]:
        """Free pages on the zone's lists, whole free huge frames, and pages that compaction would have to move."""
        self.measure(self.state, 0, self.totals)
        blocks = self.totals[gauge.FREE_BLOCKS : gauge.PAGEBLOCKS].reshape(-1, gauge.ORDERS).sum(axis=0)
        held = self.addrs[self.addrs >= 0] // PAGE
        used = np.sort(np.bincount(held // HUGE, minlength=-(-len(self.addrs) // HUGE)))
        full = len(held) // HUGE
        free = int((blocks << np.arange(gauge.ORDERS)).sum())
        return free, int(blocks[9] + 2 * blocks[10]), int((HUGE - used[-full:]).sum())


def idle_zones(s: Setting) -> Iterator[Row]:
    """R20: DragonFly, 24 April 2020: idle slabs that 128 CPUs keep on a machine of 256 GiB, before and after."""
    of, cpus = Wanted("R20", "DragonFly, commit 0186d1945b", "D"), 128
    kept = {}
    for when, threshold in (("before", release_threshold(256 << 30, 1)), ("after", release_threshold(256 << 30, cpus))):
        params = dfly_slab_2020.Params(zone_bytes=128 << 10, release_threshold=threshold)
        state = dfly_slab_2020.init(params, kva_bytes=1 << 28, cpus=1, map_number=0, items=(), bases=())
        hand, size = Hand(dfly_slab_2020, state), s.one((5000, 6000, 7000))
        addrs = [hand.alloc(size, item=slots.ITEM_MALLOC) for _ in range((threshold + 50) * ((128 << 10) // size))]
        for addr in addrs:
            hand.free(addr, item=slots.ITEM_MALLOC, size=size)
        last = -1
        while (pages := dfly_slab_2020.census(state)["pages"]) != last:  # a malloc unmaps what is beyond the threshold
            last = pages
            hand.free(hand.alloc(size, item=slots.ITEM_MALLOC), item=slots.ITEM_MALLOC, size=size)
        kept[when] = cpus * pages * PAGE / 2**30
    for (when, mine), gib in zip(kept.items(), (30, 10), strict=True):
        yield of.beside(
            f"slabs that idle CPUs keep at most, {when}, GiB", gib, mine, "published: all slabs in use, too"
        )
    yield of.beside("the same: before by after", 3, kept["before"] / kept["after"])


def remote_frees(s: Setting) -> Iterator[Row]:
    """R10: DragonFly, 2010: messages to other CPUs for objects that they own, before and after."""
    of, sent, many = Wanted("R10", "DragonFly, commit 5fee07e6", "D"), {}, 4000
    for module in (dfly_slab, dfly_slab_2020):
        state = module.init(module.Params(), kva_bytes=1 << 28, cpus=2, map_number=0, items=(), bases=())
        hand, sizes = Hand(module, state), s.rng.choice((64, 128, 256, 512), many).tolist()
        addrs = [hand.alloc(size, item=slots.ITEM_MALLOC) for size in sizes]
        sent[module] = 0
        for k in s.rng.permutation(many).tolist():
            hand.free(addrs[k], item=slots.ITEM_MALLOC, cpu=1, size=sizes[k])
            sent[module] += hand.answers.count(slots.IPI)
    yield of.beside(f"{many} frees on another CPU: messages before by those after", 100,
                    sent[dfly_slab] / max(sent[dfly_slab_2020], 1), "published: 100 times or more")  # fmt: skip


def arc_in_kva(s: Setting) -> Iterator[Row]:
    """R15: FreeBSD with ZFS: how much KVA is free when there is no run of 128 KiB for a record (A. Motin, 2015)."""
    of, pages, fill = Wanted("R15", "FreeBSD, commit 2e9ccb32a1", "D"), 1 << round(s.long(14, 16)), 0.60
    found = 0
    while found == 0 and fill < 1:
        fill += 0.01
        whole = s.rng.random(pages) < 0.5  # half of the records are compressed: an assumption
        sizes = np.where(whole, 32, s.rng.integers(1, 33, pages))
        blocks = int(np.searchsorted(np.cumsum(sizes), fill * pages))
        churn = Churn(vmem, blocks, pages, import_bytes=0, direct=1)
        order = np.concatenate([np.arange(blocks), s.rng.integers(0, blocks, 40 * blocks)])
        try:
            churn.play(sizes[np.arange(len(order)) % pages], order)
        except RuntimeError:
            found = 1
    yield of.beside("vmem, best fit, half of the records compressed: free when a record finds no room, %", 27.5,
                    100 * (1 - fill), "published: 25 to 30 %")  # fmt: skip


def critical_sections(s: Setting) -> Iterator[Row]:
    """R05: FreeBSD, 29 April 2005: a critical section instead of a mutex for UMA's caches, in micro-benchmarks."""
    of = Wanted("R05", "FreeBSD, commit 5d1ae027f0", "D")
    if not s.full:
        yield of.left_out("UMA by a critical section instead of a mutex", "validate.level=full")
        return
    rates, seed = {}, s.seed()
    for lock in ("adaptive+inherit", "critical"):
        plan = plan_from(["design=freebsd_mbuma", "workload=kernel_loop", "cost=opteron2003", "interrupts/sources=none",
                          "machine.cpus=2", f"objects.locks.uma={lock}", f"seed={seed}"])  # fmt: skip
        (lane,) = simulate_lanes(json.loads(plan[0].columns["config"][0]), (0,))
        rates[lock] = float(lane.metrics[INDEX["throughput_hz"]])
    ratio = rates["critical"] / rates["adaptive+inherit"]
    yield of.beside("UMA, kernel_loop, 2 CPUs: critical section by mutex", 1.02, ratio, "published: 1 to 3 %")


CHECKS = (
    Check("L23", huge_frames, 4),
    Check("R20", idle_zones, 3),
    Check("R10", remote_frees, 2),
    Check("R15", arc_in_kva, 3),
    Check("R05", critical_sections),
)
