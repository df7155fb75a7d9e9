"""DragonFly's slab allocators beside their naive twins: what the tests of both have in common."""

from types import ModuleType
from typing import Any

from twins import apart

from kmemexp.sim import slots as s
from kmemexp.sim.tables import flag
from kmemexp.validate.hand import Hand

KIB, MIB = 1 << 10, 1 << 20
ZONE = 128 * KIB


def fresh(module: ModuleType, zone_bytes: int = ZONE, *, cpus: int = 1, **params: int) -> Any:
    """A new state of one of the allocators."""
    given = module.Params(zone_bytes=zone_bytes, **params)
    return module.init(given, kva_bytes=64 * MIB, cpus=cpus, map_number=5, items=(), bases=())


def chunks(h: Hand, nbytes: int, count: int, **how: int) -> list[int]:
    return [h.alloc(nbytes, **how) for _ in range(count)]


def frees_some_of_forty(h: Hand) -> None:
    """Chunks of 256 bytes, the first 40 of a zone; four of them are freed, in this order."""
    addrs = chunks(h, 256, 40)
    assert addrs == [256 + 256 * i for i in range(40)]
    for index in (33, 3, 10, 20):
        h.free(addrs[index])


class Pair:
    """An allocator and its twin side by side, over maps of their own; live objects: (address, granted)."""

    def __init__(self, hand: Hand, naive: Any) -> None:
        self.hand, self.naive = hand, naive
        self.live: list[tuple[int, int]] = []

    def alloc(self, nbytes: int, cpu: int, flags: int) -> None:
        self.hand.next = self.naive.map.next = self.naive.map.top()  # so that addresses are used again
        want = self.naive.malloc(nbytes, cpu, nowait=bool(flags & flag.NOWAIT))
        addr = self.hand.alloc(nbytes, cpu=cpu, flags=flags)
        assert (addr, self.hand.granted if addr != -1 else 0) == want
        if addr != -1:
            self.live.append((addr, self.hand.granted))

    def placed(self) -> list[tuple[int, int]]:
        """Live objects of some bytes."""
        return [block for block in self.live if block[0] >= 0]

    def check_memory(self, counts: dict[str, int]) -> None:
        """Hold the census against the maps and the live objects."""
        assert self.hand.map_log == self.naive.map.log
        assert counts["pages"] * s.PAGE == sum(self.naive.map.held.values())
        assert counts["live_bytes"] == sum(granted for _, granted in self.live)
        assert apart((addr, addr + granted) for addr, granted in self.placed())


def unmaps_at_once(h: Hand) -> None:
    """Free an oversize block in the mainline."""
    addr = h.alloc(20000)
    h.free(addr)
    assert h.answers == [s.MAP_FREE, s.DONE]
    assert h.map_log[-1] == ("free", addr, 20480)
