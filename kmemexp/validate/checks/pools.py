"""Bounded pools and maps in the engine: Erlang, Engset, reserves, full rings, the load generator; Q7 to Q10, F8, F9."""

from collections.abc import Iterator

import numpy as np

from kmemexp.boot import timed, wiring
from kmemexp.lane.timed import advance
from kmemexp.sim.engine.tables import seen
from kmemexp.sim.maps import EXEC
from kmemexp.sim.maps import PAGER as PAGER_MAP
from kmemexp.sim.slots import ATTR_WIRED
from kmemexp.sim.tables import obj, tally
from kmemexp.validate import chains, layouts, machines, pools
from kmemexp.validate.bench import bench
from kmemexp.validate.check import Check
from kmemexp.validate.pools import INTERRUPT, LAWS, MAIN, unit
from kmemexp.validate.rows import Row, Wanted, in_batches
from kmemexp.validate.setting import Setting


def erlang(s: Setting) -> Iterator[Row]:
    """Q7: a pool loses what Erlang says, whatever the law of the holding times."""
    of = Wanted("Q7", "Erlang B, insensitive", "B")
    for law in LAWS:
        units = s.whole(3, 20)
        offered = round(units * s.uniform(0.5, 0.9), 2)
        kinds = {"unit": unit(offered, LAWS[law])}
        losses = pools.play(kinds, s.long(3e5, 1.5e6), pages=units, seed=s.seed(), per_batch=20)
        ratios, weights = losses.ratio(MAIN)
        what = f"{units} pages, offered {offered:g}, {law} holding"
        loss = chains.erlang_b(units, offered)
        yield of.estimate(f"{what}: loss", loss, ratios, weights=weights, tolerance=0.5)
        mean = pools.batches(losses.in_use) / 20
        yield of.estimate(f"{what}: pages in use", offered * (1 - loss), mean, tolerance=0.3)
        yield Wanted("Q7", "counters", "A").exact(f"{what}: failures counted are those refused", losses.failures,
                                                 losses.refused.sum())  # fmt: skip


def ring(s: Setting) -> Iterator[Row]:
    """Q7: a ring of interrupts that is full loses those that come, as M/M/1/K does."""
    rho, room = s.uniform(0.6, 1.6), s.whole(3, 8)
    w = wiring.Wiring(depth=room - 1, seed=s.seed())
    w.source("irq", "device", [{"work": {"law": "exponential", "ns": 10_000}}], law="poisson", rate_hz=rho * 1e5)
    machine = bench(w)
    counted = machines.in_batches(machine, round(s.long(5e9, 25e9)), (seen.LOST, seen.INTERRUPTS))
    lost, came = counted.ratio(0, 1)
    of = Wanted("Q7", "M/M/1/K", "B")
    yield of.estimate(f"ring of {room}, load {rho:g}: interrupts lost", pools.full_ring(rho, room), lost, weights=came,
                      tolerance=0.3)  # fmt: skip
    yield _last_page(s)
    found = machines.books(machine)
    yield Wanted("Q11", "Little 1961", "A").all_equal(f"ring of {room}: books", [b.one for b in found],
                                                     [b.other for b in found])  # fmt: skip
    # The first ones of a burst that fills the ring: one at work, the others behind it.
    w = wiring.Wiring(depth=room - 1, cpus=2)
    w.source("irq", "device", [{"work": 1000}])
    kick = [{"raise": "irq"}] * (room + 2)
    w.source("kick", "fast", kick, law="periodic", period_ns=10**12, phase_ns=0, route=1)
    machine = bench(w)
    machine.run(10**6)
    yield Wanted("Q7", "a ring of K", "A").all_equal(
        f"{room + 2} at once, a ring for {room}: handled, lost",
        (room, 2),
        (machine.count(seen.DONE) - 1, machine.count(seen.LOST)),
    )


