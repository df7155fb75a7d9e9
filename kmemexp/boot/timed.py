"""From a cell's plain configuration to a timed machine that has booted: the rest of `compose`, for the engine."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kmemexp import jit
from kmemexp.boot import design, layout, wiring
from kmemexp.boot import machine as compose
from kmemexp.boot.duties import WATCH, duties
from kmemexp.boot.sources import KEYS, PRIORITIES
from kmemexp.errors import ConfigError
from kmemexp.parts.lock_spec import SPL
from kmemexp.sim import asking, sizing
from kmemexp.sim.engine import loop as engine
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.contexts import C_END, C_OP, X_BURST, X_PC
from kmemexp.sim.engine.heap import alarm
from kmemexp.sim.engine.interrupts import S_COUNT, S_FIRST
from kmemexp.sim.maps import DIRECT, KERNEL, KMEM, MAP_NAMES, MB
from kmemexp.sim.probes import ABSENT, O_ADDR, O_COUNT, O_SIZE
from kmemexp.sim.slots import F_HARD, F_SOFT, PAGE, R_COUNT, T_REAP, T_TICK
from kmemexp.workload import stream as w

ROWS = 1024  # objects that there is room for at first
SERVERS = 4  # three object allocators and the maps themselves
CLOCK_ALLOCATION = {"alloc": {"kind": "clock", "class": "malloc", "bytes": 4096, "flags": "nowait"}}


class Timed(NamedTuple):
    """One lane's timed machine. `wired` and `world` are replaced when they must grow."""

    base: compose.Machine
    wired: layout.Wired
    world: Any  # replay.World
    stream: mc.Stream
    run: Callable


@functools.cache
def driver(names: tuple[str, ...], arena: str) -> Callable:
    """Bind the engine to these object allocators and this arena."""
    code = design.design(names, arena)
    parts = design.slots_of(code.servers, ("alloc", "free", "tend"))
    parts |= design.map_slots(code.arena) | {"map_walked": code.arena.map_walked}
    parts["map_flushes"] = getattr(code.arena, "map_flushes", asking.every_free_flushes)
    return jit.bind(engine.run, parts, ",".join([*names, arena]))


def is_timed(config: Mapping) -> bool:
    """Whether a cell runs on the machine with a clock."""
    return config["cost"]["name"] != "none"


def boot(
    config: Mapping,
    kinds: w.Kinds,
    stream: w.Stream,
    replica: int,
    *,
    handlers: w.Handlers | None = None,
    log_rows: int = 0,
) -> Timed:
    """Boot a timed machine for a stream, and the interrupts of its recording if they are given. Raises ConfigError."""
    stream = with_handlers(stream, handlers)
    sources = _sources(config)
    kinds = with_interrupt_kinds(kinds, sources)
    base = compose.boot(config, kinds, 0)
    names = design.allocator_names(config["objects"])
    sources = with_upkeep(sources, config)
    plan = _plan(config, sources, replica, log_rows)
    routes, maps = _locks(config, plan, base, names)
    recorded = bool((stream.flags & (F_SOFT | F_HARD)).any()) if stream.length else False
    number = {name: k for k, name in enumerate(kinds.names)}
    wired = layout.build(plan, routes=routes, maps=maps, kinds=base.kind_rows, kind_number=number, recorded=recorded)
    contexts = wired.shape["contexts"][1]
    world = base.world._replace(objects=rows_of_objects(ROWS), reg=np.zeros((contexts, R_COUNT), np.int64))
    wired.m[mc.G_ROW_FREE] = 0
    wired.m[mc.G_LEFT] = stream.length
    queues = _queues(stream, config["machine"]["cpus"])
    _attach(wired, plan, queues, stream)
    return Timed(base, wired, world, _engine_stream(stream, queues[0]), driver(names, config["maps"]["arena"]))


