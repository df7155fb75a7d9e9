"""One allocator by itself, over a first-fit map: what the conformance suite plays on."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from kmemexp.jit import entry
from kmemexp.parts import map_calls
from kmemexp.sim import slots as s
from kmemexp.sim.items import ACCOUNT, Item, Traits
from kmemexp.sim.tables import flag, regs
from kmemexp.testing.watch import Limits, Progress

ITEMS = (
    Item(180, 1, 400), Item(168, 5, 0, Traits(sheaf=8, flags=ACCOUNT)), Item(1024, 2, 0),
    Item(48, 1, 0, Traits(flags=ACCOUNT)), Item(4096, 1, 0, Traits(flags=ACCOUNT)), Item(576, 1, 3000),
)  # fmt: skip
VERBS = ("alloc", "free", "tend")
MCLBYTES = 2048
UNIT = 8  # alignment that every chunk has, unless the allocator says otherwise (MIN_ALIGN)


class Map:
    """First fit by address over [0, nbytes): the simplest map that gives memory back."""

    def __init__(self, nbytes: int) -> None:
        self.free = [(0, nbytes)]
        self.used: dict[int, int] = {}
        self.bases: list[int] = []  # of what is used, sorted

    def take(self, nbytes: int, align: int) -> int:
        """Lowest address of a hole that is large enough; NO_SPACE without one."""
        for i, (start, end) in enumerate(self.free):
            base = -(-start // align) * align
            if base + nbytes <= end:
                self.free[i : i + 1] = [h for h in ((start, base), (base + nbytes, end)) if h[0] < h[1]]
                self.used[base] = nbytes
                insort(self.bases, base)
                return base
        return s.NO_SPACE

    def give(self, base: int, nbytes: int) -> None:
        """Take back a range that was taken whole."""
        assert self.used.pop(base, None) == nbytes, f"the map gets back [{base:#x}, +{nbytes}), which was not taken so"
        self.bases.remove(base)
        at = bisect_left(self.free, (base, 0))
        end = base + nbytes
        if at < len(self.free) and self.free[at][0] == end:
            end = self.free.pop(at)[1]
        if at and self.free[at - 1][1] == base:
            at, base = at - 1, self.free.pop(at - 1)[0]
        self.free.insert(at, (base, end))

    def holds(self, start: int, end: int) -> bool:
        """Whether a range lies in one that is taken, or in several that touch."""
        at = bisect_right(self.bases, start) - 1
        while 0 <= at < len(self.bases) and self.bases[at] <= start < end:
            start = max(start, self.bases[at] + self.used[self.bases[at]])
            at += 1
        return start >= end

    @property
    def pages(self) -> int:
        """Pages that are taken."""
        return sum(self.used.values()) // s.PAGE


class Task(NamedTuple):
    """An operation under way."""

    row: int  # of the registers
    verb: str  # alloc, free, tend
    obj: int
    cpu: int


class Bench:
    """One allocator by itself: its state, the map it grows in, what is alive."""

    def __init__(
        self, module: ModuleType, *, cpus: int, kva_bytes: int, params: dict[str, int], rows: int = 1,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.module, self.cpus, self.progress = module, cpus, progress or Progress(Limits())
        self.taken = [0] * rows  # steps of the operation under way, by row
        self.map, self.reserved = Map(kva_bytes), 0
        zones = ITEMS if s.CLASS_ZONE in module.SERVES else ()
        sets_aside = getattr(module, "kva_reserved", lambda item: 0)
        bases = [self.map.take(n, s.PAGE) if (n := sets_aside(item)) else -1 for item in zones]
        self.reserved = self.map.pages
        filled = {k: v for k, v in {"cpus": cpus, "domains": 1, "ram_bytes": kva_bytes, "kva_bytes": kva_bytes}.items()
                  if k in module.Params._fields and not getattr(module.Params(), k)}  # fmt: skip
        self.state = module.init(
            module.Params(**filled | params), kva_bytes=kva_bytes, cpus=cpus, map_number=0, items=zones, bases=bases
        )
        self.reg = np.zeros((rows, regs.COLUMNS), np.int64)
        self.live: dict[int, tuple[int, int, int, int]] = {}  # object: address, size, item, granted
        self.spans: list[tuple[int, int]] = []  # of live objects, sorted
        self.wired = 0  # pages at KVA set aside
        self.leaving: set[int] = set()
        self.placed: list[int] = []  # addresses of all chunks, in order
        self.messages: list[tuple[int, ...]] = []
        self.started = 0
        self.calls = map_calls.calls_of(map_calls.own_calls(module))
        self.kernels = {verb: as_python(getattr(module, verb)) for verb in VERBS if hasattr(module, verb)}
        self.inside: dict[int, int] = {}  # row of the operation whose section goes on through a map step, by CPU
        self.refuses: Callable[[], bool] = lambda: False

    def begin(self, task: Task, size: int, item: int, flags: int) -> None:
        """Fill the registers of an operation."""
        r = self.reg[task.row]
        r[:] = 0
        self.taken[task.row] = 0
        r[regs.CPU], r[regs.FLAGS], r[regs.OBJECT], r[regs.LOCK] = task.cpu, flags, task.obj, -1
        r[regs.SIZE], r[regs.ITEM], r[regs.ADDR] = size, item, -1
        if task.verb == "free":
            addr, size, item, granted = self.live.pop(task.obj)
            r[regs.ADDR], r[regs.SIZE], r[regs.ITEM] = addr, size, item
            self.leaving.add(task.obj)
            if granted:
                self.spans.remove(_span(addr, item, granted))

    def step(self, task: Task) -> bool:
        """Take one step of an operation and do what it answers. True: it has ended."""
        r = self.reg[task.row]
        r[regs.WORK], r[regs.LOCK], r[regs.CALL], r[regs.BARE] = 0, -1, -1, 0
        self.inside.pop(task.cpu, None)
        self.taken[task.row] += 1
        self.progress.steps += 1
        self.progress.doing = f"{task.verb} of {r[regs.SIZE]} bytes on CPU {task.cpu}"
        assert self.taken[task.row] <= self.progress.limits.steps, f"takes more than {self.progress.limits.steps} steps"
        answer = int(self.kernels[task.verb](self.state, self.reg, task.row))
        assert r[regs.WORK] >= 0, "R_WORK is negative"
        if answer <= s.FAILED:
            self._end(task, answer)
            return True
        if answer == s.IPI:
            assert task.verb != "alloc", "an allocation cannot go on on another CPU"
            assert 0 <= r[regs.TARGET] < self.cpus, f"IPI to CPU {r[regs.TARGET]}"
            self.messages.append(tuple(r.tolist()))
            self.leaving.discard(task.obj)
            return True
        if answer == s.MOVE:
            self._move(r)
        elif answer == s.SLEEP:
            assert task.verb == "alloc", "only an allocation may sleep"
            assert not r[regs.FLAGS] & flag.NOWAIT, "a request that may not wait would sleep"
            r[regs.FLAGS] |= flag.NOWAIT | flag.WAITED
        elif answer == s.AGAIN:
            klass = int(r[regs.LOCK]) >> regs.LOCK_SHIFT
            assert klass < len(self.module.LOCKS), f"R_LOCK names class {klass}; LOCKS has {len(self.module.LOCKS)}"
        else:
            self._map(r, answer)
            if self._keeps(r, answer):
                self.inside[task.cpu] = task.row
        return False

    def waits(self, task: Task) -> bool:
        """Whether another operation keeps its section on the CPU of this one."""
        return self.inside.get(task.cpu, task.row) != task.row

    def _keeps(self, r: np.ndarray, answer: int) -> bool:
        """Whether a section goes on into the step after this map step."""
        which = int(r[regs.CALL])
        assert which < len(self.calls), f"R_CALL is {which}; there are {len(self.calls)} map calls"
        words = self.calls[which if which >= 0 else answer - s.MAP_ALLOC].split()
        return words[0] == "keep" and "leave" not in words

    def check(self) -> None:
        """The allocator must say that it holds the pages that it took from the map, no more and no fewer."""
        held, taken = self.module.census(self.state)["pages"], self.map.pages - self.reserved + self.wired
        assert held == taken, f"census: {held} pages, but {taken} were taken from the map"
        if hasattr(self.module, "caches"):
            live = [(addr, size, granted, 0) for addr, size, _, granted in self.live.values() if addr >= 0]
            rows = np.array(live, np.int64).reshape(-1, 4)
            pages = [row.pages for row in self.module.caches(self.state, lambda: rows)]
            assert min(pages, default=0) >= 0, "caches: one has less than no pages"
            assert sum(pages) <= held, f"caches: {sum(pages)} pages, but {held} are held"

    def _map(self, r: np.ndarray, answer: int) -> None:
        nbytes = int(r[regs.BYTES])
        assert nbytes > 0, "a map step of no bytes"
        assert nbytes % s.PAGE == 0, f"a map step of {nbytes} bytes, which are no whole pages"
        if answer == s.MAP_ALLOC:
            r[regs.BASE] = self.map.take(nbytes, max(int(r[regs.ALIGN]), s.PAGE))
        elif answer == s.MAP_FREE:
            self.map.give(int(r[regs.BASE]), nbytes)
        else:
            assert answer == s.WIRE, f"unknown answer {answer}"
            self.wired += nbytes // s.PAGE

    def _move(self, r: np.ndarray) -> None:
        obj, old, new = (int(r[k]) for k in (regs.OBJECT, regs.ADDR, regs.BASE))
        if self.refuses() or obj in self.leaving or self.live.get(obj, (-1,))[0] != old:
            r[regs.BASE] = -1
            return
        _, size, item, granted = self.live.pop(obj)
        self.spans.remove(_span(old, item, granted))
        self._place(obj, new, size, item, granted)

    def _end(self, task: Task, answer: int) -> None:
        r = self.reg[task.row]
        if task.verb == "alloc" and answer == s.DONE:
            granted = int(r[regs.GRANTED])
            size = int(r[regs.SIZE])
            assert granted >= size, f"{granted} bytes granted for a request of {size}"
            self._place(task.obj, int(r[regs.ADDR]), size, int(r[regs.ITEM]), granted)
        elif task.verb != "alloc":
            self.leaving.discard(task.obj)
            assert answer == s.DONE, f"{task.verb} failed"

    def _place(self, obj: int, addr: int, size: int, item: int, granted: int) -> None:
        """Enter a chunk: aligned, apart from all others, and in memory that was taken for it."""
        self.live[obj] = addr, size, item, granted
        if granted == 0:
            return  # malloc(0)
        span = _span(addr, item, granted)
        unit = getattr(self.module, "MIN_ALIGN", UNIT)
        assert addr % unit == 0, f"{addr:#x} is not aligned to {unit} bytes"
        assert self.map.holds(*span), f"[{addr:#x}, {span[1]:#x}) is not in memory that was taken from the map"
        at = bisect_left(self.spans, span)
        for start, end in self.spans[max(at - 1, 0) : at + 1]:
            apart = end <= addr or start >= span[1]
            assert apart, f"[{addr:#x}, {span[1]:#x}) overlaps [{start:#x}, {end:#x}), which is alive"
        insort(self.spans, span)
        self.placed.append(addr)


def as_python(function: Callable[..., Any]) -> Callable[..., Any]:
    """What Python calls: a kernel's twin; a plain function as it is."""
    return entry(function) if hasattr(function, "py_func") else function


def _span(addr: int, item: int, granted: int) -> tuple[int, int]:
    """Range of a chunk; of a chain of mbuf clusters, which need not be in one piece, the first."""
    return addr, addr + (min(granted, MCLBYTES) if item == s.ITEM_MBUF else granted)