def finite(s: Setting) -> Iterator[Row]:
    """Q8: requests of finite sources find the pool empty less often than it is."""
    of = Wanted("Q8", "Engset", "B")
    for _ in range(round(s.long(1, 3))):
        sources, units, rate = s.whole(6, 20), s.whole(2, 4), s.uniform(0.15, 0.6)
        machine = pools.finite_sources(sources, units, rate, seed=s.seed())
        span = round(s.long(6e5, 4e6) / (sources * (1 + rate) + 5) / pools.SCALE * 1e9 / 20)
        asked, refused, looks, empty = pools.congestion(machine, span)
        time, call = pools.engset(sources, units, rate)
        what = f"{sources} sources, {units} units, rate {rate:g}"
        yield of.estimate(f"{what}: requests lost", call, refused / asked, weights=asked, tolerance=0.4)
        yield of.estimate(f"{what}: share of the time without one", time, empty / looks, weights=looks, tolerance=0.4)


def split_and_reserve(s: Setting) -> Iterator[Row]:
    """Q9: two maps or one, and a reserve for interrupts."""
    of = Wanted("Q9", "birth and death", "B")
    units, reserve = s.whole(12, 24), s.whole(1, 2)
    main, interrupt = round(units * s.uniform(0.5, 0.7), 2), round(units * s.uniform(0.1, 0.2), 2)
    kinds = {"main": unit(main), "interrupt": unit(interrupt, level=INTERRUPT)}
    losses = pools.play(kinds, s.long(6e5, 2e6), pages=units, reserve=reserve, seed=s.seed())
    want = pools.reserved(units, main, interrupt, reserve)
    what = f"{units} pages, {reserve} for interrupts, offered {main:g} and {interrupt:g}"
    for level, name, tolerance in ((MAIN, "mainline", 0.4), (INTERRUPT, "interrupts", 1.5)):
        ratios, weights = losses.ratio(level)
        yield of.estimate(f"{what}: loss of {name}", want[level], ratios, weights=weights, tolerance=tolerance)
    sizes = (s.whole(6, 12), s.whole(4, 8))
    offered = tuple(round(n * s.uniform(0.5, 0.8), 2) for n in sizes)
    kinds = {"main": unit(offered[0], klass="exec"), "interrupt": unit(offered[1], level=INTERRUPT, klass="pager")}
    found = pools.play(kinds, s.long(4e5, 1e6), maps={EXEC: sizes[0], PAGER_MAP: sizes[1]}, seed=s.seed())
    for level in (MAIN, INTERRUPT):
        ratios, weights = found.ratio(level)
        loss = chains.erlang_b(sizes[level], offered[level])
        yield of.estimate(f"maps of {sizes[0]} and {sizes[1]} pages, offered {offered[level]:g}: loss of map {level}",
                          loss, ratios, weights=weights, tolerance=0.4)  # fmt: skip
    together = {name: kind | {"class": "exec"} for name, kind in kinds.items()}
    found = pools.play(together, s.long(4e5, 1e6), maps={EXEC: sum(sizes)}, seed=s.seed())
    ratios = pools.batches(found.refused.sum(axis=0)) / (asked := pools.batches(found.asked.sum(axis=0)))
    loss = chains.erlang_b(sum(sizes), sum(offered))
    yield of.estimate(f"one map of {sum(sizes)} pages for both: loss", loss, ratios, weights=asked, tolerance=0.8)


def contiguous(s: Setting) -> Iterator[Row]:
    """F8, F9: requests of several pages on a small map in the engine lose what the exact chain of its layouts says."""
    of = Wanted("F8", "exact chain of a model written apart", "B")
    cells, sizes = 8, (1, 2, 4)
    load = {size: s.uniform(0.3, 1.5) / size for size in sizes}
    told = chains.loss(layouts.search("FF", sizes, cells, cells), load, cells)
    kinds = {f"of {z}": unit(rate, klass="exec", pages=z, level=INTERRUPT if z == max(sizes) else MAIN)
             for z, rate in load.items()}  # fmt: skip
    found = pools.play(kinds, s.long(4e5, 2e6), maps={EXEC: cells}, seed=s.seed())
    what = "first fit in the engine, 8 pages, load {" + ", ".join(f"{z}: {r:.3g}" for z, r in load.items()) + "}"
    small = np.array([load[1], load[2]])
    for level, name, want in ((MAIN, "1 and 2 pages", float(small @ told.blocked[:2] / small.sum())),
                              (INTERRUPT, "4 pages", float(told.blocked[2]))):  # fmt: skip
        ratios, weights = found.ratio(level)
        yield of.estimate(f"{what}: loss of {name}", want, ratios, weights=weights, tolerance=0.15)
    paged = {f"of {z}": unit(rate, pages=z, level=INTERRUPT if z == max(sizes) else MAIN) for z, rate in load.items()}
    found = pools.play(paged, s.long(4e5, 2e6), pages=cells, seed=s.seed(), per_batch=80)
    utilisation, lost = chains.kaufman_roberts(cells, load)
    of, what = (
        Wanted("F9", "Kaufman 1981, Roberts 1981", "B"),
        what.replace("first fit in the engine, 8", "a pool of 8"),
    )
    for level, name, want in ((MAIN, "1 and 2 pages", float(small @ np.array(lost[:2]) / small.sum())),
                              (INTERRUPT, "4 pages", lost[2])):  # fmt: skip
        ratios, weights = found.ratio(level)
        yield of.estimate(f"{what}: loss of {name}", want, ratios, weights=weights, tolerance=0.15)
    yield of.estimate(f"{what}: share in use", utilisation, pools.batches(found.in_use) / 80 / cells, tolerance=0.2)
    yield of.holds(f"{what}: where pages need not be together, less is lost of the largest", lost[2] < told.blocked[2])


