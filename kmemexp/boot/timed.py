"""From a cell's plain configuration to a timed machine that has booted: what `boot.machine` builds, wired up."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kmemexp import jit
from kmemexp.boot import layout, machine
from kmemexp.boot.design import allocator_names, design, map_slots, slots_of
from kmemexp.boot.routes import add_locks
from kmemexp.boot.tasks import Sources, add_source, sources_of, with_upkeep
from kmemexp.boot.wiring import Wiring
from kmemexp.sim import asking, demand, sizing
from kmemexp.sim.engine import loop
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.heap import alarm
from kmemexp.sim.engine.tables import cpu, ctx, glob, src
from kmemexp.sim.maps import DIRECT
from kmemexp.sim.replay import World
from kmemexp.sim.slots import PAGE
from kmemexp.sim.tables import flag, obj, regs
from kmemexp.workload.stream import CLASS_NAMES, OP_WORK, Handlers, Kinds, Stream

ROWS = 1024  # objects that there is room for at first, at least
LEVELS = (mc.MAIN, mc.SOFT, mc.THREAD)
"""Kinds of context that operations of a stream have, in the order of their queues."""


class Timed(NamedTuple):
    """One lane's timed machine. `wired` and `world` are replaced when they must grow."""

    base: machine.Machine
    wired: layout.Wired
    world: World
    stream: mc.Stream
    run: Callable[..., int]


class _Queues(NamedTuple):
    """A stream's operations by level and CPU, FIFO in each."""

    order: np.ndarray  # int32[ops], numbers of operations, queue after queue
    first: np.ndarray  # int64[LEVELS * cpus + 1], where each queue begins


@functools.cache
def driver(names: tuple[str, ...], arena: str) -> Callable[..., int]:
    """Bind the engine to these object allocators and this arena."""
    code = design(names, arena)
    parts = slots_of(code.servers, ("alloc", "free", "tend"))
    parts |= map_slots(code.arena) | {"map_walked": code.arena.map_walked}
    parts["map_flushes"] = getattr(code.arena, "map_flushes", asking.every_free_flushes)
    parts["map_moved"] = getattr(code.arena, "map_moved", asking.moves_none)
    return jit.bind(loop.run, parts, ",".join([*names, arena]))


def boot(
    config: Mapping[str, Any],
    kinds: Kinds,
    stream: Stream,
    replica: int,
    *,
    handlers: Handlers | None = None,
    log_rows: int = 0,
) -> Timed:
    """Boot a timed machine for a stream, and the interrupts of its recording if they are given. Raises ConfigError."""
    stream = with_handlers(stream, handlers)
    sources = sources_of(config)
    kinds = with_interrupt_kinds(kinds, sources)
    base = machine.boot(config, kinds, 0)
    wiring = _wiring(config, with_upkeep(sources, config), replica, log_rows)
    wired = _wired(config, wiring, base, kinds, stream)
    queues = _queues(stream, wiring.cpus)
    _attach(wired, wiring, queues, stream)
    contexts = wired.shape["contexts"][1]
    world = base.world._replace(
        objects=rows_of_objects(max(ROWS, stream.slots)), reg=np.zeros((contexts, regs.COLUMNS), np.int64)
    )
    run = driver(allocator_names(config["objects"]), config["maps"]["arena"])
    return Timed(base, wired, world, _engine_stream(stream, queues), run)


def with_handlers(stream: Stream, handlers: Handlers | None) -> Stream:
    """Add recorded interrupts to the end of a stream, as operations that use the CPU; the queues put them in order."""
    if handlers is None:
        return stream
    n = len(handlers.time_ns)
    more = {
        "time_ns": handlers.time_ns, "op": np.full(n, OP_WORK), "kind": np.zeros(n), "slot": np.zeros(n),
        "size": handlers.ns, "cpu": handlers.cpu, "flags": handlers.flags,
    }  # fmt: skip
    joined: dict[str, Any] = {
        name: np.concatenate([column, more[name].astype(column.dtype)])
        for name, column in stream._asdict().items()
        if name in more
    }
    return stream._replace(**joined)


def with_interrupt_kinds(kinds: Kinds, sources: Sources) -> Kinds:
    """Add the kinds that programs allocate to those of the workload; one of the same name is the workload's."""
    new: dict[str, Mapping[str, Any]] = {}
    for source in sources.values():
        for item in source.get("program", []):
            if "alloc" in item and item["alloc"]["kind"] not in kinds.names:
                new.setdefault(item["alloc"]["kind"], item["alloc"])
    if not new:
        return kinds
    names = tuple(sorted(new))
    columns = {
        "klass": [CLASS_NAMES.index(new[name]["class"]) for name in names],
        "size": [new[name]["bytes"] for name in names],
        "growth": [new[name].get("growth", 0) for name in names],
        "limit": [new[name].get("limit", 0) for name in names],
    }
    klass, size, growth, limit = (
        np.append(getattr(kinds, name), np.array(values, getattr(kinds, name).dtype))
        for name, values in columns.items()
    )
    return Kinds((*kinds.names, *names), klass, size, growth, limit, kinds.traits, kinds.recorded)


