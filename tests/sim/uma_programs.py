"""What the tests of both UMAs share: programs, an allocator beside its twin, operations played step by step."""

from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as h

from kmemexp.sim import slots as s
from kmemexp.sim.allocators._shared.slab_order import FULLEST, LOWEST, OWN
from kmemexp.sim.items import Item
from kmemexp.sim.tables import flag, regs
from kmemexp.validate.hand import Hand

KVA = 1 << 26
MALLOC, MBUF, PACKET = s.ITEM_MALLOC, s.ITEM_MBUF, s.ITEM_PACKET
SIZES = {MALLOC: [16, 400, 1000, 2048, 4096, 8192, 70000], MBUF: [100, 2048, 2048, 4096, 5000, 9216, 20000]}
SIZES[PACKET] = [2304]


ORDERS = pytest.mark.parametrize(
    ("order", "pages", "passed"),
    [
        (OWN, [1, 1, 1, 2, 0, 0], 0),  # the slab that was listed last
        (LOWEST, [0, 0, 1, 1, 1, 2], 2),  # slabs 2 and 1 pass slab 0
        (FULLEST, [2, 0, 0, 1, 1, 1], 2),  # with its second free item slab 1 passes both others
    ],
)
"""Of three full slabs, slab 0 gets two free items, slab 2 one and slab 1 three: the pages that items then come from."""


def kinds(items: Sequence[Item]) -> list[int]:
    """What programs ask for: the items, the first one more often, malloc, mbufs and packets."""
    return [0, *range(len(items)), MALLOC, MALLOC, MBUF, MBUF, PACKET, PACKET]


def steps(items: Sequence[Item]) -> Any:
    """Programs: (verb, kind, how often, CPU, a number to choose by)."""
    return h.lists(
        h.tuples(
            h.sampled_from(["alloc", "alloc", "free", "free", "tick", "reap"]),
            h.sampled_from(kinds(items)),
            h.integers(1, 60),
            h.integers(0, 5),
            h.integers(0, 10**6),
        ),
        max_size=40,
    )


def fresh(module: ModuleType, *items: Item, cpus: int = 1, kva: int = KVA, map_number: int, **params: int) -> Any:
    given = module.Params(**params)
    bases = [-1] * len(items)
    return module.init(given, kva_bytes=kva, cpus=cpus, map_number=map_number, items=items, bases=bases)


def balance(m: Hand) -> int:
    """Pages mapped, by what was asked of the map."""
    return sum(nbytes if verb == "alloc" else -nbytes for verb, _, nbytes in m.map_log) // s.PAGE


