"""A wiring laid out in the one array of the machine with a clock, and what is where in it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.boot.programs import freed_by_handlers, programs
from kmemexp.boot.sources import PRIORITIES, ROUTES
from kmemexp.boot.wiring import Source, Wiring
from kmemexp.errors import ConfigError
from kmemexp.jit import entry
from kmemexp.parts import map_calls
from kmemexp.parts.lock_spec import lock_row, mask_of, raised_by
from kmemexp.sim.engine import contexts as cx
from kmemexp.sim.engine import costs
from kmemexp.sim.engine import interrupts as ir
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine import programs as pg
from kmemexp.sim.engine.heap import COLUMNS as HEAP_COLUMNS
from kmemexp.sim.engine.heap import ITEM, KEY, NEVER, POS
from kmemexp.sim.engine.lines import LINES
from kmemexp.sim.engine.tables import cpu, ctx, glob, kmap, lock, msg, prog, route, src, stage, witness, zone
from kmemexp.sim.engine.waitgraph import WITNESSES
from kmemexp.sim.probes import BUCKETS, HIST_WAIT, SERVER_COUNT
from kmemexp.values import known

MESSAGES = Source("ipi", "fast", (), route="each")
RECORDED = (
    Source("recorded_soft", "soft", (), route="each", klass="softnet"),
    Source("recorded_device", "device", (), route="each", klass="net"),
)
"""What a machine has beside its wiring: handlers of messages between CPUs, and of what a stream has in interrupts."""
GLOBALS = {
    "contexts": glob.CTX0, "cpus": glob.CPU0, "locks": glob.LOCK0, "cpu_heap": glob.CPU_HEAP,
    "timer_heap": glob.TIMER_HEAP, "maps": glob.MAPS, "kinds": glob.KINDS, "routes": glob.ROUTE, "hist": glob.HIST,
    "queues": glob.QUEUE0, "order": glob.ORDER, "witness": glob.WITNESS0, "log": glob.LOG0,
    "steps": glob.STEPS, "zones": glob.ZONE0,
}  # fmt: skip
"""Globals that say where tables begin."""
TO_LOCKS, TO_SOURCES = (prog.LOCK, prog.UNLOCK), (prog.RAISE, prog.AWAIT, prog.IO)
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
    maps: np.ndarray | None = None,
    kinds: np.ndarray | None = None,
    kind_number: Mapping[str, int] | None = None,
    recorded: bool = False,
    messages: int = 256,
) -> Wired:
    """Lay a machine out.

    From the design, where there is one: `routes`, int64[servers, route.COLUMNS], and `maps`, int64[maps, kmap.COLUMNS],
    with numbers of locks and calls for places; `kinds`, int64[kinds, KIND_COUNT]; `kind_number`, by name. `recorded`:
    the stream has operations in interrupts, which get contexts of their own on each CPU. `messages`: room for those
    between CPUs. Raises ConfigError for a route to a CPU that there is not, and for names that a program gets wrong.
    """
    sources = [*wiring.sources, MESSAGES, *(RECORDED if recorded else ())]
    contexts, first = _contexts(wiring, sources)
    items, starts, queues = programs(wiring, sources, kind_number or {})
    tables = _blank(wiring, len(contexts), len(sources), max(queues, 1)) | {
        "contexts": contexts,
        "locks": np.stack(
            [lock_row(group.spec, i) for i, group in enumerate(wiring.locks) for _ in range(group.copies)]
        ),
        "sources": _source_table(sources, first, len(contexts)),
        "programs": items,
        "calls": np.array([number for text in wiring.calls for number in map_calls.rows(text)], np.int64)[:, None],
        "messages": np.zeros((messages, msg.COLUMNS), np.int64),  # last: it grows
    }
    if routes is not None:
        tables["routes"] = routes.copy()
    if maps is not None:
        tables["maps"] = maps.copy()
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
        "contexts": (contexts, ctx.COLUMNS),
        "cpus": (wiring.cpus, cpu.COLUMNS),
        "locks": (len(wiring.locks), lock.COLUMNS),
        "sources": (sources, src.COLUMNS),
        "programs": (1, prog.COLUMNS),
        "rings": (contexts, wiring.depth),
        "queues": (queues, pg.Q_ROWS + wiring.queue),
        "cpu_heap": (wiring.cpus, HEAP_COLUMNS),
        "timer_heap": (contexts, HEAP_COLUMNS),
        "routes": (SERVER_COUNT, route.COLUMNS),
        "calls": (1, 1),
        "maps": (1, kmap.COLUMNS),
        "kinds": (1, mc.KIND_COUNT),
        "hist": (HIST_WAIT + len(wiring.locks) + 2 * sources, BUCKETS),
        "order": (len(wiring.locks), len(wiring.locks)),
        "lines": (LINES if _lines_move(wiring) else 0, 1),
        "witness": (WITNESSES, witness.COLUMNS),
        "log": (wiring.log_rows, mc.LOG_COUNT),
        "steps": (contexts, 1),
        "zones": (len(wiring.zones), zone.COLUMNS),
    }
    tables = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
    tables["cpus"][:, [cpu.TOP, cpu.READY, cpu.PARKED, cpu.MSG_HEAD, cpu.MSG_TAIL, cpu.ASKERS]] = -1
    tables["cpus"][:, cpu.NUMBER] = np.arange(wiring.cpus)
    tables["zones"][:] = np.reshape(wiring.zones, (-1, zone.COLUMNS))
    return tables


def _laid_out(wiring: Wiring, tables: Mapping[str, np.ndarray], names: Names) -> Wired:
    """Put the tables into one array, behind the globals."""
    shape, at = {}, glob.COLUMNS
    for name, table in tables.items():
        shape[name] = (at, table.shape[0], table.shape[1])
        at += table.size
    m = np.concatenate([_globals(wiring), *(table.ravel() for table in tables.values())])
    for name, column in GLOBALS.items():
        m[column] = shape[name][0]
    m[glob.CONTEXTS], m[glob.CLASSES] = shape["contexts"][1], shape["order"][1]
    m[glob.MSG_FREE] = shape["messages"][0]
    m[glob.LINES] = shape["lines"][0] if _lines_move(wiring) else 0
    return Wired(m, names, shape)


def _lines_move(wiring: Wiring) -> bool:
    """Whether lines of objects are followed: only where that can cost anything."""
    moves = wiring.cost.get("move_near_ns", 0) > 0 or wiring.cost.get("move_far_ns", 0) > 0
    return wiring.object_lines and moves and wiring.cpus > 1


def _globals(wiring: Wiring) -> np.ndarray:
    """Settings of a machine, int64[glob.COLUMNS]."""
    g = np.zeros(glob.COLUMNS, np.int64)
    g[glob.MODEL] = mc.MODELS.index(wiring.model)
    g[glob.WOULD_SLEEP] = mc.WOULD_SLEEP.index(wiring.would_sleep)
    g[glob.ON_DEADLOCK] = mc.ON_DEADLOCK.index(wiring.on_deadlock)
    g[glob.NESTED], g[glob.CLOSED], g[glob.BIG_LOCK] = wiring.nested, wiring.closed, wiring.big_lock
    g[glob.SLEEP_LOCKED], g[glob.SEED], g[glob.DIRECT_MAP] = wiring.sleep_locked, wiring.seed, wiring.direct_map
    g[glob.CPUS], g[glob.THREADS], g[glob.ZONES] = wiring.cpus, wiring.threads, len(wiring.zones)
    g[glob.DEPTH], g[glob.QUEUE], g[glob.LOG_ROWS] = wiring.depth, wiring.queue, wiring.log_rows
    queues = freed_by_handlers(wiring)  # they come first
    g[glob.QUEUES], g[glob.FREERS] = len(queues) * wiring.cpus, bool(queues)
    g[[glob.ROW_FREE, glob.SLEEPERS, glob.DAEMON, glob.WAITERS]] = -1
    g[glob.LIMITED], g[glob.PAGE_RULE] = bool(wiring.memory), mc.PAGE_RULES.index(wiring.page_rule)
    for name, pages in wiring.memory.items():
        g[getattr(glob, name.upper())] = pages
    g[glob.LEAST_FREE] = g[glob.FREE]
    row = costs.table(wiring.cost, wiring.cpus)
    g[glob.COST0 : glob.COST0 + len(row)] = row
    g[glob.DISPATCH] = costs.of_dispatch(row, wiring.dispatch)
    g[glob.SLICE] = wiring.slice_ns
    g[glob.PASSIVE] = wiring.passive_messages and row[costs.IPI - glob.COST0] > 0  # what takes no time waits for none
    g[glob.BIG_WAIT] = mc.BIG_WAIT.index(wiring.big_wait)
    return g


def _names(wiring: Wiring, sources: Sequence[Source], contexts: np.ndarray) -> Names:
    locks = [
        f"{group.name}[{i}]" if group.copies > 1 else group.name for group in wiring.locks for i in range(group.copies)
    ]
    threads = [f"mainline thread {x % wiring.threads}" for x in range(wiring.cpus * wiring.threads)]
    owned = [sources[row[ctx.SOURCE]].name for row in contexts[len(threads) :]]
    classes = tuple(group.name for group in wiring.locks)
    return Names(tuple(locks), classes, tuple(s.name for s in sources), (*threads, *owned))


def _contexts(wiring: Wiring, sources: Sequence[Source]) -> tuple[np.ndarray, list[int]]:
    """Rows of all contexts, with numbers for places, and the number of the first one of each source."""
    blank = np.zeros(ctx.COLUMNS, np.int64)
    blank[[ctx.UNDER, ctx.ABOVE, ctx.LINK, ctx.WAIT, ctx.HELD, ctx.TOKEN, ctx.OP, ctx.ROW, ctx.QUEUE]] = -1
    blank[ctx.STAGE] = stage.NEXT
    threads = np.tile(blank, (wiring.cpus * wiring.threads, 1))
    threads[:, ctx.CPU] = np.arange(len(threads)) // max(wiring.threads, 1)
    threads[:, ctx.PROG], threads[:, ctx.SOURCE] = cx.STREAM, -1
    threads[:, [ctx.PRIO, ctx.BASE]] = PRIORITIES["task"]
    owned = [_contexts_of(wiring, number, source, blank) for number, source in enumerate(sources)]
    ends = np.cumsum([len(threads), *map(len, owned)])
    contexts = np.concatenate([threads, *owned])
    contexts[:, ctx.NUMBER] = np.arange(len(contexts))
    return contexts, ends[:-1].tolist()


def _contexts_of(wiring: Wiring, number: int, source: Source, blank: np.ndarray) -> np.ndarray:
    """Rows of one source's contexts: one, or one on each CPU."""
    if isinstance(source.route, int) and not 0 <= source.route < wiring.cpus:
        raise ConfigError(f"interrupts.sources.{source.name}.route={source.route}: there are {wiring.cpus} CPUs")
    spl = wiring.model == "spl"
    forwarded = spl and wiring.big_lock and source.mode in ("device", "soft")
    everywhere = source.route in ROUTES or forwarded
    rows = np.tile(blank, (wiring.cpus if everywhere else 1, 1))
    rows[:, ctx.CPU] = np.arange(wiring.cpus) if everywhere else int(source.route)
    rows[:, ctx.SOURCE], rows[:, ctx.KIND] = number, mc.MODES.index(source.mode)
    rows[:, [ctx.PRIO, ctx.BASE]] = source.priority or PRIORITIES[source.mode]
    rows[:, ctx.BIT] = mask_of([source.klass]) if source.klass else 0
    rows[:, ctx.RAISES] = raised_by(source.klass) if spl else 0
    return rows


