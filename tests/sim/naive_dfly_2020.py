"""DragonFly's slab allocator of 2020 once more, in plain Python written from the description alone."""

from dataclasses import dataclass, field

from naive_space import PAGE, UpwardMap, WholePages

HEADER = 112
STEPS = ((128, 8), (256, 16), (512, 32), (1024, 64), (2048, 128), (4096, 256), (8192, 512), (16384, 1024))


def step_of(nbytes: int) -> int:
    return next(step for below, step in STEPS if nbytes < below)


@dataclass(eq=False)
class Zone:
    """A zone laid out for chunks of one size, its first chunk already handed out."""

    base: int
    cpu: int
    chunk: int
    step: int
    size: int
    start: int
    local: list[int] = field(default_factory=list)  # first to be taken first
    remote: list[int] = field(default_factory=list)  # freed last first
    signal: bool = False
    ipis: int = 0  # under way

    def __post_init__(self) -> None:
        align = self.chunk if self.chunk & (self.chunk - 1) == 0 else self.step
        first = self.base + -(-HEADER // align) * align
        self.capacity = (self.base + self.size - first) // self.chunk
        order = [(self.start + k) % self.capacity for k in range(self.capacity)]
        self.fresh = [first + index * self.chunk for index in order]

    def free_count(self) -> int:
        return len(self.fresh) + len(self.local)

    def gather(self) -> None:
        self.local += self.remote
        self.remote = []


class NaiveDfly2020(WholePages):
    """The allocator over an UpwardMap. An IPI is kept in `messages` until `deliver`."""

    def __init__(self, zone_bytes: int, cpus: int, *, threshold: int, space: UpwardMap, order: int = 0) -> None:
        self.order = order
        self.zone_bytes, self.threshold, self.map = zone_bytes, threshold, space
        self.zone_limit = min(zone_bytes // 4, 16384)
        self.lists = [{} for _ in range(cpus)]  # chunk size -> zones with free chunks, head first
        self.idle = [[] for _ in range(cpus)]  # oldest first
        self.queued = [[] for _ in range(cpus)]  # oldest first
        self.junk = [0] * cpus
        self.zones: dict[int, Zone] = {}
        self.oversize: dict[int, int] = {}
        self.messages: list[Zone] = []

    def malloc(self, nbytes: int, cpu: int, *, nowait: bool = False) -> tuple[int, int]:
        """Allocate; returns address and granted bytes, (-1, 0) without memory."""
        if nbytes == 0:
            return -8, 0
        if not nowait:
            while len(self.idle[cpu]) > self.threshold:
                zone = self.idle[cpu].pop(0)
                del self.zones[zone.base]
                self.map.give(zone.base)
            while self.queued[cpu]:
                self.map.give(self.queued[cpu].pop(0))
        if nbytes >= self.zone_limit or (nbytes % PAGE == 0 and nbytes > 2 * PAGE):
            return self.take_pages(nbytes)
        step = step_of(nbytes)
        chunk = -(-nbytes // step) * step
        zones = self.lists[cpu].setdefault(chunk, [])
        if not zones:
            base = self.idle[cpu].pop().base if self.idle[cpu] else self.map.take(self.zone_bytes, self.zone_bytes)
            if base < 0:
                return -1, 0
            zone = self.zones[base] = Zone(base, cpu, chunk, step, self.zone_bytes, self.junk[cpu])
            self.junk[cpu] = (self.junk[cpu] + 20) % 131072
            zones.insert(0, zone)
            return zone.fresh.pop(0), chunk
        zone = zones[-1]
        if zone.free_count() == 1:
            if zone.remote:
                addr = self._last(zone)
                zone.signal = False
                self._sort(zones)
                return addr, chunk
            zone.signal = True
            zones.pop()
        return zone.local.pop(0) if zone.local else zone.fresh.pop(0), chunk

    def _last(self, zone: Zone) -> int:
        """Take a chunk of a zone that has one left, and others that were freed elsewhere."""
        zone.gather()
        return zone.local.pop(0)

    def free(self, addr: int, cpu: int, *, interrupt: bool = False) -> None:
        """Free on a CPU, perhaps in an interrupt."""
        if self.gave_pages(addr, cpu, interrupt=interrupt):
            return
        zone = self.zones[addr - addr % self.zone_bytes]
        if zone.cpu != cpu:
            zone.remote.insert(0, addr)
            if zone.signal and len(zone.remote) == 1:
                zone.ipis += 1
                self.messages.append(zone)
            return
        if zone.free_count() == 0:
            self.lists[cpu][zone.chunk].insert(0, zone)
        zone.local.insert(0, addr)
        self._sort(self.lists[cpu][zone.chunk])
        self._retire(zone)

    def deliver(self, which: int) -> None:
        """Let an IPI arrive."""
        zone = self.messages.pop(which)
        zone.ipis -= 1
        if zone.remote:
            zone.signal = False
            if zone.free_count() == 0:
                self.lists[zone.cpu][zone.chunk].insert(0, zone)
            zone.gather()
            self._sort(self.lists[zone.cpu][zone.chunk])
        self._retire(zone)

    def reap(self) -> None:
        """Give all idle zones back, the oldest of each CPU first."""
        for idle in self.idle:
            while idle:
                self.map.give(idle[0].base)
                del self.zones[idle.pop(0).base]

    def _sort(self, zones: list[Zone]) -> None:
        if self.order:
            zones.sort(key=lambda zone: (zone.free_count() * (self.order == 2), zone.base), reverse=True)

    def cleanup(self) -> None:
        """Do what is done every ten seconds."""
        for lists in self.lists:
            for _, zones in sorted(lists.items()):  # class by class
                for zone in list(zones):
                    zone.gather()
                    self._sort(zones)
                    self._retire(zone)

    def counts(self) -> dict[str, int]:
        """Count as census() does, of what the lists tell."""
        used = [zone for zone in self.zones.values() if zone not in self.idle[zone.cpu]]
        pages = sum(self.oversize.values()) // PAGE
        queued = sum(self.map.held[base] for queue in self.queued for base in queue) // PAGE
        taken = sum((z.capacity - z.free_count() - len(z.remote)) * z.chunk for z in used)
        return {
            "zones": len(self.zones),
            "idle_zones": sum(map(len, self.idle)),
            "free_chunks": sum(z.free_count() for z in used),
            "fresh_chunks": sum(len(z.fresh) for z in used),
            "remote_chunks": sum(len(z.remote) for z in used),
            "live_bytes": taken + pages * PAGE,
            "oversize_pages": pages + queued,
            "queued_pages": queued,
            "pages": len(self.zones) * self.zone_bytes // PAGE + pages + queued,
        }

    def _retire(self, zone: Zone) -> None:
        zones = self.lists[zone.cpu][zone.chunk]
        if zone.free_count() == zone.capacity and not zone.ipis and len(zones) > 1:
            zones.remove(zone)
            self.idle[zone.cpu].append(zone)
