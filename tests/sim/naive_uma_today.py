"""UMA of today once more, in plain Python written from the description alone: objects, lists, function calls.

Layouts of slabs come from `keg`, whose tables are tested by themselves.
"""

from dataclasses import dataclass, field

from naive_space import LoggedMap

from kmemexp.sim.allocators.uma_today import keg as uma_keg

PAGE = 4096
BUCKETS = (2, 4, 8, 16, 30, 62, 126, 254)
JUMBO = (4096, 9216, 16384)
MALLOC = (16, 32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


@dataclass(eq=False)
class Slab:
    keg: "Keg"
    base: int
    domain: int
    header: int | None
    free: set[int]


@dataclass(eq=False)
class Bucket:
    addr: int
    entries: int
    items: list[int] = field(default_factory=list)


def has_room(bucket: Bucket | None) -> bool:
    return bucket is not None and len(bucket.items) < bucket.entries


@dataclass(eq=False)
class Keg:
    """Slabs by domain; the first of a list is its element 0."""

    uma: "NaiveUma"
    layout: uma_keg.Keg
    headers: "Keg | None"
    stacks: bool = False  # slabs go back as soon as they are free

    def __post_init__(self) -> None:
        self.part = [[] for _ in range(self.uma.domains)]
        self.idle = [[] for _ in range(self.uma.domains)]

    def take(self, domain: int) -> int | None:
        """Item of an existing slab."""
        if not self.part[domain]:
            if not self.idle[domain]:
                return None
            self.part[domain].insert(0, self.idle[domain].pop(0))
        slab = self.part[domain][0]
        item = min(slab.free)
        slab.free.remove(item)
        if not slab.free:
            self.part[domain].remove(slab)
        return item

    def give(self, item: int) -> None:
        slab = self.uma.slab_at[item // PAGE]
        slab.free.add(item)
        if len(slab.free) == self.layout.items:
            if slab in self.part[slab.domain]:
                self.part[slab.domain].remove(slab)
            self.idle[slab.domain].insert(0, slab)
        elif len(slab.free) == 1:
            self.part[slab.domain].insert(0, slab)
        self.sort(slab.domain)

    def sort(self, domain: int) -> None:
        if self.uma.order:
            self.part[domain].sort(key=lambda slab: (len(slab.free) * (self.uma.order == 2), slab.base))

    def grow(self, domain: int) -> bool:
        """Make a slab, its off-page header first."""
        header = None
        if self.headers:
            header = self.headers.take_or_grow(domain)
            if header is None:
                return False
        base = self.uma.map.take(self.layout.pages * PAGE)
        if base is None:
            if header is not None:
                self.headers.give(header)
            return False
        slab = Slab(self, base, domain, header, {base + k * self.layout.size for k in range(self.layout.items)})
        for page in range(self.layout.pages):
            self.uma.slab_at[base // PAGE + page] = slab
        self.part[domain].insert(0, slab)
        self.sort(domain)
        return True

    def take_or_grow(self, domain: int) -> int | None:
        item = self.take(domain)
        if item is None:
            self.grow(domain)
            item = self.take(domain)
        return item

    def take_many(self, domain: int, count: int) -> list[int]:
        """Up to `count` items; none where a slab is refused and none is left."""
        got: list[int] = []
        while len(got) < count and (item := self.take_or_grow(domain)) is not None:
            got.append(item)
        return got

    def drain(self, domain: int) -> None:
        idle, self.idle[domain] = self.idle[domain], []
        for slab in idle:
            if slab.header is not None:
                self.headers.give(slab.header)
            for page in range(self.layout.pages):
                del self.uma.slab_at[slab.base // PAGE + page]
            self.uma.map.give(slab.base, self.layout.pages * PAGE)


class Full:
    """Full buckets of a zone in one domain, first one first, with the estimate of the working set."""

    def __init__(self) -> None:
        self.buckets: list[Bucket] = []
        self.cross: Bucket | None = None
        self.items = self.imax = self.imin = self.bimin = self.wss = self.limin = self.timin = 0

    def put(self, bucket: Bucket, most: float) -> bool:
        total = self.items + len(bucket.items)
        if total >= most:
            return False
        self.items = total
        if total > self.imax:
            self.wss = max(self.wss, self.imax - self.bimin)
            self.imax = self.bimin = total
        self.buckets.insert(0, bucket)
        return True

    def fetch(self) -> Bucket:
        bucket = self.buckets.pop(0)
        self.items -= len(bucket.items)
        self.bimin = min(self.bimin, self.items)
        self.imin = min(self.imin, self.items)
        return bucket

    def reclaim(self) -> Bucket:
        bucket = self.buckets.pop(0)
        count = len(bucket.items)
        self.items -= count
        batch = min(self.bimin, count)
        self.imax -= batch
        self.bimin -= batch
        self.imin = max(self.imin - count, 0)
        if self.limin >= count:
            self.limin -= count
        else:
            self.limin = self.timin = 0
        return bucket

    def tick(self) -> None:
        self.wss = max(self.wss * 3 // 4, self.imax - self.bimin)
        m = self.imin - self.wss
        if m >= 0:
            self.limin = m if self.limin >= m else (m + 255 * self.limin) // 256
            self.timin += 1
        else:
            self.limin = self.timin = 0
        self.imax -= (self.imax - self.items + 1) // 2
        self.imin = self.bimin = self.items


class Zone:
    """A zone with its keg."""

    def __init__(
        self, uma: "NaiveUma", size: int, align: int = 8, limit: int = 0, entries: int = 0, keg: Keg | None = None
    ) -> None:
        self.uma = uma
        self.keg = keg or uma.keg(size, align)
        self.size, self.limit, self.used = self.keg.layout.size, limit, 0
        self.bucket = self.bucket_min = entries or uma_keg.bucket_select(size)
        self.bucket_max, self.cached = 254, float("inf")
        if limit:
            self.bucket, self.cached = uma_keg.set_max(limit, uma.cpus, uma.domains)
            self.bucket_max, self.bucket_min = self.bucket, min(self.bucket_min, self.bucket)
        self.first: list[Bucket | None] = [None] * uma.cpus
        self.second: list[Bucket | None] = [None] * uma.cpus
        self.cross: list[Bucket | None] = [None] * uma.cpus
        self.full = [Full() for _ in range(uma.domains)]

    def room(self) -> float:
        return self.limit - self.used if self.limit else float("inf")

    def alloc(self, cpu: int) -> int | None:
        while True:
            for _ in range(2):
                if self.first[cpu] and self.first[cpu].items:
                    return self.first[cpu].items.pop()
                if self.second[cpu] and self.second[cpu].items:
                    self.first[cpu], self.second[cpu] = self.second[cpu], self.first[cpu]
            if self.first[cpu]:
                empty, self.first[cpu] = self.first[cpu], None
                self.uma.put_bucket(empty, cpu)
            domain = self.uma.domain(cpu)
            if self.full[domain].buckets:
                self.first[cpu] = self.full[domain].fetch()
                continue
            bucket = self.filled(cpu)
            if bucket is None:
                break
            self.full[domain].imax += len(bucket.items)
            self.first[cpu] = bucket
        if self.room() < 1:
            return None
        item = self.alloc_one(cpu)
        self.used += item is not None
        return item

    def alloc_one(self, cpu: int) -> int | None:
        return self.keg.take_or_grow(self.uma.domain(cpu))

    def imported(self, count: int, cpu: int) -> list[int]:
        return self.keg.take_many(self.uma.domain(cpu), count)

    def give(self, items: list[int], cpu: int) -> None:
        """Give items back to the keg."""
        for item in items:
            self.keg.give(item)

    def filled(self, cpu: int) -> Bucket | None:
        count = int(min(self.bucket, self.room()))
        bucket = self.uma.get_bucket(self, cpu) if count > 0 else None
        if bucket is None:
            return None
        bucket.items = self.imported(count, cpu)
        self.used += len(bucket.items)
        if bucket.items:
            return bucket
        self.uma.put_bucket(bucket, cpu)
        return None

    def free(self, item: int, cpu: int) -> None:
        domain = self.uma.slab_at[item // PAGE].domain
        crosses = domain != self.uma.domain(cpu)
        for _ in range(2):
            if self.push(item, cpu, crosses):
                return
            if self.bucket == 0:
                break
            place = self.cross if crosses else self.second
            old, place[cpu] = place[cpu], None
            if old and crosses and self.uma.domains > 2:
                self.sort(old, cpu)
            elif old and not self.full[domain].put(old, self.cached):
                self.empty(old, cpu)
            place[cpu] = self.uma.get_bucket(self, cpu)
            if place[cpu] is None:
                break
        self.give([item], cpu)
        self.used -= 1
        self.unmap()

    def unmap(self) -> None:
        """Give back at once what a zone without slabs has got back."""
        for domain in range(self.uma.domains if self.keg.stacks else 0):
            self.keg.drain(domain)

    def push(self, item: int, cpu: int, crosses: bool) -> bool:
        if crosses:
            bucket = self.cross[cpu]
        else:
            if not has_room(self.first[cpu]) and has_room(self.second[cpu]):
                self.first[cpu], self.second[cpu] = self.second[cpu], self.first[cpu]
            bucket = self.first[cpu]
        if not has_room(bucket):
            return False
        bucket.items.append(item)
        return True

    def sort(self, bucket: Bucket, cpu: int) -> None:
        full: list[tuple[int, Bucket]] = []
        while bucket.items:
            domain = self.uma.slab_at[bucket.items[-1] // PAGE].domain
            side = self.full[domain]
            side.cross = side.cross or self.uma.get_bucket(self, cpu)
            if side.cross is None:
                break
            side.cross.items.append(bucket.items.pop())
            if len(side.cross.items) == side.cross.entries:
                full.insert(0, (domain, side.cross))
                side.cross = None
        for domain, one in full:
            if not self.full[domain].put(one, self.cached):
                self.empty(one, cpu)
        self.empty(bucket, cpu)

    def empty(self, bucket: Bucket, cpu: int) -> None:
        self.give(bucket.items, cpu)
        self.used -= len(bucket.items)
        bucket.items = []
        self.unmap()
        self.uma.put_bucket(bucket, cpu)


class Packets(Zone):
    """Mbufs with clusters, from the keg of mbufs; `uma.packets`: the cluster of each."""

    def alloc_one(self, cpu: int) -> int | None:
        item = self.keg.take_or_grow(self.uma.domain(cpu))
        if item is None or self.given(item, cpu):
            return item
        self.keg.give(item)
        return None

    def given(self, item: int, cpu: int) -> bool:
        """Give an mbuf a cluster, if there is one."""
        cluster = self.uma.cluster.alloc(cpu)
        if cluster is not None:
            self.uma.packets[item] = cluster
        return cluster is not None

    def imported(self, count: int, cpu: int) -> list[int]:
        items = super().imported(count, cpu)
        n = next((n for n, item in enumerate(items) if not self.given(item, cpu)), len(items))
        for item in items[n:]:
            self.keg.give(item)
        return items[:n]

    def give(self, items: list[int], cpu: int) -> None:
        for item in items:
            cluster = self.uma.packets.pop(item)
            crosses = self.uma.slab_at[cluster // PAGE].domain != self.uma.domain(cpu)
            if not self.uma.cluster.push(cluster, cpu, crosses):
                self.uma.cluster.keg.give(cluster)
                self.uma.cluster.used -= 1
        super().give(items, cpu)


class NaiveUma:
    """The allocator over a map that counts upwards."""

    def __init__(
        self,
        items: list,
        *,
        cpus: int,
        domains: int,
        mbufs: int,
        clusters: int,
        limit: int,
        jumbo: int = 0,
        order: int = 0,
    ) -> None:
        self.cpus, self.domains, self.order = cpus, domains, order
        self.map = LoggedMap(limit)
        self.slab_at: dict[int, Slab] = {}
        self.large: dict[int, int] = {}
        self.chains: dict[int, list[int]] = {}
        self.headers = [Keg(self, uma_keg.keg_layout(n, internal=True), None) for n in (80, 112)]
        self.bucket_kegs = {n: self.keg(16 + 8 * n, 8) for n in BUCKETS}
        self.stacks = [{n: [] for n in BUCKETS} for _ in range(cpus)]
        self.malloc = {n: Zone(self, n) for n in MALLOC}
        self.packets: dict[int, int] = {}
        self.mbuf = Zone(self, 256, 256, mbufs, 254)
        self.packet = Packets(self, 256, entries=254, keg=self.mbuf.keg)
        self.cluster = Zone(self, 2048, 8, clusters)
        self.jumbo = [Zone(self, size, 8, jumbo if size == PAGE else 0, keg=self.in_row(size)) for size in JUMBO]
        self.zones = [
            self.stacks_zone() if item.traits.flags else Zone(self, item.size, 8, item.limit) for item in items
        ]

    def keg(self, size: int, align: int) -> Keg:
        layout = uma_keg.keg_layout(size, align)
        return Keg(self, layout, self.headers[layout.header == 112] if layout.header else None)

    def stacks_zone(self) -> Zone:
        """kstack_cache: four pages each, buckets by what it may keep."""
        zone = Zone(self, 4 * PAGE, keg=Keg(self, uma_keg.Keg(4 * PAGE, 1, 4, 0), None, stacks=True))
        zone.bucket, zone.cached = uma_keg.set_max(max(128, 4 * self.cpus), self.cpus, self.domains)
        zone.bucket_min = zone.bucket_max = zone.bucket
        return zone

    def in_row(self, size: int) -> Keg:
        """Keg of the least slabs that hold an item."""
        layout = uma_keg.keg_layout(size, contiguous=True)
        return Keg(self, layout, self.headers[0] if layout.header else None)

    def domain(self, cpu: int) -> int:
        return cpu * self.domains // self.cpus

    def get_bucket(self, zone: Zone, cpu: int) -> Bucket | None:
        klass = min(n for n in BUCKETS if n >= zone.bucket)
        stack, keg = self.stacks[cpu][klass], self.bucket_kegs[klass]
        if not stack:
            stack += keg.take_many(self.domain(cpu), uma_keg.bucket_select(16 + 8 * klass))
        return Bucket(stack.pop(), min(klass, zone.bucket_max)) if stack else None

    def put_bucket(self, bucket: Bucket, cpu: int) -> None:
        klass = min(n for n in BUCKETS if n >= bucket.entries)
        stack, half = self.stacks[cpu][klass], uma_keg.bucket_select(16 + 8 * klass)
        stack.append(bucket.addr)
        if len(stack) > 2 * half:
            while len(stack) > half:
                self.bucket_kegs[klass].give(stack.pop())

    def alloc(self, kind: int, size: int, cpu: int) -> tuple[int, int]:
        """Allocate of item `kind`, or malloc (-1), mbufs (-2), packets (-64): address and granted bytes, or (-1, 0)."""
        if kind == -1 and size > 65536:
            granted = -(-size // PAGE) * PAGE
            base = self.map.take(granted)
            if base is None:
                return -1, 0
            self.large[base] = granted
            return base, granted
        if kind >= 0:
            zone = self.zones[kind]
        elif kind == -64:
            item = self.packet.alloc(cpu)
            return (-1, 0) if item is None else (item, 2304)
        elif kind == -1:
            zone = self.malloc[min(n for n in MALLOC if n >= size)]
        elif size in JUMBO:
            zone = self.jumbo[JUMBO.index(size)]
        elif size <= 2048:
            zone = self.mbuf if size <= 256 else self.cluster
        else:
            return self.chain(size, cpu)
        item = zone.alloc(cpu)
        if item is None:
            return -1, 0
        self.chains[item] = [item]
        return item, zone.size

    def chain(self, size: int, cpu: int) -> tuple[int, int]:
        """A chain of pages while more than a plain cluster is missing; of plain ones once there is no page."""
        pieces: list[int] = []
        left, small = size, False
        while left > 0:
            zone = self.cluster if small or left <= 2048 else self.jumbo[0]
            item = zone.alloc(cpu)
            if item is None and zone is not self.cluster:
                small = True
            elif item is None:
                for piece in pieces:
                    self.free_piece(piece, cpu)
                return -1, 0
            else:
                pieces.append(item)
                left -= zone.size
        self.chains[pieces[0]] = pieces
        return pieces[0], size - left

    def free(self, addr: int, cpu: int) -> None:
        if addr in self.large:
            self.map.give(addr, self.large.pop(addr))
            return
        if addr in self.packets:
            self.packet.free(addr, cpu)
            return
        for piece in self.chains.pop(addr):
            self.free_piece(piece, cpu)

    def free_piece(self, piece: int, cpu: int) -> None:
        keg = self.slab_at[piece // PAGE].keg
        next(zone for zone in self.everything() if zone.keg is keg).free(piece, cpu)

    def everything(self) -> list[Zone]:
        """All zones, newest first."""
        return [
            *self.zones[::-1],
            *self.jumbo[::-1],
            self.cluster,
            self.mbuf,
            self.packet,
            *list(self.malloc.values())[::-1],
        ]

    def tick(self) -> None:
        for zone in self.everything():
            for domain, full in enumerate(zone.full):
                self._cross(zone, full)
                full.tick()
                if full.timin > 45 and self._trim(zone, full, full.items - full.limin // 4):
                    zone.keg.drain(domain)

    def reap(self, how: int) -> None:
        """Reclaim: 0 trims, 1 drains, 2 drains, empties the CPUs' buckets and drains again."""
        self._pass(how)
        if how == 2:
            for zone in self.everything():
                zone.bucket = (zone.bucket + zone.bucket_min) // 2
            for cpu in range(self.cpus):
                for zone in self.everything():
                    for place in (zone.first, zone.second, zone.cross):
                        if place[cpu]:
                            zone.empty(place[cpu], 0)
                            place[cpu] = None
            for cpu in range(self.cpus):
                for klass in BUCKETS:
                    while self.stacks[cpu][klass]:
                        self.bucket_kegs[klass].give(self.stacks[cpu][klass].pop())
            self._pass(how)

    def _pass(self, how: int) -> None:
        for zone in self.everything():
            zone.bucket = max(zone.bucket - 1, zone.bucket_min)
            for domain, full in enumerate(zone.full):
                self._cross(zone, full)
                full.tick()
                self._trim(zone, full, 0 if how else full.wss)
                zone.keg.drain(domain)
        for keg in [*list(self.bucket_kegs.values())[::-1], *self.headers[::-1]]:
            for domain in range(self.domains):
                keg.drain(domain)

    def _cross(self, zone: Zone, full: Full) -> None:
        if full.cross:
            zone.empty(full.cross, 0)
            full.cross = None

    def _trim(self, zone: Zone, full: Full, target: int) -> bool:
        before = len(full.buckets)
        while full.buckets and full.items >= target + len(full.buckets[0].items):
            zone.empty(full.reclaim(), 0)
        return len(full.buckets) < before

    def pages(self) -> int:
        return len(self.slab_at) + sum(self.large.values()) // PAGE
