"""A driver in plain Python over a map that only counts upwards: enough to test one allocator by itself."""

import numpy as np

from kmemexp.sim import slots as s


class Hand:
    """Play single operations on an allocator's state; `map_log` lists the map steps it asked for."""

    def __init__(self, module, state, *, start: int = 0, limit: int = 1 << 30) -> None:
        self.module, self.state = module, state
        self.reg = np.zeros((1, s.R_COUNT), np.int64)
        self.next, self.limit = start, limit
        self.map_log: list[tuple[str, int, int]] = []
        self.answers: list[int] = []
        self.moves: list[tuple[int, int, int]] = []  # object, from, to
        self.may_move = lambda obj: True  # what the owner of an object says

    def alloc(self, size: int, *, item: int = 0, cpu: int = 0, flags: int = 0, obj: int = 0) -> int:
        """Allocate; returns the address or -1."""
        r = self._begin(cpu, flags, item)
        r[s.R_SIZE], r[s.R_OBJECT] = size, obj
        return int(r[s.R_ADDR]) if self._run(self.module.alloc) == s.DONE else -1

    def free(self, addr: int, *, item: int = 0, cpu: int = 0, flags: int = 0, size: int = 0) -> None:
        """Free a chunk."""
        r = self._begin(cpu, flags, item)
        r[s.R_ADDR], r[s.R_SIZE] = addr, size
        assert self._run(self.module.free) == s.DONE

    def tend(self, why: int = s.T_TICK, *, cpu: int = 0) -> None:
        """Let the allocator see to itself."""
        self._begin(cpu, 0, 0)[s.R_SIZE] = why
        assert self._run(self.module.tend) == s.DONE

    @property
    def granted(self) -> int:
        """Bytes of the chunk that the last allocation got."""
        return int(self.reg[0, s.R_GRANTED])

    def _begin(self, cpu: int, flags: int, item: int) -> np.ndarray:
        r = self.reg[0]
        r[:] = 0
        r[s.R_CPU], r[s.R_FLAGS], r[s.R_ITEM], r[s.R_ADDR] = cpu, flags, item, -1
        self.answers = []
        return r

    def _run(self, step) -> int:
        r = self.reg[0]
        while True:
            answer = int(step(self.state, self.reg, 0))
            self.answers.append(answer)
            if answer in (s.DONE, s.FAILED):
                return answer
            if answer == s.MAP_ALLOC:
                align = max(int(r[s.R_ALIGN]), s.PAGE)
                base = -(-self.next // align) * align
                if base + r[s.R_BYTES] > self.limit:
                    r[s.R_BASE] = s.NO_SPACE
                else:
                    r[s.R_BASE], self.next = base, base + int(r[s.R_BYTES])
                    self.map_log.append(("alloc", base, int(r[s.R_BYTES])))
            elif answer == s.MAP_FREE:
                self.map_log.append(("free", int(r[s.R_BASE]), int(r[s.R_BYTES])))
            elif answer == s.WIRE:
                self.map_log.append(("wire", int(r[s.R_BASE]), int(r[s.R_BYTES])))
            elif answer == s.IPI:
                r[s.R_CPU] = r[s.R_TARGET]
            elif answer == s.MOVE:
                if self.may_move(int(r[s.R_OBJECT])):
                    self.moves.append((int(r[s.R_OBJECT]), int(r[s.R_ADDR]), int(r[s.R_BASE])))
                else:
                    r[s.R_BASE] = -1
            else:
                assert answer == s.AGAIN
