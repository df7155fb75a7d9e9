"""What must balance in the engine whatever the design (Q11), and that it does what the driver without a clock does.

The designs are the shipped ones with the costs of 2003 and a load that keeps four CPUs at work; balances are drawn at
many instants of a run, with operations, interrupts and waits in progress.
"""

import functools
import json
from collections.abc import Iterator

import numpy as np
import pytest
from small_cell import KINDS, LOAD

from kmemexp.boot import layout, timed
from kmemexp.boot.machine import boot
from kmemexp.lane import latency
from kmemexp.planning.plan import plan_from
from kmemexp.sim import maps
from kmemexp.sim import probes as a
from kmemexp.sim import slots as s
from kmemexp.sim.arenas import vm_map
from kmemexp.sim.engine import contexts as cx
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine import programs
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, seen, src
from kmemexp.sim.tables import obj, tally
from kmemexp.workload import build, stream

DESIGNS = ["freebsd4", "freebsd4_unified", "dragonfly_2003aug25", "dragonfly_2003oct"]
MEMORY = ["unlimited", "era2003"]
EVER = 1 << 60
PHASES = [{"name": "up", "seconds": 3.0, "level": 1.0}, {"name": "down", "seconds": 1.0, "level": 0.1}]
SLOW = ("cost.alloc_ns=20000", "cost.free_ns=20000", "cost.map_ns=20000")  # locks are held for long, so that many wait
# What runs in an interrupt does not wait for memory here: on FreeBSD's borrowed stacks that may deadlock. Nor does
# anyone wait at a limit, as only a clock knows how long: exec_map has room, and clusters are asked for without waiting.
CAREFUL = KINDS | {
    "large": KINDS["large"] | {"nowait": 0.3, "soft": 0.3},
    "cluster": KINDS["cluster"] | {"nowait": 1.0},
    "args": KINDS["args"] | {"lifetime": {"law": "exponential", "mean_s": 0.04}},
}
BUSY = LOAD | {"scale": 20.0, "phases": PHASES, "kinds": CAREFUL}
BLOCK = {"size": {"law": "fixed", "bytes": 32768}, "rate_hz": 400.0, "lifetime": {"law": "exponential", "mean_s": 6.0}}
BURST = LOAD | {"kinds": CAREFUL | {"block": KINDS["small"] | BLOCK}}


@functools.cache
def config(*overrides: str) -> dict:
    return json.loads(plan_from(list(overrides))[0].cells["config"].iloc[0])


@functools.cache
def synthetic(name: str) -> stream.Load:
    return build.build({"busy": BUSY, "burst": BURST}[name], cpus=4, seed=7, replicas=[0])


def busy(design: str, memory: str = "unlimited", *more: str) -> timed.Timed:
    """Boot a design for the busy load, on a machine short of memory where that is limited."""
    plain = config(f"design={design}", "cost=opteron2003", f"memory={memory}", "machine.cpus=4", *more)
    load = synthetic("busy")
    return timed.boot(plain | {"workload": BUSY}, load.kinds, load.streams[0], 0)


def play(t: timed.Timed, until: int, budget: int = EVER) -> timed.Timed:
    """Run until a time or the end of the stream, returning to Python after `budget` events each."""
    while True:
        code = t.run(t.world, t.wired.m, t.stream, until, budget)
        if code == mc.E_GROW:
            t = timed.enlarge(t)
        elif code != mc.E_CHUNK:
            return t


def instants(t: timed.Timed, count: int = 40) -> Iterator[timed.Timed]:
    """Stop at many instants of a run, the last of which is its end, or a deadlock."""
    for until in np.linspace(0, t.stream.time.max(), count).astype(np.int64)[1:-1].tolist():
        t = play(t, until)
        yield t
        if t.wired.m[glob.EXIT] == mc.E_DEADLOCK:
            return
    yield play(t, 20 * int(t.stream.time.max()))


def arrays(value: object, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """All arrays in nested tuples, by their names."""
    if isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, tuple):
        for name, part in zip(getattr(value, "_fields", range(len(value))), value, strict=True):
            yield from arrays(part, f"{path}.{name}")


def same(one: object, other: object) -> None:
    """Compare all arrays of two states."""
    for (path, left), (_, right) in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_array_equal(left, right, err_msg=path)


