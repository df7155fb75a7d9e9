"""What random programs on an allocator and its naive twin have in common."""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from hypothesis import strategies as h

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
