"""The conformance suite that every allocator must pass: `check_allocator("my_allocators/bump.py")`.

It plays random programs on an allocator's kernels, over a first-fit map, and raises AssertionError with what went
wrong, at which operation, and the seed. Programs are played twice: each operation to its end, and with the steps of
several operations interleaved as the machine with a clock interleaves them.
"""

import importlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from kmemexp.jit import entry
from kmemexp.parts import contract, outside
from kmemexp.sim import slots as s
from kmemexp.sim.items import Item
from kmemexp.sim.tables import flag, regs

MIB = 1 << 20
ITEMS = (Item(180, 1, 400), Item(168, 5, 0), Item(1024, 2, 0), Item(48, 1, 0), Item(4096, 1, 0), Item(576, 1, 3000))
SIZES = (1, 8, 16, 24, 60, 64, 100, 128, 192, 256, 500, 512, 800, 1024, 2048, 4000, 4096, 5000, 8192, 12288, 20000)
MBUFS = (256, 256, 2048, 5000)
MCLBYTES = 2048
SPARE = 1.5  # at most so many times the pages of one round may be held after another like it
Operation = tuple[str, int, int, int, int, int]  # verb, size, item, flags, CPU, which of the live objects
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

    def __init__(self, module: ModuleType, *, cpus: int, kva_bytes: int, params: dict[str, int], rows: int = 1) -> None:
        self.module, self.cpus = module, cpus
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
        self.refuses: Callable[[], bool] = lambda: False

    def begin(self, task: Task, size: int, item: int, flags: int) -> None:
        """Fill the registers of an operation."""
        r = self.reg[task.row]
        r[:] = 0
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
        r[regs.WORK], r[regs.LOCK] = 0, -1
        answer = int(entry(getattr(self.module, task.verb))(self.state, self.reg, task.row))
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
        elif answer == s.AGAIN:
            klass = int(r[regs.LOCK]) >> regs.LOCK_SHIFT
            assert klass < len(self.module.LOCKS), f"R_LOCK names class {klass}; LOCKS has {len(self.module.LOCKS)}"
        else:
            self._map(r, answer)
        return False

    def check(self) -> None:
        """The allocator must say that it holds the pages that it took from the map, no more and no fewer."""
        held, taken = self.module.census(self.state)["pages"], self.map.pages - self.reserved + self.wired
        assert held == taken, f"census: {held} pages, but {taken} were taken from the map"

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


def _span(addr: int, item: int, granted: int) -> tuple[int, int]:
    """Range of a chunk; of a chain of mbuf clusters, which need not be in one piece, the first."""
    return addr, addr + (min(granted, MCLBYTES) if item == s.ITEM_MBUF else granted)


def check_allocator(
    allocator: str | Path | ModuleType,
    *,
    params: dict[str, int] | None = None,
    naive: Callable[..., Any] | None = None,
    cpus: int = 4,
    kva_bytes: int = 64 * MIB,
    operations: int = 2000,
    seeds: Sequence[int] = (0, 1, 2),
) -> None:
    """Check an allocator: a module, the name of a built-in one, or the path of a file.

    `params`: fields of its Params. `naive`: makes a reference model, `naive(take, give, cpus, items)`, with
    `alloc(size, item, cpu, flags) -> address` (-1 without memory) and `free(address, item, cpu, flags)`; `take(nbytes,
    align)` and `give(base, nbytes)` are its map. It must give the same addresses. Raises AssertionError.
    """
    module = _module(allocator)
    wrong = list(contract.problems(module, "allocators"))
    assert not wrong, "; ".join(wrong)
    setup = {"cpus": cpus, "kva_bytes": kva_bytes, "params": params or {}}
    for seed in seeds:
        try:
            played = _whole(module, setup, operations, seed, naive)
            assert played == _whole(module, setup, operations, seed, None), "the same program gave other addresses"
            _interleaved(module, setup, operations, seed)
        except AssertionError as error:
            raise AssertionError(f"{module.__name__.rpartition('.')[2]}, seed {seed}: {error}") from error


def _module(allocator: str | Path | ModuleType) -> ModuleType:
    if isinstance(allocator, ModuleType | SimpleNamespace):
        return allocator
    path = Path(allocator)
    if path.suffix == ".py":
        return outside.load("allocators", outside.add("allocators", path.absolute()))
    return importlib.import_module(f"kmemexp.sim.allocators.{allocator}")


def _request(module: ModuleType, rng: np.random.Generator) -> tuple[int, int]:
    """Size and item of a random request that the allocator serves."""
    klass = rng.choice(module.SERVES)
    if klass == s.CLASS_ZONE:
        item = int(rng.integers(len(ITEMS)))
        return ITEMS[item].size, item
    if klass == s.CLASS_MBUF:
        return int(rng.choice(MBUFS)), s.ITEM_MBUF
    size = int(rng.choice(SIZES)) if rng.random() < 0.7 else int(rng.integers(1, 3000))
    return size, s.ITEM_MALLOC


