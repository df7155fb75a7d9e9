"""The conformance suite that every allocator must pass: `check_allocator("my_allocators/bump.py")`.

It plays random programs on an allocator's kernels, over a first-fit map, and raises AssertionError with what went
wrong, at which operation, and the seed. Programs are played twice: each operation to its end, and with the steps of
several operations interleaved as the machine with a clock interleaves them.

May import every room that a part may use: parts, sim.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from kmemexp.parts import contract, outside
from kmemexp.sim import slots as s
from kmemexp.sim.tables import flag, regs
from kmemexp.testing import fast
from kmemexp.testing.bench import ITEMS, Bench, Map, Task
from kmemexp.testing.watch import Limits, watched

MIB = 1 << 20
SIZES = (1, 8, 16, 24, 60, 64, 100, 128, 192, 256, 500, 512, 800, 1024, 2048, 4000, 4096, 5000, 8192, 12288, 20000)
MBUFS = (256, 256, 2048, 5000)
SPARE = 1.5  # at most so many times the pages of one round may be held after another like it
Operation = tuple[str, int, int, int, int, int]  # verb, size, item, flags, CPU, which of the live objects
DEFAULT_LIMITS = Limits()
FAST_KVA = 4 * MIB  # of the program in which fast slots are compared with steps: all arrays, at each operation


def check_allocator(
    allocator: str | Path | ModuleType,
    *,
    params: dict[str, int] | None = None,
    naive: Callable[..., Any] | None = None,
    cpus: int = 4,
    kva_bytes: int = 64 * MIB,
    operations: int = 2000,
    seeds: Sequence[int] = (0, 1, 2),
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Check an allocator: a module, the name of a built-in one, or the path of a file.

    `params`: fields of its Params. `naive`: makes a reference model, `naive(take, give, cpus, items)`, with
    `alloc(size, item, cpu, flags) -> address` (-1 without memory) and `free(address, item, cpu, flags)`; `take(nbytes,
    align)` and `give(base, nbytes)` are its map. It must give the same addresses. Raises AssertionError; a step that
    does not come back (`limits`) ends the process.
    """
    module = _module(allocator)
    wrong = list(contract.problems(module, "allocators"))
    assert not wrong, "; ".join(wrong)
    name = module.__name__.rpartition(".")[2]
    with watched(name, limits) as progress:
        setup = {"cpus": cpus, "kva_bytes": kva_bytes, "params": params or {}, "progress": progress}
        for seed in seeds:
            try:
                _check(module, setup, operations, seed, naive, first=seed == seeds[0])
            except AssertionError as error:
                raise AssertionError(f"{name}, seed {seed}: {error}") from error


def _check(
    module: ModuleType, setup: dict[str, Any], operations: int, seed: int, naive: Callable[..., Any] | None, first: bool
) -> None:
    """Play the programs of one seed."""
    played = _whole(module, setup, operations, seed, naive)
    assert played == _whole(module, setup, operations, seed), "the same program gave other addresses"
    if first and any(hasattr(module, f"fast_{verb}") for verb in ("alloc", "free")):
        kva_bytes = min(setup["kva_bytes"], FAST_KVA)
        _whole(module, setup | {"kva_bytes": kva_bytes}, operations // 5, seed, look=True)
    _interleaved(module, setup, operations, seed)


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
    module: ModuleType,
    setup: dict[str, Any],
    operations: int,
    seed: int,
    naive: Callable[..., Any] | None = None,
    look: bool = False,
) -> list[int]:
    """Play a program twice, each operation to its end. Returns the addresses of all chunks.

    Where `look`, what fast slots do is compared with what steps do.
    """
    bench = Bench(module, **setup)
    twin = _Twin(naive, bench) if naive else None
    held = []
    program = _program(module, operations, np.random.default_rng(seed))
    for _ in range(2):
        for k, (verb, size, item, flags, cpu, which) in enumerate(program):
            if verb == "free" and not bench.live:
                continue  # allocations have failed
            obj = list(bench.live)[which % len(bench.live)] if verb == "free" else k
            task = Task(0, verb, obj, cpu % setup["cpus"])
            before = bench.live.get(obj)
            try:
                bench.begin(task, size, item, flags)
                fast.play(bench, task, look=look)
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

    A CPU has two of them; while one keeps its section, the other and the handlers of messages wait.
    """
    rng = np.random.default_rng(seed)
    lanes = 2 * setup["cpus"]
    bench = Bench(module, **setup, rows=lanes + 1)
    bench.refuses = lambda: bool(rng.random() < 0.2)
    program = _program(module, operations, rng)[::-1]
    busy: dict[int, Task] = {}
    while program or busy or bench.messages:
        lane = int(rng.integers(lanes))
        if lane in busy:
            if not bench.waits(busy[lane]) and bench.step(busy[lane]):
                del busy[lane]
        elif bench.messages and (rng.random() < 0.3 or not program):
            if bench.messages[0][regs.TARGET] not in bench.inside:  # the handler waits for the section's end
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
    bench.taken[row] = 0
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
