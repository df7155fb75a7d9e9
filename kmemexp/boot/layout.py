"""A wiring laid out in the one array of the machine with a clock, and what is where in it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.boot.programs import freed_by_handlers, programs
from kmemexp.boot.sources import PRIORITIES, ROUTES
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
from kmemexp.sim.probes import BUCKETS, H_WAIT, SERVER_COUNT
from kmemexp.values import known

MESSAGES = Source("ipi", "fast", (), route="each")
RECORDED = (
    Source("recorded_soft", "soft", (), route="each", klass="softnet"),
    Source("recorded_device", "device", (), route="each", klass="net"),
)
"""What a machine has beside its wiring: handlers of messages between CPUs, and of what a stream has in interrupts."""
GLOBALS = {
    "contexts": mc.G_CTX0, "cpus": mc.G_CPU0, "locks": mc.G_LOCK0, "cpu_heap": mc.G_CPU_HEAP,
    "timer_heap": mc.G_TIMER_HEAP, "maps": mc.G_MAPS, "kinds": mc.G_KINDS, "routes": mc.G_ROUTE, "hist": mc.G_HIST,
    "queues": mc.G_QUEUE0, "order": mc.G_ORDER, "witness": mc.G_WITNESS0, "log": mc.G_LOG0,
}  # fmt: skip
"""Globals that say where tables begin."""
TO_LOCKS, TO_SOURCES = (pg.I_LOCK, pg.I_UNLOCK), (pg.I_RAISE, pg.I_AWAIT, pg.I_IO)
"""Items whose first operand is a lock, or a source."""


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

    def place(self, name: str, number: np.ndarray) -> np.ndarray:
        """Places at which rows of a table begin, by their number."""
        at, _, columns = self.shape[name]
        return at + number * columns


def build(
    wiring: Wiring,
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
    Raises ConfigError for a route to a CPU that there is not, and for names that a program gets wrong.
    """
    sources = [*wiring.sources, MESSAGES, *(RECORDED if recorded else ())]
    contexts, first = _contexts(wiring, sources)
    items, starts, queues = programs(wiring, sources, kind_number or {})
    tables = _blank(wiring, len(contexts), len(sources), max(queues, 1)) | {
        "contexts": contexts,
        "locks": np.stack([lock_row(lock.spec, i) for i, lock in enumerate(wiring.locks) for _ in range(lock.copies)]),
        "sources": _source_table(sources, first, len(contexts)),
        "programs": items,
        "maps": np.array(maps, np.int64)[:, None],
        "messages": np.zeros((messages, mc.M_COUNT), np.int64),  # last: it grows
    }
    if routes is not None:
        tables["routes"] = routes.copy()
    if kinds is not None:
        tables["kinds"] = kinds
    wired = _laid_out(wiring, tables, _names(wiring, sources, contexts))
    _link(wiring, wired, starts)
    _fill_heaps(wired)
    _start(wired, sources)
    return wired


def _blank(wiring: Wiring, contexts: int, sources: int, queues: int) -> dict[str, np.ndarray]:
    """Tables by name, in their order in the machine's memory, empty: those that a wiring fills must be put in."""
    shapes = {
        "contexts": (contexts, cx.X_COUNT),
        "cpus": (wiring.cpus, cx.C_COUNT),
        "locks": (len(wiring.locks), mc.L_COUNT),
        "sources": (sources, ir.S_COUNT),
        "programs": (1, pg.I_COLUMNS),
        "rings": (contexts, wiring.depth),
        "queues": (queues, pg.Q_ROWS + wiring.queue),
        "cpu_heap": (wiring.cpus, 1),
        "timer_heap": (contexts, 1),
        "routes": (SERVER_COUNT, mc.RT_COUNT),
        "maps": (1, 1),
        "kinds": (1, mc.KIND_COUNT),
        "hist": (H_WAIT + len(wiring.locks) + 2 * sources, BUCKETS),
        "order": (len(wiring.locks), len(wiring.locks)),
        "witness": (WITNESSES, W_COUNT),
        "log": (wiring.log_rows, mc.LOG_COUNT),
    }
    tables = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
    tables["cpus"][:, [cx.C_TOP, cx.C_READY, cx.C_PARKED, cx.C_MSG_HEAD, cx.C_MSG_TAIL]] = -1
    tables["cpus"][:, cx.C_NUMBER] = np.arange(wiring.cpus)
    return tables