def with_handlers(stream: w.Stream, handlers: w.Handlers | None) -> w.Stream:
    """Add recorded interrupts to the end of a stream, as operations that use the CPU; the queues put them in order."""
    if handlers is None:
        return stream
    n = len(handlers.time_ns)
    none = np.zeros(n, np.int32)
    more = w.Stream(handlers.time_ns, np.full(n, w.OP_WORK, np.uint8), none.astype(np.int16), none, handlers.ns,
                    handlers.cpu, handlers.flags, 0)  # fmt: skip
    columns = (np.concatenate([a, b]).astype(a.dtype) for a, b in zip(stream[:-1], more[:-1], strict=True))
    return w.Stream(*columns, slots=stream.slots)


def enlarge(t: Timed) -> Timed:
    """Make room for more objects or messages, whichever there is none of."""
    m = t.wired.m
    if m[mc.G_MSG_FREE] < 0:
        return t._replace(wired=layout.enlarge_messages(t.wired))
    if m[mc.G_ROW_FREE] >= 0:
        return t
    old = t.world.objects
    more = rows_of_objects(len(old))
    more[:, O_SIZE] += len(old)
    more[-1, O_SIZE] = -1
    m[mc.G_ROW_FREE] = len(old)
    return t._replace(world=t.world._replace(objects=np.concatenate([old, more])))


def rows_of_objects(n: int) -> np.ndarray:
    """Return free rows of the table of objects, linked through O_SIZE."""
    rows = np.zeros((n, O_COUNT), np.int64)
    rows[:, O_ADDR] = ABSENT
    rows[:, O_SIZE] = np.arange(1, n + 1)
    rows[-1, O_SIZE] = -1
    return rows


def with_interrupt_kinds(kinds: w.Kinds, sources: Mapping[str, Mapping[str, Any]]) -> w.Kinds:
    """Add the kinds that programs allocate to those of the workload; one of the same name is the workload's."""
    new = {}
    for source in sources.values():
        for item in source.get("program", []):
            if "alloc" in item:
                kind = item["alloc"]
                new.setdefault(kind["kind"], kind)
    new = {name: kind for name, kind in sorted(new.items()) if name not in kinds.names}
    if not new:
        return kinds
    columns = {
        "klass": [w.CLASS_NAMES.index(kind["class"]) for kind in new.values()],
        "size": [kind["bytes"] for kind in new.values()],
        "growth": [kind.get("growth", 0) for kind in new.values()],
        "limit": [kind.get("limit", 0) for kind in new.values()],
    }
    joined = {
        name: np.append(getattr(kinds, name), np.array(values, getattr(kinds, name).dtype))
        for name, values in columns.items()
    }
    return w.Kinds(names=(*kinds.names, *new), **joined)


def _sources(config: Mapping) -> dict[str, dict[str, Any]]:
    """Sources of the configuration, their rates scaled, with what the memory model adds."""
    interrupts = config["interrupts"]
    sources = {name: dict(source) for name, source in interrupts["sources"].items() if source}
    scaling = [s for s in sources.values() if s.get("scales")]
    if interrupts["rate_hz"] is not None and scaling:
        factor = interrupts["rate_hz"] / max(s["rate_hz"] for s in scaling)
        for source in scaling:
            source["rate_hz"] = source["rate_hz"] * factor
    if interrupts["clock_allocates"]:
        if "clock" not in sources:
            raise ConfigError("interrupts.clock_allocates=true: there is no source called clock")
        sources["clock"]["program"] = [*sources["clock"]["program"], {"free": "clock"}, CLOCK_ALLOCATION]
    return sources | _memory_tasks(config["memory"], sources)


def with_upkeep(sources: Mapping[str, Mapping[str, Any]], config: Mapping) -> dict[str, Mapping[str, Any]]:
    """Add a task for each allocator that has periodic upkeep and for a policy's duties; the page daemon reaps too."""
    code = design.design(design.allocator_names(config["objects"]), config["maps"]["arena"])
    tasks = {
        f"upkeep_{name}": {"mode": "task", "priority": PRIORITIES["daemon"], "program": [
            {"sleep": every}, {"tend": (place, T_TICK)}]}
        for place, (name, every) in enumerate(zip(code.names, code.ticks, strict=False)) if every
    }  # fmt: skip
    reap = [{"tend": (place, T_REAP)} for place, gives in enumerate(design.reapers(config)) if gives]
    for duty in duties((), config["policy"]) if reap else ():
        asked = [{"watch": None}] if duty.what == WATCH else []
        tasks[f"policy_{len(tasks)}"] = {"mode": "task", "priority": PRIORITIES["daemon"], "program": [
            {"sleep": duty.every_ns}, *asked, *reap]}  # fmt: skip
    if reap and "pagedaemon" in sources:
        rest, *more = sources["pagedaemon"]["program"]
        sources = {**sources, "pagedaemon": {**sources["pagedaemon"], "program": [rest, *reap, *more]}}
    return {**sources, **tasks}