def inside(wired: layout.Wired) -> list[int]:
    """Times at which the interrupts were raised that have not been handled."""
    m, raised = wired.m, []
    for x in wired.table("contexts"):
        source = x[ctx.SOURCE]
        endless = x[ctx.KIND] == mc.MAIN and source >= 0 and m[source + src.LAW] == programs.NONE
        if source >= 0 and x[ctx.STATE] != cx.IDLE and not endless:
            raised.append(x[ctx.RAISED])
            places = (x[ctx.QHEAD] + np.arange(x[ctx.QLEN])) % m[glob.DEPTH]
            raised.extend(m[x[ctx.RING] + places])
    return raised


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("design", DESIGNS)
def test_little_s_law_holds_exactly_for_interrupts_and_for_waits(design: str, memory: str) -> None:
    most = 0
    for t in instants(busy(design, memory, *(SLOW if memory == "unlimited" else ())), 200):
        m, now = t.wired.m, t.wired.m[glob.NOW]
        raised = inside(t.wired)
        assert m[seen.INSIDE] == len(raised)
        assert m[seen.INTERRUPTS] == m[seen.DONE] + m[seen.LOST] + len(raised)
        area = m[seen.AREA] + m[seen.INSIDE] * (now - m[seen.AREA_AT])
        assert area == m[seen.SOJOURN] + sum(now - at for at in raised)
        contexts = t.wired.table("contexts")
        waiting = contexts[contexts[:, ctx.WAIT] >= 0]
        assert m[seen.WAITING] == len(waiting)
        area = m[seen.WAIT_AREA] + m[seen.WAITING] * (now - m[seen.WAIT_AT])
        assert area == m[seen.WAIT_NS] + (now - waiting[:, ctx.SINCE]).sum()
        assert m[seen.WAIT_NS] == t.wired.table("locks")[:, lock.WAIT_NS].sum()
        assert m[seen.LOCKS] == t.wired.table("locks")[:, lock.TAKEN].sum()
        most = max(most, len(waiting))
    assert m[seen.CONTENDED] > 500
    assert most > 1 or memory == "era2003"
    # With interrupts that allocate and no kmem_map, the map's lock deadlocks: claim C1.
    deadlock = design == "freebsd4_unified" and memory == "unlimited"
    assert m[glob.EXIT] == (mc.E_DEADLOCK if deadlock else mc.E_DONE)


@pytest.mark.parametrize("design", DESIGNS)
def test_every_nanosecond_of_every_cpu_is_accounted_for_once(design: str) -> None:
    for t in instants(busy(design)):
        cpus = t.wired.table("cpus")
        spent = cpus[:, cpu.TIME : cpu.TIME + cpu.TIME_COUNT]
        assert (spent >= 0).all()
        np.testing.assert_array_equal(spent.sum(axis=1), cpus[:, cpu.MARK])
        assert (cpus[:, cpu.MARK] <= t.wired.m[glob.NOW]).all()
    assert t.wired.m[glob.EXIT] == mc.E_DONE
    assert (spent[:, [cpu.TIME_IDLE, cpu.TIME_MAIN, cpu.TIME_SOFT]] > 0).all()
    assert spent[:, cpu.TIME_FAST].any()  # of the serial line, on one CPU, where clocks are no fast interrupts


@pytest.mark.parametrize("design", DESIGNS)
def test_no_page_is_lost_or_made(design: str) -> None:
    t = busy(design, "era2003", "memory.fault_hz=10000", "memory.io_ns=1000000")
    m = t.wired.m
    total = m[[glob.FREE, glob.CACHE, glob.USER]].sum()
    for t in instants(t):  # noqa: B020
        m, counters, contexts = t.wired.m, t.world.counters, t.wired.table("contexts")
        lacking = contexts[np.isin(contexts[:, ctx.ANSWER], (s.MAP_ALLOC, s.WIRE)), ctx.NEED].sum()
        assert (m[[glob.FREE, glob.CACHE, glob.USER]] >= 0).all()
    objects, wired = t.world.objects, t.world.attribute == s.ATTR_WIRED
    direct = (t.world.server == a.SERVER_MAP) & wired
    sizes = objects[(objects[:, obj.ADDR] >= 0) & direct[objects[:, obj.KIND]], obj.SIZE]
    assert m[glob.EXIT] == mc.E_DONE
    held = counters[tally.HELD] // s.PAGE + np.ceil(sizes / s.PAGE).sum() - lacking
    assert m[[glob.FREE, glob.CACHE, glob.USER]].sum() + held == total
    assert m[seen.SLEPT] > 0
    assert m[seen.DAEMON_PAGES] > 0


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("design", DESIGNS)
def test_every_operation_is_counted_once_and_every_object_is_in_the_table(design: str, memory: str) -> None:
    ops = synthetic("busy").streams[0]
    for t in instants(busy(design, memory)):
        m, counters, objects = t.wired.m, t.world.counters, t.world.objects
        live = objects[objects[:, obj.ADDR] >= 0]
        assert len(live) == counters[tally.ALLOCS] - counters[tally.FREES]
        served = live[t.world.server[live[:, obj.KIND]] != a.SERVER_MAP]
        assert served[:, obj.SIZE].sum() == counters[tally.REQUESTED]
        assert served[:, obj.GRANTED].sum() == counters[tally.GRANTED] <= counters[tally.HELD]
        order = live[np.argsort(live[:, obj.ADDR])]
        assert (order[:-1, obj.ADDR] + order[:-1, obj.SIZE] <= order[1:, obj.ADDR]).all()
        hist = latency.histograms(t.wired)
        done = {
            verb: sum(hist[f"{verb}_{k}"].sum() for k in ("main", "soft", "device", "fast"))
            for verb in ("alloc", "free")
        }
        assert done["alloc"] == counters[tally.ALLOCS] + counters[tally.FAILURES]
        assert done["free"] == counters[tally.FREES]
        assert 0 <= m[seen.OPS_DONE] - done["alloc"] - done["free"] <= m[seen.SENT]
    assert (counters[tally.OPS], m[glob.LEFT], m[glob.EXIT]) == (ops.length, 0, mc.E_DONE)
    rows = objects[t.stream.row_in[: ops.slots]]
    last = np.zeros(ops.slots, np.int64)
    np.maximum.at(last, ops.slot, np.arange(ops.length))
    there = ops.op[last] == stream.OP_ALLOC
    assert there.sum() > 1000
    assert (rows[there, obj.ADDR] >= 0).mean() > 0.9  # the others had failed
    for number in range(len(maps.MAP_NAMES)):
        vm_map.check(t.world.arena, number)