def _laid_out(wiring: Wiring, tables: Mapping[str, np.ndarray], names: Names) -> Wired:
    """Put the tables into one array, behind the globals."""
    shape, at = {}, mc.G_COUNT
    for name, table in tables.items():
        shape[name] = (at, table.shape[0], table.shape[1])
        at += table.size
    m = np.concatenate([_globals(wiring), *(table.ravel() for table in tables.values())])
    for name, column in GLOBALS.items():
        m[column] = shape[name][0]
    m[mc.G_CONTEXTS], m[mc.G_CLASSES] = shape["contexts"][1], shape["order"][1]
    m[mc.G_MSG_FREE] = shape["messages"][0]
    return Wired(m, names, shape)


def _globals(wiring: Wiring) -> np.ndarray:
    """Settings of a machine, int64[G_COUNT]."""
    g = np.zeros(mc.G_COUNT, np.int64)
    g[mc.G_MODEL] = mc.MODELS.index(wiring.model)
    g[mc.G_WOULD_SLEEP] = mc.WOULD_SLEEP.index(wiring.would_sleep)
    g[mc.G_ON_DEADLOCK] = mc.ON_DEADLOCK.index(wiring.on_deadlock)
    g[mc.G_NESTED], g[mc.G_CLOSED], g[mc.G_BIG_LOCK] = wiring.nested, wiring.closed, wiring.big_lock
    g[mc.G_SLEEP_LOCKED], g[mc.G_SEED], g[mc.G_DIRECT_MAP] = wiring.sleep_locked, wiring.seed, wiring.direct_map
    g[mc.G_CPUS], g[mc.G_THREADS] = wiring.cpus, wiring.threads
    g[mc.G_DEPTH], g[mc.G_QUEUE], g[mc.G_LOG_ROWS] = wiring.depth, wiring.queue, wiring.log_rows
    queues = freed_by_handlers(wiring)  # they come first
    g[mc.G_QUEUES], g[mc.G_FREERS] = len(queues) * wiring.cpus, bool(queues)
    g[[mc.G_ROW_FREE, mc.G_SLEEPERS, mc.G_DAEMON]] = -1
    g[mc.G_LIMITED] = bool(wiring.memory)
    for name, pages in wiring.memory.items():
        g[getattr(mc, f"G_{name.upper()}")] = pages
    g[mc.G_LEAST_FREE] = g[mc.G_FREE]
    row = costs.table(wiring.cost, wiring.cpus)
    g[mc.G_COST0 : mc.G_COST0 + len(row)] = row
    return g


def _names(wiring: Wiring, sources: Sequence[Source], contexts: np.ndarray) -> Names:
    locks = [f"{lock.name}[{i}]" if lock.copies > 1 else lock.name for lock in wiring.locks for i in range(lock.copies)]
    threads = [f"mainline thread {x % wiring.threads}" for x in range(wiring.cpus * wiring.threads)]
    owned = [sources[row[cx.X_SOURCE]].name for row in contexts[len(threads) :]]
    classes = tuple(lock.name for lock in wiring.locks)
    return Names(tuple(locks), classes, tuple(s.name for s in sources), (*threads, *owned))


def _contexts(wiring: Wiring, sources: Sequence[Source]) -> tuple[np.ndarray, list[int]]:
    """Rows of all contexts, with numbers for places, and the number of the first one of each source."""
    blank = np.zeros(cx.X_COUNT, np.int64)
    blank[[cx.X_UNDER, cx.X_ABOVE, cx.X_LINK, cx.X_WAIT, cx.X_HELD, cx.X_TOKEN, cx.X_OP, cx.X_ROW, cx.X_QUEUE]] = -1
    blank[cx.X_STAGE] = cx.S_NEXT
    threads = np.tile(blank, (wiring.cpus * wiring.threads, 1))
    threads[:, cx.X_CPU] = np.arange(len(threads)) // max(wiring.threads, 1)
    threads[:, cx.X_PROG], threads[:, cx.X_SOURCE] = cx.STREAM, -1
    threads[:, [cx.X_PRIO, cx.X_BASE]] = PRIORITIES["task"]
    owned = [_contexts_of(wiring, number, source, blank) for number, source in enumerate(sources)]
    ends = np.cumsum([len(threads), *map(len, owned)])
    contexts = np.concatenate([threads, *owned])
    contexts[:, cx.X_NUMBER] = np.arange(len(contexts))
    return contexts, ends[:-1].tolist()