def _memory_tasks(memory: Mapping[str, Any], sources: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The page daemon, and the user processes that make work for it."""
    if not memory["limited"]:
        return {}
    # The daemon waits for its disk's interrupt where there is one.
    ns = memory["io_ns"]
    write = [{"io": {"source": "pageout_io", "ns": ns}}] if "disk" in sources else [{"sleep": ns}]
    tasks = {
        "pagedaemon": {"mode": "task", "priority": PRIORITIES["daemon"], "program": [
            {"rest": None}, {"work": memory["scan_ns"]}, *write, {"reclaim": None}]},
    }  # fmt: skip
    if "disk" in sources:
        tasks["pageout_io"] = {"mode": "device", "class": "bio", "route": 0, "program": sources["disk"]["program"]}
    if memory["fault_hz"] > 0:
        tasks["faults"] = {"mode": "task", "law": "poisson", "rate_hz": memory["fault_hz"], "route": 0, "program": [
            {"take": 1}]}  # fmt: skip
    return tasks


def _plan(config: Mapping, sources: Mapping[str, Mapping[str, Any]], replica: int, log_rows: int) -> wiring.Wiring:
    interrupts, machine = config["interrupts"], config["machine"]
    plan = wiring.Wiring(
        cpus=machine["cpus"],
        threads=machine["threads"],
        spl=interrupts["model"] == "spl",
        nested=interrupts["nested"],
        closed="pause_ns" in config["workload"],
        big_lock=interrupts["big_lock"],
        would_sleep=interrupts["would_sleep"],
        goes_on=interrupts["on_deadlock"] == "continue",
        holds=bool(config["memory"].get("sleep_locked")),
        depth=interrupts["depth"],
        queue_depth=interrupts["queue"],
        log_rows=log_rows,
        seed=config["seed"] * 1_000_003 + replica,
        cost=config["cost"],
        memory=_pages(config),
        direct_map=DIRECT if config["maps"]["layout"] == "direct" else -1,
        daemon="pagedaemon" if config["memory"]["limited"] else "",
    )
    for name, source in sources.items():
        add_source(plan, name, source)
    return plan


def add_source(plan: wiring.Wiring, name: str, source: Mapping[str, Any]) -> None:
    """Add a source from the configuration, which has been checked."""
    for lock, spec in source.get("locks", {}).items():
        plan.lock(lock, spec)
    plan.source(name, **{KEYS[key]: value for key, value in source.items() if KEYS[key]})


def _pages(config: Mapping) -> dict[str, int]:
    """Pages of each sort at the beginning, and the thresholds of the machine."""
    memory, ram = config["memory"], config["machine"]["ram_bytes"]
    if not memory["limited"]:
        return {}
    pages = ram // PAGE
    user, cache = round(pages * memory["user_ratio"]), round(pages * memory["cache_ratio"])
    reserves = sizing.page_reserves(ram)
    return {
        "user": user, "cache": cache, "free": pages - user - cache, "cluster": memory["cluster"],
        "interrupt_min": reserves.interrupt_free_min, "reserved": reserves.reserved, "minimum": reserves.minimum,
        "target": reserves.target,
    }  # fmt: skip


def _locks(
    config: Mapping, plan: wiring.Wiring, base: compose.Machine, names: tuple[str, ...]
) -> tuple[np.ndarray, list[int]]:
    """Add the locks of maps and allocators. Returns the routes (locks by number) and each map's lock."""
    split = config["maps"]["layout"] == "split"
    code = design.design(names, config["maps"]["arena"])
    maps = []
    for number, name in enumerate(MAP_NAMES):
        # FreeBSD 4 enters kmem_map and mb_map at splvm; that is what keeps interrupts out. DragonFly dropped it with
        # kmem_map.
        section = "splvm+" if split and number in (KMEM, MB) else ""
        maps.append(plan.lock(name, section + config["maps"]["lock"]))
    none = plan.lock("none", "none")
    routes = np.zeros((SERVERS, mc.RT_COUNT), np.int64)
    routes[:, mc.RT_HOME] = maps[KERNEL]
    routes[:, mc.RT_LOCK :] = none
    for place, (name, module) in enumerate(zip(code.names, code.servers, strict=False)):
        specs = list(module.LOCKS)
        specs[0] = config["objects"]["locks"].get(name, specs[0])
        for klass, spec in enumerate(specs):
            word, _, per = spec.partition("/")
            word = _for_all_cpus(word, plan)
            count = {"": 1, "cpu": plan.cpus, "item": max(base.items[place], 1)}.get(per)
            if per == "own":
                count = max(module.lock_count(base.world[place], klass), 1)
            if count is None:
                raise ConfigError(f"objects.locks.{name}: {spec!r}: after the slash comes cpu, item or own")
            routes[place, mc.RT_LOCK + klass] = plan.lock(
                f"{name} {word}" if klass == 0 else f"{name} {klass} {word}", word, count
            )
            if klass == 0:
                routes[place, mc.RT_PER] = {"cpu": mc.PER_CPU, "item": mc.PER_ITEM}.get(per, mc.PER_ONE)
        routes[place, mc.RT_KEEPS] = module.KEEPS
        routes[place, mc.RT_HOME] = maps[base.homes[place]]
    return routes, maps


def _for_all_cpus(spec: str, plan: wiring.Wiring) -> str:
    """Add a spin lock to a bare spl level where no big lock keeps the other CPUs out: it masks one CPU's interrupts."""
    bare = all(word in SPL for word in spec.split("+"))
    return f"{spec}+spin" if bare and plan.cpus > 1 and not plan.big_lock else spec


def _queues(stream: w.Stream, cpus: int) -> tuple[np.ndarray, np.ndarray]:
    """Order of the operations by level and CPU, and where each queue begins: mainline, soft and device by CPU."""
    level = np.where(stream.flags & F_HARD, 2, np.where(stream.flags & F_SOFT, 1, 0))
    queue = level * cpus + stream.cpu % cpus
    late_rows = (stream.op == w.OP_WORK).any()  # recorded interrupts stand at the end of the stream
    order = (np.lexsort((stream.time_ns, queue)) if late_rows else np.argsort(queue, kind="stable")).astype(np.int32)
    first = np.searchsorted(queue[order], np.arange(3 * cpus + 1))
    return order, first


def _attach(wired: layout.Wired, plan: wiring.Wiring, queues: tuple[np.ndarray, np.ndarray], stream: w.Stream) -> None:
    """Tell CPUs and recorded interrupts which operations of the stream are theirs."""
    order, first = queues
    cpu, ctx = wired.table("cpus"), wired.table("contexts")
    cpu[:, C_OP], cpu[:, C_END] = first[: plan.cpus], first[1 : plan.cpus + 1]
    at, sources, _ = wired.shape["sources"]
    if sources == len(plan.sources) + 1:
        return
    for level, source in ((1, sources - 2), (2, sources - 1)):
        for c in range(plan.cpus):
            begin, end = first[level * plan.cpus + c : level * plan.cpus + c + 2]
            x = wired.m[at + source * S_COUNT + S_FIRST] + c * ctx.shape[1]
            wired.m[x + X_PC], wired.m[x + X_BURST] = begin, end
            if begin < end:
                i = int(order[begin])
                alarm(wired.m, x, int(stream.time_ns[i]), i)


def _engine_stream(stream: w.Stream, order: np.ndarray) -> mc.Stream:
    return mc.Stream(
        stream.time_ns, stream.op, stream.kind, stream.slot, stream.size, stream.flags & 0xFF,
        order, np.empty(stream.length, np.int32), np.empty(max(stream.slots, 1), np.int32),
    )  # fmt: skip
