"""illumos kmem once more, in plain Python written from the description alone: objects, lists and real recursion."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from naive_space import PAGE, UpwardMap, WholePages

SMALL = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512]
SMALL += [640, 768, 896, 1152, 1344, 1600, 2048, 2688, 4096]
BIG = [8192, 12288, *(8192 * n for n in range(2, 17))]
MAGTYPES = [  # rounds, alignment, minbuf, maxbuf
    (1, 8, 3200, 65536), (3, 16, 256, 32768), (7, 32, 64, 16384), (15, 64, 0, 8192), (31, 64, 0, 4096),
    (47, 64, 0, 2048), (63, 64, 0, 1024), (95, 64, 0, 512), (143, 64, 0, 0),
]  # fmt: skip


@dataclass(eq=False)
class Magazine:
    address: int
    source: "Cache"
    rounds: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Depot:
    magazines: list[Magazine] = field(default_factory=list)  # the next one last
    least: int = 0
    limit: int = 0

    def take(self) -> Magazine | None:
        if not self.magazines:
            return None
        magazine = self.magazines.pop()
        self.least = min(self.least, len(self.magazines))
        return magazine

    def reapable(self) -> int:
        return min(self.least, self.limit)


@dataclass(eq=False)
class Slab:
    base: int
    first: int
    chunks: int
    header: int
    free: list[int] = field(default_factory=list)  # the next one last
    bufctls: dict[int, int] = field(default_factory=dict)
    later: int = 0
    stuck: int = -1
    nomove: bool = False
    dead: bool = False

    @property
    def used(self) -> int:
        return self.chunks - len(self.free)

    @property
    def partial(self) -> bool:
        return 0 < self.used < self.chunks


class Cache:
    def swap(self, cpu: int) -> None:
        """Exchange a CPU's two magazines."""
        self.loaded[cpu], self.previous[cpu] = self.previous[cpu], self.loaded[cpu]

    def __init__(self, size: int, align: int, cpus: int, *, raw: bool = False, magazines: bool = True) -> None:
        self.align = align
        self.chunk = -(-(-(-size // 8) * 8) // align) * align
        self.hashed = not raw and self.chunk >= 512
        self.size = self._slab_size() if self.hashed else PAGE
        self.maxcolour = min((self.size - (0 if self.hashed else 72)) % self.chunk, PAGE - 1)
        self.maxchunks = self.size // self.chunk
        self.bins = (self.maxchunks // 16).bit_length() + 1
        self.colour = 0
        self.slabs: list[Slab] = []
        self.type = next(t for t, row in enumerate(MAGTYPES) if self.chunk > row[2])
        self.magsize = [MAGTYPES[self.type][0] if magazines else 0] * cpus
        self.loaded: list[Magazine | None] = [None] * cpus
        self.previous: list[Magazine | None] = [None] * cpus
        self.full, self.empty = Depot(), Depot()
        self.movable = False
        self.contention = self.contention_before = 0
        self.grows = False
        self.last_cpu = -1
        self.mask = 63
        self.numer, self.tries, self.sought, self.found = 1, 0, 0, 0
        self.pending: list[tuple] = []
        self.waiting: list[Slab] = []

    def _slab_size(self) -> int:
        choices, n = [], 1
        while n <= 8:
            size = -(-self.chunk * n // PAGE) * PAGE
            n = size // self.chunk
            choices.append((size % self.chunk // n, size))
            n += 1
        return min(choices)[1]

    def order(self, slab: Slab) -> tuple[int, int]:
        r = slab.used
        weight = -r if r <= self.bins or slab.chunks - r <= self.bins else -(self.bins + (r >> self.bins))
        return weight - (self.maxchunks if slab.nomove else 0), slab.header

    def partial(self) -> list[Slab]:
        return sorted((slab for slab in self.slabs if slab.partial), key=self.order)

    def total(self) -> int:
        return sum(slab.chunks for slab in self.slabs)

    def free_in_slabs(self) -> int:
        return sum(len(slab.free) for slab in self.slabs)

    def slab_of(self, buf: int) -> Slab:
        return next(s for s in self.slabs + self.waiting if s.base <= buf < s.base + self.size)


class NaiveKmem(WholePages):
    """The allocator over a map that counts upwards."""

    def __init__(self, sizes: list[int], cpus: int, *, movable: int = 0, limit: int = 1 << 30, **p: int) -> None:
        magazines = bool(p.get("magazines", 1))
        make = lambda size, align, raw=False: Cache(size, align, cpus, raw=raw, magazines=magazines)  # noqa: E731
        self.cpus, self.p = cpus, p
        self.magazines = [make(8 * (rounds + 1), align, True) for rounds, align, *_ in MAGTYPES]
        self.headers, self.bufctls, self.moves = make(72, 8, True), make(24, 8, True), make(56, 8, True)
        big = [size for below, size in pairwise([4096, *BIG]) if below < p.get("max_cached", 131072)]
        aligned = {size: 8 if size % 64 else 64 if size % PAGE else PAGE for size in SMALL + big}
        self.sized = {size: make(size, align) for size, align in aligned.items()}
        self.items = [make(size, 8) for size in sizes]
        self.own = [*self.magazines, self.headers, self.bufctls, self.moves]
        self.caches = [*self.own, *self.sized.values(), *self.items]
        for cache in [*self.sized.values(), *self.items] if movable == 2 else self.items if movable else []:
            cache.movable = cache.chunk * 2 <= cache.size
        self.owner: dict[int, int] = {}  # object by buffer
        self.oversize: dict[int, int] = {}
        self.map = UpwardMap(limit)
        self.moved: list[tuple[int, int, int]] = []
        self.may_move: Callable[[int], bool] = lambda obj: True
        self.wait = self.done = self.later = self.unknown = 0

    # What others call.

    def malloc(self, nbytes: int, cpu: int, obj: int, item: int = -1) -> tuple[int, int]:
        """Allocate; returns address and granted bytes, (-1, 0) without memory."""
        if item < 0 and nbytes > max(self.sized):
            return self.take_pages(nbytes)
        cache = self.items[item] if item >= 0 else self.sized[min(size for size in self.sized if size >= nbytes)]
        buf = self.alloc(cache, cpu)
        if buf < 0:
            return -1, 0
        self.owner[buf] = obj
        return buf, cache.chunk

    def mfree(self, buf: int, cpu: int) -> None:
        if buf in self.oversize:
            del self.oversize[buf]
            self.map.give(buf)
            return
        del self.owner[buf]
        self.free(self._cache_of(buf), buf, cpu)

    def tick(self, cpu: int) -> None:
        """Play the update of every 15 seconds."""
        self.wait = max(self.wait - 1, 0)
        for cache in self.caches:
            self._update(cache)
        for cache in self.caches:
            if cache.grows:
                self._grow(cache, cpu)
            if cache.movable:
                self._scan(cache, cpu)

    def reap(self, cpu: int) -> None:
        if self.wait:
            return
        for cache in self.caches:
            self._reap_depot(cache, cpu)
            if cache.movable and len(cache.partial()) > 1:
                self._move_buffers(cache, cpu, desperate=True)
        self.wait = self.p.get("reap_wait", 1)

    # Magazines.

    def _depot(self, cache: Cache, cpu: int, depot: Depot) -> Magazine | None:
        if not cache.magsize[cpu]:
            return None
        self._visit(cache, cpu)
        return depot.take()

    def alloc(self, cache: Cache, cpu: int) -> int:
        while True:
            loaded, previous = cache.loaded[cpu], cache.previous[cpu]
            if loaded and loaded.rounds:
                return loaded.rounds.pop()
            if previous and previous.rounds:
                cache.swap(cpu)
                continue
            full = self._depot(cache, cpu, cache.full)
            if not full:
                break
            if previous:
                cache.empty.magazines.append(previous)
            cache.loaded[cpu], cache.previous[cpu] = full, loaded
        return self._slab_alloc(cache, cpu)

    def free(self, cache: Cache, buf: int, cpu: int) -> None:
        while True:
            loaded, previous = cache.loaded[cpu], cache.previous[cpu]
            if loaded and len(loaded.rounds) < cache.magsize[cpu]:
                loaded.rounds.append(buf)
                return
            if previous and not previous.rounds:
                cache.swap(cpu)
                continue
            if not cache.magsize[cpu]:
                break
            empty = self._depot(cache, cpu, cache.empty)
            if empty:
                if previous:
                    cache.full.magazines.append(previous)
                cache.loaded[cpu], cache.previous[cpu] = empty, loaded
                continue
            source = self.magazines[cache.type]
            address = self.alloc(source, cpu)
            if address < 0:
                break
            cache.empty.magazines.append(Magazine(address, source))
            cache.last_cpu = cpu
        self._slab_free(cache, buf, cpu)

    def _visit(self, cache: Cache, cpu: int) -> None:
        if self.p.get("contention") == 2:
            cache.contention += cache.last_cpu not in (-1, cpu)
        cache.last_cpu = cpu

    # Slabs.

    def _slab_alloc(self, cache: Cache, cpu: int) -> int:
        partial = cache.partial()
        slab = partial[0] if partial else self._create(cache, cpu)
        return self._take(slab) if slab else -1

    def _take(self, slab: Slab) -> int:
        new = slab.used == 0
        buf = slab.free.pop()
        if not slab.free and not new:
            slab.later, slab.stuck, slab.nomove = 0, -1, False
        return buf

    def _create(self, cache: Cache, cpu: int) -> Slab | None:
        cache.colour += cache.align
        if cache.colour > cache.maxcolour:
            cache.colour = 0
        base = self.map.take(cache.size, PAGE)
        if base < 0:
            return None
        first = base + cache.colour
        chunks = (cache.size - (0 if cache.hashed else 72) - cache.colour) // cache.chunk
        slab = Slab(base, first, chunks, base + PAGE - 72)
        buffers = [first + n * cache.chunk for n in range(chunks)]
        if not cache.hashed:
            slab.free = buffers
        else:
            slab.header = self.alloc(self.headers, cpu)
            if slab.header < 0:
                self.map.give(base)
                return None
            for buf in buffers:
                bufctl = self.alloc(self.bufctls, cpu)
                if bufctl < 0:
                    self._destroy(cache, slab, cpu)
                    return None
                slab.bufctls[buf] = bufctl
                slab.free.append(buf)
        cache.slabs.append(slab)
        return slab

    def _slab_free(self, cache: Cache, buf: int, cpu: int) -> None:
        slab = cache.slab_of(buf)
        if slab.stuck == buf:
            self._forgive(slab, buf)
        slab.free.append(buf)
        if slab.used == 0:
            cache.slabs.remove(slab)
            if cache.pending:
                cache.waiting.append(slab)
            else:
                self._destroy(cache, slab, cpu)

    def _destroy(self, cache: Cache, slab: Slab, cpu: int) -> None:
        if cache.hashed:
            while slab.free:
                self.free(self.bufctls, slab.bufctls.pop(slab.free.pop()), cpu)
            self.free(self.headers, slab.header, cpu)
        self.map.give(slab.base)

    # Upkeep.

    def _update(self, cache: Cache) -> None:
        for depot in (cache.full, cache.empty):
            depot.limit, depot.least = depot.least, len(depot.magazines)
        new = max(64, 1 << ((3 * cache.total() + 4).bit_length() - 2))
        far = cache.total() > cache.mask * 2 or (cache.total() < cache.mask // 2 and cache.mask > 64)
        if cache.hashed and far and not (cache.mask + 1) // 2 <= new <= (cache.mask + 1) * 2:
            cache.mask = new - 1
        much = cache.contention - cache.contention_before > self.p.get("depot_contention", 3)
        cache.grows = much and cache.chunk < MAGTYPES[cache.type][3] and bool(self.p.get("magazines", 1))
        cache.contention_before = cache.contention

    def _grow(self, cache: Cache, cpu: int) -> None:
        for c in range(self.cpus):
            magazines = [m for m in (cache.loaded[c], cache.previous[c]) if m]
            cache.loaded[c] = cache.previous[c] = None
            cache.magsize[c] = 0
            for magazine in magazines:
                self._empty(cache, magazine, cpu)
        for depot in (cache.full, cache.empty):
            depot.limit = depot.least = len(depot.magazines)
        self._reap_depot(cache, cpu)
        cache.type += 1
        cache.contention_before = cache.contention + 2**31 - 1
        cache.magsize = [MAGTYPES[cache.type][0]] * self.cpus

    def _empty(self, cache: Cache, magazine: Magazine, cpu: int) -> None:
        for buf in magazine.rounds:
            self._slab_free(cache, buf, cpu)
        self.free(magazine.source, magazine.address, cpu)

    def _reap_depot(self, cache: Cache, cpu: int) -> None:
        for depot in (cache.full, cache.empty):
            for _ in range(depot.reapable()):
                magazine = depot.take()
                if magazine:
                    self._empty(cache, magazine, cpu)

    # The consolidator.

    def _scan(self, cache: Cache, cpu: int) -> None:
        numer, denom = self.p.get("frag_numer", 1), self.p.get("frag_denom", 8)
        enough = len(cache.slabs) >= self.p.get("frag_minslabs", 101)
        fragmented = enough and cache.free_in_slabs() * denom > cache.total() * numer
        if fragmented and len(cache.partial()) > 1:
            self._move_buffers(cache, cpu, desperate=False)
            return
        cache.numer = 1
        reap = min(cache.full.reapable(), len(cache.full.magazines))
        free = cache.free_in_slabs() + reap * MAGTYPES[cache.type][0]
        if enough and free * denom > cache.total() * numer:
            self._reap_depot(cache, cpu)

    def _worth(self, cache: Cache, slab: Slab, desperate: bool) -> bool:
        if desperate:
            return slab.used < slab.chunks
        few = slab.used == 1 < slab.chunks or (slab.used != 1 and slab.used * 8 < slab.chunks * cache.numer)
        return few and not slab.nomove

    def _move_buffers(self, cache: Cache, cpu: int, *, desperate: bool) -> None:
        found = self._queue(cache, cpu, desperate)
        reach = self.p.get("scan_range", 12)
        if not desperate:
            cache.sought += self.p.get("reclaim_slabs", 1)
            cache.found += found
            cache.tries += 1
            if cache.tries >= reach:
                if cache.found == cache.sought:
                    cache.numer = max(cache.numer - 1, 1)
                elif 0 <= 2 * cache.found < cache.sought:
                    cache.numer = min(cache.numer + 1, 7)
                cache.tries = cache.sought = cache.found = 0
        while cache.pending:
            self._move(cache, cpu, desperate)

    def _queue(self, cache: Cache, cpu: int, desperate: bool) -> int:
        found = scanned = 0
        slabs = cache.partial()
        slab = slabs[-1]
        while slab is not cache.partial()[0]:
            if not desperate and (scanned >= self.p.get("scan_range", 12) or found >= self.p.get("reclaim_slabs", 1)):
                break
            if self._worth(cache, slab, desperate):
                found += 1
                for buf in self._used(cache, slab):
                    note = self.alloc(self.moves, cpu)
                    if note < 0:
                        return -1
                    if len(cache.partial()) <= 1:
                        self.free(self.moves, note, cpu)
                    else:
                        cache.pending.append((note, buf, self._take(cache.partial()[0]), slab))
                    if slab is cache.partial()[0]:
                        return found
            scanned += 1
            before = [s for s in cache.partial() if cache.order(s) < cache.order(slab)]
            if not before:
                break
            slab = before[-1]
        return found

    @staticmethod
    def _used(cache: Cache, slab: Slab) -> list[int]:
        buffers = range(slab.first, slab.first + slab.chunks * cache.chunk, cache.chunk)
        return [buf for buf in buffers if buf not in slab.free]

    def _move(self, cache: Cache, cpu: int, desperate: bool) -> None:
        note, source, to, slab = cache.pending[0]
        obj = self.owner.get(source)
        if not self._worth(cache, slab, desperate) or source in slab.free:
            self._slab_free(cache, to, cpu)
        elif obj is None:
            self.unknown += 1
            self._slab_free(cache, to, cpu)
        elif self.may_move(obj):
            self.owner[to] = self.owner.pop(source)
            self.moved.append((obj, source, to))
            self.done += 1
            self._slab_free(cache, source, cpu)
            self._forgive(slab, source)
        else:
            self._refused(slab, source)
            self._slab_free(cache, to, cpu)
        cache.pending.pop(0)
        while not cache.pending and cache.waiting:
            self._destroy(cache, cache.waiting.pop(), cpu)
        self.free(self.moves, note, cpu)

    def _refused(self, slab: Slab, buf: int) -> None:
        self.later += 1
        if not slab.partial:
            return
        slab.later += 1
        if slab.later >= self.p.get("disbelief", 3):
            slab.later, slab.nomove, slab.stuck = 0, True, buf
        elif not slab.nomove:
            slab.stuck = buf

    @staticmethod
    def _forgive(slab: Slab, buf: int) -> None:
        if not slab.partial:
            return
        if not slab.nomove:
            slab.later, slab.stuck = 0, -1
        elif slab.stuck == buf:
            slab.nomove, slab.stuck = False, -1

    # The map.

    def _cache_of(self, buf: int) -> Cache:
        return next(c for c in self.caches for s in c.slabs if s.base <= buf < s.base + c.size)
