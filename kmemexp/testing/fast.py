"""An allocator's fast slots against its steps: what they serve must come out the same, what they refuse unchanged."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kmemexp.sim.tables import obj, regs
from kmemexp.testing.bench import Bench, Task, as_python


class Served(NamedTuple):
    """What a fast slot has done."""

    addr: int
    granted: int
    state: list[np.ndarray]  # the state's arrays afterwards


def play(bench: Bench, task: Task, *, look: bool) -> None:
    """Play an operation that has begun to its end. Where `look`, its fast slot plays it first, on the same state."""
    served = _ask(bench, task) if look and hasattr(bench.module, f"fast_{task.verb}") else None
    ended = bench.step(task)
    if served:
        _compare(bench, task, served, ended)
    while not ended:
        ended = bench.step(task)


def _ask(bench: Bench, task: Task) -> Served | None:
    """Let the fast slot play the operation, and undo it. None: it has refused."""
    r = bench.reg[task.row].tolist()
    before = [array.copy() for array in _arrays(bench.state)]
    slot = as_python(getattr(bench.module, f"fast_{task.verb}"))
    if task.verb == "alloc":
        addr, granted = slot(bench.state, r[regs.ITEM], r[regs.SIZE], task.cpu, r[regs.FLAGS])
        done = addr != obj.ABSENT
    else:
        addr, granted = r[regs.ADDR], 0
        done = slot(bench.state, r[regs.ITEM], addr, r[regs.SIZE], task.cpu, r[regs.FLAGS])
    after = [array.copy() for array in _arrays(bench.state)]
    if not done:
        assert _same(before, after), f"fast_{task.verb} has refused and has changed the state"
        return None
    for array, old in zip(_arrays(bench.state), before, strict=True):
        array[...] = old
    return Served(int(addr), int(granted), after)


def _compare(bench: Bench, task: Task, served: Served, ended: bool) -> None:
    """Compare what the first step has done with what the fast slot did."""
    assert ended, f"fast_{task.verb} serves what {task.verb} does not do in one step"
    if task.verb == "alloc":
        addr, _, _, granted = bench.live.get(task.obj, (obj.ABSENT, 0, 0, 0))
        assert (served.addr, served.granted) == (addr, granted), (
            f"fast_alloc gives {served.granted} bytes at {served.addr:#x}, alloc {granted} at {addr:#x}"
        )
    same = _same(served.state, _arrays(bench.state))
    assert same, f"fast_{task.verb} leaves another state than {task.verb}"


def _arrays(state: Any) -> list[np.ndarray]:
    """Arrays of a state, and of the states in it."""
    return list(_walk(state))


def _walk(state: Any) -> Iterator[np.ndarray]:
    for field in state:
        if isinstance(field, np.ndarray):
            yield field
        elif isinstance(field, tuple):
            yield from _walk(field)


def _same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
