"""A wiring laid out in the one array of the machine with a clock, and what is where in it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.boot.programs import freed_by_handlers, programs
from kmemexp.boot.sources import MODES, PRIORITIES, ROUTES
from kmemexp.boot.wiring import Source, Wiring
from kmemexp.errors import ConfigError
from kmemexp.parts.lock_spec import lock_row, mask_of, raised_by
from kmemexp.sim.engine import contexts as cx
from kmemexp.sim.engine import costs
from kmemexp.sim.engine import interrupts as ir
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine import programs as pg
from kmemexp.sim.engine.heap import KEY, NEVER, POS
from kmemexp.sim.engine.waitgraph import W_COUNT, WITNESSES
from kmemexp.sim.probes import BUCKETS, H_WAIT
from kmemexp.values import known


class Names(NamedTuple):
    """What the numbers in a machine's arrays are called."""

    locks: tuple[str, ...]  # by number
    lock_classes: tuple[str, ...]
    sources: tuple[str, ...]
    contexts: tuple[str, ...]


class Wired(NamedTuple):
    """A machine ready to run, and what is where in it."""

    m: np.ndarray  # its memory
    names: Names
    shape: Mapping[str, tuple[int, int, int]]  # place, rows and columns of each table

    def table(self, name: str) -> np.ndarray:
        """Return a view of a table, int64[rows, columns]: "contexts", "cpus", "locks", "sources", "hist" …."""
        at, rows, columns = self.shape[name]
        return self.m[at : at + rows * columns].reshape(rows, columns)


def build(
    w: Wiring,
    *,
    routes: np.ndarray | None = None,
    maps: Sequence[int] = (0,),
    kinds: np.ndarray | None = None,
    kind_number: Mapping[str, int] | None = None,
    recorded: bool = False,
    messages: int = 256,
) -> Wired:
    """Lay a machine out.

    From the design, where there is one: `routes`, int64[servers, RT_COUNT] with lock numbers for places; `maps`, number
    of each map's lock; `kinds`, int64[kinds, KIND_COUNT]; `kind_number`, by name. `recorded`: the stream has operations
    in interrupts, which get contexts of their own on each CPU. `messages`: room for those between CPUs.
    """
    sources = [*w.sources, Source("ipi", "fast", (), route="each")]
    if recorded:
        sources += [Source("recorded_soft", "soft", (), route="each", klass="softnet"),
                    Source("recorded_device", "device", (), route="each", klass="net")]  # fmt: skip
    ctx, first = _contexts(w, sources)
    rows = [lock_row(lock.spec, i) for i, lock in enumerate(w.locks) for _ in range(lock.count)]
    items, starts, queues = programs(w, sources, kind_number or {})
    tables = {
        "contexts": ctx,
        "cpus": _cpus(w),
        "locks": np.stack(rows),
        "sources": _source_table(w, sources, first, len(ctx)),
        "programs": items,
        "rings": np.zeros((len(ctx), w.depth), np.int64),
        "queues": np.zeros((max(queues, 1), 2 + w.queue_depth), np.int64),
        "cpu_heap": np.zeros((w.cpus, 1), np.int64),
        "timer_heap": np.zeros((len(ctx), 1), np.int64),
        "routes": np.zeros((4, mc.RT_COUNT), np.int64) if routes is None else routes.copy(),
        "maps": np.array(maps, np.int64)[:, None],
        "kinds": np.zeros((1, mc.KIND_COUNT), np.int64) if kinds is None else kinds,
        "hist": np.zeros((H_WAIT + len(w.locks) + 2 * len(sources), BUCKETS), np.int64),
        "order": np.zeros((len(w.locks), len(w.locks)), np.int64),
        "witness": np.zeros((WITNESSES, W_COUNT), np.int64),
        "log": np.zeros((w.log_rows, mc.LOG_COUNT), np.int64),
        "messages": np.zeros((messages, mc.M_COUNT), np.int64),  # last: it grows
    }
    wired = _laid_out(w, tables, _names(w, sources, ctx))
    _link(w, wired, sources, starts)
    _start(wired.m, sources, wired.table("sources"))
    return wired


