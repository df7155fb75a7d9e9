"""What random programs on an allocator and its naive twin have in common."""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as h

from kmemexp.sim.slots import FAILED, NO_ENTRY
from kmemexp.sim.tables import panics, regs
from kmemexp.validate.hand import Hand


def apart(spans: Iterable[tuple[int, int]]) -> bool:
    """Whether no two of these (begin, end) overlap."""
    return all(end <= begin for (_, end), (begin, _) in pairwise(sorted(spans)))


def sized_program(*sizes: int) -> Any:
    """Programs of (verb from 0 to 2, number): sizes to allocate, some more often, or which object to free."""
    return h.lists(h.tuples(h.integers(0, 2), h.one_of(h.sampled_from(sizes), h.integers(0, 9000))), max_size=150)


def play_sized(m: Hand, model: Any, program: list[tuple[int, int]], frees: int = 0) -> dict[int, int]:
    """Run a program on both, with verbs up to `frees` for a free; returns the live sizes by address."""
    live: dict[int, int] = {}
    for verb, number in program:
        if verb <= frees and live:
            addr = list(live)[number % len(live)]
            m.free(addr, size=live.pop(addr))
            model.free(addr)
        else:
            addr = model.alloc(number)
            assert m.alloc(number) == addr
            if addr >= 0:
                live[addr] = number
    return live


def run(program: list, steps: Mapping[str, Callable], check: Callable[[], None], *, step_by_step: bool) -> None:
    """Play a program of (verb, arguments of its step …, how often); `check` at the end, or also after every step."""
    for verb, *args, times in program:
        for _ in range(times):
            steps[verb](*args)
        if step_by_step:
            check()
    check()


def chain(link: np.ndarray, head: int, end: int, unit: int) -> list[int]:
    """Addresses on a linked list of units of so many bytes."""
    found, at = [], int(head)
    while at != end:
        found.append(at * unit)
        at = int(link[at])
    return found


def emptied(m: Hand, live: Iterable[tuple[int, int]], module: ModuleType) -> None:
    """Free what lives, (item, address) each: all items of the allocator are free then."""
    for z, addr in live:
        m.free(addr, item=z)
    census = module.census(m.state)
    assert census["free_items"] == census["items"]


def play_bursts(bench: Any, program: list[tuple[str, Any, int, int, int, int]]) -> None:
    """Play (verb, what, how often, CPU, flags, which) on a `bench` that has `cpus`, `live`, alloc, free and check."""
    for verb, what, count, cpu, flags, which in program:
        if verb == "alloc":
            for _ in range(count):
                bench.alloc(what, cpu % bench.cpus, flags)
        for k in range(min(count, len(bench.live)) if verb != "alloc" else 0):
            bench.free(which if verb == "free_run" else which * (k + 1), cpu % bench.cpus, flags)
        bench.check()


def refuses(make: Callable[[Any], Any], name: str, values: Iterable[Any]) -> None:
    """Hold a maker to naming the parameter and the value that it cannot have."""
    for value in values:
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            make(value)


def panics_without_map_entries(module: ModuleType, state: Any) -> None:
    """Ask an allocator of whole pages for an item, and let the map answer that it has no entry left."""
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    module.alloc(state, reg, 0)
    reg[0, regs.BASE] = NO_ENTRY
    assert module.alloc(state, reg, 0) == FAILED
    assert reg[0, regs.PANIC] == panics.ENTRIES
