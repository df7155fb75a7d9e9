"""UMA of 2002 to 2006 once more, in plain Python written from the description alone: objects, lists, function calls.

Layouts come from `layout`, whose tables are tested by themselves. The first of a list is its element 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from naive_space import LoggedMap

from kmemexp.sim.allocators.uma import layout as uma_layout
from kmemexp.sim.items import Item

PAGE = 4096
MALLOC = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Panic(Exception):
    """kmem_map too small."""


@dataclass(eq=False)
class Slab:
    zone: "Zone"
    base: int
    header: int | None
    free: list[int]


@dataclass(eq=False)
class Bucket:
    addr: int
    home: "Zone"
    entries: int
    items: list[int] = field(default_factory=list)


class Zone:
    """A zone, or one of UMA's own."""

    def __init__(
        self, uma: "NaiveUma", size: int, align: int = 4, limit: int = 0, *, own: bool = False, **more
    ) -> None:
        header = uma_layout.slab_header(uma.generation, counted=more.get("counted", False))
        self.uma, self.own = uma, own
        self.layout = uma_layout.slab_layout(size, align, header, internal=own)
        self.headers = None if self.layout.offset >= 0 else uma.counted if more.get("counted") else uma.headers
        self.pages_max = uma_layout.max_pages(limit, self.layout, uma.generation)
        self.count = uma.most if more.get("largest") else min(self.layout.items, uma.most)
        self.part: list[Slab] = []
        self.idle: list[Slab] = []
        self.ready: list[Bucket] = []
        self.empty: list[Bucket] = []
        self.first: list[Bucket | None] = [None] * uma.cpus  # alloc buckets
        self.second: list[Bucket | None] = [None] * uma.cpus  # free buckets
        self.free = self.pages = self.recent = self.working = 0
        self.full = False

    def alloc(self, cpu: int, wait: bool) -> int | None:
        while True:
            for _ in range(2):
                if self.first[cpu] and self.first[cpu].items:
                    self.recent += 1
                    return self.first[cpu].items.pop()
                if self.first[cpu] and self.second[cpu] and self.second[cpu].items:
                    self.first[cpu], self.second[cpu] = self.second[cpu], self.first[cpu]
            if self.first[cpu]:
                self.empty.insert(0, self.first[cpu])
                self.first[cpu] = None
            if self.ready:
                self.first[cpu] = self.ready.pop(0)
                continue
            self.count = min(self.count + 1, self.uma.most)
            bucket = self.empty.pop(0) if self.empty else self.uma.bucket(self.count, wait)
            if bucket is None or not self.fill(bucket, wait):
                return self.from_slab(wait)

    def fill(self, bucket: Bucket, wait: bool) -> bool:
        most = min(bucket.entries, self.count)
        try:
            while len(bucket.items) < most and (slab := self.slab(wait)):
                while len(bucket.items) < most and slab.free:
                    bucket.items.append(self.take(slab))
                wait = False
        except Panic:
            bucket.home.give(bucket.addr)
            raise
        if bucket.items:
            self.ready.insert(0, bucket)
            return True
        bucket.home.give(bucket.addr)
        return False

    def from_slab(self, wait: bool) -> int | None:
        slab = self.slab(wait)
        if slab is None:
            return None
        self.recent += 1
        return self.take(slab)

    def slab(self, wait: bool) -> Slab | None:
        """A slab with a free item: partly free, free, new."""
        if not self.part:
            if self.idle:
                self.part.insert(0, self.idle.pop(0))
            elif self.pages_max and self.pages >= self.pages_max:
                self.full = True
                return None
            else:
                self.grow(wait)
        return self.part[0] if self.part else None

    def grow(self, wait: bool) -> None:
        header = None
        if self.headers:
            header = self.headers.from_slab(wait)
            if header is None:
                return
        base = self.uma.map.take(self.layout.pages * PAGE)
        if base is None:
            if header is not None:
                self.headers.give(header)
            if wait:
                raise Panic
            return
        free = [base + k * self.layout.size for k in range(self.layout.items)]
        slab = self.uma.slabs[base // PAGE] = Slab(self, base, header, free)
        self.part.insert(0, slab)
        self.sort()
        self.free += self.layout.items
        self.pages += self.layout.pages

    def take(self, slab: Slab) -> int:
        self.free -= 1
        item = slab.free.pop(0)
        if not slab.free:
            self.part.remove(slab)
        return item

    def give(self, item: int) -> None:
        slab = self.uma.slabs[item // PAGE]
        slab.free.insert(0, item)
        self.free += 1
        if len(slab.free) == self.layout.items:
            if slab in self.part:
                self.part.remove(slab)
            self.idle.insert(0, slab)
        elif len(slab.free) == 1:
            self.part.insert(0, slab)
        self.sort()
        if self.full and self.pages < self.pages_max:
            self.full = False

    def sort(self) -> None:
        if self.uma.order:
            self.part.sort(key=lambda slab: (len(slab.free) * (self.uma.order == 2), slab.base))

    def room(self, bucket: Bucket) -> bool:
        return len(bucket.items) < (bucket.entries if self.uma.generation >= 2 else self.count)

    def push(self, item: int, cpu: int) -> bool:
        for _ in range(2):
            second, first = self.second[cpu], self.first[cpu]
            if second and self.room(second):
                second.items.append(item)
                return True
            if second and first and len(first.items) < len(second.items):
                self.first[cpu], self.second[cpu] = second, first
        return False

    def release(self, item: int, cpu: int) -> None:
        """Free an item on a CPU."""
        while not self.full:
            if self.push(item, cpu):
                return
            if self.second[cpu]:
                self.ready.insert(0, self.second[cpu])
            self.second[cpu] = None
            if self.empty:
                self.second[cpu] = self.empty.pop(0)
                continue
            bucket = self.uma.bucket(self.count, False)
            if bucket is None:
                break
            self.empty.insert(0, bucket)
        self.give(item)
        slab = self.uma.slabs[item // PAGE]
        if self.uma.eager and slab in self.idle:
            self.idle.remove(slab)
            self.drop([slab])

    def drain_buckets(self, *, cpus: bool) -> None:
        if cpus:
            for pair in zip(self.first, self.second, strict=True):
                for bucket in filter(None, pair):
                    while bucket.items:
                        self.give(bucket.items.pop())
        for buckets in (self.ready, self.empty):
            while buckets:
                bucket = buckets.pop(0)
                while bucket.items:
                    self.give(bucket.items.pop())
                bucket.home.give(bucket.addr)

    def drain(self) -> None:
        """Give free slabs back."""
        if not self.own and self.uma.generation != 2:
            self.drain_buckets(cpus=self.uma.generation < 2)
        self.give_back()

    def give_back(self) -> None:
        if self.uma.generation >= 2:
            gone, self.idle = self.idle[::-1], []
        else:
            spare = max(self.free - self.working, 0) // self.layout.items
            spare = len(self.idle) if self.uma.eager else spare
            gone, self.idle = self.idle[:spare], self.idle[spare:]
        self.drop(gone)

    def drop(self, gone: list[Slab]) -> None:
        self.free -= len(gone) * self.layout.items
        self.pages -= len(gone) * self.layout.pages
        for slab in gone:
            if slab.header is not None:
                self.headers.give(slab.header)
            del self.uma.slabs[slab.base // PAGE]
            self.uma.map.give(slab.base, self.layout.pages * PAGE)


class Packets(Zone):
    """Mbufs with clusters, on the slabs of the zone of mbufs; `uma.packets`: the cluster of each."""

    cpu = 0

    def alloc(self, cpu: int, wait: bool) -> int | None:
        self.cpu = cpu
        return super().alloc(cpu, wait)

    def release(self, item: int, cpu: int) -> None:
        self.cpu = cpu
        super().release(item, cpu)

    def slab(self, wait: bool) -> Slab | None:
        return self.uma.mbufs.slab(wait)

    def take(self, slab: Slab) -> int:
        return self.uma.mbufs.take(slab)

    def give(self, item: int) -> None:
        cluster, clusters = self.uma.packets.pop(item), self.uma.clusters
        if clusters.full or not clusters.push(cluster, self.cpu):
            clusters.give(cluster)
        self.uma.mbufs.give(item)

    def supply(self, items: list[int], wait: bool) -> None:
        """Give items their clusters; those for which there is none go back."""
        try:
            while self.bare(items) and (cluster := self.uma.clusters.alloc(self.cpu, wait)) is not None:
                self.uma.packets[self.bare(items)[0]] = cluster
        finally:
            for item in self.bare(items):
                items.remove(item)
                self.uma.mbufs.give(item)

    def bare(self, items: list[int]) -> list[int]:
        return [item for item in items if item not in self.uma.packets]

    def from_slab(self, wait: bool) -> int | None:
        item = super().from_slab(wait)
        one = [] if item is None else [item]
        self.supply(one, wait)
        return one[0] if one else None

    def fill(self, bucket: Bucket, wait: bool) -> bool:
        if not super().fill(bucket, wait):
            return False
        try:
            self.supply(bucket.items, wait)
        finally:
            if not bucket.items:
                self.ready.remove(bucket)
                bucket.home.give(bucket.addr)
        return bool(bucket.items)

    def drain(self) -> None:
        self.cpu = 0
        super().drain()

    def give_back(self) -> None:
        self.uma.mbufs.give_back()

    def drop(self, gone: list[Slab]) -> None:
        self.uma.mbufs.drop(gone)

    @property
    def idle(self) -> list[Slab]:
        return self.uma.mbufs.idle

    @idle.setter
    def idle(self, slabs: list[Slab]) -> None:
        assert not slabs


class NaiveUma:
    """UMA over a map that counts upwards from 0 to `limit`."""

    def __init__(
        self,
        items: Sequence[Item],
        generation: int,
        *,
        cpus: int,
        clusters: int,
        limit: int,
        disable: bool = False,
        order: int = 0,
        eager: bool = False,
    ) -> None:
        self.order, self.eager = order, eager
        self.generation, self.cpus, self.disable, self.low = generation, cpus, disable, False
        self.most = 128 if generation >= 2 else 125
        self.map = LoggedMap(limit)
        self.slabs: dict[int, Slab] = {}
        self.large: dict[int, tuple[int, int]] = {}  # bytes, header
        self.chains: dict[int, list[int]] = {}
        plain, kegs = uma_layout.slab_header(generation), generation == 3
        counted = uma_layout.slab_header(generation, counted=kegs)
        self.headers = self.counted = None
        self.headers = Zone(self, uma_layout.header_bytes(generation, plain), own=True)
        self.counted = Zone(self, uma_layout.header_bytes(generation, counted), own=True) if kegs else self.headers
        sizes = (16, 32, 64, 128) if generation >= 2 else (125,)
        self.buckets = {n: Zone(self, 12 + 4 * n, own=True) for n in sizes}
        self.mallocs = [Zone(self, n) for n in MALLOC]
        self.mbufs = Zone(self, 256, 256, largest=kegs)
        self.packets: dict[int, int] = {}
        self.packet = Packets(self, 256, 256, largest=kegs)
        self.clusters = Zone(self, 2048, limit=clusters, counted=kegs)
        self.items = [Zone(self, item.size, limit=item.limit) for item in items]

    def cached(self) -> list[Zone]:
        """Zones that CPUs cache, oldest first."""
        return [*self.mallocs, self.packet, self.mbufs, self.clusters, *self.items]

    def own(self) -> list[Zone]:
        return list(dict.fromkeys([self.headers, self.counted, *self.buckets.values()]))

    def alloc(self, kind: int, size: int, cpu: int, wait: bool) -> tuple[int, int, bool]:
        """Address, bytes granted and whether it panicked; -1 without memory. `kind` is regs.ITEM."""
        try:
            addr, granted = self.serve(kind, size, cpu, wait)
        except Panic:
            return -1, 0, True
        return (-1, 0, False) if addr is None else (addr, granted, False)

    def serve(self, kind: int, size: int, cpu: int, wait: bool) -> tuple[int | None, int]:
        if kind == -64:
            return self.packet.alloc(cpu, wait), 2304
        if kind == -2 and size > 2048:
            return self.chain(size, cpu, wait)
        if kind == -1 and size > PAGE:
            return self.large_malloc(-(-size // PAGE) * PAGE, wait)
        if kind == -1:
            zone = next(z for z, n in zip(self.mallocs, MALLOC, strict=True) if size <= n)
        elif kind == -2:
            zone = self.mbufs if size <= 256 else self.clusters
        else:
            zone = self.items[kind]
        return zone.alloc(cpu, wait), zone.layout.size

    def chain(self, size: int, cpu: int, wait: bool) -> tuple[int | None, int]:
        got: list[int] = []
        while len(got) * 2048 < size:
            try:
                piece = self.clusters.alloc(cpu, wait)
            except Panic:
                self.release_all(got, cpu)
                raise
            if piece is None:
                self.release_all(got, cpu)
                return None, 0
            got.append(piece)
        self.chains[got[0]] = got
        return got[0], 2048 * len(got)

    def release_all(self, pieces: list[int], cpu: int) -> None:
        for piece in pieces:
            self.clusters.release(piece, cpu)

    def large_malloc(self, nbytes: int, wait: bool) -> tuple[int | None, int]:
        header = self.headers.from_slab(wait)
        if header is None:
            return None, 0
        base = self.map.take(nbytes)
        if base is None:
            self.headers.give(header)
            if wait:
                raise Panic
            return None, 0
        self.large[base] = nbytes, header
        return base, nbytes

    def free(self, addr: int, cpu: int) -> None:
        if addr in self.large:
            nbytes, header = self.large.pop(addr)
            self.map.give(addr, nbytes)
            self.headers.give(header)
        elif addr in self.chains:
            self.release_all(self.chains.pop(addr), cpu)
        elif addr in self.packets:
            self.packet.release(addr, cpu)
        else:
            self.slabs[addr // PAGE].zone.release(addr, cpu)

    def bucket(self, count: int, wait: bool) -> Bucket | None:
        if self.low:
            return None
        entries = next(n for n in self.buckets if self.generation < 2 or n >= -(-count // 16) * 16)
        zone = self.buckets[entries]
        addr = zone.from_slab(wait)
        return None if addr is None else Bucket(addr, zone, entries)

    def tick(self) -> None:
        self.low = False
        for zone in [*self.own(), *self.cached()]:
            zone.working, zone.recent = zone.recent, 0

    def reap(self) -> None:
        self.low = self.disable
        for zone in [*self.cached()[::-1], *self.own()[::-1], *self.own()]:
            zone.drain()

    def pages(self) -> int:
        return sum(z.pages for z in [*self.own(), *self.cached()]) + sum(n for n, _ in self.large.values()) // PAGE