def _laid_out(w: Wiring, tables: Mapping[str, np.ndarray], names: Names) -> Wired:
    """Put the tables into one array, behind the globals."""
    shape, at = {}, mc.G_COUNT
    for name, table in tables.items():
        shape[name] = (at, *table.shape)
        at += table.size
    m = np.concatenate([_globals(w), *(table.ravel() for table in tables.values())])
    where = {"contexts": mc.G_CTX0, "cpus": mc.G_CPU0, "locks": mc.G_LOCK0, "cpu_heap": mc.G_CPU_HEAP,
             "timer_heap": mc.G_TIMER_HEAP, "maps": mc.G_MAPS, "kinds": mc.G_KINDS, "routes": mc.G_ROUTE,
             "hist": mc.G_HIST, "queues": mc.G_QUEUE0,
             "order": mc.G_ORDER, "witness": mc.G_WITNESS0, "log": mc.G_LOG0}  # fmt: skip
    for name, column in where.items():
        m[column] = shape[name][0]
    m[mc.G_CONTEXTS], m[mc.G_CLASSES] = shape["contexts"][1], shape["order"][1]
    m[mc.G_DEPTH], m[mc.G_QDEPTH], m[mc.G_LOG_ROWS] = w.depth, w.queue_depth, w.log_rows
    m[mc.G_QUEUES] = len(freed_by_handlers(w)) * w.cpus  # they come first
    return Wired(m, names, shape)


def _link(w: Wiring, wired: Wired, sources: Sequence[Source], starts: Sequence[int]) -> None:
    """Turn numbers into places."""
    m = wired.m
    at = {name: place for name, (place, _, _) in wired.shape.items()}
    ctx, cpu, lock, source = (wired.table(n) for n in ("contexts", "cpus", "locks", "sources"))
    ctx[:, cx.X_NUMBER] = np.arange(len(ctx))
    ctx[:, cx.X_RING] = at["rings"] + np.arange(len(ctx)) * w.depth
    ctx[:, cx.X_CPU] = at["cpus"] + ctx[:, cx.X_CPU] * cx.C_COUNT
    people = ctx[w.cpus * w.threads :]
    kind_of = people[:, cx.X_SOURCE].copy()
    people[:, cx.X_SOURCE] = at["sources"] + kind_of * ir.S_COUNT
    program = at["programs"] + np.array(starts, np.int64)[kind_of] * pg.I_COLUMNS
    ipi = len(w.sources)
    program[kind_of == ipi] = cx.MESSAGES
    program[kind_of > ipi] = cx.RECORDED
    people[:, cx.X_PROG] = people[:, cx.X_PC] = program
    cpu[:, cx.C_NUMBER] = np.arange(w.cpus)
    hist = at["hist"] + (H_WAIT + np.arange(len(w.locks) + 2 * len(sources))) * BUCKETS
    lock[:, mc.L_HIST] = hist[lock[:, mc.L_CLASS]]
    source[:, ir.S_HIST] = hist[len(w.locks) + 2 * np.arange(len(sources))]
    source[:, ir.S_FIRST] = at["contexts"] + source[:, ir.S_FIRST] * cx.X_COUNT
    _link_programs(wired, at)
    wired.table("maps")[:] = at["locks"] + wired.table("maps") * mc.L_COUNT
    routes = wired.table("routes")
    routes[:, mc.RT_HOME :] = at["locks"] + routes[:, mc.RT_HOME :] * mc.L_COUNT
    for heap, table, width in (("cpu_heap", cpu, cx.C_COUNT), ("timer_heap", ctx, cx.X_COUNT)):
        table[:, KEY], table[:, POS] = NEVER, np.arange(len(table))
        wired.table(heap)[:, 0] = at["cpus" if heap == "cpu_heap" else "contexts"] + np.arange(len(table)) * width
    m[mc.G_IPI0] = source[ipi, ir.S_FIRST]
    m[mc.G_FREERS] = bool(freed_by_handlers(w))
    messages = wired.table("messages")
    messages[:, mc.M_NEXT] = at["messages"] + np.arange(1, len(messages) + 1) * mc.M_COUNT
    messages[-1, mc.M_NEXT] = -1
    m[mc.G_MSG_FREE] = at["messages"]
    m[mc.G_DAEMON] = source[[s.name for s in sources].index(w.daemon), ir.S_FIRST] if w.daemon else -1


