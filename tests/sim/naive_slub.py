"""SLUB and its sheaves once more, with lists and whole operations, written from the description of the real code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kmemexp.sim.allocators.slub import layout
from kmemexp.sim.items import ACCOUNT, Item

PAGE = 4096
NOWAIT = 1  # slots.F_NOWAIT
KMALLOC = layout.KMALLOC_SIZES
NOTHING = -16  # kmalloc(0)


@dataclass(eq=False)
class Slab:
    """A block of pages; `free`: its own freelist, first object first."""

    base: int
    nbytes: int
    node: int
    cache: "Cache"
    free: list[int]
    objects: int
    current: bool = False
    vector: int = -1  # of a memory cgroup

    @property
    def empty(self) -> bool:
        return len(self.free) == self.objects


@dataclass(eq=False)
class Sheaf:
    """An array of objects, in memory of its own."""

    addr: int
    objects: list[int] = field(default_factory=list)


class Cache:
    """One cache: what each CPU and each node has of it. Lists begin with what comes first."""

    def __init__(self, number: int, item: Item, cpus: int, nodes: int, **options: int) -> None:
        size = -(-item.size // 8) * 8
        plan = layout.layout(
            size, cpus, cpu_partial=bool(options.get("cpu_partial", 1) and options.get("cpu_slabs", 1))
        )
        self.number, self.size, self.order, self.min_order = number, size, plan.order, plan.min_order
        self.cpu_slabs = plan.cpu_slabs
        self.min_partial = options.get("min_partial", 0) or plan.min_partial
        self.charged = bool(options.get("memcg") and item.traits.flags & ACCOUNT)
        self.spare_room = options.get("memcg") == 2
        self.capacity = item.traits.sheaf
        if options.get("sheaves", 0) != 2:
            self.capacity = max(layout.sheaf_capacity(size, options.get("sheaf_capacity", 0)), item.traits.sheaf)
        self.current: list[Slab | None] = [None] * cpus
        self.freelist: list[list[int]] = [[] for _ in range(cpus)]
        self.partial: list[list[Slab]] = [[] for _ in range(cpus)]
        self.node: list[list[Slab]] = [[] for _ in range(nodes)]
        self.main: list[Sheaf | None] = [None] * cpus
        self.spare: list[Sheaf | None] = [None] * cpus
        self.full: list[list[Sheaf]] = [[] for _ in range(nodes)]
        self.vacant: list[list[Sheaf]] = [[] for _ in range(nodes)]


class NaiveSlub:
    """The allocator. `take(nbytes, align)` returns an address or -1, `give(base, nbytes)` takes it back."""

    def __init__(
        self, take: Callable, give: Callable, cpus: int, items: Sequence[Item], *, nodes: int = 1, **options: int
    ) -> None:
        self.take, self.give, self.cpus, self.nodes = take, give, cpus, nodes
        self.sheaves, self.ratio = options.get("sheaves", 0), options.get("defrag_ratio", 1000)
        self.slab_order = options.get("slab_order", 0)
        self.asked_only, self.cpu_slabs = self.sheaves == 2, options.get("cpu_slabs", 1)
        every = [*(Item(size, 0, 0) for size in KMALLOC), *items]
        self.caches = [Cache(k, item, cpus, nodes, **options) for k, item in enumerate(every)]
        self.slabs: dict[int, Slab] = {}  # by page
        self.large: dict[int, int] = {}
        self.asked = self.fallbacks = 0

    def alloc(self, size: int, item: int, cpu: int, flags: int) -> int:
        """Allocate; -1 without memory."""
        if item >= 0:
            return self._object(self.caches[len(KMALLOC) + item], cpu, flags & NOWAIT)
        if size == 0:
            return NOTHING
        if size > KMALLOC[-1]:
            nbytes = layout.kmalloc_size(size)
            base = self.take(nbytes, nbytes) if nbytes <= 4 << 20 else -1
            if base >= 0:
                self.large[base] = nbytes
            return max(base, -1)
        k = next(k for k, fits in enumerate(KMALLOC) if fits >= size)
        return self._object(self.caches[k], cpu, flags & NOWAIT)

    def free(self, addr: int, item: int, cpu: int, flags: int) -> None:
        """Free an object."""
        if addr == NOTHING:
            return
        if addr in self.large:
            self.give(addr, self.large.pop(addr))
            return
        slab = self.slabs[addr // PAGE]
        if self._has(slab.cache) and slab.node == self._node(cpu):
            self._into_sheaf(slab.cache, addr, cpu)
        else:
            self._into_slab(addr, cpu)

    def shrink(self) -> None:
        """kmem_cache_shrink() of all caches, the last first."""
        for cache in reversed(self.caches):
            for cpu in range(self.cpus):
                self._flush_cpu(cache, cpu)
            for n in range(self.nodes):
                cpu = next(c for c in range(self.cpus) if self._node(c) == n)
                while cache.full[n] or cache.vacant[n]:
                    self._drop_sheaf((cache.full[n] or cache.vacant[n]).pop(0), cpu)
                self._sort(cache, n, cpu)

    def _node(self, cpu: int) -> int:
        return cpu * self.nodes // self.cpus

    # Slabs.

    def _from_slab(self, cache: Cache, cpu: int) -> int:
        freelist = cache.freelist[cpu]
        if not freelist:
            slab = self._next_slab(cache, cpu)
            if slab is None:
                return -1
            cache.current[cpu], slab.current = slab, True
            freelist[:], slab.free[:] = slab.free, []
        return freelist.pop(0)

    def _next_slab(self, cache: Cache, cpu: int) -> Slab | None:
        old = cache.current[cpu]
        if old is not None:
            if old.free:
                return old
            old.current, cache.current[cpu] = False, None
        if cache.partial[cpu]:
            return cache.partial[cpu].pop(0)
        own = self._node(cpu)
        if cache.node[own]:
            return self._from_node(cache, cpu, own)
        if self.nodes > 1:
            self.asked += 1
            if 0 < self.ratio >= self.asked * 389 % 1024:
                for n in [*range(own + 1, self.nodes), *range(own)]:
                    if len(cache.node[n]) > cache.min_partial:
                        return self._from_node(cache, cpu, n)
        return self._new_slab(cache, cpu)

    def _from_node(self, cache: Cache, cpu: int, n: int) -> Slab:
        slab = cache.node[n].pop(0)
        wanted = cache.cpu_slabs // 2 + 1 if cache.cpu_slabs else 0
        while wanted and cache.node[n]:
            cache.partial[cpu].insert(0, cache.node[n].pop(0))
            wanted -= 1
        return slab

    def _new_slab(self, cache: Cache, cpu: int) -> Slab | None:
        for order in sorted({cache.order, cache.min_order}, reverse=True):
            nbytes = PAGE << order
            base = self.take(nbytes, nbytes)
            if base >= 0:
                self.fallbacks += order != cache.order
                count = nbytes // cache.size
                free = [base + k * cache.size for k in range(count)]
                slab = Slab(base, nbytes, self._node(cpu), cache, free, count)
                self.slabs.update(dict.fromkeys(range(base // PAGE, (base + nbytes) // PAGE), slab))
                if cache.charged and not (cache.spare_room and nbytes - count * cache.size >= 8 * count):
                    slab.vector = self._vector(8 * count, cpu)
                return slab
        return None

    def _vector(self, nbytes: int, cpu: int) -> int:
        """Take memory for a vector: of what the CPU and its node have, else of a new slab."""
        cache = next(cache for cache, size in zip(self.caches, KMALLOC, strict=False) if size >= nbytes)
        ratio, self.ratio, asked = self.ratio, 0, self.asked  # other nodes are not asked
        addr = self._from_slab(cache, cpu)
        self.ratio, self.asked = ratio, asked
        return addr

    def _into_slab(self, addr: int, cpu: int) -> None:
        slab = self.slabs[addr // PAGE]
        cache = slab.cache
        if cache.current[cpu] is slab:
            cache.freelist[cpu].insert(0, addr)
            return
        was_full = not slab.free
        slab.free.insert(0, addr)
        if slab.current:
            return
        if was_full and cache.cpu_slabs:
            if len(cache.partial[cpu]) >= cache.cpu_slabs:
                old, cache.partial[cpu] = cache.partial[cpu], [slab]
                self._to_nodes(old, cpu)
            else:
                cache.partial[cpu].insert(0, slab)
        elif was_full:
            self._to_nodes([slab], cpu)
        elif slab.empty and slab in cache.node[slab.node] and len(cache.node[slab.node]) >= cache.min_partial:
            cache.node[slab.node].remove(slab)
            self._discard(slab, cpu)
        self._in_order(cache.node[slab.node])

    def _in_order(self, slabs: list[Slab]) -> None:
        if self.slab_order:
            slabs.sort(key=lambda slab: (len(slab.free) * (self.slab_order == 2), slab.base))

    def _to_nodes(self, slabs: list[Slab], cpu: int) -> None:
        drop = []
        for slab in slabs:
            listed = slab.cache.node[slab.node]
            if slab.empty and len(listed) >= slab.cache.min_partial:
                drop.insert(0, slab)
            else:
                listed.append(slab)
            self._in_order(listed)
        for slab in drop:
            self._discard(slab, cpu)

    def _discard(self, slab: Slab, cpu: int) -> None:
        if slab.vector >= 0:
            self._into_slab(slab.vector, cpu)
        for page in range(slab.base // PAGE, (slab.base + slab.nbytes) // PAGE):
            del self.slabs[page]
        self.give(slab.base, slab.nbytes)

    # Sheaves.

    def _has(self, cache: Cache) -> bool:
        return bool(self.sheaves and cache.capacity)

    def _object(self, cache: Cache, cpu: int, nowait: int) -> int:
        if not self._has(cache) or not self._ready(cache, cpu, nowait and self.cpu_slabs):
            return self._from_slab(cache, cpu)
        return cache.main[cpu].objects.pop()

    def _new_sheaf(self, cache: Cache, cpu: int) -> Sheaf | None:
        bucket = next(k for k, size in enumerate(KMALLOC) if size >= 32 + 8 * cache.capacity)
        addr = self._from_slab(self.caches[bucket], cpu)
        return None if addr < 0 else Sheaf(addr)

    def _ready(self, cache: Cache, cpu: int, nowait: int) -> bool:
        """See that the main sheaf has an object."""
        n = self._node(cpu)
        if cache.main[cpu] is None:
            cache.main[cpu] = self._new_sheaf(cache, cpu)
            if cache.main[cpu] is None:
                return False
        main, spare = cache.main[cpu], cache.spare[cpu]
        if main.objects:
            return True
        if spare and spare.objects:
            cache.main[cpu], cache.spare[cpu] = spare, main
        elif cache.full[n]:
            cache.main[cpu] = cache.full[n].pop(0)
            cache.vacant[n].insert(0, main)
        elif nowait:
            return False
        else:
            cache.spare[cpu] = None
            sheaf = spare or (cache.vacant[n].pop(0) if cache.vacant[n] else self._new_sheaf(cache, cpu))
            if sheaf is None or not self._fill(cache, sheaf, cpu):
                return False
            cache.main[cpu] = sheaf
            if self.asked_only:
                cache.vacant[n].insert(0, main)
            else:
                cache.spare[cpu] = main
        return True

    def _fill(self, cache: Cache, sheaf: Sheaf, cpu: int) -> bool:
        while len(sheaf.objects) < cache.capacity:
            addr = self._from_slab(cache, cpu)
            if addr < 0:
                self._drop_sheaf(sheaf, cpu)
                return False
            sheaf.objects.append(addr)
        if not self.cpu_slabs:
            self._leave(cache, cpu)
        return True

    def _drop_sheaf(self, sheaf: Sheaf, cpu: int) -> None:
        self._empty(sheaf, len(sheaf.objects), cpu)
        self._into_slab(sheaf.addr, cpu)

    def _empty(self, sheaf: Sheaf, most: int, cpu: int) -> None:
        batch = [sheaf.objects.pop() for _ in range(min(most, len(sheaf.objects)))]
        for addr in batch:
            self._into_slab(addr, cpu)

    def _into_sheaf(self, cache: Cache, addr: int, cpu: int) -> None:
        n = self._node(cpu)
        if cache.main[cpu] is None:
            cache.main[cpu] = self._new_sheaf(cache, cpu)
            if cache.main[cpu] is None:
                self._into_slab(addr, cpu)
                return
        main, spare = cache.main[cpu], cache.spare[cpu]
        if len(main.objects) == cache.capacity:
            if spare and len(spare.objects) < cache.capacity:
                cache.main[cpu], cache.spare[cpu] = spare, main
            elif spare and len(cache.full[n]) >= 10:
                cache.spare[cpu] = None
                self._empty(spare, cache.capacity, cpu)
                cache.main[cpu], cache.spare[cpu] = spare, main
            elif sheaf := cache.vacant[n].pop(0) if cache.vacant[n] else self._new_sheaf(cache, cpu):
                cache.main[cpu] = sheaf
                if spare:
                    cache.full[n].insert(0, main)
                else:
                    cache.spare[cpu] = main
            else:
                while main.objects:
                    self._empty(main, 32, cpu)
        cache.main[cpu].objects.append(addr)

    # Shrinking.

    def _flush_cpu(self, cache: Cache, cpu: int) -> None:
        if spare := cache.spare[cpu]:
            cache.spare[cpu] = None
            self._drop_sheaf(spare, cpu)
        while cache.main[cpu] and cache.main[cpu].objects:
            self._empty(cache.main[cpu], 32, cpu)
        self._leave(cache, cpu)
        partial, cache.partial[cpu] = cache.partial[cpu], []
        self._to_nodes(partial, cpu)

    def _leave(self, cache: Cache, cpu: int) -> None:
        """A CPU's slab goes to its node."""
        if slab := cache.current[cpu]:
            remote = bool(slab.free)
            slab.free[:0] = cache.freelist[cpu]
            cache.current[cpu], cache.freelist[cpu], slab.current = None, [], False
            listed = cache.node[slab.node]
            if slab.empty and len(listed) >= cache.min_partial:
                self._discard(slab, cpu)
            elif slab.free:
                listed.insert(len(listed) if remote else 0, slab)
                self._in_order(listed)

    def _sort(self, cache: Cache, n: int, cpu: int) -> None:
        slabs = cache.node[n]
        drop = [slab for slab in reversed(slabs) if slab.empty]
        kept = [slab for slab in slabs if not slab.empty]
        full = [slab for slab in reversed(kept) if len(slab.free) <= 32]
        full.sort(key=lambda slab: len(slab.free))
        cache.node[n] = full + [slab for slab in kept if len(slab.free) > 32]
        self._in_order(cache.node[n])
        for slab in drop:
            self._discard(slab, cpu)