def _source_table(sources: Sequence[Source], first: Sequence[int], contexts: int) -> np.ndarray:
    table = np.zeros((len(sources), src.COLUMNS), np.int64)
    ends = [*first[1:], contexts]
    for s, (row, source) in enumerate(zip(table, sources, strict=True)):
        law = known(f"interrupts.sources.{source.name}", "law", source.law, pg.ARRIVALS)
        row[src.LAW], row[src.NUMBER] = pg.ARRIVALS.index(law), s
        row[src.MEAN] = source.period_ns or (round(1e9 / source.rate_hz) if source.rate_hz > 0 else 0)
        row[src.BURST], row[src.GAP], row[src.PHASE] = source.burst, source.gap_ns, source.phase_ns
        row[src.FIRST], row[src.CONTEXTS], row[src.SPREAD] = first[s], ends[s] - first[s], source.route == "spread"
        row[src.WAITERS] = -1
        row[src.DEVICE] = source.mode in ("device", "soft")
    return table


def _link(wiring: Wiring, wired: Wired, starts: Sequence[int]) -> None:
    """Turn numbers into places."""
    _link_contexts(wiring, wired, np.array(starts, np.int64))
    _link_programs(wired)
    locks, sources = wired.table("locks"), wired.table("sources")
    hist = wired.place("hist", HIST_WAIT + np.arange(len(wiring.locks) + 2 * len(sources)))
    locks[:, lock.HIST] = hist[locks[:, lock.CLASS]]
    sources[:, src.HIST] = hist[len(wiring.locks) + 2 * np.arange(len(sources))]
    sources[:, src.FIRST] = wired.place("contexts", sources[:, src.FIRST])
    columns = wired.table("maps")[:, : kmap.LAZY]
    columns[:] = wired.place("locks", columns)
    if wiring.zones:
        zones = wired.table("zones")
        zones[:, zone.LOCK] = wired.place("locks", zones[:, zone.LOCK])
        wired.table("cpus")[:, cpu.ZONE] = zones[wiring.first_zones, zone.LOCK]
    _link_routes(wiring, wired)
    messages = wired.table("messages")
    messages[:, msg.NEXT] = wired.place("messages", np.arange(1, len(messages) + 1))
    messages[-1, msg.NEXT] = -1
    wired.m[glob.IPI0] = sources[len(wiring.sources), src.FIRST]
    if wiring.daemon:
        wired.m[glob.DAEMON] = sources[wired.names.sources.index(wiring.daemon), src.FIRST]