def generator(s: Setting) -> Iterator[Row]:
    """Q10: live objects are Poisson and live bytes compound Poisson, in the machine."""
    of = Wanted("Q10", "M/G/∞", "B")
    rate, mean, top = s.uniform(500, 1500), s.uniform(0.1, 0.3), s.whole(100, 300)
    law = s.one(({"law": "exponential", "mean_s": mean}, {"law": "fixed", "seconds": mean}))
    kind = {"class": "malloc", "size": {"law": "uniform", "low_bytes": 1, "high_bytes": top}, "rate_hz": rate,
            "lifetime": law}  # fmt: skip
    seconds = round(s.long(402, 1302))
    made = pools.load({"object": kind}, float(seconds), s.seed())
    t = advance(timed.boot(pools.config(), made.kinds, made.streams[0], 0), 2_000_000_000)
    live, held, books = [], [], 0
    for second in range(2, seconds):
        t = advance(t, second * 1_000_000_000)
        there = t.world.objects[:, obj.ADDR] >= 0
        live.append(int(there.sum()))
        held.append(int(t.world.objects[there, obj.SIZE].sum()))
        counters = t.world.counters
        books += live[-1] == counters[tally.ALLOCS] - counters[tally.FREES] and held[-1] == counters[tally.REQUESTED]
    what = f"{rate:g}/s, {law['law']} lifetimes of {mean:g} s, sizes to {top}"
    yield of.estimate(f"{what}: live objects", rate * mean, in_batches(live), tolerance=0.05)
    yield of.estimate(f"{what}: variance of live objects", rate * mean,
                      in_batches((np.array(live) - rate * mean) ** 2), tolerance=0.9)  # fmt: skip
    yield of.estimate(f"{what}: live bytes", rate * mean * (top + 1) / 2, in_batches(held), tolerance=0.05)
    yield Wanted("Q11", "counters", "A").exact(f"{what}: seconds at which objects and bytes are what is counted",
                                              len(live), books)  # fmt: skip


def _last_page(s: Setting) -> Row:
    """Interrupts that cannot wait get all pages of a pool, and no more."""
    pages = s.whole(2, 9)
    w = wiring.Wiring(memory=machines.NOTHING | {"free": pages, "reserved": 2, "interrupt_min": 1})
    w.source("asks", "device", [machines.get("nowait")] * (pages + 2), law="periodic", period_ns=10**12, phase_ns=0)
    machine = bench(w, kinds={"unit": (0, ATTR_WIRED)})
    machine.run(10**6)
    got = (int(machine.world.counters[tally.ALLOCS]), machine.count(seen.PAGE_FAILURES))
    return Wanted("Q7", "a pool of c", "A").all_equal(f"{pages + 2} requests at once, {pages} pages: served, refused",
                                                     (pages, 2), got)  # fmt: skip


CHECKS = (
    Check("Q7", erlang, 6),
    Check("Q7b", ring),
    Check("Q8", finite, 2),
    Check("Q9", split_and_reserve, 5),
    Check("F9", contiguous, 3),
    Check("Q10", generator, 2),
)