def _link_programs(wired: Wired, at: Mapping[str, int]) -> None:
    """Turn the operands of program items into places."""
    items = wired.table("programs")
    code = items[:, 0]
    items[:, 5] = at["programs"] + items[:, 5] * pg.I_COLUMNS
    widths = {pg.I_LOCK: ("locks", mc.L_COUNT), pg.I_UNLOCK: ("locks", mc.L_COUNT), pg.I_RAISE: ("sources", ir.S_COUNT),
              pg.I_AWAIT: ("sources", ir.S_COUNT), pg.I_IO: ("sources", ir.S_COUNT)}  # fmt: skip
    for verb, (table, width) in widths.items():
        items[code == verb, 1] = at[table] + items[code == verb, 1] * width
    row = wired.shape["queues"][2]
    items[code == pg.I_FREE, 1] = at["queues"] + items[code == pg.I_FREE, 1] * row
    items[code == pg.I_ALLOC, 4] = at["queues"] + items[code == pg.I_ALLOC, 4] * row


def enlarge_messages(wired: Wired) -> Wired:
    """Double the room for messages, all of which are in use."""
    at, rows, columns = wired.shape["messages"]
    more = np.zeros((rows, columns), np.int64)
    more[:, mc.M_NEXT] = len(wired.m) + np.arange(1, rows + 1) * columns
    more[-1, mc.M_NEXT] = -1
    m = np.concatenate([wired.m, more.ravel()])
    m[mc.G_MSG_FREE] = len(wired.m)
    return Wired(m, wired.names, {**wired.shape, "messages": (at, 2 * rows, columns)})


def _names(w: Wiring, sources: Sequence[Source], ctx: np.ndarray) -> Names:
    locks = [f"{lock.name}[{i}]" if lock.count > 1 else lock.name for lock in w.locks for i in range(lock.count)]
    people = [f"mainline thread {x % w.threads}" for x in range(w.cpus * w.threads)]
    people += [sources[row[cx.X_SOURCE]].name for row in ctx[len(people) :]]
    classes = tuple(lock.name for lock in w.locks)
    return Names(tuple(locks), classes, tuple(s.name for s in sources), tuple(people))


def _contexts(w: Wiring, sources: Sequence[Source]) -> tuple[np.ndarray, list[int]]:
    """Rows of all contexts, with numbers for places, and the first one of each source."""
    blank = np.zeros(cx.X_COUNT, np.int64)
    blank[[cx.X_UNDER, cx.X_ABOVE, cx.X_LINK, cx.X_WAIT, cx.X_HELD, cx.X_TOKEN, cx.X_OP, cx.X_ROW, cx.X_QUEUE]] = -1
    blank[cx.X_STAGE] = cx.S_NEXT
    workers = np.tile(blank, (w.cpus * w.threads, 1))
    workers[:, cx.X_CPU] = np.arange(len(workers)) // max(w.threads, 1)
    workers[:, cx.X_PROG], workers[:, cx.X_SOURCE] = cx.STREAM, -1
    workers[:, [cx.X_PRIO, cx.X_BASE]] = PRIORITIES["task"]
    parts, first = [workers], []
    for s, source in enumerate(sources):
        first.append(sum(map(len, parts)))
        if isinstance(source.route, int) and not 0 <= source.route < w.cpus:
            raise ConfigError(f"interrupts.sources.{source.name}.route={source.route}: there are {w.cpus} CPUs")
        forwarded = w.spl and w.big_lock and source.mode in ("device", "soft")
        everywhere = source.route in ROUTES or forwarded
        rows = np.tile(blank, (w.cpus if everywhere else 1, 1))
        rows[:, cx.X_CPU] = np.arange(w.cpus) if everywhere else int(source.route)
        rows[:, cx.X_SOURCE], rows[:, cx.X_KIND] = s, MODES[source.mode]
        rows[:, [cx.X_PRIO, cx.X_BASE]] = source.priority or PRIORITIES[source.mode]
        rows[:, cx.X_BIT] = mask_of([source.klass]) if source.klass else 0
        rows[:, cx.X_RAISES] = raised_by(source.klass) if w.spl else 0
        parts.append(rows)
    return np.concatenate(parts), first