def _link_routes(wiring: Wiring, wired: Wired) -> None:
    """Give servers the places of their locks and of their map calls."""
    routes = wired.table("routes")
    routes[:, route.HOME : route.CALL] = wired.place("locks", routes[:, route.HOME : route.CALL])
    begins = np.cumsum([0, *(len(map_calls.rows(text)) for text in wiring.calls)])
    calls = routes[:, route.CALL : route.UNLOCKED]
    calls[:] = wired.place("calls", begins[calls])


def _link_contexts(wiring: Wiring, wired: Wired, starts: np.ndarray) -> None:
    """Give contexts their CPU, ring and source, and those of a source its program."""
    contexts = wired.table("contexts")
    contexts[:, ctx.RING] = wired.place("rings", contexts[:, ctx.NUMBER])
    contexts[:, ctx.CPU] = wired.place("cpus", contexts[:, ctx.CPU])
    owned = contexts[wiring.cpus * wiring.threads :]
    source = owned[:, ctx.SOURCE].copy()
    owned[:, ctx.SOURCE] = wired.place("sources", source)
    program = wired.place("programs", starts[source])
    program[source == len(wiring.sources)] = cx.MESSAGES  # the source of that name follows the wiring's own
    program[source > len(wiring.sources)] = cx.RECORDED
    owned[:, ctx.PROG] = owned[:, ctx.PC] = program