class Pair:
    """An allocator and its twin side by side; live objects: (address, kind, size, granted).

    A test says how the two are asked (`alloc`) and what must be equal (`check`).
    """

    def __init__(self, hand: Hand, naive: Any, items: Sequence[Item], cpus: int, *reaping: int) -> None:
        self.hand, self.naive, self.items, self.cpus = hand, naive, items, cpus
        self.reaping = reaping  # what the twin is told when it is to give memory back
        self.live: list[tuple[int, int, int, int]] = []

    def alloc(self, kind: int, size: int, cpu: int, wait: bool) -> None:
        raise NotImplementedError

    def check(self) -> None:
        raise NotImplementedError

    def got(self, addr: int, kind: int, size: int) -> None:
        """Note a live object, if there is one."""
        if addr >= 0:
            self.live.append((addr, kind, size, self.hand.granted))

    def free(self, which: int, cpu: int) -> None:
        addr, kind, size, _ = self.live.pop(which % len(self.live))
        self.naive.free(addr, cpu)
        self.hand.free(addr, item=kind, cpu=cpu, size=size)

    def play(self, program: list) -> None:
        for verb, kind, count, cpu, number in program:
            if verb == "tick":
                self.hand.tend(s.TEND_TICK)
                self.naive.tick()
            elif verb == "reap":
                self.hand.tend(s.TEND_REAP)
                self.naive.reap(*self.reaping)
            for k in range(count if verb == "alloc" else min(count, len(self.live)) if verb == "free" else 0):
                if verb == "alloc":
                    size = SIZES[kind][number % len(SIZES[kind])] if kind < 0 else self.items[kind].size
                    self.alloc(kind, size, cpu % self.cpus, number % 5 > 0)
                else:
                    self.free(number * (k + 1), (cpu + k * (number % 3)) % self.cpus)
            self.check()

    def free_all(self) -> None:
        while self.live:
            self.free(len(self.live) // 2, len(self.live) % self.cpus)

    def check_spans(self, align: int = 1) -> None:
        """Live memory does not overlap; clusters of chains count one by one."""
        found = []
        for addr, _, _, granted in self.live:
            pieces = self.naive.chains.get(addr, [addr])
            found += [(piece, piece + self.piece_bytes(piece, granted // len(pieces))) for piece in pieces]
            if cluster := self.naive.packets.get(addr):
                found.append((cluster, cluster + 2048))
        found.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(found))
        assert all(begin % align == 0 for begin, _ in found)

    def piece_bytes(self, piece: int, share: int) -> int:
        """Bytes of a piece of a chain; `share`: if all are of one size."""
        return share


class Crowd:
    """Several contexts whose operations are played step by step, in any order, over a map that counts upwards.

    The context after the last one sees to the allocator. `flags`: what allocations come with.
    """

    def __init__(
        self, module: ModuleType, state: Any, items: Sequence[Item], *, cpus: int, limits: Sequence[int],
        flags: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.module, self.state, self.items, self.cpus, self.limits, self.flags = (
            module, state, items, cpus, limits, flags
        )  # fmt: skip
        self.contexts = 8
        self.reg = np.zeros((self.contexts + 1, regs.COLUMNS), np.int64)
        self.busy: list[Any] = [None] * (self.contexts + 1)
        self.rng = np.random.default_rng(cpus)
        self.live: dict[int, tuple[int, int]] = {}
        self.next = self.pages = 0

    def begin(self, i: int, *, freeing: bool) -> None:
        r = self.reg[i]
        r[:] = 0
        r[regs.CPU] = self.rng.integers(self.cpus)
        if freeing and self.live:
            addr = list(self.live)[self.rng.integers(len(self.live))]
            r[regs.ADDR], (r[regs.ITEM], r[regs.SIZE]) = addr, self.live.pop(addr)
            self.busy[i] = self.module.free
        else:
            wanted = kinds(self.items)
            kind = wanted[self.rng.integers(len(wanted))]
            r[regs.ITEM], r[regs.ADDR] = kind, -1
            r[regs.SIZE] = self.rng.choice(SIZES[kind]) if kind < 0 else self.items[kind].size
            if self.flags:
                r[regs.FLAGS] = self.rng.choice(self.flags)
            self.busy[i] = self.module.alloc

    def step(self, i: int) -> None:
        r = self.reg[i]
        r[regs.LOCK] = -1
        verb = self.busy[i]
        answer = int(verb(self.state, self.reg, i))
        if r[regs.LOCK] != -1:
            klass, which = divmod(int(r[regs.LOCK]), 1 << regs.LOCK_SHIFT)
            assert which < self.limits[klass]
        if answer == s.MAP_ALLOC:
            r[regs.BASE] = self.next if self.next < KVA // 2 or self.rng.random() < 0.5 else s.NO_SPACE
            if r[regs.BASE] >= 0:
                self.next += int(r[regs.BYTES])
                self.pages += int(r[regs.BYTES]) // s.PAGE
        elif answer == s.MAP_FREE:
            self.pages -= int(r[regs.BYTES]) // s.PAGE
        elif answer in (s.DONE, s.FAILED):
            if verb is self.module.alloc and answer == s.DONE:
                addr = int(r[regs.ADDR])
                assert addr not in self.live
                self.live[addr] = int(r[regs.ITEM]), int(r[regs.SIZE])
            self.busy[i] = None
        elif answer == s.SLEEP:
            r[regs.FLAGS] |= flag.NOWAIT | flag.WAITED
        else:
            assert answer == s.AGAIN

    def tend(self, i: int, why: int) -> None:
        self.reg[i] = 0
        self.reg[i, regs.SIZE] = why
        self.busy[i] = self.module.tend

    def finish(self, i: int) -> None:
        while self.busy[i] is not None:
            self.step(i)

    def see_to_it(self, *whys: int) -> None:
        """Let the allocator see to itself, once for each of these reasons."""
        for why in whys:
            self.tend(self.contexts, why)
            self.finish(self.contexts)

    def mill(self, count: int, swell: int) -> None:
        """Play steps in any order: for `swell` of them more comes than goes, then the other way round."""
        for n in range(count):
            i = int(self.rng.integers(self.contexts + 1))
            if self.busy[i] is not None:
                self.step(i)
            elif i == self.contexts:
                if n % 5 == 0:
                    self.tend(i, int(self.rng.integers(2)))
            else:
                self.begin(i, freeing=bool(self.rng.random() < (0.3 if n // swell % 2 == 0 else 0.7)))

    def disperse(self) -> None:
        """End every operation and free all that lives."""
        while any(self.busy) or self.live:
            for i in range(self.contexts + 1):
                self.finish(i)
                if i < self.contexts and self.live:
                    self.begin(i, freeing=True)
        assert self.module.census(self.state)["pages"] == self.pages