@pytest.mark.parametrize("design", DESIGNS)
def test_a_run_does_not_depend_on_how_often_it_is_interrupted(design: str) -> None:
    end = 20 * int(synthetic("busy").streams[0].time_ns[-1])
    at_once, chunks, steps, other = (busy(design, "era2003") for _ in range(4))
    for t in (chunks, steps):
        alike(at_once.world, t.world)
    at_once, chunks, other = play(at_once, end), play(chunks, end, 1000), play(other, end)
    *_, steps = instants(steps, 200)
    for t in (chunks, steps):
        same(at_once.world, t.world)
        same(at_once.wired.m, t.wired.m)
    same(at_once.wired.m, other.wired.m)
    same(at_once.world.objects, other.world.objects)


def replayed(design: str, load: stream.Load, source: dict, edges: np.ndarray) -> Iterator[tuple]:
    """Play a load on both drivers side by side; yields the two states at each of these times."""
    ops = load.streams[0]
    plain = config(f"design={design}", "cost=none", "machine.cpus=4") | {"workload": source}
    zero = config(f"design={design}", "cost=zero", "interrupts/sources=none", "machine.cpus=4") | {"workload": source}
    machine = boot(plain, load.kinds, ops.slots)
    t = timed.boot(zero, load.kinds, ops, 0)
    for name in ("state_a", "state_b", "state_c"):
        alike(getattr(machine.world, name), getattr(t.world, name))
    at = 0
    for until in edges.tolist():
        end = int(np.searchsorted(ops.time_ns, until, side="right"))
        at += machine.replay(machine.world, *stream.columns(ops), at, end)
        t = play(t, until)
        yield machine.world, t


def alike(one: object, other: object) -> None:
    """Let what neither has written yet (links of free lists) be the same."""
    for (_, left), (_, right) in zip(arrays(one), arrays(other), strict=True):
        np.copyto(right, left)


def compare(replay: tuple, t: timed.Timed) -> None:
    """The same state of every allocator and of the maps, the same counters, the same address in every slot."""
    for name in ("state_a", "state_b", "state_c", "arena", "counters"):
        same(getattr(replay, name), getattr(t.world, name))
    rows = t.stream.row_in[: len(replay.objects)]
    live = np.flatnonzero(replay.objects[:, obj.ADDR] >= 0)
    one, other = replay.objects[live], t.world.objects[rows[live]]
    np.testing.assert_array_equal(one[:, [obj.ADDR, obj.SIZE]], other[:, [obj.ADDR, obj.SIZE]])
    served = t.world.server[other[:, obj.KIND]] != a.SERVER_MAP
    np.testing.assert_array_equal(one[served, obj.GRANTED], other[served, obj.GRANTED])
    assert (t.world.objects[:, obj.ADDR] >= 0).sum() == len(live)


@pytest.mark.parametrize("name", ["busy", "burst"])
@pytest.mark.parametrize("design", DESIGNS)
def test_without_costs_it_does_exactly_what_the_driver_without_a_clock_does(design: str, name: str) -> None:
    load = synthetic(name)
    edges = np.linspace(0, load.streams[0].time_ns[-1], 6).astype(np.int64)[1:]
    for replay, t in replayed(design, load, LOAD, edges):
        compare(replay, t)
    assert t.world.counters[tally.OPS] == load.streams[0].length
    assert t.wired.m[seen.CONTENDED] == 0
    if name == "burst" and design == "freebsd4":
        assert t.world.counters[tally.FAILURES] > 100
        assert t.world.counters[tally.PANICS] > 0


@pytest.mark.parametrize("design", DESIGNS)
def test_without_costs_a_recorded_trace_goes_as_in_the_driver_without_a_clock(design: str) -> None:
    source = config("workload=filetree", "workload.copies=1", "workload.window_s=0.5")["workload"]
    load = build.build(source, cpus=4, seed=0, replicas=[0])
    edges = np.linspace(0, load.streams[0].time_ns[-1], 5).astype(np.int64)[1:]
    for replay, t in replayed(design, load, source, edges):
        compare(replay, t)
    assert t.world.counters[tally.OPS] == load.streams[0].length > 10_000