def _fill_heaps(wired: Wired) -> None:
    """Put all CPUs and all timers into their heaps; none of them is due."""
    for heap, name in (("cpu_heap", "cpus"), ("timer_heap", "contexts")):
        table = wired.table(name)
        number = np.arange(len(table))
        table[:, KEY], table[:, POS] = NEVER, number
        rows = wired.table(heap)
        rows[:, KEY], rows[:, ITEM] = NEVER, wired.place(name, number)


def _link_programs(wired: Wired) -> None:
    """Turn the operands of program items into places."""
    items = wired.table("programs")
    code = items[:, pg.PC_CODE]
    items[:, pg.PC_END] = wired.place("programs", items[:, pg.PC_END])
    for codes, operand, table in (
        (TO_LOCKS, pg.PC_1, "locks"),
        (TO_SOURCES, pg.PC_1, "sources"),
        ((prog.FREE,), pg.PC_1, "queues"),
        ((prog.ALLOC,), pg.PC_4, "queues"),
    ):
        rows = np.isin(code, codes)
        items[rows, operand] = wired.place(table, items[rows, operand])


def enlarge_messages(wired: Wired) -> Wired:
    """Double the room for messages, all of which are in use."""
    at, rows, columns = wired.shape["messages"]
    more = np.zeros((rows, columns), np.int64)
    more[:, msg.NEXT] = len(wired.m) + np.arange(1, rows + 1) * columns
    more[-1, msg.NEXT] = -1
    m = np.concatenate([wired.m, more.ravel()])
    m[glob.MSG_FREE] = len(wired.m)
    return Wired(m, wired.names, {**wired.shape, "messages": (at, 2 * rows, columns)})


def _start(wired: Wired, sources: Sequence[Source]) -> None:
    """Let each CPU run its first mainline thread, set the timers, and make tasks without arrivals ready."""
    m = wired.m
    _park_threads(wired)
    cpus = wired.place("cpus", np.arange(m[glob.CPUS])).tolist()
    for c in cpus:
        x = m[c + cpu.PARKED]
        if x >= 0:
            m[c + cpu.PARKED] = m[x + ctx.LINK]
        entry(cx.resume)(m, x, c)
    for row, source in zip(wired.table("sources"), sources, strict=True):
        trains = row[src.CONTEXTS] if source.route == "each" else 1
        for x in row[src.FIRST] + np.arange(trains) * ctx.COLUMNS:
            if row[src.LAW] != pg.NONE and row[src.MEAN] > 0:
                entry(ir.schedule)(m, x, 0)
            elif source.mode == "task" and source.law == "none" and source.program:
                entry(cx.queue_ready)(m, x)
    for c in cpus:
        entry(cx.reconsider)(m, c)


def _park_threads(wired: Wired) -> None:
    """Link the mainline's threads to the lists of their CPUs, the first of each in front."""
    m = wired.m
    for x in reversed(wired.place("contexts", np.arange(m[glob.CPUS] * m[glob.THREADS])).tolist()):
        c = m[x + ctx.CPU]
        m[x + ctx.LINK] = m[c + cpu.PARKED]
        m[c + cpu.PARKED] = x
