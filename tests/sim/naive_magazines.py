"""mb_alloc, per-CPU freelists and objcache once more, with lists and dicts, written from the descriptions alone.

Each runs over a map that counts upwards. The head of every list is its last element.
"""

from dataclasses import dataclass, field

from naive_slab import PAGE, NaiveSlab, chunk_size
from naive_space import BumpMap

MBUF, CLUSTER = 256, 2048  # the sorts, by the size of a buffer


@dataclass(eq=False)
class Bucket:
    """Some pages cut into buffers; `free` is a stack."""

    size: int
    pages: range
    owner: int
    free: list[int] = field(default_factory=list)


class NaiveMbAlloc:
    """FreeBSD 5's mbufs and clusters. Container `cpus` is the general one."""

    def __init__(self, version: int, cpus: int, limit: int, *, room: dict[int, int], high: dict[int, int]) -> None:
        self.map, self.cpus, self.room, self.high = BumpMap(limit), cpus, dict(room), high
        self.pages = {MBUF: (1, 2)[version], CLUSTER: (1, 4)[version]}
        self.boot = {MBUF: (4, 2)[version], CLUSTER: (16, 8)[version]}
        self.box: list[dict[int, list[Bucket]]] = [{MBUF: [], CLUSTER: []} for _ in range(cpus + 1)]
        self.starved = [{MBUF: False, CLUSTER: False} for _ in range(cpus)]
        self.full = {MBUF: False, CLUSTER: False}
        self.booted: set[int] = set()
        self.bucket_of: dict[int, Bucket] = {}  # by page
        self.live: dict[int, list[int]] = {}

    def alloc(self, nbytes: int, cpu: int, *, wait: bool) -> int | None:
        """Allocate an mbuf, a cluster or a chain; returns the first address."""
        if cpu not in self.booted:
            self.booted.add(cpu)
            if all(self._new(MBUF, cpu) for _ in range(self.boot[MBUF])):
                _ = all(self._new(CLUSTER, cpu) for _ in range(self.boot[CLUSTER]))
        size = MBUF if nbytes <= MBUF else CLUSTER
        chain: list[int] = []
        while not chain or len(chain) * size < nbytes:
            buffer = self._one(size, cpu, wait)
            if buffer is None:
                self._give(chain)
                return None
            chain.append(buffer)
        self.live[chain[0]] = chain
        return chain[0]

    def free(self, addr: int) -> None:
        self._give(self.live.pop(addr))

    def count(self, container: int, size: int) -> int:
        return sum(len(b.free) for b in self.box[container][size])

    def owner(self, addr: int) -> int:
        return self.bucket_of[addr // PAGE].owner

    def _one(self, size: int, cpu: int, wait: bool) -> int | None:
        own, general = self.box[cpu][size], self.box[self.cpus][size]
        if not own and general:
            own.append(general.pop())
            own[-1].owner = cpu
        if not own and not self.full[size] and not self._new(size, cpu) and wait:
            self.full[size] = True
        if own:
            return self._pop(own)
        for c in range(self.cpus if wait else 0):
            if self.box[c][size]:
                return self._pop(self.box[c][size])
            self.starved[c][size] = True
        return None

    def _pop(self, buckets: list[Bucket]) -> int:
        buffer = buckets[-1].free.pop()
        if not buckets[-1].free:
            buckets.pop()
        return buffer

    def _new(self, size: int, cpu: int) -> bool:
        nbytes = self.pages[size] * PAGE
        if self.room[size] < nbytes // size:
            return False
        base = self.map.take(nbytes)
        if base is None:
            return False
        self.room[size] -= nbytes // size
        new = Bucket(size, range(base // PAGE, (base + nbytes) // PAGE), cpu, list(range(base, base + nbytes, size)))
        self.bucket_of |= dict.fromkeys(new.pages, new)
        self.box[cpu][size].append(new)
        return True

    def _give(self, chain: list[int]) -> None:
        for buffer in chain:
            bucket = self.bucket_of[buffer // PAGE]
            size, owner = bucket.size, bucket.owner
            if not bucket.free:
                self.box[owner][size].append(bucket)
            bucket.free.append(buffer)
            if owner == self.cpus:
                continue
            if self.count(owner, size) > self.high[size] or self.starved[owner][size]:
                gone = bucket if len(bucket.free) == 1 else self.box[owner][size][-1]
                self.box[owner][size].remove(gone)
                self.box[self.cpus][size].append(gone)
                gone.owner = self.cpus
                self.starved[owner][size] = False


class NaiveFreelists:
    """One kind of item; `lists[cpus]` is the shared list."""

    def __init__(self, pages: BumpMap, size: int, growth: int, cpus: int, limit: int) -> None:
        self.map, self.cpus, self.limit = pages, cpus, limit
        self.size = -(-size // 32) * 32
        self.growth = max(growth, 1, -(-self.size // PAGE))
        self.lists: list[list[int]] = [[] for _ in range(cpus + 1)]
        self.pages = self.made = 0

    def alloc(self, cpu: int) -> int | None:
        own, shared = self.lists[cpu], self.lists[self.cpus]
        if not own and self.limit and shared:
            batch = max(self.limit // 2, 1)
            own += shared[-batch:]
            del shared[-batch:]
        if not own:
            base = self.map.take(self.growth * PAGE)
            if base is None:
                return None
            self.pages += self.growth
            own += range(base, base + self.growth * PAGE - self.size + 1, self.size)
            self.made += len(own)
        return own.pop()

    def free(self, addr: int, cpu: int) -> None:
        own = self.lists[cpu]
        if self.limit and len(own) >= self.limit:
            half = max(len(own) // 2, 1)
            self.lists[self.cpus] += own[-half:]
            del own[-half:]
        own.append(addr)


class NaiveObjcache:
    """Caches before one naive slab allocator. A magazine is a list."""

    def __init__(self, back: NaiveSlab, sizes: list[int], cpus: int, sizing: list[tuple], generation: int) -> None:
        self.back, self.sizes, self.generation = back, sizes, generation
        self.capacity = [s[0] for s in sizing]
        self.left = [s[1] for s in sizing]  # objects that may be made
        self.pair: list[list[list[list[int]]]] = [[[[], []] for _ in range(cpus)] for _ in sizes]  # loaded, previous
        self.full: list[list[list[int]]] = [[] for _ in sizes]
        self.empty: list[list[list[int]]] = [[[] for _ in range(s[2])] for s in sizing]

    def granted(self, z: int) -> int:
        """Bytes of a chunk of the slab allocator."""
        size = self.sizes[z]
        return -(-size // PAGE) * PAGE if size % PAGE == 0 or size >= self.back.zone_limit else chunk_size(size)

    def alloc(self, z: int, cpu: int, *, nowait: bool) -> int:
        """Get an object; -1 without one."""
        pair = self.pair[z][cpu]
        if not pair[0] and pair[1]:
            pair.reverse()
        elif not pair[0] and self.full[z]:
            self.empty[z].append(pair.pop())
            pair.insert(0, self.full[z].pop())
        if pair[0]:
            return pair[0].pop()
        if self.left[z] <= 0 and not (self.generation == 0 and nowait):
            return -1
        addr, _ = self.back.malloc(self.sizes[z], cpu, nowait=nowait)
        self.left[z] -= addr >= 0
        return addr

    def free(self, addr: int, z: int, cpu: int, *, interrupt: bool) -> None:
        """Put an object back."""
        pair, capacity = self.pair[z][cpu], self.capacity[z]
        if len(pair[0]) == capacity and len(pair[1]) < capacity:
            pair.reverse()
        elif len(pair[0]) == capacity:
            if not self.empty[z] and self.generation == 0 and self.left[z] > -capacity:
                self.empty[z].append([])
            if not self.empty[z]:
                self.left[z] += 1
                self.back.free(addr, cpu, interrupt=interrupt)
                return
            self.full[z].append(pair.pop())
            pair.insert(0, self.empty[z].pop())
        pair[0].append(addr)

    def cached(self, z: int) -> list[int]:
        """Objects in magazines."""
        on_cpus = [addr for pair in self.pair[z] for magazine in pair for addr in magazine]
        return on_cpus + [addr for magazine in self.full[z] for addr in magazine]
