"""DragonFly's kmalloc_obj once more, in plain Python written from the description alone; only objects of types."""

from collections import deque
from dataclasses import dataclass, field

from naive_space import UpwardMap

SLAB = 128 << 10


@dataclass(eq=False)
class Slab:
    base: int
    kind: int = -1
    cpu: int = -1
    size: int = 0
    capacity: int = 0
    ring: deque = field(default_factory=deque)  # free objects, to be taken from the left
    since: int = 0

    def lay_out(self, kind: int, size: int, cpu: int) -> None:
        self.kind, self.size, self.cpu = kind, size, cpu
        self.capacity = (SLAB - 352) // (size + 8)
        first = -(-(self.base + 352 + 8 * self.capacity) // 64) * 64
        self.ring = deque(first + k * size for k in range(self.capacity))


@dataclass
class Kind:
    size: int
    partial: list = field(default_factory=list)  # first to be taken first
    full: list = field(default_factory=list)
    empty: list = field(default_factory=list)


class NaiveKmallocObj:
    """Types of objects over an UpwardMap."""

    def __init__(self, sizes: list[int], cpus: int, space: UpwardMap, *, full: int, retired: int, cached: int) -> None:
        self.kinds = [Kind(-(-size // 64) * 64) for size in sizes]
        self.pairs = [[[None, None] for _ in sizes] for _ in range(cpus)]  # active, alternate
        self.own: list[list[Slab]] = [[] for _ in range(cpus)]  # free slabs, first to be taken first
        self.returned: list[list[Slab]] = [[] for _ in range(cpus)]
        self.map, self.keeps, self.retires, self.caches = space, full, retired, cached
        self.slabs: dict[int, Slab] = {}
        self.ticks = self.turn = 0

    def alloc(self, kind: int, cpu: int) -> int:
        """Address of an object, or -1."""
        pair = self.pairs[cpu][kind]
        if not (pair[0] and pair[0].ring):
            if pair[1] and pair[1].ring:
                pair.reverse()
            elif not self._refill(kind, cpu):
                return -1
        return self.pairs[cpu][kind][0].ring.popleft()

    def free(self, addr: int) -> None:
        """Free an object, on whatever CPU."""
        self.slabs[addr - addr % SLAB].ring.append(addr)

    def tick(self, polls: int) -> None:
        """Do what is done every second."""
        self.ticks += 1
        for _ in range(polls):
            self._poll(self.turn)

    def _refill(self, kind: int, cpu: int) -> bool:
        k = self.kinds[kind]
        if not k.partial and not k.full:
            self._look_at_empties(kind)
        if k.partial or k.full:
            slab = (k.partial or k.full).pop(0)
        else:
            slab = self._free_slab(cpu)
            if slab is None:
                return False
            slab.lay_out(kind, k.size, cpu)
        active, alternate = self.pairs[cpu][kind]
        if alternate:
            k.empty.append(alternate)
        self.pairs[cpu][kind] = [slab, active]
        return True

    def _free_slab(self, cpu: int) -> Slab | None:
        if not self.own[cpu]:
            self.own[cpu], self.returned[cpu] = self.returned[cpu], []
        if self.own[cpu]:
            return self.own[cpu].pop(0)
        base = self.map.take(SLAB, SLAB)
        if base < 0:
            return None
        self.slabs[base] = Slab(base)
        return self.slabs[base]

    def _look_at_empties(self, kind: int) -> None:
        k = self.kinds[kind]
        marker = k.empty[0] if k.empty else None
        for _ in range(16):
            if not k.empty:
                return
            slab = k.empty.pop(0)
            if len(slab.ring) == slab.capacity:
                slab.since = self.ticks
                k.full.insert(0, slab)
            elif slab.ring:
                k.partial.insert(0, slab)
            else:
                k.empty.append(slab)
                if k.empty[0] is marker:
                    return

    def _poll(self, kind: int) -> None:
        k = self.kinds[kind]
        self._look_at_empties(kind)
        looks = min(len(k.full) - self.keeps, 16)
        leaving, seen_to_the_end = [], looks <= 0
        for slab in list(k.full)[: max(looks, 0)]:
            seen_to_the_end = slab is k.full[-1]
            if slab.since < self.ticks:
                leaving.append(slab)
                k.full.remove(slab)
                if len(leaving) == self.retires:
                    break
        if seen_to_the_end:
            self.turn = (kind + 1) % len(self.kinds)
        self._put_away(leaving)

    def _put_away(self, leaving: list[Slab]) -> None:
        unmapped, run = [], []
        for slab in leaving:
            slab.kind, slab.ring = -1, deque()
            room = len(self.own[slab.cpu]) + len(self.returned[slab.cpu]) + len(run) < self.caches
            if run and (run[0].cpu != slab.cpu or not room):
                self.returned[run[0].cpu][:0] = run
                run = []
            if len(self.own[slab.cpu]) + len(self.returned[slab.cpu]) + len(run) < self.caches:
                run.append(slab)
            else:
                unmapped.append(slab)
        if run:
            self.returned[run[0].cpu][:0] = run
        for slab in unmapped:
            self.map.give(self.slabs.pop(slab.base).base)

    def counts(self) -> dict[str, int]:
        """Count as census() does, of what the slabs tell."""
        typed = [slab for slab in self.slabs.values() if slab.kind >= 0]
        return {
            "slabs": len(self.slabs),
            "cached_slabs": sum(map(len, self.own + self.returned)),
            "objects": sum(slab.capacity - len(slab.ring) for slab in typed),
            "free_objects": sum(len(slab.ring) for slab in typed),
            "live_bytes": sum((slab.capacity - len(slab.ring)) * slab.size for slab in typed),
            "pages": len(self.slabs) * 32,
        }