def _cpus(w: Wiring) -> np.ndarray:
    cpu = np.zeros((w.cpus, cx.C_COUNT), np.int64)
    cpu[:, [cx.C_TOP, cx.C_READY, cx.C_PARKED, cx.C_MSG_HEAD, cx.C_MSG_TAIL]] = -1
    return cpu


def _globals(w: Wiring) -> np.ndarray:
    g = np.zeros(mc.G_COUNT, np.int64)
    g[mc.G_SPL], g[mc.G_NESTED], g[mc.G_CLOSED], g[mc.G_BIG] = w.spl, w.nested, w.closed, w.big_lock
    g[mc.G_SLEEPS] = mc.W_PANIC if w.would_sleep == "panic" else mc.W_BLOCK
    g[mc.G_GOES_ON], g[mc.G_HOLDS], g[mc.G_SEED] = w.goes_on, w.holds, w.seed
    g[mc.G_DIRECT] = w.direct_map
    g[mc.G_CPUS], g[mc.G_THREADS] = w.cpus, w.threads
    g[[mc.G_ROW_FREE, mc.G_SLEEPERS, mc.G_DAEMON]] = -1
    g[mc.G_LIMITED] = bool(w.memory)
    for name, pages in w.memory.items():
        g[getattr(mc, f"G_{name.upper()}")] = pages
    g[mc.G_LEAST_FREE] = g[mc.G_FREE]
    row = costs.table(w.cost, w.cpus)
    g[mc.G_COST0 : mc.G_COST0 + len(row)] = row
    return g


def _source_table(w: Wiring, sources: Sequence[Source], first: Sequence[int], contexts: int) -> np.ndarray:
    table = np.zeros((len(sources), ir.S_COUNT), np.int64)
    ends = [*first[1:], contexts]
    for s, (row, source) in enumerate(zip(table, sources, strict=True)):
        law = known(f"interrupts.sources.{source.name}", "law", source.law, pg.ARRIVALS)
        row[ir.S_LAW], row[ir.S_NUMBER] = pg.ARRIVALS.index(law), s
        row[ir.S_MEAN] = source.period_ns or (round(1e9 / source.rate_hz) if source.rate_hz > 0 else 0)
        row[ir.S_SHAPE], row[ir.S_GAP], row[ir.S_PHASE] = source.burst, source.gap_ns, source.phase_ns
        row[ir.S_FIRST], row[ir.S_CONTEXTS], row[ir.S_SPREAD] = first[s], ends[s] - first[s], source.route == "spread"
        row[ir.S_WAITERS] = -1
        row[ir.S_DEVICE] = source.mode in ("device", "soft")
    return table


def _start(m: np.ndarray, sources: Sequence[Source], table: np.ndarray) -> None:
    """Park the mainline's threads, set the timers, and make tasks without arrivals ready."""
    for number in range(m[mc.G_CPUS] * m[mc.G_THREADS] - 1, -1, -1):
        x = m[mc.G_CTX0] + number * cx.X_COUNT
        c = m[x + cx.X_CPU]
        m[x + cx.X_LINK] = m[c + cx.C_PARKED]
        m[c + cx.C_PARKED] = x
    for number in range(m[mc.G_CPUS]):
        c = m[mc.G_CPU0] + number * cx.C_COUNT
        w = m[c + cx.C_PARKED]
        if w >= 0:
            m[c + cx.C_PARKED] = m[w + cx.X_LINK]
        cx.resume(m, c, w)
    for row, source in zip(table, sources, strict=True):
        trains = row[ir.S_CONTEXTS] if source.route == "each" else 1
        for x in row[ir.S_FIRST] + np.arange(trains) * cx.X_COUNT:
            if row[ir.S_LAW] != pg.NONE and row[ir.S_MEAN] > 0:
                ir.schedule(m, x, 0)
            elif source.mode == "task" and source.law == "none" and source.program:
                cx.queue_ready(m, x)
    for number in range(m[mc.G_CPUS]):
        cx.reconsider(m, m[mc.G_CPU0] + number * cx.C_COUNT)
