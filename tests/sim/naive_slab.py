"""DragonFly's slab allocator of October 2003 once more, in plain Python written from the description alone."""

from dataclasses import dataclass, field

from naive_space import PAGE, UpwardMap, WholePages

HEADER = 176
STEPS = ((128, 8), (256, 16), (512, 32), (1024, 64), (2048, 128), (4096, 256), (8192, 512), (16384, 1024))


def chunk_size(nbytes: int) -> int:
    """Round a request up to its chunk."""
    step = next(step for below, step in STEPS if nbytes < below)
    return -(-nbytes // step) * step


@dataclass(eq=False)
class Zone:
    """A zone laid out for chunks of one size, its first chunk already handed out."""

    base: int
    cpu: int
    chunk: int
    size: int
    start: int
    freed: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        align = self.chunk if self.chunk & (self.chunk - 1) == 0 else 8
        self.first = self.base + -(-HEADER // align) * align
        self.capacity = (self.base + self.size - self.first) // self.chunk
        order = [(self.start + k) % self.capacity for k in range(self.capacity)]
        self.fresh = [self.first + index * self.chunk for index in order]

    def free_count(self) -> int:
        return len(self.fresh) + sum(map(len, self.freed.values()))

    def take(self) -> int:
        pages = [page for page, chunks in sorted(self.freed.items()) if chunks]
        return self.freed[pages[0]].pop() if pages else self.fresh.pop(0)

    def put(self, addr: int) -> None:
        self.freed.setdefault((addr - self.base) // PAGE, []).append(addr)


class NaiveSlab(WholePages):
    """The allocator over a map that counts upwards; `ipis` tells how many messages it sent."""

    def __init__(self, zone_bytes: int, cpus: int, *, threshold: int = 2, limit: int = 1 << 30, order: int = 0) -> None:
        self.order = order
        self.zone_bytes, self.threshold = zone_bytes, threshold
        self.zone_limit = min(zone_bytes // 4, 16384)
        self.lists = [{} for _ in range(cpus)]  # chunk size -> zones with free chunks, head first
        self.idle = [[] for _ in range(cpus)]  # FreeZones, head last
        self.queued = [[] for _ in range(cpus)]  # FreeOvZones, head last
        self.junk = [0] * cpus
        self.zones: dict[int, Zone] = {}
        self.oversize: dict[int, int] = {}
        self.map = UpwardMap(limit)
        self.ipis = 0

    def malloc(self, nbytes: int, cpu: int, *, nowait: bool = False) -> tuple[int, int]:
        """Allocate; returns address and granted bytes, (-1, 0) without memory."""
        if nbytes == 0:
            return -8, 0
        if not nowait:
            while len(self.idle[cpu]) > self.threshold:
                self.map.give(self.zones.pop(self.idle[cpu].pop().base).base)
            while self.queued[cpu]:
                self.map.give(self.queued[cpu].pop())
        if nbytes >= self.zone_limit or nbytes % PAGE == 0:
            return self.take_pages(nbytes)
        chunk = chunk_size(nbytes)
        zones = self.lists[cpu].setdefault(chunk, [])
        if not zones:
            base = self.idle[cpu].pop().base if self.idle[cpu] else self.map.take(self.zone_bytes, self.zone_bytes)
            if base < 0:
                return -1, 0
            zones.insert(0, self._new_zone(base, cpu, chunk))
        zone = zones[0]
        addr = zone.take()
        if zone.free_count() == 0:
            zones.pop(0)
        self._sort(zones)
        return addr, chunk

    def free(self, addr: int, cpu: int, *, interrupt: bool = False) -> None:
        """Free on a CPU, perhaps in an interrupt."""
        if self.gave_pages(addr, cpu, interrupt=interrupt):
            return
        zone = self.zones[addr - addr % self.zone_bytes]
        self.ipis += zone.cpu != cpu
        zones = self.lists[zone.cpu][zone.chunk]
        if zone.free_count() == 0:
            zones.insert(0, zone)
        zone.put(addr)
        if zone.free_count() == zone.capacity and len(zones) > 1:
            zones.remove(zone)
            self.idle[zone.cpu].append(zone)
        self._sort(zones)

    def reap(self) -> None:
        """Give all idle zones back."""
        for idle in self.idle:
            while idle:
                self.map.give(self.zones.pop(idle.pop().base).base)

    def _sort(self, zones: list[Zone]) -> None:
        if self.order:
            zones.sort(key=lambda zone: (zone.free_count() * (self.order == 2), zone.base))

    def _new_zone(self, base: int, cpu: int, chunk: int) -> Zone:
        zone = Zone(base, cpu, chunk, self.zone_bytes, self.junk[cpu])
        self.junk[cpu] = (self.junk[cpu] + 20) % 131072
        self.zones[base] = zone
        return zone