def _contexts_of(wiring: Wiring, number: int, source: Source, blank: np.ndarray) -> np.ndarray:
    """Rows of one source's contexts: one, or one on each CPU."""
    if isinstance(source.route, int) and not 0 <= source.route < wiring.cpus:
        raise ConfigError(f"interrupts.sources.{source.name}.route={source.route}: there are {wiring.cpus} CPUs")
    spl = wiring.model == "spl"
    forwarded = spl and wiring.big_lock and source.mode in ("device", "soft")
    everywhere = source.route in ROUTES or forwarded
    rows = np.tile(blank, (wiring.cpus if everywhere else 1, 1))
    rows[:, cx.X_CPU] = np.arange(wiring.cpus) if everywhere else int(source.route)
    rows[:, cx.X_SOURCE], rows[:, cx.X_KIND] = number, mc.MODES.index(source.mode)
    rows[:, [cx.X_PRIO, cx.X_BASE]] = source.priority or PRIORITIES[source.mode]
    rows[:, cx.X_BIT] = mask_of([source.klass]) if source.klass else 0
    rows[:, cx.X_RAISES] = raised_by(source.klass) if spl else 0
    return rows


def _source_table(sources: Sequence[Source], first: Sequence[int], contexts: int) -> np.ndarray:
    table = np.zeros((len(sources), ir.S_COUNT), np.int64)
    ends = [*first[1:], contexts]
    for s, (row, source) in enumerate(zip(table, sources, strict=True)):
        law = known(f"interrupts.sources.{source.name}", "law", source.law, pg.ARRIVALS)
        row[ir.S_LAW], row[ir.S_NUMBER] = pg.ARRIVALS.index(law), s
        row[ir.S_MEAN] = source.period_ns or (round(1e9 / source.rate_hz) if source.rate_hz > 0 else 0)
        row[ir.S_BURST], row[ir.S_GAP], row[ir.S_PHASE] = source.burst, source.gap_ns, source.phase_ns
        row[ir.S_FIRST], row[ir.S_CONTEXTS], row[ir.S_SPREAD] = first[s], ends[s] - first[s], source.route == "spread"
        row[ir.S_WAITERS] = -1
        row[ir.S_DEVICE] = source.mode in ("device", "soft")
    return table


def _link(wiring: Wiring, wired: Wired, starts: Sequence[int]) -> None:
    """Turn numbers into places."""
    _link_contexts(wiring, wired, np.array(starts, np.int64))
    _link_programs(wired)
    locks, sources = wired.table("locks"), wired.table("sources")
    hist = wired.place("hist", H_WAIT + np.arange(len(wiring.locks) + 2 * len(sources)))
    locks[:, mc.L_HIST] = hist[locks[:, mc.L_CLASS]]
    sources[:, ir.S_HIST] = hist[len(wiring.locks) + 2 * np.arange(len(sources))]
    sources[:, ir.S_FIRST] = wired.place("contexts", sources[:, ir.S_FIRST])
    wired.table("maps")[:] = wired.place("locks", wired.table("maps"))
    routes = wired.table("routes")
    routes[:, mc.RT_HOME :] = wired.place("locks", routes[:, mc.RT_HOME :])
    messages = wired.table("messages")
    messages[:, mc.M_NEXT] = wired.place("messages", np.arange(1, len(messages) + 1))
    messages[-1, mc.M_NEXT] = -1
    wired.m[mc.G_IPI0] = sources[len(wiring.sources), ir.S_FIRST]
    if wiring.daemon:
        wired.m[mc.G_DAEMON] = sources[wired.names.sources.index(wiring.daemon), ir.S_FIRST]