def _wiring(config: Mapping[str, Any], sources: Sources, replica: int, log_rows: int) -> Wiring:
    """Settings and sources of a cell."""
    interrupts, hardware, memory = config["interrupts"], config["machine"], config["memory"]
    wiring = Wiring(
        cpus=hardware["cpus"],
        threads=hardware["threads"],
        model=interrupts["model"],
        nested=interrupts["nested"],
        closed="pause_ns" in config["workload"],
        big_lock=interrupts["big_lock"],
        big_wait=interrupts["big_wait"],
        dispatch=interrupts["dispatch"],
        passive_messages=interrupts.get("passive_messages", False),
        slice_ns=interrupts["slice_ns"],
        would_sleep=interrupts["would_sleep"],
        on_deadlock=interrupts["on_deadlock"],
        sleep_locked=bool(memory.get("sleep_locked")),
        depth=interrupts["depth"],
        queue=interrupts["queue"],
        log_rows=log_rows,
        seed=config["seed"] * 1_000_003 + replica,
        cost=config["cost"],
        object_lines=config["cost"].get("object_lines", False),
        memory=_pages(config) if memory["limited"] else {},
        page_rule=_kernel(config).page_rule,
        direct_map=DIRECT if config["maps"]["layout"] == "direct" else -1,
        daemon="pagedaemon" if memory["limited"] else "",
    )
    for name, source in sources.items():
        add_source(wiring, name, source)
    return wiring


def _kernel(config: Mapping[str, Any]) -> sizing.Kernel:
    """Whose rules for pages hold."""
    return sizing.KERNELS[config["maps"].get("kernel", sizing.USUAL)]


def _pages(config: Mapping[str, Any]) -> dict[str, int]:
    """Pages of each sort at the beginning, and the thresholds of the machine."""
    memory, ram_bytes = config["memory"], config["machine"]["ram_bytes"]
    pages = ram_bytes // PAGE
    user, cache = round(pages * memory["user_ratio"]), round(pages * memory["cache_ratio"])
    kernel = _kernel(config)
    if kernel.page_rule == "count":  # clean pages lie on the inactive queue with the others
        user, cache = user + cache, 0
    reserves = kernel.page_reserves(ram_bytes)
    return {
        "user": user, "cache": cache, "free": pages - user - cache, "cluster": memory["cluster"],
        "interrupt_min": reserves.interrupt_free_min, "reserved": reserves.reserved, "minimum": reserves.minimum,
        "target": reserves.target,
    }  # fmt: skip


def _wired(
    config: Mapping[str, Any], wiring: Wiring, base: machine.Machine, kinds: Kinds, stream: Stream
) -> layout.Wired:
    """Lay out a machine for the kinds and the operations of a stream."""
    routes, maps = add_locks(config, wiring, base)
    wired = layout.build(
        wiring,
        routes=routes,
        maps=maps,
        kinds=base.kind_rows,
        kind_number={name: k for k, name in enumerate(kinds.names)},
        recorded=bool((stream.flags & (flag.SOFT | flag.HARD)).any()) if len(stream.op) else False,
    )
    wired.m[glob.ROW_FREE] = 0
    wired.m[glob.LEFT] = len(stream.op)
    return wired


def _queues(stream: Stream, cpus: int) -> _Queues:
    """Put the operations in order by level and CPU."""
    level = np.where(stream.flags & flag.HARD, mc.THREAD, np.where(stream.flags & flag.SOFT, mc.SOFT, mc.MAIN))
    queue = level * cpus + stream.cpu % cpus
    late_rows = (stream.op == OP_WORK).any()  # recorded interrupts stand at the end of the stream
    order = (np.lexsort((stream.time_ns, queue)) if late_rows else np.argsort(queue, kind="stable")).astype(np.int32)
    return _Queues(order, np.searchsorted(queue[order], np.arange(len(LEVELS) * cpus + 1)))


def _attach(wired: layout.Wired, wiring: Wiring, queues: _Queues, stream: Stream) -> None:
    """Tell CPUs and recorded interrupts which operations of the stream are theirs."""
    cpus = wired.table("cpus")
    cpus[:, cpu.OP], cpus[:, cpu.END] = queues.first[: wiring.cpus], queues.first[1 : wiring.cpus + 1]
    recorded = wired.table("sources")[len(wiring.sources) + 1 :]  # after the wiring's own and the messages
    for level, source in zip(LEVELS[1:], recorded, strict=False):
        for c in range(wiring.cpus):
            begin, end = queues.first[level * wiring.cpus + c : level * wiring.cpus + c + 2]
            x = source[src.FIRST] + c * wired.shape["contexts"][2]
            wired.m[x + ctx.PC], wired.m[x + ctx.BURST] = begin, end
            if begin < end:
                i = int(queues.order[begin])
                jit.entry(alarm)(wired.m, x, int(stream.time_ns[i]), i)


def _engine_stream(stream: Stream, queues: _Queues) -> mc.Stream:
    return mc.Stream(
        stream.time_ns[queues.order], stream.op, stream.kind, stream.slot, stream.size, stream.flags & 0xFF,
        queues.order, demand.empty(len(stream.op), np.int32), demand.zeros(max(stream.slots, 1), np.int32),
    )  # fmt: skip


def enlarge(t: Timed) -> Timed:
    """Make room for more objects or messages, whichever there is none of."""
    m = t.wired.m
    if m[glob.MSG_FREE] < 0:
        return t._replace(wired=layout.enlarge_messages(t.wired))
    if m[glob.ROW_FREE] >= 0:
        return t
    old = t.world.objects
    more = rows_of_objects(len(old))
    more[:, obj.SIZE] += len(old)
    more[-1, obj.SIZE] = -1
    m[glob.ROW_FREE] = len(old)
    both = np.concatenate([old, more], out=demand.empty((2 * len(old), obj.COLUMNS)))
    return t._replace(world=t.world._replace(objects=both))


def rows_of_objects(n: int) -> np.ndarray:
    """Return free rows of the table of objects, linked through obj.SIZE."""
    rows = demand.zeros((n, obj.COLUMNS))
    rows[:, obj.ADDR] = obj.ABSENT
    rows[:, obj.SIZE] = np.arange(1, n + 1)
    rows[-1, obj.SIZE] = -1
    return rows
