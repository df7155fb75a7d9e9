"""A driver in plain Python over a map that only counts upwards: enough to test one allocator by itself."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from kmemexp import jit
from kmemexp.sim import slots as s
from kmemexp.sim.aliases import Words
from kmemexp.sim.tables import flag, regs


class Hand:
    """Play single operations on an allocator's state; `map_log` lists the map steps it asked for."""

    def __init__(self, module: ModuleType, state: Any, *, start: int = 0, limit: int = 1 << 30) -> None:
        self.module, self.state = module, state
        self.reg = np.zeros((1, regs.COLUMNS), np.int64)
        self.next, self.limit = start, limit
        self.map_log: list[tuple[str, int, int]] = []
        self.answers: list[int] = []
        self.moves: list[tuple[int, int, int]] = []  # object, from, to
        self.may_move: Callable[[int], bool] = lambda obj: True  # what the owner of an object says

    def alloc(self, size: int, *, item: int = 0, cpu: int = 0, flags: int = 0, obj: int = 0) -> int:
        """Allocate; returns the address or -1."""
        r = self._begin(cpu, flags, item)
        r[regs.SIZE], r[regs.OBJECT] = size, obj
        return int(r[regs.ADDR]) if self._run(self.module.alloc) == s.DONE else -1

    def free(self, addr: int, *, item: int = 0, cpu: int = 0, flags: int = 0, size: int = 0) -> None:
        """Free a chunk."""
        r = self._begin(cpu, flags, item)
        r[regs.ADDR], r[regs.SIZE] = addr, size
        self._must(self.module.free)

    def tend(self, why: int = s.TEND_TICK, *, cpu: int = 0) -> None:
        """Let the allocator see to itself."""
        self._begin(cpu, 0, 0)[regs.SIZE] = why
        self._must(self.module.tend)

    @property
    def granted(self) -> int:
        """Bytes of the chunk that the last allocation got."""
        return int(self.reg[0, regs.GRANTED])

    def _must(self, step: Callable[..., Any]) -> None:
        if (answer := self._run(step)) != s.DONE:
            raise RuntimeError(f"{self.module.__name__}: answered {answer}, which is not DONE")

    def _begin(self, cpu: int, flags: int, item: int) -> Words:
        r: Words = self.reg[0]
        r[:] = 0
        r[regs.CPU], r[regs.FLAGS], r[regs.ITEM], r[regs.ADDR] = cpu, flags, item, -1
        self.answers = []
        return r

    def _run(self, step: Callable[..., Any]) -> int:
        r = self.reg[0]
        inside = isinstance(step, jit.pipeline.Inside)
        step = jit.entry(step) if inside else step
        while True:
            answer = int(step(self.state, self.reg, 0))
            self.answers.append(answer)
            if answer in (s.DONE, s.FAILED):
                return answer
            if answer == s.MAP_ALLOC:
                self._map(r)
            elif answer == s.MAP_FREE:
                self.map_log.append(("free", int(r[regs.BASE]), int(r[regs.BYTES])))
            elif answer == s.WIRE:
                self.map_log.append(("wire", int(r[regs.BASE]), int(r[regs.BYTES])))
            elif answer == s.IPI:
                r[regs.CPU] = r[regs.TARGET]
            elif answer == s.SLEEP:
                r[regs.FLAGS] |= flag.NOWAIT | flag.WAITED
            elif answer == s.MOVE:
                if self.may_move(int(r[regs.OBJECT])):
                    self.moves.append((int(r[regs.OBJECT]), int(r[regs.ADDR]), int(r[regs.BASE])))
                else:
                    r[regs.BASE] = -1
            elif answer != s.AGAIN:
                raise RuntimeError(f"{self.module.__name__}: there is no answer {answer}")

    def _map(self, r: Words) -> None:
        """Take a range at the end of what has been taken."""
        align = max(int(r[regs.ALIGN]), s.PAGE)
        base = -(-self.next // align) * align
        if base + r[regs.BYTES] > self.limit:
            r[regs.BASE] = s.NO_SPACE
        else:
            r[regs.BASE], self.next = base, base + int(r[regs.BYTES])
            self.map_log.append(("alloc", base, int(r[regs.BYTES])))