def _link_contexts(wiring: Wiring, wired: Wired, starts: np.ndarray) -> None:
    """Give contexts their CPU, ring and source, and those of a source its program."""
    contexts = wired.table("contexts")
    contexts[:, cx.X_RING] = wired.place("rings", contexts[:, cx.X_NUMBER])
    contexts[:, cx.X_CPU] = wired.place("cpus", contexts[:, cx.X_CPU])
    owned = contexts[wiring.cpus * wiring.threads :]
    source = owned[:, cx.X_SOURCE].copy()
    owned[:, cx.X_SOURCE] = wired.place("sources", source)
    program = wired.place("programs", starts[source])
    program[source == len(wiring.sources)] = cx.MESSAGES  # the source of that name follows the wiring's own
    program[source > len(wiring.sources)] = cx.RECORDED
    owned[:, cx.X_PROG] = owned[:, cx.X_PC] = program


def _fill_heaps(wired: Wired) -> None:
    """Put all CPUs and all timers into their heaps; none of them is due."""
    for heap, name in (("cpu_heap", "cpus"), ("timer_heap", "contexts")):
        table = wired.table(name)
        number = np.arange(len(table))
        table[:, KEY], table[:, POS] = NEVER, number
        wired.table(heap)[:, 0] = wired.place(name, number)


def _link_programs(wired: Wired) -> None:
    """Turn the operands of program items into places."""
    items = wired.table("programs")
    code = items[:, pg.PC_CODE]
    items[:, pg.PC_END] = wired.place("programs", items[:, pg.PC_END])
    for codes, operand, table in (
        (TO_LOCKS, pg.PC_1, "locks"),
        (TO_SOURCES, pg.PC_1, "sources"),
        ((pg.I_FREE,), pg.PC_1, "queues"),
        ((pg.I_ALLOC,), pg.PC_4, "queues"),
    ):
        rows = np.isin(code, codes)
        items[rows, operand] = wired.place(table, items[rows, operand])


def enlarge_messages(wired: Wired) -> Wired:
    """Double the room for messages, all of which are in use."""
    at, rows, columns = wired.shape["messages"]
    more = np.zeros((rows, columns), np.int64)
    more[:, mc.M_NEXT] = len(wired.m) + np.arange(1, rows + 1) * columns
    more[-1, mc.M_NEXT] = -1
    m = np.concatenate([wired.m, more.ravel()])
    m[mc.G_MSG_FREE] = len(wired.m)
    return Wired(m, wired.names, {**wired.shape, "messages": (at, 2 * rows, columns)})


def _start(wired: Wired, sources: Sequence[Source]) -> None:
    """Let each CPU run its first mainline thread, set the timers, and make tasks without arrivals ready."""
    m = wired.m
    _park_threads(wired)
    cpus = wired.place("cpus", np.arange(m[mc.G_CPUS])).tolist()
    for c in cpus:
        x = m[c + cx.C_PARKED]
        if x >= 0:
            m[c + cx.C_PARKED] = m[x + cx.X_LINK]
        cx.resume(m, c, x)
    for row, source in zip(wired.table("sources"), sources, strict=True):
        trains = row[ir.S_CONTEXTS] if source.route == "each" else 1
        for x in row[ir.S_FIRST] + np.arange(trains) * cx.X_COUNT:
            if row[ir.S_LAW] != pg.NONE and row[ir.S_MEAN] > 0:
                ir.schedule(m, x, 0)
            elif source.mode == "task" and source.law == "none" and source.program:
                cx.queue_ready(m, x)
    for c in cpus:
        cx.reconsider(m, c)


def _park_threads(wired: Wired) -> None:
    """Link the mainline's threads to the lists of their CPUs, the first of each in front."""
    m = wired.m
    for x in reversed(wired.place("contexts", np.arange(m[mc.G_CPUS] * m[mc.G_THREADS])).tolist()):
        c = m[x + cx.X_CPU]
        m[x + cx.X_LINK] = m[c + cx.C_PARKED]
        m[c + cx.C_PARKED] = x