def _program(module: ModuleType, operations: int, rng: np.random.Generator) -> list[Operation]:
    """Random operations that grow, shrink and end with nothing alive."""
    program: list[Operation] = []
    alive = 0
    for k in range(operations):
        grows = 0.7 if (k // (operations // 4 + 1)) % 2 == 0 else 0.3
        cpu, flags = int(rng.integers(1 << 20)), int(rng.choice([0, 0, flag.NOWAIT, flag.SOFT | flag.NOWAIT]))
        if hasattr(module, "tend") and rng.random() < 0.01:
            program.append(("tend", int(rng.choice([s.TEND_TICK, s.TEND_REAP])), 0, 0, cpu, 0))
        elif alive == 0 or rng.random() < grows:
            program.append(("alloc", *_request(module, rng), flags, cpu, 0))
            alive += 1
        else:
            program.append(("free", 0, 0, flags & ~flag.NOWAIT, cpu, int(rng.integers(1 << 20))))
            alive -= 1
    program += [("free", 0, 0, 0, int(rng.integers(1 << 20)), int(rng.integers(1 << 20))) for _ in range(alive)]
    return program


def _whole(
    module: ModuleType, setup: dict[str, Any], operations: int, seed: int, naive: Callable[..., Any] | None
) -> list[int]:
    """Play a program twice, each operation to its end. Returns the addresses of all chunks."""
    bench = Bench(module, **setup)
    twin = _Twin(naive, bench) if naive else None
    held = []
    for _ in range(2):
        rng = np.random.default_rng(seed)
        for k, (verb, size, item, flags, cpu, which) in enumerate(_program(module, operations, rng)):
            if verb == "free" and not bench.live:
                continue  # allocations have failed
            obj = list(bench.live)[which % len(bench.live)] if verb == "free" else k
            task = Task(0, verb, obj, cpu % setup["cpus"])
            before = bench.live.get(obj)
            try:
                bench.begin(task, size, item, flags)
                while not bench.step(task):
                    pass
                while bench.messages:
                    _deliver(bench, 0)
                if k % 64 == 0:
                    bench.check()
                if twin:
                    twin.follow(task, size, item, flags, before)
            except AssertionError as error:
                raise AssertionError(f"operation {k} ({verb} {size} on CPU {task.cpu}): {error}") from error
        _drained(bench)
        held.append(bench.map.pages)
    # The second round may settle otherwise than the first, but a leak would grow with it.
    assert held[1] <= SPARE * held[0] + 8 * setup["cpus"], (
        f"{held[0]} pages are held after a round, {held[1]} after two"
    )
    return bench.placed


def _interleaved(module: ModuleType, setup: dict[str, Any], operations: int, seed: int) -> None:
    """Play a program with several operations under way at once, a step of one at a time, in random order.

    Where an allocator keeps its section through map steps, a CPU has one operation under way, else two.
    """
    rng = np.random.default_rng(seed)
    cpus = setup["cpus"]
    lanes = cpus if module.KEEPS else 2 * cpus
    bench = Bench(module, **setup, rows=lanes + 1)
    bench.refuses = lambda: bool(rng.random() < 0.2)
    program = _program(module, operations, rng)[::-1]
    busy: dict[int, Task] = {}
    while program or busy or bench.messages:
        lane = int(rng.integers(lanes))
        if lane in busy:
            if bench.step(busy[lane]):
                del busy[lane]
        elif bench.messages and (rng.random() < 0.3 or not program):
            cpu = bench.messages[0][regs.TARGET]
            if not module.KEEPS or cpu not in busy:  # the handler waits for the section's end
                _deliver(bench, lanes)
        elif program:
            _start(bench, busy, lane, program.pop())
    _drained(bench)


def _start(bench: Bench, busy: dict[int, Task], lane: int, operation: Operation) -> None:
    verb, size, item, flags, _, which = operation
    if (verb == "free" and not bench.live) or (verb == "tend" and any(t.verb == "tend" for t in busy.values())):
        return
    bench.started += 1
    obj = list(bench.live)[which % len(bench.live)] if verb == "free" else bench.started
    busy[lane] = Task(lane, verb, obj, lane % bench.cpus)
    bench.begin(busy[lane], size, item, flags)


def _deliver(bench: Bench, row: int) -> None:
    """Let the oldest message's target go on with its operation, as the handler of an IPI."""
    old = bench.messages.pop(0)
    r = bench.reg[row]
    r[:] = 0
    for k in (regs.ITEM, regs.ADDR, regs.SIZE, regs.PHASE):
        r[k] = old[k]
    r[regs.CPU], r[regs.FLAGS] = old[regs.TARGET], old[regs.FLAGS] | flag.HARD
    task = Task(row, "free", -1, old[regs.TARGET])
    while not bench.step(task):
        pass


def _drained(bench: Bench) -> None:
    """Free what is left; then nothing may be alive, and the pages must be accounted for."""
    for obj in list(bench.live):
        task = Task(0, "free", obj, obj % bench.cpus)
        bench.begin(task, 0, 0, 0)
        while not bench.step(task):
            pass
    while bench.messages:
        _deliver(bench, 0)
    bench.check()


class _Twin:
    """A reference model beside the bench, over a map of its own."""

    def __init__(self, make: Callable[..., Any], bench: Bench) -> None:
        self.bench, self.map = bench, Map(0)
        self.map.free, self.map.used, self.map.bases = list(bench.map.free), dict(bench.map.used), list(bench.map.bases)
        items = ITEMS if s.CLASS_ZONE in bench.module.SERVES else ()
        self.model = make(take=self.map.take, give=self.map.give, cpus=bench.cpus, items=items)

    def follow(self, task: Task, size: int, item: int, flags: int, before: tuple[int, int, int, int] | None) -> None:
        """Play the operation that the bench has played, and compare."""
        if task.verb == "alloc":
            want = self.model.alloc(size, item, task.cpu, flags)
            have = self.bench.live.get(task.obj, (-1,))[0]
            assert have == want, f"placed at {have:#x}, the reference model at {want:#x}"
        elif task.verb == "free" and before is not None:
            self.model.free(before[0], before[2], task.cpu, flags)
        assert self.map.used == self.bench.map.used, "the reference model holds other ranges of the map"
